"""Imports inside the package go strictly downward."""

import ast
import pathlib

import pytest

import jaxdiv

ROOT = pathlib.Path(jaxdiv.__file__).parent
FLOORS = {
    "_jit": 0,
    "_inputs": 0,
    "_rows": 0,
    "_nodes": 0,
    "elementary": 1,
    "_affinity": 2,
    "_gaussian": 2,
    "_linalg": 2,
    "_links": 2,
    "_probabilities": 3,
    "_tiles": 2,
    "_softmax": 2,
    "_bures": 3,
    "_logits": 3,
    "_lowrank": 3,
    "_spectral": 3,
    "_frames": 4,
    "categorical": 5,
    "simplex": 5,
    "bernoulli": 5,
    "normal": 5,
    "mvn": 5,
    "matrix_normal": 5,
    "exponential_family": 5,
    "mixture": 6,
    "_gaussian_truths": 6,
    "batching": 6,
    "estimators": 6,
    "embedding": 6,
    "metrics": 6,
    "losses": 7,
    "transforms": 7,
    "fused": 7,
    "topk": 7,
    "objectives": 8,
    "__init__": 9,
    "__main__": 10,
}


def _imported(path):
    """The modules of the package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.removeprefix("jaxdiv.") for name in node.names if name.name.startswith("jaxdiv")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            if node.module == "jaxdiv":
                found |= {name.name for name in node.names}
            elif node.module and node.module.startswith("jaxdiv."):
                found.add(node.module.removeprefix("jaxdiv."))
    return found


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=lambda path: path.stem)
def test_a_module_imports_only_what_is_below_it(path):
    above = {name for name in _imported(path) if FLOORS.get(name, 9) >= FLOORS[path.stem]}
    assert not above


def test_every_module_has_a_floor():
    assert set(FLOORS) == {path.stem for path in ROOT.glob("*.py")}

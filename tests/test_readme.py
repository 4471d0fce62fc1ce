"""The README's examples run, and its two commands are those of the gate."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxdiv

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
ALL_BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
BLOCKS = [block for block in ALL_BLOCKS if not re.search(r"^import .*\bray\b", block)]  # the other is in with_ray.py


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_an_example_runs(index):
    names = {}
    with jax.numpy_dtype_promotion("standard"):  # what optax needs, and users have
        exec(compile(BLOCKS[index], f"README.md, example {index}", "exec"), names)
        if "step" not in names:
            return
        params, inputs = jnp.ones((4, 3)), jnp.eye(4)[:2]
        state = names["optimizer"].init(params)
        params, _, value = names["step"](params, state, inputs, jnp.array([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]]))
        assert jnp.isfinite(value)
        assert jnp.any(params != 1)


X, Y = jnp.array([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]]), jnp.array([[0.0, 1.0, 2.0], [3.0, 0.0, 1.0]])
TRAINING = {
    "distil": lambda f, _: f(X, Y, jnp.array([0, 2]), jnp.array([True, False])),
    "negative_elbo": lambda f, _: f(500, X[:, 0], X, Y),
    "ppo": lambda f, names: f(X, Y, X[:, 0], Y[:, 0], names["penalty"])[0],
    "of_two_passes": lambda f, _: f(X, Y, jax.nn.softmax(X)),
    "preference": lambda f, _: f(X[:, 0], Y[:, 0]),
    "bounded": lambda f, names: f(X.T, names["optimizer"].init(X.T), X.T, lambda params, x: x @ params, Y)[0].sum(),
}


@pytest.mark.parametrize("name", TRAINING)
def test_an_objective_of_the_training_loop_has_a_value(name):
    (block,) = [block for block in BLOCKS if f"def {name}(" in block]
    assert sum(map(bool, block.splitlines())) < 12, "short enough to read at a glance"
    names = {}
    with jax.numpy_dtype_promotion("standard"):
        exec(compile(block, f"README.md, {name}", "exec"), names)
        assert jnp.isfinite(TRAINING[name](names[name], names))


def test_there_are_examples():
    assert len(BLOCKS) == 16
    assert len(ALL_BLOCKS) == 17


def test_the_commands_are_there():
    assert "pip install -e '.[test]' && python -m pytest" in TEXT
    assert "pip install -e '.[notebooks]' && python notebooks/distillation.py" in TEXT


def test_every_name_of_the_tables_exists():
    families = "|".join(jaxdiv.__all__)
    for family, name in re.findall(rf"`({families})\.(?!name)(\w+)", TEXT):
        assert hasattr(getattr(jaxdiv, family), name), f"{family}.{name}"

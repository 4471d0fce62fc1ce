"""The README's examples run, and its two commands are those of the gate."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxdiv

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


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


def test_there_are_examples():
    assert len(BLOCKS) == 6


def test_the_commands_are_there():
    assert "pip install -e '.[test]' && python -m pytest" in TEXT
    assert "pip install -e '.[notebooks]' && python notebooks/distillation.py" in TEXT


def test_every_name_of_the_tables_exists():
    families = "|".join(jaxdiv.__all__)
    for family, name in re.findall(rf"`({families})\.(?!name)(\w+)", TEXT):
        assert hasattr(getattr(jaxdiv, family), name), f"{family}.{name}"

"""The examples in the docstrings run and print what they say."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import pytest

import jaxdiv

MODULES = ["jaxdiv"] + [f"jaxdiv.{module.name}" for module in pkgutil.iter_modules(jaxdiv.__path__)]
NAMES = {"jax": jax, "jnp": jnp, "jaxdiv": jaxdiv} | {name: getattr(jaxdiv, name) for name in jaxdiv.__all__}


@pytest.mark.gate
@pytest.mark.parametrize("name", [name for name in MODULES if name != "jaxdiv.__main__"])
def test_examples_print_what_they_say(name):
    result = doctest.testmod(importlib.import_module(name), extraglobs=NAMES)
    assert result.failed == 0

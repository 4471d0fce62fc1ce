"""A row of the table, and the arguments of its calls."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bench.cases import Host


class Row(NamedTuple):
    """A function, by its name and what it is called with, and its peer, on arguments that `make` makes of a size."""

    function: str
    of: str
    ours: Callable | Host
    plain: Callable | Host
    make: Callable[..., tuple]
    sizes: tuple[tuple[int, ...], ...]  # that of a training step, and a large one
    slopes: tuple[int, ...] = ()  # the arguments of the gradient
    seen: Callable = lambda x: x  # of our result, what the peer has too
    tolerance: float | None = 1e-3  # of values and gradients, by norm; None: the peer draws, and has no such gradient
    up_to_a_constant: bool = False  # whether the gradients agree so only, as those of probabilities do

    @property
    def name(self) -> str:
        """How the table calls it."""
        return f"{self.function} ({self.of})" if self.of else self.function


NUMBERS = {"renyi": {"alpha": 0.7}, "amari": {"alpha": 0.7}, "distillation": {"temperature": 2.0}}
NUMBERS |= {verb: {"beta": 0.3} for verb in ("generalized_js", "rescaled_js")}


def with_numbers(module, verb, of=""):
    """A function with the numbers that it needs, and `of` with these."""
    numbers = NUMBERS.get(verb, {})
    parts = [of] * bool(of) + [f"{name}={x}" for name, x in numbers.items()]
    function = getattr(module, verb)
    return (functools.partial(function, **numbers) if numbers else function), ", ".join(parts)


def normal(*shape, seed=0, scale=1.0):
    return jnp.asarray(scale * np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def positive(*shape, seed=0, scale=1.0):
    return jnp.exp(normal(*shape, seed=seed, scale=scale))


@functools.lru_cache(2)
def logits(*shape):
    x = normal(*shape, scale=2.0)
    return x, x + normal(*shape, seed=1)


@functools.lru_cache(2)
def probabilities(*shape):
    return tuple(map(jax.nn.softmax, logits(*shape)))


def labels(rows, k):
    return jnp.asarray(np.random.default_rng(2).integers(0, k, rows, np.int32))


def first(make):
    """The first of the arguments."""
    return lambda *size: make(*size)[:1]

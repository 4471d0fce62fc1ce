"""A zero in a bracket, and its derivatives."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.functions import or_one, with_tangents


def zero_in(
    step: Callable[[jax.Array], tuple[jax.Array, jax.Array]], start: jax.Array, high: jax.Array, steps: int
) -> jax.Array:
    """The zero in [0, `high`] of a decreasing function, by Newton's method, with halving if a step leaves the bracket.

    `step(s)` returns the function and its slope, which are not differentiated. `start` and `high` must be computed from
    the input, so that they keep its sharding. If the function has one sign, the result is an end of the bracket.
    """

    def closer(_, state):
        low, s, high = state
        value, slope = step(s)
        guess = s - value / or_one(slope)
        low, high = jnp.where(value >= 0, s, low), jnp.where(value <= 0, s, high)
        return low, jnp.where((low <= guess) & (guess <= high), guess, 0.5 * (low + high)), high

    return lax.fori_loop(0, steps, closer, (jnp.zeros_like(start), start, high))[1]


def moving(s: jax.Array, value: jax.Array, slope: jax.Array) -> jax.Array:
    """The zero `s` with its implicit derivatives, from its function's value and slope: a Newton step of length 0."""
    return with_tangents(s, s - value / or_one(lax.stop_gradient(slope)))

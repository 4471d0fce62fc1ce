"""A zero in a bracket, and its derivatives."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.functions import or_one, with_tangents


def zero_in(
    step: Callable[[jax.Array], tuple[jax.Array, jax.Array]], start: jax.Array, high: jax.Array, steps: int
) -> jax.Array:
    """The zero in [0, `high`] of a decreasing function: Newton's method, halving where it would leave its bracket.

    `step(s)` is the function and its slope, without derivatives of their own. `start` and `high` come from the input
    by arithmetic, so that they keep its sharding. Where the function has one sign, the end of the bracket.
    """

    def closer(_, state):
        low, s, high = state
        value, slope = step(s)
        guess = s - value / or_one(slope)
        low, high = jnp.where(value >= 0, s, low), jnp.where(value <= 0, s, high)
        return low, jnp.where((low <= guess) & (guess <= high), guess, 0.5 * (low + high)), high

    return lax.fori_loop(0, steps, closer, (jnp.zeros_like(start), start, high))[1]


def moving(s: jax.Array, value: jax.Array, slope: jax.Array) -> jax.Array:
    """The zero `s` with the derivatives that its function, of this value and slope, gives it: a Newton step of 0."""
    return with_tangents(s, s - value / or_one(lax.stop_gradient(slope)))

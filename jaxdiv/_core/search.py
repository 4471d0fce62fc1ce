"""A zero in a bracket, and its derivatives."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.functions import or_one, with_tangents


def zero_in(
    step: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    high: jax.Array,
    steps: int,
    ends: tuple[jax.Array, jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """The zero in [0, `high`] of a decreasing function, by Newton's method, with halving if a step leaves the bracket.

    `step(s)` returns the function and its slope, which are not differentiated. `high` must be computed from the input,
    so that it keeps its sharding. If the function has one sign, the result is near an end of the bracket.

    `ends` are two masks and an upper end, which may be beyond `high`. Where a mask holds, and the function has one sign
    up to 0 or up to the upper end, the result is that end itself. This takes two steps.
    """

    def closer(i, state):
        low, s, high = state
        value, slope = step(s)
        above, below = value >= 0, value <= 0
        if ends is not None:  # the first step is at the upper end, the second at 0
            above &= (i > 1) | ((i == 0) & ends[1] & (value > 0))
            below &= (i > 1) | ((i == 1) & ends[0] & (value < 0))
            high = jnp.where((i == 0) & above, s, high)
        low, high = jnp.where(above, s, low), jnp.where(below, s, high)
        guess, middle = s - value / or_one(slope), 0.5 * (low + high)
        following = jnp.where((low <= guess) & (guess <= high), guess, middle)
        if ends is not None:
            following = jnp.where(i == 0, low, jnp.where(i == 1, middle, following))
        return low, following, high

    start = 0.5 * high if ends is None else ends[2]
    return lax.fori_loop(0, steps, closer, (jnp.zeros_like(high), start, high))[1]


def moving(s: jax.Array, value: jax.Array, slope: jax.Array) -> jax.Array:
    """The zero `s` with its implicit derivatives, from its function's value and slope: a Newton step of length 0."""
    return with_tangents(s, s - value / or_one(lax.stop_gradient(slope)))

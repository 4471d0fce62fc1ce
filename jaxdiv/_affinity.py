r"""What follows from the affinity $S(s) = \sum p^s q^{1-s}$ of a discrete pair: Renyi, Bhattacharyya, Chernoff.

Near equality 1 - S would cancel; there the Amari divergence A gives it, S = 1 - s (1 - s) A(s). Elsewhere log S is a
shifted sum of exponentials, which neither overflows nor underflows. A family brings `amari`, a function of s, and for
arrays `[..., k]` log p and c = log(p / q), -inf and infinite at zeros. Row values are `[..., 1]`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv.elementary import expm1x, log1p_ratio


def _tilt(log_p, c, s):
    """log p^s q^(1-s) and where it is -inf, with finite numbers there."""
    outside = (log_p == -jnp.inf) | ((c == jnp.inf) & (s < 1))
    return jnp.where(outside, 0, log_p) + (s - 1) * jnp.where(jnp.isinf(c), 0, c), outside


def _log_affinity(log_p, c, s):
    tilt, outside = _tilt(log_p, c, s)
    empty = jnp.all(outside, -1, keepdims=True)
    log = jax.nn.logsumexp(jnp.where(outside & ~empty, -jnp.inf, tilt), -1, keepdims=True)
    infinite = jnp.any((log_p > -jnp.inf) & (c == jnp.inf), -1, keepdims=True) & (s > 1)
    return jnp.where(infinite, jnp.inf, jnp.where(empty, -jnp.inf, log))


def _near(amari, s):
    """Whether S is within 1/2 of 1, and S - 1 there. At s = 1 it always is: the limit needs no affinity."""
    x = s * (s - 1) * jnp.where(jnp.isinf(amari), 0, amari)
    near = (jnp.isfinite(amari) & (jnp.abs(x) < 0.5)) | jnp.isnan(amari)
    return near, jnp.where(near, x, 0)


def renyi(amari: Callable, log_p: jax.Array, c: jax.Array, alpha: jax.Array) -> jax.Array:
    """log S(alpha) / (alpha - 1), continued to alpha = 1 and infinity; NaN for alpha < 0."""
    s = jnp.where(alpha == jnp.inf, 2, alpha)
    a = amari(s)
    near, x = _near(a, s)
    near |= s == 1
    away = jnp.where(near, 2, s)
    value = jnp.where(near, s * jnp.where(near, a, 0) * log1p_ratio(x), _log_affinity(log_p, c, away) / (away - 1))
    largest = jnp.max(jnp.where(log_p == -jnp.inf, -jnp.inf, c), -1, keepdims=True)
    return jnp.where(alpha >= 0, jnp.where(alpha == jnp.inf, largest, value), jnp.nan)


def negative_log(amari: Callable, log_p: jax.Array, c: jax.Array, s: jax.Array) -> jax.Array:
    """-log S(s) for s in [0, 1]."""
    near, x = _near(amari(s), s)
    return jnp.where(near, -x * log1p_ratio(x), -_log_affinity(log_p, c, s))


def _tilted_moments(log_p, c, s):
    """Mean and variance of c under the law proportional to p^s q^(1-s): slope and curvature of log S."""
    tilt, outside = _tilt(log_p, c, s)
    weight = jax.nn.softmax(jnp.where(outside, -jnp.finfo(tilt.dtype).max, tilt), -1)
    finite = jnp.where(jnp.isinf(c), 0, c)
    mean = jnp.sum(weight * finite, -1, keepdims=True)
    variance = jnp.sum(weight * (finite - mean) ** 2, -1, keepdims=True)
    # Near equality the mean cancels from order c to order c^2. As sum p c = sum p psi(c), with psi(c) = exp(-c) - 1 +
    # c, it is the sum of two terms of second order.
    p = jnp.exp(log_p)
    close = jnp.sum(p * (expm1x(-finite) + finite * jnp.expm1((s - 1) * finite)), -1, keepdims=True)
    equal = jnp.max(jnp.abs(c), -1, keepdims=True) < 0.5
    return jnp.where(equal, close / jnp.sum(p * jnp.exp((s - 1) * finite), -1, keepdims=True), mean), variance


@jax.custom_jvp
def _quotient(x, y):
    """x / y, with a derivative that does not square a tiny y."""
    return x / y


@_quotient.defjvp
def _(primals, tangents):
    ratio = _quotient(*primals)
    return ratio, (tangents[0] - ratio * tangents[1]) / primals[1]


def chernoff(amari: Callable, log_p: jax.Array, c: jax.Array) -> jax.Array:
    """max over s in [0, 1] of -log S(s)."""
    fixed = lax.stop_gradient((log_p, c))
    middle = jnp.zeros_like(fixed[1][..., :1]) + 0.5  # from the input, so that it keeps its sharding

    def newton(s, log_p, c):
        mean, variance = _tilted_moments(log_p, c, s)
        return mean, s - _quotient(mean, jnp.where(variance == 0, 1, variance)), variance > 0

    def step(_, state):
        low, s, high = state
        mean, guess, moves = newton(s, *fixed)
        low, high = jnp.where(mean <= 0, s, low), jnp.where(mean >= 0, s, high)
        return low, jnp.where((low < guess) & (guess < high) & moves, guess, 0.5 * (low + high)), high

    # Below 1, where events that q excludes begin to count.
    largest = middle + (0.5 - jnp.finfo(c.dtype).epsneg)
    steps = jnp.finfo(c.dtype).nmant + 9  # halvings that reach an end of the interval to the dtype's last place
    _, s, _ = lax.fori_loop(0, steps, step, (middle - 0.5, middle, largest))
    s = jnp.minimum(s, largest)
    # The maximum moves with the laws. Two differentiable Newton steps make the derivatives of s right to second order,
    # hence those of the value to third. A maximum at an end of the interval does not move.
    for _ in range(2):
        moved = newton(s, log_p, c)[1]
        s = jnp.where((s > 1e-6) & (s < 1 - 1e-6) & (moved > 0) & (moved < 1), moved, s)
    return negative_log(amari, log_p, c, s)

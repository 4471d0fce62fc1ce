r"""What follows from the affinity $S(s) = \sum p^s q^{1-s}$ of a discrete pair: Renyi, Bhattacharyya, Chernoff.

Near equality 1 - S would cancel; there the Amari divergence A gives it, S = 1 - s (1 - s) A(s). Elsewhere log S is a
shifted sum of exponentials, which neither overflows nor underflows. A family brings the `Parts`. Row values are
`[..., 1]`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.functions import expm1x, log1p_ratio


class Parts(NamedTuple):
    """A pair `[..., k]`: A as a function of s, log p and c = log(p / q), -inf and infinite at zeros, and the laws."""

    amari: Callable
    log_p: jax.Array
    c: jax.Array
    p: jax.Array
    q: jax.Array


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


def renyi(parts: Parts, alpha: jax.Array) -> jax.Array:
    """log S(alpha) / (alpha - 1), continued to alpha = 1 and infinity; NaN for alpha < 0."""
    amari, log_p, c, *_ = parts
    s = jnp.where(alpha == jnp.inf, 2, alpha)
    a = amari(s)
    near, x = _near(a, s)
    near |= s == 1
    away = jnp.where(near, 2, s)
    value = jnp.where(near, s * jnp.where(near, a, 0) * log1p_ratio(x), _log_affinity(log_p, c, away) / (away - 1))
    largest = jnp.max(jnp.where(log_p == -jnp.inf, -jnp.inf, c), -1, keepdims=True)
    largest = jnp.where(largest <= 0, 0, largest)  # 0 at equality, with the subgradient 0
    # The maximum of many rows loses NaN on XLA:CPU.
    largest = jnp.where(jnp.any(jnp.isnan(c), -1, keepdims=True), jnp.nan, largest)
    return jnp.where(alpha >= 0, jnp.where(alpha == jnp.inf, largest, value), jnp.nan)


def negative_log(parts: Parts, s: jax.Array) -> jax.Array:
    """-log S(s) for s in (0, 1)."""
    amari, log_p, c, *_ = parts
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
    p, equal = jnp.exp(log_p), jnp.max(jnp.abs(c), -1, keepdims=True) < 0.5
    small = jnp.where(equal, finite, 0)
    close = jnp.sum(p * (expm1x(-small) + small * jnp.expm1((s - 1) * small)), -1, keepdims=True)
    mass = jnp.sum(p * jnp.exp((s - 1) * small), -1, keepdims=True)
    return jnp.where(equal, close / jnp.where(equal, mass, 1), mean), variance


@jax.custom_jvp
def _quotient(x, y):
    """x / y, with a derivative that does not square a tiny y."""
    return x / y


@_quotient.defjvp
def _(primals, tangents):
    ratio = _quotient(*primals)
    return ratio, (tangents[0] - ratio * tangents[1]) / primals[1]


def _outside(p, excluded):
    """-log of the mass that is not on excluded events."""
    mass = [jnp.sum(jnp.where(where & (p != 0), p, 0), -1, keepdims=True) for where in (excluded, ~excluded)]
    near, none = mass[0] < 0.5, mass[1] == 0
    out, rest = jnp.where(near, mass[0], 0), jnp.where(near | none, 1, mass[1])
    return jnp.where(none, jnp.inf, jnp.where(near, out * log1p_ratio(-out), -jnp.log(rest)))


def chernoff(parts: Parts) -> jax.Array:
    """max over s in [0, 1] of -log S(s), the sum on the common support."""
    _, log_p, c, p, q = parts
    only_p, only_q = c == jnp.inf, c == -jnp.inf
    log_p = jnp.where(only_p | only_q, -jnp.inf, log_p)
    fixed = lax.stop_gradient((log_p, c))
    middle = jnp.zeros_like(fixed[1][..., :1]) + 0.5  # from the input, so that it keeps its sharding

    def newton(s, log_p, c):
        mean, variance = _tilted_moments(log_p, c, s)
        return mean, variance, s - _quotient(mean, jnp.where(variance == 0, 1, variance))

    def step(_, state):
        low, s, high = state
        mean, variance, guess = newton(s, *fixed)
        low, high = jnp.where(mean <= 0, s, low), jnp.where(mean >= 0, s, high)
        return low, jnp.where((low < guess) & (guess < high) & (variance > 0), guess, 0.5 * (low + high)), high

    # Below 1, where a log-ratio so large that it excludes an event in all but name would count.
    steps, largest = jnp.finfo(c.dtype).nmant + 9, 1 - jnp.finfo(c.dtype).epsneg
    _, s, _ = lax.fori_loop(0, steps, step, (middle - 0.5, middle, middle * 2 * largest))
    # The maximum moves with the laws. Two differentiable Newton steps make the derivatives of s right to second order,
    # hence those of the value to third. Near an end, at equality and where a law is certain, how it moves does not
    # matter, and would overflow.
    _, variance, guess = newton(s, *fixed)
    small = jnp.finfo(c.dtype).tiny ** 0.5
    moves = (s > 1e-6) & (s < 1 - 1e-6) & (guess > 0) & (guess < 1) & (variance > small) & (variance < 1 / small)
    log_p_moving, c_moving = (jnp.where(moves, x, 0) for x in (log_p, c))
    for _ in range(2):
        s = jnp.where(moves, newton(s, log_p_moving, c_moving)[2], s)
    # Where a law has events of its own the slope may keep its sign up to an end: there S is the other's mass on the
    # common support.
    first = jnp.any(only_q, -1, keepdims=True) & (newton(middle - 0.5, *fixed)[0] >= 0)
    last = jnp.any(only_p, -1, keepdims=True) & (newton(middle + 0.5, *fixed)[0] <= 0)
    inside = negative_log(parts, jnp.where(first | last, middle, s))
    return jnp.where(first, _outside(q, only_q), jnp.where(last, _outside(p, only_p), inside))

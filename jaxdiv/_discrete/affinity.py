r"""Functions of the affinity $S(s) = \sum p^s q^{1-s}$ of a discrete pair: Renyi and Chernoff.

Near equality 1 - S would cancel, so it is computed from the Amari divergence A: S = 1 - s (1 - s) A(s). Elsewhere log S
is a shifted sum of exponentials, which neither overflows nor underflows. Row values are `[..., 1]`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.functions import endless, expm1x, largest_of_row, log1p_ratio, log_sum_exp, with_tangents
from jaxdiv._core.rules import custom_jvp, jvp
from jaxdiv._core.search import moving, zero_in


class Pair(NamedTuple):
    """A pair `[..., k]`: log p and c = log(p / q), infinite at zeros; p and q."""

    log_p: jax.Array
    c: jax.Array
    p: jax.Array
    q: jax.Array


Amari = Callable[[jax.Array], jax.Array]  # the Amari divergence of a pair as a function of s


def _any(mask):
    """Whether the mask is True for any event of a row."""
    return jnp.any(mask, -1, keepdims=True)


def _tilt(log_p, c, s):
    """log p^s q^(1-s), with finite numbers where it is -inf; and a mask of those places."""
    outside = (log_p == -jnp.inf) | ((c == jnp.inf) & (s < 1))
    return jnp.where(outside, 0, log_p) + (s - 1) * jnp.where(jnp.isinf(c), 0, c), outside


def log_affinity(log_p: jax.Array, c: jax.Array, s: jax.Array) -> jax.Array:
    """log S(s), from log p and c = log(p / q), infinite at zeros."""
    tilt, outside = _tilt(log_p, c, s)
    empty = ~_any(~outside)
    log = log_sum_exp(jnp.where(outside & ~empty, -jnp.inf, tilt))
    infinite = _any((log_p > -jnp.inf) & (c == jnp.inf)) & (s > 1)
    return jnp.where(infinite, jnp.inf, jnp.where(empty, -jnp.inf, log))


def _near(amari, s):
    """Whether S is within 1/2 of 1, and S - 1 there, else 0. At s = 1 it always is, as S is 1 in that limit."""
    x = s * (s - 1) * jnp.where(jnp.isinf(amari), 0, amari)
    near = (jnp.isfinite(amari) & (jnp.abs(x) < 0.5)) | jnp.isnan(amari)
    return near, jnp.where(near, x, 0)


def renyi(amari: Amari, pair: Pair, alpha: jax.Array) -> jax.Array:
    """log S(alpha) / (alpha - 1), with its limits at alpha = 1 and infinity; NaN for alpha < 0."""
    log_p, c, _, q = pair
    last = endless(alpha)
    s = jnp.where(last, 2, alpha)
    a = amari(s)
    near, x = _near(a, s)
    near |= s == 1
    away = jnp.where(near, 2, s)
    log = log_affinity(log_p, c, away)
    far = jnp.where(jnp.isinf(log), jnp.inf, jnp.where(jnp.isinf(log), 0, log) / (away - 1))
    # At orders for which A overflows, 1 - S is the mass of q where p has none.
    lost = jnp.sum(jnp.where(c == -jnp.inf, q, 0), -1, keepdims=True)
    small = (alpha < jnp.finfo(alpha.dtype).tiny ** 0.5) & (lost > 0) & (lost < 0.5)
    far = jnp.where(small, with_tangents(lost * log1p_ratio(jnp.where(small, -lost, 0)), far), far)
    # Where it is infinite, its derivative in the order is 0 too.
    close = jnp.where(jnp.isinf(a), jnp.inf, s * jnp.where(near & ~jnp.isinf(a), a, 0) * log1p_ratio(x))
    value = jnp.where(near & ~small, close, far)
    value = jnp.where(last, _largest_log_ratio(log_p, c), value)
    return jnp.where(alpha >= 0, value, jnp.nan)


def _largest_log_ratio(log_p, c):
    """The largest log(p / q) where p is not 0; at equality it is 0, with subgradient 0."""
    largest = largest_of_row(jnp.where(log_p == -jnp.inf, -jnp.inf, c))
    # XLA:CPU's maximum over many rows can lose NaN.
    return jnp.where(_any(jnp.isnan(c)), jnp.nan, jnp.where(largest <= 0, 0, largest))


def tilted(log_p: jax.Array, c: jax.Array, s: jax.Array) -> jax.Array:
    """The law proportional to p^s q^(1-s)."""
    tilt, outside = _tilt(log_p, c, s)
    return jax.nn.softmax(jnp.where(outside, -jnp.finfo(tilt.dtype).max, tilt), -1)


def tilted_moments(log_p: jax.Array, c: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of c under the law proportional to p^s q^(1-s): slope and curvature of log S."""
    weight = tilted(log_p, c, s)
    finite = jnp.where(jnp.isinf(c), 0, c)
    mean = jnp.sum(weight * finite, -1, keepdims=True)
    variance = jnp.sum(weight * (finite - mean) ** 2, -1, keepdims=True)
    # Near equality the terms of the mean are of order c, but their sum is of order c^2. As sum p c = sum p psi(c) with
    # psi(c) = exp(-c) - 1 + c, it can be written as a sum of two terms of second order, which do not cancel.
    p, equal = jnp.exp(log_p), jnp.max(jnp.abs(c), -1, keepdims=True) < 0.5
    small = jnp.where(equal, finite, 0)
    close = jnp.sum(p * (expm1x(-small) + small * jnp.expm1((s - 1) * small)), -1, keepdims=True)
    mass = jnp.sum(p * jnp.exp((s - 1) * small), -1, keepdims=True)
    return jnp.where(equal, close / jnp.where(equal, mass, 1), mean), variance


def _outside(p, log_p, excluded):
    """Minus the logarithm of the mass outside of the excluded events, which may underflow."""
    out = jnp.sum(jnp.where(excluded & (p != 0), p, 0), -1, keepdims=True)
    log = log_sum_exp(jnp.where(excluded, -jnp.inf, log_p))
    near = (out < 0.5) & (log > -jnp.inf)
    out = jnp.where(near, out, 0)
    return jnp.where(near, out * log1p_ratio(-out), -log)


def chernoff(
    pair_of: Callable[..., Pair], negative_log_of: Callable[..., jax.Array], *laws: jax.Array | None
) -> jax.Array:
    """The maximum of -log S(s) over s in [0, 1], with sums over the common support; it can be at an end.

    The `Pair` is a function of the laws, which are differentiated, and -log S one of s in (0, 1) and the laws.
    """

    def height(place, *laws):
        s, first, last = place
        pair = pair_of(*laws)
        log_p, only_p, only_q = _common(pair)
        log_q = log_p - jnp.where(only_p | only_q, 0, pair.c)
        law = (jnp.where(first, x, y) for x, y in ((pair.q, pair.p), (log_q, log_p), (only_q, only_p)))
        return jnp.where(first | last, _outside(*law), negative_log_of(s, *laws))

    @custom_jvp
    def maximum(*laws):
        return height(_place(pair_of(*laws)), *laws)

    def rule(primals, tangents):
        # At a maximum s has no first-order effect on the value. It has one on the derivatives, so s keeps its own.
        place = _place(pair_of(*primals))
        return jvp(functools.partial(height, place), primals, tangents)

    maximum.defjvp(rule, symbolic_zeros=True)
    return maximum(*laws)


def _common(pair):
    """Log p without the events of one law alone, and those of p and of q."""
    only_p, only_q = pair.c == jnp.inf, pair.c == -jnp.inf
    return jnp.where(only_p | only_q, -jnp.inf, pair.log_p), only_p, only_q


def _place(pair):
    """The best s inside of [0, 1], and whether the maximum is at 0, or at 1, instead.

    S(0) is the mass of q, and S(1) that of p, on the common support. If a law has events of its own, the slope of S can
    keep its sign up to an end.
    """
    log_p, only_p, only_q = _common(pair)
    s = _best_order(log_p, pair.c, _any(only_q), _any(only_p))
    first, last = (s == 0) & _any(only_q), s == 1
    return jnp.where(first | last, 0.5, s), first, last


def _best_order(log_p, c, *ends):
    """The s at which the slope of log S is 0, with its derivatives with respect to the laws.

    `ends` say where s may be 0 and where it may be 1.
    """
    fixed, info = lax.stop_gradient((log_p, c)), jnp.finfo(c.dtype)

    def descent(s):
        mean, variance = tilted_moments(*fixed, s)
        # A curvature of 0 or infinity is replaced by a tiny one: its step leaves the bracket, which is then halved.
        return -mean, -jnp.where((variance == 0) | (variance == jnp.inf), info.tiny, variance)

    # Else s is below 1: at 1, an event that a huge log-ratio practically excludes would count. Halving alone takes
    # nmant + 1 steps from a bracket of length 1 to half an ulp of 1; two are for the ends, the others for Newton's.
    one = jnp.zeros_like(fixed[1][..., :1]) + 1  # from the input, so that it keeps its sharding
    s = zero_in(descent, one * (1 - info.epsneg), info.nmant + 11, (*ends, one))
    moves = _moves(s, *tilted_moments(*fixed, s))
    mean, variance = tilted_moments(jnp.where(moves, log_p, 0), jnp.where(moves, c, 0), s)
    # The slope of the value in s is 0. So first derivatives of s are enough for derivatives of the value up to order 3.
    return jnp.where(moves, moving(s, -mean, -variance), s)


def _moves(s, mean, variance):
    """Whether the best order has derivatives that matter.

    Near an end of [0, 1], at equality and where a law is certain they do not matter, and computing them would overflow.
    """
    small = jnp.finfo(s.dtype).tiny ** 0.5
    known = (variance > small) & (variance < 1 / small)
    guess = s - mean / jnp.where(known, variance, 1)
    return known & (s > 1e-6) & (s < 1 - 1e-6) & (guess > 0) & (guess < 1)

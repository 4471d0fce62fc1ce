"""Two logit vectors -> probabilities and their accurate log-ratio, and the sums over events built on them.

For p = softmax(a / T), q = softmax(b / T) and one row at a time, with all differences taken before any sum:

    r   = ((b - a) - (max b - max a)) / T        as exact two-difference pairs: common shifts cost no digits
    lam = log(sum exp(b') / sum exp(a'))         from sum (exp(b') - exp(a')), each difference as exp(a') expm1(r)
    c   = log(p / q) = lam - r                   where a', b' are the logits less their maximum, over T

c is accurate to its own magnitude, and an error common to all of a row's c enters a divergence only squared.

`separable` sums a `Divergence` over a row. Its value and the few row numbers its gradient needs come from `by_rows`;
the gradient is then elementwise in the logits and the row numbers, so nothing of shape `[rows, k]` is stored between
the two. A slope V has the gradient V - p sum(V) in the logits. Where one event has nearly all of the mass this
cancels, and that event's entry must be minus the sum of the others: slopes are measured from the dominant event's,
which makes it so.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.blocks import barrier, in_row_blocks
from jaxdiv._core.functions import difference, is_given, split
from jaxdiv._core.polynomials import polynomial
from jaxdiv._discrete.record import Divergence, Event
from jaxdiv._inputs import working

Axes = str | tuple[str, ...] | None

# ---------------------------------------------------------------- exact differences


def _up(x):
    """The working precision: float32 for half precision."""
    return x.astype(working(x))


def _sum(x, over=None):
    """Over a row, and over the axis of devices that share it."""
    total = jnp.sum(x, -1, keepdims=True)
    return total if over is None else lax.psum(total, over)


def _max(x, over=None):
    largest = jnp.max(x, -1, keepdims=True)
    return _up(largest if over is None else lax.pmax(largest, over))


def first_event(events: int, over: Axes) -> int | jax.Array:
    """How many events of a row are on the devices before this one, which has `events` of them."""
    return 0 if over is None else lax.axis_index(over) * events


def _over(x, temperature):
    return x if temperature is None else x / temperature


def _two_difference(x, y):
    """x - y as an exact sum of two floats, for finite x - y."""
    high = x - y
    back = x - high
    return high, (x - (high + back)) + (back - y)


def _divided(high, low, temperature):
    """(high + low) / temperature as a sum of two floats."""
    x = high / temperature
    (t_high, t_low), (x_high, x_low) = split(temperature), split(x)
    remainder = (((high - x_high * t_high) - x_high * t_low) - x_low * t_high) - x_low * t_low
    return x, (remainder + low) / temperature


def _exp_less(x, largest, temperature):
    """exp((x - largest) / T) with the rounding of the difference put back; 0 for x = -inf."""
    high, low = _two_difference(x, largest)
    if temperature is not None:
        high, low = _divided(high, low, temperature)
    value = jnp.exp(high)
    return jnp.where(value == 0, 0, value + value * low)


def _log_quotient(a, b, pivot, temperature):
    """((b - a) - pivot) / T; infinite where one of the two has no mass, 0 where neither has."""
    high, low = _two_difference(b, a)
    r = _over((high - pivot[0]) + (low - pivot[1]), temperature)
    return jnp.where(jnp.abs(high) < jnp.inf, r, jnp.where(a == b, 0, high))


# ---------------------------------------------------------------- the pair


class _Rows(NamedTuple):
    """Row numbers `[..., 1]` from which `_pair` is elementwise in the logits."""

    max_a: jax.Array
    max_b: jax.Array
    sum_a: jax.Array
    sum_b: jax.Array
    log_sums: jax.Array
    log_sum_b: jax.Array | None


class _Anchor(NamedTuple):
    """Where one law is largest: the other's logit, the exact log-quotient, and whether that law saturates."""

    other: jax.Array
    high: jax.Array
    low: jax.Array
    saturated: jax.Array


class _Slope(NamedTuple):
    """Row numbers of the gradient in one law's logits; none where its slopes need none, no anchor if they use none."""

    anchor: _Anchor | None = None
    dominant: jax.Array | None = None
    mean: jax.Array | None = None


def _unnormalised(a, b, max_a, max_b, temperature):
    exp_a, exp_b = _exp_less(a, max_a, temperature), _exp_less(b, max_b, temperature)
    return exp_a, exp_b, _log_quotient(a, b, _two_difference(max_b, max_a), temperature)


def _log_sum(exps, over=None):
    """log of a row's sum of exponentials of which the largest is 1, to full relative accuracy also when it is tiny."""
    ones = _sum(jnp.where(exps == 1, 1, 0).astype(exps.dtype), over)
    rest = _sum(jnp.where(exps == 1, 0, exps), over)
    return jnp.where(ones == 1, jnp.log1p(rest), jnp.log(ones + rest))


def _rows(a, b, max_a, max_b, temperature, surprising=False, over=None):
    exp_a, exp_b, r = _unnormalised(a, b, max_a, max_b, temperature)
    sum_a, sum_b = _sum(exp_a, over), _sum(exp_b, over)
    near = jnp.abs(r) <= 0.5
    gain = _sum(jnp.where(near, exp_a * (r + r * r * polynomial("exp_short", r)), exp_b - exp_a), over)
    # log1p of positive numbers only: XLA's loses digits below zero.
    log_sums = jnp.where(gain < 0, -jnp.log1p(jnp.maximum(-gain, 0) / sum_b), jnp.log1p(jnp.maximum(gain, 0) / sum_a))
    return _Rows(max_a, max_b, sum_a, sum_b, log_sums, _log_sum(exp_b, over) if surprising else None)


def _pair(a, b, temperature, rows, anchor=None):
    """The `Event` of each event, centred at an anchor."""
    exp_a, exp_b, r = _unnormalised(a, b, rows.max_a, rows.max_b, temperature)
    p, q, c = exp_a * (1 / rows.sum_a), exp_b * (1 / rows.sum_b), rows.log_sums - r
    if anchor is None:
        centred, saturated = c, jnp.zeros_like(c)
        surprise = None if rows.log_sum_b is None else rows.log_sum_b - _over(b - rows.max_b, temperature)
    else:
        centred, saturated = -_log_quotient(a, b, (anchor.high, anchor.low), temperature), anchor.saturated
        surprise = -_over(b - anchor.other, temperature)
    return Event(p, q, c, difference(p, q, c), centred, saturated, surprise)


def _beside(a, b, rows, own, over):
    """The other law's logit where one law's is largest, of several such events at the one nearest its maximum."""
    mine, other, top = (a, b, rows.max_a) if own == "p" else (b, a, rows.max_b)
    return _max(jnp.where(mine == top, other, -jnp.inf), over)


def _anchor(there, temperature, rows, own):
    """The anchor of one law: the event where its logit is largest, the other's being `there`."""
    top = rows.max_a if own == "p" else rows.max_b
    finite = jnp.where(jnp.isfinite(there), there, rows.max_b if own == "p" else rows.max_a)
    high, low = _two_difference(finite, top) if own == "p" else _two_difference(top, finite)
    less = _two_difference(rows.max_b, rows.max_a)
    r = (high - less[0]) + (low - less[1])
    c = rows.log_sums - _over(r, temperature)
    saturated = (there == -jnp.inf) | ((c if own == "p" else -c) > 2)
    return _Anchor(finite, high, low, saturated.astype(c.dtype))


# ---------------------------------------------------------------- sums over a row


def _zeros_like(tree):
    return jax.tree.map(jnp.zeros_like, tree)


def _centred_tangent(x, dx, largest, temperature, d_temperature):
    """The tangent of x / T, up to a constant of the row."""
    tangent = _over(_up(dx), temperature) if is_given(dx) else None
    if temperature is None or not is_given(d_temperature):
        return tangent
    high = _up(x) - largest
    slide = -jnp.where(jnp.isfinite(high), high, 0) * (d_temperature / (temperature * temperature))
    return slide if tangent is None else tangent + slide


def _slope(divergence, own, pair, *parameters):
    """(probability, slope) of one law."""
    if own == "p":
        return pair.p, divergence.slope_p(pair, *parameters)
    return pair.q, divergence.slope_q(pair, *parameters)


def _slope_rows(divergence, own, over, a, b, temperature, rows, there, value, parameters):
    """The `_Slope` of one law; an infinite mean says that the gradient of the row is zero."""
    anchor = _anchor(there, temperature, rows, own) if divergence.anchored else None
    top = (rows.max_a, there) if own == "p" else (there, rows.max_b)
    p, slope = _slope(divergence, own, _pair(*top, temperature, rows, anchor), *parameters)
    dominant = jnp.where(p > 0.5, slope / p, 0)
    p, slope = _slope(divergence, own, _pair(a, b, temperature, rows, anchor), *parameters)
    mean = _sum(jnp.where(p > 0.5, 0, slope - p * dominant), over)
    # Where the value is infinite only the second law can have a gradient, and only if its slopes are finite.
    dead = (value == jnp.inf) & ~(jnp.isfinite(mean) & jnp.isfinite(dominant) & (own == "q"))
    return _Slope(anchor, jnp.where(dead, 0, dominant), jnp.where(dead, jnp.inf, mean))


def _statistics_of_block(divergence, owns, over, recompute, a, b, temperature, *parameters):
    """The value of each row, its `_Rows`, and a `_Slope` for each of `owns`."""
    b = a if b is None else b
    max_a, max_b = _max(a, over), _max(b, over)
    x, y, max_a, max_b = barrier(recompute, a, b, max_a, max_b)
    rows = _rows(_up(x), _up(y), max_a, max_b, temperature, divergence.surprising, over)
    balanced = [own == "q" and divergence.balanced_q for own in owns]
    beside = [
        None if free else _beside(_up(x), _up(y), rows, own, over) for own, free in zip(owns, balanced, strict=True)
    ]
    x, y, rows, beside = barrier(recompute, a, b, rows, beside)
    value = _sum(divergence.term(_pair(_up(x), _up(y), temperature, rows), *parameters), over)
    slopes = [
        _Slope()
        if there is None
        else _slope_rows(divergence, own, over, _up(x), _up(y), temperature, rows, there, value, parameters)
        for own, there in zip(owns, beside, strict=True)
    ]
    return value, rows, slopes


@functools.cache
def _statistics(divergence: Divergence, owns: tuple[str, ...], over: Axes = None) -> Callable:
    """(a, b, T, *parameters) -> value, rows, slopes; differentiable in the value alone."""
    block = functools.partial(_statistics_of_block, divergence, owns, over)
    statistics = jax.custom_jvp(functools.partial(in_row_blocks, block))

    def rule(primals, tangents):
        a, b, temperature, *parameters = primals
        da, db, dt, *d_parameters = tangents
        # One law alone is its own second argument, whose slopes are zero.
        laws = [("p", da)] if b is None else [("p", da), ("q", db)]
        also = tuple(own for own, d in laws if own not in owns and (is_given(d) or is_given(dt)))
        value, rows, slopes = _statistics(divergence, owns + also, over)(*primals)
        rows, slopes = lax.stop_gradient((rows, slopes))
        tangent = jnp.zeros_like(value)
        for own, slope in zip(owns + also, slopes, strict=True):
            x, dx, largest = (a, da, rows.max_a) if own == "p" else (b, db, rows.max_b)
            if is_given(dx) or is_given(dt):
                tangent += _dot(divergence, own, over, x, dx, largest, dt, a, b, temperature, rows, slope, parameters)
        if any(map(is_given, d_parameters)):
            tangent += _parameter_tangent(divergence, over, a, b, temperature, parameters, d_parameters)
        out = rows, slopes[: len(owns)]
        return (value, *out), (tangent, *_zeros_like(out))

    statistics.defjvp(rule, symbolic_zeros=True)
    return statistics


def _dot(divergence, own, over, x, dx, largest, dt, a, b, temperature, rows, slope, parameters):
    """The gradient in one law's logits times their tangent.

    Rematerialised: between value and gradient in separate programs the logits are kept, not the gradient.
    """
    real = tuple(d for d in (dx, dt) if is_given(d))

    def dot(x, real, largest, a, b, temperature, rows, slope, parameters):
        given = iter(real)
        tangents = [next(given) if is_given(d) else d for d in (dx, dt)]
        tangent = _centred_tangent(x, tangents[0], largest, temperature, tangents[1])
        return _sum(_gradient(divergence, own, over)(a, b, temperature, rows, slope, *parameters) * tangent, over)

    return jax.checkpoint(dot)(x, real, largest, a, b, temperature, rows, slope, parameters)


def _parameter_tangent(divergence, over, a, b, temperature, parameters, tangents):
    tangents = [d if is_given(d) else jnp.zeros(d.shape, d.dtype) for d in tangents]

    def value(*parameters):
        return _sum(divergence.term(_differentiable_pair(a, b, temperature, over), *parameters), over)

    return jax.jvp(value, tuple(parameters), tuple(tangents))[1]


@functools.cache
def _gradient(divergence: Divergence, own: str, over: Axes = None) -> Callable:
    """The gradient in the scaled logits of one law, elementwise in the logits and the row numbers."""

    @jax.custom_jvp
    def gradient(a, b, temperature, rows, slope, *parameters):
        pair = _pair(_up(a), _up(a if b is None else b), temperature, rows, slope.anchor)
        p, v = _slope(divergence, own, pair, *parameters)
        if slope.mean is None:
            return v
        # The dominant event is one: its own rounding must not differ from that of its row number.
        v = jnp.where(p > 0.5, 0, v - p * slope.dominant)
        return jnp.where(slope.mean == jnp.inf, 0, v - p * slope.mean)

    @gradient.defjvp
    def _(primals, tangents):
        a, b, temperature, _, slope, *parameters = primals
        da, db, dt, _, _, *d_parameters = tangents
        dead = False if slope.mean is None else slope.mean == jnp.inf

        def plain(a, b, temperature, *parameters):
            # On dead rows any pair with finite slopes will do.
            b = a if b is None else jnp.where(dead, a.astype(b.dtype), b)
            p, v = _slope(divergence, own, _differentiable_pair(a, b, temperature, over), *parameters)
            return jnp.where(dead, 0, v - p * _sum(v, over))

        _, tangent = jax.jvp(plain, (a, b, temperature, *parameters), (da, db, dt, *d_parameters))
        return gradient(*primals), tangent

    return gradient


def total(
    divergence: Divergence,
    a: jax.Array,
    b: jax.Array | None,
    temperature: jax.Array | None,
    *parameters: jax.Array,
    over: Axes = None,
) -> jax.Array:
    """The sum of a divergence's terms over the last axis of logits `[..., k]`, in the working precision.

    `temperature` (None for 1) and `parameters` have the rank of the logits, with a last axis of length 1. `over` names
    axes of devices, inside `jax.shard_map`, over which the last axis is divided.
    """
    return _statistics(divergence, (), over)(a, b, temperature, *parameters)[0][..., 0]


# ---------------------------------------------------------------- differentiable probabilities


def _centre(p, d, over):
    """d less its mean under p, so that in reverse a dominant event gets minus the sum of the others."""
    dominant = p > 0.5
    d = jnp.where(dominant, 0, d - _sum(jnp.where(dominant, d, 0), over))
    return d - _sum(p * d, over)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def distributions(
    a: jax.Array, b: jax.Array, temperature: jax.Array | None, over: Axes = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """softmax(a / T), softmax(b / T) and their log-ratio, differentiable to any order; whole arrays, no blocks."""
    a, b = _up(a), _up(b)
    pair = _pair(a, b, temperature, _rows(a, b, _max(a, over), _max(b, over), temperature, over=over))
    return pair.p, pair.q, pair.log_ratio


@distributions.defjvp
def _(over, primals, tangents):
    a, b, temperature = primals
    da, db, dt = tangents
    p, q, c = distributions(a, b, temperature, over)
    u_a = _centre(p, _centred_tangent(a, da, _max(lax.stop_gradient(a), over), temperature, dt), over)
    u_b = _centre(q, _centred_tangent(b, db, _max(lax.stop_gradient(b), over), temperature, dt), over)
    return (p, q, c), (p * u_a, q * u_b, u_a - u_b)


def _differentiable_pair(a, b, temperature, over=None):
    p, q, c = distributions(a, b, temperature, over)
    # A finite stand-in for -inf: its derivatives are multiplied by an exact zero.
    less = jnp.maximum(_up(b) - _max(lax.stop_gradient(b), over), -(jnp.finfo(c.dtype).max ** 0.75))
    surprise = -_over(less, temperature)
    return Event(p, q, c, difference(p, q, c), c, jnp.zeros_like(c), surprise)

"""From two logit vectors to probabilities and their accurate log-ratio, and to sums over events.

For p = softmax(a / T), q = softmax(b / T) and one row at a time, with all differences taken before any sum:

    r   = ((b - a) - (max b - max a)) / T        as exact two-difference pairs: common shifts cost no digits
    lam = log(sum exp(b') / sum exp(a'))         from sum (exp(b') - exp(a')), each difference as exp(a') expm1(r)
    c   = log(p / q) = lam - r                   with a' = (a - max a) / T and b' = (b - max b) / T

The error of c is relative to c itself. An error that all c of a row share enters a divergence only squared.

`total` sums a `Divergence` over a row. The value, and the few row numbers that the gradient needs, come from
`in_row_blocks`. The gradient is then elementwise in the logits and the row numbers, so nothing of shape `[rows, k]` is
stored between the two. A slope V has the gradient V - p sum(V) in the logits. If one event has nearly all of the mass,
this cancels, and the entry of that event must be minus the sum of the others. To achieve this, slopes are measured from
the slope of the dominant event.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core import kernels
from jaxdiv._core.blocks import barrier, in_row_blocks
from jaxdiv._core.events import LAST, Axes, Events, few_elsewhere, largest
from jaxdiv._core.functions import difference, tangent_in_parameters
from jaxdiv._core.passes import recomputed, sums_in_passes
from jaxdiv._core.polynomials import polynomial
from jaxdiv._core.rules import custom_jvp
from jaxdiv._discrete.differences import divided_by, exp_less, log_quotient, two_difference
from jaxdiv._discrete.record import Divergence, Event, unbounded
from jaxdiv._inputs import working

DEAD = jnp.inf  # the mean slope of a row whose gradient is zero


class _Way(NamedTuple):
    """The static settings for the gradient in the logits of one law: `own` is "p" (of logits a) or "q" (of b)."""

    divergence: Divergence
    own: str
    events: Events


class Inputs(NamedTuple):
    """The arguments of a sum over rows: logits, temperature and parameters; None for an absent one.

    If b is absent (entropy), the law is compared with itself. Tangents have the same form, with None for zeros.
    """

    a: jax.Array | None
    b: jax.Array | None
    temperature: jax.Array | None
    parameters: tuple[jax.Array | None, ...] = ()


def _own_first(way, p, q):
    """A pair of things, that of the own law first."""
    return (p, q) if way.own == "p" else (q, p)


# ---------------------------------------------------------------- rows


def up(x: jax.Array) -> jax.Array:
    """Casts to the working precision: half precision becomes float32."""
    return x.astype(working(x))


def row_sum(x, events=LAST):
    """The sum over a row of a stored array."""
    total = jnp.sum(x, events.axis, keepdims=True)
    return total if events.over is None else lax.psum(total, events.over)


def row_max(x, events=LAST):
    return up(largest(events, lambda x: x, x))


def first_event(events: int, over: Axes) -> int | jax.Array:
    """The number of a row's events on the devices before this one, if each device has `events` of them."""
    return 0 if over is None else lax.axis_index(over) * events


# ---------------------------------------------------------------- the pair


class RowNumbers(NamedTuple):
    """Numbers of a row `[..., 1]`: maxima, sums of exp(a') and exp(b'), lam. With them `event_of` is elementwise."""

    max_a: jax.Array
    max_b: jax.Array
    sum_a: jax.Array
    sum_b: jax.Array
    log_sums: jax.Array
    log_sum_a: jax.Array | None
    log_sum_b: jax.Array | None


class _Anchor(NamedTuple):
    """At the event where one law is largest: the other's logit, the exact log-quotient, and `Event.saturated`."""

    other: jax.Array
    high: jax.Array
    low: jax.Array
    saturated: jax.Array


class _Slope(NamedTuple):
    """Row numbers of the gradient in one law's logits; None for those that the slopes do not need."""

    anchor: _Anchor | None = None
    dominant: jax.Array | None = None
    mean: jax.Array | None = None


def _unnormalised(a, b, max_a, max_b, temperature):
    exp_a, exp_b = exp_less(a, max_a, temperature), exp_less(b, max_b, temperature)
    return exp_a, exp_b, log_quotient(a, b, two_difference(max_b, max_a), temperature)


def _log_of(ones, rest):
    """log(ones + rest), accurate also when it is tiny: a sum of exponentials of which `ones` are the largest, 1."""
    return jnp.where(ones == 1, jnp.log1p(rest), jnp.log(ones + rest))


def row_numbers(a, b, max_a, max_b, temperature, raised=False, surprising=False, events=LAST, recompute=False):
    def of_event(a, b, max_a, max_b):
        exp_a, exp_b, r = _unnormalised(up(a), up(b), max_a, max_b, temperature)
        gain = jnp.where(jnp.abs(r) <= 0.5, exp_a * (r + r * r * polynomial("exp_short", r)), exp_b - exp_a)
        top = exp_b == 1
        apart = [jnp.where(top, 1, 0).astype(exp_b.dtype), jnp.where(top, 0, exp_b)] if surprising else []
        return [exp_a, exp_b, gain, *apart]

    passes = 3 if recompute and not surprising else 1
    sum_a, sum_b, gain, *apart = sums_in_passes(passes, events, of_event, (a, b), (max_a, max_b))
    # Only log1p of positive numbers: for negative ones XLA's loses digits.
    log_sums = jnp.where(gain < 0, -jnp.log1p(jnp.maximum(-gain, 0) / sum_b), jnp.log1p(jnp.maximum(gain, 0) / sum_a))
    log_sum_a, log_sum_b = jnp.log(sum_a) if raised else None, _log_of(*apart) if surprising else None
    return RowNumbers(max_a, max_b, sum_a, sum_b, log_sums, log_sum_a, log_sum_b)


def event_of(a, b, temperature, rows, anchor=None):
    """The `Event` of each event; with an anchor, centred at it."""
    exp_a, exp_b, r = _unnormalised(a, b, rows.max_a, rows.max_b, temperature)
    p, q, c = exp_a * (1 / rows.sum_a), exp_b * (1 / rows.sum_b), rows.log_sums - r
    if anchor is None:
        centred, saturated = c, jnp.zeros_like(c)
        surprise = None if rows.log_sum_b is None else rows.log_sum_b - divided_by(b - rows.max_b, temperature)
    else:
        centred, saturated = -log_quotient(a, b, (anchor.high, anchor.low), temperature), anchor.saturated
        surprise = -divided_by(b - anchor.other, temperature)
    log_p = None if rows.log_sum_a is None else divided_by(a - rows.max_a, temperature) - rows.log_sum_a
    return Event(p, q, c, difference(p, q, c), centred, saturated, surprise, log_p)


def _beside(way, events, a, b, rows):
    """The other law's logit at the event where one law's is largest; if there are several, the largest such logit."""

    def of_event(a, b):
        (mine, top), (other, _) = _own_first(way, (a, rows.max_a), (b, rows.max_b))
        return jnp.where(mine == top, other, -jnp.inf)

    return largest(events, of_event, a, b)


def _anchor(way, there, temperature, rows):
    """The anchor of one law: the event where its logit is largest; the other's logit at that event is `there`."""
    top, largest = _own_first(way, rows.max_a, rows.max_b)
    finite = jnp.where(jnp.isfinite(there), there, largest)
    # Computed as for p; for q the sign is changed, which is exact.
    high, low = two_difference(finite, top)
    less = two_difference(largest, top)
    sign = 1 if way.own == "p" else -1
    c = sign * rows.log_sums - divided_by((high - less[0]) + (low - less[1]), temperature)
    # Beyond 2 the slope of js takes its closed form, from which its log 2 can be left out exactly.
    saturated = (there == -jnp.inf) | (c > 2)
    return _Anchor(finite, sign * high, sign * low, saturated.astype(c.dtype))


# ---------------------------------------------------------------- sums over a row


def _zeros_like(tree):
    return jax.tree.map(jnp.zeros_like, tree)


def slid(x, temperature, d_temperature):
    """The tangent of x / T for one of T; where the slope overflows the largest float, as infinity times 0 is NaN."""
    largest = jnp.finfo(temperature.dtype).max
    return jnp.clip(-(x / temperature) / temperature, -largest, largest) * d_temperature


def centred_tangent(x, dx, largest, temperature, d_temperature):
    """The tangent of x / T, plus a constant of the row; one of the two tangents may be None."""
    tangent = None if dx is None else divided_by(up(dx), temperature)
    if temperature is None or d_temperature is None:
        return tangent
    high = up(x) - largest
    slide = slid(jnp.where(jnp.isfinite(high), high, 0), temperature, d_temperature)
    return slide if tangent is None else tangent + slide


def _slope(way, pair, parameters):
    """The probability and the slope of one law."""
    divergence = way.divergence
    (mine, slope), _ = _own_first(way, (pair.p, divergence.slope_p), (pair.q, divergence.slope_q))
    return mine, slope(pair, *parameters)


def _dominant(way, inputs, rows, anchor, there):
    """Slope divided by probability, for the event that has more than half of one law's mass; 0 if none has."""
    top, _ = _own_first(way, rows.max_a, rows.max_b)
    p, slope = _slope(way, event_of(*_own_first(way, top, there), inputs.temperature, rows, anchor), inputs.parameters)
    return jnp.where(p > 0.5, slope / p, 0)


def _slope_rows(way, value, anchor, dominant, mean):
    """The `_Slope` of one law, from the dominant event's slope and the mean of all slopes measured from it."""
    # If the value is infinite, only the second law can have a gradient, and only if its slopes are finite.
    dead = (value == jnp.inf) & ~(jnp.isfinite(mean) & jnp.isfinite(dominant) & (way.own == "q"))
    return _Slope(anchor, jnp.where(dead, 0, dominant), jnp.where(dead, DEAD, mean))


def on_any_platform(of_rows: Callable, events: Events, recompute: bool, a: jax.Array, b: jax.Array | None, *rest: Any):
    """`of_rows(events, recompute, a, b, *rest)`, in the order of the events that suits the platform."""
    b = a if b is None else b
    if not few_elsewhere(events, recompute, a, b):
        return of_rows(events, recompute, a, b, *rest)
    # A GPU takes few events one after the other in one pass. A TPU would fill an eighth of its vectors then, and fuses
    # all events at once into few passes.
    at_once, apart = (functools.partial(of_rows, events._replace(apart=x), False) for x in (False, True))
    return lax.platform_dependent(a, b, *rest, tpu=at_once, default=apart)


def _statistics_of_rows(divergence, ways, events, recompute, a, b, temperature, *parameters):
    """The value of each row; if there are `ways`, its `RowNumbers` too, and a `_Slope` for each of them."""
    max_a, max_b = row_max(a, events), row_max(b, events)
    x, y, max_a, max_b = barrier(recompute, a, b, max_a, max_b)
    also = divergence.raised, divergence.surprising
    rows = row_numbers(x, y, max_a, max_b, temperature, *also, events, recompute)
    uneven = [way for way in ways if not (way.own == "q" and divergence.balanced_q)]
    beside = [_beside(way, events, up(x), up(y), rows) for way in uneven]
    x, y, rows, beside = barrier(recompute, a, b, rows, beside)
    inputs = Inputs(up(x), up(y), temperature, parameters)
    anchors = [
        _anchor(way, there, temperature, rows) if divergence.anchored else None
        for way, there in zip(uneven, beside, strict=True)
    ]
    dominant = [_dominant(way, inputs, rows, *at) for way, *at in zip(uneven, anchors, beside, strict=True)]

    def of_event(a, b, max_a, max_b):
        def at(anchor=None):
            return event_of(up(a), up(b), temperature, rows._replace(max_a=max_a, max_b=max_b), anchor)

        found = [divergence.term(at(), *parameters)]
        for way, anchor, top in zip(uneven, anchors, dominant, strict=True):
            p, slope = _slope(way, at(anchor), parameters)
            found.append(jnp.where(p > 0.5, 0, slope - p * top))
        return found

    passes = 1 + len(uneven) if recompute and not divergence.surprising else 1
    value, *means = sums_in_passes(passes, events, of_event, (x, y), (rows.max_a, rows.max_b))
    slopes = {
        way: _slope_rows(way, value, *numbers) for way, *numbers in zip(uneven, anchors, dominant, means, strict=True)
    }
    return value, rows if ways else None, [slopes.get(way, _Slope()) for way in ways]


@functools.cache
def _statistics(divergence: Divergence, ways: tuple[_Way, ...], events: Events = LAST) -> Callable:
    """A function from `Inputs` to (value, rows, slopes), of which only the value is differentiable."""
    # Taking events one after the other is faster for a value alone: with slopes, each row number would repeat the work.
    # A value without a cap would have the same problem: XLA:CPU fuses the caller's next operation with the events, and
    # repeats them.
    in_blocks = events._replace(apart=not ways and divergence.bound is not unbounded)
    of_rows = functools.partial(_statistics_of_rows, divergence, ways)
    block = functools.partial(on_any_platform, of_rows, in_blocks)

    @custom_jvp
    def statistics(inputs):
        return in_row_blocks(block, *inputs[:3], *inputs.parameters, events=in_blocks, in_chunks=True)

    def rule(primals, tangents):
        (inputs,), (tangents,) = primals, tangents
        moves = [_Way(divergence, own, events) for own in moving(inputs, tangents)]
        also = tuple(way for way in moves if way not in ways)
        value, rows, slopes = _statistics(divergence, ways + also, events)(inputs)
        rows, slopes = lax.stop_gradient((rows, slopes))
        tangent = jnp.zeros_like(value)
        for way, slope in zip(ways + also, slopes, strict=True):
            if way in moves:
                apart = len(moves) > 1
                tangent += along(_gradient(way), way.own, events, inputs, tangents, rows, slope, apart=apart)
        if any(d is not None for d in tangents.parameters):
            tangent += _parameter_tangent(divergence, events, inputs, tangents.parameters, value)
        out = rows if ways else None, slopes[: len(ways)]
        return (value, *out), (tangent, *_zeros_like(out))

    statistics.defjvp(rule, symbolic_zeros=True)
    return statistics


def moving(inputs: Inputs, tangents: Inputs) -> list[str]:
    """The laws that have a tangent, in their logits or in the temperature: "p" or "q"."""
    laws = [("p", inputs.a, tangents.a), ("q", inputs.b, tangents.b)]
    return [own for own, x, dx in laws if x is not None and not (dx is None and tangents.temperature is None)]


def along(gradient: Callable, own: str, events: Events, inputs: Inputs, tangents: Inputs, *numbers: Any, apart: bool):
    """The sum over a row of `gradient(inputs, *numbers)` in one law's logits times their tangent.

    The first of the numbers are the `RowNumbers`. `apart`: there is another gradient beside it.
    """

    def dot(inputs, tangents, *numbers):
        of_a, of_b = (inputs.a, tangents.a, numbers[0].max_a), (inputs.b, tangents.b, numbers[0].max_b)
        tangent = centred_tangent(*(of_a if own == "p" else of_b), inputs.temperature, tangents.temperature)
        return row_sum(gradient(inputs, *numbers) * tangent, events)

    # Value and gradient may share work within one program; two gradients would store it, so they must not, unless the
    # value is a kernel's.
    fused = kernels.used(events, *jax.tree.leaves(inputs))
    again = functools.partial(recomputed, dot, fused=fused) if apart else jax.checkpoint(dot, prevent_cse=False)
    return again(inputs, tangents._replace(parameters=()), *numbers)


def _parameter_tangent(divergence, events, inputs, tangents, value):
    def of_parameters(*parameters):
        pair = _differentiable_pair(inputs.a, inputs.b, inputs.temperature, events)
        return row_sum(divergence.term(pair, *parameters), events)

    return tangent_in_parameters(of_parameters, inputs.parameters, tangents, value)


@functools.cache
def _gradient(way: _Way) -> Callable:
    """The gradient in the scaled logits of one law, elementwise in the logits and the row numbers."""

    @custom_jvp
    def gradient(inputs, rows, slope):
        a, b, temperature, parameters = inputs
        pair = event_of(up(a), up(a if b is None else b), temperature, rows, slope.anchor)
        p, v = _slope(way, pair, parameters)
        if slope.mean is None:
            return v
        # Exactly 0 for the dominant event: its slope, computed again here, could round differently.
        v = jnp.where(p > 0.5, 0, v - p * slope.dominant)
        return jnp.where(slope.mean == DEAD, 0, v - p * slope.mean)

    @gradient.defjvp
    def _(primals, tangents):
        inputs, _, slope = primals
        dead = False if slope.mean is None else slope.mean == DEAD

        def plain(inputs):
            a, b, temperature, parameters = inputs
            # On dead rows the result is 0; any pair with finite slopes will do.
            b = a if b is None else jnp.where(dead, a.astype(b.dtype), b)
            p, v = _slope(way, _differentiable_pair(a, b, temperature, way.events), parameters)
            return jnp.where(dead, 0, v - p * row_sum(v, way.events))

        return gradient(*primals), jax.jvp(plain, (inputs,), (tangents[0],))[1]

    return gradient


def total(
    divergence: Divergence,
    a: jax.Array,
    b: jax.Array | None,
    temperature: jax.Array | None,
    *parameters: jax.Array,
    events: Events = LAST,
) -> jax.Array:
    """The sum of a divergence's terms over the events of logits, in the working precision.

    `temperature` (None means 1) and `parameters` have the rank of the logits, length 1 along the axis of the events.
    """
    value, *_ = _statistics(divergence, (), events)(Inputs(a, b, temperature, parameters))
    return jnp.squeeze(value, events.axis)


# ---------------------------------------------------------------- differentiable probabilities


def centre(p, d, events):
    """d minus its mean under p, so that in reverse mode a dominant event gets minus the sum of the others."""
    dominant = p > 0.5
    d = jnp.where(dominant, 0, d - row_sum(jnp.where(dominant, d, 0), events))
    return d - row_sum(p * d, events)


@functools.partial(custom_jvp, nondiff_argnums=(3,))
def distributions(
    a: jax.Array, b: jax.Array, temperature: jax.Array | None, events: Events = LAST
) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
    """softmax(a / T), softmax(b / T), their log-ratio and log softmax(a / T), differentiable to any order.

    Whole arrays, no blocks.
    """
    events, a, b = events._replace(apart=False), up(a), up(b)  # sums of events apart would be repeated for each event
    rows = row_numbers(a, b, row_max(a, events), row_max(b, events), temperature, raised=True, events=events)
    pair = event_of(a, b, temperature, rows)
    return pair.p, pair.q, pair.log_ratio, pair.log_p


@distributions.defjvp
def _(events, primals, tangents):
    a, b, temperature = primals
    da, db, dt = tangents
    events = events._replace(apart=False)
    p, q, c, log_p = distributions(a, b, temperature, events)
    u_a = centre(p, centred_tangent(a, da, row_max(lax.stop_gradient(a), events), temperature, dt), events)
    u_b = centre(q, centred_tangent(b, db, row_max(lax.stop_gradient(b), events), temperature, dt), events)
    return (p, q, c, log_p), (p * u_a, q * u_b, u_a - u_b, u_a)


def _differentiable_pair(a, b, temperature, events=LAST):
    p, q, c, log_p = distributions(a, b, temperature, events)
    # A finite number stands in for -inf, because its derivatives are multiplied by an exact zero.
    less = jnp.maximum(up(b) - row_max(lax.stop_gradient(b), events), -(jnp.finfo(c.dtype).max ** 0.75))
    surprise = -divided_by(less, temperature)
    return Event(p, q, c, difference(p, q, c), c, jnp.zeros_like(c), surprise, log_p)

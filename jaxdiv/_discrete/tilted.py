r"""Renyi's divergence of two logit vectors, by the law $m \propto p^s q^{1-s}$ of its order s.

With $S = \sum p^s q^{1-s}$ and $c = \log (p/q)$, the divergence is $D = \log S / (s - 1)$, and

    log(m / p) = (s - 1) (c - D)        dD/da = s (m - p) / (s - 1)        in the logits a of p
    log(m / q) = s c - (s - 1) D        dD/db = q - m                      in the logits b of q
                                        dD/ds = KL(m, p) / (s - 1)^2

Near equality S - 1 comes from the Amari divergence, whose terms do not cancel. Slopes are differences of laws, computed
from their log-ratio where it is small; so s = 1 is no exception. At infinity m is even on the events of the largest c.

As for a sum of terms (`softmax`), the value and a few row numbers come from `in_row_blocks`, and slopes are elementwise
in the logits and these numbers. They sum to 0. If one event has most of a law's mass, its slope is minus the sum of the
others, because c - D would cancel there.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.blocks import barrier, in_row_blocks
from jaxdiv._core.events import LAST, Events, largest
from jaxdiv._core.functions import endless, log1p_ratio, or_one
from jaxdiv._core.passes import sums_in_passes
from jaxdiv._core.polynomials import polynomial
from jaxdiv._core.rules import custom_jvp
from jaxdiv._discrete import softmax
from jaxdiv._discrete.differences import less, log_quotient, two_difference
from jaxdiv._discrete.softmax import Inputs, RowNumbers, event_of, row_max, row_sum, up
from jaxdiv._discrete.terms import amari_term

_BOTH = "p", "q"


class _Numbers(NamedTuple):
    """Numbers of a row `[..., 1]`.

    The largest `_tilt`, the sum of exponentials measured from it, the divergence, and for each law the sum of slopes
    over all events but one with most of its mass.
    """

    top: jax.Array
    mass: jax.Array
    value: jax.Array
    rest: dict[str, jax.Array]


def _tilt(inputs, rows):
    """log(p^s q^(1-s)) up to a constant of the row: two floats that stand for one, and a small or infinite step."""
    a, b, temperature, (order,) = inputs
    c = -log_quotient(a, b, two_difference(rows.max_b, rows.max_a), temperature)
    # From the larger law, so that for s <= 1 the step, which is rounded, goes down.
    of_p = (c > 0) | (order >= 1)
    law, most = jnp.where(of_p, a, b), jnp.where(of_p, rows.max_a, rows.max_b)
    high, low = less(law, most, temperature)
    step = jnp.where(order == jnp.inf, 1, jnp.where(of_p, order - 1, order)) * c
    step = jnp.where(jnp.isinf(c), jnp.where(of_p & (order < 1), -c, c), step)
    return jnp.where((order == jnp.inf) & (high > -jnp.inf), 0, high), low, step


def _events(inputs, rows, top):
    """The `Event` of each event, and the mass of m there over that of its largest."""
    high, low, step = _tilt(inputs, rows)
    tilt, lost = two_difference(high, -step)
    # What a huge tilt has lost is less than the rounding of the divergence; it may not rule the exponential.
    lost = jnp.where(jnp.isfinite(tilt), jnp.clip(lost + low, -16, 16), 0)
    gap, rest = two_difference(tilt, top)
    x, last = two_difference(gap, -lost)
    mass = jnp.exp(x)
    mass = jnp.where(mass == 0, 0, mass + mass * (rest + last))
    mass = jnp.where(inputs.parameters[0] == jnp.inf, (gap == 0).astype(mass.dtype), mass)
    return event_of(inputs.a, inputs.b, inputs.temperature, rows), mass


def _value(rows, top, mass, amari, log_scale, order):
    """D: from its Amari divergence where S is within 1/2 of 1, else from the logarithm of S.

    At order 0, 1 - S is in place of that divergence.
    """
    s = jnp.where(order == jnp.inf, 2, order)
    lost = or_one(s) * amari  # (1 - S) / (1 - s)
    x, log = (s - 1) * lost, log_scale + jnp.log(mass)
    # Where the events that count have masses too small for a float, only the logarithm knows of them.
    near = (jnp.abs(x) < 0.5) & (jnp.abs(log) < 1)
    value = jnp.where(near, lost * log1p_ratio(x), log / (s - 1))
    value = jnp.where(value < 0, 0, value)  # by rounding, where p and q agree but for what underflows
    most = rows.log_sums + top
    value = jnp.where(order == jnp.inf, jnp.where(most <= 0, 0, most), value)
    # The maximum over events can lose NaN on XLA:CPU.
    value = jnp.where(jnp.isinf(top) & ~jnp.isnan(rows.log_sums), jnp.inf, value)
    return jnp.where(order >= 0, value, jnp.nan)


def _slope(own, event, m, value, order):
    """The probability of one law at each event, and the slope in its logit; for p over the order, if that is finite."""
    delta = order - 1
    if own == "p":
        x, law = event.log_ratio - value, event.p
        y, scale = delta * x, 1 / jnp.where((delta == 0) | (delta == jnp.inf), 1, delta)
    else:
        x, law = delta * value - order * event.log_ratio, event.q
        y, scale = -x, -1
    # Where |y| is larger, the difference of the laws loses less than two bits. Where |log S| is, y can lose more.
    near = (jnp.abs(y) <= 0.5) & (jnp.abs(delta * value) <= 1)
    x, y = jnp.where(near, x, 0), jnp.where(near, y, 0)
    return law, jnp.where(near, law * x * (1 + y * polynomial("exp_short", y)), (m - law) * scale)


def _statistics_of_rows(owns, events, recompute, a, b, temperature, order):
    """The `RowNumbers` and the `_Numbers` of each row."""
    max_a, max_b = row_max(a, events), row_max(b, events)
    x, y, max_a, max_b = barrier(recompute, a, b, max_a, max_b)
    rows = softmax.row_numbers(x, y, max_a, max_b, temperature, events=events, recompute=recompute)

    def inputs(a, b):
        return Inputs(up(a), up(b), temperature, (order,))

    def tilt(a, b):
        high, _, step = _tilt(inputs(a, b), rows)
        return jnp.where(high == -jnp.inf, high, high + step)

    top = largest(events, tilt, x, y)
    x, y, rows, top = barrier(recompute, a, b, rows, top)
    s = jnp.where(order == jnp.inf, 2, order)
    log_scale = top - jnp.log(rows.sum_a) - (1 - s) * rows.log_sums

    def affinity(a, b, max_a, max_b):
        event, mass = _events(inputs(a, b), rows._replace(max_a=max_a, max_b=max_b), top)
        term = amari_term(event, mass * jnp.exp(log_scale), s)
        return jnp.where(s == 0, jnp.where(event.log_ratio == -jnp.inf, event.q, 0), term), mass

    passes = 2 if recompute else 1
    amari, mass = sums_in_passes(passes, events, affinity, (x, y), (rows.max_a, rows.max_b))
    value = _value(rows, top, mass, amari, log_scale, order)
    if not owns:
        return rows, _Numbers(top, mass, value, {})
    x, y, rows, top, mass, value = barrier(recompute, a, b, rows, top, mass, value)

    def others(a, b, max_a, max_b):
        event, m = _events(inputs(a, b), rows._replace(max_a=max_a, max_b=max_b), top)
        found = (_slope(own, event, m * (1 / mass), value, order) for own in owns)
        return [jnp.where(p > 0.5, 0, slope) for p, slope in found]

    passes = len(owns) if recompute else 1
    rest = sums_in_passes(passes, events, others, (x, y), (rows.max_a, rows.max_b))
    return rows, _Numbers(top, mass, value, dict(zip(owns, rest, strict=True)))


@functools.cache
def _statistics(owns: tuple[str, ...], events: Events) -> Callable:
    """A function from `Inputs` to (value, rows, numbers), of which only the value is differentiable."""
    in_blocks = events._replace(apart=False)
    block = functools.partial(softmax.on_any_platform, functools.partial(_statistics_of_rows, owns), in_blocks)

    @custom_jvp
    def statistics(inputs):
        rows, numbers = in_row_blocks(block, *inputs[:3], *inputs.parameters, events=in_blocks, in_chunks=True)
        return numbers.value, rows, numbers

    def rule(primals, tangents):
        (inputs,), (tangents,) = primals, tangents
        moves = softmax.moving(inputs, tangents)
        also = tuple(own for own in moves if own not in owns)
        value, rows, numbers = _statistics(owns + also, events)(inputs)
        rows, numbers = lax.stop_gradient((rows, numbers))
        tangent = jnp.zeros_like(value)
        for own in moves:
            gradient = functools.partial(_gradient, own, events)
            apart = len(moves) > 1
            tangent += softmax.along(gradient, own, events, inputs, tangents, rows, numbers, apart=apart)
        if tangents.parameters[0] is not None:
            tangent += row_sum(_rates(events, inputs, value, rows, numbers), events) * tangents.parameters[0]
        out = rows, numbers._replace(rest={own: numbers.rest[own] for own in owns})
        return (value, *out), (tangent, *jax.tree.map(jnp.zeros_like, out))

    statistics.defjvp(rule, symbolic_zeros=True)
    return statistics


def _gradient(own, events, inputs, rows, numbers):
    (order,) = inputs.parameters
    slopes, _ = _slopes((own,), events, inputs, rows, numbers)
    return jnp.where((own == "q") | (order == jnp.inf), 1, order) * slopes[own]


@functools.partial(custom_jvp, nondiff_argnums=(0, 1))
def _slopes(
    owns: tuple[str, ...], events: Events, inputs: Inputs, rows: RowNumbers, numbers: _Numbers
) -> tuple[dict[str, jax.Array], jax.Array]:
    """What `_slope` says of each law, and m; elementwise in the logits. All are 0 where D has no slopes."""
    del events
    event, m = _events(jax.tree.map(up, inputs), rows, numbers.top)
    dead, m = _dead(inputs, numbers.value), m * (1 / numbers.mass)
    found = {}
    for own in owns:
        law, slope = _slope(own, event, m, numbers.value, *inputs.parameters)
        found[own] = jnp.where(dead, 0, jnp.where(law > 0.5, -numbers.rest[own], slope))
    return found, jnp.where(dead, 0, m)


def _slopes_rule(owns, events, primals, tangents):
    inputs, (d_a, d_b, d_temperature, (d_order,)) = primals[0], tangents[0]
    value, rows, numbers = _statistics(_BOTH, events)(inputs)
    slopes, m = _slopes(_BOTH, events, inputs, rows, numbers)
    dead, at_limit = _dead(inputs, value), inputs.parameters[0] == jnp.inf
    p, q, x, delta = _differentiable(events, inputs, value)

    def centred(law, x, dx):
        most = row_max(lax.stop_gradient(x), events)
        tangent = softmax.centred_tangent(x, dx, most, inputs.temperature, d_temperature)
        return 0 if tangent is None else softmax.centre(law, tangent, events)

    u_a, u_b = centred(p, inputs.a, d_a), centred(q, inputs.b, d_b)
    gradients = (_gradient(own, events, inputs, rows, numbers) for own in _BOTH)
    d_value = sum(row_sum(x * u, events) for x, u in zip(gradients, (u_a, u_b), strict=True))
    d_x, d_m, d_slope = u_a - u_b - d_value, m * u_a, jnp.where(at_limit, slopes["p"] - m, slopes["p"]) * u_a
    if d_order is not None:
        rates = _rates(events, inputs, value, rows, numbers)
        d_x, d_m, d_slope = d_x - row_sum(rates, events) * d_order, d_m + m * x * d_order, d_slope + rates * d_order
    d_m = jnp.where(at_limit, 0, d_m + m * delta * d_x)
    found = {"p": d_slope + jnp.where(at_limit, 0, m * d_x), "q": q * u_b - d_m}
    return _slopes(owns, events, *primals), jax.tree.map(
        lambda x: jnp.where(dead, 0, x), ({own: found[own] for own in owns}, d_m)
    )


_slopes.defjvp(_slopes_rule, symbolic_zeros=True)


def _dead(inputs, value):
    """Where slopes are 0: D is infinite, or 0 at the order infinity."""
    return jnp.isinf(value) | ((inputs.parameters[0] == jnp.inf) & (value == 0))


def _differentiable(events, inputs, value):
    """p, q, c - D and s - 1, differentiable and finite. Where D has no slopes, q is p; where m is 0, c is a number."""
    a, b, temperature, (order,) = inputs
    dead, huge = _dead(inputs, value), jnp.finfo(value.dtype).max ** 0.25
    p, q, c, _ = softmax.distributions(a, jnp.where(dead, a.astype(b.dtype), b), temperature, events)
    x = jnp.clip(c, -huge, huge) - jnp.where(dead, 0, value)
    return p, q, x, jnp.where(order == jnp.inf, 1, order - 1)


def _rates(events, inputs, value, rows, numbers):
    """The terms of KL(m, p) / (s - 1)^2 at each event: derivatives of p expm1((s - 1) x) / (s - 1) in s, at fixed x."""
    _, m = _slopes((), events, inputs, rows, numbers)
    p, _, x, delta = _differentiable(events, inputs, value)
    y = delta * x
    near = jnp.abs(y) <= 1.5  # the polynomial is fitted on [-1.5, 2]
    x, small = jnp.where(near, x, 0), jnp.where(near, y, 0)
    far = (m * y - m + p) / jnp.where(near, 1, delta * delta)
    found = jnp.where(near, m * x * x * polynomial("exp", -small), far)
    return jnp.where(_dead(inputs, value) | (inputs.parameters[0] == jnp.inf), 0, found)


def renyi(
    a: jax.Array, b: jax.Array, temperature: jax.Array | None, order: jax.Array, events: Events = LAST
) -> jax.Array:
    """The divergence of the rows of logits, in the working precision; NaN for an order below 0."""
    order = jnp.where(endless(order), jnp.inf, order)
    value, *_ = _statistics((), events)(Inputs(a, b, temperature, (order,)))
    return jnp.squeeze(value, events.axis)

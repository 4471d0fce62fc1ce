r"""Sums over the two events of Bernoulli pairs, elementwise in the logits a and b: one loop over any batch.

Seen from the event that p prefers, its *top*, p has the logit $x = |a|$ and q has $y = \pm b$. Nothing is shifted, so
with $u = e^{-|a|}$ and $v = e^{-|b|}$ all that a term needs is near at hand. The log-ratios $c = \log(p/q)$ of the two
events have opposite signs, and differ by $t = x - y$:

    near, |t| <= 1/2:     p - q = p_bottom q_top expm1(t),    c_top = 2 atanh((p - q) / (p + q)),    c_bottom = c_top - t
    far, q prefers top:   c_top = l,          c_bottom = l - t          with l = log((1 + v) / (1 + u))
    far, else:            c_top = l + |b|,    c_bottom = l - |a|             = 2 atanh((v - u) / (2 + u + v))

A slope V of each event has the gradient $\pm (p_\mathrm{bottom} V_\mathrm{top} - p_\mathrm{top} V_\mathrm{bottom})$ in
the logit. Slopes have the sign of c (of -c for q), so nothing cancels, and no slope needs an anchor.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import capped, expm1, finite_or_zero, given, or_one, tangent_in_parameters, times
from jaxdiv._core.polynomials import polynomial
from jaxdiv._discrete.record import Divergence, Event, unbounded
from jaxdiv._discrete.softmax import exp_less


class _Inputs(NamedTuple):
    """Two logits, a temperature, and parameters, all elementwise; None for an absent one. Tangents have this form too.

    If b is absent (entropy), the law is compared with itself.
    """

    a: jax.Array | None
    b: jax.Array | None
    temperature: jax.Array | None = None
    parameters: tuple[jax.Array | None, ...] = ()


class _Laws(NamedTuple):
    """Of both events, the top of p first: the probabilities and log(p/q); at the top p - q; and t."""

    p: tuple[jax.Array, jax.Array]
    q: tuple[jax.Array, jax.Array]
    c: tuple[jax.Array, jax.Array]
    difference: jax.Array
    t: jax.Array


def _over(x, temperature):
    return x if temperature is None else x / temperature


def _sign(a):
    """1 if p prefers the event, -1 if it prefers the complement."""
    return jnp.where(a < 0, -jnp.ones_like(a), 1)


@jax.custom_jvp
def _laws(a, b, temperature):
    """The `_Laws` of logits, differentiable to any order."""
    size_a, size_b, y = jnp.abs(a), jnp.abs(b), jnp.where(a < 0, -b, b)
    u, v = (exp_less(-size, jnp.zeros_like(size), temperature) for size in (size_a, size_b))
    t = _over(jnp.where(a == b, 0, size_a - y), temperature)
    near, alike = jnp.abs(t) <= 0.5, y >= 0
    less_p, less_q = u / (1 + u), v / (1 + v)
    more_p, more_q = 1 - less_p, 1 - less_q  # not 1 / (1 + u): products p (1 - p) then have half the error
    q = jnp.where(alike, more_q, less_q), jnp.where(alike, less_q, more_q)
    small = jnp.where(near, t, 0)
    gain = small + small * small * polynomial("exp_short", small)
    # (p - q) (1 + u) (1 + v)
    apart = jnp.where(near, jnp.where(alike, u, u * v) * gain, jnp.where(alike, v - u, 1 - u * v))
    difference = apart / (1 + (u + v + u * v))
    close = near & ~alike
    r = jnp.where(close | alike, apart, v - u) / jnp.where(close, 1 + v * (2 + u), 2 + (u + v))
    log = 2 * r + 2 * r * (r * r) * polynomial("atanh", r * r)
    c_top = log + jnp.where(near | alike, 0, _over(size_b, temperature))
    c_bottom = log - jnp.where(near | alike, t, _over(size_a, temperature))
    return _Laws((more_p, less_p), q, (c_top, c_bottom), difference, t)


@_laws.defjvp
def _(primals, tangents):
    (a, _, temperature), (_, _, dt) = primals, tangents
    laws = _laws(*primals)
    dx, dy = (_sign(a) * _scaled(x, d, temperature, dt) for x, d in zip(primals[:2], tangents[:2], strict=True))
    (p, less_p), (q, less_q) = laws.p, laws.q
    dp, dq = p * less_p * dx, q * less_q * dy
    dc = less_p * dx - less_q * dy, q * dy - p * dx
    return laws, _Laws((dp, -dp), (dq, -dq), dc, dp - dq, dx - dy)


def _scaled(x, dx, temperature, dt):
    """The tangent of x / T; None for a tangent that is absent."""
    slide = None if temperature is None or dt is None else -finite_or_zero(x) * (dt / (temperature * temperature))
    if dx is None:
        return slide
    return _over(dx, temperature) if slide is None else _over(dx, temperature) + slide


def _events(inputs, divergence, *, centred=False):
    """The `Event` of the top and that of the other; what is centred is so up to a constant of both."""
    a, b, temperature, _ = inputs
    b = a if b is None else b
    laws = _laws(a, b, temperature)
    none = jnp.zeros_like(laws.t)
    log_ratios = (laws.t, none) if centred else laws.c
    surprises = _surprises(jnp.where(a < 0, -b, b), temperature, centred) if divergence.surprising else (None, None)
    differences = laws.difference, -laws.difference
    numbers = zip(laws.p, laws.q, laws.c, differences, log_ratios, surprises, strict=True)
    return [Event(*event[:5], none, event[5]) for event in numbers]


def _surprises(y, temperature, centred):
    """-log q of both events, for a q of logit y; or numbers with their difference, finite."""
    if centred:
        huge = jnp.finfo(y.dtype).max ** 0.75
        return -_over(jnp.clip(y, -huge, huge), temperature), jnp.zeros_like(y)
    y = _over(y, temperature)
    tail = jnp.log1p(jnp.exp(-jnp.abs(y)))
    return tail + jnp.maximum(-y, 0), tail + jnp.maximum(y, 0)


def _sum_of_terms(divergence, inputs):
    top, bottom = (divergence.term(event, *inputs.parameters) for event in _events(inputs, divergence))
    return top + bottom


@functools.cache
def _sum(divergence: Divergence) -> Callable:
    """The sum of the terms as a function of `_Inputs`."""

    @jax.custom_jvp
    def total(inputs):
        return _sum_of_terms(divergence, inputs)

    def rule(primals, tangents):
        (inputs,), (tangents,) = primals, given(tangents)
        value = total(inputs)
        tangent = jnp.zeros_like(value)
        for own, x, dx in (("p", inputs.a, tangents.a), ("q", inputs.b, tangents.b)):
            along = None if x is None else _scaled(x, dx, inputs.temperature, tangents.temperature)
            if along is not None:
                tangent += _gradient(divergence, own)(inputs, value) * along
        if any(d is not None for d in tangents.parameters):

            def of_parameters(*parameters):
                return _sum_of_terms(divergence, inputs._replace(parameters=parameters))

            tangent += tangent_in_parameters(of_parameters, inputs.parameters, tangents.parameters, value)
        return value, tangent

    total.defjvp(rule, symbolic_zeros=True)
    return total


@functools.cache
def _gradient(divergence: Divergence, own: str) -> Callable:
    """The gradient in the scaled logit of one law, as a function of `_Inputs` and of the value there."""

    def plain(inputs):
        top, bottom = _events(inputs, divergence, centred=True)
        slope = divergence.slope_p if own == "p" else divergence.slope_q
        of_top = slope(top, *inputs.parameters)
        if own == "q" and divergence.balanced_q:
            return _sign(inputs.a) * of_top
        more, less = (event.p if own == "p" else event.q for event in (top, bottom))
        return _sign(inputs.a) * (less * of_top - more * slope(bottom, *inputs.parameters))

    @jax.custom_jvp
    def gradient(inputs, value):
        found = plain(inputs)
        # If the value is infinite, only the second law can have a gradient, and only if it is finite.
        dead = (value == jnp.inf) & ~(jnp.isfinite(found) & (own == "q"))
        return jnp.where(dead, 0, found)

    @gradient.defjvp
    def _(primals, tangents):
        inputs, value = primals
        found = gradient(inputs, value)
        dead = (value == jnp.inf) & ((found == 0) | (own == "p"))

        def alive(inputs):
            # On dead elements the result is 0; any pair with finite slopes will do.
            b = None if inputs.b is None else jnp.where(dead, inputs.a, inputs.b)
            return jnp.where(dead, 0, plain(inputs._replace(b=b)))

        return found, jax.jvp(alive, (inputs,), (tangents[0],))[1]

    return gradient


def total(
    divergence: Divergence, a: jax.Array, b: jax.Array | None, temperature: jax.Array | None = None, **parameters
) -> jax.Array:
    """The sum of a divergence's terms over both events of logits in the working precision, capped at its bound."""
    numbers = tuple(parameters[name] for name in divergence.parameters)
    value = _sum(divergence)(_Inputs(a, b, temperature, numbers))
    return value if divergence.bound is unbounded else capped(value, divergence.bound(*numbers))


# ---------------------------------------------------------------- functions of the affinity S(s) = sum p^s q^(1-s)


def _seen_from_top(a, b):
    """The logits x >= 0 of p and y of q for the top of p, and t = x - y, made finite."""
    x, y = _sign(a) * a, _sign(a) * b
    huge = jnp.finfo(x.dtype).max / 4
    return x, y, jnp.clip(jnp.where(a == b, 0, x - y), -huge, huge)


def _excess(less, z):
    """k(z) / z^2 for k(z) = log((1 - m) exp(-m z) + m exp((1 - m) z)) >= 0, m = `less` and |z| <= 1.5 / (1 - m)."""
    more = 1 - less
    second = less * more * (less * polynomial("exp", -less * z) + more * polynomial("exp", more * z))
    gain = second * (z * z)
    r = gain / (2 + gain)  # k = log(1 + gain) = 2 atanh(r)
    return 2 * second / (2 + gain) * (1 + r * r * polynomial("atanh", r * r))


def _tilted(x, y, t, delta):
    """The logit m = x + d t of p^(1 + d) q^-d, x where that is infinite; and exp(-|m|)."""
    # The rounding of m costs as many ulps of exp(-m) as m is large, so m is the smaller of two sums, or a factor.
    mixed = jnp.where(y < 0, (1 + delta) * x - delta * y, x + delta * t)
    m = jnp.where(x == jnp.inf, jnp.inf, mixed)
    split = (y >= 0) & (m > 0) & (delta * t > -40)
    return m, jnp.exp(jnp.where(split, -delta * t, jnp.where(m > 0, -m, m))) * jnp.where(split, jnp.exp(-x), 1)


def _renyi(a, b, alpha):
    """log S(alpha) / (alpha - 1), with its limits at 1 and infinity; NaN for alpha < 0."""
    # log S = F(m) - alpha F(x) - (1 - alpha) F(y) for F = softplus and m = alpha x + (1 - alpha) y. In terms of F less
    # its tangent, at m for alpha <= 1 and else at x, it has two terms, of equal signs and of second order in t.
    x, y, t = _seen_from_top(a, b)
    tilt, delta = alpha <= 1, jnp.where(alpha == jnp.inf, 1, alpha - 1)
    m, exp_m = _tilted(x, y, t, delta)
    exp_x, exp_y = jnp.exp(-x), jnp.exp(-jnp.abs(y))
    base, exp_base = jnp.where(tilt, m, x), jnp.where(tilt, exp_m, exp_x)
    other, exp_other = jnp.where(tilt, x, m), jnp.where(tilt, exp_x, exp_m)
    less, sign = exp_base / (1 + exp_base), _sign(base)

    def from_tangent(z, to, exp_to):
        """F at a logit less its tangent at the base, over z^2 where it is near, and as it is elsewhere."""
        near = (1 - less) * jnp.abs(z) <= 1.5
        far = jnp.maximum(-sign * to, 0) + (jnp.log1p(exp_to) - jnp.log1p(exp_base)) - less * (sign * z)
        return near, _excess(less, jnp.where(near, sign * z, 0)), far

    order, step = jnp.where(tilt, alpha, 1), jnp.where(tilt, -delta, delta)
    near, close, far = from_tangent(order * t, y, exp_y)
    to_q = jnp.where(near, order * t * (order * t) * close, far)
    near, close, far = from_tangent(-step * t, other, exp_other)
    value = to_q + order * jnp.where(near, t * (step * t) * close, far / jnp.where(near, 1, step))
    value = jnp.where(alpha == jnp.inf, to_q + jnp.where(t > 0, less, 1 - less) * jnp.abs(t), value)
    value = jnp.where((alpha >= 1) & jnp.isinf(b) & (a != b), jnp.inf, value)
    return jnp.where(alpha >= 0, value, jnp.nan)


def _renyi_gradient(a, b, alpha):
    """The gradient of `_renyi` in both logits, differentiable."""
    laws, (x, y, t) = _laws(a, b, None), _seen_from_top(a, b)
    alpha = jnp.minimum(alpha, jnp.finfo(x.dtype).max ** 0.5)
    delta = alpha - 1
    m, power = _tilted(x, y, t, delta)
    less, more = power / (1 + power), 1 / (1 + power)
    tilted, rest = jnp.where(m > 0, more, less), jnp.where(m > 0, less, more)
    (_, less_p), (q, less_q) = laws.p, laws.q
    near, near_q = jnp.abs(delta * t) <= 1.5, jnp.abs(alpha * t) <= 1.5

    def gain(near, scale):
        """expm1(scale t) / scale."""
        z = jnp.where(near, scale * t, 0)
        return jnp.where(near, t, 0) * (1 + z * polynomial("exp", z))

    in_x = jnp.where(near, less_p * tilted * gain(near, -delta), (less_p - rest) / jnp.where(near, 1, delta))
    far_q = jnp.where(m + y > 0, rest - less_q, q - tilted)
    in_y = jnp.where(near_q, -q * rest * (alpha * gain(near_q, alpha)), far_q)
    return _sign(a) * (alpha * in_x), _sign(a) * in_y


@jax.custom_jvp
def _renyi_of(a, b, alpha):
    return _renyi(a, b, alpha)


@_renyi_of.defjvp
def _(primals, tangents):
    a, b, alpha = primals
    da, db, d_alpha = tangents
    value = _renyi_of(*primals)
    # Where it is infinite it has no derivative: there equal logits stand in.
    in_a, in_b = _renyi_gradient(a, jnp.where(value == jnp.inf, a, b), alpha)
    of_alpha = functools.partial(_renyi, a, b)
    return value, in_a * da + in_b * db + tangent_in_parameters(of_alpha, (alpha,), (d_alpha,), value)


def renyi(a: jax.Array, b: jax.Array, *, alpha: jax.Array) -> jax.Array:
    return _renyi_of(a, b, alpha)


@jax.custom_jvp
def bhattacharyya(a: jax.Array, b: jax.Array) -> jax.Array:
    """-log S(1/2)."""
    # As S(1/2)^-2 = 1 + z^2 for z = sinh((a - b) / 4) / cosh((a + b) / 4), nothing cancels.
    least, alike = jnp.minimum(jnp.abs(a), jnp.abs(b)), (a >= 0) == (b >= 0)
    apart = jnp.where(a == b, 0, jnp.abs(a - b))
    z = -expm1(-0.5 * apart) / (1 + jnp.exp(-0.5 * jnp.where(a == -b, 0, jnp.abs(a + b))))
    most = 60  # beyond it, 1 + z^2 is z^2
    square = z * z * jnp.exp(jnp.where(alike, -least, jnp.minimum(least, most)))
    return 0.5 * (jnp.log1p(square) + jnp.where(alike, 0, jnp.maximum(least - most, 0)))


@bhattacharyya.defjvp
def _(primals, tangents):
    (a, b), (da, db) = primals, tangents
    value = bhattacharyya(a, b)
    in_a, in_b = _renyi_gradient(a, jnp.where(value == jnp.inf, a, b), jnp.full_like(a, 0.5))
    return value, 0.5 * (in_a * da + in_b * db)

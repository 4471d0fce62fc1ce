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

from jaxdiv._core.functions import capped, finite_or_zero, given, tangent_in_parameters
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
    """Of both events, the top of p first: the probabilities and log(p/q); and p - q at the top."""

    p: tuple[jax.Array, jax.Array]
    q: tuple[jax.Array, jax.Array]
    c: tuple[jax.Array, jax.Array]
    difference: jax.Array


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
    more_p, more_q = 1 / (1 + u), 1 / (1 + v)
    less_p, less_q = u * more_p, v * more_q
    q_top, q_bottom = jnp.where(alike, more_q, less_q), jnp.where(alike, less_q, more_q)
    small = jnp.where(near, t, 0)
    gain = small + small * small * polynomial("exp_short", small)
    difference = jnp.where(near, less_p * q_top * gain, q_bottom - less_p)
    r = jnp.where(near, difference, v - u) / jnp.where(near, more_p + q_top, 2 + u + v)
    log = 2 * r + 2 * r * (r * r) * polynomial("atanh", r * r)
    c_top = log + jnp.where(near | alike, 0, _over(size_b, temperature))
    c_bottom = log - jnp.where(near | alike, t, _over(size_a, temperature))
    return _Laws((more_p, less_p), (q_top, q_bottom), (c_top, c_bottom), difference)


@_laws.defjvp
def _(primals, tangents):
    (a, _, temperature), (_, _, dt) = primals, tangents
    laws = _laws(*primals)
    dx, dy = (_sign(a) * _scaled(x, d, temperature, dt) for x, d in zip(primals[:2], tangents[:2], strict=True))
    (p, less_p), (q, less_q) = laws.p, laws.q
    dp, dq = p * less_p * dx, q * less_q * dy
    dc = less_p * dx - less_q * dy, q * dy - p * dx
    return laws, _Laws((dp, -dp), (dq, -dq), dc, dp - dq)


def _scaled(x, dx, temperature, dt):
    """The tangent of x / T; None for a tangent that is absent."""
    slide = None if temperature is None or dt is None else -finite_or_zero(x) * (dt / (temperature * temperature))
    if dx is None:
        return slide
    return _over(dx, temperature) if slide is None else _over(dx, temperature) + slide


def _events(inputs, divergence, *, centred=False):
    """The `Event` of the top and that of the other; a centred surprise is so up to a constant of both."""
    a, b, temperature, _ = inputs
    b = a if b is None else b
    laws = _laws(a, b, temperature)
    surprise = (None, None)
    if divergence.surprising:
        huge = jnp.finfo(b.dtype).max ** 0.75
        y = _over(jnp.clip(jnp.where(a < 0, -b, b), -huge, huge), temperature)
        tail = 0 if centred else jnp.log1p(jnp.exp(-jnp.abs(y)))
        surprise = (-y, jnp.zeros_like(y)) if centred else (tail + jnp.maximum(-y, 0), tail + jnp.maximum(y, 0))
    none = jnp.zeros_like(laws.difference)
    differences = laws.difference, -laws.difference
    return [
        Event(p, q, c, difference, c, none, s)
        for p, q, c, difference, s in zip(laws.p, laws.q, laws.c, differences, surprise, strict=True)
    ]


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
        more, less = (event.p if own == "p" else event.q for event in (top, bottom))
        return _sign(inputs.a) * (less * slope(top, *inputs.parameters) - more * slope(bottom, *inputs.parameters))

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

r"""The two events of Bernoulli laws with logits a and b, elementwise: a batch is one loop that stores nothing.

Let the *top* be the event that p prefers. Seen from it, p has the logit $x = |a|$ and q has $y = \pm b$. No maximum is
taken off, so $u = e^{-|a|}$ and $v = e^{-|b|}$ are exact but for their own rounding, and with $t = x - y$

    (p - q) (1 + u) (1 + v) = v - u          if q prefers the top too,    and then u (exp(t) - 1) where |t| is small
                            = 1 - u v        if it does not,              and then u v (exp(t) - 1)
    c_top = log(p / q)      = l              if q prefers the top too,    for l = 2 atanh((v - u) / (2 + u + v))
                            = l + |b|        if it does not, or 2 atanh((p - q) / (p + q)) where |t| is small
    c_bottom                = c_top - t

The log-ratios c of the two events have opposite signs, and so have the slopes V of a divergence in p, and in q. So the
gradient in the logit, $\pm (p_\mathrm{bottom} V_\mathrm{top} - p_\mathrm{top} V_\mathrm{bottom})$, does not cancel.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import capped, finite_or_zero, tangent_in_parameters
from jaxdiv._core.polynomials import polynomial
from jaxdiv._core.rules import custom_jvp
from jaxdiv._discrete.differences import divided_by, exp_less
from jaxdiv._discrete.record import Divergence, Event, unbounded
from jaxdiv._discrete.softmax import slid


class _Inputs(NamedTuple):
    """Two logits, a temperature, and parameters, all elementwise; None for an absent one. Tangents have this form too.

    If b is absent (entropy), the law is compared with itself.
    """

    a: jax.Array | None
    b: jax.Array | None
    temperature: jax.Array | None = None
    parameters: tuple[jax.Array | None, ...] = ()


class Laws(NamedTuple):
    """Of both events, the top of p first: the probabilities and log(p/q); at the top p - q; and t."""

    p: tuple[jax.Array, jax.Array]
    q: tuple[jax.Array, jax.Array]
    c: tuple[jax.Array, jax.Array]
    difference: jax.Array
    t: jax.Array


def _exp(x, temperature):
    return jnp.exp(x) if temperature is None else exp_less(x, jnp.zeros_like(x), temperature)


def sign(a: jax.Array) -> jax.Array:
    """1 if p prefers the event, -1 if it prefers the complement."""
    return jnp.where(a < 0, -jnp.ones_like(a), 1)


@custom_jvp
def laws_of(a: jax.Array, b: jax.Array, temperature: jax.Array | None = None) -> Laws:
    """The `Laws` of logits, differentiable to any order."""
    size_a, size_b, y = jnp.abs(a), jnp.abs(b), jnp.where(a < 0, -b, b)
    u, v = _exp(-size_a, temperature), _exp(-size_b, temperature)
    t = divided_by(jnp.where(a == b, 0, size_a - y), temperature)
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
    c_top = log + jnp.where(near | alike, 0, divided_by(size_b, temperature))
    c_bottom = log - jnp.where(near | alike, t, divided_by(size_a, temperature))
    return Laws((more_p, less_p), q, (c_top, c_bottom), difference, t)


@laws_of.defjvp
def _(primals, tangents):
    (a, _, temperature), (_, _, dt) = primals, tangents
    laws = laws_of(*primals)
    side = sign(a)
    dx, dy = (_scaled(side * x, side * d, temperature, dt) for x, d in zip(primals[:2], tangents[:2], strict=True))
    (p, less_p), (q, less_q) = laws.p, laws.q
    dp, dq = p * less_p * dx, q * less_q * dy
    dc = less_p * dx - less_q * dy, q * dy - p * dx
    return laws, Laws((dp, -dp), (dq, -dq), dc, dp - dq, dx - dy)


def _scaled(x, dx, temperature, dt) -> Any:
    """The tangent of x / T; None for a tangent that is absent."""
    slide = None if temperature is None or dt is None else slid(finite_or_zero(x), temperature, dt)
    if dx is None:
        return slide
    return divided_by(dx, temperature) if slide is None else divided_by(dx, temperature) + slide


def _events(inputs, divergence, *, centred=False):
    """The `Event` of the top and that of the other; what is centred is so up to a constant of both."""
    a, b, temperature, _ = inputs
    b = a if b is None else b
    laws = laws_of(a, b, temperature)
    none = jnp.zeros_like(laws.t)
    log_ratios = (laws.t, none) if centred else laws.c
    surprises = _surprises(jnp.where(a < 0, -b, b), temperature, centred) if divergence.surprising else (None, None)
    logs = [-x for x in _surprises(jnp.abs(a), temperature, False)] if divergence.raised else (None, None)
    differences = laws.difference, -laws.difference
    numbers = zip(laws.p, laws.q, laws.c, differences, log_ratios, (none, none), surprises, logs, strict=True)
    return list(itertools.starmap(Event, numbers))


def _surprises(y, temperature, centred):
    """-log q of both events, for a q of logit y; or numbers with their difference, finite."""
    if centred:
        huge = jnp.finfo(y.dtype).max ** 0.75
        return -divided_by(jnp.clip(y, -huge, huge), temperature), jnp.zeros_like(y)
    y = divided_by(y, temperature)
    tail = jnp.log1p(jnp.exp(-jnp.abs(y)))
    return tail + jnp.maximum(-y, 0), tail + jnp.maximum(y, 0)


def _sum_of_terms(divergence, inputs):
    top, bottom = (divergence.term(event, *inputs.parameters) for event in _events(inputs, divergence))
    return top + bottom


@functools.cache
def _sum(divergence: Divergence) -> Callable:
    """The sum of the terms as a function of `_Inputs`."""

    @custom_jvp
    def total(inputs):
        return _sum_of_terms(divergence, inputs)

    def rule(primals, tangents):
        (inputs,), (tangents,) = primals, tangents
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
            return sign(inputs.a) * of_top
        more, less = (event.p if own == "p" else event.q for event in (top, bottom))
        return sign(inputs.a) * (less * of_top - more * slope(bottom, *inputs.parameters))

    @custom_jvp
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
    divergence: Divergence,
    a: jax.Array,
    b: jax.Array | None,
    temperature: jax.Array | None = None,
    **parameters: jax.Array,
) -> jax.Array:
    """The sum of a divergence's terms over both events of logits in the working precision, capped at its bound."""
    numbers = tuple(parameters[name] for name in divergence.parameters)
    value = _sum(divergence)(_Inputs(a, b, temperature, numbers))
    return value if divergence.bound is unbounded else capped(value, divergence.bound(*numbers))

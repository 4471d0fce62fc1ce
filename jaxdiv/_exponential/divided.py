r"""Second divided differences of a convex function f along the segment between two laws, and what follows from them.

With $x_0, x_1, x_2$ the numbers 0, 1, s in order,

$$K(s) = f[0, 1, s] = \frac{1}{x_2 - x_0} \Bigl[ (x_1 - x_0) \int_0^1 v f''(x_0 + (x_1 - x_0) v)\, dv
       + (x_2 - x_1) \int_0^1 v f''(x_2 - (x_2 - x_1) v)\, dv \Bigr] .$$

The integrals are taken by Gauss-Legendre rules of two sizes, whose difference tells their error; where differences of
f are estimated to be the more accurate, they are taken instead.
"""

import decimal
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiv._core.functions import or_one, times

Along = Callable[[jax.Array], jax.Array]


class Function(NamedTuple):
    """A function f of the weight `[]` of the first law, its two derivatives, and its values at the laws.

    It is given real and, where `log_affinity` is asked for, complex weights. `near(a, b)` tells whether the rules are
    as good as the precision between two weights; without it their error is estimated.
    """

    value: Along
    slope: Along
    curvature: Along
    at_p: jax.Array
    at_q: jax.Array
    near: Callable[[jax.Array, jax.Array], jax.Array] | None = None


def differentiated(value: Along, at_p: jax.Array, at_q: jax.Array) -> Function:
    """A function with the derivatives that JAX finds."""

    def derivative(f):
        return lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]

    slope = derivative(value)
    return Function(value, slope, derivative(slope), at_p, at_q)


@functools.cache
def gauss_legendre(size):
    """Nodes and weights on [0, 1]; NumPy's weights are wrong by 250 ulps."""
    nodes, weights = [], []
    with decimal.localcontext(decimal.Context(prec=40)):
        for k in range(size):
            x = decimal.Decimal(math.cos(math.pi * (k + 0.75) / (size + 0.5)))
            slope = decimal.Decimal(1)
            for _ in range(4):  # Newton's method for a zero of the Legendre polynomial, by its recurrence
                before, value = decimal.Decimal(1), x
                for j in range(2, size + 1):
                    before, value = value, ((2 * j - 1) * x * value - (j - 1) * before) / j
                slope = size * (x * value - before) / (x * x - 1)
                x -= value / slope
            nodes.append(float((1 + x) / 2))
            weights.append(float(1 / ((1 - x * x) * slope * slope)))
    return np.array(nodes), np.array(weights)


def _integrals(g, spans, power):
    """Integrals of v^power g(start + (end - start) v) over v in [0, 1] for spans `[n, 2]`, and of the coarser rule.

    The function is evaluated once, at all nodes together: its program is large where it is made of special functions.
    """
    real = jnp.finfo(spans.dtype).dtype
    rules = [gauss_legendre(size) for size in ((32, 16) if real == jnp.float64 else (16, 8))]
    nodes = np.concatenate([v for v, _ in rules])
    start, end = spans[:, :1], spans[:, 1:]
    values = jax.vmap(jax.vmap(g))(start + (end - start) * jnp.asarray(nodes, spans.dtype)[None])
    at = len(rules[0][0])
    return tuple(
        jnp.sum(jnp.asarray(w * v**power, spans.dtype)[None] * part, -1)
        for (v, w), part in zip(rules, (values[:, :at], values[:, at:]), strict=True)
    )


def _error(fine, coarse):
    # The error of a rule falls geometrically in its size, so that twice the size squares it; 64 for safety, a dozen
    # of which a pole of second order beside the end of the segment uses up.
    size = jnp.abs(lax.stop_gradient(fine))
    return 64 * jnp.abs(lax.stop_gradient(fine - coarse)) ** 2 / or_one(size)


def _better(function, spans, integral, difference):
    """The value of the integral over the spans unless that of the differences is estimated to be better.

    Both are pairs (value, error).
    """
    (near, near_error), (far, far_error) = integral, difference
    if function.near is not None:
        return jnp.where(jnp.all(function.near(spans[:, 0], spans[:, 1])), near, far)
    eps = jnp.finfo(near.dtype).eps
    return jnp.where(near_error <= jnp.maximum(eps * jnp.abs(near), eps * far_error), near, far)


def _magnitude(*terms):
    return lax.stop_gradient(sum(map(jnp.abs, terms)))


def k(function: Function, s: jax.Array) -> jax.Array:
    """K at the real point `s` `[]`, at which f is finite."""
    low, middle, high = jnp.sort(jnp.stack([jnp.zeros_like(s), s, jnp.ones_like(s)]))
    spans = jnp.stack([jnp.stack([low, middle]), jnp.stack([high, middle])])
    (left, right), coarse = _integrals(function.curvature, spans, 1)
    first, last = (middle - low) / (high - low), (high - middle) / (high - low)
    left_error, right_error = _error(jnp.stack([left, right]), coarse)
    # A term without weight does not count, even if it is infinite.
    integral = times(first, left) + times(last, right), times(first, left_error) + times(last, right_error)
    value = _better(function, spans, integral, _k_by_differences(function, s))
    value = jnp.where(integral[0] == jnp.inf, jnp.inf, value)
    return jnp.where(jnp.isfinite(function.at_p) & jnp.isfinite(function.at_q), value, jnp.nan)


def _k_by_differences(function, s):
    """K at `s` as a difference of two slopes, of which one is between `s` and the nearer of 0 and 1; its error."""
    f, at_p, at_q = function.value, function.at_p, function.at_q
    chord = at_p - at_q
    by_q = s < 0.5
    end, at_end = jnp.where(by_q, 0, 1).astype(s.dtype), jnp.where(by_q, at_q, at_p)
    step, at_s = s - end, f(s)
    difference = (at_s - at_end) / or_one(step)
    error = jnp.where(step == 0, jnp.inf, _magnitude(at_s, at_end) / or_one(jnp.abs(step)))
    span = jnp.stack([end, s])[None]
    (mean,), (coarse,) = _integrals(function.slope, span, 0)
    slope = _better(function, span, (mean, _error(mean, coarse)), (difference, error))
    rest = jnp.where(by_q, s - 1, s)
    error = jnp.minimum(error, _magnitude(slope)) + _magnitude(at_p, at_q)
    return (slope - chord) / rest, error / jnp.abs(rest)


def log_affinity(function: Function, s: jax.Array) -> jax.Array:
    """The logarithm of the integral of p^s q^(1-s) at the complex point `s` `[]`, up to multiples of 2 pi i."""
    at_p, at_q = function.at_p.astype(s.dtype), function.at_q.astype(s.dtype)
    (left, right), coarse = _integrals(function.curvature, _from_ends(s), 1)
    left_error, right_error = _error(jnp.stack([left, right]), jnp.stack(coarse))
    error = jnp.abs(s * (1 - s)) * (jnp.abs(s) * left_error + jnp.abs(1 - s) * right_error)
    integral = -s * (1 - s) * (s * left + (1 - s) * right), error
    terms = function.value(s), -s * at_p, -(1 - s) * at_q
    return _better(function, _from_ends(s), integral, (sum(terms), _magnitude(*terms)))


def affinity_slope(function: Function, s: jax.Array) -> jax.Array:
    """The derivative of -log c(s) = s (1 - s) K(s), which is concave in s."""
    (left, right), coarse = _integrals(function.curvature, _from_ends(s), 1)
    left_error, right_error = _error(jnp.stack([left, right]), coarse)
    integral = (1 - s) ** 2 * right - s**2 * left, (1 - s) ** 2 * right_error + s**2 * left_error
    at_s = function.slope(s)
    difference = function.at_p - function.at_q - at_s, _magnitude(function.at_p, function.at_q, at_s)
    return _better(function, _from_ends(s), integral, difference)


def _from_ends(s):
    return jnp.stack([jnp.stack([jnp.zeros_like(s), s]), jnp.stack([jnp.ones_like(s), s])])

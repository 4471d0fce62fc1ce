r"""Second divided differences of a convex function f along the segment between two laws, and what follows from them.

With $x_0, x_1, x_2$ the numbers 0, 1, s in order,

$$K(s) = f[0, 1, s] = \frac{1}{x_2 - x_0} \Bigl[ (x_1 - x_0) \int_0^1 v f''(x_0 + (x_1 - x_0) v)\, dv
       + (x_2 - x_1) \int_0^1 v f''(x_2 - (x_2 - x_1) v)\, dv \Bigr] .$$

The integrals are taken by Gauss-Legendre rules of two sizes, whose difference tells their error; where differences of
f are estimated to be the more accurate, they are taken instead. Both rules can miss the same narrow bump of f'' between
laws that are far apart. The change of f' tells so, and then the differences are accurate.
"""

import decimal
import functools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiv._core.functions import or_one, over, times


class Weights(NamedTuple):
    """The weights of the two laws, s and 1 - s, each to its own digits; complex for `log_affinity`."""

    p: jax.Array
    q: jax.Array


Tree = TypeVar("Tree")
Along = Callable[[Weights], jax.Array]


class Function(NamedTuple):
    """A function f of the weights `[]`, its two derivatives in that of p, and its values at the laws.

    `near(a, b)` tells whether the rules are as good as the precision between two weights; without it their error is
    estimated.
    """

    value: Along
    slope: Along
    curvature: Along
    at_p: jax.Array
    at_q: jax.Array
    near: Callable[[Weights, Weights], jax.Array] | None = None


def differentiated(value: Along, at_p: jax.Array, at_q: jax.Array) -> Function:
    """A function with the derivatives that JAX finds."""

    def derivative(f):
        return lambda s: jax.jvp(f, (s,), (Weights(jnp.ones_like(s.p), -jnp.ones_like(s.q)),))[1]

    slope = derivative(value)
    return Function(value, slope, derivative(slope), at_p, at_q)


@functools.cache
def gauss_legendre(size: int) -> tuple[np.ndarray, np.ndarray]:
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


def _integrals(function, order, span, power):
    """Integrals of v^power f^(order)(start + (end - start) v) over v in [0, 1], of weights `[n]`, and their errors.

    The third result tells whether all are worth nothing.
    The function is evaluated once, at all nodes together: its program is large where it is made of special functions.
    """
    (start, end), beyond = span, jnp.array(False)
    if function.near is not None:
        beyond = ~jnp.all(function.near(start, end))
        # In the middle of the laws no integrand overflows.
        start, end = (jax.tree.map(lambda x: jnp.where(beyond, 0.5, x), at) for at in span)
    dtype, g = start.p.dtype, function[order]
    sizes = (32, 16) if jnp.finfo(dtype).dtype == jnp.float64 else (16, 8)
    rules = [gauss_legendre(size) for size in (sizes if function.near is None else sizes[:1])]
    nodes = jnp.asarray(np.concatenate([v for v, _ in rules]), dtype)

    @jax.checkpoint
    def at(node):
        return jax.vmap(g)(jax.tree.map(lambda a, b: a + (b - a) * node, start, end))

    values = lax.map(at, nodes).T
    parts = values[:, : sizes[0]], values[:, sizes[0] :]
    found = [jnp.sum(jnp.asarray(w * v**power, dtype)[None] * x, -1) for (v, w), x in zip(rules, parts, strict=False)]
    real = jnp.finfo(dtype).dtype
    if function.near is not None:
        return found[0], jnp.zeros(len(found[0]), real), beyond
    mean = jnp.sum(jnp.asarray(rules[0][1], dtype)[None] * parts[0], -1)
    return found[0], _error(*found), jnp.any(_missed(function[order - 1], span, mean))


def _missed(antiderivative, span, mean):
    """Whether a quarter of the change of a function is not in the mean of its derivative over the span."""
    start, end = lax.stop_gradient(span)
    at_start, at_end = jax.vmap(antiderivative)(start), jax.vmap(antiderivative)(end)
    change = at_end - at_start
    noise = _ROUNDED * jnp.finfo(mean.dtype).eps * _magnitude(at_start, at_end)
    return lax.stop_gradient(jnp.abs((end.p - start.p) * mean - change) > 0.25 * jnp.abs(change) + noise)


_ROUNDED = 4  # roundings within a difference, for the order of its error


def _error(fine, coarse):
    # The error of a rule falls geometrically in its size, so that twice the size squares it; 64 for safety, a dozen
    # of which a pole of second order beside the end of the segment uses up.
    size = jnp.abs(lax.stop_gradient(fine))
    return 64 * jnp.abs(lax.stop_gradient(fine - coarse)) ** 2 / or_one(size)


def _better(function, integral, difference):
    """The value of the integral over the span unless that of the differences is estimated to be better.

    The integral is (value, error, whether it is worth nothing), the differences are (value, error over epsilon).
    """
    (near, near_error, missed), (far, far_error) = integral, difference
    if function.near is not None:
        return jnp.where(missed, far, near)
    eps = jnp.finfo(near.dtype).eps
    # Where the differences are of rounding only they do not know better.
    missed &= jnp.abs(near - far) > _ROUNDED * eps * far_error
    close = near_error <= jnp.maximum(eps * jnp.abs(near), eps * far_error)
    return jnp.where(close & ~missed, near, far)


def _magnitude(*terms):
    return lax.stop_gradient(sum(map(jnp.abs, terms)))


def where(condition: jax.Array, a: Tree, b: Tree) -> Tree:
    """`jnp.where` of every array of two trees."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def _stacked(*weights):
    return jax.tree.map(lambda *x: jnp.stack(x), *weights)


def _ends(s):
    """The weights of q itself, and of p itself."""
    zero, one = jnp.zeros_like(s.p), jnp.ones_like(s.p)
    return Weights(zero, one), Weights(one, zero)


def k(function: Function, s: Weights) -> jax.Array:
    """K at real weights, at which f is finite."""
    at_q, at_p = _ends(s)
    before, behind = s.p < 0, s.q < 0
    low, high = where(before, s, at_q), where(behind, s, at_p)
    middle = where(before, at_q, where(behind, at_p, s))
    span = _stacked(low, high), _stacked(middle, middle)
    (left, right), (left_error, right_error), missed = _integrals(function, 2, span, 1)
    first, last = middle.p - low.p, middle.q - high.q
    first, last = first / (first + last), last / (first + last)
    # A term without weight does not count, even if it is infinite.
    integral = times(first, left) + times(last, right), times(first, left_error) + times(last, right_error), missed
    return _known(function, integral, _k_by_differences(function, s))


def k_at(function: Function, end: Weights) -> jax.Array:
    """K at one of the laws, by a smaller program."""
    span = _stacked(Weights(end.q, end.p)), _stacked(end)
    (integral,), (error,), missed = _integrals(function, 2, span, 1)
    slope, chord = function.slope(end), function.at_p - function.at_q
    difference = (end.p - end.q) * (slope - chord), _magnitude(slope, function.at_p, function.at_q)
    return _known(function, (integral, error, missed), difference)


def _known(function, integral, difference):
    value = _better(function, integral, difference)
    # An integrand may overflow where the differences do not.
    value = jnp.where((integral[0] == jnp.inf) & ~jnp.isfinite(value), jnp.inf, value)
    return jnp.where(jnp.isfinite(function.at_p) & jnp.isfinite(function.at_q), value, jnp.nan)


def _k_by_differences(function, s):
    """K as a difference of two slopes, of which one is between the weights and the nearer law; its error."""
    at_p, at_q = function.at_p, function.at_q
    chord, by_q, ends = at_p - at_q, s.p < 0.5, _ends(s)
    end, at_end = where(by_q, *ends), jnp.where(by_q, at_q, at_p)
    step, at_s = jnp.where(by_q, s.p, -s.q), function.value(s)
    difference = over(at_s - at_end, or_one(step))
    error = jnp.where(step == 0, jnp.inf, _magnitude(at_s, at_end) / or_one(jnp.abs(step)))
    span = _stacked(end), _stacked(s)
    (mean,), (mean_error,), missed = _integrals(function, 1, span, 0)
    slope = _better(function, (mean, mean_error, missed), (difference, error))
    rest = jnp.where(by_q, -s.q, s.p)
    error = jnp.minimum(error, _magnitude(slope)) + _magnitude(at_p, at_q)
    return over(slope - chord, rest), error / jnp.abs(rest)


def log_affinity(function: Function, s: Weights) -> jax.Array:
    """The logarithm of the integral of p^s q^(1-s) at complex weights, up to multiples of 2 pi i."""
    at_p, at_q = function.at_p.astype(s.p.dtype), function.at_q.astype(s.p.dtype)
    span = _stacked(*_ends(s)), _stacked(s, s)
    (left, right), (left_error, right_error), missed = _integrals(function, 2, span, 1)
    error = jnp.abs(s.p * s.q) * (jnp.abs(s.p) * left_error + jnp.abs(s.q) * right_error)
    integral = -s.p * s.q * (s.p * left + s.q * right), error, missed
    terms = function.value(s), -s.p * at_p, -s.q * at_q
    return _better(function, integral, (sum(terms), _magnitude(*terms)))


def affinity_slope(function: Function, s: Weights) -> jax.Array:
    """The derivative of -log c(s) = s (1 - s) K(s), which is concave in s."""
    span = _stacked(*_ends(s)), _stacked(s, s)
    (left, right), (left_error, right_error), missed = _integrals(function, 2, span, 1)
    integral = s.q**2 * right - s.p**2 * left, s.q**2 * right_error + s.p**2 * left_error, missed
    at_s = function.slope(s)
    difference = function.at_p - function.at_q - at_s, _magnitude(function.at_p, function.at_q, at_s)
    return _better(function, integral, difference)

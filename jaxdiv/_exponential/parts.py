"""The functions of which the named families are made, along the segment between two laws, and exact differences."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.functions import over, split
from jaxdiv._core.rules import custom_jvp
from jaxdiv._exponential import divided
from jaxdiv._exponential.binet import binet
from jaxdiv._exponential.divided import Weights
from jaxdiv._exponential.pairs import Line


def _function(value, slope, curvature, *lines):
    """A function with poles where the lines are 0."""
    one = jnp.array([1, 0], lines[0].p.dtype)
    at_p, at_q = jax.vmap(value)(Weights(one, 1 - one))

    def near(a, b):
        # The rules converge as powers of this quotient, which is the sum of the axes of the largest ellipse, with its
        # foci at the ends, that does not contain the pole.
        roots = [jnp.sqrt(jax.vmap(line.at)(b) / jax.vmap(line.at)(a)) for line in lines]
        return functools.reduce(jnp.logical_and, (2 * jnp.abs(x - 1) < jnp.abs(x + 1) for x in roots))

    return divided.Function(value, slope, curvature, at_p, at_q, near)


def _logarithm_of(line):
    """The logarithm, 0 at the larger parameter for the sake of its differences."""
    unit = lax.stop_gradient(jnp.maximum(line.p, line.q))
    return lambda s: jnp.log(line.at(s) / unit.astype(s.p.dtype))


def _rate(line):
    """The relative change of a parameter."""
    return lambda s: over(line.delta.astype(s.p.dtype), line.at(s))


def minus_log(x: Line) -> divided.Function:
    """-log x."""
    rate, unit = _rate(x), lax.stop_gradient(jnp.maximum(x.p, x.q))
    half = 2.0 ** (jnp.finfo(unit.dtype).maxexp // 2)

    def log(s):
        at = x.at(s)
        tiny = jnp.real(at) < unit * (1 / half)  # the quotient could underflow
        lifted = jnp.log(jnp.where(tiny, at * half, at) / unit.astype(at.dtype))
        return lifted - jnp.where(tiny, math.log(half), 0).astype(at.dtype)

    return _function(lambda s: -log(s), lambda s: -rate(s), lambda s: rate(s) ** 2, x)


def x_log_x(x: Line) -> divided.Function:
    """x log x."""
    log, rate = _logarithm_of(x), _rate(x)

    def change(s):
        return x.delta.astype(s.p.dtype)

    return _function(lambda s: x.at(s) * log(s), lambda s: change(s) * (log(s) + 1), lambda s: change(s) * rate(s), x)


def g(x: Line) -> divided.Function:
    """Of the logarithm of the gamma function what x log x - x leaves."""
    log, rate = _logarithm_of(x), _rate(x)

    def rest(order, s):
        return x.delta.astype(s.p.dtype) ** order * binet(order, x.at(s))

    return _function(
        lambda s: -0.5 * log(s) + rest(0, s),
        lambda s: -0.5 * rate(s) + rest(1, s),
        lambda s: 0.5 * rate(s) ** 2 + rest(2, s),
        x,
    )


def derivative_of_g(order: int, x: jax.Array) -> jax.Array:
    """The derivative of g of an order of at least 1, elementwise."""
    return 0.5 * (-1) ** order * math.factorial(order - 1) / x**order + binet(order, x)


@custom_jvp
def change_of_slope(p: jax.Array, q: jax.Array, delta: jax.Array) -> jax.Array:
    """g'(p) - g'(q), elementwise, from the accurate difference p - q."""
    nodes, weights = (jnp.asarray(x, p.dtype) for x in divided.gauss_legendre(32 if p.dtype == jnp.float64 else 16))
    # The rule as in `_function`: up to a quotient of 9 it is as good as the precision.
    near = (p <= 8 * q) & (q <= 8 * p)
    start, step = jnp.where(near, q, 1), jnp.where(near, delta, 0)
    along = jax.vmap(lambda node, weight: weight * derivative_of_g(2, start + node * step))
    integral = delta * jnp.sum(along(nodes, weights), 0)
    return jnp.where(near, integral, derivative_of_g(1, p) - derivative_of_g(1, q))


@change_of_slope.defjvp
def _(primals, tangents):
    p, q, _ = primals
    return change_of_slope(*primals), derivative_of_g(2, p) * tangents[0] - derivative_of_g(2, q) * tangents[1]


def g_less_that_of_sum(x: Line, y: Line, n: Line, skew: jax.Array) -> divided.Function:
    """g(x) - g(n) with n = x + y and the constant `skew` of x' y - x y'."""

    def rest(order, s):
        dx, dn = (line.delta.astype(s.p.dtype) for line in (x, n))
        return dx**order * binet(order, x.at(s)) - dn**order * binet(order, n.at(s))

    def turn(s):
        return skew.astype(s.p.dtype) / x.at(s) / n.at(s)

    return _function(
        lambda s: 0.5 * jnp.log1p(y.at(s) / x.at(s)) + rest(0, s),
        lambda s: -0.5 * turn(s) + rest(1, s),
        lambda s: 0.5 * turn(s) * (_rate(x)(s) + _rate(n)(s)) + rest(2, s),
        x,
        n,
    )


def slope_of_g(x: Line, y: Line, u: jax.Array, weight: jax.Array) -> divided.Function:
    """-y g'(x + u y) with a weight."""
    z = Line(*(a + u * b for a, b in zip(x, y, strict=True)))

    def derivative(order, s):
        return weight.astype(s.p.dtype) * derivative_of_g(order, z.at(s))

    def slope(s):
        return -y.delta.astype(s.p.dtype) * derivative(1, s) - y.at(s) * z.delta.astype(s.p.dtype) * derivative(2, s)

    def curvature(s):
        dy, dz = (line.delta.astype(s.p.dtype) for line in (y, z))
        return -dz * (2 * dy * derivative(2, s) + y.at(s) * dz * derivative(3, s))

    return _function(lambda s: -y.at(s) * derivative(1, s), slope, curvature, z)


# ---------------------------------------------------------------- exact differences


@custom_jvp
def difference_of_products(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """`a b - c d`, elementwise, with an error that is far below the rounding of the products."""
    (a_top, a_low), (b_top, b_low), (c_top, c_low), (d_top, d_low) = map(split, (a, b, c, d))
    crossed = (a_top * b_low - c_top * d_low) + (a_low * b_top - c_low * d_top)
    return (a_top * b_top - c_top * d_top) + (crossed + (a_low * b_low - c_low * d_low))


@difference_of_products.defjvp
def _(primals, tangents):
    (a, b, c, d), (da, db, dc, dd) = primals, tangents
    return difference_of_products(*primals), (da * b - dc * d) + (a * db - c * dd)


def cross(x: Line, y: Line) -> jax.Array:
    """x_p y_q - x_q y_p, to its own digits where the lines are."""
    # Where p and q differ by less than the factor 2, their differences are exact.
    exact = (jnp.abs(x.delta) <= 0.5 * jnp.minimum(x.p, x.q)) & (jnp.abs(y.delta) <= 0.5 * jnp.minimum(y.p, y.q))
    return difference_of_products(jnp.where(exact, x.delta, x.p), y.q, jnp.where(exact, y.delta, y.p), x.q)


@custom_jvp
def sums_from(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For each entry the sum of it and those behind it, and what the rounding of that sum has lost."""

    def add(one, other):
        (a, a_rest), (b, b_rest) = one, other
        total = a + b
        of_b = total - a
        return total, ((a - (total - of_b)) + (b - of_b)) + (a_rest + b_rest)

    return lax.associative_scan(add, (x, jnp.zeros_like(x)), reverse=True)


@sums_from.defjvp
def _(primals, tangents):
    total = lax.cumsum(tangents[0], reverse=True)
    return sums_from(*primals), (total, jnp.zeros_like(total))

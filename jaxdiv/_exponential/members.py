r"""The named families, by parts in which nothing cancels.

With Binet's function J (see `binet`) and $g(x) = -\tfrac12 \log x + J(x)$, which is convex, $\log \Gamma(x) = x \log x
- x + g(x)$ up to a constant. What is of first degree in the parameters is taken apart and mixed by the shares of the
two laws in the sum: a function $f(x) = n\, \varphi(m / n)$ of sizes $n_p$, $n_q$ and quotients $m / n$ has

$$K_f(s) = \frac{n_p n_q}{n_s} K_\varphi(w), \qquad n_s = s\, n_p + (1 - s)\, n_q, \qquad w = s\, n_p / n_s .$$

- Gamma laws of shape a and rate r: $K_g$ of a, and with size a that of $\varphi = -\log$ of r / a.
- Beta laws of x and y: $K_g$ of x and of y less that of x + y, and with size x + y those of $\varphi(t) = t \log t$ of
  their shares. Where y is much smaller than x, $g(x) - g(x + y)$ is an integral of $-y g'(x + u y)$ over u.
- Dirichlet laws are products of beta laws, of each entry and the sum of those behind it.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.functions import bregman, log_ratio, or_one, split
from jaxdiv._exponential import divided
from jaxdiv._exponential.binet import binet


class Pair(NamedTuple):
    """Two laws: functions of the weight s `[]` of the first one.

    `k` is K(s), `log_affinity` the logarithm of the affinity at a complex s. `slope` is the derivative of -log c(s) and
    `curvature` the derivative of less that. `like` `[]` is 0, or `nan` where a parameter is outside of its range.
    """

    like: jax.Array
    k: Callable[[jax.Array], jax.Array]
    log_affinity: Callable[[jax.Array], jax.Array]
    slope: Callable[[jax.Array], jax.Array]
    curvature: Callable[[jax.Array], jax.Array]


class Line(NamedTuple):
    """A parameter at the two laws, `[]`, and its accurate difference."""

    p: jax.Array
    q: jax.Array
    delta: jax.Array

    def at(self, s: jax.Array) -> jax.Array:
        """At a weight of p, from the nearer end, so that beside it no digit of it is lost."""
        a, b, d = (x.astype(s.dtype) for x in self)
        return jnp.where(jnp.real(s) < 0.5, b + s * d, a - (1 - s) * d)


def _line(p, q):
    return Line(p, q, p - q)


def of_function(function: divided.Function) -> Pair:
    """Of a function whose second divided difference is K."""
    inside = jnp.isfinite(function.at_p) & jnp.isfinite(function.at_q)
    return Pair(
        jnp.where(inside, jnp.zeros_like(function.at_p), jnp.nan),
        functools.partial(divided.k, function),
        functools.partial(divided.log_affinity, function),
        functools.partial(divided.affinity_slope, function),
        function.curvature,
    )


def where_finite(pair: Pair, value: Callable[[jax.Array], jax.Array]) -> Pair:
    """K is infinite where the function is infinite or not a number, but not at the laws."""

    def k(s):
        diverges = ~jnp.isfinite(value(s)) & ~jnp.isnan(pair.like + s)
        return jnp.where(diverges, jnp.inf, pair.k(jnp.where(diverges, 0.5, s)))

    return pair._replace(k=k)


def _total(*pairs):
    """The sum of functions."""

    def total(name):
        return lambda s: sum(getattr(pair, name)(s) for pair in pairs)

    return Pair(sum(pair.like for pair in pairs), *map(total, Pair._fields[1:]))


def _scaled(scale, pair):
    def scaled(f):
        return lambda s: scale.astype(s.dtype) * f(s)

    return Pair(pair.like, *map(scaled, pair[1:]))


def _chosen(condition, pair, other):
    def chosen(f, g):
        return lambda s: jnp.where(condition, f(s), g(s))

    like = jnp.where(condition, pair.like, other.like)
    return Pair(like, *(chosen(f, g) for f, g in zip(pair[1:], other[1:], strict=True)))


def _where(condition, line, other):
    return Line(*(jnp.where(condition, a, b) for a, b in zip(line, other, strict=True)))


def _of_components(make, *arrays):
    """The sum over the entries of arrays: products of laws."""

    def total(name):
        return lambda s: jnp.sum(jax.vmap(lambda *x: getattr(make(*x), name)(s))(*arrays), 0)

    return Pair(jnp.sum(jax.vmap(lambda *x: make(*x).like)(*arrays)), *map(total, Pair._fields[1:]))


def _mixed(size, pair):
    """A function of first degree, of what is mixed by the shares of the laws in a size."""

    def share(s):
        return s * size.p.astype(s.dtype) / size.at(s)

    def k(s):
        return size.p / size.at(s) * size.q * pair.k(share(s))

    def log_affinity(s):
        return size.at(s) * pair.log_affinity(share(s))

    def slope(s):
        w, n = share(s), size.at(s)
        return size.delta * w * (1 - w) * pair.k(w) + size.p / n * size.q * pair.slope(w)

    def curvature(s):
        n = size.at(s)
        scale = size.p / n * size.q
        return scale * (scale / n) * pair.curvature(share(s))

    return Pair(pair.like, k, log_affinity, slope, curvature)


def _within(inside, pair, *lines):
    """`nan` of laws that are none, and infinite where they have no affinity at the weight."""
    at = [inside(*(getattr(line, end) for line in lines)) for end in ("p", "q")]
    like = jnp.where(at[0] & at[1], pair.like, jnp.nan)

    def k(s):
        found = inside(*(line.at(s) for line in lines))
        return jnp.where(found | jnp.isnan(s), pair.k(jnp.where(found, s, 0.5)), jnp.inf) + like + 0 * s

    return pair._replace(like=like, k=k)


# ---------------------------------------------------------------- functions of one parameter


def _function(value, slope, curvature, line):
    """A function with a pole where the line is 0."""
    at_p, at_q = jax.vmap(value)(jnp.array([1, 0], line.p.dtype))

    def near(a, b):
        # The rules converge as powers of this quotient, which is the sum of the axes of the largest ellipse, with its
        # foci at the ends, that does not contain the pole.
        root = jnp.sqrt(jax.vmap(line.at)(b) / jax.vmap(line.at)(a))
        return 2 * jnp.abs(root - 1) <= jnp.abs(root + 1)

    return divided.Function(value, slope, curvature, at_p, at_q, near)


def _logarithm_of(line):
    """The logarithm, 0 at the larger parameter for the sake of its differences."""
    unit = lax.stop_gradient(jnp.maximum(line.p, line.q))
    return lambda s: jnp.log(line.at(s) / unit.astype(s.dtype))


def _rate(line):
    """The relative change of a parameter."""
    return lambda s: line.delta.astype(s.dtype) / line.at(s)


def _minus_log(x):
    log, rate = _logarithm_of(x), _rate(x)
    return _function(lambda s: -log(s), lambda s: -rate(s), lambda s: rate(s) ** 2, x)


def _x_log_x(x):
    log, rate = _logarithm_of(x), _rate(x)

    def change(s):
        return x.delta.astype(s.dtype)

    return _function(
        lambda s: x.at(s) * log(s), lambda s: change(s) * (log(s) + 1), lambda s: change(s) * rate(s), x
    )


def _g(x):
    """Of the logarithm of the gamma function what x log x - x leaves."""
    log, rate = _logarithm_of(x), _rate(x)

    def rest(order, s):
        return x.delta.astype(s.dtype) ** order * binet(order, x.at(s))

    return _function(
        lambda s: -0.5 * log(s) + rest(0, s),
        lambda s: -0.5 * rate(s) + rest(1, s),
        lambda s: 0.5 * rate(s) ** 2 + rest(2, s),
        x,
    )


def _slope_of_g(x, y, u, weight):
    """-y g'(x + u y) with a weight."""
    z = Line(*(a + u * b for a, b in zip(x, y, strict=True)))

    def derivative(order, s):
        log = 0.5 * (-1) ** order * math.factorial(order - 1)
        return weight.astype(s.dtype) * (log / z.at(s) ** order + binet(order, z.at(s)))

    def slope(s):
        return -y.delta.astype(s.dtype) * derivative(1, s) - y.at(s) * z.delta.astype(s.dtype) * derivative(2, s)

    def curvature(s):
        dy, dz = (line.delta.astype(s.dtype) for line in (y, z))
        return -dz * (2 * dy * derivative(2, s) + y.at(s) * dz * derivative(3, s))

    return _function(lambda s: -y.at(s) * derivative(1, s), slope, curvature, z)


# ---------------------------------------------------------------- families


def poisson(p: jax.Array, q: jax.Array) -> Pair:
    """By rates `[d]`, which may be 0."""
    return _of_components(_poisson, p, q)


def _poisson(p, q):
    nothing = (p == 0) | (q == 0)
    a, b = (jnp.where(nothing, 1, jnp.where(x >= 0, x, jnp.nan)) for x in (p, q))
    log = log_ratio(a, b, a - b)

    def along(order):
        def derivative(s):
            first, last, c = (x.astype(s.dtype) for x in (a, b, log))
            return c**order * jnp.where(jnp.real(s) < 0.5, last * jnp.exp(s * c), first * jnp.exp(-(1 - s) * c))

        return derivative

    pair = of_function(divided.Function(*map(along, range(3)), a, b, lambda s, t: jnp.abs(t - s) * jnp.abs(log) <= 8))
    return _chosen(nothing, _of_a_rate_of_0(p, q), pair)


def _of_a_rate_of_0(p, q):
    """Where one law is certain of 0, the affinity is the probability that the other one gives to 0 to a power."""
    at_p = p == 0
    rate = jnp.where(at_p, q, p)

    def k(s):
        power = jnp.where(at_p, s, 1 - s)
        return jnp.where(rate == 0, 0, jnp.where(power > 0, rate / jnp.where(power > 0, power, 1), jnp.inf))

    def log_affinity(s):
        return -rate.astype(s.dtype) * jnp.where(at_p, 1 - s, s)

    def slope(s):
        return jnp.where(at_p, -rate, rate) + 0 * s

    return Pair(jnp.where(rate >= 0, 0 * rate, jnp.nan), k, log_affinity, slope, jnp.zeros_like)


def exponential(p: jax.Array, q: jax.Array) -> Pair:
    """By rates `[d]`."""

    def one(p, q):
        rate = _line(p, q)
        return _within(_positive, of_function(_minus_log(rate)), rate)

    return _of_components(one, p, q)


def gamma(p: tuple[jax.Array, jax.Array], q: tuple[jax.Array, jax.Array]) -> Pair:
    """By shapes and rates, all `[d]`."""

    def one(a, r, b, t):
        shape, rate = _line(a, b), _line(r, t)
        quotient = Line(r / a, t / b, cross(rate, shape) / a / b)
        pair = _total(of_function(_g(shape)), _mixed(shape, of_function(_minus_log(quotient))))
        return _within(_positive, pair, shape, rate)

    return _of_components(one, *p, *q)


def beta(p: tuple[jax.Array, jax.Array], q: tuple[jax.Array, jax.Array]) -> Pair:
    """By their two parameters, all `[d]`."""

    def one(a, b, c, d):
        x, y = _line(a, c), _line(b, d)
        return _within(_positive, _beta(x, y, cross(x, y)), x, y)

    return _of_components(one, *p, *q)


def dirichlet(p: jax.Array, q: jax.Array) -> Pair:
    """By concentrations `[k]`."""
    (p_sum, p_rest), (q_sum, q_rest) = _sums_behind(p), _sums_behind(q)

    # Beta laws of each entry but the last, and the sum of those behind it.
    def one(a, b, c, d, c_rest, d_rest):
        x, y, rest = _line(a, b), _line(c, d), _line(c_rest, d_rest)
        skew = cross(x, y) + (x.delta * rest.q - x.q * rest.delta)
        return _beta(x, y._replace(delta=y.delta + rest.delta), skew)

    arrays = p, q, p_sum, q_sum, p_rest, q_rest
    return _within(_positive, _of_components(one, *(x[:-1] for x in arrays)), _line(p, q))


def _positive(*parameters):
    return jnp.all(jnp.stack(parameters) > 0)


_SMALL = 0.1  # of y / x: up to it y is negligible beside x to a digit, and few nodes integrate over [x, x + y]


def _beta(x, y, skew):
    """`skew` is x_p y_q - x_q y_p, of which hardly a digit may be lost where x and y change alike."""
    n = Line(*(a + b for a, b in zip(x, y, strict=True)))
    skew = skew / n.p / n.q
    shares = Line(x.p / n.p, x.q / n.q, skew), Line(y.p / n.p, y.q / n.q, -skew)
    mixed = _mixed(n, _of_lines(_x_log_x, shares, jnp.ones_like(n.p)))
    swap = x.p < y.p
    x, y = _where(swap, y, x), _where(swap, x, y)
    small = (y.p <= _SMALL * x.p) & (y.q <= _SMALL * x.q)
    large = jnp.where(small, 0, 1).astype(n.p.dtype)
    excess = _of_lines(_g, (y, x, n), jnp.stack([jnp.ones_like(large), large, -large]))
    # The nodes are used where y is small only.
    y = _where(small, y, Line(*(_SMALL * z for z in x)))
    nodes, weights = (jnp.asarray(v, x.p.dtype) for v in divided.gauss_legendre(10 if x.p.dtype == jnp.float64 else 4))
    difference = _of_components(
        lambda u, weight: of_function(_slope_of_g(x, y, u, weight)), nodes, (1 - large) * weights
    )
    return _total(mixed, excess, difference)


def _of_lines(function, lines, weights):
    """The weighted sum of a function of several parameters."""
    return _of_components(
        lambda weight, *line: _scaled(weight, of_function(function(Line(*line)))),
        jnp.broadcast_to(weights, (len(lines),)),
        *map(jnp.stack, zip(*lines, strict=True)),
    )


# ---------------------------------------------------------------- exact differences


@jax.custom_jvp
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


@jax.custom_jvp
def _sums_behind(x):
    """For each entry the sum of those behind it, and what the rounding of that sum has lost."""

    def add(one, other):
        (a, a_rest), (b, b_rest) = one, other
        total = a + b
        of_b = total - a
        return total, ((a - (total - of_b)) + (b - of_b)) + (a_rest + b_rest)

    total, rest = lax.associative_scan(add, (x, jnp.zeros_like(x)), reverse=True)
    return jnp.append(total[1:], 0), jnp.append(rest[1:], 0)


@_sums_behind.defjvp
def _(primals, tangents):
    (dx,) = tangents
    behind = jnp.append(lax.cumsum(dx, reverse=True)[1:], jnp.zeros_like(dx[:1]))
    return _sums_behind(*primals), (behind, jnp.zeros_like(behind))

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
from jaxdiv._exponential.divided import Weights
from jaxdiv._gaussian.excess import log_excess


class Pair(NamedTuple):
    """Two laws: functions of their weights.

    `k` is K(s), `k_at` the same at one of the laws, `log_affinity` the logarithm of the affinity at complex weights. `slope` is the derivative of -log c(s) and
    `curvature` the derivative of less that. `like` `[]` is 0, or `nan` where a parameter is outside of its range.
    """

    like: jax.Array
    k: Callable[[Weights], jax.Array]
    k_at: Callable[[Weights], jax.Array]
    log_affinity: Callable[[Weights], jax.Array]
    slope: Callable[[Weights], jax.Array]
    curvature: Callable[[Weights], jax.Array]


class Line(NamedTuple):
    """A parameter at the two laws, `[]`, and its accurate difference."""

    p: jax.Array
    q: jax.Array
    delta: jax.Array

    def at(self, s: Weights) -> jax.Array:
        """At weights, from the nearer end, so that beside it no digit of it is lost."""
        a, b, d = (x.astype(s.p.dtype) for x in self)
        return jnp.where(jnp.real(s.p) < 0.5, b + s.p * d, a - s.q * d)


def _line(p, q):
    return Line(p, q, p - q)


def of_function(function: divided.Function) -> Pair:
    """Of a function whose second divided difference is K."""
    inside = jnp.isfinite(function.at_p) & jnp.isfinite(function.at_q)
    return Pair(
        jnp.where(inside, jnp.zeros_like(function.at_p), jnp.nan),
        functools.partial(divided.k, function),
        functools.partial(divided.k_at, function),
        functools.partial(divided.log_affinity, function),
        functools.partial(divided.affinity_slope, function),
        function.curvature,
    )


def where_finite(pair: Pair, value: Callable[[Weights], jax.Array]) -> Pair:
    """K is infinite where the function is infinite or not a number, but not at the laws."""

    def k(s):
        diverges = ~jnp.isfinite(value(s)) & ~jnp.isnan(pair.like + s.p)
        return jnp.where(diverges, jnp.inf, pair.k(_half_unless(~diverges, s)))

    return pair._replace(k=k)


def _half_unless(condition, s):
    return Weights(*(jnp.where(condition, x, 0.5) for x in s))


def _total(*pairs):
    """The sum of functions."""

    def total(name):
        return lambda s: sum(getattr(pair, name)(s) for pair in pairs)

    return Pair(sum(pair.like for pair in pairs), *map(total, Pair._fields[1:]))


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

    def shares(s):
        n = size.at(s)
        return Weights(s.p * size.p.astype(n.dtype) / n, s.q * size.q.astype(n.dtype) / n)

    def k(s):
        return size.p / size.at(s) * size.q * pair.k(shares(s))

    def k_at(end):
        return (end.p * size.q + end.q * size.p) * pair.k_at(end)

    def log_affinity(s):
        return size.at(s) * pair.log_affinity(shares(s))

    def slope(s):
        w = shares(s)
        return size.delta * w.p * w.q * pair.k(w) + size.p / size.at(s) * size.q * pair.slope(w)

    def curvature(s):
        n = size.at(s)
        scale = size.p / n * size.q
        return scale * (scale / n) * pair.curvature(shares(s))

    return Pair(pair.like, k, k_at, log_affinity, slope, curvature)


def _within(inside, pair, *lines):
    """`nan` of laws that are none, and infinite where they have no affinity at the weight."""
    at = [inside(*(getattr(line, end) for line in lines)) for end in ("p", "q")]
    like = jnp.where(at[0] & at[1], pair.like, jnp.nan)

    def k(s):
        found = inside(*(line.at(s) for line in lines))
        return jnp.where(found | jnp.isnan(s.p), pair.k(_half_unless(found, s)), jnp.inf) + like + 0 * s.p

    return pair._replace(like=like, k=k, k_at=lambda end: pair.k_at(end) + like)


# ---------------------------------------------------------------- functions of one parameter


def _function(value, slope, curvature, *lines):
    """A function with poles where the lines are 0."""
    one = jnp.array([1, 0], lines[0].p.dtype)
    at_p, at_q = jax.vmap(value)(Weights(one, 1 - one))

    def near(a, b):
        # The rules converge as powers of this quotient, which is the sum of the axes of the largest ellipse, with its
        # foci at the ends, that does not contain the pole.
        roots = [jnp.sqrt(jax.vmap(line.at)(b) / jax.vmap(line.at)(a)) for line in lines]
        return functools.reduce(jnp.logical_and, (2 * jnp.abs(x - 1) <= jnp.abs(x + 1) for x in roots))

    return divided.Function(value, slope, curvature, at_p, at_q, near)


def _logarithm_of(line):
    """The logarithm, 0 at the larger parameter for the sake of its differences."""
    unit = lax.stop_gradient(jnp.maximum(line.p, line.q))
    return lambda s: jnp.log(line.at(s) / unit.astype(s.p.dtype))


def _rate(line):
    """The relative change of a parameter."""
    return lambda s: line.delta.astype(s.p.dtype) / line.at(s)


def _minus_log(x):
    log, rate = _logarithm_of(x), _rate(x)
    return _function(lambda s: -log(s), lambda s: -rate(s), lambda s: rate(s) ** 2, x)


def _x_log_x(x):
    log, rate = _logarithm_of(x), _rate(x)

    def change(s):
        return x.delta.astype(s.p.dtype)

    return _function(lambda s: x.at(s) * log(s), lambda s: change(s) * (log(s) + 1), lambda s: change(s) * rate(s), x)


def _g(x):
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


def _derivative_of_g(order, x):
    return 0.5 * (-1) ** order * math.factorial(order - 1) / x**order + binet(order, x)


@jax.custom_jvp
def change_of_slope(p: jax.Array, q: jax.Array, delta: jax.Array) -> jax.Array:
    """g'(p) - g'(q), elementwise, from the accurate difference p - q."""
    nodes, weights = (jnp.asarray(x, p.dtype) for x in divided.gauss_legendre(32 if p.dtype == jnp.float64 else 16))
    # The rule as in `_function`: up to a quotient of 9 it is as good as the precision.
    near = (p <= 8 * q) & (q <= 8 * p)
    points = jnp.where(near, q, 1)[..., None] + jnp.where(near, delta, 0)[..., None] * nodes
    integral = delta * jnp.sum(weights * _derivative_of_g(2, points), -1)
    return jnp.where(near, integral, _derivative_of_g(1, p) - _derivative_of_g(1, q))


@change_of_slope.defjvp
def _(primals, tangents):
    p, q, _ = primals
    return change_of_slope(*primals), _derivative_of_g(2, p) * tangents[0] - _derivative_of_g(2, q) * tangents[1]


def _g_less_that_of_sum(x, y, n, skew):
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


def _slope_of_g(x, y, u, weight):
    """-y g'(x + u y) with a weight."""
    z = Line(*(a + u * b for a, b in zip(x, y, strict=True)))

    def derivative(order, s):
        return weight.astype(s.p.dtype) * _derivative_of_g(order, z.at(s))

    def slope(s):
        return -y.delta.astype(s.p.dtype) * derivative(1, s) - y.at(s) * z.delta.astype(s.p.dtype) * derivative(2, s)

    def curvature(s):
        dy, dz = (line.delta.astype(s.p.dtype) for line in (y, z))
        return -dz * (2 * dy * derivative(2, s) + y.at(s) * dz * derivative(3, s))

    return _function(lambda s: -y.at(s) * derivative(1, s), slope, curvature, z)


# ---------------------------------------------------------------- families


def poisson(p: jax.Array, q: jax.Array) -> Pair:
    """By rates `[d]`, which may be 0."""
    pair = _of_components(_poisson, p, q)
    return _with_kl(pair, lambda p, q: jnp.sum(bregman(p, q, p - q)), p, q)


def _poisson(p, q):
    nothing = (p == 0) | (q == 0)
    a, b = (jnp.where(nothing, 1, jnp.where(x >= 0, x, jnp.nan)) for x in (p, q))
    log = log_ratio(a, b, a - b)

    def along(order):
        def derivative(s):
            first, last, c = (x.astype(s.p.dtype) for x in (a, b, log))
            return c**order * jnp.where(jnp.real(s.p) < 0.5, last * jnp.exp(s.p * c), first * jnp.exp(-s.q * c))

        return derivative

    pair = of_function(
        divided.Function(*map(along, range(3)), a, b, lambda s, t: jnp.abs(t.p - s.p) * jnp.abs(log) <= 8)
    )
    return _chosen(nothing, _of_a_rate_of_0(p, q), pair)


def _of_a_rate_of_0(p, q):
    """Where one law is certain of 0, the affinity is the probability that the other one gives to 0 to a power."""
    at_p = p == 0
    rate = jnp.where(at_p, q, p)

    def k(s):
        power = jnp.where(at_p, *s)
        return jnp.where(rate == 0, 0, jnp.where(power > 0, rate / jnp.where(power > 0, power, 1), jnp.inf))

    def log_affinity(s):
        return -rate.astype(s.p.dtype) * jnp.where(at_p, s.q, s.p)

    def slope(s):
        return jnp.where(at_p, -rate, rate) + 0 * s.p

    return Pair(jnp.where(rate >= 0, 0 * rate, jnp.nan), k, k, log_affinity, slope, lambda s: jnp.zeros_like(s.p))


def exponential(p: jax.Array, q: jax.Array) -> Pair:
    """By rates `[d]`."""

    def one(p, q):
        rate = _line(p, q)
        return _within(_positive, of_function(_minus_log(rate)), rate)

    return _with_kl(_of_components(one, p, q), lambda p, q: jnp.sum(log_excess(q, p)), p, q)


def gamma(p: tuple[jax.Array, jax.Array], q: tuple[jax.Array, jax.Array]) -> Pair:
    """By shapes and rates, all `[d]`."""
    return _with_kl(_gamma(p, q), _kl_of_gamma, p, q)


def _gamma(p, q):
    def one(a, r, b, t):
        shape, rate = _line(a, b), _line(r, t)
        quotient = Line(r / a, t / b, cross(rate, shape) / a / b)
        pair = _total(of_function(_g(shape)), _mixed(shape, of_function(_minus_log(quotient))))
        return _within(_positive, pair, shape, rate)

    return _of_components(one, *p, *q)


@jax.custom_jvp
def _kl_of_gamma(p, q):
    return _at_p(_gamma(p, q))


@_kl_of_gamma.defjvp
def _(primals, tangents):
    (a, r), (b, t) = primals
    skew = cross(_line(r, t), _line(a, b))
    ratio = log_ratio(r / a, t / b, skew / a / b)
    of_p = (a - b) * _derivative_of_g(2, a) - skew / a / r, skew / r / r
    of_q = ratio - change_of_slope(a, b, a - b), -skew / r / t
    return _kl_of_gamma(*primals), _along((of_p, of_q), tangents)


def beta(p: tuple[jax.Array, jax.Array], q: tuple[jax.Array, jax.Array]) -> Pair:
    """By their two parameters, all `[d]`."""

    def one(a, b, c, d):
        return dirichlet(jnp.stack([a, b]), jnp.stack([c, d]))

    return _of_components(one, *p, *q)


def dirichlet(p: jax.Array, q: jax.Array) -> Pair:
    """By concentrations `[k]`."""
    return _with_kl(_dirichlet(p, q), _kl_of_dirichlet, p, q)


def _dirichlet(p, q):
    # Beta laws of each entry but the last, and the sum of those behind it.
    def one(*arrays):
        a, b, *sums = arrays
        x, (y, skew) = _line(a, b), _sum_and_skew(_line(a, b), *sums)
        return _within(_positive, _beta(x, y, skew), x, y)

    sums = *(x[1:] for x in sums_from(p)), *(x[1:] for x in sums_from(q))
    pair = _of_components(one, p[:-1], q[:-1], *sums)
    return _within(_positive, pair, _line(p, q))


def _sum_and_skew(x, p, p_rest, q, q_rest):
    """The line of sums that are known beyond their digits, and its skew x_p y_q - x_q y_p to a line."""
    y, rest = _line(p, q), _line(p_rest, q_rest)
    skew = cross(x, y) + (x.delta * rest.q - x.q * rest.delta)
    return y._replace(delta=y.delta + rest.delta), skew


@jax.custom_jvp
def _kl_of_dirichlet(p, q):
    return _at_p(_dirichlet(p, q))


@_kl_of_dirichlet.defjvp
def _(primals, tangents):
    x = _line(*primals)
    sums = [y[:1] for part in primals for y in sums_from(part)]
    n, skew = _sum_and_skew(x, *sums)
    ratio = log_ratio(x.p / n.p, x.q / n.q, skew / n.p / n.q)
    of_p = x.delta * _derivative_of_g(2, x.p) - n.delta * _derivative_of_g(2, n.p) + skew / x.p / n.p
    of_q = change_of_slope(*n) - change_of_slope(*x) - ratio
    return _kl_of_dirichlet(*primals), _along((of_p, of_q), tangents)


def _at_p(pair):
    return pair.k_at(Weights(jnp.ones_like(pair.like), jnp.zeros_like(pair.like)))


def _along(slopes, tangents):
    return sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(tangents), strict=True))


def _with_kl(pair, kl, p, q):
    """A pair whose divergence of Kullback and Leibler has a formula of its own."""

    def k_at(end):
        first, last = (jax.tree.map(lambda a, b: jnp.where(end.p == 1, a, b), *x) for x in ((p, q), (q, p)))
        return kl(first, last) + pair.like

    return pair._replace(k_at=k_at)


def _positive(*parameters):
    return jnp.all(jnp.stack(parameters) > 0)


_SMALL = 0.1  # of y / x: up to it y is negligible beside x to a digit, and few nodes integrate over [x, x + y]


def _beta(x, y, skew):
    """`skew` is x_p y_q - x_q y_p, of which hardly a digit may be lost where x and y change alike."""
    n = Line(*(a + b for a, b in zip(x, y, strict=True)))
    turn = skew / n.p / n.q
    shares = Line(x.p / n.p, x.q / n.q, turn), Line(y.p / n.p, y.q / n.q, -turn)
    mixed = _mixed(
        n, _of_components(lambda *line: of_function(_x_log_x(Line(*line))), *map(jnp.stack, zip(*shares, strict=True)))
    )
    swap = x.p < y.p
    x, y, skew = _where(swap, y, x), _where(swap, x, y), jnp.where(swap, -skew, skew)
    small = (y.p <= _SMALL * x.p) & (y.q <= _SMALL * x.q)
    by_values = of_function(_g_less_that_of_sum(x, y, n, skew))
    # Where y is not small the nodes go unused.
    small_y = _where(small, y, Line(*(_SMALL * z for z in x)))
    nodes, weights = (jnp.asarray(v, x.p.dtype) for v in divided.gauss_legendre(10 if x.p.dtype == jnp.float64 else 4))
    by_slopes = _of_components(lambda u, w: of_function(_slope_of_g(x, small_y, u, w)), nodes, weights)
    return _total(mixed, of_function(_g(y)), _chosen(small, by_slopes, by_values))


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

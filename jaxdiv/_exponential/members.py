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

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import bounded_slope, bregman, exponent_of, log_ratio, power_of_two
from jaxdiv._core.rules import custom_jvp
from jaxdiv._exponential import divided
from jaxdiv._exponential.divided import Weights
from jaxdiv._exponential.pairs import (
    Line,
    Pair,
    chosen,
    line_of,
    mixed,
    multiplied,
    of_components,
    of_function,
    total,
    within,
)
from jaxdiv._exponential.parts import (
    change_of_slope,
    cross,
    derivative_of_g,
    g,
    g_less_that_of_sum,
    minus_log,
    slope_of_g,
    sums_from,
    x_log_x,
)
from jaxdiv._gaussian.excess import log_excess


def poisson(p: jax.Array, q: jax.Array) -> Pair:
    """By rates `[d]`, which may be 0."""
    pair = of_components(_poisson, p, q)
    return _with_kl(pair, lambda p, q: jnp.sum(bregman(p, q, p - q)), p, q)


def _poisson(p, q):
    nothing = (p == 0) | (q == 0)
    a, b = (jnp.where(nothing, 1, jnp.where(x >= 0, x, jnp.nan)) for x in (p, q))
    log = log_ratio(a, b, a - b)
    # The integrand is up to 2^21 times as large as the rates.
    lowered = jnp.where(jnp.maximum(a, b) > 2.0**-24 * float(jnp.finfo(a.dtype).max), 2.0**-24, 1).astype(a.dtype)
    a, b = a * lowered, b * lowered

    def along(order):
        def derivative(s):
            first, last, c = (x.astype(s.p.dtype) for x in (a, b, log))
            # Of two exponentials from the two ends the one that is not taken could overflow.
            by_q = jnp.real(s.p) < 0.5
            at_q, at_p = last * jnp.exp(jnp.where(by_q, s.p, 0) * c), first * jnp.exp(-jnp.where(by_q, 0, s.q) * c)
            return c**order * jnp.where(by_q, at_q, at_p)

        return derivative

    def near(s, t):
        return jnp.abs(t.p - s.p) * jnp.abs(log) <= 8

    pair = multiplied(1 / lowered, of_function(divided.Function(along(0), along(1), along(2), a, b, near)))
    return chosen(nothing, _of_a_rate_of_0(p, q), pair)


def _of_a_rate_of_0(p, q):
    """Where one law is certain of 0, the affinity is the probability that the other one gives to 0 to a power."""
    at_p = p == 0
    rate = jnp.where(at_p, q, p)
    rate = jnp.where(rate >= 0, rate, jnp.nan)

    def k(s):
        power = jnp.where(at_p, *s)
        return jnp.where(rate == 0, 0, jnp.where(power > 0, rate / jnp.where(power > 0, power, 1), jnp.inf + rate))

    def log_affinity(s):
        return jnp.where(rate == 0, 0, -rate.astype(s.p.dtype) * jnp.where(at_p, s.q, s.p))

    def slope(s):
        return jnp.where(at_p, -rate, rate) + 0 * s.p

    return Pair(0 * rate, k, k, log_affinity, slope, lambda s: jnp.zeros_like(s.p))


def exponential(p: jax.Array, q: jax.Array) -> Pair:
    """By rates `[d]`."""
    p, q = _in_their_unit(p, q)

    def one(p, q):
        rate = line_of(p, q)
        return within(_positive, of_function(minus_log(rate)), rate)

    return _with_kl(of_components(one, p, q), lambda p, q: jnp.sum(log_excess(q, p)), p, q)


def gamma(p: tuple[jax.Array, jax.Array], q: tuple[jax.Array, jax.Array]) -> Pair:
    """By shapes and rates, all `[d]`."""
    (a, r), (b, t) = p, q
    r, t = _in_their_unit(r, t)
    p, q = (a, r), (b, t)
    return _with_kl(_gamma(p, q), _kl_of_gamma, p, q)


def _in_their_unit(r, t):
    """Two rates over a power of two near their geometric mean: only their quotient counts, and both stay in range."""
    exponent = (exponent_of(r) + exponent_of(t)) // 2
    # A factor, not a divisor: XLA would join quotients of quotients, which overflow.
    inverse = power_of_two(-jnp.clip(exponent, jnp.finfo(r.dtype).minexp, -jnp.finfo(r.dtype).minexp), r.dtype)
    return r * inverse, t * inverse


def _gamma(p, q):
    def one(a, r, b, t):
        shape, rate = line_of(a, b), line_of(r, t)
        quotient = Line(r / a, t / b, cross(rate, shape) / a / b)
        pair = total(of_function(g(shape)), mixed(shape, of_function(minus_log(quotient))))
        return within(_positive, pair, shape, rate)

    return of_components(one, *p, *q)


@custom_jvp
def _kl_of_gamma(p, q):
    return _at_p(_gamma(p, q))


@_kl_of_gamma.defjvp
def _(primals, tangents):
    (a, r), (b, t) = primals
    skew = cross(line_of(r, t), line_of(a, b))
    ratio = log_ratio(r / a, t / b, skew / a / b)
    of_p = (a - b) * derivative_of_g(2, a) - skew / a / r, skew / r / r
    of_q = ratio - change_of_slope(a, b, a - b), -skew / r / t
    value = _kl_of_gamma(*primals)
    return value, _along(value, (of_p, of_q), tangents)


def beta(p: tuple[jax.Array, jax.Array], q: tuple[jax.Array, jax.Array]) -> Pair:
    """By their two parameters, all `[d]`."""

    def one(a, b, c, d):
        x, y = line_of(a, c), line_of(b, d)
        return within(_positive, _beta(x, y, cross(x, y)), x, y)

    def kl(p, q):
        return jnp.sum(jax.vmap(_kl_of_dirichlet)(*(jnp.stack(law, -1) for law in (p, q))))

    return _with_kl(of_components(one, *p, *q), kl, p, q)


def dirichlet(p: jax.Array, q: jax.Array) -> Pair:
    """By concentrations `[k]`."""
    return _with_kl(_dirichlet(p, q), _kl_of_dirichlet, p, q)


def _dirichlet(p, q):
    # Beta laws of each entry but the last, and the sum of those behind it.
    def one(*arrays):
        a, b, *sums = arrays
        x, (y, skew) = line_of(a, b), _sum_and_skew(line_of(a, b), *sums)
        return within(_positive, _beta(x, y, skew), x, y)

    sums = *(x[1:] for x in sums_from(p)), *(x[1:] for x in sums_from(q))
    pair = of_components(one, p[:-1], q[:-1], *sums)
    return within(_positive, pair, line_of(p, q))


def _sum_and_skew(x, p, p_rest, q, q_rest):
    """The line of sums that are known beyond their digits, and its skew x_p y_q - x_q y_p to a line."""
    y, rest = line_of(p, q), line_of(p_rest, q_rest)
    skew = cross(x, y) + (x.delta * rest.q - x.q * rest.delta)
    return y._replace(delta=y.delta + rest.delta), skew


@custom_jvp
def _kl_of_dirichlet(p, q):
    return _at_p(_dirichlet(p, q))


@_kl_of_dirichlet.defjvp
def _(primals, tangents):
    x = line_of(*primals)
    sums = [y[:1] for part in primals for y in sums_from(part)]
    n, skew = _sum_and_skew(x, *sums)
    ratio = log_ratio(x.p / n.p, x.q / n.q, skew / n.p / n.q)
    of_p = x.delta * derivative_of_g(2, x.p) - n.delta * derivative_of_g(2, n.p) + skew / x.p / n.p
    of_q = change_of_slope(*n) - change_of_slope(*x) - ratio
    value = _kl_of_dirichlet(*primals)
    return value, _along(value, (of_p, of_q), tangents)


def _at_p(pair):
    return pair.k_at(Weights(jnp.ones_like(pair.like), jnp.zeros_like(pair.like)))


def _along(value, slopes, tangents):
    terms = jax.tree.map(lambda a, b: jnp.sum(bounded_slope(value, a) * b), slopes, tangents)
    return jax.tree.reduce(jnp.add, terms)


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
    of_shares = mixed(n, total(*(of_function(x_log_x(share)) for share in shares)))
    swap = x.p < y.p
    x, y, skew = divided.where(swap, y, x), divided.where(swap, x, y), jnp.where(swap, -skew, skew)
    small = (y.p <= _SMALL * x.p) & (y.q <= _SMALL * x.q)
    by_values = of_function(g_less_that_of_sum(x, y, n, skew))
    # Where y is not small the nodes go unused.
    small_y = divided.where(small, y, Line(*(_SMALL * z for z in x)))
    nodes, weights = (jnp.asarray(v, x.p.dtype) for v in divided.gauss_legendre(10 if x.p.dtype == jnp.float64 else 4))
    by_slopes = of_components(lambda u, w: of_function(slope_of_g(x, small_y, u, w)), nodes, weights)
    return total(of_shares, of_function(g(y)), chosen(small, by_slopes, by_values))

r"""Divergences between two members of one exponential family, from its log-normaliser.

The family has densities $\exp(\langle \eta, t(x) \rangle - F(\eta))$ against one base measure. Its log-normaliser $F$
is a function of the natural parameters $\eta$, arrays of any structure, with a real result `[]`: `jnp.exp` is the
Poisson family by log-rates, `lambda eta: -jnp.log(-eta)` the exponential family by negative rates. Everything follows
from $F$ along the segment $f(x) = F(x\, \eta_p + (1 - x)\, \eta_q)$, because $\log \int p^s q^{1 - s} = f(s) - s f(1) -
(1 - s) f(0)$. Its quotient by $s (s - 1)$ is the second divided difference

$$K(s) = f[0, 1, s] = \frac{1}{x_2 - x_0} \Bigl[ (x_1 - x_0) \int_0^1 v f''(x_0 + (x_1 - x_0) v)\, dv
       + (x_2 - x_1) \int_0^1 v f''(x_2 - (x_2 - x_1) v)\, dv \Bigr]$$

with $x_0, x_1, x_2$ the numbers 0, 1, $s$ in order: a positive average of $f'' \ge 0$, in which nothing cancels, equal
to $\mathrm{KL}(p \,\|\, q)$ at 1 and $\mathrm{KL}(q \,\|\, p)$ at 0. The integrals are taken by Gauss-Legendre rules
of two sizes, whose difference tells their error; where differences of $F$ are estimated to be the more accurate, as
between laws far apart, they are taken instead. Jensen-Shannon is an integral over $s = 1/2 + i t$, with $F$ at complex
parameters: see `jaxdiv._gaussian.spectral`.

What holds throughout, and is not repeated below:

- $F$ must be convex and analytic, and `nan` or `inf` where the integral of the density diverges. The parameters must be
  finite and inside of that domain; outside the value is `nan`.
- Divergences are non-negative and exactly 0, with gradient exactly 0, at equal parameters. Values are as accurate as
  the second derivatives of $F$ that JAX finds: a few ulps for Poisson and exponential laws, near equality and far
  apart. They lose digits where those derivatives cancel, as logsumexp's do under a common offset; a family with a
  module of its own is better served there.
- $F$ is part of the program: pass the same function each time, since each new one compiles anew. To batch, use
  `jax.vmap(functools.partial(exponential_family.kl, log_normalizer))`.
- Unequal structures or shapes raise ValueError, a wrong dtype TypeError, while tracing.

References for the whole: Nielsen and Garcia, Statistical exponential families: a digest with flash cards, 2009. de
Boor, Divided differences, 2005, for the integral.
"""

import decimal
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.functions import expm1, or_one, root, times
from jaxdiv._core.jit import jitted
from jaxdiv._core.search import moving, zero_in
from jaxdiv._gaussian.affinities import amari_of, js_nodes, js_of_line, renyi_of, weighted_js_of_line
from jaxdiv._gaussian.nodes import NODES_56

Parameters = Any  # arrays `[...]` in any structure
LogNormalizer = Callable[[Any], jax.Array]

_jitted = functools.partial(jitted, static=("log_normalizer",))


# ---------------------------------------------------------------- the segment between two laws


class _Segment(NamedTuple):
    """The log-normaliser `f` between two laws, by the weight of the first, and its values at them."""

    f: Callable[[jax.Array], jax.Array]
    at_p: jax.Array
    at_q: jax.Array


def _segment(verb: str, log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> tuple[_Segment, jnp.dtype]:
    """The segment in the working precision, and the dtype of a result."""
    who = f"exponential_family.{verb}"
    p, q, dtype = _inputs.parameters(who, p, q)
    _inputs.log_normalizer(who, log_normalizer, p)
    delta = jax.tree.map(jnp.subtract, p, q)

    def f(x):
        # From the nearer end, so that beside it no digit of it is lost.
        def point(a, b, d):
            a, b, d = (y.astype(x.dtype) for y in (a, b, d))
            return jnp.where(jnp.real(x) < 0.5, b + x * d, a - (1 - x) * d)

        return log_normalizer(jax.tree.map(point, p, q, delta))

    return _Segment(f, log_normalizer(p), log_normalizer(q)), dtype


def _analytic_segment(verb, log_normalizer, p, q):
    """The segment of a log-normaliser that takes complex parameters."""
    who, found = f"exponential_family.{verb}", _segment(verb, log_normalizer, p, q)
    _inputs.analytic(who, log_normalizer, _inputs.parameters(who, p, q)[0])
    return found


def _unbounded(verb, log_normalizer, p, q, formula):
    """A function of the segment that may be infinite, and then has derivative 0 in the laws."""
    fixed, _ = _segment(verb, log_normalizer, *lax.stop_gradient((p, q)))
    infinite = jnp.isinf(lax.stop_gradient(formula(fixed)))

    def still(x):
        x = jnp.asarray(x)
        return jnp.where(infinite, lax.stop_gradient(x), x)

    # Shut on both sides: before the formula for what is pulled back through it, behind it for what is pushed forward.
    segment, dtype = _segment(verb, log_normalizer, *jax.tree.map(still, (p, q)))
    return still(formula(segment)).astype(dtype)


def _derivative(f):
    return lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]


# ---------------------------------------------------------------- integrals, with an estimate of their error


@functools.cache
def _gauss_legendre(size):
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


def _integral(g, start, end, power):
    """The integral of v^power g(start + (end - start) v) over v in [0, 1], and an estimate of its error."""
    real = jnp.finfo(start.dtype).dtype
    sizes = (16, 32) if real == jnp.float64 else (8, 16)
    coarse, fine = (
        jnp.sum(jnp.asarray(w * v**power, start.dtype) * jax.vmap(g)(start + (end - start) * v.astype(start.dtype)))
        for v, w in map(_gauss_legendre, sizes)
    )
    # The error of a rule falls geometrically in its size, so that twice the size squares it; 64 for safety, a dozen
    # of which a pole of second order beside the end of the segment uses up.
    size = jnp.abs(lax.stop_gradient(fine))
    return fine, 64 * jnp.abs(lax.stop_gradient(fine - coarse)) ** 2 / or_one(size)


def _better(integral, difference):
    """Of two pairs (value, error), the integral's value unless the difference's error is smaller."""
    (near, near_error), (far, far_error) = integral, difference
    eps = jnp.finfo(near.dtype).eps
    return jnp.where(near_error <= jnp.maximum(eps * jnp.abs(near), eps * far_error), near, far)


def _magnitude(*terms):
    return lax.stop_gradient(sum(map(jnp.abs, terms)))


def _k(segment, s):
    """K at the real point `s` `[]`; `inf` where f is infinite or not a number there, but not at the laws."""
    f, at_p, at_q = segment
    diverges = ~jnp.isfinite(f(s)) & jnp.isfinite(at_p) & jnp.isfinite(at_q) & ~jnp.isnan(s)
    s = jnp.where(diverges, 0.5, s)
    low, middle, high = jnp.sort(jnp.stack([jnp.zeros_like(s), s, jnp.ones_like(s)]))
    curvature = _derivative(_derivative(f))
    left, left_error = _integral(curvature, low, middle, 1)
    right, right_error = _integral(curvature, high, middle, 1)
    first, last = (middle - low) / (high - low), (high - middle) / (high - low)
    # A term without weight does not count, even if it is infinite.
    integral = times(first, left) + times(last, right), times(first, left_error) + times(last, right_error)
    value = jnp.where(integral[0] == jnp.inf, jnp.inf, _better(integral, _k_by_differences(segment, s)))
    inside = jnp.isfinite(at_p) & jnp.isfinite(at_q)
    return jnp.where(diverges, jnp.inf, jnp.where(inside, value, jnp.nan))


def _k_by_differences(segment, s):
    """K at `s` as a difference of two slopes, of which one is between `s` and the nearer of 0 and 1; its error."""
    f, at_p, at_q = segment
    chord = at_p - at_q
    by_q = s < 0.5
    end, at_end = jnp.where(by_q, 0, 1).astype(s.dtype), jnp.where(by_q, at_q, at_p)
    step, at_s = s - end, f(s)
    difference = (at_s - at_end) / or_one(step)
    error = jnp.where(step == 0, jnp.inf, _magnitude(at_s, at_end) / or_one(jnp.abs(step)))
    slope = _better(_integral(_derivative(f), end, s, 0), (difference, error))
    rest = jnp.where(by_q, s - 1, s)
    error = jnp.minimum(error, _magnitude(slope)) + _magnitude(at_p, at_q)
    return (slope - chord) / rest, error / jnp.abs(rest)


def _log_affinity(segment, s):
    """The logarithm of the integral of p^s q^(1-s) at the complex point `s` `[]`, up to multiples of 2 pi i."""
    f, at_p, at_q = segment.f, segment.at_p.astype(s.dtype), segment.at_q.astype(s.dtype)
    curvature, zero, one = _derivative(_derivative(f)), jnp.zeros_like(s), jnp.ones_like(s)
    left, left_error = _integral(curvature, zero, s, 1)
    right, right_error = _integral(curvature, one, s, 1)
    size = jnp.abs(s * (1 - s))
    error = size * (jnp.abs(s) * left_error + jnp.abs(1 - s) * right_error)
    terms = f(s), -s * at_p, -(1 - s) * at_q
    return _better((-s * (1 - s) * (s * left + (1 - s) * right), error), (sum(terms), _magnitude(*terms)))


def _line(segment, nodes):
    """Real and imaginary part of the logarithm of the affinity at 1/2 + i t for the nodes t `[n]`."""
    dtype = np.result_type(segment.at_p.dtype, np.complex64)
    s = jnp.asarray(0.5 + 1j * np.asarray(nodes), dtype)
    log_c = jax.vmap(functools.partial(_log_affinity, segment))(s)
    return jnp.real(log_c), jnp.imag(log_c)


# ---------------------------------------------------------------- the divergences


def _point(x, like):
    return jnp.asarray(x, like.at_p.dtype)


@functools.partial(_jitted, order=lambda: 1.0)
def kl(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Kullback-Leibler divergence $F(\eta_q) - F(\eta_p) - \langle \eta_q - \eta_p, \nabla F(\eta_p) \rangle$.

    The Bregman divergence of the log-normaliser, with the laws exchanged.

    Args:
        log_normalizer: The function $F$ of the natural parameters.
        p: Natural parameters of the law the expectation is under, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        Non-negative, in nats; 0 when `p` equals `q`; `inf` above the largest float.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.kl(jnp.exp, *jnp.log(rates)):.4f}")
        0.3069

    References:
        Banerjee, Merugu, Dhillon and Ghosh, Clustering with Bregman divergences, 2005.
    """
    return _unbounded("kl", log_normalizer, p, q, lambda segment: _k(segment, _point(1, segment)))


@_jitted
def jeffreys(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Jeffreys divergence $\langle \eta_p - \eta_q, \nabla F(\eta_p) - \nabla F(\eta_q) \rangle$.

    Args:
        log_normalizer: The function $F$ of the natural parameters.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        Non-negative and symmetric, in nats; 0 when `p` equals `q`.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.jeffreys(jnp.exp, *jnp.log(rates)):.4f}")
        0.6931

    References:
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946.
    """

    def formula(segment):
        return _k(segment, _point(0, segment)) + _k(segment, _point(1, segment))

    return _unbounded("jeffreys", log_normalizer, p, q, formula)


@_jitted
def js(log_normalizer: LogNormalizer, p: Parameters, q: Parameters, *, weight: ArrayLike = 0.5) -> jax.Array:
    r"""Jensen-Shannon divergence $w\,\mathrm{KL}(p \,\|\, m) + (1 - w)\,\mathrm{KL}(q \,\|\, m)$, $m$ the mixture.

    With $m = w p + (1 - w) q$, which is not in the family. The divergence, not its square root: that is `js_distance`.

    Args:
        log_normalizer: The function $F$ of the natural parameters, which here is given complex ones, between the two
            laws in their real part: there it must be analytic, but for jumps by multiples of $2 \pi i$. `exp`, `log`,
            `jax.nn.logsumexp` and arithmetic are; `jax.scipy.special.gammaln` does not take complex numbers.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.
        weight: The weight $w \in [0, 1]$ of `p`.

    Returns:
        In $[0, H(w)]$ with $H(w) = -w \log w - (1 - w) \log (1 - w)$, so at most $\log 2$; 0 when `p` equals `q` and
        for weights 0 and 1. `nan` for a weight outside $[0, 1]$. With other weights than 1/2 the relative error grows
        as the inverse of the smaller weight.

    Raises:
        TypeError: The log-normaliser takes no complex numbers.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.js(jnp.exp, *jnp.log(rates)):.4f}")
        0.0787

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991.
    """
    segment, dtype = _analytic_segment("js", log_normalizer, p, q)
    if _inputs.is_default(weight, 0.5):
        return _js(segment).astype(dtype)
    w = _inputs.number("exponential_family.js", "weight", weight, segment.at_p, segment.at_p.dtype)
    slopes = jnp.stack([_k(segment, _point(end, segment)) for end in (1, 0)])
    return weighted_js_of_line(*_line(segment, NODES_56), w[None], slopes).astype(dtype)


def _js(segment):
    return js_of_line(*_line(segment, js_nodes(segment.at_p.dtype)))


@_jitted
def js_distance(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Jensen-Shannon distance $\sqrt{\mathrm{JS}(p, q)}$, a metric.

    Args:
        log_normalizer: The function $F$ of the natural parameters, complex ones too: see `js`.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        In $[0, \sqrt{\log 2}]$; exactly 0 when `p` equals `q`, where the gradient is 0.

    Raises:
        TypeError: The log-normaliser takes no complex numbers.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.js_distance(jnp.exp, *jnp.log(rates)):.4f}")
        0.2806

    References:
        Endres and Schindelin, A new metric for probability distributions, 2003.
    """
    segment, dtype = _analytic_segment("js_distance", log_normalizer, p, q)
    return root(_js(segment)).astype(dtype)


@_jitted
def renyi(log_normalizer: LogNormalizer, p: Parameters, q: Parameters, *, alpha: ArrayLike) -> jax.Array:
    r"""Renyi divergence $\frac{1}{\alpha - 1} \log \int p^\alpha q^{1 - \alpha}$.

    Args:
        log_normalizer: The function $F$ of the natural parameters.
        p: Natural parameters of the law the expectation is under, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.
        alpha: The order, a finite number at least 0: 1 is the KL divergence. Differentiable in it, at 1 too.

    Returns:
        Non-negative, in nats; 0 when `p` equals `q` and at order 0; `inf` where the integral diverges, which needs an
        order above 1 for which $\alpha \eta_p + (1 - \alpha) \eta_q$ is outside of the domain of $F$. `nan` for a
        negative order.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.renyi(jnp.exp, *jnp.log(rates), alpha=2.0):.4f}")
        0.5000

    References:
        Renyi, On measures of entropy and information, 1961. Nielsen and Nock, On Renyi and Tsallis entropies and
        divergences for exponential families, 2011.
    """

    def formula(segment):
        order = _inputs.number("exponential_family.renyi", "alpha", alpha, segment.at_p, segment.at_p.dtype)
        return renyi_of(_k(segment, order), order)

    return _unbounded("renyi", log_normalizer, p, q, formula)


@_jitted
def amari(log_normalizer: LogNormalizer, p: Parameters, q: Parameters, *, alpha: ArrayLike) -> jax.Array:
    r"""Amari's alpha-divergence $\bigl(1 - \int p^\alpha q^{1 - \alpha}\bigr) / (\alpha (1 - \alpha))$.

    Args:
        log_normalizer: The function $F$ of the natural parameters.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.
        alpha: Any finite order: the limit 1 is $\mathrm{KL}(p \,\|\, q)$, 0 is $\mathrm{KL}(q \,\|\, p)$.
            Differentiable in it.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where the integral diverges, outside of $[0, 1]$ only; at most
        $1 / (\alpha (1 - \alpha))$ inside.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.amari(jnp.exp, *jnp.log(rates), alpha=1.0):.4f}")
        0.3069

    References:
        Cichocki and Amari, Families of alpha- beta- and gamma-divergences, 2010.
    """

    def formula(segment):
        order = _inputs.number("exponential_family.amari", "alpha", alpha, segment.at_p, segment.at_p.dtype)
        return _amari(segment, order)

    return _unbounded("amari", log_normalizer, p, q, formula)


def _amari(segment, alpha):
    return amari_of(_k(segment, alpha), alpha)


@_jitted
def squared_hellinger(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Squared Hellinger distance $1 - \int \sqrt{p q}$.

    Args:
        log_normalizer: The function $F$ of the natural parameters.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        In $[0, 1]$; 0 when `p` equals `q`; symmetric.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.squared_hellinger(jnp.exp, *jnp.log(rates)):.4f}")
        0.0822

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986.
    """
    segment, dtype = _segment("squared_hellinger", log_normalizer, p, q)
    return _squared_hellinger(segment).astype(dtype)


def _squared_hellinger(segment):
    b = 0.25 * _k(segment, _point(0.5, segment))
    return -expm1(-b)


@_jitted
def hellinger_distance(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Hellinger distance $\sqrt{1 - \int \sqrt{p q}}$, a metric.

    Args:
        log_normalizer: The function $F$ of the natural parameters.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        In $[0, 1]$; exactly 0 when `p` equals `q`, where the gradient is 0.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.hellinger_distance(jnp.exp, *jnp.log(rates)):.4f}")
        0.2867

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986.
    """
    segment, dtype = _segment("hellinger_distance", log_normalizer, p, q)
    return root(_squared_hellinger(segment)).astype(dtype)


@_jitted
def bhattacharyya(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Bhattacharyya divergence $\tfrac12 F(\eta_p) + \tfrac12 F(\eta_q) - F(\tfrac12 \eta_p + \tfrac12 \eta_q)$.

    Args:
        log_normalizer: The function $F$ of the natural parameters.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`. It is $-\log \int \sqrt{p q}$.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.bhattacharyya(jnp.exp, *jnp.log(rates)):.4f}")
        0.0858

    References:
        Bhattacharyya, On a measure of divergence between two statistical populations, 1943. Nielsen and Boltz, The
        Burbea-Rao and Bhattacharyya centroids, 2011.
    """
    segment, dtype = _segment("bhattacharyya", log_normalizer, p, q)
    return (0.25 * _k(segment, _point(0.5, segment))).astype(dtype)


@_jitted
def chernoff(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Chernoff information $\max_{0 \le s \le 1} -\log \int p^s q^{1 - s}$.

    Args:
        log_normalizer: The function $F$ of the natural parameters.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        Non-negative and symmetric, at least the Bhattacharyya divergence; 0 when `p` equals `q`.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.chernoff(jnp.exp, *jnp.log(rates)):.4f}")
        0.0861

    References:
        Chernoff, A measure of asymptotic efficiency for tests of a hypothesis, 1952. Nielsen, An information-geometric
        characterization of Chernoff information, 2013.
    """
    segment, dtype = _segment("chernoff", log_normalizer, p, q)
    fixed, _ = _segment("chernoff", log_normalizer, *lax.stop_gradient((p, q)))
    return _chernoff(segment, fixed).astype(dtype)


def _affinity_slope(segment, s):
    """The derivative of -log c(s) = s (1 - s) K(s), which is concave in s."""
    curvature = _derivative(_derivative(segment.f))
    left, left_error = _integral(curvature, jnp.zeros_like(s), s, 1)
    right, right_error = _integral(curvature, jnp.ones_like(s), s, 1)
    integral = (1 - s) ** 2 * right - s**2 * left, (1 - s) ** 2 * right_error + s**2 * left_error
    at_s = _derivative(segment.f)(s)
    difference = segment.at_p - segment.at_q - at_s, _magnitude(segment.at_p, segment.at_q, at_s)
    return _better(integral, difference)


def _chernoff(segment, fixed):
    """The maximum of -log c; `fixed` is the segment without derivatives."""
    curvature = _derivative(_derivative(fixed.f))

    middle = jnp.zeros_like(fixed.at_p) + 0.5
    s = zero_in(lambda s: (_affinity_slope(fixed, s), -curvature(s)), middle, middle + 0.5, 30)
    # The maximum moves with the laws, which makes the second derivatives of the value right.
    s = moving(s, _affinity_slope(segment, s), -curvature(s))
    return s * (1 - s) * _k(segment, s)


@_jitted
def chi2(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Pearson's chi-squared divergence $\int p^2 / q - 1$.

    Args:
        log_normalizer: The function $F$ of the natural parameters.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the law in the denominator, of the same structure and shapes.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where the integral diverges, which is where $2 \eta_p - \eta_q$ is
        outside of the domain of $F$, and above the largest float.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.chi2(jnp.exp, *jnp.log(rates)):.4f}")
        0.6487

    References:
        Nielsen and Nock, On the chi square and higher-order chi distances for approximating f-divergences, 2014.
    """
    return _unbounded("chi2", log_normalizer, p, q, lambda segment: 2 * _amari(segment, _point(2, segment)))

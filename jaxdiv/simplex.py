r"""Divergences between two probability vectors `[k]`: histograms, frequencies, anything on the simplex.

Vectors are taken as they are: nothing is normalised, so counts go through `from_counts`, and who has logits should
stay with `categorical`. Sums of terms are the generalised, non-negative forms: equal to the divergence when both
vectors sum to one, and wrong only to second order in a rounding of that sum. One pair of vectors to a call: batch
with `jax.vmap`. Results are `[]`, in nats, of the promoted dtype.

What holds throughout, and is not repeated below:

- The derivative in an entry that is exactly 0 is 0 by choice, and so it is where a term is infinite.
- A vector with `nan` or a negative entry is `nan`.
- A wrong rank or shape raises ValueError, a dtype that is not floating-point TypeError, while tracing.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxdiv import _affinity, _inputs, elementary
from jaxdiv._jit import jitted
from jaxdiv.elementary import (
    ENLARGEMENT,
    LOG2,
    Divergence,
    Pair,
    at_most,
    bregman,
    enlarged,
    js_term,
    log_ratio,
    positive,
    root,
    split,
)


def _vectors(verb, p, q):
    """One pair in the working precision, `enlarged`, and the dtype of a result."""
    p, q, dtype = _inputs.vectors(f"simplex.{verb}", p, q)
    work = _inputs.working(p, q)
    return enlarged(p.astype(work)), enlarged(q.astype(work)), dtype


def _number(verb, name, x, p):
    return _inputs.number(f"simplex.{verb}", name, x, p, p.dtype)


def _pair(p, q):
    # A negative entry would pass through differences and quotients unseen.
    valid = (p >= 0) & (q >= 0)
    p, q = jnp.where(valid, p, jnp.nan), jnp.where(valid, q, jnp.nan)
    c = log_ratio(p, q, p - q)
    return Pair(p, q, c, p - q, c, jnp.zeros_like(c), None)


@functools.cache
def _term(divergence: Divergence) -> Callable:
    """The term of a divergence as a function of (p, q, *parameters) with its own derivatives."""

    @jax.custom_jvp
    def term(p, q, *parameters):
        return divergence.term(_pair(p, q), *parameters)

    @term.defjvp
    def _(primals, tangents):
        p, q, *parameters = primals
        dp, dq, *d_parameters = tangents
        value = term(*primals)
        pair = _pair(p, q)

        def slope(slope, own, d_own):
            # Terms are homogeneous, so the derivative in p is the slope at (1, q / p). A stand-in where that is no
            # number.
            dead = (own == 0) | (value == jnp.inf)
            unit = jnp.where(dead, 1, own)
            at = jax.tree.map(lambda x: jnp.where(dead, 1, x), pair)
            at = at._replace(p=at.p / unit, q=at.q / unit, difference=at.difference / unit, saturated=pair.saturated)
            return jnp.where(dead, 0, slope(at, *parameters)) * d_own

        tangent = slope(divergence.slope_p, p, dp) + slope(divergence.slope_q, q, dq)
        if parameters:
            tangent += jax.jvp(functools.partial(divergence.term, pair), tuple(parameters), tuple(d_parameters))[1]
        return value, tangent

    return term


def _total(divergence, verb, p, q, bound=jnp.inf, **parameters):
    p, q, dtype = _vectors(verb, p, q)
    numbers = [_number(verb, name, x, p) for name, x in parameters.items()]
    return _sum_at_most(_term(divergence)(p, q, *numbers), p, q, bound).astype(dtype)


def _sum_at_most(terms, p, q, bound):
    """The sum of enlarged terms. The bound of a divergence holds for sums of one; counts are not clipped to it."""
    mass = 0.5 * (jnp.sum(p) + jnp.sum(q)) / ENLARGEMENT
    normalised = mass <= 1 + 4 * jnp.finfo(p.dtype).eps
    return at_most(jnp.sum(terms) / ENLARGEMENT, jnp.where(normalised, bound, jnp.inf))


def _even_js(p, q):
    return _sum_at_most(js_term(p, q), p, q, LOG2)


def _squared_hellinger(p, q):
    return _sum_at_most(_term(elementary.squared_hellinger)(p, q), p, q, 1)


def _affinity_parts(p, q):
    """What `_affinity` needs: A(s), log p and c."""
    pair = _pair(p, q)

    def amari(s):
        return jnp.sum(_term(elementary.amari)(p, q, s), -1, keepdims=True) / ENLARGEMENT

    return amari, _log(pair.p), pair.log_ratio


@jax.custom_jvp
def _log(x):
    """The logarithm of what was enlarged to x, with derivative 0 where it is -inf."""
    plain = x / ENLARGEMENT
    # Only a subnormal number is zero now: the logarithm of the others keeps its accuracy near 1.
    return jnp.where((plain == 0) & (x != 0), jnp.log(positive(x)) - math.log(ENLARGEMENT), jnp.log(plain))


_log.defjvps(lambda dx, _, x: jnp.where(x == 0, 0, dx / positive(x)))


@jitted
def kl(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Kullback-Leibler divergence $\mathrm{KL}(p \,\|\, q) = \sum_i p_i \log (p_i / q_i)$.

    Args:
        p: Probabilities `[k]` of the distribution the expectation is under.
        q: Probabilities `[k]` of the other distribution.

    Returns:
        Non-negative, $\sum_i p_i \log (p_i / q_i) - p_i + q_i$ whatever the sums; exactly 0, with gradient exactly 0,
        when `p` equals `q`; `inf` where `q` is zero and `p` is not.

    Example:
        >>> p = jnp.array([0.5, 0.5, 0.0])
        >>> q = jnp.array([0.25, 0.25, 0.5])
        >>> print(f"{simplex.kl(p, q):.4f} {simplex.kl(q, p):.4f}")
        0.6931 inf

    References:
        Kullback and Leibler, On information and sufficiency, 1951, equation 2.4.
    """
    p, q, dtype = _vectors("kl", p, q)
    return _sum_at_most(bregman(p, q, p - q), p, q, jnp.inf).astype(dtype)


@jitted
def jeffreys(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Jeffreys divergence $\mathrm{KL}(p \,\|\, q) + \mathrm{KL}(q \,\|\, p) = \sum_i (p_i - q_i) \log (p_i / q_i)$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`; `inf` where exactly one of the two is zero.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
        >>> print(f"{simplex.jeffreys(p, q):.4f}")
        0.2747

    References:
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946, equation 1.
    """
    return _total(elementary.jeffreys, "jeffreys", p, q)


@jitted
def js(p: ArrayLike, q: ArrayLike, *, weight: ArrayLike = 0.5) -> jax.Array:
    r"""Jensen-Shannon divergence $w\,\mathrm{KL}(p \| m) + (1 - w)\,\mathrm{KL}(q \| m)$ with $m = w p + (1 - w) q$.

    The divergence, not its square root: that is `js_distance`.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.
        weight: The weight $w \in [0, 1]$ of `p`.

    Returns:
        In $[0, H(w)]$ with $H(w) = -w \log w - (1 - w) \log (1 - w)$, so at most $\log 2$; 0 when `p` equals `q` and
        for weights 0 and 1; never infinite, zeros included. `nan` for a weight outside $[0, 1]$.

    Example:
        >>> p, q = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> print(f"{simplex.js(p, q):.4f} {simplex.js(p, q, weight=0.9):.4f}")
        0.6931 0.3251

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991, equation 4.1.
    """
    if not _inputs.is_default(weight, 0.5):
        p, q, dtype = _vectors("js", p, q)
        weight = _number("js", "weight", weight, p)
        bound = elementary.entropy_of_weights(jnp.concatenate([weight, 1 - weight]))[0]
        return _sum_at_most(_term(elementary.skewed_js)(p, q, weight), p, q, bound).astype(dtype)
    p, q, dtype = _vectors("js", p, q)
    return _even_js(p, q).astype(dtype)


@jitted
def js_of(ps: ArrayLike, *, weights: ArrayLike | None = None) -> jax.Array:
    r"""Jensen-Shannon divergence of n laws, $H(m) - \sum_j w_j H(p_j) = \sum_j w_j \mathrm{KL}(p_j \,\|\, m)$.

    Args:
        ps: Probabilities `[n, k]`, one law to a row; $m = \sum_j w_j p_j$.
        weights: Weights `[n]`, non-negative with sum 1; equal by default.

    Returns:
        In $[0, H(w)]$, at most $\log n$; 0 when all laws are equal; never infinite, zeros included.

    Example:
        >>> print(f"{simplex.js_of(jnp.eye(3)):.4f}")
        1.0986

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991, equation 5.1.
    """
    ps, weights = _inputs.laws("simplex.js_of", ps, weights)
    dtype, ps, weights = ps.dtype, enlarged(ps.astype(weights.dtype)), weights[:, None]
    # Differences from the first law keep what those from the rounded mean would lose.
    from_first = ps - ps[:1]
    mean = jnp.sum(weights * ps, 0, keepdims=True)
    delta = lax.stop_gradient(from_first - jnp.sum(weights * from_first, 0, keepdims=True))
    bound = elementary.entropy_of_weights(weights[:, 0])[0]
    return _sum_at_most(weights * bregman(ps, mean, delta), mean, mean, bound).astype(dtype)


@jitted
def js_distance(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Jensen-Shannon distance $\sqrt{\mathrm{JS}(p, q)}$, a metric.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        In $[0, \sqrt{\log 2}]$; exactly 0 when `p` equals `q`, where the gradient is 0; finite, zeros included.

    Example:
        >>> p, q = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> print(f"{simplex.js_distance(p, q):.4f}")
        0.8326

    References:
        Endres and Schindelin, A new metric for probability distributions, 2003, theorem 1.
    """
    p, q, dtype = _vectors("js_distance", p, q)
    return root(_even_js(p, q)).astype(dtype)


@jitted
def renyi(p: ArrayLike, q: ArrayLike, *, alpha: ArrayLike) -> jax.Array:
    r"""Renyi divergence $\frac{1}{\alpha - 1} \log \sum_i p_i^\alpha q_i^{1 - \alpha}$.

    Args:
        p: Probabilities `[k]` of the distribution the expectation is under.
        q: Probabilities `[k]` of the other distribution.
        alpha: The order in $[0, \infty]$: 1 is the KL divergence, `inf` is $\max_i \log (p_i / q_i)$. Continuous and
            differentiable in it, at 1 too.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` for disjoint supports, and for $\alpha \ge 1$ where `q` is zero and
        `p` is not. `nan` for a negative order.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
        >>> print(f"{simplex.renyi(p, q, alpha=2):.4f} {simplex.renyi(p, q, alpha=jnp.inf):.4f}")
        0.2877 0.6931

    References:
        Renyi, On measures of entropy and information, 1961, equation 3.3. van Erven and Harremoes, Renyi divergence and
        Kullback-Leibler divergence, 2014, definition 2.
    """
    p, q, dtype = _vectors("renyi", p, q)
    return _affinity.renyi(*_affinity_parts(p, q), _number("renyi", "alpha", alpha, p))[0].astype(dtype)


@jitted
def amari(p: ArrayLike, q: ArrayLike, *, alpha: ArrayLike) -> jax.Array:
    r"""Amari's alpha-divergence $\bigl(1 - \sum_i p_i^\alpha q_i^{1 - \alpha}\bigr) / (\alpha (1 - \alpha))$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.
        alpha: Any real order: the limit 1 is $\mathrm{KL}(p \,\|\, q)$, 0 is $\mathrm{KL}(q \,\|\, p)$, 1/2 is four
            times the squared Hellinger distance, 2 is half of chi-squared. Continuous and differentiable in it.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` for $\alpha \ge 1$ where only `q` is zero and for $\alpha \le 0$
        where only `p` is; at most $1 / (\alpha (1 - \alpha))$ between.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
        >>> print(f"{simplex.amari(p, q, alpha=1):.4f} {simplex.kl(p, q):.4f}")
        0.1438 0.1438

    References:
        Cichocki and Amari, Families of alpha- beta- and gamma-divergences, 2010, equation 29.
    """
    return _total(elementary.amari, "amari", p, q, alpha=alpha)


@jitted
def squared_hellinger(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Squared Hellinger distance $1 - \sum_i \sqrt{p_i q_i} = \tfrac12 \sum_i (\sqrt{p_i} - \sqrt{q_i})^2$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        In $[0, 1]$: 0 when `p` equals `q`, 1 for disjoint supports; symmetric; finite, zeros included.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.0, 1.0])
        >>> print(f"{simplex.squared_hellinger(p, q):.4f}")
        0.2929

    References:
        Hellinger, Neue Begruendung der Theorie quadratischer Formen, 1909. Le Cam, Asymptotic methods, 1986, chapter 4.
    """
    p, q, dtype = _vectors("squared_hellinger", p, q)
    return _squared_hellinger(p, q).astype(dtype)


@jitted
def hellinger_distance(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Hellinger distance $\sqrt{1 - \sum_i \sqrt{p_i q_i}}$, a metric.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        In $[0, 1]$; exactly 0 when `p` equals `q`, where the gradient is 0; 1 for disjoint supports, zeros included.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.0, 1.0])
        >>> print(f"{simplex.hellinger_distance(p, q):.4f}")
        0.5412

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986, chapter 4.
    """
    p, q, dtype = _vectors("hellinger_distance", p, q)
    return root(_squared_hellinger(p, q)).astype(dtype)


@jitted
def fisher_rao_distance(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Fisher-Rao distance $2 \arccos \sum_i \sqrt{p_i q_i}$, the geodesic length of the Fisher metric.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        In $[0, \pi]$; exactly 0 when `p` equals `q`, where the gradient is 0; $\pi$ for disjoint supports, zeros
        included.

    Example:
        >>> p, q = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> print(f"{simplex.fisher_rao_distance(p, q):.4f}")
        3.1416

    References:
        Rao, Information and the accuracy attainable in the estimation of statistical parameters, 1945, section 7.
    """
    p, q, dtype = _vectors("fisher_rao_distance", p, q)
    return (4 * jnp.arcsin(root(0.5 * _squared_hellinger(p, q)))).astype(dtype)


@jitted
def bhattacharyya(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Bhattacharyya divergence $-\log \sum_i \sqrt{p_i q_i}$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`; `inf` for disjoint supports, finite with other zeros.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.0, 1.0])
        >>> print(f"{simplex.bhattacharyya(p, q):.4f}")
        0.3466

    References:
        Bhattacharyya, On a measure of divergence between two multinomial populations, 1946.
    """
    p, q, dtype = _vectors("bhattacharyya", p, q)
    return _affinity.negative_log(*_affinity_parts(p, q), jnp.full(1, 0.5, p.dtype))[0].astype(dtype)


@jitted
def chernoff(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Chernoff information $\max_{0 \le s \le 1} -\log \sum_i p_i^s q_i^{1 - s}$.

    The sum is over the common support, so that it is continuous in s at both ends.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        Non-negative and symmetric, at least the Bhattacharyya divergence; 0 when `p` equals `q`; `inf` for disjoint
        supports, finite with other zeros.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.1, 0.9])
        >>> print(f"{simplex.chernoff(p, q):.4f}")
        0.1124

    References:
        Chernoff, A measure of asymptotic efficiency for tests of a hypothesis, 1952, theorem 1. Cover and Thomas,
        Elements of information theory, 2006, theorem 11.9.1.
    """
    p, q, dtype = _vectors("chernoff", p, q)
    return _affinity.chernoff(*_affinity_parts(p, q))[0].astype(dtype)


@jitted
def total_variation(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Total variation $\tfrac12 \sum_i |p_i - q_i|$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        In $[0, 1]$: 0 when `p` equals `q`, where the gradient is 0; 1 for disjoint supports, zeros included.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
        >>> print(f"{simplex.total_variation(p, q):.4f}")
        0.2500

    References:
        Tsybakov, Introduction to nonparametric estimation, 2009, definition 2.4.
    """
    return _total(elementary.total_variation, "total_variation", p, q, 1)


@jitted
def chi2(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Pearson's chi-squared divergence $\sum_i (p_i - q_i)^2 / q_i = \sum_i p_i^2 / q_i - 1$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]` of the distribution in the denominator.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where `q` is zero and `p` is not, and above the largest float.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
        >>> print(f"{simplex.chi2(p, q):.4f}")
        0.3333

    References:
        Pearson, On the criterion that a given system of deviations, 1900. Tsybakov, 2009, section 2.4.
    """
    return _total(elementary.chi2, "chi2", p, q)


@jitted
def triangular(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Triangular discrimination (Vincze-Le Cam) $\sum_i (p_i - q_i)^2 / (p_i + q_i)$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        In $[0, 2]$: 0 when `p` equals `q`, 2 for disjoint supports; symmetric; finite, zeros included.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
        >>> print(f"{simplex.triangular(p, q):.4f}")
        0.1333

    References:
        Topsoe, Some inequalities for information divergence and related measures of discrimination, 2000, equation 1.
    """
    return _total(elementary.triangular, "triangular", p, q, 2)


@jax.custom_jvp
def _negative_log(p, q):
    """-p log q of what was enlarged to p and q, enlarged; 0 where p is 0, `nan` where one is negative."""
    return -p * jnp.where((p == 0) & (q >= 0), 0, jnp.where((p >= 0) & (q >= 0), _log(q), jnp.nan))


@_negative_log.defjvp
def _(primals, tangents):
    p, q = primals
    dp, dq = tangents
    zero = q == 0
    return _negative_log(p, q), jnp.where(zero, 0, -_log(q)) * dp - jnp.where(zero, 0, p / positive(q)) * dq


@jitted
def cross_entropy(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Cross-entropy $-\sum_i p_i \log q_i$.

    Args:
        p: Probabilities `[k]` of the distribution the expectation is under.
        q: Probabilities `[k]` of the distribution that is scored.

    Returns:
        Non-negative, at least the entropy of `p`; `inf` where `q` is zero and `p` is not.

    Example:
        >>> print(f"{simplex.cross_entropy(jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])):.4f}")
        0.8370

    References:
        Cover and Thomas, Elements of information theory, 2006, theorem 5.4.3.
    """
    p, q, dtype = _vectors("cross_entropy", p, q)
    return _sum_at_most(_negative_log(p, q), p, q, jnp.inf).astype(dtype)


@jitted
def entropy(p: ArrayLike) -> jax.Array:
    r"""Shannon entropy $-\sum_i p_i \log p_i$.

    Args:
        p: Probabilities `[k]`; 0 log 0 is 0, with derivative 0.

    Returns:
        In $[0, \log k]$; 0 for a distribution on one event.

    Example:
        >>> print(f"{simplex.entropy(jnp.array([0.5, 0.5, 0.0])):.4f}")
        0.6931

    References:
        Shannon, A mathematical theory of communication, 1948, section 6.
    """
    p = _inputs.vector("simplex.entropy", p)
    work = enlarged(p.astype(_inputs.working(p)))
    return _sum_at_most(_negative_log(work, work), work, work, jnp.inf).astype(p.dtype)


def _product_difference(x, y, z):
    """x - y z with the rounding of the product put back."""
    product = y * z
    (y_high, y_low), (z_high, z_low) = split(y), split(z)
    error = ((y_high * z_high - product) + y_high * z_low + y_low * z_high) + y_low * z_low
    return (x - product) - error


@jitted
def mutual_information(joint: ArrayLike) -> jax.Array:
    r"""Mutual information $\mathrm{KL}(P \,\|\, r \otimes c) = \sum_{ij} P_{ij} \log \frac{P_{ij}}{r_i c_j}$.

    Args:
        joint: Probabilities `[k, l]` of pairs, with margins $r_i = \sum_j P_{ij}$ and $c_j = \sum_i P_{ij}$.

    Returns:
        In $[0, \log \min(k, l)]$; 0 for independent margins; finite, with finite gradients, zeros included.

    Example:
        >>> print(f"{simplex.mutual_information(jnp.array([[0.5, 0.0], [0.0, 0.5]])):.4f}")
        0.6931

    References:
        Cover and Thomas, Elements of information theory, 2006, equation 2.28.
    """
    joint = _inputs.matrix("simplex.mutual_information", "joint", joint, "one joint distribution [k, l]")
    p = joint.astype(_inputs.working(joint))
    rows, columns = jnp.sum(p, 1, keepdims=True), jnp.sum(p, 0, keepdims=True)
    delta = lax.stop_gradient(_product_difference(p, rows, columns))
    return jnp.sum(bregman(p, rows * columns, delta)).astype(joint.dtype)


@functools.partial(jitted, static=("axis",))
def from_counts(counts: ArrayLike, *, pseudo_count: ArrayLike = 0.0, axis: int | tuple[int, ...] = -1) -> jax.Array:
    r"""Probabilities $(n_i + \epsilon) / \sum_j (n_j + \epsilon)$ of counts $n$.

    Args:
        counts: Non-negative counts of any shape, integer or floating-point.
        pseudo_count: The number $\epsilon$ added to each; smoothing is a modelling choice, so none by default.
        axis: The axis or axes that sum to one.

    Returns:
        Probabilities in the shape of `counts`, without unit; zero where a count and $\epsilon$ are. A row of nothing
        but zeros is `nan`.

    Example:
        >>> print(simplex.from_counts(jnp.array([3, 0, 1])))
        [0.75 0.   0.25]

    References:
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946 (one half as a pseudo-count).
    """
    counts = _inputs.counts("simplex.from_counts", counts)
    counts = counts + _inputs.number("simplex.from_counts", "pseudo_count", pseudo_count, counts, counts.dtype)
    return counts / jnp.sum(counts, axis, keepdims=True)


@jitted
def dirichlet_smoothed(counts: ArrayLike, background: ArrayLike, *, strength: ArrayLike) -> jax.Array:
    r"""Probabilities $(n_i + \mu b_i) / (\sum_j n_j + \mu)$: counts shrunk towards a background.

    Args:
        counts: Non-negative counts `[k]`, integer or floating-point.
        background: Probabilities `[k]`.
        strength: The weight $\mu > 0$ of the background, in counts.

    Returns:
        Probabilities `[k]`, without unit; zero only where both arguments are; the background when there are no counts.

    Example:
        >>> print(simplex.dirichlet_smoothed(jnp.array([4, 0]), jnp.array([0.5, 0.5]), strength=4.0))
        [0.75 0.25]

    References:
        Zhai and Lafferty, A study of smoothing methods for language models, 2004, equation 6.
    """
    counts = _inputs.counts("simplex.dirichlet_smoothed", counts)
    counts, background, dtype = _inputs.vectors("simplex.dirichlet_smoothed", counts, background)
    counts, background = counts.astype(dtype), background.astype(dtype)
    strength = _inputs.number("simplex.dirichlet_smoothed", "strength", strength, counts, dtype)
    return (counts + strength * background) / (jnp.sum(counts, keepdims=True) + strength)


def check(p: ArrayLike, *, axis: int = -1) -> None:
    r"""Raises where $p$ is no distribution, $p_i \ge 0$ with $\sum_i p_i = 1$; for data on its way in, on the host.

    Args:
        p: Probabilities of any shape, distributions along `axis`; zeros are allowed.
        axis: The axis of the events.

    Raises:
        ValueError: Some rows have `nan`, a negative entry, or a sum further from one than rounding in their dtype
            explains; the message names them.

    Example:
        >>> simplex.check(jnp.full((2, 4), 0.25))
    """
    p = np.asarray(p)
    eps = float(jnp.finfo(p.dtype).eps) if jnp.issubdtype(p.dtype, jnp.floating) else 0.0
    rows = np.moveaxis(p.astype(np.float64), axis, -1)
    _inputs.raise_for_rows(
        "simplex.check",
        rows,
        {
            "nan": lambda x: np.isnan(x).any(-1),
            "a negative entry": lambda x: (x < 0).any(-1),
            "a sum that is not one": lambda x: abs(x.sum(-1) - 1) > 4 * eps * np.sqrt(x.shape[-1]),
        },
    )

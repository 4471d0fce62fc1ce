r"""Divergences between two probability vectors `[k]`: histograms, frequencies, anything on the simplex.

Vectors are not normalised. If you have counts, normalise them with `from_counts`; if you have logits, use
`categorical`. Each divergence that is a sum is computed in its generalised, non-negative form. For vectors that sum to
one this is the divergence itself; if a sum is off by a rounding error, the result is off by the square of that error.
`renyi`, `bhattacharyya` and `chernoff` are logarithms of a sum and are meaningful only for vectors that sum to one.
Each call takes one pair of vectors: for batches use `jax.vmap`.

These rules hold for every function below:

- Results are `[]`, in the promoted dtype. They are in nats, except total variation, Hellinger, triangular, chi-squared,
  Fisher-Rao and Amari's divergence, which have no unit.
- The derivative with respect to an entry that is exactly 0 is 0 by convention, and so is that of an infinite term.
- A vector with `nan` or a negative entry gives `nan`.
- A wrong rank or shape raises ValueError and a dtype that is not floating-point raises TypeError, both while tracing.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core import functions
from jaxdiv._core.functions import bregman, log_of_enlarged, log_ratio, root, split, unit_of
from jaxdiv._core.jit import jitted
from jaxdiv._core.rules import custom_jvp
from jaxdiv._discrete import affinity, probabilities, spaces, terms
from jaxdiv._discrete.verbs import fisher_rao_length, verb

_verb = functools.partial(verb, spaces.SIMPLEX, law_by_law=True)


def _sum(name, divergence, p, q, then=lambda value: value, **parameters):
    """Applies `then` to the sum of a divergence's terms over one pair."""
    who = f"simplex.{name}"
    p, q, dtype = _inputs.vectors(who, p, q)
    numbers = [_inputs.number(who, key, parameters[key], p, _inputs.working(p, q)) for key in divergence.parameters]
    return then(probabilities.total(divergence, p, q, *numbers))[0].astype(dtype)


def _pair(p, q):
    both = probabilities.pair(*probabilities.enlarge(p, q))
    return affinity.Pair(log_of_enlarged(both.p), both.log_ratio, *(x / functions.enlargement(x) for x in both[:2]))


def _amari(p, q):
    return functools.partial(probabilities.total, terms.amari, p, q)


@_verb(terms.kl)
def kl(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Kullback-Leibler divergence $\mathrm{KL}(p \,\|\, q) = \sum_i p_i \log (p_i / q_i)$.

    Args:
        p: Probabilities `[k]` of the distribution the expectation is under.
        q: Probabilities `[k]` of the other distribution.

    Returns:
        $\sum_i p_i \log (p_i / q_i) - p_i + q_i$, which is non-negative even if the vectors do not sum to one; exactly
        0, with gradient exactly 0, when `p` equals `q`; `inf` where `q` is zero and `p` is not.

    Example:
        >>> p = jnp.array([0.5, 0.5, 0.0])
        >>> q = jnp.array([0.25, 0.25, 0.5])
        >>> print(f"{simplex.kl(p, q):.4f} {simplex.kl(q, p):.4f}")
        0.6931 inf

    References:
        Kullback and Leibler, On information and sufficiency, 1951.
    """
    return _sum("kl", terms.kl, p, q)


@_verb(terms.jeffreys)
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
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946.
    """
    return _sum("jeffreys", terms.jeffreys, p, q)


@_verb(terms.js)
def js(p: ArrayLike, q: ArrayLike, *, weight: ArrayLike = 0.5) -> jax.Array:
    r"""Jensen-Shannon divergence $w\,\mathrm{KL}(p \| m) + (1 - w)\,\mathrm{KL}(q \| m)$ with $m = w p + (1 - w) q$.

    This is the divergence; its square root is `js_distance`.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.
        weight: The weight $w \in [0, 1]$ of `p`.

    Returns:
        In $[0, H(w)]$ with $H(w) = -w \log w - (1 - w) \log (1 - w)$, so at most $\log 2$, even with zeros; 0 when `p`
        equals `q` and for weights 0 and 1; `nan` for a weight outside $[0, 1]$.

    Example:
        >>> p, q = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> print(f"{simplex.js(p, q):.4f} {simplex.js(p, q, weight=0.9):.4f}")
        0.6931 0.3251

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991.
    """
    if _inputs.is_default(weight, 0.5):
        return _sum("js", terms.js, p, q)
    return _sum("js", terms.skewed_js, p, q, weight=weight)


@jitted
def js_of(ps: ArrayLike, *, weights: ArrayLike | None = None) -> jax.Array:
    r"""Jensen-Shannon divergence of n distributions, $H(m) - \sum_j w_j H(p_j) = \sum_j w_j \mathrm{KL}(p_j \,\|\, m)$.

    Args:
        ps: Probabilities `[n, k]`, one distribution per row. Their mean is $m = \sum_j w_j p_j$.
        weights: Weights `[n]`, non-negative; they are divided by their sum. Equal by default.

    Returns:
        In $[0, H(w)]$, so at most $\log n$, even with zeros; 0 when all the distributions are equal.

    Example:
        >>> print(f"{simplex.js_of(jnp.eye(3)):.4f}")
        1.0986

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991.
    """
    ps, weights = _inputs.weighted_laws("simplex.js_of", ps, weights)
    dtype, ps, weights = ps.dtype, functions.enlarged(ps.astype(weights.dtype)), weights[:, None]
    # Differences from the first distribution keep digits that differences from the rounded mean would lose.
    from_first = ps - ps[:1]
    mean = jnp.sum(weights * ps, 0, keepdims=True)
    delta = lax.stop_gradient(from_first - jnp.sum(weights * from_first, 0, keepdims=True))
    # Weighed after the sum over events: XLA would make one sum of two, and round it once for each of many numbers.
    value = jnp.sum(functions.times(weights, functions.sum_of_row(bregman(ps, mean, delta)))) / functions.enlargement(
        ps
    )
    mass, bound = jnp.sum(mean / functions.enlargement(mean)), functions.entropy_of_weights(weights[:, 0])[0]
    return probabilities.bounded(value, mass, bound).astype(dtype)


@_verb(terms.js, itself=False)
def js_distance(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Jensen-Shannon distance $\sqrt{\mathrm{JS}(p, q)}$, a metric.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        In $[0, \sqrt{\log 2}]$, even with zeros; exactly 0, with gradient 0, when `p` equals `q`.

    Example:
        >>> p, q = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> print(f"{simplex.js_distance(p, q):.4f}")
        0.8326

    References:
        Endres and Schindelin, A new metric for probability distributions, 2003.
    """
    return _sum("js_distance", terms.js, p, q, root)


@_verb()
def renyi(p: ArrayLike, q: ArrayLike, *, alpha: ArrayLike) -> jax.Array:
    r"""Renyi divergence $\frac{1}{\alpha - 1} \log \sum_i p_i^\alpha q_i^{1 - \alpha}$.

    Args:
        p: Probabilities `[k]` of the distribution the expectation is under.
        q: Probabilities `[k]` of the other distribution.
        alpha: The order in $[0, \infty]$: order 1 is the KL divergence, order `inf` is $\max_i \log (p_i / q_i)$. The
            value is continuous and differentiable in `alpha`, also at 1.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` for disjoint supports, and for $\alpha \ge 1$ where `q` is zero and
        `p` is not; `nan` for a negative order.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
        >>> print(f"{simplex.renyi(p, q, alpha=2):.4f} {simplex.renyi(p, q, alpha=jnp.inf):.4f}")
        0.2877 0.6931

    References:
        Renyi, On measures of entropy and information, 1961. van Erven and Harremoes, Renyi divergence and
        Kullback-Leibler divergence, 2014.
    """
    p, q, dtype = _inputs.vectors("simplex.renyi", p, q)
    alpha = _inputs.number("simplex.renyi", "alpha", alpha, p, _inputs.working(p, q))
    return affinity.renyi(_amari(p, q), _pair(p, q), alpha)[0].astype(dtype)


@_verb(terms.amari)
def amari(p: ArrayLike, q: ArrayLike, *, alpha: ArrayLike) -> jax.Array:
    r"""Amari's alpha-divergence $\bigl(1 - \sum_i p_i^\alpha q_i^{1 - \alpha}\bigr) / (\alpha (1 - \alpha))$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.
        alpha: Any real order. Order 1 is $\mathrm{KL}(p \,\|\, q)$ and order 0 is $\mathrm{KL}(q \,\|\, p)$, both as
            limits; 1/2 is four times the squared Hellinger distance; 2 is half of chi-squared. The value is continuous
            and differentiable in `alpha`.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` for $\alpha \ge 1$ where only `q` is zero and for $\alpha \le 0$
        where only `p` is; for orders in between at most $1 / (\alpha (1 - \alpha))$.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
        >>> print(f"{simplex.amari(p, q, alpha=1):.4f} {simplex.kl(p, q):.4f}")
        0.1438 0.1438

    References:
        Cichocki and Amari, Families of alpha- beta- and gamma-divergences, 2010.
    """
    return _sum("amari", terms.amari, p, q, alpha=alpha)


@_verb(terms.squared_hellinger)
def squared_hellinger(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Squared Hellinger distance $1 - \sum_i \sqrt{p_i q_i} = \tfrac12 \sum_i (\sqrt{p_i} - \sqrt{q_i})^2$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        Symmetric and in $[0, 1]$, even with zeros: 0 when `p` equals `q`, 1 for disjoint supports.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.0, 1.0])
        >>> print(f"{simplex.squared_hellinger(p, q):.4f}")
        0.2929

    References:
        Hellinger, Neue Begruendung der Theorie quadratischer Formen, 1909. Le Cam, Asymptotic methods, 1986.
    """
    return _sum("squared_hellinger", terms.squared_hellinger, p, q)


@_verb(terms.squared_hellinger, itself=False)
def hellinger_distance(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Hellinger distance $\sqrt{1 - \sum_i \sqrt{p_i q_i}}$, a metric.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        In $[0, 1]$, even with zeros; exactly 0, with gradient 0, when `p` equals `q`; 1 for disjoint supports.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.0, 1.0])
        >>> print(f"{simplex.hellinger_distance(p, q):.4f}")
        0.5412

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986.
    """
    return _sum("hellinger_distance", terms.squared_hellinger, p, q, root)


@_verb(terms.squared_hellinger, itself=False)
def fisher_rao_distance(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Fisher-Rao distance $2 \arccos \sum_i \sqrt{p_i q_i}$, the geodesic length of the Fisher metric.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        In $[0, \pi]$, even with zeros; exactly 0, with gradient 0, when `p` equals `q`; $\pi$ for disjoint supports.

    Example:
        >>> p, q = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> print(f"{simplex.fisher_rao_distance(p, q):.4f}")
        3.1416

    References:
        Rao, Information and the accuracy attainable in the estimation of statistical parameters, 1945.
    """
    return _sum("fisher_rao_distance", terms.squared_hellinger, p, q, fisher_rao_length)


@_verb()
def bhattacharyya(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Bhattacharyya divergence $-\log \sum_i \sqrt{p_i q_i}$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`; `inf` only for disjoint supports.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.0, 1.0])
        >>> print(f"{simplex.bhattacharyya(p, q):.4f}")
        0.3466

    References:
        Bhattacharyya, On a measure of divergence between two multinomial populations, 1946.
    """
    p, q, dtype = _inputs.vectors("simplex.bhattacharyya", p, q)
    return probabilities.minus_log_affinity(p, q)[0].astype(dtype)


@_verb()
def chernoff(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Chernoff information $\max_{0 \le s \le 1} -\log \sum_i p_i^s q_i^{1 - s}$.

    The sum runs over the events that both distributions allow. This makes it continuous in s at both ends.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        Non-negative and symmetric, at least the Bhattacharyya divergence; 0 when `p` equals `q`; `inf` only for
        disjoint supports.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.1, 0.9])
        >>> print(f"{simplex.chernoff(p, q):.4f}")
        0.1124

    References:
        Chernoff, A measure of asymptotic efficiency for tests of a hypothesis, 1952. Cover and Thomas, Elements of
        information theory, 2006.
    """
    p, q, dtype = _inputs.vectors("simplex.chernoff", p, q)
    return affinity.chernoff(_pair, probabilities.minus_log_affinity_of_order, p, q)[0].astype(dtype)


@_verb(terms.total_variation)
def total_variation(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Total variation $\tfrac12 \sum_i |p_i - q_i|$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        In $[0, 1]$, even with zeros: 0, with gradient 0, when `p` equals `q`; 1 for disjoint supports.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
        >>> print(f"{simplex.total_variation(p, q):.4f}")
        0.2500

    References:
        Tsybakov, Introduction to nonparametric estimation, 2009.
    """
    return _sum("total_variation", terms.total_variation, p, q)


@_verb(terms.chi2)
def chi2(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Pearson's chi-squared divergence $\sum_i (p_i - q_i)^2 / q_i = \sum_i p_i^2 / q_i - 1$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]` of the distribution in the denominator.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where `q` is zero and `p` is not, and on overflow.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
        >>> print(f"{simplex.chi2(p, q):.4f}")
        0.3333

    References:
        Pearson, On the criterion that a given system of deviations, 1900. Tsybakov, 2009.
    """
    return _sum("chi2", terms.chi2, p, q)


@_verb(terms.triangular)
def triangular(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Triangular discrimination (Vincze-Le Cam) $\sum_i (p_i - q_i)^2 / (p_i + q_i)$.

    Args:
        p: Probabilities `[k]`.
        q: Probabilities `[k]`.

    Returns:
        Symmetric and in $[0, 2]$, even with zeros: 0 when `p` equals `q`, 2 for disjoint supports.

    Example:
        >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
        >>> print(f"{simplex.triangular(p, q):.4f}")
        0.1333

    References:
        Topsoe, Some inequalities for information divergence and related measures of discrimination, 2000.
    """
    return _sum("triangular", terms.triangular, p, q)


@_verb(terms.cross_entropy)
def cross_entropy(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Cross-entropy $-\sum_i p_i \log q_i$.

    Args:
        p: Probabilities `[k]` of the distribution the expectation is under.
        q: Probabilities `[k]` of the distribution whose logarithm is averaged.

    Returns:
        Non-negative, at least the entropy of `p`; `inf` where `q` is zero and `p` is not.

    Example:
        >>> print(f"{simplex.cross_entropy(jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])):.4f}")
        0.8370

    References:
        Cover and Thomas, Elements of information theory, 2006.
    """
    return _sum("cross_entropy", terms.cross_entropy, p, q)


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
        Shannon, A mathematical theory of communication, 1948.
    """
    p = _inputs.vector("simplex.entropy", p)
    return probabilities.entropy(p)[0].astype(p.dtype)


def _product_difference(x, y, z):
    """x - y z without the rounding error of the product."""
    product = y * z
    (y_high, y_low), (z_high, z_low) = split(y), split(z)
    error = ((y_high * z_high - product) + y_high * z_low + y_low * z_high) + y_low * z_low
    return (x - product) - error


def _products_of_margins(p):
    """An enlarged table and the products of its margins, and the powers of two in which each row of both is.

    Without them, products of small margins would underflow.
    """
    rows, columns = (jnp.sum(p, axis, keepdims=True) for axis in (1, 0))
    # The inverse of no power overflows.
    units = jnp.maximum(unit_of(rows) / functions.enlargement(rows), 2.0 ** (2 - jnp.finfo(p.dtype).maxexp))
    inside = p / units, rows / units / functions.enlargement(rows), columns
    delta = lax.stop_gradient(_product_difference(*inside))
    return inside[0], inside[1] * columns, delta, units


@custom_jvp
def _dependence(p):
    """Mutual information of an enlarged table, enlarged."""
    *pair, units = _products_of_margins(p)
    return jnp.sum(units * jnp.sum(bregman(*pair), 1, keepdims=True))


@_dependence.defjvp
def _(primals, tangents):
    (p,), (dp,) = primals, tangents
    # Terms of margins add up to the total less 1, the same for all.
    slope = log_ratio(*_products_of_margins(p)[:3]) + 2 * (jnp.sum(p) / functions.enlargement(p) - 1)
    return _dependence(p), jnp.sum(jnp.where(p == 0, 0, slope) * dp)


@jitted
def mutual_information(joint: ArrayLike) -> jax.Array:
    r"""Mutual information $\mathrm{KL}(P \,\|\, r \otimes c) = \sum_{ij} P_{ij} \log \frac{P_{ij}}{r_i c_j}$.

    Args:
        joint: Probabilities `[k, l]` of pairs, with margins $r_i = \sum_j P_{ij}$ and $c_j = \sum_i P_{ij}$.

    Returns:
        In $[0, \log \min(k, l)]$, with finite gradients, even with zeros; 0 if the margins are independent. Near
        independence the relative error is $(\epsilon / c)^2$ for margins with rounding error $\epsilon$ and log-ratios
        of size $c$.

    Example:
        >>> print(f"{simplex.mutual_information(jnp.array([[0.5, 0.0], [0.0, 0.5]])):.4f}")
        0.6931

    References:
        Cover and Thomas, Elements of information theory, 2006.
    """
    joint = _inputs.matrix("simplex.mutual_information", "joint", joint, "one joint distribution [k, l]")
    p = functions.enlarged(joint.astype(_inputs.working(joint)))
    return (_dependence(p) / functions.enlargement(p)).astype(joint.dtype)


@functools.partial(jitted, static=("axis",))
def from_counts(counts: ArrayLike, *, pseudo_count: ArrayLike = 0.0, axis: int | tuple[int, ...] = -1) -> jax.Array:
    r"""Probabilities $(n_i + \epsilon) / \sum_j (n_j + \epsilon)$ of counts $n$.

    Args:
        counts: Non-negative counts of any shape, integer or floating-point.
        pseudo_count: The number $\epsilon$ added to each count. The default is 0, because smoothing is a modelling
            choice.
        axis: The axis or axes that sum to one.

    Returns:
        Probabilities in the shape of `counts`, without unit; zero where both the count and $\epsilon$ are zero. A row
        of zeros only gives `nan`.

    Example:
        >>> print(simplex.from_counts(jnp.array([3, 0, 1])))
        [0.75 0.   0.25]

    References:
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946 (pseudo-count one half).
    """
    who = "simplex.from_counts"
    counts = _inputs.counts(who, counts)
    axes, work = _inputs.distinct_axes(who, "counts", counts, axis), _inputs.working(counts)
    pseudo_count = _inputs.number(who, "pseudo_count", pseudo_count, counts, work)
    n = counts.astype(work)
    # In a unit of about the largest, in which no sum overflows.
    unit = unit_of(jnp.maximum(jnp.max(n, axes, keepdims=True), pseudo_count))
    n = n / unit + pseudo_count / unit
    return (n / jnp.sum(n, axes, keepdims=True)).astype(counts.dtype)


@jitted
def dirichlet_smoothed(counts: ArrayLike, background: ArrayLike, *, strength: ArrayLike) -> jax.Array:
    r"""Probabilities $(n_i + \mu b_i) / (\sum_j n_j + \mu)$: counts shrunk towards a background.

    Args:
        counts: Non-negative counts `[k]`, integer or floating-point.
        background: Probabilities `[k]`.
        strength: The weight $\mu > 0$ of the background, in counts.

    Returns:
        Probabilities `[k]`, without unit; zero only where the count and the background are both zero; equal to the
        background when all counts are zero.

    Example:
        >>> print(simplex.dirichlet_smoothed(jnp.array([4, 0]), jnp.array([0.5, 0.5]), strength=4.0))
        [0.75 0.25]

    References:
        Zhai and Lafferty, A study of smoothing methods for language models, 2004.
    """
    who = "simplex.dirichlet_smoothed"
    counts = _inputs.counts(who, counts)
    counts, background, dtype = _inputs.vectors(who, counts, background, ("counts", "background"))
    work = _inputs.working(counts, background)
    n, b = counts.astype(work), background.astype(work)
    strength = _inputs.number(who, "strength", strength, n, work)
    unit = unit_of(jnp.maximum(jnp.max(n, keepdims=True), strength))
    n, strength = n / unit, strength / unit
    return ((n + strength * b) / (jnp.sum(n, keepdims=True) + strength)).astype(dtype)


def check(p: ArrayLike, *, axis: int = -1) -> None:
    r"""Checks on the host that $p$ is a distribution: $p_i \ge 0$ and $\sum_i p_i = 1$.

    Args:
        p: Probabilities of any shape, with distributions along `axis`; zeros are allowed.
        axis: The axis of the events.

    Raises:
        ValueError: Some rows have `nan` or a negative entry, or their sum differs from one by more than rounding in
            their dtype explains; the message names them.

    Example:
        >>> simplex.check(jnp.full((2, 4), 0.25))
    """
    rows, dtype = _inputs.rows_of_events("simplex.check", p, axis)
    eps = float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.floating) else 0.0
    _inputs.raise_for_rows(
        "simplex.check",
        rows,
        {
            "nan": lambda x: np.isnan(x).any(-1),
            "a negative entry": lambda x: (x < 0).any(-1),
            "a sum that is not one": lambda x: abs(x.sum(-1) - 1) > 4 * eps * np.sqrt(x.shape[-1]),
        },
    )

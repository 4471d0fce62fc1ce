r"""Divergences between two categorical distributions given by logits `[k]`.

The distribution of logits $a$ is $\mathrm{softmax}(a / T)$. Log-probabilities are logits. A logit of `-inf` is
probability zero; a finite logit is in the support, even if its probability rounds to zero. Each call takes one pair of
vectors: for batches use `jax.vmap` or `jaxdiv.losses`.

These rules hold for every function below:

- Results are `[]`, in the promoted dtype. They are in nats, except total variation, Hellinger, triangular, chi-squared,
  Fisher-Rao and Amari's divergence, which have no unit.
- The kernel divides both logit vectors by `temperature` $T > 0$, with no loss of accuracy.
- Where a value is `inf`, gradients are finite or zero. Logits with `nan`, with `+inf`, or all `-inf` give `nan`.
- A wrong rank or shape raises ValueError and a dtype that is not floating-point raises TypeError, both while tracing.
"""

import functools

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.functions import root
from jaxdiv._core.jit import jitted
from jaxdiv._discrete import logits as _logits
from jaxdiv._discrete import spaces, terms
from jaxdiv._discrete.verbs import fisher_rao_length, verb

_verb = functools.partial(verb, spaces.LOGITS)


def _compare(name, verb, p, q, temperature, then=lambda value: value, **parameters):
    """Applies `then` to the divergence of one pair; `verb` is a record or a function of `_logits`."""
    who = f"categorical.{name}"
    p, q, dtype = _inputs.vectors(who, p, q)
    work = _inputs.working(p, q)
    numbers = {key: _inputs.number(who, key, x, p, work) for key, x in parameters.items()}
    temperature = _inputs.temperature(who, temperature, p, work)
    return then(_logits.evaluate(verb, p, q, temperature, **numbers)).astype(dtype)


@_verb(terms.kl)
def kl(p: ArrayLike, q: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Kullback-Leibler divergence $\mathrm{KL}(p \,\|\, q) = \sum_i p_i \log (p_i / q_i)$.

    Args:
        p: Logits `[k]` of the distribution the expectation is under; `-inf` is probability zero.
        q: Logits `[k]` of the other distribution.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        Non-negative; exactly 0, with gradient exactly 0, when `p` equals `q`; `inf` where `q` has probability zero and
        `p` has not. If the value is `inf`, the gradient is $q - p$ in `q` and 0 in `p`.

    Example:
        >>> p = jnp.log(jnp.array([0.5, 0.5, 0.0]))
        >>> q = jnp.log(jnp.array([0.25, 0.25, 0.5]))
        >>> print(f"{categorical.kl(p, q):.4f} {categorical.kl(q, p):.4f}")
        0.6931 inf

    References:
        Kullback and Leibler, On information and sufficiency, 1951.
    """
    return _compare("kl", terms.kl, p, q, temperature)


@_verb(terms.jeffreys)
def jeffreys(p: ArrayLike, q: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Jeffreys divergence $\mathrm{KL}(p \,\|\, q) + \mathrm{KL}(q \,\|\, p) = \sum_i (p_i - q_i) \log (p_i / q_i)$.

    Args:
        p: Logits `[k]`.
        q: Logits `[k]`.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`; `inf` where exactly one of the two has probability zero.

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
        >>> print(f"{categorical.jeffreys(p, q):.4f}")
        0.2747

    References:
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946.
    """
    return _compare("jeffreys", terms.jeffreys, p, q, temperature)


@_verb(terms.js)
def js(p: ArrayLike, q: ArrayLike, *, weight: ArrayLike = 0.5, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Jensen-Shannon divergence $w\,\mathrm{KL}(p \| m) + (1 - w)\,\mathrm{KL}(q \| m)$ with $m = w p + (1 - w) q$.

    This is the divergence; its square root is `js_distance`.

    Args:
        p: Logits `[k]`.
        q: Logits `[k]`.
        weight: The weight $w \in [0, 1]$ of `p`.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        In $[0, H(w)]$ with $H(w) = -w \log w - (1 - w) \log (1 - w)$, so at most $\log 2$, even with zeros; 0 when `p`
        equals `q` and for weights 0 and 1; `nan` for a weight outside $[0, 1]$.

    Example:
        >>> p, q = jnp.log(jnp.array([1.0, 0.0])), jnp.log(jnp.array([0.0, 1.0]))
        >>> print(f"{categorical.js(p, q):.4f} {categorical.js(p, q, weight=0.9):.4f}")
        0.6931 0.3251

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991.
    """
    if _inputs.is_default(weight, 0.5):
        return _compare("js", terms.js, p, q, temperature)
    return _compare("js", terms.skewed_js, p, q, temperature, weight=weight)


@jitted
def js_of(ps: ArrayLike, *, weights: ArrayLike | None = None) -> jax.Array:
    r"""Jensen-Shannon divergence of n distributions, $H(m) - \sum_j w_j H(p_j) = \sum_j w_j \mathrm{KL}(p_j \,\|\, m)$.

    Args:
        ps: Logits `[n, k]`, one distribution per row. Their mean is $m = \sum_j w_j p_j$.
        weights: Weights `[n]`, non-negative; they are divided by their sum. Equal by default.

    Returns:
        In $[0, H(w)]$, so at most $\log n$, even with zeros; 0 when all the distributions are equal.

    Example:
        >>> print(f"{categorical.js_of(jnp.log(jnp.eye(3))):.4f}")
        1.0986

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991.
    """
    ps, weights = _inputs.weighted_laws("categorical.js_of", ps, weights)
    return _logits.js_of(ps, weights[:, None]).astype(ps.dtype)


@_verb(terms.js, itself=False)
def js_distance(p: ArrayLike, q: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Jensen-Shannon distance $\sqrt{\mathrm{JS}(p, q)}$, a metric.

    Args:
        p: Logits `[k]`.
        q: Logits `[k]`.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        In $[0, \sqrt{\log 2}]$, even with zeros; exactly 0, with gradient 0, when `p` equals `q`.

    Example:
        >>> p, q = jnp.log(jnp.array([1.0, 0.0])), jnp.log(jnp.array([0.0, 1.0]))
        >>> print(f"{categorical.js_distance(p, q):.4f}")
        0.8326

    References:
        Endres and Schindelin, A new metric for probability distributions, 2003.
    """
    return _compare("js_distance", terms.js, p, q, temperature, root)


@_verb()
def renyi(p: ArrayLike, q: ArrayLike, *, alpha: ArrayLike, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Renyi divergence $\frac{1}{\alpha - 1} \log \sum_i p_i^\alpha q_i^{1 - \alpha}$.

    Args:
        p: Logits `[k]` of the distribution the expectation is under.
        q: Logits `[k]` of the other distribution.
        alpha: The order in $[0, \infty]$: order 1 is the KL divergence, order `inf` is $\max_i \log (p_i / q_i)$. The
            value is continuous and differentiable in `alpha`, also at 1.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` for disjoint supports, and for $\alpha \ge 1$ where `q` has
        probability zero and `p` has not; `nan` for a negative order.

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
        >>> print(f"{categorical.renyi(p, q, alpha=2):.4f} {categorical.renyi(p, q, alpha=jnp.inf):.4f}")
        0.2877 0.6931

    References:
        Renyi, On measures of entropy and information, 1961. van Erven and Harremoes, Renyi divergence and
        Kullback-Leibler divergence, 2014.
    """
    return _compare("renyi", _logits.renyi, p, q, temperature, alpha=alpha)


@_verb(terms.amari)
def amari(p: ArrayLike, q: ArrayLike, *, alpha: ArrayLike, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Amari's alpha-divergence $\bigl(1 - \sum_i p_i^\alpha q_i^{1 - \alpha}\bigr) / (\alpha (1 - \alpha))$.

    Args:
        p: Logits `[k]`.
        q: Logits `[k]`.
        alpha: Any real order. Order 1 is $\mathrm{KL}(p \,\|\, q)$ and order 0 is $\mathrm{KL}(q \,\|\, p)$, both as
            limits; 1/2 is four times the squared Hellinger distance; 2 is half of chi-squared. The value is continuous
            and differentiable in `alpha`.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` for $\alpha \ge 1$ where only `q` has probability zero, and for
        $\alpha \le 0$ where only `p` has; for orders in between at most $1 / (\alpha (1 - \alpha))$.

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
        >>> print(f"{categorical.amari(p, q, alpha=1):.4f} {categorical.kl(p, q):.4f}")
        0.1438 0.1438

    References:
        Cichocki and Amari, Families of alpha- beta- and gamma-divergences, 2010.
    """
    return _compare("amari", terms.amari, p, q, temperature, alpha=alpha)


@_verb(terms.squared_hellinger)
def squared_hellinger(p: ArrayLike, q: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Squared Hellinger distance $1 - \sum_i \sqrt{p_i q_i} = \tfrac12 \sum_i (\sqrt{p_i} - \sqrt{q_i})^2$.

    Args:
        p: Logits `[k]`.
        q: Logits `[k]`.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        Symmetric and in $[0, 1]$, even with zeros: 0 when `p` equals `q`, 1 for disjoint supports.

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.0, 1.0]))
        >>> print(f"{categorical.squared_hellinger(p, q):.4f}")
        0.2929

    References:
        Hellinger, Neue Begruendung der Theorie quadratischer Formen, 1909. Le Cam, Asymptotic methods, 1986.
    """
    return _compare("squared_hellinger", terms.squared_hellinger, p, q, temperature)


@_verb(terms.squared_hellinger, itself=False)
def hellinger_distance(p: ArrayLike, q: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Hellinger distance $\sqrt{1 - \sum_i \sqrt{p_i q_i}}$, a metric.

    Args:
        p: Logits `[k]`.
        q: Logits `[k]`.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        In $[0, 1]$, even with zeros; exactly 0, with gradient 0, when `p` equals `q`; 1 for disjoint supports.

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.0, 1.0]))
        >>> print(f"{categorical.hellinger_distance(p, q):.4f}")
        0.5412

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986.
    """
    return _compare("hellinger_distance", terms.squared_hellinger, p, q, temperature, root)


@_verb(terms.squared_hellinger, itself=False)
def fisher_rao_distance(p: ArrayLike, q: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Fisher-Rao distance $2 \arccos \sum_i \sqrt{p_i q_i}$, the geodesic length of the Fisher metric.

    Args:
        p: Logits `[k]`.
        q: Logits `[k]`.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        In $[0, \pi]$, even with zeros; exactly 0, with gradient 0, when `p` equals `q`; $\pi$ for disjoint supports.

    Example:
        >>> p, q = jnp.log(jnp.array([1.0, 0.0])), jnp.log(jnp.array([0.0, 1.0]))
        >>> print(f"{categorical.fisher_rao_distance(p, q):.4f}")
        3.1416

    References:
        Rao, Information and the accuracy attainable in the estimation of statistical parameters, 1945.
    """
    return _compare("fisher_rao_distance", terms.squared_hellinger, p, q, temperature, fisher_rao_length)


@_verb()
def bhattacharyya(p: ArrayLike, q: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Bhattacharyya divergence $-\log \sum_i \sqrt{p_i q_i}$.

    Args:
        p: Logits `[k]`.
        q: Logits `[k]`.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`; `inf` only for disjoint supports.

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.0, 1.0]))
        >>> print(f"{categorical.bhattacharyya(p, q):.4f}")
        0.3466

    References:
        Bhattacharyya, On a measure of divergence between two multinomial populations, 1946.
    """
    return _compare("bhattacharyya", _logits.bhattacharyya, p, q, temperature)


@_verb()
def chernoff(p: ArrayLike, q: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Chernoff information $\max_{0 \le s \le 1} -\log \sum_i p_i^s q_i^{1 - s}$.

    The sum runs over the events that both distributions allow. This makes it continuous in s at both ends.

    Args:
        p: Logits `[k]`.
        q: Logits `[k]`.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        Non-negative and symmetric, at least the Bhattacharyya divergence; 0 when `p` equals `q`; `inf` only for
        disjoint supports.

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.1, 0.9]))
        >>> print(f"{categorical.chernoff(p, q):.4f}")
        0.1124

    References:
        Chernoff, A measure of asymptotic efficiency for tests of a hypothesis, 1952. Cover and Thomas, Elements of
        information theory, 2006.
    """
    return _compare("chernoff", _logits.chernoff, p, q, temperature)


@_verb(terms.total_variation)
def total_variation(p: ArrayLike, q: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Total variation $\tfrac12 \sum_i |p_i - q_i|$.

    Args:
        p: Logits `[k]`.
        q: Logits `[k]`.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        In $[0, 1]$, even with zeros: 0, with gradient 0, when `p` equals `q`; 1 for disjoint supports.

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
        >>> print(f"{categorical.total_variation(p, q):.4f}")
        0.2500

    References:
        Tsybakov, Introduction to nonparametric estimation, 2009.
    """
    return _compare("total_variation", terms.total_variation, p, q, temperature)


@_verb(terms.chi2)
def chi2(p: ArrayLike, q: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Pearson's chi-squared divergence $\sum_i (p_i - q_i)^2 / q_i = \sum_i p_i^2 / q_i - 1$.

    Args:
        p: Logits `[k]`.
        q: Logits `[k]` of the distribution in the denominator.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where `q` has probability zero and `p` has not, and on overflow.

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
        >>> print(f"{categorical.chi2(p, q):.4f}")
        0.3333

    References:
        Pearson, On the criterion that a given system of deviations, 1900. Tsybakov, 2009.
    """
    return _compare("chi2", terms.chi2, p, q, temperature)


@_verb(terms.triangular)
def triangular(p: ArrayLike, q: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Triangular discrimination (Vincze-Le Cam) $\sum_i (p_i - q_i)^2 / (p_i + q_i)$.

    Args:
        p: Logits `[k]`.
        q: Logits `[k]`.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        Symmetric and in $[0, 2]$, even with zeros: 0 when `p` equals `q`, 2 for disjoint supports.

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
        >>> print(f"{categorical.triangular(p, q):.4f}")
        0.1333

    References:
        Topsoe, Some inequalities for information divergence and related measures of discrimination, 2000.
    """
    return _compare("triangular", terms.triangular, p, q, temperature)


@_verb(terms.cross_entropy)
def cross_entropy(p: ArrayLike, q: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Cross-entropy $-\sum_i p_i \log q_i = H(p) + \mathrm{KL}(p \,\|\, q)$.

    Args:
        p: Logits `[k]` of the distribution the expectation is under.
        q: Logits `[k]` of the distribution whose logarithm is averaged.
        temperature: Divides both logit vectors; a positive number.

    Returns:
        Non-negative, at least the entropy of `p`; `inf` where `q` has probability zero and `p` has not.

    Example:
        >>> p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
        >>> print(f"{categorical.cross_entropy(p, q):.4f}")
        0.8370

    References:
        Cover and Thomas, Elements of information theory, 2006.
    """
    return _compare("cross_entropy", terms.cross_entropy, p, q, temperature)


@jitted
def entropy(p: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    r"""Shannon entropy $-\sum_i p_i \log p_i$.

    Args:
        p: Logits `[k]`; `-inf` is probability zero, and 0 log 0 is 0.
        temperature: Divides the logits; a positive number.

    Returns:
        In $[0, \log k]$; accurate even if one event has nearly all the probability.

    Example:
        >>> print(f"{categorical.entropy(jnp.zeros(4)):.4f}")
        1.3863

    References:
        Shannon, A mathematical theory of communication, 1948.
    """
    p = _inputs.vector("categorical.entropy", p)
    over = _inputs.temperature("categorical.entropy", temperature, p, _inputs.working(p))
    return _logits.entropy(p, over).astype(p.dtype)


def check(p: ArrayLike, *, axis: int = -1) -> None:
    r"""Checks on the host that logits $a$ define distributions $p_i = e^{a_i} / \sum_j e^{a_j}$.

    Args:
        p: Logits of any shape, with distributions along `axis`; `-inf` is allowed and means probability zero.
        axis: The axis of the events.

    Raises:
        ValueError: Some rows have `nan`, have `+inf`, or are all `-inf`; the message names them.

    Warns:
        UserWarning: All rows are non-negative and sum to one, so they are probably probabilities, not logits. There is
            no warning if all rows are uniform.

    Example:
        >>> categorical.check(jnp.zeros((2, 3)))
    """
    rows, _ = _inputs.rows_of_events("categorical.check", p, axis)
    _inputs.raise_for_rows(
        "categorical.check",
        rows,
        {
            "nan": lambda x: np.isnan(x).any(-1),
            "+inf": lambda x: (x == np.inf).any(-1),
            "no finite logit": lambda x: (x == -np.inf).all(-1),
        },
    )
    _inputs.warn_of_probabilities("categorical.check", rows)

r"""Divergences between two Bernoulli distributions, each given by one logit `[]`.

The distribution with logit $a$ gives its event the probability $\sigma(a) = 1 / (1 + e^{-a})$. A logit of `inf` or
`-inf` is probability one or zero. Every sum below has two terms, for the event and for its complement: each function
equals that of `categorical` for the logits $(0, a)$. Each call takes one pair of scalars: for batches use `jax.vmap`.

These rules hold for every function below:

- Results are `[]`, in the promoted dtype. They are in nats, except total variation, Hellinger, triangular, chi-squared,
  Fisher-Rao and Amari's divergence, which have no unit.
- Where a value is `inf`, gradients are finite or zero. A logit that is `nan` gives `nan`.
- A wrong rank raises ValueError and a dtype that is not floating-point raises TypeError, both while tracing.
"""

import functools

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.functions import root
from jaxdiv._core.jit import jitted
from jaxdiv._discrete import binary, binary_affinity, spaces, terms
from jaxdiv._discrete.record import Divergence
from jaxdiv._discrete.verbs import fisher_rao_length, verb

_verb = functools.partial(verb, spaces.EVENT)


def _compare(name, verb, p, q, then=lambda value: value, **parameters):
    """Applies `then` to the divergence of two events; `verb` is a record or a function of logits."""
    who = f"bernoulli.{name}"
    p, q, dtype = _inputs.scalars(who, p, q)
    work = _inputs.working(p, q)
    numbers = {key: _inputs.number(who, key, x, p, work) for key, x in parameters.items()}
    evaluate = functools.partial(binary.total, verb) if isinstance(verb, Divergence) else verb
    return then(evaluate(p.astype(work), q.astype(work), **numbers)).astype(dtype)


@_verb(terms.kl)
def kl(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Kullback-Leibler divergence $\mathrm{KL}(p \,\|\, q) = \sum_i p_i \log (p_i / q_i)$.

    Args:
        p: A logit `[]` of the distribution the expectation is under.
        q: A logit `[]` of the other distribution.

    Returns:
        Non-negative; exactly 0, with gradient exactly 0, when `p` equals `q`; `inf` where `q` rules out an outcome that
        `p` allows. If the value is `inf`, the gradient is $q - p$ in `q` and 0 in `p`.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.kl(p, q):.4f}")
        0.1438

    References:
        Kullback and Leibler, On information and sufficiency, 1951.
    """
    return _compare("kl", terms.kl, p, q)


@_verb(terms.jeffreys)
def jeffreys(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Jeffreys divergence $\mathrm{KL}(p \,\|\, q) + \mathrm{KL}(q \,\|\, p) = \sum_i (p_i - q_i) \log (p_i / q_i)$.

    Args:
        p: A logit `[]`.
        q: A logit `[]`.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`; `inf` where exactly one of the two rules an outcome out.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.jeffreys(p, q):.4f}")
        0.2747

    References:
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946.
    """
    return _compare("jeffreys", terms.jeffreys, p, q)


@_verb(terms.js)
def js(p: ArrayLike, q: ArrayLike, *, weight: ArrayLike = 0.5) -> jax.Array:
    r"""Jensen-Shannon divergence $w\,\mathrm{KL}(p \| m) + (1 - w)\,\mathrm{KL}(q \| m)$ with $m = w p + (1 - w) q$.

    This is the divergence; its square root is `js_distance`.

    Args:
        p: A logit `[]`.
        q: A logit `[]`.
        weight: The weight $w \in [0, 1]$ of `p`.

    Returns:
        In $[0, H(w)]$ with $H(w) = -w \log w - (1 - w) \log (1 - w)$, so at most $\log 2$, even with zeros; 0 when `p`
        equals `q` and for weights 0 and 1; `nan` for a weight outside $[0, 1]$.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.js(p, q):.4f}")
        0.0338

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991.
    """
    if _inputs.is_default(weight, 0.5):
        return _compare("js", terms.js, p, q)
    return _compare("js", terms.skewed_js, p, q, weight=weight)


@_verb(terms.js, itself=False)
def js_distance(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Jensen-Shannon distance $\sqrt{\mathrm{JS}(p, q)}$, a metric.

    Args:
        p: A logit `[]`.
        q: A logit `[]`.

    Returns:
        In $[0, \sqrt{\log 2}]$, even with zeros; exactly 0, with gradient 0, when `p` equals `q`.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.js_distance(p, q):.4f}")
        0.1839

    References:
        Endres and Schindelin, A new metric for probability distributions, 2003.
    """
    return _compare("js_distance", terms.js, p, q, root)


@_verb()
def renyi(p: ArrayLike, q: ArrayLike, *, alpha: ArrayLike) -> jax.Array:
    r"""Renyi divergence $\frac{1}{\alpha - 1} \log \sum_i p_i^\alpha q_i^{1 - \alpha}$.

    Args:
        p: A logit `[]` of the distribution the expectation is under.
        q: A logit `[]` of the other distribution.
        alpha: The order in $[0, \infty]$: order 1 is the KL divergence, order `inf` is $\max_i \log (p_i / q_i)$. The
            value is continuous and differentiable in `alpha`, also at 1.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` for disjoint supports, and for $\alpha \ge 1$ where `q` rules out an
        outcome that `p` allows; `nan` for a negative order.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.renyi(p, q, alpha=2):.4f}")
        0.2877

    References:
        Renyi, On measures of entropy and information, 1961. van Erven and Harremoes, Renyi divergence and
        Kullback-Leibler divergence, 2014.
    """
    return _compare("renyi", binary_affinity.renyi, p, q, alpha=alpha)


@_verb(terms.amari)
def amari(p: ArrayLike, q: ArrayLike, *, alpha: ArrayLike) -> jax.Array:
    r"""Amari's alpha-divergence $\bigl(1 - \sum_i p_i^\alpha q_i^{1 - \alpha}\bigr) / (\alpha (1 - \alpha))$.

    Args:
        p: A logit `[]`.
        q: A logit `[]`.
        alpha: Any real order. Order 1 is $\mathrm{KL}(p \,\|\, q)$ and order 0 is $\mathrm{KL}(q \,\|\, p)$, both as
            limits; 1/2 is four times the squared Hellinger distance; 2 is half of chi-squared. The value is continuous
            and differentiable in `alpha`.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` for $\alpha \ge 1$ where only `q` rules an outcome out, and for
        $\alpha \le 0$ where only `p` does; for orders in between at most $1 / (\alpha (1 - \alpha))$.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.amari(p, q, alpha=2):.4f}")
        0.1667

    References:
        Cichocki and Amari, Families of alpha- beta- and gamma-divergences, 2010.
    """
    return _compare("amari", terms.amari, p, q, alpha=alpha)


@_verb(terms.squared_hellinger)
def squared_hellinger(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Squared Hellinger distance $1 - \sum_i \sqrt{p_i q_i} = \tfrac12 \sum_i (\sqrt{p_i} - \sqrt{q_i})^2$.

    Args:
        p: A logit `[]`.
        q: A logit `[]`.

    Returns:
        Symmetric and in $[0, 1]$, even with zeros: 0 when `p` equals `q`, 1 for disjoint supports.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.squared_hellinger(p, q):.4f}")
        0.0341

    References:
        Hellinger, Neue Begruendung der Theorie quadratischer Formen, 1909. Le Cam, Asymptotic methods, 1986.
    """
    return _compare("squared_hellinger", terms.squared_hellinger, p, q)


@_verb(terms.squared_hellinger, itself=False)
def hellinger_distance(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Hellinger distance $\sqrt{1 - \sum_i \sqrt{p_i q_i}}$, a metric.

    Args:
        p: A logit `[]`.
        q: A logit `[]`.

    Returns:
        In $[0, 1]$, even with zeros; exactly 0, with gradient 0, when `p` equals `q`; 1 for disjoint supports.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.hellinger_distance(p, q):.4f}")
        0.1846

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986.
    """
    return _compare("hellinger_distance", terms.squared_hellinger, p, q, root)


@_verb(terms.squared_hellinger, itself=False)
def fisher_rao_distance(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Fisher-Rao distance $2 \arccos \sum_i \sqrt{p_i q_i}$, the geodesic length of the Fisher metric.

    Args:
        p: A logit `[]`.
        q: A logit `[]`.

    Returns:
        In $[0, \pi]$, even with zeros; exactly 0, with gradient 0, when `p` equals `q`; $\pi$ for disjoint supports.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.fisher_rao_distance(p, q):.4f}")
        0.5236

    References:
        Rao, Information and the accuracy attainable in the estimation of statistical parameters, 1945.
    """
    return _compare("fisher_rao_distance", terms.squared_hellinger, p, q, fisher_rao_length)


@_verb()
def bhattacharyya(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Bhattacharyya divergence $-\log \sum_i \sqrt{p_i q_i}$.

    Args:
        p: A logit `[]`.
        q: A logit `[]`.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`; `inf` only for disjoint supports.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.bhattacharyya(p, q):.4f}")
        0.0347

    References:
        Bhattacharyya, On a measure of divergence between two multinomial populations, 1946.
    """
    return _compare("bhattacharyya", binary_affinity.bhattacharyya, p, q)


@_verb()
def chernoff(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Chernoff information $\max_{0 \le s \le 1} -\log \sum_i p_i^s q_i^{1 - s}$.

    The sum runs over the events that both distributions allow. This makes it continuous in s at both ends.

    Args:
        p: A logit `[]`.
        q: A logit `[]`.

    Returns:
        Non-negative and symmetric, at least the Bhattacharyya divergence; 0 when `p` equals `q`; `inf` only for
        disjoint supports.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.chernoff(p, q):.4f}")
        0.0347

    References:
        Chernoff, A measure of asymptotic efficiency for tests of a hypothesis, 1952. Cover and Thomas, Elements of
        information theory, 2006.
    """
    return _compare("chernoff", binary_affinity.chernoff, p, q)


@_verb(terms.total_variation)
def total_variation(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Total variation $\tfrac12 \sum_i |p_i - q_i|$.

    Args:
        p: A logit `[]`.
        q: A logit `[]`.

    Returns:
        In $[0, 1]$, even with zeros: 0, with gradient 0, when `p` equals `q`; 1 for disjoint supports.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.total_variation(p, q):.4f}")
        0.2500

    References:
        Tsybakov, Introduction to nonparametric estimation, 2009.
    """
    return _compare("total_variation", terms.total_variation, p, q)


@_verb(terms.chi2)
def chi2(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Pearson's chi-squared divergence $\sum_i (p_i - q_i)^2 / q_i = \sum_i p_i^2 / q_i - 1$.

    Args:
        p: A logit `[]`.
        q: A logit `[]` of the distribution in the denominator.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where `q` rules out an outcome that `p` allows, and on overflow.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.chi2(p, q):.4f}")
        0.3333

    References:
        Pearson, On the criterion that a given system of deviations, 1900. Tsybakov, 2009.
    """
    return _compare("chi2", terms.chi2, p, q)


@_verb(terms.triangular)
def triangular(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Triangular discrimination (Vincze-Le Cam) $\sum_i (p_i - q_i)^2 / (p_i + q_i)$.

    Args:
        p: A logit `[]`.
        q: A logit `[]`.

    Returns:
        Symmetric and in $[0, 2]$, even with zeros: 0 when `p` equals `q`, 2 for disjoint supports.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.triangular(p, q):.4f}")
        0.1333

    References:
        Topsoe, Some inequalities for information divergence and related measures of discrimination, 2000.
    """
    return _compare("triangular", terms.triangular, p, q)


@_verb(terms.cross_entropy)
def cross_entropy(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""Cross-entropy $-\sum_i p_i \log q_i = H(p) + \mathrm{KL}(p \,\|\, q)$.

    Args:
        p: A logit `[]` of the distribution the expectation is under.
        q: A logit `[]` of the distribution whose logarithm is averaged.

    Returns:
        Non-negative, at least the entropy of `p`; `inf` where `q` rules out an outcome that `p` allows.

    Example:
        >>> p, q = jnp.array(0.0), jnp.log(jnp.array(3.0))
        >>> print(f"{bernoulli.cross_entropy(p, q):.4f}")
        0.8370

    References:
        Cover and Thomas, Elements of information theory, 2006.
    """
    return _compare("cross_entropy", terms.cross_entropy, p, q)


@jitted
def entropy(p: ArrayLike) -> jax.Array:
    r"""Shannon entropy $-\sum_i p_i \log p_i$.

    Args:
        p: A logit `[]`; `inf` and `-inf` have entropy 0.

    Returns:
        In $[0, \log 2]$; accurate even if one outcome has nearly all the probability.

    Example:
        >>> print(f"{bernoulli.entropy(jnp.array(0.0)):.4f}")
        0.6931

    References:
        Shannon, A mathematical theory of communication, 1948.
    """
    p = _inputs.scalar("bernoulli.entropy", p)
    return binary.total(terms.cross_entropy, p.astype(_inputs.working(p)), None).astype(p.dtype)


def check(p: ArrayLike) -> None:
    r"""Checks on the host that logits $a$ define probabilities $\sigma(a)$.

    Args:
        p: Logits of any shape; `inf` and `-inf` are allowed and mean probabilities one and zero.

    Raises:
        ValueError: Some logits are `nan`; the message names them.

    Example:
        >>> bernoulli.check(jnp.zeros(3))
    """
    _inputs.raise_for_rows(
        "bernoulli.check", np.asarray(p, np.float64)[..., None], {"nan": lambda x: np.isnan(x).any(-1)}
    )

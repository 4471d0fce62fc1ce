r"""Divergences between two normal distributions (called *laws* below), in any of eight parametrisations (*forms*).

| form | fields | meaning |
|---|---|---|
| `Normal` | `loc`, `scale` `[]` or `[d]` | independent components: means and standard deviations, which broadcast |
| `NormalLogScale` | `loc`, `log_scale` `[]` or `[d]` | the same with logarithms of standard deviations |
| `LowRankNormal` | `loc` `[d]`, `factor` `[d, r]`, `diag` `[d]` | covariance factor factor' + diag(diag) |
| `MultivariateNormal` | `loc` `[d]`, `scale_tril` `[d, d]` | lower triangular root of the covariance |
| `CovarianceNormal` | `loc` `[d]`, `covariance` `[d, d]` | the covariance |
| `PrecisionNormal` | `loc` `[d]`, `precision` `[d, d]` | the inverse of the covariance |
| `NaturalNormal` | `natural_loc` `[d]`, `precision` `[d, d]` | the precision, and precision times mean |
| `MatrixNormal` | `loc` `[n, m]`, `row_tril` `[n, n]`, `column_tril` `[m, m]` | $M + A Z B'$, $Z$ standard normal |

An array is ONE joint law: for independent components the result is the divergence of the whole vectors, not one number
per component. In a triangular root, entries above the diagonal are ignored and get no gradient. Other square matrices
are replaced by their symmetric part. A `MatrixNormal` is the law of its entries, row by row, with covariance
$A A' \otimes B B'$. Each call takes one pair of laws: for batches use `jax.vmap`. Results are `[]`, in the promoted
dtype.

Accuracy. Two laws of the same form are compared by formulas of that form, which stay accurate for nearly equal laws.
(For low-rank laws, nearly equal means nearly equal factors, not factors that agree up to a rotation.) Laws of different
forms are first converted to the cheapest form that can hold both: two with independent components to `Normal`; one of
those and a `LowRankNormal` to `LowRankNormal`; all others to `MultivariateNormal`. The conversion then limits the
accuracy: its error is the condition number times the rounding error, absolute and not relative to the divergence.
Wasserstein distances need no common form. For two `MatrixNormal`, every divergence and distance except `kl` and
`jeffreys` builds the root `[n m, n m]`, so n m should be small.

These rules hold for every function below:

- Divergences are non-negative, and exactly 0, with gradient exactly 0, for equal laws of one form.
- For covariances and precisions, errors grow with the condition number; for the other forms they hardly grow.
- In forms with a matrix, if the variances of two laws differ by a factor f in some directions only, gradients of `js`,
  `renyi`, `amari`, `bhattacharyya`, `chernoff` and Hellinger can lose a factor f in accuracy. Scales may differ by
  factors up to 1e18 in float32; scales of independent components may differ by any factor.
- A law that contains `nan`, or whose covariance is not positive definite, gives `nan`; in a batch, for its pair only.
  Wasserstein distances also take singular covariances: from fewer samples than dimensions, or of a point mass.
- A wrong rank or shape raises ValueError and a wrong form or dtype raises TypeError, both while tracing.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.functions import expm1, root, still_at_infinity
from jaxdiv._core.jit import jitted
from jaxdiv._gaussian import forms, independent, overlap, spectral
from jaxdiv._gaussian.affinities import amari_of, renyi_of
from jaxdiv._gaussian.excess import LOG_2PI
from jaxdiv._gaussian.forms import FORMS, SHAPES
from jaxdiv._gaussian.full import CovarianceNormal, MultivariateNormal, NaturalNormal, PrecisionNormal
from jaxdiv._gaussian.independent import Normal, NormalLogScale
from jaxdiv._gaussian.kronecker import MatrixNormal
from jaxdiv._gaussian.lowrank import LowRankNormal

Law = (
    Normal
    | NormalLogScale
    | LowRankNormal
    | MultivariateNormal
    | CovarianceNormal
    | PrecisionNormal
    | NaturalNormal
    | MatrixNormal
)

# ---------------------------------------------------------------- laws


def convert(law: Law, form: type) -> Any:
    r"""Converts a law to another form, for instance from the root $L$ to the covariance $\Sigma = L L'$.

    Args:
        law: A law of any form.
        form: The class of the new form. Every law converts to the four forms with a matrix `[d, d]`; a `MatrixNormal`
            becomes the law of its entries, row by row. Laws of independent components also convert to each other and to
            `LowRankNormal`, with r = 0 columns.

    Returns:
        A law of that form; `law` itself if it already has the form. `nan` where a scale is 0 or the covariance is not
        positive definite.

    Raises:
        TypeError: The conversion is not always possible: it would drop correlations, or would have to choose a factor.

    Example:
        >>> p = gaussian.convert(gaussian.Normal(jnp.zeros(2), 3.0), gaussian.CovarianceNormal)
        >>> print(jnp.diagonal(p.covariance))
        [9. 9.]
    """
    _inputs.known_form("gaussian.convert", form, FORMS)
    return _convert(law, form)


@functools.partial(jitted, static=("form",))
def _convert(law, form):
    who = "gaussian.convert"
    (given,), dtype = _inputs.normal_laws(who, SHAPES, law=law)
    if type(given) is form:
        return law
    _inputs.convertible(who, given, form, (x for x in FORMS if forms.converters(type(given), x) is not None))
    found = forms.converted(forms.of(given).regular(given), form)
    return jax.tree.map(lambda x: x.astype(dtype), found)


def standard(like: Law | ArrayLike) -> Any:
    r"""The standard normal law $N(0, 1)$ with as many components as `like`.

    Args:
        like: A law of any form, or an array such as a mean `[d]`. The result has its shape and dtype.

    Returns:
        A law with mean 0 and covariance 1: in the form of `like`, or a `Normal` if `like` is an array.

    Example:
        >>> p = gaussian.NormalLogScale(jnp.array([1.0, 0.0]), jnp.zeros(2))
        >>> print(f"{gaussian.kl(p, gaussian.standard(p)):.4f}")
        0.5000
    """
    who = "gaussian.standard"
    if isinstance(like, tuple(FORMS)):
        law = _inputs.law(who, "like", like, SHAPES)
        return forms.of(law).standard(law)
    mean: Any = like
    zeros = jnp.zeros_like(_inputs.array(who, "like", mean))
    return Normal(zeros, zeros + 1)


def stack(laws: Sequence[Law]) -> Any:
    r"""Stacks a list of laws into one batch $(p_1, \dots, p_n)$, for `jax.vmap` and `jaxdiv.pairwise`.

    Args:
        laws: Laws of equal dimension. If their forms differ, they are converted to the form in which they would be
            compared. Low-rank factors with fewer columns are padded with zeros.

    Returns:
        A law of one form, in the promoted dtype; its fields are stacked along a new first axis.

    Raises:
        ValueError: The laws have different dimensions.

    Example:
        >>> ps = gaussian.stack([gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)])
        >>> print(" ".join(f"{kl:.4f}" for kl in jax.vmap(gaussian.kl, (0, None))(ps, gaussian.Normal(0.0, 1.0))))
        0.0000 1.3069
    """
    who = "gaussian.stack"
    given = _inputs.stackable(who, laws, SHAPES)
    form = forms.common_form(*map(type, given))
    found = [law if type(law) is form else convert(law, form) for law in given]
    if FORMS[form].contrast:
        shapes = [_inputs.shape_of_draws(law, SHAPES) for law in given]
        shapes = [(1,)] * len(given) if set(shapes) == {(), (1,)} else shapes  # laws of one component all
        found = [
            form(*(jnp.broadcast_to(x, shape or x.shape).reshape(shape) for x in law))
            for law, shape in zip(found, shapes, strict=True)
        ]
    # Only low-rank factors may differ in shape within a form; the widest sets the shape.
    largest = max(found, key=lambda law: sum(x.size for x in law))
    found = [FORMS[form].alike(law, largest)[0] for law in found]
    _inputs.of_equal_shapes(who, found)
    dtype = _inputs.promoted(*jax.tree.leaves(found))
    return jax.tree.map(lambda *x: jnp.stack([y.astype(dtype) for y in x]), *found)


@jitted
def log_density(p: Law, x: ArrayLike) -> jax.Array:
    r"""Log-density $-\tfrac12 (x - \mu)' \Sigma^{-1} (x - \mu) - \tfrac12 \log \det (2 \pi \Sigma)$.

    Args:
        p: A law of any form.
        x: One point, in the shape of the mean: `[]`, `[d]` or `[n, m]`. For several points use `jax.vmap` over `x`.

    Returns:
        In nats, `[]`: accurate to a few ulps of the larger of its two terms. `-inf`, with gradient 0, on overflow.

    Example:
        >>> print(f"{gaussian.log_density(gaussian.Normal(1.0, 2.0), jnp.array(0.0)):.4f}")
        -1.7371

    References:
        Cover and Thomas, Elements of information theory, 2006, chapter 8.
    """
    who = "gaussian.log_density"
    given = _inputs.law(who, "p", p, SHAPES)
    (law,), _ = _inputs.normal_laws(who, SHAPES, p=given)
    x = _inputs.point(who, x, law, SHAPES)
    dtype = _inputs.promoted(x, *given)

    def formula(law, x):
        record = forms.of(law)
        regular = record.regular(law)
        y = record.standardised(regular, x.reshape(regular[0].shape))
        log_det = record.half_log_det(regular) + 0.5 * LOG_2PI * x.size
        return (-0.5 * jnp.sum(y * y) - log_det).astype(dtype)

    return still_at_infinity(formula, *_together(law, x))


def _together(law, x):
    """A law and an array in their common working precision."""
    work = _inputs.working(x, *law)
    return jax.tree.map(lambda y: y.astype(work), (law, x))


@functools.partial(jitted, static=("shape",))
def sample(p: Law, key: jax.Array, *, shape: int | tuple[int, ...] = ()) -> jax.Array:
    r"""Draws $\mu + L z$, with $z$ standard normal and $L L' = \Sigma$; gradients flow through the draws to the law.

    Args:
        p: A law of any form.
        key: A key of `jax.random`.
        shape: The shape of the array of draws, or their number; one draw by default.

    Returns:
        Independent draws, with the axes `shape` and then those of the mean: `[]`, `[d]` or `[n, m]`. `nan` where the
        covariance is not positive definite.

    Example:
        >>> x = gaussian.sample(gaussian.Normal(jnp.ones(2), 3.0), jax.random.key(0), shape=(10000,))
        >>> print(x.shape, f"{x.mean():.1f} {x.std():.1f}")
        (10000, 2) 1.0 3.0

    References:
        Kingma and Welling, Auto-encoding variational Bayes, 2014, section 2.4, for the gradients.
    """
    (law,), dtype = _inputs.normal_laws("gaussian.sample", SHAPES, p=p)
    record, event = forms.of(law), _inputs.shape_of_draws(law, SHAPES)
    regular = record.regular(law)
    shape = _inputs.shape_of_sample("gaussian.sample", shape)
    z = jax.random.normal(key, (math.prod(shape), *record.noise(regular)), regular[0].dtype)
    x = jax.vmap(functools.partial(record.moved, regular))(z)
    return x.reshape(*shape, *event).astype(dtype)


def check(p: Law, *, axis: int = -1) -> None:
    r"""Checks on the host that fields are finite, scales in $(0, \infty)$ and $\Sigma$ symmetric positive definite.

    Args:
        p: A law, or a batch of laws whose fields have equal leading axes, as in `loc` `[..., d]`. The fields of
            independent components may have any shapes that broadcast.
        axis: The axis of independent components, after the fields are broadcast together. Fields `[]` are one law.

    Raises:
        ValueError: Some laws have `nan`, an infinite entry, a matrix that is not symmetric or not positive definite, or
            a scale or diagonal that is not positive; the message names them.
        TypeError: `p` is not of a form of this module.

    Example:
        >>> gaussian.check(gaussian.Normal(jnp.zeros((2, 3)), 1.0))
    """
    law = _inputs.law("gaussian.check", "p", p, SHAPES)
    on_host, rows = _inputs.rows_of_laws("gaussian.check", law, SHAPES, axis)
    _inputs.raise_for_laws("gaussian.check", rows, forms.of(law).faults(on_host, float(jnp.finfo(law[-1].dtype).eps)))


# ---------------------------------------------------------------- how a verb runs


def _laws(verb, p, q):
    return _inputs.normal_laws(f"gaussian.{verb}", SHAPES, p=p, q=q)


def _by_form(verb, p, q, formula):
    """Applies a formula of (form's record, p, q) to a pair of laws in one form."""
    laws, dtype = _laws(verb, p, q)
    return formula(*forms.comparable(*laws)).astype(dtype)


def _by_order(verb, p, q, order, formula):
    """Applies a formula to K(s) and s at one order."""
    laws, dtype = _laws(verb, p, q)
    form, p, q = forms.comparable(*laws)
    s = _number(verb, "alpha", order, p[0].ravel())
    return formula(form.k(s, p, q), s)[0].astype(dtype)


def _by_affinity(verb, p, q, formula, **numbers):
    """Applies a function of `spectral` to the common frame of a pair and to numbers."""
    laws, dtype = _laws(verb, p, q)
    form, p, q = forms.comparable(*laws)
    frame = form.frame(p, q)
    numbers = {name: _number(verb, name, x, frame.tau) for name, x in numbers.items()}
    return formula(frame, **numbers).astype(dtype)


def _number(verb, name, x, like):
    return _inputs.number(f"gaussian.{verb}", name, x, like, like.dtype)


def _by_contrast(verb, p, q, formula):
    """Applies a formula to the contrast (the differences) of two laws of independent components."""
    laws, dtype = _laws(verb, p, q)
    known = (form for form, record in FORMS.items() if record.contrast)
    _inputs.independent_components(f"gaussian.{verb}", forms.are_independent(*laws), known, *laws)
    form, p, q = forms.comparable(*laws)
    contrast: Any = form.contrast
    return formula(contrast(p, q)).astype(dtype)


# ---------------------------------------------------------------- divergences


@functools.partial(jitted, order=lambda: 1.0)
def kl(p: Law, q: Law) -> jax.Array:
    r"""Kullback-Leibler divergence $\tfrac12 [\mathrm{tr}\, M - d - \log \det M + \delta' \Sigma_q^{-1} \delta]$.

    Here $M = \Sigma_q^{-1} \Sigma_p$ and $\delta = \mu_p - \mu_q$. Each independent component adds
    $\tfrac12 [v - 1 - \log v + z^2]$ with $v = \sigma_p^2/\sigma_q^2$ and $z = \delta / \sigma_q$.

    Args:
        p: The law the expectation is under, of any form.
        q: The other law, of any form of the same dimension `[d]`.

    Returns:
        In nats, non-negative; 0 when `p` equals `q`; `inf` on overflow. If two `MatrixNormal` differ only by a scale
        moved from rows to columns, they are the same law; the result is then at most the square of a rounding error.

    Example:
        >>> p = gaussian.Normal(jnp.zeros(2), 1.0)
        >>> q = gaussian.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{gaussian.kl(p, q):.4f} {gaussian.kl(q, p):.4f}")
        0.5493 1.4507

    References:
        Kullback, Information theory and statistics, 1959. Gupta and Nagar, Matrix variate distributions, 2000, for
        `MatrixNormal`.
    """
    laws, dtype = _laws("kl", p, q)
    return still_at_infinity(lambda p, q: forms.kl(p, q).astype(dtype), *laws)


@jitted
def jeffreys(p: Law, q: Law) -> jax.Array:
    r"""Jeffreys divergence $\mathrm{KL}(p \,\|\, q) + \mathrm{KL}(q \,\|\, p)$.

    For independent components with a difference of means $\delta$ it is
    $\sum \tfrac12 [(\sigma_p/\sigma_q - \sigma_q/\sigma_p)^2 + \delta^2/\sigma_p^2 + \delta^2/\sigma_q^2]$.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension `[d]`.

    Returns:
        In nats, non-negative and symmetric; 0 when `p` equals `q`.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.jeffreys(p, q):.4f}")
        1.7500

    References:
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946.
    """
    return _by_form("jeffreys", p, q, _jeffreys)


def _jeffreys(form, p, q):
    return still_at_infinity(form.jeffreys, p, q)


@jitted
def js(p: Law, q: Law, *, weight: ArrayLike = 0.5) -> jax.Array:
    r"""Jensen-Shannon divergence $w\,\mathrm{KL}(p \,\|\, m) + (1 - w)\,\mathrm{KL}(q \,\|\, m)$, $m$ the mixture.

    The mixture is $m = w p + (1 - w) q$. The value is accurate to machine precision in any dimension. This is the
    divergence; its square root is `js_distance`.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension `[d]`.
        weight: The weight $w \in [0, 1]$ of `p`.

    Returns:
        In nats, in $[0, H(w)]$ with $H(w) = -w \log w - (1 - w) \log (1 - w)$, so at most $\log 2$; 0 when `p` equals
        `q` and for weights 0 and 1. `nan` for a weight outside $[0, 1]$. For weights other than 1/2 the relative error
        grows as the inverse of the smaller weight $w$: it is $4 \cdot 10^{-14} / w$ in float64. Within 1e-3 of
        $\log 2$, gradients are accurate in absolute terms only.

    Example:
        >>> p, q = gaussian.Normal(jnp.zeros(3), 1.0), gaussian.Normal(jnp.ones(3), 2.0)
        >>> print(f"{gaussian.js(p, q):.4f} {gaussian.js(p, q, weight=0.9):.4f}")
        0.3192 0.1561

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991.
    """
    if _inputs.is_default(weight, 0.5):
        return _by_affinity("js", p, q, spectral.js)
    return _by_affinity("js", p, q, spectral.weighted_js, weight=weight)


@jitted
def js_distance(p: Law, q: Law) -> jax.Array:
    r"""Jensen-Shannon distance $\sqrt{\mathrm{JS}(p, q)}$, a metric.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension `[d]`.

    Returns:
        In $[0, \sqrt{\log 2}]$; exactly 0, with gradient 0, when `p` equals `q`.

    Example:
        >>> p, q = gaussian.Normal(jnp.zeros(3), 1.0), gaussian.Normal(jnp.ones(3), 2.0)
        >>> print(f"{gaussian.js_distance(p, q):.4f}")
        0.5650

    References:
        Endres and Schindelin, A new metric for probability distributions, 2003.
    """
    return _by_affinity("js_distance", p, q, lambda frame: root(spectral.js(frame)))


@jitted
def renyi(p: Law, q: Law, *, alpha: ArrayLike) -> jax.Array:
    r"""Renyi divergence $\frac{1}{\alpha - 1} \log \int p^\alpha q^{1 - \alpha}$.

    Args:
        p: The law the expectation is under, of any form.
        q: The other law, of any form of the same dimension `[d]`.
        alpha: The order, a finite number at least 0; order 1 is the KL divergence. The value is differentiable in
            `alpha`, also at 1.

    Returns:
        In nats, non-negative; 0 when `p` equals `q` and at order 0; `inf` where the integral diverges: for orders above
        1, if $\alpha \Sigma_q - (\alpha - 1) \Sigma_p$ is not positive definite; `nan` for a negative order.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.renyi(p, q, alpha=2):.4f} {gaussian.renyi(q, p, alpha=2):.4f}")
        0.5562 inf

    References:
        Renyi, On measures of entropy and information, 1961. Gil, Alajaji and Linder, Renyi divergence measures for
        commonly used univariate continuous distributions, 2013, tables 2 and 3.
    """
    return _by_order("renyi", p, q, alpha, renyi_of)


@jitted
def amari(p: Law, q: Law, *, alpha: ArrayLike) -> jax.Array:
    r"""Amari's alpha-divergence $\bigl(1 - \int p^\alpha q^{1 - \alpha}\bigr) / (\alpha (1 - \alpha))$.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension `[d]`.
        alpha: Any finite order. Order 1 is $\mathrm{KL}(p \,\|\, q)$ and order 0 is $\mathrm{KL}(q \,\|\, p)$, both as
            limits; 1/2 is four times the squared Hellinger distance; 2 is half of chi-squared. The value is
            differentiable in `alpha`.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where the integral diverges, which needs an order outside of
        $[0, 1]$; for orders inside at most $1 / (\alpha (1 - \alpha))$.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.amari(p, q, alpha=1):.4f} {gaussian.kl(p, q):.4f}")
        0.4431 0.4431

    References:
        Cichocki and Amari, Families of alpha- beta- and gamma-divergences, 2010.
    """
    return _by_order("amari", p, q, alpha, amari_of)


@jitted
def squared_hellinger(p: Law, q: Law) -> jax.Array:
    r"""Squared Hellinger distance $1 - \int \sqrt{p q}$.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension `[d]`.

    Returns:
        In $[0, 1]$; 0 when `p` equals `q`; symmetric.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.squared_hellinger(p, q):.4f}")
        0.1492

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986.
    """
    return _by_order("squared_hellinger", p, q, 0.5, _squared_hellinger)


def _squared_hellinger(k, _):
    return -expm1(-0.25 * k)


@jitted
def hellinger_distance(p: Law, q: Law) -> jax.Array:
    r"""Hellinger distance $\sqrt{1 - \int \sqrt{p q}}$, a metric.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension `[d]`.

    Returns:
        In $[0, 1]$; exactly 0, with gradient 0, when `p` equals `q`.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.hellinger_distance(p, q):.4f}")
        0.3863

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986.
    """
    return _by_order("hellinger_distance", p, q, 0.5, lambda k, s: root(_squared_hellinger(k, s)))


@jitted
def bhattacharyya(p: Law, q: Law) -> jax.Array:
    r"""Bhattacharyya divergence $-\log \int \sqrt{p q}$.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension `[d]`.

    Returns:
        In nats, non-negative and symmetric; 0 when `p` equals `q`.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.bhattacharyya(p, q):.4f}")
        0.1616

    References:
        Bhattacharyya, On a measure of divergence between two statistical populations, 1943.
    """
    return _by_order("bhattacharyya", p, q, 0.5, lambda k, _: 0.25 * k)


@jitted
def chernoff(p: Law, q: Law) -> jax.Array:
    r"""Chernoff information $\max_{0 \le s \le 1} -\log \int p^s q^{1 - s}$.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension `[d]`.

    Returns:
        In nats, non-negative and symmetric, at least the Bhattacharyya divergence; 0 when `p` equals `q`.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.chernoff(p, q):.4f}")
        0.1721

    References:
        Chernoff, A measure of asymptotic efficiency for tests of a hypothesis, 1952. Nielsen, An information-geometric
        characterization of Chernoff information, 2013.
    """
    return _by_affinity("chernoff", p, q, spectral.chernoff)


@jitted
def chi2(p: Law, q: Law) -> jax.Array:
    r"""Pearson's chi-squared divergence $\int p^2 / q - 1$.

    Args:
        p: One law, of any form.
        q: The law in the denominator, of any form of the same dimension `[d]`.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where the integral diverges ($2 \Sigma_q - \Sigma_p$ not positive
        definite), and on overflow.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.chi2(p, q):.4f} {gaussian.chi2(q, p):.4f}")
        0.7440 inf

    References:
        Nielsen and Nock, On the chi square and higher-order chi distances for approximating f-divergences, 2014.
    """
    return _by_order("chi2", p, q, 2.0, lambda k, s: 2 * amari_of(k, s))


@jitted
def geometric_js(p: Law, q: Law, *, weight: ArrayLike = 0.5) -> jax.Array:
    r"""Geometric Jensen-Shannon $w\,\mathrm{KL}(p \,\|\, g) + (1 - w)\,\mathrm{KL}(q \,\|\, g)$, $g$ the mean.

    The geometric mean $g \propto p^w q^{1 - w}$ is a normal law. The result is unbounded. It is neither a bound nor an
    approximation of the Jensen-Shannon divergence.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension `[d]`.
        weight: The weight $w \in [0, 1]$ of `p`.

    Returns:
        In nats, non-negative; 0 when `p` equals `q` and for weights 0 and 1; `nan` for a weight outside $[0, 1]$.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.geometric_js(p, q):.4f}")
        0.2759

    References:
        Nielsen, On the Jensen-Shannon symmetrization of distances relying on abstract means, 2019, corollary 1, with
        weight 1 - alpha.
    """

    def formula(form, p, q):
        number = _number("geometric_js", "weight", weight, p[0].ravel())
        return spectral.geometric_js(form.frame(p, q), _jeffreys(form, p, q), number)

    return _by_form("geometric_js", p, q, formula)


@jitted
def squared_wasserstein2(p: Law, q: Law) -> jax.Array:
    r"""Squared Wasserstein-2 distance $|\delta|^2 + \mathrm{tr}(\Sigma_p + \Sigma_q - 2 (\Sigma_p \Sigma_q)^{1/2})$.

    Here $\delta = \mu_p - \mu_q$. For independent components it is $\sum \delta^2 + (\sigma_p - \sigma_q)^2$.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension `[d]`.

    Returns:
        Non-negative, in squared units of the mean; 0 when `p` equals `q`. Finite also for singular covariances; the
        gradient is 0 in directions without variance. `nan` for a covariance with a negative eigenvalue.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.squared_wasserstein2(p, q):.4f}")
        2.0000
        >>> x = jnp.array([[1.0, 2.0, 0.0], [0.0, -2.0, 1.0]])  # two samples in three dimensions
        >>> p = gaussian.CovarianceNormal(jnp.mean(x, 0), jnp.cov(x.T))
        >>> print(f"{gaussian.squared_wasserstein2(p, gaussian.standard(p)):.4f}")
        6.5000

    References:
        Gelbrich, On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces, 1990.
    """
    laws, dtype = _laws("squared_wasserstein2", p, q)
    return forms.squared_wasserstein2(*laws).astype(dtype)


@jitted
def wasserstein2_distance(p: Law, q: Law) -> jax.Array:
    r"""Wasserstein-2 distance $\min \sqrt{\mathrm{E} |x - y|^2}$ over couplings of $x \sim p$ and $y \sim q$, a metric.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension `[d]`.

    Returns:
        Non-negative, in units of the mean; exactly 0, with gradient 0, when `p` equals `q`.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.wasserstein2_distance(p, q):.4f}")
        1.4142

    References:
        Gelbrich, On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces, 1990.
    """
    laws, dtype = _laws("wasserstein2_distance", p, q)
    return forms.wasserstein2_distance(*laws).astype(dtype)


@jitted
def fisher_rao_distance(p: Law, q: Law) -> jax.Array:
    r"""Fisher-Rao distance, the geodesic length of the Fisher metric $\sum (d\mu^2 + 2\, d\sigma^2) / \sigma^2$.

    One component has length $2 \sqrt2\, \mathrm{arcsinh} \sqrt{(\delta^2/2 + (\sigma_p - \sigma_q)^2) / (4 \sigma_p
    \sigma_q)}$ with $\delta = \mu_p - \mu_q$; the squares of independent components add.

    Args:
        p: One law of independent components, fields `[]` or `[d]`.
        q: The other law, of independent components.

    Returns:
        Non-negative; exactly 0, with gradient 0, when `p` equals `q`.

    Raises:
        TypeError: A law has a form with correlations; the distance then has no closed form.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.fisher_rao_distance(p, q):.4f}")
        1.1894

    References:
        Atkinson and Mitchell, Rao's distance measure, 1981. Costa, Santos and Strapasson, Fisher information distance,
        2015.
    """
    return _by_contrast("fisher_rao_distance", p, q, independent.fisher_rao_distance)


@jitted
def total_variation(p: Law, q: Law) -> jax.Array:
    r"""Total variation $\tfrac12 \int |p - q|$ of two laws of one component.

    Args:
        p: One law `Normal` or `NormalLogScale`, with fields `[]`.
        q: The other law, with fields `[]`.

    Returns:
        Symmetric and in $[0, 1]$; 0, with gradient 0, when `p` equals `q`.

    Raises:
        ValueError: The laws have more than one component; total variation then has no closed form.
        TypeError: A law has a form with a matrix.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.total_variation(p, q):.4f}")
        0.3901

    References:
        Tsybakov, Introduction to nonparametric estimation, 2009. Devroye, Mehrabian and Reddad, The total variation
        distance between high-dimensional Gaussians, 2018.
    """

    def formula(contrast):
        _inputs.one_component("gaussian.total_variation", contrast.delta)
        return overlap.total_variation(contrast)[0]

    return _by_contrast("total_variation", p, q, formula)


@jitted
def entropy(p: Law) -> jax.Array:
    r"""Differential entropy $\tfrac12 \log \det (2 \pi e\, \Sigma)$.

    Args:
        p: The law, of any form, of dimension `[d]`.

    Returns:
        In nats, of either sign: 0 for one component with variance $1 / (2 \pi e)$.

    Example:
        >>> print(f"{gaussian.entropy(gaussian.Normal(0.0, 1.0)):.4f}")
        1.4189

    References:
        Cover and Thomas, Elements of information theory, 2006.
    """
    (law,), dtype = _inputs.normal_laws("gaussian.entropy", SHAPES, p=p)
    return forms.entropy(forms.of(law).regular(law)).astype(dtype)


@jitted
def cross_entropy(p: Law, q: Law) -> jax.Array:
    r"""Cross-entropy $-\mathrm{E}_p \log q$, the sum of the entropy of $p$ and $\mathrm{KL}(p \,\|\, q)$.

    Args:
        p: The law the expectation is under, of any form.
        q: The law whose log-density is averaged, of any form of the same dimension `[d]`.

    Returns:
        In nats, of either sign; at least the entropy of `p`, and equal to it where the divergence is 0.

    Example:
        >>> p, q = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
        >>> print(f"{gaussian.cross_entropy(p, q):.4f}")
        1.8621

    References:
        Cover and Thomas, Elements of information theory, 2006.
    """
    return _by_form("cross_entropy", p, q, _cross_entropy)


def _cross_entropy(form, p, q):
    return still_at_infinity(lambda p, q: forms.entropy(p) + form.kl(p, q), p, q)

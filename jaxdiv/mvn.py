r"""Divergences between two multivariate normal laws of dimension d, in whichever form they come.

`MultivariateNormal(loc, scale_tril)` has the lower triangular root of its covariance, with positive diagonal; what is
above the diagonal is ignored and gets no gradient. `CovarianceNormal(loc, covariance)`, `PrecisionNormal(loc,
precision)` and `NaturalNormal(natural_loc, precision)`, whose `natural_loc` is precision times mean, have symmetric
matrices, of which the symmetric part is taken. `LowRankNormal(loc, factor, diag)` has covariance factor factor' +
diag(diag), factor `[d, r]`; with r = 0 its components are independent.

Two laws of one form are compared by that form's own formula, which is accurate near equality. For low-rank laws that
means factors that are near each other, not factors that agree up to a rotation. Laws of two forms are both turned into
lower triangular roots first, at the accuracy of their condition number times the rounding error: absolute, not relative
to the divergence. One pair of laws to a call: batch with `jax.vmap`. Results are `[]`, in nats where they are
divergences, of the promoted dtype.

What holds throughout, and is not repeated below:

- Divergences are non-negative and exactly 0, with gradient exactly 0, at equal laws of one form.
- Errors grow as the condition number for covariances and precisions, and hardly with roots and low-rank laws.
- Where the variances of two laws differ by a factor f in some directions and not in others, gradients of the
  divergences by affinity (`js`, `renyi`, `amari`, `bhattacharyya`, `chernoff`, Hellinger) lose up to f in accuracy.
- A law with `nan`, or whose covariance is not positive definite, makes the value `nan`; in a batch, in that pair only.
- A wrong rank or shape raises ValueError, a wrong form or dtype TypeError, while tracing.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core import tuning
from jaxdiv._core.blocks import in_row_blocks
from jaxdiv._core.functions import root, with_tangents
from jaxdiv._core.jit import jitted
from jaxdiv._gaussian import frames, lowrank, spectral
from jaxdiv._gaussian.bures import difference_of_roots, squared_bures
from jaxdiv._gaussian.excess import LOG_2PI, log_excess
from jaxdiv._gaussian.linalg import (
    cholesky,
    columns,
    lower_root,
    mahalanobis,
    relative_excess,
    solve_lower,
    solve_upper,
    symmetric,
)


class MultivariateNormal(NamedTuple):
    """A normal law by its mean `[d]` and the lower triangular root of its covariance `[d, d]`."""

    loc: ArrayLike
    scale_tril: ArrayLike


class CovarianceNormal(NamedTuple):
    """A normal law by its mean `[d]` and covariance `[d, d]`."""

    loc: ArrayLike
    covariance: ArrayLike


class PrecisionNormal(NamedTuple):
    """A normal law by its mean `[d]` and the inverse of its covariance `[d, d]`."""

    loc: ArrayLike
    precision: ArrayLike


class NaturalNormal(NamedTuple):
    """A normal law by its natural parameters: the precision times the mean `[d]`, and the precision `[d, d]`."""

    natural_loc: ArrayLike
    precision: ArrayLike


class LowRankNormal(NamedTuple):
    """A normal law by its mean `[d]` and covariance factor factor' + diag(diag), of `[d, r]` and positive `[d]`."""

    loc: ArrayLike
    factor: ArrayLike
    diag: ArrayLike


Law = MultivariateNormal | CovarianceNormal | PrecisionNormal | NaturalNormal | LowRankNormal
_FORMS = (MultivariateNormal, CovarianceNormal, PrecisionNormal, NaturalNormal, LowRankNormal)
_BY_PRECISION = (PrecisionNormal, NaturalNormal)


def _is(law: Any, *forms: type) -> bool:
    return isinstance(law, forms)


def _laws(verb: str, **laws: Law) -> tuple[Any, jnp.dtype]:
    """Laws in the working precision, lower triangular or symmetric where they should be, and the dtype of a result."""
    found, dtype = _inputs.matrix_laws(f"mvn.{verb}", _FORMS, **laws)
    return [_regular(law) for law in found.values()], dtype


def _regular(law: Any) -> Any:
    if _is(law, MultivariateNormal):
        return law._replace(scale_tril=lower_root(law.scale_tril))
    if _is(law, CovarianceNormal):
        return law._replace(covariance=symmetric(law.covariance))
    if _is(law, *_BY_PRECISION):
        return law._replace(precision=symmetric(law.precision))
    return law._replace(diag=jnp.where(law.diag > 0, law.diag, jnp.nan))


def _alike(p, q):
    """Two laws of one form, by their roots where they are of two."""
    if type(p) is not type(q):
        return _with_root(p), _with_root(q)
    if _is(p, LowRankNormal):
        return lowrank.same_rank(p, q)
    return p, q


def _with_root(law: Any) -> Any:
    if _is(law, MultivariateNormal):
        return law
    if _is(law, NaturalNormal):
        mean = _solve(law.precision, law.natural_loc)
        return _with_root(PrecisionNormal(mean, law.precision))
    if _is(law, PrecisionNormal):
        # With the axes in reverse, the root of the precision is upper triangular: its inverse transposed is lower.
        flipped = cholesky(law.precision[::-1, ::-1])
        inverse = solve_lower(flipped, jnp.eye(flipped.shape[0], dtype=flipped.dtype))
        return MultivariateNormal(law.loc, jnp.tril(inverse[::-1, ::-1].T))
    if _is(law, LowRankNormal):
        return MultivariateNormal(law.loc, cholesky(jnp.diag(law.diag) + law.factor @ law.factor.T))
    return MultivariateNormal(law.loc, cholesky(law.covariance))


def _solve(m, b):
    """The solution `[d]` of m x = b for a positive definite matrix."""
    lower = cholesky(m)
    return solve_upper(lower, solve_lower(lower, b[:, None]))[:, 0]


def _difference_of_means(p, q):
    """For two laws of one form."""
    if not _is(p, NaturalNormal):
        return p.loc - q.loc
    # The means cancel near equality: here the differences are those of the parameters. Their derivatives do not.
    means = _solve(p.precision, p.natural_loc), _solve(q.precision, q.natural_loc)
    change = (p.natural_loc - q.natural_loc) - (p.precision - q.precision) @ means[1]
    return with_tangents(_solve(p.precision, change), means[0] - means[1])


def _from_laws(formula, p, q):
    """A formula of this module, `_verb`, on two laws of one form."""
    (p, q), dtype = _laws(formula.__name__[1:], p=p, q=q)
    return formula(*_alike(p, q)).astype(dtype)


def _pair(p: Any, q: Any) -> spectral.Frame:
    delta = _difference_of_means(p, q)
    if _is(p, CovarianceNormal):
        return frames.of_covariances(p.covariance, q.covariance, delta)
    if _is(p, *_BY_PRECISION):
        return frames.of_precisions(p.precision, q.precision, delta)
    if _is(p, LowRankNormal):
        logs = jnp.stack([lowrank.half_log_det(p), lowrank.half_log_det(q)])
        return frames.of_factors(*lowrank.factors(p, q), delta, logs)
    logs = jnp.stack([jnp.sum(jnp.log(jnp.diagonal(law.scale_tril))) for law in (p, q)])
    return frames.of_factors(p.scale_tril, q.scale_tril, p.scale_tril - q.scale_tril, delta, logs)


def _from_pair(verb, p, q, **parameters):
    """A verb of `_spectral`, called on the reduced pair."""
    who = verb.__name__
    (p, q), dtype = _laws(who, p=p, q=q)
    numbers = {name: _number(who, name, x, p) for name, x in parameters.items()}
    return verb(_pair(*_alike(p, q)), **numbers).astype(dtype)


def _number(verb, name, x, like):
    return _inputs.number(f"mvn.{verb}", name, x, like[0], like[0].dtype)


@jitted
def kl(p: Law, q: Law) -> jax.Array:
    r"""Kullback-Leibler divergence $\tfrac12 [\mathrm{tr}\, M - d - \log \det M + \delta' \Sigma_q^{-1} \delta]$.

    Here $M = \Sigma_q^{-1} \Sigma_p$ and $\delta = \mu_p - \mu_q$.

    Args:
        p: The law the expectation is under, of any form.
        q: The other law, of any form of the same dimension.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` above the largest float.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.kl(p, q):.4f} {mvn.kl(q, p):.4f}")
        0.5493 1.4507

    References:
        Kullback, Information theory and statistics, 1959, chapter 9, equation 1.2.
    """
    laws, dtype = _inputs.matrix_laws("mvn.kl", _FORMS, p=p, q=q)
    value = _kl(*_alike(*map(_regular, laws.values())))
    if all(_is(law, MultivariateNormal) and len(law.loc) <= tuning.SMALL for law in laws.values()):
        value = with_tangents(_rows_kl(**laws), value)
    return value.astype(dtype)


def _kl(p: Any, q: Any) -> jax.Array:
    delta = _difference_of_means(p, q)
    if _is(p, LowRankNormal):
        return lowrank.kl(p, q)
    if _is(p, CovarianceNormal):
        return 0.5 * (relative_excess(p.covariance, q.covariance) + mahalanobis(delta, q.covariance))
    if _is(p, *_BY_PRECISION):
        return _kl_from_precisions(p.precision, q.precision, delta)
    # With E = Lq^-1 (Lp - Lq): Lq^-1 Lp = 1 + E, and first-order terms cancel before anything is computed.
    moved = solve_lower(q.scale_tril, columns(p.scale_tril - q.scale_tril, delta))
    e, y = jnp.tril(moved[:, :-1]), moved[:, -1]
    excess = log_excess(jnp.diagonal(p.scale_tril), jnp.diagonal(q.scale_tril))
    return 0.5 * (jnp.sum(e * e) + jnp.sum(y * y)) + jnp.sum(excess)


def _rows_kl(p, q):
    """The value alone, number by number: a batch runs in blocks that fit the cache, each number a vector."""

    def kl(_, loc_p, p, loc_q, q):
        d = loc_p.shape[-1]
        loc_p, p, loc_q, q = (jnp.moveaxis(x, -1, 0) for x in (loc_p, p, loc_q, q))
        e: dict[tuple[int, int], jax.Array] = {}
        total = jnp.zeros_like(loc_p[0])
        for i in range(d):
            for j in range(i + 2):  # the columns of E up to the diagonal, and the difference of the means
                column = d if j > i else j
                rest = loc_p[i] - loc_q[i] if column == d else p[i * d + j] - q[i * d + j]
                for k in range(0 if column == d else j, i):
                    rest = rest - q[i * d + k] * e[k, column]
                e[i, column] = rest / q[i * d + i]
                total += 0.5 * e[i, column] ** 2
            a, b = (jnp.where(x[i * d + i] > 0, x[i * d + i], jnp.nan) for x in (p, q))
            total += log_excess(a, b)
        return total[..., None]

    flat = (x for law in (p, q) for x in (law.loc, law.scale_tril.ravel()))
    return in_row_blocks(kl, *map(lax.stop_gradient, flat))[0]


def _kl_from_precisions(p, q, delta):
    y = cholesky(q).T @ delta
    return 0.5 * (relative_excess(q, p) + with_tangents(jnp.sum(y * y), jnp.sum(delta * (q @ delta))))


@jitted
def jeffreys(p: Law, q: Law) -> jax.Array:
    r"""Jeffreys divergence $\mathrm{KL}(p \,\|\, q) + \mathrm{KL}(q \,\|\, p)$.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.jeffreys(p, q):.4f}")
        2.0000

    References:
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946, equation 1.
    """
    return _from_laws(_jeffreys, p, q)


def _jeffreys(p, q):
    return _kl(p, q) + _kl(q, p)


@jitted
def js(p: Law, q: Law, *, weight: ArrayLike = 0.5) -> jax.Array:
    r"""Jensen-Shannon divergence $w\,\mathrm{KL}(p \,\|\, m) + (1 - w)\,\mathrm{KL}(q \,\|\, m)$, $m$ the mixture.

    With $m = w p + (1 - w) q$, to machine precision in any dimension. The divergence, not its square root: that is
    `js_distance`.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension.
        weight: The weight $w \in [0, 1]$ of `p`.

    Returns:
        In $[0, H(w)]$ with $H(w) = -w \log w - (1 - w) \log (1 - w)$, so at most $\log 2$; 0 when `p` equals `q` and
        for weights 0 and 1. `nan` for a weight outside $[0, 1]$. With other weights than 1/2 the relative error grows
        as the inverse of the smaller weight: 4e-14 over it in float64. Where $\log 2$ is approached within 1e-3
        gradients are accurate absolutely, not relatively.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.js(p, q):.4f} {mvn.js(p, q, weight=0.9):.4f}")
        0.1546 0.0773

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991, equation 4.1.
    """
    if _inputs.is_default(weight, 0.5):
        return _from_pair(spectral.js, p, q)
    (p, q), dtype = _laws("js", p=p, q=q)
    return spectral.weighted_js(_pair(*_alike(p, q)), _number("js", "weight", weight, p)).astype(dtype)


@jitted
def js_distance(p: Law, q: Law) -> jax.Array:
    r"""Jensen-Shannon distance $\sqrt{\mathrm{JS}(p, q)}$, a metric.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension.

    Returns:
        In $[0, \sqrt{\log 2}]$; exactly 0 when `p` equals `q`, where the gradient is 0.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.js_distance(p, q):.4f}")
        0.3932

    References:
        Endres and Schindelin, A new metric for probability distributions, 2003, theorem 1.
    """
    return _from_laws(_js_distance, p, q)


def _js_distance(p, q):
    return root(spectral.js(_pair(p, q)))


@jitted
def renyi(p: Law, q: Law, *, alpha: ArrayLike) -> jax.Array:
    r"""Renyi divergence $\frac{1}{\alpha - 1} \log \int p^\alpha q^{1 - \alpha}$.

    Args:
        p: The law the expectation is under, of any form.
        q: The other law, of any form of the same dimension.
        alpha: The order, a finite number at least 0: 1 is the KL divergence. Differentiable in it, at 1 too.

    Returns:
        Non-negative; 0 when `p` equals `q` and at order 0; `inf` where the integral diverges, which needs an order
        above 1 and $\alpha \Sigma_q - (\alpha - 1) \Sigma_p$ not positive definite. `nan` for a negative order.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.renyi(p, q, alpha=2):.4f} {mvn.renyi(q, p, alpha=2):.4f}")
        0.6939 inf

    References:
        Renyi, On measures of entropy and information, 1961, equation 3.3. Gil, Alajaji and Linder, Renyi divergence
        measures for commonly used univariate continuous distributions, 2013, table 3.
    """
    return _from_pair(spectral.renyi, p, q, alpha=alpha)


@jitted
def amari(p: Law, q: Law, *, alpha: ArrayLike) -> jax.Array:
    r"""Amari's alpha-divergence $\bigl(1 - \int p^\alpha q^{1 - \alpha}\bigr) / (\alpha (1 - \alpha))$.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension.
        alpha: Any finite order: the limit 1 is $\mathrm{KL}(p \,\|\, q)$, 0 is $\mathrm{KL}(q \,\|\, p)$, 1/2 is four
            times the squared Hellinger distance, 2 is half of chi-squared. Differentiable in it.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where the integral diverges, outside of $[0, 1]$ only; at most
        $1 / (\alpha (1 - \alpha))$ inside.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.amari(p, q, alpha=1):.4f} {mvn.kl(p, q):.4f}")
        0.5493 0.5493

    References:
        Cichocki and Amari, Families of alpha- beta- and gamma-divergences, 2010, equation 29.
    """
    return _from_pair(spectral.amari, p, q, alpha=alpha)


@jitted
def squared_hellinger(p: Law, q: Law) -> jax.Array:
    r"""Squared Hellinger distance $1 - \int \sqrt{p q}$.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension.

    Returns:
        In $[0, 1]$; 0 when `p` equals `q`; symmetric.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.squared_hellinger(p, q):.4f}")
        0.1787

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986, chapter 4.
    """
    return _from_pair(spectral.squared_hellinger, p, q)


@jitted
def hellinger_distance(p: Law, q: Law) -> jax.Array:
    r"""Hellinger distance $\sqrt{1 - \int \sqrt{p q}}$, a metric.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension.

    Returns:
        In $[0, 1]$; exactly 0 when `p` equals `q`, where the gradient is 0.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.hellinger_distance(p, q):.4f}")
        0.4228

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986, chapter 4.
    """
    return _from_laws(_hellinger_distance, p, q)


def _hellinger_distance(p, q):
    return root(spectral.squared_hellinger(_pair(p, q)))


@jitted
def bhattacharyya(p: Law, q: Law) -> jax.Array:
    r"""Bhattacharyya divergence $-\log \int \sqrt{p q}$.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.bhattacharyya(p, q):.4f}")
        0.1969

    References:
        Bhattacharyya, On a measure of divergence between two statistical populations, 1943.
    """
    return _from_pair(spectral.bhattacharyya, p, q)


@jitted
def chernoff(p: Law, q: Law) -> jax.Array:
    r"""Chernoff information $\max_{0 \le s \le 1} -\log \int p^s q^{1 - s}$.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension.

    Returns:
        Non-negative and symmetric, at least the Bhattacharyya divergence; 0 when `p` equals `q`.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.chernoff(p, q):.4f}")
        0.2078

    References:
        Chernoff, A measure of asymptotic efficiency for tests of a hypothesis, 1952, theorem 1. Nielsen, An
        information-geometric characterization of Chernoff information, 2013.
    """
    return _from_pair(spectral.chernoff, p, q)


@jitted
def chi2(p: Law, q: Law) -> jax.Array:
    r"""Pearson's chi-squared divergence $\int p^2 / q - 1$.

    Args:
        p: One law, of any form.
        q: The law in the denominator, of any form of the same dimension.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where the integral diverges, which is where $2 \Sigma_q - \Sigma_p$
        is not positive definite, and above the largest float.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.chi2(p, q):.4f} {mvn.chi2(q, p):.4f}")
        1.0015 inf

    References:
        Nielsen and Nock, On the chi square and higher-order chi distances for approximating f-divergences, 2014.
    """
    return _from_pair(spectral.chi2, p, q)


@jitted
def geometric_js(p: Law, q: Law, *, weight: ArrayLike = 0.5) -> jax.Array:
    r"""Geometric Jensen-Shannon $w\,\mathrm{KL}(p \,\|\, g) + (1 - w)\,\mathrm{KL}(q \,\|\, g)$, $g$ the mean.

    With the geometric mean $g \propto p^w q^{1 - w}$, a normal law. Neither bound nor approximation of the
    Jensen-Shannon divergence, and unbounded.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension.
        weight: The weight $w \in [0, 1]$ of `p`.

    Returns:
        Non-negative; 0 when `p` equals `q` and for weights 0 and 1; `nan` for a weight outside $[0, 1]$.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.geometric_js(p, q):.4f}")
        0.3031

    References:
        Nielsen, On the Jensen-Shannon symmetrization of distances relying on abstract means, 2019, corollary 1, with
        weight 1 - alpha.
    """
    (p, q), dtype = _laws("geometric_js", p=p, q=q)
    p, q = _alike(p, q)
    number = _number("geometric_js", "weight", weight, p)
    return spectral.geometric_js(_pair(p, q), _jeffreys(p, q), number).astype(dtype)


@jitted
def squared_wasserstein2(p: Law, q: Law) -> jax.Array:
    r"""Squared Wasserstein-2 distance $|\delta|^2 + \mathrm{tr}(\Sigma_p + \Sigma_q - 2 (\Sigma_p \Sigma_q)^{1/2})$.

    With $\delta = \mu_p - \mu_q$.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension.

    Returns:
        Non-negative, in squared units of `loc`; 0 when `p` equals `q`.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.squared_wasserstein2(p, q):.4f}")
        2.5359

    References:
        Gelbrich, On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces, 1990.
    """
    return _from_laws(_squared_wasserstein2, p, q)


def _squared_wasserstein2(p, q):
    a, b = _with_root(p).scale_tril, _with_root(q).scale_tril
    if _is(p, MultivariateNormal):
        difference = a - b
    elif _is(p, CovarianceNormal):
        difference = difference_of_roots(a, b, p.covariance - q.covariance)
    elif _is(p, LowRankNormal):
        factors = symmetric((p.factor - q.factor) @ (p.factor + q.factor).T)
        difference = difference_of_roots(a, b, factors + jnp.diag(p.diag - q.diag))
    else:
        difference = difference_of_roots(a, b, symmetric(a @ (a.T @ (q.precision - p.precision) @ b) @ b.T))
    return jnp.sum(_difference_of_means(p, q) ** 2) + squared_bures(a, b, difference)


@jitted
def wasserstein2_distance(p: Law, q: Law) -> jax.Array:
    r"""Wasserstein-2 distance $\min \sqrt{\mathrm{E} |x - y|^2}$ over couplings of $x \sim p$ and $y \sim q$, a metric.

    Args:
        p: One law, of any form.
        q: The other law, of any form of the same dimension.

    Returns:
        Non-negative, in units of `loc`; exactly 0 when `p` equals `q`, where the gradient is 0.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.wasserstein2_distance(p, q):.4f}")
        1.5925

    References:
        Gelbrich, On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces, 1990.
    """
    return _from_laws(_wasserstein2_distance, p, q)


def _wasserstein2_distance(p, q):
    return root(_squared_wasserstein2(p, q))


@jitted
def entropy(p: Law) -> jax.Array:
    r"""Differential entropy $\tfrac12 \log \det (2 \pi e\, \Sigma)$.

    Args:
        p: The law, of any form, of dimension `[d]`.

    Returns:
        In nats, of either sign: 0 where $\Sigma$ is $1 / (2 \pi e)$.

    Example:
        >>> print(f"{mvn.entropy(mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))):.4f}")
        2.8379

    References:
        Cover and Thomas, Elements of information theory, 2006, theorem 8.4.1.
    """
    (law,), dtype = _laws("entropy", p=p)
    return _entropy(law).astype(dtype)


def _entropy(p):
    # A `nan` mean is `nan` here as everywhere.
    constant = 0.5 * (1 + LOG_2PI) * p[0].shape[0] + 0 * jnp.sum(p[0])
    if _is(p, LowRankNormal):
        return constant + lowrank.half_log_det(p)
    if _is(p, *_BY_PRECISION):
        return constant - jnp.sum(jnp.log(jnp.diagonal(cholesky(p.precision))))
    return constant + jnp.sum(jnp.log(jnp.diagonal(_with_root(p).scale_tril)))


@jitted
def cross_entropy(p: Law, q: Law) -> jax.Array:
    r"""Cross-entropy $-\mathrm{E}_p \log q$, the entropy of $p$ and $\mathrm{KL}(p \,\|\, q)$ together.

    Args:
        p: The law the expectation is under, of any form.
        q: The law that is scored, of any form of the same dimension.

    Returns:
        In nats, of either sign; at least the entropy of `p`.

    Example:
        >>> p = mvn.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
        >>> q = mvn.CovarianceNormal(jnp.ones(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(f"{mvn.cross_entropy(p, q):.4f}")
        3.3872

    References:
        Cover and Thomas, Elements of information theory, 2006, theorem 8.6.1.
    """
    return _from_laws(_cross_entropy, p, q)


def _cross_entropy(p, q):
    return _entropy(p) + _kl(p, q)


def check(p: Law) -> None:
    r"""Raises unless $\Sigma$ is symmetric and positive definite; for data on its way in, on the host.

    Args:
        p: A law or a batch of laws, with equal leading axes on every field, as `loc` `[..., d]`.

    Raises:
        ValueError: Some laws have `nan`, an infinite entry, a matrix that is not symmetric or not positive definite, or
            a root or diagonal that is not positive; the message names them.
        TypeError: `p` is of no form of this module.

    Example:
        >>> mvn.check(mvn.CovarianceNormal(jnp.zeros((5, 2)), jnp.stack([jnp.eye(2)] * 5)))
    """
    law: Any = _inputs.law("mvn.check", "p", p, _FORMS)
    precision = float(jnp.finfo(law[-1].dtype).eps)
    fields = [np.asarray(x, np.float64) for x in law]
    batch = fields[0].shape[:-1]
    rows = np.concatenate([x.reshape(*batch, -1) for x in fields], -1)
    last, d = fields[-1], fields[0].shape[-1]
    faults: dict[str, Any] = {"nan": lambda x: np.isnan(x).any(-1), "an infinite entry": lambda x: np.isinf(x).any(-1)}
    if _is(law, CovarianceNormal, *_BY_PRECISION):
        size = np.abs(last).max((-2, -1))
        skew = np.abs(last - np.swapaxes(last, -1, -2)).max((-2, -1))
        finite = np.where(np.isfinite(last).all((-2, -1), keepdims=True), last, np.eye(d))
        lowest = np.linalg.eigvalsh(0.5 * (finite + np.swapaxes(finite, -1, -2)))[..., 0]
        faults["a matrix that is not symmetric"] = lambda _: skew > 16 * precision * size
        faults["a matrix that is not positive definite"] = lambda _: lowest <= 0
    else:
        diagonal = np.diagonal(last, axis1=-2, axis2=-1) if _is(law, MultivariateNormal) else last
        faults["a diagonal that is not positive"] = lambda _: (diagonal <= 0).any(-1)
    _inputs.raise_for_rows("mvn.check", rows, faults)

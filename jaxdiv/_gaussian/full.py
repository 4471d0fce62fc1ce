"""Normal laws given by a matrix `[d, d]`: the root of the covariance, the covariance, or its inverse.

Differences are taken of the given matrices. Differences of their Cholesky factors would lose digits near equality.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxdiv._core import tuning
from jaxdiv._core.blocks import in_row_blocks
from jaxdiv._core.functions import with_tangents
from jaxdiv._core.rules import with_axes
from jaxdiv._gaussian import frames, spectral
from jaxdiv._gaussian.bures import difference_of_roots, factor, factor_of_inverse, squared_bures
from jaxdiv._gaussian.excess import log_excess
from jaxdiv._gaussian.form import Form, as_they_are, both_ways, one_to_an_entry
from jaxdiv._gaussian.linalg import (
    cholesky,
    columns,
    diagonal,
    half_log_det_of_root,
    identities_like,
    lower_factor,
    lower_root,
    mahalanobis,
    product,
    relative_excess,
    root_of_inverse,
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


def _loc(law):
    return law.loc


def _standard(law):
    return type(law)(jnp.zeros_like(law[0]), identities_like(law[1]))


def _symmetric(law):
    return type(law)(law[0], symmetric(law[1]))


def _solve(m, b):
    """The solution `[d]` of m x = b for a positive definite matrix."""
    lower = cholesky(m)
    return solve_upper(lower, solve_lower(lower, b[:, None]))[:, 0]


# ---------------------------------------------------------------- roots


def _inverse(lower):
    return solve_lower(lower, jnp.eye(lower.shape[0], dtype=lower.dtype))


def _precision_of_root(law):
    inverse = _inverse(law.scale_tril)
    return PrecisionNormal(law.loc, product(inverse.T, inverse))


def _natural_of_root(law):
    standardised = solve_lower(law.scale_tril, law.loc[:, None])
    return NaturalNormal(solve_upper(law.scale_tril, standardised)[:, 0], _precision_of_root(law).precision)


def _kl_of_roots(p, q):
    # With E = Lq^-1 (Lp - Lq), Lq^-1 Lp = 1 + E, and first-order terms cancel in the formula, not in the computation.
    moved = solve_lower(q.scale_tril, columns(p.scale_tril - q.scale_tril, p.loc - q.loc))
    e, y = jnp.tril(moved[:, :-1]), moved[:, -1]
    excess = log_excess(diagonal(p.scale_tril), diagonal(q.scale_tril))
    return 0.5 * (jnp.sum(e * e) + jnp.sum(y * y)) + jnp.sum(excess)


def _kl_of_rows(p, q, value):
    """KL written out number by number: a batch runs in blocks that fit the cache, with each number a vector."""

    def of_batch(value, *fields):
        if isinstance(value.size, int) and value.size < tuning.FEW:
            return value
        return in_row_blocks(kl, *fields)[..., 0]

    def kl(_, loc_p, p, loc_q, q):
        d = loc_p.shape[-1]
        loc_p, p, loc_q, q = (jnp.moveaxis(x, -1, 0) for x in (loc_p, p, loc_q, q))
        e: dict[tuple[int, int], jnp.ndarray] = {}
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
    return with_axes(of_batch, value, *map(lax.stop_gradient, flat))


def _frame_of_roots(p, q):
    logs = jnp.stack([half_log_det_of_root(law.scale_tril) for law in (p, q)])
    return frames.of_factors(p.scale_tril, q.scale_tril, p.scale_tril - q.scale_tril, p.loc - q.loc, logs)


def _squared_wasserstein2_of_roots(p, q):
    difference = squared_bures(p.scale_tril, q.scale_tril, p.scale_tril - q.scale_tril)
    return jnp.sum((p.loc - q.loc) ** 2) + difference


def _moved_by_root(law: Any, z: Any) -> Any:
    return law.loc + product(law.scale_tril, z)


def _standardised_by_root(law: Any, x: Any) -> Any:
    return solve_lower(law.scale_tril, (x - law.loc)[:, None])[:, 0]


# ---------------------------------------------------------------- covariances


def _root_of_covariance(law):
    return MultivariateNormal(law.loc, cholesky(law.covariance))


def _kl_of_covariances(p, q):
    excess = relative_excess(p.covariance, q.covariance)
    return 0.5 * (excess + mahalanobis(p.loc - q.loc, q.covariance))


def _frame_of_covariances(p, q):
    return frames.of_covariances(p.covariance, q.covariance, p.loc - q.loc)


def _squared_wasserstein2_of_covariances(p, q):
    a, b = factor(p.covariance), factor(q.covariance)
    difference = difference_of_roots(a, b, p.covariance - q.covariance)
    return jnp.sum((p.loc - q.loc) ** 2) + squared_bures(a, b, difference)


# ---------------------------------------------------------------- precisions, with means or without


def _root_of_precision(law: Any) -> Any:
    return MultivariateNormal(law.loc, root_of_inverse(law.precision))


def _with_mean(law: Any) -> Any:
    return PrecisionNormal(_solve(law.precision, law.natural_loc), law.precision)


def _mean_of_natural(law: Any) -> Any:
    return _with_mean(law).loc


def _without_mean(law):
    return NaturalNormal(product(law.precision, law.loc), law.precision)


def _difference_of_means(p, q):
    return p.loc - q.loc


def _difference_of_natural_means(p, q):
    # Near equality the means cancel, so the value comes from differences of the parameters. The derivatives of the
    # means do not cancel, so they are used.
    means = _solve(p.precision, p.natural_loc), _solve(q.precision, q.natural_loc)
    change = (p.natural_loc - q.natural_loc) - product(p.precision - q.precision, means[1])
    return with_tangents(_solve(p.precision, change), means[0] - means[1])


def _half_log_det_of_precision(law):
    return -half_log_det_of_root(cholesky(law.precision))


def _by_precision(difference_of_means, with_mean):
    """The functions of the record for laws with a precision; the arguments say how to get at their means."""

    def kl(p, q):
        delta = difference_of_means(p, q)
        y = product(cholesky(q.precision).T, delta)
        square = with_tangents(jnp.sum(y * y), jnp.sum(delta * product(q.precision, delta)))
        return 0.5 * (relative_excess(q.precision, p.precision) + square)

    def frame(p, q):
        return frames.of_precisions(p.precision, q.precision, difference_of_means(p, q))

    def squared_wasserstein2(p, q):
        a, b = (factor_of_inverse(law.precision) for law in (p, q))
        change = symmetric(product(a, product(a.T, q.precision - p.precision, b), b.T))
        return jnp.sum(difference_of_means(p, q) ** 2) + squared_bures(a, b, difference_of_roots(a, b, change))

    def moved(law, z):
        return with_mean(law).loc + solve_upper(cholesky(law.precision), z[:, None])[:, 0]

    def standardised(law, x):
        return product(cholesky(law.precision).T, x - with_mean(law).loc)

    return {
        "kl": kl,
        "jeffreys": both_ways(kl),
        "frame": frame,
        "k": spectral.k_of(frame),
        "squared_wasserstein2": squared_wasserstein2,
        "noise": one_to_an_entry,
        "moved": moved,
        "standardised": standardised,
    }


# ---------------------------------------------------------------- the records


def _faults_of_root(law, _):
    return {"a diagonal that is not positive": np.any(np.diagonal(law.scale_tril, axis1=-2, axis2=-1) <= 0, -1)}


def _faults_of_matrix(law, rounding):
    matrix = law[1]
    size, skew = (np.abs(x).max((-2, -1)) for x in (matrix, matrix - np.swapaxes(matrix, -1, -2)))
    finite = np.where(np.isfinite(matrix).all((-2, -1), keepdims=True), matrix, np.eye(matrix.shape[-1]))
    lowest = np.linalg.eigvalsh(0.5 * (finite + np.swapaxes(finite, -1, -2)))[..., 0]
    return {
        "a matrix that is not symmetric": skew > 16 * rounding * size,
        "a matrix that is not positive definite": lowest <= 0,
    }


FORMS: dict[type, Form] = {
    MultivariateNormal: Form(
        shapes="loc [d], scale_tril [d, d]",
        standard=_standard,
        regular=lambda law: law._replace(scale_tril=lower_root(law.scale_tril)),
        semidefinite=lambda law: law._replace(scale_tril=lower_factor(law.scale_tril)),
        factor=lambda law: law.scale_tril,
        mean=_loc,
        to={
            CovarianceNormal: lambda law: CovarianceNormal(law.loc, product(law.scale_tril, law.scale_tril.T)),
            PrecisionNormal: _precision_of_root,
            NaturalNormal: _natural_of_root,
        },
        alike=as_they_are,
        kl=_kl_of_roots,
        kl_of_rows=_kl_of_rows,
        jeffreys=both_ways(_kl_of_roots),
        frame=_frame_of_roots,
        k=spectral.k_of(_frame_of_roots),
        squared_wasserstein2=_squared_wasserstein2_of_roots,
        noise=one_to_an_entry,
        moved=_moved_by_root,
        standardised=_standardised_by_root,
        half_log_det=lambda law: half_log_det_of_root(law.scale_tril),
        contrast=None,
        faults=_faults_of_root,
    ),
    CovarianceNormal: Form(
        shapes="loc [d], covariance [d, d]",
        standard=_standard,
        regular=_symmetric,
        semidefinite=_symmetric,
        factor=lambda law: factor(law.covariance),
        mean=_loc,
        to={MultivariateNormal: _root_of_covariance},
        alike=as_they_are,
        kl=_kl_of_covariances,
        kl_of_rows=None,
        jeffreys=both_ways(_kl_of_covariances),
        frame=_frame_of_covariances,
        k=spectral.k_of(_frame_of_covariances),
        squared_wasserstein2=_squared_wasserstein2_of_covariances,
        noise=one_to_an_entry,
        moved=lambda law, z: _moved_by_root(_root_of_covariance(law), z),
        standardised=lambda law, x: _standardised_by_root(_root_of_covariance(law), x),
        half_log_det=lambda law: half_log_det_of_root(cholesky(law.covariance)),
        contrast=None,
        faults=_faults_of_matrix,
    ),
    PrecisionNormal: Form(
        shapes="loc [d], precision [d, d]",
        standard=_standard,
        regular=_symmetric,
        semidefinite=_symmetric,
        factor=lambda law: factor_of_inverse(law.precision),
        mean=_loc,
        to={NaturalNormal: _without_mean, MultivariateNormal: _root_of_precision},
        alike=as_they_are,
        kl_of_rows=None,
        half_log_det=_half_log_det_of_precision,
        contrast=None,
        faults=_faults_of_matrix,
        **_by_precision(_difference_of_means, lambda law: law),
    ),
    NaturalNormal: Form(
        shapes="natural_loc [d], precision [d, d]",
        standard=_standard,
        regular=_symmetric,
        semidefinite=_symmetric,
        factor=lambda law: factor_of_inverse(law.precision),
        mean=_mean_of_natural,
        to={PrecisionNormal: _with_mean, MultivariateNormal: lambda law: _root_of_precision(_with_mean(law))},
        alike=as_they_are,
        kl_of_rows=None,
        half_log_det=_half_log_det_of_precision,
        contrast=None,
        faults=_faults_of_matrix,
        **_by_precision(_difference_of_natural_means, _with_mean),
    ),
}

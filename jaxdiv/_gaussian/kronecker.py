r"""Normal laws of matrices with a Kronecker product as covariance: $M + A Z B'$, with standard normal entries $Z$.

KL, entropies, densities and draws use the two small roots only. All other divergences use the root $A \otimes B$ of the
covariance of the entries, row by row; the difference of two such roots comes from the differences of $A$ and of $B$.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdiv._core.functions import expm1x, log_ratio
from jaxdiv._gaussian import frames, spectral
from jaxdiv._gaussian.bures import squared_bures
from jaxdiv._gaussian.form import Form, as_they_are, both_ways, one_to_an_entry
from jaxdiv._gaussian.full import MultivariateNormal
from jaxdiv._gaussian.linalg import (
    diagonal,
    half_log_det_of_root,
    identities_like,
    lower_factor,
    lower_root,
    product,
    solve_lower,
)


class MatrixNormal(NamedTuple):
    """A law of matrices: the mean `[n, m]` and lower triangular roots `[n, n]` over rows and `[m, m]` over columns."""

    loc: ArrayLike
    row_tril: ArrayLike
    column_tril: ArrayLike


def _standard(law):
    return MatrixNormal(jnp.zeros_like(law.loc), identities_like(law.row_tril), identities_like(law.column_tril))


def _by_roots(root):
    return lambda law: law._replace(row_tril=root(law.row_tril), column_tril=root(law.column_tril))


def _root(law: Any) -> Any:
    return MultivariateNormal(law.loc.ravel(), jnp.kron(law.row_tril, law.column_tril))


def _kl(p, q):
    n, m = p.loc.shape
    row_size, rows = _size_and_shape(p.row_tril, q.row_tril)
    column_size, columns = _size_and_shape(p.column_tril, q.column_tril)
    # R is exp(row_size) times a matrix of determinant 1 and squared norm n + rows; C likewise. The sum has no negative
    # term, and nothing is lost if the scales of rows and columns compensate each other.
    size = row_size + column_size
    covariances = jnp.exp(2 * size) * (rows * columns + m * rows + n * columns) + n * m * expm1x(2 * size)
    moved = solve_lower(q.column_tril, solve_lower(q.row_tril, p.loc - q.loc).T)
    return 0.5 * (covariances + jnp.sum(moved * moved))


def _size_and_shape(p, q):
    """For x = q^-1 p of dimension d: log det x / d; and, for x scaled to determinant 1, its squared norm minus d."""
    a, b = diagonal(p), diagonal(q)
    logs = log_ratio(a, b, a - b)
    size = jnp.mean(logs)
    off_diagonal = jnp.tril(solve_lower(q, p - q), -1) * jnp.exp(-size)
    # `logs - size` sums to 0, so the sum of exp(y) - 1 equals that of exp(y) - 1 - y, whose terms are not negative.
    return size, jnp.sum(off_diagonal * off_diagonal) + jnp.sum(expm1x(2 * (logs - size)))


def _roots(p, q):
    """Both roots, and their difference to full relative accuracy."""
    rows, columns = p.row_tril - q.row_tril, p.column_tril - q.column_tril
    difference = jnp.kron(rows, p.column_tril) + jnp.kron(q.row_tril, columns)
    return _root(p).scale_tril, _root(q).scale_tril, difference


def _frame(p, q):
    logs = jnp.stack([_half_log_det(p), _half_log_det(q)])
    return frames.of_factors(*_roots(p, q), (p.loc - q.loc).ravel(), logs)


def _squared_wasserstein2(p, q):
    return jnp.sum((p.loc - q.loc) ** 2) + squared_bures(*_roots(p, q))


def _half_log_det(law):
    n, m = law.loc.shape
    return m * half_log_det_of_root(law.row_tril) + n * half_log_det_of_root(law.column_tril)


def _standardised(law, x):
    return solve_lower(law.column_tril, solve_lower(law.row_tril, x - law.loc).T).T


def _faults(law, _):
    diagonals = (np.diagonal(x, axis1=-2, axis2=-1) for x in law[1:])
    rows, columns = (np.any(x <= 0, -1) for x in diagonals)
    return {"a diagonal that is not positive": rows | columns}


FORMS: dict[type, Form] = {
    MatrixNormal: Form(
        shapes="loc [n, m], row_tril [n, n], column_tril [m, m]",
        standard=_standard,
        regular=_by_roots(lower_root),
        semidefinite=_by_roots(lower_factor),
        factor=lambda law: _root(law).scale_tril,
        mean=lambda law: law.loc.ravel(),
        to={MultivariateNormal: _root},
        alike=as_they_are,
        kl=_kl,
        kl_of_rows=None,
        jeffreys=both_ways(_kl),
        frame=_frame,
        k=spectral.k_of(_frame),
        squared_wasserstein2=_squared_wasserstein2,
        noise=one_to_an_entry,
        moved=lambda law, z: law.loc + product(law.row_tril, z, law.column_tril.T),
        standardised=_standardised,
        half_log_det=_half_log_det,
        contrast=None,
        faults=_faults,
    ),
}

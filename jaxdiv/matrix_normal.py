r"""The Kullback-Leibler divergence between two matrix-normal laws, whose covariance is a Kronecker product.

`MatrixNormal(loc, row_scale_tril, column_scale_tril)` is the law of $M + A Z B'$ for a matrix $Z$ of independent
standard normal entries: of covariance $A A' \otimes B B'$ for its entries row by row. Every other divergence is had
from `mvn`, with `mvn.MultivariateNormal(loc.ravel(), jnp.kron(row_scale_tril, column_scale_tril))`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.functions import expm1x, log_ratio
from jaxdiv._core.jit import jitted
from jaxdiv._gaussian.linalg import lower_root, solve_lower


class MatrixNormal(NamedTuple):
    """A law of matrices: the mean `[n, m]` and lower triangular roots `[n, n]` over rows and `[m, m]` over columns."""

    loc: ArrayLike
    row_scale_tril: ArrayLike
    column_scale_tril: ArrayLike


@jitted
def kl(p: MatrixNormal, q: MatrixNormal) -> jax.Array:
    r"""Kullback-Leibler divergence $\tfrac12 [|R|^2 |C|^2 - n m - 2 m \log \det R - 2 n \log \det C + |D|^2]$.

    Here $R = A_q^{-1} A_p$ and $C = B_q^{-1} B_p$ are the roots of the rows and columns of $p$ in terms of those of
    $q$, and $D = A_q^{-1} (M_p - M_q) B_q^{-\prime}$.

    Args:
        p: The law the expectation is under; what is above the diagonals of its roots is ignored.
        q: The other law, of the same shape `[n, m]`.

    Returns:
        `[]`, in nats: non-negative; exactly 0, with gradient exactly 0, when `p` equals `q`; `nan` where a diagonal is
        not positive. A scale moved from rows to columns is the same law, up to the square of the rounding.

    Example:
        >>> p = matrix_normal.MatrixNormal(jnp.zeros((2, 3)), jnp.eye(2), jnp.eye(3))
        >>> q = matrix_normal.MatrixNormal(jnp.ones((2, 3)), 2 * jnp.eye(2), jnp.eye(3))
        >>> print(f"{matrix_normal.kl(p, q):.4f}")
        2.6589

    References:
        Gupta and Nagar, Matrix variate distributions, 2000, section 2.2, for the law.
    """
    laws, dtype = _inputs.kronecker_laws("matrix_normal.kl", (MatrixNormal,), p=p, q=q)
    a, b = (law._replace(**{x: lower_root(getattr(law, x)) for x in law._fields[1:]}) for law in laws.values())
    return _kl(a, b).astype(dtype)


def _kl(p: Any, q: Any) -> jax.Array:
    n, m = p.loc.shape
    row_size, rows = _size_and_shape(p.row_scale_tril, q.row_scale_tril)
    column_size, columns = _size_and_shape(p.column_scale_tril, q.column_scale_tril)
    # With R = exp(row_size) times a matrix of determinant 1 and square norm n + rows, likewise C: a sum of what is
    # not negative, in which nothing is lost where the scales of rows and columns compensate each other.
    size = row_size + column_size
    covariances = jnp.exp(2 * size) * (rows * columns + m * rows + n * columns) + n * m * expm1x(2 * size)
    moved = solve_lower(q.column_scale_tril, solve_lower(q.row_scale_tril, p.loc - q.loc).T)
    return 0.5 * (covariances + jnp.sum(moved * moved))


def _size_and_shape(p, q):
    """For x = q^-1 p of dimension d: log det x / d, and the square norm, less d, of x at determinant 1."""
    a, b = jnp.diagonal(p), jnp.diagonal(q)
    logs = log_ratio(a, b, a - b)
    size = jnp.mean(logs)
    off_diagonal = jnp.tril(solve_lower(q, p - q), -1) * jnp.exp(-size)
    # The logarithms less their mean sum to 0, which is why their exponentials may be taken less 1 and them.
    return size, jnp.sum(off_diagonal * off_diagonal) + jnp.sum(expm1x(2 * (logs - size)))

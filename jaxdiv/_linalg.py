"""Linear algebra on one matrix `[d, d]`, batched by `vmap`: unrolled for small d, where calls cost more than the work.

A matrix that is not positive definite gives NaN. XLA on CPU runs independent library calls of one program at once, and
large batches of them can starve each other of threads: matrices factorised together go through one call as a stack.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv.elementary import log_ratio, polynomial

SMALL = 8  # dimensions up to this one are unrolled


def transpose(m: jax.Array) -> jax.Array:
    return jnp.swapaxes(m, -1, -2)


def symmetric(m: jax.Array) -> jax.Array:
    return 0.5 * (m + transpose(m))


def columns(*xs: jax.Array) -> jax.Array:
    """Matrices `[d, k]` and vectors `[d]` side by side."""
    return jnp.concatenate([x if x.ndim > 1 else x[:, None] for x in xs], 1)


def _forward(lower, b):
    rows = []
    for i in range(b.shape[0]):
        rest = b[i]
        for j in range(i):
            rest = rest - lower[i, j] * rows[j]
        rows.append(rest / lower[i, i])
    return jnp.stack(rows)


def _backward(lower, b):
    """Solves with the transpose."""
    rows: dict[int, jax.Array] = {}
    for i in reversed(range(b.shape[0])):
        rest = b[i]
        for j in range(i + 1, b.shape[0]):
            rest = rest - lower[j, i] * rows[j]
        rows[i] = rest / lower[i, i]
    return jnp.stack([rows[i] for i in range(b.shape[0])])


def solve_lower(lower: jax.Array, b: jax.Array) -> jax.Array:
    """The solution x `[d, k]` of lower x = b for a lower triangular matrix."""
    if b.shape[0] > SMALL:
        return lax.linalg.triangular_solve(lower, b, left_side=True, lower=True)
    return lax.custom_linear_solve(
        lambda x: lower @ x, b, lambda _, b: _forward(lower, b), lambda _, b: _backward(lower, b)
    )


def solve_upper(lower: jax.Array, b: jax.Array) -> jax.Array:
    """The solution x `[d, k]` of lower' x = b for a lower triangular matrix."""
    if b.shape[0] > SMALL:
        return lax.linalg.triangular_solve(lower, b, left_side=True, lower=True, transpose_a=True)
    return lax.custom_linear_solve(
        lambda x: lower.T @ x, b, lambda _, b: _backward(lower, b), lambda _, b: _forward(lower, b)
    )


@jax.custom_jvp
def cholesky(stack: jax.Array) -> jax.Array:
    """Lower triangular roots of symmetric matrices `[n, d, d]`; NaN for one that is not positive definite."""
    d = stack.shape[-1]
    if d > SMALL:
        return lax.linalg.cholesky(stack, symmetrize_input=False)
    found: list[jax.Array] = []
    for j in range(d):
        column = stack[:, j:, j]
        for other in found:
            column = column - other[:, j:] * other[:, j : j + 1]
        pivot = jnp.sqrt(jnp.where(column[:, :1] > 0, column[:, :1], jnp.nan))
        lower = jnp.concatenate([pivot, column[:, 1:] / pivot], 1)
        found.append(jnp.pad(lower, ((0, 0), (j, 0))))
    return jnp.stack(found, -1)


@cholesky.defjvp
def _(primals, tangents):
    lower = cholesky(*primals)

    def one(lower, d):
        inner = solve_lower(lower, transpose(solve_lower(lower, d)))
        return lower @ (jnp.tril(inner, -1) + 0.5 * _diagonal_part(inner))

    return lower, jnp.stack([one(x, d) for x, d in zip(lower, tangents[0], strict=True)])


def _diagonal_part(m):
    return m * jnp.eye(m.shape[-1], dtype=m.dtype)


def root_of_sum(a: jax.Array, b: jax.Array) -> jax.Array:
    """Lower triangular r with r r' = a a' + b b', without the squares."""
    stacked = jnp.concatenate([a, b], 1).T
    if stacked.shape[0] < a.shape[0]:
        stacked = jnp.pad(stacked, ((0, a.shape[0] - stacked.shape[0]), (0, 0)))
    r = jnp.linalg.qr(stacked, mode="r").T
    return r * jnp.where(jnp.diagonal(r) < 0, -1, 1).astype(r.dtype)[None]


def _excess(e):
    """The difference e - log(1 + e) for |e| <= 1/2, as `_gaussian.log_excess`."""
    r = e / (2 + e)
    return e * r - 2 * r * (r * r) * polynomial("atanh", r * r)


@jax.custom_jvp
def log_det_excess(f: jax.Array, root: jax.Array) -> jax.Array:
    """Value of tr f - log det(1 + f) >= 0 for symmetric f, to full relative accuracy; `root` is the Cholesky factor of 1 + f.

    The root may be less accurate than f where f is small: it is refined.
    """
    e = jnp.tril(root - jnp.eye(f.shape[0], dtype=f.dtype))
    # With 1 + f = (1 + e)(1 + e)' the value is |e|^2 + 2 sum (e_ii - log(1 + e_ii)): no first-order terms.
    near = jnp.sum(f * f) < 0.25
    refined = _refine(jnp.where(near, e, 0), jnp.where(near, f, 0))
    diagonal = jnp.diagonal(root)
    far = jnp.diagonal(e) - log_ratio(diagonal, jnp.ones_like(diagonal), jnp.diagonal(e))
    close = _excess(jnp.diagonal(refined))
    e = jnp.where(near, refined, e)
    return jnp.sum(e * e) + 2 * jnp.sum(jnp.where(near, close, far))


def _refine(e, f):
    """One Newton step for lower triangular e on e + e' + e e' = f."""
    residual = f - (e + e.T + e @ e.T)
    root = e + jnp.eye(e.shape[0], dtype=e.dtype)
    inner = solve_lower(root, transpose(solve_lower(root, residual)))
    return e + jnp.tril(root @ (jnp.tril(inner, -1) + 0.5 * _diagonal_part(inner)))


@log_det_excess.defjvp
def _(primals, tangents):
    f, root = primals
    df, _ = tangents
    slope = solve_upper(root, solve_lower(root, f))  # f / (1 + f)
    return log_det_excess(f, root), jnp.sum(slope * df)

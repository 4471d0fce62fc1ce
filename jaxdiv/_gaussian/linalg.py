"""Linear algebra on one matrix `[d, d]`, batched by `vmap`.

A matrix that is not positive definite gives NaN. A single matrix, and one above a dimension (`tuning.LARGE`), goes to
the library (`call`). In a large batch, loops are written out for small d, where a call would cost more than the work;
larger matrices take one block of that size after the other. A small batch uses loops over columns, which compile
faster.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core import tuning
from jaxdiv._core.functions import log_ratio, or_one
from jaxdiv._core.rules import custom_jvp, with_axes
from jaxdiv._gaussian.excess import near_excess

R = TypeVar("R")


def product(*matrices: jax.Array) -> jax.Array:
    """The product of matrices and vectors, from left to right, in full precision on every device."""
    # By default TPUs round the factors of float32 products to bfloat16, and GPUs to TF32.
    return functools.reduce(functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST), matrices)


def symmetric(m: jax.Array) -> jax.Array:
    """The symmetric part."""
    return 0.5 * (m + m.T)


def diagonal(m: jax.Array) -> jax.Array:
    """The diagonals `[..., d]` of matrices `[..., d, d]`, as a slice; `jnp.diagonal` would gather."""
    d = m.shape[-1]
    return lax.slice_in_dim(m.reshape(*m.shape[:-2], d * d), 0, None, d + 1, -1)


def lower_root(m: jax.Array) -> jax.Array:
    """The lower triangle; NaN if the diagonal is not positive, which squares would hide."""
    return _nan_unless(m > 0, m)


def lower_factor(m: jax.Array) -> jax.Array:
    """The lower triangle; NaN if the diagonal is negative. As a root, its matrix may be singular."""
    return _nan_unless(m >= 0, m)


def _nan_unless(holds, m):
    """The lower triangle, with NaN on the diagonal where `holds` is False."""
    return jnp.where(jnp.eye(m.shape[0], dtype=bool) & ~holds, jnp.nan, jnp.tril(m))


def half_log_det_of_root(lower: jax.Array) -> jax.Array:
    """Half the logarithm of the determinant of a matrix with this root."""
    return jnp.sum(jnp.log(diagonal(lower)))


def identities_like(m: jax.Array) -> jax.Array:
    """Identity matrices of the shape and dtype of matrices `[..., d, d]`."""
    return jnp.broadcast_to(jnp.eye(m.shape[-1], dtype=m.dtype), m.shape)


def columns(*xs: jax.Array) -> jax.Array:
    """Matrices `[d, k]` and vectors `[d]` side by side."""
    return jnp.concatenate([x if x.ndim > 1 else x[:, None] for x in xs], 1)


def _how(*arrays):
    """The best way to treat a batch of matrices: the library, a loop over columns, or that loop written out."""
    if _number(*arrays) == 1 or arrays[0].shape[-1] > tuning.LARGE:
        return "library"
    return "loop" if are_few(*arrays) else "unrolled"


def _number(*arrays):
    return math.prod(jnp.broadcast_shapes(*(x.shape[:-2] for x in arrays)))


def are_few(*arrays: jax.Array) -> bool:
    """Whether matrices `[..., d, d]` are too few for loops to be written out."""
    n = _number(*arrays)
    return isinstance(n, int) and n < tuning.FEW  # n is symbolic in a program exported for any size


def call(routine: Callable[..., R], *arrays: jax.Array) -> R:
    """A routine of the library on matrices `[..., n, m]`, on a CPU one after the other.

    XLA:CPU runs independent calls of one program at the same time. Some versions, jaxlib 0.10.2 among them, divide a
    call on a batch over the threads that run the calls, and then two of them wait for each other forever.
    """
    lead = jnp.broadcast_shapes(*(x.shape[:-2] for x in arrays))
    arrays = tuple(jnp.broadcast_to(x, lead + x.shape[-2:]) for x in arrays)
    if _number(*arrays) == 1:
        return routine(*arrays)

    def in_turn(*arrays):
        rows = [x.reshape(-1, *x.shape[-2:]) for x in arrays]
        found = lax.map(lambda matrices: routine(*matrices), rows)
        return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), found)

    return lax.platform_dependent(*arrays, cpu=in_turn, default=routine)


def eigh(m: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues and eigenvectors of the lower triangle of a symmetric matrix. Not differentiable."""
    return with_axes(lambda m: call(lambda m: tuple(jnp.linalg.eigh(m, symmetrize_input=False)), m), m)


def svd(m: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The singular value decomposition of a square matrix. Not differentiable."""
    return with_axes(lambda m: call(lambda m: tuple(jnp.linalg.svd(m, full_matrices=False)), m), m)


def _transpose(m):
    return jnp.swapaxes(m, -1, -2)


def _solve(lower, b, transposed):
    """Forward or backward substitution on `[..., d, d]` and `[..., d, k]`."""
    how = _how(lower, b)
    if how == "library":
        solved = functools.partial(lax.linalg.triangular_solve, left_side=True, lower=True, transpose_a=transposed)
        return call(solved, lower, b)
    if how == "loop":
        return _solve_in_loop(lower, b, transposed)
    if b.shape[-2] <= tuning.SMALL:
        return (_backward if transposed else _forward)(lower, b)
    return _solve_in_blocks(lower, b, transposed)


class _Blocks(NamedTuple):
    """Matrices cut into `number` blocks of `size` rows and columns, at most `tuning.SMALL`."""

    number: int
    size: int

    def get(self, m, i, axis):
        return lax.dynamic_slice_in_dim(m, self.size * i, self.size, axis)

    def put(self, m, block, i, axis):
        return lax.dynamic_update_slice_in_dim(m, block, self.size * i, axis)


def _blocks(m):
    """The blocks of matrices, and the matrices with an identity beside them that fills the last one."""
    d = m.shape[-1]
    number = -(-d // tuning.SMALL)
    size = -(-d // number)
    more = number * size - d
    filled = jnp.pad(m, [(0, 0)] * (m.ndim - 2) + [(0, more), (0, more)])
    beside = jnp.pad(jnp.eye(more, dtype=m.dtype), [(d, 0), (d, 0)])
    return _Blocks(number, size), filled + jnp.broadcast_to(beside, filled.shape)


def _solve_in_blocks(lower, b, transposed):
    d = b.shape[-2]
    blocks, lower = _blocks(lower)
    b = jnp.pad(b, [(0, 0)] * (b.ndim - 2) + [(0, lower.shape[-1] - d), (0, 0)])
    matrix = _transpose(lower) if transposed else lower

    def found(i, x):
        i = blocks.number - 1 - i if transposed else i
        # Entries of x that are not found yet are 0.
        rest = blocks.get(b, i, -2) - product(blocks.get(matrix, i, -2), x)
        corner = blocks.get(blocks.get(lower, i, -2), i, -1)
        return blocks.put(x, (_backward if transposed else _forward)(corner, rest), i, -2)

    return lax.fori_loop(0, blocks.number, found, jnp.zeros_like(b + lower[..., :1, :1]))[..., :d, :]


def _solve_in_loop(lower, b, transposed):
    d = b.shape[-2]
    row = jnp.arange(d)[:, None]
    matrix = _transpose(lower) if transposed else lower

    def found(i, x):
        i = d - 1 - i if transposed else i
        known = lax.dynamic_index_in_dim(matrix, i, -2, keepdims=False)[..., None]
        pivot = lax.dynamic_index_in_dim(known, i, -2)
        # Entries of x that are not found yet are 0. A sum of products is one pass; a matrix product would be several.
        value = (lax.dynamic_index_in_dim(b, i, -2) - jnp.sum(known * x, -2, keepdims=True)) / pivot
        return jnp.where(row == i, value, x)

    return lax.fori_loop(0, d, found, jnp.zeros_like(b + lower[..., :1, :1]))


def _beside(rows):
    """Rows `[..., k]` as `[..., d, k]`. Stacked directly on that axis, a batch would take half as long again."""
    return jnp.moveaxis(jnp.stack(rows), 0, -2)


def _forward(lower, b):
    rows = []
    for i in range(b.shape[-2]):
        rest = b[..., i, :]
        for j in range(i):
            rest = rest - lower[..., i, j, None] * rows[j]
        rows.append(rest / lower[..., i, i, None])
    return _beside(rows)


def _backward(lower, b):
    """Solves with the transpose."""
    d = b.shape[-2]
    rows: dict[int, jax.Array] = {}
    for i in reversed(range(d)):
        rest = b[..., i, :]
        for j in range(i + 1, d):
            rest = rest - lower[..., j, i, None] * rows[j]
        rows[i] = rest / lower[..., i, i, None]
    return _beside([rows[i] for i in range(d)])


def solve_lower(lower: jax.Array, b: jax.Array) -> jax.Array:
    """The solution x `[d, k]` of lower x = b for a lower triangular matrix."""
    return _solved(lower, b, False)


def solve_upper(lower: jax.Array, b: jax.Array) -> jax.Array:
    """The solution x `[d, k]` of lower' x = b for a lower triangular matrix."""
    return _solved(lower, b, True)


def _solved(lower, b, transposed):
    def solve(transposed):
        return lambda _, b: with_axes(functools.partial(_solve, transposed=transposed), lower, b)

    matrix = lower.T if transposed else lower
    return lax.custom_linear_solve(lambda x: product(matrix, x), b, solve(transposed), solve(not transposed))


def _cholesky(m):
    how = _how(m)
    if how == "library":
        return call(functools.partial(lax.linalg.cholesky, symmetrize_input=False), m)
    if how == "loop":
        return _cholesky_in_loop(m)
    return (_cholesky_unrolled if m.shape[-1] <= tuning.SMALL else _cholesky_in_blocks)(m)


def _cholesky_in_blocks(m):
    d = m.shape[-1]
    blocks, m = _blocks(m)
    row = jnp.arange(m.shape[-1])[:, None]

    def eliminate(i, state):
        rest, found = state
        columns = blocks.get(rest, i, -1)
        corner = _cholesky_unrolled(blocks.get(columns, i, -2))
        below = jnp.where(row >= blocks.size * (i + 1), _transpose(_forward(corner, _transpose(columns))), 0)
        columns = blocks.put(below, corner, i, -2)
        return rest - product(columns, _transpose(columns)), blocks.put(found, columns, i, -1)

    return lax.fori_loop(0, blocks.number, eliminate, (m, jnp.zeros_like(m)))[1][..., :d, :d]


def _cholesky_in_loop(m):
    d = m.shape[-1]
    row = jnp.arange(d)

    def eliminate(j, state):
        rest, found = state
        column = lax.dynamic_index_in_dim(rest, j, -1, keepdims=False)
        pivot = lax.dynamic_index_in_dim(column, j, -1)
        column = jnp.where(row >= j, column / jnp.sqrt(jnp.where(pivot > 0, pivot, jnp.nan)), 0)
        return rest - column[..., :, None] * column[..., None, :], jnp.where(row == j, column[..., None], found)

    return lax.fori_loop(0, d, eliminate, (m, jnp.zeros_like(m)))[1]


def _cholesky_unrolled(m):
    found: list[jax.Array] = []
    for j in range(m.shape[-1]):
        column = m[..., j:, j]
        for other in found:
            column = column - other[..., j:] * other[..., j, None]
        pivot = jnp.sqrt(jnp.where(column[..., :1] > 0, column[..., :1], jnp.nan))
        lower = jnp.concatenate([pivot, column[..., 1:] / pivot], -1)
        found.append(jnp.pad(lower, [(0, 0)] * (lower.ndim - 1) + [(j, 0)]))
    return jnp.stack(found, -1)


@custom_jvp
def cholesky(m: jax.Array) -> jax.Array:
    """The lower triangular root of a symmetric matrix; NaN if it is not positive definite."""
    return with_axes(_cholesky, m)


@cholesky.defjvp
def _(primals, tangents):
    lower = cholesky(*primals)
    inner = solve_lower(lower, solve_lower(lower, tangents[0]).T)
    return lower, product(lower, jnp.tril(inner, -1) + 0.5 * _diagonal_part(inner))


def root_of_inverse(m: jax.Array) -> jax.Array:
    """The lower triangular root of the inverse of a positive definite matrix."""
    # With both axes reversed, the root of m is upper triangular, so its inverse transposed is lower triangular.
    inverse = solve_lower(cholesky(m[::-1, ::-1]), jnp.eye(m.shape[0], dtype=m.dtype))
    return jnp.tril(inverse[::-1, ::-1].T)


def _diagonal_part(m):
    return m * jnp.eye(m.shape[-1], dtype=m.dtype)


def root_of_sum(a: jax.Array, b: jax.Array) -> jax.Array:
    """Lower triangular r with r r' = a a' + b b', by reflections, without forming squares. Not differentiable."""
    r = with_axes(_triangular, lax.stop_gradient(jnp.concatenate([a, b], 1).T))
    return jnp.triu(r).T * jnp.where(diagonal(r) < 0, -1, 1).astype(r.dtype)[None]


def _triangular(m):
    """R of m = Q R for matrices `[..., n, d]` with n >= d."""
    d = m.shape[-1]
    if _how(m) == "library":
        return call(functools.partial(jnp.linalg.qr, mode="r"), m)
    row = jnp.arange(m.shape[-2])

    def reflect(j, m):
        column = jnp.where(row >= j, lax.dynamic_index_in_dim(m, j, -1, keepdims=False), 0)
        head = lax.dynamic_index_in_dim(column, j, -1)
        square = jnp.sum(column * column, -1, keepdims=True)
        mirror = column + jnp.where(row == j, jnp.where(head < 0, -1, 1) * jnp.sqrt(square), 0)
        products = jnp.sum(mirror[..., :, None] * m, -2, keepdims=True)
        return m - (2 / or_one(jnp.sum(mirror * mirror, -1)))[..., None, None] * mirror[..., :, None] * products

    return lax.fori_loop(0, d, reflect, m)[..., :d, :]


def _log_det_excess(f, e, ratios):
    """Value of tr f - log det(1 + f) >= 0 for symmetric f, with 1 + e the root of 1 + f and `ratios` its diagonal.

    If f is small, e may be less accurate than f, so it is refined.
    """
    # With 1 + f = (1 + e)(1 + e)' the value is |e|^2 + 2 sum (e_ii - log(1 + e_ii)): no first-order terms.
    # |f| < 1/2 keeps the eigenvalues of 1 + f between 1/2 and 3/2, where the Newton step of `refine` loses no digits.
    near = jnp.sum(f * f) < 0.25
    refined = refine(jnp.where(near, e, 0), jnp.where(near, f, 0))
    far = diagonal(e) - log_ratio(ratios, jnp.ones_like(ratios), diagonal(e))
    small = diagonal(refined)
    close = jnp.where(jnp.all(f == 0), 0, near_excess(small, small / (2 + small)))
    # The roots of equal matrices, compiled twice, may differ in the last place; f is then exactly 0.
    e = jnp.where(jnp.all(f == 0), 0, jnp.where(near, refined, e))
    return jnp.sum(e * e) + 2 * jnp.sum(jnp.where(near, close, far))


def refine(e: jax.Array, f: jax.Array) -> jax.Array:
    """One Newton step for the lower triangular e in e + e' + e e' = f, so that 1 + e is the root of 1 + f."""
    residual = f - (e + e.T + product(e, e.T))
    root = e + jnp.eye(e.shape[0], dtype=e.dtype)
    inner = solve_lower(root, solve_lower(root, residual).T)
    return e + jnp.tril(product(root, jnp.tril(inner, -1) + 0.5 * _diagonal_part(inner)))


@custom_jvp
def log_det_excess(f: jax.Array, root: jax.Array) -> jax.Array:
    """Value of tr f - log det(1 + f) >= 0 for symmetric f, to full relative accuracy, by the root of 1 + f."""
    return _log_det_excess(f, jnp.tril(root) - jnp.eye(f.shape[0], dtype=f.dtype), diagonal(root))


@log_det_excess.defjvp
def _(primals, tangents):
    f, root = primals
    slope = solve_upper(root, solve_lower(root, f))  # f / (1 + f)
    return log_det_excess(f, root), jnp.sum(slope * tangents[0])


@custom_jvp
def relative_excess(a: jax.Array, b: jax.Array) -> jax.Array:
    """Value of tr b^-1 a - d - log det b^-1 a >= 0 for positive definite a and b, to full accuracy near equality."""
    root_a, root_b = cholesky(a), cholesky(b)
    d = a.shape[0]
    moved = solve_lower(root_b, columns(a - b, root_a - root_b))
    f = solve_lower(root_b, moved[:, :d].T)
    ratios = diagonal(root_a) / diagonal(root_b)
    return _log_det_excess(symmetric(f), jnp.tril(moved[:, d:]), ratios)


@relative_excess.defjvp
def _(primals, tangents):
    a, b = primals
    da, db = tangents
    root_a, root_b = cholesky(a), cholesky(b)
    by_b = solve_upper(root_b, solve_lower(root_b, a - b))
    # The derivatives are b^-1 - a^-1 and b^-1 (b - a) b^-1; here they are computed without cancellation.
    slopes = solve_upper(root_b, solve_lower(root_b, by_b.T))
    slope_a = solve_upper(root_a, solve_lower(root_a, by_b.T))
    return relative_excess(a, b), jnp.sum(symmetric(slope_a) * da) - jnp.sum(symmetric(slopes) * db)


@custom_jvp
def mahalanobis(delta: jax.Array, m: jax.Array) -> jax.Array:
    """Value of delta' m^-1 delta for a positive definite m."""
    y = solve_lower(cholesky(m), delta[:, None])
    return jnp.sum(y * y)


@mahalanobis.defjvp
def _(primals, tangents):
    delta, m = primals
    root = cholesky(m)
    g = solve_upper(root, solve_lower(root, delta[:, None]))[:, 0]
    return mahalanobis(delta, m), 2 * jnp.sum(g * tangents[0]) - jnp.sum(g * product(tangents[1], g))

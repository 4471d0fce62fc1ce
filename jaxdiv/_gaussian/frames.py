"""The frames of `spectral` for two Gaussians: from factors of the covariances, from covariances or from precisions.

The frame is computed without derivatives and held fixed; the arrays that are moved into it carry the derivatives.
Differences are taken of the inputs, before anything is squared or factorised. Rows are first scaled by powers of two,
which is exact.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.functions import LOG2, with_tangents
from jaxdiv._gaussian import spectral
from jaxdiv._gaussian.linalg import cholesky, columns, diagonal, eigh, product, root_of_sum, solve_lower, symmetric


def _power_of_two(x):
    """A power of two of about the size of x > 0."""
    return jnp.ldexp(jnp.ones_like(x), jnp.frexp(x)[1])


def _basis(t, half_plus, half_minus):
    """Orthonormal eigenvectors, as columns, of a symmetric t; NaN for NaN.

    `half_plus` and `half_minus` are factors of (1 + t) / 2 and (1 - t) / 2, which have the same eigenvectors. The
    smallest of the three matrices is used: it has the most digits if one law is much wider than the other.
    """
    smallest, size = t, jnp.sum(t * t)
    for half in (half_plus, half_minus):
        other = lax.stop_gradient(product(half, half.T))
        smaller = jnp.sum(other * other) < size
        smallest, size = jnp.where(smaller, other, smallest), jnp.minimum(size, jnp.sum(other * other))
    finite = jnp.all(jnp.isfinite(t))
    _, v = eigh(jnp.where(finite, smallest, 0))
    v = v + product(0.5 * v, jnp.eye(v.shape[0], dtype=v.dtype) - product(v.T, v))  # orthonormal to the last place
    return jnp.where(finite, v, jnp.nan)


def _at(entries, like):
    """A diagonal matrix of positive entries, with the derivatives of `like`."""
    tiny = jnp.finfo(like.dtype).tiny
    entries = jnp.where(entries < tiny, tiny, entries)  # a maximum may lose NaN
    return with_tangents(entries[:, None] * jnp.eye(like.shape[-1], dtype=like.dtype), like)


def of_factors(a: jax.Array, b: jax.Array, difference: jax.Array, delta: jax.Array, logs: jax.Array) -> spectral.Frame:
    """The frame of the covariances a a' and b b', from factors `[d, m]`.

    `difference` is a - b, and `delta` the difference of the means. `logs` `[2]` is half the logarithms of the
    determinants of the covariances.
    """
    d, m = a.shape
    rows = lax.stop_gradient(_power_of_two(jnp.max(jnp.maximum(jnp.abs(a), jnp.abs(b)), 1)))[:, None]
    a, b, difference, delta = a / rows, b / rows, difference / rows, delta / rows[:, 0]
    root = root_of_sum(a, b)
    moved = solve_lower(root, columns(a, b, difference, delta))
    a, b, half, u = moved[:, :m], moved[:, m : 2 * m], moved[:, 2 * m : 3 * m], moved[:, 3 * m]
    outer = lax.stop_gradient(product(half, (0.5 * (a + b)).T))
    v = _basis(outer + outer.T, a, b)
    a, b, half, u = product(v.T, a), product(v.T, b), product(v.T, lax.stop_gradient(half)), jnp.sum(v * u[:, None], 0)
    tau = jnp.sum(half * lax.stop_gradient(a + b), 1)
    plus, minus = (_at(2 * jnp.sum(x * x, 1), product(2 * x, x.T)) for x in (a, b))
    logs = 2 * (logs - jnp.sum(jnp.log(rows)) - jnp.sum(jnp.log(diagonal(root)))) + d * LOG2
    return spectral.Frame(tau, plus, minus, u, lax.stop_gradient(logs))


def _of_matrices(p, q):
    """A frame that diagonalises two positive definite matrices, and both matrices in it."""
    rows = jnp.maximum(diagonal(p), diagonal(q))
    rows = lax.stop_gradient(_power_of_two(jnp.sqrt(jnp.where(rows > 0, rows, jnp.nan))))
    scale = rows[:, None] * rows[None]
    p, q = p / scale, q / scale
    d = p.shape[0]
    root, root_p, root_q = (lax.stop_gradient(cholesky(x)) for x in (p + q, p, q))
    fixed = lax.stop_gradient(p - q)
    moved = solve_lower(root, columns(p, q, fixed, root_p, root_q))
    turned = solve_lower(root, columns(*(moved[:, i * d : (i + 1) * d].T for i in range(3))))
    p, q, t = (turned[:, i * d : (i + 1) * d] for i in range(3))
    t, halves = symmetric(lax.stop_gradient(t)), [moved[:, i * d : (i + 1) * d] for i in (3, 4)]
    v = _basis(t, *halves)
    tau = jnp.sum(v * product(t, v), 0)
    # 1 + tau and 1 - tau are sums of squares of the moved roots, so the smaller one is accurate.
    plus, minus = (2 * jnp.sum(product(v.T, half) ** 2, 1) for half in halves)
    logs = jnp.stack([jnp.sum(jnp.log(diagonal(x) / diagonal(root))) for x in (root_p, root_q)])
    plus, minus = _at(plus, product(2 * v.T, p, v)), _at(minus, product(2 * v.T, q, v))
    return rows, root, v, tau, plus, minus, 2 * logs + d * LOG2


def of_covariances(p: jax.Array, q: jax.Array, delta: jax.Array) -> spectral.Frame:
    """The frame of two covariances `[d, d]`."""
    rows, root, v, tau, plus, minus, logs = _of_matrices(p, q)
    u = product(v.T, solve_lower(root, (delta / rows)[:, None]))
    return spectral.Frame(tau, plus, minus, u[:, 0], logs)


def of_precisions(p: jax.Array, q: jax.Array, delta: jax.Array) -> spectral.Frame:
    """The frame of two precisions `[d, d]`."""
    rows, root, v, tau, plus, minus, logs = _of_matrices(p, q)
    # In the dual frame the covariances are 2 / plus and 2 / minus. Times plus minus / 4 they are minus / 2, plus / 2.
    of_p, of_q = diagonal(plus), diagonal(minus)
    size = lax.stop_gradient(jnp.sqrt(of_p) * jnp.sqrt(of_q))
    both = size[:, None] * size[None]
    u = 0.5 * size * product(v.T, product(root.T, delta * rows))
    inverses = (spectral.inverse_of_diagonal(x) * both for x in (plus, minus))
    plus, minus = (_at(lax.stop_gradient(x), inverse) for x, inverse in zip((of_q, of_p), inverses, strict=True))
    return spectral.Frame(-tau, plus, minus, u, logs[::-1])

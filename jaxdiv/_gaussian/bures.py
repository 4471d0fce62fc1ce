r"""The squared Bures distance of two covariances from factors of them, $\min_Q |A - B Q|^2$ over orthogonal $Q$.

The factors, with $\Sigma_p = A A'$ and $\Sigma_q = B B'$, are `[d, m]` for any m, and the covariances may be singular.
The minimum is at $Q = U V'$, a polar factor of $K = B' A = U S V'$. $H = Q'K$ is symmetric and positive semidefinite.
If $H$ is singular, there are many such $Q$, with the same value.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.functions import or_one, with_tangents
from jaxdiv._core.rules import custom_jvp, with_axes
from jaxdiv._gaussian.linalg import (
    are_few,
    cholesky,
    diagonal,
    eigh,
    product,
    refine,
    root_of_inverse,
    solve_lower,
    solve_upper,
    svd,
    symmetric,
)

STEPS = 8


def _divided(c, size):
    """The entries of c divided by size_i + size_j; 0 where that sum is 0 up to rounding (any value solves there)."""
    sums = size[:, None] + size[None]
    none = sums <= jnp.finfo(c.dtype).eps * jnp.max(sums)
    return jnp.where(none, 0, c / jnp.where(none, 1, sums))


@custom_jvp
def _lyapunov(h, c):
    """The solution x of h x + x h = c for a positive semidefinite h and a skew c."""
    finite = jnp.all(jnp.isfinite(h))
    size, v = eigh(jnp.where(finite, h, 0))
    return product(v, _divided(product(v.T, c, v), jnp.where(finite, size, jnp.nan)), v.T)


@_lyapunov.defjvp
def _(primals, tangents):
    h, _ = primals
    dh, dc = tangents
    x = _lyapunov(*primals)
    return x, _lyapunov(h, dc - product(dh, x) - product(x, dh))


def _cayley_less_one(skew):
    """Cayley's orthogonal matrix minus 1, as (1 - skew^2/4)^-1 (1 + skew/2) skew: the inverted matrix is definite."""
    one = jnp.eye(skew.shape[0], dtype=skew.dtype)
    lower = cholesky(one + product(0.25 * skew, skew.T))
    return solve_upper(lower, solve_lower(lower, skew + product(0.5 * skew, skew)))


def _rotations(k, asymmetry):
    """`_rotation` for matrices `[..., m, m]`."""
    # XLA stores the state of a loop between steps, which costs a large batch a quarter of its time.
    one = functools.partial(_rotation, in_loop=are_few(k))
    for _ in k.shape[:-2]:
        one = jax.vmap(one)
    return one(*jnp.broadcast_arrays(k, asymmetry))


def _rotation(k, asymmetry, in_loop):
    """Q; Q - 1 from K - K', accurate where it is close to 0 (else 0); and whether it is close to 0."""
    finite = jnp.all(jnp.isfinite(k))
    u, size, vt = svd(jnp.where(finite, k, 0))

    def lyapunov(c):
        return product(vt.T, _divided(product(vt, c, vt.T), size), vt)

    # Newton steps for the symmetry of Q'K. Cayley's parametrisation (1 - skew/2)^-1 (1 + skew/2) keeps Q orthogonal.
    # The derivative at Q = 1 is used throughout, so each step reduces the error by a factor of |Q - 1|.
    def closer(_, state):
        turn = _cayley_less_one(state[0])
        step = lyapunov(asymmetry + product(turn.T, k) - product(k.T, turn))
        return state[0] + step, step

    first = lyapunov(asymmetry)
    state = (first, first)
    if in_loop:
        skew, step = lax.fori_loop(0, STEPS, closer, state)
    else:
        skew, step = functools.reduce(lambda state, i: closer(i, state), range(STEPS), state)
    turn = _cayley_less_one(skew)
    # Below 0.05, |Q - 1| is below 0.23. Otherwise U V' serves, which is accurate up to its own rounding.
    found = (jnp.sum(turn * turn) < 0.05) & (_norm(step) <= jnp.finfo(k.dtype).eps * k.shape[0] ** 0.5)
    return jnp.where(finite, product(u, vt), jnp.nan), jnp.where(found, turn, 0), found


@custom_jvp
def _fit(a, b, difference):
    """The least |a - b Q|^2, a - b Q at the minimum, and Q."""
    asymmetry = product(b.T, difference)
    rotation, turn, found = with_axes(_rotations, product(b.T, a), asymmetry - asymmetry.T)
    far, near = a - product(b, rotation), difference - product(b, turn)
    # Both rotations are orthogonal, so the better one has the smaller distance, up to rounding.
    rounding = 16 * jnp.finfo(a.dtype).eps * (_norm(a) + _norm(b))
    close = found & (_norm(difference) <= 0.5 * _norm(b)) & (_norm(near) <= _norm(far) + rounding)
    least = jnp.where(close, near, far)
    one = jnp.eye(turn.shape[0], dtype=turn.dtype)
    return jnp.sum(least * least), least, jnp.where(close, turn + one, rotation)


def _norm(x):
    return jnp.sqrt(jnp.sum(x * x))


@_fit.defjvp
def _(primals, tangents):
    (a, b, _), (da, db, _) = primals, tangents
    value, least, rotation = _fit(*primals)
    moved = da - product(db, rotation)
    # Q' dQ is skew and solves H x + x H = Q' dK - dK' Q.
    inner = product(rotation.T, product(db.T, a) + product(b.T, da))
    change = product(rotation, _lyapunov(symmetric(product(rotation.T, product(b.T, a))), inner - inner.T))
    return (value, least, rotation), (2 * jnp.sum(least * moved), moved - product(b, change), change)


@custom_jvp
def squared_bures(a: jax.Array, b: jax.Array, difference: jax.Array) -> jax.Array:
    """The squared distance for factors `[d, m]` and their `difference`, with the relative accuracy of that."""
    return _fit(a, b, difference)[0]


@squared_bures.defjvp
def _(primals, tangents):
    # At the minimum the rotation has no first-order effect. Its effect on further derivatives comes through `_fit`.
    value, least, rotation = _fit(*primals)
    return value, 2 * jnp.sum(least * (tangents[0] - product(tangents[1], rotation)))


# ---------------------------------------------------------------- factors, up to a rotation

# Their derivatives are those of any factor of the covariance, not of the triangular one: the distance is the same.


@custom_jvp
def factor(m: jax.Array) -> jax.Array:
    """A factor of a covariance `[d, d]`: its root, or by eigenvectors if singular. NaN for a negative eigenvalue."""
    return with_axes(_factor, m, cholesky(m))


@factor.defjvp
def _(primals, tangents):
    a = factor(*primals)
    return a, _moved(a, *tangents)


def _moved(a, change):
    """The tangent da of a factor for a `change` of the covariance: da a' + a da' = change, as far as the rank stays."""
    rooted = jnp.all(jnp.triu(a, 1) == 0) & jnp.all(diagonal(a) > 0)
    by_root = 0.5 * solve_lower(jnp.where(rooted, a, jnp.eye(a.shape[0], dtype=a.dtype)), change).T
    inverse = a / or_one(jnp.sum(a * a, 0, keepdims=True))  # transposed; the columns of a are orthogonal
    by_vectors = product(change, inverse) - product(0.5 * a, product(inverse.T, change, inverse))
    return jnp.where(rooted, by_root, by_vectors)


def _factor(m, root):
    """The roots `[..., d, d]`, or factors by eigenvectors where a root failed and m is finite."""
    failed = jnp.any(jnp.isnan(root), (-2, -1), keepdims=True) & jnp.all(jnp.isfinite(m), (-2, -1), keepdims=True)

    def repaired(m, root):
        size, v = eigh(jnp.where(failed, m, 0))
        zero = 4 * m.shape[-1] * jnp.finfo(m.dtype).eps * jnp.max(jnp.abs(size), -1, keepdims=True)
        size = jnp.where(size > zero, size, jnp.where(size < -zero, jnp.nan, 0))
        return jnp.where(failed, v * jnp.sqrt(size)[..., None, :], root)

    return lax.cond(jnp.any(failed), repaired, lambda _, root: root, m, root)


@custom_jvp
def factor_of_inverse(m: jax.Array) -> jax.Array:
    """A factor of the inverse of a positive definite matrix: its lower triangular root."""
    return root_of_inverse(m)


@factor_of_inverse.defjvp
def _(primals, tangents):
    a = factor_of_inverse(*primals)
    return a, product(-0.5 * a, product(a.T, tangents[0], a))


def difference_of_roots(p: jax.Array, q: jax.Array, change: jax.Array) -> jax.Array:
    """p - q for two rounded roots, from the difference (`change`) of their matrices."""
    f = symmetric(solve_lower(q, solve_lower(q, change).T))
    near = jnp.sum(f * f) < 0.25
    e = jnp.tril(solve_lower(q, p - q))
    refined = product(q, refine(jnp.where(near, e, 0), jnp.where(near, f, 0)))
    # The roots of equal matrices, compiled twice, may differ in the last place.
    value = jnp.where(jnp.all(f == 0), 0, jnp.where(near, refined, p - q))
    return with_tangents(value, p - q)

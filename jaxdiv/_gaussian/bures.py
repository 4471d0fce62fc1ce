r"""The squared Bures distance of two covariances by factors of them, $\min_Q |A - B Q|^2$ over orthogonal $Q$.

The factors, $\Sigma_p = A A'$ and $\Sigma_q = B B'$, are `[d, m]` with any m, and the covariances may be singular. The
minimum is at $Q = U V'$, a polar factor of $K = B' A = U S V'$; $H = Q'K$ is symmetric and not negative. Where $H$ is
singular there are many such $Q$, and the value is the same for all.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.functions import or_one, with_tangents
from jaxdiv._gaussian.linalg import (
    are_few,
    cholesky,
    diagonal,
    on_matrices,
    product,
    refine,
    root_of_inverse,
    solve_lower,
    solve_upper,
    symmetric,
)

STEPS = 8


def _divided(c, size):
    """The entries of c over size_i + size_j; 0 where that is 0, to rounding, which leaves them open."""
    sums = size[:, None] + size[None]
    none = sums <= jnp.finfo(c.dtype).eps * jnp.max(sums)
    return jnp.where(none, 0, c / jnp.where(none, 1, sums))


@jax.custom_jvp
def _lyapunov(h, c):
    """The solution x of h x + x h = c for a symmetric h that is not negative and a skew c."""
    finite = jnp.all(jnp.isfinite(h))
    size, v = jnp.linalg.eigh(jnp.where(finite, h, 0), symmetrize_input=False)
    return product(v, _divided(product(v.T, c, v), jnp.where(finite, size, jnp.nan)), v.T)


@_lyapunov.defjvp
def _(primals, tangents):
    h, _ = primals
    dh, dc = tangents
    x = _lyapunov(*primals)
    return x, _lyapunov(h, dc - product(dh, x) - product(x, dh))


def _cayley_less_one(skew):
    """The orthogonal matrix, less 1, as (1 - skew^2/4)^-1 (1 + skew/2) skew: of a positive definite matrix."""
    one = jnp.eye(skew.shape[0], dtype=skew.dtype)
    lower = cholesky(one + product(0.25 * skew, skew.T))
    return solve_upper(lower, solve_lower(lower, skew + product(0.5 * skew, skew)))


def _rotations(k, asymmetry):
    """`_rotation` of matrices `[..., m, m]`."""
    # Of a loop XLA stores the state between steps, which costs a large batch a quarter of its time.
    one = functools.partial(_rotation, in_loop=are_few(k))
    for _ in k.shape[:-2]:
        one = jax.vmap(one)
    return one(*jnp.broadcast_arrays(k, asymmetry))


def _rotation(k, asymmetry, in_loop):
    """Q; and Q - 1 by K - K', to the accuracy of that, where it is close to 0, and whether it is."""
    finite = jnp.all(jnp.isfinite(k))
    # One library call for everything: see `linalg`.
    u, size, vt = jnp.linalg.svd(jnp.where(finite, k, 0), full_matrices=False)

    def lyapunov(c):
        return product(vt.T, _divided(product(vt, c, vt.T), size), vt)

    # Newton steps on the symmetry of Q'K, where Cayley's parametrisation (1 - skew/2)^-1 (1 + skew/2) stays orthogonal.
    # The derivative is that at Q = 1, which makes a step gain a factor of |Q - 1|, less than .25 where this is used.
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
    # The rotation by U and V is as good as its rounding.
    found = (jnp.sum(turn * turn) < 0.05) & (_norm(step) <= jnp.finfo(k.dtype).eps * k.shape[0] ** 0.5)
    return jnp.where(finite, product(u, vt), jnp.nan), jnp.where(found, turn, 0), found


@jax.custom_jvp
def _fit(a, b, difference):
    """The least |a - b Q|^2, a - b Q there, and Q."""
    asymmetry = product(b.T, difference)
    rotation, turn, found = on_matrices(_rotations, product(b.T, a), asymmetry - asymmetry.T)
    far, near = a - product(b, rotation), difference - product(b, turn)
    # Both rotations are orthogonal, so that the smaller distance, up to its rounding, is that of the better one.
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


@jax.custom_jvp
def squared_bures(a: jax.Array, b: jax.Array, difference: jax.Array) -> jax.Array:
    """The squared distance for factors `[d, m]` and their `difference`, to its own accuracy."""
    return _fit(a, b, difference)[0]


@squared_bures.defjvp
def _(primals, tangents):
    # At the minimum a change of the rotation changes nothing. Further derivatives know of it.
    value, least, rotation = _fit(*primals)
    return value, 2 * jnp.sum(least * (tangents[0] - product(tangents[1], rotation)))


# ---------------------------------------------------------------- factors, up to a rotation

# Their derivatives are those of a factor of the covariance, not of the triangular one: nothing here depends on which.


@jax.custom_jvp
def factors(p: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Factors of two covariances `[d, d]`: the roots, or by eigenvectors where a matrix is singular. NaN below that."""
    return on_matrices(_without_faults, p, q, cholesky(p), cholesky(q))


@factors.defjvp
def _(primals, tangents):
    a, b = factors(*primals)
    return (a, b), (_moved(a, tangents[0]), _moved(b, tangents[1]))


def _moved(a, change):
    """The change of a factor, for one of the covariance: da a' + a da' is the change as far as a rank stays."""
    rooted = jnp.all(jnp.triu(a, 1) == 0) & jnp.all(diagonal(a) > 0)
    by_root = 0.5 * solve_lower(jnp.where(rooted, a, jnp.eye(a.shape[0], dtype=a.dtype)), change).T
    inverse = a / or_one(jnp.sum(a * a, 0, keepdims=True))  # transposed, of a with orthogonal columns
    by_vectors = product(change, inverse) - product(0.5 * a, product(inverse.T, change, inverse))
    return jnp.where(rooted, by_root, by_vectors)


def _without_faults(p, q, root_p, root_q):
    first = _by_eigenvectors_where(jnp.isnan(root_p), p, root_p)
    # One library call after the other: see `linalg`.
    q, root_q, first = lax.optimization_barrier((q, root_q, first))
    return first, _by_eigenvectors_where(jnp.isnan(root_q), q, root_q)


def _by_eigenvectors_where(failed, m, root):
    """The root `[..., d, d]`, or another factor where there was none and m is finite."""
    failed = jnp.any(failed, (-2, -1), keepdims=True) & jnp.all(jnp.isfinite(m), (-2, -1), keepdims=True)

    def repaired(m, root):
        size, v = jnp.linalg.eigh(jnp.where(failed, m, 0), symmetrize_input=False)
        zero = 4 * m.shape[-1] * jnp.finfo(m.dtype).eps * jnp.max(jnp.abs(size), -1, keepdims=True)
        size = jnp.where(size > zero, size, jnp.where(size < -zero, jnp.nan, 0))
        return jnp.where(failed, v * jnp.sqrt(size)[..., None, :], root)

    return lax.cond(jnp.any(failed), repaired, lambda _, root: root, m, root)


@jax.custom_jvp
def factor_of_inverse(m: jax.Array) -> jax.Array:
    """A factor of the inverse of a positive definite matrix: its lower triangular root."""
    return root_of_inverse(m)


@factor_of_inverse.defjvp
def _(primals, tangents):
    a = factor_of_inverse(*primals)
    return a, product(-0.5 * a, product(a.T, tangents[0], a))


def difference_of_roots(p: jax.Array, q: jax.Array, change: jax.Array) -> jax.Array:
    """p - q for roots that are rounded, from the difference of the matrices they are roots of."""
    f = symmetric(solve_lower(q, solve_lower(q, change).T))
    near = jnp.sum(f * f) < 0.25
    e = jnp.tril(solve_lower(q, p - q))
    refined = product(q, refine(jnp.where(near, e, 0), jnp.where(near, f, 0)))
    # At equality the roots of one matrix, compiled twice, may differ in a last place.
    value = jnp.where(jnp.all(f == 0), 0, jnp.where(near, refined, p - q))
    return with_tangents(value, p - q)

r"""The squared Bures distance of two covariances by their roots, $\min_Q |L_p - L_q Q|^2$ over orthogonal $Q$.

The minimum is at $Q = U V'$, the polar factor of $K = L_q' L_p = U S V'$; $H = Q'K$ is symmetric and positive.
"""

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import with_tangents
from jaxdiv._gaussian.linalg import cholesky, refine, solve_lower, solve_upper, symmetric


@jax.custom_jvp
def _lyapunov(h, c):
    """The solution x of h x + x h = c for a positive definite h."""
    size, v = _eigh(h)
    return v @ ((v.T @ c @ v) / (size[:, None] + size[None])) @ v.T


@_lyapunov.defjvp
def _(primals, tangents):
    h, _ = primals
    dh, dc = tangents
    x = _lyapunov(*primals)
    return x, _lyapunov(h, dc - dh @ x - x @ dh)


def _eigh(h):
    finite = jnp.all(jnp.isfinite(h))
    size, v = jnp.linalg.eigh(jnp.where(finite, h, 0), symmetrize_input=False)
    return jnp.where(finite, size, jnp.nan), v


@jax.custom_jvp
def _rotations(p, q, difference):
    """Q, and Q - 1 to its own accuracy if the roots are close to each other."""
    k = q.T @ p
    finite = jnp.all(jnp.isfinite(k))
    # One library call for everything: see `_linalg`.
    u, size, vt = jnp.linalg.svd(jnp.where(finite, k, 0))
    sums = jnp.where(finite, size[:, None] + size[None], jnp.nan)

    def lyapunov(c):
        return vt.T @ ((vt @ c @ vt.T) / sums) @ vt

    # Newton steps on the symmetry of Q'K, where Cayley's parametrisation (1 - skew/2)^-1 (1 + skew/2) stays orthogonal.
    # The derivative is that at Q = 1, which makes a step gain a factor of |Q - 1|, less than .25 where this is used.
    asymmetry = q.T @ difference
    asymmetry = asymmetry - asymmetry.T
    skew = lyapunov(asymmetry)
    for _ in range(8):
        turn = _cayley_less_one(skew)
        skew = skew + lyapunov(asymmetry + turn.T @ k - k.T @ turn)
    return jnp.where(finite, u @ vt, jnp.nan), _cayley_less_one(skew)


def _cayley_less_one(skew):
    """The orthogonal matrix, less 1, as (1 - skew^2/4)^-1 (1 + skew/2) skew: of a positive definite matrix."""
    one = jnp.eye(skew.shape[0], dtype=skew.dtype)
    lower = cholesky(one + 0.25 * skew @ skew.T)
    return solve_upper(lower, solve_lower(lower, skew + 0.5 * skew @ skew))


@_rotations.defjvp
def _(primals, tangents):
    (p, q, _), (dp, dq, _) = primals, tangents
    rotation, turn = _rotations(*primals)
    # Q' dQ is skew and solves H x + x H = Q' dK - dK' Q.
    inner = rotation.T @ (dq.T @ p + q.T @ dp)
    change = rotation @ _lyapunov(symmetric(rotation.T @ (q.T @ p)), inner - inner.T)
    return (rotation, turn), (change, change)


@jax.custom_jvp
def squared_bures(p: jax.Array, q: jax.Array, difference: jax.Array) -> jax.Array:
    """The squared distance for lower triangular roots `[d, d]` and their `difference`, to its own accuracy."""
    least, _ = _least(p, q, difference)
    return jnp.sum(least * least)


@squared_bures.defjvp
def _(primals, tangents):
    # At the minimum a change of the rotation changes nothing. Further derivatives know of it.
    least, rotation = _least(*primals)
    return squared_bures(*primals), 2 * jnp.sum(least * (tangents[0] - tangents[1] @ rotation))


def _least(p, q, difference):
    """The difference p - q Q, and Q."""
    relative = solve_lower(q, difference)
    rotation, turn = _rotations(p, q, difference)
    near = (jnp.sum(relative * relative) < 0.25) & (jnp.sum(turn * turn) < 0.05)
    turn = jnp.where(near, turn, 0)
    least = jnp.where(near, difference - q @ turn, p - q @ rotation)
    return least, jnp.where(near, turn + jnp.eye(turn.shape[0], dtype=turn.dtype), rotation)


def difference_of_roots(p: jax.Array, q: jax.Array, change: jax.Array) -> jax.Array:
    """p - q for roots that are rounded, from the difference of the matrices they are roots of."""
    f = symmetric(solve_lower(q, solve_lower(q, change).T))
    near = jnp.sum(f * f) < 0.25
    e = jnp.tril(solve_lower(q, p - q))
    refined = q @ refine(jnp.where(near, e, 0), jnp.where(near, f, 0))
    # At equality the roots of one matrix, compiled twice, may differ in a last place.
    value = jnp.where(jnp.all(f == 0), 0, jnp.where(near, refined, p - q))
    return with_tangents(value, p - q)

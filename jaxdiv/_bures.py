r"""The squared Bures distance of two covariances by their roots, $\min_Q |L_p - L_q Q|^2$ over orthogonal $Q$.

The minimum is at $Q = U V'$, the polar factor of $K = L_q' L_p = U S V'$; $H = Q'K$ is symmetric and positive.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._linalg import cholesky, solve_lower, solve_upper, symmetric


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
def _polar(k):
    finite = jnp.all(jnp.isfinite(k))
    u, _, vt = jnp.linalg.svd(jnp.where(finite, k, 0))
    return jnp.where(finite, u @ vt, jnp.nan)


@_polar.defjvp
def _(primals, tangents):
    q = _polar(*primals)
    # Q' dQ is skew and solves H x + x H = Q' dK - dK' Q.
    inner = q.T @ tangents[0]
    return q, q @ _lyapunov(symmetric(q.T @ primals[0]), inner - inner.T)


@jax.custom_jvp
def _turn(p, q):
    """Q - 1 for roots p close to q, to its own accuracy: by two Newton steps on the symmetry of Q' K."""
    k = q.T @ p
    asymmetry = q.T @ (p - q)
    asymmetry = asymmetry - asymmetry.T
    h = symmetric(k)
    # Cayley's parametrisation 1 + turn = (1 - skew/2)^-1 (1 + skew/2) stays orthogonal.
    skew = _lyapunov(h, asymmetry)
    for _ in range(2):
        turn = _cayley_less_one(skew)
        skew = skew + _lyapunov(h, asymmetry + turn.T @ k - k.T @ turn)
    return _cayley_less_one(skew)


def _cayley_less_one(skew):
    """The orthogonal matrix, less 1, as (1 - skew^2/4)^-1 (1 + skew/2) skew: of a positive definite matrix."""
    one = jnp.eye(skew.shape[0], dtype=skew.dtype)
    lower = cholesky(one + 0.25 * skew @ skew.T)
    return solve_upper(lower, solve_lower(lower, skew + 0.5 * skew @ skew))


@_turn.defjvp
def _(primals, tangents):
    p, q = primals
    dp, dq = tangents
    return _turn(p, q), jax.jvp(_polar, (q.T @ p,), (dq.T @ p + q.T @ dp,))[1]


def squared_bures(p: jax.Array, q: jax.Array) -> jax.Array:
    """The squared distance for lower triangular roots `[d, d]`."""
    relative = solve_lower(q, p - q)
    near = jnp.sum(relative * relative) < 0.25
    turn = _turn(jnp.where(near, p, q), q)
    near &= jnp.sum(turn * turn) < 0.05
    turn = jnp.where(near, turn, 0)
    # One library call after the other: see `_linalg`.
    p, q, turn = lax.optimization_barrier((p, q, turn))
    polar = jnp.where(near, jnp.eye(p.shape[0], dtype=p.dtype), _polar(q.T @ p))
    difference = jnp.where(near, (p - q) - q @ turn, p - q @ polar)
    return jnp.sum(difference * difference)

r"""The squared Bures distance of two covariances by their roots, $\min_Q |L_p - L_q Q|^2$ over orthogonal $Q$.

The minimum is at $Q = U V'$, the polar factor of $K = L_q' L_p = U S V'$, and $H = Q'K$ is symmetric, positive definite.
"""

import jax
import jax.numpy as jnp

from jaxdiv._linalg import solve_lower, symmetric


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
    one = jnp.eye(k.shape[0], dtype=k.dtype)
    asymmetry = q.T @ (p - q)
    asymmetry = asymmetry - asymmetry.T
    h = symmetric(k)
    # Cayley's parametrisation keeps 1 + turn orthogonal.
    skew = _lyapunov(h, asymmetry)
    for _ in range(2):
        turn = jnp.linalg.solve(one - 0.5 * skew, skew)
        skew = skew + _lyapunov(h, asymmetry + turn.T @ k - k.T @ turn)
    return jnp.linalg.solve(one - 0.5 * skew, skew)


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
    polar = jnp.where(near, jnp.eye(p.shape[0], dtype=p.dtype), _polar(q.T @ p))
    difference = jnp.where(near, (p - q) - q @ turn, p - q @ polar)
    return jnp.sum(difference * difference)

"""A descent of many independent costs at once, in which no cost rises; and the derivatives of its end point."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.functions import or_one
from jaxdiv._core.rules import custom_jvp

MEMORY = 8

Evaluate = Callable[[jax.Array], tuple[jax.Array, jax.Array]]  # points [n, d] to costs [n] and gradients [n, d]


class _State(NamedTuple):
    """For n points: position, cost, gradient, fraction of a step to try; and the last m steps `[m, n, d]`.

    `moves` are the changes of the position in those steps, `bends` the changes of the gradient.
    """

    at: jax.Array
    cost: jax.Array
    slope: jax.Array
    share: jax.Array
    moves: jax.Array
    bends: jax.Array


def _dot(x, y):
    return jnp.sum(x * y, -1, keepdims=True)


def _direction(state):
    """The gradient times the inverse curvature that the last steps show; this inverse is positive definite."""
    steep, shares = state.slope, []
    curvatures = [_dot(*pair) for pair in zip(state.moves, state.bends, strict=True)]
    for move, bend, c in zip(state.moves[::-1], state.bends[::-1], curvatures[::-1], strict=True):
        shares.append(jnp.where(c > 0, _dot(move, steep) / or_one(c), 0))
        steep = steep - shares[-1] * bend
    last, bend = curvatures[-1], _dot(state.bends[-1], state.bends[-1])
    first = 1 / jnp.maximum(jnp.sqrt(_dot(steep, steep)), 1)  # a step of length 1 at most
    steep = steep * jnp.where(last > 0, last / or_one(bend), first)
    for move, bend, c, share in zip(state.moves, state.bends, curvatures, shares[::-1], strict=True):
        steep = steep + move * jnp.where(c > 0, share - _dot(bend, steep) / or_one(c), 0)
    return steep


def descend(evaluate: Evaluate, start: jax.Array, steps: int | jax.Array) -> jax.Array:
    """Points `[n, d]` of no larger cost, up to a few roundings, after at most `steps` evaluations. Not differentiable.

    L-BFGS as in Nocedal and Wright, Numerical optimization, 2006, algorithm 7.4. Steps are halved until the cost falls.
    """
    eps = jnp.finfo(start.dtype).eps

    def going(carry):
        i, state, direction = carry
        fall = state.share * _dot(direction, state.slope)[:, 0]
        worth = (fall > eps**1.5 * jnp.abs(state.cost)) & (state.share > eps)
        return (i < steps) & ((i == 0) | jnp.any(worth))

    def step(carry):
        i, state, direction = carry
        at = state.at - state.share[:, None] * direction
        cost, slope = evaluate(at)
        wanted = state.cost - 1e-4 * state.share * _dot(direction, state.slope)[:, 0]
        down = (cost <= wanted + 4 * eps * jnp.abs(wanted)) & jnp.all(jnp.isfinite(slope), -1) | (i == 0)
        move, bend = at - state.at, slope - state.slope
        # A pair without positive curvature would make the direction point uphill; zeros replace it.
        seen = (_dot(move, bend) > eps * _dot(bend, bend)) & (i > 0)
        pushed = [
            jnp.where(down[None, :, None], jnp.concatenate([old[1:], jnp.where(seen, new, 0)[None]]), old)
            for old, new in ((state.moves, move), (state.bends, bend))
        ]
        better = _State(at, cost, slope, jnp.ones_like(cost), *pushed)
        held = state._replace(share=0.5 * state.share)
        state = _State(*(_where(down, *pair) for pair in zip(better[:4], held[:4], strict=True)), *pushed)
        return i + 1, state, _direction(state)

    # The first step has length 0: it evaluates the start.
    none = jnp.zeros_like(start)[None] * jnp.zeros((MEMORY, 1, 1), start.dtype)
    still = jnp.zeros_like(start)
    state = _State(start, still[:, 0], still, still[:, 0] + 1, none, none)
    return lax.while_loop(going, step, (jnp.int32(0), state, still))[1].at


def _where(down, x, y):
    return jnp.where(down if x.ndim == 1 else down[:, None], x, y)


@functools.partial(custom_jvp, nondiff_argnums=(0,))
def stationary(gradient: Callable[[jax.Array, Any], jax.Array], at: jax.Array, data: Any) -> jax.Array:
    """`at`, with the derivatives with respect to `data` of the point where `gradient(at, data)` is 0.

    They are found by conjugate gradients.
    """
    del gradient, data
    return at


@stationary.defjvp
def _(gradient, primals, tangents):
    at, data = primals
    slope = jax.jvp(lambda data: gradient(at, data), (data,), (tangents[1],))[1]

    def curvature(change):
        return jax.jvp(lambda at: gradient(at, data), (at,), (change,))[1]

    def solve(curvature, slope):
        tolerance = float(jnp.finfo(slope.dtype).eps) ** 0.75
        return jax.scipy.sparse.linalg.cg(curvature, slope, tol=tolerance, maxiter=slope.size + 10)[0]

    return stationary(gradient, at, data), -lax.custom_linear_solve(curvature, slope, solve, symmetric=True)

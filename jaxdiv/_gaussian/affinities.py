"""Divergences from the affinity c(s) of any two distributions, normal or not: see `spectral` for the formulas."""

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import (
    LOG2,
    capped,
    entropy_of_weights,
    expm1,
    log_ratio,
    scaled_expm1,
    still_at_infinity,
    times,
    with_tangents,
)
from jaxdiv._gaussian.nodes import NODES_14, NODES_56, WEIGHTS_14, WEIGHTS_56


def js_nodes(dtype: jnp.dtype) -> tuple[float, ...]:
    """The nodes of `js_of_line` for a dtype."""
    return NODES_56 if dtype == jnp.float64 else NODES_14


def js_of_line(a: jax.Array, b: jax.Array) -> jax.Array:
    """The Jensen-Shannon divergence of any two laws, from log c(1/2 + i t) = A + i B at the nodes t of the dtype."""
    weights = WEIGHTS_56 if a.dtype == jnp.float64 else WEIGHTS_14
    return capped(jnp.sum(jnp.asarray(weights, a.dtype) * _one_less_real(a, b)), LOG2)


def weighted_js_of_line(a: jax.Array, b: jax.Array, weight: jax.Array, slopes: jax.Array) -> jax.Array:
    """The same with a weight `[1]` of the first law, always from 56 nodes.

    `slopes` `[2]` are KL(p, q) and KL(q, p): the slopes in the weights of p and of q at weight 0. Infinite ones
    count as 0.
    """
    t, quadrature = jnp.asarray(NODES_56, a.dtype), jnp.asarray(WEIGHTS_56, a.dtype)
    inside = (weight > 0) & (weight < 1)
    w = jnp.where(inside, weight, 0.5)
    angle = t * log_ratio(w, 1 - w, 2 * w - 1)
    total = jnp.sum(quadrature * (jnp.cos(angle) * _one_less_real(a, b) + jnp.sin(angle) * jnp.exp(a) * jnp.sin(b)))
    value = capped(2 * jnp.sqrt(w * (1 - w)) * total, entropy_of_weights(jnp.concatenate([w, 1 - w])))
    value = -capped(-value, 0.0)
    at_end = jnp.where(weight == 0, times(weight, slopes[:1]), times(1 - weight, slopes[1:]))
    end = jnp.where((weight == 0) | (weight == 1), with_tangents(0 * total + jnp.zeros_like(weight), at_end), jnp.nan)
    return jnp.where(inside, value, end)[0]


def _one_less_real(a, b):
    """The real part of 1 - c."""
    return -expm1(a) + 2 * jnp.exp(a) * jnp.sin(0.5 * b) ** 2


def renyi_of(k: jax.Array, alpha: jax.Array) -> jax.Array:
    """Log c(alpha) / (alpha - 1) from K(alpha), with its limit at 1; `nan` for a negative order."""
    return jnp.where(alpha >= 0, times(alpha, k), jnp.nan)


def amari_of(k: jax.Array, alpha: jax.Array) -> jax.Array:
    """(1 - c(alpha)) / (alpha (1 - alpha)) from K(alpha), with its limits at 0 and 1."""
    size = alpha * (1 - alpha)
    # If K is infinite, the affinity is 0 for alpha in (0, 1); for other orders the result is infinite, as K is.
    infinite = k == jnp.inf
    apart = infinite & (size > 0)
    finite = still_at_infinity(scaled_expm1, jnp.where(infinite, 0, k), jnp.where(infinite, 0, -size))
    return jnp.where(infinite, jnp.where(apart, 1 / jnp.where(apart, size, 1), jnp.inf), finite)

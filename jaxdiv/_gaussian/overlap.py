"""Total variation of two normal laws of one component: the masses between the points where their densities cross."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiv._gaussian.excess import LOG_2PI


class _Crossing(NamedTuple):
    """Where the densities cross: z in units of the narrow law, y in those of the wide one, and their `gap` z - y."""

    z: jax.Array
    y: jax.Array
    gap: jax.Array


class _Crossings(NamedTuple):
    """Both, for a narrow law whose mean is the larger one."""

    upper: _Crossing
    lower: _Crossing


def total_variation(contrast: Any) -> jax.Array:
    """Half the integral of |p - q|, `[1]`, of what `independent` says two laws differ in."""
    return _total_variation(contrast.offset, contrast.log_ratio, contrast.change, contrast.ratio)


@jax.custom_jvp
def _total_variation(offset, log_ratio, change, ratio):
    # The law of the smaller scale is the larger density between the crossings. Each end gives the mass of a standard
    # normal between y and z.
    upper, lower = _crossings(offset, log_ratio, change, ratio)
    return _mass(upper.z, upper.gap) + _mass(lower.z, lower.gap)


@_total_variation.defjvp
def _(primals, tangents):
    offset, log_ratio, *_ = primals
    # The densities agree at the crossings, so that moving one changes nothing, and the slope in the means is that in
    # the mean of the wide law. The other arguments are functions of the first two.
    upper, lower = _crossings(*primals)
    in_offset = jnp.sign(offset) * (_density(lower.y) - _density(upper.y))
    of_narrow = lower.z * _density(lower.z) - upper.z * _density(upper.z)
    in_log_ratio = jnp.where(log_ratio > 0, -of_narrow, of_narrow)
    change = in_offset * tangents[0] + in_log_ratio * tangents[1]
    return _total_variation(*primals), jnp.where((offset == 0) & (log_ratio == 0), 0, change)


def _crossings(offset, log_ratio, change, ratio):
    # y = ratio z + d, and y^2 = z^2 - 2 log(larger / smaller): a quadratic with roots of opposite signs. Beyond 1e4
    # nothing of one law is left under the other.
    d = jnp.where(jnp.abs(offset) > 1e4, 1e4, jnp.abs(offset))
    less, twice_log = jnp.abs(change), 2 * jnp.abs(log_ratio)
    lead = less * (1 + ratio)
    far = d * ratio + jnp.sqrt(d * d + twice_log * lead)
    empty = far == 0
    lower = -(d * d + twice_log) / jnp.where(empty, 1, far)
    # Beyond 100 no mass is left.
    upper = jnp.where(far < 100 * lead, far / jnp.where(lead == 0, 1, lead), 100)
    upper_y = ratio * upper + d
    upper_gap = twice_log / (upper + upper_y)
    return _Crossings(_Crossing(upper, upper_y, upper_gap), _Crossing(lower, ratio * lower + d, less * lower - d))


def _density(z):
    return jnp.exp(-0.5 * z * z - 0.5 * LOG_2PI)


@functools.cache
def _gauss_legendre():
    return np.polynomial.legendre.leggauss(16)  # an import that costs as much as all of the library's


def _mass(z, gap):
    """The absolute mass of a standard normal between z - gap and z."""
    # A quadrature of positive terms for short intervals, on which the difference of two integrals would cancel.
    size = jnp.abs(gap)
    short = jnp.where(size <= 2, gap, 0)
    nodes, weights = (jnp.asarray(x, z.dtype)[:, None] for x in _gauss_legendre())
    points = (z - 0.5 * short)[None] + 0.5 * short[None] * nodes
    quadrature = 0.5 * jnp.abs(short) * jnp.sum(weights * _density(points), 0)
    low, high = jnp.minimum(z, z - gap), jnp.maximum(z, z - gap)
    # From the nearer tail: erfc is accurate where it is small.
    flip = low + high > 0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    half = jnp.sqrt(jnp.asarray(0.5, z.dtype))
    return jnp.where(size <= 2, quadrature, 0.5 * (lax.erfc(-high * half) - lax.erfc(-low * half)))

"""Total variation of two scalar normal laws, from the masses between the points where their densities cross."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiv._core.rules import custom_jvp
from jaxdiv._gaussian.excess import LOG_2PI


class _Crossing(NamedTuple):
    """A point where the densities cross: z in units of the narrow law, y in units of the wide one; `gap` is z - y."""

    z: jax.Array
    y: jax.Array
    gap: jax.Array


class _Crossings(NamedTuple):
    """Both crossings; the narrow law is taken to have the larger mean."""

    upper: _Crossing
    lower: _Crossing


def total_variation(contrast: Any) -> jax.Array:
    """Half the integral of |p - q|, `[1]`, from the `Contrast` of two laws."""
    return _total_variation(contrast.offset, contrast.log_ratio, contrast.change, contrast.ratio)


@custom_jvp
def _total_variation(offset, log_ratio, change, ratio):
    # Between the crossings the narrow law has the larger density. Each crossing contributes the mass of a standard
    # normal between y and z.
    upper, lower = _crossings(offset, log_ratio, change, ratio)
    return _mass(upper.z, upper.gap) + _mass(lower.z, lower.gap)


@_total_variation.defjvp
def _(primals, tangents):
    offset, log_ratio, *_ = primals
    # The densities agree at the crossings, so moving a crossing has no first-order effect. The slope in the offset is
    # that in the mean of the wide law. The other arguments are functions of the first two.
    upper, lower = _crossings(*primals)
    in_offset = jnp.sign(offset) * (_density(lower.y) - _density(upper.y))
    of_narrow = lower.z * _density(lower.z) - upper.z * _density(upper.z)
    in_log_ratio = jnp.where(log_ratio >= 0, -of_narrow, of_narrow)
    change = in_offset * tangents[0] + in_log_ratio * tangents[1]
    return _total_variation(*primals), jnp.where((offset == 0) & (log_ratio == 0), 0, change)


def _crossings(offset, log_ratio, change, ratio):
    # y = ratio z + d and y^2 = z^2 - 2 log(larger / smaller): a quadratic whose roots have opposite signs. Beyond an
    # offset of 1e4 the laws do not overlap.
    d = jnp.where(jnp.abs(offset) > 1e4, 1e4, jnp.abs(offset))
    less, twice_log = jnp.abs(change), 2 * jnp.abs(log_ratio)
    lead = less * (1 + ratio)
    far = d * ratio + jnp.sqrt(d * d + twice_log * lead)
    empty = far == 0
    lower = -(d * d + twice_log) / jnp.where(empty, 1, far)
    # A standard normal has no mass beyond 100.
    upper = jnp.where(far < 100 * lead, far / jnp.where(lead == 0, 1, lead), 100)
    upper_y = ratio * upper + d
    upper_gap = twice_log / (upper + upper_y)
    return _Crossings(_Crossing(upper, upper_y, upper_gap), _Crossing(lower, ratio * lower + d, less * lower - d))


def _density(z):
    return jnp.exp(-0.5 * z * z - 0.5 * LOG_2PI)


@functools.cache
def _gauss_legendre(size):
    return np.polynomial.legendre.leggauss(size)  # imported late: it takes as long as all of jaxdiv


def _mass(z, gap):
    """The absolute mass of a standard normal between z - gap and z."""
    # For short intervals, in which the logarithm of the density changes by at most three, a quadrature of positive
    # terms; the difference of two integrals would cancel there. Its error is below the precision.
    size, end = jnp.abs(gap), z - gap
    near = size * jnp.maximum(jnp.maximum(jnp.abs(z), jnp.abs(end)), 1) <= 3
    short = jnp.where(near, gap, 0)
    middle, half = z - 0.5 * short, 0.5 * short
    rule = zip(*_gauss_legendre(12 if z.dtype == jnp.float64 else 7), strict=True)
    quadrature = jnp.abs(half) * sum(float(w) * _density(middle + float(x) * half) for x, w in rule)
    low, high = jnp.minimum(z, end), jnp.maximum(z, end)
    # Measured from the nearer tail, where erfc is small and accurate.
    flip = low + high > 0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    root = math.sqrt(0.5)
    return jnp.where(near, quadrature, 0.5 * (lax.erfc(-high * root) - lax.erfc(-low * root)))

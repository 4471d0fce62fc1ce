"""Total variation of two normal laws of one component: the masses between the points where their densities cross."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiv._core.polynomials import polynomial
from jaxdiv._gaussian.excess import LOG_2PI


class _Crossing(NamedTuple):
    """Where the densities cross: z in units of the narrow law, y in those of the wide one, and their `gap` z - y."""

    z: jax.Array
    y: jax.Array
    gap: jax.Array


class _Crossings(NamedTuple):
    """Both, and whether the first law is the narrow one. Means are reflected by `sign`: its is then the larger one."""

    upper: _Crossing
    lower: _Crossing
    narrow: jax.Array
    sign: jax.Array


def total_variation(p: Any, q: Any, difference: jax.Array) -> jax.Array:
    """Half the integral of |p - q|, `[1]`, of laws and the difference of their scales."""
    return _total_variation(p.loc, p.scale, q.loc, q.scale, difference)


@jax.custom_jvp
def _total_variation(loc_p, scale_p, loc_q, scale_q, difference):
    # The law of the smaller scale is the larger density between the crossings. Each end gives the mass of a standard
    # normal between y and z.
    upper, lower, _, _ = _crossings(loc_p, scale_p, loc_q, scale_q, difference)
    return _mass(upper.z, upper.gap) + _mass(lower.z, lower.gap)


@_total_variation.defjvp
def _(primals, tangents):
    loc_p, scale_p, loc_q, scale_q, difference = primals
    dloc_p, dscale_p, dloc_q, dscale_q, _ = tangents
    # The densities agree at the crossings, so that moving one changes nothing.
    upper, lower, narrow, sign = _crossings(*primals)

    def slopes(high, low):
        return _density(low) - _density(high), low * _density(low) - high * _density(high)

    of_narrow, of_wide = slopes(upper.z, lower.z), [-x for x in slopes(upper.y, lower.y)]
    smaller, larger = jnp.minimum(scale_p, scale_q), jnp.maximum(scale_p, scale_q)
    dloc_narrow, dloc_wide = (sign * jnp.where(narrow == keep, dloc_p, dloc_q) for keep in (True, False))
    dscale_narrow, dscale_wide = (jnp.where(narrow == keep, dscale_p, dscale_q) for keep in (True, False))
    change = (of_narrow[0] * dloc_narrow + of_narrow[1] * dscale_narrow) / smaller
    change += (of_wide[0] * dloc_wide + of_wide[1] * dscale_wide) / larger
    return _total_variation(*primals), jnp.where((loc_p == loc_q) & (difference == 0), 0, change)


def _crossings(loc_p, scale_p, loc_q, scale_q, difference):
    narrow = difference <= 0
    smaller, larger = jnp.minimum(scale_p, scale_q), jnp.maximum(scale_p, scale_q)
    ratio, less = smaller / larger, jnp.abs(difference) / larger
    offset = jnp.where(narrow, loc_p - loc_q, loc_q - loc_p) / larger
    sign = jnp.where(offset < 0, -1, 1).astype(loc_p.dtype)
    d = jnp.abs(offset)
    # y = ratio z + d, and y^2 = z^2 - 2 log(larger / smaller): a quadratic with roots of opposite signs.
    twice_log = 2 * (jnp.log(larger) - jnp.log(smaller))
    close = less < 0.5
    v = jnp.where(close, less / (2 - less), 0)
    twice_log = jnp.where(close, 4 * (v + v * (v * v) * polynomial("atanh", v * v)), twice_log)
    lead = less * (1 + ratio)
    far = d * ratio + jnp.sqrt(d * d + twice_log * lead)
    empty = far == 0
    lower = -(d * d + twice_log) / jnp.where(empty, 1, far)
    # Beyond 100 no mass is left.
    upper = jnp.where(far < 100 * lead, far / jnp.where(lead == 0, 1, lead), 100)
    upper_y = ratio * upper + d
    upper_gap = twice_log / (upper + upper_y)
    return _Crossings(
        _Crossing(upper, upper_y, upper_gap), _Crossing(lower, ratio * lower + d, less * lower - d), narrow, sign
    )


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

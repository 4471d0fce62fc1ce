r"""The KL divergence of a normal component with a logarithmic scale, elementwise: to N(0, 1) and to a prior.

With $z = (m - n) e^{-b}$ and $s = a - b$ for a law $N(m, e^{2a})$ and a prior $N(n, e^{2b})$ it is

    (exp(2 s) - 1 - 2 s) / 2 + z^2 / 2

Both terms are of second order and nothing in them cancels. Where the value is infinite its derivatives are 0; elsewhere
they are finite. So a mask, a weight or a cotangent of 0 makes them 0, not NaN.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiv._core.functions import bounded_slope, expm1, expm1x
from jaxdiv._core.rules import custom_jvp


def _growth(value, s):
    """exp(2 s) - 1, with s = 0 where the value is infinite, so that its derivatives are finite there."""
    return expm1(jnp.where(value == jnp.inf, 0, 2 * s))


@custom_jvp
def kl_to_standard(loc: jax.Array, log_scale: jax.Array) -> jax.Array:
    """KL divergence of N(m, exp(2 a)) to N(0, 1); exactly 0, with gradient 0, at m = a = 0."""
    return 0.5 * (expm1x(2 * log_scale) + loc * loc)


@kl_to_standard.defjvp
def _(primals, tangents):
    loc, log_scale = primals
    # Infinite values are recognised from the arguments: to use the value itself would need a second pass.
    largest = np.nextafter(log_scale.dtype.type(math.log(jnp.finfo(log_scale.dtype).max)), 0)  # may be rounded up
    overflows = 2 * log_scale >= largest
    dead = overflows | (log_scale == -jnp.inf) | (loc * loc == jnp.inf)
    growth = expm1(jnp.where(overflows, 0, 2 * log_scale))
    in_loc, in_log_scale = jnp.where(dead, 0, loc), jnp.where(dead, 0, growth)
    return kl_to_standard(*primals), in_loc * tangents[0] + in_log_scale * tangents[1]


def over_scale(x: jax.Array, log_scale: jax.Array) -> jax.Array:
    """x exp(-b), also where exp(-b) alone would overflow or underflow; 0 for x = 0, whatever b."""
    # There are two factors: the second is exactly 1 if the first is enough, else both are equal. The argument of exp is
    # bounded, not its result, so that no derivative is infinite. `where` is used because a minimum may lose NaN, and
    # because XLA on CPU stores an exponential that is used twice, but computes a choice again.
    most = 0.98 * math.log(jnp.finfo(x.dtype).max)
    far = jnp.abs(log_scale) > most
    exponent = jnp.where(log_scale < -2 * most, -2 * most, log_scale) * jnp.where(far, -0.5, -1)
    factor = jnp.where(log_scale > 2 * most, 0, jnp.exp(exponent))
    return (x * factor) * jnp.where(far, factor, 1)


def difference(log_scale: jax.Array, other: jax.Array) -> jax.Array:
    """The difference of two logarithms; 0 also if both are the same infinity."""
    same = jnp.isinf(log_scale) & (log_scale == other)
    return jnp.where(same, 0, log_scale - jnp.where(same, 0, other))


def _standardised(loc, log_scale, prior_loc, prior_log_scale):
    return over_scale(loc - prior_loc, prior_log_scale), difference(log_scale, prior_log_scale)


@custom_jvp
def kl_to_prior(loc: jax.Array, log_scale: jax.Array, prior_loc: jax.Array, prior_log_scale: jax.Array) -> jax.Array:
    """KL divergence of N(m, exp(2 a)) to N(n, exp(2 b)); exactly 0, with gradient 0, where they are equal."""
    z, s = _standardised(loc, log_scale, prior_loc, prior_log_scale)
    return 0.5 * (expm1x(2 * s) + z * z)


@kl_to_prior.defjvp
def _(primals, tangents):
    value = kl_to_prior(*primals)
    dead = value == jnp.inf
    loc, log_scale, prior_loc, prior_log_scale = (jnp.where(dead, 0, x) for x in primals)
    z, s = _standardised(loc, log_scale, prior_loc, prior_log_scale)
    growth = _growth(value, s)
    in_loc = over_scale(z, prior_log_scale)
    in_loc, in_log_scale, in_prior = (bounded_slope(value, slope) for slope in (in_loc, growth, -growth - z * z))
    d_loc, d_log_scale, d_prior_loc, d_prior_log_scale = tangents
    return value, in_loc * (d_loc - d_prior_loc) + in_log_scale * d_log_scale + in_prior * d_prior_log_scale

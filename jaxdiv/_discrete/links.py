r"""The derivative $f'(u)$ of a divergence's generator, $D(p, q) = \mathrm{E}_q f(p / q)$, from $c = \log u$.

Of the generators that are terms, $f(1) = f'(1) = 0$: the derivative has the sign of $c$. Each form takes c alone and is
accurate to c's own digits; none needs exp(|c|) where the result does not.
"""

import jax.numpy as jnp

from jaxdiv._core.functions import or_one, scaled_expm1


def _log_mixture(c, weight):
    """log(w + (1 - w) exp(-c)), accurate where it is small."""
    # The first form is that of differences; far below 0 its exponential is infinite and its digits are not needed.
    near = c > -50
    far = jnp.logaddexp(jnp.log1p(-weight), jnp.log(weight) + c) - c
    return jnp.where(near, jnp.log1p((1 - weight) * jnp.expm1(-jnp.where(near, c, 0))), far)


def _amari(c, alpha):
    # At its limit alpha = 1 it is c, also where 0 c is no number.
    delta, infinite = alpha - 1, jnp.isinf(c)
    return jnp.where(infinite & (delta == 0), c, scaled_expm1(jnp.where(infinite & (delta == 0), 0, c), delta))


def _rescaled_js(c, weight):
    inner = -_log_mixture(c, weight) / or_one(1 - weight)
    return jnp.where(weight == 1, -jnp.expm1(-c), jnp.where(weight == 0, c, inner))


def _triangular(c):
    contrast = jnp.tanh(0.5 * c)
    return contrast * (2 - contrast)


LINKS = {
    "kl": lambda c: c,
    "jeffreys": lambda c: c - jnp.expm1(-c),
    "js": lambda c: -0.5 * _log_mixture(c, 0.5 * jnp.ones_like(c)),
    "skewed_js": lambda c, weight: jnp.where(weight == 0, 0, -weight * _log_mixture(c, weight)),
    "rescaled_js": _rescaled_js,
    "amari": _amari,
    "squared_hellinger": lambda c: -0.5 * jnp.expm1(-0.5 * c),
    "total_variation": lambda c: 0.5 * jnp.sign(c),
    "chi2": lambda c: 2 * jnp.expm1(c),
    "triangular": _triangular,
}

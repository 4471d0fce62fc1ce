"""Terms of two masses with elementwise derivatives: for vectors of probabilities, of which no logarithm is at hand.

The masses are `enlarged`. A term is `nan` where a mass is negative or `nan`. As in all slopes, a derivative is 0 where
the mass is 0 or the term infinite, and the largest float where it overflows.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import log_of_enlarged, or_one, root
from jaxdiv._core.rules import custom_jvp

Term = Callable[[jax.Array, jax.Array], jax.Array]


def _term(value, slopes) -> Term:
    """A term by its values and by its derivatives in both masses."""

    @custom_jvp
    def term(p, q):
        return jnp.where((p >= 0) & (q >= 0), value(p, q), jnp.nan)

    def rule(primals, tangents):
        found, tangent = term(*primals), jnp.zeros_like(primals[0])
        most = jnp.finfo(found.dtype).max
        for x, slope, dx in zip(primals, slopes(*primals), tangents, strict=True):
            if dx is not None:
                slope = jnp.where((x == 0) | (found == jnp.inf), 0, jnp.clip(slope, -most, most))
                tangent += jnp.where(jnp.isnan(found), found, slope) * dx
        return found, tangent

    term.defjvp(rule, symbolic_zeros=True)
    return term


def _total_variation_slopes(p, q):
    slope = 0.5 * jnp.sign(p - q)
    return slope, -slope


def _root_difference(p, q):
    """sqrt(p) - sqrt(q)."""
    return (p - q) / or_one(root(p) + root(q))


def _squared_hellinger_slopes(p, q):
    half = 0.5 * _root_difference(p, q)
    return half / or_one(root(p)), -half / or_one(root(q))


def _chi2(p, q):
    return jnp.where(q == 0, jnp.where(p == 0, 0, jnp.inf), (p - q) * ((p - q) / or_one(q)))


def _chi2_slopes(p, q):
    excess = (p - q) / or_one(q)
    return 2 * excess, -excess * (excess + 2)


def _contrast(p, q):
    return (p - q) / or_one(p + q)


def _triangular_slopes(p, q):
    contrast = _contrast(p, q)
    return contrast * (2 - contrast), -contrast * (2 + contrast)


total_variation = _term(lambda p, q: 0.5 * jnp.abs(p - q), _total_variation_slopes)
squared_hellinger = _term(lambda p, q: 0.5 * _root_difference(p, q) ** 2, _squared_hellinger_slopes)
chi2 = _term(_chi2, _chi2_slopes)
triangular = _term(lambda p, q: (p - q) * _contrast(p, q), _triangular_slopes)


# ---------------------------------------------------------------- not 0 at equality


@custom_jvp
def geometric_mean(p: jax.Array, q: jax.Array) -> jax.Array:
    """sqrt(p q) of `enlarged` masses, enlarged. Its slope in a mass of 0 is 0, by convention."""
    return jnp.where((p >= 0) & (q >= 0), root(p) * root(q), jnp.nan)


@geometric_mean.defjvp
def _(primals, tangents):
    p, q = primals
    dp, dq = tangents
    slope = 0.5 * root(q) / or_one(root(p)), 0.5 * root(p) / or_one(root(q))
    return geometric_mean(p, q), jnp.where(p == 0, 0, slope[0] * dp) + jnp.where(q == 0, 0, slope[1] * dq)


@custom_jvp
def cross_entropy(p: jax.Array, q: jax.Array) -> jax.Array:
    """-p log q of `enlarged` masses, enlarged; 0 where p is 0, `nan` where one is negative."""
    return -p * jnp.where((p == 0) & (q >= 0), 0, jnp.where((p >= 0) & (q >= 0), log_of_enlarged(q), jnp.nan))


@cross_entropy.defjvp
def _(primals, tangents):
    p, q = primals
    dp, dq = tangents
    at_p = jnp.where((p == 0) | (q == 0), 0, -log_of_enlarged(q))
    largest = jnp.finfo(q.dtype).max
    at_q = jnp.where(q == 0, 0, jnp.clip(-p / or_one(q), -largest, largest))
    return cross_entropy(p, q), at_p * dp + at_q * dq

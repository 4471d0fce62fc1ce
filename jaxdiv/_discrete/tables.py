r"""Sums of a term over all pairs of two batches of probability vectors; for common terms, without a logarithm per term.

With $v = (p - q) / (p + q)$, $b = 1 - |v| = 2 \min(p, q) / (p + q)$ and $c = \log p - \log q$ the terms are

    JS:        (p + q) / 4 J(v),       J = v^2 poly(v^2)  near,  2 log(2 - b) - b |c|  far
    KL:        p log(p / q) - p + q    = (p - q) v + 2 p v^3 poly(v^2)  near,  p c - (p - q)  far
    Jeffreys:  (p - q) log(p / q)      = 2 (p - q) (v + v^3 poly(v^2))  near,  (p - q) c  far

In the far form, c is above 1 or is multiplied by a bounded number, so logarithms taken once per row are accurate
enough. They are kept as an exponent and the logarithm of a mantissa, so they stay accurate for any magnitude. A zero
becomes the smallest normal number, which is far below any enlarged number, so terms need no mask. Every term is
non-negative, and exactly 0 for p = q.

Vectors are `[n, k]` and `[m, k]`, enlarged; their table is `[n, m]`, also enlarged.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiv._core import tuning
from jaxdiv._core.functions import LOG2
from jaxdiv._core.polynomials import polynomial


def all_pairs(term: Callable[[jax.Array, jax.Array], jax.Array], p: jax.Array, q: jax.Array) -> jax.Array:
    """The table of any term that is 0 where both probabilities are 0."""
    return _sums(term, _padded(p), _padded(q))


def _sums(term, p, q):
    """The same for trees of arrays `[n, k]` and `[m, k]`."""

    def add(total, chunk):
        p, q = chunk
        terms = (term(*(jax.tree.map(lambda x: x[i], y) for y in (p, q))) for i in range(tuning.CHUNK))  # noqa: B023
        return total + functools.reduce(jnp.add, terms), None

    # Computed from the inputs, so that it varies over a mesh as they do.
    of_p, of_q = (jax.tree.leaves(x)[0][:, 0] for x in (p, q))
    start = jnp.zeros_like(of_p[:, None] + of_q[None])
    return lax.scan(add, start, (_chunks(p, 3), _chunks(q, 2)))[0]


def _chunks(laws, axis):
    """`[n, k]` to `[k / CHUNK, CHUNK, n]` with an axis for the other batch."""
    return jax.tree.map(lambda x: jnp.expand_dims(x.T.reshape(-1, tuning.CHUNK, len(x)), axis), laws)


def _padded(x):
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % tuning.CHUNK)))


# ---------------------------------------------------------------- without a logarithm per term


# Terms multiply by an inverse: a quotient would halve the speed.


class _Numbers(NamedTuple):
    """Positive numbers, and their logarithms as `exponent` log 2 + `log_mantissa`."""

    x: jax.Array
    exponent: jax.Array
    log_mantissa: jax.Array


def _valid(x):
    return jnp.where(x >= 0, x, jnp.nan)


def _numbers(x):
    """The `_Numbers` of enlarged numbers; `nan` where one is negative."""
    info, integer = jnp.finfo(x.dtype), jnp.int64 if x.dtype == jnp.float64 else jnp.int32
    x = jnp.maximum(_valid(x), info.tiny)
    bits = lax.bitcast_convert_type(x, integer)
    # The mantissa is between the square roots of 1/2 and 2, so that its logarithm is small if that of x is.
    least = np.sqrt(np.asarray(0.5, x.dtype)).view(integer)
    exponent = (bits - least) >> info.nmant
    mantissa = lax.bitcast_convert_type(bits - (exponent << info.nmant), x.dtype)
    return _Numbers(x, exponent.astype(x.dtype), jnp.log(mantissa))


def _log_ratio(p, q):
    return (p.exponent - q.exponent) * LOG2 + (p.log_mantissa - q.log_mantissa)


def _js_term(p, q):
    """Four times the Jensen-Shannon term."""
    total = p.x + q.x
    inverse = 1 / total
    v = (p.x - q.x) * inverse
    z, b = v * v, 2 * jnp.minimum(p.x, q.x) * inverse
    far = polynomial("log_two_less", b) - b * jnp.abs(_log_ratio(p, q))
    # The two fits meet at |v| = 0.6, where b is 0.4.
    return total * jnp.where(z > 0.36, far, z * polynomial("js_v", z))


def _kl_term(p, q):
    delta = p.x - q.x
    v = delta * (1 / (p.x + q.x))
    z = v * v
    close = v * (delta + 2 * p.x * (z * polynomial("atanh", z)))
    # z = 1/4 is the end of the fit: one number is three times the other.
    return jnp.where(z > 0.25, p.x * _log_ratio(p, q) - delta, close)


def _jeffreys_term(p, q):
    delta = p.x - q.x
    v = delta * (1 / (p.x + q.x))
    z = v * v
    return delta * jnp.where(z > 0.25, _log_ratio(p, q), 2 * (v + v * (z * polynomial("atanh", z))))


def _with_infinity(x):
    """The `_Numbers` of x, with logarithm -inf at 0."""
    numbers = _numbers(x)
    return numbers._replace(log_mantissa=jnp.where(x == 0, -jnp.inf, numbers.log_mantissa))


def js(p: jax.Array, q: jax.Array) -> jax.Array:
    """The table of Jensen-Shannon divergences."""
    return 0.25 * _sums(_js_term, _numbers(_padded(p)), _numbers(_padded(q)))


def kl(p: jax.Array, q: jax.Array) -> jax.Array:
    """The table of Kullback-Leibler divergences."""
    return _sums(_kl_term, _numbers(_padded(p)), _with_infinity(_padded(q)))


def jeffreys(p: jax.Array, q: jax.Array) -> jax.Array:
    """The table of Jeffreys divergences."""
    return _sums(_jeffreys_term, _with_infinity(_padded(p)), _with_infinity(_padded(q)))


def chi2(p: jax.Array, q: jax.Array) -> jax.Array:
    """The table of chi-squared divergences."""

    def term(p, q):
        delta = p - q[0]
        return jnp.where(delta == 0, 0, delta * (delta * q[1]))

    p, q = _valid(_padded(p)), _valid(_padded(q))
    return _sums(term, p, (q, 1 / q))

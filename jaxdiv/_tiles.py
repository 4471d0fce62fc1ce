r"""Tables of Jensen-Shannon and Kullback-Leibler divergences of probability vectors, without a logarithm per term.

With $v = (p - q) / (p + q)$, $b = 1 - |v| = 2 \min(p, q) / (p + q)$ and $c = \log p - \log q$ the terms are

    JS:  (p + q) / 4 J(v),       J = v^2 poly(v^2)  near,  2 log(2 - b) - b |c|  far
    KL:  p log(p / q) - p + q    = (p - q) v + 2 p v^3 poly(v^2)  near,  p c - (p - q)  far.

Far, c is multiplied by something bounded or is above 1, so logarithms taken once per row are accurate enough; as an
exponent and the logarithm of a mantissa they stay so for any magnitude. A zero becomes the smallest normal number, far
below any enlarged one, so nothing is masked in a term. Every term is non-negative, and exactly 0 for p = q.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiv._inputs import working
from jaxdiv.elementary import ENLARGEMENT, LOG2, at_most, enlarged, polynomial

# Terms written out in one loop body. Up to 15, XLA moves their slicing into the loop over pairs, which then is not
# vectorised: six times slower. A quotient in a term, rather than a product with an inverse, halves the speed too.
_CHUNK = 16


class _Numbers(NamedTuple):
    """Positive numbers with their logarithms, `exponent` log 2 + `log_mantissa`."""

    x: jax.Array
    exponent: jax.Array
    log_mantissa: jax.Array


def _numbers(x):
    """Enlarged numbers, `nan` where one is negative."""
    info, integer = jnp.finfo(x.dtype), jnp.int64 if x.dtype == jnp.float64 else jnp.int32
    x = jnp.where(x >= 0, jnp.maximum(x, info.tiny), jnp.nan)
    bits = lax.bitcast_convert_type(x, integer)
    # The mantissa is between the square roots of 1/2 and 2: its logarithm is small where that of x is.
    least = np.sqrt(np.asarray(0.5, x.dtype)).view(integer)
    exponent = (bits - least) >> info.nmant
    mantissa = lax.bitcast_convert_type(bits - (exponent << info.nmant), x.dtype)
    return _Numbers(x, exponent.astype(x.dtype), jnp.log(mantissa))


def _log_ratio(p, q):
    return (p.exponent - q.exponent) * LOG2 + (p.log_mantissa - q.log_mantissa)


def _js_term(p, q):
    """Four times the term."""
    total = p.x + q.x
    inverse = 1 / total
    v = (p.x - q.x) * inverse
    z, b = v * v, 2 * jnp.minimum(p.x, q.x) * inverse
    far = polynomial("log_two_less", b) - b * jnp.abs(_log_ratio(p, q))
    return total * jnp.where(z > 0.36, far, z * polynomial("js_v", z))


def _kl_term(p, q):
    delta = p.x - q.x
    v = delta * (1 / (p.x + q.x))
    z = v * v
    close = v * (delta + 2 * p.x * (z * polynomial("atanh", z)))
    return jnp.where(z > 0.25, p.x * _log_ratio(p, q) - delta, close)


def _chunks(numbers, axis):
    """`[n, k]` to `[k / _CHUNK, _CHUNK, n]` with an axis for the other batch."""
    return jax.tree.map(lambda x: jnp.expand_dims(x.T.reshape(-1, _CHUNK, len(x)), axis), numbers)


def _padded(x, dtype):
    # Zeros on both sides: their terms are 0.
    return enlarged(jnp.pad(x, ((0, 0), (0, -x.shape[1] % _CHUNK))).astype(dtype))


def _sums(term, p, q):
    """Sums of a term over all pairs of `[n, k]` and `[m, k]` numbers."""

    def add(total, chunk):
        p, q = chunk
        terms = (term(*(jax.tree.map(lambda x: x[i], y) for y in (p, q))) for i in range(_CHUNK))  # noqa: B023
        return total + functools.reduce(jnp.add, terms), None

    # From the inputs, so that it varies over a mesh as they do.
    start = jnp.zeros_like(p.x[:, :1] + q.x[None, :, 0])
    return lax.scan(add, start, (_chunks(p, 3), _chunks(q, 2)))[0] / ENLARGEMENT


def kl(ps: jax.Array, qs: jax.Array) -> jax.Array:
    """KL of all pairs of `[n, k]` and `[m, k]`, `[n, m]` in the working precision."""
    dtype = working(ps, qs)
    p, q = _padded(ps, dtype), _padded(qs, dtype)
    of_q = _numbers(q)
    return _sums(_kl_term, _numbers(p), of_q._replace(log_mantissa=jnp.where(q == 0, -jnp.inf, of_q.log_mantissa)))


def js(ps: jax.Array, qs: jax.Array) -> jax.Array:
    """JS of all pairs of `[n, k]` and `[m, k]`, `[n, m]` in the working precision; at most log 2 for sums of one."""
    dtype = working(ps, qs)
    p, q = _padded(ps, dtype), _padded(qs, dtype)
    mass = (0.5 / ENLARGEMENT) * (jnp.sum(p, 1)[:, None] + jnp.sum(q, 1)[None])
    bound = jnp.where(mass <= 1 + 4 * jnp.finfo(dtype).eps, LOG2, math.inf)
    return at_most(0.25 * _sums(_js_term, _numbers(p), _numbers(q)), bound)

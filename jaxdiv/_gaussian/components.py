r"""K(s) of two normal laws of independent components, elementwise, for any real order s: see `spectral` for what it is.

Let $N(o) = (1 - o) A + o B$ for the variances A of p and B of q of one component. Then K(s) is half of
$\delta^2 / N(s)$, less half of the second divided difference of log N over the orders 0, 1 and s. Let m be the middle
one of these three, g and h the distances of the outer two from it, and $N_g$ and $N_h$ the variances there. Then

$$K(s) = \frac{\delta^2}{2 N(s)} + \frac{1}{2 (g + h)} \left[ \frac1g \phi\Bigl(\frac{N_g}{N(m)} - 1\Bigr)
       + \frac1h \phi\Bigl(\frac{N_h}{N(m)} - 1\Bigr) \right], \qquad \phi(e) = e - \log(1 + e) \ge 0 .$$

Nothing cancels, as $N_g / N(m) - 1 = \pm g (A - B) / N(m)$. The slopes have no logarithm:

$$dK = \frac{\delta}{N} \, d\delta
     + \left[ \frac{A - B}{N} - \frac{(1 - s) A}{N} \frac{\delta^2}{N} \right] \frac{d\sigma_p}{\sigma_p}
     - \left[ \frac{A - B}{N} + \frac{s B}{N} \frac{\delta^2}{N} \right] \frac{d\sigma_q}{\sigma_q} .$$
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import LOG2, exponent_of, or_one, power_of_two
from jaxdiv._core.polynomials import polynomial
from jaxdiv._core.rules import custom_jvp
from jaxdiv._gaussian.spectral import derivative_in_s

Law = Any  # a NamedTuple of the means and the scales, or what stands for them


class Sizes(NamedTuple):
    """What K depends on, in a unit of about the larger scale, elementwise."""

    p_larger: jax.Array  # whether p has the larger scale, or an equal one
    above: jax.Array  # the larger variance
    below: jax.Array  # the smaller variance; 0 if it underflows
    difference: jax.Array  # the larger variance less the smaller one
    offset: jax.Array  # the difference of the means
    # The logarithm of the smaller scale over the larger, also if that is tiny, is log(lifted / large) - lift.
    lifted: jax.Array
    large: jax.Array
    lift: jax.Array


class Pair(NamedTuple):
    """Two laws in a unit of about the larger scale, elementwise and differentiable."""

    variance_p: jax.Array
    variance_q: jax.Array
    difference: jax.Array  # the variance of p less that of q
    offset: jax.Array  # the mean of p less that of q


class View(NamedTuple):
    """How the components of a parametrisation are seen; functions of two laws."""

    sizes: Callable[[Law, Law], Sizes]
    pair: Callable[[Law, Law], Pair]
    # The slopes in all fields, from those in the offset in the unit of `pair` and in the logarithms of both scales.
    slopes: Callable[[Law, Law, jax.Array, jax.Array, jax.Array], Sequence[jax.Array]]


# XLA on CPU stores a quotient, an exponential or a logarithm that is used twice, and all that it and its users share.
# It computes a choice again instead, so that everything is one loop.


def quotient(x: jax.Array, y: jax.Array) -> jax.Array:
    """x / y for a positive y; it can be used twice without being stored."""
    return jnp.where(y < 0, 0, x / y)


def _log_and_chi(near, e, x):
    """log(1 + e) from x = 1 + e, or from e where that is near 0; there 1 - log(1 + e) / e too."""
    # Far from 0, x is m 2^n. With r = f / (2 + f), log(1 + f) = 2 atanh r = 2 r + 2 r^3 P for f = e and f = m - 1. The
    # polynomial P is fitted on |r| <= 1/2, that is -2/3 <= f <= 2.
    n = exponent_of(x)
    m = x * power_of_two(-n, x.dtype)
    r = quotient(jnp.where(near, e, m - 1), 1 + jnp.where(near, x, m))
    more = r * r * polynomial("atanh", r * r)
    return 2 * r * (1 + more) + jnp.where(near, 0, n.astype(x.dtype) * LOG2), r - (1 - r) * more


def _summands(s, sizes):
    """The summands of K(s), `inf` where the integral diverges."""
    p_larger, above, below, difference, offset, lifted, large, lift = sizes
    # The weights of the larger and the smaller variance in that at s. If one is negative, the order in the middle is
    # that of the other law. These are its distances from the other two orders, and what divides by them and their sum.
    of_large, of_small = jnp.where(p_larger, 1 - s, s), jnp.where(p_larger, s, 1 - s)
    per_p, per_q = 1 / or_one(1 - s), 1 / or_one(s)
    at_small, at_large = of_large < 0, of_small < 0
    to_large, per_large = (
        jnp.where(at_small, 1, jnp.where(at_large, -weight, weight))
        for weight in (of_small, jnp.where(p_larger, per_q, per_p))
    )
    to_small, per_small = (
        jnp.where(at_large, 1, jnp.where(at_small, -weight, weight))
        for weight in (of_large, jnp.where(p_larger, per_p, per_q))
    )
    per_width = jnp.where(s > 1, per_q, jnp.where(s < 0, per_p, 1))
    beyond = jnp.where(at_small, below - to_small * difference, above + to_large * difference)
    n = jnp.where(at_small | at_large, beyond, of_large * above + of_small * below)
    middle = jnp.where(at_small, below, jnp.where(at_large, above, n))
    converges = ~(n <= 4 * jnp.finfo(n.dtype).tiny)
    k = jnp.where(converges, difference / middle, 0)
    up, down = to_large * k, to_small * k
    near = up <= 1.9
    log, chi = _log_and_chi(near, up, 1 + up)
    gain = jnp.where(near, k * chi, k - log * per_large)
    # 1 - down is a quotient of variances, or if the smaller one may underflow it is the square of one of scales.
    near, tiny = down <= 0.6, below < above * _tiny(below.dtype)
    more = jnp.where(at_large, 0, log)
    ratio = quotient(jnp.where(tiny, lifted, jnp.where(at_small, n, below)), jnp.where(tiny, large, middle))
    log, chi = _log_and_chi(near, -down, ratio)
    loss = jnp.where(near, k * chi, k + jnp.where(tiny, 2 * (log - lift) + more, log) * per_small)
    value = (0.5 * per_width) * (gain - loss) + 0.5 * (offset * (offset / n))
    return jnp.where(converges, value, jnp.where(jnp.isnan(offset), offset, jnp.inf))


def _tiny(dtype):
    return 64 * float(jnp.finfo(dtype).tiny)


def _slopes(s, pair):
    """The slopes of the summands in the offset and in the logarithms of the scales of p and of q."""
    of_p, of_q = (1 - s) * pair.variance_p, s * pair.variance_q
    beyond = jnp.where(s > 1, pair.variance_q + (1 - s) * pair.difference, pair.variance_p - s * pair.difference)
    inverse = quotient(jnp.ones_like(of_p), jnp.where((s >= 0) & (s <= 1), of_p + of_q, beyond))
    v = pair.offset * inverse
    square = pair.offset * v
    k = pair.difference * inverse
    return v, k - of_p * inverse * square, -k - of_q * inverse * square


def k_of(view: View) -> Callable[[jax.Array, Law, Law], jax.Array]:
    """K(s) `[1]` at a number s `[1]` of two laws that are seen so; its derivatives of every order are exact."""
    return functools.partial(_k, view, 0)


@functools.partial(custom_jvp, nondiff_argnums=(0, 1))
def _k(view, order, s, p, q):
    """The derivative of K in s of the given order."""
    sizes = view.sizes(p, q)
    if sizes.offset.size not in (1, 2):
        return derivative_in_s(lambda s: jnp.sum(_summands(s, sizes), keepdims=True), order)(s)
    # XLA on CPU does not vectorise a loop over pairs of numbers. If there is no longer sum, it would compute the value
    # again in the loop of each slope; a quotient is stored.
    parts = [type(sizes)(*x) for x in zip(*(jnp.split(x, sizes.offset.size) for x in sizes), strict=True)]
    value = derivative_in_s(lambda s: functools.reduce(jnp.add, [_summands(s, part) for part in parts]), order)(s)
    return value / jnp.where(jnp.isnan(value), jnp.nan, 1)


def _k_rule(view, order, primals, tangents):
    value = _k(view, order, *primals)
    # Where the integral diverges the derivative is 0: equal laws stand in.
    infinite = jnp.isinf(value if order == 0 else _k(view, 0, *primals))
    s, p, q = jax.tree.map(lambda x: jnp.where(infinite, 1, x), primals)
    ds, *moved = tangents

    def change(s):
        slopes = view.slopes(p, q, *_slopes(s, view.pair(p, q)))
        moving = [(x, d) for x, d in zip(slopes, [d for law in moved for d in law], strict=True) if d is not None]
        return sum((jnp.sum(x * d, keepdims=True) for x, d in moving), jnp.zeros_like(s))

    tangent = derivative_in_s(change, order)(s)
    if ds is not None:  # the derivative in s costs the next derivative of K, so it is computed on demand
        tangent += _k(view, order + 1, s, p, q) * ds
    return value, tangent


_k.defjvp(_k_rule, symbolic_zeros=True)

r"""Functions of the affinity $S(s) = \sum p^s q^{1-s}$ of two events, elementwise: Renyi, Bhattacharyya, Chernoff.

With F(z) = log(1 + exp(z)) and the logits x and y of `binary`, log S(s) = F(m) - s F(x) - (1 - s) F(y) for the logit
m = s x + (1 - s) y of the law p^s q^(1-s) / S(s). The tangents of F at any one point cancel in this sum. Less that at
m, or for s > 1 that at x, it has two terms, of equal signs and of second order in x - y.
"""

import functools

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import expm1, log1p_ratio, tangent_in_parameters
from jaxdiv._core.polynomials import polynomial
from jaxdiv._core.rules import custom_jvp
from jaxdiv._discrete.binary import laws_of, sign


def _seen_from_top(a, b):
    """The logits x >= 0 of p and y of q for the top of p, and t = x - y, made finite."""
    x, y = sign(a) * a, sign(a) * b
    huge = jnp.finfo(x.dtype).max / 4
    return x, y, jnp.clip(jnp.where((a == b) & jnp.isinf(a), 0, x - y), -huge, huge)


def _finite(x):
    """A huge logit in place of an infinite one, for derivatives, which must not multiply infinity by zero."""
    huge = jnp.finfo(x.dtype).max ** 0.25
    return jnp.clip(x, -huge, huge)


def _excess(less, z):
    """k(z) / (z^2 m (1 - m)), for k(z) = log((1 - m) exp(-m z) + m exp((1 - m) z)) >= 0 with m = `less`.

    |z| must be at most 1.5 / (1 - m), and m at most 1/2.
    """
    more = 1 - less
    second = less * polynomial("exp", -less * z) + more * polynomial("exp", more * z)
    gain = less * more * second * (z * z)
    r = gain / (2 + gain)  # k = log(1 + gain) = 2 atanh(r)
    return 2 * second / (2 + gain) * (1 + r * r * polynomial("atanh", r * r))


def _tilted(x, y, t, alpha):
    """The logit m = a x + (1 - a) y of p^a q^(1-a), x where that is infinite; and exp(-|m|)."""
    # The rounding of m costs as many ulps of exp(-m) as m is large, so m is the smaller of two sums, or a factor.
    delta = alpha - 1
    mixed = jnp.where(y < 0, alpha * x - delta * y, jnp.where(alpha < 0.5, y + alpha * t, x + delta * t))
    m = jnp.where(x == jnp.inf, jnp.inf, mixed)
    split = (y >= 0) & (m > 0) & (delta * t > -40)
    return m, jnp.exp(jnp.where(split, -delta * t, jnp.where(m > 0, -m, m))) * jnp.where(split, jnp.exp(-x), 1)


def _renyi(a, b, alpha):
    """log S(alpha) / (alpha - 1), with its limits at 1 and infinity; NaN for alpha < 0."""
    x, y, t = _seen_from_top(a, b)
    tilt, finite = alpha <= 1, jnp.where(alpha == jnp.inf, 2, alpha)
    delta = finite - 1
    m, exp_m = _tilted(x, y, t, finite)
    exp_x, exp_y = jnp.exp(-x), jnp.exp(-jnp.abs(y))
    base, exp_base = jnp.where(tilt, m, x), jnp.where(tilt, exp_m, exp_x)
    other, exp_other = jnp.where(tilt, x, m), jnp.where(tilt, exp_x, exp_m)
    less, side = exp_base / (1 + exp_base), sign(base)

    def from_tangent(z, to, exp_to):
        """F at a logit less its tangent at the base, over z^2 where it is near, and as it is elsewhere."""
        huge = jnp.finfo(z.dtype).max
        z = jnp.clip(z, -huge, huge)  # an infinite one, times a probability of 0, would be NaN
        near = ((1 - less) * jnp.abs(z) <= 1.5) & jnp.isfinite(base)
        far = jnp.maximum(-side * to, 0) + (jnp.log1p(exp_to) - jnp.log1p(exp_base)) - less * (side * z)
        return near, less * (1 - less) * _excess(less, jnp.where(near, side * z, 0)), far

    order, step = jnp.where(tilt, alpha, 1), jnp.where(tilt, -delta, delta)
    near, close, far = from_tangent(order * t, y, exp_y)
    to_q = jnp.where(near, order * t * (order * t) * close, far)
    near, close, far = from_tangent(-step * t, other, exp_other)
    value = to_q + order * jnp.where(near, t * (step * t) * close, far / jnp.where(near | (step == 0), 1, step))
    value = jnp.where(alpha == jnp.inf, to_q + jnp.where(t > 0, less, 1 - less) * jnp.abs(t), value)
    value = jnp.where((alpha >= 1) & jnp.isinf(b) & (a != b), jnp.inf, value)
    return jnp.where(alpha >= 0, value, jnp.nan)


def _renyi_gradient(a, b, alpha):
    """The gradient of `_renyi` in both logits, differentiable."""
    a, b = _finite(a), _finite(b)
    laws, (x, y, t) = laws_of(a, b), _seen_from_top(a, b)
    alpha = jnp.minimum(alpha, jnp.finfo(x.dtype).max ** 0.5)
    delta = alpha - 1
    m, power = _tilted(x, y, t, alpha)
    less, more = power / (1 + power), 1 / (1 + power)
    tilted, rest = jnp.where(m > 0, more, less), jnp.where(m > 0, less, more)
    (_, less_p), (q, less_q) = laws.p, laws.q
    near, near_q = jnp.abs(delta * t) <= 1.5, jnp.abs(alpha * t) <= 1.5

    def gain(near, scale):
        """expm1(scale t) / scale."""
        z = jnp.where(near, scale * t, 0)
        return jnp.where(near, t, 0) * (1 + z * polynomial("exp", z))

    in_x = jnp.where(near, less_p * tilted * gain(near, -delta), (less_p - rest) / jnp.where(near, 1, delta))
    far_q = jnp.where(m + y > 0, rest - less_q, q - tilted)
    in_y = jnp.where(near_q, -q * rest * (alpha * gain(near_q, alpha)), far_q)
    return sign(a) * (alpha * in_x), sign(a) * in_y


_ruled_renyi = custom_jvp(_renyi)


def _renyi_rule(primals, tangents):
    (a, b, alpha), (da, db, d_alpha) = primals, tangents
    value = _ruled_renyi(*primals)
    # Where it is infinite it has no derivative: there equal logits stand in.
    slopes = _renyi_gradient(a, jnp.where(value == jnp.inf, a, b), alpha)
    tangent = sum(
        (slope * dx for slope, dx in zip(slopes, (da, db), strict=True) if dx is not None), jnp.zeros_like(value)
    )
    if d_alpha is not None:
        tangent += tangent_in_parameters(functools.partial(_renyi, _finite(a), _finite(b)), (alpha,), (d_alpha,), value)
    return value, tangent


_ruled_renyi.defjvp(_renyi_rule, symbolic_zeros=True)


def renyi(a: jax.Array, b: jax.Array, *, alpha: jax.Array) -> jax.Array:
    """log S(alpha) / (alpha - 1), with its limits at 1 and infinity; NaN for alpha < 0."""
    return _ruled_renyi(a, b, alpha)


@custom_jvp
def bhattacharyya(a: jax.Array, b: jax.Array) -> jax.Array:
    """-log S(1/2)."""
    # As S(1/2)^-2 = 1 + z^2 for z = sinh((a - b) / 4) / cosh((a + b) / 4), nothing cancels.
    least, alike = jnp.minimum(jnp.abs(a), jnp.abs(b)), (a >= 0) == (b >= 0)
    apart = jnp.where(a == b, 0, jnp.abs(a - b))
    z = -expm1(-0.5 * apart) / (1 + jnp.exp(-0.5 * jnp.where(a == -b, 0, jnp.abs(a + b))))
    most = 60  # beyond it, 1 + z^2 is z^2
    square = z * z * jnp.exp(jnp.where(alike, -least, jnp.minimum(least, most)))
    return 0.5 * (jnp.log1p(square) + jnp.where(alike, 0, jnp.maximum(least - most, 0)))


@bhattacharyya.defjvp
def _(primals, tangents):
    (a, b), (da, db) = primals, tangents
    value = bhattacharyya(a, b)
    in_a, in_b = _renyi_gradient(a, jnp.where(value == jnp.inf, a, b), jnp.full_like(a, 0.5))
    return value, 0.5 * (in_a * da + in_b * db)


def _best_order(a, b):
    """The s in (0, 1) at which S(s) is least: where the slope of F at s x + (1 - s) y is (F(x) - F(y)) / t."""
    a, b = _finite(a), _finite(b)
    (x, y, t), laws = _seen_from_top(a, b), laws_of(a, b)
    (more, less), (top, bottom) = laws.p, laws.c
    near, info = more * jnp.abs(t) <= 1.5, jnp.finfo(x.dtype)
    small = jnp.where(near, t, 0)
    # That slope is p_top (1 - t p_bottom e) for the e of `_excess`. Its logit differs from x by (1 - s) t.
    e = _excess(less, small)
    ratio = e / (1 - small * less * e)
    close = 1 - ratio * log1p_ratio(small * ratio)
    far = jnp.log(jnp.abs(jnp.where(near, 1, bottom))) - jnp.log(jnp.maximum(jnp.abs(top), info.tiny))
    return jnp.clip(jnp.where(near, close, (far - y) / jnp.where(near, 1, t)), info.eps, 1 - info.eps)


@custom_jvp
def chernoff(a: jax.Array, b: jax.Array) -> jax.Array:
    """The maximum of -log S(s) over s in [0, 1]."""
    s = _best_order(a, b)
    return (1 - s) * _renyi(a, b, s)


@chernoff.defjvp
def _(primals, tangents):
    (a, b), (da, db) = primals, tangents
    value = chernoff(a, b)
    b = jnp.where(value == jnp.inf, a, b)
    s = _best_order(a, b)
    in_a, in_b = _renyi_gradient(a, b, s)
    return value, (1 - s) * (in_a * da + in_b * db)

r"""Stable special functions, elementwise, and the small tools that derivative rules need.

Each is written so that nothing cancels: differences come before sums, polynomials replace closed forms that would lose
digits, and there is no epsilon and no clipping. They know nothing of divergences.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxdiv._core.polynomials import polynomial
from jaxdiv._core.rules import custom_jvp, jvp

LOG2 = 0.6931471805599453


def or_one(x: jax.Array) -> jax.Array:
    """`x` with zeros replaced by ones, for use as a denominator."""
    return jnp.where(x == 0, 1, x)


@custom_jvp
def over(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x / y`, whose slopes 1 / y and -(x / y) / y stay in range where y^2 does not."""
    return x / y


@over.defjvp
def _(primals, tangents):
    value, y = over(*primals), primals[1]
    return value, (tangents[0] - value * tangents[1]) / y


def bounded_slope(value: jax.Array, slope: jax.Array) -> jax.Array:
    """A slope, made finite: 0 where `value` is infinite, else clipped. An infinite slope times 0 would be NaN."""
    largest = jnp.finfo(slope.dtype).max
    return jnp.where(jnp.isinf(value), 0, jnp.clip(slope, -largest, largest))


@custom_jvp
def expm1x(x: jax.Array) -> jax.Array:
    """`exp(x) - 1 - x` to full relative accuracy: `elementary.expm1x` of an array."""
    # expm1(x) - x loses two bits at |x| = 1 and every bit as x -> 0. The polynomial is fitted on [-1.5, 2].
    near = (x >= -1.5) & (x <= 2)
    small = jnp.where(near, x, 0)
    far = jnp.where(x == jnp.inf, jnp.inf, (jnp.exp(x) - 1) - x)
    return jnp.where(near, small * small * polynomial("exp", small), far)


expm1x.defjvps(lambda dx, value, x: bounded_slope(value, expm1(x)) * dx)


@custom_jvp
def expm1(x: jax.Array) -> jax.Array:
    """`exp(x) - 1` to two ulps, from the same parts as `expm1x`. XLA's `expm1` loses five ulps in float32."""
    near = (x >= -1.5) & (x <= 2)
    small = jnp.where(near, x, 0)
    return jnp.where(near, small + small * small * polynomial("exp", small), jnp.exp(x) - 1)


expm1.defjvps(lambda dx, value, x: bounded_slope(value, jnp.exp(x)) * dx)


def exponent_of(x: jax.Array) -> jax.Array:
    """The whole number n with 2^n <= x < 2^(n + 1), for a positive x that is not subnormal."""
    info = jnp.finfo(x.dtype)
    integer = jnp.int64 if x.dtype == jnp.float64 else jnp.int32
    return (lax.bitcast_convert_type(lax.stop_gradient(x), integer) >> info.nmant) - (info.maxexp - 1)


def power_of_two(n: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """2^n for a whole number n, if it is not subnormal."""
    info = jnp.finfo(dtype)
    return lax.bitcast_convert_type((n + (info.maxexp - 1)) << info.nmant, dtype)


@custom_jvp
def exp_and_loss(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """exp(x), 0 where it is subnormal, and 1 - exp(x), for x <= 0 and in one pass."""
    least = math.log(jnp.finfo(x.dtype).tiny)
    bounded = jnp.where(x < least, least, x)
    n = jnp.round(bounded * (1 / LOG2))
    # |rest| <= log(2) / 2. The first part of log 2 has so few digits that its multiples are exact.
    rest = (bounded - n * 0.693359375) + n * 2.121944400546905827679e-4
    growth = rest + rest * rest * polynomial("exp_short", rest)
    power = power_of_two(n.astype(exponent_of(x).dtype), x.dtype)
    value = jnp.where(x < least, 0, power * (1 + growth))
    return value, jnp.where(n == 0, -growth, 1 - value)


@exp_and_loss.defjvp
def _(primals, tangents):
    value, loss = exp_and_loss(*primals)
    return (value, loss), (value * tangents[0], -value * tangents[0])


def enlargement(x: jax.Array) -> float:
    """The factor of `enlarged`: large enough that subnormal numbers become normal, with room below.

    JAX differentiates x / y by powers of y down to the third in a third derivative. Of 1 enlarged, they are normal too.
    """
    return 2.0**64 if x.dtype == jnp.float64 else 2.0**40


@custom_jvp
def enlarged(x: jax.Array) -> jax.Array:
    """`enlargement(x)` times `x`, exactly. At this size, differences of tiny numbers are normal numbers.

    The caller's terms are homogeneous, so the factor can be divided out of their sum. XLA on CPU treats subnormal
    numbers as zero; here they are read from their bits, as the integer multiples of the smallest one that they are.
    """
    info = jnp.finfo(x.dtype)
    integer = jnp.uint64 if x.dtype == jnp.float64 else jnp.uint32
    bits = lax.bitcast_convert_type(x, integer)
    exponent = (bits >> info.nmant) & integer(2**info.nexp - 1)
    count = (bits & integer(2**info.nmant - 1)).astype(x.dtype)
    sign = jnp.where(bits >> (info.nmant + info.nexp) == 1, -1, 1).astype(x.dtype)
    unit = 2.0 ** (info.minexp - info.nmant) * enlargement(x)
    return jnp.where(exponent == 0, sign * (count * unit), x * enlargement(x))


enlarged.defjvps(lambda dx, _, x: dx * enlargement(x))


@custom_jvp
def log_of_enlarged(x: jax.Array) -> jax.Array:
    """The logarithm of x before it was `enlarged`, with derivative 0 where it is -inf."""
    plain = x / enlargement(x)
    # Only a subnormal number is flushed to zero here. For all others, log(plain) is accurate also near 1, where a
    # difference of logarithms would cancel.
    return jnp.where((plain == 0) & (x != 0), jnp.log(or_one(x)) - math.log(enlargement(x)), jnp.log(plain))


log_of_enlarged.defjvps(lambda dx, _, x: jnp.where(x == 0, 0, dx / or_one(x)))


def split(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Upper and lower half of the significand; products of halves are exact."""
    integer, mask = (jnp.uint64, 0xFFFFFFFFF8000000) if x.dtype == jnp.float64 else (jnp.uint32, 0xFFFFF000)
    top = lax.bitcast_convert_type(lax.bitcast_convert_type(x, integer) & integer(mask), x.dtype)
    return top, x - top


def scaled_expm1(x, scale):
    """expm1(scale x) / scale, which is x at scale = 0; smooth in both."""
    y = scale * x
    near = jnp.abs(y) <= 0.5
    small = jnp.where(near, y, 0)
    far = jnp.expm1(jnp.where(near, 1, y)) / jnp.where(near, 1, scale)
    return jnp.where(near, jnp.where(near, x, 0) * (1 + small * polynomial("exp_short", small)), far)


def log1p_ratio(x: jax.Array) -> jax.Array:
    """`log(1 + x) / x` for x > -1, 1 at 0; smooth."""
    v = x / (2 + x)
    near = jnp.abs(v) <= 0.5
    z = jnp.where(near, v, 0) ** 2
    far = jnp.where(near, 1, x)
    return jnp.where(near, 2 / (2 + jnp.where(near, x, 0)) * (1 + z * polynomial("atanh", z)), jnp.log1p(far) / far)


@custom_jvp
def difference(p: jax.Array, q: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """p - q to full relative accuracy, from two rounded probabilities and their accurate log-ratio."""
    near = jnp.abs(log_ratio) <= 0.5
    c = jnp.where(near, -log_ratio, 0)
    return jnp.where(near, -p * (c + c * c * polynomial("exp_short", c)), p - q)


@difference.defjvp
def _(primals, tangents):
    # The log-ratio is a function of p and q, whose tangents are all that counts.
    return difference(*primals), tangents[0] - tangents[1]


@custom_jvp
def log_ratio(x: jax.Array, y: jax.Array, delta: jax.Array) -> jax.Array:
    r"""$\log(x/y)$ to full relative accuracy from `delta` $= x - y$, elementwise.

    0 where both are zero; infinite where one is; `nan` where one is negative or `nan`.
    """
    half = y + 0.5 * delta  # of the sum, which may overflow
    v = 0.5 * delta / or_one(half)
    near = ~(jnp.abs(delta) > half)  # the ratio is between 1/3 and 3, or one number is infinite
    small = jnp.where(near, v, 0)
    z = small * small
    log = _log_of_quotient(x, y)
    return jnp.where(near, 2 * small + 2 * small * z * polynomial("atanh", z), jnp.where(delta < 0, -log, log))


def _log_of_quotient(x, y):
    """The logarithm of the larger number over the smaller one; infinite where the smaller one is zero."""
    smaller, larger = jnp.minimum(x, y), jnp.maximum(x, y)
    # Both are scaled where their quotient could overflow.
    half = 2.0 ** (jnp.finfo(x.dtype).maxexp // 2)
    huge = (smaller > 0) & (larger * (1 / half) > smaller * (half / 4))
    quotient = jnp.where(huge, larger * (1 / half), larger) / or_one(jnp.where(huge, smaller * half, smaller))
    log = jnp.log(quotient) + jnp.where(huge, 2 * jnp.log(jnp.asarray(half, x.dtype)), 0)
    return jnp.where(smaller == 0, jnp.inf, log)


@log_ratio.defjvp
def _(primals, tangents):
    x, y, _ = primals
    dx, dy, _ = tangents
    # At a zero the derivative is infinite; 0 is chosen instead, to keep gradients finite.
    return log_ratio(*primals), jnp.where(x == 0, 0, dx / or_one(x)) - jnp.where(y == 0, 0, dy / or_one(y))


@custom_jvp
def bregman(x: jax.Array, y: jax.Array, delta: jax.Array) -> jax.Array:
    r"""$x \log(x/y) - x + y \ge 0$ to full relative accuracy from `delta` $= x - y$, elementwise.

    `y` where `x` is 0; `inf` where only `y` is 0; `nan` where one is negative or `nan`.
    """
    half = y + 0.5 * delta
    near = ~(jnp.abs(delta) > half)
    v = jnp.where(near, 0.5 * delta / or_one(half), 0)
    z = v * v
    # x log(x/y) - (x - y) cancels; with log(x/y) = 2 atanh v it is (x - y) v + 2 x (atanh v - v).
    close = delta * v + x * (2 * (v * z) * polynomial("atanh", z))
    log = jnp.where(x == 0, 0, jnp.where(delta < 0, -1, 1) * _log_of_quotient(x, y))
    return jnp.where(near, close, x * log - delta)


def _bregman_rule(primals, tangents):
    x, y, delta = primals
    dx, dy, _ = tangents
    value = bregman(*primals)
    tangent = jnp.zeros_like(value)
    if dx is not None:
        tangent += bounded_slope(value, jnp.where((x == 0) | (y == 0), 0, log_ratio(x, y, delta))) * dx
    if dy is not None:
        tangent -= bounded_slope(value, jnp.where(y == 0, 0, delta / or_one(y))) * dy
    return value, tangent


bregman.defjvp(_bregman_rule, symbolic_zeros=True)


@custom_jvp
def root(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0."""
    return jnp.sqrt(x)


root.defjvps(lambda dx, _, x: jnp.where(x == 0, 0, dx / or_one(2 * root(x))))


def hypotenuse(x: jax.Array, y: jax.Array) -> jax.Array:
    """The Euclidean length of two arrays together, also where squares leave the range; derivative 0 at 0."""
    unit = unit_of(jnp.max(jnp.maximum(jnp.abs(x), jnp.abs(y))))
    inverse = 1 / unit
    return unit * root(jnp.sum((x * inverse) ** 2 + (y * inverse) ** 2))


@custom_jvp
def capped(x: jax.Array, bound: ArrayLike) -> jax.Array:
    """min(x, bound) for an x that exceeds the bound by rounding only; the derivative is that of `x`."""
    # Not jnp.minimum: fused with a sum over many rows, XLA:CPU's returns the bound for NaN.
    bound = jnp.asarray(bound, x.dtype)
    return jnp.where((x <= bound) | jnp.isnan(x), x, bound)


@capped.defjvp
def _(primals, tangents):
    return capped(*primals), tangents[0]


def clipped(x: jax.Array, size: jax.Array | float) -> jax.Array:
    """`x` within [-size, size], with derivative 0 outside."""
    # No jnp.clip, which may lose NaN as jnp.minimum does.
    return jnp.where(x > size, size, jnp.where(x < -size, -size, x))


def endless(order: jax.Array) -> jax.Array:
    """Whether an order of a power mean is so large that it stands for infinity: its square is no float."""
    return order > jnp.finfo(order.dtype).max ** 0.5


def entropy_of_weights(weights: jax.Array) -> jax.Array:
    """-sum w log w over the last axis, kept: the bound of weighted Jensen-Shannon. NaN for a negative weight."""
    return -jnp.sum(jnp.where(weights == 0, 0, weights * jnp.log(or_one(weights))), -1, keepdims=True)


def log_sum_exp(x: jax.Array, over: str | tuple[str, ...] | None = None) -> jax.Array:
    """log sum exp over the last axis, kept, and over device axes; `-inf`, with gradient 0, if all entries are."""
    largest = finite_or_zero(largest_of_row(lax.stop_gradient(x), over))
    total = sum_of_row(jnp.exp(x - largest), over)
    return jnp.where(total == 0, -jnp.inf, largest + jnp.log(or_one(total)))


def log_softmax(x: jax.Array, over: str | tuple[str, ...] | None = None) -> jax.Array:
    """x minus its log sum exp over the last axis and over device axes."""
    less = x - largest_of_row(lax.stop_gradient(x), over)
    return less - jnp.log(sum_of_row(jnp.exp(less), over))


def sum_of_row(x: jax.Array, over: str | tuple[str, ...] | None = None) -> jax.Array:
    """The sum over the last axis, kept, and over device axes."""
    total = jnp.sum(x, -1, keepdims=True)
    return total if over is None else lax.psum(total, over)


@custom_jvp
def times(scale: jax.Array, value: jax.Array) -> jax.Array:
    """`scale * value`; 0 for a scale of 0, even if the value is infinite. Then the derivative in the scale is 0 too."""
    return jnp.where((scale == 0) & jnp.isinf(value), 0, scale * value)


@times.defjvp
def _(primals, tangents):
    scale, value = primals
    return times(scale, value), scale * tangents[1] + jnp.where(jnp.isinf(value), 0, value) * tangents[0]


def finite_or_zero(x: jax.Array) -> jax.Array:
    """`x`, with 0 in place of infinities and NaN."""
    return jnp.where(jnp.isfinite(x), x, 0)


def weighed(weight: jax.Array, value: jax.Array) -> jax.Array:
    """`weight * value`; 0 for a weight of 0, whatever the value. The slope in such a weight is the value, if finite."""
    return times(weight, jnp.where((weight == 0) & ~jnp.isfinite(value), 0, value))


def unit_of(x: jax.Array) -> jax.Array:
    """A power of two of about the size of x > 0, without derivatives; 1 for other numbers."""
    x, info = lax.stop_gradient(x), jnp.finfo(x.dtype)
    # Its inverse is a normal number too.
    exponent = jnp.clip(jnp.frexp(x)[1] - 1, info.minexp + 1, info.maxexp - 3)
    return jnp.where((x > 0) & (x < jnp.inf), jnp.ldexp(jnp.ones_like(x), exponent), 1)


def of_moderate_size(weights: jax.Array, over: str | tuple[str, ...] | None = None) -> jax.Array:
    """Weights of a mean in a unit in which their sum does not overflow, over device axes too."""
    largest = jnp.max(lax.stop_gradient(weights), initial=0)
    return weights / unit_of(largest if over is None else lax.pmax(largest, over))


def over_count(total: jax.Array, count: jax.Array) -> jax.Array:
    """`total / count`; where the total is infinite its derivative in the count is 0."""
    return total / jnp.where(jnp.isinf(total), lax.stop_gradient(count), count)


def largest_of_row(x: jax.Array, over: str | tuple[str, ...] | None = None) -> jax.Array:
    """The maximum over the last axis, kept, and over device axes; entries that reach it share its derivative."""
    if over is None:
        return jnp.max(x, -1, keepdims=True)
    largest = lax.pmax(jnp.max(lax.stop_gradient(x), -1, keepdims=True), over)
    # `pmax` has no derivative, so a zero with the right derivative is added.
    reached = jnp.isfinite(x) & (x == largest)
    zero = jnp.where(reached, x - lax.stop_gradient(jnp.where(reached, x, 0)), 0)
    return largest + sum_of_row(zero, over) / or_one(sum_of_row(reached.astype(x.dtype), over))


def log1p(x: jax.Array) -> jax.Array:
    """`log(1 + x)` for x > -1 to an ulp or two; XLA's `log1p` loses a hundred in float64."""
    # With r = x / (2 + x), log(1 + x) = 2 atanh r and 2 r = x - x r. On [-2/3, 2], |r| <= 1/2, where the polynomial is
    # fitted. Far from 0 the rounding of 1 + x does no harm.
    near = (x >= -2 / 3) & (x <= 2)
    small = jnp.where(near, x, 0)
    r = small / (2 + small)
    z = r * r
    return jnp.where(near, small - r * (small - 2 * z * polynomial("atanh", z)), jnp.log(1 + jnp.where(near, 0, x)))


@custom_jvp
def squared_arcsinh_root(y: jax.Array) -> jax.Array:
    r"""$\mathrm{arcsinh}(\sqrt y)^2$ for `y` >= 0, elementwise; smooth, with derivative 1 at 0."""
    return jnp.arcsinh(jnp.sqrt(y)) ** 2


# The derivative arcsinh(x) / (x sqrt(1 + x^2)), x^2 = y, is (1 - 2/3 y (1 - 4/5 y (1 - 6/7 y (...)))).
_ARCSINH_TERMS = 9  # y^9 < 1e-18 for y < 1e-2


@squared_arcsinh_root.defjvp
def _(primals, tangents):
    (y,) = primals
    near = y < 1e-2
    small, far = jnp.where(near, y, 0), jnp.where(near, 1, y)
    series = jnp.ones_like(y)
    for k in range(_ARCSINH_TERMS, 0, -1):
        series = 1 - (2 * k / (2 * k + 1)) * small * series
    away = jnp.arcsinh(jnp.sqrt(far)) / (jnp.sqrt(far) * jnp.sqrt(1 + far))
    value = squared_arcsinh_root(y)
    return value, bounded_slope(value, jnp.where(near, series, away)) * tangents[0]


@custom_jvp
def with_tangents(value: jax.Array, like: jax.Array) -> jax.Array:
    """`value` with the derivatives of `like`, a less accurate version of the same number."""
    del like
    return value


@with_tangents.defjvp
def _(primals, tangents):
    return with_tangents(*primals), tangents[1]


def tangent_in_parameters(
    f: Callable[..., jax.Array], parameters: Sequence[jax.Array], tangents: Sequence[jax.Array | None], value: jax.Array
) -> jax.Array:
    """The tangent of f(*parameters) = value, elementwise; 0, in both modes, where the value or the tangent is infinite.

    Parameters broadcast against the value. The tangents of fixed parameters are None.
    """
    at = [jnp.broadcast_to(x, value.shape) for x in parameters]
    along = [jnp.full_like(x, d is not None) for x, d in zip(at, tangents, strict=True)]
    infinite = jnp.isinf(value) | jnp.isinf(jax.jvp(f, lax.stop_gradient(at), along)[1])
    # 0.5 is valid for every parameter; it replaces those with an infinite tangent, which times 0 would be NaN.
    at = [jnp.where(infinite, 0.5, x) for x in at]
    by = [jnp.zeros_like(x) if d is None else jnp.where(infinite, 0, d) for x, d in zip(at, tangents, strict=True)]
    return jnp.where(infinite, 0, jax.jvp(f, at, by)[1])


def still_at_infinity(f: Callable[..., jax.Array], *arguments: Any) -> jax.Array:
    """`f(*arguments)`, with derivative 0 where it is infinite, in any mode and order.

    An infinite slope times a tangent or cotangent of 0, which masks produce, would be NaN. `f` must not close over an
    array that is differentiated; its value is one number, `[]`.
    """
    leaves, structure = jax.tree.flatten(arguments)

    def plain(*leaves):
        return f(*jax.tree.unflatten(structure, leaves))

    still = custom_jvp(plain)

    def rule(primals, tangents):
        value = still(*primals)
        infinite = jnp.isinf(value)
        # Stop derivatives on both sides: before f for reverse mode, behind f for forward mode.
        at = [jnp.where(infinite, lax.stop_gradient(x), x) for x in primals]
        by = [None if d is None else jnp.where(infinite, 0, d) for d in tangents]
        return value, jnp.where(infinite, 0, jvp(plain, at, by)[1])

    still.defjvp(rule, symbolic_zeros=True)
    return still(*leaves)

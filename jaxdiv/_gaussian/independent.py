r"""Normal laws of independent components. Everything is elementwise, from differences of scales or of their logarithms.

`contrast(p, q)` is the argument of Fisher-Rao and total variation: differences of means and of scales, in units of the
larger scale. It is finite however different or small the scales are.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxdiv._core.functions import (
    exp_and_loss,
    expm1,
    exponent_of,
    hypotenuse,
    log_ratio,
    over,
    power_of_two,
    root,
    squared_arcsinh_root,
    still_at_infinity,
    unit_of,
)
from jaxdiv._gaussian import components, log_scales, spectral
from jaxdiv._gaussian.excess import log_excess
from jaxdiv._gaussian.form import Form, Law, as_they_are, one_to_an_entry
from jaxdiv._gaussian.full import MultivariateNormal
from jaxdiv._gaussian.lowrank import LowRankNormal


class Normal(NamedTuple):
    """A normal law of independent components: means `[]` or `[d]` and standard deviations, which broadcast."""

    loc: ArrayLike
    scale: ArrayLike


class NormalLogScale(NamedTuple):
    """A normal law of independent components: means `[]` or `[d]` and logarithms of standard deviations."""

    loc: ArrayLike
    log_scale: ArrayLike


def _as_vectors(law):
    shape = jnp.broadcast_shapes((1,), *(x.shape for x in law))
    return type(law)(*(jnp.broadcast_to(x, shape) for x in law))


def _regular(law):
    # Without this a negative scale would pass unnoticed through squares.
    return _as_vectors(law._replace(scale=jnp.where(law.scale > 0, law.scale, jnp.nan)))


def _zeros(law):
    return jnp.zeros(jnp.broadcast_shapes(*(x.shape for x in law)), law.loc.dtype)


def _by_scale(law):
    return Normal(law.loc, jnp.exp(law.log_scale))


def _low_rank(law):
    return LowRankNormal(law.loc, jnp.zeros((*law.loc.shape, 0), law.loc.dtype), law.scale * law.scale)


def _root(law):
    return MultivariateNormal(law.loc, jnp.diag(law.scale))


# ---------------------------------------------------------------- by scales


def _kl(p, q):
    e, z = over(p.scale - q.scale, q.scale), over(p.loc - q.loc, q.scale)
    return jnp.sum(0.5 * e * e + log_excess(p.scale, q.scale) + 0.5 * z * z)


def _jeffreys(p, q):
    delta = p.loc - q.loc
    contrast = over(p.scale - q.scale, p.scale) * (1 + over(p.scale, q.scale))
    return _jeffreys_by(contrast, over(delta, p.scale), over(delta, q.scale))


def _jeffreys_by(contrast, *standardised):
    """From p / q - q / p of the scales, and the difference of the means divided by each scale."""
    return 0.5 * jnp.sum(contrast**2 + sum(z**2 for z in standardised))


def _per_unit(p, q):
    """The inverse of a power of two, which is half to a quarter of the larger scale."""
    larger = jnp.where(p.scale >= q.scale, p.scale, q.scale)
    return power_of_two(1 - exponent_of(larger), larger.dtype)


def _sizes(p, q):
    p_larger, per_unit = p.scale >= q.scale, _per_unit(p, q)
    larger, smaller = (jnp.where(p_larger, *pair) for pair in ((p.scale, q.scale), (q.scale, p.scale)))
    # A smaller scale that would underflow is lifted in two steps.
    half = 2.0 ** (jnp.finfo(larger.dtype).maxexp // 2)
    underflows = smaller * half < larger * (4 / half)
    step = jnp.where(underflows, half, 1).astype(larger.dtype)
    lifted = (smaller * step) * (per_unit * step)
    large, small = larger * per_unit, jnp.where(underflows, 0, lifted)
    return components.Sizes(
        p_larger,
        large * large,
        small * small,
        ((larger - smaller) * per_unit) * (large + small),
        (p.loc - q.loc) * per_unit,
        lifted,
        large,
        jnp.where(underflows, 2 * math.log(half), 0).astype(larger.dtype),
    )


def _pair(p, q):
    per_unit = _per_unit(p, q)
    a, b, change, offset = (x * per_unit for x in (p.scale, q.scale, p.scale - q.scale, p.loc - q.loc))
    return components.Pair(a * a, b * b, change * (a + b), offset)


def _slopes(p, q, in_offset, in_log_p, in_log_q):
    in_loc = in_offset * _per_unit(p, q)
    return in_loc, in_log_p / p.scale, -in_loc, in_log_q / q.scale


def _frame(p, q):
    """The frame of a pair; lengths are divided by the root of the sum of the variances."""
    log_p, log_q, per_unit = jnp.log(p.scale), jnp.log(q.scale), _per_unit(p, q)
    a, b, change, offset = (x * per_unit for x in (p.scale, q.scale, p.scale - q.scale, p.loc - q.loc))
    total = lax.stop_gradient(a * a + b * b)
    tau = change * (a + b) / total
    u = offset / jnp.sqrt(total)
    larger = jnp.where(p.scale >= q.scale, log_p, log_q)
    of_p, of_q = (_Variance(2 * x * (x / total), 2 * (log - larger), 2 * log) for x, log in ((a, log_p), (b, log_q)))
    return _of_vectors(tau, of_p, of_q, u)


class _Variance(NamedTuple):
    """The variance of one law of a pair."""

    share: jax.Array  # twice the variance, divided by the sum of both
    log_if_tiny: jax.Array  # the logarithm of the share, minus log 2; correct where the share is tiny
    log: jax.Array  # the logarithm of the variance, for the slopes


def _of_vectors(tau, p, q, u):
    (plus, lost_by_p), (minus, lost_by_q) = (_at_least_tiny(x, tau.dtype) for x in (p, q))
    most = 4 * jnp.finfo(u.dtype).max ** 0.5  # from here on the square overflows; its slope would be infinite
    u = jnp.where(jnp.abs(u) > most, most, u)
    return spectral.Frame(lax.stop_gradient(tau), plus, minus, u, beyond=jnp.stack([lost_by_p, lost_by_q]))


def _at_least_tiny(variance, dtype):
    """The share, raised so that quotients do not overflow, and the correction that the sum of its logarithms needs."""
    least = 1024 * jnp.finfo(dtype).tiny
    below = variance.share < least
    # A raised share keeps the slope of its logarithm.
    moving = least * jnp.exp(variance.log - lax.stop_gradient(variance.log))
    lost = jnp.where(below, variance.log_if_tiny + (math.log(2) - math.log(least)), 0)
    return jnp.where(below, moving, variance.share), lax.stop_gradient(jnp.sum(lost))


# ---------------------------------------------------------------- by logarithms of scales


def _absolute(x):
    """|x| with derivative 1 at 0, as an argument of functions that are even in x."""
    return jnp.where(x < 0, -x, x)


def _kl_of_logs(p, q):
    return jnp.sum(log_scales.kl_to_prior(p.loc, p.log_scale, q.loc, q.log_scale))


def _jeffreys_of_logs(p, q):
    size, delta = _absolute(log_scales.difference(p.log_scale, q.log_scale)), p.loc - q.loc
    most = 0.9 * math.log(jnp.finfo(delta.dtype).max)  # beyond it the square of the contrast overflows
    e = expm1(jnp.where(size > most, most, size))
    return _jeffreys_by(e + e / (1 + e), *(log_scales.over_scale(delta, law.log_scale) for law in (p, q)))  # 2 sinh


def _larger_log(p, q):
    return jnp.where(p.log_scale >= q.log_scale, p.log_scale, q.log_scale)


def _sizes_of_logs(p, q):
    g = jnp.where(p.log_scale == q.log_scale, 0, p.log_scale - q.log_scale)
    small, loss = exp_and_loss(-2 * jnp.abs(g))
    offset, one = log_scales.over_scale(p.loc - q.loc, _larger_log(p, q)), jnp.ones_like(g)
    return components.Sizes(p.log_scale >= q.log_scale, one, small, loss, offset, one, one, jnp.abs(g))


def _pair_of_logs(p, q):
    g = log_scales.difference(p.log_scale, q.log_scale)
    small, loss = exp_and_loss(-2 * _absolute(g))
    return components.Pair(
        jnp.where(g < 0, small, 1),
        jnp.where(g < 0, 1, small),
        jnp.where(g < 0, -loss, loss),
        log_scales.over_scale(p.loc - q.loc, _larger_log(p, q)),
    )


def _slopes_of_logs(p, q, in_offset, in_log_p, in_log_q):
    in_loc = log_scales.over_scale(in_offset, _larger_log(p, q))
    return in_loc, in_log_p, -in_loc, in_log_q


def _frame_of_logs(p, q):
    g = log_scales.difference(p.log_scale, q.log_scale)
    smaller_square = jnp.exp(-2 * jnp.abs(g))
    less = -expm1(-2 * jnp.abs(g))
    larger = lax.stop_gradient(jnp.maximum(p.log_scale, q.log_scale))
    u = log_scales.over_scale(p.loc - q.loc, larger) / jnp.sqrt(lax.stop_gradient(1 + smaller_square))
    of_p, of_q = (
        _Variance(
            lax.stop_gradient(2 / (1 + jnp.exp(-sign * 2 * g))) * jnp.exp(2 * (x - lax.stop_gradient(x))),
            jnp.where(sign * g < 0, sign * 2 * g, 0),
            2 * x,
        )
        for sign, x in ((1, p.log_scale), (-1, q.log_scale))
    )
    return _of_vectors(jnp.sign(g) * less / (2 - less), of_p, of_q, u)


# ---------------------------------------------------------------- distances, by scales or logarithms


class Contrast(NamedTuple):
    """The differences of two laws; signs are those of p minus q."""

    delta: jax.Array  # the difference of the means
    offset: jax.Array  # the same, divided by the larger scale
    change: jax.Array  # the difference of the scales, divided by the larger one
    ratio: jax.Array  # the smaller scale divided by the larger one
    log_ratio: jax.Array  # log(scale of p / scale of q)
    log_larger: jax.Array  # the logarithm of the larger scale


def _contrast(p, q):
    delta, difference = p.loc - q.loc, p.scale - q.scale
    # Of equal scales that of p counts as the larger, in all that depends on which is.
    larger, smaller = (jnp.where(p.scale >= q.scale, *pair) for pair in ((p.scale, q.scale), (q.scale, p.scale)))
    return Contrast(
        delta,
        over(delta, larger),
        over(difference, larger),
        over(smaller, larger),
        log_ratio(p.scale, q.scale, difference),
        jnp.log(larger),
    )


def _contrast_of_logs(p, q):
    delta, g, larger = p.loc - q.loc, log_scales.difference(p.log_scale, q.log_scale), _larger_log(p, q)
    size = _absolute(g)
    change = jnp.where(g < 0, -1, 1).astype(g.dtype) * -expm1(-size)
    return Contrast(delta, log_scales.over_scale(delta, larger), change, jnp.exp(-size), g, larger)


def fisher_rao_distance(contrast: Contrast) -> jax.Array:
    """The length of the geodesic."""
    delta, offset, change, ratio, g, log_larger = contrast
    size = _absolute(g)
    # The square root of y, of which arcsinh is taken, is in a unit where its square could underflow.
    largest = jnp.max(jnp.maximum(jnp.abs(offset), jnp.abs(change)))
    unit = jnp.where(largest < _CLOSE, unit_of(largest), 1)
    offset, change = offset / unit, change / unit
    # Beyond these limits arcsinh(sqrt(y)) equals log(4 y) / 2 to the last digit, and further on y overflows.
    moved = jnp.abs(offset) > 1e9
    far = moved | (size > 40)
    squares = 0.5 * jnp.where(moved, 0, offset) ** 2 + change * change
    y = 0.25 * jnp.where(far, 0, squares) / jnp.where(far, 1, ratio)
    by_means = 2 * (jnp.log(jnp.where(moved, jnp.abs(delta), 1)) - log_larger) - math.log(2)
    log_squares = jnp.where(moved, by_means, jnp.log(jnp.where(far & ~moved, squares, 1)))
    squares = jnp.where(unit < 1, y, squared_arcsinh_root(jnp.where(unit < 1, 0, y)))
    return unit * root(jnp.sum(jnp.where(far, 2 * (log_squares + size) ** 2, 8 * squares)))


_CLOSE = 2.0**-40  # between closer laws arcsinh(x) is x to the last digit


def _displacement(p, q):
    return p.loc - q.loc, p.scale - q.scale


def _displacement_of_logs(p, q):
    larger = jnp.exp(jnp.maximum(p.log_scale, q.log_scale))
    difference = larger * expm1(-_absolute(log_scales.difference(p.log_scale, q.log_scale)))
    return p.loc - q.loc, difference


DISPLACEMENTS = {Normal: _displacement, NormalLogScale: _displacement_of_logs}


def _squared_wasserstein2(p, q):
    return jnp.sum((p.loc - q.loc) ** 2 + (p.scale - q.scale) ** 2)


def _squared_wasserstein2_of_logs(p, q):
    return still_at_infinity(lambda p, q: jnp.sum(sum(x**2 for x in _displacement_of_logs(p, q))), p, q)


def wasserstein2_distance(p: Law, q: Law) -> jax.Array:
    """The length of the displacement, which does not overflow where its square does."""
    return still_at_infinity(lambda p, q: hypotenuse(*DISPLACEMENTS[type(p)](p, q)), p, q)


FORMS: dict[type, Form] = {
    Normal: Form(
        shapes="loc [d] or [], scale [d] or []",
        standard=lambda law: Normal(_zeros(law), _zeros(law) + 1),
        regular=_regular,
        semidefinite=lambda law: _as_vectors(law._replace(scale=jnp.where(law.scale >= 0, law.scale, jnp.nan))),
        factor=lambda law: jnp.diag(law.scale),
        mean=lambda law: law.loc,
        to={
            NormalLogScale: lambda law: NormalLogScale(law.loc, jnp.log(law.scale)),
            LowRankNormal: _low_rank,
            MultivariateNormal: _root,
        },
        alike=as_they_are,
        kl=_kl,
        kl_of_rows=None,
        jeffreys=_jeffreys,
        frame=_frame,
        k=components.k_of(components.View(_sizes, _pair, _slopes)),
        squared_wasserstein2=_squared_wasserstein2,
        noise=one_to_an_entry,
        moved=lambda law, z: law.loc + law.scale * z,
        standardised=lambda law, x: (x - law.loc) / law.scale,
        half_log_det=lambda law: jnp.sum(jnp.log(law.scale)),
        contrast=_contrast,
        faults=lambda law, _: {"a scale that is not positive": np.any(law.scale <= 0, -1)},
    ),
    NormalLogScale: Form(
        shapes="loc [d] or [], log_scale [d] or []",
        standard=lambda law: NormalLogScale(_zeros(law), _zeros(law)),
        regular=_as_vectors,
        semidefinite=_as_vectors,
        factor=lambda law: jnp.diag(jnp.exp(law.log_scale)),
        mean=lambda law: law.loc,
        to={
            Normal: _by_scale,
            LowRankNormal: lambda law: _low_rank(_by_scale(law)),
            MultivariateNormal: lambda law: _root(_by_scale(law)),
        },
        alike=as_they_are,
        kl=_kl_of_logs,
        kl_of_rows=None,
        jeffreys=_jeffreys_of_logs,
        frame=_frame_of_logs,
        k=components.k_of(components.View(_sizes_of_logs, _pair_of_logs, _slopes_of_logs)),
        squared_wasserstein2=_squared_wasserstein2_of_logs,
        noise=one_to_an_entry,
        moved=lambda law, z: law.loc + jnp.exp(law.log_scale) * z,
        standardised=lambda law, x: log_scales.over_scale(x - law.loc, law.log_scale),
        half_log_det=lambda law: jnp.sum(law.log_scale),
        contrast=_contrast_of_logs,
        faults=lambda *_: {},
    ),
}

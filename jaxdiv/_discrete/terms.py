r"""The divergences that are sums over events: one record each, which holds everything about it.

Terms and slopes are functions of the `Event` that a family delivers. Terms are non-negative, and nothing in them
cancels. A term is homogeneous of degree one in $(p, q)$. So its generator $f$, with $D(p, q) = \mathrm{E}_q f(p/q)$, is
its value at $(u, 1)$, and $f(1) = f'(1) = 0$. The link $f'(u)$ therefore has the sign of $c = \log u$. Links are
functions of c, accurate to the digits of c; they use exp(|c|) only where the result is as large.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.functions import (
    LOG2,
    bregman,
    clipped,
    entropy_of_weights,
    log1p,
    log_ratio,
    or_one,
    root,
    scaled_expm1,
    times,
    with_tangents,
)
from jaxdiv._core.polynomials import polynomial
from jaxdiv._core.rules import custom_jvp
from jaxdiv._discrete import masses, tables
from jaxdiv._discrete.record import Divergence, Event


def _huge(x):
    """A finite number in place of infinity, for factors that meet an exact zero."""
    return jnp.finfo(x.dtype).max ** 0.75


def _far_kl(p, q, c):
    return jnp.where(c == jnp.inf, jnp.inf, p * (jnp.maximum(c, -_huge(c)) - 1) + q)


def _kl_term(pair):
    # p log(p/q) - p + q = p (exp(-c) - 1 + c), by the polynomial fitted on -1.5 <= -c <= 2. Outside, the closed form
    # loses at most two bits to cancellation.
    p, q, c = pair[:3]
    near = (c >= -2) & (c <= 1.5)
    return jnp.where(near, p * (c * c) * polynomial("exp", -c), _far_kl(p, q, c))


def _finite(c):
    """c, with huge numbers in place of infinite ones, which leave room for a factor."""
    return jnp.where(jnp.isinf(c), jnp.where(c > 0, _huge(c), -_huge(c)), c)


def _times(p, c):
    """p c, and 0 where c is infinite: there p is 0, or the term infinite."""
    return p * jnp.where(jnp.isinf(c), 0, c)


kl = Divergence(
    name="kl",
    term=_kl_term,
    slope_p=lambda pair: _times(pair.p, pair.centred),
    slope_q=lambda pair: -pair.difference,
    link=lambda c: c,
    of_masses=lambda p, q: bregman(p, q, p - q),
    order=lambda: 1.0,
    table=tables.kl,
    balanced_q=True,
    anchored=True,
)


def _softened_kl_term(pair, scale):
    # The scale is the temperature. Where that is large, c^2 underflows and (scale c)^2 does not.
    p, q, c = pair[:3]
    near = (c >= -2) & (c <= 1.5)
    small = jnp.where(near, c, 0)
    return jnp.where(near, p * (scale * small) ** 2 * polynomial("exp", -small), scale * (scale * _far_kl(p, q, c)))


softened_kl = Divergence(
    name="softened_kl",
    term=_softened_kl_term,
    slope_p=lambda pair, scale: scale * (scale * kl.slope_p(pair)),
    slope_q=lambda pair, scale: scale * (scale * kl.slope_q(pair)),
    link=lambda c, scale: scale * (scale * c),
    parameters=("scale",),
    balanced_q=True,
    anchored=True,
)

jeffreys = Divergence(
    name="jeffreys",
    term=lambda pair: jnp.where(pair.difference == 0, 0, pair.difference * pair.log_ratio),
    slope_p=lambda pair: _times(pair.p, pair.centred) + pair.difference,
    slope_q=lambda pair: -_times(pair.q, pair.centred) - pair.difference,
    link=lambda c: c - jnp.expm1(-c),
    table=tables.jeffreys,
    anchored=True,
)


def _by_size(p, q, c):
    """For c = log(p/q) outside of [-2, 2]: the larger of p and q, ratio = smaller / larger, and log(1 + ratio)."""
    # The polynomial of the logarithm is fitted on ratios below exp(-2).
    larger = jnp.where(c < 0, q, p)
    # Not a quotient: XLA:CPU stores a quotient that is used more than once.
    ratio = jnp.where(c < 0, p, q) * (1 / or_one(larger))
    return larger, ratio, ratio * polynomial("log_one_more", ratio)


def _js_term(pair):
    # (p log(p/m) + q log(q/m)) / 2, as max(p, q) times an even function of c.
    p, q, c = pair[:3]
    larger, ratio, log_one_more = _by_size(p, q, c)
    size = jnp.minimum(jnp.abs(c), _huge(c))
    # The polynomial is fitted on |c| <= 2. There this form loses less than a bit; as c -> 0 it would lose all of them.
    far = 0.5 * ((1 + ratio) * (LOG2 - log_one_more) - ratio * size)
    return larger * jnp.where(size <= 2, size * size * polynomial("js_c", size), far)


def _js_slope(p, q, c, saturated):
    """p log(p/m) / 2 with c = log(p/q); on saturated rows, minus p log(2) / 2."""
    # exp(-|c|) is computed from p and q: computed from c, its relative error would be |c| times larger.
    _, _, log_one_more = _by_size(p, q, c)
    near = jnp.abs(c) <= 2  # the interval of the fit
    z = jnp.where(near, c * c, 0)
    offset = saturated * jnp.asarray(LOG2, c.dtype)
    far = (LOG2 - offset) - (log_one_more - jnp.maximum(jnp.minimum(c, 0), -_huge(c)))
    return 0.5 * p * jnp.where(near, (0.5 * jnp.where(near, c, 0) - z * polynomial("log_mean", z)) - offset, far)


@custom_jvp
def js_term(p: jax.Array, q: jax.Array) -> jax.Array:
    """(p log(p/m) + q log(q/m)) / 2 for m = (p + q) / 2, elementwise; `nan` where one is negative or `nan`."""
    total = p + q
    v = (p - q) / or_one(total)
    z = v * v
    near = z <= 0.36  # the interval of the fit; at its end the closed form loses one bit
    small = jnp.where(near, z, 0)
    size, rest = jnp.abs(v), 2 * jnp.minimum(p, q) / or_one(total)  # rest = 1 - size, without the cancellation
    far = (1 + size) * jnp.log1p(size) + rest * jnp.log(or_one(rest))
    term = 0.25 * total * jnp.where(near, small * polynomial("js_v", small), far)
    return jnp.where((p >= 0) & (q >= 0), term, jnp.nan)


def _js_term_rule(primals, tangents):
    p, q = primals
    # log(p/m) as log(2 p / (p + q)): halving p + q would flush the smallest normal numbers to zero.
    tangent = jnp.zeros_like(p)
    for x, y, dx in ((p, q, tangents[0]), (q, p, tangents[1])):
        if dx is not None:
            tangent += jnp.where(x == 0, 0, 0.5 * log_ratio(2 * x, x + y, x - y)) * dx
    return js_term(p, q), tangent


js_term.defjvp(_js_term_rule, symbolic_zeros=True)


def _log_mixture(c, weight):
    """log(w + (1 - w) exp(-c)) to full relative accuracy, also at w = 0 and 1, where each form taken is smooth."""
    # m / p - 1 and m / q - 1 of the mixture m. No exponential overflows, not even where its form is not taken.
    finite = clipped(c, LOG2 * jnp.finfo(c.dtype).maxexp - 1)
    over_p, over_q = (1 - weight) * jnp.expm1(-finite), weight * jnp.expm1(finite)
    by_p = (over_p >= -0.5) & ((c > -50) | (weight == 1))
    by_q = ~by_p & (over_q <= 1)
    # Below 1/2 the sum itself has all digits.
    neither = jnp.log(jnp.where(by_p | by_q, 1, weight + (1 - weight) * jnp.exp(-jnp.where(c < 0, 0, c))))
    log = log1p(jnp.where(by_p, over_p, jnp.where(by_q, over_q, 0)))
    return jnp.where(by_p, log, jnp.where(by_q, log - c, neither))


js = Divergence(  # weight 1/2 has its own, cheaper formula
    name="js",
    term=_js_term,
    slope_p=lambda pair: _js_slope(pair.p, pair.q, pair.log_ratio, pair.saturated),
    slope_q=lambda pair: _js_slope(pair.q, pair.p, -pair.log_ratio, pair.saturated),
    link=lambda c: -0.5 * _log_mixture(c, 0.5 * jnp.ones_like(c)),
    bound=lambda: LOG2,
    of_masses=js_term,
    table=tables.js,
    anchored=True,
)


def _mixed(pair, weight):
    """The mixture m = w p + (1 - w) q, and p - m and q - m."""
    m = weight * pair.p + (1 - weight) * pair.q
    return m, (1 - weight) * pair.difference, -weight * pair.difference


@custom_jvp
def _of_weight(weight, value):
    """`times`, but its derivative in the weight is the value even if that is infinite."""
    return times(weight, value)


@_of_weight.defjvp
def _(primals, tangents):
    weight, value = primals
    return times(weight, value), weight * tangents[1] + value * tangents[0]


def _skewed_js_term(pair, weight):
    m, p_less_m, q_less_m = _mixed(pair, weight)
    # A law of weight 0 does not count, even if it is infinitely far from the other.
    return _of_weight(weight, bregman(pair.p, m, p_less_m)) + _of_weight(1 - weight, bregman(pair.q, m, q_less_m))


def _skewed_js_slope_p(pair, weight):
    m, delta, _ = _mixed(pair, weight)
    return weight * _times(pair.p, log_ratio(pair.p, m, delta))


def _skewed_js_slope_q(pair, weight):
    m, _, delta = _mixed(pair, weight)
    return (1 - weight) * _times(pair.q, log_ratio(pair.q, m, delta))


skewed_js = Divergence(
    name="skewed_js",
    term=_skewed_js_term,
    slope_p=_skewed_js_slope_p,
    slope_q=_skewed_js_slope_q,
    link=lambda c, weight: -times(weight, _log_mixture(c, weight)),
    parameters=("weight",),
    bound=lambda weight: entropy_of_weights(jnp.stack([weight, 1 - weight], -1))[..., 0],
)


def _rescaled_js_term(pair, weight):
    """The skewed Jensen-Shannon term divided by w (1 - w), with its limits at w = 0 and 1."""
    inside = jnp.where((weight == 0) | (weight == 1), 0.5, weight)  # at the ends it and its derivatives may be infinite
    m, p_less_m, q_less_m = _mixed(pair, inside)
    inner = bregman(pair.p, m, p_less_m) / (1 - inside) + bregman(pair.q, m, q_less_m) / inside
    swapped = pair._replace(p=pair.q, q=pair.p, log_ratio=-pair.log_ratio, difference=-pair.difference)
    at_0, at_1 = _kl_near_0(pair, weight), _kl_near_0(swapped, 1 - weight)
    return jnp.where(weight == 0, at_0, jnp.where(weight == 1, at_1, inner))


def _kl_near_0(pair, weight):
    """The term of Kullback-Leibler, for a weight of 0, with the slope of `rescaled_js` in the weight."""
    value = _kl_term(pair)
    return with_tangents(value, value + times(weight, value - 0.5 * chi2.term(pair)))


def _rescaled_js_slope_p(pair, weight):
    m, delta, _ = _mixed(pair, weight)
    slope = _times(pair.p, log_ratio(pair.p, m, delta)) / or_one(1 - weight)
    return jnp.where(weight == 0, _times(pair.p, pair.centred), jnp.where(weight == 1, pair.difference, slope))


def _rescaled_js_slope_q(pair, weight):
    m, _, delta = _mixed(pair, weight)
    slope = _times(pair.q, log_ratio(pair.q, m, delta)) / or_one(weight)
    return jnp.where(weight == 1, -_times(pair.q, pair.centred), jnp.where(weight == 0, -pair.difference, slope))


def _rescaled_js_link(c, weight):
    end = weight == 1
    inner = -_log_mixture(c, weight) / or_one(1 - weight)
    # To first order in 1 - w; a slope in the weight beyond the floats is cut.
    c = jnp.where(end, c, 0)
    slope = 0.5 * jnp.expm1(-clipped(c, 0.5 * LOG2 * jnp.finfo(c.dtype).maxexp - 1)) ** 2
    return jnp.where(end, (1 - weight) * slope - jnp.expm1(-c), inner)


rescaled_js = Divergence(
    name="rescaled_js",
    term=_rescaled_js_term,
    slope_p=_rescaled_js_slope_p,
    slope_q=_rescaled_js_slope_q,
    link=_rescaled_js_link,
    parameters=("weight",),
    raised=True,
    anchored=True,
)

total_variation = Divergence(
    name="total_variation",
    term=lambda pair: 0.5 * jnp.abs(pair.difference),
    slope_p=lambda pair: 0.5 * pair.p * jnp.sign(pair.difference),
    slope_q=lambda pair: -0.5 * pair.q * jnp.sign(pair.difference),
    link=lambda c: 0.5 * jnp.sign(c),
    bound=lambda: 1.0,
    of_masses=masses.total_variation,
)


def _root_difference(pair):
    """sqrt(p) - sqrt(q)."""
    return pair.difference / or_one(root(pair.p) + root(pair.q))


squared_hellinger = Divergence(
    name="squared_hellinger",
    term=lambda pair: 0.5 * _root_difference(pair) ** 2,
    slope_p=lambda pair: 0.5 * root(pair.p) * _root_difference(pair),
    slope_q=lambda pair: -0.5 * root(pair.q) * _root_difference(pair),
    link=lambda c: -0.5 * jnp.expm1(-0.5 * c),
    bound=lambda: 1.0,
    of_masses=masses.squared_hellinger,
    order=lambda: 0.5,
)


def _over_q(pair, x, y):
    """x y / q; where q underflows to 0 it is p^2 / q, by one exponential, as p may underflow too."""
    none = pair.q == 0
    if pair.log_p is None:
        square = jnp.where(pair.p == 0, 0, jnp.inf)
    else:
        square = jnp.exp(jnp.where(none, pair.log_p + pair.log_ratio, 0))
    return jnp.where(none, square, x * (y / or_one(pair.q)))


def _within_range(times, slope):
    """A multiple of a finite slope, cut where it overflows to a number that a row can still sum."""
    most = jnp.finfo(slope.dtype).max / 8
    return times * jnp.where(jnp.abs(slope) == jnp.inf, slope, jnp.clip(slope, -most, most))


chi2 = Divergence(
    name="chi2",
    term=lambda pair: _over_q(pair, pair.difference, pair.difference),
    slope_p=lambda pair: _within_range(2, _over_q(pair, pair.difference, pair.p)),
    slope_q=lambda pair: _within_range(-1, _over_q(pair, pair.difference, pair.p + pair.q)),
    link=lambda c: 2 * jnp.expm1(c),
    of_masses=masses.chi2,
    order=lambda: 2.0,
    table=tables.chi2,
    raised=True,
)


def _contrast(pair):
    """(p - q) / (p + q)."""
    return pair.difference / or_one(pair.p + pair.q)


def _triangular_link(c):
    contrast = jnp.tanh(0.5 * c)
    return contrast * (2 - contrast)


triangular = Divergence(
    name="triangular",
    term=lambda pair: pair.difference * _contrast(pair),
    slope_p=lambda pair: pair.p * (_contrast(pair) * (2 - _contrast(pair))),
    slope_q=lambda pair: -pair.q * (_contrast(pair) * (2 + _contrast(pair))),
    link=_triangular_link,
    bound=lambda: 2.0,
    of_masses=masses.triangular,
)


def _inverse(x):
    """1 / x, and 1 at 0; without a derivative where that is no float, as it would be NaN times 0."""
    small = jnp.abs(x) < jnp.finfo(x.dtype).tiny ** 0.5
    return jnp.where(small, 1 / or_one(lax.stop_gradient(x)), 1 / jnp.where(small, 1, x))


def amari_term(pair: Event, tilted: jax.Array, alpha: jax.Array) -> jax.Array:
    """(a p + (1 - a) q - p^a q^(1-a)) / (a (1 - a)), with its limits at a = 0 and 1; `tilted` is p^a q^(1-a)."""
    # With d = a - 1, phi(x) = exp(x) - 1 - x and psi(c) = phi(-c), the term is p [psi(c) + phi(d c) / d] / a. For
    # -1/2 <= d < 0 the two parts differ in sign, and at most half of the first cancels. For a < 1/2 swap the laws.
    swap = alpha < 0.5
    p, q = jnp.where(swap, pair.q, pair.p), jnp.where(swap, pair.p, pair.q)
    difference, c = (jnp.where(swap, -x, x) for x in (pair.difference, pair.log_ratio))
    delta = jnp.where(swap, -alpha, alpha - 1)
    infinite, c = (c == jnp.inf) & (delta >= 0), _finite(c)
    y = delta * c
    gentle = jnp.abs(y) <= 1.5  # the polynomial is fitted on [-1.5, 2]; beyond, `tilted` - p loses less than two bits
    near = gentle & (c >= -2) & (c <= 1.5)
    y, small = jnp.where(gentle, y, 0), jnp.where(near, c, 0)
    phi = polynomial("exp", y)
    close = p * (small * small) * (polynomial("exp", -small) + delta * phi)
    gain = jnp.where(gentle, p * jnp.where(gentle, c, 0) * (1 + y * phi), (tilted - p) * _inverse(delta))
    far = jnp.where(infinite, jnp.inf, jnp.where((p == 0) & (c < 0), q, gain - difference))
    return jnp.where(near, close, far) * (1 / (1 + delta))


def _tilted(pair, alpha):
    """p^a q^(1-a), from the larger of p and q: the exponent is then not positive for a in [0, 1]. 0 if both are 0."""
    c = _finite(pair.log_ratio)
    more = c > 0
    larger, gain = jnp.where(more, pair.p, pair.q), jnp.where(more, alpha - 1, alpha) * c
    if pair.log_p is not None:  # where both underflow, their power may not
        gain = jnp.where(larger == 0, pair.log_p + (alpha - 1) * c, gain)
        larger = or_one(larger)
    # The power of their ratio may overflow, and its product with the larger not.
    huge = gain > LOG2 * (jnp.finfo(c.dtype).maxexp - 1)
    power = jnp.exp(jnp.where(huge, 0.5 * gain, gain))
    return larger * power * jnp.where(huge, power, 1)


def _amari_slope(p, tilted, c, scale):
    """p (exp(scale c) - 1) / scale for a finite c = log(p/q), where p exp(scale c) is `tilted`."""
    y = scale * c
    near = jnp.abs(y) <= 0.5  # beyond it, `tilted` - p loses less than two bits
    y, c = jnp.where(near, y, 0), jnp.where(near, c, 0)
    return jnp.where(near, p * c * (1 + y * polynomial("exp_short", y)), (tilted - p) / jnp.where(near, 1, scale))


def _amari_link(c, alpha):
    # In the limit alpha = 1 it is c, also where c is infinite and 0 c would be NaN.
    delta, infinite = alpha - 1, jnp.isinf(c)
    return jnp.where(infinite & (delta == 0), c, scaled_expm1(jnp.where(infinite & (delta == 0), 0, c), delta))


amari = Divergence(
    name="amari",
    term=lambda pair, alpha: amari_term(pair, _tilted(pair, alpha), alpha),
    slope_p=lambda pair, alpha: _amari_slope(pair.p, _tilted(pair, alpha), _finite(pair.log_ratio), alpha - 1),
    slope_q=lambda pair, alpha: _amari_slope(pair.q, _tilted(pair, alpha), -_finite(pair.log_ratio), -alpha),
    link=_amari_link,
    parameters=("alpha",),
    order=lambda alpha: alpha,
    raised=True,
)

_SUMS = kl, jeffreys, js, skewed_js, rescaled_js, amari, squared_hellinger, total_variation, chi2, triangular
BY_NAME = {divergence.name: divergence for divergence in _SUMS}

# It is not 0 at equality.
cross_entropy = Divergence(
    name="cross_entropy",
    term=lambda pair: jnp.where(pair.p == 0, jnp.where(pair.log_ratio == jnp.inf, jnp.inf, 0), pair.p * pair.surprise),
    slope_p=lambda pair: _times(pair.p, pair.surprise),
    slope_q=lambda pair: -pair.difference,  # for laws that sum to one; for masses it would be -p
    link=lambda c: jnp.full_like(c, jnp.nan),  # it has no generator
    of_masses=masses.cross_entropy,
    surprising=True,
    balanced_q=True,
    anchored=True,
)

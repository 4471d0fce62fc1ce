r"""Elementwise kernels: stable special functions and the terms of the divergences.

A divergence is the sum over events of a non-negative term of $p$, $q$ and $c = \log(p/q)$, homogeneous of degree one in
$(p, q)$. A family delivers each event as a `Pair`, with $c$ and $p - q$ accurate to their own magnitude; a
`Divergence` is the term and its two slopes, $p\,\partial/\partial p$ and $q\,\partial/\partial q$, written so that
nothing cancels: differences before sums, polynomials where the closed form would lose digits, no epsilon and no
clipping.

The polynomials are minimax fits; their relative errors are below half an ulp on the stated interval.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

__all__ = ["expm1x", "kl_div", "rel_entr"]

LOG2 = 0.6931471805599453

_POLYNOMIALS = {
    # (exp(x) - 1 - x) / x^2 on -1.5 <= x <= 2
    "exp": (
        (5.000000002e-01, 1.666666746e-01, 4.166666377e-02, 8.333289695e-03, 1.388899457e-03, 1.984777438e-04,
         2.478552776e-05, 2.719007170e-06, 2.855990055e-07, 3.242555032e-08),
        (5.000000000000000000e-01, 1.666666666666666852e-01, 4.166666666666660190e-02, 8.333333333333076479e-03,
         1.388888888889443403e-03, 1.984126984138431403e-04, 2.480158729978372786e-05, 2.755731920211937275e-06,
         2.755731952172557136e-07, 2.505211043472118783e-08, 2.087672959211383004e-09, 1.605895128695877464e-10,
         1.147217107374522254e-11, 7.648535939061420253e-13, 4.740084544924005196e-14, 2.839359980592431046e-15,
         2.021953640649936716e-16),
    ),
    # the same on |x| <= 1/2
    "exp_short": (
        (0.5000000122, 0.166666668, 0.04166579123, 0.008333236134, 0.001398218605, 0.0001994487444),
        (0.4999999999999999986, 0.1666666666666666666, 0.04166666666666706171, 0.00833333333333335966,
         0.001388888888870454897, 0.0001984126984114699187, 0.00002480158761614541272, 2.755731943362024282e-6,
         2.755707663664272348e-7, 2.505194670972162113e-8, 2.096295581597607574e-9, 1.611649651437154647e-10),
    ),
    # (atanh(v) - v) / v^3 in v^2 <= 1/4
    "atanh": (
        (0.3333333343730710741529, 0.1999995933621582679459, 0.1428828604281128517927, 0.1105083039522399089231,
         0.0975194086574116819697, 0.04091623071824173703234, 0.1562916538185636980039),
        (0.3333333333333333278143, 0.2000000000000086485708, 0.1428571428549010502364, 0.1111111113393896879993,
         0.09090907881509188144189, 0.07692345940270638332795, 0.06665886352702884132474, 0.05893099692590041597484,
         0.051607698811471620283, 0.05441915418234587182234, 0.01229244872854053171611, 0.1355790391369229839083,
         -0.1445049118341446776534, 0.2109809788597579687887),
    ),
    # ((1+v) log(1+v) + (1-v) log(1-v)) / v^2 in v^2 <= .36
    "js_v": (
        (1.000000002486507945698, 0.1666659917943481647557, 0.0666962047278433685035, 0.03523676387334858390876,
         0.02581586494695839393208, 0.001838587988118165498963, 0.03302277794367144203432),
        (1.000000000000000013277, 0.1666666666666500818865, 0.0666666666700940037806, 0.03571428543561780982799,
         0.0222222340463368357862, 0.01515121423692329074746, 0.01099398509397383671682, 0.008277293269401172786631,
         0.00697859734432223496594, 0.002779015569149274338168, 0.01423004644754702461413, -0.02395240462372319672144,
         0.05464462924879219446421, -0.05672904859552089764473, 0.03597555666884493465586),
    ),
    # Jensen-Shannon term / (max(p, q) c^2) in |c| <= 2
    "js_c": (
        (1.250000002e-01, -6.250001512e-02, 1.562519929e-02, -2.605166377e-03, 4.364933807e-04, -9.010239074e-05,
         1.323696675e-05, -5.133339800e-07, -7.522920421e-08),
        (1.250000000000000000e-01, -6.250000000000006939e-02, 1.562500000000419109e-02, -2.604166666765316777e-03,
         4.340277789976973726e-04, -8.680556469493834514e-05, 1.085073953971955925e-05, 2.581954250718575603e-07,
         -2.545545766420916275e-08, -9.541034287715596857e-08, 8.795765150200401274e-09, 5.460324117814723001e-09,
         1.317970340167680950e-10, -7.319138939960134497e-10, 5.260403149632803744e-11, 7.987487874670803918e-11,
         -2.955536900743048724e-11, 4.468432576205982528e-12, -2.667650736945243294e-13),
    ),
    # (c/2 - log(p/m)) / c^2 in c^2 <= 4
    "log_mean": (
        (1.250000000e-01, -5.208310834e-03, 3.471305503e-04, -2.620903152e-05, 2.026932061e-06, -1.354163807e-07,
         5.252325562e-09),
        (1.250000000000000000e-01, -5.208333333333192532e-03, 3.472222222195791674e-04, -2.635168648831427945e-05,
         2.135692163282023213e-06, -1.803228077226825358e-07, 1.566015542804545859e-08, -1.388092368502687619e-09,
         1.248145785362163936e-10, -1.127560828529692124e-11, 9.983629558442480066e-13, -8.183394032294478682e-14,
         5.600658225735514285e-15, -2.709793018160547304e-16, 6.658422469459401564e-18),
    ),
    # log(1 + x) / x on 0 <= x <= exp(-2)
    "log_one_more": (
        (9.999999997e-01, -4.999998398e-01, 3.333193370e-01, -2.495492919e-01, 1.933402157e-01, -1.196057854e-01),
        (9.999999999999999998e-01, -4.999999999999996485e-01, 3.333333333332088144e-01, -2.499999999827017378e-01,
         1.999999987564206862e-01, -1.666666137956009313e-01, 1.428557130571124105e-01, -1.249744151086288833e-01,
         1.108031425850061922e-01, -9.751514105498389025e-02, 7.781588553041290787e-02, -4.079267572621407743e-02),
    ),
    # 2 log(2 - b) on 0 <= b <= .4
    "log_two_less": (
        (1.386294361e+00, -9.999997884e-01, -2.500083855e-01, -8.320985299e-02, -3.210391224e-02, -9.546084301e-03,
         -9.961183744e-03),
        (1.386294361119890619552, -1.000000000000000702716, -0.2499999999998860839656, -0.08333333334059158657035,
         -0.03124999975924814910795, -0.01250000477015600563561, -0.005208272313430934218976,
         -0.002232670336407918464754, -0.0009734038530456665528823, -0.0004472387692930241862548,
         -0.0001570455380204037954436, -0.0001632203141486984857778, 0.00004992649166206706299812,
         -0.00007671498564611006247289),
    ),
}  # fmt: skip


def polynomial(name: str, x: jax.Array) -> jax.Array:
    """One of the fits above by Horner's rule, with as many coefficients as the dtype needs."""
    coefficients = _POLYNOMIALS[name][x.dtype == jnp.float64]
    y = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        y = y * x + coefficient
    return y


def is_real(tangent: Any) -> bool:
    """Whether a tangent in a rule with symbolic zeros is an array."""
    return tangent is not None and not isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def positive(x: jax.Array) -> jax.Array:
    """`x` with zeros replaced by ones, for use below a fraction line."""
    return jnp.where(x == 0, 1, x)


def expm1x(x: ArrayLike) -> jax.Array:
    r"""$e^x - 1 - x \ge 0$ to full relative accuracy, elementwise.

    Args:
        x: Any shape, floating-point.

    Returns:
        The shape of `x`: zero at 0, `inf` at both infinities; `nan` stays `nan`.

    Example:
        >>> print(f"{elementary.expm1x(1e-3):.4e}")
        5.0017e-07
    """
    return _expm1x(jnp.asarray(x))


@jax.custom_jvp
def _expm1x(x):
    # expm1(x) - x loses two bits at |x| = 1 and every bit as x -> 0.
    near = (x >= -1.5) & (x <= 2)
    small = jnp.where(near, x, 0)
    far = jnp.where(x == jnp.inf, jnp.inf, (jnp.exp(x) - 1) - x)
    return jnp.where(near, small * small * polynomial("exp", small), far)


_expm1x.defjvps(lambda dx, _, x: expm1(x) * dx)


@jax.custom_jvp
def expm1(x: jax.Array) -> jax.Array:
    """`exp(x) - 1` to two ulps, where XLA's loses five in float32; of the same parts as `expm1x`."""
    near = (x >= -1.5) & (x <= 2)
    small = jnp.where(near, x, 0)
    return jnp.where(near, small + small * small * polynomial("exp", small), jnp.exp(x) - 1)


expm1.defjvps(lambda dx, _, x: jnp.exp(x) * dx)


ENLARGEMENT = 2.0**64


@jax.custom_jvp
def enlarged(x: jax.Array) -> jax.Array:
    """`ENLARGEMENT` times `x`, exactly, for terms that are homogeneous: there differences of tiny numbers are normal.

    XLA on CPU takes subnormal numbers for zero. Their bits are read as the integers they count.
    """
    info = jnp.finfo(x.dtype)
    integer = jnp.uint64 if x.dtype == jnp.float64 else jnp.uint32
    bits = lax.bitcast_convert_type(x, integer)
    exponent = (bits >> info.nmant) & integer(2**info.nexp - 1)
    count = (bits & integer(2**info.nmant - 1)).astype(x.dtype)
    sign = jnp.where(bits >> (info.nmant + info.nexp) == 1, -1, 1).astype(x.dtype)
    unit = 2.0 ** (info.minexp - info.nmant) * ENLARGEMENT
    return jnp.where(exponent == 0, sign * (count * unit), x * ENLARGEMENT)


enlarged.defjvps(lambda dx, *_: dx * ENLARGEMENT)


def split(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Upper and lower half of the significand; products of halves are exact."""
    integer, mask = (jnp.uint64, 0xFFFFFFFFF8000000) if x.dtype == jnp.float64 else (jnp.uint32, 0xFFFFF000)
    top = lax.bitcast_convert_type(lax.bitcast_convert_type(x, integer) & integer(mask), x.dtype)
    return top, x - top


def _expm1x_over_square(x):
    """(exp(x) - 1 - x) / x^2, 1/2 at 0."""
    near = (x >= -1.5) & (x <= 2)
    far = jnp.where(near, 1, x)
    return jnp.where(near, polynomial("exp", jnp.where(near, x, 0)), (jnp.expm1(far) - far) / far / far)


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


@jax.custom_jvp
def difference(p: jax.Array, q: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """p - q to full relative accuracy, from two rounded probabilities and their accurate log-ratio."""
    near = jnp.abs(log_ratio) <= 0.5
    c = jnp.where(near, -log_ratio, 0)
    return jnp.where(near, -p * (c + c * c * polynomial("exp_short", c)), p - q)


@difference.defjvp
def _(primals, tangents):
    # The log-ratio is a function of p and q: all of its dependence is in theirs.
    return difference(*primals), tangents[0] - tangents[1]


@jax.custom_jvp
def log_ratio(x: jax.Array, y: jax.Array, delta: jax.Array) -> jax.Array:
    r"""$\log(x/y)$ to full relative accuracy from `delta` $= x - y$, elementwise.

    0 where both are zero; infinite where one is; `nan` where one is negative or `nan`.
    """
    total = x + y
    v = delta / positive(total)
    near = jnp.abs(delta) <= 0.5 * total  # the ratio is between 1/3 and 3
    small = jnp.where(near, v, 0)
    z = small * small
    log = _log_of_quotient(x, y)
    return jnp.where(near, 2 * small + 2 * small * z * polynomial("atanh", z), jnp.where(delta < 0, -log, log))


def _log_of_quotient(x, y):
    """The logarithm of the larger over the smaller, infinite where the smaller is zero."""
    smaller, larger = jnp.minimum(x, y), jnp.maximum(x, y)
    # Scaled where the quotient of two normal numbers may overflow.
    half = 2.0 ** (jnp.finfo(x.dtype).maxexp // 2)
    huge = (smaller > 0) & (larger * (1 / half) > smaller * (half / 4))
    quotient = jnp.where(huge, larger * (1 / half), larger) / positive(jnp.where(huge, smaller * half, smaller))
    log = jnp.log(quotient) + jnp.where(huge, 2 * jnp.log(jnp.asarray(half, x.dtype)), 0)
    return jnp.where(smaller == 0, jnp.inf, log)


@log_ratio.defjvp
def _(primals, tangents):
    x, y, _ = primals
    dx, dy, _ = tangents
    # At a zero the derivative is infinite; 0 is the one-sided choice that keeps gradients finite.
    return log_ratio(*primals), jnp.where(x == 0, 0, dx / positive(x)) - jnp.where(y == 0, 0, dy / positive(y))


@jax.custom_jvp
def bregman(x: jax.Array, y: jax.Array, delta: jax.Array) -> jax.Array:
    r"""$x \log(x/y) - x + y \ge 0$ to full relative accuracy from `delta` $= x - y$, elementwise.

    `y` where `x` is 0; `inf` where only `y` is 0; `nan` where one is negative or `nan`.
    """
    total = x + y
    near = jnp.abs(delta) <= 0.5 * total
    v = jnp.where(near, delta / positive(total), 0)
    z = v * v
    # x log(x/y) - (x - y) cancels; with log(x/y) = 2 atanh v it is (x - y) v + 2 x (atanh v - v).
    close = delta * v + 2 * x * (v * z) * polynomial("atanh", z)
    log = jnp.where(x == 0, 0, jnp.where(delta < 0, -1, 1) * _log_of_quotient(x, y))
    return jnp.where(near, close, x * log - delta)


def _bregman_rule(primals, tangents):
    x, y, delta = primals
    dx, dy, _ = tangents
    tangent = jnp.zeros_like(x + y)
    if is_real(dx):
        tangent += jnp.where((x == 0) | (y == 0), 0, log_ratio(x, y, delta)) * dx
    if is_real(dy):
        tangent -= jnp.where(y == 0, 0, delta / positive(y)) * dy
    return bregman(*primals), tangent


bregman.defjvp(_bregman_rule, symbolic_zeros=True)


def rel_entr(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""$p \log(p/q)$, elementwise, to full relative accuracy.

    Signed: its sum is the divergence of what was given, nothing normalised, and accurate only relative to the sum of
    its absolute values. For a divergence that cannot be negative use `kl_div`, or a family.

    Args:
        p: Non-negative numbers of any shape, floating-point.
        q: Non-negative numbers of a shape and dtype that go with those of `p`.

    Returns:
        The broadcast shape: zero where `p` is 0, `inf` where only `q` is; `nan` where one is negative.

    Example:
        >>> print(f"{elementary.rel_entr(0.5, 0.25):.4f}")
        0.3466
    """
    p, q = jnp.asarray(p), jnp.asarray(q)
    return p * jnp.where(p == 0, 0, log_ratio(p, q, p - q))


def kl_div(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""$p \log(p/q) - p + q \ge 0$, elementwise, to full relative accuracy.

    Args:
        p: Non-negative numbers of any shape, floating-point.
        q: Non-negative numbers of a shape and dtype that go with those of `p`.

    Returns:
        The broadcast shape: `q` where `p` is 0, `inf` where only `q` is, zero where they are equal; `nan` where one is
        negative.

    Example:
        >>> print(f"{elementary.kl_div(0.5, 0.25):.4f}")
        0.0966
    """
    p, q = jnp.asarray(p), jnp.asarray(q)
    return bregman(p, q, p - q)


@jax.custom_jvp
def root(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0."""
    return jnp.sqrt(x)


root.defjvps(lambda dx, _, x: jnp.where(x == 0, 0, dx / positive(2 * root(x))))


# ---------------------------------------------------------------- the terms


class Pair(NamedTuple):
    """What a family knows of each event.

    `log_ratio` is infinite where exactly one of `p` and `q` has no mass. For slopes that are centred over a row there
    is more: `centred` is `log_ratio` up to a constant of the row, with more digits; `saturated` is 1 where
    the law whose slope is asked for dwarfs the other where it is largest. `surprise` is -log q, in a slope up to a
    constant of the row. A family fills these with `log_ratio`, 0 and None where they do not apply.
    """

    p: jax.Array
    q: jax.Array
    log_ratio: jax.Array
    difference: jax.Array
    centred: jax.Array
    saturated: jax.Array
    surprise: jax.Array | None


class Divergence(NamedTuple):
    """A term `f(pair, *parameters) >= 0` and its slopes, `p df/dp` and `q df/dq`.

    Slopes of an `anchored` one use `pair.centred`, `pair.saturated` or `pair.surprise`, and are determined up to a
    multiple of their probability.
    A term that uses `pair.surprise` says so in `surprising`. Slopes in q that sum to zero of themselves, and stay
    finite where the term is infinite, are `balanced_q`: nothing need be known of their row.
    """

    term: Callable[..., jax.Array]
    slope_p: Callable[..., jax.Array]
    slope_q: Callable[..., jax.Array]
    surprising: bool = False
    balanced_q: bool = False
    anchored: bool = False


def _huge(x):
    """Stands in for infinity where it is multiplied by an exact zero."""
    return jnp.finfo(x.dtype).max ** 0.75


def _kl_term(pair):
    # p log(p/q) - p + q = p (exp(-c) - 1 + c); far from 0 the closed form cancels no more than two bits.
    p, q, c = pair[:3]
    near = (c >= -2) & (c <= 1.5)
    far = p * (jnp.maximum(c, -_huge(c)) - 1) + q
    return jnp.where(near, p * (c * c) * polynomial("exp", -c), jnp.where(c == jnp.inf, jnp.inf, far))


def _times(p, c):
    """p c, 0 where p is 0."""
    return p * jnp.clip(c, -_huge(c), _huge(c))


kl = Divergence(
    _kl_term,
    lambda pair: _times(pair.p, pair.centred),
    lambda pair: -pair.difference,
    balanced_q=True,
    anchored=True,
)

jeffreys = Divergence(
    lambda pair: jnp.where(pair.difference == 0, 0, pair.difference * pair.log_ratio),
    lambda pair: _times(pair.p, pair.centred) + pair.difference,
    lambda pair: -_times(pair.q, pair.centred) - pair.difference,
    anchored=True,
)


# Logits only: in probabilities the second slope is -p.
cross_entropy = Divergence(
    lambda pair: jnp.where(pair.p == 0, jnp.where(pair.log_ratio == jnp.inf, jnp.inf, 0), pair.p * pair.surprise),
    lambda pair: _times(pair.p, pair.surprise),
    lambda pair: -pair.difference,
    surprising=True,
    balanced_q=True,
    anchored=True,
)


def _by_size(p, q, c):
    """The larger of p and q, the smaller over it, and log(1 + that), each for c = log(p/q) outside of [-2, 2]."""
    larger = jnp.where(c < 0, q, p)
    # Not a quotient: XLA:CPU stores one that is used more than once.
    ratio = jnp.where(c < 0, p, q) * (1 / positive(larger))
    return larger, ratio, ratio * polynomial("log_one_more", ratio)


def _js_term(pair):
    # (p log(p/m) + q log(q/m)) / 2, as max(p, q) times an even function of c.
    p, q, c = pair[:3]
    larger, ratio, log_one_more = _by_size(p, q, c)
    size = jnp.minimum(jnp.abs(c), _huge(c))
    far = 0.5 * ((1 + ratio) * (LOG2 - log_one_more) - ratio * size)
    return larger * jnp.where(size <= 2, size * size * polynomial("js_c", size), far)


def _js_slope(p, q, c, saturated):
    """p log(p/m) / 2 with c = log(p/q), or the same less p log(2) / 2 on saturated rows."""
    # exp(-|c|) is taken from p and q: from c it would carry c's rounding, |c| times larger.
    _, _, log_one_more = _by_size(p, q, c)
    near = jnp.abs(c) <= 2
    z = jnp.where(near, c * c, 0)
    offset = saturated * jnp.asarray(LOG2, c.dtype)
    far = (LOG2 - offset) - (log_one_more - jnp.maximum(jnp.minimum(c, 0), -_huge(c)))
    return 0.5 * p * jnp.where(near, (0.5 * jnp.where(near, c, 0) - z * polynomial("log_mean", z)) - offset, far)


js = Divergence(
    _js_term,
    lambda pair: _js_slope(pair.p, pair.q, pair.log_ratio, pair.saturated),
    lambda pair: _js_slope(pair.q, pair.p, -pair.log_ratio, pair.saturated),
    anchored=True,
)


def _mixed(pair, weight):
    """The mixture m = w p + (1 - w) q, and p - m and q - m."""
    p, q, w = pair.p, pair.q, pair.difference
    return weight * p + (1 - weight) * q, (1 - weight) * w, -weight * w


def _share(weight, x):
    """weight x; 0 for a law without weight, even if it is infinitely far from the other."""
    return jnp.where((weight == 0) & (x == jnp.inf), 0, weight * x)


def _skewed_js_term(pair, weight):
    m, p_less_m, q_less_m = _mixed(pair, weight)
    return _share(weight, bregman(pair.p, m, p_less_m)) + _share(1 - weight, bregman(pair.q, m, q_less_m))


def _skewed_js_slope_p(pair, weight):
    m, delta, _ = _mixed(pair, weight)
    return weight * _times(pair.p, log_ratio(pair.p, m, delta))


def _skewed_js_slope_q(pair, weight):
    m, _, delta = _mixed(pair, weight)
    return (1 - weight) * _times(pair.q, log_ratio(pair.q, m, delta))


skewed_js = Divergence(_skewed_js_term, _skewed_js_slope_p, _skewed_js_slope_q)


def _rescaled_js_term(pair, weight):
    """The skewed Jensen-Shannon term over w (1 - w), continued to w = 0 and 1."""
    m, p_less_m, q_less_m = _mixed(pair, weight)
    inner = bregman(pair.p, m, p_less_m) / positive(1 - weight) + bregman(pair.q, m, q_less_m) / positive(weight)
    swapped = pair._replace(p=pair.q, q=pair.p, log_ratio=-pair.log_ratio)
    return jnp.where(weight == 0, _kl_term(pair), jnp.where(weight == 1, _kl_term(swapped), inner))


def _rescaled_js_slope_p(pair, weight):
    m, delta, _ = _mixed(pair, weight)
    slope = _times(pair.p, log_ratio(pair.p, m, delta)) / positive(1 - weight)
    return jnp.where(weight == 0, _times(pair.p, pair.centred), jnp.where(weight == 1, pair.difference, slope))


def _rescaled_js_slope_q(pair, weight):
    m, _, delta = _mixed(pair, weight)
    slope = _times(pair.q, log_ratio(pair.q, m, delta)) / positive(weight)
    return jnp.where(weight == 1, -_times(pair.q, pair.centred), jnp.where(weight == 0, -pair.difference, slope))


rescaled_js = Divergence(_rescaled_js_term, _rescaled_js_slope_p, _rescaled_js_slope_q, anchored=True)

total_variation = Divergence(
    lambda pair: 0.5 * jnp.abs(pair.difference),
    lambda pair: 0.5 * pair.p * jnp.sign(pair.difference),
    lambda pair: -0.5 * pair.q * jnp.sign(pair.difference),
)


def _root_difference(pair):
    """sqrt(p) - sqrt(q)."""
    return pair.difference / positive(root(pair.p) + root(pair.q))


squared_hellinger = Divergence(
    lambda pair: 0.5 * _root_difference(pair) ** 2,
    lambda pair: 0.5 * root(pair.p) * _root_difference(pair),
    lambda pair: -0.5 * root(pair.q) * _root_difference(pair),
)


def _of_mass(mass, x):
    """x, 0 where there is no mass, even if x is not a number there."""
    return jnp.where(mass == 0, 0, x)


def _ratio(pair):
    """p / q, from the log-ratio where q is too small for a float."""
    q = positive(pair.q)
    return jnp.where(pair.q == 0, jnp.exp(jnp.where(pair.q == 0, pair.log_ratio, 0)), pair.p / q)


chi2 = Divergence(
    lambda pair: jnp.where(
        pair.q == 0,
        jnp.where(pair.log_ratio == jnp.inf, jnp.inf, _of_mass(pair.p, pair.p * _ratio(pair))),
        pair.difference * (pair.difference / positive(pair.q)),
    ),
    lambda pair: _of_mass(pair.p, 2 * pair.difference * _ratio(pair)),
    lambda pair: _of_mass(pair.p + pair.q, -pair.difference * (1 + _ratio(pair))),
)


def _contrast(pair):
    """(p - q) / (p + q)."""
    return pair.difference / positive(pair.p + pair.q)


triangular = Divergence(
    lambda pair: pair.difference * _contrast(pair),
    lambda pair: pair.p * (_contrast(pair) * (2 - _contrast(pair))),
    lambda pair: -pair.q * (_contrast(pair) * (2 + _contrast(pair))),
)


def _amari_term(pair, alpha):
    """(a p + (1 - a) q - p^a q^(1-a)) / (a (1 - a)), continued to a = 0 and 1."""
    # With d = a - 1 the term is p [psi(c) + phi(d c) / d] / a, phi(x) = exp(x) - 1 - x and psi(c) = phi(-c). Where
    # the two parts differ in sign, -1/2 <= d < 0, at most half of the first cancels; for a < 1/2 swap the laws.
    swap = alpha < 0.5
    p, q = jnp.where(swap, pair.q, pair.p), jnp.where(swap, pair.p, pair.q)
    w, c = (jnp.where(swap, -x, x) for x in (pair.difference, pair.log_ratio))
    delta = jnp.where(swap, -alpha, alpha - 1)
    near = (c >= -2) & (c <= 1.5)
    small = jnp.where(near, c, 0)
    close = p * (small * small) * (polynomial("exp", -small) + delta * _expm1x_over_square(delta * small))
    far = p * scaled_expm1(jnp.where(near | (p == 0), 1, jnp.minimum(c, _huge(c))), delta) - w
    far = jnp.where((c == jnp.inf) & (delta >= 0), jnp.inf, jnp.where(p == 0, q, far))
    return jnp.where(near, close, far) / (1 + delta)


def _tilted(pair, alpha):
    """p^a q^(1-a), from the larger of the two, so that no exponent is positive for a in [0, 1]; 0 where that is 0."""
    c = jnp.clip(pair.log_ratio, -_huge(pair.p), _huge(pair.p))
    more = c > 0
    larger = jnp.where(more, pair.p, pair.q)
    return larger * jnp.exp(jnp.where(larger == 0, 0, jnp.where(more, alpha - 1, alpha) * c))


def _amari_slope(p, tilted, c, scale):
    """p (exp(scale c) - 1) / scale for c = log(p/q), where p exp(scale c) is `tilted`."""
    c = jnp.clip(c, -_huge(c), _huge(c))
    near = jnp.abs(scale * c) <= 0.5
    return jnp.where(near, p * scaled_expm1(jnp.where(near, c, 0), scale), (tilted - p) / jnp.where(near, 1, scale))


amari = Divergence(
    _amari_term,
    lambda pair, alpha: _amari_slope(pair.p, _tilted(pair, alpha), pair.log_ratio, alpha - 1),
    lambda pair, alpha: _amari_slope(pair.q, _tilted(pair, alpha), -pair.log_ratio, -alpha),
)


@jax.custom_jvp
def js_term(p: jax.Array, q: jax.Array) -> jax.Array:
    """(p log(p/m) + q log(q/m)) / 2 for m = (p + q) / 2, elementwise; `nan` where one is negative or `nan`."""
    total = p + q
    v = (p - q) / positive(total)
    z = v * v
    near = z <= 0.36
    small = jnp.where(near, z, 0)
    size, rest = jnp.abs(v), 2 * jnp.minimum(p, q) / positive(total)  # rest = 1 - size, without the cancellation
    far = (1 + size) * jnp.log1p(size) + rest * jnp.log(positive(rest))
    term = 0.25 * total * jnp.where(near, small * polynomial("js_v", small), far)
    return jnp.where((p >= 0) & (q >= 0), term, jnp.nan)


def _js_term_rule(primals, tangents):
    p, q = primals
    # Twice p over p + q, not p over its half: halving the smallest normal numbers would flush them to zero.
    tangent = jnp.zeros_like(p)
    for x, y, dx in ((p, q, tangents[0]), (q, p, tangents[1])):
        if is_real(dx):
            tangent += jnp.where(x == 0, 0, 0.5 * log_ratio(2 * x, x + y, x - y)) * dx
    return js_term(p, q), tangent


js_term.defjvp(_js_term_rule, symbolic_zeros=True)


@jax.custom_jvp
def at_most(x: jax.Array, bound: ArrayLike) -> jax.Array:
    """`x`, known to be at most `bound`, with the excess of its rounding removed; the derivative is that of `x`."""
    # Not a minimum: behind a sum over many rows that of XLA:CPU takes the bound for NaN.
    bound = jnp.asarray(bound, x.dtype)
    return jnp.where((x <= bound) | jnp.isnan(x), x, bound)


@at_most.defjvp
def _(primals, tangents):
    return at_most(*primals), tangents[0]


def entropy_of_weights(weights: jax.Array) -> jax.Array:
    """-sum w log w over the last axis, kept: the bound of a weighted Jensen-Shannon divergence. NaN below 0."""
    return -jnp.sum(jnp.where(weights == 0, 0, weights * jnp.log(positive(weights))), -1, keepdims=True)

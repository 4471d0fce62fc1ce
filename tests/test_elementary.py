"""Each kernel against mpmath at its own exact arguments, on both sides of every branch."""

import functools
import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from measure import MPMATH, x64

from jaxdiv import elementary
from jaxdiv._core import functions
from jaxdiv._discrete import affinity, differences, softmax, terms
from jaxdiv._discrete.record import Event
from jaxdiv._selfcheck import discrete

DTYPES = [np.float32, np.float64]
SIZES = [1e-7, 1e-5, 1e-3, 0.03, 0.3, 0.49, 0.51, 1.0, 1.49, 1.51, 1.99, 2.01, 5.0, 30.0]
SIGNED = [sign * size for size in SIZES for sign in (1, -1)]


def _ulps(got, exact):
    """The worst error in units of the last place of the exact values."""
    eps = np.finfo(got.dtype).eps
    return max(
        float(abs(mp.mpf(float(g)) - e) / (abs(e) * mp.mpf(float(eps)))) if e else float(g != 0) * np.inf
        for g, e in zip(got.tolist(), exact, strict=True)
    )


def _evaluate(function, *columns, dtype):
    with x64(dtype):
        return np.asarray(jax.jit(function)(*(jnp.asarray(column, dtype) for column in columns)))


def _numbers(values, dtype):
    rounded = np.asarray(values, dtype)
    return rounded, [mp.mpf(float(x)) for x in rounded]


@pytest.mark.parametrize("dtype", DTYPES)
def test_expm1x_keeps_its_digits(dtype):
    x, exact = _numbers(SIGNED, dtype)
    assert _ulps(_evaluate(elementary.expm1x, x, dtype=dtype), [mp.expm1(t) - t for t in exact]) <= 4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.0, 1e-6, -0.3, 1.0])
def test_scaled_expm1_has_its_limit(scale, dtype):
    x, exact = _numbers(SIGNED, dtype)
    s, (s_exact,) = _numbers([scale], dtype)
    got = _evaluate(functions.scaled_expm1, x, np.broadcast_to(s, x.shape), dtype=dtype)
    # Relative to the exponent that is rounded.
    assert _ulps(got, [mp.expm1(s_exact * t) / s_exact if scale else t for t in exact]) <= 8 * (1 + abs(scale) * 30)


@pytest.mark.parametrize("dtype", DTYPES)
def test_log1p_ratio_keeps_its_digits(dtype):
    x, exact = _numbers([t for t in SIGNED if t > -0.5], dtype)
    assert _ulps(_evaluate(functions.log1p_ratio, x, dtype=dtype), [mp.log1p(t) / t for t in exact]) <= 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_exponential_and_what_it_lacks_to_1_keep_their_digits(dtype):
    x, exact = _numbers([-t for t in (1e-30, 1e-7, 1e-3, 0.1, 0.34, 0.36, 0.5, 0.7, 1, 1.5, 3, 10, 33.3, 87)], dtype)
    value, loss = (_evaluate(lambda x: functions.exp_and_loss(x)[i], x, dtype=dtype) for i in range(2))  # noqa: B023
    assert _ulps(value, [mp.exp(t) for t in exact]) <= 2
    assert _ulps(loss, [-mp.expm1(t) for t in exact]) <= 4
    for x, found in ((0.0, [1, 0]), (-np.inf, [0, 1])):
        assert [float(y) for y in functions.exp_and_loss(jnp.float32(x))] == found
    assert all(np.isnan(y) for y in functions.exp_and_loss(jnp.float32(np.nan)))
    slopes = jax.jacfwd(functions.exp_and_loss)(jnp.float32(-0.3))
    np.testing.assert_allclose(slopes, [np.exp(-0.3), -np.exp(-0.3)], 1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_powers_of_two_and_exponents_are_each_others_inverses(dtype):
    info = np.finfo(dtype)
    n = np.arange(info.minexp, info.maxexp)
    power = np.ldexp(np.ones(len(n), dtype), n)
    with x64(dtype):
        for x in (power, power * (2 - info.eps)):
            found = functions.exponent_of(jnp.asarray(x))
            np.testing.assert_array_equal(found, n)
            np.testing.assert_array_equal(functions.power_of_two(found, jnp.dtype(dtype)), power)


def test_log1p_ratio_is_smooth_at_zero():
    assert functions.log1p_ratio(jnp.float32(0)) == 1
    assert jax.grad(functions.log1p_ratio)(jnp.float32(0)) == -0.5


def _close_pairs(dtype):
    """p and q from almost equal to far apart, as exact floats."""
    p = np.full(len(SIGNED), 0.3, dtype)
    q = (p.astype(np.float64) * np.exp(-np.array(SIGNED))).astype(dtype)
    keep = p != q
    return p[keep], q[keep], [mp.mpf(float(x)) for x in p[keep]], [mp.mpf(float(x)) for x in q[keep]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_ratio_keeps_its_digits(dtype):
    p, q, p_exact, q_exact = _close_pairs(dtype)
    got = _evaluate(lambda p, q: functions.log_ratio(p, q, p - q), p, q, dtype=dtype)
    assert _ulps(got, [mp.log(x / y) for x, y in zip(p_exact, q_exact, strict=True)]) <= 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_ratio_of_extreme_numbers_does_not_overflow(dtype):
    tiny = float(np.finfo(dtype).tiny)
    got = _evaluate(lambda p, q: functions.log_ratio(p, q, p - q), [1e30, tiny], [tiny, 1e30], dtype=dtype)
    exact = mp.log(mp.mpf(float(dtype(1e30))) / mp.mpf(tiny))
    assert _ulps(got, [exact, -exact]) <= 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_bregman_and_the_js_term_keep_their_digits(dtype):
    p, q, p_exact, q_exact = _close_pairs(dtype)
    pairs = list(zip(p_exact, q_exact, strict=True))
    assert _ulps(_evaluate(elementary.kl_div, p, q, dtype=dtype), [x * mp.log(x / y) - x + y for x, y in pairs]) <= 6
    js = [(x * mp.log(2 * x / (x + y)) + y * mp.log(2 * y / (x + y))) / 2 for x, y in pairs]
    assert _ulps(_evaluate(terms.js_term, p, q, dtype=dtype), js) <= 6


@pytest.mark.parametrize("dtype", DTYPES)
def test_rel_entr_keeps_its_digits(dtype):
    p, q, p_exact, q_exact = _close_pairs(dtype)
    exact = [x * mp.log(x / y) for x, y in zip(p_exact, q_exact, strict=True)]
    assert _ulps(_evaluate(elementary.rel_entr, p, q, dtype=dtype), exact) <= 5


NUMBERS = {"weight": [0.1], "alpha": [0.3, -1.0, 0.0, 1e-6, 0.5, 1 - 1e-6, 1.0, 1 + 1e-6, 2.0]}
OTHERS = {"rescaled_js": [1e-4]}  # near its limit
PARAMETERS = [
    (name, list(values))
    for name, divergence in terms.BY_NAME.items()
    for values in itertools.product(*(OTHERS.get(name, NUMBERS[number]) for number in divergence.parameters))
]


def _pairs_by_log_ratio(dtype):
    """Pairs as the logit families deliver them: p and c exact, q and p - q rounded from them."""
    c, c_exact = _numbers(SIGNED, dtype)
    p = np.where(c > 0, 0.3, 0.3 * np.exp(np.minimum(c, 0).astype(np.float64))).astype(dtype)
    p_exact = [mp.mpf(float(x)) for x in p]
    q_exact = [x * mp.exp(-t) for x, t in zip(p_exact, c_exact, strict=True)]
    return p, np.array([float(x) for x in q_exact], dtype), c, p_exact, q_exact


def _pair(p, q, c):
    return Event(p, q, c, functions.difference(p, q, c), c, jnp.zeros_like(c), None, jnp.log(p))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "parameters"), PARAMETERS)
def test_a_term_and_its_slopes_keep_their_digits(name, parameters, dtype):
    divergence = terms.BY_NAME[name]
    p, q, c, p_exact, q_exact = _pairs_by_log_ratio(dtype)
    values, values_exact = _numbers(parameters, dtype)
    definition = functools.partial(discrete.TERMS[name], MPMATH)

    def evaluate(p, q, c):
        given = [jnp.asarray(value) for value in values]
        return [f(_pair(p, q, c), *given) for f in (divergence.term, divergence.slope_p, divergence.slope_q)]

    with x64(dtype):
        got = [np.asarray(x) for x in jax.jit(evaluate)(*(jnp.asarray(x) for x in (p, q, c)))]
    pairs = list(zip(p_exact, q_exact, strict=True))
    exact = [definition(x, y, *values_exact) for x, y in pairs]
    # What is formed through exp(c) carries the rounding of q, and an exponent's own.
    assert _ulps(got[0], exact) <= 16
    with mp.workdps(80):
        at_p = [x * discrete.difference(lambda t, y=y: definition(t, y, *values_exact), x) for x, y in pairs]
        at_q = [y * discrete.difference(lambda t, x=x: definition(x, t, *values_exact), y) for x, y in pairs]
    assert _ulps(got[1], at_p) <= 16
    assert _ulps(got[2], at_q) <= 16


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_saturated_slope_keeps_its_digits(dtype):
    p, q, c, p_exact, q_exact = (x[::2] for x in _pairs_by_log_ratio(dtype))  # c > 0
    got = _evaluate(lambda p, q, c: terms._js_slope(p, q, c, jnp.ones_like(c)), p, q, c, dtype=dtype)
    exact = [x * mp.log(x / (x + y)) / 2 for x, y in zip(p_exact, q_exact, strict=True)]
    assert _ulps(got, exact) <= 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_enlargement_is_exact_below_the_normal_numbers(dtype):
    tiny, smallest = np.finfo(dtype).tiny, np.finfo(dtype).smallest_subnormal
    x = np.array([0, smallest, 3 * smallest, tiny / 2, tiny, 0.5, -smallest], dtype)
    with x64(dtype):
        got = np.asarray(jax.jit(functions.enlarged)(jnp.asarray(x)))
    assert [float(g) for g in got] == [float(mp.mpf(float(t)) * mp.mpf(functions.enlargement(x))) for t in x]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_logarithm_of_a_sum_of_exponentials_keeps_its_digits_when_it_is_tiny(dtype):
    rest = np.array([1e-30, 1e-12, 1e-6, 1e-3, 0.3], dtype)
    got = _evaluate(softmax._log_of, np.ones_like(rest), rest, dtype=dtype)
    assert _ulps(got, [mp.log1p(mp.mpf(float(x))) for x in rest]) <= 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_slope_of_the_affinity_keeps_its_digits_near_equality(dtype):
    # q = softmax(x + d) with d of order 1e-4: sum p^s q^(1-s) c is of order 1e-8.
    d = np.array([1e-4, -2e-4, 3e-4, -0.5e-4], np.float64)
    p = np.full(4, 0.25)
    q = p * np.exp(d)
    c = np.log(p / (q / q.sum())).astype(dtype)
    log_p = np.log(p).astype(dtype)
    with x64(dtype):
        mean, _ = affinity.tilted_moments(*(jnp.asarray(x) for x in (log_p, c, np.full(1, 0.25, dtype))))
    weights = [mp.exp(mp.mpf(float(x)) - mp.mpf(3) / 4 * mp.mpf(float(t))) for x, t in zip(log_p, c, strict=True)]
    exact = sum(w * mp.mpf(float(t)) for w, t in zip(weights, c, strict=True)) / sum(weights)
    # The rounded c no longer sum to what p and q would: allow for c's own rounding, not for that of sums of c.
    assert abs(float(mean[0]) - float(exact)) <= 2e-3 * abs(float(exact))


def test_two_differences_and_their_quotient_are_exact():
    x, y, t = np.float32(1000.1), np.float32(0.30000001), np.float32(7.3)
    high, low = differences.two_difference(jnp.asarray(x), jnp.asarray(y))
    assert mp.mpf(float(high)) + mp.mpf(float(low)) == mp.mpf(float(x)) - mp.mpf(float(y))
    quotient = differences._divided(high, low, jnp.asarray(t))
    exact = (mp.mpf(float(x)) - mp.mpf(float(y))) / mp.mpf(float(t))
    assert abs(mp.mpf(float(quotient[0])) + mp.mpf(float(quotient[1])) - exact) < abs(exact) * mp.mpf(2) ** -44


def test_negative_numbers_are_nan():
    for verb in (elementary.kl_div, elementary.rel_entr):
        assert np.isnan([verb(-1.0, -1.0), verb(-1.0, -1.1), verb(-1.0, 1.0), verb(1.0, -1.0), verb(0.0, -1.0)]).all()


@pytest.mark.parametrize("kernel", [elementary.kl_div, elementary.rel_entr])
def test_half_precision_is_rounded_once_and_dtypes_are_promoted(kernel):
    p, q = (jnp.asarray(np.random.default_rng(seed).random(200), jnp.bfloat16) for seed in (0, 1))
    np.testing.assert_array_equal(kernel(p, q), kernel(*(x.astype(jnp.float32) for x in (p, q))).astype(jnp.bfloat16))
    assert kernel(p, q.astype(jnp.float32)).dtype == jnp.float32
    with pytest.raises(TypeError, match=r"^elementary.\w+ takes floating-point numbers; got p int32\[\]"):
        kernel(1, 2)


def test_an_exponential_in_half_precision_is_rounded_once():
    x = jnp.linspace(-3, 3, 200, dtype=jnp.bfloat16)
    expected = elementary.expm1x(x.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(elementary.expm1x(x), expected)

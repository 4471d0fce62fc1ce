"""Estimates from samples: means over all draws, weighted by their probabilities, are exact where they claim to be."""

import functools
import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax, sharding
from jax.scipy.stats import norm
from measure import MPMATH, digits, exact, ulps, x64

from jaxdiv import estimators, gaussian, losses
from jaxdiv._core import tuning
from jaxdiv._discrete.terms import BY_NAME
from jaxdiv._selfcheck import discrete

W, ALPHA = 0.25, 1.75  # floats whose differences from 1 are exact
NUMBERS = {"skewed_js": {"weight": W}, "rescaled_js": {"weight": W}, "amari": {"alpha": ALPHA}}


class OfArrays(discrete.Arithmetic):
    """Arrays of positive numbers, which can be traced."""

    def x_log(self, x, y):
        return x * jnp.log(x / y)

    def over(self, x, y):
        return x / y

    def tilted(self, p, q, s):
        return p**s * q ** (1 - s)


ARRAYS = OfArrays(jnp.log, jnp.exp, jnp.sqrt, jnp.arcsin, jnp.inf)


def integrand(arithmetic, name, p, q):
    """The integrand f(p, q) of the definition."""
    return discrete.TERMS[name](arithmetic, p, q, *NUMBERS.get(name, {}).values())


SECOND = ("kl",)  # compared to second order too


def estimate(name, *args, **kwargs):
    return estimators.f_divergence(name, *args, **kwargs, **NUMBERS.get(name, {}))


def in_float64(test):
    @functools.wraps(test)
    def wide(*args, **kwargs):
        with x64(np.float64):
            test(*args, **kwargs)

    return wide


def derivatives(functions, *at, second=True):
    """Of each function of arrays the value, the gradients, and the second derivative along a direction."""
    along = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), at)

    def of(function, *at):
        slopes = jax.value_and_grad(function, tuple(range(len(at))))
        return jax.jvp(slopes, at, along) if second else slopes(*at)

    return jax.jit(lambda *at: [of(function, *at) for function in functions])(*at)


def assert_close(got, expected, tolerance=1e-11):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, tolerance, tolerance)


# ---------------------------------------------------------------- one draw


def logits():
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=5)) for _ in range(3)]


@pytest.mark.parametrize("name", BY_NAME)
@in_float64
def test_the_mean_over_all_draws_has_the_value_and_derivatives_of_the_divergence(name):
    p, q, b = logits()

    def truth(p, q):
        return jnp.sum(integrand(ARRAYS, name, jax.nn.softmax(p), jax.nn.softmax(q)))

    def mean_over_draws(log_b, p, q):
        log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
        drawn = lax.stop_gradient(log_p if log_b is None else log_b)
        return jnp.sum(jnp.exp(drawn) * estimate(name, log_p, log_q, log_behaviour=log_b))

    means = [functools.partial(mean_over_draws, log_b) for log_b in (None, jax.nn.log_softmax(b))]
    expected, *got = derivatives([truth, *means], p, q, second=name in SECOND)
    for each in got:
        assert_close(each, expected)


@pytest.mark.parametrize("name", NUMBERS)
@in_float64
def test_the_mean_over_all_draws_has_the_derivative_of_the_divergence_in_its_parameter(name):
    p, q, _ = (jax.nn.log_softmax(x) for x in logits())
    ((parameter, at),) = NUMBERS[name].items()

    def truth(x):
        u, v = jnp.exp(p), jnp.exp(q)
        if name == "amari":
            return (1 - jnp.sum(u**x * v ** (1 - x))) / (x * (1 - x))
        return jnp.sum(discrete.TERMS[name](ARRAYS, u, v, x))

    def mean_over_draws(x):
        return jnp.sum(jnp.exp(p) * estimators.f_divergence(name, p, q, **{parameter: x}))

    assert_close(*derivatives([mean_over_draws, truth], jnp.asarray(at), second=False), 1e-9)


@in_float64
def test_the_gradients_of_k1_k2_and_k3_are_those_of_the_table():
    p, q, _ = logits()

    def kl(p, q):
        return jnp.sum(integrand(ARRAYS, "kl", jax.nn.softmax(p), jax.nn.softmax(q)))

    def mean(estimator, p, q):
        return jnp.sum(lax.stop_gradient(jax.nn.softmax(p)) * estimator(*map(jax.nn.log_softmax, (p, q))))

    estimators_of_it = [functools.partial(mean, k) for k in (estimators.k1, estimators.k2, estimators.k3)]
    slopes = derivatives([kl, lambda p, q: kl(q, p), *estimators_of_it], p, q, second=False)
    forward, (in_p, _), k1, k2, k3 = (slope for _, slope in slopes)
    assert np.max(np.abs(in_p - forward[0])) > 0.05  # the two directions are told apart
    assert_close(k1, (jnp.zeros(5), forward[1]))
    assert_close(k2[0], forward[0])
    assert_close(k3, (in_p, forward[1]))
    # In q k2 has the mean of -c times the score: what it gives to a draw is c, not what is left of the others.
    c, q_probs = jax.nn.log_softmax(p) - jax.nn.log_softmax(q), jax.nn.softmax(q)
    weights = jax.nn.softmax(p) * c
    assert_close(k2[1], -(weights - q_probs * jnp.sum(weights)))
    assert np.max(np.abs(k2[1] - forward[1])) > 0.05


@in_float64
def test_k1_and_k3_are_unbiased_for_normal_laws_and_k2_is_too_large_by_half_of_kl():
    x, weights = np.polynomial.hermite_e.hermegauss(80)
    for shift in (0.1, 1.0):
        log_p, log_q, kl = jnp.asarray(-0.5 * x**2), jnp.asarray(-0.5 * (x - shift) ** 2), 0.5 * shift**2
        means = [
            np.vdot(weights / weights.sum(), k(log_p, log_q)) for k in (estimators.k1, estimators.k2, estimators.k3)
        ]
        np.testing.assert_allclose(means, [kl, kl * (1 + kl / 2), kl], 1e-10)


@functools.cache
def columns(dtype):
    """Log-densities far from and near each other, below and above."""
    rng = np.random.default_rng(1)
    log_p = rng.uniform(-5, 0, size=24).astype(dtype)
    return log_p, (log_p + rng.normal(size=24) * 10.0 ** rng.uniform(-5, 1, size=24)).astype(dtype)


@pytest.mark.parametrize("name", BY_NAME)
def test_an_estimate_and_its_slopes_are_accurate_near_equality(name):
    log_p, log_q = columns(np.float32)

    @jax.jit
    def all_of_them(log_p, log_q):
        value, pull = jax.vjp(functools.partial(estimate, name), log_p, log_q)
        return value, *pull(jnp.ones_like(value))

    @digits
    def truths(log_p, log_q):
        q = mp.exp(exact(log_q) - exact(log_p))

        def f(p, q):
            return integrand(MPMATH, name, p, q)

        return f(1, q), mp.diff(f, (1, q), (1, 0)), q * mp.diff(f, (1, q), (0, 1))

    got = np.stack(all_of_them(log_p, log_q), 1)
    errors = [ulps(x, y, np.float32) for row in zip(got, log_p, log_q, strict=True)
              for x, y in zip(row[0], truths(*row[1:]), strict=True)]  # fmt: skip
    assert max(errors) <= 8


@pytest.mark.parametrize("name", BY_NAME)
def test_where_a_law_has_no_mass_nothing_is_nan(name):
    # Equal, far both ways, q impossible, p impossible, both impossible, for draws of a third law.
    log_p = jnp.array([-1.0, -1.0, -200.0, -1.0, -jnp.inf, -jnp.inf])
    log_q = jnp.array([-1.0, -200.0, -1.0, -jnp.inf, -1.0, -jnp.inf])

    def of_draws(log_b, log_p, log_q):
        value, pull = jax.vjp(functools.partial(estimate, name, log_behaviour=log_b), log_p, log_q)
        return value, *pull(jnp.ones_like(value))

    both = jax.jit(lambda *x: [of_draws(log_b, *x) for log_b in (None, jnp.full(6, -1.0))])
    for rows, possible in zip(both(log_p, log_q), (np.isfinite(log_p), np.ones(6, bool)), strict=True):
        value, *slopes = (np.asarray(x)[possible] for x in rows)
        assert np.all(value >= 0)  # and no nan
        assert value[0] == slopes[0][0] == slopes[1][0] == 0
        assert np.all(np.isfinite(slopes))


@pytest.mark.parametrize("name", BY_NAME)
def test_a_link_is_the_derivative_of_the_generator(name):
    c = np.concatenate([columns(np.float32)[1] - columns(np.float32)[0], np.float32([-300, -70, -40, 70, 0])])

    @jax.jit
    def link_and_slope(c):
        return jax.jvp(lambda c: estimators.link(name, c, **NUMBERS.get(name, {})), (c,), (jnp.ones_like(c),))

    @digits
    def truths(c):
        def link(c):
            u = mp.exp(c)
            if c == 0:
                return 0
            return mp.diff(lambda p: integrand(MPMATH, name, p, mp.mpf(1)), u, h=u * mp.mpf(10) ** -30)

        slope = 0 if name == "total_variation" else mp.diff(link, exact(c))
        return link(exact(c)), slope

    for got, slope, x in zip(*link_and_slope(jnp.asarray(c)), c, strict=True):
        expected, expected_slope = truths(x)
        if abs(expected) < np.finfo(np.float32).max:
            assert ulps(got, expected, np.float32) <= 8
        assert np.isfinite(slope) == (abs(expected_slope) < np.finfo(np.float32).max)
        if 0 < abs(x) < 60:
            np.testing.assert_allclose(slope, float(expected_slope), 2e-5, 1e-6)  # absolutely where it levels off


ENDS = {"total_variation": -0.5, "chi2": -2, "triangular": -3, "amari": -1 / (ALPHA - 1)}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_link_has_the_documented_ends_and_is_that_of_its_limits(name):
    link = functools.partial(estimators.link, name)
    at = jnp.array([-jnp.inf, -1e30, 0.0, 1e30, jnp.inf, jnp.nan])
    found = link(at, **NUMBERS.get(name, {}))
    assert found[2] == 0
    assert jnp.isnan(found[-1])
    assert not np.any(np.isnan(found[:-1]))
    np.testing.assert_allclose(found[0], ENDS.get(name, -np.inf), 1e-6)
    assert np.all(np.diff(found[1:4]) >= 0)
    c, inverse = jnp.array([-2.0, 0.5, jnp.inf]), -jnp.expm1(-jnp.array([-2.0, 0.5, jnp.inf]))
    limits = {"amari": [("alpha", 1.0, c), ("alpha", 0.0, inverse)],
              "rescaled_js": [("weight", 0.0, c), ("weight", 1.0, inverse)],
              "skewed_js": [("weight", 0.0, 0 * inverse), ("weight", 1.0, 0 * inverse)]}  # fmt: skip
    for parameter, value, expected in limits.get(name, []):
        finite = np.isfinite(expected)
        np.testing.assert_allclose(link(c, **{parameter: value})[finite], expected[finite], 1e-6)


ENDS_OF_WEIGHTS = [0.0, 1e-30, 1e-9, 1e-6, 1e-4, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-6, 1.0]


@pytest.mark.parametrize("name", ["skewed_js", "rescaled_js"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_link_is_accurate_for_every_weight(name, dtype):
    c = np.array([-80, -45, -20, -1, -1e-6, 1e-6, 0.5, 1, 4, 8, 14, 20, 45, 80, 86], dtype)

    @digits
    def truth(c, w):
        c, w = exact(c), exact(w)
        if w in (0, 1):
            return 0 if name == "skewed_js" else c if w == 0 else -mp.expm1(-c)
        return -mp.log(w + (1 - w) * mp.exp(-c)) * (w if name == "skewed_js" else 1 / (1 - w))

    with x64(dtype):
        weights = np.array(ENDS_OF_WEIGHTS, dtype)
        link = jax.vmap(lambda w: estimators.link(name, jnp.asarray(c), weight=w))
        slope = jax.grad(lambda c, w: estimators.link(name, c, weight=w), (0, 1))
        slopes = jax.vmap(jax.vmap(slope, (0, None)), (None, 0))
        far = jnp.array([-np.inf, -300, -1e30, 300, 1e30, np.inf], dtype)
        found, at_ends, of_far = jax.device_get((link(weights), slopes(c, weights), slopes(far[1:-1], weights)))
        ends = jax.vmap(lambda w: estimators.link(name, far, weight=w))(weights)
    errors = [ulps(x, truth(*at), dtype) for row, w in zip(found, weights, strict=True)
              for x, at in zip(row, ((y, w) for y in c), strict=True)]  # fmt: skip
    assert max(errors) <= 8
    assert not np.any(np.isnan(ends))
    assert not np.any(np.isnan(at_ends))
    assert not np.any(np.isnan(of_far))


@pytest.mark.parametrize("name", NUMBERS)
@in_float64
def test_at_the_ends_of_a_parameter_derivatives_are_the_limits(name):
    ((parameter, _),) = NUMBERS[name].items()
    c, log_p, log_q = jnp.array([-3.0, -0.1, 0.2, 4.0]), jnp.array([-1.0, -2.0, -0.5]), jnp.array([-2.0, -0.3, -0.6])

    def of(x):
        number = {parameter: x}
        return estimators.link(name, c, **number), estimators.f_divergence(name, log_p, log_q, **number)

    for end, inside in ((0.0, 1e-6), (1.0, 1 - 1e-6)):
        at, near = (jax.jacrev(of)(jnp.asarray(x)) for x in (end, inside))
        assert_close(at, near, 1e-3)
        assert_close(jax.jacfwd(of)(jnp.asarray(end)), at, 1e-12)


def test_masked_draws_count_nothing_whatever_they_hold():
    log_p = jnp.array([[-1.0, jnp.nan, -2.0], [jnp.nan, -jnp.inf, jnp.inf]])
    where = jnp.array([[True, False, True], [False, False, False]])

    kept = jnp.array([-1.0, -2.0])
    for of in (functools.partial(estimators.f_divergence, "kl"), estimators.k1, estimators.k2, estimators.k3):

        def loss(log_p, log_q, of=of):
            return estimators.sequence_sum(of(log_p, log_q, where=where), log_p, where=where)

        value, pull = jax.vjp(loss, log_p, 0.25 * log_p)
        np.testing.assert_array_equal(value, [estimators.sequence_sum(of(kept, 0.25 * kept), kept), 0])
        for slope in pull(jnp.ones(2)):
            assert np.all((slope != 0) == where)
            assert np.all(np.isfinite(slope))


# ---------------------------------------------------------------- sequences

STEPS, SYMBOLS, END = 3, 3, 0


@functools.cache
def sequences():
    """Every sequence of at most three tokens, padded after its end, its contexts, and which tokens are drawn."""
    every = np.array(list(itertools.product(range(SYMBOLS), repeat=STEPS)))
    drawn = np.cumsum(np.pad(every[:, :-1] == END, ((0, 0), (1, 0))), 1) == 0
    kept = np.all(drawn | (every == END), 1)
    tokens, drawn = every[kept], drawn[kept]
    before = np.pad(tokens[:, :-1], ((0, 0), (1, 0)))
    return tokens, before, drawn


def policy():
    """Logits of the next token `[step, token before, symbol]`: a policy, a reference and a behaviour."""
    rng = np.random.default_rng(2)
    return [jnp.asarray(rng.normal(size=(STEPS, SYMBOLS, SYMBOLS))) for _ in range(3)]


def of_sequences(theta):
    """The logits in every context of every sequence, and the log-probabilities of its tokens, 0 where not drawn."""
    tokens, before, drawn = sequences()
    rows = theta[np.arange(STEPS)[None], before]
    log_p = jnp.take_along_axis(jax.nn.log_softmax(rows), tokens[..., None], -1)[..., 0]
    return rows, jnp.where(drawn, log_p, 0)


def sequence_kl(p, q):
    log_p, log_q = (jnp.sum(of_sequences(x)[1], -1) for x in (p, q))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q))


def sampled(log_p, log_q, log_b):
    return estimators.f_divergence("kl", log_p, log_q, log_behaviour=log_b)


def mean_of_sums(terms_of, log_b, p, q):
    """The mean over all sequences of the sums of terms, with weights that are constants as draws are."""
    (p_rows, log_p), (q_rows, log_q), drawn = of_sequences(p), of_sequences(q), sequences()[2]
    terms = sampled(log_p, log_q, log_b) if terms_of == "sampled" else losses.reverse_kl(p_rows, q_rows)
    weights = jnp.exp(jnp.sum(lax.stop_gradient(log_p if log_b is None else log_b), -1))
    return jnp.sum(weights * estimators.sequence_sum(terms, log_p, log_behaviour=log_b, where=drawn))


@pytest.mark.parametrize("terms_of", ["sampled", "exact"])
@pytest.mark.parametrize("drawn_from", ["policy", "behaviour"])
@in_float64
def test_the_mean_over_all_sequences_has_the_value_and_derivatives_of_their_divergence(terms_of, drawn_from):
    p, q, b = policy()
    assert np.isclose(np.sum(np.exp(np.sum(of_sequences(p)[1], -1))), 1)
    log_b = of_sequences(b)[1] if drawn_from == "behaviour" else None
    means = functools.partial(mean_of_sums, terms_of, log_b), sequence_kl
    assert_close(*derivatives(means, p, q, second=terms_of == "sampled"))


@in_float64
def test_without_the_prefix_the_gradient_lacks_what_a_token_did_to_later_terms():
    p, q, _ = policy()
    drawn = sequences()[2]

    def mean(per_token, p, q):
        log_p, log_q = of_sequences(p)[1], of_sequences(q)[1]
        return jnp.sum(jnp.exp(jnp.sum(lax.stop_gradient(log_p), -1))[:, None] * per_token(log_p, log_q))

    def missing(log_p, log_q):
        terms = jnp.where(drawn, log_p - log_q, 0)
        later = jnp.sum(terms, -1, keepdims=True) - jnp.cumsum(terms, -1)
        return log_p * lax.stop_gradient(later)

    alone = [functools.partial(mean, x) for x in (estimators.k2, functools.partial(sampled, log_b=None), missing)]
    (_, (right, _)), *rest = derivatives([sequence_kl, *alone], p, q, second=False)
    k2, terms, lost = (slopes[0] for _, slopes in rest)
    assert_close((k2, terms), (right - lost, right - lost))
    assert np.linalg.norm(lost) > 0.3 * np.linalg.norm(right)


@in_float64
def test_a_constant_subtracted_from_the_terms_of_a_step_leaves_the_gradient_its_mean():
    theta, other, _ = policy()
    tokens = np.array(list(itertools.product(range(SYMBOLS), repeat=STEPS)))
    before = np.pad(tokens[:, :-1], ((0, 0), (1, 0)))

    def log_probabilities(theta):
        rows = jax.nn.log_softmax(theta[np.arange(STEPS)[None], before])
        return jnp.take_along_axis(rows, tokens[..., None], -1)[..., 0]

    def mean(baseline, theta):
        log_p, log_q = log_probabilities(theta), log_probabilities(other)
        terms = estimators.f_divergence("kl", log_p, log_q) - baseline
        return jnp.sum(jnp.exp(lax.stop_gradient(jnp.sum(log_p, -1))) * estimators.sequence_sum(terms, log_p))

    plain, centred = (jax.grad(functools.partial(mean, x))(theta) for x in (0.0, jnp.array([[0.5, -2.0, 3.0]])))
    assert_close(centred, plain)
    assert np.linalg.norm(plain) > 0.1


def test_an_infinite_sequence_stands_still_and_no_weight_spoils_a_term_of_zero():
    log_p, log_q = jnp.array([[-1.0, -1.0], [-1.0, -2.0]]), jnp.array([[-1.0, -jnp.inf], [-2.0, -1.0]])

    def sums(log_p, log_q):
        return estimators.sequence_sum(estimators.f_divergence("kl", log_p, log_q), log_p)

    with jax.debug_nans(True):
        value, pull = jax.vjp(sums, log_p, log_q)
        assert np.isinf(value[0])
        slopes = pull(jnp.array([0.0, 1.0]))
        for slope, of_both in zip(slopes, pull(jnp.ones(2)), strict=True):
            np.testing.assert_array_equal(slope, of_both)
            assert not np.any(slope[0])
    np.testing.assert_array_equal(slopes[0][1:], jax.grad(lambda x: sums(x, log_q[1:])[0])(log_p[1:]))

    terms, far = jnp.array([[1.0, 1.0, 9.0]]), jnp.array([[-60.0, -60.0, -1.0]])
    kept = jnp.array([[True, True, False]])
    expected = np.float32(1 + np.exp(59))
    for d, where in ((terms, kept), (jnp.where(kept, terms, 0), None)):
        of = functools.partial(estimators.sequence_sum, d, log_behaviour=far, where=where)
        value, slope = jax.value_and_grad(lambda x, of=of: of(x)[0])(jnp.full((1, 3), -1.0))
        np.testing.assert_allclose(value, expected, 1e-6)
        np.testing.assert_allclose(slope, [[expected, 0, 0]], 1e-6)
    impossible, inf = jnp.array([[-1.0, -jnp.inf, -1.0]]), jnp.array([[1.0, 2.0, jnp.inf]])
    value, slope = jax.value_and_grad(lambda x: estimators.sequence_sum(terms, x)[0])(impossible)
    assert value == 11
    assert np.all(np.isfinite(slope))
    # Under the behaviour, nothing comes after a token that is impossible under p.
    assert estimators.sequence_sum(inf, impossible, log_behaviour=jnp.full((1, 3), -1.0))[0] == 3


@in_float64
def test_a_sequence_is_one_draw_of_any_divergence():
    p, q, _ = policy()

    def truth(p, q):
        p, q = (jnp.exp(jnp.sum(of_sequences(x)[1], -1)) for x in (p, q))
        return jnp.sum(integrand(ARRAYS, "js", p, q))

    def mean(p, q):
        log_p, log_q = (jnp.sum(of_sequences(x)[1], -1) for x in (p, q))
        return jnp.sum(lax.stop_gradient(jnp.exp(log_p)) * estimators.f_divergence("js", log_p, log_q))

    assert_close(*derivatives([mean, truth], p, q, second=False))


# ---------------------------------------------------------------- Monte Carlo


@pytest.mark.parametrize("unit", [2.0**126, 2.0**-100])
def test_a_common_factor_of_weights_or_values_does_not_matter(unit):
    values, weights, unit = np.float32([1, 3, 2]), np.float32([3, 2, 3]), np.float32(unit)
    plain = estimators.mean(values, weights=weights)
    np.testing.assert_array_equal(estimators.mean(values, weights=unit * weights), plain)
    np.testing.assert_array_equal(estimators.mean(unit * values, weights=weights), [unit * x for x in plain])


@in_float64
def test_the_square_of_the_standard_error_is_on_average_the_variance_of_the_mean():
    law, atoms = np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, -2.0, 0.5, 4.0])
    draws = np.array(list(itertools.product(range(4), repeat=3)))
    weights = np.prod(law[draws], 1)
    value, error = jax.vmap(estimators.mean)(atoms[draws])
    variance = np.vdot(weights, value**2) - np.vdot(weights, value) ** 2
    np.testing.assert_allclose(np.vdot(weights, error**2), variance, 1e-12)
    np.testing.assert_allclose(variance, (np.vdot(law, atoms**2) - np.vdot(law, atoms) ** 2) / 3, 1e-12)


@in_float64
def test_weights_and_masks_of_a_mean_are_those_of_its_formula():
    rng = np.random.default_rng(3)
    x, w, kept = rng.normal(size=9), rng.uniform(size=9), np.arange(9) < 7
    got = estimators.mean(np.where(kept, x, np.nan), weights=np.where(kept, 5 * w, np.nan), where=kept)
    share = w[:7] / w[:7].sum()
    value = np.vdot(share, x[:7])
    assert_close(got, (value, np.sqrt(7 / 6 * np.sum((share * (x[:7] - value)) ** 2))))
    in_weights = jax.grad(lambda w: sum(estimators.mean(x, weights=w)))(jnp.asarray(w))
    np.testing.assert_array_equal(in_weights, 0)


def test_the_mean_of_no_draw_is_0_and_the_error_of_fewer_than_two_is_infinite():
    none, one = jnp.zeros(3, bool), jnp.array([True, False, False])
    x = jnp.array([2.0, 3.0, jnp.inf])
    assert estimators.mean(x, where=none) == (0, jnp.inf)
    assert estimators.mean(x, where=one) == (2, jnp.inf)
    slopes = [jax.grad(lambda x: estimators.mean(x, where=where).value)(x) for where in (none, one)]  # noqa: B023
    np.testing.assert_array_equal(slopes, [[0, 0, 0], [1, 0, 0]])
    equal = jax.grad(lambda x: estimators.mean(x).standard_error)(jnp.ones(3))
    np.testing.assert_array_equal(equal, 0)


def test_monte_carlo_and_its_gradient_are_right_within_their_standard_errors():
    def value(mu, log_scale, key):
        scale = jnp.exp(log_scale)
        return estimators.monte_carlo(
            "js",
            lambda key: mu + scale * jax.random.normal(key),
            lambda x: norm.logpdf(x, mu, scale),
            lambda x: norm.logpdf(x, 0.5),
            key=key,
            samples=400,
        ).value

    def truth(mu, log_scale):
        return gaussian.js(gaussian.NormalLogScale(mu, log_scale), gaussian.NormalLogScale(0.5, 0.0))

    at = jnp.float32(0.0), jnp.float32(-0.2)
    run = jax.jit(jax.vmap(jax.value_and_grad(value, (0, 1)), (None, None, 0)))
    values, slopes = run(*at, jax.random.split(jax.random.key(0), 64))
    exact_value, exact_slopes = jax.value_and_grad(truth, (0, 1))(*at)
    for got, expected in zip((values, *slopes), (exact_value, *exact_slopes), strict=True):
        mean, error = estimators.mean(got)
        assert abs(mean - expected) < 4 * error
        assert error < 0.1 * abs(expected)


# ---------------------------------------------------------------- nearest neighbours


def by_sorting(xs, ys, k):
    """The formula of Wang, Kulkarni and Verdu, in float64."""
    n, d = xs.shape
    rho = np.sort(np.linalg.norm(xs[:, None] - xs[None], axis=-1))[:, k]  # after the point itself
    nu = np.sort(np.linalg.norm(xs[:, None] - ys[None], axis=-1))[:, k - 1]
    return d * np.mean(np.log(nu / rho)) + np.log(len(ys) / (n - 1))


@pytest.mark.parametrize(("n", "k", "rows"), [(23, 1, 1000), (22, 1, 5), (21, 4, 5)])
@in_float64
def test_the_estimate_by_neighbours_is_that_of_the_formula_in_any_blocks(n, k, rows, monkeypatch):
    monkeypatch.setattr(tuning, "DIFFERENCES", rows * 3 * 30)
    rng = np.random.default_rng(4)
    xs, ys = rng.normal(size=(n, 3)), 1 + rng.normal(size=(30, 3))
    np.testing.assert_allclose(estimators.knn_kl(xs, ys, k=k), by_sorting(xs, ys, k), 1e-12)


@in_float64
def test_the_gradient_by_neighbours_is_that_of_the_formula():
    rng = np.random.default_rng(5)
    xs, ys, (dx, dy) = rng.normal(size=(12, 2)), rng.normal(size=(12, 2)), rng.normal(size=(2, 12, 2))
    _, slope = jax.jvp(lambda *x: estimators.knn_kl(*x, k=2), (xs, ys), (dx, dy))
    step = 1e-6
    change = [by_sorting(xs + h * dx, ys + h * dy, 2) for h in (step, -step)]
    np.testing.assert_allclose(slope, (change[0] - change[1]) / (2 * step), 1e-7)


def test_the_estimate_by_neighbours_does_not_depend_on_the_unit_of_length():
    rng = np.random.default_rng(6)
    xs, ys = (jnp.asarray(x + rng.normal(size=(20, 3)), jnp.float32) for x in (0, 1))
    value, slope = jax.value_and_grad(estimators.knn_kl)(xs, ys)
    for exponent in (-100, 100, 124):
        unit = jnp.float32(2.0**exponent)
        again, scaled = jax.value_and_grad(estimators.knn_kl)(unit * xs, unit * ys)
        assert again == value
        if exponent < 124:  # of which the inverse is subnormal
            np.testing.assert_allclose(unit * scaled, slope, 1e-6)


BIASES = {0.0: (0.0, 0.0), 2.0: (-0.49, -0.76)}  # of a divergence, for k = 1 and 10


@pytest.mark.gate
def test_the_bias_by_neighbours_is_the_documented_one():
    d = 5

    @jax.jit
    def estimates(shift, keys):
        def one(key):
            xs, ys = jax.random.normal(key, (2, 300, d))
            return [estimators.knn_kl(xs, ys + shift, k=k) for k in (1, 10)]

        return lax.map(one, keys)

    for kl, biases in BIASES.items():
        shift = jnp.full((1, d), np.sqrt(2 * kl / d), jnp.float32)
        laws = [gaussian.MultivariateNormal(x, jnp.eye(d)) for x in (jnp.zeros(d), shift[0])]
        for values, bias in zip(estimates(shift, jax.random.split(jax.random.key(0), 25)), biases, strict=True):
            mean, error = estimators.mean(values)
            assert abs(mean - gaussian.kl(*laws) - bias) < 4 * error
            assert error < 0.06


def test_duplicates_count_as_far_apart_as_their_rounding():
    xs = jnp.array([[1.0], [1.0], [2.0], [3.0]])
    ys = jnp.array([[2.0], [2.5], [5.0]])
    eps = np.finfo(np.float32).eps
    rho, nu = np.array([eps, eps, 1, 1]), np.array([1, 1, 2 * eps, 0.5])
    value, slope = jax.value_and_grad(estimators.knn_kl)(xs, ys)
    np.testing.assert_allclose(value, np.mean(np.log(nu / rho)) + np.log(3 / 3), 1e-6)
    assert np.all(np.isfinite(slope))
    assert estimators.knn_kl(jnp.zeros((3, 2)), jnp.zeros((2, 2))) == 0


def test_a_distance_of_which_the_square_underflows_counts_as_the_documented_share_of_all_coordinates():
    xs, ys = jnp.array([[0.0], [1e-22], [1.0]]), jnp.array([[1e-15], [1.0]])
    share, eps = np.sqrt(np.finfo(np.float32).tiny), np.finfo(np.float32).eps
    expected = np.mean(np.log([1e-15 / share, 1e-15 / share, eps / 1])) + np.log(2 / 2)
    np.testing.assert_allclose(estimators.knn_kl(xs, ys), expected, 1e-6)


def test_distances_are_never_held_all_at_once():
    points = jax.ShapeDtypeStruct((20000, 8), jnp.float32)
    compiled = jax.jit(estimators.knn_kl).lower(points, points).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 64 * 2**20  # all of them are 3200 MiB


# ---------------------------------------------------------------- variational bounds


def discrete_laws():
    """Two laws on four atoms, their log-ratio, and a critic near it."""
    rng = np.random.default_rng(6)
    p, q = rng.dirichlet(np.full(4, 5.0), size=2)
    return p, q, np.log(p / q), np.log(p / q) + 0.5 * rng.normal(size=4)


def batches(law, size):
    """All batches of draws, and their probabilities."""
    draws = np.array(list(itertools.product(range(len(law)), repeat=size)))
    return draws, np.prod(law[draws], 1)


@in_float64
def test_nwj_is_unbiased_below_kl_and_equal_for_the_best_critic():
    p, q, c, critic = discrete_laws()
    kl = np.vdot(p, c)
    (xs, in_p), (ys, in_q) = batches(p, 2), batches(q, 3)

    def mean(critic):
        each = jax.vmap(jax.vmap(estimators.nwj, (None, 0)), (0, None))(critic[xs], critic[ys])
        return in_p @ each @ in_q

    def of_laws(critic):
        return p @ critic - q @ jnp.exp(critic - 1)

    got, expected = derivatives([mean, of_laws], jnp.asarray(critic), second=False)
    assert_close(got, expected)
    assert expected[0] < p @ critic - np.log(q @ np.exp(critic)) < kl
    np.testing.assert_allclose(of_laws(1 + c), kl)


@in_float64
def test_donsker_varadhan_of_a_batch_is_too_large_by_the_documented_figure():
    _, q, _, critic = discrete_laws()
    size = 5
    ys, in_q = batches(q, size)
    # The mean over p is linear in its scores, so that any will do.
    values = jax.jit(jax.vmap(estimators.donsker_varadhan, (None, 0)))(critic, critic[ys])
    e = np.exp(critic)
    excess = in_q @ values - (np.mean(critic) - np.log(q @ e))
    predicted = (q @ e**2 - (q @ e) ** 2) / (2 * size * (q @ e) ** 2)
    assert predicted > 0.01
    np.testing.assert_allclose(excess, predicted, 0.1)


@in_float64
def test_a_moving_mean_takes_the_bias_from_the_gradient_of_donsker_varadhan():
    _, q, _, critic = discrete_laws()
    ys, in_q = batches(q, 3)
    known = estimators.LogMean(np.log(7 * q @ np.exp(critic)), 7.0)

    def mean(moving, critic):
        return in_q @ jax.vmap(lambda ys: estimators.donsker_varadhan(critic, ys, moving=moving))(critic[ys])

    def of_laws(critic):
        return jnp.mean(critic) - jnp.log(q @ jnp.exp(critic))

    functions = [of_laws, functools.partial(mean, known), functools.partial(mean, None)]
    right, corrected, naive = derivatives(functions, jnp.asarray(critic), second=False)
    assert_close(corrected[1], right[1])
    np.testing.assert_allclose(corrected[0], naive[0], 1e-14)  # the value is that of the batch
    assert np.max(np.abs(naive[1][0] - right[1][0])) > 0.005


@in_float64
def test_a_moving_mean_is_the_weighted_mean_of_its_batches():
    rng = np.random.default_rng(7)
    scores, decay = 500 + rng.normal(size=(6, 4)), 0.7  # beyond what exp can hold in float32
    kept = np.arange(4) < 3

    @jax.jit
    def run(decay):
        def step(state, batch):
            return estimators.update_log_mean(state, batch, decay=decay, where_q=kept), None

        start = estimators.LogMean(jnp.array(-jnp.inf), jnp.array(0.0))
        return lax.scan(step, start, jnp.asarray(scores))[0]

    weights = decay ** np.arange(6)[::-1]
    mean = np.average(np.mean(np.exp(scores[:, :3] - 500), 1), weights=weights)
    state = run(decay)
    np.testing.assert_allclose(state.log_sum - np.log(state.weight), 500 + np.log(mean), 1e-14)
    np.testing.assert_allclose(state.weight, weights.sum(), 1e-14)

    def bound(moving, scores_q):
        return estimators.donsker_varadhan(scores[0], scores_q, moving=moving, where_q=kept)

    last = jnp.asarray(scores[-1])
    np.testing.assert_allclose(jax.grad(bound, 1)(run(0.0), last), jax.grad(bound, 1)(None, last), 1e-13)


@in_float64
def test_info_nce_is_on_average_below_mutual_information():
    rng = np.random.default_rng(8)
    joint = rng.dirichlet(np.full(4, 0.3)).reshape(2, 2)
    log_ratio = np.log(joint / joint.sum(1, keepdims=True) / joint.sum(0))
    draws, weights = batches(joint.ravel(), 5)
    x, y = draws // 2, draws % 2
    scores = log_ratio[x[:, :, None], y[:, None, :]]
    mean = weights @ jax.jit(jax.vmap(estimators.info_nce))(scores)
    information = np.vdot(joint, log_ratio)
    assert 0.3 * information < mean < information


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.floats(-300, 300, width=32), min_size=16, max_size=16))
def test_info_nce_is_never_above_the_logarithm_of_the_number_of_pairs(scores):
    assert estimators.info_nce(np.array(scores, np.float32).reshape(4, 4)) <= np.float32(np.log(4))


def test_masked_scores_are_as_if_they_were_not_there():
    rng = np.random.default_rng(9)
    scores = rng.normal(size=(5, 5)).astype(np.float32)
    kept = np.arange(5) < 3
    where = kept[:, None] & kept[None]
    padded = jnp.where(where, scores, jnp.nan)
    with jax.debug_nans(True):
        value, slope = jax.value_and_grad(lambda x: estimators.info_nce(x, where=where))(padded)
    np.testing.assert_allclose(value, estimators.info_nce(scores[:3, :3]), 1e-6)
    assert np.all(np.isfinite(slope))
    assert np.all((slope != 0) == where)
    for bound in (estimators.nwj, estimators.donsker_varadhan):
        masked = bound(padded[0], padded[1], where_p=kept, where_q=kept)
        np.testing.assert_allclose(masked, bound(scores[0, :3], scores[1, :3]), 1e-6)


def test_bounds_hold_scores_that_exp_cannot():
    high, low = jnp.full(3, 1000.0), jnp.full(3, -1000.0)
    assert estimators.donsker_varadhan(high, high) == 0
    assert estimators.donsker_varadhan(high, low) == 2000
    assert estimators.nwj(low, low) == -1000
    assert estimators.info_nce(1000 * jnp.eye(3)) == np.float32(np.log(3))


INFINITE = {
    "nwj": (estimators.nwj, [0.0, 1.0], [200.0, 0.0, -50.0], -np.inf),
    "nwj of inf": (estimators.nwj, [0.0, 1.0], [np.inf, 0.0, -50.0], -np.inf),
    "donsker_varadhan of inf": (estimators.donsker_varadhan, [0.0, 1.0], [np.inf, 0.0, -50.0], -np.inf),
    "donsker_varadhan of nothing": (estimators.donsker_varadhan, [0.0, 1.0], [-np.inf] * 3, np.inf),
    "info_nce": (lambda p, q: estimators.info_nce(jnp.stack([p, q[:2]])), [0.0, np.inf], [1.0, 0.0, 0.0], -np.inf),
}


@pytest.mark.parametrize("name", INFINITE)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32], ids=lambda dtype: dtype.__name__)
def test_where_a_bound_is_infinite_it_stands_still_also_beside_others(name, dtype):
    bound, p, q, expected = INFINITE[name]
    p, q = jnp.stack([jnp.array(p), jnp.array([0.5, 1.0])]), jnp.stack([jnp.array(q), jnp.array([0.0, 1.0, 2.0])])
    p, q = p.astype(dtype), q.astype(dtype)
    value, pull = jax.vjp(jax.jit(jax.vmap(bound)), p, q)
    assert value[0] == expected
    for weights in ([1, 1], [0, 1]):
        for slope in pull(jnp.array(weights, dtype)):
            assert not np.any(slope[0])
            assert np.all(np.isfinite(slope[1]))
            assert np.any(slope[1])
    forward = jax.jvp(jax.vmap(bound), (p, q), (jnp.ones_like(p), jnp.ones_like(q)))[1]
    assert forward[0] == 0
    assert np.isfinite(forward[1])


def test_vectors_of_no_draws_are_as_if_all_were_masked():
    nothing, some = jnp.zeros(0), jnp.ones(2)
    value, error = estimators.mean(nothing)
    assert (value, error) == (0, jnp.inf)
    for bound in (estimators.donsker_varadhan, estimators.nwj):
        for pair in ((nothing, some), (some, nothing), (nothing, nothing)):
            assert jnp.isnan(bound(*pair))
            masked = [x if len(x) else some for x in pair], [jnp.full(2, len(x) > 0) for x in pair]
            assert jnp.isnan(bound(*masked[0], where_p=masked[1][0], where_q=masked[1][1]))


def test_a_moving_mean_changes_the_gradient_alone_and_no_draws_leave_it():
    scores, others = jnp.array([1.0, 3.0]), jnp.array([0.0, 100.0])
    for moving in (estimators.LogMean(-jnp.inf, 0.0), estimators.LogMean(0.0, 1.0)):
        value = estimators.donsker_varadhan(scores, others, moving=moving)
        assert value == estimators.donsker_varadhan(scores, others)
        assert estimators.update_log_mean(moving, others, decay=0.5, where_q=jnp.zeros(2, bool)) == moving
    slopes = jax.grad(estimators.donsker_varadhan, 1)(scores, scores, moving=estimators.LogMean(-jnp.inf, 0.0))
    np.testing.assert_allclose(slopes, -jax.nn.softmax(scores), 1e-6)


def test_draws_whose_scores_are_all_minus_infinity_have_a_mean_of_0():
    scores, none = jnp.array([1.0, 3.0]), jnp.full(3, -jnp.inf)
    value, slopes = jax.value_and_grad(estimators.nwj, (0, 1))(scores, none)
    assert value == 2
    np.testing.assert_array_equal(slopes[0], 0.5)
    np.testing.assert_array_equal(slopes[1], 0)
    start = estimators.LogMean(-jnp.inf, 0.0)
    state = estimators.update_log_mean(start, none, decay=0.5)
    assert state == (-jnp.inf, 1)
    after = estimators.update_log_mean(state, jnp.log(jnp.array([3.0])), decay=0.5)
    np.testing.assert_allclose(jnp.exp(after.log_sum) / after.weight, 2, 1e-6)
    assert estimators.donsker_varadhan(scores, none, moving=after) == jnp.inf


# ---------------------------------------------------------------- how they are called


def test_half_precision_is_the_result_in_float32_rounded_once():
    log_p, log_q = (jnp.asarray(x).astype(jnp.bfloat16) for x in columns(np.float32))

    def everything(log_p, log_q):
        terms = estimators.k3(log_p, log_q), estimate("js", log_p, log_q), estimators.mean(log_p).standard_error
        sums = estimators.sequence_sum(log_p, log_q), estimators.nwj(log_p, log_q)
        return *terms, *sums, estimators.knn_kl(log_p[:, None], log_q[:, None])

    run = jax.jit(everything)
    for got, wide in zip(run(log_p, log_q), run(log_p.astype(jnp.float32), log_q.astype(jnp.float32)), strict=True):
        assert got.dtype == jnp.bfloat16
        np.testing.assert_array_equal(got, wide.astype(jnp.bfloat16))


def test_estimates_run_over_many_devices_and_rematerialised():
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(sharding.AxisType.Auto,))
    rng = np.random.default_rng(10)
    log_p, log_q = (jnp.asarray(-rng.uniform(size=(16, 6)), jnp.float32) for _ in range(2))

    def loss(log_p, log_q):
        return estimators.sequence_sum(estimators.f_divergence("kl", log_p, log_q), log_p)

    def everything(log_p, log_q):
        near = jax.vmap(estimators.knn_kl)(log_p.reshape(-1, 6, 1), log_q.reshape(-1, 6, 1))
        bound = jax.vmap(estimators.donsker_varadhan)(log_p, log_q)
        return loss(log_p, log_q), jax.grad(lambda x: jnp.sum(jax.checkpoint(loss)(x, log_q)))(log_p), near, bound

    rows = sharding.PartitionSpec("rows")
    sharded = jax.shard_map(everything, mesh=mesh, in_specs=(rows, rows), out_specs=rows)
    got = jax.jit(sharded)(log_p, log_q)
    for x, y in zip(got, jax.jit(everything)(log_p, log_q), strict=True):
        np.testing.assert_allclose(x, y, 1e-5, 1e-6)


def _monte_carlo(log_density, samples=2):
    key = jax.random.key(0)
    return estimators.monte_carlo("kl", jax.random.normal, log_density, log_density, key=key, samples=samples)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: estimators.f_divergence("reverse_kl", x, x), r"takes the name of a divergence; got 'reverse_kl'\. "),
        (lambda x: estimators.f_divergence("amari", x, x), r"takes amari with alpha; got no parameter\. Pass numbers"),
        (lambda x: estimators.f_divergence("js", x, x, weight=0.5), r"takes js with no parameter; got weight\. Pass "),
        (lambda x: estimators.link("reverse_kl", x), r"takes the name of a divergence; got 'reverse_kl'\. "),
        (lambda x: estimators.link("amari", x), r"takes amari with alpha; got no parameter\. Pass numbers"),
        (lambda x: estimators.k1(x, x, where=jnp.ones(2, bool)), r"takes a mask .*; got where\[2\] for \[3\]"),
        (lambda x: _monte_carlo(lambda x: x, samples=0), r"takes samples in \[1, inf\]; got 0\. Pass"),
        (lambda x: _monte_carlo(lambda x: jnp.ones(2)), r"takes log_p as a function of one draw .*; got \[2\]\. Sum"),
        (lambda x: estimators.knn_kl(x[:, None], x[:, None], k=1.0), r"an integer k >= 1 .* got k = 1\.0, xs"),
        (lambda x: estimators.k3(x, x[:2]), r"equal shape; got log_p\[3\] and log_q\[2\]\. Fill axis 0"),
        (lambda x: estimators.sequence_sum(x[0], x[0]), r"takes the axis of the events"),
        (lambda x: estimators.mean(x, weights=x[:2]), r"got values\[3\] and weights\[2\]\. Fill axis 0"),
        (lambda x: estimators.mean(x[None]), r"takes one vector; got values\[1, 3\]\. For a batch, use jax\.vmap"),
        (
            lambda x: estimators.info_nce(x[:0, None]),
            r"takes a square matrix .*; got scores\[0, 1\]\. Pass at least one",
        ),
        (lambda x: estimators.knn_kl(x[:, None], x[:, None], k=3), r"got k = 3, xs\[3, 1\] and ys\[3, 1\]\. Pass more"),
        (lambda x: estimators.knn_kl(x[:, None], x[None]), r"equal dimension.*got k = 1, xs\[3, 1\] and ys\[1, 3\]"),
        (lambda x: estimators.info_nce(x[None]), r"takes a square matrix \[n, n\]; got scores\[1, 3\]\. Score"),
        (lambda x: estimators.nwj(x, x, where_q=jnp.ones(2, bool)), r"got where\[2\] for \[3\]"),
    ],
)
def test_a_wrong_call_is_a_value_error_that_says_what_to_do(call, message):
    with pytest.raises(ValueError, match=rf"^estimators\.\w+ .*{message}"):
        call(jnp.ones(3))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("estimate", [estimators.k2, estimators.k3], ids=lambda estimate: estimate.__name__)
def test_where_an_estimate_is_infinite_it_stands_still(estimate, dtype):
    log_p, log_q = jnp.array([-1, -120, -jnp.inf, -2], dtype), jnp.array([-1.5, -1, -1, -jnp.inf], dtype)
    keep = estimate(log_p, log_q) < jnp.inf
    assert list(keep) != [True] * 4
    plain = jax.grad(lambda x: estimate(x, log_q, where=keep).sum())(log_p)
    np.testing.assert_array_equal(jax.grad(lambda x: estimate(x, log_q).sum())(log_p), plain)
    np.testing.assert_array_equal(jax.grad(lambda x: (estimate(x, log_q) * keep.astype(dtype)).sum())(log_p), plain)


@pytest.mark.parametrize("name", BY_NAME)
def test_an_estimate_of_draws_at_minus_infinity_is_that_of_k3(name):
    log_p, log_q = jnp.array([-jnp.inf, -jnp.inf, -1.0]), jnp.array([-jnp.inf, -2.0, -2.0])
    value = estimate(name, log_p, log_q)
    np.testing.assert_array_equal(value[:2], [0, np.inf])
    np.testing.assert_array_equal(np.isinf(value), np.isinf(estimators.k3(log_p, log_q)))
    assert not np.any(jax.grad(lambda x: jnp.sum(estimate(name, x, log_q)[:2]))(log_p))
    drawn_elsewhere = estimate(name, log_p, log_q, log_behaviour=jnp.full(3, -1.0))
    assert np.isfinite(drawn_elsewhere[1]) or name in ("jeffreys", "rescaled_js")


def test_a_bound_of_the_log_ratio_holds_in_value_and_gradient():
    log_p, log_q = jnp.array([-1.0, -120.0, -3.0, -1.0]), jnp.array([-1.5, -1.0, -1.0, -jnp.inf])
    bounded = jnp.clip(log_p - log_q, -3, 3)
    for k, of_ratio in (
        (estimators.k1, lambda c: c),
        (estimators.k2, lambda c: c * c / 2),
        (estimators.k3, lambda c: jnp.exp(-c) - 1 + c),
    ):
        found = k(log_p, log_q, max_log_ratio=3.0)
        np.testing.assert_allclose(found, of_ratio(bounded), 1e-6)
        slope = jax.grad(lambda x, k=k: jnp.sum(k(x, log_q, max_log_ratio=3.0)))(log_p)
        assert slope[0] != 0 != slope[2]
        assert slope[1] == 0 == slope[3]
    for name in BY_NAME:
        found = estimate(name, log_p, log_q, max_log_ratio=3.0)
        np.testing.assert_allclose(found, estimate(name, log_p, log_p - bounded), 1e-5)
        in_p, in_q = jax.grad(lambda p, q, name=name: jnp.sum(estimate(name, p, q, max_log_ratio=3.0)), (0, 1))(
            log_p, log_q
        )
        np.testing.assert_allclose(in_p[jnp.array([1, 3])], found[jnp.array([1, 3])], 1e-5)  # the score alone
        assert not np.any(in_q[jnp.array([1, 3])])
        np.testing.assert_allclose(
            in_p[:1], jax.grad(lambda p, name=name: jnp.sum(estimate(name, p, log_q[:1])))(log_p[:1]), 1e-5
        )
    for k in (estimators.k3, functools.partial(estimate, "js")):
        assert jnp.isnan(k(log_p, log_q, max_log_ratio=-1.0)).all()
    alone = estimators.k3(jnp.array([-jnp.inf]), jnp.array([-1.0]), max_log_ratio=3.0)
    np.testing.assert_allclose(estimate("kl", jnp.array([-jnp.inf]), jnp.array([-1.0]), max_log_ratio=3.0), alone, 1e-6)

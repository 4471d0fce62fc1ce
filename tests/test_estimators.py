"""Estimates from samples: means over all draws, weighted by their probabilities, are exact where they claim to be."""

import functools
import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax import lax
from measure import digits, exact, ulps, x64

from jaxdiv import estimators, losses, normal

W, ALPHA = 0.25, 1.75  # floats whose differences from 1 are exact


def mixed(w):
    return lambda p, q, f: w * p * f.log(p / (w * p + (1 - w) * q)) + (1 - w) * q * f.log(q / (w * p + (1 - w) * q))


# The integrands f(p, q), up to terms that vanish in the sum, and what makes them terms: non-negative, zero at p = q.
TERMS = {
    "kl": lambda p, q, f: p * f.log(p / q) - p + q,
    "jeffreys": lambda p, q, f: (p - q) * f.log(p / q),
    "js": mixed(0.5),
    "skewed_js": mixed(W),
    "rescaled_js": lambda p, q, f: mixed(W)(p, q, f) / (W * (1 - W)),
    "amari": lambda p, q, f: (ALPHA * p + (1 - ALPHA) * q - p**ALPHA * q ** (1 - ALPHA)) / (ALPHA * (1 - ALPHA)),
    "squared_hellinger": lambda p, q, f: (f.sqrt(p) - f.sqrt(q)) ** 2 / 2,
    "total_variation": lambda p, q, f: abs(p - q) / 2,
    "chi2": lambda p, q, f: (p - q) ** 2 / q,
    "triangular": lambda p, q, f: (p - q) ** 2 / (p + q),
}
SECOND = ("kl", "js", "amari")  # compared to second order too
NUMBERS = {"skewed_js": {"weight": W}, "rescaled_js": {"weight": W}, "amari": {"alpha": ALPHA}}


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


@pytest.mark.parametrize("name", TERMS)
@in_float64
def test_the_mean_over_all_draws_has_the_value_and_derivatives_of_the_divergence(name):
    p, q, b = logits()

    def truth(p, q):
        return jnp.sum(TERMS[name](jax.nn.softmax(p), jax.nn.softmax(q), jnp))

    def mean_over_draws(log_b, p, q):
        log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
        drawn = lax.stop_gradient(log_p if log_b is None else log_b)
        return jnp.sum(jnp.exp(drawn) * estimate(name, log_p, log_q, log_behaviour=log_b))

    means = [functools.partial(mean_over_draws, log_b) for log_b in (None, jax.nn.log_softmax(b))]
    expected, *got = derivatives([truth, *means], p, q, second=name in SECOND)
    for each in got:
        assert_close(each, expected)


@in_float64
def test_the_gradients_of_k1_k2_and_k3_are_those_of_the_table():
    p, q, _ = logits()

    def kl(p, q):
        return jnp.sum(TERMS["kl"](jax.nn.softmax(p), jax.nn.softmax(q), jnp))

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
    log_p = rng.uniform(-5, 0, size=40).astype(dtype)
    return log_p, (log_p + rng.normal(size=40) * 10.0 ** rng.uniform(-5, 1, size=40)).astype(dtype)


@pytest.mark.parametrize("name", TERMS)
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
            return TERMS[name](p, q, mp)

        return f(1, q), mp.diff(f, (1, q), (1, 0)), q * mp.diff(f, (1, q), (0, 1))

    got = np.stack(all_of_them(log_p, log_q), 1)
    errors = [ulps(x, y, np.float32) for row in zip(got, log_p, log_q, strict=True)
              for x, y in zip(row[0], truths(*row[1:]), strict=True)]  # fmt: skip
    assert max(errors) <= 8


@pytest.mark.parametrize("name", TERMS)
def test_where_a_law_has_no_mass_nothing_is_nan(name):
    # Equal, far both ways, q impossible, p impossible, both impossible, for draws of a third law.
    log_p = jnp.array([-1.0, -1.0, -200.0, -1.0, -jnp.inf, -jnp.inf])
    log_q = jnp.array([-1.0, -200.0, -1.0, -jnp.inf, -1.0, -jnp.inf])
    for log_b in (None, jnp.full(6, -1.0)):
        possible = np.isfinite(log_p) | (log_b is not None)
        value, pull = jax.vjp(lambda p, q: estimate(name, p, q, log_behaviour=log_b), log_p, log_q)  # noqa: B023
        slopes = pull(jnp.ones_like(value))
        assert not np.any(np.isnan(value[possible]))
        assert np.all(value[possible] >= 0)
        assert value[0] == slopes[0][0] == slopes[1][0] == 0
        assert all(np.all(np.isfinite(x[possible])) for x in slopes)


def test_masked_draws_count_nothing_whatever_they_hold():
    log_p = jnp.array([[-1.0, jnp.nan, -2.0], [jnp.nan, -jnp.inf, jnp.inf]])
    where = jnp.array([[True, False, True], [False, False, False]])

    def loss(log_p, log_q):
        terms = estimators.f_divergence("kl", log_p, log_q, where=where)
        return estimators.sequence_sum(terms, log_p, where=where)

    value, pull = jax.vjp(loss, log_p, 0.5 * log_p)
    kept = jnp.array([-1.0, -2.0])
    alone = estimators.sequence_sum(estimators.f_divergence("kl", kept, 0.5 * kept), kept)
    np.testing.assert_array_equal(value, [alone, 0])
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
    got, expected = derivatives([functools.partial(mean_of_sums, terms_of, log_b), sequence_kl], p, q)
    assert_close(got, expected)


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
def test_a_sequence_is_one_draw_of_any_divergence():
    p, q, _ = policy()

    def truth(p, q):
        p, q = (jnp.exp(jnp.sum(of_sequences(x)[1], -1)) for x in (p, q))
        return jnp.sum(TERMS["js"](p, q, jnp))

    def mean(p, q):
        log_p, log_q = (jnp.sum(of_sequences(x)[1], -1) for x in (p, q))
        return jnp.sum(lax.stop_gradient(jnp.exp(log_p)) * estimators.f_divergence("js", log_p, log_q))

    assert_close(*derivatives([mean, truth], p, q, second=False))


# ---------------------------------------------------------------- Monte Carlo


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


def test_the_mean_of_no_draw_is_0_and_the_error_of_fewer_than_two_is_infinite():
    none, one = jnp.zeros(3, bool), jnp.array([True, False, False])
    x = jnp.array([2.0, 3.0, jnp.inf])
    assert estimators.mean(x, where=none) == (0, jnp.inf)
    assert estimators.mean(x, where=one) == (2, jnp.inf)
    slopes = [jax.grad(lambda x: estimators.mean(x, where=where).value)(x) for where in (none, one)]  # noqa: B023
    np.testing.assert_array_equal(slopes, [[0, 0, 0], [1, 0, 0]])
    equal = jax.grad(lambda x: estimators.mean(x).standard_error)(jnp.ones(3))
    np.testing.assert_array_equal(equal, 0)


@pytest.mark.parametrize("name", ["kl", "js", "squared_hellinger"])
def test_monte_carlo_and_its_gradient_are_right_within_their_standard_errors(name):
    def value(mu, log_scale, key):
        p, q = normal.NormalLogScale(mu, log_scale), normal.Normal(0.5, 1.0)

        def log_density(law, x):
            return -0.5 * ((x - law.loc) / law.scale) ** 2 - jnp.log(law.scale)

        p = normal.Normal(p.loc, jnp.exp(p.log_scale))
        return estimators.monte_carlo(
            name,
            lambda key: p.loc + p.scale * jax.random.normal(key),
            functools.partial(log_density, p),
            functools.partial(log_density, q),
            key=key,
            samples=400,
        ).value

    def truth(mu, log_scale):
        return getattr(normal, name)(normal.NormalLogScale(mu, log_scale), normal.NormalLogScale(0.5, 0.0))

    at = jnp.float32(0.0), jnp.float32(-0.2)
    run = jax.jit(jax.vmap(jax.value_and_grad(value, (0, 1)), (None, None, 0)))
    values, slopes = run(*at, jax.random.split(jax.random.key(0), 64))
    exact_value, exact_slopes = jax.value_and_grad(truth, (0, 1))(*at)
    for got, expected in zip((values, *slopes), (exact_value, *exact_slopes), strict=True):
        mean, error = estimators.mean(got)
        assert abs(mean - expected) < 4 * error
        assert error < 0.1 * abs(expected)

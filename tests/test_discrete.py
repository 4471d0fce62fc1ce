"""Particular facts of the discrete families: what is not a divergence of one pair, and gradients that cancel."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from marks import with_all
from measure import exact, normwise, ulps, x64

from jaxdiv import bernoulli, categorical, embedding, losses, simplex

DTYPES = [np.float32, np.float64]


def _softmax(logits):
    exps = [mp.exp(a) if mp.isfinite(a) else mp.mpf(0) for a in exact(logits)]
    return [e / mp.fsum(exps) for e in exps]


def _xlogx(p):
    return p * mp.log(p) if p else mp.mpf(0)


def _entropy(p):
    return -mp.fsum(map(_xlogx, p))


def _call(function, *arrays, dtype):
    with x64(dtype):
        return jax.tree.map(np.asarray, jax.jit(function)(*(jnp.asarray(x, dtype) for x in arrays)))


# ---------------------------------------------------------------- one law, and several


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logits", [[0, 0, 0, 0], [0, 1, -2, 3], [0, 40, 1, -3], [0, 0, -np.inf, 30], [5, -np.inf]])
def test_entropy_is_accurate_also_for_a_confident_law(logits, dtype):
    logits = np.asarray(logits, dtype)
    p = _softmax(logits)
    value, gradient = _call(jax.value_and_grad(categorical.entropy), logits, dtype=dtype)
    assert ulps(value, _entropy(p), dtype) <= 8
    slopes = [-p_i * (mp.log(p_i) + _entropy(p)) if p_i else mp.mpf(0) for p_i in p]
    assert normwise(gradient, slopes, dtype, scale=mp.mpf(float(np.finfo(dtype).tiny)) * 2**30) <= 32
    np.testing.assert_array_equal(_call(categorical.cross_entropy, logits, logits, dtype=dtype), value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_entropy_of_probabilities_is_accurate_and_differentiable_at_zero(dtype):
    p = np.array([0.5, 0.25, 0.25, 0.0], dtype)
    value, gradient = _call(jax.value_and_grad(simplex.entropy), p, dtype=dtype)
    assert ulps(value, _entropy(exact(p)), dtype) <= 4
    assert gradient[3] == 0
    np.testing.assert_allclose(gradient[:3], -np.log(p[:3].astype(np.float64)) - 1, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eps", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("family", [categorical, simplex])
def test_js_of_n_laws_keeps_its_digits(family, eps, dtype):
    rng = np.random.default_rng(0)
    base = rng.normal(size=5)
    ps = (base + eps * rng.normal(size=(3, 5))).astype(dtype)
    weights = np.array([0.2, 0.3, 0.5], dtype)
    if family is simplex:
        ps = (np.exp(ps) / np.exp(ps).sum(-1, keepdims=True)).astype(dtype)
    got = _call(lambda ps, w: family.js_of(ps, weights=w), ps, weights, dtype=dtype)
    laws = [_softmax(p) if family is categorical else exact(p) for p in ps]
    w = [w / mp.fsum(exact(weights)) for w in exact(weights)]
    mean = [mp.fsum(w_j * p[i] for w_j, p in zip(w, laws, strict=True)) for i in range(5)]
    kl = [mp.fsum(a * mp.log(a / m) - a + m for a, m in zip(p, mean, strict=True)) for p in laws]
    value = mp.fsum(w_j * x for w_j, x in zip(w, kl, strict=True))
    assert ulps(got, value, dtype) <= 16


@pytest.mark.parametrize("family", [categorical, simplex])
def test_js_of_two_laws_is_js_and_of_equal_laws_zero(family):
    ps = jnp.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    ps = jnp.log(ps) if family is categorical else ps
    np.testing.assert_allclose(family.js_of(ps), family.js(*ps), rtol=1e-6)
    np.testing.assert_allclose(
        jax.grad(family.js_of)(ps), jnp.stack(jax.grad(family.js, (0, 1))(*ps)), rtol=2e-5, atol=1e-7
    )
    same = jnp.stack([ps[0]] * 4)
    assert family.js_of(same) == 0
    assert jnp.all(jax.grad(family.js_of)(same) == 0)
    apart = jnp.log(jnp.eye(3)) if family is categorical else jnp.eye(3)
    assert abs(family.js_of(apart) - np.log(3)) < 1e-6
    assert jnp.all(jnp.isfinite(jax.grad(family.js_of)(apart)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eps", [0.5, 1e-2, 1e-3])
def test_mutual_information_keeps_its_digits_near_independence(eps, dtype):
    rng = np.random.default_rng(1)
    joint = np.outer(rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(3))) * np.exp(eps * rng.normal(size=(4, 3)))
    joint = (joint / joint.sum()).astype(dtype)
    got = _call(simplex.mutual_information, joint, dtype=dtype)
    table = exact(joint)
    rows, columns = [mp.fsum(row) for row in table], [mp.fsum(row[j] for row in table) for j in range(3)]
    value = mp.fsum(
        table[i][j] * mp.log(table[i][j] / (rows[i] * columns[j])) - table[i][j] + rows[i] * columns[j]
        for i in range(4)
        for j in range(3)
    )
    # The rounding of the margins enters as the square of its ratio to eps, the exact product not at all.
    assert ulps(got, value, dtype) <= 32


def test_mutual_information_has_finite_gradients_at_zeros():
    joint = jnp.array([[0.5, 0.0, 0.0], [0.0, 0.25, 0.25]])
    assert abs(simplex.mutual_information(joint) - np.log(2)) < 1e-6
    assert jnp.all(jnp.isfinite(jax.grad(simplex.mutual_information)(joint)))
    independent = jnp.outer(jnp.array([0.25, 0.75]), jnp.array([0.5, 0.5]))
    assert simplex.mutual_information(independent) == 0


# ---------------------------------------------------------------- gradients that cancel


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_confident_law_has_accurate_gradients(dtype):
    # All but 1e-9 of the mass on one event: there the gradient is minus the sum of the others'.
    p, q = np.array([21.0, 0, 0.5, -1], dtype), np.array([20.0, 0.25, 0, 1], dtype)
    gradients = _call(jax.grad(categorical.kl, (0, 1)), p, q, dtype=dtype)
    x, y = _softmax(p), _softmax(q)
    log = [mp.log(a / b) for a, b in zip(x, y, strict=True)]
    kl = mp.fsum(a * c for a, c in zip(x, log, strict=True))
    assert normwise(gradients[0], [a * (c - kl) for a, c in zip(x, log, strict=True)], dtype) <= 16
    assert normwise(gradients[1], [b - a for a, b in zip(x, y, strict=True)], dtype) <= 16


@pytest.mark.parametrize("dtype", DTYPES)
def test_laws_far_apart_but_proportional_where_the_mass_is_have_accurate_gradients(dtype):
    # c is 40 on the whole of p's support, up to 1e-4: KL's gradient in p is made of those differences.
    rng = np.random.default_rng(2)
    p = np.concatenate([rng.normal(size=5), [-60.0]]).astype(dtype)
    q = np.concatenate([p[:5] - 40 + 1e-4 * rng.normal(size=5), [0.0]]).astype(dtype)
    gradient = _call(jax.grad(categorical.kl), p, q, dtype=dtype)
    x, y = _softmax(p), _softmax(q)
    log = [mp.log(a / b) for a, b in zip(x, y, strict=True)]
    kl = mp.fsum(a * c for a, c in zip(x, log, strict=True))
    assert normwise(gradient, [a * (c - kl) for a, c in zip(x, log, strict=True)], dtype) <= 32


@pytest.mark.parametrize("dtype", DTYPES)
def test_js_of_saturated_laws_has_accurate_gradients(dtype):
    p, q = np.array([9.0, 0, -4], dtype), np.array([-9.0, 1, 0], dtype)
    gradient = _call(jax.grad(categorical.js), p, q, dtype=dtype)
    x, y = _softmax(p), _softmax(q)
    g = [mp.log(2 * a / (a + b)) for a, b in zip(x, y, strict=True)]
    mean = mp.fsum(a * t for a, t in zip(x, g, strict=True))
    assert normwise(gradient, [a * (t - mean) / 2 for a, t in zip(x, g, strict=True)], dtype) <= 16


# ---------------------------------------------------------------- affinities


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", [simplex, *with_all(categorical, bernoulli)])
@pytest.mark.parametrize("eps", [3.0, 1e-1, 1e-3, 1e-5])
def test_chernoff_bhattacharyya_and_renyi_keep_their_digits(family, eps, dtype):
    rng = np.random.default_rng(3)
    p = rng.normal(size=4).astype(dtype)
    q = (p + eps * rng.normal(size=4)).astype(dtype)
    if family is simplex:
        p, q = ((np.exp(x) / np.exp(x).sum()).astype(dtype) for x in (p, q))
    if family is bernoulli:
        p, q = p[0], q[0]
        x, y = _softmax(np.array([0, p])), _softmax(np.array([0, q]))
    else:
        x, y = (exact(p), exact(q)) if family is simplex else (_softmax(p), _softmax(q))
    pairs = list(zip(x, y, strict=True))

    def gap(s):  # 1 - S(s) for laws that sum to one, to second order in a rounding of that sum
        return mp.fsum(s * a + (1 - s) * b - a**s * b ** (1 - s) for a, b in pairs)

    def slope(s):
        return mp.fsum(a - b - a**s * b ** (1 - s) * mp.log(a / b) for a, b in pairs)

    low, high = mp.mpf(0), mp.mpf(1)
    for _ in range(150):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    assert ulps(_call(family.chernoff, p, q, dtype=dtype), -mp.log1p(-gap(low)), dtype) <= 16
    half = mp.mpf(1) / 2
    assert ulps(_call(family.bhattacharyya, p, q, dtype=dtype), -mp.log1p(-gap(half)), dtype) <= 16
    renyi = _call(lambda p, q: family.renyi(p, q, alpha=0.5), p, q, dtype=dtype)
    assert ulps(renyi, -2 * mp.log1p(-gap(half)), dtype) <= 16


def test_renyi_of_high_order_neither_overflows_nor_underflows():
    p, q = jnp.array([0.0, 30.0, -100.0]), jnp.array([200.0, 0.0, 10.0])
    top = categorical.renyi(p, q, alpha=jnp.inf)
    assert abs(top - 200) < 1e-3
    assert 195 < categorical.renyi(p, q, alpha=50.0) <= top
    assert categorical.renyi(p, q, alpha=-0.5) != categorical.renyi(p, q, alpha=-0.5)  # NaN


@pytest.mark.parametrize("alpha", [0.0, 2.0, *with_all(1.000001, 10.0)])
def test_renyi_of_huge_logits_is_not_negative_and_has_slopes(alpha):
    sizes = np.float32([-np.inf, -1e30, -1e10, -200, -88, -2, 0, 1e10, 1e30, 3e38])
    laws = np.array([(0, *x) for x in itertools.product(sizes, sizes)], np.float32)
    p, q = np.repeat(laws, len(laws), 0), np.tile(laws, (len(laws), 1))
    of = jax.value_and_grad(lambda p, q: categorical.renyi(p, q, alpha=alpha), (0, 1))
    values, slopes = jax.jit(jax.vmap(of))(p, q)
    assert np.all(np.asarray(values) >= 0)
    assert np.all(np.isfinite(slopes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [0.25, 1.0, 2.0, *with_all(0.75, 1.5, 30.0)])
@pytest.mark.parametrize(
    ("p", "q"),
    [
        ([12.0, 3.0, -1.0, 0.5], [0.0, 1.0, -0.5, 0.0]),  # of which only one is confident
        ([90.0, 0.0, -60.0, -500.0], [-60.0, -500.0, 5000.0, 1.0]),  # whose common masses no float holds
        ([40.0, 0.25, -1.0, -3.0], [41.0, 0.5, -1.0, -3.0]),  # both confident, of the same event
    ],
)
def test_renyi_of_confident_laws_has_slopes_that_do_not_cancel(p, q, alpha, dtype):
    x, y = _softmax(p), _softmax(q)
    alpha = mp.mpf(alpha)
    weights = [a**alpha * b ** (1 - alpha) for a, b in zip(x, y, strict=True)]
    total, kl = mp.fsum(weights), mp.fsum(a * mp.log(a / b) for a, b in zip(x, y, strict=True))
    value = kl if alpha == 1 else mp.log(total) / (alpha - 1)
    m = [w / total for w in weights]
    in_p = [
        a * (mp.log(a / b) - kl) if alpha == 1 else alpha * (c - a) / (alpha - 1)
        for a, b, c in zip(x, y, m, strict=True)
    ]
    renyi = jax.value_and_grad(lambda p, q: categorical.renyi(p, q, alpha=float(alpha)), (0, 1))
    found, (slopes_p, slopes_q) = _call(renyi, np.asarray(p), np.asarray(q), dtype=dtype)
    assert ulps(found, value, dtype) <= 16
    scale = mp.mpf(float(np.finfo(dtype).tiny)) * 2**30
    assert normwise(slopes_p, in_p, dtype, scale=scale) <= 32
    assert normwise(slopes_q, [b - c for b, c in zip(y, m, strict=True)], dtype, scale=scale) <= 32


@pytest.mark.parametrize("verb", ["renyi", "amari"])
@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.5, 1 - 1e-6, 1.0, 1 + 1e-6, 2.0])
@pytest.mark.parametrize("family", [simplex, *with_all(categorical)])
def test_the_derivative_in_alpha_is_right_at_its_limits_too(family, verb, alpha):
    p, q = (np.random.default_rng(seed).dirichlet(np.ones(4)) for seed in (4, 5))
    pairs = [(a / mp.fsum(exact(p)), b / mp.fsum(exact(q))) for a, b in zip(exact(p), exact(q), strict=True)]

    def value(a):
        affinity = mp.fsum(x**a * y ** (1 - a) for x, y in pairs)
        return mp.log(affinity) / (a - 1) if verb == "renyi" else (1 - affinity) / (a * (1 - a))

    step = mp.mpf(10) ** -12
    numeric = (value(mp.mpf(alpha) + step) - value(mp.mpf(alpha) - step)) / (2 * step)
    with x64(np.float64):
        laws = [jnp.log(x) if family is categorical else jnp.asarray(x) for x in (p, q)]
        slope = jax.grad(lambda a: getattr(family, verb)(*laws, alpha=a))(alpha)
    np.testing.assert_allclose(float(slope), float(numeric), rtol=1e-9)


# ---------------------------------------------------------------- zeros and bad values


def test_supports_decide_by_the_logit_not_by_the_rounded_probability():
    p, q = jnp.array([0.0, -200.0]), jnp.array([0.0, -jnp.inf])
    assert categorical.kl(p, q) == jnp.inf
    in_p, in_q = jax.grad(categorical.kl, (0, 1))(p, q)
    assert jnp.all(in_p == 0)
    assert jnp.all(jnp.isfinite(in_q))


@pytest.mark.parametrize("verb", ["kl", "js", "renyi", "amari", "chernoff", "chi2", "total_variation", "cross_entropy"])
@pytest.mark.parametrize("bad", [[-0.1, 1.1], [jnp.nan, 1.0]])
def test_a_bad_vector_is_nan_and_its_neighbours_are_not(verb, bad):
    keywords = {"alpha": 0.7} if verb in ("renyi", "amari") else {}
    ps, qs = jnp.full((3, 2), 0.5).at[1].set(jnp.array(bad)), jnp.array([[0.3, 0.7]] * 3)
    batched = jax.vmap(lambda p, q: getattr(simplex, verb)(p, q, **keywords))
    for value in (batched(ps, qs), batched(qs, ps)):
        np.testing.assert_array_equal(jnp.isnan(value), [False, True, False])


@pytest.mark.parametrize("bad", [[jnp.nan, 0.0], [jnp.inf, 0.0], [-jnp.inf, -jnp.inf]])
def test_bad_logits_are_nan_and_their_neighbours_are_not(bad):
    ps, qs = jnp.zeros((3, 2)).at[1].set(jnp.array(bad)), jnp.ones((3, 2))
    for verb in (categorical.kl, categorical.js, categorical.chernoff, categorical.cross_entropy):
        for value in (jax.vmap(verb)(ps, qs), jax.vmap(verb)(qs, ps)):
            np.testing.assert_array_equal(jnp.isnan(value), [False, True, False])


def test_infinite_bernoulli_logits_are_certainties():
    certain = jnp.array(jnp.inf)
    assert bernoulli.kl(certain, certain) == 0
    assert bernoulli.kl(jnp.array(0.0), certain) == jnp.inf
    assert abs(bernoulli.kl(certain, jnp.array(0.0)) - np.log(2)) < 1e-7
    assert abs(bernoulli.js(certain, -certain) - np.log(2)) < 1e-7
    assert bernoulli.entropy(certain) == 0
    assert all(jnp.isfinite(g) for g in jax.grad(bernoulli.js, (0, 1))(certain, jnp.array(0.3)))


def test_a_subnormal_probability_is_no_zero():
    p, q = np.array([1.0, 1e-40], np.float32), np.array([1.0, 3e-42], np.float32)
    assert jnp.isfinite(jax.jit(simplex.kl)(p, q))
    assert abs(jax.jit(jax.grad(simplex.kl))(p, q)[1] - np.log(p[1] / np.float64(q[1]))) < 1e-5


def test_unnormalised_vectors_have_the_generalised_value_and_no_cap():
    p, q = jnp.array([2.0, 4.0]), jnp.array([3.0, 1.0])
    exact = 2 * np.log(2 / 3) + 4 * np.log(4) - 6 + 4
    np.testing.assert_allclose(simplex.kl(p, q), exact, rtol=1e-6)
    assert simplex.js(jnp.array([8.0, 0.0]), jnp.array([0.0, 8.0])) > 5


# ---------------------------------------------------------------- at the ends of the floats


def _floats(*laws):
    return [jnp.asarray(x, jnp.float32) for x in laws]


def _of(verb, *laws, **parameters):
    """A case: a function of laws, and the laws in float32."""
    return lambda *laws: verb(*laws, **parameters), _floats(*laws)


def keyword(verb, name):
    return lambda p, q, x: verb(p, q, **{name: x})


DEEP, DEEPER, OUT = [0.0, -90.0], [0.0, -200.0], -np.inf
MISSING = [0.0, 0.5, 0.5], [1e-8, 0.5, 0.5]
FLAT, TINY = [0.25, 0.25, 0.5], [1e-40, 0.5, 0.5]
THREE = [[0.0, 1.0, 3.0]], [[2.0, 1.0, 0.0]]
VALUES = {
    # The square of an underflowing p over a q that underflows more.
    "categorical.chi2": (_of(categorical.chi2, DEEP, DEEPER), math.exp(20)),
    "categorical.amari": (_of(categorical.amari, DEEP, DEEPER, alpha=2.0), math.exp(20) / 2),
    "categorical.amari back": (_of(categorical.amari, DEEPER, DEEP, alpha=-1.0), math.exp(20) / 2),
    "categorical.amari, whose power overflows": (
        _of(categorical.amari, [0, -70], [0, -165], alpha=2),
        math.exp(25) / 2,
    ),
    "bernoulli.chi2": (_of(bernoulli.chi2, 104, 250), math.exp(42)),
    "bernoulli.chi2 of complements": (_of(bernoulli.chi2, -104, -250), math.exp(42)),
    "bernoulli.amari": (_of(bernoulli.amari, 104, 250, alpha=2), math.exp(42) / 2),
    "bernoulli.amari, infinite": (_of(bernoulli.amari, 200, 1e4, alpha=2), np.inf),
    "losses.distillation": (_of(losses.distillation, *THREE, temperature=1e30), 19 / 9),
    "losses.amari": (_of(losses.amari, [[0, -250]], [[0, -104]], alpha=2), math.exp(42) / 2),
    "simplex.amari": (_of(simplex.amari, [1e-36, 1], [1e-42, 1], alpha=6), (1e-6 / 1.0005**5) / 30),
    # A common support of a mass that underflows.
    "categorical.chernoff": (_of(categorical.chernoff, [OUT, 0, -200], [0, OUT, 0]), 200),
    "categorical.chernoff back": (_of(categorical.chernoff, [0, OUT, 0], [OUT, 0, -200]), 200),
    "simplex.chernoff": (_of(simplex.chernoff, [1, 1e-40, 0], [0, 0.5, 0.5]), 92.10341),
    "simplex.mutual_information": (_of(simplex.mutual_information, np.diag([1e-20, 1])), 4.705170e-19),
    # The mass that p lacks.
    "simplex.renyi 0": (_of(simplex.renyi, *MISSING, alpha=0), 1e-8),
    "simplex.renyi 1e-30": (_of(simplex.renyi, *MISSING, alpha=1e-30), 1e-8),
    "categorical.renyi 0": (_of(categorical.renyi, [OUT, 0, 0], [math.log(2e-8), 0, 0], alpha=0), 1e-8),
    "categorical.renyi 1e-30": (_of(categorical.renyi, [OUT, 0, 0], [math.log(2e-8), 0, 0], alpha=1e-30), 1e-8),
    "bernoulli.renyi, a small order": (_of(bernoulli.renyi, 1e4, -1, alpha=1e-5), 0.07210201),
    # Orders and logits of any size.
    "simplex.renyi 3e38": (_of(simplex.renyi, [0.2, 0.8], [0.5, 0.5], alpha=3e38), math.log(1.6)),
    "categorical.amari 1 of huge logits": (_of(categorical.amari, [0, 0], [0, 1e30], alpha=1), 5e29),
    "categorical.renyi 1 of huge logits": (_of(categorical.renyi, [0, 0], [0, 1e30], alpha=1), 5e29),
}


def test_numbers_that_leave_the_floats_only_on_the_way_to_a_value_keep_it():
    cases = {name: case for name, (case, _) in VALUES.items()}
    found = jax.jit(lambda given: {name: f(*given[name]) for name, (f, _) in cases.items()})(
        {name: laws for name, (_, laws) in cases.items()}
    )
    wrong = {
        name: float(jnp.squeeze(found[name]))
        for name, (_, value) in VALUES.items()
        # An exponent of a hundred rounds by as many ulps of its power.
        if not np.isclose(jnp.squeeze(found[name]), value, rtol=100 * np.finfo(np.float32).eps)
    }
    assert not wrong


ALPHA = [1e-25, 1e-38, 1e20, 3e38]
APART = {simplex: (FLAT, [0.5, 0.25, 0.25]), categorical: ([0, 1, 3], [0, 2, 1]), bernoulli: (1, 2)}
SLOPES = (
    {  # verbs, and batches of their arguments
        family.__name__: [
            (keyword(family.renyi, "alpha"), [(*APART[family], x) for x in ALPHA] + renyi),
            (keyword(family.amari, "alpha"), [(*APART[family], x) for x in ALPHA[:2]] + amari),
            *others,
        ]
        for family, renyi, amari, others in (
            (
                simplex,
                [(FLAT, FLAT, 1e20)],
                [(FLAT, TINY, 2), (FLAT, TINY, 0.5), (TINY, FLAT, -1)],
                [(keyword(simplex.js, "weight"), [(FLAT, TINY, 0.3)]), (simplex.cross_entropy, [(FLAT, TINY)])],
            ),
            (categorical, [([0, OUT, 1], [0, 1, 0], 1e30)], [([0, 0, -90], [0, 0, -200], 2)], []),
            (bernoulli, [], [(104, 250, 2)], []),
        )
    }
    | {"losses": [(keyword(losses.distillation, "temperature"), [(*THREE, 1e-30), (*THREE, 1e30)])]}
)


@pytest.mark.parametrize("where", ["jaxdiv.simplex", "losses", *with_all("jaxdiv.categorical", "jaxdiv.bernoulli")])
def test_slopes_at_the_ends_of_the_floats_are_numbers(where):
    def slopes(f, *arguments):
        value, pull = jax.vjp(f, *arguments)
        return [pull(jnp.full_like(value, x)) for x in (1, 0)]

    verbs, cases = zip(*SLOPES[where], strict=True)
    program = jax.jit(
        lambda cases: [jax.vmap(functools.partial(slopes, f))(*x) for f, x in zip(verbs, cases, strict=True)]
    )
    found = program([_floats(*zip(*case, strict=True)) for case in cases])
    assert not [x for x in found if not all(np.isfinite(y).all() for y in jax.tree.leaves(x))]


def test_the_slope_of_mutual_information_is_the_log_ratio():
    joint = np.random.default_rng(0).dirichlet(np.ones(12)).reshape(3, 4)
    log = np.log(joint / (joint.sum(1, keepdims=True) * joint.sum(0)))
    with x64(np.float64):
        np.testing.assert_allclose(jax.grad(simplex.mutual_information)(joint), log, 1e-12)
        second = jax.hessian(simplex.mutual_information)(joint)[0, 0, 0, 1]
        np.testing.assert_allclose(second, 2 - 1 / joint[0].sum(), 1e-9)


def test_one_long_row_of_equal_terms_is_summed_in_parts():
    p = np.zeros(10000, np.float32)
    q = np.where(np.arange(10000) < 5000, np.float32(1), p)
    verbs = ["js", "total_variation", "squared_hellinger", "chi2", "triangular", "cross_entropy", "bhattacharyya"]

    def every(p, q):
        found = {name: getattr(categorical, name)(p, q) for name in verbs}
        found |= {"renyi": categorical.renyi(p, q, alpha=0.5), "loss": losses.js(p[None], q[None])[0]}
        laws = jax.nn.softmax(p), jax.nn.softmax(q)
        eye = jnp.eye(50, dtype=p.dtype)
        found |= {"js_of": simplex.js_of(eye), "js_of logits": categorical.js_of(jnp.log(eye))}
        return found | {"entropy": simplex.entropy(jnp.full_like(p, 2**-13)), "simplex": simplex.js(*laws)}

    narrow, wide = (_call(every, p, q, dtype=dtype) for dtype in DTYPES)
    errors = {name: ulps(narrow[name], mp.mpf(float(wide[name])), np.float32) for name in narrow}
    assert not {name: x for name, x in errors.items() if x > 16}


@pytest.mark.parametrize("n", [6, 50])
def test_js_of_laws_without_common_events_is_at_most_its_bound(n):
    for value in (simplex.js_of(jnp.eye(n)), categorical.js_of(jnp.log(jnp.eye(n)))):
        assert 0 <= np.float32(np.log(n)) - value <= 1e-6 * np.log(n)


# ---------------------------------------------------------------- counts


def test_counts_become_probabilities():
    counts = jnp.array([[3, 1, 0], [0, 0, 5]])
    np.testing.assert_allclose(simplex.from_counts(counts), [[0.75, 0.25, 0], [0, 0, 1]])
    np.testing.assert_allclose(simplex.from_counts(counts, pseudo_count=1.0)[1], [1 / 8, 1 / 8, 6 / 8])
    np.testing.assert_allclose(simplex.from_counts(counts, axis=(0, 1)), counts / 9)
    assert jnp.all(jnp.isnan(simplex.from_counts(jnp.zeros(3))))
    assert simplex.from_counts(counts).dtype == jnp.float32


@pytest.mark.parametrize(
    "counts", [jnp.full(2, 60000, jnp.float16), jnp.full(300, 300, jnp.float16), jnp.full(2, 3e38)], ids=str
)
def test_the_sum_of_counts_does_not_overflow(counts):
    equal = np.full(counts.size, 1 / counts.size)
    rtol = jnp.finfo(counts.dtype).eps
    for pseudo_count in (0.0, counts[0]):
        found = simplex.from_counts(counts, pseudo_count=pseudo_count)
        assert found.dtype == counts.dtype
        np.testing.assert_allclose(found, equal, rtol)
    found = simplex.dirichlet_smoothed(counts, jnp.asarray(equal, counts.dtype), strength=counts[0])
    np.testing.assert_allclose(found, equal, 2 * rtol)


def test_smoothing_shrinks_counts_towards_the_background():
    background = jnp.array([0.5, 0.25, 0.25])
    np.testing.assert_allclose(
        simplex.dirichlet_smoothed(jnp.array([8, 0, 0]), background, strength=8.0), [0.75, 0.125, 0.125]
    )
    np.testing.assert_allclose(simplex.dirichlet_smoothed(jnp.zeros(3), background, strength=2.0), background)


def test_python_numbers_are_computed_in_the_precision_they_are_returned_in():
    with x64(np.float64):
        value = bernoulli.kl(0.05, 0.1)
        assert value.dtype == np.float64
        assert value == bernoulli.kl(np.float64(0.05), np.float64(0.1))


@pytest.mark.parametrize("scale", [1, 100])
@pytest.mark.parametrize("family", [categorical, simplex], ids=["categorical", "simplex"])
def test_js_of_divides_weights_by_their_sum_and_leaves_out_a_law_of_weight_zero(family, scale):
    laws = jnp.array([[0.5, 0.5, 0], [0.2, 0.8, 0], [0.1, 0.1, 0.8]])
    ps = jnp.log(laws) if family is categorical else laws
    for weights, right in ([0.5, 0.5, 0.0], 0.050671839), ([0.1, 0.3, 0.6], 0.41812106):
        value, slope = jax.value_and_grad(lambda w: family.js_of(ps, weights=w))(scale * jnp.array(weights))
        np.testing.assert_allclose(value, right, 2e-7)
        assert np.isfinite(slope).all()
    huge = jnp.array([3e38, 3e38, 0])  # whose sum overflows
    np.testing.assert_allclose(family.js_of(ps, weights=huge), 0.050671839, 2e-7)


@pytest.mark.parametrize("family", [simplex, *with_all(categorical)], ids=["simplex", "categorical"])
def test_the_gradient_of_a_batch_of_chernoffs_is_that_of_each(family):
    rows = np.random.default_rng(0).dirichlet(np.ones(4), (2, 3)).astype(np.float32)
    together = jax.grad(lambda p: jnp.sum(jax.vmap(family.chernoff)(p, rows[1])))(rows[0])
    np.testing.assert_allclose(together, jax.vmap(jax.grad(family.chernoff))(*rows), 1e-5, 1e-6)


@pytest.mark.parametrize("alpha", [3.0, 10.0, 1e30])
def test_renyi_of_a_certain_event_is_minus_its_logarithm_at_any_order(alpha):
    for sign in (1, -1):
        value, slopes = jax.value_and_grad(bernoulli.renyi, (0, 1))(sign * jnp.inf, 0.0, alpha=alpha)
        assert abs(value - np.log(2)) < 1e-6
        np.testing.assert_allclose(slopes, (0, -sign / 2), 1e-6)


@pytest.mark.parametrize("family", [simplex, *with_all(categorical)], ids=lambda family: family.__name__)
def test_further_derivatives_are_numbers_beside_zeros(family):
    p, q = jnp.array([0, 0.45, 0.2, 0.02, 0.33]), jnp.array([0.07, 0.6, 0.23, 0.1, 0])
    if family is categorical:
        p, q = jnp.log(p), jnp.log(q)
    assert np.all(np.isfinite(jax.jit(jax.hessian(family.chernoff))(p, q)))
    for verb in (family.renyi, family.amari):
        along = jax.jvp(lambda alpha, verb=verb: verb(p, q, alpha=alpha), (0.4,), (-3.0,))[1]
        ahead = jax.jvp(lambda alpha, verb=verb: verb(p, q, alpha=alpha), (0.4,), (1.0,))[1]
        np.testing.assert_allclose(along, -3 * ahead, 1e-5)


OF_TWO = {
    **{name: getattr(simplex, name) for name in ("kl", "cross_entropy", "triangular", "jeffreys", "chi2", "chernoff")},
    **{name: getattr(simplex, name) for name in ("js", "squared_hellinger", "bhattacharyya")},
    "entropy": lambda p, q: simplex.entropy(p) + simplex.entropy(q),
    "features": lambda p, q: embedding.js_features(p, nodes=4)[3] + embedding.js_features(q, nodes=4)[-1],
    "amari": functools.partial(simplex.amari, alpha=0.3),
    "renyi": functools.partial(simplex.renyi, alpha=2.0),
    "skewed js": functools.partial(simplex.js, weight=0.2),
    "js of three": lambda p, q: simplex.js_of(jnp.stack([p, q, q[::-1]])),
    "mutual information": lambda p, q: simplex.mutual_information(jnp.outer(p, q) + jnp.diag(p * q)),
}
SHORT = "kl", "cross_entropy", "triangular", "entropy", "features"


@pytest.mark.parametrize("name", [*SHORT, *with_all(*(name for name in OF_TWO if name not in SHORT))])
def test_further_derivatives_at_a_likely_event_are_those_of_float64(name):
    p, q = np.float32([0.1, 0.15, 0.75]), np.float32([0.06, 0.04, 0.9])

    @jax.jit
    def derivatives(p, q):
        second = jax.hessian(OF_TWO[name], (0, 1))
        return jax.tree.leaves((second(p, q), jax.jacfwd(lambda q: second(p, q)[1][1])(q) if name in SHORT[:4] else 0))

    found = derivatives(p, q)
    with x64(np.float64):
        expected = derivatives(np.float64(p), np.float64(q))
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, 1e-4, 1e-5 * np.max(np.abs(y)))

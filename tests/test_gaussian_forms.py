"""What holds of one form or another of a normal law: independent components, roots, low rank, matrices."""

import decimal
import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from marks import with_all
from measure import digits, exact, normwise, ulps, worst, x64
from scipy import integrate, special
from test_gaussian import pair

from jaxdiv import gaussian
from jaxdiv._selfcheck import gaussian as definitions_of
from jaxdiv._selfcheck import table

SYMMETRIC = ["jeffreys", "js", "js_distance", "squared_hellinger", "hellinger_distance", "bhattacharyya", "chernoff"]
SYMMETRIC += ["geometric_js", "squared_wasserstein2", "wasserstein2_distance", "fisher_rao_distance"]
VERBS = ["kl", "chi2", "renyi", "amari", *SYMMETRIC]
DEFINED = [name for name in VERBS if name not in ("js", "js_distance", "chernoff")] + ["total_variation"]


def verb(name):
    function = getattr(gaussian, name)
    return functools.partial(function, alpha=definitions_of.ALPHA) if name in ("renyi", "amari") else function


def all_of(transform=lambda f: f, *options):
    """All verbs of two laws by name, each by a transformation, in one program."""
    names = [*VERBS, "total_variation"]
    return jax.jit(lambda p, q: {name: transform(verb(name), *options)(p, q) for name in names})


@functools.cache
def laws(dtype):
    """Pairs of scalars, far apart, near each other by 1e-1 to 1e-7, and at scale ratios to 1e15."""
    rng = np.random.default_rng(7)
    m, s = rng.normal(size=30), np.exp(rng.normal(size=30))
    n, r = rng.normal(size=30), np.exp(rng.normal(size=30))
    near = 10.0 ** -np.repeat([1, 2, 3, 5, 6, 7], 4)
    n[:24] = m[:24] + near * s[:24] * rng.normal(size=24)
    r[:24] = s[:24] * (1 + near * rng.normal(size=24))
    # Means that share an offset of 1e4, at differences that float32 still has.
    m[20:24] += 1e4
    n[20:24] = m[20:24] * (1 + 1e-6)
    far = np.array([1e3, 1e15, 1e-15])
    m, n = np.append(m, [0, 0, 0]), np.append(n, 0.5 * far)
    s, r = np.append(s, [1, 1, 1]), np.append(r, far)
    return tuple(np.asarray(x, dtype) for x in (m, s, n, r))


@functools.cache
def truths():
    return {dtype: [definitions(*x) for x in zip(*laws(dtype), strict=True)] for dtype in (np.float32, np.float64)}


def definitions(m, s, n, r):
    """By name: every divergence of two laws of one component that has a closed form, to the nearest float."""
    with decimal.localcontext(table.DIGITS):
        p, q = (definitions_of.moments(gaussian.Normal(*law)) for law in ((m, s), (n, r)))
        names = [name for name in DEFINED if p != q]
        return {name: float(definitions_of.FORMULAS[name](p, q)) for name in names}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", DEFINED)
def test_a_value_is_its_definition_to_a_few_ulps(name, dtype):
    m, s, n, r = laws(dtype)
    with x64(dtype):
        p, q = gaussian.Normal(m, s), gaussian.Normal(n, r)
        values = np.asarray(jax.vmap(verb(name))(p, q), np.float64)
    truth = np.array([x[name] for x in truths()[dtype]])
    kept = truth < np.finfo(dtype).max
    assert worst(values[kept], truth[kept], dtype) < 16
    assert np.all(values[~kept] == np.inf)


LAWS_OF_ALL_SIZES = np.array([
    *[(0.3, 1, 0.2, r) for r in (0.5, 0.99, 1, 1 + 1e-6, 1.5, 3, 1e3, 1e15, 1e30, 1e-3, 1e-15, 1e-30)],
    (0, 1e37, 0, 1e-37), (0, 1e-37, 0, 1e37), (0, 3e38, 1e38, 2e38), (0, 3e38, 0, 1e-37), (0, 1e-30, 1e-30, 2e-30),
    (0, 1, 1e18, 1), (1e4, 1, 1e4 + 1, 1.1), (0, 1, 0, 1e20), (1e6, 2, -1e6, 3),
])  # fmt: skip
ORDERS = np.array([1e-20, 1e-6, 1e-3, 0.375, 0.5, 0.7, 0.999, 1, 1.001, 1.5, 2, 10, 100])


@digits
def renyi_by_definition(m, s, n, r, order):
    """Value and gradient of two laws of one component, in mpmath numbers."""
    a, b, delta = s * s, r * r, m - n
    v = (1 - order) * a + order * b
    if v <= 0:
        return [mpmath.inf] * 5
    if order == 1:
        logs = a / b - 1 - mpmath.log(a / b)
    else:
        logs = (mpmath.log(v) - (1 - order) * mpmath.log(a) - order * mpmath.log(b)) / (order * (1 - order))
    square, gap = delta * delta / v, (a - b) / v
    in_log_p, in_log_q = gap - (1 - order) * a / v * square, -gap - order * b / v * square
    return [order * x for x in ((logs + square) / 2, delta / v, -delta / v, in_log_p, in_log_q)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", [gaussian.Normal, gaussian.NormalLogScale])
def test_renyi_of_all_orders_and_sizes_is_its_definition(form, dtype):
    m, s, n, r = LAWS_OF_ALL_SIZES.T
    logs = form is gaussian.NormalLogScale
    columns = [np.asarray(x, dtype) for x in ((m, np.log(s), n, np.log(r)) if logs else (m, s, n, r))]
    orders = ORDERS.astype(dtype)

    def one(order, *columns):
        f = functools.partial(gaussian.renyi, alpha=order)
        return jax.value_and_grad(f, (0, 1))(form(*columns[:2]), form(*columns[2:]))

    with x64(dtype):
        over_laws = jax.vmap(one, (None, 0, 0, 0, 0))
        value, (in_p, in_q) = jax.device_get(jax.jit(jax.vmap(over_laws, (0, *[None] * 4)))(orders, *columns))
    for i, j in np.ndindex(value.shape):
        m, s, n, r, order = exact([*(x[j] for x in columns), orders[i]])
        with mpmath.workdps(100):
            s, r = (mpmath.exp(s), mpmath.exp(r)) if logs else (s, r)
            truth, *slopes = renyi_by_definition(m, s, n, r, order)
            slopes[2:] = slopes[2:] if logs else [slopes[2] / s, slopes[3] / r]
        found = [float(x[i, j]) for pair in zip(in_p, in_q, strict=True) for x in pair]
        # A difference of logarithms has an error that grows with it, and at order 1 the value is its exponential.
        bound = 16 + 2 * abs(mpmath.log(s / r)) * (logs and order == 1)
        assert ulps(value[i, j], truth, dtype) <= bound, (form, order, j)
        if np.isinf(value[i, j]):
            assert not any(found), (form, order, j)
        else:
            # The slopes of the value over the order, which is what is computed, have to be finite.
            kept = [k for k in (0, 2) if max(map(abs, slopes[k : k + 2])) / order < float(np.finfo(dtype).max)]
            for k in kept:
                assert normwise(found[k : k + 2], slopes[k : k + 2], dtype) <= 16 + bound, (form, order, j, k)


def test_divergences_by_one_affinity_are_loops_that_store_nothing():
    """Nothing of the size of the laws but the summands, and one more number of each component for the slopes."""
    p, q = ([x * jnp.ones((512, 64)) for x in law] for law in ((0.0, 1.0), (1.0, 2.0)))
    for form in (gaussian.Normal, gaussian.NormalLogScale):
        for f in (gaussian.squared_hellinger, functools.partial(gaussian.renyi, alpha=0.3)):
            values = jax.vmap(f)
            slopes = jax.grad(lambda p, q: jnp.sum(values(p, q)), argnums=(0, 1))  # noqa: B023
            for function, numbers in ((values, 1.1), (slopes, 2.2)):
                memory = jax.jit(function).lower(form(*p), form(*q)).compile().memory_analysis()
                assert memory.temp_size_in_bytes <= numbers * p[0].nbytes, form


def js_by_quadrature(m, s, n, r, weight=0.5):
    """The definition in one dimension, in 20 digits: w E_p log p/m + (1 - w) E_q log q/m."""
    with mpmath.workdps(20):
        m, s, n, r = (mpmath.mpf(float(x)) for x in (m, s, n, r))

        def half(m, s, n, r, weight):
            def f(z):
                x = m + s * z
                log_ratio = -(((x - n) / r) ** 2) / 2 - mpmath.log(r) + z**2 / 2 + mpmath.log(s)
                return -mpmath.npdf(z) * mpmath.log(weight + (1 - weight) * mpmath.exp(log_ratio))

            return weight * mpmath.quad(f, [-12, -4, -1, 0, 1, 4, 12])

        return half(m, s, n, r, mpmath.mpf(weight)) + half(n, r, m, s, 1 - mpmath.mpf(weight))


@pytest.mark.parametrize("weight", [0.5, 0.9])
def test_js_is_the_integral_of_its_definition(weight):
    pairs = [(0.0, 1.0, 1.0, 2.0), (0.0, 1.0, 0.25, 1.125), (0.0, 1.0, 4.0, 0.5)]
    columns = [np.asarray(x, np.float64) for x in zip(*pairs, strict=True)]
    truth = [float(js_by_quadrature(*pair, weight)) for pair in pairs]
    with x64(np.float64):
        p, q = gaussian.Normal(*columns[:2]), gaussian.Normal(*columns[2:])
        js = functools.partial(gaussian.js, weight=weight)
        # The quadrature of the reference is good to 1e-14 of the entropies it is a difference of.
        np.testing.assert_allclose(jax.vmap(js)(p, q), truth, rtol=1e-12)


def test_js_is_that_of_two_dimensions_by_a_tensor_grid():
    x = np.linspace(-20, 20, 801)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), -1)

    def density(loc, scale):
        z = (grid - np.array(loc)) / np.array(scale)
        return np.exp(-0.5 * np.sum(z * z, -1)) / (2 * np.pi * np.prod(scale))

    p, q = density([0, 0], [1, 2]), density([1, -0.5], [0.7, 1.5])
    m = 0.5 * (p + q)
    truth = np.sum(special.rel_entr(p, m) + special.rel_entr(q, m)) * 0.5 * (x[1] - x[0]) ** 2
    with x64(np.float64):
        value = gaussian.js(
            gaussian.Normal(jnp.zeros(2), jnp.array([1.0, 2.0])),
            gaussian.Normal(jnp.array([1.0, -0.5]), jnp.array([0.7, 1.5])),
        )
    np.testing.assert_allclose(value, truth, rtol=1e-10)


def test_near_equality_js_is_an_eighth_of_the_fisher_distance_squared():
    s, size = np.exp(np.linspace(-2, 2, 5)), 1e-7
    with x64(np.float64):
        for m, n, r, truth in ((0 * s, size * s, s, 1 / 8), (0 * s, 0 * s, s * (1 + size), 2 / 8)):
            values = jax.vmap(gaussian.js)(gaussian.Normal(m, s), gaussian.Normal(n, r))
            np.testing.assert_allclose(values / size**2, truth, rtol=1e-6)


def test_chernoff_is_the_largest_renyi_coefficient():
    with x64(np.float64):
        p, q = (
            gaussian.Normal(jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0])),
            gaussian.Normal(jnp.ones(2), jnp.array([3.0, 0.5])),
        )
        s = jnp.linspace(0.001, 0.999, 4001)
        coefficients = (1 - s) * jax.vmap(lambda s: gaussian.renyi(p, q, alpha=s))(s)
        np.testing.assert_allclose(gaussian.chernoff(p, q), jnp.max(coefficients), rtol=1e-7)


@pytest.mark.parametrize("form", [gaussian.Normal, *with_all(gaussian.NormalLogScale)])
def test_equal_laws_are_exactly_0_with_gradient_0(form):
    p = form(jnp.asarray([0.3]), jnp.asarray([1.2]))

    for name, (value, slopes) in all_of(jax.value_and_grad, (0, 1))(p, p).items():
        assert value == 0, name
        assert all(jnp.all(x == 0) for x in jax.tree.leaves(slopes)), name


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric_divergences_are(name):
    p, q = gaussian.Normal(jnp.array([0.0, 2.0]), jnp.array([1.0, 0.3])), gaussian.Normal(jnp.array([0.5, 1.0]), 0.5)
    np.testing.assert_allclose(verb(name)(p, q), verb(name)(q, p), rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["kl", "js", *with_all("fisher_rao_distance", "renyi", "chernoff", "geometric_js", "jeffreys")]
)
def test_the_two_forms_agree_in_value_gradient_and_hessian(name):
    # In log-scales both times: one form through the chain rule, the other by its own formulas.
    with x64(np.float64):
        p = gaussian.NormalLogScale(jnp.array([0.0, 2.0]), jnp.array([0.1, -0.7]))
        q = gaussian.NormalLogScale(jnp.array([0.5, 1.0]), jnp.array([0.4, -0.9]))

        def by_scale(p, q):
            return verb(name)(*(gaussian.Normal(law.loc, jnp.exp(law.log_scale)) for law in (p, q)))

        def derivatives(f):
            return jax.jit(lambda p, q: (f(p, q), jax.grad(f, (0, 1))(p, q), jax.hessian(f)(p, q)))(p, q)

        ours, other = (jax.tree.leaves(derivatives(f)) for f in (verb(name), by_scale))
        for x, y in zip(ours, other, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-11)


@pytest.mark.parametrize(("name", "factor"), [("kl", 1), ("js", 4), ("bhattacharyya", 4), ("chi2", 0.5)])
def test_the_hessian_at_equality_is_the_fisher_information(name, factor):
    p = gaussian.NormalLogScale(jnp.array([0.3, -1.0]), jnp.array([0.2, -0.5]))
    hessian = jax.hessian(lambda q: factor * verb(name)(p, q))(p)
    np.testing.assert_allclose(hessian.loc.loc, np.diag(np.exp(-2 * np.asarray(p.log_scale))), rtol=1e-5)
    np.testing.assert_allclose(hessian.log_scale.log_scale, 2 * np.eye(2), atol=1e-5)
    np.testing.assert_allclose(hessian.loc.log_scale, 0, atol=1e-6)


def test_gradients_near_equality_are_to_a_few_ulps():
    rng = np.random.default_rng(2)
    m, s = rng.normal(size=24).astype(np.float32), np.exp(rng.normal(size=24)).astype(np.float32)
    near = 10.0 ** -np.repeat([1, 3, 5, 7], 6)
    n, r = (m + near * s).astype(np.float32), (s * (1 + near)).astype(np.float32)
    for function in (gaussian.kl, gaussian.js, gaussian.bhattacharyya):
        slope = jax.vmap(jax.grad(function, (0, 1)))
        ours = jax.tree.leaves(slope(gaussian.Normal(m, s), gaussian.Normal(n, r)))
        with x64(np.float64):
            exact = [np.asarray(x, np.float64) for x in (m, s, n, r)]
            truth = jax.tree.leaves(slope(gaussian.Normal(*exact[:2]), gaussian.Normal(*exact[2:])))
        assert all(worst(x, y, np.float32) < 16 for x, y in zip(ours, truth, strict=True))


def test_a_faulty_law_is_nan_in_its_pair_only():
    p = gaussian.Normal(jnp.array([0.0, jnp.nan, 0.0, 0.0]), jnp.array([1.0, 1.0, -1.0, 0.0]))
    found = all_of(jax.vmap, (0, None))(p, gaussian.Normal(1.0, 2.0))
    for name, values in found.items():
        # A scale of 0 is a point mass, which has a Wasserstein distance.
        assert np.array_equal(np.isnan(values), [False, True, True, "wasserstein2" not in name]), name


@pytest.mark.gate  # what is compiled in a hurry loses none
@pytest.mark.parametrize("name", VERBS)
def test_a_faulty_law_among_thousands_is_not_lost(name):
    # Beside so many sums XLA:CPU takes minima and maxima that lose NaN.
    loc, scale = np.zeros((5000, 3), np.float32), np.ones((5000, 3), np.float32)
    loc[1, 2], scale[3, 0] = np.nan, -1
    of_all = jax.jit(jax.vmap(verb(name), (0, None)))
    values = of_all(gaussian.Normal(loc, scale), gaussian.Normal(jnp.ones(3), jnp.full(3, 2.0)))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(values)), [1, 3])


def test_divergence_to_infinity_has_finite_gradients():
    p, q = gaussian.Normal(jnp.array([0.0, 1.0]), jnp.array([3.0, 1.0])), gaussian.Normal(jnp.zeros(2), 1.0)
    for function in (gaussian.chi2, functools.partial(gaussian.renyi, alpha=2.0)):
        value, slopes = jax.value_and_grad(function, (0, 1))(p, q)
        assert value == jnp.inf
        assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(slopes))


def test_orders_run_into_their_limits():
    p, q = (
        gaussian.Normal(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.5])),
        gaussian.Normal(jnp.zeros(2), jnp.array([1.5, 0.4])),
    )
    for alpha in (1.0, 1 + 1e-6, 1 - 1e-6):
        np.testing.assert_allclose(gaussian.renyi(p, q, alpha=alpha), gaussian.kl(p, q), rtol=1e-5)
        np.testing.assert_allclose(gaussian.amari(p, q, alpha=1 - alpha), gaussian.kl(q, p), rtol=1e-5)
    assert gaussian.renyi(p, q, alpha=0.0) == 0
    assert jnp.isnan(gaussian.renyi(p, q, alpha=-0.5))
    with x64(np.float64):
        slope = jax.grad(lambda alpha: gaussian.renyi(p, q, alpha=alpha))(1.0)
        step = gaussian.renyi(p, q, alpha=1 + 1e-4) - gaussian.renyi(p, q, alpha=1 - 1e-4)
    np.testing.assert_allclose(slope, step / 2e-4, rtol=1e-2)


@pytest.mark.parametrize("weight", [0.0, 1e-3, 0.3, 0.7, 1.0])
def test_weighted_js_is_within_its_bounds(weight):
    far = gaussian.js(gaussian.Normal(0.0, 1.0), gaussian.Normal(100.0, 1.0), weight=weight)
    np.testing.assert_allclose(far, special.entr(weight) + special.entr(1 - weight), rtol=2e-5, atol=1e-9)
    near = gaussian.js(gaussian.Normal(0.0, 1.0), gaussian.Normal(1e-4, 1.0), weight=weight)
    np.testing.assert_allclose(near, 0.5e-8 * weight * (1 - weight), rtol=1e-4)
    assert jnp.isnan(gaussian.js(gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 1.0), weight=weight - 1.5))


def test_independent_components_add():
    p, q = gaussian.Normal(jnp.array([0.0, 2.0]), jnp.array([1.0, 0.3])), gaussian.Normal(jnp.array([0.5, 1.0]), 0.5)
    for name in ("kl", "jeffreys", "bhattacharyya", "renyi", "squared_wasserstein2"):
        parts = jax.vmap(verb(name), (0, gaussian.Normal(0, None)))(p, q)
        np.testing.assert_allclose(verb(name)(p, q), jnp.sum(parts), rtol=1e-6)


def test_entropies_and_cross_entropies_are_expectations():
    p, q = gaussian.Normal(0.5, 2.0), gaussian.Normal(-0.3, 0.7)

    def expected(law):
        def f(x):
            density = np.exp(-0.5 * ((x - 0.5) / 2) ** 2) / (2 * np.sqrt(2 * np.pi))
            return density * (0.5 * ((x - law[0]) / law[1]) ** 2 + np.log(law[1] * np.sqrt(2 * np.pi)))

        return integrate.quad(f, -30, 30)[0]

    np.testing.assert_allclose(gaussian.entropy(p), expected((0.5, 2.0)), rtol=1e-6)
    np.testing.assert_allclose(gaussian.cross_entropy(p, q), expected((-0.3, 0.7)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, *with_all(jnp.float16)])
def test_half_precision_is_float32_rounded_once(dtype):
    p, q = gaussian.Normal(dtype(0.5), dtype(1.25)), gaussian.Normal(dtype(0.25), dtype(1.5))
    wide = [gaussian.Normal(*(x.astype(jnp.float32) for x in law)) for law in (p, q)]
    found, expected = all_of()(p, q), all_of()(*wide)
    for name, value in found.items():
        assert value == expected[name].astype(dtype), name
        assert value.dtype == dtype, name


def test_mixed_dtypes_are_promoted():
    assert gaussian.kl(gaussian.Normal(jnp.float16(0), jnp.float32(1)), gaussian.Normal(0.0, 1.0)).dtype == jnp.float32


# ---------------------------------------------------------------- roots, covariances, precisions


def test_diagonal_laws_agree_with_independent_components():
    rng = np.random.default_rng(3)
    m, n = rng.normal(size=(2, 3)).astype(np.float32)
    s, r = np.exp(rng.normal(size=(2, 3))).astype(np.float32)
    law = (
        gaussian.LowRankNormal(m, np.zeros((3, 0), np.float32), s * s),
        gaussian.LowRankNormal(n, np.zeros((3, 0), np.float32), r * r),
    )
    root = gaussian.MultivariateNormal(m, np.diag(s)), gaussian.MultivariateNormal(n, np.diag(r))
    for name in ("kl", "js", "squared_wasserstein2", "cross_entropy"):
        truth = getattr(gaussian, name)(gaussian.Normal(m, s), gaussian.Normal(n, r))
        for p, q in (law, root, (law[0], root[1])):
            np.testing.assert_allclose(verb(name)(p, q), truth, rtol=2e-5)


@pytest.mark.gate
def test_js_is_the_mean_of_its_definition_over_samples():
    p, q = pair(gaussian.MultivariateNormal, 0.7, d=8, seed=4, dtype=np.float64)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 200000, 8))
    x = np.concatenate([law.loc + y @ law.scale_tril.T for law, y in zip((p, q), z, strict=True)])

    def log_density(law):
        y = np.linalg.solve(law.scale_tril, (x - law.loc).T)
        return -0.5 * np.sum(y * y, 0) - np.sum(np.log(np.diagonal(law.scale_tril)))

    log_ratio = log_density(p) - log_density(q)
    # E_m of p/m log p/m and the like, by tanh of half the log-ratio: non-negative, of small variance.
    v = np.tanh(0.5 * log_ratio)
    terms = 0.5 * (special.xlog1py(1 + v, v) + special.xlog1py(1 - v, -v))
    error = np.std(terms) / np.sqrt(len(terms))
    assert abs(np.mean(terms) - gaussian.js(p, q)) < 5 * error


def test_no_gradient_above_the_diagonal():
    p, q = pair(gaussian.MultivariateNormal)
    full = [law._replace(scale_tril=law.scale_tril + np.triu(np.ones((3, 3), np.float32), 1)) for law in (p, q)]
    for name in ("kl", "js", "renyi", "squared_wasserstein2"):
        assert verb(name)(*full) == verb(name)(p, q)
        slopes = jax.grad(verb(name), (0, 1))(*full)
        assert all(jnp.all(jnp.triu(x.scale_tril, 1) == 0) for x in slopes)


BY_MATRIX = [gaussian.CovarianceNormal, *with_all(gaussian.MultivariateNormal, gaussian.PrecisionNormal)]


@pytest.mark.parametrize("form", BY_MATRIX, ids=lambda form: form.__name__)
def test_the_hessian_at_equality_is_the_fisher_information_of_matrices(form):
    p, _ = pair(form, d=2)
    c = np.array(definitions_of.moments(p)[1], float)
    with x64(np.float64):
        p = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), p)

        def of_covariance(x):
            if form is gaussian.CovarianceNormal:
                return x
            return x @ x.T if form is gaussian.MultivariateNormal else jnp.linalg.inv(x)

        direction = jnp.asarray([[0.3, 0.0], [-0.2, 0.5]])
        direction = direction if form is gaussian.MultivariateNormal else direction + direction.T
        change = jax.jvp(of_covariance, (p[1],), (direction,))[1]
        inner = np.linalg.solve(c, change)
        truth = 0.5 * np.trace(inner @ inner) + np.ones(2) @ np.linalg.solve(c, np.ones(2))

        for name, factor in (("kl", 1), ("js", 4), ("bhattacharyya", 4)):

            def along(t, name=name, factor=factor):
                return factor * verb(name)(p, type(p)(p.loc + t, p[1] + t * direction))

            np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(along)))(0.0), truth, rtol=1e-5)


def test_wasserstein_is_gelbrichs_formula_with_its_derivatives():
    p, q = pair(gaussian.MultivariateNormal, dtype=np.float64)
    with x64(np.float64):

        def formula(p, q):
            a, b = jnp.tril(p.scale_tril), jnp.tril(q.scale_tril)
            singular = jnp.linalg.svd(b.T @ a)[1]
            return jnp.sum((p.loc - q.loc) ** 2) + jnp.sum(a * a) + jnp.sum(b * b) - 2 * jnp.sum(singular)

        for near in (1, 0.02):
            close = jax.tree.map(lambda x, y, near=near: x + near * (y - x), p, q)
            for order in (lambda f: f, jax.grad, jax.hessian):
                for x, y in zip(
                    *(jax.tree.leaves(jax.jit(order(f))(p, close)) for f in (gaussian.squared_wasserstein2, formula)),
                    strict=True,
                ):
                    np.testing.assert_allclose(
                        np.tril(x) if x.ndim == 2 else x, np.tril(y) if y.ndim == 2 else y, atol=1e-7
                    )


def textbook(p, q):
    """KL of two laws by their means and covariances, far enough from each other, in float64."""
    (m, cp), (n, cq) = p, q
    inverse = np.linalg.inv(cq)
    log_det = np.linalg.slogdet(cp)[1] - np.linalg.slogdet(cq)[1]
    return 0.5 * (np.trace(inverse @ cp) - len(m) - log_det + (m - n) @ inverse @ (m - n))


@pytest.mark.parametrize("d", [16, 64])
def test_dimensions_beyond_the_unrolled_ones(d):
    verbs = (gaussian.kl, gaussian.js) if d == 16 else (gaussian.kl,)
    rng = np.random.default_rng(d)
    root = np.tril(rng.normal(size=(d, d)) / d, -1) + np.diag(np.exp(0.3 * rng.normal(size=d)))
    loc = rng.normal(size=d)
    for near in (0.1, 1e-5):
        p, q = (
            gaussian.MultivariateNormal(*(x.astype(np.float32) for x in law))
            for law in ((loc, root), (loc + near * rng.normal(size=d), root * (1 + near * rng.normal(size=root.shape))))
        )
        with x64(np.float64):
            wide = [jax.tree.map(lambda x: x.astype(np.float64), law) for law in (p, q)]
            truth = [verb(*wide) for verb in verbs]
        assert worst([verb(p, q) for verb in verbs], truth, np.float32) <= 16
        if near == 0.1:
            of_covariances = textbook(*((x.loc, x.scale_tril @ x.scale_tril.T) for x in wide))
            np.testing.assert_allclose(truth[0], of_covariances, rtol=1e-11)


def test_a_low_rank_law_is_that_of_its_covariance():
    d, r = 256, 3
    rng = np.random.default_rng(0)
    with x64(np.float64):
        p, q = (
            gaussian.LowRankNormal(rng.normal(size=d), rng.normal(size=(d, r)), np.exp(rng.normal(size=d)))
            for _ in "pq"
        )
        covariances = ((x.loc, x.factor @ x.factor.T + np.diag(x.diag)) for x in (p, q))
        truth = textbook(*covariances)
        np.testing.assert_allclose(gaussian.kl(p, q), truth, rtol=1e-11)


@digits
def low_rank_kl(p, q):
    """KL(p, q) and its slopes in the factors and diagonals, from dense matrices in mpmath numbers."""
    (m, a, _, s), (n, b, _, t) = (
        (x, y, z, y * y.T + mpmath.diag(list(z))) for x, y, z in (map(mpmath.matrix, map(exact, x)) for x in (p, q))
    )
    (precision_p, precision_q), d, loc = (s**-1, t**-1), len(m), m - n
    by_q = precision_q * (s - t) * precision_q + precision_q * loc * loc.T * precision_q
    trace = sum((precision_q * s)[i, i] - 1 for i in range(d)) - mpmath.log(mpmath.det(precision_q * s))
    value = (trace + (loc.T * precision_q * loc)[0]) / 2
    of_diagonals = [[x[i, i] / 2 for i in range(d)] for x in (precision_q - precision_p, -by_q)]
    return value, [list((precision_q - precision_p) * a), of_diagonals[0], list(-by_q * b), of_diagonals[1]]


@pytest.mark.parametrize("near", [0, 1e-3, 1])
def test_a_factor_much_larger_than_the_diagonal_keeps_the_digits(near):
    # The inverse covariance times the factor is smaller than its two terms, 1 / diag times the factor, by up to 10^13.
    slopes = jax.jit(jax.value_and_grad(gaussian.kl, (0, 1)))
    for seed, (large, small) in enumerate([(1, 1), (1e2, 1e-2), (1e4, 1e-5)]):
        rng = np.random.default_rng(seed)
        loc, factor, diag = rng.normal(size=5), large * rng.normal(size=(5, 2)), small * np.exp(rng.normal(size=5))
        change = rng.normal(size=(5, 2))
        other = loc + rng.normal(size=5), factor * (1 + near * change), diag * (1.2 + 0.3 * change[:, 0] ** 2)
        p, q = (gaussian.LowRankNormal(*map(np.float32, x)) for x in ((loc, factor, diag), other))
        value, ((_, *of_p), (_, *of_q)) = slopes(p, q)
        truth, true_slopes = low_rank_kl(p, q)
        assert ulps(value, truth, np.float32) <= 32
        for x, y in zip([*of_p, *of_q], true_slopes, strict=True):
            assert normwise(np.ravel(x), y, np.float32) <= 64


def test_a_large_low_rank_pair_needs_no_square_array():
    d, r = 256, 8
    p, q = pair(gaussian.LowRankNormal, 1e-3, d=d)
    p, q = (law._replace(factor=np.tile(law.factor, (1, r // 2))) for law in (p, q))
    text = jax.jit(jax.value_and_grad(gaussian.kl)).lower(p, q).compile().as_text()
    assert f"[{d},{d}]" not in text


# ---------------------------------------------------------------- matrices


N, M = 3, 2


def matrices(near, dtype):
    """Two laws whose entries differ by about `near`."""
    rng = np.random.default_rng(0)
    roots = [np.tril(0.3 * rng.normal(size=(d, d)), -1) + np.diag(np.exp(0.3 * rng.normal(size=d))) for d in (N, M)]
    p = gaussian.MatrixNormal(rng.normal(size=(N, M)), *roots)
    q = [x * (1 + near * rng.normal(size=x.shape)) for x in p]
    return tuple(jax.tree.map(lambda x: x.astype(dtype), law) for law in (p, gaussian.MatrixNormal(*q)))


def kl_of_vectors(p, q):
    return gaussian.kl(*(gaussian.MultivariateNormal(x.loc.ravel(), jnp.kron(*x[1:])) for x in (p, q)))


@pytest.mark.parametrize("near", [0.1, 1e-2, 1e-4, 1e-6])
def test_a_law_of_matrices_is_that_of_their_entries_in_value_and_gradient(near):
    p, q = matrices(near, np.float32)
    value, slopes = jax.value_and_grad(gaussian.kl, (0, 1))(p, q)
    with x64(np.float64):
        wide = jax.tree.map(lambda x: x.astype(np.float64), (p, q))
        truth, true_slopes = jax.value_and_grad(kl_of_vectors, (0, 1))(*wide)
    assert worst([value], [truth], np.float32) <= 16
    for x, y in zip(jax.tree.leaves(slopes), jax.tree.leaves(true_slopes), strict=True):
        assert normwise(np.ravel(x), np.tril(y).ravel() if y.shape[0] == y.shape[1] else np.ravel(y), np.float32) <= 16


def test_of_a_law_of_matrices_and_itself_it_is_exactly_0_with_gradient_0():
    p, _ = matrices(0.1, np.float32)
    value, slopes = jax.value_and_grad(gaussian.kl, (0, 1))(p, p)
    assert value == 0
    assert not any(np.any(x) for x in jax.tree.leaves(slopes))


def test_a_scale_may_move_from_rows_to_columns():
    p, q = matrices(1e-3, np.float32)
    moved = p._replace(row_tril=p.row_tril * 1024, column_tril=p.column_tril / 1024)
    assert gaussian.kl(p, q) > 0
    assert gaussian.kl(moved, p) < 1e-10
    # A rounding of an entry is 6e-5 of the difference of two.
    np.testing.assert_allclose(gaussian.kl(moved, q), gaussian.kl(p, q), 3e-5)


def test_a_faulty_law_of_matrices_is_nan():
    p, q = matrices(0.1, np.float32)
    assert jnp.isnan(gaussian.kl(p._replace(row_tril=-p.row_tril), q))
    assert jnp.isnan(gaussian.kl(p, q._replace(loc=q.loc * np.float32(np.nan))))

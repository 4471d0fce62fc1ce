import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from measure import worst, x64
from scipy import integrate, special

from jaxdiv import normal

SYMMETRIC = ["jeffreys", "js", "js_distance", "squared_hellinger", "hellinger_distance", "bhattacharyya", "chernoff"]
SYMMETRIC += ["geometric_js", "squared_wasserstein2", "wasserstein2_distance", "fisher_rao_distance"]
VERBS = ["kl", "chi2", "renyi", "amari", *SYMMETRIC]


def verb(name):
    function = getattr(normal, name)
    return functools.partial(function, alpha=0.3) if name in ("renyi", "amari") else function


def definitions(m, s, n, r):
    """Every divergence of two univariate laws in 40 digits: closed forms, and the integral of the definition for js."""
    with mpmath.workdps(40):
        m, s, n, r = (mpmath.mpf(float(x)) for x in (m, s, n, r))
        v, w, d = s**2, r**2, (m - n) ** 2

        def log_c(a):
            mixed = (1 - a) * v + a * w
            return (1 - a) * mpmath.log(s) + a * mpmath.log(r) - mpmath.log(mixed) / 2 - a * (1 - a) * d / mixed / 2

        def kl(v, w):
            return (v / w - 1 - mpmath.log(v / w) + d / w) / 2

        a = mpmath.mpf(0.3)  # the float, exactly
        b = -log_c(mpmath.mpf(1) / 2)
        w2, jeffreys = d + (s - r) ** 2, kl(v, w) + kl(w, v)
        fisher_rao = 2 * mpmath.sqrt(2) * mpmath.asinh(mpmath.sqrt((d / 2 + (s - r) ** 2) / (4 * s * r)))
        return {
            "kl": kl(v, w),
            "chi2": mpmath.expm1(log_c(2)) if 2 * w > v else mpmath.inf,
            "renyi": log_c(a) / (a - 1),
            "amari": -mpmath.expm1(log_c(a)) / (a * (1 - a)),
            "jeffreys": jeffreys,
            "squared_hellinger": -mpmath.expm1(-b),
            "hellinger_distance": mpmath.sqrt(-mpmath.expm1(-b)),
            "bhattacharyya": b,
            "geometric_js": jeffreys / 4 - b,
            "squared_wasserstein2": w2,
            "wasserstein2_distance": mpmath.sqrt(w2),
            "fisher_rao_distance": fisher_rao,
        }


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name in VERBS if name not in ("js", "js_distance", "chernoff")])
def test_a_value_is_its_definition_to_a_few_ulps(name, dtype):
    m, s, n, r = laws(dtype)
    with x64(dtype):
        p, q = normal.Normal(m, s), normal.Normal(n, r)
        values = np.asarray(jax.vmap(verb(name))(p, q), np.float64)
    truth = np.array([float(x[name]) for x in truths()[dtype]])
    kept = truth < np.finfo(dtype).max
    assert worst(values[kept], truth[kept], dtype) < 16
    assert np.all(values[~kept] == np.inf)


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
        p, q = normal.Normal(*columns[:2]), normal.Normal(*columns[2:])
        js = functools.partial(normal.js, weight=weight)
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
        value = normal.js(
            normal.Normal(jnp.zeros(2), jnp.array([1.0, 2.0])),
            normal.Normal(jnp.array([1.0, -0.5]), jnp.array([0.7, 1.5])),
        )
    np.testing.assert_allclose(value, truth, rtol=1e-10)


def test_near_equality_js_is_an_eighth_of_the_fisher_distance_squared():
    s, size = np.exp(np.linspace(-2, 2, 5)), 1e-7
    with x64(np.float64):
        for m, n, r, truth in ((0 * s, size * s, s, 1 / 8), (0 * s, 0 * s, s * (1 + size), 2 / 8)):
            values = jax.vmap(normal.js)(normal.Normal(m, s), normal.Normal(n, r))
            np.testing.assert_allclose(values / size**2, truth, rtol=1e-6)


def test_chernoff_is_the_largest_renyi_coefficient():
    with x64(np.float64):
        p, q = (
            normal.Normal(jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0])),
            normal.Normal(jnp.ones(2), jnp.array([3.0, 0.5])),
        )
        s = jnp.linspace(0.001, 0.999, 4001)
        coefficients = (1 - s) * jax.vmap(lambda s: normal.renyi(p, q, alpha=s))(s)
        np.testing.assert_allclose(normal.chernoff(p, q), jnp.max(coefficients), rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_total_variation_is_half_of_the_integral(dtype):
    m, s, n, r = laws(dtype)
    with x64(dtype):
        values = np.asarray(jax.vmap(normal.total_variation)(normal.Normal(m, s), normal.Normal(n, r)), np.float64)

    def truth(m, s, n, r):
        with mpmath.workdps(50):
            m, s, n, r = (mpmath.mpf(float(x)) for x in (m, s, n, r))
            if s == r:
                return float(mpmath.erf(abs(m - n) / s / mpmath.sqrt(8)))
            # Where the densities cross, as roots of a quadratic, and the masses between.
            a, b = 1 / r**2 - 1 / s**2, m / s**2 - n / r**2
            c = n**2 / r**2 - m**2 / s**2 + 2 * mpmath.log(r / s)
            root = mpmath.sqrt(b * b - a * c)
            ends = sorted([(-b - root) / a, (-b + root) / a])
            masses = [mpmath.ncdf(x, m, s) - mpmath.ncdf(x, n, r) for x in ends]
            return float(abs(masses[1] - masses[0]))

    assert worst(values, [truth(*x) for x in zip(m, s, n, r, strict=True)], dtype) < 16


@pytest.mark.parametrize("form", [normal.Normal, normal.NormalLogScale])
def test_equal_laws_are_exactly_0_with_gradient_0(form):
    p = form(jnp.asarray([0.3]), jnp.asarray([1.2]))

    @jax.jit
    def of(p, q):
        return {name: jax.value_and_grad(verb(name), (0, 1))(p, q) for name in [*VERBS, "total_variation"]}

    for name, (value, slopes) in of(p, p).items():
        assert value == 0, name
        assert all(jnp.all(x == 0) for x in jax.tree.leaves(slopes)), name


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric_divergences_are(name):
    p, q = normal.Normal(jnp.array([0.0, 2.0]), jnp.array([1.0, 0.3])), normal.Normal(jnp.array([0.5, 1.0]), 0.5)
    np.testing.assert_allclose(verb(name)(p, q), verb(name)(q, p), rtol=1e-6)


@pytest.mark.parametrize("name", ["kl", "js", "renyi", "chernoff", "geometric_js", "jeffreys", "fisher_rao_distance"])
def test_the_two_forms_agree_in_value_gradient_and_hessian(name):
    # In log-scales both times: one form through the chain rule, the other by its own formulas.
    with x64(np.float64):
        p = normal.NormalLogScale(jnp.array([0.0, 2.0]), jnp.array([0.1, -0.7]))
        q = normal.NormalLogScale(jnp.array([0.5, 1.0]), jnp.array([0.4, -0.9]))

        def by_scale(p, q):
            return verb(name)(*(normal.Normal(law.loc, jnp.exp(law.log_scale)) for law in (p, q)))

        def derivatives(f):
            return jax.jit(lambda p, q: (f(p, q), jax.grad(f, (0, 1))(p, q), jax.hessian(f)(p, q)))(p, q)

        ours, other = (jax.tree.leaves(derivatives(f)) for f in (verb(name), by_scale))
        for x, y in zip(ours, other, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-11)


@pytest.mark.parametrize(("name", "factor"), [("kl", 1), ("js", 4), ("bhattacharyya", 4), ("chi2", 0.5)])
def test_the_hessian_at_equality_is_the_fisher_information(name, factor):
    p = normal.NormalLogScale(jnp.array([0.3, -1.0]), jnp.array([0.2, -0.5]))
    hessian = jax.hessian(lambda q: factor * verb(name)(p, q))(p)
    np.testing.assert_allclose(hessian.loc.loc, np.diag(np.exp(-2 * np.asarray(p.log_scale))), rtol=1e-5)
    np.testing.assert_allclose(hessian.log_scale.log_scale, 2 * np.eye(2), atol=1e-5)
    np.testing.assert_allclose(hessian.loc.log_scale, 0, atol=1e-6)


def test_gradients_near_equality_are_to_a_few_ulps():
    rng = np.random.default_rng(2)
    m, s = rng.normal(size=24).astype(np.float32), np.exp(rng.normal(size=24)).astype(np.float32)
    near = 10.0 ** -np.repeat([1, 3, 5, 7], 6)
    n, r = (m + near * s).astype(np.float32), (s * (1 + near)).astype(np.float32)
    for function in (normal.kl, normal.js, normal.bhattacharyya):
        slope = jax.vmap(jax.grad(function, (0, 1)))
        ours = jax.tree.leaves(slope(normal.Normal(m, s), normal.Normal(n, r)))
        with x64(np.float64):
            exact = [np.asarray(x, np.float64) for x in (m, s, n, r)]
            truth = jax.tree.leaves(slope(normal.Normal(*exact[:2]), normal.Normal(*exact[2:])))
        assert all(worst(x, y, np.float32) < 16 for x, y in zip(ours, truth, strict=True))


def test_a_faulty_law_is_nan_in_its_pair_only():
    p = normal.Normal(jnp.array([0.0, jnp.nan, 0.0, 0.0]), jnp.array([1.0, 1.0, -1.0, 0.0]))
    for name in [*VERBS, "total_variation"]:
        values = jax.vmap(verb(name), (0, None))(p, normal.Normal(1.0, 2.0))
        assert np.array_equal(np.isnan(values), [False, True, True, True]), name


@pytest.mark.parametrize("name", VERBS)
def test_a_faulty_law_among_thousands_is_not_lost(name):
    # Beside so many sums XLA:CPU takes minima and maxima that lose NaN.
    loc, scale = np.zeros((5000, 3), np.float32), np.ones((5000, 3), np.float32)
    loc[1, 2], scale[3, 0] = np.nan, -1
    of_all = jax.jit(jax.vmap(verb(name), (0, None)))
    values = of_all(normal.Normal(loc, scale), normal.Normal(jnp.ones(3), jnp.full(3, 2.0)))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(values)), [1, 3])


def test_divergence_to_infinity_has_finite_gradients():
    p, q = normal.Normal(jnp.array([0.0, 1.0]), jnp.array([3.0, 1.0])), normal.Normal(jnp.zeros(2), 1.0)
    for function in (normal.chi2, functools.partial(normal.renyi, alpha=2.0)):
        value, slopes = jax.value_and_grad(function, (0, 1))(p, q)
        assert value == jnp.inf
        assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(slopes))


def test_orders_run_into_their_limits():
    p, q = (
        normal.Normal(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.5])),
        normal.Normal(jnp.zeros(2), jnp.array([1.5, 0.4])),
    )
    for alpha in (1.0, 1 + 1e-6, 1 - 1e-6):
        np.testing.assert_allclose(normal.renyi(p, q, alpha=alpha), normal.kl(p, q), rtol=1e-5)
        np.testing.assert_allclose(normal.amari(p, q, alpha=1 - alpha), normal.kl(q, p), rtol=1e-5)
    assert normal.renyi(p, q, alpha=0.0) == 0
    assert jnp.isnan(normal.renyi(p, q, alpha=-0.5))
    with x64(np.float64):
        slope = jax.grad(lambda alpha: normal.renyi(p, q, alpha=alpha))(1.0)
        step = normal.renyi(p, q, alpha=1 + 1e-4) - normal.renyi(p, q, alpha=1 - 1e-4)
    np.testing.assert_allclose(slope, step / 2e-4, rtol=1e-2)


@pytest.mark.parametrize("weight", [0.0, 1e-3, 0.3, 0.7, 1.0])
def test_weighted_js_is_within_its_bounds(weight):
    far = normal.js(normal.Normal(0.0, 1.0), normal.Normal(100.0, 1.0), weight=weight)
    np.testing.assert_allclose(far, special.entr(weight) + special.entr(1 - weight), rtol=2e-5, atol=1e-9)
    near = normal.js(normal.Normal(0.0, 1.0), normal.Normal(1e-4, 1.0), weight=weight)
    np.testing.assert_allclose(near, 0.5e-8 * weight * (1 - weight), rtol=1e-4)
    assert jnp.isnan(normal.js(normal.Normal(0.0, 1.0), normal.Normal(1.0, 1.0), weight=weight - 1.5))


def test_independent_components_add():
    p, q = normal.Normal(jnp.array([0.0, 2.0]), jnp.array([1.0, 0.3])), normal.Normal(jnp.array([0.5, 1.0]), 0.5)
    for name in ("kl", "jeffreys", "bhattacharyya", "renyi", "squared_wasserstein2"):
        parts = jax.vmap(verb(name), (0, normal.Normal(0, None)))(p, q)
        np.testing.assert_allclose(verb(name)(p, q), jnp.sum(parts), rtol=1e-6)


def test_entropies_and_cross_entropies_are_expectations():
    p, q = normal.Normal(0.5, 2.0), normal.Normal(-0.3, 0.7)

    def expected(law):
        def f(x):
            density = np.exp(-0.5 * ((x - 0.5) / 2) ** 2) / (2 * np.sqrt(2 * np.pi))
            return density * (0.5 * ((x - law[0]) / law[1]) ** 2 + np.log(law[1] * np.sqrt(2 * np.pi)))

        return integrate.quad(f, -30, 30)[0]

    np.testing.assert_allclose(normal.entropy(p), expected((0.5, 2.0)), rtol=1e-6)
    np.testing.assert_allclose(normal.cross_entropy(p, q), expected((-0.3, 0.7)), rtol=1e-6)


def test_the_standard_law_has_the_form_of_its_argument():
    p = normal.NormalLogScale(jnp.array([1e-4]), jnp.array([1e-4]))
    np.testing.assert_allclose(normal.kl(p, normal.standard(p)), 0.5e-8 + 1e-8, rtol=2e-4)
    assert isinstance(normal.standard(jnp.zeros(3)), normal.Normal)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_float32_rounded_once(dtype):
    p, q = normal.Normal(dtype(0.5), dtype(1.25)), normal.Normal(dtype(0.25), dtype(1.5))
    wide = [normal.Normal(*(x.astype(jnp.float32) for x in law)) for law in (p, q)]
    for name in VERBS:
        assert verb(name)(p, q) == verb(name)(*wide).astype(dtype)
        assert verb(name)(p, q).dtype == dtype


def test_mixed_dtypes_are_promoted():
    assert normal.kl(normal.Normal(jnp.float16(0), jnp.float32(1)), normal.Normal(0.0, 1.0)).dtype == jnp.float32


def test_errors_name_what_came():
    p = normal.Normal(jnp.zeros((4, 3)), 1.0)
    with pytest.raises(ValueError, match=r"p.loc\[4, 3\].*jax.vmap\(normal.kl\)"):
        normal.kl(p, p)
    with pytest.raises(ValueError, match=r"equal length.*p.loc\[3\].*q.loc\[2\]"):
        normal.js(normal.Normal(jnp.zeros(3), 1.0), normal.Normal(jnp.zeros(2), 1.0))
    with pytest.raises(ValueError, match="at least one component"):
        normal.kl(normal.Normal(jnp.zeros(0), 1.0), normal.Normal(jnp.zeros(0), 1.0))
    with pytest.raises(TypeError, match=r"Normal, NormalLogScale; got p of type tuple"):
        normal.kl((0.0, 1.0), normal.Normal(0.0, 1.0))
    with pytest.raises(TypeError, match=r"p\.loc int32"):
        normal.kl(normal.Normal(jnp.zeros(2, int), 1.0), normal.Normal(jnp.zeros(2), 1.0))
    with pytest.raises(ValueError, match="one component; got d = 2"):
        normal.total_variation(normal.Normal(jnp.zeros(2), 1.0), normal.Normal(jnp.zeros(2), 1.0))


def test_check_names_the_laws():
    normal.check(normal.Normal(jnp.zeros((2, 3)), 1.0))
    with pytest.raises(ValueError, match="not positive in 1 of 2 rows: 1"):
        normal.check(normal.Normal(jnp.zeros((2, 3)), jnp.array([[1.0] * 3, [1, 0, 1]])))
    with pytest.raises(ValueError, match=r"nan in 1 of 1 rows"):
        normal.check(normal.NormalLogScale(jnp.nan, 0.0))

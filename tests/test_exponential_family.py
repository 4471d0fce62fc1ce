import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import with_all
from measure import DTYPES, digits, exact, ulps, x64

from jaxdiv import categorical, exponential_family, gaussian

VERBS = ["kl", "jeffreys", "js", "js_distance", "squared_hellinger", "hellinger_distance", "bhattacharyya", "chernoff"]
VERBS += ["chi2", "renyi", "amari"]
OF_ANOTHER = ("js_distance", "squared_hellinger", "hellinger_distance", "chi2", "amari")  # functions of another verb
SYMMETRIC = [name for name in VERBS if name not in ("kl", "chi2", "renyi", "amari")]


def exponential(eta):
    """The exponential family by its negative rate."""
    return -jnp.log(-eta)


def normal(eta):
    """Normal laws by the mean and minus one half, over the variance."""
    return -(eta[0] ** 2) / (4 * eta[1]) - 0.5 * jnp.log(-2 * eta[1])


def natural(loc, scale):
    return loc / scale**2, -0.5 / scale**2


def log_gamma(z):
    """Stirling's series after ten steps of the recurrence; analytic, so that it serves complex arguments."""
    steps = jnp.sum(jnp.log(z + jnp.arange(10).astype(z.dtype)))
    w = z + 10
    rest = 1 / (12 * w) - 1 / (360 * w**3) + 1 / (1260 * w**5) - 1 / (1680 * w**7) + 1 / (1188 * w**9)
    return (w - 0.5) * jnp.log(w) - w + 0.9189385332046727 + rest - steps


def gamma(eta):
    """Gamma laws by shape and negative rate."""
    return log_gamma(eta[0]) - eta[0] * jnp.log(-eta[1])


def poisson_and_exponential(eta):
    return jnp.exp(eta["first"]) + exponential(eta["second"])


def verb(name, log_normalizer):
    function = functools.partial(getattr(exponential_family, name), log_normalizer)
    return functools.partial(function, alpha=0.3) if name in ("renyi", "amari") else function


# ---------------------------------------------------------------- values


FAMILIES = {
    "poisson": (jnp.exp, mp.exp, mp.exp),
    "exponential": (exponential, lambda x: -mp.log(-x), lambda x: -1 / x),
}


@functools.cache
def parameters(family, dtype):
    """Pairs far from and near each other, by differences of 1 to 1e-7."""
    rng = np.random.default_rng(3)
    size = 10.0 ** -np.repeat(np.arange(8), 8)
    first, change = rng.normal(size=64), rng.normal(size=64) * size
    first, change = np.append(first, [0.0, 0.0, 0.0]), np.append(change, [5.0, -8.0, 11.0])
    pair = (first, first + change) if family == "poisson" else (-np.exp(first), -np.exp(first + change))
    return tuple(x.astype(dtype) for x in pair)


@digits
def definition(name, f, slope, a, b, alpha):
    a, b, alpha = exact(a), exact(b), exact(alpha)

    def distance(s):
        point = s * a + (1 - s) * b
        if f is not mp.exp and point >= 0:
            return -mp.inf
        return s * f(a) + (1 - s) * f(b) - f(point)

    half = mp.mpf(1) / 2
    return {
        "kl": lambda: f(b) - f(a) - (b - a) * slope(a),
        "jeffreys": lambda: (a - b) * (slope(a) - slope(b)),
        "bhattacharyya": lambda: distance(half),
        "squared_hellinger": lambda: -mp.expm1(-distance(half)),
        "chi2": lambda: mp.expm1(-distance(mp.mpf(2))),
        "renyi": lambda: distance(alpha) / (1 - alpha),
    }[name]()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "alpha"),
    [(name, None) for name in ("kl", "jeffreys", "squared_hellinger", "chi2")]
    + [("renyi", alpha) for alpha in (0.3, 0.999, 3.0)],
)
def test_a_value_is_its_definition_to_a_few_ulps(family, dtype, name, alpha):
    log_normalizer, f, slope = FAMILIES[family]
    a, b = parameters(family, dtype)
    with x64(dtype):
        options = {} if alpha is None else {"alpha": dtype(alpha)}
        function = functools.partial(getattr(exponential_family, name), log_normalizer, **options)
        values = np.asarray(jax.vmap(function)(a, b))
    truths = [definition(name, f, slope, x, y, 0 if alpha is None else dtype(alpha)) for x, y in zip(a, b, strict=True)]
    # A natural parameter, rounded, is a log-rate: errors grow with it, and those of chi2 with its own logarithm.
    bound = 8 if dtype == np.float32 else 24
    for value, truth, x, y in zip(values, truths, a, b, strict=True):
        growth = 1 + (float(mp.log1p(truth)) if name == "chi2" and mp.isfinite(truth) else 0)
        growth = max(growth, abs(x), abs(y)) if family == "poisson" else growth
        assert ulps(value, truth, dtype) < bound * growth


@digits
def poisson_js(a, b):
    a, b = mp.exp(exact(a)), mp.exp(exact(b))
    total = mp.mpf(0)
    for n in range(int(max(a, b)) * 4 + 80):
        p, q = mp.exp(n * mp.log(a) - a) / mp.factorial(n), mp.exp(n * mp.log(b) - b) / mp.factorial(n)
        m = (p + q) / 2
        total += (p * mp.log(p / m) + q * mp.log(q / m)) / 2
    return total


def exponential_js(a, b):
    with mp.workdps(30):
        a, b = -exact(a), -exact(b)

        def f(x):
            p, q = a * mp.exp(-a * x), b * mp.exp(-b * x)
            m = (p + q) / 2
            return (p * mp.log(p / m) + q * mp.log(q / m)) / 2

        scale = 1 / min(a, b)
        return mp.quad(f, [scale * x for x in (0, 0.01, 0.1, 1, 3, 10, 30, 90)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["poisson", "exponential"])
def test_js_is_its_definition_to_a_few_ulps(family, dtype):
    truth = {"poisson": poisson_js, "exponential": exponential_js}[family]
    first = np.array([0.3, 1.5, 0.3, 1.5, 0.3, 2.0])
    second = first + np.array([1, -2, 1e-1, 1e-3, 1e-5, 1e-6])
    a, b = (x.astype(dtype) for x in ((first, second) if family == "poisson" else (-np.exp(first), -np.exp(second))))
    with x64(dtype):
        values = np.asarray(jax.vmap(verb("js", FAMILIES[family][0]))(a, b))
    # The quadrature of the exponential laws is a reference to 1e-13 of JS, which for 1e-6 is a loss of 12 digits of 30.
    for value, x, y in zip(values, a, b, strict=True):
        assert ulps(value, truth(x, y), dtype) < 32


def test_gamma_laws_of_two_parameters():
    def densities(p, q, x):
        return [mp.exp(s * mp.log(r) + (s - 1) * mp.log(x) - r * x - mp.loggamma(s)) for s, r in (p, q)]

    with mp.workdps(20):
        p, q = (mp.mpf(2), mp.mpf(1)), (mp.mpf(3.5), mp.mpf(1.5))
        ends = [0, 0.1, 0.5, 1, 2, 4, 8, 16, 32, 64]

        def js(x):
            a, b = densities(p, q, x)
            m = (a + b) / 2
            return (a * mp.log(a / m) + b * mp.log(b / m)) / 2

        def kl(x):
            a, b = densities(p, q, x)
            return a * mp.log(a / b)

        truths = {"js": mp.quad(js, ends), "kl": mp.quad(kl, ends)}
    with x64(np.float64):
        laws = [(jnp.asarray(s, float), jnp.asarray(-r, float)) for s, r in ((2.0, 1.0), (3.5, 1.5))]
        for name, truth in truths.items():
            np.testing.assert_allclose(getattr(exponential_family, name)(gamma, *laws), float(truth), rtol=1e-11)


# ---------------------------------------------------------------- families that have a module


@functools.cache
def gaussian_derivatives(name):
    """A verb by the natural parameters and by its own module: the value and two derivatives along a direction."""

    def both(x):
        p, q = gaussian.Normal(x[0], x[1]), gaussian.Normal(x[2], x[3])
        other = functools.partial(getattr(gaussian, name), p, q)
        other = functools.partial(other, alpha=0.3) if name in ("renyi", "amari") else other
        return jnp.stack([verb(name, normal)(natural(*p), natural(*q)), other()])

    def along(f, direction):
        return lambda x: jax.jvp(f, (x,), (direction,))[1]

    def orders(x, direction):
        first = along(both, direction)
        return both(x), first(x), along(first, direction)(x)

    return jax.jit(orders)


@pytest.mark.parametrize("name", ["kl", "js", *with_all("chernoff")])
def test_gaussians_are_those_of_their_module_in_value_gradient_and_hessian(name):
    # Near equality the relative error through F itself would be 1e-16 / 1e-12, where that of rounded laws is 1e-10.
    points = (1, [0.0, 1.0, 1.0, 1.2]), (1, [0.3, 1.0, -2.0, 1.3]), (1e-6, [0.5, 1.0, 0.5 + 1e-6, 1.0 + 1e-6])
    with x64(np.float64):
        for size, point in points:
            for direction in (*np.eye(4), [1.0, 1.0, -1.0, 0.5], [0.3, -1.0, 1.0, 2.0]):
                found = gaussian_derivatives(name)(jnp.asarray(point, float), jnp.asarray(direction, float))
                for order, (ours, theirs) in enumerate(found):
                    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9 * size ** (2 - order))


@pytest.mark.parametrize("name", ["js", "renyi"])
def test_categorical_laws_are_those_of_their_module(name):
    other = getattr(categorical, name)
    other = functools.partial(other, alpha=0.3) if name == "renyi" else other
    both = jax.jit(lambda p, q: [jax.value_and_grad(f, (0, 1))(p, q) for f in (verb(name, jax.nn.logsumexp), other)])
    with x64(np.float64):
        rng = np.random.default_rng(1)
        p = jnp.asarray(rng.normal(size=6))
        for size in (2.0, 1e-3):
            (value, slopes), (truth, others) = both(p, p + size * jnp.asarray(rng.normal(size=6)))
            np.testing.assert_allclose(value, truth, rtol=1e-12)
            np.testing.assert_allclose(slopes, others, rtol=1e-9, atol=1e-12 * size)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_weighted_js_is_that_of_its_module(weight):
    with x64(np.float64):
        p, q = jnp.asarray([0.3, -0.4, 1.0]), jnp.asarray([1.0, 0.5, -1.0])
        weight = jnp.asarray(weight, float)
        value = exponential_family.js(jax.nn.logsumexp, p, q, weight=weight)
        np.testing.assert_allclose(value, categorical.js(p, q, weight=weight), rtol=1e-12)
    assert jnp.isnan(exponential_family.js(jnp.exp, 0.0, 1.0, weight=1.5))


# ---------------------------------------------------------------- properties


@pytest.mark.parametrize(
    ("name", "log_normalizer", "p"),
    [pytest.param(name, jnp.exp, 0.3, marks=[pytest.mark.gate] * (name in OF_ANOTHER)) for name in VERBS]
    + [(name, normal, (0.3, -0.7)) for name in ("kl", "js")],
)
def test_equal_laws_are_exactly_0_with_gradient_0(name, log_normalizer, p):
    p = jax.tree.map(jnp.float32, p)
    value, slopes = jax.jit(jax.value_and_grad(verb(name, log_normalizer), (0, 1)))(p, p)
    assert value == 0
    assert all(x == 0 for x in jax.tree.leaves(slopes))


rates = st.floats(-8, 3, width=32)


@given(rates, rates)
@settings(max_examples=40, deadline=None)
def test_divergences_are_non_negative_ordered_and_symmetric(a, b):
    p, q = jnp.float32(a), jnp.float32(b)
    values = {name: float(verb(name, jnp.exp)(p, q)) for name in VERBS}
    assert all(value >= 0 for value in values.values())
    assert values["js"] <= np.log(2)
    assert values["squared_hellinger"] <= 1
    slack = 1 + 1e-5
    assert values["bhattacharyya"] <= values["chernoff"] * slack
    assert values["chernoff"] <= values["kl"] * slack
    assert values["renyi"] <= values["kl"] * slack
    assert values["js"] <= values["jeffreys"] / 4 * slack
    for name in ("js", "chernoff", "jeffreys", "bhattacharyya"):
        np.testing.assert_allclose(verb(name, jnp.exp)(q, p), values[name], rtol=1e-5)


@given(rates, rates)
@settings(max_examples=40, deadline=None)
def test_a_divergence_of_two_independent_laws_is_a_sum(a, b):
    p = {"first": jnp.float32(a), "second": -jnp.exp(jnp.float32(b))}
    q = {"first": jnp.float32(0.5), "second": jnp.float32(-1.0)}
    for name in ("kl", "bhattacharyya", "renyi"):
        parts = verb(name, jnp.exp)(p["first"], q["first"]) + verb(name, exponential)(p["second"], q["second"])
        np.testing.assert_allclose(verb(name, poisson_and_exponential)(p, q), parts, rtol=2e-5)


def test_orders_run_into_their_limits():
    with x64(np.float64):
        p, q = jnp.asarray(-1.0, float), jnp.asarray(-3.0, float)
        renyi = functools.partial(exponential_family.renyi, exponential, p, q)
        kl = exponential_family.kl(exponential, p, q)
        np.testing.assert_allclose(renyi(alpha=1.0), kl, rtol=1e-15)
        np.testing.assert_allclose(exponential_family.amari(exponential, p, q, alpha=1.0), kl, rtol=1e-15)
        reverse = exponential_family.kl(exponential, q, p)
        np.testing.assert_allclose(exponential_family.amari(exponential, p, q, alpha=0.0), reverse, rtol=1e-15)
        slope = jax.grad(lambda alpha: renyi(alpha=alpha))(jnp.asarray(1.0, float))
        np.testing.assert_allclose(slope, 2, rtol=1e-12)  # the value is 2 - log 3 + 2 (alpha - 1) + ...
        assert renyi(alpha=0.0) == 0
        assert jnp.isnan(renyi(alpha=-0.1))
        assert jnp.isnan(renyi(alpha=jnp.nan))


def softplus(eta):
    return jnp.logaddexp(0.0, eta)


FAR = [  # Bernoulli laws by logits, between which f'' is a narrow bump; exponential laws by rates
    ("kl", softplus, [(300.0, -300.0), (-300.0, 300.0), (2e4, -10.0), (1.0, 1.001)], [300, 300, 10.0000454, 9.83e-8]),
    ("bhattacharyya", softplus, [(300.0, -300.0), (2e4, -10.0)], [150 - np.log(2), 5]),
    ("jeffreys", softplus, [(300.0, -300.0)], [600]),
    ("kl", exponential, [(-1e-10, -1e10), (-1e10, -1e-10)], [1e20, 45.0517019]),
]


@pytest.mark.parametrize(("name", "log_normalizer", "laws", "values"), [*FAR[:2], *with_all(*FAR[2:])])
def test_a_narrow_bump_between_laws_far_apart_is_not_missed(name, log_normalizer, laws, values):
    p, q = jnp.array(laws).T
    found, slopes = jax.vmap(jax.value_and_grad(verb(name, log_normalizer), (0, 1)))(p, q)
    np.testing.assert_allclose(found, values, rtol=3e-4)
    if (name, log_normalizer) == ("kl", softplus):
        mean, other = jax.nn.sigmoid(p), jax.nn.sigmoid(q)
        np.testing.assert_allclose(slopes[1], other - mean, atol=1e-6)


def test_where_the_integral_diverges_the_value_is_inf_with_finite_gradients():
    # 2 p - q is a rate below 0.
    for name, options in (("chi2", {}), ("renyi", {"alpha": 3.0})):
        function = functools.partial(getattr(exponential_family, name), exponential, **options)
        value, slopes = jax.jit(jax.value_and_grad(function, (0, 1)))(-1.0, -3.0)
        assert value == jnp.inf
        assert all(jnp.isfinite(x) for x in slopes)
        assert jnp.isfinite(function(-3.0, -1.5))


@pytest.mark.parametrize("name", ["kl", "js", "renyi", "chernoff"])
def test_parameters_outside_of_the_domain_are_nan(name):
    values = jax.vmap(verb(name, exponential), (0, None))(jnp.array([-1.0, 1.0, jnp.nan]), jnp.float32(-2.0))
    assert np.array_equal(np.isnan(values), [False, True, True])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_float32_rounded_once(dtype):
    for name in ("kl", "js", "renyi"):
        p, q = dtype(0.5), dtype(1.25)
        value = verb(name, jnp.exp)(p, q)
        assert value.dtype == dtype
        assert value == verb(name, jnp.exp)(p.astype(jnp.float32), q.astype(jnp.float32)).astype(dtype)


def test_errors_name_what_came():
    with pytest.raises(ValueError, match=r"^exponential_family.kl .* got p\[3\] and q\[2\].*jax.vmap"):
        exponential_family.kl(jnp.sum, jnp.ones(3), jnp.ones(2))
    with pytest.raises(ValueError, match=r"one structure"):
        exponential_family.kl(jnp.sum, (jnp.ones(2),), jnp.ones(2))
    with pytest.raises(ValueError, match=r"^exponential_family.js .*real result \[\]; got .*3.*Sum over"):
        exponential_family.js(jnp.exp, jnp.ones(3), jnp.ones(3))
    with pytest.raises(TypeError, match=r"^exponential_family.kl takes floating-point numbers; got p int32\[\]"):
        exponential_family.kl(jnp.exp, jnp.int32(1), jnp.int32(2))


@pytest.mark.parametrize("verb", ["js", "js_distance"])
def test_a_log_normaliser_of_real_numbers_only_is_told_so(verb):
    with pytest.raises(
        TypeError, match=rf"^exponential_family.{verb} takes a log-normaliser of complex .*squared_hell"
    ):
        getattr(exponential_family, verb)(jax.scipy.special.gammaln, jnp.array(2.0), jnp.array(3.0))


def test_a_batch_is_evaluated_at_one_node_after_the_other():
    """At all nodes of the rules together it would hold 50 numbers for each parameter, with gradients 200."""
    values = jax.vmap(functools.partial(exponential_family.kl, lambda eta: jnp.sum(jnp.exp(eta))))
    slopes = jax.grad(lambda p, q: jnp.sum(values(p, q)), argnums=(0, 1))
    p, q = jnp.zeros((2, 4096, 8))
    for function, numbers in ((values, 12), (slopes, 36)):
        memory = jax.jit(function).lower(p, q).compile().memory_analysis()
        assert memory.temp_size_in_bytes <= numbers * p.nbytes

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import with_all
from measure import x64
from scipy import special

from jaxdiv import gaussian, mixture
from jaxdiv.mixture import GaussianMixture

VERBS = {"kl": mixture.kl_interval, "js": mixture.js_interval}
GRID = np.linspace(-60, 60, 12001)


# ---------------------------------------------------------------- one dimension, against a grid


def log_density(logits, loc, scale):
    terms = special.log_softmax(logits)[:, None] - 0.5 * ((GRID - loc[:, None]) / scale[:, None]) ** 2
    return special.logsumexp(terms - np.log(scale * np.sqrt(2 * np.pi))[:, None], axis=0)


def by_grid(p, q):
    """Both divergences by the trapezoidal rule, which for smooth densities is exact to rounding."""
    a, b = (log_density(*x) for x in (p, q))
    c, step = a - b, GRID[1] - GRID[0]
    p, q = np.exp(a), np.exp(b)
    # In powers of the log-ratio, where it is small, so that nothing cancels.
    small = np.where(np.abs(c) < 1e-3, c, 0)
    kl = np.where(small == 0, p * c - p + q, p * small**2 * (0.5 - small / 6 + small**2 / 24))
    js = 0.5 * (p * (np.log(2) - np.logaddexp(0, -c)) + q * (np.log(2) - np.logaddexp(0, c)))
    js = np.where(small == 0, js, p * small**2 * (1 / 8 - small / 16))
    return np.sum(kl) * step, np.sum(js) * step


@functools.cache
def pairs(n, m):
    """Mixtures of n and m components, far and near, overlapping and not, as arrays `[24, ...]`; and the divergences."""
    rng = np.random.default_rng(n + 10 * m)
    spread = 10 ** rng.uniform(-0.7, 1, size=(24, 1))
    p, q = ([rng.normal(size=(24, k)), spread * rng.normal(size=(24, k)),
             np.exp(0.4 * rng.normal(size=(24, k)))] for k in (n, m))  # fmt: skip
    if n == m:
        size = 10 ** rng.uniform(-5, -1, size=(12, 1))
        for x, y in zip(p, q, strict=True):
            y[:12] = x[:12] * (1 + size * rng.normal(size=(12, n)))
    truths = [by_grid([x[i] for x in p], [x[i] for x in q]) for i in range(24)]
    return p, q, dict(zip(VERBS, np.transpose(truths), strict=True))


def mixtures(n, m):
    p, q, _ = pairs(n, m)
    return [GaussianMixture(jnp.asarray(x[0]), gaussian.Normal(*map(jnp.asarray, x[1:]))) for x in (p, q)]


@functools.cache
def intervals(verb, n, m):
    with x64(np.float64):
        return jax.tree.map(np.asarray, jax.vmap(VERBS[verb])(*mixtures(n, m)))


SIZES = [(2, 2), (3, 1)]


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("verb", VERBS)
def test_bounds_hold(verb, n, m):
    truth = pairs(n, m)[2][verb]
    interval = intervals(verb, n, m)
    assert np.all(interval.lower <= truth * (1 + 1e-9))
    assert np.all(interval.upper >= truth * (1 - 1e-9))
    assert np.all(interval.lower >= 0)
    if verb == "js":
        assert np.all(interval.upper <= np.log(2))


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("verb", VERBS)
def test_quadrature_is_as_good_as_it_says(verb, n, m):
    truth = pairs(n, m)[2][verb]
    interval = intervals(verb, n, m)
    # The change from half the nodes is an indication: ten times that is not exceeded here.
    assert np.all(np.abs(interval.estimate - truth) <= 10 * interval.standard_error + 1e-6 * truth)
    assert np.median(np.abs(interval.estimate / truth - 1)) < 1e-3


@pytest.mark.parametrize("verb", VERBS)
def test_draws_have_the_standard_error_they_report(verb):
    truth = pairs(2, 2)[2][verb]

    def drawn(p, q, key):
        interval = VERBS[verb](p, q, key=key)
        return interval.estimate, interval.standard_error

    with x64(np.float64):
        keys = jax.random.split(jax.random.key(1), 24)
        estimate, error = map(np.asarray, jax.jit(jax.vmap(drawn))(*mixtures(2, 2), keys))
    # Where JS is log 2 but for events too rare to be drawn, the error is small and unseen.
    scores = (estimate - truth) / np.hypot(error, 1e-4 * truth)
    assert 0.6 < np.sqrt(np.mean(scores**2)) < 1.5
    assert np.max(error / truth) < 0.3


@pytest.mark.gate
def test_upper_bounds_are_tight_where_they_are_said_to_be():
    # Near each other, and components far apart: as the product of labels and components.
    with x64(np.float64):
        loc = jnp.asarray([-20.0, 10.0])
        p = GaussianMixture(jnp.asarray([0.0, 0.5]), gaussian.Normal(loc, jnp.ones(2, float)))
        q = GaussianMixture(jnp.asarray([0.01, 0.5]), gaussian.Normal(loc + 0.01, jnp.full(2, 1.01)))
        kl, js = (verb(p, q) for verb in VERBS.values())
        np.testing.assert_allclose(kl.upper, kl.estimate, rtol=1e-9)
        assert js.estimate < js.upper < 2 * js.estimate
        one = [jax.tree.map(lambda x: x[:1], x) for x in (p, q)]
        laws = [jax.tree.map(lambda x: x[0], x.components) for x in one]
        np.testing.assert_allclose(mixture.kl_interval(*one).upper, gaussian.kl(*laws), rtol=1e-12)
        far = q._replace(components=gaussian.Normal(loc + 200, jnp.ones(2, float)))
        interval = mixture.js_interval(p, far)
        np.testing.assert_allclose([interval.lower, interval.estimate, interval.upper], np.log(2), rtol=1e-9)


def test_near_equality_float32_keeps_its_digits():
    p, q = (GaussianMixture(jnp.array([0.0, 1.0]), gaussian.Normal(jnp.array([x, 1.5]), jnp.array([1.0, 0.5])))
            for x in (-1.0, -1.000001))  # fmt: skip
    for verb in VERBS.values():
        narrow = verb(p, q)
        with x64(np.float64):
            wide = jax.tree.map(np.asarray, verb(*jax.tree.map(lambda x: jnp.asarray(x, float), (p, q))))
        assert 0 < wide.estimate < 1e-12
        np.testing.assert_allclose(narrow.estimate, wide.estimate, rtol=1e-5)
        np.testing.assert_allclose(narrow.upper, wide.upper, rtol=1e-5)


# ---------------------------------------------------------------- gradients


def flat(p):
    return np.concatenate([np.asarray(x) for x in jax.tree.leaves(p)])


@functools.cache
def with_slopes(verb, **options):
    """A function to the interval and the gradient of its product with the interval `by`: one compilation for many."""

    @jax.jit
    def function(p, q, by, key=None):
        interval, pull = jax.vjp(lambda p, q: VERBS[verb](p, q, key=key, **options), p, q)
        return interval, pull(jax.tree.map(jnp.asarray, mixture.Interval(*by)))

    return function


ESTIMATE, BOTH, ALL = (0.0, 1.0, 0.0, 0.0), (0.0, 1.0, 1.0, 0.0), (1.0, 1.0, 1.0, 1.0)


APART = np.array([[[0.3, -0.2], [-1.0, 1.5], [0.7, 1.2]], [[0.0, 0.4], [-0.5, 2.0], [1.0, 0.8]]])


def laws_apart():
    return [GaussianMixture(jnp.asarray(x[0]), gaussian.Normal(*map(jnp.asarray, x[1:]))) for x in APART]


@functools.cache
def slopes_of_the_integral():
    """The gradients of either verb in the numbers of `APART`, by name."""

    def truth(x):
        return np.array(by_grid(*map(list, x)))

    steps = 1e-4 * np.eye(12).reshape(12, *APART.shape)
    slopes = np.array([(truth(APART + h) - truth(APART - h)) / 2e-4 for h in steps])
    return dict(zip(VERBS, slopes.T, strict=True))


def test_gradients_are_those_of_the_integral():
    with x64(np.float64):
        for name, exact in slopes_of_the_integral().items():
            _, ours = with_slopes(name)(*laws_apart(), ESTIMATE)
            np.testing.assert_allclose(flat(ours), exact, rtol=2e-3, atol=2e-5)


@pytest.mark.gate
def test_reparametrised_draws_make_an_unbiased_gradient():
    with x64(np.float64):

        def drawn(key):
            return jax.grad(lambda p, q: mixture.js_interval(p, q, key=key, samples=64).estimate, (0, 1))(*laws_apart())

        draws = jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(0), 400))
    draws = np.concatenate([np.asarray(x) for x in jax.tree.leaves(draws)], -1)
    error = draws.std(0) / np.sqrt(len(draws))
    assert np.max(np.abs(draws.mean(0) - slopes_of_the_integral()["js"]) / error) < 4


@pytest.mark.parametrize("verb", VERBS)
def test_equal_mixtures_are_exactly_0_with_gradient_0(verb):
    with x64(np.float64):
        law = gaussian.Normal(jnp.array([0.3, -1.0], float), jnp.array([1.2, 0.5], float))
        p = GaussianMixture(jnp.array([0.2, -0.7], float), law)
        interval, slopes = jax.tree.map(np.asarray, with_slopes(verb)(p, p, BOTH))
    assert all(x == 0 for x in interval)
    assert all(np.all(x == 0) for x in jax.tree.leaves(slopes))


@pytest.mark.gate
def test_equal_mixtures_of_matrices_are_exactly_0_with_gradient_0():
    key = jax.random.key(3)
    root = jnp.tril(jax.random.normal(key, (2, 2, 2))) + 3 * jnp.eye(2)[None]
    p = GaussianMixture(jnp.array([0.2, -0.7]), gaussian.MultivariateNormal(jax.random.normal(key, (2, 2)), root))
    interval, slopes = with_slopes("js", samples=16)(p, p, BOTH, key)
    assert all(x == 0 for x in interval)
    assert all(jnp.all(x == 0) for x in jax.tree.leaves(slopes))


@pytest.mark.parametrize("verb", VERBS)
def test_a_component_without_weight_has_no_say(verb):
    def mixture_of(logits, loc, scale):
        return GaussianMixture(*(jnp.asarray(logits, float), gaussian.Normal(jnp.asarray(loc), jnp.asarray(scale))))

    with x64(np.float64):
        ends = []
        for loc, scale in ((5.0, 5.0), (-2.0, 0.5), (np.nan, 0.0), (np.inf, -1.0)):
            p = mixture_of([0.3, -np.inf], [-1.0, loc], [0.7, scale])
            q = mixture_of([0.4, -np.inf], [-0.5, loc], [1.0, scale])
            both = mixture_of([0.4, 0.2], [-0.5, 1.0], [1.0, 1.2])
            ends.append([jax.tree.map(np.asarray, with_slopes(verb)(p, x, ALL)) for x in (q, both)])
            ends[-1].append(jax.tree.map(np.asarray, jax.value_and_grad(mixture.log_density)(p, 0.5)))
        laws = [jax.tree.map(lambda x: x[0], x.components) for x in (p, q)]
        exact = getattr(gaussian, verb)(*laws)
    for first, *others in zip(*ends, strict=True):
        for other in others:
            for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)
    for first in ends[0][:2]:
        for x in jax.tree.leaves(first[1][0]):
            assert np.isfinite(x[0])
            assert x[1] == 0
    np.testing.assert_allclose(ends[0][0][0].estimate, exact, rtol=1e-6)


# ---------------------------------------------------------------- more dimensions and forms


def in_every_form(loc, root):
    covariance = root @ root.swapaxes(-1, -2)
    precision = jnp.linalg.inv(covariance)
    d = loc.shape[-1]
    low_rank = gaussian.LowRankNormal(
        loc, jnp.linalg.cholesky(covariance - 0.1 * jnp.eye(d)[None]), jnp.full(loc.shape, 0.1)
    )
    return [
        gaussian.MultivariateNormal(loc, root),
        gaussian.CovarianceNormal(loc, covariance),
        gaussian.PrecisionNormal(loc, precision),
        low_rank,
    ]


@pytest.mark.gate
def test_two_dimensions_are_the_integral_over_a_grid_in_every_form():
    x = np.linspace(-14, 14, 561)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), -1)

    def density(logits, loc, root):
        y = np.einsum("nij,abnj->abni", np.linalg.inv(root), grid[:, :, None] - loc)
        size = special.softmax(logits) / np.prod(np.diagonal(root, axis1=1, axis2=2), -1) / (2 * np.pi)
        return np.sum(size * np.exp(-0.5 * np.sum(y * y, -1)), -1)

    p = (
        np.array([0.0, 0.5]),
        np.array([[0.0, 0.0], [2.0, 1.0]]),
        np.array([[[1, 0], [0.3, 0.8]], [[1.1, 0], [-0.4, 1]]]),
    )
    q = np.array([0.2, 0.0]), np.array([[0.3, 0.0], [1.5, 1.5]]), np.array([[[1.2, 0], [0, 1]], [[0.9, 0], [0.2, 1]]])
    a, b = density(*p), density(*q)
    m, step = 0.5 * (a + b), (x[1] - x[0]) ** 2
    truths = {"kl": np.sum(special.rel_entr(a, b)) * step}
    truths["js"] = 0.5 * np.sum(special.rel_entr(a, m) + special.rel_entr(b, m)) * step
    with x64(np.float64):
        logits = [jnp.asarray(law[0]) for law in (p, q)]
        first, second = (in_every_form(*map(jnp.asarray, law[1:])) for law in (p, q))
        for verb, i, j in (("js", 0, 1), ("kl", 3, 2)):
            laws = GaussianMixture(logits[0], first[i]), GaussianMixture(logits[1], second[j])
            interval = VERBS[verb](*laws, nodes=48)
            np.testing.assert_allclose(interval.estimate, truths[verb], rtol=1e-4)
            assert interval.lower <= truths[verb] <= interval.upper


@pytest.mark.gate
def test_independent_components_are_diagonal_matrices():
    key = jax.random.key(5)
    loc, scale = jax.random.normal(key, (2, 3)), jnp.array([[1.0, 0.5, 2.0], [0.7, 1.0, 1.3]])
    p, q = (GaussianMixture(jnp.array([0.0, 0.3]), gaussian.Normal(x, scale)) for x in (loc, loc + 0.3))
    full = q._replace(components=gaussian.MultivariateNormal(loc + 0.3, jax.vmap(jnp.diag)(scale)))
    logs = q._replace(components=gaussian.NormalLogScale(loc + 0.3, jnp.log(scale)))
    truth = mixture.kl_interval(p, q, key=key, samples=128)
    for other in (full, logs):
        for x, y in zip(mixture.kl_interval(p, other, key=key, samples=128), truth, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- properties


numbers = st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4)


@given(numbers, numbers, numbers)
@settings(max_examples=60, deadline=None)
def test_intervals_are_in_order_and_in_range(logits, loc, log_scale):
    logits, loc, log_scale = (np.array(x, np.float32).reshape(2, 2) for x in (logits, loc, log_scale))
    p, q = (GaussianMixture(x, gaussian.NormalLogScale(*y)) for x, *y in zip(logits, loc, log_scale, strict=True))
    for verb, bound in (("kl", np.inf), ("js", np.float32(np.log(2)))):
        interval = VERBS[verb](p, q, nodes=16)
        assert 0 <= interval.lower <= interval.upper <= bound
        assert 0 <= interval.estimate <= bound


def two_normals(locs, scales):
    columns = (jnp.array(x)[:, None] for x in (locs, scales))
    return GaussianMixture(jnp.zeros(2), gaussian.Normal(*columns))


@pytest.mark.parametrize(
    ("locs", "scales", "infinite"),
    [
        ([1e25, 2e25], [1.0, 1.0], (True, True)),  # squares of differences overflow
        ([0.0, 1e25], [1.0, 1.0], (False, True)),
        ([0.0, 1.0], [1e30, 1e30], (False, True)),
        ([0.0, 1.0], [1e-30, 1e-30], (True, False)),
    ],
)
def test_where_densities_or_squares_leave_the_floats_there_are_bounds_and_slopes(locs, scales, infinite):
    p, q = two_normals([0.0, 1.0], [1.0, 1.0]), two_normals(locs, scales)
    for pair, is_infinite in zip(((p, q), (q, p)), infinite, strict=True):
        found = mixture.kl_interval(*pair)
        assert found.lower <= found.estimate <= found.upper
        assert np.isinf(found.estimate) == is_infinite
        assert np.isfinite(found.standard_error)
        js = mixture.js_interval(*pair)
        assert 0 <= js.lower <= js.estimate <= js.upper <= np.float32(np.log(2))
        if scales[0] == 1:
            slopes = jax.grad(lambda p, q: sum(mixture.kl_interval(p, q)[:3]), (0, 1))(*pair)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes))


@pytest.mark.gate
def test_the_variance_is_finite_where_that_under_p_is_not():
    p = GaussianMixture(jnp.zeros(1), gaussian.Normal(jnp.zeros(1), jnp.ones(1)))
    q = GaussianMixture(jnp.zeros(1), gaussian.Normal(jnp.zeros(1), jnp.full(1, 8.0)))
    errors = [mixture.kl_interval(p, q, key=jax.random.key(i)).standard_error for i in range(20)]
    assert max(errors) < 1.3 * min(errors)


def test_batches_by_vmap_are_loops():
    p, q = (
        GaussianMixture(jnp.zeros((3, 2)), gaussian.Normal(x * jnp.ones((3, 2)), jnp.ones((3, 2)))) for x in (0.0, 1.0)
    )
    p = p._replace(logits=jnp.array([[0.0, 1.0], [2.0, 1.0], [0.0, -jnp.inf]]))
    batch = jax.vmap(mixture.js_interval)(p, q)
    for i in range(3):
        one = mixture.js_interval(*jax.tree.map(lambda x, i=i: x[i], (p, q)))
        for x, y in zip(batch, one, strict=True):
            np.testing.assert_allclose(x[i], y, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("copies", [1, *with_all(2000)])
def test_a_faulty_mixture_is_nan_in_its_pair_only(copies):
    loc = jnp.array([[0.0, 1.0], [0.0, jnp.nan], [0.0, 1.0]] * copies)
    scale = jnp.array([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0]] * copies)
    p = GaussianMixture(jnp.zeros(loc.shape), gaussian.Normal(loc, scale))
    q = GaussianMixture(jnp.zeros(2), gaussian.Normal(jnp.zeros(2), jnp.ones(2)))
    interval = jax.jit(jax.vmap(functools.partial(mixture.js_interval, nodes=16), (0, None)))(p, q)
    for x in interval[:3]:
        assert np.array_equal(np.isnan(x), [False, True, True] * copies)


def test_half_precision_is_float32_rounded_once():
    p, q = (GaussianMixture(jnp.zeros(2, jnp.bfloat16), gaussian.Normal(jnp.array([x, 1.0], jnp.bfloat16),
            jnp.ones(2, jnp.bfloat16))) for x in (0.0, 2.0))  # fmt: skip
    narrow = mixture.kl_interval(p, q)
    wide = mixture.kl_interval(*jax.tree.map(lambda x: x.astype(jnp.float32), (p, q)))
    assert all(x == y.astype(jnp.bfloat16) and x.dtype == jnp.bfloat16 for x, y in zip(narrow, wide, strict=True))


# ---------------------------------------------------------------- errors


def test_errors_name_what_came():
    ones = jnp.ones
    p = GaussianMixture(ones(2), gaussian.Normal(ones((2, 3)), ones((2, 3))))
    with pytest.raises(ValueError, match=r"^mixture.kl_interval takes a key .* d = 3 .* Pass key=jax.random.key"):
        mixture.kl_interval(p, p)
    with pytest.raises(ValueError, match=r"^mixture.js_interval .* got p.logits\[2\], loc\[2, 3\].* and q.logits\[3\]"):
        mixture.js_interval(p, p._replace(logits=ones(3)))
    with pytest.raises(ValueError, match="equal dimension"):
        mixture.js_interval(p, GaussianMixture(ones(2), gaussian.Normal(ones(2), ones(2))))
    with pytest.raises(ValueError, match=r"scale\[\]"):
        mixture.js_interval(p, GaussianMixture(ones(2), gaussian.Normal(ones(2), ones(()))))
    with pytest.raises(
        TypeError, match=r"^mixture.kl_interval takes a mixture as GaussianMixture; got p of type Normal"
    ):
        mixture.kl_interval(p.components, p)
    with pytest.raises(TypeError, match=r"takes a law as Normal, .*NaturalNormal; got p.components\[2\]"):
        mixture.kl_interval(GaussianMixture(ones(2), ones(2)), p)
    matrices = gaussian.MatrixNormal(ones((2, 3, 2)), ones((2, 3, 3)), ones((2, 2, 2)))
    for verb in (mixture.check, lambda p: mixture.js_interval(p, p)):
        with pytest.raises(TypeError, match=r"NaturalNormal; got p.components of type MatrixNormal"):
            verb(GaussianMixture(ones(2), matrices))


@pytest.mark.parametrize("verb", [mixture.kl_interval, *with_all(mixture.js_interval)])
def test_one_draw_has_no_standard_error_and_too_few_points_are_refused(verb):
    p, q = (GaussianMixture(jnp.zeros(1), gaussian.Normal(jnp.full(1, x), jnp.ones(1))) for x in (0.0, 1.0))
    found = verb(p, q, key=jax.random.key(0), samples=1)
    assert found.standard_error == jnp.inf
    assert jnp.isfinite(found.estimate)
    assert verb(p, q, key=jax.random.key(0), samples=50_000).standard_error > 0
    slope = jax.grad(lambda p: sum(verb(p, q, key=jax.random.key(0), samples=1)))(p)
    assert jnp.all(jnp.isfinite(slope.components.loc))
    with pytest.raises(ValueError, match=r"^mixture.\w+_interval takes samples in \[1, inf\]; got 0\."):
        verb(p, q, key=jax.random.key(0), samples=0)
    with pytest.raises(ValueError, match=r"^mixture.\w+_interval takes nodes in \[2, 370\]; got 1\."):
        verb(p, q, nodes=1)


def test_check_names_the_fault():
    mixture.check(GaussianMixture(jnp.array([0.0, -jnp.inf]), gaussian.Normal(jnp.zeros((2, 3)), jnp.ones((2, 3)))))
    mixture.check(
        GaussianMixture(jnp.zeros(2), gaussian.MultivariateNormal(jnp.zeros((2, 3)), jnp.stack([jnp.eye(3)] * 2)))
    )
    with pytest.raises(ValueError, match="nan"):
        mixture.check(GaussianMixture(jnp.array([0.0, jnp.nan]), gaussian.Normal(jnp.zeros(2), jnp.ones(2))))
    with pytest.raises(ValueError, match="not positive in 1 of 2 rows: 1"):
        mixture.check(GaussianMixture(jnp.zeros(2), gaussian.Normal(jnp.zeros(2), jnp.array([1.0, 0.0]))))
    with pytest.raises(TypeError, match="takes a mixture as GaussianMixture; got p of type tuple"):
        mixture.check((jnp.zeros(2), None))

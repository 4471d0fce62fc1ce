"""Centroids are the minima that they claim to be, and k-means never goes up: of every family, zeros and weights too."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from marks import with_all
from measure import x64
from scipy.optimize import minimize

import jaxdiv
from jaxdiv import bernoulli, categorical, clustering, exponential_family, gaussian, simplex

KEY = jax.random.key(0)
ORDERED = {"renyi": {"alpha": 0.7}, "amari": {"alpha": 0.3}}
VERBS = ["jeffreys", "js", "renyi", "triangular", "chernoff", "total_variation", "fisher_rao_distance"]


def _verb(family, name):
    verb = getattr(family, name)
    return functools.partial(verb, **ORDERED[name]) if name in ORDERED else verb


def _rows(n, k=4, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).dirichlet(np.ones(k), n).astype(dtype)


def _normal(n, dtype=np.float32):
    rng = np.random.default_rng(0)
    return gaussian.Normal(rng.normal(size=(n, 2)).astype(dtype), rng.uniform(0.5, 2, (n, 2)).astype(dtype))


def _multivariate(n, dtype=np.float32):
    rng = np.random.default_rng(0)
    roots = np.exp(0.3 * rng.normal(size=(n, 2, 1))) * np.eye(2) + 0.5 * np.tril(rng.normal(size=(n, 2, 2)), -1)
    return gaussian.MultivariateNormal(rng.normal(size=(n, 2)).astype(dtype), roots.astype(dtype))


def _cost(divergence, laws, law):
    return np.mean(np.asarray(jax.vmap(divergence, (0, None))(laws, law), np.float64))


# ---------------------------------------------------------------- closed forms


def test_kl_centroids_are_the_mean_and_the_normalized_geometric_mean():
    laws, weights = _rows(7), np.linspace(0, 1, 7, dtype=np.float32)
    right, left = (clustering.centroid(simplex.kl, laws, weights=weights, side=side).law for side in ("right", "left"))
    np.testing.assert_allclose(right, np.average(laws, 0, weights), 2e-6)
    geometric = np.exp(np.average(np.log(laws), 0, weights))
    np.testing.assert_allclose(left, geometric / geometric.sum(), 2e-6)


@pytest.mark.gate
@pytest.mark.parametrize("order", [-1.0, 0.0, 0.5, 2.0])
def test_the_centroid_by_amari_is_the_power_mean(order):
    laws = _rows(5)
    found = clustering.centroid(functools.partial(simplex.amari, alpha=order), laws)
    mean = np.exp(np.mean(np.log(laws), 0)) if order == 0 else np.mean(laws**order, 0) ** (1 / order)
    np.testing.assert_allclose(found.law, mean / mean.sum(), 3e-6)
    assert found.gradient_norm < 1e-5


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0])
def test_a_light_law_alone_has_its_share_to_all_digits(order):
    laws, amari = np.float32([[1, 0], [0.7, 0.3]]), functools.partial(simplex.amari, alpha=order)
    run = jax.jit(lambda weights: clustering.centroid(amari, laws, weights=weights))
    for heavy in (1e3, 1e7, 1e9):
        weights = np.float32([heavy, 1])
        found = run(weights)
        mean = np.average(np.float64(laws) ** order, 0, np.float64(weights)) ** (1 / order)
        np.testing.assert_allclose(found.law, mean / mean.sum(), 3e-6)  # points are logarithms, down to -40
        assert np.isfinite(found.cost)


@pytest.mark.gate
@pytest.mark.parametrize(("name", "order"), [("squared_hellinger", 0.5), ("chi2", 2.0)])
def test_hellinger_and_chi2_have_power_means_on_either_side(name, order):
    laws = _rows(5)
    for side, power in (("right", order), ("left", 1 - order)):
        mean = np.mean(laws**power, 0) ** (1 / power)
        found = clustering.centroid(getattr(simplex, name), laws, side=side).law
        np.testing.assert_allclose(found, mean / mean.sum(), 3e-6)


@pytest.mark.gate
def test_logits_have_the_centroids_of_their_probabilities():
    laws = _rows(6)
    for verb, side in itertools.product(("kl", "js"), ("right", "left")):
        of_logits = clustering.centroid(getattr(categorical, verb), 3 + jnp.log(laws), side=side)
        of_laws = clustering.centroid(getattr(simplex, verb), laws, side=side)
        np.testing.assert_allclose(jax.nn.softmax(of_logits.law), of_laws.law, 2e-5)
    left = clustering.centroid(categorical.kl, np.array([[0.0, -300.0], [0.0, -200.0]], np.float32), side="left").law
    np.testing.assert_allclose(left[1] - left[0], -250, 1e-6)  # beyond the range of probabilities


@pytest.mark.parametrize("name", ["kl", *with_all("js")])
def test_events_have_the_centroids_of_two_logits(name):
    logits = np.array([-1.0, 0.5, 3.0], np.float32)
    two = clustering.centroid(getattr(categorical, name), np.stack([0 * logits, logits], 1)).law
    found = clustering.centroid(getattr(bernoulli, name), logits).law
    np.testing.assert_allclose(found, two[1] - two[0], 1e-4)


def test_normal_laws_have_the_moments_of_their_mixture_or_the_mean_of_natural_parameters():
    laws = _multivariate(5)
    covariances = laws.scale_tril @ np.swapaxes(laws.scale_tril, 1, 2)
    precisions = np.linalg.inv(covariances)
    right, left = (clustering.centroid(gaussian.kl, laws, side=side).law for side in ("right", "left"))
    loc = laws.loc.mean(0)
    np.testing.assert_allclose(right.loc, loc, 1e-5, 1e-6)
    spread = np.einsum("ni,nj->ij", laws.loc - loc, laws.loc - loc) / 5
    np.testing.assert_allclose(right.scale_tril @ right.scale_tril.T, covariances.mean(0) + spread, 1e-5)
    np.testing.assert_allclose(np.linalg.inv(left.scale_tril @ left.scale_tril.T), precisions.mean(0), 1e-4)
    natural = np.einsum("nij,nj->i", precisions, laws.loc) / 5
    np.testing.assert_allclose(left.loc, np.linalg.solve(precisions.mean(0), natural), 1e-4)


@pytest.mark.parametrize("laws", [_normal(3), _multivariate(3)], ids=["independent", "by root"])
def test_the_unit_of_normal_laws_does_not_matter(laws):
    run = jax.jit(lambda laws: [clustering.centroid(gaussian.kl, laws, side=side)[:2] for side in ("right", "left")])
    plain = run(laws)
    for units in np.float32([[2.0**66, 2.0**66], [2.0**-66, 2.0**-66], [2.0**70, 2.0**-70]]):
        scaled = run(_in_units(units, laws))
        for (law, cost), (expected, same) in zip(scaled, plain, strict=True):
            np.testing.assert_allclose(cost, same, 1e-5)
            for x, y in zip(law, _in_units(units, expected), strict=True):
                np.testing.assert_allclose(x, y, 1e-5)


def _in_units(units, law):
    loc, scale = law
    return type(law)(loc * units, scale * (units if scale.ndim == loc.ndim else units[:, None]))


@pytest.mark.gate
def test_forms_of_normal_laws_have_one_centroid_and_keep_their_form():
    laws = _multivariate(4)
    by_root = clustering.centroid(gaussian.kl, laws).law
    for form in (gaussian.CovarianceNormal, gaussian.PrecisionNormal, gaussian.NaturalNormal):
        found = clustering.centroid(gaussian.kl, jax.vmap(lambda law, form=form: gaussian.convert(law, form))(laws)).law
        assert type(found) is form
        back = gaussian.convert(found, gaussian.MultivariateNormal)
        np.testing.assert_allclose(back.scale_tril, by_root.scale_tril, 1e-4, 1e-5)
    one = gaussian.NormalLogScale(np.float32([0, 2]), np.float32([0, 0]))
    found = clustering.centroid(gaussian.kl, one).law
    np.testing.assert_allclose([found.loc, found.log_scale], [1, 0.5 * np.log(2)], 1e-6)
    ranked = gaussian.LowRankNormal(laws.loc, laws.scale_tril[..., :1], np.ones((4, 2), np.float32))
    assert type(clustering.centroid(gaussian.kl, ranked).law) is gaussian.MultivariateNormal


def test_exponential_families_average_natural_parameters_on_the_left_and_expectations_on_the_right():
    log_rates = np.float32([0.0, 1.0, 2.0])
    kl = functools.partial(exponential_family.kl, jnp.exp)
    np.testing.assert_allclose(clustering.centroid(kl, log_rates, side="left").law, 1, 1e-6)
    right = clustering.centroid(kl, log_rates)
    np.testing.assert_allclose(right.law, np.log(np.mean(np.exp(log_rates))), 1e-5)
    assert right.gradient_norm < 1e-4


# ---------------------------------------------------------------- minima


def _softmax(free):
    return np.exp(free - free.max()) / np.exp(free - free.max()).sum()


def _least(cost, start):
    return minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-13, "maxiter": 4000}).fun


@pytest.mark.parametrize(("name", "side"), [("js", "right"), *with_all(("jeffreys", "right"), ("renyi", "left"))])
def test_scipy_finds_no_better_law(name, side):
    with x64(np.float64):
        laws, weights = _rows(4, 3, dtype=np.float64), np.array([0.1, 0.4, 0.3, 0.2])
        verb = _verb(simplex, name)
        found = clustering.centroid(verb, laws, weights=weights, side=side)
        toward = jax.jit(jax.vmap(verb if side == "right" else lambda p, q: verb(q, p), (0, None)))
        least = _least(lambda free: weights @ np.asarray(toward(laws, _softmax(np.append(free, 0)))), np.zeros(2))
    np.testing.assert_allclose(found.cost, least, 1e-9)
    assert np.asarray(found.gradient_norm) < 1e-9


@pytest.mark.gate
@pytest.mark.parametrize("name", ["js", "squared_wasserstein2"])
def test_scipy_finds_no_better_normal_law(name):
    with x64(np.float64):
        laws, verb = _normal(4, np.float64), getattr(gaussian, name)
        found = clustering.centroid(verb, laws)
        toward = jax.jit(jax.vmap(verb, (0, None)))

        def cost(free):
            return np.mean(toward(laws, gaussian.Normal(free[:2], np.exp(free[2:]))))

        least = _least(cost, np.concatenate([laws.loc.mean(0), np.log(laws.scale.mean(0))]))
    np.testing.assert_allclose(found.cost, least, 1e-9)
    assert np.asarray(found.gradient_norm) < 1e-8


def test_the_wasserstein_centroid_is_the_fixed_point():
    with x64(np.float64):
        laws = _multivariate(5, np.float64)
        found = clustering.centroid(gaussian.squared_wasserstein2, laws).law
    covariances = laws.scale_tril @ np.swapaxes(laws.scale_tril, 1, 2)

    def root(x):
        size, v = np.linalg.eigh(x)
        return (v * np.sqrt(size)) @ v.T

    lower = np.asarray(found.scale_tril)
    s = root(lower @ lower.T)
    np.testing.assert_allclose(np.mean([root(s @ c @ s) for c in covariances], 0), s @ s, 1e-6)
    np.testing.assert_allclose(found.loc, laws.loc.mean(0), 1e-6)


@pytest.mark.gate
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", VERBS)
def test_no_law_nearby_costs_less_by_any_verb(name, side):
    laws, verb = _rows(5), _verb(simplex, name)
    found = clustering.centroid(verb, laws, side=side)
    rng = np.random.default_rng(1)
    moves = np.concatenate([size * rng.normal(size=(20, 4)) for size in (1e-2, 1e-1, 1)])
    others = jax.nn.softmax(jnp.log(found.law)[None] + moves.astype(np.float32))
    points = jnp.concatenate([found.law[None], others, jnp.asarray(laws)])
    cost, *costs = np.asarray(jax.vmap(lambda law: _cost_of(verb, laws, law, side))(points))
    np.testing.assert_allclose(found.cost, cost, 1e-5)
    assert np.min(costs) > found.cost * (1 - 1e-4)
    if name not in ("total_variation", "js_distance", "hellinger_distance", "fisher_rao_distance"):  # at a kink
        assert found.gradient_norm < 1e-3


def _cost_of(verb, laws, law, side):
    return jnp.mean(jax.vmap(lambda p: verb(p, law) if side == "right" else verb(law, p))(laws))


@pytest.mark.gate
@pytest.mark.parametrize(
    "name", ["jeffreys", "js", "bhattacharyya", "geometric_js", "squared_wasserstein2", "chernoff"]
)
@pytest.mark.parametrize("laws", [_normal, _multivariate], ids=["independent", "by root"])
def test_normal_laws_have_centroids_by_any_divergence(name, laws):
    laws, verb = laws(4), getattr(gaussian, name)
    found = clustering.centroid(verb, laws)
    assert found.gradient_norm < 2e-3
    for i in range(4):
        assert _cost(verb, laws, jax.tree.map(lambda x, i=i: x[i], laws)) >= found.cost


def test_ones_own_divergence_moves_its_parameters_freely():
    points = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    found = clustering.centroid(lambda x, y: jnp.sum((x - y) ** 2), points)
    np.testing.assert_allclose(found.law, points.mean(0), 1e-5, 1e-6)


# ---------------------------------------------------------------- edges


@pytest.mark.parametrize("n", [*with_all(1), 3])
def test_equal_laws_and_one_law_are_their_own_centroid_exactly(n):
    laws = _rows(1)
    for verb, x in ((simplex.kl, laws), (simplex.js, laws), (categorical.kl, np.log(laws))):
        found = clustering.centroid(verb, np.repeat(x, n, 0))
        np.testing.assert_array_equal(found.law, x[0])
        assert found.cost == 0


def test_equal_laws_of_a_form_that_no_centroid_has_cost_a_rounding():
    law = _multivariate(1)
    laws = gaussian.LowRankNormal(*(np.repeat(x, 3, 0) for x in (law.loc, law.scale_tril[..., :1], law.loc**2 + 1)))
    assert abs(clustering.centroid(gaussian.kl, laws).cost) < 1e-10


def test_zeros_stay_zeros_where_they_belong():
    laws = np.float32([[0.5, 0.5, 0, 0], [0, 0.25, 0.75, 0]])
    right = clustering.centroid(simplex.js, laws)
    assert np.all(right.law[:3] > 0)
    assert right.law[3] == 0
    np.testing.assert_allclose(np.sum(right.law), 1, 1e-6)
    np.testing.assert_array_equal(clustering.centroid(simplex.kl, laws, side="left").law, [0, 1, 0, 0])
    of_logits = clustering.centroid(categorical.kl, jnp.log(laws)).law
    np.testing.assert_allclose(jnp.exp(of_logits), laws.mean(0), 1e-6)
    disjoint = clustering.centroid(simplex.kl, np.eye(2, dtype=np.float32), side="left")
    assert not np.isfinite(disjoint.cost)


@pytest.mark.parametrize("verb", [simplex.kl, *with_all(simplex.js)], ids=["kl", "js"])
def test_a_law_of_weight_zero_does_not_count_whatever_it_is(verb):
    laws, weights = _rows(4), np.float32([1, 0, 2, 1])
    spoilt = laws.copy()
    spoilt[1] = np.nan
    without = clustering.centroid(verb, laws[[0, 2, 3]], weights=weights[[0, 2, 3]])

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def slopes_and_law(weights):
        found = clustering.centroid(verb, spoilt, weights=weights)
        return found.cost, found.law

    slopes, law = slopes_and_law(weights)
    np.testing.assert_allclose(law, without.law, 1e-5)
    assert np.all(np.isfinite(slopes))
    assert np.isnan(clustering.centroid(simplex.kl, laws, weights=0 * weights).cost)


@pytest.mark.gate
@pytest.mark.parametrize(
    ("verb", "laws"),
    [
        (simplex.kl, _rows(3)),
        *with_all((categorical.kl, np.log(_rows(3))), (gaussian.kl, _normal(3)), (simplex.js, _rows(3))),
    ],
)
def test_a_weight_of_zero_has_the_slope_of_a_small_one(verb, laws):
    def slopes(weights):
        def costs(weights):
            found = clustering.kmeans(verb, laws, 1, key=KEY, weights=weights)
            return clustering.centroid(verb, laws, weights=weights).cost, found.cost

        return np.asarray(jax.jit(jax.jacrev(costs))(weights))

    np.testing.assert_allclose(slopes(np.float32([1, 1, 0])), slopes(np.float32([1, 1, 1e-5])), 1e-3, 1e-5)


@pytest.mark.gate
@pytest.mark.parametrize(
    ("verb", "laws"), [(simplex.kl, _rows(3)), *with_all((simplex.js, _rows(3)), (gaussian.kl, _normal(3)))]
)
def test_an_invalid_law_of_weight_zero_leaves_derivatives_finite(verb, laws):
    @jax.jit
    def found_and_slopes(laws, weights):
        def cost(laws, weights, side):
            return clustering.centroid(verb, laws, weights=weights, side=side).cost

        return [jax.value_and_grad(cost, (0, 1))(laws, weights, side) for side in ("right", "left")]

    for bad in (np.nan, np.inf, 0.0, -1.0):
        spoilt = jax.tree.map(lambda x, bad=bad: jnp.asarray(x).at[1].set(bad), laws)
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(found_and_slopes(spoilt, np.float32([1, 0, 2]))))


def test_half_precision_is_rounded_once():
    laws = _rows(3).astype(np.float16)
    found = clustering.centroid(simplex.kl, laws)
    assert found.law.dtype == found.cost.dtype == np.float16
    np.testing.assert_array_equal(found.law, np.mean(laws.astype(np.float32), 0).astype(np.float16))


@pytest.mark.gate
def test_a_common_factor_of_weights_does_not_matter():
    laws, weights = np.float32([[0.5, 0.5], [0.1, 0.9]]), np.float32([3, 2])
    plain = clustering.centroid(simplex.kl, laws, weights=weights)
    for unit in (2.0**126, 2.0**-126):
        scaled = clustering.centroid(simplex.kl, laws, weights=np.float32(unit) * weights)
        for x, y in zip(scaled, plain, strict=True):
            np.testing.assert_array_equal(x, y)
        sizes = clustering.kmeans(simplex.kl, laws, 2, key=KEY, weights=np.float32(unit) * weights).sizes
        np.testing.assert_array_equal(np.sort(sizes), np.float32(unit) * np.float32([2, 3]))


def test_sizes_of_clusters_are_not_rounded_to_half_precision():
    laws = jnp.ones((257, 2), jnp.bfloat16) / 2
    assert clustering.kmeans(simplex.kl, laws, 1, key=KEY).sizes == 257


@pytest.mark.parametrize("verb", [simplex.kl, *with_all(simplex.js)], ids=["kl", "js"])
def test_a_centroid_has_the_derivatives_of_a_minimum(verb):
    with x64(np.float64):
        laws, direction = _rows(3, dtype=np.float64), np.random.default_rng(2).normal(size=(3, 4))

        def law(x):
            return clustering.centroid(verb, jax.nn.softmax(jnp.log(laws) + x * direction)).law

        slope = jax.jvp(law, (0.0,), (1.0,))[1]
        np.testing.assert_allclose(slope, (law(1e-4) - law(-1e-4)) / 2e-4, 1e-5, 1e-8)
        np.testing.assert_allclose(jax.jacrev(law)(0.0), slope, 1e-9)


@pytest.mark.gate
def test_centroids_of_a_batch_are_those_of_each():
    batches = np.stack([_rows(3), _rows(3, seed=1)])
    together = jax.vmap(lambda laws: clustering.centroid(simplex.js, laws).law)(batches)
    np.testing.assert_allclose(together, [clustering.centroid(simplex.js, laws).law for laws in batches], 1e-4)


# ---------------------------------------------------------------- k-means


def _blobs(n, k, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.dirichlet(np.full(8, 0.5), k)
    return np.stack([rng.dirichlet(60 * centers[i % k] + 0.1) for i in range(n)]).astype(np.float32)


@pytest.mark.gate
@pytest.mark.parametrize("verb", [simplex.kl, *with_all(simplex.js)], ids=["kl", "js"])
def test_tiny_clusterings_are_the_best_of_all_labels(verb):
    laws = _rows(5)
    found = clustering.kmeans(verb, laws, 2, key=KEY, starts=20)

    @jax.jit
    @jax.vmap
    def cost(labels):
        return sum(
            jnp.where(jnp.any(own), clustering.centroid(verb, laws, weights=own).cost * jnp.mean(own), 0)
            for own in ((labels == i).astype(jnp.float32) for i in range(2))
        )

    labels = np.array([(0, *x) for x in itertools.product((0, 1), repeat=4)])
    np.testing.assert_allclose(found.cost, np.nanmin(cost(labels)), 1e-5)


@pytest.mark.gate
def test_the_cost_never_rises():
    laws = _blobs(60, 6)
    for verb, side in ((simplex.kl, "right"), (simplex.js, "right"), (simplex.kl, "left")):
        costs = [
            clustering.kmeans(verb, laws, 6, key=KEY, side=side, steps=steps).cost for steps in (1, 2, 3, 4, 6, 100)
        ]
        assert np.all(np.diff(costs) <= 1e-6 * costs[0])


@pytest.mark.parametrize("verb", [simplex.kl, *with_all(simplex.js)], ids=["kl", "js"])
def test_a_result_agrees_with_itself(verb):
    laws, weights = _blobs(60, 4), np.random.default_rng(0).uniform(0.1, 2, 60).astype(np.float32)
    found = clustering.kmeans(verb, laws, 4, key=KEY, weights=weights, starts=2)
    near = jaxdiv.nearest(verb, laws, found.centroids, k=1)
    np.testing.assert_array_equal(found.labels, near.indices[:, 0])
    np.testing.assert_allclose(found.cost, np.average(near.values[:, 0], weights=weights), 1e-5)
    np.testing.assert_allclose(found.sizes, np.bincount(found.labels, weights, 4), 1e-5)
    own = jax.jit(lambda weights: clustering.centroid(verb, laws, weights=weights).law)
    for i in range(4):
        np.testing.assert_allclose(found.centroids[i], own(np.where(found.labels == i, weights, 0)), 2e-3, 1e-4)


GROUPED = np.arange(30) % 3
IN_GROUPS = {
    "js": (simplex.js, _blobs(30, 3)),
    "of logits": (categorical.kl, np.log(_blobs(30, 3))),
    "normal": (
        gaussian.squared_wasserstein2,
        gaussian.Normal(10 * np.float32(GROUPED)[:, None] + _rows(30, 2), np.ones((30, 2), np.float32)),
    ),
}


@pytest.mark.parametrize("name", ["of logits", "normal", *with_all("js")])
def test_clear_groups_are_found_by_any_family(name):
    verb, laws = IN_GROUPS[name]
    labels = clustering.kmeans(verb, laws, 3, key=KEY, starts=4).labels
    assert len({(int(a), int(b)) for a, b in zip(labels, GROUPED, strict=True)}) == 3


@pytest.mark.gate
def test_clusters_without_laws_move_and_too_many_stay_empty():
    laws = np.repeat(_rows(2), 3, 0)
    found = clustering.kmeans(simplex.js, laws, 4, key=KEY)
    assert np.all(np.isfinite(found.centroids))
    assert found.cost < 1e-10
    assert sorted(found.sizes) == [0, 0, 3, 3]
    found = clustering.kmeans(simplex.kl, np.eye(4, dtype=np.float32)[[0, 0, 1, 2]], 3, key=KEY)
    assert found.cost == 0


@pytest.mark.gate
@pytest.mark.parametrize("verb", [simplex.kl, *with_all(simplex.js)], ids=["kl", "js"])
def test_a_law_with_nan_spoils_one_cluster(verb):
    laws = np.random.default_rng(0).dirichlet(np.ones(2), 5).astype(np.float32)
    run = jax.jit(jax.vmap(lambda laws, key: clustering.kmeans(verb, laws, 3, key=key), (None, 0)))
    for i in range(5):
        spoilt = laws.copy()
        spoilt[i] = np.nan
        found = run(spoilt, jax.random.split(KEY, 40))
        np.testing.assert_array_equal(np.isnan(found.centroids).any(-1), [[True, False, False]] * 40)
        np.testing.assert_array_equal(found.sizes[:, 0], 1)
        assert np.isnan(found.cost).all()


@pytest.mark.gate
@pytest.mark.parametrize("verb", [simplex.kl, *with_all(simplex.js)], ids=["kl", "js"])
def test_the_cost_of_clusters_is_differentiable(verb):
    laws = _blobs(12, 3)

    def cost(x):
        return clustering.kmeans(verb, x, 3, key=KEY).cost

    direction = np.random.default_rng(0).normal(size=laws.shape).astype(np.float32) * laws
    with_centroids = jax.jvp(cost, (laws,), (direction,))[1]
    np.testing.assert_allclose(
        with_centroids, (cost(laws + 1e-2 * direction) - cost(laws - 1e-2 * direction)) / 2e-2, 1e-2
    )


@pytest.mark.gate
def test_options_may_be_traced_and_batches_mapped():
    laws = np.stack([_blobs(12, 3), _blobs(12, 3, seed=1)])

    def labels(laws, alpha):
        return clustering.kmeans(functools.partial(simplex.amari, alpha=alpha), laws, 3, key=KEY).labels

    both = jax.jit(jax.vmap(labels, (0, None)))(laws, 0.3)
    np.testing.assert_array_equal(both, [labels(x, 0.3) for x in laws])


@pytest.mark.gate
@pytest.mark.parametrize("verb", [simplex.kl, *with_all(simplex.js)], ids=["kl", "js"])
def test_sharded_laws_have_the_clusters_of_the_same_laws_on_one_device(verb):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    laws = _blobs(64, 3)
    plain = clustering.kmeans(verb, laws, 3, key=KEY)
    divided = jax.device_put(laws, NamedSharding(mesh, P("batch")))
    found = clustering.kmeans(verb, divided, 3, key=KEY)
    np.testing.assert_array_equal(found.labels, plain.labels)
    np.testing.assert_allclose(found.cost, plain.cost, 1e-5)


@pytest.mark.gate
def test_memory_is_that_of_tiles():
    laws = jax.ShapeDtypeStruct((2**16, 64), jnp.float32)
    run = jax.jit(lambda laws: clustering.kmeans(simplex.js, laws, 64, key=KEY))
    temporaries = run.lower(laws).compile().memory_analysis().temp_size_in_bytes
    assert temporaries < 3 * 2**16 * 64 * 4  # a table of all pairs of arguments would be 64 times the laws


# ---------------------------------------------------------------- errors


def test_errors_say_who_and_what():
    laws = _rows(3)
    with pytest.raises(ValueError, match=r"^clustering.centroid takes side as one of right, left; got 'middle'\."):
        clustering.centroid(simplex.kl, laws, side="middle")
    with pytest.raises(ValueError, match=r"^clustering.kmeans takes k between 1 and the number of laws; got k = 4"):
        clustering.kmeans(simplex.kl, laws, 4, key=KEY)
    with pytest.raises(ValueError, match=r"^clustering.centroid takes a divergence of one pair that is a scalar"):
        clustering.centroid(lambda p, q: p - q, laws)
    with pytest.raises(ValueError, match=r"^clustering.centroid takes weights that broadcast"):
        clustering.centroid(simplex.kl, laws, weights=np.ones(2, np.float32))
    for function in (clustering.centroid, functools.partial(clustering.kmeans, k=1, key=KEY)):
        with pytest.raises(ValueError, match=r"^clustering.* takes at least one law; got laws\[0, 4\]\. Leave"):
            function(simplex.kl, laws[:0])
        with pytest.raises(TypeError, match=r"^clustering.* takes floating-point numbers; got laws int32\[3, 4\]\."):
            function(lambda p, q: jnp.sum((p - q) ** 2), laws.astype(np.int32))
        with pytest.raises(TypeError, match=r"^clustering.* takes a divergence with floating-point results; got int32"):
            function(lambda p, q: jnp.sum(p != q), laws)

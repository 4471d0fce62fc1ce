"""Streaming accumulators: what they compute, how they merge, and what long streams lose."""

import datetime
import decimal
import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from marks import with_all
from measure import x64

from jaxdiv import categorical, metrics

ULP = np.finfo(np.float32).eps


def stream(seed=0, n=960, groups=7):
    """Values, weights (some of them zero), a mask and groups; what is masked or weighs nothing is nan."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(0.5, size=n).astype(np.float32)
    weights = np.where(rng.random(n) < 0.1, 0, rng.random(n)).astype(np.float32)
    where = rng.random(n) < 0.8
    return np.where(where & (weights > 0), values, np.nan), weights, where, rng.integers(groups, size=n)


def reference(values, weights):
    """Mean, standard error and weight in float64."""
    mean = np.average(values, weights=weights)
    count = weights.sum() ** 2 / np.sum(weights**2)
    variance = np.average((values - mean) ** 2, weights=weights)
    return mean, np.sqrt(variance / (count - 1)), weights.sum()


def test_means_are_weighted_and_masked_and_of_each_group():
    values, weights, where, groups = stream()
    state = metrics.update(metrics.empty(7), values, weights=weights, where=where, groups=groups)
    for group in range(7):
        here = where & (weights > 0) & (groups == group)
        expected = reference(values[here].astype(np.float64), weights[here].astype(np.float64))
        np.testing.assert_allclose([x[group] for x in metrics.compute(state)[:3]], expected, 20 * ULP)
    assert metrics.compute(state).left_out == 0


def test_without_weights_the_standard_error_is_that_of_a_sample():
    values = np.random.default_rng(0).random((2, 50), np.float32)
    found = metrics.compute(metrics.update(metrics.empty(), values))
    np.testing.assert_allclose(found.standard_error, scipy.stats.sem(values, axis=None), 10 * ULP)
    assert found.weight == values.size


def test_nothing_has_no_mean_and_one_value_no_standard_error():
    assert jnp.all(
        jnp.isnan(metrics.compute(metrics.update(metrics.empty(2), jnp.zeros(0), groups=jnp.arange(0))).mean)
    )
    nothing = metrics.update(metrics.empty(), jnp.zeros((0, 3)))
    assert jnp.isnan(metrics.compute(nothing).mean)
    assert metrics.compute(nothing).weight == 0
    one = metrics.compute(metrics.update(nothing, jnp.ones(1)))
    assert one.mean == 1
    assert jnp.isnan(one.standard_error)


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_fault_stays_in_its_group_and_an_infinite_value_makes_an_infinite_mean(fault):
    values = np.array([1.0, fault, 3.0, 5.0], np.float32)
    state = metrics.update(metrics.empty(2), values, groups=np.array([0, 1, 0, 1]))
    state = metrics.merge(state, metrics.update(metrics.empty(2), values[:1], groups=np.array([1])))
    np.testing.assert_array_equal(metrics.compute(state).mean, [2, fault])


def test_a_group_that_does_not_exist_is_left_out():
    state = metrics.update(metrics.empty(2), jnp.ones(4), groups=jnp.array([-1, 0, 1, 2]))
    np.testing.assert_array_equal(metrics.compute(state).weight, [1, 1])


@pytest.mark.parametrize(("dtype", "groups"), [(np.uint8, 256), (np.int8, 200)])
def test_numbers_of_groups_may_be_narrower_than_their_count(dtype, groups):
    state = metrics.update(metrics.empty(groups), jnp.array([2.0, 4.0]), groups=np.array([3, 100], dtype))
    means = metrics.compute(state).mean
    assert (means[3], means[100]) == (2, 4)
    assert np.isfinite(means).sum() == 2


def test_what_is_left_out_is_counted_and_merged():
    weights = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
    where = jnp.array([True, True, True, True, False])
    state = metrics.update(
        metrics.empty(2), jnp.array([jnp.nan, 1, 1, jnp.inf, 1]), weights=weights, where=where, groups=jnp.arange(-1, 4)
    )
    assert metrics.compute(state).left_out == 5
    assert metrics.compute(metrics.merge(state, state)).left_out == 10
    np.testing.assert_array_equal(metrics.compute(state).mean, [1, 1])
    assert metrics.compute(metrics.update(metrics.empty(), jnp.ones(3))).left_out == 0


def test_the_slope_in_a_weight_of_zero_is_that_of_the_mean_and_nothing_flows_from_what_is_not_finite():
    x, w = jnp.array([1.0, 5.0, jnp.nan, jnp.inf, 9.0]), jnp.array([2.0, 0.0, 0.0, 0.0, 2.0])
    where = jnp.array([True, True, True, True, False])

    def mean(x, w):
        return metrics.compute(metrics.update(metrics.empty(), x, weights=w, where=where)).mean

    of_x, of_w = jax.grad(mean, (0, 1))(x, w)
    assert mean(x, w) == 1
    np.testing.assert_array_equal(of_x, [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(of_w, [0, 2, -0.5, -0.5, 0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(6)))
def test_parts_may_be_merged_in_any_order(seed, order):
    values, weights, where, groups = (x.reshape(6, -1) for x in stream(seed))
    parts = [
        metrics.update(metrics.empty(7), x, weights=w, where=m, groups=g)
        for x, w, m, g in zip(values, weights, where, groups, strict=True)
    ]
    state = functools.reduce(metrics.merge, [parts[i] for i in order], metrics.empty(7))
    forward = functools.reduce(metrics.merge, parts)
    for x, y in zip(metrics.compute(state), metrics.compute(forward), strict=True):
        np.testing.assert_allclose(x, y, 4 * ULP)


# ---------------------------------------------------------------- long streams


def scanned(state, values, steps):
    """`steps` updates by the same values, in compensated sums and in plain ones."""

    def step(carry, _):
        state, total = carry
        return (metrics.update(state, values), total + jnp.sum(values)), None

    (state, total), _ = jax.lax.scan(step, (state, state.values.high), length=steps)
    return metrics.compute(state), total


@pytest.mark.gate  # seconds of steps; the next test adds to as large a sum
def test_a_hundred_million_updates_lose_nothing_where_a_plain_sum_stands_still():
    found, plain = jax.jit(scanned, static_argnums=2)(metrics.empty(), jnp.full(1, 0.1), 10**8)
    assert found.weight == 10**8
    np.testing.assert_allclose(found.mean, np.float32(0.1), ULP)
    assert plain / 1e8 < 0.03


def test_updates_count_after_a_hundred_million():
    state = metrics.update(metrics.empty(), jnp.ones(1), weights=jnp.full(1, 1e8))
    found, plain = jax.jit(scanned, static_argnums=2)(state, jnp.full(1, 3.0), 10**5)
    assert plain == 1e8
    np.testing.assert_allclose(found.weight, 1e8 + 1e5, ULP)
    np.testing.assert_allclose(found.mean, (1e8 + 3e5) / (1e8 + 1e5), ULP)


def test_one_large_batch_of_few_groups_loses_nothing_where_a_plain_scatter_does():
    values, groups = jnp.full(2**18 + 5, 0.1), jnp.arange(2**18 + 5) % 3
    found = metrics.compute(metrics.update(metrics.empty(3), values, groups=groups))
    np.testing.assert_allclose(found.mean, np.float32(0.1), 32 * ULP)
    plain = jax.ops.segment_sum(values, groups, 3) / jax.ops.segment_sum(jnp.ones_like(values), groups, 3)
    assert np.all(np.abs(plain - 0.1) > 1e-5)


# ---------------------------------------------------------------- transformations


def test_a_state_is_a_scan_carry_a_batch_and_differentiable():
    values = jnp.asarray(np.random.default_rng(0).random((5, 8)), jnp.float32)
    whole = metrics.compute(metrics.update(metrics.empty(), values))
    step = jax.checkpoint(lambda state, x: (metrics.update(state, x), None))
    np.testing.assert_allclose(metrics.compute(jax.lax.scan(step, metrics.empty(), values)[0]), whole, 4 * ULP)
    columns = jax.vmap(lambda x: metrics.compute(metrics.update(metrics.empty(), x)).mean)(values)
    np.testing.assert_allclose(columns, values.mean(-1), 4 * ULP)

    def mean(values):
        return metrics.compute(jax.lax.scan(step, metrics.empty(), values)[0]).mean

    np.testing.assert_allclose(jax.jit(jax.grad(mean))(values), np.full((5, 8), 1 / 40), 1e-6)
    np.testing.assert_allclose(jax.jvp(mean, (values,), (values,))[1], whole.mean, 1e-6)


def test_states_are_float64_where_that_is_the_default_and_half_precision_is_summed_in_float32():
    with x64(np.float64):
        state = metrics.update(metrics.empty(), np.full(3, 0.1))
        assert metrics.compute(state).mean.dtype == np.float64
    found = metrics.compute(metrics.update(metrics.empty(), jnp.full(1000, 0.1, jnp.bfloat16)))
    np.testing.assert_allclose(found.mean, jnp.float32(jnp.bfloat16(0.1)), 4 * ULP)


def test_numpy_saves_a_state(tmp_path):
    values, _, where, groups = stream()
    state = metrics.update(metrics.empty(7), values, where=where & np.isfinite(values), groups=groups)
    np.savez(tmp_path / "state.npz", *jax.tree.leaves(state))
    with np.load(tmp_path / "state.npz") as file:
        loaded = jax.tree.unflatten(jax.tree.structure(metrics.empty()), list(file.values()))
    for x, y in zip(metrics.compute(loaded), metrics.compute(state), strict=True):
        np.testing.assert_array_equal(x, y)


# ---------------------------------------------------------------- many devices


def mesh(kind):
    return jax.make_mesh((8,), ("x",), axis_types=(kind,))


@pytest.mark.parametrize(
    ("kind", "grouped"),
    [(AxisType.Auto, True), (AxisType.Explicit, False), *with_all((AxisType.Auto, False), (AxisType.Explicit, True))],
    ids=str,
)
def test_an_update_by_sharded_values_reduces_sums_alone(kind, grouped):
    rng = np.random.default_rng(0)
    laws = rng.normal(size=(2, 8 * 37, 16)).astype(np.float32)
    groups = rng.integers(5, size=8 * 37) if grouped else None

    @jax.jit
    def step(state, p, q, groups):
        values = jax.vmap(categorical.kl)(p, q)
        groups = None if groups is None else jnp.where(metrics.bins(values, EDGES) < 0, -1, groups)
        return metrics.update(state, values, groups=groups)

    state = metrics.empty(5 if grouped else None)
    place = functools.partial(jax.device_put, device=NamedSharding(mesh(kind), P("x")))
    arrays = *map(place, laws), None if groups is None else place(groups)
    with jax.set_mesh(mesh(kind)) if hasattr(jax, "set_mesh") else jax.sharding.use_mesh(mesh(kind)):
        compiled = step.lower(state, *arrays).compile()
        text = compiled.as_text()
        assert not any(name in text for name in ("all-gather", "all-to-all", "collective-permute"))
        found = metrics.compute(compiled(state, *arrays))
    for name, x, y in zip(found._fields, found, metrics.compute(step(state, *laws, groups)), strict=True):
        # The variance is a difference of numbers nine times as large.
        np.testing.assert_allclose(x, y, (32 if name == "standard_error" else 10) * ULP)


def test_psum_merges_what_scans_on_all_devices_have_summed():
    values, weights, where, groups = stream()

    @functools.partial(jax.shard_map, mesh=mesh(AxisType.Auto), in_specs=P("x"), out_specs=P())
    def merged(values, weights, where, groups):
        def step(state, part):
            x, w, m, g = part
            return metrics.update(state, x, weights=w, where=m, groups=g), None

        state = metrics.update(metrics.empty(7), values[:0], groups=groups[:0])
        parts = [x.reshape(5, -1) for x in (values, weights, where, groups)]
        return jax.lax.psum(jax.lax.scan(step, state, parts)[0], "x")

    whole = metrics.update(metrics.empty(7), values, weights=weights, where=where, groups=groups)
    found = jax.jit(merged)(values, weights, where, groups)
    for x, y in zip(metrics.compute(found), metrics.compute(whole), strict=True):
        np.testing.assert_allclose(x, y, 10 * ULP)


# ---------------------------------------------------------------- histograms


EDGES = np.linspace(0.1, 0.9, 9).astype(np.float32)


@jax.jit
def histogram(values):
    return metrics.update(metrics.empty(10), values, groups=metrics.bins(values, EDGES))


def test_a_histogram_counts_what_is_in_each_bin_and_no_nan():
    values = np.array([-1, 0.1, 0.15, 2, np.nan, np.inf], np.float32)
    np.testing.assert_array_equal(metrics.compute(histogram(values)).weight, [1, 2, 0, 0, 0, 0, 0, 0, 0, 2])


@pytest.mark.parametrize("edges", [0, 1, 32, 33])
def test_a_value_on_an_edge_is_above_it_however_many_there_are(edges):
    edges = np.linspace(1, 2, edges).astype(np.float32)
    values = np.concatenate([[-1, 3, -np.inf], edges, np.nextafter(edges, np.float32(-1))]).astype(np.float32)
    np.testing.assert_array_equal(metrics.bins(values, edges), np.searchsorted(edges, values, side="right"))


def test_drift_is_the_divergences_of_frequencies_and_zero_without_any():
    rng = np.random.default_rng(0)
    old, new = rng.random(500).astype(np.float32), (rng.random(300) ** 1.2).astype(np.float32)
    found = metrics.drift(histogram(old), histogram(new))
    q, p = (np.histogram(x, np.r_[-np.inf, EDGES, np.inf])[0] / len(x) for x in (old, new))
    m = (p + q) / 2
    np.testing.assert_allclose(found.js, (np.sum(p * np.log(p / m)) + np.sum(q * np.log(q / m))) / 2, 1e-5)
    np.testing.assert_allclose(found.kl, np.sum(p * np.log(p / q)), 1e-5)
    np.testing.assert_allclose(found.psi, np.sum((p - q) * np.log(p / q)), 1e-5)
    np.testing.assert_allclose(found.psi_bias, 9 * (1 / 500 + 1 / 300), 1e-5)
    same = metrics.drift(histogram(old), histogram(old))
    assert same.js == same.kl == same.psi == same.js_standard_error == 0
    assert same.p_value == 1


def test_empty_bins_are_infinite_unless_counts_are_added_and_empty_histograms_nan():
    old, new = histogram(np.linspace(0, 1, 50, dtype=np.float32)), histogram(np.full(20, 0.5, np.float32))
    found = metrics.drift(new, old)
    assert found.kl == found.psi == np.inf
    assert np.isfinite([found.js, found.p_value, found.js_standard_error]).all()
    assert np.isfinite(metrics.drift(new, old, pseudo_count=0.5)).all()
    for pseudo_count in (0.0, 1.0):
        for pair in ((old, metrics.empty(10)), (metrics.empty(10), old), (metrics.empty(10), metrics.empty(10))):
            assert np.isnan(metrics.drift(*pair, pseudo_count=pseudo_count)[:8]).all()
        table = metrics.drift_table({"a": np.arange(9.0)}, {"a": np.zeros(0)}, pseudo_count=pseudo_count)
        assert np.isnan([x for name, x in table.drift._asdict().items() if "left_out" not in name]).all()


@pytest.mark.gate
def test_by_chance_divergences_have_their_biases_and_p_values_are_uniform():
    n, m, draws = 400, 700, 2000
    values = jax.random.uniform(jax.random.key(0), (draws, n + m))
    found = jax.jit(jax.vmap(lambda x: metrics.drift(histogram(x[:n]), histogram(x[n:]))))(values)
    # Next to the first-order bias there is a second-order one of order k/n, 3 %; a mean of draws is good to 1 %.
    for divergence, bias in ((found.js, found.js_bias), (found.kl, found.kl_bias), (found.psi, found.psi_bias)):
        np.testing.assert_allclose(np.mean(divergence), np.mean(bias), 0.06)
    # Kolmogorov's distance of 2000 uniform numbers exceeds .044 once in a thousand times.
    assert scipy.stats.kstest(found.p_value, "uniform").statistic < 0.044


@pytest.mark.gate
def test_the_standard_error_of_a_drift_is_its_spread():
    n, m, draws = 2000, 3000, 1000
    values = jax.random.uniform(jax.random.key(1), (draws, n + m))
    found = jax.jit(jax.vmap(lambda x: metrics.drift(histogram(x[:n]), histogram(x[n:] ** 1.5))))(values)
    np.testing.assert_allclose(np.std(found.js), np.mean(found.js_standard_error), 0.1)


def test_weights_count_as_the_equal_ones_that_would_be_as_noisy():
    values = np.random.default_rng(0).random(400).astype(np.float32)
    groups = metrics.bins(values, EDGES)
    double = metrics.update(metrics.empty(10), values, weights=np.full(400, 2, np.float32), groups=groups)
    np.testing.assert_allclose(
        metrics.drift(histogram(values[:99]), double), metrics.drift(histogram(values[:99]), histogram(values)), 1e-5
    )


def test_ready_made_counts_are_the_state_of_as_many_values():
    counts = np.array([[100, 200, 300, 0], [110, 190, 300, 0]])
    made = [metrics.from_counts(c) for c in counts]
    for c, state in zip(counts, made, strict=True):
        groups = np.repeat(np.arange(4), c)
        values = metrics.update(metrics.empty(4), np.ones(groups.shape, np.float32), groups=groups)
        jax.tree.map(np.testing.assert_array_equal, state, values)
    found = metrics.drift(*made)
    np.testing.assert_allclose(found.js_bias, 2 * (1 / 600 + 1 / 600) / 8, 1e-5)
    np.testing.assert_allclose(found.p_value, 0.6932, atol=1e-3)  # of the G-test and of Pearson's


class Column:
    """A column as pandas has them: `to_numpy`, with objects for missing values unless told what else to take."""

    def __init__(self, values):
        self.values = values

    def to_numpy(self, dtype=None, na_value=None):
        return np.array([na_value if x is None and dtype is float else x for x in self.values], dtype)


@pytest.mark.parametrize("of", [np.int64, np.int32, np.float32, np.uint8, jnp.int32, Column])
def test_counts_are_exact_in_any_dtype(of):
    truth = np.array([3, 0, 2**8 - 1 if of == np.uint8 else 2**24 + 2])
    counts = Column(truth) if of is Column else jnp.asarray(truth, of) if of is jnp.int32 else truth.astype(of)
    state = metrics.from_counts(counts, left_out=7)
    np.testing.assert_array_equal(
        sum(np.asarray(x, np.float64) for x in state.weights), getattr(counts, "values", counts)
    )
    assert metrics.compute(state).left_out == 7
    large = metrics.from_counts(np.array([2**40 + 1]))
    assert sum(np.asarray(x, np.float64) for x in large.weights) == 2**40 + 1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_counts_of_half_precision_are_counted_in_float32(dtype):
    halves = jnp.array([40000, 256, 1], dtype)  # their sum is not a number of half precision
    for counts in (halves, np.asarray(halves)):
        found = metrics.compute(metrics.from_counts(counts, left_out=70001))
        np.testing.assert_array_equal(found.weight, halves.astype(jnp.float32))
        assert found.left_out == 70001


def test_counts_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match=r"^metrics.from_counts takes counts \[g\].*; got counts\[2, 3\]"):
        metrics.from_counts(np.ones((2, 3)))
    with pytest.raises(TypeError, match=r"^metrics.from_counts takes counts as integers.*; got bool"):
        metrics.from_counts(np.ones(3, bool))


def test_values_in_no_group_are_reported_and_count_by_choice():
    old, new = np.array([0, 1, 2] * 100), np.array([0, 1, 2, 7] * 75)
    old, new = (metrics.update(metrics.empty(3), np.ones(300, np.float32), groups=x) for x in (old, new))
    left_alone = metrics.drift(old, new)
    assert (left_alone.p_value, left_alone.left_out, left_alone.reference_left_out) == (1, 0.25, 0)
    counted = metrics.drift(old, new, left_out=True)
    with_room = metrics.drift(metrics.from_counts([100, 100, 100, 0]), metrics.from_counts([75, 75, 75, 75]))
    np.testing.assert_allclose(counted[:8], with_room[:8], 1e-6)
    assert counted.p_value < 1e-15
    assert counted.kl == np.inf
    half = jax.random.uniform(jax.random.key(0), (500,))
    missing = metrics.drift(histogram(half), histogram(half.at[::2].set(jnp.nan)), left_out=True)
    assert missing.left_out == 0.5
    assert missing.p_value < 1e-15


def test_nothing_left_out_is_no_bin():
    old, new = metrics.from_counts([5, 3]), metrics.from_counts([2, 9])
    jax.tree.map(np.testing.assert_array_equal, metrics.drift(old, new), metrics.drift(old, new, left_out=True))


@pytest.mark.parametrize("bins", [1, 3])
def test_groups_without_values_weights_of_zero_and_few_values_have_sensible_numbers(bins):
    padding = [0] * (bins - 1)
    one, other = metrics.from_counts([1, 0, *padding]), metrics.from_counts([0, 1, *padding])
    many = metrics.from_counts([1000, 1000, *padding])
    for pair in ((one, one), (one, other), (one, many), (many, one), (many, many)):
        found = metrics.drift(*pair)
        assert not any(map(np.isnan, found))
        assert found.p_value >= 0.3  # one value says nothing
    np.testing.assert_array_equal(metrics.drift(one, other).js, np.float32(np.log(2)))
    weightless = metrics.update(many, jnp.ones(2), weights=jnp.zeros(2), groups=jnp.array([1, 2 + bins]))
    jax.tree.map(np.testing.assert_array_equal, weightless, many)
    for pair in ((metrics.empty(2), many), (metrics.empty(2), metrics.empty(2))):
        if len(padding) == 0:
            found = metrics.drift(*pair)
            assert np.isnan([found.js, found.p_value]).all()
            assert (found.left_out, found.reference_left_out) == (0, 0)


@pytest.mark.gate
def test_p_values_reject_as_often_as_they_say_with_few_and_many_bins_and_sparse_ones():
    rng = np.random.default_rng(0)
    states = jax.jit(jax.vmap(lambda a, b: metrics.drift(metrics.from_counts(a), metrics.from_counts(b)).p_value))
    draws = 2000
    for bins in (2, 3, 5, 10, 50, 200):
        for concentration in (0.5, 100.0):
            for n, m in ((50, 50), (30, 1000), (1000, 1000), (5000, 5000)):
                law = rng.dirichlet(np.full(bins, concentration))
                counts = (rng.multinomial(size, law, draws).astype(np.float32) for size in (n, m))
                rejected = np.mean(np.asarray(states(*counts)) < np.array([[0.05], [0.01]]), axis=1)
                # The noise of 2000 draws is .005 and .002. A table of few bins has few values of X^2: none may be
                # as rare as asked for.
                assert rejected[0] < 0.07
                assert rejected[1] < 0.02
                assert bins < 5 or rejected[0] > 0.035


def test_the_moments_of_the_null_are_those_of_all_tables_with_the_margins():
    # All ways to put 7 values of the first sample among 4, 3, 2, 1 and 1 of both: p of the mean and of an extreme.
    both, n = np.array([4, 3, 2, 1, 1]), 7
    tables = np.stack(np.meshgrid(*[np.arange(t + 1) for t in both], indexing="ij"), -1).reshape(-1, 5)
    tables = tables[tables.sum(1) == n]
    ways = np.prod(scipy.special.comb(both, tables), 1)
    ways /= ways.sum()
    pearson = np.sum((tables - both * n / 11) ** 2 / both, 1) / (n * (11 - n) / 11**2)
    mean = ways @ pearson
    law = scipy.stats.gamma(mean**2 / (ways @ (pearson - mean) ** 2), scale=(ways @ (pearson - mean) ** 2) / mean)
    p = jax.vmap(lambda a, b: metrics.drift(metrics.from_counts(a), metrics.from_counts(b)).p_value)
    np.testing.assert_allclose(p(tables, both - tables), law.sf(pearson), 2e-5)


def _p_of_gamma(a, b):
    """The p-value of the gamma distribution with the exact moments of Dawson; 1 if X^2 can have one value only."""
    a, b = a[a + b > 0], b[a + b > 0]
    t, n, m = a + b, int(a.sum()), int(b.sum())
    total, bins = n + m, len(t)
    pearson = sum(Fraction(int(x * m - y * n) ** 2, int(x + y) * n * m) for x, y in zip(a, b, strict=True))
    mean = Fraction((bins - 1) * total, total - 1)
    v, w = Fraction(total - 2, total - 1), Fraction((n - m) ** 2, n * m * max(total - 2, 1))
    v_bins = Fraction((bins - 1) * (total - bins), total - 1)
    w_bins = (total * sum(Fraction(1, int(x)) for x in t) - bins**2) / max(total - 2, 1)
    variance = Fraction(2 * total, max(total - 3, 1)) * (v - w) * (v_bins - w_bins)
    variance += Fraction(total**2, total - 1) * w * w_bins
    if variance == 0:
        return 1.0
    return scipy.stats.gamma.sf(float(pearson), float(mean**2 / variance), scale=float(variance / mean))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_p_values_of_sparse_tables_are_those_of_the_exact_moments_and_1_without_a_choice(dtype):
    rng = np.random.default_rng(0)
    tables = [rng.poisson(rng.choice([0.05, 0.5, 3]), (2, bins)) for bins in (2, 5, 40) for _ in range(60)]
    tables += [np.array([[size], [other]]) for size in (1, 37, 400) for other in (1, 41, 300)]  # one bin
    tables += [np.eye(2, dtype=int).repeat([k, j], 1) for k in (1, 2, 37) for j in (1, 3, 41)]  # a bin to each value
    tables += [np.array([[1, 0, 0], [k - 1, k, k]]) for k in (2, 7, 100)]  # one value, equal bins
    tables += [np.array([[1, k], [0, k + 1]]) for k in (3, 10, 501)]  # equal samples, one bin of one value
    tables = [np.pad(x, ((0, 0), (0, 80 - x.shape[1]))) for x in tables if np.all(x.sum(1) > 0)]
    expected = np.array([_p_of_gamma(*x) for x in tables])
    assert np.sum(expected == 1) > 30
    with x64(dtype):
        p = jax.jit(jax.vmap(lambda a, b: metrics.drift(metrics.from_counts(a), metrics.from_counts(b)).p_value))
        found = p(*np.stack(tables, 1).astype(dtype))
    np.testing.assert_array_equal(found[expected == 1], 1)
    np.testing.assert_allclose(found, expected, 5e-4)


def test_weighted_values_of_one_law_are_not_rejected_more_often():
    rng = np.random.default_rng(0)
    groups = rng.integers(20, size=(2, 1000, 300))
    weights = rng.exponential(size=groups.shape).astype(np.float32)

    def state(groups, weights):
        return metrics.update(metrics.empty(20), jnp.ones_like(weights), weights=weights, groups=groups)

    found = jax.jit(jax.vmap(lambda g, w: metrics.drift(state(g[0], w[0]), state(g[1], w[1])).p_value))
    p = found(groups.swapaxes(0, 1), weights.swapaxes(0, 1))
    assert 0.02 < np.mean(p < 0.05) < 0.08


# ---------------------------------------------------------------- edges and columns


def test_edges_that_do_not_increase_are_refused_where_they_have_values():
    values = jnp.array([7.0, 8.0])
    for wrong, message in (
        ([1.0, 7.0, 7.0], r"edges\[1\] = 7.0, edges\[2\] = 7.0"),
        ([2.0, 1.0], r"edges\[0\] = 2.0, edges\[1\] = 1.0"),
        ([np.nan, 1.0], r"edges\[0\] = nan"),
        ([np.nan], r"edges\[0\] = nan"),
    ):
        with pytest.raises(ValueError, match=rf"^metrics.bins takes edges that increase; got {message}"):
            metrics.bins(values, np.array(wrong))
    with pytest.raises(ValueError, match=r"^metrics.bins takes edges that increase"):
        metrics.bins(values, np.array([1, 1 + 1e-12]))  # equal in float32
    with pytest.raises(ValueError, match=r"^metrics.bins takes edges on one axis; got edges\[1, 2\]"):
        metrics.bins(values, np.ones((1, 2)))
    np.testing.assert_array_equal(jax.jit(metrics.bins)(values, jnp.array([1.0, 7.0, 7.0])), [3, 3])  # not known


@pytest.mark.parametrize("bins", [2, 3, 10, 50])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_edges_make_equal_bins_and_separate_ties(bins, dtype):
    rng = np.random.default_rng(0)
    normal = rng.normal(size=5000)
    columns = {
        "continuous": normal,
        "zeros": np.where(rng.random(5000) < 0.6, 0, np.abs(normal)),
        "integers": rng.integers(5, size=5000),
        "missing": np.where(rng.random(5000) < 0.3, np.nan, normal),
        "ends": np.where(rng.random(5000) < 0.3, np.inf, normal),
    }
    for name, x in columns.items():
        x = x.astype(dtype)
        edges = metrics.edges(x, bins)
        assert len(edges) <= bins - 1
        groups = np.asarray(metrics.bins(x, edges))  # which checks that they increase
        shares = np.bincount(groups[groups >= 0], minlength=len(edges) + 1) / np.sum(~np.isnan(x))
        if name in ("continuous", "missing") and dtype != np.float16:
            np.testing.assert_allclose(shares, 1 / bins, atol=1e-3)
        ties = {"zeros": 0, "ends": np.inf}
        if name in ties and bins > 3:
            assert len(np.unique(x[groups == groups[x == ties[name]][0]])) == 1


@pytest.mark.parametrize("value", [7.0, 0.0, -1e-38, 1e-45, -3.0])
@pytest.mark.parametrize("bins", [2, 3, 10])
def test_a_constant_has_a_bin_of_its_own(value, bins):
    edges = metrics.edges(jnp.full(50, value), bins)
    np.testing.assert_array_equal(metrics.bins(jnp.array([value - 1, value, value + 1]), edges), [0, 1, 2])


def test_edges_of_nothing_are_none_and_wrong_ones_refused():
    for nothing in (np.zeros(0, np.float32), np.full(3, np.nan, np.float32)):
        assert metrics.edges(nothing, 10).shape == (0,)
    with pytest.raises(ValueError, match=r"^metrics.edges takes bins in \[2, inf\]; got 1"):
        metrics.edges(jnp.ones(3), 1)
    with pytest.raises(TypeError, match=r"^metrics.edges takes values; got a traced array"):
        jax.jit(lambda x: metrics.edges(x, 3))(jnp.ones(3))


def test_columns_of_data_frames_are_arrays():
    x = Column([0.5, 1.5, np.nan, 2.5])
    edges = metrics.edges(x, 2)
    groups = Column(metrics.bins(x, edges))
    state = metrics.update(
        metrics.empty(2), x, groups=groups, weights=Column(np.ones(4)), where=Column([True, True, False, True])
    )
    np.testing.assert_array_equal(metrics.compute(state).weight, [1, 2])
    np.testing.assert_array_equal(metrics.bins(Column([0.5, None, 2.5]), np.array([1.0])), [0, -1, 1])
    for wrong in ([0.5, 1.5], Column(["a", "b"]), np.array([None, "a"])):
        with pytest.raises(TypeError, match=r"^metrics.bins takes (arrays|numbers); got values"):
            metrics.bins(wrong, edges)


def _tables():
    rng = np.random.default_rng(0)
    old, new = (
        {
            "same": rng.normal(size=n),
            "moved": rng.normal(size=n) + (n < 1000),
            "missing": np.where(rng.random(n) < (0.5 if n < 1000 else 0), np.nan, rng.normal(size=n)),
            "color": rng.choice(["red", "blue", "green"] if n < 1000 else ["red", "blue"], n),
            "code": rng.integers(3, size=n),
            "constant": np.full(n, 7.0 if n >= 1000 else 8.0),
            "objects": np.array(["a", None] * (n // 2), object),
        }
        for n in (2000, 500)
    )
    return old, new


def test_a_table_finds_the_columns_that_drift_in_one_program():
    old, new = _tables()
    table = metrics.drift_table(old, new)
    assert table.names == tuple(old)
    alarm = dict(zip(table.names, table.corrected_p_value < 0.05, strict=True))
    assert alarm == {name: name in ("moved", "missing", "color", "constant") for name in old}
    np.testing.assert_allclose(table.unseen, [0, 0, 0, np.mean(new["color"] == "green"), 0, 1, 0], 1e-6)
    np.testing.assert_allclose(table.missing, [0, 0, np.mean(np.isnan(new["missing"])), 0, 0, 0, 0.5], 1e-6)
    np.testing.assert_allclose(table.reference_missing, [0] * 6 + [0.5])
    np.testing.assert_array_equal(table.corrected_p_value, metrics.holm(table.drift.p_value))
    edges = np.float32(metrics.edges(old["moved"], 10))
    states = [metrics.update(metrics.empty(10), x["moved"], groups=metrics.bins(x["moved"], edges)) for x in (old, new)]
    np.testing.assert_allclose(table.drift.js[1], metrics.drift(*states).js, 1e-3)


class Frame:
    """A data frame as polars has them: `columns`, and a column by its name."""

    def __init__(self, columns):
        self.columns = list(columns)
        self.of = columns

    def __getitem__(self, name):
        return Column(self.of[name])


def test_a_data_frame_and_an_array_are_tables():
    old, new = _tables()
    of_dict, of_frames = metrics.drift_table(old, new), metrics.drift_table(Frame(old), Frame(new))
    assert of_frames.names == of_dict.names
    np.testing.assert_array_equal(of_frames.drift, of_dict.drift)
    numbers = [np.stack([x["same"], x["moved"]], 1) for x in (old, new)]
    of_arrays = metrics.drift_table(*numbers, correction=metrics.benjamini_hochberg)
    assert of_arrays.names == (0, 1)
    np.testing.assert_array_equal(of_arrays.drift, [x[:2] for x in of_dict.drift])


def test_wrong_tables_are_refused():
    x = np.ones((5, 2))
    with pytest.raises(ValueError, match=r"^metrics.drift_table takes tables of the same columns; got 2 in one"):
        metrics.drift_table(x, np.ones((5, 3)))
    with pytest.raises(TypeError, match=r"^metrics.drift_table takes reference as a data frame.*; got list"):
        metrics.drift_table([1.0], x)
    with pytest.raises(TypeError, match=r"^metrics.drift_table takes correction as a function.*; got 'holm'"):
        metrics.drift_table(x, x, correction="holm")
    with pytest.raises(ValueError, match=r"^metrics.drift_table takes bins in \[2, inf\]; got 1"):
        metrics.drift_table(x, x, bins=1)


def test_corrections_are_those_of_their_papers():
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.9, 0.03], np.float32)
    np.testing.assert_allclose(metrics.holm(p), [0.05, 0.12, 0.12, 0.03, 0.9, 0.12], 1e-5)
    np.testing.assert_allclose(metrics.benjamini_hochberg(p), scipy.stats.false_discovery_control(p), 1e-5)
    order = np.random.default_rng(0).permutation(6)
    for correction in (metrics.holm, metrics.benjamini_hochberg):
        np.testing.assert_array_equal(correction(p[order]), correction(p)[order])
        with_nan = correction(np.insert(p, 2, np.nan))
        np.testing.assert_array_equal(with_nan, np.insert(correction(p), 2, np.nan))


@pytest.mark.parametrize("correction", [metrics.holm, metrics.benjamini_hochberg])
def test_no_tests_need_no_correction(correction):
    assert correction(jnp.zeros(0)).shape == (0,)


@pytest.mark.parametrize("correction", [metrics.holm, metrics.benjamini_hochberg])
def test_half_precision_counts_any_number_of_tests(correction):
    n = 70000  # beyond float16
    p = jnp.zeros(n, jnp.float16).at[1].set(0.5).at[2].set(jnp.nan)
    wide = correction(p.astype(jnp.float32))
    np.testing.assert_array_equal(correction(p), wide.astype(jnp.float16))
    assert jnp.sum(jnp.isnan(wide)) == 1
    assert correction(p).dtype == jnp.float16


# ---------------------------------------------------------------- calibration


def reliability(p, y):
    groups = metrics.bins(p, EDGES)
    return metrics.calibration(*(metrics.update(metrics.empty(10), x, groups=groups) for x in (p, y)))


def test_calibration_is_the_bernoulli_divergence_of_bins():
    rng = np.random.default_rng(0)
    p = rng.random(2000).astype(np.float32)
    y = (rng.random(2000) < p**1.5).astype(np.float32)
    found, group = reliability(p, y), np.searchsorted(EDGES, p, side="right")
    kl = error = 0
    for b in range(10):
        mean_y, mean_p, share = y[group == b].mean(), p[group == b].astype(np.float64).mean(), np.mean(group == b)
        kl += share * (mean_y * np.log(mean_y / mean_p) + (1 - mean_y) * np.log((1 - mean_y) / (1 - mean_p)))
        error += share * abs(mean_y - mean_p)
    np.testing.assert_allclose([found.kl, found.absolute_error], [kl, error], 1e-4)
    np.testing.assert_allclose(found.kl_bias, 10 / 4000, 1e-6)


def test_calibrated_probabilities_have_the_bias_alone():
    key_p, key_y = jax.random.split(jax.random.key(0))
    p = jax.random.uniform(key_p, (1000, 2000))
    found = jax.jit(jax.vmap(reliability))(p, (jax.random.uniform(key_y, p.shape) < p).astype(p.dtype))
    np.testing.assert_allclose(np.mean(found.kl), np.mean(found.kl_bias), 0.1)  # bins are not points: 2 % less


def test_certainty_that_is_wrong_is_infinite_and_empty_bins_do_not_matter():
    assert reliability(jnp.ones(2), jnp.zeros(2)).kl == jnp.inf
    right = reliability(jnp.ones(2), jnp.ones(2))
    assert right.kl == right.absolute_error == 0
    assert jnp.isnan(reliability(jnp.zeros(0), jnp.zeros(0)).kl)


# ---------------------------------------------------------------- errors


def test_wrong_arguments_are_refused():
    update, state, x = metrics.update, metrics.empty(2), jnp.ones(3)
    with pytest.raises(TypeError, match=r"^metrics.update takes floating-point numbers; got values int32\[3\]"):
        update(metrics.empty(), jnp.arange(3))
    with pytest.raises(TypeError, match=r"^metrics.update takes groups as integers; got float32"):
        update(state, x, groups=x)
    with pytest.raises(ValueError, match=r"^metrics.update takes the group of each value.*; got none"):
        update(state, x)
    with pytest.raises(ValueError, match=r"^metrics.update takes groups if .*; got a state without"):
        update(metrics.empty(), x, groups=jnp.arange(3))
    with pytest.raises(ValueError, match=r"got values\[3\] and weights\[2\]"):
        update(metrics.empty(), x, weights=jnp.ones(2))
    with pytest.raises(ValueError, match=r"^metrics.drift takes .*; got reference\[2\] and current\[3\]"):
        metrics.drift(state, metrics.empty(3))
    for groups, text in ((None, ""), (2, "2")):
        with pytest.raises(ValueError, match=rf"^metrics.merge takes .*; got a\[{text}\] and b\[3\]\. Make both"):
            metrics.merge(metrics.empty(groups), metrics.empty(3))
    for groups in (-1, 0):
        with pytest.raises(ValueError, match=rf"^metrics.empty takes groups in \[1, inf\]; got {groups}\."):
            metrics.empty(groups)
    with pytest.raises(TypeError, match=r"^metrics.empty takes groups as an integer; got 2\.5\. Pass 2"):
        metrics.empty(2.5)
    with pytest.raises(ValueError, match=r"^metrics.calibration takes .*; got confidence\[\] and outcome\[\]"):
        metrics.calibration(metrics.empty(), metrics.empty())


def test_counts_of_any_integer_dtype_are_counted_and_so_is_what_is_left_out():
    for dtype in (np.uint32, np.int64, np.uint64):
        state = metrics.from_counts(np.array([2**24 + 3, 5], dtype))
        np.testing.assert_array_equal(metrics.compute(state).weight, np.float32([2**24 + 3, 5]))
    for left_out in (1000, 0.5):
        found = metrics.compute(metrics.from_counts(np.array([200, 5], np.uint8), left_out=left_out))
        np.testing.assert_array_equal(found.left_out, np.float32(left_out))


@pytest.mark.parametrize("bins", [700, 100_000])
def test_the_p_value_of_many_bins_is_that_of_pearsons_test(bins):
    counts = np.random.default_rng(bins).poisson(200, (2, bins))
    found = metrics.drift(*map(metrics.from_counts, counts))
    np.testing.assert_allclose(found.p_value, scipy.stats.chi2_contingency(counts).pvalue, 1e-3)


def test_a_table_bins_times_with_a_zone_and_numbers_that_are_objects():
    zone = datetime.timezone(datetime.timedelta(hours=2))
    hours = [datetime.datetime(2020, 1, 1, tzinfo=zone) + datetime.timedelta(hours=i) for i in range(300)]
    shifted = [time + datetime.timedelta(minutes=30) for time in hours]
    tables = [
        {
            "time": np.array(times, object),
            "span": np.array([time - hours[0] for time in times], object),
            "decimal": np.array([decimal.Decimal((time - hours[0]).seconds) for time in times], object),
        }
        for times in (hours, shifted)
    ]
    found = metrics.drift_table(*tables)
    np.testing.assert_array_less(found.drift.js, 0.01)
    np.testing.assert_array_less(found.unseen, 0.01)
    tables[1]["time"] = np.array([time.astimezone(datetime.UTC).replace(tzinfo=None) for time in hours], "M8[ns]")
    assert metrics.drift_table(*tables).drift.js[0] == 0


def test_a_table_knows_days_from_nanoseconds_and_true_from_false():
    days = np.arange("2020-01-01", "2020-07-01", dtype="datetime64[D]")
    same = metrics.drift_table({"t": days}, {"t": days.astype("datetime64[s]")})
    assert same.drift.js[0] == 0
    assert metrics.drift_table({"s": [False] * 5}, {"s": [True] * 5}).unseen[0] == 1


def test_a_pseudo_count_is_not_added_to_the_padding_of_a_column():
    old, new = {"s": ["r", "b"] * 200}, {"s": ["r", "b", "b"] * 100}
    alone = metrics.drift_table(old, new, pseudo_count=1.0)
    beside = metrics.drift_table(
        old | {"a": np.arange(400.0)}, new | {"a": np.arange(300.0)}, pseudo_count=1.0, bins=50
    )
    np.testing.assert_allclose(beside.drift.psi[0], alone.drift.psi[0], 1e-6)

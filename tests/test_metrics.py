"""Streaming accumulators: what they compute, how they merge, and what long streams lose."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
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
        np.testing.assert_allclose([x[group] for x in metrics.compute(state)], expected, 20 * ULP)


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


@pytest.mark.parametrize("grouped", [False, True], ids=["one", "groups"])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_an_update_by_sharded_values_reduces_sums_alone(kind, grouped):
    rng = np.random.default_rng(0)
    laws = rng.normal(size=(2, 8 * 37, 16)).astype(np.float32)
    groups = rng.integers(5, size=8 * 37) if grouped else None

    @jax.jit
    def step(state, p, q, groups):
        values = jax.vmap(categorical.js)(p, q)
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
    for x, y in zip(found, metrics.compute(step(state, *laws, groups)), strict=True):
        np.testing.assert_allclose(x, y, 10 * ULP)


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
    nothing = metrics.drift(old, metrics.empty(10))
    assert np.isnan([nothing.js, nothing.p_value]).all()


def test_by_chance_divergences_have_their_biases_and_p_values_are_uniform():
    n, m, draws = 400, 700, 2000
    values = jax.random.uniform(jax.random.key(0), (draws, n + m))
    found = jax.jit(jax.vmap(lambda x: metrics.drift(histogram(x[:n]), histogram(x[n:]))))(values)
    # Next to the first-order bias there is a second-order one of order k/n, 3 %; a mean of draws is good to 1 %.
    for divergence, bias in ((found.js, found.js_bias), (found.kl, found.kl_bias), (found.psi, found.psi_bias)):
        np.testing.assert_allclose(np.mean(divergence), np.mean(bias), 0.06)
    # Kolmogorov's distance of 2000 uniform numbers exceeds .044 once in a thousand times.
    assert scipy.stats.kstest(found.p_value, "uniform").statistic < 0.044


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
    with pytest.raises(ValueError, match=r"^metrics.calibration takes .*; got confidence\[\] and outcome\[\]"):
        metrics.calibration(metrics.empty(), metrics.empty())

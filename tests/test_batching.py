"""Tables of all pairs and nearest laws: the same numbers as pair by pair, in bounded memory, wherever the laws are."""

import functools
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from marks import with_all
from measure import DTYPES, x64
from test_sharding import collectives

import jaxdiv
from jaxdiv import categorical, gaussian, simplex
from jaxdiv._core.functions import LOG2

MIB = 2**20
SUMS = {name: getattr(simplex, name) for name in ("kl", "js", "jeffreys", "chi2", "squared_hellinger")}
MANY = {"n": 64, "k": 20}  # enough to be evaluated as a table, where one event after the other is added to all pairs


def _rows(n, k=5, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(k), n).astype(np.float32)


def _all_pairs(divergence, ps, qs):
    return jax.vmap(jax.vmap(divergence, (None, 0)), (0, None))(ps, qs)


def _jeffreys(p, q):
    return jnp.sum((p - q) * (jnp.log(p) - jnp.log(q)))


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(("n", "m", "block_size"), [(7, 11, 3), (8, 3, None), (1, 9, 4), (13, 1, 5)])
def test_a_table_of_ones_own_function_has_every_pair_once(n, m, block_size):
    ps, qs = _rows(n), _rows(m, seed=1)
    table = jaxdiv.pairwise(_jeffreys, ps, qs, block_size=block_size)
    np.testing.assert_allclose(table, np.sum((ps[:, None] - qs) * np.log(ps[:, None] / qs), -1), 1e-5)


def test_laws_that_are_trees_mix_their_forms():
    rng = np.random.default_rng(0)
    ps = gaussian.Normal(*rng.uniform(0.5, 2, (2, 5, 3)).astype(np.float32))
    qs = gaussian.NormalLogScale(*rng.uniform(-1, 1, (2, 4, 3)).astype(np.float32))
    table = jaxdiv.pairwise(gaussian.kl, ps, qs, block_size=2)
    np.testing.assert_allclose(table, _all_pairs(gaussian.kl, ps, qs), 1e-6)


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_a_table_of_sums_is_that_of_each_pair(name, dtype):
    rng = np.random.default_rng(0)
    ps = rng.dirichlet(np.full(37, 0.3), 48).astype(dtype)
    ps[1:4] = ps[0] * (1 + np.array([[1e-1], [1e-4], [1e-7]]) * rng.normal(size=(3, 37)))  # almost equal
    ps[4, ::2], ps[5] = 0, 0  # zeros, and no mass
    ps[6], ps[7] = np.eye(37)[:2]  # disjoint: exactly at the bound
    ps[8] = 1000 * ps[9]  # counts
    ps[10, :5] = np.finfo(dtype).smallest_subnormal
    with x64(dtype):
        table = jaxdiv.pairwise(SUMS[name], ps)
        plain = jax.jit(jax.vmap(SUMS[name]))(np.repeat(ps, 48, 0), np.tile(ps, (48, 1))).reshape(48, 48)
    assert table.dtype == dtype
    # The law tests hold the plain one against mpmath: these are errors of both.
    np.testing.assert_allclose(table, plain, 8 * np.finfo(dtype).eps, np.finfo(dtype).tiny)
    assert np.all(np.diag(table) == 0)


def test_a_function_of_a_sum_has_its_table():
    ps, qs = _rows(**MANY), _rows(**MANY, seed=1)
    tables = [jaxdiv.pairwise(js, ps, qs) for js in (simplex.js, lambda p, q: simplex.js(p, q))]
    np.testing.assert_array_equal(*tables)
    turned = jax.vmap(jax.vmap(simplex.js, (None, 0)), (0, None))(qs, ps)
    np.testing.assert_allclose(turned.T, tables[0], 1e-6)


@given(st.lists(st.sampled_from([0.0, 1e-30, 1e-3, 0.2, 0.3, 1.0]), min_size=20, max_size=20))
@settings(max_examples=50, deadline=None, database=None)
def test_the_tile_of_js_keeps_its_bounds(entries):
    ps = np.reshape(entries, (4, 5)).astype(np.float32)
    ps /= np.maximum(ps.sum(1, keepdims=True), 1e-30)
    table = np.asarray(_js_of_many(np.repeat(ps, 30, 0)))
    assert np.all(table >= 0)
    assert np.all(table <= np.float32(LOG2))
    assert np.all(np.diag(table) == 0)
    assert np.array_equal(table, table.T)


@jax.jit
def _js_of_many(ps):
    return jaxdiv.pairwise(simplex.js, ps)


def test_half_precision_is_computed_in_single_and_rounded_once():
    kind = jnp.bfloat16
    ps = jnp.asarray(_rows(**MANY), kind)
    table = jaxdiv.pairwise(simplex.js, ps)
    assert table.dtype == kind
    single = _all_pairs(simplex.js, *[ps.astype(jnp.float32)] * 2)
    half_a_place = 0.51 * float(jnp.finfo(kind).eps)
    assert jnp.all(jnp.abs(table.astype(jnp.float32) - single) <= half_a_place * single)


@pytest.mark.parametrize("divergence", [simplex.js, _jeffreys], ids=["known", "any"])
def test_half_of_a_symmetric_table_mirrored_is_the_table(divergence):
    ps = _rows(23)
    half = jaxdiv.pairwise(divergence, ps, symmetric=True, block_size=5)
    np.testing.assert_allclose(half, _all_pairs(divergence, ps, ps), 1e-5, 1e-6)
    assert np.array_equal(half, half.T)
    assert np.all(np.diag(half) == 0)


def test_half_of_a_table_calls_half_of_the_tiles():
    def is_less(p, q):  # symmetric it is not: below the diagonal is what is above
        return jnp.where(p[0] < q[0], 1.0, 2.0)

    ps = np.arange(11.0, dtype=np.float32)[:, None]
    table = jaxdiv.pairwise(is_less, ps, symmetric=True, block_size=4)
    np.testing.assert_array_equal(table, 1 + np.eye(11))


@pytest.mark.parametrize("name", ["kl", "js", "chi2"])
@pytest.mark.parametrize("size", [{"n": 7}, MANY], ids=["few", "many"])
def test_a_fault_stays_in_its_row_and_column(name, size):
    ps, qs = _rows(**size), _rows(**size, seed=1)
    table_of = jax.jit(functools.partial(jaxdiv.pairwise, SUMS[name]))
    sound = table_of(ps, qs)
    ps[2, 1], ps[5, 4], qs[3, 0] = np.nan, -0.5, -0.5
    table = np.array(table_of(ps, qs))
    assert np.isnan(table[[2, 5]]).all()
    assert np.isnan(table[:, 3]).all()
    table, sound = (np.delete(np.delete(x, [2, 5], 0), 3, 1) for x in (table, sound))
    np.testing.assert_array_equal(table, sound)


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_an_empty_batch_has_an_empty_table(n, m):
    assert jaxdiv.pairwise(simplex.js, _rows(n), _rows(m)).shape == (n, m)


# ---------------------------------------------------------------- transformations


@pytest.mark.parametrize(
    ("divergence", "options"),
    [(simplex.kl, {}), (simplex.js, {"symmetric": True}), (_jeffreys, {"symmetric": True})],
)
def test_gradients_are_those_of_pair_by_pair(divergence, options):
    ps, weights = _rows(7), np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32)
    of_table = jax.grad(lambda ps: jnp.sum(weights * jaxdiv.pairwise(divergence, ps, block_size=3, **options)))
    of_pairs = jax.grad(lambda ps: jnp.sum(weights * _all_pairs(divergence, ps, ps)))
    np.testing.assert_allclose(jax.jit(of_table)(ps), jax.jit(of_pairs)(ps), 1e-4, 1e-5)


def test_a_number_that_the_function_captures_has_its_gradient():
    ps = _rows(5)

    def total(temperature):
        return jnp.sum(jaxdiv.pairwise(lambda p, q: categorical.kl(p, q, temperature=temperature), ps, block_size=2))

    slope = (total(2.01) - total(1.99)) / 0.02
    np.testing.assert_allclose(jax.jit(jax.grad(total))(2.0), slope, 1e-2)  # a difference quotient in float32


def test_a_table_may_be_batched_and_pushed_forward():
    ps, qs = _rows(12).reshape(3, 4, 5), _rows(5, seed=1)
    table = functools.partial(jaxdiv.pairwise, simplex.js)
    batched = jax.vmap(table, (0, None))(ps, qs)
    np.testing.assert_allclose(batched, [_all_pairs(simplex.js, x, qs) for x in ps], 1e-6)
    value, tangent = jax.jvp(lambda ps: table(ps, qs), (ps[0],), (qs[:4],))
    expected = jax.jvp(lambda ps: _all_pairs(simplex.js, ps, qs), (ps[0],), (qs[:4],))
    np.testing.assert_allclose(value, expected[0], 1e-6)
    np.testing.assert_allclose(tangent, expected[1], 1e-5, 1e-6)


# ---------------------------------------------------------------- memory


@pytest.fixture
def _one_device(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def _temporaries(function, *shapes):
    arrays = jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), shapes, is_leaf=_is_shape)
    return jax.jit(function).lower(*arrays).compile().memory_analysis().temp_size_in_bytes


def _is_shape(x):
    return all(isinstance(y, int) for y in x)


HISTOGRAMS = ((2000, 256), (2000, 256))
GAUSSIANS = (gaussian.MultivariateNormal((2000, 8), (2000, 8, 8)),) * 2


@pytest.mark.usefixtures("_one_device")
@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (functools.partial(jaxdiv.pairwise, simplex.js), HISTOGRAMS),
        (functools.partial(jaxdiv.pairwise, simplex.js, symmetric=True), HISTOGRAMS[:1]),
        (functools.partial(jaxdiv.pairwise, simplex.kl), HISTOGRAMS),
        (functools.partial(jaxdiv.pairwise, gaussian.js), GAUSSIANS),
        (jaxdiv.pairwise_kl_by_matmul, HISTOGRAMS),
        (functools.partial(jaxdiv.nearest, simplex.js, k=10), ((20000, 256), (20000, 256))),
        (functools.partial(jaxdiv.pairwise_mean, simplex.kl), ((20000, 256), (20000, 256))),
    ],
    ids=["js", "half of js", "kl", "gaussians", "matmul", "nearest", "mean"],
)
def test_all_pairs_hold_few_temporaries(function, shapes):
    assert _temporaries(function, *shapes) <= 25 * MIB


@pytest.mark.usefixtures("_one_device")
@pytest.mark.parametrize(
    ("divergence", "shapes"), [(simplex.js, HISTOGRAMS), (gaussian.js, GAUSSIANS)], ids=["histograms", "gaussians"]
)
def test_gradients_of_all_pairs_hold_a_table_or_two(divergence, shapes):
    def mean(ps, qs):
        return jnp.mean(jaxdiv.pairwise(divergence, ps, qs))

    assert _temporaries(jax.value_and_grad(mean, argnums=(0, 1)), *shapes) <= 50 * MIB


# ---------------------------------------------------------------- nearest


@pytest.mark.parametrize(
    ("divergence", "k", "block_size"),
    [(simplex.kl, 4, 5), (_jeffreys, 1, None), (_jeffreys, 7, 3), (_jeffreys, 23, 6)],
    ids=["known", "first", "some", "all"],
)
def test_the_nearest_are_the_least_of_the_table(divergence, k, block_size):
    queries, references = _rows(16), _rows(23, seed=1)
    table = np.asarray(_all_pairs(divergence, queries, references))
    find = jax.jit(functools.partial(jaxdiv.nearest, divergence, k=k, block_size=block_size))
    values, indices = find(queries, references)
    np.testing.assert_array_equal(indices, np.argsort(table, 1, kind="stable")[:, :k])
    np.testing.assert_allclose(values, np.take_along_axis(table, np.asarray(indices), 1), 1e-6)


@pytest.mark.parametrize("n", [3, 8], ids=["one device", "many"])  # of which the rows are dealt out to the eight here
@pytest.mark.parametrize(("block_size", "dtype"), [(2, np.float32), (None, np.float64)], ids=str)
def test_of_equals_the_first_is_nearest_and_nan_ranks_with_infinity(n, block_size, dtype):
    def gap(p, q):
        return jnp.abs(p - q)

    references = np.array([5, np.nan, 2, 2, np.inf, -np.inf, 2], dtype)
    queries = np.full(n, 2, dtype)
    queries[0] = np.nan
    find = jax.jit(functools.partial(jaxdiv.nearest, gap, k=6, block_size=block_size))
    with x64(dtype):
        values, indices = find(queries, references)
    np.testing.assert_array_equal(indices[1:], [[2, 3, 6, 0, 1, 4]] * (n - 1))
    np.testing.assert_array_equal(values[1:], [[0, 0, 0, 3, np.nan, np.inf]] * (n - 1))
    np.testing.assert_array_equal(indices[0], np.arange(6))
    assert np.isnan(values[0]).all()


@pytest.mark.parametrize("n", [2, 8], ids=["one device", "many"])
@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int8], ids=lambda x: x.__name__)
def test_integers_are_ordered_as_integers(n, dtype):
    least, largest = np.iinfo(dtype).min, np.iinfo(dtype).max
    references = np.array([largest, largest - 1, least, 3, least + 1], dtype)
    for block_size in (2, None):
        values, indices = jaxdiv.nearest(lambda p, q: q, np.zeros(n, dtype), references, k=5, block_size=block_size)
        np.testing.assert_array_equal(indices, [[2, 4, 3, 1, 0]] * n)
        np.testing.assert_array_equal(values, references[indices])
        assert values.dtype == dtype


def test_the_gradient_of_the_nearest_is_that_of_their_pairs():
    queries, references = _rows(6), _rows(9, seed=1)

    def total(queries, indices):
        return jnp.sum(jax.vmap(jax.vmap(simplex.js, (None, 0)))(queries, jnp.asarray(references)[indices]))

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def found(queries):
        values, indices = jaxdiv.nearest(simplex.js, queries, references, k=2, block_size=4)
        return jnp.sum(values), indices

    gradient, indices = found(queries)
    np.testing.assert_allclose(gradient, jax.jit(jax.grad(total))(queries, indices), 1e-5, 1e-6)


def test_no_query_has_no_neighbours():
    values, indices = jaxdiv.nearest(simplex.js, _rows(0), _rows(4), k=2)
    assert values.shape == indices.shape == (0, 2)


# ---------------------------------------------------------------- means


@pytest.mark.parametrize(("n", "m", "block_size"), [(7, 11, 3), (13, 1, 5), (1, 9, None)])
def test_a_mean_is_that_of_a_row_of_the_table(n, m, block_size):
    ps, qs = _rows(n), _rows(m, seed=1)
    weights = np.random.default_rng(2).uniform(size=m).astype(np.float32)
    table = np.asarray(_all_pairs(_jeffreys, ps, qs))
    mean = functools.partial(jaxdiv.pairwise_mean, _jeffreys, ps, qs, block_size=block_size)
    np.testing.assert_allclose(mean(), table.mean(1), 1e-5)
    np.testing.assert_allclose(mean(weights=weights), np.average(table, 1, weights), 1e-5)


def test_a_mean_is_differentiable_in_laws_and_weights():
    ps, qs, weights = _rows(6), _rows(9, seed=1), np.linspace(0, 1, 9, dtype=np.float32)

    def of_table(ps, weights):
        return jnp.sum(weights[None] * _all_pairs(_jeffreys, ps, qs)) / jnp.sum(weights)

    def of_means(ps, weights):
        return jnp.sum(jaxdiv.pairwise_mean(_jeffreys, ps, qs, weights=weights, block_size=4))

    (got, got_weights), (expected, expected_weights) = (
        jax.jit(jax.grad(f, (0, 1)))(ps, weights) for f in (of_means, of_table)
    )
    np.testing.assert_allclose(got, expected, 1e-4, 1e-5)
    np.testing.assert_allclose(got_weights, expected_weights, 1e-4, 1e-5)


@pytest.mark.parametrize("divergence", [simplex.kl, _jeffreys], ids=["known", "any"])
def test_a_law_with_nan_of_weight_zero_leaves_the_mean_and_its_gradients(divergence):
    ps, qs, weights = _rows(4), _rows(5, seed=1), np.float32([1, 0, 2, 1, 0])
    qs[1, 2] = np.nan

    def mean(ps, qs, weights):
        return jnp.sum(jaxdiv.pairwise_mean(divergence, ps, qs, weights=weights))

    got, without = (
        jax.jit(jax.value_and_grad(mean, (0, 1, 2)))(ps, qs[chosen], weights[chosen])
        for chosen in (np.arange(5), [0, 2, 3, 4])
    )
    np.testing.assert_allclose(got[0], without[0], 1e-5)
    np.testing.assert_allclose(got[1][0], without[1][0], 1e-4, 1e-5)
    for x, y in zip(got[1][1:], without[1][1:], strict=True):
        np.testing.assert_allclose(np.delete(x, 1, 0), y, 1e-4, 1e-5)
        np.testing.assert_array_equal(x[1], 0 * x[1])


def test_a_law_that_is_none_of_weight_zero_has_no_gradient():
    laws, weights = gaussian.Normal(np.float32([0, 1]), np.float32([1, 2])), np.float32([1, 0])
    for scale in (0, -1):
        others = gaussian.Normal(np.float32([0, 1]), np.float32([1, scale]))
        step = jax.grad(lambda ps, qs: jnp.sum(jaxdiv.pairwise_mean(gaussian.kl, ps, qs, weights=weights)), (0, 1))
        assert np.isfinite(np.concatenate(jax.tree.leaves(step(laws, others)))).all()


def test_a_mean_counts_what_has_a_weight_and_that_of_nothing_is_nan():
    ps, qs = np.eye(3, dtype=np.float32), np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    np.testing.assert_array_equal(jaxdiv.pairwise_mean(simplex.kl, ps, qs), [np.inf] * 3)
    alone = jaxdiv.pairwise_mean(simplex.kl, ps, qs, weights=np.array([2, 0], np.float32))
    np.testing.assert_array_equal(alone, [0, np.inf, np.inf])
    assert np.isnan(jaxdiv.pairwise_mean(simplex.kl, ps, qs[:0])).all()
    assert jaxdiv.pairwise_mean(simplex.kl, ps[:0], qs).shape == (0,)


@pytest.mark.parametrize("unit", [2.0**126, 2.0**-126])
def test_a_common_factor_of_weights_does_not_matter(unit):
    laws, weights = _rows(3), np.float32([3, 2, 3])
    plain, scaled = (jaxdiv.pairwise_mean(simplex.js, laws, weights=w) for w in (weights, np.float32(unit) * weights))
    np.testing.assert_array_equal(scaled, plain)


def test_the_mean_of_integers_is_a_number():
    counts = np.int32([[1, 0, 2], [0, 0, 2], [1, 1, 1]])
    for weights, expected in ((None, [1, 4 / 3, 5 / 3]), (np.float32([1, 0, 1]), [1, 2, 1])):
        mean = jaxdiv.pairwise_mean(lambda p, q: jnp.sum(jnp.abs(p - q)), counts, weights=weights)
        np.testing.assert_allclose(mean, expected, 1e-6)


# ---------------------------------------------------------------- one matrix product


def test_kl_by_a_matrix_product_is_right_to_a_rounding_of_the_entropy():
    ps, qs = _rows(40, 64), _rows(30, 64, seed=1)
    ps[0, :9] = qs[1, 5:9] = 0
    qs[2, :9] = 0
    ps, qs = (x / x.sum(1, keepdims=True) for x in (ps, qs))
    table, exact = jaxdiv.pairwise_kl_by_matmul(ps, qs), _all_pairs(simplex.kl, ps, qs)
    np.testing.assert_allclose(table, exact, 0, 1e-5)  # infinities in their places; the entropy is about 4
    assert np.isinf(table).sum() == 39 + 39
    assert np.isfinite(jax.grad(lambda ps: jnp.sum(jaxdiv.pairwise_kl_by_matmul(ps, qs[3:])))(ps)).all()


def test_kl_by_a_matrix_product_is_nan_for_what_is_no_law():
    ps = np.float32([[np.nan, 0.5], [-0.5, 1.5], [0.5, 0.5]])
    qs = np.float32([[0.5, 0], [np.nan, 0], [0.5, 0.5]])
    table = jaxdiv.pairwise_kl_by_matmul(ps, qs)
    np.testing.assert_array_equal(np.isnan(table), [[True] * 3, [True] * 3, [False, True, False]])
    np.testing.assert_array_equal(table[2, [0, 2]], [np.inf, 0])


# ---------------------------------------------------------------- many devices


def _devices(kind):
    return jax.make_mesh((8,), ("x",), axis_types=(kind,))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("divergence", [simplex.js, _jeffreys], ids=["known", "any"])
def test_a_sharded_batch_against_one_that_all_have_needs_no_collective(divergence, kind):
    mesh, laws = _devices(kind), (_rows(96, 40), _rows(35, 40, seed=1))
    ps, qs = (jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(laws, (P("x"), P()), strict=True))
    compiled = jax.jit(functools.partial(jaxdiv.pairwise, divergence, block_size=48)).lower(ps, qs).compile()
    assert not list(collectives(compiled.as_text()))
    table = compiled(ps, qs)
    assert table.sharding.is_equivalent_to(NamedSharding(mesh, P("x")), 2)
    np.testing.assert_allclose(table, _all_pairs(divergence, *laws), 1e-5)


def _of_one_law(path):
    """A function of laws and others all have, and both batches of laws."""
    roots = np.tile(np.eye(3, dtype=np.float32), (72, 1, 1)) * _rows(72, 3)[:, None]
    normals = gaussian.MultivariateNormal(_rows(72, 3, seed=1), roots)
    histograms = _rows(72), _rows(9, seed=1)
    return {
        "nearest": (lambda ps, qs: jaxdiv.nearest(_jeffreys, ps, qs, k=3, block_size=16), *histograms),
        "mean": (functools.partial(jaxdiv.pairwise_mean, _jeffreys, block_size=16), *histograms),
        "matmul": (jaxdiv.pairwise_kl_by_matmul, *histograms),
        "logits": (functools.partial(jaxdiv.pairwise, categorical.kl), _rows(72, 300), _rows(9, 300, seed=1)),
        "normals": (
            functools.partial(jaxdiv.pairwise, gaussian.kl),
            normals,
            jax.tree.map(lambda x: x[:9], normals),
        ),
    }[path]


@pytest.mark.parametrize(
    "kind", [AxisType.Auto, *with_all(AxisType.Explicit), None], ids=["auto", "explicit", "shard_map"]
)
@pytest.mark.parametrize("path", ["nearest", "mean", "matmul", "logits", "normals"])
def test_every_path_of_a_sharded_batch_needs_no_collective(path, kind):
    function, ps, qs = _of_one_law(path)
    mesh = _devices(kind or AxisType.Auto)
    inside = functools.partial(jax.shard_map, mesh=mesh, in_specs=(P("x"), P()), out_specs=P("x"))
    sharded = function if kind else inside(function)
    given = jax.device_put(ps, NamedSharding(mesh, P("x"))), jax.device_put(qs, NamedSharding(mesh, P()))
    compiled = jax.jit(sharded).lower(*given).compile()
    assert not list(collectives(compiled.as_text()))
    for x, y in zip(jax.tree.leaves(compiled(*given)), jax.tree.leaves(jax.jit(function)(ps, qs)), strict=True):
        assert x.sharding.is_equivalent_to(NamedSharding(mesh, P("x")), x.ndim)
        np.testing.assert_allclose(x, y, 1e-5, 1e-6)


def test_a_sharded_batch_against_itself_is_the_same_table():
    ps = jax.device_put(_rows(24), NamedSharding(_devices(AxisType.Auto), P("x")))
    for symmetric in (False, True):
        table = jax.jit(functools.partial(jaxdiv.pairwise, _jeffreys, symmetric=symmetric, block_size=16))(ps)
        np.testing.assert_allclose(table, _all_pairs(_jeffreys, _rows(24), _rows(24)), 1e-5, 1e-6)


@pytest.mark.gate
def test_tables_and_their_gradients_and_neighbours_run_inside_shard_map():
    def all_of_it(ps, qs):
        def total(ps):
            table = jaxdiv.pairwise(simplex.js, ps, qs)
            return jnp.sum(table), table

        gradient, table = jax.grad(total, has_aux=True)(ps)
        return table, gradient, *jaxdiv.nearest(_jeffreys, ps, qs, k=2)

    sharded = jax.shard_map(all_of_it, mesh=_devices(AxisType.Auto), in_specs=(P("x"), P()), out_specs=P("x"))
    ps, qs = _rows(256, 40), _rows(64, 40, seed=1)
    for x, y in zip(jax.jit(sharded)(ps, qs), jax.jit(all_of_it)(ps, qs), strict=True):
        np.testing.assert_allclose(x, y, 1e-5, 1e-6)


# ---------------------------------------------------------------- progress, and errors


@pytest.fixture
def shown(monkeypatch):
    """The steps that a bar has shown."""
    steps = []

    def tqdm(all_steps):
        for step in all_steps:
            steps.append(step)
            yield step

    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=tqdm))
    return steps


@pytest.mark.parametrize("symmetric", [False, True])
def test_with_a_bar_it_is_the_same_table(symmetric, shown):
    ps = _rows(420, 3)
    table = jaxdiv.pairwise(_jeffreys, ps, symmetric=symmetric, progress=True)
    np.testing.assert_allclose(table, _all_pairs(_jeffreys, ps, ps), 1e-5, 1e-6)
    assert len(shown) == (3 if symmetric else 4)


@pytest.mark.parametrize("divergence", [simplex.js, _jeffreys], ids=["known", "any"])
def test_with_a_bar_neighbours_and_means_are_the_same(divergence, shown):
    ps, weights = _rows(424, 3), np.linspace(0, 1, 424, dtype=np.float32)
    for function, numbers in ((jaxdiv.nearest, {"k": 2}), (jaxdiv.pairwise_mean, {"weights": weights})):
        shown.clear()
        found = function(divergence, ps, ps, **numbers, progress=True)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(function(divergence, ps, ps, **numbers)), strict=True):
            np.testing.assert_allclose(x, y, 1e-6)
        assert len(shown) == 2


def test_a_second_call_with_a_bar_compiles_nothing(shown, programs_of):
    ps = _rows(420, 3)
    for function, numbers in ((jaxdiv.pairwise, {}), (jaxdiv.nearest, {"k": 2}), (jaxdiv.pairwise_mean, {})):
        call = functools.partial(function, simplex.js, ps, ps, **numbers, progress=True)
        programs_of(call)
        assert programs_of(call) == 0


@pytest.mark.parametrize("name", ["pairwise", "nearest", "pairwise_mean"])
def test_a_bar_needs_tqdm_and_a_host(name, monkeypatch):
    function = functools.partial(getattr(jaxdiv, name), **{"k": 1} if name == "nearest" else {})
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=rf"^jaxdiv.{name} takes tqdm .*'jaxdiv\[notebooks\]'"):
        function(simplex.js, _rows(3), _rows(3), progress=True)
    with pytest.raises(ValueError, match=rf"^jaxdiv.{name} takes progress=True .*outside of jit"):
        jax.jit(lambda ps: function(simplex.js, ps, ps, progress=True))(_rows(3))


def test_a_table_says_what_is_wrong():
    ps = _rows(4)
    for function in (jaxdiv.pairwise, functools.partial(jaxdiv.nearest, k=1), jaxdiv.pairwise_mean):
        for block_size in (0, -1, 2.5, True, "all"):
            with pytest.raises(
                ValueError, match=rf"^jaxdiv.* takes block_size as a positive integer; got {block_size}"
            ):
                function(simplex.js, ps, ps, block_size=block_size)
        with pytest.raises(TypeError, match=r"^jaxdiv.* takes divergence as a function, .*; got divergence='js'\."):
            function("js", ps, ps)
        with pytest.raises(TypeError, match=r"got divergence\[4, 5\]\. Pass the function, and pass it first\."):
            function(ps, simplex.js, ps)
        with pytest.raises(TypeError, match=r"^jaxdiv.* takes numbers; got .* object\[4, 5\]"):
            function(simplex.js, ps.astype(object), ps)
    with pytest.raises(ValueError, match=r"^jaxdiv.pairwise takes symmetric=True .*; got qs"):
        jaxdiv.pairwise(simplex.js, ps, ps, symmetric=True)
    with pytest.raises(ValueError, match=r"^jaxdiv.pairwise takes a divergence .*; got \[5\]"):
        jaxdiv.pairwise(lambda p, q: p - q, ps)
    with pytest.raises(ValueError, match=r"common first axis; got ps\[4, 3\], ps\[5, 3\]"):
        jaxdiv.pairwise(gaussian.kl, gaussian.Normal(np.ones((4, 3)), np.ones((5, 3))))
    with pytest.raises(TypeError, match=r"^gaussian.kl takes a law as .*; got q\[5\]"):
        jaxdiv.pairwise(gaussian.kl, gaussian.Normal(ps, ps), ps)
    with pytest.raises(ValueError, match=r"^simplex.js compares .*; got p\[5\] and q\[6\]"):
        jaxdiv.pairwise(simplex.js, ps, _rows(4, 6))
    with pytest.raises(ValueError, match=r"^jaxdiv.nearest takes k between 1 and the number of references; got k = 5"):
        jaxdiv.nearest(simplex.js, ps, ps, k=5)
    with pytest.raises(ValueError, match=r"^jaxdiv.pairwise_mean takes weights .*; got weights\[5\] for \[4\]"):
        jaxdiv.pairwise_mean(simplex.js, ps, weights=np.ones(5))
    with pytest.raises(ValueError, match=r"^jaxdiv.pairwise_kl_by_matmul takes .*; got ps\[4, 5\] and qs\[4, 6\]"):
        jaxdiv.pairwise_kl_by_matmul(ps, _rows(4, 6))

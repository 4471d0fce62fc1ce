"""What holds for every divergence of the catalogue."""

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from catalogue import (
    BERNOULLI,
    CATALOGUE,
    CATEGORICAL,
    FAMILIES,
    SIMPLEX,
    WAYS,
    K,
    cases,
    equal,
    errors,
    evaluate,
    far,
    laws,
    members,
    near,
    of_rows,
    results,
    shifted,
    zeros,
)
from measure import DTYPES

import jaxdiv

EPS = np.finfo(np.float32).eps


def in_dtypes(row):
    """A Bernoulli verb is the categorical one of two logits: of most, float32 says enough."""
    return DTYPES if row.family is not BERNOULLI or row.verb in ("kl", "js", "renyi") else DTYPES[:1]


def each(condition=lambda row: True):
    """Rows and dtypes as parameters."""
    chosen = [(row, dtype) for row in CATALOGUE if condition(row) for dtype in in_dtypes(row)]
    return of_rows(chosen, "row,dtype", lambda row, dtype: f"{row.name}-{dtype.__name__}")


def assert_errors(row, dtype, group):
    value, gradient = errors(row, results(row, dtype), group)
    assert value <= row.value_ulps
    assert gradient <= row.gradient_ulps


# ---------------------------------------------------------------- the definition


@each()
def test_far_from_equality_it_is_its_definition(row, dtype):
    assert_errors(row, dtype, far)


@each()
def test_near_equality_it_is_its_definition(row, dtype):
    assert_errors(row, dtype, near)


@each(lambda row: row.family is CATEGORICAL)
def test_a_common_shift_of_logits_costs_no_digits(row, dtype):
    assert_errors(row, dtype, shifted)


@each()
def test_at_zeros_it_is_its_definition_and_where_infinite_its_gradient_is_finite(row, dtype):
    assert_errors(row, dtype, zeros)


@each(lambda row: row.vanishes)
def test_of_a_law_and_itself_value_and_gradients_are_exactly_zero(row, dtype):
    for x in results(row, dtype):
        assert not x[members(equal)].any()


@each(lambda row: row.family is not BERNOULLI)
def test_an_event_impossible_under_both_has_no_gradient(row, dtype):
    nothing = -np.inf if row.family is CATEGORICAL else 0
    p, q = cases(row.family, dtype)
    impossible = (p == nothing) & (q == nothing)
    _, in_p, in_q = results(row, dtype)
    assert impossible.any()
    assert not in_p[impossible].any()
    assert not in_q[impossible].any()


@each(lambda row: row.verb == "kl" and row.family is not SIMPLEX)
def test_where_kl_is_infinite_its_gradient_is_q_less_p_in_q_and_nothing_in_p(row, dtype):
    values, in_p, in_q = results(row, dtype)
    infinite = np.flatnonzero(values == np.inf)
    assert infinite.size
    for i in infinite:
        p, q = (np.array(law, float) for law in laws(row.family, dtype)[i])
        assert not in_p[i].any()
        np.testing.assert_allclose(np.atleast_1d(in_q[i]), (q - p)[-in_q[i].size :], 8 * EPS, 8 * EPS)


# ---------------------------------------------------------------- drawn inputs


def drawn(family):
    """A pair of float32 inputs, ordinary, huge, tied and impossible, repeated to the shape that is compiled."""
    special = [-np.inf, np.inf] if family is BERNOULLI else [-np.inf]
    logit = st.sampled_from([*special, -1e30, 0.0, 1.0, 1e30]) | st.floats(-100, 100, width=32)
    shape = (2, 1) if family is BERNOULLI else (2, K)
    laws = {CATEGORICAL: some_finite, SIMPLEX: probabilities, BERNOULLI: np.ravel}[family]
    return arrays.arrays(np.float32, shape, elements=logit).map(lambda x: repeated(family, laws(x)))


def some_finite(x):
    return np.where((x == -np.inf).all(-1, keepdims=True), np.float32(0), x)


def probabilities(x):
    x = some_finite(x).astype(np.float64)
    p = np.where(x == -np.inf, 0, np.exp(np.maximum(x - x.max(-1, keepdims=True), -80)))
    return (p / p.sum(-1, keepdims=True)).astype(np.float32)


def repeated(family, pair):
    return [np.repeat(x[None], len(cases(family, np.float32)[0]), 0) for x in pair]


def on_drawn_pairs(test):
    """The test on each verb, given by one of its rows, and pairs it draws."""
    verbs = [(row,) for row in {(row.family, row.verb): row for row in CATALOGUE}.values()]
    test = hypothesis.given(data=st.data())(test)
    test = hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)(test)
    return of_rows(verbs, "verb", lambda row: f"{row.family.name}.{row.verb}")(test)


def like(row):
    """The rows of the same verb."""
    return [other for other in CATALOGUE if (other.family, other.verb) == (row.family, row.verb)]


@on_drawn_pairs
def test_no_value_is_negative_or_above_its_bound(verb, data):
    p, q = data.draw(drawn(verb.family))
    for row in like(verb):
        # A spacing more, for bounds that are not caps but consequences.
        bound = np.inf if row.bound is None else np.nextafter(np.float32(row.bound), np.float32(np.inf))
        assert 0 <= evaluate(row, p, q).value[0] <= bound, row.name


@on_drawn_pairs
def test_no_gradient_is_nan_and_none_is_left_without_a_cotangent(verb, data):
    # The latter also where the value is infinite, so that a loss masked by `where` stays clean.
    p, q = data.draw(drawn(verb.family))
    for row in like(verb):
        assert not np.isnan(evaluate(row, p, q)[1:]).any(), row.name
        assert not np.any(evaluate(row, p, q, cotangent=0)[1:]), row.name


@on_drawn_pairs
def test_it_is_symmetric_if_it_says_so(verb, data):
    p, q = data.draw(drawn(verb.family))
    for row in like(verb):
        if row.symmetric:
            there, back = evaluate(row, p, q).value[0], evaluate(row, q, p).value[0]
            np.testing.assert_allclose(there, back, 16 * EPS, 1e-30, err_msg=row.name)


@on_drawn_pairs
def test_merging_two_events_never_increases_it(verb, data):
    """Data processing, with probabilities in units of 2^-20, so that sums are exact."""
    counts = data.draw(arrays.arrays(np.int64, (2, K - 1), elements=st.integers(0, 2**17) | st.sampled_from([0, 1])))
    event, other = data.draw(st.permutations(range(K)))[:2]
    before = (np.concatenate([counts, 2**20 - counts.sum(-1, keepdims=True)], -1) / 2**20).astype(np.float32)
    after = before.copy()
    after[:, other] += after[:, event]
    after[:, event] = 0
    for row in like(verb):
        if row.family is SIMPLEX and row.vanishes:
            whole, merged = (evaluate(row, *repeated(SIMPLEX, pair)).value[0] for pair in (before, after))
            assert merged <= whole * (1 + 2 * row.value_ulps * EPS), row.name


# ---------------------------------------------------------------- batches


@each()
def test_a_nan_row_leaves_its_neighbours_alone(row, dtype):
    p, q = (x.copy() for x in cases(row.family, dtype))
    p[1], q[3] = np.nan, np.nan
    before, after = results(row, dtype), evaluate(row, p, q)
    assert np.isnan(after.value[[1, 3]]).all()
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(np.delete(x, [1, 3], 0), np.delete(y, [1, 3], 0))


@of_rows(
    [(row,) for row in CATALOGUE if row.family is SIMPLEX or row.bound],
    "row",
    lambda row: row.name,
)
def test_a_nan_in_one_of_thousands_of_rows_is_not_lost(row):
    # Beside so many sums XLA:CPU takes minima that lose it.
    rng = np.random.default_rng(0)
    p, q = (rng.dirichlet(np.ones(7), 5000).astype(np.float32) for _ in "pq")
    p[1, 0] = q[3, 6] = np.nan
    value = jax.jit(jax.vmap(row))(*((p[:, 0], q[:, 6]) if row.family is BERNOULLI else (p, q)))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(value)), [1, 3])


@WAYS
def test_a_batch_is_its_pairs_one_by_one(row):
    p, q = cases(row.family, np.float32)
    alone = [row(x, y) for x, y in zip(p, q, strict=True)]
    np.testing.assert_allclose(results(row, np.float32).value, alone, 4 * EPS)


@WAYS
def test_compiled_or_one_operation_at_a_time_it_is_the_same(row):
    p, q = (x[members(far)] for x in cases(row.family, np.float32))
    with jax.disable_jit():
        eager = jax.vmap(row)(jnp.asarray(p), jnp.asarray(q))
    np.testing.assert_allclose(results(row, np.float32).value[members(far)], eager, 4 * EPS)


@WAYS
@pytest.mark.parametrize("counts", [(3, 4), (70, 5)], ids=str)  # too few pairs for sums of their own, and enough
def test_all_pairs_are_each_pair(row, counts):
    p, q = cases(row.family, np.float32)
    i, j = (np.arange(count) % len(p) for count in counts)
    table = jaxdiv.pairwise(row, p[i], q[j])
    assert table.shape == counts
    for offset in range(counts[1]):  # against the batch of all cases, one diagonal at a time
        to = (np.arange(len(p)) + offset) % counts[1]
        singly = evaluate(row, p, q[to]).value[i]
        np.testing.assert_allclose(table[np.arange(counts[0]), to[i]], singly, 4 * EPS)


@pytest.mark.parametrize("kind", [jnp.float16, jnp.bfloat16], ids=lambda kind: kind.__name__)
@WAYS
def test_half_precision_is_the_float32_result_rounded_once(row, kind):
    inputs = [jnp.asarray(x, kind) for x in cases(row.family, np.float32)]
    half = jax.jit(jax.vmap(row))(*inputs)
    single = evaluate(row, *(np.asarray(x.astype(jnp.float32)) for x in inputs)).value
    assert half.dtype == kind
    half = np.asarray(half.astype(jnp.float32))
    representable = single < float(jnp.finfo(kind).max)
    assert np.all(half[~representable] == np.inf)
    half, single = half[representable], single[representable]
    exponent = np.floor(np.log2(np.maximum(single, np.float32(jnp.finfo(kind).tiny))))
    spacing = np.exp2(exponent) * np.float32(jnp.finfo(kind).eps)
    assert np.all(abs(half - single) <= 0.51 * spacing)


# ---------------------------------------------------------------- parameters


def at(verb, family, **parameters):
    """The row of a verb at other parameters; the program is the same."""
    row = next(row for row in CATALOGUE if (row.family, row.verb) == (family, verb) and row.parameters)
    return row._replace(name=f"{family.name}.{verb}({parameters})", parameters=tuple(parameters.items()))


def at_others(*choices, families=FAMILIES):
    """Rows at parameters of which the catalogue has none."""
    rows = [at(verb, family, **parameters) for family in families for verb, parameters in choices]
    return of_rows([(row,) for row in rows], "row", lambda row: row.name)


NEAR_ONE = [{"alpha": alpha} for alpha in (1 - 1e-3, 1 - 1e-6, 1 + 1e-3)]
NEAR_ZERO = [{"alpha": alpha} for alpha in (1e-3, -1e-6, -1e-3)]


@at_others(
    *[("renyi", parameters) for parameters in NEAR_ONE],
    *[("amari", parameters) for parameters in NEAR_ONE + NEAR_ZERO],
    families=(CATEGORICAL, SIMPLEX),
)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_around_the_limits_of_alpha_it_is_its_definition(row, dtype):
    for group in (far, near, zeros):
        assert_errors(row, dtype, group)


@at_others(("js", {"weight": 0}), ("js", {"weight": 1}))
def test_js_with_all_weight_on_one_law_is_zero_with_its_gradients(row):
    for x in results(row, np.float32):
        assert not x.any()


@at_others(("js", {"weight": -0.1}), ("js", {"weight": 1.1}), ("renyi", {"alpha": -0.5}))
def test_a_parameter_outside_its_domain_gives_nan(row):
    assert np.isnan(results(row, np.float32).value[members(far)]).all()


@at_others(("renyi", {"alpha": 0}))
def test_renyi_of_order_zero_is_the_mass_on_the_support(row):
    mass = [mp.fsum(y for x, y in zip(p, q, strict=True) if x) for p, q in laws(row.family, np.float32)]
    expected = [float(-mp.log(x)) if x else np.inf for x in mass]
    np.testing.assert_allclose(results(row, np.float32).value, expected, 16 * EPS, 2 * EPS)


@of_rows([(row,) for row in CATALOGUE if row.family is CATEGORICAL and not row.parameters], "row", lambda row: row.name)
def test_a_temperature_divides_the_logits(row):
    p, q = cases(CATEGORICAL, np.float32)
    warm = jax.jit(jax.vmap(lambda p, q: row(p, q, temperature=np.float32(0.25))))(p / 4, q / 4)
    np.testing.assert_allclose(warm, results(row, np.float32).value, 16 * EPS, 1e-30)

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
    evaluate_all,
    far,
    key,
    laws,
    members,
    near,
    of_rows,
    results,
    shifted,
    values,
    zeros,
)
from marks import with_all
from measure import DTYPES

import jaxdiv

EPS = np.finfo(np.float32).eps


EAGER = {"categorical.kl", "simplex.js", "simplex.renyi(alpha=0.5)"}


def each(condition=lambda row: True):
    """Rows and dtypes as parameters."""
    chosen = [(row, dtype) for row in CATALOGUE if condition(row) for dtype in DTYPES]
    return of_rows(chosen, "row,dtype", lambda row, dtype: f"{row.name}-{dtype.__name__}", gate=_wide_of_many_events)


def _wide_of_many_events(row, dtype):
    """What `--all` adds: without it float64 is that of two outcomes, whose terms those of more are."""
    return dtype is np.float64 and row.family is not BERNOULLI


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


PAIRS = 24  # drawn at once


def drawn(family):
    """Pairs of float32 inputs, ordinary, huge, tied and impossible."""
    special = [-np.inf, np.inf] if family is BERNOULLI else [-np.inf]
    logit = st.sampled_from([*special, -1e30, 0.0, 1.0, 1e30]) | st.floats(-100, 100, width=32)
    shape = (2, PAIRS) if family is BERNOULLI else (2, PAIRS, K)
    laws = {CATEGORICAL: some_finite, SIMPLEX: probabilities, BERNOULLI: lambda x: x}[family]
    return arrays.arrays(np.float32, shape, elements=logit, fill=st.nothing()).map(laws)


def some_finite(x):
    return np.where((x == -np.inf).all(-1, keepdims=True), np.float32(0), x)


def probabilities(x):
    x = some_finite(x).astype(np.float64)
    p = np.where(x == -np.inf, 0, np.exp(np.maximum(x - x.max(-1, keepdims=True), -80)))
    return (p / p.sum(-1, keepdims=True)).astype(np.float32)


def summing_to_one(p):
    """Probabilities in units of 2^-24, so that their sum is exact."""
    units = np.rint(p.astype(np.float64) * 2**24).astype(np.int64)
    largest = np.arange(K) == units.argmax(-1)[..., None]
    return ((units + largest * (2**24 - units.sum(-1, keepdims=True))) / 2**24).astype(np.float32)


def on_drawn_pairs(*families):
    """The test on all verbs of a family, and pairs it draws."""

    def decorated(test):
        test = hypothesis.given(data=st.data())(test)
        test = hypothesis.settings(max_examples=12, deadline=None, derandomize=True, database=None)(test)
        return pytest.mark.parametrize("family", families, ids=lambda x: x.name)(test)

    return decorated


def each_row(family, p, q, **keywords):
    """Every row of a family with its `Result` of a batch: rows with different keys at once."""
    # Repeated to the shape of the cases, whose program there is already.
    p, q = (np.resize(x, (len(cases(family, np.float32)[0]), *x.shape[1:])) for x in (p, q))
    left = [row for row in CATALOGUE if row.family is family]
    while left:
        some = list({key(row): row for row in reversed(left)}.values())
        yield from zip(some, evaluate_all(some, p, q, **keywords), strict=True)
        left = [row for row in left if row not in some]


@on_drawn_pairs(*FAMILIES)
def test_no_value_is_negative_or_above_its_bound_and_no_gradient_is_nan(family, data):
    p, q = data.draw(drawn(family))
    for row, (value, *gradients) in each_row(family, p, q):
        # A spacing more, for bounds that are not caps but consequences.
        bound = np.inf if row.bound is None else np.nextafter(np.float32(row.bound), np.float32(np.inf))
        assert ((value >= 0) & (value <= bound)).all(), row.name
        assert not any(np.isnan(x).any() for x in gradients), row.name


@on_drawn_pairs(*FAMILIES)
def test_no_gradient_is_left_without_a_cotangent(family, data):
    # Also where the value is infinite, so that a loss masked by `where` stays clean.
    p, q = data.draw(drawn(family))
    for row, (_, *gradients) in each_row(family, p, q, cotangent=0):
        assert not any(x.any() for x in gradients), row.name


@on_drawn_pairs(*FAMILIES)
def test_it_is_symmetric_if_it_says_so(family, data):
    p, q = data.draw(drawn(family))
    if family is SIMPLEX:  # where Chernoff's maximum is depends on masses, if they differ by a rounding
        p, q = summing_to_one(p), summing_to_one(q)
    for (row, there), (_, back) in zip(each_row(family, p, q), each_row(family, q, p), strict=True):
        if row.symmetric:
            np.testing.assert_allclose(there.value, back.value, 16 * EPS, 1e-30, err_msg=row.name)


@on_drawn_pairs(SIMPLEX)
def test_merging_two_events_never_increases_it(family, data):
    """Data processing, with probabilities in units of 2^-20, so that sums are exact."""
    small = st.integers(0, 2**17) | st.sampled_from([0, 1])
    counts = data.draw(arrays.arrays(np.int64, (2, PAIRS, K - 1), elements=small, fill=st.nothing()))
    event, other = data.draw(st.permutations(range(K)))[:2]
    before = (np.concatenate([counts, 2**20 - counts.sum(-1, keepdims=True)], -1) / 2**20).astype(np.float32)
    after = before.copy()
    after[..., other] += after[..., event]
    after[..., event] = 0
    for (row, whole), (_, merged) in zip(each_row(family, *before), each_row(family, *after), strict=True):
        if row.vanishes:
            assert (merged.value <= whole.value * (1 + 2 * row.value_ulps * EPS)).all(), row.name


# ---------------------------------------------------------------- batches


@each()
def test_a_nan_row_leaves_its_neighbours_alone(row, dtype):
    p, q = (x.copy() for x in cases(row.family, dtype))
    p[1], q[3] = np.nan, np.nan
    before, after = results(row, dtype), evaluate(row, p, q)
    assert np.isnan(after.value[[1, 3]]).all()
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(np.delete(x, [1, 3], 0), np.delete(y, [1, 3], 0))


def each_family(test):
    return pytest.mark.parametrize("family", FAMILIES, ids=lambda x: x.name)(test)


def singles(family, p, q):
    """Values of all rows by name, of float32 inputs of the shape of the cases: those of a program there is already."""
    return {row.name: result.value for row, result in each_row(family, p, q)}


@pytest.mark.gate  # what is compiled in a hurry has no such minima
@each_family
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=lambda dtype: dtype.__name__)
def test_a_nan_in_one_of_thousands_of_rows_is_not_lost(family, dtype):
    # Enough of them to run in blocks. Beside so many sums XLA:CPU takes minima that lose it.
    rng = np.random.default_rng(0)
    p, q = (rng.dirichlet(np.ones(7), 12000).astype(np.float32) for _ in "pq")
    p[1, 0] = q[3, 6] = np.nan
    p, q = (p[:, 0], q[:, 6]) if family is BERNOULLI else (p, q)
    for name, value in values(family, jnp.asarray(p, dtype), jnp.asarray(q, dtype)).items():
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(value)), [1, 3], err_msg=name)


@WAYS
def test_a_batch_is_its_pairs_one_by_one(row):
    p, q = cases(row.family, np.float32)
    alone = [row(x, y) for x, y in zip(p, q, strict=True)]
    np.testing.assert_allclose(results(row, np.float32).value, alone, 4 * EPS)


@of_rows([(row,) for row in CATALOGUE if row.name in EAGER], "row", lambda row: row.name)
def test_compiled_or_one_operation_at_a_time_it_is_the_same(row):
    p, q = (x[members(far)][::8] for x in cases(row.family, np.float32))
    with jax.disable_jit():
        eager = jax.vmap(row)(jnp.asarray(p), jnp.asarray(q))
    np.testing.assert_allclose(results(row, np.float32).value[members(far)][::8], eager, 4 * EPS)


@WAYS
# Too few pairs for sums of their own, and enough.
@pytest.mark.parametrize("counts", [*with_all(((3, 4),)), (70, 5)], ids=str)
def test_all_pairs_are_each_pair(row, counts):
    p, q = cases(row.family, np.float32)
    i, j = (np.arange(count) % len(p) for count in counts)
    table = jaxdiv.pairwise(row, p[i], q[j])
    assert table.shape == counts
    for offset in range(counts[1]):  # against the batch of all cases, one diagonal at a time
        to = (np.arange(len(p)) + offset) % counts[1]
        singly = evaluate(row, p, q[to]).value[i]
        np.testing.assert_allclose(table[np.arange(counts[0]), to[i]], singly, 4 * EPS)


HALVES = [(family, kind) for family in FAMILIES for kind in (jnp.bfloat16, jnp.float16)]
ONLY_WITH_ALL = [family is not SIMPLEX or kind is jnp.float16 for family, kind in HALVES]


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        pytest.param(*x, id=f"{x[0].name}-{x[1].__name__}", marks=[pytest.mark.gate] * left_out)
        for x, left_out in zip(HALVES, ONLY_WITH_ALL, strict=True)
    ],
)
def test_half_precision_is_the_float32_result_rounded_once(family, kind):
    inputs = [jnp.asarray(x, kind) for x in cases(family, np.float32)]
    expected = singles(family, *(np.asarray(x.astype(jnp.float32)) for x in inputs))
    for name, half in values(family, *inputs).items():
        assert_rounded_once(name, half, expected[name], kind)


def assert_rounded_once(name, half, single, kind):
    representable = single < float(jnp.finfo(kind).max)
    assert np.all(half[~representable] == np.inf), name
    half, single = half[representable], single[representable]
    exponent = np.floor(np.log2(np.maximum(single, np.float32(jnp.finfo(kind).tiny))))
    spacing = np.exp2(exponent) * np.float32(jnp.finfo(kind).eps)
    assert np.all(abs(half - single) <= 0.51 * spacing), name


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
@pytest.mark.parametrize("dtype", [np.float32, *with_all(np.float64)], ids=lambda dtype: dtype.__name__)
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


@pytest.mark.gate
def test_a_temperature_divides_the_logits():
    p, q = cases(CATEGORICAL, np.float32)
    plain, warm = singles(CATEGORICAL, p, q), values(CATEGORICAL, p / 4, q / 4, temperature=0.25)
    for name, value in warm.items():
        # An ulp of c and of its power, where orders are not those of a plain sum.
        np.testing.assert_allclose(value, plain[name], 16 * EPS, 1e-30, err_msg=name)

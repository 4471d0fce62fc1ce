"""Every form of a normal law against its definition, and what holds at equality, at faults, in large batches, mixed."""

import decimal
import functools
import itertools
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from marks import with_all
from measure import digits, normwise, worst, x64

from jaxdiv import gaussian
from jaxdiv._gaussian.forms import FORMS as RECORDS
from jaxdiv._selfcheck import gaussian as definitions_of
from jaxdiv._selfcheck import table

FORMS = [
    gaussian.Normal,
    gaussian.NormalLogScale,
    gaussian.LowRankNormal,
    gaussian.MultivariateNormal,
    gaussian.CovarianceNormal,
    gaussian.PrecisionNormal,
    gaussian.NaturalNormal,
    gaussian.MatrixNormal,
]
INDEPENDENT, SYMMETRIC, ROOTS = FORMS[:2], FORMS[4:7], (gaussian.MultivariateNormal, gaussian.MatrixNormal)
# Without `--all` these are compared with laws of other forms alone, further below.
LESS_COMMON = (gaussian.LowRankNormal, *SYMMETRIC, gaussian.MatrixNormal)


def of_form(form):
    """A parameter: one worker of pytest-xdist gets all of a form, which it compiles once."""
    return pytest.param(form, id=form.__name__, marks=[pytest.mark.gate] * (form in LESS_COMMON))


FORM = pytest.mark.parametrize("form", [of_form(form) for form in FORMS])
DEFINED = ["kl", "jeffreys", "renyi", "amari", "squared_hellinger", "hellinger_distance", "bhattacharyya", "chi2"]
DEFINED += ["geometric_js", "squared_wasserstein2", "wasserstein2_distance"]
OF_ROOTS = {
    np.float32: [*DEFINED, "js", "js_distance", "chernoff"],
    np.float64: ["kl", "jeffreys", "renyi", "squared_wasserstein2", "js", "chernoff"],
}
# The other verbs are functions of what these find.
OF_OTHER_FORMS = {
    np.float32: ["kl", "renyi", "geometric_js", "squared_wasserstein2", "js"],
    np.float64: ["kl", "renyi", "js"],
}
D = 3


def verb(name):
    function = getattr(gaussian, name)
    return functools.partial(function, alpha=definitions_of.ALPHA) if name in ("renyi", "amari") else function


def law(form, rng, d=D):
    """A well-conditioned law of a form; of a matrix, one of d x 2 entries."""

    def root(d):
        return np.tril(0.4 * rng.normal(size=(d, d)), -1) + np.diag(np.exp(0.3 * rng.normal(size=d)))

    if form is gaussian.MatrixNormal:
        return form(rng.normal(size=(d, 2)), root(d), root(2))
    loc = rng.normal(size=d)
    if form in INDEPENDENT:
        log_scale = 0.3 * rng.normal(size=d)
        return form(loc, np.exp(log_scale) if form is gaussian.Normal else log_scale)
    if form is gaussian.MultivariateNormal:
        return form(loc, root(d))
    if form is gaussian.LowRankNormal:
        return form(loc, rng.normal(size=(d, 2)), np.exp(rng.normal(size=d)))
    return form(loc, np.eye(d) + 0.2 * np.ones((d, d)) + np.diag(rng.uniform(size=d)))


def moved(p, rng, near):
    """A law whose arrays differ from those of `p` by about `near`, relative to their size."""
    matrices = [x * (1 + 0.5 * near * rng.uniform(-1, 1, size=x.shape)) for x in p[1:]]
    if type(p) in SYMMETRIC:
        matrices = [0.5 * (x + x.T) for x in matrices]
    return type(p)(p[0] + near * rng.normal(size=p[0].shape), *matrices)


def widened(p):
    """The law at 1000 times the scale about its mean, or its precision at 10^6 times."""
    factors = {"covariance": 1e6, "precision": 1e6, "diag": 1e6, "column_tril": 1}
    first = {p._fields[0]: p[0]}
    if isinstance(p, gaussian.NormalLogScale):
        return p._replace(log_scale=p.log_scale + p.loc.dtype.type(np.log(1000)))
    rest = zip(p._fields[1:], p[1:], strict=True)
    return type(p)(**first, **{name: x * x.dtype.type(factors.get(name, 1000)) for name, x in rest})


def pair(form, near=1.0, d=D, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    p = law(form, rng, d)
    return tuple(jax.tree.map(lambda x: x.astype(dtype), x) for x in (p, moved(p, rng, near)))


@functools.cache
def pairs(form, dtype):
    """Eight pairs: far, near each other by 1e-1 to 1e-6, with a common offset of the means, with a ratio of scales."""
    found = [list(pair(form, near, seed=i, dtype=dtype)) for i, near in enumerate((1, 0.1, 1e-2, 1e-3, 1e-5, 1e-6))]
    p, q = pair(form, 1e-3, seed=7, dtype=dtype)
    offset = np.array([2000, -3000, 1000], dtype).reshape(D, *[1] * (p[0].ndim - 1))
    found.append([x._replace(**{x._fields[0]: x[0] + offset}) for x in (p, q)])
    p, q = pair(form, seed=8, dtype=dtype)
    found.append([p, widened(q)])
    return stacked([x for x, _ in found]), stacked([x for _, x in found])


def stacked(laws):
    return jax.tree.map(lambda *x: np.stack(x), *laws)


def unstacked(laws):
    return [type(laws)(*fields) for fields in zip(*laws, strict=True)]


@functools.partial(jax.jit, static_argnums=2)
def _values_and_slopes(p, q, names):
    return {name: jax.vmap(jax.value_and_grad(verb(name), (0, 1)))(p, q) for name in names}


def values_and_slopes(p, q, dtype):
    """By name: values `[n]` and the gradients in both laws, of a batch; one program for a form and a dtype."""
    names = (OF_ROOTS if isinstance(p, gaussian.MultivariateNormal) else OF_OTHER_FORMS)[dtype]
    with x64(dtype):
        return jax.device_get(_values_and_slopes(p, q, tuple(names)))


@digits
def definitions(p, q, names):
    """By name, in mpmath numbers: the self-check's formulas of the exact moments of two laws."""
    with decimal.localcontext(table.DIGITS):
        moments = [definitions_of.moments(law) for law in (p, q)]
        found = {name: definitions_of.FORMULAS[name](*moments) for name in names}
    return {name: mpmath.mpf(str(x)) if x.is_finite() else mpmath.inf for name, x in found.items()}


@FORM
def test_values_are_their_definitions_to_a_few_ulps(form):
    p, q = pairs(form, np.float64)
    found = values_and_slopes(p, q, np.float64)
    names = [name for name in DEFINED if name in found]
    truths = [definitions(*x, names) for x in zip(unstacked(p), unstacked(q), strict=True)]
    for name in names:
        value, truth = found[name][0], [x[name] for x in truths]
        rows = slice(7 if name == "chi2" else 8)  # where it is large, it carries the rounding of its exponent
        assert worst(value[rows], truth[rows], np.float64) <= 16, name
        assert np.array_equal(np.isinf(value), [mpmath.isinf(x) for x in truth]), name


@FORM
def test_values_and_gradients_in_float32_are_those_in_float64(form):
    # Against the same code in float64, whose values are held to the definitions above: js has no closed form.
    p, q = pairs(form, np.float32)
    narrow = values_and_slopes(p, q, np.float32)
    wide = values_and_slopes(*jax.tree.map(lambda x: x.astype(np.float64), (p, q)), np.float64)
    for name, (truth, true_slopes) in wide.items():
        value, slopes = narrow[name]
        # Near log 2 the gradient of js is only absolutely accurate. Roots of low-rank laws are as their conditioning.
        rows = range(7 if name == "js" else 8)
        bound = 64 if (name, form) == ("squared_wasserstein2", gaussian.LowRankNormal) else 16
        assert worst(value, truth, np.float32) <= 16, name
        for x, y in zip(jax.tree.leaves(slopes), jax.tree.leaves(true_slopes), strict=True):
            assert max(normwise(np.ravel(x[i]), np.ravel(y[i]), np.float32) for i in rows) <= bound, name


@FORM
def test_equal_laws_are_exactly_0_with_gradient_0(form):
    p, _ = pairs(form, np.float32)
    for name, (value, slopes) in values_and_slopes(p, p, np.float32).items():
        assert np.all(value == 0), name
        assert all(np.all(x == 0) for x in jax.tree.leaves(slopes)), name


@FORM
def test_a_faulty_law_is_nan_in_its_pair_only(form):
    p, q = pairs(form, np.float32)
    p = jax.tree.map(np.copy, p)
    p[0][1, 0] = np.nan
    p[-1][2, 0] = np.nan
    p[-1][3] = -p[-1][3]
    p[-1][4] = 0
    if form in SYMMETRIC:
        p[-1][5, :2, :2] = [[1, 2], [2, 1]]
    positive = form is not gaussian.NormalLogScale
    faulty = [False, True, True, positive, positive, form in SYMMETRIC, False, False]
    for name, (value, _) in values_and_slopes(p, q, np.float32).items():
        # What is 0 may be singular: that has a Wasserstein distance still, where it is no precision.
        kept = 4 if "wasserstein2" in name and form not in SYMMETRIC[1:] else None
        assert np.array_equal(np.isnan(value), [x and i != kept for i, x in enumerate(faulty)]), name


@pytest.mark.gate  # what is compiled in a hurry loses none
@pytest.mark.parametrize(
    "verb", [gaussian.kl, gaussian.squared_hellinger, functools.partial(gaussian.renyi, alpha=0.3)]
)
def test_a_faulty_law_among_thousands_is_not_lost(verb):
    # Beside so many sums XLA:CPU takes minima and maxima that lose NaN.
    loc, root = np.zeros((5000, D), np.float32), np.tile(np.eye(D, dtype=np.float32), (5000, 1, 1))
    loc[1, 2], root[3, 1, 1] = np.nan, -1
    of_all = jax.jit(jax.vmap(verb, (0, None)))
    values = of_all(gaussian.MultivariateNormal(loc, root), gaussian.MultivariateNormal(jnp.ones(D), 2 * jnp.eye(D)))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(values)), [1, 3])


@pytest.mark.parametrize("d", [19, *with_all(9, 64)])
@pytest.mark.parametrize("form", [gaussian.CovarianceNormal, *with_all(gaussian.MultivariateNormal)])
def test_laws_of_a_large_batch_are_those_of_a_small_one(form, d):
    # A large batch takes matrices in blocks, which these dimensions do not fill, a small one in columns.
    rng = np.random.default_rng(d)

    def law():
        root = np.tril(rng.normal(size=(300, d, d)) / d, -1) + np.eye(d)
        matrix = root if form is gaussian.MultivariateNormal else root @ np.swapaxes(root, -1, -2)
        return form(*(jnp.asarray(x, jnp.float32) for x in (rng.normal(size=(300, d)), matrix)))

    p, q = law(), law()
    value_and_slopes = jax.jit(jax.vmap(jax.value_and_grad(gaussian.kl, (0, 1))))
    found, few = value_and_slopes(p, q), value_and_slopes(*jax.tree.map(lambda x: x[:3], (p, q)))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[:3], y, 1e-4, 1e-5), found, few)


# ---------------------------------------------------------------- laws of two forms


def test_every_form_has_a_record_a_case_and_a_row_here():
    public = {x for x in vars(gaussian).values() if isinstance(x, type) and issubclass(x, tuple)}
    assert set(RECORDS) == public == set(FORMS) == set(definitions_of.CASES)
    for form, record in RECORDS.items():
        assert form.__module__ == "jaxdiv.gaussian"
        assert form is gaussian.MultivariateNormal or gaussian.MultivariateNormal in record.to
        assert [field.split(" [")[0] for field in record.shapes.split("], ")] == list(form._fields)


@functools.cache
def of_every_form():
    """Laws of four components, far from each other, one of each form."""
    found = {}
    for i, form in enumerate(FORMS):
        d = 2 if form is gaussian.MatrixNormal else 4
        found[form] = jax.tree.map(lambda x: x.astype(np.float32), law(form, np.random.default_rng(i), d))
    return found


def test_any_two_forms_mix():
    # All pairs in one program, which then converts each law once.
    laws = of_every_form()
    pairs = list(itertools.permutations(FORMS, 2))

    @jax.jit
    def of(laws):
        return [gaussian.kl(laws[FORMS.index(p)], laws[FORMS.index(q)]) for p, q in pairs]

    for (p, q), value in zip(pairs, of(list(laws.values())), strict=True):
        truth = definitions(laws[p], laws[q], ["kl"])["kl"]
        np.testing.assert_allclose(value, float(truth), rtol=2e-5, err_msg=f"{p.__name__} {q.__name__}")


# One pair of forms to each form in which pairs of two are compared.
COMMON = [
    (gaussian.NormalLogScale, gaussian.Normal),
    (gaussian.LowRankNormal, gaussian.Normal),
    (gaussian.MatrixNormal, gaussian.NaturalNormal),
]


@pytest.mark.parametrize(("p", "q"), COMMON, ids=lambda form: form.__name__)
def test_every_verb_takes_two_forms(p, q):
    p, q = of_every_form()[p], of_every_form()[q]
    names = ["jeffreys", "renyi", "bhattacharyya", "geometric_js", "squared_wasserstein2", "cross_entropy"]
    found = jax.jit(lambda p, q: [verb(name)(p, q) for name in names])(p, q)
    truths = definitions(p, q, names)
    np.testing.assert_allclose(found, [float(truths[name]) for name in names], rtol=2e-5)


def test_two_forms_of_one_law_are_compared_to_rounding():
    with x64(np.float64):
        p, q = pair(gaussian.MultivariateNormal, dtype=np.float64)
        truth = gaussian.js(p, q), gaussian.kl(p, q), gaussian.entropy(p)
        for form in (gaussian.CovarianceNormal, gaussian.PrecisionNormal):
            other = gaussian.convert(p, form)
            found = gaussian.js(other, q), gaussian.kl(other, q), gaussian.entropy(other)
            np.testing.assert_allclose(found, truth, rtol=1e-12)
            assert gaussian.kl(other, p) < 1e-14


# ---------------------------------------------------------------- conversion


CONVERTIBLE = [
    (form, other)
    for form, other in itertools.permutations(FORMS, 2)
    if other in FORMS[3:7] or (form in INDEPENDENT and other in (*INDEPENDENT, gaussian.LowRankNormal))
]


def test_a_law_in_another_form_is_the_same_law():
    laws = of_every_form()

    @jax.jit
    def all_converted(laws):
        return [gaussian.convert(laws[FORMS.index(form)], other) for form, other in CONVERTIBLE]

    for (form, other), found in zip(CONVERTIBLE, all_converted(list(laws.values())), strict=True):
        assert type(found) is other
        with decimal.localcontext(table.DIGITS):
            (mean, covariance), (true_mean, true_covariance) = map(definitions_of.moments, (found, laws[form]))
        name = f"{form.__name__} {other.__name__}"
        np.testing.assert_allclose(np.array(mean, float), np.array(true_mean, float), 1e-5, 1e-5, err_msg=name)
        size = np.max(np.array(true_covariance, float))
        np.testing.assert_allclose(
            np.array(covariance, float), np.array(true_covariance, float), atol=1e-5 * size, err_msg=name
        )


def test_conversion_there_and_back_is_no_change_also_in_batches():
    root, _ = pairs(gaussian.MultivariateNormal, np.float32)
    for other in SYMMETRIC:

        def there_and_back(law, other=other):
            return gaussian.convert(gaussian.convert(law, form=other), gaussian.MultivariateNormal)

        for x, y in zip(jax.jit(jax.vmap(there_and_back))(root), root, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)
    p = gaussian.Normal(jnp.zeros(2, jnp.bfloat16), jnp.full(2, 0.5, jnp.bfloat16))
    back = gaussian.convert(gaussian.convert(p, gaussian.NormalLogScale), gaussian.Normal)
    assert back.scale.dtype == jnp.bfloat16
    np.testing.assert_allclose(back.scale.astype(np.float32), 0.5, rtol=2e-2)


def test_what_a_law_need_not_be_it_is_not_converted_to():
    laws = of_every_form()
    impossible = set(itertools.permutations(FORMS, 2)) - set(CONVERTIBLE)
    assert (gaussian.CovarianceNormal, gaussian.Normal) in impossible
    for form, other in impossible:
        with pytest.raises(TypeError, match=rf"makes no {other.__name__} .* got {form.__name__}, which becomes"):
            gaussian.convert(laws[form], other)
    with pytest.raises(TypeError, match=r"^gaussian.convert takes a form as one of Normal.*; got <class 'tuple'>"):
        gaussian.convert(laws[gaussian.Normal], tuple)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_the_standard_law_has_the_form_shape_and_dtype_of_its_argument(form):
    p = of_every_form()[form]
    standard = gaussian.standard(p)
    assert type(standard) is form
    assert [(x.shape, x.dtype) for x in standard] == [(x.shape, x.dtype) for x in p]
    with decimal.localcontext(table.DIGITS):
        mean, covariance = definitions_of.moments(standard)
    np.testing.assert_array_equal(np.array(mean, float), np.zeros(4))
    np.testing.assert_array_equal(np.array(covariance, float), np.eye(4))


# ---------------------------------------------------------------- dtypes, errors, data on its way in


def test_half_precision_is_float32_rounded_once():
    p, q = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), pair(gaussian.MultivariateNormal))
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (p, q))
    assert gaussian.kl(p, q) == gaussian.kl(*wide).astype(jnp.bfloat16)


def test_total_variation_holds_few_numbers_for_each_pair():
    """At all nodes of both crossings together it would hold 73."""
    values = jax.vmap(gaussian.total_variation)
    slopes = jax.grad(lambda p, q: jnp.sum(values(p, q)), argnums=(0, 1))
    p, q = (gaussian.Normal(jnp.zeros(65536), jnp.full(65536, x)) for x in (1.0, 2.0))
    for function, numbers in ((values, 12), (slopes, 24)):
        memory = jax.jit(function).lower(p, q).compile().memory_analysis()
        assert memory.temp_size_in_bytes <= numbers * p.loc.nbytes


def test_errors_name_what_came():
    n, p = gaussian.Normal(jnp.zeros((4, 3)), 1.0), pair(gaussian.MultivariateNormal)[0]
    with pytest.raises(ValueError, match=r"p.loc\[4, 3\].*jax.vmap\(gaussian.kl\)"):
        gaussian.kl(n, n)
    with pytest.raises(ValueError, match=r"equal dimension.*Normal\(loc \[d\] or \[\].*p.loc\[3\].*q.loc\[2\]"):
        gaussian.js(gaussian.Normal(jnp.zeros(3), 1.0), gaussian.Normal(jnp.zeros(2), 1.0))
    with pytest.raises(ValueError, match="d >= 1"):
        gaussian.kl(gaussian.Normal(jnp.zeros(0), 1.0), gaussian.Normal(jnp.zeros(0), 1.0))
    with pytest.raises(TypeError, match=r"Normal, NormalLogScale.*; got p of type tuple"):
        gaussian.kl((0.0, 1.0), gaussian.Normal(0.0, 1.0))
    with pytest.raises(TypeError, match=r"p\.loc int32"):
        gaussian.kl(gaussian.Normal(jnp.zeros(2, int), 1.0), gaussian.Normal(jnp.zeros(2), 1.0))
    with pytest.raises(ValueError, match="one component; got d = 2"):
        gaussian.total_variation(gaussian.Normal(jnp.zeros(2), 1.0), gaussian.Normal(jnp.zeros(2), 1.0))
    with pytest.raises(ValueError, match=r"p.loc\[2, 3\].*jax.vmap\(gaussian.kl\)"):
        gaussian.kl(gaussian.MultivariateNormal(jnp.zeros((2, 3)), jnp.eye(3)), p)
    with pytest.raises(ValueError, match=r"scale_tril \[d, d\].*p.scale_tril\[3, 2\]"):
        gaussian.js(gaussian.MultivariateNormal(jnp.zeros(3), jnp.zeros((3, 2))), p)
    with pytest.raises(ValueError, match=r"equal dimension"):
        gaussian.kl(gaussian.CovarianceNormal(jnp.zeros(2), jnp.eye(2)), p)
    with pytest.raises(ValueError, match=r"d >= 1"):
        gaussian.entropy(gaussian.MultivariateNormal(jnp.zeros(0), jnp.zeros((0, 0))))
    with pytest.raises(TypeError, match=r"p\.loc int32"):
        gaussian.kl(gaussian.MultivariateNormal(jnp.zeros(3, int), jnp.eye(3)), p)
    with pytest.raises(TypeError, match=r"MatrixNormal; got q of type tuple"):
        gaussian.kl(p, (0.0, 1.0))
    a, b = (gaussian.MatrixNormal(jnp.zeros(x), jnp.eye(x[0]), jnp.eye(x[1])) for x in ((2, 3), (3, 2)))
    with pytest.raises(ValueError, match=r"row_tril \[n, n\].*q.loc\[3, 2\]"):
        gaussian.kl(a, b)
    for verb in (gaussian.fisher_rao_distance, gaussian.total_variation):
        with pytest.raises(
            TypeError, match=r"independent components, as Normal or NormalLogScale; got Normal and Multi"
        ):
            verb(gaussian.Normal(jnp.zeros(3), 1.0), p)


def test_check_names_the_laws():
    gaussian.check(gaussian.Normal(jnp.zeros((2, 3)), 1.0))
    gaussian.check(gaussian.CovarianceNormal(jnp.zeros(2), jnp.eye(2)))
    gaussian.check(gaussian.Normal(jnp.ones((3, 2)), jnp.ones((3, 1))), axis=0)
    with pytest.raises(ValueError, match="not positive in 1 of 2 rows: 1"):
        gaussian.check(gaussian.Normal(jnp.zeros((2, 3)), jnp.array([[1.0] * 3, [1, 0, 1]])))
    with pytest.raises(ValueError, match="not positive in 1 of 3 rows: 1"):
        gaussian.check(gaussian.Normal(jnp.zeros((2, 3)), jnp.array([[1.0] * 3, [1, 0, 1]])), axis=0)
    with pytest.raises(ValueError, match=r"found nan\."):
        gaussian.check(gaussian.NormalLogScale(jnp.nan, 0.0))
    bad = jnp.stack([jnp.eye(2), jnp.array([[1.0, 2.0], [2.0, 1.0]]), jnp.array([[1.0, 0.1], [0.0, 1.0]])])
    with pytest.raises(ValueError, match=r"not symmetric in 1 of 3 rows: 2; .*not positive definite in 1 of 3 rows: 1"):
        gaussian.check(gaussian.CovarianceNormal(jnp.zeros((3, 2)), bad))
    for law in (
        gaussian.MultivariateNormal(jnp.zeros(2), -jnp.eye(2)),
        gaussian.LowRankNormal(jnp.zeros(2), jnp.zeros((2, 1)), jnp.array([1.0, 0.0])),
        gaussian.MatrixNormal(jnp.zeros((2, 3)), jnp.eye(2), -jnp.eye(3)),
    ):
        gaussian.check(gaussian.standard(law))
        with pytest.raises(ValueError, match=r"diagonal that is not positive"):
            gaussian.check(law)
    with pytest.raises(ValueError, match=r"takes axis=-1 for CovarianceNormal; got axis=0"):
        gaussian.check(gaussian.CovarianceNormal(jnp.zeros((3, 2)), bad), axis=0)
    with pytest.raises(ValueError, match=r"equal leading axes; got p.loc\[3, 2\]"):
        gaussian.check(gaussian.CovarianceNormal(jnp.zeros((3, 2)), jnp.eye(2)))


# ---------------------------------------------------------------- large batches


# One verb to each form; natural laws are by precisions.
LARGE = {
    "MultivariateNormal": "js",
    "CovarianceNormal": "squared_wasserstein2",
    "PrecisionNormal": "kl",
    "LowRankNormal": "js",
}


@pytest.mark.gate
@pytest.mark.parametrize("name", LARGE)
def test_large_batches_do_not_hang(name):
    # In a process of its own, as a hang cannot be interrupted. It takes a quarter of a minute on an idle machine.
    script = pathlib.Path(__file__).with_name("batches.py")
    subprocess.run([sys.executable, str(script), name, LARGE[name]], check=True, timeout=560)


def test_a_form_is_a_class_and_a_law_of_arrays_is_told_so():
    p = gaussian.Normal(jnp.zeros(2), jnp.ones(2))
    with pytest.raises(TypeError, match="Pass the class"):
        gaussian.convert(p, p)


def test_the_entropy_of_a_huge_mean_is_that_of_any():
    found = gaussian.entropy(gaussian.Normal(jnp.full(2, 3e38), 1.0))
    np.testing.assert_allclose(found, gaussian.entropy(gaussian.Normal(jnp.zeros(2), 1.0)))


BY_LENGTHS = ("wasserstein2_distance",)  # in the unit of the mean
OF_UNITS = [
    "kl", "jeffreys", "js", "chernoff", "geometric_js", "renyi", "fisher_rao_distance", "total_variation",
    *BY_LENGTHS,
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "names", "sizes"),
    [
        (gaussian.Normal, OF_UNITS, (2.0**-100, 2.0**-120, 2.0**100, 2.0**126)),
        (gaussian.MultivariateNormal, ["kl"], (2.0**-100, 2.0**100)),
        *with_all((gaussian.LowRankNormal, ["kl"], (2.0**-60, 2.0**50))),
    ],
    ids=["Normal", "MultivariateNormal", "LowRankNormal"],
)
def test_another_unit_changes_neither_values_nor_gradients(form, names, sizes):
    one = jnp.ones(1)
    rows = {
        gaussian.Normal: lambda m, s: gaussian.Normal(m, s),
        gaussian.LowRankNormal: lambda m, s: gaussian.LowRankNormal(m * one, 0.5 * s * one[None], 0.75 * s * s * one),
        gaussian.MultivariateNormal: lambda m, s: gaussian.MultivariateNormal(m * one, s * one[None]),
    }[form]
    # Laws of different means and scales, of equal ones, and of one scale.
    cases = np.array([[0.5, 1.0, -0.25, 1.5], [0.5, 1.0, 0.5, 1.0], [0.5, 1.5, 0.25, 1.5]], np.float32)
    units = np.array([1.0, *sizes], np.float32)

    def of(name, x):
        return verb(name)(rows(x[0], x[1]), rows(x[2], x[3]))

    def found(x):
        return {name: jax.value_and_grad(functools.partial(of, name))(x) for name in names}

    of_all = jax.device_get(jax.jit(jax.vmap(jax.vmap(found)))(units[:, None, None] * cases))
    for name, (value, slope) in of_all.items():
        per_unit, per_slope = (1 / units, np.ones_like(units)) if name in BY_LENGTHS else (np.ones_like(units), units)
        value, slope = value * per_unit[:, None], slope * per_slope[:, None, None]
        np.testing.assert_allclose(value, np.broadcast_to(value[0], value.shape), rtol=1e-5, err_msg=name)
        seen = ~((units > 2.0**120) & (name not in BY_LENGTHS))  # others are subnormal there
        assert np.all(np.isfinite(slope)), name
        np.testing.assert_allclose(
            slope[seen], np.broadcast_to(slope[0], slope.shape)[seen], rtol=2e-5, atol=1e-6, err_msg=name
        )


def test_distances_are_of_the_size_of_small_and_large_differences():
    of = jax.vmap(lambda m, s: gaussian.wasserstein2_distance(gaussian.Normal(m, s), gaussian.Normal(0.0, 1.0)))
    np.testing.assert_allclose(of(jnp.array([1e20, 1e-30]), jnp.ones(2)), [1e20, 1e-30], rtol=1e-6)
    p, q = (gaussian.NormalLogScale(0.0, x) for x in (50.0, 51.0))
    np.testing.assert_allclose(gaussian.wasserstein2_distance(p, q), np.exp(51.0) - np.exp(50.0), rtol=1e-5)
    p, q = gaussian.Normal(1e-30, 1.0), gaussian.Normal(0.0, 1.0)
    value, slope = jax.value_and_grad(gaussian.fisher_rao_distance)(p, q)
    np.testing.assert_allclose([value, slope.loc], [1e-30, 1], rtol=1e-6)

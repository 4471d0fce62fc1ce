"""Every form of a multivariate normal law against mpmath, and what holds at equality, at faults, in large batches."""

import functools
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from measure import digits, exact, normwise, worst, x64
from scipy import special

from jaxdiv import mvn, normal

FORMS = [mvn.MultivariateNormal, mvn.CovarianceNormal, mvn.PrecisionNormal, mvn.NaturalNormal, mvn.LowRankNormal]
# One worker of pytest-xdist gets all of a form, which it compiles once.
GROUPS = [pytest.param(form, id=form.__name__, marks=pytest.mark.xdist_group(form.__name__)) for form in FORMS]
FORM = pytest.mark.parametrize("form", GROUPS)
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
ALPHA = 0.3
D = 3


def verb(name):
    function = getattr(mvn, name)
    return functools.partial(function, alpha=ALPHA) if name in ("renyi", "amari") else function


def law(form, rng, d=D):
    """A well-conditioned law of a form."""
    loc = rng.normal(size=d)
    if form is mvn.MultivariateNormal:
        return form(loc, np.tril(0.4 * rng.normal(size=(d, d)), -1) + np.diag(np.exp(0.3 * rng.normal(size=d))))
    if form is mvn.LowRankNormal:
        return form(loc, rng.normal(size=(d, 2)), np.exp(rng.normal(size=d)))
    return form(loc, np.eye(d) + 0.2 * np.ones((d, d)) + np.diag(rng.uniform(size=d)))


def moved(p, rng, near):
    """A law whose arrays differ from those of `p` by about `near`, relative to their size."""
    matrices = [x * (1 + 0.5 * near * rng.uniform(-1, 1, size=x.shape)) for x in p[1:]]
    if matrices[0].shape == (len(p[0]),) * 2 and not isinstance(p, mvn.MultivariateNormal):
        matrices = [0.5 * (x + x.T) for x in matrices]
    return type(p)(p[0] + near * rng.normal(size=p[0].shape), *matrices)


def pair(form, near=1.0, d=D, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    p = law(form, rng, d)
    return tuple(jax.tree.map(lambda x: x.astype(dtype), x) for x in (p, moved(p, rng, near)))


@functools.cache
def pairs(form, dtype):
    """Eight pairs: far, near each other by 1e-1 to 1e-6, with a common offset of the means, with a ratio of scales."""
    found = [list(pair(form, near, seed=i, dtype=dtype)) for i, near in enumerate((1, 0.1, 1e-2, 1e-3, 1e-5, 1e-6))]
    p, q = pair(form, 1e-3, seed=7, dtype=dtype)
    offset = np.array([2000, -3000, 1000], dtype)
    found.append([x._replace(**{x._fields[0]: x[0] + offset}) for x in (p, q)])
    p, q = pair(form, seed=8, dtype=dtype)
    scale = dtype(1000 if form is mvn.MultivariateNormal else 1e6)
    matrices = [x * (dtype(1000) if name == "factor" else scale) for name, x in zip(q._fields, q, strict=True)][1:]
    found.append([p, form(q[0], *matrices)])
    return stacked([x for x, _ in found]), stacked([x for _, x in found])


def stacked(laws):
    return jax.tree.map(lambda *x: np.stack(x), *laws)


def unstacked(laws):
    return [type(laws)(*fields) for fields in zip(*laws, strict=True)]


@functools.partial(jax.jit, static_argnums=2)
def _values_and_slopes(p, q, names):
    def one(p, q):
        values, pull = jax.vjp(lambda p, q: jnp.stack([verb(name)(p, q) for name in names]), p, q)
        return values, jax.vmap(pull)(jnp.eye(len(names), dtype=values.dtype))

    return jax.vmap(one)(p, q)


def values_and_slopes(p, q, dtype):
    """By name: values `[n]` and the gradients in both laws, of a batch; one program for a form and a dtype."""
    names = (OF_ROOTS if isinstance(p, mvn.MultivariateNormal) else OF_OTHER_FORMS)[dtype]
    with x64(dtype):
        values, slopes = jax.device_get(_values_and_slopes(p, q, tuple(names)))
    slopes = [jax.tree.map(lambda x, i=i: x[:, i], slopes) for i in range(len(names))]
    return dict(zip(names, zip(values.T, slopes, strict=True), strict=True))


def mean_and_covariance(law):
    """In mpmath numbers, of the law's floating-point arrays."""
    first, *arrays = (mpmath.matrix(exact(x)) for x in law)
    if isinstance(law, mvn.MultivariateNormal):
        return first, arrays[0] * arrays[0].T
    if isinstance(law, mvn.LowRankNormal):
        return first, arrays[0] * arrays[0].T + mpmath.diag(list(arrays[1]))
    if isinstance(law, mvn.CovarianceNormal):
        return first, arrays[0]
    inverse = arrays[0] ** -1
    return inverse * first if isinstance(law, mvn.NaturalNormal) else first, inverse


@digits
def definitions(p, q):
    (m, cp), (n, cq) = mean_and_covariance(p), mean_and_covariance(q)
    delta, d = m - n, len(m)

    def log_c(a):
        mixed = (1 - a) * cp + a * cq
        logs = (1 - a) * mpmath.log(mpmath.det(cp)) + a * mpmath.log(mpmath.det(cq)) - mpmath.log(mpmath.det(mixed))
        return (logs - a * (1 - a) * (delta.T * mpmath.lu_solve(mixed, delta))[0]) / 2

    def kl(cp, cq):
        ratio = cq**-1 * cp
        trace = sum(ratio[i, i] for i in range(d))
        return (trace - d - mpmath.log(mpmath.det(ratio)) + (delta.T * cq**-1 * delta)[0]) / 2

    a, b, jeffreys = mpmath.mpf(ALPHA), -log_c(mpmath.mpf(1) / 2), kl(cp, cq) + kl(cq, cp)
    root = mpmath.cholesky(cq)
    cross = sum(mpmath.sqrt(x) for x in mpmath.eigsy(root.T * cp * root, eigvals_only=True))
    w2 = sum(x * x for x in delta) + sum(cp[i, i] + cq[i, i] for i in range(d)) - 2 * cross
    converges = min(mpmath.eigsy(2 * cq - cp, eigvals_only=True)) > 0
    return {
        "kl": kl(cp, cq),
        "jeffreys": jeffreys,
        "renyi": log_c(a) / (a - 1),
        "amari": -mpmath.expm1(log_c(a)) / (a * (1 - a)),
        "bhattacharyya": b,
        "squared_hellinger": -mpmath.expm1(-b),
        "hellinger_distance": mpmath.sqrt(-mpmath.expm1(-b)),
        "chi2": mpmath.expm1(log_c(2)) if converges else mpmath.inf,
        "geometric_js": jeffreys / 4 - b,
        "squared_wasserstein2": w2,
        "wasserstein2_distance": mpmath.sqrt(w2),
    }


@FORM
def test_values_are_their_definitions_to_a_few_ulps(form):
    p, q = pairs(form, np.float64)
    truths = [definitions(*x) for x in zip(unstacked(p), unstacked(q), strict=True)]
    found = values_and_slopes(p, q, np.float64)
    for name in set(DEFINED) & set(found):
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
        bound = 64 if (name, form) == ("squared_wasserstein2", mvn.LowRankNormal) else 16
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
    if form not in (mvn.MultivariateNormal, mvn.LowRankNormal):
        p[-1][5, :2, :2] = [[1, 2], [2, 1]]
    faulty = [False, True, True, True, True, form not in (mvn.MultivariateNormal, mvn.LowRankNormal), False, False]
    for name, (value, _) in values_and_slopes(p, q, np.float32).items():
        assert np.array_equal(np.isnan(value), faulty), name


@pytest.mark.parametrize("verb", [mvn.kl, mvn.squared_hellinger, functools.partial(mvn.renyi, alpha=ALPHA)])
def test_a_faulty_law_among_thousands_is_not_lost(verb):
    # Beside so many sums XLA:CPU takes minima and maxima that lose NaN.
    loc, root = np.zeros((5000, D), np.float32), np.tile(np.eye(D, dtype=np.float32), (5000, 1, 1))
    loc[1, 2], root[3, 1, 1] = np.nan, -1
    of_all = jax.jit(jax.vmap(verb, (0, None)))
    values = of_all(mvn.MultivariateNormal(loc, root), mvn.MultivariateNormal(jnp.ones(D), 2 * jnp.eye(D)))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(values)), [1, 3])


def test_diagonal_laws_agree_with_normal():
    rng = np.random.default_rng(3)
    m, n = rng.normal(size=(2, 3)).astype(np.float32)
    s, r = np.exp(rng.normal(size=(2, 3))).astype(np.float32)
    law = (
        mvn.LowRankNormal(m, np.zeros((3, 0), np.float32), s * s),
        mvn.LowRankNormal(n, np.zeros((3, 0), np.float32), r * r),
    )
    root = mvn.MultivariateNormal(m, np.diag(s)), mvn.MultivariateNormal(n, np.diag(r))
    for name in ("kl", "js", "squared_wasserstein2", "cross_entropy"):
        truth = getattr(normal, name)(normal.Normal(m, s), normal.Normal(n, r))
        for p, q in (law, root, (law[0], root[1])):
            np.testing.assert_allclose(verb(name)(p, q), truth, rtol=2e-5)


def test_mixed_forms_agree():
    p, q = pair(mvn.MultivariateNormal)
    c = [x.scale_tril @ x.scale_tril.T for x in (p, q)]
    truth = mvn.js(p, q), mvn.kl(p, q), mvn.entropy(p)
    for other in (mvn.CovarianceNormal(p.loc, c[0]), mvn.PrecisionNormal(p.loc, np.linalg.inv(c[0]))):
        np.testing.assert_allclose([mvn.js(other, q), mvn.kl(other, q), mvn.entropy(other)], truth, rtol=2e-5)


def test_js_is_the_mean_of_its_definition_over_samples():
    p, q = pair(mvn.MultivariateNormal, 0.7, d=8, seed=4, dtype=np.float64)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 200000, 8))
    x = np.concatenate([law.loc + y @ law.scale_tril.T for law, y in zip((p, q), z, strict=True)])

    def log_density(law):
        y = np.linalg.solve(law.scale_tril, (x - law.loc).T)
        return -0.5 * np.sum(y * y, 0) - np.sum(np.log(np.diagonal(law.scale_tril)))

    log_ratio = log_density(p) - log_density(q)
    # E_m of p/m log p/m and the like, by tanh of half the log-ratio: non-negative, of small variance.
    v = np.tanh(0.5 * log_ratio)
    terms = 0.5 * (special.xlog1py(1 + v, v) + special.xlog1py(1 - v, -v))
    error = np.std(terms) / np.sqrt(len(terms))
    assert abs(np.mean(terms) - mvn.js(p, q)) < 5 * error


def test_no_gradient_above_the_diagonal():
    p, q = pair(mvn.MultivariateNormal)
    full = [law._replace(scale_tril=law.scale_tril + np.triu(np.ones((3, 3), np.float32), 1)) for law in (p, q)]
    for name in ("kl", "js", "renyi", "squared_wasserstein2"):
        assert verb(name)(*full) == verb(name)(p, q)
        slopes = jax.grad(verb(name), (0, 1))(*full)
        assert all(jnp.all(jnp.triu(x.scale_tril, 1) == 0) for x in slopes)


@pytest.mark.parametrize("form", FORMS[:3], ids=lambda form: form.__name__)
def test_the_hessian_at_equality_is_the_fisher_information(form):
    p, _ = pair(form, d=2)
    c = np.array(mean_and_covariance(p)[1].tolist(), float)
    with x64(np.float64):
        p = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), p)

        def of_covariance(x):
            if form is mvn.CovarianceNormal:
                return x
            return x @ x.T if form is mvn.MultivariateNormal else jnp.linalg.inv(x)

        direction = jnp.asarray([[0.3, 0.0], [-0.2, 0.5]])
        direction = direction if form is mvn.MultivariateNormal else direction + direction.T
        change = jax.jvp(of_covariance, (p[1],), (direction,))[1]
        inner = np.linalg.solve(c, change)
        truth = 0.5 * np.trace(inner @ inner) + np.ones(2) @ np.linalg.solve(c, np.ones(2))

        for name, factor in (("kl", 1), ("js", 4), ("bhattacharyya", 4)):

            def along(t, name=name, factor=factor):
                return factor * verb(name)(p, type(p)(p.loc + t, p[1] + t * direction))

            np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(along)))(0.0), truth, rtol=1e-5)


def test_wasserstein_is_gelbrichs_formula_with_its_derivatives():
    p, q = pair(mvn.MultivariateNormal, dtype=np.float64)
    with x64(np.float64):

        def formula(p, q):
            a, b = jnp.tril(p.scale_tril), jnp.tril(q.scale_tril)
            singular = jnp.linalg.svd(b.T @ a)[1]
            return jnp.sum((p.loc - q.loc) ** 2) + jnp.sum(a * a) + jnp.sum(b * b) - 2 * jnp.sum(singular)

        for near in (1, 0.02):
            close = jax.tree.map(lambda x, y, near=near: x + near * (y - x), p, q)
            for order in (lambda f: f, jax.grad, jax.hessian):
                for x, y in zip(
                    *(jax.tree.leaves(jax.jit(order(f))(p, close)) for f in (mvn.squared_wasserstein2, formula)),
                    strict=True,
                ):
                    np.testing.assert_allclose(
                        np.tril(x) if x.ndim == 2 else x, np.tril(y) if y.ndim == 2 else y, atol=1e-7
                    )


def textbook(p, q):
    """KL of two laws by their means and covariances, far enough from each other, in float64."""
    (m, cp), (n, cq) = p, q
    inverse = np.linalg.inv(cq)
    log_det = np.linalg.slogdet(cp)[1] - np.linalg.slogdet(cq)[1]
    return 0.5 * (np.trace(inverse @ cp) - len(m) - log_det + (m - n) @ inverse @ (m - n))


@pytest.mark.parametrize("d", [16, 64])
def test_dimensions_beyond_the_unrolled_ones(d):
    verbs = (mvn.kl, mvn.js) if d == 16 else (mvn.kl,)
    rng = np.random.default_rng(d)
    root = np.tril(rng.normal(size=(d, d)) / d, -1) + np.diag(np.exp(0.3 * rng.normal(size=d)))
    loc = rng.normal(size=d)
    for near in (0.1, 1e-5):
        p, q = (
            mvn.MultivariateNormal(*(x.astype(np.float32) for x in law))
            for law in ((loc, root), (loc + near * rng.normal(size=d), root * (1 + near * rng.normal(size=root.shape))))
        )
        with x64(np.float64):
            wide = [jax.tree.map(lambda x: x.astype(np.float64), law) for law in (p, q)]
            truth = [verb(*wide) for verb in verbs]
        assert worst([verb(p, q) for verb in verbs], truth, np.float32) <= 16
        if near == 0.1:
            of_covariances = textbook(*((x.loc, x.scale_tril @ x.scale_tril.T) for x in wide))
            np.testing.assert_allclose(truth[0], of_covariances, rtol=1e-11)


def test_a_low_rank_law_is_that_of_its_covariance():
    d, r = 256, 3
    rng = np.random.default_rng(0)
    with x64(np.float64):
        p, q = (
            mvn.LowRankNormal(rng.normal(size=d), rng.normal(size=(d, r)), np.exp(rng.normal(size=d))) for _ in "pq"
        )
        covariances = ((x.loc, x.factor @ x.factor.T + np.diag(x.diag)) for x in (p, q))
        truth = textbook(*covariances)
        np.testing.assert_allclose(mvn.kl(p, q), truth, rtol=1e-11)


def test_a_large_low_rank_pair_needs_no_square_array():
    d, r = 256, 8
    p, q = pair(mvn.LowRankNormal, 1e-3, d=d)
    p, q = (law._replace(factor=np.tile(law.factor, (1, r // 2))) for law in (p, q))
    text = jax.jit(jax.value_and_grad(mvn.kl)).lower(p, q).compile().as_text()
    assert f"[{d},{d}]" not in text


def test_half_precision_is_float32_rounded_once():
    p, q = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), pair(mvn.MultivariateNormal))
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (p, q))
    assert mvn.kl(p, q) == mvn.kl(*wide).astype(jnp.bfloat16)


def test_errors_name_what_came():
    p, q = pair(mvn.MultivariateNormal)
    with pytest.raises(ValueError, match=r"p.loc\[2, 3\].*jax.vmap\(mvn.kl\)"):
        mvn.kl(mvn.MultivariateNormal(jnp.zeros((2, 3)), jnp.eye(3)), q)
    with pytest.raises(ValueError, match=r"square matrix.*p.scale_tril\[3, 2\]"):
        mvn.js(mvn.MultivariateNormal(jnp.zeros(3), jnp.zeros((3, 2))), q)
    with pytest.raises(ValueError, match=r"equal dimension"):
        mvn.kl(mvn.CovarianceNormal(jnp.zeros(2), jnp.eye(2)), q)
    with pytest.raises(ValueError, match=r"d >= 1"):
        mvn.entropy(mvn.MultivariateNormal(jnp.zeros(0), jnp.zeros((0, 0))))
    with pytest.raises(TypeError, match=r"p\.loc int32"):
        mvn.kl(mvn.MultivariateNormal(jnp.zeros(3, int), jnp.eye(3)), q)
    with pytest.raises(TypeError, match=r"LowRankNormal; got q of type tuple"):
        mvn.kl(p, (0.0, 1.0))


def test_check_names_the_laws():
    mvn.check(mvn.CovarianceNormal(jnp.zeros(2), jnp.eye(2)))
    bad = jnp.stack([jnp.eye(2), jnp.array([[1.0, 2.0], [2.0, 1.0]]), jnp.array([[1.0, 0.1], [0.0, 1.0]])])
    with pytest.raises(ValueError, match=r"not symmetric in 1 of 3 rows: 2; .*not positive definite in 1 of 3 rows: 1"):
        mvn.check(mvn.CovarianceNormal(jnp.zeros((3, 2)), bad))
    with pytest.raises(ValueError, match=r"diagonal that is not positive"):
        mvn.check(mvn.MultivariateNormal(jnp.zeros(2), -jnp.eye(2)))


# One verb to each form; natural laws are by precisions.
LARGE = {
    "MultivariateNormal": "js",
    "CovarianceNormal": "squared_wasserstein2",
    "PrecisionNormal": "kl",
    "LowRankNormal": "js",
}


@pytest.mark.parametrize("name", LARGE)
def test_large_batches_do_not_hang(name):
    # In a process of its own, as a hang cannot be interrupted. It takes a quarter of a minute on an idle machine.
    script = pathlib.Path(__file__).with_name("batches.py")
    subprocess.run([sys.executable, str(script), name, LARGE[name]], check=True, timeout=560)

import functools
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from measure import worst, x64

from jaxdiv import mvn, normal

FORMS = ["MultivariateNormal", "CovarianceNormal", "PrecisionNormal", "LowRankNormal"]
VERBS = ["kl", "jeffreys", "js", "renyi", "squared_hellinger", "bhattacharyya", "chernoff", "geometric_js"]
METRICS = ["js_distance", "hellinger_distance", "wasserstein2_distance"]


def verb(name):
    function = getattr(mvn, name)
    return functools.partial(function, alpha=0.3) if name in ("renyi", "amari") else function


def pair(form, near=1.0, d=3, seed=0, dtype=np.float32):
    """Two laws of a form whose arrays differ by about `near`, relative to their size."""
    rng = np.random.default_rng(seed)
    loc = rng.normal(size=d)
    fields = {
        "MultivariateNormal": lambda: [
            np.tril(0.4 * rng.normal(size=(d, d)), -1) + np.diag(np.exp(0.3 * rng.normal(size=d)))
        ],
        "LowRankNormal": lambda: [rng.normal(size=(d, 2)), np.exp(rng.normal(size=d))],
    }
    arrays = fields.get(form, lambda: [np.eye(d) + 0.2 * np.ones((d, d)) + np.diag(rng.uniform(size=d))])()
    moved = [x * (1 + 0.5 * near * rng.uniform(-1, 1, size=x.shape)) for x in arrays]
    if form in ("CovarianceNormal", "PrecisionNormal"):
        moved = [0.5 * (x + x.T) for x in moved]
    law = getattr(mvn, form)
    p = law(loc, *arrays)
    q = law(loc + near * rng.normal(size=d), *moved)
    return tuple(law(*(np.asarray(x, dtype) for x in y)) for y in (p, q))


def covariance(law):
    """In 40 digits, of the law's floating-point arrays."""
    arrays = [mpmath.matrix(np.asarray(x, np.float64).tolist()) for x in law[1:]]
    if isinstance(law, mvn.MultivariateNormal):
        return arrays[0] * arrays[0].T
    if isinstance(law, mvn.LowRankNormal):
        return arrays[0] * arrays[0].T + mpmath.diag(list(arrays[1]))
    return arrays[0] ** -1 if isinstance(law, mvn.PrecisionNormal) else arrays[0]


def definitions(p, q):
    with mpmath.workdps(50):
        cp, cq = covariance(p), covariance(q)
        delta = mpmath.matrix([mpmath.mpf(float(x)) - mpmath.mpf(float(y)) for x, y in zip(p.loc, q.loc, strict=True)])
        d = len(delta)

        def log_c(a):
            n = (1 - a) * cp + a * cq
            logs = (1 - a) * mpmath.log(mpmath.det(cp)) + a * mpmath.log(mpmath.det(cq)) - mpmath.log(mpmath.det(n))
            return (logs - a * (1 - a) * (delta.T * mpmath.lu_solve(n, delta))[0]) / 2

        def kl(cp, cq):
            m = cq**-1 * cp
            trace = sum(m[i, i] for i in range(d))
            return (trace - d - mpmath.log(mpmath.det(m)) + (delta.T * cq**-1 * delta)[0]) / 2

        a, b, jeffreys = mpmath.mpf(0.3), -log_c(mpmath.mpf(1) / 2), kl(cp, cq) + kl(cq, cp)
        return {
            "kl": kl(cp, cq),
            "jeffreys": jeffreys,
            "renyi": log_c(a) / (a - 1),
            "bhattacharyya": b,
            "squared_hellinger": -mpmath.expm1(-b),
            "geometric_js": jeffreys / 4 - b,
        }


@pytest.mark.parametrize("form", FORMS)
def test_values_are_their_definitions_to_a_few_ulps(form):
    pairs = [pair(form, near, seed=i) for i, near in enumerate((1, 1e-1, 1e-2, 1e-3, 1e-5, 1e-6))]
    truths = [definitions(*x) for x in pairs]
    p, q = (jax.tree.map(lambda *x: np.stack(x), *laws) for laws in zip(*pairs, strict=True))
    for name in truths[0]:
        values = np.asarray(jax.vmap(verb(name))(p, q), np.float64)
        assert worst(values, [float(truth[name]) for truth in truths], np.float32) < 16, name


@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_in_float32_are_those_in_float64(form):
    # Against the same code in float64, whose values the tests above hold to the definitions: js has no closed form.
    pairs = [pair(form, near, seed=i) for i, near in enumerate((1, 1e-1, 1e-3, 1e-5))]
    p, q = (jax.tree.map(lambda *x: np.stack(x), *laws) for laws in zip(*pairs, strict=True))
    for name in ("kl", "js", "bhattacharyya"):
        both = jax.vmap(jax.value_and_grad(verb(name), (0, 1)))
        value, slopes = both(p, q)
        with x64(np.float64):
            truth, true_slopes = both(*jax.tree.map(lambda x: x.astype(np.float64), (p, q)))
        assert worst(value, truth, np.float32) < 16, name
        for x, y in zip(jax.tree.leaves(slopes), jax.tree.leaves(true_slopes), strict=True):
            axes = tuple(range(1, x.ndim))
            x, y = np.asarray(x, np.float64), np.asarray(y)
            error = np.max(np.abs(x - y), axes) / np.max(np.abs(y), axes)
            assert np.max(error) < 16 * np.finfo(np.float32).eps, name


@pytest.mark.parametrize("form", FORMS)
def test_equal_laws_are_exactly_0_with_gradient_0(form):
    p, _ = pair(form)
    for name in [*VERBS, *METRICS, "chi2"]:
        value, slopes = jax.value_and_grad(verb(name), (0, 1))(p, p)
        assert value == 0, name
        assert all(jnp.all(x == 0) for x in jax.tree.leaves(slopes)), name


def test_diagonal_laws_agree_with_normal():
    rng = np.random.default_rng(3)
    m, n = rng.normal(size=(2, 3)).astype(np.float32)
    s, r = np.exp(rng.normal(size=(2, 3))).astype(np.float32)
    law = (
        mvn.LowRankNormal(m, np.zeros((3, 0), np.float32), s * s),
        mvn.LowRankNormal(n, np.zeros((3, 0), np.float32), r * r),
    )
    root = mvn.MultivariateNormal(m, np.diag(s)), mvn.MultivariateNormal(n, np.diag(r))
    for name in [*VERBS, "squared_wasserstein2", "cross_entropy"]:
        truth = getattr(normal, name)
        truth = functools.partial(truth, alpha=0.3) if name == "renyi" else truth
        for p, q in (law, root, (law[0], root[1])):
            np.testing.assert_allclose(verb(name)(p, q), truth(normal.Normal(m, s), normal.Normal(n, r)), rtol=2e-5)


def test_mixed_forms_agree():
    p, q = pair("MultivariateNormal")
    c = [x.scale_tril @ x.scale_tril.T for x in (p, q)]
    truth = mvn.js(p, q), mvn.kl(p, q), mvn.entropy(p)
    for other in (mvn.CovarianceNormal(p.loc, c[0]), mvn.PrecisionNormal(p.loc, np.linalg.inv(c[0]))):
        np.testing.assert_allclose([mvn.js(other, q), mvn.kl(other, q), mvn.entropy(other)], truth, rtol=2e-5)


def test_js_is_the_mean_of_its_definition_over_samples():
    p, q = pair("MultivariateNormal", 0.7, d=8, seed=4, dtype=np.float64)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 200000, 8))
    x = np.concatenate([law.loc + y @ law.scale_tril.T for law, y in zip((p, q), z, strict=True)])

    def log_density(law):
        y = np.linalg.solve(law.scale_tril, (x - law.loc).T)
        return -0.5 * np.sum(y * y, 0) - np.sum(np.log(np.diagonal(law.scale_tril)))

    log_ratio = log_density(p) - log_density(q)
    # E_m of p/m log p/m and the like, by tanh of half the log-ratio: non-negative, of small variance.
    v = np.tanh(0.5 * log_ratio)
    terms = 0.5 * ((1 + v) * np.log1p(v) + (1 - v) * np.log1p(-v))
    error = np.std(terms) / np.sqrt(len(terms))
    assert abs(np.mean(terms) - mvn.js(p, q)) < 5 * error


def test_no_gradient_above_the_diagonal():
    p, q = pair("MultivariateNormal")
    full = [law._replace(scale_tril=law.scale_tril + np.triu(np.ones((3, 3), np.float32), 1)) for law in (p, q)]
    for name in ("kl", "js", "renyi", "squared_wasserstein2"):
        assert verb(name)(*full) == verb(name)(p, q)
        slopes = jax.grad(verb(name), (0, 1))(*full)
        assert all(jnp.all(jnp.triu(x.scale_tril, 1) == 0) for x in slopes)


@pytest.mark.parametrize("form", ["MultivariateNormal", "CovarianceNormal", "PrecisionNormal"])
def test_the_hessian_at_equality_is_the_fisher_information(form):
    p, _ = pair(form, d=2)
    c = np.array(covariance(p).tolist(), float)
    with x64(np.float64):
        p = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), p)

        def of_covariance(x):
            if form == "CovarianceNormal":
                return x
            return x @ x.T if form == "MultivariateNormal" else jnp.linalg.inv(x)

        direction = jnp.asarray([[0.3, 0.0], [-0.2, 0.5]])
        direction = direction if form == "MultivariateNormal" else direction + direction.T
        change = jax.jvp(of_covariance, (p[1],), (direction,))[1]
        inner = np.linalg.solve(c, change)
        truth = 0.5 * np.trace(inner @ inner) + np.ones(2) @ np.linalg.solve(c, np.ones(2))

        for name, factor in (("kl", 1), ("js", 4), ("bhattacharyya", 4)):

            def along(t, name=name, factor=factor):
                return factor * verb(name)(p, type(p)(p.loc + t, p[1] + t * direction))

            np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(along)))(0.0), truth, rtol=1e-5)


def test_wasserstein_is_gelbrichs_formula_with_its_derivatives():
    p, q = pair("MultivariateNormal", dtype=np.float64)
    with x64(np.float64):

        def formula(p, q):
            c, d = (law.scale_tril @ law.scale_tril.T for law in (p, q))
            return (
                jnp.sum((p.loc - q.loc) ** 2)
                + jnp.trace(c + d)
                - 2 * jnp.sum(jnp.linalg.svd(q.scale_tril.T @ p.scale_tril)[1])
            )

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


def test_a_faulty_law_is_nan_in_its_pair_only():
    loc, good = jnp.zeros((4, 2)), jnp.eye(2)
    bad = jnp.stack([good, jnp.array([[1.0, 2.0], [2.0, 1.0]]), jnp.zeros((2, 2)), jnp.full((2, 2), jnp.nan)])
    for form in (mvn.CovarianceNormal, mvn.PrecisionNormal):
        for name in [*VERBS, "squared_wasserstein2"]:
            values = jax.vmap(verb(name), (0, None))(form(loc, bad), form(jnp.ones(2), 2 * good))
            assert np.array_equal(np.isnan(values), [False, True, True, True]), name
    roots = jnp.stack([good, jnp.diag(jnp.array([1.0, -1.0])), jnp.diag(jnp.array([1.0, 0.0])), bad[3]])
    values = jax.vmap(mvn.js, (0, None))(
        mvn.MultivariateNormal(loc, roots), mvn.MultivariateNormal(jnp.ones(2), 2 * good)
    )
    assert np.array_equal(np.isnan(values), [False, True, True, True])


def test_a_large_low_rank_pair_needs_no_square_array():
    d, r = 256, 8
    p, q = pair("LowRankNormal", 1e-3, d=d)
    p, q = (law._replace(factor=np.tile(law.factor, (1, r // 2))) for law in (p, q))
    text = jax.jit(jax.value_and_grad(mvn.kl)).lower(p, q).compile().as_text()
    assert f"[{d},{d}]" not in text


def test_half_precision_is_float32_rounded_once():
    p, q = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), pair("MultivariateNormal"))
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (p, q))
    assert mvn.kl(p, q) == mvn.kl(*wide).astype(jnp.bfloat16)


def test_errors_name_what_came():
    p, q = pair("MultivariateNormal")
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


@pytest.mark.parametrize("form", FORMS)
def test_large_batches_do_not_hang(form):
    # In a process of its own, as a hang cannot be interrupted. It takes a minute or less on an idle machine.
    script = pathlib.Path(__file__).with_name("batches.py")
    subprocess.run([sys.executable, str(script), form, "kl", "js", "squared_wasserstein2"], check=True, timeout=560)

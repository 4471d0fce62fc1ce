"""Wasserstein distances of laws whose covariances are singular: few samples, roots with zeros, point masses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import with_all
from measure import x64

from jaxdiv import gaussian

D, SAMPLES = 8, 5
FORMS = [
    gaussian.Normal,
    gaussian.LowRankNormal,
    gaussian.MultivariateNormal,
    gaussian.CovarianceNormal,
    gaussian.MatrixNormal,
]


def factors(form, rng, kind):
    """A mean and what of a law of a form is not its mean: regular, singular, or of a point mass."""
    loc = rng.normal(size=(4, 2) if form is gaussian.MatrixNormal else D)
    if form is gaussian.Normal:
        scale = rng.uniform(0.5, 2, size=D)
        scale[: {"regular": 0, "singular": 3, "point": D}[kind]] = 0
        return loc, scale
    if form in (gaussian.MultivariateNormal, gaussian.MatrixNormal):
        size = 4 if form is gaussian.MatrixNormal else D
        root = np.tril(rng.normal(size=(size, size)), -1) + np.diag(rng.uniform(0.5, 2, size))
        root[:, size // 3 :] *= {"regular": 1, "singular": 0, "point": 0}[kind]
        root = root * (kind != "point")
        return (loc, root) if size == D else (loc, root, np.array([[1.0, 0.0], [0.5, 2.0]]))
    few = rng.normal(size=(D, SAMPLES))
    few = (few - few.mean(1, keepdims=True)) / np.sqrt(SAMPLES) * (kind != "point")
    diag = np.full(D, 0.5 if kind == "regular" else 0.0)
    return (loc, few @ few.T + np.diag(diag)) if form is gaussian.CovarianceNormal else (loc, few, diag)


def moments(law):
    """Mean and covariance of a law of float64."""
    if isinstance(law, gaussian.MatrixNormal):
        root = np.kron(law.row_tril, law.column_tril)
        return law.loc.ravel(), root @ root.T
    if isinstance(law, gaussian.CovarianceNormal):
        return law
    if isinstance(law, gaussian.LowRankNormal):
        return law.loc, law.factor @ law.factor.T + np.diag(law.diag)
    root = np.diag(law.scale) if isinstance(law, gaussian.Normal) else law.scale_tril
    return law.loc, root @ root.T


def root_of(covariance):
    size, v = np.linalg.eigh(covariance)
    return v * np.sqrt(np.where(size > 1e-12 * max(size[-1], 0), size, 0))


def formula(p, q):
    """Gelbrich's formula, in float64."""
    (m, a), (n, b) = moments(p), moments(q)
    cross = np.sum(np.linalg.svd(root_of(b).T @ root_of(a))[1])
    return np.sum((m - n) ** 2) + np.trace(a) + np.trace(b) - 2 * cross


def laws(form, dtype):
    """A regular law, two singular ones and a point mass, and the same in float64."""
    rng = np.random.default_rng(3)
    wide = [form(*factors(form, rng, kind)) for kind in ("regular", "singular", "singular", "point")]
    narrow = [jax.tree.map(lambda x: np.asarray(x, dtype), law) for law in wide]
    return narrow, wide


def stacked(some):
    return jax.tree.map(lambda *x: np.stack(x), *some)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("dtype", [np.float32, *with_all(np.float64)])
def test_singular_laws_have_distances_and_finite_gradients(form, dtype):
    narrow, wide = laws(form, dtype)
    pairs = [(i, j) for i in range(4) for j in range(4)]
    with x64(dtype):
        p, q = (stacked([narrow[pair[k]] for pair in pairs]) for k in (0, 1))
        of_all = jax.jit(jax.vmap(jax.value_and_grad(gaussian.squared_wasserstein2, (0, 1))))
        values, slopes = jax.device_get(of_all(p, q))
        one = gaussian.squared_wasserstein2(narrow[1], narrow[0])
        np.testing.assert_allclose(one, values[4], rtol=16 * np.finfo(dtype).eps)
    truths = np.array([formula(wide[i], wide[j]) for i, j in pairs])
    size = max(np.trace(moments(law)[1]) for law in wide)
    np.testing.assert_allclose(values, truths, rtol=32 * np.finfo(dtype).eps, atol=32 * np.finfo(dtype).eps * size)
    for x in jax.tree.leaves(slopes):
        assert np.all(np.isfinite(x))
    equal = [i == j for i, j in pairs]
    assert np.all(values[equal] == 0)
    assert not any(np.any(x[equal]) for x in jax.tree.leaves(slopes))


def test_singular_laws_of_two_forms_have_distances():
    singular = {form: [x[1] for x in laws(form, np.float32)] for form in FORMS}
    pairs = [(p, q) for p in FORMS for q in FORMS if p is not q]

    @jax.jit
    def of_all(given):
        return [gaussian.squared_wasserstein2(given[FORMS.index(p)], given[FORMS.index(q)]) for p, q in pairs]

    found = of_all([narrow for narrow, _ in singular.values()])
    truths = [formula(singular[p][1], singular[q][1]) for p, q in pairs]
    np.testing.assert_allclose(found, truths, rtol=1e-5, atol=1e-5)


def test_the_gradient_in_few_samples_is_that_by_their_factor():
    # Through a covariance of less than full rank, and without one: the same function of the samples.
    rng = np.random.default_rng(0)
    with x64(np.float64):
        x, y = jnp.asarray(rng.normal(size=(D, SAMPLES))), jnp.asarray(rng.normal(size=(D, SAMPLES)))
        none, zeros = jnp.zeros(D), jnp.zeros(D)

        def by_covariances(x, y):
            p, q = (gaussian.CovarianceNormal(none, z @ z.T) for z in (x, y))
            return gaussian.squared_wasserstein2(p, q)

        def by_factors(x, y):
            return gaussian.squared_wasserstein2(*(gaussian.LowRankNormal(none, z, zeros) for z in (x, y)))

        def by_definition(x, y):
            return jnp.sum(x * x) + jnp.sum(y * y) - 2 * jnp.sum(jnp.linalg.svd(y.T @ x, full_matrices=False)[1])

        ours = [jax.jit(jax.value_and_grad(f, (0, 1)))(x, y) for f in (by_covariances, by_factors)]
        truth = jax.value_and_grad(by_definition, (0, 1))(x, y)
        for found in ours:
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_singular_laws_near_each_other_keep_digits():
    rng = np.random.default_rng(1)
    few, change = rng.normal(size=(2, D, SAMPLES)).astype(np.float32)
    p = gaussian.LowRankNormal(jnp.zeros(D), few, jnp.zeros(D))
    q = p._replace(factor=few + np.float32(1e-4) * change)
    with x64(np.float64):
        wide = [np.asarray(law.factor, np.float64) for law in (p, q)]
        u, _, v = np.linalg.svd(wide[1].T @ wide[0])
        truth = np.sum((wide[0] - wide[1] @ u @ v) ** 2)
    np.testing.assert_allclose(gaussian.squared_wasserstein2(p, q), truth, rtol=1e-5)


def test_a_matrix_that_is_no_covariance_is_nan_beside_singular_ones():
    matrices = np.stack([np.diag([1.0, 0.0]), [[1, 2], [2, 1]], np.diag([np.nan, 1]), np.zeros((2, 2)), -np.eye(2)])
    laws = gaussian.CovarianceNormal(np.zeros((5, 2), np.float32), matrices.astype(np.float32))
    p = gaussian.CovarianceNormal(jnp.zeros(2), jnp.eye(2))
    values = jax.vmap(gaussian.squared_wasserstein2, (0, None))(laws, p)
    np.testing.assert_array_equal(np.isnan(values), [False, True, True, False, True])
    np.testing.assert_allclose(values[jnp.array([0, 3])], [1, 2])
    assert jnp.isnan(gaussian.kl(jax.tree.map(lambda x: x[0], laws), p))


def test_third_derivatives_are_differences_of_second_ones():
    rng = np.random.default_rng(0)
    start, step = (np.tril(rng.normal(size=(2, 3, 3))) for _ in "pq")
    h = 1e-5

    def along(t):
        roots = jnp.asarray(start + 2 * np.eye(3)) + t * jnp.asarray(step)
        return gaussian.squared_wasserstein2(*(gaussian.MultivariateNormal(jnp.zeros(3), root) for root in roots))

    def derivative(f):
        return lambda t: jax.jvp(f, (t,), (jnp.ones_like(t),))[1]

    with x64(np.float64):
        second = derivative(derivative(along))
        third = jax.jit(derivative(second))(jnp.float64(0))
        more, less = jax.device_get(jax.jit(jax.vmap(second))(jnp.array([h, -h])))
        third = float(third)
    assert abs(third) > 0.1
    np.testing.assert_allclose(third, (more - less) / (2 * h), 1e-6)

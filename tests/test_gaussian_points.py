"""Densities, draws and stacks of normal laws of every form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measure import x64
from scipy import stats
from test_gaussian import FORMS, law

from jaxdiv import gaussian, mixture

FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


def moments(p):
    """Mean and covariance of the entries, by the definitions of the forms in float64."""
    loc, *rest = (np.asarray(x, np.float64) for x in p)
    if isinstance(p, gaussian.MatrixNormal):
        root = np.kron(*rest)
        return loc.ravel(), root @ root.T
    covariance = {
        gaussian.Normal: lambda s: np.diag(s**2),
        gaussian.NormalLogScale: lambda s: np.diag(np.exp(2 * s)),
        gaussian.LowRankNormal: lambda w, d: w @ w.T + np.diag(d),
        gaussian.MultivariateNormal: lambda r: r @ r.T,
        gaussian.CovarianceNormal: lambda c: c,
        gaussian.PrecisionNormal: np.linalg.inv,
        gaussian.NaturalNormal: np.linalg.inv,
    }[type(p)](*rest)
    return covariance @ loc if isinstance(p, gaussian.NaturalNormal) else loc, covariance


@FORM
@pytest.mark.parametrize(("dtype", "ulps"), [(np.float32, 16), (np.float64, 64)])  # scipy's own are 1e-14
def test_a_log_density_is_that_of_scipy(form, dtype, ulps):
    p = jax.tree.map(lambda x: x.astype(dtype), law(form, np.random.default_rng(3)))
    mean, covariance = moments(p)
    points = np.concatenate([mean[None], mean + np.random.default_rng(4).normal(size=(20, mean.size)) * 3]).astype(
        dtype
    )
    shape = np.shape(p[0])
    with x64(dtype):
        found = np.asarray(jax.vmap(gaussian.log_density, (None, 0))(p, points.reshape(-1, *shape)))
    of_scipy: Any = stats.multivariate_normal
    truth = of_scipy(mean, covariance).logpdf(points.astype(np.float64))
    size = np.abs(truth) + 0.5 * np.abs(np.linalg.slogdet(covariance)[1]) + mean.size
    assert found.dtype == dtype
    assert np.max(np.abs(found - truth) / size) <= ulps * np.finfo(dtype).eps


@FORM
def test_draws_have_the_moments_of_the_law_and_its_gradients(form):
    p = jax.tree.map(lambda x: x.astype(np.float32), law(form, np.random.default_rng(5)))
    mean, covariance = moments(p)
    n = 20000
    x = np.asarray(gaussian.sample(p, jax.random.key(0), shape=(n // 2, 2)), np.float64)
    assert x.shape == (n // 2, 2, *np.shape(p[0]))
    x = x.reshape(n, -1)
    z = (x.mean(0) - mean) / np.sqrt(np.diagonal(covariance) / n)
    assert np.max(np.abs(z)) < 4.5
    # An entry of the sample covariance has variance (c_ij^2 + c_ii c_jj) / n.
    diagonal = np.diagonal(covariance)
    spread = np.sqrt((covariance**2 + np.outer(diagonal, diagonal)) / n)
    assert np.max(np.abs(np.cov(x.T, ddof=0) - covariance) / spread) < 4.5
    slopes = jax.grad(lambda p: jnp.sum(gaussian.sample(p, jax.random.key(1)) ** 2))(p)
    assert all(np.all(np.isfinite(x)) and np.any(x) for x in slopes)


def test_draws_and_densities_of_scalars_and_of_half_precision():
    p = gaussian.Normal(jnp.bfloat16(1.0), jnp.bfloat16(2.0))
    x = gaussian.sample(p, jax.random.key(0))
    assert (x.shape, x.dtype) == ((), jnp.bfloat16)
    assert gaussian.sample(p, jax.random.key(0), shape=3).shape == (3,)
    assert gaussian.log_density(p, x).dtype == jnp.bfloat16
    far = jax.grad(gaussian.log_density, (0, 1))(gaussian.Normal(0.0, 1.0), jnp.array(1e30))
    assert not any(np.any(x) for x in jax.tree.leaves(far))
    with pytest.raises(
        ValueError, match=r"one point of the shape of the law, \[\]; got x\[3\].*jax.vmap\(gaussian.log_"
    ):
        gaussian.log_density(p, jnp.zeros(3, jnp.bfloat16))


def test_the_density_of_a_mixture_is_the_mean_of_those_of_its_components():
    p = mixture.GaussianMixture(
        jnp.array([0.3, -0.5, -jnp.inf]), gaussian.Normal(jnp.array([-1.0, 2.0, 0.0]), jnp.array([1.0, 0.5, 1.0]))
    )
    x = jnp.linspace(-6, 6, 13)
    found = jax.vmap(mixture.log_density, (None, 0))(p, x)
    w = np.exp([0.3, -0.5]) / np.sum(np.exp([0.3, -0.5]))
    truth = np.log(w[0] * stats.norm.pdf(x, -1, 1) + w[1] * stats.norm.pdf(x, 2, 0.5))
    np.testing.assert_allclose(found, truth, 2e-6)
    for slope in jax.tree.leaves(jax.grad(mixture.log_density, (0, 1))(p, jnp.array(1e30))):
        assert not np.any(slope)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(jax.grad(mixture.log_density)(p, jnp.array(1.0))))


@FORM
def test_a_stack_of_laws_is_a_batch_of_them(form):
    laws = [jax.tree.map(lambda x: x.astype(np.float32), law(form, np.random.default_rng(i))) for i in range(2)]
    stacked = gaussian.stack(laws)
    assert type(stacked) is form
    for i, one in enumerate(laws):
        for x, y in zip(stacked, one, strict=True):
            np.testing.assert_array_equal(x[i], y)


def test_laws_of_several_forms_and_ranks_stack_in_the_form_they_are_compared_in():
    a, b = gaussian.Normal(jnp.zeros(3), 1.0), gaussian.NormalLogScale(jnp.ones(3), jnp.zeros(3))
    assert type(gaussian.stack([a, b])) is gaussian.Normal
    assert [x.shape for x in gaussian.stack([a, b])] == [(2, 3), (2, 3)]
    low = [gaussian.LowRankNormal(jnp.zeros(3), jnp.ones((3, r)), jnp.ones(3)) for r in (1, 2)]
    assert gaussian.stack([*low, a]).factor.shape == (3, 3, 2)
    assert gaussian.stack([gaussian.Normal(0.0, 1.0), gaussian.NormalLogScale(0.0, 1.0)]).loc.shape == (2,)
    assert gaussian.stack([gaussian.Normal(0.0, 1.0), gaussian.Normal(jnp.zeros(1), 1.0)]).scale.shape == (2, 1)


def test_errors_name_the_way():
    p = gaussian.Normal(0.0, 1.0)
    with pytest.raises(
        TypeError, match=r"takes one law; got p, a list of 2 laws. Stack them with jaxdiv.gaussian.stack\(p\)"
    ):
        gaussian.kl([p, p], p)  # pyright: ignore[reportArgumentType]: what is refused
    with pytest.raises(TypeError, match="takes a list of laws; got Normal"):
        gaussian.stack(p)  # pyright: ignore[reportArgumentType]: what is refused
    with pytest.raises(ValueError, match=r"equal shape; got laws\[0\].loc\[\] and laws\[1\].loc\[2\]"):
        gaussian.stack([p, gaussian.Normal(jnp.zeros(2), 1.0)])


@pytest.mark.parametrize("form", [gaussian.Normal, gaussian.NormalLogScale])
def test_of_equal_scales_a_symmetric_divergence_has_equal_slopes(form):
    verbs = ("total_variation", "fisher_rao_distance", "squared_hellinger", "js")

    @jax.jit
    def slopes(p, q):
        return {name: jax.grad(getattr(gaussian, name), (0, 1))(p, q) for name in verbs}

    for far in (1e-3, 1.0):
        for name, (in_p, in_q) in slopes(form(0.0, 0.7), form(far, 0.7)).items():
            assert in_p[1] != 0, name
            np.testing.assert_allclose(in_p[1], in_q[1], 1e-5, err_msg=name)

"""Matrix-normal laws against the normal laws of their vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measure import normwise, worst, x64

from jaxdiv import matrix_normal, mvn

N, M = 3, 2


def pair(near, dtype):
    """Two laws whose entries differ by about `near`."""
    rng = np.random.default_rng(0)
    roots = [np.tril(0.3 * rng.normal(size=(d, d)), -1) + np.diag(np.exp(0.3 * rng.normal(size=d))) for d in (N, M)]
    p = matrix_normal.MatrixNormal(rng.normal(size=(N, M)), *roots)
    q = [x * (1 + near * rng.normal(size=x.shape)) for x in p]
    return tuple(jax.tree.map(lambda x: x.astype(dtype), law) for law in (p, matrix_normal.MatrixNormal(*q)))


def of_vectors(p, q):
    return mvn.kl(*(mvn.MultivariateNormal(x.loc.ravel(), jnp.kron(*x[1:])) for x in (p, q)))


@pytest.mark.parametrize("near", [0.1, 1e-2, 1e-4, 1e-6])
def test_it_is_the_divergence_of_the_vectors_in_value_and_gradient(near):
    p, q = pair(near, np.float32)
    value, slopes = jax.value_and_grad(matrix_normal.kl, (0, 1))(p, q)
    with x64(np.float64):
        wide = jax.tree.map(lambda x: x.astype(np.float64), (p, q))
        truth, true_slopes = jax.value_and_grad(of_vectors, (0, 1))(*wide)
    assert worst([value], [truth], np.float32) <= 16
    for x, y in zip(jax.tree.leaves(slopes), jax.tree.leaves(true_slopes), strict=True):
        assert normwise(np.ravel(x), np.tril(y).ravel() if y.shape[0] == y.shape[1] else np.ravel(y), np.float32) <= 16


def test_of_a_law_and_itself_it_is_exactly_0_with_gradient_0():
    p, _ = pair(0.1, np.float32)
    value, slopes = jax.value_and_grad(matrix_normal.kl, (0, 1))(p, p)
    assert value == 0
    assert not any(np.any(x) for x in jax.tree.leaves(slopes))


def test_a_scale_may_move_from_rows_to_columns():
    p, q = pair(1e-3, np.float32)
    moved = p._replace(row_scale_tril=p.row_scale_tril * 1024, column_scale_tril=p.column_scale_tril / 1024)
    assert matrix_normal.kl(p, q) > 0
    assert matrix_normal.kl(moved, p) < 1e-10
    np.testing.assert_allclose(matrix_normal.kl(moved, q), matrix_normal.kl(p, q), 1e-5)


def test_a_faulty_law_is_nan():
    p, q = pair(0.1, np.float32)
    assert jnp.isnan(matrix_normal.kl(p._replace(row_scale_tril=-p.row_scale_tril), q))
    assert jnp.isnan(matrix_normal.kl(p, q._replace(loc=q.loc * np.float32(np.nan))))

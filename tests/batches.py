"""Every batched path of normal laws on a large batch, forward and backward: run by test_gaussian in another process."""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiv import gaussian

B, D, RANK = 20000, 16, 4


def main(form):
    rng = np.random.default_rng(0)
    loc = rng.normal(size=(2, B, D)).astype(np.float32)
    roots = np.tril(0.1 * rng.normal(size=(2, B, D, D)) + np.eye(D)).astype(np.float32)
    products = roots @ roots.swapaxes(-1, -2)
    factor = rng.normal(size=(2, B, D, RANK)).astype(np.float32)
    laws = {
        "MultivariateNormal": lambda i: gaussian.MultivariateNormal(loc[i], roots[i]),
        "CovarianceNormal": lambda i: gaussian.CovarianceNormal(loc[i], products[i]),
        "PrecisionNormal": lambda i: gaussian.PrecisionNormal(loc[i], products[i]),
        "NaturalNormal": lambda i: gaussian.NaturalNormal(loc[i], products[i]),
        "LowRankNormal": lambda i: gaussian.LowRankNormal(loc[i], factor[i], np.ones((B, D), np.float32)),
    }
    p, q = laws[form](0), laws[form](1)
    for verb in [getattr(gaussian, name) for name in sys.argv[2:]]:
        values, slopes = jax.jit(jax.vmap(jax.value_and_grad(verb)))(p, q)
        assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((values, slopes))), verb.__name__
        assert jnp.all(values > 0), verb.__name__


main(sys.argv[1])

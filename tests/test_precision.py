"""No product rounds its factors, on TPUs to bfloat16 or on GPUs to TF32, as lowered for devices that are not here."""

import re

import jax
import jax.numpy as jnp
import pytest
from marks import with_all

import jaxdiv
from jaxdiv import gaussian, mixture


def _of(*shapes):
    return [jax.ShapeDtypeStruct((4, *shape), jnp.float32) for shape in shapes]


def _normal(d=12):
    return gaussian.MultivariateNormal(*_of((d,), (d, d)))


def _mixture():
    return mixture.GaussianMixture(*_of((2,)), gaussian.MultivariateNormal(*_of((2, 3), (2, 3, 3))))


def _interval(p, q):
    return sum(mixture.kl_interval(p, q, key=jax.random.key(0))[:3])


CASES = {
    "kl": (gaussian.kl, _normal()),
    "js": (gaussian.js, _normal()),
    "squared_wasserstein2": (gaussian.squared_wasserstein2, _normal()),
    "js of covariances": (gaussian.js, gaussian.CovarianceNormal(*_of((3,), (3, 3)))),
    "kl of natural parameters": (gaussian.kl, gaussian.NaturalNormal(*_of((3,), (3, 3)))),
    "js of low rank": (gaussian.js, gaussian.LowRankNormal(*_of((9,), (9, 2), (9,)))),
    "js of matrices": (gaussian.js, gaussian.MatrixNormal(*_of((3, 2), (3, 3), (2, 2)))),
    "mixtures": (_interval, _mixture()),
}


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", ["kl", "js of low rank", *with_all(*sorted(set(CASES) - {"kl", "js of low rank"}))])
def test_every_product_asks_for_the_highest_precision(name, platform):
    verb, law = CASES[name]

    def total(p, q):
        return jnp.sum(jax.vmap(verb)(p, q))

    program = jax.jit(jax.value_and_grad(total, (0, 1))).trace(law, law).lower(lowering_platforms=(platform,))
    products = re.findall(r".*stablehlo\.dot_general.*", program.as_text())
    assert products
    assert [x for x in products if x.count("HIGHEST") != 2] == []


def test_all_pairs_by_products_ask_for_it_too():
    laws = jax.ShapeDtypeStruct((9, 7), jnp.float32)
    text = jax.jit(jaxdiv.pairwise_kl_by_matmul).trace(laws, laws).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("dot_general") == text.count("HIGHEST") / 2 > 0

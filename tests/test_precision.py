"""What lowered programs tell of products and of calls of a library.

No product rounds its factors, on TPUs to bfloat16 or on GPUs to TF32. No call on a CPU gets a batch: two can wait for
each other forever. No program grows with the dimension.
"""

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


LARGE = 65  # above the dimension of which the library takes batches too
FORMS = {
    "root": gaussian.MultivariateNormal(*_of((LARGE,), (LARGE, LARGE))),
    "covariance": gaussian.CovarianceNormal(*_of((LARGE,), (LARGE, LARGE))),
    "precision": gaussian.PrecisionNormal(*_of((LARGE,), (LARGE, LARGE))),
    "low rank": gaussian.LowRankNormal(*_of((LARGE,), (LARGE, 2), (LARGE,))),
    "small": _normal(3),
}
SHORT = "kl root", "squared_wasserstein2 covariance", "js small"
CALLS = [f"{verb} {form}" for verb in ("kl", "js", "squared_wasserstein2") for form in FORMS]


@pytest.mark.parametrize("name", [*SHORT, *with_all(*(x for x in CALLS if x not in SHORT))])
def test_a_library_call_on_a_cpu_gets_one_matrix(name):
    verb, form = name.split(" ", 1)

    def total(p, q):
        return jnp.sum(jax.vmap(getattr(gaussian, verb))(p, q))

    program = jax.jit(jax.value_and_grad(total, (0, 1))).trace(FORMS[form], FORMS[form])
    text = program.lower(lowering_platforms=("cpu",)).as_text()
    calls = re.findall(r"@(?:lapack|blas)_.*|stablehlo\.(?:cholesky|triangular_solve).*", text)
    assert calls or name in ("kl small", "kl low rank")
    assert [x for x in calls if re.search(r"tensor<\d+x\d+x\d", x)] == []


@pytest.mark.parametrize("verb", [gaussian.kl, *with_all(gaussian.js)], ids=lambda verb: verb.__name__)
def test_a_program_for_a_large_batch_does_not_grow_with_the_dimension(verb):
    def lines(d):
        law = gaussian.CovarianceNormal(*(jax.ShapeDtypeStruct((300, *x), jnp.float32) for x in ((d,), (d, d))))
        gradients = jax.jit(jax.grad(lambda p, q: jnp.sum(jax.vmap(verb)(p, q)), (0, 1)))
        return gradients.lower(law, law).as_text().count("\n")

    assert lines(64) <= 1.1 * lines(16)

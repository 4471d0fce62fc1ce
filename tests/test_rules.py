"""Functions with rules of their own: as with `jax.custom_jvp`, and to any order in loops too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from marks import with_all

from jaxdiv import bernoulli, gaussian, losses, mixture, simplex
from jaxdiv._core.rules import custom_jvp


@functools.partial(custom_jvp, nondiff_argnums=(0,))
def product(factor, pair, shift=0.0):
    """A product whose rule says twice the slope in x, so that it shows where the rule is used."""
    return factor * pair["x"] * pair["y"] + shift


def rule_of_product(factor, primals, tangents):
    (pair, shift), (along, d_shift) = primals, tangents
    moving = [] if along["x"] is None else [2 * factor * pair["y"] * along["x"]]
    moving += [] if along["y"] is None else [factor * pair["x"] * along["y"]]
    assert d_shift is None  # a number that nobody differentiates has no tangent
    return product(factor, pair, shift), sum(moving) if moving else None


product.defjvp(rule_of_product, symbolic_zeros=True)


def of_numbers(x, y):
    return product(3.0, {"x": x, "y": y})


X, Y = np.float32([1, 2, 3]), np.float32([5, 6, 7])
WAYS = {
    "vmap of grad": jax.vmap(jax.grad(of_numbers, (0, 1))),
    "grad of vmap": jax.grad(lambda x, y: jnp.sum(jax.vmap(of_numbers)(x, y)), (0, 1)),
    "without vmap": jax.grad(lambda x, y: jnp.sum(of_numbers(x, y)), (0, 1)),
    "checkpoint": jax.vmap(jax.grad(jax.checkpoint(of_numbers), (0, 1))),
    "forward mode": jax.vmap(jax.jacfwd(of_numbers, (0, 1))),
    "scan": jax.grad(lambda x, y: lax.scan(lambda sum, at: (sum + of_numbers(*at), None), 0.0, (x, y))[0], (0, 1)),
    "one side": lambda x, y: (jax.vmap(jax.grad(of_numbers))(x, y), jax.vmap(jax.grad(of_numbers, 1))(x, y)),
    "last axis": lambda x, y: jax.vmap(jax.grad(lambda x, y: jnp.sum(of_numbers(x, y)), (0, 1)), 1)(x[None], y[None]),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_rule_is_used(way):
    found = jax.tree.map(np.ravel, jax.jit(WAYS[way])(X, Y))
    np.testing.assert_array_equal(found, [6 * Y, 3 * X])


def test_an_argument_without_the_axis_of_vmap_gets_the_sum_of_slopes():
    slopes = jax.grad(lambda x, y: jnp.sum(jax.vmap(of_numbers, (0, None))(x, y)), (0, 1))(X, Y[0])
    np.testing.assert_array_equal(slopes[0], np.full(3, 6 * Y[0]))
    np.testing.assert_array_equal(slopes[1], 3 * X.sum())


@custom_jvp
def square(x, n):
    """n x^2, where the rule says that the slope is 5 n x."""
    return n * x * x


square.defjvp(lambda primals, tangents: (square(*primals), 5.0 * primals[1] * primals[0] * tangents[0]))


@pytest.mark.parametrize("through", [jax.jacfwd, jax.jacrev])
def test_a_rule_holds_for_second_derivatives_in_loops(through):
    def scanned(x):
        return lax.scan(lambda sum, n: (sum + square(x, n), None), 0.0, jnp.arange(1.0, 4.0))[0]

    def mapped(x):
        return jnp.sum(lax.map(lambda n: square(x, n), jnp.arange(1.0, 4.0)))

    for f in (scanned, mapped):
        assert through(jax.grad(f))(2.0) == 5 * 6


def law(x):
    return gaussian.MultivariateNormal(x, jnp.eye(3) + 0.1 * jnp.outer(x, x))


def of_points(x):
    return mixture.GaussianMixture(x, gaussian.Normal(x[:, None], jnp.ones((3, 1))))


FUNCTIONS = {
    "losses.reverse_kl": losses.reverse_kl,
    "losses.renyi": functools.partial(losses.renyi, alpha=0.5),
    "losses.standard_normal_kl": lambda x, y: jnp.sum(losses.standard_normal_kl(x, y)),
    "simplex.js": lambda x, y: simplex.js(jax.nn.softmax(x), jax.nn.softmax(y)),
    "simplex.bhattacharyya": lambda x, y: simplex.bhattacharyya(jax.nn.softmax(x), jax.nn.softmax(y)),
    "bernoulli.js": lambda x, y: jnp.sum(jax.vmap(bernoulli.js)(x, y)),
    "gaussian.js": lambda x, y: gaussian.js(law(x), law(y)),
    "gaussian.chernoff": lambda x, y: gaussian.chernoff(law(x), law(y)),
    "mixture.kl_interval": lambda x, y: mixture.kl_interval(of_points(x), of_points(y)).upper,
}


SHORT = "losses.reverse_kl", "simplex.js", "bernoulli.js", "gaussian.js"


@pytest.mark.parametrize("name", [*SHORT, *with_all(*(x for x in FUNCTIONS if x not in SHORT))])
def test_a_hessian_through_a_loop_is_that_without(name):
    x, ys = jnp.array([0.3, -0.5, 0.9]), jnp.array([[0.7, 0.2, -0.4], [-0.1, 0.4, 0.8]])
    f = FUNCTIONS[name]

    @jax.jit
    def both(x):
        looped = jax.hessian(lambda x: lax.scan(lambda sum, y: (sum + f(x, y), None), 0.0, ys)[0])
        return looped(x), jax.hessian(lambda x: f(x, ys[0]) + f(x, ys[1]))(x)

    looped, plain = both(x)
    np.testing.assert_allclose(looped, plain, 2e-5, 2e-5 * np.abs(plain).max())
    assert np.abs(plain).max() > 0

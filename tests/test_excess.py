"""The elementwise kernels of normal laws against mpmath at their own exact arguments."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from measure import DTYPES, digits, exact, worst, x64

from jaxdiv._core import functions
from jaxdiv._gaussian import excess

SIZES = np.array([1e-7, 1e-5, 1e-3, 0.03, 0.3, 0.49, 0.51, 0.66, 0.67, 0.9, 1.0, 1.99, 2.01, 5.0, 30.0])
SIGNED = np.concatenate([SIZES, -SIZES])
CASES = {
    "log1p": (SIGNED[SIGNED > -0.95], mp.log1p),
    "expm1": (SIGNED, mp.expm1),
    "squared_arcsinh_root": (np.concatenate([SIZES, [9e-3, 1.1e-2, 1e9]]), lambda y: mp.asinh(mp.sqrt(y)) ** 2),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_a_kernel_keeps_its_digits(name, dtype):
    points, definition = CASES[name]
    x = points.astype(dtype)
    with x64(dtype):
        values = jax.jit(getattr(excess if name == "log_excess" else functions, name))(x)
    assert worst(values, [digits(definition)(t) for t in exact(x)], dtype) <= 6


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_excess_and_its_slopes_keep_their_digits(dtype):
    ratios = 1 + np.append(SIZES, -SIZES[SIZES < 1])
    a = np.append(ratios, [1e-15, 1e15, 1.5, 0.5, 2.0, 3.0]).astype(dtype)
    b = np.full_like(a, 1 + 1e-3)
    with x64(dtype):
        value, slopes = jax.jit(jax.vmap(jax.value_and_grad(excess.log_excess, (0, 1))))(a, b)

    @digits
    def definition(a, b):
        return a / b - 1 - mp.log(a / b), 1 / b - 1 / a, (b - a) / b / b

    truths = zip(*map(definition, exact(a), exact(b)), strict=True)
    for got, truth in zip((value, *slopes), truths, strict=True):
        assert worst(got, truth, dtype) <= 4


def test_log_excess_at_its_boundary():
    a, b = jnp.array([1.0, 0.0, 1.0, -1.0, jnp.nan]), jnp.array([1.0, 1.0, 0.0, 1.0, 1.0])
    np.testing.assert_array_equal(excess.log_excess(a, b), [0, jnp.inf, jnp.inf, jnp.nan, jnp.nan])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_derivative_of_the_squared_arcsinh_is_that_of_the_function(dtype):
    y = np.array([0, 1e-12, 1e-5, 9.9e-3, 1.01e-2, 0.3, 1e4], dtype)
    with x64(dtype):
        slopes = jax.jit(jax.vmap(jax.grad(functions.squared_arcsinh_root)))(y)
    truth = [digits(lambda t: mp.asinh(mp.sqrt(t)) / mp.sqrt(t) / mp.sqrt(1 + t) if t else 1)(t) for t in exact(y)]
    assert worst(slopes, truth, dtype) <= 6

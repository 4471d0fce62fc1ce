r"""Binet's function and its derivatives: what Stirling's formula leaves of the logarithm of the gamma function.

$$J(x) = \log \Gamma(x) - (x - \tfrac12) \log x + x - \tfrac12 \log 2 \pi = \sum_{j \ge 0} \varphi(x + j), \qquad
  \varphi(x) = (x + \tfrac12) \log(1 + 1/x) - 1 .$$

It is completely monotone, so that sums of its terms of any order have one sign. The first terms are taken one by one,
the others by the asymptotic series $\sum_k B_{2k} / (2k (2k - 1)\, x^{2k - 1})$. From the second derivative on those
terms are rational, $\varphi''(x) = \tfrac12 x^{-2} (x + 1)^{-2}$, with derivatives in which nothing cancels.

Reference: Whittaker and Watson, A course of modern analysis, 1927, for the integrals of Binet.
"""

import functools
import math

import jax
import jax.numpy as jnp

from jaxdiv._core.polynomials import polynomial
from jaxdiv._core.rules import custom_jvp

# B_2k / (2k (2k - 1))
_SERIES = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
    43867 / 244188,
    -174611 / 125400,
)


@functools.partial(custom_jvp, nondiff_argnums=(0,))
def binet(order: int, x: jax.Array) -> jax.Array:
    """The derivative of that order of J at `x` of positive real part, elementwise: relatively accurate for real `x`.

    Orders 0 and 1 of complex numbers are accurate to the rounding of numbers of size 1.
    """
    real = jnp.finfo(x.dtype).dtype
    # The first term left out is below half an ulp of what J adds to, for orders up to 5.
    steps, terms = (10, 10) if real == jnp.float64 else (6, 5)
    # The steps are an axis of their own, for a small program.
    count = jnp.arange(steps + 1, dtype=real).astype(x.dtype)
    at = x[..., None] + count.reshape((1,) * x.ndim + (-1,))
    if order >= 2:
        inverse = 1 / at
        total = jnp.sum(_rational_step(order, inverse[..., :-1], inverse[..., 1:]), -1)
    elif jnp.issubdtype(x.dtype, jnp.complexfloating):
        # Far from 0 the terms cancel, and are not needed.
        near = jnp.abs(x) < steps
        total = jnp.sum(_complex_step(order, jnp.where(near[..., None], at[..., :-1], 1)), -1)
        return jnp.where(near, total, 0) + _tail(order, jnp.where(near, x + steps, x), terms)
    else:
        total = jnp.sum(_real_step(order, at[..., :-1]), -1)
    return total + _tail(order, x + steps, terms)


@binet.defjvp
def _(order, primals, tangents):
    (x,) = primals
    return binet(order, x), binet(order + 1, x) * tangents[0]


def _tail(order, x, terms):
    """The asymptotic series of the derivative, by Horner's rule in 1/x^2."""
    coefficients = [
        c * (-1) ** order * math.prod(range(2 * k + 1, 2 * k + 1 + order)) for k, c in enumerate(_SERIES[:terms])
    ]
    inverse = 1 / x
    z, total = inverse * inverse, jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * z + c
    return total * inverse ** (order + 1)


def _real_step(order, x):
    """The term or its slope, by v = 1 / (2 x + 1) where that is small: v^2 / 3 + v^4 / 5 + ... for the term."""
    near = x >= 0.5
    v = 1 / (2 * jnp.where(near, x, 1) + 1)
    z = v * v
    far = jnp.where(near, 0.5, x)
    log = jnp.log((far + 1) / far)
    if order == 0:
        return jnp.where(near, z * polynomial("atanh", z), (far + 0.5) * log - 1)
    return jnp.where(near, -2 * v * z * (1 / (1 - z) - polynomial("atanh", z)), log - (far + 0.5) / (far * (far + 1)))


def _complex_step(order, x):
    log = jnp.log((x + 1) / x)
    return (x + 0.5) * log - 1 if order == 0 else log - (x + 0.5) / (x * (x + 1))


def _rational_step(order, a, b):
    """The derivative from a = 1/x and b = 1/(x + 1)."""
    n = order - 2
    terms = (
        math.comb(n, i) * math.factorial(i + 1) * math.factorial(n - i + 1) * a ** (2 + i) * b ** (2 + n - i)
        for i in range(n + 1)
    )
    return 0.5 * (-1) ** order * sum(terms)

"""Elementwise kernels of the Gaussian families."""

import jax
import jax.numpy as jnp

from jaxdiv.elementary import log_ratio, polynomial, positive

LOG_2PI = 1.8378770664093453


@jax.custom_jvp
def log_excess(a: jax.Array, b: jax.Array) -> jax.Array:
    r"""$a/b - 1 - \log(a/b) \ge 0$ for positive `a` and `b` to full relative accuracy, elementwise.

    Zero when equal; `inf` where one is zero; `nan` where one is negative or `nan`.
    """
    # With e = a/b - 1 and r = (a-b)/(a+b) it is e - 2 atanh r = e r - 2 (atanh r - r), where e - 2 r = e r.
    delta, total = a - b, a + b
    near = jnp.abs(delta) <= 0.5 * total
    e, r = jnp.where(near, delta / positive(b), 0), jnp.where(near, delta / positive(total), 0)
    close = e * r - 2 * r * (r * r) * polynomial("atanh", r * r)
    far = (jnp.where(near, 1, a) / jnp.where(near, 1, b) - 1) - log_ratio(a, b, delta)
    return jnp.where(near, close, jnp.where((a >= 0) & (b >= 0), jnp.where((a == 0) | (b == 0), jnp.inf, far), jnp.nan))


@log_excess.defjvp
def _(primals, tangents):
    a, b = primals
    e = (a - b) / b
    return log_excess(a, b), (e / a) * tangents[0] - (e / b) * tangents[1]


def log1p(x: jax.Array) -> jax.Array:
    """`log(1 + x)` for x > -1 to an ulp or two, where XLA's loses a hundred in float64."""
    # With r = x / (2 + x), log(1 + x) = 2 atanh r and 2 r = x - x r. Far from 0 the rounding of 1 + x does no harm.
    r = x / (2 + x)
    near = jnp.abs(r) <= 0.5
    small, r = jnp.where(near, x, 0), jnp.where(near, r, 0)
    z = r * r
    return jnp.where(near, small - r * (small - 2 * z * polynomial("atanh", z)), jnp.log(1 + jnp.where(near, 0, x)))


def expm1_over(x: jax.Array) -> jax.Array:
    """`(exp(x) - 1) / x`, 1 at 0, `inf` at `inf`; smooth."""
    near = jnp.abs(x) <= 0.5
    small = jnp.where(near, x, 0)
    far = jnp.where(near | (x == jnp.inf), 1, x)
    away = jnp.where(x == jnp.inf, jnp.inf, jnp.expm1(far) / far)
    return jnp.where(near, 1 + small * polynomial("exp_short", small), away)


@jax.custom_jvp
def squared_arcsinh_root(y: jax.Array) -> jax.Array:
    r"""$\mathrm{arcsinh}(\sqrt y)^2$ for `y` >= 0, elementwise; smooth, with derivative 1 at 0."""
    return jnp.arcsinh(jnp.sqrt(y)) ** 2


# The derivative arcsinh(x) / (x sqrt(1 + x^2)), x^2 = y, is (1 - 2/3 y (1 - 4/5 y (1 - 6/7 y (...)))).
_ARCSINH_TERMS = 9  # y^9 < 1e-18 for y < 1e-2


@squared_arcsinh_root.defjvp
def _(primals, tangents):
    (y,) = primals
    near = y < 1e-2
    small, far = jnp.where(near, y, 0), jnp.where(near, 1, y)
    series = jnp.ones_like(y)
    for k in range(_ARCSINH_TERMS, 0, -1):
        series = 1 - (2 * k / (2 * k + 1)) * small * series
    away = jnp.arcsinh(jnp.sqrt(far)) / (jnp.sqrt(far) * jnp.sqrt(1 + far))
    return squared_arcsinh_root(y), jnp.where(near, series, away) * tangents[0]


@jax.custom_jvp
def with_tangents(value: jax.Array, like: jax.Array) -> jax.Array:
    """`value` with the derivatives of `like`, which is the same number less accurately."""
    del like
    return value


@with_tangents.defjvp
def _(primals, tangents):
    return with_tangents(*primals), tangents[1]

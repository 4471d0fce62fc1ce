"""The part of a Gaussian divergence that depends on the scales, elementwise."""

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import log_ratio, or_one
from jaxdiv._core.polynomials import polynomial
from jaxdiv._core.rules import custom_jvp

LOG_2PI = 1.8378770664093453


def near_excess(e: jax.Array, r: jax.Array) -> jax.Array:
    r"""$e - \log(1 + e) \ge 0$ to full relative accuracy for $|r| \le 1/2$, where $r = e / (2 + e)$."""
    # It is e - 2 atanh r = e r - 2 (atanh r - r), as e - 2 r = e r.
    return e * r - 2 * r * (r * r) * polynomial("atanh", r * r)


@custom_jvp
def log_excess(a: jax.Array, b: jax.Array) -> jax.Array:
    r"""$a/b - 1 - \log(a/b) \ge 0$ for positive `a` and `b` to full relative accuracy, elementwise.

    Zero when equal; `inf` where one is zero; `nan` where one is negative or `nan`.
    """
    delta = a - b
    half = b + 0.5 * delta  # of the sum, which may overflow
    near = jnp.abs(delta) <= half
    e, r = jnp.where(near, delta / or_one(b), 0), jnp.where(near, 0.5 * delta / or_one(half), 0)
    far = (jnp.where(near, 1, a) / jnp.where(near, 1, b) - 1) - log_ratio(a, b, delta)
    return jnp.where(
        near, near_excess(e, r), jnp.where((a >= 0) & (b >= 0), jnp.where((a == 0) | (b == 0), jnp.inf, far), jnp.nan)
    )


@log_excess.defjvp
def _(primals, tangents):
    a, b = primals
    e = (a - b) / b
    # Factors, not divisors: XLA would divide by a product, which leaves the range.
    return log_excess(a, b), (e * (1 / a)) * tangents[0] - (e * (1 / b)) * tangents[1]

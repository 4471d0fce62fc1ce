r"""Elementwise kernels: the Kullback-Leibler terms of two numbers, and $e^x - 1 - x$.

They know neither distributions nor axes: you sum, mask and normalise. Subnormal numbers count as 0. Half precision is
computed in float32 and rounded once, and dtypes are promoted; integers raise TypeError.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core import functions

__all__ = ["expm1x", "kl_div", "rel_entr"]


def expm1x(x: ArrayLike) -> jax.Array:
    r"""$e^x - 1 - x \ge 0$ to full relative accuracy, elementwise.

    Args:
        x: Any shape, floating-point.

    Returns:
        In the shape of `x`: 0 at 0, `inf` at both infinities; `nan` stays `nan`.

    Example:
        >>> print(f"{elementary.expm1x(1e-3):.4e}")
        5.0017e-07
    """
    x = _inputs.array("elementary.expm1x", "x", x)
    return functions.expm1x(x.astype(_inputs.working(x))).astype(x.dtype)


def rel_entr(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""$p \log(p/q)$, elementwise, to full relative accuracy.

    The terms have either sign. Nothing is normalised, and a sum of them is accurate only relative to the sum of their
    absolute values. For a divergence that cannot be negative, use `kl_div` or a family.

    Args:
        p: Non-negative finite numbers of any shape.
        q: Non-negative finite numbers, in a shape that broadcasts with `p`.

    Returns:
        In the broadcast shape: 0 where `p` is 0, `inf` where only `q` is 0; `nan` where one is negative.

    Example:
        >>> print(f"{elementary.rel_entr(0.5, 0.25):.4f}")
        0.3466
    """
    p, q, dtype = _pair("rel_entr", p, q)
    valid, infinite = (p >= 0) & (q >= 0), (p > 0) & (q == 0)
    # Where the value is infinite, its derivative is 0.
    p, q = jnp.where(infinite, 1, p), jnp.where(infinite, 1, q)
    value = p * jnp.where(p == 0, 0, functions.log_ratio(p, q, p - q))
    return jnp.where(valid, jnp.where(infinite, jnp.inf, value), jnp.nan).astype(dtype)


def kl_div(p: ArrayLike, q: ArrayLike) -> jax.Array:
    r"""$p \log(p/q) - p + q \ge 0$, elementwise, to full relative accuracy.

    Args:
        p: Non-negative finite numbers of any shape.
        q: Non-negative finite numbers, in a shape that broadcasts with `p`.

    Returns:
        In the broadcast shape: `q` where `p` is 0, `inf` where only `q` is 0, 0 where they are equal; `nan` where one
        is negative.

    Example:
        >>> print(f"{elementary.kl_div(0.5, 0.25):.4f}")
        0.0966
    """
    p, q, dtype = _pair("kl_div", p, q)
    return jnp.where((p >= 0) & (q >= 0), functions.bregman(p, q, p - q), jnp.nan).astype(dtype)


def _pair(name, p, q):
    """Both in their working precision, and the promoted dtype."""
    p, q = (_inputs.array(f"elementary.{name}", key, x) for key, x in (("p", p), ("q", q)))
    work = _inputs.working(p, q)
    return p.astype(work), q.astype(work), _inputs.promoted(p, q)

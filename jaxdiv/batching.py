"""All pairs of two batches, in bounded memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv import _inputs

_TILE = 64  # laws of the first batch to a block: enough to fill the vector units, few enough to stay small


def pairwise(divergence: Callable[[Any, Any], jax.Array], ps: Any, qs: Any = None) -> jax.Array:
    r"""All pairs, $D_{ij} = D(p_i, q_j)$, without the memory of all pairs of arguments.

    Args:
        divergence: A function of one pair of laws with a scalar result: a verb of a family, or one's own.
        ps: Laws `[n, ...]`: an array or a tree of arrays with the batch as the first axis.
        qs: Laws `[m, ...]`; `ps` by default.

    Returns:
        `[n, m]`, in the units, sign, zeros and infinities of `divergence`. A fault in one law stays in its row or
        column.

    Raises:
        ValueError: The arrays of a batch differ in their first axis, or have none.

    Example:
        >>> ps = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]]))
        >>> for row in jaxdiv.pairwise(categorical.kl, ps):
        ...     print(" ".join(f"{value:.3f}" for value in row))
        0.000 0.144 0.511
        0.131 0.000 0.092
        0.368 0.072 0.000
    """
    qs = ps if qs is None else qs
    n, m = (_inputs.batch_size("jaxdiv.pairwise", name, tree) for name, tree in (("ps", ps), ("qs", qs)))
    against_all = jax.vmap(divergence, (None, 0))
    block = jax.vmap(against_all, (0, None))
    if n <= _TILE or m == 0:
        return block(ps, qs)
    # The last block overlaps the one before, so that no remainder is left over.
    starts = jnp.minimum(jnp.arange(-(-n // _TILE)) * _TILE, n - _TILE)

    def step(i):
        return block(jax.tree.map(lambda x: lax.dynamic_slice_in_dim(jnp.asarray(x), i, _TILE), ps), qs)

    tiles = lax.map(step, starts)
    return jnp.concatenate([tiles[:-1].reshape(-1, m), tiles[-1, len(starts) * _TILE - n :]])

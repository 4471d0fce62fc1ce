"""How a function of rows runs over `[rows, k]`: in blocks that fit the cache on CPU, as one fused pass elsewhere.

`by_rows(f, *arrays)` evaluates `f(recompute, *arrays)`, which maps arrays `[..., k]` and row values `[..., 1]` to a
tree of row values `[..., 1]`. On CPU the temporaries of a whole `[rows, k]` array cost more in page faults than the
arithmetic does, so `f` sees blocks that fit its cache. Elsewhere it sees everything at once and is asked to
`recompute` what its passes share rather than store it.

`jax.vmap` adds a leading axis and the leading axes are merged into rows when the outermost `vmap` is through: a batch
of one-pair calls runs exactly like one call on the batch, and an argument that is not batched is never copied.

What `vmap` has made all pairs of two batches of vectors is not rows: there work that belongs to one vector can be done
once, and the terms of a sum in an order that vectorises. A caller that knows how passes `of_pairs`.

`f` carries no derivative. It belongs inside a `custom_jvp` rule whose tangents are written elementwise; a `custom_vmap`
over a differentiable function would lose reverse mode.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

BLOCK = 2**18  # elements of a block: in float32 1 MiB, little enough for a cache, and enough to keep the cores busy
_PAIRS = 2**8  # as few pairs as `of_pairs` is worth its loop for

Rows = Any  # a tree of arrays [..., 1]


def in_row_blocks(
    f: Callable[..., Rows], *arrays: jax.Array | None, of_pairs: Callable[..., Rows] | None = None
) -> Rows:
    """`f(recompute, *arrays)` for arrays `[..., k]` or `[..., 1]` (or None) whose leading axes broadcast.

    `of_pairs`, if any, is the same on CPU for all pairs of two arrays, `[n, k]` and `[m, k]` to row values `[n, m, 1]`.
    """

    @custom_vmap
    def rows(*arrays):
        return _merge_and_run(f, of_pairs, arrays)

    @rows.def_vmap
    def _(size, batched, *arrays):
        del size
        out = rows(*(x if x is None or b else x[None] for x, b in zip(arrays, batched, strict=True)))
        return out, jax.tree.map(lambda _: True, out)

    return rows(*arrays)


def barrier(recompute: bool, *arrays: Any) -> tuple[Any, ...]:
    """The inputs of a next pass. With `recompute`, XLA cannot keep `[rows, k]` intermediates of the pass before."""
    return lax.optimization_barrier(arrays) if recompute else arrays


def varying_alike(tree: Any) -> Any:
    """The same arrays, all varying over the axes of a mesh that one of them varies over, inside `jax.shard_map`."""
    # By arithmetic that XLA sees through: the functions for it differ between versions of jax.
    never = functools.reduce(jnp.logical_or, [jnp.any((x != x) & False) for x in jax.tree.leaves(tree)])
    return jax.tree.map(lambda x: jnp.where(never, x, x), tree)


def _merge_and_run(f, of_pairs, arrays):
    """Drops axes of length 1, merges neighbouring axes along which the same arguments are broadcast, runs, restores."""
    present = [x for x in arrays if x is not None]
    lead: tuple[int, ...] = np.broadcast_shapes(*(x.shape[:-1] for x in present))
    k = max(x.shape[-1] for x in present)
    if 0 in lead:
        out = jax.eval_shape(functools.partial(f, False), *arrays)
        return jax.tree.map(lambda x: jnp.zeros((*lead, 1), x.dtype), out)
    sizes: list[int] = []
    kinds: list[list[bool]] = []
    for axis, n in enumerate(lead):
        kind = [x.shape[axis] == n for x in present]
        if n > 1 and kinds and kinds[-1] == kind:
            sizes[-1] *= n
        elif n > 1:
            sizes.append(n)
            kinds.append(kind)
    if not sizes:
        sizes, kinds = [1], [[True] * len(present)]
    merged = iter(
        [
            x.reshape([n if kind[j] else 1 for n, kind in zip(sizes, kinds, strict=True)] + [x.shape[-1]])
            for j, x in enumerate(present)
        ]
    )
    arrays = [None if x is None else next(merged) for x in arrays]

    def whole(recompute, *arrays):
        return _fill(f(recompute, *arrays), sizes)

    n = math.prod(sizes)
    if n <= 2 or n * k <= BLOCK // 4:
        out = whole(False, *arrays)
    else:
        blocks = functools.partial(_in_blocks, f, sizes, k)
        if of_pairs and n >= _PAIRS and kinds in ([[True, False], [False, True]], [[False, True], [True, False]]):
            blocks = functools.partial(_all_pairs, of_pairs, kinds)
        arrays = varying_alike(arrays) if len(present) > 1 else arrays
        out = lax.platform_dependent(*arrays, cpu=blocks, default=functools.partial(whole, True))
    return jax.tree.map(lambda x: x.reshape((*lead, 1)), out)


def _all_pairs(of_pairs, kinds, *arrays):
    out = of_pairs(*(x.reshape(-1, x.shape[-1]) for x in arrays))
    return out if kinds[0][0] else jax.tree.map(lambda x: x.swapaxes(0, 1), out)


def _fill(rows, sizes):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*sizes, 1)), rows)


def _in_blocks(f, sizes, k, *arrays):
    """`f` in blocks along the first axis, and along the next one where one index of the first is already too much."""
    n, *rest = sizes
    # One row to a block makes XLA store whole arrays; of one block it makes no loop, and fuses all with what follows.
    target = min(max(n - n // 2, 2), max(BLOCK // (k * math.prod(rest)), 1 if rest else 2))
    nested = bool(rest) and target == 1 and math.prod(rest) * k > BLOCK
    full = [x is not None and x.shape[0] == n for x in arrays]
    half = any(x is not None and x.dtype.itemsize == 2 for x in arrays)

    # A block takes `per` neighbouring rows from each of `groups` equal parts, so that a sharded batch needs no
    # all-gather. The last block overlaps the one before, so nothing is left over.
    groups = jax.device_count() if n % jax.device_count() == 0 and not nested else 1
    part = n // groups
    steps = -(-part // min(part, max(target // groups, min(target, 2))))
    per = -(-part // steps)
    arrays = [x.reshape(groups, part, *x.shape[1:]) if y else x for x, y in zip(arrays, full, strict=True)]
    starts = jnp.minimum(jnp.arange(steps) * per, part - per)

    def body(i):
        # XLA:CPU converts half precision before it slices. Unless tied to i, that conversion of everything leaves the
        # loop.
        xs, i = lax.optimization_barrier((arrays, i)) if half else (arrays, i)
        xs = [_cut(per, x, i) if y else x for x, y in zip(xs, full, strict=True)]
        if nested:
            inner = _in_blocks(f, rest, k, *(None if x is None else x[0] for x in xs))
            return jax.tree.map(lambda x: x[None], inner)
        return _fill(f(False, *xs), (groups * per, *rest))

    return jax.tree.map(functools.partial(_join, groups, part), lax.map(body, starts))


def _cut(per, x, start):
    """As many rows of each group, [groups, part, ...] -> [groups * per, ...]."""
    rows = lax.dynamic_slice_in_dim(x, start, per, 1)
    return rows.reshape(-1, *x.shape[2:])


def _join(groups, part, x):
    """The rows of all blocks, [steps, groups * per, ...] -> [groups * part, ...]."""
    steps, size, *rest = x.shape
    per = size // groups
    x = jnp.moveaxis(x.reshape(steps, groups, per, *rest), 0, 1)
    twice = steps * per - part
    if twice:
        x = jnp.concatenate([x[:, :-1].reshape(groups, -1, *rest), x[:, -1, twice:]], 1)
    return x.reshape(-1, *rest)

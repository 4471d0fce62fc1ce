"""How a function of rows runs over `[rows, k]`: in blocks that fit the cache on CPU, as one fused pass elsewhere.

`in_row_blocks(f, *arrays)` evaluates `f(recompute, *arrays)`, which maps arrays `[..., k]` and row values `[..., 1]` to
a tree of row values `[..., 1]`. On CPU the temporaries of a whole `[rows, k]` array cost more in page faults than the
arithmetic does, so `f` sees blocks that fit its cache. Elsewhere it sees everything at once and is asked to
`recompute` what its passes share rather than store it.

`jax.vmap` adds a leading axis. After the outermost `vmap`, all leading axes are merged into rows: a batch of one-pair
calls runs exactly like one call on the batch, and an argument that is not batched is never copied.

What `vmap` has made all pairs of two batches of vectors is not rows: there work that belongs to one vector can be done
once, and the terms of a sum in an order that vectorises. A caller that knows how passes `of_pairs`.

`f` carries no derivative. It belongs inside a `custom_jvp` rule whose tangents are written elementwise; a `custom_vmap`
over a differentiable function would lose reverse mode.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

from jaxdiv._core import stretches, tuning

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
    """Makes all arrays vary over every mesh axis that any of them varies over (`jax.shard_map`)."""
    # By arithmetic that XLA sees through: the functions for it differ between versions of jax.
    never = functools.reduce(jnp.logical_or, [jnp.any((x != x) & False) for x in jax.tree.leaves(tree)])
    return jax.tree.map(lambda x: jnp.where(never, x, x), tree)


def _merge_and_run(f, of_pairs, arrays):
    """Merges the leading axes of all arrays alike, runs, and restores them."""
    present, structure = jax.tree.flatten(arrays)
    lead = jnp.broadcast_shapes(*(x.shape[:-1] for x in present))
    if any(isinstance(n, int) and n == 0 for n in lead):
        out = jax.eval_shape(functools.partial(f, False), *arrays)
        return jax.tree.map(lambda x: jnp.zeros((*lead, 1), x.dtype), out)
    if not all(isinstance(n, int) for x in present for n in x.shape):  # exported for sizes not known yet
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (*lead, 1)), f(True, *arrays))
    sizes, kinds = _layout([x.shape for x in present])
    merged = [
        x.reshape([n if kind[j] else 1 for n, kind in zip(sizes, kinds, strict=True)] + [x.shape[-1]])
        for j, x in enumerate(present)
    ]
    out = _run(f, of_pairs, sizes, kinds, jax.tree.unflatten(structure, merged))
    return jax.tree.map(lambda x: x.reshape((*lead, 1)), out)


def _layout(shapes: Sequence[tuple[int, ...]]) -> tuple[list[int], list[list[bool]]]:
    """Sizes of the merged leading axes, and along which of them each array varies.

    Axes of length 1 are dropped; neighbouring axes are one where the same arrays are broadcast along them.
    """
    lead = np.broadcast_shapes(*(shape[:-1] for shape in shapes))
    axes = [(n, [shape[axis] == n for shape in shapes]) for axis, n in enumerate(lead) if n > 1]
    runs = [(kind, [n for n, _ in run]) for kind, run in itertools.groupby(axes, key=lambda axis: axis[1])]
    runs = runs or [([True] * len(shapes), [1])]
    return [math.prod(run) for _, run in runs], [kind for kind, _ in runs]


def _run(f, of_pairs, sizes, kinds, arrays):
    """Whole where there is little of it or no CPU; else all pairs at once, or in blocks."""

    def whole(recompute, *arrays):
        return _fill(f(recompute, *arrays), sizes)

    n, k = math.prod(sizes), max(x.shape[-1] for x in jax.tree.leaves(arrays))
    if n <= 2 or n * k <= tuning.BLOCK // tuning.WHOLE:
        return whole(False, *arrays)
    if of_pairs and n >= tuning.PAIRS and kinds in ([[True, False], [False, True]], [[False, True], [True, False]]):
        blocks = functools.partial(_all_pairs, of_pairs, kinds)
    else:
        blocks = functools.partial(_in_blocks, f, sizes, k)
    arrays = varying_alike(arrays) if len(kinds[0]) > 1 else arrays
    return lax.platform_dependent(*arrays, cpu=blocks, default=functools.partial(whole, True))


def _all_pairs(of_pairs, kinds, *arrays):
    out = of_pairs(*(x.reshape(-1, x.shape[-1]) for x in arrays))
    return out if kinds[0][0] else jax.tree.map(lambda x: x.swapaxes(0, 1), out)


def _fill(rows, sizes):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*sizes, 1)), rows)


def _in_blocks(f, sizes, k, *arrays):
    """`f` in blocks along the first axis, and along the next one where one index of the first is already too much."""
    n, *rest = sizes
    parts, nested = _parts(n, rest, k)
    full = [x is not None and x.shape[0] == n for x in arrays]
    half = any(x is not None and x.dtype.itemsize == 2 for x in arrays)

    def body(i):
        # XLA:CPU converts half precision before it slices. Unless tied to i, that conversion of everything leaves the
        # loop.
        xs, i = lax.optimization_barrier((arrays, i)) if half else (arrays, i)
        xs = [stretches.cut(parts, x, i) if y else x for x, y in zip(xs, full, strict=True)]
        if nested:
            inner = _in_blocks(f, rest, k, *(None if x is None else x[0] for x in xs))
            return jax.tree.map(lambda x: x[None], inner)
        return _fill(f(False, *xs), (parts.groups * parts.size, *rest))

    return jax.tree.map(functools.partial(stretches.join, parts), lax.map(body, jnp.arange(parts.steps)))


def _parts(n, rest, k):
    """The blocks of n indices, each of which has axes `rest` and k elements, and whether one is already too much."""
    most = max(tuning.BLOCK // (k * math.prod(rest)), 1 if rest else 2)
    if rest and most == 1 and math.prod(rest) * k > tuning.BLOCK:
        return stretches.in_parts(n, 1, groups=1), True
    # One row to a block makes XLA store whole arrays; of one block it makes no loop, and fuses all with what follows.
    target = min(max(n - n // 2, 2), most)
    return stretches.in_parts(n, max(target, min(target, 2) * stretches.stretches(n))), False

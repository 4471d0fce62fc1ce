"""How a function of rows runs over `[rows, k]`: in blocks that fit the cache on CPU, as one fused pass elsewhere.

`in_row_blocks(f, *arrays)` evaluates `f(recompute, *arrays)`, which maps arrays `[..., k]` and row values `[..., 1]` to
a tree of row values `[..., 1]`. On CPU the temporaries of a whole `[rows, k]` array cost more in page faults than the
arithmetic does, so `f` gets blocks that fit the cache. Elsewhere `f` gets all rows at once, and `recompute` asks it to
compute again what its passes share, instead of storing it. With few events (see `_core.events`), no `[rows, k]`
temporaries arise, and `f` gets all rows at once on CPU too.

`jax.vmap` adds a leading axis. After the outermost `vmap`, all leading axes are merged into rows: a batch of one-pair
calls runs exactly like one call on the batch, and an argument that is not batched is never copied.

If two `vmap`s make all pairs of two batches of vectors, rows are not the best order: work that depends on one vector
can be done once, and the terms of a sum can be taken in an order that vectorises. A caller that can do this passes
`of_pairs`.

`f` is not differentiated: call it in a function whose rule (`_core.rules`) writes tangents elementwise.
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

from jaxdiv._core import kernels, stretches, tuning
from jaxdiv._core.events import LAST, Events, few
from jaxdiv._core.rules import by_platform, with_axes

Rows = Any  # a tree of arrays [..., 1]


def in_row_blocks(
    f: Callable[..., Rows],
    *arrays: jax.Array | None,
    events: Events | None = None,
    of_pairs: Callable[..., Rows] | None = None,
    in_chunks: bool = False,
) -> Rows:
    """`f(recompute, *arrays)` for arrays `[..., k]` or `[..., 1]` (or None) whose leading axes broadcast.

    With `events`, k is the axis that they name, and f reduces over it by functions of `_core.events` only. `of_pairs`,
    if given, does the same on CPU for all pairs of two arrays: `[n, k]` and `[m, k]` to row values `[n, m, 1]`.
    `in_chunks`: f looks at arrays `[..., k]` by those functions only, so that a kernel may read them in chunks.
    """
    return with_axes(lambda *arrays: _merge_and_run(f, events, of_pairs, in_chunks, arrays), *arrays)


def barrier(recompute: bool, *arrays: Any) -> tuple[Any, ...]:
    """The inputs of the next pass. With `recompute`, XLA cannot keep `[rows, k]` intermediates of the previous one."""
    return lax.optimization_barrier(arrays) if recompute else arrays


def varying_alike(tree: Any) -> Any:
    """Makes all arrays vary over every mesh axis that any of them varies over (`jax.shard_map`)."""
    # By arithmetic that XLA removes, because the functions for this differ between versions of jax.
    never = functools.reduce(jnp.logical_or, [jnp.any((x != x) & False) for x in jax.tree.leaves(tree)])
    return jax.tree.map(lambda x: jnp.where(never, x, x), tree)


def _merge_and_run(f, events, of_pairs, in_chunks, arrays):
    """Merges the leading axes of all arrays in the same way, runs, and restores the axes."""
    present, structure = jax.tree.flatten(arrays)
    axis = (events or LAST).axis
    lead = jnp.broadcast_shapes(*(x.shape[:axis] for x in present))
    k = max(x.shape[axis] for x in present)
    rest = jnp.broadcast_shapes(*(x.shape[x.ndim + axis + 1 :] for x in present))
    shape = *lead, 1, *rest
    if any(isinstance(n, int) and n == 0 for n in shape):
        out = jax.eval_shape(functools.partial(f, False), *arrays)
        return jax.tree.map(lambda x: jnp.zeros(shape, x.dtype), out)
    if not all(isinstance(n, int) for x in present for n in x.shape):  # exported with symbolic sizes
        return jax.tree.map(lambda x: jnp.broadcast_to(x, shape), f(True, *arrays))
    sizes, kinds = _layout([x.shape[: x.ndim + axis + 1] for x in present])
    merged = [
        x.reshape([n if kind[j] else 1 for n, kind in zip(sizes, kinds, strict=True)] + list(x.shape[axis:]))
        for j, x in enumerate(present)
    ]
    arrays = jax.tree.unflatten(structure, merged)
    out = _run(f, events, of_pairs, in_chunks, kinds, (*sizes, 1, *rest), k, arrays)
    return jax.tree.map(lambda x: x.reshape(shape), out)


def _layout(shapes: Sequence[tuple[int, ...]]) -> tuple[list[int], list[list[bool]]]:
    """Sizes of the merged leading axes, and along which of them each array varies.

    Axes of length 1 are dropped, so one row has none: XLA:CPU sums [k] in parts, but [1, k] fused with its terms one by
    one, at a rounding each. Neighbouring axes are merged if the same arrays are broadcast along them.
    """
    lead = np.broadcast_shapes(*(shape[:-1] for shape in shapes))
    axes = [(n, [shape[axis] == n for shape in shapes]) for axis, n in enumerate(lead) if n > 1]
    runs = [(kind, [n for n, _ in run]) for kind, run in itertools.groupby(axes, key=lambda axis: axis[1])]
    return [math.prod(run) for _, run in runs], [kind for kind, _ in runs]


def _run(f, events, of_pairs, in_chunks, kinds, shape, k, arrays):
    """Runs f on all rows at once if they are small, have few events, or without a CPU; else by pairs or in blocks."""

    def whole(recompute, *arrays):
        return _fill(f(recompute, *arrays), shape)

    n = math.prod(shape)
    cpu = functools.partial(_in_blocks, f, shape, k)
    by_event = events is not None and few(events, k)
    if of_pairs and n >= tuning.PAIRS and kinds in ([[True, False], [False, True]], [[False, True], [True, False]]):
        cpu = functools.partial(_all_pairs, of_pairs, kinds)
    elif by_event:
        cpu = functools.partial(whole, True)
    if n <= 2 or (n * k <= tuning.BLOCK and not by_event):
        return whole(False, *arrays)
    arrays = varying_alike(arrays) if len(jax.tree.leaves(arrays)) > 1 else arrays
    # An accelerator fuses the passes over few events into one kernel, unless barriers (`recompute`) forbid it.
    default = functools.partial(whole, not by_event)
    by_kernel = kernels.of_platforms(f, events, shape, k, arrays) if events and in_chunks and not by_event else {}
    return by_platform(*arrays, **{"cpu": cpu, **by_kernel}, default=default)


def _all_pairs(of_pairs, kinds, *arrays):
    out = of_pairs(*(x.reshape(-1, x.shape[-1]) for x in arrays))
    return out if kinds[0][0] else jax.tree.map(lambda x: x.swapaxes(0, 1), out)


def _fill(rows, shape):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape), rows)


def _in_blocks(f, shape, k, *arrays):
    """`f` in blocks along the first axis; along the next one too, if one index of the first is already too large."""
    at = next(axis for axis, n in enumerate(shape) if n > 1)
    n = shape[at]
    parts, nested = _parts(n, math.prod(shape) // n, k)
    full = [x is not None and x.shape[at] == n for x in arrays]
    half = any(x is not None and x.dtype.itemsize == 2 for x in arrays)

    def body(i):
        # XLA:CPU converts half precision before it slices. The barrier ties the conversion to i; otherwise XLA would
        # move it out of the loop and convert the whole array.
        xs, i = lax.optimization_barrier((arrays, i)) if half else (arrays, i)
        xs = [stretches.cut(parts, x, i, at) if y else x for x, y in zip(xs, full, strict=True)]
        if nested:
            inner = _in_blocks(f, shape[1:], k, *(None if x is None else x[0] for x in xs))
            return jax.tree.map(lambda x: x[None], inner)
        return _fill(f(False, *xs), (*shape[:at], parts.groups * parts.size, *shape[at + 1 :]))

    return jax.tree.map(lambda x: stretches.join(parts, x, at), lax.map(body, jnp.arange(parts.steps)))


def _parts(n, rest, k):
    """The blocks of n indices with `rest` rows of k elements each, and whether one index is already too large."""
    most = max(tuning.BLOCK // (k * rest), 1 if rest > 1 else 2)
    if rest > 1 and most == 1 and rest * k > tuning.BLOCK:
        return stretches.in_parts(n, 1, groups=1), True
    # At least 2 rows: with one row per block XLA stores whole arrays. At least 2 blocks: of one block XLA makes no loop
    # and fuses it with what follows.
    target = min(max(n - n // 2, 2), most)
    return stretches.in_parts(n, max(target, min(target, 2) * stretches.stretches(n))), False

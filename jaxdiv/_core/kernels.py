"""A function of rows as one kernel of an NVIDIA GPU, which reads every row from memory once.

XLA makes a pass over memory of each reduction of a row that is needed by the next. The kernel keeps a row near: of the
row numbers that `in_row_blocks` computes, every one is a loop over chunks of the row, of which only the first has to
come from the memory of the device. It is written in Pallas, lowered by Triton, and its arithmetic is that of the
function of rows itself.

No device has run it, so it is off unless the environment has `JAXDIV_PALLAS=1` when `jaxdiv` is imported.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core import rules, tuning
from jaxdiv._core.events import Chunked, Events

# Older versions of jax cannot lower every operation of it.
_used: tuple[str, ...] = ("cuda",) if os.environ.get("JAXDIV_PALLAS") == "1" and jax.__version_info__ >= (0, 9) else ()


@contextlib.contextmanager
def on(*platforms: str) -> Iterator[None]:
    """What is traced within has kernels on these platforms: "cuda", or "cpu", where they are interpreted."""
    global _used
    before, _used = _used, platforms
    _forget()
    try:
        yield
    finally:
        _used = before
        _forget()


def _forget():
    rules.forget()
    jax.clear_caches()


def used(events: Events, *arrays: jax.Array) -> tuple[str, ...]:
    """The platforms that have a kernel for such arrays: one whose events are the last axis, not in float64.

    XLA does not divide a kernel among devices, so every device must have a program of its own.
    """
    alone = jax.device_count() == 1 or jax.sharding.get_abstract_mesh().are_all_axes_manual
    suits = events.axis == -1 and events.over is None and all(x.dtype.itemsize <= 4 for x in arrays)
    return _used if alone and suits else ()


def of_platforms(
    f: Callable[..., Any], events: Events, shape: tuple[int, ...], k: int, arrays: tuple[jax.Array | None, ...]
) -> dict[str, Callable[..., Any]]:
    """The kernel for each platform that has one, of rows `[n, k]`; `shape` is that of the results."""
    names = used(events, *jax.tree.leaves(arrays)) if len(shape) == 2 and k > 1 else ()
    return {name: functools.partial(_by_kernel, f, shape, k, name == "cpu") for name in names}


def _by_kernel(f, shape, k, interpret, *arrays):
    """`f(False, *arrays)`; every program of the kernel has some rows, and holds a chunk of them at a time."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    size = min(pl.next_power_of_2(k), tuning.HELD)
    chunks, rows = -(-k // size), tuning.HELD // size
    present, given = jax.tree.flatten(arrays)
    results, structure = jax.tree.flatten(jax.eval_shape(functools.partial(f, False), *arrays))

    def kernel(*refs):
        start, sums = pl.program_id(0) * rows, []

        def inside(ref):
            return start + lax.broadcasted_iota(jnp.int32, (ref.shape[0], 1), 0) < shape[0]

        def read(ref, i):
            here = inside(ref)
            if ref.shape[1] == 1:
                return triton.load(ref, mask=here)
            at = pl.ds(i * size, size)
            here = here & (i * size + lax.broadcasted_iota(jnp.int32, (1, size), 1) < k)
            return triton.load(ref.at[:, at], mask=here)

        def argument(ref):
            if ref.shape[1] == 1:
                return read(ref, 0)
            return Chunked((ref.shape[0], k), ref.dtype, size, functools.partial(read, ref), sums)

        with rules.inlined():
            found = f(False, *jax.tree.unflatten(given, [argument(ref) for ref in refs[: len(present)]]))
        # Maxima and minima of a GPU's instructions lose NaN.
        spoilt = functools.reduce(jnp.logical_or, [x != x for x in sums])
        for ref, x in zip(refs[len(present) :], jax.tree.leaves(found), strict=True):
            x = jnp.where(spoilt, jnp.nan, x)
            triton.store(ref, jnp.broadcast_to(x, ref.shape), mask=inside(ref))

    def block(x):
        own = x.shape[0] > 1
        width = chunks * size if x.shape[1] > 1 else 1
        return pl.BlockSpec((rows if own else 1, width), lambda i: (i if own else 0, 0))

    # Of `jax.shard_map` it matters over which axes they vary.
    out = [x.update(shape=shape) for x in results]
    found = pl.pallas_call(
        kernel,
        out,
        grid=(-(-shape[0] // rows),),
        in_specs=[block(x) for x in present],
        out_specs=[block(x) for x in out],
        compiler_params=triton.CompilerParams(num_warps=tuning.WARPS, num_stages=1),
        interpret=interpret,
        name="jaxdiv_rows",
    )(*present)
    return jax.tree.unflatten(structure, found)

"""Where the events of a row lie, and reductions over events of an elementwise function.

A reduction over a few numbers that are neighbours in memory is not vectorised, and two reductions store what they
share. Few events can therefore be taken one after the other, each as a vector over all rows: this is one loop that
stores nothing.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core import tuning

Axes = str | tuple[str, ...] | None


class Events(NamedTuple):
    """Where events are, and how to reduce over them.

    | field | |
    |---|---|
    | `axis` | their axis, the last or the last but one |
    | `over` | device axes over which that axis is sharded, inside `jax.shard_map` |
    | `apart` | whether few of them may be taken one after the other |
    """

    axis: int = -1
    over: Axes = None
    apart: bool = True


LAST = Events()


@dataclasses.dataclass(frozen=True)
class Chunked:
    """Rows `[n, k]` that a kernel (`_core.kernels`) reads chunk by chunk, in place of an array.

    | field | |
    |---|---|
    | `size` | events of a chunk |
    | `read` | chunk number i, `[n, size]`; what it holds beyond k is arbitrary |
    | `first` | the first sums over all events, once they are known: they are NaN for every row that must be |
    """

    shape: tuple[int, int]
    dtype: Any
    size: int
    read: Callable[[Any], jax.Array]
    first: list[jax.Array]
    ndim: int = 2

    def astype(self, dtype: Any) -> "Chunked":
        return dataclasses.replace(self, dtype=dtype, read=lambda i: self.read(i).astype(dtype))


def few(events: Events, k: int) -> bool:
    """Whether a reduction over k events takes them one after the other; all must be on one device."""
    return events.apart and events.over is None and isinstance(k, int) and k <= tuning.SHORT


def few_elsewhere(events: Events, recompute: bool, *arrays: jax.Array) -> bool:
    """Whether a function that `in_row_blocks` calls has few events and all rows of an accelerator."""
    shape = jnp.broadcast_shapes(*(x.shape for x in arrays))
    if not all(isinstance(n, int) for n in shape) or not few(events._replace(apart=True), shape[events.axis]):
        return False
    # On CPU, barriers go with events one after the other, elsewhere with all at once. Two rows are any platform's.
    return recompute != events.apart and math.prod(shape) > 2 * shape[events.axis]


def numbers(events: Events, x: jax.Array) -> jax.Array:
    """The numbers of the events of an array, along their axis."""
    axis = x.ndim + events.axis
    if isinstance(x, Chunked):
        return dataclasses.replace(x, dtype=jnp.int32, read=lambda i: i * x.size + _counting((1, x.size), 1))
    return _counting((*[1] * axis, *x.shape[axis:]), axis)


def _counting(shape, axis):
    return lax.broadcasted_iota(jnp.int32, shape, axis)


def sums(events: Events, f: Callable[..., Sequence[jax.Array]], *arrays: Any) -> list[jax.Array]:
    """The sums over a row, kept as an axis of length 1, of each array that f returns; f is elementwise in events."""
    found = _reduced(events, f, arrays, jnp.sum, jnp.add, 0)
    if isinstance(arrays[0], Chunked) and not arrays[0].first:
        arrays[0].first.extend(found)
    return found if events.over is None else lax.psum(found, events.over)


def largest(events: Events, f: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """The maximum over a row, kept as an axis of length 1, of the array that f returns."""
    (found,) = _reduced(events, lambda *event: [f(*event)], arrays, jnp.max, jnp.maximum, -jnp.inf)
    return found if events.over is None else lax.pmax(found, events.over)


def _reduced(events, f, arrays, of_axis, of_two, neutral):
    """Each result of f reduced over a row, by a function of an axis and the same function of two arrays."""
    if isinstance(arrays[0], Chunked):
        return _over_chunks(f, arrays, of_axis, of_two, neutral)
    found = _of_each(events, f, arrays)
    return [of_axis(functools.reduce(of_two, x), events.axis, keepdims=True) for x in found]


def _over_chunks(f, arrays, of_axis, of_two, neutral):
    (_, k), size = arrays[0].shape, arrays[0].size

    def of_chunk(i):
        found = f(*(x.read(i) for x in arrays))
        if k % size:
            inside = i * size + _counting((1, size), 1) < k
            found = [jnp.where(inside, x, neutral) for x in found]
        return [of_axis(x, -1, keepdims=True) for x in found]

    def step(i, found):
        return [of_two(x, y) for x, y in zip(found, of_chunk(i), strict=True)]

    if k <= size:
        return of_chunk(0)
    start = [jnp.full(x.shape, neutral, x.dtype) for x in jax.eval_shape(of_chunk, jnp.int32(0))]
    return lax.fori_loop(jnp.int32(0), jnp.int32(-(-k // size)), step, start)


def _of_each(events, f, arrays):
    """The results of f, each as a sequence of parts: one part per event, or one part for all events."""
    k = arrays[0].shape[events.axis]
    if not few(events, k):
        return zip(f(*arrays), strict=True)
    apart = zip(*(jnp.split(x, k, events.axis) for x in arrays), strict=True)
    once = jax.jit(lambda *event: tuple(f(*event)), inline=True)  # traced for the first event, and repeated for others
    return zip(*(once(*event) for event in apart), strict=True)

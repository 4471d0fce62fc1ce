"""Where the events of a row lie, and reductions over events of an elementwise function.

A reduction over a few numbers that are neighbours in memory is not vectorised, and two reductions store what they
share. Few events can therefore be taken one after the other, each as a vector over all rows: this is one loop that
stores nothing.
"""

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


def sums(events: Events, f: Callable[..., Sequence[jax.Array]], *arrays: Any) -> list[jax.Array]:
    """The sums over a row, kept as an axis of length 1, of each array that f returns; f is elementwise in events."""
    found = [jnp.sum(functools.reduce(jnp.add, x), events.axis, keepdims=True) for x in _of_each(events, f, arrays)]
    return found if events.over is None else lax.psum(found, events.over)


def largest(events: Events, f: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """The maximum over a row, kept as an axis of length 1, of the array that f returns."""
    (found,) = _of_each(events, lambda *event: [f(*event)], arrays)
    found = jnp.max(functools.reduce(jnp.maximum, found), events.axis, keepdims=True)
    return found if events.over is None else lax.pmax(found, events.over)


def _of_each(events, f, arrays):
    """The results of f, each as a sequence of parts: one part per event, or one part for all events."""
    k = arrays[0].shape[events.axis]
    if not few(events, k):
        return zip(f(*arrays), strict=True)
    apart = zip(*(jnp.split(x, k, events.axis) for x in arrays), strict=True)
    once = jax.jit(lambda *event: tuple(f(*event)), inline=True)  # traced for the first event, and repeated for others
    return zip(*(once(*event) for event in apart), strict=True)

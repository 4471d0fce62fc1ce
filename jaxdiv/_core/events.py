"""Where the events of a row lie, and reductions over them of what an elementwise function makes of each.

A reduction over a few numbers that are neighbours in memory is not vectorised, and stores what it shares with another.
Few events may therefore be taken one after the other, each a vector over all rows: one loop, and nothing is stored.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core import tuning

Axes = str | tuple[str, ...] | None


class Events(NamedTuple):
    """Where events are, and how they may be taken.

    | field | |
    |---|---|
    | `axis` | their axis, the last or the last but one |
    | `over` | axes of devices over which that axis is divided, inside `jax.shard_map` |
    | `apart` | whether few of them may be taken one after the other |
    """

    axis: int = -1
    over: Axes = None
    apart: bool = True


LAST = Events()


def few(events: Events, k: int) -> bool:
    """Whether a reduction over k events takes them one after the other: where none is on another device."""
    return events.apart and events.over is None and isinstance(k, int) and k <= tuning.SHORT


def sums(events: Events, f: Callable[..., Sequence[jax.Array]], *arrays: Any) -> list[jax.Array]:
    """The sums over a row, in an axis of length 1, of the arrays that f returns, which have an entry for each event."""
    found = [jnp.sum(functools.reduce(jnp.add, x), events.axis, keepdims=True) for x in _of_each(events, f, arrays)]
    return found if events.over is None else lax.psum(found, events.over)


def largest(events: Events, f: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """The maximum over a row of what f returns, in an axis of length 1."""
    (found,) = _of_each(events, lambda *event: [f(*event)], arrays)
    found = jnp.max(functools.reduce(jnp.maximum, found), events.axis, keepdims=True)
    return found if events.over is None else lax.pmax(found, events.over)


def _of_each(events, f, arrays):
    """What f returns, each in parts: of one event after the other, or of all at once."""
    k = arrays[0].shape[events.axis]
    if not few(events, k):
        return zip(f(*arrays), strict=True)
    apart = zip(*(jnp.split(x, k, events.axis) for x in arrays), strict=True)
    return zip(*(f(*event) for event in apart), strict=True)

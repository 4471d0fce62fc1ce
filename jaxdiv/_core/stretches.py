"""An axis in parts. It is divided into equal stretches, and each part takes a few neighbours from every stretch.

A sharded axis has one stretch on each device. Every part then uses all devices equally, and no device needs the entries
of another. The last part overlaps the one before it, so that all parts have one size. Part i is given by its number,
which can be traced in a loop.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Parts(NamedTuple):
    """`steps` parts, each with `size` neighbours from each of `groups` stretches of length `local`."""

    groups: int
    local: int
    size: int
    steps: int


def stretches(n: int) -> int:
    """The number of equal stretches of an axis of length n, which fits any sharding of it.

    While `jit` traces a program, the sharding that XLA will choose is unknown. So the number of all devices is used. On
    a mesh axis with fewer devices, each device has several whole stretches. An axis of unknown length is one stretch.
    """
    return math.gcd(n, jax.device_count()) if isinstance(n, int) and n else 1


def in_parts(n: int, most: int, *, groups: int | None = None, lanes: int = 1) -> Parts:
    """An axis of length n in the fewest equal parts of at most `most` entries, but at least one from each stretch.

    Sizes are multiples of `lanes` if `most` allows it. An axis of unknown length is one part.
    """
    if not isinstance(n, int):  # a program exported for any length
        return Parts(1, n, n, 1)
    groups = groups or stretches(n)
    local = n // groups
    largest = max(1, min(local, most // groups))
    steps = max(1, -(-local // largest))
    even = -(-local // steps)
    size = min(largest, -(-even // lanes) * lanes) if n else 0
    return Parts(groups, local, size, -(-local // size) if n else 1)


def start(parts: Parts, i: Any) -> Any:
    """Where part i starts in each stretch."""
    return jnp.minimum(i * parts.size, parts.local - parts.size)


def split(parts: Parts, x: jax.Array, axis: int = 0) -> jax.Array:
    """The axis as `[groups, ...]`, stretches or parts of them, if there are several."""
    if parts.groups == 1:
        return x
    return x.reshape(*x.shape[:axis], parts.groups, x.shape[axis] // parts.groups, *x.shape[axis + 1 :])


def _merged(parts, x, axis):
    if parts.groups == 1:
        return x
    return x.reshape(*x.shape[:axis], parts.groups * x.shape[axis + 1], *x.shape[axis + 2 :])


def cut(parts: Parts, tree: Any, i: jax.Array, axis: int = 0) -> Any:
    """Part i of an axis, for all arrays of a tree."""
    local = axis + (parts.groups > 1)

    def of(x):
        part = lax.dynamic_slice_in_dim(split(parts, x, axis), start(parts, i), parts.size, local)
        return _merged(parts, part, axis)

    return jax.tree.map(of, tree)


def put(parts: Parts, x: jax.Array, part: jax.Array, i: jax.Array, axis: int = 0) -> jax.Array:
    """x with part i of an axis replaced."""
    local = axis + (parts.groups > 1)
    x, part = (split(parts, y, axis) for y in (x, part))
    return _merged(parts, lax.dynamic_update_slice_in_dim(x, part, start(parts, i), local), axis)


def once(parts: Parts, part: jax.Array, i: jax.Array, axis: int = 0) -> jax.Array:
    """Part i with zeros for entries that the previous part has too: a sum over all parts counts each entry once."""
    if parts.steps * parts.size == parts.local:
        return part
    fresh = jnp.tile(jnp.arange(parts.size) + start(parts, i) >= i * parts.size, parts.groups)
    return jnp.where(fresh.reshape(-1, *(1,) * (part.ndim - axis - 1)), part, 0)


def join(parts: Parts, x: jax.Array, axis: int = 0) -> jax.Array:
    """Restores the axis from all of its parts `[steps, ...]`, whose axis has length `groups * size`."""
    groups, local, size, steps = parts
    x = jnp.moveaxis(x, axis + 1, 1)
    rest = x.shape[2:]
    x = jnp.moveaxis(x.reshape(steps, groups, size, *rest), 0, 1)
    twice = steps * size - local
    if twice:
        whole = x[:, :-1].reshape(groups, (steps - 1) * size, *rest)
        x = jnp.concatenate([whole, x[:, -1, twice:]], 1)
    return jnp.moveaxis(x.reshape(groups * local, *rest), 0, axis)

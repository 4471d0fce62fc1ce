"""What passes over `[rows, k]` share on accelerators: as much as they can without storing it."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax import lax

from jaxdiv._core.blocks import barrier
from jaxdiv._core.events import Events, sums

R = TypeVar("R")


def recomputed(f: Callable[..., R], *arguments: Any, fused: Sequence[str] = ()) -> R:
    """`f(*arguments)`; what it shares with other passes is computed again, not stored.

    If value and gradient are separate programs, the arguments are kept between them, nothing of f. If they are one, XLA
    for a TPU fuses them into one pass over the arguments, and a barrier would prevent that; elsewhere it would store
    what they share. `fused` names other platforms that fuse them.
    """
    together, apart = (jax.checkpoint(f, prevent_cse=x) for x in (False, True))
    return lax.platform_dependent(*arguments, **dict.fromkeys(("tpu", *fused), together), default=apart)


def sums_in_passes(
    passes: int,
    events: Events,
    f: Callable[..., Sequence[jax.Array]],
    arrays: tuple[jax.Array, jax.Array],
    rows: tuple[jax.Array, jax.Array],
) -> list[jax.Array]:
    """`sums` over events of `f(*arrays, *rows)`, elementwise. If there are several `passes`, a GPU takes one to a sum.

    XLA for a GPU would rather store what the sums share, whole arrays in float32, than compute it again.
    """
    here = events._replace(over=None)

    def at_once(*given):
        return sums(here, lambda *x: f(*x, *given[2:]), *given[:2])

    def apart(*given):
        found = []
        # Each order of the operands is a barrier of its own; XLA would make one of two that are the same.
        for i, order in zip(range(passes), itertools.permutations(range(4)), strict=False):
            behind = dict(zip(order, barrier(True, *(given[j] for j in order)), strict=True))
            x, y, *those = (behind[j] for j in range(4))
            found += sums(here, lambda x, y: [f(x, y, *those)[i]], x, y)  # noqa: B023
        return found

    if passes > 1:
        found = lax.platform_dependent(*arrays, *rows, cuda=apart, rocm=apart, default=at_once)
    else:
        found = at_once(*arrays, *rows)
    return found if events.over is None else lax.psum(found, events.over)

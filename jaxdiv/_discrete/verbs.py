"""What a public verb says of itself: that it is a function of one sum over events, and of which divergence's terms."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import root
from jaxdiv._core.groups import Space
from jaxdiv._core.jit import jitted
from jaxdiv._discrete.record import Divergence

P = ParamSpec("P")
R = TypeVar("R")


class SumOverEvents(NamedTuple):
    """The divergence whose terms a verb sums, and whether a table of all pairs needs memory for laws alone.

    Of logits it needs memory for pairs: what a pair shares is known only once both are.
    """

    divergence: Divergence
    law_by_law: bool


def verb(
    space: Space, divergence: Divergence | None = None, *, itself: bool = True, law_by_law: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`jitted` for a function of laws of a space, which carries what is known of it from then on.

    Where there is a divergence it is the sum of its terms, `itself` or a function of it.
    """

    def public(function):
        record = SumOverEvents(divergence, law_by_law) if divergence else None
        order = divergence.order if divergence and itself else None
        return jitted(function, space=space, sum_over_events=record, order=order)

    return public


def sum_over_events(function: Callable[..., Any]) -> SumOverEvents | None:
    """What a verb carries, or a `functools.partial` that fixes the divergence's own parameters; None of any other.

    `js` with a weight fixed is another divergence than `js`: its tables have no path of their own.
    """
    if not isinstance(function, functools.partial):
        return getattr(function, "sum_over_events", None)
    carried = sum_over_events(function.func)
    own = carried and not function.args and set(function.keywords) <= set(carried.divergence.parameters)
    return carried if own else None


def fisher_rao_length(squared_hellinger: jax.Array) -> jax.Array:
    """The geodesic length 2 arccos sum sqrt(p q), from 1 - sum sqrt(p q)."""
    return 4 * jnp.arcsin(root(0.5 * squared_hellinger))

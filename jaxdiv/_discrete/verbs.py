"""The record that a public function (a *verb*) carries: which divergence's terms it sums over events."""

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
    """The divergence whose terms a verb sums, and whether a table of all pairs needs memory per law only.

    For logits it needs memory for every pair, because the numbers of a row depend on both laws.
    """

    divergence: Divergence
    law_by_law: bool


def verb(
    space: Space, divergence: Divergence | None = None, *, itself: bool = True, law_by_law: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`jitted` for a function of laws of a space; the function then carries its record.

    If a divergence is given, the function is the sum of its terms (`itself`), or a function of that sum.
    """

    def public(function):
        record = SumOverEvents(divergence, law_by_law) if divergence else None
        order = divergence.order if divergence and itself else None
        return jitted(function, space=space, sum_over_events=record, order=order)

    return public


def sum_over_events(function: Callable[..., Any]) -> SumOverEvents | None:
    """The record of a verb, or of a `functools.partial` that fixes only the divergence's own parameters; else None.

    `js` with a fixed weight is another divergence than `js`, and has no fast tables.
    """
    if not isinstance(function, functools.partial):
        return getattr(function, "sum_over_events", None)
    carried = sum_over_events(function.func)
    own = carried and not function.args and set(function.keywords) <= set(carried.divergence.parameters)
    return carried if own else None


def fisher_rao_length(squared_hellinger: jax.Array) -> jax.Array:
    """The geodesic length 2 arccos sum sqrt(p q), from 1 - sum sqrt(p q)."""
    return 4 * jnp.arcsin(root(0.5 * squared_hellinger))

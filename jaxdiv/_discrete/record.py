"""What a family delivers of each event, and the record of a divergence that is a sum over events."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Event(NamedTuple):
    """What a family knows of each event. A family fills with `log_ratio`, 0 and None what it has no use for.

    | field | |
    |---|---|
    | `p`, `q` | the probabilities |
    | `log_ratio` | log p/q; infinite where exactly one of them has no mass, 0 where neither has |
    | `difference` | p - q |
    | `centred` | `log_ratio` up to a constant of the row, with more digits; for slopes that are centred over a row |
    | `saturated` | 1 where the law whose slope is asked for has, at its largest, nearly no other law beside it; or 0 |
    | `surprise` | -log q; in a slope up to a constant of the row |
    """

    p: jax.Array
    q: jax.Array
    log_ratio: jax.Array
    difference: jax.Array
    centred: jax.Array
    saturated: jax.Array
    surprise: jax.Array | None


def unbounded(*parameters: jax.Array) -> float:
    """The bound of a divergence that has none."""
    del parameters
    return jnp.inf


class Divergence(NamedTuple):
    """A divergence `D(p, q) = sum f(event)`, and all that is known of it.

    | field | |
    |---|---|
    | `name` | its name for who chooses by name, `estimators` |
    | `term` | `f(event, *parameters) >= 0` |
    | `slope_p`, `slope_q` | `p df/dp` and `q df/dq`, of the same arguments |
    | `link` | `f'(u)` from `log u` and the parameters |
    | `parameters` | names of the numbers it takes, in their order |
    | `bound` | its largest value for laws, elementwise in the parameters |
    | `of_masses` | `f(p, q)` with its own derivatives, of `enlarged` numbers, where that is cheaper than of an event |
    | `order` | of the power mean, event by event, that is the centroid q of laws p; of laws q it is 1 less that |
    | `table` | the sums for all pairs `[n, k]`, `[m, k]` of `enlarged` vectors, without a logarithm for each term |
    | `surprising` | its term uses `event.surprise`: a row of logits needs the logarithm of its sum |
    | `balanced_q` | slopes in q sum to 0 of themselves and stay finite where the term is infinite: no row numbers |
    | `anchored` | slopes use `event.centred`, `saturated` or `surprise`: they are known up to a multiple of p (or q) |
    """

    name: str
    term: Callable[..., jax.Array]
    slope_p: Callable[..., jax.Array]
    slope_q: Callable[..., jax.Array]
    link: Callable[..., jax.Array]
    parameters: tuple[str, ...] = ()
    bound: Callable[..., jax.Array | float] = unbounded
    of_masses: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    order: Callable[..., ArrayLike] | None = None
    table: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    surprising: bool = False
    balanced_q: bool = False
    anchored: bool = False

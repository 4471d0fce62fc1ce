"""The numbers that a family delivers for each event, and the record of a divergence that is a sum over events."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Event(NamedTuple):
    """The numbers of each event. What a family does not need of those after `difference` is `log_ratio`, 0 or None.

    | field | |
    |---|---|
    | `p`, `q` | the probabilities |
    | `log_ratio` | log p/q; infinite where exactly one of them is 0, and 0 where both are |
    | `difference` | p - q |
    | `centred` | `log_ratio` plus a constant of the row, with more digits; for slopes that are centred over a row |
    | `saturated` | 1 if, at the largest event of the law of the slope, the other law is much smaller; else 0 |
    | `surprise` | -log q; in slopes, plus a constant of the row |
    | `log_p` | log p, also where p underflows to 0; None if no power of p is needed |
    """

    p: jax.Array
    q: jax.Array
    log_ratio: jax.Array
    difference: jax.Array
    centred: jax.Array
    saturated: jax.Array
    surprise: jax.Array | None
    log_p: jax.Array | None


def unbounded(*parameters: jax.Array) -> float:
    """The bound of a divergence without a bound: infinity."""
    del parameters
    return jnp.inf


class Divergence(NamedTuple):
    """A divergence `D(p, q) = sum f(event)`, and everything that is known of it.

    | field | |
    |---|---|
    | `name` | its name, by which `estimators` choose it |
    | `term` | `f(event, *parameters) >= 0` |
    | `slope_p`, `slope_q` | `p df/dp` and `q df/dq`, with the same arguments |
    | `link` | `f'(u)` from `log u` and the parameters |
    | `parameters` | names of the numbers it takes, in their order |
    | `bound` | its largest value for distributions, elementwise in the parameters |
    | `of_masses` | `f(p, q)` of `enlarged` numbers with its own derivatives, if that is cheaper than of an event |
    | `order` | order of the power mean that is the centroid q of laws p; the centroid p of laws q has 1 - order |
    | `table` | the sums for all pairs `[n, k]`, `[m, k]` of `enlarged` vectors, without a logarithm per term |
    | `surprising` | the term uses `event.surprise`, so a row of logits needs the logarithm of its sum |
    | `raised` | the term has powers of p and uses `event.log_p`, for which a row needs the logarithm of its sum too |
    | `balanced_q` | slopes in q sum to 0 and stay finite where the term is infinite, so they need no row numbers |
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
    raised: bool = False
    balanced_q: bool = False
    anchored: bool = False

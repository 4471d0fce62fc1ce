"""The divergences of categorical distributions given by logits `[..., k]`, in the working precision, without checks.

`categorical` evaluates them for one pair, `losses` for batches. A divergence that is a plain sum of terms needs only
its record; every other one is a function here. `temperature` is None or, like every other parameter, an array of the
rank of the logits with length 1 along the axis of the events.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiv._core import functions
from jaxdiv._core.events import LAST, Events
from jaxdiv._core.functions import bregman, capped
from jaxdiv._discrete import affinity, softmax, terms, tilted
from jaxdiv._discrete.record import Divergence, unbounded
from jaxdiv._discrete.softmax import distributions
from jaxdiv._inputs import working

Temperature = jax.Array | None
Verb = Divergence | Callable[..., jax.Array]


def evaluate(verb: Verb, p: jax.Array, q: jax.Array, temperature: Temperature, **parameters: Any) -> jax.Array:
    """The value of a verb: the sum of a record's terms, or a function of this file."""
    if isinstance(verb, Divergence):
        return total(verb, p, q, temperature, **parameters)
    return verb(p, q, temperature, **parameters)


def total(
    divergence: Divergence,
    p: jax.Array,
    q: jax.Array | None,
    temperature: Temperature,
    *,
    events: Events = LAST,
    **parameters: jax.Array,
) -> jax.Array:
    """The sum of a divergence's terms, capped at its bound."""
    numbers = [parameters[name] for name in divergence.parameters]
    value = softmax.total(divergence, p, q, temperature, *numbers, events=events)
    if divergence.bound is unbounded:  # an infinite cap would only add a pass
        return value
    return capped(value, divergence.bound(*(x[..., 0] for x in numbers)))


def generalized_js(
    p: jax.Array, q: jax.Array, temperature: Temperature, beta: jax.Array, *, events: Events = LAST
) -> jax.Array:
    """Weighted Jensen-Shannon, with its weight named `beta` as in distillation."""
    return total(terms.skewed_js, p, q, temperature, weight=beta, events=events)


def rescaled_js(
    p: jax.Array, q: jax.Array, temperature: Temperature, beta: jax.Array, *, events: Events = LAST
) -> jax.Array:
    """generalized_js / (beta (1 - beta)), with its limits at both ends: the KL divergences."""
    return total(terms.rescaled_js, p, q, temperature, weight=beta, events=events)


def js_of(ps: jax.Array, weights: jax.Array, temperature: Temperature = None, *, events: Events = LAST) -> jax.Array:
    """Jensen-Shannon of n laws, from logits `[n, ..., k]` and weights `[n, ..., 1]` of the same rank."""
    p, first, c, _ = distributions(ps, jnp.broadcast_to(ps[:1], ps.shape), temperature, events)
    # Differences from the first law keep digits that the rounded probabilities have lost.
    from_first = functions.difference(p, first, c)
    mean = jnp.sum(weights * p, 0, keepdims=True)
    delta = from_first - jnp.sum(weights * from_first, 0, keepdims=True)
    # Weighed after the sum over events: XLA would make one sum of two, and round it once for each of many numbers.
    apart = functions.sum_of_row(bregman(p, mean, jax.lax.stop_gradient(delta)), events.over)
    value = jnp.sum(functions.times(weights, apart), 0)[..., 0]
    return capped(value, functions.entropy_of_weights(jnp.moveaxis(weights, 0, -1))[0, ..., 0])


def entropy(p: jax.Array, temperature: Temperature) -> jax.Array:
    return total(terms.cross_entropy, p, None, temperature)


# ---------------------------------------------------------------- functions of an affinity


def _pair(p, q, temperature):
    law_p, law_q, c, log_p = distributions(p, q, temperature)
    return affinity.Pair(log_p, c, law_p, law_q)


def renyi(
    p: jax.Array, q: jax.Array, temperature: Temperature, alpha: jax.Array, *, events: Events = LAST
) -> jax.Array:
    return tilted.renyi(p, q, temperature, alpha, events)


def bhattacharyya(p: jax.Array, q: jax.Array, temperature: Temperature) -> jax.Array:
    half = jnp.full_like(p[..., :1], 0.5, working(p, q))
    return 0.5 * tilted.renyi(p, q, temperature, half)


def chernoff(p: jax.Array, q: jax.Array, temperature: Temperature) -> jax.Array:
    def negative_log(s, p, q, temperature):
        value = tilted.renyi(p, q, temperature, s)[..., None]
        endless = jnp.isinf(value)
        return jnp.where(endless, value, (1 - s) * jnp.where(endless, 0, value))

    return affinity.chernoff(_pair, negative_log, p, q, temperature)[..., 0]

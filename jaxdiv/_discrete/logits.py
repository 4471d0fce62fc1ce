"""The divergences of categorical distributions given by logits `[..., k]`, over the last axis, in working precision.

One function a verb, without checks: `categorical` calls them on one pair, `bernoulli` on two logits, `losses` on
batches. `temperature` is None or, like every other parameter, an array of the rank of the logits with a last axis of
length 1.
"""

import jax
import jax.numpy as jnp

from jaxdiv._core import functions
from jaxdiv._core.functions import LOG2, bregman, capped, root
from jaxdiv._discrete import affinity, terms
from jaxdiv._discrete.softmax import Axes, distributions, total
from jaxdiv._inputs import working

Temperature = jax.Array | None


def kl(p: jax.Array, q: jax.Array, temperature: Temperature, *, over: Axes = None) -> jax.Array:
    return total(terms.kl, p, q, temperature, over=over)


def jeffreys(p: jax.Array, q: jax.Array, temperature: Temperature, *, over: Axes = None) -> jax.Array:
    return total(terms.jeffreys, p, q, temperature, over=over)


def js(
    p: jax.Array, q: jax.Array, temperature: Temperature, weight: jax.Array | None = None, *, over: Axes = None
) -> jax.Array:
    """Without a weight it is 1/2, in a cheaper form."""
    if weight is None:
        return capped(total(terms.js, p, q, temperature, over=over), LOG2)
    bound = functions.entropy_of_weights(jnp.concatenate([weight, 1 - weight], -1))[..., 0]
    return capped(total(terms.skewed_js, p, q, temperature, weight, over=over), bound)


def generalized_js(
    p: jax.Array, q: jax.Array, temperature: Temperature, beta: jax.Array, *, over: Axes = None
) -> jax.Array:
    """js under the name that its weight has in distillation."""
    return js(p, q, temperature, beta, over=over)


def rescaled_js(
    p: jax.Array, q: jax.Array, temperature: Temperature, beta: jax.Array, *, over: Axes = None
) -> jax.Array:
    """generalized_js / (beta (1 - beta)), continued to the KL divergences at both ends."""
    return total(terms.rescaled_js, p, q, temperature, beta, over=over)


def js_of(ps: jax.Array, weights: jax.Array, temperature: Temperature = None, *, over: Axes = None) -> jax.Array:
    """Logits `[n, ..., k]` and weights `[n, ..., 1]` of n laws, of the rank of the logits."""
    p, first, c = distributions(ps, jnp.broadcast_to(ps[:1], ps.shape), temperature, over)
    # Differences from the first law keep what the probabilities themselves have lost.
    from_first = functions.difference(p, first, c)
    mean = jnp.sum(weights * p, 0, keepdims=True)
    delta = from_first - jnp.sum(weights * from_first, 0, keepdims=True)
    terms_of_laws = functions.times(weights, bregman(p, mean, jax.lax.stop_gradient(delta)))
    value = functions.sum_of_row(jnp.sum(terms_of_laws, 0), over)[..., 0]
    return capped(value, functions.entropy_of_weights(jnp.moveaxis(weights, 0, -1))[0, ..., 0])


def of_two_events(x: jax.Array) -> jax.Array:
    """Logits `[..., 2]` of the complement and the event of a Bernoulli logit; the maximum is 0, also at infinity."""
    return jnp.stack([jnp.where(x > 0, -x, 0), jnp.where(x > 0, 0, x)], -1)


def amari(p: jax.Array, q: jax.Array, temperature: Temperature, alpha: jax.Array, *, over: Axes = None) -> jax.Array:
    return total(terms.amari, p, q, temperature, alpha, over=over)


def _affinity_inputs(p, q, temperature, over=None):
    scaled = p.astype(working(p))
    scaled = scaled if temperature is None else scaled / temperature

    def a(s):
        return amari(p, q, temperature, s, over=over)[..., None]

    law_p, law_q, c = distributions(p, q, temperature, over)
    return affinity.AffinityInputs(a, functions.log_softmax(scaled, over), c, law_p, law_q)


def renyi(p: jax.Array, q: jax.Array, temperature: Temperature, alpha: jax.Array, *, over: Axes = None) -> jax.Array:
    return affinity.renyi(_affinity_inputs(p, q, temperature, over), alpha, over)[..., 0]


def bhattacharyya(p: jax.Array, q: jax.Array, temperature: Temperature) -> jax.Array:
    inputs = _affinity_inputs(p, q, temperature)
    return affinity.negative_log(inputs, jnp.zeros_like(inputs.c[..., :1]) + 0.5)[..., 0]


def chernoff(p: jax.Array, q: jax.Array, temperature: Temperature) -> jax.Array:
    return affinity.chernoff(_affinity_inputs(p, q, temperature))[..., 0]


def squared_hellinger(p: jax.Array, q: jax.Array, temperature: Temperature, *, over: Axes = None) -> jax.Array:
    return capped(total(terms.squared_hellinger, p, q, temperature, over=over), 1)


def total_variation(p: jax.Array, q: jax.Array, temperature: Temperature, *, over: Axes = None) -> jax.Array:
    return capped(total(terms.total_variation, p, q, temperature, over=over), 1)


def chi2(p: jax.Array, q: jax.Array, temperature: Temperature) -> jax.Array:
    return total(terms.chi2, p, q, temperature)


def triangular(p: jax.Array, q: jax.Array, temperature: Temperature) -> jax.Array:
    return capped(total(terms.triangular, p, q, temperature), 2)


def cross_entropy(p: jax.Array, q: jax.Array, temperature: Temperature, *, over: Axes = None) -> jax.Array:
    return total(terms.cross_entropy, p, q, temperature, over=over)


def entropy(p: jax.Array, temperature: Temperature) -> jax.Array:
    return total(terms.cross_entropy, p, None, temperature)


def js_distance(p: jax.Array, q: jax.Array, temperature: Temperature) -> jax.Array:
    return root(js(p, q, temperature))


def hellinger_distance(p: jax.Array, q: jax.Array, temperature: Temperature) -> jax.Array:
    return root(squared_hellinger(p, q, temperature))


def fisher_rao_distance(p: jax.Array, q: jax.Array, temperature: Temperature) -> jax.Array:
    """The geodesic length 2 arccos sum sqrt(p q), from 1 - sum sqrt(p q)."""
    return 4 * jnp.arcsin(root(0.5 * squared_hellinger(p, q, temperature)))

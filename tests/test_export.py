"""Programs that are exported for a batch of any size give what the functions give."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxdiv
from jaxdiv import bernoulli, categorical, fused, gaussian, losses, metrics, simplex, topk

K = 7


def _normal(i, *shape):
    return jnp.asarray(np.random.default_rng(i).normal(size=shape), jnp.float32)


def _logits(n):
    return _normal(0, n, K), _normal(1, n, K)


def _probabilities(n):
    return tuple(jax.nn.softmax(x) for x in _logits(n))


def _numbers(n):
    return _normal(0, n), _normal(1, n)


def _independent(n):
    return tuple(gaussian.NormalLogScale(_normal(i, n, K), _normal(i + 2, n, K)) for i in (0, 1))


def _full(n):
    return tuple(
        gaussian.MultivariateNormal(_normal(i, n, 3), jnp.eye(3)[None] + 0.1 * _normal(i, n, 3, 3)) for i in (0, 1)
    )


def _every(verbs, prepare=jax.vmap):
    return lambda p, q: {name: prepare(verb)(p, q) for name, verb in verbs.items()}


OF_LOGITS = {
    **{
        name: getattr(losses, name)
        for name in (
            "forward_kl",
            "reverse_kl",
            "jeffreys",
            "js",
            "total_variation",
            "squared_hellinger",
            "bernoulli_kl",
        )
    },
    "generalized_js": functools.partial(losses.generalized_js, beta=0.3),
    "rescaled_js": functools.partial(losses.rescaled_js, beta=0.3),
    "renyi": functools.partial(losses.renyi, alpha=0.5),
    "amari": functools.partial(losses.amari, alpha=0.5),
    "distillation": functools.partial(losses.distillation, temperature=2.0),
    "cross_entropy": losses.cross_entropy,
    "confidence_penalty": lambda logits, _: losses.confidence_penalty(logits),
    "cross_entropy_with_labels": lambda logits, _: losses.cross_entropy_with_labels(
        logits, jnp.zeros(logits.shape[:-1], jnp.int32)
    ),
    "js_of": lambda *views: losses.js_of(jnp.stack(views)),
    "along axis 0": lambda logits, targets: losses.js(logits.T, targets.T, axis=0),
    "standard_normal_kl": losses.standard_normal_kl,
    "gaussian_kl": lambda p, q: losses.gaussian_kl(p, q, q, p),
}
OF_PROBABILITIES = {
    "with_probs": losses.with_probs(losses.js),
    "forward_kl": losses.forward_kl_with_probs,
    "cross_entropy": losses.cross_entropy_with_probs,
}
VERBS = "kl", "js", "total_variation", "chi2", "cross_entropy", "bhattacharyya", "chernoff"
TAILS = "renormalized", "bucket", "uniform", "worst"
OF_GAUSSIANS = "kl", "js"


def _of_batches(ps, qs):
    few = jax.nn.softmax(_normal(2, 4, K))
    return {
        "pairwise": jaxdiv.pairwise(simplex.js, ps, qs),
        "of one's own": jaxdiv.pairwise(lambda p, q: jnp.sum(p * q), ps, few),
        "pairwise_mean": jaxdiv.pairwise_mean(simplex.kl, ps, qs),
        "nearest": jaxdiv.nearest(simplex.js, ps, few, k=2).values,
    }


def _of_listed_classes(logits, targets):
    listed = topk.from_logits(targets, 3)
    return {tail: topk.lift(losses.forward_kl, tail=tail)(logits, listed) for tail in TAILS}


def _of_tokens(hidden, targets):
    head = _normal(2, K, 5)
    ones = jax.lax.stop_gradient(hidden[:, 0] * 0 + 1)
    return {
        "each": fused.linear_divergence(hidden, head, targets[:, :5], losses.forward_kl),
        "mean": fused.mean_linear_divergence(hidden, head, targets[:, :5], losses.forward_kl),
        "sums": metrics.compute(metrics.update(metrics.empty(groups=3), ones, groups=jnp.int32(ones))).weight,
    }


def _named(module, names):
    return {name: getattr(module, name) for name in names}


# The others are of a term or a kernel of one of these.
SHORT_LOSSES = ["forward_kl", "js", "renyi", "cross_entropy_with_labels", "js_of", "along axis 0", "gaussian_kl"]
CASES = {
    "losses of logits": (_every({name: OF_LOGITS[name] for name in SHORT_LOSSES}, lambda loss: loss), _logits),
    "all losses of logits": (_every(OF_LOGITS, lambda loss: loss), _logits),
    "losses of probabilities": (_every(OF_PROBABILITIES, lambda loss: loss), _probabilities),
    "categorical": (_every(_named(categorical, VERBS)), _logits),
    "simplex": (_every(_named(simplex, VERBS)), _probabilities),
    "bernoulli": (_every(_named(bernoulli, VERBS)), _numbers),
    "batches": (_of_batches, _probabilities),
    "tokens": (_of_tokens, _logits),
    "listed classes": (_of_listed_classes, _logits),
    "independent": (_every(_named(gaussian, OF_GAUSSIANS)), _independent),
    "full": (_every(_named(gaussian, OF_GAUSSIANS)), _full),
}


SHORT = "losses of logits", "independent"


@pytest.mark.parametrize("name", [x if x in SHORT else pytest.param(x, marks=pytest.mark.gate) for x in CASES])
def test_a_program_for_any_batch_gives_what_the_functions_give(name):
    every, draw = CASES[name]

    @jax.jit
    def values_and_slopes(p, q):
        values, pullback = jax.vjp(every, p, q)
        return values, pullback(jax.tree.map(jnp.ones_like, values))

    (n,) = export.symbolic_shape("n")
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), draw(3))
    program = export.export(values_and_slopes)(*shapes)
    for x, y in zip(*map(jax.tree.leaves, (program.call(*draw(5)), values_and_slopes(*draw(5)))), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-5)

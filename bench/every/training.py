"""The rows of what trains a model: losses, objectives, fused heads, the likeliest classes, transformations."""

import math

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.nn import log_softmax, softmax

from bench.cases import optax_kl, rel_entr_js
from bench.every import plain
from bench.every.plain import OF_LOGS, of_logits, sum_last
from bench.every.row import Row, first, labels, logits, normal, with_numbers
from jaxdiv import fused, losses, objectives, topk, transforms

BOTH = (0, 1)
SIZES = (4096, 10), (64, 32000)
_integer_labels = optax.losses.softmax_cross_entropy_with_integer_labels
_soft_labels = optax.losses.softmax_cross_entropy


def _softened(x, t):
    return 4 * optax_kl(x / 2, t / 2)


# ---------------------------------------------------------------- losses


def _to_targets(verb):
    """Of logits and target logits, which are the first law."""
    return lambda x, t: of_logits(OF_LOGS[verb])(t, x)


def _to_probs(rows, k):
    x, t = logits(rows, k)
    return x, softmax(t)


def _vae(rows, d):
    return tuple(normal(rows, d, seed=i, scale=scale) for i, scale in enumerate((1.0, 0.5, 0.5, 0.3)))


def _losses():
    verbs = (
        "jeffreys",
        "js",
        "generalized_js",
        "rescaled_js",
        "total_variation",
        "squared_hellinger",
        "renyi",
        "amari",
    )
    formulas = {verb: _to_targets(verb) for verb in verbs} | {
        "forward_kl": optax_kl,
        "reverse_kl": of_logits(OF_LOGS["kl"]),
        "cross_entropy": lambda x, t: _soft_labels(x, softmax(t)),
        "distillation": _softened,
    }
    for verb, formula in formulas.items():
        ours, of = with_numbers(losses, verb)
        yield Row(f"losses.{verb}", of, ours, formula, logits, SIZES, (0,))
    of_probs = {
        "forward_kl_with_probs": lambda x, t: optax.losses.kl_divergence(log_softmax(x), t),
        "cross_entropy_with_probs": _soft_labels,
    }
    for name, formula in of_probs.items():
        yield Row(f"losses.{name}", "", getattr(losses, name), formula, _to_probs, SIZES, (0,))
    ours = losses.with_probs(losses.js)
    yield Row("losses.with_probs", "js", ours, lambda x, t: rel_entr_js(softmax(x), t), _to_probs, SIZES, (0,))
    yield Row(
        "losses.cross_entropy_with_labels",
        "",
        losses.cross_entropy_with_labels,
        _integer_labels,
        lambda *size: (logits(*size)[0], labels(*size)),
        SIZES,
        (0,),
    )
    yield Row(
        "losses.js_of",
        "",
        losses.js_of,
        lambda x: plain.js_of_several(jnp.moveaxis(softmax(x), 0, -2)),
        lambda n, rows, k: (normal(n, rows, k, scale=2.0),),
        ((4, 512, 128), (8, 16, 32000)),
        (0,),
    )
    yield Row(
        "losses.bernoulli_kl",
        "",
        losses.bernoulli_kl,
        lambda x, t: plain.of_bernoulli(OF_LOGS["kl"])(t, x),
        logits,
        ((256, 100), (4096, 512)),
        (0,),
    )
    yield Row(
        "losses.confidence_penalty",
        "",
        losses.confidence_penalty,
        lambda x: math.log(x.shape[-1]) - plain.entropy_of_logits(x),
        first(logits),
        SIZES,
        (0,),
    )
    yield from _losses_of_latents()
    yield Row(
        "losses.mean",
        "where",
        lambda x, where: losses.mean(x, where=where),
        lambda x, where: jnp.sum(jnp.where(where, x, 0)) / jnp.sum(where),
        lambda n: (normal(n), normal(n, seed=1) < 0.8),
        ((4096,), (1000000,)),
        (0,),
    )


def _losses_of_latents():
    sizes, component = ((256, 32), (16384, 64)), plain.per_component_kl
    for name, fields in (("standard_normal_kl", 2), ("gaussian_kl", 4)):

        def make(*size, fields=fields):
            return _vae(*size)[:fields]

        slopes = tuple(range(fields))
        formula = lambda *x: sum_last(component(*x))  # noqa: E731
        yield Row(f"losses.{name}", "", getattr(losses, name), formula, make, sizes, slopes)
        name = f"{name}_per_component"
        yield Row(f"losses.{name}", "", getattr(losses, name), component, make, sizes, slopes)


# ---------------------------------------------------------------- objectives


def _network(rows, d, hidden, k):
    return normal(rows, d), normal(d, hidden, scale=d**-0.5), normal(hidden, k, scale=hidden**-0.5)


def _by_network(search, loss):
    """A search for inputs at which the outputs of a network diverge from those at x."""

    def run(x, weights, head):
        def model(x):
            return jnp.tanh(x @ weights) @ head

        clean = model(x)
        return search(lambda moved: loss(model(moved), clean), x)

    return run


def _our_direction(divergence, x):
    return objectives.adversarial_direction(divergence, x, jax.random.key(0), iterations=2)


def _plain_direction(divergence, x):
    def unit(r):
        return r / jnp.linalg.norm(r, axis=-1, keepdims=True)

    slope, r = jax.grad(lambda y: jnp.sum(divergence(y))), unit(jax.random.normal(jax.random.key(0), x.shape))
    for _ in range(2):
        r = unit(jax.jvp(slope, (x,), (r,))[1])
    return r


def _our_example(divergence, x):
    return objectives.adversarial_example(divergence, x, jax.random.key(0), radius=0.1, step_size=0.02, iterations=5)


def _plain_example(divergence, x):
    slope = jax.grad(lambda y: jnp.sum(divergence(y)))

    def step(_, y):
        return jnp.clip(y + 0.02 * jnp.sign(slope(y)), x - 0.1, x + 0.1)

    start = x + 0.1 * jax.random.uniform(jax.random.key(0), x.shape, x.dtype, -1, 1)
    return lax.fori_loop(0, 5, step, start)


def _objectives():
    kl, schedule = losses.forward_kl, optax.linear_schedule(0.0, 1.0, 1000)
    yield Row("objectives.softened", "", objectives.softened(kl, temperature=2.0), _softened, logits, SIZES, (0,))
    yield Row(
        "objectives.symmetric",
        "",
        objectives.symmetric(kl),
        lambda x, t: 0.5 * (optax_kl(x, t) + optax_kl(t, x)),
        logits,
        SIZES,
        BOTH,
    )
    yield Row(
        "objectives.hard_and_soft",
        "",
        objectives.hard_and_soft(kl, weight=0.7),
        lambda x, t, y: 0.7 * optax_kl(x, t) + 0.3 * _integer_labels(x, y),
        lambda *size: (*logits(*size), labels(*size)),
        SIZES,
        (0,),
    )
    yield Row(
        "objectives.consistency",
        "",
        objectives.consistency(losses.cross_entropy_with_probs, kl, weight=2.0),
        plain.r_drop,
        lambda *size: (*logits(*size), softmax(logits(*size)[1][::-1])),
        SIZES,
        BOTH,
    )
    yield Row(
        "objectives.annealed",
        "",
        objectives.annealed(kl, schedule),
        lambda step, x, t: schedule(step) * optax_kl(x, t),
        lambda *size: (jnp.asarray(500), *logits(*size)),
        SIZES,
        (1,),
    )
    yield Row(
        "objectives.free_bits",
        "",
        lambda x: objectives.free_bits(x, 0.1),
        lambda x: jnp.maximum(x, 0.1),
        lambda *size: (jnp.abs(normal(*size)),),
        ((256, 32), (16384, 64)),
        (0,),
    )
    searches = {"direction": (_our_direction, _plain_direction), "example": (_our_example, _plain_example)}
    for name, pair in searches.items():
        ours, formula = map(_by_network, pair, (kl, optax_kl))
        yield Row(
            f"objectives.adversarial_{name}", "", ours, formula, _network, ((256, 64, 128, 10), (1024, 256, 512, 100))
        )


# ---------------------------------------------------------------- heads and the likeliest classes


def _heads(tokens, size, classes):
    hidden = (normal(tokens, size, seed=i) for i in range(2))
    heads = (normal(size, classes, seed=2 + i, scale=2 * size**-0.5) for i in range(2))
    return tuple(x for pair in zip(hidden, heads, strict=True) for x in pair)


def _fused():
    sizes, kl = ((256, 128, 8000), (512, 256, 32000)), losses.forward_kl
    yield Row(
        "fused.linear_divergence",
        "",
        lambda x, w, y, u: fused.linear_divergence(x, w, fused.Linear(y, u), kl),
        lambda x, w, y, u: optax_kl(x @ w, y @ u),
        _heads,
        sizes,
        BOTH,
    )
    yield Row(
        "fused.mean_linear_divergence",
        "",
        lambda x, w, y, u: fused.mean_linear_divergence(x, w, fused.Linear(y, u), kl),
        lambda x, w, y, u: jnp.mean(optax_kl(x @ w, y @ u)),
        _heads,
        sizes,
        BOTH,
    )


K = 16


def _with_tail(log_probs, indices):
    return topk.TopK(log_probs, indices, jnp.log1p(-jnp.sum(jnp.exp(log_probs), -1)))


def _plain_from_indices(x, indices):
    return _with_tail(jnp.take_along_axis(log_softmax(x), indices, -1), indices)


def _plain_bucket(x, target):
    here = _plain_from_indices(x, target.indices)
    listed = sum_last(jnp.exp(target.log_probs) * (target.log_probs - here.log_probs))
    return listed + jnp.exp(target.log_tail) * (target.log_tail - here.log_tail)


def _plain_uniform(x, target):
    others = target.log_tail - math.log(x.shape[-1] - K)
    rows = jnp.arange(len(x))[:, None]
    t = jnp.broadcast_to(others[:, None], x.shape).at[rows, target.indices].set(target.log_probs)
    return sum_last(jnp.exp(t) * (t - log_softmax(x)))


def _topk():
    sizes = (256, 1000), (256, 32000)

    def indexed(*size):
        x, t = logits(*size)
        return x, lax.top_k(t, K)[1]

    def targets(*size):
        x, t = logits(*size)
        return x, jax.tree.map(jnp.asarray, topk.from_logits(t, K))

    yield Row(
        "topk.from_logits",
        f"k={K}",
        lambda x: topk.from_logits(x, K),
        lambda x: _with_tail(*lax.top_k(log_softmax(x), K)),
        first(logits),
        sizes,
        (0,),
    )
    yield Row("topk.from_indices", f"k={K}", topk.from_indices, _plain_from_indices, indexed, sizes, (0,))
    for tail, formula in (("bucket", _plain_bucket), ("uniform", _plain_uniform)):
        ours = topk.lift(losses.forward_kl, tail=tail)
        yield Row("topk.lift", f"forward_kl, {tail}", ours, formula, targets, sizes, (0,))


# ---------------------------------------------------------------- transformations of gradients


def _policy(rows, d, k):
    return normal(rows, d), normal(d, k, seed=1, scale=d**-0.5), normal(d, k, seed=2, scale=0.3 * d**-0.5)


def _divergence(loss, x, params):
    return lambda new: jnp.mean(loss(x @ new, x @ params))


def _transformed(transform):
    def run(x, params, updates):
        divergence = _divergence(losses.forward_kl, x, params)
        return transform.update(updates, transform.init(params), params, divergence=divergence)[0]

    return run


def _curved(divergence, params, v):
    return jax.jvp(jax.grad(divergence), (params,), (v,))[1]


def _plain_trust_region(x, params, updates):
    divergence = _divergence(optax_kl, x, params)
    curvature = jnp.sum(updates * _curved(divergence, params, updates))
    scale = jnp.minimum(1, 0.999 * jnp.sqrt(0.02 / curvature))
    too_far = lambda scale: divergence(params + scale * updates) > 0.01  # noqa: E731
    return lax.while_loop(too_far, lambda scale: 0.5 * scale, scale) * updates


def _plain_skip(x, params, updates):
    return jnp.where(_divergence(optax_kl, x, params)(params + updates) <= 0.01, updates, 0)


def _plain_natural(x, params, updates):
    divergence = _divergence(optax_kl, x, params)
    product = lambda v: _curved(divergence, params, v) + 1e-3 * v  # noqa: E731
    return jax.scipy.sparse.linalg.cg(product, updates, maxiter=10, tol=0.0)[0]


def _our_product(x, params, v):
    target = x @ params
    divergence = lambda y: jnp.mean(losses.forward_kl(y, target))  # noqa: E731
    return transforms.curvature_vector_product(divergence, lambda params: x @ params, params)(v)


def _plain_product(x, params, v):
    outputs, back = jax.vjp(lambda params: x @ params, params)
    return back(_curved(lambda y: jnp.mean(optax_kl(y, outputs)), outputs, x @ v))[0]


def _our_coefficient(divergence, coefficient):
    controller = transforms.adaptive_coefficient(0.02, transforms.doubling())
    return controller.update(divergence, transforms.CoefficientState(coefficient)).coefficient


def _plain_coefficient(divergence, coefficient):
    factor = jnp.where(divergence > 0.03, 2.0, jnp.where(divergence < 0.02 / 1.5, 0.5, 1.0))
    return jnp.clip(coefficient * factor, 0.01, 1e6)


def _transforms():
    pairs = {
        "kl_trust_region": (_transformed(transforms.kl_trust_region(0.01)), _plain_trust_region),
        "skip_large_divergence": (_transformed(transforms.skip_large_divergence(0.01)), _plain_skip),
        "natural_gradient": (_transformed(transforms.natural_gradient()), _plain_natural),
        "curvature_vector_product": (_our_product, _plain_product),
    }
    for name, (ours, formula) in pairs.items():
        yield Row(f"transforms.{name}", "", ours, formula, _policy, ((256, 16, 8), (1024, 256, 64)))
    yield Row(
        "transforms.adaptive_coefficient",
        "doubling",
        _our_coefficient,
        _plain_coefficient,
        lambda: (jnp.float32(0.05), jnp.float32(1)),
        ((),),
    )


ROWS = [row for of in (_losses, _objectives, _fused, _topk, _transforms) for row in of()]

"""`python -m bench device`: what one accelerator does, correct digits first, in a few minutes.

The self-check runs beside the cases. A case is ours beside the formula as one writes it, as in `python -m bench`, with
the share of the memory's rate that each reaches: the least that has to be read and written, over the wall time, over
the rate of adding two long arrays. Results go to `results.json` and `RESULTS.md` under the name of the device.
`--small` takes shapes that a laptop runs in a minute, and writes nothing.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench.cases import Case, optax_kl, rel_entr_js, rel_entr_kl
from bench.measure import ByKernel
from jaxdiv import fused, gaussian, losses, metrics, pairwise, simplex


def rate(elements):
    """GB/s of adding two arrays of so many float32 numbers, the best of five."""
    x, y = (jax.random.normal(jax.random.key(i), (elements,)) for i in range(2))
    add = jax.jit(jnp.add)
    jax.block_until_ready(add(x, y))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(add(x, y))
        seconds.append(time.perf_counter() - start)
    return 12e-9 * elements / min(seconds)


def _normal(*shapes, dtype="float32"):
    def make():
        rng = np.random.default_rng(0)
        return tuple(np.asarray(jnp.asarray(rng.standard_normal(x, dtype=np.float32), dtype)) for x in shapes)

    return make


def _laws(rows, k):
    return lambda: tuple(np.asarray(jax.nn.softmax(2 * x)) for x in _normal((rows, k), (rows, k))())


def gradient(loss, argnums=0):
    return jax.value_and_grad(lambda *args: jnp.sum(loss(*args).astype(jnp.float32)), argnums)


def plain_js(student, teacher):
    return rel_entr_js(jax.nn.softmax(student.astype(jnp.float32)), jax.nn.softmax(teacher.astype(jnp.float32)))


def plain_standard_kl(loc, log_scale):
    return 0.5 * jnp.sum(loc**2 + jnp.exp(2 * log_scale) - 1 - 2 * log_scale, -1)


def _of_roots(verb):
    def of(loc_p, root_p, loc_q, root_q):
        laws = (gaussian.MultivariateNormal(m, jnp.tril(r) + 4 * jnp.eye(r.shape[-1])) for m, r in
                ((loc_p, root_p), (loc_q, root_q)))  # fmt: skip
        return jax.vmap(verb)(*laws)

    return of


def plain_gaussian_kl(loc_p, root_p, loc_q, root_q):
    root_p, root_q = (jnp.tril(r) + 4 * jnp.eye(r.shape[-1]) for r in (root_p, root_q))
    rest = jnp.concatenate([root_p, (loc_p - loc_q)[..., None]], -1)
    white = jax.scipy.linalg.solve_triangular(root_q, rest, lower=True)
    logs = (jnp.sum(jnp.log(jnp.diagonal(r, axis1=-2, axis2=-1)), -1) for r in (root_q, root_p))
    return 0.5 * (jnp.sum(white**2, (-2, -1)) - loc_p.shape[-1]) + next(logs) - next(logs)


def kept(student, head, teacher, teacher_head):
    return jnp.mean(optax_kl(student @ head, teacher @ teacher_head))


def fused_head(student, head, teacher, teacher_head):
    return fused.mean_linear_divergence(student, head, fused.Linear(teacher, teacher_head), losses.forward_kl)


def update(values):
    return metrics.update(metrics.empty(), values)


def two_sums(values):
    return jnp.sum(values), jnp.sum(values**2)


def cases(small):
    """The cases, of shapes for an accelerator or for a laptop."""
    few = 16 if small else 1
    rows, vocabulary, pairs = 2**16 // few, 32000 // few, 2000 // few
    short, long = ((rows, 10),) * 2, ((1024 // few, vocabulary),) * 2
    tokens = 4096 // few, 1024 // few, vocabulary
    hidden = 2 * ((tokens[0], tokens[1]), (tokens[1], tokens[2]))
    matrices = 2 * ((4096 // few, 8), (4096 // few, 8, 8))
    kl, js = losses.forward_kl, losses.js
    simplex_kl, simplex_js = (jax.vmap(verb) for verb in (simplex.kl, simplex.js))
    plain = {
        "kl of short rows": ({"jaxdiv": kl, "optax": optax_kl}, _normal(*short)),
        "kl": ({"jaxdiv": kl, "optax": optax_kl}, _normal(*long)),
        "kl with gradient": ({"jaxdiv": gradient(kl), "optax": gradient(optax_kl)}, _normal(*long)),
        "kl with gradient, bfloat16": (
            {"jaxdiv": gradient(kl), "optax": gradient(optax_kl)},
            _normal(*long, dtype="bfloat16"),
        ),
        "js with gradient": ({"jaxdiv": gradient(js), "plain": gradient(plain_js)}, _normal(*long)),
        "kl by kernel": ({"jaxdiv": ByKernel(kl), "without": kl}, _normal(*long)),
        "kl with gradient by kernel": (
            {"jaxdiv": ByKernel(gradient(kl)), "without": gradient(kl)},
            _normal(*long),
        ),
        "kl with gradient by kernel, bfloat16": (
            {"jaxdiv": ByKernel(gradient(kl)), "without": gradient(kl)},
            _normal(*long, dtype="bfloat16"),
        ),
        "js with gradients by kernel": (
            {"jaxdiv": ByKernel(gradient(js, (0, 1))), "without": gradient(js, (0, 1))},
            _normal(*long),
        ),
        "kl with gradient by kernel, short rows": (
            {"jaxdiv": ByKernel(gradient(kl)), "without": gradient(kl)},
            _normal(*short),
        ),
        "simplex kl": ({"jaxdiv": simplex_kl, "rel_entr": rel_entr_kl}, _laws(rows, 256)),
        "simplex js with gradients": (
            {"jaxdiv": gradient(simplex_js, (0, 1)), "rel_entr": gradient(rel_entr_js, (0, 1))},
            _laws(rows, 256),
        ),
        "cross-entropy with labels, gradient": (
            {
                "jaxdiv": gradient(lambda x: losses.cross_entropy_with_labels(x, jnp.argmax(x, -1))),
                "optax": gradient(
                    lambda x: optax.losses.softmax_cross_entropy_with_integer_labels(x, jnp.argmax(x, -1))
                ),
            },
            _normal(long[0]),
        ),
        "kl to N(0, 1) with gradients": (
            {
                "jaxdiv": gradient(losses.standard_normal_kl, (0, 1)),
                "plain": gradient(plain_standard_kl, (0, 1)),
            },
            _normal((rows, 64), (rows, 64)),
        ),
        "gaussian kl": ({"jaxdiv": _of_roots(gaussian.kl), "plain": plain_gaussian_kl}, _normal(*matrices)),
        "gaussian js": ({"jaxdiv": _of_roots(gaussian.js), "kl, plain": plain_gaussian_kl}, _normal(*matrices)),
        "pairs by simplex js": (
            {
                "jaxdiv": lambda x, y: pairwise(simplex.js, x, y),
                "vmap": lambda x, y: jax.vmap(lambda p: rel_entr_js(p[None], y))(x),
            },
            _laws(pairs, 256),
        ),
        "fused head with gradients": (
            {"jaxdiv": jax.value_and_grad(fused_head, (0, 1)), "kept logits": jax.value_and_grad(kept, (0, 1))},
            _normal(*hidden, dtype="bfloat16"),
        ),
        "metrics.update": ({"jaxdiv": update, "two sums": two_sums}, _normal((2**24 // few,))),
    }
    return [Case(name, *case, {}) for name, case in plain.items()]

"""The shapes of classifiers, policies and segmentation: short rows, small batches, events along any axis.

The peer is the formula as one writes it, of log-softmaxes or of `rel_entr`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bench.cases import Case, Host, rel_entr_js, rel_entr_kl, to_both
from jaxdiv import bernoulli, losses, simplex

CALLS = 100


def _normal(*shape):
    def make():
        rng = np.random.default_rng(0)
        return tuple(rng.standard_normal(shape, dtype=np.float32) for _ in "xy")

    return make


def _laws(*shape):
    def make():
        return tuple(np.asarray(jax.nn.softmax(2 * x)) for x in _normal(*shape)())

    return make


def _sum(loss):
    return lambda x, y: jnp.sum(loss(x, y))


def _to_student(loss):
    return jax.value_and_grad(_sum(loss))


def _often(function):
    """Many calls, one after the other, of what takes microseconds."""
    compiled = jax.jit(function)

    def run(x, y):
        for _ in range(CALLS):
            out = compiled(x, y)
        jax.block_until_ready(out)

    return Host(run)


# ---------------------------------------------------------------- the formulas as one writes them


def _plain_kl(student, teacher, axis=-1):
    s, t = (jax.nn.log_softmax(x, axis) for x in (student, teacher))
    return jnp.sum(jnp.exp(t) * (t - s), axis)


def _plain_js(student, teacher):
    s, t = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
    m = jnp.logaddexp(s, t) - np.log(2)
    return 0.5 * jnp.sum(jnp.exp(t) * (t - m) + jnp.exp(s) * (s - m), -1)


def _plain_bernoulli_kl(p, q):
    def term(p, q):
        return jax.nn.sigmoid(p) * (jax.nn.log_sigmoid(p) - jax.nn.log_sigmoid(q))

    return term(p, q) + term(-p, -q)


# ---------------------------------------------------------------- the cases


def _versus(name, how, ours, theirs, arrays, **goals):
    return Case(f"everyday-{name}", {"jaxdiv": how(ours), "plain": how(theirs)}, arrays, goals)


def _step(rows, k, goal):
    def often(loss):
        return _often(_to_student(loss))

    return _versus(f"kl-grad-{rows}x{k}", often, losses.forward_kl, _plain_kl, _normal(rows, k), plain=goal)


def _images(*shape):
    ours, plain = (functools.partial(loss, axis=1) for loss in (losses.forward_kl, _plain_kl))
    name = "x".join(map(str, shape))
    return _versus(f"kl-grad-{name}", _to_student, ours, plain, _normal(*shape), plain=1)


_SHORT, _PAIRS = _normal(65536, 10), _laws(65536, 10)
_KL, _JS, _BERNOULLI_KL = (jax.vmap(verb) for verb in (simplex.kl, simplex.js, bernoulli.kl))

CASES = [
    _versus("kl-65536x10", _sum, losses.forward_kl, _plain_kl, _SHORT, plain=0.65),
    _versus("kl-grad-65536x10", _to_student, losses.forward_kl, _plain_kl, _SHORT, plain=0.8),
    _versus("kl-8192x100", _sum, losses.forward_kl, _plain_kl, _normal(8192, 100), plain=1),
    _versus("kl-grad-8192x100", _to_student, losses.forward_kl, _plain_kl, _normal(8192, 100), plain=1),
    _versus("js-65536x10", _sum, losses.js, _plain_js, _SHORT, plain=0.5),
    _versus("js-grad-65536x10", _to_student, losses.js, _plain_js, _SHORT, plain=0.6),
    _versus("simplex-kl-65536x10", _sum, _KL, rel_entr_kl, _PAIRS, plain=0.8),
    _versus("simplex-kl-grad-65536x10", to_both, _KL, rel_entr_kl, _PAIRS, plain=0.9),
    _versus("simplex-js-65536x10", _sum, _JS, rel_entr_js, _PAIRS, plain=0.9),
    _versus("simplex-js-grad-65536x10", to_both, _JS, rel_entr_js, _PAIRS, plain=0.9),
    _step(128, 10, 1.2),
    _step(2048, 6, 1.2),
    _step(256, 100, 1.2),
    _step(32, 1000, 1.1),
    _step(64, 4096, 1.1),
    _images(4, 21, 128, 128),
    _images(2, 150, 64, 64),
    _versus("bernoulli-kl-grad-250000", to_both, _BERNOULLI_KL, _plain_bernoulli_kl, _normal(250000), plain=1),
]

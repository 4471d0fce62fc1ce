"""The cases: what is computed, on what, and by whom else."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiv import categorical, losses, simplex


class Case(NamedTuple):
    """One comparison. Every contender is a function of the same arrays; the first is ours."""

    name: str
    contenders: dict[str, Callable]
    arrays: Callable[[], tuple[np.ndarray, ...]]


def _logits(rows, k, dtype="float32"):
    def make():
        rng = np.random.default_rng(0)
        student = 2 * rng.standard_normal((rows, k), dtype=np.float32)
        teacher = student + rng.standard_normal((rows, k), dtype=np.float32)
        return tuple(np.asarray(jnp.asarray(x, dtype)) for x in (student, teacher))

    return make


def _probabilities(rows, k):
    def make():
        rng = np.random.default_rng(0)
        return tuple(rng.dirichlet(np.ones(k), rows).astype(np.float32) for _ in "pq")

    return make


def _mean(loss):
    return lambda x, y: jnp.mean(loss(x, y).astype(jnp.float32))


def _to_student(loss):
    return jax.value_and_grad(_mean(loss))


def _to_both(loss):
    return jax.value_and_grad(_mean(loss), argnums=(0, 1))


# ---------------------------------------------------------------- peers


def _optax_kl(student, teacher):
    s, t = (jax.nn.log_softmax(x.astype(jnp.float32)) for x in (student, teacher))
    return optax.losses.kl_divergence_with_log_targets(s, t)


def _plain_js(student, teacher):
    s, t = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
    m = jnp.logaddexp(s, t) - jnp.log(jnp.float32(2))
    return 0.5 * jnp.sum(jnp.exp(s) * (s - m), -1) + 0.5 * jnp.sum(jnp.exp(t) * (t - m), -1)


def _plain_reverse_kl(student, teacher):
    return _optax_kl(teacher, student)


def _plain_jeffreys(student, teacher):
    s, t = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
    return jnp.sum((jnp.exp(s) - jnp.exp(t)) * (s - t), -1)


def _plain_total_variation(student, teacher):
    return 0.5 * jnp.sum(jnp.abs(jax.nn.softmax(student) - jax.nn.softmax(teacher)), -1)


def _plain_squared_hellinger(student, teacher):
    s, t = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
    return 1 - jnp.sum(jnp.exp(0.5 * (s + t)), -1)


def _plain_cross_entropy(student, teacher):
    return optax.losses.softmax_cross_entropy(student, jax.nn.softmax(teacher))


def _rel_entr_kl(p, q):
    return jnp.sum(jax.scipy.special.rel_entr(p, q), -1)


def _rel_entr_js(p, q):
    m = 0.5 * (p + q)
    return 0.5 * (_rel_entr_kl(p, m) + _rel_entr_kl(q, m))


def _distrax_kl(student, teacher):
    import distrax

    return distrax.Categorical(teacher).kl_divergence(distrax.Categorical(student))


def _versus(name, how, ours, theirs, arrays):
    return Case(name, {"jaxdiv": how(ours)} | {peer: how(loss) for peer, loss in theirs.items()}, arrays)


def _installed(module, peers):
    import importlib.util

    return peers if importlib.util.find_spec(module) else {}


_KL = {"optax": _optax_kl} | _installed("distrax", {"distrax": _distrax_kl})
_VMAP_KL = jax.vmap(lambda s, t: categorical.kl(t, s))

CASES = [
    _versus("kl-grad-512x32000", _to_student, losses.forward_kl, _KL, _logits(512, 32000)),
    _versus("kl-grad-256x128256", _to_student, losses.forward_kl, _KL, _logits(256, 128256)),
    _versus("kl-grad-4096x1024", _to_student, losses.forward_kl, _KL, _logits(4096, 1024)),
    _versus("kl-grad-512x32000-bf16", _to_student, losses.forward_kl, _KL, _logits(512, 32000, "bfloat16")),
    _versus("kl-grad-both-512x32000", _to_both, losses.forward_kl, _KL, _logits(512, 32000)),
    _versus("kl-vmap-grad-512x32000", _to_student, _VMAP_KL, {"losses": losses.forward_kl}, _logits(512, 32000)),
    _versus("kl-4096x1024", _mean, losses.forward_kl, _KL, _logits(4096, 1024)),
    _versus("kl-512x32000", _mean, losses.forward_kl, _KL, _logits(512, 32000)),
    _versus("kl-65536x10", _mean, losses.forward_kl, _KL, _logits(65536, 10)),
    _versus("kl-grad-65536x10", _to_student, losses.forward_kl, _KL, _logits(65536, 10)),
    _versus("js-grad-512x32000", _to_student, losses.js, {"plain": _plain_js}, _logits(512, 32000)),
    _versus("reverse-kl-grad", _to_student, losses.reverse_kl, {"plain": _plain_reverse_kl}, _logits(512, 32000)),
    _versus("jeffreys-grad", _to_student, losses.jeffreys, {"plain": _plain_jeffreys}, _logits(512, 32000)),
    _versus("tv-grad", _to_student, losses.total_variation, {"plain": _plain_total_variation}, _logits(512, 32000)),
    _versus(
        "hellinger-grad",
        _to_student,
        losses.squared_hellinger,
        {"plain": _plain_squared_hellinger},
        _logits(512, 32000),
    ),
    _versus("ce-grad", _to_student, losses.cross_entropy, {"optax": _plain_cross_entropy}, _logits(512, 32000)),
    _versus(
        "simplex-kl-grad-65536x256",
        _to_student,
        jax.vmap(simplex.kl),
        {"rel_entr": _rel_entr_kl},
        _probabilities(65536, 256),
    ),
    _versus(
        "simplex-js-grad-65536x256",
        _to_student,
        jax.vmap(simplex.js),
        {"rel_entr": _rel_entr_js},
        _probabilities(65536, 256),
    ),
]

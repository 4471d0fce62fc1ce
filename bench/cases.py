"""The cases: what is computed, on what, and by whom else."""

import functools
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench import limit
from jaxdiv import categorical, losses, simplex


class Host(NamedTuple):
    """A contender outside of compiled JAX: a function of what `convert` makes of the arrays."""

    function: Callable
    convert: Callable = jax.device_put


class Case(NamedTuple):
    """One comparison. Every contender computes the same of the same arrays; the first is ours. A goal is a ratio."""

    name: str
    contenders: dict[str, Callable | Host]
    arrays: Callable[[], tuple[np.ndarray, ...]]
    goals: dict[str, float]


@functools.cache
def _logits(rows, k, dtype="float32"):
    @functools.cache
    def make():
        rng = np.random.default_rng(0)
        student = 2 * rng.standard_normal((rows, k), dtype=np.float32)
        teacher = student + rng.standard_normal((rows, k), dtype=np.float32)
        return tuple(np.asarray(jnp.asarray(x, dtype)) for x in (student, teacher))

    return make


@functools.cache
def _probabilities(rows, k):
    @functools.cache
    def make():
        rng = np.random.default_rng(0)
        return tuple(rng.dirichlet(np.ones(k), rows).astype(np.float32) for _ in "pq")

    return make


def _mean(loss):
    return lambda x, y: jnp.mean(loss(x, y).astype(jnp.float32))


def _to_student(loss):
    return jax.value_and_grad(_mean(loss))


def to_both(loss):
    return jax.value_and_grad(_mean(loss), argnums=(0, 1))


def _entropy(logits, _):
    return jax.vmap(categorical.entropy)(logits)


# ---------------------------------------------------------------- peers


def optax_kl(student, teacher):
    s, t = (jax.nn.log_softmax(x.astype(jnp.float32)) for x in (student, teacher))
    return optax.losses.kl_divergence_with_log_targets(s, t)


def _plain_js(student, teacher, weight=0.5):
    s, t = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
    m = jnp.logaddexp(t + np.log(weight), s + np.log(1 - weight))
    kl_t, kl_s = (jnp.sum(jnp.exp(x) * (x - m), -1) for x in (t, s))
    return weight * kl_t + (1 - weight) * kl_s


def _plain_reverse_kl(student, teacher):
    return optax_kl(teacher, student)


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


def rel_entr_kl(p, q):
    return jnp.sum(jax.scipy.special.rel_entr(p, q), -1)


def rel_entr_js(p, q):
    m = 0.5 * (p + q)
    return 0.5 * (rel_entr_kl(p, m) + rel_entr_kl(q, m))


def _plain_entropy(logits, _):
    s = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(s) * s, -1)


def distrax_kl(student, teacher):
    import distrax

    return distrax.Categorical(teacher).kl_divergence(distrax.Categorical(student))


def rlax_kl(student, teacher):
    import rlax

    return rlax.categorical_kl_divergence(teacher, student)


def _scipy_kl(p, q):
    import scipy.special

    return scipy.special.rel_entr(p, q).sum(-1)


def _scipy_js(p, q):
    import scipy.spatial.distance

    return scipy.spatial.distance.jensenshannon(p, q, axis=-1) ** 2


def _torch(loss, compiled=False):
    """A loss of torch tensors with its gradient in the first."""

    def run(student, teacher):
        import torch

        student.grad = None
        value = (torch.compile(loss) if compiled else loss)(student, teacher).mean()
        value.backward()
        return float(value.detach())

    def convert(x):
        import torch

        return torch.from_numpy(np.array(x)).requires_grad_()

    return Host(run, convert)


def _torch_kl(student, teacher):
    import torch.nn.functional as F

    s, t = F.log_softmax(student, -1), F.log_softmax(teacher.detach(), -1)
    return F.kl_div(s, t, log_target=True, reduction="none").sum(-1)


def _torch_js(student, teacher):
    import torch
    import torch.nn.functional as F

    s, t = F.log_softmax(student, -1), F.log_softmax(teacher.detach(), -1)
    m = torch.logaddexp(s, t) - np.log(2)
    return 0.5 * ((s.exp() * (s - m)).sum(-1) + (t.exp() * (t - m)).sum(-1))


def installed(**peers):
    """The contenders whose library is here; a name is that of the library and perhaps more, after an underscore."""
    return {n: peer for n, peer in peers.items() if importlib.util.find_spec(n.split("_")[0])}


def _limit(name):
    loss = limit.loss(name)
    return {"c": Host(loss, np.asarray)} if loss else {}


# ---------------------------------------------------------------- one call that is not part of a compiled program


def _calls(function, count=1000):
    """That many calls, one after the other."""

    def run(p, q):
        for _ in range(count - 1):
            function(p, q)
        return function(p, q).block_until_ready()

    return Host(run)


# ---------------------------------------------------------------- the cases


def versus(name, how, ours, theirs, arrays, **goals):
    peers = {peer: loss if isinstance(loss, Host) else how(loss) for peer, loss in theirs.items()}
    return Case(name, {"jaxdiv": how(ours)} | peers, arrays, goals)


_PEERS = installed(optax=optax_kl, distrax=distrax_kl, rlax=rlax_kl)
_TORCH = installed(torch=_torch(_torch_kl), torch_compile=_torch(_torch_kl, compiled=True))
_TORCH_JS = installed(torch=_torch(_torch_js), torch_compile=_torch(_torch_js, compiled=True))
_VMAP_KL = jax.vmap(lambda s, t: categorical.kl(t, s))
_KL_GRAD = jax.value_and_grad(lambda s, t: categorical.kl(t, s))


def _forward_mode(x, y):
    return jax.jvp(lambda x: _mean(losses.forward_kl)(x, y), (x,), (y,))


def _hessian_vector_product(x, y):
    return jax.jvp(jax.grad(lambda x: _mean(losses.forward_kl)(x, y)), (x,), (y,))


def _mean_of_vmapped_gradients(x, y):
    value, gradient = jax.vmap(_KL_GRAD)(x, y)
    return jnp.mean(value), gradient / len(x)


_LARGE = _logits(512, 32000)

CASES = [
    versus(
        "kl-grad-512x32000",
        _to_student,
        losses.forward_kl,
        _PEERS | _TORCH | _limit("kl"),
        _LARGE,
        optax=0.5,
        torch=0.3,
        torch_compile=1.05,
        c=4,
    ),
    versus(
        "kl-grad-256x128256",
        _to_student,
        losses.forward_kl,
        _PEERS | _TORCH,
        _logits(256, 128256),
        optax=0.5,
        torch=0.3,
        torch_compile=0.8,
    ),
    versus(
        "kl-grad-512x32000-bf16", _to_student, losses.forward_kl, _PEERS, _logits(512, 32000, "bfloat16"), optax=0.35
    ),
    versus("kl-grad-both-512x32000", to_both, losses.forward_kl, _PEERS, _LARGE, optax=0.65),
    versus("kl-grad-4096x1024", _to_student, losses.forward_kl, _PEERS, _logits(4096, 1024), optax=0.6),
    versus("kl-4096x1024", _mean, losses.forward_kl, _PEERS, _logits(4096, 1024), optax=1),
    versus("kl-512x32000", _mean, losses.forward_kl, _PEERS, _LARGE),
    versus("kl-65536x10", _mean, losses.forward_kl, _PEERS, _logits(65536, 10), optax=1),
    versus("kl-grad-65536x10", _to_student, losses.forward_kl, _PEERS, _logits(65536, 10), optax=1),
    versus("kl-8192x100", _mean, losses.forward_kl, _PEERS, _logits(8192, 100), optax=1),
    versus("kl-grad-8192x100", _to_student, losses.forward_kl, _PEERS, _logits(8192, 100), optax=1),
    versus("kl-vmap-grad-512x32000", _to_student, _VMAP_KL, {"losses": losses.forward_kl}, _LARGE, losses=1.1),
    Case(
        "kl-vmap-of-grad-512x32000",
        {"jaxdiv": _mean_of_vmapped_gradients, "losses": _to_student(losses.forward_kl)},
        _LARGE,
        {"losses": 1.1},
    ),
    Case(
        "kl-orders-512x32000",
        {
            "jaxdiv": _to_student(losses.forward_kl),
            "jvp": _forward_mode,
            "hessian_vector_product": _hessian_vector_product,
        },
        _LARGE,
        {},
    ),
    versus(
        "js-grad-512x32000",
        _to_student,
        losses.js,
        {"plain": _plain_js} | _TORCH_JS | _limit("js"),
        _LARGE,
        plain=0.55,
        torch=0.12,
        torch_compile=0.5,
        c=4,
    ),
    versus("js-grad-4096x1024", _to_student, losses.js, {"plain": _plain_js}, _logits(4096, 1024)),
    versus(
        "generalized-js-grad",
        _to_student,
        functools.partial(losses.generalized_js, beta=0.3),
        {"plain": functools.partial(_plain_js, weight=0.3)},
        _LARGE,
        plain=0.7,
    ),
    versus("reverse-kl-grad", _to_student, losses.reverse_kl, {"plain": _plain_reverse_kl}, _LARGE, plain=0.7),
    versus("jeffreys-grad", _to_student, losses.jeffreys, {"plain": _plain_jeffreys}, _LARGE, plain=0.7),
    versus("tv-grad", _to_student, losses.total_variation, {"plain": _plain_total_variation}, _LARGE, plain=0.7),
    versus(
        "hellinger-grad", _to_student, losses.squared_hellinger, {"plain": _plain_squared_hellinger}, _LARGE, plain=0.7
    ),
    versus("cross-entropy-grad", _to_student, losses.cross_entropy, {"optax": _plain_cross_entropy}, _LARGE, optax=0.7),
    versus("entropy-grad", _to_student, _entropy, {"plain": _plain_entropy}, _LARGE, plain=0.7),
    versus(
        "simplex-kl-grad-65536x256",
        _to_student,
        jax.vmap(simplex.kl),
        {"rel_entr": rel_entr_kl},
        _probabilities(65536, 256),
        rel_entr=0.6,
    ),
    versus(
        "simplex-js-grad-65536x256",
        _to_student,
        jax.vmap(simplex.js),
        {"rel_entr": rel_entr_js},
        _probabilities(65536, 256),
        rel_entr=0.4,
    ),
    versus(
        "simplex-kl-65536x256",
        _mean,
        jax.vmap(simplex.kl),
        installed(scipy=Host(_scipy_kl, np.asarray)),
        _probabilities(65536, 256),
        scipy=0.15,
    ),
    versus(
        "simplex-js-65536x256",
        _mean,
        jax.vmap(simplex.js),
        installed(scipy=Host(_scipy_js, np.asarray)),
        _probabilities(65536, 256),
        scipy=0.15,
    ),
    Case(
        "kl-1000-calls-of-10",
        {"jaxdiv": _calls(categorical.kl), "jitted": _calls(jax.jit(lambda p, q: categorical.kl(p, q)))},
        lambda: tuple(x[0] for x in _logits(2, 10)()),
        {},
    ),
]

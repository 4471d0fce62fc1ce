"""The cases at vocabulary scale: a divergence of two linear heads, value and gradient in the student's."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench.cases import Case, Host, installed, optax_kl
from jaxdiv import fused, losses


def _heads(tokens, size, classes, dtype="float32"):
    def make():
        rng = np.random.default_rng(0)
        scales = {(tokens, size): 1, (size, classes): size**-0.5}
        arrays = (rng.standard_normal(s, dtype=np.float32) * np.float32(c) for _ in "st" for s, c in scales.items())
        return tuple(np.asarray(jnp.asarray(x, dtype)) for x in arrays)

    return make


def _to_student(mean):
    return jax.value_and_grad(mean, argnums=(0, 1))


def _fused(loss, memory):
    def mean(x, w, y, u):
        return fused.mean_linear_divergence(x, w, fused.Linear(y, u), loss, memory=memory)

    return _to_student(mean)


def _materialised(loss):
    def mean(x, w, y, u):
        s, t = (jnp.dot(*pair, preferred_element_type=jnp.float32) for pair in ((x, w), (y, u)))
        return jnp.mean(loss(s, jax.lax.stop_gradient(t)))

    return _to_student(mean)


def _torch_kl(x, w, y, u):
    import torch
    import torch.nn.functional as F

    x.grad = w.grad = None
    s = F.log_softmax((x @ w).float(), -1)
    with torch.no_grad():
        t = F.log_softmax((y @ u).float(), -1)
    value = F.kl_div(s, t, log_target=True, reduction="batchmean")
    value.backward()
    return float(value.detach())


def _tensor(x):
    import torch

    return torch.from_numpy(np.array(x)).requires_grad_()


def _liger_js(x, w, y, u):
    """Liger's chunks of tokens in plain torch, of as many tokens as ours has; heads as `[v, h]`."""
    import torch
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    x.grad = w.grad = None
    loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, compiled=False, chunk_size=64)
    value = loss(x, w, y, u, torch.zeros(len(x), dtype=torch.long))
    value.backward()
    return float(value.detach())


def _liger_tensor(x):
    return _tensor(x if x.shape[0] > x.shape[1] else np.ascontiguousarray(x.T))


def _case(name, loss, memory, arrays, peers=None, **goals):
    contenders = {"jaxdiv": _fused(loss, memory), "unfused": _materialised(loss)}
    return Case(name, contenders | (peers or {}), arrays, goals)


_integer_labels = optax.losses.softmax_cross_entropy_with_integer_labels


def _labelled(tokens, size, classes):
    """Hidden states, a head `[classes, size]` and labels."""

    def make():
        x, w, _, _ = _heads(tokens, size, classes)()
        return x, np.ascontiguousarray(w.T), np.random.default_rng(1).integers(0, classes, tokens, np.int32)

    return make


def _jax_cce(x, w, labels):
    from jax_cce import linear_cross_entropy

    return linear_cross_entropy(x, w, labels)


def _of_labels(name, loss, memory, **goals):
    """A loss of integer labels, or of nothing but the logits, as a user would write it."""
    contenders = {
        "jaxdiv": lambda x, w, y: fused.mean_linear_divergence(x, w, y, loss, class_axis=0, memory=memory),
        "unfused": lambda x, w, y: jnp.mean(loss(x @ w.T, y)),
    }
    if loss is _integer_labels and importlib.util.find_spec("jax_cce"):
        contenders["jax_cce"] = _jax_cce
    return Case(name, {n: _to_student(f) for n, f in contenders.items()}, _labelled(1024, 512, 32000), goals)


_PEERS = installed(optax=_materialised(optax_kl), torch=Host(_torch_kl, _tensor))
_LIGER = {"liger": Host(_liger_js, _liger_tensor)} if importlib.util.find_spec("liger_kernel") else {}
_KL = functools.partial(_case, loss=losses.forward_kl)
_SMALL = _heads(2048, 512, 32000)

CASES = [
    _KL("fused-kl-grad-2048x512x32000", memory=2**24, arrays=_SMALL, peers=_PEERS, unfused=1.0),
    _KL("fused-kl-grad-2048x512x32000-small", memory=2**23, arrays=_SMALL, unfused=1.15),
    _KL("fused-kl-grad-2048x512x32000-bf16", memory=2**25, arrays=_heads(2048, 512, 32000, "bfloat16"), unfused=1.0),
    _KL("fused-kl-grad-1024x512x32000", memory=2**24, arrays=_heads(1024, 512, 32000)),
    _KL("fused-kl-grad-512x512x32000", memory=2**24, arrays=_heads(512, 512, 32000), unfused=1.0),
    _KL("fused-kl-grad-512x512x131072", memory=2**26, arrays=_heads(512, 512, 131072), peers=_PEERS, unfused=1.0),
    _KL("fused-kl-grad-256x256x32000", memory=2**24, arrays=_heads(256, 256, 32000)),
    _KL("fused-kl-grad-256x256x131072", memory=2**26, arrays=_heads(256, 256, 131072)),
    _KL("fused-kl-grad-256x256x262144", memory=2**26, arrays=_heads(256, 256, 262144), peers=_PEERS, unfused=1.0),
    _of_labels("fused-labels-grad-1024x512x32000", _integer_labels, 2**26, unfused=1.1, jax_cce=1.0),
    _of_labels("fused-labels-grad-1024x512x32000-small", _integer_labels, 10 * 2**20, unfused=1.3, jax_cce=1.0),
    _of_labels("fused-square-grad-1024x512x32000", lambda x, _: jnp.sum(x * x, -1), 2**26, unfused=1.1),
    _case("fused-js-grad-2048x512x32000", losses.js, 2**24, _SMALL, peers=_LIGER, unfused=1.0),
]

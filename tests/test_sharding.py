"""Sharded inputs: the same numbers, no array of [rows, k] gathered, and per-row scalars alone reduced."""

import functools
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from marks import with_all

from jaxdiv import categorical, fused, losses, objectives, simplex, topk

ROWS, K = 56, 2304  # seven rows to a device, of which a block takes three
SHARDINGS = {"batch": P("x", None), "vocabulary": P(None, "x")}
LOSSES = ["forward_kl", "js", "total_variation", "cross_entropy"]


def _mesh(kind):
    return jax.make_mesh((8,), ("x",), axis_types=(kind,))


def _logits():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, K)).astype(np.float32)
    return x, (x + 0.1 * rng.normal(size=(ROWS, K))).astype(np.float32)


def _step(name):
    return jax.jit(jax.value_and_grad(lambda x, y: getattr(losses, name)(x, y).sum(), argnums=(0, 1)))


def collectives(text):
    """(kind, number of elements) of each collective of a compiled program."""
    found = re.findall(
        r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text
    )
    for shapes, kind in found:
        sizes = [math.prod(map(int, dims.split(","))) if dims else 1 for dims in re.findall(r"\[([\d,]*)\]", shapes)]
        yield kind, max(sizes)


@functools.cache
def _compiled(name, sharding, kind=AxisType.Auto):
    """The step of a loss, compiled for sharded logits, and these."""
    arrays = [jax.device_put(x, NamedSharding(_mesh(kind), SHARDINGS[sharding])) for x in _logits()]
    return _step(name).lower(*arrays).compile(), arrays


@pytest.mark.parametrize("kind", [AxisType.Auto, *with_all(AxisType.Explicit)], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_sharded_loss_needs_no_collective_but_the_final_sum(name, kind):
    compiled, arrays = _compiled(name, "batch", kind)
    assert set(collectives(compiled.as_text())) <= {("all-reduce", 1)}
    _, (gradient, _) = compiled(*arrays)
    assert gradient.sharding.is_equivalent_to(arrays[0].sharding, 2)


@pytest.mark.parametrize("name", LOSSES)
def test_a_vocabulary_sharded_loss_reduces_only_row_values(name):
    compiled, _ = _compiled(name, "vocabulary")
    found = list(collectives(compiled.as_text()))
    assert found
    assert {kind for kind, _ in found} == {"all-reduce"}
    assert max(size for _, size in found) <= ROWS


@pytest.mark.parametrize("name", LOSSES)
def test_a_sharded_loss_is_the_loss(name):
    plain = _step(name)(*_logits())
    for sharding in SHARDINGS:
        compiled, arrays = _compiled(name, sharding)
        for x, y in zip(jax.tree.leaves(plain), jax.tree.leaves(compiled(*arrays)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-8)


OF_PAIRS = [categorical.kl, simplex.js, *with_all(categorical.js, categorical.chernoff, simplex.kl)]


@pytest.mark.parametrize("verb", OF_PAIRS)
def test_a_verb_runs_inside_shard_map(verb):
    p, q = (jax.nn.softmax(x[:, :16]) for x in _logits())
    batched = jax.vmap(jax.value_and_grad(verb))
    sharded = functools.partial(jax.shard_map, mesh=_mesh(AxisType.Auto), in_specs=P("x"), out_specs=P("x"))(batched)
    for x, y in zip(jax.tree.leaves(batched(p, q)), jax.tree.leaves(jax.jit(sharded)(p, q)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-7)


def test_every_law_may_be_on_its_own_device():
    p = jax.device_put(_logits()[0][:8], NamedSharding(_mesh(AxisType.Auto), P("x")))
    assert jnp.all(jax.jit(jax.vmap(categorical.kl))(p, p) == 0)


@pytest.mark.gate
def test_two_processes_evaluate_over_all_devices_and_merge_their_metrics():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = str(Path(__file__).with_name("processes.py"))
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen([sys.executable, script, port, str(i)], env=environment, stderr=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()  # one that failed leaves the other waiting
    for process, error in zip(processes, errors, strict=True):
        assert process.returncode == 0, error


# ---------------------------------------------------------------- a head divided by classes

TOKENS, SIZE, CLASSES = 48, 16, 256
SPECS = (P(), P(None, "x"), P(), P(None, "x"))


def _heads():
    rng = np.random.default_rng(1)
    shapes = (TOKENS, SIZE), (SIZE, CLASSES), (TOKENS, SIZE), (SIZE, CLASSES)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def _fused(name, axis_name=None):
    def loss(x, w, y, u):
        memory = 16 * 2 * 4 * w.shape[1]  # blocks of sixteen tokens, three of them
        teacher = fused.Linear(y, u)
        return fused.mean_linear_divergence(x, w, teacher, getattr(losses, name), memory=memory, axis_name=axis_name)

    return loss


def _sizes(text):
    """(kind, number of elements of all results) of each collective."""
    found = re.findall(
        r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text
    )
    for shapes, kind in found:
        dims = re.findall(r"\w\d+\[([\d,]*)\]", shapes)
        yield kind, sum(math.prod(map(int, d.split(","))) if d else 1 for d in dims)


def _sharded(name, how):
    """The loss, its arguments on eight devices."""
    mesh = _mesh(AxisType.Explicit if how == "explicit" else AxisType.Auto)
    arrays = [jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(_heads(), SPECS, strict=True)]
    if how == "shard_map":
        return jax.shard_map(_fused(name, "x"), mesh=mesh, in_specs=SPECS, out_specs=P()), arrays
    return _fused(name), arrays


HOW = pytest.mark.parametrize("how", ["auto", *with_all("explicit"), "shard_map"])


@HOW
def test_a_head_divided_by_classes_reduces_only_what_belongs_to_tokens(how):
    loss, arrays = _sharded("forward_kl", how)
    forward = list(_sizes(jax.jit(loss).lower(*arrays).compile().as_text()))
    assert {kind for kind, _ in forward} == {"all-reduce"}
    blocks = 3  # of a loop whose body the program has once
    assert blocks * sum(4 * size for _, size in forward) <= 24 * TOKENS
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    compiled = step.lower(*arrays).compile()
    found = list(_sizes(compiled.as_text()))
    assert {kind for kind, _ in found} == {"all-reduce"}
    assert max(size for _, size in found) <= TOKENS * SIZE, "the gradient in the hidden states, and no more"
    plain = jax.jit(jax.value_and_grad(_fused("forward_kl"), argnums=(0, 1)))(*_heads())
    for x, y in zip(jax.tree.leaves(plain), jax.tree.leaves(compiled(*arrays)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6 * np.max(np.abs(x)))


def _of_labels(x, y, **options):
    labels = jnp.arange(ROWS) * 41 - 1
    return losses.cross_entropy_with_labels(x, labels, label_smoothing=0.1, **options)


DIVIDED = {
    "js": losses.js,
    "cross_entropy": losses.cross_entropy,
    "renyi": functools.partial(losses.renyi, alpha=0.6),
    "renyi far": lambda x, y, **options: losses.renyi(4 * x, -4 * y, alpha=2.0, **options),
    "renyi inf": functools.partial(losses.renyi, alpha=jnp.inf),
    "distillation": lambda x, y, temperature, **options: losses.distillation(x, y, temperature=temperature, **options),
    "confidence_penalty": lambda x, y, **options: losses.confidence_penalty(x, **options),
    "labels": _of_labels,
    "js_of": lambda x, y, **options: losses.js_of(jnp.stack([x, y, x - y]), **options),
}


# Whose reductions are those of another: KL's, or Renyi's at another order.
ALIKE = ("cross_entropy", "renyi far", "renyi inf", "distillation", "confidence_penalty")


@pytest.mark.parametrize("name", [x for x in DIVIDED if x not in ALIKE] + with_all(*ALIKE))
def test_a_divided_loss_is_the_loss(name):
    mesh, (x, y) = _mesh(AxisType.Auto), _logits()
    x[:, :3] = -np.inf
    x[:, 5] += 20  # one class dominates
    if name == "js_of":  # of a difference of logits
        x[:, :3] = 0
    mask = np.arange(K) > 300  # and one shard has no class

    def divided(x, y, mask):
        return DIVIDED[name](x, y, where=mask, temperature=2.0, axis_name="x")

    def loss(x, y):
        return DIVIDED[name](x, y, where=mask, temperature=2.0)

    split = P(None, "x")
    sharded = jax.shard_map(divided, mesh=mesh, in_specs=(split, split, P("x")), out_specs=P())
    step = jax.jit(jax.value_and_grad(lambda x, y: finite_sum(sharded(x, y, mask)), argnums=(0, 1)))
    arrays = [jax.device_put(z, NamedSharding(mesh, split)) for z in (x, y)]
    compiled = step.lower(*arrays).compile()
    found = list(collectives(compiled.as_text()))
    assert {kind for kind, _ in found} == {"all-reduce"}
    assert max(size for _, size in found) <= 3 * ROWS, "numbers of rows, of three views at most"
    plain = jax.jit(jax.value_and_grad(lambda x, y: finite_sum(loss(x, y)), argnums=(0, 1)))(x, y)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(compiled(*arrays)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def finite_sum(values):
    """Of labels, whose classes the mask may exclude."""
    return jnp.sum(jnp.where(jnp.isinf(values), 0, values))


def _partly_known(hidden, head, top, labels, axis_name=None):
    """A loss of labels and of a teacher of whom some classes are known, under every tail."""

    def soft(logits, top, **options):
        return sum(topk.lift(losses.js, tail=tail)(logits, top, **options) for tail in topk.TAILS)

    both = objectives.hard_and_soft(soft, weight=0.5)
    memory = 16 * 2 * 4 * head.shape[1]
    return fused.mean_linear_divergence(hidden, head, top, both, labels, memory=memory, axis_name=axis_name)


@pytest.mark.parametrize("how", ["shard_map", *with_all("auto", "explicit")])
def test_known_classes_and_labels_count_those_of_all_devices(how):
    hidden, head, *_ = _heads()
    top = topk.from_logits(_logits()[1][:TOKENS, :CLASSES], 5)
    top = top._replace(indices=top.indices.at[:, 4].set(-1))
    labels = jnp.arange(TOKENS) * 5
    specs = P(), P(None, "x"), P(), P()
    mesh = _mesh(AxisType.Explicit if how == "explicit" else AxisType.Auto)
    arguments = (hidden, head, top, labels)
    arrays = [jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(arguments, specs, strict=True)]
    loss = _partly_known
    if how == "shard_map":
        divided = functools.partial(_partly_known, axis_name="x")
        loss = jax.shard_map(divided, mesh=mesh, in_specs=specs, out_specs=P())
    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arrays).compile()
    found = list(_sizes(compiled.as_text()))
    assert {kind for kind, _ in found} == {"all-reduce"}
    assert max(size for _, size in found) <= TOKENS * SIZE
    plain = jax.jit(jax.value_and_grad(_partly_known, argnums=(0, 1)))(*arguments)
    for x, y in zip(jax.tree.leaves(plain), jax.tree.leaves(compiled(*arrays)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6 * np.max(np.abs(x)))


@HOW
def test_the_likeliest_classes_are_those_of_all_devices(how):
    x, _ = _logits()
    k = 5
    mesh = _mesh(AxisType.Explicit if how == "explicit" else AxisType.Auto)
    select = functools.partial(topk.from_logits, k=k)
    if how == "shard_map":
        of_each = functools.partial(select, axis_name="x")
        select = jax.shard_map(of_each, mesh=mesh, in_specs=P(None, "x"), out_specs=P())
    divided = jax.device_put(x, NamedSharding(mesh, P(None, "x")))
    compiled = jax.jit(select).lower(divided).compile()
    found, (values, indices) = compiled(divided), jax.lax.top_k(x, k)
    assert max(size for _, size in _sizes(compiled.as_text())) <= 8 * ROWS * k, "k of each device"
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.log_probs, values - jax.nn.logsumexp(x, -1, keepdims=True), rtol=1e-5)

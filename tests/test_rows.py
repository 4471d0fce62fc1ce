"""How the row kernels run: temporaries, blocks, traces, and what an accelerator gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import with_all

from jaxdiv import categorical, losses, simplex
from jaxdiv._core import tuning

MIB = 2**20
LOGITS = [jax.ShapeDtypeStruct((512, 32000), jnp.float32)] * 2
LOSSES = ["forward_kl", "reverse_kl", "jeffreys", "js", "total_variation", "squared_hellinger", "cross_entropy"]


def _mean(loss):
    return lambda x, y: jnp.mean(loss(x, y).astype(jnp.float32))


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    # A block takes rows from each of as many parts as there are devices: the figures promised are those of one.
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def _temporaries(function, *arrays):
    return jax.jit(function).lower(*arrays).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("name", [*LOSSES[:1], "js", "cross_entropy", *with_all(*LOSSES[1:3], *LOSSES[4:6])])
def test_a_loss_and_its_gradient_hold_few_temporaries(name):
    loss = _mean(getattr(losses, name))
    assert _temporaries(jax.value_and_grad(loss), *LOGITS) <= 8 * MIB
    assert _temporaries(jax.value_and_grad(loss, argnums=(0, 1)), *LOGITS) <= 8 * MIB


def test_half_precision_is_not_widened_outside_of_the_blocks():
    half = [jax.ShapeDtypeStruct((512, 32000), jnp.bfloat16)] * 2
    assert _temporaries(jax.value_and_grad(_mean(losses.forward_kl)), *half) <= 8 * MIB


@pytest.mark.parametrize("verb", [categorical.kl, categorical.js])
def test_vmap_of_one_pair_reaches_the_row_kernel(verb):
    assert _temporaries(jax.vmap(verb), *LOGITS) <= 8 * MIB
    assert _temporaries(jax.vmap(jax.value_and_grad(verb)), *LOGITS) <= 8 * MIB


@pytest.mark.parametrize("verb", [simplex.kl, simplex.js])
def test_a_batch_of_probabilities_holds_few_temporaries(verb):
    batch = [jax.ShapeDtypeStruct((65536, 256), jnp.float32)] * 2
    assert _temporaries(jax.value_and_grad(_mean(jax.vmap(verb))), *batch) <= 8 * MIB


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", ["forward_kl", "js"])
def test_an_accelerator_gets_whole_arrays_and_no_loop(name, platform):
    step = jax.jit(jax.value_and_grad(_mean(getattr(losses, name))))
    text = step.trace(*LOGITS).lower(lowering_platforms=(platform,)).as_text()
    assert "while" not in text
    assert "custom_call" not in text
    assert "optimization_barrier" in text  # what keeps [rows, k] intermediates from being stored


@pytest.mark.parametrize("rows", [3, 97, 128])
@pytest.mark.parametrize("k", [1, 64])
def test_blocks_agree_with_the_whole(rows, k, monkeypatch):
    rng = np.random.default_rng(rows * k)
    p, q = (jnp.asarray(rng.normal(size=(rows, k)), jnp.float32) for _ in "pq")
    whole = losses.forward_kl(q, p), jax.grad(_mean(losses.js))(q, p)
    monkeypatch.setattr(tuning, "BLOCK", 128)
    jax.clear_caches()
    blocked = losses.forward_kl(q, p), jax.grad(_mean(losses.js))(q, p)
    monkeypatch.undo()
    jax.clear_caches()
    for x, y in zip(whole, blocked, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-8)


def test_nested_and_partial_batches_agree_with_a_loop(monkeypatch):
    rng = np.random.default_rng(0)
    p, q = (jnp.asarray(rng.normal(size=(n, 6)), jnp.float32) for n in (7, 11))
    loop = np.array([[categorical.kl(x, y) for y in q] for x in p])
    monkeypatch.setattr(tuning, "BLOCK", 32)
    jax.clear_caches()
    table = jax.vmap(lambda x: jax.vmap(lambda y: categorical.kl(x, y))(q))(p)
    np.testing.assert_allclose(table, loop, rtol=2e-6)
    np.testing.assert_allclose(jax.vmap(categorical.kl, (None, 0))(p[0], q), loop[0], rtol=2e-6)
    np.testing.assert_allclose(jax.vmap(categorical.kl, (0, None))(p, q[0]), loop[:, 0], rtol=2e-6)
    monkeypatch.undo()
    jax.clear_caches()


def test_an_empty_batch_is_empty():
    assert losses.forward_kl(jnp.zeros((0, 5)), jnp.zeros((0, 5))).shape == (0,)
    assert jax.vmap(categorical.js)(jnp.zeros((0, 5)), jnp.zeros((0, 5))).shape == (0,)


def test_repeated_calls_trace_once():
    traces = []

    @jax.jit
    def step(x, y):
        traces.append(x.shape)
        return losses.js(x, y, weight=0.25, temperature=2.0)

    for seed in range(3):
        x = jax.random.normal(jax.random.key(seed), (4, 8))
        step(x, -x)
    assert len(traces) == 1


def test_all_pairs_have_their_order_whichever_batch_is_mapped_first():
    p, q = np.random.default_rng(0).dirichlet(np.ones(64), (2, 48)).astype(np.float32)  # enough for a loop over events
    p = p[:40]
    first = jax.vmap(jax.vmap(simplex.kl, (None, 0)), (0, None))(p, q)
    second = jax.vmap(jax.vmap(simplex.kl, (0, None)), (None, 0))(p, q)
    np.testing.assert_allclose(second, first.T, 1e-6)
    np.testing.assert_allclose(first[3], jax.vmap(simplex.kl, (None, 0))(p[3], q), 1e-6)

"""How the row kernels run: temporaries, blocks, traces, and what an accelerator gets."""

import functools

import catalogue
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import with_all

from jaxdiv import categorical, losses, simplex
from jaxdiv._core import tuning
from jaxdiv._discrete import probabilities, softmax, terms

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


@pytest.mark.parametrize(("rows", "k"), [(97, 64), (128, 1), *with_all((3, 1), (3, 64), (97, 1), (128, 64))])
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


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        (catalogue.SIMPLEX, np.float32),
        *with_all(
            (catalogue.SIMPLEX, np.float64), (catalogue.CATEGORICAL, np.float32), (catalogue.CATEGORICAL, np.float64)
        ),
    ],
    ids=lambda x: getattr(x, "name", None) or x.__name__,
)
def test_few_events_one_after_the_other_are_all_at_once(family, dtype):
    def every(p, q):
        half = jnp.full_like(p[:1, :1], 0.3)
        total = (lambda *x: softmax.total(x[0], x[1], x[2], None, *x[3:])) if family is catalogue.CATEGORICAL else None
        total = total or probabilities.total
        return {name: total(of, p, q, *[half] * len(of.parameters)).reshape(-1) for name, of in terms.BY_NAME.items()}

    p, q = catalogue.cases(family, dtype)
    with catalogue.x64(dtype):
        apart = jax.jit(every)(p, q)
        with catalogue.patched("SHORT", 0):
            at_once = jax.jit(lambda p, q: every(p, q))(p, q)
    for name, x in apart.items():
        np.testing.assert_allclose(x, at_once[name], 8 * np.finfo(dtype).eps, np.finfo(dtype).tiny / 1e-6, err_msg=name)
        np.testing.assert_array_equal(np.asarray(x) == 0, np.asarray(at_once[name]) == 0, err_msg=name)


@pytest.mark.parametrize("k", [3, 40])
@pytest.mark.parametrize("axis", [1, *with_all(((1, 2),), ((2, 0),))], ids=str)
@pytest.mark.parametrize("name", ["js", *with_all("renyi")])
def test_the_axis_of_the_events_may_be_any(name, axis, k, monkeypatch):
    loss = functools.partial(losses.renyi, alpha=2.0) if name == "renyi" else getattr(losses, name)
    rng = np.random.default_rng(k)
    shape = np.array([5, 4, 6, 7])
    axes = axis if isinstance(axis, tuple) else (axis,)
    shape[axes[0]] = k
    x, y = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in "xy")
    mask, weights = jnp.asarray(rng.random(shape) < 0.9), jnp.asarray(rng.random(np.delete(shape, axes)), jnp.float32)

    def step(at, *arrays):
        x, y, mask = arrays
        value = loss(x, y, axis=at, where=mask, temperature=2.0)
        return jnp.sum(value * weights), value

    def last(z):
        return jnp.moveaxis(z, axes, range(-len(axes), 0)).reshape(*np.delete(shape, axes), -1)

    monkeypatch.setattr(tuning, "BLOCK", 256)
    jax.clear_caches()
    got, value = jax.grad(step, 1, has_aux=True)(axis, x, y, mask)
    expected, expected_value = jax.grad(step, 1, has_aux=True)(-1, *map(last, (x, y, mask)))
    alone = loss(x, y, axis=axis, where=mask, temperature=2.0)
    monkeypatch.undo()
    jax.clear_caches()
    np.testing.assert_allclose(value, expected_value, rtol=2e-6)
    np.testing.assert_allclose(alone, expected_value, rtol=2e-6)
    np.testing.assert_allclose(last(got), expected, rtol=1e-5, atol=1e-7)


def test_events_in_the_middle_are_not_transposed():
    images = [jax.ShapeDtypeStruct((4, 21, 128, 128), jnp.float32)] * 2
    step = jax.value_and_grad(lambda x, y: jnp.sum(losses.forward_kl(x, y, axis=1)))
    assert " transpose(" not in jax.jit(step).lower(*images).compile().as_text()


@pytest.mark.parametrize("loss", [losses.js, jax.vmap(categorical.squared_hellinger)])
def test_a_value_of_few_events_holds_few_temporaries_whatever_follows(loss):
    rows = [jax.ShapeDtypeStruct((65536, 10), jnp.float32)] * 2
    # From jax 0.11 on, XLA:CPU stores the exponentials and maxima of all events, 23 vectors over the rows.
    stored = 0 if jax.__version_info__ < (0, 11) else 23 * 4 * 65536
    more = 2**13 if jax.__version_info__ < (0, 8) else 0
    assert _temporaries(loss, *rows) <= stored
    assert _temporaries(lambda x, y: jnp.mean(loss(x, y)), *rows) <= 2**18 + stored + more


def test_all_pairs_have_their_order_whichever_batch_is_mapped_first():
    p, q = np.random.default_rng(0).dirichlet(np.ones(64), (2, 48)).astype(np.float32)  # enough for a loop over events
    p = p[:40]
    first = jax.vmap(jax.vmap(simplex.kl, (None, 0)), (0, None))(p, q)
    second = jax.vmap(jax.vmap(simplex.kl, (0, None)), (None, 0))(p, q)
    np.testing.assert_allclose(second, first.T, 1e-6)
    np.testing.assert_allclose(first[3], jax.vmap(simplex.kl, (None, 0))(p[3], q), 1e-6)

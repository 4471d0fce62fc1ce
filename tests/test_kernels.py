"""The kernel of a GPU, interpreted here: the same numbers as without it, and only where it is asked for."""

import functools
import os
import subprocess
import sys

import catalogue
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import with_all

from jaxdiv import categorical, losses
from jaxdiv._core import kernels, tuning
from jaxdiv._discrete import softmax, terms
from jaxdiv._selfcheck import command, kernel

ROWS = 64
LABELS = np.arange(ROWS, dtype=np.int32) % 7
renyi = functools.partial(losses.renyi, alpha=0.7)
tempered = functools.partial(losses.js, temperature=1.7)


def labels(x, _):
    return losses.cross_entropy_with_labels(x, LABELS)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    # Many devices could share the rows, so that only a program for each would have a kernel.
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(tuning, "BLOCK", 2**7)
    monkeypatch.setattr(tuning, "HELD", 2**5)


@pytest.fixture
def compared(monkeypatch):
    """The numbers of a call without and with the kernel, which must be there, or must not."""
    real, calls = kernels._by_kernel, []
    monkeypatch.setattr(kernels, "_by_kernel", lambda *given: calls.append(1) or real(*given))

    def both(f, *arguments, used=True):
        jax.clear_caches()
        without = jax.tree.leaves(f(*arguments))
        with kernels.on("cpu"):
            found = jax.tree.leaves(f(*arguments))
        assert bool(calls) == used
        return [tuple(map(np.asarray, pair)) for pair in zip(found, without, strict=True)]

    return both


def _logits(k, dtype=jnp.float32):
    x, y = jax.random.normal(jax.random.key(k), (2, ROWS, k))
    return x.at[0].set(-jnp.inf).at[0, 1].set(0).astype(dtype), y.at[1].set(x[1]).astype(dtype)


def _all(loss):
    return jax.jit(jax.value_and_grad(lambda x, y: (jnp.sum((z := loss(x, y)).astype(jnp.float32)), z)[0], (0, 1)))


def _near(pairs):
    for x, y in pairs:
        largest = np.max(np.abs(np.where(np.isfinite(y), y, 0)), initial=0)
        np.testing.assert_allclose(x, y, 1e-6, 4 * np.finfo(np.float32).eps * largest)


@pytest.mark.parametrize("k", [100, *with_all(32)], ids=["several chunks", "one chunk"])
@pytest.mark.parametrize("loss", [tempered, *with_all(losses.forward_kl, losses.cross_entropy, renyi, labels)])
def test_a_loss_and_its_gradients_are_the_same_but_for_the_order_of_sums(compared, loss, k):
    _near(compared(_all(loss), *_logits(k)))


@pytest.mark.gate
def test_half_precision_is_read_as_it_is(compared):
    for x, y in compared(_all(losses.js), *_logits(100, jnp.bfloat16)):
        np.testing.assert_allclose(x.astype(np.float32), y.astype(np.float32), 0.01, 1e-5)


@pytest.mark.gate
@pytest.mark.parametrize("name", ["kl", "js", "renyi", "amari"])
def test_the_self_check_runs_both_paths_and_says_which_to_use(name, monkeypatch):
    monkeypatch.setattr(tuning, "HELD", 4)  # two chunks
    *found, advice = kernel.report(command.check, f"categorical.{name}", "cpu", ((ROWS, 100),))
    rows = [row for row in found if not isinstance(row, str)]
    assert rows
    assert [row for row in rows if not row["ok"] or "by kernel" not in row["name"]] == []
    assert "JAXDIV_PALLAS" in advice
    assert "breaks" not in advice


@pytest.mark.parametrize("name", ["skewed_js", *with_all(*(name for name in terms.BY_NAME if name != "skewed_js"))])
def test_every_divergence_has_one_kernel_and_no_barrier_on_a_gpu(name, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    divergence, x = terms.BY_NAME[name], jax.ShapeDtypeStruct((300, 5000), jnp.bfloat16)

    def total(x, y):
        third = jnp.full((1, 1), 1 / 3)
        return jnp.sum(softmax.total(divergence, x, y, third, *[third] * len(divergence.parameters)))

    def kernels_of(*platforms):
        with kernels.on(*platforms):
            step = jax.jit(jax.value_and_grad(total, (0, 1))).trace(x, x)
            return step.lower(lowering_platforms=("cuda",)).as_text().count("custom_call @__gpu$xla.gpu.triton")

    assert kernels_of() == 0
    if (0, 9) <= jax.__version_info__ < (0, 11):  # older ones lack operations, later ones look for a device
        assert kernels_of("cuda") == 1


def test_a_program_for_several_platforms_has_no_kernel():
    x = jax.ShapeDtypeStruct((300, 50), jnp.float32)
    with kernels.on("cuda"):
        lowered = jax.jit(losses.js).trace(x, x).lower(lowering_platforms=("cpu", "cuda", "tpu"))
    assert "custom_call @__gpu" not in lowered.as_text()


VARIANTS = {
    "vmap": lambda x, y: jax.vmap(jax.value_and_grad(categorical.kl, (0, 1)))(x, y),
    "one for all": lambda x, y: jax.vmap(jax.value_and_grad(categorical.js, (0, 1)), (0, None))(x, y[3]),
    "a temperature each": lambda x, y: jax.vmap(
        jax.grad(lambda t, x, y: categorical.kl(x, y, temperature=t)))(jnp.linspace(0.5, 2, ROWS), x, y),
    "two axes": lambda x, y: losses.js(x.reshape(4, 16, -1), y.reshape(4, 16, -1)),
    "jvp": lambda x, y: jax.jvp(lambda x: losses.js(x, y), (x,), (y,)),
    "second derivatives": lambda x, y: jax.vmap(jax.hessian(categorical.kl))(x[2:], y[2:]),
    "map": lambda x, y: jax.lax.map(lambda z: losses.js(*z), (x.reshape(4, 16, -1), y.reshape(4, 16, -1))),
    "checkpoint": lambda x, y: _all(jax.checkpoint(losses.js))(x, y),
}  # fmt: skip


@pytest.mark.parametrize("name", ["one for all", *with_all(*(name for name in VARIANTS if name != "one for all"))])
def test_transformations_keep_the_kernel(compared, name):
    _near(compared(VARIANTS[name], *_logits(40)))


def test_a_bad_row_is_nan_and_no_other(compared):
    x, y = _logits(40)
    x, y = x.at[3, 39].set(jnp.nan).at[4, 0].set(jnp.inf), y.at[5].set(-jnp.inf).at[6, 7].set(jnp.nan)
    ((found, _),) = compared(losses.forward_kl, x, y)
    assert list(np.flatnonzero(np.isnan(found))) == [3, 4, 5, 6]


@pytest.mark.gate
def test_maxima_that_lose_nan_as_those_of_a_gpu_leave_bad_rows_nan(monkeypatch):
    real = kernels._by_kernel

    def losing(*given):
        with monkeypatch.context() as inside:
            for name, less in (("maximum", jnp.fmax), ("minimum", jnp.fmin)):
                inside.setattr(jnp, name, less)
            inside.setattr(jnp, "clip", lambda x, low, high: jnp.fmin(jnp.fmax(x, low), high))
            return real(*given)

    monkeypatch.setattr(kernels, "_by_kernel", losing)
    x, y = _logits(40)
    with kernels.on("cpu"):
        for verb in (losses.forward_kl, losses.js, functools.partial(losses.renyi, alpha=jnp.inf)):
            found = verb(x.at[3, 39].set(jnp.nan), y.at[5].set(-jnp.inf).at[6, 7].set(jnp.nan))
            assert list(np.flatnonzero(np.isnan(found))) == [3, 5, 6]


def test_events_along_another_axis_go_without(compared):
    _near(compared(lambda x, y: losses.js(x.T, y.T, axis=0), *_logits(40), used=False))


def test_float64_goes_without(compared):
    with catalogue.x64(np.float64):
        x, y = (jnp.asarray(x, jnp.float64) for x in _logits(40))
        compared(losses.js, x, y, used=False)


@pytest.mark.gate
def test_rows_on_several_devices_go_without_except_in_shard_map(compared, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: len(jax.devices()))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "d")
    spec = jax.sharding.PartitionSpec("d")
    x, y = jax.device_put(_logits(40), jax.sharding.NamedSharding(mesh, spec))
    if jax.device_count() > 1:
        compared(_all(losses.js), x, y, used=False)
    # The interpreter of kernels does not know over which axes its own numbers vary.
    mapped = jax.shard_map(losses.js, mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False)
    _near(compared(_all(mapped), x, y))


@pytest.mark.gate
@pytest.mark.parametrize(("value", "used"), [("1", True), ("0", False)])
def test_the_environment_switches_kernels_on(value, used):
    code = f"from jaxdiv._core import kernels; assert bool(kernels._used) == {used}"
    environment = {**os.environ, "JAXDIV_PALLAS": value}
    if not used or jax.__version_info__ >= (0, 9):
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)

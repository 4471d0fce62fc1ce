"""Training steps as users of other libraries write them; what they need is in the `ecosystem` extra."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from jaxdiv import losses, objectives, transforms

BOUND = 1e-3
LOSS = objectives.hard_and_soft(objectives.softened(losses.forward_kl, temperature=2.0), weight=0.5)


@pytest.fixture(autouse=True)
def _promotion_as_these_libraries_need_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _data():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, 4)), jnp.float32)
    teacher = 2 * x[:, :3]
    return x, teacher, jnp.argmax(teacher, -1)


def _optimizer():
    return optax.chain(optax.adam(0.1), transforms.kl_trust_region(BOUND))


def _check(values, moved):
    assert values[-1] < 0.5 * values[0]
    assert 0 < max(moved) <= BOUND


def test_an_nnx_module_trains_within_a_trust_region():
    x, teacher, labels = _data()
    model = nnx.Sequential(nnx.Linear(4, 16, rngs=nnx.Rngs(0)), jnp.tanh, nnx.Linear(16, 3, rngs=nnx.Rngs(1)))
    graph, params = nnx.split(model)
    optimizer = _optimizer()

    def apply(params):
        return nnx.merge(graph, params)(x)

    _train(apply, params, optimizer, teacher, labels)


def test_an_nnx_optimizer_passes_the_divergence_on():
    x, teacher, labels = _data()
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, _optimizer(), wrt=nnx.Param)
    graph, _ = nnx.split(model)

    @nnx.jit
    def step(model, optimizer):
        old = model(x)

        def divergence(params):
            return losses.mean(losses.forward_kl(nnx.merge(graph, params)(x), old))

        gradients = nnx.grad(lambda model: losses.mean(LOSS(model(x), teacher, labels)))(model)
        optimizer.update(model, gradients, divergence=divergence)
        return losses.mean(losses.forward_kl(model(x), old))

    moved = [float(step(model, optimizer)) for _ in range(5)]
    assert 0 < max(moved) <= BOUND


def test_an_equinox_module_trains_within_a_trust_region():
    x, teacher, labels = _data()
    model = eqx.nn.MLP(4, 3, 16, 1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def apply(params):
        return jax.vmap(eqx.combine(params, static))(x)

    _train(apply, params, _optimizer(), teacher, labels)


def test_plain_pytrees_train_within_a_trust_region_and_rematerialised():
    x, teacher, labels = _data()
    params = {"in": 0.5 * jnp.eye(4, 16), "out": 0.1 * jnp.ones((16, 3))}

    @jax.checkpoint
    def apply(params):
        return jnp.tanh(x @ params["in"]) @ params["out"]

    _train(apply, params, _optimizer(), teacher, labels)


def _train(apply, params, optimizer, teacher, labels):
    @jax.jit
    def step(params, state):
        old = apply(params)

        def divergence(new):
            return losses.mean(losses.forward_kl(apply(new), old))

        value, gradients = jax.value_and_grad(lambda params: losses.mean(LOSS(apply(params), teacher, labels)))(params)
        updates, state = optimizer.update(gradients, state, params, divergence=divergence)
        params = optax.apply_updates(params, updates)
        return params, state, value, divergence(params)

    state, values, moved = optimizer.init(params), [], []
    for _ in range(60):
        params, state, value, by = step(params, state)
        values.append(float(value))
        moved.append(float(by))
    _check(values, moved)


def test_a_trust_region_goes_with_schedules_that_look_at_the_loss():
    params = {"w": jnp.ones(3)}
    optimizer = optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(), transforms.kl_trust_region(BOUND))
    state = optimizer.init(params)

    def divergence(new):
        return losses.forward_kl(new["w"], params["w"])

    gradients = {"w": jnp.arange(3.0)}
    updates, state = optimizer.update(gradients, state, params, value=jnp.float32(1.0), divergence=divergence)
    assert 0 < divergence(optax.apply_updates(params, updates)) <= BOUND
    assert state[1].best_value == 1


def test_a_state_survives_orbax(tmp_path):
    params = {"w": jnp.ones(3)}
    optimizer = optax.chain(optax.adam(0.1), transforms.skip_large_divergence(0.1), transforms.kl_trust_region(BOUND))
    state = optimizer.init(params)
    _, state = optimizer.update(params, state, params, divergence=lambda new: losses.js(new["w"], params["w"]) + 1.0)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert restored[1].dropped == 1

"""Gradient transformations and coefficients that a divergence governs."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from marks import with_all

from jaxdiv import losses, transforms

ROWS, D, K = 32, 4, 3


@pytest.fixture(autouse=True)
def _promotion_as_optax_needs_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


def _problem(dtype=jnp.float32, seed=0):
    """The parameters, inputs and labels of a classifier with one hidden layer."""
    rng = np.random.default_rng(seed)
    params = {"in": rng.normal(size=(D, 6)), "out": rng.normal(size=(6, K)), "bias": np.zeros(K)}
    x = rng.normal(size=(ROWS, D))
    labels = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params), jnp.asarray(x, dtype), jnp.asarray(labels)


def _model(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"] + params["bias"][None]


def _divergence_from(params, x, loss=losses.forward_kl, axis_name=None):
    def divergence(new):
        return losses.mean(loss(_model(new, x), _model(params, x)), axis_name=axis_name)

    return divergence


def _gradient(params, x, labels):
    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(_model(params, x), labels).mean()

    return jax.grad(loss)(params)


def _flat(tree):
    return jax.flatten_util.ravel_pytree(tree)[0]


# ---------------------------------------------------------------- curvature


@pytest.mark.parametrize("loss", [losses.forward_kl, losses.js, losses.squared_hellinger])
def test_the_curvature_product_is_the_hessian_where_the_divergence_is_zero(loss):
    params, x, _ = _problem()
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    hessian = jax.jit(jax.hessian(lambda flat: _divergence_from(params, x, loss)(unravel(flat))))(flat)
    product = transforms.curvature_vector_product(
        lambda logits: losses.mean(loss(logits, _model(params, x))), lambda params: _model(params, x), params
    )
    found = jax.jit(jax.vmap(lambda v: _flat(product(unravel(v)))))(jnp.eye(len(flat)))
    np.testing.assert_allclose(found, hessian, atol=3e-6 * np.max(np.abs(hessian)))
    assert np.linalg.eigvalsh(found)[0] > -3e-7 * np.max(np.abs(hessian))


def test_away_from_equality_the_curvature_product_is_gauss_newton_s():
    params, x, _ = _problem()
    targets = jnp.roll(x, 1, 1)[:, :K]
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def outputs(params):
        return _model(params, x)

    def divergence(logits):
        return losses.mean(losses.forward_kl(logits, targets))

    jacobian = jax.jit(jax.jacobian(lambda flat: outputs(unravel(flat)).ravel()))(flat)
    hessian = jax.jit(jax.hessian(lambda out: divergence(out.reshape(ROWS, K))))(outputs(params).ravel())
    product = transforms.curvature_vector_product(divergence, outputs, params)
    found = jax.jit(jax.vmap(lambda v: _flat(product(unravel(v)))))(jnp.eye(len(flat)))
    expected = jacobian.T @ hessian @ jacobian
    np.testing.assert_allclose(found, expected, atol=3e-6 * np.max(np.abs(expected)))


@pytest.mark.gate
def test_the_natural_gradient_solves_the_damped_system():
    params, x, labels = _problem()
    gradient, divergence = _gradient(params, x, labels), _divergence_from(params, x)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    fisher = jax.jit(jax.hessian(lambda flat: divergence(unravel(flat))))(flat)
    transform = transforms.natural_gradient(damping=0.1, iterations=60)
    solve = jax.jit(lambda gradient: transform.update(gradient, (), params, divergence=divergence)[0])
    found = solve(gradient)
    expected = np.linalg.solve(fisher + 0.1 * np.eye(len(flat)), _flat(gradient))
    np.testing.assert_allclose(_flat(found), expected, atol=1e-4 * np.max(np.abs(expected)))
    assert not np.any(_flat(solve(jax.tree.map(jnp.zeros_like, params))))
    tiny = jax.tree.map(lambda g: 1e-25 * g, gradient)  # whose square is no float
    np.testing.assert_allclose(1e25 * _flat(solve(tiny)), expected, atol=1e-4 * np.max(np.abs(expected)))


def _system():
    """Parameters of several dtypes and shapes, and a divergence whose Hessian is a matrix."""
    params = {"a": jnp.zeros(2, jnp.bfloat16), "b": (jnp.zeros((2, 1)), jnp.zeros((), jnp.float16)), "none": ()}
    rng = np.random.default_rng(1)
    root = rng.normal(size=(5, 5))
    hessian = jnp.asarray(root @ root.T / 5 + 0.1 * np.eye(5), jnp.float32)

    def divergence(new):
        v = jnp.concatenate([x.astype(jnp.float32).ravel() for x in jax.tree.leaves(new)])
        return 0.5 * v @ hessian @ v

    return params, hessian, divergence


@pytest.mark.parametrize("of", ["parameters", "float32"])
def test_half_precision_parameters_take_the_step_of_float32_rounded(of):
    params, hessian, divergence = _system()
    gradient = jax.tree.map(lambda p: jnp.ones_like(p, jnp.float32 if of == "float32" else None), params)
    transform = transforms.natural_gradient(damping=0.0, iterations=8)
    found, _ = transform.update(gradient, (), params, divergence=divergence)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == jax.tree.map(lambda x: (x.shape, x.dtype), gradient)
    expected = np.linalg.solve(hessian, np.ones(5))
    # The product of the Hessian passes through the parameters' dtypes, with 8 and 11 bits.
    np.testing.assert_allclose(_flat(found), expected, rtol=2e-2, atol=2e-2 * np.max(np.abs(expected)))
    assert transform.update({}, (), {}, divergence=lambda _: jnp.zeros(()))[0] == {}


def test_the_divergence_may_be_computed_in_parts():
    params, x, labels = _problem()
    gradient = _gradient(params, x, labels)

    def in_parts(new):
        parts = jax.lax.map(lambda x: _divergence_from(params, x)(new), x.reshape(4, -1, D))
        return losses.mean(parts)

    transform = transforms.natural_gradient(damping=0.1, iterations=3)
    found, whole = (
        jax.jit(lambda g, of=of: transform.update(g, (), params, divergence=of)[0])(gradient)
        for of in (in_parts, _divergence_from(params, x))
    )
    np.testing.assert_allclose(_flat(found), _flat(whole), atol=1e-5 * np.max(np.abs(_flat(whole))))


# ---------------------------------------------------------------- bounds


def _train(optimizer, steps=30, params=None, dtype=jnp.float32):
    """The divergence of every step of a training run, and the last state."""
    first, x, labels = _problem(dtype)

    def step(carry, _):
        params, state = carry
        divergence = _divergence_from(params, x)
        updates, state = optimizer.update(_gradient(params, x, labels), state, params, divergence=divergence)
        new = optax.apply_updates(params, updates)
        return (new, state), divergence(new)

    optimizer = optax.with_extra_args_support(optimizer)
    carry = first, optimizer.init(first)
    (params, state), divergences = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps))(carry)
    loss = optax.softmax_cross_entropy_with_integer_labels(_model(params, x), labels).mean()
    return np.asarray(divergences), state, loss


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("bound", [1e-1, 1e-4])
def test_no_step_exceeds_the_trust_region(bound, dtype):
    free, _, _ = _train(optax.sgd(20.0), dtype=dtype)
    assert free.max() > 2 * bound, "a run that stays within the bound of itself proves nothing"
    divergences, _, loss = _train(optax.chain(optax.sgd(20.0), transforms.kl_trust_region(bound)), dtype=dtype)
    assert divergences.max() <= bound
    assert np.isfinite(loss)
    if dtype == jnp.float32:
        assert np.median(divergences) > 0.2 * bound, "a region that nothing fills is no bound but a brake"


def test_the_quadratic_estimate_alone_holds_the_bound_approximately():
    divergences, state, _ = _train(optax.chain(optax.sgd(20.0), transforms.kl_trust_region(1e-3, backtracks=0)))
    assert 0.5e-3 < np.median(divergences) < 1.5e-3
    np.testing.assert_allclose(state[-1].divergence, divergences[-1], rtol=1e-4)


def test_natural_gradients_within_a_trust_region_are_trpo_and_learn():
    region = transforms.kl_trust_region(1e-2, max_scale=math.inf)
    divergences, _, loss = _train(optax.chain(transforms.natural_gradient(damping=1e-2), optax.scale(-1.0), region))
    assert divergences.max() <= 1e-2
    assert np.median(divergences) > 0.2 * 1e-2, "a step of TRPO is as long as its bound allows"
    _, _, start = _train(optax.set_to_zero())
    assert loss < 0.3 * start


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_an_update_that_no_step_of_passes_becomes_zero(bad):
    params, x, _ = _problem()
    updates = jax.tree.map(lambda p: jnp.full_like(p, bad), params)
    transform = transforms.kl_trust_region(1e-2)
    found, state = transform.update(updates, transform.init(params), params, divergence=_divergence_from(params, x))
    assert not np.any(_flat(found))
    assert state.scale == 0
    assert state.divergence == 0


def test_an_exactly_quadratic_divergence_fills_the_region():
    # As that of normal policies of fixed scale. On the bound itself, rounding would cost every other step a half.
    def divergence(new):
        return 0.5 * jnp.sum(new * new)

    transform, params = transforms.kl_trust_region(1e-2), jnp.zeros(3)
    directions = jax.random.normal(jax.random.key(0), (1000, 3)) + 1
    update = jax.jit(jax.vmap(lambda u: transform.update(u, transform.init(params), params, divergence=divergence)))
    updates, _ = update(directions)
    by = jax.vmap(divergence)(updates)
    assert jnp.max(by) <= 1e-2
    assert jnp.min(by) > 0.99e-2


@pytest.mark.parametrize("beyond", [jnp.nan, -jnp.inf, jnp.inf])
def test_steps_to_where_the_model_breaks_are_shortened(beyond):
    params = jnp.zeros(3)

    def divergence(new):
        return losses.forward_kl(jnp.where(jnp.abs(new) > 0.1, beyond, new), params)

    for bound in (0.1, jnp.inf):
        transform = transforms.kl_trust_region(bound)
        updates, state = transform.update(jnp.array([5.0, 0, 0]), (), params, divergence=divergence)
        assert 0 < updates[0] <= 0.1
        assert 0 < state.divergence <= bound
        assert jnp.isfinite(state.divergence)
    unmeasured = transforms.kl_trust_region(0.1, backtracks=0)
    updates, _ = unmeasured.update(jnp.array([5.0, 0, 0]), (), params, divergence=divergence)
    assert not np.any(updates)


def test_a_bound_of_infinity_drops_what_is_not_finite():
    transform, params = transforms.skip_large_divergence(jnp.inf), jnp.zeros(2)
    state = transform.init(params)
    for value, dropped in ((1e30, 0), (jnp.inf, 1), (jnp.nan, 2)):
        _, state = transform.update(params, state, params, divergence=lambda _, value=value: jnp.float32(value))
        assert state.dropped == dropped


def test_an_update_within_the_bound_is_left_alone():
    transform = transforms.kl_trust_region(0.75)  # the curvature is between the bound and twice that
    updates, state = transform.update(jnp.ones(1), (), jnp.zeros(1), divergence=lambda new: 0.5 * jnp.sum(new * new))
    np.testing.assert_array_equal(updates, 1)
    assert (state.scale, state.divergence) == (1, 0.5)


@pytest.mark.parametrize("shrink", [0.5, 0.1])
def test_a_step_shrinks_by_what_is_asked_for(shrink):
    def divergence(new):  # flat to second order, and 1 at the first step
        return jnp.sum(new**4)

    transform = transforms.kl_trust_region(0.9, shrink=shrink)
    updates, state = transform.update(jnp.ones(1), (), jnp.zeros(1), divergence=divergence)
    np.testing.assert_allclose((updates[0], state.scale), shrink, rtol=1e-6)


@pytest.mark.parametrize(("max_scale", "expected"), [(1.0, 1.0), (3.0, 3.0), (math.inf, 500 * (1 - 2.0**-10))])
def test_an_update_is_stretched_to_the_bound_no_further_than_it_may(max_scale, expected):
    # D = s^2 / 2 for an update of length 1: the longest step within 0.5e-4 is 0.01, 500 times 2e-5.
    transform, params = transforms.kl_trust_region(0.5e-4, max_scale=max_scale), jnp.zeros(2)

    def divergence(new):
        return 0.5 * jnp.sum((new - params) ** 2)

    update = jnp.array([2e-5, 0.0])
    found, state = transform.update(update, transform.init(params), params, divergence=divergence)
    np.testing.assert_allclose(state.scale, expected, rtol=1e-5)
    np.testing.assert_allclose(found, expected * update, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("loss", [losses.forward_kl, *with_all(losses.reverse_kl, losses.js, losses.squared_hellinger)])
def test_an_update_of_any_size_is_fitted_to_the_bound(loss, dtype):
    params = {"a": jnp.zeros(2, dtype), "b": jnp.zeros(2)}
    bound = 0.01

    def logits(new):
        return jnp.stack([new["a"].astype(jnp.float32), new["b"]])

    def divergence(new):
        return losses.mean(loss(logits(new), logits(params))).astype(dtype)

    @jax.jit
    @jax.vmap
    def steps(size):
        updates = {"a": jnp.array([1.0, 0.25], dtype) * size.astype(dtype), "b": jnp.array([-0.5, 0.5]) * size}
        regions = [transforms.kl_trust_region(bound, max_scale=max_scale) for max_scale in (1.0, math.inf)]
        steps = [x.update(updates, x.init(params), params, divergence=divergence) for x in regions]
        return [(*step, divergence(optax.apply_updates(params, step[0]))) for step in steps]

    # Both dtypes hold these sizes, and four times less, as normal numbers.
    low, high = (2.0**-12, 2.0**15) if dtype == jnp.float16 else (2.0**-120, 2.0**120)
    sizes = np.geomspace(low, high, 61).astype(np.float32)
    for (updates, state, value), long in zip(jax.device_get(steps(sizes)), (sizes > 1, sizes > 0), strict=True):
        assert np.all(value <= bound)
        np.testing.assert_array_equal(state.divergence, value.astype(np.float32))
        # A quadratic step, unless rounding to half precision or the third order made it half of one.
        assert np.all(value[long] > (0.2 if dtype != jnp.float32 else 0.9) * bound)
        np.testing.assert_allclose(updates["b"][:, 1], state.scale * sizes / 2, rtol=1e-5)
        np.testing.assert_array_equal(updates["b"][:, 1], -updates["b"][:, 0])


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("max_scale", [1.0, math.inf])
def test_a_flat_divergence_leaves_an_update_alone(max_scale, size):
    transform, params = transforms.kl_trust_region(0.1, max_scale=max_scale), jnp.zeros(2)
    update = jnp.array([3.0, -1.0]) * size
    found, _ = transform.update(update, transform.init(params), params, divergence=lambda new: 0 * jnp.sum(new))
    np.testing.assert_array_equal(found, update)


def test_an_update_of_zero_passes_a_bound_of_zero():
    params, x, _ = _problem()
    transform = transforms.kl_trust_region(0.0)
    zero = jax.tree.map(jnp.zeros_like, params)
    _, state = transform.update(zero, transform.init(params), params, divergence=_divergence_from(params, x))
    assert state.scale == 1


def test_large_and_unmeasurable_updates_are_dropped_and_counted():
    params, x, _ = _problem()
    transform, divergence = transforms.skip_large_divergence(0.1), _divergence_from(params, x)
    state = transform.init(params)
    for size, dropped in ((1e-3, 0), (10.0, 1), (jnp.nan, 2), (1e-3, 2)):
        updates = {**jax.tree.map(jnp.zeros_like, params), "bias": jnp.array([size, 0.0, 0.0])}
        found, state = transform.update(updates, state, params, divergence=divergence)
        assert state.dropped == dropped
        np.testing.assert_array_equal(found["bias"], updates["bias"] if size == 1e-3 else 0)


# ---------------------------------------------------------------- with the rest of optax


def test_hyperparameters_may_be_injected():
    optimizer = optax.inject_hyperparams(transforms.kl_trust_region)(max_divergence=optax.constant_schedule(1e-3))
    divergences, state, _ = _train(optax.chain(optax.sgd(20.0), optimizer))
    assert divergences.max() <= 1e-3
    np.testing.assert_allclose(state[-1].hyperparams["max_divergence"], 1e-3, rtol=1e-6)


def test_all_hyperparameters_may_be_injected():
    params, x, labels = _problem()
    makers = {
        transforms.natural_gradient: {"damping": 0.1, "iterations": 2},
        transforms.kl_trust_region: {"max_divergence": 1e-3, "backtracks": 3, "shrink": 0.3},
        transforms.skip_large_divergence: {"max_divergence": 1e-9},
    }
    gradient, divergence = _gradient(params, x, labels), _divergence_from(params, x)

    @jax.jit
    def both(gradient):
        pairs = [(make(**options), optax.inject_hyperparams(make)(**options)) for make, options in makers.items()]
        return [[t.update(gradient, t.init(params), params, divergence=divergence)[0] for t in pair] for pair in pairs]

    for plain, injected in both(gradient):
        np.testing.assert_allclose(_flat(injected), _flat(plain), rtol=1e-5, atol=1e-7)


def test_one_label_of_many_may_have_a_trust_region():
    params, x, labels = _problem()
    optimizer = optax.multi_transform(
        {"free": optax.sgd(0.1), "bound": optax.chain(optax.sgd(20.0), transforms.kl_trust_region(1e-3))},
        {"in": "bound", "out": "bound", "bias": "free"},
    )

    def divergence(new):
        return _divergence_from(params, x)(new | {"bias": params["bias"]})

    gradient = _gradient(params, x, labels)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params, divergence=divergence)
    assert 0 < divergence(optax.apply_updates(params, updates)) <= 1e-3
    np.testing.assert_allclose(updates["bias"], -0.1 * gradient["bias"], rtol=1e-6)


def test_devices_take_the_step_of_the_whole_batch():
    params, x, labels = _problem()
    optimizer = optax.chain(
        transforms.natural_gradient(damping=0.1, iterations=3), optax.sgd(20.0), transforms.kl_trust_region(1e-2)
    )

    def update(params, x, labels, axis_name=None):
        def loss(params):
            return losses.mean(
                optax.softmax_cross_entropy_with_integer_labels(_model(params, x), labels), axis_name=axis_name
            )

        divergence = _divergence_from(params, x, axis_name=axis_name)
        return optimizer.update(jax.grad(loss)(params), optimizer.init(params), params, divergence=divergence)

    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (P(), P("x"), P("x")), "out_specs": P()}
    sharded = jax.shard_map(functools.partial(update, axis_name="x"), mesh=mesh, **specs)
    one, many = (_flat(jax.jit(f)(params, x, labels)) for f in (update, sharded))
    np.testing.assert_allclose(many, one, atol=1e-4 * np.max(np.abs(one)))


def test_a_state_survives_a_checkpoint():
    _, state, _ = _train(optax.chain(transforms.skip_large_divergence(1e-9), transforms.kl_trust_region(1e-2)), steps=3)
    leaves, structure = jax.tree.flatten(state)
    restored = jax.tree.unflatten(structure, [np.array(x) for x in leaves])
    assert type(restored) is type(state)
    assert restored[0].dropped == 3


# ---------------------------------------------------------------- coefficients

RULES = {
    "doubling": (transforms.doubling(), 1.5),
    "proportional": (transforms.proportional(1.0), 1.01),
    "dual": (transforms.dual(5.0), 1.01),
}


@pytest.mark.parametrize("name", RULES)
def test_a_controller_keeps_a_drifting_divergence_at_its_target(name):
    rule, tolerance = RULES[name]
    controller = transforms.adaptive_coefficient(0.1, rule, initial=0.01)

    def step(state, t):
        divergence = (1 + jnp.sin(t / 300)) / (1 + state.coefficient)  # the larger the penalty, the less it is
        return controller.update(divergence, state), divergence

    _, seen = jax.lax.scan(step, controller.init(), jnp.arange(1200.0))
    settled = np.asarray(seen)[200:800] / 0.1
    # Within a factor, and the doubling rule within twice its own tolerance, which one doubling crosses.
    assert np.median(settled) < tolerance * 1.05
    assert np.median(settled) > 1 / (tolerance * 1.05)
    assert settled.max() < 2 * tolerance


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_controller_ignores_what_is_not_finite(name, bad):
    controller = transforms.adaptive_coefficient(0.1, RULES[name][0])
    assert controller.update(bad, controller.init()).coefficient == 1


@pytest.mark.parametrize("name", RULES)
def test_a_coefficient_comes_back_from_its_limits(name):
    controller = transforms.adaptive_coefficient(0.1, RULES[name][0], initial=3.0, floor=0.01, limit=100)

    @jax.jit
    def after(state, measured):
        return jax.lax.fori_loop(0, 3000, lambda _, state: controller.update(measured, state), state)

    for measured, limit in ((0.0, 0.03), (1e30, 300.0)):
        state = after(controller.init(), measured)
        np.testing.assert_allclose(state.coefficient, limit, rtol=1e-6)
        back = controller.update(0.2 if measured == 0 else 0.01, state)
        assert (back.coefficient > limit) == (measured == 0)
        assert back.coefficient != limit


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("initial", "limits"), [(1e35, {}), (1.0, {"limit": np.inf}), (1e-37, {}), (1e-20, {"floor": 1e-30})]
)
def test_a_coefficient_leaves_neither_end_of_the_floats_behind(name, initial, limits):
    controller = transforms.adaptive_coefficient(0.1, RULES[name][0], initial=initial, **limits)

    @jax.jit
    def after(state, measured, steps):
        return jax.lax.fori_loop(0, steps, lambda _, state: controller.update(measured, state), state)

    for measured, other in ((1e30, 0.0), (0.0, 1e30)):
        state = after(controller.init(), measured, 3000)
        assert 0 < state.coefficient < np.inf
        assert after(state, other, 3).coefficient != state.coefficient


def test_a_policy_that_stands_still_loosens_the_penalty_by_seven_doublings_at_most():
    controller = transforms.adaptive_coefficient(0.02, transforms.doubling())
    state = jax.lax.fori_loop(0, 1000, lambda _, state: controller.update(0.0, state), controller.init())
    np.testing.assert_allclose(state.coefficient, 0.01, rtol=1e-6)
    for doublings in range(8):
        assert (state.coefficient >= 1) == (doublings == 7)
        state = controller.update(1.0, state)


def test_the_rules_are_those_of_their_papers():
    at = functools.partial(jnp.asarray, dtype=jnp.float32)
    for measured, factor in ((0.16, 2), (0.14, 1), (0.07, 1), (0.06, 0.5)):
        assert transforms.doubling()(at(measured), at(0.1)) == factor
    rule = transforms.proportional(100)
    np.testing.assert_allclose([rule(at(x), at(0.1)) for x in (9.0, 0.11, 0.0)], [1.002, 1.001, 0.998], rtol=1e-6)
    np.testing.assert_allclose(transforms.dual(2.0)(at(0.3), at(0.1)), np.exp(0.4), rtol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_takes_plain_numbers_too(name):
    rule, _ = RULES[name]
    np.testing.assert_allclose(rule(0.3, 0.1), rule(jnp.float32(0.3), jnp.float32(0.1)), 1e-6)


# ---------------------------------------------------------------- bad use

NEEDING = {
    "natural_gradient": transforms.natural_gradient,
    "kl_trust_region": functools.partial(transforms.kl_trust_region, 0.1),
    "skip_large_divergence": functools.partial(transforms.skip_large_divergence, 0.1),
}


@pytest.mark.parametrize("name", NEEDING)
def test_a_missing_argument_is_an_error_that_names_the_transform_and_the_remedy(name):
    params = jnp.ones(2)
    transform = NEEDING[name]()
    state = transform.init(params)
    with pytest.raises(
        TypeError, match=rf"^transforms.{name} needs .*divergence.*got NoneType\. Call optimizer.update"
    ):
        transform.update(params, state, params)
    with pytest.raises(TypeError, match=rf"^transforms.{name} needs the parameters; got None\. Call optimizer.update"):
        transform.update(params, state, divergence=jnp.sum)


def _controller(target=1.0, **options):
    return transforms.adaptive_coefficient(target, transforms.doubling(), **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: transforms.kl_trust_region(-1.0), r"kl_trust_region takes max_divergence .* got -1\.0\."),
        (lambda: transforms.kl_trust_region(0.1, max_scale=0.0), r"kl_trust_region takes max_scale .* got 0\.0\."),
        (lambda: transforms.skip_large_divergence(float("nan")), r"skip_large_divergence takes max_divergence .* nan"),
        (lambda: transforms.natural_gradient(damping=-1), r"natural_gradient takes damping .* got -1\."),
        (lambda: transforms.kl_trust_region(np.float32(-1)), r"kl_trust_region takes max_divergence .* got -1\.0\."),
        (lambda: transforms.kl_trust_region(1.0, backtracks=-1), r"kl_trust_region takes backtracks .* got -1\."),
        (lambda: transforms.kl_trust_region(1.0, shrink=1.0), r"takes shrink in \(0, 1\); got 1\.0\. Pass"),
        (
            lambda: transforms.natural_gradient(iterations=0),
            r"natural_gradient takes iterations in \[1, inf\]; got 0\.",
        ),
        (lambda: _controller(target=0), r"adaptive_coefficient takes target in \(0, inf\); got 0\."),
        (lambda: _controller(initial=0.0), r"adaptive_coefficient takes initial .* got 0\.0"),
        (lambda: _controller(floor=0.0), r"adaptive_coefficient takes floor in \(0, 1\]; got 0\.0"),
        (lambda: _controller(limit=0.5), r"adaptive_coefficient takes limit in \[1, inf\]; got 0\.5"),
        (lambda: transforms.doubling(0.5), r"doubling takes tolerance in \[1, inf\]; got 0\.5\."),
        (lambda: transforms.proportional(0.1), r"proportional takes horizon in \[1, inf\]; got 0\.1\."),
        (lambda: transforms.proportional(10, clip=1.0), r"proportional takes clip in \(0, 1\); got 1\.0\."),
        (lambda: transforms.dual(-0.1), r"dual takes learning_rate in \(0, inf\); got -0\.1\."),
    ],
)
def test_a_bound_of_the_wrong_sign_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_rule_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match=r"^transforms.adaptive_coefficient takes rule .*; got 'ppo'\. Pass transforms"):
        transforms.adaptive_coefficient(0.1, "ppo")


def test_a_divergence_that_is_not_a_scalar_is_refused():
    params, x, _ = _problem()
    transform = transforms.kl_trust_region(0.1)
    with pytest.raises(ValueError, match=r"^transforms.kl_trust_region takes a divergence .*\[\]; got \[32\]\. Reduce"):
        transform.update(params, (), params, divergence=lambda new: losses.js(_model(new, x), _model(params, x)))

"""Functions from loss to loss, and the reduction of a batch."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from marks import with_all

from jaxdiv import losses, objectives

K = 5


def _arrays(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(3)]


def _close(x, y, rtol=2e-6):
    np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7)


# ---------------------------------------------------------------- losses.mean


def test_parts_of_a_batch_add_up_to_the_batch_however_it_is_divided():
    params, inputs, targets = _arrays(12, K)
    params, mask = params[:K], jnp.arange(12) % 4 != 0

    def loss(params, rows, denominator):
        per_example = losses.forward_kl(inputs[rows] @ params, targets[rows])
        return losses.mean(per_example, where=mask[rows], denominator=denominator)

    whole = jax.value_and_grad(loss)(params, slice(None), None)
    for cuts in ([0, 6, 12], [0, 1, 12]):
        parts = [jax.value_and_grad(loss)(params, slice(*cut), mask.sum()) for cut in itertools.pairwise(cuts)]
        for total, *part in zip(jax.tree.leaves(whole), *map(jax.tree.leaves, parts), strict=True):
            np.testing.assert_allclose(sum(part), total, rtol=1e-6, atol=1e-6 * np.max(np.abs(total)))


@pytest.mark.parametrize("given", [False, True], ids=["counted", "given"])
def test_devices_reduce_to_the_mean_of_the_whole_and_its_gradient(given):
    x, y, _ = _arrays(16, K)
    mask = jnp.arange(16) < 11  # shards differ in what counts

    def loss(x, y, mask, axis_name=None):
        denominator = 11 if given else None
        return losses.mean(losses.js(x, y), where=mask, denominator=denominator, axis_name=axis_name)

    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    sharded = jax.shard_map(
        functools.partial(loss, axis_name="x"), mesh=mesh, in_specs=(P("x"), P("x"), P("x")), out_specs=P()
    )
    one, many = (jax.jit(jax.value_and_grad(f))(x, y, mask) for f in (loss, sharded))
    for a, b in zip(one, many, strict=True):
        _close(a, b)


def test_what_does_not_count_may_hold_anything_and_has_no_gradient():
    x = jnp.array([1.0, jnp.nan, jnp.inf, 3.0])
    weights = jnp.array([1.0, 0.0, 0.0, 3.0])
    for options in ({"where": weights > 0, "weights": jnp.array([1.0, 1.0, 1.0, 3.0])}, {"weights": weights}):
        value, gradient = jax.value_and_grad(functools.partial(losses.mean, **options))(x)
        assert value == 2.5
        np.testing.assert_array_equal(gradient, [0.25, 0, 0, 0.75])


@pytest.mark.parametrize("denominator", [None, 0, 4])
def test_of_nothing_value_and_gradient_are_zero(denominator):
    for x in (jnp.array([1.0, jnp.inf]), jnp.zeros(0)):
        mean = functools.partial(losses.mean, where=jnp.zeros(x.shape, bool), denominator=denominator)
        with jax.debug_nans(True):
            value, gradient = jax.value_and_grad(mean)(x)
        assert value == 0
        np.testing.assert_array_equal(gradient, jnp.zeros_like(x))


def test_half_precision_is_summed_in_float32():
    x = jnp.full(4096, 1.0, jnp.bfloat16).at[0].set(257)
    assert losses.mean(x, denominator=1).dtype == jnp.float32
    assert losses.mean(x) == jnp.float32((4095 + 256) / 4096)


def test_weights_must_broadcast():
    with pytest.raises(ValueError, match=r"^losses.mean takes weights .*; got weights\[3\] for \[2\]\."):
        losses.mean(jnp.ones(2), weights=jnp.ones(3))
    with pytest.raises(ValueError, match=r"^losses.mean takes denominator as one number; got denominator\[2\]\."):
        losses.mean(jnp.ones(2), denominator=jnp.ones(2))


def test_accumulated_micro_batches_take_the_step_of_the_large_batch():
    params, inputs, targets = _arrays(8, K)
    params = params[:K]

    def gradient(params, rows):
        def loss(params):
            return losses.mean(losses.forward_kl(inputs[rows] @ params, targets[rows]), denominator=len(inputs[rows]))

        return jax.grad(loss)(params)

    with jax.numpy_dtype_promotion("standard"):
        large, small = optax.adam(0.1), optax.MultiSteps(optax.adam(0.1), 4)
        updates, _ = large.update(gradient(params, slice(None)), large.init(params), params)
        state = small.init(params)
        for i in range(4):
            accumulated, state = small.update(gradient(params, slice(2 * i, 2 * i + 2)), state, params)
    np.testing.assert_allclose(accumulated, updates, rtol=1e-5)


# ---------------------------------------------------------------- from loss to loss


def test_a_softened_loss_is_the_distillation_loss():
    x, y, _ = _arrays(3, K)
    softened = objectives.softened(losses.forward_kl, temperature=3.0)
    _close(softened(x, y), losses.distillation(x, y, temperature=3.0))


@pytest.mark.parametrize("temperature", [4.0, 300.0])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=lambda dtype: dtype.__name__)
def test_a_softened_loss_of_half_precision_is_rounded_once(dtype, temperature):
    x, y, _ = (a.astype(dtype) for a in _arrays(4, K))
    found = objectives.softened(losses.forward_kl, temperature=temperature)(x, y)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, losses.distillation(x, y, temperature=temperature))


MIXED = {
    "softened": (objectives.softened(losses.js, temperature=2.0), 2),
    "hard_and_soft": (objectives.hard_and_soft(losses.js, weight=0.5), 2),
    "symmetric": (objectives.symmetric(losses.forward_kl), 2),
    "consistency": (objectives.consistency(losses.js, weight=0.5), 3),
    "annealed": (functools.partial(objectives.annealed(losses.js, optax.linear_schedule(0.0, 1.0, 9)), 3), 2),
}


@pytest.mark.parametrize("name", ["hard_and_soft", *with_all(*(x for x in MIXED if x != "hard_and_soft"))])
def test_arguments_of_several_dtypes_have_the_promoted_one(name):
    loss, n = MIXED[name]
    labels = [jnp.arange(4)] if name == "hard_and_soft" else []
    for half in itertools.product((False, True), repeat=n):
        rounded = [x.astype(jnp.bfloat16) for x in _arrays(4, K)[:n]]
        given = [x if low else x.astype(jnp.float32) for x, low in zip(rounded, half, strict=True)]
        found = loss(*given, *labels)
        assert found.dtype == (jnp.bfloat16 if all(half) else jnp.float32)
        expected = loss(*(x.astype(jnp.float32) for x in rounded), *labels)
        np.testing.assert_allclose(found.astype(jnp.float32), expected, 2e-2)
        if all(half) and name != "annealed":
            np.testing.assert_array_equal(found, expected.astype(jnp.bfloat16))


def test_the_mean_of_two_numbers_does_not_overflow_where_their_sum_does():
    x, y = jnp.array([[4e4, 0]], jnp.float16), jnp.array([[0, 4e4]], jnp.float16)
    assert objectives.symmetric(losses.forward_kl)(x, y) == losses.forward_kl(x, y)


def test_hard_and_soft_targets_are_mixed_along_any_axis_and_under_a_mask():
    x, y, _ = _arrays(K, 3)
    labels, mask = jnp.array([0, 2, 4]), (jnp.arange(K) != 1)[:, None]
    value = objectives.hard_and_soft(losses.js, weight=0.3)(x, y, labels, axis=0, where=mask)
    kept = jnp.delete(x, 1, 0)
    hard = optax.losses.softmax_cross_entropy_with_integer_labels(kept.T, jnp.array([0, 1, 3]))
    _close(value, 0.3 * losses.js(kept, jnp.delete(y, 1, 0), axis=0) + 0.7 * hard, 1e-5)


def test_a_negative_label_is_padding_that_hides_no_gradient_and_a_label_too_large_is_no_number():
    x, y, _ = _arrays(4, K)
    labels, loss = jnp.array([1, -100, 2, -1]), objectives.hard_and_soft(losses.forward_kl, weight=0.25)

    def mean(x, labels):
        return losses.mean(loss(x, y, labels), where=labels >= 0)

    value, gradient = jax.value_and_grad(mean)(x, labels)
    kept = jnp.array([0, 2])
    _close(value, jnp.mean(loss(x, y, jnp.abs(labels) % K)[kept]))
    assert np.all(np.any(gradient != 0, 1) == (labels >= 0))
    assert np.all(np.isfinite(gradient))
    _close(loss(x, y, labels)[1], 0.25 * losses.forward_kl(x, y)[1])
    assert jnp.isnan(loss(x, y, labels + K)[0])


def test_a_part_without_weight_is_zero_even_if_infinite():
    x, y = jnp.array([[0.0, -jnp.inf]]), jnp.zeros((1, 2))
    sure, wrong = jnp.array([0]), jnp.array([1])
    soft = objectives.hard_and_soft(losses.forward_kl, weight=1.0)
    hard = objectives.hard_and_soft(losses.forward_kl, weight=0.0)
    alone = objectives.consistency(losses.cross_entropy_with_probs, weight=0.0)
    for loss in (
        lambda x: soft(x, x, wrong),
        lambda x: hard(x, y, sure),
        lambda x: alone(x, x, jnp.array([[1.0, 0.0]])),
        lambda x: alone(x, jnp.array([[0.0, -9.0]]), jnp.array([[1.0, 0.0]])) - jnp.log1p(jnp.exp(-9.0)) / 2,
    ):
        value, gradient = jax.value_and_grad(lambda x, loss=loss: loss(x).sum())(x)
        _close(value, 0)
        assert not np.any(gradient)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (jnp.ones(3), TypeError, r"integer labels; got labels float32\[3\]"),
        (jnp.ones((3, 1), int), ValueError, r"labels\[3\]; got labels\[3, 1\] for logits\[3, 5\]"),
    ],
)
def test_wrong_labels_are_refused(labels, error, message):
    x, y, _ = _arrays(3, K)
    with pytest.raises(error, match=rf"^objectives.hard_and_soft takes .*{message}"):
        objectives.hard_and_soft(losses.js, weight=0.3)(x, y, labels)


def test_the_symmetric_kl_is_half_of_jeffreys():
    x, y, _ = _arrays(3, K)
    _close(objectives.symmetric(losses.forward_kl)(x, y), 0.5 * losses.jeffreys(x, y))


def test_consistency_is_the_objective_of_r_drop():
    x, y, targets = _arrays(3, K)
    labels, alpha = jax.nn.softmax(targets), 4.0
    r_drop = losses.cross_entropy_with_probs(x, labels) + losses.cross_entropy_with_probs(y, labels)
    r_drop += alpha / 2 * (losses.forward_kl(x, y) + losses.forward_kl(y, x))
    loss = objectives.consistency(losses.cross_entropy_with_probs, weight=alpha / 2)
    _close(2 * loss(x, y, labels), r_drop)


def test_an_annealed_loss_of_weight_zero_is_zero_even_if_infinite():
    loss = objectives.annealed(losses.forward_kl, optax.linear_schedule(0.0, 1.0, 10))
    x, y = jnp.array([[0.0, -jnp.inf]]), jnp.zeros((1, 2))
    value, gradient = jax.value_and_grad(lambda x: loss(0, x, y).sum())(x)
    assert value == 0
    assert not jnp.any(gradient)
    assert loss(1, x, y)[0] == jnp.inf


def _square_root(x, y):
    """A loss with an infinite gradient where it is 0, and a gradient that is nan where it is not 0."""
    return jnp.sqrt(jnp.abs(x - y)).sum(-1)


def _infinite(x, y):
    return (x / (y - y)).sum(-1)


def _nan(x, y):
    return jnp.log(-1 - x * x - y * y).sum(-1)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("loss", [_square_root, _infinite, _nan], ids=["slope", "value", "nan"])
@pytest.mark.parametrize("name", ["soft", "hard", "consistency", "annealed"])
def test_what_has_weight_zero_has_value_and_gradients_zero_whatever_its_own_are(name, loss, traced):
    x, y = jnp.array([[1.0, 2.0, -jnp.inf]]), jnp.array([[1.0, 2.0, 3.0]])
    labels = jnp.array([2])  # of probability 0

    def weighed(weight, x, y):
        if name == "soft":
            found = objectives.hard_and_soft(lambda x, y, **_: loss(x, y), weight=weight)(x, y, labels - 2)
            return found - losses.cross_entropy_with_labels(x, labels - 2)
        if name == "hard":
            return objectives.hard_and_soft(lambda x, y, **_: 0 * y[:, 0], weight=1 - weight)(x, y, labels)
        if name == "consistency":
            return objectives.consistency(lambda x, y: 0 * y[:, 0], loss, weight=weight)(x, y, y)
        return objectives.annealed(loss, lambda _: weight)(0, x, y)

    weight = jnp.zeros(()) if traced else 0.0

    @jax.jit
    def found(traced_weight):
        def value(x, y):
            return weighed(traced_weight if traced else weight, x, y).sum()

        return value(x, y), jax.grad(value, (0, 1))(x, y), jax.jvp(value, (x, y), (jnp.ones_like(x), y))[1]

    for part in jax.tree.leaves(found(jnp.zeros(()))):
        np.testing.assert_array_equal(part, 0)


def test_an_annealed_infinite_kl_to_the_standard_law_has_gradient_zero():
    loss = objectives.annealed(losses.standard_normal_kl, optax.linear_schedule(0.0, 1.0, 100))
    loc, log_scale = jnp.zeros((2, 1)), jnp.array([[0.5], [90.0]])
    value, slopes = jax.value_and_grad(lambda *law: loss(0, *law).sum(), (0, 1))(loc, log_scale)
    assert value == 0
    assert not np.any(slopes)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_slope_in_a_weight_is_what_it_weighs(weight):
    x, y, _ = _arrays(3, K)
    labels = jnp.array([0, 1, 2])
    cross_entropy = losses.cross_entropy(x, jnp.log(jax.nn.one_hot(labels, K)))
    soft = jax.jacobian(lambda w: objectives.hard_and_soft(losses.js, weight=w)(x, y, labels))(weight)
    _close(soft, losses.js(x, y) - cross_entropy)
    annealed = jax.jacobian(lambda w: objectives.annealed(losses.js, lambda _: w)(0, x, y))(weight)
    _close(annealed, losses.js(x, y))


def test_free_bits_have_no_gradient_and_hide_no_nan():
    x = jnp.array([0.1, 0.3, jnp.nan, 0.0])
    np.testing.assert_array_equal(objectives.free_bits(x, 0.25), jnp.array([0.25, 0.3, jnp.nan, 0.25]))
    np.testing.assert_array_equal(jax.grad(lambda x: objectives.free_bits(x, 0.25)[:2].sum())(x), [0, 1, 0, 0])


# ---------------------------------------------------------------- adversarial directions

DIVERGENCES = {"kl": losses.forward_kl, "js": losses.js, "hellinger": losses.squared_hellinger}


def _model(x):
    first, second, _ = _arrays(4, 4, seed=1)
    return jnp.tanh(x @ first) @ second


@pytest.mark.parametrize("name", ["kl", *with_all("js", "hellinger")])
def test_the_adversarial_direction_is_the_leading_eigenvector(name):
    x = _arrays(6, 4)[0]

    def divergence(moved, x=x):
        return DIVERGENCES[name](_model(moved), _model(x))

    r = objectives.adversarial_direction(divergence, x, jax.random.key(0), iterations=60)
    for i in range(len(x)):
        hessian = jax.hessian(lambda moved, i=i: divergence(moved[None], x[i : i + 1])[0])(x[i])
        values, vectors = np.linalg.eigh(hessian)
        assert values[-2] < 0.9 * values[-1], "a case whose leading direction is not determined proves nothing"
        assert abs(vectors[:, -1] @ r[i]) > 0.9999


def test_a_direction_of_many_coordinates_has_norm_one_in_half_precision():
    x = jnp.zeros((1, 70000), jnp.float16)
    r = objectives.adversarial_direction(lambda moved: jnp.sum(moved, 1) ** 2, x, jax.random.key(0))
    np.testing.assert_allclose(np.linalg.norm(np.float32(r)), 1, 1e-3)


def test_a_flat_divergence_has_no_adversarial_direction():
    r = objectives.adversarial_direction(lambda x: 0 * x.sum(1), jnp.ones((2, 3)), jax.random.key(0))
    assert not jnp.any(r)


def test_adversarial_examples_stay_in_their_ball_and_are_worse_than_random_ones():
    x = _arrays(32, 4)[0]

    def divergence(moved):
        return losses.forward_kl(_model(moved), _model(x))

    ascend = functools.partial(objectives.adversarial_example, divergence, x, jax.random.key(0), radius=0.1)
    start, found = ascend(step_size=0.0), ascend(step_size=0.03)
    for moved in (start, found):
        assert jnp.max(jnp.abs(moved - x)) <= 0.1 * (1 + 1e-5)
    assert jnp.mean(divergence(found)) > 2 * jnp.mean(divergence(start)) > 0
    np.testing.assert_array_equal(ascend(step_size=0.03), found)
    np.testing.assert_array_equal(
        objectives.adversarial_example(divergence, x, jax.random.key(0), radius=0.0, step_size=1.0), x
    )


def test_devices_search_each_for_its_own_examples():
    x = _arrays(16, 4)[0]

    def search(x):
        def divergence(moved):
            return losses.forward_kl(_model(moved), _model(x))

        key = jax.random.key(0)
        r = objectives.adversarial_direction(divergence, x, key, iterations=60)
        return r, objectives.adversarial_example(divergence, x, key, radius=0.1, step_size=0.1)

    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    many = jax.jit(jax.shard_map(search, mesh=mesh, in_specs=P("x"), out_specs=P("x")))(x)
    for a, b in zip(many, jax.jit(search)(x), strict=True):
        assert a.shape == b.shape
    # A direction has no sign, and starts from another draw in a shard.
    np.testing.assert_allclose(jnp.abs(jnp.sum(many[0] * jax.jit(search)(x)[0], 1)), 1, rtol=1e-3)
    assert jnp.max(jnp.abs(many[1] - x)) <= 0.1 * (1 + 1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, x, key: objectives.adversarial_direction(d, x, key, iterations=-1), r"direction takes iterations"),
        (
            lambda d, x, key: objectives.adversarial_example(d, x, key, radius=-0.1, step_size=0.1),
            r"example takes radius in \[0, inf\]; got -0\.1\.",
        ),
        (
            lambda d, x, key: objectives.adversarial_example(d, x, key, radius=0.1, step_size=-0.1),
            r"example takes step_size in \[0, inf\]; got -0\.1\.",
        ),
        (
            lambda d, x, key: objectives.adversarial_direction(lambda x: d(x).mean(), x, key),
            r"direction takes divergences \[6\], one to an example; got \[\]\. Do not reduce",
        ),
        (
            lambda d, x, key: objectives.adversarial_example(lambda x: d(x)[:2], x, key, radius=0.1, step_size=0.1),
            r"example takes divergences \[6\], one to an example; got \[2\]\. Do not reduce",
        ),
    ],
)
def test_a_wrong_search_is_refused(call, message):
    x = _arrays(6, 4)[0]
    with pytest.raises(ValueError, match=rf"^objectives.adversarial_{message}"):
        call(lambda moved: losses.forward_kl(_model(moved), _model(x)), x, jax.random.key(0))


def test_no_gradient_flows_through_the_search():
    def worst(scale, x):
        def divergence(moved):
            return losses.forward_kl(scale * moved, jnp.ones((2, 3)))

        key = jax.random.key(0)
        r = objectives.adversarial_direction(divergence, x, key)
        return jnp.sum(r) + jnp.sum(objectives.adversarial_example(divergence, x, key, radius=0.1, step_size=0.1))

    for slope in jax.grad(worst, (0, 1))(1.0, jnp.ones((2, 3))):
        assert not np.any(slope)

"""What only the losses promise: optax's values, directions, masks, axes, temperatures and mixed dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from measure import x64

from jaxdiv import categorical, losses

RNG = np.random.default_rng(0)
LOGITS, TARGETS = (RNG.normal(size=(4, 6)).astype(np.float32) for _ in "pt")
MASK = np.array([[1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]], bool)
PLAIN = ["forward_kl", "reverse_kl", "jeffreys", "js", "total_variation", "squared_hellinger", "cross_entropy"]


def _softmax(x):
    return jax.nn.softmax(jnp.asarray(x), -1)


def _gradients(loss, *arrays):
    return jax.grad(lambda *xs: jnp.sum(loss(*xs)), argnums=tuple(range(len(arrays))))(*map(jnp.asarray, arrays))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (losses.forward_kl, lambda p, t: optax.losses.kl_divergence_with_log_targets(*map(jax.nn.log_softmax, (p, t)))),
        (
            lambda p, t: losses.forward_kl_with_probs(p, _softmax(t)),
            lambda p, t: optax.losses.kl_divergence(jax.nn.log_softmax(p), _softmax(t)),
        ),
        (
            lambda p, t: losses.cross_entropy_with_probs(p, _softmax(t)),
            lambda p, t: optax.losses.softmax_cross_entropy(p, _softmax(t)),
        ),
    ],
)
def test_values_and_gradients_are_optax_s_where_optax_is_right(ours, theirs):
    with x64(np.float64):
        p, t = LOGITS.astype(np.float64), TARGETS.astype(np.float64)
        np.testing.assert_allclose(ours(jnp.asarray(p), jnp.asarray(t)), theirs(p, t), rtol=1e-12)
        for x, y in zip(_gradients(ours, p, t), _gradients(theirs, p, t), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-14)


def test_directions_and_weights_are_what_the_names_say():
    kl, js = jax.vmap(categorical.kl), jax.vmap(lambda p, q: categorical.js(p, q, weight=0.2))
    np.testing.assert_array_equal(losses.forward_kl(LOGITS, TARGETS), kl(TARGETS, LOGITS))
    np.testing.assert_array_equal(losses.reverse_kl(LOGITS, TARGETS), kl(LOGITS, TARGETS))
    np.testing.assert_allclose(losses.js(LOGITS, TARGETS, weight=0.2), js(LOGITS, TARGETS), rtol=1e-6)
    np.testing.assert_allclose(losses.generalized_js(LOGITS, TARGETS, beta=0.2), js(TARGETS, LOGITS), rtol=1e-6)
    renyi = jax.vmap(lambda p, q: categorical.renyi(p, q, alpha=3.0))
    np.testing.assert_allclose(losses.renyi(LOGITS, TARGETS, alpha=3.0), renyi(TARGETS, LOGITS), rtol=1e-6)
    np.testing.assert_allclose(losses.amari(LOGITS, TARGETS, alpha=0.0), losses.reverse_kl(LOGITS, TARGETS), rtol=2e-6)


def test_the_rescaled_js_reaches_both_kl_divergences():
    for beta, end in ((0.0, losses.forward_kl), (1.0, losses.reverse_kl)):
        at_end = losses.rescaled_js(LOGITS, TARGETS, beta=beta)
        np.testing.assert_allclose(at_end, end(LOGITS, TARGETS), rtol=1e-6)
        near = losses.rescaled_js(LOGITS, TARGETS, beta=abs(beta - 1e-6))
        np.testing.assert_allclose(near, at_end, rtol=2e-5)
    for x, y in zip(
        _gradients(lambda p, t: losses.rescaled_js(p, t, beta=0.0), LOGITS, TARGETS),
        _gradients(losses.forward_kl, LOGITS, TARGETS),
        strict=True,
    ):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    inner = losses.generalized_js(LOGITS, TARGETS, beta=0.3) / (0.3 * 0.7)
    np.testing.assert_allclose(losses.rescaled_js(LOGITS, TARGETS, beta=0.3), inner, rtol=1e-5)


def test_distillation_is_the_softened_kl_times_the_squared_temperature():
    softened = losses.forward_kl(LOGITS / 4, TARGETS / 4)
    np.testing.assert_allclose(losses.distillation(LOGITS, TARGETS, temperature=4.0), 16 * softened, rtol=1e-6)
    traced = jax.jit(lambda t: losses.distillation(LOGITS, TARGETS, temperature=t))(jnp.float32(4))
    np.testing.assert_allclose(traced, 16 * softened, rtol=1e-6)


def test_the_confidence_penalty_is_what_entropy_lacks():
    entropy = jax.vmap(categorical.entropy)(LOGITS)
    np.testing.assert_allclose(losses.confidence_penalty(LOGITS), jnp.log(6.0) - entropy, rtol=1e-5)
    assert jnp.all(losses.confidence_penalty(jnp.full((2, 5), 3.0)) == 0)


@pytest.mark.parametrize("name", PLAIN)
def test_target_probabilities_give_the_loss_of_their_logarithms(name):
    probs = _softmax(TARGETS)
    ours = getattr(losses, f"{name}_with_probs")(LOGITS, probs)
    np.testing.assert_allclose(ours, getattr(losses, name)(LOGITS, jnp.log(probs)), rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 20.0, 60.0])
def test_a_one_hot_target_is_exact_for_confident_predictions_too(scale):
    logits = scale * LOGITS
    labels = np.array([0, 1, 2, 3])
    one_hot = jax.nn.one_hot(labels, 6)
    with np.errstate(under="ignore"):
        wide = logits.astype(np.float64)
        others = [np.delete(row, label) - row[label] for row, label in zip(wide, labels, strict=True)]
        exact = [np.log1p(np.sum(np.exp(x))) for x in others]
    value = losses.forward_kl_with_probs(logits, one_hot)
    np.testing.assert_allclose(value, exact, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(losses.cross_entropy_with_probs(logits, one_hot), exact, rtol=1e-6, atol=1e-30)
    gradient, _ = _gradients(losses.forward_kl_with_probs, logits, one_hot)
    np.testing.assert_allclose(gradient, _softmax(logits) - one_hot, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", PLAIN)
def test_a_mask_drops_its_classes_whatever_they_hold(name):
    loss = getattr(losses, name)
    bad = np.where(MASK, 0, [np.nan, np.inf, -np.inf, 1e30, -1e30, np.nan]).astype(np.float32)
    masked = loss(LOGITS + bad, TARGETS - bad, where=MASK)
    for row in range(3):
        kept = MASK[row]
        np.testing.assert_allclose(masked[row], loss(LOGITS[row, kept], TARGETS[row, kept]), rtol=2e-6)
    assert masked[3] == 0
    gradients = _gradients(lambda p, t: loss(p, t, where=MASK), LOGITS + bad, TARGETS - bad)
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
        assert np.all(gradient[~MASK] == 0)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (4, 1)])
def test_a_mask_broadcasts(shape):
    where = np.resize([True, True, False, True], shape)
    full = losses.js(LOGITS, TARGETS, where=np.broadcast_to(where, (4, 6)))
    np.testing.assert_array_equal(losses.js(LOGITS, TARGETS, where=where), full)


def test_axes_may_be_any_and_several():
    p, t = (RNG.normal(size=(2, 3, 4, 5)).astype(np.float32) for _ in "pt")
    mask = RNG.random((2, 3, 4, 5)) < 0.7
    flat = [np.moveaxis(x, (1, 3), (2, 3)).reshape(2, 4, 15) for x in (p, t, mask)]
    np.testing.assert_allclose(losses.forward_kl(p, t, axis=(1, 3)), losses.forward_kl(flat[0], flat[1]), rtol=1e-6)
    got = losses.forward_kl(p, t, axis=(1, -1), where=mask)
    np.testing.assert_allclose(got, losses.forward_kl(flat[0], flat[1], where=flat[2]), rtol=1e-6)
    np.testing.assert_allclose(losses.js(p, t, axis=0), losses.js(*(np.moveaxis(x, 0, -1) for x in (p, t))), rtol=1e-6)
    assert losses.forward_kl(p, t, axis=(0, 1, 2, 3)).shape == ()


def test_mixed_dtypes_are_promoted_and_gradients_keep_theirs():
    student, teacher = jnp.asarray(LOGITS, jnp.bfloat16), jnp.asarray(TARGETS)
    loss = losses.forward_kl(student, teacher)
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(loss, losses.forward_kl(student.astype(jnp.float32), teacher))
    d_student, d_teacher = _gradients(losses.forward_kl, student, teacher)
    assert (d_student.dtype, d_teacher.dtype) == (jnp.bfloat16, jnp.float32)
    assert losses.js(student, student).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["forward_kl", "js", "cross_entropy"])
@pytest.mark.parametrize("temperature", [0.01, 0.7, 7.3, 100.0])
def test_a_temperature_inside_costs_no_accuracy(name, temperature):
    rng = np.random.default_rng(1)
    p = (10 * rng.normal(size=(64, 50)) + 1000).astype(np.float32)
    t = (p + 1e-3 * rng.normal(size=p.shape)).astype(np.float32)
    with x64(np.float64):
        exact = getattr(losses, name)(
            jnp.asarray(p, jnp.float64), jnp.asarray(t, jnp.float64), temperature=float(np.float32(temperature))
        )
        exact = np.asarray(exact)
    got = np.asarray(getattr(losses, name)(p, t, temperature=temperature), np.float64)
    assert np.max(np.abs(got - exact) / np.maximum(np.spacing(exact.astype(np.float32)), 1e-35)) <= 16


@pytest.mark.parametrize("name", ["forward_kl", "js", "renyi"])
def test_a_temperature_is_differentiable(name):
    keywords = {"alpha": 0.6} if name == "renyi" else {}
    with x64(np.float64):
        p, t = jnp.asarray(LOGITS, jnp.float64), jnp.asarray(TARGETS, jnp.float64)

        def at(temperature):
            return getattr(losses, name)(p, t, temperature=temperature, **keywords).sum()

        numeric = (at(2.0 + 1e-5) - at(2.0 - 1e-5)) / 2e-5
        np.testing.assert_allclose(jax.grad(at)(2.0), numeric, rtol=1e-8)


def test_a_bad_example_leaves_its_neighbours_alone():
    p = LOGITS.copy()
    p[1, 2] = np.nan
    value = losses.forward_kl(p, TARGETS)
    assert np.isnan(value[1])
    np.testing.assert_array_equal(np.delete(value, 1), np.delete(losses.forward_kl(LOGITS, TARGETS), 1))


def test_an_infinite_loss_has_a_finite_gradient():
    p = jnp.asarray(LOGITS).at[0, 0].set(-jnp.inf)
    assert losses.forward_kl(p, TARGETS)[0] == jnp.inf
    in_p, in_t = _gradients(losses.forward_kl, p, TARGETS)
    np.testing.assert_allclose(in_p[0], _softmax(p[0]) - _softmax(TARGETS[0]), rtol=1e-5)
    assert np.all(in_t[0] == 0)

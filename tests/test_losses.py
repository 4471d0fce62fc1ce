"""What only the losses promise: optax's values, directions, masks, axes, temperatures and mixed dtypes."""

import functools
import pickle
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from marks import with_all
from measure import x64

from jaxdiv import categorical, fused, losses, topk

RNG = np.random.default_rng(0)
LOGITS, TARGETS = (RNG.normal(size=(4, 6)).astype(np.float32) for _ in "pt")
MASK = np.array([[1, 1, 0, 1, 1, 0], [1, 0, 1, 0, 1, 1], [0, 1, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0]], bool)
PLAIN = {
    "forward_kl": losses.forward_kl,
    "reverse_kl": losses.reverse_kl,
    "jeffreys": losses.jeffreys,
    "js": losses.js,
    "weighted_js": functools.partial(losses.js, weight=0.2),
    "total_variation": losses.total_variation,
    "squared_hellinger": losses.squared_hellinger,
    "cross_entropy": losses.cross_entropy,
    "renyi": functools.partial(losses.renyi, alpha=0.6),
    "amari": functools.partial(losses.amari, alpha=0.6),
    "generalized_js": functools.partial(losses.generalized_js, beta=0.2),
    "rescaled_js": functools.partial(losses.rescaled_js, beta=0.2),
    "distillation": functools.partial(losses.distillation, temperature=2.0),
}
# Of the kernel of another one of them, with another term or at other numbers.
ALIKE = ("weighted_js", "amari", "generalized_js", "distillation", "reverse_kl", "jeffreys", "squared_hellinger")
NAMES = [pytest.param(name, marks=[pytest.mark.gate] * (name in ALIKE)) for name in PLAIN]


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


@pytest.mark.parametrize("name", NAMES)
def test_target_probabilities_give_the_loss_of_their_logarithms(name):
    probs, loss = _softmax(TARGETS), PLAIN[name]
    ours = losses.with_probs(loss)
    np.testing.assert_allclose(ours(LOGITS, probs), loss(LOGITS, jnp.log(probs)), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(ours))(LOGITS, probs), ours(LOGITS, probs), rtol=1e-6)
    masked = loss(LOGITS.T, jnp.log(probs).T, axis=0, where=MASK.T)
    np.testing.assert_allclose(ours(LOGITS.T, probs.T, axis=0, where=MASK.T), masked, rtol=1e-6)
    in_logits, in_probs = _gradients(ours, LOGITS, probs)
    expected, in_targets = _gradients(loss, LOGITS, jnp.log(probs))
    np.testing.assert_allclose(in_logits, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(in_probs, in_targets / probs, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(ours))(LOGITS, probs), ours(LOGITS, probs))


@pytest.mark.parametrize("loss", [losses.forward_kl_with_probs, losses.with_probs(losses.js)])
@pytest.mark.parametrize(
    ("logits", "probs"), [("float16", "float16"), ("bfloat16", "bfloat16"), ("bfloat16", "float32")]
)
def test_target_probabilities_give_the_promoted_dtype_of_both_rounded_once(loss, logits, probs):
    x, t = jnp.asarray(LOGITS, logits), _softmax(TARGETS).astype(probs)
    value = loss(x, t)
    assert value.dtype == (logits if logits == probs else "float32")
    np.testing.assert_array_equal(value, loss(x.astype(jnp.float32), t.astype(jnp.float32)).astype(value.dtype))


def test_with_probs_takes_a_loss_of_one_s_own_and_more_targets_and_is_a_loss_of_fused():
    def own(logits, target_logits, labels, *, factor):
        hard = losses.cross_entropy_with_labels(logits, labels)
        return factor * losses.forward_kl(logits, target_logits) + hard

    labels, probs, head = jnp.array([0, 1, 2, -1]), _softmax(TARGETS), jnp.eye(6, dtype=jnp.float32)
    expected = 2 * losses.forward_kl_with_probs(LOGITS, probs) + losses.cross_entropy_with_labels(LOGITS, labels)
    loss = losses.with_probs(own)
    np.testing.assert_allclose(loss(LOGITS, probs, labels, factor=2), expected, rtol=1e-6)
    found = fused.linear_divergence(jnp.asarray(LOGITS), head, probs, loss, labels, factor=2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_target_probabilities_take_temperatures_as_logits_do():
    probs, options = _softmax(TARGETS), {"temperature": 3.0, "where": MASK}
    for with_probs, plain in (
        (losses.forward_kl_with_probs, losses.forward_kl),
        (losses.cross_entropy_with_probs, losses.cross_entropy),
    ):
        found = with_probs(LOGITS, probs, **options)
        np.testing.assert_allclose(found, plain(LOGITS, jnp.log(probs), **options), rtol=1e-6)


def test_a_lifted_distillation_has_the_temperature_of_both_sides():
    top = topk.from_logits(jnp.asarray(TARGETS), 6, temperature=2.0)
    for tail in ("renormalized", "uniform"):
        found = topk.lift(losses.distillation, tail=tail)(LOGITS, top, temperature=2.0)
        np.testing.assert_allclose(found, losses.distillation(LOGITS, TARGETS, temperature=2.0), rtol=1e-5)


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


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_drops_its_classes_whatever_they_hold(name):
    loss = PLAIN[name]
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


def test_an_infinite_distillation_has_a_finite_gradient_in_its_temperature():
    p = jnp.asarray(LOGITS).at[0, 0].set(-jnp.inf)
    slope = jax.grad(lambda t: losses.distillation(p, TARGETS, temperature=t)[0])
    assert jnp.isfinite(slope(2.0))


# ---------------------------------------------------------------- labels


def _log_softmax(x):
    x = x - np.max(x, -1, keepdims=True)
    return x - np.log(np.sum(np.exp(x), -1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_labels_give_their_log_softmax_and_its_smoothed_mean(smoothing, temperature):
    labels = np.array([0, 5, 2, 2])
    log_p = _log_softmax(LOGITS.astype(np.float64) / temperature)
    picked = np.take_along_axis(log_p, labels[:, None], -1)[:, 0]
    expected = -(1 - smoothing) * picked - smoothing * log_p.mean(-1)

    def loss(x, share=smoothing):
        return losses.cross_entropy_with_labels(x, labels, temperature=temperature, label_smoothing=share)

    np.testing.assert_allclose(loss(LOGITS), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(LOGITS, jnp.float32(smoothing)), expected, rtol=1e-6)
    (gradient,) = _gradients(loss, LOGITS)
    targets = (1 - smoothing) * np.eye(6)[labels] + smoothing / 6
    np.testing.assert_allclose(gradient, (np.exp(log_p) - targets) / temperature, rtol=1e-5, atol=1e-7)
    slope = jax.grad(lambda share: loss(LOGITS, share).sum())(smoothing)
    np.testing.assert_allclose(slope, np.sum(picked - log_p.mean(-1)), rtol=1e-5)


@pytest.mark.parametrize("scale", [20.0, 60.0])
def test_a_label_is_accurate_for_confident_predictions_too(scale):
    labels = jnp.argmax(LOGITS, -1)
    one_hot = losses.cross_entropy_with_probs(scale * LOGITS, jax.nn.one_hot(labels, 6))
    np.testing.assert_array_equal(losses.cross_entropy_with_labels(scale * LOGITS, labels), one_hot)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_negative_labels_do_not_count_masked_ones_are_infinite_and_those_too_large_no_number(smoothing):
    labels, mask = jnp.array([-1, -100, 2, 6]), MASK.copy()
    mask[3] = True
    x = jnp.asarray(LOGITS).at[0].set(jnp.nan)

    def loss(x):
        return losses.cross_entropy_with_labels(x, labels, where=mask, label_smoothing=smoothing)

    value = loss(x)
    np.testing.assert_array_equal(value, [0, 0, value[2], np.nan])
    assert np.isfinite(value[2])
    (gradient,) = _gradients(loss, x)
    assert np.all(np.isfinite(gradient[:3]))
    assert np.all(gradient[:2] == 0)
    outside = losses.cross_entropy_with_labels(LOGITS, jnp.array([2, 1, 0, 0]), where=MASK, label_smoothing=smoothing)
    np.testing.assert_array_equal(outside, [np.inf, np.inf, np.inf, 0])
    (gradient,) = _gradients(
        lambda x: losses.cross_entropy_with_labels(x, jnp.array([2, 1, 0, 0]), where=MASK, label_smoothing=smoothing),
        LOGITS,
    )
    assert np.all(np.isfinite(gradient))


def test_labels_may_be_along_any_axis_and_of_any_integer_dtype():
    x = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    labels = np.array([[0, 4, 2], [1, 1, 3]])
    expected = optax.losses.softmax_cross_entropy_with_integer_labels(np.moveaxis(x, 1, -1), labels)
    for dtype in (np.uint8, np.int8, np.int32):
        found = losses.cross_entropy_with_labels(x, labels.astype(dtype), axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    half = losses.cross_entropy_with_labels(jnp.asarray(x, jnp.bfloat16), labels, axis=1, label_smoothing=0.1)
    assert half.dtype == jnp.bfloat16


def test_labels_where_a_distribution_belongs_are_a_type_error_that_names_their_loss():
    for loss in (losses.cross_entropy, losses.cross_entropy_with_probs):
        with pytest.raises(TypeError, match=r"got target_\w+ int32\[4\]\..*losses\.cross_entropy_with_labels"):
            loss(LOGITS, jnp.array([0, 1, 2, 3], jnp.int32))
    with pytest.raises(TypeError, match=r"^losses.cross_entropy_with_labels takes integer labels; got labels float32"):
        losses.cross_entropy_with_labels(LOGITS, jnp.ones(4))
    with pytest.raises(ValueError, match=r"takes one label to an example, labels\[4\]; got labels\[4, 1\]"):
        losses.cross_entropy_with_labels(LOGITS, jnp.ones((4, 1), int))


# ---------------------------------------------------------------- views and events


VIEWS = RNG.normal(size=(3, 4, 6)).astype(np.float32)


@pytest.mark.parametrize("weights", [None, *with_all([0.5, 0.3, 0.2]), [0.5, 0.5, 0.0]])
def test_the_divergence_of_views_is_the_excess_of_the_entropy_of_their_mean(weights):
    w = np.full(3, 1 / 3) if weights is None else np.array(weights)
    p = np.exp(_log_softmax(VIEWS.astype(np.float64) / 2))
    mean = np.einsum("j,jnk->nk", w, p)
    expected = -np.sum(mean * np.log(mean), -1) + np.einsum("j,jnk->n", w, p * np.log(p))
    given = None if weights is None else jnp.asarray(weights, jnp.float32)
    loss = functools.partial(losses.js_of, weights=given, temperature=2.0)
    np.testing.assert_allclose(loss(VIEWS), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(np.swapaxes(VIEWS, 1, 2), axis=1), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(loss, 1))(VIEWS), expected, rtol=1e-5)
    padded = np.concatenate([VIEWS, np.full((3, 4, 2), np.nan, np.float32)], -1)
    mask = np.arange(8) < 6
    np.testing.assert_allclose(loss(padded, where=mask), expected, rtol=1e-5)
    (gradient,) = _gradients(lambda x: loss(x, where=mask), padded)
    assert np.all(gradient[..., 6:] == 0)
    (plain,) = _gradients(loss, VIEWS)
    np.testing.assert_allclose(gradient[..., :6], plain, rtol=1e-5, atol=1e-8)
    assert not np.any(loss(padded, where=np.zeros(8, bool)))


def test_two_views_have_the_jensen_shannon_divergence_and_equal_ones_none():
    np.testing.assert_allclose(losses.js_of(VIEWS[:2]), losses.js(*VIEWS[:2]), rtol=1e-6)
    near = VIEWS[:1] + np.array([0, 1e-4])[:, None, None].astype(np.float32) * VIEWS[1]
    np.testing.assert_allclose(losses.js_of(near), losses.js(*near), rtol=1e-5)
    same = np.repeat(VIEWS[:1], 3, 0)
    assert not np.any(losses.js_of(same))
    assert not np.any(_gradients(losses.js_of, same)[0])
    assert losses.js_of(jnp.asarray(VIEWS, jnp.bfloat16)).dtype == jnp.bfloat16


def test_a_view_without_weight_may_have_events_of_its_own():
    views = jnp.log(jnp.array([[0.5, 0.5, 0], [0.2, 0.8, 0], [0.1, 0.1, 0.8]]))
    for one in (0.5, 3e38):
        found = losses.js_of(views, weights=jnp.array([one, one, 0.0]))
        np.testing.assert_allclose(found, 0.050672, rtol=1e-4)


def test_views_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"one weight to a view; got weights\[2\] for 3 views"):
        losses.js_of(VIEWS, weights=jnp.ones(2))
    with pytest.raises(ValueError, match=r"not the first, which has the views; got axis=0"):
        losses.js_of(VIEWS, axis=0)


def test_the_kl_of_many_events_reduces_no_axis():
    x, y = 5 * LOGITS, 5 * TARGETS
    p, t = (1 / (1 + np.exp(-z.astype(np.float64) / 2)) for z in (x, y))
    expected = t * np.log(t / p) + (1 - t) * np.log((1 - t) / (1 - p))
    found = losses.bernoulli_kl(x, y, temperature=2.0)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    (gradient,) = _gradients(lambda x: losses.bernoulli_kl(x, y, temperature=2.0), x)
    np.testing.assert_allclose(gradient, (p - t) / 2, rtol=2e-5)
    bad = np.where(MASK, x, np.nan)
    masked = losses.bernoulli_kl(bad, y, where=MASK, temperature=2.0)
    np.testing.assert_allclose(masked, np.where(MASK, expected, 0), rtol=2e-5)
    (gradient,) = _gradients(lambda x: losses.bernoulli_kl(x, y, where=MASK), bad)
    assert np.all(gradient[~MASK] == 0)
    assert losses.bernoulli_kl(jnp.inf, jnp.array(0.0)) == jnp.inf
    assert losses.bernoulli_kl(jnp.asarray(x, jnp.float16), jnp.asarray(y, jnp.float16)).dtype == jnp.float16
    np.testing.assert_allclose(jax.vmap(jax.vmap(losses.bernoulli_kl))(x, y), losses.bernoulli_kl(x, y), rtol=1e-6)


# ---------------------------------------------------------------- normal components


def _exact_terms(loc, log_scale, prior_loc, prior_log_scale):
    """Values and the four gradients, in forty digits."""
    rows = []
    for m, a, n, b in zip(*(np.ravel(x) for x in (loc, log_scale, prior_loc, prior_log_scale)), strict=True):
        m, a, n, b = (Decimal(float(x)) for x in (m, a, n, b))
        ratio, z = (2 * (a - b)).exp(), (m - n) * (-b).exp()
        in_loc = z * (-b).exp()
        rows.append((((ratio - 1 - 2 * (a - b)) + z * z) / 2, in_loc, ratio - 1, -in_loc, -(ratio - 1) - z * z))
    return [np.array(x, float).reshape(np.shape(loc)) for x in zip(*rows, strict=True)]


def _components(shape, spread):
    loc, log_scale = (RNG.normal(size=shape).astype(np.float32) for _ in "ms")
    prior = [(x + spread * RNG.normal(size=shape)).astype(np.float32) for x in (loc, log_scale)]
    return [loc, log_scale, *prior]


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6])
def test_a_normal_component_has_its_kl_divergence_and_gradients_also_near_equality(spread):
    laws = _components((8, 5), spread)
    near_standard = [(spread * x).astype(np.float32) for x in laws[:2]]
    for loss, arrays, exact in (
        (losses.gaussian_kl_per_component, laws, _exact_terms(*laws)),
        (
            losses.standard_normal_kl_per_component,
            near_standard,
            _exact_terms(*near_standard, *np.zeros((2, 8, 5)))[:3],
        ),
    ):
        np.testing.assert_allclose(loss(*arrays), exact[0], rtol=1e-6)
        for found, expected in zip(_gradients(loss, *arrays), exact[1:], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(losses.gaussian_kl(*laws), _exact_terms(*laws)[0].sum(-1), rtol=1e-6)
    assert not np.any(losses.gaussian_kl(*laws[:2], *laws[:2]))
    assert not np.any(_gradients(losses.gaussian_kl, *laws[:2], *laws[:2]))


@pytest.mark.parametrize("shape", [(4, 3, 5), (4096, 64)])  # the second takes blocks of rows
@pytest.mark.parametrize("name", ["standard_normal_kl", "gaussian_kl"])
def test_the_kl_of_a_law_is_the_sum_of_its_components_where_they_count(name, shape):
    loss, terms = getattr(losses, name), getattr(losses, f"{name}_per_component")
    laws = _components(shape, 0.3)[: 2 if name == "standard_normal_kl" else 4]
    wide = [x.astype(np.float64) for x in laws] + [np.zeros(shape)] * (4 - len(laws))
    m, a, n, b = wide
    exact = 0.5 * (np.expm1(2 * (a - b)) - 2 * (a - b) + ((m - n) * np.exp(-b)) ** 2)
    mask = RNG.random(shape) < 0.7
    bad = [np.where(mask, x, np.nan) for x in laws]
    np.testing.assert_allclose(terms(*laws), exact, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(terms(*bad, where=mask), np.where(mask, exact, 0), rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(loss(*bad, where=mask), np.where(mask, exact, 0).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(loss(*bad, axis=(0, -1), where=mask), np.where(mask, exact, 0).sum((0, -1)), rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(loss)(*laws), exact.sum(-1), rtol=1e-5)
    gradients = _gradients(lambda *laws: loss(*laws, where=mask), *bad)
    shift, ratio = (m - n) * np.exp(-b), np.expm1(2 * (a - b))
    slopes = (shift * np.exp(-b), ratio, -shift * np.exp(-b), -ratio - shift**2)
    for found, slope in zip(gradients, slopes, strict=False):
        np.testing.assert_allclose(found, np.where(mask, slope, 0), rtol=1e-4, atol=1e-5)


def test_a_prior_broadcasts_and_a_law_does_not():
    loc, log_scale, prior_loc, prior_log_scale = _components((4, 5), 1.0)
    for shape in ((5,), (4, 1), (1, 1), ()):
        n, b = (np.resize(x, shape) for x in (prior_loc, prior_log_scale))
        full = [np.broadcast_to(x, (4, 5)) for x in (n, b)]
        expected = losses.gaussian_kl(loc, log_scale, *full)
        np.testing.assert_allclose(losses.gaussian_kl(loc, log_scale, n, b), expected, rtol=1e-6)
        assert _gradients(losses.gaussian_kl, loc, log_scale, n, b)[2].shape == shape
    with pytest.raises(
        ValueError, match=r"prior_loc of a shape that broadcasts against loc\[4, 5\]; got prior_loc\[4\]"
    ):
        losses.gaussian_kl(loc, log_scale, prior_loc[:, 0], prior_log_scale)
    with pytest.raises(ValueError, match=r"arrays of equal shape; got loc\[4, 5\] and log_scale\[5\]"):
        losses.gaussian_kl(loc, log_scale[0], prior_loc, prior_log_scale)
    half = losses.gaussian_kl(*(jnp.asarray(x, jnp.bfloat16) for x in (loc, log_scale, prior_loc, prior_log_scale)))
    assert half.dtype == jnp.bfloat16


EXTREME = [
    (0.0, 90.0, 0.0, 0.0),
    (3e38, 0.0, -3e38, 0.0),
    (0.0, 0.0, 0.0, -90.0),
    (1.0, -90.0, 0.0, -90.0),
    (1.0, -np.inf, 1.0, 0.0),
    (1.0, np.inf, 1.0, 0.0),
    (0.0, 0.0, 0.0, np.inf),
    (0.0, 0.0, 0.0, -np.inf),
    (1e30, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize("law", EXTREME)
def test_where_a_kl_of_normal_laws_overflows_gradients_are_zero_whatever_weighs_them_later(law):
    law = [jnp.full((2, 1), x, jnp.float32) for x in law]
    law = [x.at[1].set(y) for x, y in zip(law, (1.0, 0.0, 0.0, 0.0), strict=True)]
    for loss in (losses.gaussian_kl, losses.gaussian_kl_per_component):
        value = loss(*law).ravel()
        np.testing.assert_allclose(value, [np.inf, 0.5])
        for gradient in _gradients(loss, *law):
            assert gradient[0] == 0
    for options in ({"where": jnp.array([False, True])}, {"weights": jnp.array([0.0, 1.0])}):
        weighed = functools.partial(losses.mean, **options)
        gradients = _gradients(lambda *law, weighed=weighed: weighed(losses.gaussian_kl(*law)), *law)
        np.testing.assert_allclose(np.ravel(gradients), [0, 1, 0, 0, 0, -1, 0, -1])
    standard = [law[0] - law[2], law[1] - law[3]]
    if jnp.isinf(losses.standard_normal_kl(*standard)[0]):
        assert not any(x[0] for x in _gradients(losses.standard_normal_kl, *standard))


def test_tiny_scales_of_law_and_prior_cancel():
    found = losses.gaussian_kl(*(jnp.full(1, x, jnp.float32) for x in (1e-39, -90.0, 0.0, -90.0)))
    assert losses.gaussian_kl(*(jnp.full(1, x, jnp.float32) for x in (1.0, -120.0, 1.0, -120.0))) == 0
    np.testing.assert_allclose(
        losses.gaussian_kl(*(jnp.full(1, x, jnp.float32) for x in (1e-36, -95.0, 0.0, -95.0))),
        0.5 * (float(np.float32(1e-36)) * np.exp(95.0)) ** 2,
        rtol=1e-5,
    )
    assert jnp.isfinite(found)


def test_the_mean_of_half_precision_is_float32():
    x = jnp.asarray(RNG.normal(size=300) + 4, jnp.bfloat16)
    mean = losses.mean(x)
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, np.mean(np.asarray(x, np.float64)), rtol=1e-6)


def test_narrow_labels_count_more_classes_than_they_hold():
    logits = jnp.arange(300.0) / 50
    for label in (3, 100):
        wide = losses.cross_entropy_with_labels(logits, jnp.int32(label))
        for dtype in (jnp.int8, jnp.uint8, jnp.int16):
            np.testing.assert_array_equal(losses.cross_entropy_with_labels(logits, jnp.array(label, dtype)), wide)


def test_smoothed_labels_are_rounded_once():
    logits, label = jnp.arange(6, dtype=jnp.bfloat16) / 3, jnp.int32(1)
    wide = losses.cross_entropy_with_labels(logits.astype(jnp.float32), label, label_smoothing=0.3)
    assert losses.cross_entropy_with_labels(logits, label, label_smoothing=0.3) == wide.astype(jnp.bfloat16)


@pytest.mark.parametrize("target", [0.7, -0.7])
def test_bernoulli_kl_has_the_second_derivatives_of_its_formula_in_the_temperature_too(target):
    def plain(x, y, t):
        p, less = jax.nn.sigmoid(y / t), jax.nn.sigmoid(-y / t)
        return p * (jax.nn.log_sigmoid(y / t) - jax.nn.log_sigmoid(x / t)) + less * (
            jax.nn.log_sigmoid(-y / t) - jax.nn.log_sigmoid(-x / t)
        )

    with x64(np.float64):
        at = tuple(np.float64([-0.4, target, 1.7]))
        found = jax.hessian(lambda x, y, t: losses.bernoulli_kl(x, y, temperature=t), (0, 1, 2))(*at)
        np.testing.assert_allclose(found, jax.hessian(plain, (0, 1, 2))(*at), 1e-12)


def test_weights_of_views_are_divided_in_the_working_precision():
    views, weights = jnp.arange(12.0).reshape(3, 1, 4) % 5, jnp.array([0.1, 0.2, 0.3], jnp.bfloat16)
    np.testing.assert_array_equal(
        losses.js_of(views, weights=weights), losses.js_of(views, weights=weights.astype(jnp.float32))
    )
    with pytest.raises(ValueError, match="at least one view"):
        losses.js_of(jnp.zeros((0, 3)))


def test_where_two_infinite_log_scales_agree_there_is_no_gradient():
    one, sharp = jnp.ones(1), jnp.array([-jnp.inf])
    value, slopes = jax.value_and_grad(losses.gaussian_kl, (0, 1, 2, 3))(one, sharp, one, sharp)
    assert value == 0
    assert not np.any(slopes)


@pytest.mark.parametrize("loss", ["js", "rescaled_js"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_at_the_ends_of_a_weight_its_slope_is_finite_whatever_the_supports(loss, weight):
    p, q = jnp.array([0, 1, -jnp.inf]), jnp.array([0, -jnp.inf, 1])
    name = {"js": "weight", "rescaled_js": "beta"}[loss]
    slope = jax.grad(lambda w: getattr(losses, loss)(p, q, **{name: w}))(weight)
    assert np.isfinite(slope)


@pytest.mark.parametrize("loss", ["js", "generalized_js", "rescaled_js", "amari"])
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_at_the_ends_of_a_parameter_its_slope_is_the_limit(loss, end):
    name = {"js": "weight", "amari": "alpha"}.get(loss, "beta")
    p, q = np.random.default_rng(0).normal(size=(2, 3, 5))
    with x64(np.float64):
        of = jax.jacrev(lambda w: getattr(losses, loss)(jnp.asarray(p), jnp.asarray(q), **{name: w}))
        at, near = of(end), of(abs(end - 1e-6))
    np.testing.assert_allclose(at, near, 1e-4)


@pytest.mark.parametrize("unit", [2.0**126, 2.0**-126])
def test_a_common_factor_of_weights_does_not_matter(unit):
    values, weights = np.float32([1, 3, 2]), np.float32([3, 2, 3])
    plain, scaled = (losses.mean(values, weights=w) for w in (weights, np.float32(unit) * weights))
    np.testing.assert_array_equal(scaled, plain)


def test_the_slope_of_a_mean_in_a_weight_of_zero_is_that_of_its_example():
    values, weights = jnp.array([1.0, 3.0, jnp.inf, jnp.nan]), jnp.array([1.0, 0.0, 0.0, 0.0])
    slope = jax.grad(lambda w: losses.mean(values, weights=w))(weights)
    np.testing.assert_allclose(slope, [0, 2, -1, -1])  # of an infinite value what the sum of weights has
    masked = jax.grad(lambda w: losses.mean(values, weights=w, where=jnp.arange(4) != 1))(weights)
    np.testing.assert_allclose(masked, [0, 0, -1, -1])
    assert not jnp.any(jax.grad(lambda x: losses.mean(x, weights=weights))(values)[1:])


def test_a_python_integer_of_any_size_is_a_number():
    values = jnp.ones(3)
    np.testing.assert_allclose(losses.mean(values, denominator=3_000_000_000), 1e-9, 1e-6)
    x, y = jnp.zeros((1, 2)), jnp.ones((1, 2))
    np.testing.assert_array_equal(
        losses.forward_kl(x, y, temperature=10**10), losses.forward_kl(x, y, temperature=1e10)
    )

"""Targets of which only some classes are known: what each tail means, and what it bounds."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from marks import with_all
from measure import digits, exact, ulps

from jaxdiv import fused, losses, topk

ROWS, V, K = 64, 12, 4
LOSSES = {
    "forward_kl": losses.forward_kl,
    "reverse_kl": losses.reverse_kl,
    "jeffreys": losses.jeffreys,
    "js": losses.js,
    "generalized_js": functools.partial(losses.generalized_js, beta=0.3),
    "total_variation": losses.total_variation,
    "squared_hellinger": losses.squared_hellinger,
    "amari": functools.partial(losses.amari, alpha=0.7),
}


def _logits(seed=0, shape=(ROWS, V)):
    rng = np.random.default_rng(seed)
    return (jnp.asarray(2 * rng.normal(size=shape), jnp.float32) for _ in range(2))


@functools.cache
def _values(tail):
    """Every loss of the same rows under a tail, or of all classes."""
    x, y = _logits()

    @jax.jit
    def values(x, y):
        top = topk.from_logits(y, K)
        return {name: topk.lift(loss, tail=tail)(x, top) for name, loss in LOSSES.items()}

    return jax.device_get(_of_all_classes(x, y) if tail == "all" else values(x, y))


def _expected(tail):
    """The two laws of a tail, over all classes or over coarser ones, in float64."""
    x, y = (np.asarray(z, np.float64) for z in _logits())
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (x, y))
    order = np.argsort(-q, -1)
    p, q = (np.take_along_axis(z, order, -1) for z in (p, q))
    if tail == "renormalized":
        q[:, K:] = 0
        return p, q / q.sum(-1, keepdims=True)
    if tail == "uniform":
        q[:, K:] = q[:, K:].mean(-1, keepdims=True)
        return p, q
    return tuple(np.concatenate([z[:, :K], z[:, K:].sum(-1, keepdims=True)], -1) for z in (p, q))


@jax.jit
def _of_all_classes(x, y):
    return {name: loss(x, y) for name, loss in LOSSES.items()}


@pytest.mark.parametrize("tail", ["bucket", *with_all("renormalized", "uniform")])
def test_a_tail_means_what_it_says(tail):
    with np.errstate(divide="ignore"):
        expected = _of_all_classes(*(np.log(z.astype(np.float32)) for z in _expected(tail)))
    for name, value in _values(tail).items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("name", LOSSES)
def test_the_bucket_and_the_worst_tail_enclose_the_loss_of_all_classes(name):
    lower, value, upper = (_values(tail)[name] for tail in ("bucket", "all", "worst"))
    assert np.all(lower >= 0)
    assert np.all(lower <= value * (1 + 1e-6))
    assert np.all(value <= upper * (1 + 1e-6))
    assert np.mean(value - lower) > 0.001
    if name not in ("reverse_kl", "jeffreys"):
        assert np.all(upper < 3 * value + 1), "a bound that says something"


@pytest.mark.gate
def test_the_worst_tail_is_attained():
    # Two classes of the least known probability, on the two least likely predictions, which are equal.
    x = jnp.array([[0.0, 1.0, -2.0, -2.0, 2.0]])
    q = jnp.array([[0.6, 0.2, 0.1, 0.1, 0.0]])
    top = topk.TopK(jnp.log(q[:, :3]), jnp.array([[0, 1, 2]]), jnp.log(q[:, 3]))
    worst = topk.lift(losses.forward_kl, tail="worst")(x.at[0, 2].set(0.5), top)
    np.testing.assert_allclose(worst, losses.forward_kl(x.at[0, 2].set(0.5), jnp.log(q)), rtol=1e-6)


@pytest.mark.parametrize("tail", topk.TAILS)
@pytest.mark.parametrize("name", ["forward_kl", *with_all(*(x for x in LOSSES if x != "forward_kl"))])
def test_an_unlisted_class_that_the_predictions_exclude_is_as_if_it_were_not_there(name, tail):
    x, y = _logits(3, (5, V))
    top = topk.from_logits(y, K)
    more = jnp.pad(x, ((0, 0), (0, 2)), constant_values=-jnp.inf)
    loss = topk.lift(LOSSES[name], tail=tail)
    np.testing.assert_allclose(loss(more, top), loss(x, top), 1e-6)


@pytest.mark.gate
def test_padding_and_repeated_indices_change_nothing():
    x, y = _logits(1, (3, V))
    top = topk.from_logits(y, K)
    padded = topk.TopK(
        jnp.concatenate([top.log_probs, top.log_probs[:, :1] + 5, jnp.full((3, 1), 7.0)], -1),
        jnp.concatenate([top.indices, top.indices[:, :1], jnp.full((3, 1), -1)], -1),
        top.log_tail,
    )

    @jax.jit
    def gradients(x, top):
        return [jax.value_and_grad(lambda x, f=f: f(x, top).sum())(x) for f in all_tails]

    all_tails = [topk.lift(losses.squared_hellinger, tail=tail) for tail in topk.TAILS]
    for a, b in zip(*(jax.tree.leaves(gradients(x, t)) for t in (top, padded)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)
    assert not jnp.any(jnp.isfinite(topk.from_indices(y, padded.indices).log_probs[:, K:]))


def test_an_index_beyond_the_last_class_is_nan_in_its_row_only():
    x, y = _logits(1, (3, V))
    top = topk.from_logits(y, K)
    beyond = top._replace(indices=top.indices.at[1, 2].set(V))
    for tail in topk.TAILS:
        value = topk.lift(losses.js, tail=tail)(x, beyond)
        np.testing.assert_array_equal(jnp.isnan(value), [False, True, False], err_msg=tail)
    np.testing.assert_array_equal(jnp.isnan(topk.from_indices(y, beyond.indices).log_tail), [False, True, False])


def test_a_fused_head_finds_the_likeliest_classes():
    hidden, _ = _logits(7, (10, 5))
    head = next(_logits(8, (5, V)))
    found = fused.linear_divergence(hidden, head, None, lambda x, _: topk.from_logits(x, K), memory=8 * V * 4)
    for a, b in zip(found, topk.from_logits(hidden @ head, K), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_half_precision_selects_as_float32_does():
    x = next(_logits(10)).astype(jnp.bfloat16)
    found = jnp.take_along_axis(x, topk.from_logits(x, K).indices, -1)
    np.testing.assert_array_equal(found, jax.lax.top_k(x, K)[0])


def test_without_a_tail_it_has_what_is_missing_to_one():
    x, y = _logits(2, (3, V))
    top = topk.from_logits(y, K)
    loss = topk.lift(losses.forward_kl, tail="bucket")
    np.testing.assert_allclose(loss(x, top._replace(log_tail=None)), loss(x, top), rtol=1e-5)
    whole = topk.from_logits(y, V)._replace(log_tail=None)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: loss(x, whole).sum()))(x)
    np.testing.assert_allclose(value, losses.forward_kl(x, y).sum(), rtol=1e-5)
    assert jnp.all(jnp.isfinite(gradient))


def test_a_small_tail_that_is_missing_to_one_keeps_its_digits():
    known = np.array([[-1e-6], [-1e-4], [-0.5]], np.float32)
    tail = np.log(-np.expm1(known.astype(np.float64)))[:, 0]
    x = jnp.asarray(np.stack([known[:, 0], tail + 1], -1), jnp.float32)
    loss = jax.jit(topk.lift(losses.forward_kl, tail="bucket"))
    first = jnp.zeros((3, 1), jnp.int32)
    found = loss(x, topk.TopK(jnp.asarray(known), first, None))
    given = loss(x, topk.TopK(jnp.asarray(known), first, jnp.asarray(tail, jnp.float32)))
    np.testing.assert_allclose(found, given, rtol=1e-5)


def test_gradients_are_those_of_the_coarse_classes():
    x, y = _logits(3, (5, V))
    top = topk.from_logits(y, K)
    gradient = jax.jit(jax.grad(lambda x: topk.lift(losses.forward_kl, tail="bucket")(x, top).sum()))(x)
    q, p = np.exp(np.float64(y)), np.exp(np.float64(x))
    q, p = (z / z.sum(-1, keepdims=True) for z in (q, p))
    listed = np.zeros((5, V), bool)
    np.put_along_axis(listed, np.asarray(top.indices), True, -1)
    tails = [np.where(listed, 0, z).sum(-1, keepdims=True) for z in (q, p)]
    np.testing.assert_allclose(gradient, p - np.where(listed, q, p * tails[0] / tails[1]), atol=2e-7)


def _exact_kl(p, q):
    return mp.fsum(a * mp.log(a / b) for a, b in zip(p, q, strict=True))


def _exact_js(p, q):
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (_exact_kl(p, m) + _exact_kl(q, m)) / 2


EXACT = {"forward_kl": lambda p, q: _exact_kl(q, p), "reverse_kl": _exact_kl, "js": _exact_js}


@digits
def _bucketed(name, x, y, k):
    """A loss of k classes and a bucket, from logits whose first k classes are listed."""
    p, q = ([mp.exp(z) for z in exact(row)] for row in (x, y))
    p, q = ([z / mp.fsum(row) for z in row] for row in (p, q))
    return EXACT[name](*([*row[:k], mp.fsum(row[k:])] for row in (p, q)))


@pytest.mark.parametrize("tail_logit", [-20.7, 20.7], ids=["tail 1e-9", "tail 1 - 1e-9"])
def test_a_tail_of_any_mass_is_accurate(tail_logit):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(4, V)).astype(np.float32)
    x[:, 2:] += np.float32(tail_logit)
    y = (x + rng.normal(size=x.shape)).astype(np.float32)
    indices = jnp.tile(jnp.array([[0, 1]]), (4, 1))

    @jax.jit
    def values_and_gradients(x, y):
        def total(x, name):
            values = topk.lift(LOSSES[name], tail="bucket")(x, topk.from_indices(y, indices))
            return jnp.sum(values), values

        return {name: jax.grad(total, has_aux=True)(x, name) for name in EXACT}

    for name, (gradient, values) in values_and_gradients(jnp.asarray(x), jnp.asarray(y)).items():
        assert jnp.all(jnp.isfinite(gradient))
        for value, *rows in zip(values, x, y, strict=True):
            # The tail's log-sum-exp is rounded at its own size, 32 ulps of one at most.
            assert value >= 0
            assert ulps(value, _bucketed(name, *rows, 2), np.float32, scale=1e-8) <= 64 * max(1, 1e-8 / float(value))


def test_a_sampled_token_and_the_students_own_likeliest_classes_are_forms_of_it():
    x, y = _logits(5, (6, V))
    token = jnp.argmax(x, -1)[:, None]
    binary = jax.jit(lambda x, y: topk.lift(losses.forward_kl, tail="bucket")(x, topk.from_indices(y, token)))(x, y)
    p, q = (jnp.take_along_axis(jax.nn.softmax(z), token, -1) for z in (x, y))
    laws = (jnp.log(jnp.concatenate([z, 1 - z], -1)) for z in (p, q))
    np.testing.assert_allclose(binary, losses.forward_kl(*laws), rtol=1e-4, atol=1e-6)

    @jax.jit
    def of_own(x, y):
        return topk.lift(losses.reverse_kl, tail="bucket")(x, topk.from_indices(y, topk.from_logits(x, K).indices))

    assert jnp.all(of_own(x, y) <= losses.reverse_kl(x, y) * (1 + 1e-6))


@pytest.mark.gate
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_indices_of_few_bits_are_indices(dtype):
    # A file keeps them in the fewest bits that hold the classes; the number of classes need not fit in these.
    x = _logits(10, (3, 256))
    x, y = (z.at[:, 128:].add(-10) for z in x)
    indices = topk.from_logits(y, K).indices
    indices = jnp.concatenate([indices, indices[:, :1]], -1)
    loss = topk.lift(losses.forward_kl, tail="bucket")
    found, expected = (loss(x, topk.from_indices(y, i)) for i in (indices.astype(dtype), indices))
    np.testing.assert_array_equal(found, expected)


def test_the_temperature_is_that_of_both():
    x, y = _logits(6, (3, V))
    soft = topk.lift(losses.forward_kl, tail="uniform")(x, topk.from_logits(y, V, temperature=3.0), temperature=3.0)
    np.testing.assert_allclose(soft, losses.forward_kl(x, y, temperature=3.0), rtol=1e-5)


@pytest.mark.gate
def test_a_fused_head_takes_it_for_a_teacher():
    hidden, _ = _logits(7, (10, 5))
    head, y = next(_logits(8, (5, V))), next(_logits(9, (10, V)))
    top, loss = topk.from_logits(y, K), topk.lift(losses.js, tail="bucket")

    def fused_mean(head):
        return fused.mean_linear_divergence(hidden, head, top, loss, memory=8 * V * 4)

    pair = (jax.jit(jax.value_and_grad(f))(head) for f in (fused_mean, lambda head: loss(hidden @ head, top).mean()))
    for a, b in zip(*pair, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_wrong_indices_and_tails_are_refused():
    x, y = _logits(0, (3, V))
    with pytest.raises(ValueError, match=r"^topk.lift takes tail as one of renormalized, .*; got 'none'\."):
        topk.lift(losses.js, tail="none")
    with pytest.raises(TypeError, match=r"^topk.from_indices takes integer indices; got indices float32\[3, 12\]\."):
        topk.from_indices(x, y)
    with pytest.raises(ValueError, match=r"^topk.from_logits takes k from 1 to the number of classes, 12; got 13"):
        topk.from_logits(x, 13)
    with pytest.raises(
        ValueError, match=r"^topk.from_indices takes indices .*; got indices\[3\] for logits\[3, 12\]\."
    ):
        topk.from_indices(x, jnp.zeros(3, int))


@pytest.mark.parametrize("loss", [losses.bernoulli_kl, losses.forward_kl_with_probs, losses.with_probs(losses.js)])
def test_losses_of_events_and_of_probabilities_are_refused(loss):
    with pytest.raises(TypeError, match=r"^topk.lift takes a loss of logits"):
        topk.lift(loss, tail="bucket")


def test_a_temperature_belongs_to_the_lifted_loss():
    softened = functools.partial(losses.distillation, temperature=2.0)
    with pytest.raises(
        TypeError, match=r"^topk.lift takes a loss without its temperature; got temperature=2.0, .*top k"
    ):
        topk.lift(softened, tail="bucket")


def test_what_is_no_top_k_is_refused():
    x, y = _logits(0, (3, V))
    top, loss = topk.from_logits(y, K), topk.lift(losses.js, tail="bucket")
    with pytest.raises(TypeError, match=r"^topk.lift takes targets as a topk.TopK; got ArrayImpl.*topk.from_logits"):
        loss(x, y)
    with pytest.raises(ValueError, match=r"a log-probability to an index .*; got log_probs\[3, 3\], .* log_tail\[3\]"):
        loss(x, top._replace(log_probs=top.log_probs[:, :3]))
    with pytest.raises(ValueError, match=r"one log_tail to an example; got .*, indices\[3, 4\], log_tail\[3, 1\]"):
        loss(x, top._replace(log_tail=top.log_tail[:, None]))


@pytest.mark.parametrize("tail", topk.TAILS)
def test_classes_are_on_the_last_axis_and_masks_are_of_examples(tail):
    x, y = _logits(0, (3, V))
    top, loss = topk.from_logits(y, K), topk.lift(losses.forward_kl, tail=tail)
    plain = loss(x, top)
    for axis in (-1, 1, (1,)):
        np.testing.assert_array_equal(loss(x, top, axis=axis), plain)
    kept = jnp.array([True, False, True])
    np.testing.assert_array_equal(loss(x, top, where=kept[:, None]), jnp.where(kept, plain, 0))
    for axis in (0, (0, 1)):
        with pytest.raises(ValueError, match=r"^topk.lift takes classes on the last axis; got axis=.*\. Move them"):
            loss(x, top, axis=axis)
    for shape in ((V,), (3, V), (3, K + 1)):
        with pytest.raises(ValueError, match=r"^topk.lift takes where as a mask of examples, .* got where\[.*\]\. To"):
            loss(x, top, where=jnp.ones(shape, bool))

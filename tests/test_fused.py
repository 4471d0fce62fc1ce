"""The fused head against the loss of logits that are all there: numbers, memory, devices."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import optax
import pytest
from marks import with_all
from measure import digits, exact, normwise, ulps

from jaxdiv import fused, losses, objectives
from jaxdiv._core import tuning

T, H, V = 21, 4, 50
BLOCK = 8 * V * 5  # bytes: blocks of five tokens, the last of which overlaps the one before


def _arrays(*shapes, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32).astype(dtype) for shape in shapes]


def _close(x, y, rtol=2e-6):
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.max(np.abs(b)))


HIDDEN, HEAD, TARGETS, WEIGHTS = _arrays((T, H), (H, V), (T, V), (T,))
WEIGHTS = jnp.abs(WEIGHTS)
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


SHORT = "forward_kl", "js", "amari"  # one of each way to a sum


def _every(logits, targets):
    return {name: loss(logits, targets) for name, loss in LOSSES.items()}


def _fused(hidden, head, *rest, loss=losses.forward_kl, **options):
    return fused.mean_linear_divergence(hidden, head, TARGETS, loss, weights=WEIGHTS, memory=BLOCK, **options)


def _unfused(hidden, head, loss=losses.forward_kl, **options):
    return losses.mean(loss(hidden @ head, TARGETS, **options), weights=WEIGHTS)


def test_each_token_has_the_value_of_every_loss():
    found = jax.jit(lambda x, w: fused.linear_divergence(x, w, TARGETS, _every, memory=BLOCK))(HIDDEN, HEAD)
    _close(found, jax.jit(_every)(HIDDEN @ HEAD, TARGETS))


@pytest.mark.parametrize("name", ["forward_kl", "js", "total_variation"])
def test_the_gradient_is_that_of_the_logits(name):
    step = functools.partial(jax.value_and_grad, argnums=(0, 1))
    _close(*(jax.jit(step(functools.partial(f, loss=LOSSES[name])))(HIDDEN, HEAD) for f in (_fused, _unfused)))


def _everything(mean):
    """A loss of all that can move: student and teacher of other sizes, biases, scales, caps, numbers, weights."""

    def loss(arrays, numbers, weights):
        x, w, b, y, u = arrays
        temperature, beta, scale, cap = numbers
        options = {"temperature": temperature, "beta": beta}
        if mean is None:
            student = cap * jnp.tanh((jnp.einsum("bth,vh->btv", x, w) + b[None, None]) * scale / cap)
            per_token = losses.generalized_js(student, jnp.einsum("bth,vh->btv", y, u), **options)
            return losses.mean(per_token, weights=weights)
        teacher = fused.Linear(y, u)
        options |= {"bias": b, "logit_scale": scale, "soft_cap": cap, "class_axis": 0, "memory": BLOCK}
        if mean:
            return fused.mean_linear_divergence(x, w, teacher, losses.generalized_js, weights=weights, **options)
        per_token = fused.linear_divergence(x, w, teacher, losses.generalized_js, **options)
        return losses.mean(per_token, weights=weights)

    arrays = _arrays((3, 7, H), (V, H), (V,), (3, 7, 6), (V, 6))
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(arrays, [1.3, 0.3, 0.8, 5.0], WEIGHTS.reshape(3, 7))


@pytest.mark.parametrize("unit", [2.0**126, 2.0**-126])
def test_a_common_factor_of_weights_does_not_matter(unit):
    weights = jnp.ones(T).at[0].set(3)
    _close(
        *(fused.mean_linear_divergence(HIDDEN, HEAD, TARGETS, losses.js, weights=w) for w in (unit * weights, weights))
    )


@pytest.mark.parametrize("name", [*SHORT, *with_all(*(x for x in LOSSES if x not in SHORT))])
def test_without_a_class_values_and_gradients_are_those_of_the_loss(name):
    def values(hidden, head, targets):
        per_token = fused.linear_divergence(hidden, head, targets, LOSSES[name], where=where, memory=BLOCK)
        mean = fused.mean_linear_divergence(hidden, head, targets, LOSSES[name], where=where, memory=BLOCK)
        return jnp.sum(per_token) + mean

    where = jnp.zeros(V, bool)
    np.testing.assert_array_equal(LOSSES[name](HIDDEN @ HEAD, TARGETS, where=where[None]), 0)
    for x in jax.tree.leaves(jax.jit(jax.value_and_grad(values, (0, 1, 2)))(HIDDEN, HEAD, TARGETS)):
        np.testing.assert_array_equal(x, np.zeros(x.shape))


@pytest.mark.parametrize("mean", [True, *with_all(False)])
def test_everything_that_moves_has_its_gradient(mean):
    _close(_everything(mean), _everything(None), 1e-5)


@pytest.mark.parametrize(
    "of",
    [
        _fused,
        lambda x, w: losses.mean(
            fused.linear_divergence(x, w, TARGETS, losses.forward_kl, memory=BLOCK), weights=WEIGHTS
        ),
    ],
    ids=["mean", "per token"],
)
def test_transformations_agree_with_those_of_the_logits(of):
    x, w = _arrays((T, H), (H, V), seed=1)

    @functools.partial(jax.jit, static_argnums=0)
    def ways(f):
        gradient = jax.grad(f, argnums=(0, 1))
        return {
            "forward": jax.jvp(f, (HIDDEN, HEAD), (x, w)),
            "hessian times vector": jax.jvp(gradient, (HIDDEN, HEAD), (x, w))[1],
            "vmap": jax.vmap(gradient, (0, None))(jnp.stack([HIDDEN, x]), HEAD),
            "checkpoint": jax.grad(jax.checkpoint(lambda w: f(HIDDEN, jnp.sin(w))))(HEAD),
            "scan": jax.lax.scan(lambda total, x: (total + f(x, HEAD), None), 0.0, jnp.stack([HIDDEN, x]))[0],
        }

    found, expected = ways(of), ways(_unfused)
    for way, value in expected.items():
        _close(found[way], value, 1e-5)


def test_a_token_without_weight_may_hold_anything():
    mask = jnp.arange(T) % 3 != 0
    spoilt = jnp.where(mask[:, None], HIDDEN, jnp.nan), jnp.where(mask[:, None], TARGETS, jnp.nan)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def step(hidden, head, targets):
        return fused.mean_linear_divergence(hidden, head, targets, losses.js, weights=mask, memory=BLOCK)

    whole, (clean, _) = step(spoilt[0], HEAD, spoilt[1]), step(HIDDEN, HEAD, TARGETS)
    _close(whole[0], clean)
    assert not jnp.any(jnp.isnan(whole[1][1]))
    assert not jnp.any(whole[1][0][~mask])


def test_the_slope_in_a_weight_of_zero_is_the_value_of_its_token():
    weights = jnp.where(jnp.arange(T) % 3 == 0, 0.0, WEIGHTS)

    def fused_mean(weights, head, hidden=HIDDEN):
        return fused.mean_linear_divergence(hidden, head, TARGETS, losses.js, weights=weights, memory=BLOCK)

    def mean(weights, head):
        return losses.mean(losses.js(HIDDEN @ head, TARGETS), weights=weights)

    slopes = [jax.jit(jax.grad(f)) for f in (fused_mean, mean)]
    _close(*(f(weights, HEAD) for f in slopes))
    _close(*(jax.jvp(functools.partial(f, weights), (HEAD,), (HEAD,))[1] for f in slopes))
    spoilt = jax.grad(fused_mean)(weights, HEAD, HIDDEN.at[0].set(jnp.nan))
    _close(spoilt[1:], slopes[1](weights, HEAD)[1:])
    assert jnp.isfinite(spoilt[0])


def test_of_no_token_value_and_gradients_are_zero():
    none = HIDDEN[:0], HEAD, TARGETS[:0]
    value, gradients = jax.value_and_grad(fused.mean_linear_divergence, (0, 1, 2))(*none, losses.js)
    assert value == 0
    assert not np.any(gradients[1])
    each = functools.partial(fused.linear_divergence, divergence=losses.js)
    assert each(*none).shape == (0,)
    assert not np.any(jax.grad(lambda head: each(none[0], head, none[2]).sum())(HEAD))


def test_parts_of_a_batch_add_up_and_nothing_is_zero():
    def loss(part, denominator=None, weights=WEIGHTS):
        return fused.mean_linear_divergence(
            HIDDEN[part], HEAD, TARGETS[part], losses.js, weights=weights[part], denominator=denominator
        )

    @jax.jit
    def results():
        first, second = (loss(slice(*cut), denominator=WEIGHTS.sum()) for cut in ((0, 8), (8, T)))
        return first + second, loss(slice(None)), loss(slice(None), weights=jnp.zeros(T))

    parts, whole, nothing = results()
    _close(parts, whole)
    assert nothing == 0


def test_labels_and_entropies_come_from_the_same_pass():
    labels = jnp.arange(T) % V

    def with_entropies(logits, targets, labels):
        hard_and_soft = objectives.hard_and_soft(losses.forward_kl, weight=0.3)(logits, targets, labels)
        entropies = (losses.cross_entropy(z, z) for z in (logits, targets))
        return hard_and_soft, *entropies

    found = jax.jit(lambda x, w: fused.linear_divergence(x, w, TARGETS, with_entropies, labels, memory=BLOCK))(
        HIDDEN, HEAD
    )
    _close(found, jax.jit(with_entropies)(HIDDEN @ HEAD, TARGETS, labels))


def test_labels_may_be_the_targets():
    labels, exists = jnp.arange(T) % V, jnp.arange(V) < V - 1

    def hard(logits, labels):
        return losses.cross_entropy_with_probs(logits, jax.nn.one_hot(labels, V))

    @jax.jit
    def both(x, w):
        kept = jnp.where(exists, x @ w, -jnp.inf)
        found = fused.mean_linear_divergence(x, w, labels % (V - 1), hard, where=exists, memory=BLOCK)
        return found, jnp.mean(hard(kept, labels % (V - 1)))

    _close(*both(HIDDEN, HEAD))


# ---------------------------------------------------------------- accuracy


@digits
def _exact_kl(x, y):
    """KL(y || x) and its gradient in x."""
    p, q = ([mp.exp(z) for z in exact(row)] for row in (x, y))
    p, q = ([z / mp.fsum(row) for z in row] for row in (p, q))
    return mp.fsum(b * mp.log(b / a) for a, b in zip(p, q, strict=True)), [a - b for a, b in zip(p, q, strict=True)]


@pytest.mark.parametrize("epsilon", [1.0, 1e-3, 1e-6])
def test_the_contract_of_the_loss_holds_near_equality(epsilon):
    # A head that is the identity leaves the logits as they are.
    rng = np.random.default_rng(5)
    x = 3 * rng.normal(size=(6, 40)).astype(np.float32)
    y = x + np.float32(epsilon) * rng.normal(size=x.shape).astype(np.float32)

    @jax.jit
    def results(x, y):
        def mean(x):
            eye = jnp.eye(40)
            return fused.mean_linear_divergence(x, eye, y, losses.forward_kl, denominator=1.0, memory=2 * 4 * 40 * 4)

        return fused.linear_divergence(x, jnp.eye(40), y, losses.forward_kl, memory=2 * 4 * 40 * 4), jax.grad(mean)(x)

    values, gradients = results(x, y)
    for value, gradient, *rows in zip(values, gradients, x, y, strict=True):
        truth, slope = _exact_kl(*rows)
        assert ulps(value, truth, np.float32) <= 2 * 16
        assert normwise(gradient, slope, np.float32) <= 2 * 32


# ---------------------------------------------------------------- padded vocabularies


def test_padding_changes_nothing_not_even_gradients():
    padded = jnp.concatenate([HEAD, jnp.full((H, 6), 100.0)], 1)
    exists = jnp.arange(V + 6) < V

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def step(hidden, head):
        return _fused(hidden, head, where=exists)

    value, (d_hidden, d_head) = step(HIDDEN, padded)
    plain = jax.jit(jax.value_and_grad(_fused, argnums=(0, 1)))(HIDDEN, HEAD)
    _close((value, (d_hidden, d_head[:, :V])), plain, 1e-6)
    assert not jnp.any(d_head[:, V:])


def test_a_shorter_vocabulary_is_padded():
    exists, student = jnp.arange(V) < V - 7, HIDDEN @ HEAD

    @jax.jit
    @jax.value_and_grad
    def ours(targets, hidden):
        return fused.mean_linear_divergence(hidden, HEAD, targets, losses.reverse_kl, where=exists, memory=BLOCK)

    kept = jax.jit(jax.value_and_grad(lambda targets: losses.reverse_kl(student[:, : V - 7], targets).mean()))
    _close(ours(TARGETS[:, : V - 7], HIDDEN), kept(TARGETS[:, : V - 7]))


# ---------------------------------------------------------------- half precision


@pytest.mark.gate
def test_half_precision_is_at_most_twice_as_wrong_as_logits_of_half_precision():
    hidden, head, targets = (x.astype(jnp.bfloat16) for x in _arrays((256, 16), (16, 300), (256, 300), seed=3))

    def step(f, *arrays):
        return jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(*arrays)

    def kept(x, w, y):
        return jnp.mean(losses.forward_kl(x @ w, y).astype(jnp.float32))

    def ours(x, w, y):
        return fused.mean_linear_divergence(x, w, y, losses.forward_kl, memory=8 * 300 * 32)

    truth = step(kept, *(x.astype(jnp.float32) for x in (hidden, head, targets)))
    errors = []
    for f in (ours, kept):
        found = step(f, hidden, head, targets)
        errors.append(
            [
                float(jnp.max(jnp.abs(x.astype(jnp.float32) - y)) / jnp.max(jnp.abs(y)))
                for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True)
            ]
        )
        assert found[1][1].dtype == jnp.bfloat16
    assert np.all(np.array(errors[0]) <= 2 * np.array(errors[1]))
    assert errors[0][0] < 1e-6 < errors[1][0]


# ---------------------------------------------------------------- memory


def _shapes(t, h, v, dtype=jnp.float32):
    return [jax.ShapeDtypeStruct(shape, dtype) for shape in ((t, h), (h, v), (t, h), (h, v))]


def _distilled(x, w, y, u, memory=2**24):
    return fused.mean_linear_divergence(x, w, fused.Linear(y, u), losses.forward_kl, memory=memory)


def _materialised(x, w, y, u):
    return jnp.mean(losses.forward_kl(x @ w, jax.lax.stop_gradient(y @ u)))


def test_the_temporaries_are_a_twenty_fifth_of_those_of_the_logits(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    ours, theirs = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1))).lower(*_shapes(2048, 512, 32000)).compile()
        for f in (_distilled, _materialised)
    )
    ours, theirs = (f.memory_analysis().temp_size_in_bytes for f in (ours, theirs))
    assert ours <= theirs / 25


def _distilled_per_token(x, w, y, u):
    return jnp.mean(fused.linear_divergence(x, w, fused.Linear(y, u), losses.forward_kl, memory=2**24))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("of", [_distilled, _distilled_per_token], ids=["mean", "per token"])
def test_an_accelerator_gets_no_array_of_all_logits(platform, of):
    step = jax.jit(jax.value_and_grad(of, argnums=(0, 1)))
    text = step.trace(*_shapes(1024, 64, 8000)).lower(lowering_platforms=(platform,)).as_text()
    sizes = [math.prod(map(int, dims.split("x")[:-1])) for dims in re.findall(r"tensor<([\dx]+x)[a-z]", text)]
    assert 64 * 8000 in sizes
    # Two blocks of logits fill the budget.
    assert max(sizes) <= 2**24 // 8


@pytest.mark.parametrize("class_axis", [0, 1])
def test_a_head_is_not_copied_in_either_order(class_axis):
    def loss(x, w, y, u):
        return fused.mean_linear_divergence(
            x, w, fused.Linear(y, u), losses.forward_kl, class_axis=class_axis, memory=2**17
        )

    x, w, y, u = _shapes(64, 24, 1000)
    if class_axis == 0:
        w, u = (jax.ShapeDtypeStruct(z.shape[::-1], z.dtype) for z in (w, u))
    text = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(x, w, y, u).compile().as_text()
    moved = re.findall(r"= f32\[([\d,]+)\]\S* (?:transpose|copy)\(", text)
    assert re.search(r"f32\[(24,1000|1000,24)\]", text)
    assert not {"24,1000", "1000,24"} & set(moved)


def _cross_entropy_of_a_user(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


@pytest.mark.parametrize(
    "loss",
    [
        _cross_entropy_of_a_user,
        lambda logits, _: jnp.sum(logits * logits, -1),
        losses.cross_entropy_with_labels,
    ],
)
def test_slopes_take_the_place_of_logits_without_a_copy_of_them(loss, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(tuning, "BLOCK", 4 * 1000)

    def step(x, w, labels):
        return fused.mean_linear_divergence(x, w, labels, loss, memory=2 * 4 * 16 * 1000)

    shapes = *_shapes(64, 24, 1000)[:2], jax.ShapeDtypeStruct((64,), jnp.int32)
    text = jax.jit(jax.value_and_grad(step, argnums=(0, 1))).lower(*shapes).compile().as_text()
    assert "f32[16,1000]" in text
    assert not re.findall(r"f32\[16,1000\]\S* copy\(", text)


# ---------------------------------------------------------------- errors


def test_what_does_not_go_together_is_refused():
    call = functools.partial(fused.linear_divergence, divergence=losses.js)
    with pytest.raises(ValueError, match=r"^fused.linear_divergence takes .* got student_hidden\[21, 4\] .*Transpose"):
        call(HIDDEN, HEAD.T, TARGETS)
    with pytest.raises(TypeError, match=r"of one dtype; got student_hidden\[21, 4\] float32 .* bfloat16"):
        call(HIDDEN, HEAD.astype(jnp.bfloat16), TARGETS)
    with pytest.raises(ValueError, match=r"vocabularies of equal length; got \[50, 40\].*arange\(50\) < 40\."):
        call(HIDDEN, HEAD, TARGETS[:, :40])
    with pytest.raises(ValueError, match=r"leading axes of student_hidden, \[21\]; got teacher\[20, 50\]"):
        call(HIDDEN, HEAD, TARGETS[:20])
    with pytest.raises(ValueError, match=r"one boolean to a class, \[50\]; got where bool\[21\]"):
        call(HIDDEN, HEAD, TARGETS, where=jnp.ones(T, bool))
    with pytest.raises(ValueError, match=r"one number to a class of the head, \[50\]; got teacher.bias\[21\]"):
        call(HIDDEN, HEAD, fused.Linear(HIDDEN, HEAD, jnp.ones(T)))
    with pytest.raises(ValueError, match=r"takes soft_cap as one number; got soft_cap\[50\]"):
        call(HIDDEN, HEAD, TARGETS, soft_cap=jnp.ones(V))
    with pytest.raises(ValueError, match=r"takes memory as a positive integer, in bytes; got 0\."):
        call(HIDDEN, HEAD, TARGETS, memory=0)
    with pytest.raises(ValueError, match=r"with a result to a token, \[21\] for 21 tokens; got \[\]\. Do not reduce"):
        fused.linear_divergence(HIDDEN, HEAD, TARGETS, lambda x, y: jnp.mean(losses.js(x, y)))
    with pytest.raises(ValueError, match=r"with one number to a token, .* got \[\[21\], \[21\]\]\. fused.linear_diver"):
        fused.mean_linear_divergence(HIDDEN, HEAD, TARGETS, lambda x, y: (losses.js(x, y), losses.js(y, x)))


def test_no_tokens_have_no_loss():
    hidden, targets = jnp.zeros((0, H)), jnp.zeros((0, V))
    value, gradient = jax.value_and_grad(lambda w: fused.mean_linear_divergence(hidden, w, targets, losses.forward_kl))(
        HEAD
    )
    assert value == 0
    assert not jnp.any(gradient)
    assert fused.linear_divergence(hidden, HEAD, targets, losses.forward_kl).shape == (0,)

"""A second call compiles nothing: of every public function, and with functions of callers that are the same."""

import functools
import gc
import sys
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_public_api import FUNCTIONS, find

import jaxdiv
from jaxdiv import (
    bernoulli,
    categorical,
    elementary,
    estimators,
    fused,
    gaussian,
    losses,
    metrics,
    mixture,
    objectives,
    simplex,
    topk,
    transforms,
)

X = jax.random.normal(jax.random.key(0), (6, 4))
Y, P, W, KEY = X[::-1], jax.nn.softmax(X), jnp.eye(4), jax.random.key(1)
LABELS = jnp.arange(6) % 4
STATE = metrics.update(metrics.empty(4), X[:, 0], groups=LABELS)
NORMAL = gaussian.Normal(jnp.zeros(3), jnp.ones(3))


def of_moved(x):
    return losses.forward_kl(x, X)


def of_outputs(x):
    return losses.forward_kl(x, Y).sum()


def of_weights(w):
    return losses.forward_kl(X @ w, X).mean()


def outputs(w):
    return X @ w


def log_density(z):
    return -0.5 * z * z


def log_density_beside(z):
    return -0.5 * (z - 1) ** 2


def _updated(transform):
    return transform.update(W, transform.init(W), W, divergence=of_weights)


def _controlled(rule):
    controller = transforms.adaptive_coefficient(0.1, rule)
    return controller.update(jnp.float32(0.2), controller.init())


CALLS = {
    "pairwise": lambda: jaxdiv.pairwise(simplex.js, P),
    "nearest": lambda: jaxdiv.nearest(simplex.js, P, P, k=2),
    "pairwise_mean": lambda: jaxdiv.pairwise_mean(simplex.js, P),
    "elementary.expm1x": lambda: elementary.expm1x(X),
    "elementary.kl_div": lambda: elementary.kl_div(P, P[::-1]),
    "elementary.rel_entr": lambda: elementary.rel_entr(P, P[::-1]),
    "categorical.check": lambda: categorical.check(X),
    "simplex.check": lambda: simplex.check(P),
    "bernoulli.check": lambda: bernoulli.check(X),
    "gaussian.check": lambda: gaussian.check(NORMAL),
    "gaussian.convert": lambda: gaussian.convert(NORMAL, gaussian.MultivariateNormal),
    "gaussian.standard": lambda: gaussian.standard(NORMAL),
    "gaussian.stack": lambda: gaussian.stack([NORMAL, NORMAL]),
    "mixture.check": lambda: mixture.check(mixture.GaussianMixture(jnp.zeros(2), gaussian.Normal(W[:2], W[:2] + 1))),
    "metrics.empty": lambda: metrics.empty(4),
    "metrics.update": lambda: metrics.update(STATE, X[:, 1], groups=LABELS),
    "metrics.bins": lambda: metrics.bins(X, jnp.array([0.0, 1.0])),
    "metrics.from_counts": lambda: metrics.from_counts(jnp.array([1, 2, 3])),
    "metrics.edges": lambda: metrics.edges(X, 3),
    "metrics.drift_table": lambda: metrics.drift_table(np.asarray(X), np.asarray(Y)),
    "losses.with_probs": lambda: losses.with_probs(losses.js)(X, P),
    "fused.linear_divergence": lambda: fused.linear_divergence(X, W, Y, losses.forward_kl),
    "fused.mean_linear_divergence": lambda: jax.grad(fused.mean_linear_divergence)(X, W, Y, losses.forward_kl),
    "topk.from_indices": lambda: topk.from_indices(X, LABELS[:, None]),
    "topk.from_logits": lambda: topk.from_logits(X, 2),
    "topk.lift": lambda: [topk.lift(losses.js, tail=tail)(X, topk.from_logits(Y, 2)) for tail in topk.TAILS],
    "objectives.softened": lambda: objectives.softened(losses.js, temperature=2.0)(X, Y),
    "objectives.hard_and_soft": lambda: objectives.hard_and_soft(losses.js, weight=0.2)(X, Y, LABELS),
    "objectives.symmetric": lambda: objectives.symmetric(losses.js)(X, Y),
    "objectives.consistency": lambda: objectives.consistency(losses.js, weight=0.2)(X, Y, X),
    "objectives.annealed": lambda: objectives.annealed(losses.js, optax.linear_schedule(0.0, 1.0, 9))(3, X, Y),
    "objectives.free_bits": lambda: objectives.free_bits(P, 0.2),
    "objectives.adversarial_direction": lambda: objectives.adversarial_direction(of_moved, X, KEY),
    "objectives.adversarial_example": lambda: objectives.adversarial_example(
        of_moved, X, KEY, radius=0.1, step_size=0.05
    ),
    "transforms.curvature_vector_product": lambda: transforms.curvature_vector_product(of_outputs, outputs, W)(W),
    "transforms.natural_gradient": lambda: _updated(transforms.natural_gradient()),
    "transforms.kl_trust_region": lambda: _updated(transforms.kl_trust_region(0.1)),
    "transforms.skip_large_divergence": lambda: _updated(transforms.skip_large_divergence(0.1)),
    "transforms.adaptive_coefficient": lambda: _controlled(transforms.doubling()),
    "transforms.doubling": lambda: _controlled(transforms.doubling()),
    "transforms.proportional": lambda: _controlled(transforms.proportional(10)),
    "transforms.dual": lambda: _controlled(transforms.dual(0.1)),
    "estimators.monte_carlo": lambda: estimators.monte_carlo(
        "kl", jax.random.normal, log_density, log_density_beside, key=KEY, samples=20
    ),
}


def test_every_public_function_is_jitted_or_called_here():
    names = {".".join(filter(None, x)): find(*x) for x in FUNCTIONS}
    plain = {
        name
        for name, function in names.items()
        if getattr(function, "__code__", None) is not simplex.renyi.__code__  # that of all that is `jitted`
    }
    assert plain == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_compiles_nothing(name, programs_of):
    programs_of(CALLS[name])
    assert programs_of(CALLS[name]) == 0


# ---------------------------------------------------------------- functions that are the same


def _skewed(p, q, *, weight, shift=0.0):
    return simplex.js(p, q, weight=weight) + shift


def _table(divergence):
    return jaxdiv.pairwise(divergence, P)


SAME = {
    "a lambda in a loop": lambda: _table(lambda p, q: simplex.js(p, q, weight=0.3)),
    "a function around a number": lambda: _table(_around(0.3)),
    "a partial of a verb": lambda: _table(functools.partial(simplex.renyi, alpha=0.3)),
    "a partial of a function": lambda: _table(functools.partial(_skewed, weight=0.3)),
    "a partial of a partial": lambda: _table(functools.partial(functools.partial(_skewed, weight=0.3), shift=1.0)),
    "a tree that is a partial": lambda: _table(jax.tree_util.Partial(_skewed, weight=0.4)),
    "a loss of tokens": lambda: fused.mean_linear_divergence(X, W, Y, objectives.softened(losses.js, temperature=2.0)),
}


def _around(weight):
    def inner(p, q):
        return simplex.js(p, q, weight=weight)

    return lambda p, q: inner(p, q)


@pytest.mark.parametrize("name", SAME)
def test_functions_that_are_the_same_have_one_program(name, programs_of):
    assert programs_of(SAME[name])
    assert programs_of(SAME[name]) == 0


def test_arrays_in_a_partial_are_arguments(programs_of):
    def table(weight):
        return _table(functools.partial(simplex.js, weight=jnp.asarray(weight)))

    programs_of(lambda: table(0.3))
    assert programs_of(lambda: table(0.2)) == 0
    np.testing.assert_allclose(table(0.2), jaxdiv.pairwise(lambda p, q: simplex.js(p, q, weight=0.2), P), 1e-6)
    np.testing.assert_allclose(
        jax.grad(lambda w: table(w)[0, 1])(0.5), jax.grad(lambda w: simplex.js(P[0], P[1], weight=w))(0.5), 1e-5
    )


SHIFT, TABLE_OF_SHIFTS = 0.0, {"shift": 0.0}


def _shifted(p, q):
    return simplex.js(p, q) + SHIFT


def test_what_a_function_reads_may_change(monkeypatch):
    scale, shifts = 1.0, np.zeros(1, np.float32)

    def scaled(p, q):
        return scale * simplex.js(p, q)

    ways = {
        "a variable around it": scaled,
        "an array": lambda p, q: simplex.js(p, q) + shifts[0],
        "a dictionary": lambda p, q: simplex.js(p, q) + TABLE_OF_SHIFTS["shift"],
        "through another function": lambda p, q: _shifted(p, q),
        "by number": functools.partial(_skewed, weight=0.5, shift=0),
    }
    before = {name: np.asarray(_table(way)) for name, way in ways.items()}
    scale, shifts[0] = 2.0, 1.0
    monkeypatch.setitem(TABLE_OF_SHIFTS, "shift", 1.0)
    monkeypatch.setitem(globals(), "SHIFT", 1.0)
    ways["by number"] = functools.partial(_skewed, weight=0.5, shift=1)
    for name, way in ways.items():
        expected = 2 * before[name] if way is scaled else before[name] + 1
        np.testing.assert_allclose(_table(way), expected, 1e-5, 1e-6, err_msg=name)


settings = types.ModuleType("settings_of_a_test")
settings.inner = types.ModuleType("settings_of_a_test.inner")
settings.inner.T = 1.0
sys.modules.update({module.__name__: module for module in (settings, settings.inner)})


class _Base:
    T = 1.0


class _Settings(_Base):
    class Inner:
        T = 1.0

    @staticmethod
    def scale():
        return _Settings.Inner.T


def _with_attribute(p, q):
    return _with_attribute.T * simplex.js(p, q)


T, _with_attribute.T, PLACES = 1.0, 1.0, (_Settings,)
_Settings.Inner.Inner = _Settings  # round in a circle


def _imported(p, q):
    from settings_of_a_test import inner

    return inner.T * simplex.js(p, q)


def _imported_number(p, q):
    from settings_of_a_test.inner import T

    return T * simplex.js(p, q)


def _fused(divergence):
    return fused.linear_divergence(X, W, Y, lambda x, y: jax.vmap(divergence)(jax.nn.softmax(x), jax.nn.softmax(y)))


# Whose T is read, and how.
READS = {
    "a submodule": ("inner", lambda p, q: settings.inner.T * simplex.js(p, q)),
    "a default": ("inner", lambda p, q, place=settings.inner: place.T * simplex.js(p, q)),
    "an inherited attribute": (_Base, lambda p, q: _Settings.T * simplex.js(p, q)),
    "a nested class": (_Settings.Inner, lambda p, q: _Settings.Inner.T * simplex.js(p, q)),
    "a static method": (_Settings.Inner, lambda p, q: _Settings.scale() * simplex.js(p, q)),
    "a class in a tuple": (_Settings.Inner, lambda p, q: PLACES[0].Inner.T * simplex.js(p, q)),
    "an import": ("inner", lambda p, q: _imported(p, q)),
    "an imported number": ("inner", lambda p, q: _imported_number(p, q)),
    "an attribute of a function": (_with_attribute, lambda p, q: _with_attribute(p, q)),
    "globals": (None, lambda p, q: globals()["T"] * simplex.js(p, q)),
    "getattr": (_Base, lambda p, q: getattr(_Settings, "T") * simplex.js(p, q)),  # noqa: B009
}


@pytest.mark.parametrize("table", [_table, _fused])
@pytest.mark.parametrize("name", READS)
def test_what_a_function_reads_anywhere_may_change(name, table, monkeypatch):
    place, way = READS[name]
    for imported in (_imported, _imported_number):
        monkeypatch.setattr(imported, "__module__", "__main__")
    before = np.asarray(table(way))
    if place is None:
        monkeypatch.setitem(globals(), "T", 2.0)
    else:
        monkeypatch.setattr(settings.inner if place == "inner" else place, "T", 2.0)
    np.testing.assert_allclose(table(way), 2 * before, 1e-5, 1e-6)


def test_no_array_and_no_function_that_reads_one_is_kept():
    def around():
        array = jnp.full(4, 0.1)

        def divergence(p, q):
            return jnp.sum(p * q * array)

        _table(divergence)
        _table(functools.partial(_skewed, weight=0.5, shift=array[0]))
        return weakref.ref(array), weakref.ref(divergence)

    alive = around()
    gc.collect()
    assert [ref() for ref in alive] == [None, None]

"""What runs on accelerators only gives the same numbers, here on CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from marks import with_all

import jaxdiv
from jaxdiv import losses, metrics, simplex
from jaxdiv._core import rules, tuning
from jaxdiv._core.rules import at_hand


@pytest.fixture(params=["cuda", "tpu"])
def elsewhere(request, monkeypatch):
    """A function that runs another as it would be compiled for an accelerator."""

    def chosen(*args, default, **branches):
        return branches.get(request.param, default)(*args)

    def run(f, *args):
        with monkeypatch.context() as patched:
            patched.setattr(lax, "platform_dependent", chosen)
            patched.setattr(rules, "at_hand", lambda calls, _=None: at_hand(calls, request.param))
            jax.clear_caches()
            found = f(*args)
        jax.clear_caches()
        return found

    return run


def _logits(rows, k):
    x, y = jax.random.normal(jax.random.key(0), (2, rows, k))
    return x.at[0].set(-jnp.inf).at[0, 1].set(0), y


def _both(loss):
    return jax.jit(jax.value_and_grad(lambda x, y: jnp.sum(loss(x, y)), (0, 1)))


def _close(found, expected):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-6), found, expected)


FEW, MANY = (50, 10), (200, 1500)


@pytest.mark.parametrize(
    ("elsewhere", "shape"),
    [("cuda", FEW), ("tpu", MANY), *with_all(("cuda", MANY), ("tpu", FEW))],
    indirect=["elsewhere"],
    ids=str,
)
@pytest.mark.parametrize("loss", [losses.js, *with_all(losses.forward_kl, losses.cross_entropy)])
def test_losses_and_their_gradients_are_the_same(elsewhere, loss, shape):
    x, y = _logits(*shape)
    y = y.at[0].set(x[0])
    for f in (jax.jit(loss), _both(loss)):
        _close(elsewhere(f, x, y), f(x, y))


@pytest.mark.parametrize("elsewhere", ["tpu", *with_all("cuda")], indirect=True)
@pytest.mark.parametrize("verb", [simplex.js, *with_all(simplex.kl)])
def test_divergences_of_probabilities_are_the_same(elsewhere, verb):
    p, q = jax.nn.softmax(jnp.stack(_logits(50, 10))[:, 1:])
    for f in (jax.vmap(verb), _both(jax.vmap(verb))):
        _close(elsewhere(f, p, q), f(p, q))


@pytest.mark.parametrize("elsewhere", ["cuda", *with_all("tpu")], indirect=True)
@pytest.mark.parametrize("dtype", [jnp.int8, *with_all(jnp.int32, jnp.uint16)])
def test_sums_of_groups_are_the_same(elsewhere, dtype):
    values, weights = jax.random.uniform(jax.random.key(1), (2, 999))
    groups = jnp.arange(999) % 7 if dtype == jnp.uint16 else jnp.arange(999) % 9 - 2
    groups = groups.astype(dtype)

    def update(values):
        return metrics.update(metrics.empty(5), values, weights=weights, groups=groups)

    found = elsewhere(update, values)
    _close(metrics.compute(found), metrics.compute(update(values)))
    _close(found.squared_left_out.high, update(values).squared_left_out.high)
    spoilt = metrics.compute(elsewhere(update, values.at[3].set(jnp.nan))).mean
    assert list(np.flatnonzero(np.isnan(spoilt))) == [int(groups[3])]


@pytest.mark.parametrize("elsewhere", ["tpu", *with_all("cuda")], indirect=True)
@pytest.mark.parametrize("divergence", [simplex.js, *with_all(lambda p, q: simplex.js(p, q))])
def test_tables_in_tiles_of_an_accelerator_are_the_same(elsewhere, divergence, monkeypatch):
    p, q = jax.nn.softmax(jax.random.normal(jax.random.key(2), (2, 40, 6)))
    expected = jaxdiv.pairwise(divergence, p, q)
    monkeypatch.setattr(tuning, "TABLE", 1)
    monkeypatch.setattr(tuning, "TILES_ELSEWHERE", tuning.Tiles(elements=2**10, side=16, laws=2**7))
    _close(elsewhere(lambda: jaxdiv.pairwise(divergence, p, q)), expected)
    _close(elsewhere(lambda: jaxdiv.pairwise_mean(divergence, p, q)), jnp.mean(expected, 1))
    _close(elsewhere(lambda: jaxdiv.nearest(divergence, p, q, k=3).values), jnp.sort(expected, 1)[:, :3])

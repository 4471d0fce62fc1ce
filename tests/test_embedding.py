"""Features whose squared Euclidean distance is the Jensen-Shannon divergence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from marks import with_all
from measure import x64
from mpmath import mp

from jaxdiv import categorical, embedding, simplex
from jaxdiv._gaussian.nodes import RULES

BOUNDS = {1: 3.9e-2, 2: 4.4e-3, 4: 2.1e-4, 8: 3.4e-6, 14: 4.4e-8, 56: 3.2e-15}  # shown in test_spectral
OF_DERIVATIVES = {1: 3.8e-2, 2: 5.2e-3, 4: 3.5e-4, 8: 8.1e-6, 14: 1.3e-7, 56: 7.6e-15}
FORMS = [(embedding.js_features, simplex.js), (embedding.js_features_of_logits, categorical.js)]
EACH_FORM = pytest.mark.parametrize(("features", "js"), FORMS, ids=["probabilities", "logits"])


def laws(dtype, logits):
    """Pairs `[2, n, k]` from far apart to nearly equal, with zeros common and not."""
    rng = np.random.default_rng(0)
    differences = np.repeat([10, 1, 1e-1, 1e-3, 1e-5, 1e-7, 0], 8)[:, None]
    p = 2 * rng.normal(size=(56, 9))
    q = p + differences * rng.normal(size=p.shape)
    p[::2, :3] = q[:24:2, 2:5] = q[24::2, :3] = -np.inf
    pair = np.stack([p, q]) + (1000 if logits else 0)
    return np.asarray(pair if logits else jax.nn.softmax(pair), dtype)


@functools.cache
def batched(features, nodes):
    return jax.jit(jax.vmap(jax.vmap(functools.partial(features, nodes=nodes))))


@pytest.mark.parametrize(
    ("form", "dtype", "nodes"),
    [(0, np.float64, nodes) for nodes in BOUNDS] + [(0, np.float32, 14), (1, np.float32, 14), (1, np.float64, 56)],
)
def test_the_squared_distance_is_jensen_shannon_within_its_bound_and_rounding(form, dtype, nodes):
    features, js = FORMS[form]
    with x64(np.float64):
        p, q = laws(dtype, js is categorical.js)
        x, y = np.asarray(batched(features, nodes)(np.stack([p, q])), np.float64)
        truth = np.asarray(jax.vmap(js)(p.astype(np.float64), q.astype(np.float64)))
    assert x.shape[-1] == 2 * nodes * 9
    distance = np.sqrt(np.sum((x - y) ** 2, -1))
    # The bound of JS is twice that of its root; the rounding of features is an ulp of 1.
    assert np.all(np.abs(distance - np.sqrt(truth)) <= BOUNDS[nodes] * np.sqrt(truth) + np.finfo(dtype).eps)
    assert np.all(distance[-8:] == 0)


@EACH_FORM
def test_laws_have_features_of_one_norm(features, js):
    x = batched(features, None)(laws(np.float32, js is categorical.js))
    np.testing.assert_allclose(np.sum(np.asarray(x, np.float64) ** 2, -1), np.log(2) / 2, 5e-7)


@EACH_FORM
def test_the_gradient_of_the_squared_distance_is_that_of_jensen_shannon_and_zero_where_an_event_is(features, js):
    def squared_distance(p, q):
        return jnp.sum((features(p) - features(q)) ** 2)

    with x64(np.float64):
        p, q = laws(np.float64, js is categorical.js)
        got, truth = (jax.jit(jax.vmap(jax.grad(f, (0, 1))))(p, q) for f in (squared_distance, js))
        zero = -np.inf if js is categorical.js else 0
        for slope, reference, law in zip(got, truth, (p, q), strict=True):
            # In a probability the quadrature's error is that in its logarithm, over it.
            scale = 1 if js is categorical.js else law[:32]
            np.testing.assert_allclose(scale * slope[:32], scale * reference[:32], 1e-7, 1e-11)
            assert np.all(slope[law == zero] == 0)
            assert np.all(np.abs(slope[-8:]) <= np.finfo(np.float64).eps)


def _kernel(x):
    """k and k' of JS = sum sqrt(p q) (log(2) cosh(x/2) - k(x)) with x = log(p / q), in high precision."""
    half = x / 2
    log = mp.log(2 * mp.cosh(half))
    k = mp.cosh(half) * (log - half * mp.tanh(half))
    return k, mp.sinh(half) / 2 * (log - half * mp.tanh(half)) - half / 2 / mp.cosh(half)


@pytest.mark.parametrize("nodes", OF_DERIVATIVES)
def test_the_bound_of_derivatives_is_that_of_the_worst_log_ratio(nodes):
    # The error of p dJS/dp is sqrt(p q) e(x) an event. With |e| <= b sqrt(h cosh(x/2)), JS the sum of sqrt(p q) h and 1
    # that of sqrt(p q) cosh(x/2), the errors of all events add up to b sqrt(JS) at most, by Cauchy's inequality; so a
    # softmax leaves at most that much in a logit.
    worst = 0
    with mp.workdps(40):
        t, w = (list(map(mp.mpf, x)) for x in RULES[nodes])
        excess = mp.fsum(w) - mp.log(2)
        near = [sign * mp.mpf(10) ** e for e in range(-4, 0) for sign in (-1, 1)]
        for x in [*map(mp.mpf, np.arange(-40, 40, 0.35) + 0.05), *near]:
            k, slope = _kernel(x)
            h = mp.log(2) * mp.cosh(x / 2) - k
            k -= mp.fsum(wj * mp.cos(tj * x) for tj, wj in zip(t, w, strict=True))
            slope += mp.fsum(wj * tj * mp.sin(tj * x) for tj, wj in zip(t, w, strict=True))
            error = excess * mp.exp(x / 2) / 2 + k / 2 + slope
            worst = max(worst, abs(error) / mp.sqrt(h * mp.cosh(x / 2)))
    assert 0.9 * OF_DERIVATIVES[nodes] < worst <= OF_DERIVATIVES[nodes]


@EACH_FORM
@pytest.mark.parametrize("nodes", [2, 14, *with_all(1, 4, 8, 56)])
def test_no_derivative_is_off_by_more_than_its_bound(features, js, nodes):
    rng = np.random.default_rng(1)
    spread = np.geomspace(1e-3, 30, 400)[:, None]  # from nearly equal laws to confident ones
    with x64(np.float64):
        for k in (2, 5):
            p = spread * rng.normal(size=(400, k))
            q = p + rng.permutation(spread) * rng.normal(size=(400, k))
            if js is simplex.js:
                p, q = jax.nn.softmax(p), jax.nn.softmax(q)
            x, of = functools.partial(features, nodes=nodes), 1 if js is categorical.js else p

            def squared_distance(p, q, x=x):
                return jnp.sum((x(p) - x(q)) ** 2)

            got, truth = (jax.jit(jax.vmap(jax.grad(f)))(p, q) for f in (squared_distance, js))
            root = np.sqrt(jax.vmap(js)(p, q))[:, None]
            # Rounding of the features, an ulp of 1, and of phases, an ulp of log p, times the nodes.
            rounding = 2e-14 if nodes == 56 else 1e-14
            assert np.all(np.abs(of * (got - truth)) <= OF_DERIVATIVES[nodes] * root + rounding)


def test_two_nodes_err_in_a_gradient_by_more_than_in_a_value_but_within_their_bound():
    a, b = jnp.array([-2.67, 1.82]), jnp.array([1.03, -0.16])
    phi = functools.partial(embedding.js_features_of_logits, nodes=2)
    got = jax.grad(lambda a: jnp.sum((phi(a) - phi(b)) ** 2))(a)[0]
    truth, root = jax.grad(categorical.js)(a, b)[0], jnp.sqrt(categorical.js(a, b))
    assert BOUNDS[2] * abs(truth) < abs(got - truth) < OF_DERIVATIVES[2] * root


def test_features_pass_through_every_transformation():
    features = embedding.js_features  # the other form differs from it before the phases alone
    p, q = jax.nn.softmax(jnp.array([[0.1, 0.7, -0.3, 0.0], [0.2, -0.7, 0.5, 1.0]]))

    def value(p):
        return jnp.sum((features(p, nodes=4) - features(q, nodes=4)) ** 2)

    @jax.jit
    def ways(p):
        slope = jax.grad(jax.checkpoint(value))
        _, scanned = jax.lax.scan(lambda total, x: (total + value(x), slope(x)), 0.0, p[None])
        return slope(p), jax.jacfwd(value)(p), scanned[0], jax.vmap(slope)(p[None])[0]

    slopes = ways(p)
    for slope in slopes[1:]:
        np.testing.assert_allclose(slope, slopes[0], 1e-4, 1e-6)
    step = 1e-2 * jnp.arange(4.0)
    curvature = jax.jit(jax.hessian(value))(p) @ step
    np.testing.assert_allclose(curvature, (jax.grad(value)(p + step / 2) - jax.grad(value)(p - step / 2)), 1e-2, 1e-5)


@EACH_FORM
def test_half_precision_is_the_float32_result_rounded_once(features, js):
    p = jnp.asarray([0.5, 0.25, 0.25], jnp.bfloat16)
    np.testing.assert_array_equal(features(p), features(p.astype(jnp.float32)).astype(jnp.bfloat16))


def test_a_fault_stays_in_its_row():
    rows = np.full((4, 3), 1 / 3, np.float32)
    rows[1], rows[2] = [np.nan, 0.5, 0.5], [-0.5, 1, 0.5]
    for features, bad in ((embedding.js_features, [1, 2]), (embedding.js_features_of_logits, [1])):
        found = np.isnan(jax.vmap(features)(rows)).any(-1)
        assert list(np.flatnonzero(found)) == bad


def test_an_empty_batch_and_a_law_without_mass_have_features():
    assert jax.vmap(embedding.js_features)(jnp.zeros((0, 3))).shape == (0, 84)
    assert jnp.all(embedding.js_features(jnp.zeros(3)) == 0)


def test_a_rule_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"^embedding.js_features takes nodes as one of 1, 2, 4, 8, 14, 56; got 3\."):
        embedding.js_features(jnp.ones(2) / 2, nodes=3)


@EACH_FORM
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("spec", [P("x", None), P(None, "x")], ids=["batch", "events"])
def test_sharded_laws_have_features_sharded_alike_and_gather_nothing(features, js, spec, kind):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    p = jax.device_put(jax.nn.softmax(jnp.arange(128.0).reshape(8, 16)), NamedSharding(mesh, spec))
    compiled = jax.jit(jax.vmap(functools.partial(features, nodes=4))).lower(p).compile()
    text = compiled.as_text()
    assert not any(kind in text for kind in ("all-gather", "all-to-all", "collective-permute"))
    x = compiled(p)
    assert x.sharding.is_equivalent_to(p.sharding, 2)
    np.testing.assert_allclose(x, jax.vmap(functools.partial(features, nodes=4))(np.asarray(p)), 1e-5, 1e-6)

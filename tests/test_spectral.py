import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from marks import with_all
from measure import x64

from jaxdiv._gaussian import spectral
from jaxdiv._gaussian.affinities import renyi_of
from jaxdiv._gaussian.nodes import NODES_56, RULES, WEIGHTS_56

BOUNDS = {1: 3.9e-2, 2: 4.4e-3, 4: 2.1e-4, 8: 3.4e-6, 14: 4.4e-8, 56: 3.2e-15}


def relative_errors(nodes, weights, log_ratios):
    """Of sum_j w_j (cosh(l/2) - cos(t_j l)) against h(l), in extended precision."""
    half = np.asarray(log_ratios, np.longdouble) / 2
    cosh = np.cosh(half)
    h = cosh * (np.log(np.longdouble(2)) - np.log(2 * cosh)) + half * np.sinh(half)
    t, w = (np.asarray(x, np.longdouble)[:, None] for x in (nodes, weights))
    return np.abs(np.sum(w * (cosh - np.cos(2 * t * half)), 0) / h - 1)


@pytest.mark.parametrize(("n", "bound"), BOUNDS.items())
def test_the_error_of_the_nodes_is_bounded_over_all_log_ratios(n, bound):
    nodes, weights = RULES[n]
    # The error oscillates with periods of at least 2 pi / max(t) > .6. From l = 100 on it is that of the sum of w.
    assert np.max(relative_errors(nodes, weights, np.arange(0.1, 100, 0.005))) < bound
    assert abs(np.sum(np.asarray(weights, np.longdouble)) / np.log(np.longdouble(2)) - 1) < bound
    # Towards 0 it tends to that of the second derivatives, sum w (1/4 + t^2) against 1/4.
    t, w = (np.asarray(x, np.longdouble) for x in (nodes, weights))
    assert abs(4 * np.sum(w * (0.25 + t * t)) - 1) < bound
    assert min(weights) > 0


def test_every_rule_has_a_bound():
    assert set(RULES) == set(BOUNDS)


def random_pair(key, d, size):
    """A pair `[d, d]` and the covariances and the difference of means that it came from, in float64."""
    rng = np.random.default_rng(key)
    p, q = (np.eye(d) + size * rng.normal(size=(d, d)) / d for _ in range(2))
    p, q = p @ p.T, q @ q.T
    root = np.linalg.cholesky(p + q)
    t = np.linalg.solve(root, np.linalg.solve(root, p - q).T)
    tau, v = np.linalg.eigh(t)
    frame = np.linalg.solve(root.T, v).T
    delta = size * rng.normal(size=d)
    return tau, frame, p, q, delta


def as_pair(tau, frame, p, q, delta):
    plus, minus = (2 * frame @ x @ frame.T for x in (p, q))
    return spectral.Frame(tau, plus, minus, frame @ delta)


def renyi(pair, alpha):
    return renyi_of(spectral.k_of(lambda pair, _: pair)(alpha, pair, pair), alpha)[0]


def log_affinity(s, p, q, delta):
    """log c(s) from its definition through determinants, for real or complex s."""
    n = (1 - s) * p + s * q
    logs = (1 - s) * jnp.linalg.slogdet(p)[1] + s * jnp.linalg.slogdet(q)[1] - jnp.log(jnp.linalg.det(n))
    return 0.5 * (logs - s * (1 - s) * delta @ jnp.linalg.solve(n, delta))


def definition_js(p, q, delta):
    with jax.numpy_dtype_promotion("standard"):
        s = 0.5 + 1j * jnp.asarray(NODES_56)
        c = jax.vmap(lambda s: jnp.exp(log_affinity(s, *(x.astype(complex) for x in (p, q, delta)))))(s)
        return jnp.sum(jnp.asarray(WEIGHTS_56) * (1 - c.real))


@pytest.mark.parametrize("verb", ["js", *with_all("renyi", "geometric_js")])
def test_derivatives_in_a_frame_are_those_of_the_definition(verb):
    # Value, gradient and Hessian of the pair `[d, d]` against determinants.
    definitions = {
        "js": definition_js,
        "renyi": lambda p, q, delta: log_affinity(0.3, p, q, delta) / (0.3 - 1),
        "geometric_js": lambda p, q, delta: 0.21 * (kl(p, q, delta) + kl(q, p, delta)) + log_affinity(0.3, p, q, delta),
    }
    calls = {
        "js": lambda pair, *_: spectral.js(pair),
        "renyi": lambda pair, *_: renyi(pair, np.array([0.3])),
        "geometric_js": lambda pair, p, q, delta: spectral.geometric_js(
            pair, kl(p, q, delta) + kl(q, p, delta), np.array([0.3])
        ),
    }

    def kl(p, q, delta):
        trace = jnp.trace(jnp.linalg.solve(q, p)) - p.shape[0] + delta @ jnp.linalg.solve(q, delta)
        return 0.5 * (trace + jnp.linalg.slogdet(q)[1] - jnp.linalg.slogdet(p)[1])

    with x64(np.float64):
        tau, frame, p, q, delta = random_pair(3, 3, 0.6)
        args = (jnp.asarray(p), jnp.asarray(q), jnp.asarray(delta))
        flat, unravel = ravel_pytree(args)

        def ours(x):
            p, q, delta = unravel(x)
            p, q = 0.5 * (p + p.T), 0.5 * (q + q.T)
            return calls[verb](as_pair(tau, frame, p, q, delta), p, q, delta)

        definition = definitions[verb]

        def symmetric(x):
            p, q, delta = unravel(x)
            return definition(0.5 * (p + p.T), 0.5 * (q + q.T), delta)

        def derivatives(f):
            return jax.jit(lambda x: (f(x), jax.grad(f)(x), jax.hessian(f)(x)))(flat)

        for x, truth in zip(derivatives(ours), derivatives(symmetric), strict=True):
            np.testing.assert_allclose(x, truth, atol=1e-9)


def test_chernoff_is_a_maximum_with_the_derivatives_of_one():
    with x64(np.float64):
        tau, frame, p, q, delta = random_pair(3, 3, 0.6)

        @jax.jit
        def ours(delta):
            return spectral.chernoff(as_pair(tau, frame, p, q, delta))

        def envelope(s):
            return -log_affinity(s, p, q, delta)

        s = np.linspace(0, 1, 1001)
        values = np.asarray(jax.jit(jax.vmap(envelope))(s))
        # The grid misses the maximum by half a step, its value by the square of that.
        np.testing.assert_allclose(ours(delta), values.max(), rtol=1e-6)
        best = s[values.argmax()]
        at_best = jax.jit(jax.grad(lambda delta: -log_affinity(best, p, q, delta)))
        np.testing.assert_allclose(jax.jit(jax.grad(ours))(delta), at_best(delta), atol=1e-3)
        step = 1e-4 * np.eye(3)[0]
        slope = jax.jit(jax.grad(ours))
        second = (slope(delta + step) - slope(delta - step)) / 2e-4
        np.testing.assert_allclose(jax.jit(jax.hessian(ours))(delta)[0], second, rtol=1e-6)


def test_derivatives_in_the_order_mix_with_those_in_the_pair():
    with x64(np.float64):
        tau, frame, p, q, delta = random_pair(5, 2, 0.5)

        def ours(alpha, p):
            return renyi(as_pair(tau, frame, 0.5 * (p + p.T), q, delta), alpha[None])

        def definition(alpha, p):
            return log_affinity(alpha, 0.5 * (p + p.T), q, delta) / (alpha - 1)

        at = jnp.asarray(0.4), jnp.asarray(p)
        mixed = jax.jit(jax.jacfwd(jax.grad(ours), 1))(*at)
        np.testing.assert_allclose(mixed, jax.jit(jax.jacfwd(jax.grad(definition), 1))(*at), atol=1e-9)
        np.testing.assert_allclose(jax.jit(jax.jacfwd(jax.grad(ours, 1)))(*at), mixed, atol=1e-12)

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jaxdiv import _spectral
from jaxdiv._nodes import NODES_14, NODES_56, WEIGHTS_14, WEIGHTS_56


def relative_errors(nodes, weights, log_ratios):
    """Of sum_j w_j (cosh(l/2) - cos(t_j l)) against h(l), in 40 digits."""
    with mpmath.workdps(40):
        errors = []
        for log_ratio in log_ratios:
            half = mpmath.mpf(float(log_ratio)) / 2
            cosh = mpmath.cosh(half)
            h = cosh * (mpmath.log(2) - mpmath.log(2 * cosh)) + half * mpmath.sinh(half)
            terms = (
                mpmath.mpf(w) * (cosh - mpmath.cos(2 * mpmath.mpf(t) * half))
                for t, w in zip(nodes, weights, strict=True)
            )
            errors.append(abs(mpmath.fsum(terms) / h - 1))
        return max(errors)


@pytest.mark.parametrize(
    ("nodes", "weights", "bound"), [(NODES_14, WEIGHTS_14, 4.3e-8), (NODES_56, WEIGHTS_56, 3.2e-15)], ids=[14, 56]
)
def test_the_error_of_the_nodes_is_bounded_over_all_log_ratios(nodes, weights, bound):
    # The smallest oscillation of the error has a period of about 2 pi / max(t) > .6: a tenth of that is fine enough. From
    # l = 100 on the value has settled at sum w / log 2.
    log_ratios = np.concatenate([np.geomspace(1e-6, 0.1, 12), np.arange(0.1, 100, 0.06)])
    assert relative_errors(nodes, weights, log_ratios) < bound
    assert all(w > 0 for w in weights)
    assert abs(sum(map(mpmath.mpf, weights)) / mpmath.log(2) - 1) < bound


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
    return _spectral.Pair(tau, plus, minus, frame @ delta)


def log_affinity(s, p, q, delta):
    """log c(s) from its definition through determinants, for real or complex s."""
    n = (1 - s) * p + s * q
    logs = (1 - s) * jnp.linalg.slogdet(p)[1] + s * jnp.linalg.slogdet(q)[1] - jnp.log(jnp.linalg.det(n))
    return 0.5 * (logs - s * (1 - s) * delta @ jnp.linalg.solve(n, delta))


def definition_js(p, q, delta):
    t, w = jnp.asarray(NODES_56), jnp.asarray(WEIGHTS_56)
    c = jax.vmap(lambda t: jnp.exp(log_affinity(0.5 + 1j * t, *(x.astype(complex) for x in (p, q, delta)))))(t)
    return jnp.sum(w * (1 - c.real))


@pytest.mark.parametrize("verb", ["js", "renyi", "chernoff", "geometric_js"])
def test_derivatives_in_a_frame_are_those_of_the_definition(verb):
    # Value, gradient and Hessian of the pair `[d, d]` with repeated eigenvalues and without, against determinants.
    definitions = {
        "js": definition_js,
        "renyi": lambda p, q, delta: log_affinity(0.3, p, q, delta) / (0.3 - 1),
        "chernoff": None,
        "geometric_js": lambda p, q, delta: 0.21 * (kl(p, q, delta) + kl(q, p, delta)) + log_affinity(0.3, p, q, delta),
    }
    calls = {
        "js": _spectral.js,
        "renyi": functools.partial(_spectral.renyi, alpha=np.array([0.3])),
        "chernoff": _spectral.chernoff,
        "geometric_js": functools.partial(_spectral.geometric_js, weight=np.array([0.3])),
    }

    def kl(p, q, delta):
        trace = jnp.trace(jnp.linalg.solve(q, p)) - p.shape[0] + delta @ jnp.linalg.solve(q, delta)
        return 0.5 * (trace + jnp.linalg.slogdet(q)[1] - jnp.linalg.slogdet(p)[1])

    with jax.enable_x64(True):
        tau, frame, p, q, delta = random_pair(3, 3, 0.6)
        args = (jnp.asarray(p), jnp.asarray(q), jnp.asarray(delta))
        flat, unravel = jax.flatten_util.ravel_pytree(args)

        def ours(x):
            p, q, delta = unravel(x)
            return calls[verb](as_pair(tau, frame, 0.5 * (p + p.T), 0.5 * (q + q.T), delta))

        definition = definitions[verb]
        if verb == "chernoff":
            s = np.linspace(0, 1, 100001)
            values = np.asarray(jax.vmap(lambda s: -log_affinity(s, *args))(s))
            np.testing.assert_allclose(ours(flat), values.max(), rtol=1e-9)
            best = s[values.argmax()]
            definition = lambda p, q, delta: -log_affinity(best, p, q, delta)  # noqa: E731

        def symmetric(x):
            p, q, delta = unravel(x)
            return definition(0.5 * (p + p.T), 0.5 * (q + q.T), delta)

        np.testing.assert_allclose(ours(flat), symmetric(flat), rtol=1e-9)
        # The grid above finds the maximum of Chernoff to 1e-5 only.
        np.testing.assert_allclose(
            jax.grad(ours)(flat), jax.grad(symmetric)(flat), atol=1e-5 if verb == "chernoff" else 1e-10
        )
        if verb == "chernoff":
            step = 1e-5 * np.eye(len(flat))[4]
            second = (jax.grad(ours)(flat + step) - jax.grad(ours)(flat - step)) / 2e-5
            # The frame belongs to the point, so that the difference quotient is off by the square of the step.
            np.testing.assert_allclose(jax.hessian(ours)(flat)[4, 4], second[4], rtol=1e-3)
        else:
            np.testing.assert_allclose(jax.hessian(ours)(flat), jax.hessian(symmetric)(flat), atol=1e-8)


def test_derivatives_in_the_order_mix_with_those_in_the_pair():
    with jax.enable_x64(True):
        tau, frame, p, q, delta = random_pair(5, 2, 0.5)

        def ours(alpha, p):
            return _spectral.renyi(as_pair(tau, frame, 0.5 * (p + p.T), q, delta), alpha[None])

        def definition(alpha, p):
            return log_affinity(alpha, 0.5 * (p + p.T), q, delta) / (alpha - 1)

        mixed = jax.jacfwd(jax.grad(ours), 1)(jnp.asarray(0.4), jnp.asarray(p))
        np.testing.assert_allclose(
            mixed, jax.jacfwd(jax.grad(definition), 1)(jnp.asarray(0.4), jnp.asarray(p)), atol=1e-9
        )
        other = jax.jacfwd(jax.grad(ours, 1))(jnp.asarray(0.4), jnp.asarray(p))
        np.testing.assert_allclose(other, mixed, atol=1e-12)

"""The cases of the Gaussian families."""

import jax
import jax.numpy as jnp
import numpy as np

from bench.cases import Case, installed, to_both, versus
from jaxdiv import gaussian, losses


def _laws(rows, d):
    def make():
        rng = np.random.default_rng(0)
        locs = rng.standard_normal((2, rows, d), dtype=np.float32)
        roots = np.tril(0.3 * rng.standard_normal((2, rows, d, d), dtype=np.float32), -1)
        roots += np.exp(0.3 * rng.standard_normal((2, rows, d, 1), dtype=np.float32)) * np.eye(d, dtype=np.float32)
        return locs[0], roots[0], locs[1], roots[1]

    return make


def _diagonal(rows, d):
    def make():
        rng = np.random.default_rng(0)
        return tuple(rng.standard_normal((rows, d), dtype=np.float32) for _ in range(2))

    return make


# ---------------------------------------------------------------- peers


def numpyro_kl(loc_p, root_p, loc_q, root_q):
    from numpyro import distributions

    p, q = (distributions.MultivariateNormal(m, scale_tril=r) for m, r in ((loc_p, root_p), (loc_q, root_q)))
    return distributions.kl_divergence(p, q)


def distrax_kl(loc_p, root_p, loc_q, root_q):
    import distrax

    p, q = (distrax.MultivariateNormalTri(m, r) for m, r in ((loc_p, root_p), (loc_q, root_q)))
    return p.kl_divergence(q)


def _numpyro_standard_kl(loc, log_scale):
    from numpyro import distributions

    p, q = distributions.Normal(loc, jnp.exp(log_scale)), distributions.Normal(0.0, 1.0)
    return jnp.sum(distributions.kl_divergence(p, q), -1)


def _plain_standard_kl(loc, log_scale):
    return -0.5 * jnp.sum(1 + 2 * log_scale - loc**2 - jnp.exp(2 * log_scale), -1)


# ---------------------------------------------------------------- the cases


def _batched(verb):
    """A verb on the arrays of two batches of laws."""

    def run(loc_p, root_p, loc_q, root_q):
        return jax.vmap(verb)(gaussian.MultivariateNormal(loc_p, root_p), gaussian.MultivariateNormal(loc_q, root_q))

    return run


def _slopes(verb):
    return jax.value_and_grad(lambda *arrays: jnp.sum(_batched(verb)(*arrays)), argnums=(0, 1, 2, 3))


_VERBS = {
    "js": gaussian.js,
    "renyi": lambda p, q: gaussian.renyi(p, q, alpha=0.3),
    "chernoff": gaussian.chernoff,
    "geometric_js": gaussian.geometric_js,
    "wasserstein2": gaussian.squared_wasserstein2,
}

CASES = [
    Case(
        "gaussian-kl-100000x8",
        {"jaxdiv": _batched(gaussian.kl)} | installed(numpyro=numpyro_kl, distrax=distrax_kl),
        _laws(100000, 8),
        {"numpyro": 0.1, "distrax": 0.06},
    ),
    versus(
        "standard-kl-grad-65536x64",
        to_both,
        losses.standard_normal_kl,
        installed(numpyro=_numpyro_standard_kl) | {"plain": _plain_standard_kl},
        _diagonal(65536, 64),
        numpyro=0.4,
        plain=1.1,
    ),
    Case(
        "gaussian-js-20000x8",
        {"jaxdiv": _batched(gaussian.js), "our kl": _batched(gaussian.kl)},
        _laws(20000, 8),
        {"our kl": 12},
    ),
    Case(
        "gaussian-verbs-grad-1000x8",
        {"jaxdiv": _slopes(gaussian.kl)} | {name: _slopes(verb) for name, verb in _VERBS.items()},
        _laws(1000, 8),
        {},
    ),
]

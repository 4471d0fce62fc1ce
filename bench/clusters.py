"""The cases of k-means: ten steps from one set of seeds, by a divergence, and by scikit-learn in Euclidean distance.

What they minimise differs, so that a ratio is the price of the divergence. Euclidean k-means on the features of
`embedding` minimises Jensen-Shannon, up to the quadrature, but over centroids that are no distributions.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.cases import Case, Host, installed
from jaxdiv import clustering, embedding, simplex

K, STEPS = 100, 10


def _histograms(n, k):
    def make():
        rng = np.random.default_rng(0)
        centers = rng.dirichlet(np.full(k, 0.3), K)
        return (np.stack([rng.dirichlet(30 * centers[i % K] + 0.05) for i in range(n)]).astype(np.float32),)

    return make


def _by(verb):
    return lambda laws: clustering.kmeans(verb, laws, K, key=jax.random.key(0), steps=STEPS)


def _euclidean(points):
    from sklearn.cluster import KMeans

    one: Any = 1  # annotated as a string there
    return KMeans(K, n_init=one, max_iter=STEPS, tol=0, random_state=0).fit(points)


def _of_features(laws):
    features = jax.jit(jax.vmap(functools.partial(embedding.js_features, nodes=2)))(jnp.asarray(laws))
    return _euclidean(np.asarray(features))


_PEERS = installed(sklearn=Host(_euclidean, np.asarray), sklearn_features=Host(_of_features, np.asarray))

CASES = [
    Case(
        "kmeans-js-100000x64", {"jaxdiv": _by(simplex.js), "kl": _by(simplex.kl)} | _PEERS, _histograms(10**5, 64), {}
    ),
]

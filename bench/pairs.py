"""The cases of all pairs. A ratio to `cdist` of scipy is that of seconds: it computes in float64, on one core.

`python -m bench.pairs` is 2000 x 2000 of them in one run of three rounds, in two or three minutes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxdiv
from bench.cases import Case, Host, installed
from bench.measure import measure
from jaxdiv import categorical, gaussian, simplex


def _histograms(n, k=256):
    def make():
        rng = np.random.default_rng(0)
        return tuple(rng.dirichlet(np.ones(k), n).astype(np.float32) for _ in "pq")

    return make


def _gaussians(n, d):
    def make():
        rng = np.random.default_rng(0)
        roots = np.tril(0.3 * rng.standard_normal((2, n, d, d), dtype=np.float32), -1)
        roots += np.exp(0.3 * rng.standard_normal((2, n, d, 1), dtype=np.float32)) * np.eye(d, dtype=np.float32)
        locs = rng.standard_normal((2, n, d), dtype=np.float32)
        return locs[0], roots[0], locs[1], roots[1]

    return make


# ---------------------------------------------------------------- ours


def _table(verb):
    return functools.partial(jaxdiv.pairwise, verb)


def _of_logits(verb):
    return lambda ps, qs: jaxdiv.pairwise(verb, jnp.log(ps), jnp.log(qs))


def _half(ps, _):
    return jaxdiv.pairwise(simplex.js, ps, symmetric=True)


def _any_js(p, q):
    return simplex.js(p, q)


def _own_jeffreys(p, q):
    return jnp.sum((p - q) * (jnp.log(p) - jnp.log(q)))


def _slopes(table):
    return jax.value_and_grad(lambda ps, qs: jnp.mean(table(ps, qs)), argnums=(0, 1))


def _of_laws(table):
    def run(loc_p, root_p, loc_q, root_q):
        return table(gaussian.MultivariateNormal(loc_p, root_p), gaussian.MultivariateNormal(loc_q, root_q))

    return run


def _nearest(ps, qs):
    return jaxdiv.nearest(simplex.js, ps, qs, k=10).indices


# ---------------------------------------------------------------- peers


def _naive(verb):
    return jax.vmap(jax.vmap(verb, (None, 0)), (0, None))


def _cdist_js(ps, qs):
    from scipy.spatial.distance import cdist

    return cdist(ps, qs, "jensenshannon")


def _numpy_kl(ps, qs):
    return np.sum(ps * np.log(ps), 1)[:, None] - ps @ np.log(qs).T


def _sklearn_nearest(ps, qs):
    from scipy.spatial.distance import jensenshannon
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=10, metric=jensenshannon).fit(qs).kneighbors(ps, return_distance=False)


_CDIST = installed(scipy=Host(_cdist_js, np.asarray))

CASES = [
    Case(
        "pairs-js-500",
        {"jaxdiv": _table(simplex.js)} | _CDIST | {"vmap": _naive(simplex.js)},
        _histograms(500),
        {"scipy": 0.06},
    ),
    Case("pairs-half-js-1000", {"jaxdiv": _half} | _CDIST, _histograms(1000), {"scipy": 0.035}),
    Case("pairs-kl-500", {"jaxdiv": _table(simplex.kl)} | _CDIST, _histograms(500), {"scipy": 0.06}),
    Case("pairs-any-js-500", {"jaxdiv": _table(_any_js)} | _CDIST, _histograms(500), {"scipy": 0.12}),
    Case(
        "pairs-kl-matmul-2000",
        {"jaxdiv": jaxdiv.pairwise_kl_by_matmul, "numpy": Host(_numpy_kl, np.asarray)},
        _histograms(2000),
        {"numpy": 1.5},
    ),
    Case(
        "pairs-js-grad-500",
        {"jaxdiv": _slopes(_table(simplex.js)), "vmap": _slopes(_naive(simplex.js))},
        _histograms(500),
        {"vmap": 1.1},
    ),
    Case(
        "pairs-nearest-js-200",
        {"jaxdiv": _nearest} | installed(sklearn=Host(_sklearn_nearest, np.asarray)),
        _histograms(200),
        {},
    ),
    *(
        Case(
            f"pairs-gaussian-{name}-500x8",
            {"jaxdiv": _of_laws(_table(verb)), "vmap": _of_laws(_naive(verb))},
            _gaussians(500, 8),
            {"vmap": 1.1},
        )
        for name, verb in (("kl", gaussian.kl), ("js", gaussian.js))
    ),
]


# ---------------------------------------------------------------- at full size


def main():
    """Prints the ratio of each to the times of numpy and scipy in the same run."""
    tables = {"js": simplex.js, "kl": simplex.kl, "any js": _any_js, "own jeffreys": _own_jeffreys}
    tables |= {name: getattr(simplex, name) for name in ("jeffreys", "total_variation", "squared_hellinger", "chi2")}
    tables["amari"] = functools.partial(simplex.amari, alpha=0.3)
    contenders = {name: _table(verb) for name, verb in tables.items()}
    contenders |= {f"logits {verb.__name__}": _of_logits(verb) for verb in (categorical.kl, categorical.js)}
    contenders |= {"half of js": _half, "kl by matmul": jaxdiv.pairwise_kl_by_matmul}
    peers = {"numpy": Host(_numpy_kl, np.asarray)} | _CDIST
    rows = measure(Case("pairs-2000", contenders | peers, _histograms(2000), {}), quick=False)
    for name, row in rows.items():
        ratios = "  ".join(f"over {peer} {row['cpu_ms'] / rows[peer]['cpu_ms']:8.4f}" for peer in peers)
        print(f"{name:20s} {row['cpu_ms']:9.1f} ms  {ratios}  {row.get('temporaries_mib', 0):6.1f} MiB")


if __name__ == "__main__":
    main()

"""The rows of what looks at data: estimators, metrics, tables of pairs, clusters, features, elementary functions."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import log_softmax, softmax
from jax.scipy.special import gammaincc, kl_div, logsumexp, rel_entr
from jax.scipy.stats import norm

import jaxdiv
from bench.cases import Host, rel_entr_js, rel_entr_kl
from bench.every import laws, plain
from bench.every.row import Row, first, logits, normal, positive, probabilities
from jaxdiv import categorical, clustering, elementary, embedding, estimators, gaussian, metrics, simplex

BOTH = (0, 1)


# ---------------------------------------------------------------- estimators


def _log_pair(*shape):
    log_p = -jnp.abs(normal(*shape)) - 1
    return log_p, log_p + normal(*shape, seed=1, scale=0.5)


def _drawn(generator):
    """The mean of f(q / p) over draws from p, with the gradient of the expectation."""
    return lambda p, q: jnp.exp(p - lax.stop_gradient(p)) * generator(jnp.exp(q - p))


def _skewed(u):
    return 0.5 * (u * jnp.log(u) - (1 + u) * jnp.log(0.5 * (1 + u)))


def _plain_sequence_sum(terms, log_p):
    steps = log_p - lax.stop_gradient(log_p)
    before = jnp.cumsum(steps, -1) - steps
    return jnp.sum(jnp.exp(before) * terms, -1)


def _our_monte_carlo(samples):
    def run(a, b):
        log_densities = (lambda x, loc=loc: norm.logpdf(x, loc) for loc in (a, b))
        key = jax.random.key(0)
        return estimators.monte_carlo("kl", jax.random.normal, *log_densities, key=key, samples=samples).value

    return run


def _plain_monte_carlo(samples):
    def run(a, b):
        x = jax.random.normal(jax.random.key(0), (samples,))
        return jnp.mean(_drawn(lambda u: u - 1 - jnp.log(u))(norm.logpdf(x, a), norm.logpdf(x, b)))

    return run


def _plain_knn_kl(xs, ys):
    def squares(ys):
        return jnp.sum((xs[:, None] - ys[None]) ** 2, -1)

    own, other = -lax.top_k(-squares(xs), 2)[0][:, 1], jnp.min(squares(ys), 1)
    return 0.5 * xs.shape[1] * jnp.mean(jnp.log(other / own)) + math.log(len(ys) / (len(xs) - 1))


def _plain_log_mean(log_sum, scores):
    log_mean = logsumexp(scores) - math.log(len(scores))
    return jnp.logaddexp(log_sum + math.log(0.9), log_mean), jnp.float32(1.9)


def _estimators():
    sizes, many = ((64, 512), (2000, 1000)), ((1024,), (1000000,))
    generators = {
        "kl": lambda u: u - 1 - jnp.log(u),
        "js": _skewed,
        "squared_hellinger": lambda u: 0.5 * (1 - jnp.sqrt(u)) ** 2,
    }
    formulas = {
        "k1": lambda p, q: p - q,
        "k2": lambda p, q: 0.5 * (p - q) ** 2,
        "k3": lambda p, q: jnp.exp(q - p) - 1 - (q - p),
        "sequence_sum": _plain_sequence_sum,
    }
    for name, formula in formulas.items():
        yield Row(f"estimators.{name}", "", getattr(estimators, name), formula, _log_pair, sizes, BOTH)
    for name, generator in generators.items():
        ours = functools.partial(estimators.f_divergence, name)
        yield Row("estimators.f_divergence", name, ours, _drawn(generator), _log_pair, sizes, BOTH)
    links = {"kl": lambda c: c, "js": lambda c: 0.5 * jnp.log(2 * jnp.exp(c) / (1 + jnp.exp(c)))}
    for name, link in links.items():
        ours = functools.partial(estimators.link, name)
        yield Row("estimators.link", name, ours, link, lambda *size: (normal(*size),), sizes, (0,))
    yield Row(
        "estimators.mean",
        "",
        estimators.mean,
        lambda x: (jnp.mean(x), jnp.std(x, ddof=1) / math.sqrt(x.size)),
        lambda n: (1 + normal(n),),
        many,
        (0,),
    )
    for samples in (1024, 1000000):
        yield Row(
            "estimators.monte_carlo",
            f"kl, {samples} draws",
            _our_monte_carlo(samples),
            _plain_monte_carlo(samples),
            lambda: (jnp.float32(0), jnp.float32(1)),
            ((),),
            BOTH,
            tolerance=None,
        )
    yield Row(
        "estimators.knn_kl",
        "",
        estimators.knn_kl,
        _plain_knn_kl,
        lambda n, d: (normal(n, d), 0.3 + normal(n, d, seed=1)),
        ((500, 8), (2000, 8)),
        (0,),
    )
    critics = {
        "donsker_varadhan": lambda p, q: jnp.mean(p) - logsumexp(q) + math.log(len(q)),
        "nwj": lambda p, q: jnp.mean(p) - jnp.mean(jnp.exp(q - 1)),
    }
    for name, formula in critics.items():
        make = lambda n: (1 + normal(n), normal(n, seed=1))  # noqa: E731
        yield Row(f"estimators.{name}", "", getattr(estimators, name), formula, make, many, BOTH)
    yield Row(
        "estimators.info_nce",
        "",
        estimators.info_nce,
        lambda s: jnp.mean(jnp.diagonal(s) - logsumexp(s, -1)) + math.log(len(s)),
        lambda n: (normal(n, n) + 2 * jnp.eye(n),),
        ((256,), (2048,)),
        (0,),
    )
    yield Row(
        "estimators.update_log_mean",
        "",
        lambda s, q: estimators.update_log_mean(estimators.LogMean(s, jnp.float32(1)), q, decay=0.9),
        _plain_log_mean,
        lambda n: (jnp.float32(0.3), normal(n)),
        many,
    )


# ---------------------------------------------------------------- metrics


def _high(state):
    """The leading parts of the sums of w, w x, w x^2 and w^2."""
    return tuple(x.high for x in state[:4])


def _grouped(n, groups):
    values = jnp.asarray(np.random.default_rng(0).random(n, np.float32))
    return values, jnp.asarray(np.random.default_rng(1).integers(0, groups, n, np.int32))


def _states(groups):
    values, of = _grouped(10000, groups)
    old, new = (values, of), (0.9 * values, of**2 // groups)
    return tuple(metrics.update(metrics.empty(groups), x, groups=g) for x, g in (old, new))


def _plain_update(state, values):
    terms = jnp.float32(values.size), jnp.sum(values), jnp.sum(values**2), jnp.float32(values.size)
    return tuple(map(jnp.add, _high(state), terms))


def _plain_grouped_update(state, values, groups):
    one = jnp.ones_like(values)
    sums = (jax.ops.segment_sum(x, groups, len(state.weights.high)) for x in (one, values, values**2, one))
    return tuple(map(jnp.add, _high(state), sums))


def _plain_compute(state):
    n, total, squares, _ = _high(state)
    mean = total / n
    return mean, jnp.sqrt((squares / n - mean**2) / (n - 1)), n


def _plain_drift(old, new):
    a, b = new.weights.high, old.weights.high
    p, q = a / jnp.sum(a), b / jnp.sum(b)
    pooled = (a + b) / jnp.sum(a + b)
    square = sum(jnp.sum((x - jnp.sum(x) * pooled) ** 2 / (jnp.sum(x) * pooled)) for x in (a, b))
    tail = gammaincc(0.5 * (len(p) - 1), 0.5 * square)
    return rel_entr_js(p, q), rel_entr_kl(p, q), rel_entr_kl(p, q) + rel_entr_kl(q, p), tail


def _confidence_and_outcome(bins):
    p, _ = _grouped(10000, bins)
    y = (jnp.asarray(np.random.default_rng(2).random(10000, np.float32)) < p).astype(p.dtype)
    groups = jnp.minimum((p * bins).astype(int), bins - 1)
    return tuple(metrics.update(metrics.empty(bins), x, groups=groups) for x in (p, y))


def _plain_calibration(confidence, outcome):
    n = confidence.weights.high
    p, y, share = confidence.values.high / n, outcome.values.high / n, n / jnp.sum(n)
    return jnp.sum(share * (rel_entr(y, p) + rel_entr(1 - y, 1 - p))), jnp.sum(share * jnp.abs(y - p))


def _plain_holm(p):
    order = jnp.argsort(p)
    corrected = lax.cummax(jnp.minimum(1, p[order] * (len(p) - jnp.arange(len(p), dtype=p.dtype))))
    return jnp.zeros_like(p).at[order].set(corrected)


def _plain_benjamini_hochberg(p):
    order, n = jnp.argsort(p), len(p)
    ranked = jnp.minimum(1, p[order] * n / jnp.arange(1, n + 1, dtype=p.dtype))
    return jnp.zeros_like(p).at[order].set(lax.cummin(ranked, reverse=True))


def _table(rows, columns):
    return normal(rows, columns), 1.1 * normal(rows, columns, seed=1)


def _plain_drift_table(old, new):
    found = []
    for a, b in zip(old.T, new.T, strict=True):
        edges = np.quantile(a, np.linspace(0, 1, 11)[1:-1])
        q, p = (np.bincount(np.digitize(x, edges), minlength=10) / len(x) for x in (a, b))
        m = 0.5 * (p + q)
        found.append(0.5 * np.sum(p * np.log(p / m) + q * np.log(q / m)))
    return np.array(found, np.float32)


def _metrics():
    p_values = lambda n: (jnp.asarray(np.random.default_rng(0).random(n, np.float32) ** 4),)  # noqa: E731
    groups, few = ((20,), (1000,)), ((64,), (10000,))
    yield Row(
        "metrics.update",
        "",
        metrics.update,
        _plain_update,
        lambda n: (metrics.empty(), normal(n)),
        ((4096,), (1000000,)),
        seen=_high,
    )
    yield Row(
        "metrics.update",
        "groups",
        lambda state, x, groups: metrics.update(state, x, groups=groups),
        _plain_grouped_update,
        lambda n, groups: (metrics.empty(groups), *_grouped(n, groups)),
        ((4096, 20), (1000000, 100)),
        seen=_high,
    )
    ours, formula = metrics.merge, lambda a, b: jax.tree.map(jnp.add, _high(a), _high(b))
    yield Row("metrics.merge", "", ours, formula, _states, groups, seen=_high)
    yield Row("metrics.compute", "", metrics.compute, _plain_compute, first(_states), groups, seen=lambda x: x[:3])
    yield Row(
        "metrics.bins",
        "",
        metrics.bins,
        lambda x, edges: jnp.searchsorted(edges, x, side="right"),
        lambda n, edges: (normal(n), jnp.linspace(-2, 2, edges)),
        ((4096, 20), (1000000, 20)),
    )
    yield Row(
        "metrics.edges",
        "numpy",
        Host(lambda x: metrics.edges(x, 10), np.asarray),
        Host(lambda x: np.quantile(x, np.linspace(0, 1, 11)[1:-1]), np.asarray),
        lambda n: (normal(n),),
        ((4096,), (1000000,)),
        tolerance=1e-2,
    )
    yield Row(
        "metrics.drift",
        "",
        metrics.drift,
        _plain_drift,
        _states,
        groups,
        seen=lambda drift: (*drift[:3], drift.p_value),
    )
    yield Row(
        "metrics.drift_table",
        "numpy",
        Host(metrics.drift_table, np.asarray),
        Host(_plain_drift_table, np.asarray),
        _table,
        ((2000, 20), (20000, 100)),
        seen=lambda table: table.drift.js,
        tolerance=5e-2,
    )
    yield Row(
        "metrics.calibration",
        "",
        metrics.calibration,
        _plain_calibration,
        _confidence_and_outcome,
        ((15,), (100,)),
        seen=lambda x: (x.kl, x.absolute_error),
    )
    for name, formula in (("holm", _plain_holm), ("benjamini_hochberg", _plain_benjamini_hochberg)):
        yield Row(f"metrics.{name}", "", getattr(metrics, name), formula, p_values, few)


# ---------------------------------------------------------------- tables of pairs, clusters, features


def _of_all_pairs(formula):
    return lambda ps, qs: jax.vmap(lambda p: jax.vmap(lambda q: formula(p, q))(qs))(ps)


def _plain_nearest(ps, qs):
    values, indices = lax.top_k(-_of_all_pairs(rel_entr_js)(ps, qs), 3)
    return -values, indices


def _plain_categorical_table(xs, ys):
    s = log_softmax(xs)
    return jnp.sum(jnp.exp(s) * s, -1)[:, None] - jnp.exp(s) @ log_softmax(ys).T


def _pairs():
    sizes, js = ((128, 64), (1000, 128)), _of_all_pairs(rel_entr_js)

    def row(function, verb, ours, formula, make=probabilities, sizes=sizes, constant=True):
        return Row(function, verb, ours, formula, make, sizes, BOTH, up_to_a_constant=constant)

    def table(divergence):
        return lambda ps, qs: jaxdiv.pairwise(divergence, ps, qs)

    for verb in ("kl", "js", "total_variation"):
        formula = _of_all_pairs(plain.OF_PROBABILITIES[verb])
        yield row("pairwise", f"simplex.{verb}", table(getattr(simplex, verb)), formula)
    ours, formula = table(categorical.kl), _plain_categorical_table
    yield row("pairwise", "categorical.kl", ours, formula, make=logits, constant=False)
    ours, formula = table(gaussian.kl), _of_all_pairs(plain.OF_ROOTS["kl"])
    yield row("pairwise", "gaussian.kl", ours, formula, laws.roots, ((64, 8), (200, 8)), constant=False)
    ours = lambda ps, qs: jaxdiv.nearest(simplex.js, ps, qs, k=3)  # noqa: E731
    yield row("nearest", "simplex.js, k=3", ours, _plain_nearest)
    ours = lambda ps, qs: jaxdiv.pairwise_mean(simplex.js, ps, qs)  # noqa: E731
    yield row("pairwise_mean", "simplex.js", ours, lambda ps, qs: jnp.mean(js(ps, qs), 1))
    formula = lambda ps, qs: jnp.sum(ps * jnp.log(ps), -1)[:, None] - ps @ jnp.log(qs).T  # noqa: E731
    yield row("pairwise_kl_by_matmul", "", jaxdiv.pairwise_kl_by_matmul, formula)


def _clustered(n, k, events):
    centres = normal(k, events, seed=1, scale=2.0)
    return (softmax(centres[jnp.arange(n) % k] + normal(n, events, scale=0.3)),)


def _plain_centroid(laws):
    mean = jnp.mean(laws, 0)
    return mean, jnp.mean(rel_entr_kl(laws, mean[None]))


def _plain_kmeans(laws, k, steps=100):
    """Lloyd's steps from seeds that are far from each other, until no law changes its cluster."""
    table = _of_all_pairs(rel_entr_kl)

    def seed(i, seeds):
        distances = jnp.where(jnp.arange(k) < i, table(laws, seeds), jnp.inf)
        return seeds.at[i].set(laws[jnp.argmax(jnp.min(distances, 1))])

    def step(carry):
        i, centroids, labels, _ = carry
        counts = jax.ops.segment_sum(jnp.ones(len(laws)), labels, k)
        centroids = jax.ops.segment_sum(laws, labels, k) / counts[:, None]
        found = jnp.argmin(table(laws, centroids), 1)
        return i + 1, centroids, found, jnp.any(found != labels)

    seeds = lax.fori_loop(1, k, seed, jnp.ones((k, laws.shape[1])).at[0].set(laws[0]))
    start = 0, seeds, jnp.argmin(table(laws, seeds), 1), jnp.array(True)
    _, centroids, labels, _ = lax.while_loop(lambda x: x[3] & (x[0] < steps), step, start)
    return jnp.mean(rel_entr_kl(laws, centroids[labels]))


def _clusters():
    yield Row(
        "clustering.centroid",
        "simplex.kl",
        functools.partial(clustering.centroid, simplex.kl),
        _plain_centroid,
        lambda *size: _clustered(*size),
        ((256, 4, 64), (4096, 4, 256)),
        seen=lambda x: x[:2],
    )
    yield Row(
        "clustering.kmeans",
        "simplex.kl, k=8",
        lambda x: clustering.kmeans(simplex.kl, x, 8, key=jax.random.key(0)),
        functools.partial(_plain_kmeans, k=8),
        _clustered,
        ((256, 8, 64), (4096, 8, 256)),
        seen=lambda x: x.cost,
    )


def _plain_features(p, log_p):
    nodes, weights = (jnp.asarray(x, p.dtype) for x in NODES)
    phase = log_p[..., None] * nodes
    circle = jnp.stack([jnp.cos(phase), jnp.sin(phase)], -1)
    return (jnp.sqrt(0.5 * p[..., None] * weights)[..., None] * circle).reshape(len(p), -1)


NODES = embedding.RULES[14]


def _features():
    sizes = (64, 64), (1000, 256)
    ours, formula = jax.vmap(embedding.js_features), lambda p: _plain_features(p, jnp.log(p))
    yield Row("embedding.js_features", "", ours, formula, first(probabilities), sizes, (0,))
    ours, formula = jax.vmap(embedding.js_features_of_logits), lambda x: _plain_features(softmax(x), log_softmax(x))
    yield Row("embedding.js_features_of_logits", "", ours, formula, first(logits), sizes, (0,))


def _elementary():
    sizes = (1024, 256), (16384, 256)
    pair = lambda *size: tuple(positive(*size, seed=i) for i in range(2))  # noqa: E731
    formula = lambda x: jnp.expm1(x) - x  # noqa: E731
    yield Row("elementary.expm1x", "", elementary.expm1x, formula, lambda *size: (normal(*size),), sizes, (0,))
    for name, formula in (("kl_div", kl_div), ("rel_entr", rel_entr)):
        yield Row(f"elementary.{name}", "", getattr(elementary, name), formula, pair, sizes, BOTH)


ROWS = [row for of in (_estimators, _metrics, _pairs, _clusters, _features, _elementary) for row in of()]

"""The few lines that a user of JAX writes in place of a function of this library: the peers of `bench.every`.

Float32 and correct to a thousandth on the inputs of that table, without thought for zeros, infinities and equality.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import log_sigmoid, log_softmax, softmax
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import digamma, gammaln, logsumexp, rel_entr, xlogy
from jax.scipy.stats import norm

from bench.cases import rel_entr_js, rel_entr_kl
from jaxdiv import gaussian

DRAWS = 1024


def sum_last(x):
    return jnp.sum(x, -1)


def maximised(function, like, steps=20):
    """The maximum over [0, 1] of a concave function, by thirds; the gradient is that at the maximum."""

    def step(_, ends):
        low, high = ends
        a, b = low + (high - low) / 3, high - (high - low) / 3
        left = function(a) > function(b)
        return jnp.where(left, low, a), jnp.where(left, b, high)

    low, high = lax.fori_loop(0, steps, step, (jnp.zeros_like(like), jnp.ones_like(like)))
    return function(lax.stop_gradient(0.5 * (low + high)))


# ---------------------------------------------------------------- discrete laws, of log-probabilities


class Sum(NamedTuple):
    """A function of the sum over events of a term of two log-probabilities; `logs` if terms are logarithms."""

    term: Callable
    outer: Callable = lambda x: x
    logs: bool = False


def _skewed(weight):
    def term(p, q):
        m = jnp.logaddexp(p + math.log(weight), q + math.log(1 - weight))
        return weight * jnp.exp(p) * (p - m) + (1 - weight) * jnp.exp(q) * (q - m)

    return term


def _mixed(p, q, alpha=0.5):
    return alpha * p + (1 - alpha) * q


def _affinity(p, q, alpha=0.5):
    return jnp.exp(_mixed(p, q, alpha))


OF_LOGS = {
    "kl": Sum(lambda p, q: jnp.exp(p) * (p - q)),
    "jeffreys": Sum(lambda p, q: (jnp.exp(p) - jnp.exp(q)) * (p - q)),
    "js": Sum(_skewed(0.5)),
    "generalized_js": Sum(_skewed(0.3)),
    "rescaled_js": Sum(_skewed(0.3), lambda s: s / 0.21),
    "js_distance": Sum(_skewed(0.5), jnp.sqrt),
    "renyi": Sum(functools.partial(_mixed, alpha=0.7), lambda s: s / -0.3, logs=True),
    "amari": Sum(functools.partial(_affinity, alpha=0.7), lambda s: (1 - s) / 0.21),
    "squared_hellinger": Sum(_affinity, lambda s: 1 - s),
    "hellinger_distance": Sum(_affinity, lambda s: jnp.sqrt(1 - s)),
    "fisher_rao_distance": Sum(_affinity, lambda s: 2 * jnp.arccos(s)),
    "bhattacharyya": Sum(_mixed, lambda s: -s, logs=True),
    "total_variation": Sum(lambda p, q: 0.5 * jnp.abs(jnp.exp(p) - jnp.exp(q))),
    "chi2": Sum(lambda p, q: jnp.exp(2 * p - q), lambda s: s - 1),
    "triangular": Sum(lambda p, q: (jnp.exp(p) - jnp.exp(q)) ** 2 / (jnp.exp(p) + jnp.exp(q))),
    "cross_entropy": Sum(lambda p, q: -jnp.exp(p) * q),
}


def of_logits(formula):
    def divergence(x, y):
        terms = formula.term(log_softmax(x), log_softmax(y))
        return formula.outer(logsumexp(terms, -1) if formula.logs else sum_last(terms))

    return divergence


def of_bernoulli(formula):
    def divergence(x, y):
        a, b = (formula.term(log_sigmoid(s * x), log_sigmoid(s * y)) for s in (1, -1))
        return formula.outer(jnp.logaddexp(a, b) if formula.logs else a + b)

    return divergence


def chernoff_of_logits(x, y):
    a, b = log_softmax(x), log_softmax(y)
    return maximised(lambda s: -logsumexp(s[:, None] * a + (1 - s[:, None]) * b, -1), x[:, 0])


def chernoff_of_bernoulli(x, y):
    a, b = ((log_sigmoid(s * x), log_sigmoid(s * y)) for s in (1, -1))
    return maximised(lambda s: -jnp.logaddexp(s * a[0] + (1 - s) * a[1], s * b[0] + (1 - s) * b[1]), x)


def entropy_of_logits(x):
    return -sum_last(softmax(x) * log_softmax(x))


def entropy_of_bernoulli(x):
    return jnp.logaddexp(0, x) - x * jax.nn.sigmoid(x)


def js_of_several(ps):
    return jnp.mean(rel_entr_kl(ps, jnp.mean(ps, -2, keepdims=True)), -1)


# ---------------------------------------------------------------- discrete laws, of probabilities


def _powers(p, q, alpha):
    return sum_last(p**alpha * q ** (1 - alpha))


def _coefficient(p, q):
    return sum_last(jnp.sqrt(p * q))


def _chernoff_of_probabilities(p, q):
    a, b = jnp.log(p), jnp.log(q)
    return maximised(lambda s: -jnp.log(sum_last(jnp.exp(s[:, None] * a + (1 - s[:, None]) * b))), p[:, 0])


OF_PROBABILITIES = {
    "kl": rel_entr_kl,
    "jeffreys": lambda p, q: rel_entr_kl(p, q) + rel_entr_kl(q, p),
    "js": rel_entr_js,
    "js_distance": lambda p, q: jnp.sqrt(rel_entr_js(p, q)),
    "renyi": lambda p, q: jnp.log(_powers(p, q, 0.7)) / -0.3,
    "amari": lambda p, q: (1 - _powers(p, q, 0.7)) / 0.21,
    "squared_hellinger": lambda p, q: 0.5 * sum_last((jnp.sqrt(p) - jnp.sqrt(q)) ** 2),
    "hellinger_distance": lambda p, q: jnp.sqrt(0.5 * sum_last((jnp.sqrt(p) - jnp.sqrt(q)) ** 2)),
    "fisher_rao_distance": lambda p, q: 2 * jnp.arccos(_coefficient(p, q)),
    "bhattacharyya": lambda p, q: -jnp.log(_coefficient(p, q)),
    "chernoff": _chernoff_of_probabilities,
    "total_variation": lambda p, q: 0.5 * sum_last(jnp.abs(p - q)),
    "chi2": lambda p, q: sum_last((p - q) ** 2 / q),
    "triangular": lambda p, q: sum_last((p - q) ** 2 / (p + q)),
    "cross_entropy": lambda p, q: -sum_last(xlogy(p, q)),
}


def mutual_information(joint):
    x, y = (jnp.sum(joint, axis, keepdims=True) for axis in (-1, -2))
    return jnp.sum(rel_entr(joint, x * y), (-1, -2))


def r_drop(x, y, targets):
    a, b = log_softmax(x), log_softmax(y)
    return sum_last(-0.5 * targets * (a + b) + (jnp.exp(a) - jnp.exp(b)) * (a - b))


# ---------------------------------------------------------------- normal laws of independent components


def per_component_kl(loc, log_scale, prior_loc=0.0, prior_log_scale=0.0):
    log_ratio = log_scale - prior_log_scale
    square = (loc - prior_loc) ** 2 * jnp.exp(-2 * jnp.asarray(prior_log_scale))
    return 0.5 * (square + jnp.exp(2 * log_ratio) - 1) - log_ratio


def scaled(law):
    """A law with its scale."""
    return gaussian.Normal(law.loc, jnp.exp(law.log_scale)) if isinstance(law, gaussian.NormalLogScale) else law


def _normal_kl(p, q):
    return sum_last(jnp.log(q.scale / p.scale) + (p.scale**2 + (p.loc - q.loc) ** 2) / (2 * q.scale**2) - 0.5)


def _normal_gap(p, q, s):
    """-log of the integral of p^s q^(1 - s)."""
    square = s * q.scale**2 + (1 - s) * p.scale**2
    quadratic = s * (1 - s) * (p.loc - q.loc) ** 2 / (2 * square)
    return sum_last(quadratic + 0.5 * jnp.log(square) - (1 - s) * jnp.log(p.scale) - s * jnp.log(q.scale))


def _normal_geometric_js(p, q):
    a, b = 1 / p.scale**2, 1 / q.scale**2
    mean = gaussian.Normal((a * p.loc + b * q.loc) / (a + b), jnp.sqrt(2 / (a + b)))
    return 0.5 * (_normal_kl(p, mean) + _normal_kl(q, mean))


def _normal_fisher_rao(p, q):
    x = 1 + (0.5 * (p.loc - q.loc) ** 2 + (p.scale - q.scale) ** 2) / (2 * p.scale * q.scale)
    return jnp.sqrt(sum_last(2 * jnp.arccosh(x) ** 2))


def _normal_w2(p, q):
    return sum_last((p.loc - q.loc) ** 2 + (p.scale - q.scale) ** 2)


def _monte_carlo_js(log_density, draw, p, q):
    def side(law, key):
        x = draw(law, key)
        a, b = log_density(p, x), log_density(q, x)
        return jnp.mean((a if law is p else b) - jnp.logaddexp(a, b), 0) + math.log(2)

    return 0.5 * (side(p, jax.random.key(0)) + side(q, jax.random.key(1)))


def normal_log_density(law, x):
    return sum_last(norm.logpdf(x, law.loc, law.scale))


def normal_draws(law, key):
    return law.loc + law.scale * jax.random.normal(key, (DRAWS, *law.loc.shape))


_normal_js = functools.partial(_monte_carlo_js, normal_log_density, normal_draws)


def normal_total_variation(p, q):
    """Of one component, from where the densities cross."""
    a = 1 / q.scale**2 - 1 / p.scale**2
    b = p.loc / p.scale**2 - q.loc / q.scale**2
    c = (q.loc / q.scale) ** 2 - (p.loc / p.scale) ** 2 - 2 * jnp.log(p.scale / q.scale)
    root = jnp.sqrt(b * b - a * c)
    masses = [norm.cdf((-b + s * root) / a, law.loc, law.scale) for law in (p, q) for s in (-1, 1)]
    return jnp.abs((masses[0] - masses[1]) - (masses[2] - masses[3]))


def normal_entropy(p):
    return sum_last(jnp.log(p.scale) + 0.5 * math.log(2 * math.pi * math.e))


def normal_chernoff(p, q):
    return maximised(lambda s: _normal_gap(p, q, s[:, None]), p.loc[:, 0])


def _of_gap(gap):
    """The divergences that are functions of an affinity."""
    return {
        "renyi": lambda p, q: gap(p, q, 0.7) / 0.3,
        "amari": lambda p, q: (1 - jnp.exp(-gap(p, q, 0.7))) / 0.21,
        "squared_hellinger": lambda p, q: 1 - jnp.exp(-gap(p, q, 0.5)),
        "hellinger_distance": lambda p, q: jnp.sqrt(1 - jnp.exp(-gap(p, q, 0.5))),
        "bhattacharyya": lambda p, q: gap(p, q, 0.5),
        "chi2": lambda p, q: jnp.exp(-gap(p, q, 2.0)) - 1,
    }


OF_NORMALS = _of_gap(_normal_gap) | {
    "kl": _normal_kl,
    "jeffreys": lambda p, q: _normal_kl(p, q) + _normal_kl(q, p),
    "js": _normal_js,
    "js_distance": lambda p, q: jnp.sqrt(_normal_js(p, q)),
    "chernoff": normal_chernoff,
    "geometric_js": _normal_geometric_js,
    "fisher_rao_distance": _normal_fisher_rao,
    "squared_wasserstein2": _normal_w2,
    "wasserstein2_distance": lambda p, q: jnp.sqrt(_normal_w2(p, q)),
    "cross_entropy": lambda p, q: _normal_kl(p, q) + normal_entropy(p),
}


# ---------------------------------------------------------------- normal laws with matrices, one pair


def rooted(law):
    """A law with the lower root of its covariance."""
    match law:
        case gaussian.MultivariateNormal():
            return law
        case gaussian.CovarianceNormal():
            return gaussian.MultivariateNormal(law.loc, jnp.linalg.cholesky(law.covariance))
        case gaussian.LowRankNormal():
            covariance = law.factor @ law.factor.T + jnp.diag(law.diag)
            return gaussian.MultivariateNormal(law.loc, jnp.linalg.cholesky(covariance))
        case gaussian.MatrixNormal():
            return gaussian.MultivariateNormal(law.loc.ravel(), jnp.kron(law.row_tril, law.column_tril))
    root = jnp.linalg.cholesky(law.precision)
    covariance = _solved(root, jnp.eye(root.shape[-1], dtype=root.dtype))
    loc = law.loc if isinstance(law, gaussian.PrecisionNormal) else _solved(root, law.natural_loc)
    return gaussian.MultivariateNormal(loc, jnp.linalg.cholesky(covariance))


def _solved(root, x):
    return cho_solve((root, True), x)


def _log_det(root):
    return 2 * jnp.sum(jnp.log(jnp.diagonal(root)))


def _covariance(root):
    return root @ root.T


def _full_kl(p, q):
    m = solve_triangular(q.scale_tril, p.scale_tril, lower=True)
    z = solve_triangular(q.scale_tril, q.loc - p.loc, lower=True)
    return 0.5 * (jnp.sum(m * m) + z @ z - len(z) + _log_det(q.scale_tril) - _log_det(p.scale_tril))


def _full_gap(p, q, s):
    """-log of the integral of p^s q^(1 - s)."""
    root = jnp.linalg.cholesky(s * _covariance(q.scale_tril) + (1 - s) * _covariance(p.scale_tril))
    z = solve_triangular(root, p.loc - q.loc, lower=True)
    log_dets = _log_det(root) - (1 - s) * _log_det(p.scale_tril) - s * _log_det(q.scale_tril)
    return 0.5 * (s * (1 - s) * (z @ z) + log_dets)


def _full_geometric_js(p, q):
    a, b = (_solved(x.scale_tril, jnp.eye(len(x.loc), dtype=x.loc.dtype)) for x in (p, q))
    root = jnp.linalg.cholesky(0.5 * (a + b))
    covariance = _solved(root, jnp.eye(len(p.loc), dtype=p.loc.dtype))
    mean = gaussian.MultivariateNormal(0.5 * covariance @ (a @ p.loc + b @ q.loc), jnp.linalg.cholesky(covariance))
    return 0.5 * (_full_kl(p, mean) + _full_kl(q, mean))


def _full_w2(p, q):
    m = q.scale_tril.T @ p.scale_tril
    cross = jnp.sum(jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(m.T @ m), 0)))
    return jnp.sum((p.loc - q.loc) ** 2) + jnp.sum(p.scale_tril**2) + jnp.sum(q.scale_tril**2) - 2 * cross


def full_entropy(p):
    return 0.5 * _log_det(p.scale_tril) + 0.5 * len(p.loc) * math.log(2 * math.pi * math.e)


def full_log_density(law, x):
    # By the inverse: to solve for a thousand draws under vmap is slower by far.
    inverse = solve_triangular(law.scale_tril, jnp.eye(len(law.loc), dtype=law.loc.dtype), lower=True)
    z = (x - law.loc) @ inverse.T
    return -0.5 * (sum_last(z * z) + _log_det(law.scale_tril) + len(law.loc) * math.log(2 * math.pi))


def full_draws(law, key):
    return law.loc + jax.random.normal(key, (DRAWS, *law.loc.shape)) @ law.scale_tril.T


_full_js = functools.partial(_monte_carlo_js, full_log_density, full_draws)

OF_ROOTS = _of_gap(_full_gap) | {
    "kl": _full_kl,
    "jeffreys": lambda p, q: _full_kl(p, q) + _full_kl(q, p),
    "js": _full_js,
    "js_distance": lambda p, q: jnp.sqrt(_full_js(p, q)),
    "chernoff": lambda p, q: maximised(functools.partial(_full_gap, p, q), p.loc[0]),
    "geometric_js": _full_geometric_js,
    "squared_wasserstein2": _full_w2,
    "wasserstein2_distance": lambda p, q: jnp.sqrt(_full_w2(p, q)),
    "cross_entropy": lambda p, q: _full_kl(p, q) + full_entropy(p),
}


def low_rank_kl(p, q):
    """By Woodbury's identity."""

    def capacitance(law):
        return jnp.linalg.cholesky(jnp.eye(law.factor.shape[-1]) + law.factor.T @ (law.factor / law.diag[:, None]))

    roots = [capacitance(law) for law in (p, q)]
    log_dets = [jnp.sum(jnp.log(law.diag)) + _log_det(root) for law, root in zip((p, q), roots, strict=True)]

    def solved(x):
        return solve_triangular(roots[1], (q.factor / q.diag[:, None]).T @ x, lower=True)

    z = q.loc - p.loc
    square = jnp.sum(z * z / q.diag) - jnp.sum(solved(z) ** 2)
    parts = jnp.sum(p.diag / q.diag) + jnp.sum(p.factor**2 / q.diag[:, None])
    trace = parts - jnp.sum(solved(jnp.diag(jnp.sqrt(p.diag))) ** 2) - jnp.sum(solved(p.factor) ** 2)
    return 0.5 * (log_dets[1] - log_dets[0] + trace + square - len(z))


def matrix_kl(p, q):
    n, m = p.loc.shape
    rows, columns = (solve_triangular(getattr(q, x), getattr(p, x), lower=True) for x in ("row_tril", "column_tril"))
    z = solve_triangular(q.row_tril, p.loc - q.loc, lower=True)
    z = solve_triangular(q.column_tril, z.T, lower=True)
    log_dets = m * (_log_det(q.row_tril) - _log_det(p.row_tril)) + n * (
        _log_det(q.column_tril) - _log_det(p.column_tril)
    )
    return 0.5 * (jnp.sum(rows**2) * jnp.sum(columns**2) + jnp.sum(z * z) - n * m + log_dets)


OF_FORMS = {("LowRankNormal", "kl"): low_rank_kl, ("MatrixNormal", "kl"): matrix_kl}


# ---------------------------------------------------------------- mixtures


def mixture_log_density(law, x):
    """Of points `[..., d]`."""
    parts = sum_last(norm.logpdf(x[..., None, :], law.components.loc, law.components.scale))
    return logsumexp(parts + log_softmax(law.logits), -1)


def mixture_estimate(p, q, kl):
    """Monte Carlo with as many draws from each component."""

    def side(law, key):
        n, d = law.components.loc.shape
        z = jax.random.normal(key, (DRAWS, n, d))
        x = law.components.loc + law.components.scale * z
        a, b = mixture_log_density(p, x), mixture_log_density(q, x)
        other = b if kl else jnp.logaddexp(a, b) - math.log(2)
        return jnp.mean((a if law is p else b) - other, 0) @ softmax(law.logits)

    keys = jax.random.split(jax.random.key(0))
    return side(p, keys[0]) if kl else 0.5 * (side(p, keys[0]) + side(q, keys[1]))


# ---------------------------------------------------------------- exponential families


def _poisson_gap(p, q, s):
    return sum_last(s * jnp.exp(p) + (1 - s) * jnp.exp(q) - jnp.exp(s * p + (1 - s) * q))


def _poisson_kl(p, q):
    return sum_last(jnp.exp(q) - jnp.exp(p) - jnp.exp(p) * (q - p))


def _poisson_log_density(law, x):
    return sum_last(x * law - jnp.exp(law))


def _poisson_draws(law, key):
    return jax.random.poisson(key, jnp.exp(law), (DRAWS // 4, *law.shape)).astype(jnp.float32)


_poisson_js = functools.partial(_monte_carlo_js, _poisson_log_density, _poisson_draws)

OF_LOG_RATES = _of_gap(_poisson_gap) | {
    "kl": _poisson_kl,
    "jeffreys": lambda p, q: sum_last((p - q) * (jnp.exp(p) - jnp.exp(q))),
    "js": _poisson_js,
    "js_distance": lambda p, q: jnp.sqrt(_poisson_js(p, q)),
    "chernoff": lambda p, q: maximised(lambda s: _poisson_gap(p, q, s[:, None]), p[:, 0]),
}


def _beta_kl(p, q):
    (a, b), (c, d) = p, q
    logs = gammaln(c) + gammaln(d) - gammaln(c + d) - gammaln(a) - gammaln(b) + gammaln(a + b)
    return sum_last(logs + (a - c) * digamma(a) + (b - d) * digamma(b) + (c + d - a - b) * digamma(a + b))


def _gamma_kl(p, q):
    (a, r), (b, s) = p, q
    logs = gammaln(b) - gammaln(a) + b * jnp.log(r / s)
    return sum_last((a - b) * digamma(a) + logs + a * (s - r) / r)


def _dirichlet_kl(p, q):
    whole, other = (jnp.sum(x, -1, keepdims=True) for x in (p, q))
    logs = gammaln(whole) - gammaln(other) + jnp.sum(gammaln(q) - gammaln(p), -1, keepdims=True)
    return logs[..., 0] + sum_last((p - q) * (digamma(p) - digamma(whole)))


KL_OF_MEMBERS = {
    "poisson": lambda p, q: sum_last(q - p + p * jnp.log(p / q)),
    "exponential": lambda p, q: sum_last(jnp.log(p / q) + q / p - 1),
    "gamma": _gamma_kl,
    "beta": _beta_kl,
    "dirichlet": _dirichlet_kl,
}

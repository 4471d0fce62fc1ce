r"""Divergences between two mixtures of normal distributions: a lower bound, an estimate and an upper bound.

`GaussianMixture(logits, components)` has n components with weights $\mathrm{softmax}(\text{logits})$. `components` is
one law (distribution) of `jaxdiv.gaussian`, in any form except `MatrixNormal`, with a leading axis n on every field.

A divergence of two mixtures has no closed form. A result therefore holds bounds in closed form, an estimate, and the
estimate's error. With a `key` the estimate is by Monte Carlo, without one by quadrature. An estimate by quadrature that
lies outside of the bounds is moved onto them, and its error is then at least the length of the move. A Monte Carlo
estimate is not moved, because that would bias it: it can lie outside of the bounds by about its error.

The estimate of either divergence is an estimate of $\mathrm{E}_m\, g$, where $m = (p + q) / 2$ and $g \ge 0$ is a
function of the log-ratio that is zero only where $p = q$. Draws from $m$ keep the variance finite for all tails; with
draws from $p$ alone it is infinite where a component of $q$ is $\sqrt 2$ times as wide as those of $p$. Every component
of both mixtures is drawn from by reparametrisation, and the means are averaged with the components' weights. So the
gradient of the estimate is an unbiased estimate of the gradient, also with respect to the logits.

The bounds, for $p = \sum_i w_i p_i$ and $q = \sum_j v_j q_j$, use the closed forms between components. With $B$ the
Bhattacharyya divergence and $H$ the entropy, $\mathrm{KL}(p \,\|\, q)$ is between the largest of

$$0, \quad
  \sum_i w_i \log \frac{\sum_a w_a e^{-\mathrm{KL}(p_i \| p_a)}}{\bigl(\sum_j v_j^{1/2} e^{-B(p_i, q_j)}\bigr)^2}, \quad
  \sum_i w_i \Bigl[ \log \frac{\sum_a w_a e^{-\mathrm{KL}(p_i \| p_a)}}{\sum_j v_j \int p_i q_j} - H(p_i) \Bigr]$$

and the smallest of

$$\sum_i w_i \log \frac{\sum_a w_a e^{-B(p_i, p_a)}}{\sum_j v_j e^{-\mathrm{KL}(p_i \| q_j)}}, \quad
  \sum_i w_i \Bigl[ \log \frac{\sum_a w_a \int p_i p_a}{\sum_j v_j e^{-\mathrm{KL}(p_i \| q_j)}} + H(p_i) \Bigr], \quad
  \mathrm{KL}(w \,\|\, v) + \sum_i w_i \mathrm{KL}(p_i \,\|\, q_i) ,$$

where the last one needs equally many components on both sides and pairs them in their order. Let
$I_D(p) = -\sum_i w_i \log \sum_a w_a e^{-D(p_i, p_a)}$. It is a lower bound, for $D = B$, and an upper bound, for
$D = \mathrm{KL}$, of the mutual information between a draw $x$ and its component. Hence

$$I_B(m) - \tfrac12 I_{\mathrm{KL}}(p) - \tfrac12 I_{\mathrm{KL}}(q) \le \mathrm{JS}(p, q) \le
  I_{\mathrm{KL}}(m) - \tfrac12 I_B(p) - \tfrac12 I_B(q) .$$

The same inequality with $p$ and $q$ themselves as the components of $m$ gives two more bounds. The lower one is
$\log 2 - \log(1 + \sum_{ij} (w_i v_j)^{1/2} e^{-B(p_i, q_j)})$. The upper one is the mean of $\log 2 - \log(1 +
e^{-u})$ over the upper bounds $u$ of the two Kullback-Leibler divergences. The best bounds are taken, within
$[0, \log 2]$. Rounding errors of the bounds are relative to the mutual information, not to the divergence.

How tight the bounds are:

- Equal mixtures with components in the same order: both bounds are 0.
- One component on each side: the upper bound of Kullback-Leibler is exact. That of Jensen-Shannon is about twice the
  divergence near equality.
- Well separated components within each mixture, and those of $p$ and $q$ match in order: nearly as tight as for one
  component on each side.
- Mixtures far from each other: both bounds of Jensen-Shannon tend to $\log 2$.
- Overlapping components: neither bound is tight. The lower one can be 0, and the upper one of Jensen-Shannon $\log 2$.

References for the bounds: Durrieu, Thiran and Kelly, Lower and upper bounds for approximation of the Kullback-Leibler
divergence between Gaussian mixture models, 2012. Kolchinsky and Tracey, Estimating mixture entropy with pairwise
distances, 2017. Do, Fast approximation of Kullback-Leibler distance for dependence trees and hidden Markov models,
2003, for the bound that pairs components. Crooks, Inequalities between the Jenson-Shannon and Jeffreys divergences,
2008, for the bound of Jensen-Shannon by Kullback-Leibler.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxdiv import _inputs, categorical, gaussian
from jaxdiv._core.functions import (
    LOG2,
    capped,
    expm1,
    log1p,
    log_ratio,
    log_sum_exp,
    root,
    still_at_infinity,
    times,
    with_tangents,
)
from jaxdiv._core.groups import without
from jaxdiv._core.jit import jitted
from jaxdiv._core.rules import custom_jvp
from jaxdiv._discrete import terms
from jaxdiv._discrete.record import Event
from jaxdiv._discrete.softmax import distributions
from jaxdiv._gaussian import forms
from jaxdiv._gaussian.linalg import cholesky, product, solve_lower


class GaussianMixture(NamedTuple):
    """A mixture of normal laws: logits `[n]` of the weights, and a law with a leading axis n on every field."""

    logits: ArrayLike
    components: gaussian.Law


class Interval(NamedTuple):
    """A lower bound, an estimate, an upper bound, and the standard error of the estimate, each `[]`."""

    lower: jax.Array
    estimate: jax.Array
    upper: jax.Array
    standard_error: jax.Array


MOST_NODES = 370  # the weights of numpy overflow beyond

_SHAPES = {form: shapes for form, shapes in forms.SHAPES.items() if form is not gaussian.MatrixNormal}


class _Mixture(NamedTuple):
    """Logits and log-weights `[n]`, components in their form, and the components' means `[n, d]` and roots `[n, d, d]`.

    For independent components, `root` is the vector of their standard deviations.
    """

    logits: jax.Array
    log_weights: jax.Array
    components: Any
    loc: jax.Array
    root: jax.Array


def _mixtures(verb: str, p: GaussianMixture, q: GaussianMixture) -> tuple[list[_Mixture], jnp.dtype]:
    """Two mixtures with components of one form, and the dtype of a result."""
    found, dtype = _inputs.mixtures(f"mixture.{verb}", GaussianMixture, _SHAPES, p=p, q=q)
    found = {name: _counted(x) for name, x in found.items()}
    form = forms.common_form(*(type(x.components) for x in found.values()))
    record = forms.FORMS[form]
    by_root = gaussian.Normal if record.contrast else gaussian.MultivariateNormal
    laws = record.alike(*(_of_each(forms.regular_as, x.components, form) for x in found.values()))
    roots = [_of_each(forms.converted, law, by_root) for law in laws]
    logits = [x.logits for x in found.values()]
    return [
        _Mixture(x, jax.nn.log_softmax(x), *law)
        for x, *law in zip(logits, laws, *zip(*roots, strict=True), strict=True)
    ], dtype


def _counted(mixture: Any) -> Any:
    """A mixture with its excluded components, which may be invalid, replaced by the likeliest."""
    out = mixture.logits == -jnp.inf
    return mixture._replace(components=without(out, mixture.components, jax.nn.softmax(mixture.logits))[0])


def _of_each(conversion, laws, form):
    return jax.vmap(lambda law: conversion(law, form))(laws)


def _average(p: _Mixture, q: _Mixture) -> _Mixture:
    """The mixture (p + q) / 2: the components of p, then those of q."""
    both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), p, q)
    halved = both.log_weights - LOG2
    return both._replace(logits=halved, log_weights=halved)


# ---------------------------------------------------------------- the log-ratio


def _standardised(root, x):
    """The solution y `[d, k]` of root y = x."""
    return x / root[:, None] if root.ndim == 1 else solve_lower(root, x)


def _moved(root, y):
    return root[:, None] * y if root.ndim == 1 else product(jnp.tril(root), y)


def _diagonal(root):
    return root if root.ndim == 1 else jnp.diagonal(root)


def _log_terms(mixture, y):
    """Log of the weighted densities `[n, k]` at standardised points `y` `[n, d, k]`, without the constant of d."""
    log_det = jnp.sum(jnp.log(jax.vmap(_diagonal)(mixture.root)), -1)
    return (mixture.log_weights - log_det)[:, None] - 0.5 * jnp.sum(y * y, 1)


def _standard_coordinates(mixture, x):
    return jax.vmap(lambda loc, root: _standardised(root, x - loc[:, None]))(mixture.loc, mixture.root)


def _log_sum(terms, axis=-1):
    return log_sum_exp(jnp.moveaxis(terms, axis, -1))[..., 0]


def _log_ratio(p: _Mixture, q: _Mixture, x: jax.Array) -> jax.Array:
    """The logarithm of p / q at the points `x` `[d, k]`."""
    y = _standard_coordinates(p, x)
    p_terms, q_terms = _log_terms(p, y), _log_terms(q, _standard_coordinates(q, x))
    far = _log_sum(p_terms, 0) - _log_sum(q_terms, 0)
    if p.logits.shape != q.logits.shape:
        return far
    # For mixtures near each other: p / q is a mean of the ratios of paired terms, and each ratio comes from
    # differences.
    change = _paired_log_ratios(p, q, y)
    absent = (p.log_weights == -jnp.inf) & (q.log_weights == -jnp.inf)
    change = jnp.where(absent[:, None], 0, change)
    near = jnp.all(jnp.abs(change) <= 1, 0)
    weights = jax.nn.softmax(jnp.where(near, q_terms, 0), 0)  # far away all densities may be 0
    close = jnp.sum(weights * expm1(jnp.where(near, change, 0)), 0)
    return jnp.where(near, log1p(close), far)


def _paired_log_ratios(p, q, y):
    """The log-ratio of the weighted densities of each pair of components, at the points that p standardises to `y`."""
    _, _, weights, _ = distributions(p.logits, q.logits, None)

    def one(p_loc, p_root, q_loc, q_root, y):
        gap = _standardised(q_root, (p_loc - q_loc)[:, None] + _moved(p_root - q_root, y))
        p_diagonal, q_diagonal = _diagonal(p_root), _diagonal(q_root)
        log_det = jnp.sum(log_ratio(q_diagonal, p_diagonal, q_diagonal - p_diagonal))
        return log_det + 0.5 * jnp.sum(gap * (2 * y + gap), 0)

    return weights[:, None] + jax.vmap(one)(p.loc, p.root, q.loc, q.root, y)


# ---------------------------------------------------------------- the estimate


@functools.cache
def _of_log_ratio(divergence):
    """The term of a divergence as a function of log p/q, where p and q are densities in units of (p + q) / 2."""

    def event(c):
        p, q = 2 * jax.nn.sigmoid(c), 2 * jax.nn.sigmoid(-c)
        return Event(p, q, c, p - q, c, jnp.zeros_like(c), None, LOG2 + jax.nn.log_sigmoid(c))

    @custom_jvp
    def term(c):
        return divergence.term(event(c))

    @term.defjvp
    def _(primals, tangents):
        # dp / dc = p q / 2 = -dq / dc. The term itself is not differentiated: its branches that are not taken may
        # overflow.
        at = event(*primals)
        slope = 0.5 * (at.q * divergence.slope_p(at) - at.p * divergence.slope_q(at))
        return term(*primals), slope * tangents[0]

    return term


def _terms(term, p, q, m, z):
    """The values `[n, k]` of `term`, in units of the density of m = (p + q) / 2, at k points of each component of m.

    `z` `[n, d, k]` holds points of the standard normal law; each component maps them to its own scale and mean.
    """

    def of_component(loc, root, z):
        c = _log_ratio(p, q, loc[:, None] + _moved(root, z))
        return term(c)

    return jax.vmap(of_component)(m.loc, m.root, z)


def _by_draws(term, p, q, key, samples):
    m = _average(p, q)
    values = _terms(term, p, q, m, jax.random.normal(key, (*m.loc.shape, samples), m.loc.dtype))
    means = jnp.mean(values, 1)
    variances = jnp.sum((values - means[:, None]) ** 2, 1) / float(max(1, samples * (samples - 1)))
    error = root(_averaged(m, jnp.exp(m.log_weights) * variances))
    return _averaged(m, means), error if samples > 1 else jnp.full_like(error, jnp.inf)


@functools.cache
def _gauss_hermite(nodes, d):
    """Points `[d, nodes^d]` and weights for the mean under a standard normal law."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.stack(np.meshgrid(*[x] * d, indexing="ij")).reshape(d, -1)
    return grid, functools.reduce(np.multiply.outer, [w / np.sum(w)] * d).ravel()


def _by_quadrature(term, p, q, nodes):
    m = _average(p, q)
    rules = [_gauss_hermite(size, m.loc.shape[1]) for size in (nodes, max(1, nodes // 2))]
    z = jnp.asarray(np.concatenate([points for points, _ in rules], 1), m.loc.dtype)
    values = _terms(term, p, q, m, jnp.broadcast_to(z, (m.loc.shape[0], *z.shape)))
    parts, tiny = jnp.split(values, [rules[0][1].size], 1), jnp.finfo(z.dtype).tiny
    # XLA flushes subnormal weights to 0 in a product but not in a comparison, which `times` makes.
    weights = [jnp.asarray(np.where(w < tiny, 0, w), z.dtype)[None] for _, w in rules]
    estimate, half = (_averaged(m, jnp.sum(times(*x), 1)) for x in zip(weights, parts, strict=True))
    return estimate, jnp.abs(jnp.where(estimate == half, 0, estimate - half))  # both may be infinite


def _estimated(verb, divergence, p, q, key, samples, nodes):
    d = p.loc.shape[1]

    term = _of_log_ratio(divergence)
    who = f"mixture.{verb}"
    if key is not None:
        _inputs.setting(who, "samples", samples, 1, whole=True)
        return _by_draws(term, p, q, key, samples)
    _inputs.few_dimensions(who, d)
    _inputs.setting(who, "nodes", nodes, 2, MOST_NODES, whole=True)
    return _by_quadrature(term, p, q, nodes)


# ---------------------------------------------------------------- the bounds


def _averaged(p, terms):
    """The sum of w_i times `terms` `[n]`; components of weight 0 are left out, whatever their terms.

    Where a term is infinite the sum has derivative 0: an infinite slope in a weight would spoil a bound not taken.
    """
    weights = jnp.exp(p.log_weights)
    terms = jnp.where(weights == 0, 0, terms)
    infinite, fixed = jnp.any(jnp.isinf(terms)), lax.stop_gradient(terms)
    return jnp.where(infinite, jnp.sum(fixed), jnp.sum(weights * jnp.where(infinite, 0, terms)))


class _Table(NamedTuple):
    """Divergences between each component of one mixture and each of another, `[n, m]`."""

    kl: jax.Array
    bhattacharyya: jax.Array
    log_overlap: jax.Array


def _table(p: _Mixture, q: _Mixture) -> _Table:
    kl, bhattacharyya = (
        jax.vmap(jax.vmap(verb, (None, 0)), (0, None))(p.components, q.components)
        for verb in (gaussian.kl, gaussian.bhattacharyya)
    )
    return _Table(kl, bhattacharyya, _log_overlap(p, q))


def _log_overlap(p, q):
    """The logarithms of the integrals of p_i q_j, `[n, m]`, without the constant of the dimension."""

    def one(p_loc, p_root, q_loc, q_root):
        delta = (p_loc - q_loc)[:, None]
        size = jnp.maximum(*(jnp.abs(x) if x.ndim == 1 else jnp.max(jnp.abs(x), 1) for x in (p_root, q_root)))
        size = lax.stop_gradient(size)  # squares neither overflow nor vanish
        if p_root.ndim == 1:
            total = jnp.sqrt((p_root / size) ** 2 + (q_root / size) ** 2)
        else:
            p_root, q_root = p_root / size[:, None], q_root / size[:, None]
            total = cholesky(product(p_root, p_root.T) + product(q_root, q_root.T))
        y = _standardised(total, delta / size[:, None])
        return -0.5 * jnp.sum(y * y) - jnp.sum(jnp.log(_diagonal(total)) + jnp.log(size))

    inner = jax.vmap(one, (None, None, 0, 0))
    return jax.vmap(inner, (0, 0, None, None))(p.loc, p.root, q.loc, q.root)


def _entropies(p):
    """The entropies of the components, without the constant that `_log_overlap` leaves out too."""
    d = p.loc.shape[1]
    return jnp.sum(jnp.log(jax.vmap(_diagonal)(p.root)), -1) + 0.5 * d


def _log_mean_exp(log_weights, exponents):
    """The logarithms of sum_j w_j exp(x_ij) for exponents `[..., r, m]` <= 0, accurate also when they are near 0."""
    loss = jnp.sum(jnp.exp(log_weights) * -expm1(exponents), -1)
    near = loss < 0.5
    far = _log_sum(log_weights + exponents)
    return jnp.where(near, log1p(-jnp.where(near, loss, 0)), far)


def _within(lower, upper, bound):
    """Clips both bounds to [0, bound], and keeps lower <= upper in spite of rounding."""
    # No jnp.minimum and jnp.maximum: fused with a sum over many rows, XLA:CPU's lose NaN.
    upper = jnp.where(upper <= 0, 0, jnp.where(upper > bound, bound, upper))
    return jnp.where(lower <= 0, 0, jnp.where(lower > upper, upper, lower)), upper


def _log_means(p, q, rows, table):
    """The logarithms of sum_j r_j exp(-D_ij) `[2, 3, i]`: for D = KL and Bhattacharyya, and for three mixtures r.

    The rows i are the components of p, or those of p and then those of q. The three mixtures r are the row's own one,
    the other one and their average. Also returns, for the row's own mixture, the logarithms of the sums of r_j times
    the overlaps, `[i]`.
    """
    weights, n = jnp.concatenate([p.log_weights, q.log_weights])[None], p.loc.shape[0]
    in_p = np.arange(weights.size) < n
    same = in_p[: rows.loc.shape[0], None] == in_p[None]
    own = jnp.where(same, weights, -jnp.inf)
    mixtures = jnp.stack([own, jnp.where(same, -jnp.inf, weights), jnp.broadcast_to(weights - LOG2, own.shape)])
    distances = jnp.stack([table.kl, table.bhattacharyya])
    return _log_mean_exp(mixtures[None], -distances[:, None]), _log_sum(own + table.log_overlap)


def _kl_bounds(p, q):
    table, n = _table(p, _average(p, q)), p.loc.shape[0]
    ((p_below, q_below, _), (p_above, _, _)), overlaps = _log_means(p, q, p, table)
    q_above = jnp.minimum(
        2 * _averaged(p, _log_sum(0.5 * q.log_weights[None] - table.bhattacharyya[:, n:])),
        _averaged(p, _log_sum(q.log_weights[None] + table.log_overlap[:, n:]) + _entropies(p)),
    )
    upper = _kl_upper(p, q, p_above, overlaps, q_below, table.kl[:, n:])
    return _within(_averaged(p, p_below) - q_above, upper, jnp.inf)


def _kl_upper(p, q, p_above, p_overlaps, q_below, kl):
    """The upper bound of KL, from two upper bounds of E log p and a lower bound of E log q, per component of p."""
    p_above = jnp.minimum(_averaged(p, p_above), _averaged(p, p_overlaps + _entropies(p)))
    upper = p_above - _averaged(p, q_below)
    if p.logits.shape != q.logits.shape:
        return upper
    return jnp.minimum(upper, categorical.kl(p.logits, q.logits) + _averaged(p, jnp.diagonal(kl)))


def _js_bounds(p, q):
    m, n = _average(p, q), p.loc.shape[0]
    table = _table(m, m)
    ((own_below, other_below, below), (own_above, _, above)), overlaps = _log_means(p, q, m, table)
    of_kl = jnp.stack(
        [
            _kl_upper(p, q, own_above[:n], overlaps[:n], other_below[:n], table.kl[:n, n:]),
            _kl_upper(q, p, own_above[n:], overlaps[n:], other_below[n:], table.kl[n:, :n]),
        ]
    )
    upper = jnp.minimum(_averaged(m, own_above - below), jnp.sum(-0.5 * log1p(0.5 * expm1(-jnp.maximum(of_kl, 0)))))
    weights = 0.5 * (p.log_weights[:, None] + q.log_weights[None])
    affinity = jnp.exp(jnp.minimum(_log_sum(jnp.ravel(weights - table.bhattacharyya[:n, n:])), 0))
    by_logs, by_affinity = _averaged(m, own_below - above), -log1p(0.5 * (affinity - 1))
    return _within(jnp.where(by_logs < by_affinity, by_affinity, by_logs), upper, LOG2)


# ---------------------------------------------------------------- the divergences


def _interval(verb, divergence, bounds, p, q, key, samples, nodes):
    (p, q), dtype = _mixtures(verb, p, q)
    estimate, error = _estimated(verb, divergence, p, q, key, samples, nodes)
    lower, upper = bounds(p, q)
    if key is None:
        # With a key this would bias the estimate.
        within = _between(lower, estimate, upper)
        moved = jnp.where(estimate == within, 0, estimate - within)  # both may be infinite
        error = jnp.maximum(error, lax.stop_gradient(jnp.abs(moved)))
        estimate = with_tangents(within, estimate)
    return Interval(*(x.astype(dtype) for x in (lower, estimate, upper, error)))


def _between(lower, x, upper):
    return jnp.where(x > upper, upper, jnp.where(x < lower, lower, x))


@functools.partial(jitted, static=("samples", "nodes"))
def kl_interval(
    p: GaussianMixture, q: GaussianMixture, *, key: jax.Array | None = None, samples: int = 1024, nodes: int = 64
) -> Interval:
    r"""Bounds and an estimate of the Kullback-Leibler divergence $\mathrm{KL}(p \,\|\, q) = \int p \log (p / q)$.

    Args:
        p: The mixture the expectation is under: logits `[n]` and n components; a logit of `-inf` excludes its
            component, even an invalid one.
        q: The other mixture, of any number of components of the same dimension.
        key: A key of `jax.random`, for an estimate by Monte Carlo. Without a key the estimate is by quadrature, for d
            <= 2.
        samples: The number of draws from each component, at least 2 for a standard error, which is `inf` for one; used
            with a key.
        nodes: The number of Gauss-Hermite nodes per axis and component, 2 to 370; used without a key.

    Returns:
        An `Interval` in nats, all non-negative. `lower` and `upper` are bounds in closed form, with `lower` $\le$
        `upper`. With a key, `estimate` and its gradient are unbiased, and `standard_error` estimates the standard
        deviation of `estimate`. Without a key, `estimate` lies between the bounds, and `standard_error` is only an
        indication: the change from half as many nodes, or the length of the move onto the bounds if that is larger. The
        true error can be larger, unseen by `standard_error`, where a component is narrow in comparison with the other
        mixture: compare with the bounds, or pass a key. For equal mixtures, with components in the same order, estimate
        and upper bound are exactly 0, with gradient exactly 0.

    Raises:
        ValueError: There is no key, and the dimension is above 2; `samples` is below 1, or `nodes` is not in [2, 370].

    Example:
        >>> p = mixture.GaussianMixture(jnp.zeros(2), gaussian.Normal(jnp.array([-2.0, 2.0]), jnp.ones(2)))
        >>> q = mixture.GaussianMixture(jnp.zeros(1), gaussian.Normal(jnp.zeros(1), jnp.full(1, 2.0)))
        >>> kl = mixture.kl_interval(p, q)
        >>> print(f"{kl.lower:.3f} <= {kl.estimate:.3f} <= {kl.upper:.3f}")
        0.012 <= 0.185 <= 0.252

    References:
        Those of the module, and Hershey and Olsen, Approximating the Kullback Leibler divergence between Gaussian
        mixture models, 2007, for the sampling of mixtures.
    """
    return _interval("kl_interval", terms.kl, _kl_bounds, p, q, key, samples, nodes)


@functools.partial(jitted, static=("samples", "nodes"))
def js_interval(
    p: GaussianMixture, q: GaussianMixture, *, key: jax.Array | None = None, samples: int = 1024, nodes: int = 64
) -> Interval:
    r"""Bounds and an estimate of Jensen-Shannon, $\tfrac12 \mathrm{KL}(p \,\|\, m) + \tfrac12 \mathrm{KL}(q \,\|\, m)$.

    Here $m = (p + q) / 2$. This is the divergence, not its square root.

    Args:
        p: One mixture: logits `[n]` and n components; a logit of `-inf` excludes its component, even an invalid one.
        q: The other mixture, of any number of components of the same dimension.
        key: A key of `jax.random`, for an estimate by Monte Carlo. Without a key the estimate is by quadrature, for d
            <= 2.
        samples: The number of draws from each component, at least 2 for a standard error, which is `inf` for one; used
            with a key.
        nodes: The number of Gauss-Hermite nodes per axis and component, 2 to 370; used without a key.

    Returns:
        An `Interval` in nats. `lower`, `estimate` and `upper` are in $[0, \log 2]$. `lower` and `upper` are bounds in
        closed form, with `lower` $\le$ `upper`. With a key, `estimate` and its gradient are unbiased, and
        `standard_error` estimates the standard deviation of `estimate`. Without a key, `estimate` lies between the
        bounds, and `standard_error` is as for `kl_interval`. For equal mixtures, with components in the same order,
        estimate and upper bound are exactly 0, with gradient exactly 0.

    Raises:
        ValueError: There is no key, and the dimension is above 2; `samples` is below 1, or `nodes` is not in [2, 370].

    Example:
        >>> p = mixture.GaussianMixture(jnp.zeros(2), gaussian.Normal(jnp.array([-2.0, 2.0]), jnp.ones(2)))
        >>> q = mixture.GaussianMixture(jnp.zeros(1), gaussian.Normal(jnp.zeros(1), jnp.full(1, 2.0)))
        >>> js = mixture.js_interval(p, q)
        >>> print(f"{js.lower:.3f} <= {js.estimate:.3f} <= {js.upper:.3f}")
        0.000 <= 0.049 <= 0.376

    References:
        Those of the module, and Lin, Divergence measures based on the Shannon entropy, 1991.
    """
    interval = _interval("js_interval", terms.js, _js_bounds, p, q, key, samples, nodes)
    return interval._replace(estimate=capped(interval.estimate, LOG2))


@jitted
def log_density(p: GaussianMixture, x: ArrayLike) -> jax.Array:
    r"""The logarithm of the density, $\log \sum_i w_i p_i(x)$ with $w = \mathrm{softmax}$ of the logits.

    Args:
        p: A mixture of n components; a logit of `-inf` excludes its component, even an invalid one.
        x: One point, in the shape of a component's mean: `[]` or `[d]`. For several points use `jax.vmap` over `x`.

    Returns:
        In nats, `[]`; `-inf`, with gradient 0, on overflow.

    Example:
        >>> p = mixture.GaussianMixture(jnp.zeros(2), gaussian.Normal(jnp.array([-1.0, 1.0]), jnp.ones(2)))
        >>> print(f"{mixture.log_density(p, jnp.array(0.0)):.4f}")
        -1.4189

    References:
        McLachlan and Peel, Finite mixture models, 2000, chapter 3.
    """
    who = "mixture.log_density"
    found, dtype = _inputs.mixtures(who, GaussianMixture, _SHAPES, p=p)
    mixture = _counted(found["p"])
    x = _inputs.point(who, x, jax.tree.map(lambda field: field[0], mixture.components), _SHAPES)
    work = _inputs.working(x, mixture.logits)
    dtype = _inputs.promoted(x, jnp.zeros((), dtype))

    def formula(mixture, x):
        of_each = jax.vmap(gaussian.log_density, (0, None))(mixture.components, x)
        return log_sum_exp(jax.nn.log_softmax(mixture.logits) + of_each)[0].astype(dtype)

    return still_at_infinity(formula, *jax.tree.map(lambda y: y.astype(work), (mixture, x)))


def check(p: GaussianMixture) -> None:
    r"""Checks on the host that logits are in $[-\infty, \infty)$ and that components are valid.

    Args:
        p: A mixture of logits `[n]` (`-inf` is weight 0) and n components, or a batch of mixtures with equal leading
            axes on every field.

    Raises:
        ValueError: Some logits have `nan`, `+inf` or no finite entry, or some components are not valid laws; the
            message names them.
        TypeError: The components are not in a form of `gaussian`, or are `MatrixNormal`.

    Example:
        >>> mixture.check(mixture.GaussianMixture(jnp.zeros(2), gaussian.Normal(jnp.zeros(2), jnp.ones(2))))
    """
    logits, law = _inputs.mixture("mixture.check", "p", p, GaussianMixture, _SHAPES)
    categorical.check(logits)
    if law[0].ndim == logits.ndim:  # scalar components: an axis of length 1
        law = jax.tree.map(lambda x: x[..., None], law)
    gaussian.check(law)

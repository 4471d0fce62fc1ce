r"""Streaming metrics: one accumulator of weighted sums, and what is read off it.

`empty`, `update`, `merge` and `compute` are pure functions of a `Mean`, for `jax.lax.scan`, loops and many machines; a
`Mean` of many groups is the values of each of them, a histogram (`bins`, `drift`) or a reliability diagram
(`calibration`).

- Sums are carried in two floats, so that $10^8$ updates lose nothing that shows in the result, and do not depend on the
  order of updates and merges beyond its last digits.
- States add up: `jax.lax.psum` of a state merges those of all devices, as `merge` does those of two, at the cost of one
  rounding. So does a sum over a leading axis, such as `jax.experimental.multihost_utils.process_allgather` makes.
- The carry of a scan inside `shard_map` has to vary across devices from the start, as `update(empty(), values[:0])`
  does.
- A state is a tree of arrays, two to a sum: `numpy.savez(file, *jax.tree.leaves(state))` saves it, and
  `jax.tree.unflatten(jax.tree.structure(metrics.empty()), leaves)` brings it back.
- A `nan` spoils its own group only, as an `inf` does; what `where` excludes or has weight 0 may be anything.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiv import _inputs, simplex
from jaxdiv._core import tuning
from jaxdiv._core.functions import or_one
from jaxdiv._core.jit import jitted
from jaxdiv._core.stretches import stretches


class Sum(NamedTuple):
    """The sum of two floats, `low` at most half an ulp of `high`."""

    high: jax.Array
    low: jax.Array


class Mean(NamedTuple):
    """The sums of w, w x, w x^2 and w^2 over values x of weight w, each `[]` or `[g]` for g groups."""

    weights: Sum
    values: Sum
    squares: Sum
    squared_weights: Sum


class Average(NamedTuple):
    """What `compute` returns, each `[]` or `[g]`."""

    mean: jax.Array
    standard_error: jax.Array
    weight: jax.Array


class Drift(NamedTuple):
    """What `drift` returns, each `[]`."""

    js: jax.Array
    kl: jax.Array
    psi: jax.Array
    js_bias: jax.Array
    kl_bias: jax.Array
    psi_bias: jax.Array
    js_standard_error: jax.Array
    p_value: jax.Array


class Calibration(NamedTuple):
    """What `calibration` returns, each `[]`."""

    kl: jax.Array
    kl_bias: jax.Array
    absolute_error: jax.Array


# ---------------------------------------------------------------- the accumulator


def empty(groups: int | None = None) -> Mean:
    r"""The `Mean` of no value: $\sum w = \sum w x = \sum w x^2 = \sum w^2 = 0$.

    Args:
        groups: How many groups the values fall into; by default they are not grouped.

    Returns:
        Sums of zero, `[]` or `[groups]`, of jax's default floating-point dtype.

    Example:
        >>> print(metrics.compute(metrics.empty()).mean)
        nan
    """
    zeros = jnp.zeros(() if groups is None else groups)
    return Mean(*[Sum(zeros, zeros)] * len(Mean._fields))


@jitted
def update(
    state: Mean,
    values: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> Mean:
    r"""Adds values $x$ of weight $w$ to the sums of $w$, $w x$, $w x^2$ and $w^2$.

    Args:
        state: What `empty`, `update` or `merge` returned.
        values: Any shape, floating-point: divergences, one to an example.
        weights: Non-negative, in the shape of `values`; 1 by default.
        where: A mask that broadcasts against `values`; True entries count.
        groups: Integers in the shape of `values`, the group of each, if the state has groups. A value whose group is
            not one of them is left out.

    Returns:
        The new state, in the dtype of the old one; the old one's sums if there are zero values.

    Raises:
        ValueError: Shapes differ, or one of `state` and `groups` has groups and the other has none.

    Example:
        >>> state = metrics.update(metrics.empty(2), jnp.array([1.0, 2.0, 4.0]), groups=jnp.array([0, 1, 1]))
        >>> print(metrics.compute(state).mean)
        [1. 3.]
    """
    count = state.weights.high.shape
    x, w, keep, group = _inputs.observations("metrics.update", count, values, weights, where, groups)
    dtype = state.weights.high.dtype
    w = jnp.where(keep & (w != 0), w.astype(dtype), 0)
    x = jnp.where(w == 0, 0, x.astype(dtype))
    terms = jnp.stack([w, w * x, w * x * x, w * w], -1)
    sums = jnp.sum(terms, 0) if group is None else _grouped(terms, group, count[0])
    return Mean(*(_plus(s, Sum(sums[..., i], jnp.zeros_like(s.low))) for i, s in enumerate(state)))


def _grouped(terms, group, groups):
    """Sums `[groups, 4]`, in short runs first: a scatter adds one term after the other, each with a rounding."""
    n = len(group)
    parts = stretches(n)
    run = max(tuning.RUN, n * groups // tuning.PARTIAL_SUMS)
    runs = -(-n // parts // run)
    short = runs * run - n // parts
    terms = jnp.pad(terms.reshape(parts, -1, 4), ((0, 0), (0, short), (0, 0))).reshape(parts, runs, run, 4)
    group = jnp.pad(group.reshape(parts, -1), ((0, 0), (0, short))).reshape(parts, runs, run)
    sums = jax.vmap(jax.vmap(lambda terms, group: jax.ops.segment_sum(terms, group, groups)))
    return jnp.sum(sums(terms, group), (0, 1))


def _two_sum(x, y):
    """x + y and its rounding error, none where it is infinite."""
    total = x + y
    back = total - x
    return total, jnp.where(jnp.isfinite(total), (x - (total - back)) + (y - back), 0)


def _plus(x, y):
    high, error = _two_sum(x.high, y.high)
    # Renormalised at each step: a rest that grew for long would lose digits itself.
    return Sum(*_two_sum(high, x.low + y.low + error))


@jitted
def merge(a: Mean, b: Mean) -> Mean:
    r"""The state of two streams in one, $\sum_a + \sum_b$.

    Args:
        a: A state.
        b: Another, of as many groups.

    Returns:
        The state, `[]` or `[g]`, that one accumulator of both streams would have, but for the last digits; `empty()`
        is its zero.

    Example:
        >>> a, b = (metrics.update(metrics.empty(), jnp.array([x])) for x in (1.0, 3.0))
        >>> print(metrics.compute(metrics.merge(a, b)).mean)
        2.0
    """
    return jax.tree.map(_plus, a, b, is_leaf=lambda x: isinstance(x, Sum))


def _totals(state):
    """Weight, mean and effective count, the number of equal weights that would be as noisy."""
    weight, values, _, squared_weights = (s.high + s.low for s in state)
    return weight, values / weight, weight * weight / squared_weights


@jitted
def compute(state: Mean) -> Average:
    r"""The mean $\mu = \sum w x / \sum w$ of each group, with its standard error.

    Args:
        state: What `update` or `merge` returned.

    Returns:
        An `Average`, fields `[]` or `[g]`: the mean; its standard error $\sqrt{\sum w (x - \mu)^2 / \sum w / (n - 1)}$
        with $n = (\sum w)^2 / \sum w^2$, which supposes that weights do not depend on values; the weight $\sum w$,
        the count if there are no weights. The mean of zero values is `nan`, as is the standard error of one. A standard
        error is accurate to the dtype's ulp times $(\mu / \sigma)^2$.

    Example:
        >>> average = metrics.compute(metrics.update(metrics.empty(), jnp.array([1.0, 2.0, 3.0, 6.0])))
        >>> print(f"{average.mean:.2f} +- {average.standard_error:.2f} of {average.weight:.0f}")
        3.00 +- 1.08 of 4

    References:
        Kish, Survey sampling, 1965, section 11.7 (the effective count).
    """
    weight, mean, count = _totals(state)
    variance = (state.squares.high + state.squares.low) / weight - mean * mean
    variance = jnp.where(variance <= 0, 0, variance)  # a maximum may lose NaN
    return Average(mean, jnp.sqrt(variance / jnp.where(count > 1, count - 1, jnp.nan)), weight)


# ---------------------------------------------------------------- histograms


@jitted
def bins(values: ArrayLike, edges: ArrayLike) -> jax.Array:
    r"""The bin $\#\{j : e_j \le x\}$ of each value $x$, for `groups` of `update`.

    Args:
        values: Any shape, floating-point.
        edges: Increasing `[g - 1]`, between g bins of which the first and the last are open-ended.

    Returns:
        Integers in the shape of `values`, 0 below the first edge; -1, no bin, for `nan`.

    Example:
        >>> print(metrics.bins(jnp.array([-3.0, 0.0, 0.5, 9.0]), jnp.array([0.0, 1.0])))
        [0 1 1 2]
    """
    values, edges = (_inputs.array("metrics.bins", name, x) for name, x in (("values", values), ("edges", edges)))
    work = _inputs.working(values, edges)
    # A few edges are compared at once, ten times as fast, which explicit axes of a mesh allow too.
    method = "compare_all" if edges.size <= 32 else "scan"
    found = jnp.searchsorted(edges.astype(work), values.astype(work), side="right", method=method)
    return jnp.where(jnp.isnan(values), -1, found)


@jitted
def drift(reference: Mean, current: Mean, *, pseudo_count: ArrayLike = 0.0) -> Drift:
    r"""Divergences between two histograms, $\mathrm{JS}$, $\mathrm{KL}(\text{current} \| \text{reference})$ and PSI.

    Args:
        reference: A state of g groups, the bins; their weights are the counts. What is averaged does not matter.
        current: Another of as many.
        pseudo_count: Added to each count for `kl` and `psi`, which are infinite where one histogram alone has an empty
            bin.

    Returns:
        A `Drift`, fields `[]`, in nats: `js`, `kl`, and `psi`, the population stability index, which is Jeffreys
        divergence; all 0 for equal frequencies. Samples of n and m without any drift still differ: their expectations
        are then, to first order, $(k - 1) (1/n + 1/m)$ over 8, 2 and 1 with k the bins that are not empty in both:
        `js_bias`, `kl_bias` and `psi_bias`. `p_value` is the probability that `js` is then at least as large, by the
        chi-squared law of $8\,\mathrm{JS} / (1/n + 1/m)$; trust it where most bins hold five or more.
        `js_standard_error` is that of `js` under drift, by the delta method, 0 at equality. `nan` for an empty
        histogram.

    Raises:
        ValueError: The states have no groups, or not as many.

    Example:
        >>> edges = jnp.array([0.25, 0.5, 0.75])
        >>> old, new = (jnp.linspace(0, 1, 200) ** power for power in (1.0, 1.5))
        >>> old, new = (metrics.update(metrics.empty(4), x, groups=metrics.bins(x, edges)) for x in (old, new))
        >>> found = metrics.drift(old, new)
        >>> print(f"{found.js:.4f} ({found.js_bias:.4f} by chance, p = {found.p_value:.0e})")
        0.0134 (0.0037 by chance, p = 1e-02)

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991. Pardo, Statistical inference based on divergence
        measures, 2006, chapter 3. Yurdakul, Statistical properties of population stability index, 2018.
    """
    _inputs.same_groups("metrics.drift", reference=reference.weights.high, current=current.weights.high)
    counts = [s.weights.high + s.weights.low for s in (current, reference)]
    p, q = (simplex.from_counts(x) for x in counts)
    smooth = [simplex.from_counts(x, pseudo_count=pseudo_count) for x in counts]
    per_count = [_one_over_count(s) for s in (current, reference)]
    noise, free = sum(per_count), jnp.sum(jnp.maximum(*counts) > 0).astype(p.dtype) - 1
    js, mean = simplex.js(p, q), 0.5 * (p + q)
    spread = sum(_variance_of_log(x, mean) * over for x, over in zip((p, q), per_count, strict=True))
    p_value = jax.scipy.special.gammaincc(jnp.maximum(free, 1) / 2, 4 * js / noise)
    bias = free * noise
    divergences = js, simplex.kl(*smooth), simplex.jeffreys(*smooth)
    return Drift(*divergences, bias / 8, bias / 2, bias, 0.5 * jnp.sqrt(spread), p_value)


def _one_over_count(state):
    """One over the effective count of all groups."""
    weight, squared_weight = (jnp.sum(s.high + s.low) for s in (state.weights, state.squared_weights))
    return squared_weight / weight / weight


def _variance_of_log(p, mean):
    """Of log(p / mean) under p."""
    log = jnp.where(p == 0, 0, jnp.log(or_one(p) / or_one(mean)))
    return jnp.sum(p * (log - jnp.sum(p * log)) ** 2)


# ---------------------------------------------------------------- calibration


@jitted
def calibration(confidence: Mean, outcome: Mean) -> Calibration:
    r"""Expected calibration error $\sum_b n_b / n \; \mathrm{KL}(\bar y_b \| \bar p_b)$ of probabilities, by bins.

    Args:
        confidence: A state of g groups, the bins: of the predicted probabilities $p$.
        outcome: Of what came true, 1 or 0, with the same weights, masks and groups.

    Returns:
        A `Calibration`, fields `[]`: `kl` in nats, of Bernoulli laws, 0 where every bin's mean outcome is its mean
        confidence, `inf` where certainty was wrong; `kl_bias`, the $g' / 2n$ that g' bins in use have by chance when
        calibrated; `absolute_error`, the usual $\sum_b n_b / n \; |\bar y_b - \bar p_b|$. `nan` for zero values.

    Raises:
        ValueError: The states have no groups, or not as many.

    Example:
        >>> p, y = jnp.array([0.1, 0.3, 0.8, 0.9]), jnp.array([0.0, 0.0, 1.0, 1.0])
        >>> groups = metrics.bins(p, jnp.array([0.5]))
        >>> states = [metrics.update(metrics.empty(2), x, groups=groups) for x in (p, y)]
        >>> found = metrics.calibration(*states)
        >>> print(f"{found.kl:.4f} {found.absolute_error:.4f}")
        0.1928 0.1750

    References:
        Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, 2015. Broecker,
        Reliability, sufficiency, and the decomposition of proper scores, 2009 (the term of reliability).
    """
    _inputs.same_groups("metrics.calibration", confidence=confidence.weights.high, outcome=outcome.weights.high)
    weight, p, _ = _totals(confidence)
    used = weight != 0
    p, y = (jnp.where(used, x, 0) for x in (p, _totals(outcome)[1]))
    share = simplex.from_counts(weight)
    kl = jax.vmap(simplex.kl)(*(jnp.stack([x, 1 - x], -1) for x in (y, p)))
    bias = 0.5 * jnp.sum(used).astype(share.dtype) * _one_over_count(confidence)
    return Calibration(_mean(share, kl), bias, _mean(share, jnp.abs(y - p)))


def _mean(share: jax.Array, x: Any) -> jax.Array:
    return jnp.sum(jnp.where(share == 0, 0, share * x))

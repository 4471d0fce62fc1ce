r"""Streaming metrics: an accumulator of weighted sums (a `Mean`), and statistics computed from it.

`empty`, `update`, `merge` and `compute` are pure functions of a `Mean`, for `jax.lax.scan`, loops and many machines. A
`Mean` with groups holds one mean per group, a histogram (`bins`, `drift`) or a reliability diagram (`calibration`).

- Each sum is carried in two floats. So $10^8$ updates lose no visible digit, and the order of updates and merges
  changes the last digits only.
- States add up. `jax.lax.psum` of a state merges those of all devices, at the cost of one rounding; `merge` merges two.
  A sum over a leading axis, for instance from `jax.experimental.multihost_utils.process_allgather`, merges too.
- Inside `shard_map`, the carry of a scan must vary across devices from the start: use `update(empty(), values[:0])`.
- A state is a tree of arrays, two per sum. `numpy.savez(file, *jax.tree.leaves(state))` saves it, and
  `jax.tree.unflatten(jax.tree.structure(metrics.empty()), leaves)` brings it back.
- A `nan` or `inf` spoils its own group only. Values that `where` excludes, or that have weight 0, may be anything.
- A value whose group is not in the state is counted apart, as "left out": `compute` and `drift` report how much.
- A state does not hold the edges of its bins, because sums over devices would not keep them. Keep them beside the
  state: histograms with different edges cannot be compared, and no check notices. `drift_table` makes both histograms.
- Columns of pandas and polars are accepted wherever arrays are.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxdiv import _inputs, simplex
from jaxdiv._core import tuning
from jaxdiv._core.blocks import varying_alike
from jaxdiv._core.functions import or_one
from jaxdiv._core.jit import jitted
from jaxdiv._core.stretches import stretches
from jaxdiv._gaussian.excess import log_excess


class Sum(NamedTuple):
    """A number as the sum of two floats; `low` is at most half an ulp of `high`."""

    high: jax.Array
    low: jax.Array


class Mean(NamedTuple):
    """The sums of w, w x, w x^2 and w^2 over values x with weights w, each `[]`, or `[g]` for g groups.

    The last two fields, `[]`, are the sums of w and w^2 over the values outside of all groups.
    """

    weights: Sum
    values: Sum
    squares: Sum
    squared_weights: Sum
    left_out: Sum
    squared_left_out: Sum


class Average(NamedTuple):
    """What `compute` returns, each `[]` or `[g]`; `left_out`, the weight outside of all groups, is `[]`."""

    mean: jax.Array
    standard_error: jax.Array
    weight: jax.Array
    left_out: jax.Array


class Drift(NamedTuple):
    """What `drift` returns, each `[]`; the last two are the shares of weight outside of all groups."""

    js: jax.Array
    kl: jax.Array
    psi: jax.Array
    js_bias: jax.Array
    kl_bias: jax.Array
    psi_bias: jax.Array
    js_standard_error: jax.Array
    p_value: jax.Array
    left_out: jax.Array
    reference_left_out: jax.Array


class DriftTable(NamedTuple):
    """What `drift_table` returns: the names of c columns, a `Drift` of fields `[c]`, and more numbers `[c]`."""

    names: tuple[Hashable, ...]
    drift: Drift
    corrected_p_value: np.ndarray
    unseen: np.ndarray
    missing: np.ndarray
    reference_missing: np.ndarray


class Calibration(NamedTuple):
    """What `calibration` returns, each `[]`."""

    kl: jax.Array
    kl_bias: jax.Array
    absolute_error: jax.Array


# ---------------------------------------------------------------- the accumulator


def empty(groups: int | None = None) -> Mean:
    r"""The `Mean` of no values: $\sum w = \sum w x = \sum w x^2 = \sum w^2 = 0$.

    Args:
        groups: The number of groups; by default values are not grouped.

    Returns:
        Sums of zero, `[]` or `[groups]`, in jax's default floating-point dtype.

    Example:
        >>> print(metrics.compute(metrics.empty()).mean)
        nan
    """
    if groups is not None:
        _inputs.setting("metrics.empty", "groups", groups, 1, whole=True)
    zeros, zero = jnp.zeros(() if groups is None else groups), jnp.zeros(())
    return Mean(*[Sum(zeros, zeros)] * 4, *[Sum(zero, zero)] * 2)


def update(
    state: Mean,
    values: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> Mean:
    r"""Adds values $x$ with weights $w$ to the sums of $w$, $w x$, $w x^2$ and $w^2$.

    Args:
        state: What `empty`, `update` or `merge` returned.
        values: Floating-point numbers of any shape, for instance one divergence per example.
        weights: Non-negative, in the shape of `values`; 1 by default. In float32 they should be between 1e-18 and 1e18,
            because their squares are summed too.
        where: A mask that broadcasts against `values`; True entries count.
        groups: The group of each value, integers in the shape of `values`, if the state has groups. If a group is not
            in the state, the weight of its value goes to `left_out`.

    Returns:
        The new state, in the dtype of the old one; with zero values, its sums are those of the old one.

    Raises:
        ValueError: Shapes differ, or only one of `state` and the arguments has groups.

    Example:
        >>> state = metrics.update(metrics.empty(2), jnp.array([1.0, 2.0, 4.0]), groups=jnp.array([0, 1, 1]))
        >>> print(metrics.compute(state).mean)
        [1. 3.]
    """
    given = {"values": values, "weights": weights, "where": where, "groups": groups}
    given = {name: x if x is None else _inputs.column("metrics.update", name, x) for name, x in given.items()}
    return _update(state, **given)


@jax.jit
def _update(state, values, weights, where, groups):
    count = state.weights.high.shape
    x, w, keep, group = _inputs.observations("metrics.update", count, values, weights, where, groups)
    dtype = state.weights.high.dtype
    w, x = jnp.where(keep, w.astype(dtype), 0), x.astype(dtype)
    x = jnp.where((w == 0) & ~jnp.isfinite(x), 0, x)  # finite ones give the derivative in a weight of 0
    terms = [w, w * x, w * x * x, w * w]
    if group is None:
        sums = [*map(jnp.sum, terms), jnp.zeros_like(jnp.sum(w)), jnp.zeros_like(jnp.sum(w))]
    else:
        sums = _sums_of_groups(terms, group, count[0])
    return Mean(*(_plus(s, Sum(x, jnp.zeros_like(s.low))) for s, x in zip(state, sums, strict=True)))


def _sums_of_groups(terms, group, groups):
    """Sums `[groups]` of w, w x, w x^2 and w^2, and sums `[]` of w and w^2 over the values outside of all groups."""
    group = group.astype(jnp.int32) if group.dtype.itemsize < 4 else group  # an int8 cannot count 200 groups
    outside = (group < 0) | (group >= groups)

    def scattered(terms, group):
        return _scattered(terms, group, groups) + [jnp.sum(jnp.where(outside, x, 0)) for x in (terms[0], terms[3])]

    def compared(terms, group):
        # One pass: every value is compared with every group, and with one more for those outside.
        unsigned = group.astype(f"uint{8 * group.dtype.itemsize}")  # negative numbers become large
        there = jnp.minimum(unsigned, groups)[:, None] == jnp.arange(groups + 1, dtype=unsigned.dtype)[None]
        sums = [jnp.sum(jnp.where(there, x[:, None], 0), 0) for x in terms]
        return [x[:groups] for x in sums] + [x[groups] for x in (sums[0], sums[3])]

    if groups > tuning.COMPARED:
        return scattered(terms, group)
    return lax.platform_dependent(*varying_alike((terms, group)), cpu=scattered, default=compared)


def _scattered(terms, group, groups):
    """Sums `[groups]` of four terms. Short runs come first: a scatter adds one by one, and rounds at every step."""
    n, stacked = group.shape[0], jnp.stack(terms, -1)
    if not isinstance(n, int):  # a program exported for any length
        return list(jax.ops.segment_sum(stacked, group, groups).T)
    parts = stretches(n)
    run = max(tuning.RUN, n * groups // tuning.PARTIAL_SUMS)
    runs = -(-n // parts // run)
    short = runs * run - n // parts
    terms = jnp.pad(stacked.reshape(parts, -1, 4), ((0, 0), (0, short), (0, 0))).reshape(parts, runs, run, 4)
    group = jnp.pad(group.reshape(parts, -1), ((0, 0), (0, short))).reshape(parts, runs, run)
    sums = jax.vmap(jax.vmap(lambda terms, group: jax.ops.segment_sum(terms, group, groups)))
    return list(jnp.sum(sums(terms, group), (0, 1)).T)


def from_counts(counts: ArrayLike, *, left_out: ArrayLike = 0) -> Mean:
    r"""The `Mean` of a histogram that is already counted: $n_i$ values of 1 in group i.

    Args:
        counts: The number of values in each of g bins, `[g]`, integers or floating-point numbers.
        left_out: The number of values outside of all bins.

    Returns:
        The state that `update` would make from those values with weight 1: sums `[g]`, zero where a count is zero.

    Example:
        >>> old, new = (metrics.from_counts(jnp.array(x)) for x in ([100, 200, 300], [110, 190, 300]))
        >>> print(f"{metrics.drift(old, new).p_value:.3f}")
        0.694
    """
    return _counted(*_inputs.group_counts("metrics.from_counts", counts, left_out))


def _counted(counts, left_out=0):
    of_groups, of_rest = _in_two(counts), _in_two(np.zeros(counts.shape[:-1], counts.dtype) + left_out)
    return Mean(*[of_groups] * 4, *[of_rest] * 2)


def _in_two(counts):
    """Counts as two floats: a float32 cannot hold all integers above 2^24."""
    high = counts.astype(jnp.zeros(()).dtype)
    low = counts - high.astype(counts.dtype)
    if counts.dtype.kind == "u":  # a negative difference has wrapped around
        low = low.astype(f"int{8 * counts.dtype.itemsize}")
    return Sum(jnp.asarray(high), jnp.asarray(low.astype(high.dtype)))


def _two_sum(x, y):
    """x + y and its rounding error, which is 0 where the sum is infinite."""
    total = x + y
    back = total - x
    return total, jnp.where(jnp.isfinite(total), (x - (total - back)) + (y - back), 0)


def _plus(x, y):
    high, error = _two_sum(x.high, y.high)
    # Renormalise at each step: otherwise `low` would grow and lose digits itself.
    return Sum(*_two_sum(high, x.low + y.low + error))


@jitted
def merge(a: Mean, b: Mean) -> Mean:
    r"""Merges the states of two streams: $\sum_a + \sum_b$.

    Args:
        a: A state.
        b: Another state, with as many groups.

    Returns:
        The state, `[]` or `[g]`, of one accumulator over both streams, up to the last digits. Merging with an
        `empty` one changes nothing (it is the zero).

    Raises:
        ValueError: The states have different numbers of groups.

    Example:
        >>> a, b = (metrics.update(metrics.empty(), jnp.array([x])) for x in (1.0, 3.0))
        >>> print(metrics.compute(metrics.merge(a, b)).mean)
        2.0
    """
    _inputs.equally_many_groups("metrics.merge", a=a.weights.high, b=b.weights.high)
    return jax.tree.map(_plus, a, b, is_leaf=lambda x: isinstance(x, Sum))


def _total(x):
    return x.high + x.low


def _totals(state):
    """Weight, mean and effective count: the number of equal weights that would give the same noise."""
    weight, values, _, squared_weights = map(_total, state[:4])
    return weight, values / weight, weight * weight / squared_weights


@jitted
def compute(state: Mean) -> Average:
    r"""The mean $\mu = \sum w x / \sum w$ of each group, with its standard error.

    Args:
        state: What `update` or `merge` returned.

    Returns:
        An `Average`, fields `[]` or `[g]`: the mean; its standard error $\sqrt{\sum w (x - \mu)^2 / \sum w / (n - 1)}$
        with $n = (\sum w)^2 / \sum w^2$, which assumes that weights do not depend on values; the weight $\sum w$, which
        is the count if there are no weights; and `left_out`, `[]`, the weight of the values outside of all groups. The
        mean of zero values is `nan`, and so is the standard error of one value. A standard error is accurate to the
        dtype's ulp times $(\mu / \sigma)^2$.

    Example:
        >>> average = metrics.compute(metrics.update(metrics.empty(), jnp.array([1.0, 2.0, 3.0, 6.0])))
        >>> print(f"{average.mean:.2f} +- {average.standard_error:.2f} of {average.weight:.0f}")
        3.00 +- 1.08 of 4

    References:
        Kish, Survey sampling, 1965 (the effective count).
    """
    weight, mean, count = _totals(state)
    variance = _total(state.squares) / weight - mean * mean
    variance = jnp.where(variance <= 0, 0, variance)  # a maximum may lose NaN
    return Average(mean, jnp.sqrt(variance / jnp.where(count > 1, count - 1, jnp.nan)), weight, _total(state.left_out))


# ---------------------------------------------------------------- histograms


def bins(values: ArrayLike, edges: ArrayLike) -> jax.Array:
    r"""The bin $\#\{j : e_j \le x\}$ of each value $x$, for `groups` of `update`.

    Args:
        values: Any shape, floating-point.
        edges: Increasing edges `[g - 1]` between g bins, for instance from `edges`. The first and the last bin are
            open-ended.

    Returns:
        Integers in the shape of `values`: 0 below the first edge, -1 (no bin) for `nan`.

    Raises:
        ValueError: Edges do not increase. Traced edges, inside `jax.jit`, cannot be checked.

    Example:
        >>> print(metrics.bins(jnp.array([-3.0, 0.0, 0.5, 9.0]), jnp.array([0.0, 1.0])))
        [0 1 1 2]
    """
    who = "metrics.bins"
    given = {name: _inputs.column(who, name, x) for name, x in (("values", values), ("edges", edges))}
    values, edges = (_inputs.array(who, name, x) for name, x in given.items())
    _inputs.increasing(who, edges)
    return _bins(values, edges)


@jax.jit
def _bins(values, edges):
    work = _inputs.working(values, edges)
    # Up to 32 edges are all compared at once: ten times as fast, and it works with explicit mesh axes too.
    method = "compare_all" if edges.size <= 32 else "scan"
    found = jnp.searchsorted(edges.astype(work), values.astype(work), side="right", method=method)
    return jnp.where(jnp.isnan(values), -1, found)


def edges(reference: ArrayLike, bins: int) -> jax.Array:
    r"""Edges between bins of equal shares: the quantiles $j / b$, $0 < j < b$, of a reference, found on the host.

    Where values repeat, an edge lies at the value or just above it, whichever makes the shares more equal. So a value
    that holds two quantiles gets a bin of its own.

    Args:
        reference: Floating-point values of any shape, not traced; `nan` is left out.
        bins: $b$, at least 2.

    Returns:
        Increasing edges `[g - 1]`, at most $b - 1$, in the dtype in which `bins` compares. There are two edges if all
        values are the same, so that smaller, equal and larger values get different bins, and zero edges if there are no
        values.

    Raises:
        ValueError: `bins` is below 2.
        TypeError: `reference` is traced.

    Example:
        >>> print(metrics.edges(jnp.arange(100.0), 4))
        [25. 50. 75.]
        >>> print(metrics.bins(jnp.array([6.0, 7.0, 8.0]), metrics.edges(jnp.full(100, 7.0), 4)))
        [0 1 2]

    References:
        Hyndman and Fan, Sample quantiles in statistical packages, 1996.
    """
    who = "metrics.edges"
    _inputs.setting(who, "bins", bins, 2, whole=True)
    x = _inputs.with_values(who, _inputs.array(who, "reference", _inputs.column(who, "reference", reference)))
    return jnp.asarray(_inputs.quantile_edges(np.asarray(x, _inputs.working(x)).ravel(), bins))


@functools.partial(jitted, static=("left_out",))
def drift(reference: Mean, current: Mean, *, pseudo_count: ArrayLike = 0.0, left_out: bool = False) -> Drift:
    r"""Divergences between two histograms, $\mathrm{JS}$, $\mathrm{KL}(\text{current} \| \text{reference})$ and PSI.

    Args:
        reference: A state with g groups, the bins. Their weights are the counts; the averaged values do not matter.
        current: Another state with as many groups, for the same edges.
        pseudo_count: A number added to each count for `kl` and `psi`. Without it, they are infinite where only one
            histogram has an empty bin.
        left_out: Whether values outside of all groups, such as new categories and `nan`, form one more bin.

    Returns:
        A `Drift`, fields `[]`. `js`, `kl` and `psi` are in nats, and 0 for equal frequencies. `psi` is the population
        stability index, which equals the Jeffreys divergence. Even without drift, samples of n and m values differ by
        chance. The expected divergences are then, to first order, $(k - 1) (1/n + 1/m)$ divided by 8, 2 and 1, where k
        counts the bins that are not empty in both samples. These are `js_bias`, `kl_bias` and `psi_bias`; they are
        useful if most bins hold five values or more. `js_standard_error` is that of `js` under drift, by the delta
        method; it is 0 at equality.

        `p_value` is the probability that Pearson's $X^2$ of the table of counts is at least as large if both samples
        come from one distribution. It is conditional on the size of each sample and on the total of each bin. The
        distribution of $X^2$ is approximated by the gamma distribution that has its exact mean and variance, so bins
        may be few or many and may hold few values. It is 1 if one bin holds all values, or if every value has its own.

        `left_out` and `reference_left_out` are shares of the total weight, whether they form a bin or not. If a
        histogram is empty, everything else is `nan`. A bin that is empty in both histograms changes nothing, unless it
        gets a `pseudo_count`.

    Raises:
        ValueError: The states have no groups, or different numbers of groups.

    Example:
        >>> edges = jnp.array([0.25, 0.5, 0.75])
        >>> old, new = (jnp.linspace(0, 1, 200) ** power for power in (1.0, 1.5))
        >>> old, new = (metrics.update(metrics.empty(4), x, groups=metrics.bins(x, edges)) for x in (old, new))
        >>> found = metrics.drift(old, new)
        >>> print(f"{found.js:.4f} ({found.js_bias:.4f} by chance, p = {found.p_value:.0e})")
        0.0134 (0.0037 by chance, p = 1e-02)

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991. Dawson, A simplified expression for the variance of
        the chi-square function on a contingency table, 1954. Pardo, Statistical inference based on divergence measures,
        2006. Yurdakul, Statistical properties of population stability index, 2018.
    """
    _inputs.same_groups("metrics.drift", reference=reference.weights.high, current=current.weights.high)
    counts, squares = zip(*(_histogram(s, left_out) for s in (current, reference)), strict=True)
    p, q = (simplex.from_counts(x) for x in counts)
    smooth = [simplex.from_counts(_or_nan(x), pseudo_count=pseudo_count) for x in counts]
    per_count = [_one_over_count(x, y) for x, y in zip(counts, squares, strict=True)]
    noise, free = sum(per_count), jnp.sum(jnp.maximum(*counts) > 0).astype(p.dtype) - 1
    js, mean = simplex.js(p, q), 0.5 * (p + q)
    spread = sum(_variance_of_log(x, mean) * over for x, over in zip((p, q), per_count, strict=True))
    bias = free * noise
    divergences = js, simplex.kl(*smooth), simplex.jeffreys(*smooth)
    biases = bias / 8, bias / 2, bias
    p_value = _p_value(p, q, *per_count)
    return Drift(*divergences, *biases, 0.5 * jnp.sqrt(spread), p_value, *map(_share_left_out, (current, reference)))


def _histogram(state, left_out):
    """Counts and sums of squared weights of the bins `[g]`; with `left_out`, `[g + 1]`, one more bin for the rest."""
    inside, outside = (state.weights, state.squared_weights), (state.left_out, state.squared_left_out)
    if not left_out:
        return [_total(x) for x in inside]
    return [jnp.append(_total(x), _total(y)) for x, y in zip(inside, outside, strict=True)]


def _or_nan(counts):
    """Counts, `nan` for an empty histogram."""
    return jnp.where(jnp.sum(counts) == 0, jnp.nan, counts)


def _share_left_out(state):
    out = _total(state.left_out)
    return jnp.where(out == 0, 0, out / or_one(out + jnp.sum(_total(state.weights))))


def _one_over_count(weights, squared_weights):
    """One over the effective count of all groups together."""
    weight = jnp.sum(weights)
    return jnp.sum(squared_weights) / weight / weight


def _variance_of_log(p, mean):
    """The variance of log(p / mean) under p."""
    log = jnp.where(p == 0, 0, jnp.log(or_one(p) / or_one(mean)))
    return jnp.sum(p * (log - jnp.sum(p * log)) ** 2)


def _p_value(p, q, per_p, per_q):
    """The p-value of Pearson's X^2, by the gamma distribution with its mean and variance given the margins."""
    n, m = 1 / per_p, 1 / per_q
    total, inside = n + m, n * p + m * q
    used = inside > 0
    # (a m - b n)^2 / (t n m) with counts a, b and t = a + b.
    statistic = jnp.sum(jnp.where(used, (p - q) ** 2 / or_one(per_q * p + per_p * q), 0))
    bins = jnp.sum(used).astype(p.dtype)
    # Dawson's v and w of the two rows and of the columns; N sum 1/t - k^2 as squares. Weighted counts may be below 1.
    less_1, less_2, less_3 = (jnp.maximum(total - i, 1) for i in (1, 2, 3))
    of_bins = jnp.where(used, (1 - bins * inside / total) ** 2 / jnp.maximum(inside, 1), 0)
    v_rows, w_rows = (total - 2) / less_1, (n - m) ** 2 * per_p * per_q / less_2
    v_bins, w_bins = (bins - 1) * (total - bins) / less_1, total * jnp.sum(of_bins) / less_2
    free_rows, free_bins = (jnp.maximum(v - w, 0) for v, w in ((v_rows, w_rows), (v_bins, w_bins)))
    mean = (bins - 1) * total / less_1
    variance = 2 * total / less_3 * free_rows * free_bins + total**2 / less_1 * w_rows * w_bins
    # If the margins leave no choice, X^2 equals its mean. Its variance is then 0, and what is computed is rounding
    # error. With one bin, or a bin to each value, the terms of the bins are rounding errors too, so integers decide.
    certain = variance <= 32 * jnp.finfo(p.dtype).eps * (v_rows + w_rows) * (v_bins + w_bins)
    certain |= (bins <= 1) | (bins >= total - 0.5)
    variance = jnp.where(certain, 1, variance)
    shape, at = (jnp.where(certain, x, y) for x, y in ((1, mean * mean / variance), (0, statistic * mean / variance)))
    return jnp.where(jnp.isnan(total), jnp.nan, _upper_tail(shape, at))


def _upper_tail(shape, x):
    r"""The probability of more than x under the gamma distribution of a shape and rate 1.

    `jax.scipy.special.gammaincc` loses digits in proportion to the shape. For large shapes a it is
    $\tfrac12 \mathrm{erfc}(\eta \sqrt{a / 2})$ with $\eta^2 / 2 = x / a - 1 - \log(x / a)$, and the first term of
    Temme's series in 1 / a (The asymptotic expansion of the incomplete gamma functions, 1979).
    """
    large = shape > 300
    few, many = jnp.where(large, 1, shape), jnp.where(large, shape, 300)
    gap = (jnp.where(large, x, 300) - many) / many
    half_square = log_excess(1 + gap, jnp.ones_like(gap))
    eta = jnp.sign(gap) * jnp.sqrt(2 * half_square)
    near = jnp.abs(gap) < 0.1
    of_small = -1 / 3 + eta * (1 / 12 - eta * (2 / 135 - eta / 864))
    first = jnp.where(near, of_small, 1 / jnp.where(near, 1, gap) - 1 / jnp.where(near, 1, eta))
    tail = 0.5 * jax.scipy.special.erfc(eta * jnp.sqrt(0.5 * many))
    tail += first * jnp.exp(-many * half_square) / jnp.sqrt(2 * jnp.pi * many)
    return jnp.where(large, tail, jax.scipy.special.gammaincc(few, jnp.where(large, 0, x)))


# ---------------------------------------------------------------- many columns


@jitted
def holm(p_values: ArrayLike) -> jax.Array:
    r"""P-values corrected for n tests, $\max_{j \le i} \min(1, (n - j + 1) p_{(j)})$, against any false alarm.

    If you act on all corrected values that are at most $\alpha$, the probability of any false alarm is at most
    $\alpha$, however the tests depend on each other.

    Args:
        p_values: P-values `[n]`.

    Returns:
        Corrected p-values `[n]`, in the order given; 0 stays 0. A `nan` stays `nan` and does not count as a test.

    Example:
        >>> print(metrics.holm(jnp.array([0.01, 0.5, 0.02])))
        [0.03 0.5  0.04]

    References:
        Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    p, order, tests, dtype = _sorted_p_values("metrics.holm", p_values)
    corrected = jax.lax.cummax(jnp.minimum(p * (tests - jnp.arange(len(p)).astype(p.dtype)), 1))
    return _in_place(corrected, p, order, dtype)


@jitted
def benjamini_hochberg(p_values: ArrayLike) -> jax.Array:
    r"""P-values corrected for n tests, $\min_{j \ge i} n p_{(j)} / j$, against a large share of false alarms.

    If you act on all corrected values that are at most $\alpha$, the expected share of false alarms among them is at
    most $\alpha$, provided that the tests are independent.

    Args:
        p_values: P-values `[n]`.

    Returns:
        Corrected p-values `[n]`, in the order given; 0 stays 0. A `nan` stays `nan` and does not count as a test.

    Example:
        >>> print(metrics.benjamini_hochberg(jnp.array([0.01, 0.5, 0.02])))
        [0.03 0.5  0.03]

    References:
        Benjamini and Hochberg, Controlling the false discovery rate, 1995.
    """
    p, order, tests, dtype = _sorted_p_values("metrics.benjamini_hochberg", p_values)
    ranked = jnp.where(jnp.isnan(p), 1, p * tests / jnp.arange(1, len(p) + 1).astype(p.dtype))
    return _in_place(jax.lax.cummin(ranked, reverse=True), p, order, dtype)


def _sorted_p_values(who, p_values):
    p = _inputs.vector(who, p_values, "p_values", least=0)
    dtype, p = p.dtype, p.astype(_inputs.working(p))  # half precision cannot count many tests
    order = jnp.argsort(p)
    return p[order], order, jnp.sum(~jnp.isnan(p)).astype(p.dtype), dtype


def _in_place(corrected, p, order, dtype):
    return jnp.zeros_like(p).at[order].set(jnp.where(jnp.isnan(p), jnp.nan, corrected)).astype(dtype)


def drift_table(
    reference: Any,
    current: Any,
    *,
    bins: int = 10,
    pseudo_count: ArrayLike = 0.0,
    correction: Callable[[jax.Array], jax.Array] = holm,
) -> DriftTable:
    r"""The `drift` of each column of two tables, in one program, with p-values $p_j$ corrected for their number.

    Numbers and times are binned by the `edges` of the reference. Strings, booleans and objects are categories; each
    category of the reference is a bin. So are numbers with at most `bins` different values, if each occurs `bins` times
    on average. Each column has two more bins: one for values that the reference lacks, one for missing values (`nan`,
    `None`, `NaT`).

    Args:
        reference: A data frame of pandas or polars, a dict of columns, or an array `[rows, c]`.
        current: Another table with the same columns and any number of rows.
        bins: The number of bins of a numeric column, at least 2.
        pseudo_count: As in `drift`; added to the bins of all columns.
        correction: `holm`, `benjamini_hochberg`, or another function of p-values `[c]`.

    Returns:
        A `DriftTable` of numpy arrays `[c]`, in the order of the reference's columns: `drift`, `corrected_p_value`, and
        the shares of values `unseen`, `missing` and `reference_missing`. All divergences are 0 for equal frequencies;
        `nan` for a table without rows.

    Raises:
        ValueError: The tables have different columns, or `bins` is below 2.
        TypeError: A table has another type, or `correction` is not a function.

    Example:
        >>> old = {"age": np.arange(400.0) % 80, "color": ["red", "blue"] * 200}
        >>> new = {"age": np.arange(300.0) % 80, "color": ["red", "blue", "green"] * 100}
        >>> table = metrics.drift_table(old, new)
        >>> for name, js, p in zip(table.names, table.drift.js, table.corrected_p_value):
        ...     print(f"{name:6s} {js:.3f} {p:.0e}")
        age    0.002 1e+00
        color  0.132 3e-34

    References:
        Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    who = "metrics.drift_table"
    _inputs.setting(who, "bins", bins, 2, whole=True)
    old, new = _inputs.columns(who, "reference", reference), _inputs.columns(who, "current", current)
    _inputs.same_columns(who, old, new)
    counts = [_inputs.binned(x, new[name], bins) for name, x in old.items()]
    real = np.array([np.arange(max(len(x) for x, _ in counts)) < len(x) for x, _ in counts])
    found = _drifts(*(_counted(x) for x in _inputs.padded(counts)), pseudo_count, real)
    corrected = np.asarray(_inputs.correction(who, correction)(found.p_value))
    unseen, missing, reference_missing = (
        np.array([pair[i][place] / max(np.sum(pair[i]), 1) for pair in counts])
        for i, place in ((1, -2), (1, -1), (0, -1))
    )
    return DriftTable(tuple(old), jax.device_get(found), corrected, unseen, missing, reference_missing)


@jax.jit
def _drifts(old, new, pseudo_count, real):
    """A `Drift` of each column. Bins that are not `real` are padding and get no pseudo-count."""

    def of_column(old, new, real):
        extra = jnp.where(real, pseudo_count, 0)
        smooth = [simplex.from_counts(_or_nan(_total(state.weights)) + extra) for state in (new, old)]
        return drift(old, new)._replace(kl=simplex.kl(*smooth), psi=simplex.jeffreys(*smooth))

    return jax.vmap(of_column)(old, new, real)


# ---------------------------------------------------------------- calibration


@jitted
def calibration(confidence: Mean, outcome: Mean) -> Calibration:
    r"""Expected calibration error $\sum_b n_b / n \; \mathrm{KL}(\bar y_b \| \bar p_b)$ of probabilities, over bins.

    Args:
        confidence: A state with g groups (the bins), updated with the predicted probabilities $p$.
        outcome: A state updated with the outcomes, 1 or 0, and the same weights, masks and groups.

    Returns:
        A `Calibration`, fields `[]`. `kl` is in nats, between Bernoulli distributions: 0 if the mean outcome of every
        bin is its mean confidence, `inf` where a certain prediction was wrong. `kl_bias` is $g' / 2n$, the value that
        g' non-empty bins have by chance for calibrated predictions. `absolute_error` is the usual
        $\sum_b n_b / n \; |\bar y_b - \bar p_b|$. All are `nan` for zero values.

    Raises:
        ValueError: The states have no groups, or different numbers of groups.

    Example:
        >>> p, y = jnp.array([0.1, 0.3, 0.8, 0.9]), jnp.array([0.0, 0.0, 1.0, 1.0])
        >>> groups = metrics.bins(p, jnp.array([0.5]))
        >>> states = [metrics.update(metrics.empty(2), x, groups=groups) for x in (p, y)]
        >>> found = metrics.calibration(*states)
        >>> print(f"{found.kl:.4f} {found.absolute_error:.4f}")
        0.1928 0.1750

    References:
        Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, 2015. Broecker,
        Reliability, sufficiency, and the decomposition of proper scores, 2009 (the reliability term).
    """
    _inputs.same_groups("metrics.calibration", confidence=confidence.weights.high, outcome=outcome.weights.high)
    weight, p, _ = _totals(confidence)
    used = weight != 0
    p, y = (jnp.where(used, x, 0) for x in (p, _totals(outcome)[1]))
    share = simplex.from_counts(weight)
    kl = jax.vmap(simplex.kl)(*(jnp.stack([x, 1 - x], -1) for x in (y, p)))
    bias = 0.5 * jnp.sum(used).astype(share.dtype) * _one_over_count(*_histogram(confidence, False))
    return Calibration(_mean(share, kl), bias, _mean(share, jnp.abs(y - p)))


def _mean(share: jax.Array, x: Any) -> jax.Array:
    return jnp.sum(jnp.where(share == 0, 0, share * x))

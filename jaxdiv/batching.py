"""Divergences of all pairs from two batches of distributions (*laws*), in bounded memory.

A table is computed tile by tile: `block_size` laws of one batch against as many of the other, so that a tile fits the
cache. Work that depends on one law only is done once per law, not once per pair. A derivative computes each tile again.

The first batch is divided as in `_core.stretches`: if it is sharded over devices, each tile takes equally many laws of
every shard, so no device needs the laws of another. Every device needs the whole second batch; it is one stretch.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core import tuning
from jaxdiv._core.blocks import varying_alike
from jaxdiv._core.functions import of_moderate_size, or_one, over_count, weighed
from jaxdiv._core.groups import along, without
from jaxdiv._core.jit import jitted
from jaxdiv._core.programs import compiled
from jaxdiv._core.rules import custom_jvp
from jaxdiv._core.stretches import cut, in_parts, join, once, split, start, stretches
from jaxdiv._discrete.verbs import sum_over_events

Divergence = Callable[[Any, Any], jax.Array]


class Neighbours(NamedTuple):
    """The nearest references of each query, nearest first: divergences and indices, both `[n, k]`."""

    values: jax.Array
    indices: jax.Array


def pairwise(
    divergence: Divergence,
    ps: Any,
    qs: Any = None,
    *,
    symmetric: bool = False,
    block_size: int | None = None,
    progress: bool = False,
) -> jax.Array:
    r"""The table $D_{ij} = D(p_i, q_j)$ of all pairs, without the memory of all pairs of arguments.

    Pass functions of `simplex` as they are: inside a lambda they get smaller tiles and take up to twice as long. If
    `ps` is sharded along its batch, the table is too; devices exchange nothing if each has all of `qs`.

    Calls with the same function and shapes are compiled once. A function of a module is the same in every call. So are
    partials of one function with equal arguments, and functions (also lambdas) of the same code that read the same
    numbers and functions. Arrays in a partial are arguments of the program. Any other function that reads an array, or
    an object that may change, is compiled again in each call.

    Args:
        divergence: A function of one pair of laws with a scalar result, such as `simplex.js` or your own.
        ps: Laws `[n, ...]`: an array or a tree of arrays with the batch as the first axis.
        qs: Laws `[m, ...]`; `ps` by default.
        symmetric: Set this if $D(p, q) = D(q, p)$: half of the table of `ps` with itself is then computed, and the
            other half mirrored. Such a table is not sharded.
        block_size: The number of laws of each batch per tile; by default as many as fit a cache, and more for a large
            table on an accelerator.
        progress: Whether to show a tqdm bar. The host then starts each tile, so this does not work under `jit` or
            `grad`.

    Returns:
        `[n, m]`, with the units, sign, zeros and infinities of `divergence`. For the divergences of this library the
        diagonal of `ps` with itself is exactly 0. An invalid law affects its own row or column only. Differentiable.

    Raises:
        ValueError: The arrays of a batch differ in their first axis, or have none; `divergence` is not scalar;
            `symmetric` is given with `qs`; `block_size` is not a positive integer; `progress` is used under a
            transformation.
        TypeError: `divergence` is not a function, or laws are not arrays.
        ImportError: tqdm is not installed.

    Example:
        >>> ps = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]]))
        >>> for row in jaxdiv.pairwise(categorical.kl, ps):
        ...     print(" ".join(f"{value:.3f}" for value in row))
        0.000 0.144 0.511
        0.131 0.000 0.092
        0.368 0.072 0.000
    """
    who = "jaxdiv.pairwise"
    _inputs.one_batch_if(symmetric, who, qs)
    block_size = _checked(who, divergence, block_size)
    ps, qs = _inputs.stacked(who, "ps", ps), _inputs.stacked(who, "qs", ps if qs is None else qs)
    n, m = _inputs.batch_size(who, "ps", ps), _inputs.batch_size(who, "qs", qs)
    if progress and n and m:
        dtype = _inputs.result_of_pair(who, divergence, ps, qs)
        bar = _inputs.progress_bar(who, ps, qs)
        return _table_by_calls(divergence, _rows_of_a_call(n, m), symmetric, block_size, dtype, ps, qs, bar)
    return compiled(_pairwise, divergence, symmetric=symmetric, block_size=block_size)(ps, qs)


def _pairwise(divergence, ps, qs, *, symmetric, block_size):
    n, m = _count(ps), _count(qs)
    dtype = _inputs.result_of_pair("jaxdiv.pairwise", divergence, ps, qs)
    if not n or not m:
        return jnp.zeros((n, m), dtype)

    def fill(tiles, ps, qs):
        if _is_sum(divergence):
            return _table_of_sums(divergence, symmetric, tiles, ps, qs)
        return _table(_pairs(divergence), _side(tiles, ps, qs), symmetric, dtype, ps, qs)

    return _with_auto_axes(functools.partial(_in_tiles, fill, block_size), ps, qs)


def nearest(
    divergence: Divergence,
    queries: Any,
    references: Any,
    *,
    k: int,
    block_size: int | None = None,
    progress: bool = False,
) -> Neighbours:
    r"""The k references with the least $D(q_i, r_j)$ for each query $q_i$, without the table of all pairs.

    If queries are sharded along their batch, the result is too; devices exchange nothing if each has all references.

    Args:
        divergence: A function of one pair of laws with a scalar result; the query is its first argument.
        queries: Laws `[n, ...]`: an array or a tree of arrays with the batch as the first axis.
        references: Laws `[m, ...]`, in the same form.
        k: The number of neighbours, at most m.
        block_size: As in `pairwise`.
        progress: Whether to show a tqdm bar. The host then starts each block of queries, so this does not work under
            `jit` or `grad`.

    Returns:
        Divergences `[n, k]`, with the units, sign, zeros and infinities of `divergence`, and the indices of their
        references. The least comes first; of equal ones, that with the lower index. `nan` ranks with `inf`, behind
        every number; a query with `nan` gets `nan` and the first k references. The values are differentiable.

    Raises:
        ValueError: k is not between 1 and m; otherwise as in `pairwise`.
        ImportError: tqdm is not installed.

    Example:
        >>> laws = jnp.array([[0.5, 0.5], [0.25, 0.75], [0.0, 1.0]])
        >>> print(jaxdiv.nearest(simplex.js, laws, laws, k=2).indices)
        [[0 1]
         [1 0]
         [2 1]]
    """
    who = "jaxdiv.nearest"
    block_size = _checked(who, divergence, block_size)
    queries, references = _inputs.stacked(who, "queries", queries), _inputs.stacked(who, "references", references)
    n, m = _inputs.batch_size(who, "queries", queries), _inputs.batch_size(who, "references", references)
    k = _inputs.between_one_and(who, "k", k, m, "references")
    find = functools.partial(compiled, _find, divergence, k=k, block_size=block_size)
    if progress and n:
        return _by_calls(
            find(always=True), _rows_of_a_call(n, m), queries, _inputs.progress_bar(who, queries), references
        )
    return find()(queries, references)


def _find(divergence, queries, references, *, k, block_size):
    n = _count(queries)
    dtype = _inputs.result_of_pair("jaxdiv.nearest", divergence, queries, references)
    if not n:
        return Neighbours(jnp.zeros((n, k), dtype), jnp.zeros((n, k), jnp.int32))

    def find(tiles, queries, references):
        side = _side(tiles, queries, references)
        large = _large_side(tiles, queries) if _is_sum(divergence) else side
        indices = _nearest(_pairs(divergence), large, k, *lax.stop_gradient((queries, references)))
        values = _divergences_at(divergence, max(1, side * side // k), queries, references, indices)
        return Neighbours(values, indices)

    return _with_auto_axes(functools.partial(_in_tiles, find, block_size), queries, references)


def pairwise_mean(
    divergence: Divergence,
    ps: Any,
    qs: Any = None,
    *,
    weights: ArrayLike | None = None,
    block_size: int | None = None,
    progress: bool = False,
) -> jax.Array:
    r"""The mean divergence $\sum_j w_j D(p_i, q_j) / \sum_j w_j$ of each law from a batch, without the table of pairs.

    It says how typical each law is. The least is at the medoid of a cluster, the largest at the outliers of a batch.
    `ps` may be sharded as in `pairwise`.

    Args:
        divergence: A function of one pair of laws with a scalar result.
        ps: Laws `[n, ...]`: an array or a tree of arrays with the batch as the first axis.
        qs: Laws `[m, ...]`; `ps` by default, so that each law is also compared with itself.
        weights: Weights $w$ `[m]`, non-negative; equal by default. A law of weight 0 does not count, even at distance
            `inf` or with `nan`.
        block_size: As in `pairwise`.
        progress: Whether to show a tqdm bar. The host then starts each block of `ps`, so this does not work under `jit`
            or `grad`.

    Returns:
        `[n]`, with the units, sign and infinities of `divergence`; `nan` if all weights are 0. Differentiable, also
        with respect to the weights.

    Raises:
        ValueError: `weights` do not broadcast against `[m]`; otherwise as in `pairwise`.
        ImportError: tqdm is not installed.

    Example:
        >>> laws = jnp.array([[0.5, 0.5], [0.25, 0.75], [0.0, 1.0]])
        >>> print(" ".join(f"{value:.3f}" for value in jaxdiv.pairwise_mean(simplex.js, laws)))
        0.083 0.043 0.104
    """
    who = "jaxdiv.pairwise_mean"
    block_size = _checked(who, divergence, block_size)
    ps, qs = _inputs.stacked(who, "ps", ps), _inputs.stacked(who, "qs", ps if qs is None else qs)
    n, m = _inputs.batch_size(who, "ps", ps), _inputs.batch_size(who, "qs", qs)
    weights = weights if weights is None else _inputs.array(who, "weights", weights)
    mean = functools.partial(compiled, _mean, divergence, block_size=block_size)
    if progress and n and m:
        return _by_calls(mean(always=True), _rows_of_a_call(n, m), ps, _inputs.progress_bar(who, ps), qs, weights)
    return mean()(ps, qs, weights)


def _mean(divergence, ps, qs, weights, *, block_size):
    who, n, m = "jaxdiv.pairwise_mean", _count(ps), _count(qs)
    dtype = _inputs.result_of_pair(who, divergence, ps, qs)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.asarray(0.0).dtype
    given, weights = weights, _inputs.weights(who, weights, None, (m,), _inputs.working(jnp.zeros(0, dtype)))
    if not n or not m:
        return jnp.full(n, jnp.nan, dtype)
    if given is not None:
        qs, weights = without((weights == 0) & _invalid(divergence, ps, qs), qs, weights)
        weights = of_moderate_size(weights)

    def means(tiles, ps, qs, weights):
        return _means(_pairs(divergence), _side(tiles, ps, qs), ps, qs, weights)

    return _with_auto_axes(functools.partial(_in_tiles, means, block_size), ps, qs, weights).astype(dtype)


def _invalid(divergence, ps, qs):
    """Which laws qs `[m]` hold nan, or have no divergence from themselves."""
    faults = [jnp.any(x != x, tuple(range(1, x.ndim))) for x in jax.tree.leaves(qs)]
    types_of_p, types_of_q = (jax.tree.map(lambda x: (x.shape[1:], x.dtype), laws) for laws in (ps, qs))
    if types_of_p == types_of_q:  # else q is no law that could be compared with itself
        faults.append(jnp.isnan(along(lambda q: divergence(q, q), lax.stop_gradient(qs))))
    return functools.reduce(jnp.logical_or, faults)


@jitted
def pairwise_kl_by_matmul(ps: ArrayLike, qs: ArrayLike | None = None) -> jax.Array:
    r"""KL of all pairs as one matrix product, $\sum_k p_{ik} \log p_{ik} - \sum_k p_{ik} \log q_{jk}$.

    Use it for distributions that are far apart. The two sums cancel, so the absolute error is a rounding error of the
    entropy. Near equality the result is noise and may be negative. `pairwise(simplex.kl, ps, qs)` is accurate
    everywhere and about ten times slower.

    Args:
        ps: Probabilities `[n, k]` that sum to one, of the distributions the expectation is under.
        qs: Probabilities `[m, k]`; `ps` by default.

    Returns:
        `[n, m]`, in nats; `inf` where q is zero and p is not; about 0, not exactly, for equal distributions; `nan` for
        invalid ones.

    Example:
        >>> ps = jnp.array([[0.5, 0.5], [0.25, 0.75]])
        >>> print(f"{jaxdiv.pairwise_kl_by_matmul(ps)[0, 1]:.4f}")
        0.1438
    """
    ps, qs, dtype = _inputs.matrices("jaxdiv.pairwise_kl_by_matmul", ps, ps if qs is None else qs)
    times = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    less_entropy = jnp.sum(ps * jnp.log(or_one(ps)), 1, keepdims=True)
    table = less_entropy - times(ps, jnp.log(or_one(qs)).T)

    def with_zeros(table):
        outside = times((ps > 0).astype(table.dtype), (qs == 0).astype(table.dtype).T)
        return jnp.where((outside > 0) & ~jnp.isnan(table), jnp.inf, table)

    return lax.cond(jnp.any(qs == 0), with_zeros, lambda table: table, table).astype(dtype)


def _checked(who, divergence, block_size):
    _inputs.function(who, "divergence", divergence, "of two laws: simplex.js, or categorical.js for logits")
    return _inputs.block_size(who, block_size)


# ---------------------------------------------------------------- tiles


def _pairs(divergence):
    """A function from two batches of laws to their table, for any divergence."""
    all_pairs = jax.vmap(jax.vmap(divergence, (None, 0)), (0, None))
    return lambda ps, qs: all_pairs(*varying_alike((ps, qs)))


def _in_tiles(run, block_size, ps, qs, *rest):
    """`run(tiles, ps, qs, *rest)` with `Tiles` for the platform that it is compiled for, or of `block_size` laws."""
    pairs = _count(ps) * _count(qs)
    if block_size or not isinstance(pairs, int) or pairs < tuning.TABLE:
        return run(block_size or tuning.TILES, ps, qs, *rest)
    cpu, elsewhere = (functools.partial(run, tiles) for tiles in (tuning.TILES, tuning.TILES_ELSEWHERE))
    return lax.platform_dependent(ps, qs, *rest, cpu=cpu, default=elsewhere)


def _side(tiles, ps, qs):
    """The number of laws per side of a tile that needs memory for every pair."""
    if isinstance(tiles, int):
        return tiles
    leaves = [jax.tree.leaves(laws) for laws in (ps, qs)]
    elements = max(sum(math.prod(x.shape[1:]) for x in xs) for xs in leaves)
    most = tiles.elements if max(map(len, leaves)) == 1 else tiles.elements // tuning.PER_PAIR
    return max(1, min(tiles.side, math.isqrt(most // max(1, elements))))


def _is_sum(divergence):
    """Whether a tile on a CPU needs memory per law only: sums over events of terms without parameters."""
    carried = sum_over_events(divergence)
    return carried is not None and carried.law_by_law and not carried.divergence.parameters


def _large_side(tiles, ps):
    """The number of laws per side of a tile that needs memory per law only."""
    return tiles if isinstance(tiles, int) else max(8, min(tiles.side, tiles.laws // ps.shape[1]))


@functools.partial(custom_jvp, nondiff_argnums=(0, 1, 2))
def _table_of_sums(divergence, symmetric, tiles, ps, qs):
    side = _large_side(tiles, ps)
    return _table(_pairs(divergence), side, symmetric, _inputs.promoted(ps, qs), ps, qs)


@_table_of_sums.defjvp
def _(divergence, symmetric, tiles, primals, tangents):
    # Slopes need memory for every pair. They are those of the whole table: a transposed mirroring would hold a second.
    side, dtype = _side(tiles, *primals), _inputs.promoted(*primals)
    whole = functools.partial(_table, _pairs(divergence), side, False, dtype)
    return _table_of_sums(divergence, symmetric, tiles, *primals), jax.jvp(whole, primals, tangents)[1]


def _with_auto_axes(function: Callable[..., Any], ps: Any, *others: Any) -> Any:
    """`function(ps, *others)` with explicit mesh axes made automatic; its results have the batch of ps first."""
    sharding = jax.typeof(jax.tree.leaves(ps)[0]).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return function(ps, *others)
    with jax.sharding.use_abstract_mesh(sharding.mesh):
        return jax.sharding.auto_axes(function, out_sharding=P(sharding.spec[0]))(ps, *others)


# ---------------------------------------------------------------- tables


def _sides(ps, qs, side, symmetric=False):
    """The rows and the columns of a table, in parts of at most one side of a tile."""
    rows = in_parts(_count(ps), side, groups=1 if symmetric else None, lanes=tuning.LANES)
    return rows, in_parts(_count(qs), side, groups=1, lanes=tuning.LANES)


def _table(tile, side, symmetric, dtype, ps, qs):
    """All pairs, by tiles with `side` laws per side."""
    sides = rows, columns = _sides(ps, qs, side, symmetric)
    table = _empty(dtype, split(rows, _one_of_each(ps)), _one_of_each(qs))
    table = _fill(tile, sides, symmetric, table, _corners(rows, columns, symmetric), (ps, qs))
    return table.reshape(_count(ps), _count(qs))


def _corners(rows, columns, symmetric):
    """Numbers (i, j) of the tiles of a table, `[tiles, 2]`."""
    corners = [(i, j) for i in range(rows.steps) for j in range(columns.steps) if i < j or not symmetric]
    # The last tiles overlap others, so the tiles on the diagonal are written last: the table is then symmetric.
    return jnp.asarray(corners + [(i, i) for i in range(rows.steps)] * symmetric, jnp.int32)


def _fill(tile, sides, symmetric, table, corners, laws):
    """Writes tiles (i, j) into a table, and their mirror images if it is symmetric."""
    rows, columns = sides

    @jax.checkpoint
    def evaluate(laws, i, j):
        ps, qs = laws
        return tile(cut(rows, ps, i), cut(columns, qs, j))

    def step(table, corner):
        i, j = corner
        values = evaluate(laws, i, j)
        if symmetric:
            below = jnp.tril(jnp.ones(values.shape, bool), -1) & (i == j)
            values = jnp.where(below, values.T, values)
            table = _put(sides, table, values.T, j, i)
        return _put(sides, table, values, i, j), None

    return lax.scan(step, table, corners)[0]


def _put(sides, table, tile, i, j):
    """Writes a tile into the table, whose rows are `split`."""
    rows, columns = sides
    at = start(rows, i), start(columns, j)
    zero = [jnp.zeros_like(at[0])] * (rows.groups > 1)
    return lax.dynamic_update_slice(table, split(rows, tile), (*zero, *at))


def _empty(dtype, rows, columns):
    """Zeros `[*rows, m]` that vary over a mesh as the arguments do."""
    # Computed from them: on some versions of jax, zeros_like forgets an explicit sharding.
    rows, columns = ((x != x) & False for x in (rows, columns))
    return (rows[..., None] | columns.reshape((1,) * rows.ndim + columns.shape)).astype(dtype)


def _one_of_each(laws):
    """One number per law `[n]`; it varies over a mesh as the laws do."""
    x = jax.tree.leaves(laws)[0]
    return x.reshape(x.shape[0], -1)[:, 0]


def _count(laws):
    return jax.tree.leaves(laws)[0].shape[0]


# ---------------------------------------------------------------- by calls from the host, to show progress


def _rows_of_a_call(n, m):
    """The number of laws per call: about ten calls for the longer batch."""
    return max(tuning.TILES.side, -(-max(n, m) // 10))


def _table_by_calls(divergence, side, symmetric, block_size, dtype, ps, qs, bar):
    """As `_table`, with one call per tile."""
    sides = rows, columns = _sides(ps, qs, side, symmetric)
    static = {"sides": sides, "symmetric": symmetric, "block_size": block_size}
    fill = compiled(_fill_one, divergence, always=True, donate=(0,), **static)
    table = _empty(dtype, split(rows, _one_of_each(ps)), _one_of_each(qs))
    for corner in bar(list(_corners(rows, columns, symmetric))):
        table = fill(table, corner, (ps, qs))
    return table.reshape(_count(ps), _count(qs))


def _fill_one(divergence, table, corner, laws, *, sides, symmetric, block_size):
    tile = functools.partial(pairwise, divergence, block_size=block_size)
    return _fill(tile, sides, symmetric, table, corner[None], laws)


def _by_calls(evaluate, most, laws, bar, *rest):
    """`evaluate(laws, *rest)`, a tree of `[n, ...]`, for at most `most` laws per call."""
    rows = in_parts(_count(laws), most)
    found = [evaluate(cut(rows, laws, i), *rest) for i in bar(list(jnp.arange(rows.steps, dtype=jnp.int32)))]
    return jax.tree.map(lambda *parts: join(rows, jnp.stack(parts)), *found)


# ---------------------------------------------------------------- rows of a table that is never stored


def _along(evaluate, most, laws, rest):
    """`evaluate(laws, rest)`, a tree of `[n, ...]`, for at most `most` laws at a time."""
    rows = in_parts(_count(laws), most, lanes=tuning.LANES)

    @jax.checkpoint
    def of_some(laws, rest, i):
        return evaluate(cut(rows, laws, i), rest)

    found = lax.map(functools.partial(of_some, laws, rest), jnp.arange(rows.steps, dtype=jnp.int32))
    return jax.tree.map(functools.partial(join, rows), found)


def _nearest(tile, side, k, queries, references):
    """The indices of the k nearest references of each query."""
    m = _count(references)
    _, columns = _sides(queries, references, side)
    least = _least if stretches(_count(queries)) == 1 else _least_by_sort

    def evaluate(queries, references):
        def among(j):
            # Entries beyond the last reference are largest and last in their tile, so equal entries win against them.
            at = j * columns.size + jnp.arange(columns.size, dtype=jnp.int32)
            some = jax.tree.map(lambda x: x[jnp.minimum(at, m - 1)], references)
            values = tile(queries, some)
            values = jnp.where((values != values) | (at >= m)[None], _largest(values.dtype), values)
            return least(values, jnp.zeros_like(values, at.dtype) + at[None], min(k, columns.size))

        found = lax.map(among, jnp.arange(columns.steps, dtype=jnp.int32))
        values, at = (jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1) for x in found)
        return least(values, at, k)[1]

    return _along(evaluate, side, queries, references)


def _least(values, indices, k):
    """The k least values of each row (of equal ones, the first) and their indices."""
    # Of an integer, the complement reverses the order for every value; the negative does not for the least.
    reverse = operator.neg if jnp.issubdtype(values.dtype, jnp.floating) else operator.invert
    found, at = lax.top_k(reverse(values), k)
    return reverse(found), jnp.take_along_axis(indices, at, -1)


def _largest(dtype):
    return jnp.asarray(jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max, dtype)


def _least_by_sort(values, indices, k):
    """As `_least`, by a sort: slower, but XLA does not gather sharded rows for it."""
    return tuple(x[..., :k] for x in lax.sort((values, indices), num_keys=1))


def _means(tile, side, ps, qs, weights):
    """The weighted mean of each row of a table."""
    _, columns = _sides(ps, qs, side)

    def evaluate(ps, others):
        @jax.checkpoint
        def sums(j):
            some, w = cut(columns, others, j)
            w = once(columns, w, j)[None]
            return jnp.sum(weighed(w, tile(ps, some).astype(w.dtype)), 1)

        return jnp.sum(lax.map(sums, jnp.arange(columns.steps, dtype=jnp.int32)), 0)

    return over_count(_along(evaluate, side, ps, (qs, weights)), jnp.sum(weights))


def _divergences_at(divergence, most, queries, references, indices):
    """The divergences of each query from the references at its indices."""

    def evaluate(rows, references):
        queries, at = rows
        return jax.vmap(jax.vmap(divergence, (None, 0)))(queries, jax.tree.map(lambda x: x[at], references))

    return _along(evaluate, most, (queries, indices), references)

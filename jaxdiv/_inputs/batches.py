"""Checks of batches of laws, of points and of observations; and errors that name faulty rows, on the host."""

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxdiv._inputs.arrays import any_array, array, described, distinct_axes, in_working_precision, mask, same_shape


def rows_of_events(who: str, p: Any, axis: Any) -> tuple[np.ndarray, Any]:
    """Numbers on the host in float64, with the events last, and the dtype that they had."""
    p = np.asarray(p)
    distinct_axes(who, "p", p, axis if isinstance(axis, int) else (axis,))
    return np.moveaxis(p.astype(np.float64), axis, -1), p.dtype


def raise_for_rows(who: str, rows: np.ndarray, faults: dict[str, Callable[[np.ndarray], Any]]) -> None:
    """Raises a ValueError that names, for every fault that occurs, its rows by their index on the leading axes."""
    found = {fault: np.argwhere(np.asarray(where(rows))) for fault, where in faults.items()}
    found = {fault: indices for fault, indices in found.items() if len(indices)}
    if not found:
        return
    parts = []
    for fault, indices in found.items():
        named = ", ".join(
            str(tuple(map(int, index))) if index.size != 1 else str(int(index[0])) for index in indices[:5]
        )
        where = f" in {len(indices)} of {rows[..., 0].size} rows: {named}{', ...' if len(indices) > 5 else ''}"
        parts.append(fault + where * (rows.ndim > 1))
    raise ValueError(f"{who} found {'; '.join(parts)}.")


def warn_of_probabilities(who: str, rows: np.ndarray) -> None:
    """Warns if logits look like probabilities; not if all are uniform, as uniform logits look the same."""
    if np.any(rows != rows[..., :1]) and np.all(rows >= 0) and np.all(np.abs(np.sum(rows, -1) - 1) < 1e-2):
        warnings.warn(
            f"{who} takes logits; got rows that are non-negative and sum to one, as probabilities do. Pass "
            "jax.numpy.log of them, or use jaxdiv.simplex and losses.with_probs.",
            stacklevel=3,
        )


def stacked(who: str, name: str, tree: Any) -> Any:
    """A tree with its leaves as jax arrays, of any dtype."""
    return jax.tree.map(functools.partial(any_array, who, name), tree)


def batch_size(who: str, name: str, tree: Any) -> int:
    """The common length of the first axes of a batch of laws."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(tree)]
    sizes = {shape[0] if shape else None for shape in shapes}
    if len(sizes) != 1 or None in sizes:
        got = ", ".join(f"{name}{list(shape)}" for shape in shapes) or "no array"
        raise ValueError(
            f"{who} takes laws stacked along a common first axis; got {got}. Stack them with jax.numpy.stack."
        )
    return shapes[0][0]


def some_laws(who: str, name: str, laws: Any) -> int:
    """The number of laws of a batch, at least one."""
    n = batch_size(who, name, laws)
    if n == 0:
        got = ", ".join(described(name, x) for x in jax.tree.leaves(laws))
        raise ValueError(f"{who} takes at least one law; got {got}. Leave empty batches out.")
    return n


def with_slopes(who: str, dtype: jnp.dtype) -> None:
    """Raises unless a divergence with results of this dtype has a gradient."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{who} takes a divergence with floating-point results; got {dtype}. Convert its arguments with "
            "astype(jax.numpy.float32)."
        )


def function(who: str, name: str, x: Any, example: str) -> None:
    """Raises unless x is a function; if it is an array, the arguments were probably exchanged."""
    if not callable(x):
        got = described(name, x) if isinstance(x, jax.Array | np.ndarray) else f"{name}={x!r}"
        raise TypeError(
            f"{who} takes {name} as a function, {example}; got {got}. Pass the function, and pass it first."
        )


def block_size(who: str, x: Any) -> int | None:
    """A positive integer, static, or None."""
    if x is not None and (isinstance(x, bool) or not isinstance(x, int | np.integer) or x < 1):
        raise ValueError(f"{who} takes block_size as a positive integer; got {x}. Pass None for the default.")
    return None if x is None else int(x)


def result_of_pair(who: str, divergence: Callable[[Any, Any], Any], ps: Any, qs: Any) -> jnp.dtype:
    """The dtype of the divergence of one pair from two batches of laws; raises unless the divergence is scalar."""
    pair = [jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), laws) for laws in (ps, qs)]
    # Wrapped, because jax keeps a weak reference, which not every callable allows.
    try:
        found = jax.eval_shape(lambda p, q: divergence(p, q), *pair)
    except ValueError as error:
        if any(len(x.shape) for x in jax.tree.leaves(pair)):
            raise
        got = " and ".join(", ".join(described(n, x) for x in jax.tree.leaves(y)) for n, y in (("ps", ps), ("qs", qs)))
        raise ValueError(
            f"{who} takes laws stacked along a first axis; got {got}, laws of one number each. One law is a batch of "
            f"one, ps[None]. The divergence says: {error}"
        ) from error
    if not isinstance(found, jax.ShapeDtypeStruct) or found.shape:
        got = jax.tree.map(lambda x: list(x.shape), found)
        raise ValueError(f"{who} takes a divergence of one pair that is a scalar array; got {got}. Sum it, or vmap.")
    return found.dtype


def one_batch_if(symmetric: bool, who: str, qs: Any) -> None:
    """Raises for a second batch if `symmetric`, which allows only one."""
    if symmetric and qs is not None:
        raise ValueError(f"{who} takes symmetric=True for all pairs of one batch; got qs as well. Leave out one.")


def between_one_and(who: str, name: str, x: Any, most: int, of: str) -> int:
    """A static integer between 1 and `most`."""
    if isinstance(x, bool) or not isinstance(x, int | np.integer) or not 1 <= x <= most:
        raise ValueError(
            f"{who} takes {name} between 1 and the number of {of}; got {name} = {x!r} and {most} {of}. Pass an integer "
            "of that range."
        )
    return int(x)


def progress_bar(who: str, *laws: Any) -> Callable[[Sequence[Any]], Iterable[Any]]:
    """tqdm, for a loop on the host."""
    if any(isinstance(x, Tracer) for x in jax.tree.leaves(laws)):
        raise ValueError(f"{who} takes progress=True for arrays with values; got traced ones. Call it outside of jit.")
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(f"{who} takes tqdm to show progress; got none. pip install 'jaxdiv[notebooks]'.") from error
    return tqdm


def points(who: str, k: int, xs: ArrayLike, ys: ArrayLike) -> tuple[list[jax.Array], jnp.dtype]:
    """Points `[n, d]` (more than k) and `[m, d]` (at least k) in the working precision, and the dtype of a result."""
    xs, ys = array(who, "xs", xs), array(who, "ys", ys)
    if {xs.ndim, ys.ndim} != {2} or 0 in (xs.size, ys.size):
        got = f"{described('xs', xs)} and {described('ys', ys)}"
        remedy = "numbers are points xs[:, None]" if xs.ndim == ys.ndim == 1 else f"for a batch, use jax.vmap({who})"
        raise ValueError(
            f"{who} takes points as [n, d]; got {got}. Pass at least one point, of d coordinates; {remedy}."
        )
    if (
        xs.shape[1] != ys.shape[1]
        or isinstance(k, bool)
        or not isinstance(k, int | np.integer)
        or not 0 < k < len(xs)
        or k > len(ys)
    ):
        raise ValueError(
            f"{who} takes points of equal dimension, more than an integer k >= 1 of the first and k of the second law; "
            f"got k = {k}, {described('xs', xs)} and {described('ys', ys)}. Pass more points, or a smaller k."
        )
    return in_working_precision([xs, ys])


def observations(
    who: str,
    count: tuple[int, ...],
    values: ArrayLike,
    weights: ArrayLike | None,
    where: ArrayLike | None,
    groups: ArrayLike | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """Values with their weights, mask and groups, all flat `[n]`, for an accumulator of shape `count`."""
    values = array(who, "values", values)
    weights = jnp.ones_like(values) if weights is None else array(who, "weights", weights)
    keep = jnp.ones(values.shape, bool) if where is None else mask(who, where, values.shape)
    if groups is not None and not jnp.issubdtype(jnp.asarray(groups).dtype, jnp.integer):
        raise TypeError(f"{who} takes groups as integers; got {jnp.asarray(groups).dtype}. Find them by metrics.bins.")
    if groups is None and count:
        raise ValueError(f"{who} takes the group of each value, as its state has groups; got none. Pass groups=.")
    if groups is not None and not count:
        raise ValueError(
            f"{who} takes groups if its state has any; got a state without. Make it by metrics.empty(number_of_groups)."
        )
    given = {"values": values, "weights": weights} | ({} if groups is None else {"groups": jnp.asarray(groups)})
    same_shape(who, given)
    return values.ravel(), weights.ravel(), keep.ravel(), None if groups is None else jnp.asarray(groups).ravel()


def same_groups(who: str, **sums: jax.Array) -> None:
    """Raises unless all states have the same number g of groups."""
    if {x.ndim for x in sums.values()} != {1} or len({x.shape for x in sums.values()}) > 1:
        got = " and ".join(described(name, x) for name, x in sums.items())
        raise ValueError(f"{who} takes states of equally many groups; got {got}. For a batch, use jax.vmap({who}).")


def equally_many_groups(who: str, **sums: jax.Array) -> None:
    """Raises unless all states have the same number of groups, or none."""
    same_shape(who, sums, "Make both states by the same metrics.empty(number_of_groups).")

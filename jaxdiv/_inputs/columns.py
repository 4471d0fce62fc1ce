"""Columns of tables, on the host: conversion to arrays, edges between bins, and counts of bins."""

import datetime
import decimal
import numbers
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxdiv._inputs.arrays import described, promoted


def column(who: str, name: str, x: Any) -> Any:
    """A column of numbers as an array (pandas and polars by `to_numpy`); anything else unchanged."""
    if not isinstance(x, jax.Array) and hasattr(x, "to_numpy"):
        x = _numbers(x)
    if isinstance(x, np.ndarray | np.generic) and x.dtype.kind not in "biufcV":  # V: bfloat16
        raise TypeError(
            f"{who} takes numbers; got {name} {x.dtype}{list(x.shape)}. Compare columns of other things by "
            "metrics.drift_table."
        )
    return x


def _numbers(x):
    """Numbers from a column whose missing values may be objects; those become nan."""
    found = x.to_numpy()
    if found.dtype != object:
        return found
    try:
        return x.to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):
        return found


def with_values(who: str, x: jax.Array) -> jax.Array:
    """`x`; raises if it is traced."""
    if isinstance(x, Tracer):
        raise TypeError(f"{who} takes values; got a traced array. Call it outside of jax.jit, once, on a reference.")
    return x


def increasing(who: str, edges: jax.Array) -> None:
    """Raises unless edges have one axis and increase; traced edges are not checked for that."""
    if edges.ndim != 1:
        raise ValueError(f"{who} takes edges on one axis; got {described('edges', edges)}. Pass g - 1 for g bins.")
    if isinstance(edges, Tracer) or not edges.is_fully_addressable:
        return
    values = np.asarray(edges)
    values = values.astype(np.result_type(values, np.float32))
    faults = np.flatnonzero(~(values[:-1] < values[1:]))
    if len(faults) or np.isnan(values).any():
        i = faults[0] if len(faults) else 0
        found = ", ".join(f"edges[{j}] = {values[j]}" for j in range(i, min(i + 2, len(values))))
        raise ValueError(f"{who} takes edges that increase; got {found}. Find them by metrics.edges(values, bins).")


def group_counts(who: str, counts: Any, left_out: Any) -> tuple[Any, Any]:
    """Counts `[g]` and the number outside of all groups, in one dtype; numpy arrays, unless they are jax arrays."""
    counts, left_out = (
        x if isinstance(x, jax.Array) else np.asarray(column(who, name, x))
        for name, x in (("counts", counts), ("left_out", left_out))
    )
    if counts.ndim != 1 or counts.size == 0 or left_out.ndim:
        raise ValueError(
            f"{who} takes counts [g] of at least one group and left_out []; got {described('counts', counts)} and "
            f"{described('left_out', left_out)}. For a batch, use jax.vmap({who})."
        )
    # Half precision cannot hold the sums of counts.
    counts, left_out = (
        x.astype(np.float32) if x.dtype in (jnp.bfloat16, jnp.float16) else x for x in (counts, left_out)
    )
    if counts.dtype.kind not in "iuf":
        raise TypeError(f"{who} takes counts as integers or floating-point numbers; got {counts.dtype}. Convert them.")
    if isinstance(counts, jax.Array):
        narrow = counts.dtype.kind != "f" and (counts.dtype.itemsize < 4 or left_out.dtype.kind == "f")
        common = promoted(jnp.zeros(0, jnp.int32), left_out) if narrow else counts.dtype
    else:
        common = np.result_type(counts, left_out)
    return counts.astype(common), left_out.astype(common)


def quantile_edges(x: np.ndarray, bins: int) -> np.ndarray:
    """At most `bins` - 1 increasing edges (two for a constant) between bins as equal as the ties of x allow."""
    x = np.sort(np.where(np.abs(x) < np.finfo(x.dtype).tiny, 0, x)[~np.isnan(x)])
    if len(x) == 0:
        return x
    places = len(x) * np.arange(1, bins) / bins
    at = x[places.astype(int)]
    # An edge lies at a value or just above it, whichever makes the share below more nearly right. So a value that holds
    # two quantiles gets a bin of its own, and so does a constant.
    below, through = (np.searchsorted(x, at, side) for side in ("left", "right"))
    edges = np.where(places - below <= through - places, at, _next(at))
    return np.unique([at[0], _next(at[0])] if x[0] == x[-1] else edges)


def _next(x):
    """The next float above, but not a subnormal one, because XLA treats it as 0."""
    up = np.nextafter(x, np.asarray(np.inf, x.dtype))
    tiny = np.finfo(x.dtype).tiny
    return np.where(np.abs(up) < tiny, np.where(x < 0, 0, tiny).astype(x.dtype), up)


def columns(who: str, name: str, table: Any) -> dict[Hashable, np.ndarray]:
    """The columns of a data frame, a mapping, or an array `[rows, columns]`, by their names or numbers."""
    is_array = isinstance(table, jax.Array | np.ndarray)
    if is_array and np.ndim(table) == 2:
        return dict(enumerate(np.asarray(table).T))
    names = None if is_array else table.keys() if hasattr(table, "keys") else getattr(table, "columns", None)
    if names is None:
        raise TypeError(
            f"{who} takes {name} as a data frame, a dict of columns or an array [rows, columns]; got "
            f"{type(table).__name__}{list(np.shape(table)) if is_array else ''}. Pass a dict of numpy arrays."
        )
    found = {}
    for key in names:
        x: Any = table[key]
        found[key] = np.asarray(x.to_numpy() if hasattr(x, "to_numpy") else x)
        if found[key].ndim != 1:
            raise ValueError(
                f"{who} takes columns [rows]; got {name}[{key!r}]{list(found[key].shape)}. Pass one axis a column."
            )
    return found


def same_columns(who: str, reference: dict[Hashable, np.ndarray], current: dict[Hashable, np.ndarray]) -> None:
    """Raises unless both tables have the same columns, at least one."""
    if reference.keys() != current.keys() or not reference:
        odd = sorted(map(repr, reference.keys() ^ current.keys()))
        raise ValueError(
            f"{who} takes tables of the same columns; got {', '.join(odd) or 'none'} in {'one' if odd else 'both'}. "
            "Select those to compare."
        )


def binned(reference: np.ndarray, current: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of two columns in the bins of the first one; the last two count unseen and missing values."""
    reference, current = _as_times(reference), _as_times(current)
    if reference.dtype.kind in "mM" and reference.dtype.kind == current.dtype.kind:
        unit = np.result_type(reference, current)  # for example one of days and one of nanoseconds
        reference, current = reference.astype(unit), current.astype(unit)
    old, new = _as_floats(reference), _as_floats(current)
    if old is None or new is None:
        return _by_category(reference, current)
    distinct = len(np.unique(old[~np.isnan(old)]))
    if distinct <= bins and bins * distinct <= np.sum(~np.isnan(old)):
        return _by_category(old, new)
    edges = quantile_edges(old, bins)
    missing = len(edges) + 2
    groups = (np.where(np.isnan(x), missing, np.searchsorted(edges, x, side="right")) for x in (old, new))
    first, second = (np.bincount(g, minlength=missing + 1) for g in groups)
    return first, second


def _as_times(x):
    """Objects that are all times, or all spans of time, without their zone; other columns as they are."""
    if x.dtype.kind != "O":
        return x
    missing = np.array([_is_missing(y) for y in x], bool)
    present = x[~missing]
    if present.size and all(isinstance(y, datetime.timedelta) for y in present):
        kind = "m8[us]"
    elif present.size and all(isinstance(y, datetime.date) for y in present):
        present, kind = [_in_utc(y) for y in present], "M8[us]"
    else:
        return x
    found = np.full(x.shape, "NaT", kind)
    found[~missing] = np.array(present, kind)
    return found


def _in_utc(y):
    return y.astimezone(datetime.UTC).replace(tzinfo=None) if getattr(y, "tzinfo", None) else y


def _as_floats(x):
    """Numbers and times as float64, nan where missing; None for other columns, also for booleans."""
    if x.dtype.kind in "mM":
        return np.where(np.isnat(x), np.nan, x.astype(np.int64))
    if x.dtype.kind == "O":
        missing = np.array([_is_missing(y) for y in x], bool)
        if all(isinstance(y, numbers.Real | decimal.Decimal) and not isinstance(y, bool) for y in x[~missing]):
            return np.where(missing, np.nan, np.where(missing, 0, x).astype(np.float64))
    return x.astype(np.float64) if x.dtype.kind in "iufV" else None


def _by_category(reference, current):
    values = [_present(x) for x in (reference, current)]
    number = {value: i for i, value in enumerate(dict.fromkeys(values[0][1]))}
    unseen = len(number)
    counts = []
    for missing, present in values:
        groups = np.fromiter((number.get(value, unseen) for value in present), np.int64, len(present))
        counts.append(np.append(np.bincount(groups, minlength=unseen + 1), missing))
    return counts[0], counts[1]


def _present(x):
    """The number of missing values, and the others as hashable objects."""
    present = [y for y in x.tolist() if not _is_missing(y)]
    return len(x) - len(present), present


def _is_missing(y):
    # A comparison with pandas.NA is neither True nor False.
    return y is None or type(y).__name__ in ("NAType", "NaTType") or y != y


def padded(counts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[columns, g]` of two tables; columns with fewer bins are padded with empty ones."""
    most = max(len(first) for first, _ in counts)
    stacked = np.stack([[np.pad(x, (0, most - len(x))) for x in pair] for pair in counts], 1)
    return stacked[0], stacked[1]


def correction(who: str, x: Any) -> Callable[[Any], Any]:
    """Raises unless x is a function (of p-values)."""
    if not callable(x):
        raise TypeError(
            f"{who} takes correction as a function of p-values [n]; got {x!r}. Pass metrics.holm or "
            "metrics.benjamini_hochberg."
        )
    return x

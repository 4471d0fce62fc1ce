"""Columns of tables, on the host: as arrays, the edges between their bins, and the counts of these."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxdiv._inputs.arrays import described, promoted


def column(who: str, name: str, x: Any) -> Any:
    """A column of numbers as an array; anything else as it is. pandas and polars have arrays by `to_numpy`."""
    if not isinstance(x, jax.Array) and hasattr(x, "to_numpy"):
        x = _numbers(x)
    if isinstance(x, np.ndarray | np.generic) and x.dtype.kind not in "biufcV":  # V: bfloat16
        raise TypeError(
            f"{who} takes numbers; got {name} {x.dtype}{list(x.shape)}. Compare columns of other things by "
            "metrics.drift_table."
        )
    return x


def _numbers(x):
    """Of a column whose missing values may be objects, nan for these."""
    found = x.to_numpy()
    if found.dtype != object:
        return found
    try:
        return x.to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):
        return found


def with_values(who: str, x: jax.Array) -> jax.Array:
    """An array that is not traced."""
    if isinstance(x, Tracer):
        raise TypeError(f"{who} takes values; got a traced array. Call it outside of jax.jit, once, on a reference.")
    return x


def increasing(who: str, edges: jax.Array) -> None:
    """Raises unless edges are one axis and, where they have values, increase."""
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
    """Counts `[g]` and the number of what is in none of the groups, in one dtype; of numpy, unless they are jax's."""
    counts, left_out = (
        x if isinstance(x, jax.Array) else np.asarray(column(who, name, x))
        for name, x in (("counts", counts), ("left_out", left_out))
    )
    if counts.ndim != 1 or counts.size == 0 or left_out.ndim:
        raise ValueError(
            f"{who} takes counts [g] of at least one group and left_out []; got {described('counts', counts)} and "
            f"{described('left_out', left_out)}. For a batch, use jax.vmap({who})."
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
    """At most `bins` - 1 increasing edges, two for a constant, between bins as nearly equal as the ties of x allow."""
    x = np.sort(np.where(np.abs(x) < np.finfo(x.dtype).tiny, 0, x)[~np.isnan(x)])
    if len(x) == 0:
        return x
    places = len(x) * np.arange(1, bins) / bins
    at = x[places.astype(int)]
    # A bin begins at a value or right above it, whichever leaves the share below nearer to what it should be. So a
    # value on which two quantiles fall is a bin of its own, as is the only one.
    below, through = (np.searchsorted(x, at, side) for side in ("left", "right"))
    edges = np.where(places - below <= through - places, at, _next(at))
    return np.unique([at[0], _next(at[0])] if x[0] == x[-1] else edges)


def _next(x):
    """The next float above, but no subnormal one, which XLA takes for 0."""
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
    """Counts of two columns in the bins of the first one; last come what it does not have, and what is missing."""
    if reference.dtype.kind in "mM" and reference.dtype.kind == current.dtype.kind:
        unit = np.result_type(reference, current)  # days and nanoseconds alike
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


def _as_floats(x):
    """Numbers and times as float64, nan where missing; None for other things, booleans among them."""
    if x.dtype.kind in "mM":
        return np.where(np.isnat(x), np.nan, x.astype(np.int64))
    if x.dtype.kind == "O":
        missing = np.array([_is_missing(y) for y in x], bool)
        if all(isinstance(y, int | float | np.number) and not isinstance(y, bool) for y in x[~missing]):
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
    """How many are missing, and the others, as hashable objects."""
    present = [y for y in x.tolist() if not _is_missing(y)]
    return len(x) - len(present), present


def _is_missing(y):
    # pandas.NA compares to neither True nor False.
    return y is None or type(y).__name__ in ("NAType", "NaTType") or y != y


def padded(counts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[columns, g]` of two tables, with bins of nothing where a column has fewer."""
    most = max(len(first) for first, _ in counts)
    stacked = np.stack([[np.pad(x, (0, most - len(x))) for x in pair] for pair in counts], 1)
    return stacked[0], stacked[1]


def correction(who: str, x: Any) -> Callable[[Any], Any]:
    """A function of p-values."""
    if not callable(x):
        raise TypeError(
            f"{who} takes correction as a function of p-values [n]; got {x!r}. Pass metrics.holm or "
            "metrics.benjamini_hochberg."
        )
    return x

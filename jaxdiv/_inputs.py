"""What comes in: conversion, promotion, and every message about a wrong rank, shape or dtype.

Only static facts are looked at, at trace time: a ValueError for a shape, a TypeError for a dtype, saying who complains,
what was expected, what came and what to do. Values are never looked at.

Half precision is computed in float32 and rounded once, by the caller of these functions, to the dtype they return.
"""

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

BATCH = "For a batch, use jax.vmap({who}), jaxdiv.pairwise or jaxdiv.losses."


def _for_a_batch(who, laws):
    """The remedies where no loss exists, for one law or a pair."""
    return f"For a batch, use jax.vmap({who}){' or jaxdiv.pairwise' if len(laws) == 2 else ''}."


def _describe(name, x):
    return f"{name}[{', '.join(map(str, x.shape))}]"


def array(who: str, name: str, x: ArrayLike) -> jax.Array:
    """`x` as an array of a floating-point dtype."""
    if not isinstance(x, jax.Array | np.ndarray | np.generic | numbers.Number):
        raise TypeError(
            f"{who} takes arrays; got {name} of type {type(x).__name__}. Convert with jax.numpy.asarray({name})."
        )
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{who} takes floating-point numbers; got {name} {x.dtype}{list(x.shape)}. Convert with "
            f"{name}.astype(jax.numpy.float32); counts become probabilities by jaxdiv.simplex.from_counts."
        )
    return x


def vectors(who: str, p: ArrayLike, q: ArrayLike) -> tuple[jax.Array, jax.Array, jnp.dtype]:
    """One pair of vectors `[k]`, as given, and the dtype of a result."""
    p, q = array(who, "p", p), array(who, "q", q)
    if p.ndim != 1 or p.shape != q.shape or p.size == 0:
        raise ValueError(
            f"{who} compares one pair of vectors of equal length; got {_describe('p', p)} and {_describe('q', q)}. "
            + BATCH.format(who=who)
        )
    return p, q, promoted(p, q)


def vector(who: str, p: ArrayLike, name: str = "p") -> jax.Array:
    """One vector `[k]`."""
    p = array(who, name, p)
    if p.ndim != 1 or p.size == 0:
        raise ValueError(f"{who} takes one vector; got {_describe(name, p)}. For a batch, use jax.vmap({who}).")
    return p


def scalars(who: str, p: ArrayLike, q: ArrayLike) -> tuple[jax.Array, jax.Array, jnp.dtype]:
    """One pair of scalars `[]`, as given, and the dtype of a result."""
    p, q = array(who, "p", p), array(who, "q", q)
    if p.ndim or q.ndim:
        raise ValueError(
            f"{who} compares one pair of scalars; got {_describe('p', p)} and {_describe('q', q)}. "
            + BATCH.format(who=who)
        )
    return p, q, promoted(p, q)


def scalar(who: str, p: ArrayLike) -> jax.Array:
    """One scalar `[]`."""
    p = array(who, "p", p)
    if p.ndim:
        raise ValueError(f"{who} takes one scalar; got {_describe('p', p)}. For a batch, use jax.vmap({who}).")
    return p


def counts(who: str, x: ArrayLike) -> jax.Array:
    """Counts of any shape but `[]`, integers converted to the default floating-point dtype."""
    if isinstance(x, jax.Array | np.ndarray) and jnp.issubdtype(x.dtype, jnp.integer):
        x = jnp.asarray(x).astype(jnp.asarray(0.0).dtype)
    x = array(who, "counts", x)
    if x.ndim == 0:
        raise ValueError(f"{who} takes an array of counts; got {_describe('counts', x)}. Pass one number to an event.")
    return x


def matrix(who: str, name: str, x: ArrayLike, shape: str) -> jax.Array:
    """One matrix, described by `shape` in the message."""
    x = array(who, name, x)
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"{who} takes {shape}; got {_describe(name, x)}. For a batch, use jax.vmap({who}).")
    return x


def square(who: str, name: str, x: ArrayLike) -> jax.Array:
    """One square matrix."""
    x = matrix(who, name, x, "a square matrix [n, n]")
    if x.shape[0] != x.shape[1]:
        raise ValueError(f"{who} takes a square matrix [n, n]; got {_describe(name, x)}. Score as many as there are.")
    return x


def laws(who: str, ps: ArrayLike, weights: ArrayLike | None) -> tuple[jax.Array, jax.Array]:
    """n laws `[n, k]` and their weights `[n]` in the working precision; equal weights by default."""
    ps = matrix(who, "ps", ps, "n laws stacked as [n, k]")
    n = ps.shape[0]
    if weights is None:
        return ps, jnp.full(n, 1 / n, working(ps))
    weights = array(who, "weights", weights)
    if weights.shape != (n,):
        raise ValueError(
            f"{who} takes one weight to a law; got {_describe('ps', ps)} and {_describe('weights', weights)}."
        )
    return ps, weights.astype(working(ps))


def promoted(*xs: jax.Array) -> jnp.dtype:
    """The dtype of the arrays together, also where the user forbids implicit promotion: here it is meant."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*xs)


def working(*xs: jax.Array) -> jnp.dtype:
    """The dtype to compute in: that of the arrays together, at least float32."""
    found = promoted(*xs)
    return found if jnp.finfo(found).bits > 32 else jnp.dtype(jnp.float32)


def number(who: str, name: str, x: ArrayLike, like: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """A real number as an array of the rank of `like`, all axes of length 1."""
    if not isinstance(x, jax.Array | np.ndarray | np.generic | numbers.Number):
        raise TypeError(f"{who} takes {name} as a number; got {type(x).__name__}. Pass a float.")
    x = jnp.asarray(x)
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise TypeError(f"{who} takes {name} as a real number; got {x.dtype}. Pass a float.")
    if x.ndim:
        raise ValueError(
            f"{who} takes {name} as one number; got {_describe(name, x)}. For several, use jax.vmap over {name}."
        )
    return x.astype(dtype).reshape((1,) * like.ndim)


def is_default(x: ArrayLike, default: float) -> bool:
    """Whether `x` is a Python number equal to `default`: known while tracing, so that a cheaper form may be taken."""
    return isinstance(x, int | float) and not isinstance(x, bool) and x == default


def one_of(who: str, name: str, x: Any, known: tuple[Any, ...]) -> Any:
    """`x`, if it is one of a few numbers or names."""
    if x not in known:
        raise ValueError(f"{who} takes {name} as one of {', '.join(map(str, known))}; got {x!r}. Pass one of these.")
    return x


def temperature(who: str, x: ArrayLike, like: jax.Array, dtype: jnp.dtype) -> jax.Array | None:
    """A temperature as `number`; None for 1."""
    return None if is_default(x, 1) else number(who, "temperature", x, like, dtype)


def raise_for_rows(who: str, rows: np.ndarray, faults: dict[str, Callable[[np.ndarray], Any]]) -> None:
    """A ValueError that names the rows, by their index on the leading axes, of every fault that occurs."""
    found = {fault: np.argwhere(np.asarray(where(rows))) for fault, where in faults.items()}
    found = {fault: indices for fault, indices in found.items() if len(indices)}
    if not found:
        return
    parts = []
    for fault, indices in found.items():
        named = ", ".join(
            str(tuple(map(int, index))) if index.size != 1 else str(int(index[0])) for index in indices[:5]
        )
        parts.append(
            f"{fault} in {len(indices)} of {rows[..., 0].size} rows: {named}{', ...' if len(indices) > 5 else ''}"
        )
    raise ValueError(f"{who} found {'; '.join(parts)}.")


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


def result_of_pair(who: str, divergence: Callable[[Any, Any], Any], ps: Any, qs: Any) -> jnp.dtype:
    """The dtype of the divergence of one pair of two batches of laws."""
    pair = [jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), laws) for laws in (ps, qs)]
    # A function of its own: jax keeps a weak reference, which not every callable allows.
    found = jax.eval_shape(lambda p, q: divergence(p, q), *pair)
    if not isinstance(found, jax.ShapeDtypeStruct) or found.shape:
        got = jax.tree.map(lambda x: list(x.shape), found)
        raise ValueError(f"{who} takes a divergence of one pair that is a scalar array; got {got}. Sum it, or vmap.")
    return found.dtype


def one_batch_if(symmetric: bool, who: str, qs: Any) -> None:
    """Raises for a second batch where there must be none."""
    if symmetric and qs is not None:
        raise ValueError(f"{who} takes symmetric=True for all pairs of one batch; got qs as well. Leave out one.")


def at_most(who: str, name: str, x: int, most: int, of: str) -> None:
    """Raises unless the integer x is between 1 and a number of things."""
    if not 1 <= x <= most:
        raise ValueError(f"{who} takes {name} between 1 and the number of {of}; got {name} = {x} and {most} {of}.")


def progress_bar(who: str, *laws: Any) -> Callable[[Sequence[Any]], Iterable[Any]]:
    """tqdm, for a loop on the host."""
    if any(isinstance(x, Tracer) for x in jax.tree.leaves(laws)):
        raise ValueError(f"{who} takes progress=True for arrays with values; got traced ones. Call it outside of jit.")
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(f"{who} takes tqdm to show progress; got none. pip install 'jaxdiv[notebooks]'.") from error
    return tqdm


def matrices(who: str, ps: ArrayLike, qs: ArrayLike) -> tuple[jax.Array, jax.Array, jnp.dtype]:
    """Batches of vectors `[n, k]` and `[m, k]` in the working precision, and the dtype of a result."""
    p, q = array(who, "ps", ps), array(who, "qs", qs)
    if p.ndim != 2 or q.ndim != 2 or p.shape[1] != q.shape[1]:
        raise ValueError(
            f"{who} takes batches [n, k] and [m, k] of equal k; got {_describe('ps', p)} and {_describe('qs', q)}. "
            "One law is a batch of one."
        )
    (p, q), dtype = _same_working((p, q))
    return p, q, dtype


def batch(
    who: str, p: Mapping[str, ArrayLike], q: Mapping[str, ArrayLike], axis: int | tuple[int, ...]
) -> tuple[jax.Array, jax.Array, tuple[int, ...], jnp.dtype]:
    """Two named arrays of equal shape, their axes of events, and the dtype of a result."""
    ((p_name, p_given),), ((q_name, q_given),) = p.items(), q.items()
    (x, y), dtype = alike(who, **{p_name: p_given, q_name: q_given})
    axes = distinct_axes(who, p_name, x, axis)
    return x, y, axes, dtype


def alike(who: str, **arrays: ArrayLike) -> tuple[list[jax.Array], jnp.dtype]:
    """Arrays of equal shape, as given, and the dtype of a result."""
    found = {name: array(who, name, x) for name, x in arrays.items()}
    _same_shape(who, found)
    return list(found.values()), promoted(*found.values())


def _same_shape(who, arrays):
    if len({x.shape for x in arrays.values()}) > 1:
        got = " and ".join(_describe(name, x) for name, x in arrays.items())
        raise ValueError(f"{who} takes arrays of equal shape; got {got}. Broadcast one with jax.numpy.broadcast_to.")


def distinct_axes(who: str, name: str, x: jax.Array, axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """Distinct axes of `x` that are not empty, counted from the first."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    if not axes or any(not isinstance(a, int) or not -x.ndim <= a < x.ndim for a in axes):
        raise ValueError(
            f"{who} takes the axis of the events, or a tuple of them; got axis={axis} for {_describe(name, x)}. "
            f"Pass an axis between {-x.ndim} and {x.ndim - 1}."
        )
    axes = tuple(a % x.ndim for a in axes)
    if len(set(axes)) < len(axes) or any(x.shape[a] == 0 for a in axes):
        raise ValueError(
            f"{who} takes distinct axes with at least one event; got axis={axis} for {_describe(name, x)}."
        )
    return axes


def _broadcasts(shape, full):
    return len(shape) <= len(full) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(full), strict=False))


def mask(who: str, where: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """A mask broadcast to `shape`."""
    where = jnp.asarray(where)
    if where.dtype != bool:
        raise TypeError(f"{who} takes a boolean mask; got where {where.dtype}{list(where.shape)}. Compare it with 0.")
    if not _broadcasts(where.shape, shape):
        raise ValueError(
            f"{who} takes a mask that broadcasts against the inputs; got {_describe('where', where)} for {list(shape)}."
            " Add axes of length 1 with jax.numpy.expand_dims."
        )
    return jnp.broadcast_to(where, shape)


def weights(
    who: str, weights: ArrayLike | None, where: ArrayLike | None, shape: tuple[int, ...], dtype: jnp.dtype
) -> jax.Array:
    """Weights broadcast to `shape`, 0 where masked; 1 by default."""
    w = jnp.ones(shape, dtype)
    if weights is not None:
        given = array(who, "weights", weights)
        if not _broadcasts(given.shape, shape):
            raise ValueError(
                f"{who} takes weights that broadcast against what they weigh; got {_describe('weights', given)} for "
                f"{list(shape)}. Add axes of length 1 with jax.numpy.expand_dims."
            )
        w = jnp.broadcast_to(given.astype(dtype), shape)
    return w if where is None else jnp.where(mask(who, where, shape), w, 0)


def of_one_draw(who: str, name: str, values: jax.Array) -> jax.Array:
    """Log-densities `[n]` of n draws."""
    if values.ndim != 1:
        raise ValueError(
            f"{who} takes {name} as a function of one draw with one number, [], as its result; got "
            f"{list(values.shape[1:])}. Sum independent components."
        )
    return values


def choice(who: str, name: str, known: Mapping[str, tuple[str, ...]], parameters: Mapping[str, Any]) -> None:
    """Raises unless `name` is known and the parameters are those that go with it."""
    if name not in known:
        raise ValueError(f"{who} takes the name of a divergence; got {name!r}. Pass one of {', '.join(known)}.")
    if set(parameters) != set(known[name]):
        expected, got = (" and ".join(names) or "no parameter" for names in (known[name], parameters))
        raise ValueError(f"{who} takes {name} with {expected}; got {got}. Pass numbers by keyword.")


def points(who: str, k: int, xs: ArrayLike, ys: ArrayLike) -> tuple[list[jax.Array], jnp.dtype]:
    """Points `[n, d]` and `[m, d]`, more than k and at least k, in the working precision, and a result's dtype."""
    xs, ys = (matrix(who, name, x, "points as [n, d]") for name, x in (("xs", xs), ("ys", ys)))
    if xs.shape[1] != ys.shape[1] or not isinstance(k, int) or not 0 < k < len(xs) or k > len(ys):
        raise ValueError(
            f"{who} takes points of equal dimension, more than an integer k >= 1 of the first and k of the second law; "
            f"got k = {k}, {_describe('xs', xs)} and {_describe('ys', ys)}. Pass more points, or a smaller k."
        )
    return _same_working([xs, ys])


def observations(
    who: str,
    count: tuple[int, ...],
    values: ArrayLike,
    weights: ArrayLike | None,
    where: ArrayLike | None,
    groups: ArrayLike | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """Values, their weights, mask and groups, all `[n]`, for an accumulator of shape `count`."""
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
    _same_shape(who, given)
    return values.ravel(), weights.ravel(), keep.ravel(), None if groups is None else jnp.asarray(groups).ravel()


def same_groups(who: str, **sums: jax.Array) -> None:
    """Raises unless all are `[g]`."""
    if {x.ndim for x in sums.values()} != {1} or len({x.shape for x in sums.values()}) > 1:
        got = " and ".join(_describe(name, x) for name, x in sums.items())
        raise ValueError(f"{who} takes states of equally many groups; got {got}. For a batch, use jax.vmap({who}).")


def law(who: str, name: str, x: Any, forms: tuple[type, ...]) -> Any:
    """A law of one of several forms, its fields floating-point arrays."""
    if not isinstance(x, forms):
        known = ", ".join(form.__name__ for form in forms)
        got = _describe(name, x) if isinstance(x, jax.Array) else f"{name} of type {type(x).__name__}"
        raise TypeError(f"{who} takes a law as {known}; got {got}. Construct one of them.")
    return type(x)(*(array(who, f"{name}.{field}", value) for field, value in zip(x._fields, x, strict=True)))


def _fields(**laws):
    return {f"{name}.{field}": x for name, law in laws.items() for field, x in zip(law._fields, law, strict=True)}


def _same_working(laws):
    """The laws in the working precision, and the dtype of a result."""
    leaves = jax.tree.leaves(laws)
    work = working(*leaves)
    return jax.tree.map(lambda x: x.astype(work), laws), promoted(*leaves)


def components(who: str, forms: tuple[type, ...], **laws: Any) -> tuple[dict[str, Any], jnp.dtype]:
    """Laws of independent components, fields `[]` or `[d]`, as `[d]` in the working precision, and a result's dtype."""
    laws = {name: law(who, name, x, forms) for name, x in laws.items()}
    fields = _fields(**laws)
    shapes = {np.broadcast_shapes(*(np.shape(x) for x in law)) for law in laws.values() if _broadcast(law)}
    if any(x.ndim > 1 for x in fields.values()) or len(shapes) != 1 or not all(map(_broadcast, laws.values())):
        got = " and ".join(_describe(name, x) for name, x in fields.items())
        raise ValueError(
            f"{who} takes laws of equal length, each field [] or [d]; got {got}. " + _for_a_batch(who, laws)
        )
    (shape,) = shapes
    if 0 in shape:
        raise ValueError(f"{who} takes laws of at least one component; got d = 0. Leave empty laws out.")
    wide, dtype = _same_working(laws)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape or (1,)), wide), dtype


def _broadcast(law):
    lengths = {x.shape[-1] for x in law if x.ndim} - {1}
    return len(lengths) <= 1


def one_component(who: str, x: jax.Array) -> None:
    """Raises unless `x` `[d]` has d = 1."""
    if x.shape[-1] != 1:
        raise ValueError(
            f"{who} takes laws of one component; got d = {x.shape[-1]}. For a batch, use jax.vmap({who}) or "
            "jaxdiv.pairwise."
        )


def matrix_laws(who: str, forms: tuple[type, ...], **laws: Any) -> tuple[dict[str, Any], jnp.dtype]:
    """Laws of dimension d: `[d]`, a matrix, and more, in the working precision, and the dtype of a result."""
    laws = {name: law(who, name, x, forms) for name, x in laws.items()}
    dimensions = {x[0].shape for x in laws.values()}
    if len(dimensions) != 1 or not all(map(_is_matrix_law, laws.values())):
        got = " and ".join(_describe(name, x) for name, x in _fields(**laws).items())
        raise ValueError(
            f"{who} takes laws of equal dimension d >= 1, loc [d] and a square matrix [d, d], or factor [d, r] and "
            f"diag [d]; got {got}. " + _for_a_batch(who, laws)
        )
    return _same_working(laws)


def _is_matrix_law(law):
    loc, matrix, *diag = (x.shape for x in law)
    if len(loc) != 1 or loc == (0,) or len(matrix) != 2 or matrix[0] != loc[0]:
        return False
    return diag == [loc] if diag else matrix[1] == loc[0]


def parameters(who: str, p: Any, q: Any) -> tuple[Any, Any, jnp.dtype]:
    """Two structures of arrays of equal shapes, in the working precision, and the dtype of a result."""
    (p_leaves, p_structure), (q_leaves, q_structure) = jax.tree.flatten(p), jax.tree.flatten(q)
    p_leaves, q_leaves = ([array(who, name, x) for x in xs] for name, xs in (("p", p_leaves), ("q", q_leaves)))
    if p_structure != q_structure or not p_leaves or [x.shape for x in p_leaves] != [x.shape for x in q_leaves]:
        got = [", ".join(_describe(name, x) for x in xs) for name, xs in (("p", p_leaves), ("q", q_leaves))]
        raise ValueError(
            f"{who} compares natural parameters of one structure and equal shapes; got {got[0]} and {got[1]}. For a "
            f"batch, use jax.vmap over functools.partial({who}, log_normalizer)."
        )
    (p, q), dtype = _same_working([jax.tree.unflatten(p_structure, xs) for xs in (p_leaves, q_leaves)])
    return p, q, dtype


def mixtures(
    who: str, form: type, families: tuple[tuple[type, ...], ...], **mixtures: Any
) -> tuple[dict[str, Any], jnp.dtype]:
    """Mixtures of laws of one of two families, of independent components and not, and the dtype of a result."""
    found = {name: _mixture(who, name, x, form, families) for name, x in mixtures.items()}
    dimensions = {x.components[0].shape[1:] or (1,) for x in found.values()}
    if len(dimensions) != 1 or not all(_is_mixture(x, families[0]) for x in found.values()):
        got = " and ".join(
            ", ".join(
                [
                    _describe(f"{name}.logits", x.logits),
                    *(f"{field}{list(y.shape)}" for field, y in zip(x.components._fields, x.components, strict=True)),
                ]
            )
            for name, x in found.items()
        )
        raise ValueError(
            f"{who} takes mixtures of equal dimension d >= 1 with logits [n] and n components stacked along a first "
            f"axis: loc [n] or [n, d] with a scale of that shape, or loc [n, d] with a matrix [n, d, d], or factor "
            f"[n, d, r] and diag [n, d]; got {got}. For a batch, use jax.vmap({who})."
        )
    return _same_working(found)


def _mixture(who, name, x, form, families):
    if not isinstance(x, form):
        raise TypeError(f"{who} takes a mixture as {form.__name__}; got {name} of type {type(x).__name__}.")
    components = law(who, f"{name}.components", x.components, sum(families, ()))
    return form(array(who, f"{name}.logits", x.logits), components)


def _is_mixture(mixture, independent):
    logits, components = mixture
    n, loc = logits.shape, components[0].shape
    if len(n) != 1 or n == (0,) or loc[:1] != n or 0 in loc:
        return False
    if isinstance(components, independent):
        return len(loc) <= 2 and components[1].shape == loc
    matrix, *diag = (x.shape for x in components[1:])
    if len(loc) != 2 or len(matrix) != 3 or matrix[:2] != loc:
        return False
    return diag == [loc] if diag else matrix[2] == loc[1]


def kronecker_laws(who: str, forms: tuple[type, ...], **laws: Any) -> tuple[dict[str, Any], jnp.dtype]:
    """Laws of matrices: `[n, m]`, `[n, n]` and `[m, m]`, in the working precision, and the dtype of a result."""
    laws = {name: law(who, name, x, forms) for name, x in laws.items()}
    shapes = {x[0].shape for x in laws.values()}
    if len(shapes) != 1 or not all(map(_is_kronecker_law, laws.values())):
        got = " and ".join(_describe(name, x) for name, x in _fields(**laws).items())
        raise ValueError(
            f"{who} takes laws of equal shape, loc [n, m] with square matrices [n, n] and [m, m]; got {got}. "
            + _for_a_batch(who, laws)
        )
    return _same_working(laws)


def _is_kronecker_law(law):
    loc, rows, columns = (x.shape for x in law)
    return len(loc) == 2 and 0 not in loc and rows == (loc[0], loc[0]) and columns == (loc[1], loc[1])


# ---------------------------------------------------------------- training


def labels(who: str, labels: jax.Array, shape: tuple[int, ...], axis: Any) -> None:
    """Raises unless the labels are integers, one to an example of logits of that shape."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"{who} takes integer labels; got labels {labels.dtype}{list(labels.shape)}. Convert with argmax."
        )
    if not isinstance(axis, int) or not -len(shape) <= axis < len(shape):
        raise ValueError(f"{who} takes labels for one axis; got axis={axis} for logits{list(shape)}. Pass an integer.")
    expected = shape[: axis % len(shape)] + shape[axis % len(shape) + 1 :]
    if labels.shape != expected:
        raise ValueError(
            f"{who} takes one label to an example, labels{list(expected)}; got {_describe('labels', labels)} for "
            f"logits{list(shape)}. Drop the axis of the classes."
        )


def setting(who: str, name: str, x: Any, low: float, high: float = np.inf, *, closed: str = "[]") -> None:
    """Raises for a number outside of an interval, with or without its ends, that is known before anything is traced."""
    if isinstance(x, int | float | np.integer | np.floating):
        above = low <= x if closed[0] == "[" else low < x
        below = x <= high if closed[1] == "]" else x < high
        if not (above and below):
            interval = f"{closed[0]}{low}, {high}{closed[1]}"
            raise ValueError(f"{who} takes {name} in {interval}; got {x}. Pass a number of that interval.")


def one_to_an_example(who: str, values: jax.Array, x: jax.Array) -> jax.Array:
    """Divergences `[n]`, of inputs `[n, ...]`."""
    if x.ndim == 0 or values.shape != x.shape[:1]:
        raise ValueError(
            f"{who} takes divergences {list(x.shape[:1])}, one to an example; got {list(values.shape)}. Do not reduce "
            "them."
        )
    return values


def measure(who: str, params: Any, divergence: Callable[[Any], jax.Array] | None) -> Callable[[Any], jax.Array]:
    """The function that measures an update, which needs the parameters too; its result is checked."""
    if params is None:
        raise TypeError(
            f"{who} needs the parameters; got None. Call optimizer.update(gradients, state, params, divergence=...)."
        )
    if not callable(divergence):
        raise TypeError(
            f"{who} needs the extra argument divergence, a function of new parameters; got "
            f"{type(divergence).__name__}. Call optimizer.update(gradients, state, params, divergence=...)."
        )

    def measured(new):
        value = jnp.asarray(divergence(new))
        if value.ndim:
            raise ValueError(
                f"{who} takes a divergence whose result is one number, []; got {list(value.shape)}. Reduce it, as with "
                "jaxdiv.losses.mean."
            )
        return value

    return measured


# ---------------------------------------------------------------- vocabularies


def head(who: str, names: Sequence[str], hidden: ArrayLike, head: ArrayLike, class_axis: int) -> None:
    """Raises unless hidden states `[..., h]` and a head go together."""
    x, w = array(who, names[0], hidden), array(who, names[1], head)
    got = f"{_describe(names[0], x)} {x.dtype} and {_describe(names[1], w)} {w.dtype} with class_axis={class_axis}"
    if class_axis not in (0, 1) or w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[1 - class_axis] or w.size == 0:
        raise ValueError(
            f"{who} takes hidden states [..., h] and a head [h, v], or [v, h] with class_axis=0; got {got}. Transpose "
            "the head."
        )
    if x.dtype != w.dtype:
        raise TypeError(f"{who} takes hidden states and a head of one dtype; got {got}. Convert one with astype.")


def bias(who: str, name: str, bias: ArrayLike | None, classes: int) -> None:
    """Raises unless a bias has one number to a class."""
    if bias is not None and np.shape(bias) != (classes,):
        raise ValueError(
            f"{who} takes a bias with one number to a class of the head, [{classes}]; got {name}"
            f"{list(np.shape(bias))}. Pass None for none."
        )


def memory(who: str, memory: Any) -> int:
    """A positive number of bytes, static."""
    if not isinstance(memory, int | np.integer) or memory < 1:
        raise ValueError(f"{who} takes memory as a positive integer, in bytes; got {memory}. The default is 2**26.")
    return int(memory)


def results_of_tokens(who: str, results: Any, tokens: int, one: bool) -> None:
    """Raises unless a divergence has one result to a token, or a tree of such."""
    for x in jax.tree.leaves(results):
        if np.shape(x)[:1] != (tokens,):
            raise ValueError(
                f"{who} takes a divergence with a result to a token, [{tokens}] for {tokens} tokens; got "
                f"{list(np.shape(x))}. Do not reduce within it."
            )
    got = [list(np.shape(x)) for x in jax.tree.leaves(results)]
    if one and (got != [[tokens]] or not isinstance(results, jax.Array)):
        raise ValueError(
            f"{who} takes a divergence with one number to a token, [{tokens}] for {tokens} tokens; got {got}. "
            "fused.linear_divergence takes trees of results."
        )


def of_tokens(who: str, name: str, tree: Any, lead: tuple[int, ...]) -> None:
    """Raises unless every array of the tree has the leading axes of the tokens."""
    for leaf in jax.tree.leaves(tree):
        if np.shape(leaf)[: len(lead)] != lead:
            raise ValueError(
                f"{who} takes what belongs to tokens with the leading axes of student_hidden, {list(lead)}; got "
                f"{name}{list(np.shape(leaf))}. Move the axes of the tokens first."
            )


def classes(who: str, where: ArrayLike | None, sizes: list[int]) -> jax.Array | None:
    """A mask of classes, as long as the longest vocabulary; vocabularies of different length need one."""
    if where is None:
        if len(set(sizes)) > 1:
            raise ValueError(
                f"{who} takes vocabularies of equal length; got {sizes}. Where one is padded, pass "
                f"where=jax.numpy.arange({max(sizes)}) < {min(sizes)}."
            )
        return None
    where = jnp.asarray(where)
    if where.dtype != bool or where.shape != (max(sizes),):
        raise ValueError(
            f"{who} takes where as one boolean to a class, [{max(sizes)}]; got where {where.dtype}"
            f"{list(where.shape)}. For tokens that do not count, pass weights."
        )
    return where


def likeliest(who: str, k: Any, classes: int) -> int:
    """How many of some classes, static."""
    if not isinstance(k, int | np.integer) or not 1 <= k <= classes:
        raise ValueError(f"{who} takes k from 1 to the number of classes, {classes}; got {k}. Take fewer.")
    return int(k)


def indices(who: str, indices: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Integer classes `[..., k]` of logits of that shape."""
    indices = jnp.asarray(indices)
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(
            f"{who} takes integer indices; got indices {indices.dtype}{list(indices.shape)}. Convert with "
            "indices.astype(int)."
        )
    if not shape or indices.ndim != len(shape) or indices.shape[:-1] != shape[:-1]:
        raise ValueError(
            f"{who} takes indices [..., k] with the leading axes of the logits; got {_describe('indices', indices)} "
            f"for logits{list(shape)}. One class to an example is indices[..., None]."
        )
    return indices.astype(int)  # the number of classes may not fit in a file's uint8 or uint16


def top_k(who: str, top_k: Any, shape: tuple[int, ...]) -> jax.Array:
    """The indices of a `topk.TopK` for logits of that shape."""
    if not hasattr(top_k, "log_tail"):
        raise TypeError(
            f"{who} takes targets as a topk.TopK; got {type(top_k).__name__}. Logits become one by topk.from_logits."
        )
    found = indices(who, top_k.indices, shape)
    tail = found.shape[:-1] if top_k.log_tail is None else np.shape(top_k.log_tail)
    if np.shape(top_k.log_probs) != found.shape or tail != found.shape[:-1]:
        fields = zip(top_k._fields, top_k, strict=True)
        got = ", ".join(f"{name}{list(np.shape(x))}" for name, x in fields if x is not None)
        raise ValueError(
            f"{who} takes a log-probability to an index and one log_tail to an example; got {got}. What is missing to "
            "one is the tail where log_tail is None."
        )
    return found

"""Arrays, numbers, axes, masks and weights: conversion, promotion, and checks of rank and shape."""

import numbers
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

_WITH_A_LOSS = {
    "categorical": ("kl", "jeffreys", "js", "renyi", "amari", "squared_hellinger", "total_variation", "cross_entropy"),
    "bernoulli": ("kl",),
}
_WITH_A_LOSS["simplex"] = _WITH_A_LOSS["categorical"]  # by losses.with_probs


def for_a_batch(who, laws):
    """The remedies for a batch, for functions of one law or of a pair that have no loss."""
    return f"For a batch, use jax.vmap({who}){' or jaxdiv.pairwise' if len(laws) == 2 else ''}."


def described(name, x):
    return f"{name}[{', '.join(map(str, x.shape))}]"


def any_array(who: str, name: str, x: ArrayLike) -> jax.Array:
    """`x` as a jax array of any dtype."""
    if not isinstance(x, jax.Array | np.ndarray | np.generic | numbers.Number):
        sparse = hasattr(x, "todense") or hasattr(x, "toarray")
        remedy = f"Convert with {name}.todense()" if sparse else f"Convert with jax.numpy.asarray({name})"
        remedy = "Pass numbers" if x is None or isinstance(x, str | bytes) else remedy
        raise TypeError(f"{who} takes arrays; got {name} of type {type(x).__name__}. {remedy}.")
    if isinstance(x, np.ndarray | np.generic) and x.dtype.kind not in "biufcV":  # V: bfloat16
        raise TypeError(f"{who} takes numbers; got {name} {x.dtype}{list(x.shape)}. Convert with {name}.astype(float).")
    return jnp.asarray(x)


def array(who: str, name: str, x: ArrayLike) -> jax.Array:
    """`x` as an array of a floating-point dtype."""
    x = any_array(who, name, x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        of_counts = "; counts become probabilities by jaxdiv.simplex.from_counts"
        raise TypeError(
            f"{who} takes floating-point numbers; got {name} {x.dtype}{list(x.shape)}. Convert with "
            f"jax.numpy.asarray({name}).astype(jax.numpy.float32){of_counts if _may_be_counts(who, name, x) else ''}."
        )
    return x


def _may_be_counts(who, name, x):
    """Whether integers in place of floating-point numbers can be counts of events."""
    of_probabilities = who.startswith("simplex.") or name == "target_probs"
    return of_probabilities and name != "counts" and jnp.issubdtype(x.dtype, jnp.integer)


def vectors(
    who: str, p: ArrayLike, q: ArrayLike, names: tuple[str, str] = ("p", "q")
) -> tuple[jax.Array, jax.Array, jnp.dtype]:
    """One pair of vectors `[k]`, as given, and the dtype of a result."""
    p, q = (array(who, name, x) for name, x in zip(names, (p, q), strict=True))
    if p.ndim != 1 or p.shape != q.shape or p.size == 0:
        got = " and ".join(described(name, x) for name, x in zip(names, (p, q), strict=True))
        remedy = _several(max(p, q, key=lambda x: x.ndim), _for_pairs(who))
        if p.ndim == q.ndim == 1 and p.size and q.size:
            remedy = "Pass one number for each event in both."
        raise ValueError(f"{who} compares one pair of vectors of equal length; got {got}. {remedy}")
    return p, q, promoted(p, q)


def _for_pairs(who):
    """What compares a batch of pairs."""
    module, verb = who.split(".")[-2:]
    known = [f"jax.vmap({who})", "jaxdiv.pairwise", *["jaxdiv.losses"] * (verb in _WITH_A_LOSS.get(module, ()))]
    return f"{', '.join(known[:-1])} or {known[-1]}"


def vector(who: str, p: ArrayLike, name: str = "p", *, least: int = 1) -> jax.Array:
    """One vector `[k]` of at least `least` numbers."""
    p = array(who, name, p)
    if p.ndim != 1 or p.size < least:
        raise ValueError(f"{who} takes one vector; got {described(name, p)}. {_several(p, f'jax.vmap({who})')}")
    return p


def _several(x, of_a_batch):
    """The remedy for an array of the wrong rank, or with nothing on one of its axes."""
    if x.ndim == 0:
        return "Pass one number for each event; jaxdiv.bernoulli takes one logit for two events."
    return f"For a batch, use {of_a_batch}." if x.size else "Pass at least one number."


def scalars(who: str, p: ArrayLike, q: ArrayLike) -> tuple[jax.Array, jax.Array, jnp.dtype]:
    """One pair of scalars `[]`, as given, and the dtype of a result."""
    p, q = array(who, "p", p), array(who, "q", q)
    if p.ndim or q.ndim:
        raise ValueError(
            f"{who} compares one pair of scalars; got {described('p', p)} and {described('q', q)}. "
            f"For a batch, use {_for_pairs(who)}."
        )
    return p, q, promoted(p, q)


def scalar(who: str, p: ArrayLike) -> jax.Array:
    """One scalar `[]`."""
    p = array(who, "p", p)
    if p.ndim:
        raise ValueError(f"{who} takes one scalar; got {described('p', p)}. For a batch, use jax.vmap({who}).")
    return p


def counts(who: str, x: ArrayLike) -> jax.Array:
    """Counts of any shape except `[]`; integers are converted to the default floating-point dtype."""
    if isinstance(x, jax.Array | np.ndarray) and jnp.issubdtype(x.dtype, jnp.integer):
        x = jnp.asarray(x).astype(jnp.asarray(0.0).dtype)
    x = array(who, "counts", x)
    if x.ndim == 0:
        raise ValueError(f"{who} takes an array of counts; got {described('counts', x)}. Pass one number to an event.")
    return x


def matrix(who: str, name: str, x: ArrayLike, shape: str) -> jax.Array:
    """One matrix; the message describes it by `shape`."""
    x = array(who, name, x)
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"{who} takes {shape}; got {described(name, x)}. {_several(x, f'jax.vmap({who})')}")
    return x


def square(who: str, name: str, x: ArrayLike) -> jax.Array:
    """One square matrix."""
    x = matrix(who, name, x, "a square matrix [n, n]")
    if x.shape[0] != x.shape[1]:
        raise ValueError(f"{who} takes a square matrix [n, n]; got {described(name, x)}. Score as many as there are.")
    return x


def weighted_laws(who: str, ps: ArrayLike, weights: ArrayLike | None) -> tuple[jax.Array, jax.Array]:
    """n laws `[n, k]`, and their weights `[n]` divided by their sum, in the working precision; equal by default."""
    ps = matrix(who, "ps", ps, "n laws stacked as [n, k]")
    n = ps.shape[0]
    if weights is None:
        return ps, jnp.full(n, 1 / n, working(ps))
    weights = array(who, "weights", weights)
    if weights.shape != (n,):
        raise ValueError(
            f"{who} takes one weight to a law; got {described('ps', ps)} and {described('weights', weights)}."
        )
    return ps, shares(weights.astype(working(ps)))


def shares(weights: jax.Array) -> jax.Array:
    """Weights divided by their sum, also where that would overflow or, as in XLA, its inverse would be subnormal."""
    many = 2.0 ** (weights.size.bit_length() + 3)
    huge = jnp.max(jax.lax.stop_gradient(weights)) > float(jnp.finfo(weights.dtype).max) / many
    weights = weights / jnp.where(huge, many, 1).astype(weights.dtype)
    return weights / jnp.sum(weights)


def promoted(*xs: jax.Array) -> jnp.dtype:
    """The promoted dtype of the arrays, even if the user forbids implicit promotion: this one is explicit."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*xs)


def working(*xs: jax.Array) -> jnp.dtype:
    """The dtype to compute in: the promoted dtype of the arrays, at least float32."""
    found = promoted(*xs)
    return found if jnp.finfo(found).bits > 32 else jnp.dtype(jnp.float32)


def no_wide_integer(x: Any) -> Any:
    """A Python integer beyond 32 bits as a float; anything else as it is."""
    return float(x) if type(x) is int and not -(2**31) <= x < 2**31 else x


def number(who: str, name: str, x: ArrayLike, like: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """A real number as an array with the rank of `like`, with all axes of length 1."""
    if not isinstance(x, jax.Array | np.ndarray | np.generic | numbers.Number):
        raise TypeError(f"{who} takes {name} as a number; got {type(x).__name__}. Pass a float.")
    x = jnp.asarray(no_wide_integer(x))
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise TypeError(f"{who} takes {name} as a real number; got {x.dtype}. Pass a float.")
    if x.ndim:
        raise ValueError(
            f"{who} takes {name} as one number; got {described(name, x)}. For several, use jax.vmap over {name}."
        )
    return x.astype(dtype).reshape((1,) * like.ndim)


def is_default(x: ArrayLike, default: float) -> bool:
    """Whether `x` is a Python number equal to `default`. This is known while tracing, so a cheaper form can be used."""
    return isinstance(x, int | float) and not isinstance(x, bool) and x == default


def one_of(who: str, name: str, x: Any, known: tuple[Any, ...]) -> Any:
    """`x`, if it is one of the `known` numbers or names."""
    if x not in known:
        raise ValueError(f"{who} takes {name} as one of {', '.join(map(str, known))}; got {x!r}. Pass one of these.")
    return x


def temperature(who: str, x: ArrayLike, like: jax.Array, dtype: jnp.dtype) -> jax.Array | None:
    """A temperature as `number`; None for 1."""
    return None if is_default(x, 1) else number(who, "temperature", x, like, dtype)


def matrices(who: str, ps: ArrayLike, qs: ArrayLike) -> tuple[jax.Array, jax.Array, jnp.dtype]:
    """Batches of vectors `[n, k]` and `[m, k]` in the working precision, and the dtype of a result."""
    p, q = array(who, "ps", ps), array(who, "qs", qs)
    if p.ndim != 2 or q.ndim != 2 or p.shape[1] != q.shape[1]:
        raise ValueError(
            f"{who} takes batches [n, k] and [m, k] of equal k; got {described('ps', p)} and {described('qs', q)}. "
            "One law is a batch of one."
        )
    (p, q), dtype = in_working_precision((p, q))
    return p, q, dtype


def batch(
    who: str, p: tuple[str, ArrayLike], q: tuple[str, ArrayLike], axis: int | tuple[int, ...]
) -> tuple[list[jax.Array], tuple[int, ...], jnp.dtype]:
    """Two named arrays of equal shape, their axes of events, and the dtype of a result."""
    arrays, dtype = alike(who, **dict((p, q)))
    return arrays, distinct_axes(who, p[0], arrays[0], axis), dtype


def alike(who: str, **arrays: ArrayLike) -> tuple[list[jax.Array], jnp.dtype]:
    """Arrays of equal shape, as given, and the dtype of a result."""
    found = {name: array(who, name, x) for name, x in arrays.items()}
    same_shape(who, found)
    return list(found.values()), promoted(*found.values())


def same_shape(who, arrays, remedy=""):
    if len({x.shape for x in arrays.values()}) > 1:
        got = " and ".join(described(name, x) for name, x in arrays.items())
        raise ValueError(f"{who} takes arrays of equal shape; got {got}. {remedy or _to_one_shape([*arrays.values()])}")


def _to_one_shape(arrays):
    """The remedy for arrays of different shapes."""
    shapes = [x.shape for x in arrays]
    for full in shapes:
        if all(_broadcasts(shape, full) for shape in shapes):
            return "Broadcast one with jax.numpy.broadcast_to."
    unequal = [axis for axis, sizes in enumerate(zip(*shapes, strict=False)) if len(set(sizes)) > 1]
    if len({len(shape) for shape in shapes}) > 1 or len(unequal) > 1:
        return "Select what belongs together, or add axes with jax.numpy.expand_dims and broadcast."
    sizes = sorted({shape[unequal[0]] for shape in shapes})
    return (
        f"Fill axis {unequal[0]} of the shorter one up to {sizes[-1]} with jax.numpy.pad, and mask what is added: for "
        f"the last axis with where=jax.numpy.arange({sizes[-1]}) < {sizes[0]}."
    )


def distinct_axes(who: str, name: str, x: jax.Array | np.ndarray, axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """Axes of `x`, distinct and not empty, as non-negative numbers."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    if x.ndim == 0:
        raise ValueError(
            f"{who} takes the axis of the events; got {described(name, x)}. Pass one number for each event."
        )
    if not axes or any(not isinstance(a, int | np.integer) or not -x.ndim <= a < x.ndim for a in axes):
        raise ValueError(
            f"{who} takes the axis of the events, or a tuple of them; got axis={axis} for {described(name, x)}. "
            f"Pass an axis between {-x.ndim} and {x.ndim - 1}."
        )
    axes = tuple(int(a) % x.ndim for a in axes)
    if len(set(axes)) < len(axes) or any(x.shape[a] == 0 for a in axes):
        raise ValueError(
            f"{who} takes distinct axes with at least one event; got axis={axis} for {described(name, x)}."
        )
    return axes


def _broadcasts(shape, full):
    return len(shape) <= len(full) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(full), strict=False))


def mask(who: str, where: ArrayLike, shape: tuple[int, ...], events: tuple[int, ...] = ()) -> jax.Array:
    """A mask broadcast to `shape`. Without the axes of the events, it must not fit the inputs in a second way."""
    where = jnp.asarray(where)
    if where.dtype != bool:
        raise TypeError(f"{who} takes a boolean mask; got where {where.dtype}{list(where.shape)}. Compare it with 0.")
    if not _broadcasts(where.shape, shape):
        raise ValueError(
            f"{who} takes a mask that broadcasts against the inputs; got {described('where', where)} for {list(shape)}."
            " Add axes of length 1 with jax.numpy.expand_dims."
        )
    # A vector as long as the last axis is a mask along that axis, even if the batch has the same size.
    of_examples = tuple(n for axis, n in enumerate(shape) if axis not in events)
    if events and where.ndim < len(shape) and where.shape == of_examples and where.shape != shape[-1:]:
        raise ValueError(
            f"{who} takes a mask of the rank of the inputs where it would fit in two ways; got "
            f"{described('where', where)} for {list(shape)} with events along {list(events)}. Of examples, pass "
            f"jax.numpy.expand_dims(where, {events}); of events, jax.numpy.expand_dims(where, 0)."
        )
    return jnp.broadcast_to(where, shape)


def broadcast(who: str, name: str, x: ArrayLike, to: str, shape: tuple[int, ...]) -> jax.Array:
    """An array broadcast to the shape of another, whose name is `to`."""
    x = array(who, name, x)
    if not _broadcasts(x.shape, shape):
        raise ValueError(
            f"{who} takes {name} of a shape that broadcasts against {to}{list(shape)}; got {described(name, x)}. Add "
            "axes of length 1 with jax.numpy.expand_dims."
        )
    return jnp.broadcast_to(x, shape)


def weights(
    who: str, weights: ArrayLike | None, where: ArrayLike | None, shape: tuple[int, ...], dtype: jnp.dtype
) -> jax.Array:
    """Weights broadcast to `shape`, 0 where masked; 1 by default."""
    w = jnp.ones(shape, dtype)
    if weights is not None:
        given = array(who, "weights", weights)
        if not _broadcasts(given.shape, shape):
            raise ValueError(
                f"{who} takes weights that broadcast against what they weigh; got {described('weights', given)} for "
                f"{list(shape)}. Add axes of length 1 with jax.numpy.expand_dims."
            )
        w = jnp.broadcast_to(given.astype(dtype), shape)
    return w if where is None else jnp.where(mask(who, where, shape), w, 0)


def of_one_draw(who: str, name: str, values: jax.Array) -> jax.Array:
    """Log-densities `[n]` of n draws: one number per draw."""
    if values.ndim != 1:
        raise ValueError(
            f"{who} takes {name} as a function of one draw with one number, [], as its result; got "
            f"{list(values.shape[1:])}. Sum independent components."
        )
    return values


def choice(who: str, name: str, known: Mapping[str, tuple[str, ...]], parameters: Mapping[str, Any]) -> None:
    """Raises unless `name` is known and takes exactly these parameters."""
    if name not in known:
        raise ValueError(f"{who} takes the name of a divergence; got {name!r}. Pass one of {', '.join(known)}.")
    if set(parameters) != set(known[name]):
        expected, got = (" and ".join(names) or "no parameter" for names in (known[name], parameters))
        raise ValueError(f"{who} takes {name} with {expected}; got {got}. Pass numbers by keyword.")


def in_working_precision(laws):
    """The laws in the working precision, and the dtype of a result."""
    leaves = jax.tree.leaves(laws)
    work = working(*leaves)
    return jax.tree.map(lambda x: x.astype(work), laws), promoted(*leaves)

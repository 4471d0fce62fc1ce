"""Weighted means over groups of laws, in tiles, and the `Space` of a kind of law, in which groups have centres."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxdiv._core import tuning
from jaxdiv._core.blocks import varying_alike
from jaxdiv._core.functions import or_one, weighed
from jaxdiv._core.stretches import cut, in_parts, join, once

Law = Any  # a distribution, as a tree of arrays; a batch of laws has one more axis, the first


class Groups(NamedTuple):
    """Laws, their weights `[n]`, the group `[n]` of each (one of `number`), and a `view` that is applied to each law.

    Means are taken in tiles; with `whole`, at once: the loop over tiles has no second reverse-mode derivative in jax.
    """

    laws: Law
    weights: jax.Array
    labels: jax.Array
    number: int
    view: Callable[[Law], Any] = lambda law: law
    whole: bool = False


class Space(NamedTuple):
    """How laws of one kind are moved, in coordinates (a *point*) that make this easy.

    A move is a tree shaped like a point; 0 means no move. Its unit is about that of the Fisher metric at the point, so
    the negative gradient in a move is a good direction of descent.
    """

    point: Callable[[Law], Law]
    law: Callable[[Law], Law]
    move: Callable[[Law, Law], Law]
    # From an order and from groups that view points: the means of this order, as points. Order 1 averages expectations,
    # order 0 averages log-densities. None for an order without a closed form.
    mean: Callable[[ArrayLike, Groups], Law | None]


def _parts(n, trees):
    """An axis in parts that fit a cache."""
    leaves = jax.tree.leaves(trees)
    elements = sum(x.size // max(1, len(x)) for x in leaves) * (1 if len(leaves) == 1 else tuning.PER_PAIR)
    return in_parts(n, max(1, tuning.TILES.elements // max(1, elements)), lanes=tuning.LANES)


def along(function: Callable[..., Any], laws: Any, *fixed: Any) -> Any:
    """`function(law, *fixed)` for each law, in tiles."""
    n = len(jax.tree.leaves(laws)[0])
    parts = _parts(n, laws)

    @jax.checkpoint
    def of_some(laws, fixed, i):
        some, *rest = varying_alike((cut(parts, laws, i), *fixed))
        return jax.vmap(function, (0, *(None for _ in rest)))(some, *rest)

    found = _of_each(functools.partial(of_some, laws, fixed), parts)
    return jax.tree.map(functools.partial(join, parts), found)


def _values(function, groups, centres, parts, i):
    """`function` of the view of some laws and of the centres of their groups; their weights and labels."""
    some, weights, labels = cut(parts, (groups.laws, groups.weights, groups.labels), i)
    centres = (jax.tree.map(lambda x: x[labels], c) for c in centres)
    return jax.vmap(lambda law, *own: function(groups.view(law), *own))(some, *centres), weights, labels


def means(function: Callable[..., Any], groups: Groups, *centres: Any) -> Any:
    """The mean over each group of `function(law, *centres of its group)`: a tree of `[number, ...]`, 0 if empty."""
    n = len(groups.labels)
    parts = in_parts(n, n) if groups.whole else _parts(n, groups.laws)

    @jax.checkpoint
    def of_some(laws, weights, centres, i):
        these = groups._replace(laws=laws, weights=weights)
        values, w, labels = _values(function, these, centres, parts, i)
        w = once(parts, w, i)
        sums = functools.partial(jax.ops.segment_sum, segment_ids=labels, num_segments=groups.number)
        return sums(w), jax.tree.map(lambda x: sums(weighed(_like(w, x), x)), values)

    of_parts = functools.partial(of_some, groups.laws, groups.weights, centres)
    total, sums = jax.tree.map(lambda x: jnp.sum(x, 0), _of_each(of_parts, parts))
    return jax.tree.map(lambda x: x / _like(or_one(total), x), sums)


def _of_each(of_some, parts):
    if parts.steps == 1:
        return jax.tree.map(lambda x: x[None], of_some(jnp.int32(0)))
    return lax.map(of_some, jnp.arange(parts.steps, dtype=jnp.int32))


def largest(function: Callable[..., jax.Array], groups: Groups, *centres: Any) -> jax.Array:
    """The maximum over each group of such a function, over laws with a weight; -inf if none has. Not differentiable."""
    laws, centres = lax.stop_gradient((groups.laws, centres))
    parts = _parts(len(groups.labels), laws)

    def of_some(i):
        values, weights, labels = _values(function, groups._replace(laws=laws), centres, parts, i)
        values = jnp.where(_like(weights, values) > 0, values, -jnp.inf)
        return jax.ops.segment_max(values, labels, groups.number)

    return jnp.max(_of_each(of_some, parts), 0)


def mass(groups: Groups) -> jax.Array:
    """The weight `[number]` of each group."""
    return jax.ops.segment_sum(groups.weights, groups.labels, groups.number)


def without(out: jax.Array, laws: Law, weights: jax.Array) -> tuple[Law, jax.Array]:
    """Laws and weights `[n]`; those that are `out` have weight 0, with derivative 0, and are replaced by the heaviest.

    A law that does not count may be invalid, and then its NaN would reach sums through derivatives.
    """
    weights = jnp.where(out, 0, weights)
    heaviest = jnp.argmax(weights)
    return jax.tree.map(lambda x: jnp.where(out.reshape(-1, *(1,) * (x.ndim - 1)), x[heaviest][None], x), laws), weights


def _like(weights, x):
    """Weights `[n]` with the rank and dtype of x `[n, ...]`."""
    return weights.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype)


def _arithmetic(order, groups):
    # The meaning of the parameters is unknown, so they are averaged themselves: exact for natural parameters.
    return means(lambda point: point, groups) if order == 0 else None


UNKNOWN = Space(
    point=lambda law: law,
    law=lambda point: point,
    move=lambda point, change: jax.tree.map(jnp.add, point, change),
    mean=_arithmetic,
)

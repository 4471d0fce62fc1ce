"""Checks of heads, tokens, classes and top-k targets."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdiv._inputs.arrays import array, described


def head(who: str, names: Sequence[str], hidden: ArrayLike, head: ArrayLike, class_axis: int) -> None:
    """Raises unless hidden states `[..., h]` and a head fit together."""
    x, w = array(who, names[0], hidden), array(who, names[1], head)
    got = f"{described(names[0], x)} {x.dtype} and {described(names[1], w)} {w.dtype} with class_axis={class_axis}"
    if class_axis not in (0, 1) or w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[1 - class_axis] or w.size == 0:
        raise ValueError(
            f"{who} takes hidden states [..., h] and a head [h, v], or [v, h] with class_axis=0; got {got}. Transpose "
            "the head if that gives it h."
        )
    if x.dtype != w.dtype:
        raise TypeError(f"{who} takes hidden states and a head of one dtype; got {got}. Convert one with astype.")


def bias(who: str, name: str, bias: ArrayLike | None, classes: int) -> None:
    """Raises unless a bias has one number per class."""
    if bias is not None and np.shape(bias) != (classes,):
        raise ValueError(
            f"{who} takes a bias with one number to a class of the head, [{classes}]; got {name}"
            f"{list(np.shape(bias))}. Pass None for none."
        )


def memory(who: str, memory: Any) -> int:
    """A static, positive number of bytes."""
    if not isinstance(memory, int | np.integer) or memory < 1:
        raise ValueError(f"{who} takes memory as a positive integer, in bytes; got {memory}. The default is 2**26.")
    return int(memory)


def results_of_tokens(who: str, results: Any, tokens: int, one: bool) -> None:
    """Raises unless a divergence has one result per token, or a tree of such results."""
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
    """A mask of classes, as long as the longest vocabulary; required if vocabularies differ in length."""
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
    """A static number of classes, at most `classes`."""
    if not isinstance(k, int | np.integer) or not 1 <= k <= classes:
        raise ValueError(
            f"{who} takes k from 1 to the number of classes, {classes}; got {k}. Pass an integer of that range."
        )
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
            f"{who} takes indices [..., k] with the leading axes of the logits; got {described('indices', indices)} "
            f"for logits{list(shape)}. One class to an example is indices[..., None]."
        )
    return indices.astype(int)  # uint8 or uint16 from a file may not hold the number of classes


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


def options_of_top_k(who: str, options: Mapping[str, Any], rank: int) -> None:
    """Raises if the options of a loss move or mask classes of logits: those of a `topk.TopK` are others."""
    axis, where = options.get("axis", -1), options.get("where")
    if axis not in (-1, rank - 1, (-1,), (rank - 1,)):
        raise ValueError(
            f"{who} takes classes on the last axis; got axis={axis}. Move them there with jax.numpy.moveaxis."
        )
    if where is not None and np.shape(where)[-1:] not in ((), (1,)):
        raise ValueError(
            f"{who} takes where as a mask of examples, [..., 1]; got where{list(np.shape(where))}. To mask classes, "
            "set their logits to -jax.numpy.inf, and those of the targets before topk.from_logits."
        )

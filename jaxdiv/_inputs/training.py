"""Checks of labels, settings and divergences of a training loop."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdiv._inputs.arrays import array, described, shares, working


def labels(who: str, labels: jax.Array, shape: tuple[int, ...], axis: Any) -> None:
    """Raises unless the labels are integers, one per example of logits of that shape."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"{who} takes integer labels; got labels {labels.dtype}{list(labels.shape)}. Convert with argmax."
        )
    if not isinstance(axis, int | np.integer) or not -len(shape) <= axis < len(shape):
        raise ValueError(f"{who} takes labels for one axis; got axis={axis} for logits{list(shape)}. Pass an integer.")
    expected = shape[: axis % len(shape)] + shape[axis % len(shape) + 1 :]
    if labels.shape != expected:
        raise ValueError(
            f"{who} takes one label to an example, labels{list(expected)}; got {described('labels', labels)} for "
            f"logits{list(shape)}. Drop the axis of the classes."
        )


def no_labels(who: str, name: str, targets: Any) -> None:
    """Raises for integers where a distribution is expected."""
    if isinstance(targets, jax.Array | np.ndarray) and jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(
            f"{who} takes floating-point targets; got {name} {targets.dtype}{list(targets.shape)}. For integer labels, "
            f"use jaxdiv.losses.cross_entropy_with_labels; otherwise convert with {name}.astype(jax.numpy.float32)."
        )


def weights_of_views(who: str, x: jax.Array, weights: ArrayLike | None) -> jax.Array:
    """One weight per view of `x` `[n, ...]`, divided by their sum; equal by default."""
    if x.ndim < 2:
        raise ValueError(
            f"{who} takes views stacked on the first axis, [n, ..., k]; got {described('logits_of_views', x)}. Stack "
            "them with jax.numpy.stack."
        )
    n = x.shape[0]
    if n == 0:
        raise ValueError(f"{who} takes at least one view; got {described('logits_of_views', x)}. Stack some.")
    weights = jnp.ones(n) if weights is None else array(who, "weights", weights)
    if weights.shape != (n,):
        raise ValueError(
            f"{who} takes one weight to a view; got {described('weights', weights)} for {n} views. Pass [{n}]."
        )
    return shares(weights.astype(working(x)))


def axes_of_one_view(who: str, x: jax.Array, axis: Any, axes: tuple[int, ...]) -> None:
    """Raises if the axis of the views is among those of the events."""
    if 0 in axes:
        raise ValueError(
            f"{who} takes the axis of the events, not the first, which has the views; got axis={axis} for "
            f"{described('logits_of_views', x)}. Move the views to the first axis."
        )


def loss_of_classes(who: str, loss: Any, of_events: Any) -> None:
    """Raises for the loss of one logit for an event."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    if loss is of_events:
        raise TypeError(
            f"{who} takes a loss of logits of classes; got {loss.__name__}, whose logits are of one event each. Pass "
            "it the logits of probabilities t, jax.scipy.special.logit(t)."
        )


def loss_of_top_k(who: str, loss: Any, of_events: Any) -> None:
    """Raises for losses of one logit for an event, of target probabilities, and of a temperature of their own."""
    loss_of_classes(who, loss, of_events)
    if "target_probs" in inspect.signature(loss).parameters:
        raise TypeError(
            f"{who} takes a loss of logits and target logits; got one of target_probs. Pass the loss of logits."
        )
    while isinstance(loss, functools.partial):
        if "temperature" in loss.keywords:
            raise TypeError(
                f"{who} takes a loss without its temperature; got temperature={loss.keywords['temperature']}, which "
                "would divide the merged classes. Pass it to the loss of the top k."
            )
        loss = loss.func


TRANSFORMATIONS = ("transforms.natural_gradient", "transforms.kl_trust_region", "transforms.skip_large_divergence")


def setting(
    who: str, name: str, x: Any, low: float, high: float = np.inf, *, closed: str = "[]", whole: bool = False
) -> None:
    """Raises for a number outside of an interval, with or without its ends, if it is known before tracing."""
    if callable(x) or isinstance(x, str):
        got = "a function" if callable(x) else repr(x)
        scheduled = f"optax.inject_hyperparams({who})({name}=schedule) evaluates a schedule in each step."
        remedy = scheduled if callable(x) and who in TRANSFORMATIONS else "Pass a number."
        raise TypeError(f"{who} takes {name} as a number; got {got}. {remedy}")
    if whole and isinstance(x, float | np.floating):
        raise TypeError(f"{who} takes {name} as an integer; got {x}. Pass {int(x) if np.isfinite(x) else 1}.")
    if isinstance(x, int | float | np.integer | np.floating):
        above = low <= x if closed[0] == "[" else low < x
        below = x <= high if closed[1] == "]" else x < high
        if not (above and below):
            interval = f"{closed[0]}{low}, {high}{closed[1]}"
            raise ValueError(f"{who} takes {name} in {interval}; got {x}. Pass a number of that interval.")


def rule(who: str, rule: Any) -> None:
    """Raises unless the rule of a coefficient is a function."""
    if not callable(rule):
        raise TypeError(
            f"{who} takes rule as a function of a divergence and its target; got {rule!r}. Pass transforms.doubling(), "
            "transforms.proportional(...) or transforms.dual(...)."
        )


def one_to_an_example(who: str, values: jax.Array, x: jax.Array) -> jax.Array:
    """Divergences `[n]`; raises unless there is one per input `[n, ...]`."""
    if x.ndim == 0 or values.shape != x.shape[:1]:
        raise ValueError(
            f"{who} takes divergences {list(x.shape[:1])}, one to an example; got {list(values.shape)}. Do not reduce "
            "them."
        )
    return values


def measure(who: str, params: Any, divergence: Callable[[Any], jax.Array] | None) -> Callable[[Any], jax.Array]:
    """The function that measures an update, with its result checked; raises without it or without parameters."""
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

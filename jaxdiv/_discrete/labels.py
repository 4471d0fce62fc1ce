r"""Cross-entropy of logits and one class per row: $-\log p_c$ for $p = \mathrm{softmax}(a / T)$.

With e = exp((a - max a) / T) and the sum R of all e but that of the class c, it is (max a - a_c) / T + log(e_c + R),
two numbers that are not negative. The gradient in a_i / T is e_i / (e_c + R), and minus R / (e_c + R) at the class:
nothing cancels where the class has nearly all of the mass.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdiv._core.blocks import barrier, in_row_blocks
from jaxdiv._core.events import Events, largest, numbers, sums
from jaxdiv._core.rules import custom_jvp
from jaxdiv._discrete.differences import divided_by, exp_less
from jaxdiv._discrete.softmax import centred_tangent, distributions, up


class _Inputs(NamedTuple):
    """Logits; of each row the number of its class here, and whether it has one; a temperature or None."""

    a: jax.Array
    label: jax.Array
    counts: jax.Array
    temperature: jax.Array | None


class _Rows(NamedTuple):
    """Numbers of a row `[..., 1]`: its maximum, and the sums of e at the class and elsewhere."""

    largest: jax.Array
    own: jax.Array
    rest: jax.Array


def _counted(inputs, a):
    """The logits of rows that have a class; zeros elsewhere, whatever stands there."""
    return jnp.where(inputs.counts, up(a), 0)


def _block(events, recompute, *fields):
    inputs = _Inputs(*fields)
    a, label, _, temperature = inputs
    top = largest(events, lambda a: _counted(inputs, a), a)
    a, top = barrier(recompute, a, top)

    def of_event(a, at):
        a, own = _counted(inputs, a), at == label
        return [jnp.where(own, a, 0), jnp.where(own, 0, exp_less(a, top, temperature))]

    logit, rest = sums(events, of_event, a, numbers(events, a))
    own, gap = exp_less(logit, top, temperature), top - logit
    # Where the class is the largest, the logarithm of a sum near 1.
    log = jnp.where(own == 1, jnp.log1p(rest), jnp.log(jnp.where(own == 1, 1, own + rest)))
    return divided_by(gap, temperature) + log, _Rows(top, own, rest)


@functools.cache
def _cross_entropy(events: Events) -> Callable:
    """The value of each row and its `_Rows`, of which only the value is differentiable."""

    @custom_jvp
    def cross_entropy(inputs):
        return in_row_blocks(functools.partial(_block, events), *inputs, events=events, in_chunks=True)

    def rule(primals, tangents):
        (inputs,), (tangents,) = primals, tangents
        # Events one after the other are faster for a value alone: see `softmax`.
        value, rows = _cross_entropy(events._replace(apart=False))(inputs)
        rows = jax.lax.stop_gradient(rows)

        # Rematerialised: between separate programs of value and gradient the logits are kept, not the gradient.
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def along(inputs, da, dt, rows):
            a, temperature = _counted(inputs, inputs.a), inputs.temperature
            tangent = centred_tangent(a, da, rows.largest, temperature, dt)
            moved = jnp.sum(_gradient(events)(inputs, rows) * tangent, events.axis, keepdims=True)
            return moved if events.over is None else jax.lax.psum(moved, events.over)

        tangent = along(inputs, tangents.a, tangents.temperature, rows)
        return (value, rows), (tangent, jax.tree.map(jnp.zeros_like, rows))

    cross_entropy.defjvp(rule, symbolic_zeros=True)
    return cross_entropy


@functools.cache
def _gradient(events: Events) -> Callable:
    """The gradient in the logits over T, elementwise in them and in the numbers of their rows."""

    @custom_jvp
    def gradient(inputs, rows):
        e = exp_less(_counted(inputs, inputs.a), rows.largest, inputs.temperature)
        return jnp.where(numbers(events, inputs.a) == inputs.label, -rows.rest, e) / (rows.own + rows.rest)

    def rule(primals, tangents):
        inputs, along = primals[0], tangents[0]

        def probabilities(a, temperature):
            a = _counted(inputs, a)
            return distributions(a, a, temperature, events)[0]

        moving = [i for i, d in ((0, along.a), (3, along.temperature)) if d is not None]
        if not moving:
            return gradient(*primals), None

        def of_moving(*xs):
            return probabilities(*(dict(zip(moving, xs, strict=True)).get(i, inputs[i]) for i in (0, 3)))

        change = jax.jvp(of_moving, [inputs[i] for i in moving], [along[i] for i in moving])[1]
        return gradient(*primals), change

    gradient.defjvp(rule, symbolic_zeros=True)
    return gradient


def cross_entropy(
    a: jax.Array, label: jax.Array, counts: jax.Array, temperature: jax.Array | None, *, events: Events
) -> jax.Array:
    """-log p of the class of each row of logits, in the working precision.

    `label` is the number of the class among those here, `counts` whether there is one; both have length 1 along the
    axis of the classes.
    """
    value, _ = _cross_entropy(events)(_Inputs(a, label, counts, temperature))
    return jnp.squeeze(value, events.axis)

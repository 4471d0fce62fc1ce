r"""A linear head fused with a divergence: losses of logits `[..., vocabulary]` that are never all in memory.

The logits of a language model, $x W$ for hidden states $x$, are often the largest array in memory. The functions here
compute the logits of one block of tokens at a time and pass them to a loss. The loss is any function
`(logits, targets) -> [...]`, from `jaxdiv.losses`, from `jaxdiv.objectives` or your own. Value, gradient, zeros and
infinities are those of the loss.

- `mean_linear_divergence` returns the mean over tokens, so it computes the gradients in the same pass as the value:
  four products with the head, as many as with the logits kept.
- `linear_divergence` returns one value per token. To differentiate it, each block is computed a second time.

Both are differentiable in either mode, any number of times. Hidden states and head have one dtype; products are taken
in it and summed in float32 at least, so logits are never rounded to half precision.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core import tuning
from jaxdiv._core.functions import finite_or_zero, of_moderate_size, or_one, times
from jaxdiv._core.programs import compiled
from jaxdiv._core.stretches import Parts, cut, in_parts, join, once, put
from jaxdiv._inputs import working

Loss = Callable[..., Any]


class Linear(NamedTuple):
    r"""Logits $c \tanh(s (x W + b) / c)$ of hidden states $x$ `[..., h]` and a head $W$, `[h, v]` or `[v, h]`.

    None means: no bias $b$ `[v]`, a scale $s$ of 1, no cap $c$.
    """

    hidden: ArrayLike
    head: ArrayLike
    bias: ArrayLike | None = None
    logit_scale: ArrayLike | None = None
    soft_cap: ArrayLike | None = None


class _Task(NamedTuple):
    """The arrays of a call: `hiddens` and `rows` have the tokens as their first axis."""

    hiddens: Any
    rows: Any  # weights, the teacher unless it is `Linear`, and other arguments of the loss
    heads: Any
    rest: Any


class _Plan(NamedTuple):
    """The static settings of a call."""

    who: str
    loss: Loss
    class_axis: int
    axis_name: str | tuple[str, ...] | None
    memory: int


# ---------------------------------------------------------------- products with the head


def _dot(x, y, axes, like=None):
    """A product in the working precision; on an explicit mesh it is sharded as `like`."""
    sharding = None if like is None else jax.typeof(like).sharding
    if sharding is not None and AxisType.Explicit not in sharding.mesh.axis_types:
        sharding = None
    return lax.dot_general(x, y, (axes, ((), ())), preferred_element_type=working(x), out_sharding=sharding)


def _product(hidden, head, class_axis):
    return _dot(hidden, head, ((1,), (1 - class_axis,)))


def _hidden_gradient(hidden, slope, head, class_axis):
    slope = slope.astype(head.dtype)
    if class_axis == 0:
        return _dot(slope, head, ((1,), (0,)), hidden)
    # The head comes first, because XLA:CPU packs the second factor anew for every block. The barrier keeps this order.
    return lax.optimization_barrier(_dot(head, slope, ((1,), (1,)), hidden.T)).T


def _with_head_gradient(total, hidden, slope, class_axis, memory):
    """The sum plus a block's gradient in the head, by parts of the vocabulary: needs no second array of that size."""
    parts = in_parts(slope.shape[1], memory // (hidden.shape[1] * total.dtype.itemsize))
    slope = slope.astype(hidden.dtype)

    def add(i, total):
        part = once(parts, cut(parts, slope, i, 1), i, 1)
        factors = (hidden, part) if class_axis == 1 else (part, hidden)
        old = cut(parts, total, i, class_axis)
        return put(parts, total, old + _dot(*factors, ((0,), (0,)), old), i, class_axis)

    return add(0, total) if parts.steps == 1 else lax.fori_loop(0, parts.steps, add, total)


# ---------------------------------------------------------------- the loss of a block


def _logits(product, law):
    """The logits from the product with the head."""
    bias, scale, cap = law
    x = product if bias is None else product + bias.astype(product.dtype)[None]
    x = x if scale is None else x * scale
    return x if cap is None else cap * jnp.tanh(x / cap)


def _masked(x, where, classes):
    """Logits `[tokens, classes]`, `-inf` where there is no class."""
    if x.shape[-1] < classes:
        x = jnp.pad(x, ((0, 0), (0, classes - x.shape[-1])), constant_values=-jnp.inf)
    return x if where is None else jnp.where(where[None], x, -jnp.inf)


def _is_logits(x: Any, axes: int) -> TypeGuard[jax.Array | np.ndarray]:
    """Whether a teacher is logits: floating-point numbers with one axis more than the tokens have."""
    return isinstance(x, jax.Array | np.ndarray) and x.ndim == axes + 1 and jnp.issubdtype(x.dtype, jnp.floating)


def _values(plan, products, rows, rest):
    """The values of a block of tokens."""
    laws, where, options = rest
    weights, teacher, others = rows
    logits = [_logits(x, law) for x, law in zip(products, laws, strict=True)]
    classes = logits[0].shape[-1] if where is None else where.shape[-1]
    student = _masked(logits[0], where, classes)
    if len(logits) == 2:
        teacher = logits[1]
    if _is_logits(teacher, 1):
        teacher = _masked(teacher, where, classes)
    if plan.axis_name is not None:
        options = options | {"axis_name": plan.axis_name}
    if where is None:
        results = plan.loss(student, teacher, *others, **options)
    else:
        classes_left = jnp.sum(where, dtype=jnp.int32)
        some = (classes_left if plan.axis_name is None else lax.psum(classes_left, plan.axis_name)) > 0
        student, teacher = (jnp.where(some, x, 0) if _is_logits(x, 1) else x for x in (student, teacher))
        results = plan.loss(student, teacher, *others, **options)
        results = jax.tree.map(lambda x: jnp.where(some, x, 0), results)
    _inputs.results_of_tokens(plan.who, results, student.shape[0], one=weights is not None)
    return results


def _products(plan, task):
    return [_product(x, w, plan.class_axis) for x, w in zip(task.hiddens, task.heads, strict=True)]


def _blocks(plan, task):
    """The tokens in blocks of which one array of logits takes half of `memory`."""
    tokens, classes = task.hiddens[0].shape[0], task.heads[0].shape[plan.class_axis]
    return in_parts(tokens, plan.memory // (2 * classes * working(task.hiddens[0]).itemsize))


def _block(blocks, task, i):
    return task._replace(hiddens=cut(blocks, task.hiddens, i), rows=cut(blocks, task.rows, i))


# ---------------------------------------------------------------- the mean


def _weighted_block(blocks, task, i):
    """A block of tokens, with its weights. Tokens of weight 0 hold zeros, whatever they held before."""
    block = _block(blocks, task, i)
    weights = once(blocks, block.rows[0], i)

    def cleared(x):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return jnp.where((weights == 0).reshape(-1, *(1,) * (x.ndim - 1)), 0, x)

    hiddens, rest = jax.tree.map(cleared, (block.hiddens, block.rows[1:]))
    return block._replace(hiddens=hiddens, rows=(weights, *rest))


def _sum_of_block(plan, products, rows, rest):
    weights, values = rows[0], _values(plan, products, rows, rest)
    return jnp.sum(times(weights, jnp.where(weights == 0, 0, values.astype(weights.dtype))))


def _total(plan, task):
    """The weighted sum of a loss over the tokens; its gradients are computed in the same pass."""
    blocks = _blocks(plan, task)

    @jax.custom_jvp
    def total(task):
        def of_block(i):
            block = _weighted_block(blocks, task, i)
            return _sum_of_block(plan, _products(plan, block), block.rows, block.rest)

        return jnp.sum(lax.map(of_block, jnp.arange(blocks.steps)))

    def rule(primals, tangents):
        (task,), (tangents,) = primals, tangents
        moving = jax.tree.map(_is_given, tangents)
        formed = functools.partial(_value_and_gradients, plan, blocks, moving=moving)
        value, gradients = _with_its_rules(formed)(task)
        along = [d for d in jax.tree.leaves(tangents) if _is_given(d)]
        terms = [jnp.sum(g * d.astype(g.dtype)) for g, d in zip(gradients, along, strict=True)]
        return value, sum((_varying_as(term, value) for term in terms), jnp.zeros_like(value))

    total.defjvp(rule, symbolic_zeros=True)
    return total(task)


def _is_given(tangent):
    return not isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def _with_its_rules(function):
    """Wraps a function so that custom rules inside it survive where it is called within a linearised rule."""
    kept = jax.custom_jvp(function)
    kept.defjvp(lambda primals, tangents: jax.jvp(function, primals, tangents))
    return kept


def _select(tree, moving):
    """The leaves that have a tangent (that move)."""
    return [x for x, m in zip(jax.tree.leaves(tree), jax.tree.leaves(moving), strict=True) if m]


def _replace(tree, moving, values):
    """The tree with new values for the leaves that move."""
    values, (leaves, structure) = iter(values), jax.tree.flatten(tree)
    chosen = [next(values) if m else x for x, m in zip(leaves, jax.tree.leaves(moving), strict=True)]
    return jax.tree.unflatten(structure, chosen)


def _slopes(plan, products, live, rows, rest, moving):
    """The sum of a block, and its gradients in the live products and in the other leaves that move."""

    def of(live_products, moving_rows, moving_rest):
        given = _replace(products, live, live_products)
        return _sum_of_block(
            plan, given, _replace(rows, moving.rows, moving_rows), _replace(rest, moving.rest, moving_rest)
        )

    arguments = _select(products, live), _select(rows, moving.rows), _select(rest, moving.rest)
    value, pullback = jax.vjp(of, *arguments)
    return value, *pullback(jnp.ones_like(value))


def _apart(parts, tree, i):
    """Part i of all arrays, as a copy: what follows reads the copy and not the arrays."""
    # If XLA:CPU could read a part after it is overwritten, it would copy the whole array at every step. It keeps what
    # a branch of `cond` returns; a barrier would be removed too early. i is never negative.
    return lax.cond(i >= 0, lambda: cut(parts, tree, i), lambda: cut(parts, tree, -i))


def _slopes_in_place(plan, products, live, rows, rest, moving):
    """`_slopes` for a few rows at a time; the slopes overwrite the products they come from."""
    b, v = products[0].shape
    most = max(1, tuning.BLOCK // (tuning.ROWS_OF_LOSS * v))
    if not isinstance(b, int) or b <= most:  # of unknown length in a program exported for any
        return _slopes(plan, products, live, rows, rest, moving)
    size = next(d for d in range(most, 0, -1) if b % d == 0)
    parts = Parts(1, b, size, b // size)

    def step(carry, i):
        products, d_rest = carry
        some = _apart(parts, (products, rows), i)
        added, slopes, d_rows, more = _slopes(plan, some[0], live, some[1], rest, moving)
        written = [put(parts, x, slope, i) for x, slope in zip(_select(products, live), slopes, strict=True)]
        return (_replace(products, live, written), jax.tree.map(jnp.add, d_rest, more)), (added, d_rows)

    zeros = jax.tree.map(jnp.zeros_like, _select(rest, moving.rest))
    (products, d_rest), (values, d_rows) = lax.scan(step, (products, zeros), jnp.arange(parts.steps))
    return jnp.sum(values), _select(products, live), [join(parts, x) for x in d_rows], d_rest


def _value_and_gradients(plan, blocks, task, moving):
    """The sum, and its gradients in the leaves of the task that move."""

    def step(sums, i):
        block = _weighted_block(blocks, task, i)
        value, slopes = _block_slopes(plan, block, moving)
        if moving.rows[0]:
            slopes.rows[0] += _slope_in_no_weight(plan, blocks, task, i)
        return _with_block(plan, blocks, sums, block, slopes, i, moving), value

    chosen = _Task(*(_select(*pair) for pair in zip(task, moving, strict=True)))
    sums, values = lax.scan(step, _zero_sums(task, chosen), jnp.arange(blocks.steps))
    return _where_it_varies(jnp.sum(values), sums, chosen)


def _slope_in_no_weight(plan, blocks, task, i):
    """The derivative of the sum of a block in weights of 0: the loss of the token as given, if that is finite."""
    block = _block(blocks, task, i)
    weights, values = block.rows[0], _values(plan, _products(plan, block), block.rows, block.rest)
    return once(blocks, jnp.where(weights == 0, finite_or_zero(values.astype(weights.dtype)), 0), i)


class _Slopes(NamedTuple):
    """Gradients of the sum of a block; for products that do not move, the products themselves."""

    products: list[jax.Array]
    rows: list[jax.Array]
    rest: list[jax.Array]


def _block_slopes(plan, block, moving):
    """The sum of a block and its `_Slopes`: in place on CPU, for all rows at once elsewhere."""
    products = _products(plan, block)
    live = [any(m) for m in zip(moving.hiddens, moving.heads, strict=True)]

    def by(slopes):
        return lambda products, rows, rest: slopes(plan, products, live, rows, rest, moving)

    value, changed, rows, rest = lax.platform_dependent(
        products, block.rows, block.rest, cpu=by(_slopes_in_place), default=by(_slopes)
    )
    return value, _Slopes(_replace(products, live, changed), rows, rest)


def _with_block(plan, blocks, sums, block, slopes, i, moving):
    """The sums plus the gradients of a block."""
    laws = list(zip(block.hiddens, slopes.products, block.heads, strict=True))
    hiddens = [_hidden_gradient(*law, plan.class_axis) for law in itertools.compress(laws, moving.hiddens)]
    heads = [
        _with_head_gradient(total, hidden, slope, plan.class_axis, plan.memory // 2)
        for total, (hidden, slope, _) in zip(sums.heads, itertools.compress(laws, moving.heads), strict=True)
    ]

    def added(total, part):
        # Add, do not overwrite: where blocks overlap, the later one holds zeros.
        return put(blocks, total, cut(blocks, total, i) + part.astype(total.dtype), i)

    hiddens, rows = jax.tree.map(added, (sums.hiddens, sums.rows), (hiddens, slopes.rows))
    return _Task(hiddens, rows, heads, jax.tree.map(jnp.add, sums.rest, slopes.rest))


def _zero_sums(task, chosen):
    """Zeros for the gradients of the chosen leaves, in the working precision for hidden states and heads."""
    arrays = (x for x in jax.tree.leaves(task) if jnp.issubdtype(x.dtype, jnp.floating))
    work = working(*task.hiddens)
    varied = functools.reduce(jnp.add, (jnp.sum(jnp.zeros_like(x, work)) for x in arrays))

    def zeros_like(x):
        # Computed from x: zeros made from its shape alone have its sharding in some versions of jax only.
        return 0 * (x == x).astype(varied.dtype) + varied

    wide, plain = jax.tree.map(zeros_like, chosen), jax.tree.map(jnp.zeros_like, chosen)
    return wide._replace(rows=plain.rows, rest=plain.rest)


def _where_it_varies(value, sums, chosen):
    """The value, and the list of gradients, each summed over the device axes along which its array is replicated."""
    # Along axes where the value varies, gradients are not summed here, but where the values are.
    likes = [x.astype(value.dtype) + jnp.zeros_like(value) for x in jax.tree.leaves(chosen)]
    return value, jax.tree.map(_varying_as, jax.tree.leaves(sums), likes)


def _varying_as(x, like):
    """The sum of x over the axes of `jax.shard_map` along which it varies and `like` does not."""
    # That sum is the transpose of making `like` vary, and an addition makes it vary.
    varied = jax.vjp(lambda y: y + jnp.zeros_like(x), like.astype(x.dtype))[1]
    return varied(x)[0]


# ---------------------------------------------------------------- the public functions


_NAMES = ("student_hidden", "student_head", "bias"), ("teacher.hidden", "teacher.head", "teacher.bias")


def _task(plan, student, teacher, rows, where, options):
    """The checked arrays of a call, and the axes of its tokens. `rows` are weights and other arrays with those axes."""
    laws, teacher = ([student, teacher], None) if isinstance(teacher, Linear) else ([student], teacher)
    weights, others = rows
    rows = weights, teacher, others
    lead = jnp.shape(student.hidden)[:-1]
    where = _checked(plan, laws, rows, where, lead)
    work = working(*(jnp.asarray(law.hidden) for law in laws))

    def merged(x):
        return jnp.asarray(x).reshape(math.prod(lead), *jnp.shape(x)[len(lead) :])

    task = _Task(
        hiddens=tuple(merged(law.hidden) for law in laws),
        rows=jax.tree.map(merged, rows),
        heads=tuple(jnp.asarray(law.head) for law in laws),
        rest=([_adjusted(plan.who, law, work) for law in laws], where, jax.tree.map(jnp.asarray, options)),
    )
    return task, lead


def _checked(plan, laws, rows, where, lead):
    """The mask of classes; raises unless the arrays of a call fit together."""
    who, sizes = plan.who, []
    for (*names, bias), law in zip(_NAMES, laws, strict=False):
        _inputs.head(who, names, law.hidden, law.head, plan.class_axis)
        sizes.append(jnp.shape(law.head)[plan.class_axis])
        _inputs.bias(who, bias, law.bias, sizes[-1])
    weights, teacher, others = rows
    of_tokens = {
        "teacher.hidden": [law.hidden for law in laws],
        "teacher": teacher,
        "weights": weights,
        "other": others,
    }
    for name, tree in of_tokens.items():
        _inputs.of_tokens(who, name, tree, lead)
    sizes += [teacher.shape[-1]] if _is_logits(teacher, len(lead)) else []
    return _inputs.classes(who, where, sizes)


def _adjusted(who, law, work):
    """Bias, scale and cap of a law."""

    def number(name, x):
        return None if x is None else _inputs.number(who, name, x, jnp.zeros(()), work)

    bias = None if law.bias is None else jnp.asarray(law.bias).astype(work)
    return [bias, number("logit_scale", law.logit_scale), number("soft_cap", law.soft_cap)]


def linear_divergence(
    student_hidden: ArrayLike,
    student_head: ArrayLike,
    teacher: Any,
    divergence: Loss,
    *others: Any,
    bias: ArrayLike | None = None,
    logit_scale: ArrayLike | None = None,
    soft_cap: ArrayLike | None = None,
    where: ArrayLike | None = None,
    class_axis: int = 1,
    memory: int = tuning.MEMORY,
    axis_name: str | tuple[str, ...] | None = None,
    **options: Any,
) -> Any:
    r"""A divergence $D(x W, y)$ per token, from hidden states $x$, a head $W$ and targets $y$.

    When it is differentiated, the logits of each block are computed again, and memory holds a block's gradient in the
    head beside the sum over blocks. `mean_linear_divergence` needs neither.

    Args:
        student_hidden: Hidden states $x$ `[..., h]`.
        student_head: The head $W$, `[h, v]`, or `[v, h]` with `class_axis=0`; in the dtype of the hidden states.
        teacher: The targets $y$: a `Linear` of hidden states and head, of any size h and any dtype; or logits
            `[..., v]`; or any tree of arrays that the divergence takes as targets, such as a `topk.TopK` or labels
            `[...]`, with the leading axes of the tokens; or None for a function of the student's logits alone.
        divergence: A loss `(logits, targets, *others, **options) -> [...]`, or a tree of such results.
        others: More arrays with the axes of the tokens, such as labels `[...]`; they are passed to the divergence.
        bias: The student's bias `[v]`.
        logit_scale: A factor of the student's logits.
        soft_cap: A bound $c$ of the student's logits, $c \tanh(\cdot / c)$.
        where: A mask `[v]` of classes; those where it is False are padding, with gradient 0. If one side has fewer
            classes than the mask, it is padded. Without any class, values and gradients are 0.
        class_axis: The axis of the classes in the heads, 1 or 0.
        memory: Bytes for the logits of a block of tokens. More is faster; on an accelerator, pass the free memory.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the classes are sharded.
        options: Numbers passed to the divergence, such as `temperature`.

    Returns:
        What the divergence returns, `[...]`, with its units, sign, zeros and infinities. Gradients flow to both sides.

    Example:
        >>> hidden, head = jnp.ones((2, 3)), jnp.eye(3)
        >>> def loss(s, t): return {"kl": losses.forward_kl(s, t), "entropy": losses.cross_entropy(t, t)}
        >>> found = fused.linear_divergence(hidden, head, jnp.log(jnp.array([[0.5, 0.25, 0.25]] * 2)), loss)
        >>> print(f"{found['kl'][0]:.4f} {found['entropy'][0]:.4f}")
        0.0589 1.0397
    """
    memory = _checked_settings("fused.linear_divergence", divergence, memory, options)
    student = Linear(student_hidden, student_head, bias, logit_scale, soft_cap)
    per_token = compiled(_per_token, divergence, class_axis=class_axis, axis_name=axis_name, memory=memory)
    return per_token(student, teacher, others, where, options)


def _per_token(divergence, student, teacher, others, where, options, **static):
    plan = _Plan("fused.linear_divergence", divergence, **static)
    task, lead = _task(plan, student, teacher, (None, others), where, options)
    blocks = _blocks(plan, task)

    @jax.checkpoint
    def of_block(task, i):
        block = _block(blocks, task, i)
        return _values(plan, _products(plan, block), block.rows, block.rest)

    values = lax.map(functools.partial(of_block, task), jnp.arange(blocks.steps))
    return jax.tree.map(lambda x: join(blocks, x).reshape(*lead, *x.shape[2:]), values)


def mean_linear_divergence(
    student_hidden: ArrayLike,
    student_head: ArrayLike,
    teacher: Any,
    divergence: Loss,
    *others: Any,
    weights: ArrayLike | None = None,
    denominator: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    logit_scale: ArrayLike | None = None,
    soft_cap: ArrayLike | None = None,
    where: ArrayLike | None = None,
    class_axis: int = 1,
    memory: int = tuning.MEMORY,
    axis_name: str | tuple[str, ...] | None = None,
    **options: Any,
) -> jax.Array:
    r"""The mean $\sum_i w_i D(x_i W, y_i) / \sum_i w_i$ of `linear_divergence`, with gradients in the same pass.

    Args:
        student_hidden: Hidden states $x$ `[..., h]`.
        student_head: The head $W$, `[h, v]`, or `[v, h]` with `class_axis=0`; in the dtype of the hidden states.
        teacher: The targets, as for `linear_divergence`.
        divergence: A loss `(logits, targets, *others, **options) -> [...]`.
        others: More arrays with the axes of the tokens, such as labels `[...]`; they are passed to the divergence.
        weights: Non-negative weights `[...]`, or booleans; 1 by default. A token of weight 0 may hold anything.
        denominator: A number to divide by in place of the sum of weights, as for `losses.mean`.
        bias: The student's bias `[v]`.
        logit_scale: A factor of the student's logits.
        soft_cap: A bound $c$ of the student's logits, $c \tanh(\cdot / c)$.
        where: A mask `[v]` of classes; those where it is False are padding, with gradient 0. If one side has fewer
            classes than the mask, it is padded. Without any class, values and gradients are 0.
        class_axis: The axis of the classes in the heads, 1 or 0.
        memory: Bytes for the logits of a block of tokens. More is faster; on an accelerator, pass the free memory.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the classes are sharded.
        options: Numbers passed to the divergence, such as `temperature`.

    Returns:
        `[]`, at least in float32, in the units of the divergence; 0 if no token counts. Gradients flow to both sides.

    Example:
        >>> hidden, head, targets = jnp.ones((2, 3)), jnp.eye(3), jnp.log(jnp.array([[0.5, 0.25, 0.25]] * 2))
        >>> print(f"{fused.mean_linear_divergence(hidden, head, targets, losses.forward_kl):.4f}")
        0.0589
    """
    memory = _checked_settings("fused.mean_linear_divergence", divergence, memory, options)
    student = Linear(student_hidden, student_head, bias, logit_scale, soft_cap)
    mean = compiled(_mean, divergence, class_axis=class_axis, axis_name=axis_name, memory=memory)
    return mean(student, teacher, others, weights, _inputs.no_wide_integer(denominator), where, options)


def _mean(divergence, student, teacher, others, weights, denominator, where, options, **static):
    who = "fused.mean_linear_divergence"
    x = _inputs.array(who, "student_hidden", student.hidden)
    if weights is not None and jnp.asarray(weights).dtype == bool:
        weights = jnp.asarray(weights).astype(working(x))
    w = _inputs.weights(who, weights, None, x.shape[:-1], working(x))
    if weights is not None and denominator is None:
        w = of_moderate_size(w)
    total = jnp.sum(w)
    count = total if denominator is None else _inputs.number(who, "denominator", denominator, total, w.dtype)
    plan = _Plan(who, divergence, **static)
    task, _ = _task(plan, student, teacher, (w / or_one(count), others), where, options)
    return _total(plan, task)


def _checked_settings(who, divergence, memory, options):
    _inputs.function(who, "divergence", divergence, "of logits and targets: losses.forward_kl")
    for name, option in options.items():
        _inputs.stacked(who, name, option)
    return _inputs.memory(who, memory)

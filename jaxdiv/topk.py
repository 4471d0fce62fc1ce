r"""Targets with only some classes known: the k likeliest, those of a student, or a sampled token.

A `TopK` holds the listed classes of a teacher's prediction, small enough to be stored in a file. `lift` turns a loss of
`jaxdiv.losses` into a loss of logits `[..., v]` and a `TopK`. The classes that are not listed are merged into one, the
tail; on the side of the predictions, its logit is the log-sum-exp of their logits. The loss over all classes then lies
between two bounds, one for each of two assumptions about the tail:

    lift(loss, tail="bucket") <= loss of all classes <= lift(loss, tail="worst")

This holds for every divergence that is a sum over classes of a convex term, homogeneous in the two probabilities. In
`losses` these are all except `cross_entropy`; Renyi's divergence is a function of such a sum.

The lower bound is the data-processing inequality. The upper bound assumes that no unlisted class is likelier than the
least likely listed class, of probability $u$, and that unlisted classes of logit `-inf` have probability zero on both
sides. A tail of mass $\tau$ then has at least $\tau / u$ classes. The worst case is that these are the least likely
classes of the predictions.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.functions import LOG2, largest_of_row, log_sum_exp
from jaxdiv._core.stretches import stretches
from jaxdiv._discrete.softmax import first_event
from jaxdiv.losses import bernoulli_kl

AxisName = str | tuple[str, ...] | None

TAILS = ("renormalized", "bucket", "uniform", "worst")


class TopK(NamedTuple):
    """Log-probabilities `[..., k]` of the classes `indices` `[..., k]`, and `log_tail` `[...]` of all others together.

    Without `log_tail`, the others have one minus the listed probabilities. An index of -1 is padding. If an index is
    listed twice, its first entry counts.
    """

    log_probs: ArrayLike
    indices: ArrayLike
    log_tail: ArrayLike | None = None


def _summed(x, over):
    return x if over is None else lax.psum(x, over)


def _log_sum_exp(x, over=None):
    return log_sum_exp(x, over)[..., 0]


def _log_less(x, y):
    """log(exp(x) - exp(y)) for y <= x; `-inf`, with gradient 0, where they are equal or rounding has reversed them."""
    gap = jnp.where(x > y, y - jnp.where(x > y, x, 0), -1)
    # log(1 - exp(gap)): expm1 keeps the digits for gap > -log 2, log1p below.
    near = gap > -LOG2
    log = jnp.where(
        near,
        jnp.log(-jnp.expm1(jnp.where(near, gap, -1))),
        jnp.log1p(-jnp.exp(jnp.where(near, -1, gap))),
    )
    return jnp.where(x > y, x + log, -jnp.inf)


def _counts(indices):
    """Which entries count: those that are not padding and not listed before."""
    k = indices.shape[-1]
    same = indices[..., :, None] == indices[..., None, :]
    earlier = jnp.broadcast_to(np.tri(k, k, -1, dtype=bool), same.shape)
    return (indices >= 0) & ~jnp.any(same & earlier, -1)


def _with_auto_axes(function: Callable[..., tuple], x: jax.Array, *divided: bool) -> Callable[..., tuple]:
    """`function` with the explicit axes of a mesh automatic inside; `divided` says which results are sharded as x."""
    sharding = jax.typeof(x).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return function
    row = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:-1], None))
    results = tuple(sharding if d else row for d in divided)
    free: Any = jax.sharding.auto_axes(function, out_sharding=results)
    return free


def _positions(x, indices, counts, over):
    """The positions of the listed entries in `[..., v]`; v for entries that are not there."""
    v = x.shape[-1]
    position = indices.astype(jnp.int32) - first_event(v, over)
    return jnp.where(counts & (position >= 0), jnp.minimum(position, v), v)


def _put(x, positions, values):
    """The array with new values at the positions."""

    def put(x, positions, values):
        in_rows = jnp.vectorize(lambda x, at, new: x.at[at].set(new, mode="drop"), signature="(v),(k),(k)->(v)")
        return (in_rows(x, positions, values),)

    return _with_auto_axes(put, x, True)(x, positions, values)[0]


def _get(x, positions):
    """The entries at the positions, 0 for positions beyond the last."""

    def get(x, positions):
        return (jnp.take_along_axis(x, positions, -1, mode="fill", fill_value=0),)

    return _with_auto_axes(get, x, False)(x, positions)[0]


def _split(x, indices, counts, over):
    """The logits (nan in a row with an index beyond the last class), the listed ones, and all others."""
    classes = x.shape[-1] if over is None else x.shape[-1] * lax.psum(1, over)
    x = jnp.where(jnp.any(indices >= classes, -1, keepdims=True), jnp.nan, x)
    positions = _positions(x, indices, counts, over)
    there = jnp.where(counts, _summed(_get(x, positions), over), -jnp.inf)
    return x, there, _put(x, positions, jnp.full_like(there, -jnp.inf))


def _least(x, over):
    """The least entry of a row that is not `-inf`; `inf` for a row of `-inf` only."""
    return -largest_of_row(jnp.where(x > -jnp.inf, -x, -jnp.inf), over)[..., 0]


def from_indices(
    logits: ArrayLike, indices: ArrayLike, *, temperature: ArrayLike = 1.0, axis_name: AxisName = None
) -> TopK:
    r"""The `TopK` of $\mathrm{softmax}(x / T)$ at given classes: a student's likeliest, or sampled tokens.

    Args:
        logits: Logits $x$ `[..., v]`.
        indices: Integers `[..., k]`; -1 is padding. A sampled token has k = 1.
        temperature: $T$, a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the logits are sharded. Indices number the
            classes of all devices together.

    Returns:
        Log-probabilities `[..., k]`: 0 for probability one, `-inf` for probability zero and for padding. The tail is
        computed from the other classes themselves, so it is accurate even if it is tiny. An example with an index
        beyond the last class is `nan`. The dtype is at least float32.

    Example:
        >>> top = topk.from_indices(jnp.log(jnp.array([0.5, 0.3, 0.2])), jnp.array([1, -1]))
        >>> print(f"{top.log_probs[0]:.4f} {top.log_probs[1]:.4f} {top.log_tail:.4f}")
        -1.2040 -inf -0.3567
    """
    who = "topk.from_indices"
    x = _inputs.array(who, "logits", logits)
    work = _inputs.working(x)
    indices = _inputs.indices(who, indices, x.shape)
    x = x.astype(work) / _inputs.number(who, "temperature", temperature, x, work)
    x, there, others = _split(x, indices, _counts(indices), axis_name)
    total = _log_sum_exp(x, axis_name)
    return TopK(there - total[..., None], indices, _log_sum_exp(others, axis_name) - total)


def from_logits(logits: ArrayLike, k: int, *, temperature: ArrayLike = 1.0, axis_name: AxisName = None) -> TopK:
    r"""The `TopK` of the k likeliest classes of $\mathrm{softmax}(x / T)$, in descending order.

    Args:
        logits: Logits $x$ `[..., v]`.
        k: The number of classes to keep.
        temperature: $T$, a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the logits are sharded. Each device sends
            its k likeliest classes only.

    Returns:
        Log-probabilities and indices `[..., k]`, and the tail `[...]`; `-inf` for probability zero.

    Example:
        >>> top = topk.from_logits(jnp.log(jnp.array([0.2, 0.5, 0.3])), 2)
        >>> print(top.indices, f"{jnp.exp(top.log_tail):.4f}")
        [1 2] 0.2000
    """
    x = _inputs.array("topk.from_logits", "logits", logits)
    # XLA:CPU selects in float32; in half precision it would sort.
    k = _inputs.likeliest("topk.from_logits", k, x.shape[-1] * (1 if axis_name is None else lax.psum(1, axis_name)))
    indices = _likeliest(lax.stop_gradient(x).astype(_inputs.working(x)), k, axis_name)
    return from_indices(x, indices, temperature=temperature, axis_name=axis_name)


def _likeliest(x, k, over):
    """The indices of the k largest: first within each stretch of the classes, then among those found."""
    if over is None:
        return _with_auto_axes(lambda x: (_likeliest_of_stretches(x, k),), x, False)(x)[0]
    values, indices = _largest(x, min(k, x.shape[-1]))
    devices = lax.psum(1, over)

    def of_all(found):
        # Each device puts its own into a slot of zeros; the sum over devices then holds all, equally on every device.
        places = (*found.shape[:-1], devices, found.shape[-1])
        mine = lax.broadcasted_iota(jnp.int32, places, found.ndim - 1) == lax.axis_index(over)
        placed = jnp.where(mine, jnp.broadcast_to(found[..., None, :], places), 0)
        return lax.psum(placed, over).reshape(*found.shape[:-1], -1)

    values, indices = of_all(values), of_all(indices + first_event(x.shape[-1], over))
    return jnp.take_along_axis(indices, lax.top_k(values, k)[1], -1)


def _likeliest_of_stretches(x, k):
    # Stretches fit the shards, so sharded classes are not moved.
    v, groups = x.shape[-1], stretches(x.shape[-1])
    groups = groups if k <= v // groups else 1
    values, indices = _largest(x.reshape(*x.shape[:-1], groups, v // groups), k)
    indices += v // groups * lax.broadcasted_iota(indices.dtype, indices.shape, indices.ndim - 2)
    values, indices = (y.reshape(*x.shape[:-1], groups * k) for y in (values, indices))
    return jnp.take_along_axis(indices, lax.top_k(values, k)[1], -1)


def _largest(x, k):
    # With a recall of one this is exact, and unlike lax.top_k it does not gather a sharded batch.
    return lax.approx_max_k(x, k, recall_target=1.0)


def lift(loss: Callable[..., jax.Array], *, tail: str) -> Callable[..., jax.Array]:
    r"""Turns a loss $D(x, y)$ of logits into a loss of logits $x$ and a `TopK` of the targets $y$.

    Args:
        loss: A loss of logits on both sides.
        tail: What to assume of the unlisted classes of the targets. "renormalized": they have probability zero, and the
            listed ones are divided by their sum; without one it is `nan`, unless `where` leaves the example out.
            "bucket": they are merged into one class, on both sides; this is a lower bound of the loss over all classes.
            "uniform": they share the tail equally. "worst": the upper bound above.

    Returns:
        `(logits, top_k, *, temperature=1.0, axis_name=None, **options) -> [...]`, with the sign, zeros and infinities
        of `loss`. The classes are on the last axis, and a mask `where` is one of examples, `[..., 1]`. Gradients flow
        to the listed logits and to those of the tail. `temperature` divides the logits only, because a `TopK` is made
        at its own temperature; if `loss` requires a temperature, as `losses.distillation` does, it gets this one. An
        index beyond the last class makes the example `nan`. With "worst", the loss can be infinite, because an unlisted
        target may be 0. An unlisted class whose logit is `-inf` is taken to be impossible in the targets too, as if
        neither side had it. `axis_name` names the device axis or axes over which the logits, not the `TopK`, are
        sharded.

    Raises:
        ValueError: `axis` is not the last one, or `where` is not a mask of examples.
        TypeError: `loss` is one of single events or of target probabilities, or a partial that fixes its temperature.

    Example:
        >>> logits, teacher = jnp.zeros((1, 4)), jnp.log(jnp.array([[0.6, 0.2, 0.15, 0.05]]))
        >>> top = topk.from_logits(teacher, 2)
        >>> for tail in topk.TAILS:
        ...     print(f"{topk.lift(losses.forward_kl, tail=tail)(logits, top)[0]:.4f}", tail)
        0.8240 renormalized
        0.2974 bucket
        0.2974 uniform
        0.4360 worst
        >>> print(f"{losses.forward_kl(logits, teacher)[0]:.4f}")
        0.3236

    References:
        Csiszar, Information-type measures of difference of probability distributions and indirect observations, 1967:
        the data-processing inequality.
    """
    who = "topk.lift"
    _inputs.one_of(who, "tail", tail, TAILS)
    _inputs.loss_of_top_k(who, loss, bernoulli_kl)
    own = _needs_temperature(loss)

    def of_top_k(logits, top_k, *, temperature=1.0, axis_name=None, **options):
        x = _inputs.array(who, "logits", logits)
        work, dtype = _inputs.working(x), x.dtype
        indices = _inputs.top_k(who, top_k, x.shape)
        _inputs.options_of_top_k(who, options, x.ndim)
        x = x.astype(work) / _inputs.number(who, "temperature", temperature, x, work)
        counts = _counts(indices)
        known = jnp.where(counts, jnp.asarray(top_k.log_probs).astype(work), -jnp.inf)
        if top_k.log_tail is None:
            log_tail = _log_less(jnp.zeros_like(known[..., 0]), _log_sum_exp(known))
        else:
            log_tail = jnp.asarray(top_k.log_tail).astype(work)
        x, there, others = _split(x, indices, counts, axis_name)
        if tail == "uniform":
            spread = _spread(others, log_tail, axis_name)
            predictions, targets = x, _put(spread, _positions(x, indices, counts, axis_name), known)
            options |= {} if axis_name is None else {"axis_name": axis_name}
        else:
            predictions, targets = _CLASSES[tail](there, others, known, log_tail, axis_name)
        if own:  # the loss divides both sides by the temperature again
            predictions, targets = (_multiplied(y, temperature) for y in (predictions, targets))
            options["temperature"] = temperature
        return loss(predictions, targets, **options).astype(dtype)

    return of_top_k


def _needs_temperature(loss):
    """Whether a loss, such as `losses.distillation`, has a temperature without a default."""
    own = inspect.signature(loss).parameters.get("temperature")
    return own is not None and own.default is own.empty


def _multiplied(x, temperature):
    finite = jnp.isfinite(x)
    return jnp.where(finite, jnp.where(finite, x, 0) * jnp.asarray(temperature).astype(x.dtype), x)


def _with(x, *last):
    return jnp.concatenate([x, *(y[..., None] for y in last)], -1)


def _renormalized(there, others, known, log_tail, over):
    return _with(there, _log_sum_exp(others, over)), _with(known, jnp.full_like(log_tail, -jnp.inf))


def _bucket(there, others, known, log_tail, over):
    return _with(there, _log_sum_exp(others, over)), _with(known, log_tail)


def _spread(others, log_tail, over):
    possible = others > -jnp.inf
    count = _summed(jnp.sum(possible, -1), over)
    each = log_tail - jnp.log(jnp.maximum(count, 1).astype(log_tail.dtype))
    return jnp.where(possible, each[..., None], -jnp.inf)


def _worst(there, others, known, log_tail, over):
    least_known = jnp.min(jnp.where(known > -jnp.inf, known, jnp.inf), -1)
    mass = _log_sum_exp(others, over)
    least = _least(others, over)
    # The term is homogeneous, so n classes of probabilities (u, s) count as one class of (n u, n s). The n = tail / u
    # classes of the tail meet the least likely predictions; the rest of the predictions meets targets of 0.
    share = jnp.minimum(least + jnp.maximum(log_tail - least_known, 0), mass)
    share = jnp.where(log_tail == -jnp.inf, -jnp.inf, share)
    nothing = jnp.full_like(log_tail, -jnp.inf)
    return _with(there, share, _log_less(mass, share)), _with(known, log_tail, nothing)


_CLASSES: dict[str, Callable[..., Any]] = {
    "renormalized": _renormalized,
    "bucket": _bucket,
    "worst": _worst,
}

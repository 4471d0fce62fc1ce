r"""Losses in optax's convention: predictions first, one value per example, the caller reduces.

`losses.forward_kl(logits, target_logits)` is `[...]` for inputs `[..., k]`. The name states the direction: forward is
$\mathrm{KL}(\text{targets} \,\|\, \text{predictions})$. Both arguments are logits; log-probabilities are logits too.

| targets or predictions | loss |
|---|---|
| target probabilities, soft or one-hot | `with_probs(loss)`, `forward_kl_with_probs`, `cross_entropy_with_probs` |
| integer labels | `cross_entropy_with_labels` |
| many independent yes-or-no events | `bernoulli_kl` |
| means and log-scales of normal distributions | `standard_normal_kl`, `gaussian_kl` |

These rules hold for every loss:

- `axis` is the axis of the events (the classes), or a tuple of axes that together hold the events. Predictions and
  targets have equal shapes.
- `where` broadcasts against the inputs. Entries where it is False have probability zero on both sides, whatever values
  they hold, and get gradient 0. If an example has no True entry, its loss is 0. To mask whole examples, give the mask
  an axis of length 1 in place of the events. A mask with one axis always runs along the last axis. A mask with more
  axes, but without the axis of the events, raises an error if it would fit in two ways.
- Logits are any real numbers. Probabilities passed as logits raise no error and give wrong results;
  `categorical.check` warns about them, on the host.
- `temperature` is a positive number. The kernel divides the logits of both sides by it.
- Gradients flow to both sides; use `jax.lax.stop_gradient` to stop them. Half-precision inputs are computed in float32.
- `axis_name` is for use inside `jax.shard_map`: it names the device axis or axes over which the events are sharded.
  Devices exchange a few numbers per example, never the events.
- Results are non-negative. They are in nats, except total variation, squared Hellinger and Amari's divergence, which
  have no unit. An example that contains `nan` is `nan`. Where a value is `inf`, gradients are finite or zero.
- A wrong shape raises ValueError and a dtype that is not floating-point raises TypeError, both while tracing.

Pass targets as arguments of a jitted function. If they are captured as constants, XLA spends seconds folding them.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.blocks import in_row_blocks
from jaxdiv._core.events import Events
from jaxdiv._core.functions import of_moderate_size, or_one, over_count, times, weighed
from jaxdiv._core.jit import jitted
from jaxdiv._core.rules import custom_jvp
from jaxdiv._discrete import binary, terms
from jaxdiv._discrete import logits as _logits
from jaxdiv._discrete.labels import cross_entropy as of_labels
from jaxdiv._discrete.softmax import first_event
from jaxdiv._gaussian import log_scales

Axis = int | tuple[int, ...]
AxisName = str | tuple[str, ...] | None
Loss = Callable[..., jax.Array]


class _Options(NamedTuple):
    """The options of every loss of logits."""

    axis: Axis
    where: ArrayLike | None
    temperature: ArrayLike
    axis_name: AxisName


def _lift(
    who: str,
    verb: _logits.Verb,
    p: tuple[str, ArrayLike],
    q: tuple[str, ArrayLike],
    options: _Options,
    **parameters: ArrayLike,
) -> jax.Array:
    """The value of a verb over the events of two named arrays; the other axes keep their order."""
    axis, where, temperature, over = options
    (x, y), axes, dtype = _inputs.batch(who, p, q, axis)
    supported = None
    if where is not None:
        mask = _inputs.mask(who, where, x.shape, axes)
        supported = _any_event(mask, axes, over)
        # An example without support compares two uniform distributions, so its gradient is 0.
        x, y = (jnp.where(supported, jnp.where(mask, z, -jnp.inf), 0) for z in (x, y))
    others = [n for i, n in enumerate(x.shape) if i not in axes]
    (x, events), (y, _) = (_rows(z, axes, over) for z in (x, y))
    work = _inputs.working(x, y)
    numbers = {name: _inputs.number(who, name, number, x, work) for name, number in parameters.items()}
    divisor = _inputs.temperature(who, temperature, x, work)
    value = _logits.evaluate(verb, x, y, divisor, **numbers, events=events).astype(dtype).reshape(others)
    return value if supported is None else jnp.where(jnp.squeeze(supported, axes), value, 0)


def _any_event(mask, axes, over):
    """Whether the mask has a True entry for an example, on any device."""
    found = jnp.any(mask, axes, keepdims=True)
    return found if over is None else jax.lax.pmax(found.astype(jnp.int32), over) > 0


def _last(x, axes):
    """Moves the axes to the end and merges them into one."""
    moved = jnp.moveaxis(x, axes, range(-len(axes), 0))
    size = math.prod(x.shape[i] for i in axes)  # not -1: it cannot be inferred for an empty batch
    return moved.reshape(*moved.shape[: x.ndim - len(axes)], size)


def _rows(x, axes, over):
    """Merges the axes into one, and says where it is: in place if they are neighbours, else last."""
    first, end = min(axes), max(axes) + 1
    if end == x.ndim or end - first > len(axes):
        return _last(x, axes), Events(over=over)
    # In place, no array is transposed, and each event is a vector over the axes that follow.
    shape = *x.shape[:first], math.prod(x.shape[first:end]), math.prod(x.shape[end:])
    return x.reshape(shape), Events(-2, over)


@custom_jvp
def _log(probs):
    """The logarithm, with derivative 0 where it is -inf."""
    return jnp.log(probs)


_log.defjvps(lambda d, _, probs: jnp.where(probs == 0, 0, d / or_one(probs)))


def _log_probs(who, target_probs):
    """Target probabilities, and their logarithms at least in float32."""
    target_probs = _inputs.array(who, "target_probs", target_probs)
    return target_probs, _log(target_probs.astype(_inputs.working(target_probs)))


def _lift_probs(who, verb, logits, target_probs, options):
    """`_lift` for target probabilities; the targets are the verb's first argument."""
    target_probs, targets = _log_probs(who, target_probs)
    value = _lift(who, verb, ("target_probs", targets), ("logits", logits), options)
    return value.astype(_inputs.promoted(jnp.asarray(logits), target_probs))


def with_probs(loss: Loss) -> Loss:
    r"""Turns a loss $D(x, y)$ of logits into the loss $D(x, \log t)$ of target probabilities $t$, soft or one-hot.

    Args:
        loss: A loss of predicted logits and target logits of classes, from this module or your own. The result can be
            pickled if `loss` can.

    Returns:
        A function `(logits, target_probs, *others, **options) -> [...]`. The probabilities `[..., k]` are non-negative
        and not all zero; the function normalises them. Options, unit, zeros and infinities are those of `loss`. The
        dtype is the promoted one of both arguments.

    Example:
        >>> loss = losses.with_probs(losses.js)
        >>> print(f"{loss(jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]]))[0]:.4f}")
        0.0338
    """
    _inputs.loss_of_classes("losses.with_probs", loss, bernoulli_kl)
    return functools.partial(_of_probs, loss)


def _of_probs(loss, logits, target_probs, *others, **options):
    target_probs, targets = _log_probs("losses.with_probs", target_probs)
    value = loss(logits, targets, *others, **options)
    return value.astype(_inputs.promoted(jnp.asarray(logits), target_probs))


@functools.partial(jitted, static=("axis", "axis_name"))
def forward_kl(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Forward KL divergence $\mathrm{KL}(t \| p) = \sum_i t_i \log (t_i / p_i)$ of targets $t$ and predictions $p$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: 0 where predictions and targets agree; `inf` where a prediction has probability zero and its
        target has not.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.forward_kl(logits, jnp.log(targets))[0]:.4f}")
        0.1308

    References:
        Kullback and Leibler, On information and sufficiency, 1951.
    """
    who, p, q = "losses.forward_kl", ("target_logits", target_logits), ("logits", logits)
    options = _Options(axis, where, temperature, axis_name)
    return _lift(who, terms.kl, p, q, options)


@functools.partial(jitted, static=("axis", "axis_name"))
def reverse_kl(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Reverse KL divergence $\mathrm{KL}(p \| t) = \sum_i p_i \log (p_i / t_i)$ of predictions $p$ and targets $t$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: 0 where predictions and targets agree; `inf` where a target has probability zero and its
        prediction has not.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.reverse_kl(logits, jnp.log(targets))[0]:.4f}")
        0.1438

    References:
        Kullback and Leibler, On information and sufficiency, 1951. Minka, Divergence measures and message passing,
        2005.
    """
    who, p, q = "losses.reverse_kl", ("logits", logits), ("target_logits", target_logits)
    options = _Options(axis, where, temperature, axis_name)
    return _lift(who, terms.kl, p, q, options)


@functools.partial(jitted, static=("axis", "axis_name"))
def jeffreys(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Jeffreys divergence $\mathrm{KL}(t \,\|\, p) + \mathrm{KL}(p \,\|\, t)$ of targets $t$ and predictions $p$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: 0 where predictions and targets agree; symmetric; `inf` where exactly one of the two has
        probability zero.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.jeffreys(logits, jnp.log(targets))[0]:.4f}")
        0.2747

    References:
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946.
    """
    who, p, q = "losses.jeffreys", ("logits", logits), ("target_logits", target_logits)
    options = _Options(axis, where, temperature, axis_name)
    return _lift(who, terms.jeffreys, p, q, options)


@functools.partial(jitted, static=("axis", "axis_name"))
def js(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    weight: ArrayLike = 0.5,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Jensen-Shannon divergence $w\,\mathrm{KL}(p \| m) + (1 - w)\,\mathrm{KL}(t \| m)$ with $m = w p + (1 - w) t$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        weight: The weight $w \in [0, 1]$ of the predictions $p$, the first argument; the targets $t$ have $1 - w$.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: in $[0, \log 2]$; 0 where predictions and targets agree; always finite, even with zeros.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.js(logits, jnp.log(targets))[0]:.4f}")
        0.0338

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991.
    """
    who, p, q = "losses.js", ("logits", logits), ("target_logits", target_logits)
    options = _Options(axis, where, temperature, axis_name)
    if _inputs.is_default(weight, 0.5):
        return _lift(who, terms.js, p, q, options)
    return _lift(who, terms.skewed_js, p, q, options, weight=weight)


@functools.partial(jitted, static=("axis", "axis_name"))
def total_variation(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Total variation $\tfrac12 \sum_i |p_i - t_i|$ of predictions $p$ and targets $t$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, without unit: in $[0, 1]$; 0, with gradient 0, where predictions and targets agree; 1 for disjoint
        supports.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.total_variation(logits, jnp.log(targets))[0]:.4f}")
        0.2500

    References:
        Tsybakov, Introduction to nonparametric estimation, 2009.
    """
    who, p, q = "losses.total_variation", ("logits", logits), ("target_logits", target_logits)
    options = _Options(axis, where, temperature, axis_name)
    return _lift(who, terms.total_variation, p, q, options)


@functools.partial(jitted, static=("axis", "axis_name"))
def squared_hellinger(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Squared Hellinger distance $1 - \sum_i \sqrt{p_i t_i}$ of predictions $p$ and targets $t$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, without unit: in $[0, 1]$; 0 where predictions and targets agree; 1 for disjoint supports.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.squared_hellinger(logits, jnp.log(targets))[0]:.4f}")
        0.0341

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986.
    """
    who, p, q = "losses.squared_hellinger", ("logits", logits), ("target_logits", target_logits)
    options = _Options(axis, where, temperature, axis_name)
    return _lift(who, terms.squared_hellinger, p, q, options)


@functools.partial(jitted, static=("axis", "axis_name"))
def renyi(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    alpha: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Renyi divergence $\frac{1}{\alpha - 1} \log \sum_i t_i^\alpha p_i^{1 - \alpha}$ of targets from predictions.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        alpha: The order in $[0, \infty]$; order 1 is `forward_kl`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: 0 where predictions and targets agree; `inf` for disjoint supports, and for $\alpha \ge 1$
        where a prediction has probability zero and its target has not.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.renyi(logits, jnp.log(targets), alpha=2)[0]:.4f}")
        0.2231

    References:
        van Erven and Harremoes, Renyi divergence and Kullback-Leibler divergence, 2014.
    """
    who, p, q = "losses.renyi", ("target_logits", target_logits), ("logits", logits)
    options = _Options(axis, where, temperature, axis_name)
    return _lift(who, _logits.renyi, p, q, options, alpha=alpha)


@functools.partial(jitted, static=("axis", "axis_name"))
def amari(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    alpha: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Amari divergence $(1 - \sum_i t_i^\alpha p_i^{1 - \alpha}) / (\alpha (1 - \alpha))$ of targets and predictions.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        alpha: Any real order; the limit at 1 is `forward_kl`, that at 0 is `reverse_kl`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, without unit: 0 where predictions and targets agree; `inf` for $\alpha \ge 1$ where only a prediction
        has probability zero, and for $\alpha \le 0$ where only a target has.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.amari(logits, jnp.log(targets), alpha=2)[0]:.4f}")
        0.1250

    References:
        Cichocki and Amari, Families of alpha- beta- and gamma-divergences, 2010.
    """
    who, p, q = "losses.amari", ("target_logits", target_logits), ("logits", logits)
    options = _Options(axis, where, temperature, axis_name)
    return _lift(who, terms.amari, p, q, options, alpha=alpha)


@functools.partial(jitted, static=("axis", "axis_name"))
def cross_entropy(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Cross-entropy $-\sum_i t_i \log p_i$ of targets $t$ and predictions $p$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: at least the entropy of the targets; `inf` where a prediction has probability zero and its
        target has not.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.cross_entropy(logits, jnp.log(targets))[0]:.4f}")
        0.6931

    References:
        Cover and Thomas, Elements of information theory, 2006.
    """
    who, p, q = "losses.cross_entropy", ("target_logits", target_logits), ("logits", logits)
    _inputs.no_labels(who, *p)
    options = _Options(axis, where, temperature, axis_name)
    return _lift(who, terms.cross_entropy, p, q, options)


@functools.partial(jitted, static=("axis", "axis_name"))
def generalized_js(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    beta: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""GKD's JS, $\beta\,\mathrm{KL}(t \| m) + (1 - \beta)\,\mathrm{KL}(p \| m)$ with $m = \beta t + (1 - \beta) p$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        beta: The weight $\beta \in [0, 1]$ of the targets $t$; the predictions $p$ have $1 - \beta$. The loss equals
            `js` with `weight=1 - beta`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: in $[0, \log 2]$; 0 where predictions and targets agree, and for a beta of 0 or 1; always
        finite, even with zeros.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.generalized_js(logits, jnp.log(targets), beta=0.5)[0]:.4f}")
        0.0338

    References:
        Agarwal et al., On-policy distillation of language models: learning from self-generated mistakes, 2024.
    """
    who, p, q = "losses.generalized_js", ("target_logits", target_logits), ("logits", logits)
    options = _Options(axis, where, temperature, axis_name)
    return _lift(who, _logits.generalized_js, p, q, options, beta=beta)


@functools.partial(jitted, static=("axis", "axis_name"))
def rescaled_js(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    beta: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""`generalized_js` divided by $\beta (1 - \beta)$, which tends to a KL divergence at both ends.

    It is $\mathrm{KL}(t \| p)$ at $\beta = 0$ and $\mathrm{KL}(p \| t)$ at $\beta = 1$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        beta: The weight $\beta \in [0, 1]$ of the targets $t$. The value is continuous at both ends.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: 0 where predictions and targets agree; finite for $0 < \beta < 1$, even with zeros; at the
        ends `inf` where those KL divergences are.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.rescaled_js(logits, jnp.log(targets), beta=0.5)[0]:.4f}")
        0.1353

    References:
        Agarwal et al., On-policy distillation of language models: learning from self-generated mistakes, 2024.
    """
    who, p, q = "losses.rescaled_js", ("target_logits", target_logits), ("logits", logits)
    options = _Options(axis, where, temperature, axis_name)
    return _lift(who, _logits.rescaled_js, p, q, options, beta=beta)


@functools.partial(jitted, static=("axis", "axis_name"))
def forward_kl_with_probs(
    logits: ArrayLike,
    target_probs: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Forward KL divergence $\mathrm{KL}(t \| p) = \sum_i t_i \log (t_i / p_i)$ of targets $t$ and predictions $p$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_probs: Target probabilities `[..., k]`, non-negative, not all zero.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits and the logarithms of the targets; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: 0 where predictions and targets agree; `inf` where a prediction has probability zero and its
        target has not.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.forward_kl_with_probs(logits, targets)[0]:.4f}")
        0.1308

    References:
        Kullback and Leibler, On information and sufficiency, 1951.
    """
    options = _Options(axis, where, temperature, axis_name)
    return _lift_probs("losses.forward_kl_with_probs", terms.kl, logits, target_probs, options)


@functools.partial(jitted, static=("axis", "axis_name"))
def cross_entropy_with_probs(
    logits: ArrayLike,
    target_probs: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Cross-entropy $-\sum_i t_i \log p_i$ of targets $t$ and predictions $p$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_probs: Target probabilities `[..., k]`, non-negative, not all zero.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits and the logarithms of the targets; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: at least the entropy of the targets; `inf` where a prediction has probability zero and its
        target has not.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.cross_entropy_with_probs(logits, targets)[0]:.4f}")
        0.6931

    References:
        Cover and Thomas, Elements of information theory, 2006.
    """
    options = _Options(axis, where, temperature, axis_name)
    who = "losses.cross_entropy_with_probs"
    _inputs.no_labels(who, "target_probs", target_probs)
    return _lift_probs(who, terms.cross_entropy, logits, target_probs, options)


@functools.partial(jitted, static=("axis", "axis_name"))
def cross_entropy_with_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    label_smoothing: ArrayLike = 0.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Cross-entropy $-\log p_c$ of predictions $p$ and integer labels $c$, with or without label smoothing.

    With smoothing it is $-(1 - \epsilon) \log p_c - \epsilon \sum_i u_i \log p_i$ with the uniform distribution $u$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        labels: Integers `[...]`, one per example; they number the classes of all devices together. A negative label,
            such as -1 or -100 for padding, marks an example without a label.
        axis: The axis of the classes.
        where: A mask that broadcasts against the logits; True entries are the support.
        temperature: Divides the logits; a positive number.
        label_smoothing: $\epsilon \in [0, 1]$, the share of the uniform distribution over the support in the targets.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the classes are sharded.

    Returns:
        `[...]`, in nats, non-negative: 0, with gradient 0, for an example without a label or without support, whatever
        its logits; `inf`, with a finite gradient, where the label has probability zero (for instance outside of the
        support); `nan` for a label beyond the last class. With smoothing it is `inf` where any class of the support has
        probability zero.

    Example:
        >>> logits, labels = jnp.log(jnp.array([[0.25, 0.75], [0.25, 0.75]])), jnp.array([1, -100])
        >>> print(" ".join(f"{x:.4f}" for x in losses.cross_entropy_with_labels(logits, labels)))
        0.2877 0.0000
        >>> print(f"{losses.cross_entropy_with_labels(logits, labels, label_smoothing=0.1)[0]:.4f}")
        0.3426

    References:
        Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, Rethinking the inception architecture for computer vision, 2016:
        label smoothing.
    """
    who = "losses.cross_entropy_with_labels"
    x, labels = _inputs.array(who, "logits", logits), jnp.asarray(labels)
    _inputs.labels(who, labels, x.shape, axis)
    axes, work = (axis % x.ndim,), _inputs.working(x)
    labels = labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels  # an int8 cannot count 300 classes
    label, mask = jnp.expand_dims(labels, axis), None
    counts = label >= 0
    if where is not None:
        mask = _inputs.mask(who, where, x.shape, axes)
        counts &= _any_event(mask, axes, axis_name)
        x = jnp.where(mask | ~counts, x, -jnp.inf)
    (rows, events), (label, _), (counted, _) = (_rows(z, axes, axis_name) for z in (x, label, counts))
    label = label.astype(jnp.int32) - first_event(x.shape[axis], axis_name)
    divisor = _inputs.temperature(who, temperature, rows, work)
    value = of_labels(rows, label, counted, divisor, events=events).reshape(labels.shape)
    if not _inputs.is_default(label_smoothing, 0):
        share = _inputs.number(who, "label_smoothing", label_smoothing, value, work)
        # An example that does not count compares two uniform distributions, so its gradient is 0.
        wide = jnp.where(counts, x, 0).astype(work)
        even = jnp.zeros_like(wide)
        even = even if mask is None else jnp.where(mask | ~counts, even, -jnp.inf)
        options = _Options(axis, None, temperature, axis_name)
        smooth = _lift(who, terms.cross_entropy, ("labels", even), ("logits", wide), options)
        value = times(1 - share, value) + times(share, smooth)
    largest = x.shape[axis] * (1 if axis_name is None else jax.lax.psum(1, axis_name)) - 1
    value *= jnp.where(labels > largest, jnp.nan, 1)  # a product, so that gradients are NaN too
    return jnp.where(jnp.squeeze(counts, axis), value, 0).astype(x.dtype)


@jitted
def bernoulli_kl(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> jax.Array:
    r"""Forward KL divergence $\sum_{i \in \{0, 1\}} t_i \log (t_i / p_i)$ of each of many yes-or-no events.

    Args:
        logits: Logits $a$ of the predictions $p_1 = 1 / (1 + e^{-a})$, of any shape; `inf` and `-inf` are probabilities
            one and zero.
        target_logits: Logits of the targets $t_1$, of the shape of `logits`.
        where: A mask that broadcasts against the inputs; the result is 0 where it is False, whatever the inputs.
        temperature: Divides the logits of both sides; a positive number.

    Returns:
        In nats, in the shape of the inputs (no axis is reduced): 0 where predictions and targets agree; `inf` where a
        prediction gives probability zero to an outcome that its target allows.

    Example:
        >>> logits, targets = jnp.zeros(2), jnp.array([0.0, jnp.log(3.0)])
        >>> print(" ".join(f"{x:.4f}" for x in losses.bernoulli_kl(logits, targets)))
        0.0000 0.1308

    References:
        Kullback and Leibler, On information and sufficiency, 1951.
    """
    who = "losses.bernoulli_kl"
    (x, y), dtype = _inputs.alike(who, logits=logits, target_logits=target_logits)
    if where is not None:
        mask = _inputs.mask(who, where, x.shape)
        x, y = (jnp.where(mask, z, 0) for z in (x, y))
    work = _inputs.working(x, y)
    divisor = _inputs.temperature(who, temperature, x, work)
    return binary.total(terms.kl, y.astype(work), x.astype(work), divisor).astype(dtype)


@functools.partial(jitted, static=("axis", "axis_name"))
def js_of(
    logits_of_views: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Jensen-Shannon divergence $\sum_j w_j \mathrm{KL}(p_j \| m)$, $m = \sum_j w_j p_j$, of n views per example.

    Args:
        logits_of_views: Logits `[n, ..., k]`, the views on the first axis; `-inf` is probability zero.
        weights: Weights $w$ `[n]`, non-negative; they are divided by their sum. Equal by default.
        axis: The axis or axes of the events; not the first.
        where: A mask that broadcasts against one view; True entries are the support of all views.
        temperature: Divides the logits; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: in $[0, H(w)]$, so at most $\log n$; 0 where all views agree; always finite, even with zeros.

    Example:
        >>> views = jnp.log(jnp.array([[[0.5, 0.5]], [[0.25, 0.75]], [[0.5, 0.5]]]))
        >>> print(f"{losses.js_of(views)[0]:.4f}")
        0.0297

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991. Hendrycks et al., AugMix: a simple data processing
        method to improve robustness and uncertainty, 2020.
    """
    who = "losses.js_of"
    x = _inputs.array(who, "logits_of_views", logits_of_views)
    w, work = _inputs.weights_of_views(who, x, weights), _inputs.working(x)
    axes = _inputs.distinct_axes(who, "logits_of_views", x, axis)
    _inputs.axes_of_one_view(who, x, axis, axes)
    supported = None
    if where is not None:
        mask = _inputs.mask(who, where, x.shape[1:], tuple(a - 1 for a in axes))[None]
        supported = _any_event(mask, axes, axis_name)
        x = jnp.where(supported, jnp.where(mask, x, -jnp.inf), 0)
    rows = _last(x, axes)
    w = w.astype(work).reshape(-1, *(1,) * (rows.ndim - 1))
    value = _logits.js_of(
        rows, w, _inputs.temperature(who, temperature, rows, work), events=Events(over=axis_name)
    ).astype(x.dtype)
    return value if supported is None else jnp.where(jnp.squeeze(supported, axes)[0], value, 0)


@functools.partial(jitted, static=("axis", "axis_name"))
def distillation(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    temperature: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Distillation $T^2\, \mathrm{KL}(\mathrm{softmax}(t / T) \| \mathrm{softmax}(s / T))$: teacher $t$, student $s$.

    The factor $T^2$ keeps the size of the gradient roughly constant when the temperature changes.

    Args:
        student_logits: Logits of the student, `[..., k]`.
        teacher_logits: Logits of the teacher, `[..., k]`.
        temperature: Divides both logits; a positive number.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: 0 where student and teacher agree; `inf` where the student has probability zero and the
        teacher has not.

    Example:
        >>> student, teacher = jnp.zeros((1, 2)), jnp.log(jnp.array([[0.25, 0.75]]))
        >>> print(f"{losses.distillation(student, teacher, temperature=2.0)[0]:.4f}")
        0.1454

    References:
        Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015.
    """
    who = "losses.distillation"
    p, q = ("teacher_logits", teacher_logits), ("student_logits", student_logits)
    return _lift(who, _softened_kl, p, q, _Options(axis, where, temperature, axis_name))


def _softened_kl(p, q, temperature, *, events):
    if temperature is None:
        return _logits.total(terms.kl, p, q, temperature, events=events)
    return _logits.total(terms.softened_kl, p, q, temperature, events=events, scale=temperature)


@functools.partial(jitted, static=("axis", "axis_name"))
def confidence_penalty(
    logits: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Divergence from uniform $\mathrm{KL}(p \,\|\, u) = \log k - H(p)$ of predictions $p$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the logits; the uniform distribution is over its True entries.
        temperature: Divides the logits; a positive number.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the events are sharded.

    Returns:
        `[...]`, in nats: 0 for equal logits; at most $\log k$, even with zeros.

    Example:
        >>> print(f"{losses.confidence_penalty(jnp.log(jnp.array([[0.25, 0.75]])))[0]:.4f}")
        0.1308

    References:
        Pereyra et al., Regularizing neural networks by penalizing confident output distributions, 2017.
    """
    who = "losses.confidence_penalty"
    logits = _inputs.array(who, "logits", logits)
    uniform, options = jnp.zeros_like(logits), _Options(axis, where, temperature, axis_name)
    return _lift(who, terms.kl, ("logits", logits), ("uniform", uniform), options)


# ---------------------------------------------------------------- normal components


@functools.partial(jitted, static=("axis", "axis_name"))
def standard_normal_kl(
    loc: ArrayLike,
    log_scale: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""KL divergence of $N(\mu, \sigma^2)$ to $N(0, 1)$, $\sum \tfrac12 (\mu^2 + \sigma^2 - 1 - \log \sigma^2)$.

    Args:
        loc: Means $\mu$, `[..., d]`.
        log_scale: Logarithms of standard deviations, $\log \sigma$, `[..., d]`; half of a log-variance.
        axis: The axis or axes of the components.
        where: A mask that broadcasts against the inputs; False entries are left out, whatever they hold.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the components are sharded.

    Returns:
        `[...]`, in nats: non-negative; exactly 0, with gradient exactly 0, at the standard normal; `inf`, with gradient
        0, on overflow.

    Example:
        >>> print(f"{losses.standard_normal_kl(jnp.ones((1, 2)), jnp.zeros((1, 2)))[0]:.4f}")
        1.0000

    References:
        Kingma and Welling, Auto-encoding variational Bayes, 2014.
    """
    who = "losses.standard_normal_kl"
    law, dtype = _components(who, where, axis=axis, loc=loc, log_scale=log_scale)
    return _sum_of_components(who, log_scales.kl_to_standard, law, axis, axis_name).astype(dtype)


@jitted
def standard_normal_kl_per_component(
    loc: ArrayLike, log_scale: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    r"""The summands $\tfrac12 (\mu^2 + \sigma^2 - 1 - \log \sigma^2)$ of `standard_normal_kl`, as used for free bits.

    Args:
        loc: Means, of any shape.
        log_scale: Logarithms of standard deviations, of the shape of `loc`.
        where: A mask that broadcasts against the inputs; the result is 0 where it is False.

    Returns:
        In nats, in the shape of `loc`: non-negative; exactly 0 at the standard normal; `inf`, with gradient 0, on
        overflow. The loss with free bits is `jnp.sum(jnp.maximum(free, terms), -1)`.

    Example:
        >>> terms = losses.standard_normal_kl_per_component(jnp.array([1.0, 0.0]), jnp.zeros(2))
        >>> print(f"{terms[0]:.4f} {terms[1]:.4f}")
        0.5000 0.0000

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, Improved variational inference with inverse
        autoregressive flow, 2016.
    """
    who = "losses.standard_normal_kl_per_component"
    law, dtype = _components(who, where, loc=loc, log_scale=log_scale)
    return log_scales.kl_to_standard(*law).astype(dtype)


@functools.partial(jitted, static=("axis", "axis_name"))
def gaussian_kl(
    loc: ArrayLike,
    log_scale: ArrayLike,
    prior_loc: ArrayLike,
    prior_log_scale: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""KL divergence of $N(\mu, \sigma^2)$ to a prior $N(\nu, \tau^2)$.

    $$\sum \tfrac12 \left(\frac{(\mu - \nu)^2}{\tau^2} + \frac{\sigma^2}{\tau^2} - 1
    - \log \frac{\sigma^2}{\tau^2}\right)$$

    Args:
        loc: Means $\mu$, `[..., d]`.
        log_scale: Logarithms of standard deviations, $\log \sigma$, `[..., d]`; half of a log-variance.
        prior_loc: Means $\nu$ of the prior; they broadcast against `loc`.
        prior_log_scale: Logarithms $\log \tau$ of its standard deviations; they broadcast against `loc`.
        axis: The axis or axes of the components.
        where: A mask that broadcasts against `loc`; False entries are left out, whatever they hold.
        axis_name: Inside `jax.shard_map`: the device axis or axes over which the components are sharded.

    Returns:
        `[...]`, in nats: non-negative; exactly 0, with gradient exactly 0, where the distributions are equal, and
        accurate when they are nearly equal; `inf`, with gradient 0, on overflow.

    Example:
        >>> loc, zeros = jnp.ones((1, 2)), jnp.zeros((1, 2))
        >>> print(f"{losses.gaussian_kl(loc, zeros, jnp.zeros(2), jnp.log(2.0))[0]:.4f}")
        0.8863

    References:
        Sonderby, Raiko, Maaloe, Sonderby and Winther, Ladder variational autoencoders, 2016.
    """
    who = "losses.gaussian_kl"
    prior = {"prior_loc": prior_loc, "prior_log_scale": prior_log_scale}
    laws, dtype = _components(who, where, prior, axis, loc=loc, log_scale=log_scale)
    return _sum_of_components(who, log_scales.kl_to_prior, laws, axis, axis_name).astype(dtype)


@jitted
def gaussian_kl_per_component(
    loc: ArrayLike,
    log_scale: ArrayLike,
    prior_loc: ArrayLike,
    prior_log_scale: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""The summands $\tfrac12 ((\mu - \nu)^2 / \tau^2 + r - 1 - \log r)$ of `gaussian_kl`, $r = \sigma^2 / \tau^2$.

    Args:
        loc: Means $\mu$, of any shape.
        log_scale: Logarithms of standard deviations, $\log \sigma$, of the shape of `loc`.
        prior_loc: Means $\nu$ of the prior; they broadcast against `loc`.
        prior_log_scale: Logarithms $\log \tau$ of its standard deviations; they broadcast against `loc`.
        where: A mask that broadcasts against `loc`; the result is 0 where it is False.

    Returns:
        In nats, in the shape of `loc`: non-negative; exactly 0, with gradient exactly 0, where the distributions are
        equal; `inf`, with gradient 0, on overflow.

    Example:
        >>> terms = losses.gaussian_kl_per_component(jnp.array([1.0, 0.0]), jnp.zeros(2), jnp.zeros(2), jnp.zeros(2))
        >>> print(f"{terms[0]:.4f} {terms[1]:.4f}")
        0.5000 0.0000

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, Improved variational inference with inverse
        autoregressive flow, 2016: free bits.
    """
    who = "losses.gaussian_kl_per_component"
    prior = {"prior_loc": prior_loc, "prior_log_scale": prior_log_scale}
    laws, dtype = _components(who, where, prior, loc=loc, log_scale=log_scale)
    return log_scales.kl_to_prior(*laws).astype(dtype)


def _components(who, where, prior=None, axis=None, **law):
    """The fields of a law and of its prior, in one shape and the working precision, and the dtype of the result."""
    fields, _ = _inputs.alike(who, **law)
    shape = fields[0].shape
    fields += [_inputs.broadcast(who, name, x, "loc", shape) for name, x in (prior or {}).items()]
    if where is not None:
        events = () if axis is None else _inputs.distinct_axes(who, "loc", fields[0], axis)
        where = _inputs.mask(who, where, shape, events)
        # Masked components become standard normal, on both sides: their divergence is 0.
        fields = [jnp.where(where, x, 0) for x in fields]
    return _inputs.in_working_precision(fields)


def _sum_of_components(who, kl, fields, axis, over):
    axes = _inputs.distinct_axes(who, "loc", fields[0], axis)
    total = _row_sums(kl)(*(_last(x, axes) for x in fields))[..., 0]
    return total if over is None else jax.lax.psum(total, over)


@functools.cache
def _row_sums(kl):
    """The sums of an elementwise function over the last axis, in blocks of rows."""
    sums = custom_jvp(functools.partial(in_row_blocks, lambda _, *fields: jnp.sum(kl(*fields), -1, keepdims=True)))

    @sums.defjvp
    def _(primals, tangents):
        return sums(*primals), jnp.sum(jax.jvp(kl, primals, tangents)[1], -1, keepdims=True)

    return sums


# ---------------------------------------------------------------- the reduction


@functools.partial(jitted, static=("axis_name",))
def mean(
    per_example: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    denominator: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> jax.Array:
    r"""The weighted mean $\sum_i w_i x_i / \sum_i w_i$ of a loss over the examples that count.

    To divide a batch into micro-batches or over devices, pass the sum of weights of the whole batch as `denominator`.
    The means of the parts then add up to the mean of the batch, and so do their gradients.

    Args:
        per_example: The loss of each example or token, `[...]`.
        where: A mask that broadcasts against `per_example`; examples where it is False do not count, whatever their
            loss.
        weights: Non-negative weights $w$ that broadcast against `per_example`, 1 by default. A weight of 0 acts as a
            mask.
        denominator: A number to divide by in place of the sum of weights.
        axis_name: Inside `jax.shard_map`: the device axis or axes to sum over as well.

    Returns:
        `[]`, in the units of the loss: 0, with gradient 0, if no example counts. The dtype is at least float32, because
        a half-precision mean would lose digits.

    Example:
        >>> tokens, mask = jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])
        >>> print(losses.mean(tokens, where=mask), losses.mean(tokens, where=mask, denominator=8))
        2.0 0.5
    """
    who = "losses.mean"
    x = _inputs.array(who, "per_example", per_example)
    work = _inputs.working(x)
    w = _inputs.weights(who, weights, where, x.shape, work)
    if weights is not None and denominator is None:
        w = of_moderate_size(w, axis_name)
    total = jnp.sum(weighed(w, x.astype(work)))
    count = jnp.sum(w) if denominator is None else _inputs.number(who, "denominator", denominator, total, work)
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
        count = jax.lax.psum(count, axis_name) if denominator is None else count
    return jnp.where(count == 0, 0, over_count(total, or_one(count)))

r"""Losses in optax's convention: predictions first, one value per example, the caller reduces.

`losses.forward_kl(logits, target_logits)` is `[...]` for inputs `[..., k]`. Direction is in the name: forward is
$\mathrm{KL}(\text{targets} \,\|\, \text{predictions})$. The plain name takes logits on both sides (log-probabilities
are logits). `losses.with_probs(loss)` takes target probabilities, soft labels or one-hot, and so do
`forward_kl_with_probs` and `cross_entropy_with_probs`: they are normalised as a softmax of their logarithms would.
Integer labels go to `cross_entropy_with_labels`, predictions of many independent events to `bernoulli_kl`, means and
log-scales of normal components to `standard_normal_kl` and `gaussian_kl`.

What holds throughout, and is not repeated below:

- `axis` is the axis of the events, or a tuple of axes that are events together. Predictions and targets have equal
  shapes.
- `where` broadcasts against the inputs; False entries are outside of the support on both sides, whatever they hold, and
  get gradient 0. An example without support is 0. A mask of examples has an axis of length 1 where the events are. A
  vector is always a mask along the last axis; a mask of more axes that lacks that of the events is refused where it
  would fit in two ways.
- Logits are any real numbers. Probabilities in their place are no error, but other distributions than meant:
  `categorical.check` warns of such, on the host, where data comes in.
- `temperature` divides both sides' logits inside the kernel; a positive number.
- Gradients flow to both sides: `jax.lax.stop_gradient` is the caller's. A half-precision input is computed in float32.
- `axis_name` names the axis or axes of devices over which the events are divided, inside `jax.shard_map`: devices
  exchange numbers of an example, never its events.
- Results are non-negative, and in nats; total variation, squared Hellinger and Amari's have no unit. An example with
  `nan` is `nan`; where a value is `inf`, gradients are finite or zero. `losses.mean` computes at least in float32.
- A wrong shape raises ValueError, a dtype that is not floating-point TypeError, while tracing.

Pass targets as arguments of a jitted function, never as captured constants: XLA would fold them for seconds.
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
from jaxdiv._core.functions import or_one, times, weighed
from jaxdiv._core.jit import jitted
from jaxdiv._discrete import logits as _logits
from jaxdiv._discrete import terms
from jaxdiv._discrete.softmax import first_event
from jaxdiv._gaussian import log_scales

Axis = int | tuple[int, ...]
AxisName = str | tuple[str, ...] | None
Loss = Callable[..., jax.Array]


class _Options(NamedTuple):
    """What every loss of logits takes: where its events are, which of them count, and at what temperature."""

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
    """A record's sum, or a function of `_logits`, over the events of two named arrays, in the order of other axes."""
    axis, where, temperature, over = options
    (x, y), axes, dtype = _inputs.batch(who, p, q, axis)
    supported = None
    if where is not None:
        mask = _inputs.mask(who, where, x.shape, axes)
        supported = _any_event(mask, axes, over)
        # An example without support compares two uniform laws, which keeps its gradient 0.
        x, y = (jnp.where(supported, jnp.where(mask, z, -jnp.inf), 0) for z in (x, y))
    others = [n for i, n in enumerate(x.shape) if i not in axes]
    (x, events), (y, _) = (_rows(z, axes, over) for z in (x, y))
    work = _inputs.working(x, y)
    numbers = {name: _inputs.number(who, name, number, x, work) for name, number in parameters.items()}
    divisor = _inputs.temperature(who, temperature, x, work)
    value = _logits.evaluate(verb, x, y, divisor, **numbers, events=events).astype(dtype).reshape(others)
    return value if supported is None else jnp.where(jnp.squeeze(supported, axes), value, 0)


def _any_event(mask, axes, over):
    """Whether an example has an event in the mask, of those of all devices."""
    found = jnp.any(mask, axes, keepdims=True)
    return found if over is None else jax.lax.pmax(found.astype(jnp.int32), over) > 0


def _last(x, axes):
    """The axes as one, the last."""
    moved = jnp.moveaxis(x, axes, range(-len(axes), 0))
    size = math.prod(x.shape[i] for i in axes)  # not -1, which no empty batch could infer
    return moved.reshape(*moved.shape[: x.ndim - len(axes)], size)


def _rows(x, axes, over):
    """The axes as one, and where it is: before all axes that follow if they are neighbours, and last if not."""
    first, end = min(axes), max(axes) + 1
    if end == x.ndim or end - first > len(axes):
        return _last(x, axes), Events(over=over)
    # Where they are, no array is transposed, and what is computed of an event is a vector over the axes that follow.
    shape = *x.shape[:first], math.prod(x.shape[first:end]), math.prod(x.shape[end:])
    return x.reshape(shape), Events(-2, over)


@jax.custom_jvp
def _log(probs):
    """The logarithm, with derivative 0 where it is -inf."""
    return jnp.log(probs)


_log.defjvps(lambda d, _, probs: jnp.where(probs == 0, 0, d / or_one(probs)))


def _log_probs(who, target_probs):
    """Target probabilities, and their logarithms at least in float32."""
    target_probs = _inputs.array(who, "target_probs", target_probs)
    return target_probs, _log(target_probs.astype(_inputs.working(target_probs)))


def _lift_probs(who, verb, logits, target_probs, options):
    """As `_lift`, of targets and predictions in this order, for target probabilities."""
    target_probs, targets = _log_probs(who, target_probs)
    value = _lift(who, verb, ("target_probs", targets), ("logits", logits), options)
    return value.astype(_inputs.promoted(jnp.asarray(logits), target_probs))


def with_probs(loss: Loss) -> Loss:
    r"""The loss $D(x, \log t)$ of target probabilities $t$, soft labels or one-hot, from a loss $D$ of logits.

    Args:
        loss: A loss of predicted logits and target logits, of this module or of one's own. Its name pickles: so does
            the result, if the loss does.

    Returns:
        `(logits, target_probs, *others, **options) -> [...]` for probabilities `[..., k]`, non-negative and not all
        zero, which are normalised as a softmax of their logarithms would; with the options, the unit, the zeros and
        the infinities of `loss`. Of the promoted dtype of both arguments.

    Example:
        >>> loss = losses.with_probs(losses.js)
        >>> print(f"{loss(jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]]))[0]:.4f}")
        0.0338
    """
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
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: 0 where they agree; `inf` where a prediction is zero and its target is not.

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
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: 0 where they agree; `inf` where a target is zero and its prediction is not.

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
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: 0 where they agree; symmetric; `inf` where exactly one of the two is zero.

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
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: in $[0, \log 2]$; 0 where they agree; never infinite, zeros included.

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
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, without unit: in $[0, 1]$; 0, with gradient 0, where they agree; 1 for disjoint supports, zeros
        included.

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
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, without unit: in $[0, 1]$; 0 where they agree; 1 for disjoint supports, zeros included.

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
        alpha: The order in $[0, \infty]$; 1 is `forward_kl`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: 0 where they agree; `inf` for disjoint supports, and for $\alpha \ge 1$ where a prediction
        is zero and its target is not.

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
    r"""Amari's divergence $(1 - \sum_i t_i^\alpha p_i^{1 - \alpha}) / (\alpha (1 - \alpha))$ of targets, predictions.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        alpha: Any real order; the limit 1 is `forward_kl`, 0 is `reverse_kl`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, without unit: 0 where they agree; `inf` for $\alpha \ge 1$ where only a prediction is zero, for $\alpha
        \le 0$ where only a target is.

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
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: at least the entropy of the targets; `inf` where a prediction is zero and its target is not.

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
        beta: The weight $\beta \in [0, 1]$ of the targets $t$; predictions $p$ have $1 - \beta$, as `js` with
            `weight=1 - beta`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: in $[0, \log 2]$; 0 where they agree and for a beta of 0 or 1; never infinite, zeros
        included.

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
    r"""`generalized_js` over $\beta (1 - \beta)$: $\mathrm{KL}(t \| p)$ at $\beta = 0$, $\mathrm{KL}(p \| t)$ at 1.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        beta: The weight $\beta \in [0, 1]$ of the targets $t$; continuous at both ends.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: 0 where they agree; finite, zeros included, except at the ends, where it is infinite as
        those divergences are.

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
        temperature: Divides the logits, and the logarithms of the targets; a positive number.
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: 0 where they agree; `inf` where a prediction is zero and its target is not.

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
        temperature: Divides the logits, and the logarithms of the targets; a positive number.
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: at least the entropy of the targets; `inf` where a prediction is zero and its target is not.

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
    r"""Cross-entropy $-\log p_c$ of predictions $p$ and integer labels $c$, or of smoothed ones.

    With label smoothing $-(1 - \epsilon) \log p_c - \epsilon \sum_i u_i \log p_i$, $u$ the uniform distribution.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        labels: Integers `[...]`, one to an example, that count the classes of all devices. A negative one, such as the
            -1 or -100 of padding, is no label.
        axis: The axis of the classes.
        where: A mask that broadcasts against the logits; True entries are the support.
        temperature: Divides the logits; a positive number.
        label_smoothing: $\epsilon \in [0, 1]$, the share of $u$, uniform over the support, in the targets.
        axis_name: The axis or axes of devices over which the classes are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: non-negative; 0, with gradient 0, for an example without a label or without support, whatever
        it holds; `inf`, with a finite gradient, where a label's probability is zero, as outside of the support; `nan`
        for a label beyond the last class. With smoothing `inf` where any class on the support has probability zero.

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
    dtype, work = x.dtype, _inputs.working(x)
    label = jnp.expand_dims(labels, axis)
    x, even, counts = x.astype(work), jnp.zeros_like(x, work), label >= 0
    if where is not None:
        mask = _inputs.mask(who, where, x.shape, (axis % x.ndim,))
        counts &= _any_event(mask, (axis,), axis_name)
        x, even = (jnp.where(mask | ~counts, z, -jnp.inf) for z in (x, even))
    # An example that does not count compares two uniform laws, which keeps its gradient 0.
    x = jnp.where(counts, x, 0)
    predictions, options = ("logits", x), _Options(axis, None, temperature, axis_name)
    hard = ("labels", _one_hot(x, label, axis, axis_name))
    value = _lift(who, terms.cross_entropy, hard, predictions, options)
    if not _inputs.is_default(label_smoothing, 0):
        share = _inputs.number(who, "label_smoothing", label_smoothing, value, work)
        smooth = _lift(who, terms.cross_entropy, ("labels", even), predictions, options)
        value = times(1 - share, value) + times(share, smooth)
    return jnp.where(jnp.squeeze(counts, axis), value, 0).astype(dtype)


def _one_hot(x, label, axis, over):
    """Logits of certainty at labels, uniform for negative ones; no class at all, hence NaN, for one beyond the last."""
    label = label.astype(jnp.int32) if label.dtype.itemsize < 4 else label  # an int8 cannot count 300 classes
    classes = jax.lax.broadcasted_iota(label.dtype, x.shape, axis % x.ndim) + first_event(x.shape[axis], over)
    # Added to a zero made of the logits by arithmetic, it is divided over devices as they are.
    return 0 * (x == x).astype(x.dtype) + jnp.where((classes == label) | (label < 0), 0, -jnp.inf).astype(x.dtype)


@jitted
def bernoulli_kl(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> jax.Array:
    r"""Forward KL divergence $\sum_{i \in \{0, 1\}} t_i \log (t_i / p_i)$ of each of many events.

    Args:
        logits: Logits $a$ of the predictions $p_1 = 1 / (1 + e^{-a})$, of any shape; infinite ones are certainty.
        target_logits: Logits of the targets $t_1$, of the shape of `logits`.
        where: A mask that broadcasts against the inputs; False entries are 0, whatever they hold.
        temperature: Divides the logits of both sides; a positive number.

    Returns:
        In nats, of the shape of the inputs, no axis reduced: 0 where they agree; `inf` where a prediction rules out
        what its target does not.

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
    p, q = _logits.of_two_events(y), _logits.of_two_events(x)
    return _logits.total(terms.kl, p, q, _inputs.temperature(who, temperature, p, _inputs.working(p, q))).astype(dtype)


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
    r"""Jensen-Shannon divergence $\sum_j w_j \mathrm{KL}(p_j \| m)$, $m = \sum_j w_j p_j$, of n views of an example.

    Args:
        logits_of_views: Logits `[n, ..., k]`, the views on the first axis; `-inf` is probability zero.
        weights: Weights $w$ `[n]`, non-negative and of sum one; equal ones by default.
        axis: The axis or axes of the events; not the first.
        where: A mask that broadcasts against one view; True entries are the support of all.
        temperature: Divides the logits; a positive number.
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: in $[0, H(w)]$, so at most $\log n$; 0 where all views agree; never infinite, zeros included.

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

    The factor $T^2$ keeps the size of the gradient when the temperature changes.

    Args:
        student_logits: Logits of the student, `[..., k]`.
        teacher_logits: Logits of the teacher, `[..., k]`.
        temperature: Divides both logits; a positive number.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: 0 where student and teacher agree; `inf` where the student is zero and the teacher is not.

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
    value = _logits.total(terms.kl, p, q, temperature, events=events)
    return value if temperature is None else times(temperature[..., 0] ** 2, value)


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
        axis_name: The axis or axes of devices over which the events are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: 0 for equal logits, at most $\log k$, zeros included.

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
        axis_name: The axis or axes of devices over which the components are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: non-negative; exactly 0, with gradient exactly 0, at the standard law; `inf` above the largest
        float, where gradients are 0.

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
    r"""The summands $\tfrac12 (\mu^2 + \sigma^2 - 1 - \log \sigma^2)$ of `standard_normal_kl`, as for free bits.

    Args:
        loc: Means, of any shape.
        log_scale: Logarithms of standard deviations, of the shape of `loc`.
        where: A mask that broadcasts against the inputs; False entries are 0.

    Returns:
        In nats, of the shape of `loc`: non-negative; exactly 0 at the standard law; `inf` above the largest float,
        where gradients are 0. With free bits `jnp.sum(jnp.maximum(free, terms), -1)`.

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
        prior_loc: Means $\nu$ of the prior, which broadcast against `loc`.
        prior_log_scale: Logarithms $\log \tau$ of its standard deviations, which broadcast against `loc`.
        axis: The axis or axes of the components.
        where: A mask that broadcasts against `loc`; False entries are left out, whatever they hold.
        axis_name: The axis or axes of devices over which the components are divided, inside `jax.shard_map`.

    Returns:
        `[...]`, in nats: non-negative; exactly 0, with gradient exactly 0, where the laws are equal, and accurate near
        there; `inf` above the largest float, where gradients are 0.

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
        prior_loc: Means $\nu$ of the prior, which broadcast against `loc`.
        prior_log_scale: Logarithms $\log \tau$ of its standard deviations, which broadcast against `loc`.
        where: A mask that broadcasts against `loc`; False entries are 0.

    Returns:
        In nats, of the shape of `loc`: non-negative; exactly 0, with gradient exactly 0, where the laws are equal;
        `inf` above the largest float, where gradients are 0.

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
    """The fields of a law and its prior, all of one shape and in the working precision, and the dtype of a result."""
    fields, _ = _inputs.alike(who, **law)
    shape = fields[0].shape
    fields += [_inputs.broadcast(who, name, x, "loc", shape) for name, x in (prior or {}).items()]
    if where is not None:
        events = () if axis is None else _inputs.distinct_axes(who, "loc", fields[0], axis)
        where = _inputs.mask(who, where, shape, events)
        # Standard laws, of divergence 0, whatever is there.
        fields = [jnp.where(where, x, 0) for x in fields]
    return _inputs.in_working_precision(fields)


def _sum_of_components(who, kl, fields, axis, over):
    axes = _inputs.distinct_axes(who, "loc", fields[0], axis)
    total = _row_sums(kl)(*(_last(x, axes) for x in fields))[..., 0]
    return total if over is None else jax.lax.psum(total, over)


@functools.cache
def _row_sums(kl):
    """The sums of an elementwise function over the last axis, in blocks of rows."""
    sums = jax.custom_jvp(functools.partial(in_row_blocks, lambda _, *fields: jnp.sum(kl(*fields), -1, keepdims=True)))

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

    With `denominator`, the sum of weights of the whole batch, the means of its parts add up to the mean of the batch:
    the same gradient however it is divided into micro-batches or over devices.

    Args:
        per_example: The loss of each example or token, `[...]`.
        where: A mask that broadcasts against it; an example that is False does not count, whatever it holds.
        weights: Weights $w$ that broadcast against it, not negative; a weight of 0 is as good as a mask. 1 by default.
        denominator: A number to divide by in place of the sum of weights.
        axis_name: The axis or axes of devices, inside `jax.shard_map`, over which the sums go as well.

    Returns:
        `[]`, in the units of the loss: 0, with gradient 0, if no example counts. At least in float32, also of a
        half-precision loss, whose mean would lose digits that its sum has.

    Example:
        >>> tokens, mask = jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])
        >>> print(losses.mean(tokens, where=mask), losses.mean(tokens, where=mask, denominator=8))
        2.0 0.5
    """
    who = "losses.mean"
    x = _inputs.array(who, "per_example", per_example)
    work = _inputs.working(x)
    w = _inputs.weights(who, weights, where, x.shape, work)
    total = jnp.sum(weighed(w, x.astype(work)))
    count = jnp.sum(w) if denominator is None else _inputs.number(who, "denominator", denominator, total, work)
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
        count = jax.lax.psum(count, axis_name) if denominator is None else count
    return jnp.where(count == 0, 0, total / or_one(count))

r"""Losses in optax's convention: predictions first, one value per example, the caller reduces.

`losses.forward_kl(logits, target_logits)` is `[...]` for inputs `[..., k]`. Direction is in the name: forward is
$\mathrm{KL}(\text{targets} \,\|\, \text{predictions})$. The plain name takes logits on both sides (log-probabilities
are logits); `_with_probs` takes target probabilities, soft labels or one-hot, and normalises them as a softmax of
their logarithms would.

What holds throughout, and is not repeated below:

- `axis` is the axis of the events, or a tuple of axes that are events together. Predictions and targets have equal
  shapes.
- `where` broadcasts against the inputs; False entries are outside of the support on both sides, whatever they hold, and
  get gradient 0. An example without support is 0.
- `temperature` divides both sides' logits inside the kernel; a positive number.
- Gradients flow to both sides: `jax.lax.stop_gradient` is the caller's. A half-precision input is computed in float32.
- Results are non-negative and in nats. An example with `nan` is `nan`; where a value is `inf`, gradients are finite
  or zero.
- A wrong shape raises ValueError, a dtype that is not floating-point TypeError, while tracing.

Pass targets as arguments of a jitted function, never as captured constants: XLA would fold them for seconds.
"""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.blocks import in_row_blocks
from jaxdiv._core.functions import expm1, expm1x, or_one
from jaxdiv._core.jit import jitted
from jaxdiv._discrete import logits as _logits
from jaxdiv._discrete import terms

Axis = int | tuple[int, ...]
AxisName = str | tuple[str, ...] | None


def _lift(
    who: str,
    verb: _logits.Verb,
    p: Mapping[str, ArrayLike],
    q: Mapping[str, ArrayLike],
    axis: Axis,
    where: ArrayLike | None,
    temperature: ArrayLike = 1.0,
    *,
    axis_name: AxisName = None,
    **parameters: ArrayLike,
) -> jax.Array:
    """A record's sum, or a function of `_logits`, over `axis` of two arrays `{name: logits}`, others in their order."""
    x, y, axes, dtype = _inputs.batch(who, p, q, axis)
    supported = None
    if where is not None:
        mask = _inputs.mask(who, where, x.shape)
        supported = jnp.any(mask, axes, keepdims=True)
        if axis_name is not None:
            supported = jax.lax.pmax(supported.astype(jnp.int32), axis_name) > 0
        # An example without support compares two uniform laws, which keeps its gradient 0.
        x, y = (jnp.where(supported, jnp.where(mask, z, -jnp.inf), 0) for z in (x, y))
    events_last = [jnp.moveaxis(z, axes, range(-len(axes), 0)) for z in (x, y)]
    events = math.prod(x.shape[i] for i in axes)  # not -1, which no empty batch could infer
    x, y = (z.reshape(*z.shape[: -len(axes)], events) for z in events_last)
    work = _inputs.working(x, y)
    numbers = {name: _inputs.number(who, name, number, x, work) for name, number in parameters.items()}
    divided = {} if axis_name is None else {"over": axis_name}
    divisor = _inputs.temperature(who, temperature, x, work)
    value = _logits.evaluate(verb, x, y, divisor, **numbers, **divided).astype(dtype)
    return value if supported is None else jnp.where(jnp.squeeze(supported, axes), value, 0)


@jax.custom_jvp
def _log(probs):
    """The logarithm, with derivative 0 where it is -inf."""
    return jnp.log(probs)


_log.defjvps(lambda d, _, probs: jnp.where(probs == 0, 0, d / or_one(probs)))


def _logits_of(who, target_probs):
    """Target probabilities as logits, at least in float32."""
    target_probs = _inputs.array(who, "target_probs", target_probs)
    return _log(target_probs.astype(_inputs.working(target_probs)))


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
        Kullback and Leibler, On information and sufficiency, 1951, equation 2.4.
    """
    who, p, q = "losses.forward_kl", {"target_logits": target_logits}, {"logits": logits}
    return _lift(who, terms.kl, p, q, axis, where, temperature, axis_name=axis_name)


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
        Kullback and Leibler, On information and sufficiency, 1951, equation 2.4. Minka, Divergence measures and
        message passing, 2005, section 2.
    """
    who, p, q = "losses.reverse_kl", {"logits": logits}, {"target_logits": target_logits}
    return _lift(who, terms.kl, p, q, axis, where, temperature, axis_name=axis_name)


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
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946, equation 1.
    """
    who, p, q = "losses.jeffreys", {"logits": logits}, {"target_logits": target_logits}
    return _lift(who, terms.jeffreys, p, q, axis, where, temperature, axis_name=axis_name)


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
        `[...]`, in nats: In $[0, \log 2]$; 0 where they agree; never infinite, zeros included.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.js(logits, jnp.log(targets))[0]:.4f}")
        0.0338

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991, equation 4.1.
    """
    who, p, q = "losses.js", {"logits": logits}, {"target_logits": target_logits}
    if _inputs.is_default(weight, 0.5):
        return _lift(who, terms.js, p, q, axis, where, temperature, axis_name=axis_name)
    return _lift(who, terms.skewed_js, p, q, axis, where, temperature, weight=weight, axis_name=axis_name)


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
        `[...]`, in nats: In $[0, 1]$; 0 where they agree, with gradient 0; 1 for disjoint supports, zeros included.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.total_variation(logits, jnp.log(targets))[0]:.4f}")
        0.2500

    References:
        Tsybakov, Introduction to nonparametric estimation, 2009, definition 2.4.
    """
    who, p, q = "losses.total_variation", {"logits": logits}, {"target_logits": target_logits}
    return _lift(who, terms.total_variation, p, q, axis, where, temperature, axis_name=axis_name)


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
        `[...]`, in nats: In $[0, 1]$; 0 where they agree; 1 for disjoint supports, zeros included.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.squared_hellinger(logits, jnp.log(targets))[0]:.4f}")
        0.0341

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986, chapter 4.
    """
    who, p, q = "losses.squared_hellinger", {"logits": logits}, {"target_logits": target_logits}
    return _lift(who, terms.squared_hellinger, p, q, axis, where, temperature, axis_name=axis_name)


@functools.partial(jitted, static=("axis",))
def renyi(
    logits: ArrayLike,
    target_logits: ArrayLike,
    *,
    alpha: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> jax.Array:
    r"""Renyi divergence $\frac{1}{\alpha - 1} \log \sum_i t_i^\alpha p_i^{1 - \alpha}$ of targets from predictions.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_logits: Logits of the targets, `[..., k]`.
        alpha: The order in $[0, \infty]$; 1 is `forward_kl`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.
        temperature: Divides the logits of both sides; a positive number.

    Returns:
        `[...]`, in nats: 0 where they agree; `inf` for disjoint supports, and for $\alpha \ge 1$ where a prediction
        is zero and its target is not.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.renyi(logits, jnp.log(targets), alpha=2)[0]:.4f}")
        0.2231

    References:
        van Erven and Harremoes, Renyi divergence and Kullback-Leibler divergence, 2014, definition 2.
    """
    who, p, q = "losses.renyi", {"target_logits": target_logits}, {"logits": logits}
    return _lift(who, _logits.renyi, p, q, axis, where, temperature, alpha=alpha)


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
        `[...]`, in nats: 0 where they agree; `inf` for $\alpha \ge 1$ where only a prediction is zero, for $\alpha
        \le 0$ where only a target is.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.amari(logits, jnp.log(targets), alpha=2)[0]:.4f}")
        0.1250

    References:
        Cichocki and Amari, Families of alpha- beta- and gamma-divergences, 2010, equation 29.
    """
    who, p, q = "losses.amari", {"target_logits": target_logits}, {"logits": logits}
    return _lift(who, terms.amari, p, q, axis, where, temperature, alpha=alpha, axis_name=axis_name)


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
        `[...]`, in nats: At least the entropy of the targets; `inf` where a prediction is zero and its target is not.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.cross_entropy(logits, jnp.log(targets))[0]:.4f}")
        0.6931

    References:
        Cover and Thomas, Elements of information theory, 2006, theorem 5.4.3.
    """
    who, p, q = "losses.cross_entropy", {"target_logits": target_logits}, {"logits": logits}
    return _lift(who, terms.cross_entropy, p, q, axis, where, temperature, axis_name=axis_name)


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
        `[...]`, in nats: In $[0, \log 2]$; 0 where they agree and for a beta of 0 or 1; never infinite, zeros
        included.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.generalized_js(logits, jnp.log(targets), beta=0.5)[0]:.4f}")
        0.0338

    References:
        Agarwal et al., On-policy distillation of language models: learning from self-generated mistakes, 2024,
        equation 1.
    """
    who, p, q = "losses.generalized_js", {"target_logits": target_logits}, {"logits": logits}
    return _lift(who, _logits.generalized_js, p, q, axis, where, temperature, beta=beta, axis_name=axis_name)


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
        Agarwal et al., On-policy distillation of language models: learning from self-generated mistakes, 2024,
        appendix A.
    """
    who, p, q = "losses.rescaled_js", {"target_logits": target_logits}, {"logits": logits}
    return _lift(who, _logits.rescaled_js, p, q, axis, where, temperature, beta=beta, axis_name=axis_name)


@functools.partial(jitted, static=("axis",))
def forward_kl_with_probs(
    logits: ArrayLike,
    target_probs: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Forward KL divergence $\mathrm{KL}(t \| p) = \sum_i t_i \log (t_i / p_i)$ of targets $t$ and predictions $p$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_probs: Target probabilities `[..., k]`, non-negative, not all zero.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.

    Returns:
        `[...]`, in nats: 0 where they agree; `inf` where a prediction is zero and its target is not.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.forward_kl_with_probs(logits, targets)[0]:.4f}")
        0.1308

    References:
        Kullback and Leibler, On information and sufficiency, 1951, equation 2.4.
    """
    who = "losses.forward_kl_with_probs"
    targets = {"target_probs": _logits_of(who, target_probs)}
    return _lift(who, terms.kl, targets, {"logits": logits}, axis, where)


@functools.partial(jitted, static=("axis",))
def reverse_kl_with_probs(
    logits: ArrayLike,
    target_probs: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Reverse KL divergence $\mathrm{KL}(p \| t) = \sum_i p_i \log (p_i / t_i)$ of predictions $p$ and targets $t$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_probs: Target probabilities `[..., k]`, non-negative, not all zero.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.

    Returns:
        `[...]`, in nats: 0 where they agree; `inf` where a target is zero and its prediction is not.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.reverse_kl_with_probs(logits, targets)[0]:.4f}")
        0.1438

    References:
        Kullback and Leibler, On information and sufficiency, 1951, equation 2.4. Minka, Divergence measures and
        message passing, 2005, section 2.
    """
    who = "losses.reverse_kl_with_probs"
    targets = {"target_probs": _logits_of(who, target_probs)}
    return _lift(who, terms.kl, {"logits": logits}, targets, axis, where)


@functools.partial(jitted, static=("axis",))
def jeffreys_with_probs(
    logits: ArrayLike,
    target_probs: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Jeffreys divergence $\mathrm{KL}(t \,\|\, p) + \mathrm{KL}(p \,\|\, t)$ of targets $t$ and predictions $p$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_probs: Target probabilities `[..., k]`, non-negative, not all zero.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.

    Returns:
        `[...]`, in nats: 0 where they agree; symmetric; `inf` where exactly one of the two is zero.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.jeffreys_with_probs(logits, targets)[0]:.4f}")
        0.2747

    References:
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946, equation 1.
    """
    who = "losses.jeffreys_with_probs"
    targets = {"target_probs": _logits_of(who, target_probs)}
    return _lift(who, terms.jeffreys, {"logits": logits}, targets, axis, where)


@functools.partial(jitted, static=("axis",))
def js_with_probs(
    logits: ArrayLike,
    target_probs: ArrayLike,
    *,
    weight: ArrayLike = 0.5,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Jensen-Shannon divergence $w\,\mathrm{KL}(p \| m) + (1 - w)\,\mathrm{KL}(t \| m)$ with $m = w p + (1 - w) t$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_probs: Target probabilities `[..., k]`, non-negative, not all zero.
        weight: The weight $w \in [0, 1]$ of the predictions $p$, the first argument; the targets $t$ have $1 - w$.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.

    Returns:
        `[...]`, in nats: In $[0, \log 2]$; 0 where they agree; never infinite, zeros included.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.js_with_probs(logits, targets)[0]:.4f}")
        0.0338

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991, equation 4.1.
    """
    who = "losses.js_with_probs"
    targets = {"target_probs": _logits_of(who, target_probs)}
    if _inputs.is_default(weight, 0.5):
        return _lift(who, terms.js, {"logits": logits}, targets, axis, where)
    return _lift(who, terms.skewed_js, {"logits": logits}, targets, axis, where, weight=weight)


@functools.partial(jitted, static=("axis",))
def total_variation_with_probs(
    logits: ArrayLike,
    target_probs: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Total variation $\tfrac12 \sum_i |p_i - t_i|$ of predictions $p$ and targets $t$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_probs: Target probabilities `[..., k]`, non-negative, not all zero.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.

    Returns:
        `[...]`, in nats: In $[0, 1]$; 0 where they agree, with gradient 0; 1 for disjoint supports, zeros included.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.total_variation_with_probs(logits, targets)[0]:.4f}")
        0.2500

    References:
        Tsybakov, Introduction to nonparametric estimation, 2009, definition 2.4.
    """
    who = "losses.total_variation_with_probs"
    targets = {"target_probs": _logits_of(who, target_probs)}
    return _lift(who, terms.total_variation, {"logits": logits}, targets, axis, where)


@functools.partial(jitted, static=("axis",))
def squared_hellinger_with_probs(
    logits: ArrayLike,
    target_probs: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Squared Hellinger distance $1 - \sum_i \sqrt{p_i t_i}$ of predictions $p$ and targets $t$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_probs: Target probabilities `[..., k]`, non-negative, not all zero.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.

    Returns:
        `[...]`, in nats: In $[0, 1]$; 0 where they agree; 1 for disjoint supports, zeros included.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.squared_hellinger_with_probs(logits, targets)[0]:.4f}")
        0.0341

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986, chapter 4.
    """
    who = "losses.squared_hellinger_with_probs"
    targets = {"target_probs": _logits_of(who, target_probs)}
    return _lift(who, terms.squared_hellinger, {"logits": logits}, targets, axis, where)


@functools.partial(jitted, static=("axis",))
def renyi_with_probs(
    logits: ArrayLike,
    target_probs: ArrayLike,
    *,
    alpha: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Renyi divergence $\frac{1}{\alpha - 1} \log \sum_i t_i^\alpha p_i^{1 - \alpha}$ of targets from predictions.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_probs: Target probabilities `[..., k]`, non-negative, not all zero.
        alpha: The order in $[0, \infty]$; 1 is `forward_kl`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.

    Returns:
        `[...]`, in nats: 0 where they agree; `inf` for disjoint supports, and for $\alpha \ge 1$ where a prediction
        is zero and its target is not.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.renyi_with_probs(logits, targets, alpha=2)[0]:.4f}")
        0.2231

    References:
        van Erven and Harremoes, Renyi divergence and Kullback-Leibler divergence, 2014, definition 2.
    """
    who = "losses.renyi_with_probs"
    targets = {"target_probs": _logits_of(who, target_probs)}
    return _lift(who, _logits.renyi, targets, {"logits": logits}, axis, where, alpha=alpha)


@functools.partial(jitted, static=("axis",))
def amari_with_probs(
    logits: ArrayLike,
    target_probs: ArrayLike,
    *,
    alpha: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Amari's divergence $(1 - \sum_i t_i^\alpha p_i^{1 - \alpha}) / (\alpha (1 - \alpha))$ of targets, predictions.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_probs: Target probabilities `[..., k]`, non-negative, not all zero.
        alpha: Any real order; the limit 1 is `forward_kl`, 0 is `reverse_kl`.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.

    Returns:
        `[...]`, in nats: 0 where they agree; `inf` for $\alpha \ge 1$ where only a prediction is zero, for $\alpha
        \le 0$ where only a target is.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.amari_with_probs(logits, targets, alpha=2)[0]:.4f}")
        0.1250

    References:
        Cichocki and Amari, Families of alpha- beta- and gamma-divergences, 2010, equation 29.
    """
    who = "losses.amari_with_probs"
    targets = {"target_probs": _logits_of(who, target_probs)}
    return _lift(who, terms.amari, targets, {"logits": logits}, axis, where, alpha=alpha)


@functools.partial(jitted, static=("axis",))
def cross_entropy_with_probs(
    logits: ArrayLike,
    target_probs: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy $-\sum_i t_i \log p_i$ of targets $t$ and predictions $p$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        target_probs: Target probabilities `[..., k]`, non-negative, not all zero.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the inputs; True entries are the support.

    Returns:
        `[...]`, in nats: At least the entropy of the targets; `inf` where a prediction is zero and its target is not.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]])
        >>> print(f"{losses.cross_entropy_with_probs(logits, targets)[0]:.4f}")
        0.6931

    References:
        Cover and Thomas, Elements of information theory, 2006, theorem 5.4.3.
    """
    who = "losses.cross_entropy_with_probs"
    targets = {"target_probs": _logits_of(who, target_probs)}
    return _lift(who, terms.cross_entropy, targets, {"logits": logits}, axis, where)


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
        Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015, section 2.
    """
    who = "losses.distillation"
    p, q = {"teacher_logits": teacher_logits}, {"student_logits": student_logits}
    value = _lift(who, terms.kl, p, q, axis, where, temperature, axis_name=axis_name)
    return jnp.asarray(temperature).astype(value.dtype) ** 2 * value


@functools.partial(jitted, static=("axis",))
def confidence_penalty(
    logits: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None, temperature: ArrayLike = 1.0
) -> jax.Array:
    r"""Divergence from uniform $\mathrm{KL}(p \,\|\, u) = \log k - H(p)$ of predictions $p$.

    Args:
        logits: Logits of the predictions, `[..., k]`; `-inf` is probability zero.
        axis: The axis or axes of the events.
        where: A mask that broadcasts against the logits; the uniform distribution is over its True entries.
        temperature: Divides the logits; a positive number.

    Returns:
        `[...]`, in nats: 0 for equal logits, at most $\log k$, zeros included.

    Example:
        >>> print(f"{losses.confidence_penalty(jnp.log(jnp.array([[0.25, 0.75]])))[0]:.4f}")
        0.1308

    References:
        Pereyra et al., Regularizing neural networks by penalizing confident output distributions, 2017, section 3.
    """
    who = "losses.confidence_penalty"
    logits = _inputs.array(who, "logits", logits)
    uniform = jnp.zeros_like(logits)
    return _lift(who, terms.kl, {"logits": logits}, {"uniform": uniform}, axis, where, temperature)


@functools.partial(jitted, static=("axis",))
def standard_normal_kl(
    loc: ArrayLike, log_scale: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None
) -> jax.Array:
    r"""KL divergence of $N(\mu, \sigma^2)$ to $N(0, 1)$, $\sum \tfrac12 (\mu^2 + \sigma^2 - 1 - \log \sigma^2)$.

    Args:
        loc: Means $\mu$, `[..., d]`.
        log_scale: Logarithms of standard deviations, $\log \sigma$, `[..., d]`; half of a log-variance.
        axis: The axis or axes of the components.
        where: A mask that broadcasts against the inputs; False entries are left out, whatever they hold.

    Returns:
        `[...]`, in nats: non-negative; exactly 0, with gradient exactly 0, at the standard law; `inf` above the largest
        float.

    Example:
        >>> print(f"{losses.standard_normal_kl(jnp.ones((1, 2)), jnp.zeros((1, 2)))[0]:.4f}")
        1.0000

    References:
        Kingma and Welling, Auto-encoding variational Bayes, 2014, appendix B.
    """
    who = "losses.standard_normal_kl"
    loc, log_scale, dtype = _normal_fields(who, loc, log_scale, where)
    axes = _inputs.distinct_axes(who, "loc", loc, axis)
    components_last = (jnp.moveaxis(x, axes, range(-len(axes), 0)) for x in (loc, log_scale))
    components = math.prod(loc.shape[i] for i in axes)
    loc, log_scale = (x.reshape(*x.shape[: x.ndim - len(axes)], components) for x in components_last)
    return _summed_normal_term(loc, log_scale)[..., 0].astype(dtype)


@jax.custom_jvp
def _summed_normal_term(loc, log_scale):
    return in_row_blocks(lambda _, *law: jnp.sum(_normal_term(*law), -1, keepdims=True), loc, log_scale)


@_summed_normal_term.defjvp
def _(primals, tangents):
    tangent = jax.jvp(_normal_term, primals, tangents)[1]
    return _summed_normal_term(*primals), jnp.sum(tangent, -1, keepdims=True)


@jax.custom_jvp
def _normal_term(loc, log_scale):
    # (exp(2 s) - 1 - 2 s) / 2 + m^2 / 2: two terms of second order, nothing of which cancels.
    return 0.5 * (expm1x(2 * log_scale) + loc * loc)


@_normal_term.defjvp
def _(primals, tangents):
    loc, log_scale = primals
    return _normal_term(loc, log_scale), loc * tangents[0] + expm1(2 * log_scale) * tangents[1]


def _normal_fields(who, loc, log_scale, where):
    loc, log_scale = _inputs.array(who, "loc", loc), _inputs.array(who, "log_scale", log_scale)
    if loc.shape != log_scale.shape:
        raise ValueError(
            f"{who} takes arrays of equal shape; got loc{list(loc.shape)} and log_scale{list(log_scale.shape)}. "
            "Broadcast one with jax.numpy.broadcast_to."
        )
    dtype, work = _inputs.promoted(loc, log_scale), _inputs.working(loc, log_scale)
    if where is not None:
        where = _inputs.mask(who, where, loc.shape)
        # The standard law, of divergence 0, whatever is there.
        loc, log_scale = (jnp.where(where, x, 0) for x in (loc, log_scale))
    loc, log_scale = loc.astype(work), log_scale.astype(work)
    return loc, log_scale, dtype


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
        In nats, of the shape of `loc`: non-negative; exactly 0 at the standard law. With free bits
        `jnp.sum(jnp.maximum(free, terms), -1)`.

    Example:
        >>> terms = losses.standard_normal_kl_per_component(jnp.array([1.0, 0.0]), jnp.zeros(2))
        >>> print(f"{terms[0]:.4f} {terms[1]:.4f}")
        0.5000 0.0000

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, Improved variational inference with inverse
        autoregressive flow, 2016, equation 15.
    """
    loc, log_scale, dtype = _normal_fields("losses.standard_normal_kl_per_component", loc, log_scale, where)
    return _normal_term(loc, log_scale).astype(dtype)


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
        `[]`, in the units of the loss: 0, with gradient 0, if no example counts.

    Example:
        >>> tokens, mask = jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])
        >>> print(losses.mean(tokens, where=mask), losses.mean(tokens, where=mask, denominator=8))
        2.0 0.5
    """
    who = "losses.mean"
    x = _inputs.array(who, "per_example", per_example)
    work = _inputs.working(x)
    w = _inputs.weights(who, weights, where, x.shape, work)
    total = jnp.sum(w * jnp.where(w == 0, 0, x.astype(work)))
    count = jnp.sum(w) if denominator is None else _inputs.number(who, "denominator", denominator, total, work)
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
        count = jax.lax.psum(count, axis_name) if denominator is None else count
    return jnp.where(count == 0, 0, total / or_one(count)).astype(x.dtype)

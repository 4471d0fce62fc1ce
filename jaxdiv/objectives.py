r"""Training objectives: functions that take a loss and return a loss.

A loss is any function `loss(predictions, targets, **options) -> [...]`, from `jaxdiv.losses` or your own. The loss that
comes back takes the same arguments and those that its docstring names, returns one value per example, and can be
combined further:

    soft = objectives.softened(losses.forward_kl, temperature=2.0)
    loss = objectives.hard_and_soft(soft, weight=0.5)
    value = losses.mean(loss(logits, teacher_logits, labels), where=tokens)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdiv import _inputs, losses
from jaxdiv._core.functions import times, weighed
from jaxdiv._core.programs import compiled
from jaxdiv._core.rules import custom_jvp

Loss = Callable[..., jax.Array]


def _weighted(weight, loss, *arguments, **options):
    """w L(...). For w = 0 it is 0, with gradient 0 in the arguments of L, even if L or its gradient is infinite."""
    none = jnp.all(jnp.asarray(weight) == 0)
    # Gate the arguments and the value: an infinite derivative times a tangent or cotangent of 0 would be nan.
    arguments, options = jax.tree.map(lambda x: _gated(x, none) if _is_real(x) else x, (arguments, options))
    value = loss(*arguments, **options)
    w = jnp.asarray(weight).astype(value.dtype)
    return weighed(w, _gated(value, w == 0))


def _sum(x, y):
    """x + y in their promoted dtype, also under strict promotion."""
    dtype = _inputs.promoted(x, y)
    return x.astype(dtype) + y.astype(dtype)


def _is_real(x):
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)


@custom_jvp
def _gated(x, shut):
    """Returns `x`; its derivative is 0 where `shut` is True."""
    del shut
    return x


@_gated.defjvp
def _(primals, tangents):
    return _gated(*primals), jnp.where(primals[1], 0, tangents[0])


def softened(loss: Loss, *, temperature: ArrayLike) -> Loss:
    r"""The loss $T^2 L(x / T, y / T)$ of softened logits; its gradients keep their size as $T$ grows.

    Args:
        loss: A loss of logits that takes `temperature`.
        temperature: $T$, a positive number.

    Returns:
        `(logits, target_logits, **options) -> [...]`, with the sign, zeros and infinities of `loss`.

    Example:
        >>> logits, targets = jnp.zeros((1, 2)), jnp.array([[1.0, -1.0]])
        >>> print(f"{objectives.softened(losses.forward_kl, temperature=4.0)(logits, targets)[0]:.4f}")
        0.4848
        >>> print(f"{losses.distillation(logits, targets, temperature=4.0)[0]:.4f}")
        0.4848

    References:
        Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015.
    """

    def of_softened(logits, target_logits, **options):
        def scaled(*given):
            value = loss(*given, temperature=temperature, **options)
            scale = jnp.asarray(temperature, value.dtype)
            return times(scale, times(scale, value))  # its square may overflow

        return _rounded_once(scaled, logits, target_logits)

    return of_softened


def _rounded_once(loss, *given):
    """`loss(*given)`, in half precision computed in float32 and rounded once."""
    if not any(map(_is_half, jax.tree.leaves(given))):
        return loss(*given)
    return loss(*jax.tree.map(_raised, given)).astype(jax.eval_shape(loss, *given).dtype)


def _raised(x):
    return x.astype(_inputs.working(x)) if _is_half(x) else x


def _is_half(x):
    return (
        isinstance(x, jax.Array | np.ndarray) and jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
    )


def hard_and_soft(loss: Loss, *, weight: ArrayLike) -> Loss:
    r"""The mixture $w L(x, y) + (1 - w) H(c, x)$ of a loss $L$ for soft targets and the cross-entropy of labels $c$.

    Args:
        loss: A loss of logits for soft targets.
        weight: The weight $w \in [0, 1]$ of the soft targets.

    Returns:
        `(logits, targets, labels, *, axis=-1, where=None, axis_name=None, **options) -> [...]`. Labels are those of
        `losses.cross_entropy_with_labels`: integers `[...]`, one per example, that number the classes of all devices
        together. Non-negative if the loss is; 0 where both parts are 0; `inf` where a label has probability zero. For a
        negative label, as in padding, only the soft part counts; a label beyond the last class gives `nan`. A part of
        weight 0 is 0, even if it is infinite.

    Example:
        >>> loss = objectives.hard_and_soft(losses.forward_kl, weight=0.25)
        >>> print(f"{loss(jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.array([1]))[0]:.4f}")
        0.5199

    References:
        Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015.
    """

    def mixed(logits, targets, labels, *, axis=-1, where=None, axis_name=None, **options):
        logits, labels = jnp.asarray(logits), jnp.asarray(labels)
        _inputs.labels("objectives.hard_and_soft", labels, logits.shape, axis)
        lifted = {"axis": axis, "where": where} | ({} if axis_name is None else {"axis_name": axis_name})

        def hard(logits):
            return losses.cross_entropy_with_labels(logits, labels, **lifted)

        def of_both(logits, targets):
            soft = _weighted(weight, loss, logits, targets, **lifted, **options)
            return _sum(soft, _weighted(1 - weight, hard, logits))

        return _rounded_once(of_both, logits, targets)

    return mixed


def symmetric(loss: Loss) -> Loss:
    r"""The symmetric loss $(L(x, y) + L(y, x)) / 2$.

    Args:
        loss: A loss whose two sides are of the same kind, for instance both logits.

    Returns:
        `(predictions, targets, **options) -> [...]`, with the shape, sign, zeros and infinities of `loss`.

    Example:
        >>> x, y = jnp.zeros((1, 2)), jnp.array([[1.0, -1.0]])
        >>> print(f"{objectives.symmetric(losses.forward_kl)(x, y)[0]:.4f} {0.5 * losses.jeffreys(x, y)[0]:.4f}")
        0.3808 0.3808
    """

    def of_both(x, y, **options):
        # Halves, because the sum may overflow.
        return _rounded_once(lambda x, y: 0.5 * loss(x, y, **options) + 0.5 * loss(y, x, **options), x, y)

    return of_both


def consistency(loss: Loss, divergence: Loss = losses.forward_kl, *, weight: ArrayLike) -> Loss:
    r"""The loss $\frac12 (L(x_1, y) + L(x_2, y)) + \frac w2 (D(x_1, x_2) + D(x_2, x_1))$ of two views of an example.

    The objective of R-Drop is twice this loss with `weight=alpha / 2`; its views are two passes with dropout.

    Args:
        loss: The supervised loss $L$ of predictions and targets.
        divergence: The loss $D$ between the two predictions; its gradient flows into both.
        weight: The weight $w \ge 0$ of the divergence. With weight 0, the term and its gradient are 0, even if the
            divergence is infinite.

    Returns:
        `(first, second, targets) -> [...]` for predictions `[..., k]`. Non-negative if both parts are. Where the views
        agree, their divergence is 0 and the value is that of `loss`.

    Example:
        >>> x, labels = jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]])
        >>> loss = objectives.consistency(losses.cross_entropy_with_probs, weight=1.0)
        >>> print(f"{loss(x, x, labels)[0]:.4f} {loss(x, x + jnp.array([[1.0, -1.0]]), labels)[0]:.4f}")
        0.6931 0.7908

    References:
        Liang et al., R-Drop: regularized dropout for neural networks, 2021.
    """

    def of_all(first, second, targets):
        supervised = _sum(0.5 * loss(first, targets), 0.5 * loss(second, targets))
        return _sum(supervised, _weighted(weight, symmetric(divergence), first, second))

    def of_views(first, second, targets):
        return _rounded_once(of_all, first, second, targets)

    return of_views


def annealed(loss: Loss, schedule: Callable[[ArrayLike], ArrayLike]) -> Loss:
    r"""The loss $w_t L(x, y)$ at step $t$, with an optax schedule $w$.

    Args:
        loss: A loss.
        schedule: $w$, a function of the step, for instance from `optax.linear_schedule`.

    Returns:
        `(step, *arguments, **options) -> [...]`, in the shape of `loss`. With weight 0, the value and the gradients are
        0, even if the loss or its gradient is infinite or `nan`.

    Example:
        >>> import optax
        >>> loss = objectives.annealed(losses.standard_normal_kl, optax.linear_schedule(0.0, 1.0, 100))
        >>> print(f"{loss(50, jnp.ones((1, 2)), jnp.zeros((1, 2)))[0]:.2f}")
        0.50

    References:
        Bowman et al., Generating sentences from a continuous space, 2016.
    """

    def at(step, *arguments, **options):
        return _weighted(schedule(step), loss, *arguments, **options)

    return at


def free_bits(per_component: ArrayLike, minimum: ArrayLike) -> jax.Array:
    r"""Free bits $\max(D_j, \lambda)$: a component whose divergence is below $\lambda$ nats has gradient zero.

    Args:
        per_component: Divergences `[...]` from `losses.standard_normal_kl_per_component` or, for a learned prior, from
            `losses.gaussian_kl_per_component`. The paper averages them over the batch first.
        minimum: $\lambda$ in nats, a number.

    Returns:
        `[...]`, in nats: at least $\lambda$, with gradient 0 below it; `nan` stays `nan`.

    Example:
        >>> components = losses.standard_normal_kl_per_component(jnp.array([[0.1, 2.0]]), jnp.zeros((1, 2)))
        >>> print(" ".join(f"{x:.2f}" for x in objectives.free_bits(components.mean(0), 0.25)))
        0.25 2.00
        >>> loc, prior = jnp.array([[0.1, 2.0]]), (jnp.array([[0.0, 1.0]]), jnp.zeros((1, 2)))  # a learned prior
        >>> components = losses.gaussian_kl_per_component(loc, jnp.zeros((1, 2)), *prior)
        >>> print(" ".join(f"{x:.2f}" for x in objectives.free_bits(components.mean(0), 0.25)))
        0.25 0.50

    References:
        Kingma et al., Improving variational inference with inverse autoregressive flow, 2016.
    """
    who = "objectives.free_bits"
    x = _inputs.array(who, "per_component", per_component)
    least = _inputs.number(who, "minimum", minimum, x, x.dtype)
    return jnp.where(x < least, least, x)


# ---------------------------------------------------------------- adversarial directions


def adversarial_direction(
    divergence: Callable[[Any], jax.Array], x: jax.Array, key: jax.Array, *, iterations: int = 1
) -> jax.Array:
    r"""The unit directions $r_i$ along which $D_i(x + \epsilon r)$ grows fastest for small $\epsilon$.

    They are the leading eigenvectors of each example's Hessian at `x`. They are found by power iterations from random
    directions. The Hessian products are exact: no finite differences, no step size.

    Args:
        divergence: A function from inputs `[n, ...]` to the divergences `[n]` between the predictions at `x` and those
            at the inputs. It is zero at `x`, and each entry depends on its own example only.
        x: Inputs `[n, ...]`.
        key: A key of `jax.random`.
        iterations: The number of power iterations; each costs a gradient and its derivative. 0 gives random directions.

    Returns:
        `[n, ...]`: directions of norm one, constants for differentiation; 0 where the second derivative is 0, for
            instance of total variation.

    Raises:
        ValueError: The divergences are not `[n]`, or `iterations` is negative.

    Example:
        >>> x, weights = jnp.ones((4, 3)), jnp.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
        >>> def model(x): return x @ weights
        >>> def divergence(moved): return losses.forward_kl(model(moved), model(x))
        >>> r = objectives.adversarial_direction(divergence, x, jax.random.key(0), iterations=4)
        >>> print(" ".join(f"{value:.2f}" for value in jnp.abs(r[0])))
        0.95 0.32 0.00

    References:
        Miyato et al., Virtual adversarial training, 2018.
    """
    who = "objectives.adversarial_direction"
    _inputs.function(who, "divergence", divergence, "of moved inputs")
    _inputs.setting(who, "iterations", iterations, 0, whole=True)
    return compiled(_direction, divergence, iterations=iterations)(_inputs.array(who, "x", x), key)


def _direction(divergence, x, key, *, iterations):
    who = "objectives.adversarial_direction"
    slope = jax.grad(lambda moved: jnp.sum(_inputs.one_to_an_example(who, divergence(moved), x)))

    def product(r):
        return jax.jvp(slope, (x,), (r,))[1]

    # Adding zeros made from x lets the direction vary over the devices that x varies over.
    start = jnp.zeros_like(x) + _unit(jax.random.normal(key, x.shape, x.dtype))
    r = jax.lax.fori_loop(0, iterations, lambda _, r: _unit(product(r)), start)
    return jax.lax.stop_gradient(r)


def _unit(r):
    """Each example divided by its norm; 0 stays 0. First by the largest entry: its square may over- or underflow."""
    axes, dtype = tuple(range(1, r.ndim)), r.dtype
    r = r.astype(_inputs.working(r))
    largest = jnp.max(jnp.abs(r), axes, keepdims=True)
    r = r / jnp.where(largest == 0, 1, largest)
    return (r / jnp.sqrt(jnp.maximum(jnp.sum(r * r, axes, keepdims=True), 1))).astype(dtype)


def adversarial_example(
    divergence: Callable[[Any], jax.Array],
    x: jax.Array,
    key: jax.Array,
    *,
    radius: ArrayLike,
    step_size: ArrayLike,
    iterations: int = 10,
) -> jax.Array:
    r"""Points $x'$ with $\max_j |x'_j - x_j| \le \rho$ and a large divergence $D_i(x')$, by projected ascent.

    Args:
        divergence: A function from inputs `[n, ...]` to the divergences `[n]` between the predictions at `x` and those
            at the inputs.
        x: Inputs `[n, ...]`.
        key: A key of `jax.random`; the ascent starts at a random point within the radius.
        radius: $\rho$, a number that is not negative.
        step_size: The length of a step in each coordinate, along the sign of the gradient.
        iterations: The number of steps.

    Returns:
        `[n, ...]`: the points, constants for differentiation; `x` itself for a radius of 0.

    Raises:
        ValueError: The divergences are not `[n]`, or `radius`, `step_size` or `iterations` is negative.

    Example:
        >>> x = jnp.zeros((1, 2))
        >>> def divergence(moved): return losses.forward_kl(moved * jnp.array([[2.0, 1.0]]), x)
        >>> moved = objectives.adversarial_example(divergence, x, jax.random.key(0), radius=0.5, step_size=0.2)
        >>> print(" ".join(f"{value:.1f}" for value in jnp.abs(moved[0])))
        0.5 0.5

    References:
        Madry et al., Towards deep learning models resistant to adversarial attacks, 2018. Zhang et al., Theoretically
        principled trade-off between robustness and accuracy, 2019.
    """
    who = "objectives.adversarial_example"
    _inputs.function(who, "divergence", divergence, "of moved inputs")
    for name, value in (("radius", radius), ("step_size", step_size), ("iterations", iterations)):
        _inputs.setting(who, name, value, 0, whole=name == "iterations")
    ascent = compiled(_ascent, divergence, iterations=iterations)
    return ascent(_inputs.array(who, "x", x), key, radius, step_size)


def _ascent(divergence, x, key, radius, step_size, *, iterations):
    who = "objectives.adversarial_example"
    radius, step_size = (
        _inputs.number(who, name, value, x, x.dtype) for name, value in (("radius", radius), ("step_size", step_size))
    )
    gradient = jax.grad(lambda moved: jnp.sum(_inputs.one_to_an_example(who, divergence(moved), x)))

    def step(_, moved):
        return jnp.clip(moved + step_size * jnp.sign(gradient(moved)), x - radius, x + radius)

    start = x + radius * jax.random.uniform(key, x.shape, x.dtype, -1, 1)
    return jax.lax.stop_gradient(jax.lax.fori_loop(0, iterations, step, start))

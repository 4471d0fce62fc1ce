r"""Gradient transformations and coefficients that a divergence governs, for optax.

The transformations take one extra argument, `divergence`: a function of new parameters that says how far the model's
outputs move, as a scalar that is 0 at the parameters at hand. Everything that is known of it comes from calling it:

    optimizer = optax.chain(optax.adam(3e-3), transforms.kl_trust_region(0.01))

    def divergence(new_params):
        return losses.mean(losses.forward_kl(model(new_params, x), model(params, x)))

    updates, state = optimizer.update(gradients, state, params, divergence=divergence)

On several devices the function reduces over them (`losses.mean` with `axis_name`). Inside `optax.multi_transform` it
gets the parameters of its label, with `optax.MaskedNode()` in place of the others.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.blocks import varying_alike
from jaxdiv._core.functions import or_one
from jaxdiv._core.programs import compiled

Scalar = Callable[[Any], jax.Array]


class TrustRegionState(NamedTuple):
    """What the last update was multiplied by, `[]`, and the divergence it led to, `[]`."""

    scale: jax.Array
    divergence: jax.Array


class SkipState(NamedTuple):
    """How many updates were dropped, an integer `[]`, and the divergence of the last update, dropped or not, `[]`."""

    dropped: jax.Array
    divergence: jax.Array


class CoefficientState(NamedTuple):
    """The coefficient of a penalty, `[]`."""

    coefficient: jax.Array


class Controller(NamedTuple):
    """A pair of pure functions: `init()` makes a `CoefficientState`, `update(divergence, state)` the next one."""

    init: Callable[[], CoefficientState]
    update: Callable[[ArrayLike, CoefficientState], CoefficientState]


# ---------------------------------------------------------------- curvature


def curvature_vector_product(divergence: Scalar, outputs: Callable[[Any], Any], params: Any) -> Callable[[Any], Any]:
    r"""The map $v \mapsto J^\top H J v$, with $J$ the Jacobian of a model and $H$ the Hessian of a divergence.

    The generalised Gauss-Newton product; where the divergence is 0 it is exactly the Hessian of their composition, for
    KL the product of the Fisher information. The model is linearised once, for all vectors.

    Args:
        divergence: A function of the outputs with a scalar result; convex, if the product is to be non-negative.
        outputs: A function of the parameters, with any tree of arrays as its result.
        params: The parameters, a tree of arrays of any shape.

    Returns:
        A function of trees like `params`, linear, symmetric, and non-negative as a quadratic form where $H$ is.

    Example:
        >>> x, params = jnp.eye(2), jnp.zeros((2, 2))
        >>> def outputs(params): return x @ params
        >>> def divergence(logits): return losses.forward_kl(logits, outputs(params)).sum()
        >>> product = transforms.curvature_vector_product(divergence, outputs, params)
        >>> print(product(jnp.array([[1.0, 0.0], [0.0, 0.0]])).tolist())
        [[0.25, -0.25], [0.0, 0.0]]

    References:
        Schraudolph, Fast curvature matrix-vector products for second-order gradient descent, 2002. Martens, New
        insights and perspectives on the natural gradient method, 2020.
    """
    out, push = jax.linearize(outputs, params)
    pull = jax.linear_transpose(push, params)
    slope = jax.grad(divergence)
    # Not linearised: of a loss inside a scan that fails, by custom rules that partial evaluation cannot see through.
    return lambda vector: pull(jax.jvp(slope, (out,), (push(vector),))[1])[0]


def natural_gradient(damping: ArrayLike = 1e-3, iterations: int = 10) -> optax.GradientTransformationExtraArgs:
    r"""Replaces a gradient $g$ by $(F + \lambda I)^{-1} g$, with $F$ the Hessian of the divergence where it is 0.

    For KL $F$ is the Fisher information and this is the natural gradient. With `kl_trust_region` after it, one has the
    step of TRPO, whose length is the bound's alone:
    `optax.chain(natural_gradient(), optax.scale(-1.0), kl_trust_region(0.01, max_scale=math.inf))`.

    Args:
        damping: $\lambda$, a number that is not negative: $F$ may be singular, and is estimated from a batch.
        iterations: The number of steps of conjugate gradients, at least 1; each costs a gradient and its derivative.

    Returns:
        A transformation of gradients of any shapes and dtypes without state; gradients of 0 stay 0. Its `update` takes
        `divergence`, twice differentiable at the parameters.

    Raises:
        TypeError: The update got no `divergence` or no parameters.
        ValueError: The damping is negative, or there are no iterations.

    Example:
        >>> params = jnp.array([1.0, 3.0])
        >>> def divergence(new): return 0.5 * jnp.sum(jnp.array([4.0, 0.5]) * (new - params) ** 2)
        >>> transform = transforms.natural_gradient(damping=0.0, iterations=2)
        >>> updates, _ = transform.update(jnp.ones(2), transform.init(params), params, divergence=divergence)
        >>> print(" ".join(f"{x:.2f}" for x in updates))
        0.25 2.00

    References:
        Amari, Natural gradient works efficiently in learning, 1998. Schulman et al., Trust region policy optimization,
        2015.
    """
    who = "transforms.natural_gradient"
    _inputs.setting(who, "damping", damping, 0)
    _inputs.setting(who, "iterations", iterations, 1, whole=True)

    def init(params):
        del params
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None, *, divergence: Scalar | None = None, **extra: Any):
        del extra
        return compiled(_natural, divergence, iterations=iterations)(updates, params, damping), state

    return optax.GradientTransformationExtraArgs(init, update)


def _natural(divergence, updates, params, damping, *, iterations):
    """The solution of (F + damping I) x = updates."""
    measure = _inputs.measure("transforms.natural_gradient", params, divergence)
    # The solution is not in half precision, whatever the parameters are, nor its size that of the gradient.
    product = curvature_vector_product(lambda x: measure(_as(params, x)), lambda x: x, _wide(params))
    size = _largest(updates)
    solution = _solve(lambda v: _plus(product(v), damping, v), _over(_wide(updates), size), iterations)
    return _as(updates, jax.tree.map(lambda x: size.astype(x.dtype) * x, solution))


def _wide(tree):
    """The tree in float32 where it has fewer bits."""
    return jax.tree.map(lambda x: x.astype(_inputs.working(jnp.asarray(x))), tree)


def _as(like, tree):
    """The tree in the dtypes of another."""
    return jax.tree.map(lambda x, y: y.astype(x.dtype), like, tree)


def _largest(tree):
    """The largest magnitude of a tree, 1 where that is 0."""
    return or_one(
        functools.reduce(jnp.maximum, [jnp.max(jnp.abs(_float(x))) for x in jax.tree.leaves(tree)], _float(0))
    )


def _over(tree, size):
    return jax.tree.map(lambda x: x / size.astype(x.dtype), tree)


def _solve(product, b, iterations):
    """Conjugate gradients from 0. Those of jax.scipy lose track, inside `jax.shard_map`, of what devices share."""

    def step(_, carry):
        x, residual, direction, square = carry
        bent = product(direction)
        curvature = _dot(direction, bent)
        length = jnp.where(curvature > 0, square / jnp.where(curvature > 0, curvature, 1), 0)
        x, residual = _plus(x, length, direction), _plus(residual, -length, bent)
        next_square = _dot(residual, residual)
        direction = _plus(residual, next_square / jnp.where(square > 0, square, 1), direction)
        return x, residual, direction, next_square

    zero = jax.tree.map(jnp.zeros_like, b)
    return jax.lax.fori_loop(0, iterations, step, (zero, b, b, _dot(b, b)))[0]


def _plus(x, a, y):
    """x + a y, for trees and a number."""
    return jax.tree.map(lambda x, y: x + jnp.asarray(a).astype(y.dtype) * y, x, y)


def _dot(x, y):
    products = jax.tree.map(lambda x, y: jnp.sum(_float(x) * _float(y)), x, y)
    return sum(jax.tree.leaves(products), _float(0))


# ---------------------------------------------------------------- bounds


def _times(length, unit, updates):
    """The update times a number and a power of two, either of which may be a float where their product is none."""

    def scaled(u):
        wide = _inputs.working(u)
        return (length.astype(wide) * (unit.astype(wide) * u.astype(wide))).astype(u.dtype)

    return jax.tree.map(lambda u: scaled(jnp.asarray(u)), updates)


def _kept(keep, updates):
    """The update, or 0, whatever it holds."""
    return jax.tree.map(lambda u: jnp.where(keep, u, 0), updates)


def _within(value, bound):
    """Whether a divergence is finite and at most the bound, which may be infinite."""
    return (value <= bound) & jnp.isfinite(value)


def _float(x):
    """A number in the default floating-point dtype, whatever the dtype of the parameters."""
    return jnp.asarray(x).astype(jnp.result_type(float))


def kl_trust_region(
    max_divergence: ArrayLike, *, max_scale: ArrayLike = 1.0, backtracks: int = 10, shrink: ArrayLike = 0.5
) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies an update by $s \le s_0$ such that $D(\theta + s u) \le \delta$.

    The first $s$ is $\min(s_0, \sqrt{2 \delta / D''})$, with $D''$ the exact second derivative along the update, which
    is its Fisher norm for KL, less a thousandth. While the divergence measured there is above the bound, or not finite,
    $s$ shrinks; where no step passes, the update becomes 0.

    Args:
        max_divergence: $\delta$ in nats, a number that is not negative.
        max_scale: $s_0$, a positive number: 1 only shortens updates; with `math.inf` only their direction counts, as in
            TRPO, also that of one so small or large that its square is no float.
        backtracks: How often $s$ may shrink. With 0 the quadratic estimate stands wherever the divergence is finite,
            and the bound holds approximately.
        shrink: What $s$ is multiplied by, in (0, 1).

    Returns:
        A transformation of updates of any shapes with a `TrustRegionState`; its `update` takes `divergence`, twice
        differentiable in forward mode at the parameters. It comes last in an `optax.chain`: what it bounds is the step
        taken.

    Raises:
        TypeError: The update got no `divergence` or no parameters.
        ValueError: The bound or `backtracks` is negative, the largest scale not positive, or `shrink` not in (0, 1).

    Example:
        >>> params = jnp.zeros(2)
        >>> def divergence(new): return losses.forward_kl(new, params)
        >>> transform = transforms.kl_trust_region(0.01)
        >>> state = transform.init(params)
        >>> updates, state = transform.update(jnp.array([3.0, 0.0]), state, params, divergence=divergence)
        >>> print(f"{divergence(params + updates):.4f} {state.scale:.4f}")
        0.0099 0.0942

    References:
        Schulman et al., Trust region policy optimization, 2015.
    """
    who = "transforms.kl_trust_region"
    _inputs.setting(who, "max_divergence", max_divergence, 0)
    _inputs.setting(who, "max_scale", max_scale, 0, closed="(]")
    _inputs.setting(who, "backtracks", backtracks, 0, whole=True)
    _inputs.setting(who, "shrink", shrink, 0, 1, closed="()")

    def init(params):
        del params
        return TrustRegionState(_float(1), _float(0))

    def update(updates: Any, state: Any, params: Any = None, *, divergence: Scalar | None = None, **extra: Any):
        del state, extra
        return compiled(_shortened, divergence)(updates, params, max_divergence, max_scale, shrink, backtracks)

    return optax.GradientTransformationExtraArgs(init, update)


def _shortened(divergence, updates, params, max_divergence, max_scale, shrink, backtracks):
    """The update within the trust region, and its state."""
    measure, bound = _inputs.measure("transforms.kl_trust_region", params, divergence), _float(max_divergence)

    def along(unit, length):
        return measure(optax.apply_updates(params, _times(length, unit, updates)))

    def too_far(carry):
        count, _, value = carry
        return (count < backtracks) & ~_within(value, bound)

    def shorter(carry):
        count, length, _ = carry
        length = length * jnp.asarray(shrink, length.dtype)
        return count + 1, length, _float(along(unit, length))

    unit, curvature = _curvature(along, measure(params))
    length = _quadratic_length(unit, curvature, bound, _float(max_scale))
    _, length, value = jax.lax.while_loop(too_far, shorter, (0, length, _float(along(unit, length))))
    passed = _within(value, jnp.where(jnp.asarray(backtracks) == 0, jnp.inf, bound))
    length, value = jnp.where(passed, length, 0), jnp.where(passed, value, 0)
    return _kept(passed, _times(length, unit, updates)), TrustRegionState(length * unit, value)


def _curvature(along, value):
    """D'' along the update times a power of two, 1 wherever D'' is then a normal float; and that power.

    What is known of the update's size is D'' alone: its own entries may be spread over devices.
    """
    # Of the dtype in which D is computed, which may have but five exponent bits. With room for what D'' is a sum of: a
    # processor that has no subnormal numbers would lose parts of it.
    normal = 64 * float(jnp.finfo(value.dtype).tiny)

    def hidden(carry):
        count, unit, curvature = carry
        too_flat = (jnp.abs(curvature) < normal) & (unit < 2.0**72)
        return (count == 0) | too_flat | (~jnp.isfinite(curvature) & (unit > 2.0**-120))

    def rescaled(carry):
        count, unit, curvature = carry
        # Smaller steps down than up: from above they cannot miss the range of float16.
        factor = jnp.where(jnp.abs(curvature) < normal, 2.0**24, 2.0**-8)
        unit = jnp.where(count == 0, unit, unit * factor.astype(unit.dtype))
        zero, one = jnp.zeros_like(unit), jnp.ones_like(unit)
        slope = functools.partial(jax.jvp, functools.partial(along, unit))
        curvature = jax.jvp(lambda length: slope((length,), (one,))[1], (zero,), (one,))[1]
        return count + 1, unit, _float(curvature)

    one, _ = varying_alike((_float(1), value))
    _, unit, curvature = jax.lax.while_loop(hidden, rescaled, (0, one, one))
    # A flat divergence bounds nothing, and neither does a curvature that is not a number: the measurement decides.
    bends = (curvature > 0) & jnp.isfinite(curvature)
    return jnp.where(bends, unit, 1), jnp.where(bends, curvature, 0)


def _quadratic_length(unit, curvature, bound, max_scale):
    """In units, within min(max_scale / unit, sqrt(2 bound / D'')); that of a scale of 1 where that is infinite."""
    longest = max_scale / unit
    # Two roots: their quotient is a float where that of the numbers is none.
    to_bound = jnp.where(curvature > 0, jnp.sqrt(2 * bound) / jnp.sqrt(or_one(curvature)), longest)
    # A hair inside: where the divergence is quadratic, rounding on the bound itself would cost half of the step.
    length = jnp.where(to_bound < longest, (1 - 2.0**-10) * to_bound, longest)
    return jnp.where(jnp.isfinite(length), length, 1 / unit)


def skip_large_divergence(max_divergence: ArrayLike) -> optax.GradientTransformationExtraArgs:
    r"""Drops an update $u$ unless $D(\theta + u) \le \delta$, and counts.

    Args:
        max_divergence: $\delta$ in nats, a number that is not negative; `inf` to drop only what is not finite.

    Returns:
        A transformation of updates of any shapes with a `SkipState`; its `update` takes `divergence`. An update that
        leads above the bound, to an infinite divergence or to `nan` becomes 0.

    Raises:
        TypeError: The update got no `divergence` or no parameters.
        ValueError: The bound is negative.

    Example:
        >>> params = jnp.zeros(2)
        >>> def divergence(new): return losses.forward_kl(new, params)
        >>> transform = transforms.skip_large_divergence(0.1)
        >>> state = transform.init(params)
        >>> updates, state = transform.update(jnp.array([3.0, 0.0]), state, params, divergence=divergence)
        >>> print(updates.tolist(), int(state.dropped))
        [0.0, 0.0] 1
    """
    who = "transforms.skip_large_divergence"
    _inputs.setting(who, "max_divergence", max_divergence, 0)

    def init(params):
        del params
        return SkipState(jnp.zeros((), jnp.int32), _float(0))

    def update(updates: Any, state: Any, params: Any = None, *, divergence: Scalar | None = None, **extra: Any):
        del extra
        measure = _inputs.measure(who, params, divergence)
        value = _float(measure(optax.apply_updates(params, updates)))
        kept = _within(value, _float(max_divergence))
        return _kept(kept, updates), SkipState(state.dropped + (~kept).astype(jnp.int32), value)

    return optax.GradientTransformationExtraArgs(init, update)


# ---------------------------------------------------------------- coefficients

Rule = Callable[[jax.Array, jax.Array], jax.Array]


def adaptive_coefficient(
    target: ArrayLike, rule: Rule, *, initial: ArrayLike = 1.0, floor: ArrayLike = 0.01, limit: ArrayLike = 1e6
) -> Controller:
    r"""The coefficient $\beta$ of a penalty $\beta D$, moved by a rule until $D$ is at its target.

    Args:
        target: The divergence wanted, in nats, a positive number.
        rule: $\beta' / \beta$ as a function of the measured divergence and the target, both `[]`: `doubling`,
            `proportional`, `dual`, or one's own.
        initial: The first coefficient $\beta_0$, a positive number.
        floor: $f$, in (0, 1]: the coefficient stays above $f \beta_0$, whence it finds back, by default, in seven
            doublings. Without one, a model that long stands still would take it to 0. Make it smaller if $\beta_0$ is
            a guess: a coefficient at its floor may be too large for the target.
        limit: $l \ge 1$: the coefficient stays below $l \beta_0$.

    Returns:
        A `Controller`. A divergence above the target makes the coefficient larger, one below it smaller; one that is
        not finite leaves it alone. The state is a tree of one array, for a loss, a scan or a checkpoint.

    Raises:
        ValueError: The target or the first coefficient is not positive, the floor not in (0, 1], or the limit below 1.
        TypeError: The rule is not a function.

    Example:
        >>> controller = transforms.adaptive_coefficient(0.02, transforms.doubling())
        >>> state = controller.init()
        >>> for measured in (0.5, 0.5, 0.001):
        ...     state = controller.update(measured, state)
        >>> print(state.coefficient)
        2.0
    """
    who = "transforms.adaptive_coefficient"
    _inputs.setting(who, "target", target, 0, closed="()")
    _inputs.setting(who, "initial", initial, 0, closed="()")
    _inputs.setting(who, "floor", floor, 0, 1, closed="(]")
    _inputs.setting(who, "limit", limit, 1)
    _inputs.rule(who, rule)

    def update(divergence, state):
        measured = _float(divergence)
        factor = jnp.where(jnp.isfinite(measured), rule(measured, _float(target)), 1)
        first = _float(initial)
        return CoefficientState(jnp.clip(state.coefficient * factor, first * _float(floor), first * _float(limit)))

    return Controller(lambda: CoefficientState(_float(initial)), update)


def doubling(tolerance: float = 1.5) -> Rule:
    r"""The rule that multiplies by $2$ above $\tau$ times the target, by $1/2$ below $1 / \tau$ of it, by 1 between.

    Args:
        tolerance: $\tau$, at least 1.

    Returns:
        A rule of `adaptive_coefficient`, of scalars `[]`; 1/2 for a divergence of 0.

    Raises:
        ValueError: The tolerance is below 1.

    Example:
        >>> print(transforms.doubling()(jnp.array(0.1), jnp.array(0.02)))
        2.0

    References:
        Schulman et al., Proximal policy optimization algorithms, 2017.
    """
    _inputs.setting("transforms.doubling", "tolerance", tolerance, 1)

    def rule(divergence, target):
        up, down = divergence > tolerance * target, divergence < target / tolerance
        return jnp.where(up, 2.0, jnp.where(down, 0.5, 1.0)).astype(target.dtype)

    return rule


def proportional(horizon: float, *, clip: float = 0.2) -> Rule:
    r"""The rule that multiplies by $1 + \operatorname{clip}(D / D^* - 1, \pm c) / h$.

    Args:
        horizon: $h$, in updates, at least 1; where an update sees a batch of n samples, the horizon in samples over n.
        clip: $c$, in (0, 1).

    Returns:
        A rule of `adaptive_coefficient`, of scalars `[]`; 1 - c/h for a divergence of 0.

    Raises:
        ValueError: The horizon is below 1, or `clip` not in (0, 1).

    Example:
        >>> print(f"{transforms.proportional(10)(jnp.array(1.0), jnp.array(0.02)):.2f}")
        1.02

    References:
        Ziegler et al., Fine-tuning language models from human preferences, 2019.
    """
    _inputs.setting("transforms.proportional", "horizon", horizon, 1)
    _inputs.setting("transforms.proportional", "clip", clip, 0, 1, closed="()")
    return lambda divergence, target: 1 + jnp.clip(divergence / target - 1, -clip, clip) / horizon


def dual(learning_rate: float) -> Rule:
    r"""The rule that multiplies by $\exp(\eta (D - D^*))$: dual ascent, in the logarithm of the multiplier.

    Args:
        learning_rate: $\eta$, per nat, a positive number.

    Returns:
        A rule of `adaptive_coefficient`, of scalars `[]`; below 1 for a divergence of 0.

    Raises:
        ValueError: The learning rate is not positive.

    Example:
        >>> print(f"{transforms.dual(0.5)(jnp.array(0.5), jnp.array(0.1)):.4f}")
        1.2214

    References:
        Abdolmaleki et al., Maximum a posteriori policy optimisation, 2018.
    """
    _inputs.setting("transforms.dual", "learning_rate", learning_rate, 0, closed="()")
    return lambda divergence, target: jnp.exp(learning_rate * (divergence - target))

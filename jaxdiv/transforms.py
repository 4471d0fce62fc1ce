r"""Optax gradient transformations controlled by a divergence, and adaptive penalty coefficients.

The `update` of each transformation takes one extra argument, `divergence`. It is a function from new parameters to a
scalar that says how far the model's outputs move; it is 0 at the current parameters:

    optimizer = optax.chain(optax.adam(3e-3), transforms.kl_trust_region(0.01))

    def divergence(new_params):
        return losses.mean(losses.forward_kl(model(new_params, x), model(params, x)))

    updates, state = optimizer.update(gradients, state, params, divergence=divergence)

On several devices this function must reduce over them, for instance by `losses.mean` with `axis_name`. Inside
`optax.multi_transform` it gets the parameters of its label, and `optax.MaskedNode()` in place of the others.
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
    """The factor that multiplied the last update, `[]`, and the divergence after that update, `[]`."""

    scale: jax.Array
    divergence: jax.Array


class SkipState(NamedTuple):
    """The number of dropped updates, an integer `[]`, and the divergence of the last update, dropped or not, `[]`."""

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

    This is the generalised Gauss-Newton product. Where the divergence is 0, it is exactly the product with the Hessian
    of the composition; for KL, that is the product with the Fisher information. The model is linearised once, for all
    vectors.

    Args:
        divergence: A function from outputs to a scalar. If it is convex, the product is non-negative.
        outputs: A function from parameters to outputs, any tree of arrays.
        params: The parameters, a tree of arrays of any shape.

    Returns:
        A linear function of trees like `params`. It is symmetric, and non-negative as a quadratic form where $H$ is.

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
    # `slope` is not linearised: for a loss inside a scan, partial evaluation fails on custom rules.
    return lambda vector: pull(jax.jvp(slope, (out,), (push(vector),))[1])[0]


def natural_gradient(damping: ArrayLike = 1e-3, iterations: int = 10) -> optax.GradientTransformationExtraArgs:
    r"""Replaces a gradient $g$ by $(F + \lambda I)^{-1} g$, with the Hessian $F$ of the divergence where it is 0.

    For KL, $F$ is the Fisher information and the result is the natural gradient. Followed by `kl_trust_region` it gives
    the step of TRPO, whose length is set by the bound alone:
    `optax.chain(natural_gradient(), optax.scale(-1.0), kl_trust_region(0.01, max_scale=math.inf))`.

    Args:
        damping: $\lambda \ge 0$. It is needed because $F$ is estimated from a batch and may be singular.
        iterations: The number of steps of conjugate gradients, at least 1; each costs a gradient and its derivative.

    Returns:
        A transformation without state, for gradients of any shapes and dtypes; gradients of 0 stay 0. Its `update`
        takes `divergence`, which must be twice differentiable at the parameters.

    Raises:
        TypeError: `update` got no `divergence` or no parameters.
        ValueError: `damping` is negative, or `iterations` is below 1.

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
    # Solve at least in float32, for the gradient divided by its largest entry, so that nothing over- or underflows.
    product = curvature_vector_product(lambda x: measure(_as(params, x)), lambda x: x, _wide(params))
    size = _largest(updates)
    solution = _solve(lambda v: _plus(product(v), damping, v), _over(_wide(updates), size), iterations)
    return _as(updates, jax.tree.map(lambda x: size.astype(x.dtype) * x, solution))


def _wide(tree):
    """The tree, with leaves of fewer bits cast to float32."""
    return jax.tree.map(lambda x: x.astype(_inputs.working(jnp.asarray(x))), tree)


def _as(like, tree):
    """The tree in the dtypes of another."""
    return jax.tree.map(lambda x, y: y.astype(x.dtype), like, tree)


def _largest(tree):
    """The largest magnitude in a tree, or 1 if all entries are 0."""
    return or_one(
        functools.reduce(jnp.maximum, [jnp.max(jnp.abs(_float(x))) for x in jax.tree.leaves(tree)], _float(0))
    )


def _over(tree, size):
    return jax.tree.map(lambda x: x / size.astype(x.dtype), tree)


def _solve(product, b, iterations):
    """Conjugate gradients from 0. Not jax.scipy's: inside `jax.shard_map` they lose track of what devices share."""

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
    """The update times a number and a power of two, one after the other: their product may over- or underflow."""

    def scaled(u):
        wide = _inputs.working(u)
        return (length.astype(wide) * (unit.astype(wide) * u.astype(wide))).astype(u.dtype)

    return jax.tree.map(lambda u: scaled(jnp.asarray(u)), updates)


def _kept(keep, updates):
    """The update if `keep`, else 0, even if the update holds NaN."""
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

    The first $s$ is $\min(s_0, \sqrt{2 \delta / D''})$, with the root reduced by a thousandth. $D''$ is the exact
    second derivative along the update; for KL it is the squared Fisher norm of the update. While the divergence
    measured at $s$ is above the bound or not finite, $s$ shrinks. If no step passes, the update becomes 0.

    Args:
        max_divergence: $\delta \ge 0$, in nats.
        max_scale: $s_0$, a positive number. With 1, updates are only shortened. With `math.inf`, only their direction
            counts, as in TRPO, even if the square of an update over- or underflows.
        backtracks: How often $s$ may shrink. With 0, the first $s$ is kept if the divergence there is finite, and the
            bound holds only approximately.
        shrink: The factor in (0, 1) by which $s$ shrinks.

    Returns:
        A transformation with a `TrustRegionState`, for updates of any shapes. Its `update` takes `divergence`, which
        must be twice differentiable in forward mode at the parameters. Put it last in an `optax.chain`, because it
        bounds the step that is taken.

    Raises:
        TypeError: `update` got no `divergence` or no parameters.
        ValueError: `max_divergence` or `backtracks` is negative, `max_scale` not positive, or `shrink` not in (0, 1).

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
    """A power of two, and D'' along the update times that power. The power is 1 if D'' is then a normal float.

    The size of the update is judged by D'' alone, because the entries of the update may be spread over devices.
    """
    # In the dtype of D, which may have only five exponent bits. The factor 64 leaves room for the summands of D'': a
    # processor without subnormal numbers would flush them to zero.
    normal = 64 * float(jnp.finfo(value.dtype).tiny)

    def hidden(carry):
        count, unit, curvature = carry
        too_flat = (jnp.abs(curvature) < normal) & (unit < 2.0**72)
        return (count == 0) | too_flat | (~jnp.isfinite(curvature) & (unit > 2.0**-120))

    def rescaled(carry):
        count, unit, curvature = carry
        # The steps down are smaller than those up, so that they cannot jump over the range of float16.
        factor = jnp.where(jnp.abs(curvature) < normal, 2.0**24, 2.0**-8)
        unit = jnp.where(count == 0, unit, unit * factor.astype(unit.dtype))
        zero, one = jnp.zeros_like(unit), jnp.ones_like(unit)
        slope = functools.partial(jax.jvp, functools.partial(along, unit))
        curvature = jax.jvp(lambda length: slope((length,), (one,))[1], (zero,), (one,))[1]
        return count + 1, unit, _float(curvature)

    one, _ = varying_alike((_float(1), value))
    _, unit, curvature = jax.lax.while_loop(hidden, rescaled, (0, one, one))
    # A curvature of 0 or NaN bounds nothing; then the measured divergence decides alone.
    bends = (curvature > 0) & jnp.isfinite(curvature)
    return jnp.where(bends, unit, 1), jnp.where(bends, curvature, 0)


def _quadratic_length(unit, curvature, bound, max_scale):
    """min(max_scale / unit, sqrt(2 bound / D'')), in units; if that is infinite, the length of a scale of 1."""
    longest = max_scale / unit
    # Divide two roots: the quotient of the numbers themselves may overflow.
    to_bound = jnp.where(curvature > 0, jnp.sqrt(2 * bound) / jnp.sqrt(or_one(curvature)), longest)
    # Slightly inside: if the divergence is quadratic, a rounding error on the bound itself would halve the step.
    length = jnp.where(to_bound < longest, (1 - 2.0**-10) * to_bound, longest)
    return jnp.where(jnp.isfinite(length), length, 1 / unit)


def skip_large_divergence(max_divergence: ArrayLike) -> optax.GradientTransformationExtraArgs:
    r"""Drops an update $u$ unless $D(\theta + u) \le \delta$, and counts the dropped ones.

    Args:
        max_divergence: $\delta \ge 0$, in nats; `inf` drops only updates to an infinite or `nan` divergence.

    Returns:
        A transformation with a `SkipState`, for updates of any shapes; its `update` takes `divergence`. An update to a
        divergence that is above the bound, infinite or `nan` becomes 0.

    Raises:
        TypeError: `update` got no `divergence` or no parameters.
        ValueError: `max_divergence` is negative.

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
    r"""The coefficient $\beta$ of a penalty $\beta D$, adapted by a rule until $D$ is at its target.

    Args:
        target: The desired divergence in nats, a positive number.
        rule: A function from the measured divergence and the target, both `[]`, to the factor $\beta' / \beta$:
            `doubling`, `proportional`, `dual`, or your own.
        initial: The first coefficient $\beta_0$, a positive number.
        floor: $f$, in (0, 1]; the coefficient stays at or above $f \beta_0$. Without a floor, a model that stands still
            for long would take it to 0; from the default floor it is back in seven doublings. If $\beta_0$ is a guess,
            make the floor smaller, because a coefficient at its floor may still be too large for the target.
        limit: $l \ge 1$; the coefficient stays at or below $l \beta_0$, and finite.

    Returns:
        A `Controller`. A divergence above the target makes the coefficient larger, a divergence below it smaller; a
        divergence that is not finite leaves it as it is. The state is a tree of one array, so it can go through a
        jitted function, a scan or a checkpoint.

    Raises:
        ValueError: `target` or `initial` is not positive, `floor` not in (0, 1], or `limit` below 1.
        TypeError: `rule` is not a function.

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
        least, most = _float(initial) * _float(floor), _float(initial) * _float(limit)
        info = jnp.finfo(least.dtype)  # no factor leads back from 0 or infinity
        least, most = jnp.maximum(least, info.tiny), jnp.minimum(most, info.max)
        return CoefficientState(jnp.clip(state.coefficient * factor, least, most))

    return Controller(lambda: CoefficientState(_float(initial)), update)


def doubling(tolerance: float = 1.5) -> Rule:
    r"""The rule that multiplies by $2$ if $D > \tau D^*$, by $1/2$ if $D < D^* / \tau$, and by 1 otherwise.

    Args:
        tolerance: $\tau$, at least 1.

    Returns:
        A rule for `adaptive_coefficient`, of scalars `[]`: the divergence $D$ and the target $D^*$. A divergence of 0
        gives 1/2.

    Raises:
        ValueError: `tolerance` is below 1.

    Example:
        >>> print(transforms.doubling()(jnp.array(0.1), jnp.array(0.02)))
        2.0

    References:
        Schulman et al., Proximal policy optimization algorithms, 2017.
    """
    _inputs.setting("transforms.doubling", "tolerance", tolerance, 1)

    def rule(divergence, target):
        up, down = divergence > tolerance * target, divergence < target / tolerance
        return jnp.where(up, 2.0, jnp.where(down, 0.5, 1.0)).astype(jnp.result_type(target))

    return rule


def proportional(horizon: float, *, clip: float = 0.2) -> Rule:
    r"""The rule that multiplies by $1 + \operatorname{clip}(D / D^* - 1, \pm c) / h$.

    Args:
        horizon: $h$, in updates, at least 1. If the horizon is given in samples and an update sees n of them, divide by
            n.
        clip: $c$, in (0, 1).

    Returns:
        A rule for `adaptive_coefficient`, of scalars `[]`: the divergence $D$ and the target $D^*$. A divergence of 0
        gives $1 - c / h$.

    Raises:
        ValueError: `horizon` is below 1, or `clip` not in (0, 1).

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
        A rule for `adaptive_coefficient`, of scalars `[]`: the divergence $D$ and the target $D^*$. A divergence of 0
        gives a factor below 1.

    Raises:
        ValueError: `learning_rate` is not positive.

    Example:
        >>> print(f"{transforms.dual(0.5)(jnp.array(0.5), jnp.array(0.1)):.4f}")
        1.2214

    References:
        Abdolmaleki et al., Maximum a posteriori policy optimisation, 2018.
    """
    _inputs.setting("transforms.dual", "learning_rate", learning_rate, 0, closed="()")
    return lambda divergence, target: jnp.exp(learning_rate * (divergence - target))

"""The KL term of variational autoencoders, in optax's convention."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._jit import jitted
from jaxdiv.elementary import expm1x

Axis = int | tuple[int, ...]


def _components(who, loc, log_scale, where):
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
    # (exp(2 s) - 1 - 2 s) / 2 + m^2 / 2: two terms of second order, nothing of which cancels.
    return 0.5 * (expm1x(2 * log_scale) + loc * loc), dtype


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
    terms, dtype = _components("losses.standard_normal_kl", loc, log_scale, where)
    axes = _inputs.axes("losses.standard_normal_kl", terms, axis)
    return jnp.sum(terms, axes).astype(dtype)


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
    terms, dtype = _components("losses.standard_normal_kl_per_component", loc, log_scale, where)
    return terms.astype(dtype)

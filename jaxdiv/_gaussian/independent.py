r"""Normal laws of independent components: all elementwise, from differences of scales or of their logarithms.

`scales(p, q)` is the pair by means and standard deviations, and the difference of these to its own accuracy: what
Wasserstein, Fisher-Rao and total variation are functions of.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxdiv._core.functions import expm1, expm1x, root, squared_arcsinh_root
from jaxdiv._gaussian import spectral
from jaxdiv._gaussian.excess import log_excess
from jaxdiv._gaussian.form import Form, as_they_are
from jaxdiv._gaussian.full import MultivariateNormal
from jaxdiv._gaussian.lowrank import LowRankNormal


class Normal(NamedTuple):
    """A normal law of independent components: means `[]` or `[d]` and standard deviations, which broadcast."""

    loc: ArrayLike
    scale: ArrayLike


class NormalLogScale(NamedTuple):
    """A normal law of independent components: means `[]` or `[d]` and logarithms of standard deviations."""

    loc: ArrayLike
    log_scale: ArrayLike


def _as_vectors(law):
    shape = jnp.broadcast_shapes((1,), *(x.shape for x in law))
    return type(law)(*(jnp.broadcast_to(x, shape) for x in law))


def _regular(law):
    # Without this a negative scale would pass unseen through squares.
    return _as_vectors(law._replace(scale=jnp.where(law.scale > 0, law.scale, jnp.nan)))


def _zeros(law):
    return jnp.zeros(jnp.broadcast_shapes(*(x.shape for x in law)), law.loc.dtype)


def _by_scale(law):
    return Normal(law.loc, jnp.exp(law.log_scale))


def _low_rank(law):
    return LowRankNormal(law.loc, jnp.zeros((*law.loc.shape, 0), law.loc.dtype), law.scale * law.scale)


def _root(law):
    return MultivariateNormal(law.loc, jnp.diag(law.scale))


# ---------------------------------------------------------------- by scales


def _kl(p, q):
    e, z = (p.scale - q.scale) / q.scale, (p.loc - q.loc) / q.scale
    return jnp.sum(0.5 * e * e + log_excess(p.scale, q.scale) + 0.5 * z * z)


def _jeffreys(p, q):
    return _jeffreys_by(((p.scale - q.scale) / p.scale) * ((p.scale + q.scale) / q.scale), p, q)


def _jeffreys_by(contrast, p, q):
    """From p / q - q / p of the scales."""
    delta = p.loc - q.loc
    return 0.5 * jnp.sum(contrast**2 + (delta / p.scale) ** 2 + (delta / q.scale) ** 2)


def _frame(p, q):
    """The frame divides by the root of the sum of variances."""
    larger = lax.stop_gradient(jnp.maximum(p.scale, q.scale))
    a, b = p.scale / larger, q.scale / larger
    total = lax.stop_gradient(a * a + b * b)
    tau = ((p.scale - q.scale) / larger) * (a + b) / total
    return _of_vectors(tau, 2 * a * (a / total), 2 * b * (b / total), (p.loc - q.loc) * (1 / larger / jnp.sqrt(total)))


def _of_vectors(tau, plus, minus, u):
    tiny = jnp.finfo(tau.dtype).tiny
    return spectral.Frame(lax.stop_gradient(tau), jnp.maximum(plus, tiny), jnp.maximum(minus, tiny), u)


# ---------------------------------------------------------------- by logarithms of scales


def _kl_of_logs(p, q):
    z = (p.loc - q.loc) * jnp.exp(-q.log_scale)
    return jnp.sum(0.5 * expm1x(2 * (p.log_scale - q.log_scale)) + 0.5 * z * z)


def _jeffreys_of_logs(p, q):
    e = expm1(p.log_scale - q.log_scale)
    return _jeffreys_by(e + e / (1 + e), _by_scale(p), _by_scale(q))  # 2 sinh of the difference


def _frame_of_logs(p, q):
    g = p.log_scale - q.log_scale
    larger = jnp.maximum(p.log_scale, q.log_scale)
    smaller_square = jnp.exp(-2 * jnp.abs(g))
    frame = lax.stop_gradient(jnp.exp(-larger) / jnp.sqrt(1 + smaller_square))
    less = -expm1(-2 * jnp.abs(g))
    plus, minus = (
        lax.stop_gradient(2 / (1 + jnp.exp(-sign * 2 * g))) * jnp.exp(2 * (x - lax.stop_gradient(x)))
        for sign, x in ((1, p.log_scale), (-1, q.log_scale))
    )
    return _of_vectors(jnp.sign(g) * less / (2 - less), plus, minus, (p.loc - q.loc) * frame)


def _scales_of_logs(p, q):
    difference = jnp.exp(q.log_scale) * expm1(p.log_scale - q.log_scale)
    return _by_scale(p), _by_scale(q), difference


# ---------------------------------------------------------------- distances of either


def fisher_rao_distance(p: Any, q: Any, difference: jax.Array) -> jax.Array:
    """The length of the geodesic, of laws and the difference of their scales."""
    delta = p.loc - q.loc
    of_scales = (difference / p.scale) * (difference / q.scale)
    squares = 8 * squared_arcsinh_root(0.25 * (0.5 * (delta / p.scale) * (delta / q.scale) + of_scales))
    return root(jnp.sum(squares))


def _squared_wasserstein2(p, q, difference):
    return jnp.sum((p.loc - q.loc) ** 2 + difference**2)


def _scales(p, q):
    return p, q, p.scale - q.scale


FORMS: dict[type, Form] = {
    Normal: Form(
        shapes="loc [d] or [], scale [d] or []",
        standard=lambda law: Normal(_zeros(law), _zeros(law) + 1),
        regular=_regular,
        semidefinite=lambda law: _as_vectors(law._replace(scale=jnp.where(law.scale >= 0, law.scale, jnp.nan))),
        factor=lambda law: jnp.diag(law.scale),
        mean=lambda law: law.loc,
        to={
            NormalLogScale: lambda law: NormalLogScale(law.loc, jnp.log(law.scale)),
            LowRankNormal: _low_rank,
            MultivariateNormal: _root,
        },
        alike=as_they_are,
        kl=_kl,
        kl_of_rows=None,
        jeffreys=_jeffreys,
        frame=_frame,
        squared_wasserstein2=lambda p, q: _squared_wasserstein2(*_scales(p, q)),
        half_log_det=lambda law: jnp.sum(jnp.log(law.scale)),
        scales=_scales,
        faults=lambda law, _: {"a scale that is not positive": np.any(law.scale <= 0, -1)},
    ),
    NormalLogScale: Form(
        shapes="loc [d] or [], log_scale [d] or []",
        standard=lambda law: NormalLogScale(_zeros(law), _zeros(law)),
        regular=_as_vectors,
        semidefinite=_as_vectors,
        factor=lambda law: jnp.diag(jnp.exp(law.log_scale)),
        mean=lambda law: law.loc,
        to={
            Normal: _by_scale,
            LowRankNormal: lambda law: _low_rank(_by_scale(law)),
            MultivariateNormal: lambda law: _root(_by_scale(law)),
        },
        alike=as_they_are,
        kl=_kl_of_logs,
        kl_of_rows=None,
        jeffreys=_jeffreys_of_logs,
        frame=_frame_of_logs,
        squared_wasserstein2=lambda p, q: _squared_wasserstein2(*_scales_of_logs(p, q)),
        half_log_det=lambda law: jnp.sum(law.log_scale),
        scales=_scales_of_logs,
        faults=lambda *_: {},
    ),
}

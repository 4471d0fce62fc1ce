"""How normal laws are averaged and moved: by standard deviations if components are independent, else by roots."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import unit_of
from jaxdiv._core.groups import Groups, Space, largest, means
from jaxdiv._gaussian import forms
from jaxdiv._gaussian.form import Law
from jaxdiv._gaussian.full import CovarianceNormal, MultivariateNormal, NaturalNormal
from jaxdiv._gaussian.independent import Normal
from jaxdiv._gaussian.linalg import product

# The unit of the logarithm of a standard deviation in the Fisher metric.
_UNIT = 0.5**0.5


def of(laws: Law) -> Space:
    """The space of the laws of a batch. Centres have their form if every mean has one, else `MultivariateNormal`."""
    form, one_component = type(laws), all(x.ndim == 1 for x in laws)
    independent = forms.FORMS[form].contrast is not None
    by_root = Normal if independent else MultivariateNormal
    back = form if forms.converters(by_root, form) is not None else by_root
    return Space(
        point=lambda law: forms.regular_as(law, by_root),
        law=lambda point: _squeezed(forms.converted(point, back), one_component),
        move=_moved_by_scales if independent else _moved_by_roots,
        mean=_mean_by_scales if independent else _mean_by_roots,
    )


def _squeezed(law, one_component):
    return jax.tree.map(lambda x: x[0], law) if one_component else law


def _moved_by_scales(point, change):
    return Normal(point.loc + point.scale * change.loc, point.scale * jnp.exp(_UNIT * change.scale))


def _moved_by_roots(point, change):
    root, lower = point.scale_tril, change.scale_tril
    factor = jnp.tril(lower, -1) + jnp.diag(jnp.exp(_UNIT * jnp.diagonal(lower)))
    return MultivariateNormal(point.loc + product(root, change.loc), product(root, factor))


def _largest(function, groups, *centres):
    """A power of two `[number, d]` of about the size of the largest; squares in this unit do not overflow."""
    return unit_of(largest(function, groups, *centres))


def _mean_by_scales(order: Any, groups: Groups) -> Law | None:
    if order == 1:
        loc = means(lambda p: p.loc, groups)
        unit = _largest(lambda p, loc: jnp.maximum(p.scale, jnp.abs(p.loc - loc)), groups, loc)

        def square(p, loc, unit):
            return (p.scale / unit) ** 2 + ((p.loc - loc) / unit) ** 2

        return Normal(loc, unit * jnp.sqrt(means(square, groups, loc, unit)))
    if order == 0:
        unit = 1 / _largest(lambda p: 1 / p.scale, groups)

        def natural(p, unit):
            root = unit / p.scale
            return p.loc * root * root, root**2

        natural, precision = means(natural, groups, unit)
        return Normal(natural / precision, unit / jnp.sqrt(precision))
    return None


def _mean_by_roots(order: Any, groups: Groups) -> Law | None:
    if order == 1:
        loc = means(lambda p: p.loc, groups)
        unit = _largest(
            lambda p, loc: jnp.maximum(jnp.max(jnp.abs(p.scale_tril), 1), jnp.abs(p.loc - loc)), groups, loc
        )
        covariance = means(_second_moment, groups, loc, unit)
        root = jax.vmap(lambda *law: forms.converted(CovarianceNormal(*law), MultivariateNormal).scale_tril)(
            loc, covariance
        )
        return MultivariateNormal(loc, unit[:, :, None] * root)
    if order == 0:
        unit = 1 / _largest(lambda p: 1 / jnp.abs(jnp.diagonal(p.scale_tril)), groups)
        natural = means(lambda p, unit: forms.converted(_over(unit, p), NaturalNormal), groups, unit)
        found = jax.vmap(lambda law: forms.converted(law, MultivariateNormal))(natural)
        return jax.vmap(_over)(1 / unit, found)
    return None


def _over(unit, p):
    return MultivariateNormal(p.loc / unit, p.scale_tril / unit[:, None])


def _second_moment(p, loc, unit):
    root, delta = p.scale_tril / unit[:, None], (p.loc - loc) / unit
    return product(root, root.T) + delta[:, None] * delta[None]

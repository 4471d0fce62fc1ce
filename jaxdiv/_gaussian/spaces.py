"""How normal laws are averaged and moved: by standard deviations if components are independent, else by roots."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdiv._core.groups import Groups, Space, means
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


def _mean_by_scales(order: Any, groups: Groups) -> Law | None:
    if order == 1:
        loc = means(lambda p: p.loc, groups)
        square = means(lambda p, loc: p.scale**2 + (p.loc - loc) ** 2, groups, loc)
        return Normal(loc, jnp.sqrt(square))
    if order == 0:
        natural, precision = means(lambda p: (p.loc / p.scale / p.scale, 1 / p.scale**2), groups)
        return Normal(natural / precision, 1 / jnp.sqrt(precision))
    return None


def _mean_by_roots(order: Any, groups: Groups) -> Law | None:
    if order == 1:
        loc = means(lambda p: p.loc, groups)
        covariance = means(_second_moment, groups, loc)
        return jax.vmap(lambda *law: forms.converted(CovarianceNormal(*law), MultivariateNormal))(loc, covariance)
    if order == 0:
        natural = means(lambda p: forms.converted(p, NaturalNormal), groups)
        return jax.vmap(lambda law: forms.converted(law, MultivariateNormal))(natural)
    return None


def _second_moment(p, loc):
    delta = p.loc - loc
    return product(p.scale_tril, p.scale_tril.T) + delta[:, None] * delta[None]

"""All forms of normal laws, and functions for any of them. A new form needs a NamedTuple and a record.

Two laws of one form are compared by the formulas of that form. Laws of two forms are first converted to the first form
of `FORMS` that both convert to. The forms are in the order of their cost.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core import tuning
from jaxdiv._core.functions import root, with_tangents
from jaxdiv._gaussian import full, independent, kronecker, lowrank
from jaxdiv._gaussian.bures import squared_bures
from jaxdiv._gaussian.excess import LOG_2PI
from jaxdiv._gaussian.form import Form, Law
from jaxdiv._gaussian.full import MultivariateNormal
from jaxdiv._gaussian.independent import Normal

FORMS: dict[type, Form] = {**independent.FORMS, **lowrank.FORMS, **full.FORMS, **kronecker.FORMS}
SHAPES = {form: record.shapes for form, record in FORMS.items()}
for _form in FORMS:
    _form.__module__ = "jaxdiv.gaussian"  # where pickle and readers look for them


def of(law: Law) -> Form:
    """The record of a law's form."""
    return FORMS[type(law)]


def _becomes(form, other):
    return form is other or other in FORMS[form].to


def common_form(*forms: type) -> type:
    """The form in which laws of these forms are compared."""
    if len(set(forms)) == 1:
        return forms[0]
    return next(other for other in FORMS if all(_becomes(form, other) for form in forms))


def converters(form: type, other: type) -> list[Callable[[Law], Law]] | None:
    """The steps from a regular law of one form to another: one, or two by way of the root; None if impossible."""
    if form is other:
        return []
    if other in FORMS[form].to:
        return [FORMS[form].to[other]]
    if other in FORMS[MultivariateNormal].to:
        return [FORMS[form].to[MultivariateNormal], FORMS[MultivariateNormal].to[other]]
    return None


def converted(law: Law, form: type) -> Law:
    """A regular law in another form, for which `converters` must have steps."""
    for step in converters(type(law), form) or []:
        law = step(law)
    return law


def regular_as(law: Law, form: type) -> Law:
    """A law as given, made regular and converted to a form."""
    return converted(of(law).regular(law), form)


def squared_wasserstein2(p: Law, q: Law) -> jax.Array:
    """The squared Wasserstein-2 distance of laws as given, whose covariances may be singular."""
    form = FORMS[common_form(type(p), type(q))]
    p, q = (of(law).semidefinite(law) for law in (p, q))
    if type(p) is type(q):
        return form.squared_wasserstein2(*form.alike(p, q))
    if form.contrast is not None:
        return form.squared_wasserstein2(*(converted(law, Normal) for law in (p, q)))
    delta = of(p).mean(p) - of(q).mean(q)
    a, b = (of(law).factor(law) for law in (p, q))
    width = max(a.shape[1], b.shape[1])
    a, b = (jnp.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (a, b))
    return jnp.sum(delta * delta) + squared_bures(a, b, a - b)


def wasserstein2_distance(p: Law, q: Law) -> jax.Array:
    """The Wasserstein-2 distance of laws as given, whose covariances may be singular."""
    if not are_independent(p, q):
        return root(squared_wasserstein2(p, q))
    p, q = (of(law).semidefinite(law) for law in (p, q))
    if type(p) is not type(q):
        p, q = (converted(law, Normal) for law in (p, q))
    return independent.wasserstein2_distance(*FORMS[type(p)].alike(p, q))


def comparable(p: Law, q: Law) -> tuple[Form, Law, Law]:
    """The record of the common form of two laws as given; and both laws in it, regular and of equal shapes."""
    form = common_form(type(p), type(q))
    record = FORMS[form]
    return record, *record.alike(regular_as(p, form), regular_as(q, form))


def kl(p: Law, q: Law) -> jax.Array:
    """The Kullback-Leibler divergence of laws as given."""
    form, regular_p, regular_q = comparable(p, q)
    value = form.kl(regular_p, regular_q)
    if form.kl_of_rows is None or type(p) is not type(q) or p[0].size > tuning.SMALL:
        return value
    return with_tangents(form.kl_of_rows(p, q, lax.stop_gradient(value)), value)


def entropy(law: Law) -> jax.Array:
    """The differential entropy of a regular law."""
    # A mean with `nan` makes the entropy `nan`, as in every other function.
    return (
        of(law).half_log_det(law)
        + 0.5 * (1 + LOG_2PI) * law[0].size
        + jnp.where(jnp.any(jnp.isnan(law[0])), jnp.nan, 0)
    )


def are_independent(*laws: Law) -> bool:
    """Whether the common form of laws has independent components."""
    return FORMS[common_form(*map(type, laws))].contrast is not None

"""Sums of terms over two probability vectors `[..., k]`, in blocks of rows, with gradients elementwise in the vectors.

A term is a function of (p, q, *parameters), homogeneous of degree one in (p, q), with its own derivatives. Inside a
block it gets the vectors `enlarged` and in the working precision, so no whole input is copied, not even one in half
precision. Parameters have the rank of the vectors and a last axis of length 1.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiv._core.blocks import in_row_blocks
from jaxdiv._core.events import LAST, Events, few_elsewhere, sums
from jaxdiv._core.functions import (
    LOG2,
    capped,
    enlarged,
    enlargement,
    expm1,
    log1p_ratio,
    log_of_enlarged,
    log_ratio,
    or_one,
    tangent_in_parameters,
)
from jaxdiv._core.passes import recomputed
from jaxdiv._core.rules import custom_jvp
from jaxdiv._discrete import affinity, masses, tables, terms
from jaxdiv._discrete.record import Divergence, Event, unbounded
from jaxdiv._inputs import working

Term = Callable[..., jax.Array]
Table = Callable[[jax.Array, jax.Array], jax.Array]


def enlarge(p: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both vectors in their common working precision, `enlarged`."""
    work = working(p, q)
    return enlarged(p.astype(work)), enlarged(q.astype(work))


def pair(p: jax.Array, q: jax.Array) -> Event:
    """The `Event` of each event of enlarged vectors, also enlarged; `nan` where one is negative."""
    # Without this a negative entry would pass through differences and quotients unnoticed.
    valid = (p >= 0) & (q >= 0)
    p, q = jnp.where(valid, p, jnp.nan), jnp.where(valid, q, jnp.nan)
    c = log_ratio(p, q, p - q)
    return Event(p, q, c, p - q, c, jnp.zeros_like(c), None, None)


@functools.cache
def term_of(divergence: Divergence) -> Term:
    """The term of a divergence, with derivatives from its slopes unless it has its own (`of_masses`)."""
    if divergence.of_masses:
        return divergence.of_masses

    @custom_jvp
    def term(p, q, *parameters):
        return divergence.term(pair(p, q), *parameters)

    def rule(primals, tangents):
        p, q, *parameters = primals
        dp, dq, *d_parameters = tangents
        value, both = term(*primals), pair(p, q)
        tangent = jnp.zeros_like(value)
        for slope, own, d_own in ((divergence.slope_p, p, dp), (divergence.slope_q, q, dq)):
            if d_own is not None:
                tangent += _derivative(slope, both, own, value, parameters) * d_own
        if any(d is not None for d in d_parameters):
            along = [jnp.zeros_like(x) if d is None else d for x, d in zip(parameters, d_parameters, strict=True)]
            tangent += jax.jvp(functools.partial(divergence.term, both), parameters, along)[1]
        return value, tangent

    term.defjvp(rule, symbolic_zeros=True)
    return term


def _tangent(function, primals, tangents):
    """The tangent of a function; the tangents of its fixed arguments are None."""

    def along(moving):
        return function(*(x if y is None else y for x, y in zip(primals, moving, strict=True)))

    moving = tuple(None if d is None else x for x, d in zip(primals, tangents, strict=True))
    return jax.jvp(along, (moving,), (tuple(tangents),))[1]


def _derivative(slope, both, own, value, parameters):
    """The derivative in p (or q): by homogeneity, the slope at (1, q / p). It is 0, by convention, where p is 0.

    It is 0 too where the value is infinite. A derivative that overflows becomes the largest float, because an infinite
    one times a cotangent of 0 would be NaN.
    """
    dead = (own == 0) | (value == jnp.inf)
    p, q, c, difference, own = (jnp.where(dead, 1, x) for x in (*both[:4], own))
    # In a larger unit where q / p could overflow.
    unit, largest = jnp.maximum(own, 2.0**-100 * jnp.maximum(p, q)), jnp.finfo(c.dtype).max
    at = Event(p / unit, q / unit, c, difference / unit, c, both.saturated, None, None)
    return jnp.where(dead, 0, jnp.clip(slope(at, *parameters) * (unit / own), -largest, largest))


@functools.cache
def _sums(terms: tuple[Term, ...], table: Table | None = None, events: Events = LAST) -> Callable:
    """A function (p, q, *parameters) -> row sums of each term, and of (p + q) / 2. The last is not differentiable."""

    def block(recompute, p, q, *parameters):
        # One pass. On an accelerator, events that are neighbours in memory are read together.
        here = events._replace(apart=events.apart and not few_elsewhere(events, recompute, p, q))
        p, q = enlarge(p, q)
        found = sums(here, lambda p, q: [term(p, q, *parameters) for term in terms], p, q)
        return [x / enlargement(x) for x in found], jnp.sum(0.5 / enlargement(p) * (p + q), -1, keepdims=True)

    def of_pairs(p, q):
        p, q = enlarge(p, q)
        found = [table(p, q)] if table else [tables.all_pairs(term, p, q) for term in terms]
        mass_p, mass_q = (jnp.sum(0.5 / enlargement(x) * x, -1) for x in (p, q))
        return [x[..., None] / enlargement(x) for x in found], (mass_p[:, None] + mass_q[None])[..., None]

    of_rows = custom_jvp(functools.partial(in_row_blocks, block, events=events, of_pairs=of_pairs))

    def rule(primals, tangents):
        values, mass = of_rows(*primals)

        def tangent(term, value, primals, tangents):
            (p, q, *parameters), of_laws, of_parameters = primals, tangents[:2], tangents[2:]
            total = jnp.zeros_like(value)
            if any(d is not None for d in of_laws):
                d_term = _tangent(lambda p, q: term(*enlarge(p, q), *parameters), (p, q), of_laws)
                total += jnp.sum(d_term, -1, keepdims=True) / enlargement(value)
            if any(d is not None for d in of_parameters):

                def row(*parameters):
                    return jnp.sum(term(*enlarge(p, q), *parameters), -1, keepdims=True) / enlargement(value)

                total += tangent_in_parameters(row, parameters, of_parameters, value)
            return total

        def of_terms(primals, tangents):
            return [tangent(*x, primals, tangents) for x in zip(terms, values, strict=True)]

        return (values, mass), (recomputed(of_terms, primals, tangents), jnp.zeros_like(mass))

    of_rows.defjvp(rule, symbolic_zeros=True)
    return of_rows


def total(divergence: Divergence, p: jax.Array, q: jax.Array, *parameters: jax.Array) -> jax.Array:
    """The sum of a divergence's terms over the last axis, kept, in the working precision.

    The bound of the divergence holds for vectors that sum to one, so only those are capped.
    """
    # As for logits, events are taken one after the other only if a cap follows their sum.
    events = LAST._replace(apart=divergence.bound is not unbounded)
    (value,), mass = _sums((term_of(divergence),), divergence.table, events)(p, q, *parameters)
    if divergence.bound is unbounded:
        return value
    return bounded(value, mass, divergence.bound(*parameters))


def bounded(value: jax.Array, mass: jax.Array, bound: jax.Array | float) -> jax.Array:
    """The value, capped at a bound that holds for laws, if the mass is that of laws."""
    return capped(value, jnp.where(mass <= 1 + 4 * jnp.finfo(mass.dtype).eps, bound, jnp.inf))


def minus_log_affinity(p: jax.Array, q: jax.Array) -> jax.Array:
    """-log of the sum of sqrt(p q) over the last axis, kept, in the working precision."""
    (gap, affinity), _ = _sums((masses.squared_hellinger, masses.geometric_mean))(p, q)
    near, none = gap < 0.5, affinity == 0
    x = jnp.where(near, gap, 0)
    far = jnp.where(none, jnp.inf, -jnp.log(jnp.where(near | none, 1, affinity)))
    return jnp.where(near, x * log1p_ratio(-x), jnp.where(affinity == jnp.inf, jnp.nan, far))


@custom_jvp
def minus_log_affinity_of_order(s: jax.Array, p: jax.Array, q: jax.Array) -> jax.Array:
    """-log of the sum of p^s q^(1-s) over the last axis, kept, in the working precision, for s in (0, 1)."""
    both = pair(*enlarge(p, q))
    gap = jnp.sum(terms.amari.term(both, s), -1, keepdims=True) * (s * (1 - s) / enlargement(s))
    near = ~(gap >= 0.5)
    x = jnp.where(near, gap, 0)
    far = -affinity.log_affinity(log_of_enlarged(both.p), both.log_ratio, s)
    return jnp.where(near, x * log1p_ratio(-x), far)


def _slopes_of_order(primals, tangents):
    s, p, q = primals
    ds, *d_laws = tangents
    value, both = minus_log_affinity_of_order(*primals), pair(*enlarge(p, q))
    log_p, c, largest = log_of_enlarged(both.p), both.log_ratio, jnp.finfo(value.dtype).max
    alone, near = jnp.isinf(c), value < LOG2
    finite, inverse = jnp.where(alone, 0, c), jnp.exp(jnp.where(near, value, 0))
    tilted = affinity.tilted(log_p, c, s)
    tangent = jnp.zeros_like(value)
    # As the value, from differences of laws where the sum is close to 1, elsewhere from the events of both.
    for own, d_own, weight, power in zip(both[:2], d_laws, (s, 1 - s), ((s - 1) * finite, s * finite), strict=True):
        if d_own is not None:
            loss = jnp.where(alone, 1, -expm1(jnp.where(near, power, 0))) * inverse
            slope = jnp.where(near, loss, -jnp.where(alone, 0, tilted) / or_one(own) * enlargement(own))
            slope = jnp.where((own == 0) | (value == jnp.inf), 0, jnp.clip(weight * slope, -largest, largest))
            tangent += jnp.sum(slope * d_own.astype(slope.dtype), -1, keepdims=True)
    if ds is not None:
        tangent -= affinity.tilted_moments(log_p, c, s)[0] * ds
    return value, tangent


minus_log_affinity_of_order.defjvp(_slopes_of_order, symbolic_zeros=True)


def _entropy_term(p, _):
    """-p log p, enlarged."""
    return masses.cross_entropy(p, p)


def entropy(p: jax.Array) -> jax.Array:
    """The sum of -p log p over the last axis, kept, in the working precision."""
    (value,), _ = _sums((_entropy_term,))(p, lax.stop_gradient(p))
    return value

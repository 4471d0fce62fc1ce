"""Two laws of one family as functions of their weights, and sums and mixtures of such pairs."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdiv._exponential import divided
from jaxdiv._exponential.divided import Weights


class Pair(NamedTuple):
    """Two laws: functions of their weights.

    `k` is K(s), `k_at` the same at one of the laws, `log_affinity` the logarithm of the affinity at complex weights.
    `slope` is the derivative of -log c(s) and `curvature` the derivative of less that. `like` `[]` is 0, or `nan` where
    a parameter is outside of its range.
    """

    like: jax.Array
    k: Callable[[Weights], jax.Array]
    k_at: Callable[[Weights], jax.Array]
    log_affinity: Callable[[Weights], jax.Array]
    slope: Callable[[Weights], jax.Array]
    curvature: Callable[[Weights], jax.Array]


class Line(NamedTuple):
    """A parameter at the two laws, `[]`, and its accurate difference."""

    p: jax.Array
    q: jax.Array
    delta: jax.Array

    def at(self, s: Weights) -> jax.Array:
        """At weights, from the nearer end, so that beside it no digit of it is lost."""
        a, b, d = (x.astype(s.p.dtype) for x in self)
        return jnp.where(jnp.real(s.p) < 0.5, b + s.p * d, a - s.q * d)


def line_of(p: jax.Array, q: jax.Array) -> Line:
    return Line(p, q, p - q)


def of_function(function: divided.Function) -> Pair:
    """Of a function whose second divided difference is K."""
    inside = jnp.isfinite(function.at_p) & jnp.isfinite(function.at_q)
    return Pair(
        jnp.where(inside, jnp.zeros_like(function.at_p), jnp.nan),
        functools.partial(divided.k, function),
        functools.partial(divided.k_at, function),
        functools.partial(divided.log_affinity, function),
        functools.partial(divided.affinity_slope, function),
        function.curvature,
    )


def where_finite(pair: Pair, value: Callable[[Weights], jax.Array]) -> Pair:
    """K is infinite where the function is infinite or not a number, but not at the laws."""

    def k(s):
        diverges = ~jnp.isfinite(value(s)) & ~jnp.isnan(pair.like + s.p)
        return jnp.where(diverges, jnp.inf, pair.k(_half_unless(~diverges, s)))

    return pair._replace(k=k)


def _half_unless(condition, s):
    return Weights(*(jnp.where(condition, x, 0.5) for x in s))


def total(*pairs: Pair) -> Pair:
    """The sum of functions: the product of laws."""

    def of(name):
        return lambda s: functools.reduce(jnp.add, (getattr(pair, name)(s) for pair in pairs))

    return Pair(functools.reduce(jnp.add, (pair.like for pair in pairs)), *map(of, Pair._fields[1:]))


def chosen(condition: jax.Array, pair: Pair, other: Pair) -> Pair:
    def either(f, g):
        return lambda s: jnp.where(condition, f(s), g(s))

    like = jnp.where(condition, pair.like, other.like)
    return Pair(like, *(either(f, g) for f, g in zip(pair[1:], other[1:], strict=True)))


def multiplied(factor: jax.Array, pair: Pair) -> Pair:
    """A function times a real factor."""

    def of(f):
        return lambda s: factor.astype(s.p.dtype) * f(s)

    return Pair(pair.like, *map(of, pair[1:]))


def of_components(make: Callable[..., Pair], *arrays: jax.Array) -> Pair:
    """The sum over the entries of arrays, of each of which `make` makes a pair."""

    def of(name):
        return lambda s: jnp.sum(jax.vmap(lambda *x: getattr(make(*x), name)(s))(*arrays))

    return Pair(jnp.sum(jax.vmap(lambda *x: make(*x).like)(*arrays)), *map(of, Pair._fields[1:]))


def mixed(size: Line, pair: Pair) -> Pair:
    """A function of first degree, of what is mixed by the shares of the laws in a size."""

    def shares(s):
        n = size.at(s)
        return Weights(s.p * size.p.astype(n.dtype) / n, s.q * size.q.astype(n.dtype) / n)

    def k(s):
        return size.p / size.at(s) * size.q * pair.k(shares(s))

    def k_at(end):
        return (end.p * size.q + end.q * size.p) * pair.k_at(end)

    def log_affinity(s):
        return size.at(s) * pair.log_affinity(shares(s))

    def slope(s):
        w = shares(s)
        return size.delta * w.p * w.q * pair.k(w) + size.p / size.at(s) * size.q * pair.slope(w)

    def curvature(s):
        n = size.at(s)
        scale = size.p / n * size.q
        return scale * (scale / n) * pair.curvature(shares(s))

    return Pair(pair.like, k, k_at, log_affinity, slope, curvature)


def within(inside: Callable[..., jax.Array], pair: Pair, *lines: Line) -> Pair:
    """`nan` of laws that are none, and infinite where they have no affinity at the weight."""
    at = [inside(*(getattr(line, end) for line in lines)) for end in ("p", "q")]
    like = jnp.where(at[0] & at[1], pair.like, jnp.nan)

    def k(s):
        found = inside(*(line.at(s) for line in lines))
        return jnp.where(found | jnp.isnan(s.p), pair.k(_half_unless(found, s)), jnp.inf) + like + 0 * s.p

    def checked(f):
        def of(s):
            found = f(s)
            return found + like.astype(found.dtype)

        return of

    rest = {name: checked(getattr(pair, name)) for name in ("k_at", "log_affinity", "slope", "curvature")}
    return pair._replace(like=like, k=k, **rest)

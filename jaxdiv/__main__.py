r"""`python -m jaxdiv`: whether this device, with this jaxlib and these XLA flags, keeps the library's promises.

Every public divergence of a discrete pair is run, value and gradient, on the kinds of rows that break such code, as one
compiled batch, and compared on the host with its textbook definition in decimal arithmetic. The exit status is 1 when a
promise is broken: a device, compiler or flag that loses digits is found here and not in a training run.
"""

import argparse
import decimal
import functools
import inspect
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jaxlib
import numpy as np

from jaxdiv import bernoulli, categorical, simplex

FAMILIES = (categorical, simplex, bernoulli)

# ---------------------------------------------------------------- the truth

# Textbook forms cancel: 21 digits at log-ratios of 1e-7 and an order within 1e-6 of 1. 50 leave more than a double has.
# Without traps, logarithms of zero are infinite and the slopes beside an infinite value nan; those are not compared.
DIGITS = decimal.Context(prec=50, traps=[])
ZERO, HALF, ONE = Decimal(0), Decimal("0.5"), Decimal(1)

Law = Sequence[Decimal]
# A divergence D, and p dD/dp and q dD/dq of each event: products that stay finite where a probability is zero.
Truth = tuple[Decimal, Law, Law]
Definition = Callable[[Law, Law], Truth]

_log = functools.cache(Decimal.ln)  # the verbs ask for the same logarithms


def _x_log(x, y):
    """x log(x / y), 0 where x is 0."""
    return x * _log(x / y) if x else ZERO


def _kl(p, q):
    return _x_log(p, q) - p + q, _x_log(p, q), q - p


def _jeffreys(p, q):
    return _x_log(p, q) + _x_log(q, p), _x_log(p, q) + p - q, _x_log(q, p) + q - p


def _js(p, q, weight):
    m = weight * p + (1 - weight) * q
    left, right = weight * _x_log(p, m), (1 - weight) * _x_log(q, m)
    return left + right, left, right


def _total_variation(p, q):
    half = HALF * ((p > q) - (p < q))
    return half * (p - q), half * p, -half * q


def _triangular(p, q):
    v = (p - q) / (p + q)
    return (p - q) * v, p * v * (2 - v), -q * v * (2 + v)


def _cross_entropy(p, q):
    surprise = _x_log(p, q) - _x_log(p, ONE)
    return surprise, surprise, -p


def _affinity(p, q, s):
    """A term of S(s) = sum p^s q^(1-s), and the slopes of s p + (1-s) q - p^s q^(1-s), whose sum is 1 - S."""
    if p and q:
        term = q * (s * _log(p / q)).exp()
    else:
        term = Decimal("inf") if (p and s > 1) or (q and s < 0) else ZERO
    return term, s * (p - term), (1 - s) * (q - term)


def _sum(term: Callable[..., tuple[Decimal, Decimal, Decimal]], *parameters: Decimal) -> Definition:
    """The divergence of which `term` gives the term and slopes of one event."""

    def definition(ps, qs):
        parts = [term(p, q, *parameters) if p or q else (ZERO,) * 3 for p, q in zip(ps, qs, strict=True)]
        terms, slopes_p, slopes_q = zip(*parts, strict=True)
        return sum(terms, ZERO), slopes_p, slopes_q

    return definition


def _then(outer: Callable[[Decimal], tuple[Decimal, Decimal]], inner: Definition) -> Definition:
    """A function of a divergence: `outer` gives the value and the factor that takes slopes to slopes."""

    def definition(ps, qs):
        value, slopes_p, slopes_q = inner(ps, qs)
        value, factor = outer(value)
        return value, [factor * x for x in slopes_p], [factor * x for x in slopes_q]

    return definition


def _gap(s, scale):
    return _then(lambda affinity: ((1 - affinity) / scale, 1 / scale), _sum(_affinity, s))


def _renyi(alpha):
    return _then(lambda affinity: (_log(affinity) / (alpha - 1), 1 / affinity / (1 - alpha)), _sum(_affinity, alpha))


def _negative_log(s):
    return _then(lambda affinity: (-_log(affinity), 1 / affinity), _sum(_affinity, s))


def _root(x):
    return x.sqrt(), 1 / (2 * x.sqrt())


def _arc(gap):
    """2 arccos(1 - x) = 4 arcsin sqrt(x / 2), by halving the angle until two terms of the series are enough."""
    sine = (gap / 2).sqrt()
    for _ in range(40):
        sine /= (2 + 2 * (1 - sine * sine).sqrt()).sqrt()
    return 2**42 * (sine + sine**3 / 6), 2 / (gap * (2 - gap)).sqrt()


def _chernoff(ps, qs):
    # At the maximum over s the slopes are those at fixed s.
    return _negative_log(_least_affinity([(p, q) for p, q in zip(ps, qs, strict=True) if p and q]))(ps, qs)


def _least_affinity(common: Sequence[tuple[Decimal, Decimal]]) -> Decimal:
    """The s in [0, 1] of the least S over the common support: Newton's method on the convex log S, in a bracket."""

    def slope_and_guess(s):
        weights = [_affinity(p, q, s)[0] for p, q in common]
        logs = [_log(p / q) for p, q in common]
        mean = sum(w * c for w, c in zip(weights, logs, strict=True)) / sum(weights)
        variance = sum(w * (c - mean) ** 2 for w, c in zip(weights, logs, strict=True)) / sum(weights)
        return mean, s - mean / variance

    if not common or slope_and_guess(ZERO)[0] >= 0:
        return ZERO
    if slope_and_guess(ONE)[0] <= 0:
        return ONE
    low, s, high, step = ZERO, HALF, ONE, ONE
    while abs(step) > Decimal("1e-25"):  # an error of s enters the slopes as it is
        slope, guess = slope_and_guess(s)
        low, high = (s, high) if slope < 0 else (low, s)
        step = (guess if low < guess < high else (low + high) / 2) - s
        s += step
    return s


class Divergence(NamedTuple):
    """How a verb is checked: its definition for given options, the options to try, an upper bound of its value."""

    definition: Callable[..., Definition]
    options: Sequence[dict[str, float]] = ({},)
    bound: float = math.inf


DIVERGENCES = {
    "kl": Divergence(lambda: _sum(_kl), ({}, {"temperature": 7.3})),
    "jeffreys": Divergence(lambda: _sum(_jeffreys)),
    "js": Divergence(lambda weight=HALF: _sum(_js, weight), ({}, {"weight": 0.1}), math.log(2)),
    "js_distance": Divergence(lambda: _then(_root, _sum(_js, HALF)), bound=math.sqrt(math.log(2))),
    "renyi": Divergence(_renyi, ({"alpha": 0.5}, {"alpha": 1 + 1e-6}, {"alpha": 2.0})),
    "amari": Divergence(
        lambda alpha: _gap(alpha, alpha * (1 - alpha)), ({"alpha": -1.0}, {"alpha": 0.3}, {"alpha": 1 + 1e-6})
    ),
    "squared_hellinger": Divergence(lambda: _gap(HALF, ONE), bound=1.0),
    "hellinger_distance": Divergence(lambda: _then(_root, _gap(HALF, ONE)), bound=1.0),
    "fisher_rao_distance": Divergence(lambda: _then(_arc, _gap(HALF, ONE)), bound=math.pi),
    "bhattacharyya": Divergence(lambda: _negative_log(HALF)),
    "chernoff": Divergence(lambda: _chernoff),
    "total_variation": Divergence(lambda: _sum(_total_variation), bound=1.0),
    "chi2": Divergence(lambda: _gap(Decimal(2), -ONE)),
    "triangular": Divergence(lambda: _sum(_triangular), bound=2.0),
    "cross_entropy": Divergence(lambda: _sum(_cross_entropy)),
}


# ---------------------------------------------------------------- the rows


def _logit_pairs(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of logits: ordinary, near-equal, confident, shifted, with zeros, identical."""
    random = np.random.default_rng(seed)

    def row(scale):
        return scale * random.standard_normal(8)

    def without(x, *events):
        return np.where(np.isin(np.arange(8), events), -np.inf, x)

    first, second = 30 * np.eye(8)[:2]
    pairs = [(row(scale), row(scale)) for scale in (0.3, 1, 3, 6)]
    pairs += [(x, x + eps * row(1)) for eps in 10.0 ** -np.arange(1, 8) for x in [row(2)]]
    pairs += [(row(1) + x, row(1) + y) for x in (0, first) for y in (0, first, second)]
    pairs += [(x + first, x + first + row(1e-3)) for x in [row(2)]]
    pairs += [(a + one, b + both) for a, b in pairs[::3] for one, both in ((1e3, 1e3), (1e4, 1e4), (1e4, 0))]
    for a, b in pairs[::4]:
        pairs += [(without(a, 1, 4), b), (a, without(b, 1, 4)), (without(a, 1, 4), without(b, 1, 4))]
        pairs += [(without(a, 0, 4), without(b, 1)), (without(a, 0, 2, 4, 6), without(b, 1, 3, 5, 7))]
    return pairs + [(a, a) for a, _ in pairs[::4]]


def _on_grid(logits: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Probabilities that sum to one exactly: multiples of the spacing of floats below one, at least one where not zero.

    The verbs agree then whatever they do about a sum that is not one.
    """
    one = 2 ** (np.finfo(dtype).nmant + 1)
    weights = np.exp(logits - np.max(logits, -1, keepdims=True))
    units = np.rint(weights / np.sum(weights, -1, keepdims=True) * one).astype(np.int64)
    units = np.maximum(units, weights > 0)
    largest = np.argmax(units, -1, keepdims=True)
    rest = one - np.sum(units, -1, keepdims=True) + np.take_along_axis(units, largest, -1)
    np.put_along_axis(units, largest, rest, -1)
    return (units / one).astype(dtype)


def _inputs(family: ModuleType, dtype: np.dtype, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows as a family takes them, [n, 8] or [n]."""
    pairs = np.array([pair for seed in range(seeds) for pair in _logit_pairs(seed)])
    if family is simplex:
        return _on_grid(pairs[:, 0], dtype), _on_grid(pairs[:, 1], dtype)
    if family is bernoulli:
        with np.errstate(invalid="ignore"):
            pairs = pairs[..., 1] - pairs[..., 0]
        pairs = pairs[~np.isnan(pairs).any(-1)]
    pairs = pairs.astype(dtype)
    return pairs[:, 0], pairs[:, 1]


# ---------------------------------------------------------------- the comparison


class Reference(NamedTuple):
    """The truth for rows, in float64 and what that leaves; nan where a gradient is a choice and need only be finite.

    `scale` is what an error in the gradient of each argument is measured against.
    """

    value: np.ndarray
    value_rest: np.ndarray
    gradient: np.ndarray
    gradient_rest: np.ndarray
    scale: np.ndarray


def _law(family, given, temperature):
    if family is simplex:
        return [Decimal(float(x)) for x in given]
    if family is bernoulli:
        given = (-given, 0) if given > 0 else (0, given)
    logits = [Decimal(float(x)) / temperature for x in given]
    weights = [(x - max(logits)).exp() for x in logits]
    return [weight / sum(weights) for weight in weights]


def _gradient(family, law, slopes, temperature):
    if family is simplex:
        return [v / p if p else Decimal("nan") for v, p in zip(slopes, law, strict=True)]
    total = sum(slopes)
    gradient = [(v - p * total) / temperature for v, p in zip(slopes, law, strict=True)]
    return gradient[1:] if family is bernoulli else gradient


def _exact_row(family, name, definition, temperature, p, q):
    """The value, both gradients and both scales of one pair."""
    ps, qs = _law(family, p, temperature), _law(family, q, temperature)
    value, *slopes = definition(ps, qs)
    if ps == qs and name != "cross_entropy":
        value, slopes = ZERO, [[ZERO] * len(ps)] * 2  # also where the last of 50 digits says otherwise
    gradients = [_gradient(family, law, v, temperature) for law, v in zip((ps, qs), slopes, strict=True)]
    if value.is_infinite():
        gradients = [[Decimal("nan")] * len(x) for x in gradients]
    scales = [max(abs(x) for x in gradient if not x.is_nan() ) if  not all(x.is_nan() for x in gradient) else ONE for gradient in gradients]
    if name in ("js", "js_distance") and family is not simplex and not value.is_infinite():
        # A confident row's gradient is a small difference of large slopes, whose own rounding cannot be undone.
        scales = [max(scale, *(abs(x) / temperature for x in v)) for scale, v in zip(scales, slopes, strict=True)]
    return value, gradients, scales


def _split(exact):
    high = exact.astype(np.float64)
    rest = np.vectorize(lambda x, h: float(x - Decimal(h)) if math.isfinite(h) else 0.0, otypes=[float])(exact, high)
    return high, rest


def _reference(family, name, options, p, q):
    options = {key: Decimal(float(x)) for key, x in options.items()}
    temperature = options.pop("temperature", ONE)
    definition = DIVERGENCES[name].definition(**options)
    with decimal.localcontext(DIGITS):
        rows = [_exact_row(family, name, definition, temperature, x, y) for x, y in zip(p, q, strict=True)]
        values, gradients, scales = zip(*rows, strict=True)
        return Reference(*_split(np.array(values)), *_split(np.array(gradients)), np.array(scales, np.float64))


@functools.cache
def _compiled(verb):
    def both(p, q, options):
        return jax.value_and_grad(lambda p, q: verb(p, q, **options), (0, 1))(p, q)

    return jax.jit(jax.vmap(both, (0, 0, None)))


def ulps(got, value, rest, scale):
    dtype = got.dtype
    with np.errstate(all="ignore"):
        e = np.abs((got.astype(np.float64) - value) - rest) / np.spacing(np.abs(scale).astype(dtype)).astype(np.float64)
    e = np.where(np.isinf(value) & (got == value), 0, e)
    e = np.where(np.isnan(value), np.where(np.isfinite(got), 0, np.inf), e)
    return np.where(np.isnan(e), np.inf, e)

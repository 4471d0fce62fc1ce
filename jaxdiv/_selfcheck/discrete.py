r"""Pairs of discrete laws and their divergences by textbook formulas on the host, for the self-check and the tests.

Each definition is written once, for any `Arithmetic`: the self-check evaluates it in decimals, the tests in faster
numbers. Its gradients are difference quotients in as many digits, so no derivative is derived by hand.
"""

import decimal
import functools
from collections.abc import Callable, Sequence
from decimal import Decimal
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from jaxdiv import bernoulli, simplex

# Textbook forms lose up to 33 digits, for nearly equal confident laws and an order near 1. Difference quotients lose a
# third of the others. Without traps log 0 is infinite, as it should be.
DIGITS = decimal.Context(prec=90, traps=[])
STEP = 10**30  # difference quotients move a number x by x / STEP; their relative error is about 1 / STEP^2
ZERO, ONE, NAN = Decimal(0), Decimal(1), Decimal("nan")

Number = Any  # of an Arithmetic


class Arithmetic:
    """A kind of numbers with its functions, and the values of terms at zeros."""

    def __init__(self, log: Callable, exp: Callable, sqrt: Callable, asin: Callable, infinity: Number):
        self.log, self.exp, self.sqrt, self.asin, self.infinity = log, exp, sqrt, asin, infinity

    def x_log(self, x: Number, y: Number) -> Number:
        """x log(x / y); 0 if x is 0."""
        if not x:
            return x
        return x * (self.log(x) - self.log(y)) if y else self.infinity

    def over(self, x: Number, y: Number) -> Number:
        """x / y; 0 if both are 0."""
        return x / y if y else self.infinity if x else x

    def tilted(self, p: Number, q: Number, s: Number) -> Number:
        """p^s q^(1 - s), where 0^s is infinite for s < 0 and else 0, also for s = 0: sums then run over the support."""
        if p and q:
            return self.exp(s * self.log(p) + (1 - s) * self.log(q))
        return self.infinity if p != q and (s if p == 0 else 1 - s) < 0 else p * q


def _decimal_asin(x):
    """The arcsine: the angle is halved until two terms of the series are enough."""
    for _ in range(60):
        x /= (2 + 2 * (1 - x * x).sqrt()).sqrt()
    return 2**60 * (x + x**3 / 6)


# Different verbs need the same logarithms, and each logarithm takes as long as a hundred products.
DECIMALS = Arithmetic(functools.cache(Decimal.ln), Decimal.exp, Decimal.sqrt, _decimal_asin, Decimal("inf"))


# ---------------------------------------------------------------- terms, generalised so that they are never negative


def _kl(f, p, q):
    return f.x_log(p, q) - p + q


def _skewed_js(f, p, q, weight):
    m = weight * p + (1 - weight) * q
    return weight * f.x_log(p, m) + (1 - weight) * f.x_log(q, m)


def _amari(f, p, q, alpha):
    if alpha in (0, 1):
        return _kl(f, p, q) if alpha else _kl(f, q, p)
    return (alpha * p + (1 - alpha) * q - f.tilted(p, q, alpha)) / (alpha * (1 - alpha))


TERMS: dict[str, Callable[..., Number]] = {
    "kl": _kl,
    "jeffreys": lambda f, p, q: f.x_log(p, q) + f.x_log(q, p),
    "js": lambda f, p, q: (f.x_log(p, (p + q) / 2) + f.x_log(q, (p + q) / 2)) / 2,
    "skewed_js": _skewed_js,
    "rescaled_js": lambda f, p, q, weight: _skewed_js(f, p, q, weight) / (weight * (1 - weight)),
    "amari": _amari,
    "squared_hellinger": lambda f, p, q: (f.sqrt(p) - f.sqrt(q)) ** 2 / 2,
    "total_variation": lambda _, p, q: abs(p - q) / 2,
    "chi2": lambda f, p, q: f.over((p - q) ** 2, q),
    "triangular": lambda f, p, q: f.over((p - q) ** 2, p + q),
    "cross_entropy": lambda f, p, q: f.x_log(p, q) - f.x_log(p, p - p + 1),
}


# ---------------------------------------------------------------- verbs: a function of a sum of terms


class Sum(NamedTuple):
    """The divergence outer(sum_i term(p_i, q_i)) of one pair of laws."""

    term: Callable[[Number, Number], Number]
    outer: Callable[[Number], Number] | None = None


class Definition(NamedTuple):
    """A public divergence, and how the self-check tries it.

    `of(arithmetic, ps, qs, **parameters)` is its `Sum`. `tries` holds the parameters to try. With `along`, gradients in
    probabilities are compared up to a constant, that is along the simplex; otherwise entry by entry. If a divergence
    `saturates`, its gradient in logits is a small difference of slopes there, and its error is promised relative to
    those slopes.
    """

    of: Callable[..., Sum]
    tries: tuple[dict[str, float], ...] = ({},)
    along: bool = False
    saturates: bool = True


def _sum(name, outer=None):
    """The definition of a verb that is a function of the sum of a term."""

    def of(f, ps, qs, **parameters):
        del ps, qs
        return Sum(functools.partial(TERMS[name], f, **parameters), outer and functools.partial(outer, f))

    return of


def _js(f, ps, qs, **parameters):
    return _sum("skewed_js" if parameters else "js")(f, ps, qs, **parameters)


def _root(f, x):
    return f.sqrt(x)


def _arc(f, x):
    return 4 * f.asin(f.sqrt(x / 2))


def _affinity(f, ps, qs, s):
    """The term p^s q^(1 - s) minus its tangent at p = q; and log(sum p^s q^(1 - s)), a function of the sum of terms.

    Near equality the masses of p and q count as one, as in every generalised form; elsewhere their true sums count.
    """
    mass = s * sum(ps) + (1 - s) * sum(qs)

    def log(total):
        affinity = total + (1 if abs(total) < 0.5 else mass)
        return f.log(affinity) if affinity * STEP**2 > 1 else -f.infinity

    return lambda p, q: f.tilted(p, q, s) - s * p - (1 - s) * q, log


def _renyi(f, ps, qs, alpha):
    if alpha == 1:
        return Sum(functools.partial(_kl, f))
    if alpha == f.infinity:
        return _renyi_at_infinity(f, ps, qs)
    term, log = _affinity(f, ps, qs, alpha)
    return Sum(term, lambda total: log(total) / (alpha - 1))


def _renyi_at_infinity(f, ps, qs):
    """The largest log-ratio; ties share it equally."""
    largest = max(f.over(p, q) for p, q in zip(ps, qs, strict=True) if p)
    if largest <= 1:  # possible by rounding, at equality: the value and its derivatives are 0
        return Sum(lambda p, _: p - p)
    least = largest - largest * 10**5 / STEP if largest < f.infinity else largest
    ties = sum(f.over(p, q) >= least for p, q in zip(ps, qs, strict=True) if p)
    return Sum(lambda p, q: f.log(f.over(p, q)) / ties if p and f.over(p, q) >= least else p - p)


def _minus_log_affinity(f, ps, qs, s):
    term, log = _affinity(f, ps, qs, s)
    return Sum(term, lambda total: -log(total))


def _chernoff(f, ps, qs):
    """With the exponent fixed at the maximum: its changes affect the value only to second order."""
    return _minus_log_affinity(f, ps, qs, _least_affine(f, ps, qs))


def _least_affine(f, ps, qs):
    """The zero of d/ds sum p^s q^(1 - s) on the common support, an increasing function; or an end of [0, 1]."""
    common = [(f.log(p), f.log(q)) for p, q in zip(ps, qs, strict=True) if p and q]
    one = sum(ps) / sum(ps)
    low, s, high = one - one, one / 2, one
    near = sum(f.exp((x + y) / 2) for x, y in common) > 0.5
    mass = sum(qs) - sum(ps) if near else 0
    while (high - low) * STEP > 1:
        weighted = [(f.exp(s * x + (1 - s) * y), x - y) for x, y in common]
        slope = mass + sum(w * c for w, c in weighted)
        curvature = sum(w * c * c for w, c in weighted)
        low, high = (s, high) if slope < 0 else (low, s)
        newton = s - slope / curvature if curvature else low
        if abs(newton - s) * STEP < 1:
            break
        s = newton if low < newton < high else (low + high) / 2
    at_an_end = [end for end in (0, 1) if abs(s - end) * STEP < 2]
    return at_an_end[0] * one if at_an_end else s


DEFINITIONS: dict[str, Definition] = {
    "kl": Definition(_sum("kl"), ({}, {"temperature": 7.3}), saturates=False),
    "jeffreys": Definition(_sum("jeffreys"), saturates=False),
    "js": Definition(_js, ({}, {"weight": 0.1})),
    "js_distance": Definition(_sum("js", _root)),
    "renyi": Definition(_renyi, ({"alpha": 0.5}, {"alpha": 1 + 1e-6}, {"alpha": 2.0}), along=True),
    "amari": Definition(_sum("amari"), ({"alpha": -0.5}, {"alpha": 0.3}, {"alpha": 1 + 1e-6})),
    "squared_hellinger": Definition(_sum("squared_hellinger")),
    "hellinger_distance": Definition(_sum("squared_hellinger", _root)),
    "fisher_rao_distance": Definition(_sum("squared_hellinger", _arc)),
    "bhattacharyya": Definition(lambda f, ps, qs: _minus_log_affinity(f, ps, qs, sum(ps) / sum(ps) / 2), along=True),
    "chernoff": Definition(_chernoff, along=True),
    "total_variation": Definition(_sum("total_variation")),
    "chi2": Definition(_sum("chi2")),
    "triangular": Definition(_sum("triangular")),
    "cross_entropy": Definition(_sum("cross_entropy"), saturates=False),
}


# ---------------------------------------------------------------- values and slopes


def difference(f: Callable[[Number], Number], x: Number) -> Number:
    """f'(x), by a difference quotient; 0 at x = 0."""
    return (f(x + x / STEP) - f(x - x / STEP)) / (2 * (x / STEP)) if x else x


def value_and_derivatives(
    arithmetic: Arithmetic, name: str, ps: Sequence[Number], qs: Sequence[Number], **parameters: Number
) -> tuple[Number, list[Number] | None, list[Number] | None]:
    """A divergence and its derivatives in each p and each q: 0 at a number 0; None if the value is infinite."""
    term, outer = DEFINITIONS[name].of(arithmetic, ps, qs, **parameters)
    pairs = list(zip(ps, qs, strict=True))
    total = sum(term(p, q) for p, q in pairs)
    value = outer(total) if outer and total != arithmetic.infinity else total
    if value == arithmetic.infinity:
        return value, None, None
    factor = difference(outer, total) if outer else 1
    in_p = [factor * difference(lambda x, q=q: term(x, q), p) for p, q in pairs]
    in_q = [factor * difference(lambda x, p=p: term(p, x), q) for p, q in pairs]
    return value, in_p, in_q


# ---------------------------------------------------------------- the pairs


def _logit_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of logits: ordinary, near-equal, confident, shifted, with zeros, identical."""
    random = np.random.default_rng(0)

    def row(scale):
        return scale * random.standard_normal(8)

    two, one, even, odd = np.where([[x in "14", x == "0", x in "0246", x in "1357"] for x in "01234567"], -np.inf, 0).T
    first, second = 30 * np.eye(8)[:2]
    pairs = [(row(scale), row(scale)) for scale in (0.3, 1, 3, 6)]
    pairs += [(x, x + row(eps)) for eps in 10.0 ** -np.arange(1, 8) for x in (row(2), row(1) + first)]
    pairs += [(row(1) + x, row(1) + y) for x in (0, first) for y in (0, first, second)]
    pairs += [(a + s, b + t) for a, b in pairs[::3] for s, t in ((1e3, 1e3), (1e4, 1e4), (1e4, 0))]
    pairs += [
        (a + s, b + t) for a, b in pairs[::4] for s, t in ((two, 0), (0, two), (two, two), (two, one), (even, odd))
    ]
    return pairs + [(a, a) for a, _ in pairs[::4]]


def inputs(family: ModuleType, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The rows in the form that a family takes, [n, 8] or [n]."""
    pairs = np.array(_logit_pairs())
    if family is simplex:
        # Multiples of the spacing of floats below one, so that they can sum to one exactly.
        one = 2 ** (np.finfo(dtype).nmant + 1)
        weights = np.exp(pairs - np.max(pairs, -1, keepdims=True))
        units = np.maximum(np.rint(weights / np.sum(weights, -1, keepdims=True) * one), weights > 0).astype(np.int64)
        largest = np.arange(8) == np.argmax(units, -1)[..., None]
        pairs = (units + largest * (one - np.sum(units, -1, keepdims=True))) / one
    if family is bernoulli:
        with np.errstate(invalid="ignore"):
            pairs = pairs[..., 1] - pairs[..., 0]
        pairs = pairs[~np.isnan(pairs).any(-1)]
    return pairs[:, 0].astype(dtype), pairs[:, 1].astype(dtype)


# ---------------------------------------------------------------- the true values of a pair


def _law(family, given, temperature):
    if family is simplex:
        return [Decimal(float(x)) for x in given]
    if family is bernoulli:
        given = (-given, 0) if given > 0 else (0, given)
    logits = [Decimal(float(x)) / temperature for x in given]
    weights = [(x - max(logits)).exp() for x in logits]
    return [weight / sum(weights) for weight in weights]


def _gradient(family, name, law, derivatives, temperature):
    """The gradient in the inputs of the family, and the scale for its error."""
    if family is simplex:  # the derivative in a probability of 0 is a convention and is not compared
        anchor = derivatives[law.index(max(law))] if DEFINITIONS[name].along else ZERO
        gradient = [d - anchor if p else NAN for d, p in zip(derivatives, law, strict=True)]
        return gradient, max(map(abs, derivatives))
    slopes = [p * d for p, d in zip(law, derivatives, strict=True)]
    largest = max(map(abs, slopes)) / temperature
    gradient = [(v - p * sum(slopes)) / temperature for v, p in zip(slopes, law, strict=True)]
    gradient = [x if abs(x) > largest * Decimal("1e-40") else ZERO for x in gradient]  # equal slopes cancel to nearly 0
    # Where a divergence saturates, its gradient is a small difference of slopes; its error is relative to those.
    scale = largest if DEFINITIONS[name].saturates else max(map(abs, gradient))
    return gradient[family is bernoulli :], scale


def _truth(family, name, options, p, q):
    """The value of one pair and the entries of both gradients; and the scale for the error of each."""
    options = {key: Decimal(float(x)) for key, x in options.items()}
    temperature = options.pop("temperature", ONE)
    laws, count = [_law(family, x, temperature) for x in (p, q)], 2 * p.size
    if laws[0] == laws[1] and name != "cross_entropy":
        return [ZERO] * (1 + count), [ZERO] * (1 + count)
    value, *derivatives = value_and_derivatives(DECIMALS, name, *laws, **options)
    if value.is_infinite():  # gradients need only be finite
        return [value] + [NAN] * count, [ONE] * (1 + count)
    sides = [_gradient(family, name, law, v, temperature) for law, v in zip(laws, derivatives, strict=True)]
    scales = [scale for _, scale in sides]
    if name == "chernoff":  # if the maximum is at an end, one gradient is 0 and has only the rounding of the other
        scales = [max(scales)] * 2
    return [value, *sides[0][0], *sides[1][0]], [value, *(scale for scale in scales for _ in range(p.size))]


def truths(
    family: ModuleType, name: str, options: dict[str, Any], p: np.ndarray, q: np.ndarray
) -> tuple[Sequence[list[Decimal]], Sequence[list[Decimal]]]:
    """For each pair the value and the gradients, and the scales for their errors."""
    with decimal.localcontext(DIGITS):
        found = [_truth(family, name, options, *pair) for pair in zip(p, q, strict=True)]
    truths, scales = zip(*found, strict=True)
    return truths, scales

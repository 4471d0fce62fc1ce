"""Every public divergence of two discrete laws: one row each, with what is promised of it.

Definitions are those of the self-check, evaluated in mpmath: terms are generalised, their sums are the textbook's
for laws that sum to one, and reference gradients are differences in a hundred digits, so nothing is derived by hand.
"""

import contextlib
import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from measure import MPMATH, digits, exact, normwise, ulps, x64

from jaxdiv import bernoulli, categorical, simplex
from jaxdiv._core import rules, tuning
from jaxdiv._selfcheck import discrete

K = 6  # events
N = 16  # pairs in a group of cases: one shape, so that a verb is compiled once to a dtype


# ---------------------------------------------------------------- families: an input, and the law it stands for


class Family(NamedTuple):
    """How inputs are drawn, and what they mean.

    `draw` makes inputs of normal numbers `[..., K]`, with zeros where `out`; `law` is the probability vector of one
    input, in mpmath; `pull` is its chain rule, from a gradient in the probabilities to that in the input.
    """

    name: str
    module: ModuleType
    draw: Callable[[np.ndarray, np.ndarray], np.ndarray]
    law: Callable[..., list]
    pull: Callable[..., list]


def softmax(logits, temperature=1):
    largest = max(logits)
    weights = [mp.exp((x - largest) / temperature) for x in logits]
    return [x / mp.fsum(weights) for x in weights]


def through_softmax(p, gradient, temperature=1):
    mean = mp.fdot(p, gradient)
    return [x * (g - mean) / temperature for x, g in zip(p, gradient, strict=True)]


def draw_logits(x, out):
    return np.where(out, -np.inf, x)


def draw_probabilities(x, out):
    # Above 1e-22, so that all terms are normal numbers in float32.
    p = np.exp(draw_logits(np.maximum(x - x.max(-1, keepdims=True), -50), out))
    return p / p.sum(-1, keepdims=True)


def draw_logit(x, out):
    return np.where(out[..., 0], -np.inf, np.where(out[..., 1], np.inf, x[..., 0]))


def two_events(logit):
    return [1 / (1 + mp.exp(logit)), 1 / (1 + mp.exp(-logit))]


CATEGORICAL = Family("categorical", categorical, draw_logits, softmax, through_softmax)
SIMPLEX = Family("simplex", simplex, draw_probabilities, lambda p: p, lambda p, gradient: gradient)
BERNOULLI = Family("bernoulli", bernoulli, draw_logit, two_events, lambda p, g: through_softmax(p, g)[1:])
FAMILIES = (CATEGORICAL, SIMPLEX, BERNOULLI)


# ---------------------------------------------------------------- the cases
#
# A group of cases maps a source of normal numbers to (p, where p is zero, q, where q is zero), all [N, K].

NOWHERE = np.zeros((N, K), bool)


def far(normal):
    """Independent laws, from nearly uniform to certain of an event."""
    scale = np.repeat([0.5, 2, 5, 12], N // 4)[:, None]
    return scale * normal((N, K)), NOWHERE, scale * normal((N, K)), NOWHERE


def near(normal):
    """Laws that differ by 1e-1 to 1e-7, and have from none to ten digits of certainty of an event."""
    p = np.tile([0.5, 2, 5, 20], N // 4)[:, None] * normal((N, K))
    return p, NOWHERE, p + 10.0 ** -np.repeat([1, 3, 5, 7], N // 4)[:, None] * normal((N, K)), NOWHERE


def shifted(normal):
    """Logits: the same with one law's shifted by 1000; what rounding leaves of them is the input."""
    p, _, q, _ = near(normal)
    return p, NOWHERE, q + 1000, NOWHERE


IMPOSSIBLE = [
    ("p.....", "......"),
    ("......", "q....."),
    ("b.....", "b....."),
    ("p....b", ".q...b"),
    (".ppppp", "......"),
    ("......", "q.qqqq"),
    (".bpppp", "b.qqqq"),
    ("b.bbbb", "b.bbbb"),
]


def zeros(normal):
    """Events that are impossible under p, under q and under both, to certainty of one, the same or another."""
    patterns = np.array(
        [[[event != "." for event in law] for law in pair] for pair in IMPOSSIBLE * (N // len(IMPOSSIBLE))]
    )
    return 2 * normal((N, K)), patterns[:, 0], 2 * normal((N, K)), patterns[:, 1]


def equal(normal):
    """The same law twice, with zeros too."""
    p, _, _, _ = far(normal)
    _, out, _, _ = zeros(normal)
    return p, out, p, out


GROUPS = (far, near, zeros, equal, shifted)


@functools.cache
def cases(family, dtype):
    """N pairs of inputs of the dtype for each group, one group after the other."""
    normal = np.random.default_rng(len(family.name)).standard_normal
    groups = [group(normal) for group in GROUPS if group is not shifted or family is CATEGORICAL]
    p, out_p, q, out_q = (np.concatenate(x) for x in zip(*groups, strict=True))
    return family.draw(p, out_p).astype(dtype), family.draw(q, out_q).astype(dtype)


def members(group):
    """Where a group is among the cases."""
    return slice(N * GROUPS.index(group), N * (GROUPS.index(group) + 1))


@functools.cache
@digits
def laws(family, dtype):
    """The cases as probability vectors in mpmath."""
    p, q = ([family.law(exact(x)) for x in inputs] for inputs in cases(family, dtype))
    return list(zip(p, q, strict=True))


# ---------------------------------------------------------------- the rows


class Row(NamedTuple):
    """A divergence at fixed parameters, and what is promised of it."""

    name: str
    family: Family
    verb: str
    parameters: tuple[tuple[str, float], ...]
    value_ulps: float
    gradient_ulps: float
    bound: float | None = None
    symmetric: bool = False
    vanishes: bool = True  # at p = q, with its gradient
    smooth: bool = True  # has all derivatives where p and q differ
    cancels: bool = True  # a gradient p (g - E_p g) is accurate relative to its largest p g, not always to itself
    plain_sum: bool = False  # a gradient in probabilities is meant along the simplex, up to a constant

    def __call__(self, p, q, **keywords):
        return getattr(self.family.module, self.verb)(p, q, **dict(self.parameters), **keywords)


def rows(verb, *choices, ulps=(16, 32), bound=None, **facts):
    """The rows of one verb: each family with each choice of parameters."""
    for family in FAMILIES:
        for choice in choices or ({},):
            name = f"{family.name}.{verb}" + "".join(f"({k}={v:.7g})" for k, v in choice.items())
            promise = PROMISES.get((family.name, verb), ulps)
            limit = bound(**choice) if callable(bound) else bound
            yield Row(name, family, verb, tuple(choice.items()), *promise, limit, **facts)


def entropy_of(weight=0.5):
    return -sum(w * math.log(w) for w in (weight, 1 - weight))


def orders(*alphas):
    return [{"alpha": alpha} for alpha in alphas]


PROMISES = {("simplex", "kl"): (8, 4), ("simplex", "js"): (16, 8)}
# The exponential of a c with |a c| up to 60: its rounding, half an ulp of the exponent, is that many ulps of the power.
POWERS = (64, 64)

CATALOGUE = [
    *rows("kl", cancels=False),
    *rows("jeffreys", symmetric=True, cancels=False),
    *rows("js", {}, {"weight": 0.5}, bound=entropy_of, symmetric=True),
    *rows("js", {"weight": 0.1}, bound=entropy_of),
    *rows("js_distance", bound=math.sqrt(math.log(2)), symmetric=True),
    *rows("renyi", *orders(0.5, 1 + 1e-6, 2), plain_sum=True),
    *rows("renyi", *orders(1)),
    *rows("renyi", *orders(math.inf), smooth=False),
    *rows("amari", *orders(0, 1e-6, 1, 1 + 1e-6)),
    *rows("amari", *orders(0.3), bound=1 / (0.3 * 0.7)),
    *rows("amari", *orders(-1, 2), ulps=POWERS),
    *rows("squared_hellinger", bound=1, symmetric=True),
    *rows("hellinger_distance", bound=1, symmetric=True),
    *rows("fisher_rao_distance", bound=math.pi, symmetric=True),
    *rows("bhattacharyya", symmetric=True, plain_sum=True),
    *rows("chernoff", symmetric=True, plain_sum=True),
    *rows("total_variation", bound=1, symmetric=True, smooth=False),
    *rows("chi2", cancels=False),
    *rows("triangular", bound=2, symmetric=True),
    *rows("cross_entropy", vanishes=False, cancels=False),
]


def of_rows(cases, names, label, gate=lambda *case: False):
    """Tuples that start with a row as parameters; without `--all` those of `gate` are left out.

    The label starts with the family, of which one worker of pytest-xdist gets all: one compilation.
    """
    marks = [[pytest.mark.gate] * gate(*x) for x in cases]
    parameters = [pytest.param(*x, id=label(*x), marks=y) for x, y in zip(cases, marks, strict=True)]
    return pytest.mark.parametrize(names, parameters)


# One row for each way of computing: for what is about the way and not about the term.
IN_WAYS = {
    "categorical.kl",
    "categorical.js(weight=0.1)",
    "categorical.fisher_rao_distance",
    "categorical.renyi(alpha=0.5)",
    "categorical.chernoff",
    "simplex.kl",
    "simplex.js",
    "simplex.renyi(alpha=0.5)",
    "bernoulli.kl",
    "bernoulli.renyi(alpha=0.5)",
}


def ways(**options):
    return of_rows([(row,) for row in CATALOGUE if row.name in IN_WAYS], "row", lambda row: row.name, **options)


WAYS = ways()


# ---------------------------------------------------------------- what the library says, and what is true


class Result(NamedTuple):
    """Values, and gradients in p and in q, of a batch."""

    value: np.ndarray
    in_p: np.ndarray
    in_q: np.ndarray


def key(row):
    """What is compiled apart: a verb by the names of the parameters it is given."""
    return row.verb, tuple(name for name, _ in row.parameters)


def first_of_each(family):
    """A row to each key of a family."""
    return {key(row): row for row in reversed(CATALOGUE) if row.family is family}


@functools.cache
def compiled(family):
    """(p, q, {key: parameters}, cotangents) -> {key: `Result`}: verbs of a family in one program."""

    def one(verb, p, q, parameters, cotangent):
        value, pull = jax.vjp(lambda p, q: getattr(family.module, verb)(p, q, **parameters), p, q)
        return Result(value, *pull(cotangent))

    def every(p, q, parameters, cotangent):
        return {key: one(key[0], p, q, numbers, cotangent) for key, numbers in parameters.items()}

    return jax.jit(jax.vmap(every, (0, 0, None, 0)))


def evaluate_all(rows, p, q, cotangent=1):
    """The library's `Result` for each of some rows of one family with different keys."""
    dtype, family = p.dtype.type, rows[0].family
    chosen = first_of_each(family) | {key(x): x for x in rows}
    parameters = {key: {name: dtype(x) for name, x in row.parameters} for key, row in sorted(chosen.items())}
    # In float32 by blocks of rows, in float64 as a whole: both paths are held to all laws.
    narrow = dtype is np.float32  # in blocks of rows; the wide ones take few events one after the other
    block, short = (2**7, 0) if narrow else (tuning.BLOCK, tuning.SHORT)
    with x64(dtype), patched("BLOCK", block), patched("SHORT", short):
        out = compiled(family)(p, q, parameters, np.full(len(p), cotangent, dtype))
        return [jax.tree.map(np.asarray, out[key(row)]) for row in rows]


@contextlib.contextmanager
def patched(name, number):
    """A tuned number changed for what is traced here."""
    before = getattr(tuning, name)
    setattr(tuning, name, number)
    rules.forget()
    try:
        yield
    finally:
        setattr(tuning, name, before)
        rules.forget()


def evaluate(row, p, q, cotangent=1):
    """The library's `Result`."""
    return evaluate_all([row], p, q, cotangent)[0]


@functools.cache
def _results(family, dtype, i):
    """The results of all cases, by name, for the row of each key that is the i-th with it."""
    rows = [of_key[i] for of_key in _by_key(family).values() if i < len(of_key)]
    return dict(zip([row.name for row in rows], evaluate_all(rows, *cases(family, dtype)), strict=True))


@functools.cache
def _by_key(family):
    found = {}
    for row in CATALOGUE:
        if row.family is family:
            found.setdefault(key(row), []).append(row)
    return found


@functools.cache
def _valued(family, **keywords):
    def every(p, q, parameters):
        given = {key: numbers | keywords for key, numbers in parameters.items()}
        return {key: getattr(family.module, key[0])(p, q, **numbers) for key, numbers in given.items()}

    return jax.jit(jax.vmap(every, (0, 0, None)))


def values(family, p, q, **keywords):
    """Values of all rows of a family by their names, in one program of as many verbs as there are keys."""
    found, by_key = {}, sorted(_by_key(family).items())
    for i in range(max(len(of_key) for _, of_key in by_key)):
        rows = {key: of_key[min(i, len(of_key) - 1)] for key, of_key in by_key}
        with patched("SHORT", 0):
            out = _valued(family, **keywords)(p, q, {key: dict(row.parameters) for key, row in rows.items()})
        assert {x.dtype for x in out.values()} == {p.dtype}
        found |= {row.name: np.asarray(out[key].astype(jnp.float32)) for key, row in rows.items()}
    return found


@functools.cache
def results(row, dtype):
    """The library's `Result` of all cases."""
    alike = _by_key(row.family)[key(row)]
    if row in alike:
        return _results(row.family, dtype, alike.index(row))[row.name]
    return evaluate(row, *cases(row.family, dtype))


class Reference(NamedTuple):
    """Gradients are None where the value is infinite; `scales` are the largest terms p g of each."""

    value: mp.mpf
    gradients: tuple[list, list] | None
    scales: tuple[mp.mpf, mp.mpf] = (mp.mpf(0), mp.mpf(0))


@functools.cache
@digits
def reference(row, dtype, group):
    """The definition at the exact inputs of a group of cases."""
    parameters = {name: mp.mpf(float(dtype(x))) for name, x in row.parameters}
    return [truth(row, p, q, parameters) for p, q in laws(row.family, dtype)[members(group)]]


def truth(row, p, q, parameters):
    """The definition and its gradients for one pair of probability vectors."""
    if p == q and row.vanishes:
        zero = row.family.pull(p, [mp.mpf(0)] * len(p))
        return Reference(mp.mpf(0), (zero, zero))
    value, in_p, in_q = discrete.value_and_derivatives(MPMATH, row.verb, p, q, **parameters)
    if in_p is None or in_q is None:
        return Reference(value, None)
    laws = [(p, in_p), (q, in_q)]
    scales = [max(abs(x * g) for x, g in zip(*law, strict=True)) for law in laws]
    return Reference(value, tuple(row.family.pull(*law) for law in laws), tuple(scales))


@digits
def errors(row, result, group):
    """The worst errors, in ulps, of a group's values and, normwise, gradients; of infinite values these be finite."""
    dtype = result.value.dtype.type
    values, *gradients = (x[members(group)] for x in result)
    references = reference(row, dtype, group)
    inputs = [x[members(group)] for x in cases(row.family, dtype)]
    return max(ulps(got, true.value, dtype) for got, true in zip(values, references, strict=True)), max(
        gradient_error(row, *(np.atleast_1d(x) for x in case), true, side)
        for side in (0, 1)
        for *case, true in zip(inputs[side], gradients[side], references, strict=True)
    )


def gradient_error(row, x, got, reference, side):
    """The error of one gradient; `x` is the input it is a gradient in."""
    dtype = got.dtype.type
    if reference.gradients is None:
        return 0.0 if np.isfinite(got).all() else float("inf")
    got, true = exact(got), reference.gradients[side]
    if row.plain_sum and row.family is SIMPLEX:
        # Less the entry of the first possible event: at zeros the derivative is 0 by choice.
        possible = np.flatnonzero(x)
        got, true = ([gradient[i] - gradient[possible[0]] for i in possible] for gradient in (got, true))
    scale = reference.scales[side] if row.cancels and row.family is not SIMPLEX else 0
    return normwise(got, true, dtype, scale)

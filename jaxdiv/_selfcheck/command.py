r"""`python -m jaxdiv`: whether this device, with this jaxlib and these XLA flags, keeps the library's promises.

Every public divergence of a pair is run, value and gradient, on the kinds of laws that break such code, as one compiled
batch, and compared on the host with its textbook definition in decimal arithmetic. The exit status is 1 when a promise
is broken: a device, compiler or flag that loses digits is found here and not in a training run.

The verbs of a form of normal law are one program, and share its rows per second.
"""

import argparse
import concurrent.futures
import decimal
import functools
import importlib.metadata
import itertools
import json
import math
import os
import timeit
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiv import bernoulli, categorical, simplex
from jaxdiv._selfcheck import gaussian_rows, table

ZERO, HALF, ONE, NAN = Decimal(0), Decimal("0.5"), Decimal(1), Decimal("nan")

_log = functools.cache(Decimal.ln)  # the verbs ask for the same logarithms


def _xlog(x, y):
    """x log(x / y), 0 where x is 0."""
    return x * _log(x / y) if x else ZERO


def _sum(term: Callable, outer: Callable | None = None) -> Callable:
    """D = outer(sum term) of two laws, and the slopes p dD/dp and q dD/dq of each event, which are finite at zeros."""

    def definition(ps, qs):
        parts = [term(p, q) if p or q else (ZERO, ZERO, ZERO) for p, q in zip(ps, qs, strict=True)]
        total = sum((part[0] for part in parts), ZERO)
        value, factor = outer(total) if outer else (total, ONE)
        return value, [factor * part[1] for part in parts], [factor * part[2] for part in parts]

    return definition


def _js(weight=HALF, outer=None):
    def term(p, q):
        m = weight * p + (1 - weight) * q
        left, right = weight * _xlog(p, m), (1 - weight) * _xlog(q, m)
        return left + right, left, right

    return _sum(term, outer)


def _of_affinity(s, outer):
    """A function of S(s) = sum p^s q^(1-s), by slopes of the gap sum s p + (1-s) q - p^s q^(1-s), which is 1 - S."""

    def term(p, q):
        infinite = (p and s > 1) or (q and s < 0)  # where one of the two is zero
        product = q * (s * _log(p / q)).exp() if p and q else Decimal("inf") if infinite else ZERO
        return product, s * (p - product), (1 - s) * (q - product)

    return _sum(term, outer)


def _gap(s, scale):
    return _of_affinity(s, lambda affinity: ((1 - affinity) / scale, 1 / scale))


def _log_gap(s, scale):
    return _of_affinity(s, lambda affinity: (-_log(affinity) / scale, 1 / affinity / scale))


def _root(x):
    return x.sqrt(), 1 / (2 * x.sqrt())


def _arc(gap):
    """2 arccos(1 - x) = 4 arcsin sqrt(x / 2), by halving the angle until two terms of the series are enough."""
    sine = (gap / 2).sqrt()
    for _ in range(40):
        sine /= (2 + 2 * (1 - sine * sine).sqrt()).sqrt()
    return 2**42 * (sine + sine**3 / 6), 2 / (gap * (2 - gap)).sqrt()


def _chernoff(ps, qs):
    # Newton's method, in a bracket, on the convex log S over the common support. There slopes are those at fixed s.
    common = [(q, _log(p / q)) for p, q in zip(ps, qs, strict=True) if p and q]
    low, s, high, step = ZERO, HALF, ONE, ONE
    while common and abs(step) > Decimal("1e-25"):  # an error of s enters the slopes as it is
        weights = [(q * (s * c).exp(), c) for q, c in common]
        total = sum((w for w, _ in weights), ZERO)
        mean = sum((w * c for w, c in weights), ZERO) / total
        low, high = (s, high) if mean < 0 else (low, s)
        guess = s - mean * total / sum((w * (c - mean) ** 2 for w, c in weights), ZERO)
        step = (guess if low < guess < high else (low + high) / 2) - s
        s += step
    return _log_gap(round(s, 22), ONE)(ps, qs)  # exactly an end of [0, 1] where it is one


DEFINITIONS: dict[str, Callable] = {
    "kl": lambda: _sum(lambda p, q: (_xlog(p, q) - p + q, _xlog(p, q), q - p)),
    "jeffreys": lambda: _sum(lambda p, q: (_xlog(p, q) + _xlog(q, p), _xlog(p, q) + p - q, _xlog(q, p) + q - p)),
    "js": _js,
    "js_distance": lambda: _js(outer=_root),
    "renyi": lambda alpha: _log_gap(alpha, 1 - alpha),
    "amari": lambda alpha: _gap(alpha, alpha * (1 - alpha)),
    "squared_hellinger": lambda: _gap(HALF, ONE),
    "hellinger_distance": lambda: _of_affinity(HALF, lambda affinity: _root(1 - affinity)),
    "fisher_rao_distance": lambda: _of_affinity(HALF, lambda affinity: _arc(1 - affinity)),
    "bhattacharyya": lambda: _log_gap(HALF, ONE),
    "chernoff": lambda: _chernoff,
    "total_variation": lambda: _sum(lambda p, q: (abs(p - q) / 2, p * p.compare(q) / 2, q * q.compare(p) / 2)),
    "chi2": lambda: _gap(Decimal(2), -ONE),
    "triangular": lambda: _sum(
        lambda p, q: ((p - q) ** 2 / (p + q), p - p * (2 * q / (p + q)) ** 2, q - q * (2 * p / (p + q)) ** 2)
    ),
    "cross_entropy": lambda: _sum(lambda p, q: (_xlog(p, q) - _xlog(p, ONE), _xlog(p, q) - _xlog(p, ONE), -p)),
}
OPTIONS: dict[str, tuple[dict[str, float], ...]] = {"kl": ({}, {"temperature": 7.3}), "js": ({}, {"weight": 0.1})}
OPTIONS |= {"renyi": ({"alpha": 0.5}, {"alpha": 1 + 1e-6}, {"alpha": 2.0})}
OPTIONS |= {"amari": ({"alpha": -0.5}, {"alpha": 0.3}, {"alpha": 1 + 1e-6})}
ALONG = ("renyi", "bhattacharyya", "chernoff")  # gradients in probabilities: along the simplex, up to a constant


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


def _inputs(family: ModuleType, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The rows as a family takes them, [n, 8] or [n]."""
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


def _law(family, given, temperature):
    if family is simplex:
        return [Decimal(float(x)) for x in given]
    if family is bernoulli:
        given = (-given, 0) if given > 0 else (0, given)
    logits = [Decimal(float(x)) / temperature for x in given]
    weights = [(x - max(logits)).exp() for x in logits]
    return [weight / sum(weights) for weight in weights]


def _gradient(family, name, law, slopes, temperature):
    """The gradient in what the family is given, and what its error is measured against."""
    if family is simplex:  # the derivative in a probability of 0 is a choice
        gradient = [v / p if p else NAN for v, p in zip(slopes, law, strict=True)]
        anchor = gradient[law.index(max(law))] if name in ALONG else ZERO
        return [x - anchor for x in gradient], max(abs(x) for x in gradient if not x.is_nan())
    largest = max(map(abs, slopes)) / temperature
    gradient = [(v - p * sum(slopes)) / temperature for v, p in zip(slopes, law, strict=True)]
    gradient = [x if abs(x) > largest * Decimal("1e-40") else ZERO for x in gradient]  # what is left of equal slopes
    # Where a divergence saturates, its gradient is a small difference of slopes, and promised relative to these.
    cancels = name not in ("kl", "jeffreys", "cross_entropy")
    return gradient[family is bernoulli :], largest if cancels else max(map(abs, gradient))


def _truth(family, name, options, p, q):
    """The value of one pair and the entries of both gradients, and what the error of each is measured against."""
    options = {key: Decimal(float(x)) for key, x in options.items()}
    temperature = options.pop("temperature", ONE)
    laws, count = [_law(family, x, temperature) for x in (p, q)], 2 * p.size
    if laws[0] == laws[1] and name != "cross_entropy":
        return [ZERO] * (1 + count), [ZERO] * (1 + count)
    value, *slopes = DEFINITIONS[name](**options)(*laws)
    if value.is_infinite():  # gradients need only be finite
        return [value] + [NAN] * count, [ONE] * (1 + count)
    sides = [_gradient(family, name, law, v, temperature) for law, v in zip(laws, slopes, strict=True)]
    scales = [scale for _, scale in sides]
    if name == "chernoff":  # with its maximum at an end, one gradient is 0: what is left there is the other's rounding
        scales = [max(scales)] * 2
    return [value, *sides[0][0], *sides[1][0]], [value, *(scale for scale in scales for _ in range(p.size))]


@functools.cache
def _compiled(verb):
    """Value and both gradients of a batch: one program to a verb and a dtype."""
    both = jax.value_and_grad(lambda p, q, options: verb(p, q, **options), (0, 1))
    return jax.jit(jax.vmap(both, (0, 0, None)))


def _call(family, name, options, p, q):
    """A call for many copies of all rows, and the batch of copies."""
    # Copies fill the batch: an accelerator needs many rows to be busy, and to take its path for large arrays.
    copies = (2**12 if jax.default_backend() == "cpu" else 2**16) // len(p)
    batch = [np.concatenate([x] * copies) for x in (p, q)]
    options = {key: p.dtype.type(x) for key, x in options.items()}
    return functools.partial(_compiled(getattr(family, name)), *jax.device_put(batch), options), batch


def _run(family, name, options, p, q):
    """Value and both gradients of each row in each of many copies, [copies, n, 1 + 2 k], and rows per second."""
    verb, batch = _call(family, name, options, p, q)
    copies = len(batch[0]) // len(p)
    values, gradients = jax.device_get(verb())
    seconds = min(timeit.repeat(lambda: jax.block_until_ready(verb()), number=1))
    if family is simplex and name in ALONG:
        anchors = [np.argmax(x, -1, keepdims=True) for x in batch]
        gradients = [g - np.take_along_axis(g, i, -1) for g, i in zip(gradients, anchors, strict=True)]
    return np.concatenate([x.reshape(copies, len(p), -1) for x in (values, *gradients)], -1), len(values) / seconds


def check(family: ModuleType, name: str, options: dict[str, float], dtype: np.dtype) -> dict[str, Any]:
    """A row of the table: one verb of a family with one choice of options."""
    p, q = _inputs(family, dtype)
    numbers, speed = _run(family, name, options, p, q)
    options = {key: dtype.type(x) for key, x in options.items()}
    with decimal.localcontext(table.DIGITS):
        truths, scales = zip(*(_truth(family, name, options, *pair) for pair in zip(p, q, strict=True)), strict=True)
    promised = {"kl": (8, 4), "js": (16, 8)}.get(name, (16, 32)) if family is simplex else (16, 32)
    title = f"{family.__name__.split('.')[-1]}.{name}" + "".join(f"({k}={float(x):.7g})" for k, x in options.items())
    return table.row(title, numbers, truths, scales, promised, speed, name)


LINE = "{:<51}{:<9}{:>11}{:>15}{:>11}{:>6}{:>17}  {}"
HASTY = "XLA's fast math deletes the compensated differences: remove --xla_cpu_enable_fast_math=true from XLA_FLAGS."
BROKEN = "Do not rely on the verbs that are not ok on this device: try another jaxlib or device, and report this table."


def checks(only: str = "") -> Iterator[dict[str, Any]]:
    """The rows of the table, in float32 and in the default dtype, whose verbs have a string in their names."""
    dtypes = dict.fromkeys((np.dtype(np.float32), jnp.zeros(()).dtype))
    wanted = [
        (family, name, options, dtype)
        for dtype, family, name in itertools.product(dtypes, (categorical, simplex, bernoulli), DEFINITIONS)
        for options in OPTIONS.get(name, ({},))
        if only in f"{family.__name__}.{name}" and (family is categorical or "temperature" not in options)
    ]
    # Compilers are slow and use one core each: all programs first. Values of options are no part of them.
    programs = {(_compiled(getattr(x[0], x[1])), x[3], *x[2]): x for x in wanted}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(_compile, programs.values()))
    for family, name, options, dtype in wanted:
        yield check(family, name, options, dtype)
    yield from gaussian_rows.checks(only, list(dtypes))


def _compile(wanted):
    family, name, options, dtype = wanted
    jax.block_until_ready(_call(family, name, options, *_inputs(family, dtype))[0]())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m jaxdiv", description="Check every divergence on this device.")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else; null is infinite")
    parser.add_argument("--only", default="", metavar="NAME", help="only the verbs whose names contain this")
    arguments = parser.parse_args(argv)
    device, x64 = jax.devices()[0], jnp.zeros(()).dtype == np.float64
    about = {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()}
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "numpy")}
    say = (lambda _: None) if arguments.json else functools.partial(print, flush=True)
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    say("{count} x {platform} ({kind}), ".format(**about) + f"{software}, x64 {'on' if x64 else 'off'}")
    say(LINE.format(*table.FIELDS))
    rows = []
    for row in checks(arguments.only):
        rows.append(row)
        say(LINE.format(*(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row.values())))
    if not rows:
        parser.error(f"no verb has {arguments.only!r} in its name")
    ok = all(row["ok"] for row in rows)
    flags = os.environ.get("XLA_FLAGS", "")
    fast_math = "xla_cpu_enable_fast_math" in flags and "xla_cpu_enable_fast_math=false" not in flags
    say("Every promise is kept." if ok else HASTY if fast_math else BROKEN)
    if arguments.json:
        rows = [{key: None if x == math.inf else x for key, x in row.items()} for row in rows]
        print(json.dumps({"device": about, "versions": versions, "x64": x64, "rows": rows, "ok": ok}))
    return 0 if ok else 1

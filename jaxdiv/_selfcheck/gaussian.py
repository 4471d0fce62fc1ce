r"""Pairs of normal laws and their divergences by textbook formulas on the host, for the self-check.

A divergence with a closed form is a function of means and covariances in decimal arithmetic, and its gradient is a
difference quotient in as many digits. Jensen-Shannon has no closed form: it and its gradient are sums over a grid, on
which the trapezoidal rule converges geometrically.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from jaxdiv._selfcheck.matrices import (
    cholesky,
    combined,
    diagonal,
    exact,
    inverted,
    lower,
    lower_inverse,
    product,
    squared,
    symmetric,
    times,
)
from jaxdiv.gaussian import (
    CovarianceNormal,
    LowRankNormal,
    MatrixNormal,
    MultivariateNormal,
    NaturalNormal,
    Normal,
    NormalLogScale,
    PrecisionNormal,
)

ZERO, HALF, ONE, TWO = Decimal(0), Decimal("0.5"), Decimal(1), Decimal(2)
ALPHA = 0.375  # for Renyi and Amari; exact in any floating-point format
STEP = Decimal("1e-20")  # of the difference quotients; their error is about its square
ROUNDING = Decimal("1e-35")  # a slope below this is 0


# ---------------------------------------------------------------- the pairs


def _independent(random):
    return random.normal(size=2), np.exp(0.3 * random.normal(size=2))


def _root(random):
    loc, scale = _independent(random)
    return loc, np.diag(scale) + np.diag(0.4 * random.normal(size=1), -1)


def _of_square(form):
    def draw(random):
        loc, root = _root(random)
        return form(loc, root @ root.T)

    return draw


def _log_scale(random):
    loc, scale = _independent(random)
    return NormalLogScale(loc, np.log(scale))


def _low_rank(random):
    loc, root = _root(random)
    return LowRankNormal(loc, 0.7 * random.normal(size=(2, 1)), np.diagonal(root) ** 2)


def _matrix(random):
    _, root = _root(random)
    return MatrixNormal(random.normal(size=(2, 2)), root, np.diag(np.diagonal(root)[::-1]))


def _moved(law, random, size):
    """A law whose arrays differ from those of `law` by about `size`, relatively."""
    fields = [law[0] + size * random.normal(size=np.shape(law[0]))]
    for x in law[1:]:
        change = random.uniform(-0.3, 0.3, size=np.shape(x))
        symmetric = np.shape(x) == (2, 2)
        fields.append(x * (1 + size * (0.5 * (change + change.T) if symmetric else change)))
    return type(law)(*fields)


def pairs(form: Any, dtype: np.dtype, *, one: bool = False) -> tuple[Any, Any]:
    """Pairs of laws of a form, stacked: ordinary, nearly equal, with means far from 0, identical."""
    random, found = np.random.default_rng(1), []
    for size in (1, 1, 1, 0.3, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7):
        law = CASES[form].draw(random)
        law = form(*(x[0] for x in law)) if one else law
        found.append((law, _moved(law, random, size)))
    p, q = found[6]
    found.append(tuple(x._replace(**{x._fields[0]: x[0] + 1000}) for x in (p, q)))
    p, q = found[0]
    found += [(p, p), (q, q)]
    rounded = [[type(x)(*(np.asarray(y, dtype) for y in x)) for x in pair] for pair in found]
    return tuple(type(laws[0])(*map(np.stack, zip(*laws, strict=True))) for laws in zip(*rounded, strict=True))


# ---------------------------------------------------------------- means and covariances


def _vector(x):
    return x if isinstance(x, tuple) else (x,)


def _of_scales(loc, scale):
    return _vector(loc), diagonal([x * x for x in _vector(scale)])


def _of_log_scales(loc, log_scale):
    return _of_scales(loc, tuple(map(Decimal.exp, _vector(log_scale))))


def _of_factor(loc, factor, diag):
    return loc, combined(squared(factor), ONE, diagonal(diag), ONE)


def _of_roots(loc, *roots):
    rows, columns = (squared(lower(x)) for x in roots)
    pairs = list(itertools.product(range(len(rows)), range(len(columns))))
    return tuple(itertools.chain(*loc)), tuple(tuple(rows[i][k] * columns[j][m] for k, m in pairs) for i, j in pairs)


def _of_root(loc, scale_tril):
    return loc, squared(lower(scale_tril))


def _of_precision(loc, precision):
    return loc, inverted(symmetric(precision))[0]


def _of_natural(natural_loc, precision):
    inverse, _ = inverted(symmetric(precision))
    return times(inverse, natural_loc), inverse


class Case(NamedTuple):
    """What the self-check needs of a form: random laws, their mean and covariance, and the verbs to check."""

    draw: Callable[[np.random.Generator], Any]
    moments: Callable[..., Any]
    verbs: tuple[str, ...]


# ---------------------------------------------------------------- closed forms of moments

_ln = functools.cache(Decimal.ln)


def _delta(p, q):
    return tuple(map(Decimal.__sub__, p[0], q[0]))


def _kl(p, q):
    inverse, determinant = inverted(q[1])
    trace = sum((x * y for rows in zip(inverse, p[1], strict=True) for x, y in zip(*rows, strict=True)), ZERO)
    delta = _delta(p, q)
    square = sum(map(Decimal.__mul__, delta, times(inverse, delta)), ZERO)
    return HALF * (trace - len(delta) + square + _ln(determinant) - _ln(inverted(p[1])[1]))


@functools.cache
def _log_affinity(p, q, s):
    """Log of the integral of p^s q^(1-s); `inf` where it diverges."""
    inverse, determinant = inverted(combined(p[1], 1 - s, q[1], s))
    if inverse is None:
        return Decimal("inf")
    delta = _delta(p, q)
    square = sum(map(Decimal.__mul__, delta, times(inverse, delta)), ZERO)
    logs = (1 - s) * _ln(inverted(p[1])[1]) + s * _ln(inverted(q[1])[1]) - _ln(determinant)
    return HALF * (logs - s * (1 - s) * square)


def best_order(p: Any, q: Any) -> Decimal:
    """The order of the Chernoff information of two laws given by their moments."""
    low, s, high = ZERO, HALF, ONE
    for _ in range(70):
        rises = _log_affinity(p, q, s + STEP) < _log_affinity(p, q, s - STEP)
        low, high = (s, high) if rises else (low, s)
        s = HALF * (low + high)
    return s


def _geometric_js(p, q):
    return (_kl(p, q) + _kl(q, p)) / 4 + _log_affinity(p, q, HALF)


def _squared_wasserstein2(p, q):
    root = cholesky(q[1])
    transposed = tuple(zip(*root, strict=True))
    trace = sum((m[i][i] for m in (p[1], q[1]) for i in range(len(m))), ZERO)
    cross = _trace_of_root(product(transposed, product(p[1], root)))
    return sum((x * x for x in _delta(p, q)), ZERO) + trace - 2 * cross


def _trace_of_root(m):
    """The trace of the root of a positive definite matrix, by the iteration of Denman and Beavers."""
    y, z = m, diagonal([ONE] * len(m))
    trace, last = sum((m[i][i] for i in range(len(m))), ZERO), None
    while last is None or abs(trace - last) > Decimal("1e-52") * trace:
        y, z = combined(y, HALF, inverted(z)[0], HALF), combined(z, HALF, inverted(y)[0], HALF)
        trace, last = sum((y[i][i] for i in range(len(m))), ZERO), trace
    return trace


def _fisher_rao(p, q):
    total = ZERO
    for i, delta in enumerate(_delta(p, q)):
        a, b = p[1][i][i].sqrt(), q[1][i][i].sqrt()
        x = ((delta * delta / 2 + (a - b) ** 2) / (4 * a * b)).sqrt()
        total += 8 * (x + (x * x + 1).sqrt()).ln() ** 2
    return total.sqrt()


def _erf(x):
    """The error function by its series, whose terms are below exp(x^2) < 1e25; for |x| > 7.5 it is 1 to 25 digits."""
    if abs(x) > Decimal("7.5"):
        return ONE.copy_sign(x)
    term, total, n = x, x, 0
    while abs(term) > Decimal("1e-70"):
        n += 1
        term *= -x * x / n
        total += term / (2 * n + 1)
    return 2 * total / PI.sqrt()


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803")


def _total_variation(p, q):
    # The difference of the masses between the points where the densities cross: the roots of a quadratic.
    ((m,), ((v,),)), ((n,), ((w,),)) = p, q
    if v == w:
        return _erf(abs(m - n) / (8 * v).sqrt())
    a, b, c = v - w, w * m - v * n, v * n * n - w * m * m - v * w * _ln(v / w)
    root = (b * b - a * c).sqrt()
    ends = [(-b - root) / a, (-b + root) / a]
    masses = [_erf((x - m) / (2 * v).sqrt()) - _erf((x - n) / (2 * w).sqrt()) for x in ends]
    return HALF * abs(masses[1] - masses[0])


def _expm1(x):
    return x.exp() - 1


FORMULAS: dict[str, Any] = {
    "kl": _kl,
    "jeffreys": lambda p, q: _kl(p, q) + _kl(q, p),
    "renyi": lambda p, q: _log_affinity(p, q, Decimal(ALPHA)) / (Decimal(ALPHA) - 1),
    "amari": lambda p, q: _expm1(_log_affinity(p, q, Decimal(ALPHA))) / (Decimal(ALPHA) * (Decimal(ALPHA) - 1)),
    "squared_hellinger": lambda p, q: -_expm1(_log_affinity(p, q, HALF)),
    "hellinger_distance": lambda p, q: (-_expm1(_log_affinity(p, q, HALF))).sqrt(),
    "bhattacharyya": lambda p, q: -_log_affinity(p, q, HALF),
    "chi2": lambda p, q: _expm1(_log_affinity(p, q, TWO)),
    "geometric_js": _geometric_js,
    "squared_wasserstein2": _squared_wasserstein2,
    "wasserstein2_distance": lambda p, q: _squared_wasserstein2(p, q).sqrt(),
    "fisher_rao_distance": _fisher_rao,
    "total_variation": _total_variation,
    "cross_entropy": lambda p, q: _kl(p, q) + HALF * (_ln(inverted(p[1])[1]) + len(p[0]) * (_ln(2 * PI) + 1)),
}


EVERY = ("kl", "jeffreys", "js", "js_distance", *list(FORMULAS)[2:], "chernoff")
OF_FULL = tuple(name for name in EVERY if name not in ("fisher_rao_distance", "total_variation"))
OWN = ("kl", "js")  # the other verbs use the same arrays as these two

CASES: dict[Any, Case] = {
    Normal: Case(lambda random: Normal(*_independent(random)), _of_scales, EVERY),
    NormalLogScale: Case(_log_scale, _of_log_scales, (*OWN, "renyi", "squared_wasserstein2", "fisher_rao_distance")),
    LowRankNormal: Case(_low_rank, _of_factor, OWN),
    MultivariateNormal: Case(lambda random: MultivariateNormal(*_root(random)), _of_root, OF_FULL),
    CovarianceNormal: Case(_of_square(CovarianceNormal), lambda loc, matrix: (loc, symmetric(matrix)), OWN),
    PrecisionNormal: Case(_of_square(PrecisionNormal), _of_precision, OWN),
    NaturalNormal: Case(_of_square(NaturalNormal), _of_natural, OWN),
    MatrixNormal: Case(_matrix, _of_roots, ("kl", "bhattacharyya")),  # four components are too many for a grid
}


def moments(law: Any) -> Any:
    """Mean and covariance of a law of floating-point arrays, exactly: nested tuples of decimals."""
    return CASES[type(law)].moments(*map(exact, law))


def _changed(x, index, step):
    """Nested tuples with one entry changed."""
    if not index:
        return x + step
    return tuple(_changed(y, index[1:], step) if i == index[0] else y for i, y in enumerate(x))


def _formulas(names, p, q, float_type):
    """Formulas by name, valid near these moments."""
    if p == q:
        return {name: FORMULAS[name] if name == "cross_entropy" else lambda *_: ZERO for name in names}
    found = dict(FORMULAS)
    if "chernoff" in names:  # the order can be held fixed, as it is at a maximum
        best = best_order(p, q)
        found["chernoff"] = lambda p, q: -_log_affinity(p, q, best)
    if {"js", "js_distance"} & set(names):
        js = _js_near(p, q, float_type)
        found |= {"js": js, "js_distance": lambda p, q: js(p, q).sqrt()}
    return {name: found[name] for name in names}


def _numbers(names, form, p, q):
    """By name, the value of one pair and its gradients, in the order of laws, fields and entries."""
    laws = [tuple(map(exact, law)) for law in (p, q)]
    of_form = CASES[form].moments
    both = [of_form(*law) for law in laws]
    float_type = np.float64 if p[0].dtype == np.float32 else np.longdouble
    formulas = _formulas(names, both[0], both[1], float_type)
    found = {name: [formula(*both)] for name, formula in formulas.items()}
    for side, law in enumerate((p, q)):
        for index in itertools.chain(*([(i, *j) for j in np.ndindex(np.shape(x))] for i, x in enumerate(law))):
            near = [list(both), list(both)]
            for x, sign in zip(near, (-STEP, STEP), strict=True):
                x[side] = of_form(*_changed(laws[side], index, sign))
            for name, numbers in found.items():
                low, high = (formulas[name](*x) for x in near)
                slope = (high - low) / (2 * STEP)
                if not numbers[0].is_finite():  # gradients need only be finite
                    slope = Decimal("nan")
                numbers.append(slope if slope.is_nan() or abs(slope) > ROUNDING else ZERO)
    _log_affinity.cache_clear()
    inverted.cache_clear()
    return found


# ---------------------------------------------------------------- Jensen-Shannon on a grid


def _grid(p, q, float_type):
    """The divergence, and its gradients in (mean, covariance) of both laws, as sums over a grid in float_type."""
    roots = cholesky(p[1]), cholesky(q[1])
    inverses = [lower_inverse(root) for root in roots]
    # In the coordinates z, p is N(0, 1); the coordinates of q are y = z + e z + b. Small numbers are exact up to here.
    e = product(inverses[1], combined(roots[0], ONE, roots[1], -ONE))
    b = times(inverses[1], _delta(p, q))
    log_det = HALF * (_ln(inverted(p[1])[1]) - _ln(inverted(q[1])[1]))
    e, b, log_det, left, right = (np.array(x, float_type) for x in (e, b, log_det, *inverses))
    back = np.linalg.inv(np.asarray(e, float) + np.eye(2))
    reach = REACH * max(1, np.linalg.norm(back, 2)) + np.linalg.norm(back @ np.asarray(b, float))
    axis = np.arange(-np.ceil(reach / SPACING), np.ceil(reach / SPACING) + 1).astype(float_type) * float_type(SPACING)
    z = np.stack(np.meshgrid(axis, axis)).reshape(2, -1)
    change = np.sum(e[:, :, None] * z, 1) + b[:, None]
    y, square = z + change, -np.sum(z * z, 0) / 2
    log_ratio = np.sum(change * (2 * z + change), 0) / 2 - log_det
    v = np.tanh(log_ratio / 2)
    unit = float_type(SPACING) ** 2 / (2 * np.arccos(float_type(-1)))
    of_p, of_q = unit * np.exp(square), unit * np.exp(square - log_ratio)
    value = np.sum((of_p + of_q) / 4 * _entropy_gap(v))
    gradients = []
    # log(p / m) and log(q / m) are the logarithms of 1 + v and 1 - v, which may round to 0.
    near, log2 = np.where(abs(v) < 0.5, v, 0), np.log(float_type(2))
    logs = [
        np.where(abs(v) < 0.5, np.log1p(sign * near), log2 - np.logaddexp(0, -sign * log_ratio)) for sign in (1, -1)
    ]
    for weight, x, inverse in ((of_p * logs[0] / 2, z, left), (of_q * logs[1] / 2, y, right)):
        second = np.sum(weight * (x[:, None] * x[None]), -1) - np.sum(weight) * np.eye(2, dtype=float_type)
        gradients.append((inverse.T @ np.sum(weight * x, -1), inverse.T @ second @ inverse / 2))
    return value, gradients


SPACING, REACH = 0.125, 9  # beyond REACH the density is below 1e-17 of its largest


def _entropy_gap(v):
    """(1 + v) log(1 + v) + (1 - v) log(1 - v)."""
    small = np.where(abs(v) < 0.3, v, 0) ** 2
    series = sum(small**k / (k * (2 * k - 1)) for k in range(1, 18))
    far = np.clip(np.where(abs(v) < 0.3, 0, v), -1 + np.finfo(v.dtype).epsneg, 1 - np.finfo(v.dtype).epsneg)
    return np.where(abs(v) < 0.3, series, (1 + far) * np.log1p(far) + (1 - far) * np.log1p(-far))


def _js_near(p, q, float_type):
    """The divergence as a function of moments, to first order about two laws."""
    value, gradients = _grid(p, q, float_type)
    value = _decimal(value)
    gradients = [tuple(_decimal(x) for x in (*mean, *covariance.ravel())) for mean, covariance in gradients]
    origin = [_flat(law) for law in (p, q)]

    def formula(*laws):
        total = value
        for law, start, slopes in zip(laws, origin, gradients, strict=True):
            total += sum((x * (y - z) for x, y, z in zip(slopes, _flat(law), start, strict=True)), ZERO)
        return total

    return formula


def _flat(law):
    return (*law[0], *itertools.chain(*law[1]))


def _decimal(x):
    """A float of any width as a decimal, exactly."""
    high = float(x)
    return Decimal(high) + Decimal(float(x - type(x)(high)))


def truths(names: Sequence[str], form: Any, p: Any, q: Any) -> list[dict[str, list[Decimal]]]:
    """For each pair, by name, the value and the entries of its gradients."""
    return [_numbers(names, form, *pair) for pair in zip(zip(*p, strict=True), zip(*q, strict=True), strict=True)]

r"""Pairs of normal laws and their divergences by textbook formulas on the host, for the self-check.

What has a closed form is a function of means and covariances in decimal arithmetic, and its gradient a difference
quotient in as many digits. Jensen-Shannon has none: it and its gradient are sums over a grid, on which the trapezoidal
rule converges geometrically.
"""

import functools
import itertools
from collections.abc import Sequence
from decimal import Decimal
from types import ModuleType
from typing import Any

import numpy as np

from jaxdiv import matrix_normal, mvn, normal

ZERO, HALF, ONE, TWO = Decimal(0), Decimal("0.5"), Decimal(1), Decimal(2)
ALPHA = 0.375  # of Renyi and Amari, a number of any floating-point format
STEP = Decimal("1e-20")  # of the difference quotients: their error is its square
ROUNDING = Decimal("1e-35")  # what is left of a slope that is 0
FORMS: tuple[tuple[ModuleType, Any], ...] = (
    (normal, normal.Normal),
    (normal, normal.NormalLogScale),
    (mvn, mvn.MultivariateNormal),
    (mvn, mvn.CovarianceNormal),
    (mvn, mvn.PrecisionNormal),
    (mvn, mvn.NaturalNormal),
    (mvn, mvn.LowRankNormal),
    (matrix_normal, matrix_normal.MatrixNormal),
)


# ---------------------------------------------------------------- the pairs


def _law(form, random, one):
    """A law of two components, or of one."""
    loc, scale = random.normal(size=2), np.exp(0.3 * random.normal(size=2))
    if form is normal.Normal:
        return form(loc, scale) if not one else form(loc[0], scale[0])
    if form is normal.NormalLogScale:
        return form(loc, np.log(scale))
    root = np.diag(scale) + np.diag(0.4 * random.normal(size=1), -1)
    if form is mvn.MultivariateNormal:
        return form(loc, root)
    if form is mvn.LowRankNormal:
        return form(loc, 0.7 * random.normal(size=(2, 1)), scale**2)
    if form is matrix_normal.MatrixNormal:
        return form(random.normal(size=(2, 2)), root, np.diag(scale[::-1]))
    return form(loc, root @ root.T)


def _moved(law, random, size):
    """A law whose arrays differ by about `size`, relative to theirs."""
    fields = [law[0] + size * random.normal(size=np.shape(law[0]))]
    for x in law[1:]:
        change = random.uniform(-0.3, 0.3, size=np.shape(x))
        symmetric = np.shape(x) == (2, 2)
        fields.append(x * (1 + size * (0.5 * (change + change.T) if symmetric else change)))
    return type(law)(*fields)


def pairs(form: Any, dtype: np.dtype, *, one: bool = False) -> tuple[Any, Any]:
    """Laws of a form, stacked: ordinary, near-equal, at an offset of the means or another scale, identical."""
    random, found = np.random.default_rng(1), []
    for size in (1, 1, 1, 0.3, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7):
        law = _law(form, random, one)
        found.append((law, _moved(law, random, size)))
    p, q = found[6]
    found.append(tuple(x._replace(**{x._fields[0]: x[0] + 1000}) for x in (p, q)))
    p, q = found[0]
    found += [(p, p), (q, q)]
    rounded = [[type(x)(*(np.asarray(y, dtype) for y in x)) for x in pair] for pair in found]
    return tuple(type(laws[0])(*map(np.stack, zip(*laws, strict=True))) for laws in zip(*rounded, strict=True))


# ---------------------------------------------------------------- means and covariances


def _exact(x):
    return tuple(map(_exact, x)) if np.ndim(x) else Decimal(float(x))


def _product(a, b):
    columns = list(zip(*b, strict=True))
    return tuple(tuple(sum(map(Decimal.__mul__, row, column), ZERO) for column in columns) for row in a)


def _diagonal(x):
    return tuple(tuple(y if i == j else ZERO for j in range(len(x))) for i, y in enumerate(x))


def _squared(a):
    return _product(a, tuple(zip(*a, strict=True)))


def _lower(a):
    return tuple(tuple(x if j <= i else ZERO for j, x in enumerate(row)) for i, row in enumerate(a))


def _combined(a, s, b, t):
    """The matrix a s + b t."""
    return tuple(tuple(x * s + y * t for x, y in zip(*rows, strict=True)) for rows in zip(a, b, strict=True))


@functools.cache
def _inverse(m: Any) -> Any:
    """The inverse and the determinant, by elimination without pivots: of a positive definite matrix, else nan."""
    d = len(m)
    rows = [[*row, *(ONE if i == j else ZERO for j in range(d))] for i, row in enumerate(m)]
    determinant = ONE
    for i in range(d):
        pivot = rows[i][i]
        if not pivot > 0:
            return None, Decimal("nan")
        determinant *= pivot
        rows[i] = [x / pivot for x in rows[i]]
        for j in range(d):
            if j != i:
                factor = rows[j][i]
                rows[j] = [x - factor * y for x, y in zip(rows[j], rows[i], strict=True)]
    return tuple(tuple(row[d:]) for row in rows), determinant


def _moments(form, fields):
    """Mean and covariance of a law with exact fields."""
    loc, *matrices = fields
    if form in (normal.Normal, normal.NormalLogScale):
        scale = matrices[0] if isinstance(loc, tuple) else (matrices[0],)
        scale = scale if form is normal.Normal else tuple(map(Decimal.exp, scale))
        return (loc if isinstance(loc, tuple) else (loc,)), _diagonal([x * x for x in scale])
    if form is mvn.MultivariateNormal:
        return loc, _squared(_lower(matrices[0]))
    if form is mvn.LowRankNormal:
        return loc, _combined(_squared(matrices[0]), ONE, _diagonal(matrices[1]), ONE)
    if form is matrix_normal.MatrixNormal:
        rows, columns = (_squared(_lower(x)) for x in matrices)
        pairs = list(itertools.product(range(len(rows)), range(len(columns))))
        kronecker = tuple(tuple(rows[i][k] * columns[j][m] for k, m in pairs) for i, j in pairs)
        return tuple(itertools.chain(*loc)), kronecker
    matrix = _combined(matrices[0], HALF, tuple(zip(*matrices[0], strict=True)), HALF)
    if form is mvn.CovarianceNormal:
        return loc, matrix
    inverse, _ = _inverse(matrix)
    return (_times(inverse, loc) if form is mvn.NaturalNormal else loc), inverse


def _times(m, x):
    return tuple(sum(map(Decimal.__mul__, row, x), ZERO) for row in m)


# ---------------------------------------------------------------- closed forms of moments

_ln = functools.cache(Decimal.ln)


def _delta(p, q):
    return tuple(map(Decimal.__sub__, p[0], q[0]))


def _kl(p, q):
    inverse, determinant = _inverse(q[1])
    trace = sum((x * y for rows in zip(inverse, p[1], strict=True) for x, y in zip(*rows, strict=True)), ZERO)
    delta = _delta(p, q)
    square = sum(map(Decimal.__mul__, delta, _times(inverse, delta)), ZERO)
    return HALF * (trace - len(delta) + square + _ln(determinant) - _ln(_inverse(p[1])[1]))


@functools.cache
def _log_affinity(p, q, s):
    """Log of the integral of p^s q^(1-s); `inf` where it diverges."""
    inverse, determinant = _inverse(_combined(p[1], 1 - s, q[1], s))
    if inverse is None:
        return Decimal("inf")
    delta = _delta(p, q)
    square = sum(map(Decimal.__mul__, delta, _times(inverse, delta)), ZERO)
    logs = (1 - s) * _ln(_inverse(p[1])[1]) + s * _ln(_inverse(q[1])[1]) - _ln(determinant)
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
    # Of two 2 x 2 matrices: the trace of the root of a product is that of the sum of the roots of its eigenvalues.
    trace = sum((x * y for rows in zip(p[1], q[1], strict=True) for x, y in zip(*rows, strict=True)), ZERO)
    root = (trace + 2 * (_inverse(p[1])[1] * _inverse(q[1])[1]).sqrt()).sqrt()
    return (
        sum((x * x for x in _delta(p, q)), ZERO) + sum((m[i][i] for m in (p[1], q[1]) for i in (0, 1)), ZERO) - 2 * root
    )


def _fisher_rao(p, q):
    total = ZERO
    for i, delta in enumerate(_delta(p, q)):
        a, b = p[1][i][i].sqrt(), q[1][i][i].sqrt()
        x = ((delta * delta / 2 + (a - b) ** 2) / (4 * a * b)).sqrt()
        total += 8 * (x + (x * x + 1).sqrt()).ln() ** 2
    return total.sqrt()


def _erf(x):
    """By its series, of terms below exp(x^2) < 1e25; from there on 1 to 25 digits."""
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
    # The difference of the masses between the points where the densities cross, roots of a quadratic.
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
    "cross_entropy": lambda p, q: _kl(p, q) + HALF * (_ln(_inverse(p[1])[1]) + len(p[0]) * (_ln(2 * PI) + 1)),
}


def _changed(x, index, step):
    """Nested tuples with one entry changed."""
    if not index:
        return x + step
    return tuple(_changed(y, index[1:], step) if i == index[0] else y for i, y in enumerate(x))


def _formulas(names, p, q, float_type):
    """By name: formulas that hold near these moments."""
    if p == q:
        return {name: FORMULAS[name] if name == "cross_entropy" else lambda *_: ZERO for name in names}
    found = dict(FORMULAS)
    if "chernoff" in names:  # at its maximum the order may be held fixed
        best = best_order(p, q)
        found["chernoff"] = lambda p, q: -_log_affinity(p, q, best)
    if {"js", "js_distance"} & set(names):
        js = _js_near(p, q, float_type)
        found |= {"js": js, "js_distance": lambda p, q: js(p, q).sqrt()}
    return {name: found[name] for name in names}


def _numbers(names, form, p, q):
    """By name: the value of one pair, and the gradients in its fields, in the order of laws, fields and entries."""
    laws = [tuple(map(_exact, law)) for law in (p, q)]
    moments = [_moments(form, law) for law in laws]
    formulas = _formulas(names, moments[0], moments[1], np.float64 if p[0].dtype == np.float32 else np.longdouble)
    found = {name: [formula(*moments)] for name, formula in formulas.items()}
    for side, law in enumerate((p, q)):
        for index in itertools.chain(*([(i, *j) for j in np.ndindex(np.shape(x))] for i, x in enumerate(law))):
            near = [list(moments), list(moments)]
            for x, sign in zip(near, (-STEP, STEP), strict=True):
                x[side] = _moments(form, _changed(laws[side], index, sign))
            for name, numbers in found.items():
                low, high = (formulas[name](*x) for x in near)
                slope = (high - low) / (2 * STEP)
                if not numbers[0].is_finite():  # gradients need only be finite
                    slope = Decimal("nan")
                numbers.append(slope if slope.is_nan() or abs(slope) > ROUNDING else ZERO)
    _log_affinity.cache_clear()
    _inverse.cache_clear()
    return found


# ---------------------------------------------------------------- Jensen-Shannon on a grid


def _cholesky(m):
    rows: list[list[Decimal]] = []
    for i, row in enumerate(m):
        new: list[Decimal] = []
        for j in range(i + 1):
            rest = row[j] - sum((x * y for x, y in zip(new, (rows[j] if j < i else new), strict=False)), ZERO)
            new.append(rest.sqrt() if i == j else rest / rows[j][j])
        rows.append(new + [ZERO] * (len(m) - i - 1))
    return tuple(map(tuple, rows))


def _grid(p, q, float_type):
    """In float_type, the divergence, and its gradients in (mean, covariance) of both laws: sums over a grid."""
    roots = _cholesky(p[1]), _cholesky(q[1])
    inverses = [_lower_inverse(root) for root in roots]
    # With p = N(0, 1) in the coordinates z, those of q are y = z + e z + b. Everything small is exact until here.
    e = _product(inverses[1], _combined(roots[0], ONE, roots[1], -ONE))
    b = _times(inverses[1], _delta(p, q))
    log_det = HALF * (_ln(_inverse(p[1])[1]) - _ln(_inverse(q[1])[1]))
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
    # The logarithms of p and q over their mean are those of 1 + v and 1 - v, which may round to 0.
    near, log2 = np.where(abs(v) < 0.5, v, 0), np.log(float_type(2))
    logs = [
        np.where(abs(v) < 0.5, np.log1p(sign * near), log2 - np.logaddexp(0, -sign * log_ratio)) for sign in (1, -1)
    ]
    for weight, x, inverse in ((of_p * logs[0] / 2, z, left), (of_q * logs[1] / 2, y, right)):
        second = np.sum(weight * (x[:, None] * x[None]), -1) - np.sum(weight) * np.eye(2, dtype=float_type)
        gradients.append((inverse.T @ np.sum(weight * x, -1), inverse.T @ second @ inverse / 2))
    return value, gradients


SPACING, REACH = 0.125, 9  # the density is below 1e-17 of its largest from there on


def _lower_inverse(m):
    inverse, _ = _inverse(_squared(m))
    return _product(tuple(zip(*m, strict=True)), inverse)


def _entropy_gap(v):
    """(1 + v) log(1 + v) + (1 - v) log(1 - v)."""
    small = np.where(abs(v) < 0.3, v, 0) ** 2
    series = sum(small**k / (k * (2 * k - 1)) for k in range(1, 18))
    far = np.clip(np.where(abs(v) < 0.3, 0, v), -1 + np.finfo(v.dtype).epsneg, 1 - np.finfo(v.dtype).epsneg)
    return np.where(abs(v) < 0.3, series, (1 + far) * np.log1p(far) + (1 - far) * np.log1p(-far))


def _js_near(p, q, float_type):
    """The divergence to first order about two laws, a function of their moments."""
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
    """A float of any width."""
    high = float(x)
    return Decimal(high) + Decimal(float(x - type(x)(high)))


def truths(names: Sequence[str], form: Any, p: Any, q: Any) -> list[dict[str, list[Decimal]]]:
    """Of each pair, by name: the value and the entries of its gradients."""
    return [_numbers(names, form, *pair) for pair in zip(zip(*p, strict=True), zip(*q, strict=True), strict=True)]

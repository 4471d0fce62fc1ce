r"""Two laws of low rank, $\Sigma = W W' + \mathrm{diag}(D)$ with $W$ `[d, r]`: $O(d r^2)$ without a `[d, d]` array.

By Woodbury's identity with $B = D_q^{-1/2} W_q$ and $C = 1 + B'B$,
$\Sigma_q^{-1} = D_q^{-1/2} (1 - B C^{-1} B') D_q^{-1/2}$. Near equality the terms of first order in $W_p - W_q$ and
$D_p - D_q$ are cancelled on paper, which assumes factors in the same gauge: a rotated factor is the same law, but its
distance from the first is not small.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdiv._core.functions import exponent_of, or_one, power_of_two, root
from jaxdiv._core.rules import custom_jvp
from jaxdiv._gaussian import frames, spectral
from jaxdiv._gaussian.bures import squared_bures
from jaxdiv._gaussian.excess import log_excess
from jaxdiv._gaussian.form import Form, both_ways
from jaxdiv._gaussian.full import CovarianceNormal, MultivariateNormal
from jaxdiv._gaussian.linalg import (
    cholesky,
    columns,
    diagonal,
    log_det_excess,
    product,
    solve_lower,
    solve_upper,
    symmetric,
)


class LowRankNormal(NamedTuple):
    """A normal law by its mean `[d]` and covariance factor factor' + diag(diag), of `[d, r]` and positive `[d]`."""

    loc: ArrayLike
    factor: ArrayLike
    diag: ArrayLike


def _same_rank(p: Any, q: Any) -> tuple[Any, Any]:
    """The laws with columns of zeros where one factor has fewer."""
    r = max(p.factor.shape[-1], q.factor.shape[-1])

    def padded(law):
        zeros = jnp.zeros((*law.factor.shape[:-1], r - law.factor.shape[-1]), law.factor.dtype)
        return law._replace(factor=jnp.concatenate([law.factor, zeros], -1))

    return padded(p), padded(q)


def _factors(p, q):
    """Factors `[d, d + r]` of the covariances and their difference."""
    root_p, root_q = root(p.diag), root(q.diag)
    difference = (p.diag - q.diag) / or_one(root_p + root_q)
    return (
        columns(jnp.diag(root_p), p.factor),
        columns(jnp.diag(root_q), q.factor),
        columns(jnp.diag(difference), p.factor - q.factor),
    )


def _capacitance(b):
    """The root of 1 + B'B for a factor B `[d, r]`."""
    return cholesky(jnp.eye(b.shape[1], dtype=b.dtype) + product(b.T, b))


def _fitted(root, b, z):
    """The x `[r, n]` of the least |z - b x|^2 + |x|^2, and z - b x, for z `[d, n]` and the root of 1 + b'b.

    A rest z - b x much smaller than z would have the rounding of x in it, so it is fitted once more.
    """

    def solved(y):
        return solve_upper(root, solve_lower(root, y))

    x = solved(product(b.T, z))
    rest = z - product(b, x)
    more = solved(product(b.T, rest) - x)
    return x + more, rest - product(b, more)


def _half_log_det(p):
    """Half the logarithm of the determinant of the covariance."""
    logs = 0.5 * jnp.sum(jnp.log(p.diag))
    if p.factor.shape[1] == 0:
        return logs
    root = _capacitance(p.factor / jnp.sqrt(p.diag)[:, None])
    return logs + jnp.sum(jnp.log(diagonal(root)))


def _in_units(p: Any, q: Any) -> tuple[Any, Any]:
    """Both laws with each component in a unit of about its own size: a power of two, which is exact."""
    larger = jnp.where(p.diag >= q.diag, p.diag, q.diag)
    inverse = power_of_two(-(exponent_of(larger) // 2), larger.dtype)

    def scaled(law):
        return LowRankNormal(law.loc * inverse, law.factor * inverse[:, None], law.diag * inverse * inverse)

    return scaled(p), scaled(q)


def _kl(p, q):
    """KL(p, q) for factors of equal rank."""
    p, q = _in_units(p, q)
    if p.factor.shape[1] == 0:
        z = (p.loc - q.loc) / jnp.sqrt(q.diag)
        return 0.5 * (jnp.sum(log_excess(p.diag, q.diag)) + jnp.sum(z * z))
    return _kl_of_factors(p, q)


@custom_jvp
def _kl_of_factors(p, q):
    inverse_root = 1 / jnp.sqrt(q.diag)
    z = (p.loc - q.loc) * inverse_root
    a, b = p.factor * inverse_root[:, None], q.factor * inverse_root[:, None]
    difference = (p.factor - q.factor) * inverse_root[:, None]
    root_p, root_q = _capacitance(p.factor / jnp.sqrt(p.diag)[:, None]), _capacitance(b)
    x, rest = _fitted(root_q, b, z[:, None])
    rho = (p.diag - q.diag) / q.diag
    shift = solve_lower(root_q, difference.T)
    near = (jnp.min(rho) > -0.6) & (jnp.max(rho) < 1.5) & (jnp.sum(shift * shift) < 1)
    # Far apart the near form may overflow: equal laws stand in, so that no derivative is touched by it.
    diag, factor, change = (jnp.where(near, x, y) for x, y in ((p.diag, q.diag), (a, b), (difference, 0)))
    close = _near(diag, factor, change, q.diag, b, root_q)
    far = _far(p.diag, a, root_p, q.diag, b, root_q)
    return 0.5 * (jnp.where(near, close, far) + jnp.sum(rest * rest) + jnp.sum(x * x))


def _near(diag_p, a, difference, diag_q, b, root):
    """Twice the share of the covariances, for A = B + difference close to B, both over the roots of D_q."""
    rho = (diag_p - diag_q) / diag_q
    shrink = (rho / (1 + rho))[:, None]
    cross = product(difference.T, b)
    change = cross + cross.T + product(difference.T, difference) - product(a.T, a * shrink)
    h = symmetric(solve_lower(root, solve_lower(root, change).T))
    x, left = _fitted(root, b, difference)
    moved_difference, moved_a, moved_b = (solve_lower(root, m.T) for m in (difference, a, b))
    second = jnp.sum(left * left) + jnp.sum(x * x) - jnp.sum(moved_difference * moved_difference)
    by_rho = 2 * moved_difference * rho[None] * moved_b + moved_difference * rho[None] * moved_difference
    second += jnp.sum(by_rho - moved_a * moved_a * rho[None] * shrink.T)
    relative = cholesky(jnp.eye(h.shape[0], dtype=h.dtype) + h)
    return jnp.sum(log_excess(diag_p, diag_q)) + log_det_excess(h, relative) + second


def _far(diag_p, a, root_p, diag_q, b, root_q):
    """The same from sums of squares."""
    x, left = _fitted(root_q, b, a)
    leverage = jnp.sum(solve_lower(root_q, b.T) ** 2, 0)
    logs = jnp.log(diagonal(root_q)) - jnp.log(diagonal(root_p))
    diagonals = log_excess(diag_p, diag_q) - (diag_p / diag_q) * leverage
    return jnp.sum(diagonals) + jnp.sum(left * left) + jnp.sum(x * x) + 2 * jnp.sum(logs)


# ---------------------------------------------------------------- slopes of the divergence


class _Inverse(NamedTuple):
    """The inverse 1/D - L L' of a covariance B B' + D, each over the roots of D, and its product with the factor.

    `root` `[d, 1]` are the inverse roots of D, `b` is the factor times them, and `capacitance` the root of 1 + b'b.
    """

    root: jax.Array
    b: jax.Array
    capacitance: jax.Array
    less: jax.Array
    factor: jax.Array


def _inverse(law):
    root = 1 / jnp.sqrt(law.diag)[:, None]
    b = law.factor * root
    capacitance = _capacitance(b)
    half = solve_lower(capacitance, b.T)
    return _Inverse(root, b, capacitance, root * half.T, root * solve_upper(capacitance, half).T)


def _times(inverse, v):
    """The product of an inverse and v `[d, n]`."""
    return inverse.root * _fitted(inverse.capacitance, inverse.b, inverse.root * v)[1]


def _diagonal_of(left, between, right):
    """The diagonal of the product of an inverse, a diagonal matrix and an inverse."""
    (of_left, less_left), (of_right, less_right) = ((x.root[:, 0] ** 2, x.less) for x in (left, right))
    leverages = jnp.sum(less_left**2, 1) * of_right + of_left * jnp.sum(less_right**2, 1)
    both = product(less_left, product((between[:, None] * less_left).T, less_right))
    return between * (of_left * of_right - leverages) + jnp.sum(both * less_right, 1)


def _slopes(p, q):
    """The slopes of KL(p, q) in the fields of both laws.

    With S for the covariances, they are those of tr(S_q^-1 S_p) - log det(S_q^-1 S_p) + d' S_q^-1 d, halved. Inverses
    are subtracted as S_q^-1 - S_p^-1 = S_q^-1 (S_p - S_q) S_p^-1, with S_p - S_q from differences of the fields.
    """
    of_p, of_q = _inverse(p), _inverse(q)
    loc, factor, diag = p.loc - q.loc, p.factor - q.factor, p.diag - q.diag
    moved, mean = _times(of_q, factor), _times(of_q, loc[:, None])[:, 0]

    def in_factor(other):
        """S_q^-1 (S_p - S_q) times the other one's inverse times its factor."""
        inner = _times(of_q, diag[:, None] * other) + product(moved, product(p.factor.T, other))
        return inner + product(of_q.factor, product(factor.T, other))

    of_diag = _diagonal_of(of_q, diag, of_p)
    of_diag += jnp.sum(moved * of_p.factor, 1) + jnp.sum(of_q.factor * _times(of_p, factor), 1)
    slopes_p = LowRankNormal(mean, in_factor(of_p.factor), 0.5 * of_diag)
    of_diag = _diagonal_of(of_q, diag, of_q) + jnp.sum(moved * (2 * of_q.factor + moved), 1) + mean * mean
    by_mean = mean[:, None] * product(loc[None], of_q.factor)
    return slopes_p, LowRankNormal(-mean, -in_factor(of_q.factor) - by_mean, -0.5 * of_diag)


def _rule(primals, tangents):
    slopes = _slopes(*primals)
    pairs = zip(jax.tree.leaves(slopes), (d for law in tangents for d in law), strict=True)
    return _kl_of_factors(*primals), sum(jnp.sum(slope * d) for slope, d in pairs if d is not None)


_kl_of_factors.defjvp(_rule, symbolic_zeros=True)


# ---------------------------------------------------------------- points


def _noise(law):
    d, r = law.factor.shape
    return (d + r,)


def _moved(law, z):
    d = law.loc.shape[0]
    return law.loc + jnp.sqrt(law.diag) * z[:d] + product(law.factor, z[d:])


def _standardised(law, x):
    root = jnp.sqrt(law.diag)
    z, b = (x - law.loc) / root, law.factor / root[:, None]
    if b.shape[1] == 0:
        return z
    capacitance = _capacitance(b)
    t = solve_upper(capacitance, solve_lower(capacitance, product(b.T, z)[:, None]))[:, 0]
    return jnp.concatenate([z - product(b, t), t])


# ---------------------------------------------------------------- the record


def _covariance(law):
    return CovarianceNormal(law.loc, jnp.diag(law.diag) + product(law.factor, law.factor.T))


def _root(law: Any) -> Any:
    return MultivariateNormal(law.loc, cholesky(_covariance(law).covariance))


def _frame(p, q):
    return frames.of_factors(*_factors(p, q), p.loc - q.loc, jnp.stack([_half_log_det(p), _half_log_det(q)]))


def _squared_wasserstein2(p, q):
    return jnp.sum((p.loc - q.loc) ** 2) + squared_bures(*_factors(p, q))


FORMS: dict[type, Form] = {
    LowRankNormal: Form(
        shapes="loc [d], factor [d, r], diag [d]",
        standard=lambda law: LowRankNormal(
            jnp.zeros_like(law.loc), jnp.zeros_like(law.factor), jnp.ones_like(law.diag)
        ),
        regular=lambda law: law._replace(diag=jnp.where(law.diag > 0, law.diag, jnp.nan)),
        semidefinite=lambda law: law._replace(diag=jnp.where(law.diag >= 0, law.diag, jnp.nan)),
        factor=lambda law: columns(jnp.diag(root(law.diag)), law.factor),
        mean=lambda law: law.loc,
        to={MultivariateNormal: _root, CovarianceNormal: _covariance},
        alike=_same_rank,
        kl=_kl,
        kl_of_rows=None,
        jeffreys=both_ways(_kl),
        frame=_frame,
        k=spectral.k_of(_frame),
        squared_wasserstein2=_squared_wasserstein2,
        noise=_noise,
        moved=_moved,
        standardised=_standardised,
        half_log_det=_half_log_det,
        contrast=None,
        faults=lambda law, _: {"a diagonal that is not positive": np.any(law.diag <= 0, -1)},
    ),
}

"""What a form of a normal law brings: one record, in which nothing can be forgotten."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jaxdiv._gaussian import spectral

Law = Any  # a NamedTuple of arrays, of a form


class Form(NamedTuple):
    """A parametrisation of normal laws: there are no defaults. The laws of a pair are of this form both, and regular.

    A law is regular when its fields are of one length, triangular or symmetric where they should be, and `nan` where
    they are those of no law.
    """

    shapes: str  # of the fields, a letter to an axis: the check of a law and its message read it
    standard: Callable[[Law], Law]  # mean 0 and covariance 1, of the shapes and dtypes of a law
    regular: Callable[[Law], Law]
    semidefinite: Callable[[Law], Law]  # the same, for a law whose covariance may be singular
    factor: Callable[[Law], jax.Array]  # of such a law: any matrix [d, m] that, times its transpose, is the covariance
    mean: Callable[[Law], jax.Array]  # [d]
    to: Mapping[type, Callable[[Law], Law]]  # other forms of the law: one of them is MultivariateNormal
    alike: Callable[[Law, Law], tuple[Law, Law]]  # a pair with fields of equal shapes
    kl: Callable[[Law, Law], jax.Array]
    # Of laws as given and the value of `kl`: that value, computed anew where a large batch has it faster.
    kl_of_rows: Callable[[Law, Law, jax.Array], jax.Array] | None
    jeffreys: Callable[[Law, Law], jax.Array]
    frame: Callable[[Law, Law], spectral.Frame]  # what every divergence by affinity is a function of
    squared_wasserstein2: Callable[[Law, Law], jax.Array]  # of laws whose covariances may be singular
    noise: Callable[[Law], tuple[int, ...]]  # the shape of the standard normal numbers behind a draw
    moved: Callable[[Law, jax.Array], jax.Array]  # a draw, from them
    standardised: Callable[[Law, jax.Array], jax.Array]  # from a point, numbers whose squares sum to Mahalanobis's
    half_log_det: Callable[[Law], jax.Array]  # half the logarithm of the determinant of the covariance
    contrast: Callable[[Law, Law], Any] | None  # of independent components: see `independent`
    faults: Callable[[Law, float], Mapping[str, Any]]  # by name, where laws of a batch are none; on the host


def as_they_are(p: Law, q: Law) -> tuple[Law, Law]:
    """A pair whose fields are of equal shapes in any case."""
    return p, q


def one_to_an_entry(law: Law) -> tuple[int, ...]:
    """A draw from as many numbers as it has entries."""
    return law[0].shape


def both_ways(kl: Callable[[Law, Law], jax.Array]) -> Callable[[Law, Law], jax.Array]:
    """Jeffreys' divergence by that of Kullback and Leibler."""
    return lambda p, q: kl(p, q) + kl(q, p)

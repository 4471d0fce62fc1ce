"""The record of a form (a parametrisation of normal laws). It has no defaults, so nothing can be forgotten."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jaxdiv._gaussian import spectral

Law = Any  # a NamedTuple of arrays, of a form


class Form(NamedTuple):
    """A parametrisation of normal laws. Functions of a pair get two regular laws of this form.

    A law is regular if its fields have one length, are triangular or symmetric where they should be, and are `nan` if
    they define no normal law.
    """

    shapes: str  # shapes of the fields, one letter per axis; the check of a law and its message read it
    standard: Callable[[Law], Law]  # mean 0 and covariance 1, with the shapes and dtypes of a law
    regular: Callable[[Law], Law]
    semidefinite: Callable[[Law], Law]  # regular, for a law whose covariance may be singular
    factor: Callable[[Law], jax.Array]  # for such a law, any matrix [d, m] with factor factor' = covariance
    mean: Callable[[Law], jax.Array]  # [d]
    to: Mapping[type, Callable[[Law], Law]]  # conversions to other forms; one of them is MultivariateNormal
    alike: Callable[[Law, Law], tuple[Law, Law]]  # a pair with fields of equal shapes
    kl: Callable[[Law, Law], jax.Array]
    # From laws as given and the value of `kl`: the value again, computed in a way that is faster for a large batch.
    kl_of_rows: Callable[[Law, Law, jax.Array], jax.Array] | None
    jeffreys: Callable[[Law, Law], jax.Array]
    frame: Callable[[Law, Law], spectral.Frame]  # of divergences by affinities of several or of complex orders
    k: Callable[[jax.Array, Law, Law], jax.Array]  # K(s) [1] at a number s [1]: that of one real order
    squared_wasserstein2: Callable[[Law, Law], jax.Array]  # of laws whose covariances may be singular
    noise: Callable[[Law], tuple[int, ...]]  # the shape of the standard normal numbers that a draw needs
    moved: Callable[[Law, jax.Array], jax.Array]  # a draw, from those numbers
    standardised: Callable[[Law, jax.Array], jax.Array]  # a point as numbers whose squares sum to Mahalanobis's
    half_log_det: Callable[[Law], jax.Array]  # half the logarithm of the determinant of the covariance
    contrast: Callable[[Law, Law], Any] | None  # for independent components only: see `independent`
    faults: Callable[[Law, float], Mapping[str, Any]]  # by name, which laws of a batch are invalid; on the host


def as_they_are(p: Law, q: Law) -> tuple[Law, Law]:
    """The pair itself, for forms whose fields always have equal shapes."""
    return p, q


def one_to_an_entry(law: Law) -> tuple[int, ...]:
    """The shape of the noise for forms in which a draw needs one number per entry."""
    return law[0].shape


def both_ways(kl: Callable[[Law, Law], jax.Array]) -> Callable[[Law, Law], jax.Array]:
    """The Jeffreys divergence as the sum of both Kullback-Leibler divergences."""
    return lambda p, q: kl(p, q) + kl(q, p)

"""Divergences between probability distributions, for JAX."""

from jaxdiv import (
    bernoulli,
    categorical,
    elementary,
    exponential_family,
    losses,
    matrix_normal,
    mixture,
    mvn,
    normal,
    simplex,
)
from jaxdiv.batching import nearest, pairwise, pairwise_kl_by_matmul

__version__ = "0.1.0"
__all__ = [
    "bernoulli",
    "categorical",
    "elementary",
    "exponential_family",
    "losses",
    "matrix_normal",
    "mixture",
    "mvn",
    "nearest",
    "normal",
    "pairwise",
    "pairwise_kl_by_matmul",
    "simplex",
]

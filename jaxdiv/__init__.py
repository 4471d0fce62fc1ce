"""Divergences between probability distributions, for JAX."""

from jaxdiv import (
    bernoulli,
    categorical,
    elementary,
    embedding,
    exponential_family,
    losses,
    matrix_normal,
    metrics,
    mixture,
    mvn,
    normal,
    simplex,
)
from jaxdiv.batching import pairwise

__version__ = "0.1.0"
__all__ = [
    "bernoulli",
    "categorical",
    "elementary",
    "embedding",
    "exponential_family",
    "losses",
    "matrix_normal",
    "metrics",
    "mixture",
    "mvn",
    "normal",
    "pairwise",
    "simplex",
]

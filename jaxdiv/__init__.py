"""Divergences between probability distributions, for JAX."""

from jaxdiv import (
    bernoulli,
    categorical,
    elementary,
    embedding,
    estimators,
    exponential_family,
    losses,
    matrix_normal,
    metrics,
    mixture,
    mvn,
    normal,
    objectives,
    simplex,
    transforms,
)
from jaxdiv.batching import pairwise

__version__ = "0.1.0"
__all__ = [
    "bernoulli",
    "categorical",
    "elementary",
    "embedding",
    "estimators",
    "exponential_family",
    "losses",
    "matrix_normal",
    "metrics",
    "mixture",
    "mvn",
    "normal",
    "objectives",
    "pairwise",
    "simplex",
    "transforms",
]

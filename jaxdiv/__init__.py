"""Divergences between probability distributions, for JAX."""

from jaxdiv import (
    bernoulli,
    categorical,
    elementary,
    exponential_family,
    fused,
    losses,
    matrix_normal,
    mixture,
    mvn,
    normal,
    objectives,
    simplex,
    topk,
    transforms,
)
from jaxdiv.batching import pairwise

__version__ = "0.1.0"
__all__ = [
    "bernoulli",
    "categorical",
    "elementary",
    "exponential_family",
    "fused",
    "losses",
    "matrix_normal",
    "mixture",
    "mvn",
    "normal",
    "objectives",
    "pairwise",
    "simplex",
    "topk",
    "transforms",
]

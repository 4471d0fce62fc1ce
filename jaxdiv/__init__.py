"""Divergences between probability distributions, for JAX.

A *law* is a probability distribution. A *verb* is a divergence or another function of laws: `family.verb(p, q)`
compares one pair of laws of a family, such as `categorical` or `gaussian`. `losses` take batches.
"""

from jaxdiv import (
    bernoulli,
    categorical,
    clustering,
    elementary,
    embedding,
    estimators,
    exponential_family,
    fused,
    gaussian,
    losses,
    metrics,
    mixture,
    objectives,
    simplex,
    topk,
    transforms,
)
from jaxdiv.batching import nearest, pairwise, pairwise_kl_by_matmul, pairwise_mean

__version__ = "0.1.0"
__all__ = [
    "bernoulli",
    "categorical",
    "clustering",
    "elementary",
    "embedding",
    "estimators",
    "exponential_family",
    "fused",
    "gaussian",
    "losses",
    "metrics",
    "mixture",
    "nearest",
    "objectives",
    "pairwise",
    "pairwise_kl_by_matmul",
    "pairwise_mean",
    "simplex",
    "topk",
    "transforms",
]

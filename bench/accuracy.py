"""`python -m bench.accuracy`: what is left of a divergence near equality, in float32, by jaxdiv and by its peers.

Pairs of laws that differ by a relative delta. The truth is jaxdiv in float64, which the tests hold to mpmath.
"""

import jax
import jax.numpy as jnp
import numpy as np

from bench import cases, gaussians
from bench.cases import installed
from jaxdiv import categorical, gaussian

DELTAS = (1e-1, 1e-3, 1e-5, 1e-7)
PAIRS = 60


def logits(delta):
    rng = np.random.default_rng(0)
    student = 2 * rng.standard_normal((PAIRS, 1000))
    teacher = student + delta * rng.standard_normal(student.shape)
    return tuple(x.astype(np.float32) for x in (student, teacher))


def roots(delta, d=4):
    rng = np.random.default_rng(0)
    loc, root = rng.standard_normal((PAIRS, d)), np.tril(0.3 * rng.standard_normal((PAIRS, d, d)), -1) + np.eye(d)
    near = (x * (1 + delta * rng.standard_normal(x.shape)) for x in (loc, root))
    return tuple(x.astype(np.float32) for x in (loc, root, *near))


def _of_laws(loc_p, root_p, loc_q, root_q):
    return jax.vmap(gaussian.kl)(gaussian.MultivariateNormal(loc_p, root_p), gaussian.MultivariateNormal(loc_q, root_q))


TABLES = {
    "KL of logits, 1000 classes": (
        logits,
        {"jaxdiv": jax.vmap(lambda s, t: categorical.kl(t, s))}
        | installed(optax=cases.optax_kl, distrax=cases.distrax_kl, rlax=cases.rlax_kl),
    ),
    "KL of Gaussians by roots, d = 4": (
        roots,
        {"jaxdiv": _of_laws} | installed(distrax=gaussians.distrax_kl, numpyro=gaussians.numpyro_kl),
    ),
}


def value_and_slopes(divergence, arrays):
    """Of a batch, its values and the gradients in each array, `[pairs, ...]`."""

    def total(arrays):
        values = divergence(*arrays)
        return jnp.sum(values), values

    (_, values), slopes = jax.jit(jax.value_and_grad(total, has_aux=True))(tuple(arrays))
    return np.asarray(values, np.float64), [np.asarray(x, np.float64).reshape(PAIRS, -1) for x in slopes]


def ulps(found, truth):
    """The largest error of rows `[pairs, n]` in float32's ulps of the row's largest entry."""
    return np.max(np.abs(found - truth) / np.max(np.abs(truth), 1, keepdims=True)) / np.finfo(np.float32).eps


def main():
    """Prints a table for each divergence; gradients are in all arrays."""
    for title, (laws, contenders) in TABLES.items():
        print(f"\n{title}: worst error in ulps of value / gradient, negative values of {PAIRS}\n")
        print("| | " + " | ".join(f"{delta:.0e}" for delta in DELTAS) + " |")
        print("|---|" + "--:|" * len(DELTAS))
        for name, divergence in contenders.items():
            cells = []
            for delta in DELTAS:
                arrays = laws(delta)
                with jax.enable_x64(True):
                    truth, true_slopes = value_and_slopes(contenders["jaxdiv"], [x.astype(float) for x in arrays])
                value, slopes = value_and_slopes(divergence, arrays)
                slope = max(map(ulps, slopes, true_slopes))
                cells.append(f"{ulps(value[:, None], truth[:, None]):.2g} / {slope:.2g}, {np.sum(value < 0)}")
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

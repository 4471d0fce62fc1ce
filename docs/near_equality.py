"""`python docs/near_equality.py` draws `docs/near_equality.svg`: KL of logits that almost agree, by two formulas.

Both are computed in float32 from the same logits over 1000 classes; the line is jaxdiv's value in float64, which the
tests hold to mpmath.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

from jaxdiv import losses

matplotlib.use("Agg")
from matplotlib import pyplot

DELTAS = np.logspace(-1, -7, 49)


def pairs():
    """Logits `[49, 1000]` in float32, and others that differ from them by a relative delta."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((len(DELTAS), 1000))
    near = logits + DELTAS[:, None] * rng.standard_normal(logits.shape)
    return logits.astype(np.float32), near.astype(np.float32)


def usual(logits, targets):
    """KL of targets from predictions by optax."""
    return optax.losses.kl_divergence_with_log_targets(jax.nn.log_softmax(logits), jax.nn.log_softmax(targets))


def main():
    """Draws the picture, and prints how many values are negative."""
    logits, targets = pairs()
    ours, theirs = np.asarray(losses.forward_kl(logits, targets)), np.asarray(jax.jit(usual)(logits, targets))
    with jax.enable_x64(True):
        truth = np.asarray(losses.forward_kl(jnp.asarray(logits, float), jnp.asarray(targets, float)))
    negative = theirs <= 0
    print(f"negative or zero: {np.sum(ours <= 0)} of {len(ours)} by jaxdiv, {np.sum(negative)} by log-softmaxes")
    print(f"largest relative error of jaxdiv: {np.max(np.abs(ours / truth - 1)):.1e}")
    with pyplot.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "jaxdiv", "font.size": 11, "font.family": "sans-serif"}
    ):
        figure, axes = pyplot.subplots(figsize=(5.8, 3.3), layout="constrained")
        axes.loglog(DELTAS, truth, color="#adb5bd", linewidth=4, label="the right value", zorder=1)
        axes.loglog(DELTAS, ours, "o", color="#00796b", markersize=4, label="jaxdiv, float32", zorder=3)
        axes.loglog(
            DELTAS[~negative], theirs[~negative], "x", color="#e8590c", label="log-softmaxes, float32", zorder=2
        )
        bottom = np.full(np.sum(negative), 1e-15)
        axes.loglog(
            DELTAS[negative], bottom, "v", color="#e8590c", markerfacecolor="none", label="the same, zero or negative"
        )
        axes.invert_xaxis()
        axes.set_xlabel("difference of the logits")
        axes.set_ylabel("KL divergence, nats")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.45, 1), ncols=2)
        figure.savefig(Path(__file__).with_suffix(".svg"), facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main()

# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---


# %% [markdown]
# # SciPy and PyTorch: the same divergences there, and their traps
#
# SciPy and PyTorch compute KL and Jensen-Shannon divergences too. Which call there is which function here, and where do
# they differ?
#
# **Answer.** All eight calls of each agree with jaxdiv, SciPy's to $4 \cdot 10^{-15}$ nats and PyTorch's to
# $10^{-15}$, once five traps are known: a square root, two terms more, laws normalised silently, an order of
# arguments, and a mean over classes.
#
# | elsewhere | here | mind |
# |---|---|---|
# | `scipy.stats.entropy(p, q)` | `simplex.kl(p, q)` | normalises p and q silently |
# | `scipy.special.rel_entr(p, q)` | `elementary.rel_entr(p, q)` | one term for each event |
# | `scipy.special.kl_div(p, q)` | `elementary.kl_div(p, q)` | has $-p + q$ in each term |
# | `scipy.spatial.distance.jensenshannon(p, q)` | `simplex.js_distance(p, q)` | is the square root |
# | `F.kl_div(log_q, p)` | `losses.forward_kl_with_probs(log_q, p)` | exchanged; "mean" is over the classes too |
# | `F.kl_div(log_q, log_p, log_target=True)` | `losses.forward_kl(log_q, log_p)` | the same, of logarithms |
# | `torch.distributions.kl_divergence(p, q)` | `gaussian.kl(p, q)` | of normal laws among others |

# %%
import importlib.util
import warnings

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy.spatial.distance
import scipy.special
import scipy.stats

from jaxdiv import elementary, gaussian, losses, simplex

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## The lines to paste

# %%
p, q = jnp.array([0.5, 0.5, 0.0]), jnp.array([0.25, 0.25, 0.5])
print("scipy.stats.entropy(p, q)                 ", simplex.kl(p, q))
print("scipy.special.rel_entr(p, q)              ", elementary.rel_entr(p, q))
print("scipy.special.kl_div(p, q)                ", elementary.kl_div(p, q))
print("scipy.spatial.distance.jensenshannon(p, q)", simplex.js_distance(p, q))
print("F.kl_div(q.log(), p, reduction='batchmean')", losses.forward_kl_with_probs(jnp.log(q)[None], p[None]).mean())

# %% [markdown]
# ## SciPy <!-- E07 -->
#
# 100,000 pairs of random laws of eight events, some of them impossible, are compared in float64.

# %%
PAIRS = 100_000
random = np.random.default_rng(0)
laws = random.dirichlet(np.full(8, 0.3), (2, PAIRS))
first, second = np.asarray(simplex.from_counts(np.where(laws < 1e-6, 0, laws)))
inner = first + 1e-3  # no zeros, so that every divergence from it is finite
inner /= inner.sum(axis=-1, keepdims=True)


def apart(ours, theirs):
    """The largest difference; infinite unless both are infinite at the same places."""
    ours, theirs = np.broadcast_arrays(ours, theirs)
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(ours == theirs, 0, np.abs(ours - theirs))))


kl_between, kl_inner = (jax.vmap(simplex.kl)(*pair) for pair in ((first, second), (second, inner)))
jss = jax.vmap(simplex.js)(first, second)
scipy_rows = {
    "special.rel_entr, summed": apart(kl_inner, scipy.special.rel_entr(second, inner).sum(axis=-1)),
    "special.rel_entr, with infinite values": apart(kl_between, scipy.special.rel_entr(first, second).sum(axis=-1)),
    "special.rel_entr, elementwise": apart(elementary.rel_entr(first, inner), scipy.special.rel_entr(first, inner)),
    "special.kl_div, elementwise": apart(elementary.kl_div(first, inner), scipy.special.kl_div(first, inner)),
    "special.kl_div, summed": apart(kl_inner, scipy.special.kl_div(second, inner).sum(axis=-1)),
    "stats.entropy": apart(kl_inner, scipy.stats.entropy(second, inner, axis=-1)),
    "distance.jensenshannon, squared": apart(jss, scipy.spatial.distance.jensenshannon(first, second, axis=-1) ** 2),
    "stats.entropy of one law": apart(jax.vmap(simplex.entropy)(first), scipy.stats.entropy(first, axis=-1)),
}
unnormalised = apart(jax.vmap(simplex.kl)(second, 2 * inner), scipy.stats.entropy(second, 2 * inner, axis=-1))
print(f"Largest difference from SciPy over {PAIRS} pairs, in nats")
for name, difference in scipy_rows.items():
    print(f"{name:42s}{difference:9.0e}")
print(f"stats.entropy of laws that do not sum to 1: differs by {unnormalised:.4f}, for it normalises them silently")

# %% [markdown]
# ## PyTorch <!-- E08 -->
#
# 500 pairs of predictions and targets of seven classes, and as many pairs of normal laws in four dimensions. PyTorch is
# no requirement of this notebook; where it is missing, the figures of the committed run are shown, which had PyTorch
# 2.14.

# %%
EXAMPLES, K = 500, 7
logits, target_logits = 3 * random.standard_normal((2, EXAMPLES, K))
targets = np.asarray(jax.nn.softmax(target_logits))
loc_p, loc_q, log_scale_p, log_scale_q = random.standard_normal((4, EXAMPLES, 4))
root_p, root_q = np.tril(random.standard_normal((2, EXAMPLES, 4, 4)), -1) + np.eye(4)
STORED = {
    'kl_div(log_q, p, reduction="none"), summed': 7e-16,
    'reduction="batchmean"': 1e-16,
    'reduction="mean", times the classes': 1e-16,
    "log_target=True": 6e-16,
    "distillation at T = 4": 0.0,
    "gradient of batchmean": 9e-19,
    "kl_divergence of Normal": 1e-15,
    "kl_divergence of MultivariateNormal": 6e-16,
}


def torch_rows():
    """The largest difference of PyTorch from jaxdiv, relative where the value is above 1, by what is compared."""
    import torch
    from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

    tensor, kl_div = torch.tensor, torch.nn.functional.kl_div
    variable = tensor(logits, requires_grad=True)
    log_q, p, log_p = variable.log_softmax(-1), tensor(targets), tensor(target_logits).log_softmax(-1)
    with_probs = losses.forward_kl_with_probs(logits, targets)
    from_logits = losses.forward_kl(logits, target_logits)
    slope = jax.grad(lambda x: jnp.mean(losses.forward_kl_with_probs(x, targets)))(logits)
    with warnings.catch_warnings(action="ignore"):  # PyTorch warns of this reduction itself
        by_elements = kl_div(log_q, p, reduction="mean")
    softened = 16 * kl_div((variable / 4).log_softmax(-1), tensor(target_logits / 4).softmax(-1), reduction="batchmean")
    wide = [
        Independent(Normal(tensor(loc), tensor(log_scale).exp()), 1)
        for loc, log_scale in ((loc_p, log_scale_p), (loc_q, log_scale_q))
    ]
    full = [
        MultivariateNormal(tensor(loc), scale_tril=tensor(root)) for loc, root in ((loc_p, root_p), (loc_q, root_q))
    ]
    our_wide = [gaussian.NormalLogScale(loc_p, log_scale_p), gaussian.NormalLogScale(loc_q, log_scale_q)]
    our_full = [gaussian.MultivariateNormal(loc_p, root_p), gaussian.MultivariateNormal(loc_q, root_q)]
    pairs = {
        'kl_div(log_q, p, reduction="none"), summed': (with_probs, kl_div(log_q, p, reduction="none").sum(-1)),
        'reduction="batchmean"': (with_probs.mean(), kl_div(log_q, p, reduction="batchmean")),
        'reduction="mean", times the classes': (with_probs.mean(), K * by_elements),
        "log_target=True": (from_logits, kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)),
        "distillation at T = 4": (losses.distillation(logits, target_logits, temperature=4).mean(), softened),
        "gradient of batchmean": (slope, torch.autograd.grad(kl_div(log_q, p, reduction="batchmean"), variable)[0]),
        "kl_divergence of Normal": (jax.vmap(gaussian.kl)(*our_wide), kl_divergence(*wide)),
        "kl_divergence of MultivariateNormal": (jax.vmap(gaussian.kl)(*our_full), kl_divergence(*full)),
    }
    return {
        name: float(np.max(np.abs(ours - theirs.detach().numpy()) / np.maximum(1, np.abs(ours))))
        for name, (ours, theirs) in pairs.items()
    }


has_torch = importlib.util.find_spec("torch") is not None
torch_differences = torch_rows() if has_torch else STORED
print("Largest difference from PyTorch, " + ("computed here" if has_torch else "stored from the committed run"))
for name, difference in torch_differences.items():
    print(f"{name:46s}{difference:9.0e}")

# %%
figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
least = 1e-19  # where exact agreement is drawn
groups = (("SciPy", scipy_rows, common.BLUE, "o"), ("PyTorch", torch_differences, common.VERMILION, "s"))
names = []
for library, rows, color, marker in groups:
    places = -np.arange(len(names), len(names) + len(rows))
    axis.plot(np.maximum(least, list(rows.values())), places, marker, color=color, label=library)
    names += rows
axis.axvline(np.finfo(float).eps, color=common.BLACK, linestyle=":", label="spacing of float64 at 1")
axis.set_xscale("log")
axis.set_yticks(-np.arange(len(names)), names, fontsize="small")
axis.set(xlabel="largest difference from jaxdiv in nats (1e-19: none)", xlim=(5e-20, 1e-11))
axis.set_title("Every call agrees to rounding")
axis.legend(frameon=False, loc="lower right")
common.save_figure(figure, "scipy_and_pytorch.png")

# %% [markdown]
# ## When not to use it
#
# - Without gradients and without JAX, SciPy's functions are enough.
# - In float32 near equality the sum of $p \log (p / q)$ cancels; the figures here are in float64 and do not show it.
#   `gaussians` does, for normal laws.
#
# The claims:

# %%
assert max(scipy_rows.values()) < 1e-12
assert unnormalised > 0.1
assert max(torch_differences.values()) < 1e-12
print("All claims hold.")

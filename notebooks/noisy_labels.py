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
# # Noisy labels: a bounded loss forgives what it cannot explain
#
# 40 % of the labels that a classifier learns from are wrong. Which loss does not learn them by heart?
#
# **Answer.** At one learning rate Jensen-Shannon classifies 92.6 ± 1.3 % of clean test images rightly, 11.6 ± 2.1
# points more than cross-entropy; with a learning rate of its own cross-entropy is 3.1 ± 1.2 points behind, and the
# other bounded losses tie.
#
# Cross-entropy is infinite for a label that the prediction excludes. With weight $\pi$ on the label $y$ and
# $m = \pi y + (1 - \pi) p$, the Jensen-Shannon loss
#
# $$\frac{\pi \,\mathrm{KL}(y \,\|\, m) + (1 - \pi) \,\mathrm{KL}(p \,\|\, m)}{-(1 - \pi) \log (1 - \pi)}$$
#
# is bounded. It goes from cross-entropy ($\pi \to 0$) to mean absolute error ($\pi \to 1$; Englesson & Azizpour 2021).

# %%
from collections.abc import Callable
from typing import NamedTuple

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import apply_mlp, spread
from tqdm import tqdm

from jaxdiv import losses

CLASSES = 10

# %% [markdown]
# ## The lines to paste


# %%
def jensen_shannon(logits, labels, pi):
    """The bounded loss `[n]` of logits and one-hot labels `[n, k]`; `pi` near 1 forgives the most."""
    return losses.with_probs(losses.js)(logits, labels, weight=1 - pi) / -((1 - pi) * jnp.log1p(-pi))


# %% [markdown]
# ## 1000 digits, 400 of them with a wrong label <!-- E11 -->
#
# Every method tunes one number over five values, with the same network of 64-128-10 units, the same initial weights and
# batches and 800 steps. The accuracy on validation images chooses, whose labels are as wrong as those in training; that
# on clean test images counts. The controls:
#
# - *Cross-entropy*, with its learning rate tuned, or stopped early, or with smoothed labels.
# - *Generalised cross-entropy* $(1 - p_y^q) / q$ (Zhang & Sabuncu 2018) and *absolute error*, which are bounded too.

# %%
SEEDS = range(5)
NOISE, STEPS, RATE = 0.4, 800, 3e-3
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


class Method(NamedTuple):
    """A loss `(logits, one_hot, knob) -> [n]` and the values that its knob is tuned over."""

    name: str
    knob: str
    values: tuple[float, ...]
    loss: Callable


def cross_entropy(logits, labels, _knob):
    return losses.forward_kl_with_probs(logits, labels)


def smoothed(logits, labels, strength):
    return losses.forward_kl_with_probs(logits, (1 - strength) * labels + strength / CLASSES)


def generalised_cross_entropy(logits, labels, power):
    return (1 - jnp.sum(labels * jax.nn.softmax(logits), axis=-1) ** power) / power


def absolute_error(logits, labels, _knob):
    return losses.with_probs(losses.total_variation)(logits, labels)


METHODS = [
    Method("cross-entropy", "learning rate", RATES, cross_entropy),
    Method("label smoothing", "strength", (0.1, 0.2, 0.4, 0.6, 0.8), smoothed),
    Method("early stopping", "steps", (50, 100, 200, 400, 800), cross_entropy),
    Method("generalised CE", "q", (0.3, 0.5, 0.7, 0.9, 1.0), generalised_cross_entropy),
    Method("absolute error", "learning rate", RATES, absolute_error),
    Method("JS", "weight", (0.1, 0.3, 0.5, 0.7, 0.9), jensen_shannon),
]


def mislabelled(examples, seed):
    """The examples with a wrong label, drawn evenly, for a share `NOISE` of each seed."""
    draws = np.random.default_rng(seed)
    wrong = draws.random(examples.labels.shape) < NOISE
    return examples._replace(labels=(examples.labels + wrong * draws.integers(1, CLASSES, wrong.shape)) % CLASSES)


clean = common.digits(SEEDS)
train, validation = mislabelled(clean.train, 0), mislabelled(clean.validation, 1)
images = jnp.concatenate([clean.validation.images, clean.test.images], axis=1)
keys = jax.vmap(jax.random.key)(jnp.array(SEEDS))


@jax.jit
def logits_of(number, values, rates, stops):
    """Logits `[value, seed, n, 10]` for validation and test images by the method of this number.

    Compiling takes longer than training, so `lax.switch` lets one compiled function serve all methods.
    """

    def one(value, rate, stop, examples, unseen, key):
        def loss(params, batch, _key):
            arguments = apply_mlp(params, batch.images), jax.nn.one_hot(batch.labels, CLASSES), value
            return jnp.mean(jax.lax.switch(number, [method.loss for method in METHODS], *arguments))

        def schedule(count):
            return jnp.where(count < stop, rate, 0.0)

        init_key, fit_key = jax.random.split(key)
        params = common.init_mlp(init_key, [64, 128, CLASSES])
        params = common.fit(loss, params, examples, fit_key, steps=STEPS, batch_size=64, learning_rate=schedule)
        return apply_mlp(params, unseen)

    each_seed = jax.vmap(one, in_axes=(None, None, None, 0, 0, 0))
    return jax.vmap(each_seed, in_axes=(0, 0, 0, None, None, None))(values, rates, stops, train, images, keys)


test_accuracy, chosen = {}, {}
for number, method in enumerate(tqdm(METHODS, desc="40 % noise")):
    rates = method.values if method.knob == "learning rate" else [RATE] * 5
    stops = method.values if method.knob == "steps" else [STEPS] * 5
    found = logits_of(number, *map(jnp.array, (method.values, rates, stops)))
    seen, unseen = np.split(found, [validation.labels.shape[1]], axis=2)
    chosen[method.name] = np.argmax(common.percent_correct(seen, validation.labels).mean(axis=-1))
    test_accuracy[method.name] = common.percent_correct(unseen, clean.test.labels)

print("Accuracy on clean test images in %, mean ± sd of 5 seeds; * is the value chosen on validation")
for name, knob, values, _loss in METHODS:
    print(f"{name:16s}{knob:>14s}", end="")
    for index, value in enumerate(values):
        star = "*" if index == chosen[name] else " "
        print(f"{value:>9g}{star} {spread(test_accuracy[name][index]):>10s}", end="")
    print()

reported = {name: accuracy[chosen[name]] for name, accuracy in test_accuracy.items()}
reported["cross-entropy, not tuned"] = test_accuracy["cross-entropy"][RATES.index(RATE)]
print()
gains = {name: common.ahead(reported, "JS", name) for name in reported if name != "JS"}

# %%
figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
for row, (name, *_) in enumerate(METHODS):
    color = common.VERMILION if name == "JS" else common.BLUE
    axis.plot(test_accuracy[name].mean(axis=-1), [-row - 0.22] * 5, "|", color=color, markersize=8)
    axis.errorbar(reported[name].mean(), -row, xerr=reported[name].std(ddof=1), fmt="o", capsize=3, color=color)
axis.set_yticks(-np.arange(len(METHODS)), [name for name, *_ in METHODS])
axis.set_xlabel("accuracy on clean test images in %\n(● mean ± sd of 5 seeds; | each value of the knob)")
axis.set_title("40 % wrong labels: bounded losses tie,\nand a tuned cross-entropy is near")
common.save_figure(figure, "noisy_labels.png")

# %% [markdown]
# ## When not to use it
#
# - Where labels are right there is nothing to forgive; this comparison does not cover that.
# - Where you can tune: most of the gain over cross-entropy is its learning rate, or stopping early.
# - Jensen-Shannon in particular: absolute error and generalised cross-entropy tie. What helps is the bound, not the
#   divergence.
#
# The claims, with margins that allow for other processors and versions of JAX; they also hold with the seeds 5 to 9:

# %%
assert gains["cross-entropy, not tuned"] > 6
assert gains["cross-entropy"] > -1
assert gains["label smoothing"] > 3
for tie in ("absolute error", "generalised CE"):
    assert abs(gains[tie]) < 5
print("All claims hold.")

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
# # Label distributions: learning from proportions in place of one label
#
# A label may be a distribution: the votes of several annotators, the ages that a face may have, the parts of a mixture.
# Which loss learns to predict it? The predictions of a teacher are such labels too, and `distillation` is about them.
#
# **Answer.** Trained by KL a network tells the proportions of two superposed digits to 0.421 ± 0.033 nats, by squared
# error to 0.455 ± 0.044, and KL is ahead in total variation as well, 0.251 ± 0.007 against 0.265 ± 0.014; there
# Jensen-Shannon ties.
#
# For target proportions $t$ and logits $s$ the loss is
#
# $$\mathrm{KL}\bigl(t \,\big\|\, \mathrm{softmax}(s)\bigr) = \sum_i t_i \log \frac{t_i}{\mathrm{softmax}(s)_i}.$$

# %%
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
#
# Put your network in place of `apply_mlp`.


# %%
def training_loss(params, images, proportions):
    """The mean KL from the proportions `[n, k]` to the predictions."""
    return jnp.mean(losses.forward_kl_with_probs(apply_mlp(params, images), proportions))


# %% [markdown]
# ## Two digits in one image <!-- E04 -->
#
# Two digits are superposed, $a$ of the one and $1 - a$ of the other with $a \sim \mathrm{Beta}(2, 2)$, and the network
# has to tell the proportions (label distribution learning, Geng 2016). Mixtures are fresh at every step. The controls
# differ in the loss alone: squared error, Jensen-Shannon, total variation, cross-entropy with the larger digit, and
# reverse KL with targets softened by 0.001 (it is infinite without).
#
# All take the same 600 steps of a network of 64-128-10 units from the same weights on the same mixtures, over five
# seeds, and tune the learning rate over five values. As KL would win by its own measure, the total variation from the
# truth is given too, with the learning rate chosen by that.

# %%
SEEDS = range(5)
RATES = jnp.array([1e-3, 3e-3, 1e-2, 3e-2, 1e-1])


class Mixtures(NamedTuple):
    """Superposed images `[..., n, 64]` and the proportions of the digits in them `[..., n, 10]`."""

    images: jax.Array
    proportions: jax.Array


def superpose(examples, key):
    """Each example with another one of the same batch."""
    partner_key, share_key, noise_key = jax.random.split(key, 3)
    partner = jax.random.permutation(partner_key, len(examples.labels))
    # The median of three uniform variables is Beta(2, 2), and much faster than jax.random.beta.
    share = jnp.median(jax.random.uniform(share_key, (3, len(examples.labels), 1)), axis=0)

    def mix(x):
        return share * x + (1 - share) * x[partner]

    noise = 0.02 * jax.random.normal(noise_key, examples.images.shape)
    return Mixtures(mix(examples.images) + noise, mix(jax.nn.one_hot(examples.labels, CLASSES)))


def squared_error(logits, target):
    return jnp.sum((jax.nn.softmax(logits) - target) ** 2, axis=-1)


def larger_digit(logits, target):
    return losses.cross_entropy_with_labels(logits, jnp.argmax(target, axis=-1))


def softened_reverse_kl(logits, target):
    return losses.with_probs(losses.reverse_kl)(logits, 0.999 * target + 0.001 / CLASSES)


LOSSES = {
    "KL": losses.forward_kl_with_probs,
    "JS": losses.with_probs(losses.js),
    "squared error": squared_error,
    "total variation": losses.with_probs(losses.total_variation),
    "larger digit only": larger_digit,
    "reverse KL": softened_reverse_kl,
}
MEASURES = (LOSSES["KL"], LOSSES["total variation"])


@jax.jit
def train(number, rates, data, keys):
    """KL and total variation from the truth `[rate, seed]`, on validation mixtures and on test mixtures.

    Compiling takes longer than training, so `lax.switch` lets one compiled function serve all losses.
    """

    def one(rate, data, key):
        def loss(params, batch, key):
            mixtures = superpose(batch, key)
            arguments = apply_mlp(params, mixtures.images), mixtures.proportions
            return jnp.mean(jax.lax.switch(number, list(LOSSES.values()), *arguments))

        def errors(examples, key):
            mixtures = superpose(examples, key)
            return [jnp.mean(f(apply_mlp(params, mixtures.images), mixtures.proportions)) for f in MEASURES]

        init_key, fit_key, validation_key, test_key = jax.random.split(key, 4)
        params = common.init_mlp(init_key, [64, 128, CLASSES])
        params = common.fit(loss, params, data.train, fit_key, steps=600, batch_size=64, learning_rate=rate)
        return errors(data.validation, validation_key), errors(data.test, test_key)

    return jax.vmap(jax.vmap(one, in_axes=(None, 0, 0)), in_axes=(0, None, None))(rates, data, keys)


data, keys = common.digits(SEEDS), jax.vmap(jax.random.key)(jnp.array(SEEDS))
by_kl, by_variation = {}, {}
for number, name in enumerate(tqdm(LOSSES, desc="losses")):
    seen, unseen = jax.device_get(train(number, RATES, data, keys))
    for errors, validation, test in zip((by_kl, by_variation), seen, unseen, strict=True):
        errors[name] = test[np.argmin(validation.mean(axis=-1))]

print("Distance of predicted from true proportions on test mixtures")
print(f"{'loss':20s}{'KL in nats':>16s}{'total variation':>18s}")
for name in LOSSES:
    print(f"{name:20s}{spread(by_kl[name], 3):>16s}{spread(by_variation[name], 3):>18s}")


# %%
def behind(errors):
    """By how much each loss is behind KL on average, after printing it with its paired deviation."""
    differences = {name: errors[name] - errors["KL"] for name in LOSSES if name != "KL"}
    for name, difference in differences.items():
        print(f"{name:20s}{spread(difference, 3):>16s}")
    return {name: difference.mean() for name, difference in differences.items()}


print("Behind KL, paired, in nats of KL")
kl_behind = behind(by_kl)
print("Behind KL, paired, in total variation")
variation_behind = behind(by_variation)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for axis, errors in zip(axes, (by_kl, by_variation), strict=True):
    for row, (name, values) in enumerate(errors.items()):
        color = common.VERMILION if name == "KL" else common.BLUE
        axis.errorbar(values.mean(), -row, xerr=values.std(ddof=1), fmt="o", capsize=3, color=color)
axes[0].set_yticks(-np.arange(len(LOSSES)), list(LOSSES))
axes[0].set(
    xlabel="KL from true proportions in nats\n(mean ± sd, 5 seeds)", title="Trained by KL, proportions\nare best in KL"
)
axes[1].set(xlabel="total variation (mean ± sd, 5 seeds)", title="By total variation KL, JS and\ntotal variation tie")
common.save_figure(figure, "label_distributions.png")

# %% [markdown]
# ## When not to use it
#
# - If targets may be wrong in their zeros: a class with probability zero costs nothing, and one that was left out of
#   the prediction costs without bound.
# - If only total variation counts: Jensen-Shannon and total variation itself tie with KL.
# - The reverse KL, and the larger digit alone, lose by both measures.
#
# The claims, with margins that allow for other processors and versions of JAX; they also hold with the seeds 5 to 9:

# %%
assert min(by_kl, key=lambda name: by_kl[name].mean()) == "KL"
assert kl_behind["squared error"] > 0.01
for name in ("JS", "total variation", "larger digit only", "reverse KL"):
    assert kl_behind[name] > 0.08
for name in ("squared error", "larger digit only", "reverse KL"):
    assert variation_behind[name] > 0
for tie in ("JS", "total variation"):
    assert abs(variation_behind[tie]) < 0.03
print("All claims hold.")

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
# # Adversarial robustness: predictions that no small change of the image turns
#
# A change of a tenth of the range of grey, chosen by an attacker, makes a good classifier of digits fail. Does it help
# to train against the divergence between clean and attacked predictions, and can a divergence detect the attack?
#
# **Answer.** It lifts the accuracy under attack from 42.5 to 77.5 %, as other losses do. Jensen-Shannon detects an
# attack with an AUROC of 96.2 %, but the error of an autoencoder's reconstruction does better, its norm tuned: 98.3 %.
#
# TRADES (Zhang et al. 2019) minimises the error on clean images and the divergence of attacked predictions from them,
#
# $$-\log p(y \mid x) + \beta \max_{\|x' - x\|_\infty \le \epsilon}
# \mathrm{KL}\bigl(p(\cdot \mid x) \,\big\|\, p(\cdot \mid x')\bigr).$$

# %%
from functools import partial

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import apply_mlp, attacked, auroc, spread
from tqdm import tqdm

from jaxdiv import losses, objectives

RADIUS = 0.1

# %% [markdown]
# ## Training by TRADES <!-- S18a -->
#
# This is all that it takes. Put your network in place of `apply_mlp`; the gradient flows into both sides of the
# divergence.


# %%
def trades(params, batch, key, beta, divergence=losses.forward_kl):
    """Labels, and the divergence of the predictions for the worst images nearby."""
    clean = apply_mlp(params, batch.images)

    def change(moved):
        return divergence(apply_mlp(params, moved), clean)

    worst = objectives.adversarial_example(change, batch.images, key, radius=RADIUS, step_size=0.04, iterations=5)
    return jnp.mean(losses.cross_entropy_with_labels(clean, batch.labels) + beta * change(jnp.clip(worst, 0, 1)))


# %% [markdown]
# Five random splits of scikit-learn's digits: 1000 images to train on, 398 to choose settings by (validation), 399 to
# report on (test). The attack takes 20 steps up the cross-entropy within a radius of 0.1, a tenth of the range of grey.
# Every method tunes one number over five values by the accuracy under attack of the validation images.
#
# The controls are squared error of the probabilities or of the logits (logit pairing, Kannan et al. 2018) in place of
# KL, and labels for attacked images alone (Madry et al. 2018), with the radius in training tuned.


# %%
def squared_error(logits, target_logits):
    """Squared distance of the probabilities `[n]`."""
    return jnp.sum((jax.nn.softmax(logits) - jax.nn.softmax(target_logits)) ** 2, axis=-1)


def logit_error(logits, target_logits):
    """Mean squared difference of the logits `[n]`."""
    return jnp.mean((logits - target_logits) ** 2, axis=-1)


def standard(params, batch, _key, _rate):
    """Labels for clean images; the learning rate is tuned."""
    return jnp.mean(losses.cross_entropy_with_labels(apply_mlp(params, batch.images), batch.labels))


def attacked_labels(params, batch, key, radius):
    """Labels for attacked images; the radius is tuned."""
    measure = partial(losses.cross_entropy_with_labels, labels=batch.labels)
    worst = attacked(partial(apply_mlp, params), batch.images, key, measure, radius, 5)
    return jnp.mean(losses.cross_entropy_with_labels(apply_mlp(params, worst), batch.labels))


METHODS = {
    "standard": (standard, (1e-4, 3e-4, 1e-3, 2e-3, 4e-3)),
    "attacked labels": (attacked_labels, (0.05, 0.075, 0.1, 0.125, 0.15)),
    "TRADES": (trades, (0.5, 1.0, 2.0, 4.0, 8.0)),
    "squared error": (partial(trades, divergence=squared_error), (1.0, 2.0, 4.0, 8.0, 16.0)),
    "logit pairing": (partial(trades, divergence=logit_error), (0.1, 0.3, 1.0, 3.0, 10.0)),
}

SEEDS = range(5)
split = common.digits(SEEDS)
keys = jax.vmap(jax.random.key)(jnp.array(SEEDS))


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
@jax.vmap
def under_attack(params, examples):
    """Logits `[setting, seed, n, 10]` for the images after 20 steps up the cross-entropy."""
    measure = partial(losses.cross_entropy_with_labels, labels=examples.labels)
    model = partial(apply_mlp, params)
    return model(attacked(model, examples.images, jax.random.key(0), measure, RADIUS, 20))


scores, reported = {}, {}
for name, (loss, values) in tqdm(METHODS.items(), desc="training"):
    values = jnp.array(values)
    rate = values if name == "standard" else 2e-3
    params = common.sweep(loss, values, split.train, keys, sizes=(64, 64, 64, 10), steps=450, learning_rate=rate)
    clean, worst = common.predict(params, split.test.images), under_attack(params, split.test)
    scores[name] = {
        "clean": common.percent_correct(clean, split.test.labels),
        "attacked": common.percent_correct(worst, split.test.labels),
        "KL, nats": np.asarray(losses.forward_kl(worst, clean).mean(axis=-1)),
    }
    on_validation = common.percent_correct(under_attack(params, split.validation), split.validation.labels)
    best = np.argmax(on_validation.mean(axis=-1))
    reported[name] = {kind: values[best] for kind, values in scores[name].items()}
    if name == "standard":
        classifier = jax.tree.map(lambda array: array[3], params)  # of the usual learning rate, for the second part

print(
    "Test images: accuracy in %, mean ± sd over the seeds, and divergence of attacked predictions; accuracy by setting"
)
print(f"{'':17s}" + "".join(f"{kind:>14s}" for kind in reported["TRADES"]))
for name, row in reported.items():
    columns = (spread(values, 2 if kind == "KL, nats" else 1) for kind, values in row.items())
    curve = scores[name]["attacked"].mean(axis=-1)
    print(f"{name:17s}" + "".join(f"{column:>14s}" for column in columns) + "  ", *(f"{mean:5.1f}" for mean in curve))

# %% [markdown]
# ## Detecting and undoing an attack <!-- S18b -->
#
# MagNet (Meng & Chen 2017) leaves the classifier as it is. An autoencoder, trained to remove noise from clean images,
# maps an attacked image back to what digits look like. The score is the Jensen-Shannon divergence of the predictions
# before and after, at a temperature $T$:


# %%
def rebuilt(autoencoder, images):
    """The autoencoder's images, with grey values in (0, 1)."""
    return jax.nn.sigmoid(apply_mlp(autoencoder, images))


def attack_score(classifier, autoencoder, images, temperature):
    """How much the reconstruction changes the prediction `[n]`."""
    before, after = (apply_mlp(classifier, x) for x in (images, rebuilt(autoencoder, images)))
    return losses.js(before, after, temperature=temperature)


# %% [markdown]
# The controls: other measures of that change, the largest probability, both with the same six temperatures, and the
# error of the reconstruction under six powers, all chosen on validation images. The attack takes 10 steps up the
# cross-entropy; what counts is to tell the images that it turns from those that were classified correctly.


# %%
def denoising(params, batch, key, noise):
    """Squared error of clean images rebuilt from noisy ones."""
    noisy = batch.images + noise * jax.random.normal(key, batch.images.shape)
    return jnp.mean(jnp.sum((rebuilt(params, noisy) - batch.images) ** 2, axis=-1))


trained = common.sweep(denoising, jnp.array([0.1]), split.train, keys, sizes=(64, 96, 24, 96, 64), steps=2000)
autoencoder = jax.tree.map(lambda array: array[0], trained)
TEMPERATURES, NORMS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0), (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
CHANGES = {"Jensen-Shannon": losses.js, "KL": losses.reverse_kl, "total variation": losses.total_variation}
DETECTORS = [*CHANGES, "largest probability", "reconstruction"]


@jax.jit
@jax.vmap
def detection(classifier, autoencoder, images):
    """Scores `[setting, n]` of each detector, and the classes before and after `[n]`."""
    again = rebuilt(autoencoder, images)
    before, after = (apply_mlp(classifier, x) for x in (images, again))
    by = {name: partial(change, before, after) for name, change in CHANGES.items()}
    by["largest probability"] = lambda temperature: -jnp.max(jax.nn.softmax(before / temperature), axis=-1)
    scores = {name: jax.vmap(lambda t, of=of: of(temperature=t))(jnp.array(TEMPERATURES)) for name, of in by.items()}
    scores["reconstruction"] = jnp.stack([jnp.mean(jnp.abs(images - again) ** norm, axis=-1) for norm in NORMS])
    return scores, jnp.argmax(before, axis=-1), jnp.argmax(after, axis=-1)


@partial(jax.jit, static_argnames="seen")
@partial(jax.vmap, in_axes=(0, 0, 0, None, None))
def attack(classifier, autoencoder, examples, radius, seen):
    """Images after 10 steps of an attacker who sees the classifier, or the autoencoder before it too."""

    def model(images):
        return apply_mlp(classifier, rebuilt(autoencoder, images) if seen else images)

    measure = partial(losses.cross_entropy_with_labels, labels=examples.labels)
    return attacked(model, examples.images, jax.random.key(1), measure, radius, 10)


def examine(part, radius, seen):
    """The detectors' areas `[setting, seed]`, and what `detection` says of images before and after an attack."""
    moved = attack(classifier, autoencoder, part, radius, seen)
    usual, strange = (detection(classifier, autoencoder, images) for images in (part.images, moved))
    right = np.asarray(usual[1] == part.labels)
    fooled = right & np.asarray(strange[1] != part.labels)
    areas = {}
    for name in DETECTORS:
        seeds = zip(np.asarray(usual[0][name]), np.asarray(strange[0][name]), right, fooled, strict=True)
        areas[name] = np.stack([auroc(u[:, known], s[:, lost]) for u, s, known, lost in seeds], axis=1)
    return areas, usual, strange


RADII = (0.1, 0.2)
on_validation = [examine(split.validation, radius, False) for radius in RADII]
areas = jax.tree.map(np.add, *(areas for areas, *_ in on_validation))
chosen = {name: int(np.argmax(areas[name].mean(axis=-1))) for name in DETECTORS}
on_test = {(radius, seen): examine(split.test, radius, seen) for radius in RADII for seen in (False, True)}
detected = {
    name: {f"radius {radius:g}": on_test[radius, False][0][name][at] for radius in RADII} for name, at in chosen.items()
}
print("AUROC in % of fooled against recognised test images, by an attacker who sees the classifier alone")
for name, row in detected.items():
    columns = "".join(f"{kind:>14s}{spread(area):>13s}" for kind, area in row.items())
    print(f"{name:20s}{columns}   at {(NORMS if name == 'reconstruction' else TEMPERATURES)[chosen[name]]:g}")


def alarm(scores):
    """Where the Jensen-Shannon score exceeds that of 95 % of the clean validation images `[seed, n]`."""
    name, quiet = "Jensen-Shannon", on_validation[0][1][0]
    now, usual = (np.asarray(of[name])[:, chosen[name]] for of in (scores, quiet))
    return now > np.quantile(usual, 0.95, axis=-1, keepdims=True)


COLUMNS = ("recognised", "rebuilt", "or alarm", "false alarm")
print(f"\nattacked test images in %{'':9s}" + "".join(f"{column:>14s}" for column in COLUMNS))
defence = {}
for (radius, seen), (_areas, usual, strange) in on_test.items():
    before, after = (np.asarray(classes == split.test.labels) for classes in strange[1:])
    outcomes = (before, after, after | alarm(strange[0]), alarm(usual[0]))
    defence[radius, seen] = {name: 100 * of.mean(axis=-1) for name, of in zip(COLUMNS, outcomes, strict=True)}
    columns = "".join(f"{spread(values):>14s}" for values in defence[radius, seen].values())
    print(f"radius {radius:g}, autoencoder {'seen' if seen else 'hidden':8s}{columns}")

# %%
figure, (frontier, detectors) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
for name, style, color in (
    ("TRADES", "o-", common.VERMILION),
    ("squared error", "s--", common.BLUE),
    ("logit pairing", "D-.", common.GREEN),
    ("attacked labels", "^:", common.BLACK),
):
    clean, worst = (scores[name][kind].mean(axis=-1) for kind in ("clean", "attacked"))
    frontier.plot(clean, worst, style, color=color, label=name)
frontier.set_xlabel("accuracy on clean images in %")
frontier.set_ylabel("accuracy on attacked images in %")
frontier.set_title("KL, squared error and attacked labels\ntrade accuracy for robustness alike")
frontier.legend(loc="lower left", frameon=False)
common.dot_plot(detectors, detected, [f"radius {radius:g}" for radius in RADII])
detectors.set_xlabel("AUROC of the attack in % (mean ± sd, 5 seeds)")
detectors.set_title("A changed prediction betrays an attack,\nthe error of the reconstruction more so")
common.save_figure(figure, "adversarial_robustness.png")

# %% [markdown]
# ## What it does not do
#
# - It does not need KL. Squared error of the probabilities and labels for attacked images tie; squared error of the
#   logits is behind by 1.6 ± 1.5 points.
# - It does not certify anything. Accuracy is against one attack of 20 steps; a stronger one may find more.
# - The detector withstands no attacker who knows the autoencoder: at radius 0.2, 56 % of the images are then neither
#   rebuilt correctly nor noticed.
# - Its Jensen-Shannon score is no better than total variation over both radii, and worse than the error of the
#   reconstruction under a small power, to which an attack that changes every pixel a little adds in every pixel.
#
# The claims, with margins that allow for other processors and versions of JAX:

# %%
robust = {name: row["attacked"] for name, row in reported.items()}
assert common.ahead(robust, "TRADES", "standard") > 25
for tie in ("attacked labels", "squared error"):
    assert abs(common.ahead(robust, "TRADES", tie)) < 4
assert common.ahead(robust, "TRADES", "logit pairing") > 0
assert reported["TRADES"]["KL, nats"].mean() < reported["standard"]["KL, nats"].mean() / 2
at_small, at_large = ({name: row[kind] for name, row in detected.items()} for kind in ("radius 0.1", "radius 0.2"))
assert min(at_small["Jensen-Shannon"].mean() - 88, at_large["Jensen-Shannon"].mean() - 95) > 0
over_both = {name: 0.5 * (at_small[name] + at_large[name]) for name in DETECTORS}
assert abs(common.ahead(over_both, "Jensen-Shannon", "total variation")) < 2
for areas in (at_small, at_large):
    assert common.ahead(areas, "Jensen-Shannon", "largest probability") > 2
    assert common.ahead(areas, "reconstruction", "Jensen-Shannon") > 0
assert common.ahead(defence[0.1, False], "rebuilt", "recognised") > 20
assert defence[0.2, True]["rebuilt"].mean() < 40
print("All claims hold.")

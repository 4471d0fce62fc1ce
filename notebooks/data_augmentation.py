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
# # Data augmentation: similar images must get similar predictions <!-- S13 -->
#
# Augmentation makes images that are similar but not the same. Does it help to ask, by the Jensen-Shannon divergence,
# that the network's predictions for them agree?
#
# **Answer.** With 100 labels and 1000 images without, it lowers the error on corrupted images from 22.7 % by
# augmentation alone to 18.0; squared error and cosine do nearly as well.
#
# AugMix (Hendrycks et al. 2020) adds to the cross-entropy the divergence of the predictions for an image and two
# augmentations of it from their mean $m$,
#
# $$\lambda \, \mathrm{JS}(p_0, p_1, p_2) = \frac{\lambda}{3} \sum_{j=0}^{2} \mathrm{KL}(p_j \,\|\, m), \qquad
# m = \tfrac13 (p_0 + p_1 + p_2).$$
#
# It needs no label, so here it also runs on images that have none.

# %%
from functools import partial
from typing import NamedTuple

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy.ndimage
from common import apply_mlp, spread
from tqdm import tqdm

from jaxdiv import losses


class Views(NamedTuple):
    """Images `[n, 64]` and several augmentations of each `[n, views, 64]`."""

    images: jax.Array
    augmented: jax.Array


class Batch(NamedTuple):
    """Images with labels `[n]`, and images without."""

    labelled: Views
    labels: jax.Array
    unlabelled: Views


def one(views, key):
    """A random augmentation `[n, 64]` of each image."""
    which = jax.random.randint(key, (len(views.images), 1, 1), 0, views.augmented.shape[1])
    return jnp.take_along_axis(views.augmented, which, axis=1)[:, 0]


def triple(params, views, key):
    """Logits `[3, n, 10]` of the images and of two random augmentations of each."""
    first, second = jax.random.split(key)
    return jnp.stack([apply_mlp(params, images) for images in (views.images, one(views, first), one(views, second))])


def augmented(params, batch, key, _weight):
    """Cross-entropy of the labels, for the images and for an augmentation of each."""
    views = (batch.labelled.images, one(batch.labelled, key))
    return jnp.mean(jnp.stack([losses.cross_entropy_with_labels(apply_mlp(params, x), batch.labels) for x in views]))


# %% [markdown]
# This is all that the agreement takes. Put your network in place of `apply_mlp` in `triple`.


# %%
def augmix(params, batch, key, weight, disagreement=losses.js_of):
    """Labels, and the Jensen-Shannon divergence of three predictions for each image without a label."""
    label_key, view_key = jax.random.split(key)
    logits = triple(params, batch.unlabelled, view_key)
    return augmented(params, batch, label_key, weight) + weight * jnp.mean(disagreement(logits))


# %% [markdown]
# ## Augmentations, and corruptions to test by
#
# An augmentation mixes an image with three chains of one to three random operations: shift, rotation, shear, fewer grey
# levels. The test images come with noise, salt and pepper, blur, half the contrast, more brightness, a square erased,
# turned and shifted; only the last two kinds occur in training. Every image is standardised to mean 0 and deviation 1.

# %%
SEEDS = range(5)
LABELS, VIEWS = 100, 4
split = common.digits(SEEDS)
keys = jax.vmap(jax.random.key)(jnp.array(SEEDS))
CENTRED = jnp.stack(jnp.meshgrid(jnp.arange(8.0), jnp.arange(8.0), indexing="ij")).reshape(2, 64) - 3.5


def warped(image, angle, slant, shift):
    """An image `[64]` turned, sheared and shifted."""
    turn = jnp.stack([jnp.cos(angle), -jnp.sin(angle), jnp.sin(angle) + slant, jnp.cos(angle)]).reshape(2, 2)
    places = turn @ CENTRED + 3.5 + shift[:, None]
    return jax.scipy.ndimage.map_coordinates(image.reshape(8, 8), list(places), order=1)


def operation(image, key):
    """A random one of rotation, shear, shift and fewer grey levels, for an image `[64]`."""
    kind_key, size_key = jax.random.split(key)
    angle, slant, *shift = jax.random.uniform(size_key, (4,), minval=-1, maxval=1)
    is_kind = jax.random.randint(kind_key, (), 0, 4) == jnp.arange(4)
    moved = warped(image, 0.35 * angle * is_kind[0], 0.35 * slant * is_kind[1], jnp.stack(shift) * is_kind[2])
    return jnp.where(is_kind[3], jnp.round(4 * image) / 4, moved)


def mixture(image, key):
    """One augmentation of an image `[64]`."""
    weight_key, share_key, depth_key, *chain_keys = jax.random.split(key, 6)
    weights = jax.random.dirichlet(weight_key, jnp.ones(3))
    depth = jax.random.randint(depth_key, (), 1, 4)
    mixed = 0.0
    for weight, chain_key in zip(weights, chain_keys, strict=True):
        chain = image
        for position in range(3):
            chain = jnp.where(position < depth, operation(chain, jax.random.fold_in(chain_key, position)), chain)
        mixed = mixed + weight * chain
    share = jax.random.uniform(share_key)
    return share * image + (1 - share) * mixed


@jax.jit
def augmentations(images, key):
    """`VIEWS` augmentations `[seed, n, VIEWS, 64]` of images `[seed, n, 64]`."""
    each = jax.random.split(key, (*images.shape[:2], VIEWS))
    return jax.vmap(jax.vmap(jax.vmap(mixture, in_axes=(None, 0))))(images, each)


def corruptions(images, seed):
    """The images `[n, 64]` under each of the eight corruptions `[8 n, 64]`."""
    random, images = np.random.default_rng(seed), np.asarray(images)
    count, zero = len(images), np.zeros(len(images))
    angles, shifts = random.uniform(-0.5, 0.5, count), random.uniform(-1.2, 1.2, (count, 2))
    row, column = random.integers(6, size=(2, count, 1))
    at_row, at_column = np.arange(64) // 8 - row, np.arange(64) % 8 - column
    corrupted = [
        images + random.normal(0, 0.25, images.shape),
        np.where(random.random(images.shape) < 0.12, random.integers(2, size=images.shape), images),
        scipy.ndimage.gaussian_filter(images.reshape(-1, 8, 8), (0, 0.8, 0.8)).reshape(-1, 64),
        (images - 0.5) / 2 + 0.5,
        images + 0.3,
        jax.vmap(warped)(images, angles, zero, np.zeros((count, 2))),
        jax.vmap(warped)(images, zero, zero, shifts),
        np.where((at_row >= 0) & (at_row < 3) & (at_column >= 0) & (at_column < 3), 0, images),
    ]
    return np.clip(np.concatenate(corrupted), 0, 1.3)


def standardised(images):
    """Each image with mean 0 and deviation 1 over its last axis."""
    return (images - images.mean(axis=-1, keepdims=True)) / (images.std(axis=-1, keepdims=True) + 1e-3)


def corrupted(part, salt):
    """All corruptions of a part of the split after one another `[seed, 8 n, 64]`, and their labels."""
    images = [corruptions(part.images[i], 100 * salt + i) for i in range(len(SEEDS))]
    return common.Examples(jnp.asarray(np.stack(images)), jnp.tile(part.labels, (1, 8)))


augmented_images = augmentations(split.train.images, jax.random.key(0))
every = Views(standardised(split.train.images), standardised(augmented_images))
parts = {"validation": corrupted(split.validation, 1), "corrupted": corrupted(split.test, 2), "clean": split.test}
parts = {name: part._replace(images=standardised(part.images)) for name, part in parts.items()}

# The first images have their labels, and are repeated to fill the set.
COPIES = split.train.labels.shape[1] // LABELS
few = jax.tree.map(lambda array: jnp.concatenate([array[:, :LABELS]] * COPIES, axis=1), every)
batches = Batch(few, jnp.tile(split.train.labels[:, :LABELS], (1, COPIES)), every)

# %% [markdown]
# ## Six methods, five settings each
#
# Each method has one number to tune over five values: the learning rate where nothing else is to be tuned, else the
# weight. It is chosen by the error on corrupted validation images, and reported on the corrupted test images. Two
# controls replace the divergence on the same images without labels: squared distance and cosine of the three
# predictions from their mean.


# %%
def plain(params, batch, _key, _rate):
    """Labels for the images as they are."""
    return jnp.mean(losses.cross_entropy_with_labels(apply_mlp(params, batch.labelled.images), batch.labels))


def js_of_labelled(params, batch, key, weight):
    """AugMix as published: agreement on the images with labels."""
    return augmix(params, batch._replace(unlabelled=batch.labelled), key, weight)


def squared_error(logits):
    """Squared distance of the probabilities from their mean."""
    probs = jax.nn.softmax(logits)
    return jnp.mean(jnp.sum((probs - probs.mean(axis=0)) ** 2, axis=-1), axis=0)


def cosine(logits):
    """One minus the cosine between the probabilities and their mean."""
    probs = jax.nn.softmax(logits)
    unit = probs / jnp.linalg.norm(probs, axis=-1, keepdims=True)
    mean = probs.mean(axis=0)
    return 1 - jnp.mean(jnp.sum(unit * mean / jnp.linalg.norm(mean, axis=-1, keepdims=True), axis=-1), axis=0)


RATES = (1e-3, 2e-3, 4e-3, 1e-2, 2e-2)
WEIGHTS = (1.0, 3.0, 10.0, 30.0, 100.0)
METHODS = {
    "no augmentation": (plain, RATES),
    "augmentation": (augmented, RATES),
    "JS, labelled images": (js_of_labelled, WEIGHTS),
    "JS": (augmix, WEIGHTS),
    "squared error": (partial(augmix, disagreement=squared_error), WEIGHTS),
    "cosine": (partial(augmix, disagreement=cosine), WEIGHTS),
}


scores, reported = {}, {}
for name, (loss, values) in tqdm(METHODS.items()):
    rate = jnp.array(values) if values is RATES else 2e-3
    params = common.sweep(loss, jnp.array(values), batches, keys, sizes=(64, 64, 64, 10), steps=500, learning_rate=rate)
    logits = {part: common.predict(params, examples.images) for part, examples in parts.items()}
    errors = {part: 100 - common.percent_correct(logits[part], examples.labels) for part, examples in parts.items()}
    labels = jnp.broadcast_to(parts["corrupted"].labels, logits["corrupted"].shape[:-1])
    best = np.argmin(errors.pop("validation").mean(axis=-1))
    scores[name] = errors | {
        "calibration": common.calibration_error(logits["corrupted"], labels),
        "log-loss": np.mean(losses.cross_entropy_with_labels(logits["corrupted"], labels), axis=-1),
    }
    reported[name] = {kind: values[best] for kind, values in scores[name].items()}

print("Mean ± sd over the seeds, at the setting chosen on validation: errors in %, log-loss in nats; error by setting")
print(f"{'':20s}" + "".join(f"{kind:>13s}" for kind in reported["JS"]))
for name, row in reported.items():
    columns = (spread(values, 2 if kind == "log-loss" else 1) for kind, values in row.items())
    curve = scores[name]["corrupted"].mean(axis=-1)
    print(f"{name:20s}" + "".join(f"{column:>13s}" for column in columns) + "  ", *(f"{mean:5.1f}" for mean in curve))

# %%
figure, (by_method, by_weight) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
kinds = {"wrong classes": "corrupted", "calibration error": "calibration"}
rows = {name: {kind: row[key] for kind, key in kinds.items()} for name, row in reported.items()}
common.dot_plot(by_method, rows, list(kinds))
by_method.set_xlabel("corrupted images, in % (mean ± sd, 5 seeds)")
by_method.set_title("Agreement on unlabelled images helps,\nby any of three measures")
for name, style, color in (
    ("JS", "o-", common.VERMILION),
    ("squared error", "s--", common.BLUE),
    ("cosine", "^:", common.BLACK),
):
    by_weight.plot(WEIGHTS, scores[name]["corrupted"].mean(axis=-1), style, color=color, label=name)
by_weight.axhline(reported["augmentation"]["corrupted"].mean(), color=common.GREEN, label="augmentation alone")
by_weight.set_xscale("log")
by_weight.set_xticks(WEIGHTS, [f"{weight:g}" for weight in WEIGHTS])
by_weight.set_ylim(top=27)  # room for the legend
by_weight.set_xlabel("weight of the agreement (a pure number)")
by_weight.set_ylabel("wrong classes of corrupted images, in %")
by_weight.set_title("Each measure helps over\na wide range of weights")
by_weight.legend(loc="upper left", ncols=2, frameon=False, fontsize="small")
common.save_figure(figure, "data_augmentation.png")

# %% [markdown]
# ## What it does not do
#
# - It does little for the error of images that have labels: there 22.1 % against 22.7. What agreement gives them is
#   calibration, 9.2 % against 15.9.
# - It needs no particular divergence. Squared error is 0.9 ± 0.6 points behind, but better calibrated: 5.5 % against
#   8.2. Weights from 1 to 30 help under all three.
# - The weights were chosen on corrupted images of the same eight kinds, for every method alike.
#
#
# The claims, with margins that allow for other processors and versions of JAX:

# %%
errors = {name: row["corrupted"] for name, row in reported.items()}
calibrations = {name: row["calibration"] for name, row in reported.items()}
assert common.ahead(errors, "augmentation", "JS") > 2
assert common.ahead(errors, "JS, labelled images", "JS") > 1.5
for tie in ("squared error", "cosine"):
    assert abs(common.ahead(errors, "JS", tie)) < 2.5
assert common.ahead(calibrations, "augmentation", "JS") > 4
assert common.ahead(calibrations, "JS", "squared error") > 0
print("All claims hold.")

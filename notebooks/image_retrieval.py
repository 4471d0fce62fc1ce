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
# # Image retrieval: textures that are alike, by the distributions of their details <!-- E09 -->
#
# Given a patch of an image, which of 320 patches are from the same image, when brightness and contrast are taken away?
# The details of a patch at each scale have a distribution, and a divergence can compare those of two patches.
#
# **Answer.** Of the 15 patches found by Jensen-Shannon of histograms 47 % are from the same image, by the Euclidean
# distance of standard deviations 33 %; total variation and Hellinger tie, L2 of the same histograms nearly.
#
# A wavelet transform splits a patch into sub-bands $s$, of horizontal, vertical and diagonal details at each scale. The
# distance of two patches is the mean over the sub-bands of the divergences of their histograms; Do and Vetterli (2002)
# take KL of generalised normal laws, $f(x) \propto e^{-(|x| / \alpha)^\beta}$, instead:
#
# $$\frac{1}{S} \sum_{s=1}^{S} \mathrm{JS}(p_s, q_s).$$

# %%
from functools import cache, partial

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import spread
from jax.scipy.special import gammaln
from skimage import data
from sklearn.datasets import load_sample_image
from tqdm import tqdm

import jaxdiv
from jaxdiv import gaussian, metrics, simplex

# %% [markdown]
# ## The search to paste
#
# Sub-bands `[n, pixels]` become one law of each image, with an equal share of every sub-band. The edges between bins
# come from reference images, so that bins have equal shares there.


# %%
def laws_of(bands, references, bins=8):
    """Probabilities `[n, s * bins]` of the bins of all sub-bands."""
    counts = []
    for band, reference in zip(bands, references, strict=True):
        found = metrics.bins(band, metrics.edges(reference, bins))
        counts.append(jnp.sum(jax.nn.one_hot(found, bins), axis=1))
    shares = simplex.from_counts(jnp.stack(counts, axis=1), pseudo_count=0.5)
    return jnp.reshape(shares, (len(shares), -1)) / len(bands)


def most_alike(laws, divergence=simplex.js, count=15):
    """The nearest other images `[n, count]` of each; itself is nearest of all."""
    return jaxdiv.nearest(divergence, laws, laws, k=count + 1).indices[:, 1:]


# %% [markdown]
# ## Patches
#
# Twenty images of scikit-image and scikit-learn, in grey. From the right half of each come 16 patches of 64 x 64 pixels
# at random places, for each of five seeds; from the left half those that settings are chosen on and that are the
# references. Every patch is shifted and scaled to mean 0 and standard deviation 1. A wavelet of Haar splits it.

# %%
SEEDS, WIDTH, COUNT = range(5), 64, 16
NAMES = "brick grass gravel camera coins moon page text immunohistochemistry hubble_deep_field coffee chelsea astronaut"
images = {name: getattr(data, name)() for name in [*NAMES.split(), "rocket", "clock", "cell"]}
images |= {"retina": data.retina()[400:1000, 400:1000], "motorcycle": data.stereo_motorcycle()[0]}
images |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
images = {name: np.mean(np.atleast_3d(image), axis=-1) for name, image in images.items()}
LABELS = np.repeat(np.arange(len(images)), COUNT)


def patches(seed, half):
    """Standardised patches `[320, 64, 64]` from the left halves of the images, 0, or the right halves, 1."""
    random, found = np.random.default_rng(seed), []
    for image in images.values():
        side = np.array_split(image, 2, axis=1)[half]
        for _ in range(COUNT):
            y, x = (random.integers(size - WIDTH + 1) for size in side.shape)
            found.append(side[y : y + WIDTH, x : x + WIDTH])
    found = np.array(found)
    return (found - found.mean(axis=(1, 2), keepdims=True)) / (found.std(axis=(1, 2), keepdims=True) + 1)


def haar(smooth, scales):
    """The sub-bands `[n, pixels]` of images `[n, rows, columns]`, three at each scale."""
    bands = []
    for _ in range(scales):
        rows = smooth[:, ::2] + smooth[:, 1::2], smooth[:, ::2] - smooth[:, 1::2]
        (smooth, down), (across, both) = (
            ((x[..., ::2] + x[..., 1::2]) / 2, (x[..., ::2] - x[..., 1::2]) / 2) for x in rows
        )
        bands += [band.reshape(len(band), -1) for band in (down, across, both)]
    return bands


# %% [markdown]
# ## Descriptions and distances
#
# Histograms of the sub-bands of three scales choose among 6, 12 and 24 bins. The others choose among 2, 3 and 4 scales:
# KL of normal laws and of generalised ones, and the Euclidean distance of the standard deviations, plain or
# logarithmic.


# %%
def histograms(patches, references, bins):
    return laws_of(haar(patches, 3), haar(references, 3), bins)


def deviations(patches, _references, scales):
    """Standard deviations `[n, s]` of the sub-bands."""
    return jnp.stack([jnp.asarray(band).std(axis=1) + 1e-3 for band in haar(patches, scales)], axis=1)


def normal_laws(patches, references, scales):
    scale = deviations(patches, references, scales)
    return gaussian.Normal(jnp.zeros_like(scale), scale)


def generalised_laws(patches, _references, scales):
    """Scale and shape `[n, s]` of the generalised normal laws with the same mean of |x| and of its square."""
    shapes = jnp.geomspace(0.2, 4, 400)
    ratios = jnp.exp(2 * gammaln(2 / shapes) - gammaln(1 / shapes) - gammaln(3 / shapes))
    bands = [jnp.asarray(band) for band in haar(patches, scales)]
    first, second = (jnp.stack([jnp.mean(abs(band) ** n, axis=1) + 1e-6 for band in bands], axis=1) for n in (1, 2))
    shape = jnp.interp(first**2 / second, ratios, shapes)
    return first * jnp.exp(gammaln(1 / shape) - gammaln(2 / shape)), shape


def kl_of_generalised(p, q):
    """KL of generalised normal laws, summed over the sub-bands."""
    (a, s), (b, t) = p, q
    power = (a / b) ** t * jnp.exp(gammaln((t + 1) / s) - gammaln(1 / s))
    return jnp.sum(jnp.log(s * b / (t * a)) + gammaln(1 / t) - gammaln(1 / s) + power - 1 / s)


def squared_error(p, q):
    return jnp.sum((p - q) ** 2)


BINS, SCALES = (6, 12, 24), (2, 3, 4)
METHODS = {
    "Jensen-Shannon": (histograms, simplex.js, BINS),
    "KL": (histograms, simplex.kl, BINS),
    "squared Hellinger": (histograms, simplex.squared_hellinger, BINS),
    "total variation": (histograms, simplex.total_variation, BINS),
    "L2 of histograms": (histograms, squared_error, BINS),
    "KL, generalised normal": (generalised_laws, kl_of_generalised, SCALES),
    "KL, normal": (normal_laws, gaussian.kl, SCALES),
    "log deviations": (deviations, lambda p, q: squared_error(jnp.log(p), jnp.log(q)), SCALES),
    "deviations": (deviations, squared_error, SCALES),
}


def percent_right(found):
    """How many of the patches that are found are from the same image, in %."""
    return 100 * np.mean(LABELS[found] == LABELS[:, None])


references, tests = patches(100, 0), [patches(seed, 1) for seed in SEEDS]


@cache
def described(describe, setting):
    """The references, and the patches of each seed."""
    return [describe(some, references, setting) for some in (references, *tests)]


chosen, rates, example = {}, {}, {}
print(f"chance: {100 * (COUNT - 1) / (len(LABELS) - 1):.1f} %")
for name, (describe, divergence, settings) in tqdm(METHODS.items()):
    search = jax.jit(partial(most_alike, divergence=divergence))
    tuned = [percent_right(search(described(describe, setting)[0])) for setting in settings]
    chosen[name] = settings[int(np.argmax(tuned))]
    found = [np.asarray(search(laws)) for laws in described(describe, chosen[name])[1:]]
    rates[name], example[name] = np.array([percent_right(of_seed) for of_seed in found]), found[0]
    tqdm.write(f"{name:24s}{chosen[name]:4d}{spread(rates[name]):>14s} %")

# %%
QUERIES, SHOWN = range(5, 320, 64), 4
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 5), layout="constrained", width_ratios=(1.7, 1))
for row, query in enumerate(QUERIES):
    places = [(0, query)]
    for start, name in ((1.2, "deviations"), (SHOWN + 1.4, "Jensen-Shannon")):
        places += [(start + i, other) for i, other in enumerate(example[name][query, :SHOWN])]
    for x, other in places:
        left.imshow(
            tests[0][other], cmap="gray", extent=(x + 0.06, x + 0.94, -row + 0.06, -row + 0.94), vmin=-2.5, vmax=2.5
        )
        color = common.BLACK if x == 0 else common.BLUE if LABELS[other] == LABELS[query] else common.ORANGE
        left.add_patch(plt.Rectangle((x + 0.03, -row + 0.03), 0.94, 0.94, fill=False, color=color, linewidth=3))
for x, text in ((0.5, "query"), (SHOWN / 2 + 1.2, "nearest by deviations"), (SHOWN * 1.5 + 1.4, "by Jensen-Shannon")):
    left.text(x, 1.05, text, ha="center")
left.set(xlim=(0, 2 * SHOWN + 1.4), ylim=(1 - len(QUERIES), 1.4), aspect="equal")
left.set_axis_off()
for y, (name, values) in enumerate(rates.items()):
    color = common.BLUE if "deviations" not in name and "L2" not in name else common.ORANGE
    right.errorbar(np.mean(values), -y, xerr=np.std(values, ddof=1), fmt="o", capsize=3, color=color)
right.set_yticks(-np.arange(len(rates)), list(rates))
right.set_xlabel("from the same image, of 15 found, %")
common.save_figure(figure, "image_retrieval.png")

# %% [markdown]
# In the picture blue frames are from the image of the query. The queries are every 64th patch.
#
# ## What it does not do
#
# - Which measure compares the histograms hardly matters where bins have equal shares, as here: L2 is two points behind.
#   KL is behind by more, since a bin that is rare in one small patch counts much.
# - The generalised normal laws need two numbers for a sub-band, and lose five points against histograms. Their KL is
#   closed, and far ahead of the distance of standard deviations.
# - Half of what is found is wrong, as many images have sky, wall or shade in common. It knows textures, not things.

# %%
assert common.ahead(rates, "Jensen-Shannon", "deviations") > 8
assert common.ahead(rates, "Jensen-Shannon", "log deviations") > 4
assert common.ahead(rates, "Jensen-Shannon", "KL, normal") > 4
assert common.ahead(rates, "Jensen-Shannon", "KL, generalised normal") > 1.5
assert common.ahead(rates, "KL, generalised normal", "deviations") > 4
for name in ("squared Hellinger", "total variation", "L2 of histograms"):
    assert abs(common.ahead(rates, "Jensen-Shannon", name)) < 4
print("All claims hold.")

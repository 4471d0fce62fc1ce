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
# # Clustering: k-means by a divergence
#
# Documents are distributions of words, and k-means wants to know how far two of them are. Does a divergence group them
# better than Euclidean distance, and better than the usual remedy, TF-IDF?
#
# Better than Euclidean distance, by far: Jensen-Shannon agrees with the topics of documents to 86 % (NMI), Euclidean
# k-means to 72 %. It ties with TF-IDF, and so do KL and Hellinger.
#
# The centroid of a cluster minimises the mean divergence of its members,
#
# $$c_i = \arg\min_c \sum_{j \in i} \mathrm{D}(p_j, c),$$
#
# which for $\mathrm{D} = \mathrm{KL}$ is their mean, and for Jensen-Shannon is found by descent.

# %%
import functools

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import spread
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score as nmi
from tqdm import tqdm

from jaxdiv import clustering, losses, simplex

# %% [markdown]
# ## The lines to paste


# %%
def clusters_of(counts, k, *, smoothing=0.3, seed=0):
    """Clusters of documents by their word counts `[document, word]`, with Jensen-Shannon; the best of two starts."""
    laws = simplex.from_counts(counts)
    background = jnp.mean(laws, axis=0, keepdims=True)
    laws = (1 - smoothing) * laws + smoothing * background
    return clustering.kmeans(simplex.js, laws, k, key=jax.random.key(seed), starts=2)


# %% [markdown]
# ## Documents <!-- S14 -->
#
# The documents are 563 docstrings of ten modules of NumPy, SciPy, scikit-learn and Matplotlib, as counts of 800 words;
# the module is what a good clustering finds again. The score is the normalised mutual information (NMI) of clusters and
# modules: 100 % if they are the same, 0 if independent.
#
# Every method takes the same k, seeds and starts, and tunes one number over four values: its score on one half of the
# documents chooses, that on the other half counts.
#
# - *Euclid*: words by their frequencies, weighted by a power of the inverse document frequency.
# - *TF-IDF*: a power of the counts, times the inverse document frequency, scaled to length 1.
# - *KL*, *JS*, *Hellinger*: mixed with the mean of all documents. For KL this is needed: without it documents that
#   share no word are infinitely far.

# %%
SEEDS, STARTS = range(5), 2
data = np.load(common.DATA / "docstrings.npz")
counts, modules = data["counts"].astype(np.float32), data["labels"]
k = len(data["modules"])
frequencies = counts / counts.sum(axis=1, keepdims=True)
idf = np.log(len(counts) / np.sum(counts > 0, axis=0))


def euclidean(points, seed):
    return KMeans(k, n_init=STARTS, random_state=seed).fit_predict(points)


def tf_idf(power):
    points = counts**power * idf
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def mixed(smoothing):
    return (1 - smoothing) * frequencies + smoothing * frequencies.mean(axis=0)


def by(divergence, laws, seed):
    return np.asarray(clustering.kmeans(divergence, laws, k, key=jax.random.key(seed), starts=STARTS).labels)


METHODS = {
    "Euclid": (lambda power: frequencies * idf**power, (0.0, 0.5, 1.0, 2.0), euclidean),
    "TF-IDF": (tf_idf, (0.25, 0.5, 0.75, 1.0), euclidean),
    "KL": (mixed, (0.1, 0.2, 0.4, 0.6), functools.partial(by, simplex.kl)),
    "JS": (mixed, (0.0, 0.1, 0.3, 0.5), functools.partial(by, simplex.js)),
    "Hellinger": (mixed, (0.0, 0.1, 0.3, 0.5), functools.partial(by, simplex.squared_hellinger)),
}
labels = {}
for name, value in tqdm([(name, value) for name, (_, values, _) in METHODS.items() for value in values]):
    points, cluster = METHODS[name][0](value), METHODS[name][2]
    labels[name, value] = [cluster(points, seed) for seed in SEEDS]


def score(name, value, half):
    """NMI in % of each seed, on one half of the documents, another half for each seed."""
    halves = [np.random.default_rng(seed).permutation(len(modules)) % 2 == half for seed in SEEDS]
    return np.array(
        [100 * nmi(modules[own], found[own]) for own, found in zip(halves, labels[name, value], strict=True)]
    )


best = {name: max(values, key=lambda v, n=name: score(n, v, 0).mean()) for name, (_, values, _) in METHODS.items()}
documents = {name: score(name, value, 1) for name, value in best.items()}
for name, scores in documents.items():
    print(f"{name:10s} tuned {best[name]:4g}   NMI {spread(scores)} %")

# %% [markdown]
# ## Words of a cluster
#
# A centroid is itself a distribution of words. Those words are shown by which it differs most from all documents, each
# by its term of the divergence, beside the module that most of the documents come from.

# %%
found = clusters_of(counts, k)
words, everywhere = data["words"], frequencies.mean(axis=0)
for number in range(k):
    own = np.asarray(found.centroids[number])
    terms = own * np.log(own / everywhere)
    members = modules[np.asarray(found.labels) == number]
    print(f"{data['modules'][np.bincount(members).argmax()]:20s}", *words[np.argsort(-terms)[:7]])

# %% [markdown]
# ## A divergence that guides the clusters
#
# Deep embedded clustering (Xie 2016) moves the points too. With $q$ the soft assignment of each image to clusters and
# its sharpened form $p_{ji} \propto q_{ji}^2 / \sum_l q_{li}$ it minimises $\mathrm{KL}(p \,\|\, q)$ over an encoder
# and the cluster centres, from k-means. The encoder is the image plus a network that starts at zero. The control trains
# in the same way on hard labels, the most likely cluster; both tune the learning rate, on one half of the digits.

# %%
ROUNDS, STEPS, BATCH, RATES = 10, 40, 256, (5e-4, 1e-3, 2e-3, 4e-3)
digits = common.digits([0]).train, common.digits([0]).validation, common.digits([0]).test
images, classes = (jnp.concatenate([part[field][0] for part in digits]) for field in (0, 1))
first = [KMeans(10, n_init=10, random_state=seed).fit(np.asarray(images)) for seed in SEEDS]
centers = jnp.stack([jnp.asarray(found.cluster_centers_, jnp.float32) for found in first])


def assignment(params, images):
    """Logits `[n, 10]` of the soft assignment: Student's t of the distance from each center."""
    encoder, centers = params
    encoded = images + common.apply_mlp(encoder, images)
    return -jnp.log1p(common.squared_distances(encoded, centers))


def sharpened(logits):
    """Targets `[n, 10]`: squares of q over its sum in each cluster."""
    q = jax.nn.softmax(logits)
    return simplex.from_counts(q**2 / jnp.sum(q, axis=0, keepdims=True))


def hard(logits):
    return jax.nn.one_hot(jnp.argmax(logits, axis=1), 10)


def loss(params, batch, key):
    del key
    return jnp.mean(losses.forward_kl_with_probs(assignment(params, batch[0]), batch[1]))


@functools.partial(jax.jit, static_argnames="target")
def embed(rate, centers, keys, target):
    """Clusters `[seed, n]` after rounds of training towards the targets of the round before."""

    def run(arguments):
        centers, key = arguments
        encoder = common.init_mlp(key, [64, 128, 64])
        encoder = [*encoder[:-1], jax.tree.map(jnp.zeros_like, encoder[-1])]

        def one_round(params, key):
            data = images, target(assignment(params, images))
            return common.fit(loss, params, data, key, steps=STEPS, batch_size=BATCH, learning_rate=rate), None

        params, _ = jax.lax.scan(one_round, (encoder, centers), jax.random.split(key, ROUNDS))
        return jnp.argmax(assignment(params, images), axis=1)

    return jax.lax.map(run, (centers, keys))


def accuracy(labels, half):
    """Images in % whose cluster is that of their class, with clusters and classes matched as well as they can be."""
    found = []
    for seed, own in zip(SEEDS, np.asarray(labels), strict=True):
        chosen = np.random.default_rng(seed).permutation(len(classes)) % 2 == half
        table = np.zeros((10, 10))
        np.add.at(table, (own[chosen], np.asarray(classes)[chosen]), 1)
        found.append(100 * table[linear_sum_assignment(-table)].sum() / chosen.sum())
    return np.array(found)


keys = jax.vmap(jax.random.key)(jnp.array(SEEDS))
embedded = {"k-means": accuracy([found.labels_ for found in first], 1)}
for name, target in {"hard labels": hard, "DEC": sharpened}.items():
    runs = [embed(rate, centers, keys, target) for rate in tqdm(RATES)]
    run = max(range(len(RATES)), key=lambda i, runs=runs: accuracy(runs[i], 0).mean())
    embedded[name] = accuracy(runs[run], 1)
    print(f"{name:12s} learning rate {RATES[run]:g}")
for name, scores in embedded.items():
    print(f"{name:12s} accuracy {spread(scores)} %")

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for ax, table, label in zip(axes, (documents, embedded), ("NMI of documents, %", "accuracy of digits, %"), strict=True):
    for row, (name, scores) in enumerate(table.items()):
        color = common.ORANGE if name in ("Euclid", "TF-IDF", "k-means", "hard labels") else common.BLUE
        ax.plot(scores, [-row] * len(scores), "o", color=color, alpha=0.5, markersize=5)
        ax.plot(scores.mean(), -row, "|", color=color, markersize=22, markeredgewidth=3)
    ax.set_yticks(-np.arange(len(table)), list(table))
    ax.set(xlabel=label, ylim=(0.6 - len(table), 0.6))
common.save_figure(figure, "clustering.png")
plt.show()

# %% [markdown]
# ## Conclusion

# %%
gains = {name: documents[name] - documents["Euclid"] for name in ("TF-IDF", "KL", "JS", "Hellinger")}
for name, gain in gains.items():
    print(f"documents: {name} over Euclid {spread(gain)} points")
print(f"documents: JS over TF-IDF {spread(documents['JS'] - documents['TF-IDF'])} points")
for name in ("hard labels", "DEC"):
    print(f"digits: {name} over k-means {spread(embedded[name] - embedded['k-means'])} points")

# %% [markdown]
# What this does not show:
#
# - That divergences are the only remedy. TF-IDF changes the points instead of the distance, needs no library, and ties.
# - Which k to take. None of these scores knows it.
# - That deep embedded clustering is done with its learning rate: the largest of the four was the best.
# - Anything about KL without smoothing: documents that share no word are then infinitely far from each other.

# %%
assert all(np.mean(gains[name]) > 4 for name in ("KL", "JS", "Hellinger"))
assert abs(np.mean(documents["JS"] - documents["TF-IDF"])) < 4
assert np.mean(embedded["DEC"] - embedded["k-means"]) > 2
print("All claims hold.")

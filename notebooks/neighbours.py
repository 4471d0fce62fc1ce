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
# # Nearest neighbours under Jensen-Shannon: exact divergences by Euclidean search
#
# Libraries for nearest neighbours want vectors and Euclidean distances. Which vectors find the ten nearest neighbours
# of a histogram by the Jensen-Shannon divergence, and at what cost?
#
# **Answer.** Features of two nodes, 256 numbers to a histogram of 64 bins, find 99.9 % of them at a fifth of the cost
# of all divergences; distances of the histograms find 79 %, of their square roots 93 %. K-means gains nothing by them.
#
# The features are square roots of probabilities, turned in the plane by multiples of $\log p_i$, such that
#
# $$\|\phi(p) - \phi(q)\|^2 \approx \mathrm{JS}(p, q).$$

# %%
import functools
import time

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import normalized_mutual_info_score
from sklearn.neighbors import NearestNeighbors

import jaxdiv
from jaxdiv import embedding, simplex

# %% [markdown]
# ## The lines to paste


# %%
@functools.partial(jax.jit, static_argnames="nodes")
def features_of(laws, nodes):
    """Vectors `[n, 2 * nodes * k]` whose squared distances are the Jensen-Shannon divergences of laws `[n, k]`."""
    return jax.vmap(functools.partial(embedding.js_features, nodes=nodes))(laws)


@functools.partial(jax.jit, static_argnames="count")
def neighbours(features, count=10):
    """The nearest others of each row: all features have one norm, so they have the largest inner products."""
    products = jnp.matmul(features, features.T, precision="highest")
    return jax.lax.top_k(products - jnp.diag(jnp.full(len(features), jnp.inf)), count)[1]


# %% [markdown]
# ## Ten nearest neighbours
#
# The laws are scikit-learn's 1797 handwritten digits: the ink of an image over its 64 pixels. The exact neighbours come
# from all pairs. With features scikit-learn's `NearestNeighbors` finds them, and so does one matrix product. The
# measure is precision at ten, the share of the exact neighbours that is found; of equally near ones any will do. The
# controls are Euclidean distances of the histograms and of their square roots (Hellinger's distance).

# %%
images, labels = load_digits(return_X_y=True)
laws = simplex.from_counts(jnp.asarray(images, jnp.float32))
print(f"{len(laws)} histograms of {laws.shape[1]} bins, {np.mean(images == 0):.0%} of them empty")

K = 10
exact = jax.jit(lambda laws: jaxdiv.pairwise(simplex.js, laws))
divergences = np.array(exact(laws))
np.fill_diagonal(divergences, np.inf)
limit = np.sort(divergences, axis=1)[:, K - 1 : K] * (1 + 1e-5)


def precision(found):
    """The share of neighbours `[n, 10]` that are no farther than the tenth."""
    return np.mean(np.take_along_axis(divergences, np.asarray(found), axis=1) <= limit)


def clusters(vectors):
    """Normalised mutual information of k-means clusters and digits, in per cent: mean over three starts."""
    runs = [KMeans(10, n_init=3, random_state=seed).fit_predict(vectors) for seed in range(3)]
    return 100 * np.mean([normalized_mutual_info_score(labels, run) for run in runs])


def vectors_of(space):
    """The histograms, their square roots (whose distance is Hellinger's), or features of so many nodes."""
    plain = {"histograms": laws, "square roots": jnp.sqrt(laws)}
    return np.asarray(plain[space] if space in plain else features_of(laws, space))


SPACES = ["histograms", "square roots", 1, 2, 4, 14]
by_search, by_product, information, lengths = {}, {}, {}, {}
for space in SPACES:
    vectors = vectors_of(space)
    lengths[space] = vectors.shape[1]
    search = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(vectors)
    by_search[space] = precision(search.kneighbors(return_distance=False))
    if space in (1, 2, 4, 14):
        by_product[space] = precision(neighbours(vectors))
    information[space] = np.nan if space in (4, 14) else clusters(vectors)

print(f"{'vectors':14s}{'length':>8s}{'precision at 10: search':>26s}{'product':>10s}{'k-means, NMI in %':>20s}")
for space in SPACES:
    name = space if isinstance(space, str) else f"{space} nodes"
    print(f"{name:14s}{lengths[space]:8d}{by_search[space]:26.4f}", end="")
    print(f"{by_product.get(space, np.nan):10.4f}{information[space]:20.1f}")

# %% [markdown]
# ## Cost
#
# Processor time of all neighbours, features included, against that of the exact divergence of all pairs, in turns; the
# least of five.


# %%
def exact_neighbours(laws):
    return jax.lax.top_k(-exact(laws), K + 1)[1]


ways = {"exact": jax.jit(exact_neighbours)}
for nodes in (1, 2, 14):
    ways[nodes] = jax.jit(lambda laws, nodes=nodes: neighbours(features_of(laws, nodes)))
costs = {name: [] for name in ways}
for turn in range(6):
    for name, way in ways.items():
        start = time.process_time()
        jax.block_until_ready(way(laws))
        if turn:  # the first compiles
            costs[name].append(time.process_time() - start)
relative = {name: min(cost) / min(costs["exact"]) for name, cost in costs.items()}
for name, cost in relative.items():
    print(f"{name if name == 'exact' else f'{name} nodes':10s}{cost:8.3f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
NODES = (1, 2, 4, 14)
left.plot([lengths[n] for n in NODES], [100 * by_search[n] for n in NODES], "o-", color=common.BLUE, label="features")
for space, color, marker in (("square roots", common.ORANGE, "s"), ("histograms", common.BLACK, "^")):
    left.plot(lengths[space], 100 * by_search[space], marker, color=color, label=space)
left.set_xscale("log")
left.set_xticks([64, 128, 256, 512, 1792], ["64", "128", "256", "512", "1792"])
left.minorticks_off()
left.set(xlabel="length of the vectors (numbers)", ylabel="neighbours found, %", ylim=(75, 101.5))
left.set_title("Few features find nearly all neighbours")
left.legend(frameon=False, loc="center right")
bars = right.barh(range(len(relative)), [100 * cost for cost in relative.values()], color=common.BLUE)
right.bar_label(bars, fmt="%.0f", padding=3)
right.set_yticks(range(len(relative)), ["exact", "1 node", "2 nodes", "14 nodes"])
right.set(xlabel="processor time, % of all divergences", xlim=(0, 112), title="One or two nodes are cheap, 14 are not")
common.save_figure(figure, "neighbours.png")

# %% [markdown]
# ## When not to use it
#
# - Where all divergences fit: `jaxdiv.pairwise(simplex.js, laws)` is exact, and as quick as 14 nodes. What features
#   open is the libraries that search without comparing all pairs.
# - For k-means: features, histograms and their square roots share as much information with the digits.
# - For KL, which is not symmetric and no squared distance of vectors.
#
# The claims, with margins for other processors and versions:

# %%
assert by_search[14] > 0.999
assert by_product[14] > 0.999
assert by_search[4] > 0.995
assert by_search[2] > 0.97
assert by_search["histograms"] < 0.85
assert relative[2] < 0.8
print("All claims hold.")

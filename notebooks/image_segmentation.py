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
# # Image segmentation: regions of one grey and two textures
#
# A horse of grass stands on gravel, and both have the same mean and variance of grey. Can a divergence between
# histograms of texture find the horse from two marked squares, merge an image into its regions, and draw their edges?
#
# **Answer.** Yes: by KL the overlap with the horse is 74 % against 61 by L2 of the same histograms, by Jensen-Shannon
# the Rand index of merged regions 68 % against 57 and $F_1$ of edges 55 % against 44; Hellinger's and others tie.
#
# The histogram $p_x$ of a window around pixel $x$ is compared with those of the two squares; regions $a$ and $b$ of
# $n_a$ and $n_b$ pixels merge where that loses the least information; an edge runs where two halves of a window differ:
#
# $$\mathrm{KL}(p_x \,\|\, \mathrm{inside}) < \mathrm{KL}(p_x \,\|\, \mathrm{outside}), \qquad
# \min_{a, b} \, (n_a + n_b) \, \mathrm{JS}_{n_a : n_b}(p_a, p_b), \qquad
# \max_{\mathrm{direction}} \mathrm{JS}(p_{\mathrm{half}}, p_{\mathrm{other\ half}}).$$

# %%
from collections import namedtuple
from functools import partial
from itertools import permutations

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from scipy.ndimage import distance_transform_edt, gaussian_filter, maximum_filter, uniform_filter
from skimage import data, feature, filters, segmentation, transform
from sklearn.metrics import adjusted_rand_score
from tqdm import tqdm

from jaxdiv import pairwise, simplex

# %% [markdown]
# The three uses to paste. Put any features in place of the textures below, any divergence in place of KL and JS.


# %%
@partial(jax.jit, static_argnames="divergence")
def outside_score(laws, inside, outside, divergence=simplex.kl):
    """How much nearer each law `[rows, columns, k]` is to the outside than to the inside: negative inside."""
    table = pairwise(divergence, laws.reshape(-1, laws.shape[-1]), jnp.stack([inside, outside]))
    return (table[:, 0] - table[:, 1]).reshape(laws.shape[:2])


def merging_cost(a, b, power=1.0):
    """The information lost when regions with counts `[k]` merge; a larger power lets small regions merge first."""
    n, m = a.sum(), b.sum()
    return (n + m) * simplex.js(a / n, b / m, weight=n / (n + m)) * (n * m / (n + m)) ** (power - 1)


@partial(jax.jit, static_argnames=("reach", "divergence"))
def edge_strength(laws, reach, divergence=simplex.js):
    """The largest divergence `[rows, columns]` between the laws so far to either side, in four directions."""
    wide = jnp.pad(laws, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    steps = np.round(reach * np.array([(1, 0, 0), (0, 1, 0), (0.7, 0.7, 0), (0.7, -0.7, 0)])).astype(int)
    at, compare = np.array([reach, reach, 0]), jax.vmap(jax.vmap(divergence))
    sides = [[jax.lax.dynamic_slice(wide, at + to, laws.shape) for to in (step, -step)] for step in steps]
    return jnp.max(jnp.stack([compare(*pair) for pair in sides]), axis=0)


# %% [markdown]
# ## Textures
#
# Scikit-image's photographs of bricks, grass and gravel fill the regions, with mean 0.5 and sd 0.15. Cells of 4 x 4
# pixels count three codes: the local binary pattern with the local variance, a coarser pattern, and the grey. Settings
# are chosen on upper halves of the photographs, results are of lower halves: mean ± sd over five seeds.

# %%
SEEDS, SIDE, CELL, BINS, PHOTOGRAPHS = range(5), 256, 4, 84, [data.brick(), data.grass(), data.gravel()]
# An image [256, columns], the region of each cell [rows, columns], and the counts of its codes [rows, columns, 84].
Scene = namedtuple("Scene", "image regions cells")


def texture(number, columns, half, random):
    """Grey levels `[256, columns]` from one half of a photograph: 0 is to choose settings on, 1 to report on."""
    first = random.integers(513 - columns)
    crop = PHOTOGRAPHS[number][half * SIDE : (half + 1) * SIDE, first : first + columns].astype(float)
    return 0.5 + 0.15 * (crop - crop.mean()) / crop.std()


def scene(image, regions):
    """Counts the codes of an image in cells."""
    grey = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    fine, coarse = (feature.local_binary_pattern(grey, *circle, "uniform") for circle in ((8, 1), (16, 3)))
    varied = np.nan_to_num(feature.local_binary_pattern(grey, 8, 2, "var"))
    level = np.digitize(varied, np.quantile(varied, [0.2, 0.4, 0.6, 0.8]))
    (rows, columns), (y, x) = (size // CELL for size in image.shape), np.indices(image.shape) // CELL
    codes = [BINS * (columns * y + x) + code for code in (5 * fine + level, 50 + coarse, 68 + grey // 16)]
    counts = np.bincount(np.ravel(codes).astype(int), minlength=rows * columns * BINS)
    return Scene(image, regions[2::CELL, 2::CELL], counts.reshape(rows, columns, BINS).astype(np.float32))


def around(cells, width):
    """Probabilities `[rows, columns, 84]` of the codes in windows so many cells wide."""
    return simplex.from_counts(uniform_filter(cells, (width, width, 1)))


DIVERGENCES = {
    "Jensen-Shannon": simplex.js,
    "squared Hellinger": simplex.squared_hellinger,
    "total variation": simplex.total_variation,
    "L2 of histograms": lambda p, q: jnp.sum((p - q) ** 2),
    "mean grey": lambda p, q: ((p - q)[68:] @ jnp.arange(16.0)) ** 2,  # the last 16 codes are levels of grey
}


def compare(methods, settings, score, validation, test):
    """Prints and returns by method the best setting for validation scenes, and with it the scores `[seed]` in %."""
    best, scores = {}, {}
    for name, method in tqdm(methods.items()):
        values = [np.mean([score(method, setting, scene) for scene in validation]) for setting in settings]
        best[name] = settings[int(np.argmax(values))]
        scores[name] = 100 * np.array([[score(method, best[name], scene) for scene in of] for of in test]).mean(axis=1)
        tqdm.write(f"{name:22s}{best[name]!s:>10s}{common.spread(scores[name]):>14s} %")
    return best, scores


# %% [markdown]
# ## A reference region <!-- S15r -->
#
# Scikit-image's horse is filled with one texture on another, for each of the six pairs. A square of 28 pixels on the
# horse and one of 40 in a corner are given; windows are 3, 5 or 7 cells wide. Overlap is intersection over union.

# %%
horse = transform.resize(~data.horse().astype(bool) * 1.0, (SIDE, 320), order=1) > 0.5
ON_HORSE, ON_GROUND = np.s_[22:29, 39:46], np.s_[:10, :10]


def horses(seed, half):
    draw = partial(texture, columns=320, half=half, random=np.random.default_rng(seed))
    return [scene(np.where(horse, draw(on), draw(off)), horse) for on, off in permutations(range(3), 2)]


def found_inside(divergence, width, scene):
    """Whether each cell is inside, by the smoothed score from the laws in the two squares, a hundredth uniform."""
    laws = around(scene.cells, width)
    inside, outside = (0.99 * laws[square].mean((0, 1)) + 0.01 / BINS for square in (ON_HORSE, ON_GROUND))
    return gaussian_filter(outside_score(laws, inside, outside, divergence), 1) < 0


def overlap(divergence, width, scene):
    found = found_inside(divergence, width, scene)
    return np.sum(found & scene.regions) / np.sum(found | scene.regions)


REFERENCES = {"KL": simplex.kl, "chi-squared": simplex.chi2} | DIVERGENCES
test_horses = [horses(seed, 1) for seed in SEEDS]
widths, reference = compare(REFERENCES, (3, 5, 7), overlap, horses(100, 0), test_horses)

# %% [markdown]
# ## Merging regions <!-- S15a -->
#
# Mosaics of 256 x 256 pixels have four regions. Of 256 blocks the cheapest neighbours merge until four are left,
# judged by the adjusted Rand index. Divergences are multiplied by a power, 1 to 4, of $1 / (1 / n_a + 1 / n_b)$.


# %%
def mosaics(seed, half, count):
    """Scenes with four regions, each what is nearest to one of four random points."""
    random, found = np.random.default_rng(seed), []
    while len(found) < count:
        points = random.uniform(0.15 * SIDE, 0.85 * SIDE, (4, 2, 1, 1))
        regions = np.sum((np.mgrid[:SIDE, :SIDE] - points) ** 2, axis=1).argmin(axis=0)
        kinds = random.integers(3, size=4)
        lost = segmentation.find_boundaries(regions) & ~segmentation.find_boundaries(kinds[regions])
        if np.bincount(regions.ravel(), minlength=4).min() > SIDE**2 / 8 and not lost.any():
            found.append(scene(np.choose(regions, [texture(kind, SIDE, half, random) for kind in kinds]), regions))
    return found


def sized(divergence):
    """The cost of a merger: the divergence, times a power of half the harmonic mean of the sizes."""
    return lambda a, b, power: divergence(a / a.sum(), b / b.sum()) / (1 / a.sum() + 1 / b.sum()) ** power


@partial(jax.jit, static_argnames="cost")
def merge(cost, power, cells):
    """The region `[64, 64]` of each cell, after the cheapest neighbours have merged until four are left."""
    index = jnp.arange(256)
    neighbours = sum(abs(i[:, None] - i) for i in jnp.divmod(index, 16)) == 1
    counts = cells.reshape(16, 4, 16, 4, BINS).sum(axis=(1, 3)).reshape(256, BINS)

    def step(state, _):
        counts, table, region = state
        i = jnp.argmin(jnp.min(table, axis=1))
        j = jnp.argmin(table[i])
        is_i, is_j, counts = index == i, index == j, counts.at[i].add(counts[j])
        near = jnp.isfinite(jnp.minimum(table[i], table[j])) & ~is_i & ~is_j
        row = jnp.where(near, jax.vmap(lambda b: cost(counts[i], b, power))(counts), jnp.inf)
        table = jnp.where(is_i, row[:, None], jnp.where(is_i[:, None], row, table))
        table = jnp.where(is_j | is_j[:, None], jnp.inf, table)
        return (counts, table, jnp.where(region == j, i, region)), None

    table = jnp.where(neighbours, pairwise(lambda a, b: cost(a, b, power), counts), jnp.inf)
    (_, _, region), _ = jax.lax.scan(step, (counts, table, index), length=252)
    return region.reshape(16, 16).repeat(4, axis=0).repeat(4, axis=1)


def rand(cost, power, scene):
    return adjusted_rand_score(scene.regions.ravel(), merge(cost, power, scene.cells).ravel())


COSTS = {name: sized(divergence) for name, divergence in DIVERGENCES.items()} | {"Jensen-Shannon": merging_cost}
test_mosaics = [mosaics(seed, 1, 3) for seed in SEEDS]
powers, merging = compare(COSTS, (1.0, 2.0, 3.0, 4.0), rand, mosaics(100, 0, 5), test_mosaics)
_, unweighted = compare({"JS, unweighted": merging_cost}, (0.0,), rand, mosaics(100, 0, 1), test_mosaics)

# %% [markdown]
# ## Edges <!-- S15b -->
#
# The same mosaics. An edge is a ridge above a quantile of the strength; window and quantile are chosen together. The
# measure is $F_1$, with a tolerance of one cell.


# %%
def f_score(method, setting, scene):
    """The F1 score of the ridges of a strength above a quantile."""
    smooth = gaussian_filter(np.asarray(method(scene, setting[0])), 0.5)
    ridge = (smooth >= maximum_filter(smooth, (1, 3))) | (smooth >= maximum_filter(smooth, (3, 1)))
    found = ridge & (smooth > np.quantile(smooth, setting[1]))
    truth = segmentation.find_boundaries(scene.regions, mode="inner")
    hits = [distance_transform_edt(~a)[b] <= 1 for a, b in ((truth, found), (found, truth))]
    return 2 / sum(1 / max(hit.sum() / max(hit.size, 1), 1e-9) for hit in hits)


EDGES = {
    name: lambda scene, width, d=divergence: edge_strength(around(scene.cells, width), width // 2 + 1, d)
    for name, divergence in DIVERGENCES.items()
} | {
    "Sobel": lambda scene, width: filters.sobel(gaussian_filter(scene.image, 0.15 * width))[2::CELL, 2::CELL],
    "Canny": lambda scene, width: 1.0 * feature.canny(scene.image, 0.6 * width)[2::CELL, 2::CELL],
}
SCALES = [(width, quantile) for width in (5, 9, 13) for quantile in (0.6, 0.7, 0.8, 0.85, 0.9, 0.95)]
scales, edges = compare(EDGES, SCALES, f_score, mosaics(100, 0, 5), test_mosaics)

# %%
figure, axes = plt.subplots(3, 4, figsize=(10, 8.3), layout="constrained", height_ratios=(0.8, 1, 1))
hidden, quilt = test_horses[0][3], test_mosaics[2][1]
STRENGTH = {"line": "white", "cmap": "cividis", "interpolation": "bicubic"}
TINTS = ListedColormap([common.ORANGE, common.SKY, common.GREEN, common.PURPLE])


def draw(axis, title, scene, cells=None, line=common.BLACK, **style):
    extent = (0, scene.image.shape[1], SIDE, 0)
    axis.imshow(scene.image, cmap="gray", extent=extent, vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[], title=title)
    if cells is not None:
        axis.imshow(cells, extent=extent, **style)
        axis.contour(scene.regions, (0.5, 1.5, 2.5), extent=(0, extent[1], 0, SIDE), colors=line, linewidths=1)


draw(axes[0, 0], "a horse of grass on gravel", hidden)
draw(axes[1, 0], "a mosaic", quilt)
draw(axes[2, 0], "Sobel", quilt, EDGES["Sobel"](quilt, scales["Sobel"][0]), **STRENGTH)
for column, (name, other) in enumerate((("L2 of histograms",) * 2, ("KL", "Jensen-Shannon")), 1):
    inside = found_inside(REFERENCES[name], widths[name], hidden)
    draw(axes[0, column], name, hidden, np.ma.array(inside, mask=inside), common.VERMILION, cmap="gray_r")
    regions = np.unique(merge(COSTS[other], powers[other], quilt.cells), return_inverse=True)[1]
    draw(axes[1, column], other, quilt, regions.reshape(64, 64), cmap=TINTS, alpha=0.6)
    draw(axes[2, column], other, quilt, EDGES[other](quilt, scales[other][0]), **STRENGTH)
units = "overlap with the horse, %", "Rand index of merged regions, %", "F1 of edges, %"
for axis, unit, results in zip(axes[:, 3], units, (reference, merging, edges), strict=True):
    for y, values in enumerate(results.values()):
        color = common.BLUE if y < list(results).index("L2 of histograms") else common.ORANGE
        axis.errorbar(np.mean(values), -y, xerr=np.std(values, ddof=1), fmt="o", capsize=3, color=color)
    axis.set_yticks(-np.arange(len(results)), list(results), fontsize=8)
    axis.set(xlabel=unit, xlim=(0, 100))
common.save_figure(figure, "image_segmentation.png")

# %% [markdown]
# ## What it does not do
#
# - It needs no particular divergence: Hellinger and total variation tie. L2 merges some mosaics better than they do.
# - It finds no thin parts, such as legs, and its edges are blurred. The mosaic shown is a usual one, 75 % against 53.
# - Jensen-Shannon without the sizes of the regions merges wrongly, and grass beside gravel leaves a weak edge.

# %%
assert common.ahead(reference, "KL", "L2 of histograms") > 6
assert common.ahead(merging, "Jensen-Shannon", "L2 of histograms") > 3
assert common.ahead(merging | unweighted, "Jensen-Shannon", "JS, unweighted") > 25
assert common.ahead(edges, "Jensen-Shannon", "L2 of histograms") > 6
assert min(common.ahead(edges, "Jensen-Shannon", name) for name in ("mean grey", "Sobel", "Canny")) > 25
for results, name in ((reference, "KL"), (merging, "Jensen-Shannon"), (edges, "Jensen-Shannon")):
    assert all(abs(common.ahead(results, name, other)) < 12 for other in ("squared Hellinger", "total variation"))
print("All claims hold.")

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
# # Metric learning: neighbours of the same class by KL <!-- S10 -->
#
# Nearest neighbours are as good as the distance that finds them, and a distance over all features hears the useless
# ones too. Can a divergence learn one from labels?
#
# **Answer.** Yes: with ten useless features beside those of iris 96.8 ± 2.2 % are right in place of 77.4 ± 6.1 by
# Euclidean distance, and with 40 beside the pixels of digits 88.7 ± 2.4 in place of 68.0 ± 2.8; linear discriminant
# analysis ties.
#
# A distance $d_{ij} = \lVert W x_i - W x_j \rVert^2$ gives each point $i$ a distribution over the others as neighbours.
# Maximally collapsing metric learning (MCML, Globerson and Roweis 2005) asks that it be uniform over its own class:
#
# $$\min_W \sum_i \mathrm{KL}(u_i \,\|\, p_i), \qquad p_i(j) \propto e^{-d_{ij}}, \quad j \ne i.$$

# %%
import functools

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from common import spread
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from jaxdiv import gaussian, losses, simplex

# %% [markdown]
# ## The lines to paste


# %%
def neighbour_logits(weight, points):
    """Logits `[n, n]` of each point's distribution over its neighbours: minus the squared distances."""
    mapped = points @ weight.T
    return -common.squared_distances(mapped, mapped)


def collapse(weight, points, labels, loss=losses.forward_kl_with_probs):
    """How far the distributions over neighbours are from uniform ones over the point's own class, without itself."""
    others = ~jnp.eye(len(points), dtype=bool)
    ideal = simplex.from_counts(((labels[:, None] == labels) & others).astype(points.dtype))
    return jnp.mean(loss(neighbour_logits(weight, points), ideal, where=others))


# %% [markdown]
# ## Data, and what is compared
#
# Five sets of scikit-learn, of which three have useless features of normal noise beside their own; *wine, raw units*
# has features of very different size instead, *tumours* nothing of either. 75 to 200 points are learned from; one half
# of the rest chooses each method's setting among four, the other half counts. A point gets the class of most of its
# five nearest neighbours; their precision, how many are of its class, is what a search would return.
#
# - *Euclid*: no learning; the number of neighbours is tuned.
# - *LDA*: the directions of linear discriminant analysis; its shrinkage is tuned.
# - *NCA* (Goldberger et al. 2005): the log-probability that the neighbour is of the class.
# - *MCML, squared, JS*: that the neighbours are uniform over the class, by KL, squared error or Jensen-Shannon.
# - *margins*: pairs of a class nearer than 1, others farther than 2.
# - *margins, LogDet*: as ITML (Davis et al. 2007) the metric $W'W$ is held near the identity by its LogDet divergence,
#   which is $2\,\mathrm{KL}(N(0, W'W) \,\|\, N(0, 1))$.
#
# All but Euclid and LDA start from a multiple of the identity and take 200 steps of Adam on all pairs; the weight of
# $\lVert W \rVert^2$ is tuned, or that of LogDet.

# %%
SEEDS, STEPS, PENALTIES = range(5), 200, (0.0, 1e-3, 1e-2, 1e-1)


def prepared(load, train, *, useless=0, size=1.0, standardised=True):
    """Points and labels to train, validate and test on, `[seed, ...]`, with so many useless features of a size."""
    features, labels = load(return_X_y=True)
    seeds = []
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        order = random.permutation(len(labels))[:1000]
        x = features[order] - features[order[:train]].mean(axis=0)
        x /= x[:train].std(axis=0) + 1e-6 if standardised else x[:train].std()
        x = np.concatenate([x, size * random.normal(size=(len(x), useless))], axis=1)
        cuts = [train, (train + len(x)) // 2]
        seeds.append(list(zip(np.split(x.astype(np.float32), cuts), np.split(labels[order], cuts), strict=True)))
    return jax.tree.map(lambda *arrays: np.stack(arrays), *seeds)


DATA = {
    "iris + 10 useless": prepared(load_iris, 75, useless=10),
    "wine + 10 useless": prepared(load_wine, 75, useless=10),
    "wine, raw units": prepared(load_wine, 75, standardised=False),
    "tumours": prepared(load_breast_cancer, 150),
    "digits + 40 useless": prepared(load_digits, 200, useless=40, size=2.0, standardised=False),
}


def own_class(labels):
    """Which pairs `[n, n]` are two points of one class."""
    return (labels[:, None] == labels) & ~jnp.eye(len(labels), dtype=bool)


def nca(weight, points, labels):
    """Minus the log-probability of the class."""
    log_p = jax.nn.log_softmax(neighbour_logits(weight, points), where=~jnp.eye(len(points), dtype=bool))
    return -jnp.mean(jax.nn.logsumexp(log_p, axis=1, where=own_class(labels)))


def squared(logits, ideal, *, where):
    """Squared error of the distributions."""
    return jnp.sum((jax.nn.softmax(logits, where=where) - ideal) ** 2, axis=-1)


def margins(weight, points, labels):
    """Mean of what pairs of a class are too far, and of what others are too near."""
    distances, own = -neighbour_logits(weight, points) / points.shape[1], own_class(labels)
    near, far = jax.nn.relu(distances - 1), jax.nn.relu(2 - distances)
    return jnp.mean(near, where=own) + jnp.mean(far, where=labels[:, None] != labels)


def squares(weight):
    """The squared entries of W."""
    return jnp.sum(weight**2)


def log_det(weight):
    """The LogDet divergence of the metric from the identity, a little more than singular."""
    loc = jnp.zeros(len(weight))
    law = gaussian.CovarianceNormal(loc, weight.T @ weight + 1e-3 * jnp.eye(len(weight)))
    return 2 * gaussian.kl(law, gaussian.standard(law))


LEARNED = {
    "NCA": (nca, squares),
    "MCML": (collapse, squares),
    "squared": (functools.partial(collapse, loss=squared), squares),
    "JS": (functools.partial(collapse, loss=losses.with_probs(losses.js)), squares),
    "margins": (margins, squares),
    "margins, LogDet": (margins, log_det),
}


@jax.jit
def learn(method, points, labels):
    """Maps W `[penalty, seed, d, d]` of a method, by its number: one program for all."""
    optimizer = optax.adam(0.02)
    methods = [lambda *data, f=f, g=g: (f(*data), g(data[0])) for f, g in LEARNED.values()]

    def run(penalty, points, labels):
        def loss(weight):
            value, pull = jax.lax.switch(method, methods, weight, points, labels)
            return value + penalty * pull

        def step(carry, _):
            weight, state = carry
            updates, state = optimizer.update(jax.grad(loss)(weight), state)
            return (weight + updates, state), None

        weight = jnp.eye(points.shape[1]) / jnp.sqrt(points.shape[1])
        return jax.lax.scan(step, (weight, optimizer.init(weight)), length=STEPS)[0][0]

    def each_seed(penalty):
        return jax.lax.map(lambda data: run(penalty, *data), (points, labels))

    return jax.lax.map(each_seed, jnp.array(PENALTIES))


def judged(weight, train, queries, k=5):
    """Accuracy of the vote of k neighbours, and their precision, in %."""
    (points, labels), (asked, own) = train, queries
    distances = np.asarray(common.squared_distances(asked @ weight.T, points @ weight.T))
    near = labels[np.argsort(distances, axis=1)[:, :k]]
    votes = np.stack([np.sum(near == label, axis=1) for label in range(labels.max() + 1)])
    return 100 * np.mean(np.argmax(votes, axis=0) == own), 100 * np.mean(near == own[:, None])


def lda(shrinkage, points, labels):
    """The directions of linear discriminant analysis."""
    found = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage).fit(points, labels)
    return found.scalings_[:, : labels.max()].T


def maps(name, points, labels):
    """For each setting and seed the map W, and the number of neighbours."""
    if name == "Euclid":
        return [[(np.eye(points.shape[2]), k)] * len(SEEDS) for k in (1, 3, 5, 9)]
    if name == "LDA":
        return [[(lda(s, *data), 5) for data in zip(points, labels, strict=True)] for s in (0.001, 0.01, 0.1, 0.5)]
    learned = learn(list(LEARNED).index(name), points, labels)
    return [[(weight, 5) for weight in seeds] for seeds in np.asarray(learned)]


METHODS = ("Euclid", "LDA", *LEARNED)
accuracy, precision, unpenalised = ({name: {} for name in DATA} for _ in range(3))
for data, (train, *halves) in DATA.items():
    print(f"{data:22s}{'accuracy, %':>14s}{'precision, %':>14s}{'accuracy, no penalty':>22s}")
    for name in METHODS:
        found = maps(name, *train)
        scores = np.array([[[judged(weight, [x[seed] for x in train], [x[seed] for x in half], k)
            for seed, (weight, k) in enumerate(seeds)] for seeds in found] for half in halves])  # fmt: skip
        best = np.argmax(scores[0, ..., 0].mean(axis=1))
        accuracy[data][name], precision[data][name] = scores[1, best].T
        line = f"  {name:20s}{spread(accuracy[data][name]):>14s}{spread(precision[data][name]):>14s}"
        if name in LEARNED:
            unpenalised[data][name] = scores[1, 0, :, 0]
            line += f"{spread(unpenalised[data][name]):>22s}"
        print(line, flush=True)

# %% [markdown]
# ## NCA is a KL divergence too
#
# Of all distributions $q_i$ over the class, the nearest is $p_i$ itself given the class, and it has
# $\mathrm{KL}(q_i \,\|\, p_i) = -\log p_i(\text{class})$. So NCA asks for some neighbours of the class, whichever are
# near, and MCML for all of them.

# %%
points, labels = (jnp.asarray(x[0]) for x in DATA["iris + 10 useless"][0])
weight = 0.3 * jnp.eye(points.shape[1])
logits, own = neighbour_logits(weight, points), own_class(labels)
projected = jax.nn.softmax(logits, where=own)
kl = losses.forward_kl_with_probs(logits, projected, where=~jnp.eye(len(points), dtype=bool)).mean()
print(
    f"NCA {nca(weight, points, labels):.6f}   KL of the nearest {kl:.6f}   MCML {collapse(weight, points, labels):.6f}"
)

# %%
figure, panels = plt.subplots(1, len(DATA), figsize=(9, 3.4), layout="constrained", sharey=True)
for panel, (data, rows) in zip(panels, accuracy.items(), strict=True):
    for row, values in enumerate(rows.values()):
        color = common.BLUE if METHODS[row] in ("MCML", "JS", "margins, LogDet") else common.ORANGE
        panel.errorbar(values.mean(), -row, xerr=values.std(ddof=1), fmt="o", color=color, capsize=3)
    panel.set_title(data.replace(" +", "\n+").replace(", ", ",\n"), size="medium")
    panel.grid(axis="x", alpha=0.3)
panels[0].set_yticks(-np.arange(len(METHODS)), METHODS)
figure.supxlabel("accuracy of nearest neighbours, % (mean ± sd, 5 seeds); blue: by a divergence", size="medium")
common.save_figure(figure, "metric_learning.png")
plt.show()

# %% [markdown]
# ## When not to use it
#
# - In place of linear discriminant analysis, unless you go on from there: it ties on all five sets, in closed form.
#   What MCML has is a loss, which goes on top of any network.
# - For its KL alone: Jensen-Shannon ties, and so does squared error on the four small sets. On the digits KL is 4
#   points ahead of squared error, and 31 where neither has a penalty.
# - Over a well-tuned NCA: 2 to 4 points on three sets, within their deviations. Without a penalty MCML is 15 points
#   ahead on iris, so that it asks for less tuning.
# - On features that are good already: on tumours all methods are within about a point of Euclid.
# - For LogDet: it ties with the squares of W as what holds the margins back. Margins with a fixed scale fail in raw
#   units with either.
# - For many points as it stands: the table of all pairs grows with their square. Take batches.
#
# The claims, with margins that allow for other processors and versions of JAX:

# %%
for data, least in (("iris + 10 useless", 10), ("wine, raw units", 15), ("digits + 40 useless", 10)):
    print(data)
    assert common.ahead(accuracy[data], "MCML", "Euclid") > least
print("iris + 10 useless, no penalty")
assert common.ahead(unpenalised["iris + 10 useless"], "MCML", "NCA") > 5
for data in DATA:
    print(data)
    assert common.ahead(accuracy[data], "MCML", "squared") > -4
    assert abs(common.ahead(accuracy[data], "MCML", "JS")) < 4
    assert abs(common.ahead(accuracy[data], "MCML", "LDA")) < 5
    common.ahead(accuracy[data], "MCML", "NCA")
    common.ahead(accuracy[data], "margins, LogDet", "margins")
assert np.mean(accuracy["digits + 40 useless"]["MCML"] - accuracy["digits + 40 useless"]["squared"]) > 0.5
assert abs(np.mean(accuracy["tumours"]["MCML"] - accuracy["tumours"]["Euclid"])) < 3
assert abs(kl - nca(weight, points, labels)) < 1e-5
print("All claims hold.")

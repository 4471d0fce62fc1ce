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
# # Cross-lingual alignment: the letters of one language found in another, without a dictionary <!-- S08c -->
#
# A text is in an unknown alphabet, and its language is related to one that is known. Can its letters be found from the
# frequencies of pairs of letters alone, and by which divergence?
#
# **Answer.** They can, where the languages are near: between four pairs every divergence finds all letters and L2
# nearly all. Over twelve pairs total variation finds 94.5 ± 0.2 % of the letters of a text, Jensen-Shannon 93.4 ± 1.8,
# KL 90.9 ± 0.4, L2 87.3 ± 0.9, and the order of frequencies alone 35.1 ± 2.1.
#
# Let $a_{ij}$ be the frequencies of pairs of letters in the known language and $b_{ij}$ those in the text. The letters
# are found by the permutation
#
# $$\pi^* = \arg\min_\pi \, D(b, a^\pi), \qquad a^\pi_{ij} = a_{\pi(i) \pi(j)}.$$

# %%
from functools import partial

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import spread
from tqdm import tqdm

from jaxdiv import simplex

# %% [markdown]
# ## The lines to paste
#
# The search swaps the two letters that lower the divergence most, until no swap does; Jakobsen (1995) deciphers so, by
# the sum of absolute differences. The space between words, number 26, is known.

# %%
FIRST, SECOND = np.triu_indices(26, 1)


def improve(cost, key):
    """The permutation `[27]` and its cost after the best swap of two letters, again and again until none is left."""

    def swapped(key, i, j):
        return key.at[i].set(key[j]).at[j].set(key[i])

    def step(state):
        key, least, _ = state
        keys = jax.vmap(partial(swapped, key))(FIRST, SECOND)
        costs = jax.vmap(cost)(keys)
        best = jnp.argmin(costs)
        better = costs[best] < least
        return jnp.where(better, keys[best], key), jnp.minimum(costs[best], least), better

    return jax.lax.while_loop(lambda state: state[2], step, (key, cost(key), True))[:2]


@partial(jax.jit, static_argnames="divergence")
def decipher(counts, known, starts, *, divergence=simplex.total_variation):
    """The letters `[27]` of the known language for those of the text, and their divergence, the best of all starts."""
    text = simplex.from_counts(jnp.ravel(counts))
    keys, costs = jax.lax.map(partial(improve, lambda key: divergence(text, jnp.ravel(known[key][:, key]))), starts)
    return keys[jnp.argmin(costs)], jnp.min(costs)


# %% [markdown]
# ## Texts
#
# The frequencies of pairs of letters in running text are known, without accents. A text is 10,000 pairs drawn from its
# language's, with the letters renamed at random, for each of five seeds. Three pairs of languages choose the
# pseudo-count of each method among four, per million pairs of the known language. Twelve others report.

# %%
SEEDS, LENGTH, STARTS = range(5), 10_000, 4
CHOOSE = ("sv-da", "pl-cs", "it-ca")
REPORT = {
    "da-nb": "Danish, Norwegian",
    "cs-sk": "Czech, Slovak",
    "id-ms": "Indonesian, Malay",
    "sh-sl": "Serbo-Croatian, Slovene",
    "es-ca": "Spanish, Catalan",
    "fr-ca": "French, Catalan",
    "es-pt": "Spanish, Portuguese",
    "sl-cs": "Slovene, Czech",
    "it-es": "Italian, Spanish",
    "sv-nb": "Swedish, Norwegian",
    "nl-de": "Dutch, German",
    "lt-lv": "Lithuanian, Latvian",
}
data = np.load(common.DATA / "languages.npz")
frequent = dict(zip(map(str, data["codes"]), data["frequent"].astype(np.float64), strict=True))


def by_frequency(known, text):
    """The permutation that gives the n-th most frequent letter of the text the n-th most frequent known one."""
    key = np.full(27, 26)
    key[np.argsort(-text[:26])] = np.argsort(-known[:26])
    return key


def riddle(languages, seed):
    """Counts of the pairs of a text `[27, 27]`, the letters that they are, and where to start `[start, 27]`."""
    random = np.random.default_rng(seed)
    known, law = (frequent[code] for code in languages.split("-"))
    counts = random.multinomial(LENGTH, law.ravel() / law.sum()).reshape(27, 27)
    truth = np.append(random.permutation(26), 26)
    counts = counts[truth][:, truth]
    common_first = np.log1p(known.sum(axis=1)), np.log1p(counts.sum(axis=1))
    noise = 0.5 * random.normal(size=(STARTS, 27)) * (np.arange(STARTS) > 0)[:, None]
    return counts, truth, np.array([by_frequency(common_first[0] + some, common_first[1]) for some in noise])


def percent_right(key, counts, truth):
    """Letters of the text that are found, in %."""
    return 100 * np.average((np.asarray(key) == truth)[:26], weights=counts.sum(axis=1)[:26])


# %% [markdown]
# ## Divergences
#
# All have the same search, from the letters in the order of their frequencies and from three such orders with noise.
# The order of frequencies itself is the control without a search.


# %%
def squared_error(p, q):
    return jnp.sum((p - q) ** 2)


DIVERGENCES = {
    "Jensen-Shannon": simplex.js,
    "Hellinger": simplex.squared_hellinger,
    "KL": simplex.kl,
    "total variation": simplex.total_variation,
    "L2": squared_error,
}
PSEUDO_COUNTS = (1.0, 10.0, 100.0, 1000.0)


def solve(languages, seed, pseudo_count, divergence):
    """Letters found in %, and by how many % their divergence is below that of the right letters."""
    counts, truth, starts = riddle(languages, seed)
    known = simplex.from_counts(frequent[languages[:2]].ravel(), pseudo_count=pseudo_count).reshape(27, 27)
    key, cost = decipher(counts, known, starts, divergence=divergence)
    right = divergence(simplex.from_counts(counts.ravel()), known[truth][:, truth].ravel())
    return percent_right(key, counts, truth), 100 * float(1 - cost / right)


found, below = {languages: {} for languages in REPORT}, {languages: {} for languages in REPORT}
for name, divergence in tqdm(DIVERGENCES.items()):
    tuned = [
        np.mean([solve(languages, 100 + seed, number, divergence)[0] for languages in CHOOSE for seed in range(3)])
        for number in PSEUDO_COUNTS
    ]
    pseudo_count = PSEUDO_COUNTS[int(np.argmax(tuned))]
    for languages in REPORT:
        scores = np.array([solve(languages, seed, pseudo_count, divergence) for seed in SEEDS])
        found[languages][name], below[languages][name] = scores.T
    mean = np.mean([rows[name] for rows in found.values()], axis=0)
    tqdm.write(f"{name:18s} pseudo-count {pseudo_count:4g}, letters found {spread(mean)} %")
for languages, rows in found.items():
    riddles = (riddle(languages, seed) for seed in SEEDS)
    rows["frequencies"] = np.array([percent_right(starts[0], *rest) for *rest, starts in riddles])

# %%
print(f"letters found in %, mean ± sd over the seeds\n{'':24s}" + "".join(f"{name:>16s}" for name in found["da-nb"]))
for languages, rows in found.items():
    print(f"{REPORT[languages]:24s}" + "".join(f"{spread(values):>16s}" for values in rows.values()))
means = {name: np.mean([rows[name] for rows in found.values()], axis=0) for name in found["da-nb"]}
print(f"{'mean':24s}" + "".join(f"{spread(values):>16s}" for values in means.values()))

# %% [markdown]
# Is it the search that fails, or the divergence? By how many % the divergence of the letters that were found is below
# that of the right ones:

# %%
print(f"{'':24s}" + "".join(f"{name:>16s}" for name in DIVERGENCES))
for languages, rows in below.items():
    print(f"{REPORT[languages]:24s}" + "".join(f"{spread(values):>16s}" for values in rows.values()))

# %%
SHOWN = ("total variation", "Jensen-Shannon", "KL", "L2")
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 6), layout="constrained", sharey=True)
for axis, table in ((left, found), (right, below)):
    common.dot_plot(axis, {names: table[languages] for languages, names in REPORT.items()}, SHOWN)
means_by_frequency = [np.mean(rows["frequencies"]) for rows in found.values()]
left.plot(
    means_by_frequency, -np.arange(len(REPORT)), "|", color=common.BLACK, markersize=14, label="frequencies alone"
)
left.legend(loc="upper center", bbox_to_anchor=(0.4, -0.11), ncols=3, frameon=False, fontsize="small")
right.get_legend().remove()
left.set_xlabel("letters of the text found, % (mean ± sd, 5 seeds)")
left.set_title("Letters found without a dictionary")
right.set_xlabel("divergence below that of the right letters, %")
right.set_title("Wrong letters may fit better than right ones")
common.save_figure(figure, "cross_lingual.png")
plt.show()

# %% [markdown]
# ## What it does not do
#
# - Which divergence is taken matters for two pairs of languages in twelve. From Italian to Spanish total variation
#   finds nearly all letters and KL about 60 %. A likely cause is that KL weighs pairs of letters most that the known
#   language hardly has. It is the choice for a text in the known language itself, where it is the likelihood.
# - Better searches would not find many more letters. Where some are missed, the wrong letters mostly have a lower
#   divergence than the right ones, by up to 15 %, and L2 by 42 %. Of KL from Dutch and of L2 some searches did fail.
# - The seeds differ in their texts and starts. Their deviations say nothing of other pairs of languages, which differ
#   more than the divergences do.
# - The space between words is known here, and one letter stands for one letter. Alphabets of different sizes need a
#   matrix in place of the permutation.

# %%
NEAR = ("da-nb", "cs-sk", "id-ms", "sh-sl")
for name in ("KL", "Jensen-Shannon", "Hellinger", "total variation"):
    assert np.mean([found[languages][name] for languages in NEAR]) > 99
    assert common.ahead(means, name, "L2") > 1
    assert common.ahead(means, name, "frequencies") > 45
assert -8 < common.ahead(means, "KL", "total variation") < 0
assert abs(common.ahead(means, "Jensen-Shannon", "total variation")) < 4
for name in ("KL", "total variation"):
    assert np.mean(below["es-pt"][name]) > 1
print("All claims hold.")

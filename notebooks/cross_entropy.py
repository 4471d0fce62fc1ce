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
# # Cross-entropy: the bits of a code, and the likelihood of labels
#
# Classifiers are trained by cross-entropy, and data are compressed to it. What has it to do with KL divergence and with
# maximum likelihood?
#
# **Answer.** An arithmetic coder that believes in the wrong letter frequencies spends KL more bits on a letter than the
# entropy, counted to 0.0011 bits; and as the entropy of data is fixed, least cross-entropy, least KL and most
# likelihood have the same gradients, to $10^{-16}$, and the same parameters, to $2 \cdot 10^{-15}$.
#
# $$\underbrace{-\sum_i p_i \log q_i}_{\text{cross-entropy}} = \underbrace{-\sum_i p_i \log p_i}_{\text{entropy of } p}
# + \mathrm{KL}(p \,\|\, q)$$

# %%
import functools
import inspect
from pydoc_data.topics import topics

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from tqdm import tqdm

from jaxdiv import categorical, losses, simplex

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## The lines to paste


# %%
def extra_bits(p, q):
    """Bits per symbol that a code for the frequencies `q` costs above the best one, on text with frequencies `p`."""
    return simplex.kl(p, q) / jnp.log(2)


def training_loss(weights, features, target_probs):
    """The loss of a linear classifier: its gradient is that of cross-entropy, and its least value is 0."""
    return jnp.mean(losses.forward_kl_with_probs(features @ weights, target_probs))


# %% [markdown]
# ## Extra length of a code <!-- E12 -->
#
# An arithmetic coder that believes in $q$ spends $-\log_2 q_i$ bits on the letter $i$. The text is the start of
# Python's own manual; the beliefs are letter frequencies of other things. The coder below counts the bits it emits.

# %%
ALPHABET = 26
WORD = 32  # bits of the coder's interval


def letters(text):
    """Positions in the alphabet of the letters of a text."""
    codes = np.frombuffer(text.lower().encode("ascii", "ignore"), np.uint8).astype(int) - ord("a")
    return codes[(codes >= 0) & (codes < ALPHABET)]


def frequencies(text):
    """Probabilities `[26]`, none of them zero."""
    return np.asarray(simplex.from_counts(np.bincount(letters(text), minlength=ALPHABET), pseudo_count=0.5))


def coded_bits(symbols, probabilities):
    """How many bits an arithmetic coder emits for the symbols (Witten, Neal & Cleary 1987)."""
    counts = np.maximum(1, np.round(probabilities * 2**16)).astype(int)
    below = [0, *np.cumsum(counts).tolist()]
    quarter, half, low, high, pending, bits = 1 << WORD - 2, 1 << WORD - 1, 0, (1 << WORD) - 1, 0, 0
    for symbol in symbols.tolist():
        width = high - low + 1
        low, high = low + width * below[symbol] // below[-1], low + width * below[symbol + 1] // below[-1] - 1
        while high < half or low >= half or (low >= quarter and high < 3 * quarter):
            if high < half or low >= half:
                bits, pending = bits + 1 + pending, 0
                offset = half if low >= half else 0
            else:  # the interval straddles the middle: the next bit decides this one too
                pending, offset = pending + 1, quarter
            low, high = 2 * (low - offset), 2 * (high - offset) + 1
    return bits + pending + 2


manual = "".join(topics[name] for name in sorted(topics))
text = letters(manual)[:30_000]
true = np.asarray(simplex.from_counts(np.bincount(text, minlength=ALPHABET)))
entropy = float(simplex.entropy(true)) / np.log(2)
descriptions = "".join(load().DESCR for load in (load_breast_cancer, load_diabetes, load_iris, load_wine))
BELIEFS = {
    "its own frequencies": true,
    "descriptions of data": frequencies(descriptions),
    "Python source code": frequencies(inspect.getsource(inspect)),
    "all letters alike": np.full(ALPHABET, 1 / ALPHABET),
    "the next letter (Caesar)": np.roll(true, 1) * (1 - 1e-3) + 1e-3 / ALPHABET,
}
expected = {name: float(extra_bits(true, belief)) for name, belief in BELIEFS.items()}
measured = {name: coded_bits(text, q) / len(text) - entropy for name, q in tqdm(BELIEFS.items(), desc="coding")}
worst_coding = max(abs(expected[name] - measured[name]) for name in BELIEFS)

print(f"{len(text)} letters of entropy {entropy:.4f} bits; extra bits per letter")
print(f"{'code made for':26s}{'KL':>10s}{'measured':>10s}")
for name in BELIEFS:
    print(f"{name:26s}{expected[name]:10.4f}{measured[name]:10.4f}")
print(f"The largest difference is {worst_coding:.4f} bits.")

# %% [markdown]
# ## Maximum likelihood <!-- E13 -->
#
# The log-likelihood of data is $-n$ times the cross-entropy, with $p$ the observed frequencies. The entropy of $p$ is a
# constant that no parameter changes. Gradients are compared for a linear classifier of scikit-learn's breast cancer
# data, with hard labels and with random soft ones; parameters for a bell curve fitted to the average grey levels of
# digits.

# %%
random = np.random.default_rng(0)
features, labels = load_breast_cancer(return_X_y=True)
features = (features - features.mean(axis=0)) / features.std(axis=0)
weights = 0.1 * random.standard_normal((features.shape[1], 2))
one_hot, soft = np.eye(2)[labels], random.dirichlet(np.ones(2), len(labels))


def log_likelihood(weights):
    """Of the labels, averaged."""
    return jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(features @ weights), labels[:, None], axis=-1))


def cross_entropy(weights):
    """Of the soft labels, averaged."""
    return jnp.mean(losses.cross_entropy_with_probs(features @ weights, soft))


def apart(ours, theirs):
    """The largest difference."""
    return float(np.max(np.abs(ours - theirs)))


slope = jax.grad(training_loss)
hard_gap = apart(slope(weights, features, one_hot), -jax.grad(log_likelihood)(weights))
soft_gap = apart(slope(weights, features, soft), jax.grad(cross_entropy)(weights))
soft_entropy = jnp.mean(jax.vmap(simplex.entropy)(soft))
offset = apart(cross_entropy(weights) - training_loss(weights, features, soft), soft_entropy)

averages = np.round(load_digits().data.mean(axis=-1)).astype(int)  # of the grey levels of each digit
observed = np.asarray(simplex.from_counts(np.bincount(averages, minlength=17)))


def bell(params):
    """Logits of 17 grey levels with the shape of a normal density of mean and log-scale `params`."""
    return -0.5 * ((jnp.arange(17) - params[0]) / jnp.exp(params[1])) ** 2


def fit_by_kl(params):
    return categorical.kl(jnp.log(observed), bell(params))


def fit_by_likelihood(params):
    return -jnp.mean(jax.nn.log_softmax(bell(params))[averages])


@functools.partial(jax.jit, static_argnames="loss")
def descend(loss, start, steps=2000):
    """The parameters that minimise `loss(params)`, by Adam."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, steps))

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (start, optimizer.init(start)), length=steps)[0][0]


by_kl, by_likelihood = (descend(loss, jnp.array([8.0, 1.0])) for loss in (fit_by_kl, fit_by_likelihood))
parameter_gap = apart(by_kl, by_likelihood)

print(f"gradients, labels: KL and likelihood differ by {hard_gap:.0e}")
print(f"gradients, soft targets: KL and cross-entropy differ by {soft_gap:.0e}, values by the entropy to {offset:.0e}")
print(f"fitted parameters {by_kl[0]:.4f}, {by_kl[1]:.4f}: KL and likelihood differ by {parameter_gap:.0e}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", width_ratios=(1.2, 1))
rows = -np.arange(len(BELIEFS))
left.barh(rows, [entropy] * len(BELIEFS), color="0.8", label="entropy of the text")
left.barh(rows, list(expected.values()), left=entropy, color=common.ORANGE, label="KL")
left.plot([entropy + bits for bits in measured.values()], rows, "|", color=common.BLACK, markersize=20, label="counted")
left.set_yticks(rows, list(BELIEFS))
left.set(xlabel="bits per letter", xlim=(0, 9.4), title="A coder spends the entropy plus KL")
left.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.95), labelspacing=1)

scales = np.linspace(-1.2, 0.6, 200)
line = jax.vmap(
    lambda scale: (fit_by_kl(jnp.array([by_kl[0], scale])), fit_by_likelihood(jnp.array([by_kl[0], scale])))
)
kl_line, likelihood_line = line(scales)
right.plot(np.exp(scales), likelihood_line, color=common.BLUE, label="cross-entropy = -log-likelihood / n")
right.plot(np.exp(scales), kl_line, "--", color=common.ORANGE, label="KL")
right.axvline(np.exp(by_kl[1]), ymax=0.6, color=common.BLACK, linestyle=":")
right.set(xlabel="deviation of the fitted law (grey levels)", ylabel="loss in nats", ylim=(0, 2.9))
right.set_title("KL and cross-entropy are parallel,\nand least at the same place")
right.legend(frameon=False, loc="upper right")
common.save_figure(figure, "cross_entropy.png")

# %% [markdown]
# ## When not to use it
#
# - For gradients it does not matter which of the two you take. KL is 0 at its least, so that it shows how far there is
#   to go; cross-entropy with integer labels (`losses.cross_entropy_with_labels`) needs no one-hot array.
# - Where the targets themselves are learned, as in mutual learning, their entropy is no constant, and the two differ.
# - Where labels are wrong, the likelihood fits them too: see `noisy_labels`.
#
# The claims:

# %%
assert worst_coding < 2e-3
assert max(hard_gap, soft_gap, offset, parameter_gap) < 1e-10
print("All claims hold.")

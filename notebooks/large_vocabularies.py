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
# # Large vocabularies: losses without the logits, and what 16 words tell of all
#
# A student of a language model compares its law over the whole vocabulary with a teacher's, for every token of a batch.
# How much memory does the loss take if its logits are never all there, and what does it know of the divergence if only
# 16 words of the teacher are known?
#
# The memory is the same for any batch: 3.1 MiB for value and gradients of 8192 tokens and 2048 words, where the usual
# way takes 327 MiB, and both agree to rounding. Sixteen words enclose the divergence: 0.54 ≤ 1.35 ≤ 3.23 nats.
#
# With hidden states $H$ `[n, h]` and a head $W$ `[h, v]`, the loss of $n$ tokens is
#
# $$\frac1n \sum_i \ell\bigl(H_i W + b, \; \text{target}_i\bigr) .$$
#
# `fused` multiplies a block of tokens by the head, within a budget of memory, applies any loss of logits, and forms the
# gradients in the same pass.

# %%
import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import spread
from data import manual
from data.manual import WORDS
from tqdm import tqdm

from jaxdiv import fused, losses, objectives, simplex, topk

# %% [markdown]
# ## The lines to paste
#
# The loss here is that of `token_distillation`: KL from a teacher of whom 16 words are known, and the label.

# %%
MEMORY = 2**20  # bytes for the logits of a block of tokens
LOSS = objectives.hard_and_soft(topk.lift(losses.forward_kl, tail="uniform"), weight=0.8)


def distillation(hidden, head, bias, top, labels):
    """The mean loss, from hidden states `[n, h]`, a head `[h, v]`, a teacher's `TopK` `[n, k]` and labels `[n]`."""
    return fused.mean_linear_divergence(hidden, head, top, LOSS, labels, bias=bias, memory=MEMORY)


# %% [markdown]
# ## Memory
#
# What XLA sets aside for value and gradients, beyond arguments and results, for batches of 128 and more tokens. The
# control is the same loss of logits that are all there. Nothing is run for this.

# %%
UNITS, K = 32, 16


def unfused(hidden, head, bias, top, labels):
    return jnp.mean(LOSS(hidden @ head + bias, top, labels))


def step_of(loss):
    """Value, and gradients of the student's arrays."""
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))


def arguments(tokens, array):
    """A batch, of arrays that are made by `array(shape, dtype)`."""
    top = topk.TopK(array((tokens, K), np.float16), array((tokens, K), np.uint16))
    student = array((tokens, UNITS), np.float32), array((UNITS, WORDS), np.float32), array((WORDS,), np.float32)
    return *student, top, array((tokens,), np.int32)


def temporaries(loss, tokens):
    """In MiB."""
    compiled = step_of(loss).lower(*arguments(tokens, jax.ShapeDtypeStruct)).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


BATCHES = (128, 1024, 8192)
LOSSES = {"fused": distillation, "unfused": unfused}
memory = {
    name: [temporaries(loss, tokens) for tokens in BATCHES] for name, loss in tqdm(LOSSES.items(), desc="compiling")
}
print(f"{'tokens':10s}" + "".join(f"{tokens:>12d}" for tokens in BATCHES))
for name, sizes in memory.items():
    print(f"{name:10s}" + "".join(f"{size:>8.1f} MiB" for size in sizes))

# %% [markdown]
# ## The same numbers
#
# Values and gradients of both, for five random batches of 1000 tokens.


# %%
def batch(seed):
    """Hidden states, head and bias of a student, a teacher's likeliest words, and labels."""
    keys = jax.random.split(jax.random.key(seed), 5)
    hidden, head, bias, teacher_logits = (
        jax.random.normal(key, shape)
        for key, shape in zip(keys, ((1000, UNITS), (UNITS, WORDS), (WORDS,), (1000, WORDS)), strict=False)
    )
    return hidden, head, bias, topk.from_logits(3 * teacher_logits, K), jax.random.randint(keys[4], (1000,), 0, WORDS)


steps = {name: step_of(loss) for name, loss in LOSSES.items()}
value_error, gradient_error = [], []
for seed in range(5):
    (value, gradients), (reference, references) = (steps[name](*batch(seed)) for name in LOSSES)
    value_error.append(abs(value / reference - 1))
    gaps = [jnp.linalg.norm(g - r) / jnp.linalg.norm(r) for g, r in zip(gradients, references, strict=True)]
    gradient_error.append(max(gaps))
print(f"relative differences: values {max(value_error):.0e}, gradients {max(gradient_error):.0e}")

# %% [markdown]
# ## Bounds from a few words
#
# A divergence over all words lies between those of the tails *bucket*, all other words as one word, and *worst*, what
# makes the divergence largest. The laws are those of Python's language reference by pairs of words: a teacher counts 70
# % of it, and each of three students another 6 %. A token's law is a row of the head, picked by the word before it.


# %%
def pairs(text, strength):
    """Log-probabilities `[word before, word]`, smoothed towards the frequencies of words."""
    counts = np.zeros((WORDS, WORDS), np.float32)
    np.add.at(counts, (text.contexts[:, -1], text.labels), 1)
    frequencies = simplex.from_counts(counts.sum(0), pseudo_count=0.5)
    return jnp.log(jax.vmap(lambda row: simplex.dirichlet_smoothed(row, frequencies, strength=strength))(counts))


teacher_text, students_text, _, test = manual.split()
teacher = pairs(teacher_text, 20.0)
parts = np.array_split(np.arange(len(students_text.labels)), 3)
students = [pairs(manual.Text(*(x[part] for x in students_text)), 20.0) for part in parts]
picked = jax.nn.one_hot(test.contexts[:2000, -1], WORDS)
COUNTS = (1, 4, 16, 64)


@jax.jit
def bounds(student, k):
    """Lower bound, KL from the teacher and upper bound, in nats `[token]` each, from k words."""

    def of_token(logits, teacher_logits, *, k):
        top = topk.from_logits(teacher_logits, COUNTS[-1])
        top = topk.TopK(top.log_probs, jnp.where(jnp.arange(COUNTS[-1]) < k, top.indices, -1))
        lower, upper = (topk.lift(losses.forward_kl, tail=tail)(logits, top) for tail in ("bucket", "worst"))
        return lower, losses.forward_kl(logits, teacher_logits), upper

    return jnp.stack(
        fused.linear_divergence(picked, student, fused.Linear(picked, teacher), of_token, memory=2 * MEMORY, k=k)
    )


enclosing = np.stack([[bounds(student, k) for student in students] for k in tqdm(COUNTS, desc="bounds")])
lower, inside, upper = np.moveaxis(enclosing, 2, 0)  # [k, student, token] each
print("KL from the teacher in nats per token, and its bounds from k words, mean ± sd of three students")
for k, *values in zip(COUNTS, lower, inside, upper, strict=True):
    print(f"k = {k:2d}: " + " <= ".join(spread(value.mean(axis=-1), 2) for value in values))

# %%
plt.rcParams["axes.titlesize"] = "medium"
figure, (axis, by_bound) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for (name, sizes), color, shift in zip(memory.items(), (common.VERMILION, common.BLUE), (-0.2, 0.2), strict=True):
    bars = axis.bar(np.arange(len(BATCHES)) + shift, sizes, 0.36, color=color, label=name)
    axis.bar_label(bars, fmt="%.3g")
axis.set_xticks(range(len(BATCHES)), [str(tokens) for tokens in BATCHES])
axis.set(yscale="log", ylim=(1, 3000), xlabel="tokens in a batch", ylabel="temporaries of a step in MiB")
axis.set_title("Fused with the head, the loss takes the\nsame memory for any batch")
axis.legend(frameon=False, loc="upper left")

for values, label, style, color in [
    (upper, "worst: upper bound", "v--", common.BLUE),
    (inside, "all words", "-", common.ORANGE),
    (lower, "bucket: lower bound", "^--", common.BLUE),
]:
    by_bound.plot(COUNTS, values.mean(axis=(1, 2)), style, color=color, label=label)
by_bound.set_xscale("log", base=2)
by_bound.set_xticks(COUNTS, [str(k) for k in COUNTS])
by_bound.set(yscale="log", ylim=(0.02, 300), xlabel="words known of the teacher", ylabel="KL in nats per token")
by_bound.set_title("A few words enclose the divergence\nof all, but loosely")
by_bound.legend(frameon=False, loc="upper right")
common.save_figure(figure, "large_vocabularies.png")

# %% [markdown]
# ## When not to use it
#
# - For a small head or a small batch: the logits are then no burden.
# - Where the logits are needed anyway, as for sampling.
# - For a loss that mixes tokens: each token has its own loss here.
# - A few words to measure a divergence: where the teacher's tail is long, the bounds are far apart.

# %%
assert memory["fused"][-1] < 1.5 * memory["fused"][0]
assert memory["fused"][0] < memory["unfused"][0] / 1.5
assert memory["fused"][-1] < memory["unfused"][-1] / 50
assert max(value_error) < 1e-5
assert max(gradient_error) < 1e-4

# The bounds hold for each token, and close in as words are added.
assert np.all(lower >= 0)
assert np.all(lower <= inside * (1 + 1e-5) + 1e-6)
assert np.all(inside <= upper * (1 + 1e-5) + 1e-6)
for bound, sign in ((lower, 1), (upper, -1)):
    assert np.all(np.diff(sign * bound.mean(axis=(1, 2))) > 0)
print("All claims hold.")

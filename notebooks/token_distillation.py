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
# # Token distillation: how many words of a teacher on disk are enough?
#
# A teacher's predictions are written to disk once and many students learn from the file, but a probability for every
# word makes the file thousands of times as long as the text. What is lost if 16 of 2048 words are kept, and what should
# the student assume about the others?
#
# 16 words drawn from the teacher, 32 bytes a token, gain 0.36 ± 0.04 nats over labels, of the 0.46 ± 0.03 that all
# words gain for 4096 bytes. The likeliest 16 gain 0.26 ± 0.04 if the others are taken for equally likely, and 0.01 ±
# 0.03 renormalized, the usual way, where the better control without a teacher gains 0.23 ± 0.03.
#
# A student with logits $s$ and next word $c$ minimises, for a teacher $q$ whose words $K$ are on file,
#
# $$w \,\mathrm{KL}\bigl(\tilde q \,\big\|\, \mathrm{softmax}(s)\bigr) - (1 - w) \log \mathrm{softmax}(s)_c,$$
#
# where $\tilde q$ is beyond $K$ *renormalized*: nothing; *bucket*: one word, on both sides; *uniform*: equally likely;
# or *worst*: what makes the divergence largest.

# %%
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from data import manual
from data.manual import WORDS
from tqdm import tqdm

from jaxdiv import fused, losses, objectives, topk

# %% [markdown]
# ## The lines to paste
#
# A row of the file, and the loss of a batch of rows. `np.memmap` opens the file, with `Row` for its type, and
# `file[numbers]` reads some rows of it. The logits are never all there (see `large_vocabularies`). Float16 keeps three
# digits of a log-probability; where a teacher leaves less than 0.001 to the words that are not kept, put `top.log_tail`
# on file too.

# %%
K = 16
MEMORY = 2**20  # bytes for the logits of a block of tokens
Row = np.dtype([("log_probs", np.float16, K), ("indices", np.uint16, K)])


def as_rows(teacher_logits):
    """What goes on file of a teacher's logits `[n, v]`."""
    top = jax.device_get(topk.from_logits(teacher_logits, K))
    rows = np.empty(len(top.indices), Row)
    rows["log_probs"], rows["indices"] = top.log_probs, top.indices
    return rows


def distillation(hidden, head, bias, rows, labels, *, tail="uniform", weight=0.8):
    """The mean loss, from hidden states `[n, h]`, a head `[h, v]`, rows of the file `[n]` and labels `[n]`."""
    loss = objectives.hard_and_soft(topk.lift(losses.forward_kl, tail=tail), weight=weight)
    top = topk.TopK(rows["log_probs"], rows["indices"])
    return fused.mean_linear_divergence(hidden, head, top, loss, labels, bias=bias, memory=MEMORY)


# %% [markdown]
# ## The text and the teacher
#
# The text is the language reference that comes with Python, its paragraphs shuffled and each taken once. The teacher
# reads 70 % of it. To predict are the 2046 most frequent words and signs of that part, the start of a paragraph, and
# "unknown". Each of three students reads another 6 %, which the teacher has not read; 4 % are for validation and 8 %
# for the test. The teacher sees six words and has 128 hidden units; a student sees three and has 32.

# %%
SEEDS = range(3)
teacher_text, students_text, validation, test = manual.split()
TOKENS = len(students_text.labels)
EACH = TOKENS // len(SEEDS)
print(f"tokens: teacher {len(teacher_text.labels)}, each student {EACH}, test {len(test.labels)}")


# %%
def init_model(key, *, context, width, units):
    """A network of the last words of a context, embedded in `width` numbers each, with a layer of hidden units."""
    embed_key, mix_key = jax.random.split(key)
    return {
        "embedding": jax.random.normal(embed_key, (WORDS, width)),
        "mix": jax.random.normal(mix_key, (context, width, units)) * (2 / (context * width)) ** 0.5,
        "mix_bias": jnp.zeros(units),
        "head": jnp.zeros((units, WORDS)),
        "bias": jnp.zeros(WORDS),
    }


def hidden_states(params, contexts, *, dropout=0.0, key=None):
    """The last hidden states `[n, units]`; given a key, some are dropped."""
    embedded = params["embedding"][contexts[:, -len(params["mix"]) :]]
    hidden = jax.nn.relu(jnp.einsum("ncw,cwh->nh", embedded, params["mix"]) + params["mix_bias"])
    if key is not None:
        hidden = jnp.where(jax.random.bernoulli(key, 1 - dropout, hidden.shape), hidden / (1 - dropout), 0)
    return hidden


surprise = optax.softmax_cross_entropy_with_integer_labels  # of labels, in nats
TEACHER_STEPS = 500


@jax.jit
def train_teacher(text, key):
    """The teacher's parameters."""

    def loss(params, batch, key):
        hidden = hidden_states(params, batch.contexts, dropout=0.5, key=key)
        return fused.mean_linear_divergence(hidden, params["head"], batch.labels, surprise, bias=params["bias"])

    init_key, fit_key = jax.random.split(key)
    params = init_model(init_key, context=manual.CONTEXT, width=64, units=128)
    rate = optax.cosine_decay_schedule(5e-3, TEACHER_STEPS)
    return common.fit(loss, params, text, fit_key, steps=TEACHER_STEPS, batch_size=256, learning_rate=rate)


teacher = train_teacher(jax.tree.map(jnp.asarray, teacher_text), jax.random.key(0))


def teacher_law(contexts):
    """The teacher's predictions, as hidden states and a head."""
    return fused.Linear(hidden_states(teacher, contexts), teacher["head"], teacher["bias"])


# %%
@jax.jit
def measured(params, text):
    """Negative log-likelihood of a text and KL from the teacher, in nats per token."""

    def of_token(logits, teacher_logits, labels):
        return surprise(logits, labels), losses.forward_kl(logits, teacher_logits)

    hidden, target = hidden_states(params, text.contexts), teacher_law(text.contexts)
    values = fused.linear_divergence(
        hidden, params["head"], target, of_token, text.labels, bias=params["bias"], memory=MEMORY
    )
    return jnp.stack([jnp.mean(value) for value in values])


@jax.jit
def likelihood_loss(params, text):
    """Negative log-likelihood of a text, in nats per token."""
    logits = hidden_states(params, text.contexts) @ params["head"] + params["bias"]
    return jnp.mean(surprise(logits, text.labels))


counts = np.bincount(teacher_text.labels, minlength=WORDS) + 0.5
FREQUENCIES = np.log(counts / counts.sum()).astype(np.float32)  # of the words in the teacher's text
teacher_nll = float(measured(teacher, test)[0])
print(f"test text, nats per token: teacher {teacher_nll:.3f}, frequencies {-FREQUENCIES[test.labels].mean():.3f}")

# %% [markdown]
# ## The files
#
# They are written once, a block of tokens at a time: the rows above; for comparison, all log-probabilities in float16;
# and 16 words *drawn* from the teacher for each token (Anshumann et al. 2025). Those need no probabilities beside them:
# on average, their frequencies are the teacher's probabilities.


# %%
@jax.jit
def predicted(contexts):
    """The teacher's log-probabilities `[n, v]`."""
    hidden, head, bias, *_ = teacher_law(contexts)
    return jax.nn.log_softmax(hidden @ head + bias)


@jax.jit
def draw(log_probs, key):
    """K words `[n, k]` for each token."""
    cumulative = jnp.cumsum(jnp.exp(log_probs), axis=-1)
    return jax.vmap(jnp.searchsorted)(cumulative, cumulative[:, -1:] * jax.random.uniform(key, (len(log_probs), K)))


folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
LAYOUTS = {"likeliest": (Row, ()), "every": (np.float16, (WORDS,)), "sample": (np.uint16, (K,))}


def opened(mode):
    """The three files, of a row for each of the students' tokens."""
    return [
        np.memmap(Path(folder.name) / name, dtype, mode, shape=(TOKENS, *shape))
        for name, (dtype, shape) in LAYOUTS.items()
    ]


likeliest, every, sample = opened("w+")
for start in tqdm(range(0, TOKENS, 2048), desc="files"):
    rows = slice(start, start + 2048)
    log_probs = predicted(students_text.contexts[rows])
    likeliest[rows], every[rows] = as_rows(log_probs), log_probs
    sample[rows] = draw(log_probs, jax.random.key(start))
    for file in (likeliest, every, sample):
        file.flush()

likeliest, every, sample = opened("r")
size = {name: (Path(folder.name) / name).stat().st_size / TOKENS for name in LAYOUTS}
kept = np.exp(np.float32(likeliest["log_probs"])).sum(axis=-1).mean()
print("bytes per token: {every:.0f} for all words, {likeliest:.0f} for 16, {sample:.0f} for 16 drawn".format(**size))
print(f"the likeliest 16 hold {100 * kept:.0f} % of the teacher's probability")
some = np.s_[:256]
hidden = hidden_states(teacher, students_text.contexts[some])
loss = distillation(hidden, teacher["head"], teacher["bias"], likeliest[some], students_text.labels[some])
print(f"the teacher's own loss, of 256 rows of the file: {loss:.2f} nats per token")

# %% [markdown]
# ## The students
#
# Every method tunes one number over four values, and takes as many steps of Adam from the same weights on the same
# tokens in the same order. Of two epochs each run keeps the one that is better on validation, and each method the value
# that is best there, averaged over three seeds. A seed is another text, with other weights. The learning rate, where it
# is not tuned, is 0.01.
#
# - *Without a teacher*, as controls: labels alone, by the learning rate; labels smoothed towards equal probabilities;
#   and towards the frequencies of words in the teacher's text.
# - *With a file*, by the weight $w$ of the teacher: all words, the likeliest 16 with each of the four tails, 16 drawn.


# %%
BATCH, EPOCHS = 128, 2


def drawn_kl(logits, indices, **options):
    """KL from the frequencies of the words drawn `[n, k]`, -1 for none."""
    same = (indices[:, :, None] == indices[:, None, :]).astype(logits.dtype)
    drawn = topk.TopK(jnp.log(same.sum(axis=-1)), indices)  # of equal ones the first counts, with all their number
    return topk.lift(losses.forward_kl, tail="renormalized")(logits, drawn, **options)


def kl_from(log_probs):
    """KL from one law for all tokens."""
    return lambda logits, _, **options: losses.forward_kl(logits, jnp.broadcast_to(log_probs, logits.shape), **options)


def first(indices, k):
    """All but the first k padded."""
    return np.where(np.arange(K) < k, indices.astype(np.int32), -1)


class Method(NamedTuple):
    """A soft loss `(logits, targets)`, its targets by rows of a file and k, and what its knob is tuned over."""

    name: str
    soft: Callable
    targets: Callable
    knob: str = "weight"
    values: tuple[float, ...] = (0.2, 0.5, 0.8, 1.0)


def of_likeliest(rows, k):
    read = likeliest[rows]
    return topk.TopK(read["log_probs"], first(read["indices"], k))


TAILS = [
    Method(f"16, {tail}", topk.lift(losses.forward_kl, tail=tail), of_likeliest)
    for tail in ("renormalized", "bucket", "worst", "uniform")
]
from_uniform, from_frequencies = kl_from(np.zeros(WORDS, np.float32)), kl_from(FREQUENCIES)
without = lambda _rows, _k: None  # noqa: E731
METHODS = [
    Method("labels", from_uniform, without, "rate", (1e-3, 2.5e-3, 5e-3, 1e-2)),
    Method("label smoothing", from_uniform, without, values=(0.05, 0.1, 0.2, 0.4)),
    Method("frequencies", from_frequencies, without, values=(0.1, 0.2, 0.4, 0.8)),
    *TAILS,
    Method("16 drawn", drawn_kl, lambda rows, k: first(sample[rows], k)),
    Method("all words", losses.forward_kl, lambda rows, _k: every[rows]),
]


@functools.partial(jax.jit, static_argnums=0)
def epoch(soft, params, state, rate, weight, batches):
    """Parameters and state of Adam after batches `[step, n, ...]` of contexts, targets and labels."""
    loss = objectives.hard_and_soft(soft, weight=weight)

    def step(carry, batch):
        params, state = carry
        contexts, targets, labels = batch

        def mean(params):
            hidden = hidden_states(params, contexts)
            return fused.mean_linear_divergence(
                hidden, params["head"], targets, loss, labels, bias=params["bias"], memory=MEMORY
            )

        updates, state = optax.adam(rate).update(jax.grad(mean)(params), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), batches)[0]


def train(method, value, seed, k=K):
    """Validation loss and parameters of a student after its better epoch."""
    rate, weight = (value, 0.0) if method.knob == "rate" else (1e-2, value)
    random = np.random.default_rng(seed)
    params = init_model(jax.random.key(seed), context=3, width=32, units=32)
    state, epochs = optax.adam(rate).init(params), []
    for _ in range(EPOCHS):
        rows = seed * EACH + random.permutation(EACH)[: EACH // BATCH * BATCH].reshape(-1, BATCH)
        batches = students_text.contexts[rows], method.targets(rows, k), students_text.labels[rows]
        params, state = epoch(method.soft, params, state, rate, weight, batches)
        epochs.append((float(likelihood_loss(params, validation)), params))
    return min(epochs, key=lambda pair: pair[0])


# %%
def tested(students):
    """NLL of the test text and KL from the teacher, `[2, seed]`."""
    return np.stack([measured(params, test) for params in students], axis=-1)


spread = functools.partial(common.spread, digits=2)
chosen, results, alone, table = {}, {}, {}, []
for method in tqdm(METHODS, desc="students"):
    runs = [[train(method, value, seed) for seed in SEEDS] for value in method.values]
    seen = np.array([[loss for loss, _ in row] for row in runs])
    best = np.argmin(seen.mean(axis=-1))
    chosen[method.name] = method.values[best]
    results[method.name] = tested([params for _, params in runs[best]])
    if method.values[-1] == 1:
        alone[method.name] = np.array([likelihood_loss(params, test) for _, params in runs[-1]])
    row = [f"{value:>8g}{'*' if i == best else ' '} {spread(seen[i])}" for i, value in enumerate(method.values)]
    table.append(f"{method.name:17s}{method.knob:7s}" + "".join(row))

print("validation text: NLL in nats per token, mean ± sd over the seeds; * is the value chosen")
print("\n".join(table))

# %%
gain = {name: results["labels"][0] - nll for name, (nll, _) in results.items()}
print("test text, nats per token, mean ± sd over the seeds; gain: paired difference from labels")
print(f"{'':18s}{'NLL':>14s}{'gain':>15s}{'KL from teacher':>18s}{'NLL without labels':>21s}")
for name, (nll, kl) in results.items():
    print(f"{name:18s}{spread(nll):>14s}{spread(gain[name]):>15s}{spread(kl):>18s}", end="")
    print(f"{spread(alone[name]) if name in alone else '':>21s}")

# %% [markdown]
# ## Fewer words
#
# The same file serves for fewer words: in a row, what lies beyond the first k is padded with -1. The weights are those
# chosen for 16.

# %%
COUNTS = (1, 4, 16)
BY_COUNT = ("16, bucket", "16, uniform", "16 drawn")
by_count = {}
for method in tqdm([method for method in METHODS if method.name in BY_COUNT], desc="fewer words"):
    value = chosen[method.name]
    fewer = [[likelihood_loss(train(method, value, seed, k)[1], test) for seed in SEEDS] for k in COUNTS[:-1]]
    by_count[method.name] = np.stack([*fewer, results[method.name][0]])

print("NLL of the test text by the number of words, mean ± sd")
print(f"{'':18s}" + "".join(f"{k:>14d}" for k in COUNTS))
for name, nll in by_count.items():
    print(f"{name.removeprefix('16').strip(', '):18s}" + "".join(f"{spread(row):>14s}" for row in nll))
folder.cleanup()

# %%
plt.rcParams["axes.titlesize"] = "medium"
figure, (by_method, by_words) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")

colors = {"16 drawn": common.VERMILION, "all words": common.ORANGE} | {tail.name: common.BLUE for tail in TAILS}
for row, (name, values) in enumerate(reversed(gain.items())):
    color = colors.get(name, common.BLACK)
    by_method.errorbar(values.mean(), row, xerr=values.std(ddof=1), fmt="o", capsize=3, color=color)
by_method.set_yticks(range(len(gain)), list(reversed(gain)))
by_method.set_xlabel("test NLL below that of labels,\nin nats per token (paired mean ± sd)")
by_method.set_title("16 words drawn are worth more\nthan the likeliest 16 with any tail")

STYLES = {
    "16, bucket": ("bucket", "s--", common.BLUE, 0.94),
    "16, uniform": ("uniform tail", "^:", common.GREEN, 1.06),
    "16 drawn": ("drawn", "o-", common.VERMILION, 1.0),
}
for name, (label, style, color, shift) in STYLES.items():
    mean, error = by_count[name].mean(axis=-1), by_count[name].std(axis=-1, ddof=1)
    by_words.errorbar(shift * np.array(COUNTS), mean, error, fmt=style, capsize=3, color=color, label=label)
by_words.axhline(results["labels"][0].mean(), color=common.BLACK, linestyle="-.", label="labels")
by_words.axhline(results["all words"][0].mean(), color=common.ORANGE, label="all words")
by_words.set(xlabel="words on file, per token", ylabel="test NLL in nats per token", ylim=(5.0, 5.9))
by_words.set_title("Four words drawn do as well as\nthe likeliest 16")

by_words.set_xscale("log", base=2)
by_words.set_xticks(COUNTS, [str(k) for k in COUNTS])
by_words.legend(frameon=False, ncols=2, loc="upper right")
common.save_figure(figure, "token_distillation.png")

# %% [markdown]
# ## When not to use it
#
# - Words drawn where the temperature is to be changed later, or bounds are wanted: they serve one temperature and bound
#   nothing.
# - Renormalized or as a bucket without labels: neither says how likely one of the other words is, and the student ends
#   at 7.2 and 6.2 nats where labels alone reach 5.5.


# %%
def between(name, other):
    """By how much a method's NLL is below another's on each seed."""
    return gain[name] - gain[other]


CONTROLS = ("label smoothing", "frequencies")
best_control = max(CONTROLS, key=lambda name: gain[name].mean())
best_tail = max((tail.name for tail in TAILS), key=lambda name: gain[name].mean())
share = {name: 100 * gain[name].mean() / gain["all words"].mean() for name in gain}
four_drawn = by_count["16 drawn"][COUNTS.index(4)] - results["16, uniform"][0]

# All words gain, on each seed, and more than what needs no predictions; the student comes nearest to the teacher.
assert gain["all words"].min() > 0.15
assert between("all words", best_control).mean() > 0.1
assert teacher_nll < results["all words"][0].min()
assert min(results, key=lambda name: results[name][1].mean()) == "all words"

# Renormalized and bucket gain no more than the control, and alone they ruin the student.
assert between("16, renormalized", best_control).mean() < 0
assert between("16, bucket", best_control).mean() < 0.1
for name, ruin in (("16, renormalized", 0.5), ("16, bucket", 0.2)):
    assert (alone[name] - results["labels"][0]).min() > ruin

# The other tails gain more than smoothed labels, and less than all words.
for name in ("16, uniform", "16, worst"):
    assert between(name, "label smoothing").mean() > 0.03
    assert between("all words", name).mean() > 0.05

# Words drawn: better than any tail at half the bytes, most of what all words gain, and four do for 16.
assert (size["every"], size["likeliest"], size["sample"]) == (4096, 64, 32)
assert between("16 drawn", best_tail).mean() > 0.03
assert between("16 drawn", best_control).mean() > 0.03
assert share["16 drawn"] > 60
assert abs(four_drawn.mean()) < 0.1
print("All claims hold.")

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
# # RLHF: a learned reward with a KL penalty
#
# A language model is trained to earn a reward that was learned from comparisons, less a penalty on its KL divergence
# from where it started. How far is such a reward good for, and in which form does the penalty train best?
#
# **Answer.** For about 3 nats a string. With the penalty a model of letters ends 0.289 ± 0.014 nats from the names that
# are wanted, where it started 0.617 away. Without it it ends at 2.8 ± 0.2, and 1 % of its strings are distinct. KL in
# the reward, or exact at each place, reaches 96 % of the possible gain, $k_3$ as a loss 78 %.
#
# The objective and its optimum, for a reference $\pi_0$ and a reward $r$:
#
# $$\max_\pi \; \mathrm{E}_\pi[r] - \beta \, \mathrm{KL}(\pi \,\|\, \pi_0), \qquad
#   \pi^* = \pi_0 \, e^{r / \beta} / Z .$$

# %%
import re
from html.entities import html5
from pydoc_data.topics import topics
from typing import NamedTuple

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from common import spread
from tqdm import tqdm

from jaxdiv import estimators, losses, simplex

SEEDS = range(5)

# %% [markdown]
# ## The lines to paste
#
# Add $\beta$ times one of these to what is minimised. In the reward the penalty is a cost like any other, of letters
# already drawn, credited to those before. As a loss it has a gradient of its own, and `sequence_sum` adds the credit
# that earlier letters deserve for later divergences; terms that are centred make it less noisy.


# %%
def to_come(values):
    """Sums `[n, PLACES]` over this place and all later ones, less their average over the strings: a constant."""
    sums = jnp.cumsum(values[:, ::-1], axis=1)[:, ::-1]
    return jax.lax.stop_gradient(sums - sums.mean(axis=0))


def summed(terms, log_p):
    """The sum over a string, with the right gradient; the value means nothing."""
    return estimators.sequence_sum(terms - jax.lax.stop_gradient(terms.mean(axis=0)), log_p)


def kl_in_reward(log_p, log_q):
    """Costs `[n]` of strings drawn from p, for their gradient, by the log-probabilities `[n, place]` of the letters."""
    return jnp.sum(to_come(estimators.k1(log_p, log_q)) * log_p, axis=1)


def kl_of_next_letters(logits, reference_logits, log_p):
    """The same by the whole divergence of the next letter, from all logits `[n, place, letter]`."""
    return summed(losses.reverse_kl(logits, reference_logits), log_p)


# %% [markdown]
# ## Letters for words <!-- E06 -->
#
# The reference writes ten letters by the pairs of neighbouring letters in Python's manual. Wanted are strings like the
# names of characters in HTML (`lesssim`, `boxdr`). A judge compares 2000 pairs of strings of the reference, and prefers
# the more name-like one by the odds of Bradley and Terry, with the log-likelihood ratio of names and manual for its
# taste. The reward model has a weight for every pair of letters, fitted to these choices. The policy is one table of
# logits for each of the ten places, trained by the policy gradient (Ziegler et al. 2019, Ouyang et al. 2022).
#
# The judge knows half of the names. How close a policy comes to names is the KL divergence of its pairs of letters from
# those of the other half. All of these are sums over a chain, and exact. So is the optimum, by dynamic programming
# backwards over the places.

# %%
ALPHABET = " abcdefghijklmnopqrstuvwxyz"
K, PLACES = len(ALPHABET), 10


def next_letter(words):
    """Logits `[27, 27]` of the letter that follows each letter in words with a space between them."""
    codes = np.array([ALPHABET.index(letter) for letter in f" {' '.join(words)} "])
    counts = np.zeros((K, K), np.float32)
    np.add.at(counts, (codes[:-1], codes[1:]), 1)
    letters = simplex.from_counts(counts.sum(axis=0), pseudo_count=0.5)
    return jnp.log(jax.vmap(lambda row: simplex.dirichlet_smoothed(row, letters, strength=3.0))(counts))


words = re.findall("[a-z]+", " ".join(topics.values()).lower())
names = sorted({word for name in html5 for word in re.findall("[a-z]+", name.lower())})
np.random.default_rng(0).shuffle(names)
PROSE, JUDGED, UNSEEN = (next_letter(part) for part in (words, names[::2], names[1::2]))
REFERENCE = jnp.broadcast_to(PROSE, (PLACES, K, K))


def pairs(policy):
    """Probabilities `[place, letter before, letter]` under logits of the same shape."""

    def step(before, logits):
        joint = before[:, None] * jax.nn.softmax(logits)
        return joint.sum(axis=0), joint

    return jax.lax.scan(step, jax.nn.one_hot(0, K), policy)[1]


def kl_of_strings(policy, other):
    """KL(policy || other) in nats to a string of ten letters."""
    return jnp.sum(pairs(policy).sum(axis=-1) * losses.reverse_kl(policy, other))


def far_from(names, joint):
    """KL in nats of pairs of letters `[27, 27]` from those that a model of names writes."""
    truth = pairs(jnp.broadcast_to(names, REFERENCE.shape)).mean(axis=0)
    return simplex.kl(joint.ravel(), truth.ravel())


def judge_strings(policy, reward):
    """Reward, KL from the reference, and the distances from the names judged and unseen."""
    joint = pairs(policy)
    distances = (far_from(names, joint.mean(axis=0)) for names in (JUDGED, UNSEEN))
    return jnp.stack([jnp.sum(joint * reward), kl_of_strings(policy, REFERENCE), *distances])


def optimum(reward, beta):
    """The best value of the objective, and the policy that has it."""

    def back(value, logits):
        logits = logits + (reward + value[None]) / beta
        return beta * jax.nn.logsumexp(logits, axis=1), logits

    value, policy = jax.lax.scan(back, jnp.zeros(K), REFERENCE, reverse=True)
    return value[0], policy


def write(policy, key, n):
    """Letters before and letters, `[n, PLACES]` each."""
    upto = jnp.cumsum(jax.nn.softmax(policy), axis=-1)

    def step(before, draw):
        chance, upto = draw
        letters = jnp.minimum(jnp.sum(chance > upto[before], axis=-1), K - 1)
        return letters, (before, letters)

    chances = jax.random.uniform(key, (PLACES, n, 1))
    before, letters = jax.lax.scan(step, jnp.zeros(n, int), (chances, upto))[1]
    return before.T, letters.T


def learned_reward(key, comparisons=2000):
    """Weights `[27, 27]` of pairs of letters, and the share of comparisons they get right."""
    string_key, choice_key, fit_key = jax.random.split(key, 3)
    before, letters = write(REFERENCE, string_key, 2 * comparisons)
    taste = jnp.sum((JUDGED - PROSE)[before, letters], axis=1)
    features = jax.vmap(lambda row: jnp.zeros(K * K).at[row].add(1.0))(before * K + letters)
    gap, difference = (x[:comparisons] - x[comparisons:] for x in (taste, features))
    sign = jnp.where(gap > jax.random.logistic(choice_key, gap.shape), 1.0, -1.0)

    def loss(weights, batch, _key):
        difference, sign = batch
        return jnp.mean(jax.nn.softplus(-sign * (difference @ weights))) + 1e-3 * jnp.sum(weights**2)

    data = difference, sign
    weights = common.fit(loss, jnp.zeros(K * K), data, fit_key, steps=300, batch_size=500, learning_rate=0.05)
    return weights.reshape(K, K), jnp.mean(sign * (difference @ weights) > 0)


# %% [markdown]
# ## Five forms of the penalty
#
# Terms are the whole divergence of the next letter, or sampled, as by `f_divergence`. The usual $k_2$ and $k_3$ as
# losses are summed as they are.


# %%
class Written(NamedTuple):
    """Strings `[n, PLACES]`: log-probabilities of the letters, and all logits `[n, PLACES, 27]`, of both laws."""

    log_p: jax.Array
    log_q: jax.Array
    logits: jax.Array
    reference_logits: jax.Array


def recall(policy, before, letters):
    """What the policy and the reference say of strings."""
    both = policy[jnp.arange(PLACES), before], PROSE[before]
    chosen = (jnp.take_along_axis(jax.nn.log_softmax(x), letters[..., None], axis=-1)[..., 0] for x in both)
    return Written(*chosen, *both)


# Costs of strings `[n]`; only their gradients are used.
PENALTIES = {
    "KL in the reward": lambda x: kl_in_reward(x.log_p, x.log_q),
    "KL of next letters": lambda x: kl_of_next_letters(x.logits, x.reference_logits, x.log_p),
    "f_divergence": lambda x: summed(estimators.f_divergence("kl", x.log_p, x.log_q), x.log_p),
    "k2 as loss": lambda x: jnp.sum(estimators.k2(x.log_p, x.log_q), axis=1),
    "k3 as loss": lambda x: jnp.sum(estimators.k3(x.log_p, x.log_q), axis=1),
}
UPDATES, STRINGS, STOPS = 400, 128, 5


def feedback(number, beta, rate, reward, key):
    """What `judge_strings` says at each stop `[STOPS, 4]`, and the policy at the last."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, UPDATES))

    def loss(policy, key):
        before, letters = write(jax.lax.stop_gradient(policy), key, STRINGS)
        strings = recall(policy, before, letters)
        earned = jnp.sum(to_come(reward[before, letters]) * strings.log_p, axis=1)
        return jnp.mean(beta * jax.lax.switch(number, list(PENALTIES.values()), strings) - earned)

    def update(carry, key):
        policy, state = carry
        updates, state = optimizer.update(jax.grad(loss)(policy, key), state)
        return (optax.apply_updates(policy, updates), state), None

    def stop(carry, keys):
        carry, _ = jax.lax.scan(update, carry, keys)
        return carry, judge_strings(carry[0], reward)

    keys = jax.random.split(key, (STOPS, UPDATES // STOPS))
    (policy, _), judged = jax.lax.scan(stop, (REFERENCE, optimizer.init(REFERENCE)), keys)
    return judged, policy


BETAS, TRAIN_RATES, STANDARD_BETA = (0.1, 0.2, 0.5, 1.0, 2.0), np.array([0.01, 0.03, 0.1]), 0.5
keys = jax.vmap(jax.random.key)(jnp.array(SEEDS))
reward_keys, run_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
rewards, agreement = jax.jit(jax.vmap(learned_reward))(reward_keys)
each_seed = jax.vmap(feedback, in_axes=(None, None, None, 0, 0))
feedback_all = jax.jit(jax.vmap(each_seed, in_axes=(None, None, 0, None, None)))

PLAN = [("KL in the reward", beta) for beta in (0.0, *BETAS)]
PLAN += [(name, STANDARD_BETA) for name in PENALTIES if name != "KL in the reward"]
judged, policies = {}, {}  # of a penalty and beta: [rate, seed, stop, 4] and [rate, seed, ...]
for name, beta in tqdm(PLAN, desc="letters"):
    found = feedback_all(list(PENALTIES).index(name), beta, jnp.asarray(TRAIN_RATES, jnp.float32), rewards, run_keys)
    judged[name, beta], policies[name, beta] = map(np.asarray, found)

# %% [markdown]
# The optimum has an identity to check everything by: the shortfall of a policy is $\beta \,\mathrm{KL}(\pi \,\|\,
# \pi^*)$. Below is the share of the possible gain in the objective that training reached, at the learning rate that is
# best for the other seeds.


# %%
def at_best(scores):
    """Scores `[rate, seed]` of each seed at the learning rate that is best for the other seeds."""
    others = (scores.sum(axis=1, keepdims=True) - scores).argmax(axis=0)
    return scores[others, np.arange(scores.shape[1])]


judge_each = jax.jit(jax.vmap(judge_strings))
optimum_each = jax.jit(jax.vmap(optimum, in_axes=(0, None)))
untrained = np.asarray(judge_each(jnp.broadcast_to(REFERENCE, (5, *REFERENCE.shape)), rewards))
best_values, best_strings = {}, {}
for beta in np.geomspace(0.05, 10, 41).tolist() + list(BETAS):
    best_values[beta], policy = optimum_each(rewards, beta)
    best_strings[beta] = np.asarray(judge_each(policy, rewards))


def objective(judged, beta):
    return judged[..., 0] - beta * judged[..., 1]


def reached(name, beta):
    """The share of the possible gain, `[rate, seed]`, in %."""
    start, best = objective(untrained, beta), np.asarray(best_values[beta])
    return 100 * (objective(judged[name, beta][:, :, -1], beta) - start) / (best - start)


gap_kl = jax.jit(jax.vmap(kl_of_strings))(
    jnp.asarray(policies["KL in the reward", STANDARD_BETA][1]), optimum_each(rewards, STANDARD_BETA)[1]
)
short = best_values[STANDARD_BETA] - objective(judged["KL in the reward", STANDARD_BETA][1, :, -1], STANDARD_BETA)
identity = float(np.abs(short / (STANDARD_BETA * gap_kl) - 1).max())

shares = {plan: at_best(reached(*plan)) for plan in PLAN if plan[1]}
print(f"The reward model agrees with {100 * float(agreement.mean()):.0f} % of the judge's choices.")
print(f"What is lacking is the divergence from the optimum, to {identity:.0e}.")
print(f"Share of the possible gain in %, mean ± sd of 5 seeds{'rate 0.01':>16s}{'0.03':>12s}{'0.1':>12s}{'tuned':>12s}")
for (name, beta), share in shares.items():
    row = "".join(f"{spread(x, 1):>12s}" for x in (*reached(name, beta), share))
    print(f"{name:24s}beta {beta:<28g}{row}")

# %% [markdown]
# ## How much KL
#
# Whether strings come to look like names is another matter. The controls spend their divergence without a penalty:
# *early stopping* of the run without one, at five times, and the *best of n* strings of the reference by the reward
# model, whose divergence is at most $\log n - (n - 1) / n$ (Stiennon et al. 2020, Beirami et al. 2024). Each has five
# values of its knob, and the two that are trained three learning rates. Both are chosen by the distance from the judged
# half of the names, averaged over the seeds, and reported by the unseen half.

# %%
NS = (4, 16, 64, 256, 1024)


@jax.jit
def best_of(reward, key, draws=2**17):
    """What `judge_strings` says of the best of n strings of the reference, `[len(NS), 4]`; KL is the upper bound."""
    before, letters = write(REFERENCE, key, draws)
    order = jnp.argsort(jnp.sum(reward[before, letters], axis=1))
    seen, scores = (before * K + letters)[order], jnp.sum(reward[before, letters], axis=1)[order]

    def one(n):
        ranks = jnp.arange(draws + 1) / draws
        weights = jnp.diff(ranks**n)  # how likely each is the best of n
        joint = jnp.zeros(K * K).at[seen].add(weights[:, None] / PLACES).reshape(K, K)
        distances = (far_from(names, joint) for names in (JUDGED, UNSEEN))
        return jnp.stack([weights @ scores, jnp.log(n) - (n - 1) / n, *distances])

    return jax.lax.map(one, jnp.array(NS, jnp.float32))


penalised = np.stack([judged["KL in the reward", beta][:, :, -1] for beta in BETAS])
stopped = np.moveaxis(judged["KL in the reward", 0.0], 2, 0)
drawn = np.asarray(jax.vmap(best_of)(rewards, run_keys)).swapaxes(0, 1)[:, None]
LEASHES = {"KL penalty": penalised, "early stopping": stopped, "best of n": drawn}  # [knob, rate, seed, 4]


def chosen(results):
    """Results `[seed, 4]` at the knob and rate that come closest to the judged names, and their positions."""
    distance = results[..., 2].mean(axis=-1)
    at = np.unravel_index(np.argmin(distance), distance.shape)
    return results[at], at


leashed = {name: chosen(results)[0] for name, results in LEASHES.items()}
leashed = {"reference": untrained, **leashed, "no penalty": judged["KL in the reward", 0.0][-1, :, -1]}
leashed[f"beta {BETAS[0]:g}"] = judged["KL in the reward", BETAS[0]][-1, :, -1]

print(f"{'mean ± sd of 5 seeds':24s}{'reward':>14s}{'KL in nats':>14s}{'from unseen names, nats':>26s}")
for name, results in leashed.items():
    print(f"{name:24s}{spread(results[:, 0], 2):>14s}{spread(results[:, 1], 2):>14s}{spread(results[:, 3], 3):>26s}")
knob, rate = chosen(penalised)[1]
print(f"Chosen: beta {BETAS[knob]:g} at rate {TRAIN_RATES[rate]:g}; ", end="")
stop, stop_rate = chosen(stopped)[1]
updates, drawn_from = (stop + 1) * UPDATES // STOPS, NS[chosen(drawn)[1][0]]
print(f"{updates} updates at rate {TRAIN_RATES[stop_rate]:g}; the best of {drawn_from}.")


def specimens(policy, n=2000):
    """Some strings, and the share of distinct ones in %."""
    _, letters = write(jnp.asarray(policy), jax.random.key(9), n)
    strings = ["".join(ALPHABET[letter] for letter in row) for row in np.asarray(letters)]
    return strings[:5], 100 * len(set(strings)) / n


variety = {}
for name, policy in {
    "reference": REFERENCE,
    "no penalty": policies["KL in the reward", 0.0][-1, 0],
    "KL penalty": policies["KL in the reward", BETAS[knob]][rate, 0],
}.items():
    strings, variety[name] = specimens(policy)
    print(f"{name:12s}{variety[name]:5.1f} % distinct: {' | '.join(strings)}")

# %%
plt.rcParams["axes.titlesize"] = "medium"
figure, (by_leash, by_penalty) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
curve = sorted(best_strings)
by_leash.plot(
    [best_strings[beta][:, 1].mean() for beta in curve],
    [best_strings[beta][:, 3].mean() for beta in curve],
    color=common.BLACK,
    label="exact optimum for each β",
)
for name, color, mark in (
    ("KL penalty", common.VERMILION, "o"),
    ("early stopping", common.BLUE, "s"),
    ("best of n", common.GREEN, "^"),
):
    points = LEASHES[name].mean(axis=-2).reshape(-1, 4)
    by_leash.plot(points[:, 1], points[:, 3], mark, color=color, fillstyle="none", markersize=5, label=name)
    by_leash.plot(leashed[name][:, 1].mean(), leashed[name][:, 3].mean(), mark, color=color, markersize=9)
by_leash.axhline(untrained[:, 3].mean(), linestyle=":", color=common.BLACK)
by_leash.text(0.036, untrained[:, 3].mean() * 1.05, "reference")
by_leash.set(xscale="log", yscale="log", xlim=(0.03, 45), ylim=(0.2, 30))
by_leash.set_yticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
by_leash.set_yticks([], minor=True)
by_leash.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
by_leash.set(xlabel="KL from the reference in nats a string", ylabel="KL from unseen names in nats")
by_leash.set_title("A learned reward is good for 3 nats;\nbeyond, it leads astray")
by_leash.legend(frameon=False, loc="upper left", title="○ each setting, ● the one chosen", alignment="left")

for row, name in enumerate(reversed(PENALTIES)):
    color = common.VERMILION if name.startswith("KL") else common.BLUE
    rates, best = reached(name, STANDARD_BETA).mean(axis=-1), shares[name, STANDARD_BETA]
    by_penalty.plot(rates, [row - 0.25] * len(rates), "|", color=color, markersize=9)
    by_penalty.errorbar(best.mean(), row, xerr=best.std(ddof=1), fmt="o", capsize=3, color=color)
by_penalty.set_yticks(range(len(PENALTIES)), list(reversed(PENALTIES)))
by_penalty.set_xlabel(
    f"share of the possible gain in %, β = {STANDARD_BETA:g}\n(● tuned, mean ± sd; | each learning rate)"
)
by_penalty.set_title("KL in the reward, or exact at each place,\ntrains best; k3 as a loss worst")
common.save_figure(figure, "rlhf.png")

# %% [markdown]
# ## When not to use it
#
# - Where the reference can be sampled often: the best of 64 strings is as near to the names as the penalty, and needs
#   no training; but it draws 64 for each one that it keeps.
# - $k_2$ and $k_3$ as losses: they leave out what earlier letters lead to, and $k_3$ is wrong besides.
# - As a remedy for a wrong reward: at $\beta = 0.1$ the policy is as far astray as without the penalty.

# %%
distance = {name: results[:, 3] for name, results in leashed.items()}
over_stopping, over_best_of = (distance[name] - distance["KL penalty"] for name in ("early stopping", "best of n"))
in_reward, next_letters, unbiased, second, third = (shares[name, STANDARD_BETA] for name in PENALTIES)
loose_kl, loose_distance = leashed["no penalty"][:, 1].mean(), distance["no penalty"].mean()

# The identity; training comes close to the optimum; the leash has a best length; which estimates serve as losses.
assert identity < 1e-3
assert min(share.mean() for (name, _), share in shares.items() if name == "KL in the reward") > 90
assert in_reward.mean() > 94
assert next_letters.mean() > 94
for worse in (unbiased, second, third):
    assert (in_reward - worse).mean() > 1
assert (second - third).mean() > 5
assert distance["KL penalty"].mean() < 0.6 * distance["reference"].mean()
assert distance[f"beta {BETAS[0]:g}"].mean() > 2 * distance["reference"].mean()
assert loose_distance > 2 * distance["reference"].mean()
assert BETAS[0] < BETAS[knob] < BETAS[-1]
assert variety["no penalty"] < 20 < 95 < variety["KL penalty"]
assert over_stopping.mean() > 0.02
assert abs(over_best_of.mean()) < 0.05
print("All claims hold.")

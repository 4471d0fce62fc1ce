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
# # Policy optimisation: steps that KL keeps small
#
# A policy improves on data that an older policy drew, and the data say little about a policy far from that one. What
# does a bound on the KL divergence of a step buy over a tuned learning rate, clipping or a penalty?
#
# Reliability: at the three larger learning rates 2 of 30 runs of ten Adam steps fail within a bound of 0.01 nats, and
# 16 of 30 without it. Tuned, most methods tie: 478 ± 43 of 500 steps within the bound, 453 ± 43 without.
#
# With advantages $A$ of the actions $a$ in the states $s$ that the old policy met,
#
# $$\max_\pi \; \mathrm{E}\Bigl[\frac{\pi(a | s)}{\pi_\text{old}(a | s)} A\Bigr] \quad \text{where} \quad
#   \mathrm{E} \, \mathrm{KL}\bigl(\pi_\text{old}(\cdot | s) \,\big\|\, \pi(\cdot | s)\bigr) \le \delta .$$

# %%
import math
from typing import NamedTuple

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from common import spread
from tqdm import tqdm

from jaxdiv import bernoulli, transforms

SEEDS = range(10)

# %% [markdown]
# ## The lines to paste
#
# `divergence(new_policy)` is the average over the states met.

# %%
BOUND = 0.01


def bounded(policy, new_policy, divergence, bound=BOUND):
    """The policy on the way to the new one that is as far as the bound allows."""
    region = transforms.kl_trust_region(bound)
    update = jax.tree.map(jnp.subtract, new_policy, policy)
    update, _ = region.update(update, region.init(policy), policy, divergence=divergence)
    return optax.apply_updates(policy, update)


def trpo(policy, gradient, divergence, bound=BOUND):
    """The policy after one step of trust region policy optimisation."""
    direction = transforms.natural_gradient(damping=0.01), optax.scale(-1.0)
    optimizer = optax.chain(*direction, transforms.kl_trust_region(bound, max_scale=math.inf))
    update, _ = optimizer.update(gradient, optimizer.init(policy), policy, divergence=divergence)
    return optax.apply_updates(policy, update)


# %% [markdown]
# ## A pole on a cart <!-- S16 -->
#
# A cart balances a pole (Barto, Sutton and Anderson 1983), up to 500 steps of 20 ms. Sixteen carts run at a time, 128
# steps an iteration. Then the policy ascends the surrogate, whose advantages are generalised (Schulman et al. 2016), by
# ten steps of Adam.

# %%
CARTS, STEPS, LIMIT, ITERATIONS = 16, 128, 500, 40


def push(state, right):
    """State `[4, n]` after one step of 20 ms: positions, speeds, angles and turning rates of n carts."""
    x, speed, angle, turn = state
    force, gravity, pole, length, total = jnp.where(right, 10.0, -10.0), 9.8, 0.1, 0.5, 1.1
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    thrust = (force + pole * length * turn**2 * sin) / total
    turning = (gravity * sin - cos * thrust) / (length * (4 / 3 - pole * cos**2 / total))
    pushed = thrust - pole * length * turning * cos / total
    return jnp.stack([x + 0.02 * speed, speed + 0.02 * pushed, angle + 0.02 * turn, turn + 0.02 * turning])


def network(params, states):
    """One output `[...]` for states `[..., 4]`: the logit of a push to the right, or the value."""
    (weight, bias), (out, out_bias) = params
    return (jnp.tanh(states * jnp.array([1.0, 0.5, 5.0, 0.5]) @ weight + bias) @ out + out_bias)[..., 0]


class Steps(NamedTuple):
    """What happened `[STEPS, CARTS]`: states before and after, pushes, their logits, and how episodes ended."""

    states: jax.Array
    following: jax.Array
    right: jax.Array
    logits: jax.Array
    fell: jax.Array
    over: jax.Array
    lengths: jax.Array  # of episodes that ended, else 0


def drive(policy, carts, key):
    """The carts after 128 steps, and what happened."""

    def step(carts, draw):
        (states, ages), (chance, fresh) = carts, draw
        logits = network(policy, states)
        right = chance < jax.nn.sigmoid(logits)
        following, ages = push(states.T, right).T, ages + 1
        fell = (jnp.abs(following[:, 0]) > 2.4) | (jnp.abs(following[:, 2]) > 12 * jnp.pi / 180)
        over = fell | (ages >= LIMIT)
        carts = jnp.where(over[:, None], fresh, following), jnp.where(over, 0, ages)
        return carts, Steps(states, following, right, logits, fell, over, jnp.where(over, ages, 0))

    chance_key, fresh_key = jax.random.split(key)
    fresh = jax.random.uniform(fresh_key, (STEPS, CARTS, 4), minval=-0.05, maxval=0.05)
    return jax.lax.scan(step, carts, (jax.random.uniform(chance_key, (STEPS, CARTS)), fresh))


def generalised_advantages(value, steps, discount=0.99, decay=0.95):
    """Advantages and returns, `[STEPS, CARTS]` each."""
    now, then = network(value, steps.states), network(value, steps.following)
    surprises = 1 + discount * jnp.where(steps.fell, 0, then) - now

    def back(later, now):
        surprise, over = now
        here = surprise + discount * decay * jnp.where(over, 0, later)
        return here, here

    _, advantages = jax.lax.scan(back, jnp.zeros(CARTS), (surprises, steps.over), reverse=True)
    return advantages, advantages + now


class Batch(NamedTuple):
    """States `[n, 4]`, and of each the push, its logit under the old policy, and its advantage, standardised."""

    states: jax.Array
    right: jax.Array
    old_logits: jax.Array
    advantages: jax.Array


def log_probability(logits, right):
    return jax.nn.log_sigmoid(jnp.where(right, logits, -logits))


def divergence_from_old(policy, batch):
    """KL(old || policy) in nats, averaged over the states."""
    return jnp.mean(jax.vmap(bernoulli.kl)(batch.old_logits, network(policy, batch.states)))


def ratio(policy, batch):
    logits = network(policy, batch.states)
    return jnp.exp(log_probability(logits, batch.right) - log_probability(batch.old_logits, batch.right))


def surrogate(policy, batch, _coefficient):
    return -jnp.mean(ratio(policy, batch) * batch.advantages)


def clipped_surrogate(policy, batch, _coefficient):
    r = ratio(policy, batch)
    return -jnp.mean(jnp.minimum(r * batch.advantages, jnp.clip(r, 0.8, 1.2) * batch.advantages))


def penalised_surrogate(policy, batch, coefficient):
    return surrogate(policy, batch, coefficient) + coefficient * divergence_from_old(policy, batch)


# %% [markdown]
# ## Seven methods
#
# - *One step*: a single step of Adam, the plain policy gradient. *Ten steps*: as they are.
# - *Clipped gradient*: gradients of a norm above 0.5 are scaled down to it.
# - *PPO, clipped ratio* (Schulman et al. 2017): no reward for ratios outside of 0.8 to 1.2.
# - *PPO, KL penalty*: the surrogate less $\beta \, \mathrm{KL}(\pi_\text{old} \,\|\, \pi)$, where $\beta$ doubles or
#   halves after each iteration, until the divergence is at its target, 0.01.
# - *Ten steps, KL bounded*: the ten steps, and then their sum is shortened until the divergence is at most 0.01.
# - *TRPO* (Schulman et al. 2015): one natural gradient, as long as the bound on the divergence allows. Its damping was
#   chosen on other seeds.
#
# The knob is the learning rate, of TRPO the bound, over the same four values. It is chosen for each seed by the returns
# of the others. A method is a function from `(policy, state of Adam, batch, coefficient)` to the next policy and state.


# %%
def ascend(optimizer, loss, steps=10):
    def improve(policy, state, batch, coefficient):
        def step(carry, _):
            policy, state = carry
            updates, state = optimizer.update(jax.grad(loss)(policy, batch, coefficient), state)
            return (optax.apply_updates(policy, updates), state), None

        return jax.lax.scan(step, (policy, state), length=steps)[0]

    return improve


def methods(knob):
    """Every method, for a learning rate or bound."""
    adam = optax.adam(knob)
    # Clipping has no state of its own, so that the state of Adam serves all methods.
    clipping = optax.clip_by_global_norm(0.5)
    clipped_adam = optax.GradientTransformation(
        adam.init, lambda gradient, state: adam.update(clipping.update(gradient, optax.EmptyState())[0], state)
    )

    def ten_bounded(policy, state, batch, coefficient):
        new, state = ascend(adam, surrogate)(policy, state, batch, coefficient)
        return bounded(policy, new, lambda new: divergence_from_old(new, batch)), state

    def natural(policy, state, batch, coefficient):
        gradient = jax.grad(surrogate)(policy, batch, coefficient)
        return trpo(policy, gradient, lambda new: divergence_from_old(new, batch), knob), state

    return {
        "one step": ascend(adam, surrogate, steps=1),
        "ten steps": ascend(adam, surrogate),
        "ten steps, clipped gradient": ascend(clipped_adam, surrogate),
        "PPO, clipped ratio": ascend(adam, clipped_surrogate),
        "PPO, KL penalty": ascend(adam, penalised_surrogate),
        "ten steps, KL bounded": ten_bounded,
        "TRPO": natural,
    }


def learn(number, knob, key):
    """Average length of the episodes that end, and the divergence of the step, `[ITERATIONS]` each."""
    adam, regression = optax.adam(knob), optax.adam(1e-2)
    controller = transforms.adaptive_coefficient(BOUND, transforms.doubling())

    def iterate(carry, key):
        policy, policy_state, value, value_state, carts, penalty = carry
        carts, steps = drive(policy, carts, key)
        advantages, returns = generalised_advantages(value, steps)
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        parts = Batch(steps.states, steps.right, steps.logits, advantages)
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)
        policy, policy_state = jax.lax.switch(
            number, list(methods(knob).values()), policy, policy_state, batch, penalty.coefficient
        )

        def regress(carry, _):
            value, state = carry
            loss = lambda value: jnp.mean((network(value, batch.states) - returns.ravel()) ** 2)  # noqa: E731
            updates, state = regression.update(jax.grad(loss)(value), state)
            return (optax.apply_updates(value, updates), state), None

        (value, value_state), _ = jax.lax.scan(regress, (value, value_state), length=10)
        moved, ended = divergence_from_old(policy, batch), jnp.sum(steps.over)
        length = jnp.where(ended > 0, jnp.sum(steps.lengths) / jnp.maximum(ended, 1), LIMIT)
        return (policy, policy_state, value, value_state, carts, controller.update(moved, penalty)), (length, moved)

    policy_key, value_key, cart_key, key = jax.random.split(key, 4)
    (hidden, (weight, bias)), value = (common.init_mlp(key, [4, 32, 1]) for key in (policy_key, value_key))
    policy = [hidden, (0.1 * weight, bias)]  # at first nearly indifferent
    carts = jax.random.uniform(cart_key, (CARTS, 4), minval=-0.05, maxval=0.05), jnp.zeros(CARTS, int)
    carry = policy, adam.init(policy), value, regression.init(value), carts, controller.init()
    return jax.lax.scan(iterate, carry, jax.random.split(key, ITERATIONS))[1]


METHODS = list(methods(0.0))
KNOBS = np.array([1e-3, 3e-3, 1e-2, 3e-2])
keys = jax.vmap(jax.random.key)(jnp.array(SEEDS))
# One compiled function, and in it `lax.switch`, serve all methods.
learn_all = jax.jit(jax.vmap(jax.vmap(learn, in_axes=(None, None, 0)), in_axes=(None, 0, None)))
runs = {
    name: [np.asarray(x) for x in learn_all(number, jnp.asarray(KNOBS, jnp.float32), keys)]
    for number, name in enumerate(tqdm(METHODS, desc="cart and pole"))
}
last_returns = {name: lengths[..., -10:].mean(axis=-1) for name, (lengths, _) in runs.items()}  # [knob, seed]


def at_best(scores):
    """Scores `[knob, seed]` of each seed at the knob that is best for the other seeds, and these knobs' positions."""
    others = (scores.sum(axis=1, keepdims=True) - scores).argmax(axis=0)
    return scores[others, np.arange(scores.shape[1])], others


def bad_runs(name):
    """How many of the runs at the three larger knobs end below 400."""
    return int(np.sum(last_returns[name][1:] < 400))


tuned = {name: at_best(scores)[0] for name, scores in last_returns.items()}
print("Return of the last ten iterations (at most 500), mean ± sd of 10 seeds, by learning rate (TRPO: by bound)")
print(f"{'':28s}" + "".join(f"{knob:>11g}" for knob in KNOBS) + f"{'tuned':>11s}{'bad runs':>10s}{'largest KL':>12s}")
for name, scores in last_returns.items():
    row = "".join(f"{spread(x, 0):>11s}" for x in (*scores, tuned[name]))
    print(f"{name:28s}{row}{f'{bad_runs(name)} of {3 * len(SEEDS)}':>10s}{runs[name][1].max():12.2g}")

# %%
plt.rcParams["axes.titlesize"] = "medium"
figure, (by_method, by_step) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
for row, name in enumerate(reversed(METHODS)):
    color = common.VERMILION if name in ("ten steps, KL bounded", "TRPO") else common.BLUE
    by_method.plot(last_returns[name].mean(axis=-1), [row - 0.25] * len(KNOBS), "|", color=color, markersize=9)
    by_method.errorbar(tuned[name].mean(), row, xerr=tuned[name].std(ddof=1), fmt="o", capsize=3, color=color)
    by_step.plot(runs[name][1].max(axis=(-2, -1)), [row] * len(KNOBS), "|", color=color, markersize=15)
by_method.set_yticks(range(len(METHODS)), list(reversed(METHODS)))
by_method.set_xlabel("length of the last episodes in steps\n(● tuned, mean ± sd of 10 seeds; | each value of the knob)")
by_method.set_title("Tuned, most methods tie; bounded by KL,\nten steps do well at any learning rate")
by_step.axvline(BOUND, linestyle=":", color=common.BLACK)
by_step.set(xscale="log", xlabel="largest KL(old || new) of an iteration in nats\n(| each value of the knob)")
by_step.set_title("Only a bound holds in every iteration\n(0.01; of TRPO the knob)")
common.save_figure(figure, "policy_optimisation.png")

# %% [markdown]
# ## When not to use it
#
# - Where the learning rate is tuned anyway: ten plain steps and PPO then tie with the bounded steps.
# - As a penalty: it holds its target on average only, and 17 of its 30 runs at larger rates are bad.
# - TRPO with a wide bound: it fills its bound in one step and wants a tight one, 0.001 here.
# - As a guarantee: bad runs within the bound are rare, not impossible.
#
# Runs of this kind are chaotic: another processor rounds otherwise and moves each figure by some tens of steps, so the
# claims below are about ten seeds and large differences. They hold with the seeds 10 to 19 as well. The policy starts
# nearly indifferent, its last weights times 0.1; without that all methods fail more often.

# %%
larger_rates = {name: scores[1:].mean(axis=0) for name, scores in last_returns.items()}  # [seed]
over_ten, over_clipped = (
    larger_rates["ten steps, KL bounded"] - larger_rates[name] for name in ("ten steps", "ten steps, clipped gradient")
)
largest_kl = {name: kls.max() for name, (_, kls) in runs.items()}
over_bound = max(kl.max() / knob for kl, knob in zip(runs["TRPO"][1], KNOBS, strict=True))
bad = {name: bad_runs(name) for name in METHODS}

# Bounds hold in every iteration; without one, steps are huge, and at large rates learning fails.
assert largest_kl["ten steps, KL bounded"] < 1.01 * BOUND
assert over_bound < 1.01
assert largest_kl["ten steps"] > 1
assert tuned["TRPO"].mean() > 450
assert tuned["ten steps, KL bounded"].mean() > 450
assert tuned["ten steps, KL bounded"].mean() > tuned["ten steps"].mean() - 30
assert over_ten.mean() > 50
assert over_clipped.mean() > 50
for name in ("ten steps", "ten steps, clipped gradient", "PPO, KL penalty"):
    assert bad["ten steps, KL bounded"] < bad[name]
print("All claims hold.")

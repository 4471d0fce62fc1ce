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
# # KL in reinforcement learning
#
# A policy $\pi$ is improved by data that an older policy drew, or by a reward that is only a model of what is wanted;
# either way it is to earn more without going far from where it started:
#
# $$\max_\pi \; \mathrm{E}_\pi[\text{reward}] - \beta \, \mathrm{KL}(\pi \,\|\, \pi_0).$$
#
# What does the divergence buy over a tuned learning rate, clipping, early stopping or the best of many draws, and how
# is it estimated, and differentiated, from samples?

# %%
import itertools
import math
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
from tqdm import tqdm

from jaxdiv import bernoulli, estimators, gaussian, losses, simplex, transforms

SEEDS = range(5)


def spread(values, digits=0):
    """Mean and standard deviation over the seeds."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


# %% [markdown]
# ## Control that is paid for in KL
# <!-- S03 -->
#
# On the frozen lake of 8 x 8 cells (the map of Gym's FrozenLake) a walker drifts to a random neighbour; a step against
# the edge stays where it is. Each step costs 0.1, a hole (H) ends the walk at 12, the goal (G) for nothing. Whoever
# changes the drift $P$ into a policy $\pi$ pays $\lambda \, \mathrm{KL}(\pi(\cdot | s) \,\|\, P(\cdot | s))$ at every
# step. Then the best cost-to-go is $-\lambda \log z$ with $z = e^{-q / \lambda} P z$: the optimum of a control problem
# by one linear system (Todorov 2006, 2009), and the best policy is $\pi(s' | s) \propto P(s' | s) \, z(s')$.

# %%
jax.config.update("jax_enable_x64", True)  # for this section alone

LAKE = """
SFFFFFFF
FFFFFFFF
FFFHFFFF
FFFFFHFF
FFFHFFFF
FHHFFFHF
FHFFHFHF
FFFHFFFG
"""
cells = np.array([list(row) for row in LAKE.split()])
ends = np.isin(cells, ["H", "G"]).ravel()
cost = np.select([cells == "H", cells == "G"], [12.0, 0.0], 0.1).ravel()
START, GOAL = 0, 63


def drift():
    """Probabilities `[64, 64]` of the next cell where nobody steers."""
    matrix = np.zeros((64, 64))
    for i, j in itertools.product(range(8), range(8)):
        for di, dj in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            matrix[8 * i + j, 8 * np.clip(i + di, 0, 7) + np.clip(j + dj, 0, 7)] += 0.25
    matrix[ends] = np.eye(64)[ends]
    return matrix


PASSIVE = drift()


def desirability(matrix, price=1.0):
    """The solution z `[64]` of the linear system, for a drift and a price of control."""
    now = np.exp(-cost / price)
    inner = np.where(ends[:, None], 0, now[:, None] * matrix)
    return np.linalg.solve(np.eye(64) - inner, np.where(ends, now, 0))


def controlled(price=1.0):
    """The best policy `[64, 64]` at a price."""
    return np.asarray(simplex.from_counts(PASSIVE * desirability(PASSIVE, price)))


def visits(policy):
    """Expected visits `[64]` of each cell, from the start on."""
    return np.linalg.solve(np.eye(64) - np.where(ends[:, None], 0, policy).T, np.eye(64)[START])


class Walk(NamedTuple):
    """What a policy expects: the cost without control, KL from the drift in nats, and the chance of the goal."""

    cost: float
    kl: float
    goal: float


kl_of_rows = jax.jit(jax.vmap(simplex.kl))


def walk(policy):
    """Expectations, without sampling."""
    often = visits(policy)
    return Walk(often @ cost, float(often @ kl_of_rows(policy, PASSIVE)), often[GOAL])


best = controlled()
value = -np.log(desirability(PASSIVE))
residual = np.abs(np.where(ends, cost, cost + kl_of_rows(best, PASSIVE) + best @ value) - value).max()

# %% [markdown]
# The controls know nothing of the divergence: value iteration on the same costs alone, whose policy takes the cheapest
# next cell, at random where several are; it is softened in two ways to spend less, by mixing with the drift, and as a
# Boltzmann policy $\propto P e^{-J / \tau}$ of its cost-to-go $J$. Then 1200 random perturbations of the best policy.
# What such a policy pays above the optimum is a divergence again, $\sum_s n(s) \, \mathrm{KL}(\pi \,\|\, \pi^*)$ over
# its visits $n$.


# %%
def cost_to_go():
    """Value iteration `[64]` where control is free: any neighbour can be reached for sure."""
    reach = np.where(ends, cost, 1e3)
    for _ in range(64):
        reach = np.where(ends, cost, cost + np.where(PASSIVE > 0, reach, np.inf).min(axis=1))
    return reach


free = cost_to_go()
cheapest = np.where(PASSIVE > 0, free, np.inf)
greedy = np.asarray(simplex.from_counts(PASSIVE * (cheapest == cheapest.min(axis=1, keepdims=True))))


def boltzmann(temperature):
    return np.asarray(simplex.from_counts(PASSIVE * np.exp(-free / temperature)))


prices = np.geomspace(0.03, 30, 61)
FRONTIERS = {
    "KL control": [walk(controlled(price)) for price in prices],
    "Boltzmann policy": [walk(boltzmann(price)) for price in prices],
    "mixed with the drift": [walk(share * greedy + (1 - share) * PASSIVE) for share in np.linspace(0, 1, 61)],
}


def above_optimum(name, price):
    """What the best policy of a family pays above the optimum, at a price of control."""
    least = -price * np.log(desirability(PASSIVE, price)[START])
    return min(x.cost + price * x.kl for x in FRONTIERS[name]) - least


perturbations = np.random.default_rng(0).normal(size=(4, 300, 64, 64))
sizes = np.array([0.03, 0.1, 0.3, 1.0])[:, None, None, None]
perturbed = np.asarray(simplex.from_counts(best * np.exp(sizes * perturbations))).reshape(-1, 64, 64)
walks = [walk(policy) for policy in perturbed]
excess = np.array([x.cost + x.kl for x in walks]) - value[START]
predicted = np.array([visits(policy) @ kl_of_rows(policy, best) for policy in perturbed])


@jax.jit
def simulate(policy, key, walkers=20_000):
    """Total cost of each walk, control included, and where it ended."""
    steer = jnp.asarray(cost) + jnp.where(ends, 0, kl_of_rows(policy, PASSIVE))
    upto = jnp.cumsum(policy, axis=1)

    def step(carry):
        where, paid, key = carry
        key, draw = jax.random.split(key)
        chance = jax.random.uniform(draw, (walkers, 1))
        following = jnp.minimum(jnp.sum(chance > upto[where], axis=1), 63)
        moves = ~jnp.asarray(ends)[where]
        return jnp.where(moves, following, where), paid + jnp.where(moves, steer[following], 0), key

    start = jnp.full(walkers, START), jnp.full(walkers, steer[START]), key
    where, paid, _ = jax.lax.while_loop(lambda carry: ~jnp.all(jnp.asarray(ends)[carry[0]]), step, start)
    return paid, where


paid, where = simulate(best, jax.random.key(0))
sampled = estimators.Estimate(*map(float, estimators.mean(paid)))

print(f"Bellman residual of the linear system {residual:.0e}; cost from the start {value[START]:.3f},")
print(f"of {len(paid)} walks {sampled.value:.3f} ± {sampled.standard_error:.3f} (standard error), ", end="")
print(f"of which {100 * np.mean(where == GOAL):.1f} % reach the goal.")
print(f"{'':32s}{'cost':>8s}{'KL in nats':>12s}{'together':>10s}{'goal':>8s}")
WALKS = {"drift": walk(PASSIVE), "value iteration without KL": walk(greedy), "KL control": walk(best)}
for name, x in WALKS.items():
    print(f"{name:32s}{x.cost:8.2f}{x.kl:12.2f}{x.cost + x.kl:10.2f}{100 * x.goal:6.1f} %")
print(f"Perturbed policies pay {excess.min():.1e} to {excess.max():.1f} more; ", end="")
print(f"the divergence says so to {np.abs(excess - predicted).max():.0e}.")

# %% [markdown]
# Where the drift is only watched, *Z-learning* finds $z$ without a model of it, from transitions $s \to s'$ of the
# drift itself: $z(s) \leftarrow (1 - a) z(s) + a e^{-q(s)} z(s')$. The control is the linear system with the
# transitions that were counted.

# %%
WATCHED, REPORTS = 60_000, 12


@jax.jit
def z_learning(key):
    """Average errors of the cost-to-go `[REPORTS]`, by Z-learning and from counts."""
    inside = np.flatnonzero(~ends)
    terminal, now, upto = jnp.asarray(ends), jnp.exp(-jnp.asarray(cost)), jnp.cumsum(PASSIVE, axis=1)

    def step(carry, draw):
        z, counts, state = carry
        following = jnp.minimum(jnp.sum(draw[0] > upto[state]), 63)
        counts = counts.at[state, following].add(1)
        rate = 30 / (30 + counts[state].sum())  # of 10 to 3000 the best constant, on five other runs
        z = z.at[state].set((1 - rate) * z[state] + rate * now[state] * z[following])
        restart = jnp.asarray(inside)[(draw[1] * len(inside)).astype(int)]
        return (z, counts, jnp.where(terminal[following], restart, following)), None

    def report(carry, draws):
        carry, _ = jax.lax.scan(step, carry, draws)
        return carry, carry[:2]

    draws = jax.random.uniform(key, (REPORTS, WATCHED // REPORTS, 2))
    start = jnp.where(terminal, now, 1.0), jnp.zeros((64, 64)), jnp.asarray(START)
    return jax.lax.scan(report, start, draws)[1]


def cost_error(z):
    return np.abs(-np.log(z) - value)[..., ~ends].mean(axis=-1)


zs, counts = map(np.asarray, jax.vmap(z_learning)(jax.vmap(jax.random.key)(jnp.array(SEEDS))))
z_error = cost_error(zs)
# A cell that was never left is taken to be a hole.
filled = np.where(counts.sum(axis=-1, keepdims=True) > 0, counts, np.eye(64)[np.flatnonzero(cells.ravel() == "H")[0]])
model_error = cost_error(np.array([[desirability(np.asarray(simplex.from_counts(c))) for c in run] for run in filled]))
first_error = cost_error(np.where(ends, np.exp(-cost), 1.0))
print(f"Average error of the cost-to-go, at first {first_error:.2f}; mean ± sd of 5 runs")
for report in (0, 2, REPORTS - 1):
    steps = (report + 1) * WATCHED // REPORTS
    print(f"after {steps:6d} steps: Z-learning {spread(z_error[:, report], 2)}, ", end="")
    print(f"from counts {spread(model_error[:, report], 2)}")

jax.config.update("jax_enable_x64", False)

# %% [markdown]
# ## A policy that moves little at a time
# <!-- S16 -->
#
# A cart balances a pole (Barto, Sutton and Anderson 1983), up to 500 steps of 20 ms. Sixteen carts run at a time, 128
# steps an iteration; then the policy ascends the importance-weighted surrogate of the data just drawn, whose advantages
# are generalised (Schulman et al. 2016), by ten steps of Adam. The data say little about a policy far from the one that
# drew them. The methods differ in what they do about that:
#
# - *one step*: a single step of Adam, the plain policy gradient; *ten steps*: nothing;
# - *clipped gradient*: gradients of a norm above 0.5 are scaled down to it;
# - *PPO, clipped ratio* (Schulman et al. 2017): no reward for ratios outside of 0.8 to 1.2;
# - *PPO, KL penalty*: the surrogate less $\beta \, \mathrm{KL}(\pi_\text{old} \,\|\, \pi)$, where $\beta$ doubles or
#   halves after each iteration, until the divergence is at its target, 0.01;
# - *ten steps, KL bounded*: the ten steps as they are, then their sum is shortened until the divergence is at most
#   0.01;
# - *TRPO* (Schulman et al. 2015): one natural gradient, as long as the bound on the divergence allows. Its damping was
#   chosen on other seeds.
#
# The knob is the learning rate, of TRPO the bound, over the same four values. It is chosen for each seed by the returns
# of the other four. That the policy starts nearly indifferent, its last weights times 0.1, was settled after a look at
# these very seeds: without it runs fail more often, and tuned by so few seeds the bounded ten steps came out behind the
# unbounded (415 ± 148 against 462 ± 23), though with 1 bad run of 15 against 12. In a project of one's own the last two
# methods read

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
# where `divergence(new_policy)` is the average over the states met. The cart, and everything that the methods share:

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
# A method is a function from `(policy, state of Adam, batch, coefficient)` to the next policy and state.


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
print(
    "Return of the last ten iterations (at most 500), mean ± sd of 5 seeds, by learning rate (TRPO: by bound in nats)"
)
print(f"{'':28s}" + "".join(f"{knob:>11g}" for knob in KNOBS) + f"{'tuned':>11s}{'bad runs':>10s}{'largest KL':>12s}")
for name, scores in last_returns.items():
    row = "".join(f"{spread(x):>11s}" for x in (*scores, tuned[name]))
    print(f"{name:28s}{row}{f'{bad_runs(name)} of 15':>10s}{runs[name][1].max():12.2g}")

# %% [markdown]
# ## Estimates from samples, and their gradients
# <!-- E15 -->
#
# With $c = \log p(x) - \log q(x)$ at draws $x$ of $p$, three estimates of $\mathrm{KL}(p \,\|\, q)$ are in use
# (Schulman 2020): $k_1 = c$, $k_2 = c^2 / 2$ and $k_3 = e^{-c} - 1 + c$. His example: $p = N(0, 1)$ and
# $q = N(\mu, 1)$, with divergences of 0.005 and 0.5, against bias and standard deviation in closed form.

# %%
DRAWS = 4_000_000
ESTIMATES = {"k1": estimators.k1, "k2": estimators.k2, "k3": estimators.k3}


def true_moments(shift):
    """Bias and standard deviation of one draw of each estimate, in units of the divergence."""
    square = shift**2
    return {
        "k1": (0.0, 2 / shift),
        "k2": (square / 4, np.sqrt(2 + square)),
        "k3": (0.0, 2 * np.sqrt(np.expm1(square) - square) / square),
    }


PUBLISHED = {0.1: {"k1": 20, "k2": 1.42, "k3": 1.42}, 1.0: {"k1": 2, "k2": 1.73, "k3": 1.7}}
noise = jax.random.normal(jax.random.key(0), (DRAWS,))
draw_moments = {}
print(f"{'KL':>6s}{'':>6s}{'bias/KL':>10s}{'in theory':>11s}{'sd/KL':>8s}{'in theory':>11s}{'published':>11s}")
for shift, published in PUBLISHED.items():
    truth = shift**2 / 2
    log_p, log_q = jax.scipy.stats.norm.logpdf(noise), jax.scipy.stats.norm.logpdf(noise, shift)
    for name, estimate in ESTIMATES.items():
        mean, error = estimators.mean(estimate(log_p, log_q))
        draw_moments[shift, name] = float(mean / truth - 1), float(error * math.sqrt(DRAWS) / truth)
        (bias, sd), (true_bias, true_sd) = draw_moments[shift, name], true_moments(shift)[name]
        print(f"{truth:6.3f}{name:>6s}{bias:10.4f}{true_bias:11.4f}{sd:8.3f}{true_sd:11.3f}{published[name]:11g}")

# %% [markdown]
# As losses they are something else, since the draws come from what is being changed. Below are averages of gradients in
# the mean and the log-scale of $p$, beside the gradients of both divergences. $k_1$ has none; as a reward, times the
# score $\nabla \log p$, it is right, and then equals that of $k_2$ at each draw; $k_3$ follows the other divergence.

# %%
LOC, LOG_SCALE = 0.5, 0.25
STANDARD = gaussian.NormalLogScale(jnp.zeros(()), jnp.zeros(()))
spots = LOC + math.exp(LOG_SCALE) * noise[:1_000_000]


def as_reward(log_p, log_q):
    """The estimate k1 as a cost of the draws, which are constants."""
    return jax.lax.stop_gradient(estimators.k1(log_p, log_q)) * log_p


AS_LOSSES = {
    **ESTIMATES,
    "k1 as reward": as_reward,
    "f_divergence": lambda log_p, log_q: estimators.f_divergence("kl", log_p, log_q),
}


def slopes(estimate):
    """Means and standard errors of the two derivatives."""

    def at(law, x):
        log_p = jax.scipy.stats.norm.logpdf(x, law.loc, jnp.exp(law.log_scale))
        return estimate(log_p, jax.scipy.stats.norm.logpdf(x))

    law = gaussian.NormalLogScale(jnp.asarray(LOC), jnp.asarray(LOG_SCALE))
    each = jax.vmap(jax.grad(at), in_axes=(None, 0))(law, spots)
    return np.array([estimators.mean(x) for x in each])


def true_slopes(divergence):
    law = gaussian.NormalLogScale(jnp.asarray(LOC), jnp.asarray(LOG_SCALE))
    return np.array(jax.grad(divergence)(law))


right = true_slopes(lambda law: gaussian.kl(law, STANDARD))
wrong = true_slopes(lambda law: gaussian.kl(STANDARD, law))
found_slopes = {name: slopes(estimate) for name, estimate in AS_LOSSES.items()}
print(f"Gradients {'in the mean':>21s}{'in the log-scale':>22s}")
for name, truth in {"of KL(p || q)": right, "of KL(q || p)": wrong}.items():
    print(f"{name:16s}{truth[0]:9.4f}{truth[1]:22.4f}")
for name, ((loc, loc_error), (scale, scale_error)) in found_slopes.items():
    print(f"{name:16s}{loc:9.4f} ± {loc_error:.4f}{scale:13.4f} ± {scale_error:.4f}")

# %% [markdown]
# ## A learned reward, and a language model on a leash
# <!-- E06 -->
#
# The third step of learning from human feedback (Ziegler et al. 2019, Ouyang et al. 2022), with letters for words. The
# reference $\pi_0$ writes ten letters by the pairs of neighbouring letters in Python's manual. Wanted are strings like
# the names of characters in HTML (`lesssim`, `boxdr`). A judge compares 2000 pairs of strings of the reference, and
# prefers the more name-like one by the odds of Bradley and Terry, its taste being the log-likelihood ratio of names and
# manual. The reward model has a weight for every pair of letters, fitted to these choices; the policy, one table of
# logits for each of the ten places, is trained by the policy gradient to earn it, less the penalty.
#
# The judge knows half of the names. How close a policy comes to names is the KL divergence of its pairs of letters from
# those of the other half. All of these are sums over a chain, and exact: so is the optimum $\pi_0 e^{r / \beta} / Z$,
# by dynamic programming backwards over the places.

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
# The penalty can enter in several ways. In the reward it is a cost like any other: of letters already drawn, credited
# to those before. As a loss it has a gradient of its own; `sequence_sum` adds the credit that earlier letters deserve
# for later divergences, and terms that are centred make it less noisy. Terms are the whole divergence of the next
# letter, or sampled, as by `f_divergence`. The usual $k_2$ and $k_3$ as losses are summed as they are.


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


def to_come(values):
    """Sums `[n, PLACES]` over this place and all later ones, less their average over the strings: a constant."""
    sums = jnp.cumsum(values[:, ::-1], axis=1)[:, ::-1]
    return jax.lax.stop_gradient(sums - sums.mean(axis=0))


def summed(terms, log_p):
    """The sum over a string, with the right gradient, and a value of no interest."""
    return estimators.sequence_sum(terms - jax.lax.stop_gradient(terms.mean(axis=0)), log_p)


# Costs of strings `[n]`; only their gradients are used.
PENALTIES = {
    "KL in the reward": lambda x: jnp.sum(to_come(estimators.k1(x.log_p, x.log_q)) * x.log_p, axis=1),
    "KL of next letters": lambda x: summed(losses.reverse_kl(x.logits, x.reference_logits), x.log_p),
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
# The optimum has an identity to check everything by: what a policy lacks to it is $\beta \,\mathrm{KL}(\pi \,\|\,
# \pi^*)$. Below is the share of the possible gain in the objective that training reached, at the learning rate that is
# best for the other seeds.

# %%
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

shares = {plan: at_best(reached(*plan))[0] for plan in PLAN if plan[1]}
print(f"The reward model agrees with {100 * float(agreement.mean()):.0f} % of the judge's choices.")
print(f"What is lacking is the divergence from the optimum, to {identity:.0e}.")
print(f"Share of the possible gain in %, mean ± sd of 5 seeds{'rate 0.01':>16s}{'0.03':>12s}{'0.1':>12s}{'tuned':>12s}")
for (name, beta), share in shares.items():
    row = "".join(f"{spread(x, 1):>12s}" for x in (*reached(name, beta), share))
    print(f"{name:24s}beta {beta:<28g}{row}")

# %% [markdown]
# Whether strings come to look like names is another matter. The controls spend their divergence without a penalty:
# *early stopping* of the run without one, at five times, and the *best of n* strings of the reference by the reward
# model, whose divergence is at most $\log n - (n - 1) / n$ (Stiennon et al. 2020, Beirami et al. 2024). Each has five
# values of its knob, and the two that are trained three learning rates; both are chosen by the distance from the judged
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
figure, ((by_price, by_method), (by_leash, by_penalty)) = plt.subplots(2, 2, figsize=(9, 8), layout="constrained")

STYLES = {
    "KL control": (common.VERMILION, "-"),
    "Boltzmann policy": (common.BLUE, "--"),
    "mixed with the drift": (common.GREEN, ":"),
}
for name, (color, style) in STYLES.items():
    by_price.plot(
        [x.kl for x in FRONTIERS[name]], [x.cost for x in FRONTIERS[name]], style, color=color, label=name, linewidth=2
    )
for name in ("drift", "value iteration without KL"):
    x = WALKS[name]
    by_price.plot(x.kl, x.cost, "o", color=common.BLACK)
    offset, alignment = ((8, -4), "left") if name == "drift" else ((14, -17), "right")
    by_price.annotate(name, (x.kl, x.cost), xytext=offset, textcoords="offset points", horizontalalignment=alignment)
by_price.set_xlim(-0.5, 17)
by_price.set_ylim(-0.8, 17)
by_price.set_xlabel("KL from the drift in nats a walk")
by_price.set_ylabel("cost of a walk without control (a pure number)")
by_price.set_title("Frozen lake: at any KL spent,\nKL control costs least")
by_price.legend(frameon=False, loc="upper right")


def ranking(axes, results, best, highlighted, label):
    """Each method's averages by its knob as ticks, and at the knob chosen its mean ± sd; the first one on top."""
    for row, name in enumerate(reversed(results)):
        color = common.VERMILION if name in highlighted else common.BLUE
        axes.plot(results[name].mean(axis=-1), [row - 0.25] * len(results[name]), "|", color=color, markersize=9)
        axes.errorbar(best[name].mean(), row, xerr=best[name].std(ddof=1), fmt="o", capsize=3, color=color)
    axes.set_yticks(range(len(results)), list(reversed(results)))
    axes.set_xlabel(label)


ranking(
    by_method,
    last_returns,
    tuned,
    ["ten steps, KL bounded", "TRPO"],
    "length of the last episodes in steps\n(● tuned, mean ± sd of 5 seeds; | each value of the knob)",
)
by_method.set_title("Cart and pole: tuned, most methods tie; bounded\nby KL, ten steps do well at any learning rate")

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
by_leash.set_xscale("log")
by_leash.set_yscale("log")
by_leash.set_xlim(0.03, 45)
by_leash.set_ylim(0.2, 12)
by_leash.set_yticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
by_leash.set_yticks([], minor=True)
by_leash.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
by_leash.set_xlabel("KL from the reference in nats a string")
by_leash.set_ylabel("KL from unseen names in nats")
by_leash.set_title("Letters: a learned reward is good for 3 nats;\nbeyond, it leads astray")
by_leash.legend(frameon=False, loc="upper left", title="○ each setting, ● the one chosen", alignment="left")

by_estimate = {name: reached(name, STANDARD_BETA) for name in PENALTIES}
ranking(
    by_penalty,
    by_estimate,
    {name: shares[name, STANDARD_BETA] for name in PENALTIES},
    ["KL in the reward", "KL of next letters"],
    f"share of the possible gain in %, β = {STANDARD_BETA:g}\n(● tuned, mean ± sd of 5 seeds; | each learning rate)",
)
by_penalty.set_title("Letters: KL in the reward, or exact at each place,\ntrains best; k3 as a loss worst")
common.save_figure(figure, "06_reinforcement.png")

# %% [markdown]
# ## Conclusion

# %%
drifting, forced, steered = (x.cost + x.kl for x in WALKS.values())

larger_rates = {name: scores[1:].mean(axis=0) for name, scores in last_returns.items()}  # [seed]
over_ten, over_clipped = (
    larger_rates["ten steps, KL bounded"] - larger_rates[name] for name in ("ten steps", "ten steps, clipped gradient")
)
largest_kl = {name: kls.max() for name, (_, kls) in runs.items()}
over_bound = max(kl.max() / knob for kl, knob in zip(runs["TRPO"][1], KNOBS, strict=True))
bad = {name: bad_runs(name) for name in METHODS}
scored = {name: spread(scores) for name, scores in tuned.items()}

distance = {name: results[:, 3] for name, results in leashed.items()}
over_stopping, over_best_of = (distance[name] - distance["KL penalty"] for name in ("early stopping", "best of n"))
in_reward, next_letters, unbiased, second, third = (shares[name, STANDARD_BETA] for name in PENALTIES)
loose_kl, loose_distance = leashed["no penalty"][:, 1].mean(), distance["no penalty"].mean()
at_first, at_last = distance["reference"].mean(), spread(distance["KL penalty"], 3)
ten, ten_clipped, ten_bounded = "ten steps", "ten steps, clipped gradient", "ten steps, KL bounded"
ratios, penalty = "PPO, clipped ratio", "PPO, KL penalty"

print(f"""\
KL control: one linear system gives the policy that costs {steered:.2f}, its control included. Drifting costs
{drifting:.2f}, value iteration without the KL term {forced:.2f}: it forces every step, also where the drift would do.
At no KL spent does a control cost less. Z-learning needs no model and gets there slowly; where the same transitions
are counted, the linear system is better.

Policy optimisation: tuned, the ten steps reach {scored[ten]}, bounded by KL {scored[ten_bounded]},
TRPO {scored["TRPO"]}, PPO with clipped ratios {scored[ratios]}: most of that is tuning. What the bound buys is
reliability. Over the three larger learning rates it makes the ten steps better by {spread(over_ten)},
with {bad[ten_bounded]} bad runs of 15 against {bad[ten]}. Clipped gradients do not give that ({bad[ten_clipped]} bad
runs), clipped ratios not here ({bad[ratios]}), nor does a penalty, which holds its target on average only
({bad[penalty]}). TRPO fills its bound in one step and wants a tighter one ({bad["TRPO"]} bad runs).

Estimates: the published table is right, and k1 has the most noise near equality. As losses k1 has no gradient, k3
that of the other divergence, k2 the right one; as a reward k1 is right too.

Feedback: without a penalty the policy moves {loose_kl:.0f} nats, {variety["no penalty"]:.1f} % of its strings are
distinct, and it ends further from names, at {loose_distance:.1f} nats, than it began, at {at_first:.2f}. With the
penalty it comes to {at_last}. Early stopping stays {spread(over_stopping, 3)} behind. The best of {drawn_from} strings
is no worse than the penalty (it is behind by {spread(over_best_of, 3)}), but draws {drawn_from} for each one it keeps.
Of the possible gain in the objective, KL in the reward reaches {spread(in_reward, 1)} %, the KL of next letters
{spread(next_letters, 1)}, f_divergence {spread(unbiased, 1)}: unbiased, and noisier; k2 as a loss {spread(second, 1)},
k3 {spread(third, 1)}: they leave out what earlier letters lead to, and k3 is wrong besides.""")

# %% [markdown]
# The claims, with margins that allow for other processors and versions of JAX. They also hold with the seeds 5 to 9.
# Bad runs within the bound are rare, not impossible: with the seeds 20 to 29 there are 2 of 30.

# %%
# S03: the linear system solves the control problem; nothing else does, at any price.
assert residual < 1e-10
assert abs(sampled.value / value[START] - 1) < 0.01
assert abs(sampled.value - value[START]) < 4 * sampled.standard_error
assert excess.min() > 0
assert np.abs(excess - predicted).max() < 1e-9 * excess.max()
assert WALKS["KL control"].goal > 0.95 > 0.01 > WALKS["drift"].goal
for name in ("Boltzmann policy", "mixed with the drift"):
    assert min(above_optimum(name, price) for price in (0.1, 0.3, 1.0, 3.0)) > 0
assert z_error[:, -1].mean() < 0.1 * first_error
assert model_error[:, -1].mean() < z_error[:, -1].mean()

# S16: bounds hold in every iteration; without one, steps are huge, and at large rates learning fails.
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

# E15: the published table, and whose gradient each estimate has.
for (shift, name), (bias, sd) in draw_moments.items():
    true_bias, true_sd = true_moments(shift)[name]
    assert abs(bias - true_bias) < 5 * true_sd / math.sqrt(DRAWS)
    assert abs(sd / true_sd - 1) < 0.02
    assert abs(sd / PUBLISHED[shift][name] - 1) < 0.02
for name, truth in {"k1": 0 * right, "k2": right, "k3": wrong, "k1 as reward": right, "f_divergence": right}.items():
    assert np.all(np.abs(found_slopes[name][:, 0] - truth) < 5 * found_slopes[name][:, 1])
assert np.all(np.abs(found_slopes["k3"][:, 0] - right) > 20 * found_slopes["k3"][:, 1])

# E06: the identity; training comes close to the optimum; the leash has a best length; which estimates serve as losses.
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

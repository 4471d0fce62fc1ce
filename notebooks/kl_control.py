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
# # KL control: the best policy by one linear system
#
# A process drifts, and whoever steers it pays for each step by the KL divergence from the drift. Which policy costs
# least, and what does it save against the cheapest path?
#
# One linear system gives that policy: on the frozen lake it costs 10.30 with its control (10.35 ± 0.02, the standard
# error of 20 000 walks), where drifting costs 15.18 and value iteration without the KL term 16.60.
#
# With state costs $q$, a drift $P$ and a price $\lambda$ of control, the policy $\pi$ pays $q(s) + \lambda \,
# \mathrm{KL}(\pi(\cdot | s) \,\|\, P(\cdot | s))$ at every step. The best cost-to-go is $-\lambda \log z$ with
#
# $$z = e^{-q / \lambda} P z, \qquad \pi(s' | s) \propto P(s' | s) \, z(s') \qquad \text{(Todorov 2006, 2009).}$$

# %%
import itertools
from typing import NamedTuple

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import spread

from jaxdiv import estimators, simplex

jax.config.update("jax_enable_x64", True)
SEEDS = range(5)

# %% [markdown]
# ## The lines to paste


# %%
def desirability(drift, cost, ends, price=1.0):
    """The solution z `[state]` of the linear system: minus its logarithm, times the price, is the cost-to-go."""
    now = np.exp(-cost / price)
    inner = np.where(ends[:, None], 0, now[:, None] * drift)
    return np.linalg.solve(np.eye(len(cost)) - inner, np.where(ends, now, 0))


def controlled(drift, cost, ends, price=1.0):
    """The best policy `[state, next state]` at a price of control."""
    return np.asarray(simplex.from_counts(drift * desirability(drift, cost, ends, price)))


# %% [markdown]
# ## The frozen lake <!-- S03 -->
#
# On the 8 x 8 cells of Gym's FrozenLake a walker drifts to a random neighbour; a step against the edge stays where it
# is. Each step costs 0.1. A hole (H) ends the walk at a cost of 12, the goal (G) at none.

# %%
LAKE = "SFFFFFFF FFFFFFFF FFFHFFFF FFFFFHFF FFFHFFFF FHHFFFHF FHFFHFHF FFFHFFFG"
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


LAKE_RULES = PASSIVE, cost, ends
best = controlled(*LAKE_RULES)
value = -np.log(desirability(*LAKE_RULES))
residual = np.abs(np.where(ends, cost, cost + kl_of_rows(best, PASSIVE) + best @ value) - value).max()

# %% [markdown]
# The controls know nothing of the divergence: value iteration on the same costs, whose policy takes the cheapest next
# cell, at random where several are; and the same softened, by mixing with the drift, or as a Boltzmann policy
# $\propto P e^{-J / \tau}$ of its cost-to-go $J$. Then come 1200 random perturbations of the best policy. What such a
# policy pays above the optimum is a divergence too: $\sum_s n(s) \, \mathrm{KL}(\pi \,\|\, \pi^*)$ for its visits $n$.


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
    "KL control": [walk(controlled(*LAKE_RULES, price)) for price in prices],
    "Boltzmann policy": [walk(boltzmann(price)) for price in prices],
    "mixed with the drift": [walk(share * greedy + (1 - share) * PASSIVE) for share in np.linspace(0, 1, 61)],
}


def above_optimum(name, price):
    """What the best policy of a family pays above the optimum, at a price of control."""
    least = -price * np.log(desirability(*LAKE_RULES, price)[START])
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
# ## Z-learning
#
# Where the drift is only watched, $z$ is found without a model of it, from transitions $s \to s'$ of the drift itself:
# $z(s) \leftarrow (1 - a) z(s) + a e^{-q(s)} z(s')$. The control is the linear system with the transitions that were
# counted.

# %%
WATCHED, REPORTS = 60_000, 12


@jax.jit
def z_learning(key):
    """The estimate of z and the transitions counted so far, at each report."""
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
shares = np.asarray(simplex.from_counts(filled))
model_error = cost_error(np.array([[desirability(matrix, cost, ends) for matrix in run] for run in shares]))
first_error = cost_error(np.where(ends, np.exp(-cost), 1.0))
print(f"Average error of the cost-to-go, at first {first_error:.2f}; mean ± sd of 5 runs")
for report in (0, 2, REPORTS - 1):
    steps = (report + 1) * WATCHED // REPORTS
    print(f"after {steps:6d} steps: Z-learning {spread(z_error[:, report], 2)}, ", end="")
    print(f"from counts {spread(model_error[:, report], 2)}")

# %%
plt.rcParams["axes.titlesize"] = "medium"
figure, (by_price, by_step) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
STYLES = {
    "KL control": (common.VERMILION, "-"),
    "Boltzmann policy": (common.BLUE, "--"),
    "mixed with the drift": (common.GREEN, ":"),
}
for name, (color, style) in STYLES.items():
    costs, divergences = zip(*(x[:2] for x in FRONTIERS[name]), strict=True)
    by_price.plot(divergences, costs, style, color=color, label=name, linewidth=2)
for name in ("drift", "value iteration without KL"):
    x = WALKS[name]
    by_price.plot(x.kl, x.cost, "o", color=common.BLACK)
    offset, alignment = ((8, -4), "left") if name == "drift" else ((14, -17), "right")
    by_price.annotate(name, (x.kl, x.cost), xytext=offset, textcoords="offset points", horizontalalignment=alignment)
by_price.set(xlabel="KL from the drift in nats a walk", ylabel="cost of a walk without control")
by_price.set(xlim=(-0.5, 17), ylim=(-0.8, 17))
by_price.set_title("Frozen lake: at any KL spent,\nKL control costs least")
by_price.legend(frameon=False, loc="upper right")

reports = WATCHED // REPORTS * np.arange(1, REPORTS + 1) / 1000
for name, errors, color, style in (
    ("Z-learning", z_error, common.VERMILION, "o-"),
    ("linear system of counts", model_error, common.BLUE, "s--"),
):
    by_step.errorbar(reports, errors.mean(0), errors.std(0, ddof=1), fmt=style, capsize=3, color=color, label=name)
by_step.axhline(first_error, linestyle=":", color=common.BLACK, label="before")
by_step.set(yscale="log", xlabel="steps watched, thousands", ylabel="mean error of the cost-to-go", ylim=(0.02, 80))
by_step.set_title("Z-learning needs no model,\nand learns more slowly")
by_step.legend(frameon=False)
common.save_figure(figure, "kl_control.png")

# %% [markdown]
# ## When not to use it
#
# - Where steering is free: value iteration then costs less, 1.40 against 3.38 without the control.
# - Where steering is not a change of probabilities: the linear system knows no other price of an action.
# - Z-learning where transitions can be counted: the linear system makes better use of the same steps.

# %%
# The linear system solves the control problem; nothing else does, at any price.
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
print("All claims hold.")

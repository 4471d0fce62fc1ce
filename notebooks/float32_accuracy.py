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
# # Float32: the divergence of nearly equal laws
#
# At the end of a training run, between two successive policies or posteriors, two Gaussians differ little. How much of
# their KL divergence survives float32?
#
# Of the textbook formula little: where the laws differ by 1e-4 its median error is 90 % of the divergence, at 1e-5 it
# is 76 times the divergence, and 48 % of its values are negative. `gaussian.kl` is right to 6e-8 at every distance.
#
# For $p = N(\mu_p, L_p L_p')$ and $q = N(\mu_q, L_q L_q')$ of $d$ components, with lower triangular $L$, textbooks say
#
# $$\mathrm{KL}(p \,\|\, q) = \sum_i \log \frac{L_{q,ii}}{L_{p,ii}}
#   + \tfrac12 \bigl( \|L_q^{-1} L_p\|^2 + \|L_q^{-1} (\mu_p - \mu_q)\|^2 - d \bigr).$$
#
# These terms are of size $d$, so each value is wrong by about $d$ times the rounding error 6e-8, while the divergence
# falls as the square of the difference. `gaussian.kl` takes the differences $L_p - L_q$ and $\mu_p - \mu_q$ first, and
# then adds only terms that are not negative.

# %%
import decimal
import importlib.util

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from jaxdiv import gaussian

# %% [markdown]
# ## The lines to paste


# %%
@jax.jit
def kl_and_gradients(p, q):
    """KL(p || q) in nats of pairs of laws, every array `[pair, ...]`, and the gradients with respect to p."""
    return jax.vmap(jax.value_and_grad(gaussian.kl))(p, q)


# %% [markdown]
# ## Formulas and the truth
#
# The pairs are random, 100 with $d = 4$ for each of seven distances: every number of $q$ differs from that of $p$ by a
# relative 1e-1 to 1e-7, times a standard normal variable. The controls are the textbook formula, and distrax where that
# is installed. The truth is the textbook formula for the same float32 numbers, in 50 decimal digits.

# %%
DIFFERENCES = 10.0 ** -np.arange(1, 8)
PAIRS, DIMENSION = 100, 4


def random_pairs(rng):
    """Pairs of laws in float32; every array begins with the axes `[difference, pair]`."""
    shape = (len(DIFFERENCES), PAIRS, DIMENSION)
    root = np.tril(0.5 * rng.standard_normal((*shape, DIMENSION)), -1)
    root += np.exp(0.5 * rng.standard_normal(shape))[..., None] * np.eye(DIMENSION)
    p = gaussian.MultivariateNormal(rng.standard_normal(shape), root)

    def nearby(x):
        size = DIFFERENCES.reshape(-1, *[1] * (x.ndim - 1))
        return x * (1 + size * rng.standard_normal(x.shape))

    q = jax.tree.map(nearby, p)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (p, q))


def textbook_kl(p, q):
    """The formula above, term by term."""
    logs = jnp.log(jnp.diagonal(q.scale_tril)) - jnp.log(jnp.diagonal(p.scale_tril))
    whitened = jax.scipy.linalg.solve_triangular(q.scale_tril, p.scale_tril, lower=True)
    shift = jax.scipy.linalg.solve_triangular(q.scale_tril, p.loc - q.loc, lower=True)
    return jnp.sum(logs) + 0.5 * (jnp.sum(whitened**2) + jnp.sum(shift**2) - len(p.loc))


def distrax_kl(p, q):
    import distrax

    return distrax.MultivariateNormalTri(*p).kl_divergence(distrax.MultivariateNormalTri(*q))


FORMULAS = {"textbook": textbook_kl, "jaxdiv": gaussian.kl}
if importlib.util.find_spec("distrax"):
    FORMULAS["distrax"] = distrax_kl

# %% [markdown]
# The truth comes from neither: it is the textbook formula again, for the same float32 numbers, in 50 decimal digits.


# %%
def solve_lower(lower, right):
    """The solution x of lower @ x = right, for arrays of `Decimal`."""
    solution = np.zeros_like(right)
    for i in range(len(right)):
        solution[i] = (right[i] - lower[i] @ solution) / lower[i, i]
    return solution


def solve_transposed(lower, right):
    """The solution x of lower.T @ x = right."""
    return solve_lower(lower.T[::-1, ::-1], right[::-1])[::-1]


def flat_gradient(loc, scale_tril):
    """A gradient as one vector, without what is above the diagonal."""
    rows, columns = np.tril_indices(DIMENSION)
    return np.concatenate([loc, scale_tril[..., rows, columns]], axis=-1)


def exact_kl(p, q):
    """KL(p || q) and its gradient with respect to p, in 50 digits."""
    with decimal.localcontext(prec=50):
        loc_p, root_p, loc_q, root_q = (np.vectorize(decimal.Decimal)(np.asarray(x, float)) for x in (*p, *q))
        diagonal_p, diagonal_q = np.diagonal(root_p), np.diagonal(root_q)
        whitened, shift = solve_lower(root_q, root_p), solve_lower(root_q, loc_p - loc_q)
        logs = sum(b.ln() - a.ln() for a, b in zip(diagonal_p, diagonal_q, strict=True))
        value = logs + ((whitened**2).sum() + (shift**2).sum() - len(loc_p)) / 2
        slope = solve_transposed(root_q, whitened) - np.diag(1 / diagonal_p)
        return float(value), flat_gradient(solve_transposed(root_q, shift), slope).astype(float)


near_p, near_q = jax.device_get(random_pairs(np.random.default_rng(0)))
truths = []
for at in tqdm(list(np.ndindex(len(DIFFERENCES), PAIRS)), desc="50 digits"):
    p, q = (gaussian.MultivariateNormal(law.loc[at], law.scale_tril[at]) for law in (near_p, near_q))
    truths.append(exact_kl(p, q))
true_values = np.array([value for value, _ in truths]).reshape(len(DIFFERENCES), PAIRS)
true_gradients = np.array([gradient for _, gradient in truths]).reshape(len(DIFFERENCES), PAIRS, -1)

# %% [markdown]
# ## What is left
#
# The median relative error of values, and of gradients with respect to $p$.

# %%
median_value, median_gradient, worst_value, share_negative = {}, {}, {}, {}
for name, formula in FORMULAS.items():
    slopes = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(formula))))
    if name == "jaxdiv":
        slopes = jax.vmap(kl_and_gradients)
    values, gradients = jax.device_get(slopes(near_p, near_q))
    assert values.dtype == np.float32
    error = np.abs(values - true_values) / true_values
    off = np.linalg.norm(flat_gradient(*gradients) - true_gradients, axis=-1)
    median_value[name], worst_value[name] = np.median(error, axis=-1), np.max(error, axis=-1)
    median_gradient[name] = np.median(off / np.linalg.norm(true_gradients, axis=-1), axis=-1)
    share_negative[name] = 100 * np.mean(values < 0, axis=-1)

print("float32 KL, d = 4: median relative error of value and gradient, and share of negative values")
print(f"{'':24s}" + "".join(f"{name:>32s}" for name in FORMULAS))
print(f"{'difference':>12s}{'true KL':>12s}" + "".join(f"{'value':>12s}{'gradient':>11s}{'< 0':>9s}" for _ in FORMULAS))
for row, difference in enumerate(DIFFERENCES):
    print(f"{difference:12.0e}{np.median(true_values[row]):12.1e}", end="")
    for name in FORMULAS:
        print(f"{median_value[name][row]:12.1e}{median_gradient[name][row]:11.1e}", end="")
        print(f"{share_negative[name][row]:7.0f} %", end="")
    print()

# %%
figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for name, color, marker in (("textbook", common.VERMILION, "s"), ("jaxdiv", common.BLUE, "o")):
    axis.loglog(DIFFERENCES, median_value[name], f"{marker}-", color=color, label=f"{name}: value")
    curve = median_gradient[name]
    axis.loglog(DIFFERENCES, curve, f"{marker}--", color=color, label=f"{name}: gradient", fillstyle="none")
axis.axhline(1, color=common.BLACK, linestyle=":", linewidth=1)
axis.text(1e-7, 1.7, "error as large as the KL", fontsize="small", horizontalalignment="right")
axis.invert_xaxis()
axis.set(ylim=(1e-8, 1e7), xlabel="relative difference of the two laws", ylabel="median relative error in float32")
axis.set_title("KL of nearly equal laws: the usual formula ends in noise", fontsize="medium")
axis.legend(frameon=False)
common.save_figure(figure, "float32_accuracy.png")

# %% [markdown]
# ## When not to mind
#
# - Where laws are far apart: at a difference of 1e-1 the textbook formula is right to 1e-6.
# - Where only gradients are used: those of the textbook formula last longer, and are off by 2 % at a difference of 1e-6
#   and by 20 % at 1e-7.
# - In float64 the same happens eight digits later.

# %%
noisy = DIFFERENCES < 2e-5
negative = share_negative["textbook"][noisy]
value, gradient = median_value["textbook"], median_gradient["textbook"]
our_value, our_worst, our_gradient = (error["jaxdiv"].max() for error in (median_value, worst_value, median_gradient))
print(f"The worst of all values of gaussian.kl is off by {our_worst:.0e}.")

# Near equality the usual formula fails, first in value and then in gradient, and gaussian.kl in neither.
assert value[0] < 1e-5
assert value[3] > 0.1
assert value[noisy].min() > 10
assert 15 < negative.min() <= negative.max() < 85
assert gradient[6] > 0.05
assert max(our_value, our_gradient) < 2e-7
assert our_worst < 1e-6
assert share_negative["jaxdiv"].max() == 0
print("All claims hold.")

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
# # Jensen-Shannon between Gaussians, in any dimension
#
# The Jensen-Shannon divergence is symmetric and bounded, but between Gaussians it has no closed form. Can it be had
# without sampling, and in how many dimensions?
#
# In any: one integral over a line gives it, and in 21 cases from 1 to 64 dimensions it agrees with 40 000 samples to
# within 2.0 standard errors, and with an integral on a grid to 2e-16; of 500 samples the standard error is 1 to 13 %.
#
# With the mixture $m = (p + q) / 2$ and the affinity $c(s) = \int p^s q^{1 - s}$, which has a closed form for complex
# $s$ too,
#
# $$\mathrm{JS}(p, q) = \tfrac12 \mathrm{KL}(p \,\|\, m) + \tfrac12 \mathrm{KL}(q \,\|\, m)
#   = \int_{-\infty}^{\infty} \frac{\mathrm{sech}(\pi t)}{1 + 4 t^2} \,
#   \bigl[1 - \mathrm{Re}\, c(\tfrac12 + i t)\bigr] \, dt.$$

# %%
import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from jaxdiv import bernoulli, gaussian

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## The lines to paste


# %%
@jax.jit
def js_to_each(p, qs):
    """Jensen-Shannon divergence in nats of one law from others, whose arrays are `[other, ...]`."""
    return jax.vmap(gaussian.js, (None, 0))(p, qs)


# %% [markdown]
# ## From 1 to 64 dimensions
#
# The control is the definition. A sample $x$ of the mixture came from $p$ with the odds $p(x) / q(x)$, and what it
# tells, on average, about which law it came from is the divergence: $\mathrm{JS} = \mathrm{E}_m\, \mathrm{KL}(
# \mathrm{Bernoulli}(p / (p + q)) \,\|\, \mathrm{Bernoulli}(\tfrac12))$.

# %%
SIZES = (1, 2, 4, 8, 16, 32, 64)
SAMPLES = 20_000  # from each law
CHANGES = ("mean", "covariance", "both")


def changed_laws(d):
    """The standard normal law, and three others `[change, ...]`.

    The mean moves by 0.25 in each component; the standard deviations grow to 1.25, and neighbours get correlation 0.5.
    """
    apart = np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
    root = np.linalg.cholesky(1.25**2 * 0.5**apart)
    loc = np.array([0.25, 0, 0.25])[:, None] * np.ones(d)
    qs = gaussian.MultivariateNormal(loc, np.stack([np.eye(d), root, root]))
    return gaussian.MultivariateNormal(np.zeros(d), np.eye(d)), qs


def log_density(law, x):
    """Up to a constant, at the points `x` `[n, d]`."""
    z = np.linalg.solve(law.scale_tril, (x - law.loc).T)
    return -0.5 * np.sum(z**2, axis=0) - np.sum(np.log(np.diagonal(law.scale_tril)))


informed = jax.jit(jax.vmap(lambda log_odds: bernoulli.kl(log_odds, 0.0)))


def information(p, q, rng):
    """What each sample tells about its law, in nats: `[2, n]`, first of samples from `p`, then from `q`."""
    noise = rng.standard_normal((2, SAMPLES, len(p.loc)))
    points = [law.loc + z @ law.scale_tril.T for law, z in zip((p, q), noise, strict=True)]
    return np.stack([informed(log_density(p, x) - log_density(q, x)) for x in points])


def estimate(samples):
    """Mean and standard error of information `[..., 2, n]`."""
    error = np.sqrt(np.sum(np.var(samples, axis=-1, ddof=1), axis=-1) / samples.shape[-1]) / 2
    return np.mean(samples, axis=(-2, -1)), error


exact, single_error, sampled = [], [], []
rng = np.random.default_rng(0)
for d in tqdm(SIZES, desc="dimensions"):
    p, qs = changed_laws(d)
    exact.append(js_to_each(p, qs))
    rounded = jax.tree.map(jnp.float32, (p, qs))  # the same numbers in float32 and in float64
    single, double = js_to_each(*rounded), js_to_each(*jax.tree.map(jnp.float64, rounded))
    assert single.dtype == np.float32
    single_error.append(jnp.abs(single / double - 1))
    sampled.append([information(p, jax.tree.map(lambda x, i=i: x[i], qs), rng) for i in range(len(CHANGES))])
exact, single_error, sampled = np.array(exact), np.max(single_error), np.array(sampled)
control, standard_error = estimate(sampled)
deviation = (control - exact) / standard_error

print(f"Jensen-Shannon divergence in nats: spectral | {2 * SAMPLES} samples | difference in standard errors")
print(f"{'d':>2s}" + "".join(f"{title:^38s}" for title in ("mean differs", "covariance differs", "both differ")))
for row, d in enumerate(SIZES):
    print(f"{d:2d}", end="")
    for column in range(len(CHANGES)):
        sampling = f"{control[row, column]:.5f} ± {standard_error[row, column]:.5f}"
        print(f"   {exact[row, column]:.6f} | {sampling} |{deviation[row, column]:5.1f}", end="")
    print()

# %% [markdown]
# In one dimension the definition can be integrated on a grid as well, and far more accurately.

# %%
x = np.linspace(-12, 12, 4001)
densities = [np.exp(-0.5 * ((x - m) / s) ** 2) / (s * np.sqrt(2 * np.pi)) for m, s in ((0, 1), (0.25, 1.25))]
mixture = sum(densities) / 2
integral = sum(np.trapezoid(density * np.log(density / mixture), x) for density in densities) / 2
print(f"d = 1, both differ: on a grid {integral:.15f}, gaussian.js {exact[0, 2]:.15f}")
print(f"gaussian.js in float32 is off by at most {single_error:.0e}")

# %% [markdown]
# ## The spectrum of two laws
#
# The integrand of the formula, in one dimension and written out in complex numbers: for variances $v_p$, $v_q$ and $v =
# (1 - s) v_p + s v_q$
#
# $$c(s) = v_p^{(1 - s) / 2} \, v_q^{s / 2} \, v^{-1/2} \, \exp\Bigl( -\frac{s (1 - s) (\mu_p - \mu_q)^2}{2 v} \Bigr).$$
#
# The weight is positive and $|c| \le 1$, so a sum over nodes $t_j$ cannot be negative. Equal steps, below 481 of them,
# give all digits; `gaussian.js` takes 14 nodes in float32 and 56 in float64, chosen once for all laws.


# %%
def affinity(p, q, t):
    """c(1/2 + it) of two normal laws on the line."""
    s = 0.5 + 1j * np.asarray(t)
    variance = (1 - s) * p.scale**2 + s * q.scale**2
    shift = np.exp(-0.5 * s * (1 - s) * (p.loc - q.loc) ** 2 / variance)
    return p.scale ** (1 - s) * q.scale**s / np.sqrt(variance) * shift


STANDARD = gaussian.Normal(np.float64(0), np.float64(1))
SPECTRUM = {
    "near": (STANDARD, gaussian.Normal(np.float64(0.05), np.float64(1.05))),
    "far": (STANDARD, gaussian.Normal(np.float64(4), np.float64(2))),
}
spectral = {name: float(gaussian.js(*pair)) for name, pair in SPECTRUM.items()}
t = np.linspace(-12, 12, 481)
formula_error = {}
print("JS in nats, by equal steps and by jaxdiv")
for name, pair in SPECTRUM.items():
    density = 1 / np.cosh(np.pi * t) / (1 + 4 * t**2)
    by_steps = np.sum(density * (1 - affinity(*pair, t).real)) * (t[1] - t[0])
    formula_error[name] = abs(by_steps / spectral[name] - 1)
    print(f"{name:6s}{by_steps:.15f}  {spectral[name]:.15f}  relative difference {formula_error[name]:.0e}")

# %%
plt.rcParams["axes.titlesize"] = "medium"
figure, (by_dimension, spectrum) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
FEW = 250
few, few_error = estimate(sampled[..., :FEW])
STYLES = [
    ("both differ", 2, common.BLACK, "^"),
    ("covariance differs", 1, common.GREEN, "s"),
    ("mean differs", 0, common.BLUE, "o"),
]
for label, column, color, marker in STYLES:
    by_dimension.plot(SIZES, exact[:, column], color=color)
    bars = {"fmt": marker, "fillstyle": "none", "capsize": 3, "color": color, "label": label}
    by_dimension.errorbar(SIZES, few[:, column], 2 * few_error[:, column], **bars)
by_dimension.axhline(np.log(2), color=common.BLACK, linestyle=":", linewidth=1)
by_dimension.text(1, np.log(2) + 0.01, "log 2, the largest value", fontsize="small")
by_dimension.set_xscale("log", base=2)
by_dimension.set_xticks(SIZES, map(str, SIZES))
by_dimension.set(xlabel="dimension", ylabel="JS divergence in nats")
by_dimension.set_ylim(top=0.76)
by_dimension.set_title(f"JS by the spectral formula (lines) and\nfrom {2 * FEW} samples (± 2 standard errors)")
by_dimension.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.9))

half = t[t >= 0][:85]
density = 1 / np.cosh(np.pi * half) / (1 + 4 * half**2)
spectrum.semilogy(half, density, color=common.BLACK, label=r"weight, sech$(\pi t)$ / $(1 + 4 t^2)$")
for name, color, style in (("far", common.BLUE, "-"), ("near", common.PURPLE, "--")):
    label = f"1 − Re c, {name} pair: JS = {spectral[name]:.2g}"
    spectrum.semilogy(half, 1 - affinity(*SPECTRUM[name], half).real, style, color=color, label=label)
spectrum.set(ylim=(1e-8, 1e3), xlabel="t (a pure number)", ylabel="weight or 1 − Re c (pure numbers)")
spectrum.set_title("JS is the integral of weight times\n1 − Re c(1/2 + it), here of two pairs")
spectrum.legend(frameon=False, loc="upper right")
common.save_figure(figure, "jensen_shannon.png")

# %% [markdown]
# ## When not to use it
#
# - To rank laws that are far apart: a fixed change of each component adds up, and in 64 dimensions the divergence is 49
#   to 92 % of its bound log 2. So near to it, it says little more than that the laws are apart.
# - Where the order of the arguments means something, as a posterior and its approximation: KL has a closed form.
# - Between laws that are not Gaussian: the affinity needs a closed form. `mixture` samples.

# %%
grid_error = abs(integral / exact[0, 2] - 1)
sampling = 100 * standard_error * np.sqrt(SAMPLES / FEW) / exact
near_to_log2 = 100 * exact[-1] / np.log(2)
print(f"With {2 * FEW} samples the standard error is {sampling.min():.0f} to {sampling.max():.0f} % of the divergence.")
print("In 64 dimensions JS in % of log 2:", dict(zip(CHANGES, near_to_log2.round().astype(int).tolist(), strict=True)))

# The definition confirms it by samples and on a grid; it is below log 2 and grows with the dimension.
assert np.abs(deviation).max() < 5
assert np.abs(control / exact - 1).max() < 0.1
assert grid_error < 1e-12
assert np.diff(exact, axis=0).min() > 0
assert exact.max() < np.log(2)

# The formula, and float32, for a near pair as for a far one.
assert max(formula_error.values()) < 1e-10
assert single_error < 3e-6
print("All claims hold.")

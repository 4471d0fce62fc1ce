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
# # Gaussian approximation: the law nearest to two others
#
# Two Gaussians with correlated components are to be replaced by one with independent components, the nearest to both.
# Which one is that, and how does it depend on the divergence?
#
# The widest by $\mathrm{KL}(q \,\|\, p)$, which covers both, and the narrowest by $\mathrm{KL}(p \,\|\, q)$, which
# shuns what either finds unlikely: standard deviations of 1.64 and 0.98 against 0.52 and 0.50. Jensen-Shannon and
# geometric Jensen-Shannon are between, and differ.
#
# For targets $q_1, q_2$ and a divergence $\mathrm{D}$,
#
# $$\min_{\mu, \sigma} \; \tfrac12 \mathrm{D}(p, q_1) + \tfrac12 \mathrm{D}(p, q_2), \qquad
#   p = N\bigl(\mu, \mathrm{diag}(\sigma^2)\bigr).$$

# %%
import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxdiv import gaussian

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## The lines to paste
#
# `divergence` is any function of two laws; put in your own.


# %%
def independent(params):
    """The law of mean `loc` `[d]` and standard deviations `exp(log_scale)` `[d]`."""
    return gaussian.MultivariateNormal(params["loc"], jnp.diag(jnp.exp(params["log_scale"])))


def mean_divergence(params, divergence, targets):
    """The mean divergence in nats of a law from targets, whose arrays are `[target, ...]`."""
    return jnp.mean(jax.vmap(divergence, (None, 0))(independent(params), targets))


# %% [markdown]
# ## One law for two, four times
#
# The divergences are KL in both directions, JS, and the geometric JS of Nielsen (2019), whose mean law is the normal $g
# \propto \sqrt{p q}$ instead of the mixture. Each is minimised from five random starts.


# %%
def ellipse(loc, degrees, scales):
    """Mean and root of the covariance of a law with these standard deviations along turned axes."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    axes = np.array([[cos, -sin], [sin, cos]]) * scales
    return np.array(loc), np.linalg.cholesky(axes @ axes.T)


both = zip(ellipse([-1.0, 0.0], 35, [1.5, 0.4]), ellipse([1.5, 0.6], -50, [1.2, 0.35]), strict=True)
TARGETS = gaussian.MultivariateNormal(*map(np.stack, both))  # every array begins with the axis `[target]`

DIVERGENCES = {
    "KL(q || p)": lambda p, q: gaussian.kl(q, p),
    "JS": gaussian.js,
    "geometric JS": gaussian.geometric_js,
    "KL(p || q)": gaussian.kl,
}


def averages(params):
    """The mean divergence of a law from both targets, for each divergence: `[divergence]`."""
    return jnp.stack([mean_divergence(params, divergence, TARGETS) for divergence in DIVERGENCES.values()])


@jax.jit
@jax.vmap
def fit(params, divergence):
    """Minimises one of the four averages from a given start, by Adam; returns the parameters and all four averages."""
    steps = 800
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps))

    def step(carry, _):
        params, state = carry
        slope = jax.grad(lambda params: averages(params)[divergence])(params)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
    return params, averages(params)


STARTS = 5
which = np.tile(np.arange(len(DIVERGENCES)), STARTS)
rng = np.random.default_rng(0)
starts = {"loc": 1.5 * rng.standard_normal((len(which), 2)), "log_scale": 0.5 * rng.standard_normal((len(which), 2))}
# To `[start, divergence, ...]`.
fits, reached = jax.tree.map(lambda x: np.reshape(x, (STARTS, len(DIVERGENCES), -1)), fit(starts, which))
disagreement = max(np.ptp(x, axis=0).max() for x in fits.values())
centres = dict(zip(DIVERGENCES, fits["loc"][0], strict=True))
scales = dict(zip(DIVERGENCES, np.exp(fits["log_scale"][0]), strict=True))
averaged = reached[0]

print(f"{STARTS} random starts end within {disagreement:.0e} of each other.")
print(f"{'':28s}{'standard':>18s}   average divergence from both targets in nats")
print(f"{'nearest by':14s}{'mean':>14s}{'deviations':>18s}   " + "".join(f"{name:>14s}" for name in DIVERGENCES))
for row, name in enumerate(DIVERGENCES):
    numbers = "{:8.4f}{:8.4f}{:9.4f}{:8.4f}   ".format(*centres[name], *scales[name])
    print(f"{name:12s}{numbers}" + "".join(f"{value:14.4f}" for value in averaged[row]))

# %% [markdown]
# For both directions of KL the answer is known. $\mathrm{KL}(q \,\|\, p)$ is least, on average, where $p$ has the means
# and variances of the mixture of both targets. $\mathrm{KL}(p \,\|\, q)$ is least where $p$ has the mean of the law
# $\propto \sqrt{q_1 q_2}$, and for precisions the diagonal of its precision matrix $(\Sigma_1^{-1} + \Sigma_2^{-1}) /
# 2$.

# %%
covariances = TARGETS.scale_tril @ np.swapaxes(TARGETS.scale_tril, -1, -2)
precisions = np.linalg.inv(covariances)
covering_scale = np.sqrt(np.mean(np.diagonal(covariances, axis1=-2, axis2=-1), axis=0) + np.var(TARGETS.loc, axis=0))
covering = np.concatenate([np.mean(TARGETS.loc, axis=0), covering_scale])
agreed = np.linalg.solve(np.sum(precisions, axis=0), np.einsum("nij,nj->i", precisions, TARGETS.loc))
agreeing = np.concatenate([agreed, 1 / np.sqrt(np.diagonal(np.mean(precisions, axis=0)))])
known_error = {}
for name, known in (("KL(q || p)", covering), ("KL(p || q)", agreeing)):
    known_error[name] = np.abs(np.concatenate([centres[name], scales[name]]) - known).max()
    print(f"{name}: mean and standard deviations", known.round(4), f"missed by {known_error[name]:.0e}")

# %%
figure, ellipses = plt.subplots(figsize=(6, 4.6), layout="constrained")
turn = np.linspace(0, 2 * np.pi, 200)
circle = np.stack([np.cos(turn), np.sin(turn)])
for loc, root in zip(*TARGETS, strict=True):
    ellipses.fill(*(loc[:, None] + root @ circle), color="0.85")
ellipses.text(-2.0, -0.65, "$q_1$")
ellipses.text(1.95, -0.2, "$q_2$")
LOOKS = [(common.VERMILION, "-"), (common.BLUE, "--"), (common.GREEN, "-."), (common.BLACK, "-")]
for name, (color, style) in zip(DIVERGENCES, LOOKS, strict=True):
    outline = centres[name][:, None] + scales[name][:, None] * circle
    ellipses.plot(*outline, style, color=color, label=name)
ellipses.set_aspect("equal")
ellipses.set_ylim(bottom=-2)
ellipses.set(xlabel="first component", ylabel="second component")
ellipses.set_title(
    "The independent p nearest to both $q_1$ and $q_2$\n(curves of one standard deviation)", fontsize="medium"
)
ellipses.legend(frameon=False, ncols=2, loc="lower center")
common.save_figure(figure, "gaussian_approximation.png")

# %% [markdown]
# ## When not to use it
#
# - To keep correlations: a law of independent components has none, by any divergence.
# - $\mathrm{KL}(q \,\|\, p)$ where unlikely places cost: between two targets that are far apart it is wide and likely
#   nowhere. $\mathrm{KL}(p \,\|\, q)$ where each target must be covered.
# - By descent where KL is meant: both answers are known in closed form.

# %%
fit_error = max(known_error.values())

# Each divergence is least at its own law, which KL is known to have; symmetric ones are between.
assert disagreement < 1e-4
assert fit_error < 1e-5
assert (np.argmin(averaged, axis=0) == np.arange(len(DIVERGENCES))).all()
for order in ("KL(p || q)", "geometric JS"), ("geometric JS", "JS"), ("JS", "KL(q || p)"):
    narrower, wider = (np.prod(scales[name]) for name in order)
    assert narrower < 0.95 * wider
print("All claims hold.")

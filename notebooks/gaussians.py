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
# # How far apart are two Gaussians?
#
# Between normal laws $p = N(\mu_p, L_p L_p')$ and $q = N(\mu_q, L_q L_q')$ of $d$ components, with lower triangular
# $L$, the Kullback-Leibler divergence has a closed form that is in every textbook:
#
# $$\mathrm{KL}(p \,\|\, q) = \sum_i \log \frac{L_{q,ii}}{L_{p,ii}}
#   + \tfrac12 \bigl( \|L_q^{-1} L_p\|^2 + \|L_q^{-1} (\mu_p - \mu_q)\|^2 - d \bigr).$$
#
# How much of it survives float32 where the laws are nearly equal? The Jensen-Shannon divergence has no closed form. Can
# it be had without sampling, and in how many dimensions? And which Gaussian does each of these divergences call the
# nearest one?

# %%
import decimal
import importlib.util

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from tqdm import tqdm

from jaxdiv import bernoulli, mvn, normal
from jaxdiv._nodes import NODES_14, WEIGHTS_14  # only to draw them

jax.config.update("jax_enable_x64", True)  # what is to be float32 says so below

# %% [markdown]
# ## Nearly equal laws in float32
#
# Laws nearly equal are the usual case at the end of a training run, between two successive policies or posteriors. Here
# are 100 random pairs, $d = 4$, for each of seven distances: every number of $q$ differs from that of $p$ by a relative
# 1e-1 to 1e-7, times a standard normal variable. The textbook formula is compared with `mvn.kl`, and with distrax where
# that is installed, by the median relative error of values and of gradients with respect to $p$.

# %%
DIFFERENCES = 10.0 ** -np.arange(1, 8)
PAIRS, DIMENSION = 100, 4


def random_pairs(rng):
    """Pairs of laws in float32; every array begins with the axes `[difference, pair]`."""
    shape = (len(DIFFERENCES), PAIRS, DIMENSION)
    root = np.tril(0.5 * rng.standard_normal((*shape, DIMENSION)), -1)
    root += np.exp(0.5 * rng.standard_normal(shape))[..., None] * np.eye(DIMENSION)
    p = mvn.MultivariateNormal(rng.standard_normal(shape), root)

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


FORMULAS = {"textbook": textbook_kl, "jaxdiv": mvn.kl}
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


near_p, near_q = random_pairs(np.random.default_rng(0))
cases = list(np.ndindex(len(DIFFERENCES), PAIRS))
truths = [
    exact_kl(*jax.tree.map(lambda x: x[at], jax.device_get((near_p, near_q)))) for at in tqdm(cases, desc="50 digits")
]
true_values = np.array([value for value, _ in truths]).reshape(len(DIFFERENCES), PAIRS)
true_gradients = np.array([gradient for _, gradient in truths]).reshape(len(DIFFERENCES), PAIRS, -1)

# %%
median_value, median_gradient, worst_value, share_negative = {}, {}, {}, {}
for name, formula in FORMULAS.items():
    slopes = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(formula))))
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

# %% [markdown]
# The terms of the textbook formula are of size $d$, so each value is wrong by about $d$ times the rounding error 6e-8,
# whatever the divergence, and the divergence falls as the square of the difference. `mvn.kl` takes the differences
# $L_p - L_q$ and $\mu_p - \mu_q$ first, and then adds only terms that are not negative.

# %% [markdown]
# ## Jensen-Shannon, in any dimension
#
# With $m = (p + q) / 2$,
#
# $$\mathrm{JS}(p, q) = \tfrac12 \mathrm{KL}(p \,\|\, m) + \tfrac12 \mathrm{KL}(q \,\|\, m),$$
#
# and as the mixture $m$ is not normal this has no closed form. `mvn.js` computes it from the affinity
# $c(s) = \int p^s q^{1 - s}$, which has one for complex $s$ too:
#
# $$\mathrm{JS}(p, q) = \int_{-\infty}^{\infty} \frac{\mathrm{sech}(\pi t)}{1 + 4 t^2} \,
#   \bigl[1 - \mathrm{Re}\, c(\tfrac12 + i t)\bigr] \, dt.$$
#
# This is one integral over a line, whatever the dimension of the laws.
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
    q = mvn.MultivariateNormal(jnp.asarray(loc), jnp.asarray(np.stack([np.eye(d), root, root])))
    return mvn.MultivariateNormal(jnp.zeros(d), jnp.eye(d)), q


def log_density(law, x):
    """Up to a constant, at the points `x` `[n, d]`."""
    z = jax.scipy.linalg.solve_triangular(law.scale_tril, (x - law.loc).T, lower=True)
    return -0.5 * jnp.sum(z**2, axis=0) - jnp.sum(jnp.log(jnp.diagonal(law.scale_tril)))


def information(p, q, key):
    """What each sample tells about its law, in nats: `[2, n]`, first of samples from `p`, then from `q`."""

    def of_samples(law, key):
        x = law.loc + jax.random.normal(key, (SAMPLES, len(law.loc))) @ law.scale_tril.T
        odds = log_density(p, x) - log_density(q, x)
        return jax.vmap(bernoulli.kl, (0, None))(odds, 0.0)

    return jnp.stack([of_samples(law, k) for law, k in zip((p, q), jax.random.split(key), strict=True)])


def estimate(samples):
    """Mean and standard error of information `[..., 2, n]`."""
    error = np.sqrt(np.sum(np.var(samples, axis=-1, ddof=1), axis=-1) / samples.shape[-1]) / 2
    return np.mean(samples, axis=(-2, -1)), error


@jax.jit
def compare(p, q, key):
    """The exact divergence `[change]`, and the information in samples `[change, 2, n]`."""
    each_change = jax.vmap(lambda q, key: (mvn.js(p, q), information(p, q, key)))
    return each_change(q, jax.random.split(key, len(CHANGES)))


exact, sampled = [], []
for d in tqdm(SIZES, desc="dimensions"):
    js, samples = jax.device_get(compare(*changed_laws(d), jax.random.key(d)))
    exact.append(js)
    sampled.append(samples)
exact, sampled = np.array(exact), np.array(sampled)
control, standard_error = estimate(sampled)
deviation = (control - exact) / standard_error

print(f"Jensen-Shannon divergence in nats: spectral | Monte Carlo, {2 * SAMPLES} samples | difference in standard errors")
print(f"{'d':>3s}" + "".join(f"{f'{change} differs':^37s}" for change in ("mean", "covariance")) + f"{'both differ':^37s}")
for row, d in enumerate(SIZES):
    print(f"{d:3d}", end="")
    for column in range(len(CHANGES)):
        sampling = f"{control[row, column]:.5f} ± {standard_error[row, column]:.5f}"
        print(f"  {exact[row, column]:.6f} | {sampling} |{deviation[row, column]:5.1f}", end="")
    print()

# %% [markdown]
# In one dimension the definition can be integrated on a grid as well, and far more accurately.

# %%
x = np.linspace(-12, 12, 4001)
grid_laws = changed_laws(1)
centre, width = (np.asarray(part)[2].squeeze() for part in grid_laws[1])
densities = [np.exp(-0.5 * ((x - m) / s) ** 2) / (s * np.sqrt(2 * np.pi)) for m, s in ((0, 1), (centre, width))]
mixture = sum(densities) / 2
integral = sum(np.trapezoid(density * np.log(density / mixture), x) for density in densities) / 2
print(f"d = 1, both differ: on a grid {integral:.15f}, mvn.js {exact[0, 2]:.15f}")

# %% [markdown]
# ## The nearest simple law, four times
#
# A law $q$ with correlated components is to be replaced by $p$ with independent ones. Which $p$ is nearest depends on
# the divergence. Put any of them in `DIVERGENCES`: all are plain functions of two laws, and optax does the rest.

# %%
ANGLE = np.deg2rad(30)
ROTATION = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
COVARIANCE = ROTATION @ np.diag([2.0, 0.4]) ** 2 @ ROTATION.T
TARGET = mvn.MultivariateNormal(jnp.array([1.0, 0.5]), jnp.asarray(np.linalg.cholesky(COVARIANCE)))

DIVERGENCES = {
    "KL(q || p)": lambda p, q: mvn.kl(q, p),
    "JS": mvn.js,
    "geometric JS": mvn.geometric_js,
    "KL(p || q)": mvn.kl,
}


def independent(params):
    """The law of mean `loc` `[2]` and standard deviations `exp(log_scale)` `[2]`."""
    return mvn.MultivariateNormal(params["loc"], jnp.diag(jnp.exp(params["log_scale"])))


@jax.jit
@jax.vmap
def fit(params):
    """Minimises each divergence from its own start; `params` and the result are dicts of `[divergence, 2]`."""
    steps = 800
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps))

    def loss(params):
        # Adam treats each number apart, so the sum of four losses of separate parameters is four separate fits.
        laws = [independent(jax.tree.map(lambda x, i=i: x[i], params)) for i in range(len(DIVERGENCES))]
        return sum(divergence(p, TARGET) for divergence, p in zip(DIVERGENCES.values(), laws, strict=True))

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
    return params


STARTS = 5
shape = (STARTS, len(DIVERGENCES), 2)
keys = jax.random.split(jax.random.key(0))
starts = {"loc": 1.5 * jax.random.normal(keys[0], shape), "log_scale": 0.5 * jax.random.normal(keys[1], shape)}
fits = jax.device_get(fit(starts))
disagreement = max(np.ptp(x, axis=0).max() for x in fits.values())
fitted = jax.tree.map(lambda x: x[0], fits)
scales = dict(zip(DIVERGENCES, np.exp(fitted["log_scale"]), strict=True))

fitted_laws = jax.vmap(independent)(fitted)
table = {name: jax.vmap(divergence, (0, None))(fitted_laws, TARGET) for name, divergence in DIVERGENCES.items()}
print(f"{STARTS} random starts agree to {disagreement:.0e}; the fit has the mean of q to {np.abs(fitted['loc'] - TARGET.loc).max():.0e}")
print(f"{'nearest by':14s}{'standard deviations':>22s}" + "".join(f"{name:>14s}" for name in DIVERGENCES) + "  (nats)")
for row, name in enumerate(DIVERGENCES):
    print(f"{name:14s}{scales[name][0]:14.4f}{scales[name][1]:8.4f}", end="")
    print("".join(f"{table[column][row]:14.4f}" for column in DIVERGENCES))

# %% [markdown]
# For both directions of KL the answer is known. $\mathrm{KL}(q \,\|\, p)$ is least where $p$ has the variances of $q$:
# the diagonal of $\Sigma_q$. $\mathrm{KL}(p \,\|\, q)$ is least where it has the precisions: the diagonal of
# $\Sigma_q^{-1}$, that is the variance of each component once the other one is known.

# %%
marginal = np.sqrt(np.diag(COVARIANCE))
conditional = 1 / np.sqrt(np.diag(np.linalg.inv(COVARIANCE)))
print("marginal standard deviations", marginal.round(4), "and conditional", conditional.round(4))

# %% [markdown]
# ## The spectrum of two laws
#
# The integrand of the Jensen-Shannon formula, in one dimension and written out in complex numbers: for variances
# $v_p$, $v_q$ and $v = (1 - s) v_p + s v_q$
#
# $$c(s) = v_p^{(1 - s) / 2} \, v_q^{s / 2} \, v^{-1/2} \, \exp\Bigl( -\frac{s (1 - s) (\mu_p - \mu_q)^2}{2 v} \Bigr).$$
#
# In float32 `js` is a sum over 14 nodes, $\sum_j w_j \, [1 - \mathrm{Re}\, c(\tfrac12 + i t_j)]$. The $w_j$ are
# positive and $|c| \le 1$, so that the sum cannot be negative; the nodes are chosen once for all laws.


# %%
def affinity(p, q, t):
    """c(1/2 + it) of two normal laws on the line."""
    s = 0.5 + 1j * np.asarray(t)
    variance = (1 - s) * p.scale**2 + s * q.scale**2
    shift = np.exp(-0.5 * s * (1 - s) * (p.loc - q.loc) ** 2 / variance)
    return p.scale ** (1 - s) * q.scale**s / np.sqrt(variance) * shift


SPECTRUM = {
    "near": (normal.Normal(0.0, 1.0), normal.Normal(0.05, 1.05)),
    "far": (normal.Normal(0.0, 1.0), normal.Normal(4.0, 2.0)),
}
node_error = {}
print("JS in nats, from 14 nodes and from jaxdiv in float64 (56 nodes)")
for name, (p, q) in SPECTRUM.items():
    by_nodes = np.dot(WEIGHTS_14, 1 - affinity(p, q, NODES_14).real)
    node_error[name] = abs(by_nodes / float(normal.js(p, q)) - 1)
    print(f"{name:6s}{by_nodes:.12f}  {normal.js(p, q):.12f}  relative difference {node_error[name]:.0e}")
print(f"sum of the weights {sum(WEIGHTS_14):.9f}, log 2 {np.log(2):.9f}")

# %%
plt.rcParams["axes.titlesize"] = "medium"
figure, ((near_equal, by_dimension), (ellipses, spectrum)) = plt.subplots(2, 2, figsize=(9, 8), layout="constrained")

for name, color, marker in (("textbook", common.VERMILION, "s"), ("jaxdiv", common.BLUE, "o")):
    near_equal.loglog(DIFFERENCES, median_value[name], f"{marker}-", color=color, label=f"{name}: value")
    near_equal.loglog(DIFFERENCES, median_gradient[name], f"{marker}--", color=color, label="gradient", fillstyle="none")
near_equal.axhline(1, color=common.BLACK, linewidth=0.8)
near_equal.text(1e-7, 1.6, "nothing is right", fontsize="small")
near_equal.invert_xaxis()
near_equal.set_xlabel("relative difference of the two laws")
near_equal.set_ylabel("median relative error, float32")
near_equal.set_title("KL near equality: the textbook formula is noise")
near_equal.legend(frameon=False)

STYLES = [("both differ", 2, common.BLACK, "^"), ("covariance differs", 1, common.GREEN, "s"), ("mean differs", 0, common.BLUE, "o")]
FEW = 250
few, few_error = estimate(sampled[..., :FEW])
for label, column, color, marker in STYLES:
    by_dimension.plot(SIZES, exact[:, column], color=color)
    by_dimension.errorbar(
        SIZES, few[:, column], 2 * few_error[:, column], fmt=marker, capsize=3, color=color, fillstyle="none", label=label
    )
by_dimension.axhline(np.log(2), color=common.BLACK, linestyle=":", linewidth=1)
by_dimension.text(1, np.log(2) + 0.012, "log 2", fontsize="small")
by_dimension.set_xscale("log", base=2)
by_dimension.set_xticks(SIZES, map(str, SIZES))
by_dimension.set_xlabel("dimension")
by_dimension.set_ylabel("JS divergence in nats")
by_dimension.set_title(f"Exact JS (lines), and ±2 standard errors\nof {2 * FEW} samples (bars)")
by_dimension.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.93))

turn = np.linspace(0, 2 * np.pi, 200)
circle = np.stack([np.cos(turn), np.sin(turn)])
target_ellipse = np.asarray(TARGET.loc)[:, None] + np.asarray(TARGET.scale_tril) @ circle
ellipses.fill(*target_ellipse, color="0.85", label="q")
LINES = {"KL(q || p)": "-", "JS": "--", "geometric JS": "-.", "KL(p || q)": "-"}
COLORS = (common.VERMILION, common.BLUE, common.GREEN, common.BLACK)
for row, (name, color) in enumerate(zip(DIVERGENCES, COLORS, strict=True)):
    outline = fitted["loc"][row][:, None] + scales[name][:, None] * circle
    ellipses.plot(*outline, LINES[name], color=color, label=name)
ellipses.set_aspect("equal")
ellipses.set_xlabel("first component")
ellipses.set_ylabel("second component")
ellipses.set_title("The nearest p of independent components\n(curves of one standard deviation)")
ellipses.legend(frameon=False, ncols=2, loc="lower center")
ellipses.set_ylim(bottom=-2.2)

t = np.linspace(0, 4.2, 400)
spectrum.semilogy(t, 2 / np.cosh(np.pi * t) / (1 + 4 * t**2), color=common.BLACK, label=r"density $2\,$sech$(\pi t) / (1 + 4 t^2)$")
spectrum.vlines(NODES_14, 1e-9, WEIGHTS_14, color=common.ORANGE)
spectrum.plot(NODES_14, WEIGHTS_14, "o", color=common.ORANGE, label="the 14 weights")
for name, color, style in (("far", common.BLUE, "-"), ("near", common.PURPLE, "--")):
    integrand = 1 - affinity(*SPECTRUM[name], t).real
    spectrum.semilogy(t, integrand, style, color=color, label=f"1 − Re c, {name} pair (JS = {float(normal.js(*SPECTRUM[name])):.2g})")
spectrum.set_ylim(1e-8, 1e3)
spectrum.set_xlabel("t (a pure number)")
spectrum.set_ylabel("density, weights, integrand (pure numbers)")
spectrum.set_title("What js sums: 14 values of 1 − Re c(½ + it)")
spectrum.legend(frameon=False, fontsize="small", loc="upper right")
common.save_figure(figure, "gaussians.png")

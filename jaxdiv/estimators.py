r"""Divergences from samples: estimates whose gradients are estimates of the gradient, and bounds.

An estimate is elementwise in the log-densities of draws: `log_p` and `log_q` hold $\log p(x)$ and $\log q(x)$, in
reinforcement learning the log-probabilities of the tokens that were drawn under the policy $p$ and the reference $q$.
Draws are constants. A gradient of their mean alone misses that they come from $p$ as it is, the score-function term
$\mathrm{E}[\,\cdot\,\nabla \log p]$. For draws of $p$ the familiar estimates of $\mathrm{KL}(p \,\|\, q)$ are, with
$c = \log p - \log q$,

| | value | mean of its gradient in $p$ | in $q$ |
|---|---|---|---|
| `k1` = $c$ | unbiased, of either sign | 0 | right |
| `k2` = $c^2/2$ | biased, by a factor $1 + \mathrm{KL}/2$ for shifted normal laws | right | biased |
| `k3` = $e^{-c} - 1 + c$ | unbiased, non-negative | that of $\mathrm{KL}(q \,\|\, p)$ | right |
| `f_divergence("kl", ...)` | `k3` | right | right |

Right is the gradient of $\mathrm{KL}(p \,\|\, q)$. `f_divergence` is this for every f-divergence of the library, for
draws of any law, and differentiates rightly to any order. For sequences, where tokens drawn early decide what is
compared later, `sequence_sum` adds the score of the prefix: without it each gradient above is that of one token alone.

Unbiased takes for granted that draws can land wherever $q$ has mass. What lies outside is missed: for `kl` the estimate
is too small by that mass.

Results are in nats, half precision is computed in float32, and a wrong shape raises ValueError, a dtype that is not
floating-point TypeError, while tracing.

References: Schulman, Approximating KL divergence, 2020, for `k1`, `k2`, `k3`. Schulman, Heess, Weber and Abbeel,
Gradient estimation using stochastic computation graphs, 2015, for the score-function terms.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core import functions, tuning
from jaxdiv._core.functions import capped, expm1x, is_given, log_ratio, or_one, root
from jaxdiv._core.jit import jitted
from jaxdiv._discrete.record import Event
from jaxdiv._discrete.terms import BY_NAME


class Estimate(NamedTuple):
    """A mean and its standard error, each `[]`."""

    value: jax.Array
    standard_error: jax.Array


class LogMean(NamedTuple):
    r"""A moving mean of exponentials, $e^\text{log\_sum} / \text{weight}$, each `[]`.

    Without history it is `LogMean(-jnp.inf, 0.0)`.
    """

    log_sum: ArrayLike
    weight: ArrayLike


# ---------------------------------------------------------------- from log-densities of draws


def _log_ratio(verb, where, max_log_ratio, log_p, log_q):
    """The log-ratio of draws in the working precision, 0 where masked, within a bound; the dtype of a result."""
    who = f"estimators.{verb}"
    (log_p, log_q), _, dtype = _draws(who, where, None, log_p=log_p, log_q=log_q)
    c = _log_quotient(log_p, log_q)
    if max_log_ratio is None:
        return c, dtype
    _inputs.setting(who, "max_log_ratio", max_log_ratio, 0)
    bound = _inputs.number(who, "max_log_ratio", max_log_ratio, c, c.dtype)
    # Not a minimum and a maximum, which may lose NaN.
    return jnp.where(c > bound, bound, jnp.where(c < -bound, -bound, c)), dtype


def _log_quotient(log_p, log_q):
    """The difference of log-densities, 0 where neither law has mass."""
    neither = _neither(log_p, log_q)
    return jnp.where(neither, 0, log_p) - jnp.where(neither, 0, log_q)


def _neither(log_p, log_q):
    return (log_p == -jnp.inf) & (log_q == -jnp.inf)


def _still_at_infinity(estimate, c, dtype):
    """An estimate from c that has derivative 0 where it is infinite: multiplied by 0 later, an infinite one is NaN."""
    value = estimate(c).astype(dtype)
    infinite = jnp.isinf(value)
    return jnp.where(infinite, lax.stop_gradient(value), estimate(jnp.where(infinite, 0, c)).astype(dtype))


@jitted
def k1(
    log_p: ArrayLike, log_q: ArrayLike, *, where: ArrayLike | None = None, max_log_ratio: ArrayLike | None = None
) -> jax.Array:
    r"""The estimate $c = \log p - \log q$ of $\mathrm{KL}(p \,\|\, q)$ from draws of $p$, elementwise.

    Args:
        log_p: Log-densities of the draws under the law they come from, of any shape.
        log_q: Log-densities of the same draws under the other law.
        where: A mask that broadcasts against `log_p`; False entries are 0, whatever they hold.
        max_log_ratio: A number $b$: $c$ is clipped to $[-b, b]$, with gradient 0 beyond. No bound by default.
            With it the estimate is biased, either way, by what $c$ exceeds the bound by.

    Returns:
        The shape of `log_p`: unbiased, of either sign; 0 where both agree. A reward, not a loss: its gradient in $p$
        has mean 0.

    Example:
        >>> print(f"{estimators.k1(jnp.log(0.25), jnp.log(0.5)):.4f}")
        -0.6931

    References:
        Schulman, Approximating KL divergence, 2020.
    """
    c, dtype = _log_ratio("k1", where, max_log_ratio, log_p, log_q)
    return c.astype(dtype)


@jitted
def k2(
    log_p: ArrayLike, log_q: ArrayLike, *, where: ArrayLike | None = None, max_log_ratio: ArrayLike | None = None
) -> jax.Array:
    r"""The estimate $\tfrac12 (\log p - \log q)^2$ of $\mathrm{KL}(p \,\|\, q)$ from draws of $p$, elementwise.

    Args:
        log_p: Log-densities of the draws under the law they come from, of any shape.
        log_q: Log-densities of the same draws under the other law.
        where: A mask that broadcasts against `log_p`; False entries are 0, whatever they hold.
        max_log_ratio: A number $b$: $\log p - \log q$ is clipped to $[-b, b]$, with gradient 0 beyond. No bound by
            default. With it the estimate and its gradient are too small by what draws beyond the bound add.

    Returns:
        The shape of `log_p`: non-negative; 0 where both agree; where it is `inf` its gradient is 0. Biased in value, by
        a factor $1 + \mathrm{KL}/2$ for normal laws of equal scale. The gradient in $p$ is that of Kullback-Leibler:
        unbiased, for draws compared one by one.

    Example:
        >>> print(f"{estimators.k2(jnp.log(0.25), jnp.log(0.5)):.4f}")
        0.2402

    References:
        Schulman, Approximating KL divergence, 2020.
    """
    c, dtype = _log_ratio("k2", where, max_log_ratio, log_p, log_q)
    return _still_at_infinity(lambda c: 0.5 * c**2, c, dtype)


@jitted
def k3(
    log_p: ArrayLike, log_q: ArrayLike, *, where: ArrayLike | None = None, max_log_ratio: ArrayLike | None = None
) -> jax.Array:
    r"""The estimate $\tfrac{q}{p} - 1 - \log \tfrac{q}{p}$ of $\mathrm{KL}(p \,\|\, q)$ from draws of $p$, elementwise.

    Args:
        log_p: Log-densities of the draws under the law they come from, of any shape.
        log_q: Log-densities of the same draws under the other law.
        where: A mask that broadcasts against `log_p`; False entries are 0, whatever they hold.
        max_log_ratio: A number $b$: $\log p - \log q$ is clipped to $[-b, b]$, with gradient 0 beyond. No bound by
            default. With it the estimate and its gradient are too small by what draws beyond the bound add.

    Returns:
        The shape of `log_p`: unbiased and non-negative, to full relative accuracy; 0 where both agree, `inf` where $q$
        is zero, and its gradient 0 wherever it is `inf`. A value, not a loss: its gradient in $p$ is on average that of
        $\mathrm{KL}(q \,\|\, p)$.

    Example:
        >>> print(f"{estimators.k3(jnp.log(0.25), jnp.log(0.5)):.4f}")
        0.3069

    References:
        Schulman, Approximating KL divergence, 2020.
    """
    c, dtype = _log_ratio("k3", where, max_log_ratio, log_p, log_q)
    return _still_at_infinity(expm1x, -c, dtype)


def _divergence(who, name, parameters):
    """The record of a name that goes with such parameters."""
    _inputs.choice(who, name, {name: known.parameters for name, known in BY_NAME.items()}, parameters)
    return BY_NAME[name]


@functools.partial(jitted, static=("name",))
def f_divergence(
    name: str,
    log_p: ArrayLike,
    log_q: ArrayLike,
    *,
    log_behaviour: ArrayLike | None = None,
    where: ArrayLike | None = None,
    max_log_ratio: ArrayLike | None = None,
    **parameters: ArrayLike,
) -> jax.Array:
    r"""The estimate $f(p, q) / b \ge 0$ of $D(p, q) = \int f(p, q)$ from draws of $b$, elementwise, for use as a loss.

    With $f$ the library's non-negative term of the divergence, homogeneous of degree one: `k3` for Kullback-Leibler.
    The gradient of the mean of draws is unbiased in $p$ and in $q$, the score-function term of $p$ and the weights $p /
    b$ included; so are derivatives of higher order.

    Args:
        name: `"kl"`, `"jeffreys"`, `"js"`, `"squared_hellinger"`, `"total_variation"`, `"chi2"`, `"triangular"`,
            defined as in `jaxdiv.categorical`; `"amari"` with `alpha`; `"skewed_js"` with the `weight` of $p$;
            `"rescaled_js"` with `weight`, that over $w (1 - w)$. $\mathrm{KL}(q \,\|\, p)$ is Amari's of order 0.
        log_p: Log-densities of the draws under $p$, of any shape.
        log_q: Log-densities of the same draws under $q$.
        log_behaviour: Log-densities under the law $b$ they were drawn from, a constant: $p$ as it is, by default. With
            $b = q$ or $(p + q) / 2$ draws are of those.
        where: A mask that broadcasts against `log_p`; False entries are 0, whatever they hold.
        max_log_ratio: A number $c_0$: a draw whose log-ratio $c = \log p / q$ is beyond $\pm c_0$ counts as if $q$ were
            where it is $\pm c_0$, and then does not move $q$. No bound by default. With it the estimate is too small by
            what such draws add, its gradient in $q$ lacks them, and that in $p$ has them as they count.
        **parameters: The numbers that go with the name.

    Returns:
        The shape of `log_p`: 0, with gradient 0, where both agree, at $-\infty$ too; `inf`, with gradient 0, where $q$
        is zero and the divergence infinite, and of a draw that is impossible under the law it comes from, as `k3`.
        Densities in units of $b$ are at most a quarter of the largest float.

    Raises:
        ValueError: An unknown name, or other numbers than go with it.

    Example:
        >>> log_p, log_q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
        >>> value, slope = jax.value_and_grad(lambda x: jnp.mean(estimators.f_divergence("kl", x, log_q)))(log_p)
        >>> print(f"{value:.4f} {slope[0]:.4f} {slope[1]:.4f}")
        0.1438 0.3466 -0.2027

    References:
        Schulman, Approximating KL divergence, 2020, for the non-negative form. Foerster et al., DiCE: the infinitely
        differentiable Monte Carlo estimator, 2018, for derivatives of any order.
    """
    who = "estimators.f_divergence"
    divergence = _divergence(who, name, parameters)
    given = log_behaviour is not None
    (log_p, log_q), log_behaviour, dtype = _draws(who, where, log_behaviour, log_p=log_p, log_q=log_q)
    numbers = [_inputs.number(who, x, parameters[x], log_p, log_p.dtype) for x in divergence.parameters]
    if max_log_ratio is not None:
        _inputs.setting(who, "max_log_ratio", max_log_ratio, 0)
        bound = _inputs.number(who, "max_log_ratio", max_log_ratio, log_p, log_p.dtype)
        log_p, log_q = _within_ratio(log_p, log_q, bound)
        log_behaviour = log_behaviour if given else lax.stop_gradient(log_p)
    return _term_of(divergence)(log_p, log_q, log_behaviour, *numbers).astype(dtype)


def _draws(who, where, log_behaviour, *, log_p, **others):
    """Arrays over draws in the working precision, 0 where masked; the law they come from; the dtype of a result."""
    given = {} if log_behaviour is None else {"log_behaviour": log_behaviour}
    arrays, dtype = _inputs.alike(who, log_p=log_p, **others, **given)
    work = _inputs.working(*arrays)
    if where is not None:
        where = _inputs.mask(who, where, arrays[0].shape)
        arrays = [jnp.where(where, x, 0) for x in arrays]
    arrays = [x.astype(work) for x in arrays]
    return arrays[: 1 + len(others)], lax.stop_gradient(arrays[-1] if given else arrays[0]), dtype


def _within_ratio(log_p, log_q, bound):
    """Log-densities whose ratio is within a bound: beyond it that of q follows p, or where p is 0 it follows q."""
    c = _log_quotient(log_p, log_q)
    p = jnp.where(c == -jnp.inf, lax.stop_gradient(log_q - bound), log_p)
    return p, jnp.where(c > bound, p - bound, jnp.where(c < -bound, p + bound, log_q))


def _pair(log_p, log_q, log_behaviour):
    """Draws as events whose masses are the densities in units of that of the law they come from."""
    largest = math.log(jnp.finfo(log_p.dtype).max / 4)
    unit = jnp.where(log_behaviour == -jnp.inf, 0, log_behaviour)
    p, q = (jnp.exp(jnp.minimum(x - unit, largest)) for x in (log_p, log_q))
    c = _log_quotient(log_p, log_q)
    return Event(p, q, c, functions.difference(p, q, c), c, jnp.zeros_like(c), None)


@functools.cache
def _term_of(divergence):
    @jax.custom_jvp
    def term(log_p, log_q, log_behaviour, *parameters):
        value = divergence.term(_pair(log_p, log_q, log_behaviour), *parameters)
        # A draw of a law that has no mass there.
        impossible = (log_behaviour == -jnp.inf) & ~_neither(log_p, log_q) & ~jnp.isnan(value)
        return jnp.where(impossible, jnp.inf, value)

    def rule(primals, tangents):
        log_p, log_q, log_behaviour, *parameters = primals
        value, pair = term(*primals), _pair(log_p, log_q, log_behaviour)
        tangent = jnp.zeros_like(value)
        # D is the sum of f(p, q), so its derivative along log p is the sum of p df/dp, the kernel's own slope: over b
        # it is the estimate's. p / b carries the score, which makes a second derivative right in the same way.
        for slope, d in ((divergence.slope_p, tangents[0]), (divergence.slope_q, tangents[1])):
            if is_given(d):
                tangent += functions.bounded_slope(value, slope(pair, *parameters)) * d
        if any(map(is_given, tangents[3:])):
            moving = functions.given(tangents[3:])
            tangent += functions.tangent_in_parameters(
                functools.partial(divergence.term, pair), parameters, moving, value
            )
        return value, tangent

    term.defjvp(rule, symbolic_zeros=True)
    return term


@functools.partial(jitted, static=("name",))
def link(name: str, log_ratio: ArrayLike, **parameters: ArrayLike) -> jax.Array:
    r"""The derivative $f'(p/q)$ of the generator of $D(p, q) = \mathrm{E}_q f(p/q)$, elementwise in $\log p/q$.

    The law that maximises $\mathrm{E}_p r - \beta D(p, q)$ has $r = \beta f'(p/q) + \text{const}$ where it has mass:
    differences of rewards are differences of links, those of preferences in place of DPO's logarithm. $f'(p/q)$ is also
    the best critic of the bound $\mathrm{E}_p T - \mathrm{E}_q f^*(T) \le D(p, q)$.

    Args:
        name: A divergence of `f_divergence`.
        log_ratio: $c = \log p/q$ of any shape, of tokens or whole sequences.
        **parameters: The numbers that go with the name.

    Returns:
        The shape of `log_ratio`: increasing, with the sign of $c$, 0 at 0, to full relative accuracy; the logarithm
        itself for `kl`. At $c = -\infty$ it is $-1/2$ for `total_variation`, $-2$ for `chi2`, $-3$ for `triangular`,
        $-1/(\alpha - 1)$ for `amari` of order above 1, and $-\infty$ for the others: laws that maximise then keep mass
        wherever $q$ has it.

    Raises:
        ValueError: An unknown name, or other numbers than go with it.

    Example:
        >>> c = jnp.log(jnp.array([0.5, 1.0, 2.0]))
        >>> for name in ("kl", "js", "chi2"):
        ...     print(" ".join(f"{x:.4f}" for x in estimators.link(name, c)))
        -0.6931 0.0000 0.6931
        -0.2027 0.0000 0.1438
        -1.0000 0.0000 2.0000

    References:
        Nguyen, Wainwright and Jordan, Estimating divergence functionals and the likelihood ratio by convex risk
        minimization, 2010. Rafailov et al., Direct preference optimization, 2023. Wang et al., Beyond reverse KL:
        generalizing direct preference optimization with diverse divergence constraints, 2024.
    """
    who = "estimators.link"
    divergence = _divergence(who, name, parameters)
    c = _inputs.array(who, "log_ratio", log_ratio)
    work = c.astype(_inputs.working(c))
    numbers = [_inputs.number(who, x, parameters[x], work, work.dtype) for x in divergence.parameters]
    return divergence.link(work, *numbers).astype(c.dtype)


@jitted
def sequence_sum(
    terms: ArrayLike,
    log_p: ArrayLike,
    *,
    log_behaviour: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""The sum $\sum_t w_t d_t$ over a sequence, $w_t = \prod_{s < t} p_s / b_s$: that of $d$ with the right gradient.

    For draws of $p$ the value is $\sum_t d_t$. Tokens before $t$ decide which $d_t$ is met, so the gradient is
    $\sum_t \nabla d_t + \nabla \log p_t \sum_{s > t} d_s$: each token answers for the terms after it. With the terms of
    `f_divergence("kl", ...)`, or with the exact divergences of the next token from full logits, as of
    `losses.reverse_kl` (less noisy), the mean over sequences is an unbiased estimate of the Kullback-Leibler divergence
    of the laws of sequences, and its gradient of the gradient. Other divergences do not add up over tokens: sum
    log-probabilities over the sequence first, and it is one draw of `f_divergence`.

    A constant subtracted from the terms of one step, such as their average over many sequences, is a baseline: where
    all sequences have that step, the gradient keeps its mean and loses noise. The value loses its meaning.

    Args:
        terms: Terms $d_t$ of the tokens in their order, `[..., t]`, with their own gradients.
        log_p: Log-probabilities of the tokens drawn, `[..., t]`.
        log_behaviour: Log-probabilities under the law $b$ they were drawn from, a constant: $p$ as it is, by default.
            The term of a token has the weight of that token itself, as `f_divergence` gives it.
        where: A mask that broadcasts against `terms`; False entries are no draws and have no term, whatever they hold:
            prompts, what tools answered, padding.

    Returns:
        `[...]`, in the units of `terms`; 0, with gradient 0, where nothing is left of a sequence.

    Example:
        >>> log_p, log_q = jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.25, 0.75]]))
        >>> def loss(x):
        ...     return estimators.sequence_sum(estimators.f_divergence("kl", x, log_q), x)[0]
        >>> value, slope = jax.value_and_grad(loss)(log_p)
        >>> print(f"{value:.4f} {slope[0, 0]:.4f} {slope[0, 1]:.4f}")
        0.2877 0.7877 -0.4055

    References:
        Schulman, Heess, Weber and Abbeel, Gradient estimation using stochastic computation graphs, 2015. Precup, Sutton
        and Singh, Eligibility traces for off-policy policy evaluation, 2000, for weights by the prefix. Amini, Vieira
        and Cotterell, Better estimation of the KL divergence between language models, 2025, for exact terms.
    """
    who = "estimators.sequence_sum"
    (log_p, terms), log_behaviour, dtype = _draws(who, where, log_behaviour, log_p=log_p, terms=terms)
    _inputs.distinct_axes(who, "terms", terms, -1)
    steps = log_p - log_behaviour
    before = jnp.cumsum(jnp.concatenate([jnp.zeros_like(steps[..., :1]), steps[..., :-1]], -1), -1)
    return jnp.sum(jnp.exp(before) * terms, -1).astype(dtype)


# ---------------------------------------------------------------- Monte Carlo


@jitted
def mean(values: ArrayLike, *, weights: ArrayLike | None = None, where: ArrayLike | None = None) -> Estimate:
    r"""The mean $m = \sum_i w_i x_i / \sum_i w_i$ of independent draws, and its standard error.

    The square of the standard error is $\frac{n}{n - 1} \sum_i w_i^2 (x_i - m)^2 / (\sum_i w_i)^2$: unbiased for equal
    weights, else asymptotically. A weighted mean is biased by $O(1/n)$. Draws within one sequence are not independent:
    sum over the sequence first.

    Args:
        values: One value to a draw, `[n]`.
        weights: Weights `[n]`, non-negative, up to a common factor; equal by default. They are constants: estimates of
            `f_divergence` with `log_behaviour` have theirs in them, with the right gradient.
        where: A mask that broadcasts against `values`; False entries are no draws, whatever they hold.

    Returns:
        `Estimate(value, standard_error)`, `[]` each, in the units of `values`. The standard error is `inf` for fewer
        than two draws; the mean of none is 0.

    Example:
        >>> x = estimators.mean(jnp.array([1.0, 2.0, 3.0, 9.0]), where=jnp.array([True, True, True, False]))
        >>> print(f"{x.value:.4f} {x.standard_error:.4f}")
        2.0000 0.5774

    References:
        Owen, Monte Carlo theory, methods and examples, 2013.
    """
    who = "estimators.mean"
    _inputs.vector(who, values, "values")
    weights = jnp.ones_like(values) if weights is None else weights
    (values, weights), dtype = _inputs.alike(who, values=values, weights=weights)
    draws = jnp.ones(values.shape, bool) if where is None else _inputs.mask(who, where, values.shape)
    work = _inputs.working(values, weights)
    values, weights = (jnp.where(draws, x, 0).astype(work) for x in (values, weights))
    share = lax.stop_gradient(weights / or_one(jnp.sum(weights)))
    value, n = jnp.sum(share * values), jnp.sum(draws).astype(work)
    error = root(n / jnp.maximum(n - 1, 1)) * root(jnp.sum((share * jnp.where(draws, values - value, 0)) ** 2))
    return Estimate(value.astype(dtype), jnp.where(n < 2, jnp.inf, error).astype(dtype))


def monte_carlo(
    name: str,
    sample: Callable[[jax.Array], Any],
    log_p: Callable[[Any], jax.Array],
    log_q: Callable[[Any], jax.Array],
    *,
    key: jax.Array,
    samples: int,
    **parameters: ArrayLike,
) -> Estimate:
    r"""The estimate of $D(p, q) = \mathrm{E}_p\, f(p, q) / p$ from draws of $p$, with its standard error.

    Args:
        name: A divergence of `f_divergence`.
        sample: One draw from $p$ for a key; of any shape or structure, a constant: no gradient flows through it.
        log_p: The log-density, `[]`, of $p$ at one draw; gradients flow to what it closes over, and so for `log_q`.
        log_q: The log-density of $q$ at one draw.
        key: A key of `jax.random`.
        samples: The number of draws, at least 2 for a standard error.
        **parameters: The numbers that go with the name.

    Returns:
        `Estimate(value, standard_error)`, `[]` each, in nats: unbiased, and so is the gradient; non-negative; 0 where
        both log-densities agree at all draws. Where $q$ is far from the draws the variance of the divergence can be
        infinite, and the standard error is then too small without saying so: draw from $(p + q) / 2$ by
        `f_divergence`.

    Raises:
        ValueError: A log-density that is not one number to a draw, no draw, or an unknown name.

    Example:
        >>> from jax.scipy.stats import norm
        >>> x = estimators.monte_carlo("kl", jax.random.normal, norm.logpdf, lambda x: norm.logpdf(x, 1.0),
        ...                            key=jax.random.key(0), samples=10000)
        >>> print(f"{x.value:.2f} +- {x.standard_error:.2f}")
        0.49 +- 0.01

    References:
        Owen, Monte Carlo theory, methods and examples, 2013.
    """
    who = "estimators.monte_carlo"
    _inputs.setting(who, "samples", samples, 1, whole=True)
    draws = lax.stop_gradient(jax.vmap(sample)(jax.random.split(key, samples)))
    densities = [_inputs.of_one_draw(who, of, jax.vmap(law)(draws)) for of, law in (("log_p", log_p), ("log_q", log_q))]
    return mean(f_divergence(name, *densities, **parameters))


# ---------------------------------------------------------------- from nearest neighbours


@functools.partial(jitted, static=("k",))
def knn_kl(xs: ArrayLike, ys: ArrayLike, *, k: int = 1) -> jax.Array:
    r"""The estimate $\frac dn \sum_i \log \frac{\nu_k(x_i)}{\rho_k(x_i)} + \log \frac{m}{n - 1}$ of KL from samples.

    $\rho_k(x_i)$ is the distance from $x_i$ to its k-th nearest among the other $x$, $\nu_k(x_i)$ that among the $y$.
    All distances are computed, in blocks of bounded memory: time is $O(n (n + m) (d + k))$.

    Consistent for laws with densities. Biased at any size: too small where the laws are far apart, since the nearest
    $y$ of an $x$ in a tail of $q$ lie towards its middle; more so in high dimension and for large k. For normal laws of
    equal covariance, 300 points each and a divergence of 2, by -0.17, -0.31, -0.49 and -0.62 in 1, 2, 5 and 10
    dimensions with k = 1, by -0.52 to -0.82 with k = 10; by -0.02 to -0.13 at 0.5 with k = 1; by nothing at 0.

    Args:
        xs: Points `[n, d]` drawn independently from $p$, more than k.
        ys: Points `[m, d]` drawn independently from $q$, at least k.
        k: Which neighbour; more is less variance and more bias.

    Returns:
        The estimate of $\mathrm{KL}(p \,\|\, q)$ in nats, `[]`, of either sign. Finite: distances below the rounding of
        the largest coordinate of $x_i$, as those of duplicates, which are zero, count as that. Among rounded numbers
        some coincide; where many do, there is no density to estimate with.

    Raises:
        ValueError: Too few points, unequal dimensions, or a `k` that is no integer.

    Example:
        >>> xs = jax.random.normal(jax.random.key(0), (2000, 1))
        >>> ys = 1.0 + jax.random.normal(jax.random.key(1), (2000, 1))
        >>> print(f"{estimators.knn_kl(xs, ys, k=10):.1f}")
        0.5

    References:
        Wang, Kulkarni and Verdu, Divergence estimation for multidimensional densities via k-nearest-neighbor distances,
        2009.
    """
    (xs, ys), dtype = _inputs.points("estimators.knn_kl", k, xs, ys)
    (n, d), m = xs.shape, len(ys)
    # The estimate does not depend on the unit of length. In this one, a power of two and therefore exact, no square of
    # a distance is infinite.
    largest = lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(xs)), jnp.max(jnp.abs(ys))))
    unit = jnp.where(largest > 0, jnp.ldexp(jnp.ones_like(largest), jnp.frexp(largest)[1] - 1), 1)
    xs, ys = xs / unit, ys / unit

    def log_quotient(x):
        # A point of xs is its own nearest, at distance exactly 0: the k-th of the others is the next but k.
        info = jnp.finfo(x.dtype)
        rounding = lax.stop_gradient(info.eps * jnp.max(jnp.abs(x)))
        least = jnp.maximum(rounding * rounding, info.tiny)
        rho, nu = (jnp.maximum(_kth_square(x, *of), least) for of in ((xs, k + 1), (ys, k)))
        return log_ratio(nu, rho, nu - rho)

    quotients = lax.map(log_quotient, xs, batch_size=min(n, max(1, tuning.DIFFERENCES // (d * max(n, m)))))
    return (0.5 * d * jnp.mean(quotients) + math.log(m / (n - 1))).astype(dtype)


def _kth_square(x, points, k):
    """The square of the k-th smallest distance."""
    # For the few neighbours in use, passes that each remove the nearest take a fraction of the time of a sort.
    squares = lax.stop_gradient(jnp.sum((points - x[None]) ** 2, -1))
    others = lax.fori_loop(0, k - 1, lambda _, left: left.at[jnp.argmin(left)].set(jnp.inf), squares)
    return jnp.sum((points[jnp.argmin(others)] - x) ** 2)


# ---------------------------------------------------------------- variational bounds


def _log_mean_exp(scores, where):
    """The logarithm of the mean of exp over the last axis, as the largest score, a constant, and the rest."""
    scores = jnp.where(where, scores, -jnp.inf)
    top = lax.stop_gradient(jnp.max(scores, -1))
    return top, jnp.log(jnp.sum(jnp.exp(scores - top[..., None]), -1) / jnp.sum(where, -1).astype(scores.dtype))


def _mean(scores, where):
    return jnp.sum(jnp.where(where, scores, 0)) / jnp.sum(where).astype(scores.dtype)


def _scores(who, **scores_and_masks):
    """Vectors of scores `[n]` in the working precision with their masks, and the dtype of a result."""
    scores = {name: _inputs.vector(who, x, name) for name, (x, _) in scores_and_masks.items()}
    work = _inputs.working(*scores.values())
    masks = [True if where is None else where for _, where in scores_and_masks.values()]
    found = [
        (x.astype(work), _inputs.mask(who, where, x.shape)) for x, where in zip(scores.values(), masks, strict=True)
    ]
    return found, _inputs.promoted(*scores.values())


@jitted
def donsker_varadhan(
    scores_p: ArrayLike,
    scores_q: ArrayLike,
    *,
    moving: LogMean | None = None,
    where_p: ArrayLike | None = None,
    where_q: ArrayLike | None = None,
) -> jax.Array:
    r"""The Donsker-Varadhan bound $\mathrm{E}_p T - \log \mathrm{E}_q e^T \le \mathrm{KL}(p \,\|\, q)$ of a critic $T$.

    Of expectations it is a lower bound, an equality for $T = \log p / q$ up to a constant. Of m draws of $q$ it is too
    large on average, by about $\mathrm{Var}_q(e^T) / (2 m\, (\mathrm{E}_q e^T)^2)$, and its gradient is biased too. The
    mean of $e^T$ over many batches in the denominator takes the bias of the gradient away as it becomes exact.

    Args:
        scores_p: Scores $T(x)$ of draws of $p$, `[n]`.
        scores_q: Scores of draws of $q$, `[m]`; for mutual information those of shuffled pairs.
        moving: The mean of $e^T$ from `update_log_mean`, this batch included; that of this batch alone by default. The
            value is the same.
        where_p: A mask of `scores_p`; False entries are no draws.
        where_q: A mask of `scores_q`.

    Returns:
        The bound in nats, `[]`, of either sign: 0 for equal scores; `nan` without a draw on either side.

    Example:
        >>> print(f"{estimators.donsker_varadhan(jnp.array([1.0, 2.0]), jnp.array([-1.0, 1.0])):.4f}")
        1.0662

    References:
        Donsker and Varadhan, Asymptotic evaluation of certain Markov process expectations for large time, 1983.
        Belghazi et al., Mutual information neural estimation, 2018, for the gradient.
    """
    (p, q), dtype = _scores("estimators.donsker_varadhan", scores_p=(scores_p, where_p), scores_q=(scores_q, where_q))
    top, rest = _log_mean_exp(*q)
    if moving is not None:
        log_sum, weight = _numbers("estimators.donsker_varadhan", moving, rest)
        in_units = jnp.exp(rest + (top - lax.stop_gradient(log_sum - jnp.log(weight))))
        rest = lax.stop_gradient(rest) + (in_units - lax.stop_gradient(in_units))
    # Differences from the largest score before sums: equal scores give 0 whatever their size.
    return (_mean(p[0] - top, p[1]) - rest).astype(dtype)


def _numbers(who, state, like):
    return [_inputs.number(who, name, x, like, like.dtype) for name, x in zip(state._fields, state, strict=True)]


@jitted
def update_log_mean(
    state: LogMean, scores_q: ArrayLike, *, decay: ArrayLike, where_q: ArrayLike | None = None
) -> LogMean:
    r"""The moving mean of $e^T$ with one batch more, $S \leftarrow \gamma S + \mathrm{mean}\, e^T$, in logarithms.

    Args:
        state: The mean so far; `LogMean(-jnp.inf, 0.0)`, of weight zero, before the first.
        scores_q: Scores of a batch of draws of $q$, `[m]`; a constant.
        decay: $\gamma \in [0, 1]$: 0 forgets all but this batch, 1 nothing.
        where_q: A mask of `scores_q`; False entries are no draws.

    Returns:
        The state, `[]` each: the mean is $e^\text{log\_sum} / \text{weight}$, with no bias towards its start.

    Example:
        >>> state = estimators.LogMean(-jnp.inf, 0.0)
        >>> for scores in (jnp.zeros(2), jnp.log(jnp.array([2.0, 4.0]))):
        ...     state = estimators.update_log_mean(state, scores, decay=0.5)
        >>> print(f"{jnp.exp(state.log_sum) / state.weight:.4f}")
        2.3333

    References:
        Belghazi et al., Mutual information neural estimation, 2018.
    """
    who = "estimators.update_log_mean"
    ((scores, draws),), _ = _scores(who, scores_q=(scores_q, where_q))
    log_mean = lax.stop_gradient(jnp.add(*_log_mean_exp(scores, draws)))
    decay = _inputs.number(who, "decay", decay, log_mean, log_mean.dtype)
    log_sum, weight = _numbers(who, state, log_mean)
    after = LogMean(jnp.logaddexp(log_sum + jnp.log(decay), log_mean), decay * weight + 1)
    # The dtypes of a scan's carry are those it came with.
    return jax.tree.map(lambda new, old: new.astype(jnp.result_type(old)), after, state)


@jitted
def nwj(
    scores_p: ArrayLike,
    scores_q: ArrayLike,
    *,
    where_p: ArrayLike | None = None,
    where_q: ArrayLike | None = None,
) -> jax.Array:
    r"""The bound $\mathrm{E}_p T - \mathrm{E}_q e^{T - 1} \le \mathrm{KL}(p \,\|\, q)$ of a critic $T$, unbiased.

    Below that of Donsker and Varadhan for the same critic, an equality for $T = 1 + \log p / q$. Of draws it is right
    on average, value and gradient, with a variance that grows as $e^{\mathrm{KL}}$.

    Args:
        scores_p: Scores $T(x)$ of draws of $p$, `[n]`.
        scores_q: Scores of draws of $q$, `[m]`.
        where_p: A mask of `scores_p`; False entries are no draws.
        where_q: A mask of `scores_q`.

    Returns:
        The bound in nats, `[]`, of either sign: 0 for scores of 1; `nan` without a draw on either side.

    Example:
        >>> print(f"{estimators.nwj(jnp.array([1.0, 2.0]), jnp.array([-1.0, 1.0])):.4f}")
        0.9323

    References:
        Nguyen, Wainwright and Jordan, Estimating divergence functionals and the likelihood ratio by convex risk
        minimization, 2010. Poole et al., On variational bounds of mutual information, 2019.
    """
    (p, q), dtype = _scores("estimators.nwj", scores_p=(scores_p, where_p), scores_q=(scores_q, where_q))
    return (_mean(*p) - jnp.exp(jnp.add(*_log_mean_exp(*q)) - 1)).astype(dtype)


@jitted
def info_nce(scores: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    r"""The bound $\frac1n \sum_i \log \frac{e^{T_{ii}}}{\frac1n \sum_j e^{T_{ij}}}$ on mutual information, of n pairs.

    A lower bound on average, never above $\log n$: where the information is more, so is what it misses. Close to it for
    much larger n, with $T = \log p(y \mid x)$ up to a function of x. For the symmetric form average with that of
    `scores.T`.

    Args:
        scores: Scores $T(x_i, y_j)$ of all pairs, `[n, n]`; those that belong together on the diagonal.
        where: A mask that broadcasts against `scores`; False entries are no candidates, and a row whose own pair is
            False is left out. The bound of a row is then the logarithm of the number of its candidates.

    Returns:
        The bound in nats, `[]`, at most $\log n$: 0 for equal scores; `nan` without a row. As a loss, its negative.

    Example:
        >>> print(f"{estimators.info_nce(jnp.eye(2)):.4f} {estimators.info_nce(100 * jnp.eye(2)):.4f}")
        0.3799 0.6931

    References:
        van den Oord, Li and Vinyals, Representation learning with contrastive predictive coding, 2018. Poole et al., On
        variational bounds of mutual information, 2019.
    """
    who = "estimators.info_nce"
    scores = _inputs.square(who, "scores", scores)
    dtype, scores = scores.dtype, scores.astype(_inputs.working(scores))
    candidates = _inputs.mask(who, True if where is None else where, scores.shape)
    rows = jnp.diagonal(candidates)
    scores = jnp.where(candidates, scores, 0)
    # A row left out has no mean of its own; any will do.
    top, rest = _log_mean_exp(scores, candidates | ~rows[:, None])
    value = _mean((jnp.diagonal(scores) - top) - rest, rows)
    return capped(value, math.log(len(scores))).astype(dtype)

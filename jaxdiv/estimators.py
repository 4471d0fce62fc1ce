r"""Divergences from samples: estimates with unbiased gradients, and variational bounds.

The inputs are log-densities of draws: `log_p` and `log_q` hold $\log p(x)$ and $\log q(x)$ for each draw $x$. In
reinforcement learning they are the log-probabilities of the drawn tokens under the policy $p$ and the reference $q$.

The draws themselves are constants, but their distribution depends on $p$. If you differentiate only the mean of an
estimate, you miss this dependence: the score-function term $\mathrm{E}[\,\cdot\,\nabla \log p]$. For draws from $p$ and
$c = \log p - \log q$, the usual estimates of $\mathrm{KL}(p \,\|\, q)$ behave like this:

| | value | mean gradient with respect to $p$ | with respect to $q$ |
|---|---|---|---|
| `k1` = $c$ | unbiased, of either sign | 0 | right |
| `k2` = $c^2/2$ | biased, by a factor $1 + \mathrm{KL}/2$ for normal distributions of equal scale | right | biased |
| `k3` = $e^{-c} - 1 + c$ | unbiased, non-negative | that of $\mathrm{KL}(q \,\|\, p)$ | right |
| `f_divergence("kl", ...)` | `k3` | right | right |

"Right" means the gradient of $\mathrm{KL}(p \,\|\, q)$. `f_divergence` has right gradients, and right derivatives of
any order, for every f-divergence of the library and for draws from any distribution. In a sequence, each drawn token
changes the distribution of the later ones. `sequence_sum` accounts for this; without it, each gradient above is that of
a single token.

"Unbiased" assumes that draws can land wherever $q$ has mass. Mass of $q$ outside is missed: for `kl` the estimate is
too small by that mass.

Estimates have the unit of the divergence: nats for `kl`, none for total variation. Half precision is computed in
float32. A wrong shape raises ValueError and a dtype that is not floating-point raises TypeError, both while tracing.

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
from jaxdiv._core.functions import (
    capped,
    clipped,
    expm1x,
    finite_or_zero,
    log_ratio,
    of_moderate_size,
    or_one,
    root,
    still_at_infinity,
    times,
    unit_of,
    with_tangents,
)
from jaxdiv._core.jit import jitted
from jaxdiv._core.rules import custom_jvp
from jaxdiv._discrete.record import Event
from jaxdiv._discrete.terms import BY_NAME


class Estimate(NamedTuple):
    """A mean and its standard error, each `[]`."""

    value: jax.Array
    standard_error: jax.Array


class LogMean(NamedTuple):
    r"""A moving mean of exponentials, $e^\text{log\_sum} / \text{weight}$, each `[]`.

    The initial state is `LogMean(-jnp.inf, 0.0)`.
    """

    log_sum: ArrayLike
    weight: ArrayLike


# ---------------------------------------------------------------- from log-densities of draws


def _log_ratio(verb, where, max_log_ratio, log_p, log_q):
    """The log-ratio of draws in the working precision, 0 where masked, clipped to a bound; and the result's dtype."""
    who = f"estimators.{verb}"
    (log_p, log_q), _, dtype = _draws(who, where, None, log_p=log_p, log_q=log_q)
    c = _log_quotient(log_p, log_q)
    if max_log_ratio is None:
        return c, dtype
    bound = _bound(who, max_log_ratio, c)
    return jnp.where(jnp.isnan(bound), jnp.nan, clipped(c, bound)), dtype


def _bound(who, max_log_ratio, like):
    """The bound of log-ratios as an array; a negative one is nan."""
    bound = _inputs.number(who, "max_log_ratio", max_log_ratio, like, like.dtype)
    return jnp.where(bound >= 0, bound, jnp.nan)


def _log_quotient(log_p, log_q):
    """The difference of log-densities, 0 where both are -inf."""
    neither = _neither(log_p, log_q)
    return jnp.where(neither, 0, log_p) - jnp.where(neither, 0, log_q)


def _neither(log_p, log_q):
    return (log_p == -jnp.inf) & (log_q == -jnp.inf)


def _still_at_infinity(estimate, c, dtype):
    """An estimate from c, with derivative 0 where it is infinite: an infinite derivative times 0 would be NaN."""
    value = estimate(c).astype(dtype)
    infinite = jnp.isinf(value)
    return jnp.where(infinite, lax.stop_gradient(value), estimate(jnp.where(infinite, 0, c)).astype(dtype))


@jitted
def k1(
    log_p: ArrayLike, log_q: ArrayLike, *, where: ArrayLike | None = None, max_log_ratio: ArrayLike | None = None
) -> jax.Array:
    r"""The estimate $c = \log p - \log q$ of $\mathrm{KL}(p \,\|\, q)$ from draws of $p$, elementwise.

    Args:
        log_p: Log-densities of the draws under the distribution they come from, of any shape.
        log_q: Log-densities of the same draws under the other distribution.
        where: A mask that broadcasts against `log_p`; the result is 0 where it is False, whatever the inputs.
        max_log_ratio: A number $b$; $c$ is clipped to $[-b, b]$, with gradient 0 outside. A negative one gives `nan`.
            No clipping by default.
            Clipping biases the estimate, in either direction, by the part of $c$ that it cuts off.

    Returns:
        In the shape of `log_p`: unbiased, of either sign; 0 where both agree. Use it as a reward, not as a loss: its
        gradient with respect to $p$ has mean 0.

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
        log_p: Log-densities of the draws under the distribution they come from, of any shape.
        log_q: Log-densities of the same draws under the other distribution.
        where: A mask that broadcasts against `log_p`; the result is 0 where it is False, whatever the inputs.
        max_log_ratio: A number $b$; $\log p - \log q$ is clipped to $[-b, b]$, with gradient 0 outside. A negative one
            gives `nan`. No clipping by default. Clipping makes the estimate too small, and removes the gradient of the
            clipped draws.

    Returns:
        In the shape of `log_p`: non-negative; 0 where both agree; where it is `inf`, its gradient is 0. The value is
        biased, by a factor $1 + \mathrm{KL}/2$ for normal distributions of equal scale. The gradient with respect to
        $p$ is an unbiased estimate of that of $\mathrm{KL}(p \,\|\, q)$ for single draws, not for sequences.

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
        log_p: Log-densities of the draws under the distribution they come from, of any shape.
        log_q: Log-densities of the same draws under the other distribution.
        where: A mask that broadcasts against `log_p`; the result is 0 where it is False, whatever the inputs.
        max_log_ratio: A number $b$; $\log p - \log q$ is clipped to $[-b, b]$, with gradient 0 outside. A negative one
            gives `nan`. No clipping by default. Clipping makes the estimate too small, and removes the gradient of the
            clipped draws.

    Returns:
        In the shape of `log_p`: unbiased and non-negative, to full relative accuracy; 0 where both agree; `inf`, with
        gradient 0, where $q$ is zero. Use it as a value, not as a loss: the mean of its gradient with respect to $p$ is
        that of $\mathrm{KL}(q \,\|\, p)$.

    Example:
        >>> print(f"{estimators.k3(jnp.log(0.25), jnp.log(0.5)):.4f}")
        0.3069

    References:
        Schulman, Approximating KL divergence, 2020.
    """
    c, dtype = _log_ratio("k3", where, max_log_ratio, log_p, log_q)
    return _still_at_infinity(expm1x, -c, dtype)


def _divergence(who, name, parameters):
    """The record of a name; raises unless the name is known and takes these parameters."""
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

    Here $f$ is the library's non-negative term of the divergence, homogeneous of degree one; for Kullback-Leibler the
    estimate is `k3`. The gradient of the mean over draws is unbiased with respect to $p$ and to $q$. It includes the
    score-function term of $p$ and the weights $p / b$. Derivatives of higher order are unbiased too.

    Args:
        name: `"kl"`, `"jeffreys"`, `"js"`, `"squared_hellinger"`, `"total_variation"`, `"chi2"`, `"triangular"`,
            defined as in `jaxdiv.categorical`; `"amari"` with `alpha`; `"skewed_js"` with the `weight` of $p$;
            `"rescaled_js"` with `weight` $w$: `skewed_js` divided by $w (1 - w)$. $\mathrm{KL}(q \,\|\, p)$ is `amari`
            of order 0.
        log_p: Log-densities of the draws under $p$, of any shape.
        log_q: Log-densities of the same draws under $q$.
        log_behaviour: Log-densities of the draws under the distribution $b$ they come from, for instance $q$ or
            $(p + q) / 2$; a constant. By default $b$ is the current $p$.
        where: A mask that broadcasts against `log_p`; the result is 0 where it is False, whatever the inputs.
        max_log_ratio: A number $c_0$. If the log-ratio $c = \log p / q$ of a draw lies outside of $[-c_0, c_0]$, $q$ is
            replaced so that $c = \pm c_0$. No bound by default. With a bound, the estimate is too small. Such draws
            have no gradient with respect to $q$, and with respect to $p$ that of the replaced term.
        **parameters: The numbers that the named divergence takes.

    Returns:
        In the shape of `log_p`: 0, with gradient 0, where both agree, also at $-\infty$; `inf`, with gradient 0, where
        $q$ is zero and the divergence infinite, and where a draw has density zero under $b$. The ratios $p / b$ and
        $q / b$ are capped at a quarter of the largest float.

    Raises:
        ValueError: The name is unknown, or does not take these numbers.

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
        bound = _bound(who, max_log_ratio, log_p)
        log_p, log_q = (jnp.where(jnp.isnan(bound), jnp.nan, x) for x in _within_ratio(log_p, log_q, bound))
        log_behaviour = log_behaviour if given else lax.stop_gradient(log_p)
    return _term_of(divergence)(log_p, log_q, log_behaviour, *numbers).astype(dtype)


def _draws(who, where, log_behaviour, *, log_p, **others):
    """Arrays over draws in the working precision, 0 where masked; log-densities of their source; the result's dtype."""
    given = {} if log_behaviour is None else {"log_behaviour": log_behaviour}
    arrays, dtype = _inputs.alike(who, log_p=log_p, **others, **given)
    work = _inputs.working(*arrays)
    if where is not None:
        where = _inputs.mask(who, where, arrays[0].shape)
        arrays = [jnp.where(where, x, 0) for x in arrays]
    arrays = [x.astype(work) for x in arrays]
    return arrays[: 1 + len(others)], lax.stop_gradient(arrays[-1] if given else arrays[0]), dtype


def _within_ratio(log_p, log_q, bound):
    """Log-densities whose ratio is within a bound: outside, q is set from p; where p is 0, p is set from q."""
    c = _log_quotient(log_p, log_q)
    p = jnp.where(c == -jnp.inf, lax.stop_gradient(log_q - bound), log_p)
    return p, jnp.where(c > bound, p - bound, jnp.where(c < -bound, p + bound, log_q))


def _capped_exp(x):
    """exp(x), at most a quarter of the largest float."""
    return jnp.exp(jnp.minimum(x, math.log(jnp.finfo(x.dtype).max / 4)))


def _pair(log_p, log_q, log_behaviour):
    """Draws as events; their masses are the densities p / b and q / b."""
    unit = jnp.where(log_behaviour == -jnp.inf, 0, log_behaviour)
    p, q = (_capped_exp(x - unit) for x in (log_p, log_q))
    c = _log_quotient(log_p, log_q)
    return Event(p, q, c, functions.difference(p, q, c), c, jnp.zeros_like(c), None, log_p - unit)


@functools.cache
def _term_of(divergence):
    @custom_jvp
    def term(log_p, log_q, log_behaviour, *parameters):
        value = divergence.term(_pair(log_p, log_q, log_behaviour), *parameters)
        # A draw with density zero under b.
        impossible = (log_behaviour == -jnp.inf) & ~_neither(log_p, log_q) & ~jnp.isnan(value)
        return jnp.where(impossible, jnp.inf, value)

    def rule(primals, tangents):
        log_p, log_q, log_behaviour, *parameters = primals
        value, pair = term(*primals), _pair(log_p, log_q, log_behaviour)
        tangent = jnp.zeros_like(value)
        # D is the sum of f(p, q), so its derivative along log p is the sum of p df/dp, the slope of the record. Divided
        # by b this is the estimate's derivative. As it contains p / b, its own derivative is right in the same way.
        for slope, d in ((divergence.slope_p, tangents[0]), (divergence.slope_q, tangents[1])):
            if d is not None:
                tangent += functions.bounded_slope(value, slope(pair, *parameters)) * d
        if any(d is not None for d in tangents[3:]):
            tangent += functions.tangent_in_parameters(
                functools.partial(divergence.term, pair), parameters, tangents[3:], value
            )
        return value, tangent

    term.defjvp(rule, symbolic_zeros=True)
    return term


@functools.partial(jitted, static=("name",))
def link(name: str, log_ratio: ArrayLike, **parameters: ArrayLike) -> jax.Array:
    r"""The derivative $f'(p/q)$ of the generator of $D(p, q) = \mathrm{E}_q f(p/q)$, elementwise in $\log p/q$.

    The distribution $p$ that maximises $\mathrm{E}_p r - \beta D(p, q)$ satisfies $r = \beta f'(p/q) + \text{const}$
    where it has mass. So differences of rewards are $\beta$ times differences of links: use the link in place of the
    logarithm in DPO. $f'(p/q)$ is also the best critic of the bound $\mathrm{E}_p T - \mathrm{E}_q f^*(T) \le D(p, q)$.

    Args:
        name: A divergence of `f_divergence`.
        log_ratio: $c = \log p/q$ of tokens or of whole sequences, of any shape.
        **parameters: The numbers that the named divergence takes.

    Returns:
        In the shape of `log_ratio`: increasing in $c$, with the sign of $c$, 0 at 0, to full relative accuracy; for
        `kl` it is $c$ itself. At $c = -\infty$ it is $-1/2$ for `total_variation`, $-2$ for `chi2`, $-3$ for
        `triangular`, $-1/(\alpha - 1)$ for `amari` of order above 1, and $-\infty$ for the others. If it is $-\infty$,
        the maximising distribution has mass wherever $q$ has.

    Raises:
        ValueError: The name is unknown, or does not take these numbers.

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
    r"""The sum $\sum_t w_t d_t$, $w_t = \prod_{s < t} p_s / b_s$, of terms over a sequence, with the right gradient.

    For draws from $p$ the value is $\sum_t d_t$. The tokens before $t$ decide which $d_t$ occurs, so the gradient is
    $\sum_t \nabla d_t + \nabla \log p_t \sum_{s > t} d_s$: each token gets credit for the terms after it. The terms can
    be those of `f_divergence("kl", ...)` or, with less noise, the exact divergences of the next token from full logits,
    for instance by `losses.reverse_kl`. The mean over sequences is then an unbiased estimate of the Kullback-Leibler
    divergence between the distributions of sequences, and so is its gradient. Other divergences do not add up over
    tokens: sum the log-probabilities over the sequence first, and pass the sums to `f_divergence` as one draw.

    You can subtract a constant, such as the average over many sequences, from the terms of one step (a baseline). If
    all sequences have that step, the gradient keeps its mean and has less noise, but the value loses its meaning.

    Args:
        terms: Terms $d_t$ of the tokens, in order, `[..., t]`; gradients flow to them.
        log_p: Log-probabilities of the drawn tokens, `[..., t]`.
        log_behaviour: Log-probabilities under the distribution $b$ that the tokens were drawn from; a constant. By
            default $b$ is the current $p$. The weight $p_t / b_t$ of a token itself belongs in its term, where
            `f_divergence` puts it.
        where: A mask that broadcasts against `terms`. Where it is False there is no draw and no term, whatever the
            inputs: prompts, answers of tools, padding.

    Returns:
        `[...]`, in the units of `terms`; 0, with gradient 0, where a sequence is masked entirely; `inf`, with gradient
        0, where a term that can occur is infinite. The weights $w_t$ are capped at a quarter of the largest float.

    Example:
        >>> log_p, log_q = jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.25, 0.75]]))
        >>> def loss(x):
        ...     return estimators.sequence_sum(estimators.f_divergence("kl", x, log_q), x)[0]
        >>> value, slope = jax.value_and_grad(loss)(log_p)
        >>> print(f"{value:.4f} {slope[0, 0]:.4f} {slope[0, 1]:.4f}")
        0.2877 0.7877 -0.4055

    References:
        Schulman, Heess, Weber and Abbeel, Gradient estimation using stochastic computation graphs, 2015. Precup, Sutton
        and Singh, Eligibility traces for off-policy policy evaluation, 2000, for the weights $w_t$. Amini, Vieira and
        Cotterell, Better estimation of the KL divergence between language models, 2025, for exact terms.
    """
    who = "estimators.sequence_sum"
    (log_p, terms), log_behaviour, dtype = _draws(who, where, log_behaviour, log_p=log_p, terms=terms)
    _inputs.distinct_axes(who, "terms", terms, -1)
    steps = _log_quotient(log_p, log_behaviour)
    before = jnp.cumsum(jnp.concatenate([jnp.zeros_like(steps[..., :1]), steps[..., :-1]], -1), -1)
    weights = _capped_exp(before)

    def total(terms):
        return jnp.sum(times(weights, terms), -1).astype(dtype)

    value = total(terms)
    infinite = jnp.isinf(value)
    return jnp.where(infinite, lax.stop_gradient(value), total(jnp.where(infinite[..., None], 0, terms)))


# ---------------------------------------------------------------- Monte Carlo


@jitted
def mean(values: ArrayLike, *, weights: ArrayLike | None = None, where: ArrayLike | None = None) -> Estimate:
    r"""The mean $m = \sum_i w_i x_i / \sum_i w_i$ of independent draws, and its standard error.

    The square of the standard error is $\frac{n}{n - 1} \sum_i w_i^2 (x_i - m)^2 / (\sum_i w_i)^2$. It is unbiased for
    equal weights, and asymptotically unbiased for others. A weighted mean is biased by $O(1/n)$. Draws within one
    sequence are not independent: sum over the sequence first.

    Args:
        values: One value per draw, `[n]`.
        weights: Non-negative weights `[n]`, equal by default; a common factor does not matter. They are constants.
            Values from `f_divergence` with `log_behaviour` already contain their weights, with the right gradient: pass
            none for them.
        where: A mask that broadcasts against `values`; entries where it is False are no draws, whatever they hold.

    Returns:
        `Estimate(value, standard_error)`, `[]` each, in the units of `values`. The standard error is `inf` for fewer
        than two draws. The mean of no draws is 0.

    Example:
        >>> x = estimators.mean(jnp.array([1.0, 2.0, 3.0, 9.0]), where=jnp.array([True, True, True, False]))
        >>> print(f"{x.value:.4f} {x.standard_error:.4f}")
        2.0000 0.5774

    References:
        Owen, Monte Carlo theory, methods and examples, 2013.
    """
    who = "estimators.mean"
    _inputs.vector(who, values, "values", least=0)
    weights = jnp.ones_like(values) if weights is None else weights
    (values, weights), dtype = _inputs.alike(who, values=values, weights=weights)
    draws = jnp.ones(values.shape, bool) if where is None else _inputs.mask(who, where, values.shape)
    work = _inputs.working(values, weights)
    values, weights = (jnp.where(draws, x, 0).astype(work) for x in (values, weights))
    weights = of_moderate_size(weights)
    share = lax.stop_gradient(weights / or_one(jnp.sum(weights)))
    value, n = jnp.sum(share * values), jnp.sum(draws).astype(work)
    apart = jnp.where(draws, values - value, 0)
    unit = unit_of(jnp.max(jnp.abs(apart), initial=0))  # squares neither overflow nor vanish
    error = root(n / jnp.maximum(n - 1, 1)) * root(jnp.sum((share * (apart / unit)) ** 2)) * unit
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
        sample: A function from a key to one draw from $p$, of any shape or structure. The draw is a constant: no
            gradient flows through it.
        log_p: A function from one draw to its log-density `[]` under $p$. Gradients flow to the values it closes over.
        log_q: The same for $q$.
        key: A key of `jax.random`.
        samples: The number of draws, at least 2 for a standard error.
        **parameters: The numbers that the named divergence takes.

    Returns:
        `Estimate(value, standard_error)`, `[]` each, in the unit of the divergence. The value is non-negative, and 0
        where both log-densities agree at all draws. Value and gradient are unbiased. If $q$ has much mass far from the
        draws, the variance can be infinite, and the standard error is then too small. In that case draw from
        $(p + q) / 2$ and use `f_divergence`.

    Raises:
        ValueError: A log-density is not one number per draw, there is no draw, or the name is unknown.

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

    $\rho_k(x_i)$ is the distance from $x_i$ to its k-th nearest neighbour among the other $x$, and $\nu_k(x_i)$ that
    among the $y$. All distances are computed, in blocks of bounded memory. The time is $O(n (n + m) (d + k))$.

    The estimate is consistent for distributions with densities. For any number of points it is biased: it is too small
    for distributions that are far apart, because an $x$ in a tail of $q$ has its nearest $y$ on the side of the middle
    of $q$. The bias grows with the dimension and with k. For normal distributions of equal covariance and 300 points
    each, the bias at a divergence of 2 is -0.17, -0.31, -0.49 and -0.62 in 1, 2, 5 and 10 dimensions with k = 1, and
    -0.52 to -0.82 with k = 10. At a divergence of 0.5 it is -0.02 to -0.13 with k = 1; at 0 there is none.

    Args:
        xs: More than k points `[n, d]`, drawn independently from $p$.
        ys: At least k points `[m, d]`, drawn independently from $q$.
        k: The number of the neighbour. A larger k has less variance and more bias.

    Returns:
        The estimate of $\mathrm{KL}(p \,\|\, q)$ in nats, `[]`, of either sign. It is always finite: a distance below
        the rounding error of the largest coordinate of $x_i$, such as the zero distance of duplicates, counts as that
        rounding error, or as 1e-19 (in float64 1e-154) of the largest coordinate of all points if that is more. If many
        points coincide, the distribution has no density and the estimate means little.

    Raises:
        ValueError: There are too few points, the dimensions differ, or `k` is not an integer.

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
    # The estimate does not depend on the unit of length. In this unit no squared distance overflows. It is a power of
    # two, so the division is exact.
    largest = lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(xs)), jnp.max(jnp.abs(ys))))
    unit = jnp.where(largest > 0, jnp.ldexp(jnp.ones_like(largest), jnp.frexp(largest)[1] - 1), 1)
    xs, ys = xs / unit, ys / unit

    def log_quotient(x):
        # A point of xs is its own nearest neighbour, at distance exactly 0, so its k-th other one is number k + 1.
        info = jnp.finfo(x.dtype)
        rounding = lax.stop_gradient(info.eps * jnp.max(jnp.abs(x)))
        least = jnp.maximum(rounding * rounding, info.tiny)
        rho, nu = (jnp.maximum(_kth_square(x, *of), least) for of in ((xs, k + 1), (ys, k)))
        return log_ratio(nu, rho, nu - rho)

    quotients = lax.map(log_quotient, xs, batch_size=min(n, max(1, tuning.DIFFERENCES // (d * max(n, m)))))
    return (0.5 * d * jnp.mean(quotients) + math.log(m / (n - 1))).astype(dtype)


def _kth_square(x, points, k):
    """The square of the k-th smallest distance."""
    # For a small k, k passes that each remove the nearest point take a fraction of the time of a sort.
    squares = lax.stop_gradient(jnp.sum((points - x[None]) ** 2, -1))
    others = lax.fori_loop(0, k - 1, lambda _, left: left.at[jnp.argmin(left)].set(jnp.inf), squares)
    return jnp.sum((points[jnp.argmin(others)] - x) ** 2)


# ---------------------------------------------------------------- variational bounds


def _log_mean_exp(scores, where):
    """The logarithm of the mean of exp over the last axis, as the largest finite score (a constant) and the rest."""
    scores = jnp.where(where, scores, -jnp.inf)
    top = finite_or_zero(lax.stop_gradient(jnp.max(scores, -1, initial=-jnp.inf)))
    mean = jnp.sum(jnp.exp(scores - top[..., None]), -1) / jnp.sum(where, -1).astype(scores.dtype)
    return top, jnp.where(mean == 0, -jnp.inf, jnp.log(or_one(mean)))


def _mean(scores, where):
    return jnp.sum(jnp.where(where, scores, 0)) / jnp.sum(where).astype(scores.dtype)


def _scores(who, **scores_and_masks):
    """Vectors of scores `[n]` in the working precision, with their masks, and the dtype of the result."""
    scores = {name: _inputs.vector(who, x, name, least=0) for name, (x, _) in scores_and_masks.items()}
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

    With exact expectations it is a lower bound, with equality for $T = \log p / q$ plus any constant. With m draws from
    $q$ it is too large on average, by about $\mathrm{Var}_q(e^T) / (2 m\, (\mathrm{E}_q e^T)^2)$, and its gradient is
    biased too. To reduce the bias of the gradient, pass as `moving` a mean of $e^T$ over many batches; it takes the
    place of the batch mean in the denominator.

    Args:
        scores_p: Scores $T(x)$ of draws from $p$, `[n]`.
        scores_q: Scores of draws from $q$, `[m]`; for mutual information, of shuffled pairs.
        moving: The mean of $e^T$ from `update_log_mean`, with this batch included; by default the mean of this batch
            alone. It changes the gradient only, not the value.
        where_p: A mask of `scores_p`; entries where it is False are no draws.
        where_q: A mask of `scores_q`.

    Returns:
        The bound in nats, `[]`, of either sign: 0 for equal scores; `nan` if either side has no draw. Where it is
        infinite, its gradient is 0.

    Example:
        >>> print(f"{estimators.donsker_varadhan(jnp.array([1.0, 2.0]), jnp.array([-1.0, 1.0])):.4f}")
        1.0662

    References:
        Donsker and Varadhan, Asymptotic evaluation of certain Markov process expectations for large time, 1983.
        Belghazi et al., Mutual information neural estimation, 2018, for the gradient.
    """
    (p, q), dtype = _scores("estimators.donsker_varadhan", scores_p=(scores_p, where_p), scores_q=(scores_q, where_q))
    state = [] if moving is None else _numbers("estimators.donsker_varadhan", moving, jnp.zeros((), q[0].dtype))

    def bound(p, q, state):
        top, rest = _log_mean_exp(*q)
        if state:
            log_sum, weight = state
            mean = lax.stop_gradient(jnp.where(weight > 0, log_sum - jnp.log(weight), rest + top))
            rest = with_tangents(rest, jnp.exp(rest + (top - mean)))
        # The largest score is subtracted before the sums, so equal scores of any size give exactly 0.
        return (_mean(p[0] - top, p[1]) - rest).astype(dtype)

    return still_at_infinity(bound, p, q, state)


def _numbers(who, state, like):
    return [_inputs.number(who, name, x, like, like.dtype) for name, x in zip(state._fields, state, strict=True)]


@jitted
def update_log_mean(
    state: LogMean, scores_q: ArrayLike, *, decay: ArrayLike, where_q: ArrayLike | None = None
) -> LogMean:
    r"""Adds one batch to the moving mean of $e^T$: $S \leftarrow \gamma S + \mathrm{mean}\, e^T$, in logarithms.

    Args:
        state: The mean so far; `LogMean(-jnp.inf, 0.0)`, with weight zero, before the first batch.
        scores_q: Scores of a batch of draws from $q$, `[m]`; a constant.
        decay: $\gamma \in [0, 1]$: 0 keeps this batch only, 1 weighs all batches equally.
        where_q: A mask of `scores_q`; entries where it is False are no draws. Without draws the state stays as it is.

    Returns:
        The new state, `[]` each. The mean is $e^\text{log\_sum} / \text{weight}$, without bias towards the initial
        state.

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
    # A scan needs a carry whose dtypes do not change.
    return jax.tree.map(lambda new, old: jnp.where(jnp.any(draws), new, old).astype(jnp.result_type(old)), after, state)


@jitted
def nwj(
    scores_p: ArrayLike,
    scores_q: ArrayLike,
    *,
    where_p: ArrayLike | None = None,
    where_q: ArrayLike | None = None,
) -> jax.Array:
    r"""The bound $\mathrm{E}_p T - \mathrm{E}_q e^{T - 1} \le \mathrm{KL}(p \,\|\, q)$ of a critic $T$, unbiased.

    It is at most the bound of Donsker and Varadhan for the same critic, and an equality for $T = 1 + \log p / q$. With
    draws, value and gradient are unbiased; their variance grows as $e^{\mathrm{KL}}$.

    Args:
        scores_p: Scores $T(x)$ of draws from $p$, `[n]`.
        scores_q: Scores of draws from $q$, `[m]`.
        where_p: A mask of `scores_p`; entries where it is False are no draws.
        where_q: A mask of `scores_q`.

    Returns:
        The bound in nats, `[]`, of either sign: 0 for scores of 1; `nan` if either side has no draw. Where $e^T$
        overflows it is `-inf`, with gradient 0.

    Example:
        >>> print(f"{estimators.nwj(jnp.array([1.0, 2.0]), jnp.array([-1.0, 1.0])):.4f}")
        0.9323

    References:
        Nguyen, Wainwright and Jordan, Estimating divergence functionals and the likelihood ratio by convex risk
        minimization, 2010. Poole et al., On variational bounds of mutual information, 2019.
    """
    (p, q), dtype = _scores("estimators.nwj", scores_p=(scores_p, where_p), scores_q=(scores_q, where_q))

    def bound(p, q):
        return (_mean(*p) - jnp.exp(jnp.add(*_log_mean_exp(*q)) - 1)).astype(dtype)

    return still_at_infinity(bound, p, q)


@jitted
def info_nce(scores: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    r"""The bound $\frac1n \sum_i \log \frac{e^{T_{ii}}}{\frac1n \sum_j e^{T_{ij}}}$ on mutual information, of n pairs.

    On average it is a lower bound. It is never above $\log n$, so it misses any information beyond $\log n$. For large
    n it is close to the mutual information if $T = \log p(y \mid x)$ plus any function of x. For the symmetric form,
    average it with the bound of `scores.T`.

    Args:
        scores: Scores $T(x_i, y_j)$ of all pairs, `[n, n]`; the true pairs are on the diagonal.
        where: A mask that broadcasts against `scores`. Entries where it is False are no candidates; a row whose
            diagonal entry is False is left out. Each row then adds at most the logarithm of the number of its
            candidates.

    Returns:
        The bound in nats, `[]`, at most $\log n$: 0 for equal scores; `nan` if no row is left. Where it is infinite,
        its gradient is 0. Minimise its negative as a loss.

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

    def bound(scores, candidates):
        rows = jnp.diagonal(candidates)
        scores = jnp.where(candidates, scores, 0)
        # A row that is left out takes all candidates, so that its unused mean is finite.
        top, rest = _log_mean_exp(scores, candidates | ~rows[:, None])
        value = _mean((jnp.diagonal(scores) - top) - rest, rows)
        return capped(value, math.log(len(scores))).astype(dtype)

    return still_at_infinity(bound, scores, candidates)

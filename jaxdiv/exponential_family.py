r"""Divergences between two members of one exponential family, from its log-normaliser.

The family has densities $\exp(\langle \eta, t(x) \rangle - F(\eta))$ against one base measure. Its log-normaliser $F$
is a function of the natural parameters $\eta$, arrays of any structure, with a real result `[]`: `jnp.exp` is the
Poisson family by log-rates, `lambda eta: -jnp.log(-eta)` the exponential family by negative rates. Everything follows
from $F$ along the segment $f(x) = F(x\, \eta_p + (1 - x)\, \eta_q)$, because $\log \int p^s q^{1 - s} = f(s) - s f(1) -
(1 - s) f(0)$. Its quotient by $s (s - 1)$ is the second divided difference

$$K(s) = f[0, 1, s] = \frac{1}{x_2 - x_0} \Bigl[ (x_1 - x_0) \int_0^1 v f''(x_0 + (x_1 - x_0) v)\, dv
       + (x_2 - x_1) \int_0^1 v f''(x_2 - (x_2 - x_1) v)\, dv \Bigr]$$

with $x_0, x_1, x_2$ the numbers 0, 1, $s$ in order: a positive average of $f'' \ge 0$, in which nothing cancels, equal
to $\mathrm{KL}(p \,\|\, q)$ at 1 and $\mathrm{KL}(q \,\|\, p)$ at 0. The integrals are taken by Gauss-Legendre rules
of two sizes, whose difference tells their error; where differences of $F$ are estimated to be the more accurate, as
between laws far apart, they are taken instead. Jensen-Shannon is an integral over $s = 1/2 + i t$, with $F$ at complex
parameters: see `jaxdiv._gaussian.spectral`.

Some families have names, and usual parameters in place of natural ones:

| $F$ | parameters | laws |
|---|---|---|
| `poisson` | rate `[]` or `[d]`, which may be 0 | Poisson |
| `exponential` | rate `[]` or `[d]` | exponential, of mean 1 over the rate |
| `gamma` | a pair (concentration, rate), each `[]` or `[d]` | gamma, of mean concentration over rate |
| `beta` | a pair (a, b), each `[]` or `[d]` | beta, of mean a / (a + b) |
| `dirichlet` | concentration `[k]` | Dirichlet |

An array `[d]` is one joint law of independent components. Of these every divergence is computed without the differences
of log-gamma functions, from parts in which nothing cancels: to about 16 ulps, near equality and far apart, for small
concentrations and for large ones. Gradients of `kl` are accurate to 32 ulps of their largest entry. `chi2` and orders
above 1 lose digits as their logarithm grows. In float32 concentrations should be between 1e-18 and 1e18, for gradients
of `js` above 1e-8, and Poisson rates below 1e37. What is said of $F$ below holds for these families too.

These rules hold for every function below:

- $F$ must be convex and analytic, and `nan` or `inf` where the integral of the density diverges. The parameters must be
  finite and inside of that domain; outside the value is `nan`.
- Divergences are non-negative and exactly 0, with gradient exactly 0, at equal parameters. Values are as accurate as
  the second derivatives of $F$ that JAX finds: a few ulps for Poisson and exponential laws, near equality and far
  apart. They lose digits where those derivatives cancel, as logsumexp's do under a common offset, or those of log-gamma
  functions at large concentrations; a family with a name or a module of its own is better served there.
- $F$ is part of the program: pass the same function each time, since each new one compiles anew. To batch, use
  `jax.vmap(functools.partial(exponential_family.kl, log_normalizer))`.
- Unequal structures or shapes raise ValueError, a wrong dtype TypeError, while tracing.

References for the whole: Nielsen and Garcia, Statistical exponential families: a digest with flash cards, 2009. de
Boor, Divided differences, 2005, for the integral.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import gammaln
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.functions import expm1, root, still_at_infinity
from jaxdiv._core.jit import jitted
from jaxdiv._core.search import moving, zero_in
from jaxdiv._exponential import members
from jaxdiv._exponential.divided import Weights, differentiated
from jaxdiv._exponential.pairs import Line, Pair, of_function, where_finite
from jaxdiv._gaussian.affinities import amari_of, js_nodes, js_of_line, renyi_of, weighted_js_of_line
from jaxdiv._gaussian.nodes import NODES_56

Parameters = Any  # arrays `[...]` in any structure
LogNormalizer = Callable[[Any], jax.Array]

_jitted = functools.partial(jitted, static=("log_normalizer",))


# ---------------------------------------------------------------- two laws


def _pair(verb: str, log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> tuple[Pair, jnp.dtype]:
    """Two laws in the working precision, and the dtype of a result."""
    who = f"exponential_family.{verb}"
    if log_normalizer in _MEMBERS:
        of, names = _MEMBERS[log_normalizer]
        laws, dtype = _inputs.laws_of_member(who, log_normalizer.__name__, names, p=p, q=q)
        return of(*(law if len(names) > 1 else law[0] for law in laws)), dtype
    p, q, dtype = _inputs.parameters(who, p, q)
    _inputs.log_normalizer(who, log_normalizer, p)
    lines = jax.tree.map(lambda a, b: Line(a, b, a - b), p, q)

    def along(s):
        return log_normalizer(jax.tree.map(lambda line: line.at(s), lines, is_leaf=lambda x: isinstance(x, Line)))

    return where_finite(of_function(differentiated(along, log_normalizer(p), log_normalizer(q))), along), dtype


def _analytic_pair(verb, log_normalizer, p, q):
    """The same of a log-normaliser that takes complex parameters."""
    who, found = f"exponential_family.{verb}", _pair(verb, log_normalizer, p, q)
    if log_normalizer not in _MEMBERS:
        _inputs.analytic(who, log_normalizer, _inputs.parameters(who, p, q)[0])
    return found


def _unbounded(verb, log_normalizer, p, q, formula, **number):
    """A function of two laws and of a number, by its name, that may be infinite, and then has derivative 0 in them."""
    pair, dtype = _pair(verb, log_normalizer, p, q)
    who, like = f"exponential_family.{verb}", pair.like
    numbers = [_inputs.number(who, name, x, like, like.dtype) for name, x in number.items()]

    def of_laws(p, q, *numbers):
        return formula(_pair(verb, log_normalizer, p, q)[0], *numbers)

    return still_at_infinity(of_laws, p, q, *numbers).astype(dtype)


def _line(pair, nodes):
    """Real and imaginary part of the logarithm of the affinity at 1/2 + i t for the nodes t `[n]`."""
    dtype = np.result_type(pair.like.dtype, np.complex64)
    s = jnp.asarray(0.5 + 1j * np.asarray(nodes), dtype)
    log_c = jax.vmap(pair.log_affinity)(Weights(s, 1 - s))
    return jnp.real(log_c), jnp.imag(log_c)


# ---------------------------------------------------------------- the divergences


def _k(pair, s):
    s = jnp.asarray(s, pair.like.dtype)
    return pair.k(Weights(s, 1 - s))


def _kl(pair):
    return pair.k_at(Weights(jnp.ones_like(pair.like), jnp.zeros_like(pair.like)))


def _both_kls(pair):
    """KL(p, q) and KL(q, p)."""
    one, zero = jnp.ones_like(pair.like), jnp.zeros_like(pair.like)
    return jnp.stack([pair.k_at(Weights(one, zero)), pair.k_at(Weights(zero, one))])


@functools.partial(_jitted, order=lambda: 1.0)
def kl(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Kullback-Leibler divergence $F(\eta_q) - F(\eta_p) - \langle \eta_q - \eta_p, \nabla F(\eta_p) \rangle$.

    The Bregman divergence of the log-normaliser, with the laws exchanged.

    Args:
        log_normalizer: The function $F$ of the natural parameters, or a named family, by its own.
        p: Natural parameters of the law the expectation is under, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        Non-negative, in nats; 0 when `p` equals `q`; `inf` above the largest float.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.kl(jnp.exp, *jnp.log(rates)):.4f}")
        0.3069

    References:
        Banerjee, Merugu, Dhillon and Ghosh, Clustering with Bregman divergences, 2005.
    """
    return _unbounded("kl", log_normalizer, p, q, _kl)


@_jitted
def jeffreys(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Jeffreys divergence $\langle \eta_p - \eta_q, \nabla F(\eta_p) - \nabla F(\eta_q) \rangle$.

    Args:
        log_normalizer: The function $F$ of the natural parameters, or a named family, by its own.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        Non-negative and symmetric, in nats; 0 when `p` equals `q`.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.jeffreys(jnp.exp, *jnp.log(rates)):.4f}")
        0.6931

    References:
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946.
    """
    return _unbounded("jeffreys", log_normalizer, p, q, lambda pair: jnp.sum(_both_kls(pair)))


@_jitted
def js(log_normalizer: LogNormalizer, p: Parameters, q: Parameters, *, weight: ArrayLike = 0.5) -> jax.Array:
    r"""Jensen-Shannon divergence $w\,\mathrm{KL}(p \,\|\, m) + (1 - w)\,\mathrm{KL}(q \,\|\, m)$, $m$ the mixture.

    With $m = w p + (1 - w) q$, which is not in the family. The divergence, not its square root: that is `js_distance`.

    Args:
        log_normalizer: The function $F$ of the natural parameters, which here is given complex ones, between the two
            laws in their real part: there it must be analytic, but for jumps by multiples of $2 \pi i$. `exp`, `log`,
            `jax.nn.logsumexp` and arithmetic are; `jax.scipy.special.gammaln` does not take complex numbers: of gamma,
            beta and Dirichlet laws pass the named family.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.
        weight: The weight $w \in [0, 1]$ of `p`.

    Returns:
        In $[0, H(w)]$ with $H(w) = -w \log w - (1 - w) \log (1 - w)$, so at most $\log 2$; 0 when `p` equals `q` and
        for weights 0 and 1. `nan` for a weight outside $[0, 1]$. With other weights than 1/2 the relative error grows
        as the inverse of the smaller weight.

    Raises:
        TypeError: The log-normaliser takes no complex numbers.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.js(jnp.exp, *jnp.log(rates)):.4f}")
        0.0787

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991.
    """
    pair, dtype = _analytic_pair("js", log_normalizer, p, q)
    if _inputs.is_default(weight, 0.5):
        return _js(pair).astype(dtype)
    w = _inputs.number("exponential_family.js", "weight", weight, pair.like, pair.like.dtype)
    return weighted_js_of_line(*_line(pair, NODES_56), w[None], _both_kls(pair)).astype(dtype)


def _js(pair):
    return js_of_line(*_line(pair, js_nodes(pair.like.dtype)))


@_jitted
def js_distance(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Jensen-Shannon distance $\sqrt{\mathrm{JS}(p, q)}$, a metric.

    Args:
        log_normalizer: The function $F$ of the natural parameters, complex ones too: see `js`.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        In $[0, \sqrt{\log 2}]$; exactly 0 when `p` equals `q`, where the gradient is 0.

    Raises:
        TypeError: The log-normaliser takes no complex numbers.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.js_distance(jnp.exp, *jnp.log(rates)):.4f}")
        0.2806

    References:
        Endres and Schindelin, A new metric for probability distributions, 2003.
    """
    pair, dtype = _analytic_pair("js_distance", log_normalizer, p, q)
    return root(_js(pair)).astype(dtype)


@_jitted
def renyi(log_normalizer: LogNormalizer, p: Parameters, q: Parameters, *, alpha: ArrayLike) -> jax.Array:
    r"""Renyi divergence $\frac{1}{\alpha - 1} \log \int p^\alpha q^{1 - \alpha}$.

    Args:
        log_normalizer: The function $F$ of the natural parameters, or a named family, by its own.
        p: Natural parameters of the law the expectation is under, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.
        alpha: The order, a finite number at least 0: 1 is the KL divergence. Differentiable in it, at 1 too.

    Returns:
        Non-negative, in nats; 0 when `p` equals `q` and at order 0; `inf` where the integral diverges, which needs an
        order above 1 for which $\alpha \eta_p + (1 - \alpha) \eta_q$ is outside of the domain of $F$. `nan` for a
        negative order.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.renyi(jnp.exp, *jnp.log(rates), alpha=2.0):.4f}")
        0.5000

    References:
        Renyi, On measures of entropy and information, 1961. Nielsen and Nock, On Renyi and Tsallis entropies and
        divergences for exponential families, 2011.
    """

    def formula(pair, order):
        return renyi_of(_k(pair, order), order)

    return _unbounded("renyi", log_normalizer, p, q, formula, alpha=alpha)


@_jitted
def amari(log_normalizer: LogNormalizer, p: Parameters, q: Parameters, *, alpha: ArrayLike) -> jax.Array:
    r"""Amari's alpha-divergence $\bigl(1 - \int p^\alpha q^{1 - \alpha}\bigr) / (\alpha (1 - \alpha))$.

    Args:
        log_normalizer: The function $F$ of the natural parameters, or a named family, by its own.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.
        alpha: Any finite order: the limit 1 is $\mathrm{KL}(p \,\|\, q)$, 0 is $\mathrm{KL}(q \,\|\, p)$.
            Differentiable in it.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where the integral diverges, outside of $[0, 1]$ only; at most
        $1 / (\alpha (1 - \alpha))$ inside.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.amari(jnp.exp, *jnp.log(rates), alpha=1.0):.4f}")
        0.3069

    References:
        Cichocki and Amari, Families of alpha- beta- and gamma-divergences, 2010.
    """
    return _unbounded("amari", log_normalizer, p, q, _amari, alpha=alpha)


def _amari(pair, alpha):
    return amari_of(_k(pair, alpha), alpha)


@_jitted
def squared_hellinger(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Squared Hellinger distance $1 - \int \sqrt{p q}$.

    Args:
        log_normalizer: The function $F$ of the natural parameters, or a named family, by its own.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        In $[0, 1]$; 0 when `p` equals `q`; symmetric.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.squared_hellinger(jnp.exp, *jnp.log(rates)):.4f}")
        0.0822

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986.
    """
    pair, dtype = _pair("squared_hellinger", log_normalizer, p, q)
    return _squared_hellinger(pair).astype(dtype)


def _squared_hellinger(pair):
    b = 0.25 * _k(pair, 0.5)
    return -expm1(-b)


@_jitted
def hellinger_distance(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Hellinger distance $\sqrt{1 - \int \sqrt{p q}}$, a metric.

    Args:
        log_normalizer: The function $F$ of the natural parameters, or a named family, by its own.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        In $[0, 1]$; exactly 0 when `p` equals `q`, where the gradient is 0.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.hellinger_distance(jnp.exp, *jnp.log(rates)):.4f}")
        0.2867

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986.
    """
    pair, dtype = _pair("hellinger_distance", log_normalizer, p, q)
    return root(_squared_hellinger(pair)).astype(dtype)


@_jitted
def bhattacharyya(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Bhattacharyya divergence $\tfrac12 F(\eta_p) + \tfrac12 F(\eta_q) - F(\tfrac12 \eta_p + \tfrac12 \eta_q)$.

    Args:
        log_normalizer: The function $F$ of the natural parameters, or a named family, by its own.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`. It is $-\log \int \sqrt{p q}$.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.bhattacharyya(jnp.exp, *jnp.log(rates)):.4f}")
        0.0858

    References:
        Bhattacharyya, On a measure of divergence between two statistical populations, 1943. Nielsen and Boltz, The
        Burbea-Rao and Bhattacharyya centroids, 2011.
    """
    pair, dtype = _pair("bhattacharyya", log_normalizer, p, q)
    return (0.25 * _k(pair, 0.5)).astype(dtype)


@_jitted
def chernoff(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Chernoff information $\max_{0 \le s \le 1} -\log \int p^s q^{1 - s}$.

    Args:
        log_normalizer: The function $F$ of the natural parameters, or a named family, by its own.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the other law, of the same structure and shapes.

    Returns:
        Non-negative and symmetric, at least the Bhattacharyya divergence; 0 when `p` equals `q`.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.chernoff(jnp.exp, *jnp.log(rates)):.4f}")
        0.0861

    References:
        Chernoff, A measure of asymptotic efficiency for tests of a hypothesis, 1952. Nielsen, An information-geometric
        characterization of Chernoff information, 2013.
    """
    _, dtype = _pair("chernoff", log_normalizer, p, q)

    def of_laws(p, q):
        pair, fixed = (_pair("chernoff", log_normalizer, *laws)[0] for laws in ((p, q), lax.stop_gradient((p, q))))
        return _chernoff(pair, fixed)

    return still_at_infinity(of_laws, p, q).astype(dtype)


def _chernoff(pair, fixed):
    """The maximum of -log c; `fixed` is the pair without derivatives."""

    def slopes(s):
        return fixed.slope(Weights(s, 1 - s)), -fixed.curvature(Weights(s, 1 - s))

    s = zero_in(slopes, 0 * fixed.like + 1, 30)
    # K may be infinite at the ends.
    s = jnp.clip(s, jnp.finfo(s.dtype).tiny, 1 - jnp.finfo(s.dtype).eps)
    # The maximum moves with the laws, which makes the second derivatives of the value right. Near an end, and where the
    # slope has no usable derivative, it stays: the first derivatives do not need it.
    w, small = Weights(s, 1 - s), jnp.finfo(s.dtype).tiny ** 0.5
    curvature = lax.stop_gradient(pair.curvature(w))
    moves = (curvature > small) & (curvature < 1 / small) & (s > 1e-6) & (s < 1 - 1e-6)
    s = jnp.where(moves, moving(s, pair.slope(w), jnp.where(moves, -curvature, 1)), s)
    return s * (1 - s) * _k(pair, s)


@_jitted
def chi2(log_normalizer: LogNormalizer, p: Parameters, q: Parameters) -> jax.Array:
    r"""Pearson's chi-squared divergence $\int p^2 / q - 1$.

    Args:
        log_normalizer: The function $F$ of the natural parameters, or a named family, by its own.
        p: Natural parameters of one law, arrays `[...]`.
        q: Natural parameters of the law in the denominator, of the same structure and shapes.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where the integral diverges, which is where $2 \eta_p - \eta_q$ is
        outside of the domain of $F$, and above the largest float.

    Example:
        >>> rates = jnp.array([1.0, 2.0])
        >>> print(f"{exponential_family.chi2(jnp.exp, *jnp.log(rates)):.4f}")
        0.6487

    References:
        Nielsen and Nock, On the chi square and higher-order chi distances for approximating f-divergences, 2014.
    """
    return _unbounded("chi2", log_normalizer, p, q, lambda pair: 2 * _amari(pair, 2.0))


# ---------------------------------------------------------------- families


@jitted
def poisson(parameters: ArrayLike) -> jax.Array:
    r"""The log-normaliser $\sum_i \lambda_i$ of Poisson laws, which divergences take as the name of the family.

    Args:
        parameters: Rates $\lambda$ `[]` or `[d]`, of independent components; at a rate of 0 the law is certain of 0.

    Returns:
        The log-normaliser `[]`. The divergences between a rate of 0 and another are those of the two laws: `kl` is the
        other rate, or infinite.

    Example:
        >>> print(f"{exponential_family.kl(exponential_family.poisson, 1.0, 2.0):.4f}")
        0.3069

    References:
        Johnson, Kemp and Kotz, Univariate discrete distributions, 2005.
    """
    (rate,), dtype = _law(poisson, parameters)
    return jnp.sum(rate).astype(dtype)


@jitted
def exponential(parameters: ArrayLike) -> jax.Array:
    r"""The log-normaliser $-\sum_i \log \lambda_i$ of exponential laws, which divergences take as the family's name.

    Args:
        parameters: Rates $\lambda > 0$ `[]` or `[d]`, of independent components.

    Returns:
        The log-normaliser `[]`. Divergences are `nan` where a rate is 0 or negative.

    Example:
        >>> print(f"{exponential_family.kl(exponential_family.exponential, 1.0, 2.0):.4f}")
        0.3069

    References:
        Johnson, Kotz and Balakrishnan, Continuous univariate distributions, 1994.
    """
    (rate,), dtype = _law(exponential, parameters)
    return -jnp.sum(jnp.log(rate)).astype(dtype)


@jitted
def gamma(parameters: tuple[ArrayLike, ArrayLike]) -> jax.Array:
    r"""The log-normaliser $\sum_i \log \Gamma(a_i) - a_i \log r_i$ of gamma laws, which divergences take as a name.

    Args:
        parameters: Concentrations $a > 0$ and rates $r > 0$, a pair of arrays `[]` or `[d]` that broadcast: the density
            is in proportion to $x^{a - 1} e^{-r x}$. A scale is 1 over a rate.

    Returns:
        The log-normaliser `[]`. Divergences are `nan` where a parameter is 0 or negative.

    Example:
        >>> p, q = (2.0, 1.0), (3.0, 1.0)
        >>> print(f"{exponential_family.js(exponential_family.gamma, p, q):.4f}")
        0.0580

    References:
        Johnson, Kotz and Balakrishnan, Continuous univariate distributions, 1994.
    """
    (a, rate), dtype = _law(gamma, parameters)
    return jnp.sum(gammaln(a) - a * jnp.log(rate)).astype(dtype)


@jitted
def beta(parameters: tuple[ArrayLike, ArrayLike]) -> jax.Array:
    r"""The log-normaliser $\sum_i \log \mathrm{B}(a_i, b_i)$ of beta laws, which divergences take as the family's name.

    Args:
        parameters: Concentrations $a > 0$ and $b > 0$, a pair of arrays `[]` or `[d]` that broadcast: the density is in
            proportion to $x^{a - 1} (1 - x)^{b - 1}$.

    Returns:
        The log-normaliser `[]`. Divergences are `nan` where a parameter is 0 or negative.

    Example:
        >>> p, q = (2.0, 1.0), (3.0, 1.0)
        >>> print(f"{exponential_family.kl(exponential_family.beta, p, q):.4f}")
        0.0945

    References:
        Johnson, Kotz and Balakrishnan, Continuous univariate distributions, 1995.
    """
    (a, b), dtype = _law(beta, parameters)
    return jnp.sum(gammaln(a) + gammaln(b) - gammaln(a + b)).astype(dtype)


@jitted
def dirichlet(parameters: ArrayLike) -> jax.Array:
    r"""The log-normaliser $\sum_i \log \Gamma(\alpha_i) - \log \Gamma(\sum_i \alpha_i)$ of Dirichlet laws.

    Divergences take it as the name of the family.

    Args:
        parameters: Concentrations $\alpha > 0$ `[k]`: the density is in proportion to $\prod_i x_i^{\alpha_i - 1}$.

    Returns:
        The log-normaliser `[]`. Divergences are `nan` where a concentration is 0 or negative.

    Example:
        >>> evidence, prior = jnp.array([5.0, 1.0, 1.0]), jnp.ones(3)
        >>> print(f"{exponential_family.kl(exponential_family.dirichlet, evidence, prior):.4f}")
        1.2414

    References:
        Kotz, Balakrishnan and Johnson, Continuous multivariate distributions, 2000.
    """
    (concentration,), dtype = _law(dirichlet, parameters)
    return (jnp.sum(gammaln(concentration)) - gammaln(jnp.sum(concentration))).astype(dtype)


_MEMBERS = {
    poisson: (members.poisson, ("rate",)),
    exponential: (members.exponential, ("rate",)),
    gamma: (members.gamma, ("concentration", "rate")),
    beta: (members.beta, ("a", "b")),
    dirichlet: (members.dirichlet, ("concentration",)),
}


def _law(member, parameters):
    """The parameters of a law of a named family, `[d]`, in the working precision, and the dtype of a result."""
    name = member.__name__
    (law,), dtype = _inputs.laws_of_member(
        f"exponential_family.{name}", name, _MEMBERS[member][1], parameters=parameters
    )
    return law, dtype

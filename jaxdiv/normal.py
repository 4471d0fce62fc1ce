r"""Divergences between two normal laws of independent components, `[]` or `[d]`.

`Normal(loc, scale)` and `NormalLogScale(loc, log_scale)` are one joint law: values are those of the vector, not of each
component. `scale` broadcasts against `loc`; the two forms mix freely, by `exp(log_scale)`, whose rounding then limits
the accuracy near equality. One pair of laws to a call: batch with `jax.vmap`. Results are `[]`, in nats where they are
divergences, of the promoted dtype.

What holds throughout, and is not repeated below:

- Divergences are non-negative and exactly 0, with gradient exactly 0, at equal laws of one form.
- A law with `nan` or a scale that is not positive makes the value `nan`. Scales may differ by factors up to 1e18 in
  float32; beyond, their squares leave its range.
- A wrong rank or shape raises ValueError, a wrong form or dtype TypeError, while tracing.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.functions import expm1, expm1x, root, squared_arcsinh_root
from jaxdiv._core.jit import jitted
from jaxdiv._core.polynomials import polynomial
from jaxdiv._gaussian import spectral
from jaxdiv._gaussian.excess import LOG_2PI, log_excess


class Normal(NamedTuple):
    """A normal law of independent components: means `[]` or `[d]` and standard deviations."""

    loc: ArrayLike
    scale: ArrayLike


class NormalLogScale(NamedTuple):
    """A normal law of independent components: means `[]` or `[d]` and logarithms of standard deviations."""

    loc: ArrayLike
    log_scale: ArrayLike


Law = Normal | NormalLogScale
_FORMS = (Normal, NormalLogScale)


def standard(like: Law | ArrayLike) -> Law:
    r"""The standard normal law $N(0, 1)$ in as many components as `like`.

    Args:
        like: A law, whose form, shape and dtype the result has, or an array such as its mean, of any shape.

    Returns:
        `NormalLogScale` for a `NormalLogScale`, else `Normal`: of mean 0 and standard deviation 1.

    Example:
        >>> p = normal.NormalLogScale(jnp.array([1.0, 0.0]), jnp.zeros(2))
        >>> print(f"{normal.kl(p, normal.standard(p)):.4f}")
        0.5000
    """
    who = "normal.standard"
    loc = _inputs.law(who, "like", like, _FORMS).loc if isinstance(like, _FORMS) else like
    zeros = jnp.zeros_like(_inputs.array(who, "like", loc))
    return NormalLogScale(zeros, zeros) if isinstance(like, NormalLogScale) else Normal(zeros, zeros + 1)


def _laws(verb: str, p: Law, q: Law) -> tuple[Any, Any, Any]:
    """One pair of laws of one form, `[d]` in the working precision, and the dtype of a result."""
    laws, dtype = _inputs.components(f"normal.{verb}", _FORMS, p=p, q=q)
    p, q = (_checked(law) for law in laws.values())
    if type(p) is not type(q):
        p, q = _with_scale(p), _with_scale(q)
    return p, q, dtype


def _checked(law: Any) -> Any:
    # Without this a negative scale would pass unseen through squares.
    return law if isinstance(law, NormalLogScale) else law._replace(scale=jnp.where(law.scale > 0, law.scale, jnp.nan))


def _with_scale(law: Any) -> Any:
    return Normal(law.loc, jnp.exp(law.log_scale)) if isinstance(law, NormalLogScale) else law


def _is_log(law) -> bool:
    return isinstance(law, NormalLogScale)


def _number(verb, name, x, like):
    return _inputs.number(f"normal.{verb}", name, x, like.loc, like.loc.dtype)


def _pair(p: Any, q: Any) -> spectral.Frame:
    """The reduced pair: the frame divides by the root of the sum of variances."""
    if _is_log(p):
        g = p.log_scale - q.log_scale
        larger = jnp.maximum(p.log_scale, q.log_scale)
        smaller_square = jnp.exp(-2 * jnp.abs(g))
        frame = lax.stop_gradient(jnp.exp(-larger) / jnp.sqrt(1 + smaller_square))
        less = -expm1(-2 * jnp.abs(g))
        tau = jnp.sign(g) * less / (2 - less)
        plus, minus = (
            lax.stop_gradient(2 / (1 + jnp.exp(-sign * 2 * g))) * jnp.exp(2 * (x - lax.stop_gradient(x)))
            for sign, x in ((1, p.log_scale), (-1, q.log_scale))
        )
    else:
        larger = lax.stop_gradient(jnp.maximum(p.scale, q.scale))
        a, b = p.scale / larger, q.scale / larger
        total = lax.stop_gradient(a * a + b * b)
        frame = 1 / larger / jnp.sqrt(total)
        tau = ((p.scale - q.scale) / larger) * (a + b) / total
        plus, minus = 2 * a * (a / total), 2 * b * (b / total)
    tiny = jnp.finfo(tau.dtype).tiny
    plus, minus = jnp.maximum(plus, tiny), jnp.maximum(minus, tiny)
    return spectral.Frame(lax.stop_gradient(tau), plus, minus, (p.loc - q.loc) * frame)


def _from_laws(formula, p, q):
    """A formula of this module, `_verb`, on checked laws."""
    p, q, dtype = _laws(formula.__name__[1:], p, q)
    return formula(p, q).astype(dtype)


def _from_pair(verb, p, q, **parameters):
    """A verb of `_spectral`, called on the reduced pair."""
    p, q, dtype = _laws(verb.__name__, p, q)
    numbers = {name: _number(verb.__name__, name, x, p) for name, x in parameters.items()}
    return verb(_pair(p, q), **numbers).astype(dtype)


@jitted
def kl(p: Law, q: Law) -> jax.Array:
    r"""Kullback-Leibler divergence $\mathrm{KL}(p \,\|\, q) = \sum \tfrac12 [v - 1 - \log v + z^2]$.

    Per component $v = \sigma_p^2/\sigma_q^2$ and $z = (\mu_p - \mu_q) / \sigma_q$.

    Args:
        p: The law the expectation is under, fields `[]` or `[d]`.
        q: The other law.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` above the largest float.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.kl(p, q):.4f} {normal.kl(q, p):.4f}")
        0.4431 1.3069

    References:
        Kullback, Information theory and statistics, 1959, chapter 9, equation 1.2.
    """
    return _from_laws(_kl, p, q)


def _kl(p, q):
    if isinstance(p, NormalLogScale):
        scales, z = 0.5 * expm1x(2 * (p.log_scale - q.log_scale)), (p.loc - q.loc) * jnp.exp(-q.log_scale)
    else:
        e, z = (p.scale - q.scale) / q.scale, (p.loc - q.loc) / q.scale
        scales = 0.5 * e * e + log_excess(p.scale, q.scale)
    return jnp.sum(scales + 0.5 * z * z)


@jitted
def jeffreys(p: Law, q: Law) -> jax.Array:
    r"""Jeffreys divergence $\mathrm{KL}(p \,\|\, q) + \mathrm{KL}(q \,\|\, p)$.

    For scales $\sigma$ and $\rho$ and a difference of means $\delta$ it is
    $\sum \tfrac12 [(\sigma/\rho - \rho/\sigma)^2 + \delta^2/\sigma^2 + \delta^2/\rho^2]$.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The other law.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.jeffreys(p, q):.4f}")
        1.7500

    References:
        Jeffreys, An invariant form for the prior probability in estimation problems, 1946, equation 1.
    """
    return _from_laws(_jeffreys, p, q)


def _jeffreys(p, q):
    if isinstance(p, NormalLogScale):
        e = expm1(p.log_scale - q.log_scale)
        contrast = e + e / (1 + e)  # 2 sinh of the difference
        p, q = _with_scale(p), _with_scale(q)
    else:
        contrast = ((p.scale - q.scale) / p.scale) * ((p.scale + q.scale) / q.scale)
    delta = p.loc - q.loc
    return 0.5 * jnp.sum(contrast**2 + (delta / p.scale) ** 2 + (delta / q.scale) ** 2)


@jitted
def js(p: Law, q: Law, *, weight: ArrayLike = 0.5) -> jax.Array:
    r"""Jensen-Shannon divergence $w\,\mathrm{KL}(p \,\|\, m) + (1 - w)\,\mathrm{KL}(q \,\|\, m)$, $m$ the mixture.

    With $m = w p + (1 - w) q$, to machine precision in any dimension. The divergence, not its square root: that is
    `js_distance`.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The other law.
        weight: The weight $w \in [0, 1]$ of `p`.

    Returns:
        In $[0, H(w)]$ with $H(w) = -w \log w - (1 - w) \log (1 - w)$, so at most $\log 2$; 0 when `p` equals `q` and
        for weights 0 and 1. `nan` for a weight outside $[0, 1]$. With other weights than 1/2 the relative error grows
        as the inverse of the smaller weight: 4e-14 over it in float64. Where $\log 2$ is approached within 1e-3
        gradients are accurate absolutely, not relatively.

    Example:
        >>> p, q = normal.Normal(jnp.zeros(3), 1.0), normal.Normal(jnp.ones(3), 2.0)
        >>> print(f"{normal.js(p, q):.4f} {normal.js(p, q, weight=0.9):.4f}")
        0.3192 0.1561

    References:
        Lin, Divergence measures based on the Shannon entropy, 1991, equation 4.1.
    """
    if _inputs.is_default(weight, 0.5):
        return _from_pair(spectral.js, p, q)
    p, q, dtype = _laws("js", p, q)
    return spectral.weighted_js(_pair(p, q), _number("js", "weight", weight, p)).astype(dtype)


@jitted
def js_distance(p: Law, q: Law) -> jax.Array:
    r"""Jensen-Shannon distance $\sqrt{\mathrm{JS}(p, q)}$, a metric.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The other law.

    Returns:
        In $[0, \sqrt{\log 2}]$; exactly 0 when `p` equals `q`, where the gradient is 0.

    Example:
        >>> p, q = normal.Normal(jnp.zeros(3), 1.0), normal.Normal(jnp.ones(3), 2.0)
        >>> print(f"{normal.js_distance(p, q):.4f}")
        0.5650

    References:
        Endres and Schindelin, A new metric for probability distributions, 2003, theorem 1.
    """
    return _from_laws(_js_distance, p, q)


def _js_distance(p, q):
    return root(spectral.js(_pair(p, q)))


@jitted
def renyi(p: Law, q: Law, *, alpha: ArrayLike) -> jax.Array:
    r"""Renyi divergence $\frac{1}{\alpha - 1} \log \int p^\alpha q^{1 - \alpha}$.

    Args:
        p: The law the expectation is under, fields `[]` or `[d]`.
        q: The other law.
        alpha: The order, a finite number at least 0: 1 is the KL divergence. Differentiable in it, at 1 too.

    Returns:
        Non-negative; 0 when `p` equals `q` and at order 0; `inf` where the integral diverges, which needs an order
        above 1 and a component with $\alpha \sigma_q^2 \le (\alpha - 1) \sigma_p^2$. `nan` for a negative order.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.renyi(p, q, alpha=2):.4f} {normal.renyi(q, p, alpha=2):.4f}")
        0.5562 inf

    References:
        Renyi, On measures of entropy and information, 1961, equation 3.3. Gil, Alajaji and Linder, Renyi divergence
        measures for commonly used univariate continuous distributions, 2013, table 2.
    """
    return _from_pair(spectral.renyi, p, q, alpha=alpha)


@jitted
def amari(p: Law, q: Law, *, alpha: ArrayLike) -> jax.Array:
    r"""Amari's alpha-divergence $\bigl(1 - \int p^\alpha q^{1 - \alpha}\bigr) / (\alpha (1 - \alpha))$.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The other law.
        alpha: Any finite order: the limit 1 is $\mathrm{KL}(p \,\|\, q)$, 0 is $\mathrm{KL}(q \,\|\, p)$, 1/2 is four
            times the squared Hellinger distance, 2 is half of chi-squared. Differentiable in it.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where the integral diverges, outside of $[0, 1]$ only; at most
        $1 / (\alpha (1 - \alpha))$ inside.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.amari(p, q, alpha=1):.4f} {normal.kl(p, q):.4f}")
        0.4431 0.4431

    References:
        Cichocki and Amari, Families of alpha- beta- and gamma-divergences, 2010, equation 29.
    """
    return _from_pair(spectral.amari, p, q, alpha=alpha)


@jitted
def squared_hellinger(p: Law, q: Law) -> jax.Array:
    r"""Squared Hellinger distance $1 - \int \sqrt{p q}$.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The other law.

    Returns:
        In $[0, 1]$; 0 when `p` equals `q`; symmetric.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.squared_hellinger(p, q):.4f}")
        0.1492

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986, chapter 4.
    """
    return _from_pair(spectral.squared_hellinger, p, q)


@jitted
def hellinger_distance(p: Law, q: Law) -> jax.Array:
    r"""Hellinger distance $\sqrt{1 - \int \sqrt{p q}}$, a metric.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The other law.

    Returns:
        In $[0, 1]$; exactly 0 when `p` equals `q`, where the gradient is 0.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.hellinger_distance(p, q):.4f}")
        0.3863

    References:
        Le Cam, Asymptotic methods in statistical decision theory, 1986, chapter 4.
    """
    return _from_laws(_hellinger_distance, p, q)


def _hellinger_distance(p, q):
    return root(spectral.squared_hellinger(_pair(p, q)))


@jitted
def bhattacharyya(p: Law, q: Law) -> jax.Array:
    r"""Bhattacharyya divergence $-\log \int \sqrt{p q}$.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The other law.

    Returns:
        Non-negative and symmetric; 0 when `p` equals `q`.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.bhattacharyya(p, q):.4f}")
        0.1616

    References:
        Bhattacharyya, On a measure of divergence between two statistical populations, 1943.
    """
    return _from_pair(spectral.bhattacharyya, p, q)


@jitted
def chernoff(p: Law, q: Law) -> jax.Array:
    r"""Chernoff information $\max_{0 \le s \le 1} -\log \int p^s q^{1 - s}$.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The other law.

    Returns:
        Non-negative and symmetric, at least the Bhattacharyya divergence; 0 when `p` equals `q`.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.chernoff(p, q):.4f}")
        0.1721

    References:
        Chernoff, A measure of asymptotic efficiency for tests of a hypothesis, 1952, theorem 1. Nielsen, An
        information-geometric characterization of Chernoff information, 2013.
    """
    return _from_pair(spectral.chernoff, p, q)


@jitted
def chi2(p: Law, q: Law) -> jax.Array:
    r"""Pearson's chi-squared divergence $\int p^2 / q - 1$.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The law in the denominator.

    Returns:
        Non-negative; 0 when `p` equals `q`; `inf` where the integral diverges, which is where $\sigma_p^2 \ge 2
        \sigma_q^2$ in a component, and above the largest float.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.chi2(p, q):.4f} {normal.chi2(q, p):.4f}")
        0.7440 inf

    References:
        Nielsen and Nock, On the chi square and higher-order chi distances for approximating f-divergences, 2014.
    """
    return _from_pair(spectral.chi2, p, q)


@jitted
def geometric_js(p: Law, q: Law, *, weight: ArrayLike = 0.5) -> jax.Array:
    r"""Geometric Jensen-Shannon $w\,\mathrm{KL}(p \,\|\, g) + (1 - w)\,\mathrm{KL}(q \,\|\, g)$, $g$ the mean.

    With the geometric mean $g \propto p^w q^{1 - w}$, a normal law. Neither a bound nor an approximation of the
    Jensen-Shannon divergence, and unbounded.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The other law.
        weight: The weight $w \in [0, 1]$ of `p`.

    Returns:
        Non-negative; 0 when `p` equals `q` and for weights 0 and 1; `nan` for a weight outside $[0, 1]$.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.geometric_js(p, q):.4f}")
        0.2759

    References:
        Nielsen, On the Jensen-Shannon symmetrization of distances relying on abstract means, 2019, corollary 1, with
        weight 1 - alpha.
    """
    p, q, dtype = _laws("geometric_js", p, q)
    number = _number("geometric_js", "weight", weight, p)
    return spectral.geometric_js(_pair(p, q), _jeffreys(p, q), number).astype(dtype)


@jitted
def squared_wasserstein2(p: Law, q: Law) -> jax.Array:
    r"""Squared Wasserstein-2 distance $\sum (\mu_p - \mu_q)^2 + (\sigma_p - \sigma_q)^2$.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The other law.

    Returns:
        Non-negative, in squared units of `loc`; 0 when `p` equals `q`.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.squared_wasserstein2(p, q):.4f}")
        2.0000

    References:
        Gelbrich, On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces, 1990.
    """
    return _from_laws(_squared_wasserstein2, p, q)


def _squared_wasserstein2(p, q):
    if isinstance(p, NormalLogScale):
        scales = jnp.exp(q.log_scale) * expm1(p.log_scale - q.log_scale)
    else:
        scales = p.scale - q.scale
    return jnp.sum((p.loc - q.loc) ** 2 + scales**2)


@jitted
def wasserstein2_distance(p: Law, q: Law) -> jax.Array:
    r"""Wasserstein-2 distance $\sqrt{\sum (\mu_p - \mu_q)^2 + (\sigma_p - \sigma_q)^2}$, a metric.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The other law.

    Returns:
        Non-negative, in units of `loc`; exactly 0 when `p` equals `q`, where the gradient is 0.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.wasserstein2_distance(p, q):.4f}")
        1.4142

    References:
        Gelbrich, On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces, 1990.
    """
    return _from_laws(_wasserstein2_distance, p, q)


def _wasserstein2_distance(p, q):
    return root(_squared_wasserstein2(p, q))


@jitted
def fisher_rao_distance(p: Law, q: Law) -> jax.Array:
    r"""Fisher-Rao distance, the geodesic length of the Fisher metric $\sum (d\mu^2 + 2\, d\sigma^2) / \sigma^2$.

    One component has length $2 \sqrt2\, \mathrm{arcsinh} \sqrt{(\delta^2/2 + (\sigma_p - \sigma_q)^2) / (4 \sigma_p
    \sigma_q)}$ with $\delta = \mu_p - \mu_q$; the squares of independent components add.

    Args:
        p: One law, fields `[]` or `[d]`.
        q: The other law.

    Returns:
        Non-negative; exactly 0 when `p` equals `q`, where the gradient is 0.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.fisher_rao_distance(p, q):.4f}")
        1.1894

    References:
        Atkinson and Mitchell, Rao's distance measure, 1981, section 4. Costa, Santos and Strapasson, Fisher information
        distance, 2015, equation 4.
    """
    return _from_laws(_fisher_rao_distance, p, q)


def _fisher_rao_distance(p, q):
    if isinstance(p, NormalLogScale):
        e = expm1(p.log_scale - q.log_scale)
        scales = e * (e / (1 + e))
        p, q = _with_scale(p), _with_scale(q)
    else:
        delta = p.scale - q.scale
        scales = (delta / p.scale) * (delta / q.scale)
    delta = p.loc - q.loc
    squares = 8 * squared_arcsinh_root(0.25 * (0.5 * (delta / p.scale) * (delta / q.scale) + scales))
    return root(jnp.sum(squares))


@jitted
def total_variation(p: Law, q: Law) -> jax.Array:
    r"""Total variation $\tfrac12 \int |p - q|$ of two laws of one component.

    Args:
        p: One law with fields `[]`.
        q: The other law, with fields `[]`.

    Returns:
        In $[0, 1]$; 0 when `p` equals `q`, where the gradient is 0; symmetric.

    Raises:
        ValueError: The laws have more than one component, for which there is no closed form.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.total_variation(p, q):.4f}")
        0.3901

    References:
        Tsybakov, Introduction to nonparametric estimation, 2009, definition 2.4. Devroye, Mehrabian and Reddad, The
        total variation distance between high-dimensional Gaussians, 2018, section 1.
    """
    return _from_laws(_total_variation, p, q)


def _total_variation(p, q):
    _inputs.one_component("normal.total_variation", p.loc)
    if isinstance(p, NormalLogScale):
        g = p.log_scale - q.log_scale
        p, q = _with_scale(p), _with_scale(q)
        difference = q.scale * expm1(g)
    else:
        difference = p.scale - q.scale
    return _overlap_complement(p.loc, p.scale, q.loc, q.scale, difference)[0]


@jax.custom_jvp
def _overlap_complement(m, s, n, r, difference):
    """Total variation of N(m, s^2) and N(n, r^2), with `difference` = s - r."""
    # The law of the smaller scale is the larger density between the roots of the log-ratio. With z the root in its
    # units and y in those of the other, each end gives the mass of a standard normal between y and z.
    ends, _, _ = _crossings(m, s, n, r, difference)
    (upper, _, upper_gap), (lower, _, lower_gap) = ends
    return _mass(upper, upper_gap) + _mass(lower, lower_gap)


@_overlap_complement.defjvp
def _(primals, tangents):
    m, s, n, r, difference = primals
    dm, ds, dn, dr, _ = tangents
    # The densities agree at the roots, so that moving a root changes nothing.
    ((upper, upper_y, _), (lower, lower_y, _)), narrow, sign = _crossings(*primals)

    def slopes(high, low):
        return _density(low) - _density(high), low * _density(low) - high * _density(high)

    of_narrow, of_wide = slopes(upper, lower), [-x for x in slopes(upper_y, lower_y)]
    smaller, larger = jnp.minimum(s, r), jnp.maximum(s, r)
    dm_narrow, dm_wide = (sign * jnp.where(narrow == keep, dm, dn) for keep in (True, False))
    ds_narrow, ds_wide = (jnp.where(narrow == keep, ds, dr) for keep in (True, False))
    change = (of_narrow[0] * dm_narrow + of_narrow[1] * ds_narrow) / smaller
    change += (of_wide[0] * dm_wide + of_wide[1] * ds_wide) / larger
    return _overlap_complement(*primals), jnp.where((m == n) & (difference == 0), 0, change)


def _crossings(m, s, n, r, difference):
    """Where the densities cross, as (z, y, z - y): upper and lower. Whether the first law is the narrow one; a sign.

    The means are reflected by the sign so that the narrow law has the larger one.
    """
    narrow = difference <= 0
    smaller, larger = jnp.minimum(s, r), jnp.maximum(s, r)
    ratio, less = smaller / larger, jnp.abs(difference) / larger
    offset = jnp.where(narrow, m - n, n - m) / larger
    sign = jnp.where(offset < 0, -1, 1).astype(m.dtype)
    d = jnp.abs(offset)
    # y = ratio z + d, and y^2 = z^2 - 2 log(larger / smaller): a quadratic with roots of opposite signs.
    twice_log = 2 * (jnp.log(larger) - jnp.log(smaller))
    close = less < 0.5
    v = jnp.where(close, less / (2 - less), 0)
    twice_log = jnp.where(close, 4 * (v + v * (v * v) * polynomial("atanh", v * v)), twice_log)
    lead = less * (1 + ratio)
    far = d * ratio + jnp.sqrt(d * d + twice_log * lead)
    empty = far == 0
    lower = -(d * d + twice_log) / jnp.where(empty, 1, far)
    # Beyond 100 no mass is left.
    upper = jnp.where(far < 100 * lead, far / jnp.where(lead == 0, 1, lead), 100)
    upper_y = ratio * upper + d
    upper_gap = twice_log / (upper + upper_y)
    return ((upper, upper_y, upper_gap), (lower, ratio * lower + d, less * lower - d)), narrow, sign


def _density(z):
    return jnp.exp(-0.5 * z * z - 0.5 * LOG_2PI)


@functools.cache
def _gauss_legendre():
    return np.polynomial.legendre.leggauss(16)  # an import that costs as much as all of the library's


def _mass(z, gap):
    """The absolute mass of a standard normal between z - gap and z."""
    # A quadrature of positive terms for short intervals, on which the difference of two integrals would cancel.
    size = jnp.abs(gap)
    short = jnp.where(size <= 2, gap, 0)
    nodes, weights = (jnp.asarray(x, z.dtype)[:, None] for x in _gauss_legendre())
    points = (z - 0.5 * short)[None] + 0.5 * short[None] * nodes
    quadrature = 0.5 * jnp.abs(short) * jnp.sum(weights * _density(points), 0)
    low, high = jnp.minimum(z, z - gap), jnp.maximum(z, z - gap)
    # From the nearer tail: erfc is accurate where it is small.
    flip = low + high > 0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    half = jnp.sqrt(jnp.asarray(0.5, z.dtype))
    return jnp.where(size <= 2, quadrature, 0.5 * (lax.erfc(-high * half) - lax.erfc(-low * half)))


@jitted
def entropy(p: Law) -> jax.Array:
    r"""Differential entropy $\sum \log \sigma + \tfrac12 \log(2 \pi e)$.

    Args:
        p: The law, fields `[]` or `[d]`.

    Returns:
        In nats, of either sign.

    Example:
        >>> print(f"{normal.entropy(normal.Normal(0.0, 1.0)):.4f}")
        1.4189

    References:
        Cover and Thomas, Elements of information theory, 2006, theorem 8.4.1.
    """
    laws, dtype = _inputs.components("normal.entropy", _FORMS, p=p)
    return _entropy(_checked(laws["p"])).astype(dtype)


def _entropy(p):
    log_scale = p.log_scale if isinstance(p, NormalLogScale) else jnp.log(p.scale)
    # A `nan` mean is `nan` here as everywhere.
    return jnp.sum(log_scale + 0.5 * (1 + LOG_2PI) + 0 * p.loc)


@jitted
def cross_entropy(p: Law, q: Law) -> jax.Array:
    r"""Cross-entropy $-\mathrm{E}_p \log q = \sum \tfrac12 [\log(2 \pi \sigma_q^2) + v + z^2]$.

    Per component $v = \sigma_p^2/\sigma_q^2$ and $z = (\mu_p - \mu_q) / \sigma_q$.

    Args:
        p: The law the expectation is under, fields `[]` or `[d]`.
        q: The law that is scored.

    Returns:
        In nats, of either sign; at least the entropy of `p`.

    Example:
        >>> p, q = normal.Normal(0.0, 1.0), normal.Normal(1.0, 2.0)
        >>> print(f"{normal.cross_entropy(p, q):.4f}")
        1.8621

    References:
        Cover and Thomas, Elements of information theory, 2006, theorem 8.6.1.
    """
    return _from_laws(_cross_entropy, p, q)


def _cross_entropy(p, q):
    return _entropy(p) + _kl(p, q)


def check(p: Law, *, axis: int = -1) -> None:
    r"""Raises unless means are finite and scales in $(0, \infty)$; for data on its way in, on the host.

    Args:
        p: A law or a batch of laws, the fields of any shapes that broadcast; laws along `axis`.
        axis: The axis of the components, of the fields broadcast together. Fields `[]` are one law.

    Raises:
        ValueError: Some laws have `nan`, an infinite entry or a scale that is not positive; the message names them.
        TypeError: `p` is neither `Normal` nor `NormalLogScale`.

    Example:
        >>> normal.check(normal.Normal(jnp.zeros((2, 3)), 1.0))
    """
    law: Any = _inputs.law("normal.check", "p", p, _FORMS)
    fields = np.broadcast_arrays(*(np.atleast_1d(np.asarray(x, np.float64)) for x in law))
    rows = np.concatenate([np.moveaxis(x, axis, -1) for x in fields], -1)
    faults = {"nan": lambda x: np.isnan(x).any(-1), "an infinite entry": lambda x: np.isinf(x).any(-1)}
    if isinstance(law, Normal):
        faults["a scale that is not positive"] = lambda x: (x[..., x.shape[-1] // 2 :] <= 0).any(-1)
    _inputs.raise_for_rows("normal.check", rows, faults)

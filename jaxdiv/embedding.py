r"""Euclidean features of distributions on k events: their squared distances are Jensen-Shannon divergences.

The Jensen-Shannon divergence is an integral, with a positive weight, over the affinities
$c(1/2 + i t) = \sum_i \sqrt{p_i q_i}\, e^{i t \log (p_i / q_i)}$ (`_gaussian.spectral` derives it). Each affinity is
the inner product of $\sqrt{p}\, e^{i t \log p}$ and $\sqrt{q}\, e^{i t \log q}$. With quadrature nodes $t_j$ and
weights $w_j > 0$ this gives

$$\mathrm{JS}(p, q) \approx \sum_j w_j\, [1 - \mathrm{Re}\, c(1/2 + i t_j)] = \|\phi(p) - \phi(q)\|^2 , \qquad
\phi_{ij}(p) = \sqrt{w_j p_i / 2}\; e^{i t_j \log p_i} .$$

So every method for Euclidean vectors works with Jensen-Shannon: nearest neighbours, k-means, an index. The features of
all distributions have the same norm, $|\phi|^2 = \sum_j w_j / 2 \approx \log(2) / 2$. So the nearest distribution is
the one with the largest inner product: $\mathrm{JS} \approx 2 \, (|\phi|^2 - \langle \phi(p), \phi(q) \rangle)$.

These rules hold for both functions below:

- The error of the quadrature is bounded for any two distributions. Bounds and length of the features, by `nodes`:

  | `nodes` | 1 | 2 | 4 | 8 | 14 | 56 |
  |---|---|---|---|---|---|---|
  | error of Jensen-Shannon, over $\mathrm{JS}$ | 3.9e-2 | 4.4e-3 | 2.1e-4 | 3.4e-6 | 4.4e-8 | 3.1e-15 |
  | error of a derivative, over $\sqrt{\mathrm{JS}}$ | 3.8e-2 | 5.2e-3 | 3.5e-4 | 8.1e-6 | 1.3e-7 | 7.6e-15 |
  | length | 2 k | 4 k | 8 k | 16 k | 28 k | 112 k |

  The default is 56 in float64 and 14 otherwise. The derivative is with respect to a logit, or $p_i$ times that with
  respect to a probability $p_i$. Near equality a gradient is about as large as $\sqrt{\mathrm{JS}}$. Between confident
  distributions it vanishes faster than its error, so its relative error has no bound.
- The features are rounded too: this adds an absolute error of about an ulp of 1 to the distance $\sqrt{\mathrm{JS}}$.
  In float32 the relative error of JS is $10^{-7} / \sqrt{\mathrm{JS}}$ from differences of features, and
  $2 \cdot 10^{-7} / \mathrm{JS}$ from inner products. Near equality no digit is left: use `simplex.js` or
  `categorical.js` there. Within one call, equal distributions get equal features.
- Features are in the order of the events, with those of one event side by side, so a sharding over events is kept.
- Half precision is computed in float32, and each feature is rounded once.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.functions import enlarged, enlargement, log_of_enlarged, root
from jaxdiv._core.jit import jitted
from jaxdiv._gaussian.nodes import RULES


@functools.partial(jitted, static=("nodes",))
def js_features(p: ArrayLike, *, nodes: int | None = None) -> jax.Array:
    r"""Features $\phi(p)$ of probabilities with $\|\phi(p) - \phi(q)\|^2 \approx \mathrm{JS}(p, q)$.

    Args:
        p: Probabilities `[k]`; they are not normalised.
        nodes: The number of quadrature nodes: 1, 2, 4, 8, 14 or 56. The default suits the dtype.

    Returns:
        `[2 * nodes * k]`, without unit. The features of an event of probability zero are 0, and so are their
        derivatives, by convention. A negative probability gives `nan` for its event.

    Raises:
        ValueError: There is no quadrature with that many nodes.

    Example:
        >>> p, q = jnp.array([0.5, 0.5, 0.0]), jnp.array([0.25, 0.25, 0.5])
        >>> features = jax.vmap(embedding.js_features)(jnp.stack([p, q]))
        >>> print(features.shape, f"{jnp.sum((features[0] - features[1]) ** 2):.6f} {simplex.js(p, q):.6f}")
        (2, 84) 0.215762 0.215762

    References:
        Vedaldi and Zisserman, Efficient additive kernels via explicit feature maps, 2012.
    """
    p = _inputs.vector("embedding.js_features", p)
    larger = enlarged(p.astype(_inputs.working(p)))
    amplitude = root(larger) / enlargement(larger) ** 0.5
    return _features("embedding.js_features", amplitude, log_of_enlarged(larger), nodes).astype(p.dtype)


@functools.partial(jitted, static=("nodes",))
def js_features_of_logits(p: ArrayLike, *, nodes: int | None = None) -> jax.Array:
    r"""Features $\phi(\mathrm{softmax}(a))$ of logits $a$; their squared distance is the Jensen-Shannon divergence.

    Args:
        p: Logits `[k]`; `-inf` is probability zero.
        nodes: The number of quadrature nodes: 1, 2, 4, 8, 14 or 56. The default suits the dtype.

    Returns:
        `[2 * nodes * k]`, without unit. The features of an event of probability zero are 0, and so are their
        derivatives. Logits with `nan`, with `+inf`, or all `-inf` give `nan`.

    Raises:
        ValueError: There is no quadrature with that many nodes.

    Example:
        >>> p, q = jnp.array([0.0, 0.0, -jnp.inf]), jnp.array([0.0, 0.0, 1.0])
        >>> x, y = (embedding.js_features_of_logits(a, nodes=4) for a in (p, q))
        >>> print(x.shape, f"{jnp.sum((x - y) ** 2):.3f} {categorical.js(p, q):.3f}")
        (24,) 0.260 0.260

    References:
        Vedaldi and Zisserman, Efficient additive kernels via explicit feature maps, 2012.
    """
    p = _inputs.vector("embedding.js_features_of_logits", p)
    log_p = jax.nn.log_softmax(p.astype(_inputs.working(p)))
    return _features("embedding.js_features_of_logits", jnp.exp(0.5 * log_p), log_p, nodes).astype(p.dtype)


def _features(who, amplitude, log_p, nodes):
    """sqrt(w / 2) sqrt(p) (cos, sin)(t log p), flat."""
    nodes = (56 if log_p.dtype == jnp.float64 else 14) if nodes is None else nodes
    t, w = (jnp.asarray(x, log_p.dtype) for x in RULES[_inputs.one_of(who, "nodes", nodes, tuple(RULES))])
    # With amplitude 0 any finite phase will do; the cosine of an infinite phase would be NaN.
    phase = jnp.where(amplitude == 0, 0, log_p)[:, None] * t[None]
    circle = jnp.stack([jnp.cos(phase), jnp.sin(phase)], -1)
    return ((amplitude[:, None] * jnp.sqrt(0.5 * w)[None])[..., None] * circle).reshape(-1)

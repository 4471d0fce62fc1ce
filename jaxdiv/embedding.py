r"""Euclidean features of distributions on `k` events: their squared distance is the Jensen-Shannon divergence.

The Jensen-Shannon divergence is an integral over the affinities $c(1/2 + i t) = \sum_i \sqrt{p_i q_i}\, e^{i t \log
(p_i / q_i)}$ with a positive weight (`_gaussian.spectral` derives it), and such an affinity is the inner product of
$\sqrt{p}\, e^{i t \log p}$ and $\sqrt{q}\, e^{i t \log q}$. A quadrature with nodes $t_j$ and weights $w_j > 0$ hence
reads

$$\mathrm{JS}(p, q) \approx \sum_j w_j\, [1 - \mathrm{Re}\, c(1/2 + i t_j)] = \|\phi(p) - \phi(q)\|^2 , \qquad
\phi_{ij}(p) = \sqrt{w_j p_i / 2}\; e^{i t_j \log p_i} .$$

Whatever works on vectors then works with Jensen-Shannon: nearest neighbours, k-means, an index. Features of laws have
one norm, $|\phi|^2 = \sum_j w_j / 2 \approx \log(2) / 2$, so the nearest law is the one with the largest inner product:
$\mathrm{JS} \approx 2 \, (|\phi|^2 - \langle \phi(p), \phi(q) \rangle)$.

What holds throughout, and is not repeated below:

- The quadrature's errors are bounded for any two laws. The bounds, by `nodes`, and the length of the features:

  | `nodes` | 1 | 2 | 4 | 8 | 14 | 56 |
  |---|---|---|---|---|---|---|
  | error of Jensen-Shannon, over $\mathrm{JS}$ | 3.9e-2 | 4.4e-3 | 2.1e-4 | 3.4e-6 | 4.4e-8 | 3.1e-15 |
  | error of a derivative, over $\sqrt{\mathrm{JS}}$ | 3.8e-2 | 5.2e-3 | 3.5e-4 | 8.1e-6 | 1.3e-7 | 7.6e-15 |
  | length | 2 k | 4 k | 8 k | 16 k | 28 k | 112 k |

  By default 56 in float64, 14 else. The derivative is that in a logit, or $p_i$ times that in a probability $p_i$. A
  gradient near equality is about $\sqrt{\mathrm{JS}}$ itself. Between confident laws it vanishes faster than its error,
  which no multiple of it bounds.
- To the quadrature's error comes the rounding of features: an ulp of 1, absolute, in the distance $\sqrt{\mathrm{JS}}$.
  In float32 that is a relative error of $10^{-7} / \sqrt{\mathrm{JS}}$ of Jensen-Shannon from differences of features,
  and of $2 \cdot 10^{-7} / \mathrm{JS}$ from their inner products: near equality nothing is left. There `simplex.js`
  and `categorical.js` are right. One call gives equal laws equal features.
- Features are in the order of the events, those of one event side by side: what is sharded over events stays so.
- Half precision is computed in float32 and rounded once, each feature by itself.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core.functions import ENLARGEMENT, enlarged, log_of_enlarged, root
from jaxdiv._core.jit import jitted
from jaxdiv._gaussian.nodes import RULES


@functools.partial(jitted, static=("nodes",))
def js_features(p: ArrayLike, *, nodes: int | None = None) -> jax.Array:
    r"""Features $\phi(p)$ of probabilities, $\|\phi(p) - \phi(q)\|^2 = \mathrm{JS}(p, q)$.

    Args:
        p: Probabilities `[k]`, taken as they are.
        nodes: How many nodes of the quadrature: 1, 2, 4, 8, 14 or 56; by default what the dtype can use.

    Returns:
        `[2 * nodes * k]`, without unit; the features of an event of probability zero are 0, and so are their
        derivatives, by choice. `nan` for an event that is negative.

    Raises:
        ValueError: There is no rule of so many nodes.

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
    amplitude = root(larger) / ENLARGEMENT**0.5
    return _features("embedding.js_features", amplitude, log_of_enlarged(larger), nodes).astype(p.dtype)


@functools.partial(jitted, static=("nodes",))
def js_features_of_logits(p: ArrayLike, *, nodes: int | None = None) -> jax.Array:
    r"""Features $\phi(\mathrm{softmax}(a))$ of logits $a$: their squared distance is Jensen-Shannon.

    Args:
        p: Logits `[k]`; `-inf` is probability zero.
        nodes: How many nodes of the quadrature: 1, 2, 4, 8, 14 or 56; by default what the dtype can use.

    Returns:
        `[2 * nodes * k]`, without unit; the features of an event of probability zero are 0, and so are their
        derivatives. A row with `nan`, `+inf` or nothing but `-inf` is `nan`.

    Raises:
        ValueError: There is no rule of so many nodes.

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
    # Any phase is that of a zero amplitude; an infinite one would be none.
    phase = jnp.where(amplitude == 0, 0, log_p)[:, None] * t[None]
    circle = jnp.stack([jnp.cos(phase), jnp.sin(phase)], -1)
    return ((amplitude[:, None] * jnp.sqrt(0.5 * w)[None])[..., None] * circle).reshape(-1)

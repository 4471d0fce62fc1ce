r"""Centroids of distributions by any divergence, and k-means with them.

The centroid of laws $p_j$ with weights $w_j$ is the law $c$ of least mean divergence $\sum_j w_j D(p_j, c) / \sum_j
w_j$, or $\sum_j w_j D(c, p_j) / \sum_j w_j$ with `side="left"`. k-means alternates between giving each law to the
nearest of k centroids and moving each centroid to that of its laws.

| divergence | centroid |
|---|---|
| `kl`, `"right"` | the mean of probabilities; of normal laws that with their common mean and covariance |
| `kl`, `"left"` | the normalised geometric mean of densities: the mean of logits, of natural parameters |
| `squared_hellinger`, `chi2`, `amari`, discrete | the power mean of probabilities, normalised |
| everything else | by descent from the better of the two means above |

What holds throughout, and is not repeated below:

- A divergence is a verb of a family of which it takes pairs, options fixed by `functools.partial`, or one's own
  function. Own functions, also a lambda around a verb, cannot be looked into: their laws are moved freely, so they
  should be unconstrained numbers such as logits. Laws of `simplex` sum to one.
- A descent takes steps by the curvature of those before (L-BFGS) in units of the Fisher metric. It never goes up, but
  for rounding, and stops where the cost can no longer fall by more than that. Where a divergence is not convex in the
  centroid (normal laws; distances, whose centroids are medians) it is a local minimum.
- Centroids of `LowRankNormal` and `MatrixNormal` laws are `MultivariateNormal`; of all others of the form of the laws.
- The memory beyond the arguments and results is that of a tile of laws.
- A law of weight 0 does not count, whatever it is. Derivatives, of first order, are those of a minimum, by the
  implicit function; where there is a descent they take the memory of all laws, not of a tile.
- Half precision is computed in float32 and rounded once.

References for the whole: Banerjee, Merugu, Dhillon and Ghosh, Clustering with Bregman divergences, 2005. Nielsen, On a
generalization of the Jensen-Shannon divergence and the Jensen-Shannon centroid, 2020.
"""

import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv._core import tuning
from jaxdiv._core.descent import descend, stationary
from jaxdiv._core.functions import root, with_tangents
from jaxdiv._core.groups import UNKNOWN, Groups, Law, Space, along, largest, mass, means
from jaxdiv._core.jit import jitted
from jaxdiv._gaussian import forms, spaces
from jaxdiv.batching import Divergence, nearest


class Centroid(NamedTuple):
    """The law, its cost, which is the mean divergence `[]`, and how steep the cost still is there, `[]`."""

    law: Any
    cost: jax.Array
    gradient_norm: jax.Array


class Clusters(NamedTuple):
    """k centroids, the nearest of them to each law `[n]`, the mean divergence `[]`, and the weight in each `[k]`."""

    centroids: Any
    labels: jax.Array
    cost: jax.Array
    sizes: jax.Array


@functools.partial(jitted, static=("divergence", "side"))
def centroid(divergence: Divergence, laws: Any, *, weights: ArrayLike | None = None, side: str = "right") -> Centroid:
    r"""The law $c$ of least mean divergence $\sum_j w_j D(p_j, c) / \sum_j w_j$.

    Args:
        divergence: A function of one pair of laws with a scalar result. It is part of the program: each new function,
            each new `functools.partial` too, compiles anew.
        laws: Laws `[n, ...]`: an array or a tree of arrays with the batch as the first axis.
        weights: Weights `[n]`, non-negative; equal by default.
        side: `"right"` where the centroid is the second argument of the divergence, `"left"` where it is the first.

    Returns:
        The law; the cost in the units of `divergence`, 0 when all laws are equal, which the centroid then equals
        exactly; and the norm of the gradient of the cost in units of the Fisher metric, which is 0 at a minimum up to
        rounding and tells how well a descent ended; it has no derivatives. Where every law is infinitely far from some
        law the cost is `inf` or `nan`; all is `nan` if no law has a weight.

    Raises:
        ValueError: The arrays of the batch differ in their first axis, or have none; `divergence` is not scalar;
            `side` is neither `"right"` nor `"left"`.

    Example:
        >>> laws = jnp.array([[0.5, 0.5], [0.1, 0.9]])
        >>> for side in ("right", "left"):
        ...     law = clustering.centroid(simplex.kl, laws, side=side).law
        ...     print(" ".join(f"{x:.3f}" for x in law))
        0.300 0.700
        0.250 0.750

    References:
        Nielsen and Nock, Sided and symmetrized Bregman centroids, 2009.
    """
    who = "clustering.centroid"
    task, _, groups, dtype = _task(who, divergence, laws, weights, side, 1)
    found = _with_derivatives(task, groups, _or_equal(groups, _centroids(task, groups, (), tuning.DESCENT)))
    points = lax.stop_gradient(jax.vmap(task.space.point)(found))
    slope = _evaluated(task, _fixed(groups), points, jnp.zeros_like(_flat(points)))[1]
    result = Centroid(found, means(task.divergence, groups, found), root(jnp.sum(slope**2, -1)))
    missing = mass(groups) == 0
    return _rounded(jax.tree.map(lambda x: _where(missing, jnp.full_like(x, jnp.nan), x)[0], result), dtype)


@functools.partial(jitted, static=("divergence", "k", "side", "steps", "starts"))
def kmeans(
    divergence: Divergence,
    laws: Any,
    k: int,
    *,
    key: jax.Array,
    weights: ArrayLike | None = None,
    side: str = "right",
    steps: int = 100,
    starts: int = 1,
) -> Clusters:
    r"""k centroids $c$ of small mean divergence $\sum_j w_j \min_i D(p_j, c_i) / \sum_j w_j$ of the nearest.

    Seeds are drawn among the laws, each in proportion to the weighted divergence from the nearest before (k-means++).
    The cost never rises from one step to the next, but for rounding. A centroid without laws moves to a law that is far
    from its own.

    Args:
        divergence: A function of one pair of laws with a scalar result, part of the program as in `centroid`.
        laws: Laws `[n, ...]`: an array or a tree of arrays with the batch as the first axis.
        k: The number of clusters, at most n.
        key: A key of `jax.random`.
        weights: Weights `[n]`, non-negative; equal by default.
        side: `"right"` where centroids are the second argument of the divergence, `"left"` where they are the first.
        steps: How often centroids move at most; it ends when no law changes its cluster.
        starts: How many seeds to start from, one after the other; the result is the one of least cost.

    Returns:
        Centroids `[k, ...]` in the form of the laws; the cluster `[n]` of each law, of the nearest centroid, of equals
        the first; the cost in the units of `divergence`; and the sum of the weights in each cluster, 0 where there are
        fewer distinct laws than clusters. Centroids and cost are differentiable with the labels as they are. A law with
        `nan` makes its cluster and the cost `nan`: give it the weight 0.

        Laws with zeros are infinitely far from each other by `kl` and others that can be infinite, which leaves no
        choice of seeds: smooth such laws, or take `js`.

    Raises:
        ValueError: k is not between 1 and n; otherwise as in `centroid`.

    Example:
        >>> laws = jnp.array([[0.5, 0.5], [0.6, 0.4], [0.1, 0.9], [0.0, 1.0]])
        >>> found = clustering.kmeans(simplex.js, laws, 2, key=jax.random.key(0), starts=3)
        >>> print(found.labels[0] == found.labels[1] != found.labels[2] == found.labels[3], f"{found.cost:.4f}")
        True 0.0059

    References:
        Lloyd, Least squares quantization in PCM, 1982. Arthur and Vassilvitskii, k-means++: the advantages of careful
        seeding, 2007. Nock, Luosto and Kivinen, Mixed Bregman clustering with approximation guarantees, 2008.
    """
    who = "clustering.kmeans"
    _inputs.setting(who, "steps", steps, 1, whole=True)
    _inputs.setting(who, "starts", starts, 1, whole=True)
    task, laws, groups, dtype = _task(who, divergence, laws, weights, side, k)
    run = functools.partial(_run, task, lax.stop_gradient(laws), _fixed(groups), steps)
    centroids, labels, costs = lax.map(run, jax.random.split(key, starts))
    best = jnp.argmin(jnp.where(jnp.isnan(costs), jnp.inf, costs))
    centroids, labels = jax.tree.map(lambda x: x[best], (centroids, labels))
    groups = groups._replace(labels=labels)
    found = _with_derivatives(task, groups, _or_equal(groups, centroids))
    distances = along(lambda own, found: task.divergence(own[0], _at(found, own[1])), (groups.laws, labels), found)
    return _rounded(Clusters(found, labels, _mean(distances, groups.weights), mass(groups)), dtype)


# ---------------------------------------------------------------- what is asked


class _Task(NamedTuple):
    """A divergence of a law and a centroid, the space of both, and the order of the mean that is a centroid, if any."""

    divergence: Divergence
    space: Space
    order: ArrayLike | None


def _task(who, divergence, laws, weights, side, k) -> tuple[_Task, Law, Groups, jnp.dtype]:
    """The task, the laws, groups of those that count, and the dtype of results."""
    left = _inputs.one_of(who, "side", side, ("right", "left")) == "left"
    laws = jax.tree.map(jnp.asarray, laws)
    n = _inputs.batch_size(who, "laws", laws)
    _inputs.between_one_and(who, "k", k, n, "laws")
    dtype = _inputs.result_of_pair(who, divergence, laws, laws)
    laws = jax.tree.map(lambda x: x.astype(_inputs.working(x)), laws)
    counted, work = laws, _inputs.working(jnp.zeros(0, dtype))
    if weights is not None:
        weights = _inputs.weights(who, weights, None, (n,), work)
        # What does not count is replaced: a number that is none would reach sums through derivatives.
        counted = _where(weights > 0, laws, jax.tree.map(lambda x: x[jnp.argmax(weights)][None], laws))
    groups = Groups(counted, jnp.ones(n, work) if weights is None else weights, jnp.zeros(n, jnp.int32), k)
    verb, options = _unwrapped(divergence)
    space = spaces.of(laws) if type(laws) in forms.FORMS else getattr(verb, "space", UNKNOWN)
    order = getattr(verb, "order", None)
    if order is None or inspect.signature(order).parameters.keys() != options.keys():
        order = None
    else:
        order = 1 - order(**options) if left else order(**options)
    toward = (lambda law, centre: divergence(centre, law)) if left else divergence
    return _Task(toward, space, order), laws, groups, dtype


def _unwrapped(divergence):
    """A verb and the options that a `functools.partial` fixes."""
    if isinstance(divergence, functools.partial):
        return divergence.func, divergence.keywords
    return divergence, {}


def _rounded(result, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, result)


def _where(mask, xs, ys):
    """A choice for each law of two batches."""
    return jax.tree.map(lambda x, y: jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, y), xs, ys)


# ---------------------------------------------------------------- centroids


def _fixed(groups):
    return groups._replace(laws=lax.stop_gradient(groups.laws), weights=lax.stop_gradient(groups.weights))


def _closed(task, groups):
    """The centroids of groups where they are means in closed form, else None."""
    if task.order is None:
        return None
    points = task.space.mean(task.order, groups._replace(view=task.space.point))
    return None if points is None else jax.vmap(task.space.law)(points)


def _centroids(task, groups, known, steps):
    """The centroids of groups, without derivatives; by descent from the best of means and those that are `known`."""
    groups = _fixed(groups)
    closed = _closed(task, groups)
    if closed is not None:
        return closed
    points = groups._replace(view=task.space.point)
    found = (task.space.mean(order, points) for order in ((1.0,) if known else (1.0, 0.0)))
    point = _best(task, groups, [jax.vmap(task.space.point)(x) for x in known] + [x for x in found if x is not None])
    moves = descend(lambda moves: _evaluated(task, groups, point, moves), jnp.zeros_like(_flat(point)), steps)
    return jax.vmap(task.space.law)(_moved(task, point, moves))


def _with_derivatives(task, groups, found):
    """Centroids with the derivatives that minima have in the laws and the weights."""
    law = _closed(task, groups)
    if law is None:
        point = jax.vmap(task.space.point)(found)

        def gradient(moves, data):
            laws, weights, labels, point = data
            return _evaluated(task, Groups(laws, weights, labels, groups.number, whole=True), point, moves)[1]

        moves = stationary(gradient, jnp.zeros_like(_flat(point)), (*groups[:3], point))
        law = jax.vmap(task.space.law)(_moved(task, point, moves))
    return jax.tree.map(with_tangents, found, law)


def _best(task, groups, starts):
    """Of each group the point of least cost."""
    if len(starts) == 1:
        return starts[0]
    best, least = starts[0], means(task.divergence, groups, jax.vmap(task.space.law)(starts[0]))
    for point in starts[1:]:
        cost = means(task.divergence, groups, jax.vmap(task.space.law)(point))
        better = (cost < least) | jnp.isnan(least)
        best, least = _where(better, point, best), jnp.where(better, cost, least)
    return best


def _flat(points):
    return jax.vmap(lambda point: ravel_pytree(point)[0])(points)


def _moved(task, points, moves):
    back = ravel_pytree(jax.tree.map(lambda x: x[0], points))[1]
    return jax.vmap(lambda point, change: task.space.move(point, back(change)))(points, moves)


def _evaluated(task, groups, points, moves):
    """Costs `[number]` of centroids, points that are moved, and their gradients in the moves."""

    def costs(moves):
        centres = jax.vmap(task.space.law)(_moved(task, points, moves))
        found = means(task.divergence, groups, centres)
        return jnp.sum(found), found

    return jax.grad(costs, has_aux=True)(moves)[::-1]


def _or_equal(groups, found):
    """Centroids, but exactly the law of groups in which all laws are equal."""
    n = len(groups.labels)
    order = jnp.where(groups.weights > 0, jnp.arange(n), n - 1)
    at = jnp.minimum(jax.ops.segment_min(order, groups.labels, groups.number), n - 1)
    first = jax.tree.map(lambda x: x[at], groups.laws)
    if type(first) is not type(found):
        return found

    def differs(law, first):
        return functools.reduce(jnp.logical_or, map(_differ, jax.tree.leaves(law), jax.tree.leaves(first))).astype(
            jnp.float32
        )

    equal = largest(differs, groups, first) == 0
    first = jax.tree.map(lambda x, y: x.reshape(len(x), *(1,) * (y.ndim - x.ndim), *x.shape[1:]), first, found)
    return _where(equal, first, found)


def _differ(x, y):
    return jnp.any(x != y)


# ---------------------------------------------------------------- k-means


def _run(task, laws, groups, steps, key):
    """Centroids, labels and the cost of one start, without derivatives."""
    closed = _closed(task, groups) is not None

    def going(carry):
        i, done, *_ = carry
        return ~done & (i < steps)

    def step(carry):
        i, _, still, centroids, labels, distances = carry
        own = groups._replace(labels=labels)
        # A descent goes on in the next step; to its end only where labels stay.
        found = _centroids(task, own, (centroids,), jnp.where(still, tuning.DESCENT, tuning.DESCENT_OF_A_STEP))
        centroids = _where(mass(own) > 0, found, _far(task, own, distances))
        near = nearest(task.divergence, laws, centroids, k=1)
        same = jnp.all(near.indices[:, 0] == labels)
        return i + 1, same & (still | closed), same, centroids, near.indices[:, 0], near.values[:, 0]

    seeds, labels, distances = _seeds(task, groups, key)
    start = jnp.int32(0), jnp.bool_(False), jnp.bool_(False), seeds, labels, distances
    *_, centroids, labels, distances = lax.while_loop(going, step, start)
    return centroids, labels, _mean(distances, groups.weights)


def _mean(distances, weights):
    return jnp.sum(jnp.where(weights > 0, weights * distances, 0)) / jnp.sum(weights)


def _at(laws, index):
    return jax.tree.map(lambda x: x[index], laws)


def _far(task, groups, distances):
    """To each group without laws another one of those that are far from their centroid."""
    share = jnp.where(groups.weights > 0, groups.weights * jnp.nan_to_num(distances, nan=0, posinf=jnp.inf), 0)
    empty = mass(groups) == 0
    at = lax.top_k(share, groups.number)[1][jnp.maximum(jnp.cumsum(empty) - 1, 0)]
    return jax.vmap(lambda law: task.space.law(task.space.point(law)))(_at(groups.laws, at))


def _seeds(task, groups, key):
    """k of the laws, each drawn in proportion to its weighted divergence from the nearest before; labels, distances."""
    laws, weights, labels, k, *_ = groups

    def draw(key, distances):
        # Where some are infinitely far, one of these; where none is far, any.
        far = jnp.isinf(distances) & (weights > 0)
        share = weights * jnp.where(jnp.any(far), far.astype(weights.dtype), jnp.where(distances > 0, distances, 0))
        at = jax.random.categorical(key, jnp.log(jnp.where(jnp.any(share > 0), share, weights)))
        return task.space.law(task.space.point(_at(laws, at)))

    def add(carry, step):
        labels, distances = carry
        i, key = step
        seed = draw(key, distances)
        further = along(task.divergence, laws, seed).astype(distances.dtype)
        nearer = further < distances
        return (jnp.where(nearer, i, labels), jnp.where(nearer, further, distances)), seed

    steps = jnp.arange(k, dtype=labels.dtype), jax.random.split(key, k)
    (labels, distances), seeds = lax.scan(add, (labels, jnp.full_like(weights, jnp.inf)), steps)
    return seeds, labels, distances

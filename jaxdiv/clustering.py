r"""Centroids of distributions (*laws*) by any divergence, and k-means with them.

The centroid of laws $p_j$ with weights $w_j$ is the law $c$ with the least mean divergence
$\sum_j w_j D(p_j, c) / \sum_j w_j$; with `side="left"` the mean is $\sum_j w_j D(c, p_j) / \sum_j w_j$. k-means repeats
two steps: it assigns each law to the nearest of k centroids, and moves each centroid to the centroid of its laws.

| divergence | centroid |
|---|---|
| `kl`, `"right"` | the mean of probabilities; for normal laws, that with the mean and covariance of their mixture |
| `kl`, `"left"` | the normalised geometric mean of densities: the mean of logits, or of natural parameters |
| `squared_hellinger`, `chi2`, `amari`, discrete | the power mean of probabilities, normalised |
| any other | found by descent from the better of the two means above |

These rules hold for both functions below:

- A divergence is a function of a family, such as `simplex.js`, with options fixed by `functools.partial`; or it is your
  own function. Nothing is known about the laws of your own function, also of a lambda around `simplex.js`: every number
  in them moves freely. They should therefore be unconstrained, such as logits. Laws of `simplex` sum to one.
- The descent is L-BFGS in units of the Fisher metric. The cost never rises, except by rounding errors, and the descent
  stops when the cost can fall by no more than those. If a divergence is not convex in the centroid, the result is a
  local minimum. This concerns normal laws, and distances, whose centroids are medians.
- Centroids of `LowRankNormal` and `MatrixNormal` laws are `MultivariateNormal`; all others have the form of the laws.
- Beyond arguments and results, the memory is that of one tile of laws.
- A law of weight 0 does not count, even if it is invalid. The derivative in its weight is the limit of those in small
  weights, or 0 if the law is invalid or infinitely far. First derivatives are those of a minimum, by the implicit
  function theorem. After a descent they need the memory of all laws, not of a tile.
- Half precision is computed in float32 and rounded once.

References: Banerjee, Merugu, Dhillon and Ghosh, Clustering with Bregman divergences, 2005. Nielsen, On a
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
from jaxdiv._core.functions import of_moderate_size, over_count, root, times, weighed, with_tangents
from jaxdiv._core.groups import UNKNOWN, Groups, Law, Space, along, largest, mass, means, without
from jaxdiv._core.jit import jitted
from jaxdiv._gaussian import forms, spaces
from jaxdiv.batching import Divergence, nearest


class Centroid(NamedTuple):
    """The law, its cost (the mean divergence) `[]`, and the norm of the cost's gradient there, `[]`."""

    law: Any
    cost: jax.Array
    gradient_norm: jax.Array


class Clusters(NamedTuple):
    """k centroids, the index `[n]` of the nearest one to each law, the mean divergence `[]`, their weights `[k]`."""

    centroids: Any
    labels: jax.Array
    cost: jax.Array
    sizes: jax.Array


@functools.partial(jitted, static=("divergence", "side"))
def centroid(divergence: Divergence, laws: Any, *, weights: ArrayLike | None = None, side: str = "right") -> Centroid:
    r"""The law $c$ with the least mean divergence $\sum_j w_j D(p_j, c) / \sum_j w_j$.

    Args:
        divergence: A function of one pair of laws with a scalar result. Each new function, also each new
            `functools.partial`, compiles a new program.
        laws: Laws `[n, ...]`: an array or a tree of arrays with the batch as the first axis.
        weights: Weights `[n]`, non-negative; equal by default.
        side: `"right"` if the centroid is the second argument of the divergence, `"left"` if it is the first.

    Returns:
        A `Centroid`: the law, the cost, and the norm of the cost's gradient. The cost has the units of `divergence`. If
        all laws are equal, the centroid equals them exactly and the cost is 0; up to rounding, if the centroid has
        another form than the laws. The norm is in units of the Fisher metric. It is 0 at a minimum, up to rounding, so
        it shows how well a descent ended; it has no derivatives. If every candidate is infinitely far from some law,
        the cost is `inf` or `nan`. If all weights are 0, everything is `nan`.

    Raises:
        ValueError: The arrays of the batch differ in their first axis, or have none; there is no law; `divergence` is
            not scalar; `side` is neither `"right"` nor `"left"`.
        TypeError: Laws or divergences are not floating-point numbers.

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
    r"""k centroids $c_i$ with a small mean divergence $\sum_j w_j \min_i D(p_j, c_i) / \sum_j w_j$ from the nearest.

    Seeds are drawn from the laws, each with probability proportional to its weighted divergence from the nearest
    earlier seed (k-means++). The cost never rises from one step to the next, except by rounding errors. A centroid that
    has no laws moves to a law that is far from its own centroid.

    Args:
        divergence: A function of one pair of laws with a scalar result, as in `centroid`.
        laws: Laws `[n, ...]`: an array or a tree of arrays with the batch as the first axis.
        k: The number of clusters, at most n.
        key: A key of `jax.random`.
        weights: Weights `[n]`, non-negative; equal by default.
        side: `"right"` if centroids are the second argument of the divergence, `"left"` if they are the first.
        steps: The maximal number of moves. k-means ends earlier if no law changes its cluster.
        starts: The number of starts, each from its own seeds, one after the other. The result is that of the start with
            the least cost.

    Returns:
        `Clusters`: the centroids `[k, ...]` in the form of the laws; the index `[n]` of the centroid nearest to each
        law (of equal ones, the first); the cost in the units of `divergence`; and the sum of weights in each cluster,
        at least in float32, which is 0 for some if there are fewer distinct laws than clusters. Centroids and cost are
        differentiable, with fixed labels. Laws with `nan` make the first cluster, which is theirs alone, and the cost
        `nan`: give them weight 0.

        With `kl` and other divergences that can be infinite, laws with zeros can be infinitely far from each other.
        Distances then give no guide for the choice of seeds: smooth such laws, or use `js`.

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
    given = _inputs.weights(who, weights, None, groups.labels.shape, groups.weights.dtype)
    run = functools.partial(_run, task, lax.stop_gradient(laws), _fixed(groups), steps)
    centroids, labels, costs = lax.map(run, jax.random.split(key, starts))
    best = jnp.argmin(jnp.where(jnp.isnan(costs), jnp.inf, costs))
    centroids, labels = jax.tree.map(lambda x: x[best], (centroids, labels))
    groups = groups._replace(labels=labels)
    found = _with_derivatives(task, groups, _or_equal(groups, centroids))
    distances = along(lambda own, found: task.divergence(own[0], _at(found, own[1])), (groups.laws, labels), found)
    found, cost = _rounded((found, _mean(distances, groups.weights)), dtype)
    return Clusters(found, labels, cost, mass(groups._replace(weights=given)))


# ---------------------------------------------------------------- what is asked


class _Task(NamedTuple):
    """A divergence of (law, centroid), the space of both, and the order of the mean that is the centroid, if any."""

    divergence: Divergence
    space: Space
    order: ArrayLike | None


def _task(who, divergence, laws, weights, side, k) -> tuple[_Task, Law, Groups, jnp.dtype]:
    """The task, the laws, the groups of laws that count, and the dtype of results."""
    left = _inputs.one_of(who, "side", side, ("right", "left")) == "left"
    laws = jax.tree.map(functools.partial(_inputs.array, who, "laws"), laws)
    n = _inputs.some_laws(who, "laws", laws)
    _inputs.between_one_and(who, "k", k, n, "laws")
    dtype = _inputs.result_of_pair(who, divergence, laws, laws)
    _inputs.with_slopes(who, dtype)
    laws = jax.tree.map(lambda x: x.astype(_inputs.working(x)), laws)
    verb, options = _unwrapped(divergence)
    space = spaces.of(laws) if type(laws) in forms.FORMS else getattr(verb, "space", UNKNOWN)
    counted, work = laws, _inputs.working(jnp.zeros(0, dtype))
    if weights is not None:
        weights = _inputs.weights(who, weights, None, (n,), work)
        counted, weights = without((weights == 0) & _invalid(divergence, space, laws), laws, weights)
        weights = of_moderate_size(weights)
    groups = Groups(counted, jnp.ones(n, work) if weights is None else weights, jnp.zeros(n, jnp.int32), k)
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


def _invalid(divergence, space, laws):
    """Which laws `[n]` have no divergence from themselves, or no point."""

    def invalid(law):
        numbers = divergence(law, law), *jax.tree.leaves(space.point(law))
        return functools.reduce(jnp.logical_or, (jnp.any(jnp.isnan(x)) for x in numbers))

    return along(invalid, lax.stop_gradient(laws))


def _rounded(result, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, result)


def _where(mask, xs, ys):
    """`jnp.where` with one mask entry per law, for two batches of laws."""
    return jax.tree.map(lambda x, y: jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, y), xs, ys)


# ---------------------------------------------------------------- centroids


def _fixed(groups):
    return groups._replace(laws=lax.stop_gradient(groups.laws), weights=lax.stop_gradient(groups.weights))


def _closed(task, groups):
    """The centroids of groups if they are means in closed form, else None."""
    if task.order is None:
        return None
    points = task.space.mean(task.order, groups._replace(view=task.space.point))
    return None if points is None else jax.vmap(task.space.law)(points)


def _centroids(task, groups, known, steps):
    """The centroids of groups, without derivatives: closed forms, or by descent from the best of means and `known`."""
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
    """Centroids with the derivatives of minima with respect to laws and weights."""
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
    """The point of least cost for each group."""
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
    """Costs `[number]` of the moved points as centroids, and their gradients in the moves."""

    def costs(moves):
        centres = jax.vmap(task.space.law)(_moved(task, points, moves))
        found = means(task.divergence, groups, centres)
        return jnp.sum(found), found

    return jax.grad(costs, has_aux=True)(moves)[::-1]


def _or_equal(groups, found):
    """Centroids; for a group in which all laws are equal, exactly that law."""
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
        # A descent continues in the next step; it runs to its end only once the labels stay the same.
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
    return over_count(jnp.sum(weighed(weights, distances)), jnp.sum(weights))


def _at(laws, index):
    return jax.tree.map(lambda x: x[index], laws)


def _far(task, groups, distances):
    """For each group without laws, a different law among those far from their own centroids."""
    share = jnp.where(groups.weights > 0, groups.weights * jnp.nan_to_num(distances, nan=0, posinf=jnp.inf), 0)
    empty = mass(groups) == 0
    at = lax.top_k(share, groups.number)[1][jnp.maximum(jnp.cumsum(empty) - 1, 0)]
    return jax.vmap(lambda law: task.space.law(task.space.point(law)))(_at(groups.laws, at))


def _seeds(task, groups, key):
    """k seeds, each drawn in proportion to its weighted divergence from the nearest before; labels and distances."""
    laws, weights, labels, k, *_ = groups
    invalid = _invalid(task.divergence, task.space, laws)
    weights = jnp.where(invalid, 0, weights)

    def draw(key, distances):
        # If some laws are infinitely far, draw one of them; if all distances are 0, draw by weights alone.
        far = jnp.isinf(distances) & (weights > 0)
        share = jnp.where(jnp.any(far), far.astype(weights.dtype), jnp.where(distances > 0, distances, 0))
        share = times(weights, share)
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
    # At distance nan, an invalid law is neither drawn nor far from the others.
    start = labels, jnp.where(invalid, jnp.nan, jnp.full_like(weights, jnp.inf))
    (labels, distances), seeds = lax.scan(add, start, steps)
    return seeds, labels, distances

r"""Targets of which only some classes are known: the k likeliest, those of a student, a sampled token.

A `TopK` is what a file of a teacher's predictions holds. `against` makes a loss of logits `[..., v]` and a `TopK` from
one of `jaxdiv.losses`: the classes that are not listed become one, the tail, whose logit on the side of the predictions
is the log-sum-exp of theirs. What is lost is known: for every divergence that is a sum over classes of a convex term
homogeneous in the two probabilities (all of `losses` but `cross_entropy`, and Renyi's as a function of one)

    against(loss, tail="bucket") <= loss of all classes <= against(loss, tail="worst")

The lower bound is the data-processing inequality. The upper one assumes that no class that is not listed is likelier
than the least likely one that is, $u$: a tail of mass $\tau$ has at least $\tau / u$ classes, and is worst where those
are the least likely of the predictions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxdiv import _inputs
from jaxdiv.elementary import positive

TAILS = ("renormalized", "bucket", "uniform", "worst")


class TopK(NamedTuple):
    """Log-probabilities `[..., k]` of the classes `indices` `[..., k]`, and of all others together, `log_tail` `[...]`.

    Without `log_tail` the others have what is missing to one. An index of -1 is padding; of an index that is listed
    more than once the first entry counts.
    """

    log_probs: ArrayLike
    indices: ArrayLike
    log_tail: ArrayLike | None = None


def _fallen(largest):
    """The largest of a row as a finite number to subtract."""
    return lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0))


def _log_sum_exp(x):
    """Over the last axis; `-inf`, with gradient 0, for a row of nothing else."""
    largest = _fallen(jnp.max(x, -1))
    total = jnp.sum(jnp.exp(x - largest[..., None]), -1)
    return jnp.where(total == 0, -jnp.inf, largest + jnp.log(positive(total)))


def _log_less(x, y):
    """log(exp(x) - exp(y)) for y <= x; `-inf`, with gradient 0, where they are equal or rounding has reversed them."""
    gap = jnp.where(x > y, y - jnp.where(x > y, x, 0), -1)
    # log(1 - exp(gap)) by whichever of the two keeps its digits.
    near = gap > -0.6931472
    log = jnp.where(
        near,
        jnp.log(-jnp.expm1(jnp.where(near, gap, -1))),
        jnp.log1p(-jnp.exp(jnp.where(near, -1, gap))),
    )
    return jnp.where(x > y, x + log, -jnp.inf)


def _counts(indices):
    """Which entries count: no padding, and no index that is listed before."""
    k = indices.shape[-1]
    same = indices[..., :, None] == indices[..., None, :]
    earlier = jnp.broadcast_to(np.tri(k, k, -1, dtype=bool), same.shape)
    return (indices >= 0) & ~jnp.any(same & earlier, -1)


def _listed(x, indices, counts):
    """The listed entries of `[..., v]`, `-inf` where one does not count, and the array with `-inf` in their place."""
    safe = jnp.where(counts, indices, 0)
    there = jnp.where(counts, jnp.take_along_axis(x, safe, -1), -jnp.inf)
    v = x.shape[-1]
    flat, at = x.reshape(-1, v), jnp.where(counts, indices, v).reshape(-1, indices.shape[-1])
    others = flat.at[jnp.arange(len(flat))[:, None], at].set(-jnp.inf, mode="drop")
    return there, others.reshape(x.shape)


def at(logits: ArrayLike, indices: ArrayLike, *, temperature: ArrayLike = 1.0) -> TopK:
    r"""The `TopK` of $\mathrm{softmax}(x / T)$ at given classes: a student's likeliest, or sampled tokens.

    Args:
        logits: Logits $x$ `[..., v]`.
        indices: Integers `[..., k]`; -1 is padding. A sampled token has k = 1.
        temperature: $T$, a positive number.

    Returns:
        Log-probabilities `[..., k]`, 0 for certainty, `-inf` for zero and for padding; the tail from the other classes
        themselves, accurate however small it is. At least in float32.

    Example:
        >>> top = topk.at(jnp.log(jnp.array([0.5, 0.3, 0.2])), jnp.array([1, -1]))
        >>> print(f"{top.log_probs[0]:.4f} {top.log_probs[1]:.4f} {top.log_tail:.4f}")
        -1.2040 -inf -0.3567
    """
    who = "topk.at"
    x = _inputs.array(who, "logits", logits)
    work = _inputs.working(x)
    indices = _inputs.indices(who, indices, x.shape)
    x = x.astype(work) / _inputs.number(who, "temperature", temperature, x, work)
    there, others = _listed(x, indices, _counts(indices))
    total = _log_sum_exp(x)
    return TopK(there - total[..., None], indices, _log_sum_exp(others) - total)


def from_logits(logits: ArrayLike, k: int, *, temperature: ArrayLike = 1.0) -> TopK:
    r"""The `TopK` of the k likeliest classes of $\mathrm{softmax}(x / T)$, in descending order.

    Args:
        logits: Logits $x$ `[..., v]`.
        k: How many.
        temperature: $T$, a positive number.

    Returns:
        Log-probabilities, indices `[..., k]` and the tail `[...]`, `-inf` where zero.

    Example:
        >>> top = topk.from_logits(jnp.log(jnp.array([0.2, 0.5, 0.3])), 2)
        >>> print(top.indices, f"{jnp.exp(top.log_tail):.4f}")
        [1 2] 0.2000
    """
    return at(logits, lax.top_k(_inputs.array("topk.from_logits", "logits", logits), k)[1], temperature=temperature)


def against(loss: Callable[..., jax.Array], *, tail: str) -> Callable[..., jax.Array]:
    r"""The loss $D(x, y)$ of logits $x$ and targets $y$ of which a `TopK` is known.

    Args:
        loss: A loss of logits on both sides.
        tail: What the targets are beyond the listed classes. "renormalized": nothing, and the listed ones are divided
            by their sum. "bucket": one class together, on both sides: a lower bound of the loss of all classes.
            "uniform": classes of equal probability. "worst": the upper bound above.

    Returns:
        `(logits, top_k, *, temperature=1.0, **options) -> [...]`, with the sign, zeros and infinities of `loss`;
        gradients go through the listed logits and the tail's. The temperature divides the logits; a `TopK` is made at
        its own. At "worst" the loss may be infinite where a target may be 0.

    Example:
        >>> logits, teacher = jnp.zeros((1, 4)), jnp.log(jnp.array([[0.6, 0.2, 0.15, 0.05]]))
        >>> top = topk.from_logits(teacher, 2)
        >>> for tail in topk.TAILS:
        ...     print(f"{topk.against(losses.forward_kl, tail=tail)(logits, top)[0]:.4f}", tail)
        0.8240 renormalized
        0.2974 bucket
        0.2974 uniform
        0.4360 worst
        >>> print(f"{losses.forward_kl(logits, teacher)[0]:.4f}")
        0.3236

    References:
        Csiszar, Information-type measures of difference of probability distributions and indirect observations, 1967:
        the data-processing inequality.
    """
    who = "topk.against"
    _inputs.one_of(who, "tail", tail, TAILS)

    def of_top_k(logits, top_k, *, temperature=1.0, **options):
        x = _inputs.array(who, "logits", logits)
        work, dtype = _inputs.working(x), x.dtype
        indices = _inputs.top_k(who, top_k, x.shape)
        x = x.astype(work) / _inputs.number(who, "temperature", temperature, x, work)
        counts = _counts(indices)
        known = jnp.where(counts, jnp.asarray(top_k.log_probs).astype(work), -jnp.inf)
        if top_k.log_tail is None:
            log_tail = _log_less(jnp.zeros_like(known[..., 0]), _log_sum_exp(known))
        else:
            log_tail = jnp.asarray(top_k.log_tail).astype(work)
        there, others = _listed(x, indices, counts)
        predictions, targets = _CLASSES[tail](there, others, known, log_tail)
        return loss(predictions, targets, **options).astype(dtype)

    return of_top_k


def _with(x, *last):
    return jnp.concatenate([x, *(y[..., None] for y in last)], -1)


def _renormalized(there, others, known, log_tail):
    return _with(there, _log_sum_exp(others)), _with(known, jnp.full_like(log_tail, -jnp.inf))


def _bucket(there, others, known, log_tail):
    return _with(there, _log_sum_exp(others)), _with(known, log_tail)


def _uniform(there, others, known, log_tail):
    possible = others > -jnp.inf
    each = log_tail - jnp.log(jnp.maximum(jnp.sum(possible, -1), 1).astype(log_tail.dtype))
    spread = jnp.where(possible, each[..., None], -jnp.inf)
    return jnp.concatenate([there, others], -1), jnp.concatenate([known, spread], -1)


def _worst(there, others, known, log_tail):
    least_known = jnp.min(jnp.where(known > -jnp.inf, known, jnp.inf), -1)
    mass = _log_sum_exp(others)
    least = jnp.min(jnp.where(others > -jnp.inf, others, jnp.inf), -1)
    # By homogeneity n classes of probabilities (u, s) are one of (n u, n s): the tail's n = tail / u on the least
    # likely predictions, and what is left of these against nothing.
    share = jnp.minimum(least + jnp.maximum(log_tail - least_known, 0), mass)
    share = jnp.where(log_tail == -jnp.inf, -jnp.inf, share)
    nothing = jnp.full_like(log_tail, -jnp.inf)
    return _with(there, share, _log_less(mass, share)), _with(known, log_tail, nothing)


_CLASSES: dict[str, Callable[..., Any]] = {
    "renormalized": _renormalized,
    "bucket": _bucket,
    "uniform": _uniform,
    "worst": _worst,
}

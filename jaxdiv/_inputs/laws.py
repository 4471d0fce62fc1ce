"""Normal laws, mixtures and natural parameters: their forms and shapes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiv._inputs.arrays import array, described, for_a_batch, in_working_precision


def law(who: str, name: str, x: Any, forms: tuple[type, ...]) -> Any:
    """A law of one of several forms, its fields floating-point arrays."""
    if not isinstance(x, forms):
        known = ", ".join(form.__name__ for form in forms)
        got = described(name, x) if isinstance(x, jax.Array) else f"{name} of type {type(x).__name__}"
        raise TypeError(f"{who} takes a law as {known}; got {got}. Construct one of them.")
    return type(x)(*(array(who, f"{name}.{field}", value) for field, value in zip(x._fields, x, strict=True)))


def _fields(**laws):
    return {f"{name}.{field}": x for name, law in laws.items() for field, x in zip(law._fields, law, strict=True)}


def components(who: str, forms: tuple[type, ...], **laws: Any) -> tuple[dict[str, Any], jnp.dtype]:
    """Laws of independent components, fields `[]` or `[d]`, as `[d]` in the working precision, and a result's dtype."""
    laws = {name: law(who, name, x, forms) for name, x in laws.items()}
    fields = _fields(**laws)
    shapes = {np.broadcast_shapes(*(np.shape(x) for x in law)) for law in laws.values() if _broadcast(law)}
    if any(x.ndim > 1 for x in fields.values()) or len(shapes) != 1 or not all(map(_broadcast, laws.values())):
        got = " and ".join(described(name, x) for name, x in fields.items())
        raise ValueError(
            f"{who} takes laws of equal length, each field [] or [d]; got {got}. " + for_a_batch(who, laws)
        )
    (shape,) = shapes
    if 0 in shape:
        raise ValueError(f"{who} takes laws of at least one component; got d = 0. Leave empty laws out.")
    wide, dtype = in_working_precision(laws)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape or (1,)), wide), dtype


def _broadcast(law):
    lengths = {x.shape[-1] for x in law if x.ndim} - {1}
    return len(lengths) <= 1


def one_component(who: str, x: jax.Array) -> None:
    """Raises unless `x` `[d]` has d = 1."""
    if x.shape[-1] != 1:
        raise ValueError(
            f"{who} takes laws of one component; got d = {x.shape[-1]}. For a batch, use jax.vmap({who}) or "
            "jaxdiv.pairwise."
        )


def matrix_laws(who: str, forms: tuple[type, ...], **laws: Any) -> tuple[dict[str, Any], jnp.dtype]:
    """Laws of dimension d: `[d]`, a matrix, and more, in the working precision, and the dtype of a result."""
    laws = {name: law(who, name, x, forms) for name, x in laws.items()}
    dimensions = {x[0].shape for x in laws.values()}
    if len(dimensions) != 1 or not all(map(_is_matrix_law, laws.values())):
        got = " and ".join(described(name, x) for name, x in _fields(**laws).items())
        raise ValueError(
            f"{who} takes laws of equal dimension d >= 1, loc [d] and a square matrix [d, d], or factor [d, r] and "
            f"diag [d]; got {got}. " + for_a_batch(who, laws)
        )
    return in_working_precision(laws)


def _is_matrix_law(law):
    loc, matrix, *diag = (x.shape for x in law)
    if len(loc) != 1 or loc == (0,) or len(matrix) != 2 or matrix[0] != loc[0]:
        return False
    return diag == [loc] if diag else matrix[1] == loc[0]


def parameters(who: str, p: Any, q: Any) -> tuple[Any, Any, jnp.dtype]:
    """Two structures of arrays of equal shapes, in the working precision, and the dtype of a result."""
    (p_leaves, p_structure), (q_leaves, q_structure) = jax.tree.flatten(p), jax.tree.flatten(q)
    p_leaves, q_leaves = ([array(who, name, x) for x in xs] for name, xs in (("p", p_leaves), ("q", q_leaves)))
    if p_structure != q_structure or not p_leaves or [x.shape for x in p_leaves] != [x.shape for x in q_leaves]:
        got = [", ".join(described(name, x) for x in xs) for name, xs in (("p", p_leaves), ("q", q_leaves))]
        raise ValueError(
            f"{who} compares natural parameters of one structure and equal shapes; got {got[0]} and {got[1]}. For a "
            f"batch, use jax.vmap over functools.partial({who}, log_normalizer)."
        )
    (p, q), dtype = in_working_precision([jax.tree.unflatten(p_structure, xs) for xs in (p_leaves, q_leaves)])
    return p, q, dtype


def log_normalizer(who: str, log_normalizer: Callable[[Any], Any], parameters: Any) -> None:
    """Raises unless the log-normaliser of such parameters is a real number `[]`."""
    found = jax.eval_shape(log_normalizer, parameters)
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(
            f"{who} takes a log-normaliser with a real result []; got {found}. Sum over independent components."
        )


def mixtures(
    who: str, form: type, families: tuple[tuple[type, ...], ...], **mixtures: Any
) -> tuple[dict[str, Any], jnp.dtype]:
    """Mixtures of laws of one of two families, of independent components and not, and the dtype of a result."""
    found = {name: _mixture(who, name, x, form, families) for name, x in mixtures.items()}
    dimensions = {x.components[0].shape[1:] or (1,) for x in found.values()}
    if len(dimensions) != 1 or not all(_is_mixture(x, families[0]) for x in found.values()):
        got = " and ".join(
            ", ".join(
                [
                    described(f"{name}.logits", x.logits),
                    *(f"{field}{list(y.shape)}" for field, y in zip(x.components._fields, x.components, strict=True)),
                ]
            )
            for name, x in found.items()
        )
        raise ValueError(
            f"{who} takes mixtures of equal dimension d >= 1 with logits [n] and n components stacked along a first "
            f"axis: loc [n] or [n, d] with a scale of that shape, or loc [n, d] with a matrix [n, d, d], or factor "
            f"[n, d, r] and diag [n, d]; got {got}. For a batch, use jax.vmap({who})."
        )
    return in_working_precision(found)


def _mixture(who, name, x, form, families):
    if not isinstance(x, form):
        raise TypeError(f"{who} takes a mixture as {form.__name__}; got {name} of type {type(x).__name__}.")
    components = law(who, f"{name}.components", x.components, sum(families, ()))
    return form(array(who, f"{name}.logits", x.logits), components)


def _is_mixture(mixture, independent):
    logits, components = mixture
    n, loc = logits.shape, components[0].shape
    if len(n) != 1 or n == (0,) or loc[:1] != n or 0 in loc:
        return False
    if isinstance(components, independent):
        return len(loc) <= 2 and components[1].shape == loc
    matrix, *diag = (x.shape for x in components[1:])
    if len(loc) != 2 or len(matrix) != 3 or matrix[:2] != loc:
        return False
    return diag == [loc] if diag else matrix[2] == loc[1]


def kronecker_laws(who: str, forms: tuple[type, ...], **laws: Any) -> tuple[dict[str, Any], jnp.dtype]:
    """Laws of matrices: `[n, m]`, `[n, n]` and `[m, m]`, in the working precision, and the dtype of a result."""
    laws = {name: law(who, name, x, forms) for name, x in laws.items()}
    shapes = {x[0].shape for x in laws.values()}
    if len(shapes) != 1 or not all(map(_is_kronecker_law, laws.values())):
        got = " and ".join(described(name, x) for name, x in _fields(**laws).items())
        raise ValueError(
            f"{who} takes laws of equal shape, loc [n, m] with square matrices [n, n] and [m, m]; got {got}. "
            + for_a_batch(who, laws)
        )
    return in_working_precision(laws)


def _is_kronecker_law(law):
    loc, rows, columns = (x.shape for x in law)
    return len(loc) == 2 and 0 not in loc and rows == (loc[0], loc[0]) and columns == (loc[1], loc[1])

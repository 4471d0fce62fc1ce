"""Checks of normal laws, mixtures and natural parameters: their forms and shapes."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiv._inputs.arrays import array, described, for_a_batch, in_working_precision, same_shape
from jaxdiv._inputs.batches import raise_for_rows

# A field in the text of a form: letters of its axes, and whether it may have fewer and broadcast.
_FIELD = re.compile(r"\w+ \[([\w, ]*)\]( or \[\])?")

Shapes = Mapping[type, str]


def law(who: str, name: str, x: Any, forms: Shapes) -> Any:
    """A law of one of several forms, with its fields as floating-point arrays."""
    if not isinstance(x, tuple(forms)):
        if isinstance(x, list | tuple) and x and all(isinstance(y, tuple(forms)) for y in x):
            raise TypeError(
                f"{who} takes one law; got {name}, a {type(x).__name__} of {len(x)} laws. Stack them with "
                f"jaxdiv.gaussian.stack({name}) and use jax.vmap({who})."
            )
        known = ", ".join(form.__name__ for form in forms)
        got = described(name, x) if isinstance(x, jax.Array) else f"{name} of type {type(x).__name__}"
        raise TypeError(f"{who} takes a law as {known}; got {got}. Construct one of them.")
    return type(x)(*(array(who, f"{name}.{field}", value) for field, value in zip(x._fields, x, strict=True)))


def _got(**laws):
    return " and ".join(
        described(f"{name}.{field}", x) for name, law in laws.items() for field, x in zip(law._fields, law, strict=True)
    )


def _fields(shapes: str) -> list[tuple[list[str], bool]]:
    """For each field in the text of a form: the letters of its axes, and whether it broadcasts."""
    return [(re.findall(r"\w+", letters), bool(broadcasts)) for letters, broadcasts in _FIELD.findall(shapes)]


def _size(shapes: str, found: Iterable[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape of the mean, from the shapes of all fields; None if they do not fit the form."""
    sizes: dict[str, int] = {}
    for (letters, broadcasts), shape in zip(_fields(shapes), found, strict=True):
        if broadcasts and shape in ((), (1,)):
            continue
        if len(letters) != len(shape) or any(sizes.setdefault(x, n) != n for x, n in zip(letters, shape, strict=True)):
            return None
    return tuple(sizes.get(letter, 1) for letter in _fields(shapes)[0][0])


def normal_laws(who: str, forms: Shapes, **laws: Any) -> tuple[list[Any], jnp.dtype]:
    """Laws of equal dimension and any forms, in the working precision; and the dtype of a result."""
    laws = {name: law(who, name, x, forms) for name, x in laws.items()}
    sizes = [_size(forms[type(x)], (y.shape for y in x)) for x in laws.values()]
    # Matrices have as many components as entries: two of them must also agree in shape.
    dimensions = {None if size is None else math.prod(size) for size in sizes}
    of_matrices = {size for size in sizes if size is not None and len(size) > 1}
    if len(dimensions) != 1 or dimensions & {None, 0} or len(of_matrices) > 1:
        expected = " and ".join(dict.fromkeys(f"{type(x).__name__}({forms[type(x)]})" for x in laws.values()))
        raise ValueError(
            f"{who} takes laws of equal dimension d >= 1, {expected}; got {_got(**laws)}. "
            + (_of_equal_components(laws, dimensions) or for_a_batch(who, laws))
        )
    found, dtype = in_working_precision(laws)
    return list(found.values()), dtype


def _of_equal_components(laws, dimensions):
    """The remedy if a law of one component is meant to be compared with each component of another."""
    if len(laws) != 2 or None in dimensions or 1 not in dimensions or len(dimensions) != 2:
        return ""
    d = max(dimensions)
    return (
        f"As many equal components have loc=jax.numpy.full({d}, loc); a standard normal law for p is "
        "jaxdiv.gaussian.standard(p)."
    )


def shape_of_sample(who: str, shape: Any) -> tuple[int, ...]:
    """The shape of an array of draws, from it or from their number."""
    given = shape if isinstance(shape, tuple | list) else (shape,)
    if any(not isinstance(n, int | np.integer) or n < 0 for n in given):
        raise ValueError(
            f"{who} takes shape as a number of draws or a tuple of such; got {shape}. Pass integers of at least 0."
        )
    return tuple(map(int, given))


def point(who: str, x: Any, law: Any, forms: Shapes) -> jax.Array:
    """A point in the shape of a law's draws."""
    x, shape = array(who, "x", x), shape_of_draws(law, forms)
    if x.shape != shape:
        raise ValueError(
            f"{who} takes one point of the shape of the law, {list(shape)}; got {described('x', x)} and "
            f"{_got(law=law)}. For several points, use jax.vmap({who}, (None, 0))."
        )
    return x


def shape_of_draws(law: Any, forms: Shapes) -> Any:
    """The shape of a draw: that of the mean, with scales broadcast against it."""
    if all(broadcasts for _, broadcasts in _fields(forms[type(law)])):
        return jnp.broadcast_shapes(*(x.shape for x in law))
    return law[0].shape


def stackable(who: str, laws: Any, forms: Shapes) -> list[Any]:
    """A list of laws, each of any form."""
    if not isinstance(laws, list | tuple) or isinstance(laws, tuple(forms)) or not laws:
        got = f"{type(laws).__name__}{' of none' * (not laws)}"
        raise TypeError(f"{who} takes a list of laws; got {got}. Pass one or more laws in a list.")
    return [law(who, f"laws[{i}]", x, forms) for i, x in enumerate(laws)]


def of_equal_shapes(who: str, laws: list[Any]) -> None:
    """Raises unless the fields of laws of one form have equal shapes."""
    for fields in zip(*(x._asdict().items() for x in laws), strict=True):
        arrays = {f"laws[{i}].{name}": x for i, (name, x) in enumerate(fields)}
        same_shape(who, arrays, "Stack laws of one dimension.")


def one_component(who: str, x: jax.Array) -> None:
    """Raises unless `x` `[d]` has d = 1."""
    if x.shape[-1] != 1:
        raise ValueError(
            f"{who} takes laws of one component; got d = {x.shape[-1]}. For a batch, use jax.vmap({who}) or "
            "jaxdiv.pairwise."
        )


def independent_components(who: str, independent: bool, forms: Iterable[type], *laws: Any) -> None:
    """Raises unless laws have independent components."""
    if not independent:
        known, got = " or ".join(form.__name__ for form in forms), " and ".join(type(law).__name__ for law in laws)
        raise TypeError(
            f"{who} takes laws of independent components, as {known}; got {got}. There is no closed form for others."
        )


def known_form(who: str, form: Any, forms: Iterable[type]) -> None:
    """Raises unless `form` is a form of laws."""
    if not any(form is known for known in forms):
        known = ", ".join(form.__name__ for form in forms)
        raise TypeError(f"{who} takes a form as one of {known}; got {form!r}. Pass the class, not a law.")


def convertible(who: str, x: Any, form: type, possible: Iterable[type]) -> None:
    """Raises unless the law x can be converted to `form`."""
    possible = list(possible)
    if form not in possible:
        raise TypeError(
            f"{who} makes no {form.__name__} of a law that need not be one; got {type(x).__name__}, which becomes "
            f"{', '.join(other.__name__ for other in possible)}. Construct a {form.__name__} of what you mean to keep."
        )


def raise_for_laws(who: str, rows: np.ndarray, faults: Mapping[str, np.ndarray]) -> None:
    """Raises a ValueError that names the laws with `nan`, an infinite entry, or a fault of their form."""
    nan, infinite = np.isnan(rows).any(-1), np.isinf(rows).any(-1)
    raise_for_rows(
        who,
        rows,
        {"nan": lambda _: nan, "an infinite entry": lambda _: infinite}
        | {fault: lambda _, found=found: found for fault, found in faults.items()},
    )


def rows_of_laws(who: str, x: Any, forms: Shapes, axis: int) -> tuple[Any, np.ndarray]:
    """A batch of laws on the host, in float64, with components on the last axis; and the entries of each `[..., n]`."""
    fields = [np.asarray(y, np.float64) for y in x]
    axes = [(len(letters), broadcasts) for letters, broadcasts in _fields(forms[type(x)])]
    if all(broadcasts for _, broadcasts in axes):
        _broadcast_together(who, x, forms)
        fields = [np.moveaxis(y, axis, -1) for y in np.broadcast_arrays(*map(np.atleast_1d, fields))]
    elif axis != -1:
        raise ValueError(f"{who} takes axis=-1 for {type(x).__name__}; got axis={axis}. Move the axis to the end.")
    shapes = {y.shape[: y.ndim - rank] for y, (rank, _) in zip(fields, axes, strict=True)}
    short = any(y.ndim < rank for y, (rank, _) in zip(fields, axes, strict=True))
    own = [y.shape[y.ndim - rank :] for y, (rank, _) in zip(fields, axes, strict=True)]
    if len(shapes) != 1 or short or _size(forms[type(x)], own) is None:
        raise ValueError(
            f"{who} takes laws as {forms[type(x)]}, with equal leading axes; got {_got(p=x)}. Broadcast the fields."
        )
    (batch,) = shapes
    return type(x)(*fields), np.concatenate([y.reshape(*batch, -1) for y in fields], -1)


def _broadcast_together(who, x, forms):
    """Raises unless the fields of independent components broadcast."""
    try:
        np.broadcast_shapes(*(np.shape(y) for y in x))
    except ValueError as error:
        raise ValueError(
            f"{who} takes laws as {forms[type(x)]}, whose fields broadcast; got {_got(p=x)}. Pass as many of each."
        ) from error


def parameters(who: str, p: Any, q: Any) -> tuple[Any, Any, jnp.dtype]:
    """Two trees of arrays with equal shapes, in the working precision; and the dtype of a result."""
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


def laws_of_member(who: str, member: str, names: tuple[str, ...], **laws: Any) -> tuple[list[Any], jnp.dtype]:
    """The parameters of laws of a named family, tuples of `[d]` in the working precision, and the dtype of a result.

    A concentration without another parameter has an axis.
    """
    found = {name: _parameters_of_member(who, member, names, name, x) for name, x in laws.items()}
    least = int(names == ("concentration",))
    shapes = {_shape_together(x) for x in found.values()}
    shape = shapes.pop()
    if shapes or shape is None or not least <= len(shape) <= 1 or 0 in shape:
        axes = "[k]" if least else "[] or [d]"
        got = [_described_parameters(names, name, x) for name, x in found.items()]
        raise ValueError(
            f"{who} takes {' and '.join(names)} {axes} of {member} laws, of one shape; got {' and '.join(got)}. For a "
            f"batch, use jax.vmap over functools.partial({who}, exponential_family.{member})."
        )
    work, dtype = in_working_precision(list(found.values()))
    return [tuple(jnp.atleast_1d(jnp.broadcast_to(y, shape)) for y in x) for x in work], dtype


def _described_parameters(names, law, x):
    return ", ".join(described(law if len(names) == 1 else f"{law}.{n}", y) for n, y in zip(names, x, strict=True))


def _shape_together(arrays):
    try:
        return jnp.broadcast_shapes(*(x.shape for x in arrays))
    except ValueError:
        return None


def _parameters_of_member(who, member, names, law, x):
    if len(names) == 1:
        return [array(who, law, x)]
    if not isinstance(x, list | tuple) or len(x) != len(names):
        got = f"{law} as {len(x)} of them" if isinstance(x, list | tuple) else f"{law} as a {type(x).__name__}"
        got = described(law, x) if isinstance(x, jax.Array) else got
        raise TypeError(
            f"{who} takes a law of {member} as a pair ({', '.join(names)}); got {got}. Pass {law}=({', '.join(names)})."
        )
    return [array(who, f"{law}.{name}", y) for name, y in zip(names, x, strict=True)]


def log_normalizer(who: str, log_normalizer: Callable[[Any], Any], parameters: Any) -> None:
    """Raises unless the log-normaliser is a function, and one real number `[]` of these parameters."""
    if not callable(log_normalizer):
        raise TypeError(
            f"{who} takes a log-normaliser as a function of natural parameters; got {log_normalizer!r}. Pass a named "
            "family, such as exponential_family.poisson, or a function of your own."
        )
    found = jax.eval_shape(log_normalizer, parameters)
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(
            f"{who} takes a log-normaliser with a real result []; got {found}. Sum over independent components."
        )


def analytic(who: str, log_normalizer: Callable[[Any], Any], parameters: Any) -> None:
    """Raises if the log-normaliser does not take complex parameters."""
    numbers = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.result_type(x.dtype, np.complex64)), parameters)
    try:
        jax.eval_shape(log_normalizer, numbers)
    except (TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise TypeError(
            f"{who} takes a log-normaliser of complex parameters, made of exp, log, jax.nn.logsumexp and arithmetic; "
            f"got one that takes real ones only: {reason} Pass a named family where there is one, as "
            "exponential_family.gamma, beta or dirichlet; write the special functions for complex numbers too; or use "
            "exponential_family.squared_hellinger or bhattacharyya, which are real throughout."
        ) from error


def mixtures(who: str, form: type, forms: Shapes, **mixtures: Any) -> tuple[dict[str, Any], jnp.dtype]:
    """Mixtures of normal laws of equal dimension, and the dtype of a result."""
    found = {name: mixture(who, name, x, form, forms) for name, x in mixtures.items()}
    dimensions = {_dimension_of_mixture(x, forms) for x in found.values()}
    if len(dimensions) != 1 or dimensions & {None, 0}:
        got = " and ".join(
            ", ".join(
                [
                    described(f"{name}.logits", x.logits),
                    *(f"{field}{list(y.shape)}" for field, y in zip(x.components._fields, x.components, strict=True)),
                ]
            )
            for name, x in found.items()
        )
        components = " and ".join(dict.fromkeys(forms[type(x.components)] for x in found.values()))
        raise ValueError(
            f"{who} takes mixtures of equal dimension d >= 1 with logits [n] and n components, {components}, stacked "
            f"along a first axis of every field; got {got}. For a batch, use jax.vmap({who})."
        )
    return in_working_precision(found)


def mixture(who: str, name: str, x: Any, form: type, forms: Shapes) -> Any:
    """A mixture, with its logits and the fields of its components as floating-point arrays."""
    if not isinstance(x, form):
        raise TypeError(f"{who} takes a mixture as {form.__name__}; got {name} of type {type(x).__name__}.")
    return form(array(who, f"{name}.logits", x.logits), law(who, f"{name}.components", x.components, forms))


def _dimension_of_mixture(mixture, forms):
    """The dimension, or None if the shapes are not those of a mixture."""
    logits, components = mixture
    if logits.ndim != 1 or logits.size == 0 or any(x.shape[:1] != logits.shape for x in components):
        return None
    size = _size(forms[type(components)], (x.shape[1:] for x in components))
    return None if size is None else math.prod(size)


def few_dimensions(who: str, d: int) -> None:
    """Raises if there are too many dimensions for a quadrature."""
    if d > 2:
        raise ValueError(
            f"{who} takes a key for mixtures of dimension d > 2; got d = {d} and no key. "
            "Pass key=jax.random.key(0), or any other seed."
        )

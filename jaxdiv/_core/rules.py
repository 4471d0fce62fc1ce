"""`custom_jvp`: a function with its own derivative, which holds to any order inside loops too.

Partial evaluation inside `lax.scan` and `lax.map` replaces a call of a `jax.custom_jvp` function by its body, and takes
further derivatives of that: a Hessian through a loop would lose the digits and the finite values that a rule stands
for, or fail. The rule of a primitive stays, so a function with a rule is a call of a primitive here. A second one is
for functions that take the axes of `jax.vmap` themselves (`with_axes`).
"""

import contextlib
import contextvars
import functools
import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType

KEPT = 64  # functions of one rule, of other arguments or under another vmap, of which traces are kept

R = TypeVar("R")
Flat = Sequence[Any]


class custom_jvp(Generic[R]):
    """`jax.custom_jvp`, except that a rule with `symbolic_zeros` gets None for a zero tangent, and may return it.

    The function must not close over an array that is traced: it is traced again with other arguments. The structure of
    its results depends on those of its arguments and on the arguments `nondiff_argnums`, and on nothing else.
    """

    def __init__(self, function: Callable[..., R], nondiff_argnums: tuple[int, ...] = ()):
        functools.update_wrapper(self, function)
        self._function, self._fixed, self._signature = function, nondiff_argnums, inspect.signature(function)
        self.kept = functools.lru_cache(KEPT, typed=True)(self._call)
        _ALL.add(self)

    def defjvp(self, rule: Callable[..., Any], symbolic_zeros: bool = False) -> Callable[..., Any]:
        """Sets the rule, a function of the arguments `nondiff_argnums`, the other ones, and their tangents."""
        self._rule, self._symbolic = rule, symbolic_zeros
        return rule

    def defjvps(self, *rules: Callable[..., Any] | None) -> None:
        """Sets the rule by one function for each array, of its tangent, the value and all arrays."""

        def rule(primals, tangents):
            value: Any = self(*primals)
            given = [(d, f) for d, f in zip(tangents, rules, strict=True) if d is not None and f is not None]
            return value, sum((f(d, value, *primals) for d, f in given), jnp.zeros_like(value))

        self.defjvp(rule, symbolic_zeros=True)

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        if _INLINED.get():
            return self._function(*args, **kwargs)
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        fixed = [bound.args[i] for i in self._fixed]
        moving = [x for i, x in enumerate(bound.args) if i not in self._fixed]
        leaves, structure = jax.tree.flatten(moving)
        # A function of the caller may close over traced arrays: nothing is kept of it.
        make = self._call if any(map(callable, fixed)) else self.kept
        call = make(structure, *fixed)
        out = _ruled.bind(*leaves, call=call)
        return call.results.unflatten(out)

    def _call(self, structure, *fixed):
        """The function of the leaves of its arguments."""

        def run(*leaves):
            arguments = structure.unflatten(leaves)
            for i, x in zip(self._fixed, fixed, strict=True):
                arguments.insert(i, x)
            leaves, call.results = jax.tree.flatten(self._function(*arguments))
            return leaves

        def rule(primals, tangents):
            if not self._symbolic:
                tangents = [_zeros_like(x) if d is None else d for x, d in zip(primals, tangents, strict=True)]
            value, tangent = self._rule(*fixed, *(tuple(structure.unflatten(x)) for x in (primals, tangents)))
            leaves, call.results = jax.tree.flatten(value)
            return leaves, call.results.flatten_up_to(tangent)

        call = _Call(run, rule)
        return call


_INLINED = contextvars.ContextVar("inlined", default=False)


@contextlib.contextmanager
def inlined() -> Iterator[None]:
    """Functions with a rule are traced as what they compute: a kernel has no derivatives, and knows no primitive."""
    before = _INLINED.set(True)
    try:
        yield
    finally:
        _INLINED.reset(before)


_ALL: weakref.WeakSet[custom_jvp[Any]] = weakref.WeakSet()


def forget() -> None:
    """Drops all traces that are kept: they have the numbers of `tuning` at their time."""
    for function in _ALL:
        function.kept.cache_clear()


def jvp(f: Callable[..., R], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[R, R]:
    """`jax.jvp`, where a tangent of None is 0."""
    moving = [i for i, d in enumerate(tangents) if d is not None]

    def of_moving(*xs):
        return f(*(xs[moving.index(i)] if i in moving else x for i, x in enumerate(primals)))

    return jax.jvp(of_moving, [primals[i] for i in moving], [tangents[i] for i in moving])


def with_axes(f: Callable[..., R], *arrays: jax.Array | None) -> R:
    """`f(*arrays)`, where f gets all the leading axes that `vmap` adds, of length 1 where there are none.

    It is not differentiable: it belongs inside of a rule.
    """
    leaves, structure = jax.tree.flatten(arrays)

    def run(*leaves):
        leaves, call.results = jax.tree.flatten(f(*structure.unflatten(leaves)))
        return leaves

    call = _Call(run)
    out = _leading.bind(*leaves, call=call)
    return call.results.unflatten(out)


def by_platform(*arrays: jax.Array | None, default: Callable[..., R], **functions: Callable[..., R]) -> R:
    """`lax.platform_dependent`, except that only what runs is traced.

    It is not differentiated, and the functions do not close over traced arrays: it belongs inside of `with_axes`.
    """
    leaves, structure = jax.tree.flatten(arrays)

    def of_leaves(f):
        def run(*leaves):
            leaves, call.results = jax.tree.flatten(f(*structure.unflatten(leaves)))
            return leaves

        call = _Call(run)
        return call

    calls = tuple((name, of_leaves(f)) for name, f in {**functions, "default": default}.items())
    out = _chosen.bind(*leaves, calls=calls)
    return at_hand(calls).results.unflatten(out)


def at_hand(calls: Sequence[tuple[str, "_Call"]], platform: str | None = None) -> "_Call":
    """The call for a platform, or for that of the process: results of all of them have the same types."""
    platform = platform or jax.default_backend()
    return dict(calls).get("cuda" if platform == "gpu" else platform, dict(calls)["default"])


def _zeros_like(x):
    dtype = jnp.result_type(x)
    return jnp.zeros_like(x) if jnp.issubdtype(dtype, jnp.inexact) else np.zeros(jnp.shape(x), jax.dtypes.float0)


# ---------------------------------------------------------------- the primitives


class _Call:
    """A function of flat arguments, and the structure of its results once it has run.

    The rule takes values and tangents of arguments to those of results; None is a tangent of 0. A function that is not
    differentiable has none.
    """

    results: Any

    def __init__(self, run: Callable[..., Flat], rule: Any = None, batched: bool = False):
        self.run, self.rule, self._batched = run, rule, batched
        # One object for one function and one way of vmap, so that JAX traces it once for arguments of one type.
        self._jitted, self.vmapped = jax.jit(run), functools.lru_cache(KEPT)(self._vmapped)

    def traced(self, *avals: Any) -> Any:
        """The function for arguments of these types."""
        meshes = [x.sharding.mesh for x in avals if AxisType.Explicit in x.sharding.mesh.axis_types]
        # For `vmap` newer versions of jax look for a mesh of explicit axes around the trace, not in the types.
        with jax.sharding.use_abstract_mesh(meshes[0]) if self._batched and meshes else contextlib.nullcontext():
            return self._jitted.trace(*avals).jaxpr

    def _vmapped(self, axes: tuple[int | None, ...], size: Any, name: Any, spmd_name: Any) -> "_Call":
        over = functools.partial(jax.vmap, axis_size=size, axis_name=name, spmd_axis_name=spmd_name)

        def rule(primals, tangents):
            of_tangents = [None if d is None else a for d, a in zip(tangents, axes, strict=True)]
            return over(self.rule, in_axes=(list(axes), of_tangents))(list(primals), list(tangents))

        return _Call(over(self.run, in_axes=axes), rule, batched=True)


def _types(*avals, call):
    return call.traced(*avals).out_avals


def _lowered(*args, call):
    return jaxpr_as_fun(call.traced(*map(jax.typeof, args)))(*args)


def _primitive(name, batched):
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(lambda *args, call: call.run(*args))
    primitive.def_abstract_eval(_types)
    batching.fancy_primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, mlir.lower_fun(_lowered))
    return primitive


def _vmapped(axis, args, axes, *, call):
    """The function and its rule under `vmap`. A tangent has the axis that its argument has."""
    if all(a is None for a in axes):
        return (out := _ruled.bind(*args, call=call)), [None] * len(out)
    out = _ruled.bind(*args, call=call.vmapped(tuple(axes), axis.size, axis.name, axis.spmd_name))
    return out, [0] * len(out)


def _axes_first(axis, args, axes, *, call):
    """The same function; arguments without the axis get one of length 1, and so do results that do not depend on it."""
    args = [x[None] if a is None else jnp.moveaxis(x, a, 0) for x, a in zip(args, axes, strict=True)]
    out = _leading.bind(*args, call=call)
    varies = [x.shape[0] == axis.size for x in out]
    return [x if v else x[0] for x, v in zip(out, varies, strict=True)], [0 if v else None for v in varies]


def _differentiated(primals, tangents, *, call):
    out, moved = call.rule(primals, [None if isinstance(d, ad.Zero) else d for d in tangents])
    zeros = (ad.Zero(jax.typeof(x).to_tangent_aval()) for x in out)
    return out, [zero if d is None else d for d, zero in zip(moved, zeros, strict=True)]


_ruled = _primitive("jaxdiv_ruled", _vmapped)
ad.primitive_jvps[_ruled] = _differentiated
_leading = _primitive("jaxdiv_leading", _axes_first)


def _lowered_by_platform(context, *args, calls):
    platforms = context.platforms or context.module_context.platforms
    if len(platforms) == 1:
        chosen = functools.partial(_lowered, call=at_hand(calls, platforms[0]))
    else:
        # JAX would lower a kernel for all of these platforms.
        functions = {name: call.run for name, call in calls if name in ("cpu", "default")}
        chosen = functools.partial(lax.platform_dependent, **functions)
    return mlir.lower_fun(chosen)(context, *args)


_chosen = Primitive("jaxdiv_chosen")
_chosen.multiple_results = True
_chosen.def_impl(lambda *args, calls: jax.jit(functools.partial(_chosen.bind, calls=calls))(*args))
_chosen.def_abstract_eval(lambda *avals, calls: _types(*avals, call=at_hand(calls)))
mlir.register_lowering(_chosen, _lowered_by_platform)

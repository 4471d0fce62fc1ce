"""One program for all calls with the same function: how public functions compile a function of their caller.

`jax.jit` knows a function by its identity, but a caller's function, such as a lambda, is a new object in each call.
Here two functions are the same if they have the same code and if it reads the same values: numbers, strings, functions
and modules. Lambdas in a loop are the same in this sense, and so are partials of one function with equal arguments.
Arrays in a partial become arguments of the program.

A function can also read an array, or another object that may change without notice. If such a function belongs to an
imported module, as those of the families do, it is the same only as itself. Otherwise it is like no other function: it
runs without a stored program, and what it needs is compiled in each call. So no program is out of date, and no array is
kept alive.
"""

import dataclasses
import functools
import sys
import types
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiv._core import tuning

_JIT = type(jax.jit(lambda: None))


def compiled(
    body: Callable[..., Any], function: Any, *, always: bool = False, donate: tuple[int, ...] = (), **static: Hashable
) -> Callable[..., Any]:
    """`body(function, *arrays, **static)` for trees of arrays, compiled once for all functions that are the same.

    `function` may be a tree of functions; `body` is a function of a module. `donate` gives the numbers of the arrays
    whose memory the result may reuse. With `always`, a function that is like no other is compiled too: use this if you
    call the result in a loop.
    """
    leaves, structure = jax.tree.flatten(_opened(function))
    parts = tuple(_ARRAY if _is_array(x) else _Part(_key(x), x) for x in leaves)
    known = all(key is not None for key in (*(part.key for part in parts), _key(tuple(static.values()))))
    if not known and not always:
        return functools.partial(body, function, **static)
    program = (_program if known else _program.__wrapped__)(body, tuple(static.items()), structure, parts, donate)
    return functools.partial(program, [x for x in leaves if _is_array(x)])


@functools.lru_cache(maxsize=tuning.PROGRAMS)
def _program(body, static, structure, parts, donate):
    def run(arrays_within, *arrays):
        found = iter(arrays_within)
        leaves = [next(found) if part is _ARRAY else part.value for part in parts]
        return body(_closed(jax.tree.unflatten(structure, leaves)), *arrays, **dict(static))

    run.__name__ = body.__name__
    return jax.jit(run, donate_argnums=tuple(i + 1 for i in donate))


# ---------------------------------------------------------------- trees of functions


class _Opened(NamedTuple):
    """A partial as a tree."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


def _opened(tree):
    def of(x):
        return _Opened(*map(_opened, (x.func, x.args, x.keywords))) if isinstance(x, functools.partial) else x

    return jax.tree.map(of, tree, is_leaf=lambda x: isinstance(x, functools.partial))


def _closed(tree):
    def of(x):
        if not isinstance(x, _Opened):
            return x
        function, arguments, keywords = map(_closed, x)
        return functools.partial(function, *arguments, **keywords)

    return jax.tree.map(of, tree, is_leaf=lambda x: isinstance(x, _Opened))


def _is_array(x):
    return isinstance(x, jax.Array) or (isinstance(x, np.ndarray) and x.dtype.kind in "biufcV")


@dataclasses.dataclass(frozen=True)
class _Part:
    """A static part of a program; two parts are equal if their keys are."""

    key: Hashable
    value: Any = dataclasses.field(compare=False)


_ARRAY = _Part("an argument of the program", None)
_UNKNOWN = object()

# ---------------------------------------------------------------- what is the same

_FUNCTIONS = types.FunctionType | types.BuiltinFunctionType | _JIT | jax.custom_jvp | jax.custom_vjp
_CONSTANTS = bool | int | float | complex | str | bytes | types.NoneType | np.dtype | np.generic


def _key(x: Any, around: tuple[Any, ...] = ()) -> Hashable | None:
    """A key, equal for two objects only if a program made with one is right for the other; None if unknown."""
    if isinstance(x, _CONSTANTS):
        return type(x), repr(x)  # 1, 1.0 and True are equal, and so are 0.0 and -0.0
    if isinstance(x, tuple):
        return _keys(x, around, type(x))
    if isinstance(x, type | types.ModuleType | np.ufunc) or any(x is y for y in around):
        return x
    if not isinstance(x, _FUNCTIONS):
        return None
    named = _has_its_name(x)
    return x if named and _is_foreign(x, around) else _key_of_function(x, around) or (x if named else None)


def _key_of_function(x, around):
    if not isinstance(x, types.FunctionType):
        return _keys((getattr(x, "__wrapped__", _UNKNOWN),), around, x)
    given = (*(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).items())
    return _keys((*given, *_read(x)), (*around, x), x.__code__)


def _keys(xs, around, *first):
    found = (*first, *(_key(x, around) for x in xs))
    return None if any(key is None for key in found) else found


def _has_its_name(x):
    """Whether a function is found by its name in an imported module, where nobody redefines it."""
    module, name = getattr(x, "__module__", None) or "", getattr(x, "__qualname__", None) or ""
    return isinstance(x, _FUNCTIONS) and module != "__main__" and getattr(sys.modules.get(module), name, None) is x


def _is_foreign(x, around):
    """Whether a function belongs to jax, to this library, or to another module than the function that reads it."""
    own = around[0].__module__ if around else x.__module__
    return x.__module__ != own or own.split(".")[0] in ("jax", "jaxdiv")


def _read(function: types.FunctionType) -> Iterator[Any]:
    """The values that a Python function reads: variables of the enclosing functions and of its module."""
    yield from map(_content, function.__closure__ or ())
    if not (function.__module__ or "").startswith("jaxdiv."):
        names = dict.fromkeys(_names(function.__code__))
        values = [function.__globals__[name] for name in names if name in function.__globals__]
        yield from values
        within = [vars(x) for x in values if isinstance(x, type | types.ModuleType)]
        yield from (x[name] for x in within for name in names if name in x)


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _UNKNOWN


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)

"""One program for all calls with the same function: how public functions compile a function of their caller.

`jax.jit` knows a function by its identity, but a caller's function, such as a lambda, is a new object in each call.
Here two functions are the same if they have the same code and if it reads the same values: numbers, strings, functions,
classes and modules, and attributes of these three. Lambdas in a loop are the same in this sense, and so are partials of
one function with equal arguments. Arrays in a partial become arguments of the program.

A function can also read an array, or another object that may change without notice, or look values up by `import` or
`getattr`. If such a function belongs to an imported module, as those of the families do, it is the same only as itself,
as under `jax.jit`. Otherwise it is like no other function: it runs without a stored program, and what it needs is
compiled in each call. So no program of a function of the caller is out of date, and no array is kept alive.
"""

import dataclasses
import dis
import functools
import inspect
import itertools
import operator
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
_FIELDS = types.MemberDescriptorType | types.GetSetDescriptorType | type(_Opened.function)
_SAME_AS_ITSELF = types.ModuleType | type | np.ufunc | _FIELDS
_WITH_ATTRIBUTES = types.ModuleType | types.FunctionType | _JIT | jax.custom_jvp | jax.custom_vjp
_LIBRARIES = {"builtins", "jax", "jaxdiv", "jaxlib", "numpy"}
_LOOKUPS = {"__dict__", "__import__", "attrgetter", "eval", "exec", "getattr", "globals", "import_module", "vars"}


def _key(x: Any, around: tuple[Any, ...] = ()) -> Hashable | None:
    """A key, equal for two objects only if a program made with one is right for the other; None if unknown."""
    if isinstance(x, _FUNCTIONS):
        if x in around:
            return x
        named = _has_its_name(x)
        return x if named and _is_foreign(x, around) else _key_of_function(x, around) or (x if named else None)
    if isinstance(x, _SAME_AS_ITSELF):
        return x
    if isinstance(x, _CONSTANTS):
        return type(x), repr(x)  # 1, 1.0 and True are equal, and so are 0.0 and -0.0
    if isinstance(x, tuple):
        return _keys(x, around, type(x))
    return _keys((x.__func__,), around, type(x)) if isinstance(x, staticmethod | classmethod) else None


def _key_of_function(x, around):
    if not isinstance(x, types.FunctionType):
        return _keys((getattr(x, "__wrapped__", _UNKNOWN),), around, x)
    return _keys(_read(x), (*around, x), x.__code__)


def _keys(xs, around, *first):
    found = (*first, *(_key(x, around) for x in xs))
    return None if any(key is None for key in found) else found


def _has_its_name(x):
    """Whether a function is found by its name in an imported module, where nobody redefines it."""
    module, name = getattr(x, "__module__", None) or "", getattr(x, "__qualname__", None) or ""
    if not isinstance(x, _FUNCTIONS) or module == "__main__":
        return False
    try:
        return operator.attrgetter(name)(sys.modules.get(module)) is x
    except AttributeError:
        return False


def _is_foreign(x, around):
    """Whether a function belongs to jax, to this library, or to another module than the function that reads it."""
    own = around[0].__module__ if around else x.__module__
    return x.__module__ != own or own.split(".")[0] in ("jax", "jaxdiv")


def _read(function: types.FunctionType) -> Iterator[Any]:
    """The values that a Python function reads: its defaults, variables around it, and attributes of what it reads."""
    given = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items())
    values = [*given, *map(_content, function.__closure__ or ())]
    names = () if (function.__module__ or "").startswith("jaxdiv.") else _names(function.__code__)
    if names is None:
        yield _UNKNOWN
        return
    spaces, followed = [function.__globals__], set()
    while spaces or values:
        values += [space[name] for space in spaces for name in names if name in space]
        yield from values
        new = {id(x): x for x in values if id(x) not in followed}
        followed.update(new)
        spaces, values = [space for x in new.values() for space in _namespaces(x)] if names else [], []


def _namespaces(x):
    """The dictionaries in which attributes are looked up: of a module, a class, a function, or a tuple of these."""
    if isinstance(x, tuple):
        return itertools.chain.from_iterable(map(_namespaces, x))
    if isinstance(x, type):
        return [
            vars(c) for c in inspect.getmro(x) + inspect.getmro(type(x)) if c.__module__.split(".")[0] not in _LIBRARIES
        ]
    return [vars(x)] if isinstance(x, _WITH_ATTRIBUTES) else []


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _UNKNOWN


@functools.lru_cache(maxsize=tuning.PROGRAMS)
def _names(code: types.CodeType) -> tuple[str, ...] | None:
    """The names of variables and attributes in a code; None if it looks others up in ways that do not show them."""
    within = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    imports = dis.opmap["IMPORT_NAME"] in code.co_code[::2]
    if imports or not _LOOKUPS.isdisjoint(code.co_names) or None in within:
        return None
    return tuple(dict.fromkeys(itertools.chain(code.co_names, *filter(None, within))))

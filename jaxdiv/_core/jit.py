"""`jitted`: compile a public function without hiding it."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

from jaxdiv import _inputs

P = ParamSpec("P")
R = TypeVar("R")


def jitted(function: Callable[P, R], *, static: tuple[str, ...] = (), **known: Any) -> Callable[P, R]:
    """`jax.jit(function)` behind a plain function with the same signature, name and docstring.

    Some supported versions of jax can neither pickle nor copy a compiled object; a `def` can be found by its module and
    name. A keyword that is left at its default stays the Python number of the signature, so a kernel can specialise on
    it; a number that is passed is traced. `static` names arguments that are part of the program, such as an axis. The
    function carries `known`, such as its record, as attributes.
    """
    compiled = jax.jit(function, static_argnames=static)

    @functools.wraps(function)
    def public(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return compiled(*args, **kwargs)
        except OverflowError:
            moving = {name: x for name, x in kwargs.items() if name not in static}
            args, moving = jax.tree.map(_inputs.no_wide_integer, (args, moving))
            return compiled(*args, **kwargs | moving)
        except (TypeError, ValueError) as error:
            return _inputs.raise_for_call(error, function, static, args, kwargs)

    vars(public).update(known)
    return public

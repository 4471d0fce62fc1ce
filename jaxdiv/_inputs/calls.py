"""Errors for calls that jax refuses before the function gets its arguments."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax
import numpy as np

from jaxdiv._inputs.arrays import any_array, described


def raise_for_call(
    error: Exception,
    function: Callable[..., Any],
    static: Sequence[str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> NoReturn:
    """Raises a clear error if the arguments themselves are wrong, else the original error."""
    who = f"{function.__module__.removeprefix('jaxdiv.')}.{function.__name__}"
    signature = inspect.signature(function)
    known = signature.parameters
    more = [name for name in kwargs if name not in known]
    if more and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        reduced = " Reduce what it returns, as with jaxdiv.losses.mean." if "reduction" in more else ""
        raise TypeError(f"{who} takes {', '.join(known)}; got {', '.join(more)}. Leave that out.{reduced}") from error
    for name, x in _given(signature, args, kwargs).items():
        if name in static:
            _hashable(who, name, x, error)
        else:
            _numeric(who, name, x)
    only_by_keyword = [name for name, x in known.items() if x.kind is inspect.Parameter.KEYWORD_ONLY]
    raise _with_options(error, who, [name for name in kwargs if name in only_by_keyword])


def _with_options(error, who, options):
    """The error with options bound in the call that it advises: `jax.vmap` maps what is passed by keyword."""
    given = "".join(f", {name}=..." for name in options)
    text = str(error).replace(f"jax.vmap({who}", f"jax.vmap(functools.partial({who}{given})")
    text = re.sub(rf"(functools\.partial\({re.escape(who)}, [\w.]+)\)\.", rf"\1{given}).", text)
    return type(error)(text) if options and text != str(error) else error


def _given(signature, args, kwargs):
    try:
        return signature.bind(*args, **kwargs).arguments
    except TypeError:
        return {}


def _hashable(who, name, x, error):
    try:
        hash(x)
    except TypeError:
        if isinstance(x, jax.Array | np.ndarray):
            raise TypeError(
                f"{who} takes {name} as a constant; got {described(name, x)}. Pass the arguments in the order of its "
                "signature."
            ) from error
        remedy = f"{name}={tuple(x)}" if isinstance(x, list) else f"a constant for {name}, outside of what is traced"
        raise TypeError(f"{who} takes {name} as a constant that can be hashed; got {x}. Pass {remedy}.") from error


def _numeric(who, name, x):
    """Raises for anything that jax does not take as an array; arrays are checked by the function itself."""
    for leaf in jax.tree.leaves(x):
        if not isinstance(leaf, jax.Array):
            any_array(who, name, leaf)

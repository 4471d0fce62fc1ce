"""Calls that jax refuses before a function has seen its arguments."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax

from jaxdiv._inputs.arrays import any_array


def raise_for_call(
    error: Exception,
    function: Callable[..., Any],
    static: Sequence[str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> NoReturn:
    """Raises what is wrong with the arguments themselves, if anything is, or else the error that came of them."""
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
    raise error


def _given(signature, args, kwargs):
    try:
        return signature.bind(*args, **kwargs).arguments
    except TypeError:
        return {}


def _hashable(who, name, x, error):
    try:
        hash(x)
    except TypeError:
        remedy = f"{name}={tuple(x)}" if isinstance(x, list) else f"a constant for {name}, outside of what is traced"
        raise TypeError(f"{who} takes {name} as a constant that can be hashed; got {x}. Pass {remedy}.") from error


def _numeric(who, name, x):
    """Raises for what jax takes for no array; of arrays the function itself says what it expects."""
    for leaf in jax.tree.leaves(x):
        if not isinstance(leaf, jax.Array):
            any_array(who, name, leaf)

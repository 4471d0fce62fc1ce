"""The rows of the self-check's table for the verbs of `gaussian`, form by form."""

import concurrent.futures
import decimal
import functools
import itertools
import timeit
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiv import gaussian
from jaxdiv._selfcheck import gaussian as definitions
from jaxdiv._selfcheck import table
from jaxdiv._selfcheck.gaussian import ALPHA, CASES


class Program(NamedTuple):
    """Verbs on laws of one form, the pairs, and the compiled batch of values and gradients."""

    form: Any
    names: list[str]
    p: Any
    q: Any
    batch: Any
    compiled: Any


def _title(name, form):
    return f"gaussian.{name}({form.__name__}{f', alpha={ALPHA}' if name in ('renyi', 'amari') else ''})"


def _verb(name):
    verb = getattr(gaussian, name)
    return functools.partial(verb, alpha=ALPHA) if name in ("renyi", "amari") else verb


def _program(form, names, dtype):
    p, q = definitions.pairs(form, dtype, one=names == ["total_variation"])

    def one(p, q):
        values, pull = jax.vjp(lambda p, q: jnp.stack([_verb(name)(p, q) for name in names]), p, q)
        return values, jax.vmap(pull)(jnp.eye(len(names), dtype=values.dtype))

    # Copies fill the batch: an accelerator needs many rows to be busy and to use its path for large arrays.
    copies = (2**12 if jax.default_backend() == "cpu" else 2**16) // len(p[0])
    batch = jax.device_put(jax.tree.map(lambda x: np.concatenate([x] * copies), (p, q)))
    return Program(form, names, p, q, batch, jax.jit(jax.vmap(one)).lower(*batch).compile())


def _run(program):
    """For each verb, value and gradients [copies, n, 1 + entries]; and rows per second."""
    leaves = jax.tree.leaves(jax.device_get(program.compiled(*program.batch)))
    seconds = min(timeit.repeat(lambda: jax.block_until_ready(program.compiled(*program.batch)), number=1))
    rows, verbs = leaves[0].shape
    numbers = np.concatenate([x.reshape(-1, len(program.p[0]), verbs, x[0, 0].size) for x in leaves], -1)
    return np.moveaxis(numbers, 2, 0), rows * verbs / seconds


def _rows(program: Program) -> Iterator[dict[str, Any]]:
    """The rows of the table for the verbs of a program."""
    form, names, p, q = program[:4]
    numbers, speed = _run(program)
    with decimal.localcontext(table.DIGITS):
        truths = definitions.truths(names, form, p, q)
    sizes = [int(np.prod(np.shape(x)[1:])) for law in (p, q) for x in law]
    for name, found in zip(names, numbers, strict=True):
        own = [truth[name] for truth in truths]
        scales = [[x[0], *_largest_of_fields(x[1:], sizes)] for x in own]
        yield table.row(_title(name, form), found, own, scales, (8, 16) if name == "kl" else (16, 32), speed, name)


def _largest_of_fields(entries, sizes):
    """The scale for each entry's error: the largest gradient entry in its field, of both laws."""
    entries = iter(entries)
    largest = [max(map(abs, itertools.islice(entries, size)), default=Decimal(0)) for size in sizes]
    both = [max(pair) for pair in zip(largest, largest[len(sizes) // 2 :] + largest, strict=False)]
    return [x for x, size in zip(both, sizes, strict=True) for _ in range(size)]


def checks(only: str, dtypes: Sequence[np.dtype]) -> Iterator[dict[str, Any]]:
    """The rows of the table whose titles contain `only`, for every verb and form, in each dtype."""
    wanted = []
    for dtype, (form, case) in itertools.product(dtypes, CASES.items()):
        names = [name for name in case.verbs if only in f"jaxdiv.{_title(name, form)}"]
        alone = [name for name in names if name == "total_variation"]  # needs laws of one component
        groups = [name for name in names if name not in alone], alone
        wanted += [(form, group, dtype) for group in groups if group]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        programs = list(pool.map(_program, *zip(*wanted, strict=True))) if wanted else []
    for program in programs:
        yield from _rows(program)

r"""`python -m jaxdiv`: whether this device, with this jaxlib and these XLA flags, keeps the library's promises.

Every public divergence of a pair (*verb*) runs, with its gradient, as one compiled batch, on the kinds of distributions
(*laws*) that break such code. The host compares the results with the textbook definition in decimal arithmetic. The
exit status is 1 if a promise is broken. So a device, compiler or flag that loses digits is found here, not in a
training run.

All verbs of a form of normal laws are one program, and share its rows per second.
"""

import argparse
import concurrent.futures
import functools
import importlib.metadata
import itertools
import json
import math
import os
import timeit
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiv import bernoulli, categorical, simplex
from jaxdiv._selfcheck import discrete, gaussian_rows, kernel, table


@functools.cache
def _compiled(verb):
    """Value and both gradients of a batch: one program per verb and dtype."""
    both = jax.value_and_grad(lambda p, q, options: verb(p, q, **options), (0, 1))
    return jax.jit(jax.vmap(both, (0, 0, None)))


def _call(family, name, options, p, q):
    """A call on many copies of all rows, and the batch of copies."""
    # Copies fill the batch: an accelerator needs many rows to be busy and to use its path for large arrays.
    copies = (2**12 if jax.default_backend() == "cpu" else 2**16) // len(p)
    batch = [np.concatenate([x] * copies) for x in (p, q)]
    options = {key: p.dtype.type(x) for key, x in options.items()}
    return functools.partial(_compiled(getattr(family, name)), *jax.device_put(batch), options), batch


def _run(family, name, options, p, q):
    """Value and both gradients of each row in each copy, [copies, n, 1 + 2 k]; and rows per second."""
    verb, batch = _call(family, name, options, p, q)
    copies = len(batch[0]) // len(p)
    values, gradients = jax.device_get(verb())
    seconds = min(timeit.repeat(lambda: jax.block_until_ready(verb()), number=1))
    if family is simplex and discrete.DEFINITIONS[name].along:
        anchors = [np.argmax(x, -1, keepdims=True) for x in batch]
        gradients = [g - np.take_along_axis(g, i, -1) for g, i in zip(gradients, anchors, strict=True)]
    return np.concatenate([x.reshape(copies, len(p), -1) for x in (values, *gradients)], -1), len(values) / seconds


def check(family: ModuleType, name: str, options: dict[str, float], dtype: np.dtype) -> dict[str, Any]:
    """A row of the table, for one verb of a family with one choice of options."""
    p, q = discrete.inputs(family, dtype)
    numbers, speed = _run(family, name, options, p, q)
    options = {key: dtype.type(x) for key, x in options.items()}
    truths, scales = discrete.truths(family, name, options, p, q)
    promised = {"kl": (8, 4), "js": (16, 8)}.get(name, (16, 32)) if family is simplex else (16, 32)
    title = f"{family.__name__.split('.')[-1]}.{name}" + "".join(f"({k}={float(x):.7g})" for k, x in options.items())
    return table.row(title, numbers, truths, scales, promised, speed, name)


LINE = "{:<51}{:<9}{:>11}{:>15}{:>11}{:>6}{:>17}  {}"
HASTY = "XLA's fast math deletes the compensated differences: remove --xla_cpu_enable_fast_math=true from XLA_FLAGS."
BROKEN = "Do not rely on the verbs that are not ok on this device: try another jaxlib or device, and report this table."


def checks(only: str = "") -> Iterator[dict[str, Any]]:
    """The rows of the table for verbs whose names contain `only`, in float32 and in the default dtype."""
    dtypes = dict.fromkeys((np.dtype(np.float32), jnp.zeros(()).dtype))
    wanted = [
        (family, name, options, dtype)
        for dtype, family, name in itertools.product(dtypes, (categorical, simplex, bernoulli), discrete.DEFINITIONS)
        for options in discrete.DEFINITIONS[name].tries
        if only in f"{family.__name__}.{name}" and (family is categorical or "temperature" not in options)
    ]
    # Compiling is slow and uses one core, so all programs are compiled first, in parallel. They do not depend on the
    # values of options.
    programs = {(_compiled(getattr(x[0], x[1])), x[3], *x[2]): x for x in wanted}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(_compile, programs.values()))
    for family, name, options, dtype in wanted:
        yield check(family, name, options, dtype)
    yield from gaussian_rows.checks(only, list(dtypes))


def _compile(wanted):
    family, name, options, dtype = wanted
    jax.block_until_ready(_call(family, name, options, *discrete.inputs(family, dtype))[0]())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxdiv",
        description="Check the divergences of categorical, simplex, bernoulli and gaussian on this device.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else; null is infinite")
    parser.add_argument("--only", default="", metavar="NAME", help="only the verbs whose names contain this")
    arguments = parser.parse_args(argv)
    device, x64 = jax.devices()[0], jnp.zeros(()).dtype == np.float64
    about = {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()}
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "numpy")}
    say = (lambda _: None) if arguments.json else functools.partial(print, flush=True)
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    say("{count} x {platform} ({kind}), ".format(**about) + f"{software}, x64 {'on' if x64 else 'off'}")
    say(LINE.format(*table.FIELDS))

    def show(row):
        say(LINE.format(*(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row.values())))
        return row

    rows = [show(row) for row in checks(arguments.only)]
    if not rows:
        parser.error(f"no verb has {arguments.only!r} in its name")
    ok = all(row["ok"] for row in rows)
    flags = os.environ.get("XLA_FLAGS", "")
    fast_math = "xla_cpu_enable_fast_math" in flags and "xla_cpu_enable_fast_math=false" not in flags
    say("Every promise is kept." if ok else HASTY if fast_math else BROKEN)
    if "NVIDIA" in device.device_kind:  # what is off by default breaks no promise, so it is no row of the report
        for found in kernel.report(check, arguments.only):
            say(found) if isinstance(found, str) else show(found)
    if arguments.json:
        rows = [{key: None if x == math.inf else x for key, x in row.items()} for row in rows]
        print(json.dumps({"device": about, "versions": versions, "x64": x64, "rows": rows, "ok": ok}))
    return 0 if ok else 1

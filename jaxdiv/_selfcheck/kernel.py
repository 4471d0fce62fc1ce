"""Whether a GPU should compute the row numbers of logits by a kernel: the same cases by both paths, and their times."""

import timeit
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiv import categorical
from jaxdiv._core import kernels
from jaxdiv._selfcheck import discrete

SHAPES = ((2**16, 10), (2**13, 100), (2**12, 32000), (2**10, 128256))
SET = "Set JAXDIV_PALLAS=1: on this device the kernel keeps every promise and takes {:.2f} of the time without it."
LEAVE = "Leave JAXDIV_PALLAS unset: on this device the kernel {}."


def report(
    check: Callable[..., dict[str, Any]],
    only: str,
    platform: str = "cuda",
    shapes: tuple[tuple[int, int], ...] = SHAPES,
) -> Iterator[dict[str, Any] | str]:
    """Rows of the table with the kernel; lines of times; what to do."""
    wanted = [(name, x) for name, of in discrete.DEFINITIONS.items() for x in of.tries if only in f"categorical.{name}"]
    with kernels.on(platform):
        rows = [check(categorical, name, options, np.dtype(np.float32)) for name, options in wanted]
    yield from (row | {"name": f"{row['name']} by kernel"} for row in rows)
    if not rows:
        return
    ratios = []
    for verb in (categorical.kl, categorical.js):
        for shape in shapes:
            (without, values), (seconds, others) = (_timed(verb, shape, *on) for on in ((), (platform,)))
            apart = np.max(np.abs(others - values) / np.spacing(np.abs(values)))
            ratios.append(seconds / without)
            yield (
                f"{verb.__name__} with gradients, {shape[0]} x {shape[1]}: {1e3 * without:.3f} ms, by kernel "
                f"{1e3 * seconds:.3f} ms, values apart by {apart:.1f} ulps"
            )
    mean = float(np.exp(np.mean(np.log(ratios))))
    if not all(row["ok"] for row in rows):
        yield LEAVE.format("breaks a promise")
    else:
        yield SET.format(mean) if mean < 0.95 else LEAVE.format(f"takes {mean:.2f} of the time without it")


def _timed(verb, shape, *platforms):
    """Seconds of value and gradients of each row, the best of five, and the values."""
    with kernels.on(*platforms):
        laws = jax.random.normal(jax.random.key(0), (2, *shape), jnp.float32)
        run = jax.jit(jax.vmap(jax.value_and_grad(verb, (0, 1)))).lower(*laws).compile()
        values, _ = jax.block_until_ready(run(*laws))
        seconds = timeit.repeat(lambda: jax.block_until_ready(run(*laws)), number=1)
    return min(seconds), np.asarray(values)

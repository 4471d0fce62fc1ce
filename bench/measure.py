"""How a case is measured, and the table of the results.

The contenders of a case take turns within one process, in an order drawn anew in each round, because a call that
follows one that freed hundreds of MiB pays for its page faults. What counts is the ratio of process CPU seconds;
on an accelerator, of wall time.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bench.cases import Host
from jaxdiv._core import kernels

ROUNDS, LEAST_ROUNDS, LONG_S = 9, 3, 10  # a case that has taken longer ends early
QUICK = 3, 1, 0.2  # the same of --quick


@dataclasses.dataclass(frozen=True)
class ByKernel:
    """A contender that has kernels on a GPU, whether or not the environment asks for them."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        """What the function says."""
        return self.function(*arguments)


def built(contender, arrays):
    """The compiled program of a contender."""
    if isinstance(contender, ByKernel):
        with kernels.on("cuda"):
            return jax.jit(contender.function).lower(*arrays).compile()
    return jax.jit(contender).lower(*arrays).compile()


def prepared(contender, arrays):
    """A call without arguments that returns when all is done, and what its compilation tells."""
    if isinstance(contender, Host):
        return functools.partial(contender.function, *map(contender.convert, arrays)), {}
    arrays = [jax.device_put(x) for x in arrays]
    start = time.perf_counter()
    run = built(contender, arrays)
    facts = {"compile_s": time.perf_counter() - start}
    memory = run.memory_analysis()
    if memory is not None:
        facts["temporaries_mib"] = memory.temp_size_in_bytes / 2**20
        # What has to be read and written at the least.
        facts["traffic_gb"] = (memory.argument_size_in_bytes + memory.output_size_in_bytes) / 1e9
    return lambda: jax.block_until_ready(run(*arrays)), facts


def measure(case, quick):
    """One row per contender, of a quick run only those with a goal: seconds, their ratio to ours, memory."""
    rounds, least_rounds, long_s = QUICK if quick else (ROUNDS, LEAST_ROUNDS, LONG_S)
    arrays = case.arrays()
    runs, rows = {}, {}
    for name, contender in case.contenders.items():
        if quick and runs and name not in case.goals:
            continue
        runs[name], rows[name] = prepared(contender, arrays)
        runs[name]()
    names, times, random = list(runs), {name: ([], []) for name in runs}, np.random.default_rng(0)
    began = time.perf_counter()
    for done in range(rounds):
        if done >= least_rounds and time.perf_counter() - began > long_s:
            break
        for name in random.permutation(names).tolist():
            start = time.process_time(), time.perf_counter()
            runs[name]()
            times[name][0].append(time.process_time() - start[0])
            times[name][1].append(time.perf_counter() - start[1])
    clock = 0 if jax.default_backend() == "cpu" else 1
    for name, (cpu, wall) in times.items():
        ratios = [a / b for a, b in zip(times[names[0]][clock], times[name][clock], strict=True)]
        rows[name] |= {
            "cpu_ms": 1e3 * statistics.median(cpu),
            "wall_ms": 1e3 * statistics.median(wall),
            "ours_over_it": statistics.median(ratios),
            "spread": [min(ratios), max(ratios)],
        } | ({"goal": case.goals[name]} if name in case.goals else {})
    return rows


# ---------------------------------------------------------------- the report


def number(row, key, form):
    """A figure of a row, or nothing."""
    return form.format(row[key]) if key in row else ""


def table(results):
    """RESULTS.md, from the results alone."""
    lines = [
        "# Results",
        "",
        "Written by `python -m bench`; edit nothing here.",
        "",
        "The ratio is ours over the contender's, of process CPU time on CPU and of wall time elsewhere: the median",
        "over interleaved rounds, the least and greatest in brackets; below 1, ours is faster. Temporaries are XLA's,",
        "peak is what a call adds to the memory of a process, traffic the least that has to be read and written, over",
        "the wall time.",
    ]
    for of_machine in results.values():
        where = of_machine["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
        lines += [
            "",
            f"## {where['device']} ({where['backend']}, {where['processor']}), {where['date']}",
            "",
            f"{versions}.",
            "",
            "| case | contender | cpu ms | wall ms | ratio | goal | temporaries MiB | peak MiB | GB/s | compile s |",
            "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for case, rows in of_machine["cases"].items():
            for i, (name, row) in enumerate(rows.items()):
                ratio = "{:.2f} [{:.2f}, {:.2f}]".format(row["ours_over_it"], *row["spread"]) if i else ""
                speed = f"{1e3 * row['traffic_gb'] / row['wall_ms']:.1f}" if "traffic_gb" in row else ""
                cells = [case, name, f"{row['cpu_ms']:.2f}", f"{row['wall_ms']:.2f}", ratio]
                cells += [number(row, "goal", "{:.2f}"), number(row, "temporaries_mib", "{:.1f}")]
                cells += [number(row, "peak_mib", "{:.0f}"), speed, number(row, "compile_s", "{:.1f}")]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"

"""`python -m bench` lists the cases; with names, or `all`, it runs them. `all` writes results.json and RESULTS.md.

The contenders of a case take turns within one process, in an order that rotates from round to round, because a call
that follows one that freed hundreds of MiB pays for its page faults. What counts is the ratio of process CPU seconds;
on an accelerator, of wall time.
"""

import argparse
import datetime
import importlib.metadata
import json
import pathlib
import platform
import statistics
import time

import jax
import numpy as np

from bench.cases import CASES

HERE = pathlib.Path(__file__).parent


def measure(case, rounds):
    """One row per contender: seconds, their ratio to ours, XLA's temporaries."""
    arrays = [jax.device_put(x) for x in case.arrays()]
    runs, rows = {}, {}
    for name, contender in case.contenders.items():
        start = time.perf_counter()
        run = jax.jit(contender).lower(*arrays).compile()
        rows[name] = {
            "compile_s": time.perf_counter() - start,
            "temporaries_mib": run.memory_analysis().temp_size_in_bytes / 2**20,
        }
        runs[name] = run, [], []
        jax.block_until_ready(run(*arrays))
    names = list(runs)
    for i in range(rounds):
        for name in np.roll(names, i).tolist():
            run, cpu, wall = runs[name]
            start = time.process_time(), time.perf_counter()
            jax.block_until_ready(run(*arrays))
            cpu.append(time.process_time() - start[0])
            wall.append(time.perf_counter() - start[1])
    clock = 1 if jax.default_backend() == "cpu" else 2
    ours = runs["jaxdiv"][clock]
    for name, (_, cpu, wall) in runs.items():
        ratios = [a / b for a, b in zip(ours, runs[name][clock], strict=True)]
        rows[name] |= {
            "cpu_ms": 1e3 * statistics.median(cpu),
            "wall_ms": 1e3 * statistics.median(wall),
            "ours_over_it": statistics.median(ratios),
            "spread": [min(ratios), max(ratios)],
        }
    return rows


def machine():
    """What the figures depend on."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "optax", "numpy")}
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device.device_kind,
        "backend": device.platform,
        "processor": platform.machine(),
        "versions": versions,
    }


def table(results):
    """RESULTS.md, from the results alone."""
    where = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    lines = [
        "# Results",
        "",
        "Written by `python -m bench all`; edit nothing here.",
        "",
        f"{where['device']} ({where['backend']}, {where['processor']}), {where['date']}; {versions}.",
        "Ratios are ours over the peer's, of process CPU time on CPU and of wall time elsewhere: the median over",
        "interleaved rounds, the least and greatest in brackets; below 1, ours is faster.",
        "",
        "| case | contender | cpu ms | wall ms | ratio | temporaries MiB | compile s |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for case, rows in results["cases"].items():
        for name, row in rows.items():
            low, high = row["spread"]
            ratio = "" if name == "jaxdiv" else f"{row['ours_over_it']:.2f} [{low:.2f}, {high:.2f}]"
            lines.append(
                f"| {case} | {name} | {row['cpu_ms']:.1f} | {row['wall_ms']:.1f} | {ratio} "
                f"| {row['temporaries_mib']:.1f} | {row['compile_s']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def main():
    """Lists or runs."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="cases, or all")
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    options = parser.parse_args()
    if not options.names:
        print("\n".join(case.name for case in CASES))
        return
    chosen = [case for case in CASES if "all" in options.names or case.name in options.names]
    unknown = set(options.names) - {"all"} - {case.name for case in CASES}
    if unknown:
        parser.error(f"no case named {', '.join(sorted(unknown))}; python -m bench lists them")
    results = {"machine": machine(), "cases": {}}
    for case in chosen:
        rows = results["cases"][case.name] = measure(case, 3 if options.quick else 9)
        for name, row in rows.items():
            print(
                f"{case.name:28s} {name:9s} {row['cpu_ms']:8.1f} ms cpu  ours over it {row['ours_over_it']:.2f}  "
                f"{row['temporaries_mib']:7.1f} MiB",
                flush=True,
            )
    if not options.quick and "all" in options.names:
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "RESULTS.md").write_text(table(results))


if __name__ == "__main__":
    main()

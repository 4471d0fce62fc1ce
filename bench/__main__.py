"""`python -m bench` lists the cases; with names, or `all`, it runs them and adds to results.json and RESULTS.md.

The contenders of a case take turns within one process, in an order drawn anew in each round, because a call that
follows one that freed hundreds of MiB pays for its page faults. What counts is the ratio of process CPU seconds;
on an accelerator, of wall time. Peak memory is that of a process of its own for each contender.
"""

import argparse
import concurrent.futures
import datetime
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import jax
import numpy as np

from bench import cases, gaussians, pairs, vocabulary
from bench.cases import Host

CASES = cases.CASES + gaussians.CASES + pairs.CASES + vocabulary.CASES
RESULTS = pathlib.Path(__file__).with_name("results.json")
REPORT = pathlib.Path(__file__).with_name("RESULTS.md")
ROUNDS, LEAST_ROUNDS, LONG_S = 9, 3, 10  # a case that has taken longer ends early
QUICK = 3, 1, 0.2  # the same of --quick
PEERS = ("jax", "jaxlib", "numpy", "optax", "distrax", "numpyro", "rlax", "scipy", "torch")


def prepared(contender, arrays):
    """A call without arguments that returns when all is done, and what its compilation tells."""
    if isinstance(contender, Host):
        return functools.partial(contender.function, *map(contender.convert, arrays)), {}
    arrays = [jax.device_put(x) for x in arrays]
    start = time.perf_counter()
    run = jax.jit(contender).lower(*arrays).compile()
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


# ---------------------------------------------------------------- peak memory


def _resident(key):
    status = pathlib.Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(key)) / 1024


def peak(case, name):
    """MiB that the second call of a contender adds to what the process holds, at the most."""
    run, _ = prepared(case.contenders[name], case.arrays())
    run()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _resident("VmRSS")
    run()
    return max(0.0, _resident("VmHWM") - before)


def peaks(case):
    """The peak of each contender, in a process of its own; on Linux with a CPU."""
    if jax.default_backend() != "cpu" or not pathlib.Path("/proc/self/clear_refs").exists():
        return {}
    command = [sys.executable, "-m", "bench", "--peak", case.name]

    def of(name):
        done = subprocess.run([*command, name], capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(case.contenders, pool.map(of, case.contenders), strict=True))


# ---------------------------------------------------------------- the report


def machine():
    """What the figures depend on."""
    versions = {}
    for name in PEERS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device.device_kind,
        "backend": device.platform,
        "processor": f"{platform.machine()}, Python {platform.python_version()}",
        "versions": versions,
    }


def _number(row, key, form):
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
                cells += [_number(row, "goal", "{:.2f}"), _number(row, "temporaries_mib", "{:.1f}")]
                cells += [_number(row, "peak_mib", "{:.0f}"), speed, _number(row, "compile_s", "{:.1f}")]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(measured):
    """Adds results to those of other machines, and of other cases of this one; makes the report."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    here = machine()
    earlier = results.get(here["backend"], {}).get("cases", {})
    ordered = {case.name: (earlier | measured)[case.name] for case in CASES if case.name in earlier | measured}
    results[here["backend"]] = {"machine": here, "cases": ordered}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    REPORT.write_text(table(results))


def main():
    """Lists or runs."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="cases, or all")
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written; of all, no fused head")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "CONTENDER"), help="print one contender's peak memory, MiB")
    options = parser.parse_args()
    named = {case.name: case for case in CASES}
    if options.peak:
        print(peak(named[options.peak[0]], options.peak[1]))
        return
    if not options.names:
        print("\n".join(named))
        return
    unknown = set(options.names) - {"all"} - set(named)
    if unknown:
        parser.error(f"no case named {', '.join(sorted(unknown))}; python -m bench lists them")
    results = {}
    for case in CASES:
        if case.name not in options.names and (
            "all" not in options.names or (options.quick and case in vocabulary.CASES)
        ):
            continue
        rows = results[case.name] = measure(case, options.quick)
        for name, mib in {} if options.quick else peaks(case).items():
            rows[name]["peak_mib"] = mib
        for name, row in rows.items():
            goal = f" (goal {row['goal']:.2f})" if "goal" in row else ""
            temporaries = _number(row, "temporaries_mib", "{:7.1f} MiB")
            print(
                f"{case.name:28s} {name:14s} {row['cpu_ms']:9.2f} ms cpu  ours over it {row['ours_over_it']:.2f}"
                f"{goal}  {temporaries}",
                flush=True,
            )
        if not options.quick:
            write(results)


if __name__ == "__main__":
    main()

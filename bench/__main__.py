"""`python -m bench` lists the cases; with names, or `all`, it runs them and adds to results.json and RESULTS.md.

Peak memory is that of a process of its own for each contender.
"""

import argparse
import concurrent.futures
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys

import jax

from bench import cases, clusters, compiled, device, every, everyday, gaussians, pairs, vocabulary
from bench.measure import measure, number, prepared, table
from jaxdiv._selfcheck import command

CASES = cases.CASES + everyday.CASES + gaussians.CASES + pairs.CASES + clusters.CASES + vocabulary.CASES
GROUPS = {"everyday": everyday.CASES}
RESULTS = pathlib.Path(__file__).with_name("results.json")
REPORT = pathlib.Path(__file__).with_name("RESULTS.md")
PEERS = ("jax", "jaxlib", "numpy", "optax", "distrax", "numpyro", "rlax", "scipy", "torch")


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


def write(measured):
    """Adds results to those of other machines, and of other cases of this one; makes the report."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    here = machine()
    earlier = results.get(here["backend"], {}).get("cases", {})
    found = earlier | measured
    listed = [case.name for case in CASES if case.name in found]
    ordered = {name: found[name] for name in [*listed, *(name for name in found if name not in listed)]}
    results[here["backend"]] = {"machine": here, "cases": ordered}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    _report(results)


def _report(results):
    REPORT.write_text(table(results) + compiled.section() + every.section())


def _device(small, quick):
    """The self-check, then the cases of `device`; the exit status of the self-check."""
    status = command.main(["--only", "kl"] if small else [])
    rate = device.rate(2**24 if small else 2**28)
    print(f"adding two arrays: {rate:.0f} GB/s")
    results = {}
    for case in device.cases(small):
        rows = results[case.name] = measure(case, quick)
        for name, row in rows.items():
            reached = row["traffic_gb"] / (1e-3 * row["wall_ms"])
            print(
                f"{case.name:36s} {name:12s} {row['wall_ms']:9.3f} ms  ours over it {row['ours_over_it']:.2f}  "
                f"{reached:6.0f} GB/s, {reached / rate:4.0%} of the memory's rate  {row['temporaries_mib']:8.1f} MiB",
                flush=True,
            )
    if not (small or quick):
        write({f"device: {name}": rows for name, rows in results.items()})
    return status


def main():
    """Lists or runs."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="cases, a group of them, all, device, compiled, or every")
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written; of all, no fused head")
    parser.add_argument("--small", action="store_true", help="of device: shapes for a laptop, nothing written")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "CONTENDER"), help="print one contender's peak memory, MiB")
    options = parser.parse_args()
    named = {case.name: case for case in CASES}
    if options.peak:
        print(peak(named[options.peak[0]], options.peak[1]))
        return
    if not options.names:
        print("\n".join([*named, "device", "compiled", "every"]))
        return
    if options.names[0] == "compiled":
        compiled.run(options.names[1:])
        _report(json.loads(RESULTS.read_text()))
        return
    if options.names == ["device"]:
        sys.exit(_device(options.small, options.quick))
    if options.names[0] == "every":
        every.run(options.names[1:], options.quick, machine())
        if not options.quick:
            _report(json.loads(RESULTS.read_text()))
        return
    for group in set(options.names) & set(GROUPS):
        options.names += [case.name for case in GROUPS[group]]
    unknown = set(options.names) - {"all", *GROUPS} - set(named)
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
            temporaries = number(row, "temporaries_mib", "{:7.1f} MiB")
            print(
                f"{case.name:28s} {name:14s} {row['cpu_ms']:9.2f} ms cpu  ours over it {row['ours_over_it']:.2f}"
                f"{goal}  {temporaries}",
                flush=True,
            )
        if not options.quick:
            write(results)


if __name__ == "__main__":
    main()

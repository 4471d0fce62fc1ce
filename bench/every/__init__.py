"""`python -m bench every [NAME...]`: each public function beside the few lines that one writes without it.

A row has two sizes, that of a training step and a large one, and each of them a value and, where it has one, the value
with its gradients. Both sides take turns in one process, in loops long enough for the clock; the ratio is ours over
plain, of process CPU time, the median of the rounds. Both sides have to agree. `every.json` keeps the results, with
the section of `RESULTS.md` that is made of them.
"""

import json
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from bench.every import data, laws, plain, training
from bench.every.row import Row
from bench.measure import prepared
from jaxdiv import gaussian

ROWS = [*laws.ROWS, *training.ROWS, *data.ROWS]
RESULTS = pathlib.Path(__file__).with_name("every.json")
ROUNDS, LEAST_ROUNDS, LONG_S, SAMPLE_S = 5, 3, 0.2, 0.003
SLOW = 1.5  # a ratio that is too much

# Without a peer that does the same: host, what runs on the host alone; value, makes or converts a value; name, stands
# for its meaning as an argument.
NOT_TIMED = (
    {f"{module}.check": "host" for module in ("categorical", "simplex", "bernoulli", "gaussian", "mixture")}
    | dict.fromkeys(("gaussian.convert", "gaussian.standard", "gaussian.stack"), "value")
    | dict.fromkeys(("metrics.empty", "metrics.from_counts"), "value")
    | {f"exponential_family.{name}": "name" for name in plain.KL_OF_MEMBERS}
    | {f"transforms.{name}": "name" for name in ("doubling", "proportional", "dual")}
)


# ---------------------------------------------------------------- one row


def _with_slopes(function, slopes):
    def total(*arguments):
        leaves = jax.tree.leaves(function(*arguments))
        return sum(jnp.mean(x) for x in leaves if jnp.issubdtype(x.dtype, jnp.floating))

    return jax.value_and_grad(total, argnums=slopes)


def _compiled(function, arguments, cold):
    """A call without arguments, and what is told of it; `cold` to compile it from nothing and tell the seconds."""
    if cold:
        jax.clear_caches()
    start = time.process_time()
    run, facts = prepared(function, arguments)
    seconds = {"compile_s": time.process_time() - start} if cold and facts else {}
    return run, {key: facts[key] for key in ("temporaries_mib",) if key in facts} | seconds


def _free(gradient, row):
    """The numbers of a gradient that say something: of a root the lower ones, of a symmetric matrix the symmetric."""
    if isinstance(gradient, gaussian.MultivariateNormal):
        return gradient._replace(scale_tril=np.tril(gradient.scale_tril))
    if isinstance(gradient, gaussian.MatrixNormal):
        return gradient._replace(row_tril=np.tril(gradient.row_tril), column_tril=np.tril(gradient.column_tril))
    if isinstance(gradient, gaussian.CovarianceNormal | gaussian.PrecisionNormal | gaussian.NaturalNormal):
        return type(gradient)(gradient[0], gradient[1] + np.swapaxes(gradient[1], -1, -2))
    return gradient - np.mean(gradient, -1, keepdims=True) if row.up_to_a_constant else gradient


def distance(found, expected):
    """The largest distance between two arrays of a tree, relative to the second."""
    pairs = zip(*(map(np.asarray, jax.tree.leaves(x)) for x in (found, expected)), strict=True)
    pairs = [(x.astype(float), y.astype(float)) for x, y in pairs]
    return np.max([np.linalg.norm(x - y) / np.linalg.norm(y) if np.any(x != y) else 0.0 for x, y in pairs]).item()


def _disagreement(row, found, expected, slopes):
    """How far both sides are apart."""
    if not slopes:
        return distance(row.seen(found), expected)
    found, expected = ([_free(jax.device_get(x), row) for x in result[1]] for result in (found, expected))
    return distance(found, expected)


def _seconds(run, count):
    """Process CPU seconds of a call; on an accelerator, where they say nothing, those that pass."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    start = clock()
    for _ in range(count):
        run()
    return (clock() - start) / count


def _ratio(ours, peer, rounds):
    """The median over rounds of the ratio of seconds, and those of ours."""
    runs = ours, peer
    counts = [max(1, min(1000, int(SAMPLE_S / max(_seconds(run, 1), 1e-6)))) for run in runs]
    ratios, seconds, began = [], [], time.perf_counter()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and time.perf_counter() - began > LONG_S:
            break
        found = [0.0, 0.0]
        for i in (0, 1) if done % 2 else (1, 0):
            found[i] = _seconds(runs[i], counts[i])
        ratios.append(found[0] / found[1])
        seconds.append(found[0])
    return {"ratio": statistics.median(ratios), "ms": 1e3 * statistics.median(seconds)}


def _measured(row, arguments, slopes, rounds, cold):
    """What is told of one size, of values or, with `slopes`, of values with gradients."""
    sides = [_with_slopes(f, slopes) if slopes else f for f in (row.ours, row.plain)]
    (run, facts), (run_peer, facts_peer) = (_compiled(side, arguments, cold) for side in sides)
    apart = _disagreement(row, run(), run_peer(), slopes)
    tolerance = row.tolerance or (float("inf") if slopes else 0.3)
    assert apart <= tolerance, f"{row.name} and its peer differ by {apart:.1e}{' in their gradients' * bool(slopes)}"
    both = {key: [facts[key], facts_peer[key]] for key in facts}
    return _ratio(run, run_peer, rounds) | both | {"apart": apart}


def measure(row: Row, quick: bool):
    """By size, what is told of values and of gradients; in a quick run of few rounds, on the first size alone."""
    found, rounds = {}, LEAST_ROUNDS if quick else ROUNDS
    for size in row.sizes[: 1 if quick else None]:
        arguments, cold = row.make(*size), size == row.sizes[0]
        of_size = found["x".join(map(str, size)) or "scalar"] = {}
        of_size["value"] = _measured(row, arguments, (), rounds, cold)
        if row.slopes:
            of_size["gradient"] = _measured(row, arguments, row.slopes, rounds, cold)
    return found


def chosen(names):
    """The rows of functions, or of all functions of modules, by their names; all rows of none."""
    return [row for row in ROWS if not names or {row.function, row.function.split(".")[0]} & set(names)]


def run(names, quick, machine):
    """Measures and prints rows; keeps all results that are not of a quick run."""
    faults = []
    for row in chosen(names):
        try:
            found = measure(row, quick)
        except AssertionError as error:
            faults.append(str(error))
            print(error, flush=True)
            continue
        for size, modes in found.items():
            ratios = "  ".join(f"{mode} {x['ratio']:7.2f}" for mode, x in modes.items())
            print(f"{row.name:64s} {size:14s} {ratios}", flush=True)
        if not quick:
            keep({row.name: found}, machine)
    assert not faults, "\n".join(faults)


# ---------------------------------------------------------------- the report


def keep(found, machine):
    """Adds results to those of this backend; what is no row any more goes."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows = results.get(machine["backend"], {}).get("rows", {}) | found
    results[machine["backend"]] = {"machine": machine, "rows": {x.name: rows[x.name] for x in ROWS if x.name in rows}}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def ratios(rows):
    """All ratios, as (ratio, name, size, mode), the worst first."""
    found = [
        (x["ratio"], name, size, mode) for name, sizes in rows.items() for size, of in sizes.items()
        for mode, x in of.items()
    ]  # fmt: skip
    return sorted(found, reverse=True)


def _cells(name, size, modes):
    def both(mode, key, form):
        return " / ".join(form.format(x) for x in modes[mode][key]) if key in modes.get(mode, {}) else ""

    last = "gradient" if "gradient" in modes else "value"
    found = [f"{modes[mode]['ratio']:.2f}" if mode in modes else "" for mode in ("value", "gradient")]
    return [name, size, *found, both(last, "temporaries_mib", "{:.1f}"), both(last, "compile_s", "{:.2f}")]


def section() -> str:
    """The section of RESULTS.md."""
    lines = []
    for of in (json.loads(RESULTS.read_text()) if RESULTS.exists() else {}).values():
        where, found = of["machine"], ratios(of["rows"])
        numbers = [x[0] for x in found]
        slow = sum(x > SLOW for x in numbers)
        lines += [
            "",
            f"## Every public function, {where['device']} ({where['backend']}, {where['processor']}), {where['date']}",
            "",
            f"Measured are {len(of['rows'])} of {len(ROWS)} rows. Of {len(found)} ratios the median is",
            f"{statistics.median(numbers):.2f}; {slow} are above {SLOW}, {sum(x < 1 for x in numbers)} below 1.",
            "Temporaries and seconds to compile are those of value and gradients where there are any, ours / plain.",
            "",
            "| function | size | value | value and gradients | temporaries MiB | compile s |",
            "|---|---|--:|--:|--:|--:|",
        ]
        for name, sizes in sorted(of["rows"].items()):
            lines += ["| " + " | ".join(_cells(name, size, modes)) + " |" for size, modes in sizes.items()]
    return "\n".join(lines) + "\n" if lines else ""

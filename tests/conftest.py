"""Settings for all tests: strict promotion, eight CPU devices, hurried compilation, garbage, and where the time goes.

`--all` adds what only the gate needs: child processes, large batches, the whole self-check, every notebook, and more
forms, dtypes and parameters of what is tested without it.
`--optimised` compiles as users do. Without it XLA is in a hurry: most of the time of a test goes to optimise a program
that runs once.
`--devices=1` is a laptop's number of devices, for tests of batches.
`--spent` prints, for each file, the seconds spent compiling, lowering, tracing and in all, and its number of programs;
and the largest memory of a worker.
"""

import collections
import gc
import mmap
import os
import pathlib
import re
import resource
import time

import jax
import jaxlib
import pytest
from xdist.scheduler import LoadScopeScheduling

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Nobody reads where an operation of a compiled program came from.
jax.config.update("jax_traceback_in_locations_limit", 0)

# Traces and jaxprs are many and long-lived: to look for garbage as often as by default takes a tenth of the time.
gc.set_threshold(100_000, 50, 100)

# Fusions by way of MLIR double the seconds of a compilation. Versions without the other way do not know the flag.
# Where every processor has a worker, dividing a program over threads costs a fifth of the time.
HURRIED = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
]

EVENTS = {
    "/jax/core/compile/backend_compile_duration": "compiling",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
}
COLUMNS = ("programs", "compiling", "lowering", "tracing", "cpu", "wall")
SPENT = collections.Counter()

# Each takes forty to fifteen seconds of a processor, the longest first.
LONGEST = (
    "test_losses",
    "test_gaussian_forms",
    "test_estimators",
    "test_discrete",
    "test_clustering",
    "test_batching",
    "test_edges",
    "categorical",
    "simplex",
    "test_mixture",
    "test_exponential_family",
    "test_metrics",
    "test_objectives",
    "test_transforms",
    "test_exponential_members",
    "test_programs",
    "test_fused",
)


def _listen(event, seconds, **_):
    if event in EVENTS:
        SPENT[EVENTS[event]] += seconds
        SPENT["programs"] += event.endswith("backend_compile_duration")


jax.monitoring.register_event_duration_secs_listener(_listen)


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="add what only the gate needs, with the extras of notebooks")
    parser.addoption("--devices", type=int, default=8, help="how many devices this CPU pretends to be")
    parser.addoption("--optimised", action="store_true", help="compile as users do, not in a hurry")
    parser.addoption("--spent", action="store_true", help="print where the time of each file went")


def pytest_configure(config):
    config.addinivalue_line("markers", "gate: slow, and about what a change of the code seldom moves: needs --all")
    flags = [f"--xla_force_host_platform_device_count={config.getoption('--devices')}"]
    if not config.getoption("--optimised"):
        flags += filter(_is_known, HURRIED)
    # jax reads them when it first looks for devices, and child processes inherit them.
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()


def _is_known(flag):
    """Whether XLA has a flag of this name: at one that it does not know it aborts."""
    name = flag.lstrip("-").split("=")[0].encode()
    for path in pathlib.Path(jaxlib.__file__).parent.glob("*.so"):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library:
            if library.find(b"\0" + name + b"\0") >= 0:
                return True
    return False


# Files of which a worker takes one family, form, notebook or chip at a time; all others it takes whole.
DIVIDED = ("test_gaussian", "test_laws", "test_notebooks", "test_transformations", "with_accelerators")
PART = re.compile(r"\[.*?(categorical|simplex|bernoulli|\w*Normal\w*|\w+\.py|v5e|H200)")


def _group(nodeid):
    """What one worker runs, as it shares programs: a file, or the part of a divided one that brackets name."""
    path, _, test = nodeid.partition("::")
    file = pathlib.PurePosixPath(path).stem
    part = PART.search(test) if file in DIVIDED else None
    return part[1] if part else file


class ByGroup(LoadScopeScheduling):
    """The schedule of pytest-xdist, with groups of its own."""

    def _split_scope(self, nodeid):
        return _group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return ByGroup(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    if not config.getoption("--all"):
        kept = [item for item in items if not item.get_closest_marker("gate")]
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("gate")])
        items[:] = kept
    items.sort(key=lambda item: _place(_group(item.nodeid)))


def _place(group):
    """The longest groups first, so that no worker waits long for another one at the end."""
    return LONGEST.index(group) if group in LONGEST else len(LONGEST), group


def _now():
    return SPENT + collections.Counter(cpu=time.process_time(), wall=time.perf_counter())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    before = _now()
    try:
        return (yield)
    finally:
        after = _now()
        item.user_properties.append(("spent", {name: after[name] - before[name] for name in COLUMNS}))
        item.user_properties.append(("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))  # KiB on Linux


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--spent"):
        return
    files, peak = collections.defaultdict(collections.Counter), 0
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, spent in getattr(report, "user_properties", ()):
                if name == "spent" and report.when == "call":
                    files[report.location[0]].update(spent)
                elif name == "peak":
                    peak = max(peak, spent)
    terminalreporter.section("seconds spent")
    terminalreporter.write_line(f"{'':<36}" + "".join(f"{name:>11}" for name in COLUMNS))
    total = sum(files.values(), collections.Counter())
    for name, spent in [*sorted(files.items(), key=lambda x: -x[1]["cpu"]), ("in all", total)]:
        terminalreporter.write_line(f"{name:<36}" + "".join(f"{spent[column]:>11.1f}" for column in COLUMNS))
    terminalreporter.write_line(f"largest memory of a worker: {peak / 2**20:.2f} GiB")


@pytest.fixture
def programs_of():
    """How many programs a call compiles."""

    def count(function):
        before = SPENT["programs"]
        jax.block_until_ready([x for x in jax.tree.leaves(function()) if isinstance(x, jax.Array)])
        return SPENT["programs"] - before

    return count


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Programs of a finished group are let go, thousands of which fill a process."""
    if nextitem is None or _group(nextitem.nodeid) != _group(item.nodeid):
        jax.clear_caches()
        gc.collect()

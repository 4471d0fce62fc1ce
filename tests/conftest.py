"""Settings for all tests: strict promotion, eight CPU devices, garbage, and where the time goes.

`--all` adds what only the gate needs: child processes, large batches, the whole self-check and every notebook.
`--spent` prints, for each file, the seconds spent compiling, lowering, tracing and in all, and its number of programs.
"""

import collections
import gc
import os
import time

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Traces and jaxprs are many and long-lived: to look for garbage as often as by default takes a tenth of the time.
gc.set_threshold(100_000, 50, 100)

EVENTS = {
    "/jax/core/compile/backend_compile_duration": "compiling",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
}
COLUMNS = ("programs", "compiling", "lowering", "tracing", "cpu", "wall")
SPENT = collections.Counter()


def _listen(event, seconds, **_):
    if event in EVENTS:
        SPENT[EVENTS[event]] += seconds
        SPENT["programs"] += event.endswith("backend_compile_duration")


jax.monitoring.register_event_duration_secs_listener(_listen)


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="add what only the gate needs, with the extras of notebooks")
    parser.addoption("--spent", action="store_true", help="print where the time of each file went")


def pytest_configure(config):
    config.addinivalue_line("markers", "gate: slow, and about what a change of the code seldom moves: needs --all")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--all"):
        kept = [item for item in items if not item.get_closest_marker("gate")]
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("gate")])
        items[:] = kept


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


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--spent"):
        return
    files = collections.defaultdict(collections.Counter)
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, spent in getattr(report, "user_properties", ()):
                if name == "spent" and report.when == "call":
                    files[report.location[0]].update(spent)
    terminalreporter.section("seconds spent")
    terminalreporter.write_line(f"{'':<36}" + "".join(f"{name:>11}" for name in COLUMNS))
    total = sum(files.values(), collections.Counter())
    for name, spent in [*sorted(files.items(), key=lambda x: -x[1]["cpu"]), ("in all", total)]:
        terminalreporter.write_line(f"{name:<36}" + "".join(f"{spent[column]:>11.1f}" for column in COLUMNS))


@pytest.fixture
def programs_of():
    """How many programs a call compiles."""

    def count(function):
        before = SPENT["programs"]
        jax.block_until_ready([x for x in jax.tree.leaves(function()) if isinstance(x, jax.Array)])
        return SPENT["programs"] - before

    return count


@pytest.fixture(autouse=True, scope="module")
def _let_go_of_programs():
    """Programs of a finished file are let go: thousands of them fill a process."""
    yield
    jax.clear_caches()
    gc.collect()

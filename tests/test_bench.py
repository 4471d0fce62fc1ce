"""The commands that measure run here too, with small shapes and few rows, and leave no public function out."""

import importlib
import pathlib
import subprocess
import sys

import jax
import pytest
import test_public_api

from bench.traffic import traffic

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.gate
def test_the_command_for_a_device_checks_and_times_every_case_beside_a_peer():
    command = [sys.executable, "-m", "bench", "device", "--small"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Every promise is kept." in run.stdout
    _, lines = run.stdout.split("adding two arrays")
    timed = [line.split(" ms ")[0].rsplit(maxsplit=1)[0] for line in lines.splitlines()[1:]]
    assert len(timed) >= 28
    assert sum(line.endswith("jaxdiv") for line in timed) == len(timed) // 2


def test_importing_the_bench_starts_no_backend():
    # `bench compiled` must tell the compilers for absent devices where they are before jax looks for devices.
    code = "import bench.__main__; from jax._src import xla_bridge; assert not xla_bridge._backends"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.fixture
def every(monkeypatch):
    """With the peers as one writes them, by standard promotion."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield importlib.import_module("bench.every")


def test_every_public_function_is_timed_or_says_in_a_word_why_not(every):
    public = {f"{module}.{name}".lstrip(".") for module, name in test_public_api.FUNCTIONS}
    timed = {row.function for row in every.ROWS}
    assert timed | set(every.NOT_TIMED) == public
    assert not timed & set(every.NOT_TIMED)


def test_a_row_has_a_name_of_its_own(every):
    assert len({row.name for row in every.ROWS}) == len(every.ROWS)


@pytest.mark.parametrize("name", ["simplex.kl", "losses.mean", "elementary.rel_entr"])
def test_a_row_tells_time_memory_and_agreement_of_values_and_gradients(every, name):
    (row,) = every.chosen([name])
    ((size, modes),) = every.measure(row, quick=True).items()
    assert size == "x".join(map(str, row.sizes[0]))
    assert set(modes) == {"value", "gradient"}
    for found in modes.values():
        assert found["ratio"] > 0
        assert len(found["temporaries_mib"]) == len(found["compile_s"]) == 2
        assert found["apart"] <= row.tolerance


def test_a_row_whose_peer_computes_something_else_is_a_fault(every):
    (row,) = every.chosen(["losses.mean"])
    with pytest.raises(AssertionError, match=r"^losses.mean \(where\) and its peer differ"):
        every.measure(row._replace(plain=lambda x, where: 2 * row.plain(x, where)), quick=True)


PROGRAM = """HloModule example

%row (rows: f32[100,10], i: s32[]) -> f32[1,10] {
  %rows = f32[100,10]{1,0:T(8,128)} parameter(0)
  %i = s32[] parameter(1)
  ROOT %slice = f32[1,10]{1,0} dynamic-slice(%rows, %i, %i), dynamic_slice_sizes={1,10}
}

%body (state: (s32[], f32[100,10])) -> (s32[], f32[100,10]) {
  %state = (s32[], f32[100,10]{1,0:T(8,128)}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %rows = f32[100,10]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %some = f32[1,10]{1,0} fusion(%rows, %i), kind=kLoop, calls=%row
  ROOT %next = (s32[], f32[100,10]{1,0:T(8,128)}) tuple(%i, %rows)
}

ENTRY %main (x: f32[100,10]) -> f32[100,10] {
  %x = f32[100,10]{1,0:T(8,128)} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[100,10]{1,0:T(8,128)}) tuple(%zero, %x)
  %loop = (s32[], f32[100,10]{1,0:T(8,128)}) while(%start), body=%body, backend_config={"known_trip_count":{"n":"7"}}
  %fast = f32[100,10]{1,0:T(8,128)S(1)} copy(%x)
  ROOT %y = f32[100,10]{1,0:T(8,128)} negate(%fast)
}
"""


def test_traffic_is_of_slices_in_loops_of_whole_tiles_and_of_the_large_memory_alone():
    tiles, rounds, row, counter = 4 * 104 * 128, 7, 4 * 10, 4
    assert traffic(PROGRAM) == (rounds * (2 * row + counter) + 2 * tiles, rounds + 2, [rounds])

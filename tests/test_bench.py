"""The command that measures a device runs here too, with small shapes."""

import pathlib
import subprocess
import sys

import pytest

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

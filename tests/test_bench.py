"""The command that measures a device runs here too, with small shapes."""

import pathlib
import subprocess
import sys

import pytest

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

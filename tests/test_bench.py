"""The commands that measure run here too, with small shapes and few rows, and leave no public function out."""

import importlib
import pathlib
import subprocess
import sys

import jax
import pytest
import test_public_api

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

"""The notebooks that are committed were run, without an error, from the sources that are committed beside them.

Their last cells assert what they claim, so a script that ends well is a test that passes: `pytest --all` runs them, and
needs the extras that they need.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SOURCES = sorted(path for path in NOTEBOOKS.glob("*.py") if path.stem != "common")
EXECUTED = sorted(NOTEBOOKS.glob("*.ipynb"))


def code_cells(path):
    """The code cells that hold code: Jupyter gives an empty one neither a count nor an output."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def outputs(path):
    """All outputs of a notebook, in order."""
    return [output for cell in code_cells(path) for output in cell.outputs]


def sources(notebook):
    """Type and text of each cell, without the blank lines at its ends that the two formats treat differently."""
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


def named(paths):
    """Parameters that name a test by the notebook's file."""
    return [pytest.param(path, id=path.name) for path in paths]


def test_there_are_notebooks():
    # Parametrised over nothing, the tests below would be skipped and the suite would pass.
    assert SOURCES
    assert EXECUTED


@pytest.mark.parametrize("path", named(SOURCES))
def test_a_source_has_a_notebook(path):
    assert path.with_suffix(".ipynb") in EXECUTED


@pytest.mark.parametrize("path", named(EXECUTED))
def test_a_notebook_is_in_step_with_its_source(path):
    notebook = nbformat.read(path, as_version=4)
    assert sources(notebook) == sources(jupytext.read(path.with_suffix(".py")))


@pytest.mark.parametrize("path", named(EXECUTED))
def test_every_code_cell_was_executed_in_order(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("path", named(EXECUTED))
def test_a_notebook_shows_its_outputs_and_no_error(path):
    kinds = {output.output_type for output in outputs(path)}
    assert kinds
    assert "error" not in kinds


@pytest.mark.parametrize("path", named(EXECUTED))
def test_a_notebook_opens_on_any_machine(path):
    metadata = nbformat.read(path, as_version=4).metadata
    assert metadata.kernelspec.name == "python3"
    printed = "".join(output.text for output in outputs(path) if output.output_type == "stream")
    assert not re.findall(r"(?:^|[\s'\"(])/\w+/\S*|[A-Z]:\\\S*", printed)  # no path of the machine it was made on


def test_the_gallery_shows_every_notebook_once():
    text = (NOTEBOOKS / "README.md").read_text()
    entries = re.findall(
        r'^### \[[^\]]+\]\((\w+)\.ipynb\)\n\n<img src="(\w+)\.png" width="480" alt="[^"]+">\n\n\w', text, re.M
    )
    assert sorted(name for name, _ in entries) == [path.stem for path in SOURCES]
    for name, picture in entries:
        assert name == picture
        assert (NOTEBOOKS / f"{name}.png").exists()


@pytest.mark.gate
@pytest.mark.parametrize("claimant", SOURCES, ids=lambda path: path.name)
def test_what_a_notebook_claims_holds_today(claimant, tmp_path):
    copy = tmp_path / "notebooks"  # a run saves its pictures beside itself
    shutil.copytree(NOTEBOOKS, copy)
    environment = os.environ | {"MPLBACKEND": "Agg", "XLA_FLAGS": ""}  # one device, as a reader has
    command = [sys.executable, copy / claimant.name]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.returncode == 0, run.stdout[-2000:]

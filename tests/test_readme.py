"""The blocks of README.md and of the site's pages run and print what they show; the commands are those of the gate."""

import re

import blocks
import pytest

import jaxdiv

README = (blocks.ROOT / "README.md").read_text()
NAMES = re.compile(rf"`({'|'.join(jaxdiv.__all__)})\.(\w+)")


def of_page(file):
    """A parameter: the site's pages, many and slow, need `--all`."""
    marks = [pytest.mark.gate] * (file.name != "README.md")
    return pytest.param(file, id=file.relative_to(blocks.ROOT).as_posix(), marks=marks)


@pytest.mark.parametrize("file", [of_page(file) for file in blocks.PAGES])
def test_a_page_prints_what_it_shows(file):
    for found, block in zip(blocks.printed(file), blocks.blocks(file), strict=True):
        assert blocks.same(found, block.output), f"{block.code}\nprints\n{found}\nand the page shows\n{block.output}"


def test_two_outputs_are_the_same_to_the_digits_shown():
    assert blocks.same("a 0.12346 [1 2]\n", "a 0.1235 [1  2]\n")
    assert not blocks.same("a 0.12346\n", "a 0.1237\n")
    assert not blocks.same("a 3\n", "a 4\n")
    assert not blocks.same("a 3\n", "b 3\n")
    assert not blocks.same("", "a 3\n")


def test_every_block_of_the_readme_prints():
    found = blocks.blocks(blocks.ROOT / "README.md")
    assert len(found) == 7
    assert all(block.output for block in found)


def test_the_readme_is_as_long_as_its_reader_is_patient():
    assert len(README.splitlines()) <= 200


def test_the_commands_are_there():
    lines = README.splitlines()
    assert "pip install -e '.[test]' && python -m pytest" in lines
    assert "pip install -e '.[notebooks]' && python notebooks/distillation.py" in lines


@pytest.mark.parametrize("file", blocks.PAGES, ids=lambda file: file.relative_to(blocks.ROOT).as_posix())
def test_every_name_in_code_exists(file):
    renamed = re.sub(r"^## Renamed\n.*", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
    for family, name in NAMES.findall(renamed):
        assert hasattr(getattr(jaxdiv, family), name) or name in ("verb", "name", "check"), f"{family}.{name}"


def test_what_the_readme_links_to_exists():
    targets = re.findall(r"\]\(([^)#]+)", README)
    assert all((blocks.ROOT / target).exists() for target in targets), targets

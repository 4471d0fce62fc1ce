"""The order of the house: imports inside the package go strictly downward, folder by folder."""

import ast
import graphlib
import pathlib

import jaxdiv

ROOT = pathlib.Path(jaxdiv.__file__).parent
LONGEST = 450  # lines of a private file


def _module(path):
    """The dotted name of a file within the package; that of a folder is its `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {_module(path): path for path in ROOT.rglob("*.py")}


def _imports(path):
    """The modules of the package that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.removeprefix("jaxdiv.") for name in node.names if name.name.startswith("jaxdiv."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            if node.module and node.module.split(".")[0] == "jaxdiv":
                within = node.module.removeprefix("jaxdiv").removeprefix(".")
                for name in node.names:
                    full = f"{within}.{name.name}".removeprefix(".")
                    yield full if full in FILES else within


GRAPH = {name: set(_imports(path)) for name, path in FILES.items()}


def _floor(module):
    """A folder is a floor of its own, and so is each public file."""
    return module.split(".")[0]


def test_every_import_is_of_a_file_of_the_package():
    assert set().union(*GRAPH.values()) <= set(FILES)
    assert len(FILES) > 30


def test_no_file_imports_itself_by_way_of_others():
    # The names that a folder's `__init__` hands on come from its files: those it imports, they do not import it.
    list(graphlib.TopologicalSorter(GRAPH).static_order())


def test_no_folder_imports_from_what_is_above_it():
    floors = {}
    for module, imported in GRAPH.items():
        floors.setdefault(_floor(module), set()).update(map(_floor, imported))
    for floor, below in floors.items():
        below.discard(floor)
    order = list(graphlib.TopologicalSorter(floors).static_order())
    assert order.index("_core") < order.index("__init__") < len(order)


def test_private_files_are_in_folders_and_short():
    beside = {path.name for path in ROOT.glob("_*.py")} - {"__init__.py", "__main__.py"}
    assert not beside
    private = {name: len(path.read_text().splitlines()) for name, path in FILES.items() if name.startswith("_")}
    assert {name: lines for name, lines in private.items() if lines > LONGEST} == {}


def test_no_file_reaches_for_a_private_name_of_another():
    reached = {}
    for name, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxdiv."):
                private = {x.name for x in node.names if x.name.startswith("_")}
                if private:
                    reached[name] = private
    assert reached == {}


def test_every_error_is_raised_where_inputs_are_checked():
    raising = {
        name
        for name, path in FILES.items()
        if any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(path.read_text())))
    }
    assert {name for name in raising if _floor(name) not in ("_inputs", "_selfcheck", "__main__")} == set()


def test_every_product_names_its_precision():
    # A private function does: `@` leaves it to the device. Host code of the self-check is NumPy's.
    files = {name for name in FILES if _floor(name) != "_selfcheck"}
    assert not {x for x in files for y in ast.walk(ast.parse(FILES[x].read_text())) if isinstance(y, ast.MatMult)}

"""The gallery: every executed notebook as a page, without a server, a script or a font of its own."""

import base64
import html
import json
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
ENTRY = re.compile(
    r"^### \[(?P<title>[^\]]+)\]\((?P<name>\w+)\.ipynb\)\n\n"
    r'<img src="(?P=name)\.png" width="\d+" alt="(?P<picture>[^"]+)">\n\n'
    r"(?P<words>.+?)\n(?=\n#|\Z)",
    re.MULTILINE | re.DOTALL,
)


class Entry(NamedTuple):
    """What notebooks/README.md says of a notebook: its name in words, its file, its picture in words, its verdict."""

    title: str
    name: str
    picture: str
    words: str


def write(folder: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """Writes a page to a notebook; returns the gallery, and task -> title -> page for the navigation."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    tasks = _tasks()
    listed = [entry.name for entries in tasks.values() for entry in entries]
    executed = [file.stem for file in NOTEBOOKS.glob("*.ipynb")]
    if sorted(listed) != sorted(executed):
        sys.exit(f"notebooks and entries of notebooks/README.md differ: {sorted(set(listed) ^ set(executed))}")
    parts, pages = [], {}
    for task, entries in tasks.items():
        for entry in entries:
            cells = json.loads((NOTEBOOKS / f"{entry.name}.ipynb").read_text())["cells"]
            (folder / f"{entry.name}.md").write_text(_page(entry, cells, folder / "pictures"))
        cards = "\n\n".join(_card(entry, folder) for entry in entries)
        parts.append(f'## {task}\n\n<div class="cards" markdown>\n\n{cards}\n\n</div>')
        pages[task] = {entry.title: f"applications/{entry.name}.md" for entry in entries}
    return "\n\n".join(parts), pages


def _tasks():
    """The entries of notebooks/README.md under each of its tasks that has any."""
    _, *sections = re.split(r"^## ", (NOTEBOOKS / "README.md").read_text(), flags=re.MULTILINE)
    found = {text.partition("\n")[0]: [Entry(**x.groupdict()) for x in ENTRY.finditer(text)] for text in sections}
    return {task: entries for task, entries in found.items() if entries}


def _card(entry, folder):
    shutil.copy(NOTEBOOKS / f"{entry.name}.png", folder / "pictures")
    image = f"![{html.escape(entry.picture)}](pictures/{entry.name}.png){{ loading=lazy }}"
    return f"<div markdown>\n\n### [{entry.title}]({entry.name}.md)\n\n{image}\n\n{entry.words}\n\n</div>"


def _page(entry, cells, pictures):
    note = f"The notebook is `notebooks/{entry.name}.ipynb`; `python notebooks/{entry.name}.py` runs it.\n"
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(f"````python\n{source}\n````")
            parts += filter(None, (_output(output, entry, pictures, len(parts)) for output in cell["outputs"]))
    head, _, rest = parts[0].partition("\n")
    return "\n\n".join([head, note, rest, *parts[1:]]) + "\n"


def _output(output, entry, pictures, index):
    if output["output_type"] == "stream":
        return _text("".join(output["text"])) if output["name"] == "stdout" else ""
    data = output.get("data", {})
    if "image/png" in data:
        file = f"{entry.name}-{index:02d}.png"
        (pictures / file).write_bytes(base64.b64decode("".join(data["image/png"])))
        return f"![{html.escape(entry.picture)}](pictures/{file})"
    return _text("".join(data.get("text/plain", output.get("traceback", ""))))


def _text(text):
    lines = [line.split("\r")[-1] for line in re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip().splitlines()]
    return "````text\n" + "\n".join(lines) + "\n````" if lines else ""

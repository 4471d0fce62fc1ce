"""The gallery: every executed notebook as a page, without a server, a script or a font of its own."""

import base64
import html
import json
import re
import shutil
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def write(folder: Path) -> tuple[str, dict[str, str]]:
    """Writes a page to a notebook; returns the cards of the gallery, and title -> page for the navigation."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    said = _said()
    cards, pages = [], {}
    for file in sorted(NOTEBOOKS.glob("*.ipynb")):
        name, cells = file.stem, json.loads(file.read_text())["cells"]
        text = _page(name, cells, folder / "pictures")
        title = re.search(r"^# (.+)$", text, re.MULTILINE)[1]
        (folder / f"{name}.md").write_text(text)
        pages[title] = f"applications/{name}.md"
        cards.append(_card(name, title, said.get(name, ""), folder))
    return '<div class="cards" markdown>\n\n' + "\n\n".join(cards) + "\n\n</div>", pages


def _said():
    """What the table of notebooks/README.md says of each."""
    text = (NOTEBOOKS / "README.md").read_text()
    return dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", text, re.MULTILINE))


def _card(name, title, words, folder):
    pictures = sorted((folder / "pictures").glob(f"{name}-*.png"))
    own = NOTEBOOKS / f"{name}.png"
    if own.exists() and not pictures:
        pictures = [Path(shutil.copy(own, folder / "pictures"))]
    image = f"![](pictures/{pictures[-1].name}){{ loading=lazy }}\n\n" if pictures else ""
    return f"<div markdown>\n\n### [{title}]({name}.md)\n\n{image}{words}\n\n</div>"


def _page(name, cells, pictures):
    note = f"The notebook is `notebooks/{name}.ipynb`; `python notebooks/{name}.py` runs it.\n"
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(f"````python\n{source}\n````")
            parts += filter(None, (_output(output, name, pictures, len(parts)) for output in cell["outputs"]))
    head, _, rest = parts[0].partition("\n")
    return "\n\n".join([head, note, rest, *parts[1:]]) + "\n"


def _output(output, name, pictures, index):
    if output["output_type"] == "stream":
        return _text("".join(output["text"])) if output["name"] == "stdout" else ""
    data = output.get("data", {})
    if "image/png" in data:
        file = f"{name}-{index:02d}.png"
        (pictures / file).write_bytes(base64.b64decode("".join(data["image/png"])))
        return f"![{_alternative(name)}](pictures/{file})"
    return _text("".join(data.get("text/plain", output.get("traceback", ""))))


def _text(text):
    lines = [line.split("\r")[-1] for line in re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip().splitlines()]
    return "````text\n" + "\n".join(lines) + "\n````" if lines else ""


def _alternative(name):
    found = re.search(rf"!\[([^\]]+)\]\({name}\.png\)", (NOTEBOOKS / "README.md").read_text())
    return html.escape(found[1] if found else f"The picture of {name}")

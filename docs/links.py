"""A hook of MkDocs: names in code, such as `losses.js`, become links, and a name that does not exist is an error."""

import json
import logging
import posixpath
import re
from pathlib import Path

LOG = logging.getLogger("mkdocs.jaxdiv")
NAMES = Path(__file__).parents[1] / "build" / "names.json"
KEPT = re.compile(r"(<(a|pre|h[1-6]|summary)\b.*?</\2>)", re.DOTALL)
CODE = re.compile(r"<code>(jaxdiv\.)?((?:\w+\.)*\w+)</code>")


def on_page_content(html, page, **_):
    """Links the code of a page, outside of headings, links and blocks."""
    names = json.loads(NAMES.read_text())
    parts = KEPT.split(html)[::3], KEPT.findall(html)
    linked = [CODE.sub(lambda match: _link(match, names, page), text) for text in parts[0]]
    kept = [whole for whole, _ in parts[1]] + [""]
    return "".join(text + block for text, block in zip(linked, kept, strict=True))


def _link(match, names, page):
    name, own = match[2], f"{Path(page.file.src_uri).stem}.{match[2]}"
    name = own if own in names and page.file.src_uri.startswith("api/") else name  # a module's own, by its bare name
    if name in names:
        target = posixpath.relpath(names[name], posixpath.dirname(page.file.url) or ".")
        return f'<a href="{target}">{match[0]}</a>'
    family = name.split(".")[0]
    if family in names and name.count(".") == 1:
        LOG.warning("%s: there is no %s", page.file.src_uri, name)
    return match[0]

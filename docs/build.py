"""`python docs/build.py` writes the site to `site/`; it fails on a warning, a broken link or a missing docstring.

Pages are those of `docs/pages`, in which a line `{{ name }}` stands for something generated; those of the API, of the
notebooks and of the changelog are generated whole. Everything is gathered in `build/docs` for MkDocs.
"""

import json
import logging
import os
import shutil
import sys
import time
from pathlib import Path

import griffe

HERE = Path(__file__).parent
ROOT = HERE.parent
PAGES = ROOT / "build" / "docs"
sys.path[:0] = [str(HERE), str(ROOT)]
os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")

import figures
import gallery
import graphs

GROUPS = {
    "Discrete": ("categorical", "simplex", "bernoulli", "elementary"),
    "Continuous": ("gaussian", "mixture", "exponential_family"),
    "Training": ("losses", "objectives", "transforms", "estimators"),
    "Vocabularies": ("fused", "topk"),
    "Evaluation": ("batching", "clustering", "embedding", "metrics"),
}
MANUAL = {
    "Home": "index.md",
    "Guides": {
        "Quick start": "quick_start.md",
        "Choosing a divergence": "choosing.md",
        "Training losses": "guides/losses.md",
        "Gaussians": "guides/gaussians.md",
        "Vocabulary scale": "guides/vocabularies.md",
        "Reinforcement learning": "guides/reinforcement.md",
        "Evaluating many distributions": "guides/evaluation.md",
        "Many devices": "guides/devices.md",
        "Names": "names.md",
        "Coming from elsewhere": "elsewhere.md",
    },
}
ABOUT = {
    "How it works": "how_it_works.md",
    "Accuracy": "accuracy.md",
    "Speed": "speed.md",
    "Contributing": "contributing.md",
    "Changelog": "changelog.md",
}


def main() -> None:
    """Builds the site, and says how long it took and what it holds."""
    started = time.perf_counter()
    package = griffe.load("jaxdiv", search_paths=[str(ROOT)])
    modules = _public(package)
    _refuse_silence(modules)
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(HERE / "pages", PAGES)
    graphs.draw()
    cards, notebooks = gallery.write(PAGES / "applications")
    api = _api(modules)
    generated = {
        "accuracy": figures.accuracy(),
        "near_equality": figures.near_equality(),
        "speed": figures.speed(PAGES / "assets" / "speed"),
        "gallery": cards,
        "matrix": _matrix(modules),
        "modules": _list(modules),
    }
    _fill(generated)
    shutil.copy(HERE / "near_equality.svg", PAGES / "assets")
    (PAGES / "changelog.md").write_text((ROOT / "CHANGELOG.md").read_text())
    nav = MANUAL | {"Applications": {"Gallery": "applications/index.md"} | notebooks, "API": api, "About": ABOUT}
    _build(_navigation(nav))
    (ROOT / "site" / "404.html").unlink()  # a server's page, with paths from its root
    pages = len(list((ROOT / "site").rglob("*.html")))
    functions = sum(len(_members(module)) for module in modules.values())
    shown = sum(map(len, notebooks.values()))
    print(f"site/: {pages} pages, {len(modules)} modules, {functions} public names, {shown} notebooks", end="")
    print(f", {time.perf_counter() - started:.0f} s")


def _public(package):
    return {name: module for name, module in sorted(package.modules.items()) if not name.startswith("_")}


def _members(module):
    """What a module defines, and the classes it takes from private ones that its docstring names."""
    public = [x for x in module.members.values() if not x.name.startswith("_")]
    own = [x for x in public if not x.is_alias and (x.is_function or x.is_class)]
    named = [x for x in public if x.is_alias and f"`{x.name}`" in module.docstring.value]
    return own + [x for x in named if x.target_path.startswith("jaxdiv._") and x.is_class]


def _refuse_silence(modules):
    silent = [x.path for module in modules.values() for x in (module, *_members(module)) if not x.has_docstring]
    if silent:
        sys.exit(f"without a docstring: {', '.join(silent)}")


def _api(modules):
    """A page to a module; also every public name -> its place, for links."""
    (PAGES / "api").mkdir(exist_ok=True)
    places = {}
    for name, module in modules.items():
        shown = json.dumps([x.name for x in _members(module)])
        text = f"# jaxdiv.{name}\n\n::: jaxdiv.{name}\n    options:\n      members: {shown}\n"
        (PAGES / "api" / f"{name}.md").write_text(text)
        places[name] = f"api/{name}.html"
        for x in _members(module):
            places[f"{name}.{x.name}"] = f"api/{name}.html#{x.path}"
            places.update({x.name: f"api/{name}.html#{x.path}"} if name == "batching" else {})
    (ROOT / "build" / "names.json").write_text(json.dumps(places))
    known = [name for group in GROUPS.values() for name in group]
    groups = GROUPS | {"Other": [name for name in modules if name not in known]}
    nav = {"Modules": "api/index.md"}
    for title, names in groups.items():
        there = {name: f"api/{name}.md" for name in names if name in modules}
        nav |= {title: there} if there else {}
    return nav


def _list(modules):
    lines = (
        f"| [`{name}`]({name}.md) | {module.docstring.value.splitlines()[0]} |" for name, module in modules.items()
    )
    return "\n".join(["| module | |", "|---|---|", *lines])


def _matrix(modules):
    """Verbs by family, from what is defined."""
    families = [
        x for x in ("categorical", "simplex", "bernoulli", "gaussian", "exponential_family", "losses") if x in modules
    ]
    own = {family: {x.name for x in _members(modules[family]) if x.is_function} for family in families}
    of = {"losses": own.pop("losses", set())}
    verbs = list(dict.fromkeys(x.name for family in own for x in _members(modules[family]) if x.is_function))
    of["losses"] |= {"kl"} if "forward_kl" in of["losses"] else set()
    count = {verb: sum(verb in names for names in own.values()) for verb in verbs}
    lines = ["| | " + " | ".join(f"`{x}`" for x in (*own, "losses")) + " |", "|---|" + ":-:|" * (len(own) + 1)]
    for verb in sorted(verbs, key=lambda verb: -count[verb]):
        if count[verb] > 1 or verb in ("mutual_information", "geometric_js", "squared_wasserstein2"):
            cells = (
                f"[x]({family}.md#jaxdiv.{family}.{verb})" if verb in names else "" for family, names in own.items()
            )
            lines.append(f"| `{verb}` | {' | '.join(cells)} | {'x' if verb in of['losses'] else ''} |")
    return "\n".join(lines).replace("](", "](api/")


def _fill(generated):
    for file in PAGES.rglob("*.md"):
        text = filled = file.read_text()
        for name, value in generated.items():
            filled = filled.replace(f"{{{{ {name} }}}}", value)
        if filled != text:
            file.write_text(filled)


def _navigation(tree):
    return [{title: _navigation(x) if isinstance(x, dict) else x} for title, x in tree.items()]


def _build(nav):
    from mkdocs.commands import build
    from mkdocs.config import load_config

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    warnings = _Count()
    logging.getLogger().addHandler(warnings)
    config = load_config(str(HERE / "mkdocs.yml"), nav=nav)
    config.plugins.on_startup(command="build", dirty=False)
    build.build(config)
    if warnings.count:
        sys.exit(f"{warnings.count} warnings")


class _Count(logging.Handler):
    count = 0

    def emit(self, record):
        self.count += record.levelno >= logging.WARNING


if __name__ == "__main__":
    main()

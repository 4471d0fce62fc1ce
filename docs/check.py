"""`python docs/check.py` opens every page of `site/` in a headless Chromium, as files, at 1280 and 390 px.

It fails on an error in the console, a request that fails or leaves the folder, a formula that is not rendered, an image
that does not load, a page wider than its window, and, on the main pages, on serious faults that axe finds. It takes
`playwright` and `axe-playwright-python` from PyPI, and a Chromium: that on PATH, or the one named by CHROMIUM.
`--pictures FOLDER` keeps screenshots of some pages.
"""

import argparse
import os
import re
import shutil
import sys
import time
from importlib import resources
from pathlib import Path

from playwright.sync_api import sync_playwright

SITE = Path(__file__).parents[1] / "site"
WIDTHS = (1280, 390)
MAIN = (
    "index.html",
    "quick_start.html",
    "choosing.html",
    "guides/losses.html",
    "applications/index.html",
    "api/losses.html",
)
PICTURES = (
    *MAIN,
    "guides/gaussians.html",
    "speed.html",
    "accuracy.html",
    "how_it_works.html",
    "elsewhere.html",
    "api/index.html",
)
FORMULAS = r"""() => {
  const body = document.querySelector("article").cloneNode(true);
  body.querySelectorAll("pre, code, .katex, script").forEach(x => x.remove());
  const raw = body.textContent.match(/\$[^$\n]{1,80}\$|\\\(|\\\[|\\mathrm/);
  const wrong = document.querySelector(".katex-error");
  const images = [...document.images].filter(x => (x.loading = "eager", x.complete && !x.naturalWidth)).map(x => x.src);
  const root = document.documentElement, wide = root.scrollWidth - root.clientWidth;
  const left = [...document.querySelectorAll(".arithmatex")].filter(x => !x.querySelector(".katex")).length;
  const formulas = document.querySelectorAll(".katex").length;
  return {raw: raw && raw[0], wrong: wrong && wrong.textContent, images, wide, left, formulas};
}"""
AXE = """() => axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations
  .filter(x => ["serious", "critical"].includes(x.impact))
  .map(x => `${x.id}: ${x.nodes.length}, such as ${x.nodes.slice(0, 3).map(y => y.html.slice(0, 90)).join(" ")}`))"""


def main() -> None:
    """Opens the pages, prints the faults and a count, and exits with 1 if there are any faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path)
    folder = parser.parse_args().pictures
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not executable:
        sys.exit("no Chromium found: apt-get install chromium, or set CHROMIUM")
    started = time.perf_counter()
    pages = sorted(SITE.rglob("*.html"))
    faults, formulas = [], 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--allow-file-access-from-files"]
        )
        for width in WIDTHS:
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.set_default_timeout(120_000)
            said = []
            _listen(page, said)
            for file in pages:
                name = file.relative_to(SITE).as_posix()
                found = _open(page, file)
                formulas += found["formulas"] if width == WIDTHS[0] else 0
                said += _wrong(found)
                if width == WIDTHS[0] and name in MAIN:
                    said += _accessibility(page)
                if folder and name in PICTURES:
                    folder.mkdir(parents=True, exist_ok=True)
                    page.screenshot(path=folder / f"{name.replace('/', '-')[:-5]}-{width}.png", full_page=False)
                faults += [f"{name} at {width} px: {fault}" for fault in said]
                said.clear()
            faults += _search(page) if width == WIDTHS[0] else []
            page.close()
        browser.close()
    print("\n".join(faults))
    links = sum(len(re.findall(r'<a [^>]*href="(?!https?:)', file.read_text())) for file in pages)
    print(f"{len(pages)} pages, {formulas} formulas, {links} links inside, {len(faults)} faults", end="")
    print(f", {time.perf_counter() - started:.0f} s")
    sys.exit(bool(faults))


def _listen(page, said):
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url}") if _is_lost(request) else None)
    page.on("request", lambda request: said.append(f"left the site: {request.url}") if _outside(request.url) else None)


def _is_lost(request):
    """Whether a request failed, and not because the page was left before its picture was there."""
    return request.failure != "net::ERR_ABORTED"


def _outside(url):
    return not url.startswith((SITE.as_uri(), "data:", "blob:", "about:"))


def _open(page, file):
    page.goto(file.as_uri(), wait_until="load")
    page.evaluate("() => document.querySelectorAll('img[loading=lazy]').forEach(x => (x.loading = 'eager'))")
    page.evaluate("() => Promise.all([...document.images].map(x => x.decode().catch(() => 0)))")
    return page.evaluate(FORMULAS)


def _wrong(found):
    if found["raw"]:
        yield f"raw formula {found['raw']!r}"
    if found["left"]:
        yield f"{found['left']} formulas not rendered"
    if found["wrong"]:
        yield f"formula with an error: {found['wrong']}"
    if found["images"]:
        yield f"images not loaded: {found['images']}"
    if found["wide"] > 0:
        yield f"{found['wide']} px wider than the window"


def _accessibility(page):
    page.evaluate((resources.files("axe_playwright_python") / "axe.min.js").read_text())
    return [f"axe, {fault}" for fault in page.evaluate(AXE)]


def _search(page):
    page.goto((SITE / "index.html").as_uri())
    page.fill("input[name=query]", "triangular")
    try:
        page.wait_for_selector(".md-search-result__item", state="attached", timeout=20_000)
    except Exception as error:
        return [f"the search finds nothing: {error}"]
    return []


if __name__ == "__main__":
    main()

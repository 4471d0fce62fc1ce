"""The Python blocks of a Markdown page, run as they stand, and what they print beside what the page says they print.

Of README.md each block is a program; on a page of the site each goes on from those before it. A block marked `py`, not
`python`, is another library's and is not run. `python tests/blocks.py FILE...` writes what blocks print into the pages.
"""

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import NamedTuple

import jax

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("pages/**/*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n?```text\n(.*?)```\n)?", re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")
NEEDS = re.compile(r"^import .*\bray\b", re.MULTILINE)  # run in with_ray.py


class Block(NamedTuple):
    """A block's code and the output under it, and whether it starts anew."""

    code: str
    output: str
    start: int


def blocks(file: Path) -> list[Block]:
    """The blocks of a page, in order."""
    found = (Block(match[1], match[2] or "", match.start()) for match in BLOCK.finditer(file.read_text()))
    return [block for block in found if not NEEDS.search(block.code)]


def apart(file: Path) -> list[str]:
    """The blocks of a page that need what the other tests do not."""
    return [match[1] for match in BLOCK.finditer(file.read_text()) if NEEDS.search(match[1])]


def printed(file: Path) -> list[str]:
    """What each block of a page prints."""
    outputs, names = [], {}
    for block in blocks(file):
        names = {} if file.name == "README.md" else names
        where = f"{file.name}, line {file.read_text()[: block.start].count(chr(10)) + 1}"
        with contextlib.redirect_stdout(io.StringIO()) as out, jax.numpy_dtype_promotion("standard"):
            exec(compile(block.code, where, "exec"), names)
        outputs.append(out.getvalue())
    return outputs


def same(found: str, shown: str) -> bool:
    """Whether two outputs agree, numbers to one in the last digit shown or 1e-4; lines that name optax are noise."""
    pairs = list(zip(found.splitlines(), shown.splitlines(), strict=False))
    return len(found.splitlines()) == len(shown.splitlines()) and all("optax" in b or _close(a, b) for a, b in pairs)


def _close(a, b):
    words = [NUMBER.sub("#", re.sub(r"\s", "", x)) for x in (a, b)]
    numbers = [(float(x), float(y), _unit(y)) for x, y in zip(NUMBER.findall(a), NUMBER.findall(b), strict=False)]
    return words[0] == words[1] and all(abs(x - y) <= max(1.01 * unit, 1e-4 * abs(y)) for x, y, unit in numbers)


def _unit(number):
    digits, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2])) if "." in digits or exponent else 0.0


def main() -> None:
    """Rewrites the outputs of the pages named."""
    for name in sys.argv[1:]:
        file = Path(name)
        outputs = iter(printed(file))

        def written(match, outputs=outputs):
            if NEEDS.search(match[1]):
                return match[0]
            text = next(outputs)
            return f"```python\n{match[1]}```\n" + (f"```text\n{text}```\n" if text else "")

        file.write_text(BLOCK.sub(written, file.read_text()))


if __name__ == "__main__":
    main()

"""Which NumPy functions the files of other packages call: `numpy_calls.npz` beside this file.

`python notebooks/data/numpy_calls.py` makes it anew, from the packages that are installed. A row is one source file, a
column one function, as in `np.linalg.norm(`; the label of a row is the package that the file belongs to.
"""

import collections
import importlib.util
import re
from pathlib import Path

import numpy as np

PACKAGES = ["matplotlib", "networkx", "numpy", "pandas", "scipy", "skimage", "sklearn"]
LEAST, MOST = 8, 255  # functions of a file and files of a function; calls of a function in a file


def calls(path):
    """How often a source file calls each function of NumPy."""
    return collections.Counter(re.findall(r"\bnp\.((?:\w+\.)?[a-z_0-9]+)\(", path.read_text("utf-8", "ignore")))


def main():
    files = []
    for label, name in enumerate(PACKAGES):
        folder = Path(importlib.util.find_spec(name).origin).parent
        files += [(label, calls(path)) for path in sorted(folder.rglob("*.py"))]
    files = [(label, found) for label, found in files if len(found) >= LEAST]
    shares = collections.Counter(function for _, found in files for function in found)
    functions = sorted(function for function, n in shares.items() if n >= LEAST)
    counts = np.array([[min(MOST, found[function]) for function in functions] for _, found in files], np.uint8)
    labels = np.array([label for label, _ in files], np.uint8)
    kept = np.sum(counts > 0, axis=1) >= LEAST
    path = Path(__file__).with_suffix(".npz")
    np.savez_compressed(path, counts=counts[kept], labels=labels[kept], functions=functions, packages=PACKAGES)
    print(path.name, counts[kept].shape, np.bincount(labels[kept]), path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

"""Counts of words in docstrings of NumPy, SciPy, scikit-learn, Matplotlib: `docstrings.npz` beside this file.

`python notebooks/data/docstrings.py` makes it anew, from the packages that are installed. A document is the docstring
of one public function or class; its label is the module that it stands in.
"""

import collections
import importlib
import inspect
import re
from pathlib import Path

import numpy as np

MODULES = ["numpy.linalg", "numpy.random", "scipy.interpolate", "scipy.ndimage", "scipy.optimize"]
MODULES += ["scipy.signal", "scipy.special", "scipy.stats", "sklearn.metrics", "matplotlib.pyplot"]
PER_MODULE, WORDS, LEAST = 60, 800, 30


def documents(name):
    """Word lists of the docstrings of a module, the longest first."""
    module, found = importlib.import_module(name), {}
    for member in sorted(vars(module)):
        text = inspect.getdoc(getattr(module, member)) or ""
        if not member.startswith("_") and not inspect.ismodule(getattr(module, member)) and len(text) >= 300:
            found[text] = re.findall(r"[a-z]{3,}", text.lower())
    return sorted(found.values(), key=len, reverse=True)[:PER_MODULE]


def main():
    texts = [(label, words) for label, name in enumerate(MODULES) for words in documents(name)]
    shares = collections.Counter(word for _, words in texts for word in set(words))
    common = [word for word, n in shares.most_common() if 5 <= n <= len(texts) / 2][:WORDS]
    index = {word: i for i, word in enumerate(sorted(common))}
    counts = np.zeros((len(texts), len(index)), np.uint8)
    for row, (_, words) in enumerate(texts):
        for word in words:
            if word in index:
                counts[row, index[word]] = min(255, counts[row, index[word]] + 1)
    labels = np.array([label for label, _ in texts], np.uint8)
    kept = counts.sum(axis=1) >= LEAST
    path = Path(__file__).with_suffix(".npz")
    np.savez_compressed(path, counts=counts[kept], labels=labels[kept], words=sorted(common), modules=MODULES)
    print(path.name, counts[kept].shape, np.bincount(labels[kept]), path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

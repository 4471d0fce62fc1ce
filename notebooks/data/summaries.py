"""Counts of words in summaries and bodies of docstrings: `summaries.npz` beside this file.

`python notebooks/data/summaries.py` makes it anew, from the packages that are installed. Each public function or class
has its first paragraph as the query and all that follows, without its own name, as the document. Words are those of the
documents that are in at least one query.

- `document_words [n]`, `document_counts [n]` and `document_sizes [d]`: the different words of one document after the
  other, how often each occurs there, and how many each document has;
- `query_words [m]` and `query_sizes [d]`: the same of the queries, every occurrence by itself;
- `lengths [d]`: how many words each document has, those that are in no query included.
"""

import collections
import importlib
import inspect
import re
from pathlib import Path

import numpy as np

PACKAGES = {
    "numpy": "linalg fft random",
    "scipy": "stats signal optimize sparse special ndimage interpolate spatial",
    "sklearn": "cluster linear_model metrics ensemble datasets decomposition",
    "skimage": "filters morphology segmentation transform measure feature",
    "matplotlib": "pyplot",
    "networkx": "algorithms",
}
STOP = """the a an of to and in is are be for with this that by or as on it from if not at can which will you has have
was than used use using"""


def words(text):
    return [word for word in re.findall(r"[a-z]{2,}", text.lower()) if word not in STOP.split()]


def texts():
    """Query and document of every public function or class that has enough of both."""
    found = {}
    modules = [f"{package}.{name}" for package, names in PACKAGES.items() for name in names.split()]
    for module in map(importlib.import_module, modules):
        for name in sorted(vars(module)):
            member = getattr(module, name)
            text = inspect.getdoc(member) or ""
            if name.startswith("_") or inspect.ismodule(member) or len(text) < 300:
                continue
            query, _, body = text.partition("\n\n")
            if query.strip().startswith(f"{name}("):  # a signature stands before the summary
                query, _, body = body.partition("\n\n")
            query, body = words(query), words(body.replace(name, " "))
            if 3 <= len(query) <= 25 and len(body) > 40:
                found[text] = query, body
    return list(found.values())


def main():
    queries, bodies = zip(*texts(), strict=True)
    vocabulary = sorted({word for query in queries for word in query} & {word for body in bodies for word in body})
    index = {word: i for i, word in enumerate(vocabulary)}
    asked = [[index[word] for word in query if word in index] for query in queries]
    counted = [sorted(collections.Counter(index[word] for word in body if word in index).items()) for body in bodies]
    path = Path(__file__).with_suffix(".npz")
    document_words, document_counts = zip(*(pair for document in counted for pair in document), strict=True)
    np.savez_compressed(
        path,
        document_words=np.uint16(document_words),
        document_counts=np.uint8(np.minimum(document_counts, 255)),
        document_sizes=np.uint16([len(document) for document in counted]),
        query_words=np.uint16([word for query in asked for word in query]),
        query_sizes=np.uint8([len(query) for query in asked]),
        lengths=np.uint16([len(body) for body in bodies]),
    )
    print(path.name, len(bodies), len(vocabulary), len(document_words), path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

"""The language reference that comes with Python, as numbered words: a text to train language models on."""

import itertools
import re
from collections import Counter
from pydoc_data.topics import topics
from typing import NamedTuple

import numpy as np

WORDS, CONTEXT = 2048, 6
START, UNKNOWN = 0, 1


class Text(NamedTuple):
    """Of each token the six before it `[n, 6]`, and itself `[n]`."""

    contexts: np.ndarray
    labels: np.ndarray


def split(shares: tuple[float, ...] = (0.7, 0.18, 0.04)) -> list[Text]:
    """Parts of the text, of these shares and the rest; no paragraph is in two of them.

    Words are numbered by their frequency in the first part: 2046 words and signs, the start of a paragraph, "unknown".
    """
    pieces = _paragraphs()
    ends = np.cumsum([len(piece) for piece in pieces])
    cuts = np.searchsorted(ends, ends[-1] * np.cumsum(shares))
    parts = [pieces[start:end] for start, end in itertools.pairwise([0, *cuts, None])]
    frequent = Counter(itertools.chain(*parts[0])).most_common(WORDS - 2)
    number = {word: i for i, (word, _count) in enumerate(frequent, start=2)}
    return [_as_text(part, number) for part in parts]


def _paragraphs():
    """Tuples of words and signs, shuffled, each once; a sign repeated, as in the rule of a table, is one."""
    pieces = [piece for _name, text in sorted(topics.items()) for piece in re.split(r"\n\s*\n", text)]
    found = [[match.group() for match in re.finditer(r"\w+|([^\w\s])\1*", piece)] for piece in pieces]
    unique = list(dict.fromkeys(map(tuple, found)))
    return [unique[i] for i in np.random.default_rng(0).permutation(len(unique))]


def _as_text(pieces, number):
    """Paragraphs in numbers, each after six times the start."""
    contexts, labels = [], []
    for piece in pieces:
        numbers = [number.get(word, UNKNOWN) for word in piece]
        padded = [START] * CONTEXT + numbers
        contexts += [padded[i : i + CONTEXT] for i in range(len(numbers))]
        labels += numbers
    return Text(np.array(contexts, np.int32).reshape(-1, CONTEXT), np.array(labels, np.int32))

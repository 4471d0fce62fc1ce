"""The names of the numbers 0 to 9999 in English and French: `number_names.npz` beside this file.

`python notebooks/data/number_names.py` makes it anew, and needs `pip install num2words`. A name is a row of numbers,
places in the list of words of its language; `<pad>`, `<start>` and `<end>` come first in both lists.
"""

import re
from pathlib import Path

import numpy as np
from num2words import num2words

MARKS = ["<pad>", "<start>", "<end>"]


def names(language):
    """Words of the names of the numbers, without the English "and"."""
    texts = [num2words(number, lang=language).lower() for number in range(10000)]
    return [[word for word in re.findall(r"[^\W\d_]+", text) if word != "and"] for text in texts]


def indexed(names):
    """The list of words, and each name as the numbers of its words, between a start and an end."""
    words = MARKS + sorted({word for name in names for word in name})
    index = {word: number for number, word in enumerate(words)}
    rows = np.zeros((len(names), max(map(len, names)) + 2), np.uint8)
    for row, name in zip(rows, names, strict=True):
        row[: len(name) + 2] = [1, *(index[word] for word in name), 2]
    return words, rows


def main():
    english_words, english = indexed(names("en"))
    french_words, french = indexed(names("fr"))
    path = Path(__file__).with_suffix(".npz")
    np.savez_compressed(path, english=english, french=french, english_words=english_words, french_words=french_words)
    print(path.name, english.shape, french.shape, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

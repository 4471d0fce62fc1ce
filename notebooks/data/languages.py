"""Counts of pairs of letters in words of 25 languages: `languages.npz` beside this file.

`python notebooks/data/languages.py` makes it anew, with wordfreq 3.1.1. Letters lose their accents and are numbered
from a to z; 26 is the space around a word. The 12,000 most frequent words of a language are shuffled and divided:

- `snippets [25, 200, n]`: pairs `27 * first + second` of three words together, sorted, the rest -1;
- `pairs [25, 729]`: how often each pair is in all other words, each word once;
- `frequent [25, 27, 27]`: of a million pairs of running text, how many each is: words count as often as they are used.
"""

import unicodedata
from pathlib import Path

import numpy as np
import wordfreq

CODES = "en de nl sv da nb is fr es it pt ro ca fi hu pl cs sk sl sh lt lv tr id ms"
WORDS, SNIPPETS, EACH = 12_000, 200, 3
LETTERS = "abcdefghijklmnopqrstuvwxyz "
SPELLED = str.maketrans({"ß": "ss", "ø": "o", "æ": "ae", "ł": "l", "đ": "d", "ı": "i", "ð": "d", "þ": "th"})


def pairs_of(word):
    """Numbers `[n]` of the pairs of letters of a word and the spaces around it."""
    plain = unicodedata.normalize("NFD", word.translate(SPELLED))
    numbers = np.array([26, *(LETTERS.index(letter) for letter in plain if letter in LETTERS), 26])
    return 27 * numbers[:-1] + numbers[1:]


def counts_of(code, random):
    """Snippets `[200, n]`, counts `[729]` in the other words and weighted counts `[729]` of one language."""
    frequencies = wordfreq.get_frequency_dict(code, "small").items()
    found = [(pairs_of(word), often) for word, often in frequencies if word.isalpha() and len(word) > 1][:WORDS]
    weighted = sum(often * np.bincount(pairs, minlength=27**2) for pairs, often in found)
    words = [found[i][0] for i in random.permutation(len(found))]
    held_out, others = words[: SNIPPETS * EACH], words[SNIPPETS * EACH :]
    snippets = [np.sort(np.concatenate(held_out[i : i + EACH])) for i in range(0, len(held_out), EACH)]
    counts = np.bincount(np.concatenate(others), minlength=27**2)
    return snippets, counts, np.round(1e6 * weighted / weighted.sum())


def main():
    random = np.random.default_rng(0)
    snippets, pairs, frequent = zip(*(counts_of(code, random) for code in CODES.split()), strict=True)
    longest = max(len(snippet) for of_language in snippets for snippet in of_language)
    padded = np.full((len(pairs), SNIPPETS, longest), -1, np.int16)
    for of_language, rows in zip(snippets, padded, strict=True):
        for snippet, row in zip(of_language, rows, strict=True):
            row[: len(snippet)] = snippet
    path = Path(__file__).with_suffix(".npz")
    tables = {"pairs": np.uint32(pairs), "frequent": np.uint32(frequent).reshape(-1, 27, 27)}
    np.savez_compressed(path, codes=CODES.split(), snippets=padded, **tables)
    print(path.name, padded.shape, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

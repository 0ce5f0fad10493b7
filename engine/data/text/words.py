"""Words of texts as codes, by hashing, so that a model needs no list of words and new texts have codes too.

Training and predictions share it: a change of a rule here changes what trained models read. Never imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

CODES = 2**16
"""Number of codes; 0 fills short rows."""
_WORD = re.compile(r"\w+|[^\w\s]")
_MULTIPLIER = np.uint64(2654435761)
"""Knuth's multiplicative hash of 32 bits, which makes a pair of words differ from the same words in the other order."""

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Words:
    """The words of all texts, one after the other."""

    hashes: Hashes
    """Hash of each word, below 2**32."""
    counts: npt.NDArray[np.int64]
    """Number of words of each text."""


def split_words(texts: Sequence[str]) -> Words:
    """The words of every text, in lower case: runs of letters and digits; every other visible character is a word too."""
    hash_of: dict[str, int] = {}
    hashes: list[int] = []
    counts = np.empty(len(texts), dtype=np.int64)
    for row, text in enumerate(texts):
        words = _WORD.findall(text.lower())
        counts[row] = len(words)
        for word in words:
            known = hash_of.get(word)
            if known is None:
                known = hash_of[word] = crc32(word.encode("utf-8", "surrogatepass"))
            hashes.append(known)
    return Words(np.array(hashes, dtype=np.uint64), counts)


def codes_of(words: Words, length: int, ngrams: int) -> npt.NDArray[Any]:
    """Codes of the texts, uint16 (rows, `length`), filled with 0.

    The first words of a text come first; with `ngrams` 2, its pairs of neighboring words follow. A text that is too long
    loses its end.
    """
    most = words_per_row(length, ngrams)
    single = _table(words.hashes, words.counts, most)
    if ngrams == 1:
        return single
    used = np.minimum(words.counts, most)
    pairs = _table(_pair_hashes(words), words.counts - (words.counts > 0), most - 1)
    codes = np.zeros((len(used), length), dtype=np.uint16)
    codes[:, :most] = single
    rows, places = np.nonzero(pairs)
    codes[rows, used[rows] + places] = pairs[rows, places]
    return codes


def codes_for(texts: Sequence[str], length: int, ngrams: int) -> npt.NDArray[Any]:
    """New texts as the model of a run reads them, int64 (rows, length)."""
    return codes_of(split_words(texts), length, ngrams).astype(np.int64)


def words_per_row(length: int, ngrams: int) -> int:
    """Words in a row of `length` codes: n words have n - 1 pairs."""
    return length if ngrams == 1 else (length + 1) // 2


def row_length(words: int, ngrams: int) -> int:
    """Codes of a row of `words`."""
    return words if ngrams == 1 else max(1, 2 * words - 1)


def _pair_hashes(words: Words) -> Hashes:
    """Hashes of neighboring words of the same text, text by text."""
    mixed = (words.hashes[:-1] * _MULTIPLIER + words.hashes[1:]) % np.uint64(2**32)
    last = np.cumsum(words.counts)[:-1] - 1  # where a text ends, the next word is of another text
    within = np.ones(len(mixed), dtype=bool)
    within[last[(last >= 0) & (last < len(mixed))]] = False
    return mixed[within]


def _table(hashes: Hashes, counts: npt.NDArray[np.int64], width: int) -> npt.NDArray[Any]:
    """Codes from 1 on, (rows, width), from the hashes of all rows, one after the other."""
    codes = np.zeros((len(counts), max(0, width)), dtype=np.uint16)
    values = (hashes % np.uint64(CODES - 1) + np.uint64(1)).astype(np.uint16)
    row = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    fits = place < width
    codes[row[fits], place[fits]] = values[fits]
    return codes

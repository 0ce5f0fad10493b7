"""A shuffled order of any number of rows that takes no memory: each place is computed from a key.

Used where a list of row numbers would be too large. Must never draw a random number: the key decides everything. Never
imports torch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MOST_LISTED_ROWS = 2**24
"""Orders of more rows are computed place by place; a list of row numbers would take more than 128 MiB."""
ROUNDS = 8
"""Rounds of the Feistel network, four for each half of the bits."""

Numbers = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Permutation:
    """A bijection of the numbers 0 … `size` - 1 that looks random, and differs from key to key.

    A Feistel network permutes the smallest power of two that holds `size`; a result outside is permuted again until it is
    inside (cycle walking: Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002). Its round function is the
    finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
    """

    def __init__(self, size: int, key: int) -> None:
        """`size` is 1 … 2**62; `key` is 0 … 2**64 - 1."""
        bits = max(2, (size - 1).bit_length())
        self._size, self._widths = size, (bits // 2, bits - bits // 2)
        self._keys = [_mixed((key + place * _GOLDEN) & _MASK) for place in range(1, ROUNDS + 1)]

    def __len__(self) -> int:
        return self._size

    def __call__(self, places: Numbers) -> Numbers:
        """The numbers at these places, each 0 … size - 1: (places,)."""
        numbers = self._permuted(places.astype(np.uint64))
        outside = np.flatnonzero(numbers >= self._size)
        while len(outside):
            numbers[outside] = again = self._permuted(numbers[outside])
            outside = outside[again >= self._size]
        return numbers.view(np.int64)

    def span(self, first: int, last: int) -> Numbers:
        """The numbers at the places `first` … `last` - 1."""
        return self(np.arange(first, last, dtype=np.int64))

    def _permuted(self, words: _Words) -> _Words:
        """The words of `sum(widths)` bits, permuted: each round adds a function of one half to the other half."""
        low_bits, high_bits = self._widths
        low, high = words & np.uint64(2**low_bits - 1), words >> np.uint64(low_bits)
        for place, key in enumerate(self._keys):
            if place % 2:
                high ^= _mixed_words(low, key) >> np.uint64(64 - high_bits)
            else:
                low ^= _mixed_words(high, key) >> np.uint64(64 - low_bits)
        return (high << np.uint64(low_bits)) | low


class ShuffledSpan:
    """A stretch of a permutation in place of an array of row numbers; its slices are such arrays."""

    def __init__(self, permutation: Permutation, first: int, last: int) -> None:
        self._permutation, self._first, self._last = permutation, first, last

    def __len__(self) -> int:
        return self._last - self._first

    def __getitem__(self, places: slice) -> Numbers:
        first, last, step = places.indices(len(self))
        return self._permutation(np.arange(self._first + first, self._first + last, step, dtype=np.int64))


def _mixed(word: int) -> int:
    """SplitMix64's finalizer of one word of 64 bits."""
    word = ((word ^ (word >> 30)) * _MULTIPLIERS[0]) & _MASK
    word = ((word ^ (word >> 27)) * _MULTIPLIERS[1]) & _MASK
    return word ^ (word >> 31)


def _mixed_words(words: _Words, key: int) -> _Words:
    """SplitMix64's finalizer of words plus a key; only its high bits are used, so the last step is left out."""
    mixed = words + np.uint64(key)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(_MULTIPLIERS[0])
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(_MULTIPLIERS[1])
    return mixed

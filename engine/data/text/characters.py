"""A text file as rows of characters, with the next character of each as the label. Never imports torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.opening import explain_errors
from epochtop.engine.protocol.spec import Invalid, RunSpec

CHARACTERS = 0x110000
"""Number of Unicode code points."""

Codes = npt.NDArray[Any]


def read_text(spec: RunSpec) -> RawDataset:
    """Rows of `text:PATH`: adjacent windows of `context` characters; y is x shifted by one character.

    The vocabulary is the sorted set of all characters; codes are uint8 for up to 256 of them, else int32. The last
    `test_fraction` of the text becomes the test rows. An incomplete window at the end is dropped. Raises Invalid with
    the file, and the line of a byte that is not UTF-8.
    """
    path = Path(spec.dataset.removeprefix("text:")).expanduser().absolute()
    codes, vocabulary = _encode(_characters(path))
    if len(vocabulary) < 2:
        content = f"holds only the character {vocabulary!r}" if vocabulary else "is empty"
        raise Invalid("dataset", f"{path} {content}; there is nothing to learn")
    test_length = test_characters(len(codes), spec.test_fraction)
    _need_length(path, len(codes), spec)
    x, y = windows(codes[: len(codes) - test_length], spec.context)
    return RawDataset(
        kind="text",
        x=x,
        y=y,
        loss="next_character",
        test=windows(codes[len(codes) - test_length :], spec.context) if spec.test_fraction else None,
        vocabulary=vocabulary,
    )


def windows(codes: Codes, context: int) -> tuple[Codes, Codes]:
    """x and y of `codes` (characters,), both (windows, context); they share its memory."""
    count = (len(codes) - 1) // context
    x = codes[: count * context].reshape(count, context)
    return x, codes[1 : count * context + 1].reshape(count, context)


def test_characters(length: int, fraction: float) -> int:
    """Number of characters at the end of a text that are held out for testing."""
    return math.floor(length * fraction + 1e-9)


def shortest_length(context: int, fraction: float) -> int:
    """Number of characters of the shortest text with a window for training and, unless `fraction` is 0, one for testing."""
    for_test = math.ceil((context + 1) / fraction) if fraction else 0
    length = (
        max(for_test, math.floor(context / (1 - fraction)) + 1, 3) - 3
    )  # rounding can be off by one in either direction
    while not _suffices(length, context, fraction):
        length += 1
    return length


def _suffices(length: int, context: int, fraction: float) -> bool:
    test_length = test_characters(length, fraction)
    return length - test_length > context and (fraction == 0 or test_length > context)


def _need_length(path: Path, length: int, spec: RunSpec) -> None:
    if _suffices(length, spec.context, spec.test_fraction):
        return
    needed = shortest_length(spec.context, spec.test_fraction)
    raise Invalid(
        "dataset",
        f"{path} has {length:,} characters; a context of {spec.context} and a test_fraction of "
        f"{spec.test_fraction:g} need at least {needed:,}: use a longer text or a shorter context",
    )


def _characters(path: Path) -> str:
    with explain_errors(path, "text file", unit="line"):
        return path.read_bytes().decode("utf-8-sig")


def _encode(characters: str) -> tuple[Codes, str]:
    points = np.frombuffer(characters.encode("utf-32-le"), dtype="<u4")
    is_used = np.zeros(CHARACTERS, dtype=bool)
    is_used[points] = True
    distinct = np.flatnonzero(is_used)
    codes = np.empty(CHARACTERS, dtype=np.uint8 if len(distinct) <= 256 else np.int32)
    codes[distinct] = np.arange(len(distinct), dtype=codes.dtype)
    return codes[points], "".join(map(chr, distinct))

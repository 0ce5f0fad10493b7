"""A text file as rows of characters, each with the characters that follow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.protocol.spec import Invalid, RunSpec

CHARACTERS = 0x110000
"""Code points of Unicode."""

Codes = npt.NDArray[Any]


def text(spec: RunSpec) -> RawDataset:
    """Rows of `text:PATH`: windows of `context` characters that do not overlap; y is each one character further.

    The vocabulary is the sorted distinct characters of the whole text; codes are uint8 up to 256 of them, else int32.
    The last `test_fraction` of the text are the test rows. What does not fill a window at the end is left out.
    Raises Invalid with the file, and the line of a byte that is not UTF-8.
    """
    path = Path(spec.dataset.removeprefix("text:")).expanduser().absolute()
    codes, vocabulary = _coded(_characters(path))
    if len(vocabulary) < 2:
        what = f"holds one character only ({vocabulary!r})" if vocabulary else "is empty"
        raise Invalid("dataset", f"{path} {what}; there is nothing to learn")
    tested = held_out(len(codes), spec.test_fraction)
    _need_length(path, len(codes), spec)
    x, y = windows(codes[: len(codes) - tested], spec.context)
    return RawDataset(
        kind="text",
        x=x,
        y=y,
        loss="next_character",
        test=windows(codes[len(codes) - tested :], spec.context) if spec.test_fraction else None,
        vocabulary=vocabulary,
    )


def windows(codes: Codes, context: int) -> tuple[Codes, Codes]:
    """`codes` (characters,) as x and y, both (windows, context); they share its memory."""
    count = (len(codes) - 1) // context
    x = codes[: count * context].reshape(count, context)
    return x, codes[1 : count * context + 1].reshape(count, context)


def held_out(length: int, fraction: float) -> int:
    """Characters at the end of a text that are held out."""
    return math.floor(length * fraction + 1e-9)


def shortest(context: int, fraction: float) -> int:
    """Characters of the shortest text with a window to train on and, unless `fraction` is 0, one to test on."""
    for_test = math.ceil((context + 1) / fraction) if fraction else 0
    length = max(for_test, math.floor(context / (1 - fraction)) + 1, 3) - 3  # rounding may be off by one either way
    while not _suffices(length, context, fraction):
        length += 1
    return length


def _suffices(length: int, context: int, fraction: float) -> bool:
    tested = held_out(length, fraction)
    return length - tested > context and (fraction == 0 or tested > context)


def _need_length(path: Path, length: int, spec: RunSpec) -> None:
    if _suffices(length, spec.context, spec.test_fraction):
        return
    needed = shortest(spec.context, spec.test_fraction)
    raise Invalid(
        "dataset",
        f"{path} has {length:,} characters; a context of {spec.context} and a test_fraction of "
        f"{spec.test_fraction:g} need at least {needed:,}: use a longer text or a shorter context",
    )


def _characters(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Invalid("dataset", f"there is no file {path}") from None
    except IsADirectoryError:
        raise Invalid("dataset", f"{path} is a folder; name a text file in it") from None
    except OSError as error:
        raise Invalid("dataset", f"{path} cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        body = error.object
        line = body.count(b"\n", 0, error.start) + 1
        raise Invalid(
            "dataset", f"{path}, line {line}: byte 0x{body[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _coded(characters: str) -> tuple[Codes, str]:
    points = np.frombuffer(characters.encode("utf-32-le"), dtype="<u4")
    there = np.zeros(CHARACTERS, dtype=bool)
    there[points] = True
    distinct = np.flatnonzero(there)
    codes = np.empty(CHARACTERS, dtype=np.uint8 if len(distinct) <= 256 else np.int32)
    codes[distinct] = np.arange(len(distinct), dtype=codes.dtype)
    return codes[points], "".join(map(chr, distinct))

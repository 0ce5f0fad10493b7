"""Which texts are numbers: one strict grammar for the cells and labels of every table, in training and in predictions.

Python's `float` also reads `1_0`, `nan`, `infinity` and digits of other scripts. In a table these are text. Never imports
torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

_NUMBER = re.compile(r"[ \t\r\n]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\r\n]*")
_PADDED = re.compile(r"[+-]?0[0-9]+")


def is_number(text: str) -> bool:
    """Whether `text` is a decimal number: digits with an optional sign, point and exponent, and blanks around it."""
    return _NUMBER.fullmatch(text) is not None


def is_finite(text: str) -> bool:
    """Whether `text` is a number that float64 can hold; `1e999` is not."""
    return is_number(text) and math.isfinite(float(text))


def is_infinity(text: str) -> bool:
    """Whether `text` is a word for infinity, which is neither a number nor a text to encode."""
    return text.lower().lstrip("+-") in ("inf", "infinity")


def is_padded(text: str) -> bool:
    """Whether `text` is a whole number with leading zeros, such as `007`, which only codes have."""
    return _PADDED.fullmatch(text) is not None


def as_numbers(texts: Iterable[str]) -> npt.NDArray[np.float64] | None:
    """The texts as float64; None if one of them is not a finite number."""
    numbers = [float(text) if is_number(text) else math.nan for text in texts]
    values = np.array(numbers, dtype=np.float64)
    return values if bool(np.isfinite(values).all()) else None


def floats(texts: Sequence[str]) -> list[float] | None:
    """The cells of a row as numbers, quickly; None if one of them is not a finite number."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    joined = "".join(texts)
    if "_" in joined or not joined.isascii() or not all(map(math.isfinite, numbers)):
        return None
    return numbers

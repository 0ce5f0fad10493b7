"""Numbers as people and programs write them: decimal commas, thousands separators, currencies, percent signs.

The plain form is that of :mod:`epochtop.engine.data.number_text`. All cells of a column are read in one format. Never
imports torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.number_text import is_infinity, is_number
from epochtop.engine.data.tables.cells.missing import COMMON, is_missing_text

Floats64 = npt.NDArray[np.float64]

_CURRENCY = r"(?:[$€£¥₹₩₽₺₪฿]|USD|EUR|GBP|JPY|CNY|INR|CHF|CAD|AUD|SEK|NOK|DKK|PLN|BRL|kr|zł|R\$|US\$)"
_AFFIXED = re.compile(rf"(?P<open>\()?(?P<sign>[+-]?)\s*(?:{_CURRENCY}\s*)?(?P<rest>[+-]?[\d.,'’ \u00a0\u202f]*\d[.,]?)\s*(?:{_CURRENCY}|%|‰)?(?P<close>\))?")  # fmt: skip
_BLANKS = " \u00a0\u202f"
_WITHOUT_BLANKS = str.maketrans("", "", _BLANKS + "'’")
_GROUPED = {
    ",": re.compile(r"[+-]?(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d*)?"),
    ".": re.compile(r"[+-]?(?:[1-9]\d{0,2}(?:\.\d{3})+|\d+)(?:,\d*)?"),
    " ": re.compile(r"[+-]?(?:[1-9]\d{0,2}(?:[ \u00a0\u202f'’]\d{3})+|\d+)(?:[.,]\d*)?"),
}
"""Numbers with groups of thousands, by the separator of the groups."""
_DECIMAL_COMMA = re.compile(r"[+-]?(?:\d*,\d+|\d+,)(?:[eE][+-]?\d+)?")
_THOUSANDS_COMMA = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")


@dataclass(frozen=True)
class NumberFormat:
    """How the numbers of a column are written."""

    decimal: str = "."
    """`.` or `,`."""
    groups: str = ""
    """The thousands separator: `,` `.`, a blank (which stands for all kinds of blanks and apostrophes), or none."""
    has_affixes: bool = False
    """Whether currencies, percent signs, or parentheses for negative numbers stand around the digits."""

    @property
    def is_plain(self) -> bool:
        """Whether the numbers are written as in code."""
        return self == PLAIN

    def number(self, text: str) -> float | None:
        """The number that `text` is; None if it is none. May be infinite."""
        text, sign = text.strip(), 1.0
        if self.has_affixes:
            digits = _without_affixes(text)
            if digits is None:
                return None
            text, sign = digits
        if self.groups:
            if not _GROUPED[self.groups].fullmatch(text) and not (
                self.decimal == "," and _DECIMAL_COMMA.fullmatch(text)
            ):
                return None
            text = text.translate(_WITHOUT_BLANKS) if self.groups == " " else text.replace(self.groups, "")
        if self.decimal == ",":
            if "." in text:
                return None
            text = text.replace(",", ".")
        return sign * float(text) if is_number(text) or is_infinity(text) else None


PLAIN = NumberFormat()
_POINT = (PLAIN, NumberFormat(groups=","), NumberFormat(groups=" "))
_COMMA = (NumberFormat(",", "."), NumberFormat(",", " "))


def _formats(has_decimal_comma: bool) -> Iterable[NumberFormat]:
    order = (*_COMMA, *_POINT) if has_decimal_comma else (*_POINT, *_COMMA)
    yield from order
    yield from (NumberFormat(form.decimal, form.groups, True) for form in order)


def format_of(texts: Sequence[str], has_decimal_comma: bool = False) -> NumberFormat | None:
    """The format in which all of `texts` are numbers; None if there is none, or if there is no text."""
    if not texts:
        return None
    if all(is_number(text) and (not has_decimal_comma or "." not in text) for text in texts):
        return PLAIN
    for form in _formats(has_decimal_comma):
        if all(form.number(text) is not None for text in texts):
            return form
    return None


def closest_format(texts: Sequence[str], has_decimal_comma: bool = False) -> NumberFormat:
    """The format in which most of `texts` are numbers."""
    counts = {form: sum(form.number(text) is not None for text in texts) for form in _formats(has_decimal_comma)}
    return max(counts, key=counts.__getitem__, default=PLAIN)


def uses_decimal_comma(columns: Iterable[Sequence[str]], delimiter: str) -> bool:
    """Whether the file with these columns of texts writes 1,5 for one and a half.

    One column of such numbers decides, if at least one of them cannot be a thousand (`1,234`); so does a column of
    thousands if commas do not separate the cells and no column has a decimal point.
    """
    is_doubtful = has_point = False
    for texts in columns:
        numbers = [digits[0] for text in texts if (digits := _without_affixes(text)) is not None]
        if len(numbers) < len(texts) or not numbers:
            continue
        has_point |= any(is_number(text) and "." in text and not _GROUPED["."].fullmatch(text) for text in numbers)
        if not any("," in text for text in numbers):
            continue
        if all(NumberFormat(",", ".").number(text) is not None for text in numbers):
            if not all("," not in text or _THOUSANDS_COMMA.fullmatch(text) for text in numbers):
                return True
            is_doubtful = True
    return is_doubtful and delimiter != "," and not has_point


def _without_affixes(text: str) -> tuple[str, float] | None:
    """The digits of a number with its affixes, and its sign; None if the text is no such number."""
    match = _AFFIXED.fullmatch(text.strip())
    if match is None:
        return (text.strip(), 1.0) if is_number(text) else None
    is_closed = match["close"] is not None
    if (match["open"] is not None) != is_closed or (match["sign"] and match["rest"][:1] in "+-"):
        return None
    sign = -1.0 if (match["sign"] == "-") != is_closed else 1.0
    return match["rest"].strip(), sign


# --- columns of cells --------------------------------------------------------------------------------------


class NotNumbersError(Exception):
    """A cell is neither a number of the column's format nor missing."""


def floats_of(
    cells: Sequence[str], form: NumberFormat, unreadable: Callable[[int, str], None] | None = None
) -> Floats64:
    """The cells of a column as numbers (cells,); NaN is missing.

    Calls `unreadable` with the place and the text of every other cell, whose number is NaN; raises NotNumbersError if it is
    None.
    """
    if form.is_plain:
        numbers = _plain_floats(cells)
        if numbers is None:
            numbers = _plain_floats(["nan" if cell in COMMON else cell for cell in cells])
        if numbers is not None:
            return numbers
    return _each(cells, form, unreadable)


def _plain_floats(cells: Sequence[str]) -> Floats64 | None:
    """The cells as numbers, quickly; None unless Python's and our grammar agree on all of them."""
    try:
        numbers = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None
    joined = "".join(cells)
    return None if "_" in joined or not joined.isascii() else numbers


def _each(cells: Sequence[str], form: NumberFormat, unreadable: Callable[[int, str], None] | None) -> Floats64:
    numbers = np.empty(len(cells), dtype=np.float64)
    for place, cell in enumerate(cells):
        number = form.number(cell)
        if number is None:
            if not is_missing_text(cell):
                if unreadable is None:
                    raise NotNumbersError(cell)
                unreadable(place, cell.strip())
            number = math.nan
        numbers[place] = number
    return numbers

"""The type of a column of texts: numbers if all of its texts are, else text.

It looks at distinct texts only, and leaves dates as text. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.tables.cells.missing import is_missing_text
from epochtop.engine.data.tables.cells.numbers import closest_format, floats_of, format_of
from epochtop.engine.data.tables.column import MOST_LABEL_TEXTS, CellType, Column, NumberColumn, TextColumn


def typed(column: TextColumn, kind: CellType, has_decimal_comma: bool = False) -> Column:
    """The column as `kind` asks for. Its texts may have blanks around them and spell missing values."""
    if kind == "number":
        return _numbers(column, has_decimal_comma)
    clean = _clean(column, only_empty=kind == "label")
    if kind == "text" or not clean.texts:
        return clean
    if kind == "label":
        return _label(column, clean, has_decimal_comma)
    form = format_of(clean.texts, has_decimal_comma)
    if form is None:
        return clean
    return NumberColumn(column.name, _picked(floats_of(clean.texts, form), clean.codes))


def _label(column: TextColumn, clean: TextColumn, has_decimal_comma: bool) -> Column:
    """Labels as written, with their numbers if all are some."""
    present = [text for text in clean.texts if not is_missing_text(text)]
    form = format_of(present, has_decimal_comma)
    if form is None:
        return clean
    if len(present) > MOST_LABEL_TEXTS:
        return _numbers(column, has_decimal_comma)
    return TextColumn(column.name, clean.codes, clean.texts, floats_of(clean.texts, form))


def _numbers(column: TextColumn, has_decimal_comma: bool) -> NumberColumn:
    """Numbers, with all other texts as unreadable."""
    used = np.unique(column.codes[column.codes >= 0]).tolist()
    present = [column.texts[code].strip() for code in used if not is_missing_text(column.texts[code])]
    form = format_of(present, has_decimal_comma) or closest_format(present, has_decimal_comma)
    others: dict[int, str] = {}
    numbers = floats_of(column.texts, form, others.__setitem__)
    unreadable = {int(row): others[int(column.codes[row])] for row in _rows_with(column, others)}
    return NumberColumn(column.name, _picked(numbers, column.codes), unreadable)


def _rows_with(column: TextColumn, texts: Mapping[int, str]) -> Sequence[int]:
    return np.flatnonzero(np.isin(column.codes, list(texts))).tolist() if texts else []


def _clean(column: TextColumn, only_empty: bool) -> TextColumn:
    """Each text once, without blanks around it, and without those that are missing."""
    code_of: dict[str, int] = {}
    places = np.full(len(column.texts) + 1, -1, dtype=np.int32)  # the last one is that of code -1
    for code, text in enumerate(column.texts):
        stripped = text.strip()
        if stripped and (only_empty or not is_missing_text(stripped)):
            places[code] = code_of.setdefault(stripped, len(code_of))
    return TextColumn(column.name, places[column.codes], tuple(code_of))


def _picked(values: npt.NDArray[np.float64], codes: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """The value of each row; NaN for code -1."""
    return np.append(values, np.nan)[codes]

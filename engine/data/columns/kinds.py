"""Kinds of feature columns: numbers, categories, times, and what is left out because it names rows instead of describing them.

A column whose texts are all dates is a time; a column of which more than half of the values are distinct is free text or an
identifier. Must never look at the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.columns.selection import WantedKind
from epochtop.engine.data.columns.times import time_format, times_of
from epochtop.engine.data.dataset import ColumnEncoding
from epochtop.engine.data.labels import class_name
from epochtop.engine.data.number_text import as_numbers, is_finite, is_padded
from epochtop.engine.data.tables.column import Column, NumberColumn, TextColumn, TimeColumn, is_missing
from epochtop.engine.protocol.spec import Invalid

FEW_TEXTS = 20
"""A column of at most this many distinct texts is a category, however few rows there are."""
NUMBER_SHARE = 0.95
"""Share of the cells of a column that must be numbers for the others to count as missing."""
FREE_TEXT_WORDS = 3.0
"""Mean number of words from which on a left-out column is called a text and not an identifier."""
COMPACT = ("%Y%m%d",)
"""Formats that also fit numbers; they are tried for columns that the user calls times."""
TRUTH = {"false": 0.0, "true": 1.0}


@dataclass(frozen=True)
class Feature:
    """A column that the model gets, in its final kind."""

    column: Column
    kind: str
    """number, category or time."""
    encoding: ColumnEncoding
    """What is known about its encoding before anything is fitted."""
    missing: int
    """Rows without a value."""
    distinct: int | None = None
    note: str = ""
    """A decision that the user should know; empty for none."""


@dataclass(frozen=True)
class LeftOut:
    """A column that the model does not get."""

    name: str
    kind: str
    """text, identifier, or the kind of a column without two different values."""
    reason: str
    missing: int
    distinct: int


def feature_of(column: Column, wanted: WantedKind | None = None, missing: int | None = None) -> Feature | LeftOut:
    """A feature from a column, of the kind that the user chose if there is one. Raises Invalid if it cannot have it.

    `missing` is the number of missing values of a column of numbers, if it is known already.
    """
    if isinstance(column, NumberColumn):
        return _of_numbers(column, wanted, missing)
    if isinstance(column, TimeColumn):
        return _of_times(column, "", wanted)
    used = texts_with_rows(column)
    count = len(used.texts)
    if not count:
        return LeftOut(column.name, "text", "no values", len(column.codes), 0)
    if wanted == "category":
        return _of_category(used)
    if wanted == "number":
        return _of_numbers(numbers_from(used), wanted)
    return _as_truth(used, wanted) or _as_numbers(used, wanted) or _as_times(used, wanted) or _as_text(used)


# --- numbers -------------------------------------------------------------------------------------------------


def _of_numbers(column: NumberColumn, wanted: WantedKind | None, missing: int | None = None) -> Feature | LeftOut:
    if wanted in ("category", "time"):
        return feature_of(text_of(column), wanted)
    missing = int(is_missing(column).sum()) if missing is None else missing
    if missing == len(column.values):
        return LeftOut(column.name, "number", "no values", missing, 0)
    note = ""
    if column.unreadable:
        first = next(iter(column.unreadable.values()))
        note = f"column {column.name!r}: {len(column.unreadable):,} cells such as {first!r} are not numbers; they are missing"
    return Feature(column, "number", ColumnEncoding(), missing, note=note)


def text_of(column: Column) -> TextColumn:
    """A column of numbers or times as texts; whole numbers have no point."""
    if isinstance(column, TextColumn):
        return column
    present = ~is_missing(column)
    values, codes = np.unique(column.values[present], return_inverse=True)
    all_codes = np.full(len(present), -1, dtype=np.int32)
    all_codes[present] = codes
    if isinstance(column, TimeColumn):
        return TextColumn(column.name, all_codes, tuple(str(value).replace("T", " ") for value in values))
    return TextColumn(column.name, all_codes, tuple(map(class_name, values)))


def numbers_from(column: TextColumn) -> NumberColumn:
    """The texts as numbers; those that are none are missing and unreadable."""
    values = np.array([number_from(text) for text in column.texts] + [np.nan])
    numbers = values[column.codes]
    bad = np.flatnonzero(np.isnan(numbers) & (column.codes >= 0)).tolist()
    return NumberColumn(column.name, numbers, {row: column.texts[int(column.codes[row])] for row in bad})


def number_from(text: str) -> float:
    """The value of a number, or of `true` and `false`; NaN for any other text."""
    return float(text) if is_finite(text) else TRUTH.get(text.lower(), np.nan)


# --- texts ---------------------------------------------------------------------------------------------------


def texts_with_rows(column: TextColumn) -> TextColumn:
    """The column with texts that have rows only, numbers by value and then other texts by name."""
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.texts))
    used = np.flatnonzero(counts).tolist()
    names = [column.texts[code] for code in used]
    numbers = as_numbers(names)
    order = sorted(range(len(names)), key=lambda at: (0.0 if numbers is None else float(numbers[at]), names[at]))
    place = np.full(len(column.texts) + 1, -1, dtype=np.int32)
    place[[used[at] for at in order]] = np.arange(len(order))
    return TextColumn(column.name, place[column.codes], tuple(names[at] for at in order))


def _counts(column: TextColumn) -> npt.NDArray[np.int64]:
    return np.bincount(column.codes[column.codes >= 0], minlength=len(column.texts))


def _as_truth(column: TextColumn, wanted: WantedKind | None) -> Feature | None:
    if wanted is not None or not {text.lower() for text in column.texts} <= TRUTH.keys():
        return None
    if len(column.texts) < 2:
        return None
    return Feature(numbers_from(column), "category", ColumnEncoding(), int((column.codes < 0).sum()), len(column.texts))


def _as_numbers(column: TextColumn, wanted: WantedKind | None) -> Feature | None:
    """A column of numbers with a few words for missing values that no reader knows."""
    if wanted is not None or any(map(is_padded, column.texts)):
        return None
    counts = _counts(column)
    numeric = np.array([is_finite(text) for text in column.texts])
    if numeric.sum() < 10 or counts[numeric].sum() < NUMBER_SHARE * counts.sum() or numeric.all():
        return None
    feature = _of_numbers(numbers_from(column), None)
    return feature if isinstance(feature, Feature) else None


def _as_text(column: TextColumn) -> Feature | LeftOut:
    """A category, or a text or identifier that is left out."""
    rows, distinct = int((column.codes >= 0).sum()), len(column.texts)
    if distinct <= max(FEW_TEXTS, rows // 2):
        return _of_category(column)
    words = sum(text.count(" ") + 1 for text in column.texts) / distinct
    kind = "text" if words >= FREE_TEXT_WORDS else "identifier"
    reason = f"{distinct:,} of {rows:,} values differ"
    return LeftOut(column.name, kind, reason, len(column.codes) - rows, distinct)


def _of_category(column: TextColumn) -> Feature | LeftOut:
    missing = int((column.codes < 0).sum())
    if len(column.texts) == 1 and not missing:
        return LeftOut(column.name, "category", f"all values are {column.texts[0]!r}", 0, 1)
    encoding = ColumnEncoding(kind="category", categories=tuple(column.texts))
    return Feature(column, "category", encoding, missing, len(column.texts))


# --- times ---------------------------------------------------------------------------------------------------


def _as_times(column: TextColumn, wanted: WantedKind | None) -> Feature | LeftOut | None:
    name = time_format(column.texts, COMPACT if wanted == "time" else ())
    if name is None:
        if wanted == "time":
            raise Invalid(
                "kinds", f"column {column.name!r} holds {_example(column.texts)}, which is not a date or time"
            )
        return None
    times = np.append(times_of(column.texts, name), np.datetime64("NaT", "us"))
    return _of_times(TimeColumn(column.name, times[column.codes]), name, wanted)


def _of_times(column: TimeColumn, name: str, wanted: WantedKind | None) -> Feature | LeftOut:
    if wanted == "number":
        raise Invalid("kinds", f"column {column.name!r} holds times; use time or category")
    missing = int(np.isnat(column.values).sum())
    distinct = len(np.unique(column.values[~np.isnat(column.values)]))
    if wanted == "category":
        return _of_category(text_of(column))
    if distinct < 2:
        reason = f"all values are {column.values[~np.isnat(column.values)][0]}" if distinct else "no values"
        return LeftOut(column.name, "time", reason, missing, distinct)
    note = f"column {column.name!r} is read as {name}" if name.startswith(("%m/%d", "%d/%m", "%m-%d", "%d-%m")) else ""
    return Feature(column, "time", ColumnEncoding(kind="time", time_format=name), missing, distinct, note)


def _example(texts: Sequence[str]) -> str:
    bad = next((text for text in texts if time_format([text], COMPACT) is None), texts[0])
    return repr(bad if len(bad) <= 40 else f"{bad[:39]}…")

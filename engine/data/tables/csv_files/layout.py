"""What the parser makes of each column of a file, and the memory that holds it.

Must never read a file.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.tables.cells.numbers import (
    PLAIN,
    NumberFormat,
    closest_format,
    format_of,
    uses_decimal_comma,
)
from epochtop.engine.data.tables.column import CellType
from epochtop.engine.data.tables.csv_files.dialect import Dialect


@dataclass(frozen=True)
class ColumnPlan:
    """One column of the file to read."""

    place: int
    """Its index among the cells of a row."""
    name: str
    type: CellType
    form: NumberFormat | None
    """How its numbers are written; None if it is read as texts."""
    index: int = 0
    """Its index among the columns of numbers, or among those of texts."""


@dataclass(frozen=True)
class Layout:
    """The columns to read, in the order of the file."""

    dialect: Dialect
    width: int
    """Cells of a row."""
    plans: tuple[ColumnPlan, ...]
    has_decimal_comma: bool
    is_rounded: bool
    """Whether numbers are rounded to float32, as in large files."""

    @property
    def numbers(self) -> tuple[ColumnPlan, ...]:
        """Columns that are read as numbers at once."""
        return tuple(plan for plan in self.plans if plan.form is not None)

    @property
    def texts(self) -> tuple[ColumnPlan, ...]:
        """Columns that are read as texts."""
        return tuple(plan for plan in self.plans if plan.form is None)

    @property
    def dtype(self) -> Any:
        """Type of the numbers."""
        return np.float32 if self.is_rounded else np.float64

    def with_texts(self, places: set[int]) -> Layout:
        """The same layout with the columns at `places` read as texts."""
        plans = (replace(plan, form=None) if plan.place in places else plan for plan in self.plans)
        return replace(self, plans=_indexed(plans))

    def without_rounding(self) -> Layout:
        """The same layout with numbers in float64."""
        return replace(self, is_rounded=False)


def layout_of(dialect: Dialect, types: tuple[CellType, ...], is_rounded: bool) -> Layout:
    """The layout that suits the first rows of the file."""
    texts = dialect.texts()
    has_decimal_comma = uses_decimal_comma(texts, dialect.delimiter)
    plans = []
    for place, (name, kind) in enumerate(zip(dialect.names.names, types, strict=True)):
        if kind == "skip":
            continue
        form = None
        if kind == "any":
            form = format_of(texts[place], has_decimal_comma) if texts[place] else PLAIN
        elif kind == "number":
            form = format_of(texts[place], has_decimal_comma) or closest_format(texts[place], has_decimal_comma)
        plans.append(ColumnPlan(place, name, kind, form))
    return Layout(dialect, len(dialect.names.names), _indexed(plans), has_decimal_comma, is_rounded)


def _indexed(plans: Any) -> tuple[ColumnPlan, ...]:
    numbers = texts = 0
    indexed = []
    for plan in plans:
        indexed.append(replace(plan, index=texts if plan.form is None else numbers))
        texts, numbers = texts + (plan.form is None), numbers + (plan.form is not None)
    return tuple(indexed)


@dataclass(frozen=True)
class Buffers:
    """Memory for the rows of a file, or of a part of it."""

    numbers: npt.NDArray[Any]
    """(rows, columns of numbers)."""
    codes: npt.NDArray[np.int32]
    """(columns of texts, rows): indexes of texts."""

    @classmethod
    def of(cls, layout: Layout, rows: int, is_shared: bool) -> Buffers:
        """New memory for `rows` rows, which child processes can share."""
        numbers = _memory((rows, len(layout.numbers)), np.dtype(layout.dtype), is_shared)
        return cls(numbers, _memory((len(layout.texts), rows), np.dtype(np.int32), is_shared))

    def part(self, first: int, end: int) -> Buffers:
        """The memory of the rows from `first` to `end`."""
        return Buffers(self.numbers[first:end], self.codes[:, first:end])

    def move(self, first: int, rows: int, to: int) -> None:
        """Move `rows` rows from `first` down to `to`, block by block."""
        for start in range(0, rows if first != to else 0, 65_536):
            end = min(rows, start + 65_536)
            self.numbers[to + start : to + end] = self.numbers[first + start : first + end].copy()
            self.codes[:, to + start : to + end] = self.codes[:, first + start : first + end].copy()


def _memory(shape: tuple[int, int], dtype: np.dtype[Any], is_shared: bool) -> npt.NDArray[Any]:
    size = shape[0] * shape[1] * dtype.itemsize
    if not is_shared or not size:
        return np.empty(shape, dtype=dtype)
    return np.frombuffer(mmap.mmap(-1, size), dtype=dtype).reshape(shape)

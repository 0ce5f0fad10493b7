"""A table as every reader returns it: typed columns and the line of each row.

Readers of CSV, Parquet, SQLite and other files produce a :class:`Table`; :mod:`epochtop.engine.data.columns` turns it into
model input. Types only; must never read a file or import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

CellType = Literal["any", "text", "number", "label", "skip"]
"""What a reader makes of a column.

any: numbers, times or text, whatever all cells are · text: text, even if all cells are numbers (`01` stays `01`) · number:
numbers; a cell that is none is missing and kept in `NumberColumn.unreadable` · label: text as written, in which only an
empty cell is missing (`NA` and `-` are text); numbers if there are more than MOST_LABEL_TEXTS distinct texts and all are
numbers · skip: not read.
"""
ChooseTypes = Callable[[Sequence[str]], Sequence[CellType]]
"""A function from the names of all columns of a file to the type of each; raises Invalid. Readers may
call it with other names if it does; the last call counts."""
MOST_LABEL_TEXTS = 10_000
"""A label column of numbers with more distinct texts than this is a column of numbers."""


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers."""

    name: str
    values: npt.NDArray[Any]
    """Float64, float32, integers or booleans (rows,); NaN is missing. May be a strided view into `Table.numbers`."""
    unreadable: Mapping[int, str] = field(default_factory=dict)
    """Cells that are not numbers in a column of type `number`, as written, by index of the row; their values are NaN."""


@dataclass(frozen=True)
class TextColumn:
    """A column of texts, of categories, or of booleans (`False`, `True`)."""

    name: str
    codes: npt.NDArray[np.int32]
    """Index of each row's text in `texts` (rows,); -1 is missing."""
    texts: Sequence[str]
    """The distinct texts as written, without blanks around them, in any order; some may have no rows."""
    numbers: npt.NDArray[np.float64] | None = None
    """The value of each text if the reader reads all of them as numbers in the way of its file (`1.234,5`, `$3`), NaN for a
    spelling of a missing value; None if one is not a number. Readers give it for columns of type `label`."""


@dataclass(frozen=True)
class TimeColumn:
    """A column of dates or times."""

    name: str
    values: npt.NDArray[np.datetime64]
    """datetime64[us] (rows,), in UTC if the file names a time zone; NaT is missing."""


Column = NumberColumn | TextColumn | TimeColumn


@dataclass(frozen=True)
class Table:
    """A table as it was read: columns of equal length in the order of the file, without those of type `skip`."""

    source: str
    """The file, for messages."""
    columns: tuple[Column, ...]
    lines: Sequence[int] | npt.NDArray[np.int64]
    """Where each row is in the source (rows,): the line that an editor shows, or the number of the row from 1."""
    unit: Literal["line", "row"] = "line"
    """What `lines` counts."""
    numbers: npt.NDArray[Any] | None = None
    """Columns of numbers in one row-major matrix (rows, columns), of which `NumberColumn.values` are views; None if there
    is no such matrix. If it holds exactly the feature columns, it becomes the model's input without a copy."""
    number_names: tuple[str, ...] = ()
    """Names of the columns of `numbers`, in order."""
    notes: tuple[str, ...] = ()
    """What the reader decided and the user should know, one sentence each."""
    parts: tuple[tuple[str, int], ...] = ()
    """The files of a table in several files, each with its number of rows; empty for one file."""

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column called `name`. Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def where(self, row: int) -> str:
        """The place of a row for messages, such as `data.csv, line 12`."""
        source, end = self.source, 0
        for part, rows in self.parts:
            end += rows
            if row < end:
                source = part
                break
        return f"{source}, {self.unit} {int(self.lines[row])}"


def values_of(column: Column) -> npt.NDArray[Any]:
    """The array of a column with one element per row: values, or codes."""
    return column.codes if isinstance(column, TextColumn) else column.values


def is_missing(column: Column) -> npt.NDArray[np.bool_]:
    """Which rows have no value (rows,)."""
    if isinstance(column, TextColumn):
        return np.asarray(column.codes < 0)
    if isinstance(column, TimeColumn):
        return np.asarray(np.isnat(column.values))
    if column.values.dtype.kind != "f":
        return np.zeros(len(column.values), dtype=bool)
    return np.asarray(np.isnan(column.values))

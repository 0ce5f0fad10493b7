"""New rows of a table as raw values of the columns that a run was trained on, with the reason where a row has none.

Must never fit anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.columns.encoding import Encoder
from epochtop.engine.data.columns.kinds import number_from, text_of
from epochtop.engine.data.columns.times import ISO, seconds_of, times_of
from epochtop.engine.data.dataset import ColumnEncoding, Preparation
from epochtop.engine.data.scaling import Scaling
from epochtop.engine.data.tables.column import CellType, Column, NumberColumn, Table, TimeColumn
from epochtop.engine.protocol.spec import Invalid

CELL_TYPES: dict[str, CellType] = {"number": "number", "category": "text", "time": "text"}
BLOCK_VALUES = 2**20


@dataclass(frozen=True)
class NewRows:
    """Rows to predict. Those with a problem have no prediction."""

    x: npt.NDArray[Any]
    """Model input, float32 (rows, inputs), pixels or codes of words; 0 in rows with a problem."""
    problems: dict[int, str] = field(default_factory=dict)
    """Why a row cannot be predicted, by its number from 0."""
    table: Table | None = None
    """The table that the rows come from, which knows their lines."""

    def where(self, row: int) -> str:
        """The place of a row, for messages."""
        return f"row {row + 1}" if self.table is None else f"{self.table.unit} {int(self.table.lines[row])}"


def types_for(preparation: Preparation) -> Callable[[Sequence[str]], Sequence[CellType]]:
    """How a reader reads the columns of new rows. The function raises Invalid if one is missing or appears twice."""
    encodings = encodings_of(preparation)
    type_of = {name: CELL_TYPES[encoding.kind] for name, encoding in zip(preparation.columns, encodings, strict=True)}

    def choose(names: Sequence[str]) -> Sequence[CellType]:
        check_names(preparation.columns, names)
        return [type_of.get(name, "skip") for name in names]

    return choose


def check_names(needed: Sequence[str], names: Sequence[str]) -> None:
    """Raise Invalid if one of the needed columns is missing or appears twice."""
    missing = [name for name in needed if name not in names]
    if missing:
        listed = ", ".join(map(repr, missing))
        raise Invalid("", f"the model needs {len(needed)} columns; missing: {listed}")
    twice = next((name for name in needed if list(names).count(name) > 1), None)
    if twice is not None:
        raise Invalid("", f"the column {twice!r} appears twice; rename one of them")


def encodings_of(preparation: Preparation) -> tuple[ColumnEncoding, ...]:
    """The encoding of each column; those of runs of earlier versions are numbers."""
    return preparation.encodings or tuple(ColumnEncoding() for _ in preparation.columns)


def new_rows(preparation: Preparation, table: Table) -> NewRows:
    """Model input of a table that was read with :func:`types_for`."""
    problems: dict[int, str] = {}
    raw = np.empty((len(table), len(preparation.columns)))
    for number, (name, encoding) in enumerate(zip(preparation.columns, encodings_of(preparation), strict=True)):
        values, unreadable = _raw(table.column(name), encoding)
        raw[:, number] = values
        for row, text in unreadable.items():
            problems.setdefault(row, f"{name!r}: {_shown(text)} is not {_WORDS[encoding.kind]}")
    if preparation.missing != "fill":
        for row, number in np.argwhere(np.isnan(raw)):
            problems.setdefault(int(row), f"{preparation.columns[number]!r} is missing")
    return replace(_with_input(preparation, raw, problems), table=table)


def rows_of_numbers(preparation: Preparation, raw: npt.NDArray[Any]) -> NewRows:
    """Model input of raw rows (rows, columns) whose values are numbers, in the order of the run's columns."""
    return _with_input(preparation, np.asarray(raw, dtype=np.float64), {})


def _with_input(preparation: Preparation, raw: npt.NDArray[np.float64], problems: dict[int, str]) -> NewRows:
    encoder, scaling = Encoder(encodings_of(preparation)), Scaling.of(preparation)
    x = np.empty((len(raw), encoder.inputs), dtype=np.float32)
    size = max(1, BLOCK_VALUES // max(1, encoder.inputs))
    for start in range(0, len(raw), size):
        block = raw[start : start + size]
        x[start : start + size] = scaling(encoder(block.astype(np.float32) if preparation.rounded else block))
    names = [
        name
        for name, encoding in zip(preparation.columns, encoder.encodings, strict=True)
        for _ in range(encoding.inputs)
    ]
    for row, place in np.argwhere(~np.isfinite(x)):
        value = raw[row, preparation.columns.index(names[place])]
        problems.setdefault(int(row), f"{names[place]!r}: {value:g} is not a number that the model can take")
    x[list(problems)] = 0
    return NewRows(x, problems)


_WORDS = {"number": "a number", "category": "text", "time": "a date or time"}


def _raw(column: Column, encoding: ColumnEncoding) -> tuple[npt.NDArray[np.float64], dict[int, str]]:
    """Raw values of a column, and cells that cannot be read by row."""
    if encoding.kind == "category":
        return _categories(column, encoding), {}
    if isinstance(column, TimeColumn):
        return seconds_of(column.values), {}
    if isinstance(column, NumberColumn):
        if encoding.kind == "time":
            return _raw(text_of(column), encoding)
        values = column.values.astype(np.float64)
        infinite = {int(row): str(values[row]) for row in np.flatnonzero(np.isinf(values))}
        truths = {row: number_from(text) for row, text in column.unreadable.items()}
        for row, value in truths.items():
            values[row] = value
        return values, infinite | {row: text for row, text in column.unreadable.items() if np.isnan(truths[row])}
    if encoding.kind == "time":
        numbers = seconds_of(times_of(column.texts, encoding.time_format or ISO))
    else:
        numbers = np.array([number_from(text) for text in column.texts])
    values = np.append(numbers, np.nan)[column.codes]
    bad = np.flatnonzero(np.isnan(values) & (column.codes >= 0)).tolist()
    return values, {row: column.texts[int(column.codes[row])] for row in bad}


def _categories(column: Column, encoding: ColumnEncoding) -> npt.NDArray[np.float64]:
    """The index of the category of each row, -1 for another text, NaN if it is missing."""
    texts = text_of(column)
    index = {text: float(number) for number, text in enumerate(encoding.categories)}
    return np.array([*(index.get(text, -1.0) for text in texts.texts), np.nan])[texts.codes]


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")

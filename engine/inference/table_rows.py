"""New rows in Parquet, Feather, JSON lines and ARFF files. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from epochtop.engine.data.columns.new_rows import check_names, types_for
from epochtop.engine.data.dataset import Preparation
from epochtop.engine.data.tables.column import CellType, Column, NumberColumn, Table
from epochtop.engine.data.tables.read import format_of_file, read_table
from epochtop.engine.data.text.tables import texts_in
from epochtop.engine.protocol.spec import Invalid, RunSpec


@dataclass(frozen=True)
class TableRows:
    """The rows of a table that is not delimited text, as cells of one."""

    path: Path
    table: Table
    delimiter: str = ","
    has_header: bool = True
    has_decimal_comma: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns."""
        return self.table.names

    def rows(self) -> Iterator[list[str]]:
        """The cells of every row; numbers have as many digits as they need."""
        return map(list, zip(*map(_cells, self.table.columns), strict=True))


def is_other_table(path: Path) -> bool:
    """Whether the file is a table, by its ending, but not delimited text."""
    return format_of_file(path) != "csv"


def open_table(spec: RunSpec, preparation: Preparation, path: Path) -> TableRows:
    """The table with the columns that the run needs, read as they were in training, and all others as text.

    Raises Invalid.
    """
    if preparation.kind not in ("table", "document"):
        raise Invalid("", f"{path} is a table, but the run was trained on {preparation.kind} rows; convert it to CSV")
    needed = types_for(preparation) if preparation.kind == "table" else None

    def choose(names: Sequence[str]) -> Sequence[CellType]:
        if needed is None:
            check_names(preparation.columns, names)
            return ["text" for _ in names]
        return ["text" if kind == "skip" else kind for kind in needed(names)]

    return TableRows(path, read_table(format_of_file(path), path, choose, spec.encoding))


def _cells(column: Column) -> list[str]:
    """The cells of a column as text; a missing value is empty."""
    if not isinstance(column, NumberColumn):
        return texts_in(column)
    if column.values.dtype.kind == "b":
        return [str(bool(value)) for value in column.values]
    cells = texts_in(column)
    for row, text in column.unreadable.items():
        cells[row] = text
    return cells

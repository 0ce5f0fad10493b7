"""The columns of a table as texts, from any format that has an ending of its own. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epochtop.engine.data.columns.kinds import text_of
from epochtop.engine.data.dataset import OnProgress, no_progress
from epochtop.engine.data.tables.column import CellType, Column
from epochtop.engine.data.tables.read import format_of_file, read_table

Columns = dict[str, list[str]]
"""Texts by the name of their column; a missing value is empty."""


def read_columns_of_texts(
    path: Path, labels: Sequence[str], encoding: str = "auto", report: OnProgress = no_progress
) -> Columns:
    """All columns of a table, by the ending of the file. Raises Invalid with the file and the row.

    In a column whose name is among `labels`, `NA` and `-` are labels, and only an empty cell is missing.
    """

    def choose(names: Sequence[str]) -> Sequence[CellType]:
        return ["label" if name in labels else "text" for name in names]

    table = read_table(format_of_file(path), path, choose, encoding, "yes", report)
    return {column.name: texts_in(column) for column in table.columns}


def texts_in(column: Column) -> list[str]:
    """The cells of a column as they were written; a missing value is empty."""
    texts = text_of(column)
    cells = np.array([*texts.texts, ""], dtype=object)
    return list(cells[texts.codes])


def as_text(value: Any) -> str:
    """A value of Python as a cell of a CSV file would have it; a missing value is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)

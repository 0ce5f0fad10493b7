"""The rows of delimited text as they are written, for copying them.

Must never interpret a cell.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from epochtop.engine.data.tables.csv_files.dialect import Dialect, row_reader
from epochtop.engine.data.tables.csv_files.plain_text import Utf8File
from epochtop.engine.protocol.spec import Invalid


def rows_of(text: Utf8File, dialect: Dialect) -> Iterator[list[str]]:
    """The cells of the same rows that the parser reads, each with one cell for every column. Raises Invalid."""
    width, line = len(dialect.names.names), dialect.first_line
    with open(text.path, "rb") as file:
        file.seek(text.start + dialect.first_byte)
        lines = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        reader = row_reader(map(dialect.plain_line, lines), dialect.delimiter)
        try:
            for cells in reader:
                line = dialect.first_line + reader.line_num
                if cells and (len(cells) > 1 or width == 1 or cells[0].strip()):
                    yield cells[:width]
        except csv.Error as error:
            raise Invalid("dataset", f"{text.source}, line {line}: {error}") from None

"""CSV files for predictions: rows are copied unchanged, with columns appended. Never imports torch."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from epochtop.engine.data.number_text import is_number
from epochtop.engine.data.opening import explain_errors
from epochtop.engine.data.tables.header import parse_header
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.files import output_file
from epochtop.engine.terminal.output import data_output
from epochtop.engine.terminal.spreadsheets import row_filter


@dataclass(frozen=True)
class RowFile:
    """A CSV file with a header row. It is read twice, so it must be a regular file."""

    path: Path
    delimiter: str
    names: tuple[str, ...]

    def rows(self) -> Iterator[list[str]]:
        """The cells of every row below the header, without empty lines."""
        with open(self.path, encoding="utf-8-sig", newline="") as file:
            file.readline()
            yield from (cells for cells in csv.reader(file, delimiter=self.delimiter, strict=True) if cells)

    def numeric(self) -> tuple[str, ...]:
        """Names of the columns with a number in the first row."""
        first = next(self.rows(), [])
        return tuple(name for name, cell in zip(self.names, first, strict=False) if is_number(cell))


class RowSource(Protocol):
    """Rows that predictions are appended to."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def delimiter(self) -> str:
        """Delimiter of the output."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        ...

    def rows(self) -> Iterator[list[str]]:
        """The cells of every row."""
        ...


def open_rows(path: Path) -> RowFile:
    """The header of `path`. Raises Invalid if there is no such file, or it is not a CSV file in UTF-8 with a header."""
    with explain_errors(path, "CSV file", field="", encoding_advice="predict reads CSV files in UTF-8"):
        if path.exists() and not path.is_dir() and not path.is_file():
            raise Invalid("", f"{path} is not a regular file and would be read twice; save it to a file first")
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = parse_header(path, file.readline(), field="")
        return RowFile(path, header.delimiter, header.names)


def write_rows(
    file: RowSource,
    output: Path | None,
    names: Sequence[str],
    added: Iterable[Sequence[str]],
    excel_safe: bool = False,
) -> None:
    """Write the rows of `file` with the cells of `added` appended, to `output` or standard output. Raises Invalid.

    `names` are the appended columns. `excel_safe` escapes cells that a spreadsheet would execute. An output file is written
    completely or not at all.
    """
    if output is not None and output.exists() and output.samefile(file.path):
        raise Invalid("", f"--output would overwrite the input file {output}; choose another name")
    with _written(output) as target:
        writer = csv.writer(target, delimiter=file.delimiter, lineterminator="\n")
        cells_of = row_filter(excel_safe)
        writer.writerow(cells_of((*file.names, *names)))
        writer.writerows(cells_of((*cells, *extra)) for cells, extra in zip(file.rows(), added, strict=True))


@contextmanager
def _written(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield data_output()
        return
    try:
        with output_file(output) as target:
            yield target
    except OSError as error:
        raise Invalid("", f"cannot write {output}: {error.strerror}") from None

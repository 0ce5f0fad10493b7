"""CSV files for predictions: rows are copied unchanged, with columns appended. Never imports torch."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TextIO

from epochtop.engine.data.number_text import is_number
from epochtop.engine.data.tables.cells.numbers import format_of
from epochtop.engine.data.tables.csv_files.cells import rows_of
from epochtop.engine.data.tables.csv_files.dialect import Dialect, read_dialect
from epochtop.engine.data.tables.csv_files.plain_text import Utf8File, plain_text
from epochtop.engine.data.tables.csv_files.read import CsvOptions, sample_of
from epochtop.engine.protocol.datasets import Header
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.files import output_file
from epochtop.engine.terminal.output import data_output
from epochtop.engine.terminal.spreadsheets import row_filter


@dataclass(frozen=True)
class RowFile:
    """A CSV file in any dialect. It is read several times, so it must be a regular file."""

    path: Path
    options: CsvOptions
    dialect: Dialect

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns."""
        return self.dialect.names.names

    @property
    def delimiter(self) -> str:
        """The delimiter of the file."""
        return self.dialect.delimiter

    @property
    def has_header(self) -> bool:
        """Whether the file names its columns."""
        return bool(self.dialect.names.line)

    def rows(self) -> Iterator[list[str]]:
        """The cells of every row below the header, without empty lines."""
        with _text(self.path, self.options) as text:
            yield from rows_of(text, self.dialect)

    def check_names(self, needed: Sequence[str]) -> None:
        """Raise Invalid if the header has one of the needed columns twice, and the model does not know them numbered."""
        twice = (name for name in self.dialect.names.repeated if name in needed)
        name = next((name for name in twice if f"{name}.1" not in needed), None)
        if name is not None:
            raise Invalid("", f"{self.path}: the column {name!r} appears twice; rename one of them")

    def numeric(self) -> tuple[str, ...]:
        """Names of the columns with a number in the first row."""
        has_comma = self.has_decimal_comma
        firsts = ((name, cells[:1]) for name, cells in zip(self.names, self.dialect.sample, strict=True))
        return tuple(name for name, first in firsts if format_of(first, has_comma) is not None)

    @property
    def has_decimal_comma(self) -> bool:
        """Whether the file writes 1,5 for one and a half."""
        return self.dialect.has_decimal_comma


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
    def has_header(self) -> bool:
        """Whether the output names its columns."""
        ...

    @property
    def has_decimal_comma(self) -> bool:
        """Whether numbers are written as 1,5."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        ...

    def rows(self) -> Iterator[list[str]]:
        """The cells of every row."""
        ...


def open_rows(path: Path, header: Header = "auto", encoding: str = "auto", needed: Sequence[str] = ()) -> RowFile:
    """The dialect of `path`. `encoding` is that of a file which is not UTF-8. Raises Invalid if it is not a CSV file.

    The names of the columns that are `needed` decide whether there is a header, if `header` leaves that open.
    """
    if path.exists() and not path.is_dir() and not path.is_file():
        raise Invalid("", f"{path} is not a regular file and would be read twice; save it to a file first")
    options = CsvOptions(header=header, likely_encoding=encoding, is_rounded=False)
    try:
        with _text(path, options) as text:
            sample = sample_of(text)
            for chosen in _likely_headers(header, needed):
                dialect = read_dialect(path, sample, chosen)
                if set(needed) <= set(dialect.names.names):
                    return RowFile(path, replace(options, header=chosen), dialect)
            return RowFile(path, options, read_dialect(path, sample, header))
    except Invalid as error:
        raise Invalid("", error.message) from None


def _likely_headers(header: Header, needed: Sequence[str]) -> tuple[Header, ...]:
    return ("auto", "yes", "no") if header == "auto" and needed else (header,)


def _text(path: Path, options: CsvOptions) -> AbstractContextManager[Utf8File]:
    return plain_text(path, options.encoding, likely_encoding=options.likely_encoding)


def write_rows(
    file: RowSource,
    output: Path | None,
    names: Sequence[str],
    added: Iterable[Sequence[str]],
    excel_safe: bool = False,
) -> None:
    """Write the rows of `file` with the cells of `added` appended, to `output` or standard output. Raises Invalid.

    `names` are the appended columns. The delimiter, the decimal comma and the absence of a header stay. `excel_safe`
    escapes cells that a spreadsheet would execute. An output file is written completely or not at all.
    """
    if output is not None and output.exists() and output.samefile(file.path):
        raise Invalid("", f"--output would overwrite the input file {output}; choose another name")
    with _written(output) as target:
        writer = csv.writer(target, delimiter=file.delimiter, lineterminator="\n")
        cells_of = row_filter(excel_safe)
        if file.has_header:
            writer.writerow(cells_of((*file.names, *names)))
        extras = map(_with_decimal_commas, added) if file.has_decimal_comma and file.delimiter != "," else added
        writer.writerows(cells_of((*cells, *extra)) for cells, extra in zip(file.rows(), extras, strict=True))


def _with_decimal_commas(cells: Sequence[str]) -> list[str]:
    """Numbers in the way of a file that writes 1,5."""
    return [cell.replace(".", ",") if is_number(cell) else cell for cell in cells]


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

"""Reading delimited text: one file, or several with the same columns, as a :class:`Table`.

Never imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import OnProgress, no_progress
from epochtop.engine.data.tables.cells.typed import typed
from epochtop.engine.data.tables.column import CellType, ChooseTypes, Column, NumberColumn, Table, TextColumn, values_of
from epochtop.engine.data.tables.csv_files.blocks import ConflictError
from epochtop.engine.data.tables.csv_files.dialect import BLANKS, Dialect, read_dialect
from epochtop.engine.data.tables.csv_files.files import files_of
from epochtop.engine.data.tables.csv_files.layout import Layout, layout_of
from epochtop.engine.data.tables.csv_files.parallel import Rows, read_rows
from epochtop.engine.data.tables.csv_files.plain_text import Utf8File, plain_text
from epochtop.engine.data.tables.joined import differing_columns, joined_tables
from epochtop.engine.protocol.datasets import Header
from epochtop.engine.protocol.spec import Invalid

LARGE_BYTES = 2**26
"""Numbers in files from this size on are rounded to float32."""
SAMPLE_BYTES = 2**18
"""First bytes of a text that tell its dialect and the types of its columns."""


@dataclass(frozen=True)
class CsvOptions:
    """What the user says about a file."""

    encoding: str = "auto"
    """The codec, or `auto`."""
    header: Header = "auto"
    likely_encoding: str = "auto"
    """The codec of a file that `auto` finds not to be UTF-8, if that is known."""
    is_rounded: bool | None = None
    """Whether numbers are rounded to float32; None decides by the size of the file."""


def read_csv(
    path: Path, choose: ChooseTypes, options: CsvOptions = CsvOptions(), report: OnProgress = no_progress
) -> Table:
    """The table in the file or files at `path`. Raises Invalid.

    Numbers are float64, or float32 in a large file.
    """
    files = files_of(path)
    if len(files) == 1:
        return _read(files[0], choose, options, report)[0]
    if options.is_rounded is None:
        sizes = [file.stat().st_size for file in files if file.is_file()]
        options = replace(options, is_rounded=sum(sizes) >= LARGE_BYTES)
    chosen = _OneChoice(path, choose)
    tables = _read_all(files, chosen, options, report)
    if differing := differing_columns(tables):
        chosen.read_as_text(differing)
        tables = _read_all(files, chosen, options, report)
    return joined_tables(str(path), tables)


def _read_all(files: Sequence[Path], chosen: _OneChoice, options: CsvOptions, report: OnProgress) -> list[Table]:
    """The tables of all files; whether they have headers is decided by the first."""
    tables = list[Table]()
    for file in files:
        table, dialect = _read(file, chosen, options, report)
        tables.append(table)
        if dialect.missing_header_line:
            options = replace(options, header="no")
    return tables


def read_numbers(path: Path, columns: Sequence[str], options: CsvOptions = CsvOptions()) -> npt.NDArray[np.float64]:
    """The numbers in `columns`, float64 (rows, columns). Other columns may hold anything. Raises Invalid with the line."""

    def choose(names: Sequence[str]) -> Sequence[CellType]:
        missing = [name for name in columns if name not in names]
        if missing:
            listed = ", ".join(map(repr, missing))
            raise Invalid("dataset", f"{path} has no column {listed}; the model needs {len(columns)} columns")
        return ["number" if name in columns else "skip" for name in names]

    table = read_csv(path, choose, replace(options, is_rounded=False))
    for name in columns:
        _check_numbers(table, name)
    return np.column_stack([values_of(table.column(name)) for name in columns])


def _check_numbers(table: Table, name: str) -> None:
    """Raise Invalid for the first cell that is not a finite number."""
    column = table.column(name)
    assert isinstance(column, NumberColumn)
    bad = np.flatnonzero(~np.isfinite(column.values))
    if not len(bad):
        return
    row = int(bad[0])
    where = f"{table.where(row)}, column {name!r}"
    if row in column.unreadable:
        raise Invalid("dataset", f"{where}: {column.unreadable[row]!r} is not a number")
    if np.isnan(column.values[row]):
        raise Invalid("dataset", f"{where}: the value is missing; fill it in or drop the row")
    raise Invalid("dataset", f"{where}: {column.values[row]:g} is not a finite number")


class _OneChoice:
    """The types of the columns of several files, chosen once. Raises Invalid if a file has other columns."""

    def __init__(self, path: Path, choose: ChooseTypes) -> None:
        self._path, self._choose = path, choose
        self._types: dict[str, CellType] = {}

    def __call__(self, names: Sequence[str]) -> Sequence[CellType]:
        if not self._types:
            self._types = dict(zip(names, self._choose(names), strict=True))
        if tuple(names) != tuple(self._types):
            raise Invalid("dataset", _difference(tuple(self._types), tuple(names), self._path))
        return tuple(self._types.values())

    def read_as_text(self, names: set[str]) -> None:
        """Read these columns as text from now on."""
        self._types |= dict.fromkeys(names, "text")


def _difference(names: tuple[str, ...], others: tuple[str, ...], path: Path) -> str:
    """How the columns of two files differ."""
    missing = [name for name in names if name not in others] or [name for name in others if name not in names]
    what = f"not all of them have the column {missing[0]!r}" if missing else "their columns are in another order"
    return f"the files {path} must have the same columns, but {what}"


def _read(path: Path, choose: ChooseTypes, options: CsvOptions, report: OnProgress) -> tuple[Table, Dialect]:
    with plain_text(path, options.encoding, likely_encoding=options.likely_encoding) as text:
        dialect, types = _dialect(path, sample_of(text), choose, options.header)
        is_rounded = text.size >= LARGE_BYTES if options.is_rounded is None else options.is_rounded
        layout = layout_of(dialect, types, is_rounded)
        while True:
            try:
                return _table(text, layout, read_rows(text, layout, report)), dialect
            except ConflictError as conflict:  # each turns columns into texts, or rounding off, so they end
                layout = layout.with_texts(conflict.places)
                layout = layout.without_rounding() if conflict.is_beyond_float32 else layout


def sample_of(text: Utf8File) -> str:
    """The first lines of a text, from which its dialect is read."""
    with open(text.path, "rb") as file:
        file.seek(text.start)
        data = file.read(SAMPLE_BYTES)
        data += file.readline() if len(data) == SAMPLE_BYTES else b""
    return data.decode()


def _dialect(path: Path, sample: str, choose: ChooseTypes, header: Header) -> tuple[Dialect, tuple[CellType, ...]]:
    """The dialect, and the type of every column. A first row that looks like data is the header if the settings fit it only.

    Raises Invalid.
    """
    dialect = read_dialect(path, sample, header)
    try:
        return dialect, _types(dialect, choose)
    except Invalid:
        if not dialect.missing_header_line:
            raise
        named = read_dialect(path, sample, "yes")
        with suppress(Invalid):
            return named, tuple(choose(named.names.names))
        raise


def _types(dialect: Dialect, choose: ChooseTypes) -> tuple[CellType, ...]:
    """The type of every column. Raises Invalid, with a hint if the header looks like a row."""
    names = dialect.names
    names.check()
    try:
        return tuple(choose(names.names))
    except Invalid as error:
        hints = []
        if dialect.delimiter == BLANKS:
            hints.append("blanks separate its columns")
        if dialect.missing_header_line:
            line = dialect.missing_header_line
            advice = "give the position of the target (#1, last), or set header to yes if it is one"
            hints.append(f"line {line} looks like data, so the file is read without a header: {advice}")
        if names.looks_like_data:
            hints.append(f"line {names.line} looks like data, so the file may have no header: set header to no")
        raise Invalid(error.field, "; ".join((error.message, *hints))) from None


def _table(text: Utf8File, layout: Layout, rows: Rows) -> Table:
    columns: list[Column] = []
    for plan in layout.plans:
        if plan.form is not None:
            values = rows.numbers[:, plan.index]
            columns.append(NumberColumn(plan.name, values, rows.unreadable.get(plan.index, {})))
        else:
            texts = TextColumn(plan.name, rows.codes[plan.index], rows.texts[plan.index])
            columns.append(typed(texts, plan.type, layout.has_decimal_comma))
    return Table(
        source=str(text.source),
        columns=tuple(columns),
        lines=rows.lines,
        numbers=rows.numbers if layout.numbers else None,
        number_names=tuple(plan.name for plan in layout.numbers),
        notes=(*text.notes, *layout.dialect.notes, *_format_notes(layout)),
    )


def _format_notes(layout: Layout) -> tuple[str, ...]:
    """What the user should know about how numbers were read."""
    return ("commas are read as decimal points",) if layout.has_decimal_comma else ()

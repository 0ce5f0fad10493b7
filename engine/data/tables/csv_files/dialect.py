"""The dialect of delimited text, from its first part: delimiter, header, comments, and what to skip.

Must never read more than the sample it is given.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from epochtop.engine.data.number_text import is_number
from epochtop.engine.data.tables.cells.missing import is_missing_text
from epochtop.engine.data.tables.cells.numbers import uses_decimal_comma
from epochtop.engine.data.tables.csv_files.header import is_data
from epochtop.engine.data.tables.csv_files.names import Names, header_names, numbered_names
from epochtop.engine.protocol.datasets import Header
from epochtop.engine.protocol.spec import Invalid

BLANKS = " "
"""The delimiter of a table whose cells are separated by runs of blanks and tabs."""
SAMPLE_ROWS = 500
_DELIMITERS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'"?sep=(.|\\t)"?', re.IGNORECASE)
_MOST_UNIT_LETTERS = 16


@dataclass(frozen=True)
class Dialect:
    """How a file writes its rows."""

    delimiter: str
    has_comments: bool
    """Whether lines that begin with `#` are not rows."""
    names: Names
    first_line: int
    """Number of the line at which the rows begin, from 1."""
    first_byte: int
    """Its place in the text."""
    sample: tuple[list[str], ...] = ()
    """Cells of the first rows, column by column."""
    notes: tuple[str, ...] = ()
    missing_header_line: int = 0
    """The line of the first row if `auto` finds that it names no columns; else 0."""

    def texts(self) -> list[list[str]]:
        """The distinct texts of the first rows, column by column, without missing values."""
        return [
            list(dict.fromkeys(cell.strip() for cell in cells if not is_missing_text(cell))) for cells in self.sample
        ]

    @property
    def has_decimal_comma(self) -> bool:
        """Whether the file writes 1,5 for one and a half."""
        return uses_decimal_comma(self.texts(), self.delimiter)

    def plain_line(self, line: str) -> str:
        """A line as the parser takes it: without comment, with single delimiters."""
        if self.has_comments and line.startswith("#"):
            return "\n" if line.endswith("\n") else ""
        return _single_blanks(line) if self.delimiter == BLANKS else line


@dataclass(frozen=True)
class _Row:
    """A row of the sample: cells, the index of its first line, and the index after its last."""

    cells: list[str]
    first: int
    end: int


class _Sample:
    """The first lines of a text."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.lines = re.findall(r"[^\n]*\n|[^\n]+", text)
        self.at = 0

    def skip_blank(self) -> None:
        while self.at < len(self.lines) and not self.lines[self.at].strip():
            self.at += 1

    def rows(self, delimiter: str, start: int, has_comments: bool) -> Iterator[_Row]:
        """The rows from line `start` on, without blank ones; ends at text that is not valid."""
        lines = ("\n" if has_comments and line.startswith("#") else line for line in self.lines[start:])
        reader = row_reader(map(_single_blanks, lines) if delimiter == BLANKS else lines, delimiter)
        first = start
        try:
            for cells in reader:
                if any(map(str.strip, cells)) or len(cells) > 1:
                    yield _Row(cells, first, start + reader.line_num)
                first = start + reader.line_num
        except csv.Error as error:
            if first == self.at:
                raise Invalid("dataset", f"{self.path}, line {first + 1}: {error}") from None


def read_dialect(path: Path, sample: str, header: Header = "auto") -> Dialect:
    """The dialect of a file whose text begins with `sample`, which ends at a line end. Raises Invalid."""
    lines = _Sample(path, sample)
    lines.skip_blank()
    separator = _separator_line(lines)
    comment = _comments(lines)
    if lines.at >= len(lines.lines):
        raise Invalid("dataset", f"{path} is empty; it needs a header row with the column names")
    delimiter = separator or _delimiter(lines, comment is not None)
    rows = list(_first_rows(lines, delimiter, comment is not None))
    return _dialect(lines, delimiter, comment, rows, header)


def row_reader(lines: Iterable[str], delimiter: str) -> Any:
    """A reader of `csv` that splits lines into rows of cells and counts the lines."""
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)


def _first_rows(lines: _Sample, delimiter: str, has_comments: bool) -> Iterator[_Row]:
    for number, row in enumerate(lines.rows(delimiter, lines.at, has_comments)):
        if number > SAMPLE_ROWS:
            return
        yield row


def _separator_line(lines: _Sample) -> str:
    """The delimiter that a line `sep=;` names, as Excel writes it; empty if there is no such line."""
    match = _SEPARATOR_LINE.fullmatch(lines.lines[lines.at].strip(" \r\n")) if lines.at < len(lines.lines) else None
    if match is None:
        return ""
    lines.at += 1
    lines.skip_blank()
    return "\t" if match[1] == "\\t" else match[1]


def _comments(lines: _Sample) -> str | None:
    """Skip the comments before the first row; the last one, or None if there is none."""
    comment, start = None, lines.at
    while lines.at < len(lines.lines) and (lines.lines[lines.at].startswith("#") or not lines.lines[lines.at].strip()):
        comment = lines.lines[lines.at].lstrip("#").strip() or comment
        lines.at += 1
    if lines.at == start + 1 and lines.at < len(lines.lines) and _is_header_with_number_sign(lines, start):
        lines.at = start
        return None
    return comment


def _is_header_with_number_sign(lines: _Sample, at: int) -> bool:
    """Whether the line is a header whose first column is called `#`, as in `#,name,price`."""
    return bool(re.match(r"#\s*[,;\t|]", lines.lines[at]))


# --- the delimiter -----------------------------------------------------------------------------------------


def _delimiter(lines: _Sample, has_comments: bool) -> str:
    """The delimiter that splits header and rows alike; runs of blanks if no other does."""
    scores = {delimiter: _score(lines, delimiter, has_comments) for delimiter in _DELIMITERS}
    best = max(scores, key=scores.__getitem__)
    agreement, width = scores[best]
    if width < 2 or agreement < 0.5 or (best == "\t" and _is_aligned(lines)):
        blank_agreement, blank_width = _score(lines, BLANKS, has_comments)
        if blank_width > max(1, width if agreement >= 0.5 else 1) and blank_agreement >= 0.9:
            return BLANKS
    if width >= 2:
        others = (other for other in _DELIMITERS[1:] if scores[other] >= (0.9, 2)) if best == "," else ()
        return next((other for other in others if _has_decimal_commas(lines, other, has_comments)), best)
    return max(_DELIMITERS, key=lines.lines[lines.at].count)


def _has_decimal_commas(lines: _Sample, delimiter: str, has_comments: bool) -> bool:
    """Whether the commas are decimal if the rows are split at `delimiter`, as in `1,5;2,25`."""
    rows = (row.cells for row in islice(_first_rows(lines, delimiter, has_comments), 100))
    columns = zip_longest(*rows, fillvalue="")
    return uses_decimal_comma([[cell for cell in cells if not is_missing_text(cell)] for cells in columns], delimiter)


def _is_aligned(lines: _Sample) -> bool:
    """Whether most lines have runs of blanks, which align the cells of a table for people."""
    first = [line.strip() for line in lines.lines[lines.at : lines.at + 100]]
    return sum("  " in line for line in first) > len(first) / 2


def _score(lines: _Sample, delimiter: str, has_comments: bool) -> tuple[float, int]:
    """The share of rows as wide as the header, give or take one cell, and the width of the header."""
    try:
        rows = list(islice(_first_rows(lines, delimiter, has_comments), 100))
    except Invalid:
        return 0.0, 0
    if not rows or len(rows[0].cells) < 2:
        return 0.0, len(rows[0].cells) if rows else 0
    width = len(rows[0].cells)
    others = [_width(row.cells) for row in rows[1:]] or [width]
    fitting = sum(width - 1 <= other <= width + 1 and other > 1 for other in others)
    return round(fitting / len(others), 1), width


def _width(cells: list[str]) -> int:
    """The number of cells without empty ones at the end, and at least that of the first row's."""
    count = len(cells)
    while count > 1 and not cells[count - 1].strip():
        count -= 1
    return count if count > 1 else len(cells)


def _single_blanks(line: str) -> str:
    end = "\n" if line.endswith("\n") else ""
    return line.strip().replace("\t", " ") + end


# --- header and first row ----------------------------------------------------------------------------------


def _dialect(lines: _Sample, delimiter: str, comment: str | None, rows: list[_Row], header: Header) -> Dialect:
    if not rows:
        raise Invalid("dataset", f"{lines.path}, line {lines.at + 1}: a quote is never closed")
    first, notes = rows[0], list[str]()
    commented = None if comment is None else _commented_header(comment, delimiter, rows, header)
    is_without = commented is None and header == "auto" and is_data(first.cells, [row.cells for row in rows[1:]])
    if header == "no" or is_without:
        names = numbered_names(lines.path, max(len(row.cells) for row in rows[:50]) - _extra(rows))
        data = rows
    elif commented is not None:
        names, data = header_names(lines.path, first.first, commented, rows), rows
    else:
        names, data = header_names(lines.path, first.first + 1, first.cells, rows[1:]), rows[1:]
        if data and _is_units(data):
            notes.append(f"line {data[0].first + 1} holds units ({_listed(data[0].cells)}); it is left out")
            data = data[1:]
    if is_without:
        listed = f"c1 … c{len(names.names)}" if len(names.names) > 1 else "c1"
        notes.append(
            f"line {first.first + 1} looks like data, so the columns are called {listed}; if it is a header, set header to yes"
        )
    start = data[0].first if data else first.end
    width = len(names.names)
    cells = [row.cells + [""] * (width - len(row.cells)) for row in data]
    return Dialect(
        delimiter=delimiter,
        has_comments=comment is not None,
        names=names,
        first_line=start + 1,
        first_byte=sum(len(line.encode()) for line in lines.lines[:start]),
        sample=tuple([row[place] for row in cells] for place in range(width)),
        notes=(*notes, *names.notes),
        missing_header_line=first.first + 1 if is_without else 0,
    )


def _extra(rows: list[_Row]) -> int:
    """1 if every row ends with an empty cell, as some programs write it."""
    return int(len(rows) > 1 and all(len(row.cells) > 1 and not row.cells[-1].strip() for row in rows))


def _commented_header(comment: str, delimiter: str, rows: list[_Row], header: Header) -> list[str] | None:
    """The names in the last comment before the rows, if it has one for each cell and the first row holds numbers."""
    if header == "yes" or not any(map(is_number, rows[0].cells)):
        return None
    line = _single_blanks(comment) if delimiter == BLANKS else comment
    names = next(iter(csv.reader([line], delimiter=delimiter, skipinitialspace=True)), [])
    if len(names) != len(rows[0].cells) or len(names) < 2 or any(map(is_number, names)) or not all(names):
        return None
    return names


def _is_units(data: list[_Row]) -> bool:
    """Whether the first row holds units: short texts where all rows below hold numbers."""
    if len(data) < 3:
        return False
    width = min(len(row.cells) for row in data)
    columns = [
        [row.cells[place] for row in data[1:] if not is_missing_text(row.cells[place])] for place in range(width)
    ]
    units = [data[0].cells[place].strip() for place in range(width)]
    numeric = [place for place in range(width) if columns[place] and all(map(is_number, columns[place]))]
    named = [place for place in numeric if not is_missing_text(units[place]) or units[place] in ("-", "")]
    return (
        len(numeric) >= 1
        and len(named) == len(numeric)
        and any(units[place] not in ("-", "") for place in numeric)
        and not any(is_number(unit) for unit in units)
        and all(len(unit) <= _MOST_UNIT_LETTERS for unit in units)
    )


def _listed(cells: Iterable[str]) -> str:
    texts = [cell.strip() for cell in cells if cell.strip()]
    return ", ".join(texts[:4]) + (", …" if len(texts) > 4 else "")

"""The parser of delimited text: blocks of lines become numbers and codes of texts.

Python's csv module splits the rows. A block of plain numbers skips it: rows in brackets are JSON, and msgspec's decoder
takes a third of the time of numpy's text reader for 18 digits, rounds correctly, and refuses what is not a number or a row of
another length. Never imports torch.
"""

from __future__ import annotations

import csv
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from epochtop.engine.data.tables.cells.numbers import NotNumbersError, floats_of
from epochtop.engine.data.tables.csv_files.dialect import BLANKS, row_reader
from epochtop.engine.data.tables.csv_files.layout import Buffers, ColumnPlan, Layout
from epochtop.engine.data.tables.csv_files.plain_text import count_of
from epochtop.engine.protocol.spec import Invalid

BLOCK_BYTES = 2**18
"""Small enough that a block's cells, as Python objects, stay in the processor's cache."""
MOST_QUOTED_BYTES = 2**24
"""Longest stretch of text that is read to find the end of a quoted cell."""
_MOST_REFUSALS = 3
"""Blocks in a row that are not plain numbers, after which no other is tried as such."""


class ConflictError(Exception):
    """The rows do not fit the layout, which was made from the first of them."""

    def __init__(self, places: set[int], is_beyond_float32: bool = False) -> None:
        super().__init__(places, is_beyond_float32)
        self.places, self.is_beyond_float32 = places, is_beyond_float32


@dataclass
class Parsed:
    """What a part of a file held, besides the rows in its buffers."""

    rows: int = 0
    texts: list[list[str]] = field(default_factory=list)
    """Distinct texts of each column of texts, by code."""
    unreadable: dict[int, dict[int, str]] = field(default_factory=dict)
    """Cells that are not numbers, by index of the row, by index of the column of numbers."""
    lines: npt.NDArray[np.int64] | None = None
    """The line of each row, counted from the first line of the part; None if there is one row per line."""


@dataclass(frozen=True)
class Span:
    """A part of a file: bytes `start` to `end`, the first of which is on line `line`."""

    start: int
    end: int
    line: int


def blocks_of(file: BinaryIO, span: Span) -> Iterator[bytes]:
    """The bytes of a span in blocks of whole lines; a block has an even number of quotes if that can be had."""
    file.seek(span.start)
    rest, at = b"", span.start
    while at < span.end and (data := file.read(min(BLOCK_BYTES, span.end - at))):
        at += len(data)
        whole, newline, tail = data.rpartition(b"\n")
        block, rest = (rest + whole + newline, tail) if newline else (b"", rest + data)
        if count_of(block, b'"') % 2 and len(block) < MOST_QUOTED_BYTES:
            rest = block + rest
        elif block:
            yield block
    if rest:
        yield rest


class Parser:
    """Reads blocks into buffers. Raises ConflictError, or Invalid with the line."""

    def __init__(self, source: Path, layout: Layout, buffers: Buffers, first_line: int) -> None:
        self._source, self._layout, self._buffers = source, layout, buffers
        self._line, self._first_line = first_line, first_line
        self._rows = 0
        self._codes: list[defaultdict[str, int]] = [_codes() for _ in layout.texts]
        self._unreadable: dict[int, dict[int, str]] = {}
        self._lines: list[npt.NDArray[np.int64]] = []
        self._is_regular = True
        self._refusals = 0 if is_quick(layout) else _MOST_REFUSALS

    def parsed(self) -> Parsed:
        """The result, after the last block."""
        lines = None if self._is_regular else np.concatenate(self._lines)
        return Parsed(self._rows, [list(codes) for codes in self._codes], self._unreadable, lines)

    def add(self, block: bytes) -> None:
        """Read a block of whole lines."""
        count = count_of(block, b"\n") + (not block.endswith(b"\n"))
        if self._refusals < _MOST_REFUSALS and b'"' not in block:
            if self._add_numbers(block):
                self._refusals = 0
                self._note_lines(count, None)
                self._line += count
                return
            self._refusals += 1
        self._add_rows(block.decode(), b'"' in block)
        self._line += count

    # --- plain numbers ----------------------------------------------------------------------------------

    def _add_numbers(self, block: bytes) -> bool:
        """Read a block of plain numbers, with at most one column of texts; False if it is none."""
        layout = self._layout
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").removesuffix(b"\r")
        lines = block.removesuffix(b"\n").split(b"\n")
        delimiter = layout.dialect.delimiter.encode()
        names: Sequence[bytes] = ()
        try:
            if layout.texts:
                lines, names = _split(lines, delimiter, layout.texts[0].place, layout.width)
            values = _numbers(lines, delimiter, len(layout.numbers))
            texts = b"\n".join(names).decode().split("\n")
        except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
            return False
        if values is None:
            return False
        end = self._end(len(lines))
        self._store(slice(None), end, values)
        if layout.texts:
            self._buffers.codes[0, self._rows : end] = _coded(texts, self._codes[0])
        self._rows = end
        return True

    # --- rows of cells ----------------------------------------------------------------------------------

    def _add_rows(self, text: str, has_quotes: bool) -> None:
        rows, lines = self._split_rows(text, has_quotes)
        if set(map(len, rows)) - {self._layout.width}:
            rows, lines = self._of_one_width(rows, lines)
        if not rows:
            return
        end = self._end(len(rows))
        columns = list(zip(*rows, strict=True))
        conflicts = {
            plan.place for plan in self._layout.numbers if not self._add_column(plan, columns[plan.place], end)
        }
        if conflicts:
            raise ConflictError(conflicts)
        for plan in self._layout.texts:
            codes = _coded(columns[plan.place], self._codes[plan.index])
            self._buffers.codes[plan.index, self._rows : end] = codes
        self._note_lines(len(rows), lines)
        self._rows = end

    def _split_rows(self, text: str, has_quotes: bool) -> tuple[list[list[str]], npt.NDArray[np.int64] | None]:
        """Rows of cells, and the line of each; None if each line is a row."""
        dialect = self._layout.dialect
        lines = text.removesuffix("\n").split("\n")
        if has_quotes:
            lines = [line + "\n" for line in lines]
        if dialect.has_comments or dialect.delimiter == BLANKS:
            lines = list(map(dialect.plain_line, lines))
        reader = row_reader(lines, self._layout.dialect.delimiter)
        try:
            rows = list(reader)
        except csv.Error as error:
            raise Invalid("dataset", f"{self._where(self._broken_line(lines))}: {error}") from None
        if len(rows) == len(lines) and [] not in rows:
            return rows, None
        return self._with_lines(lines)

    def _with_lines(self, lines: list[str]) -> tuple[list[list[str]], npt.NDArray[np.int64]]:
        """Rows without blank ones, and the line of each, for a block in which a row is not a line."""
        rows, numbers, first = [], [], self._line
        reader = row_reader(lines, self._layout.dialect.delimiter)
        for cells in reader:
            if cells:
                rows.append(cells)
                numbers.append(first)
            first = self._line + reader.line_num
        return rows, np.array(numbers, dtype=np.int64)

    def _broken_line(self, lines: list[str]) -> int:
        """The line on which the first row begins that cannot be split."""
        reader, first = row_reader(lines, self._layout.dialect.delimiter), self._line
        try:
            for _ in reader:
                first = self._line + reader.line_num
        except csv.Error:
            pass
        return first

    def _of_one_width(
        self, rows: list[list[str]], lines: npt.NDArray[np.int64] | None
    ) -> tuple[list[list[str]], npt.NDArray[np.int64] | None]:
        """The rows without empty cells at their ends. Raises Invalid for a row that is too long or too short."""
        width, places = self._layout.width, list(range(len(rows))) if lines is None else lines.tolist()
        offset = self._line if lines is None else 0
        even, numbers = [], []
        for cells, place in zip(rows, places, strict=True):
            if len(cells) == 1 < width and not cells[0].strip():
                continue
            if len(cells) < width or any(map(str.strip, cells[width:])):
                raise Invalid("dataset", f"{self._where(place + offset)} has {_cells(len(cells))}; {self._expected()}")
            even.append(cells[:width])
            numbers.append(place + offset)
        return even, None if lines is None and len(even) == len(rows) else np.array(numbers, dtype=np.int64)

    def _expected(self) -> str:
        if self._layout.dialect.names.line:
            return f"the header has {self._layout.width}"
        return f"the first row has {self._layout.width}"

    def _where(self, line: int) -> str:
        return f"{self._source}, line {line}"

    def _add_column(self, plan: ColumnPlan, cells: Sequence[str], end: int) -> bool:
        """Read the cells of a column of numbers; False if the column must be read as texts."""
        assert plan.form is not None
        others: dict[int, str] | None = {} if plan.type == "number" else None
        try:
            values = floats_of(cells, plan.form, None if others is None else others.__setitem__)
        except NotNumbersError:
            return False
        self._store(plan.index, end, values)
        if others:
            known = self._unreadable.setdefault(plan.index, {})
            known.update((self._rows + place, text) for place, text in others.items())
        return True

    # --- both -------------------------------------------------------------------------------------------

    def _end(self, rows: int) -> int:
        return self._rows + rows

    def _store(self, columns: Any, end: int, values: npt.NDArray[np.float64]) -> None:
        """Store numbers. Raises ConflictError if float32 cannot hold one."""
        place = self._buffers.numbers[self._rows : end, columns]
        with np.errstate(over="ignore"):
            place[...] = values
        if self._layout.is_rounded and np.isinf(place).any() and np.isfinite(values[np.isinf(place)]).any():
            raise ConflictError(set(), is_beyond_float32=True)

    def _note_lines(self, rows: int, lines: npt.NDArray[np.int64] | None) -> None:
        """Remember the lines of `rows` rows; they cost nothing as long as every line is a row."""
        if self._is_regular and lines is not None:
            self._is_regular = False
            self._lines = [np.arange(self._rows, dtype=np.int64)]
        if not self._is_regular:
            first = self._line - self._first_line
            self._lines.append(np.arange(first, first + rows) if lines is None else lines - self._first_line)


def is_quick(layout: Layout) -> bool:
    """Whether blocks may be plain numbers: all columns are, except at most one of texts."""
    is_whole = len(layout.plans) == layout.width and len(layout.texts) <= 1 and bool(layout.numbers)
    is_plain = all(plan.form is not None and plan.form.is_plain for plan in layout.numbers)
    return is_whole and is_plain and layout.dialect.delimiter != BLANKS and not layout.dialect.has_comments


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def _codes() -> defaultdict[str, int]:
    """A dictionary that gives a text that it does not hold the next code."""
    codes: defaultdict[str, int] = defaultdict()
    codes.default_factory = codes.__len__
    return codes


def _coded(texts: Sequence[str], codes: defaultdict[str, int]) -> npt.NDArray[np.int32]:
    return np.fromiter(map(codes.__getitem__, texts), np.int32, len(texts))


def _split(lines: list[bytes], delimiter: bytes, place: int, width: int) -> tuple[list[bytes], list[bytes]]:
    """The lines without the cell at `place`, and those cells. Raises IndexError for a line without that cell."""
    if place == width - 1:
        parts = [line.rpartition(delimiter) for line in lines]
        return [rest for rest, _, _ in parts], [cell for _, _, cell in parts]
    rests, cells = [], []
    for line in lines:
        parts_of_line = line.split(delimiter, place + 1)
        cells.append(parts_of_line.pop(place))
        rests.append(delimiter.join(parts_of_line))
    return rests, cells


@lru_cache(maxsize=4)
def _decoder(columns: int) -> msgspec.json.Decoder[list[tuple[float, ...]]]:
    """A decoder of rows of that many numbers."""
    return msgspec.json.Decoder(list[tuple[(float,) * columns]])  # type: ignore[misc]


def _numbers(lines: Sequence[bytes], delimiter: bytes, columns: int) -> npt.NDArray[np.float64] | None:
    """Lines of `columns` numbers each, as float64 (lines, columns); None if they are not. Raises DecodeError for these, too."""
    if delimiter != b",":
        if any(b"," in line for line in lines):
            return None
        lines = [line.replace(delimiter, b",") for line in lines]
    text = b"[[%b]]" % b"],[".join(lines)
    rows = None if b"\r" in text else _decoder(columns).decode(text)
    if rows is None or len(rows) != len(lines):
        return None
    pack = struct.Struct(f"{columns}d").pack
    return np.frombuffer(b"".join([pack(*row) for row in rows])).reshape(-1, columns)

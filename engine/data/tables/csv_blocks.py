"""Large CSV files of plain numbers, read in blocks: a line of numbers between brackets is JSON.

msgspec's decoder reads decimal numbers in a third of the time of numpy's text reader on 18 digits, rounds them
correctly, and refuses whatever is not a number. This module explains nothing: what it cannot read is left to
:mod:`epochtop.engine.data.tables.csv`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from epochtop.engine.data.labels import MISSING, Labels, as_numbers, labels_of, of_names
from epochtop.engine.data.tables.header import Header

BLOCK_BYTES = 2**18
"""Small enough that the numbers of a block, as Python objects, stay in the processor's cache."""
MOST_LINE_BYTES = 2**24
PART_BYTES, MOST_PROCESSES = 2**25, 8
"""A process of its own is worth it for this much text."""
MOST_NAMES = 10_000
"""More names of classes than this are no classes."""

Floats = npt.NDArray[np.float32]
_DECODER = msgspec.json.Decoder(list[float])


ReadParts = Callable[[BinaryIO, int, int, bytes, int], tuple[Floats, "LabelColumn"]]
"""From a file that stands behind its header, a number of processes, columns, the delimiter and the place of the label."""


class OddError(Exception):
    """The file is not the plain table that this module reads."""


def read_blocks(
    file: BinaryIO, header: Header, target: str, say: Callable[[str], None], read_parts: ReadParts
) -> tuple[Header, Floats, Labels] | None:
    """Features as float32 (rows, features) and labels of a file that stands behind its header; None if it is odd.

    `read_parts` reads a file in several processes. Needs the memory of the features and some 60 MB. Raises Invalid for a header that cannot be trained on.
    """
    columns, delimiter, label = len(header.names), header.delimiter.encode(), header.place(target)
    table = Table(columns, delimiter, label)
    start, size, told = file.tell(), header.path.stat().st_size, 0
    try:
        if (parts := processes(size - start)) > 1:
            say(f"reading {header.path.name} in {parts} processes")
            x, y = read_parts(file, parts, columns, delimiter, label)
            return header, x, y.labels(target)
        for lines in lines_of(file):
            table.add(lines, (size - start) / max(1, file.tell() - start))
            done = 100 * file.tell() // size
            if done > told:
                told = done
                say(f"reading {header.path.name}: {done} %")
        return header, table.features(), table.found.labels(target)
    except (OddError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def processes(size_bytes: int) -> int:
    """How many processes a file of this size is read in: forks of this one, which only Linux does safely."""
    if sys.platform != "linux":
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), MOST_PROCESSES, size_bytes // PART_BYTES))


def lines_of(file: BinaryIO, end: int | None = None) -> Iterator[list[bytes]]:
    """Lines without their ends up to the place `end`, blank ones left out. Raises OddError."""
    rest = b""
    while block := file.read(BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - file.tell())):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MOST_LINE_BYTES:
            raise OddError
        yield [line for line in (line.removesuffix(b"\r") for line in lines) if line]
    yield [rest.removesuffix(b"\r")] if rest.strip() else []


@dataclass(frozen=True)
class LabelColumn:
    """A label column as it was read, a block after the other: numbers, or codes into `names`."""

    numbers: list[npt.NDArray[np.float64]] = field(default_factory=list)
    codes: list[npt.NDArray[np.int32]] = field(default_factory=list)
    names: dict[bytes, int] = field(default_factory=dict)

    def labels(self, target: str) -> Labels:
        """Labels of all rows. Raises Invalid where there is one class only."""
        if not self.names:
            return labels_of(np.concatenate(self.numbers), target)
        return of_names(_texts(self.names), np.concatenate(self.codes), target)


class Table:
    """The rows read so far; the array has room for more than there are, and `room` is one that cannot grow."""

    def __init__(self, columns: int, delimiter: bytes, label: int, room: Floats | None = None) -> None:
        self._columns, self._delimiter, self._label = columns, delimiter, label
        self._x = np.empty((0, columns - 1), dtype=np.float32) if room is None else room
        self._grows = room is None
        self.rows = 0
        self.found = LabelColumn()

    def add(self, lines: list[bytes], share: float) -> None:
        """Read a block of lines; the file has `share` times the rows that were read with it."""
        if not lines:
            return
        if set(map(bytes.count, lines, repeat(self._delimiter))) != {self._columns - 1}:
            raise OddError
        block = self._parsed(lines)
        rows = self.rows + len(block)
        if rows > len(self._x):
            if not self._grows:
                raise OddError
            self._x.resize((max(rows, int(rows * share * 1.02)), self._columns - 1), refcheck=False)
        with np.errstate(over="ignore"):
            self._x[self.rows : rows] = block
        if not np.isfinite(self._x[self.rows : rows]).all():
            raise OddError  # float64 may hold what float32 does not
        self.rows = rows

    def _parsed(self, lines: list[bytes]) -> npt.NDArray[np.float64]:
        """Features of a block, whose labels are kept: as numbers, unless the first block has others."""
        if not self.found.names:
            try:
                values = _numbers(lines, self._delimiter, self._columns)
            except msgspec.DecodeError:
                if self.rows:
                    raise
            else:
                self.found.numbers.append(values[:, self._label].copy())
                return np.delete(values, self._label, axis=1)
        rests, names = zip(*map(self._apart, lines), strict=True)
        codes = [self.found.names.setdefault(name, len(self.found.names)) for name in names]
        if len(self.found.names) > MOST_NAMES:
            raise OddError
        self.found.codes.append(np.array(codes, dtype=np.int32))
        return _numbers(rests, self._delimiter, self._columns - 1)

    def _apart(self, line: bytes) -> tuple[bytes, bytes]:
        """A line without its label, and the label."""
        if self._label == self._columns - 1:
            rest, _, name = line.rpartition(self._delimiter)
            return rest, name
        cells = line.split(self._delimiter, self._label + 1)
        name = cells.pop(self._label)
        return self._delimiter.join(cells), name

    def features(self) -> Floats:
        """All rows; the room that is left over is given back."""
        if self.rows < 2:
            raise OddError
        self._x.resize((self.rows, self._columns - 1), refcheck=False)
        return self._x


def _numbers(lines: Sequence[bytes], delimiter: bytes, columns: int) -> npt.NDArray[np.float64]:
    """Lines of `columns` numbers each, float64 (lines, columns)."""
    text = delimiter.join(lines)
    if b"\r" in text or (delimiter != b"," and b"," in text):
        raise OddError
    numbers = _DECODER.decode(b"[%b]" % (text if delimiter == b"," else text.replace(delimiter, b",")))
    if len(numbers) != len(lines) * columns:
        raise OddError
    return np.array(numbers, dtype=np.float64).reshape(-1, columns)


def _texts(names: Iterable[bytes]) -> tuple[str, ...]:
    """Names of classes as texts; different bytes may be one name with spaces around it, which is odd too."""
    texts = tuple(name.decode().strip() for name in names)
    odd = any(text.lower() in MISSING or '"' in text or "\r" in text for text in texts)
    if odd or len(set(texts)) < len(texts) or as_numbers(texts) is not None:
        raise OddError
    return texts

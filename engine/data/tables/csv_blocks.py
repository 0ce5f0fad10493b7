"""Large CSV files of plain numbers, read in blocks: a line of numbers in brackets is JSON.

msgspec's decoder takes a third of the time of numpy's text reader for 18 digits, rounds correctly, and refuses anything
that is not a number. This module explains no errors: it leaves files it cannot read to
:mod:`epochtop.engine.data.tables.csv`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import itemgetter
from typing import BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import OnProgress
from epochtop.engine.data.labels import MISSING, Labels, labels_of, of_texts
from epochtop.engine.data.number_text import as_numbers
from epochtop.engine.data.tables.header import Header
from epochtop.engine.protocol.datasets import Problem

BLOCK_BYTES = 2**18
"""Small enough that a block's numbers, as Python objects, stay in the processor's cache."""
MOST_LINE_BYTES = 2**24
PART_BYTES, MOST_PROCESSES = 2**25, 8
"""Text for which another process pays, and the highest number of processes."""
MOST_NAMES = 10_000
"""A column with more distinct texts than this is not a label column."""

Floats = npt.NDArray[np.float32]
_DECODER = msgspec.json.Decoder(list[float])


ReadParts = Callable[[BinaryIO, int, int, bytes, int], tuple[Floats, "LabelColumn"]]
"""Arguments: file positioned after its header, number of processes, number of columns, delimiter, index of the label."""


class NotPlainError(Exception):
    """The file is not a plain table of numbers with a label column."""


def read_blocks(
    file: BinaryIO, header: Header, target: str, report: OnProgress, read_parts: ReadParts
) -> tuple[Header, Floats, LabelColumn] | None:
    """Header, features as float32 (rows, features), and label column of a file positioned after its header.

    None if the file is not a plain table. `read_parts` reads a file in several processes. Needs the memory of the
    features and about 60 MB. Raises Invalid for a header that cannot be trained on.
    """
    columns, delimiter, label = len(header.names), header.delimiter.encode(), header.label_index(target)
    table = Table(columns, delimiter, label)
    start, size, reported = file.tell(), header.path.stat().st_size, 0
    try:
        if (parts := processes(size - start)) > 1:
            report(f"reading {header.path.name} in {parts} processes")
            x, y = read_parts(file, parts, columns, delimiter, label)
            return header, x, y
        for lines in lines_of(file):
            table.add(lines, (size - start) / max(1, file.tell() - start))
            percent = 100 * file.tell() // size
            if percent > reported:
                reported = percent
                report(f"reading {header.path.name}: {percent} %")
        return header, table.features(), table.labels
    except (NotPlainError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def processes(size_bytes: int) -> int:
    """Number of processes to read a file of this size with; they are forks, which only Linux does safely."""
    if sys.platform != "linux":
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), MOST_PROCESSES, size_bytes // PART_BYTES))


def lines_of(file: BinaryIO, end: int | None = None) -> Iterator[list[bytes]]:
    """Lines up to position `end`, without line ends and without empty lines. Raises NotPlainError."""
    rest = b""
    while block := file.read(BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - file.tell())):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MOST_LINE_BYTES:
            raise NotPlainError
        yield [line for line in (line.removesuffix(b"\r") for line in lines) if line]
    yield [rest.removesuffix(b"\r")] if rest.strip() else []


@dataclass
class LabelColumn:
    """A label column, block by block: numbers with their distinct texts, or codes into `names`."""

    numbers: list[npt.NDArray[np.float64]] = field(default_factory=list)
    """Labels as numbers; empty if the column holds text."""
    texts: set[bytes] = field(default_factory=set)
    """Distinct texts of the numbers; empty if there are too many for classes."""
    has_many_texts: bool = False
    codes: list[npt.NDArray[np.int32]] = field(default_factory=list)
    names: dict[bytes, int] = field(default_factory=dict)
    """Codes of labels that are text."""

    def add_texts(self, texts: Iterable[bytes]) -> None:
        """Add the texts of numbers; forgets all of them if there are too many."""
        self.texts.update(texts)
        if len(self.texts) > MOST_NAMES:
            self.has_many_texts = True
            self.texts.clear()

    def add_names(self, names: Iterable[bytes]) -> None:
        """Add labels that are text. Raises NotPlainError if too many are different."""
        codes = [self.names.setdefault(name, len(self.names)) for name in names]
        if len(self.names) > MOST_NAMES:
            raise NotPlainError
        self.codes.append(np.array(codes, dtype=np.int32))

    def decoded(self, target: str, problem: Problem) -> Labels | None:
        """Labels of all rows; None if they must be read as text. Raises Invalid if they do not suit `problem`."""
        if self.names:
            names = _texts(self.names)
            return None if names is None else of_texts(names, np.concatenate(self.codes), target, problem)
        numbers = np.concatenate(self.numbers)
        if self.has_many_texts:
            return None if problem == "classification" else labels_of(numbers, target, problem)
        text_of = {float(text): text.decode().strip() for text in self.texts}
        if len(text_of) < len(self.texts):
            return None  # the same number, written differently
        values, codes = np.unique(numbers, return_inverse=True)
        return of_texts([text_of[value] for value in values.tolist()], codes, target, problem)


class Table:
    """The rows read so far. The array has spare rows at its end; a `buffer` that is passed in cannot grow."""

    def __init__(self, columns: int, delimiter: bytes, label: int, buffer: Floats | None = None) -> None:
        self._columns, self._delimiter, self._label = columns, delimiter, label
        self._x = np.empty((0, columns - 1), dtype=np.float32) if buffer is None else buffer
        self._grows = buffer is None
        self.rows = 0
        self.labels = LabelColumn()

    def add(self, lines: list[bytes], growth: float) -> None:
        """Read a block of lines. `growth` estimates the rows of the file as a multiple of the rows up to this block."""
        if not lines:
            return
        if set(map(bytes.count, lines, repeat(self._delimiter))) != {self._columns - 1}:
            raise NotPlainError
        block = self._parsed(lines)
        rows = self.rows + len(block)
        if rows > len(self._x):
            if not self._grows:
                raise NotPlainError
            self._x.resize((max(rows, int(rows * growth * 1.02)), self._columns - 1), refcheck=False)
        with np.errstate(over="ignore"):
            self._x[self.rows : rows] = block
        if not np.isfinite(self._x[self.rows : rows]).all():
            raise NotPlainError  # float64 holds numbers that float32 does not
        self.rows = rows

    def _parsed(self, lines: list[bytes]) -> npt.NDArray[np.float64]:
        """Features of a block; stores its labels, as numbers too unless the first block has text."""
        if not self.labels.names:
            try:
                values = _numbers(lines, self._delimiter, self._columns)
            except msgspec.DecodeError:
                if self.rows:
                    raise
            else:
                self.labels.numbers.append(values[:, self._label].copy())
                if not self.labels.has_many_texts:
                    self.labels.add_texts(self._label_texts(lines))
                return np.delete(values, self._label, axis=1)
        rests, names = zip(*map(self._split, lines), strict=True)
        self.labels.add_names(names)
        return _numbers(rests, self._delimiter, self._columns - 1)

    def _label_texts(self, lines: list[bytes]) -> Iterator[bytes]:
        """The labels of a block as texts."""
        if self._label == self._columns - 1:
            return map(itemgetter(2), map(bytes.rpartition, lines, repeat(self._delimiter)))
        cells = map(bytes.split, lines, repeat(self._delimiter), repeat(self._label + 1))
        return map(itemgetter(self._label), cells)

    def _split(self, line: bytes) -> tuple[bytes, bytes]:
        """A line without its label, and its label."""
        if self._label == self._columns - 1:
            rest, _, name = line.rpartition(self._delimiter)
            return rest, name
        cells = line.split(self._delimiter, self._label + 1)
        name = cells.pop(self._label)
        return self._delimiter.join(cells), name

    def features(self) -> Floats:
        """The features of all rows; frees the spare rows."""
        if self.rows < 2:
            raise NotPlainError
        self._x.resize((self.rows, self._columns - 1), refcheck=False)
        return self._x


def _numbers(lines: Sequence[bytes], delimiter: bytes, columns: int) -> npt.NDArray[np.float64]:
    """Lines of `columns` numbers each, as float64 (lines, columns)."""
    text = delimiter.join(lines)
    if b"\r" in text or (delimiter != b"," and b"," in text):
        raise NotPlainError
    numbers = _DECODER.decode(b"[%b]" % (text if delimiter == b"," else text.replace(delimiter, b",")))
    if len(numbers) != len(lines) * columns:
        raise NotPlainError
    return np.array(numbers, dtype=np.float64).reshape(-1, columns)


def _texts(names: Iterable[bytes]) -> tuple[str, ...] | None:
    """Class names as texts; None for missing or quoted names, names that differ only in spaces, and numbers."""
    try:
        texts = tuple(name.decode().strip() for name in names)
    except UnicodeDecodeError:
        return None
    is_special = any(text.lower() in MISSING or '"' in text or "\r" in text for text in texts)
    return None if is_special or len(set(texts)) < len(texts) or as_numbers(texts) is not None else texts

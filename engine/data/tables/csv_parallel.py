"""A large CSV file read by several processes into one shared array, a part of its lines each.

The processes are forks: they parse, write their rows and labels, and exit. They import nothing, start no threads and
touch no device, which makes forking a process with threads safe.
"""

from __future__ import annotations

import mmap
import os
import pickle
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

import numpy as np

from epochtop.engine.data.tables.csv_blocks import Floats, LabelColumn, NotPlainError, Table, lines_of

_COUNT_BYTES = 2**22


@dataclass(frozen=True)
class _Part:
    """Bytes `start` to `end` of a file, with `rows` lines."""

    start: int
    end: int
    rows: int


def read_parts(file: BinaryIO, parts: int, columns: int, delimiter: bytes, label: int) -> tuple[Floats, LabelColumn]:
    """Features, float32 (rows, columns - 1), and labels of the file from its position on. Raises NotPlainError."""
    cut = _cut(file, parts)
    rows = sum(part.rows for part in cut)
    if rows < 2:
        raise NotPlainError
    shared = mmap.mmap(-1, rows * (columns - 1) * 4)
    x = np.frombuffer(shared, dtype=np.float32).reshape(rows, columns - 1)
    started, first = [], 0
    for part in cut:
        table = Table(columns, delimiter, label, x[first : first + part.rows])
        started.append(_fork(file.name, part, table))
        first += part.rows
    answers = [_answer(*process) for process in started]
    return x, _joined([pickle.loads(answer) for answer in answers if answer], len(cut))


def _cut(file: BinaryIO, parts: int) -> list[_Part]:
    """Parts of about equal size that end at line ends."""
    start, end = file.tell(), os.fstat(file.fileno()).st_size
    bounds = [start]
    for number in range(1, parts):
        file.seek(start + (end - start) * number // parts)
        file.readline()
        bounds.append(max(bounds[-1], file.tell()))
    bounds.append(end)
    cut = [_Part(*pair, _rows(file, *pair)) for pair in pairwise(bounds)]
    return [part for part in cut if part.rows]


def _rows(file: BinaryIO, start: int, end: int) -> int:
    """Number of lines between two positions; the last one may lack its line end."""
    file.seek(start)
    rows, last = 0, b"\n"
    while start < end and (block := file.read(min(_COUNT_BYTES, end - start))):
        rows += block.count(b"\n")
        start, last = start + len(block), block[-1:]
    return rows + (last != b"\n")


def _fork(path: str, part: _Part, table: Table) -> tuple[int, int]:
    """Start a process that reads a part. Returns its id, and a pipe from which to read its labels."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns about forks in a process with threads
        number = os.fork()
    if number:
        os.close(writer)
        return number, reader
    try:
        os.close(reader)
        labels = _read(path, part, table)
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(labels, pipe, protocol=5)
    finally:
        os._exit(0)  # flushes and closes nothing that belongs to the parent


def _read(path: str, part: _Part, table: Table) -> LabelColumn | None:
    """The labels of a part, whose features are then in the table's buffer; None if it is not plain."""
    try:
        with open(path, "rb") as file:
            file.seek(part.start)
            for lines in lines_of(file, part.end):
                table.add(lines, 1.0)
    except (NotPlainError, ValueError):  # JSON and UTF-8 raise ValueErrors
        return None
    return table.labels if table.rows == part.rows else None


def _answer(number: int, reader: int) -> bytes:
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(number, 0)
    return answer


def _joined(columns: list[LabelColumn | None], parts: int) -> LabelColumn:
    """Labels of all parts. Raises NotPlainError if a part is missing, or some have numbers and others names."""
    plain = [part for part in columns if part is not None]
    if len(plain) < parts or len({bool(part.names) for part in plain}) != 1:
        raise NotPlainError
    joined = LabelColumn(numbers=[block for part in plain for block in part.numbers])
    joined.has_many_texts = any(part.has_many_texts for part in plain)
    if not joined.has_many_texts:
        joined.texts.update(*(part.texts for part in plain))
    for part in plain:
        places = np.array([joined.names.setdefault(name, len(joined.names)) for name in part.names], dtype=np.int32)
        joined.codes.extend(places[block] for block in part.codes)
    return joined

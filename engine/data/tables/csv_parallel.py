"""A large CSV file read by several processes, each a part of its lines, into one array that they share.

The processes are forks: they parse, write their rows and labels, and end; they import nothing, start no thread and
touch no device, which is what makes a fork of a process with threads safe.
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

from epochtop.engine.data.tables.csv_blocks import Floats, LabelColumn, OddError, Table, lines_of

_COUNT_BYTES = 2**22


@dataclass(frozen=True)
class _Part:
    """Bytes `start` to `end` of a file, which hold `rows` lines."""

    start: int
    end: int
    rows: int


def read_parts(file: BinaryIO, parts: int, columns: int, delimiter: bytes, label: int) -> tuple[Floats, LabelColumn]:
    """Features float32 (rows, columns - 1) and labels of the file from where it stands. Raises OddError."""
    cut = _cut(file, parts)
    rows = sum(part.rows for part in cut)
    if rows < 2:
        raise OddError
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
    """Parts of about one size that end with their lines."""
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
    """Lines between two places; the last one may lack its end."""
    file.seek(start)
    rows, last = 0, b"\n"
    while start < end and (block := file.read(min(_COUNT_BYTES, end - start))):
        rows += block.count(b"\n")
        start, last = start + len(block), block[-1:]
    return rows + (last != b"\n")


def _fork(path: str, part: _Part, table: Table) -> tuple[int, int]:
    """Start a process that reads a part; its number, and the end of a pipe that gives its labels."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        number = os.fork()
    if number:
        os.close(writer)
        return number, reader
    try:
        os.close(reader)
        found = _read(path, part, table)
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(found, pipe, protocol=5)
    finally:
        os._exit(0)  # nothing of the parent's is flushed or closed twice


def _read(path: str, part: _Part, table: Table) -> LabelColumn | None:
    """Labels of a part, whose features are in the table's room then; None if it is odd."""
    try:
        with open(path, "rb") as file:
            file.seek(part.start)
            for lines in lines_of(file, part.end):
                table.add(lines, 1.0)
    except (OddError, ValueError):  # JSON and UTF-8 raise ValueErrors
        return None
    return table.found if table.rows == part.rows else None


def _answer(number: int, reader: int) -> bytes:
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(number, 0)
    return answer


def _joined(found: list[LabelColumn | None], parts: int) -> LabelColumn:
    """Labels of all parts. Raises OddError if one is missing, or they are numbers here and names there."""
    whole = [part for part in found if part is not None]
    if len(whole) < parts or len({bool(part.names) for part in whole}) != 1:
        raise OddError
    joined = LabelColumn(numbers=[block for part in whole for block in part.numbers])
    for part in whole:
        places = np.array([joined.names.setdefault(name, len(joined.names)) for name in part.names], dtype=np.int32)
        joined.codes.extend(places[block] for block in part.codes)
    return joined

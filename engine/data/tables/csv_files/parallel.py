"""A file parsed in one process, or a large one in several: each reads a part of its lines into shared memory.

The processes are forks: they parse, write their rows, and exit. They import nothing, start no threads and touch no device,
which makes forking a process with threads safe.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import OnProgress
from epochtop.engine.data.forking import fork_to_answer
from epochtop.engine.data.tables.csv_files.blocks import ConflictError, Parsed, Parser, Span, blocks_of
from epochtop.engine.data.tables.csv_files.layout import Buffers, Layout
from epochtop.engine.data.tables.csv_files.plain_text import COUNTED_BYTES, Utf8File
from epochtop.engine.protocol.spec import Invalid

PART_BYTES, MOST_PROCESSES = 2**25, 8
"""Text for which another process pays, and the highest number of processes."""


@dataclass(frozen=True)
class Rows:
    """All rows of a file."""

    numbers: npt.NDArray[Any]
    """(rows, columns of numbers)."""
    codes: npt.NDArray[np.int32]
    """(columns of texts, rows)."""
    texts: list[list[str]]
    unreadable: dict[int, dict[int, str]]
    lines: Sequence[int] | npt.NDArray[np.int64]


def read_rows(text: Utf8File, layout: Layout, report: OnProgress) -> Rows:
    """The rows of a file. Raises ConflictError if they do not fit the layout, or Invalid with the line."""
    span = Span(text.start + layout.dialect.first_byte, text.size, layout.dialect.first_line)
    rows = max(0, text.line_count - span.line + 1)
    with open(text.path, "rb") as file:
        count = processes(span.end - span.start)
        if count > 1:
            report(f"reading {text.source.name} in {count} processes")
            parsed = _in_parts(file, text, layout, cut(file, text, span, count))
            if parsed is not None:
                return parsed
        buffers = Buffers.of(layout, rows, is_shared=False)
        return _joined(layout, buffers, [(span, 0)], [_sequential(file, text, layout, buffers, span, report)])


def processes(size_bytes: int) -> int:
    """Number of processes to read a file of this size with; they are forks, which only Linux does safely."""
    if sys.platform != "linux":
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), MOST_PROCESSES, size_bytes // PART_BYTES))


def _sequential(
    file: BinaryIO, text: Utf8File, layout: Layout, buffers: Buffers, span: Span, report: OnProgress
) -> Parsed:
    parser, reported, size = Parser(text.source, layout, buffers, span.line), 0, max(1, span.end - span.start)
    for block in blocks_of(file, span):
        parser.add(block)
        percent = 100 * (file.tell() - span.start) // size
        if percent > reported and size > PART_BYTES:
            reported = percent
            report(f"reading {text.source.name}: {percent} %")
    return parser.parsed()


def cut(file: BinaryIO, text: Utf8File, span: Span, parts: int) -> list[Span]:
    """Spans of about equal size that end at line ends outside quotes."""
    spans, start, line = [], span.start, span.line
    for number in range(1, parts + 1):
        goal = span.start + (span.end - span.start) * number // parts
        if goal > start:
            end, lines = _boundary(file, text, goal)
            spans.append(Span(start, end, line))
            start, line = end, 1 + lines
    return spans


def _boundary(file: BinaryIO, text: Utf8File, goal: int) -> tuple[int, int]:
    """The first line end outside quotes from `goal` on, and the number of line ends before it."""
    blocks, rest = divmod(goal, COUNTED_BYTES)
    lines = sum(newlines for newlines, _ in text.counts[:blocks])
    quotes = sum(count for _, count in text.counts[:blocks])
    file.seek(blocks * COUNTED_BYTES)
    head, end = file.read(rest), goal
    lines, quotes = lines + head.count(b"\n"), quotes + head.count(b'"')
    while line := file.readline():
        lines, quotes, end = lines + 1, quotes + line.count(b'"'), end + len(line)
        if quotes % 2 == 0:
            break
    return end, lines


# --- several processes -------------------------------------------------------------------------------------


def _in_parts(file: BinaryIO, text: Utf8File, layout: Layout, spans: list[Span]) -> Rows | None:
    """The rows of all spans; None if one of them has an error to explain. Raises ConflictError."""
    firsts = [span.line - spans[0].line for span in spans]
    ends = [*firsts[1:], max(firsts[-1], text.line_count - spans[0].line + 1)]
    buffers = Buffers.of(layout, ends[-1], is_shared=True)
    started = [
        fork_to_answer(
            partial(_parse, file.name, Parser(text.source, layout, buffers.part(first, end), span.line), span)
        )
        for span, first, end in zip(spans, firsts, ends, strict=True)
    ]
    contents = [_answer(*process) for process in started]
    answers = [pickle.loads(each) if each else None for each in contents]  # noqa: S301 - from our own forks, through pipes
    conflicts = [answer for answer in answers if isinstance(answer, ConflictError)]
    if conflicts:
        raise ConflictError(
            set().union(*(conflict.places for conflict in conflicts)),
            any(conflict.is_beyond_float32 for conflict in conflicts),
        )
    parsed = [answer for answer in answers if isinstance(answer, Parsed)]
    if len(parsed) < len(spans):
        return None
    return _joined(layout, buffers, list(zip(spans, firsts, strict=True)), parsed)


def _parse(path: str, parser: Parser, span: Span) -> Parsed | ConflictError | None:
    try:
        with open(path, "rb") as file:
            for block in blocks_of(file, span):
                parser.add(block)
    except ConflictError as error:
        return error
    except (Invalid, OSError, ValueError):
        return None
    return parser.parsed()


def _answer(number: int, reader: int) -> bytes:
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(number, 0)
    return answer


# --- from parts to one table -------------------------------------------------------------------------------


def _joined(layout: Layout, buffers: Buffers, parts: list[tuple[Span, int]], parsed: list[Parsed]) -> Rows:
    """The rows of all parts, which begin at the given rows of `buffers`, without the space between them."""
    rows = 0
    unreadable: dict[int, dict[int, str]] = {}
    codes_of: list[dict[str, int]] = [{} for _ in layout.texts]
    for (_, first), part in zip(parts, parsed, strict=True):
        buffers.move(first, part.rows, rows)
        for index, texts in enumerate(part.texts):
            codes = codes_of[index]
            places = np.array([codes.setdefault(text, len(codes)) for text in texts], dtype=np.int32)
            if len(parsed) > 1 and part.rows:
                buffers.codes[index, rows : rows + part.rows] = places[buffers.codes[index, rows : rows + part.rows]]
        for index, cells in part.unreadable.items():
            unreadable.setdefault(index, {}).update((rows + row, text) for row, text in cells.items())
        rows += part.rows
    filled = buffers.part(0, rows)
    return Rows(filled.numbers, filled.codes, [list(codes) for codes in codes_of], unreadable, _lines(parts, parsed))


def _lines(parts: list[tuple[Span, int]], parsed: list[Parsed]) -> Sequence[int] | npt.NDArray[np.int64]:
    first, rows = parts[0][0].line, sum(part.rows for part in parsed)
    is_regular = all(part.lines is None for part in parsed)
    if is_regular and all(span.line == first + at for (span, at) in parts):
        return range(first, first + rows)
    return np.concatenate(
        [
            span.line + (np.arange(part.rows) if part.lines is None else part.lines)
            for (span, _), part in zip(parts, parsed, strict=True)
        ]
    )

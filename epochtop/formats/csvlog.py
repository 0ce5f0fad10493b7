"""CSV logs: Lightning's `metrics.csv`, Keras' CSVLogger, YOLO's `results.csv`, and others with a step or an epoch per row.

Lightning rewrites the whole file when a metric is added. Then the rows that were read before are compared with those in
the new file: if they are the same, reading continues after them. Imports the standard library only.
"""

from __future__ import annotations

import csv
import math
import zlib
from pathlib import Path

from epochtop.formats.decoding import yaml
from epochtop.formats.decoding.growing import modified_time, read_head
from epochtop.formats.decoding.lines import Lines
from epochtop.formats.records import HEAD_BYTES, NAN, Collector, Configuration, Record, Restart, unix_time

STEPS = ("step", "global_step", "_step", "iteration", "iter", "batch", "epoch")
"""Columns that count steps, the most exact first."""
TIMES = ("_timestamp", "timestamp", "wall_time", "time")
"""Columns that may hold Unix times."""
SETTINGS = ("hparams.yaml", "args.yaml")
"""Files next to the log with the configuration: of Lightning and of YOLO."""
_DELIMITERS = (",", ";", "\t")
_STILL = 3
"""Reads without a change after which a rewritten file is taken for complete."""


def recognize(path: Path, head: bytes) -> bool:
    """Whether a file has a header with a step or an epoch, and numbers in its first row."""
    if b"\0" in head or b"\n" not in head:
        return False
    try:
        lines = head.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        lines = head[: error.start].decode("utf-8-sig").split("\n")
    header = _Header(lines[0])
    if header.step_column is None or len(header.names) < 2:
        return False
    if len(lines) < 3 and len(head) >= HEAD_BYTES:  # the first row is longer than what was read
        return True
    rows = [line for line in lines[1:-1] if line.strip()]
    return not rows or header.parse(rows[0]) is not None


class _Header:
    """What the columns of a log mean."""

    def __init__(self, line: str) -> None:
        line = line.rstrip("\r").lstrip("\ufeff")
        self.delimiter = max(_DELIMITERS, key=line.count)
        self.names = [name.strip() for name in _cells(line, self.delimiter)]
        lower = [name.lower() for name in self.names]
        self.step_column = next((lower.index(name) for name in STEPS if name in lower), None)
        self.time_column = next((lower.index(name) for name in TIMES if name in lower), None)

    def parse(self, line: str) -> tuple[int | None, float, list[tuple[str, float]]] | None:
        """Step (None if the cell is empty), Unix time or NaN, and the values of a row; None if it is not a row."""
        cells = _cells(line.rstrip("\r"), self.delimiter)
        if len(cells) != len(self.names) or self.step_column is None:
            return None
        step, time, values = None, NAN, []
        for column, (name, text) in enumerate(zip(self.names, cells)):
            value = _number(text)
            if column == self.step_column:
                if value is not None and not (math.isfinite(value) and abs(value) < 1 << 62):
                    return None
                if value is None and text.strip():
                    return None
                step = None if value is None else int(value)
            elif column == self.time_column and (value is None or not math.isnan(unix_time(value))):
                time = unix_time(text.strip() if value is None else value)
            elif value is not None and name:
                values.append((name, value))
        return step, time, values


def _cells(line: str, delimiter: str) -> list[str]:
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _number(text: str) -> float | None:
    text = text.strip()
    try:
        return float(text)
    except ValueError:
        return {"True": 1.0, "False": 0.0}.get(text)


class CsvFollower:
    """Follows one CSV log."""

    def __init__(self, path: Path, last_bytes: int | None = None) -> None:
        self._path = path
        self._lines = Lines(path)
        self._header: _Header | None = None
        self._collector = Collector()
        self._settings_read = 0.0
        self._step = -1
        self._rows = 0
        """Number of rows that were read."""
        self._checksum = 0
        """Of the steps and values of these rows."""
        self._compare: tuple[int, int] | None = None
        """After a rewrite: the number of rows that were read before it, and their checksum."""
        self._still = 0
        self._bad_rows = 0
        if last_bytes is not None and (size := _size(path)) > last_bytes:
            self._header = _header_of(path)
            self._lines.start_at(size - last_bytes)

    @property
    def damaged(self) -> int:
        """Number of rows that were skipped so far."""
        return self._bad_rows + self._lines.too_long

    def read(self) -> list[Record]:
        """What was written since the last call; see :class:`~epochtop.formats.records.Follower`."""
        self._read_settings()
        while not (records := self._collector.take()):
            generation = self._lines.generation
            lines = self._lines.read()
            if self._lines.generation != generation:
                self._begin_anew()
            if not lines:
                if not self._is_shorter_now():
                    break
                continue
            self._still = 0
            for line in lines:
                self._add(line.decode("utf-8", "replace"))
        return records

    def modified(self) -> float:
        """Unix time of the last change."""
        return modified_time(self._path)

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _read_settings(self) -> None:
        for name in SETTINGS:
            path = self._path.with_name(name)
            changed = modified_time(path)
            if changed > self._settings_read:
                self._settings_read = changed
                try:
                    values = yaml.parse(read_head(path, 1 << 20).decode("utf-8", "replace"))
                except OSError:
                    continue
                if values:
                    self._collector.put(Configuration(values))

    def _add(self, line: str) -> None:
        if self._header is None:
            self._header = _Header(line)
            return
        if not line.strip():
            return
        row = self._header.parse(line)
        if row is None:
            self._bad_rows += self._compare is None
            return
        step, time, values = row
        self._step = self._step + 1 if step is None and not values else self._step if step is None else step
        if self._step < 0:
            self._step = 0
        self._rows += 1
        self._checksum = zlib.crc32(repr((self._step, sorted(map(repr, values)))).encode(), self._checksum)
        if self._compare is None:
            for name, value in values:
                self._collector.add(name, self._step, time, value)
        elif self._rows == self._compare[0]:
            self._end_comparison(self._checksum == self._compare[1])

    def _begin_anew(self) -> None:
        """The file was rewritten: compare its first rows with those that were read."""
        if self._rows or self._compare:
            self._compare = self._compare or (self._rows, self._checksum)
        self._header, self._rows, self._checksum, self._step, self._still = None, 0, 0, -1, 0

    def _is_shorter_now(self) -> bool:
        """Whether a rewritten file is complete, with fewer rows than before, so that it is read as another log."""
        if self._compare is None:
            return False
        self._still += 1
        if self._still < _STILL:
            return False
        self._end_comparison(same=False)
        return True

    def _end_comparison(self, same: bool) -> None:
        self._compare = None
        if not same:
            self._collector.put(Restart(-(1 << 63)))
            self._lines.rewind()
            self._header, self._rows, self._checksum, self._step = None, 0, 0, -1


def _header_of(path: Path) -> _Header | None:
    try:
        line, newline, _ = read_head(path, 1 << 16).partition(b"\n")
    except OSError:
        return None
    return _Header(line.decode("utf-8", "replace")) if newline else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

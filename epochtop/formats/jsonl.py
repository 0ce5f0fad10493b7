"""JSON Lines with a step: one object per line. Imports the standard library only."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from epochtop.formats.csvlog import STEPS, TIMES
from epochtop.formats.decoding.growing import modified_time, read_head
from epochtop.formats.decoding.lines import Lines
from epochtop.formats.records import (
    HEAD_BYTES,
    NAN,
    Collector,
    Configuration,
    Record,
    Restart,
    flatten,
    number,
    unix_time,
)

LONGEST_FIRST_LINES = 1 << 16
"""Bytes at the beginning in which a line with a step must be."""
CONFIGS = ("config", "args", "hparams", "hyperparameters")
"""Keys whose object is the configuration."""


def recognize(path: Path, head: bytes) -> bool:
    """Whether one of the first lines is an object with a step and a number."""
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return False
    if len(head) >= HEAD_BYTES:
        try:
            head = read_head(path, LONGEST_FIRST_LINES)
        except OSError:
            return False
    for line in head.split(b"\n")[:50]:
        parsed = parse(line)
        if parsed is not None and parsed[0] is not None and parsed[2]:
            return True
    return False


def parse(line: bytes) -> tuple[int | None, float, list[tuple[str, float]], dict[str, Any]] | None:
    """Step (None without one), Unix time or NaN, numbers and configuration of a line; None if it is not an object."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or ("type" in row and "first_step" in row):  # the latter is a line of our own log
        return None
    config: dict[str, Any] = {}
    for name in CONFIGS:
        if isinstance(row.get(name), dict):
            config.update(flatten(row.pop(name)))
    step_name = next((name for name in STEPS if _is_step(row.get(name))), None)
    time_name = next((name for name in TIMES if not math.isnan(unix_time(row.get(name)))), None)
    step = None if step_name is None else int(row.pop(step_name))
    time = NAN if time_name is None else unix_time(row.pop(time_name))
    pairs = [(name, number(value)) for name, value in flatten(row).items() if name]
    return step, time, [(name, value) for name, value in pairs if value is not None], config


def _is_step(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -(1 << 62) < value < 1 << 62 and value == int(value)


class JsonLinesFollower:
    """Follows one file. A last line that is a complete object counts although its newline is missing."""

    def __init__(self, path: Path, last_bytes: int | None = None) -> None:
        self._path = path
        self._lines = Lines(path)
        self._collector = Collector()
        self._unterminated = b""
        """Last line that was read without its newline."""
        self._bad_lines = 0
        if last_bytes is not None:
            self._skip_to_the_end(last_bytes)

    def _skip_to_the_end(self, last_bytes: int) -> None:
        """Read the first complete lines, which tell when the run began, and go to the last bytes."""
        try:
            size, head = self._path.stat().st_size, read_head(self._path, LONGEST_FIRST_LINES)
        except OSError:
            return
        if size > last_bytes + len(head):
            for line in head.split(b"\n")[:-1][:50]:
                self._add(line, is_complete=False)
            self._lines.start_at(size - last_bytes)

    @property
    def damaged(self) -> int:
        """Number of lines that were skipped so far."""
        return self._bad_lines + self._lines.too_long

    def read(self) -> list[Record]:
        """What was written since the last call; see :class:`~epochtop.formats.records.Follower`."""
        while not (records := self._collector.take()):
            generation = self._lines.generation
            lines = self._lines.read()
            if self._lines.generation != generation:
                self._unterminated = b""
                self._collector.put(Restart(-(1 << 63)))
            if not lines:
                rest = self._lines.rest
                if rest.endswith(b"}") and rest != self._unterminated and self._add(rest, is_complete=False):
                    self._unterminated = rest
                    continue
                records = self._collector.take()
                break
            if self._unterminated:
                lines = lines[lines[0].rstrip() == self._unterminated :]
                self._unterminated = b""
            for line in lines:
                self._add(line, is_complete=True)
        return records

    def modified(self) -> float:
        """Unix time of the last change."""
        return modified_time(self._path)

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _add(self, line: bytes, is_complete: bool) -> bool:
        """Add the values of a line. False if it is not an object."""
        parsed = parse(line)
        if parsed is None:
            self._bad_lines += is_complete and bool(line.strip())
            return False
        step, time, values, config = parsed
        if config:
            self._collector.put(Configuration(config))
        if step is not None:
            for name, value in values:
                self._collector.add(name, step, time, value)
        return True

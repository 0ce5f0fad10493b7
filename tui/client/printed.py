"""What a script printed, read from output.log while it grows. Lines for the log on the screen.

Reads in the follower's thread. The file may be replaced by a new one when it is full.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO

from epochtop.engine.runs.paths import OUTPUT
from epochtop.engine.runs.regular import open_file

FIRST_BYTES = 16 << 10
"""Bytes from the end of an existing file that are read first."""
LATER_BYTES = 64 << 10
"""Most bytes of one piece of output; earlier ones of a faster script are passed over."""
LINE_LENGTH = 1000
"""Most characters of a line."""
CONTROL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
"""Colors, cursor movements and titles for a terminal (ECMA-48)."""


class PrintedLines:
    """Lines that a script has printed."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines


class PrintedReader:
    """Reads the output of one run."""

    def __init__(self, run: Path) -> None:
        self._path = run / OUTPUT
        self._file: IO[bytes] | None = None
        self._rest = b""
        """The beginning of a line."""

    def read(self) -> PrintedLines | None:
        """The complete lines that are new; None if there are none."""
        try:
            data = self._read_new()
        except OSError:
            return None
        content, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if len(self._rest) > LATER_BYTES:  # a progress bar that never ends its line
            self._rest = self._rest[-LINE_LENGTH:]
        return PrintedLines([shown(line) for line in content.split(b"\n")]) if newline else None

    def last(self) -> PrintedLines | None:
        """What is left when the script has ended: its last lines, with one that is incomplete."""
        printed = self.read()
        lines = printed.lines if printed is not None else []
        if self._rest:
            lines.append(shown(self._rest))
            self._rest = b""
        return PrintedLines(lines) if lines else None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _read_new(self) -> bytes:
        if self._file is None:
            self._file = open_file(self._path)
            return self._read_end(FIRST_BYTES)
        data = self._read_end(LATER_BYTES)
        if not data and self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
            self._file.close()
            self._file = open_file(self._path)
            data = self._read_end(LATER_BYTES)
        return data

    def _read_end(self, most: int) -> bytes:
        """What follows in the file, at most so many bytes from its end, from the beginning of a line."""
        assert self._file is not None
        place, end = self._file.tell(), os.fstat(self._file.fileno()).st_size
        if end - place <= most:
            return self._file.read(end - place) if end > place else b""
        self._file.seek(end - most)
        self._rest = b""
        return self._file.read(most).partition(b"\n")[2]


def shown(line: bytes) -> str:
    """A line as a terminal would show it: the last drawing of a progress bar, without colors."""
    text = CONTROL_SEQUENCE.sub("", line.decode("utf-8", "replace")).rstrip("\r\n")
    return text.rpartition("\r")[2][:LINE_LENGTH]

"""The output of the command: stored in output.log with a bounded size, and passed on to a terminal or pipe.

A progress bar redraws its line many times a second; of those drawings one a second is stored. Standard library only.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path

from epochtop.configuration.regular import open_regular

FULL_BYTES = 32 << 20
"""Size at which output.log becomes output.1.log, of which there is one."""
REDRAWN_S = 1.0
"""Shortest time between two stored drawings of one line."""
STALLED_S = 5.0
"""Longest wait for a terminal that accepts nothing, as behind a dropped connection."""
LONGEST_LINE = 1 << 16
"""Bytes of one line in memory."""


class OutputLog:
    """output.log of a run. `on_line` gets every complete or stored line without its end, and whether it is complete."""

    def __init__(self, path: Path, on_line: Callable[[str, bool], object]) -> None:
        self._path, self._on_line = path, on_line
        self._file = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._size = os.fstat(self._file).st_size
        self._line = bytearray()
        """The current line, since the last carriage return."""
        self._stored = 0
        """Bytes of it that are in the file."""
        self._redrawn: float | None = None
        """Time of the last stored drawing of the current line; None before the first one."""
        self._return = b""
        """A carriage return at the end of the last piece, whose newline may follow."""
        self.error = ""
        """Why the file is incomplete; empty if it is complete."""

    def add(self, data: bytes, now: float) -> None:
        """Add what the command printed."""
        data, self._return = self._return + data, b""
        if data.endswith(b"\r"):
            data, self._return = data[:-1], b"\r"
        for piece in data.splitlines(keepends=True):
            self._line += piece.rstrip(b"\r\n")
            if piece.endswith(b"\n"):
                self._end_line()
            elif piece.endswith(b"\r"):
                self._redraw(now)
            elif len(self._line) > LONGEST_LINE:
                self._store_rest()
                self._line.clear()
                self._stored = 0
        self._store_prompt()

    def _end_line(self) -> None:
        self._on_line(self._line.decode("utf-8", "replace"), True)
        self._store_rest()
        self._write(b"\n")
        self._line.clear()
        self._stored, self._redrawn = 0, None

    def _redraw(self, now: float) -> None:
        """The cursor returns to the start of the line."""
        if self._line and (self._redrawn is None or now - self._redrawn >= REDRAWN_S):
            self._redrawn = now
            self._on_line(self._line.decode("utf-8", "replace"), False)
            self._store_rest()
            self._write(b"\r")
        elif self._stored:
            self._write(b"\r")
        self._line.clear()
        self._stored = 0

    def _store_prompt(self) -> None:
        """Store an incomplete line, such as a question, unless a bar is being drawn."""
        if self._redrawn is None:
            self._store_rest()

    def _store_rest(self) -> None:
        self._write(bytes(self._line[self._stored :]))
        self._stored = len(self._line)

    def _write(self, data: bytes) -> None:
        if not data:
            return
        try:
            if self._size > FULL_BYTES:
                self._rotate()
            self._size += os.write(self._file, data)
        except OSError as error:
            self.error = error.strerror or str(error)

    def _rotate(self) -> None:
        self._path.replace(self._path.with_name("output.1.log"))
        os.close(self._file)
        self._file = open_regular(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._size = 0

    def close(self) -> None:
        """Store the last line and close the file."""
        if self._line:
            self._on_line(self._line.decode("utf-8", "replace"), True)
            self._store_rest()
        os.close(self._file)


class Echo:
    """Passes output on to a file descriptor until that is closed."""

    def __init__(self, target: int) -> None:
        self._target, self._terminal = target, os.isatty(target)
        self._stalled = False

    def add(self, data: bytes) -> None:
        """Pass `data` on. A terminal that accepts nothing for five seconds loses it; a pipe is waited for."""
        view = memoryview(data)
        while view and self._target >= 0:
            if self._terminal:
                wait_s = 0.0 if self._stalled else STALLED_S
                self._stalled = not select.select([], [self._target], [], wait_s)[1]
                if self._stalled:
                    return
            try:
                view = view[os.write(self._target, view[:4096]) :]
            except OSError:  # the terminal or the reader of the pipe is gone
                self._target = -1

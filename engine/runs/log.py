"""Appending to events.jsonl on a disk that may be full.

Lines that the disk refuses stay in memory, up to a limit, and are written when there is space again. A small reserve file
is released for the last line, so that a viewer learns how a run on a full disk ended. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from epochtop.engine.runs.paths import EVENTS, RESERVE
from epochtop.engine.terminal.output import write_log

BACKLOG_BYTES = 1 << 26
"""Most bytes of refused lines in memory; the loop waits while there are more."""
RESERVE_BYTES = 1 << 16
"""Space that is set aside for the last line."""
CHUNK_BYTES = 1 << 20
"""Most bytes per write."""
UNSAVED_STATUS = 4
"""Exit status of an engine that could not write its last checkpoint."""


class EventLog:
    """The log of one run, open for appending."""

    def __init__(self, run: Path) -> None:
        self._file = os.open(run / EVENTS, os.O_WRONLY | os.O_APPEND)
        self._reserve = run / RESERVE
        self._backlog = bytearray()
        self._line_is_open = False
        """Whether the last line in the file is written in part."""
        self.error: OSError | None = None
        """Why the disk refuses the oldest unwritten line; None if every line is written."""
        self._make_reserve()

    @property
    def congested(self) -> bool:
        """Whether more lines wait than memory may hold."""
        return len(self._backlog) > BACKLOG_BYTES

    def append(self, line: bytes) -> bool:
        """Write a line, or keep it in memory. True if the disk begins to refuse lines with this one."""
        accepted = self.error is None
        self._backlog += line
        self.flush()
        return accepted and self.error is not None

    def flush(self) -> None:
        """Write the lines that wait in memory, as far as the disk takes them."""
        try:
            while self._backlog:
                written = os.write(self._file, self._backlog[:CHUNK_BYTES])
                self._line_is_open = self._backlog[written - 1 : written] != b"\n"
                del self._backlog[:written]
            self.error = None
        except OSError as error:
            if self.error is None:
                _complain(f"{error.strerror}; losses stay in memory until there is space")
            self.error = error

    def sync(self) -> None:
        """Sync the written lines to the disk."""
        try:
            os.fsync(self._file)
        except OSError as error:
            _complain(str(error.strerror))

    def write_last(self, line: bytes) -> bool:
        """Write the last of the lines that wait in the space of the reserve, without the others if they are too many.

        False if the disk refuses it too.
        """
        if len(self._backlog) > RESERVE_BYTES // 2:
            self._backlog[:] = b"\n" * self._line_is_open + line
        self._release_reserve()
        self.flush()
        return not self._backlog

    def close(self) -> bool:
        """Close the file and release the reserve. False if lines were never written."""
        self._release_reserve()
        os.close(self._file)
        return not self._backlog

    def _make_reserve(self) -> None:
        try:
            self._reserve.write_bytes(os.urandom(RESERVE_BYTES))  # random, because some disks compress
        except OSError:
            self._release_reserve()

    def _release_reserve(self) -> None:
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)


def _complain(message: str) -> None:
    """Write to output.log, which may be on the same full disk."""
    with contextlib.suppress(OSError):
        write_log(f"{EVENTS}: {message}\n")

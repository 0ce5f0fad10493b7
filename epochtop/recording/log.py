"""Appending to events.jsonl on a disk that may be full.

Lines that the disk refuses stay in memory and are written when there is space again. A small reserve file is released for
the last line, so that a viewer learns how a run on a full disk ended. Imports built-in modules only.
"""

from __future__ import annotations

import os

from epochtop.configuration.regular import open_regular
from epochtop.recording.directory import EVENTS, RESERVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG_BYTES = 1 << 26
"""Most bytes of refused lines in memory. The engine's loop waits while there are more; a script's new values are dropped."""
RESERVE_BYTES = 1 << 16
"""Space that is set aside for the last line."""
DISK_SPACE = "disk_space"
"""Code of the warning that the disk refused values for a while."""
CHUNK_BYTES = 1 << 20
"""Most bytes per write."""


class EventLog:
    """The log of one run, open for appending."""

    def __init__(self, run: str | os.PathLike[str], report: Callable[[str], object], reserve: bool = True) -> None:
        """`report` receives a sentence when the disk begins to refuse lines. With `reserve`, space is set aside at once.

        Raises OSError if the log cannot be opened.
        """
        self._path = os.path.join(run, EVENTS)
        self._file = open_regular(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._reserve = os.path.join(run, RESERVE)
        self._report = report
        self._backlog = bytearray()
        self._line_is_open = False
        """Whether the last line in the file is written in part."""
        self.error: OSError | None = None
        """Why the disk refuses the oldest unwritten line; None if every line is written."""
        if reserve:
            self.make_reserve()

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
                self._report(f"{error.strerror}; values stay in memory until there is space")
            self.error = error

    def sync(self) -> None:
        """Sync the written lines to the disk."""
        try:
            os.fsync(self._file)
        except OSError as error:
            self._report(str(error.strerror))

    def write_last(self, line: bytes) -> bool:
        """Write the last of the lines that wait in the space of the reserve, without the others if they are too many.

        A line that is written in part is completed if there is room for it. False if the disk refuses the last line too.
        """
        if len(self._backlog) > RESERVE_BYTES // 2:
            self._backlog[:] = self._rest_of_open_line(RESERVE_BYTES // 2 - len(line)) + line
        self._release_reserve()
        self.flush()
        return not self._backlog

    def _rest_of_open_line(self, most_bytes: int) -> bytes:
        """The rest of the partly written line; only its line break if the rest is longer than `most_bytes`."""
        if not self._line_is_open:
            return b""
        length = self._backlog.find(b"\n") + 1
        return bytes(self._backlog[:length]) if length <= most_bytes else b"\n"

    def close(self) -> bool:
        """Close the file and release the reserve. False if lines were never written."""
        self._release_reserve()
        os.close(self._file)
        return not self._backlog

    def abandon(self) -> None:
        """Close the file in a forked process, which leaves everything else to its parent."""
        os.close(self._file)

    # --- a folder that disappears --------------------------------------------------------------------------

    @property
    def is_removed(self) -> bool:
        """Whether the file has been deleted, so that nobody will read what is written to it."""
        try:
            return os.fstat(self._file).st_nlink == 0
        except OSError:
            return True

    def hold(self, line: bytes) -> None:
        """Keep a line in memory without trying to write it."""
        self._backlog += line

    def reopen(self) -> bool:
        """Open the log again after it was deleted. False if its folder is still missing."""
        try:
            file = open_regular(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        except OSError:
            return False
        os.close(self._file)
        self._file = file
        return True

    # --- the reserve -----------------------------------------------------------------------------------------

    def make_reserve(self) -> None:
        """Set space aside for the last line, if the disk has it."""
        try:
            file = open_regular(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                os.write(file, os.urandom(RESERVE_BYTES))  # random, because some disks compress
            finally:
                os.close(file)
        except OSError:
            self._release_reserve()

    def _release_reserve(self) -> None:
        try:
            os.unlink(self._reserve)
        except OSError:
            pass

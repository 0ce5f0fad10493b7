"""A file that another process appends to, or replaces.

Imports the standard library and what opens regular files; never writes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from epochtop.configuration.regular import open_file

READ_BYTES = 1 << 20
"""Bytes read at once, so that memory stays bounded for any length."""
HEAD_CHECK, TAIL_CHECK = 1024, 256
"""Bytes at the beginning and before the last byte read that are compared to notice that a file was rewritten."""


class GrowingFile:
    """Reads a file from its beginning, then what was appended since.

    Notices when the file was replaced, cut or rewritten: then `generation` counts up and reading begins again at 0.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        """How often the file started again."""
        self.offset = 0
        """Bytes read so far."""
        self._file: IO[bytes] | None = None
        self._head = b""
        self._tail = b""
        self._state: tuple[int, int, int] | None = None

    def read(self) -> bytes:
        """The next bytes, READ_BYTES at most; empty if there are none. Raises OSError, but not for a missing file."""
        if self._file is None and not self._open():
            return b""
        if self._changed() and not self._same():
            self.rewind()
            self.generation += 1
            if not self._open():
                return b""
        assert self._file is not None
        new = self._file.read(READ_BYTES)
        if new:
            self._note(new)
        return new

    def skip(self, count: int) -> None:
        """Go `count` bytes on without reading them; beyond the end of the file, nothing comes until it has grown."""
        if self._file is not None and count > 0:
            self.offset += count
            self._file.seek(self.offset)
            self._tail = b""

    def start_at(self, offset: int) -> None:
        """Go to `offset` before the first read."""
        if self._file is None and not self._open():
            return
        self.skip(offset)

    def rewind(self) -> None:
        """Begin again at 0 with the next read."""
        self.close()
        self.offset, self._head, self._tail, self._state = 0, b"", b"", None

    def close(self) -> None:
        """Close the file; the next read opens it again and continues at the same place."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> bool:
        try:
            self._file = open_file(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        self._file.seek(self.offset)
        return True

    def _note(self, new: bytes) -> None:
        if len(self._head) < HEAD_CHECK and len(self._head) == self.offset:
            self._head += new[: HEAD_CHECK - len(self._head)]
        self.offset += len(new)
        self._tail = (self._tail + new)[-TAIL_CHECK:] if len(new) < TAIL_CHECK else new[-TAIL_CHECK:]

    def _changed(self) -> bool:
        """Whether the file differs in size, time or identity from the last call; True if it is gone."""
        try:
            facts = os.stat(self.path)
        except FileNotFoundError:
            return False  # removed, or being replaced: what was read stays valid
        state = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        changed = state != self._state and self._state is not None
        self._state = state
        return changed

    def _same(self) -> bool:
        """Whether what was read is still in the file that has this name now."""
        assert self._file is not None
        assert self._state is not None
        inode, size, _ = self._state
        if inode != os.fstat(self._file.fileno()).st_ino or (size < self.offset and self._tail):
            return False
        if size < self.offset - TAIL_CHECK:  # it was skipped to a place that does not exist (yet)
            return size >= len(self._head) and self._at(0, len(self._head)) == self._head
        start = self.offset - len(self._tail)
        return self._at(0, len(self._head)) == self._head and self._at(start, len(self._tail)) == self._tail

    def _at(self, offset: int, count: int) -> bytes:
        assert self._file is not None
        return os.pread(self._file.fileno(), count, offset)


def modified_time(*paths: str | Path) -> float:
    """Unix time of the last change of these files; 0 if none exists."""
    newest = 0.0
    for path in paths:
        try:
            newest = max(newest, os.stat(path).st_mtime)
        except OSError:
            continue
    return newest


def read_head(path: str | Path, count: int) -> bytes:
    """The first bytes of a regular file; empty for anything else, such as a pipe, which would block. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, count) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)

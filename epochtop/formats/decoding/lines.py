"""Complete lines of a file that grows. Imports the standard library only."""

from __future__ import annotations

from pathlib import Path

from epochtop.formats.decoding.growing import GrowingFile

LONGEST_LINE = 1 << 24
"""Longer lines are skipped."""


class Lines:
    """Reads the lines of a file as they are completed. A last line without a newline is still being written."""

    def __init__(self, path: Path) -> None:
        self.file = GrowingFile(path)
        self.rest = b""
        """Beginning of the line that is being written."""
        self.too_long = 0
        """Number of lines that were skipped."""
        self._skipping = False
        self._generation = 0

    def read(self) -> list[bytes]:
        """The next complete lines, about 1 MiB of them; empty if there are none. Raises OSError."""
        while True:
            new = self.file.read()
            if self.file.generation != self._generation:
                self._generation, self.rest, self._skipping = self.file.generation, b"", False
            if not new:
                return []
            *lines, self.rest = (self.rest + new).split(b"\n")
            if self._skipping and lines:
                lines.pop(0)
                self._skipping = False
            if len(self.rest) > LONGEST_LINE:
                self.rest, self._skipping = b"", True
                self.too_long += 1
            if self._skipping:
                self.rest = b""
            if lines:
                return lines

    @property
    def generation(self) -> int:
        """How often the file started again."""
        return self.file.generation

    def start_at(self, offset: int) -> None:
        """Begin with the first line that begins after `offset`."""
        if offset > 0:
            self.file.start_at(offset)
            self._skipping = True

    def rewind(self) -> None:
        """Begin again at the first line."""
        self.file.rewind()
        self.rest, self._skipping = b"", False

    def close(self) -> None:
        """Close the file."""
        self.file.close()

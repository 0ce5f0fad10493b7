"""A run that a viewer on another machine looks at: the bytes that its files have gained, from where the viewer stands.

A log that is too long for the connection is sent without its middle, unless the viewer wants all of it. Reads only. Imports
the standard library and modules that are sent with it only.
"""

from __future__ import annotations

import hashlib
import os
import time

from epochtop.engine.runs.heartbeat import is_alive
from epochtop.engine.runs.regular import open_file
from epochtop.recording.directory import EVENTS, OUTPUT
from epochtop.remote.listing import first_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from epochtop.remote.frames import Frame

PART_BYTES = 256 << 10
"""Most bytes of one frame."""
LONG_BYTES = 64 << 20
"""A log that is longer than this is sent without its middle."""
HEAD_BYTES, NEWEST_BYTES = 64 << 10, 32 << 20
"""What is sent of such a log."""
OUTPUT_BYTES = 16 << 10
"""What is sent of the output that was printed before."""
ALIVE_S = 0.5
"""Seconds between two looks at the process."""
DIGEST_BYTES = 4096
"""Bytes before its place by which the viewer shows that it has the same file."""


class GrowingFile:
    """One file, and the place up to which the viewer has it."""

    def __init__(self, path: Path, known: dict[str, Any] | None, whole: bool) -> None:
        """`known` is what the viewer has from an earlier connection; None for nothing. `whole` sends a long log completely."""
        self._path = path
        self._offset = self._identity = 0
        self._fresh = False
        """Whether the next part begins a new file, because the one that the viewer has is another one."""
        self._skip: tuple[int, int] | None = None
        """Place at which the middle of the file begins, which is not sent, and its end."""
        facts = _facts(path)
        self._identity = facts.st_ino if facts is not None else 0
        if known is not None and known.get("offset"):
            if facts is not None and self._is_same(known, facts):
                self._offset = known["offset"]
                return
            self._fresh = True
        size = facts.st_size if facts is not None else 0
        if path.name == OUTPUT and size > OUTPUT_BYTES:
            self._offset = size - OUTPUT_BYTES
        elif path.name == EVENTS and size > LONG_BYTES and not whole:
            self._skip = self._middle(size)

    def _is_same(self, known: dict[str, Any], facts: os.stat_result) -> bool:
        if known["identity"] != facts.st_ino or facts.st_size < known["offset"]:
            return False
        try:
            with open_file(self._path) as file:
                file.seek(known["offset"] - known["tail"])
                return bool(hashlib.sha256(file.read(known["tail"])).hexdigest() == known["digest"])
        except OSError:
            return False

    def _middle(self, size: int) -> tuple[int, int] | None:
        try:
            with open_file(self._path) as file:
                begin = len(first_lines(file, HEAD_BYTES))
                end = file.seek(size - NEWEST_BYTES)
                gap = file.read(PART_BYTES).find(b"\n")
                return (begin, end + gap + 1) if begin and gap >= 0 else None
        except OSError:
            return None

    def next_part(self) -> Frame | None:
        """What the viewer lacks, at most PART_BYTES of it; None if it has everything."""
        facts = _facts(self._path)
        if facts is None:
            return None
        if facts.st_ino != self._identity or facts.st_size < self._offset:  # replaced by a new file
            self._identity, self._offset, self._fresh, self._skip = facts.st_ino, 0, True, None
        skipped = 0
        if self._skip is not None and self._offset == self._skip[0]:
            skipped, self._offset = self._skip[1] - self._skip[0], self._skip[1]
            self._skip = None
        if facts.st_size <= self._offset:
            return None
        most = PART_BYTES if self._skip is None else min(PART_BYTES, self._skip[0] - self._offset)
        try:
            with open_file(self._path) as file:
                file.seek(self._offset)
                body = file.read(most)
        except OSError:
            return None
        if not body:
            return None
        header = {
            "type": "part", "file": self._path.name, "offset": self._offset, "identity": self._identity,
            "fresh": self._fresh, "skipped": skipped,
        }  # fmt: skip
        self._offset, self._fresh = self._offset + len(body), False
        return header, body


def _facts(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


class FollowedRun:
    """One run: its log, and what it prints."""

    def __init__(self, home: Path, run_id: str, known: dict[str, Any], whole: bool) -> None:
        self._folder, self._id = home / run_id, run_id
        self._files = [GrowingFile(self._folder / name, known.get(name), whole) for name in (EVENTS, OUTPUT)]
        self.alive = True
        """Whether its process was alive when it was last looked at."""
        self.settled = False
        """Whether the viewer has everything and the process is dead, so that a rare look is enough."""
        self._look = 0.0
        self._reported: bool | None = None
        """Whether it was alive when the viewer was last told; None before the viewer has everything."""

    def next_frames(self) -> list[Frame]:
        """The next part of each file; once there is none, whether the run is alive, if the viewer does not know it."""
        if time.monotonic() >= self._look:  # before reading, so that an end that is written in between is sent first
            self.alive = is_alive(self._folder)
            self._look = time.monotonic() + ALIVE_S
        frames: list[Frame] = []
        for file in self._files:
            part = file.next_part()
            if part is not None:
                frames.append(({**part[0], "run": self._id}, part[1]))
        if not frames and self.alive != self._reported:
            self._reported = self.alive
            frames.append(({"type": "state", "run": self._id, "alive": self.alive}, b""))
        self.settled = not frames and not self.alive
        return frames

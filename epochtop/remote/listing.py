"""The runs of this machine for a viewer on another one: records and both ends of logs, whenever they have changed.

Reads only; never follows a link to a file. Imports the standard library and modules that are sent with it only.
"""

from __future__ import annotations

import os
import time

from epochtop.engine.runs.heartbeat import is_alive
from epochtop.engine.runs.regular import open_file, read_regular
from epochtop.recording.directory import EVENTS, LOCK, RECORD
from epochtop.remote.frames import LAB, is_run_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from epochtop.remote.frames import Frame

END_BYTES = 8 << 10
"""Bytes of each end of a log, at first."""
LAB_END_BYTES = 128 << 10
"""The same for experiments, whose rows are compared and whose logs are short."""
LONGEST_END_BYTES = 1 << 20
"""Most bytes of an end, where single lines are long."""
LIVE_S = 5.0
"""Least seconds between two summaries of a run that is alive."""
LARGEST_RECORD = 4 << 20
"""Most bytes of a record."""

State = tuple[int, ...]


class Listing:
    """What the viewer knows about the runs of `home`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._sent: dict[str, tuple[State, State, bool, float]] = {}
        """By id: state of the record, state of the log, whether alive, time of the lock."""
        self._due: dict[str, float] = {}
        """By id of a live run: monotonic time of its next summary."""

    def changes(self, followed: Collection[str]) -> Iterator[Frame]:
        """The runs that have changed, the newest first, and those that are gone. Of `followed` ones only the record is sent."""
        ids = self._ids()
        for gone in self._sent.keys() - ids.keys():
            del self._sent[gone]
            yield {"type": "gone", "run": gone}, b""
        for run_id, started in sorted(ids.items(), key=lambda entry: -entry[1]):
            frame = self._change(run_id, started, run_id in followed)
            if frame is not None:
                yield frame

    def _ids(self) -> dict[str, float]:
        """Ids of all runs, each with the time of its lock."""
        ids = {}
        for prefix in ("", LAB):
            try:
                names = os.listdir(self._home / prefix)
            except OSError:
                continue
            for run_id in (prefix + name for name in names):
                folder = self._home / run_id
                if is_run_id(run_id) and os.path.lexists(folder / RECORD) and not folder.is_symlink():
                    ids[run_id] = modified_time(folder / LOCK)
        return ids

    def _change(self, run_id: str, started: float, followed: bool) -> Frame | None:
        folder, known = self._home / run_id, self._sent.get(run_id)
        record, log = _state_of(folder / RECORD), _state_of(folder / EVENTS)
        if known is not None and known == (record, log, False, started):
            return None
        alive = is_alive(folder)
        due = not alive or time.monotonic() >= self._due.get(run_id, 0.0)
        sends_record = known is None or known[0] != record
        sends_log = not followed and (known is None or known[2] != alive or (known[1] != log and due))
        if not sends_record and not sends_log:
            return None
        if sends_log:
            self._due[run_id] = time.monotonic() + LIVE_S
        old_log = known[1] if known is not None else ()
        self._sent[run_id] = (record, log if sends_log or followed else old_log, alive, started)
        record_bytes = _content(folder / RECORD) if sends_record else b""
        log_bytes = (
            both_ends(folder / EVENTS, LAB_END_BYTES if run_id.startswith(LAB) else END_BYTES) if sends_log else b""
        )
        header = {
            "type": "run", "run": run_id, "alive": alive, "started": started,
            "size": log[0] if log else 0,
            "record": len(record_bytes) if sends_record else None, "log": len(log_bytes) if sends_log else None,
        }  # fmt: skip
        return header, record_bytes + log_bytes


def _state_of(path: Path) -> State:
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def modified_time(path: Path) -> float:
    """Unix time of the last change of a file; 0 if it cannot be read."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, LARGEST_RECORD)
    except OSError:
        return b""


def both_ends(path: Path, end_bytes: int = END_BYTES) -> bytes:
    """The complete lines at the beginning and at the end of a log, or a short log as a whole; empty if it cannot be read."""
    try:
        with open_file(path) as file:
            size = file.seek(0, os.SEEK_END)
            if size <= 2 * end_bytes:
                file.seek(0)
                return file.read(size)
            head = first_lines(file, end_bytes)
            span, tail = end_bytes, b""
            while not tail and span <= LONGEST_END_BYTES:
                place = max(len(head), size - span)
                file.seek(place)
                lines = file.read(size - place)
                tail = lines if place == len(head) else lines.partition(b"\n")[2]
                tail = tail[: tail.rfind(b"\n") + 1]
                span *= 8
            return head + tail
    except OSError:
        return b""


def first_lines(file: object, least: int) -> bytes:
    """The complete lines in about the first `least` bytes of an open file, at least one unless it is too long."""
    head = b""
    while b"\n" not in head and least <= LONGEST_END_BYTES:
        file.seek(0)  # type: ignore[attr-defined]
        head = file.read(least)  # type: ignore[attr-defined]
        least *= 8
    return head[: head.rfind(b"\n") + 1]

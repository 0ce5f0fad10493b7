"""A run that is alive but records nothing: for how long, and why, as far as another process can see.

Needs no space on the disk of the run. Looking for the cause may block on a file system that hangs, so in the app only the
thread that follows a run does it. Never imports a widget.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic

from epochtop.engine.protocol.events import RANK_HANGS, Noted, ScriptStarted, Telemetry, Warned
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.heartbeat import is_beating
from epochtop.engine.runs.reader import BadLine, read_record
from epochtop.engine.runs.remote.registry import mirror_of

ALLOWED_S = 2.0
"""A run may be silent for three refreshes, or three steps, and this long."""
FULL_BYTES = 1 << 20
"""A disk with less free space than this is full."""
HANGING_S = 5.0
"""Time after which a file system that has not answered hangs."""
MOST_PROCESSES = 64
"""Most processes of a run that are looked at."""
CAUSE_S = 1.0
"""Seconds between two looks for the cause."""
_STOPPED, _TRACED, _WAITING = "T", "t", "D"
"""States of a process in /proc/PID/stat."""
_WITHOUT_PROGRESS = (Telemetry, Noted, Warned, BadLine)
"""Events that a run records although its training stands still."""


def is_progress(events: Sequence[object]) -> bool:
    """Whether one of these events shows that the run goes on."""
    return any(not isinstance(event, _WITHOUT_PROGRESS) for event in events)


def silence_text(silent_s: float, cause: str, refresh_s: float, step_s: float = 0.0) -> str:
    """What to show after `silent_s` seconds without progress; empty as long as that is usual.

    A run that takes `step_s` per step is usually silent for that long. A `cause` is shown sooner.
    """
    expected_s = refresh_s if cause else max(refresh_s, step_s)
    if silent_s <= 3 * expected_s + ALLOWED_S:
        return ""
    return f"no data for {silent_s:.0f} s{f': {cause}' if cause else ''}"


class HangingRank:
    """The rank that keeps the others of a run waiting, by the run's own account."""

    def __init__(self) -> None:
        self.message = ""
        """What the run says about it; empty if there is none."""

    def see(self, event: object) -> None:
        """Take an event of the run."""
        if isinstance(event, Warned | Noted) and event.code == RANK_HANGS:
            self.message = event.message if isinstance(event, Warned) else ""
        elif is_progress([event]):
            self.message = ""


class SilenceMeter:
    """For how long a run records nothing, for a command that reads its log itself."""

    def __init__(self, run: Path) -> None:
        self._run, self._progress_at, self._looked_at = run, monotonic(), 0.0
        self._cause = ""
        self._script = 0
        self._hanging_rank = HangingRank()

    def see(self, events: Sequence[object]) -> None:
        """Take new events."""
        for event in events:
            self._hanging_rank.see(event)
        self._script = script_process(events) or self._script
        if is_progress(events):
            self._progress_at, self._cause = monotonic(), ""

    def text(self, refresh_s: float, step_s: float) -> str:
        """As :func:`silence_text`, now."""
        now = monotonic()
        silent_s = now - self._progress_at
        if silent_s > ALLOWED_S and now - self._looked_at > CAUSE_S:
            self._cause, self._looked_at = likely_cause(self._run, self._script), now
        return silence_text(silent_s, self._hanging_rank.message or self._cause, refresh_s, step_s)


# --- the cause -------------------------------------------------------------------------------------------------


def likely_cause(run: Path, process: int = 0) -> str:
    """Why `run` records nothing, for people; empty if nothing unusual can be seen.

    `process` is that of a script which another process records; 0 if the recorded one is all there is.
    """
    mirror = mirror_of(run)
    if mirror is not None:  # its process and its disk are out of sight
        return mirror.problem
    try:
        record = read_record(run)
        disk = os.statvfs(run)
    except (Invalid, OSError):
        return "its folder cannot be read"
    local = record.host == socket.gethostname()
    states = dict(_process_states(record.pid, *([process] if process else []))) if local else {}
    by_state = {state: pid for pid, state in reversed(states.items())}
    if pid := by_state.get(_STOPPED):
        return f"process {pid} is suspended; `kill -CONT {pid}` continues it"
    if pid := by_state.get(_TRACED):
        return f"a debugger holds process {pid}"
    if disk.f_bavail * disk.f_frsize < FULL_BYTES:
        return f"the disk of {run.parent} is full"
    if pid := by_state.get(_WAITING):
        return f"process {pid} waits for a disk or a network"
    return "" if local or is_beating(run) else f"it runs on {record.host}, which may be out of reach"


def script_process(events: Sequence[object]) -> int:
    """The process of the script that has begun in one of these events; 0 if none has."""
    return next((event.pid for event in reversed(events) if isinstance(event, ScriptStarted)), 0)


def _process_states(*roots: int) -> Iterator[tuple[int, str]]:
    """States of these processes of this machine and of their descendants, such as ranks; none where /proc does not tell."""
    waiting, seen = list(roots), 0
    while waiting and seen < MOST_PROCESSES:
        pid, seen = waiting.pop(0), seen + 1
        state = _process_state(pid)
        if state:
            yield pid, state
            waiting += _children(pid)


def _process_state(pid: int) -> str:
    """One letter; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _children(pid: int) -> list[int]:
    """Processes that any thread of a process has started."""
    try:
        files = list(Path(f"/proc/{pid}/task").glob("*/children"))
        return [int(word) for file in files for word in file.read_text().split()]
    except (OSError, ValueError):
        return []

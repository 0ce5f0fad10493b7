"""Whether the process of a run lives: it holds the run's lock, or refreshes its heartbeat where a lock tells nothing.

`flock` has no effect on some network file systems and never reaches another host. There a run counts as alive while its
heartbeat is young. This module is also sent to other machines (:mod:`epochtop.remote`), so it works with Python 3.9 and imports
the standard library and modules that are sent with it only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import threading
import time
from pathlib import Path

from epochtop.engine.runs.paths import HEARTBEAT, LOCK
from epochtop.engine.runs.regular import open_file, read_regular

INTERVAL_S = 5.0
"""Seconds between two refreshes."""
DEAD_S = 15.0
"""Age from which on the process counts as dead."""
CLOSE_S = 0.5
"""Longest wait for a refresh that hangs on its disk."""
SIZE_BYTES = 4096
"""Most bytes of a heartbeat."""
OFFSET_S = 60.0
"""Seconds for which the clock of a file system is known without another look."""


class Heartbeat:
    """Refreshes the heartbeat of a run from its own thread, so that a slow checkpoint does not look like a death."""

    def __init__(self, run: Path, interval_s: float = INTERVAL_S) -> None:
        self._path, self._interval_s = run / HEARTBEAT, interval_s
        self._content = f"{socket.gethostname()} {os.getpid()} {time.time():.3f}\n".encode()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Write the file and begin to refresh it."""
        self._beat()
        self._thread.start()

    def close(self) -> None:
        """Remove the file: the last event says how the run ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _work(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._beat()

    def _beat(self) -> None:
        """Set the time of the file by the clock of its file system; write it again if it is gone."""
        with contextlib.suppress(OSError):  # a full disk or a removed folder
            try:
                os.utime(self._path)
            except FileNotFoundError:
                if not self._stop.is_set():
                    self._path.write_bytes(self._content)


def is_alive(run: Path) -> bool:
    """Whether the process that records a run lives: it holds the run's lock, or refreshes the heartbeat where locks tell
    nothing (a network file system, another host)."""
    return _is_locked(run) or is_beating(run)


def _is_locked(run: Path) -> bool:
    try:
        with open_file(run / LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:  # no such file, or a file system without locks
        return False


def is_beating(run: Path) -> bool:
    """Whether a run whose lock is free is alive nevertheless: its heartbeat is young, and locks tell nothing here."""
    path = run / HEARTBEAT
    try:
        refreshed_at = path.stat().st_mtime
        same_host = read_regular(path, SIZE_BYTES).split(b" ")[0] == socket.gethostname().encode()
        if same_host and _locks_work(path):
            return False
        return _file_system_time(run.parent) - refreshed_at < DEAD_S
    except OSError:
        return False


def _locks_work(path: Path) -> bool:
    """Whether a second lock on a file is refused, as it must be."""
    with open_file(path) as first, open_file(path) as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # another viewer asks at the same moment, which also shows that locks work
            return isinstance(error, BlockingIOError)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


_offsets: dict[Path, tuple[float, float]] = {}
"""By folder: when its clock was read, and how far ahead it was then. Both are in seconds of the monotonic clock."""


def _file_system_time(folder: Path) -> float:
    """Unix time by the clock of a folder's file system; by the clock of this machine if nothing can be written there."""
    now = time.monotonic()
    known = _offsets.get(folder)
    if known is None or now - known[0] >= OFFSET_S:
        known = _offsets[folder] = (now, _clock_of(folder) - now)
    return now + known[1]


def _clock_of(folder: Path) -> float:
    probe = folder / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
    with contextlib.suppress(OSError):
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()
    return time.time()

"""The files and folders that the user has opened: a list in the home folder, so that their runs stay in the run list.

Never imports torch, numpy or Textual, and never writes anything but that list.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from epochtop.configuration.load import load
from epochtop.engine.protocol.events import UNREADABLE, encode
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.files import write_atomically
from epochtop.engine.runs.paths import OPENED
from epochtop.engine.runs.regular import read_regular
from epochtop.engine.runs.remote.registry import mirror_at

if TYPE_CHECKING:
    from epochtop.formats.scan import Log

EPOCHTOP = "epochtop"
"""Kind of a log that is a run directory."""

SCAN_S = 5.0
"""Least time between two searches of the opened folders in one process; more if a search takes long."""
SHARE = 20
"""Searches take at most one part in SHARE of the time."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of the list."""

    paths: tuple[str, ...] = ()
    """Absolute paths of opened files and folders, the newest last."""
    hidden: tuple[str, ...] = ()
    """Runs in them that the user removed from the run list."""


_decode = msgspec.json.Decoder(Opened).decode


def absolute(path: str | Path) -> Path:
    """An absolute path without `..`. Links stay, because a folder is known by the name under which it was opened."""
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 - resolve() follows links


def read_opened(home: Path) -> Opened:
    """The list; empty if there is none or if it cannot be read."""
    try:
        return _decode(read_regular(home / OPENED))
    except (OSError, *UNREADABLE):
        return Opened()


def add(home: Path, paths: list[Path]) -> None:
    """Add paths to the list, and show runs in them again that were hidden. Raises Invalid if the list cannot be written."""
    opened = read_opened(home)
    new = [str(absolute(path)) for path in paths]
    remaining = [path for path in opened.paths if path not in new]
    shown = [run for run in opened.hidden if not any(Path(run).is_relative_to(path) for path in new)]
    _write(home, Opened(paths=(*remaining, *new), hidden=tuple(shown)))


def forget(home: Path, paths: list[Path]) -> None:
    """Remove paths from the list; the files stay. Raises Invalid for a path that is not in it."""
    opened = read_opened(home)
    gone = {str(absolute(path)) for path in paths}
    for path in sorted(gone - set(opened.paths)):
        raise Invalid("", f"{path} is not open; open are {', '.join(opened.paths) or 'none'}")
    remaining = tuple(path for path in opened.paths if path not in gone)
    _write(home, msgspec.structs.replace(opened, paths=remaining))


def hide(home: Path, run: Path) -> None:
    """Remove one run from the run list; its files stay. Raises Invalid if the list cannot be written."""
    opened = read_opened(home)
    if str(run) in opened.paths:
        forget(home, [run])
    elif str(run) not in opened.hidden:
        _write(home, msgspec.structs.replace(opened, hidden=(*opened.hidden, str(run))))


def _write(home: Path, opened: Opened) -> None:
    try:
        write_atomically(home / OPENED, encode(opened))
    except OSError as error:
        raise Invalid("", f"cannot write {home / OPENED}: {error.strerror}") from None


class OpenedLogs:
    """The logs in the opened folders, and in those that config.toml names. Searching them again takes time, so the last result is used for a while."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._opened = Opened()
        self._logs: list[Log] = []
        self._next = 0.0

    def list(self) -> list[Log]:
        """All logs that are not hidden, each once. Run directories in the home folder itself are left out."""
        with self._lock:
            opened, now = read_opened(self._home), time.monotonic()
            if opened != self._opened or now >= self._next:
                self._opened = opened
                self._logs = search(_paths_of(self._home, opened))
                took = time.monotonic() - now
                self._next = now + took + max(SCAN_S, SHARE * took)
            hidden = set(opened.hidden)
            return [
                log
                for log in self._logs
                if str(log.path) not in hidden and not (log.kind == EPOCHTOP and log.path.parent == self._home)
            ]


def _paths_of(home: Path, opened: Opened) -> list[Path]:
    """The opened paths; those of the other machine if `home` mirrors one."""
    mirror = mirror_at(home)
    if mirror is not None:
        return mirror.opened_paths()
    return [absolute(path) for path in (*load()["folders"], *opened.paths)]


def search(paths: list[Path]) -> list[Log]:
    """The logs in files and folders, each once."""
    if not paths:
        return []
    from epochtop.formats.scan import find_logs

    logs: dict[Path, Log] = {}
    for path in paths:
        for log in find_logs(path).logs:
            logs.setdefault(log.path, log)
    return list(logs.values())

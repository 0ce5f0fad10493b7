"""The table of all runs, kept up to date: a run is read again only if its log or its record has changed.

What was read of ended runs is stored in the home folder, so that the next start reads nothing again. Never imports torch,
numpy or Textual.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.index import run_paths, summary_and_record
from epochtop.engine.runs.opened.folders import EPOCHTOP, OpenedLogs
from epochtop.engine.runs.paths import EVENTS, RECORD
from epochtop.engine.runs.reader import is_alive
from epochtop.engine.runs.remote.registry import mirror_of
from epochtop.engine.runs.table.details import RunDetails, details_of
from epochtop.engine.runs.table.labels import Labels, read_log_labels
from epochtop.engine.runs.table.store import Key, Stored, load, save
from epochtop.engine.runs.values.figures import FiguresReader, read

if TYPE_CHECKING:
    from epochtop.engine.runs.opened.summary import LogSummary
    from epochtop.formats.scan import Log

ENDED = ("finished", "stopped", "diverged", "unsaved", "failed")
"""States that need no look at the process: a run that continues says so in its log."""


@dataclass
class _Entry:
    """What is known about one run."""

    key: Key | None = None
    """State of its files when it was read; None before."""
    details: RunDetails | None = None
    figures: FiguresReader | None = None
    """Reader of a run directory that may grow; None for a run that was read to its end."""
    summary: LogSummary | None = None
    """Summary of a log of another tool."""


class RunTable:
    """All runs of a home folder and of opened folders. Not thread-safe; one thread owns it."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._opened = OpenedLogs(home)
        self._entries: dict[str, _Entry] = {
            path: _Entry(stored.key, stored.details) for path, stored in load(home).items()
        }
        self._unsaved = False
        self.problem = ""
        """Why labels of opened logs are missing; empty if they are not."""

    def list(self, seconds: float = math.inf) -> list[RunDetails]:
        """All runs, the newest first. Reads logs for at most about `seconds`; :attr:`RunDetails.complete` tells which are read."""
        deadline = time.monotonic() + seconds
        logs = self._opened.list()
        runs = run_paths(self._home) + [log.path for log in logs if log.kind == EPOCHTOP]
        others = [log for log in logs if log.kind != EPOCHTOP]
        entries = {
            str(path): self._entries.get(str(path)) or _Entry() for path in [*runs, *(log.path for log in others)]
        }
        self._unsaved = self._unsaved or len(entries) < len(self._entries)
        self._entries = entries
        labels = self._log_labels() if others else {}
        listed = [self._run(path, deadline) for path in runs]
        listed += [self._log(log, labels.get(str(log.path)), deadline) for log in others]
        self._save()
        return sorted(listed, key=lambda run: run.summary.created, reverse=True)

    def _log_labels(self) -> dict[str, Labels]:
        self.problem = ""
        try:
            return read_log_labels(self._home)
        except Invalid as error:
            self.problem = error.message
            return {}

    # --- run directories ---------------------------------------------------------------------------------------

    def _run(self, path: Path, deadline: float) -> RunDetails:
        entry, key = self._entries[str(path)], _key(path)
        old = entry.details
        if old is not None and old.complete and key is not None and key == entry.key and self._state_holds(old, path):
            return old
        if old is not None and time.monotonic() > deadline:
            return old
        summary, record = summary_and_record(path)
        if path.parent != self._home:
            summary = msgspec.structs.replace(summary, id=str(path))
        details = details_of(path, EPOCHTOP, summary, record)
        entry.details = details
        if record is None:
            entry.key, details.complete = key, True
        elif time.monotonic() <= deadline:
            if entry.key is not None and key is not None and key[0] < entry.key[0]:
                entry.figures = None  # another log has taken the place
            entry.key = key
            self._read_figures(entry, details, path)
        elif old is not None:
            details.series = old.series
        return details

    def _read_figures(self, entry: _Entry, details: RunDetails, path: Path) -> None:
        mirror = mirror_of(path)
        if mirror is not None and mirror.is_abridged(path):
            entry.figures, details.complete = None, True  # its figures are unknown, rather than wrong
            if not mirror.follow_soon(path):
                entry.key = None
            return
        reader = entry.figures = entry.figures or FiguresReader(path)
        try:
            reader.update()
        except OSError:
            return
        details.config |= reader.config
        details.series, details.complete = reader.series, True
        if details.summary.state in ENDED:
            entry.figures, self._unsaved = None, True

    @staticmethod
    def _state_holds(details: RunDetails, path: Path) -> bool:
        state = details.summary.state
        return state in ENDED or is_alive(path) == (state != "died")

    # --- logs of other tools -----------------------------------------------------------------------------------

    def _log(self, log: Log, labels: Labels | None, deadline: float) -> RunDetails:
        from epochtop.engine.runs.opened.summary import LogSummary, read_log_record

        entry = self._entries[str(log.path)]
        if entry.summary is None:
            entry.summary = LogSummary(log)
        summary = entry.summary.update()
        key = (int(1e6 * entry.summary.modified),)
        details = entry.details
        if details is None or key != entry.key:
            try:
                details = entry.details = details_of(log.path, log.kind, summary, read_log_record(log.path))
                if time.monotonic() <= deadline:
                    figures = read(log.path)
                    details.config, details.series, details.complete = figures.config, figures.series, True
                    entry.key, self._unsaved = key, True
            except Invalid:
                details = entry.details = RunDetails(path=str(log.path), kind=log.kind, summary=summary, complete=True)
                entry.key = key
        details.summary = summary
        return details if labels is None else msgspec.structs.replace(details, labels=labels)

    # --- what is stored ----------------------------------------------------------------------------------------

    def _save(self) -> None:
        entries = self._entries
        if not self._unsaved or not all(entry.details and entry.details.complete for entry in entries.values()):
            return
        self._unsaved = False
        stored = {
            path: Stored(entry.key, entry.details)
            for path, entry in entries.items()
            if entry.key is not None and entry.details is not None and entry.figures is None
        }
        save(self._home, stored)


def _key(path: Path) -> Key | None:
    """State of the files of a run directory; None if one cannot be read."""
    try:
        log, record = (path / EVENTS).stat(), (path / RECORD).stat()
    except OSError:
        return None
    return log.st_size, log.st_mtime_ns, record.st_size, record.st_mtime_ns

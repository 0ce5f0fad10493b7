"""Runs of either source: a run directory, or the log of another tool that was opened. Viewers read both through this module.

A run is identified by its path. Ids of opened logs are absolute paths, so `home / id` is the path of either. The readers of
logs are imported when a log is opened, so that an app without one starts as quickly. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from epochtop.engine.protocol.events import AnyEvent
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.runs import index, reader
from epochtop.engine.runs.opened.folders import EPOCHTOP
from epochtop.engine.runs.paths import RECORD
from epochtop.engine.runs.reader import BadLine
from epochtop.engine.runs.remote.registry import mirror_of

if TYPE_CHECKING:
    from epochtop.formats.scan import Log


class EventFollower(Protocol):
    """Reads the events of a run, from the first one, then as they arrive."""

    path: Path

    def read(self) -> list[AnyEvent | BadLine]:
        """The next events; empty if there are none."""

    def close(self) -> None:
        """Close the files."""


def is_opened_log(path: Path) -> bool:
    """Whether a run is the log of another tool, not a run directory. Such a run may grow at any time, and takes no commands."""
    return path.is_absolute() and not (path / RECORD).exists() and (path.exists() or path.parent.is_file())


def follower_of(path: Path) -> EventFollower:
    """A follower of a run. Raises Invalid if `path` is neither a run directory nor a log. Has a mirror complete the run."""
    mirror = mirror_of(path)
    if mirror is not None:
        mirror.follow(path)
    if not is_opened_log(path):
        return reader.Follower(path)
    from epochtop.engine.runs.opened.follower import OpenedFollower

    return OpenedFollower(path)


def record_of(path: Path) -> RunRecord:
    """The record of a run. Raises Invalid if `path` is neither a run directory nor a log."""
    if not is_opened_log(path):
        return reader.read_record(path)
    from epochtop.engine.runs.opened.summary import read_log_record

    return read_log_record(path)


def is_live(path: Path) -> bool:
    """Whether more events may come: the process that records a run lives, or it is a log, which may grow at any time."""
    return is_opened_log(path) or reader.is_alive(path)


def summarize(log: Log, home: Path) -> index.RunSummary:
    """Summarize a run directory or a log. The id of a run that is not in `home` is its absolute path."""
    if log.kind != EPOCHTOP:
        from epochtop.engine.runs.opened.summary import summarize_log

        return summarize_log(log)
    summary = index.summarize(log.path)
    return summary if log.path.parent == home else msgspec.structs.replace(summary, id=str(log.path))

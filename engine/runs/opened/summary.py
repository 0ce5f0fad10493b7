"""The record and the summary of an opened log. A summary reads the end of a long log only.

Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from epochtop.engine.protocol.record import RunRecord, ScriptRecord
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.families import main_series
from epochtop.engine.runs.index import RunSummary, State
from epochtop.engine.runs.opened.follower import Activity
from epochtop.formats.records import Batch, Configuration, Description, Ended
from epochtop.formats.scan import Log, log_at

END_BYTES = 1 << 16
"""Bytes read from the end of each file of a log, besides a few at its beginning."""
HEAD_READS = 4
"""Pieces of about 1 MiB in which the configuration is looked for."""


def read_log_record(path: Path) -> RunRecord:
    """A record for an opened log, with the configuration and the name at its beginning. Raises Invalid if there is no log."""
    log = log_at(path)
    if log is None:
        raise Invalid("", f"{path} is neither a run nor a log in a format that epochtop reads")
    follower, activity = log.follow(), Activity()
    description, config = Description(), dict[str, Any]()
    try:
        for _ in range(HEAD_READS):
            records = follower.read()
            for record in records:
                if isinstance(record, Description):
                    description = record
                elif isinstance(record, Configuration):
                    config.update(record.values)
                elif isinstance(record, Batch):
                    activity.add(record)
            if not records:
                break
        created = activity.first if math.isfinite(activity.first) else follower.modified()
    except OSError as error:
        raise Invalid("", f"{path} cannot be read: {error.strerror or error}") from None
    finally:
        follower.close()
    script = ScriptRecord(
        name=description.name or log.name,
        project=description.project,
        group=description.group,
        tags=description.tags,
        notes=description.notes,
        config=config,
        working_folder=str(path.parent),
    )
    return RunRecord(spec=RunSpec(), script=script, created=created, host="", user="", pid=0, versions={})


def summarize_log(log: Log, now: float | None = None) -> RunSummary:
    """Summarize an opened log. Its id is its absolute path. `now` is Unix time."""
    return LogSummary(log).update(now)


class LogSummary:
    """The summary of an opened log as it grows. Holds no open file between two updates."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._follower = log.follow(END_BYTES)
        self._activity = Activity()
        self._name = log.name
        self._lasts: dict[str, float] = {}
        """Last value by series."""
        self._end: Ended | None = None
        self._modified = -1.0

    @property
    def modified(self) -> float:
        """Unix time of the last change of the log that is in the summary; negative before the first :meth:`update`."""
        return self._modified

    def update(self, now: float | None = None) -> RunSummary:
        """The summary with what was written since the last call. `now` is Unix time."""
        try:
            modified = self._follower.modified()
            if modified != self._modified:
                self._read()
                self._modified = modified
        except OSError as error:
            note = f"cannot be read: {error.strerror or error}"
            return RunSummary(
                id=str(self._log.path), name=self._name, state="failed", created=0.0, dataset=self._log.kind, note=note
            )
        finally:
            self._follower.close()
        return self._summary(modified, time.time() if now is None else now)

    def _read(self) -> None:
        while records := self._follower.read():
            for record in records:
                if isinstance(record, Batch):
                    self._activity.add(record)
                    self._lasts[record.series] = record.values[-1]
                    self._end = None
                elif isinstance(record, Description):
                    self._name = record.name or self._name
                elif isinstance(record, Ended):
                    self._end = record

    def _summary(self, modified: float, now: float) -> RunSummary:
        activity, main = self._activity, main_series(self._lasts)
        last = self._lasts.get(main, math.nan)
        return RunSummary(
            id=str(self._log.path),
            name=self._name,
            state=state_of(self._end, activity, modified, now),
            created=activity.first if math.isfinite(activity.first) else modified,
            dataset=self._log.kind,
            script=True,
            seconds=activity.seconds or None,
            steps=activity.steps or None,
            final_loss=None if math.isnan(last) else last,
            series=main,
            note="" if self._end is None else self._end.reason,
        )


def state_of(end: Ended | None, activity: Activity, modified: float, now: float) -> State:
    """The state of a log: what it says about its end; else running while it grows, and finished if it does not."""
    if end is not None:
        return "failed" if end.outcome == "failed" else "stopped" if end.outcome == "stopped" else "finished"
    return "running" if activity.is_growing(modified, now) else "finished"

"""All values of a run in memory, for programs: `epochtop.open`, `epochtop runs --json` and `epochtop export`.

Viewers do not use it, because its memory grows with the run. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec

from epochtop.engine.protocol.events import AnyEvent, Configured, Event
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import index, reader
from epochtop.engine.runs.opened.follower import Activity
from epochtop.engine.runs.opened.sources import is_opened_log
from epochtop.engine.runs.opened.summary import state_of
from epochtop.engine.runs.series import SeriesTranslator, SeriesWindow
from epochtop.formats.records import Batch, Configuration, Description, Ended, Record, Restart
from epochtop.formats.scan import log_at


@dataclass
class SeriesValues:
    """One series: each step once, in ascending order, with the value that was logged last."""

    name: str
    steps: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    """Unix times in seconds; NaN where unknown. For a run directory, that of the end of the refresh."""
    values: array[float] = field(default_factory=lambda: array("d"))

    def discard_from(self, step: int) -> None:
        """Forget the values at `step` and later, as far as they are at the end."""
        keep = len(self.steps)
        while keep and self.steps[keep - 1] >= step:
            keep -= 1
        del self.steps[keep:], self.times[keep:], self.values[keep:]

    def sort(self) -> None:
        """Bring the steps in order and keep the last value of each."""
        steps = self.steps
        if all(before < after for before, after in zip(steps, memoryview(steps)[1:], strict=False)):
            return
        places = dict(zip(steps, range(len(steps)), strict=True))
        order = [places[step] for step in sorted(places)]
        self.steps = array("q", (steps[place] for place in order))
        self.times = array("d", (self.times[place] for place in order))
        self.values = array("d", (self.values[place] for place in order))


@dataclass
class RunHistory:
    """A run with all its values."""

    path: Path
    id: str
    """Id of a run directory; the absolute path of an opened log."""
    name: str
    kind: str
    """`epochtop` for a run directory, else the format of the log."""
    state: str
    created: float
    """Unix time in seconds."""
    config: dict[str, Any]
    """Configuration of a script, settings of a run that the engine trained."""
    series: dict[str, SeriesValues]
    damaged: int = 0
    """Number of damaged records that were skipped."""


def load(path: Path) -> RunHistory:
    """Read a run completely. Raises Invalid if `path` is neither a run directory nor a log, or cannot be read."""
    history = _load_log(path) if is_opened_log(path) else _load_run(path)
    for series in history.series.values():
        series.sort()
    return history


# --- run directories ---------------------------------------------------------------------------------------


def _load_run(path: Path) -> RunHistory:
    record, summary = reader.read_record(path), index.summarize(path)
    history = RunHistory(
        path=path,
        id=path.name,
        name=record.name,
        kind="epochtop",
        state=summary.state,
        created=record.created,
        config=config_of(record),
        series={},
    )
    follower, translator = reader.Follower(path), SeriesTranslator()
    for event in follower.read_all():
        if isinstance(event, Event):
            _add_event(history, event, translator)
        else:
            history.damaged += 1
    follower.close()
    return history


def config_of(record: RunRecord) -> dict[str, Any]:
    """The configuration of a script; the settings of any other run."""
    return (
        dict(record.script.config)
        if record.script is not None
        else cast(dict[str, Any], msgspec.to_builtins(record.spec))
    )


def _add_event(history: RunHistory, event: AnyEvent, translator: SeriesTranslator) -> None:
    if isinstance(event, Configured):
        history.config.update(event.values)
    for window in translator.windows(event):
        _add_window(_series(history, window.name), window)


def _add_window(series: SeriesValues, window: SeriesWindow) -> None:
    series.steps.extend(window.step_numbers())
    series.values.extend(map(float, window.numbers()))
    moment = math.nan if window.time is None else window.time
    series.times.extend([moment] * window.count)


def _series(history: RunHistory, name: str) -> SeriesValues:
    series = history.series.get(name)
    if series is None:
        series = history.series[name] = SeriesValues(name)
    return series


# --- logs of other tools ------------------------------------------------------------------------------------


def _load_log(path: Path) -> RunHistory:
    log = log_at(path)
    if log is None:
        raise Invalid("", f"{path} is neither a run nor a log in a format that epochtop reads")
    history = RunHistory(path, str(path), log.name, log.kind, "finished", 0.0, {}, {})
    follower, activity, end = log.follow(), Activity(), None
    try:
        while records := follower.read():
            for record in records:
                if isinstance(record, Batch):
                    activity.add(record)
                    end = None
                elif isinstance(record, Ended):
                    end = record
                _add_record(history, record)
        modified = follower.modified()
    except OSError as error:
        raise Invalid("", f"{path} cannot be read: {error.strerror or error}") from None
    finally:
        follower.close()
    history.damaged = follower.damaged
    history.created = activity.first if math.isfinite(activity.first) else modified
    history.state = state_of(end, activity, modified, time.time())
    return history


def _add_record(history: RunHistory, record: Record) -> None:
    if isinstance(record, Batch):
        series = _series(history, record.series)
        series.steps.extend(record.steps)
        series.times.extend(record.times)
        series.values.extend(record.values)
    elif isinstance(record, Restart):
        for name in [record.series] if record.series else history.series:
            _series(history, name).discard_from(record.step)
    elif isinstance(record, Configuration):
        history.config.update(record.values)
    elif isinstance(record, Description):
        history.name = record.name or history.name


# --- rows ------------------------------------------------------------------------------------------------------


def rows(series: Iterable[SeriesValues]) -> Iterable[tuple[int, float, tuple[float | None, ...]]]:
    """Step, Unix time (NaN if unknown) and the values of these series at every step that one of them has, in order."""
    columns = list(series)
    tables = [dict(zip(column.steps, zip(column.times, column.values, strict=True), strict=True)) for column in columns]
    for step in sorted(set().union(*tables)):
        cells = [table.get(step) for table in tables]
        times = [cell[0] for cell in cells if cell is not None and not math.isnan(cell[0])]
        yield step, max(times, default=math.nan), tuple(None if cell is None else cell[1] for cell in cells)

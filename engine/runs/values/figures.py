"""What `epochtop runs --json` tells about the series of a run. Never imports torch, numpy or Textual."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from epochtop.engine.protocol.events import Configured, Event
from epochtop.engine.runs import reader
from epochtop.engine.runs.opened.sources import is_opened_log
from epochtop.engine.runs.series import SeriesTranslator
from epochtop.engine.runs.values import history


class SeriesFigures(msgspec.Struct, kw_only=True):
    """One series in a list."""

    count: int = 0
    """Number of values."""
    first_step: int | None = None
    last_step: int | None = None
    last: float | None = None
    """Value at `last_step`; None if it is not finite."""


@dataclass
class RunFigures:
    """Configuration and series of a run."""

    kind: str
    """`epochtop` for a run directory, else the format of the log."""
    config: dict[str, Any]
    series: dict[str, SeriesFigures]


def read(path: Path) -> RunFigures:
    """Read a run completely. Raises Invalid if `path` is neither a run directory nor a log, or cannot be read."""
    if not is_opened_log(path):
        return _of_run(path)
    run = history.load(path)
    series = {
        name: SeriesFigures(
            count=len(values.steps),
            first_step=values.steps[0],
            last_step=values.steps[-1],
            last=_finite(values.values[-1]),
        )
        for name, values in run.series.items()
        if values.steps
    }
    return RunFigures(run.kind, run.config, series)


def _of_run(path: Path) -> RunFigures:
    """Figures of a run directory, without keeping its values."""
    figures = RunFigures("epochtop", history.config_of(reader.read_record(path)), {})
    follower, translator = reader.Follower(path), SeriesTranslator()
    for event in follower.read_all():
        if isinstance(event, Configured):
            figures.config.update(event.values)
        if not isinstance(event, Event):
            continue
        for window in translator.windows(event):
            entry = figures.series.setdefault(window.name, SeriesFigures(first_step=window.first_step))
            entry.count += window.count
            entry.last_step, entry.last = window.last_step, _finite(window.last)
    follower.close()
    return figures


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

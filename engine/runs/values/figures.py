"""Figures of the series of a run: how many values, the last and the extremes, without keeping the values.

Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from epochtop.engine.protocol.events import AnyEvent, Configured, Event
from epochtop.engine.runs import reader
from epochtop.engine.runs.opened.sources import is_opened_log
from epochtop.engine.runs.series import SeriesTranslator, SeriesWindow
from epochtop.engine.runs.values import history


class SeriesFigures(msgspec.Struct, kw_only=True, gc=False):
    """One series in a list."""

    count: int = 0
    """Number of values."""
    first_step: int | None = None
    last_step: int | None = None
    last: float | None = None
    """Value at `last_step`; None if it is not finite."""
    minimum: float | None = None
    """Lowest finite value; None if there is none."""
    maximum: float | None = None
    """Highest finite value; None if there is none."""

    def widen(self, low: float | None, high: float | None) -> None:
        """Extend the extremes to these finite values."""
        if low is not None and (self.minimum is None or low < self.minimum):
            self.minimum = low
        if high is not None and (self.maximum is None or high > self.maximum):
            self.maximum = high


@dataclass
class RunFigures:
    """Configuration and series of a run."""

    kind: str
    """`epochtop` for a run directory, else the format of the log."""
    config: dict[str, Any]
    series: dict[str, SeriesFigures]


class FiguresReader:
    """The figures of a run directory. :meth:`update` reads only what was written since the call before."""

    def __init__(self, path: Path) -> None:
        self.config: dict[str, Any] = {}
        """What the script has set after its start."""
        self.series: dict[str, SeriesFigures] = {}
        self._follower, self._translator = reader.Follower(path), SeriesTranslator()

    def update(self) -> None:
        """Read what is new and close the file."""
        for event in self._follower.read_all():
            if isinstance(event, Event):
                self._add(event)
        self._follower.pause()

    def _add(self, event: AnyEvent) -> None:
        if isinstance(event, Configured):
            self.config.update(event.values)
        windows = self._translator.windows(event)
        if windows:
            last_step = windows[0].last_step  # the windows of an event end at the same step
            for window in windows:
                _add_window(self.series, window, last_step)


def _add_window(series: dict[str, SeriesFigures], window: SeriesWindow, last_step: int) -> None:
    summary = window.summary
    if summary is not None:
        last, low, high = window.last, summary.minimum, summary.maximum
    else:
        numbers = window.numbers()
        last = numbers[-1] if numbers else math.nan
        low, high = extremes(numbers)
    last_value = last if math.isfinite(last) else None
    entry = series.get(window.name)
    if entry is None:
        series[window.name] = SeriesFigures(
            count=window.count,
            first_step=window.first_step,
            last_step=last_step,
            last=last_value,
            minimum=low,
            maximum=high,
        )
        return
    entry.count += window.count
    entry.widen(low, high)
    entry.last_step, entry.last = last_step, last_value


def extremes(values: array[float]) -> tuple[float | None, float | None]:
    """The lowest and the highest finite value; None if there is none."""
    if not values:
        return None, None
    if not math.isfinite(sum(values)):  # NaN and infinity remain in a sum
        finite = [value for value in values if math.isfinite(value)]
        return min(finite, default=None), max(finite, default=None)
    return min(values), max(values)


def read(path: Path) -> RunFigures:
    """Read a run completely. Raises Invalid if `path` is neither a run directory nor a log, or cannot be read."""
    if not is_opened_log(path):
        config = history.config_of(reader.read_record(path))
        figures = FiguresReader(path)
        figures.update()
        return RunFigures("epochtop", {**config, **figures.config}, figures.series)
    run = history.load(path)
    return RunFigures(run.kind, run.config, _of_history(run.series.values()))


def _of_history(series: Iterable[history.SeriesValues]) -> dict[str, SeriesFigures]:
    """Figures of series whose values are in memory."""
    figures = {}
    for values in series:
        if values.steps:
            low, high = extremes(values.values)
            figures[values.name] = SeriesFigures(
                count=len(values.steps),
                first_step=values.steps[0],
                last_step=values.steps[-1],
                last=_finite(values.values[-1]),
                minimum=low,
                maximum=high,
            )
    return figures


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

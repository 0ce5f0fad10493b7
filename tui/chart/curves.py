"""The visible part of a run: a range of the x axis becomes columns, and columns become lines.

The chart and the export both draw a :class:`Visible`, so a file shows the same as the screen. Never imports a widget.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf, isfinite, isnan, log10, nan
from typing import Literal

from epochtop.engine.protocol.events import Evaluated, Event, Finished, Losses, Started
from epochtop.engine.protocol.schedules import RANGE, range_rate
from epochtop.engine.protocol.spec import RunSpec
from epochtop.tui.chart import axes
from epochtop.tui.chart.axes import Limits
from epochtop.tui.chart.series import Column, LossSeries, PointSeries

Unit = Literal["step", "epoch", "seconds", "rate"]
"""`rate` is the decimal logarithm of the learning rate, for runs with the `range_test` schedule."""
XY = tuple[float, float]

TEST_SPACING = 3
"""Cells per test marker, so that the markers do not hide the line of the training loss."""


@dataclass
class Sweep:
    """The learning rates of a range test, up to `top`. Their logarithm is linear in the step."""

    top: float
    steps: int = 2
    suggested: float | None = None
    """The learning rate that the test suggests; None until it finishes."""

    def rate(self, step: float) -> float:
        """The learning rate of a step."""
        return range_rate(self.top, step, self.steps)

    def level(self, step: float) -> float:
        """The decimal logarithm of the learning rate of a step."""
        return log10(self.top) + log10(RANGE) * (1 - step / max(1, self.steps - 1))

    def step(self, level: float) -> float:
        """The step whose learning rate has this decimal logarithm."""
        return (1 - (level - log10(self.top)) / log10(RANGE)) * max(1, self.steps - 1)


def sweep_of(spec: RunSpec | None) -> Sweep | None:
    """The sweep of a run; None if the run is not a range test."""
    return Sweep(spec.learning_rate) if spec is not None and spec.schedule == "range_test" else None


@dataclass
class Trace:
    """The losses of one run, collected from its events."""

    name: str = ""
    losses: LossSeries = field(default_factory=LossSeries)
    tests: PointSeries = field(default_factory=PointSeries)
    steps_per_epoch: int = 1
    held_out: str = "test"
    """Name of the evaluated rows: `test` or `validation`."""
    sweep: Sweep | None = None

    def feed(self, event: Event) -> bool:
        """Take the data of an event; True if the curves changed."""
        match event:
            case Losses():
                self.losses.extend(event.first_step, event.values, event.seconds)
            case Evaluated():
                self.tests.add(event.step, event.loss, event.metric)
            case Started():
                self.steps_per_epoch, self.held_out = max(1, event.steps_per_epoch), event.eval_split
                if self.sweep is not None:
                    self.sweep.steps = event.steps
            case Finished(suggestion=suggestion) if suggestion is not None and self.sweep is not None:
                self.sweep.suggested = suggestion.learning_rate
                return False
            case _:
                return False
        return True

    def to_step(self, x: float, unit: Unit) -> float:
        """The step at `x` of the x axis; -1 for a learning rate if the run is not a range test."""
        if unit == "rate":
            return self.sweep.step(x) if self.sweep else -1.0
        if unit == "seconds":
            return self.losses.times.step_at(x)
        return x * self.steps_per_epoch if unit == "epoch" else x

    def from_step(self, step: float, unit: Unit) -> float:
        """The position of `step` on the x axis."""
        if unit == "rate":
            return self.sweep.level(step) if self.sweep else -inf
        if unit == "seconds":
            return self.losses.times.seconds_at(step)
        return step / self.steps_per_epoch if unit == "epoch" else step


@dataclass(frozen=True)
class ChartView:
    """The visible part of the x axis, and how curves are drawn in it."""

    low: float
    high: float
    unit: Unit
    width: int
    """Columns."""
    smoothing: float = 0.0
    """Weight of the previous value in the exponential mean; 0 turns smoothing off."""
    log: bool = False

    def cell(self, x: float) -> float:
        """`x` in cells from the left edge."""
        return (x - self.low) / (self.high - self.low) * self.width

    def x(self, cell: float) -> float:
        """The x of a cell."""
        return self.low + (self.high - self.low) * cell / self.width


@dataclass(frozen=True)
class Visible:
    """A run in a view; x in cells, y in losses."""

    band: list[tuple[float, float, float]]
    """x, lowest and highest loss of each column; NaN for a column without finite losses."""
    raw: list[XY]
    """Up to two points per column: its extremes, in rising order if the losses rise."""
    smooth: list[XY]
    """The debiased exponential mean; without smoothing, the means of the columns."""
    tests: list[XY]
    low: float
    """The lowest loss that can be drawn; inf if there is none."""
    high: float
    """The highest loss that can be drawn; -inf if there is none."""


def visible(trace: Trace, view: ChartView) -> Visible:
    """The part of a run that is in `view`."""
    edges = [trace.to_step(view.x(i), view.unit) for i in range(view.width + 1)]
    columns = trace.losses.columns(edges)
    placed = list(_placed(trace, view, columns))
    band = [(x, *_range(column, view.log)) for x, column in placed]
    raw = [point for (x, column), (_, *ends) in zip(placed, band, strict=True) for point in _stroke(x, column, *ends)]
    raw = _to_the_edges(raw, placed, trace, view)
    tests = _tests(trace, view, edges[0], edges[-1])
    values = [*(value for _, *ends in band for value in ends), *(y for _, y in tests)]
    values = [value for value in values if value > 0 or (not view.log and not isnan(value))]
    smooth = list(_smooth(placed, view.smoothing))
    return Visible(band, raw, smooth, tests, min(values, default=inf), max(values, default=-inf))


def y_limits(runs: Iterable[Visible], rows: int, log: bool) -> Limits:
    """A range of the y axis for all of `runs`, with ticks for a plot of `rows` rows."""
    runs = list(runs)
    low = min((run.low for run in runs if isfinite(run.low)), default=0.0)
    high = max((run.high for run in runs if isfinite(run.high)), default=0.0)
    if not log:
        return axes.linear_limits(low, high, rows)
    return axes.log_limits(low, high, rows) if 0 < low <= high else axes.log_limits(0.01, 1.0, rows)


def _placed(trace: Trace, view: ChartView, columns: Iterable[Column | None]) -> Iterator[tuple[float, Column]]:
    """Each column with its x: its cell if it has several buckets, else the position of its step."""
    for cell, column in enumerate(columns):
        if column is None:
            continue
        if column.stop - column.start > trace.losses.width:
            yield float(cell), column
        else:
            x = view.cell(trace.from_step(column.start, view.unit))
            yield min(max(x, cell), cell + 0.99), column


def _range(column: Column, log: bool) -> tuple[float, float]:
    """The lowest and highest loss of a column that can be drawn; positive on a logarithmic axis if any is."""
    low, high = column.minimum, column.maximum
    if log and low <= 0 < high:
        low = column.mean if column.mean > 0 else high
    return low, high


def _stroke(x: float, column: Column, low: float, high: float) -> list[XY]:
    """Up to two points; half a cell apart if the cell has several buckets."""
    if not low < high:
        return [(x, low)]
    right = x + 0.5 if x == int(x) else x
    rises = column.last - column.first > (high - low) / 2  # noise counts as falling, which fills the band evenly
    return [(x, low), (right, high)] if rises else [(x, high), (right, low)]


def _to_the_edges(raw: list[XY], placed: list[tuple[float, Column]], trace: Trace, view: ChartView) -> list[XY]:
    """Where steps are cells apart, extend the line towards its neighbors outside the view."""
    if not raw:
        return raw
    before, after = (
        trace.losses.bucket(step) if step >= 0 else None for step in (placed[0][1].start - 1, placed[-1][1].stop)
    )
    edges: tuple[list[XY], list[XY]] = ([], [])
    for end, bucket, inside, edge in ((0, before, raw[0], 0.0), (1, after, raw[-1], float(view.width))):
        if bucket is not None and bucket.finite:
            x = view.cell(trace.from_step(bucket.start, view.unit))
            if abs(x - inside[0]) > 1:
                edges[end].append((edge, inside[1] + (bucket.mean - inside[1]) * (edge - inside[0]) / (x - inside[0])))
    return [*edges[0], *raw, *edges[1]]


def _smooth(placed: Iterable[tuple[float, Column]], factor: float) -> Iterator[XY]:
    """Exponential mean of the columns' means, divided by the sum of weights so that it does not start at 0."""
    total = weight = 0.0
    for x, column in placed:
        if not column.finite:
            total = weight = 0.0
            yield x, nan
            continue
        total = factor * total + (1 - factor) * column.mean
        weight = factor * weight + (1 - factor)
        yield x, total / weight


def _tests(trace: Trace, view: ChartView, start: float, stop: float) -> list[XY]:
    """The last point in every few cells. Later points do not move it."""
    last_points: dict[int, XY] = {}
    for point in trace.tests.between(start, stop):
        if point.loss is not None and (point.loss > 0 or not view.log):
            x = min(view.cell(trace.from_step(point.step, view.unit)), view.width - 0.01)
            last_points[int(x // TEST_SPACING)] = (x, point.loss)
    return list(last_points.values())

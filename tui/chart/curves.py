"""The visible part of a run: a range of the x axis becomes columns, and columns become lines.

The chart and the export both draw a :class:`Visible`, so a file shows the same as the screen. Never imports a widget.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf, isfinite, isnan, log10, nan
from typing import Literal

from epochtop.tui.chart import axes
from epochtop.tui.chart.axes import Limits, Tick
from epochtop.tui.chart.series import Bucket, Series
from epochtop.tui.chart.trace import Trace, Unit

XY = tuple[float, float]
BandKind = Literal["deviation", "range"]
"""The band of a group: mean ± standard deviation, or lowest to highest."""
LOG_START = 1e-4
"""Where a logarithmic axis of epochs or seconds begins, as a fraction of its end."""
SMALLEST = 1e-9
"""A fraction of the start of a logarithmic axis that is far outside of it."""
OUTLIERS = 0.01
"""Fraction of the lowest, and of the highest values that can be hidden."""

MARKER_SPACING = 3
"""Cells per marker of a series drawn with the main one, so that the markers do not hide its line."""
ROUNDING = 0.01
"""Cells by which a computed edge may be off."""


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
    log_x: bool = False
    """Whether the x axis is logarithmic where it can be: not with times of day and learning rates."""
    hide_outliers: bool = False
    """Whether the y axis leaves out the lowest and the highest 1 % of the values."""
    band: BandKind = "deviation"

    @property
    def has_log_x(self) -> bool:
        """Whether the x axis is logarithmic."""
        return self.log_x and self.unit not in ("clock", "rate") and self.high > 0

    @property
    def start(self) -> float:
        """The x at the left edge. A logarithmic axis begins at step 1, or at a small fraction of its end."""
        if not self.has_log_x:
            return self.low
        return max(self.low, min(1.0, self.high / 10) if self.unit == "step" else self.high * LOG_START)

    def cell(self, x: float) -> float:
        """`x` in cells from the left edge."""
        if self.has_log_x:
            start = self.start
            return log10(max(x, start * SMALLEST) / start) / log10(self.high / start) * self.width
        return (x - self.low) / (self.high - self.low) * self.width

    def x(self, cell: float) -> float:
        """The x of a cell."""
        if self.has_log_x:
            start = self.start
            return float(start * (self.high / start) ** (cell / self.width))
        return self.low + (self.high - self.low) * cell / self.width

    def ticks(self, columns: int) -> list[Tick]:
        """Ticks of the x axis, if it is `columns` wide."""
        if self.has_log_x:
            return [
                (10**level, label) for level, label in axes.power_ticks(log10(self.start), log10(self.high), columns)
            ]
        return axes.x_ticks(self.low, self.high, columns, self.unit)


@dataclass(frozen=True)
class Visible:
    """The family of a run, or the mean of a group, in a view; x in cells, y in values of the series."""

    band: list[tuple[float, float, float]]
    """x, lowest and highest value of the main series in each column; NaN for a column without finite values. For a group,
    the ends of its band."""
    raw: list[XY]
    """Up to two points per column: its extremes, in rising order if the values rise."""
    smooth: list[XY]
    """The debiased exponential mean; without smoothing, the means of the columns."""
    others: list[list[XY]]
    """Points of the other series of the family, in its order."""
    low: float
    """The lowest value that can be drawn; inf if there is none."""
    high: float
    """The highest value that can be drawn; -inf if there is none."""
    is_group: bool = False


def visible(trace: Trace, view: ChartView) -> Visible:
    """The part of a run that is in `view`."""
    edges = [trace.to_step(view.x(i), view.unit) for i in range(view.width + 1)]
    main, *others = [curve.series for curve in trace.curves] or [trace.main]
    columns = list(placed(trace, main, view, main.columns(edges)))
    band = [(x, *_range(column, view.log)) for x, column in columns]
    raw = [point for (x, column), (_, *ends) in zip(columns, band, strict=True) for point in _stroke(x, column, *ends)]
    raw = _to_the_edges(raw, columns, trace, main, view)
    points = [_markers(trace, series, view, edges[0], edges[-1]) for series in others]
    values = [*(value for _, *ends in band for value in ends), *(y for series in points for _, y in series)]
    values = [value for value in values if value > 0 or (not view.log and not isnan(value))]
    means = list(smooth(columns, view.smoothing))
    low, high = min(values, default=inf), max(values, default=-inf)
    if view.hide_outliers and values:
        low, high = _common_range(main, points, edges[0], edges[-1], low, high)
    return Visible(band, raw, means, points, low, high)


def _common_range(
    main: Series, others: list[list[XY]], start: float, stop: float, low: float, high: float
) -> tuple[float, float]:
    """The range of the values without outliers, within `low` … `high`."""
    lows, highs = main.extremes(start, stop)
    points = [y for series in others for _, y in series]
    bottom, top = percentile([*lows, *points], OUTLIERS), percentile([*highs, *points], 1 - OUTLIERS)
    return max(low, min(bottom, high)), min(high, max(top, low))


def percentile(values: list[float], fraction: float) -> float:
    """The value below which `fraction` of the finite `values` are; NaN without any."""
    ordered = sorted(value for value in values if isfinite(value))
    return ordered[round(fraction * (len(ordered) - 1))] if ordered else nan


def y_limits(runs: Iterable[Visible], rows: int, log: bool) -> Limits:
    """A range of the y axis for all of `runs`, with ticks for a plot of `rows` rows."""
    runs = list(runs)
    low = min((run.low for run in runs if isfinite(run.low)), default=0.0)
    high = max((run.high for run in runs if isfinite(run.high)), default=0.0)
    if not log:
        return axes.linear_limits(low, high, rows)
    return axes.log_limits(low, high, rows) if 0 < low <= high else axes.log_limits(0.01, 1.0, rows)


def placed(
    trace: Trace, main: Series, view: ChartView, columns: Iterable[Bucket | None]
) -> Iterator[tuple[float, Bucket]]:
    """Each column with its x: its cell if it has several buckets, else the position of its step."""
    for cell, column in enumerate(columns):
        if column is None:
            continue
        if column.stop - column.start > main.width:
            yield float(cell), column
        else:
            x = view.cell(trace.from_step(column.start, view.unit))
            yield min(max(x, cell), cell + 0.99), column


def _range(column: Bucket, log: bool) -> tuple[float, float]:
    """The lowest and highest loss of a column that can be drawn; positive on a logarithmic axis if any is."""
    low, high = column.minimum, column.maximum
    if log and low <= 0 < high:
        low = column.mean if column.mean > 0 else high
    return low, high


def _stroke(x: float, column: Bucket, low: float, high: float) -> list[XY]:
    """Up to two points; half a cell apart if the cell has several buckets."""
    if not low < high:
        return [(x, low)]
    right = x + 0.5 if x == int(x) else x
    rises = column.last - column.first > (high - low) / 2  # noise counts as falling, which fills the band evenly
    return [(x, low), (right, high)] if rises else [(x, high), (right, low)]


def _to_the_edges(
    raw: list[XY], placed: list[tuple[float, Bucket]], trace: Trace, main: Series, view: ChartView
) -> list[XY]:
    """Where steps are cells apart, extend the line towards its neighbors outside the view."""
    if not raw:
        return raw
    before, after = main.near(placed[0][1].start - 1), main.after(placed[-1][1].stop)
    edges: tuple[list[XY], list[XY]] = ([], [])
    for end, bucket, inside, edge in ((0, before, raw[0], 0.0), (1, after, raw[-1], float(view.width))):
        if bucket is not None and bucket.finite:
            x = view.cell(trace.from_step(bucket.start, view.unit))
            if abs(x - inside[0]) > 1:
                edges[end].append((edge, inside[1] + (bucket.mean - inside[1]) * (edge - inside[0]) / (x - inside[0])))
    return [*edges[0], *raw, *edges[1]]


def smooth(placed: Iterable[tuple[float, Bucket]], factor: float) -> Iterator[XY]:
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


def _markers(trace: Trace, series: Series, view: ChartView, start: float, stop: float) -> list[XY]:
    """The last point in every few cells. Later points do not move it. The cost depends on the cells, not on the points."""
    markers: list[XY] = []
    slot, step = view.width, stop + 1e-9
    while (point := series.last_point(step)) is not None and point.step >= start:
        x = min(view.cell(trace.from_step(point.step, view.unit)), view.width - 0.01)
        step = point.step - 1
        if int(x // MARKER_SPACING) < slot and (point.value > 0 or not view.log):
            slot = int(x // MARKER_SPACING)
            markers.append((x, point.value))
            left = view.x(MARKER_SPACING * slot + ROUNDING)
            step = min(step, max(trace.to_step(left, view.unit), start - 1))
    return markers[::-1]

"""What is drawn of a run, or of a group of runs: then the mean of its runs, and a band.

Runs of a group may log at different steps, and at different times. Each run has a value in every column between its first
and its last one: the mean of its values there, or a value on the line between its neighbors. Never imports a widget.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import floor, inf, isnan, nan
from typing import NamedTuple

from epochtop.engine.runs.families import labels
from epochtop.tui.chart.curves import (
    MARKER_SPACING,
    OUTLIERS,
    XY,
    BandKind,
    ChartView,
    Visible,
    percentile,
    placed,
    smooth,
    visible,
)
from epochtop.tui.chart.groups.band import Band, band
from epochtop.tui.chart.series import Bucket, Series
from epochtop.tui.chart.trace import Trace
from epochtop.tui.state.telemetry import mean_of_known


def shown(trace: Trace, view: ChartView) -> Visible:
    """The part of a run in `view`; of a group, the mean of its runs."""
    return _mean(trace, view) if trace.peers else visible(trace, view)


class GroupCurve(NamedTuple):
    """A series of the family, in every run that has it."""

    label: str
    series: list[tuple[Trace, Series]]


def group_curves(group: Trace) -> list[GroupCurve]:
    """The series of the family that any run has, the main one first."""
    accepts = group.accepts or (lambda name: True)
    names = [name for run in group.runs for name in run.run.series if accepts(name)]
    return [
        GroupCurve(label, [(run, run.run.series[name]) for run in group.runs if name in run.run.series])
        for name, label in labels(dict.fromkeys(names), group.family).items()
    ]


# --- values ------------------------------------------------------------------------------------------------


def newest_values(trace: Trace) -> list[tuple[str, float | None]]:
    """Label and last value of each curve; of a group, the mean of the last values."""
    if not trace.peers:
        return [(label, series.newest if place else series.last) for place, (label, series) in enumerate(trace.curves)]
    return [
        (label, mean_of_known([series.newest if place else series.last for _, series in runs]))
        for place, (label, runs) in enumerate(group_curves(trace))
    ]


def values_at(trace: Trace, step: float) -> list[tuple[str, float | None]]:
    """Label and value of each curve at a step, or the last one before it; of a group, the mean."""
    return [(label, mean_of_known([_at(series, step) for _, series in runs])) for label, runs in group_curves(trace)]


def spread_at(curve: GroupCurve, step: float, kind: BandKind) -> Band:
    """The band of a curve at a step; empty if no run has a value there."""
    values = [_at(series, step) for _, series in curve.series]
    return band([([0], [value]) for value in values if value is not None], kind)


def _at(series: Series, step: float) -> float | None:
    column = series.near(step)
    return column.last if column is not None and column.finite else None


# --- curves ------------------------------------------------------------------------------------------------


def _mean(group: Trace, view: ChartView) -> Visible:
    curves = group_curves(group)
    if not curves:
        return Visible([], [], [], [], inf, -inf, is_group=True)
    main, *others = [_Columns(curve, view) for curve in curves]
    points = [other.markers(view.log) for other in others]
    values = [*main.band.lows, *main.band.highs, *main.band.means, *(y for series in points for _, y in series)]
    values = [value for value in values if value > 0 or not view.log]
    low, high = min(values, default=inf), max(values, default=-inf)
    if view.hide_outliers and values:
        low, high = percentile(values, OUTLIERS), percentile(values, 1 - OUTLIERS)
    columns = main.placed()
    return Visible(
        band=list(zip(main.xs(), main.band.lows, main.band.highs, strict=True)),
        raw=list(zip(main.xs(), main.band.means, strict=True)),
        smooth=list(smooth(columns, view.smoothing)),
        others=points,
        low=low,
        high=high,
        is_group=True,
    )


class _Columns:
    """The band of a curve in the columns of a view in which at least one run has a value."""

    def __init__(self, curve: GroupCurve, view: ChartView) -> None:
        runs = [_points(trace, series, view) for trace, series in curve.series]
        self._x = {int(x): x for points in reversed(runs) for x, _ in points if 0 <= x < view.width}
        cells = sorted(self._x)
        lines = [(cells, _on_the_line(points, cells)) for points in runs]
        self.band = band(lines, view.band)

    def xs(self) -> list[float]:
        return [self._x[cell] for cell in self.band.steps]

    def placed(self) -> list[tuple[float, Bucket]]:
        """The means as columns of single values."""
        return [(x, Bucket(0, 1, 1, *[mean] * 5)) for x, mean in zip(self.xs(), self.band.means, strict=True)]

    def markers(self, is_log: bool) -> list[XY]:
        """The last mean in every few cells."""
        means = zip(self.xs(), self.band.means, strict=True)
        return list({int(x // MARKER_SPACING): (x, mean) for x, mean in means if mean > 0 or not is_log}.values())


def _points(trace: Trace, series: Series, view: ChartView) -> list[XY]:
    """The means of a run's columns, and its neighbors outside the view."""
    edges = [trace.to_step(view.x(place), view.unit) for place in range(view.width + 1)]
    columns = list(placed(trace, series, view, series.columns(edges)))
    points = [(x, column.mean) for x, column in columns if column.finite]
    first, last = (columns[0][1].start, columns[-1][1].stop) if columns else (edges[0], edges[-1])
    for bucket, place in ((series.after(last), len(points)), (series.near(first - 1), 0)):
        if bucket is not None and bucket.finite:
            points.insert(place, (view.cell(trace.from_step(bucket.start, view.unit)), bucket.mean))
    return points


def _on_the_line(points: Sequence[XY], cells: Sequence[int]) -> list[float]:
    """The value in each cell, which is between two points or at one; NaN outside of them."""
    values = dict.fromkeys(cells, nan)
    values |= {floor(x): y for x, y in points if floor(x) in values}
    for (left, low), (right, high) in pairwise(points):
        if right - left > 1:
            for cell in cells[bisect_right(cells, left) : bisect_left(cells, right)]:
                if isnan(values[cell]):
                    values[cell] = low + (high - low) * (cell - left) / (right - left)
    return list(values.values())


def filled(points: Visible) -> list[tuple[float, float, float]]:
    """The band of a group in every cell between its first and its last one: x, low, high."""
    result = list(points.band[:1])
    for (left, low, high), (right, next_low, next_high) in pairwise(points.band):
        for cell in range(int(left) + 1, int(right)):
            share = (cell - left) / (right - left)
            result.append((float(cell), low + (next_low - low) * share, high + (next_high - high) * share))
        result.append((right, next_low, next_high))
    return result

"""A frame of the chart as rows of cells: axes, curves, marks, legend, and the line of settings below.

Draws a :class:`ChartContent` and never imports a widget. :class:`Ranges` is the only state between frames: ranges that
stay until they no longer suit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from epochtop.engine.protocol.quantities import UNKNOWN, format_fixed_width
from epochtop.tui.cells.canvas import Canvas, Row
from epochtop.tui.cells.rows import cut
from epochtop.tui.chart import axes
from epochtop.tui.chart.axes import Limits
from epochtop.tui.chart.curves import ChartView, Visible, y_limits
from epochtop.tui.chart.groups.band import BAND_TEXTS
from epochtop.tui.chart.groups.mean import filled, group_curves, shown, spread_at
from epochtop.tui.chart.marks import legend
from epochtop.tui.chart.marks.notes import put_notes
from epochtop.tui.chart.marks.signs import (
    AXIS,
    CURSOR,
    FILL,
    MARKERS,
    OVERLAY_FILLS,
    OVERLAY_MARKERS,
    OVERLAYS,
    RAW,
    TEST,
    TRAIN,
)
from epochtop.tui.chart.plotting import BLOCKS, BRAILLE, PlottedCurve, draw, row_of
from epochtop.tui.chart.series import Bucket
from epochtop.tui.chart.trace import Trace, counter_name, is_counter

FINE_CELLS = 4500
"""Cells from which on a plot uses blocks: braille takes over 25 ms there, blocks half of that."""
LEAST_ROWS = 4
"""Rows of a plot that a legend above it leaves at least."""


NO_VALUES = {False: "no values yet", True: "This run has no values."}
"""What the chart of a run without values shows while the run is live, and after its end."""


@dataclass
class Ranges:
    """Ranges of the previous frame, used again while they suit: a range that moves repaints everything."""

    limits: Limits | None = None
    gutter: int = 0
    legend: legend.Place = "top right"


@dataclass(frozen=True)
class ChartContent:
    """Everything that a frame shows."""

    width: int
    height: int
    trace: Trace
    overlays: tuple[Trace, ...]
    view: ChartView
    """The visible part; the width of the plot follows from the frame."""
    cursor: int | None
    range_text: str
    marker: str
    empty_text: str = ""
    legend: bool = True

    def marker_for(self, cells: int) -> str:
        """The marker of lines in a plot of `cells` cells."""
        if self.marker != "auto":
            return self.marker
        return BRAILLE if cells <= FINE_CELLS else BLOCKS


def compose_plot(content: ChartContent, ranges: Ranges, axis: bool) -> Canvas:
    """The plot of a small chart, with the x axis in two rows below it if `axis`."""
    canvas = Canvas(content.width, content.height)
    _chart(canvas, content, ranges, content.height - (2 if axis else 0))
    return canvas


def compose(content: ChartContent, ranges: Ranges) -> list[Row]:
    """The rows of a frame."""
    canvas = Canvas(content.width, content.height)
    rows = content.height - (3 if content.height >= 8 else 2)
    if content.empty_text:
        put_centered(canvas, content.empty_text)
    elif content.width < 20 or rows < 3:
        put_centered(canvas, "too small")
    else:
        _chart(canvas, content, ranges, rows)
    return canvas.rows()


def put_centered(canvas: Canvas, text: str) -> None:
    """Write lines into the middle; they begin at the same column."""
    lines = text.splitlines()
    top = max(0, (canvas.height - len(lines)) // 2)
    left = max(0, (canvas.width - max(map(len, lines), default=0)) // 2)
    for row, line in enumerate(lines, top):
        canvas.put(left, row, line, AXIS)


def _chart(canvas: Canvas, content: ChartContent, ranges: Ranges, rows: int) -> None:
    marker = content.marker_for((content.width - max(7, ranges.gutter)) * rows)
    lines = _legend_lines(content, rows, marker)
    above = _legend_above(content, ranges, lines, rows)
    top = len(above)
    scene = _scene(content, content.width - ranges.gutter, rows - top, ranges)
    gutter = max(ranges.gutter, 7, *(len(label) + 2 for _, label in axes.y_ticks(scene.limits, rows - top)))
    if gutter != ranges.gutter:
        ranges.gutter = gutter
        scene = _scene(content, content.width - gutter, rows - top, ranges)
    plot = draw(_curves(scene, marker), scene.view.width, rows - top, scene.limits)
    _fill(plot, scene)
    put_notes(plot, content.trace, scene.view, scene.limits, content.cursor)
    if lines and ranges.legend != "above":
        ranges.legend = legend.place_of(plot, lines, ranges.legend)
        if ranges.legend == "above":
            _chart(canvas, content, ranges, rows)
            return
        legend.put(plot, lines, ranges.legend)
    legend.put_above(canvas, above, gutter)
    for row in range(plot.height):
        canvas.cells[top + row][gutter:] = plot.cells[row]
        canvas.roles[top + row][gutter:] = plot.roles[row]
    _y_axis(canvas, scene.limits, gutter, top, rows)
    _x_axis(canvas, scene.view, gutter, rows)
    if content.height > rows + 2:
        line = settings(content) if content.cursor is None else readout(content)
        canvas.put(1, rows + 2, line, AXIS if content.cursor is None else CURSOR)


def _legend_lines(content: ChartContent, rows: int, marker: str) -> list[legend.LegendEntry]:
    """The entries of the legend; none in a plot without room for any."""
    if not content.legend or rows <= LEAST_ROWS:
        return []
    return legend.entries(content.trace, content.overlays, content.view.band, marker == BLOCKS)


def _legend_above(
    content: ChartContent, ranges: Ranges, lines: Sequence[legend.LegendEntry], rows: int
) -> list[list[legend.LegendEntry]]:
    """The rows of the legend above the plot; none while it is in a corner."""
    if not lines or ranges.legend != "above":
        return []
    return legend.side_by_side(lines, content.width - max(7, ranges.gutter), min(rows // 3, rows - LEAST_ROWS))


@dataclass(frozen=True)
class _Scene:
    """The runs in one view, and the range of the y axis for all of them."""

    view: ChartView
    limits: Limits
    run: Visible
    overlays: tuple[Visible, ...]


def _scene(content: ChartContent, width: int, rows: int, ranges: Ranges) -> _Scene:
    view = replace(content.view, width=width)
    run = shown(content.trace, view)
    overlays = tuple(shown(trace, view) for trace in content.overlays)
    limits = y_limits((run, *overlays), rows, view.log)
    if ranges.limits is None or not ranges.limits.holds(limits):
        ranges.limits = limits
    return _Scene(view, ranges.limits, run, overlays)


def _curves(scene: _Scene, marker: str) -> list[PlottedCurve]:
    run, smoothed = scene.run, scene.view.smoothing > 0
    curves = [*_edges(run, RAW, marker), PlottedCurve(run.raw, RAW if smoothed else TRAIN, marker)]
    for index, overlay in enumerate(scene.overlays):
        style = index % len(OVERLAY_MARKERS)
        curves += _edges(overlay, OVERLAYS[style], marker)
        curves.append(PlottedCurve(overlay.smooth, OVERLAYS[style], OVERLAY_MARKERS[style], line=False))
    if smoothed:
        curves.append(PlottedCurve(run.smooth, TRAIN, marker))
    for place, points in enumerate(run.others):
        curves.append(PlottedCurve(points, TEST, MARKERS[place % len(MARKERS)], line=False))
    return curves


def _edges(points: Visible, role: int, marker: str) -> list[PlottedCurve]:
    """The ends of the band of a group: a dot per column."""
    band = filled(points) if points.is_group else []
    ends = ([(x, high) for x, _, high in band], [(x, low) for x, low, _ in band])
    return [PlottedCurve(end, role, marker, line=False) for end in ends if end]


def _fill(plot: Canvas, scene: _Scene) -> None:
    """The bands of groups: the cells between their ends, without those of a curve."""
    bands = [(scene.run, FILL, RAW)]
    for index, overlay in enumerate(scene.overlays):
        style = index % len(OVERLAY_FILLS)
        bands.append((overlay, OVERLAY_FILLS[style], OVERLAYS[style]))
    for points, char, role in bands:
        for x, low, high in filled(points) if points.is_group else ():
            top, bottom = row_of(high, scene.limits, plot.height), row_of(low, scene.limits, plot.height)
            if top is not None:
                for row in range(top + 1, plot.height if bottom is None else bottom):
                    plot.put(min(int(x), plot.width - 1), row, char, role, over=False)


# --- around the plot -----------------------------------------------------------------------------------------------


def _y_axis(canvas: Canvas, limits: Limits, gutter: int, top: int, stop: int) -> None:
    """The y axis of a plot in the rows `top` … `stop`−1."""
    for row in range(top, stop):
        canvas.put(gutter - 1, row, "│", AXIS)
    for level, label in axes.y_ticks(limits, stop - top):
        tick = row_of(10**level if limits.log else level, limits, stop - top)
        if tick is not None:
            canvas.put(0, top + tick, f"{label.rjust(gutter - 2)} ┤", AXIS)


def _x_axis(canvas: Canvas, view: ChartView, gutter: int, row: int) -> None:
    placed = []
    canvas.put(gutter - 1, row, "└" + "─" * view.width, AXIS)
    for x, label in view.ticks(view.width):
        column = min(view.width - 1, int(view.cell(x) + 1e-6))
        placed.append((gutter + column, label))
        canvas.put(gutter + column, row, "┬", AXIS)
    name = "time" if view.unit == "seconds" and view.high > 60 else "s" if view.unit == "seconds" else view.unit
    name = "time" if view.unit == "clock" else name
    if is_counter(view.unit):
        name = cut(counter_name(view.unit).rpartition("/")[2], gutter - 2)
    canvas.put(0, row + 1, axes.place_labels(placed, canvas.width), AXIS)
    room = gutter - (3 if view.unit == "rate" else 2)  # the label of the first power of ten starts at the left edge
    canvas.put(0, row + 1, name.rjust(room), AXIS, over=False)


def settings(content: ChartContent) -> str:
    """The settings of the chart: `every step · log off · smooth 0.6 · whole run`."""
    width, view = content.trace.main.width, content.view
    parts = [
        "every step" if width == 1 else f"buckets of {width:,} steps",
        f"log {'on' if view.log else 'off'}",
        f"smooth {view.smoothing:g}" if view.smoothing else "smooth off",
        *([f"x {counter_name(view.unit)}"] if is_counter(view.unit) else []),
        *(["log x"] if view.has_log_x else []),
        *(["no outliers"] if view.hide_outliers else []),
        *([f"band {BAND_TEXTS[view.band]}"] if any(run.peers for run in (content.trace, *content.overlays)) else []),
        content.range_text,
    ]
    return " · ".join(parts)


def readout(content: ChartContent) -> str:
    """The values at the cursor: that of a single step, or the range of several; of sparse series, the newest before it. Of a
    group, the mean and the ends of the band."""
    trace, step = content.trace, content.cursor or 0
    main = trace.main
    bucket = main.bucket(step)
    if bucket is None and main.near(step) is None and not trace.peers:
        return f"step {step:,}"
    several = bucket is not None and bucket.stop - bucket.start > 1
    parts = [f"steps {bucket.start:,}–{bucket.stop - 1:,}" if bucket and several else f"step {step:,}"]
    parts += _group_values(content, step) if trace.peers else _run_values(trace, step)
    if trace.sweep is not None:
        parts.append(f"learning rate {trace.sweep.rate(step):.2g}")
    if trace.epoch_known:
        parts.append(f"epoch {trace.from_step(step, 'epoch'):,.1f}")
    unit = content.view.unit
    if is_counter(unit):
        parts.append(f"{counter_name(unit)} {format_fixed_width(trace.from_step(step, unit)).strip()}")
    parts.append(f"{trace.seconds.at(step):,.1f} s")
    return " · ".join(parts)


def _run_values(trace: Trace, step: int) -> list[str]:
    parts = []
    for place, (label, series) in enumerate(trace.curves):
        text = _value(series.bucket(step) if place == 0 else None, series.near(step), series.first_bad_step is not None)
        if text:
            parts.append(f"{label} {text}")
    return parts


def _group_values(content: ChartContent, step: int) -> list[str]:
    """`train 0.1234 (0.1200…0.1268, n=8)`."""
    parts = []
    for curve in group_curves(content.trace):
        values = spread_at(curve, step, content.view.band)
        if values.steps:
            mean, low, high = (
                format_fixed_width(each[0]).strip() for each in (values.means, values.lows, values.highs)
            )
            parts.append(f"{curve.label} {mean} ({low}…{high}, n={values.counts[0]})")
    return parts


def _value(here: Bucket | None, before: Bucket | None, bad: bool) -> str:
    """The value of a bucket: its own, or the last one before it. Empty if there is none."""
    if here is None:
        return format_fixed_width(before.last).strip() if before is not None and before.finite else ""
    if not here.finite:
        return "NaN" if bad else UNKNOWN
    if here.finite == 1:
        return format_fixed_width(here.last).strip()
    return f"{format_fixed_width(here.minimum).strip()}…{format_fixed_width(here.maximum).strip()}"

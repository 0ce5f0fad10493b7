"""A frame of the chart as rows of cells: axes, curves, marks, legend, and the line of settings below.

Draws a :class:`ChartContent` and never imports a widget. :class:`Ranges` is the only state between frames: ranges that
stay until they no longer suit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log10

from rich.cells import cell_len

from epochtop.engine.protocol.quantities import UNKNOWN, format_fixed_width
from epochtop.tui.cells.canvas import BLANK, Canvas, Row
from epochtop.tui.cells.rows import ALARM, FAINT, LEGEND, QUIET, SERIES, TEXT, cut, role_of
from epochtop.tui.chart import axes
from epochtop.tui.chart.axes import Limits
from epochtop.tui.chart.curves import ChartView, Visible, visible, y_limits
from epochtop.tui.chart.plotting import BLOCKS, BRAILLE, Curve, draw, row_of
from epochtop.tui.chart.run_series import Sweep
from epochtop.tui.chart.series import Column
from epochtop.tui.chart.trace import Trace

TRAIN, TEST, *OVERLAYS = (role_of(place) for place in range(SERIES))
OVERLAY_MARKERS = ("•", "×", "+", "◦")
"""Markers of the overlays; they distinguish curves without colors."""
AXIS, CURSOR, RAW = QUIET, TEXT, FAINT
MARKERS = ("▪", "▫", "◆", "◇")
"""Markers of the series beside the main one."""
FINE_CELLS = 4500
"""Cells from which on a plot uses blocks: braille takes over 25 ms there, blocks half of that."""
NAME_CELLS = 18
"""Width of a name in the legend."""


NO_VALUES = {False: "no values yet", True: "This run has no values."}
"""What the chart of a run without values shows while the run is live, and after its end."""


@dataclass
class Ranges:
    """Ranges of the previous frame, used again while they suit: a range that moves repaints everything."""

    limits: Limits | None = None
    gutter: int = 0
    legend_at_left: bool = False


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
        _center(canvas, content.empty_text)
    elif content.width < 20 or rows < 3:
        _center(canvas, "too small")
    else:
        _chart(canvas, content, ranges, rows)
    return canvas.rows()


def _center(canvas: Canvas, text: str) -> None:
    lines = text.splitlines()
    top = max(0, (canvas.height - len(lines)) // 2)
    for row, line in enumerate(lines, top):
        canvas.put(max(0, (canvas.width - len(line)) // 2), row, line, AXIS)


def _chart(canvas: Canvas, content: ChartContent, ranges: Ranges, rows: int) -> None:
    scene = _scene(content, content.width - ranges.gutter, rows, ranges)
    gutter = max(ranges.gutter, 7, *(len(label) + 2 for _, label in axes.y_ticks(scene.limits, rows)))
    if gutter != ranges.gutter:
        ranges.gutter = gutter
        scene = _scene(content, content.width - gutter, rows, ranges)
    plot = draw(_curves(content, scene, rows), scene.view.width, rows, scene.limits)
    _marks(plot, content, scene, ranges)
    for row in range(rows):
        canvas.cells[row][gutter:] = plot.cells[row]
        canvas.roles[row][gutter:] = plot.roles[row]
    _y_axis(canvas, scene.limits, gutter, rows)
    _x_axis(canvas, scene.view, gutter, rows)
    if content.height > rows + 2:
        line = settings(content) if content.cursor is None else readout(content.trace, content.cursor)
        canvas.put(1, rows + 2, line, AXIS if content.cursor is None else CURSOR)


@dataclass(frozen=True)
class _Scene:
    """The runs in one view, and the range of the y axis for all of them."""

    view: ChartView
    limits: Limits
    run: Visible
    overlays: tuple[Visible, ...]


def _scene(content: ChartContent, width: int, rows: int, ranges: Ranges) -> _Scene:
    view = replace(content.view, width=width)
    run = visible(content.trace, view)
    overlays = tuple(visible(trace, view) for trace in content.overlays)
    limits = y_limits((run, *overlays), rows, view.log)
    if ranges.limits is None or not ranges.limits.holds(limits):
        ranges.limits = limits
    return _Scene(view, ranges.limits, run, overlays)


def _curves(content: ChartContent, scene: _Scene, rows: int) -> list[Curve]:
    marker = content.marker_for(scene.view.width * rows)
    run, smoothed = scene.run, scene.view.smoothing > 0
    curves = [Curve(run.raw, RAW if smoothed else TRAIN, marker)]
    for index, overlay in enumerate(scene.overlays):
        style = index % len(OVERLAY_MARKERS)
        curves.append(Curve(overlay.smooth, OVERLAYS[style], OVERLAY_MARKERS[style], line=False))
    if smoothed:
        curves.append(Curve(run.smooth, TRAIN, marker))
    for place, points in enumerate(run.others):
        curves.append(Curve(points, TEST, MARKERS[place % len(MARKERS)], line=False))
    return curves


# --- marks inside the plot -----------------------------------------------------------------------------------------


def _marks(canvas: Canvas, content: ChartContent, scene: _Scene, ranges: Ranges) -> None:
    cell = _cell_of(content.trace, scene.view)
    if content.cursor is not None and (column := cell(content.cursor)) is not None:
        for row in range(canvas.height):
            canvas.put(column, row, "│", CURSOR, over=False)
    _seam_marks(canvas, content.trace, cell)
    _bad_mark(canvas, content.trace, scene, cell)
    _suggestion_mark(canvas, content.trace.sweep, cell)
    if content.legend:
        _legend(canvas, content, ranges)


def _cell_of(trace: Trace, view: ChartView) -> Callable[[float], int | None]:
    def cell(step: float) -> int | None:
        x = view.cell(trace.from_step(step, view.unit))
        return min(view.width - 1, int(x)) if 0 <= x <= view.width else None

    return cell


def _bad_mark(canvas: Canvas, trace: Trace, scene: _Scene, cell: Callable[[float], int | None]) -> None:
    main = trace.main
    if main.first_bad_step is None or (column := cell(main.first_bad_step)) is None:
        return
    before = main.near(main.first_bad_step - 1) if main.first_bad_step else None
    row = row_of(before.last, scene.limits, canvas.height) if before and before.finite else None
    row = canvas.height // 2 if row is None else row
    note = f"✗ {main.bad_kind} at step {main.first_bad_step:,}"
    for line in range(canvas.height):
        canvas.put(column, line, "╎", ALARM, over=False)
    start = column if column + len(note) <= canvas.width else column - len(note) + 1
    text = note if start == column else f"{note[2:]} ✗"
    canvas.put(max(0, start), min(canvas.height - 1, max(row, 3)), text, ALARM)


def _seam_marks(canvas: Canvas, trace: Trace, cell: Callable[[float], int | None]) -> None:
    """A dotted line with an arrow at each step from which on values came again."""
    for step in trace.main.seams:
        column = cell(step)
        if column is not None:
            for row in range(canvas.height):
                canvas.put(column, row, "↶" if row == canvas.height - 1 else "┊", AXIS, over=False)


def _suggestion_mark(canvas: Canvas, sweep: Sweep | None, cell: Callable[[float], int | None]) -> None:
    """A line from top to bottom at the learning rate that a range test suggests."""
    if sweep is None or sweep.suggested is None:
        return
    column = cell(sweep.step(log10(sweep.suggested)))
    if column is None:
        return
    for row in range(canvas.height):
        canvas.put(column, row, "┊", CURSOR, over=False)
    note = f"try {sweep.suggested:g}"
    fits = column + 2 + len(note) <= canvas.width
    canvas.put(column + 2 if fits else max(0, column - 1 - len(note)), canvas.height - 1, note, CURSOR)


def _legend(canvas: Canvas, content: ChartContent, ranges: Ranges) -> None:
    """Markers, names and last values in fixed widths, at the top right, or at the left if only that side is free."""
    lines = legend(content.trace, content.overlays)[: canvas.height // 2]
    width = max(len(text) for _, _, text in lines) + 4
    if width > canvas.width // 2:
        return
    places = {False: canvas.width - width, True: 0}
    hidden = {left: _inked(canvas, start, width, len(lines)) for left, start in places.items()}
    if hidden[ranges.legend_at_left] and not hidden[not ranges.legend_at_left]:
        ranges.legend_at_left = not ranges.legend_at_left
    start = places[ranges.legend_at_left]
    blocks = content.marker_for(canvas.width * canvas.height) == BLOCKS
    for row, (marker, role, text) in enumerate(lines):
        sample = "▄▄" if role == TRAIN and blocks else marker
        canvas.put(start, row, f" {sample} {text.ljust(width - 4)}", LEGEND)
        canvas.put(start + 1, row, sample, role)


def _inked(canvas: Canvas, start: int, width: int, rows: int) -> bool:
    """Whether a legend there would hide part of a curve."""
    return any(role not in (BLANK, CURSOR) for row in canvas.roles[:rows] for role in row[start : start + width])


SHORT = {"validation": "valid", "validation epoch": "valid epoch"}
"""Short names for the legend."""


def legend(trace: Trace, overlays: tuple[Trace, ...]) -> list[tuple[str, int, str]]:
    """Marker (two cells), role and text of each curve."""
    curves = trace.curves
    lines = []
    for place, (label, series) in enumerate(curves):
        sample, role = ("⠒⠒", TRAIN) if place == 0 else (f" {MARKERS[(place - 1) % len(MARKERS)]}", TEST)
        value = series.last if place == 0 else series.newest
        lines.append((sample, role, cut(SHORT.get(label, _narrow(label)), NAME_CELLS), value))
    if not lines:
        lines.append(("⠒⠒", TRAIN, "train", None))
    for index, overlay in enumerate(overlays):
        style = index % len(OVERLAY_MARKERS)
        name = cut(_narrow(overlay.name), NAME_CELLS)
        lines.append((f" {OVERLAY_MARKERS[style]}", OVERLAYS[style], name, overlay.main.last))
    width = max(len(name) for _, _, name, _ in lines)
    return [(sample, role, f"{name.ljust(width)} {format_fixed_width(value)}") for sample, role, name, value in lines]


def _narrow(name: str) -> str:
    """The characters of a name that take one cell."""
    return "".join(char for char in name if cell_len(char) == 1)


# --- around the plot -----------------------------------------------------------------------------------------------


def _y_axis(canvas: Canvas, limits: Limits, gutter: int, rows: int) -> None:
    for row in range(rows):
        canvas.put(gutter - 1, row, "│", AXIS)
    for level, label in axes.y_ticks(limits, rows):
        tick = row_of(10**level if limits.log else level, limits, rows)
        if tick is not None:
            canvas.put(0, tick, f"{label.rjust(gutter - 2)} ┤", AXIS)


def _x_axis(canvas: Canvas, view: ChartView, gutter: int, row: int) -> None:
    placed = []
    canvas.put(gutter - 1, row, "└" + "─" * view.width, AXIS)
    for x, label in view.ticks(view.width):
        column = min(view.width - 1, int(view.cell(x) + 1e-6))
        placed.append((gutter + column, label))
        canvas.put(gutter + column, row, "┬", AXIS)
    name = "time" if view.unit == "seconds" and view.high > 60 else "s" if view.unit == "seconds" else view.unit
    name = "time" if view.unit == "clock" else name
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
        *(["log x"] if view.has_log_x else []),
        *(["no outliers"] if view.hide_outliers else []),
        content.range_text,
    ]
    return " · ".join(parts)


def readout(trace: Trace, step: int) -> str:
    """The values at the cursor: that of a single step, or the range of several; of sparse series, the newest before it."""
    main = trace.main
    bucket = main.bucket(step)
    if bucket is None and main.near(step) is None:
        return f"step {step:,}"
    several = bucket is not None and bucket.stop - bucket.start > 1
    parts = [f"steps {bucket.start:,}–{bucket.stop - 1:,}" if bucket and several else f"step {step:,}"]
    for place, (label, series) in enumerate(trace.curves):
        text = _value(series.bucket(step) if place == 0 else None, series.near(step), series.first_bad_step is not None)
        if text:
            parts.append(f"{label} {text}")
    if trace.sweep is not None:
        parts.append(f"learning rate {trace.sweep.rate(step):.2g}")
    if trace.epoch_known:
        parts.append(f"epoch {trace.from_step(step, 'epoch'):,.1f}")
    parts.append(f"{trace.seconds.at(step):,.1f} s")
    return " · ".join(parts)


def _value(here: Column | None, before: Column | None, bad: bool) -> str:
    """The value of a bucket: its own, or the last one before it. Empty if there is none."""
    if here is None:
        return format_fixed_width(before.last).strip() if before is not None and before.finite else ""
    if not here.finite:
        return "NaN" if bad else UNKNOWN
    if here.finite == 1:
        return format_fixed_width(here.last).strip()
    return f"{format_fixed_width(here.minimum).strip()}…{format_fixed_width(here.maximum).strip()}"

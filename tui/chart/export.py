"""Files of the visible part of the chart: a table of losses (CSV) and a drawing of curves (SVG).

Both use the same points as the screen. Never imports plotext.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import count
from math import log10
from pathlib import Path

from epochtop.engine.protocol.quantities import format_fixed_width
from epochtop.engine.runs.files import write_atomically
from epochtop.tui.cells.rows import cut
from epochtop.tui.chart import axes
from epochtop.tui.chart.axes import Limits
from epochtop.tui.chart.curves import XY, ChartView, Visible, y_limits
from epochtop.tui.chart.groups.band import BAND_TEXTS, band
from epochtop.tui.chart.groups.mean import GroupCurve, group_curves, newest_values, shown
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.chart.marks.notes import first_bad
from epochtop.tui.chart.series import Series
from epochtop.tui.chart.trace import Trace, counter_name, heading, is_counter

HEADER = "series,step,min,mean,max,last"
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#7f7f7f", "#d62728")
"""Train, test, four overlays, NaN. Dashes and markers distinguish the curves in gray."""
DASHES = ("6 3", "2 3", "8 3 2 3", "1 4")
WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 72, 16, 16, 52
TICK_ROWS, TICK_COLUMNS = 24, 100
"""Size in cells of the chart whose ticks the drawing has."""


def save_chart(chart: LossChart, folder: Path, name: str) -> tuple[Path, Path]:
    """Write `<name>.svg` and `<name>.csv` into `folder`, numbered if a file exists. Raises OSError."""
    drawing = export_svg(chart.trace, chart.view, chart.overlays, title=name)
    return save_files(folder, name, drawing, export_csv(chart.trace, chart.view, chart.overlays))


def save_files(folder: Path, name: str, svg: str, csv: str) -> tuple[Path, Path]:
    """Write a drawing and a table, numbered if a file exists. Raises OSError."""
    stem = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    for number in count(1):
        suffix = "" if number == 1 else f"-{number}"
        drawing, table = folder / f"{stem}{suffix}.svg", folder / f"{stem}{suffix}.csv"
        if not drawing.exists() and not table.exists():
            break
    write_atomically(drawing, svg.encode())
    write_atomically(table, csv.encode())
    return drawing, table


# --- CSV ---------------------------------------------------------------------------------------------------


def export_csv(trace: Trace, view: ChartView, overlays: Sequence[Trace] = (), prefix: str = "") -> str:
    """Every bucket in the visible range, of all series of the family. A bucket of a single step is exact.

    Columns: series, step (the first one of the bucket), min, mean, max, last. Series other than the main one are in `last`. Of a
    group, min and max are the ends of its band. With `prefix`, every name begins with it.
    """
    lines = [HEADER]
    for run in (trace, *overlays):
        name = run.group if run.peers else "" if run is trace else run.name or "overlay"
        start, stop = run.to_step(view.low, view.unit), run.to_step(view.high, view.unit)
        for place, (label, series) in enumerate(() if run.peers else run.curves):
            title = label if not name else name if place == 0 else f"{name} {label}"
            lines += _rows(_csv(f"{prefix} {title}" if prefix else title), series, start, stop, whole=place == 0)
        for curve in group_curves(run) if run.peers else ():
            lines += _band_rows(_csv(" ".join(filter(None, (prefix, name, curve.label)))), curve, view)
    return "\n".join(lines) + "\n"


def _band_rows(name: str, curve: GroupCurve, view: ChartView) -> list[str]:
    """A row per bucket, of the width of the widest buckets: mean of the runs, and ends of the band."""
    width = max(series.width for _, series in curve.series)
    runs = []
    for run, series in curve.series:
        start, stop = run.to_step(view.low, view.unit), run.to_step(view.high, view.unit)
        buckets = list(series.buckets(start, stop + 1e-9))
        runs.append(([bucket.start // width * width for bucket in buckets], [bucket.mean for bucket in buckets]))
    ends = band(runs, view.band)
    rows = zip(ends.steps, ends.lows, ends.means, ends.highs, strict=True)
    return [f"{name},{step},{low:.9g},{mean:.9g},{high:.9g}," for step, low, mean, high in rows]


def _rows(name: str, series: Series, start: float, stop: float, whole: bool) -> list[str]:
    """A row per bucket, with all its figures or just the last value."""
    number = repr if series.double else _single
    if not whole:
        return [f"{name},{point.step},,,,{number(point.value)}" for point in series.points(start, stop)]
    return [
        ",".join((name, str(bucket.start), *map(number, (bucket.minimum, bucket.mean, bucket.maximum, bucket.last))))
        for bucket in series.buckets(start, stop)
    ]


def _csv(text: str) -> str:
    plain = text.replace("\n", " ").replace("\r", " ")
    if plain[:1] in "=+-@":  # a spreadsheet would run it as a formula
        plain = f"'{plain}"
    return '"' + plain.replace('"', '""') + '"' if any(mark in plain for mark in ',"') else plain


def _single(value: float) -> str:
    """The shortest text that reads back as the same float32."""
    return f"{value:.9g}"


# --- SVG ---------------------------------------------------------------------------------------------------


def export_svg(trace: Trace, view: ChartView, overlays: Sequence[Trace] = (), title: str = "") -> str:
    """A drawing of the visible range: axes, the band of each column's extremes, means, test points, legend."""
    run, *others = [shown(source, view) for source in (trace, *overlays)]
    limits = y_limits([run, *others], TICK_ROWS, view.log)
    parts = [*_frame(view, limits), *_run(run, view, limits)]
    for index, overlay in enumerate(others):
        if overlay.is_group:
            parts.append(_band(overlay, view, limits, COLORS[2 + index % 4]))
        parts.append(_polyline(_place(overlay.smooth, view, limits), COLORS[2 + index % 4], DASHES[index % 4]))
    parts += _bad_mark(trace, view) + _suggestion_mark(trace, view)
    parts += _legend(trace, overlays, view, title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><title>{escape(title or heading(trace.family))}</title>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _place(points: Iterable[XY], view: ChartView, limits: Limits) -> list[XY | None]:
    """Points in pixels; None where the line breaks."""
    placed: list[XY | None] = []
    for x, value in points:
        y = _y(value, limits)
        placed.append(None if y is None else (_x(x, view), y))
    return placed


def _x(cell: float, view: ChartView) -> float:
    return LEFT + cell / view.width * (WIDTH - LEFT - RIGHT)


def _y(value: float, limits: Limits) -> float | None:
    position = limits.position(value)
    return None if position is None else HEIGHT - BOTTOM - position * (HEIGHT - TOP - BOTTOM)


def _run(run: Visible, view: ChartView, limits: Limits) -> list[str]:
    line = _polyline(_place(run.smooth, view, limits), COLORS[0], "")
    exact = all(low == high for _, low, high in run.band) and not run.is_group
    behind = (
        _polyline(_place(run.raw, view, limits), COLORS[0], "", 1, 0.35)
        if exact
        else _band(run, view, limits, COLORS[0])
    )
    parts = [behind, line]
    for x, y in (point for points in run.others for point in filter(None, _place(points, view, limits))):
        parts.append(f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="{COLORS[1]}"/>')
    return parts


def _band(run: Visible, view: ChartView, limits: Limits, color: str) -> str:
    """The area between the extremes of the columns, or the ends of the band."""
    highs = filter(None, _place([(x, high) for x, _, high in run.band], view, limits))
    lows = filter(None, _place([(x, low) for x, low, _ in reversed(run.band)], view, limits))
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*highs, *lows))
    return f'<polygon points="{corners}" fill="{color}" fill-opacity="0.15"/>'


def _bad_mark(trace: Trace, view: ChartView) -> list[str]:
    bad = first_bad(trace)
    if bad is None or not 0 <= (cell := view.cell(trace.from_step(bad[0], view.unit))) <= view.width:
        return []
    x, anchor = _x(cell, view), "start" if cell < view.width / 2 else "end"
    line = f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{COLORS[-1]}" stroke-dasharray="4 4"/>'
    return [line, _text(x, HEIGHT - BOTTOM - 8, f"✗ {bad[1]}", anchor)]


def _suggestion_mark(trace: Trace, view: ChartView) -> list[str]:
    sweep = trace.sweep
    if sweep is None or sweep.suggested is None:
        return []
    cell = view.cell(trace.from_step(sweep.step(log10(sweep.suggested)), view.unit))
    if not 0 <= cell <= view.width:
        return []
    x, anchor = _x(cell, view), "start" if cell < view.width * 0.8 else "end"
    line = f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#404040" stroke-dasharray="2 4"/>'
    return [line, _text(x + (6 if anchor == "start" else -6), HEIGHT - BOTTOM - 8, f"try {sweep.suggested:g}", anchor)]


def _polyline(points: list[XY | None], color: str, dash: str, width: float = 2, opacity: float = 1) -> str:
    path, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
        else:
            path.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
            pen = "L"
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<path d="{" ".join(path)}" fill="none" stroke="{color}" stroke-width="{width}" '
        f'stroke-opacity="{opacity}" stroke-linejoin="round"{dashes}/>'
    )


def _frame(view: ChartView, limits: Limits) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for level, label in axes.y_ticks(limits, TICK_ROWS):
        y = _y(10**level if limits.log else level, limits)
        if y is not None:
            parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#e0e0e0"/>')
            parts.append(_text(LEFT - 8, y + 4, label, "end"))
    for x, label in view.ticks(TICK_COLUMNS):
        place = _x(view.cell(x), view)
        parts.append(f'<path d="M{place:.1f} {bottom}v5" stroke="#404040"/>')
        parts.append(_text(min(place, right - 4 * len(label)), bottom + 20, label, "middle"))
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#404040"/>')
    name = {"rate": "learning rate", "clock": "time"}.get(view.unit, view.unit)
    name = counter_name(name) if is_counter(name) else name
    parts.append(_text((LEFT + right) / 2, HEIGHT - 12, name, "middle"))
    return parts


def _legend(trace: Trace, overlays: Sequence[Trace], view: ChartView, title: str) -> list[str]:
    entries = []
    for place, (label, value) in enumerate(newest_values(trace)):
        name = label if place or not trace.peers else _group_name(trace, view)
        entries.append((COLORS[min(place, 1)], name, value))
    for index, run in enumerate(overlays):
        name = _group_name(run, view) if run.peers else run.name
        entries.append((COLORS[2 + index % 4], name, next((value for _, value in newest_values(run)), None)))
    parts = [_text(LEFT + 12, TOP + 16, title, "start")] if title else []
    for row, (color, name, value) in enumerate(entries):
        y = TOP + 16 + 18 * row
        parts.append(f'<rect x="{WIDTH - 250}" y="{y - 5}" width="16" height="4" fill="{color}"/>')
        parts.append(_text(WIDTH - 226, y, cut(name, 22), "start"))
        parts.append(_text(WIDTH - RIGHT - 8, y, format_fixed_width(value).strip(), "end"))
    return parts


def _group_name(group: Trace, view: ChartView) -> str:
    return f"{cut(group.group, 10)} n={len(group.runs)} {BAND_TEXTS[view.band]}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    clean = "".join(char for char in text if char.isprintable())
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#202020">{escape(clean)}</text>'

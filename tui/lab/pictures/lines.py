"""Curves of an experiment: medians over x with their spread, and the computed lines of its verdict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from math import isfinite

from epochtop.engine.lab.experiment import Picture
from epochtop.engine.protocol.experiments import Line
from epochtop.tui.cells.canvas import Canvas, Row
from epochtop.tui.cells.rows import FIT, QUIET, TEXT, cut, role_of, side_by_side
from epochtop.tui.chart import axes, plotting
from epochtop.tui.chart.plotting import BLOCKS, BRAILLE, PlottedCurve
from epochtop.tui.lab.pictures.axes import Axis, across, upright
from epochtop.tui.lab.pictures.points import Series

MARKERS = ("●", "×", "+", "◆", "▲", "□")
FIT_MARKERS = ("·", "-", "~", "=")
UPRIGHT_MARKERS = ("┊", "╏")
"""Markers of computed lines at one value of x."""
LEGEND_ROWS = 3
FINE_CELLS = 4500
"""A braille plot of more cells takes over 25 ms; blocks take half of that."""


@dataclass(frozen=True)
class _Plot:
    """The axes and the cells between them."""

    across: Axis
    upright: Axis
    width: int
    height: int

    def row(self, value: float) -> int | None:
        """The row, from above, of a value of y."""
        return plotting.row_of(value / self.upright.factor, self.upright.limits, self.height)


def lines(picture: Picture, series: Sequence[Series], computed: Sequence[Line], width: int, height: int) -> list[Row]:
    """A plot with its axes and legend, `height` rows in all."""
    legend = side_by_side(_legend(series, computed), width, LEGEND_ROWS)
    rows = max(3, height - 3 - len(legend))
    where = _axes(picture, series, computed, width, rows)
    gutter = max(4, *(len(label) + 2 for _, label in where.upright.ticks))
    where = _axes(picture, series, computed, width - gutter, rows)
    sheet = Canvas(width, rows + 3)
    _put(sheet, _drawn(where, series, computed), gutter)
    _y_axis(sheet, picture, where, gutter)
    x_axis(sheet, where.across, picture.x_title or picture.x, gutter, rows + 1)
    return [*sheet.rows(), *legend]


def _axes(picture: Picture, series: Sequence[Series], computed: Sequence[Line], width: int, height: int) -> _Plot:
    points = [point for one in series for point in one.points]
    xs = [point.x for point in points]
    ys = [value for point in points for value in (point.y.low, point.y.median, point.y.high)]
    ys += [y for line in computed for _, y in line.points if isfinite(y)]
    numeric = not xs or any(isinstance(x, int | float) for x in xs)
    xs += [x for line in computed for x, _ in line.points] if numeric else []
    return _Plot(
        across(xs, picture.x_unit, picture.x_log, width),
        upright(ys, picture.unit, picture.y_log, height),
        width,
        height,
    )


def _legend(series: Sequence[Series], computed: Sequence[Line]) -> list[tuple[str, str, int]]:
    """The entries of the legend; none for a single series without a name."""
    entries = [(MARKERS[place % len(MARKERS)], one.name, role_of(place)) for place, one in enumerate(series)]
    if len(series) == 1 and not computed and not series[0].name:
        return []
    entries = [(marker, name or "measured", role) for marker, name, role in entries]
    marked = zip(_computed_markers(computed), computed, strict=True)
    return entries + [(marker if _stands(line) else marker * 2, line.name, FIT) for marker, line in marked]


def _stands(line: Line) -> bool:
    """Whether it is an upright line, at one value of x."""
    return len(line.points) > 1 and len({x for x, _ in line.points}) == 1


def _computed_markers(computed: Sequence[Line]) -> list[str]:
    """A marker for each line; upright lines have other markers."""
    leaning, standing = cycle(FIT_MARKERS), cycle(UPRIGHT_MARKERS)
    return [next(standing if _stands(line) else leaning) for line in computed]


# --- inside the plot -----------------------------------------------------------------------------------------------


def _drawn(where: _Plot, series: Sequence[Series], computed: Sequence[Line]) -> Canvas:
    fine = BRAILLE if where.width * where.height <= FINE_CELLS else BLOCKS
    curves = [PlottedCurve(_placed(where, one), role_of(place), fine) for place, one in enumerate(series)]
    canvas = plotting.draw(curves, where.width, where.height, where.upright.limits)
    for place, one in enumerate(series):
        _spreads(canvas, where, one, role_of(place))
    for marker, line in zip(_computed_markers(computed), computed, strict=True):
        _computed(canvas, where, line, marker)
    # a single point has no curve, so nothing may hide it
    for place, one in sorted(enumerate(series), key=lambda placed: len(placed[1].points) == 1):
        _markers(canvas, where, one, MARKERS[place % len(MARKERS)], role_of(place))
    return canvas


def _placed(where: _Plot, one: Series) -> list[tuple[float, float]]:
    """Medians in cells from the left and in units of the y axis."""
    cells = ((where.across.cell(point.x, where.width), point.y.median) for point in one.points)
    return [(cell, value / where.upright.factor) for cell, value in cells if cell is not None]


def _spreads(canvas: Canvas, where: _Plot, one: Series, role: int) -> None:
    """From the lower to the upper quartile, if that is more than a row."""
    for point in one.points:
        cell = where.across.cell(point.x, where.width)
        top, bottom = where.row(point.y.high), where.row(point.y.low)
        if cell is not None and top is not None and bottom is not None:
            for row in range(top, bottom + 1):
                canvas.put(int(cell), row, "│", role, over=top < bottom)


def _computed(canvas: Canvas, where: _Plot, line: Line, marker: str) -> None:
    """A mark in every other column, so that a measured curve below stays visible."""
    for (left, first), (right, second) in zip(line.points, line.points[1:], strict=False):
        start, stop = (where.across.cell(x, where.width) for x in (left, right))
        if start is None or stop is None:
            continue
        if int(start) == int(stop):
            _upright(canvas, where, int(start), (first, second), marker if _stands(line) else UPRIGHT_MARKERS[0])
            continue
        for column in range(int(min(start, stop)), int(max(start, stop)) + 1):
            share = min(1.0, max(0.0, (_x(where, column + 0.5) - left) / (right - left)))
            row = where.row(first + (second - first) * share)
            if row is not None and column % 2 == 0:
                canvas.put(column, row, marker, FIT)


def _upright(canvas: Canvas, where: _Plot, column: int, ends: tuple[float, float], marker: str) -> None:
    rows = [row for value in ends if (row := where.row(value)) is not None]
    if len(rows) == 2 and rows[0] != rows[1]:
        for row in range(min(rows), max(rows) + 1):
            canvas.put(column, row, marker, FIT, over=False)


def _x(where: _Plot, cell: float) -> float:
    """The value of x at a cell."""
    limits = where.across.limits
    level = limits.low + (cell - 0.5) / max(1, where.width - 1) * (limits.high - limits.low)
    return float(10**level) if limits.log else level * where.across.factor


def _markers(canvas: Canvas, where: _Plot, one: Series, marker: str, role: int) -> None:
    for point in one.points:
        cell, row = where.across.cell(point.x, where.width), where.row(point.y.median)
        if cell is not None and row is not None:
            canvas.put(int(cell), row, marker, role)


# --- around it -----------------------------------------------------------------------------------------------------


def _put(sheet: Canvas, canvas: Canvas, gutter: int) -> None:
    for row in range(canvas.height):
        sheet.cells[row + 1][gutter:] = canvas.cells[row]
        sheet.roles[row + 1][gutter:] = canvas.roles[row]


def _y_axis(sheet: Canvas, picture: Picture, where: _Plot, gutter: int) -> None:
    axis = where.upright
    sheet.put(0, 0, cut(titled(picture.y_title or picture.y, axis.unit), sheet.width), QUIET)
    for row in range(where.height):
        sheet.put(gutter - 1, row + 1, "│", QUIET)
    for level, label in axis.ticks:
        place = plotting.row_of(10**level if axis.limits.log else level, axis.limits, where.height)
        if place is not None:
            sheet.put(0, place + 1, f"{label.rjust(gutter - 2)} ┤", QUIET)


def x_axis(sheet: Canvas, axis: Axis, title: str, gutter: int, row: int) -> None:
    """Line, ticks, title and, a row below, labels, from `gutter` to the right end."""
    cells = sheet.width - gutter
    sheet.put(gutter - 1, row, "└" + "─" * cells, QUIET)
    ticks = ((axis.at(level, cells), label) for level, label in axis.ticks)
    placed = [(gutter + int(cell), label) for cell, label in ticks if cell is not None]
    labels = axes.place_labels(placed, sheet.width)
    for column, label in placed:
        if label in labels:
            sheet.put(column, row, "┬", QUIET)
    sheet.put(0, row + 1, labels, QUIET)
    _x_title(sheet, titled(title, axis.unit), gutter, row)


def _x_title(sheet: Canvas, title: str, gutter: int, row: int) -> None:
    """On the axis, between the last ticks with room for it; otherwise above the plot."""
    line = "".join(sheet.cells[row][gutter:])
    room = [
        (gutter + match.start(), len(match[0])) for match in re.finditer("─+", line) if len(match[0]) > len(title) + 3
    ]
    if room:
        start, length = room[-1]
        sheet.put(start + (length - len(title) - 1) // 2, row, f" {title} ", TEXT)
    elif row > 1:
        text = cut(f"{title} →", sheet.width // 2)
        sheet.put(sheet.width - len(text), 0, text, TEXT)


_NAMES = {"seconds": "time", "bytes": "size"}
"""Names for titles that begin with a unit, because the unit depends on the values."""


def titled(title: str, unit: str) -> str:
    """The title of an axis with the unit of its numbers, unless the title includes it."""
    first, space, rest = title.replace("_", " ").partition(" ")
    title = f"{_NAMES.get(first, first)}{space}{rest}"
    return f"{title} ({unit})" if unit and unit != title and f"({unit})" not in title else title

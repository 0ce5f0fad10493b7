"""Curves drawn on a canvas. The only module that imports plotext; axes and labels are drawn elsewhere.

plotext raises on infinite values, on values ≤ 0 of a logarithmic axis and on empty data. A point far outside takes
time for every cell on the way there. All of these points are filtered first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from epochtop.tui.cells.canvas import BLANK, Canvas
from epochtop.tui.chart.axes import Limits

BRAILLE, BLOCKS = "braille", "hd"
_DOTS = {BRAILLE: (2, 4), BLOCKS: (2, 2)}
_SGR = re.compile("\x1b\\[([0-9;]*)m")


@dataclass(frozen=True)
class PlottedCurve:
    """Points: x in cells from the left edge, y in data values. A value that cannot be drawn breaks the line."""

    points: Sequence[tuple[float, float]]
    role: int
    marker: str = BRAILLE
    """`braille`, `hd`, or the character of a point."""
    line: bool = True
    """Whether lines connect the points."""


def row_of(value: float, limits: Limits, height: int) -> int | None:
    """The row, from the top, in which `value` is drawn; None if it cannot be drawn."""
    position = limits.position(value)
    return None if position is None else height - 1 - floor(_level(position, height, 1))


def draw(curves: Sequence[PlottedCurve], width: int, height: int, limits: Limits) -> Canvas:
    """Draw curves, later ones over earlier ones. Without points the canvas stays blank."""
    canvas = Canvas(width, height)
    if width < 2 or height < 2:
        return canvas
    runs = [(curve, run) for curve in curves for run in _runs(curve, width, height, limits)]
    if runs:
        _read(_plotext(runs, width, height), canvas)
    return canvas


def _plotext(runs: list[tuple[PlottedCurve, list[tuple[float, float]]]], width: int, height: int) -> str:
    import plotext  # takes 30 ms to import, so import it with the first curve

    plotext.clear_figure()
    plotext.limit_size(False, False)
    plotext.plot_size(width, height)
    plotext.theme("clear")
    plotext.frame(False)
    plotext.xticks([])
    plotext.yticks([])
    plotext.xlim(0, 1)
    plotext.ylim(0, 1)
    for curve, run in runs:
        xs, ys = zip(*run, strict=True)
        pen = plotext.plot if curve.line else plotext.scatter
        pen(xs, ys, marker=curve.marker, color=curve.role)
    return str(plotext.build())


def _runs(curve: PlottedCurve, width: int, height: int, limits: Limits) -> list[list[tuple[float, float]]]:
    """Unbroken stretches of a curve in plotext's range 0 … 1, each point in the middle of its dot."""
    across, up = _DOTS.get(curve.marker, (1, 1))
    right, top = width * across - 1, height * up - 1
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in curve.points:
        position = limits.position(y)
        if position is None:
            runs.append([])
        elif 0 <= x <= width:
            column = min(right, floor(x * across))
            runs[-1].append((column / right, floor(_level(position, height, up)) / top))
    return [run for run in runs if run]


def _level(position: float, height: int, dots: int) -> float:
    """Dots above the bottom. Positions 0 and 1 are the middles of the outer cells, so that ticks and curves agree."""
    return (position * (height - 1) + 0.5) * dots + 1e-6


def _read(ansi: str, canvas: Canvas) -> None:
    for row, line in enumerate(ansi.split("\n")[: canvas.height]):
        column, role = 0, BLANK
        for index, part in enumerate(_SGR.split(line)):
            if index % 2:
                role = int(part.rsplit(";", 1)[-1]) if part.startswith("38;5;") else BLANK
            elif part and role == BLANK:
                column += len(part)
            else:
                for char in part:
                    canvas.cells[row][column] = char
                    canvas.roles[row][column] = role
                    column += 1

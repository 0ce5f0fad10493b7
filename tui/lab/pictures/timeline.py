"""Spans of an experiment over time: a lane per series, shaded by how much of each cell's time is covered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from epochtop.engine.lab.experiment import Picture
from epochtop.engine.lab.intervals import covered
from epochtop.engine.lab.measurements import Row as Measured
from epochtop.engine.lab.statistics import value_of
from epochtop.engine.protocol.quantities import format_quantity
from epochtop.tui.cells.canvas import Canvas, Row
from epochtop.tui.cells.rows import TEXT, role_of, row, shortened
from epochtop.tui.chart.axes import Limits
from epochtop.tui.lab.pictures.axes import across
from epochtop.tui.lab.pictures.lines import x_axis
from epochtop.tui.lab.pictures.points import constant, label

SHADES = " ░▒▓█"
BLANK_LANE = "·"
"""Marks the cells where a lane is empty, so that gaps are visible."""


def timeline(picture: Picture, rows: Sequence[Measured], width: int) -> list[Row]:
    """The lanes in order of appearance, how long each was busy, and the axis."""
    columns = [name for name in picture.series if name not in constant(picture, rows)]
    lanes: dict[str, list[tuple[float, float]]] = {}
    for span_row in rows:
        ends = value_of(span_row, picture.x), value_of(span_row, picture.y)
        if ends[0] is not None and ends[1] is not None:
            lanes.setdefault(label(span_row, columns), []).append((min(ends[0], ends[1]), max(ends[0], ends[1])))
    spans = [span for lane in lanes.values() for span in lane]
    if not spans:
        return []
    low, high = min(start for start, _ in spans), max(stop for _, stop in spans)
    busy = [format_quantity(covered(lane), picture.x_unit or picture.unit) for lane in lanes.values()]
    label_cells = min(max(map(len, lanes)), max(8, width // 4))
    busy_cells = max(map(len, busy))
    cells = max(4, width - label_cells - busy_cells - 4)
    drawn = [
        row(
            (shortened(name, label_cells).rjust(label_cells) + " ▕", TEXT),
            (_lane(lane, low, high, cells), role_of(place)),
            (f"▏ {text.rjust(busy_cells)}", TEXT),
        )
        for place, ((name, lane), text) in enumerate(zip(lanes.items(), busy, strict=True))
    ]
    return [*drawn, *_axis(picture, low, high, label_cells + 2, cells)]


def _lane(spans: Sequence[tuple[float, float]], low: float, high: float, cells: int) -> str:
    """A cell's shade is the covered fraction of its time; even the shortest span leaves a mark."""
    shares = [0.0] * cells
    length = (high - low) / cells or 1.0
    for start, stop in spans:
        first, last = (min(cells - 1, int((end - low) / length)) for end in (start, stop))
        for place in range(first, last + 1):
            left, right = low + place * length, low + (place + 1) * length
            shares[place] += max(0.02, (min(stop, right) - max(start, left)) / length)
    return "".join(SHADES[min(4, max(1, round(share * 4)))] if share >= 0.02 else BLANK_LANE for share in shares)


def _axis(picture: Picture, low: float, high: float, gutter: int, cells: int) -> list[Row]:
    axis = across([low, high], picture.x_unit or picture.unit, False, cells)
    step = axis.limits.step
    exact = replace(
        axis, limits=Limits(low / axis.factor, max(high / axis.factor, low / axis.factor + step / 1e6), step)
    )
    sheet = Canvas(gutter + cells, 2)
    x_axis(sheet, exact, picture.x_title or picture.x, gutter, 0)
    return sheet.rows()

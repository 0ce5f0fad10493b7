"""The legend: a marker, a name and the last value of each curve, where they hide nothing.

It stands in a corner of the plot without ink, and in rows above the plot if there is none. Never imports a widget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rich.cells import cell_len

from epochtop.engine.protocol.quantities import format_fixed_width
from epochtop.tui.cells.canvas import BLANK, Canvas
from epochtop.tui.cells.rows import LEGEND, cut
from epochtop.tui.chart.curves import BandKind
from epochtop.tui.chart.groups.band import BAND_TEXTS
from epochtop.tui.chart.groups.mean import newest_values
from epochtop.tui.chart.marks.signs import (
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
from epochtop.tui.chart.trace import Trace

NAME_CELLS = 18
"""Width of a name."""
VALUE_CELLS = 6
SHORT = {"validation": "valid", "validation epoch": "valid epoch"}
"""Short names for the legend."""
GAP = 2
"""Blanks between entries side by side."""

Place = Literal["top right", "top left", "bottom right", "bottom left", "above"]
CORNERS: tuple[Place, ...] = ("top right", "top left", "bottom right", "bottom left")


class LegendEntry(NamedTuple):
    """A line of the legend."""

    sample: str
    """Two cells."""
    role: int
    text: str


def entries(trace: Trace, overlays: Sequence[Trace], kind: BandKind, blocks: bool) -> list[LegendEntry]:
    """An entry for each curve, in texts of the same width. `blocks` is whether lines are drawn in blocks."""
    sample = "▄▄" if blocks else "⠒⠒"
    values = newest_values(trace) or [("train", None)]
    is_one_of_several = bool(overlays) and len(values) == 1 and bool(trace.name)  # a role would not tell the runs apart
    lines = []
    for place, (label, value) in enumerate(values):
        names_run = not place and (trace.peers or is_one_of_several)
        name = _fitted(trace) if names_run else cut(SHORT.get(label, _narrow(label)), NAME_CELLS)
        marker = sample if place == 0 else f" {MARKERS[(place - 1) % len(MARKERS)]}"
        lines.append((marker, TEST if place else TRAIN, name, format_fixed_width(value)))
        if trace.peers and not place:
            lines.append((FILL * 2, RAW, BAND_TEXTS[kind], " " * VALUE_CELLS))
    for index, overlay in enumerate(overlays):
        style = index % len(OVERLAY_MARKERS)
        first = OVERLAY_FILLS[style] if overlay.peers else " "
        value = next((value for _, value in newest_values(overlay)), None)
        lines.append((first + OVERLAY_MARKERS[style], OVERLAYS[style], _fitted(overlay), format_fixed_width(value)))
    width = max(len(name) for _, _, name, _ in lines)
    return [LegendEntry(sample, role, f"{name.ljust(width)} {value}") for sample, role, name, value in lines]


def _fitted(trace: Trace) -> str:
    """The name of a run, or of a group with its number of runs."""
    count = f" n={len(trace.runs)}" if trace.peers else ""
    return cut(_narrow(trace.group or trace.name), NAME_CELLS - len(count)) + count


def _narrow(name: str) -> str:
    """The characters of a name that take one cell."""
    return "".join(char for char in name if cell_len(char) == 1)


# --- in a corner -------------------------------------------------------------------------------------------


def place_of(canvas: Canvas, lines: Sequence[LegendEntry], current: Place) -> Place:
    """Where the legend hides nothing: the current place while it can, else the first free corner, else above the plot."""
    if current == "above" or _width(lines) > canvas.width // 2 or len(lines) > canvas.height // 2:
        return "above"
    return next((place for place in (current, *CORNERS) if _is_free(canvas, lines, place)), "above")


def put(canvas: Canvas, lines: Sequence[LegendEntry], place: Place) -> None:
    """Write the legend into a corner of the plot."""
    left, top = _corner(canvas, lines, place)
    for row, entry in enumerate(lines, top):
        _put_entry(canvas, left, row, entry, _width(lines))


def _put_entry(canvas: Canvas, left: int, row: int, entry: LegendEntry, width: int) -> None:
    canvas.put(left, row, f" {entry.sample} {entry.text}".ljust(width), LEGEND)
    canvas.put(left + 1, row, entry.sample, entry.role)


def _width(lines: Sequence[LegendEntry]) -> int:
    return max(len(entry.text) for entry in lines) + 4


def _corner(canvas: Canvas, lines: Sequence[LegendEntry], place: Place) -> tuple[int, int]:
    left = 0 if place.endswith("left") else canvas.width - _width(lines)
    return left, 0 if place.startswith("top") else canvas.height - len(lines)


def _is_free(canvas: Canvas, lines: Sequence[LegendEntry], place: Place) -> bool:
    left, top = _corner(canvas, lines, place)
    rows = canvas.roles[top : top + len(lines)]
    return all(role in (BLANK, CURSOR) for row in rows for role in row[left : left + _width(lines)])


# --- above the plot ----------------------------------------------------------------------------------------


def side_by_side(lines: Sequence[LegendEntry], width: int, most: int) -> list[list[LegendEntry]]:
    """The entries in at most `most` rows of `width` cells; those that do not fit are left out."""
    rows: list[list[LegendEntry]] = [[]]
    cells = _width(lines) + GAP
    per_row = max(1, (width + GAP) // cells)
    for entry in lines:
        if len(rows[-1]) == per_row:
            rows.append([])
        rows[-1].append(entry)
    return rows[:most]


def put_above(canvas: Canvas, rows: Sequence[Sequence[LegendEntry]], left: int) -> None:
    """Write the legend into the first rows of the chart, from column `left` on."""
    for row, line in enumerate(rows):
        cells = _width(line) + GAP
        for place, entry in enumerate(line):
            _put_entry(canvas, left + place * cells, row, entry, cells - GAP)

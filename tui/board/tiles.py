"""One chart of the grid as rows of cells: a title with the last values, the plot, and the x axis where it is labeled.

The title and the values have their own row, so they never hide a curve. Never imports a widget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len

from epochtop.engine.protocol.quantities import format_fixed_width
from epochtop.engine.terminal.plain import plain_line
from epochtop.tui.board.pages import Box
from epochtop.tui.cells.canvas import Canvas, Row
from epochtop.tui.cells.rows import QUIET, STRONG, TEXT, cut
from epochtop.tui.chart import frame
from epochtop.tui.chart.curves import ChartView
from epochtop.tui.chart.groups.mean import newest_values, values_at
from epochtop.tui.chart.marks.signs import MARKERS, TEST, TRAIN
from epochtop.tui.chart.trace import Trace, heading

LEAST_NAME = 8
"""Cells of a name that values leave free at least."""


@dataclass(frozen=True)
class TileContent:
    """What all charts of a page share."""

    view: ChartView
    cursor: int | None
    marker: str
    selected: str
    """Family of the selected chart."""


@dataclass
class Tile:
    """A chart of the grid, and what it showed last."""

    trace: Trace
    overlays: tuple[Trace, ...]
    ranges: frame.Ranges = field(default_factory=frame.Ranges)
    drawn: tuple[object, object] = (None, None)
    """:meth:`look` and :meth:`data` at the last frame."""

    @property
    def family(self) -> str:
        """The family that is drawn."""
        return self.trace.family

    def look(self, content: TileContent, box: Box) -> object:
        """Everything besides the data that decides how the chart looks."""
        return content.view, content.cursor, content.marker, self.family == content.selected, box, self.ranges.gutter

    def data(self, content: TileContent) -> object:
        """Equal for two frames with the same data."""
        runs = [run for curve in (self.trace, *self.overlays) for run in curve.runs]
        series = [(id(curve.series), curve.series.version) for run in runs for curve in run.curves]
        return series, [] if content.view.unit == "step" else [run.steps for run in runs]


def tile_of(trace: Trace, overlays: Sequence[Trace], family: str, accepts: Callable[[str], bool]) -> Tile:
    """A chart of one family of the same runs, with the series that a filter accepts."""

    def part(source: Trace) -> Trace:
        copy = Trace(source.name, run=source.run)
        copy.selected, copy.accepts = family, accepts
        copy.group, copy.peers = source.group, tuple(part(peer) for peer in source.peers)
        return copy

    return Tile(part(trace), tuple(part(overlay) for overlay in overlays))


def compose(tile: Tile, content: TileContent, box: Box) -> list[Row]:
    """The rows of a chart."""
    plot = frame.compose_plot(
        frame.ChartContent(
            width=box.width,
            height=box.height - 1,
            trace=tile.trace,
            overlays=tile.overlays,
            view=content.view,
            cursor=content.cursor,
            range_text="",
            marker=content.marker,
            legend=False,
        ),
        tile.ranges,
        box.axis,
    )
    if not any(run.curves for run in tile.trace.runs):
        note = "reading…"
        plot.put(max(0, (box.width - len(note)) // 2), max(0, (plot.height - 2) // 2), note, QUIET)
    return [title(tile, content, box.width), *plot.rows()]


def title(tile: Tile, content: TileContent, width: int) -> Row:
    """`▸ accuracy      ⠒ 0.9123 ▪ 0.8876`: the name at the left, markers and values at the right."""
    is_selected = tile.family == content.selected
    canvas = Canvas(width, 1)
    values = _values(tile, content.cursor)
    while len(values) > 1 and sum(len(text) + 3 for _, _, text in values) > width - LEAST_NAME - 3:
        values.pop()
    end = width
    for sample, role, text in reversed(values):
        end -= len(text)
        canvas.put(end, 0, text, TEXT)
        canvas.put(end - 2, 0, sample, role)
        end -= 3
    name = fitted_name(_narrow(heading(tile.family)), max(1, end - 2))
    canvas.put(0, 0, "▸ " if is_selected else "  ", STRONG)
    canvas.put(2, 0, name, STRONG if is_selected else TEXT)
    return canvas.rows()[0]


def _values(tile: Tile, cursor: int | None) -> list[tuple[str, int, str]]:
    """Marker, role and value of each curve: the last one, or that at the cursor."""
    values = newest_values(tile.trace) if cursor is None else values_at(tile.trace, cursor)
    signs = [("⠒", TRAIN), *((MARKERS[place % len(MARKERS)], TEST) for place in range(len(values)))]
    return [(*sign, format_fixed_width(value).strip()) for sign, (_, value) in zip(signs, values, strict=False)]


def fitted_name(name: str, width: int) -> str:
    """A name in `width` cells. It loses whole parts of its path from the left, then whole words of its last part."""
    if len(name) <= width:
        return name
    rest = name
    for mark in ("/", "_"):
        while mark in rest:
            rest = rest.partition(mark)[2]
            if len(rest) + 2 <= width:
                return f"…{mark}{rest}" if mark == "/" else f"…{rest}"
    return cut(rest, width)


def _narrow(name: str) -> str:
    return "".join(char for char in plain_line(name) if cell_len(char) == 1)

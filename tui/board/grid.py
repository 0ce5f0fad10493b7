"""The grid of charts: one widget that draws a page of small charts and repaints only the cells that changed.

Like the large chart, it has no timer: the app calls :meth:`Grid.redraw`. A chart without new data costs nothing. It takes
the run, the axes and the cursor from the large chart, so that all charts share them. Never imports the app.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message

from epochtop.engine.runs.families import families
from epochtop.engine.terminal.plain import plain_line
from epochtop.tui.board import pages, tiles
from epochtop.tui.board.filter import Filter
from epochtop.tui.board.keys import GRID_KEYS
from epochtop.tui.board.pages import Box, Shape
from epochtop.tui.board.tiles import Tile, TileContent
from epochtop.tui.cells.canvas import Canvas, Row
from epochtop.tui.cells.plain import set_subtitle, set_title
from epochtop.tui.cells.rows import cut, difference
from epochtop.tui.cells.view import CellWidget
from epochtop.tui.chart.curves import ChartView
from epochtop.tui.chart.frame import put_centered
from epochtop.tui.chart.groups.band import BAND_TEXTS
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.chart.x_range import RANGE_TEXTS
from epochtop.tui.forms.type_ahead import TypeAhead

MOST_AT_ONCE = 6
"""Charts with new data that are drawn in the same frame."""


@dataclass(frozen=True)
class ChartPage:
    """The charts of a page."""

    shape: Shape
    number: int
    """From 0."""
    count: int
    """Number of pages."""
    families: tuple[str, ...]
    total: int
    """Number of charts on all pages."""


class Grid(CellWidget, TypeAhead, can_focus=True):
    """A page of small charts of the open run."""

    DEFAULT_CSS = """
    Grid {
        width: 1fr;
        height: 1fr;
        min-height: 6;
        border: round $border-blurred;
        border-title-color: $text;
        color: $foreground;
        display: none;
        &:focus { border: round $border; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*GRID_KEYS]

    @dataclass
    class Enlarged(Message):
        """Draw a family as the large chart."""

        family: str

    class Filtering(Message):
        """Ask for a filter."""

    class Changed(Message):
        """The page, the group or the axes changed, which the board remembers."""

    def __init__(self, chart: LossChart, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._chart = chart
        self.filter = Filter()
        self.group: str | None = None
        """Group of the charts; None for all."""
        self.page_number = 0
        """The page that the user chose; a run with fewer pages shows its last one."""
        self.selected = 0
        """Place of the selected chart on the page."""
        self._page = ChartPage(Shape(1, 1), 0, 1, (), 0)
        self._plan: tuple[object, list[str]] = (None, [])
        self._tiles: list[Tile] = []
        self._boxes: list[Box] = []
        self._layout: object = None
        self._note = ""
        self._frame = 0
        self._spans: dict[int, tuple[int, int]] = {}
        """Changed cells by row, to be repainted."""

    # --- what is shown -----------------------------------------------------------------------------------------

    @property
    def tiles(self) -> Sequence[Tile]:
        """The charts of the page."""
        return self._tiles

    @property
    def page(self) -> ChartPage:
        """The page that is drawn."""
        return self._page

    @property
    def family(self) -> str:
        """Family of the selected chart; empty without charts."""
        shown = self._page.families
        return shown[min(self.selected, len(shown) - 1)] if shown else ""

    def groups(self) -> list[str]:
        """The groups of the charts that the filter accepts."""
        return pages.groups(self._all_families())

    def _all_families(self) -> list[str]:
        """The families with a series that the filter accepts. Computed again when the run has a new series."""
        run = self._chart.trace.run
        key = id(run), len(run.last_values), self.filter
        if self._plan[0] != key:
            self._plan = key, families(name for name in run.last_values if self.filter.matches(name))
        return self._plan[1]

    def _planned(self) -> ChartPage:
        names = self._all_families()
        if self.group is not None and self.group in pages.groups(names):
            names = [family for family in names if pages.group_of(family) == self.group]
        shape = pages.shape_of(len(names), *self.size)
        names = pages.arranged(names, shape)
        count = pages.page_count(len(names), shape)
        number = min(self.page_number, count - 1)
        shown = tuple(names[number * shape.size : (number + 1) * shape.size])
        return ChartPage(shape, number, count, shown, len(names))

    def plan(self) -> tuple[str, ...]:
        """The families that the page shows, before it is drawn."""
        if self.size:
            self._page = self._planned()
        return self._page.families

    # --- drawing -----------------------------------------------------------------------------------------------

    def redraw(self) -> int:
        """Draw new data and return the number of rows of charts that changed."""
        if not self.size:
            return 0
        self.plan()
        self._frame += 1
        self._lay_out()
        self._show_title()
        content = self._content()
        changed = sum(self._draw(place, content) for place in range(len(self._tiles)))
        if any(tile.ranges.gutter < self._gutter for tile in self._tiles):  # a wider label moves the axes of all charts
            for tile in self._tiles:
                tile.ranges.gutter = self._gutter
            changed += sum(self._draw(place, content) for place in range(len(self._tiles)))
        self._repaint()
        return changed

    @property
    def _turns(self) -> int:
        """Frames in which every chart is drawn once. Half of the charts of a large page per frame is half of the bytes."""
        return 1 if len(self._tiles) <= MOST_AT_ONCE else 2

    def _has_turn(self, place: int) -> bool:
        """Whether a chart is drawn in this frame; charts side by side take the same turn."""
        return place // self._page.shape.columns % self._turns == self._frame % self._turns

    @property
    def _gutter(self) -> int:
        return max((tile.ranges.gutter for tile in self._tiles), default=0)

    @property
    def view(self) -> ChartView:
        """The visible part of the x axis, which all charts share."""
        width = self._boxes[0].width - self._gutter if self._boxes else 2
        self._chart.columns = max(2, width)
        return self._chart.view

    def _content(self) -> TileContent:
        return TileContent(self.view, self._chart.cursor, self._chart.marker, self.family)

    def _lay_out(self) -> None:
        """Begin with blank rows if the charts or their places are not the same as before."""
        chart, page = self._chart, self._page
        runs = [[id(run) for run in curve.runs] for curve in (chart.trace, *chart.overlays)]
        layout = self.size, page.shape, page.families, runs, self.filter
        if layout == self._layout:
            return
        self._layout = layout
        accepts = self.filter.matches
        self._tiles = [tiles.tile_of(chart.trace, chart.overlays, family, accepts) for family in page.families]
        self._boxes = pages.boxes(len(self._tiles), page.shape, *self.size)
        self._spans.clear()
        self.replace_rows(self._blank())
        self.refresh()

    def _blank(self) -> list[Row]:
        """Rows without charts: blank, or with a note why there are none."""
        canvas = Canvas(*self.size)
        put_centered(canvas, "" if self._tiles else self._why_empty())
        return canvas.rows()

    def _why_empty(self) -> str:
        if self._chart.trace.run.last_values:
            return f"No series matches {cut(plain_line(self.filter.text), 30)}.\nPress / to change the filter."
        return self._chart.empty_text or "No values yet."

    def _draw(self, place: int, content: TileContent) -> int:
        tile, box = self._tiles[place], self._boxes[place]
        look, data = tile.look(content, box), tile.data(content)
        if look == tile.drawn[0] and (data == tile.drawn[1] or not self._has_turn(place)):
            return 0
        rows = tiles.compose(tile, content, box)
        tile.drawn = tile.look(content, box), data
        return sum(self._put(box.left, box.top + offset, row) for offset, row in enumerate(rows))

    def _put(self, left: int, y: int, row: Row) -> bool:
        """Show the cells of one row of a chart, and repaint those that changed."""
        old, right = self._rows[y], left + len(row.text)
        cells = difference(Row(old.text[left:right], old.roles[left:right]), row)
        if cells is None:
            return False
        text = old.text[:left] + row.text + old.text[right:]
        self._rows[y] = Row(text, old.roles[:left] + row.roles + old.roles[right:])
        self._strips[y] = None
        start, stop = self._spans.get(y, (left + cells[0], left + cells[1]))
        self._spans[y] = min(start, left + cells[0]), max(stop, left + cells[1])
        return True

    def _repaint(self) -> None:
        """Repaint one region per row: Textual sends a row from its left edge on, again for each region in it."""
        for y, (start, stop) in self._spans.items():
            self.refresh(Region(start, y, stop - start, 1))
        self._spans.clear()

    def _show_title(self) -> None:
        """`Charts 1–4 of 12 · loss !val · step 1,234 · log y`, as much as fits."""
        page, chart = self._page, self._chart
        first = page.number * page.shape.size + 1
        parts = [f"Charts {first}–{first + len(page.families) - 1} of {page.total}" if page.count > 1 else "Charts"]
        parts += [self.group or "no group"] if self.group is not None else []
        parts += [plain_line(self.filter.text)] if self.filter.text else []
        parts += self._group()
        parts += [f"step {chart.cursor:,}"] if chart.cursor is not None else []
        parts += self._axes()
        title = parts[0]
        for part in parts[1:]:
            if len(title) + 3 + len(part) <= self.size.width - 4:
                title += f" · {part}"
        set_title(self, title)

    def _group(self) -> list[str]:
        """What the curves and bands are, if runs are drawn as groups: `lr=0.1, mean of 8 runs ± std`."""
        chart = self._chart
        if not any(curve.peers for curve in (chart.trace, *chart.overlays)):
            return []
        runs, band = len(chart.trace.runs), BAND_TEXTS[chart.band]
        return [f"{plain_line(chart.trace.group)}, mean of {runs} runs, {band}" if runs > 1 else f"means, {band}"]

    def _axes(self) -> list[str]:
        """The settings of the axes that are not the defaults."""
        view, chart = self._chart.view, self._chart
        texts = {
            "log y": view.log,
            "log x": view.has_log_x,
            "no outliers": view.hide_outliers,
            f"smooth {view.smoothing:g}": view.smoothing > 0,
            RANGE_TEXTS[chart.range_mode]: chart.range_mode != "whole",
        }
        return [text for text, is_on in texts.items() if is_on]

    def set_footer(self, line: str) -> None:
        """Show a line in the lower border, if it fits."""
        note = plain_line(line)
        note = note if len(note) <= self.size.width - 4 else ""
        if note != self._note:
            self._note = note
            set_subtitle(self, note)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """All available rows."""
        return container.height

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._layout = None
        self.redraw()

    # --- keys --------------------------------------------------------------------------------------------------

    def action_select(self, rows: int, columns: int) -> None:
        """Move the selection; beyond the last chart, to the next page. With a cursor, sideways moves the cursor."""
        if columns and self._chart.cursor is not None:
            self.action_chart("move", columns)
            return
        page = self._page
        place = self.selected + rows * page.shape.columns + columns
        if 0 <= place < len(page.families):
            self.selected = place
        elif place < 0 and page.number > 0:
            self._turn(-1, page.shape.size - 1 if columns else place + page.shape.size)
            return
        elif place >= len(page.families) and page.number < page.count - 1:
            self._turn(1, 0 if columns else place - page.shape.size)
            return
        elif rows > 0 and place // page.shape.columns == (len(page.families) - 1) // page.shape.columns:
            self.selected = len(page.families) - 1  # a shorter last row
        self.redraw()

    def action_page(self, pages_on: int) -> None:
        """Turn pages; after the last one comes the first."""
        if self._page.count > 1:
            self._turn(pages_on, 0)

    def _turn(self, pages_on: int, selected: int) -> None:
        self.page_number = (self._page.number + pages_on) % self._page.count
        self._show_from(selected)

    def _show_from(self, selected: int) -> None:
        """Show the page again, with another selection."""
        self.plan()
        self.selected = max(0, min(selected, len(self._page.families) - 1))
        self.redraw()
        self.post_message(self.Changed())

    def action_next_group(self) -> None:
        """Show the next group of charts; after the last one, all."""
        choices: list[str | None] = [None, *self.groups()]
        place = choices.index(self.group) if self.group in choices else 0
        self.group = choices[(place + 1) % len(choices)] if len(choices) > 2 else None
        self.page_number = 0
        self._show_from(0)

    def show_filter(self, accepted: Filter) -> None:
        """Show the series that a filter accepts."""
        if accepted != self.filter:
            self.filter, self.page_number = accepted, 0
            self._show_from(0)

    def action_enlarge(self) -> None:
        """Draw the selected family as the large chart."""
        if self.family:
            self.post_message(self.Enlarged(self.family))

    def action_filter(self) -> None:
        """Ask for a filter."""
        self.post_message(self.Filtering())

    def action_chart(self, name: str, *arguments: float) -> None:
        """Do what a key of the large chart does: it owns the axes and the cursor."""
        getattr(self._chart, f"action_{name}")(*arguments)
        self.redraw()
        self.post_message(self.Changed())

    # --- mouse -------------------------------------------------------------------------------------------------

    def on_click(self, event: events.Click) -> None:
        """Select the chart under the mouse; the second time, enlarge it."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        for place, box in enumerate(self._boxes):
            if box.left <= offset.x < box.left + box.width and box.top <= offset.y < box.top + box.height:
                if place == self.selected and event.chain > 1:
                    self.action_enlarge()
                else:
                    self.selected = place
                    self.redraw()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Turn to the next page."""
        event.stop()
        if self._page.number < self._page.count - 1:
            self._turn(1, 0)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Turn to the previous page."""
        event.stop()
        if self._page.number > 0:
            self._turn(-1, 0)

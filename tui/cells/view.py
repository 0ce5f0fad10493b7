"""Widgets that show rows: one base that paints, text of its own height, and a page that scrolls.

None has a timer or a clock. Their owner calls them when there is something new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import difference, fitted
from epochtop.tui.cells.styles import COMPONENTS, LOOKS, RULES, component, strip

RowSource = Callable[[int, int], list[Row]]
"""Gives the rows for a width and a number of visible rows."""


class CellWidget(Widget):
    """Abstract: shows rows of equal width and repaints only the cells that change.

    A row is as wide as the content region, or narrower. Rows above and below a scrolled region cost nothing.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = COMPONENTS
    DEFAULT_CSS = f"CellWidget {{ {RULES} }}"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, classes=classes)
        self._rows: list[Row] = []
        self._strips: list[Strip | None] = []
        self._role_styles: dict[int, Style] = {}

    @property
    def rows(self) -> Sequence[Row]:
        """The painted rows, from the first one on."""
        return self._rows

    def paint(self, rows: list[Row]) -> int:
        """Show `rows`, repaint the cells that differ from the rows before, and return the number of changed rows."""
        old = self._rows
        if len(old) != len(rows) or (rows and len(old[0].text) != len(rows[0].text)):
            self.replace_rows(rows)
            self.refresh()
            return len(rows)
        changed, top, height = 0, self.scroll_offset.y, self.size.height
        for y, (before, after) in enumerate(zip(old, rows, strict=True)):
            if cells := difference(before, after):
                old[y], self._strips[y] = after, None
                changed += 1
                if 0 <= y - top < height:
                    self.refresh(Region(cells[0], y - top, cells[1] - cells[0], 1))
        return changed

    def replace_rows(self, rows: list[Row]) -> None:
        """Exchange all rows without a repaint."""
        self._rows, self._strips = rows, [None] * len(rows)

    def render_line(self, y: int) -> Strip:
        """The painted row at `y` of the visible region, padded to its width."""
        place = y + self.scroll_offset.y
        if place >= len(self._rows):
            return Strip.blank(self.size.width, self.rich_style)
        line, width = self._strips[place], self.size.width
        if line is None or line.cell_length != width:
            line = strip(self._rows[place], self._styles()).adjust_cell_length(width, self.rich_style)
            self._strips[place] = line
        return line

    def _styles(self) -> dict[int, Style]:
        if not self._role_styles:
            self._role_styles = {role: self.get_component_rich_style(component(role)) for role in LOOKS}
        return self._role_styles

    def notify_style_update(self) -> None:
        """Drop what depends on the theme or the focus; the rows stay."""
        super().notify_style_update()
        self._strips, self._role_styles = [None] * len(self._rows), {}


class ScrolledCells(CellWidget, ScrollView, can_focus=True):
    """Abstract: rows that scroll.

    Textual takes default CSS from the first base only, so the rules of its ``ScrollView`` are repeated here.
    """

    DEFAULT_CSS = """
    ScrolledCells {
        width: 1fr;
        height: 1fr;
        layout: vertical;
        overflow: auto auto;
        scrollbar-size-vertical: 1;
    }
    """

    def paint(self, rows: list[Row]) -> int:
        """Show `rows` and scroll over all of them."""
        if len(rows) != len(self._rows) or (rows and len(rows[0].text) != len(self._rows[0].text)):
            self.virtual_size = Size(len(rows[0].text) if rows else 0, len(rows))
        return super().paint(rows)


class Words(CellWidget):
    """Rows that do not scroll; the widget is as high as its rows need."""

    DEFAULT_CSS = """
    Words {
        height: auto;
        padding-right: 1;
    }
    """

    def __init__(self, source: Callable[[int], list[Row]], id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._source = source
        self._width = -1

    def show(self, source: Callable[[int], list[Row]]) -> None:
        """Show other rows."""
        self._source, self._width = source, -1
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """A line per row."""
        self._lay_out(width)
        return len(self._rows)

    def render_line(self, y: int) -> Strip:
        """One row."""
        self._lay_out(self.size.width)
        return super().render_line(y)

    def _lay_out(self, width: int) -> None:
        if self._width != width:
            self._width = width
            self.replace_rows([fitted(row, width) for row in self._source(width)])


class Page(ScrolledCells):
    """Rows for the size of the page; :meth:`draw` asks for them again and paints what changed."""

    DEFAULT_CSS = """
    Page {
        overflow-x: hidden;
        scrollbar-gutter: stable;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "up", id="page.up", show=False),
        Binding("down,j", "scroll_down", "down", id="page.down", show=False),
    ]

    def __init__(self, source: RowSource, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._source = source

    def show(self, source: RowSource) -> None:
        """Show something else, from its beginning."""
        self._source = source
        self.scroll_to(y=0, animate=False)
        self.draw()

    def draw(self) -> None:
        """Paint what changed."""
        width, height = self.scrollable_content_region.size
        width -= 1  # a blank column in front of the scroll bar
        if width >= 10 and height >= 2:
            self.paint([fitted(row, width) for row in self._source(width, height)])

    def on_resize(self, event: events.Resize) -> None:
        """Lay out for the new size."""
        self.draw()

    def on_show(self) -> None:
        """Show what changed while the page was hidden."""
        self.draw()

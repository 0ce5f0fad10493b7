"""Rows of characters about an experiment as widgets: a text of its own height, and a page that scrolls.

Neither has a timer or a clock. They are told when there is something new, and repaint the cells that changed.
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

from epochtop.tui.cells.canvas import Row, difference, strip
from epochtop.tui.cells.rows import STYLES, fitted

COMPONENTS = {f"lab--{name}" for name in STYLES.values()}
STYLE_RULES = """
        & > .lab--text { color: $text; }
        & > .lab--quiet { color: $text-muted; }
        & > .lab--strong { color: $text; text-style: bold; }
        & > .lab--good { color: $text-success; }
        & > .lab--bad { color: $text-error; }
        & > .lab--fit { color: $text; }
        & > .lab--series-0 { color: $text-primary; }
        & > .lab--series-1 { color: $text-warning; }
        & > .lab--series-2 { color: $text-secondary; }
        & > .lab--series-3 { color: $text-success; }
        & > .lab--series-4 { color: $text-accent; }
        & > .lab--series-5 { color: $foreground-muted; }
"""
Make = Callable[[int, int], list[Row]]
"""Rows for so many cells and so many visible rows."""


def styles(widget: Widget) -> dict[int, Style]:
    """The style of each role."""
    return {role: widget.get_component_rich_style(f"lab--{name}") for role, name in STYLES.items()}


class Words(Widget):
    """Rows that never scroll by themselves; as high as they are many."""

    COMPONENT_CLASSES: ClassVar[set[str]] = COMPONENTS
    DEFAULT_CSS = f"""
    Words {{
        height: auto;
        padding-right: 1;
        {STYLE_RULES}
    }}
    """

    def __init__(self, make: Callable[[int], list[Row]], id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._make = make
        self._made: tuple[int, list[Row]] = (-1, [])

    def show(self, make: Callable[[int], list[Row]]) -> None:
        """Show other rows."""
        self._make, self._made = make, (-1, [])
        self.refresh(layout=True)

    def rows(self, width: int) -> list[Row]:
        """All rows for so many cells."""
        if self._made[0] != width:
            self._made = (width, self._make(width))
        return self._made[1]

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """A line a row."""
        return len(self.rows(width))

    def render_line(self, y: int) -> Strip:
        """One row."""
        rows = self.rows(self.size.width)
        found = fitted(rows[y], self.size.width) if y < len(rows) else None
        return strip(found, styles(self)) if found else Strip.blank(self.size.width, self.rich_style)


class Page(ScrollView, can_focus=True):
    """Rows that scroll. `make` gives them for a size; :meth:`draw` looks what is new."""

    COMPONENT_CLASSES: ClassVar[set[str]] = COMPONENTS
    DEFAULT_CSS = f"""
    Page {{
        overflow-y: auto;
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        scrollbar-gutter: stable;
        {STYLE_RULES}
    }}
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "up", id="page.up", show=False),
        Binding("down,j", "scroll_down", "down", id="page.down", show=False),
    ]

    def __init__(self, make: Make, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._make = make
        self._rows: list[Row] = []

    @property
    def rows(self) -> Sequence[Row]:
        """What is drawn, from the first row on."""
        return self._rows

    def show(self, make: Make) -> None:
        """Show something else, from its beginning."""
        self._make = make
        self.scroll_to(y=0, animate=False)
        self.draw()

    def draw(self) -> None:
        """Take in what is new; only cells that changed are painted."""
        width, height = self.scrollable_content_region.size
        width -= 1  # the scroll bar touches nothing
        if width < 10 or height < 2:
            return
        old, self._rows = self._rows, [fitted(found, width) for found in self._make(width, height)]
        if len(old) != len(self._rows) or (old and len(old[0][0]) != width):
            self.virtual_size = Size(width, len(self._rows))
            self.refresh()
            return
        for y, (before, after) in enumerate(zip(old, self._rows, strict=True), -self.scroll_offset.y):
            if 0 <= y < height and (cells := difference(before, after)):
                self.refresh(Region(cells[0], y, cells[1] - cells[0], 1))

    def on_resize(self, event: events.Resize) -> None:
        """Lay out anew."""
        self.draw()

    def on_show(self) -> None:
        """Take in what has come while it was hidden."""
        self.draw()

    def render_line(self, y: int) -> Strip:
        """One visible row."""
        place = y + self.scroll_offset.y
        if place >= len(self._rows):
            return Strip.blank(self.size.width, self.rich_style)
        return strip(self._rows[place], styles(self)).adjust_cell_length(self.size.width, self.rich_style)

"""A table of any length: only visible rows are composed. The first columns stay, the others scroll under them.

It has no timer and no clock, and asks its owner for the cells of a row when it draws the row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip

from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import HEADING, QUIET, STRONG, cut, fitted, row, shortened
from epochtop.tui.cells.styles import COMPONENTS, strip
from epochtop.tui.cells.view import ScrolledCells

GAP = 2
"""Blanks between two columns."""

Cell = tuple[str, int]
"""A text and its role."""


class TableColumn(NamedTuple):
    """A column as it is drawn."""

    key: str
    label: str
    width: int
    at_right: bool = False
    """Whether its texts end at the right edge, as numbers do."""
    keeps_end: bool = False
    """Whether a text that is too long keeps its last characters, where ids differ."""


class CellTable(ScrolledCells):
    """Rows with a cursor, columns with a cursor, and headings that can be clicked."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*COMPONENTS, "table--cursor", "table--heading"}
    DEFAULT_CSS = """
    CellTable {
        overflow-x: hidden;
        overflow-y: auto;
        & > .table--cursor { background: $block-cursor-blurred-background; }
        &:focus > .table--cursor { background: $block-cursor-background; color: $block-cursor-foreground; text-style: $block-cursor-text-style; }
        & > .table--heading { background: $panel; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "up", id="table.up", show=False),
        Binding("down,j", "move(1)", "down", id="table.down", show=False),
        Binding("pageup", "page(-1)", "page up", id="table.page_up", show=False),
        Binding("pagedown", "page(1)", "page down", id="table.page_down", show=False),
        Binding("home", "move(-1000000000)", "first", id="table.first", show=False),
        Binding("end", "move(1000000000)", "last", id="table.last", show=False),
    ]

    class Moved(Message):
        """The cursor is on another row."""

    @dataclass
    class RowClicked(Message):
        """A row was clicked; the cursor is there now."""

        twice: bool

    @dataclass
    class HeadingClicked(Message):
        """A heading was clicked."""

        key: str

    @dataclass
    class MarkClicked(Message):
        """The first column of a row was clicked."""

        index: int

    def __init__(self, *, fixed: int, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        """`fixed` columns do not scroll."""
        super().__init__(id=id)
        self._fixed = fixed
        self._columns: Sequence[TableColumn] = ()
        self._cells: Callable[[int], Sequence[Cell]] = lambda index: ()
        self.count = 0
        """Number of rows."""
        self.cursor = 0
        """Index of the row at the cursor."""
        self.column = fixed - 1
        """Index of the column at the cursor."""
        self.sorted_by: tuple[str, str] = ("", "")
        """Key of the column that decides the order, and its mark."""
        self.empty_text = ""
        """What a table without rows shows."""
        self._drawn: dict[tuple[int, int, int], Strip] = {}
        """Rows that were drawn, by index, first cell and width."""
        self._left = 0
        """Cells of the scrolled columns that are left of the visible part; it begins with a whole column."""

    def show_rows(self, columns: Sequence[TableColumn], count: int, cells: Callable[[int], Sequence[Cell]]) -> None:
        """Show `count` rows; `cells` gives the texts of one, a text per column."""
        self._columns, self._cells, self.count = columns, cells, count
        self.cursor = max(0, min(self.cursor, count - 1))
        self.column = max(0, min(self.column, len(columns) - 1))
        if self.virtual_size.height != count + 1:
            self.virtual_size = Size(1, count + 1)
        self._scroll_to_column()
        self.redraw()

    @property
    def column_key(self) -> str:
        """Key of the column at the cursor."""
        return self._columns[self.column].key

    @property
    def visible_rows(self) -> range:
        """Indices of the rows that are on the screen."""
        top = self.scroll_offset.y
        return range(top, max(top, min(self.count, top + self.size.height - 1)))

    def redraw(self) -> None:
        """Ask for the cells of all rows again."""
        self._drawn = {}
        self.refresh()

    def notify_style_update(self) -> None:
        """Drop what depends on the theme or the focus."""
        super().notify_style_update()
        self._drawn = {}

    def redraw_row(self, index: int) -> None:
        """Ask for the cells of a row again."""
        self._drawn = {place: line for place, line in self._drawn.items() if place[0] != index}
        self.refresh_row(index)

    def refresh_row(self, index: int) -> None:
        """Paint a row again."""
        self.refresh(Region(0, index - self.scroll_offset.y + 1, self.size.width, 1))

    def scroll_to_cursor(self) -> None:
        """Make the row at the cursor visible; the heading covers one line.

        Forced, because Textual ignores a scroll until it has laid out the scrollbar, which is after the first key.
        """
        height, top = self.size.height - 1, self.scroll_offset.y
        if height < 1:
            return
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, force=True)

    def on_resize(self, event: events.Resize) -> None:
        """Keep both cursors visible."""
        self._scroll_to_column()
        self.scroll_to_cursor()
        self.refresh()

    # --- moving ------------------------------------------------------------------------------------------------

    def action_move(self, rows: int) -> None:
        """Move the cursor."""
        self.move_to(self.cursor + rows)

    def action_page(self, pages: int) -> None:
        """Move the cursor by pages."""
        self.move_to(self.cursor + pages * max(1, self.size.height - 2))

    def move_to(self, index: int) -> None:
        """Put the cursor on a row."""
        index = max(0, min(index, self.count - 1))
        if index == self.cursor:
            return
        before, self.cursor = self.cursor, index
        self.scroll_to_cursor()
        self.refresh_row(before)
        self.refresh_row(index)
        self.post_message(self.Moved())

    def move_column(self, columns: int) -> None:
        """Put the column cursor on another column."""
        self.column = max(self._fixed - 1, min(self.column + columns, len(self._columns) - 1))
        self._scroll_to_column()
        self.refresh()

    def _scroll_to_column(self) -> None:
        room = self.size.width - self._fixed_width
        if self.column < self._fixed or room <= 0 or not self._columns:
            self._left = 0
            return
        starts = [0]
        for column in self._columns[self._fixed : self.column + 1]:
            starts.append(starts[-1] + column.width + GAP)
        *starts, stop = starts
        needed = next(start for start in [*starts, stop] if start >= min(stop - room, starts[-1]))
        self._left = min(max(self._left, needed), starts[-1])

    @property
    def _fixed_width(self) -> int:
        return sum(column.width + GAP for column in self._columns[: self._fixed])

    # --- the mouse ---------------------------------------------------------------------------------------------

    def on_click(self, event: events.Click) -> None:
        """A heading, a mark, or a row."""
        offset = event.get_content_offset(self)
        if offset is None or not self._columns:
            return
        column = self._column_at(offset.x)
        index = self.scroll_offset.y + offset.y - 1
        if offset.y == 0:
            if column is not None:
                self.column = max(self._fixed - 1, column)
                self.post_message(self.HeadingClicked(self._columns[column].key))
        elif index < self.count:
            self.move_to(index)
            if column == 0:
                self.post_message(self.MarkClicked(index))
            else:
                self.post_message(self.RowClicked(event.chain == 2))

    def _column_at(self, x: int) -> int | None:
        """Index of the column at a cell of the visible part."""
        place = x if x < self._fixed_width else x + self._left
        start = 0
        for index, column in enumerate(self._columns):
            start += column.width + GAP
            if place < start:
                return index
        return None

    # --- drawing -----------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """The heading, or one row."""
        width = self.size.width
        if y == 0:
            return self._marked(self._painted(self._heading(width)), "table--heading")
        index = self.scroll_offset.y + y - 1
        if index >= self.count:
            if not self.count and y == min(3, self.size.height - 1):
                return self._painted(fitted(row(("  ", QUIET), (cut(self.empty_text, width - 2), QUIET)), width))
            return Strip.blank(width, self.rich_style)
        place = (index, self._left, width)
        line = self._drawn.get(place)
        if line is None:
            line = self._drawn[place] = self._painted(self._line(index, width))
        return self._marked(line, "table--cursor") if index == self.cursor else line

    def _marked(self, line: Strip, name: str) -> Strip:
        """A line in the style of a component."""
        style = self.get_component_styles(name)
        over = Style(
            color=style.color.rich_color if name == "table--cursor" and self.has_focus else None,
            bgcolor=(self.background_colors[1] + style.background).rich_color,
        )
        return Strip(Segment.apply_style(line, None, over), line.cell_length)

    def _painted(self, line: Row) -> Strip:
        return strip(line, self._styles())

    def line(self, index: int) -> str:
        """The visible text of a row."""
        return self._line(index, self.size.width).text.rstrip()

    def _line(self, index: int, width: int) -> Row:
        parts = [
            (_placed(text, column) + " " * GAP, role)
            for (text, role), column in zip(self._cells(index), self._columns, strict=True)
        ]
        return self._visible(parts, width)

    def _heading(self, width: int) -> Row:
        key, mark = self.sorted_by
        parts = [
            (
                _placed(f"{column.label}{mark}" if column.key == key else column.label, column) + " " * GAP,
                STRONG if index == self.column and self.has_focus else HEADING,
            )
            for index, column in enumerate(self._columns)
        ]
        heading = self._visible(parts, width)
        total = sum(len(text) for text, _ in parts) - GAP
        if self._left + width < total:
            heading = Row(heading.text[:-1] + "›", (*heading.roles[:-1], QUIET))
        if self._left:
            place = self._fixed_width - 1
            heading = Row(
                f"{heading.text[:place]}‹{heading.text[place + 1 :]}",
                (*heading.roles[:place], QUIET, *heading.roles[place + 1 :]),
            )
        return heading

    def _visible(self, parts: Sequence[Cell], width: int) -> Row:
        """Fixed columns, and those scrolled columns that are whole: part of a number would mislead."""
        whole = row(*parts)
        fixed = self._fixed_width
        start = fixed + self._left
        text, roles = whole
        stop = self._last_whole(width)
        return fitted(Row(text[:fixed] + text[start:stop], roles[:fixed] + roles[start:stop]), width)

    def _last_whole(self, width: int) -> int:
        """Where the last column ends that fits into the visible part; a column that is wider is cut."""
        edge, end, last = width + self._left, 0, 0
        for column in self._columns:
            if end + column.width > edge:
                break
            end += column.width + GAP
            last = end
        return last if last > self._fixed_width + self._left else edge


def _placed(text: str, column: TableColumn) -> str:
    """A text in the width of its column."""
    width = column.width
    if len(text) > width:
        return shortened(text, width) if column.keeps_end else cut(text, width)
    return text.rjust(width) if column.at_right else text.ljust(width)

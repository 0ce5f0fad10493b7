"""Everything about the machine over the whole screen, drawn from what the panel reads. Keys move over the GPUs."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from epochtop.tui.cells.gauges import Row
from epochtop.tui.machine.page_rows import sheet
from epochtop.tui.machine.panel import STYLE_RULES, STYLES, MachinePanel, changed_cells, segments
from epochtop.tui.machine.rows import place_of
from epochtop.tui.machine.view import MachineView


class MachineSheet(ScrollView, can_focus=True):
    """All rows about the machine of `panel`. Only cells that changed are painted again, and none while it is hidden."""

    DEFAULT_CSS = f"""
    MachineSheet {{
        overflow-y: scroll;
        scrollbar-size-vertical: 1;
        padding: 0 1;
        {STYLE_RULES}
    }}
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"machine--{style}" for style in STYLES}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter", "leave", "back", id="sheet.leave", tooltip="Back to the chart"),
        Binding("left", "select(-1)", "GPU before", id="sheet.before", tooltip="Show the GPU before"),
        Binding("right", "select(1)", "next GPU", id="sheet.next", tooltip="Show the next GPU"),
    ]

    class Left(Message):
        """Enough has been seen."""

    def __init__(self, panel: MachinePanel, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.border_title = "Machine"
        self._panel = panel
        self._rows: list[Row] = []

    def on_mount(self) -> None:
        """Follow what the panel reads."""
        self._panel.changed.subscribe(self, self._changed)

    def _changed(self, _view: MachineView) -> None:
        self.draw()

    def on_show(self) -> None:
        """Take in what has come while it was hidden."""
        self.draw()

    def on_resize(self, event: events.Resize) -> None:
        """Lay out anew."""
        self.draw()

    def draw(self) -> None:
        """Take in what has changed."""
        width, machine = self.scrollable_content_region.width, self._panel.view.machine
        if not width or not self.is_on_screen:
            return
        title = f"Machine · {place_of(machine)}" if machine else "Machine"
        if title != self.border_title:
            self.border_title = title
        old, self._rows = self._rows, sheet(self._panel.view, width)
        if len(old) != len(self._rows):
            self.virtual_size = Size(width, len(self._rows))
            self.refresh()
            return
        top = self.scroll_offset.y
        for y, (before, after) in enumerate(zip(old, self._rows, strict=True)):
            if 0 <= y - top < self.size.height and (cells := changed_cells(before, after)):
                self.refresh(Region(cells[0], y - top, cells[1] - cells[0], 1))

    def render_line(self, y: int) -> Strip:
        """One visible row."""
        place = y + self.scroll_offset.y
        row = self._rows[place] if place < len(self._rows) else ()
        found = segments(self, row, self._panel.view.stale)
        return Strip(found).adjust_cell_length(self.size.width, self.visual_style.rich_style)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys for other GPUs only where there are some."""
        machine = self._panel.view.machine
        return action != "select" or bool(machine and len(machine.gpus) > 1)

    def action_select(self, by: int) -> None:
        """Look at another GPU."""
        self._panel.action_select(by)

    def action_leave(self) -> None:
        """Back to what was there before."""
        self.post_message(self.Left())

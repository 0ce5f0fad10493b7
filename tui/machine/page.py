"""The full page about the machine. It draws what the panel reads and never reads a sensor itself."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from epochtop.tui.cells.plain import set_title
from epochtop.tui.cells.rows import fitted
from epochtop.tui.cells.view import ScrolledCells
from epochtop.tui.machine.facts import host_text
from epochtop.tui.machine.page_rows import sheet
from epochtop.tui.machine.panel import MachinePanel
from epochtop.tui.machine.view import MachineView


class MachineSheet(ScrolledCells):
    """Every fact about the machine of `panel`. Draws nothing while it is hidden."""

    DEFAULT_CSS = """
    MachineSheet {
        overflow-y: scroll;
        padding: 0 1;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter", "leave", "back", id="sheet.leave", tooltip="Back to the chart"),
        Binding("left", "select(-1)", "previous GPU", id="sheet.before", tooltip="Show the previous GPU"),
        Binding("right", "select(1)", "next GPU", id="sheet.next", tooltip="Show the next GPU"),
    ]

    class Left(Message):
        """The user leaves the page."""

    def __init__(self, panel: MachinePanel, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.border_title = "Machine"
        self._panel = panel

    def on_mount(self) -> None:
        """Follow what the panel reads."""
        self._panel.changed.subscribe(self, self._changed)

    def _changed(self, _view: MachineView) -> None:
        self.draw()

    def on_show(self) -> None:
        """Show what changed while the page was hidden."""
        self.draw()

    def on_resize(self, event: events.Resize) -> None:
        """Lay out for the new size."""
        self.draw()

    def draw(self) -> None:
        """Paint what changed."""
        (width, height), machine = self.scrollable_content_region.size, self._panel.view.machine
        if not width or not self.is_on_screen:
            return
        set_title(self, f"Machine · {host_text(machine)}" if machine else "Machine")
        self.paint([fitted(row, width) for row in sheet(self._panel.view, width, height)])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the keys that switch GPUs only on a machine with several."""
        machine = self._panel.view.machine
        return action != "select" or bool(machine and len(machine.gpus) > 1)

    def action_select(self, by: int) -> None:
        """Show another GPU."""
        self._panel.action_select(by)

    def action_leave(self) -> None:
        """Close the page."""
        self.post_message(self.Left())

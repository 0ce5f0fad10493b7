"""Everything about the machine on a page of its own, drawn from what the panel reads. Keys move over the GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.screen import Screen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Footer, Label

from tui.gauges import Row
from tui.machine_rows import place_of
from tui.machine_sheet import sheet
from tui.machine_view import MachineView

if TYPE_CHECKING:
    from tui.machine import MachinePanel


class MachineSheet(ScrollView, can_focus=True):
    """The rows of the page. Only rows that changed are painted again."""

    DEFAULT_CSS = """
    MachineSheet {
        & > .machine--value { color: $text; }
        & > .machine--label { color: $text-muted; }
        & > .machine--graph { color: $text-primary; }
        & > .machine--unknown { color: $text-muted; }
        & > .machine--stale { color: $text-disabled; }
        & > .machine--heading { color: $text-muted; text-style: bold; }
        & > .machine--bad { color: $text-error; }
        & > .machine--good { color: $text; text-style: bold; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"machine--{style}" for style in ("value", "label", "graph", "unknown", "stale", "heading", "bad", "good")
    }

    def __init__(self, view: MachineView) -> None:
        super().__init__(id="sheet")
        self._view = view
        self._rows: list[Row] = []

    def on_resize(self, event: events.Resize) -> None:
        """Lay out anew."""
        self.draw()

    def draw(self) -> None:
        """Take in what has changed."""
        from tui.machine import changed_cells

        width = self.scrollable_content_region.width
        old, self._rows = self._rows, sheet(self._view, width)
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
        from tui.machine import segments

        place = y + self.scroll_offset.y
        row = self._rows[place] if place < len(self._rows) else ()
        return Strip(segments(self, row, self._view.stale)).adjust_cell_length(
            self.size.width, self.visual_style.rich_style
        )


class MachinePage(Screen[None]):
    """The sheet of one machine."""

    DEFAULT_CSS = """
    MachinePage {
        & > #place { width: 1fr; background: $panel; padding: 0 1; text-style: bold; }
        & > #sheet { height: 1fr; padding: 0 1; overflow-y: scroll; scrollbar-size-vertical: 1; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,3,q,enter", "leave", "back", id="page.leave", tooltip="Back to the chart"),
        Binding("left", "select(-1)", "GPU before", id="page.before", tooltip="Show the GPU before"),
        Binding("right", "select(1)", "next GPU", id="page.next", tooltip="Show the next GPU"),
    ]

    def __init__(self, panel: MachinePanel) -> None:
        super().__init__()
        self._panel = panel
        self._sheet = MachineSheet(panel.view)

    def compose(self) -> ComposeResult:
        """Name, sheet, keys."""
        machine = self._panel.view.machine
        yield Label(f"Machine · {place_of(machine)}" if machine else "Machine", id="place", markup=False)
        yield self._sheet
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        """Follow what the panel reads."""
        self._panel.changed.subscribe(self, self._changed)
        self._sheet.focus()

    def _changed(self, _view: MachineView) -> None:
        self._sheet.draw()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys for other GPUs only where there are some."""
        machine = self._panel.view.machine
        return action != "select" or bool(machine and len(machine.gpus) > 1)

    def action_select(self, by: int) -> None:
        """Look at another GPU."""
        self._panel.action_select(by)

    def action_leave(self) -> None:
        """Back to the chart."""
        self.dismiss()

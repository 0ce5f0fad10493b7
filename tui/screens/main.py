"""The main screen: its regions, its layouts, and the keys that move between regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Label

from epochtop.tui.board.board import Board
from epochtop.tui.cells.plain import PlainText, plain
from epochtop.tui.screens import status
from epochtop.tui.screens.layout import SMALLEST, size_classes

if TYPE_CHECKING:
    from textual.widgets import RichLog

    from epochtop.tui.forms.run_form import SpecForm
    from epochtop.tui.machine.panel import MachinePanel
    from epochtop.tui.screens.run_list import RunList

PAGES = {"form": "1 Train", "runs": "2 Runs", "machine": "3 Machine", "log": "5 Log"}
TABS = {"form": PAGES["form"], "runs": PAGES["runs"], "machine": PAGES["machine"], "lab": "4 Lab", "log": PAGES["log"]}
"""Regions and the Lab page."""
EMPTY = """\
No runs yet. Three ways to begin:

ctrl+s  train Iris, a few seconds (settings: 1)
R       run a script:  epochtop run python train.py
O       open logs:     epochtop open PATH"""
EMPTY_AMONG_RUNS = """\
No run open.

2       browse runs; enter opens one
ctrl+s  start one (settings: 1)
R       run a script
O       open logs"""
FIRST_KEYS = ("app.start", "app.pause", "app.stop", "screen.table", "app.lab", "app.help", "app.quit")
"""Keys that even a narrow footer shows. Those of the list of runs follow, then the app's others, then those of other regions."""
LAST_KEYS = ("app.anatomy", "app.metrics", "app.boundary", "app.script", "app.logs")
"""Keys after those of the focused region."""


class Tab(Label):
    """A region's name; a click shows the region."""

    def __init__(self, page: str) -> None:
        super().__init__(plain(TABS[page]), id=f"tab-{page}")
        self._page = page

    async def on_click(self) -> None:
        """Show the region."""
        await self.run_action("app.lab" if self._page == "lab" else f"screen.page('{self._page}')")


class MainScreen(Screen[None]):
    """Title, chart, runs, log, machine, form, status, keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "page('form')", "train", id="screen.form", tooltip="The settings of the next run", show=False),
        Binding("2", "page('runs')", "runs", id="screen.runs", tooltip="The list of runs", show=False),
        Binding("3", "page('machine')", "machine", id="screen.machine", tooltip="This machine", show=False),
        Binding("5", "page('log')", "log", id="screen.log", tooltip="The log of the open run", show=False),
        Binding("t", "table", "table", id="screen.table", tooltip="The table of all runs: sort, filter, group, draw"),
        Binding("0", "focus_chart", "chart", id="screen.chart", tooltip="Back to the chart", show=False),
    ]

    class Drawn(Message):
        """The first frame is out."""

    runs: RunList
    machine: MachinePanel
    form: SpecForm
    log_lines: RichLog

    def __init__(self, home: Path | None = None) -> None:
        """`home` is where the board remembers its layout."""
        super().__init__()
        self._page = "runs"
        self.show_table: Callable[[], None] = lambda: None
        """Opens the table of all runs; set by the app."""
        self.title_line = status.StatusLine("title")
        self.board = Board(home, empty_text=EMPTY, id="board")
        self.chart = self.board.chart
        self.status_line = status.StatusLine("status")

    # --- building ----------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """The regions of the first frame."""
        yield self.title_line
        with Horizontal(id="tabs"):
            for page in TABS:
                yield Tab(page)
        with Horizontal(id="body"), Vertical(id="left"):
            yield self.board
        yield PlainText(f"epochtop needs {SMALLEST[0]} × {SMALLEST[1]} characters", id="tiny")
        yield self.status_line

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """The keys of the footer and the help, the most important first."""
        bindings = super().active_bindings
        return dict(sorted(bindings.items(), key=lambda item: _rank(item[1].binding)))

    def on_mount(self) -> None:
        """Draw the first frame, then report it."""
        self.apply_layout()
        self.board.focus_view()
        self.call_after_refresh(self.post_message, self.Drawn())

    async def furnish(self, runs: RunList, machine: MachinePanel, form: SpecForm) -> None:
        """Add the regions that the first frame does not need."""
        from textual.widgets import RichLog

        from epochtop.tui.cells.key_footer import KeyFooter
        from epochtop.tui.machine.page import MachineSheet

        self.runs, self.machine, self.form = runs, machine, form
        self.log_lines = RichLog(id="log", max_lines=1000, wrap=True, min_width=20, markup=False)
        self.log_lines.border_title = "Log"
        await self.query_one("#left").mount(self.runs, self.log_lines)
        await self.query_one("#body").mount(Vertical(self.machine, self.form, id="right"))
        await self.mount(MachineSheet(self.machine, id="sheet"), before="#status")
        await self.mount(KeyFooter())
        self.apply_layout()

    # --- layout ------------------------------------------------------------------------------------------

    def apply_layout(self, classes: Mapping[str, bool] | None = None) -> None:
        """Apply the layout for the current size and the selected region, and set or remove other classes with it."""
        pages = {f"-page-{page}": page == self._page for page in PAGES}
        self.update_classes(size_classes(self.app.size) | pages | dict(classes or {}))
        for page in PAGES:
            self.query_one(f"#tab-{page}").set_class(page == self._page, "-on")

    @on(events.Resize)
    def _resized(self) -> None:
        self.apply_layout()

    def action_page(self, page: str) -> None:
        """Show a region and focus it. The second time, the log closes, and the machine or the runs fill the page."""
        if page == "machine" and (self.machine.has_focus or self.has_class("-sheet")):
            self.show_sheet(not self.has_class("-sheet"))
            return
        if page == "runs" and self.runs.has_focus:
            self.action_table()
            return
        again = page == "log" and self._page == "log" and not self.has_class("-compact")
        self._page = "runs" if again else page
        self.apply_layout({"-sheet": False, "-full": False, "-log": self._page == "log"})
        self._focus(self._page if not again else "chart")

    def action_fill(self) -> None:
        """Show the charts alone, or all regions again."""
        self.toggle_class("-full")

    def action_table(self) -> None:
        """Open the table of all runs."""
        self.show_table()

    def on_machine_panel_opened(self) -> None:
        """Show the machine page."""
        self.show_sheet(True)

    def on_machine_sheet_left(self) -> None:
        """Show the regions again."""
        self.show_sheet(False)

    def show_sheet(self, visible: bool) -> None:
        """Show the machine page instead of the regions, or the regions again."""
        self.set_class(visible, "-sheet")
        self.query_one("#sheet" if visible else "#machine").focus()

    def _focus(self, region: str) -> None:
        if region == "form":
            self.form.focus_first()
        elif region == "chart":
            self.board.focus_view()
        else:
            self.query_one(f"#{region}").focus()

    def action_focus_chart(self) -> None:
        """Focus the chart."""
        self.remove_class("-sheet")
        self.board.focus_view()


def _rank(binding: Binding) -> int:
    name = binding.id or ""
    if name in FIRST_KEYS:
        return FIRST_KEYS.index(name)
    if name.startswith("runs."):
        return len(FIRST_KEYS)
    if name in LAST_KEYS:
        return len(FIRST_KEYS) + 3
    return len(FIRST_KEYS) + (1 if name.startswith("app.") else 2)

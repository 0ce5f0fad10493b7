"""The main screen: its regions, its layouts, and the keys that move between regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.geometry import Size
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Label

from epochtop.tui.cells.plain import PlainText, plain, set_title
from epochtop.tui.screens.layout import MACHINE_ROWS, size_classes
from epochtop.tui.screens.opening import PAGES, SELECTED, TABS, TITLES, TOO_SMALL, OpeningApp, OpeningFrame

if TYPE_CHECKING:  # the first frame does not need these
    from textual.widgets import RichLog

    from epochtop.tui.board.board import Board
    from epochtop.tui.chart.loss_chart import LossChart
    from epochtop.tui.forms.run_form import SpecForm
    from epochtop.tui.machine.panel import MachinePanel
    from epochtop.tui.screens.run_list import RunList
    from epochtop.tui.screens.status import StatusLine

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


class Placeholder(Widget):
    """An empty region, in place of one that is built later."""

    DEFAULT_CSS = """
    Placeholder { height: 1fr; }
    """

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        set_title(self, TITLES[name])

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """That of a machine panel that does not know its machine."""
        return MACHINE_ROWS - 2

    def render(self) -> str:
        """Nothing; Textual would show the name of the class."""
        return ""


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

    title_line: StatusLine
    status_line: StatusLine
    board: Board
    chart: LossChart
    runs: RunList
    machine: MachinePanel
    form: SpecForm
    log_lines: RichLog

    def __init__(self, home: Path, frame: OpeningFrame) -> None:
        """`home` is where the board remembers its layout. `frame` is the first frame."""
        super().__init__()
        self._home, self._frame = home, frame
        self._page = SELECTED
        self._is_built = False
        self.show_table: Callable[[], None] = lambda: None
        """Opens the table of all runs; set by the app."""

    # --- building ----------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """The first frame."""
        yield self._frame

    def on_mount(self) -> None:
        """Report the first frame when it is drawn."""
        self.call_after_refresh(self.app.post_message, OpeningApp.Drawn())

    async def build(self) -> None:
        """Replace the first frame by the chart, and by placeholders for the regions that :meth:`furnish` brings."""
        from epochtop.tui.board.board import Board
        from epochtop.tui.cells.key_footer import KeyFooter
        from epochtop.tui.screens.status import StatusLine

        self.title_line, self.status_line = StatusLine("title"), StatusLine("status")
        self.board = Board(self._home, empty_text=EMPTY, id="board")
        self.chart = self.board.chart
        left = Vertical(self.board, Placeholder("runs"), Placeholder("log"), id="left")
        right = Vertical(Placeholder("machine"), Placeholder("form"), id="right")
        with self.app.batch_update():
            self._frame.remove()
            await self.mount(
                self.title_line,
                Horizontal(*map(Tab, TABS), id="tabs"),
                Horizontal(left, right, id="body"),
                PlainText(TOO_SMALL, id="tiny"),
                self.status_line,
                KeyFooter(),
            )
            self._is_built = True
            self.apply_layout()
        self.board.focus_view()

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """The keys of the footer and the help, the most important first."""
        bindings = super().active_bindings
        return dict(sorted(bindings.items(), key=lambda item: _rank(item[1].binding)))

    async def furnish(self, runs: RunList, machine: MachinePanel, form: SpecForm) -> None:
        """Put the regions in place of their placeholders."""
        from textual.widgets import RichLog

        from epochtop.tui.machine.page import MachineSheet

        self.runs, self.machine, self.form = runs, machine, form
        self.log_lines = RichLog(id="log", max_lines=1000, wrap=True, min_width=20, markup=False)
        self.log_lines.border_title = "Log"
        with self.app.batch_update():
            await self.query(Placeholder).remove()
            left, right = self.query_one("#left"), self.query_one("#right")
            mounting = [
                left.mount(self.runs, self.log_lines),
                right.mount(self.machine, self.form),
                self.mount(MachineSheet(self.machine, id="sheet"), before="#status"),
            ]
            for mounted in mounting:
                await mounted
        self.apply_layout()
        self.refresh()  # what changed meanwhile, such as the size, was not painted

    # --- layout ------------------------------------------------------------------------------------------

    def apply_layout(self, classes: Mapping[str, bool] | None = None) -> None:
        """Apply the layout for the current size and the selected region, and set or remove other classes with it."""
        pages = {f"-page-{page}": page == self._page for page in PAGES}
        self.update_classes(size_classes(self.app.size) | pages | dict(classes or {}))
        for page in PAGES:
            self.query_one(f"#tab-{page}").set_class(page == self._page, "-on")

    @on(events.Resize)
    def _resized(self) -> None:
        if self._is_built:
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

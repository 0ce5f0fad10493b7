"""The chart region: one large chart, or the grid. It switches between them, filters, and remembers the choice.

Never imports the app or a screen.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical

from epochtop.tui.board.filter import FilterError, parse
from epochtop.tui.board.filter_line import FilterLine
from epochtop.tui.board.grid import Grid
from epochtop.tui.board.keys import BOARD_KEYS
from epochtop.tui.board.memory import FILE, BoardSettings, Memory, SettingsError, Unit, load
from epochtop.tui.chart.loss_chart import LossChart

WAIT_S = 1.0
"""Longest wait for the settings to be written when the app closes."""


class Board(Vertical):
    """The large chart and the grid, of which one is visible."""

    DEFAULT_CSS = """
    Board {
        width: 1fr;
        height: 1fr;
        &.-grid LossChart { display: none; }
        &.-grid Grid { display: block; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*BOARD_KEYS]

    def __init__(self, home: Path | None, *, empty_text: str = "", id: str | None = None) -> None:  # noqa: A002
        """`home` has the file of settings; None remembers nothing."""
        super().__init__(id=id)
        self.chart = LossChart(empty_text=empty_text, id="chart")
        self.grid = Grid(self.chart, id="grid")
        self._memory = Memory(home / FILE) if home is not None else None
        self._saved = BoardSettings()
        self._enlarged = False
        """Whether the large chart was opened from the grid, so that esc returns."""

    def compose(self) -> ComposeResult:
        """Both; one is hidden."""
        yield self.chart
        yield self.grid

    def on_mount(self) -> None:
        """Begin as the user left it."""
        try:
            self._apply(load(self._memory.path) if self._memory else self._saved)
        except SettingsError as error:
            self.app.notify(str(error), title="board settings", severity="warning")
        for name in ("log_scale", "log_x", "hide_outliers", "smoothing", "band", "unit"):
            self.watch(self.chart, name, self.remember, init=False)

    # --- what is visible ---------------------------------------------------------------------------------------

    @property
    def shows_grid(self) -> bool:
        """Whether the grid is visible."""
        return self.has_class("-grid")

    @property
    def families(self) -> tuple[str, ...]:
        """The families that the grid shows; none while it is hidden."""
        return self.grid.plan() if self.shows_grid else ()

    def redraw(self) -> int:
        """Draw new data; returns the number of rows that changed."""
        return self.grid.redraw() if self.shows_grid else self.chart.redraw()

    def set_footer(self, line: str) -> None:
        """Show a line in the lower border."""
        self.chart.set_footer(line)
        self.grid.set_footer(line)

    def focus_view(self) -> None:
        """Focus what is visible."""
        (self.grid if self.shows_grid else self.chart).focus()

    def show_grid(self, visible: bool) -> None:
        """Show the grid, or the large chart."""
        focused = self.has_focus_within
        self._enlarged = False
        self.set_class(visible, "-grid")
        if not visible:
            self.chart.columns = None
        if focused:
            self.focus_view()
        self.refresh_bindings()
        self.remember()

    # --- keys --------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key works now."""
        return self._enlarged and not self.shows_grid if action == "back" else True

    def action_toggle_grid(self) -> None:
        """The grid, or the large chart."""
        self.show_grid(not self.shows_grid)

    def action_back(self) -> None:
        """Back to the grid."""
        self.show_grid(True)

    def on_grid_enlarged(self, event: Grid.Enlarged) -> None:
        """Draw the family as the large chart."""
        event.stop()
        self.post_message(LossChart.Picked(event.family))
        self.set_class(False, "-grid")
        self.chart.columns = None
        self._enlarged = True
        self.chart.focus()
        self.refresh_bindings()

    async def on_grid_filtering(self, event: Grid.Filtering) -> None:
        """Open the line for a filter."""
        event.stop()
        if not self.query(FilterLine):
            await self.mount(FilterLine(self.grid.filter))
        await self.grid.hand_over(self.query_one(FilterLine).entry)

    def on_filter_line_typed(self, event: FilterLine.Typed) -> None:
        """Show the result while the user types."""
        event.stop()
        self.grid.show_filter(event.filter)

    async def on_filter_line_closed(self, event: FilterLine.Closed) -> None:
        """Keep the filter."""
        event.stop()
        self.grid.show_filter(event.filter)
        await self.query(FilterLine).remove()
        self.focus_view()
        self.remember()

    # --- memory ------------------------------------------------------------------------------------------------

    @on(Grid.Changed)
    def remember(self) -> None:
        """Write the choices, if they changed."""
        if self._memory is None:
            return
        settings = self._settings()
        if settings != self._saved:
            self._saved = settings
            self._memory.save(settings)

    def _settings(self) -> BoardSettings:
        chart, grid = self.chart, self.grid
        units: dict[str, Unit] = {"step": "step", "epoch": "epoch", "seconds": "seconds", "clock": "clock"}
        return BoardSettings(
            view="grid" if self.shows_grid or self._enlarged else "one",
            filter=grid.filter.text,
            group=grid.group,
            page=grid.page_number,
            log_y=chart.log_scale,
            log_x=chart.log_x,
            hide_outliers=chart.hide_outliers,
            smoothing=chart.smoothing,
            band=chart.band,
            unit=units.get(chart.unit, self._saved.unit),  # a range test chooses its axis itself
        )

    def _apply(self, settings: BoardSettings) -> None:
        chart, grid = self.chart, self.grid
        self._saved = settings
        try:
            grid.filter = parse(settings.filter)
        except FilterError:  # a file that was edited by hand
            self.app.notify(f"the filter {settings.filter} in {FILE} is ignored", severity="warning")
        grid.group, grid.page_number = settings.group, settings.page
        chart.log_scale, chart.log_x, chart.hide_outliers = settings.log_y, settings.log_x, settings.hide_outliers
        chart.smoothing, chart.band, chart.unit = settings.smoothing, settings.band, settings.unit
        self.set_class(settings.view == "grid", "-grid")

    def on_unmount(self) -> None:
        """Let the last choice reach the disk."""
        if self._memory is not None:
            self._memory.wait(WAIT_S)

"""The Lab page: experiments and their results on the left, one experiment and its result on the right.

It shows and posts requests; the app owns engines and runs. Closing the page or the app ends no experiment.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import ActiveBinding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widgets import DataTable

from epochtop.engine.lab.catalog import experiments, find
from epochtop.engine.protocol.spec import Invalid
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.key_footer import KeyFooter
from epochtop.tui.cells.plain import PlainText, set_title
from epochtop.tui.cells.rows import QUIET, wrapped
from epochtop.tui.cells.view import Page
from epochtop.tui.lab import keys, result_rows
from epochtop.tui.lab.about import About
from epochtop.tui.lab.lists import ExperimentList, ResultList
from epochtop.tui.lab.messages import LabLeft, MeasureRequested, RunPanelRequested, StopRequested, TrialRequested
from epochtop.tui.lab.results import Results
from epochtop.tui.lab.saved_results import SavedResult
from epochtop.tui.lab.stage import LabStage
from epochtop.tui.screens import status
from epochtop.tui.screens.layout import SMALLEST, size_classes

BAR_ROWS, RESULT_ROWS = 3, 4
"""Rows of title, status and keys together; fewest rows of the list of results."""
LIST_S = 2.0
"""Seconds between two readings of the folder of results."""
NO_RESULT = "No results yet. ctrl+s measures; q switches between ten seconds and a minute."


class LabScreen(Screen[None]):
    """List, explain, measure, draw, compare. `exit_code` returns the exit status of an engine, None if unknown."""

    BINDINGS: ClassVar[list[BindingType]] = [*keys.BINDINGS]

    def __init__(
        self, home: Path, *, live: bool, now: Callable[[], float], exit_code: Callable[[Path], int | None]
    ) -> None:
        super().__init__()
        self._live, self._now = live, now
        self.stage = LabStage(exit_code)
        self.results = Results(home, self.stage)
        self.title_line, self.status_line = status.StatusLine("lab-title"), status.StatusLine("lab-status")
        self.experiments = ExperimentList("experiments")
        self.result_list = ResultList(home, live=live, now=now, id="results")
        self.about = About(now=now, id="about")
        self.result = Page(self._rows, id="result")
        self.gains: dict[str, str] = {}
        """By result: what a run with the verdict's setting gained."""
        self._drawn: tuple[object, ...] = ()
        """The state that buttons and footer show."""

    # --- building ----------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """All regions; the layout hides those that do not fit."""
        yield self.title_line
        with Horizontal(id="lab"):
            with Vertical(id="lab-left"):
                yield self.experiments
                yield self.result_list
            yield self.about
            yield self.result
        yield PlainText(f"epochtop needs {SMALLEST[0]} × {SMALLEST[1]} characters", id="tiny")
        yield self.status_line
        yield KeyFooter()

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """The keys of the footer and the help, the most important first."""
        bindings = sorted(super().active_bindings.items(), key=lambda item: keys.rank(item[1].binding))
        return {key: keys.named(active, self.has_class("-result")) for key, active in bindings}

    def on_mount(self) -> None:
        """Focus the list."""
        self.result.border_title = "Result"
        self._turn("about")
        self.apply_layout()
        self.experiments.fill()
        self.experiments.focus()
        if self.stage.shown is not None:
            self.experiments.choose(self.stage.shown.state.asked.name)
            self._turn("result")
        if self._live:
            self.set_interval(LIST_S, self._look)

    def on_screen_resume(self) -> None:
        """Read the results again; they may have changed while the page was hidden."""
        self.result_list.look()
        self.draw()

    def _look(self) -> None:
        if self.is_current:
            self.result_list.look()

    @on(events.Resize)
    def _resized(self) -> None:
        self.apply_layout()

    def apply_layout(self) -> None:
        """Apply the layout for the current size."""
        self.update_classes(size_classes(self.app.size))
        rows = self.app.size.height - BAR_ROWS - RESULT_ROWS
        self.experiments.styles.height = max(3, min(len(experiments()) + 2, rows))

    def _turn(self, side: str) -> None:
        """Show the experiment (`about`) or its `result`; a wide screen shows both."""
        self.update_classes({"-about": side == "about", "-result": side == "result"})
        self.refresh_bindings()
        self.result.draw()

    # --- the open result ---------------------------------------------------------------------------------

    def drain(self) -> bool:
        """Apply the events that have arrived. True if the running experiment has ended."""
        ended = self.stage.drain()
        if ended:
            self.result_list.look()
        return ended

    def draw(self) -> None:
        """Draw what changed."""
        if not self.is_mounted:
            return
        self.result.draw()
        shown, running = self.stage.shown, self.stage.running
        set_title(self.result, self.results.heading())
        state = (running, shown, shown is not None and shown.state.over)
        if state != self._drawn:
            self._drawn = state
            self.about.show_state(measuring=running is not None, can_measure=running is None)
            self.refresh_bindings()

    def _rows(self, width: int, height: int) -> list[Row]:
        shown, comparison = self.stage.shown, self.stage.comparison
        if comparison is not None:
            return self.results.comparison_rows(comparison, width, height, self._now())
        if shown is None:
            return wrapped(NO_RESULT, width, QUIET)
        return result_rows.page(shown.state, width, height, self._now(), self.gains.get(shown.state.name, ""))

    def open(self, run: Path, *, turn: bool = True) -> None:
        """Show a result; a live one continues. Raises Invalid if it is not an experiment."""
        session = self.stage.open(run)
        if not self.is_mounted:
            return
        if turn:
            self.experiments.choose(session.state.asked.name)
        self.show_stage(turn=turn)

    def show_stage(self, *, turn: bool) -> None:
        """Draw the stage from its first row; `turn` shows the result's side of the page."""
        self.result.show(self._rows)
        if turn:
            self._turn("result")
            if self.has_class("-compact") or self.about.has_focus_within:
                self.result.focus()
        self._show_results()
        self.draw()

    def follow(self, run: Path) -> None:
        """Show an experiment that has just started."""
        self.stage.follow(run)
        self.open(run)
        self.result_list.look()

    def show_nothing(self) -> None:
        """Close the open result."""
        self.stage.close_shown()
        self.result.show(self._rows)
        self.draw()

    @on(ResultList.Listed)
    def _listed(self, event: ResultList.Listed) -> None:
        self.list_results(event.results)

    def list_results(self, results: list[SavedResult]) -> None:
        """Show the list of results, and the newest one if none is open."""
        self.results.listed = results
        self.experiments.show(results)
        self._show_results()
        self.about.show_newest(self._newest())
        if self.stage.shown is None:
            self._open_newest()

    def _show_results(self) -> None:
        shown, against = self.stage.shown, self.stage.against
        name = self.experiments.chosen
        set_title(self.result_list, f"Results · {name}")
        self.result_list.show(
            self.results.of(name), shown.run.name if shown else "", against.run.name if against else ""
        )

    def _newest(self) -> SavedResult | None:
        return self.results.newest(self.experiments.chosen)

    def _open_newest(self) -> None:
        """Keep the open result one of the selected experiment."""
        newest = self._newest()
        try:
            if newest is not None:
                self.open(self.results.path(newest.id), turn=False)
            elif self.stage.shown is not None:
                self.show_nothing()
        except Invalid as error:
            self.notify(error.message, severity="error")

    @on(ExperimentList.Moved)
    async def _moved(self, event: ExperimentList.Moved) -> None:
        await self.about.select(find(event.name), self._newest())
        shown = self.stage.shown
        if shown is None or shown.state.asked.name != event.name:
            self._open_newest()
        self._show_results()

    @on(DataTable.RowSelected)
    def _selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if event.data_table is self.experiments:
            self.action_measure()
        elif self.result_list.chosen:
            self._open_chosen()

    def _open_chosen(self) -> None:
        try:
            self.open(self.results.path(self.result_list.chosen))
        except Invalid as error:
            self.notify(error.message, title="cannot open", severity="error")
            return
        self.result.focus()

    # --- results -----------------------------------------------------------------------------------------

    @on(ResultList.Compare)
    def _compare(self, event: ResultList.Compare) -> None:
        """Compare the open result with the selected one; stop if they are compared already."""
        if self.stage.shown is None:
            return
        if self.results.is_compared(event.run_id):
            self.stop_comparing()
            return
        partner = self.results.partner(event.run_id)
        if not partner:
            self.notify("this is the only result of this experiment; measure again to compare")
            return
        try:
            self.stage.compare(self.results.path(partner))
        except Invalid as error:
            self.notify(error.message, title="cannot compare", severity="error")
            return
        self.show_stage(turn=True)

    def stop_comparing(self) -> bool:
        """Show the open result alone. True if two were compared."""
        if self.stage.against is None:
            return False
        self.stage.close_against()
        self.show_stage(turn=False)
        return True

    @on(ResultList.Delete)
    @work
    async def _delete(self, event: ResultList.Delete) -> None:
        from epochtop.tui.forms.dialogs import Question

        if self.results.is_running(event.run_id):
            self.notify(f"{event.run_id} is still measuring; ctrl+x stops it", severity="warning")
            return
        text = f"Delete {event.run_id} with its rows and its verdict? This cannot be undone."
        if await self.app.push_screen_wait(Question(text, (("cancel", "Keep"), ("delete", "Delete")))) != "delete":
            return
        try:
            await to_thread(self.results.delete, event.run_id)
        except Invalid as error:
            self.notify(error.message, title="not deleted", severity="error")
            return
        self._forget(event.run_id)

    def _forget(self, run_id: str) -> None:
        """Close a deleted result."""
        if self.stage.against is not None and self.stage.against.run.name == run_id:
            self.stop_comparing()
        if self.stage.shown is not None and self.stage.shown.run.name == run_id:
            self.show_nothing()
        self.list_results(self.results.listed)
        self.result_list.look()

    def action_export(self) -> None:
        """Write the rows of the open result as CSV."""
        if self.stage.shown is None:
            return
        try:
            path = self.results.export()
        except Invalid as error:
            self.notify(str(error), title="not exported", severity="error")
            return
        self.notify(str(path), title="exported")

    # --- keys --------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """True if the key works now, None to gray it out, False to hide it."""
        if action == "stop":
            return True if self.stage.running is not None else None
        if action == "measure":
            return True if self.stage.running is None else None
        if action == "try":
            return True if self._setting() else None
        if action == "export":
            return True if self.stage.shown is not None else None
        if action == "take_job":
            return True if self.about.experiment.job is not None else None
        if action == "turn":
            return not self.has_class("-wide")
        return True

    def _setting(self) -> dict[str, str]:
        end = self.stage.shown.state.concluded if self.stage.shown else None
        return end.verdict.setting if end else {}

    def action_measure(self) -> None:
        """Run the selected experiment."""
        try:
            request, spec = self.about.request()
        except Invalid as error:
            self._turn("about")
            self.notify(str(error), title="not measured", severity="error")
            return
        self.post_message(MeasureRequested(request, spec))

    def action_stop(self) -> None:
        """Stop the running experiment."""
        self.post_message(StopRequested())

    def action_quick(self) -> None:
        """Switch between quick and thorough."""
        self.about.quick = not self.about.quick
        self.notify("quick: ten seconds, fewer rounds" if self.about.quick else "thorough: up to a minute", timeout=2)

    def action_turn(self) -> None:
        """Show the other side."""
        self._turn("about" if self.has_class("-result") else "result")
        if self.has_class("-result"):
            self.result.focus()
        else:
            self.experiments.focus()

    def action_try(self) -> None:
        """Train with the setting of the verdict."""
        if self.stage.shown is not None and self._setting():
            self.post_message(TrialRequested(self.stage.shown))

    def action_take_job(self) -> None:
        """Measure the job of the Run panel."""
        self.post_message(RunPanelRequested())

    def action_to_list(self) -> None:
        """Focus the list of experiments."""
        if self.has_class("-compact"):
            self._turn("about")
        self.experiments.focus()

    def action_back(self) -> None:
        """Go back from two results to one, to the list, to the chart."""
        if self.stop_comparing():
            return
        if self.focused is self.experiments:
            self.action_leave("")
        else:
            self.action_to_list()

    def action_leave(self, page: str) -> None:
        """Leave the page; a running experiment continues."""
        self.post_message(LabLeft(page))

    @on(About.Pressed)
    def _pressed(self, event: About.Pressed) -> None:
        {"measure": self.action_measure, "stop": self.action_stop}[event.button]()

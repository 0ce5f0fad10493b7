"""The Lab page: experiments and what is kept of them on the left, what one is and its result on the right.

It shows and asks; engines, questions and runs are the app's. Results are followed as runs are: closing the page, or the
whole app, ends nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import ActiveBinding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import DataTable, Footer, Static

from epochtop.engine.lab.catalog import experiments, find
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.paths import lab_home
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import QUIET, wrapped
from epochtop.tui.cells.view import Page
from epochtop.tui.lab import keys, result_rows
from epochtop.tui.lab.about import About
from epochtop.tui.lab.kept import Kept
from epochtop.tui.lab.lists import ExperimentList, KeptList
from epochtop.tui.lab.results import ResultsScreen
from epochtop.tui.lab.stage import LabSession, LabStage
from epochtop.tui.screens import status
from epochtop.tui.screens.main import COMPACT, SMALLEST, WIDE

BAR_ROWS, KEPT_ROWS = 3, 4
"""Of title, status and keys; and of the list of results at least."""
LIST_S = 2.0
"""Between two looks at the folder of results."""


class LabScreen(ResultsScreen):
    """List, explain, measure, draw, keep, compare. `exit_code` tells how an engine ended that was started here."""

    BINDINGS: ClassVar[list[BindingType]] = [*keys.BINDINGS]

    @dataclass
    class Wanted(Message):
        """An experiment is to be measured."""

        asked: ExperimentRequest
        spec: RunSpec

    @dataclass
    class StopWanted(Message):
        """The running one is to end."""

    @dataclass
    class TryWanted(Message):
        """A run is to be trained with the setting of this result's verdict."""

        session: LabSession

    @dataclass
    class JobWanted(Message):
        """The job of the Run panel is to be measured."""

    @dataclass
    class Left(Message):
        """Enough has been seen; `page` is where to go."""

        page: str

    def __init__(
        self, home: Path, *, live: bool, now: Callable[[], float], exit_code: Callable[[Path], int | None]
    ) -> None:
        super().__init__()
        self.home, self._live, self._now = home, live, now
        self.stage = LabStage(exit_code)
        self.title_line, self.status_line = status.Line("lab-title"), status.Line("lab-status")
        self.experiments = ExperimentList("experiments")
        self.kept = KeptList(home, live=live, now=now, id="kept")
        self.about = About(now=now, id="about")
        self.result = Page(self._rows, id="result")
        self.gains: dict[str, str] = {}
        """What runs with a verdict's setting gained, by the id of the result."""
        self.every: list[Kept] = []
        self._drawn: tuple[object, ...] = ()
        """What the buttons and the footer were last made for."""

    # --- building ----------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Everything; what does not fit is hidden by its size."""
        yield self.title_line
        with Horizontal(id="lab"):
            with Vertical(id="lab-left"):
                yield self.experiments
                yield self.kept
            yield self.about
            yield self.result
        yield Static(f"epochtop needs {SMALLEST[0]} × {SMALLEST[1]} characters", id="tiny")
        yield self.status_line
        yield Footer(show_command_palette=False, compact=True)

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """What the footer and the help show, the most important first."""
        bindings = sorted(super().active_bindings.items(), key=lambda item: keys.rank(item[1].binding))
        return {key: keys.named(active, self.has_class("-result")) for key, active in bindings}

    def on_mount(self) -> None:
        """Begin with the list."""
        self.result.border_title = "Result"
        self._turn("about")
        self.lay_out()
        self.experiments.fill()
        self.experiments.focus()
        if self.stage.shown is not None:
            self.experiments.choose(self.stage.shown.state.asked.name)
            self._turn("result")
        if self._live:
            self.set_interval(LIST_S, self._look)

    def on_screen_resume(self) -> None:
        """What is kept may have changed meanwhile."""
        self.kept.look()
        self.draw()

    def _look(self) -> None:
        if self.is_current:
            self.kept.look()

    @on(events.Resize)
    def _resized(self) -> None:
        self.lay_out()

    def lay_out(self) -> None:
        """Choose the layout for the present size."""
        width, height = self.app.size
        tiny = width < SMALLEST[0] or height < SMALLEST[1]
        self.set_class(tiny, "-tiny")
        self.set_class(not tiny and (width < COMPACT[0] or height < COMPACT[1]), "-compact")
        self.set_class(width >= WIDE[0] and height >= WIDE[1], "-wide")
        self.experiments.styles.height = max(3, min(len(experiments()) + 2, height - BAR_ROWS - KEPT_ROWS))

    def _turn(self, side: str) -> None:
        """Show what the experiment is, or its result; a wide screen shows both."""
        self.set_class(side == "about", "-about")
        self.set_class(side == "result", "-result")
        self.refresh_bindings()
        self.result.draw()

    # --- what is shown -----------------------------------------------------------------------------------

    def take(self) -> bool:
        """Take in what has come. True if an experiment has just ended."""
        ended = self.stage.take()
        if ended:
            self.kept.look()
        return ended

    def draw(self) -> None:
        """Draw what is new."""
        if not self.is_mounted:
            return
        self.result.draw()
        shown, running = self.stage.shown, self.stage.running
        title = self.heading()
        if self.result.border_title != title:
            self.result.border_title = title
        state = (running, shown, shown is not None and shown.state.over)
        if state != self._drawn:
            self._drawn = state
            self.about.show_state(measuring=running is not None, can_measure=running is None)
            self.refresh_bindings()

    def _rows(self, width: int, height: int) -> list[Row]:
        shown, comparison = self.stage.shown, self.stage.comparison
        if comparison is not None:
            return self.comparison_rows(comparison, width, height, self._now())
        if shown is None:
            words = "Nothing is kept of this experiment yet. ctrl+s measures it; q chooses ten seconds or a minute."
            return wrapped(words, width, QUIET)
        return result_rows.page(shown.state, width, height, self._now(), self.gains.get(shown.state.name, ""))

    def open(self, run: Path, *, turn: bool = True) -> None:
        """Show a result; a live one goes on. Raises Invalid for what is none."""
        session = self.stage.open(run)
        if not self.is_mounted:
            return
        if turn:
            self.experiments.choose(session.state.asked.name)
        self.show_stage(turn=turn)

    def show_stage(self, *, turn: bool) -> None:
        """Draw what is on the stage now, from its beginning; `turn` shows that side of the page."""
        self.result.show(self._rows)
        if turn:
            self._turn("result")
            if self.has_class("-compact") or self.about.has_focus_within:
                self.result.focus()
        self._show_kept()
        self.draw()

    def follow(self, run: Path) -> None:
        """It measures now: show it."""
        self.stage.follow(run)
        self.open(run)
        self.kept.look()

    def show_nothing(self) -> None:
        """No result is shown."""
        self.stage.close_shown()
        self.result.show(self._rows)
        self.draw()

    @on(KeptList.Listed)
    def _listed(self, event: KeptList.Listed) -> None:
        self.list_kept(event.kept)

    def list_kept(self, kept: list[Kept]) -> None:
        """Show what is kept."""
        self.every = kept
        self.experiments.show(kept)
        self._show_kept()
        self.about.tell(self._newest())
        if self.stage.shown is None:
            self._open_newest()

    def _show_kept(self) -> None:
        shown, against = self.stage.shown, self.stage.against
        name = self.experiments.chosen
        title = f"Results · {name}"
        if self.kept.border_title != title:
            self.kept.border_title = title
        mine = [each for each in self.every if each.experiment == name]
        self.kept.show(mine, shown.run.name if shown else "", against.run.name if against else "")

    def _newest(self) -> Kept | None:
        return next((each for each in self.every if each.experiment == self.experiments.chosen), None)

    def _open_newest(self) -> None:
        """The result is always of the experiment under the cursor."""
        newest = self._newest()
        try:
            if newest is not None:
                self.open(lab_home(self.home) / newest.id, turn=False)
            elif self.stage.shown is not None:
                self.show_nothing()
        except Invalid as error:
            self.notify(error.message, severity="error")

    @on(ExperimentList.Moved)
    async def _moved(self, event: ExperimentList.Moved) -> None:
        await self.about.look_at(find(event.name), self._newest())
        shown = self.stage.shown
        if shown is None or shown.state.asked.name != event.name:
            self._open_newest()
        self._show_kept()

    @on(DataTable.RowSelected)
    def _selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if event.data_table is self.experiments:
            self.action_measure()
        elif self.kept.chosen:
            self._open_chosen()

    def _open_chosen(self) -> None:
        try:
            self.open(lab_home(self.home) / self.kept.chosen)
        except Invalid as error:
            self.notify(error.message, title="cannot open", severity="error")
            return
        self.result.focus()

    # --- keys --------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Grey out what makes no sense now, and hide what changes nothing here."""
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
        """Ask for the experiment under the cursor."""
        try:
            asked, spec = self.about.wanted()
        except Invalid as error:
            self._turn("about")
            self.notify(str(error), title="not measured", severity="error")
            return
        self.post_message(self.Wanted(asked, spec))

    def action_stop(self) -> None:
        """Ask for the end of the running one."""
        self.post_message(self.StopWanted())

    def action_quick(self) -> None:
        """Quick, or thorough again."""
        self.about.quick = not self.about.quick
        self.notify(
            "ten seconds, with fewer measurements" if self.about.quick else "thorough: up to a minute", timeout=2
        )

    def action_turn(self) -> None:
        """The other side."""
        self._turn("about" if self.has_class("-result") else "result")
        if self.has_class("-result"):
            self.result.focus()
        else:
            self.experiments.focus()

    def action_try(self) -> None:
        """Train with the setting of the verdict."""
        if self.stage.shown is not None and self._setting():
            self.post_message(self.TryWanted(self.stage.shown))

    def action_take_job(self) -> None:
        """Measure what the Run panel says."""
        self.post_message(self.JobWanted())

    def action_to_list(self) -> None:
        """To the list of experiments."""
        if self.has_class("-compact"):
            self._turn("about")
        self.experiments.focus()

    def action_back(self) -> None:
        """From two results to one, to the list, and from there to the chart."""
        if self.stop_comparing():
            return
        if self.focused is self.experiments:
            self.action_leave("")
        else:
            self.action_to_list()

    def action_leave(self, page: str) -> None:
        """Go elsewhere; what measures goes on."""
        self.post_message(self.Left(page))

    @on(About.Pressed)
    def _pressed(self, event: About.Pressed) -> None:
        {"measure": self.action_measure, "stop": self.action_stop}[event.what]()

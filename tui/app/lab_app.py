"""What the app can do besides training: experiments are measured, stopped, attached, and their settings tried.

Never beside a training run without asking: each would measure the other.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from epochtop.engine.protocol.events import Stop
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.paths import lab_home, whoami
from epochtop.engine.runs.reader import is_alive
from epochtop.engine.runs.writer import send
from epochtop.tui.app.viewer import READY, Viewer
from epochtop.tui.screens import status

if TYPE_CHECKING:
    from epochtop.tui.app.stage import Session
    from epochtop.tui.client.starter import Begun, Measuring, NotMeasured, Starter
    from epochtop.tui.lab.screen import LabScreen
    from epochtop.tui.lab.stage import LabSession

LAB_READY = "Nothing is measured · ctrl+s measures what the cursor is on · ? shows all keys"
MEASURING = "is measuring · ctrl+x ends it, and its rows are kept"


class LabApp(Viewer):
    """Has the Lab page and keeps it while it is not shown. Abstract: training is the app's."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("4", "lab", "lab", id="app.lab", tooltip="Measure where the time goes on this machine"),
        Binding(
            "a", "anatomy", "anatomy", id="app.anatomy", tooltip="Measure where a step of the shown run spends its time"
        ),
    ]
    live: bool
    _starter: Starter | None = None
    _lab: LabScreen | None = None
    _trial: tuple[LabSession, RunSpec] | None = None
    """The result whose setting the run that is being started tries, and that run."""

    def __init__(self, home: Path, now: Callable[[], float] = time.time, host: str = "") -> None:
        super().__init__(home, now, host)
        self._trials: dict[Path, LabSession] = {}
        """What the runs that try a setting are to be compared with."""
        self._known: tuple[Session, str] | None = None
        """The shown run, and what the lab has found of its job."""

    # --- what the app has to do --------------------------------------------------------------------------

    @abstractmethod
    def train(self, spec: RunSpec) -> None:
        """Begin a run, after a question where something else goes on."""

    def exit_code(self, run: Path) -> int | None:
        """How the engine of what was started here ended."""
        return self._starter.exit_code(run) if self._starter is not None else None

    # --- the page ----------------------------------------------------------------------------------------

    @property
    def lab(self) -> LabScreen:
        """The page, made when it is first needed."""
        if self._lab is None:
            from epochtop.tui.lab.screen import LabScreen

            self._lab = LabScreen(self.home, live=self.live, now=self.now, exit_code=self.exit_code)
            self.install_screen(self._lab, "lab")
        return self._lab

    @property
    def measuring(self) -> LabSession | None:
        """The experiment that goes on."""
        return self._lab.stage.running if self._lab is not None else None

    @property
    def in_lab(self) -> bool:
        """Whether the Lab page is what is looked at."""
        return self._lab is not None and self._lab in self.screen_stack

    def action_lab(self) -> None:
        """Show the page."""
        if not self.in_lab:
            self.push_screen(self.lab)
            self.show_lines()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only a run that is shown can be taken apart; on the Lab page the key does another thing."""
        if action == "anatomy":
            return False if self.in_lab else True if self.session is not None else None
        return True

    def action_anatomy(self) -> None:
        """Take a step of the shown run's job apart; the Lab page shows it."""
        from epochtop.tui.lab.screen import LabScreen

        record = self.session.state.record if self.session is not None else None
        if record is not None:
            self.action_lab()
            self.on_lab_screen_wanted(LabScreen.Wanted(ExperimentRequest(name="anatomy"), record.spec))

    def known(self) -> str:
        """What the lab has found of the shown run's job, looked up when that is opened and when an experiment ends."""
        from epochtop.tui.lab.prior_findings import found_of  # not needed for the first frame

        session = self.session
        if session is None or session.state.record is None:
            return ""
        if self._known is None or self._known[0] is not session:
            self._known = session, found_of(self.home, session.state.record)
        return self._known[1]

    def action_guide(self) -> None:
        """Three overheads, names of GPUs, calling a module."""
        from epochtop.tui.screens.guide_page import GuideScreen

        self.push_screen(GuideScreen())

    def attach_lab(self, run: Path) -> None:
        """Open the page with a result."""
        try:
            self.lab.open(run)
        except Invalid as error:
            self.notify(error.message, title="cannot open", severity="error")
            return
        self.action_lab()

    def began_in_lab(self, first: Path | None) -> bool:
        """Open the page if the app was asked for one of its results; an experiment that goes on is followed anyway."""
        live = next((path for path in run_paths(lab_home(self.home))[:20] if is_alive(path)), None)
        if live is not None:  # left behind by a lost line, perhaps
            try:
                self.lab.open(live)
            except Invalid as error:
                self.notify(error.message, title="cannot open", severity="error")
        if first is None or first.parent != lab_home(self.home):
            return False
        self.attach_lab(first)
        return True

    def going_on(self) -> str:
        """What trains or measures now, by its name; empty if nothing does."""
        session, experiment = self.active(), self.measuring
        return session.name if session is not None else experiment.state.name if experiment is not None else ""

    def on_lab_screen_left(self, event: LabScreen.Left) -> None:
        """Back to the chart, or to a region."""
        self.pop_screen()
        if event.page:
            self.main.action_page(event.page)
        self.show_lines()

    # --- measuring ---------------------------------------------------------------------------------------

    def on_lab_screen_wanted(self, event: LabScreen.Wanted) -> None:
        """Measure, unless something else goes on."""
        going_on = self.measuring
        if going_on is not None:
            self.notify(f"{going_on.state.name} still measures; ctrl+x stops it", severity="warning")
        elif self.starting or self._starter is None:
            self.notify("something is being started already", severity="warning")
        elif self.active() is not None:
            self._ask_to_measure_beside(event.asked, event.spec)
        else:
            self._measure(event.asked, event.spec)

    @work
    async def _ask_to_measure_beside(self, asked: ExperimentRequest, spec: RunSpec) -> None:
        from epochtop.tui.forms.dialogs import Question

        name = self.session.name if self.session else ""
        text = (
            f"{name} is training. Measured beside it, {asked.name} tells of a machine that is shared, and the run becomes "
            "slower. Measure anyway?"
        )
        if (
            await self.push_screen_wait(Question(text, (("cancel", "Cancel"), ("measure", "Measure anyway"))))
            == "measure"
        ):
            self._measure(asked, spec)

    def _measure(self, asked: ExperimentRequest, spec: RunSpec) -> None:
        assert self._starter is not None
        self.starting = True
        self.idle = f"starting {asked.name} …" if self.torch else f"starting torch for {asked.name} …"
        self._starter.measure(asked, spec, self.home)
        self.show_lines()

    def on_measuring(self, event: Measuring) -> None:
        """It has begun."""
        self.starting, self.idle = False, READY
        self.lab.follow(event.run)
        self.show_lines()

    def on_not_measured(self, event: NotMeasured) -> None:
        """It cannot be measured as asked, or there is no engine to measure with."""
        self.starting, self.idle = False, READY
        self.lab.about.complain(event.field, event.reason)
        self.notify(event.reason, title="not measured", severity="error", timeout=10)
        self.show_lines()

    def on_lab_screen_stop_wanted(self, _event: LabScreen.StopWanted) -> None:
        """End the experiment that goes on; its rows stay."""
        session = self.measuring
        if session is None:
            return
        try:
            send(session.run, Stop(by=whoami()))
        except OSError as error:
            self.notify(f"the command cannot be written: {error.strerror}", severity="error")

    # --- trying a setting --------------------------------------------------------------------------------

    def on_lab_screen_try_wanted(self, event: LabScreen.TryWanted) -> None:
        """Train the job with the setting of the verdict; that of the Run panel where the experiment measured none."""
        from epochtop.engine.lab.catalog import find
        from epochtop.engine.protocol.fields import with_setting

        state = event.session.state
        assert state.concluded is not None
        try:
            job = state.record.spec if find(state.asked.name).job is not None else self.main.form.spec()
            spec = with_setting(job, state.concluded.verdict.setting)
        except Invalid as error:
            self.notify(str(error), title="not started", severity="error")
            return
        self._trial = (event.session, spec)
        self.pop_screen()
        self.main.form.load(spec)
        self.train(spec)

    def will_begin(self, spec: RunSpec | None) -> None:
        """A run of `spec` is asked for, or one goes on; only that of a trial tries something."""
        if self._trial is not None and self._trial[1] is not spec:
            self._trial = None

    def on_begun(self, event: Begun) -> None:
        """Remember what the run is to be compared with."""
        if self._trial is not None:
            self._trials[event.run], self._trial = self._trial[0], None

    def tell_gain(self, session: Session) -> None:
        """Say what the setting gained, once the run that tried it is over."""
        from epochtop.tui.lab.gain import gained

        trial = self._trials.pop(session.run, None)
        if trial is not None:
            sentence = gained(trial.state, session.state)
            self.lab.gains[trial.state.name] = sentence
            session.log.append(sentence)
            self.notify(sentence, title=f"tried after {trial.state.name}", timeout=20)

    def on_lab_screen_job_wanted(self, _event: LabScreen.JobWanted) -> None:
        """Measure what the Run panel says."""
        try:
            self.lab.about.take_job(self.main.form.spec())
        except Invalid as error:
            self.notify(f"the Run panel is not complete: {error}", severity="error")

    def close_lab(self) -> None:
        """Let go of everything; experiments go on."""
        if self._lab is not None:
            self._lab.stage.close()

    # --- the beat ----------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Take in what has come from experiments too."""
        super().advance()
        if self._lab is None:
            return
        if self._lab.take():
            self._known = None
            self.run_ended()
        if self.in_lab:
            self._lab.draw()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The command palette."""
        yield from super().get_system_commands(screen)
        yield SystemCommand("Lab", "Measure where the time goes on this machine", self.action_lab)
        yield SystemCommand("Guide", "Overheads, names of GPUs, calling a module", self.action_guide)

    def show_lines(self) -> None:
        """Title and status, of the page that is shown."""
        super().show_lines()
        if self._lab is None or not self._lab.is_mounted:
            return
        measuring = self.measuring
        session = measuring or self._lab.stage.shown
        self._lab.title_line.put(
            status.lab_title(session.state if session else None, self.host, self.torch, self.size.width)
        )
        state = self.session.state if self.session else None
        busy = state is not None and not state.over and not self.starting
        idle = LAB_READY if self.idle == READY else self.idle
        if measuring is not None:
            idle = f"{measuring.state.name} {MEASURING}"
        self._lab.status_line.put(status.status(state if busy else None, idle, self.size.width))

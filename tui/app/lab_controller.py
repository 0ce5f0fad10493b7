"""The Lab page and its experiments: opened, measured, stopped, their settings tried.

Asks before it measures during a training run: each would slow the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import App

from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.index import newest_live_run
from epochtop.engine.runs.paths import lab_home, whoami
from epochtop.engine.runs.writer import send
from epochtop.tui.app.engine import IDLE, NextEngine
from epochtop.tui.app.run_controller import RunController
from epochtop.tui.app.run_requests import RunRequests
from epochtop.tui.app.stage import RunSession
from epochtop.tui.app.trust import with_trust
from epochtop.tui.client.remote.facts import connection_problem
from epochtop.tui.screens import status
from epochtop.tui.screens.main import MainScreen

if TYPE_CHECKING:
    from epochtop.tui.lab.screen import LabScreen
    from epochtop.tui.lab.stage import LabSession

LAB_IDLE = "Idle · ctrl+s run the selected experiment · ? all keys"
MEASURING = "is measuring · ctrl+x stops it and keeps its rows"
NEWEST = 20
"""Results that are checked for a running experiment when the app opens."""


class LabController:
    """Owns the Lab page, made when it is first needed, and keeps it while it is hidden."""

    def __init__(
        self,
        app: App[int],
        main: MainScreen,
        home: Path,
        engine: NextEngine,
        runs: RunController,
        requests: RunRequests,
        *,
        live: bool,
        now: Callable[[], float],
        redraw: Callable[[], None],
    ) -> None:
        self._app, self._main, self._home, self._engine = app, main, home, engine
        self._runs, self._requests = runs, requests
        self._live, self._now, self._redraw = live, now, redraw
        self._page: LabScreen | None = None
        self._trials: dict[Path, LabSession] = {}
        """By run that tries a setting: the result with the setting."""
        self._prior_finding: tuple[RunSession, str] | None = None
        """The open run, and the lab's result for its job."""

    # --- the page ----------------------------------------------------------------------------------------

    @property
    def page(self) -> LabScreen:
        """The Lab page."""
        if self._page is None:
            from epochtop.tui.lab.screen import LabScreen

            self._page = LabScreen(self._home, live=self._live, now=self._now, exit_code=self._engine.exit_code)
            self._app.install_screen(self._page, "lab")
        return self._page

    @property
    def running(self) -> LabSession | None:
        """The running experiment."""
        return self._page.stage.running if self._page is not None else None

    @property
    def visible(self) -> bool:
        """Whether the Lab page is open."""
        return self._page is not None and self._page in self._app.screen_stack

    def show(self) -> None:
        """Open the page."""
        if not self.visible:
            self._app.push_screen(self.page)
            self._redraw()

    def leave(self, page: str) -> None:
        """Return to the chart, or to a region of the main screen."""
        self._app.pop_screen()
        if page:
            self._main.action_page(page)
        self._redraw()

    def show_guide(self) -> None:
        """Open the guide."""
        from epochtop.tui.screens.guide import GuideScreen

        self._app.push_screen(GuideScreen())

    def open_result(self, run: Path) -> None:
        """Open the page with a result."""
        if self._open(run):
            self.show()

    def open_at_start(self, first: Path | None) -> bool:
        """Follow a running experiment; True, with the page open, if `first` is a result of the lab."""
        running = newest_live_run(lab_home(self._home), NEWEST)
        if running is not None:
            self._open(running)
        if first is None or first.parent != lab_home(self._home):
            return False
        self.open_result(first)
        return True

    def _open(self, run: Path) -> bool:
        try:
            self.page.open(run)
        except Invalid as error:
            self._app.notify(error.message, title="cannot open", severity="error")
            return False
        return True

    # --- measuring ---------------------------------------------------------------------------------------

    def analyze_open_run(self) -> None:
        """Measure where a step of the open run's job spends its time."""
        session = self._runs.session
        record = session.state.record if session is not None else None
        if session is not None and record is not None:
            with_trust(self._app, session.run, record.spec.task, lambda _: self._analyze(record.spec))

    def _analyze(self, spec: RunSpec) -> None:
        self.show()
        self.measure(ExperimentRequest(name="anatomy"), spec)

    def measure(self, request: ExperimentRequest, spec: RunSpec) -> None:
        """Start an experiment, unless something else is in progress."""
        if self._engine.elsewhere:
            reason = f"experiments measure the machine they run on; log in to {self._engine.elsewhere} to start one"
            self._app.notify(reason, title="not measured", severity="warning")
        elif self.running is not None:
            self._app.notify(f"{self.running.name} is still measuring; ctrl+x stops it", severity="warning")
        elif not self._engine.available:
            self._app.notify(self._engine.refusal, severity="warning")
        elif self._runs.active is not None:
            self._app.run_worker(self._confirm(request, spec))
        else:
            self._measure(request, spec)

    async def _confirm(self, request: ExperimentRequest, spec: RunSpec) -> None:
        from epochtop.tui.forms.dialogs import Question

        name = self._runs.session.name if self._runs.session else ""
        text = (
            f"{name} is training. The results of {request.name} will include its load, and training will slow down. "
            "Measure anyway?"
        )
        question = Question(text, (("cancel", "Cancel"), ("measure", "Measure anyway")))
        if await self._app.push_screen_wait(question) == "measure":
            self._measure(request, spec)

    def _measure(self, request: ExperimentRequest, spec: RunSpec) -> None:
        engine = self._engine
        assert engine.starter is not None
        engine.request(f"starting {request.name} …" if engine.torch else f"starting torch for {request.name} …")
        engine.starter.measure(request, spec, self._home)
        self._redraw()

    def started(self, run: Path) -> None:
        """The experiment is measuring."""
        self._engine.done()
        self.page.follow(run)
        self._redraw()

    def refused(self, reason: str, field: str) -> None:
        """Show why the experiment did not start."""
        self._engine.done()
        self.page.about.complain(field, reason)
        self._app.notify(reason, title="not measured", severity="error", timeout=10)
        self._redraw()

    def stop(self) -> None:
        """Stop the running experiment; it keeps its rows."""
        if self.running is None:
            return
        try:
            send(self.running.run, Stop(by=whoami()))
        except OSError as error:
            self._app.notify(f"cannot write the command: {error.strerror}", severity="error")

    def measure_run_panel(self) -> None:
        """Measure the job of the Run panel."""
        try:
            self.page.about.set_job(self._main.form.spec())
        except Invalid as error:
            self._app.notify(f"the Run panel has an error: {error}", severity="error")

    # --- trying a setting --------------------------------------------------------------------------------

    def try_setting(self, session: LabSession) -> None:
        """Train with a verdict's setting: the job it was measured on, or that of the Run panel if there is none."""
        from epochtop.engine.lab.catalog import find
        from epochtop.engine.protocol.fields import with_setting

        state = session.state
        assert state.concluded is not None
        try:
            job = state.record.spec if find(state.asked.name).job is not None else self._main.form.spec()
            spec = with_setting(job, state.concluded.verdict.setting)
        except Invalid as error:
            self._app.notify(str(error), title="not started", severity="error")
            return
        task = spec.task if job is state.record.spec else ""
        with_trust(self._app, session.run, task, lambda _: self._try(spec, session))

    def _try(self, spec: RunSpec, session: LabSession) -> None:
        self._app.pop_screen()
        self._main.form.load(spec)
        self._requests.train(spec, on_started=partial(self._remember_trial, session))

    def _remember_trial(self, session: LabSession, run: Path) -> None:
        self._trials[run] = session

    def report_gain(self, session: RunSession) -> None:
        """Report what the setting gained, if the run that has ended tried one."""
        from epochtop.tui.lab.gain import gained

        trial = self._trials.pop(session.run, None)
        if trial is not None:
            sentence = gained(trial.state, session.state)
            self.page.gains[trial.state.name] = sentence
            session.log.append(sentence)
            self._app.notify(sentence, title=f"setting of {trial.state.name}", timeout=20)

    def prior_finding(self) -> str:
        """The lab's result for the open run's job; looked up when that is opened and when an experiment ends."""
        from epochtop.tui.lab.prior_findings import finding_for  # the first frame does not need it

        session = self._runs.session
        if session is None or session.state.record is None or session.state.script is not None:
            return ""
        if self._prior_finding is None or self._prior_finding[0] is not session:
            self._prior_finding = session, finding_for(self._home, session.state.record)
        return self._prior_finding[1]

    # --- following ---------------------------------------------------------------------------------------

    def drain(self) -> bool:
        """Apply the events that have arrived. True if the running experiment has ended."""
        if self._page is None or not self._page.drain():
            return False
        self._prior_finding = None
        return True

    def draw(self) -> None:
        """Draw what is new, if the page is open."""
        if self._page is not None and self.visible:
            self._page.draw()

    def show_lines(self, host: str) -> None:
        """Write the page's title and status line."""
        if self._page is None or not self._page.is_mounted:
            return
        width, session = self._app.size.width, self.running or self._page.stage.shown
        self._page.title_line.put(status.lab_title(session.state if session else None, host, self._engine.torch, width))
        lost = connection_problem(self._home)
        active = None if self._engine.starting or lost else self._runs.active
        self._page.status_line.put(status.status(active.state if active else None, lost or self._status(), width))

    def _status(self) -> str:
        if self.running is not None:
            return f"{self.running.name} {MEASURING}"
        return LAB_IDLE if self._engine.status == IDLE else self._engine.status

    def close(self) -> None:
        """Stop following; experiments continue."""
        if self._page is not None:
            self._page.stage.close()

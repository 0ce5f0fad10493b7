"""From the Run panel to a run: plans, starts, resumes, and what the engine answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from textual.app import App

from epochtop.engine.protocol.requests import Plan, Ready, Refused
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.reader import read_record
from epochtop.tui.app.engine import NextEngine
from epochtop.tui.app.run_controller import RunController
from epochtop.tui.app.trust import with_trust
from epochtop.tui.screens.main import MainScreen

DESCRIBE_S = 0.3
"""Pause in typing before the engine is asked for a plan."""


class RunRequests:
    """Requests runs from the next engine. `busy` names the run or experiment in progress, `redraw` writes the lines."""

    def __init__(
        self,
        app: App[int],
        main: MainScreen,
        home: Path,
        engine: NextEngine,
        runs: RunController,
        spec: RunSpec,
        *,
        busy: Callable[[], str],
        redraw: Callable[[], None],
    ) -> None:
        self._app, self._main, self._home, self._engine, self._runs = app, main, home, engine, runs
        self._busy, self._redraw = busy, redraw
        self.spec = spec
        """The settings that were described last."""
        self._on_started: Callable[[Path], object] | None = None

    # --- requests ----------------------------------------------------------------------------------------

    def warm(self) -> None:
        """Have an engine ready, unless a run is in progress: importing torch would slow it."""
        if self._engine.starter is not None and not self._busy():
            self._engine.starter.warm()
            self.describe(self.spec)

    def load_settings(self, run: Path) -> None:
        """Copy a run's settings into the Run panel, which executes its custom task to describe it."""
        try:
            record = read_record(run)
        except Invalid as error:
            self._app.notify(error.message, severity="error")
            return
        if record.script is not None:
            self._app.notify(f"{run.name} was recorded by a script, which has its own settings", severity="warning")
            return
        spec = record.spec
        if self._engine.elsewhere:  # nothing is described here
            self._load(run, spec)
            return
        with_trust(self._app, run, spec.task, lambda _: self._load(run, spec))

    def _load(self, run: Path, spec: RunSpec) -> None:
        self._main.form.load(spec)
        self._app.notify(f"settings of {run.name} copied to the Run panel")

    def start(self) -> None:
        """Start a run with the settings of the Run panel."""
        if not self._is_possible():
            return
        try:
            spec = self._main.form.spec()
        except Invalid as error:
            self._app.notify(str(error), title="not started", severity="error")
            return
        self.train(spec)

    def _is_possible(self) -> bool:
        """Whether a run can be requested now. Tells the user if none ever can."""
        if self._engine.elsewhere and self._engine.starter is None:
            self._app.notify(self._engine.refusal, severity="warning")
        return self._engine.available

    def train(self, spec: RunSpec, on_started: Callable[[Path], object] | None = None) -> None:
        """Start a run of `spec`, after a question if another is in progress. `on_started` receives its directory."""
        if not self._is_possible():
            return
        if self._busy():
            self._app.run_worker(self._confirm(spec, on_started))
        else:
            self._begin(spec, on_started)

    async def _confirm(self, spec: RunSpec, on_started: Callable[[Path], object] | None) -> None:
        from epochtop.tui.forms.dialogs import Question

        place = self._engine.elsewhere or "this machine"
        text = f"{self._busy()} is still running. Start another run? Both will share {place}."
        question = Question(text, (("cancel", "Cancel"), ("start", "Start another")))
        if await self._app.push_screen_wait(question) == "start":
            self._begin(spec, on_started)

    def _begin(self, spec: RunSpec, on_started: Callable[[Path], object] | None) -> None:
        engine = self._engine
        assert engine.starter is not None
        self._on_started = on_started
        there = f" on {engine.elsewhere}" * bool(engine.elsewhere)
        engine.request(f"starting{there} …" if engine.torch or there else "starting torch …")
        if self._runs.session is None:
            self._main.chart.empty_text = engine.status
        engine.starter.begin(spec, self._home)
        self._main.form.show_state(can_start=False, running=False, paused=False)
        self._redraw()

    def resume(self, run: Path) -> None:
        """Resume a run that had ended; ask first if it executes another user's task."""
        try:
            task = read_record(run).spec.task
        except Invalid as error:
            self._app.notify(error.message, title="not resumed", severity="error")
            return
        if self._engine.elsewhere:  # its task is executed there, by its own epochtop
            self._resume(run, "")
            return
        with_trust(self._app, run, task, lambda owner: self._resume(run, owner))

    def _resume(self, run: Path, trusted_owner: str) -> None:
        assert self._engine.starter is not None
        self._on_started = None
        self._engine.request(f"resuming {run.name} …")
        self._engine.starter.resume(run, trusted_owner)
        self._redraw()

    def describe(self, spec: RunSpec) -> None:
        """Ask for the plan of a run once typing pauses; never while one is in progress."""
        self.spec = spec
        self._app.set_timer(DESCRIBE_S, lambda: self._describe_now(spec))

    def _describe_now(self, spec: RunSpec) -> None:
        engine = self._engine
        if self.spec == spec and engine.starter is not None and not (engine.starting or self._busy()):
            engine.starter.describe(spec)

    def edited(self, spec: RunSpec | None) -> None:
        """The settings changed; `spec` is None while one of them is wrong."""
        active = self._runs.active
        if active is not None and active.state.record is not None and spec != active.state.record.spec:
            self._main.form.say("")  # it shows the plan of the run in progress
        if spec is not None:
            self.describe(spec)

    # --- replies -----------------------------------------------------------------------------------------

    def started(self, run: Path) -> None:
        """A run directory exists."""
        on_started, self._on_started = self._on_started, None
        if on_started is not None:
            on_started(run)
        self._engine.done()

    def progressed(self, phase: str) -> None:
        """Show the phase of a slow request."""
        self._engine.status = phase
        self._main.form.say(phase)
        self._redraw()

    def refused(self, refused: Refused, starting: bool) -> None:
        """Show why a run is not possible."""
        self._main.form.complain(refused.field, refused.message)
        if starting:
            self._not_started(refused.message)

    def died(self, reason: str, starting: bool) -> None:
        """Show why there is no engine."""
        self._main.form.say(reason, error=True)
        if starting:
            self._not_started(reason)
        else:
            self._engine.status = reason
            self._redraw()

    def _not_started(self, reason: str) -> None:
        self._engine.done(f"not started: {reason}")
        self._app.notify(reason, title="not started", severity="error", timeout=10)
        self._main.form.show_state(can_start=True, running=self._runs.active is not None, paused=False)
        self._redraw()

    def ready(self, ready: Ready) -> None:
        """The standby has imported torch."""
        self._engine.torch = f"torch {ready.torch_version}"
        self._main.machine.show_software(ready)
        self._redraw()

    def planned(self, spec: RunSpec, plan: Plan) -> None:
        """Show a plan, if the Run panel still has its settings."""
        if not self._engine.starting:
            self._engine.status = self._engine.idle
        with suppress(Invalid):
            if self._main.form.spec() == spec:
                self._main.form.show_plan(plan, self._advice(spec, plan))

    def _advice(self, spec: RunSpec, plan: Plan) -> list[str]:
        """What speaks against this job on this machine, and how long it takes by the speed that the lab measured."""
        from epochtop.tui.client.job_advice import job_advice  # with the hardware rules, after the first frame

        view = self._main.machine.view
        if view.machine is None:
            return []
        return job_advice(self._home, spec, plan, view.machine, view.sample, view.ready)

"""The open run: followed, drawn, commanded, and compared with the runs behind it.

Changes widgets only from the app's thread. Starting runs is :mod:`epochtop.tui.app.run_requests`.
"""

from __future__ import annotations

from asyncio import sleep
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from textual.app import App
from textual.screen import Screen

from epochtop.engine.protocol.commands import Analyze, AnyCommand, Pause, Resume, Save, Set, Stop
from epochtop.engine.protocol.fields import parse, show
from epochtop.engine.protocol.spec import Invalid, Value
from epochtop.engine.runs.index import RunSummary
from epochtop.engine.runs.opened.sources import is_opened_log
from epochtop.engine.runs.paths import lab_home, whoami
from epochtop.tui.app.engine import NextEngine
from epochtop.tui.app.stage import RunSession, Stage
from epochtop.tui.cells.plain import plain_block
from epochtop.tui.client.remote.facts import connection_problem, recording_pid
from epochtop.tui.screens import status
from epochtop.tui.screens.main import EMPTY, EMPTY_AMONG_RUNS, MainScreen
from epochtop.tui.state.new_runs import NewRuns
from epochtop.tui.state.run import RunState
from epochtop.tui.state.telemetry import planned_and_peak

if TYPE_CHECKING:
    from epochtop.tui.forms.dialogs import Question

PREVIEW_S = 3.0
"""Longest time for which the other regions wait for the history of a run."""
PICTURE_S, LOOK_S = 0.35, 0.005
"""Seconds between two pictures of the curve meanwhile, and between two looks for events."""
PAINTED_S = 0.04
"""How long the other regions wait for Textual to paint the curve and the lines: it paints sixty times per second."""
LOG_ROWS = 200
"""Most rows of the log that one refresh writes."""


class RunController:
    """Owns the stage and shows its run on `main`."""

    def __init__(
        self, app: App[int], main: MainScreen, engine: NextEngine, home: Path, live: bool = True, since: float = 0.0
    ) -> None:
        """With `live` false, nothing on the screen depends on the time that passes. The app opened at Unix time `since`."""
        self._app, self._main, self._engine, self._home, self._live = app, main, engine, home, live
        self.stage = Stage(main.board, engine.exit_code)
        self._new_runs = NewRuns(since)
        self._preview: RunSession | None = None
        """The run that was opened on the first frame, until :meth:`open` takes it."""
        self.has_figures = False
        """Whether the open run has put its first loss or its end on the screen."""
        self._viewable = (False, False)
        """Whether the open run has an evaluation, and a decision boundary."""
        self._analysis_is_due = False
        """Whether the next analysis of the open run opens when it arrives."""
        self._refusals_known: int | None = None
        """How many refusals of commands the user has seen; None before the first command to the open run."""

    @property
    def session(self) -> RunSession | None:
        """The open run."""
        return self.stage.session

    @property
    def active(self) -> RunSession | None:
        """The open run, if it has not ended and can be commanded."""
        session = self.session
        return session if session is not None and not session.state.over else None

    @property
    def script(self) -> bool:
        """Whether a script records the open run."""
        return self.session is not None and self.session.state.script is not None

    @property
    def is_opened_log(self) -> bool:
        """Whether another tool writes the open run, which obeys nothing."""
        return self.session is not None and is_opened_log(self.session.run)

    @property
    def resumable(self) -> Path | None:
        """The open run, if it ended before its last step and an engine can resume it now."""
        session = self.session
        return session.run if session is not None and session.state.can_resume and self._engine.available else None

    # --- following ---------------------------------------------------------------------------------------

    def drain(self) -> bool:
        """Apply the events that have arrived; True if the state of the open run changed."""
        changed, session = self.stage.drain(), self.session
        if session is None:
            return False
        if changed:
            self._show_state(session)
        self.has_figures = self.has_figures or session.state.step > 0 or session.state.over
        return changed

    def _show_state(self, session: RunSession) -> None:
        state, form = session.state, self._main.form
        if state.started is not None:
            form.show_plan(state.started)
        if state.over:
            self._main.runs.look()
        can_start, obeys = not self._engine.starting, "" if self.is_opened_log else state.state
        form.show_state(can_start, obeys == "running", obeys == "paused", describes_open_run=not self.script)
        self._app.refresh_bindings()
        self._show_on_machine(session)

    def _show_on_machine(self, session: RunSession) -> None:
        """Show the run's telemetry in the machine panel, and its process while it lives on the machine shown."""
        state = session.state
        end = state.finished
        memory = planned_and_peak(end.planned_memory_bytes, end.peak_memory_bytes) if end else ""
        pid = None if state.over else recording_pid(session.run, state.record)
        self._main.machine.show_run(state.telemetry, memory, pid)

    def draw(self, prior_finding: str) -> None:
        """Draw the log, the chart, and the screens over them. `prior_finding` is the lab's result for this job."""
        from epochtop.tui.app.bottleneck_line import bottleneck_line  # the first frame does not need it

        session = self.session
        if session is not None:
            self._write_log(session)
        self._main.board.set_footer(bottleneck_line(session.state, prior_finding) if session is not None else "")
        self._main.board.redraw()
        if session is not None:
            self._update_overlays(session)

    def _write_log(self, session: RunSession) -> None:
        for line in session.log[-LOG_ROWS:]:
            self._main.log_lines.write(plain_block(line), expand=True)
        session.log.clear()

    def _update_overlays(self, session: RunSession) -> None:
        state = session.state
        viewable = state.evaluated is not None, state.mapped is not None
        if viewable != self._viewable:
            self._viewable = viewable
            self._app.refresh_bindings()
        if self._analysis_is_due and state.analyzed is not None:
            self._analysis_is_due = False
            self.view("analysis")
        self._report_refusals(state)
        if len(self._app.screen_stack) > 1:
            from epochtop.tui.screens import overlays

            overlays.follow(self._app.screen, state)

    def _report_refusals(self, state: RunState) -> None:
        """Tell the user which of the commands from here the run did not obey."""
        while self._refusals_known is not None and self._refusals_known < len(state.refusals):
            self._app.notify(state.refusals[self._refusals_known], severity="warning")
            self._refusals_known, self._analysis_is_due = self._refusals_known + 1, False

    def show_lines(self, host: str) -> None:
        """Write the title and the status line."""
        main, engine, session, width = self._main, self._engine, self.session, self._app.size.width
        state = session.state if session else None
        torch = f"torch {state.started.torch_version}" if state and state.started else engine.torch
        main.title_line.put(status.title(state, session.name if session else "", host, torch, width))
        lost = connection_problem(self._home)
        state = None if engine.starting or lost else state
        trains = self._live and state is not None and state.state == "running"
        silence = session.silence(state.refresh_ms / 1000, state.step_s) if trains and session and state else ""
        if self._live and session is not None and (overdue := session.overdue()):
            self._app.notify(overdue, severity="warning")
        main.status_line.put(status.status(state, lost or engine.status, width, silence))
        main.status_line.set_classes(f"-{state.state}" if state is not None else "")

    # --- the run list ------------------------------------------------------------------------------------

    async def preview(self, run: Path | None, host: str) -> None:
        """Draw what a run has recorded so far on the first frame, before the other regions exist."""
        if run is None or run.parent == lab_home(self._home):
            return
        try:
            session = self._preview = self.stage.open(run)
        except Invalid:  # `open` reports it, when there is a place for it
            return
        start = drawn_at = monotonic()
        while not session.following.caught_up and monotonic() < start + PREVIEW_S:
            self.stage.drain()
            if monotonic() >= drawn_at + PICTURE_S:
                self._draw_preview(host)
                drawn_at = monotonic()
            await sleep(LOOK_S)
        self.stage.drain()
        self._draw_preview(host)
        await sleep(PAINTED_S)

    def _draw_preview(self, host: str) -> None:
        self._main.board.redraw()
        self.show_lines(host)

    def open(self, run: Path) -> bool:
        """Show a run from its first step; the previous one continues unseen. False if it cannot be opened."""
        session, self._preview = self._preview, None
        previewed = session is not None and session is self.session and session.run == run
        try:
            session = session if previewed and session is not None else self.stage.open(run)
        except Invalid as error:
            self._app.notify(error.message, title="cannot open", severity="error")
            return False
        self.has_figures, self._analysis_is_due, self._refusals_known = False, False, None
        self._mark_runs()
        self._main.log_lines.clear()
        session.log.insert(0, f"run {run.name}")
        self._show_on_machine(session)
        self._main.form.show_state(can_start=True, running=False, paused=False)
        if previewed:
            self._show_state(session)
        return True

    def forget(self, run: Path) -> None:
        """Remove a deleted run from the chart."""
        self.stage.drop_overlay(run)
        if self.session is not None and self.session.run == run:
            self.stage.close_run()
        self._mark_runs()

    def look_at_list(self, summaries: list[RunSummary]) -> None:
        """While no run is open, open one that has begun; else the empty chart says what to do first."""
        is_empty = self.session is None and not self._engine.starting
        new = self._new_runs.look(summaries, is_empty=is_empty)
        if new and len(self._app.screen_stack) == 1:
            self._main.runs.open(new)
        elif is_empty:
            self._main.chart.empty_text = self._engine.empty_text or (EMPTY_AMONG_RUNS if summaries else EMPTY)

    def toggle_overlay(self, run: Path) -> None:
        """Draw a run behind the open one, or remove it."""
        if run in self.stage.overlays:
            self.stage.drop_overlay(run)
        elif self.session is not None and self.session.run == run:
            self._app.notify("already open; open another run first, then overlay this one")
        else:
            summary = self._main.runs.summaries.get(run.name)
            self.stage.add_overlay(run, (summary.name if summary else "") or run.name)
        self._mark_runs()

    def _mark_runs(self) -> None:
        overlaid = {run.name for run in self.stage.overlays}
        self._main.runs.mark(self.session.run.name if self.session else "", overlaid)

    # --- commands ----------------------------------------------------------------------------------------

    def send(self, command: AnyCommand) -> None:
        """Send a command to the open run, if it is active."""
        if self.active is None or not self._can_command():
            return
        if self._refusals_known is None:
            self._refusals_known = len(self.active.state.refusals)
        try:
            self.active.send(command)
        except OSError as error:
            self._app.notify(f"cannot write the command: {error.strerror}", severity="error")

    def _can_command(self) -> bool:
        """Whether the open run can obey commands. Tells the user if it cannot."""
        if self.is_opened_log:
            self._app.notify("another tool writes this log; epochtop can only show it", severity="warning")
        return not self.is_opened_log

    def toggle_pause(self) -> None:
        """Pause the active run, or let a paused one continue."""
        if self.active is not None:
            paused = self.active.state.state == "paused"
            self.send(Resume(by=whoami()) if paused else Pause(by=whoami()))

    def stop(self) -> None:
        """Stop the run after the current step."""
        self.send(Stop(by=whoami()))

    def save(self) -> None:
        """Write a checkpoint now."""
        self.send(Save(by=whoami()))

    async def change(self) -> None:
        """Ask for new live settings and send those that differ."""
        from epochtop.tui.forms.dialogs import Entries

        session = self.active
        if session is None or not self._can_command():
            return
        state = session.state
        check: Callable[[str, str], Value] = parse
        current = {"learning_rate": show(state.learning_rate), "refresh_ms": show(state.refresh_ms)}
        if state.script is not None:
            current, check = state.script.setting_texts(), state.script.parse_setting
        if not current:
            self._app.notify("the script has declared no settings; it can with run.setting(name, value)")
            return
        dialog = Entries(f"Settings of {session.name} from the next step:", current, check)
        answer = await self._app.push_screen_wait(dialog)
        for name, text in (answer or {}).items():
            if text != current[name]:
                self.send(Set(field=name, value=float(text), by=whoami()))

    def select(self, family: str) -> None:
        """Draw a family of series; ask which one if it is empty."""
        if family:
            self.stage.select(family)
        else:
            self._app.run_worker(self._pick_family())

    async def _pick_family(self) -> None:
        from epochtop.tui.chart.trace import family_texts
        from epochtop.tui.forms.picker import Picker

        trace = self._main.chart.trace
        texts = family_texts(trace)
        if texts:
            picked = await self._app.push_screen_wait(Picker("Series to draw:", texts, trace.family))
            if picked:
                self.stage.select(picked)

    def analyze(self) -> None:
        """Show where the steps of the script spend their time; measure the next ones if that is not known."""
        session = self.session
        if session is None:
            return
        if session.state.analyzed is not None:
            self.view("analysis")
        else:
            self.analyze_again()

    def analyze_again(self) -> None:
        """Measure the next steps of the script."""
        if self.active is None:
            self._app.notify("only a running script can be measured", severity="warning")
        elif self._can_command():
            self._analysis_is_due = self.active.state.analyzed is None
            self.send(Analyze(by=whoami()))
            self._app.notify(f"asked the script to measure its next {Analyze().steps} steps")

    def view(self, name: str) -> None:
        """Open the last evaluation (`metrics`), the decision boundary (`boundary`) or the `analysis` over the screen."""
        from epochtop.tui.screens import overlays

        if self.session is not None:
            makers: dict[str, Callable[[RunState], Screen[None] | None]] = {
                "metrics": overlays.metrics,
                "boundary": overlays.boundary,
                "analysis": overlays.analysis,
            }
            screen = makers[name](self.session.state)
            if screen is not None:
                self._app.push_screen(screen)

    def can_view(self, name: str) -> bool | None:
        """Whether :meth:`view` has something to show; None to gray the key out, False to hide it."""
        state = self.session.state if self.session else None
        if name == "metrics":
            return True if state and state.evaluated is not None else None
        return state is not None and state.mapped is not None

    def export(self) -> None:
        """Write the chart as SVG and CSV into the folder where epochtop was started."""
        if self.session is None:
            return
        from epochtop.tui.board.export import save_board

        try:
            paths = save_board(self._main.board, Path.cwd(), self.session.name)
        except OSError as error:
            self._app.notify(f"{error.filename}: {error.strerror}", title="not exported", severity="error")
            return
        self._app.notify("\n".join(map(str, paths)), title="exported")

    def quit_question(self) -> Question | None:
        """The question what to do with the active run before the app quits; None without one."""
        session = self.active
        if session is None or self.is_opened_log:
            return None
        from epochtop.tui.forms.dialogs import Question

        text = (
            f"{session.name} is {session.state.state}. It can keep training in the background; "
            "run `epochtop` to reopen it."
        )
        return Question(text, (("leave", "Leave it running"), ("stop", "Stop it"), ("cancel", "Cancel")))

    def close(self) -> None:
        """Stop following; runs continue."""
        self.stage.close()

"""What the app has in common with any viewer of runs: it shows them, at a pace of its own, and touches none.

Nothing is drawn by a run's speed: a timer calls :meth:`Viewer._pulse`, and that takes in what has come.
"""

from __future__ import annotations

import socket
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import App

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.reader import read_record
from epochtop.tui.app.stage import Session, Stage
from epochtop.tui.screens import status
from epochtop.tui.screens.main import EMPTY, EMPTY_AMONG_RUNS, MainScreen
from epochtop.tui.state.telemetry import planned_and_peak

if TYPE_CHECKING:
    from epochtop.tui.screens.run_list import RunList

CHART_S = 0.35
"""Between two pictures of the chart: 3 a second, a few KB/s over SSH."""
FAST_S = 0.05
"""Between two looks for news, and between pictures until the first loss is on the screen."""
PULSES = round(CHART_S / FAST_S)
"""From picture to picture."""
READY = "Nothing is running · ctrl+s starts what the Run panel says · ? shows all keys"


class Viewer(App[int]):
    """Shows one run and others behind it. Abstract: what can be done to runs is the app's."""

    def __init__(self, home: Path, now: Callable[[], float] = time.time, host: str = "") -> None:
        super().__init__()
        self.home, self.now, self.host = home, now, host or socket.gethostname()
        self.torch = ""
        """The version that a standby has found."""
        self.idle = READY
        """What the status line says while there is nothing to tell of a run."""
        self.starting = False
        """Whether a run has been asked for and is not there yet."""
        self._beats = 0
        self._drawn = False
        self.main = MainScreen()
        self.stage = Stage(self.main.chart)

    def get_default_screen(self) -> MainScreen:
        """The only screen besides questions."""
        return self.main

    def on_mount(self) -> None:
        """The lines of figures belong to the first frame."""
        self.show_lines()

    @property
    def session(self) -> Session | None:
        """The run that is shown."""
        return self.stage.session

    @abstractmethod
    def exit_code(self, run: Path) -> int | None:
        """How the engine of a run ended; None where nobody saw it."""

    def beaten(self) -> None:
        """Everything that came is taken in."""

    @abstractmethod
    def run_ended(self) -> None:
        """The shown run is over."""

    def active(self) -> Session | None:
        """The shown run while it can still be commanded."""
        session = self.session
        return session if session is not None and not session.state.over else None

    # --- the beat of the screen --------------------------------------------------------------------------

    def _pulse(self) -> None:
        if not self.main.is_attached:  # the app is closing
            return
        self._beats += 1
        if self._output_waits():
            return
        if not self._drawn or (self.session is not None and self.session.catching_up):
            self.beat()
        elif self._beats % PULSES == 0:
            self.advance()
        elif self._beats % PULSES == PULSES // 2:
            self.show_lines()  # by themselves: Textual renders every widget that lies between two that have changed

    def _output_waits(self) -> bool:
        """Whether the terminal has not yet taken the frames before; a stalled line must not pile them up."""
        writer = getattr(self._driver, "_writer_thread", None)
        queue = getattr(writer, "_queue", None)
        return queue is not None and not queue.empty()

    def beat(self) -> None:
        """Take in what has come and draw all that is new."""
        self.advance()
        self.show_lines()

    def advance(self) -> None:
        """Take in what has come and draw it; the lines of figures only where the run's state is another one."""
        changed = self.stage.take()
        session = self.session
        if session is not None:
            if changed:
                self._state_changed(session)
            self._drawn = self._drawn or session.state.step > 0 or session.state.over
            self._write_log(session)
        self.main.chart.set_footer(self._pace())
        self.main.chart.redraw()
        self.beaten()

    def _pace(self) -> str:
        from epochtop.tui.app.bottleneck_line import pace  # not needed for the first frame

        return pace(self.session.state, self.known()) if self.session is not None else ""

    def known(self) -> str:
        """What was found out before of the shown run's job; empty where nothing is known."""
        return ""

    def _state_changed(self, session: Session) -> None:
        state = session.state
        if state.started is not None:
            self.main.form.show_plan(state.started)
        if state.over:
            self.main.runs.look()
            self.run_ended()
        self.main.form.show_state(
            can_start=not self.starting, running=state.state == "running", paused=state.state == "paused"
        )
        self.refresh_bindings()
        self._tell_machine(session)
        self.show_lines()

    def _tell_machine(self, session: Session) -> None:
        """Show the run's telemetry on the machine page, and what its engine takes while it lives on this host."""
        state = session.state
        here = state.record is not None and state.record.host == socket.gethostname() and not state.over
        end = state.finished
        memory = planned_and_peak(end.planned_memory_bytes, end.peak_memory_bytes) if end else ""
        pid = state.record.pid if here and state.record else None
        self.main.machine.show_run(state.telemetry, memory, pid)

    def _write_log(self, session: Session) -> None:
        log = self.main.log_lines
        for line in session.log[-200:]:
            log.write(line, expand=True)
        session.log.clear()

    def show_lines(self) -> None:
        """Title and status."""
        state = self.session.state if self.session else None
        name = self.session.name if self.session else ""
        width = self.size.width
        torch = f"torch {state.started.torch_version}" if state and state.started else self.torch
        self.main.title_line.put(status.title(state, name, self.host, torch, width))
        line = self.main.status_line
        line.put(status.status(state if not self.starting else None, self.idle, width))
        line.set_classes(f"-{state.state}" if state is not None and not self.starting else "")

    # --- the shown run -----------------------------------------------------------------------------------

    def open(self, run: Path) -> None:
        """Show a run from its beginning; the one shown before goes on unseen."""
        try:
            session = self.stage.open(run, self.exit_code)
        except Invalid as error:
            self.notify(error.message, title="cannot open", severity="error")
            return
        self._drawn = False
        self._mark_runs()
        self.main.log_lines.clear()
        session.log.append(f"run {run.name}")
        self._tell_machine(session)
        self.main.form.show_state(can_start=True, running=False, paused=False)
        self.beat()
        self.refresh_bindings()

    # --- other runs --------------------------------------------------------------------------------------

    def on_run_list_chosen(self, event: RunList.Chosen) -> None:
        run = self.home / event.run_id
        if event.what == "open":
            self.open(run)
        elif event.what == "overlay":
            self._toggle_overlay(run)
        else:
            self._load_settings(run)

    def on_run_list_deleted(self, event: RunList.Deleted) -> None:
        run = self.home / event.run_id
        self.stage.drop_overlay(run)
        if self.session is not None and self.session.run == run:
            self.stage.close_run()
        self._mark_runs()

    def on_run_list_listed(self, event: RunList.Listed) -> None:
        """The empty chart says what can be done here."""
        if self.session is None and not self.starting:
            self.main.chart.empty_text = EMPTY_AMONG_RUNS if event.summaries else EMPTY

    def _toggle_overlay(self, run: Path) -> None:
        if run in self.stage.overlays:
            self.stage.drop_overlay(run)
        elif self.session is not None and self.session.run == run:
            self.notify("this run is the one shown; open another and lay this one behind it")
        else:
            summary = self.main.runs.summaries.get(run.name)
            self.stage.add_overlay(run, (summary.name if summary else "") or run.name)
        self._mark_runs()

    def _mark_runs(self) -> None:
        """Tell the list which runs are on the chart."""
        self.main.runs.mark(self.session.run.name if self.session else "", {run.name for run in self.stage.overlays})

    def _load_settings(self, run: Path) -> None:
        try:
            self.main.form.load(read_record(run).spec)
        except Invalid as error:
            self.notify(error.message, severity="error")
            return
        self.notify(f"the Run panel has the settings of {run.name}")

    def action_export(self) -> None:
        """Write what the chart shows into the folder epochtop was started in."""
        if self.session is None:
            return
        from epochtop.tui.chart.export import save_chart

        try:
            written = save_chart(self.main.chart, Path.cwd(), self.session.name)
        except OSError as error:
            self.notify(f"{error.filename}: {error.strerror}", title="not exported", severity="error")
            return
        self.notify("\n".join(str(path) for path in written), title="exported")

    def action_help(self) -> None:
        """Show or hide the keys."""
        if self.screen.query("HelpPanel"):
            self.action_hide_help_panel()
        else:
            self.action_show_help_panel()

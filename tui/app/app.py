"""The app: its keys, its refresh, and the routes from messages to controllers. Never imports torch.

Threads post messages; the handlers here and the controllers own every change of state. Nothing is drawn at a run's speed:
a timer sets the pace of the screen.
"""

from __future__ import annotations

import socket
import time
from asyncio import sleep
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import SystemCommand
from textual.binding import BindingType
from textual.screen import Screen

from epochtop.configuration.load import Configuration
from epochtop.tui.app.engine import NextEngine
from epochtop.tui.app.keys import KEYS, KEYS_OF_RUNS, system_commands, works_now
from epochtop.tui.app.terminal import TerminalApp, apply_configuration
from epochtop.tui.cells.plain import set_title
from epochtop.tui.screens.main import MainScreen
from epochtop.tui.screens.opening import OpeningFrame

if TYPE_CHECKING:  # the first frame does not need these
    from epochtop.engine.protocol.spec import RunSpec
    from epochtop.tui.app.alerts import Alerts
    from epochtop.tui.app.lab_controller import LabController
    from epochtop.tui.app.run_controller import RunController
    from epochtop.tui.app.run_requests import RunRequests
    from epochtop.tui.chart.loss_chart import LossChart
    from epochtop.tui.client.messages import (
        EngineProgress,
        ExperimentRefused,
        ExperimentStarted,
        RunPlanned,
        RunRefused,
        RunStarted,
        StandbyDied,
        StandbyReady,
    )
    from epochtop.tui.client.standby import Standby
    from epochtop.tui.forms.dialogs import Question
    from epochtop.tui.forms.run_form import SpecForm
    from epochtop.tui.lab.messages import LabLeft, MeasureRequested, RunPanelRequested, StopRequested, TrialRequested
    from epochtop.tui.machine.source import MachineSource
    from epochtop.tui.screens.run_list import RunList

FAST_S = 0.05
"""Seconds between two checks for events, and between pictures until the first loss is on the screen."""
QUIT_WAIT_S = 5.0
"""Longest wait for an engine that is starting a run before the app quits."""


class EpochtopApp(TerminalApp):
    """Train, watch, compare. With `live` false no clock, thread or engine runs, and tests call :meth:`beat`."""

    TITLE = "epochtop"
    BINDING_GROUP_TITLE = "epochtop"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [*KEYS]

    runs: RunController
    requests: RunRequests
    lab: LabController
    alerts: Alerts

    def __init__(
        self,
        home: Path,
        *,
        spec: RunSpec | None = None,
        start: bool = False,
        attach: Path | None = None,
        live: bool = True,
        now: Callable[[], float] = time.time,
        host: str = "",
        source: MachineSource | None = None,
        make_standby: Callable[[], Standby] | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        """`configuration` is that of config.toml; None for the defaults."""
        super().__init__()
        self.configuration = configuration or Configuration("")
        self.pulses_per_picture = max(2, round(self.configuration["refresh_s"] / FAST_S))
        self.home, self.live, self.now, self.host = home, live, now, host or socket.gethostname()
        self._spec, self._start, self._first_run = spec, start, attach
        self._source, self._make_standby = source, make_standby
        self.engine = NextEngine()
        run = attach.name if attach is not None else ""
        frame = OpeningFrame(run, self.host, lambda: self.engine.status, f"opening {run} …" if run else "")
        self.main = MainScreen(home, frame)
        self._quit_question: Question | None = None
        self._opened_at = now()
        self._pulses = 0
        self._is_built = False
        """Whether the controllers exist."""

    # --- building ----------------------------------------------------------------------------------------

    def get_default_screen(self) -> MainScreen:
        """The main screen; the Lab page, guides and dialogs open over it."""
        return self.main

    def on_mount(self) -> None:
        """Use the theme in the first frame, and leave the terminal as it was from then on."""
        apply_configuration(self, self.configuration)
        if self.live:
            self.watch_terminal()

    async def furnish(self) -> None:
        """The main screen, the curve of an open run, then the regions that take longer to build."""
        from epochtop.engine.runs.index import newest_live_run

        self.stylesheet.read(Path(__file__).with_name("app.tcss"))
        self.stylesheet.parse()
        await self.main.build()
        self._make_controllers()
        self.show_lines()
        if self.live and not self._start:
            self._first_run = self._first_run or newest_live_run(self.home)
            await self.runs.preview(self._first_run, self.host)
            self.alerts.look_at_open(self.runs.session, self.home)  # it may end while the regions are built
        from epochtop.tui.forms.run_form import SpecForm
        from epochtop.tui.machine.panel import MachinePanel
        from epochtop.tui.runs_table.opener import TableOpener
        from epochtop.tui.screens.run_list import RunList

        self.main.show_table = TableOpener(self, self.main, self.home, self.runs.stage.draw).open
        machine = MachinePanel(self._source, live=self.live, id="machine")
        if self.engine.elsewhere:
            set_title(machine, f"Machine {self.engine.elsewhere.rpartition('@')[2]}")
        runs = RunList(self.home, live=self.live, now=self.now, id="runs")
        await self.main.furnish(runs, machine, SpecForm(self.requests.spec, id="form"))

    def _make_controllers(self) -> None:
        from epochtop.engine.protocol.spec import RunSpec
        from epochtop.tui.app.alerts import Alerts
        from epochtop.tui.app.lab_controller import LabController
        from epochtop.tui.app.run_controller import RunController
        from epochtop.tui.app.run_requests import RunRequests

        main, home, engine, redraw = self.main, self.home, self.engine, self.show_lines
        spec, live, now = self._spec or RunSpec(), self.live, self.now
        self.alerts = Alerts(self, self.configuration)
        self.runs = runs = RunController(self, main, engine, home, live, self._opened_at)
        self.requests = RunRequests(self, main, home, engine, runs, spec, busy=self.busy, redraw=redraw)
        self.lab = LabController(self, main, home, engine, runs, self.requests, live=live, now=now, redraw=redraw)
        self._is_built = True

    def begin(self) -> None:
        """Start a run, or show one."""
        if not self.live:
            return
        from epochtop.tui.client.starter import Starter

        if not self.engine.elsewhere:
            self.engine.starter = Starter(self.post_message, self._make_standby)
        self.set_interval(FAST_S, self._pulse)
        if self._start:
            self.requests.start()
        elif self.lab.open_at_start(self._first_run) or self._first_run is None:
            self.requests.warm()
        else:
            self.open(self._first_run)

    # --- the refresh -------------------------------------------------------------------------------------

    def _pulse(self) -> None:
        if not self.main.is_attached:  # the app is closing
            return
        self._pulses += 1
        if self._output_blocked():
            return
        if not self.runs.has_figures or self.runs.stage.catching_up:
            self.beat()
        elif self._pulses % self.pulses_per_picture == 0:
            self.advance()
        elif self._pulses % self.pulses_per_picture == self.pulses_per_picture // 2:
            self.show_lines()  # apart from the chart: Textual renders every widget between two that changed

    def _output_blocked(self) -> bool:
        """Whether the terminal has not read the previous frames yet; a stalled connection must not pile them up."""
        writer = getattr(self._driver, "_writer_thread", None)
        queue = getattr(writer, "_queue", None)
        return queue is not None and not queue.empty()

    def beat(self) -> None:
        """Apply the events that have arrived and draw everything that changed."""
        self.advance()
        self.show_lines()

    def advance(self) -> None:
        """Apply the events that have arrived and draw them; the lines of figures only if a run's state changed."""
        if self.runs.drain():
            if self.runs.active is None:
                self._run_ended()
            self.show_lines()
        self.alerts.look_at_open(self.runs.session, self.home)
        self.runs.draw(self.lab.prior_finding())
        if self.lab.drain():
            self._run_ended()
        self.lab.draw()

    def _run_ended(self) -> None:
        """The machine is free for the next engine."""
        session = self.runs.session
        if session is not None and session.state.over:
            self.lab.report_gain(session)
        self.requests.warm()

    def show_lines(self) -> None:
        """Write the title and the status line of both pages."""
        self.runs.show_lines(self.host)
        self.lab.show_lines(self.host)

    def busy(self) -> str:
        """Name of the run or experiment in progress; empty if there is none."""
        session = self.runs.active or self.lab.running
        return session.name if session is not None else ""

    def open(self, run: Path) -> None:
        """Show a run from its first step; the previous one continues unseen."""
        if self.runs.open(run):
            self.beat()
            self.refresh_bindings()

    # --- messages of the engine --------------------------------------------------------------------------

    def on_standby_ready(self, event: StandbyReady) -> None:
        self.requests.ready(event.ready)

    def on_standby_died(self, event: StandbyDied) -> None:
        self.requests.died(event.reason, event.starting)

    def on_engine_progress(self, event: EngineProgress) -> None:
        self.requests.progressed(event.message)

    def on_run_planned(self, event: RunPlanned) -> None:
        self.requests.planned(event.spec, event.plan)

    def on_run_refused(self, event: RunRefused) -> None:
        self.requests.refused(event.refused, event.starting)

    def on_run_started(self, event: RunStarted) -> None:
        self.requests.started(event.run)
        self.open(event.run)
        self.main.runs.look()

    def on_experiment_started(self, event: ExperimentStarted) -> None:
        self.lab.started(event.run)

    def on_experiment_refused(self, event: ExperimentRefused) -> None:
        self.lab.refused(event.reason, event.field)

    # --- messages of widgets -----------------------------------------------------------------------------

    def on_spec_form_edited(self, event: SpecForm.Edited) -> None:
        self.requests.edited(event.spec)

    def on_spec_form_pressed(self, event: SpecForm.Pressed) -> None:
        {"start": self.action_start, "pause": self.action_pause, "stop": self.action_stop}[event.button]()

    def on_loss_chart_picked(self, event: LossChart.Picked) -> None:
        self.runs.select(event.family)

    def on_run_list_chosen(self, event: RunList.Chosen) -> None:
        actions = {"open": self.open, "overlay": self.runs.toggle_overlay, "load": self.requests.load_settings}
        actions[event.action](self.home / event.run_id)

    def on_run_list_deleted(self, event: RunList.Deleted) -> None:
        self.runs.forget(self.home / event.run_id)

    def on_run_list_listed(self, event: RunList.Listed) -> None:
        self.runs.look_at_list(event.summaries)
        self.alerts.look_at_list(event.summaries)

    def on_measure_requested(self, event: MeasureRequested) -> None:
        self.lab.measure(event.request, event.spec)

    def on_stop_requested(self, _event: StopRequested) -> None:
        self.lab.stop()

    def on_analysis_screen_again_requested(self) -> None:
        self.runs.analyze_again()

    def on_trial_requested(self, event: TrialRequested) -> None:
        self.lab.try_setting(event.session)

    def on_run_panel_requested(self, _event: RunPanelRequested) -> None:
        self.lab.measure_run_panel()

    def on_lab_left(self, event: LabLeft) -> None:
        self.lab.leave(event.page)

    # --- keys --------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """True if the key works now, None to gray it out, False to hide it."""
        if not self.furnished:
            return False
        is_shown = not (self.lab.visible and action in KEYS_OF_RUNS) and not (
            action == "begin" and not self.engine.can_begin
        )
        return is_shown and works_now(action, parameters, self.runs)

    def action_start(self) -> None:
        """Start a run with the settings of the Run panel."""
        self.requests.start()

    def action_begin(self, way: str) -> None:
        """Run a `script` of the user's own, or open `logs` of other tools."""
        from epochtop.tui.app.begin.dialogs import begin

        self.run_worker(begin(self, way, self.engine, self.home, self.open))

    def action_pause(self) -> None:
        """Pause or resume the run, also one that was stopped or has died."""
        if self.runs.resumable is not None:
            self.requests.resume(self.runs.resumable)
        else:
            self.runs.toggle_pause()

    def action_stop(self) -> None:
        """Stop the run after the current step."""
        self.runs.stop()

    def action_save(self) -> None:
        """Write a checkpoint now."""
        self.runs.save()

    def action_change(self) -> None:
        """Change live settings."""
        self.run_worker(self.runs.change())

    def action_look(self, name: str) -> None:
        """Open the last evaluation (`metrics`) or the decision boundary (`boundary`)."""
        self.runs.view(name)

    def action_export(self) -> None:
        """Write the chart as SVG and CSV."""
        self.runs.export()

    def action_lab(self) -> None:
        """Open the Lab page."""
        self.lab.show()

    def action_anatomy(self) -> None:
        """Measure where a step of the open run spends its time."""
        if self.runs.script:
            self.runs.analyze()
        else:
            self.lab.analyze_open_run()

    def action_guide(self) -> None:
        """Open the guide."""
        self.lab.show_guide()

    def action_help(self) -> None:
        """Show or hide the keys."""
        (self.action_hide_help_panel if self.screen.query("HelpPanel") else self.action_show_help_panel)()

    async def action_quit(self) -> None:
        """Quit; ask first what to do with an active run."""
        self._confirm_quit()

    @work(exclusive=True, group="quit")
    async def _confirm_quit(self) -> None:
        deadline = time.monotonic() + QUIT_WAIT_S
        while self.engine.starting and time.monotonic() < deadline:  # the run may exist already: ask about it below
            await sleep(FAST_S)
        if self.screen is self._quit_question:  # a second ctrl+q quits without an answer
            self.exit(0)
            return
        self._quit_question = self.runs.quit_question()
        if self._quit_question is not None:
            answer = await self.push_screen_wait(self._quit_question)
            if answer == "cancel":
                return
            if answer == "stop":
                self.runs.stop()
        self.exit(0)

    def on_unmount(self) -> None:
        """Stop following; runs continue."""
        self.engine.close()
        if self._is_built:
            self.runs.close()
            self.lab.close()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The command palette."""
        yield from super().get_system_commands(screen)
        yield from system_commands(self, is_active=self.runs.active is not None)

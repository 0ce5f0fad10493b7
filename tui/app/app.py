"""The app: regions, keys, and who tells whom. It draws what run directories say and never imports torch.

Threads post messages; the handlers here own every change of state. Nothing is drawn by a run's speed: a timer
sets the pace of the screen.
"""

from __future__ import annotations

import time
from asyncio import sleep
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from epochtop.engine.protocol.events import AnyCommand, Pause, Resume, Save, Set, Stop
from epochtop.engine.protocol.fields import show
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.paths import whoami
from epochtop.engine.runs.reader import is_alive
from epochtop.engine.runs.writer import send
from epochtop.tui.app.lab_app import LabApp
from epochtop.tui.app.viewer import FAST_S, READY
from epochtop.tui.screens.main import MainScreen

if TYPE_CHECKING:  # what the first frame does not need is imported by _furnish and by the actions
    from epochtop.tui.client.standby import Standby
    from epochtop.tui.client.starter import Begun, Planned, Rejected, Said, StandbyDied, StandbyReady
    from epochtop.tui.forms.dialogs import Question
    from epochtop.tui.forms.run_form import SpecForm
    from epochtop.tui.machine.source import Source

LEAVING_S = 5.0
"""How long leaving waits for the answer of an engine that has been asked for a run."""
DESCRIBE_S = 0.3
"""How long typing rests before the standby is asked what a run would do."""


class EpochtopApp(LabApp):
    """Train, watch, compare. With `live` false no clock, thread or engine runs, and tests call :meth:`beat`."""

    TITLE = "epochtop"
    BINDING_GROUP_TITLE = "epochtop"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "start", "start", id="app.start", tooltip="Train what the Run panel says"),
        Binding(
            "space",
            "pause",
            "pause",
            id="app.pause",
            tooltip="Pause the run, or let it go on, even after a stop or a kill",
        ),
        Binding("ctrl+x", "stop", "stop", id="app.stop", tooltip="Finish the step, evaluate, save, end"),
        Binding("r", "change", "rate", id="app.change", tooltip="Change learning rate and refresh of the running job"),
        Binding("s", "save", "save", id="app.save", tooltip="Write a checkpoint now"),
        Binding(
            "b",
            "look('boundary')",
            "boundary",
            id="app.boundary",
            tooltip="The plane of two features, as the model sees it",
        ),
        Binding(
            "v",
            "look('metrics')",
            "metrics",
            id="app.metrics",
            tooltip="All metrics of the last evaluation, and which class is taken for which",
        ),
        Binding("e", "export", "export", id="app.export", tooltip="Write what the chart shows as SVG and CSV"),
        Binding("question_mark", "help", "help", id="app.help", tooltip="Show or hide all keys"),
        Binding(
            "ctrl+z",
            "suspend_process",
            "suspend",
            id="app.suspend",
            tooltip="Back to the shell; fg returns",
            show=False,
        ),
        Binding("ctrl+q", "quit", "quit", id="app.quit", tooltip="Leave; a run may go on", priority=True),
    ]

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
        source: Source | None = None,
        make_standby: Callable[[], Standby] | None = None,
    ) -> None:
        super().__init__(home, now, host)
        self.live = live
        self._spec, self._start, self._first_run = spec or RunSpec(), start, attach
        self._source, self._make_standby = source, make_standby
        self._farewell: Question | None = None
        self._to_look_at = (False, False)
        """Whether there is an evaluation, and a decision boundary."""
        self.furnished = False
        """Whether the regions that follow the first frame are there."""

    # --- building ----------------------------------------------------------------------------------------

    @on(MainScreen.Drawn)
    async def _furnish(self) -> None:
        from epochtop.tui.forms.run_form import SpecForm
        from epochtop.tui.machine.panel import MachinePanel
        from epochtop.tui.screens.run_list import RunList

        await self.main.furnish(
            RunList(self.home, live=self.live, now=self.now, id="runs"),
            MachinePanel(self._source, live=self.live, id="machine"),
            SpecForm(self._spec, id="form"),
        )
        self.furnished = True
        self.main.refresh_bindings()  # the footer came after the signal it waits for
        if self.live:
            self._go_live()

    def _go_live(self) -> None:
        from epochtop.tui.app.terminal import watch_terminal
        from epochtop.tui.client.starter import Starter

        self._starter = Starter(self.post_message, self._make_standby)
        self.set_interval(FAST_S, self._pulse)
        watch_terminal(self)
        if self._start:
            self.action_start()
            return
        if self.began_in_lab(self._first_run):
            self._warm()
            return
        run = self._first_run or next((path for path in run_paths(self.home)[:50] if is_alive(path)), None)
        if run is not None:  # one that goes on, left behind by a lost line perhaps, is what its owner wants to see
            self.open(run)
        else:
            self._warm()

    def beaten(self) -> None:
        """What is open over the screen follows the run."""
        if self.session is None:
            return
        state = self.session.state
        if (state.evaluated is not None, state.mapped is not None) != self._to_look_at:
            self._to_look_at = (state.evaluated is not None, state.mapped is not None)
            self.refresh_bindings()
        if len(self.screen_stack) > 1:
            from epochtop.tui.screens import overlays

            overlays.follow(self.screen, state)

    def run_ended(self) -> None:
        """The machine is free for the next engine."""
        if self.session is not None and self.session.state.over:
            self.tell_gain(self.session)
        self._warm()

    def _warm(self) -> None:
        """Have an engine ready for the next run. Never beside a run: importing torch would slow it."""
        if self._starter is not None and not self.going_on():
            self._starter.warm()
            self._describe(self._spec)

    # --- starting ----------------------------------------------------------------------------------------

    def action_start(self) -> None:
        """Train what the form says."""
        if self.starting or self._starter is None:
            return
        try:
            spec = self.main.form.spec()
        except Invalid as error:
            self.notify(str(error), title="not started", severity="error")
            return
        self.train(spec)

    def train(self, spec: RunSpec) -> None:
        """Begin a run, after a question where something else goes on."""
        if not self.going_on():
            self._begin(spec)
        else:
            self._ask_beside(spec)

    @work
    async def _ask_beside(self, spec: RunSpec) -> None:
        from epochtop.tui.forms.dialogs import Question

        text = f"{self.going_on()} is still running. Start another run beside it? Both then share this machine."
        if await self.push_screen_wait(Question(text, (("cancel", "Cancel"), ("start", "Start another")))) == "start":
            self._begin(spec)

    def _begin(self, spec: RunSpec) -> None:
        assert self._starter is not None
        self.will_begin(spec)
        self.starting = True
        self.idle = "starting …" if self.torch else "starting torch …"
        if self.session is None:
            self.main.chart.empty_text = self.idle
        self._starter.begin(spec, self.home)
        self.main.form.show_state(can_start=False, running=False, paused=False)
        self.show_lines()

    def _resume(self, run: Path) -> None:
        assert self._starter is not None
        self.will_begin(None)
        self.starting, self.idle = True, f"{run.name} goes on …"
        self._starter.resume(run)
        self.show_lines()

    def on_begun(self, event: Begun) -> None:
        self.starting, self.idle = False, READY
        self.open(event.run)
        self.main.runs.look()

    def on_said(self, event: Said) -> None:
        self.idle = event.message
        self.main.form.say(event.message)
        self.show_lines()

    def on_rejected(self, event: Rejected) -> None:
        self.main.form.complain(event.refused.field, event.refused.message)
        if event.begun:
            self._not_started(event.refused.message)

    def on_standby_died(self, event: StandbyDied) -> None:
        self.main.form.say(event.reason, error=True)
        if event.begun:
            self._not_started(event.reason)
        else:
            self.idle = event.reason
            self.show_lines()

    def _not_started(self, reason: str) -> None:
        self.starting, self.idle = False, f"not started: {reason}"
        self.notify(reason, title="not started", severity="error", timeout=10)
        self.main.form.show_state(can_start=True, running=self.active() is not None, paused=False)
        self.show_lines()

    def on_standby_ready(self, event: StandbyReady) -> None:
        self.torch = f"torch {event.ready.torch_version}"
        self.main.machine.show_software(event.ready)
        self.show_lines()

    def on_spec_form_edited(self, event: SpecForm.Edited) -> None:
        active = self.active()
        if active is not None and active.state.record is not None and event.spec != active.state.record.spec:
            self.main.form.say("")  # what stands there is the plan of the run that is going on
        if event.spec is not None:
            self._describe(event.spec)

    def _describe(self, spec: RunSpec) -> None:
        """Ask the standby what a run would do, once typing rests; never beside a run that is going on."""
        self._spec = spec
        self.set_timer(DESCRIBE_S, lambda: self._describe_now(spec))

    def _describe_now(self, spec: RunSpec) -> None:
        if self._spec == spec and self._starter is not None and not (self.starting or self.going_on()):
            self._starter.describe(spec)

    def on_planned(self, event: Planned) -> None:
        if not self.starting:
            self.idle = READY
        with suppress(Invalid):
            if self.main.form.spec() == event.spec:
                self.main.form.show_plan(event.plan)

    def on_spec_form_pressed(self, event: SpecForm.Pressed) -> None:
        {"start": self.action_start, "pause": self.action_pause, "stop": self.action_stop}[event.what]()

    # --- commands ----------------------------------------------------------------------------------------

    def _send(self, command: AnyCommand) -> None:
        session = self.active()
        if session is None:
            return
        try:
            send(session.run, command)
        except OSError as error:
            self.notify(f"the command cannot be written: {error.strerror}", severity="error")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Grey out what makes no sense now, and hide what is not of the page that is shown."""
        if self.in_lab and action in ("start", "pause", "stop", "save", "change", "export", "look", "lab"):
            return False
        if action == "pause":
            return True if self.active() is not None or self._to_resume() is not None else None
        if action in ("stop", "save", "change"):
            return True if self.active() is not None else None
        if action == "export":
            return True if self.session is not None else None
        if action == "look":
            state = self.session.state if self.session else None
            known = state and (state.evaluated if parameters == ("metrics",) else state.mapped)
            return True if known is not None else (None if parameters == ("metrics",) else False)
        return super().check_action(action, parameters)

    def action_pause(self) -> None:
        """Pause, or go on, also with a run that was stopped or has died."""
        ended = self._to_resume()
        if ended is not None:
            self._resume(ended)
            return
        session = self.active()
        if session is not None:
            paused = session.state.state == "paused"
            self._send(Resume(by=whoami()) if paused else Pause(by=whoami()))

    def _to_resume(self) -> Path | None:
        """The shown run, if it has ended before its last step and nothing else is being started."""
        session = self.session
        free = session is not None and session.state.can_go_on and not self.starting and self._starter is not None
        return session.run if free and session is not None else None

    def action_stop(self) -> None:
        """End the run after its step."""
        self._send(Stop(by=whoami()))

    def action_save(self) -> None:
        """Write a checkpoint now."""
        self._send(Save(by=whoami()))

    def action_look(self, what: str) -> None:
        """Show the last evaluation in full (`metrics`), or what the model answers all over the plane (`boundary`)."""
        from epochtop.tui.screens import overlays

        if self.session is not None:
            make = overlays.metrics if what == "metrics" else overlays.boundary
            screen = make(self.session.state)
            if screen is not None:
                self.push_screen(screen)

    @work
    async def action_change(self) -> None:
        """Ask for the live settings and send what is new."""
        from epochtop.tui.forms.dialogs import Entries

        session = self.active()
        if session is None:
            return
        state = session.state
        shown = {"learning_rate": show(state.learning_rate), "refresh_ms": show(state.refresh_ms)}
        answer = await self.push_screen_wait(Entries(f"{session.name}, from the next step on:", shown))
        for name, text in (answer or {}).items():
            if text != shown[name]:
                self._send(Set(field=name, value=float(text), by=whoami()))  # type: ignore[arg-type]

    # --- leaving and the rest ----------------------------------------------------------------------------

    async def action_quit(self) -> None:
        """Leave; ask first what becomes of a run that goes on."""
        self._ask_to_leave()

    @work(exclusive=True, group="quit")
    async def _ask_to_leave(self) -> None:
        from epochtop.tui.forms.dialogs import Question

        patience = time.monotonic() + LEAVING_S
        while self.starting and time.monotonic() < patience:  # the run may have begun: what becomes of it?
            await sleep(FAST_S)
        session = self.active()
        if session is not None and self.screen is not self._farewell:  # who asks twice means it
            text = (
                f"{session.name} is {session.state.state}. It can go on without this window; `epochtop` shows it again."
            )
            answers = (("leave", "Leave it running"), ("stop", "Stop it"), ("cancel", "Cancel"))
            self._farewell = Question(text, answers)
            answer = await self.push_screen_wait(self._farewell)
            if answer == "cancel":
                return
            if answer == "stop":
                self.action_stop()
        self.exit(0)

    def on_unmount(self) -> None:
        """Let go of everything; runs go on."""
        if self._starter is not None:
            self._starter.close()
        self.stage.close()
        self.close_lab()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The command palette."""
        yield from super().get_system_commands(screen)
        yield SystemCommand("Start", "Train what the Run panel says", self.action_start)
        yield SystemCommand("Export", "Write what the chart shows as SVG and CSV", self.action_export)
        if self.active() is not None:
            yield SystemCommand("Pause or resume", "Let the run wait, or go on", self.action_pause)
            yield SystemCommand("Stop", "Finish the step, evaluate, save, end", self.action_stop)
            yield SystemCommand("Save", "Write a checkpoint now", self.action_save)
            yield SystemCommand("Change", "Learning rate and refresh of the running job", self.action_change)

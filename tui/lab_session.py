"""An experiment on the screen: followed, folded into a state. The same for live and finished ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.protocol import Event
from engine.rundir import BadLine, is_alive, read_record
from engine.spec import Invalid
from tui.follow import Death, Following, News
from tui.lab_state import LabState
from tui.session import take_in
from tui.standby import how_it_ended


class LabSession:
    """An experiment that is shown. Raises Invalid if the directory is none."""

    def __init__(self, run: Path, exit_code: Callable[[Path], int | None]) -> None:
        record = read_record(run)
        if record.experiment is None:
            raise Invalid("", f"{run.name} is a run that trains; `epochtop attach {run.name}` shows it")
        self.run = run
        self.state = LabState(record, run.name)
        self.following = Following(run)
        self._exit_code = exit_code

    def take(self) -> bool:
        """Take in what has come. True if there was anything."""
        return take_in(self.following, self._apply)

    def _apply(self, event: News) -> None:
        if isinstance(event, Death):
            self.state.died(how_it_ended(self._exit_code(self.run)), event.tail)
        elif isinstance(event, Event | BadLine):
            self.state.apply(event)

    def close(self) -> None:
        """Stop following; it goes on."""
        self.following.close()


class LabStage:
    """What the lab shows: one result, and the experiment that measures, which may be another."""

    def __init__(self, exit_code: Callable[[Path], int | None]) -> None:
        self._exit_code = exit_code
        self.shown: LabSession | None = None
        self.running: LabSession | None = None
        """The one that measures now, wherever it was started from."""

    def open(self, run: Path) -> LabSession:
        """Show a result from its beginning; a live one goes on. Raises Invalid for what is none."""
        running = self.running is not None and self.running.run == run
        session = self.running if running and self.running is not None else LabSession(run, self._exit_code)
        self.close_shown()
        self.shown = session
        if self.running is None and is_alive(run):
            self.running = session
        return session

    def follow(self, run: Path) -> None:
        """This one measures now. Raises Invalid for what is no experiment."""
        self.running = LabSession(run, self._exit_code)

    def close_shown(self) -> None:
        """Show nothing; what measures goes on being followed."""
        if self.shown is not None and self.shown is not self.running:
            self.shown.close()
        self.shown = None

    def take(self) -> bool:
        """Take in what has come. True if the experiment that measured has ended."""
        for session in {self.running, self.shown} - {None}:
            assert session is not None
            session.take()
        ended = self.running
        if ended is None or not ended.state.over:
            return False
        self.running = None
        if ended is not self.shown:
            ended.close()
        return True

    def close(self) -> None:
        """Stop following everything."""
        for session in {self.running, self.shown} - {None}:
            assert session is not None
            session.close()

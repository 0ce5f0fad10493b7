"""An experiment on the screen: followed, folded into a state. The same for live and finished ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from epochtop.engine.lab.comparison import Comparison
from epochtop.engine.protocol.events import Event
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.reader import BadLine, is_alive, read_record
from epochtop.tui.client.follower import Death, Following, News, take_in
from epochtop.tui.client.standby import how_it_ended
from epochtop.tui.lab.comparison_rows import between
from epochtop.tui.state.experiment import ExperimentState


class LabSession:
    """An experiment that is shown. Raises Invalid if the directory is none."""

    def __init__(self, run: Path, exit_code: Callable[[Path], int | None]) -> None:
        record = read_record(run)
        if record.experiment is None:
            raise Invalid("", f"{run.name} is a run that trains; `epochtop attach {run.name}` shows it")
        self.run = run
        self.state = ExperimentState(record, run.name)
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
    """What the lab shows: one result, another that it is compared with, and the experiment that measures, maybe a third."""

    def __init__(self, exit_code: Callable[[Path], int | None]) -> None:
        self._exit_code = exit_code
        self.shown: LabSession | None = None
        self.against: LabSession | None = None
        """What the shown one is compared with."""
        self.running: LabSession | None = None
        """The one that measures now, wherever it was started from."""
        self._compared: tuple[object, Comparison] | None = None

    def open(self, run: Path) -> LabSession:
        """Show a result from its beginning; a live one goes on. Raises Invalid for what is none."""
        session = self._session(run)
        self.close_shown()
        self.shown = session
        return session

    def compare(self, run: Path) -> None:
        """Hold the shown result against this one. Raises Invalid where they cannot be compared."""
        assert self.shown is not None
        session = self._session(run)
        try:
            between(self.shown.state, session.state)
        except Invalid:
            self._let_go(session)
            raise
        self.close_against()
        self.against = session

    def _session(self, run: Path) -> LabSession:
        running = self.running is not None and self.running.run == run
        session = self.running if running and self.running is not None else LabSession(run, self._exit_code)
        if self.running is None and is_alive(run):
            self.running = session
        return session

    @property
    def comparison(self) -> Comparison | None:
        """Of the two results that are shown, made anew when rows have come; None where there is one."""
        if self.shown is None or self.against is None:
            return None
        first, second = self.shown.state, self.against.state
        key = [(one.name, len(one.rows), one.outcome, one.prepared is None) for one in (first, second)]
        if self._compared is None or self._compared[0] != key:
            self._compared = key, between(first, second)
        return self._compared[1]

    def follow(self, run: Path) -> None:
        """This one measures now. Raises Invalid for what is no experiment."""
        self.running = LabSession(run, self._exit_code)

    def close_shown(self) -> None:
        """Show nothing; what measures goes on being followed."""
        self.close_against()
        self._let_go(self.shown)
        self.shown = None

    def close_against(self) -> None:
        """Compare no longer; what measures goes on being followed."""
        self._let_go(self.against)
        self.against = self._compared = None

    def _let_go(self, session: LabSession | None) -> None:
        if session is not None and session is not self.running:
            session.close()

    def take(self) -> bool:
        """Take in what has come. True if the experiment that measured has ended."""
        for session in self._every():
            session.take()
        ended = self.running
        if ended is None or not ended.state.over:
            return False
        self.running = None
        if ended not in (self.shown, self.against):
            ended.close()
        return True

    def close(self) -> None:
        """Stop following everything."""
        for session in self._every():
            session.close()

    def _every(self) -> set[LabSession]:
        return {session for session in (self.running, self.shown, self.against) if session is not None}

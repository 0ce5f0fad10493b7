"""The results on the Lab page: one, another to compare it with, and the running experiment. Knows no widget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from epochtop.engine.lab.comparison import Comparison
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.reader import is_alive, read_record
from epochtop.tui.client.session import Session
from epochtop.tui.lab.comparison_rows import between
from epochtop.tui.state.experiment import ExperimentState

LabSession = Session[ExperimentState]


class LabStage:
    """The open result, one to compare it with, and the running experiment, maybe a third."""

    def __init__(self, exit_code: Callable[[Path], int | None]) -> None:
        self._exit_code = exit_code
        self.shown: LabSession | None = None
        """The open result."""
        self.against: LabSession | None = None
        """The result that the open one is compared with."""
        self.running: LabSession | None = None
        """The running experiment, wherever it was started."""
        self._compared: tuple[object, Comparison] | None = None

    def open(self, run: Path) -> LabSession:
        """Show a result from its first row; a live one continues. Raises Invalid if it is not an experiment."""
        session = self._session(run)
        self.close_shown()
        self.shown = session
        return session

    def compare(self, run: Path) -> None:
        """Compare the open result with this one. Raises Invalid if they cannot be compared."""
        assert self.shown is not None
        session = self._session(run)
        try:
            between(self.shown.state, session.state)
        except Invalid:
            self._release(session)
            raise
        self.close_against()
        self.against = session

    def _session(self, run: Path) -> LabSession:
        if self.running is not None and self.running.run == run:
            return self.running
        session = self._follow(run)
        if self.running is None and is_alive(run):
            self.running = session
        return session

    def _follow(self, run: Path) -> LabSession:
        return Session(run, ExperimentState(read_record(run), run.name), self._exit_code)

    @property
    def comparison(self) -> Comparison | None:
        """The comparison of the two open results, recomputed when rows arrive; None if only one is open."""
        if self.shown is None or self.against is None:
            return None
        first, second = self.shown.state, self.against.state
        key = [(state.name, len(state.rows), state.outcome, state.prepared is None) for state in (first, second)]
        if self._compared is None or self._compared[0] != key:
            self._compared = key, between(first, second)
        return self._compared[1]

    def follow(self, run: Path) -> None:
        """Set the running experiment. Raises Invalid if it is not an experiment."""
        self.running = self._follow(run)

    def close_shown(self) -> None:
        """Show nothing; the running experiment is still followed."""
        self.close_against()
        self._release(self.shown)
        self.shown = None

    def close_against(self) -> None:
        """Stop comparing; the running experiment is still followed."""
        self._release(self.against)
        self.against = self._compared = None

    def _release(self, session: LabSession | None) -> None:
        if session is not None and session is not self.running:
            session.close()

    def drain(self) -> bool:
        """Apply the events that have arrived. True if the running experiment has ended."""
        for session in self._sessions():
            session.drain()
        ended = self.running
        if ended is None or not ended.state.over:
            return False
        self.running = None
        if ended not in (self.shown, self.against):
            ended.close()
        return True

    def close(self) -> None:
        """Stop following all results."""
        for session in self._sessions():
            session.close()

    def _sessions(self) -> set[LabSession]:
        return {session for session in (self.running, self.shown, self.against) if session is not None}

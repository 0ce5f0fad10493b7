"""A run or an experiment that is followed: its events folded into a state, its log lines collected.

The same for live and finished ones. Never imports a widget: `observe` hands events to whatever draws them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from epochtop.engine.protocol.commands import AnyCommand
from epochtop.engine.protocol.events import AnyEvent, Event
from epochtop.engine.runs.opened.sources import is_opened_log
from epochtop.engine.runs.reader import BadLine
from epochtop.engine.runs.writer import send
from epochtop.tui.client.follower import Death, Following, News, drain
from epochtop.tui.client.printed import PrintedLines
from epochtop.tui.client.silence import HangingRank, silence_text
from epochtop.tui.client.standby import how_it_ended
from epochtop.tui.client.unanswered import PATIENCE_S, Unanswered
from epochtop.tui.state.lines import MessageLine


class Fold(Protocol):
    """A state that events are folded into."""

    @property
    def name(self) -> str:
        """Display name; empty if only the id names it."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""

    def apply(self, event: AnyEvent | BadLine) -> list[MessageLine]:
        """Update the state. Returns lines for the log."""

    def died(self, how: str, tail: str = "") -> list[MessageLine]:
        """Mark it as died. Returns lines for the log."""


State = TypeVar("State", bound=Fold)


class Session(Generic[State]):
    """Follows `run` and folds its events into `state`.

    `exit_code` returns the exit status of a dead engine, None if unknown. It is called in the thread of the follower.
    """

    def __init__(
        self,
        run: Path,
        state: State,
        exit_code: Callable[[Path], int | None],
        observe: Callable[[AnyEvent], object] = lambda _: None,
    ) -> None:
        self.run, self.state = run, state
        self.following = Following(run, reads_output=True, exit_code=exit_code)
        self._observe = observe
        self.unanswered = Unanswered()
        """Commands of this viewer."""
        self._hanging_rank = HangingRank()
        self._may_be_silent = is_opened_log(run)
        self.log: list[str] = []
        """Lines that are not displayed yet."""

    @property
    def name(self) -> str:
        """Display name."""
        return self.state.name or self.run.name

    @property
    def catching_up(self) -> bool:
        """Whether history is waiting, which the screen should read faster than its usual pace."""
        return self.following.behind

    def silence(self, refresh_s: float, step_s: float = 0.0) -> str:
        """For how long nothing has been recorded and why, for people; empty as long as that is usual.

        That is three refreshes, or three steps of `step_s`, and two seconds. The log of another tool may always be silent.
        """
        if self._may_be_silent or self.state.over or not self.following.caught_up:
            return ""
        cause = self._hanging_rank.message or self.following.cause
        return silence_text(self.following.silent_s, cause, refresh_s, step_s)

    def send(self, command: AnyCommand) -> None:
        """Append a command to the run. Raises OSError."""
        send(self.run, command)
        self.unanswered.sent(command)

    def overdue(self) -> str:
        """A command that the run has not answered in time, and the likely cause, for people; empty if there is none."""
        command = self.unanswered.overdue() if not self.state.over else None
        if command is None:
            return ""
        cause = self.following.cause
        name = type(command).__name__
        return f"{name} has not been answered for {PATIENCE_S:.0f} s{f': {cause}' if cause else ''}"

    def drain(self) -> bool:
        """Apply the events that have arrived. True if there were any."""
        return drain(self.following, self._apply)

    def _apply(self, event: News) -> None:
        if isinstance(event, PrintedLines):
            self.log += event.lines
            return
        if isinstance(event, Death):
            lines = self.state.died(how_it_ended(event.returncode), event.tail)
        else:
            lines = self.state.apply(event)
            if isinstance(event, Event):
                self.unanswered.see(event)
                self._hanging_rank.see(event)
                self._observe(event)
        for line in lines:
            self.log += line.text.splitlines()

    def close(self) -> None:
        """Stop following; the run itself continues."""
        self.following.close()

"""Commands that a viewer has sent and that the run has not answered. Never imports a widget."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from epochtop.engine.protocol.commands import Analyze, AnyCommand, Pause, Resume, Save, Set, Stop
from epochtop.engine.protocol.events import (
    Analyzed,
    Changed,
    Event,
    Failed,
    Finished,
    Paused,
    Resumed,
    Saved,
    ScriptEnded,
    Warned,
)

PATIENCE_S = 5.0
"""A command that is not answered within this time is reported."""
ENDS = (Finished, Failed, ScriptEnded)
ANSWERS: dict[type, tuple[type, ...]] = {
    Pause: (Paused, *ENDS),
    Resume: (Resumed, *ENDS),
    Stop: ENDS,
    Save: (Saved, Warned, *ENDS),
    Set: (Changed, Warned, *ENDS),
    Analyze: (Analyzed, Warned, *ENDS),
}
"""Events that answer each command."""


class Unanswered:
    """The commands of one viewer to one run."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._waiting: list[tuple[AnyCommand, float]] = []

    def sent(self, command: AnyCommand) -> None:
        """A command was written."""
        self._waiting.append((command, self._now()))

    def see(self, event: Event) -> None:
        """An event arrived; it answers every command of its kind."""
        if self._waiting:
            self._waiting = [
                (command, at) for command, at in self._waiting if not isinstance(event, ANSWERS[type(command)])
            ]

    def overdue(self) -> AnyCommand | None:
        """The next command that has waited too long, once; None if there is none."""
        now = self._now()
        for place, (command, at) in enumerate(self._waiting):
            if now - at > PATIENCE_S:
                del self._waiting[place]
                return command
        return None

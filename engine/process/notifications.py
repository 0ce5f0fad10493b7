"""Notifications about a run of the engine: its events, as :mod:`epochtop.notifications` understands them.

Runs in the recorder's thread. Never imports torch and never reads the device.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

from epochtop.engine.protocol.events import (
    NOTIFICATION_FAILED,
    AnyEvent,
    Failed,
    Finished,
    Logged,
    Losses,
    Paused,
    Resumed,
    Warned,
)
from epochtop.notifications.notifier import Notifier, notifier

LOSS = "train/loss"
"""Name of the training loss."""


class RunNotifier:
    """Sends messages about one run. Experiments send none."""

    def __init__(self, sender: Notifier) -> None:
        self._sender = sender
        self._end: tuple[str, str] | None = None
        """How the run ended; None until it has."""

    @classmethod
    def of(cls, run: Path, put: Callable[[AnyEvent], None]) -> RunNotifier | None:
        """The notifier of the run at this path; None if no route is configured. `put` receives a warning if one fails."""
        sender = notifier(str(run), lambda message: put(Warned(message=message, code=NOTIFICATION_FAILED)))
        return cls(sender) if sender is not None else None

    def observe(self, event: AnyEvent) -> None:
        """An event is written."""
        match event:
            case Logged():
                values = {name: _numbers(raw, event.count) for name, raw in event.values.items()}
                if LOSS in values:
                    self._sender.stepped(event.first_step + event.count, values)
            case Losses():
                self._sender.stepped(event.first_step + len(event.values) // 4, {LOSS: _numbers(event.values)})
            case Paused():
                self._sender.paused()
            case Resumed():
                self._sender.resumed()
            case Finished():
                outcome = "failed" if event.outcome == "unsaved" else event.outcome
                self._end = outcome, event.reason
            case Failed():
                self._end = "failed", event.message
            case _:
                pass

    def tick(self) -> None:
        """Look at the clock and at what was sent."""
        self._sender.tick()

    def close(self) -> None:
        """Send the last message: the log is complete, and a viewer that it leads to shows the end."""
        if self._end is not None:
            self._sender.ended(*self._end)
            self._sender.wait()


def _numbers(raw: bytes, count: int = 0) -> array[float]:
    """Little-endian floats of 4 bytes, or of 8 if `count` of them are that long."""
    return array("d" if count and len(raw) == 8 * count else "f", raw)

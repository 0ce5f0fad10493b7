"""Notifications of a script that records itself. Imported only where something may be configured.

Imports built-in modules only.
"""

from __future__ import annotations

from epochtop.notifications.notifier import notifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from epochtop.notifications.notifier import Notifier


def script_notifier(run: str, put: Callable[[dict[str, Any]], None], is_guest: bool = False) -> ScriptNotifier | None:
    """The notifier of the run at this path; None if no route is configured.

    `put` receives an event, once, if a message cannot be sent. The end of a guest is not reported: another process records
    the end of its run.
    """

    def warn(message: str) -> None:
        put({"type": "Warned", "message": message, "code": "notification_failed"})

    sender = notifier(run, warn)
    return None if sender is None else ScriptNotifier(sender, is_guest)


class ScriptNotifier:
    """Sees what a script records, and sends messages. Called by the writer's thread; never waits or raises."""

    def __init__(self, sender: Notifier, is_guest: bool) -> None:
        self._sender, self._is_guest = sender, is_guest

    def values(self, steps: int, columns: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
        """A window was recorded: steps and values by series. `steps` is the number of steps so far."""
        self._sender.stepped(steps, {name: values for name, (_, values) in columns.items()})

    def observe(self, event: Mapping[str, Any]) -> None:
        """An event of the run format was recorded."""
        if event["type"] == "Paused":
            self._sender.paused()
        elif event["type"] == "Resumed":
            self._sender.resumed()

    def tick(self) -> None:
        """Look at the clock and at what was sent."""
        self._sender.tick()

    def end(self, final: Mapping[str, Any]) -> None:
        """The last event was recorded, and the log is complete."""
        if self._is_guest:
            return
        self._sender.reached(final.get("steps", final.get("step")))
        if final["type"] == "Failed":
            self._sender.ended("failed", str(final.get("message", "")))
        else:
            self._sender.ended(str(final.get("outcome", "finished")), str(final.get("reason", "")))

    def wait(self) -> None:
        """Wait for the messages on their way, as long as the user has configured."""
        self._sender.wait()

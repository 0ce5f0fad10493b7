"""What viewers ask of a script: pause, stop, set. Read by the writer's thread, obeyed by the script's next `log()`.

Imports built-in modules only; json is imported when the first command arrives.
"""

from __future__ import annotations

import os
import time

from epochtop.configuration.regular import open_regular
from epochtop.recording import endings
from epochtop.recording.directory import COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

READ_BYTES = 1 << 16
"""Bytes read from the commands at once."""
STOP_PATIENCE_S = 2.0
"""Time that a script has to reach its next `log()` before a stop interrupts it where it is."""
SETTING_REJECTED = "setting_rejected"
"""Code of the warning that a setting keeps its value."""
UNSUPPORTED = {
    "Analyze": "this script cannot be measured, because it was not started with `epochtop run`",
    "Save": "this script saves by itself, not when a viewer asks",
}
"""Answers to commands that only other runs obey."""


class Inbox:
    """Reads the commands of a run as they arrive. Skips unreadable lines. Never raises."""

    def __init__(self, run: str, from_now: bool) -> None:
        """`from_now` skips earlier commands, for a run that is continued. Raises OSError if the file cannot be opened."""
        self._file = open_regular(os.path.join(run, COMMANDS), os.O_RDONLY | os.O_CREAT)
        self._rest = b""
        if from_now:
            os.lseek(self._file, 0, os.SEEK_END)

    def read(self) -> list[dict[str, Any]]:
        """The commands since the last call."""
        try:
            new = os.read(self._file, READ_BYTES)
        except OSError:
            return []
        if not new:
            return []
        *lines, self._rest = (self._rest + new).split(b"\n")
        return [command for line in lines if (command := _decode(line)) is not None]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _decode(line: bytes) -> dict[str, Any] | None:
    import json

    try:
        command = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return command if isinstance(command, dict) and isinstance(command.get("type"), str) else None


class Setting:
    """A value that viewers may change."""

    def __init__(self, value: float, low: float | None, high: float | None) -> None:
        self.value, self.low, self.high = value, low, high
        self._whole = type(value) is int

    def declaration(self, name: object) -> dict[str, Any]:
        """The event that declares it."""
        low, high = (None if bound is None else float(bound) for bound in (self.low, self.high))
        return {"type": "SettingDeclared", "name": str(name), "value": float(self.value), "low": low, "high": high}

    def accept(self, value: object) -> bool:
        """Take a new value. False if it is not a number or out of bounds."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            return False
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            return False
        if self._whole and value != int(value):
            return False
        self.value = int(value) if self._whole else float(value)
        return True


class Control:
    """State that viewers change. `obey` runs in the writer's thread, `enter` in the script's."""

    def __init__(
        self, put: Callable[[dict[str, Any]], None], on_change: Callable[[], None], settings: dict[str, Setting]
    ) -> None:
        """`put` hands over an event that answers; the writer replaces a step of None by the next step.

        `on_change` is called when `is_quiet` may have changed. `settings` are those that the script declares, by name.
        """
        self._put, self._on_change, self._settings = put, on_change, settings
        self._inbox: Inbox | None = None
        self.handlers: dict[str, Callable[[dict[str, Any]], None]] = {}
        """Functions that obey further commands, by type; called in the writer's thread."""
        self.paused_s = 0.0
        """Seconds that the script has waited so far."""
        self.stopped_by: str | None = None
        """Who asked the script to stop; None if nobody has."""
        self.stop_is_polled = False
        """Whether the script looks at `stopping` by itself, so that it is not interrupted."""
        self.interrupts = False
        """Whether the next `log()` raises KeyboardInterrupt."""
        self._interrupt_at = 0.0
        self._paused_by: str | None = None
        self._blocked = 0
        """Number of threads that wait in `log()`."""

    @property
    def is_quiet(self) -> bool:
        """Whether `log()` has nothing to obey."""
        return self._paused_by is None and not self.interrupts

    # --- in the writer's thread ----------------------------------------------------------------------------

    def open(self, run: str, from_now: bool) -> None:
        """Read the commands of the run at this path from now on, without earlier ones if `from_now`. Raises OSError."""
        inbox = Inbox(run, from_now)
        self.close()
        self._inbox = inbox

    def close(self) -> None:
        """Read no more commands."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox.close()

    def look(self, run: str) -> None:
        """Obey the commands that have arrived, and interrupt the script if it should have stopped by now."""
        if self._inbox is None:
            try:
                self.open(run, from_now=False)
            except OSError:  # the folder was deleted, or the process may not open more files
                return
        assert self._inbox is not None
        for command in self._inbox.read():
            self.obey(command)
        self.check()

    def obey(self, command: dict[str, Any]) -> None:
        """Obey a command."""
        by = str(command.get("by", ""))
        kind = command["type"]
        if kind == "Pause":
            self._paused_by = self._paused_by if self._paused_by is not None else by
        elif kind == "Resume":
            self._resume(by)
        elif kind == "Stop":
            self._stop(by)
        elif kind == "Set":
            self._set(str(command.get("field", "")), command.get("value"), by)
        elif kind in self.handlers:
            self.handlers[kind](command)
        else:
            message = UNSUPPORTED.get(kind) or f"scripts do not support the command {kind[:80]}"
            self._put({"type": "Warned", "message": message, "code": "command_ignored"})
        self._on_change()

    def check(self) -> None:
        """Interrupt the script where it is if it should have stopped by now."""
        if self.interrupts and not self._blocked and time.monotonic() >= self._interrupt_at:
            self.interrupts = False
            self._on_change()
            endings.interrupt_main()

    def _resume(self, by: str) -> None:
        if self._paused_by is not None:
            self._paused_by = None
            self._put({"type": "Resumed", "step": None, "by": by})

    def _stop(self, by: str) -> None:
        insists = self.stopped_by is not None
        self.stopped_by = by
        if not self.stop_is_polled or insists:
            self.interrupts = True
            self._interrupt_at = time.monotonic() + (0.0 if insists else STOP_PATIENCE_S)
        self._resume(by)

    def _set(self, name: str, value: object, by: str) -> None:
        setting = self._settings.get(name)
        if setting is not None and setting.accept(value):
            self._put({"type": "Changed", "step": None, "field": name, "value": float(setting.value), "by": by})
            return
        if setting is None:
            message = f"{name} keeps its value: the script has not declared it with run.setting()"
        else:
            low = "-inf" if setting.low is None else f"{setting.low:g}"
            high = "inf" if setting.high is None else f"{setting.high:g}"
            message = f"{name} keeps its value: {value!r} is not between {low} and {high}"
        self._put({"type": "Warned", "message": message[:500], "code": SETTING_REJECTED})

    def poll_stop(self) -> bool:
        """Whether a viewer asks the script to stop; from now on, the script looks by itself and is not interrupted."""
        if not self.stop_is_polled:
            self.stop_is_polled = True
            self.interrupts = False
            self._on_change()
        return self.stopped_by is not None

    # --- in the script's thread ------------------------------------------------------------------------------

    def enter(self) -> None:
        """Wait while the run is paused. Raises KeyboardInterrupt in the main thread if a viewer stops the script."""
        if self._paused_by is not None:
            self._wait()
        if self.interrupts and endings.is_main_thread():
            self.interrupts = False
            self._on_change()
            raise KeyboardInterrupt(f"stopped by {self.stopped_by or 'a viewer'}")

    def _wait(self) -> None:
        started_at = time.monotonic()
        self._blocked += 1
        if self._blocked == 1:
            self._put({"type": "Paused", "step": None, "by": self._paused_by or ""})
        try:
            while self._paused_by is not None:
                time.sleep(0.02)
        finally:
            self._blocked -= 1
            self.paused_s += time.monotonic() - started_at

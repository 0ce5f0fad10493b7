"""Events of a run that a user's script records. Imports msgspec only."""

from __future__ import annotations

from typing import Any, Literal

from epochtop.engine.protocol.events.event import Event, UnixTime


class ScriptStarted(Event, frozen=True, kw_only=True):
    """A script begins to record, or continues a run that had ended; events that ended the run before no longer count."""

    time: UnixTime
    """Unix time in seconds."""
    pid: int
    """Process id of the script; 0 for the log of another tool."""
    step: int = 0
    """Step of the next value, if the script does not name one."""


class Configured(Event, frozen=True, kw_only=True):
    """The script has set or changed entries of its configuration after the start."""

    values: dict[str, Any]
    """JSON values by name; nested names are joined with `/`."""


class Summarized(Event, frozen=True, kw_only=True):
    """The script has set entries of its summary."""

    values: dict[str, Any]
    """JSON values by name."""


class SettingDeclared(Event, frozen=True, kw_only=True):
    """The script has a setting that viewers may change while it runs, with the command `Set`."""

    name: str
    value: float
    """Current value."""
    low: float | None = None
    """Lowest value that the script accepts; None if there is no limit."""
    high: float | None = None
    """Highest value that the script accepts; None if there is no limit."""


class ScriptEnded(Event, frozen=True, kw_only=True):
    """The script has ended without an exception; its last event unless the run is continued."""

    time: UnixTime
    """Unix time in seconds."""
    outcome: Literal["finished", "stopped"]
    reason: str = ""
    """Why it ended: a signal, a command, or an exit status, in one sentence, and which series are not finite at the end;
    empty if it ended by itself with finite values."""
    exit_status: int | None = None
    """Exit status of the process; None if unknown."""
    steps: int
    """Number of steps: the highest step plus 1."""
    seconds: float
    """Duration in seconds."""
    dropped: int = 0
    """Number of values that were dropped because the disk refused them for too long."""

"""Events that answer commands or explain a run. Imports the other protocol modules only."""

from __future__ import annotations

from epochtop.engine.protocol.events.event import Event


class Paused(Event, frozen=True, kw_only=True):
    """Training is paused; steps 0 … `step`−1 are recorded."""

    step: int
    by: str = ""
    """Sender of the command, as `user@host:pid`; empty if there was none."""


class Resumed(Event, frozen=True, kw_only=True):
    """Training continues with step `step` after a pause."""

    step: int
    by: str = ""
    """Sender of the command, as `user@host:pid`; empty if there was none."""


class Changed(Event, frozen=True, kw_only=True):
    """A live setting has a new value from `step` on."""

    step: int
    field: str
    """`learning_rate`, `refresh_ms`, or the name of a setting that a script declared."""
    value: float
    by: str = ""
    """Sender of the command, as `user@host:pid`; empty if the engine decided."""


class Noted(Event, frozen=True, kw_only=True):
    """A decision or a measurement that explains the run."""

    message: str
    code: str = ""
    """One of the codes above; empty in logs of older versions."""


class Warned(Event, frozen=True, kw_only=True):
    """A problem that does not end the run."""

    message: str
    code: str = ""
    """One of the codes above; empty in logs of older versions."""

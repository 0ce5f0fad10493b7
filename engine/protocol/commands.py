"""Commands to a running engine: imperative, one line of JSON per command in commands.jsonl.

Each line has the class name of the command under `type`. Imports msgspec and the standard library only.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import msgspec

BATCH_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGQUIT, signal.SIGALRM)
"""Signals that batch systems send before they kill a job. They stop a run whose `signals` name them. Otherwise they do nothing,
unless a task has a handler of its own."""


class Command(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """A request from a viewer to a running engine."""

    by: str = ""
    """Sender, as `user@host:pid`; repeated in the event that answers."""


class Pause(Command, frozen=True, kw_only=True):
    """Pause after the current step."""


class Resume(Command, frozen=True, kw_only=True):
    """Continue after a pause."""


class Stop(Command, frozen=True, kw_only=True):
    """Stop after the current step: evaluate, save, end."""


class Save(Command, frozen=True, kw_only=True):
    """Write a checkpoint now."""


class Set(Command, frozen=True, kw_only=True):
    """Change a setting while the run trains."""

    field: str
    """`learning_rate` or `refresh_ms`; for a script, the name of a setting that it declared."""
    value: float
    """New value: the learning rate, milliseconds, or the value of the script's setting."""


class Analyze(Command, frozen=True, kw_only=True):
    """Measure where the next steps of a script spend their time. Only scripts that epochtop started answer."""

    steps: int = 20
    """Number of steps to measure."""


AnyCommand = Pause | Resume | Stop | Save | Set | Analyze
"""Every command."""

decode_command: Callable[[bytes], AnyCommand] = msgspec.json.Decoder(AnyCommand).decode

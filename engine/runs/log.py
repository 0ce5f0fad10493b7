"""The log of a run that the engine trains: :class:`epochtop.recording.log.EventLog`, which complains to output.log.

Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from epochtop.engine.runs.paths import EVENTS
from epochtop.engine.terminal.output import write_log
from epochtop.recording import log

UNSAVED_STATUS = 4
"""Exit status of an engine that could not write its last checkpoint."""


class EventLog(log.EventLog):
    """The log of one run, open for appending."""

    def __init__(self, run: Path) -> None:
        super().__init__(run, _complain)


def _complain(message: str) -> None:
    """Write to output.log, which may be on the same full disk."""
    with contextlib.suppress(OSError):
        write_log(f"{EVENTS}: {message}\n")

"""Commands of viewers that no hooked process obeys: the supervisor stops, pauses and continues the command by signals.

Standard library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from epochtop.configuration.regular import open_regular
from epochtop.recording.directory import CLAIM
from epochtop.supervisor.child import Child


class CommandReader:
    """Reads commands.jsonl and obeys, unless a process of the command has claimed the run."""

    def __init__(self, run: Path, child: Child, record: Callable[[dict[str, Any]], object]) -> None:
        self._run, self._child, self._record = run, child, record
        self._position = 0
        self._stops = 0
        self.stopped_by = ""
        """Who asked the command to stop; empty if nobody did."""

    def look(self) -> None:
        """Read new commands."""
        path = self._run / "commands.jsonl"
        try:
            if path.stat().st_size <= self._position:
                return
            with os.fdopen(open_regular(path), "rb") as file:
                file.seek(self._position)
                data = file.read()
        except OSError:
            return
        complete = data[: data.rfind(b"\n") + 1]
        self._position += len(complete)
        claimed = is_claimed(self._run)
        for line in complete.splitlines():
            try:
                command = json.loads(line)
                self._obey(command["type"], str(command.get("by", "")), claimed)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue

    def _obey(self, kind: str, by: str, claimed: bool) -> None:
        if kind == "Stop":
            self.stopped_by = by or "a command"
            self._stops += 1
            if not claimed or self._stops > 1:
                self._child.send(signal.SIGCONT)
                self._child.send(signal.SIGINT if self._stops == 1 else signal.SIGTERM)
        elif claimed:
            return
        elif kind == "Pause":
            self._child.send(signal.SIGSTOP)
            self._record({"type": "Paused", "step": 0, "by": by})
        elif kind == "Resume":
            self._child.send(signal.SIGCONT)
            self._record({"type": "Resumed", "step": 0, "by": by})
        elif kind == "Analyze":
            message = "nothing to measure yet: no Python process of this command has taken an optimizer step"
            self._record({"type": "Warned", "message": message, "code": "analysis_failed"})


def is_claimed(run: Path) -> bool:
    """Whether a process of the command records the run and obeys commands."""
    try:
        claim = open_regular(run / CLAIM)
    except OSError:
        return False
    try:
        fcntl.flock(claim, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(claim)
    return False

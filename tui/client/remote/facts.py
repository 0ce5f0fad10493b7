"""What the screen says about runs on another machine. Never imports a widget."""

from __future__ import annotations

import socket
from pathlib import Path

from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.runs.remote.registry import mirror_at, mirror_of


def connection_problem(home: Path) -> str:
    """Why nothing arrives from the machine whose runs `home` mirrors; empty while the connection works, or without one."""
    mirror = mirror_at(home)
    return mirror.problem if mirror is not None else ""


def recording_pid(run: Path, record: RunRecord | None) -> int | None:
    """Id of the process that records a run, if it is on the machine that the panel shows; None if it is elsewhere or unknown."""
    if record is None:
        return None
    mirror = mirror_of(run)
    return record.pid if record.host == (mirror.machine if mirror is not None else socket.gethostname()) else None

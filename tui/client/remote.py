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


def pid_here(run: Path, record: RunRecord | None) -> int | None:
    """Id of the process that records a run if it is on this machine; None if it is elsewhere or unknown."""
    is_here = record is not None and record.host == socket.gethostname() and mirror_of(run) is None
    return record.pid if record is not None and is_here else None

"""What the screen says about runs on another machine. Never imports a widget."""

from __future__ import annotations

import socket
from pathlib import Path

from epochtop.engine.runs.remote.registry import mirror_at, mirror_of


def connection_problem(home: Path) -> str:
    """Why nothing arrives from the machine whose runs `home` mirrors; empty while the connection works, or without one."""
    mirror = mirror_at(home)
    return mirror.problem if mirror is not None else ""


def is_process_here(run: Path, host: str) -> bool:
    """Whether the process of a run, which recorded the name of its `host`, is on this machine."""
    return mirror_of(run) is None and host == socket.gethostname()

"""Why a run that is alive records nothing, as far as another process can see. Needs no space on the disk of the run.

May block on a file system that hangs, so only the thread that follows a run calls it. Never imports a widget.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.reader import read_record
from epochtop.engine.runs.remote.registry import mirror_of

ALLOWED_S = 2.0
"""A run may be silent for three refreshes and this long."""
FULL_BYTES = 1 << 20
"""A disk with less free space than this is full."""
HANGING_S = 5.0
"""Time after which a file system that has not answered hangs."""
_STOPPED, _TRACED, _WAITING = "T", "t", "D"
"""States of a process in /proc/PID/stat."""


def likely_cause(run: Path) -> str:
    """Why `run` records nothing, for people; empty if nothing unusual can be seen."""
    mirror = mirror_of(run)
    if mirror is not None:  # its process and its disk are out of sight
        return mirror.problem
    try:
        record = read_record(run)
        disk = os.statvfs(run)
    except (Invalid, OSError):
        return "its folder cannot be read"
    local = record.host == socket.gethostname()
    state = _process_state(record.pid) if local else ""
    if state == _STOPPED:
        return f"process {record.pid} is suspended; `kill -CONT {record.pid}` continues it"
    if state == _TRACED:
        return f"a debugger holds process {record.pid}"
    if disk.f_bavail * disk.f_frsize < FULL_BYTES:
        return f"the disk of {run.parent} is full"
    if state == _WAITING:
        return f"process {record.pid} waits for a disk or a network"
    return "" if local else f"it runs on {record.host}, which may be out of reach"


def _process_state(pid: int) -> str:
    """State of a process of this machine, one letter; empty where /proc does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""

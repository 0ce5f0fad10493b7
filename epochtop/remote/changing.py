"""What a viewer on another machine may change here: commands of a run, its record, and a whole run that has ended.

Each function returns why the change was impossible; empty if it was made. Never follows a link. Imports the standard library
and modules that are sent with it only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil

from epochtop.engine.runs.heartbeat import is_alive
from epochtop.engine.runs.regular import check_regular, read_regular
from epochtop.recording import directory
from epochtop.remote.listing import LARGEST_RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

LONGEST_COMMAND = 64 << 10
"""Most bytes of a command."""


def append_command(run: Path, line: bytes) -> str:
    """Append a line to the commands of a run, with a single write as any viewer does."""
    if not line.endswith(b"\n") or line.count(b"\n") != 1 or len(line) > LONGEST_COMMAND:
        return "it is not one line"
    path = run / directory.COMMANDS
    try:
        check_regular(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def replace_record(run: Path, digest: str, content: bytes) -> str:
    """Replace the record of a run. `digest` is the SHA-256 of the record that the viewer has changed."""
    path = run / directory.RECORD
    try:
        if hashlib.sha256(read_regular(path, LARGEST_RECORD)).hexdigest() != digest:
            return "the run was changed there meanwhile; try again"
        if path.is_symlink() or not isinstance(json.loads(content), dict):
            return "its record cannot be replaced"
        directory.write_atomically(str(path), content)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError:
        return "it is not a record"
    return ""


def delete_run(run: Path) -> str:
    """Delete a run with all its files, unless its process is alive."""
    if not os.path.lexists(run / directory.RECORD):
        return "there is no such run any more"
    if is_alive(run):
        return "it is still running; stop it first"
    try:
        shutil.rmtree(str(run))
    except OSError as error:
        return error.strerror or str(error)
    return ""

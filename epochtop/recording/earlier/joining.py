"""Runs of commands that `epochtop run` started: it has created the run, and one Python process at a time adds to it.

The first :class:`Run` of that process joins. It records neither the start nor the end: the process that started the command
does. Imports built-in modules only; json is imported when a process joins.
"""

from __future__ import annotations

import fcntl
import os
import time

from epochtop.configuration.regular import open_regular
from epochtop.recording import directory, endings
from epochtop.recording.earlier import resume
from epochtop.recording.json_text import encode
from epochtop.recording.series import MEASURED
from epochtop.recording.writer import QUEUE_ENTRIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from epochtop.recording.writer import Writer

NAMES = ("name", "project", "group", "tags", "notes", "resume_id", "config")
"""Entries of the record that a script's own run changes."""

_joined: list[str] = []
"""Runs that this process has joined; it joins each once."""
hooked: Any = None
"""The `Run` that the hooks have begun in this process, or None; the script's own run takes it over."""


def join(writer: Writer, script: dict[str, Any]) -> bool:
    """Let a writer that has not started add to the command's run. False if there is none, or another process adds to it.

    `script` is the record of the script's own run; its name, notes and configuration become those of the command's run.
    """
    path = os.environ.get(directory.RUN_TO_JOIN, "")
    if not path or path in _joined:
        return False
    try:
        claim = os.fdopen(
            open_regular(os.path.join(path, directory.CLAIM), os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab"
        )
    except OSError:
        return False
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        claim.close()
        return False
    except OSError:  # a file system without locks
        pass
    _joined.append(path)
    steps, _ = resume.end_of(path)
    created = resume.read_record(path).get("created") or time.time()
    writer.continue_run(path, claim, steps, max(0.0, time.time() - created))
    writer.is_guest = True
    describe(path, script)
    return True


def describe(path: str, script: dict[str, Any]) -> None:
    """Add what a script says about itself to the record of the command's run."""
    description = {name: script[name] for name in NAMES if script.get(name)}
    record = resume.read_record(path)
    if record:
        record["script"] = {**record.get("script", {}), "python": script.get("python", ""), **description}
        try:
            directory.write_atomically(os.path.join(path, directory.RECORD), encode(record).encode("ascii"))
        except OSError:
            pass


def take_over(script: dict[str, Any]) -> Writer | None:
    """The writer of the run that the hooks have begun, for the script's own run; None if there is none."""
    global hooked
    run, hooked = hooked, None
    if run is None or not run.is_recording:
        return None
    endings.forget(run)
    writer: Writer | None = run._writer
    run._writer, run._gate = None, _gone
    if writer is not None and writer.path is not None:
        describe(writer.path, script)
    return writer


def _gone() -> bool:
    """Gate of a run that another one has taken over."""
    return False


def log_row(run: Any, step: int, values: dict[str, Any]) -> bool:
    """Like `run.log()`, at the least cost: `values` are numbers or tensors by series, in a new dictionary.

    What the script logs next without a step belongs to this step, unless it has logged something for it already. False
    if the run does not record.
    """
    if run._gate is not None and not run._gate():
        return False
    for value in values.values():
        if type(value) is not float:
            run._convert(values)
            break
    if len(run._entries) < QUEUE_ENTRIES:
        run._entries.append((MEASURED - step, values))
    else:
        run._writer.dropped += len(values)
    return True

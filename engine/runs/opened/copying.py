"""`epochtop open --import`: the values of another tool's log in a run directory.

Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from epochtop.engine.protocol.events import Failed, ScriptEnded, ScriptStarted, encode
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.opened.follower import OpenedFollower
from epochtop.engine.runs.opened.summary import read_log_record
from epochtop.engine.runs.paths import EVENTS
from epochtop.formats.scan import Log
from epochtop.recording import directory


def copy_log(home: Path, log: Log) -> Path:
    """Copy what a log holds now into a new run directory in `home`, which exists. Returns its path.

    Raises Invalid if the log cannot be read or the run cannot be written; then nothing is left behind.
    """
    record = read_log_record(log.path)
    follower = OpenedFollower(log.path)
    try:
        created, lock = directory.create(str(home), directory.slug(record.name or log.name), encode(record))
    except OSError as error:
        raise Invalid("", f"cannot create a run in {home}: {error.strerror}") from None
    run = Path(created)
    with contextlib.closing(follower), lock:
        try:
            _write_events(run, follower)
        except BaseException as error:
            shutil.rmtree(run, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            raise Invalid("", f"cannot write {run}: {error.strerror}") from None
    return run


def _write_events(run: Path, follower: OpenedFollower) -> None:
    ended = False
    with open(run / EVENTS, "ab") as file:
        while events := follower.read():
            for event in events:
                file.write(encode(event) + b"\n")
                if isinstance(event, ScriptEnded | Failed):
                    ended = True
                elif isinstance(event, ScriptStarted):
                    ended = False
        if not ended:
            end = ScriptEnded(
                time=follower.last_time,
                outcome="stopped",
                reason="imported while the log was still growing",
                steps=follower.steps,
                seconds=follower.seconds,
            )
            file.write(encode(end) + b"\n")

"""Continuing a run that has ended: finding it, and the step at which it ended.

Imports built-in modules only; json is imported when a run is continued.
"""

from __future__ import annotations

import os
from binascii import a2b_base64
from struct import unpack

from epochtop.configuration.regular import open_regular, read_regular
from epochtop.recording import directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any

    from epochtop.recording.writer import Writer

TAIL_BYTES = 1 << 20
"""Bytes of a log that are read from its end, at first."""


def find(home: str, query: str) -> str | None:
    """The run that `query` refers to: an id, a path, an id that its script has chosen, or a name. Of several runs with one
    name, the newest counts. None if there is none.
    """
    for path in (os.path.join(home, query), query):
        if os.path.isfile(os.path.join(path, directory.RECORD)):
            return os.path.abspath(path)
    named = []
    try:
        entries = [entry.path for entry in os.scandir(home) if not entry.name.startswith(".")]
    except OSError:
        return None
    for path in entries:
        record = read_record(path)
        script = record.get("script") or {}
        is_chosen = script.get("resume_id") == query
        if query and (is_chosen or (script.get("name") or record.get("spec", {}).get("name")) == query):
            named.append((is_chosen, record.get("created", 0.0), path))
    return max(named)[2] if named else None


def read_record(run: str) -> dict[str, Any]:
    """The contents of run.json; empty if it cannot be read."""
    import json

    try:
        record = json.loads(read_regular(os.path.join(run, directory.RECORD)))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def reopen(run: str) -> IO[bytes]:
    """Lock a run and record this process as its process. Raises BlockingIOError if another process records it."""
    from epochtop.recording.json_text import encode

    lock = directory.lock_again(run)
    try:
        record = {**read_record(run), "pid": os.getpid(), "host": directory.host_name()}
        directory.write_atomically(os.path.join(run, directory.RECORD), encode(record).encode("ascii"))
    except BaseException:
        lock.close()
        raise
    return lock


def continue_run(writer: Writer, run: str, report: Callable[[str], object]) -> str:
    """Let a writer that has not started continue a run; `report` is told if another process records it.

    Returns the name of the run; empty if it is not continued. Raises OSError if it cannot be written.
    """
    try:
        lock = reopen(run)
    except BlockingIOError:
        report(f"{os.path.basename(run)} is being recorded by another process; a new run is recorded")
        return ""
    writer.continue_run(run, lock, *end_of(run))
    return str((read_record(run).get("script") or {}).get("name", ""))


def end_of(run: str) -> tuple[int, float]:
    """Number of steps of a run, and its duration in seconds, from the end of its log."""
    import json

    try:
        with os.fdopen(open_regular(os.path.join(run, directory.EVENTS)), "rb") as log:
            size = log.seek(0, os.SEEK_END)
            span = TAIL_BYTES
            while True:
                log.seek(max(0, size - span))
                lines = log.read(span).split(b"\n")
                steps, seconds = 0, 0.0
                for line in lines[(span < size) :]:
                    try:
                        more_steps, more_seconds = _progress(json.loads(line))
                    except (ValueError, TypeError, KeyError, AttributeError):
                        continue
                    steps, seconds = max(steps, more_steps), max(seconds, more_seconds)
                if seconds or steps or span >= size:
                    return steps, seconds
                span *= 8
    except OSError:
        return 0, 0.0


def _progress(event: dict[str, Any]) -> tuple[int, float]:
    """Steps and seconds that an event tells."""
    kind = event.get("type")
    if kind == "Logged":
        steps = event["first_step"] + event["count"]
        if event.get("steps"):
            steps = max(unpack(f"<{event['count']}q", a2b_base64(event["steps"]))) + 1
        return int(steps), float(event["seconds"])
    if kind == "ScriptEnded":
        return int(event["steps"]), float(event["seconds"])
    return 0, 0.0

"""Changes of runs that may be on another machine: their records, and their end. Never imports torch, numpy or Textual."""

from __future__ import annotations

import shutil
from pathlib import Path

from epochtop.engine.protocol.events import encode
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.files import write_atomically
from epochtop.engine.runs.paths import RECORD
from epochtop.engine.runs.remote.registry import mirror_of


def write_record(run: Path, record: RunRecord) -> None:
    """Replace the record of a run. Waits for the other machine. Raises Invalid if it cannot be stored."""
    mirror = mirror_of(run)
    if mirror is not None:
        mirror.replace_record(run, encode(record))
        return
    try:
        write_atomically(run / RECORD, encode(record))
    except OSError as error:
        raise Invalid("", f"cannot write {run / RECORD}: {error.strerror}") from None


def remove_run(run: Path) -> None:
    """Remove a run that is not alive with all its files. Waits for the other machine. Raises Invalid if that fails."""
    mirror = mirror_of(run)
    if mirror is not None:
        mirror.delete(run)
        return
    try:
        shutil.rmtree(run)
    except OSError as error:
        raise Invalid("", f"cannot delete {run.name}: {error.strerror}") from None

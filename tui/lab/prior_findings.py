"""What the lab has found out of a run's job before: the newest of its results that say where a step's time goes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from epochtop.engine.protocol.events import RunRecord
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.paths import lab_home
from epochtop.engine.runs.reader import read_record
from epochtop.tui.lab.kept import look

TELLING = ("anatomy", "executors")
"""Experiments whose findings are about a step of a job."""
MOST = 100
"""Results that are looked at, the newest first."""


def found_of(home: Path, run: RunRecord) -> str:
    """The finding of the newest finished result of the same job on the same host; empty where there is none."""
    for path in run_paths(lab_home(home))[:MOST]:
        if not path.name.startswith(TELLING):  # ids begin with the experiment
            continue
        try:
            record = read_record(path)
        except Invalid:
            continue
        if record.host == run.host and _job(record.spec) == _job(run.spec):
            kept = look(path)
            if kept is not None and kept.state == "finished":
                return f"{kept.experiment}: {kept.finding}"
    return ""


def _job(spec: RunSpec) -> RunSpec:
    """Without its name, which changes nothing."""
    return msgspec.structs.replace(spec, name="")

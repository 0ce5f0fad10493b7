"""Earlier results of the lab for a run's job: the newest one on where the time of a step goes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.paths import lab_home
from epochtop.engine.runs.reader import read_record
from epochtop.tui.lab.saved_results import look

ABOUT_STEPS = ("anatomy", "executors")
"""Experiments whose findings are about a step of a job."""
MOST = 100
"""Most results to check, the newest first."""


def finding_for(home: Path, run: RunRecord) -> str:
    """The finding of the newest finished result for the same job on the same host; empty if there is none."""
    for path in run_paths(lab_home(home))[:MOST]:
        if not path.name.startswith(ABOUT_STEPS):  # an id starts with the experiment's name
            continue
        try:
            record = read_record(path)
        except Invalid:
            continue
        if record.host == run.host and _job(record.spec) == _job(run.spec):
            result = look(path)
            if result is not None and result.state == "finished":
                return f"{result.experiment}: {result.finding}"
    return ""


def _job(spec: RunSpec) -> RunSpec:
    """The settings without the name, which does not affect the job."""
    return msgspec.structs.replace(spec, name="")

"""Earlier results of an experiment in the folder of the new one, measured under the same conditions. Imports no torch."""

from __future__ import annotations

import itertools
from pathlib import Path

from epochtop.engine.lab.comparison import Result, conditions
from epochtop.engine.lab.experiment import Experiment
from epochtop.engine.protocol.events import Concluded, Prepared
from epochtop.engine.protocol.experiments import ExperimentRequest, Verdict
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.reader import read_events, read_record

MOST = 9
"""Most earlier results that count."""
MOST_READ = 40
"""Most results to look at, the newest first."""


def earlier_verdicts(run: Path, experiment: Experiment, prepared: Prepared) -> list[Verdict]:
    """Verdicts of finished results that differ from a new one in nothing but the load; the newest first.

    `run` is the run directory of the new one, `prepared` its first event. Results that cannot be read do not count.
    """
    try:
        new = _result(run, prepared)
    except Invalid:
        return []
    verdicts: list[Verdict] = []
    for path in _other_results(run, experiment):
        old, verdict = _read(path)
        if old is not None and verdict is not None and not _differ(experiment, old, new):
            verdicts.append(verdict)
            if len(verdicts) == MOST:
                break
    return verdicts


def _other_results(run: Path, experiment: Experiment) -> list[Path]:
    """The newest other results of the experiment; an id begins with its name."""
    paths = (path for path in run_paths(run.parent) if path.name.startswith(f"{experiment.name}-") and path != run)
    return list(itertools.islice(paths, MOST_READ))


def _differ(experiment: Experiment, old: Result, new: Result) -> bool:
    if old.asked.name != experiment.name:
        return True
    return any(condition.name != "load" for condition in conditions(experiment, old, new))


def _read(run: Path) -> tuple[Result | None, Verdict | None]:
    """A result and its verdict; None for what it does not have, or what cannot be read."""
    result, verdict = None, None
    try:
        for event in read_events(run):
            if isinstance(event, Prepared):
                result = _result(run, event)
            elif isinstance(event, Concluded) and event.outcome == "finished":
                verdict = event.verdict
    except (Invalid, OSError):
        return None, None
    return result, verdict


def _result(run: Path, prepared: Prepared) -> Result:
    """What was measured, and where, without rows. Raises Invalid if the record cannot be read."""
    record = read_record(run)
    return Result(
        name=run.name,
        created=record.created,
        asked=record.experiment or ExperimentRequest(name=""),
        spec=record.spec,
        rows=(),
        devices=prepared.devices,
        machine=prepared.machine,
    )

"""`epochtop lab --compare ID [ID]`: two kept results of one experiment, held against each other from their files alone."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import index
from epochtop.engine.runs.paths import lab_home
from epochtop.engine.runs.reader import BadLine, Follower, is_alive, output_tail, read_record
from epochtop.tui.cli.lab_text import painted, room
from epochtop.tui.lab.comparison_rows import as_object, between, report
from epochtop.tui.state.experiment import ExperimentState

USAGE = "epochtop lab --compare ID [ID] [--json]"


def compare(arguments: list[str], home: Path) -> int:
    """Do what `--compare …` says; one that goes on is taken as far as it has come. Returns 0. Raises Invalid."""
    wanted = [argument for argument in arguments if argument not in ("--compare", "--json")]
    wrong = next((argument for argument in wanted if argument.startswith("-")), "")
    if wrong:
        raise Invalid("compare", f"there is no {wrong} here; {USAGE}")
    if not 1 <= len(wanted) <= 2:
        raise Invalid("compare", f"needs the id of one result, or of two, not {len(wanted)}; {USAGE}")
    first = read(found(home, wanted[0]))
    second = read(found(home, wanted[1])) if len(wanted) > 1 else _newest_other(home, first)
    told = between(first, second)
    if "--json" in arguments:
        sys.stdout.write(msgspec.json.encode(as_object(told)).decode() + "\n")
    else:
        rows = report(told, room()[0], time.time())
        sys.stdout.write("\n".join(painted(rows, sys.stdout.isatty())) + "\n")
    return 0


def found(home: Path, wanted: str) -> Path:
    """The result that `wanted` means: its id, a beginning of it, or `last`. Raises Invalid for none and for a run."""
    kept = index.run_paths(lab_home(home))
    if wanted == "last" and kept:
        return kept[0]
    try:
        path = index.find_any(home, wanted)
    except Invalid:
        if wanted and any(each.name.startswith(wanted) for each in kept):
            raise
        raise Invalid(
            "", f"there is no result {wanted!r} in {lab_home(home)}; `epochtop lab --results` lists them"
        ) from None
    if path.parent != lab_home(home):
        raise Invalid("", f"{path.name} is a run that trains; key o of the app lays one behind another")
    return path


def read(run: Path) -> ExperimentState:
    """Everything that its files say by now. Raises Invalid for what is no experiment."""
    alive = is_alive(run)  # asked before the log is read, so that an end written meanwhile is no death
    record = read_record(run)
    if record.experiment is None:
        raise Invalid("", f"{run.name} is no result of an experiment")
    state, follower = ExperimentState(record, run.name), Follower(run)
    for event in follower.read_all():
        line = state.apply(event)
        if isinstance(event, BadLine):
            sys.stderr.write(f"epochtop: {run.name}/{line}\n")
    follower.close()
    if not state.over and not alive:
        state.died("nobody waited for it", output_tail(run))
    return state


def _newest_other(home: Path, first: ExperimentState) -> ExperimentState:
    """The newest result of the same experiment that has rows. Raises Invalid where there is none."""
    name = first.asked.name
    for run in index.run_paths(lab_home(home)):
        try:
            record = read_record(run)
        except Invalid:
            continue
        if run.name != first.name and record.experiment is not None and record.experiment.name == name:
            state = read(run)
            if state.rows:
                return state
    raise Invalid("", f"{first.name} is the only result of {name}; `epochtop lab {name}` measures another")

"""`epochtop lab --compare ID [ID]`: compare two results of one experiment, from their files alone."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import index
from epochtop.engine.runs.paths import lab_home
from epochtop.engine.runs.reader import Follower, is_alive, output_tail, read_record
from epochtop.engine.terminal.output import is_terminal, write_colored, write_error, write_json
from epochtop.tui.cli.lab.text import painted, room
from epochtop.tui.lab.comparison_rows import as_object, between, report
from epochtop.tui.state.experiment import ExperimentState

USAGE = "epochtop lab --compare ID [ID] [--json]"


def compare(arguments: list[str], home: Path) -> int:
    """Run `epochtop lab --compare …`; a live result is compared as it is now. Returns 0. Raises Invalid."""
    ids = [argument for argument in arguments if argument not in ("--compare", "--json")]
    flag = next((argument for argument in ids if argument.startswith("-")), "")
    if flag:
        raise Invalid("compare", f"unknown flag {flag}; {USAGE}")
    if not 1 <= len(ids) <= 2:
        raise Invalid("compare", f"needs the ids of one or two results, not {len(ids)}; {USAGE}")
    first = read(result_path(home, ids[0]))
    second = read(result_path(home, ids[1])) if len(ids) > 1 else _newest_other(home, first)
    comparison = between(first, second)
    if "--json" in arguments:
        write_json(msgspec.json.encode(as_object(comparison)))
    else:
        rows = report(comparison, room()[0], time.time())
        write_colored("\n".join(painted(rows, is_terminal())) + "\n")
    return 0


def result_path(home: Path, name: str) -> Path:
    """The result with this id, start of an id, or `last`. Raises Invalid if there is none, or if it is a training run."""
    results = index.run_paths(lab_home(home))
    if name == "last" and results:
        return results[0]
    try:
        path = index.find_any(home, name)
    except Invalid:
        if name and any(result.name.startswith(name) for result in results):
            raise
        raise Invalid("", f"no result {name!r} in {lab_home(home)}; `epochtop lab --results` lists them") from None
    if path.parent != lab_home(home):
        raise Invalid("", f"{path.name} is a training run; to compare runs, press o in the app's run list")
    return path


def read(run: Path) -> ExperimentState:
    """The state of an experiment, from its files. Raises Invalid if it is not an experiment."""
    alive = is_alive(run)  # checked before the log is read, so that an end written in between counts
    state, follower = ExperimentState(read_record(run), run.name), Follower(run)
    for event in follower.read_all():
        for line in state.apply(event):
            if line.kind == "warning":
                write_error(f"epochtop: {run.name}/{line.text}\n")
    follower.close()
    if not state.over and not alive:
        state.died("exit status unknown", output_tail(run))
    return state


def _newest_other(home: Path, first: ExperimentState) -> ExperimentState:
    """The newest other result of the same experiment that has rows. Raises Invalid if there is none."""
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
    raise Invalid("", f"{first.name} is the only result of {name}; run `epochtop lab {name}` again")

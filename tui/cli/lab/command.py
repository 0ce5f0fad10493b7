"""`epochtop lab`: list the experiments, measure one in the foreground, list the results.

The engine is a separate process here too: if this one is killed or its terminal closes, the experiment continues.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import tyro

from epochtop.engine.lab.catalog import experiments, find
from epochtop.engine.lab.experiment import Experiment
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.fields import fields, parse, show
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs import paths, reader, writer
from epochtop.engine.runs.reader import Follower, is_alive
from epochtop.engine.terminal.output import (
    clear_progress,
    is_terminal,
    show_progress,
    write,
    write_colored,
    write_error,
    write_json,
)
from epochtop.tui.cli.flags import flag, spec_flags, spec_of, switch
from epochtop.tui.cli.lab.compare import compare
from epochtop.tui.cli.lab.text import report
from epochtop.tui.client.foreground import follow, ignore_signals, start, stop_and_wait, stop_on_signals
from epochtop.tui.client.standby import Standby
from epochtop.tui.lab.saved_results import look, print_results
from epochtop.tui.state.experiment import ExperimentState
from epochtop.tui.state.lines import MessageLine


def lab(arguments: list[str]) -> int:
    """Run `epochtop lab …`. Returns 0 concluded or stopped, 1 failed. Raises Invalid, EngineDied."""
    if not arguments or arguments[0] in ("-h", "--help"):
        write(_listing())
        return 0
    if "--results" in arguments and set(arguments) <= {"--results", "--json"}:
        width = shutil.get_terminal_size().columns if is_terminal() else 10_000
        return print_results(paths.home(), "--json" in arguments, width)
    if [argument for argument in arguments if argument != "--json"][:1] == ["--compare"]:
        return compare(arguments, paths.home())
    experiment = find(arguments[0])
    parsed: Any = tyro.cli(_flags(experiment), prog=f"epochtop lab {experiment.name}", args=arguments[1:])
    spec = spec_of(parsed, arguments[1:], experiment.job) if experiment.job is not None else RunSpec()
    request = ExperimentRequest(name=experiment.name, fields=_field_texts(experiment, parsed), quick=parsed.quick)
    return measure(request, spec, paths.home(), as_json=parsed.json)


def _listing() -> str:
    width = max(len(experiment.name) for experiment in experiments())
    lines = [f"  {experiment.name:<{width}}  {experiment.title}\n" for experiment in experiments()]
    return (
        "Experiments: where time goes on this machine, and what would help. Each takes less than a minute.\n\n"
        + "".join(lines)
        + "\nepochtop lab NAME [FIELDS] [--quick] [--json] runs one; epochtop lab NAME --help lists its fields.\n"
        "Results are saved: epochtop lab --results lists them, and key 4 in the app shows them.\n"
        "epochtop lab --compare ID [ID] compares two results of one experiment.\n"
    )


def _flags(experiment: Experiment) -> type:
    about = f"{experiment.title}.\n\nMeasures {experiment.measures}.\n\nWhy: {experiment.why}.\n\nReading it: {experiment.reading}."
    options = [
        switch("quick", "measure for ten seconds only, with fewer rounds"),
        switch("json", "print one JSON object at the end and nothing else"),
        *(flag(field, field.default) for field in fields(experiment.fields)),
    ]
    without = () if experiment.job is not None else tuple(field.name for field in fields())
    return spec_flags("Lab", about, options, experiment.job, without)


def _field_texts(experiment: Experiment, parsed: Any) -> dict[str, str]:
    """The experiment's fields as checked texts."""
    texts = {}
    for field in fields(experiment.fields):
        value = getattr(parsed, field.name)
        texts[field.name] = ",".join(value) if isinstance(value, tuple) else show(value)
        parse(field.name, texts[field.name], experiment.fields)
    return texts


def measure(request: ExperimentRequest, spec: RunSpec, home: Path, as_json: bool) -> int:
    """Measure to the end and print the result. Returns 0 concluded or stopped, 1 failed. Raises Invalid, EngineDied."""
    writer.make_home(paths.lab_home(home))
    run, standby = start(lambda standby: standby.measure(request, spec, home))
    state = _follow(run, standby, quiet=as_json)
    if as_json:
        write_json(msgspec.json.encode(state.result()))
    else:
        write_colored("\n".join(report(state, is_terminal())) + "\n")
    return 0 if state.concluded is not None else 1


def stop(run: Path) -> int:
    """Stop an experiment and wait until its engine has ended. Returns 0, or 1 if it died instead."""
    if is_alive(run):
        stop_and_wait(run)
    result = look(run)
    write(f"{run.name}: {result.state if result else 'unreadable'}\n")
    return int(result is None or result.state == "died")


def _follow(run: Path, standby: Standby, quiet: bool) -> ExperimentState:
    state = ExperimentState(reader.read_record(run), run.name)
    display = _Silence() if quiet else _Progress(state)
    stop_on_signals(run, lambda: None)
    display.show(MessageLine(f"{run.name} · Ctrl-C stops it and keeps its rows"))
    follow(Follower(run), standby, state, display.show, lambda _: display.refresh())
    ignore_signals()
    display.clear()
    if state.failure:
        write_error(f"epochtop: {state.failure}\n")
    return state


class _Progress:
    """Lines on standard error; on a terminal also a line of progress that is overwritten."""

    def __init__(self, state: ExperimentState) -> None:
        self._state, self._terminal = state, sys.stderr.isatty()

    def show(self, line: MessageLine) -> None:
        write_error(f"{line.text}\n")

    def refresh(self) -> None:
        if self._terminal:
            show_progress(self._state.progress())

    def clear(self) -> None:
        if self._terminal:
            clear_progress()


class _Silence:
    """Shows nothing."""

    def show(self, line: MessageLine) -> None:
        pass

    def refresh(self) -> None:
        pass

    def clear(self) -> None:
        pass

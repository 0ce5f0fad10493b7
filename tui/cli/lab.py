"""`epochtop lab`: the list of experiments, one of them measured in the foreground, and those that are kept.

The engine is a process of its own here too: if this one is killed or its terminal goes, the experiment goes on.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import tyro

from epochtop.engine.lab.catalog import experiments, find
from epochtop.engine.lab.experiment import Experiment
from epochtop.engine.protocol.events import Stop
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.fields import fields, parse, show
from epochtop.engine.protocol.requests import Refused
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs import paths, reader, writer
from epochtop.engine.runs.paths import whoami
from epochtop.engine.runs.reader import Follower, is_alive, output_tail
from epochtop.engine.runs.writer import send
from epochtop.tui.cli.flags import flag, spec_flags, spec_of, switch
from epochtop.tui.cli.lab_compare import compare
from epochtop.tui.cli.lab_text import report
from epochtop.tui.client.standby import EngineDied, Standby, how_it_ended
from epochtop.tui.lab.kept import look, print_kept
from epochtop.tui.state.experiment import ExperimentState

POLL_S = 0.05


def lab(arguments: list[str]) -> int:
    """Do what `epochtop lab …` says. Returns 0 concluded or stopped, 1 failed. Raises Invalid."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_listing())
        return 0
    if "--results" in arguments and set(arguments) <= {"--results", "--json"}:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
        return print_kept(paths.home(), "--json" in arguments, width)
    if [argument for argument in arguments if argument != "--json"][:1] == ["--compare"]:
        return compare(arguments, paths.home())
    experiment = find(arguments[0])
    parsed: Any = tyro.cli(_flags(experiment), prog=f"epochtop lab {experiment.name}", args=arguments[1:])
    spec = spec_of(parsed, arguments[1:], experiment.job) if experiment.job is not None else RunSpec()
    asked = ExperimentRequest(name=experiment.name, fields=_own(experiment, parsed), quick=parsed.quick)
    return measure(asked, spec, paths.home(), as_json=parsed.json)


def _listing() -> str:
    width = max(len(experiment.name) for experiment in experiments())
    lines = [f"  {experiment.name:<{width}}  {experiment.title}\n" for experiment in experiments()]
    return (
        "Where the time goes on this machine, and what would help: measured here, in under a minute each.\n\n"
        + "".join(lines)
        + "\nepochtop lab NAME [FIELDS] [--quick] [--json] measures one; epochtop lab NAME --help tells its fields.\n"
        "Results are kept: epochtop lab --results lists them, and key 4 of the app shows them again.\n"
        "epochtop lab --compare ID [ID] holds two of one experiment against each other.\n"
    )


def _flags(experiment: Experiment) -> type:
    about = f"{experiment.title}.\n\nMeasures {experiment.measures}.\n\nWhy: {experiment.why}.\n\nReading it: {experiment.reading}."
    options = [
        switch("quick", "in ten seconds, with fewer measurements"),
        switch("json", "print one JSON object at the end and nothing else"),
        *(flag(field, field.default) for field in fields(experiment.fields)),
    ]
    without = () if experiment.job is not None else tuple(field.name for field in fields())
    return spec_flags("Lab", about, options, experiment.job, without)


def _own(experiment: Experiment, parsed: Any) -> dict[str, str]:
    """The experiment's own fields as texts, checked."""
    texts = {}
    for field in fields(experiment.fields):
        value = getattr(parsed, field.name)
        texts[field.name] = ",".join(value) if isinstance(value, tuple) else show(value)
        parse(field.name, texts[field.name], experiment.fields)
    return texts


def measure(asked: ExperimentRequest, spec: RunSpec, home: Path, as_json: bool) -> int:
    """Measure to the end and tell. Returns 0 concluded or stopped, 1 failed. Raises Invalid."""
    writer.make_home(paths.lab_home(home))
    standby = Standby(lambda message: sys.stderr.write(f"{message}\n"))
    try:
        reply = standby.measure(asked, spec, home)
    except EngineDied as error:
        sys.stderr.write(f"epochtop: {error}\n")
        return 1
    except KeyboardInterrupt:
        standby.close()
        return 130
    if isinstance(reply, Refused):
        standby.close()
        raise Invalid(reply.field, reply.message)
    state = _follow(Path(reply.run), standby, quiet=as_json)
    if as_json:
        sys.stdout.write(msgspec.json.encode(state.result()).decode() + "\n")
    else:
        sys.stdout.write("\n".join(report(state, sys.stdout.isatty())) + "\n")
    return 0 if state.concluded is not None else 1


def stop(run: Path) -> int:
    """Ask an experiment to end and wait until it has. Returns 0, or 1 if its engine died instead."""
    if is_alive(run):
        send(run, Stop(by=whoami()))
        while is_alive(run):
            time.sleep(POLL_S)
    kept = look(run)
    sys.stdout.write(f"{run.name}: {kept.state if kept else 'unreadable'}\n")
    return int(kept is None or kept.state == "died")


def _follow(run: Path, standby: Standby, quiet: bool) -> ExperimentState:
    state, follower = ExperimentState(reader.read_record(run), run.name), Follower(run)
    _stop_on_signals(run)
    if not quiet:
        sys.stderr.write(f"{run.name} · Ctrl-C ends it and keeps what was measured\n")
    while not state.over:
        alive = is_alive(run)
        events = follower.read()
        for event in events:
            line = state.apply(event)
            if line and not quiet:
                sys.stderr.write(f"{line}\n")
        if not events and not alive and not state.over:
            state.died(how_it_ended(standby.process.wait()), output_tail(run))
        elif not events:
            time.sleep(POLL_S)
        if not quiet and sys.stderr.isatty():
            sys.stderr.write(f"\r{state.progress()}\x1b[K")
    if not quiet and sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    if state.failure:
        sys.stderr.write(f"epochtop: {state.failure}\n")
    return state


def _stop_on_signals(run: Path) -> None:
    asked = 0

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise SystemExit(130)
        try:
            send(run, Stop(by=whoami()))
        except OSError as error:
            sys.stderr.write(f"epochtop: it cannot be told to end: {error.strerror}; Ctrl-C once more leaves it\n")

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)

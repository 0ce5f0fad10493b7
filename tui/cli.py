"""The commands around the app: train, runs, attach, stop, export, hardware.

Options come from dataclasses through tyro; the fields of a run come from RunSpec. One clear line and exit
status 2 answer bad input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from engine import rundir, runs
from engine.spec import Invalid, RunSpec
from tui import listing
from tui.flags import spec_flags, spec_of, switch

HELP = """\
epochtop trains PyTorch models on this machine and shows them live in the terminal.

  epochtop [--start] [FIELDS]          the app; --start begins to train at once
  epochtop train [FIELDS]              train here, as a progress bar or plain lines
  epochtop runs [--json]               all runs of this machine's user
  epochtop attach RUN                  the app, with a run that goes on or is over
  epochtop stop RUN                    finish the step, evaluate, save, end
  epochtop export RUN --format csv     every step's loss, to standard output
  epochtop hardware [--json] [--torch] what this machine has and is good for

RUN is an id, the beginning of one, a name, or `last`. FIELDS say what to train; without any it is
scikit-learn's Iris. `epochtop train --help` lists them all.

Examples:
  epochtop --start
  epochtop train --dataset digits --hidden 64 --optimizer adam --learning-rate 0.001 --epochs 200
  epochtop train --dataset csv:houses.csv --target price --name houses --detach
  epochtop export last --format csv > losses.csv
"""

Run = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help="id, beginning of an id, name, or last")]


@dataclass(frozen=True)
class Runs:
    """List all runs, the newest first."""

    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="one JSON array of objects")] = False


@dataclass(frozen=True)
class Attach:
    """Open the app with a run: live if it goes on, whole if it is over."""

    run: Run


@dataclass(frozen=True)
class Stop:
    """End a run after its step; it evaluates and saves first."""

    run: Run


@dataclass(frozen=True)
class Export:
    """Write every step's loss to standard output."""

    run: Run
    format: Annotated[Literal["csv", "jsonl"], tyro.conf.arg(help="csv: step,loss · jsonl: one object a step")] = field(
        default="csv"
    )


@dataclass(frozen=True)
class Hardware:
    """Say what this machine has and how busy it is."""

    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="one JSON object")] = False
    torch: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="ask an engine what torch finds, and whether it all fits"),
    ] = False


def run(arguments: list[str]) -> int:
    """Do what the command line says. Returns the exit status."""
    try:
        return _dispatch(arguments)
    except Invalid as error:
        sys.stderr.write(f"epochtop: {error}\n")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has gone; nothing is left to flush
        return 0


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    if "-h" in arguments or "--help" in arguments:
        sys.stdout.write(HELP)
        return 0
    if arguments == ["--version"]:
        from importlib.metadata import version

        sys.stdout.write(f"epochtop {version('epochtop')}\n")
        return 0
    if arguments and not arguments[0].startswith("-"):
        raise Invalid("", f"there is no command {arguments[0]!r}; the commands are {', '.join(COMMANDS)}")
    return _app(arguments)


def _parse(kind: Any, name: str, arguments: list[str]) -> Any:
    return tyro.cli(kind, prog=f"epochtop {name}".strip(), args=arguments)


def _app(arguments: list[str]) -> int:
    flags = spec_flags("App", "Open the app.", [switch("start", "begin to train at once")])
    parsed = _parse(flags, "", arguments)
    spec = spec_of(parsed)
    if not sys.stdout.isatty() or not sys.stdin.isatty():
        sys.stderr.write("epochtop: standard output is no terminal; training with plain text lines instead\n")
        return _train_spec(spec, as_json=False, detach=False)
    from tui.launch import run_app

    return run_app(start=parsed.start, spec=spec)


def _train(arguments: list[str]) -> int:
    options = [
        switch("json", "print one JSON object at the end and nothing else"),
        switch("detach", "print the run's id and return; the run goes on"),
    ]
    parsed = _parse(spec_flags("Train", "Train here, in the foreground.", options), "train", arguments)
    return _train_spec(spec_of(parsed), as_json=parsed.json, detach=parsed.detach)


def _train_spec(spec: RunSpec, as_json: bool, detach: bool) -> int:
    from tui.train import train

    return train(spec, rundir.home(), as_json=as_json, detach=detach)


def _runs(arguments: list[str]) -> int:
    return listing.print_runs(rundir.home(), as_json=_parse(Runs, "runs", arguments).json)


def _attach(arguments: list[str]) -> int:
    path = runs.find(rundir.home(), _parse(Attach, "attach", arguments).run)
    if not sys.stdout.isatty() or not sys.stdin.isatty():
        raise Invalid("", "attach needs a terminal; `epochtop runs` and `epochtop export` work without one")
    from tui.launch import run_app

    return run_app(attach=path)


def _stop(arguments: list[str]) -> int:
    from tui.train import stop

    return stop(runs.find(rundir.home(), _parse(Stop, "stop", arguments).run))


def _export(arguments: list[str]) -> int:
    parsed = _parse(Export, "export", arguments)
    return listing.export_losses(runs.find(rundir.home(), parsed.run), parsed.format)


def _hardware(arguments: list[str]) -> int:
    parsed = _parse(Hardware, "hardware", arguments)
    from tui.hardware_text import print_hardware

    return print_hardware(parsed.json, parsed.torch)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "runs": _runs,
    "attach": _attach,
    "stop": _stop,
    "export": _export,
    "hardware": _hardware,
}

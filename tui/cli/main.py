"""The commands around the app: train, resume, runs, attach, stop, predict, export, find-lr, find-batch, hardware.

Options come from dataclasses through tyro; the fields of a run come from RunSpec. One clear line and exit
status 2 answer bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs import index, paths
from epochtop.tui.cli import runs as listing
from epochtop.tui.cli.flags import spec_flags, spec_of, switch
from epochtop.tui.client.foreground import exit_status

HELP = """\
epochtop trains PyTorch models on this machine and shows them live in the terminal.

  epochtop [--start] [FIELDS]          the app; --start begins to train at once
  epochtop train [FIELDS]              train here, as a progress bar or plain lines
  epochtop runs [--json]               all runs of this machine's user
  epochtop attach RUN                  the app, with a run that goes on or is over
  epochtop resume RUN                  go on with a run that was stopped, killed or cut off
  epochtop stop RUN                    finish the step, evaluate, save, end
  epochtop predict RUN FILE            the rows of a CSV file with the model's predictions
  epochtop export RUN --format FORMAT  losses (csv, jsonl, tensorboard), weights (safetensors, torch), model (onnx)
  epochtop find-lr [FIELDS]            which learning rate to train with, by trying them all
  epochtop find-batch [FIELDS]         the largest batch that fits, tried in full steps
  epochtop lab [NAME] [FIELDS]         where the time goes on this machine, measured; without a name it lists them
  epochtop lab --results               results that are kept; attach and export take their ids too
  epochtop lab --compare ID [ID]       two results of one experiment, point by point; of one ID, with the newest other
  epochtop hardware [--json] [--torch] what this machine has and is good for

RUN is an id, the beginning of one, a name, or `last`. FIELDS say what to train; without any it is
scikit-learn's Iris. `epochtop train --help` lists them all.

Examples:
  epochtop --start
  epochtop train --dataset digits --hidden 64 --optimizer adam --learning-rate 0.001 --epochs 200
  epochtop train --dataset csv:houses.csv --target price --name houses --detach
  epochtop predict houses new_houses.csv --output priced.csv
  epochtop export last --format csv > losses.csv
"""

Run = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help="id, beginning of an id, name, or last")]


@dataclass(frozen=True)
class Runs:
    """List all runs, the newest first."""

    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="one JSON array of objects")] = False


@dataclass(frozen=True)
class Attach:
    """Open the app with a run: live if it goes on, whole if it is over. An experiment's id opens the lab with it."""

    run: Run


@dataclass(frozen=True)
class ResumeRun:
    """Go on with a run that ended before its last step, exactly where it was."""

    run: Run
    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="one JSON object at the end")] = False
    detach: Annotated[
        tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="print the run's id and return; it goes on")
    ] = False


@dataclass(frozen=True)
class Stop:
    """End a run after its step; it evaluates and saves first."""

    run: Run


@dataclass(frozen=True)
class Predict:
    """Write the rows of a CSV file with what the run's best model says of each.

    FILE needs the feature columns the run was trained on, by name and in any order. All columns stay as they are, the
    label too if it is there; behind them come `prediction` and, for classes, `probability_<class>` of each.
    """

    run: Run
    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE", help="a CSV file with a header row")]
    output: Annotated[str, tyro.conf.arg(metavar="PATH", help="where to write it; standard output without")] = ""
    columns: Annotated[
        str,
        tyro.conf.arg(metavar="A,B,…", help="columns for a model that knows no names (own task, images), in its order"),
    ] = ""


Format = Literal["csv", "jsonl", "tensorboard", "safetensors", "torch", "onnx"]


@dataclass(frozen=True)
class Export:
    """Write a run for other programs: its losses, its weights, or its model; of an experiment its rows (csv, jsonl)."""

    run: Run
    format: Annotated[
        Format,
        tyro.conf.arg(
            help="csv: step,loss · jsonl: one object a step · tensorboard: a folder of event files · "
            "safetensors, torch: the best weights · onnx: the model"
        ),
    ] = "csv"
    output: Annotated[
        str,
        tyro.conf.arg(
            metavar="PATH",
            help="where to write it; without, csv and jsonl go to standard output, the others to the current folder",
        ),
    ] = ""


@dataclass(frozen=True)
class Hardware:
    """Say what this machine has and how busy it is."""

    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="one JSON object")] = False
    torch: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="ask an engine what torch finds, and whether it all fits"),
    ] = False


def run(arguments: list[str]) -> int:
    """Run a command line. Returns the exit status."""
    return exit_status(lambda: _dispatch(arguments))


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
    spec = spec_of(parsed, arguments)
    if not sys.stdout.isatty() or not sys.stdin.isatty():
        sys.stderr.write("epochtop: standard output is no terminal; training with plain text lines instead\n")
        return _train_spec(spec, as_json=False, detach=False)
    from epochtop.tui.app.launch import run_app

    return run_app(start=parsed.start, spec=spec)


def _train(arguments: list[str]) -> int:
    options = [
        switch("json", "print one JSON object at the end and nothing else"),
        switch("detach", "print the run's id and return; the run goes on"),
        switch("summary", "print the model's layers and what the run would do, and train nothing"),
    ]
    parsed = _parse(spec_flags("Train", "Train here, in the foreground.", options), "train", arguments)
    spec = spec_of(parsed, arguments)
    if parsed.summary:
        from epochtop.tui.cli.train import summarize

        return summarize(spec)
    return _train_spec(spec, as_json=parsed.json, detach=parsed.detach)


def _train_spec(spec: RunSpec, as_json: bool, detach: bool) -> int:
    from epochtop.tui.cli.train import train

    return train(spec, paths.home(), as_json=as_json, detach=detach)


def _find_lr(arguments: list[str]) -> int:
    from epochtop.tui.cli.find import SET_BY_TEST, find_lr, rate_defaults

    about = "Train with a rising learning rate, up to --learning-rate, and say at which the loss falls fastest."
    options = [switch("json", "print one JSON object at the end and nothing else")]
    flags = spec_flags("FindLr", about, options, rate_defaults(), SET_BY_TEST)
    parsed = _parse(flags, "find-lr", arguments)
    return find_lr(spec_of(parsed, arguments, rate_defaults()), paths.home(), as_json=parsed.json)


def _find_batch(arguments: list[str]) -> int:
    from epochtop.tui.cli.find import find_batch

    about = "Try ever larger batches in full steps, in a process of their own, and say which is the largest that fits."
    margin = ("margin", Annotated[float, tyro.conf.arg(help="share of the free memory that a step may take")], 0.8)
    options = [switch("json", "print one JSON object at the end and nothing else"), margin]
    flags = spec_flags("FindBatch", about, options, without=("batch_size", "oom_retry"))
    parsed = _parse(flags, "find-batch", arguments)
    if not 0 < parsed.margin <= 1:
        raise Invalid("margin", "needs a number above 0, at most 1, such as 0.8")
    return find_batch(spec_of(parsed, arguments), parsed.margin, as_json=parsed.json)


def _runs(arguments: list[str]) -> int:
    return listing.print_runs(paths.home(), as_json=_parse(Runs, "runs", arguments).json)


def _attach(arguments: list[str]) -> int:
    path = index.find_any(paths.home(), _parse(Attach, "attach", arguments).run)
    if not sys.stdout.isatty() or not sys.stdin.isatty():
        raise Invalid("", "attach needs a terminal; `epochtop runs` and `epochtop export` work without one")
    from epochtop.tui.app.launch import run_app

    return run_app(attach=path)


def _resume(arguments: list[str]) -> int:
    from epochtop.tui.cli.train import resume

    parsed = _parse(ResumeRun, "resume", arguments)
    return resume(index.find(paths.home(), parsed.run), as_json=parsed.json, detach=parsed.detach)


def _stop(arguments: list[str]) -> int:
    path = index.find_any(paths.home(), _parse(Stop, "stop", arguments).run)
    if _is_experiment(path):
        from epochtop.tui.cli.lab import stop as stop_experiment

        return stop_experiment(path)
    from epochtop.tui.cli.train import stop

    return stop(path)


def _is_experiment(path: Path) -> bool:
    return path.parent == paths.lab_home(paths.home())


def _predict(arguments: list[str]) -> int:
    from epochtop.tui.cli.engine import ask_engine

    parsed = _parse(Predict, "predict", arguments)
    options = [f"--{name}={value}" for name in ("output", "columns") if (value := getattr(parsed, name))]
    return ask_engine(["predict", *options, "--", str(index.find(paths.home(), parsed.run)), parsed.file])


def _export(arguments: list[str]) -> int:
    parsed = _parse(Export, "export", arguments)
    path = index.find_any(paths.home(), parsed.run)
    if _is_experiment(path):
        from epochtop.tui.lab.saved_results import export_rows

        return export_rows(path, parsed.format, parsed.output)
    if parsed.format in ("csv", "jsonl"):
        return listing.export_losses(path, parsed.format, parsed.output)
    from epochtop.tui.cli.engine import ask_engine

    options = [f"--output={parsed.output}"] if parsed.output else []
    return ask_engine(["export", f"--format={parsed.format}", *options, "--", str(path)])


def _lab(arguments: list[str]) -> int:
    from epochtop.tui.cli.lab import lab

    return lab(arguments)


def _hardware(arguments: list[str]) -> int:
    parsed = _parse(Hardware, "hardware", arguments)
    from epochtop.tui.cli.hardware import print_hardware

    return print_hardware(parsed.json, parsed.torch)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "runs": _runs,
    "attach": _attach,
    "resume": _resume,
    "stop": _stop,
    "predict": _predict,
    "export": _export,
    "find-lr": _find_lr,
    "find-batch": _find_batch,
    "lab": _lab,
    "hardware": _hardware,
}

"""The command line: train, run, resume, runs, attach, stop, predict, export, find-lr, find-batch, lab, hardware.

Options are dataclasses parsed by tyro; the fields of a run come from RunSpec. Bad input gives one line and exit status 2.
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
from epochtop.engine.terminal.output import is_terminal, printing, write, write_error
from epochtop.tui.cli.configuration import commands as configuration
from epochtop.tui.cli.flags import spec_flags, spec_of, switch
from epochtop.tui.cli.usage import HELP
from epochtop.tui.client.foreground import exit_status

Run = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help="id, start of an id, name, or last")]

ExcelSafe = Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="escape cells that are formulas")]
Trust = Annotated[
    str, tyro.conf.arg(metavar="OWNER", help="execute the custom task of a run that belongs to this other user")
]


@dataclass(frozen=True)
class Runs:
    """List your runs, the newest first."""

    paths: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(
            metavar="PATH", help="run directories, logs of other tools, or folders with such; default: yours"
        ),
    ] = ()
    json: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="print one JSON array of objects, with configuration and series"),
    ] = False


@dataclass(frozen=True)
class Open:
    """Show logs that other tools wrote, live if they grow: TensorBoard, wandb, Lightning, Keras, YOLO, Hugging Face,
    MLflow, Trackio, JSON Lines.

    The runs stay in the run list until they are removed there or with --forget. The logs are read in place and never
    changed.
    """

    paths: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="PATH…", help="files, or folders that are searched"),
    ]
    copy: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(name="import", help="copy the values into runs of epochtop instead"),
    ] = False
    forget: Annotated[
        tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="remove these paths from the run list; their files stay")
    ] = False


@dataclass(frozen=True)
class Attach:
    """Open a live or finished run in the app. An experiment's id opens its result in the lab."""

    run: Run


@dataclass(frozen=True)
class ResumeRun:
    """Resume a run that ended before its last step, from its last checkpoint."""

    run: Run
    json: Annotated[
        tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="print one JSON object at the end and nothing else")
    ] = False
    detach: Annotated[
        tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="print the run's id and return; the run continues")
    ] = False
    edited_task: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="use the files of the custom task as they are now, not the copy stored in the run"),
    ] = False
    trust: Trust = ""


@dataclass(frozen=True)
class Stop:
    """Stop a run after its current step; it evaluates and saves first."""

    run: Run


@dataclass(frozen=True)
class Predict:
    """Add the predictions of the run's best model to the rows of a CSV file.

    FILE needs the feature columns that the run was trained on, by name and in any order. All columns are copied, including
    a label. The output adds `prediction` and, for a classifier, one `probability_<class>` per class.
    """

    run: Run
    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE", help="a CSV file with a header row")]
    output: Annotated[str, tyro.conf.arg(metavar="PATH", help="output file; standard output by default")] = ""
    columns: Annotated[
        str,
        tyro.conf.arg(
            metavar="A,B,…", help="feature columns in the model's order, if it stores no names (custom task, images)"
        ),
    ] = ""
    excel_safe: ExcelSafe = False
    trust: Trust = ""


Format = Literal["csv", "jsonl", "tensorboard", "safetensors", "torch", "onnx"]


@dataclass(frozen=True)
class Export:
    """Export a run's losses or other series, weights or model for other programs, or an experiment's rows (csv, jsonl)."""

    run: Run
    series: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            metavar="NAME", help="series to export as step,time,NAME… (csv, jsonl); `epochtop runs --json` lists them"
        ),
    ] = ()
    format: Annotated[
        Format,
        tyro.conf.arg(
            help="csv: step,loss · jsonl: one object per step · tensorboard: a folder of event files · "
            "safetensors, torch: the best weights · onnx: the model"
        ),
    ] = "csv"
    output: Annotated[
        str,
        tyro.conf.arg(
            metavar="PATH",
            help="output path; by default csv and jsonl go to standard output, other formats to the current folder",
        ),
    ] = ""
    excel_safe: ExcelSafe = False
    trust: Trust = ""


@dataclass(frozen=True)
class Hardware:
    """Show this machine's hardware and how busy it is."""

    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="print one JSON object")] = False
    torch: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="also report torch's devices and check version compatibility"),
    ] = False


def run(arguments: list[str]) -> int:
    """Run a command line. Returns the exit status."""
    return exit_status(lambda: _dispatch(arguments))


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    if "-h" in arguments or "--help" in arguments:
        write(HELP)
        return 0
    if arguments == ["--version"]:
        from importlib.metadata import version

        write(f"epochtop {version('epochtop')}\n")
        return 0
    if arguments and not arguments[0].startswith("-"):
        raise Invalid("", f"there is no command {arguments[0]!r}; the commands are {', '.join(COMMANDS)}")
    return _app(arguments)


def _parse(kind: Any, name: str, arguments: list[str]) -> Any:
    return printing(lambda: tyro.cli(kind, prog=f"epochtop {name}".strip(), args=arguments))


def _spec(parsed: Any, arguments: list[str], defaults: RunSpec | None = None) -> RunSpec:
    """The checked spec of a command, with a file in place of standard input."""
    from epochtop.tui.cli.standard_input import with_kept_input

    return with_kept_input(spec_of(parsed, arguments, defaults), paths.home())


def _app(arguments: list[str]) -> int:
    theme = ("theme", Annotated[str, tyro.conf.arg(metavar="NAME", help="color theme of the app")], "")
    flags = spec_flags("App", "Open the app.", [switch("start", "start training at once"), theme])
    parsed = _parse(flags, "", arguments)
    spec = _spec(parsed, arguments)
    if not is_terminal() or not sys.stdin.isatty():
        write_error("epochtop: no terminal; training with plain text lines\n")
        return _train_spec(spec, as_json=False, detach=False)
    from epochtop.tui.app.launch import run_app

    return run_app(start=parsed.start, spec=spec, flags={"theme": parsed.theme} if parsed.theme else {})


def _train(arguments: list[str]) -> int:
    options = [
        switch("json", "print one JSON object at the end and nothing else"),
        switch("detach", "print the run's id and return; the run continues"),
        switch("summary", "print the model's layers and the plan of the run, without training"),
    ]
    parsed = _parse(spec_flags("Train", "Train in the foreground.", options), "train", arguments)
    spec = _spec(parsed, arguments)
    if parsed.summary:
        from epochtop.tui.cli.train import summarize

        return summarize(spec)
    return _train_spec(spec, as_json=parsed.json, detach=parsed.detach)


def _train_spec(spec: RunSpec, as_json: bool, detach: bool) -> int:
    from epochtop.tui.cli.train import train

    return train(spec, paths.home(), as_json=as_json, detach=detach)


def _run_script(arguments: list[str]) -> int:
    from epochtop.tui.cli.run_script import run_script

    return run_script(arguments)


def _find_lr(arguments: list[str]) -> int:
    from epochtop.tui.cli.find import SET_BY_TEST, find_lr, rate_defaults

    about = "Train with a rising learning rate, up to --learning-rate, and report where the loss falls fastest."
    options = [switch("json", "print one JSON object at the end and nothing else")]
    flags = spec_flags("FindLr", about, options, rate_defaults(), SET_BY_TEST)
    parsed = _parse(flags, "find-lr", arguments)
    return find_lr(_spec(parsed, arguments, rate_defaults()), paths.home(), as_json=parsed.json)


def _find_batch(arguments: list[str]) -> int:
    from epochtop.tui.cli.find import find_batch

    about = "Run full steps with larger and larger batches in a separate process, and report the largest that fits."
    margin = ("margin", Annotated[float, tyro.conf.arg(help="share of the free memory that a step may use")], 0.8)
    options = [switch("json", "print one JSON object at the end and nothing else"), margin]
    flags = spec_flags("FindBatch", about, options, without=("batch_size", "oom_retry"))
    parsed = _parse(flags, "find-batch", arguments)
    if not 0 < parsed.margin <= 1:
        raise Invalid("margin", "needs a number above 0 and at most 1, such as 0.8")
    return find_batch(_spec(parsed, arguments), parsed.margin, as_json=parsed.json)


def _runs(arguments: list[str]) -> int:
    parsed = _parse(Runs, "runs", arguments)
    from epochtop.tui.cli.runs import listing

    return listing.print_runs(paths.home(), as_json=parsed.json, paths=[Path(path) for path in parsed.paths])


def _open(arguments: list[str]) -> int:
    from epochtop.tui.cli.runs import opened

    parsed = _parse(Open, "open", arguments)
    return opened.open_logs(paths.home(), [Path(path) for path in parsed.paths], copy=parsed.copy, forget=parsed.forget)


def _attach(arguments: list[str]) -> int:
    from epochtop.engine.runs.opened.lookup import find_run

    path = find_run(paths.home(), _parse(Attach, "attach", arguments).run)
    if not is_terminal() or not sys.stdin.isatty():
        raise Invalid("", "attach needs a terminal; `epochtop runs` and `epochtop export` work without one")
    from epochtop.tui.app.launch import run_app

    return run_app(attach=path)


def _resume(arguments: list[str]) -> int:
    from epochtop.tui.cli.engine import ask_to_trust
    from epochtop.tui.cli.train import resume

    parsed = _parse(ResumeRun, "resume", arguments)
    path = index.find(paths.home(), parsed.run)
    trusted_owner = ask_to_trust(path, parsed.trust)
    return resume(path, parsed.json, parsed.detach, trusted_owner, parsed.edited_task)


def _stop(arguments: list[str]) -> int:
    path = index.find_any(paths.home(), _parse(Stop, "stop", arguments).run)
    if _is_experiment(path):
        from epochtop.tui.cli.lab.command import stop as stop_experiment

        return stop_experiment(path)
    from epochtop.tui.cli.train import stop

    return stop(path)


def _is_experiment(path: Path) -> bool:
    return path.parent == paths.lab_home(paths.home())


def _predict(arguments: list[str]) -> int:
    from epochtop.tui.cli.engine import ask_engine, ask_to_trust

    parsed = _parse(Predict, "predict", arguments)
    path = index.find(paths.home(), parsed.run)
    texts = {"output": parsed.output, "columns": parsed.columns, "trust": ask_to_trust(path, parsed.trust)}
    options = [f"--{name}={text}" for name, text in texts.items() if text]
    options += ["--excel-safe"] * parsed.excel_safe
    return ask_engine(["predict", *options, "--", str(path), parsed.file])


def _export(arguments: list[str]) -> int:
    from epochtop.engine.runs.opened.lookup import find_run
    from epochtop.engine.runs.opened.sources import is_opened_log
    from epochtop.tui.cli.runs import export

    parsed = _parse(Export, "export", arguments)
    if parsed.excel_safe and parsed.format != "csv":
        raise Invalid("excel_safe", f"applies to csv only, not to {parsed.format}; leave it out")
    path = find_run(paths.home(), parsed.run)
    if parsed.series:
        if parsed.format not in ("csv", "jsonl"):
            raise Invalid("format", "series are exported as csv or jsonl")
        return export.export_series(path, parsed.series, parsed.format, parsed.output, parsed.excel_safe)
    if is_opened_log(path):
        raise Invalid("series", f"name the series to export from {path.name}; `epochtop runs --json {path}` lists them")
    if _is_experiment(path):
        from epochtop.tui.lab.saved_results import export_rows

        return export_rows(path, parsed.format, parsed.output, parsed.excel_safe)
    if parsed.format in ("csv", "jsonl"):
        return export.export_losses(path, parsed.format, parsed.output)
    from epochtop.tui.cli.engine import ask_engine, ask_to_trust

    trust = ask_to_trust(path, parsed.trust) if parsed.format == "onnx" else ""
    options = [f"--{name}={text}" for name, text in (("output", parsed.output), ("trust", trust)) if text]
    return ask_engine(["export", f"--format={parsed.format}", *options, "--", str(path)])


def _lab(arguments: list[str]) -> int:
    from epochtop.tui.cli.lab.command import lab

    return lab(arguments)


def _hardware(arguments: list[str]) -> int:
    parsed = _parse(Hardware, "hardware", arguments)
    from epochtop.tui.cli.hardware import print_hardware

    return print_hardware(parsed.json, parsed.torch)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "run": _run_script,
    "runs": _runs,
    "attach": _attach,
    "open": _open,
    "resume": _resume,
    "stop": _stop,
    "predict": _predict,
    "export": _export,
    "find-lr": _find_lr,
    "find-batch": _find_batch,
    "lab": _lab,
    "hardware": _hardware,
    "config": configuration.config,
    "notify": configuration.notify,
}

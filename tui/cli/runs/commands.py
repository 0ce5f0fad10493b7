"""The command lines of commands that read runs: runs, open, attach, stop, pull, export, also of another machine.

What they do is imported when they are called.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import index, paths
from epochtop.tui.cli.flags import ExcelSafe, Run, Trust, parse_options
from epochtop.tui.cli.runs.remote import HostFlag, fetch, run_remote_app, runs_home


@dataclass(frozen=True)
class Runs:
    """List your runs, the newest first."""

    paths: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(
            metavar="[PATH…]",
            help="run directories, logs of other tools, or folders with either; without PATH, your runs",
        ),
    ] = ()
    json: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="print one JSON array of objects, with configuration and series"),
    ] = False
    host: HostFlag = ""


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
    host: HostFlag = ""


@dataclass(frozen=True)
class Stop:
    """Stop a run after its current step; it evaluates and saves first."""

    run: Run
    host: HostFlag = ""


@dataclass(frozen=True)
class Pull:
    """Copy a run from another machine into your home folder. An interrupted copy continues where it stopped."""

    run: Run
    host: HostFlag = ""


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
    host: HostFlag = ""


def runs(arguments: list[str]) -> int:
    """List runs. Returns the exit status."""
    from epochtop.tui.cli.runs import listing

    parsed = parse_options(Runs, "runs", arguments)
    if parsed.host and parsed.paths:
        raise Invalid("host", "PATH is a path of this machine; leave out one of both")
    with runs_home(parsed.host, reports_logs=True) as home:
        if parsed.json:
            fetch(index.run_paths(home))
        return listing.print_runs(home, as_json=parsed.json, paths=[Path(path) for path in parsed.paths])


def open_logs(arguments: list[str]) -> int:
    """Open logs of other tools. Returns the exit status."""
    from epochtop.tui.cli.runs import opened

    parsed = parse_options(Open, "open", arguments)
    return opened.open_logs(paths.home(), [Path(path) for path in parsed.paths], copy=parsed.copy, forget=parsed.forget)


def attach(arguments: list[str]) -> int:
    """Open a run in the app. Returns the exit status."""
    from epochtop.tui.cli.runs.attach import attach_run

    parsed = parse_options(Attach, "attach", arguments)
    return run_remote_app(parsed.host, parsed.run) if parsed.host else attach_run(parsed.run)


def stop(arguments: list[str]) -> int:
    """Stop a run or an experiment. Returns the exit status."""
    from epochtop.tui.cli.lab.command import stop as stop_experiment
    from epochtop.tui.cli.train import stop as stop_run

    parsed = parse_options(Stop, "stop", arguments)
    with runs_home(parsed.host) as home:
        path = index.find_any(home, parsed.run, prefers_live=True)
        try:
            return (stop_experiment if _is_experiment(path, home) else stop_run)(path)
        except ConnectionError as error:
            raise Invalid("", error.strerror or str(error)) from None


def _is_experiment(path: Path, home: Path) -> bool:
    return path.parent == paths.lab_home(home)


def pull(arguments: list[str]) -> int:
    """Copy a run from another machine. Returns the exit status."""
    from epochtop.tui.cli.runs.pull import pull_run

    parsed = parse_options(Pull, "pull", arguments)
    return pull_run(paths.home(), parsed.host, parsed.run)


def export(arguments: list[str]) -> int:
    """Export a run for other programs. Returns the exit status."""
    parsed = parse_options(Export, "export", arguments)
    if parsed.excel_safe and parsed.format != "csv":
        raise Invalid("excel_safe", f"applies to csv only, not to {parsed.format}; leave it out")
    if not parsed.host:
        from epochtop.engine.runs.opened.lookup import find_run

        return _export(find_run(paths.home(), parsed.run), paths.home(), parsed)
    if parsed.format not in ("csv", "jsonl"):
        raise Invalid("format", f"copy the run with `epochtop pull` first, then export {parsed.format}")
    with runs_home(parsed.host) as home:
        path = index.find_any(home, parsed.run)
        fetch([path])
        return _export(path, home, parsed)


def _export(path: Path, home: Path, parsed: Export) -> int:
    from epochtop.engine.runs.opened.sources import is_opened_log
    from epochtop.tui.cli.runs.export import export_losses, export_series

    if parsed.series:
        if parsed.format not in ("csv", "jsonl"):
            raise Invalid("format", "series are exported as csv or jsonl")
        return export_series(path, parsed.series, parsed.format, parsed.output, parsed.excel_safe)
    if is_opened_log(path):
        raise Invalid("series", f"name the series to export from {path.name}; `epochtop runs --json {path}` lists them")
    if _is_experiment(path, home):
        from epochtop.tui.lab.saved_results import export_rows

        return export_rows(path, parsed.format, parsed.output, parsed.excel_safe)
    if parsed.format in ("csv", "jsonl"):
        return export_losses(path, parsed.format, parsed.output)
    from epochtop.tui.cli.engine import ask_engine, ask_to_trust

    trust = ask_to_trust(path, parsed.trust) if parsed.format == "onnx" else ""
    options = [f"--{name}={text}" for name, text in (("output", parsed.output), ("trust", trust)) if text]
    return ask_engine(["export", f"--format={parsed.format}", *options, "--", str(path)])

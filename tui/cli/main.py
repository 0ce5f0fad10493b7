"""The command line: train, run, resume, runs, attach, stop, pull, predict, export, find-lr, find-batch, lab, hardware.

Options are dataclasses parsed by tyro; the fields of a run come from RunSpec. Bad input gives one line and exit status 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs import index, paths
from epochtop.engine.terminal.output import is_terminal, write, write_error
from epochtop.tui.cli.configuration import commands as configuration
from epochtop.tui.cli.flags import ExcelSafe, Run, Trust, parse_options, spec_flags, spec_of, switch
from epochtop.tui.cli.runs import commands
from epochtop.tui.cli.runs.remote import HostFlag, run_remote_app, with_host
from epochtop.tui.cli.usage import HELP
from epochtop.tui.client.foreground import exit_status


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
class Predict:
    """Add the predictions of the run's best model to the rows of a file.

    A table (CSV, Parquet, Feather, JSON lines) needs the feature columns that the run was trained on, by name and in
    any order. All columns are copied, including a label. A folder of images gives a row per image. The output adds
    `prediction` and, for a classifier, one `probability_<class>` per class.
    """

    run: Run
    file: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(metavar="FILE", help="a table, arrays (.npz, .npy), an image or a folder of images"),
    ]
    output: Annotated[str, tyro.conf.arg(metavar="PATH", help="output file; standard output by default")] = ""
    columns: Annotated[
        str,
        tyro.conf.arg(
            metavar="A,B,…", help="feature columns in the model's order, if it stores no names (custom task, images)"
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
    arguments = with_host(arguments, COMMANDS)
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


def _spec(parsed: Any, arguments: list[str], defaults: RunSpec | None = None) -> RunSpec:
    """The checked spec of a command, with a file in place of standard input."""
    from epochtop.tui.cli.standard_input import with_kept_input

    return with_kept_input(spec_of(parsed, arguments, defaults), paths.home())


def _app(arguments: list[str]) -> int:
    theme = ("theme", Annotated[str, tyro.conf.arg(metavar="NAME", help="color theme of the app")], "")
    host = ("host", HostFlag, "")
    flags = spec_flags("App", "Open the app.", [switch("start", "start training at once"), theme, host])
    parsed = parse_options(flags, "", arguments)
    if parsed.host:
        return run_remote_app(parsed.host, start=parsed.start, spec=spec_of(parsed, arguments))
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
    parsed = parse_options(spec_flags("Train", "Train in the foreground.", options), "train", arguments)
    spec = _spec(parsed, arguments)
    if parsed.summary:
        from epochtop.tui.cli.train import summarize

        return summarize(spec, paths.home())
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
    parsed = parse_options(flags, "find-lr", arguments)
    return find_lr(_spec(parsed, arguments, rate_defaults()), paths.home(), as_json=parsed.json)


def _find_batch(arguments: list[str]) -> int:
    from epochtop.tui.cli.find import find_batch

    about = "Run full steps with larger and larger batches in a separate process, and report the largest that fits."
    margin = ("margin", Annotated[float, tyro.conf.arg(help="share of the free memory that a step may use")], 0.8)
    options = [switch("json", "print one JSON object at the end and nothing else"), margin]
    flags = spec_flags("FindBatch", about, options, without=("batch_size", "oom_retry"))
    parsed = parse_options(flags, "find-batch", arguments)
    if not 0 < parsed.margin <= 1:
        raise Invalid("margin", "needs a number above 0 and at most 1, such as 0.8")
    return find_batch(_spec(parsed, arguments), parsed.margin, as_json=parsed.json)


def _resume(arguments: list[str]) -> int:
    from epochtop.tui.cli.engine import ask_to_trust
    from epochtop.tui.cli.train import resume

    parsed = parse_options(ResumeRun, "resume", arguments)
    path = index.find(paths.home(), parsed.run)
    trusted_owner = ask_to_trust(path, parsed.trust)
    return resume(path, parsed.json, parsed.detach, trusted_owner, parsed.edited_task)


def _predict(arguments: list[str]) -> int:
    from epochtop.tui.cli.engine import ask_engine, ask_to_trust

    parsed = parse_options(Predict, "predict", arguments)
    path = index.find(paths.home(), parsed.run)
    texts = {"output": parsed.output, "columns": parsed.columns, "trust": ask_to_trust(path, parsed.trust)}
    options = [f"--{name}={text}" for name, text in texts.items() if text]
    options += ["--excel-safe"] * parsed.excel_safe
    return ask_engine(["predict", *options, "--", str(path), parsed.file])


def _lab(arguments: list[str]) -> int:
    from epochtop.tui.cli.lab.command import lab

    return lab(arguments)


def _hardware(arguments: list[str]) -> int:
    parsed = parse_options(Hardware, "hardware", arguments)
    from epochtop.tui.cli.hardware import print_hardware

    return print_hardware(parsed.json, parsed.torch)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "run": _run_script,
    "runs": commands.runs,
    "attach": commands.attach,
    "open": commands.open_logs,
    "resume": _resume,
    "stop": commands.stop,
    "pull": commands.pull,
    "predict": _predict,
    "export": commands.export,
    "find-lr": _find_lr,
    "find-batch": _find_batch,
    "lab": _lab,
    "hardware": _hardware,
    "config": configuration.config,
    "notify": configuration.notify,
}

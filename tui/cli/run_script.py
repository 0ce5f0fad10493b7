"""`epochtop run COMMAND…`: runs the user's own program, unchanged, and shows it.

The command belongs to a supervisor process in a session of its own, so neither it nor its record depends on this process or
on the terminal. Imports little: the app is loaded when the command has started.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import writer
from epochtop.engine.runs.paths import home
from epochtop.engine.terminal.output import is_terminal, write, write_error
from epochtop.tui.client.supervised import check_command, start

HELP = """\
usage: epochtop run [--detach | --plain] [--no-parse] [--name NAME] COMMAND…

Run your own training program without changing it, and show it in the app. COMMAND is everything after the options:

  epochtop run python train.py --lr 0.1
  epochtop run torchrun --nproc-per-node 2 train.py
  epochtop run bash job.sh

Python programs get hooks that record loss, learning rate and times of every optimizer step of torch, and what the program
sends to TensorBoard, wandb, MLflow, Trackio, Lightning, Hugging Face Trainer or Keras. Lines such as `epoch 3 loss: 0.69`
are recorded from other programs. The program's results do not change. Closing the terminal does not end it.

options:
  --detach      print the run's id and return; the command continues
  --plain       show the command's own output instead of the app, and exit with its status
  --no-parse    record no figures from printed lines
  --name NAME   name of the run

exit status: that of the command, or 128 and the number of the signal that ended it. 0 with --detach, and if you leave the
app while the command runs. 2 if the command cannot be started.
"""
FORWARDED = (
    signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGALRM,
)  # fmt: skip
"""Signals that are passed on to the command."""


@dataclass(frozen=True)
class Options:
    """The words before the command, and the command."""

    command: list[str] = field(default_factory=list)
    detach: bool = False
    plain: bool = False
    parse: bool = True
    name: str = ""


def parse_options(words: list[str]) -> Options | None:
    """The options before the first other word; None if help is requested. Raises Invalid."""
    options: dict[str, object] = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if word in ("-h", "--help"):
            return None
        option, _, value = word.partition("=")
        if option == "--name":
            if not value and not rest:
                raise Invalid("", "--name needs a name; `epochtop run --help` shows the options")
            options["name"] = value or rest.pop(0)
        elif word in ("--detach", "--plain"):
            options[word[2:]] = True
        elif word == "--no-parse":
            options["parse"] = False
        else:
            raise Invalid("", f"there is no option {word!r} of `epochtop run`; options of your program follow its name")
    if not rest:
        raise Invalid("", "`epochtop run` needs a command, such as `epochtop run python train.py`")
    if options.get("detach") and options.get("plain"):
        raise Invalid("", "--detach and --plain exclude each other")
    return Options(command=rest, **options)  # type: ignore[arg-type]


def run_script(words: list[str]) -> int:
    """Run a command. Returns the exit status. Raises Invalid if it cannot be started."""
    options = parse_options(words)
    if options is None:
        write(HELP)
        return 0
    check_command(options.command[0])
    writer.make_home(home())
    has_terminal = sys.stdin.isatty() and is_terminal()
    shows_app = has_terminal and not options.plain and not options.detach
    if not shows_app and not options.plain and not options.detach:
        write_error("epochtop: no terminal; showing the command's own output\n")
    echo = not shows_app and not options.detach
    run, supervisor = start(options.command, name=options.name, parse=options.parse, echo=echo)
    if options.detach:
        write(f"{run.name}\n")
        return 0
    if not shows_app:
        return _wait(run, supervisor)
    from epochtop.tui.app.launch import run_app

    run_app(attach=run)
    status = supervisor.poll()
    if status is None:
        write(f"{run.name} is still running; `epochtop attach {run.name}` opens it again\n")
    return status or 0


def _wait(run: Path, supervisor: subprocess.Popen[bytes]) -> int:
    """Wait for the end of the command, passing signals on. Returns its exit status."""

    def forward(number: int, _frame: FrameType | None) -> None:
        supervisor.send_signal(number)

    for number in FORWARDED:
        signal.signal(number, forward)
    status = supervisor.wait()
    if status < 0:
        write_error(f"epochtop: {run.name}: its supervisor was ended by signal {-status}\n")
        return 128 - status
    return status

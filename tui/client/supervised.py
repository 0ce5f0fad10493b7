"""Starts the user's own command under a supervisor, in a session of its own. Never imports a widget."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.terminal.output import is_terminal


def check_command(program: str) -> None:
    """Raise Invalid if there is no such program."""
    if shutil.which(program) is None:
        exists = Path(program).is_file()
        advice = f"make it executable or name its interpreter, as in `epochtop run bash {program}`" if exists else ""
        advice = f"did you mean `epochtop run python {program}`?" if program.endswith(".py") else advice
        problem = "it is not executable" if exists else "there is no such program"
        raise Invalid("", f"cannot start {program!r}: {problem}{'; ' if advice else ''}{advice}")


def start(
    command: Sequence[str], *, name: str = "", parse: bool = True, echo: bool = False
) -> tuple[Path, subprocess.Popen[bytes]]:
    """Start the supervisor, which starts the command. Returns the run and the supervisor. Raises Invalid."""
    reader, report = os.pipe()
    size = _terminal_size()
    keeps_input = echo and not sys.stdin.isatty()
    words = [sys.executable, "-P", "-m", "epochtop.supervisor", "--report", str(report), "--name", name]
    words += ["--size", size] if size else []
    words += ["--echo"] * echo + ["--keep-input"] * keeps_input + ["--no-parse"] * (not parse)
    supervisor = subprocess.Popen(  # noqa: S603 - this Python, and the command that the user gives `epochtop run`
        [*words, "--", *command],
        stdin=None if keeps_input else subprocess.DEVNULL,
        stdout=None if echo else subprocess.DEVNULL,
        stderr=None if echo else subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(report,),
    )
    os.close(report)
    with os.fdopen(reader, "rb") as file:
        line = file.readline()
    message = json.loads(line or b'{"error": "the supervisor ended at once"}')
    if "error" in message:
        supervisor.wait()
        raise Invalid("", f"cannot start the command: {message['error']}")
    return Path(message["run"]), supervisor


def _terminal_size() -> str:
    """COLUMNSxROWS of our terminal; empty if standard output is none."""
    if not is_terminal():
        return ""
    columns, rows = shutil.get_terminal_size()
    return f"{columns}x{rows}"

"""Commands that need torch: `python -m epochtop.engine …` runs them and writes to this process's output.

And the question that comes before, if they would execute another user's code.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.ownership import check_code, code_owner
from epochtop.engine.runs.reader import read_record
from epochtop.engine.terminal.output import flush, write_error
from epochtop.tui.client.standby import how_it_ended


def ask_engine(arguments: Sequence[str]) -> int:
    """Run an engine command. Returns its exit status; 1 if it was killed, 130 after Ctrl-C."""
    flush()
    with subprocess.Popen(  # noqa: S603 - this Python and our engine
        [sys.executable, "-P", "-m", "epochtop.engine", *arguments], stdin=subprocess.DEVNULL
    ) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the terminal sent it to both
            process.wait()
            return 130
    if status < 0:
        write_error(f"epochtop: the engine was {how_it_ended(status)}\n")
        return 1
    return status


def ask_to_trust(run: Path, trusted_owner: str) -> str:
    """The owner whose task may be executed: `trusted_owner`, or the one that the user accepts after a question.

    Raises Invalid if the task must not be executed. Without a terminal to ask in, another user's task is not.
    """
    task = read_record(run).spec.task
    owner = code_owner(run, task)
    if owner and not trusted_owner and sys.stdin.isatty() and sys.stderr.isatty():
        write_error(f"{run.name} belongs to {owner}. Execute its task {task} as you? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Invalid("", f"the task of {owner} was not executed")
        trusted_owner = owner
    check_code(run, task, trusted_owner)
    return trusted_owner

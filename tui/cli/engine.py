"""Commands that need torch. `python -m epochtop.engine …` runs them and writes to this process's output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from epochtop.engine.terminal.output import write_error
from epochtop.tui.client.standby import how_it_ended


def ask_engine(arguments: Sequence[str]) -> int:
    """Run an engine command. Returns its exit status; 1 if it was killed, 130 after Ctrl-C."""
    sys.stdout.flush()
    with subprocess.Popen(
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

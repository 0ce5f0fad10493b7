"""How an engine's process leaves the terminal and the pipes it was started with."""

from __future__ import annotations

import os
from pathlib import Path

from epochtop.engine.runs.paths import OUTPUT


def detach(run: Path) -> None:
    """Input from nowhere, output into the run."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(run / OUTPUT, os.O_WRONLY | os.O_APPEND)
    for descriptor, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, descriptor)
    os.close(nothing)
    os.close(output)

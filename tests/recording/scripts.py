"""Training scripts of users: run in processes of their own, and what they recorded, decoded without the code under test."""

from __future__ import annotations

import base64
import os
import shutil
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

from epochtop.engine.protocol.events import AnyEvent, Logged
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.reader import BadLine, Follower

ROOT = Path(__file__).parents[2]
HANGING_S = 240.0
"""A script that takes this long hangs. It is not a measure of speed."""


def start(
    code: str, home: Path, *arguments: str, python: str = sys.executable, **variables: str
) -> subprocess.Popen[str]:
    """Start a script. `variables` are added to its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RANK", "SLURM", "OMPI"))}
    environment |= {"EPOCHTOP_HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        [python, "-c", textwrap.dedent(code), *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str, home: Path, *arguments: str, python: str = sys.executable, **variables: str) -> tuple[int, str, str]:
    """Run a script to its end. Returns its exit status, standard output and standard error."""
    with start(code, home, *arguments, python=python, **variables) as process:
        try:
            output, errors = process.communicate(timeout=HANGING_S)
        except BaseException:
            process.kill()
            raise
    return process.returncode, output, errors


def only_run(home: Path) -> Path:
    """The only run in a home folder."""
    (path,) = run_paths(home)
    return path


def recorded(path: Path) -> list[AnyEvent]:
    """All events of a run, which must be readable."""
    follower = Follower(path)
    events = list(follower.read_all())
    follower.close()
    assert not [event for event in events if isinstance(event, BadLine)]
    return [event for event in events if not isinstance(event, BadLine)]


def series(path: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) pairs by series, as docs/run-format.md says."""
    pairs: dict[str, list[tuple[int, float]]] = {}
    for event in recorded(path):
        if isinstance(event, Logged):
            for name, steps_and_values in decode(event).items():
                pairs.setdefault(name, []).extend(steps_and_values)
    return pairs


def decode(event: Logged) -> dict[str, list[tuple[int, float]]]:
    """(step, value) pairs of one window."""
    steps = range(event.first_step, event.first_step + event.count)
    if event.steps is not None:
        steps = struct.unpack(f"<{event.count}q", event.steps)  # type: ignore[assignment]
    pairs = {}
    for name, raw in event.values.items():
        letter = {4: "f", 8: "d"}[len(raw) // event.count]
        pairs[name] = list(zip(steps, struct.unpack(f"<{event.count}{letter}", raw), strict=True))
    return pairs


def encode_column(letter: str, *values: float) -> str:
    """Numbers as the run format stores them."""
    return base64.b64encode(struct.pack(f"<{len(values)}{letter}", *values)).decode()


def old_python() -> str | None:
    """The oldest interpreter from Python 3.9 on that PATH offers, other than this one; None if there is none."""
    for name in ("python3.9", "python3.10"):
        program = shutil.which(name)
        candidates = (
            [program, *map(str, (Path(program).parents[1] / "versions").glob(f"*/bin/{name}"))] if program else []
        )
        for candidate in candidates:
            done = subprocess.run(
                [str(candidate), "-S", "-c", "import fcntl, sys; print(sys.version)"], capture_output=True
            )
            if done.returncode == 0:
                return str(candidate)
    return None

"""Scripts that run with and without the hooks of `epochtop run`, and what was recorded of them."""

from __future__ import annotations

import array
import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochtop.supervisor.record import create_run
from epochtop.supervisor.supervise import hooked_environment

LONGEST_S = 240


@dataclass(frozen=True)
class Recorded:
    """A process that has ended, and the run it added to."""

    status: int
    output: str
    complaints: str
    events: list[dict[str, Any]]
    run: Path

    @property
    def series(self) -> dict[str, list[tuple[int, float]]]:
        """Steps and values of every series, in the order of the log."""
        return series_of(self.events)


def bare(command: Sequence[str | Path], **environment: str) -> str:
    """What a Python program prints without hooks."""
    done = _run(command, {**os.environ, "OMP_NUM_THREADS": "1", **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def hooked(command: Sequence[str | Path], python: str | Path = sys.executable, **environment: str) -> Recorded:
    """Run a Python program with hooks, without a supervisor. The run lies in the home folder."""
    run, lock = create_run([str(python), *map(str, command)], "")
    with lock:
        variables = hooked_environment(run, False, {**os.environ, "OMP_NUM_THREADS": "1", **environment})
        done = _run(command, variables, python)
    return Recorded(done.returncode, done.stdout, done.stderr, read_events(run), run)


def _run(
    command: Sequence[str | Path], environment: Mapping[str, str], python: str | Path = sys.executable
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )


def read_events(run: Path) -> list[dict[str, Any]]:
    """Every event of a run."""
    return [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def series_of(events: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by series, decoded as docs/run-format.md says."""
    series: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        if event["type"] != "Logged":
            continue
        first, count = event["first_step"], event["count"]
        steps = _numbers(event["steps"], "q") if "steps" in event else range(first, first + count)
        for name, text in event["values"].items():
            size = len(base64.b64decode(text)) // count
            series.setdefault(name, []).extend(zip(steps, _numbers(text, "f" if size == 4 else "d"), strict=True))
    return series


def _numbers(text: str, code: str) -> list[Any]:
    numbers = array.array(code, base64.b64decode(text))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()

"""From `epochtop attach` to the whole curve on the screen, for finished runs of 10⁵ and 10⁷ steps, new logs and old ones.

`python -m tests.bench.attach --against FOLDER` measures another checkout too, in turn with this one, and prints the ratio of
the times. That checkout can read old logs only, so both are compared on those, and this one is measured on new ones too.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import psutil

from epochtop.engine.protocol.events import Logged, Losses, encode
from epochtop.engine.runs.series import TRAIN_LOSS, summary_of
from tests.bench.tables import Figure, show
from tests.support.runs import finished, started, write_run
from tests.support.ui.terminals import CTRL_Q, Terminal

LENGTHS = {100_000: "≤ 0.8", 10_000_000: "≤ 1.5"}
"""Steps of a run, and the target in seconds."""
PART = 4_000
"""Steps per window."""
ROUNDS = 3
LIMIT_S = 60.0


def values_of(steps: int) -> Iterator[tuple[int, array[float]]]:
    """A falling noisy curve in windows: the first step and the values."""
    for first in range(0, steps, PART):
        numbers = range(first, first + PART)
        yield first, array("f", [1.1 / (1 + step / 5e5) + 1e-4 * (step * 7919 % 100) for step in numbers])


def write_old(home: Path, name: str, steps: int) -> Path:
    """A finished run of protocol 1."""
    run = write_run(home, name, [started(steps)])
    with open(run / "events.jsonl", "ab") as log:
        for first, values in values_of(steps):
            seconds = (first + PART) / 5000
            event = Losses(first_step=first, seconds=seconds, values=values.tobytes(), reads=1, waited=0.0)
            log.write(encode(event) + b"\n")
        log.write(encode(finished("finished", [0.05], steps=steps)) + b"\n")
    return run


def write_new(home: Path, name: str, steps: int) -> Path:
    """A finished run with windows of series and their summaries."""
    run = write_run(home, name, [started(steps)])
    with open(run / "events.jsonl", "ab") as log:
        for first, values in values_of(steps):
            event = Logged(
                time=0.0,
                seconds=(first + PART) / 5000,
                first_step=first,
                count=PART,
                values={TRAIN_LOSS: values.tobytes()},
                summaries={TRAIN_LOSS: summary_of(values)},
            )
            log.write(encode(event) + b"\n")
        log.write(encode(finished("finished", [0.05], steps=steps)) + b"\n")
    return run


def attach_s(program: Sequence[str], home: Path, run: Path, steps: int) -> tuple[float, float]:
    """Seconds until the last step of the run is on the x axis with the end of the curve, and CPU seconds until then."""
    start = perf_counter()
    with Terminal(*program, "attach", run.name, size=(120, 40), environment={"EPOCHTOP_HOME": str(home)}) as terminal:
        text = f"finished: {steps:,}".encode()
        while text not in terminal.output:
            assert perf_counter() - start < LIMIT_S
            time.sleep(0.002)
        elapsed_s = perf_counter() - start
        times = psutil.Process(terminal.process.pid).cpu_times()
        terminal.press(CTRL_Q)
    return elapsed_s, times.user + times.system


def measure(programs: dict[str, tuple[Sequence[str], Path, Path]], steps: int) -> dict[str, tuple[float, float]]:
    """Medians of wall and CPU seconds by name, measured in turn."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, (program, home, run) in programs.items():
            times[name].append(attach_s(program, home, run, steps))
    return {
        name: (statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs))
        for name, pairs in times.items()
    }


def main(against: str = "") -> None:
    """Print the table."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        this = (sys.executable, "-P", "-m", "epochtop")
        for steps, target in LENGTHS.items():
            old, new = write_old(home, f"old-{steps}", steps), write_new(home, f"new-{steps}", steps)
            programs: dict[str, tuple[Sequence[str], Path, Path]] = {
                "log of protocol 1": (this, home, old),
                "new log": (this, home, new),
            }
            if against:
                other = (f"{against}/.venv/bin/python", "-P", "-m", "epochtop")
                programs["other checkout, log of protocol 1"] = (other, home, old)
            medians = measure(programs, steps)
            for name, (wall_s, cpu_s) in medians.items():
                ratio = ""
                if against:
                    ratio = f" · {wall_s / medians['other checkout, log of protocol 1'][0]:.2f} of the other checkout"
                text = f"{wall_s:.2f} · CPU {cpu_s:.2f}{ratio}"
                figures.append(Figure(f"{steps:,} steps, {name}, s", text, target if name == "new log" else ""))
    show("From `epochtop attach` to the whole curve on the screen", figures)


if __name__ == "__main__":
    main(sys.argv[sys.argv.index("--against") + 1] if "--against" in sys.argv else "")

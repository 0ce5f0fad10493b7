"""The cost of watching the machine: a sample, the commands, output to the terminal, a reading in the engine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from time import perf_counter

from epochtop.engine.hardware import Sampler
from epochtop.engine.training.telemetry import TelemetryRecorder
from tests.bench.tables import Figure, show, spread
from tests.support.ui.terminals import APP, Terminal

SAMPLES = 200


def sample() -> list[Figure]:
    """CPU time of all threads of this process for one sample."""
    sampler = Sampler()
    sampler.engine_pid = os.getpid()
    sampler.sample()
    start = time.process_time()
    for _ in range(SAMPLES):
        sampler.sample()
    sample_ms = (time.process_time() - start) / SAMPLES * 1000
    readings: list[object] = []
    telemetry = TelemetryRecorder(readings.append, None)
    start = time.process_time()
    for _ in range(SAMPLES):
        telemetry._put_reading()
    reading_ms = (time.process_time() - start) / SAMPLES * 1000
    return [
        Figure("CPU of one sample of the panel, ms", f"{sample_ms:.2f}", "≤ 5 without a GPU"),
        Figure("CPU of one reading in the engine (every 5 s), ms", f"{reading_ms:.2f}"),
    ]


def commands() -> list[Figure]:
    """Duration of the `hardware` commands."""
    figures = []
    for words, target, times in ((["hardware"], "≤ 0.3", 9), (["hardware", "--torch"], "≤ 3", 3)):
        seconds = []
        for _ in range(times + 1):
            start = perf_counter()
            subprocess.run([sys.executable, "-P", "-m", "epochtop", *words], stdout=subprocess.DEVNULL, check=True)
            seconds.append(perf_counter() - start)
        figures.append(Figure(f"`epochtop {' '.join(words)}`, s", spread(seconds[1:], "{:.2f}"), target))
    return figures


def panel_bytes(size: tuple[int, int], keys: tuple[str, ...] = ()) -> float:
    """KB/s to the terminal of an idle app over twenty seconds, so only the machine panel changes."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"EPOCHTOP_HOME": str(Path(folder))}
        with Terminal(*APP, size=size, environment=environment, synchronized=False) as terminal:
            terminal.wait_for("torch 2")
            terminal.press(*keys)
            time.sleep(3)
            before, sent = perf_counter(), len(terminal.output)
            time.sleep(20)
            return (len(terminal.output) - sent) / (perf_counter() - before) / 1000


def main() -> None:
    """Print the tables."""
    show("Watching the machine", [*sample(), *commands()])
    show(
        "KB/s to the terminal, nothing running",
        [
            Figure("panel at 80×24", f"{panel_bytes((80, 24), ('3',)):.2f}", "≤ 2"),
            Figure("panel at 120×40", f"{panel_bytes((120, 40)):.2f}", "≤ 2"),
            Figure("panel at 200×60", f"{panel_bytes((200, 60)):.2f}", "≤ 2"),
            Figure("the full page at 120×40", f"{panel_bytes((120, 40), ('3', '3')):.2f}"),
        ],
    )


if __name__ == "__main__":
    main()

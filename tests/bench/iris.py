"""Iris, 20,000 epochs, every loss kept: epochtop's executors against other trainers.

Every trainer is a separate process that waits for its turn. Each round runs all of them once, so a busy neighbor affects
all of them. Ratios compare figures of the same round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter, sleep
from types import TracebackType

from tests.bench.rivals import RIVALS
from tests.bench.tables import Figure, show, spread

EPOCHS, ROUNDS = 20_000, 5
FEWER = {"Keras on torch": 20, "Lightning": 40, "skorch": 20}
"""Divisor of the epochs for slow trainers; their seconds are multiplied by it."""
PLAIN, SKLEARN, JAX = "plain loop, .item() each epoch", "scikit-learn MLPClassifier", "JAX lax.scan"
TARGETS = {
    "epochtop eager": (PLAIN, "loop", "≤ 0.70"),
    "epochtop auto": (SKLEARN, "total", "≤ 1.0"),
    "epochtop auto, empty cache": (SKLEARN, "total", "≤ 1.0"),
    "epochtop graph": (JAX, "loop", "≤ 3"),
}


class Rival:
    """A trainer in a separate process."""

    def __init__(self, name: str) -> None:
        self.name, self.share = name, FEWER.get(name, 1)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.rivals", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Rival:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    def answer(self) -> dict[str, float]:
        """The next reply of the process; `missing` is set where its package is not installed."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line else {"missing": 1.0}

    def train(self, epochs: int = EPOCHS) -> dict[str, float]:
        """Train once. Seconds are scaled to all epochs."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{epochs // self.share}\n")
        self.process.stdin.flush()
        answer = self.answer()
        return {name: value * (self.share if name in ("total", "loop") else 1) for name, value in answer.items()}


def measured(names: Sequence[str], rounds: int = ROUNDS) -> tuple[dict[str, list[dict[str, float]]], dict[str, float]]:
    """All rounds of every installed trainer, and the extra seconds of its first_s training, which pays one-time costs."""
    with ExitStack() as stack:
        rivals = [stack.enter_context(Rival(name)) for name in names]
        rivals = [rival for rival in rivals if "missing" not in rival.answer()]
        first_s = {rival.name: rival.train(2_000)["total"] - rival.train(2_000)["total"] for rival in rivals}
        rounds_of: dict[str, list[dict[str, float]]] = {rival.name: [] for rival in rivals}
        for turn in range(rounds):
            for rival in rivals if turn % 2 else reversed(rivals):
                rounds_of[rival.name].append(rival.train())
        return rounds_of, first_s


def table(rounds_of: dict[str, list[dict[str, float]]], first_s: dict[str, float]) -> list[Figure]:
    """One row per trainer: seconds in the loop, ratio to the plain loop, seconds with set-up."""
    rows = []
    for name in RIVALS:
        if name not in rounds_of:
            rows.append(Figure(name, "not installed: pip install -e .[bench]"))
            continue
        rounds = rounds_of[name]
        ratios = [figures["loop"] / plain["loop"] for figures, plain in zip(rounds, rounds_of[PLAIN], strict=True)]
        part = f", 1/{FEWER[name]} of the epochs × {FEWER[name]}" if name in FEWER else ""
        rows.append(
            Figure(
                f"{name}{part}",
                f"loop {spread([figures['loop'] for figures in rounds], '{:.3f}')} s · {spread(ratios)} of plain · "
                f"with set-up {statistics.median(figures['total'] for figures in rounds):.2f} s, first time {first_s[name]:+.1f} s",
            )
        )
    return rows


def against(rounds_of: dict[str, list[dict[str, float]]]) -> list[Figure]:
    """The ratios that have a target."""
    rows = []
    for name, (other, part, target) in TARGETS.items():
        if name in rounds_of and other in rounds_of:
            ratios = [
                figures[part] / rival[part] for figures, rival in zip(rounds_of[name], rounds_of[other], strict=True)
            ]
            rows.append(Figure(f"{name}, {part}, against {other}", spread(ratios), target))
    return rows


def on_the_screen(rounds: int = 3) -> list[Figure]:
    """Time from ctrl+s to the last loss on the screen, with the standby ready."""
    from tests.bench.app import app, seen, until
    from tests.bench.loop import SETTLE_S
    from tests.support.ui.terminals import CTRL_S

    rows = []
    for executor in ("eager", "auto"):
        times = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                flags = ("--executor", executor, "--threads", "1", "--device", "cpu")
                with app(Path(folder), *flags) as terminal:
                    until(seen(terminal, "torch "))
                    sleep(SETTLE_S)
                    start = perf_counter()
                    terminal.press(CTRL_S)
                    until(seen(terminal, "finished: "))
                    times.append(perf_counter() - start)
        rows.append(Figure(f"ctrl+s to the last loss on the screen, executor {executor}, s", spread(times, "{:.2f}")))
    return rows


def main(device: str = "cpu") -> None:
    """Print the tables; the table with the app exists on the CPU only."""
    os.environ["EPOCHTOP_BENCH_DEVICE"] = device
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # JAX takes three quarters of a GPU's memory otherwise
    rounds_of, first_s = measured(list(RIVALS))
    show(
        f"Iris, {EPOCHS:,} epochs, every loss kept, {device}, one thread, {ROUNDS} interleaved rounds",
        table(rounds_of, first_s),
    )
    show("Ratios, round by round", against(rounds_of))
    if device == "cpu":
        show("Iris with the app", on_the_screen())


if __name__ == "__main__":
    main(*sys.argv[1:2])

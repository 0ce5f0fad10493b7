"""Iris, 20,000 epochs, every loss kept: epochtop's executors against the loops that others write.

Every trainer is a process of its own that waits for its turn; in each round all take theirs once, so that a busy
neighbor hits all alike. Ratios are those of a round.
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
"""Trainers that are given a share of the epochs, and how small it is; their seconds are multiplied by it."""
PLAIN, SKLEARN, JAX = "plain loop, .item() each epoch", "scikit-learn MLPClassifier", "JAX lax.scan"
TARGETS = {
    "epochtop eager": (PLAIN, "loop", "≤ 0.70"),
    "epochtop auto": (SKLEARN, "total", "≤ 1.0"),
    "epochtop auto, nothing kept": (SKLEARN, "total", "≤ 1.0"),
    "epochtop graph": (JAX, "loop", "≤ 3"),
}


class Rival:
    """A trainer in a process of its own."""

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
        """The next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line else {"missing": 1.0}

    def train(self, epochs: int = EPOCHS) -> dict[str, float]:
        """One training; seconds scaled to all epochs."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{epochs // self.share}\n")
        self.process.stdin.flush()
        answer = self.answer()
        return {name: value * (self.share if name in ("total", "loop") else 1) for name, value in answer.items()}


def measured(names: Sequence[str], rounds: int = ROUNDS) -> tuple[dict[str, list[dict[str, float]]], dict[str, float]]:
    """All rounds of every trainer that is here, and the seconds of its first training, which pays for everything once."""
    with ExitStack() as stack:
        rivals = [stack.enter_context(Rival(name)) for name in names]
        rivals = [rival for rival in rivals if "missing" not in rival.answer()]
        first = {rival.name: rival.train(2_000)["total"] - rival.train(2_000)["total"] for rival in rivals}
        found: dict[str, list[dict[str, float]]] = {rival.name: [] for rival in rivals}
        for turn in range(rounds):
            for rival in rivals if turn % 2 else reversed(rivals):
                found[rival.name].append(rival.train())
        return found, first


def table(found: dict[str, list[dict[str, float]]], first: dict[str, float]) -> list[Figure]:
    """A row a trainer: seconds of the loop, its ratio to the plain loop's, seconds with set-up."""
    rows = []
    for name in RIVALS:
        if name not in found:
            rows.append(Figure(name, "not installed: pip install -e .[bench]"))
            continue
        rounds = found[name]
        ratios = [mine["loop"] / plain["loop"] for mine, plain in zip(rounds, found[PLAIN], strict=True)]
        part = f", 1/{FEWER[name]} of the epochs × {FEWER[name]}" if name in FEWER else ""
        rows.append(
            Figure(
                f"{name}{part}",
                f"loop {spread([each['loop'] for each in rounds], '{:.3f}')} s · {spread(ratios)} of plain · "
                f"with set-up {statistics.median(each['total'] for each in rounds):.2f} s, first time {first[name]:+.1f} s",
            )
        )
    return rows


def against(found: dict[str, list[dict[str, float]]]) -> list[Figure]:
    """The ratios that have to be reached."""
    rows = []
    for name, (other, part, target) in TARGETS.items():
        if name in found and other in found:
            ratios = [mine[part] / theirs[part] for mine, theirs in zip(found[name], found[other], strict=True)]
            rows.append(Figure(f"{name}, {part}, against {other}", spread(ratios), target))
    return rows


def on_the_screen(rounds: int = 3) -> list[Figure]:
    """From ctrl+s to the run's last loss on the screen, the standby being ready."""
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
                    begun = perf_counter()
                    terminal.press(CTRL_S)
                    until(seen(terminal, "finished: "))
                    times.append(perf_counter() - begun)
        rows.append(Figure(f"ctrl+s to the last loss on the screen, executor {executor}, s", spread(times, "{:.2f}")))
    return rows


def main(device: str = "cpu") -> None:
    """Print the tables; the one with the app is for the CPU."""
    os.environ["EPOCHTOP_BENCH_DEVICE"] = device
    found, first = measured(list(RIVALS))
    show(
        f"Iris, {EPOCHS:,} epochs, every loss kept, {device}, one thread, {ROUNDS} interleaved rounds",
        table(found, first),
    )
    show("Its ratios, round by round", against(found))
    if device == "cpu":
        show("Iris with the app", on_the_screen())


if __name__ == "__main__":
    main(*sys.argv[1:2])

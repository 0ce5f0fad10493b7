"""Larger jobs: a CNN against a hand-written loop, and a large table from its file to the first step.

Speed: alternating blocks of steps in one process with the same threads, without evaluation. Memory: the peak of a separate
process for each, minus its imports.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
import torch
from torch import nn

from tests.bench.tables import Figure, show, spread

BATCH, IMAGES = 64, 1024
BLOCK, PAIRS = 10, 12
ROWS, COLUMNS = 1_000_000, 50


def images() -> tuple[np.ndarray, np.ndarray]:
    """Random pictures of CIFAR-10's shape, and labels."""
    chance = np.random.default_rng(0)
    return chance.integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8), chance.integers(0, 10, IMAGES)


def plain_steps() -> Callable[[], object]:
    """The usual training loop: float pictures in memory, torch.optim, a loss read every 100 steps."""
    raw, labels = images()
    x = torch.from_numpy(raw).float() / 255
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
    y = torch.from_numpy(labels)
    torch.manual_seed(1)
    pool, relu = nn.MaxPool2d(2), nn.ReLU()
    model = nn.Sequential(
        *(nn.Conv2d(3, 32, 5, padding=2), relu, pool, nn.Conv2d(32, 32, 5, padding=2), relu, pool),
        *(nn.Conv2d(32, 64, 5, padding=2), relu, pool, nn.Flatten(), nn.Linear(1024, 64), relu, nn.Linear(64, 10)),
    )
    optimizer, criterion = torch.optim.SGD(model.parameters(), lr=0.01), nn.CrossEntropyLoss()
    step_count = 0
    order = torch.randperm(IMAGES)

    def step() -> None:
        nonlocal step_count
        chosen = order[step_count * BATCH % IMAGES :][:BATCH]
        optimizer.zero_grad()
        loss = criterion(model(x[chosen]), y[chosen])
        loss.backward()
        optimizer.step()
        step_count += 1
        if step_count % 100 == 0:
            loss.item()

    return step


def engine_steps(folder: Path) -> Callable[[], object]:
    """The engine's step on the same pictures, recorded."""
    from epochtop.engine.job.prepare import prepare_job
    from epochtop.engine.protocol.spec import RunSpec
    from epochtop.engine.step.window import LossWindow

    raw, labels = images()
    np.savez(folder / "pictures.npz", x_train=raw, y_train=labels, x_test=raw[:64], y_test=labels[:64])
    spec = RunSpec(dataset=f"npz:{folder / 'pictures.npz'}", model="cnn", batch_size=BATCH, threads=1, device="cpu")
    training = prepare_job(spec)
    window = LossWindow(training.device)
    return lambda: window.record(training.step())


def seconds(step: Callable[[], object]) -> float:
    """Seconds of a block of steps."""
    start = perf_counter()
    for _ in range(BLOCK):
        step()
    return perf_counter() - start


def speed() -> list[float]:
    """Steps per second of the engine relative to the plain loop, for each block."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        plain, ours = plain_steps(), engine_steps(Path(folder))
        for step in (plain, ours):
            seconds(step)
        return [seconds(plain) / seconds(ours) for _ in range(PAIRS)]


def peak(which: str) -> int:
    """Peak bytes of a few steps in a separate process, minus its imports."""
    code = f"from tests.bench import jobs; jobs.weigh({which!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def weigh(which: str) -> None:
    """Print the peak; runs in the process that :func:`peak` starts."""
    import sklearn.model_selection  # noqa: F401

    import epochtop.engine.job.job

    del epochtop
    torch.set_num_threads(1)
    here = Path("/proc/self/status")  # getrusage counts the parent's memory before exec, too
    before = _highest(here)
    with tempfile.TemporaryDirectory() as folder:
        step = plain_steps() if which == "plain" else engine_steps(Path(folder))
        for _ in range(2 * BLOCK):
            step()
    print(_highest(here) - before)


def write_numbers(path: Path) -> None:
    """A table of random numbers with a label of two words."""
    chance = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        file.write(",".join([*(f"x{number}" for number in range(COLUMNS)), "label"]) + "\n")
        for _ in range(100):
            rows = chance.standard_normal((ROWS // 100, COLUMNS))
            labels = rows[:, 0] > 0
            file.writelines(
                ",".join(f"{value:.6f}" for value in row) + (",yes\n" if label else ",no\n")
                for row, label in zip(rows.tolist(), labels.tolist(), strict=True)
            )


PEOPLE = {"age": 73, "workclass": "w9", "fnlwgt": 20_000, "education": "e16", "education-num": 16, "marital-status": "m7",
          "occupation": "o15", "relationship": "r6", "race": "c5", "sex": "s2", "capital-gain": 120, "capital-loss": 90,
          "hours-per-week": 96, "native-country": "n42"}  # fmt: skip
"""The columns of the Adult table: the number of distinct whole numbers, or a letter and the number of distinct words."""


def write_people(path: Path) -> None:
    """A table with the columns of Adult, about 1 % of them missing, and a label of two words."""
    chance = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        file.write(", ".join([*PEOPLE, "income"]) + "\n")
        for _ in range(100):
            columns = []
            for about in PEOPLE.values():
                count = about if isinstance(about, int) else int(about[1:])
                prefix = "" if isinstance(about, int) else f"Category-{about[0]}-"
                values = [f"{prefix}{value}" for value in chance.integers(0, count, ROWS // 100).tolist()]
                for row in chance.integers(0, len(values), len(values) // 100).tolist():
                    values[row] = "?"
                columns.append(values)
            columns.append([("<=50K", ">50K")[value] for value in chance.integers(0, 2, ROWS // 100).tolist()])
            file.writelines(", ".join(row) + "\n" for row in zip(*columns, strict=True))


def large_table(write: Callable[[Path], None], target: str) -> tuple[float, int, int]:
    """Seconds from the request to a ready engine to the first loss, bytes of memory for loading, and inputs of the model."""
    from epochtop.engine.data.dataset import Preparation
    from epochtop.engine.protocol.events import Logged
    from epochtop.engine.protocol.spec import RunSpec
    from epochtop.engine.runs.paths import PREPARATION
    from tests.support.engines import Engine, Watch

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "large.csv"
        write(path)
        spec = RunSpec(dataset=f"csv:{path}", target=target, batch_size=256, threads=1, device="cpu", max_steps=20)
        with Engine() as engine:
            status = Path(f"/proc/{engine.process.pid}/status")
            before = _highest(status)
            start = perf_counter()
            run = engine.train(spec, Path(name) / "runs")
            watch = Watch(run)
            watch.until(Logged)
            elapsed_s = perf_counter() - start
            growth = _highest(status) - before
            engine.wait()
        preparation = msgspec.json.decode((run / PREPARATION).read_bytes(), type=Preparation)
        return elapsed_s, growth, len(preparation.offset)


def _highest(status: Path) -> int:
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Print the table."""
    shares = speed()
    plain, ours = peak("plain"), peak("engine")
    numbers_s, numbers_bytes, _ = large_table(write_numbers, "label")
    people_s, people_bytes, inputs = large_table(write_people, "income")
    show(
        "Larger jobs",
        [
            Figure("CIFAR-10-shaped CNN, batch 64, 1 thread: steps/s against a plain loop", spread(shares), "≥ 0.98"),
            Figure("  its peak memory against the plain loop's", f"{ours / plain:.2f}", "≤ 1.1"),
            Figure(f"a CSV file of {ROWS:,} × {COLUMNS} numbers: to the first loss", f"{numbers_s:.1f} s", "≤ 10 s"),
            Figure(
                "  memory used, against the numbers as float64", f"{numbers_bytes / (ROWS * COLUMNS * 8):.2f}", "≤ 2.5"
            ),
            Figure(
                f"a CSV file of {ROWS:,} rows like Adult's {len(PEOPLE)} columns: to the first loss",
                f"{people_s:.1f} s",
                "≤ 12 s",
            ),
            Figure(
                f"  memory used, against the {inputs} inputs as float32",
                f"{people_bytes / (ROWS * inputs * 4):.2f}",
                "≤ 2.5",
            ),
        ],
    )


if __name__ == "__main__":
    main()

"""The training loop against the plain loop with `loss.item()`, and with the app attached against without.

Each pair is measured back to back in alternating order, so a busy neighbor affects both.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from epochtop.engine.execution import eager
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.events import Finished
from epochtop.engine.protocol.requests import Accepted
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.window import LossWindow
from tests.bench.tables import Figure, show, spread
from tests.support.engines import Engine, finished, train_here
from tests.support.plain_loop import rows

EPOCHS = 20_000
PAIRS = 5
ATTACHED_EPOCHS = 60_000
SETTLE_S = 3.0
"""Upper bound for the warm-up of a standby."""


def plain_seconds(epochs: int = EPOCHS) -> float:
    """The usual training loop, which reads the loss on the host every epoch."""
    data = rows("iris")
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    start = perf_counter()
    for _ in range(epochs):
        loss = criterion(model(data.x), data.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return perf_counter() - start


def recorded_run(home: Path, epochs: int = EPOCHS, **fields: object) -> Finished:
    """The same job in this process as a complete run: recording, evaluation, checkpoints."""
    defaults = {"threads": 1, "device": "cpu", "epochs": epochs, "executor": "eager"}
    return finished(train_here(RunSpec(**(defaults | fields)), home))  # type: ignore[arg-type]


def alternating(pairs: int, first: Callable[[], float], second: Callable[[], float]) -> list[tuple[float, float]]:
    """Pairs of measurements, taken back to back in alternating order."""
    both = []
    for pair in range(pairs):
        if pair % 2:
            right = second()
            both.append((first(), right))
        else:
            left = first()
            both.append((left, second()))
    return both


def against_the_plain_loop() -> list[Figure]:
    """The default run against the plain loop."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        last: list[Finished] = []

        def ours() -> float:
            last[:] = [recorded_run(Path(folder))]
            return last[0].seconds

        ours(), plain_seconds(1_000)  # warm-up
        both = alternating(PAIRS, ours, plain_seconds)
        log = sum(path.stat().st_size for path in Path(folder).glob("*/events.jsonl"))
        runs = len(list(Path(folder).glob("*/events.jsonl")))
    end = last[0]
    return [
        Figure("epochtop, seconds in the loop", spread([run_s for run_s, _ in both], "{:.2f}")),
        Figure("plain loop with loss.item() each epoch, seconds", spread([plain for _, plain in both], "{:.2f}")),
        Figure("ratio", spread([run_s / plain_s for run_s, plain_s in both]), "≤ 0.70"),
        Figure("device reads", f"{end.device_reads}", f"≤ {end.seconds / 0.1 + 2:.1f}"),
        Figure("seconds waited for the device", f"{end.waited_seconds:.4f}"),
        Figure("bytes in events.jsonl per loss", f"{log / runs / EPOCHS:.2f}", "≤ 6"),
    ]


def cost_of_reads() -> list[Figure]:
    """Steps/s of the default run at the default refresh against no read before the end, by executor."""
    torch.set_num_threads(1)
    rows = []
    for executor, epochs in (("eager", 8_000), ("graph", 400_000)):
        with tempfile.TemporaryDirectory() as folder:

            def speed(refresh_ms: int, home: Path = Path(folder), how: str = executor, steps: int = epochs) -> float:
                fields = {"executor": how, "refresh_ms": refresh_ms, "eval_every": 0, "save_every": 0}
                return recorded_run(home, steps, **fields).steps_per_second

            speed(100)
            both = alternating(PAIRS, lambda: speed(100), lambda: speed(60_000))
        rows.append(Figure(f"{executor}: every 100 ms against never", spread([a / b for a, b in both]), "≥ 0.995"))
    return rows


def auto_against_eager() -> list[Figure]:
    """Whole runs from the spec to the last file, set-up included, each with an empty cache."""
    torch.set_num_threads(1)
    jobs: dict[str, dict[str, object]] = {
        "iris, 300 epochs": {"epochs": 300},
        "iris, 3,000 epochs": {"epochs": 3_000},
        "iris, 20,000 epochs": {"epochs": 20_000},
        "digits mlp, batch 64, 40 epochs": {"dataset": "digits", "hidden": (64,), "batch_size": 64, "epochs": 40},
        "digits mlp 512, full batch, 60 epochs": {"dataset": "digits", "hidden": (512,), "epochs": 60},
        "digits cnn, batch 64, 2 epochs": {"dataset": "digits", "model": "cnn", "batch_size": 64, "epochs": 2},
    }
    rows = []
    for name, fields in jobs.items():

        def seconds_with(executor: str, fields: dict[str, object] = fields) -> float:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["EPOCHTOP_CACHE"] = f"{folder}/cache"
                start = perf_counter()
                recorded_run(Path(folder), **{"executor": executor, **fields})  # type: ignore[arg-type]
                return perf_counter() - start

        seconds_with("eager"), seconds_with("auto")
        both = alternating(PAIRS, lambda: seconds_with("auto"), lambda: seconds_with("eager"))
        rows.append(Figure(name, spread([a / b for a, b in both]), "≤ 1.0"))
    os.environ.pop("EPOCHTOP_CACHE")
    return rows


def jitter() -> list[Figure]:
    """Single eager steps: how much longer the slowest are, with Python's garbage collection as it starts and frozen."""
    torch.set_num_threads(1)
    spec = RunSpec(threads=1, device="cpu", executor="eager")
    training = prepare_job(spec)
    runner, window, rows = eager.Eager(training), LossWindow(training.device), []
    for name, prepare in (("as Python starts", gc.unfreeze), ("frozen, as a run does", gc.freeze)):
        gc.collect()
        prepare()
        times = []
        before = sum(generation["collections"] for generation in gc.get_stats())
        for step in range(20_000):
            start = perf_counter()
            runner.run(window, step, 1, lambda _: 0.01)
            times.append(perf_counter() - start)
        collected = sum(generation["collections"] for generation in gc.get_stats()) - before
        window.turn(0.0)
        times.sort()
        slow = [times[int(len(times) * share)] / times[len(times) // 2] for share in (0.99, 0.999)]
        rows.append(
            Figure(
                f"{name}: 99th, 99.9th percentile against the median step",
                f"{slow[0]:.2f}, {slow[1]:.2f}; {collected} collections",
            )
        )
    gc.unfreeze()
    return rows


def recording() -> list[Figure]:
    """Time that recording one loss costs the loop."""
    torch.set_num_threads(1)
    loss, count = torch.tensor(0.5), 50_000
    costs = []
    for _ in range(7):
        window = LossWindow(torch.device("cpu"))
        start = perf_counter()
        for _ in range(count):
            window.record(loss)
        costs.append((perf_counter() - start) / count * 1e6)
        window.turn(0.0)
    return [Figure("µs to record one loss", spread(costs, "{:.2f}"), "≤ 3")]


def headless(home: Path) -> float:
    """Steps per second of the job without a viewer."""
    with Engine() as engine:
        time.sleep(SETTLE_S)
        spec = RunSpec(threads=1, device="cpu", epochs=ATTACHED_EPOCHS, executor="eager")
        reply = engine.begin(spec, home)
        assert isinstance(reply, Accepted)
        engine.process.wait()
    return finished(Path(reply.run)).steps_per_second


def with_the_app(watched: Callable[[Path], float]) -> list[Figure]:
    """Steps per second with the app on it against without. `watched(home)` trains the same job from the app."""

    def in_a_home(speed: Callable[[Path], float]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return speed(Path(folder))

    both = alternating(4, lambda: in_a_home(watched), lambda: in_a_home(headless))
    return [
        Figure("steps/s headless", spread([alone for _, alone in both], "{:.0f}")),
        Figure("steps/s with the app attached", spread([together for together, _ in both], "{:.0f}")),
        Figure("ratio", spread([together / alone for together, alone in both]), "≥ 0.98"),
    ]


def main() -> None:
    """Print the tables that need no terminal."""
    show("The default run (Iris, 20,000 epochs), eager, against a plain loop, one process", against_the_plain_loop())
    show("Recording", recording())
    show("Cost of reading the losses", cost_of_reads())
    show("auto against eager, whole runs", auto_against_eager())
    show("Jitter", jitter())


if __name__ == "__main__":
    main()

"""Run directories written by hand, with losses from a formula, for tests of what reads them."""

from __future__ import annotations

import fcntl
import math
import random
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from epochtop.engine.protocol.events import (
    AnyEvent,
    Evaluated,
    Failed,
    Finished,
    Losses,
    Paused,
    Saved,
    Started,
    encode,
)
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.paths import CHECKPOINTS, COMMANDS, EVENTS, LOCK, OUTPUT, RECORD

CREATED = 1_790_000_000.0
STEPS = 20_000


def losses_like_iris(steps: int, scale: float = 1.0, seed: int = 1) -> list[float]:
    """A falling curve with a little noise and one spike."""
    noise = random.Random(seed)
    values = [scale * (0.05 + 1.05 / (1 + step / 900)) * (1 + 0.03 * noise.random()) for step in range(steps)]
    if steps > 5_000:
        values[5_000] = 0.9 * scale
    return values


def windows(values: list[float], size: int = 500, seconds_per_step: float = 2e-4) -> list[Losses]:
    """Losses as an engine sends them."""
    return [
        Losses(
            first_step=first,
            seconds=round((first + len(part)) * seconds_per_step, 6),
            values=array("f", part).tobytes(),
            reads=first // size + 1,
            waited=round(first * 1e-7, 6),
        )
        for first in range(0, len(values), size)
        if (part := values[first : first + size])
    ]


def started(steps: int = STEPS) -> Started:
    """The default job has begun."""
    return Started(
        time=CREATED + 0.1, device="cpu", device_name="AMD EPYC 9634", executor="eager", threads=1, rows=120,
        test_rows=30, features=4, outputs=3, parameters=83, steps=steps, steps_per_epoch=1, loss="cross_entropy",
        metric="accuracy", torch_version="2.13.0", notes=("threads 1: a step takes 0.2 ms with 1 thread, 9 ms with 2",),
    )  # fmt: skip


def finished(outcome: str, values: list[float], **more: object) -> Finished:
    """The summary of a run with these losses."""
    finite = [value for value in values if math.isfinite(value)]
    facts: dict[str, object] = {
        "time": CREATED + 5, "outcome": outcome, "reason": f"all {len(values):,} steps are done", "steps": len(values),
        "epochs": float(len(values)), "seconds": len(values) * 2e-4, "steps_per_second": 5000.0,
        "final_loss": values[-1] if math.isfinite(values[-1]) else None, "best_loss": min(finite), "best_step": 0,
        "test_loss": 0.052, "test_metric": 0.9667, "best_test_loss": 0.052, "device_reads": len(values) // 500 + 1,
        "waited_seconds": 0.0021, **more,
    }  # fmt: skip
    return Finished(**facts)  # type: ignore[arg-type]


def evaluations(values: list[float], every: int = 2_500) -> list[Evaluated]:
    """A test loss a little above the training loss."""
    return [
        Evaluated(step=step, seconds=step * 2e-4, loss=values[step + 1] * 1.15, metric=0.9)
        for step in range(every, len(values), every)
    ]


def write_run(home: Path, run_id: str, events: list[AnyEvent], age_s: float = 0.0, **spec: object) -> Path:
    """A run directory with these events, created `age_s` before CREATED."""
    run = home / run_id
    (run / CHECKPOINTS).mkdir(parents=True)
    record = RunRecord(
        spec=RunSpec(**spec),  # type: ignore[arg-type]
        created=CREATED - age_s,
        host="box",
        user="ada",
        pid=1,
        versions={"torch": "2.13.0"},
    )
    (run / RECORD).write_bytes(encode(record))
    (run / EVENTS).write_bytes(b"".join(encode(event) + b"\n" for event in events))
    for name in (COMMANDS, LOCK, OUTPUT):
        (run / name).touch()
    return run


@contextmanager
def engine_alive(run: Path) -> Iterator[None]:
    """Hold the lock as a living engine does."""
    with open(run / LOCK, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def events_of(state: str) -> list[AnyEvent]:
    """The events of the default run in a state that a screen can show."""
    values = losses_like_iris(9_500 if state in ("running", "paused", "died", "failed") else STEPS)
    if state == "diverged":
        values = [*losses_like_iris(212), *[float("nan")] * 88]
    news: list[AnyEvent] = [started(), *windows(values), *evaluations(values)]
    if state == "paused":
        news.append(Paused(step=9_500, by="ada@laptop:7"))
    elif state == "finished":
        news += [Saved(step=STEPS, kind="last"), finished("finished", values)]
    elif state == "stopped":
        news.append(finished("stopped", values, reason="stopped by ada@laptop:7"))
    elif state == "diverged":
        advice = "lower the learning rate: 0.01 is too high, try 0.001"
        reason = "the loss became NaN at step 212"
        news.append(
            finished(
                "diverged", values, reason=reason, advice=advice, diverged_step=212, test_loss=None, test_metric=None
            )
        )
    elif state == "failed":
        news.append(
            Failed(time=CREATED + 3, step=9_500, message="out of memory on the GPU: tried to allocate 2.00 GiB",
                   advice="use a smaller batch_size, smaller hidden layers, or device cpu")
        )  # fmt: skip
    return news

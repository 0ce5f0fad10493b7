"""Events of every kind, and logs made of them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

from epochtop.engine.protocol.events import (
    AnyEvent,
    Changed,
    Configured,
    Evaluated,
    Failed,
    Finished,
    Logged,
    Losses,
    Measured,
    Paused,
    Resumed,
    Saved,
    ScriptEnded,
    ScriptStarted,
    SeriesSummary,
    SettingDeclared,
    Started,
    Warned,
    encode,
)
from epochtop.engine.runs import paths


def packed(*values: float) -> bytes:
    """Losses as they are written."""
    return struct.pack(f"<{len(values)}f", *values)


STARTED = Started(
    time=1.0,
    device="cpu",
    device_name="Prozessor Ω",
    executor="eager",
    threads=1,
    rows=120,
    test_rows=30,
    features=4,
    outputs=3,
    parameters=83,
    steps=20_000,
    steps_per_epoch=1,
    loss="cross_entropy",
    metric="accuracy",
    torch_version="2.13.0",
    notes=("threads 1 – measured",),
)
LOSSES = Losses(first_step=0, seconds=0.1, values=packed(1.5, 1.25, float("nan")), reads=1, waited=0.0)
FINISHED = Finished(
    time=2.0,
    outcome="finished",
    reason="all 3 steps are done",
    steps=3,
    epochs=3.0,
    seconds=0.125,
    steps_per_second=24.0,
    final_loss=0.75,
    best_loss=0.5,
    best_step=1,
    test_loss=0.25,
    test_metric=0.9,
    device_reads=1,
    waited_seconds=0.0,
)
FAILED = Failed(time=2.0, step=3, message="out of memory", advice="smaller batches", traceback='File "x"\nError')
EVERY_EVENT: list[AnyEvent] = [
    STARTED,
    LOSSES,
    Logged(
        time=2.0,
        seconds=0.2,
        first_step=3,
        count=2,
        steps=struct.pack("<2q", 3, 9),
        values={"val/läuft": packed(0.5, float("inf"))},
        summaries={
            "val/läuft": SeriesSummary(finite=1, first=0.5, minimum=0.5, maximum=0.5, last=0.5, mean=0.5, first_bad=1)
        },
    ),
    ScriptStarted(time=1.0, pid=7),
    Configured(values={"lr": 0.1, "layers": [1, 2], "name": "größer"}),
    SettingDeclared(name="lr", value=0.1, low=0.0),
    ScriptEnded(time=2.0, outcome="stopped", steps=5, seconds=1.0),
    Evaluated(step=3, seconds=0.1, loss=0.25, metric=None),
    Saved(step=3, kind="best"),
    Paused(step=3, by="ada@host:1"),
    Resumed(step=3),
    Changed(step=3, field="learning_rate", value=0.1),
    Warned(message="the disk is nearly full – 3 % left 🚧"),
    Measured(values={"reads": 3, "seconds": 0.5, "device": "cpu", "none": None}),
    FINISHED,
    FAILED,
]


def log(*lines: bytes) -> bytes:
    """Complete lines."""
    return b"".join(line + b"\n" for line in lines)


def end(live: tuple[Path, IO[bytes]], *written: AnyEvent) -> Path:
    """Write events and let the engine of a run go."""
    run, lock = live
    (run / paths.EVENTS).write_bytes(log(*map(encode, written)))
    lock.close()
    return run

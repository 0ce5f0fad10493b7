"""The summary of a run that has ended: figures, reason, advice. Takes values from the host only, never a job or a loop."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from epochtop.engine.protocol.events import Finished, Outcome
from epochtop.engine.protocol.quantities import format_bytes, format_seconds
from epochtop.engine.training.lr_finder import RangeTest, advice


class Ending(NamedTuple):
    """How a run ends."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class UnsavedCheckpoint:
    """A checkpoint with the run's result that the disk has refused."""

    kind: str
    step: int
    size_bytes: int
    reason: str
    """Why the disk refused it."""
    tried_s: float
    """For how many seconds the run tried."""


@dataclass(frozen=True)
class LoopProgress:
    """How far a run has come."""

    steps: int
    steps_per_epoch: int
    seconds: float
    """Training time."""
    reads: int
    """Windows that were read from the device."""
    waited_s: float
    """Time the host waited for them."""


@dataclass(frozen=True)
class HeldOutResults:
    """Results on held-out rows; None where there are none or they are not finite."""

    test_loss: float | None = None
    test_metric: float | None = None
    metrics: dict[str, float | None] | None = None
    """All metrics of the test rows."""
    best_loss: float | None = None


class Totals:
    """Final and best training loss, and the first step whose loss is not a finite number."""

    def __init__(self) -> None:
        self.final: float | None = None
        self.best = math.inf
        self.best_step: int | None = None
        self.bad_step: int | None = None
        self.bad_value = ""

    def add(self, first_step: int, losses: npt.NDArray[Any]) -> bool:
        """Add the losses of a window, (steps,). True if it contains the first loss that is not finite."""
        if not len(losses):
            return False
        last = float(losses[-1])
        self.final = last if math.isfinite(last) else None
        finite = np.isfinite(losses)
        all_finite = bool(finite.all())
        lowest = int(np.argmin(losses if all_finite else np.where(finite, losses, np.inf)))
        if losses[lowest] < self.best:
            self.best, self.best_step = float(losses[lowest]), first_step + lowest
        if all_finite or self.bad_step is not None:
            return False
        bad = int(np.argmin(finite))
        self.bad_step, self.bad_value = first_step + bad, "NaN" if np.isnan(losses[bad]) else "infinite"
        return True


def summary(
    ending: Ending,
    progress: LoopProgress,
    totals: Totals,
    held_out: HeldOutResults,
    range_test: RangeTest | None,
    advice_on_loss: str,
) -> Finished:
    """The last event of a run.

    `range_test` is None for other schedules. `advice_on_loss` says what helps if the loss is not finite.
    """
    steps, seconds = progress.steps, progress.seconds
    suggestion = range_test.suggestion() if range_test else None
    return Finished(
        time=time.time(),
        outcome=ending.outcome,
        reason=ending.reason,
        advice=advice(suggestion) if range_test else advice_on_loss,
        steps=steps,
        epochs=steps / progress.steps_per_epoch,
        seconds=round(seconds, 6),
        steps_per_second=round(steps / seconds if seconds > 0 else 0.0, 3),
        final_loss=totals.final,
        best_loss=totals.best if math.isfinite(totals.best) else None,
        best_step=totals.best_step,
        diverged_step=totals.bad_step,
        test_loss=held_out.test_loss,
        test_metric=held_out.test_metric,
        best_test_loss=held_out.best_loss,
        metrics=held_out.metrics or {},
        device_reads=progress.reads,
        waited_seconds=round(progress.waited_s, 6),
        suggestion=suggestion,
    )


def unsaved(end: Finished, run: Path, missing: Sequence[UnsavedCheckpoint], resumes_at: int | None) -> Finished:
    """The summary of a run whose last checkpoints were not written: its own outcome, the reason, and what to do.

    `resumes_at` is the step of the checkpoint that the run can continue from; None if there is none. A diverged run stays
    diverged, because nothing would continue from it.
    """
    names = " and ".join(f"{checkpoint.kind!r}" for checkpoint in missing)
    first = missing[0]
    reason = (
        f"{end.reason}, but checkpoint{'s' * (len(missing) > 1)} {names} could not be written "
        f"in {format_seconds(first.tried_s)}: {first.reason}"
    )
    if end.outcome == "diverged":
        return msgspec.structs.replace(end, reason=reason)
    size = format_bytes(sum(checkpoint.size_bytes for checkpoint in missing))
    start = "from the start" if resumes_at is None else f"from step {resumes_at:,}"
    advice = f"free at least {size} for {run}, then `epochtop resume {run.name}` continues {start}"
    return msgspec.structs.replace(end, outcome="unsaved", reason=reason, advice=advice)

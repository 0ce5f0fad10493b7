"""From windows that reached the host to events: every step once, also of a run that takes some of them again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.job.job import Job
from epochtop.engine.protocol.codes import LOSS_DIFFERS
from epochtop.engine.protocol.events import Evaluated, Losses, Mapped, Outcome, Warned
from epochtop.engine.step.window import LossWindow, Reading
from epochtop.engine.training.lr_finder import RangeTest
from epochtop.engine.training.recorder import Recorder
from epochtop.engine.training.resume import Origin

SAME = 1e-3
"""Relative difference below which a repeated loss on a GPU counts as the same; on the CPU it has to be equal."""


class Publisher:
    """Hands the events of one run to its recorder."""

    def __init__(self, job: Job, recorder: Recorder, window: LossWindow, origin: Origin) -> None:
        self._job, self._recorder, self._window = job, recorder, window
        self._recorded = origin.recorded
        self._comparable = not origin.regrouped
        self._evaluated = origin.evaluated
        self._last_seconds = origin.recorded_seconds
        self._different = False
        self.totals = Totals()
        self.totals.add(0, origin.recorded)
        spec, total = job.spec, job.plan.steps
        self.range_test = RangeTest(spec.learning_rate, total) if spec.schedule == "range_test" else None
        if self.range_test is not None:
            self.range_test.add(origin.recorded)
        self.learning_rate: float | None = None
        """Of the step before, where a schedule moves it."""

    def losses(self, reading: Reading) -> tuple[Outcome, str] | None:
        """Publish the losses of a window; returns the outcome if one of them ends the run."""
        values, first = reading.losses.numpy().astype("<f4", copy=False), reading.first_step
        known = min(len(values), max(0, len(self._recorded) - first))
        self._compare(first, values[:known])
        first, values = first + known, values[known:]
        if len(values):
            self._last_seconds = max(self._last_seconds, round(reading.seconds, 6))
            self._recorder.put(
                Losses(
                    first_step=first,
                    seconds=self._last_seconds,
                    values=values.tobytes(),
                    reads=self._window.reads,
                    waited=round(self._window.waited_s, 6),
                    learning_rate=self.learning_rate,
                )
            )
        bad = self.totals.add(first, values)
        if self.range_test is not None:
            why = self.range_test.add(values)
            return ("finished", why) if why else None
        if bad:
            return "diverged", f"the loss became {self.totals.bad_value} at step {self.totals.bad_step:,}"
        return None

    def _compare(self, first: int, again: npt.NDArray[np.float32]) -> None:
        """Losses that were recorded before the run ended and have been computed again."""
        if not self._comparable:
            return
        before = self._recorded[first : first + len(again)]
        exact = self._job.device.type == "cpu"
        same = before == again if exact else np.isclose(before, again, rtol=SAME)
        if same.all() or self._different:
            return
        self._different = True
        step = first + int(np.argmin(same))
        self._recorder.put(
            Warned(
                message=f"step {step:,}: recomputed loss {again[step - first]:g} differs from the recorded "
                f"{before[step - first]:g}; the device, the versions or the data have changed",
                code=LOSS_DIFFERS,
            )
        )

    def evaluated(self, event: Evaluated | Mapped | None) -> None:
        """Publish an evaluation, unless it was published before the run ended."""
        if event is not None and event.step > self._evaluated:
            self._recorder.put(event)

    def warn(self, message: str, code: str, step: int) -> None:
        """Publish a warning, unless it was published before the run ended."""
        if step >= len(self._recorded):
            self._recorder.put(Warned(message=message, code=code))


class Totals:
    """Final and best loss, and the first step whose loss is not a finite number."""

    def __init__(self) -> None:
        self.final: float | None = None
        self.best = math.inf
        self.best_step: int | None = None
        self.bad_step: int | None = None
        self.bad_value = ""

    def add(self, first_step: int, losses: npt.NDArray[Any]) -> bool:
        """Take in a window; True if it holds the first loss that is not finite."""
        if not len(losses):
            return False
        last = float(losses[-1])
        self.final = last if math.isfinite(last) else None
        finite = np.isfinite(losses)
        whole = bool(finite.all())
        place = int(np.argmin(losses if whole else np.where(finite, losses, np.inf)))
        if losses[place] < self.best:
            self.best, self.best_step = float(losses[place]), first_step + place
        if whole or self.bad_step is not None:
            return False
        bad = int(np.argmin(finite))
        self.bad_step, self.bad_value = first_step + bad, "NaN" if np.isnan(losses[bad]) else "infinite"
        return True

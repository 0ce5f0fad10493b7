"""From windows that reached the host to events. Every step is published once, also if a run takes some steps again.

Never reads the device and never imports the loop.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from epochtop.engine.job.decision_boundary import MapLabel
from epochtop.engine.job.job import Job
from epochtop.engine.protocol.events import LOSS_DIFFERS, Evaluated, Logged, Mapped, SeriesSummary, Warned
from epochtop.engine.runs.series import LEARNING_RATE, SUMMARIZED, TRAIN_LOSS, packed
from epochtop.engine.step.window import LossWindow, Reading
from epochtop.engine.training.evaluations import Evaluation, Evaluations
from epochtop.engine.training.lr_finder import RangeTest
from epochtop.engine.training.outcome import Ending, Totals
from epochtop.engine.training.recorder import PendingSave, Recorder
from epochtop.engine.training.resume import Origin

SAME = 1e-3
"""Relative difference below which a recomputed loss on a GPU counts as the same; on the CPU it must be equal."""


@dataclass(frozen=True)
class LastRate:
    """The learning rate of the last step of a window; attached to it, because a window is published after the next one."""

    learning_rate: float


class Publisher:
    """Turns the readings of one run into events for its recorder."""

    def __init__(
        self, job: Job, recorder: Recorder, window: LossWindow, evaluations: Evaluations, origin: Origin
    ) -> None:
        self._job, self._recorder, self._window, self._evaluations = job, recorder, window, evaluations
        self._recorded = origin.recorded
        self._comparable = not origin.regrouped
        self._evaluated = origin.evaluated
        self._last_seconds = origin.recorded_seconds
        self._learning_rate: float | None = None
        """The learning rate that was published last."""
        self._differs = False
        """Whether a recomputed loss has differed, which is reported once."""
        self.totals = Totals()
        self.totals.add(0, origin.recorded)
        spec, steps = job.spec, job.plan.steps
        self.range_test = RangeTest(spec.learning_rate, steps) if spec.schedule == "range_test" else None
        if self.range_test is not None:
            self.range_test.add(origin.recorded)

    def publish(self, reading: Reading) -> Ending | None:
        """Publish a window and everything attached to it; returns the ending if a loss ends the run."""
        ending = self._publish_losses(reading)
        for label, tensors in reading.attached:
            if isinstance(label, LastRate):
                self._publish_rate(label.learning_rate, reading)
            else:
                self._publish_attached(label, tensors)
        return ending

    def _publish_losses(self, reading: Reading) -> Ending | None:
        losses, first = reading.losses.numpy().astype("<f4", copy=False), reading.first_step
        repeated = min(len(losses), max(0, len(self._recorded) - first))
        self._compare(first, losses[:repeated])
        first, losses = first + repeated, losses[repeated:]
        if len(losses):
            self._last_seconds = max(self._last_seconds, round(reading.seconds, 6))
            self._recorder.put(self._losses(first, losses))
        bad = self.totals.add(first, losses)
        if self.range_test is not None:
            reason = self.range_test.add(losses)
            return Ending("finished", reason) if reason else None
        if bad:
            return Ending("diverged", f"the loss became {self.totals.bad_value} at step {self.totals.bad_step:,}")
        return None

    def _losses(self, first: int, losses: npt.NDArray[np.float32]) -> Logged:
        return Logged(
            time=round(time.time(), 3),
            seconds=self._last_seconds,
            first_step=first,
            count=len(losses),
            values={TRAIN_LOSS: losses.tobytes()},
            summaries={TRAIN_LOSS: summary_of(losses)} if len(losses) >= SUMMARIZED else {},
            reads=self._window.reads,
            waited=round(self._window.waited_s, 6),
        )

    def _publish_rate(self, rate: float, reading: Reading) -> None:
        """Publish the learning rate at the last step of a window, if it differs from the one published before."""
        stop = reading.first_step + len(reading.losses)
        first = max(reading.first_step, len(self._recorded))
        if stop <= first or rate == self._learning_rate:
            return
        new, self._learning_rate = self._learning_rate is None, rate
        self._recorder.put(
            Logged(
                time=round(time.time(), 3),
                seconds=self._last_seconds,
                first_step=first if new and self._job.schedule.constant else stop - 1,
                count=1,
                values={LEARNING_RATE: packed([rate], double=True)},
            )
        )

    def _compare(self, first: int, recomputed: npt.NDArray[np.float32]) -> None:
        """Compare losses that were recorded before the run ended and have been computed again."""
        if not self._comparable or self._differs:
            return
        recorded = self._recorded[first : first + len(recomputed)]
        exact = self._job.device.type == "cpu"
        same = recorded == recomputed if exact else np.isclose(recorded, recomputed, rtol=SAME)
        if same.all():
            return
        self._differs = True
        place = int(np.argmin(same))
        causes = "device, versions or data"
        if self._job.workload.task is not None:
            causes = "device, versions, data, or state that the task's state_dict lacks"
        self._recorder.put(
            Warned(
                message=f"step {first + place:,}: recomputed loss {recomputed[place]:g} differs from the recorded "
                f"{recorded[place]:g}; {causes} may have changed",
                code=LOSS_DIFFERS,
            )
        )

    def _publish_attached(self, label: Any, tensors: tuple[Tensor, ...]) -> None:
        match label:
            case Evaluation():
                self._publish_evaluation(self._evaluations.arrived(label, tensors[0]))
            case MapLabel():
                self._publish_evaluation(self._evaluations.mapped(label, tensors[0]))
            case PendingSave():
                self._recorder.put(replace(label, tensors=dict(zip(label.tensors, tensors, strict=True))))

    def _publish_evaluation(self, event: Evaluated | Mapped | None) -> None:
        """Publish an evaluation, unless it was published before the run ended."""
        if event is not None and event.step > self._evaluated:
            self._recorder.put(event)

    def warn(self, message: str, code: str, step: int) -> None:
        """Publish a warning about `step`, unless it was published before the run ended."""
        if step >= len(self._recorded):
            self._recorder.put(Warned(message=message, code=code))


def summary_of(values: npt.NDArray[np.float32]) -> SeriesSummary:
    """The summary of a window, (steps,)."""
    finite = np.isfinite(values)
    bad = None
    if not finite.all():
        bad = int(np.argmin(finite))
        values = values[finite]
    if not len(values):
        return SeriesSummary(finite=0, first=None, minimum=None, maximum=None, last=None, mean=None, first_bad=bad)
    return SeriesSummary(
        finite=len(values),
        first=float(values[0]),
        minimum=float(values.min()),
        maximum=float(values.max()),
        last=float(values[-1]),
        mean=float(values.mean(dtype=np.float64)),
        first_bad=bad,
    )

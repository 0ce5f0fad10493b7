"""Evaluations of a run and what follows from them: the best weights, patience, a lower learning rate.

An evaluation is enqueued; its figures arrive with the next window. The loop waits for them only if later steps depend on
them (patience, plateau), so that a run that is repeated takes the same steps. Never imports the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from epochtop.engine.device.timer import DeviceTimer
from epochtop.engine.job import state
from epochtop.engine.job.decision_boundary import MapLabel
from epochtop.engine.job.evaluate import enqueue
from epochtop.engine.job.job import Job
from epochtop.engine.job.state import Values
from epochtop.engine.protocol.events import Evaluated, Mapped
from epochtop.engine.step.evaluation import EvaluationInterruptedError
from epochtop.engine.step.metrics import Scores
from epochtop.engine.step.window import LossWindow
from epochtop.engine.training.clock import EvaluationBudget
from epochtop.engine.training.outcome import HeldOutResults

if TYPE_CHECKING:
    from epochtop.engine.distributed.leader import RankGroupLeader


@dataclass(frozen=True)
class Evaluation:
    """An evaluation in progress."""

    step: int
    seconds: float
    """Training time when it was enqueued."""
    weights: dict[str, Tensor] | None
    """A copy of the evaluated weights; None for the test at the end."""
    timer: DeviceTimer


Interrupt = Callable[[float], bool]
"""Whether an evaluation that has taken this many seconds on the host must end now. Asked before every batch."""


def never(_seconds: float) -> bool:
    """Interrupts nothing."""
    return False


class Evaluations:
    """Evaluates one job; remembers the newest and the best results."""

    def __init__(
        self, job: Job, window: LossWindow, leader: RankGroupLeader | None = None, start_s: float = 0.0
    ) -> None:
        """`leader` is given if other ranks must take part. `start_s` is the training time so far."""
        self._job, self._window, self._leader = job, window, leader
        self._newest_arrived = -1
        """Step of the last evaluation whose figures have arrived."""
        self._test_loss: float | None = None
        self._test: Scores | None = None
        self.best = Best()
        self.patience = Patience(job.spec.patience)
        self.newest_step = -1
        """Step of the last evaluation that was enqueued."""
        self.lowered = False
        """Whether the last evaluation made the schedule lower the learning rate."""
        self.budget = EvaluationBudget(start_s)
        self.cut = False
        """Whether the evaluation at the end was interrupted, so that there are no results with the last weights."""

    @property
    def decides(self) -> bool:
        """Whether later steps depend on evaluations."""
        return self._job.spec.patience > 0 or self._job.spec.schedule == "plateau"

    def enqueue(self, step: int, seconds: float, interrupt: Interrupt = never) -> bool:
        """Evaluate the weights as they are; the figures arrive with the next window. False if it was interrupted.

        Sharded weights are evaluated without interruption, because all ranks take part.
        """
        label = Evaluation(step, round(seconds, 6), state.weights(self._job), DeviceTimer(self._job.device))
        if not self._evaluate(label, test=False, interrupt=interrupt):
            return False
        self.newest_step = step
        return True

    def _evaluate(self, label: Evaluation, test: bool, interrupt: Interrupt) -> bool:
        self._order(label.step, test)
        batches = self._job.test if test else self._job.eval_batches
        done = 0

        def before_batch(number: int) -> None:
            nonlocal done
            done = number
            if self._job.shards is None and interrupt(label.timer.elapsed_s()):
                raise EvaluationInterruptedError

        try:
            figures, mapped = enqueue(self._job, test, before_batch)
        except EvaluationInterruptedError:
            self.budget.interrupt(label.timer.elapsed_s(), done * batches.size / len(batches))
            return False
        label.timer.stop()
        self._window.attach(label, (figures,))
        if mapped is not None:
            self._window.attach(MapLabel(label.step), (mapped,))
        return True

    def over_budget(self, seconds: float, spent_s: float) -> bool:
        """Whether an evaluation that began at training time `seconds` has taken more than its share of it.

        Not for rows on a GPU: the host enqueues their batches, and its time is not the time that they take.
        """
        on_host = self._job.device.type == "cpu" or not self._job.eval_batches.resident
        return on_host and spent_s > self.budget.remaining_s(seconds)

    def _order(self, step: int, test: bool) -> None:
        if self._leader is not None and self._job.shards is not None:
            self._leader.evaluate(step, test, self.best.step, self._newest_arrived)

    def mapped(self, label: MapLabel, cells: Tensor) -> Mapped | None:
        """The decision boundary, once its cells have reached the host."""
        boundary = self._job.boundary
        return boundary.mapped(label.step, cells, self._job.workload.classes) if boundary else None

    def enqueue_last(self, step: int, seconds: float, interrupt: Interrupt = never) -> None:
        """Evaluate the last weights, unless that is done, and the test rows, if validation rows were used until now."""
        if self.newest_step != step:
            self.cut = not self.enqueue(step, seconds, interrupt)
        if not self.cut and self._job.eval_split == "validation" and len(self._job.test):
            label = Evaluation(step, round(seconds, 6), None, DeviceTimer(self._job.device))
            self.cut = not self._evaluate(label, test=True, interrupt=interrupt)

    def arrived(self, label: Evaluation, figures: Tensor) -> Evaluated | None:
        """Take in figures that reached the host; returns the event, None for rows that are not held out."""
        loss, scores = self._job.evaluator.read(figures)
        self.budget.complete(label.timer.seconds())
        if label.weights is None:
            self._test_loss, self._test = loss, scores
            return None
        self._newest_arrived = label.step
        metric = scores.values.get(self._job.evaluator.metrics.main)
        self.best.update(label.step, label.weights, loss, metric)
        self.patience.update(loss)
        self.lowered = self._job.schedule.observe(loss)
        if self._job.eval_split == "test":
            self._test_loss, self._test = loss, scores
        if self._job.eval_split == "train":
            return None
        return Evaluated(
            step=label.step,
            seconds=label.seconds,
            loss=loss,
            metric=metric,
            metrics=scores.values,
            confusion=scores.confusion,
        )

    def results(self) -> HeldOutResults:
        """Results on held-out rows so far."""
        job = self._job
        best_loss = self.best.loss if job.eval_split != "train" else None
        if not len(job.test) or self.cut:
            return HeldOutResults(best_loss=best_loss)
        metrics = self._test.values if self._test else {}
        metric = metrics.get(job.evaluator.metrics.main)
        return HeldOutResults(self._test_loss, metric, metrics, best_loss)

    def state_dict(self) -> Values:
        """State that a run needs to continue."""
        return self.patience.state_dict()

    def load_state_dict(self, values: Values, best: Values | None, best_step: int) -> None:
        """Restore :meth:`state_dict`. `best` are the figures of the best weights, which are on the disk already."""
        self.patience.load_state_dict(values)
        if best is not None:
            self.best.step, self.best.loss, self.best.metric = best_step, best["test_loss"], best["test_metric"]


class Best:
    """The weights with the lowest held-out loss so far (training loss if no row is held out)."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] | None = None
        self.step = 0
        self.loss: float | None = None
        self.metric: float | None = None
        self.newest_loss: float | None = None
        """Loss of the newest evaluation."""
        self.unsaved = False

    def update(self, step: int, weights: dict[str, Tensor], loss: float | None, metric: float | None) -> None:
        """Compare an evaluation with the best so far; `weights` are those that were evaluated."""
        self.newest_loss = loss
        if loss is not None and (self.loss is None or loss < self.loss):
            self.weights, self.step, self.loss, self.metric = weights, step, loss, metric
            self.unsaved = True


class Patience:
    """Counts evaluations without a new lowest loss."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lowest = math.inf
        self._count = 0

    @property
    def over(self) -> bool:
        """Whether there were `limit` of them in a row; never for a limit of 0."""
        return 0 < self._limit <= self._count

    def update(self, loss: float | None) -> None:
        """Take in the loss of an evaluation."""
        if loss is not None and loss < self._lowest:
            self._lowest, self._count = loss, 0
        else:
            self._count += 1

    def state_dict(self) -> dict[str, float | int | None]:
        """The count and the lowest loss, as plain values."""
        return {"patience_best": self._lowest if math.isfinite(self._lowest) else None, "patience_bad": self._count}

    def load_state_dict(self, values: dict[str, float | int | None]) -> None:
        """Restore :meth:`state_dict`."""
        lowest = values.get("patience_best")
        self._lowest = math.inf if lowest is None else float(lowest)
        self._count = int(values.get("patience_bad") or 0)

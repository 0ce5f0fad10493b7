"""Evaluations of a run and what follows from them: the best weights, patience, a lower learning rate.

An evaluation is enqueued; its figures come with the next window. Only where the course of the training depends on
them (patience, plateau) the loop waits, so that it takes the same course again when it is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from engine import snapshot
from engine.boundary import MapLabel
from engine.evaluation import Pieces
from engine.job import Job
from engine.metrics import Scores
from engine.protocol import Evaluated, Mapped
from engine.snapshot import Values
from engine.tally import Best, Patience
from engine.window import LossWindow


@dataclass(frozen=True)
class Evaluation:
    """An evaluation under way, and a copy of the weights it was made with; none for the test at the end."""

    step: int
    seconds: float
    weights: dict[str, Tensor] | None


class Appraisal:
    """Evaluates one job; remembers the newest and the best figures."""

    def __init__(self, job: Job, window: LossWindow) -> None:
        self._job, self._window = job, window
        self.best = Best()
        self.patience = Patience(job.spec.patience)
        self.newest_step = -1
        self.test_loss: float | None = None
        self.test: Scores | None = None
        self.lowered = False
        """Whether the last evaluation made the schedule lower the learning rate."""

    @property
    def decides(self) -> bool:
        """Whether the training's course depends on evaluations."""
        return self._job.spec.patience > 0 or self._job.spec.schedule == "plateau"

    def enqueue(self, step: int, seconds: float) -> None:
        """Evaluate with the weights as they are; the figures come with the next window."""
        self.newest_step = step
        label = Evaluation(step, round(seconds, 6), snapshot.weights(self._job))
        self._window.attach(label, (self._evaluate(self._job.judged),))
        if self._job.boundary is not None:
            self._window.attach(MapLabel(step), (self._job.boundary.enqueue(self._job.model, self._averaged),))

    def mapped(self, label: MapLabel, answer: Tensor) -> Mapped | None:
        """The decision boundary, once its figures have reached the host."""
        boundary = self._job.boundary
        return boundary.mapped(label.step, answer, self._job.material.classes) if boundary else None

    def enqueue_test(self, step: int, seconds: float) -> None:
        """Evaluate the test rows, where others are judged by."""
        if self._job.judged_on == "validation" and len(self._job.test):
            self._window.attach(Evaluation(step, round(seconds, 6), None), (self._evaluate(self._job.test),))

    def _evaluate(self, rows: Pieces) -> Tensor:
        return self._job.judge.evaluate(self._job.model, rows, self._averaged)

    @property
    def _averaged(self) -> dict[str, Tensor] | None:
        """The moving average, where there is one: it is evaluated in place of the model's own weights."""
        return self._job.average.tensors if self._job.average else None

    def arrived(self, label: Evaluation, values: Tensor) -> Evaluated | None:
        """Take in figures that reached the host; returns what there is to tell."""
        loss, scores = self._job.judge.read(values)
        if label.weights is None:
            self.test_loss, self.test = loss, scores
            return None
        main = scores.values.get(self._job.judge.metrics.main)
        self.best.judge(label.step, label.weights, loss, main)
        self.patience.judge(loss)
        self.lowered = self._job.schedule.judge(loss)
        if self._job.judged_on == "test":
            self.test_loss, self.test = loss, scores
        if self._job.judged_on == "train":
            return None
        return Evaluated(
            step=label.step,
            seconds=label.seconds,
            loss=loss,
            metric=main,
            metrics=scores.values,
            confusion=scores.confusion,
        )

    def memory(self) -> Values:
        """What a run that goes on must know."""
        return self.patience.memory()

    def recall(self, values: Values, best: Values | None, best_step: int) -> None:
        """Take up what :meth:`memory` gave, and the figures of the best weights, which lie on the disk already."""
        self.patience.recall(values)
        if best is not None:
            self.best.step, self.best.loss, self.best.metric = best_step, best["test_loss"], best["test_metric"]

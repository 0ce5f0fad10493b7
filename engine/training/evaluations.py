"""Evaluations of a run and what follows from them: the best weights, patience, a lower learning rate.

An evaluation is enqueued; its figures come with the next window. Only where the course of the training depends on
them (patience, plateau) the loop waits, so that it takes the same course again when it is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from epochtop.engine.job import state
from epochtop.engine.job.decision_boundary import MapLabel
from epochtop.engine.job.job import Job
from epochtop.engine.job.state import Values
from epochtop.engine.protocol.events import Evaluated, Mapped
from epochtop.engine.step.metrics import Scores
from epochtop.engine.step.window import LossWindow

if TYPE_CHECKING:
    from epochtop.engine.distributed.leader import RankGroupLeader
import math

from epochtop.engine.job.evaluate import enqueue


@dataclass(frozen=True)
class Evaluation:
    """An evaluation under way, and a copy of the weights it was made with; none for the test at the end."""

    step: int
    seconds: float
    weights: dict[str, Tensor] | None


class Evaluations:
    """Evaluates one job; remembers the newest and the best figures."""

    def __init__(self, job: Job, window: LossWindow, team: RankGroupLeader | None = None) -> None:
        """`team` is for a job whose other ranks have to take part."""
        self._job, self._window, self._team = job, window, team
        self._judged = -1
        """Step of the last evaluation whose figures have come."""
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
        self._order(step, test=False)
        label = Evaluation(step, round(seconds, 6), state.weights(self._job))
        figures, mapped = enqueue(self._job)
        self._window.attach(label, (figures,))
        if mapped is not None:
            self._window.attach(MapLabel(step), (mapped,))

    def _order(self, step: int, test: bool) -> None:
        if self._team is not None and self._job.shards is not None:
            self._team.evaluate(step, test, self.best.step, self._judged)

    def mapped(self, label: MapLabel, answer: Tensor) -> Mapped | None:
        """The decision boundary, once its figures have reached the host."""
        boundary = self._job.boundary
        return boundary.mapped(label.step, answer, self._job.workload.classes) if boundary else None

    def enqueue_test(self, step: int, seconds: float) -> None:
        """Evaluate the test rows, where others are judged by."""
        if self._job.eval_split == "validation" and len(self._job.test):
            self._order(step, test=True)
            self._window.attach(Evaluation(step, round(seconds, 6), None), (enqueue(self._job, test=True)[0],))

    def arrived(self, label: Evaluation, values: Tensor) -> Evaluated | None:
        """Take in figures that reached the host; returns what there is to tell."""
        loss, scores = self._job.evaluator.read(values)
        if label.weights is None:
            self.test_loss, self.test = loss, scores
            return None
        self._judged = label.step
        main = scores.values.get(self._job.evaluator.metrics.main)
        self.best.judge(label.step, label.weights, loss, main)
        self.patience.judge(loss)
        self.lowered = self._job.schedule.observe(loss)
        if self._job.eval_split == "test":
            self.test_loss, self.test = loss, scores
        if self._job.eval_split == "train":
            return None
        return Evaluated(
            step=label.step,
            seconds=label.seconds,
            loss=loss,
            metric=main,
            metrics=scores.values,
            confusion=scores.confusion,
        )

    def state_dict(self) -> Values:
        """What a run that goes on must know."""
        return self.patience.state_dict()

    def load_state_dict(self, values: Values, best: Values | None, best_step: int) -> None:
        """Take up what :meth:`state_dict` gave, and the figures of the best weights, which lie on the disk already."""
        self.patience.load_state_dict(values)
        if best is not None:
            self.best.step, self.best.loss, self.best.metric = best_step, best["test_loss"], best["test_metric"]


class Best:
    """The weights with the lowest test loss so far (training loss where no row is held out)."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] | None = None
        self.step = 0
        self.loss: float | None = None
        self.metric: float | None = None
        self.newest_loss: float | None = None
        self.newest_metric: float | None = None
        self.unsaved = False

    def judge(self, step: int, weights: dict[str, Tensor], loss: float | None, metric: float | None) -> None:
        """The numbers of an evaluation and the weights that were evaluated."""
        self.newest_loss, self.newest_metric = loss, metric
        if loss is not None and (self.loss is None or loss < self.loss):
            self.weights, self.step, self.loss, self.metric = weights, step, loss, metric
            self.unsaved = True


class Patience:
    """Counts evaluations without a better loss than before."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._best = math.inf
        self.bad = 0

    @property
    def over(self) -> bool:
        """Whether there were `limit` of them; never for a limit of 0."""
        return 0 < self._limit <= self.bad

    def judge(self, loss: float | None) -> None:
        """The loss of an evaluation."""
        if loss is not None and loss < self._best:
            self._best, self.bad = loss, 0
        else:
            self.bad += 1

    def state_dict(self) -> dict[str, float | int | None]:
        """What it remembers, as plain values."""
        return {"patience_best": self._best if math.isfinite(self._best) else None, "patience_bad": self.bad}

    def load_state_dict(self, values: dict[str, float | int | None]) -> None:
        """Take up what :meth:`state_dict` gave."""
        best = values.get("patience_best")
        self._best, self.bad = math.inf if best is None else float(best), int(values.get("patience_bad") or 0)

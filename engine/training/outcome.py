"""The one summary of a run that ended: figures, reason, advice."""

from __future__ import annotations

import math
import time

from epochtop.engine.job.job import Job
from epochtop.engine.protocol.events import Finished, Outcome
from epochtop.engine.training.evaluations import Evaluations
from epochtop.engine.training.lr_finder import advice
from epochtop.engine.training.publisher import Publisher


def summary(
    job: Job,
    publisher: Publisher,
    appraisal: Evaluations,
    ending: tuple[Outcome, str],
    steps: int,
    seconds: float,
    reads: int,
    waited: float,
) -> Finished:
    """What a run did in `steps` steps and `seconds` of training, of which it `waited` for the device in `reads` reads."""
    (outcome, reason), totals = ending, publisher.totals
    tested, best = len(job.test) > 0, appraisal.best
    scores = appraisal.test.values if tested and appraisal.test else {}
    test = publisher.range_test
    suggestion = test.suggestion() if test else None
    advised = _advice(job.update.learning_rate) if outcome == "diverged" else ""
    return Finished(
        time=time.time(),
        outcome=outcome,
        reason=reason,
        advice=advice(suggestion) if test else advised,
        steps=steps,
        epochs=steps / job.plan.steps_per_epoch,
        seconds=round(seconds, 6),
        steps_per_second=round(steps / seconds if seconds > 0 else 0.0, 3),
        final_loss=totals.final,
        best_loss=totals.best if math.isfinite(totals.best) else None,
        best_step=totals.best_step,
        diverged_step=totals.bad_step,
        test_loss=appraisal.test_loss if tested else None,
        test_metric=scores.get(job.evaluator.metrics.main),
        best_test_loss=best.loss if job.eval_split != "train" else None,
        metrics=scores,
        device_reads=reads,
        waited_seconds=round(waited, 6),
        suggestion=suggestion,
    )


def _advice(learning_rate: float) -> str:
    return f"lower the learning rate: {learning_rate:g} is too high, try {learning_rate / 10:g}"

"""The one summary of a run that ended: figures, reason, advice."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from epochtop.engine.protocol.events import Finished, Outcome
from epochtop.engine.training.lr_finder import advice

if TYPE_CHECKING:
    from epochtop.engine.training.loop import Loop


def summary(loop: Loop, outcome: Outcome, reason: str, seconds: float, reads: int, waited: float) -> Finished:
    """What a loop did. `seconds` are of training, `waited` for the device in `reads` reads."""
    job, totals, appraisal = loop.job, loop.publisher.totals, loop.appraisal
    tested, best = len(job.test) > 0, appraisal.best
    scores = appraisal.test.values if tested and appraisal.test else {}
    test = loop.publisher.range_test
    suggestion = test.suggestion() if test else None
    advised = _advice(job.update.learning_rate) if outcome == "diverged" else ""
    return Finished(
        time=time.time(),
        outcome=outcome,
        reason=reason,
        advice=advice(suggestion) if test else advised,
        steps=loop.step,
        epochs=loop.step / job.plan.steps_per_epoch,
        seconds=round(seconds, 6),
        steps_per_second=round(loop.step / seconds if seconds > 0 else 0.0, 3),
        final_loss=totals.final,
        best_loss=totals.best if math.isfinite(totals.best) else None,
        best_step=totals.best_step,
        diverged_step=totals.bad_step,
        test_loss=appraisal.test_loss if tested else None,
        test_metric=scores.get(job.judge.metrics.main),
        best_test_loss=best.loss if job.judged_on != "train" else None,
        metrics=scores,
        device_reads=reads,
        waited_seconds=round(waited, 6),
        suggestion=suggestion,
    )


def _advice(learning_rate: float) -> str:
    return f"lower the learning rate: {learning_rate:g} is too high, try {learning_rate / 10:g}"

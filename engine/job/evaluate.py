"""Evaluations of a job, enqueued on its device. Never waits for the figures."""

from __future__ import annotations

from contextlib import nullcontext

from torch import Tensor

from epochtop.engine.job.job import Job


def enqueue(job: Job, test: bool = False) -> tuple[Tensor, Tensor | None]:
    """Figures of the rows that select the best weights, or of the `test` rows; and the decision boundary, if there is one.

    Evaluates the moving average in place of the weights, if there is one. If weights are sharded, all ranks must call it.
    """
    average = job.average.tensors if job.average and job.shards is None else None
    with job.shards.evaluating(job.average) if job.shards else nullcontext():
        figures = job.evaluator.evaluate(job.model, job.test if test else job.eval_batches, average)
        boundary = None if test else job.boundary
        mapped = boundary.enqueue(job.model, average) if boundary is not None else None
    return figures, mapped

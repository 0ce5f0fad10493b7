"""Evaluations of a job, enqueued on its device. Never waits for the figures."""

from __future__ import annotations

from contextlib import nullcontext

from torch import Tensor

from epochtop.engine.device import generators
from epochtop.engine.job.job import Job
from epochtop.engine.step.evaluation import BeforeBatch, uninterrupted


def enqueue(job: Job, test: bool = False, before_batch: BeforeBatch = uninterrupted) -> tuple[Tensor, Tensor | None]:
    """Figures of the rows that select the best weights, or of the `test` rows; and the decision boundary, if there is one.

    Evaluates the moving average in place of the weights, if there is one. If weights are sharded, all ranks must call it.
    What the model draws here does not change the random numbers of later steps. Raises EvaluationInterruptedError if
    `before_batch` does.
    """
    average = job.average.tensors if job.average and job.shards is None else None
    fork = generators.forked(job.device, job.workload.generator_owners())
    with fork, job.shards.evaluating(job.average) if job.shards else nullcontext():
        figures = job.evaluator.evaluate(job.model, job.test if test else job.eval_batches, average, before_batch)
        boundary = None if test else job.boundary
        mapped = boundary.enqueue(job.model, average) if boundary is not None else None
    return figures, mapped

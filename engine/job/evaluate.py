"""Evaluations of a job, enqueued on its device. Never waits for the figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor

from epochtop.engine.job.job import Job
from epochtop.engine.step.evaluation import BeforeBatch, uninterrupted


def enqueue(job: Job, test: bool = False, before_batch: BeforeBatch = uninterrupted) -> tuple[Tensor, Tensor | None]:
    """Figures of the rows that select the best weights, or of the `test` rows; and the decision boundary, if there is one.

    Evaluates the moving average in place of the weights, if there is one. If weights are sharded, all ranks must call it.
    Random numbers and counters of the user's code are the same afterwards, so later steps do not depend on it. Raises
    EvaluationInterruptedError if `before_batch` does.
    """
    with evaluating(job), job.workload.untouched(job.device):
        figures = job.evaluator.evaluate(job.model, job.test if test else job.eval_batches, before_batch)
        boundary = None if test else job.boundary
        mapped = boundary.enqueue(job.model) if boundary is not None else None
    return figures, mapped


@contextmanager
def evaluating(job: Job) -> Iterator[None]:
    """Use moving averages, if there are any, in place of weights inside, and evaluation mode for a loss that is a module."""
    with ExitStack() as stack:
        if job.shards is not None:
            stack.enter_context(job.shards.evaluating(job.average))
        elif job.average is not None:
            stack.enter_context(job.average.evaluating())
        if job.loss_module is not None:
            stack.enter_context(job.loss_module.evaluating())
        if job.parts.loss_average is not None:
            stack.enter_context(job.parts.loss_average.evaluating())
        yield

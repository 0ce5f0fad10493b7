"""The inputs of a recorded step that change, as tensors: row numbers and factors of the update rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from epochtop.engine.device.row_types import picked
from epochtop.engine.execution.executor import Rate, Unsupported
from epochtop.engine.job.job import Job
from epochtop.engine.step.batches import Batch, Batches, FullBatch, ResidentBatches
from epochtop.engine.step.step import Step, make_step
from epochtop.engine.step.update_rules import Factor, InPlaceRule, Tensors

Sizes = tuple[int, ...]
"""Rows of each batch of a step; empty if every step takes all rows."""


class PickedRows(Batches):
    """Batches of a step whose row numbers are in one tensor."""

    def __init__(self, batches: ResidentBatches, rows: Tensor, sizes: Sizes) -> None:
        self._x, self._y, self._rows, self._sizes = batches.x, batches.y, rows, sizes
        self.per_epoch, self.position = batches.per_epoch, 0

    def __call__(self) -> tuple[Tensor, Tensor]:
        return picked(self._x, self._rows), picked(self._y, self._rows)

    def next_batches(self, count: int) -> list[Batch]:
        batches = []
        for rows in self._rows.split(self._sizes):
            x, y = picked(self._x, rows), picked(self._y, rows)
            batches.append(Batch(x, y, len(rows) / len(self._rows)))
        return batches

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor], position: int) -> None:
        raise NotImplementedError


def recordable_rule(job: Job) -> InPlaceRule:
    """The update rule of a job whose steps can be recorded. Raises Unsupported for any other job."""
    if job.spec.processes > 1:
        raise Unsupported("its steps exchange gradients between processes")
    check_recordable(job)
    if not isinstance(job.batches, FullBatch | ResidentBatches):
        raise Unsupported("its rows are streamed or come from a DataLoader")
    if not isinstance(job.update, InPlaceRule):
        if job.spec.precision == "fp16":
            raise Unsupported("fp16 scales its loss")
        raise Unsupported(f"{job.spec.optimizer} is an optimizer of torch")
    return job.update


def check_recordable(job: Job) -> None:
    """Raise Unsupported for a job whose steps cannot be recorded, with any update rule."""
    if job.spec.dropout and job.spec.checkpoint_activations:
        raise Unsupported("checkpoint_activations repeats the random numbers of dropout in the backward pass")
    if job.parts.backward:
        raise Unsupported("its gradients need backward(), for the hooks of its weights or reentrant checkpointing")
    if job.workload.traits.sparse:
        raise Unsupported("it has sparse gradients")
    if any(parameter.is_complex() for parameter in job.parts.parameters):
        raise Unsupported("it has complex weights")
    if isinstance(job.update, InPlaceRule) and job.update.missed:
        raise Unsupported("a batch does not use every weight")


def replayable_step(job: Job, rows: Tensor, sizes: Sizes, factors: tuple[Tensor, ...]) -> Step:
    """The step of `job` that reads its row numbers and factors from these tensors."""
    update = recordable_rule(job)
    batches = PickedRows(job.batches, rows, sizes) if isinstance(job.batches, ResidentBatches) else job.batches
    return make_step(replace(job.parts, batches=batches, update=recorded_update(update, factors)))


def recorded_update(rule: InPlaceRule, factors: Sequence[Factor]) -> Callable[[Tensors], None]:
    """The update of a recorded step. It raises Unsupported if a parameter has no gradient: it may have one in other steps."""

    def update(gradients: Tensors) -> None:
        if any(gradient is None for gradient in gradients):
            raise Unsupported("a batch does not use every weight")
        rule.apply(gradients, factors)

    return update


@contextmanager
def untouched(job: Job) -> Iterator[None]:
    """Restore the job afterwards: weights, buffers, optimizer state, average, epoch and generators."""
    state = [*job.model.parameters(), *job.model.buffers()]
    state += [tensor for slot in job.update.state_dict().values() for tensor in slot.values()]
    state += job.average.tensors.values() if job.average else ()
    state += job.loss_module.changing() if job.loss_module else ()
    state += job.parts.loss_average.tensors.values() if job.parts.loss_average else ()
    tensors = [tensor.detach() for tensor in state]
    copies = [tensor.clone() for tensor in tensors]
    epoch, position = {name: tensor.clone() for name, tensor in job.batches.state_dict().items()}, job.batches.position
    rate, steps = job.update.learning_rate, job.update.steps if isinstance(job.update, InPlaceRule) else 0
    missed = dict(job.update.missed) if isinstance(job.update, InPlaceRule) else {}
    with job.workload.untouched(job.device):
        try:
            yield
        finally:
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
            job.batches.load_state_dict(epoch, position)
            job.update.learning_rate = rate
            if isinstance(job.update, InPlaceRule):
                job.update.steps, job.update.missed = steps, missed


def sizes_of(batches: Batches, accumulate: int) -> Sizes:
    """Batch sizes of the next step."""
    return batches.sizes(accumulate) if isinstance(batches, ResidentBatches) else ()


def factors_of(job: Job, step: int, count: int, rate: Rate) -> Tensor:
    """Factors of the update rule in the next `count` steps, float32 (count, factors), on the host.

    Sets the rule's learning rate to that of the last of these steps.
    """
    update = recordable_rule(job)
    job.update.learning_rate = rate(step + count - 1)
    if job.schedule.constant and not update.factors_change:
        return torch.tensor([update.factors(update.learning_rate, update.steps)]).expand(count, -1).contiguous()
    values = [update.factors(rate(step + place), update.steps + place) for place in range(count)]
    return torch.tensor(values, dtype=torch.float32)


def rows_per_step(job: Job) -> int:
    """Rows of a step, except the last one of an epoch."""
    batches = job.batches
    return batches.size * job.parts.accumulate if isinstance(batches, ResidentBatches) else job.plan.rows


def possible_sizes(job: Job) -> Iterator[Sizes]:
    """Batch sizes that steps of the job have: full batches first, then the rest at the end of an epoch."""
    batches = job.batches
    if not isinstance(batches, ResidentBatches):
        yield ()
        return
    size, rows, full_step = batches.size, batches.rows_per_epoch, rows_per_step(job)
    if rows >= full_step:
        yield (size,) * job.parts.accumulate
    if rest := rows % full_step:
        yield tuple(min(size, rest - first) for first in range(0, rest, size))

"""The changing inputs of a recorded step as tensors: which rows it takes, and what its update multiplies with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from epochtop.engine.execution.executor import Rate, Unsupported
from epochtop.engine.job.job import Job
from epochtop.engine.step.batches import Batch, Batches, FullBatch, ResidentBatches
from epochtop.engine.step.step import Step, make_step
from epochtop.engine.step.update_rules import InPlaceRule

Sizes = tuple[int, ...]
"""Rows of each batch of a step; empty where every step takes all rows."""


class PickedRows(Batches):
    """Batches of a step whose row numbers stand in one tensor."""

    def __init__(self, batches: ResidentBatches, rows: Tensor, sizes: Sizes) -> None:
        self._x, self._y, self._rows, self._sizes = batches.x, batches.y, rows, sizes
        self.per_epoch, self.position = batches.per_epoch, 0

    def __call__(self) -> tuple[Tensor, Tensor]:
        return self._x.index_select(0, self._rows), self._y.index_select(0, self._rows)

    def take(self, count: int) -> list[Batch]:
        picked = []
        for rows in self._rows.split(self._sizes):
            x, y = self._x.index_select(0, rows), self._y.index_select(0, rows)
            picked.append(Batch(x, y, len(rows) / len(self._rows)))
        return picked

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, memory: dict[str, Tensor], position: int) -> None:
        raise NotImplementedError


def lean(job: Job) -> InPlaceRule:
    """The update of a job whose steps can be recorded. Raises Unfit for any other job."""
    if job.spec.processes > 1:
        raise Unsupported("several processes exchange gradients in its steps")
    if job.spec.dropout and job.spec.checkpoint_activations:
        raise Unsupported("what dropout draws is drawn again for the backward pass")
    if not isinstance(job.batches, FullBatch | ResidentBatches):
        raise Unsupported("its rows are streamed or loaded")
    if not isinstance(job.update, InPlaceRule):
        what = (
            "fp16 scales its loss" if job.spec.precision == "fp16" else f"{job.spec.optimizer} is torch's own optimizer"
        )
        raise Unsupported(what)
    return job.update


def live_step(job: Job, rows: Tensor, sizes: Sizes, factors: tuple[Tensor, ...]) -> Step:
    """The step of `job` for the rows and factors that these tensors hold when it is taken."""
    update = lean(job)
    batches = PickedRows(job.batches, rows, sizes) if isinstance(job.batches, ResidentBatches) else job.batches
    parts = replace(job.parts, batches=batches, update=lambda gradients: update.apply(gradients, factors))
    return make_step(parts)


@contextmanager
def untouched(job: Job) -> Iterator[None]:
    """Leaves a job as it was: weights, buffers, the update's memory, the average, the epoch, the generators."""
    held = [*job.model.parameters(), *job.model.buffers()]
    held += [tensor for slot in job.update.state_dict().values() for tensor in slot.values()]
    held += job.average.tensors.values() if job.average else ()
    tensors = [tensor.detach() for tensor in held]
    copies = [tensor.clone() for tensor in tensors]
    epoch, position = {name: tensor.clone() for name, tensor in job.batches.state_dict().items()}, job.batches.position
    rate, steps = job.update.learning_rate, job.update.steps if isinstance(job.update, InPlaceRule) else 0
    with torch.random.fork_rng(devices=[job.device.index or 0] if job.device.type == "cuda" else []):
        try:
            yield
        finally:
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
            job.batches.load_state_dict(epoch, position)
            job.update.learning_rate = rate
            if isinstance(job.update, InPlaceRule):
                job.update.steps = steps


def sizes_of(batches: Batches, accumulate: int) -> Sizes:
    """What the next step takes."""
    return batches.sizes(accumulate) if isinstance(batches, ResidentBatches) else ()


def factors_of(job: Job, step: int, count: int, rate: Rate) -> Tensor:
    """What the update multiplies with in each of `count` steps (count, factors), float32 on the host.

    The update's learning rate is that of the last of them afterwards.
    """
    update = lean(job)
    job.update.learning_rate = rate(step + count - 1)
    if job.schedule.constant and not update.aging:
        return torch.tensor([update.factors(update.learning_rate, update.steps)]).expand(count, -1).contiguous()
    values = [update.factors(rate(step + place), update.steps + place) for place in range(count)]
    return torch.tensor(values, dtype=torch.float32)


def rows_a_step(job: Job) -> int:
    """Rows that a step takes, except the last one of an epoch."""
    batches = job.batches
    return batches.size * job.parts.accumulate if isinstance(batches, ResidentBatches) else job.plan.rows


def kinds(job: Job) -> Iterator[Sizes]:
    """What steps can take: full batches first, then what is left at the end of an epoch."""
    batches = job.batches
    if not isinstance(batches, ResidentBatches):
        yield ()
        return
    each, rows, whole = batches.size, len(batches.x), rows_a_step(job)
    if rows >= whole:
        yield (each,) * job.parts.accumulate
    if left := rows % whole:
        yield tuple(min(each, left - cut) for cut in range(0, left, each))

"""`graph` on CUDA: complete steps captured in a CUDA graph and replayed, so that the host does not launch every kernel.

Everything that changes from step to step is in tensors that are filled before a replay: row numbers, and the factors of
the update rule or the learning rate of torch's optimizer. So a new learning rate needs no new capture. Only one measurement
waits for the device, before training begins. The capture itself is in :mod:`epochtop.engine.execution.capture`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from epochtop.engine.execution.capture import Capture, CaptureError, GraphCapture
from epochtop.engine.execution.executor import Executor, Rate, Unsupported
from epochtop.engine.execution.inputs import (
    PickedRows,
    Sizes,
    check_recordable,
    factors_of,
    possible_sizes,
    recorded_update,
    rows_per_step,
    sizes_of,
    untouched,
)
from epochtop.engine.job.job import Job
from epochtop.engine.step.batches import FullBatch, ResidentBatches
from epochtop.engine.step.step import Step, make_step
from epochtop.engine.step.torch_rules import TorchRule
from epochtop.engine.step.update_rules import InPlaceRule
from epochtop.engine.step.window import LossWindow

REPLAY_S = 0.005
"""How long one replay may take on the device."""
WARM_CLOCK_S = 0.05
"""How long replays are timed in all; the second half of it counts."""
MOST_REPLAYS = 2**14
"""Most replays of the last group."""
MAX_STEPS = 256
"""Most steps of a graph: every step is some twenty nodes, and capturing many nodes takes long."""


@dataclass(frozen=True)
class _Captured:
    """A graph of some steps, its inputs and its outputs."""

    replay: Callable[[], None]
    rows: Tensor
    factors: Tensor
    losses: Tensor
    steps: list[Step]
    """The captured steps, which own tensors that replays read."""


class CudaGraph(Executor):
    """Captures graphs of many steps and of one step, for every number of rows of a step."""

    def __init__(
        self,
        job: Job,
        capture: Capture | None = None,
        steps: int | None = None,
        make: Callable[..., Step] | None = None,
        name: str = "graph",
    ) -> None:
        """Captures graphs of one step and of `steps` steps; by default as many as fit into `REPLAY_S`. Raises Unsupported.

        `make` makes the step to capture, from the arguments of :func:`tensor_step`.
        """
        _check(job)
        self.name = name
        self._job, self._make = job, make or tensor_step
        self._capture = capture or GraphCapture(job.device)
        self._captured: dict[tuple[Sizes, int], _Captured] = {}
        self._rate = torch.zeros((), device=job.device)
        if isinstance(job.update, TorchRule):
            job.update.keep_rate_in(self._rate)
            with untouched(job):  # the state must exist, so that trial steps can be undone
                job.update.create_state()
        for sizes in possible_sizes(job):
            self._get(sizes, 1)
        one_step = self._get(next(possible_sizes(job)), 1)
        if steps is None:
            with untouched(job):
                step_s = _seconds(one_step.replay)
            steps = max(1, min(int(REPLAY_S / step_s), MAX_STEPS, steps_per_epoch(job)))
        self._steps = steps
        self._get(next(possible_sizes(job)), steps)

    def run(self, window: LossWindow, step: int, max_steps: int, rate: Rate) -> int:
        job, batches = self._job, self._job.batches
        sizes = sizes_of(batches, job.parts.accumulate)
        rows, available = None, max_steps
        if isinstance(batches, ResidentBatches):
            rows = batches.upcoming_rows(sizes, min(max_steps, self._steps))
            available = len(rows) // sum(sizes)
        count = self._steps if available >= self._steps and (sizes, self._steps) in self._captured else 1
        captured = self._get(sizes, count)
        if rows is not None and isinstance(batches, ResidentBatches):
            batches.position += count * sum(sizes)
            captured.rows.copy_(rows[: count * sum(sizes)])
        self._fill(captured, step, count, rate)
        captured.replay()
        window.extend(captured.losses.clone())
        return count

    def _fill(self, captured: _Captured, step: int, count: int, rate: Rate) -> None:
        update = self._job.update
        if isinstance(update, InPlaceRule):
            values = factors_of(self._job, step, count, rate)
            update.steps += count
        elif self._job.schedule.constant:
            update.learning_rate = rate(step)
            return
        else:
            values = torch.tensor([[rate(step + place)] for place in range(count)])
            update.learning_rate = rate(step + count - 1)
        captured.factors.copy_(_pinned(values, self._job.device), non_blocking=True)

    def _get(self, sizes: Sizes, steps: int) -> _Captured:
        if (sizes, steps) not in self._captured:
            with untouched(self._job):
                self._captured[sizes, steps] = self._new(sizes, steps)
        return self._captured[sizes, steps]

    def _new(self, sizes: Sizes, steps: int) -> _Captured:
        job, device = self._job, self._job.device
        rows = torch.zeros(steps * sum(sizes), dtype=torch.int64, device=device)
        width = len(job.update.factors(1.0, 0)) if isinstance(job.update, InPlaceRule) else 1
        factors = torch.ones(steps, width, device=device)
        losses = torch.zeros(steps, device=device)
        parts = rows.split(sum(sizes)) if sizes else (rows,) * steps
        captured = [self._make(job, parts[place], sizes, factors[place].unbind(), self._rate) for place in range(steps)]

        def enqueue() -> None:
            torch.stack([step() for step in captured], out=losses)

        try:
            return _Captured(self._capture(enqueue), rows, factors, losses, captured)
        except (torch.OutOfMemoryError, CaptureError):
            raise
        except RuntimeError as error:
            raise Unsupported(f"CUDA cannot capture it: {str(error).splitlines()[0][:200]}") from error


def captured(job: Job, **more: Any) -> CudaGraph:
    """The executor of a job. Raises Unsupported, also if trial steps run out of memory."""
    try:
        return CudaGraph(job, **more)
    except torch.OutOfMemoryError:
        raise Unsupported("trial steps need copies of the weights, which do not fit into the device's memory") from None


def tensor_step(job: Job, rows: Tensor, sizes: Sizes, factors: Sequence[Tensor], rate: Tensor) -> Step:
    """The step that reads row numbers and factors from these tensors; `rate` is for torch's optimizers."""
    update = job.update
    batches = PickedRows(job.batches, rows, sizes) if isinstance(job.batches, ResidentBatches) else job.batches
    parts = replace(job.parts, batches=batches)
    if isinstance(update, InPlaceRule):
        rule = update
        return make_step(replace(parts, update=recorded_update(rule, factors)))
    step = make_step(parts)
    if job.schedule.constant:
        return step

    def scheduled() -> Tensor:
        rate.copy_(factors[0])
        return step()

    return scheduled


def steps_per_epoch(job: Job) -> int:
    """Steps of an epoch with full batches; any number if every step takes all rows."""
    batches = job.batches
    if not isinstance(batches, ResidentBatches):
        return MAX_STEPS
    return max(1, batches.rows_per_epoch // rows_per_step(job))


def _check(job: Job) -> None:
    if job.spec.processes > 1:
        raise Unsupported("its steps exchange gradients between processes")
    check_recordable(job)
    if not isinstance(job.batches, FullBatch | ResidentBatches):
        raise Unsupported("its rows are streamed or come from a DataLoader")
    if isinstance(job.update, TorchRule):
        if not job.update.can_be_captured:
            raise Unsupported(f"{job.spec.optimizer} of torch reads its step count on the host")
    elif not isinstance(job.update, InPlaceRule):
        raise Unsupported(f"{job.spec.optimizer} would repeat the learning rate of the captured step")


def _seconds(replay: Callable[[], None]) -> float:
    """Seconds of one replay on the device. The only wait of this module, before training begins.

    An idle GPU runs at a fraction of its clock rate, so replays are timed in growing groups, and the last group counts.
    """
    replay()
    times, group_s, total_s = 1, 0.0, 0.0
    while total_s < WARM_CLOCK_S and times < MOST_REPLAYS:
        times *= 2
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        started.record()
        for _ in range(times):
            replay()
        ended.record()
        ended.synchronize()
        group_s = float(started.elapsed_time(ended)) / 1e3
        total_s += group_s
    return max(group_s / times, 1e-7)


def _pinned(values: Tensor, device: torch.device) -> Tensor:
    """Values in memory that can be copied asynchronously; the allocator keeps it until the copy is complete."""
    return values.pin_memory() if device.type == "cuda" else values

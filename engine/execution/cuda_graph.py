"""`graph` on CUDA: whole steps captured in a CUDA graph and replayed, without a launch of each kernel by the host.

Everything that changes from step to step lies in tensors that are filled before a replay: the numbers of the rows, the
factors of the update or torch's own learning rate. So a new learning rate needs no new capture. Nothing here waits
for the device but the pace that is taken once, before the first replay that counts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from epochtop.engine.execution.executor import Executor, Rate, Unsupported
from epochtop.engine.execution.inputs import PickedRows, Sizes, factors_of, kinds, rows_a_step, sizes_of, untouched
from epochtop.engine.job.job import Job
from epochtop.engine.step.batches import FullBatch, ResidentBatches
from epochtop.engine.step.step import Step, make_step
from epochtop.engine.step.torch_rules import TorchRule
from epochtop.engine.step.update_rules import InPlaceRule
from epochtop.engine.step.window import LossWindow

WARM_UP = 3
"""Steps that are taken before a capture, so that libraries and autograd have made what they keep."""
REPLAY_S = 0.005
"""How long one replay may last on the device."""
MOST_STEPS = 256
"""Steps of a graph: every one is some twenty nodes, and a graph of many takes long to make."""

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Makes of a function that enqueues work one that enqueues the same work again."""


def capture(enqueue: Callable[[], None]) -> Callable[[], None]:
    """A CUDA graph of what `enqueue` does; random numbers are new ones in every replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            enqueue()
        with _waiting_forbidden():  # a step that waits would break a capture for good
            enqueue()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        enqueue()
    replay: Callable[[], None] = graph.replay
    return replay


@contextmanager
def _waiting_forbidden() -> Iterator[None]:
    """What makes the host wait for the device raises RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is called a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@dataclass(frozen=True)
class _Captured:
    """A graph of some steps, what it reads and what it leaves."""

    replay: Callable[[], None]
    rows: Tensor
    factors: Tensor
    losses: Tensor
    steps: list[Step]
    """What was captured: it holds tensors that replays read."""


class CudaGraph(Executor):
    """Captures graphs of many steps and of one, for each number of rows that a step can take."""

    def __init__(
        self,
        job: Job,
        capture: Capture = capture,
        steps: int | None = None,
        make: Callable[..., Step] | None = None,
        name: str = "graph",
    ) -> None:
        """Captures one step. `steps` a graph are found by timing it, unless they are given. Raises Unfit.

        `make` makes the step that is captured, from the same arguments as :func:`tensor_step`.
        """
        _check(job)
        self.name = name
        self._job, self._capture, self._make = job, capture, make or tensor_step
        self._captured: dict[tuple[Sizes, int], _Captured] = {}
        self._rate = torch.zeros((), device=job.device)
        if isinstance(job.update, TorchRule):
            job.update.take_rate_from(self._rate)
            with untouched(job):  # else what the trial steps remember could not be undone
                job.update.begin()
        for sizes in kinds(job):
            self._get(sizes, 1)
        one = self._get(next(kinds(job)), 1)
        self._step_s = 0.0
        if steps is None:
            with untouched(job):
                self._step_s = _seconds(one.replay)
            steps = max(1, min(int(REPLAY_S / self._step_s), MOST_STEPS, steps_an_epoch(job)))
        self._steps = steps
        self._get(next(kinds(job)), steps)

    def take(self, window: LossWindow, step: int, most: int, rate: Rate) -> int:
        job, batches = self._job, self._job.batches
        sizes = sizes_of(batches, job.parts.accumulate)
        rows, fitting = None, most
        if isinstance(batches, ResidentBatches):
            rows = batches.ahead(sizes, min(most, self._steps))
            fitting = len(rows) // sum(sizes)
        count = self._steps if fitting >= self._steps and (sizes, self._steps) in self._captured else 1
        captured = self._get(sizes, count)
        if rows is not None and isinstance(batches, ResidentBatches):
            batches.position += count * sum(sizes)
            captured.rows.copy_(rows[: count * sum(sizes)])
        self._fill(captured, step, count, rate)
        captured.replay()
        window.extend(captured.losses.clone())
        return count

    def fitting(self, seconds: float) -> float:
        return max(self._steps, int(seconds / self._step_s)) if self._step_s else super().fitting(seconds)

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
        each = [self._make(job, parts[place], sizes, factors[place].unbind(), self._rate) for place in range(steps)]

        def enqueue() -> None:
            torch.stack([step() for step in each], out=losses)

        try:
            return _Captured(self._capture(enqueue), rows, factors, losses, each)
        except RuntimeError as error:
            raise Unsupported(f"CUDA does not capture it: {str(error).splitlines()[0][:200]}") from error


def captured(job: Job, **more: Any) -> CudaGraph:
    """The executor of a job, whose trial steps may need more memory than there is. Raises Unfit."""
    try:
        return CudaGraph(job, **more)
    except torch.OutOfMemoryError:
        raise Unsupported("the copies that trial steps need do not fit into the device's memory") from None


def tensor_step(job: Job, rows: Tensor, sizes: Sizes, factors: Sequence[Tensor], rate: Tensor) -> Step:
    """The step for the rows and factors that these tensors hold when it is taken; `rate` is torch's own optimizers'."""
    update = job.update
    batches = PickedRows(job.batches, rows, sizes) if isinstance(job.batches, ResidentBatches) else job.batches
    parts = replace(job.parts, batches=batches)
    if isinstance(update, InPlaceRule):
        lean = update
        return make_step(replace(parts, update=lambda gradients: lean.apply(gradients, factors)))
    step = make_step(parts)
    if job.schedule.constant:
        return step

    def scheduled() -> Tensor:
        rate.copy_(factors[0])
        return step()

    return scheduled


def steps_an_epoch(job: Job) -> int:
    """Steps of an epoch that take full batches; any number where every step takes all rows."""
    batches = job.batches
    if not isinstance(batches, ResidentBatches):
        return MOST_STEPS
    return max(1, len(batches.x) // rows_a_step(job))


def _check(job: Job) -> None:
    if job.spec.processes > 1:
        raise Unsupported("several processes exchange gradients in its steps")
    if not isinstance(job.batches, FullBatch | ResidentBatches):
        raise Unsupported("its rows are streamed or loaded")
    if isinstance(job.update, TorchRule):
        if not job.update.can_be_captured:
            raise Unsupported(f"torch's {job.spec.optimizer} reads its step count on the host")
    elif not isinstance(job.update, InPlaceRule):
        raise Unsupported(f"the step of {job.spec.optimizer} is fixed when it is captured")


def _seconds(replay: Callable[[], None], times: int = 20) -> float:
    """Of one replay on the device. The one wait of this module, before training begins."""
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    replay()
    begun.record()
    for _ in range(times):
        replay()
    ended.record()
    ended.synchronize()
    return max(float(begun.elapsed_time(ended)) / 1e3 / times, 1e-7)


def _pinned(values: Tensor, device: torch.device) -> Tensor:
    """Values that can travel while the host goes on; the allocator keeps them until they have arrived."""
    return values.pin_memory() if device.type == "cuda" else values

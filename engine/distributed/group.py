"""Several processes that train one model: how they exchange orders, gradients and losses.

Rank 0 leads. Only rank 0 looks at the clock, reads commands, evaluates and writes; the other ranks take as many steps as
it orders and wait for the next order. So all ranks agree on every boundary without an exchange per step. Orders travel
over gloo, on the host; gradients and losses over NCCL between GPUs. DistributedDataParallel averages the gradients,
and the losses of a window are averaged once, before they leave the device. If the weights are sharded
(:mod:`epochtop.engine.distributed.fsdp`), no rank can evaluate or save alone: the others are ordered to take part.
"""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from epochtop.engine.device import generators
from epochtop.engine.distributed import fsdp
from epochtop.engine.distributed.orders import (
    ORDER_BYTES,
    AnyOrder,
    AverageLosses,
    End,
    Evaluate,
    Order,
    Setup,
    ShareState,
    ShareWeights,
    TakeSteps,
)
from epochtop.engine.distributed.presence import Progress
from epochtop.engine.job import evaluate
from epochtop.engine.job import state as job_state
from epochtop.engine.job.job import Job
from epochtop.engine.step.window import LossWindow
from epochtop.engine.tasks.loss_module import LossModule

FOREVER = datetime.timedelta(days=365)
"""A pause may last for days. Failed ranks are noticed by watching their processes, not by a time-out."""

_decode = msgspec.json.Decoder(AnyOrder).decode


# --- the group -----------------------------------------------------------------------------------------------


class Group:
    """The ranks of one run, seen from one of them. A process can have only one."""

    def __init__(
        self, store: Any, rank: int, world_size: int, device: torch.device, progress: Progress | None = None
    ) -> None:
        """Waits until all `world_size` ranks have joined. Counts orders in `progress`."""
        self.rank, self.world_size, self._device = rank, world_size, device
        self._progress = progress or Progress()
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=FOREVER)

    def close(self) -> None:
        """Leave the group. No exchange may be in progress."""
        dist.destroy_process_group()

    # --- on the host -------------------------------------------------------------------------------------

    def send(self, order: Order) -> None:
        """Send an order to the other ranks; for rank 0."""
        self._progress.orders += 1
        text = msgspec.json.encode(order)
        dist.broadcast(torch.tensor(bytearray(text.ljust(ORDER_BYTES)), dtype=torch.uint8), 0)

    def receive(self) -> AnyOrder:
        """Wait for an order; for ranks other than 0."""
        buffer = torch.empty(ORDER_BYTES, dtype=torch.uint8)
        with self._progress.waiting("order"):
            dist.broadcast(buffer, 0)
        self._progress.orders += 1
        order: AnyOrder = _decode(bytes(buffer.tolist()))
        return order

    def hand_out(self, setup: Setup | None, tensors: Mapping[str, Tensor]) -> tuple[Setup, dict[str, Tensor]]:
        """The setup and checkpoint tensors of rank 0 on all ranks. All must call it; others pass None and no tensors."""
        box: list[Any] = [None, None]
        if setup is not None:
            box = [msgspec.json.encode(setup), dict(tensors)]
        dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return msgspec.json.decode(box[0], type=Setup), box[1]

    def generators(self) -> dict[str, Tensor]:
        """States of the generators of all ranks but 0, on rank 0. All must call it."""
        others: dict[str, Tensor] = {}
        for name, state in generators.states(self._device).items():
            states = [torch.empty_like(state) for _ in range(self.world_size)] if self.rank == 0 else None
            dist.gather(state, states, 0)
            others |= {f"{name}.{rank}": other for rank, other in enumerate(states or ()) if rank}
        return others

    # --- on the device -----------------------------------------------------------------------------------

    def average(self, losses: Tensor) -> None:
        """Replace `losses` (steps,) by their mean over the ranks; enqueued. All must call it."""
        dist.all_reduce(losses)
        losses /= self.world_size

    def join(self, job: Job, step: int) -> Job:
        """The job that takes steps from `step` on together with the other ranks, with rank 0's weights and buffers."""
        if job.spec.shard:
            return fsdp.share(job, step)
        task = job.workload.task is not None
        exchanging = [self._exchanging(job.model, task)]
        criterion: Any = job.parts.criterion
        if job.loss_module is not None and job.loss_module.trained:
            exchanging.append(self._exchanging(_Loss(criterion, job.loss_module), task))
            criterion = exchanging[1]

        @contextmanager
        def no_sync() -> Iterator[None]:
            with ExitStack() as stack:
                for module in exchanging:
                    stack.enter_context(module.no_sync())
                yield

        return job.with_parts(model=exchanging[0], criterion=criterion, backward=True, no_sync=no_sync)

    def _exchanging(self, module: nn.Module, optional: bool) -> DistributedDataParallel:
        """The module, whose gradients are exchanged; `optional` if a batch may not use all of its parameters."""
        ids = [self._device] if self._device.type == "cuda" else None
        if optional:  # which batches use which parameters is not known beforehand
            warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
        return DistributedDataParallel(
            module, device_ids=ids, gradient_as_bucket_view=True, find_unused_parameters=optional
        )


class _Loss(nn.Module):
    """The loss of a task with its module, as one module whose gradients can be exchanged."""

    def __init__(self, loss: Callable[..., Tensor], loss_module: LossModule) -> None:
        super().__init__()
        self.module, self._loss = loss_module.module, loss
        shared = [f"module.{name}" for name in loss_module.shared]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, shared)

    def forward(self, output: Any, y: Any) -> Tensor:
        return self._loss(output, y)


# --- ranks other than 0 -----------------------------------------------------------------------------------


def follow_orders(job: Job, group: Group, step: int) -> None:
    """Execute the orders of rank 0, from `step` on, until the run ends."""
    window = LossWindow(job.device, step, average=group.average)
    copies: dict[int, dict[str, Tensor]] = {}
    """Evaluated weights by the step of their evaluation."""
    while True:
        match group.receive():
            case TakeSteps() as order:
                job.schedule.load_state_dict(order.schedule)
                run_steps(job, window, step, order.count, order.learning_rate)
                step += order.count
            case AverageLosses():
                window.turn(0.0)
            case ShareState():
                if job.shards is not None:
                    job_state.capture(job)
                group.generators()
            case Evaluate() as order:
                copies = {at: copy for at, copy in copies.items() if at == order.best or at > order.arrived}
                if not order.test:
                    copies[order.step] = job_state.weights(job)
                evaluate.enqueue(job, order.test)
            case ShareWeights() as order:
                assert job.shards is not None
                job.shards.assemble(job_state.weights(job) if order.step is None else copies[order.step])
            case End():
                return


def run_steps(job: Job, window: LossWindow, first: int, count: int, learning_rate: float) -> None:
    """Take the steps `first` to `first + count - 1`."""
    for step in range(first, first + count):
        job.update.learning_rate = learning_rate * job.schedule.factor(step)
        window.record(job.step())

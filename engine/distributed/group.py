"""Several processes that train one model: what they tell each other, and how their gradients meet.

Rank 0 leads. It alone looks at the clock, reads commands, evaluates and writes; the others take as many steps as
it orders and wait for the next order. So all agree on every boundary without an exchange a step. Orders travel
over gloo, on the host; gradients and losses over NCCL between GPUs. DistributedDataParallel averages the
gradients, and the losses of a window are averaged once, before they leave the device. Where the weights are sharded
(:mod:`epochtop.engine.distributed.fsdp`) no rank can evaluate or save alone: the others are ordered to take part.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor

from epochtop.engine.distributed import fsdp
from epochtop.engine.job import state as snapshot
from epochtop.engine.job.job import Job
from epochtop.engine.job.state import Values
from epochtop.engine.protocol.events import UNREADABLE, Failed
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.step import make_step
from epochtop.engine.step.window import LossWindow
from epochtop.engine.training import evaluations

ORDER_BYTES = 512
"""Room for an order: each travels as one broadcast of a fixed size."""
FOREVER = datetime.timedelta(days=365)
"""A pause may last. That a rank has failed is seen by watching it, not by a time-out."""


# --- what travels --------------------------------------------------------------------------------------------


class Order(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """What rank 0 asks of the others."""


class TakeSteps(Order, frozen=True, kw_only=True):
    """Take `count` steps with this rate before the schedule, and what the schedule remembers."""

    count: int
    learning_rate: float
    schedule: Values


class AverageLosses(Order, frozen=True, kw_only=True):
    """Average the losses recorded since the last time over the ranks."""


class ShareState(Order, frozen=True, kw_only=True):
    """Send what a checkpoint needs of every rank."""


class Evaluate(Order, frozen=True, kw_only=True):
    """Evaluate sharded weights with rank 0, as they are before `step`; keep a copy of them, unless for the final `test`."""

    step: int
    test: bool
    best: int
    """Copies of evaluations up to `judged` are not wanted any more, except that of this step."""
    judged: int


class ShareWeights(Order, frozen=True, kw_only=True):
    """Send the sharded weights that were evaluated before `step`, or those there are now."""

    step: int | None


class End(Order, frozen=True, kw_only=True):
    """The run is over."""


AnyOrder = TakeSteps | AverageLosses | ShareState | Evaluate | ShareWeights | End
_decode = msgspec.json.Decoder(AnyOrder).decode


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank must know to build the same job as rank 0."""

    spec: RunSpec
    step: int
    values: Values | None
    """Of the checkpoint that the run goes on from; None at the beginning."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a rank failed, in its own words."""

    rank: int
    message: str
    advice: str = ""
    traceback: str = ""
    lost: bool = False
    """Whether it failed only because another one was gone."""

    def event(self, step: int) -> Failed:
        """The end of a run in which `step` steps were taken."""
        return Failed(time=time.time(), step=step, message=self.message, advice=self.advice, traceback=self.traceback)


class RankError(RuntimeError):
    """Another rank has ended before its time."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.message)
        self.report = report


REPORTS = "reports"


def leave_report(store: Any, report: Report) -> None:
    """Put a report where rank 0 finds it. The first one to come tells the cause: the others follow from it."""
    number = store.add(REPORTS, 1)
    store.set(f"{REPORTS}/{number}", msgspec.json.encode(report))


def reports(store: Any) -> list[Report]:
    """All that were left, the first one first."""
    found: list[Report] = []
    try:
        while store.check([f"{REPORTS}/{len(found) + 1}"]):
            found.append(msgspec.json.decode(store.get(f"{REPORTS}/{len(found) + 1}"), type=Report))
    except (RuntimeError, *UNREADABLE):  # the store is gone with the process that held it
        pass
    return found


BROKEN = re.compile(r"gloo|nccl|connection (was )?(closed|reset|refused|aborted)|broken pipe|tcpstore", re.IGNORECASE)


def is_loss_of_others(error: BaseException) -> bool:
    """Whether an exchange was broken, as it is when another rank ends."""
    return isinstance(error, RuntimeError) and bool(BROKEN.search(str(error)))


# --- the group -----------------------------------------------------------------------------------------------


class Group:
    """The processes of one run, seen from one of them. Only one may exist in a process."""

    def __init__(self, store: Any, rank: int, of: int, device: torch.device) -> None:
        """Waits until all `of` of them are here."""
        self.rank, self.of, self._device = rank, of, device
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=of, timeout=FOREVER)

    def close(self) -> None:
        """Leave; to be called when no exchange is under way."""
        dist.destroy_process_group()

    # --- on the host -------------------------------------------------------------------------------------

    def send(self, order: Order) -> None:
        """Rank 0: tell the others what to do."""
        text = msgspec.json.encode(order)
        dist.broadcast(torch.tensor(bytearray(text.ljust(ORDER_BYTES)), dtype=torch.uint8), 0)

    def receive(self) -> AnyOrder:
        """The others: wait for an order."""
        buffer = torch.empty(ORDER_BYTES, dtype=torch.uint8)
        dist.broadcast(buffer, 0)
        order: AnyOrder = _decode(bytes(buffer.tolist()))
        return order

    def hand_out(self, setup: Setup | None, tensors: Mapping[str, Tensor]) -> tuple[Setup, dict[str, Tensor]]:
        """Rank 0's setup and the tensors of a checkpoint, which the others get with this call."""
        box: list[Any] = [None, None]
        if setup is not None:
            box = [msgspec.json.encode(setup), dict(tensors)]
        dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return msgspec.json.decode(box[0], type=Setup), box[1]

    def generators(self) -> dict[str, Tensor]:
        """What dropout draws from on every rank but the first, whose own is in every checkpoint. All must call it."""
        found: dict[str, Tensor] = {}
        for name, state in snapshot.generators(self._device).items():
            states = [torch.empty_like(state) for _ in range(self.of)] if self.rank == 0 else None
            dist.gather(state, states, 0)
            found |= {f"{name}.{rank}": other for rank, other in enumerate(states or ()) if rank}
        return found

    # --- on the device -----------------------------------------------------------------------------------

    def average(self, losses: Tensor) -> None:
        """The mean over the ranks in place of `losses` (steps,); enqueued. All must call it."""
        dist.all_reduce(losses)
        losses /= self.of

    def join(self, job: Job, step: int) -> None:
        """Let `job` take its steps from `step` on together with the others. Weights and buffers become those of rank 0."""
        if job.spec.shard:
            fsdp.share(job, step)
            return
        ids = [self._device] if self._device.type == "cuda" else None
        together = torch.nn.parallel.DistributedDataParallel(job.model, device_ids=ids, gradient_as_bucket_view=True)
        job.parts = replace(job.parts, model=together, backward=True, silence=together.no_sync)
        job.step = make_step(job.parts)


# --- the ranks that follow -----------------------------------------------------------------------------------


def follow(job: Job, group: Group, step: int) -> None:
    """Do what rank 0 orders, from `step` on, until it says that the run is over."""
    window = LossWindow(job.device, step, average=group.average)
    kept: dict[int, dict[str, Tensor]] = {}
    while True:
        match group.receive():
            case TakeSteps() as order:
                job.schedule.recall(order.schedule)
                take(job, window, step, order.count, order.learning_rate)
                step += order.count
            case AverageLosses():
                window.turn(0.0)
            case ShareState():
                if job.shards is not None:
                    snapshot.take(job)
                group.generators()
            case Evaluate() as order:
                kept = {at: copy for at, copy in kept.items() if at == order.best or at > order.judged}
                if not order.test:
                    kept[order.step] = snapshot.weights(job)
                evaluations.enqueue(job, order.test)
            case ShareWeights() as order:
                assert job.shards is not None
                job.shards.assemble(snapshot.weights(job) if order.step is None else kept[order.step])
            case End():
                return


def take(job: Job, window: LossWindow, first: int, count: int, learning_rate: float) -> None:
    """Take the steps `first` to `first + count - 1`."""
    for step in range(first, first + count):
        job.update.learning_rate = learning_rate * job.schedule.factor(step)
        window.record(job.step())

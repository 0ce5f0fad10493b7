"""Weights, gradients and optimizer state spread over the processes of a run (FSDP): each holds its rows of every tensor.

:func:`torch.distributed.fsdp.fully_shard` gathers a part's weights before it is at work and spreads its gradients
afterwards. Between steps there are shards only, and what is done with them here (update, average, copies) sees plain
tensors: the arithmetic of the unsharded run, on fewer rows. A whole weight exists at three places: in a part at work,
one at a time on its way into a checkpoint, and on the host of rank 0. Nothing here may read a value back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from epochtop.engine.distributed import fsdp_optim
from epochtop.engine.job import state as job_state
from epochtop.engine.models import fsdp_units
from epochtop.engine.step.ema import WeightAverage
from epochtop.engine.step.step import Step

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

    from epochtop.engine.job.job import Job

BUCKET_BYTES = 2**28
"""Buffers travel together in pieces of at most this size."""


class Shards:
    """The weights of one model, of which this process holds its rows. Every method is to be called by all ranks."""

    def __init__(self, model: nn.Module, whole: Mapping[str, torch.Size]) -> None:
        """`model` is sharded already; `whole` has the shapes of its weights and buffers by name, before it was."""
        self.rank, self.of = dist.get_rank(), dist.get_world_size()
        self.model = cast("FSDPModule", model)
        self.own: dict[str, Tensor] = {}
        """Rows of weights that lie here, and whole buffers: the memory that the model trains."""
        self._whole: dict[str, torch.Size] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            self.own[name] = local(tensor)
            if is_sharded(tensor):
                self._whole[name] = whole[name]
        self._buffers = list(model.buffers())

    # --- between the device and a checkpoint ---------------------------------------------------------------

    def whole(self, name: str, tensor: Tensor) -> Tensor:
        """A copy of `tensor`, which belongs to the weight `name`: on rank 0 with the rows of all, on the host.

        One weight at a time is put together on the device; enqueued. What is not sharded is copied where it is.
        """
        shape = self._shape(name, tensor)
        if shape is None:
            return tensor.detach().clone()
        part = self._padded(tensor.detach(), shape)
        if self.rank:
            dist.gather(part, None, 0)
            return tensor.new_empty(0)
        full = part.new_empty((len(part) * self.of, *shape[1:]))
        dist.gather(part, list(full.split(len(part))), 0)
        return _to_host(full[: shape[0]])

    def assemble(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The whole of what :func:`epochtop.engine.job.state.weights` copied, as :meth:`whole` gives it."""
        return {key: self.whole(key.removeprefix(job_state.MODEL), tensor) for key, tensor in weights.items()}

    def deal(self, name: str, own: Tensor, whole: Tensor | None) -> None:
        """Fill `own`, which belongs to the weight `name`, with its rows of `whole`, that rank 0 has. Waits."""
        shape = self._shape(name, own)
        if shape is None:
            host = torch.empty(own.shape, dtype=own.dtype) if whole is None else whole.detach().cpu().contiguous()
            dist.broadcast(host, 0)
            own.detach().copy_(host)
            return
        rows = -(-shape[0] // self.of)
        part = torch.empty((rows, *shape[1:]), dtype=own.dtype)
        dist.scatter(part, None if whole is None else self._parts(whole.detach().cpu(), rows), 0)
        own.detach().copy_(part[: len(own)])

    def _parts(self, whole: Tensor, rows: int) -> list[Tensor]:
        missing = rows * self.of - len(whole)
        if missing:
            whole = torch.cat((whole, whole.new_zeros((missing, *whole.shape[1:]))))
        return list(whole.contiguous().split(rows))

    def _shape(self, name: str, tensor: Tensor) -> torch.Size | None:
        """Of the whole; None for what every process has all of, as a count of steps."""
        return self._whole.get(name) if tensor.ndim else None

    def _padded(self, tensor: Tensor, shape: torch.Size) -> Tensor:
        """With as many rows as those of rank 0: exchanges are of one size."""
        rows = -(-shape[0] // self.of)
        if len(tensor) == rows:
            return tensor.contiguous()
        part = tensor.new_zeros((rows, *shape[1:]))
        part[: len(tensor)] = tensor
        return part

    def gathered(self, name: str, tensor: Tensor) -> Tensor:
        """All rows of `tensor`, which belongs to the weight `name`, on every rank's device; enqueued."""
        shape = self._shape(name, tensor)
        assert shape is not None
        part = self._padded(tensor, shape)
        full = part.new_empty((len(part) * self.of, *shape[1:]))
        dist.all_gather(list(full.split(len(part))), part)
        return full[: shape[0]]

    def mine(self, name: str, whole: Tensor) -> Tensor:
        """The rows of this process."""
        rows = -(-len(whole) // self.of)
        return whole[rows * self.rank : rows * (self.rank + 1)]

    # --- in a step -------------------------------------------------------------------------------------------

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Around backward passes after which gradients are not exchanged yet: meanwhile each process adds up whole ones."""
        self.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.model.set_requires_gradient_sync(True)

    def own_gradients(self, replicated: Sequence[int]) -> Callable[[list[Tensor]], list[Tensor]]:
        """From gradients as backward leaves them to this process's rows; those with these numbers are averaged here."""

        def own(gradients: list[Tensor]) -> list[Tensor]:
            mine = [local(gradient) for gradient in gradients]
            for number in replicated:
                dist.all_reduce(mine[number])
                mine[number] /= self.of
            return mine

        return own

    def with_buffers(self, step: Step) -> Step:
        """A step before which all take rank 0's buffers, as DistributedDataParallel has it."""
        buffers = self._buffers
        if not buffers:
            return step
        group = _everyone()

        def shared() -> Tensor:
            dist._broadcast_coalesced(group, buffers, BUCKET_BYTES, 0)  # type: ignore[attr-defined]
            return step()

        return shared

    # --- in an evaluation --------------------------------------------------------------------------------------

    @contextmanager
    def evaluating(self, average: WeightAverage | None) -> Iterator[None]:
        """The moving average, where there is one, takes the place of the weights meanwhile."""
        own = list(self.own.values())
        kept = [tensor.detach().clone() for tensor in own] if average else []
        try:
            if average is not None:
                _copy(own, [average.tensors[name] for name in self.own])
            yield
        finally:
            self.model.reshard()  # else what the model as a whole has gathered would stay for the next step
            if average is not None:
                _copy(own, kept)


def _everyone() -> dist.ProcessGroup:
    group = dist.group.WORLD
    assert group is not None
    return group


def is_sharded(tensor: Tensor) -> bool:
    """Whether a process holds a part of it only."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """What of it lies in this process, sharing its memory."""
    return cast(Any, tensor.detach()).to_local() if is_sharded(tensor) else tensor.detach()


@torch.no_grad()
def _copy(to: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for target, source in zip(to, sources, strict=True):
        target.copy_(source)


def _to_host(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)


# --- from a job that one process could train to one of many -----------------------------------------------------


def share(job: Job, step: int) -> Job:
    """The job of this rank, which trains its rows of the model that `job` has in full on the host.

    Weights, buffers, average and optimizer state become those of rank 0 after `step` steps. All ranks must call it.
    """
    memory = job.update.state_dict() if step else {}
    shards, average = _dealt_weights(job)
    trained = {name: weight for name, weight in job.model.named_parameters() if weight.requires_grad}
    replicated = [number for number, name in enumerate(job.names) if not is_sharded(trained[name])]
    own = [nn.Parameter(shards.own[name]) for name in job.names]
    update = fsdp_optim.make_update_rule(job.spec, shards, job.names, own, replicated)
    dealt = _dealt_memory(shards, job.names, own, memory)
    if dealt or step:
        update.load_state_dict(dealt, step)
    sharded = replace(job, shards=shards, update=update, average=average, notes=(*job.notes, _note(job, shards)))
    sharded = sharded.with_parts(
        update=update,
        parameters=[trained[name] for name in job.names],
        average=average,
        backward=True,
        silence=shards.silence,
        own=shards.own_gradients(replicated),
        total_norm=fsdp_optim.norm_of_all(replicated),
    )
    return replace(sharded, step=shards.with_buffers(sharded.step))


def _dealt_weights(job: Job) -> tuple[Shards, WeightAverage | None]:
    """Each process's rows of rank 0's weights and moving average; only rank 0 keeps whole ones until they are dealt."""
    first, state = dist.get_rank() == 0, job.model.state_dict()
    whole, shapes = dict(state) if first else {}, {name: tensor.shape for name, tensor in state.items()}
    averages = dict(job.average.tensors) if job.average and first else {}
    del state
    shards = Shards(_sharded(job), shapes)
    for name, own in shards.own.items():
        shards.deal(name, own, whole.pop(name, None))
    average = WeightAverage(shards.own, job.spec.ema) if job.average else None
    for name, own in (average.tensors if average else {}).items():
        shards.deal(name, own, averages.pop(name, None))
    return shards, average


def _sharded(job: Job) -> nn.Module:
    """The model with its weights sharded, on the device of the job."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    model, task = job.model, job.workload.task
    whole_ones = {weight for weight in model.parameters() if not weight.ndim}  # a single number cannot be cut
    parts = fsdp_units.units(model, task.batch(2)[0] if task is not None else None)
    for weight in model.parameters():
        weight.data = weight.detach().contiguous()
    for weight in whole_ones:
        weight.data = weight.detach().to(job.device)
    mesh = DeviceMesh.from_group(_everyone(), job.device.type)
    for part in (*parts, model):
        sharded = fully_shard(part, mesh=mesh, ignored_params=whole_ones)
        sharded.unshard()  # torch may move the shards at the first gathering: from here on they stay
        sharded.reshard()
    return model


def _dealt_memory(
    shards: Shards, names: Sequence[str], weights: Sequence[Tensor], memory: Mapping[str, Mapping[int, Tensor]]
) -> dict[str, dict[int, Tensor]]:
    """What the optimizer of rank 0 remembers, each process's rows of it."""
    plan = [[(key, number, kept.ndim, kept.dtype) for key, kepts in memory.items() for number, kept in kepts.items()]]
    dist.broadcast_object_list(plan, 0, device=torch.device("cpu"))
    found: dict[str, dict[int, Tensor]] = {}
    for key, number, ndim, dtype in plan[0]:
        weight = weights[number]
        own = torch.empty(weight.shape if ndim else (), dtype=dtype, device=weight.device)
        shards.deal(names[number], own, memory[key][number] if shards.rank == 0 else None)
        found.setdefault(key, {})[number] = own
    return found


def _note(job: Job, shards: Shards) -> str:
    here = sum(shards.own[name].numel() for name in job.names)
    whole = sum(shards._whole.get(name, shards.own[name].shape).numel() for name in job.names)
    return f"weights are sharded over {shards.of} processes: {here:,} of {whole:,} here, with their optimizer state"

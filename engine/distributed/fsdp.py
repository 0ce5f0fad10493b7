"""Weights, gradients and optimizer state sharded over the ranks of a run (FSDP): every rank has its rows of each tensor.

:func:`torch.distributed.fsdp.fully_shard` gathers a unit's weights before its forward pass and scatters its gradients
afterwards. Between steps there are shards only. Updates, averages and copies see them as plain tensors: the arithmetic
of the unsharded run, on fewer rows. A full weight exists in three places only: in the unit that is computed, one at a time
on its way into a checkpoint, and on the host of rank 0. Nothing here may read a value back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from epochtop.engine.distributed import fsdp_optim
from epochtop.engine.distributed.fsdp_unused import UsedWeights
from epochtop.engine.job import state as job_state
from epochtop.engine.models import fsdp_units
from epochtop.engine.step.ema import WeightAverage
from epochtop.engine.step.gradients import Localize
from epochtop.engine.step.step import Step
from epochtop.engine.tasks import extra_state

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

    from epochtop.engine.job.job import Job

BUCKET_BYTES = 2**28
"""Buffers are broadcast together in pieces of at most this size."""


class Shards:
    """The weights of one model, of which this rank has its rows. All ranks must call every method."""

    def __init__(self, model: nn.Module, shapes: Mapping[str, torch.Size]) -> None:
        """`model` is sharded already; `shapes` are the full shapes of its weights and buffers by name."""
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.model = cast("FSDPModule", model)
        self.local: dict[str, Tensor] = {}
        """This rank's rows of the weights, and full buffers, by name: the memory that the model trains."""
        self._shapes: dict[str, torch.Size] = {}
        for name, tensor in extra_state.weights_of(model, keep_vars=True).items():
            self.local[name] = local(tensor)
            if is_sharded(tensor):
                self._shapes[name] = shapes[name]
        self._buffers = list(model.buffers())

    # --- between the device and a checkpoint ---------------------------------------------------------------

    def full(self, name: str, tensor: Tensor) -> Tensor:
        """A copy of all rows of `tensor`, which belongs to the weight `name`: on the host of rank 0, empty elsewhere.

        Enqueued. The rows are gathered on the device, one weight at a time. A tensor that is not sharded is copied on
        its device.
        """
        shape = self._shape(name, tensor)
        if shape is None:
            return tensor.detach().clone()
        part = self._padded(tensor.detach(), shape)
        if self.rank:
            dist.gather(part, None, 0)
            return tensor.new_empty(0)
        full = part.new_empty((len(part) * self.world_size, *shape[1:]))
        dist.gather(part, list(full.split(len(part))), 0)
        return _to_host(full[: shape[0]])

    def assemble(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All rows of the copies that :func:`epochtop.engine.job.state.weights` made, as :meth:`full` returns them."""
        return {
            key: self.full(key.removeprefix(job_state.MODEL), tensor) if key.startswith(job_state.MODEL) else tensor
            for key, tensor in weights.items()
        }

    def scatter(self, name: str, shard: Tensor, full: Tensor | None) -> None:
        """Fill `shard`, which belongs to the weight `name`, with its rows of `full`, which only rank 0 has. Waits."""
        shape = self._shape(name, shard)
        if shape is None:
            host = torch.empty(shard.shape, dtype=shard.dtype) if full is None else full.detach().cpu().contiguous()
            dist.broadcast(host, 0)
            shard.detach().copy_(host)
            return
        rows = -(-shape[0] // self.world_size)
        part = torch.empty((rows, *shape[1:]), dtype=shard.dtype)
        dist.scatter(part, None if full is None else self._parts(full.detach().cpu(), rows), 0)
        shard.detach().copy_(part[: len(shard)])

    def _parts(self, full: Tensor, rows: int) -> list[Tensor]:
        missing = rows * self.world_size - len(full)
        if missing:
            full = torch.cat((full, full.new_zeros((missing, *full.shape[1:]))))
        return list(full.contiguous().split(rows))

    def _shape(self, name: str, tensor: Tensor) -> torch.Size | None:
        """The full shape; None for a tensor that every rank has in full, such as a step count."""
        return self._shapes.get(name) if tensor.ndim else None

    def _padded(self, tensor: Tensor, shape: torch.Size) -> Tensor:
        """The tensor with as many rows as rank 0 has: all ranks must exchange the same size."""
        rows = -(-shape[0] // self.world_size)
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
        full = part.new_empty((len(part) * self.world_size, *shape[1:]))
        dist.all_gather(list(full.split(len(part))), part)
        return full[: shape[0]]

    def rows_of_rank(self, full: Tensor) -> Tensor:
        """This rank's rows of `full`."""
        rows = -(-len(full) // self.world_size)
        return full[rows * self.rank : rows * (self.rank + 1)]

    # --- in a step -------------------------------------------------------------------------------------------

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Do not exchange the gradients of backward passes inside: every rank adds up full ones."""
        self.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.model.set_requires_gradient_sync(True)

    def local_gradients(
        self, weights: Sequence[Tensor], replicated: Sequence[int], used: UsedWeights | None
    ) -> Localize:
        """A function from gradients of `weights` as backward leaves them to this rank's rows.

        It averages the `replicated` ones. A weight that no rank has `used` has None; without `used`, zeros.
        """

        def localize(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
            skipped = [False] * len(weights) if used is None else [not flag for flag in used.on_any_rank()]
            shards = [
                None if skip else local(torch.zeros_like(weight) if gradient is None else gradient)
                for gradient, weight, skip in zip(gradients, weights, skipped, strict=True)
            ]
            for number in replicated:
                shard = shards[number]
                if shard is not None:
                    dist.all_reduce(shard)
                    shard /= self.world_size
            return shards

        return localize

    def with_buffers(self, step: Step) -> Step:
        """A step before which all ranks get the buffers of rank 0, as in DistributedDataParallel."""
        buffers = self._buffers
        if not buffers:
            return step
        group = _world()

        def synchronized() -> Tensor:
            dist._broadcast_coalesced(group, buffers, BUCKET_BYTES, 0)  # type: ignore[attr-defined]
            return step()

        return synchronized

    # --- in an evaluation --------------------------------------------------------------------------------------

    @contextmanager
    def evaluating(self, average: WeightAverage | None) -> Iterator[None]:
        """Use the moving average, if there is one, in place of the weights inside."""
        shards = list(self.local.values())
        copies = [tensor.detach().clone() for tensor in shards] if average else []
        try:
            if average is not None:
                _copy(shards, [average.tensors[name] for name in self.local])
            yield
        finally:
            self.model.reshard()  # else weights that the root has gathered would be used by the next step
            if average is not None:
                _copy(shards, copies)


def _world() -> dist.ProcessGroup:
    group = dist.group.WORLD
    assert group is not None
    return group


def is_sharded(tensor: Tensor) -> bool:
    """Whether a rank has only some rows of `tensor`."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """This rank's rows of `tensor`, sharing its memory."""
    return cast(Any, tensor.detach()).to_local() if is_sharded(tensor) else tensor.detach()


@torch.no_grad()
def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def _to_host(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)


# --- from the job of one process to that of many ----------------------------------------------------------------


def share(job: Job, step: int) -> Job:
    """The job of this rank, which trains its rows of the model that `job` has in full on the host.

    Weights, buffers, average and optimizer state become those of rank 0 after `step` steps. All ranks must call it.
    """
    state = job.update.state_dict() if step else {}
    shards, average, used = _scattered_weights(job)
    trained = {name: weight for name, weight in job.model.named_parameters() if weight.requires_grad}
    replicated = [number for number, name in enumerate(job.names) if not is_sharded(trained[name])]
    weights = [trained[name] for name in job.names]
    parameters = [nn.Parameter(shards.local[name]) for name in job.names]
    update = fsdp_optim.make_update_rule(job.spec, shards, job.names, parameters, replicated)
    local_state = _scattered_state(shards, job.names, parameters, state)
    if local_state or step:
        update.load_state_dict(local_state, step)
    sharded = replace(job, shards=shards, update=update, average=average, notes=(*job.notes, _note(job, shards)))
    sharded = sharded.with_parts(
        update=update,
        parameters=weights,
        average=average,
        backward=True,
        no_sync=shards.no_sync,
        localize=shards.local_gradients(weights, replicated, used),
        total_norm=fsdp_optim.norm_of_all(replicated),
    )
    return replace(sharded, step=shards.with_buffers(sharded.step))


def _scattered_weights(job: Job) -> tuple[Shards, WeightAverage | None, UsedWeights | None]:
    """This rank's rows of rank 0's weights and moving average; only rank 0 keeps full ones until they are scattered.

    The last value observes which weights are used, if steps may skip some.
    """
    first, state = dist.get_rank() == 0, extra_state.weights_of(job.model)
    weights, shapes = dict(state) if first else {}, {name: tensor.shape for name, tensor in state.items()}
    averages = dict(job.average.tensors) if job.average and first else {}
    del state
    model, used = _sharded(job)
    shards = Shards(model, shapes)
    for name, shard in shards.local.items():
        shards.scatter(name, shard, weights.pop(name, None))
    average = WeightAverage(shards.local, job.spec.ema) if job.average else None
    for name, shard in (average.tensors if average else {}).items():
        shards.scatter(name, shard, averages.pop(name, None))
    return shards, average, used


def _sharded(job: Job) -> tuple[nn.Module, UsedWeights | None]:
    """The model with its weights sharded, on the device of the job, and what observes their use if steps may skip some."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    model, task = job.model, job.workload.task
    scalars = {weight for weight in model.parameters() if not weight.ndim}  # a single number cannot be sharded
    units = fsdp_units.units(model, task.batch(2)[0] if task is not None else None)
    for weight in model.parameters():
        weight.data = weight.detach().contiguous()
    for weight in scalars:
        weight.data = weight.detach().to(job.device)
    mesh = DeviceMesh.from_group(_world(), job.device.type)
    for unit in (*units, model):
        sharded = fully_shard(unit, mesh=mesh, ignored_params=scalars)
        sharded.unshard()  # torch may move the shards when it gathers them first; afterwards they stay
        sharded.reshard()
    if not job.parts.optional_gradients:
        return model, None
    parts = [cast("FSDPModule", part) for part in (*units, model)]
    for part in parts:
        part.unshard()
    used = UsedWeights(model, job.names)
    for part in parts:
        part.reshard()
    return model, used


def _scattered_state(
    shards: Shards, names: Sequence[str], weights: Sequence[Tensor], state: Mapping[str, Mapping[int, Tensor]]
) -> dict[str, dict[int, Tensor]]:
    """This rank's rows of the optimizer state of rank 0."""
    layout = [[(key, number, full.ndim, full.dtype) for key, slot in state.items() for number, full in slot.items()]]
    dist.broadcast_object_list(layout, 0, device=torch.device("cpu"))
    local_state: dict[str, dict[int, Tensor]] = {}
    for key, number, ndim, dtype in layout[0]:
        weight = weights[number]
        shard = torch.empty(weight.shape if ndim else (), dtype=dtype, device=weight.device)
        shards.scatter(names[number], shard, state[key][number] if shards.rank == 0 else None)
        local_state.setdefault(key, {})[number] = shard
    return local_state


def _note(job: Job, shards: Shards) -> str:
    here = sum(shards.local[name].numel() for name in job.names)
    total = sum(shards._shapes.get(name, shards.local[name].shape).numel() for name in job.names)
    return f"weights are sharded over {shards.world_size} processes: {here:,} of {total:,} here, with their optimizer state"

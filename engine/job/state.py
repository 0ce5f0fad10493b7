"""The state of a run as named tensors and plain values, for checkpoints, and back.

The state is weights and buffers, optimizer, moving average, order of the epoch, random generators, and what a user's task
adds. A restored run takes the same steps again, on the CPU bit for bit. Capturing the state only enqueues copies and never
waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from epochtop.engine.device import generators
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks import extra_state, user_state
from epochtop.engine.tasks.errors.tracebacks import explain_user_error
from epochtop.engine.tasks.trial import load_state

if TYPE_CHECKING:
    from epochtop.engine.job.job import Job
    from epochtop.engine.tasks.task import Task

MODEL, OPTIMIZER, BATCHES, AVERAGE = "model.", "optimizer.", "batches.", "average."
LOSS, LOSS_AVERAGE = "loss.", "loss_average."

Values = dict[str, float | int | None]
"""Plain values of a checkpoint by name."""


def weights(job: Job) -> dict[str, Tensor]:
    """Copies of the weights that are evaluated: the moving average if there is one. If sharded, this rank's rows.

    The tensors of a loss come with them, unless weights are sharded.
    """
    source = job.average.tensors if job.average else _state(job)
    copies = {f"{MODEL}{name}": tensor.detach().clone() for name, tensor in source.items()}
    copies |= _extras(job)
    if job.loss_module is None or job.shards is not None:
        return copies
    loss = job.parts.loss_average.tensors if job.parts.loss_average else job.loss_module.tensors
    return copies | {f"{LOSS}{name}": _copy(name, tensor) for name, tensor in loss.items()}


def capture(job: Job) -> tuple[dict[str, Tensor], Values]:
    """Copies of everything that changes from step to step, except the counts of the loop.

    If weights are sharded, all ranks must call it; rank 0 gets all rows.
    """
    copy = job.shards.full if job.shards else _copy
    state = {f"{MODEL}{name}": copy(name, tensor) for name, tensor in _state(job).items()}
    state |= _extras(job)
    if job.average:
        state |= {f"{AVERAGE}{name}": copy(name, tensor) for name, tensor in job.average.tensors.items()}
    if job.loss_module is not None:
        state |= {f"{LOSS}{name}": _copy(name, tensor) for name, tensor in job.loss_module.tensors.items()}
    if job.parts.loss_average is not None:
        averages = job.parts.loss_average.tensors
        state |= {f"{LOSS_AVERAGE}{name}": _copy(name, tensor) for name, tensor in averages.items()}
    for key, tensors in job.update.state_dict().items():
        named = ((job.names[number], tensor) for number, tensor in tensors.items())
        state |= {f"{OPTIMIZER}{key}.{name}": copy(name, tensor) for name, tensor in named}
    state |= {f"{BATCHES}{key}": tensor.clone() for key, tensor in job.batches.state_dict().items()}
    state |= generators.states(job.device)
    if job.workload.task is not None:
        state |= _task_state(job, job.workload.task)
    return state, {"rows_taken_of_epoch": job.batches.position, **job.schedule.state_dict()}


def _state(job: Job) -> Mapping[str, Tensor]:
    return job.shards.local if job.shards else extra_state.weights_of(job.model)


def _extras(job: Job) -> dict[str, Tensor]:
    """The extra states of the model's modules. Raises Invalid with the user's line."""
    try:
        return extra_state.encode(job.model)
    except Exception as error:
        owners = [getattr(type(part), "get_extra_state", None) for part in job.model.modules()]
        raise Invalid("task", explain_user_error(error, _file(job), owners)) from error


def _task_state(job: Job, task: Task) -> dict[str, Tensor]:
    """What the task's `state_dict` returns. Raises Invalid with the user's line."""
    try:
        return user_state.encode(task.state_dict())
    except Exception as error:
        raise Invalid("task", explain_user_error(error, _file(job), [type(task).state_dict])) from error


def _file(job: Job) -> Path:
    return Path(job.spec.task.rpartition(":")[0])


def _copy(_name: str, tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def restore(job: Job, tensors: Mapping[str, Tensor], values: Values, steps: int, rank: int = 0) -> None:
    """Restore a job to its state after `steps` steps, as :func:`capture` returned it. Raises Invalid.

    Generators are those of process `rank`, whose names end in its number.
    """
    try:
        job.model.load_state_dict(_part(tensors, MODEL) | extra_state.decode(tensors))
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise Invalid("", f"the checkpoint does not match the model: {first}") from None
    if job.average:
        for name, tensor in _part(tensors, AVERAGE).items():
            job.average.tensors[name].copy_(tensor)
    if job.loss_module is not None:
        job.loss_module.load(_part(tensors, LOSS))
    if job.parts.loss_average is not None:
        for name, tensor in _part(tensors, LOSS_AVERAGE).items():
            job.parts.loss_average.tensors[name].copy_(tensor)
    _restore_update(job, _part(tensors, OPTIMIZER), steps)
    _restore_progress(job, tensors, values, rank)


def restore_progress(job: Job, tensors: Mapping[str, Tensor], values: Values, rank: int = 0) -> None:
    """Restore only what does not grow with the model: order of the epoch, schedule, task, generators, extra states."""
    extra_state.load(job.model, tensors)
    _restore_progress(job, tensors, values, rank)


def _restore_progress(job: Job, tensors: Mapping[str, Tensor], values: Values, rank: int) -> None:
    job.batches.load_state_dict(_part(tensors, BATCHES), int(values["rows_taken_of_epoch"] or 0))
    job.schedule.load_state_dict(values)
    _restore_task(job, tensors)
    generators.restore(tensors, job.device, f".{rank}" if rank else "")


def _restore_task(job: Job, tensors: Mapping[str, Tensor]) -> None:
    if job.workload.task is not None:
        load_state(job.workload.task, user_state.decode(tensors), _file(job))


def is_progress(name: str) -> bool:
    """Whether :func:`restore_progress` uses the tensor with this name."""
    return not name.startswith((MODEL, OPTIMIZER, AVERAGE, LOSS, LOSS_AVERAGE))


def _restore_update(job: Job, tensors: Mapping[str, Tensor], steps: int) -> None:
    state: dict[str, dict[int, Tensor]] = {}
    for number, name in enumerate(job.names):
        for key in (key for key in tensors if key.endswith(f".{name}")):
            slot = key.removesuffix(f".{name}")
            if "." not in slot:  # else the parameter `b` would get the state of `a.b`
                state.setdefault(slot, {})[number] = tensors[key].to(job.parts.parameters[number].device)
    if state or steps:
        job.update.load_state_dict(state, steps)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

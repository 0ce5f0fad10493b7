"""Takes the steps of a task again, from its start or a checkpoint, to find the first value that is not finite.

Called after training has ended: it reads the device after every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from epochtop.engine.job import state
from epochtop.engine.job.job import Job
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.job.state import Values
from epochtop.engine.models.nested import tensors_of
from epochtop.engine.step.batches import Batch, Batches
from epochtop.engine.step.step import make_step, update_of
from epochtop.engine.step.update_rules import Tensors

GROWTH = 100.0
"""How much larger than in the beginning losses or weights must be to blame the learning rate."""


def first_not_finite(
    job: Job,
    step: int,
    rate: Callable[[int], float],
    saved: Mapping[str, Tensor],
    saved_values: Values,
    saved_step: int,
    seconds: float,
) -> str:
    """What becomes NaN or infinite first on the way to `step`, and where to look.

    Empty if a learning rate that is too high explains it, or if `seconds` do not suffice to find it. The task is loaded
    again, for a model with fresh weights.
    """
    spec = job.spec
    if spec.processes > 1 or spec.precision == "fp16" or job.workload.loading_s > seconds:
        return ""
    deadline = time.perf_counter() + seconds
    try:
        with job.workload.untouched(job.device):
            again = prepare_job(
                msgspec.structs.replace(spec, threads=torch.get_num_threads()),
                device=str(job.device),
                checked=False,
                task_record=job.workload.task_record,
            )
            if saved:
                state.restore(again, saved, saved_values, saved_step)
            watch = _Watch(again)
            for number in range(saved_step if saved else 0, step + 1):
                if time.perf_counter() > deadline:
                    return ""
                watch.take_step(number, rate(number))
    except _NotFiniteError as found:
        return str(found)
    except Exception:  # the user's code may raise anything, and memory may be short; the run has its result already
        return ""
    return ""


class _NotFiniteError(Exception):
    """A value is not finite; the message says which, or is empty to blame the learning rate."""


class _Watch:
    """Takes the steps of a job and raises _NotFiniteError at the first value that is not finite."""

    def __init__(self, job: Job) -> None:
        self._job, self._number = job, 0
        self._update = update_of(job.parts)
        self._batches = _Remembering(job.parts.batches)
        self._take = make_step(replace(job.parts, batches=self._batches, criterion=self._loss_of, update=self._apply))
        self._lowest: float | None = None
        self._newest = 0.0
        for name, weight in zip(job.names, job.parts.parameters, strict=True):
            if not _finite(weight):
                raise _NotFiniteError(
                    f"the weight {name!r} is {_kind(weight)} before the first step: look at how it is initialized"
                )
        self._largest_weight = self._largest()

    def take_step(self, number: int, rate: float) -> None:
        """Take step `number` with this learning rate."""
        self._number, self._job.update.learning_rate = number, rate
        self._newest = float(self._take())
        self._lowest = self._newest if self._lowest is None else min(self._lowest, self._newest)

    def _loss_of(self, output: Any, labels: Any) -> Tensor:
        loss = self._job.parts.criterion(output, labels)
        if _finite(loss):
            return loss
        self._blame_learning_rate_if_grown()
        where = f"in step {self._number:,}, although its rows and the weights are finite"
        if all(map(_finite, tensors_of(output))):
            raise _NotFiniteError(
                f"the loss of finite outputs is {_kind(loss)} {where}: look for a division by 0 or a logarithm of 0 in the loss"
            )
        raise _NotFiniteError(
            f"the output of {self._first_layer()} is not finite {where}: look for a division by 0 in it"
        )

    def _apply(self, gradients: Tensors) -> None:
        bad = [
            (name, gradient)
            for name, gradient in zip(self._job.names, gradients, strict=True)
            if gradient is not None and not _finite(gradient)
        ]
        if bad:
            self._blame_learning_rate_if_grown()
            others = f" and of {len(bad) - 1} more weights" if len(bad) > 1 else ""
            raise _NotFiniteError(
                f"the gradient of {bad[-1][0]!r}{others} is {_kind(bad[-1][1])} in step {self._number:,}, although the loss is "
                "finite: look for a square root or a norm of 0; add a small number inside"
            )
        self._update(gradients)
        if not all(map(_finite, self._job.parts.parameters)):
            raise _NotFiniteError

    def _blame_learning_rate_if_grown(self) -> None:
        grown = self._lowest is not None and self._newest > GROWTH * abs(self._lowest)
        if grown or self._largest() > GROWTH * max(self._largest_weight, 1.0):
            raise _NotFiniteError

    def _largest(self) -> float:
        return max(float(weight.detach().abs().max()) for weight in self._job.parts.parameters if weight.numel())

    def _first_layer(self) -> str:
        """The first layer without layers inside whose output is not finite, in a pass of the same batch."""
        first: list[str] = []

        def look(name: str, layer: nn.Module, output: Any) -> None:
            if not first and not all(map(_finite, tensors_of(output))):
                first.append(f"layer {name!r} ({type(layer).__name__})")

        model = self._job.model
        handles = [
            layer.register_forward_hook(lambda layer, _inputs, output, name=name: look(name, layer, output))
            for name, layer in model.named_modules()
            if not any(layer.children())
        ]
        try:
            with torch.no_grad():
                model(self._batches.x)
        finally:
            for handle in handles:
                handle.remove()
        return first[0] if first else "the model"


class _Remembering(Batches):
    """Batches of another object, and the input of the newest one."""

    def __init__(self, inner: Batches) -> None:
        self._inner, self.x = inner, None
        self.per_epoch, self.position = inner.per_epoch, inner.position

    def __call__(self) -> tuple[Any, Any]:
        self.x, y = self._inner()
        return self.x, y

    def next_batches(self, count: int) -> list[Batch]:
        batches = self._inner.next_batches(count)
        self.x = batches[-1].x
        return batches

    def state_dict(self) -> dict[str, Tensor]:
        return self._inner.state_dict()

    def load_state_dict(self, state: dict[str, Tensor], position: int) -> None:
        self._inner.load_state_dict(state, position)


def _finite(values: Tensor) -> bool:
    return bool(values.detach().isfinite().all())


def _kind(values: Tensor) -> str:
    return "NaN" if bool(values.detach().isnan().any()) else "infinite"

"""Jobs that experiments measure: the engine's own, built without a run, and the plain loop people write.

Each is built anew, so that what one measurement trains another does not see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from engine.batches import Batches
from engine.job import Job, build, describe
from engine.material import Material, material
from engine.spec import RunSpec, check

OPTIMIZERS: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def job_of(spec: RunSpec, device: str = "", stuff: Material | None = None, **changes: Any) -> Job:
    """The job of `spec`, with `changes` to its fields, ready to take steps on `device`. Raises Invalid.

    `stuff` is the material of the same data, where there is one already; a task's model is always made anew.
    """
    spec = msgspec.structs.replace(spec, **changes, device=device or spec.device, processes=1, shard=False)
    check(spec)
    loaded = material(spec) if stuff is None or spec.task else stuff
    return build(spec, loaded, describe(spec, loaded))


class PlainLoop:
    """The loop of any tutorial, over the job's model, loss and batches: what ours is compared with."""

    def __init__(self, job: Job) -> None:
        spec = job.spec
        self.model: nn.Module = job.model
        self.batches: Batches = job.batches
        self.criterion: Callable[[Tensor, Tensor], Tensor] = job.parts.criterion
        more = {"momentum": spec.momentum, "nesterov": spec.nesterov} if spec.optimizer == "sgd" else {}
        kind = OPTIMIZERS.get(spec.optimizer, torch.optim.SGD)
        self.optimizer: torch.optim.Optimizer = kind(
            self.model.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay, **more
        )

    def step(self) -> Tensor:
        """Take a step; its loss is still on the device."""
        x, y = self.batches()
        loss = self.criterion(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

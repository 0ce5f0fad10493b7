"""Jobs that experiments measure: the engine's jobs, built without a run, and a plain tutorial loop.

Each job is built from scratch, so that no measurement sees the training of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from epochtop.engine.job.job import AUTOCAST, Job
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.job.workload import Workload
from epochtop.engine.protocol.rules import check
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.batches import Batches
from epochtop.engine.step.torch_rules import torch_optimizer


def job_of(spec: RunSpec, device: str = "", workload: Workload | None = None, **changes: Any) -> Job:
    """The job of `spec` with `changes` to its fields, ready to run steps on `device`. Raises Invalid.

    `workload` is reused if it was loaded already; a custom task is always loaded again, for a new model.
    """
    spec = msgspec.structs.replace(spec, **changes, device=device or spec.device, processes=1, shard=False)
    check(spec)
    return prepare_job(spec, None if spec.task else workload)


class PlainLoop:
    """The loop of any tutorial over the job's model, loss and batches, as a baseline for ours.

    It uses torch's optimizers, autocast and loss scaling as the job sets them; see :func:`not_plain`.
    """

    def __init__(self, job: Job) -> None:
        self.model: nn.Module = job.model
        self.batches: Batches = job.batches
        self.criterion: Callable[[Tensor, Tensor], Tensor] = job.parts.criterion
        self._parameters: list[Any] = list(job.parts.parameters)
        self.optimizers = torch_optimizers(job.spec, self._parameters)
        self._accumulate, self._clip_norm = job.spec.accumulate, job.spec.clip_norm
        self._kind, self._dtype = job.device.type, AUTOCAST.get(job.spec.precision)
        self._scaler = torch.amp.GradScaler(self._kind) if job.spec.precision == "fp16" else None

    def step(self) -> Tensor:
        """Run a step; its loss stays on the device."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        if self._accumulate == 1:
            loss = self._backward(*self.batches())
        else:
            batches = self.batches.next_batches(self._accumulate)
            loss = torch.stack([self._backward(batch.x, batch.y, batch.weight) for batch in batches]).sum()
        self._update()
        return loss

    def _backward(self, x: Any, y: Any, weight: float = 1.0) -> Tensor:
        if self._dtype is None:
            loss = self.criterion(self.model(x), y)
        else:
            with torch.autocast(self._kind, self._dtype):
                loss = self.criterion(self.model(x), y)
        loss = loss if weight == 1.0 else loss * weight
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()
        return loss.detach()

    def _update(self) -> None:
        scaler = self._scaler
        if self._clip_norm:
            if scaler is not None:
                scaler.unscale_(self.optimizers[0])
            nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        if scaler is not None:
            scaler.step(self.optimizers[0])
            scaler.update()
            return
        for optimizer in self.optimizers:
            optimizer.step()


def torch_optimizers(spec: RunSpec, parameters: Sequence[nn.Parameter]) -> list[torch.optim.Optimizer]:
    """The optimizers of :mod:`torch.optim` for `spec`, with the engine's options: one, or Muon with AdamW for the rest."""
    rate, decay = spec.learning_rate, spec.weight_decay
    if spec.optimizer == "rmsprop":
        return [torch.optim.RMSprop(parameters, rate, weight_decay=decay, momentum=spec.momentum)]
    if spec.optimizer == "muon":
        matrices = [weight for weight in parameters if weight.ndim == 2]
        others = [weight for weight in parameters if weight.ndim != 2]
        muon = partial(torch.optim.Muon, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        adamw = partial(torch.optim.AdamW, lr=rate, weight_decay=decay)
        return [make(weights) for make, weights in ((muon, matrices), (adamw, others)) if weights]
    # fused, a scaled step is skipped without a read
    return [torch_optimizer(spec, fused=True if spec.precision == "fp16" else None)(parameters)]


def not_plain(spec: RunSpec) -> list[str]:
    """Features of a job of `spec` that the plain loop lacks, one sentence each."""
    return ["the moving average of the weights (ema): the plain loop has none"] if spec.ema else []

"""The module behind a task's loss, whose tensors are trained, saved and moved like those of the model.

Examples are ArcFace, a center loss, a learned temperature, and class weights. Never imports the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from epochtop.engine.tasks.task import Task

PREFIX = "loss:"
"""Begins the names of the loss's parameters among those of the model, which have no colon."""


class LossModule:
    """A loss that is a module, or a method of one, without the tensors that belong to the model too."""

    def __init__(self, module: nn.Module, model: nn.Module) -> None:
        self.module = module
        shared = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self.tensors: dict[str, Tensor] = {
            name: tensor
            for name, tensor in module.state_dict(keep_vars=True).items()
            if isinstance(tensor, Tensor) and id(tensor) not in shared
        }
        """Parameters and persistent buffers by name: those that are saved."""
        self.trained: dict[str, nn.Parameter] = {
            name: weight
            for name, weight in module.named_parameters()
            if weight.requires_grad and id(weight) not in shared
        }
        """Parameters that are trained, by name."""
        self.shared = [
            name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if id(tensor) in shared
        ]
        """Names of the tensors that belong to the model too."""

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy saved values into the tensors. A checkpoint of an older version has none."""
        for name, tensor in tensors.items():
            if name in self.tensors:
                self.tensors[name].copy_(tensor)

    def changing(self) -> list[Tensor]:
        """Detached aliases of everything that a step may change."""
        return [tensor.detach() for tensor in (*self.module.parameters(), *self.module.buffers())]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Use evaluation mode inside."""
        training = self.module.training
        self.module.eval()
        try:
            yield
        finally:
            self.module.train(training)


def modules_of(task: Task) -> list[nn.Module]:
    """The model of a task, and the module behind its loss if there is one."""
    module = module_of(task.loss, task.model)
    return [task.model] if module is None else [task.model, module]


def module_of(loss: Any, model: nn.Module) -> nn.Module | None:
    """The module that `loss` is, wraps with arguments, or is a method of; None for a function, or a part of the model."""
    while isinstance(loss, partial):
        loss = loss.func
    module = loss if isinstance(loss, nn.Module) else getattr(loss, "__self__", None)
    if not isinstance(module, nn.Module) or any(module is part for part in model.modules()):
        return None
    return module

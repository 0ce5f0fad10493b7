"""The module behind a task's loss, whose tensors are trained, saved and moved like those of the model.

Examples are ArcFace, a center loss, a learned temperature, and class weights. Never imports the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from epochtop.engine.models.attributes import training_modes
from epochtop.engine.models.held_objects import held_objects
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
        restore = training_modes(self.module)
        self.module.eval()
        try:
            yield
        finally:
            restore()


def modules_of(task: Task) -> list[nn.Module]:
    """The model of a task, and the module behind its loss if there is one."""
    module = module_of(task.loss, task.model)
    return [task.model] if module is None else [task.model, module]


def module_of(loss: Any, model: nn.Module) -> nn.Module | None:
    """The module that `loss` is or holds; a list of them if it holds several; None if it holds none besides the model's.

    A loss may be a method of a module, a partial with modules as arguments, or another object with modules as attributes.
    Closures are not looked into, because a copy of a function would share them.
    """
    held = [part for part in held_objects([loss], _is_copied) if isinstance(part, nn.Module)]
    inside = {id(part) for module in held for part in module.modules() if part is not module}
    outer = [module for module in held if id(module) not in inside | {id(part) for part in model.modules()}]
    return outer[0] if len(outer) == 1 else nn.ModuleList(outer) if outer else None


def _is_copied(value: object) -> bool:
    """Whether a copy of an object has copies of what it holds."""
    return not isinstance(value, FunctionType | ModuleType)


def parameters_behind(loss: Tensor) -> list[nn.Parameter]:
    """The parameters that a loss was computed from."""
    parameters: dict[int, nn.Parameter] = {}
    waiting, seen = [loss.grad_fn], set[Any]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, nn.Parameter):
            parameters[id(variable)] = variable
        waiting.extend(before for before, _ in node.next_functions)
    return list(parameters.values())

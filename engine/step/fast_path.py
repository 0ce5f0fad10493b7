"""Modules and gradients without their Python wrappers, which take longer than the operators of small models.

In a plain loop of the default run, module calls take a tenth of the time and the checks of :func:`torch.autograd.grad` a
seventh. The operators are the same, and so are the results, bit for bit. Must never change a result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = tuple(f"_global{name}" for name in HOOKS)


def unwrapped(model: nn.Module) -> Callable[[Any], Any]:
    """`model` as a function. A Sequential without hooks is called layer by layer, any other model as it is."""
    if type(model) is not nn.Sequential or not all(_unhooked(part) for part in model.modules()):
        return model
    if any(getattr(modules, name, None) for name in GLOBAL_HOOKS):
        return model
    layers = [_layer(part) for part in model]

    def call(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    return call


def _unhooked(part: nn.Module) -> bool:
    return not any(getattr(part, name, None) for name in HOOKS)


def _layer(part: nn.Module) -> Callable[[Any], Any]:
    if type(part) is nn.Linear:
        linear, weight, bias = nn.functional.linear, part.weight, part.bias
        return lambda x: linear(x, weight, bias)
    if type(part) is nn.ReLU and not part.inplace:
        return torch.relu
    return unwrapped(part) if type(part) is nn.Sequential else part.forward


def gradients_of(
    parameters: Sequence[Tensor], fresh: bool = True, optional: bool = False
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A function from a loss to its gradients, one per parameter: :func:`torch.autograd.grad` without its checks.

    Without `fresh`, gradients may share memory with those of other steps and must not be changed in place. With
    `optional`, the gradient of a parameter that the loss does not depend on is None; else it raises RuntimeError.
    """
    inputs = tuple(parameters)
    run: Any = getattr(getattr(torch.autograd.Variable, "_execution_engine", None), "run_backward", None)
    if run is None:  # this version of torch keeps it elsewhere
        return lambda loss: torch.autograd.grad(loss, inputs, allow_unused=optional)
    ones: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def gradients(loss: Tensor) -> tuple[Tensor, ...]:
        key = loss.dtype, loss.device
        one = None if fresh else ones.get(key)
        if one is None:
            one = ones[key] = torch.ones_like(loss)
        result: tuple[Tensor, ...] = run((loss,), (one,), False, False, inputs, optional, accumulate_grad=False)
        return result

    return gradients

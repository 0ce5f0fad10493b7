"""What a step calls, without the wrappers around it: on small models these take longer than the operators.

Of the default run's plain loop, calling modules takes a tenth and the checks of :func:`torch.autograd.grad` a seventh
of the time. The operators and so the results are the same, bit for bit.
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
    """`model` as a function. A plain sequence of layers without hooks is called layer by layer; any other as it is."""
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


def gradients_of(parameters: Sequence[Tensor], fresh: bool = True) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A function from a loss to its gradients, one a parameter: :func:`torch.autograd.grad` without its checks.

    Unless they are `fresh`, they may share memory with those of other steps and must not be changed in place.
    """
    wanted = tuple(parameters)
    run: Any = getattr(getattr(torch.autograd.Variable, "_execution_engine", None), "run_backward", None)
    if run is None:  # a torch that keeps it elsewhere
        return lambda loss: torch.autograd.grad(loss, wanted)
    ones: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def gradients(loss: Tensor) -> tuple[Tensor, ...]:
        key = loss.dtype, loss.device
        one = None if fresh else ones.get(key)
        if one is None:
            one = ones[key] = torch.ones_like(loss)
        found: tuple[Tensor, ...] = run((loss,), (one,), False, False, wanted, False, accumulate_grad=False)
        return found

    return gradients

"""Gradients of a step: computed, accumulated over batches, and clipped. Never reads the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from epochtop.engine.step.fast_path import gradients_of
from epochtop.engine.step.update_rules import Tensors


class AutogradAccumulator:
    """Adds up gradients of `autograd.grad`."""

    def __init__(self, parameters: Sequence[Tensor], optional: bool = False) -> None:
        """With `optional`, a batch may leave parameters without a gradient."""
        self._gradients_of = gradients_of(parameters, optional=optional)
        self._optional = optional
        self._sum: list[Tensor] = []

    def __call__(self, loss: Tensor, first: bool) -> None:
        """Add the gradients of a loss; the `first` loss of a step begins a new sum."""
        gradients = self._gradients_of(loss)
        if first:
            self._sum = list(gradients)
        elif self._optional:
            self._sum = [_added(*pair) for pair in zip(self._sum, gradients, strict=True)]
        else:
            torch._foreach_add_(self._sum, gradients)

    def gradients(self) -> list[Tensor]:
        """Their sum, one per parameter."""
        return self._sum


Localize = Callable[[Sequence[Tensor | None]], list[Tensor | None]]
"""From the gradients that backward leaves to those of this rank's rows, if weights are sharded."""


class BackwardAccumulator:
    """Lets `backward` add up gradients in the parameters, whose hooks exchange them between processes."""

    def __init__(self, parameters: Sequence[Tensor], localize: Localize | None = None) -> None:
        self._parameters = list(parameters)
        self._localize = localize

    def __call__(self, loss: Tensor, first: bool) -> None:
        """Add the gradients of a loss; the `first` loss of a step begins a new sum."""
        if first:
            for parameter in self._parameters:
                parameter.grad = None
        loss.backward()

    def gradients(self) -> list[Tensor]:
        """Their sum over batches and mean over processes, one per parameter.

        A parameter that no batch used has None.
        """
        gradients = [parameter.grad for parameter in self._parameters]
        return cast(list[Tensor], gradients if self._localize is None else self._localize(gradients))


def _added(total: Tensor | None, gradient: Tensor | None) -> Tensor:
    """`total` plus `gradient`, in place; None if both are."""
    if total is None or gradient is None:
        return cast(Tensor, gradient if total is None else total)
    return total.add_(gradient)


def norm_of(gradients: Tensors) -> Tensor:
    """The norm of all gradients together, 0-d; parameters without a gradient do not count."""
    return torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])


def clip(gradients: Tensors, norm: float, total_norm: Callable[[Tensors], Tensor] = norm_of) -> None:
    """Scale gradients in place to a norm of at most `norm`: :func:`torch.nn.utils.clip_grad_norm_` without a read."""
    present = [gradient for gradient in gradients if gradient is not None]
    if present:
        total = total_norm(gradients)
        torch._foreach_mul_(present, torch.clamp(norm / (total + 1e-6), max=1.0))

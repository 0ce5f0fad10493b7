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


class BackwardAccumulator:
    """Lets `backward` add up gradients in the parameters, whose hooks exchange them between processes."""

    def __init__(
        self, parameters: Sequence[Tensor], localize: Callable[[list[Tensor]], list[Tensor]] | None = None
    ) -> None:
        """`localize` takes gradients of the parameters to those of this rank's rows, if weights are sharded."""
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

        A parameter that no batch used has None; if weights are sharded, zeros, because all ranks must exchange the same.
        """
        if self._localize is None:
            return [cast(Tensor, parameter.grad) for parameter in self._parameters]
        return self._localize([torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters])


def _added(total: Tensor | None, gradient: Tensor | None) -> Tensor:
    """`total` plus `gradient`, in place; None if both are."""
    if total is None or gradient is None:
        return cast(Tensor, gradient if total is None else total)
    return total.add_(gradient)


def clip(
    gradients: Tensors, norm: float, total_norm: Callable[[Tensors], Tensor] = torch.nn.utils.get_total_norm
) -> None:
    """Scale gradients in place to a norm of at most `norm`: :func:`torch.nn.utils.clip_grad_norm_` without a read."""
    present = [gradient for gradient in gradients if gradient is not None]
    if present:
        total = total_norm(present)
        torch._foreach_mul_(present, torch.clamp(norm / (total + 1e-6), max=1.0))

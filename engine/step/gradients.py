"""Gradients of a step: computed, accumulated over batches, and clipped. Never reads the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from epochtop.engine.step.fast_path import gradients_of
from epochtop.engine.step.update_rules import Tensors


class AutogradAccumulator:
    """Adds up gradients of `autograd.grad`."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._gradients_of = gradients_of(parameters)
        self._sum: list[Tensor] = []

    def __call__(self, loss: Tensor, first: bool) -> None:
        """Add the gradients of a loss; the `first` loss of a step begins a new sum."""
        gradients = self._gradients_of(loss)
        if first:
            self._sum = list(gradients)
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
        """Their sum over batches and mean over processes, one per parameter."""
        # a parameter that this batch did not use has no gradient
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        return gradients if self._localize is None else self._localize(gradients)


def clip(
    gradients: Tensors, norm: float, total_norm: Callable[[Tensors], Tensor] = torch.nn.utils.get_total_norm
) -> None:
    """Scale gradients in place to a norm of at most `norm`: :func:`torch.nn.utils.clip_grad_norm_` without a read."""
    total = total_norm(gradients)
    torch._foreach_mul_(list(gradients), torch.clamp(norm / (total + 1e-6), max=1.0))

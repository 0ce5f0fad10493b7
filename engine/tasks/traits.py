"""What a trial step shows about a task, so that the job can be built to suit it. Must never change the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from epochtop.engine.models.nested import tensors_of


@dataclass(frozen=True)
class TaskTraits:
    """The traits of a task that decide how its steps are taken."""

    changes_rows: bool = False
    """Whether the model, the loss or a metric changes a batch in place, so that every batch must be a copy."""
    unused: tuple[str, ...] = ()
    """Names of the trained parameters that the loss of the trial does not depend on."""
    needs_backward: bool = False
    """Whether gradients must come from `loss.backward()`: for hooks that it calls, or reentrant checkpointing."""
    sparse: tuple[str, ...] = ()
    """Names of the trained parameters whose gradients are sparse, as those of `nn.Embedding(sparse=True)`."""
    evaluates_with_gradients: bool = False
    """Whether an evaluation computes gradients too, such as those of the output by the input."""


class BatchWatch:
    """Detects whether a batch is changed in place from now on."""

    def __init__(self, batch: Any) -> None:
        self._tensors = [
            (tensor, tensor.detach().clone(), tensor._version, tensor.requires_grad) for tensor in tensors_of(batch)
        ]

    def changed(self) -> bool:
        """Whether a tensor has been changed, or been made to require gradients."""
        return any(
            tensor._version != version or tensor.requires_grad != required or not _same(tensor.detach(), values)
            for tensor, values, version, required in self._tensors
        )


def _same(tensor: Tensor, values: Tensor) -> bool:
    """Whether shape and values are equal; NaN equals NaN. A change through numpy does not change a tensor's version."""
    return tensor.shape == values.shape and torch.allclose(tensor, values, rtol=0, atol=0, equal_nan=True)

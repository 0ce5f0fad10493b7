"""Metrics over all rows of a set, such as an F1 score, which is not a mean over batches. Never imports torchmetrics."""

from __future__ import annotations

import copy
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class SetMetric(Protocol):
    """An object that takes in batches and computes one number at the end, as the metrics of torchmetrics do.

    With a method `reset`, it is reset before every evaluation; otherwise every evaluation uses a copy of it.
    """

    def update(self, output: Any, labels: Any, /) -> Any:
        """Take in a batch."""
        ...

    def compute(self) -> Any:
        """The metric over all batches of the evaluation: a 0-d tensor or a number. A tensor does not stop the device."""
        ...


def fresh(metric: SetMetric, device: torch.device) -> SetMetric:
    """The metric without any batches, on `device` if it is a module."""
    reset = getattr(metric, "reset", None)
    if reset is None:
        metric = copy.deepcopy(metric)
    else:
        reset()
    if isinstance(metric, nn.Module):
        metric.to(device)
    if hasattr(metric, "_to_sync"):  # torchmetrics would wait for ranks that do not evaluate
        metric._to_sync = False
    return metric

"""Metrics over all rows of a set, such as an F1 score, which is not a mean over batches. Never imports torchmetrics."""

from __future__ import annotations

import copy
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from epochtop.engine.models.nested import joined, mapped, tensors_of


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


class MetricOfAllRows:
    """A function of outputs and labels that is not a mean over rows, as a metric that is computed of all batches at once.

    Beyond :data:`MOST_BYTES` of outputs and labels, it is the mean of its results for the batches, weighted by their rows.
    """

    def __init__(self, function: Callable[[Any, Any], Tensor]) -> None:
        self.function = function
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._batches: list[Any] = []
        self._bytes, self._rows = 0, 0
        self._total: Tensor | float = 0.0

    def update(self, output: Any, labels: Any, /) -> None:
        """Take in a batch."""
        self._batches.append(mapped((output, labels), Tensor.detach))
        self._bytes += sum(tensor.nbytes for tensor in tensors_of((output, labels)))
        if self._bytes > MOST_BYTES or self._rows:
            self._add()

    def compute(self) -> Tensor | float:
        """The result for all rows."""
        if not self._rows:
            output, labels = joined(self._batches)
            return self.function(output, labels)
        return self._total / self._rows

    def _add(self) -> None:
        for output, labels in self._batches:
            rows = len(next(tensors_of(output)))
            self._total = self._total + self.function(output, labels) * rows
            self._rows += rows
        self._batches = []


MOST_BYTES = 1 << 26
"""Bytes of the outputs and labels that are kept for a metric that is not a mean over rows."""


def depends_on_batches(function: Callable[[Any, Any], Tensor], output: Any, labels: Any, rows: int) -> bool:
    """Whether the result for these rows differs from the mean of those for each half. False if rows cannot be halved."""
    others: list[Any] = []
    mapped((output, labels), Tensor.detach, others.append)
    by_row = all(tensor.ndim and len(tensor) == rows for tensor in tensors_of((output, labels)))
    if rows < 2 or not by_row or any(other is not None for other in others):
        return False
    half = rows // 2
    parts = slice(None, half), slice(half, None)
    try:
        whole = float(function(output, labels))
        first, second = (float(function(*mapped((output, labels), itemgetter(part)))) for part in parts)
    except Exception:  # fewer rows may be too few, for example to have rows of both classes
        return True
    mean = (first * half + second * (rows - half)) / rows
    return abs(whole - mean) > 1e-4 * max(abs(whole), abs(mean))


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

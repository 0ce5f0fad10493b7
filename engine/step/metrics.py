"""Metrics of held-out rows, counted on the device and read with one copy.

Nothing here may read a value back. So it does not count with `bincount` or select with a mask, which read on CUDA
(torchmetrics does). Sums are float64 if the device supports it, so that order and size of batches do not change results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochtop.engine.data.dataset import LossName

MAX_CONFUSION_CLASSES = 100
"""Classes of the largest confusion matrix; with more classes, only totals per class are counted."""
TOP = 5
"""A row counts for `top5` if its class is among this many highest outputs."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Results of an evaluation."""

    values: dict[str, float | None]
    """Metrics by name; None for a metric that these rows do not define."""
    confusion: tuple[tuple[int, ...], ...] | None = None
    """Rows by true class (outer) and predicted class (inner)."""


class Metrics:
    """The metrics of a loss.

    Classes: accuracy, f1 (macro, over the classes that occur as label or prediction, as scikit-learn's
    `f1_score(average="macro")`), top5 with more than 5 classes, the confusion matrix. Numbers: r2, mae and rmse, the last
    two in the unit of the raw target. Characters: bits_per_character and accuracy.
    """

    def __init__(self, loss: LossName, outputs: int, target_spread: float = 1.0) -> None:
        self._loss, self._spread = loss, target_spread
        self._classes = 2 if loss == "binary_cross_entropy" else outputs
        self._numbers = loss == "mean_squared_error"
        self._by_class = loss in ("cross_entropy", "binary_cross_entropy")

    @property
    def main(self) -> str:
        """The main metric: `accuracy`, `r2` or `bits_per_character`."""
        if self._numbers:
            return "r2"
        return "accuracy" if self._by_class else "bits_per_character"

    @property
    def _has_confusion(self) -> bool:
        return self._by_class and self._classes <= MAX_CONFUSION_CLASSES

    def empty(self, device: torch.device) -> tuple[Tensor, ...]:
        """Counts over no rows."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        sizes = [5]  # rows, right or squared error, right within the top 5 or absolute error, sum and squares of y
        if self._has_confusion:
            sizes.append(self._classes**2)
        elif self._by_class:
            sizes += [self._classes] * 3  # right, labels, predictions
        return tuple(torch.zeros(size, dtype=dtype, device=device) for size in sizes)

    def add(self, state: tuple[Tensor, ...], output: Tensor, labels: Tensor, rows: int) -> None:
        """Add a batch of `rows` in place: outputs (rows, outputs) or (rows, context, characters), and their labels."""
        sums, counts = state[0], state[1:]
        count = torch.full((), labels.numel(), dtype=sums.dtype, device=sums.device)
        if self._numbers:
            self._add_numbers(sums, count, output.squeeze(1), labels)
            return
        predicted = (output.squeeze(1) > 0).long() if self._loss == "binary_cross_entropy" else output.argmax(-1)
        labels = labels.long()
        right = (predicted == labels).to(sums.dtype)
        zero = torch.zeros_like(count)
        sums += torch.stack([count, right.sum(), self._within_top(output, labels).to(sums.dtype), zero, zero])
        if self._has_confusion:
            counts[0].index_add_(0, labels * self._classes + predicted, torch.ones_like(right))
        elif self._by_class:
            for total, classes, weight in zip(
                counts,
                (labels, labels, predicted),
                (right, torch.ones_like(right), torch.ones_like(right)),
                strict=True,
            ):
                total.index_add_(0, classes, weight)

    def _add_numbers(self, sums: Tensor, count: Tensor, output: Tensor, labels: Tensor) -> None:
        targets = labels.to(sums.dtype)
        errors = output.to(sums.dtype) - targets
        sums += torch.stack([count, errors.square().sum(), errors.abs().sum(), targets.sum(), targets.square().sum()])

    def _within_top(self, output: Tensor, labels: Tensor) -> Tensor:
        if not self._by_class or self._classes <= TOP:
            return torch.zeros((), device=output.device)
        return (output.topk(TOP, dim=-1).indices == labels.unsqueeze(-1)).sum()

    def flat(self, state: tuple[Tensor, ...]) -> Tensor:
        """All counts in one tensor (n,), for one copy to the host."""
        return torch.cat(state)

    def read(self, values: Tensor, loss: float | None) -> Scores:
        """The metrics, from the host's copy of :meth:`flat` and the mean loss over the same rows."""
        numbers: Floats = values.numpy().astype(np.float64)
        sums, counts = numbers[:5], numbers[5:]
        if sums[0] == 0:
            return Scores({})
        if self._numbers:
            return Scores(self._read_numbers(sums))
        metrics: dict[str, float | None] = {"accuracy": float(sums[1] / sums[0])}
        if not self._by_class:
            bits = None if loss is None else loss / math.log(2)
            return Scores({"bits_per_character": bits, **metrics})
        if self._classes > TOP:
            metrics["top5"] = float(sums[2] / sums[0])
        if not self._has_confusion:
            right, labels, predicted = counts.reshape(3, -1)
            return Scores(metrics | {"f1": _macro_f1(right, labels, predicted)})
        matrix = counts.reshape(self._classes, -1)
        metrics["f1"] = _macro_f1(matrix.diagonal(), matrix.sum(1), matrix.sum(0))
        return Scores(metrics, tuple(tuple(int(count) for count in row) for row in matrix))

    def _read_numbers(self, sums: Sequence[float] | Floats) -> dict[str, float | None]:
        rows, squared, absolute, total, squares = (float(value) for value in sums)
        spread = squares - total * total / rows
        return {
            "r2": _finite(1 - squared / spread) if spread > 0 else None,
            "mae": _finite(absolute / rows * self._spread),
            "rmse": _finite(math.sqrt(squared / rows) * self._spread) if math.isfinite(squared) else None,
        }


def _macro_f1(right: Floats, labels: Floats, predicted: Floats) -> float:
    occurrences = labels + predicted
    return float((2 * right[occurrences > 0] / occurrences[occurrences > 0]).mean())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

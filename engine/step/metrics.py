"""Metrics of held-out rows, counted on the device and read with one copy.

Nothing here may read a value back. So it does not count with `bincount` or select with a mask, which read on CUDA
(torchmetrics does). Sums are float64 if the device supports it, so that order and size of batches do not change results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochtop.engine.data.dataset import LossName
from epochtop.engine.models.set_metric import SetMetric, fresh

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


class EvalMetrics(Protocol):
    """Metrics that take in batches on the device and are read with one copy."""

    @property
    def main(self) -> str:
        """Name of the main metric; empty if there is none."""
        ...

    def empty(self, device: torch.device) -> Any:
        """The state without rows."""
        ...

    def add(self, state: Any, output: Any, labels: Any, rows: int) -> None:
        """Add a batch of `rows` to the state in place."""
        ...

    def flat(self, state: Any) -> Tensor:
        """The state in one tensor (n,), for one copy to the host."""
        ...

    def read(self, values: Tensor, loss: float | None) -> Scores:
        """The metrics, from the host's copy of :meth:`flat` and the mean loss over the same rows."""
        ...


class Metrics:
    """The metrics of a loss.

    Classes: accuracy, f1 (macro, over the classes that occur as label or prediction, as scikit-learn's
    `f1_score(average="macro")`), top5 with more than 5 classes, the confusion matrix. Numbers: r2, mae and rmse, the last
    two in the unit of the raw target. Characters: bits_per_character and accuracy.
    """

    def __init__(
        self, loss: LossName, outputs: int, target_spread: float = 1.0, ignore_index: int | None = None
    ) -> None:
        """Rows whose label is `ignore_index` are not counted."""
        self._loss, self._spread, self._ignore_index = loss, target_spread, ignore_index
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
        """Add a batch of `rows` in place: outputs (rows, outputs) or (rows, context, characters), and their labels.

        Labels of classes are class numbers, or probabilities (rows, classes), which count as their most probable class.
        """
        sums, counts = state[0], state[1:]
        if self._numbers:
            count = torch.full((), rows, dtype=sums.dtype, device=sums.device)
            self._add_numbers(sums, count, output.squeeze(1), labels)
            return
        predicted = (output.squeeze(1) > 0).long() if self._loss == "binary_cross_entropy" else output.argmax(-1)
        if labels.is_floating_point() and labels.ndim == output.ndim and self._loss == "cross_entropy":
            labels = labels.argmax(-1)
        labels = labels.long()
        counted = torch.ones(labels.shape, dtype=sums.dtype, device=sums.device)
        if self._ignore_index is not None:
            counted = (labels != self._ignore_index).to(sums.dtype)
            labels = torch.where(labels == self._ignore_index, 0, labels)
        right = (predicted == labels) * counted
        zero = torch.zeros((), dtype=sums.dtype, device=sums.device)
        sums += torch.stack([counted.sum(), right.sum(), self._within_top(output, labels, counted), zero, zero])
        if self._has_confusion:
            counts[0].index_add_(0, labels * self._classes + predicted, counted)
        elif self._by_class:
            classes = (labels, labels, predicted)
            for total, numbers, weight in zip(counts, classes, (right, counted, counted), strict=True):
                total.index_add_(0, numbers, weight)

    def _add_numbers(self, sums: Tensor, count: Tensor, output: Tensor, labels: Tensor) -> None:
        targets = labels.to(sums.dtype)
        errors = output.to(sums.dtype) - targets
        sums += torch.stack([count, errors.square().sum(), errors.abs().sum(), targets.sum(), targets.square().sum()])

    def _within_top(self, output: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
        if not self._by_class or self._classes <= TOP:
            return torch.zeros((), dtype=counted.dtype, device=output.device)
        return ((output.topk(TOP, dim=-1).indices == labels.unsqueeze(-1)) * counted.unsqueeze(-1)).sum()

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
            "r2": finite(1 - squared / spread) if spread > 0 else None,
            "mae": finite(absolute / rows * self._spread),
            "rmse": finite(math.sqrt(squared / rows) * self._spread) if math.isfinite(squared) else None,
        }


@dataclass(frozen=True)
class TaskState:
    """The state of a task's metrics during one evaluation."""

    sums: Tensor
    """Sums over the rows, one per function, and the number of rows."""
    set_metrics: Mapping[str, SetMetric]
    """Objects with the batches so far, by name."""


class TaskMetrics:
    """The metrics of a task: functions of (output, labels) to a mean over the rows, and objects that take in all batches."""

    def __init__(self, metrics: Mapping[str, Callable[[Any, Any], Tensor] | SetMetric]) -> None:
        self._names = tuple(metrics)
        self._set_metrics = {name: metric for name, metric in metrics.items() if isinstance(metric, SetMetric)}
        self._functions = {name: metric for name, metric in metrics.items() if not isinstance(metric, SetMetric)}

    @property
    def main(self) -> str:
        """Name of the first metric; empty if there is none."""
        return next(iter(self._names), "")

    def empty(self, device: torch.device) -> TaskState:
        """The state without rows."""
        set_metrics = {name: fresh(metric, device) for name, metric in self._set_metrics.items()}
        return TaskState(torch.zeros(len(self._functions) + 1, device=device), set_metrics)

    def add(self, state: TaskState, output: Any, labels: Any, rows: int) -> None:
        """Add a batch of `rows`."""
        values = [function(output, labels).float() * rows for function in self._functions.values()]
        count = torch.full((), float(rows), device=state.sums.device)
        state.sums.add_(torch.stack([*values, count]))
        for metric in state.set_metrics.values():
            metric.update(output, labels)

    def flat(self, state: TaskState) -> Tensor:
        """All sums, then the results of the objects, in one tensor (n,), for one copy to the host."""
        device, dtype = state.sums.device, state.sums.dtype
        results = [
            torch.as_tensor(metric.compute(), device=device, dtype=dtype) for metric in state.set_metrics.values()
        ]
        return torch.cat((state.sums, torch.stack(results))) if results else state.sums

    def read(self, values: Tensor, loss: float | None) -> Scores:
        """The metrics, from the host's copy of :meth:`flat`."""
        numbers, count = values.tolist(), len(self._functions)
        rows = numbers[count]
        means = {name: total / rows for name, total in zip(self._functions, numbers[:count], strict=True)}
        results = dict(zip(self._set_metrics, numbers[count + 1 :], strict=True))
        return Scores({name: finite((means | results)[name]) for name in self._names})


def _macro_f1(right: Floats, labels: Floats, predicted: Floats) -> float:
    occurrences = labels + predicted
    return float((2 * right[occurrences > 0] / occurrences[occurrences > 0]).mean())


def finite(value: float) -> float | None:
    """The value; None if it is NaN or infinite."""
    return value if math.isfinite(value) else None

"""Metrics of several targets at once: numbers of a regression, or labels of which a row has any number.

Counted on the device and read with one copy, like :mod:`epochtop.engine.step.metrics`; nothing here reads a value back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from epochtop.engine.step.metrics import Floats, Scores, finite


class SeveralNumbers:
    """r2, mae and rmse: means over the targets, as scikit-learn's `multioutput="uniform_average"`.

    mae and rmse are in the units of the raw targets.
    """

    main = "r2"

    def __init__(self, spreads: Sequence[float]) -> None:
        """`spreads` are the divisors that standardized the targets."""
        self._spreads = np.array(spreads)

    def empty(self, device: torch.device) -> Tensor:
        """Sums over no rows, (5, targets): rows, squared and absolute errors, targets, their squares."""
        return torch.zeros(5, len(self._spreads), dtype=_sum_type(device), device=device)

    def add(self, state: Tensor, output: Tensor, labels: Tensor, rows: int) -> None:
        """Add a batch in place: outputs and targets (rows, targets)."""
        targets = labels.to(state.dtype)
        errors = output.to(state.dtype) - targets
        count = torch.full((targets.shape[1],), rows, dtype=state.dtype, device=state.device)
        sums = errors.square().sum(0), errors.abs().sum(0), targets.sum(0), targets.square().sum(0)
        state += torch.stack([count, *sums])

    def flat(self, state: Tensor) -> Tensor:
        """All sums, (n,)."""
        return state.flatten()

    def read(self, values: Tensor, loss: float | None) -> Scores:
        """The metrics, from the host's copy of :meth:`flat`."""
        rows, squared, absolute, total, squares = values.numpy().astype(np.float64).reshape(5, -1)
        if rows[0] == 0:
            return Scores({})
        with np.errstate(all="ignore"):
            variation = squares - total * total / rows
            r2 = np.where(variation > 0, 1 - squared / variation, np.nan)
            mae, rmse = absolute / rows * self._spreads, np.sqrt(squared / rows) * self._spreads
        means = {"r2": r2, "mae": mae, "rmse": rmse}
        return Scores({name: finite(float(each.mean())) for name, each in means.items()})


class SeveralLabels:
    """Metrics of multi-label classification, where an output above 0 predicts its label.

    f1 (macro, over the labels that occur as label or prediction), exact_match (rows whose labels are all right, which is
    scikit-learn's `accuracy_score`) and label_accuracy (right labels, which is 1 - Hamming loss).
    """

    main = "f1"

    def __init__(self, labels: int) -> None:
        self._labels = labels

    def empty(self, device: torch.device) -> Tensor:
        """Counts over no rows, (4, labels): both, label, prediction, and in the last row: rows, exact rows, right labels."""
        return torch.zeros(4, max(3, self._labels), dtype=_sum_type(device), device=device)

    def add(self, state: Tensor, output: Tensor, labels: Tensor, rows: int) -> None:
        """Add a batch in place: outputs and labels of 0 and 1, (rows, labels)."""
        predicted, actual = (output > 0).to(state.dtype), labels.to(state.dtype)
        right = (predicted == actual).to(state.dtype)
        count = torch.full((), rows, dtype=state.dtype, device=state.device)
        state[:3, : self._labels] += torch.stack([(predicted * actual).sum(0), actual.sum(0), predicted.sum(0)])
        state[3, :3] += torch.stack([count, right.prod(1).sum(), right.sum()])

    def flat(self, state: Tensor) -> Tensor:
        """All counts, (n,)."""
        return state.flatten()

    def read(self, values: Tensor, loss: float | None) -> Scores:
        """The metrics, from the host's copy of :meth:`flat`."""
        counts = values.numpy().astype(np.float64).reshape(4, -1)
        rows, exact, right = (float(number) for number in counts[3, :3])
        if rows == 0:
            return Scores({})
        both, actual, predicted = counts[:3, : self._labels]
        f1 = _macro_f1(both, actual + predicted)
        return Scores({"f1": f1, "exact_match": exact / rows, "label_accuracy": right / rows / self._labels})


def _macro_f1(both: Floats, occurrences: Floats) -> float | None:
    """Mean over the labels that occur; None if none does."""
    occurs = occurrences > 0
    mean = float((2 * both[occurs] / occurrences[occurs]).mean()) if occurs.any() else math.nan
    return finite(mean)


def _sum_type(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64

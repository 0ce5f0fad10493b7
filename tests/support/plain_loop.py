"""The yardstick: the training loop that everybody writes, with torch.optim and `loss.item()` every step.

It shares no line with the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler
from torch import Tensor, nn

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch 2.9 or later")


@dataclass(frozen=True)
class Rows:
    """A dataset, split and scaled."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def split(x: npt.NDArray[Any], y: npt.NDArray[Any], dtype: type) -> Rows:
    """80 % for training, as the published Iris runs split it; features to 0 … 1."""
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, random_state=42)
    scaler = MinMaxScaler().fit(x)
    x, x_test = scaler.transform(x).astype(np.float32), scaler.transform(x_test).astype(np.float32)
    return Rows(*map(torch.from_numpy, (x, y.astype(dtype), x_test, y_test.astype(dtype))))


def rows(dataset: str) -> Rows:
    """A dataset of scikit-learn."""
    return split(*getattr(datasets, f"load_{dataset}")(return_X_y=True), np.int64)


@dataclass(frozen=True)
class Plain:
    """What a plain loop does. `rates` maps a step to the learning rate from that step on."""

    x: Tensor
    y: Tensor
    widths: tuple[int, ...]
    optimizer: Optimizer
    criterion: Callable[[Tensor, Tensor], Tensor] = field(default_factory=nn.CrossEntropyLoss)
    batch_size: int = 0
    seed: int = 1
    rates: Mapping[int, float] = field(default_factory=dict)

    def train(self, steps: int) -> tuple[npt.NDArray[np.float32], nn.Module]:
        """The loss of every step, and the model after the last."""
        torch.manual_seed(self.seed)
        model = self._model().to(self.x.device)
        optimizer = self.optimizer(model.parameters())
        batches = self._batches()
        losses = []
        for step in range(steps):
            if step in self.rates:
                optimizer.param_groups[0]["lr"] = self.rates[step]
            x, y = next(batches)
            loss = self.criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return np.array(losses, dtype=np.float32), model

    def _model(self) -> nn.Sequential:
        layers: list[nn.Module] = []
        for wide, narrow in zip(self.widths, self.widths[1:], strict=False):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows, or the rows in a new order every epoch, drawn by a generator that has the run's seed."""
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            if not self.batch_size:
                yield self.x, self.y
                continue
            order = torch.randperm(len(self.x), generator=generator).to(self.x.device)
            for chosen in order.split(self.batch_size):
                yield self.x[chosen], self.y[chosen]


def first_column(criterion: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss of outputs (rows, 1) and labels (rows,)."""
    return lambda output, labels: criterion(output[:, 0], labels)

"""House prices from a table: a custom model, data, loss and metric.

epochtop train --task houses.py:make_task --epochs 200 --batch-size 64 --optimizer adam --learning-rate 0.01
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from epochtop import Task

TABLE = Path(__file__).with_name("houses.csv")  # header: area,rooms,age,price


class Prices(nn.Module):
    """Standardizes the columns, then applies two hidden layers; returns one number per row."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)  # buffers move to the device with the model and are saved with it
        self.register_buffer("std", std)
        self.layers = nn.Sequential(nn.Linear(len(mean), 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers((x - self.mean) / self.std).squeeze(1)
        return out


def loss(price: Tensor, truth: Tensor) -> Tensor:
    """Squared for small errors, absolute for large ones, so that a few outliers do not dominate."""
    return nn.functional.huber_loss(price, truth, delta=0.5)


def mean_error(price: Tensor, truth: Tensor) -> Tensor:
    return (price - truth).abs().mean()  # a tensor; .item() would stop the device


def make_task() -> Task:
    table = np.genfromtxt(TABLE, delimiter=",", skip_header=1, dtype=np.float32)
    rows = torch.from_numpy(np.random.default_rng(0).permutation(table))
    x, y = rows[:, :-1], rows[:, -1] / 100_000
    test = len(rows) // 5
    return Task(
        model=Prices(mean=x[test:].mean(0), std=x[test:].std(0)),
        train=(x[test:], y[test:]),
        test=(x[:test], y[:test]),
        loss=loss,
        metrics={"mean error": mean_error},
    )

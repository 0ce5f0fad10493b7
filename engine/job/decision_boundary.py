"""The decision boundary of a classifier with two features: its predictions on a grid, drawn live.

Computed on the device with every evaluation and copied to the host with its figures. Never reads the device itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from epochtop.engine.job.workload import Workload
from epochtop.engine.protocol.events import Mapped

COLUMNS, ROWS = 72, 44
"""Cells of the grid: 72 × 22 characters of two cells each."""
MARGIN = 0.08
"""How far the grid extends beyond the rows, as a share of their range."""
MAX_POINTS = 250
"""Training rows that are drawn, at most."""


@dataclass(frozen=True)
class MapLabel:
    """Label of a map that has been enqueued."""

    step: int


class Boundary:
    """The grid of one job. Use :func:`boundary_of`."""

    def __init__(self, workload: Workload, device: torch.device) -> None:
        assert workload.split is not None
        x, y = workload.split.train.x, workload.split.train.y
        low, high = x.min(axis=0), x.max(axis=0)
        edge = np.maximum(high - low, 1e-6) * MARGIN
        self._low, self._high = low - edge, high + edge
        across = torch.linspace(float(self._low[0]), float(self._high[0]), COLUMNS)
        down = torch.linspace(float(self._high[1]), float(self._low[1]), ROWS)
        grid = torch.cartesian_prod(down, across).flip(1)
        self._grid: Tensor = grid.contiguous().to(device)
        sample = slice(None, None, -(-len(x) // MAX_POINTS))
        self._points = tuple(
            (float(a), float(b), int(label)) for (a, b), label in zip(x[sample], y[sample], strict=True)
        )

    @torch.no_grad()
    def enqueue(self, model: nn.Module) -> Tensor:
        """Predicted classes on the grid, uint8 (ROWS * COLUMNS,), the top row first; enqueued, not read."""
        training = model.training
        model.eval()
        output = model(self._grid)
        model.train(training)
        classes: Tensor = output.argmax(1) if output.shape[1] > 1 else (output[:, 0] > 0)
        return classes.to(torch.uint8)

    def mapped(self, step: int, cells: Tensor, classes: tuple[str, ...]) -> Mapped:
        """The event, from the host's copy of the cells."""
        return Mapped(
            step=step,
            columns=COLUMNS,
            rows=ROWS,
            low=(float(self._low[0]), float(self._low[1])),
            high=(float(self._high[0]), float(self._high[1])),
            cells=cells.numpy().tobytes(),
            classes=classes,
            points=self._points,
        )


def boundary_of(workload: Workload, device: torch.device) -> Boundary | None:
    """The grid of a classifier with two features; None for any other job."""
    drawable = workload.split is not None and workload.shape == (2,) and 2 <= len(workload.classes) <= 16
    return Boundary(workload, device) if drawable else None

"""What a classifier of two features answers all over the plane: its decision boundary, to be drawn live.

Computed on the device with every evaluation and brought to the host with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from epochtop.engine.job.workload import Workload
from epochtop.engine.protocol.events import Mapped

COLUMNS, ROWS = 72, 44
"""Cells of the plane: 72 × 22 characters of two cells each."""
MARGIN = 0.08
"""How far the plane reaches beyond the rows, as a share of their range."""
MOST_POINTS = 250


@dataclass(frozen=True)
class MapLabel:
    """A map under way."""

    step: int


class Boundary:
    """The plane of one job. Use :func:`boundary_of`."""

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
        shown = slice(None, None, -(-len(x) // MOST_POINTS))
        self._points = tuple((float(a), float(b), int(label)) for (a, b), label in zip(x[shown], y[shown], strict=True))

    @torch.no_grad()
    def enqueue(self, model: nn.Module, weights: dict[str, Tensor] | None) -> Tensor:
        """Classes all over the plane, uint8 (ROWS * COLUMNS,), the top row first; enqueued, not read."""
        training = model.training
        model.eval()
        output = (
            model(self._grid)
            if weights is None
            else torch.func.functional_call(model, weights, (self._grid,), tie_weights=False)
        )
        model.train(training)
        answer: Tensor = output.argmax(1) if output.shape[1] > 1 else (output[:, 0] > 0)
        return answer.to(torch.uint8)

    def mapped(self, step: int, answer: Tensor, classes: tuple[str, ...]) -> Mapped:
        """The event, from the host's copy."""
        return Mapped(
            step=step,
            columns=COLUMNS,
            rows=ROWS,
            low=(float(self._low[0]), float(self._low[1])),
            high=(float(self._high[0]), float(self._high[1])),
            cells=answer.numpy().tobytes(),
            classes=classes,
            points=self._points,
        )


def boundary_of(workload: Workload, device: torch.device) -> Boundary | None:
    """The plane of a job that sorts rows of two features into classes; None for any other."""
    two = workload.split is not None and workload.shape == (2,) and 2 <= len(workload.classes) <= 16
    return Boundary(workload, device) if two else None

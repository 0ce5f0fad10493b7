"""A task whose steps mostly sleep: an endless run of it leaves the processors to the other tests."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from epochtop import Task

STEP_S = 0.01
"""Seconds that a step sleeps."""

HURRY = Path("hurry")
"""Steps no longer sleep once this file exists in the working directory: the run ends when a test wants it to."""


class Sleeper(nn.Module):
    """Two layers that are in no hurry."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        if not HURRY.exists():
            time.sleep(STEP_S)
        out: Tensor = self.layers(x)
        return out


def make_task() -> Task:
    """Tell rows with a positive sum from the others."""
    x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    y = (x.sum(1) > 0).long()
    return Task(model=Sleeper(), train=(x[:100], y[:100]), test=(x[100:], y[100:]))

"""A task whose run can be slowed down from outside, for tests that kill a rank before the run is over."""

from __future__ import annotations

from pathlib import Path

import pytest

SLOW_TASK = """
import time
from pathlib import Path

import torch
from epochtop import Task

class Model(torch.nn.Sequential):
    def forward(self, x):
        if (Path(__file__).parent / "slow").exists():
            time.sleep(0.02)
        return super().forward(x)

def make_task():
    torch.manual_seed(1)
    x = torch.randn(800, 4)
    dropout = torch.nn.Dropout(0.3)  # every rank draws its own
    return Task(model=Model(torch.nn.Linear(4, 16), torch.nn.ReLU(), dropout, torch.nn.Linear(16, 2)), train=(x, (x[:, 0] > 0).long()))
"""
"""Its steps take long while the file `slow` exists, so that a rank is killed before the run is over."""


@pytest.fixture
def slow_task(folder: Path) -> str:
    """The task, whose steps take no time yet."""
    (folder / "own.py").write_text(SLOW_TASK)
    return f"{folder / 'own.py'}:make_task"

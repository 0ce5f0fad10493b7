"""Gradient accumulation weighs batches by their rows, as a plain loop does, also if labels are ignored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.support.engines import losses, train_here
from tests.tasks.task_files import task_file, task_spec

ACCUMULATE, SIZE, EPOCHS, SEED = 4, 16, 6, 5
BODY = """
LABELS = torch.where(torch.arange(64) % 5 < 2, -100, Y[:64])
def make_task():
    return Task(model=nn.Linear(4, 3), train=(X[:64], LABELS))
"""


def test_a_step_is_the_mean_over_its_batches(home: Path, tmp_path: Path) -> None:
    """The loop of the tutorials: `(criterion(model(x), y) / accumulate).backward()` for every batch."""
    torch.set_num_threads(1)
    run = train_here(task_spec(task_file(tmp_path, BODY), accumulate=ACCUMULATE, eval_every=0), home)
    x = torch.randn(65, 4, generator=torch.Generator().manual_seed(0))[:64]
    y = torch.where(torch.arange(64) % 5 < 2, -100, torch.arange(64) % 3)
    torch.manual_seed(SEED)
    model = nn.Linear(4, 3)
    optimizer, order, expected = torch.optim.SGD(model.parameters(), lr=0.1), torch.Generator().manual_seed(SEED), []
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        total = 0.0
        for chosen in torch.randperm(64, generator=order).split(SIZE):
            loss = functional.cross_entropy(model(x[chosen]), y[chosen]) / ACCUMULATE
            loss.backward()
            total += loss.item()
        optimizer.step()
        expected.append(total)
    np.testing.assert_allclose(losses(run), np.array(expected, np.float32), rtol=1e-6)
    counts = {int((y[chosen] != -100).sum()) for chosen in torch.randperm(64, generator=order).split(SIZE)}
    assert len(counts) > 1  # a mean over all labels would differ

"""Modules next to a task's file: objects of their classes come from workers, and code imports some of them while it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.tasks.loader import load_recorded, load_task
from tests.tasks.task_files import task_file, task_spec

ROWS = """
from collections import namedtuple
from dataclasses import dataclass
import torch
Inputs = namedtuple("Inputs", "values row")

@dataclass
class Labels:
    number: torch.Tensor
"""
FROM_WORKERS = """
from torch.utils.data import Dataset
from rows_of_mine import Inputs, Labels

class Rows(Dataset):
    def __len__(self):
        return 32
    def __getitem__(self, row):
        return Inputs(X[row], row), Labels(Y[row])

class Net(nn.Linear):
    def forward(self, x):
        return super().forward(x.values)

def loss(output, y):
    return F.cross_entropy(output, y.number)

def make_task():
    return Task(model=Net(4, 3), train=Rows(), test=Rows(), loss=loss)
"""
LATE = """
class Net(nn.Linear):
    steps = 0
    def forward(self, x):
        self.steps += self.training
        if self.steps > 3:
            from late_package.inner import scaled
            x = scaled(x)
        return super().forward(x)

def make_task():
    return Task(model=Net(4, 3), train=(X, Y))
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_workers_return_objects_of_classes_in_another_module(tmp_path: Path) -> None:
    (tmp_path / "rows_of_mine.py").write_text(ROWS)
    task = task_file(tmp_path, FROM_WORKERS)
    losses = []
    for workers in (0, 1):
        job = prepare_job(task_spec(task, workers=workers))
        losses.append([job.step().item() for _ in range(3)])
    assert losses[0] == losses[1]


def late_task(folder: Path) -> str:
    (folder / "late_package").mkdir()
    (folder / "late_package" / "__init__.py").write_text("from . import factors\n")
    (folder / "late_package" / "factors.py").write_text("FACTOR = 0.5\n")
    (folder / "late_package" / "inner.py").write_text(
        "from .factors import FACTOR\ndef scaled(x):\n    return FACTOR * x\n"
    )
    return task_file(folder, LATE)


def test_a_module_that_a_later_step_imports_is_found_and_leaves_no_bytecode(tmp_path: Path) -> None:
    task = late_task(tmp_path)
    job = prepare_job(task_spec(task))
    weight, bias = (part.detach().clone().requires_grad_() for part in job.parts.parameters)
    batches, expected = prepare_job(task_spec(task)).batches, []
    for step in range(1, 7):
        x, y = batches()
        loss = torch.nn.functional.cross_entropy((x * (0.5 if step > 3 else 1)) @ weight.T + bias, y)
        expected.append(loss.item())
        with torch.no_grad():
            for part, gradient in zip((weight, bias), torch.autograd.grad(loss, (weight, bias)), strict=True):
                part -= 0.1 * gradient
    job = prepare_job(task_spec(task))
    np.testing.assert_allclose([job.step().item() for _ in range(6)], expected, rtol=1e-5)
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_module_that_a_later_step_imports_is_stored(tmp_path: Path) -> None:
    task = late_task(tmp_path)
    record = load_recorded(task).record
    assert [source.module for source in record.sources] == [
        "",
        "late_package",
        "late_package.factors",
        "late_package.inner",
    ]
    (tmp_path / "late_package" / "factors.py").write_text("FACTOR = -1.0\n")
    model = load_task(task, record).model.train()
    model.steps = 9  # type: ignore[assignment]
    x = torch.ones(2, 4)
    assert torch.equal(model(x), torch.nn.functional.linear(0.5 * x, *model.parameters()))

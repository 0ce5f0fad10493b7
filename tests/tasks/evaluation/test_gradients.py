"""Models and losses that compute gradients themselves are evaluated as in a plain loop."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD

from epochtop.engine.inference.predict import predict
from tests.support.engines import finished, losses, train_here
from tests.tasks.task_files import plain_task, task_file, task_spec

DERIVATIVE = """
class Net(nn.Module):
    # the derivative of its inner output by the input
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    def forward(self, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.inner(x).sum(), x, create_graph=True)[0][:, :3]

def make_task():
    return Task(model=Net(), train=(X, Y), test=(X[:20], Y[:20]))
"""
PENALTY = """
def loss(output, y):
    slope, = torch.autograd.grad(output.square().sum(), output, create_graph=True)
    return F.cross_entropy(output, y) + 0.1 * slope.square().mean()

def make_task():
    return Task(model=nn.Linear(4, 3), train=(X, Y), test=(X[:20], Y[:20]), loss=loss)
"""


@pytest.mark.parametrize("body", [DERIVATIVE, PENALTY], ids=["model", "loss"])
def test_it_trains_and_is_evaluated_as_in_a_plain_loop(body: str, home: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spec = task_spec(task_file(tmp_path, body), epochs=3)
    run = train_here(spec, home)
    expected, task = plain_task(spec, partial(SGD, lr=0.1))
    np.testing.assert_array_equal(losses(run), expected)
    x, y = task.test  # type: ignore[misc]
    output = task.model(x)
    assert finished(run).test_loss == pytest.approx(task.loss(output, y).item(), rel=1e-6)
    table = tmp_path / "rows.csv"
    np.savetxt(table, x.numpy(), delimiter=",", header="a,b,c,d", comments="", fmt="%.9g")
    predict(run, table, tmp_path / "predicted.csv")
    lines = (tmp_path / "predicted.csv").read_text().splitlines()[1:]
    assert len(lines) == 20

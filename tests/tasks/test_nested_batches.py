"""Tasks with nested rows, labels and outputs train as in a plain loop, from the file to the recorded figures."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from epochtop.engine.protocol.events import Evaluated
from epochtop.engine.protocol.spec import RunSpec
from tests.support.engines import events, losses, train_here

ROWS, TESTED, SIZE, EPOCHS, RATE, SEED = 40, 21, 8, 2, 0.1, 1

START = """
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from epochtop import Task

draw = torch.Generator().manual_seed(0)
X = torch.randn(40, 5, generator=draw)
Y = torch.randint(0, 3, (40,), generator=draw)
W = torch.ones(40)

class Pair(NamedTuple):
    features: Any
    mask: Any

@dataclass
class Output:
    loss: Any = None
    logits: Any = None

class Rows(Dataset):
    def __init__(self, count, x, y):
        self.count, self.x, self.y = count, x, y
    def __len__(self):
        return self.count
    def __getitem__(self, at):
        return self.x(at), self.y(at)

class Net(nn.Module):
    def __init__(self, features, output):
        super().__init__()
        self.fc, self.features, self.output = nn.Linear(5, 3), features, output
    def forward(self, x):
        return self.output(self.fc(self.features(x)))

def accuracy(logits, y):
    return (logits.argmax(1) == y).float().mean()

same = lambda value: value
"""

TASKS = {
    "dict": ("lambda at: {'f': X[at], 'name': 'row'}", "lambda at: Y[at]", "lambda x: x['f']", "same", "same", "same"),
    "namedtuple": ("lambda at: Pair(X[at], W[at])", "lambda at: Y[at]", "lambda x: x.features", "same", "same", "same"),
    "dataclass": ("lambda at: Output(logits=X[at])", "lambda at: Y[at]", "lambda x: x.logits", "same", "same", "same"),
    "None in rows": ("lambda at: (X[at], None)", "lambda at: Y[at]", "lambda x: x[0]", "same", "same", "same"),
    "dict labels": ("lambda at: X[at]", "lambda at: {'y': Y[at]}", "same", "same", "same", "lambda y: y['y']"),
    "tuple labels": ("lambda at: X[at]", "lambda at: (Y[at], W[at])", "same", "same", "same", "lambda y: y[0]"),
    "dict output": ("lambda at: X[at]", "lambda at: Y[at]", "same", "lambda o: OrderedDict(l=o)", "lambda o: o['l']", "same"),
    "dataclass output": ("lambda at: X[at]", "lambda at: Y[at]", "same", "lambda o: Output(logits=o)", "lambda o: o.logits", "same"),
}  # fmt: skip
"""Row, label, then how the model reads its rows and makes its output, and how the loss reads output and labels."""


def written(folder: Path, source: str) -> str:
    file = folder / "nested.py"
    file.write_text(START + dedent(source))
    return f"{file}:make_task"


def task_of(folder: Path, name: str) -> str:
    x, y, features, output, logits, labels = TASKS[name]
    return written(
        folder,
        f"""
        row, label, logits, labels = {x}, {y}, {logits}, {labels}
        def make_task():
            return Task(
                model=Net({features}, {output}), train=Rows(40, row, label), test=Rows(21, row, label),
                loss=lambda o, t: F.cross_entropy(logits(o), labels(t)),
                metrics={{"accuracy": lambda o, t: accuracy(logits(o), labels(t))}},
            )
        """,
    )


def spec_of(task: str) -> RunSpec:
    return RunSpec(
        task=task, device="cpu", batch_size=SIZE, epochs=EPOCHS, learning_rate=RATE, seed=SEED, eval_epochs=1
    )


def plain(ignored: torch.Tensor | None = None) -> tuple[list[float], nn.Linear, torch.Tensor, torch.Tensor]:
    """Losses of a plain loop, its layer, and all rows. Every epoch has a new order from one generator."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(ROWS, 5, generator=draw), torch.randint(0, 3, (ROWS,), generator=draw)
    if ignored is not None:
        y[ignored] = -100
    torch.manual_seed(SEED)
    layer = nn.Linear(5, 3)
    optimizer, order, values = torch.optim.SGD(layer.parameters(), lr=RATE), torch.Generator().manual_seed(SEED), []
    for _ in range(EPOCHS):
        for chosen in torch.randperm(ROWS, generator=order).split(SIZE):
            optimizer.zero_grad()
            loss = functional.cross_entropy(layer(x[chosen]), y[chosen])
            loss.backward()
            optimizer.step()
            values.append(loss.item())
    return values, layer, x, y


@pytest.mark.parametrize("name", TASKS)
def test_a_nested_task_trains_and_is_evaluated_as_in_a_plain_loop(name: str, tmp_path: Path) -> None:
    run = train_here(spec_of(task_of(tmp_path, name)), tmp_path)
    values, layer, x, y = plain()
    np.testing.assert_array_equal(losses(run), np.array(values, np.float32))
    last = [event for event in events(run) if isinstance(event, Evaluated)][-1]
    logits = layer(x[:TESTED])
    assert last.step == len(values)
    assert last.loss == pytest.approx(functional.cross_entropy(logits, y[:TESTED]).item(), rel=1e-6)
    assert last.metrics["accuracy"] == pytest.approx((logits.argmax(1) == y[:TESTED]).float().mean().item())

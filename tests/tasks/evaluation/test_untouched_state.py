"""Trials, timed steps and evaluations change no state of a task: counters, tensors, modes and generators anywhere in it."""

from __future__ import annotations

import random
import runpy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from epochtop.engine.protocol.spec import RunSpec
from tests.support.engines import losses, train_here

TASKS = '''
import random
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from epochtop import Task

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(64, 4, generator=G), torch.randint(0, 3, (64,), generator=G)
TRAIN, TEST = (X[:48], Y[:48]), (X[48:], Y[48:])


def fading(output, y, count):
    return F.cross_entropy(output, y) / (1 + count / 20)


class LossObject:
    def __init__(self):
        self.calls = 0

    def __call__(self, output, y):
        self.calls += 1
        return fading(output, y, self.calls)


def loss_object():
    return Task(model=nn.Linear(4, 3), train=TRAIN, test=TEST, loss=LossObject())


CALLS, BOX = 0, {"calls": [0]}


def counted_by_file(output, y):
    global CALLS
    CALLS += 1
    BOX["calls"][0] += 1
    counted_by_file.calls = getattr(counted_by_file, "calls", 0) + 1
    return fading(output, y, CALLS + BOX["calls"][0] + counted_by_file.calls)


def file_counter():
    return Task(model=nn.Linear(4, 3), train=TRAIN, test=TEST, loss=counted_by_file)


def closure():
    calls = 0

    def loss(output, y):
        nonlocal calls
        calls += 1
        return fading(output, y, calls)

    return Task(model=nn.Linear(4, 3), train=TRAIN, test=TEST, loss=loss)


class Remembering(nn.Linear):
    """Counts in a number and in a buffer, and keeps a mean of its outputs, in evaluations too."""

    def __init__(self):
        super().__init__(4, 3)
        self.calls, self.mean, self.recent = 0, torch.zeros(3), []
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        output = super().forward(x)
        self.calls += 1
        self.passes += 1
        self.mean = 0.9 * self.mean + 0.1 * output.detach().mean(0)
        self.recent = [*self.recent[-3:], float(self.calls)]
        return (output - self.mean) / (1 + self.calls / 20 + self.passes / 30 + sum(self.recent) / 90)


def model_state():
    return Task(model=Remembering(), train=TRAIN, test=TEST)


class FrozenPart(nn.Module):
    """A loss with a part that stays in evaluation mode, as a perceptual loss has one."""

    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5)).eval().requires_grad_(False)

    def forward(self, output, y):
        return F.cross_entropy(output, y) + self.part(output).square().mean()


def frozen_part():
    return Task(model=nn.Linear(4, 3), train=TRAIN, test=TEST, loss=FrozenPart())


class Jitter:
    def __init__(self, seed):
        self.own, self.others = np.random.default_rng(seed), [random.Random(seed)]

    def __call__(self, x):
        return x + float(self.own.normal()) + self.others[0].random()


class Rows(Dataset):
    def __init__(self, first, last, transforms):
        self.rows, self.transforms = range(first, last), transforms

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        x = X[self.rows[row]]
        for transform in self.transforms:
            x = transform(x)
        return x, Y[self.rows[row]]


def nested_generators():
    transforms = [partial(Jitter(1)), Jitter(2)]
    return Task(model=nn.Linear(4, 3), train=Rows(0, 48, transforms), test=Rows(48, 64, transforms))
'''


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def seed() -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)


def plain_losses(file: Path, function: str, epochs: int) -> npt.NDArray[np.float32]:
    """The losses of a plain loop that never evaluates."""
    seed()
    task = runpy.run_path(str(file))[function]()
    seed()
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    order, values = torch.Generator().manual_seed(7), []
    for _ in range(epochs):
        for rows in torch.randperm(48, generator=order).split(16):
            if isinstance(task.train, tuple):
                x, y = (part[rows] for part in task.train)
            else:
                x, y = map(torch.stack, zip(*(task.train[int(row)] for row in rows), strict=True))
            loss = task.loss(task.model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize(
    "function", ["loss_object", "file_counter", "closure", "model_state", "frozen_part", "nested_generators"]
)
def test_losses_are_those_of_a_plain_loop_without_evaluations(function: str, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "stateful.py"
    file.write_text(TASKS, encoding="utf-8")
    fields = {"device": "cpu", "executor": "eager", "learning_rate": 0.1, "seed": 7, "refresh_ms": 10}
    spec = RunSpec(task=f"{file}:{function}", epochs=8, batch_size=16, eval_epochs=1, **fields)  # type: ignore[arg-type]
    run = train_here(spec, home)
    np.testing.assert_array_equal(losses(run), plain_losses(file, function, 8))

"""Sparse gradients, as of `nn.Embedding(sparse=True)`: trained as torch does, or refused before a run exists."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD

from epochtop.engine.execution.choice import make
from epochtop.engine.execution.executor import Unsupported
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.spec import Invalid
from tests.support.engines import losses, train_here
from tests.support.plain_loop import needs_muon
from tests.tasks.task_files import plain_task, task_file, task_spec

SPARSE = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(20, 8, sparse=True), nn.Linear(8, 3)
    def forward(self, x):
        return self.out(self.words(x).mean(1))

X = torch.randint(0, 20, (65, 6), generator=g)
def make_task():
    return Task(model=Net(), train=(X, Y), test=(X[:20], Y[:20]))
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_takes_the_steps_of_torch(momentum: float, home: Path, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, SPARSE), momentum=momentum, ema=0.9)
    run = train_here(spec, home)
    expected, _ = plain_task(spec, partial(SGD, lr=0.1, momentum=momentum))
    np.testing.assert_allclose(losses(run), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "adam"},
        {"optimizer": "adamw"},
        {"optimizer": "rmsprop"},
        {"optimizer": "adagrad"},
        pytest.param({"optimizer": "muon"}, marks=needs_muon),
        {"weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True},
        {"clip_norm": 1.0},
    ],
)
def test_other_updates_are_refused_in_one_line(fields: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(Invalid) as error:
        prepare_job(task_spec(task_file(tmp_path, SPARSE), **fields))
    assert error.value.field == ("optimizer" if "optimizer" in fields else [*fields][-1])
    assert error.value.message == (
        f"{fields.get('optimizer', [*fields][-1])} does not support sparse gradients, which words.weight has; use optimizer "
        "sgd without nesterov, weight_decay, clip_norm, shard and fp16, or nn.Embedding(sparse=False)"
    )


@pytest.mark.parametrize("executor", ["graph", "compile"])
def test_steps_with_sparse_gradients_are_not_recorded(executor: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="sparse gradients"):
        make(prepare_job(task_spec(task_file(tmp_path, SPARSE))), executor)

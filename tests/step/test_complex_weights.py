"""Complex weights are trained and averaged as torch does: real and imaginary part are two numbers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adagrad, Adam, AdamW, RMSprop

from epochtop.engine.execution.choice import make
from epochtop.engine.execution.executor import Unsupported
from epochtop.engine.job import state
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.step.ema import WeightAverage
from epochtop.engine.training import checkpoint
from tests.support.engines import losses, train_here
from tests.tasks.task_files import plain_task, task_file, task_spec

FOURIER = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))
        self.bias = nn.Parameter(torch.zeros(3))
    def forward(self, x):
        return (torch.fft.rfft(x) @ self.w).abs() + self.bias

def make_task():
    return Task(model=Net(), train=(X, Y), test=(X[:20], Y[:20]))
"""
ONLY_COMPLEX = FOURIER.replace("        self.bias = nn.Parameter(torch.zeros(3))\n", "").replace(" + self.bias", "")
OPTIMIZERS: dict[str, tuple[Any, dict[str, object]]] = {
    "sgd": (partial(SGD, momentum=0.9, weight_decay=0.1), {"momentum": 0.9, "weight_decay": 0.1}),
    "adam": (partial(Adam, weight_decay=0.1), {"weight_decay": 0.1}),
    "adamw": (partial(AdamW, weight_decay=0.1), {"weight_decay": 0.1}),
    "rmsprop": (partial(RMSprop, momentum=0.5), {"momentum": 0.5}),
    "adagrad": (Adagrad, {}),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_muon_is_refused_before_the_run(tmp_path: Path) -> None:
    """torch's Muon does not support complex parameters."""
    with pytest.raises(Invalid, match="muon does not support complex weights"):
        prepare_job(task_spec(task_file(tmp_path, FOURIER), optimizer="muon"))


@pytest.mark.parametrize("body", [FOURIER, ONLY_COMPLEX], ids=["mixed", "complex"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_hundred_steps_equal_those_of_torch(optimizer: str, body: str, home: Path, tmp_path: Path) -> None:
    make_optimizer, fields = OPTIMIZERS[optimizer]
    spec = task_spec(task_file(tmp_path, body), optimizer=optimizer, epochs=20, learning_rate=0.01, **fields)
    run = train_here(spec, home)
    expected, task = plain_task(spec, partial(make_optimizer, lr=0.01))
    np.testing.assert_array_equal(losses(run), expected)
    assert torch.equal(checkpoint.read(run, "last")[1]["model.w"], task.model.w.detach())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_job_takes_the_same_steps(optimizer: str, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, FOURIER), optimizer=optimizer, ema=0.9, **OPTIMIZERS[optimizer][1])
    straight, interrupted, continued = prepare_job(spec), prepare_job(spec), prepare_job(spec)
    expected = [straight.step().item() for _ in range(17)]
    for _ in range(8):
        interrupted.step()
    tensors, values = state.capture(interrupted)
    state.restore(continued, tensors, values, 8)
    assert [continued.step().item() for _ in range(9)] == expected[8:]


def test_the_moving_average_includes_complex_weights() -> None:
    weight = torch.tensor([1 + 2j, 3 - 1j])
    average = WeightAverage({"w": weight}, 0.75)
    weight.copy_(torch.tensor([5 - 2j, 3 + 3j]))
    average()
    assert average.tensors["w"].tolist() == [2 + 1j, 3 + 0j]


def test_a_model_without_weights_to_average_is_averaged() -> None:
    count = torch.tensor(3)
    average = WeightAverage({"count": count}, 0.9)
    count.fill_(4)
    average()
    assert average.tensors["count"].item() == 4


@pytest.mark.parametrize("executor", ["graph", "compile"])
def test_complex_steps_stay_eager(executor: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="it has complex weights"):
        make(prepare_job(task_spec(task_file(tmp_path, FOURIER), optimizer="adam")), executor)

"""A parameter that a batch does not use is skipped, as the optimizers of torch do, and the run says so once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from epochtop.engine.execution.choice import make
from epochtop.engine.execution.executor import Unsupported
from epochtop.engine.job import state
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.torch_rules import make_update_rule
from epochtop.engine.training import checkpoint
from tests.support.engines import Engine, finished, losses, train_here
from tests.tasks.task_files import plain_task, task_file, task_spec

EXPERTS = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
    def forward(self, x):
        if self.training:
            self.calls += 1
        return self.a(x) + self.b(x) if self.calls % 3 else self.a(x)

def make_task():
    return Task(model=Net(), train=(X, Y), test=(X[:20], Y[:20]))
"""
NEVER = EXPERTS.replace("if self.calls % 3 else self.a(x)", "if False else self.a(x)")

OPTIMIZERS: dict[str, tuple[Any, dict[str, object]]] = {
    "sgd": (partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.1), {"momentum": 0.9, "weight_decay": 0.1}),
    "adam": (partial(Adam, lr=0.1, weight_decay=0.1), {"weight_decay": 0.1}),
    "adamw": (partial(AdamW, lr=0.1, weight_decay=0.1), {"weight_decay": 0.1}),
    "rmsprop": (partial(RMSprop, lr=0.1, momentum=0.5), {"momentum": 0.5}),
    "adagrad": (partial(Adagrad, lr=0.1, fused=True), {}),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_equal_those_of_torch(optimizer: str, home: Path, tmp_path: Path) -> None:
    make_optimizer, fields = OPTIMIZERS[optimizer]
    spec = task_spec(task_file(tmp_path, EXPERTS), optimizer=optimizer, **fields)
    run = train_here(spec, home)
    expected, task = plain_task(spec, make_optimizer)
    np.testing.assert_array_equal(losses(run), expected)
    tensors = checkpoint.read(run, "last")[1]
    for name, weight in task.model.state_dict().items():
        assert torch.equal(tensors[f"model.{name}"], weight), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_job_takes_the_same_steps(optimizer: str, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, EXPERTS), optimizer=optimizer, **OPTIMIZERS[optimizer][1])
    straight, interrupted, continued = prepare_job(spec), prepare_job(spec), prepare_job(spec)
    expected = [straight.step().item() for _ in range(17)]
    for _ in range(8):
        interrupted.step()
    tensors, values = state.capture(interrupted)
    state.restore(continued, tensors, values, 8)
    assert [continued.step().item() for _ in range(9)] == expected[8:]


@pytest.mark.parametrize(
    "fields", [{"accumulate": 2}, {"clip_norm": 0.1}, {"ema": 0.9}, {"accumulate": 2, "clip_norm": 0.1}]
)
def test_weights_that_are_never_used_stay_as_they_are(fields: dict[str, object], home: Path, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, NEVER), optimizer="adamw", weight_decay=0.1, **fields)
    run = train_here(spec, home)
    torch.manual_seed(spec.seed)
    nn.Linear(4, 3)
    initial = nn.Linear(4, 3)
    assert torch.equal(checkpoint.read(run, "last")[1]["model.b.weight"], initial.weight)
    assert [note for note in prepare_job(spec).notes if "skips" in note] == [
        "not used by the rows of the trial: b.weight, b.bias; a step skips weights that its batch does not use"
    ]


def test_accumulated_gradients_are_those_of_the_batches_that_use_a_weight(home: Path, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, EXPERTS), accumulate=5, clip_norm=0.3)

    class Clipped(SGD):
        """Accumulates the five batches of an epoch, weighted by their rows, and clips."""

        sizes = (16, 16, 16, 16, 1)

        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, lr=0.1)
            self.batches, self.totals = 0, [torch.zeros_like(weight) for weight in self.param_groups[0]["params"]]

        def step(self, *_: object) -> None:  # type: ignore[override]
            weights = self.param_groups[0]["params"]
            for total, weight in zip(self.totals, weights, strict=True):
                if weight.grad is not None:
                    total += weight.grad * (self.sizes[self.batches % 5] / 65)
            self.batches += 1
            if self.batches % 5 == 0:
                for total, weight in zip(self.totals, weights, strict=True):
                    weight.grad = total.clone()
                    total.zero_()
                nn.utils.clip_grad_norm_(weights, 0.3)
                super().step()

    run = train_here(spec, home)
    expected, task = plain_task(spec, Clipped)
    per_step = (expected.reshape(-1, 5) * np.array(Clipped.sizes) / 65).sum(axis=1)
    np.testing.assert_allclose(losses(run), per_step, rtol=1e-5)
    torch.testing.assert_close(checkpoint.read(run, "last")[1]["model.b.weight"], task.model.b.weight.detach())


@pytest.mark.parametrize("executor", ["graph", "compile"])
def test_a_step_that_skips_weights_is_not_recorded(executor: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="a batch does not use every weight"):
        make(prepare_job(task_spec(task_file(tmp_path, NEVER))), executor)


def test_two_processes_skip_weights_like_one(home: Path, tmp_path: Path) -> None:
    task = task_file(tmp_path, EXPERTS)
    with Engine() as engine:
        run = engine.train(task_spec(task, processes=2, batch_size=8, optimizer="adam"), home)
        assert engine.wait() == 0
    alone = train_here(task_spec(task, batch_size=16, optimizer="adam"), home)
    np.testing.assert_allclose(losses(run), losses(alone), rtol=1e-4)
    assert finished(run).steps == finished(alone).steps == 30


def test_a_rule_skips_what_torch_skips() -> None:
    """Random sets of parameters without a gradient, over 40 steps."""
    generator = torch.Generator().manual_seed(0)
    for name, (make_optimizer, fields) in OPTIMIZERS.items():
        weights = [nn.Parameter(torch.randn(3, 2, generator=generator)) for _ in range(4)]
        expected = [nn.Parameter(weight.detach().clone()) for weight in weights]
        spec = RunSpec(optimizer=name, learning_rate=0.1, device="cpu", **fields)  # type: ignore[arg-type]
        rule, torchs = make_update_rule(spec, weights), make_optimizer(expected)
        assert isinstance(torchs, Optimizer)
        for _ in range(40):
            gradients = [torch.randn(3, 2, generator=generator) for _ in weights]
            present = torch.rand(4, generator=generator) < 0.6
            chosen = [gradient if there else None for gradient, there in zip(gradients, present, strict=True)]
            rule.skipping(chosen)
            for weight, gradient in zip(expected, chosen, strict=True):
                weight.grad = None if gradient is None else gradient.clone()
            torchs.step()
        for weight, value in zip(weights, expected, strict=True):
            assert torch.equal(weight, value), name

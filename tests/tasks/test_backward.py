"""Tasks whose gradients must come from `backward()`: hooks after accumulation, and reentrant checkpointing."""

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
from epochtop.engine.tasks.loader import load_recorded
from tests.support.engines import losses, train_here
from tests.tasks.task_files import plain_task, task_file, task_spec

NET = """
from torch.utils.checkpoint import checkpoint

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.i, self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
    def forward(self, x):
        return self.b(F.relu(self.a(self.i(x))))

def make_task():
    net = Net()
    CHANGES
    return Task(model=net, train=(X, Y), test=(X[:20], Y[:20]))
"""
HALVED = NET.replace("CHANGES", "net.a.weight.register_post_accumulate_grad_hook(halve)").replace(
    "def make_task", "def halve(weight):\n    weight.grad.mul_(0.5)\n\ndef make_task"
)
IN_BACKWARD = NET.replace(
    "CHANGES",
    "net.a.weight.register_post_accumulate_grad_hook(step)",
).replace(
    "def make_task",
    "def step(weight):\n"
    "    with torch.no_grad():\n"
    "        weight -= 0.01 * weight.grad\n"
    "    weight.grad = None\n\n"
    "def make_task",
)
REENTRANT = NET.replace("CHANGES", "pass").replace(
    "self.b(F.relu(self.a(self.i(x))))",
    "self.b(checkpoint(lambda v: F.relu(self.a(v)), self.i(x), use_reentrant=True))",
)
WEIGHT_NORM = NET.replace("CHANGES", "nn.utils.weight_norm(net.a)")
PLAIN = NET.replace("CHANGES", "pass")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("fields", [{}, {"ema": 0.9}, {"threads": 0}], ids=["plain", "averaged", "timed"])
@pytest.mark.parametrize("body", [HALVED, IN_BACKWARD, REENTRANT], ids=["hook", "optimizer in a hook", "reentrant"])
def test_losses_equal_a_plain_loop(body: str, fields: dict[str, object], home: Path, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, body), **fields)
    run = train_here(spec, home)
    torch.set_num_threads(1)
    expected, _ = plain_task(spec, partial(SGD, lr=0.1))
    np.testing.assert_allclose(losses(run), expected, rtol=0 if not fields else 1e-5)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("fields", [{}, {"ema": 0.9}, {"threads": 0}], ids=["plain", "averaged", "timed"])
def test_the_old_weight_norm_trains_like_a_plain_loop(fields: dict[str, object], home: Path, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, WEIGHT_NORM), **fields)
    run = train_here(spec, home)
    torch.set_num_threads(1)
    expected, _ = plain_task(spec, partial(SGD, lr=0.1))
    np.testing.assert_allclose(losses(run), expected, rtol=0 if not fields else 1e-5)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_the_trial_calls_no_hook_and_leaves_no_gradients(tmp_path: Path) -> None:
    for body, needs_backward in ((HALVED, True), (IN_BACKWARD, True), (REENTRANT, True), (PLAIN, False)):
        torch.manual_seed(0)
        tried = load_recorded(task_file(tmp_path, body))
        torch.manual_seed(0)
        untried = load_recorded(task_file(tmp_path, PLAIN)).task
        assert tried.traits.needs_backward == needs_backward
        for weight, expected in zip(tried.task.model.parameters(), untried.model.parameters(), strict=True):
            assert weight.grad is None
            assert torch.equal(weight, expected)


@pytest.mark.parametrize("executor", ["graph", "compile"])
def test_steps_with_hooks_are_not_recorded(executor: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"need backward\(\)"):
        make(prepare_job(task_spec(task_file(tmp_path, HALVED))), executor)

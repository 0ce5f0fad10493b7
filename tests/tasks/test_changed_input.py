"""A model that changes its input in place gets copies of the rows; any other model gets the rows themselves."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD

from epochtop.engine.job.prepare import prepare_job
from tests.support.engines import finished, losses, train_here
from tests.tasks.task_files import plain_task, task_file, task_spec

HALVES = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
    def forward(self, x):
        x.mul_(0.5)
        return self.fc(x)

def size(output, y):
    return output.abs().mean()

def make_task():
    return Task(model=Net(), train=(X, Y), test=(X[:20], Y[:20]), metrics={"size": size})
"""
IGNORES = HALVES.replace("x.mul_(0.5)\n", "pass\n").replace(
    "def make_task():",
    '''
def loss(output, y):
    y[y == 2] = -100
    return F.cross_entropy(output, y, reduction='sum') / len(y)

def make_task():''',
).replace("metrics=", "loss=loss, metrics=")  # fmt: skip
ONLY_IN_EVALUATION = HALVES.replace("x.mul_(0.5)", "x.mul_(0.5) if not self.training else None")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("batch_size", [0, 16])
@pytest.mark.parametrize("placement", ["device", "stream"])
@pytest.mark.parametrize("body", [HALVES, IGNORES, ONLY_IN_EVALUATION], ids=["input", "labels", "evaluation"])
def test_rows_stay_as_they_are(body: str, batch_size: int, placement: str, home: Path, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, body), batch_size=batch_size, placement=placement, eval_every=1e-9)
    run = train_here(spec, home)
    expected, task = plain_task(spec, partial(SGD, lr=0.1))
    np.testing.assert_array_equal(losses(run), expected)
    with torch.no_grad():
        x, y = (part.clone() for part in task.test)  # type: ignore[union-attr]
        output = task.model.eval()(x)
        assert finished(run).test_loss == pytest.approx(task.loss(output, y).item(), rel=1e-6)
        assert finished(run).test_metric == pytest.approx(output.abs().mean().item(), rel=1e-6)
    assert sum("every batch is a copy" in note for note in prepare_job(spec).notes) == 1


def test_timing_threads_leaves_the_rows_as_they_are(tmp_path: Path) -> None:
    job = prepare_job(task_spec(task_file(tmp_path, HALVES), batch_size=0, threads=0))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(job.batches()[0], torch.randn(65, 4, generator=generator))


def test_other_jobs_get_no_copies(tmp_path: Path) -> None:
    job = prepare_job(task_spec(task_file(tmp_path, HALVES.replace("x.mul_(0.5)", "x = x.mul(0.5)")), batch_size=0))
    assert job.batches()[0].data_ptr() == job.batches()[0].data_ptr()
    first, again = (next(iter(job.test))[0].data_ptr() for _ in range(2))
    assert first == again
    assert not [note for note in job.notes if "copy" in note]

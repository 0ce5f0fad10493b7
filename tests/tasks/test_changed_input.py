"""A model that changes its input in place gets copies of the rows; any other model gets the rows themselves."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD

from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.events import Failed
from tests.support.engines import Engine, events, finished, losses, train_here
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


# --- changes that the trial with two rows does not show --------------------------------------------------------

OF_LARGE_BATCHES = HALVES.replace("x.mul_(0.5)", "x.mul_(0.5) if CONDITION else None")


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("condition", ["len(x) > 40 and self.training", "len(x) > 2 and not self.training"])
def test_rows_that_are_changed_in_some_batches_only_end_the_run(
    condition: str, timed: bool, home: Path, tmp_path: Path
) -> None:
    """A plain loop over such rows would compute with changed ones from then on. Timed steps may notice it before the run."""
    task = task_file(tmp_path, OF_LARGE_BATCHES.replace("CONDITION", condition))
    with Engine() as engine:
        run = engine.train(task_spec(task, batch_size=0, threads=0 if timed else 1, eval_epochs=1), home)
        engine.wait()
    failed = next((event for event in events(run) if isinstance(event, Failed)), None)
    if failed is not None:
        assert "has changed the rows in place" in failed.message
        assert "task_file.py, line" in failed.message
        assert len(losses(run)) <= 1
    else:
        assert timed
        expected, _ = plain_task(task_spec(task, batch_size=0), partial(SGD, lr=0.1))
        np.testing.assert_array_equal(losses(run), expected)

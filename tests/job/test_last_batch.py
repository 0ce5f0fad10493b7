"""The last batch of an epoch is left out if the model cannot train on it, or if the spec says so."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD

from epochtop.engine.device.peak import Peak
from epochtop.engine.job import batch_size_finder
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.job.workload import load_workload
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.support.engines import finished, losses, train_here
from tests.tasks.task_files import plain_task, task_file, task_spec

NORMALIZED = """
def make_task():
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return Task(model=net, train=(X, Y), test=(X[:33], Y[:33]))
"""
PLAIN = NORMALIZED.replace("nn.BatchNorm1d(8), ", "")
SPREAD = PLAIN.replace(
    "def make_task",
    "def loss(output, y):\n    return F.cross_entropy(output, y) + output.std(0).sum()\n\ndef make_task",
).replace("test=", "loss=loss, test=")
IN_A_DATASET = NORMALIZED.replace("(X, Y)", "Pairs()").replace(
    "def make_task",
    "class Pairs(torch.utils.data.Dataset):\n"
    "    def __len__(self): return 65\n"
    "    def __getitem__(self, at): return X[at], Y[at]\n\n"
    "def make_task",
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def notes(spec: RunSpec) -> list[str]:
    return [note for note in prepare_job(spec).notes if "last batch" in note]


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_a_last_batch_of_one_row_is_left_out_for_batchnorm(placement: str, home: Path, tmp_path: Path) -> None:
    """As with `drop_last` of a DataLoader: 4 steps of 16 rows per epoch out of 65 rows."""
    spec = task_spec(task_file(tmp_path, NORMALIZED), placement=placement)
    run = train_here(spec, home)
    expected, _ = plain_task(spec, partial(SGD, lr=0.1), rows=64)
    np.testing.assert_array_equal(losses(run), expected)
    assert finished(run).steps == 4 * spec.epochs
    assert finished(run).epochs == spec.epochs
    assert notes(spec) == [
        "the model cannot train on the last batch of an epoch (1 row): every epoch leaves out 1 row, a different choice each time"
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataset_leaves_it_out_too(workers: int, home: Path, tmp_path: Path) -> None:
    run = train_here(task_spec(task_file(tmp_path, IN_A_DATASET), workers=workers), home)
    (tmp_path / "tensors").mkdir()
    spec = task_spec(task_file(tmp_path / "tensors", NORMALIZED))
    np.testing.assert_allclose(losses(run), plain_task(spec, partial(SGD, lr=0.1), rows=64)[0], rtol=1e-6)


def test_other_models_keep_it(home: Path, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, PLAIN))
    run = train_here(spec, home)
    np.testing.assert_array_equal(losses(run), plain_task(spec, partial(SGD, lr=0.1))[0])
    assert finished(run).steps == 5 * spec.epochs
    assert not notes(spec)


def test_a_first_row_without_a_label_is_no_reason_to_leave_it_out(home: Path, tmp_path: Path) -> None:
    """torch's loss of that row alone is NaN."""
    body = PLAIN.replace("def make_task", "Y[0] = -100\n\ndef make_task").replace("(X, Y)", "(X, Y.clone())")
    spec = task_spec(task_file(tmp_path, body), seed=4)
    run = train_here(spec, home)
    assert finished(run).steps == 5 * spec.epochs
    assert not notes(spec)


def test_a_last_test_batch_of_one_row_is_avoided_if_the_model_cannot_evaluate_it(home: Path, tmp_path: Path) -> None:
    """Without running statistics, BatchNorm refuses a single row in evaluation mode too."""
    body = NORMALIZED.replace("BatchNorm1d(8", "BatchNorm1d(8, track_running_stats=False")
    job = prepare_job(task_spec(task_file(tmp_path, body)))
    assert len(job.test) == 33
    assert 33 % job.test.size > 1
    assert finished(train_here(task_spec(task_file(tmp_path, body)), home)).test_loss is not None


def test_a_loss_that_is_nan_for_one_row_counts_as_a_failure(home: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="degrees of freedom"):
        run = train_here(task_spec(task_file(tmp_path, SPREAD)), home)
    assert finished(run).steps == 4 * 6
    assert np.isfinite(losses(run)).all()


@pytest.mark.parametrize(("choice", "steps"), [("drop", 4), ("keep", 5), ("auto", 5)])
def test_the_spec_decides(choice: str, steps: int, home: Path) -> None:
    """120 rows of Iris in batches of 26 leave 16 rows, which any model can train on."""
    spec = RunSpec(batch_size=26, epochs=3, last_batch=choice, threads=1, device="cpu", executor="eager")  # type: ignore[arg-type]
    assert finished(train_here(spec, home)).steps == 3 * steps


@pytest.mark.parametrize("executor", ["graph", "auto"])
def test_executors_agree(executor: str, home: Path) -> None:
    common = {"batch_size": 26, "epochs": 200, "last_batch": "drop", "threads": 1, "device": "cpu"}
    eager, other = (train_here(RunSpec(**common, executor=name), home) for name in ("eager", executor))  # type: ignore[arg-type]
    assert finished(other).steps == 800
    np.testing.assert_allclose(losses(other), losses(eager), rtol=1e-4)


def test_a_share_of_one_row_is_too_small(tmp_path: Path) -> None:
    """Two processes share the last batch of 65 - 60 = 5 rows well, but not that of 65 - 62 = 3 rows."""
    workload = load_workload(task_spec(task_file(tmp_path, NORMALIZED)))
    spec = task_spec("", processes=2)
    for batch_size, rows in ((15, 65), (31, 62), (16, 64), (3, 65)):
        fields = {name: getattr(spec, name) for name in ("processes", "last_batch")}
        assert workload.rows_per_epoch(RunSpec(batch_size=batch_size, **fields)) == rows, batch_size


def test_a_resnet_that_ends_in_one_pixel_leaves_it_out() -> None:
    """Images of 8×8 shrink to one pixel, so that BatchNorm has one value per channel for one row."""
    common = {"dataset": "digits", "model": "resnet", "width": 4, "layers": 1, "batch_size": 359, "threads": 1}
    workload = load_workload(RunSpec(**common))  # type: ignore[arg-type]
    assert len(workload.train) == 1437  # type: ignore[arg-type]
    for size, rest in ((359, 1), (718, 1), (100, 37)):
        rows = workload.rows_per_epoch(RunSpec(**(common | {"batch_size": size})))  # type: ignore[arg-type]
        images = torch.zeros(rest, *workload.shape)
        try:
            workload.model(RunSpec(**common)).train()(images)  # type: ignore[arg-type]
            assert rows == 1437
        except ValueError:
            assert rows == 1437 - rest


def test_batches_of_one_row_are_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot train on batches of 1 row") as error:
        prepare_job(task_spec(task_file(tmp_path, NORMALIZED), batch_size=1))
    assert error.value.field == "batch_size"
    assert prepare_job(task_spec(task_file(tmp_path, PLAIN), batch_size=1)).plan.steps_per_epoch == 65


def test_the_batch_size_finder_never_tries_one_row_of_such_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = task_spec(task_file(tmp_path, NORMALIZED))
    result = batch_size_finder.find(spec, load_workload(spec), margin=0.5)
    assert result.batch_size == 65
    assert min(size for size, _ in result.tries) == 2
    needed = Peak()
    needed.bytes = 2000  # what two rows really need may be free in the process already
    monkeypatch.setattr(batch_size_finder, "measured_peak", lambda _: nullcontext(needed))
    with pytest.raises(Invalid, match="not even a batch of 2 rows, the least for this model, fits"):
        batch_size_finder.find(spec, load_workload(spec), margin=0.5, available=1000)

"""Functions as metrics: means over rows are averaged, others are computed for all rows at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score
from torch import Tensor

from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.models import set_metric
from epochtop.engine.models.set_metric import MetricOfAllRows, depends_on_batches
from tests.support.engines import finished, train_here
from tests.tasks.task_files import plain_task, task_file, task_spec

BODY = """
def counts(output, y):
    chosen, actual = output.argmax(1) == 1, y == 1
    return (chosen & actual).sum(), chosen.sum(), actual.sum()

def f1(output, y):
    both, chosen, actual = counts(output, y)
    return 2 * both / (chosen + actual).clamp(min=1)

def precision(output, y):
    both, chosen, _ = counts(output, y)
    return both / chosen.clamp(min=1)

def accuracy(output, y):
    return (output.argmax(1) == y).float().mean()

def make_task():
    metrics = {"accuracy": accuracy, "f1": f1, "precision": precision}
    return Task(model=nn.Linear(4, 3), train=(X, Y), test=(X[:41], Y[:41]), metrics=metrics)
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("batch_size", [7, 16, 0])
def test_scores_of_a_set_are_those_of_scikit_learn_whatever_the_batch_size(
    batch_size: int, home: Path, tmp_path: Path
) -> None:
    spec = task_spec(task_file(tmp_path, BODY), batch_size=batch_size)
    scores = finished(train_here(spec, home)).metrics
    _, task = plain_task(spec, lambda weights: torch.optim.SGD(weights, lr=0.1))
    x, y = task.test  # type: ignore[misc]
    chosen, actual = task.model(x).argmax(1) == 1, y == 1
    assert scores["accuracy"] == pytest.approx((task.model(x).argmax(1) == y).float().mean().item())
    assert scores["f1"] == pytest.approx(f1_score(actual, chosen))
    assert scores["precision"] == pytest.approx(precision_score(actual, chosen, zero_division=0))
    assert (
        sum("computed for all evaluated rows at once: f1, precision" in note for note in prepare_job(spec).notes) == 1
    )


def geometric_mean(output: Tensor, y: Tensor) -> Tensor:
    return (output.squeeze(1) * y).abs().log().mean().exp()


def test_a_metric_of_too_many_rows_is_the_mean_of_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    output, y = (torch.from_numpy(generator.normal(size=shape)) for shape in ((30, 1), (30,)))
    assert depends_on_batches(geometric_mean, output, y, 30)
    monkeypatch.setattr(set_metric, "MOST_BYTES", 200)
    metric = MetricOfAllRows(geometric_mean)
    for _ in range(2):  # as two evaluations
        metric.reset()
        for part in torch.arange(30).split(8):
            metric.update(output[part], y[part])
        means = [float(geometric_mean(output[part], y[part])) * len(part) for part in torch.arange(30).split(8)]
        assert float(metric.compute()) == pytest.approx(sum(means) / 30)


@pytest.mark.parametrize("loss", ["nn.CrossEntropyLoss(reduction='sum')", "partial(F.cross_entropy, reduction='sum')"])
def test_a_loss_that_is_a_sum_is_reported(loss: str, tmp_path: Path) -> None:
    body = BODY.replace("metrics=metrics", f"loss={loss}").replace(
        "def counts", "from functools import partial\n\ndef counts"
    )
    assert [note for note in prepare_job(task_spec(task_file(tmp_path, body))).notes if "the loss is a sum" in note]

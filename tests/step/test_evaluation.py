"""An evaluation in batches has the loss and metrics of all rows at once, whatever structure rows and outputs have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from epochtop.engine.data.dataset import Rows
from epochtop.engine.step.evaluation import Evaluator, eval_batches
from epochtop.engine.step.losses import labeled_cross_entropy, loss_weight
from epochtop.engine.step.metrics import EvalMetrics, Metrics, Scores, TaskMetrics

CPU = torch.device("cpu")
ROWS = 53
SIZES = [53, 20, 7]
"""Rows per batch: one batch, and batches of which the last one is smaller."""

CHANCE = torch.Generator().manual_seed(0)
X = torch.randn(ROWS, 5, generator=CHANCE)
LABELS = torch.randint(0, 3, (ROWS,), generator=CHANCE)
WEIGHTS = torch.rand(ROWS, generator=CHANCE)


def layer() -> nn.Linear:
    """The same layer every time."""
    torch.manual_seed(3)
    return nn.Linear(5, 3)


LOGITS = layer()(X).detach()


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor


class Rowwise(Dataset[tuple[Any, Any]]):
    """Rows made by a function of their number."""

    def __init__(self, row: Callable[[int], tuple[Any, Any]]) -> None:
        self._row = row

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, at: int) -> tuple[Any, Any]:
        return self._row(at)


class Wrapped(nn.Module):
    """The layer, with an output made of its logits."""

    def __init__(self, output: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self._output = layer(), output

    def forward(self, x: Any) -> Any:
        return self._output(self.layer(x))


def evaluated(
    examples: Any, size: int, model: nn.Module, loss: Callable[[Any, Any], Tensor], metrics: EvalMetrics
) -> tuple[float | None, Scores]:
    """Loss and scores of an evaluation in batches of `size`."""
    evaluator = Evaluator(loss, metrics, CPU, loss_weight=loss_weight(loss))
    return evaluator.read(
        evaluator.evaluate(model, eval_batches(examples, CPU, resident=False, batch_rows=size, careful=True))
    )


def weighted(output: Tensor, y: Any) -> Tensor:
    """A loss with sample weights, which are a second label."""
    return (functional.cross_entropy(output, y[0], reduction="none") * y[1]).mean()


CASES: dict[str, tuple[Callable[[int], tuple[Any, Any]], Callable[[Tensor], Any], Callable[[Any, Any], Tensor]]] = {
    "labels in a dict": (
        lambda at: (X[at], {"label": LABELS[at]}), lambda logits: logits,
        lambda output, y: functional.cross_entropy(output, y["label"])),
    "outputs in a dict": (
        lambda at: (X[at], LABELS[at]), lambda logits: {"loss": None, "logits": logits},
        lambda output, y: functional.cross_entropy(output["logits"], y)),
    "outputs in a tuple": (
        lambda at: (X[at], LABELS[at]), lambda logits: (logits, logits.mean()),
        lambda output, y: functional.cross_entropy(output[0], y)),
    "outputs in a dataclass": (
        lambda at: (X[at], LABELS[at]), lambda logits: Output(None, logits),
        lambda output, y: functional.cross_entropy(output.logits, y)),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_nested_labels_and_outputs_have_the_loss_of_all_rows(name: str, size: int) -> None:
    row, output, loss = CASES[name]
    metrics = TaskMetrics({"again": loss})
    actual, scores = evaluated(Rowwise(row), size, Wrapped(output), loss, metrics)
    expected = float(functional.cross_entropy(LOGITS, LABELS))
    assert actual == pytest.approx(expected, rel=1e-6)
    assert scores.values["again"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_sample_weights_as_a_second_label(size: int) -> None:
    """A pair of labels has the length 2, which is not its number of rows."""
    rows = Rowwise(lambda at: (X[at], (LABELS[at], WEIGHTS[at])))
    actual, scores = evaluated(rows, size, layer(), weighted, TaskMetrics({"again": weighted}))
    expected = float((functional.cross_entropy(LOGITS, LABELS, reduction="none") * WEIGHTS).mean())
    assert actual == pytest.approx(expected, rel=1e-6)
    assert scores.values["again"] == pytest.approx(expected, rel=1e-6)


# --- labels that the default loss accepts ------------------------------------------------------------------

IGNORING = torch.where(torch.arange(ROWS) % 4 == 3, -100, LABELS)
ONE_BATCH_ONLY = torch.where(torch.arange(ROWS) < 3, LABELS, -100)
"""Labels in the first batch only: torch's cross entropy is NaN for the others."""
CLASS_WEIGHTS = torch.tensor([1.0, 5.0, 0.2])


class OwnName(nn.CrossEntropyLoss):
    """A subclass with torch's own arithmetic."""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("labels", [IGNORING, ONE_BATCH_ONLY], ids=["a quarter", "nearly all"])
@pytest.mark.parametrize(
    "loss",
    [
        functional.cross_entropy,
        nn.CrossEntropyLoss(weight=CLASS_WEIGHTS),
        nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, label_smoothing=0.1),
        partial(functional.cross_entropy, weight=CLASS_WEIGHTS),
        partial(functional.cross_entropy, ignore_index=1),
        nn.CrossEntropyLoss(ignore_index=2),
        OwnName(weight=CLASS_WEIGHTS),
    ],
    ids=[
        "function",
        "class weights",
        "smoothing",
        "partial with weights",
        "partial that ignores",
        "module that ignores",
        "subclass",
    ],
)
def test_ignored_labels_do_not_count(loss: Any, labels: Tensor, size: int) -> None:
    ignored = getattr(loss, "ignore_index", -100)
    if isinstance(loss, partial):
        ignored = loss.keywords.get("ignore_index", -100)
    y = torch.where(labels == -100, ignored, labels)
    metrics = Metrics("cross_entropy", 3, ignore_index=ignored)
    actual, scores = evaluated(Rows(X.numpy(), y.numpy()), size, layer(), loss, metrics)
    assert actual == pytest.approx(float(loss(LOGITS, y)), rel=1e-5)
    counted = y != ignored
    predicted = LOGITS.argmax(1)[counted]
    assert scores.values["accuracy"] == pytest.approx(float((predicted == y[counted]).float().mean()))
    assert scores.values["f1"] == pytest.approx(f1_score(y[counted], predicted, average="macro", zero_division=0))
    assert scores.confusion is not None
    assert sum(map(sum, scores.confusion)) == int(counted.sum())


@pytest.mark.parametrize("size", SIZES)
def test_probabilities_of_classes_count_as_their_most_probable_class(size: int) -> None:
    y = functional.one_hot(LABELS, 3) * 0.8 + 0.2 / 3
    actual, scores = evaluated(
        Rows(X.numpy(), y.numpy()),
        size,
        layer(),
        functional.cross_entropy,
        Metrics("cross_entropy", 3, ignore_index=-100),
    )
    assert actual == pytest.approx(float(functional.cross_entropy(LOGITS, y)), rel=1e-5)
    assert scores.values["accuracy"] == pytest.approx(float((LOGITS.argmax(1) == LABELS).float().mean()))


def test_a_batch_without_any_label_has_no_loss_and_no_gradient() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    loss = labeled_cross_entropy(logits, torch.full((4,), -100))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(4, 3))


def test_a_batch_with_labels_has_the_loss_and_gradient_of_torch() -> None:
    logits, reference = (LOGITS.clone().requires_grad_() for _ in range(2))
    labeled_cross_entropy(logits, IGNORING).backward()
    functional.cross_entropy(reference, IGNORING).backward()
    assert torch.equal(labeled_cross_entropy(logits, IGNORING), functional.cross_entropy(reference, IGNORING))
    assert logits.grad is not None
    assert reference.grad is not None
    assert torch.equal(logits.grad, reference.grad)


# --- metrics over all rows ---------------------------------------------------------------------------------


class F1:
    """Macro F1 that stays on the device; with `reset`."""

    def reset(self) -> None:
        self.counts = torch.zeros(3, 3)

    def update(self, output: Tensor, labels: Tensor) -> None:
        self.counts.index_put_((labels, output.argmax(1)), torch.ones(len(labels)), accumulate=True)

    def compute(self) -> Tensor:
        return (2 * self.counts.diagonal() / (self.counts.sum(0) + self.counts.sum(1))).mean()


class Auroc:
    """Area under the curve of class 0, by scikit-learn; without `reset`, and its result is a Python number."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []
        self.labels: list[Tensor] = []

    def update(self, output: Tensor, labels: Tensor) -> None:
        self.outputs.append(output[:, 0])
        self.labels.append(labels == 0)

    def compute(self) -> float:
        return float(roc_auc_score(torch.cat(self.labels), torch.cat(self.outputs)))


def accuracy(output: Tensor, labels: Tensor) -> Tensor:
    return (output.argmax(1) == labels).float().mean()


@pytest.mark.parametrize("size", SIZES)
def test_metrics_over_all_rows_do_not_depend_on_the_batch_size(size: int) -> None:
    metrics = TaskMetrics({"f1": F1(), "accuracy": accuracy, "auroc": Auroc()})
    assert metrics.main == "f1"
    predicted = LOGITS.argmax(1)
    expected = {
        "f1": f1_score(LABELS, predicted, average="macro"),
        "accuracy": float((predicted == LABELS).float().mean()),
        "auroc": roc_auc_score(LABELS == 0, LOGITS[:, 0]),
    }
    for _ in range(2):  # the second evaluation starts without rows
        _, scores = evaluated(Rows(X.numpy(), LABELS.numpy()), size, layer(), functional.cross_entropy, metrics)
        assert list(scores.values) == ["f1", "accuracy", "auroc"]
        assert scores.values == pytest.approx(expected)


def test_a_metric_that_is_a_module_moves_to_the_device() -> None:
    class Count(nn.Module):
        """As the metrics of torchmetrics: a module with a state on its device."""

        count: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def update(self, output: Tensor, labels: Tensor) -> None:
            self.count += 1

        def compute(self) -> Tensor:
            return self.count

    state = TaskMetrics({"count": Count()}).empty(torch.device("meta"))
    assert state.set_metrics["count"].count.is_meta  # type: ignore[attr-defined]

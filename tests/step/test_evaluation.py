"""An evaluation in batches has the loss and metrics of all rows at once, whatever structure rows and outputs have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from epochtop.engine.step.evaluation import Evaluator, TaskMetrics, eval_batches
from epochtop.engine.step.metrics import Scores

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
    examples: Any, size: int, model: nn.Module, loss: Callable[[Any, Any], Tensor], metrics: TaskMetrics
) -> tuple[float | None, Scores]:
    """Loss and scores of an evaluation in batches of `size`."""
    evaluator = Evaluator(loss, metrics, CPU)
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

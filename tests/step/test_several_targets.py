"""Metrics of several targets against scikit-learn, however the rows are divided into batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as published

from epochtop.engine.step.several_targets import SeveralLabels, SeveralNumbers

CPU = torch.device("cpu")
CHANCE = np.random.default_rng(3)


def scores(metrics: SeveralNumbers | SeveralLabels, output: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    state = metrics.empty(CPU)
    for start in range(0, len(output), 7):
        rows = slice(start, start + 7)
        metrics.add(state, torch.tensor(output[rows]), torch.tensor(labels[rows]), len(output[rows]))
    return metrics.read(metrics.flat(state), None).values


def test_numbers_are_those_of_scikit_learn_in_the_units_of_the_targets() -> None:
    output, labels, spreads = CHANCE.normal(size=(40, 3)), CHANCE.normal(size=(40, 3)), np.array([1.0, 10.0, 0.5])
    pair = labels * spreads, output * spreads
    assert scores(SeveralNumbers(spreads.tolist()), output, labels) == pytest.approx({
        "r2": published.r2_score(*pair),
        "mae": published.mean_absolute_error(*pair),
        "rmse": published.root_mean_squared_error(*pair),
    })  # fmt: skip


@pytest.mark.parametrize("count", [2, 5])
def test_labels_are_those_of_scikit_learn(count: int) -> None:
    output, labels = CHANCE.normal(size=(40, count)), (CHANCE.random((40, count)) < 0.3).astype(np.float32)
    predicted = output > 0
    assert scores(SeveralLabels(count), output, labels) == pytest.approx({
        "f1": published.f1_score(labels, predicted, average="macro"),
        "exact_match": published.accuracy_score(labels, predicted),
        "label_accuracy": 1 - published.hamming_loss(labels, predicted),
    })  # fmt: skip


def test_what_the_rows_do_not_define_is_unknown() -> None:
    assert scores(SeveralLabels(2), np.full((3, 2), -1.0), np.zeros((3, 2), np.float32))["f1"] is None
    assert scores(SeveralNumbers([1.0, 1.0]), np.ones((3, 2)), np.zeros((3, 2)))["r2"] is None
    assert scores(SeveralNumbers([1.0, 1.0]), np.ones((0, 2)), np.zeros((0, 2))) == {}

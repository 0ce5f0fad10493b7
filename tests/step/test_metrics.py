"""Metrics counted on the device, batch by batch, equal scikit-learn's over all rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
    top_k_accuracy_score,
)
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from epochtop.engine.step.metrics import MAX_CONFUSION_CLASSES, Metrics, Scores

CPU = torch.device("cpu")
rows = st.integers(1, 60)
seeds = st.integers(0, 2**31)


def scored(metrics: Metrics, output: Tensor, labels: Tensor, cuts: list[int], loss: float | None = None) -> Scores:
    """The scores of rows in batches that end at `cuts`."""
    state = metrics.empty(CPU)
    for some, theirs in zip(output.tensor_split(cuts), labels.tensor_split(cuts), strict=True):
        if len(some):
            metrics.add(state, some, theirs, len(some))
    return metrics.read(metrics.flat(state), loss)


@settings(deadline=None, max_examples=60)
@given(count=rows, seed=seeds, classes=st.sampled_from([2, 3, 6, 10, MAX_CONFUSION_CLASSES + 3]), cut=rows)
def test_classes(count: int, seed: int, classes: int, cut: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    output = torch.randn(count, classes, generator=chance)
    labels = torch.randint(classes, (count,), generator=chance)
    scores = scored(Metrics("cross_entropy", classes), output, labels, [cut, cut + 3])
    predicted = output.argmax(1)
    expected: dict[str, float] = {
        "accuracy": accuracy_score(labels, predicted),
        "f1": f1_score(labels, predicted, average="macro", zero_division=0),
    }
    if classes > 5:
        expected["top5"] = top_k_accuracy_score(labels, output, k=5, labels=range(classes))
    assert scores.values == pytest.approx(expected)
    if classes > MAX_CONFUSION_CLASSES:
        assert scores.confusion is None
    else:
        matrix = confusion_matrix(labels, predicted, labels=range(classes))
        np.testing.assert_array_equal(np.array(scores.confusion), matrix)


@settings(deadline=None, max_examples=40)
@given(count=rows, seed=seeds, cut=rows)
def test_two_classes_with_one_output(count: int, seed: int, cut: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    output, labels = torch.randn(count, 1, generator=chance), torch.randint(2, (count,), generator=chance).float()
    scores = scored(Metrics("binary_cross_entropy", 1), output, labels, [cut])
    predicted = output[:, 0] > 0
    assert scores.values["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert scores.values["f1"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    np.testing.assert_array_equal(np.array(scores.confusion), confusion_matrix(labels, predicted, labels=[0, 1]))


@settings(deadline=None, max_examples=40)
@given(count=st.integers(2, 60), seed=seeds, cut=rows, spread=st.floats(0.01, 1000))
def test_numbers_in_the_units_of_the_target(count: int, seed: int, cut: int, spread: float) -> None:
    chance = torch.Generator().manual_seed(seed)
    output, labels = torch.randn(count, 1, generator=chance), torch.randn(count, generator=chance)
    scores = scored(Metrics("mean_squared_error", 1, spread), output, labels, [cut])
    raw, theirs = labels.double() * spread, output[:, 0].double() * spread
    assert scores.values["r2"] == pytest.approx(r2_score(raw, theirs), rel=1e-9)
    assert scores.values["mae"] == pytest.approx(mean_absolute_error(raw, theirs), rel=1e-9)
    assert scores.values["rmse"] == pytest.approx(root_mean_squared_error(raw, theirs), rel=1e-9)


def test_equal_targets_have_no_r2() -> None:
    assert scored(Metrics("mean_squared_error", 1), torch.randn(4, 1), torch.ones(4), []).values["r2"] is None


def test_characters_cost_bits() -> None:
    """A uniform prediction needs log2 of the alphabet's size per character: 3 bits for 8 characters."""
    output, following = torch.zeros(5, 7, 8), torch.randint(8, (5, 7)).to(torch.uint8)
    loss = float(functional.cross_entropy(output.flatten(0, 1), following.flatten().long()))
    scores = scored(Metrics("next_character", 8), output, following, [2], loss)
    assert scores.values["bits_per_character"] == pytest.approx(3.0)
    assert scores.values["accuracy"] == pytest.approx(float((following == 0).double().mean()))


class Reads(TorchDispatchMode):
    """Fails on operators that copy a value to the host or need one there."""

    READING = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "is_nonzero", "unique", "_to_copy.cpu")

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        assert not any(name in str(function) for name in self.READING), function
        return function(*args, **(kwargs or {}))


def test_a_read_is_detected() -> None:
    with pytest.raises(AssertionError), Reads():
        torch.ones(1).item()


@pytest.mark.parametrize(
    ("metrics", "output", "labels"),
    [
        (Metrics("cross_entropy", 10), (9, 10), lambda: torch.randint(10, (9,))),
        (Metrics("cross_entropy", 200), (9, 200), lambda: torch.randint(200, (9,))),
        (Metrics("cross_entropy", 10, ignore_index=-100), (9, 10), lambda: torch.tensor([-100, 3, 1] * 3)),
        (Metrics("cross_entropy", 10, ignore_index=-100), (9, 10), lambda: torch.rand(9, 10)),
        (Metrics("binary_cross_entropy", 1), (9, 1), lambda: torch.ones(9)),
        (Metrics("mean_squared_error", 1), (9, 1), lambda: torch.ones(9)),
        (Metrics("next_character", 8), (9, 4, 8), lambda: torch.randint(8, (9, 4))),
    ],
)
def test_counting_reads_nothing_back(metrics: Metrics, output: tuple[int, ...], labels: Callable[[], Tensor]) -> None:
    some, theirs = torch.randn(output), labels()
    state = metrics.empty(CPU)
    with Reads():
        metrics.add(state, some, theirs, len(some))
        metrics.flat(state)

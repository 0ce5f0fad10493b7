"""A loss that is not finite: rows and labels are checked before a lower learning rate is advised."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochtop.engine.protocol.spec import RunSpec
from tests.support.engines import finished, train_here

SOURCE = """\
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from epochtop import Task

X = torch.randn(65, 4, generator=torch.Generator().manual_seed(1))
Y = X.sum(1)
{plant}

class Pairs(Dataset):
    def __len__(self):
        return len(X)
    def __getitem__(self, number):
        return X[number], {item}

def loss(output, y):
    return {loss}

def make_task():
    return Task(model=nn.Linear(4, 1), train={train}, loss=loss)
"""
MSE = "nn.functional.mse_loss(output.squeeze(1), y)"


def advice(
    folder: Path, plant: str = "", train: str = "(X, Y)", item: str = "Y[number]", loss: str = MSE, rate: float = 0.05
) -> str:
    """The advice of a run that diverges."""
    file = folder / "planted.py"
    file.write_text(SOURCE.format(plant=plant, train=train, item=item, loss=loss))
    spec = RunSpec(task=f"{file}:make_task", device="cpu", threads=1, epochs=200, batch_size=16, learning_rate=rate)
    end = finished(train_here(spec, folder / "runs"))
    assert end.outcome == "diverged"
    return end.advice


@pytest.mark.parametrize("train", ["(X, Y)", "Pairs()"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_the_label_that_is_not_finite_is_named(tmp_path: Path, train: str, value: str) -> None:
    line = advice(tmp_path, f"Y[40] = float('{value}')", train)
    assert "label of training row 40" in line
    assert "learning rate" not in line


@pytest.mark.parametrize("train", ["(X, Y)", "Pairs()"])
def test_the_row_that_is_not_finite_is_named(tmp_path: Path, train: str) -> None:
    line = advice(tmp_path, "X[17, 2] = float('nan')", train)
    assert "a value of training row 17" in line
    assert "learning rate" not in line


def test_numpy_labels_of_a_dataset_are_checked_too(tmp_path: Path) -> None:
    plant = "Z = Y.numpy().copy(); Z[3] = np.nan"
    assert "label of training row 3 " in advice(tmp_path, plant, "Pairs()", item="Z[number]")


def test_a_first_loss_that_is_not_finite_is_not_blamed_on_the_learning_rate(tmp_path: Path) -> None:
    line = advice(tmp_path, loss="torch.log(output.squeeze(1) * 0).mean() * y.sum()")
    assert "before the first update" in line
    assert "learning rate" not in line


def test_finite_data_and_a_learning_rate_that_is_too_high(tmp_path: Path) -> None:
    assert advice(tmp_path, rate=100.0) == "lower the learning rate: 100 is too high, try 10"

"""A loss that is not finite: rows and labels are checked before a lower learning rate is advised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epochtop.engine.job import state
from epochtop.engine.job.failures import divergence_advice
from epochtop.engine.job.prepare import prepare_job
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
    return Task(model={model}, train={train}, loss=loss)
"""
MSE = "nn.functional.mse_loss(output.squeeze(1), y)"


def advice(
    folder: Path,
    plant: str = "",
    train: str = "(X, Y)",
    item: str = "Y[number]",
    loss: str = MSE,
    rate: float = 0.05,
    model: str = "nn.Linear(4, 1)",
    optimizer: str = "sgd",
) -> str:
    """The advice of a run that diverges."""
    file = folder / "planted.py"
    file.write_text(SOURCE.format(plant=plant, train=train, item=item, loss=loss, model=model))
    spec = RunSpec(
        task=f"{file}:make_task",
        device="cpu",
        threads=1,
        epochs=200,
        batch_size=16,
        learning_rate=rate,
        optimizer=optimizer,  # type: ignore[arg-type]
    )
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
    assert line.startswith("the loss of finite outputs is infinite in step 0")
    assert "learning rate" not in line


def test_finite_data_and_a_learning_rate_that_is_too_high(tmp_path: Path) -> None:
    assert advice(tmp_path, rate=100.0) == "lower the learning rate: 100 is too high, try 10"


def test_a_loss_of_finite_outputs_is_distinguished_from_outputs(tmp_path: Path) -> None:
    """The loss takes a logarithm of 0 for a row that comes late; a smaller learning rate would not help."""
    plant = "Y[40] = 500.0"
    line = advice(
        tmp_path, plant, loss="torch.log((y != 500).float()).mean() * 0 + nn.functional.mse_loss(output.squeeze(1), y)"
    )
    assert line.startswith("the loss of finite outputs is NaN in step ")
    assert "learning rate" not in line


ROOT = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 1)
        self.scale = nn.Parameter(torch.ones(1))
    def forward(self, x):
        return {output}
"""


def test_a_gradient_that_is_not_finite_is_named_with_its_step(tmp_path: Path) -> None:
    """The loss of the step is finite: the root of 0 is 0, but its slope is infinite, and 0 times infinite is NaN."""
    plant = "X[40] = 0.0" + ROOT.format(
        output="self.fc(x) * self.scale + 0 * x.norm(dim=1, keepdim=True).mul(self.scale).sqrt()"
    )
    line = advice(tmp_path, plant, model="Net()")
    assert "the gradient of 'scale' is NaN in step " in line
    assert "although the loss is finite" in line
    assert "learning rate" not in line


def test_the_layer_whose_output_is_not_finite_is_named(tmp_path: Path) -> None:
    plant = (
        "X[40] = 0.0"
        """
class Unit(nn.Module):
    def forward(self, x):
        return x / x.norm(dim=1, keepdim=True)
"""
    )
    line = advice(tmp_path, plant, model="nn.Sequential(Unit(), nn.Linear(4, 1))")
    assert line.startswith("the output of layer '0' (Unit) is not finite in step ")
    assert "learning rate" not in line


def test_a_weight_that_is_not_finite_from_the_start_is_named(tmp_path: Path) -> None:
    plant = "FC = nn.Linear(4, 1); FC.bias.data.fill_(float('nan'))"
    assert "the weight 'bias' is NaN before the first step" in advice(tmp_path, plant, model="FC")


def test_the_search_begins_at_the_last_checkpoint(tmp_path: Path) -> None:
    """Steps before it are not repeated, so a run that diverges after a long time is searched too."""
    source = SOURCE.format(
        plant="X[40] = 0.0" + ROOT.format(output="self.fc(x) + 0 * x.norm(dim=1, keepdim=True).sqrt() * self.scale.sqrt()"),
        train="(X, Y)", item="", loss=MSE, model="Net()",
    )  # fmt: skip
    file = tmp_path / "planted.py"
    file.write_text(source)
    job = prepare_job(RunSpec(task=f"{file}:make_task", device="cpu", threads=1, epochs=200, batch_size=16))
    with torch.no_grad():
        job.parts.parameters[job.names.index("scale")].zero_()
    tensors, values = state.capture(job)
    line = divergence_advice(job, 10_000_000, lambda _: 0.01, tensors, values, 9_999_990)
    assert "is NaN in step 9,999,99" in line


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weights_that_explode_are_blamed_on_the_learning_rate(tmp_path: Path, optimizer: str) -> None:
    model = "nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))"
    line = advice(tmp_path, rate=1e30 if optimizer == "adam" else 50.0, model=model, optimizer=optimizer)
    assert line.startswith("lower the learning rate: ")

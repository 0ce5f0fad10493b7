"""The example of docs/tasks.md: a custom model, loss and metric on a custom table, from the file to learned weights."""

from __future__ import annotations

import re
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

import epochtop
from epochtop.engine.data.dataset import Rows
from epochtop.engine.device.row_types import input_array
from epochtop.engine.models.summary import memory_bytes, scaled
from epochtop.engine.models.trace import measure
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.tasks.loader import load_task
from epochtop.engine.tasks.task import Task
from tests.architecture.test_imports import loaded, third_parties

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


@pytest.fixture
def houses(tmp_path: Path) -> str:
    """The example as a user has it: its file, and a table next to it."""
    with resources.as_file(resources.files("epochtop") / "engine" / "tasks" / "example.py") as example:
        shutil.copy(example, tmp_path / "houses.py")
    draw = np.random.default_rng(3)
    area, rooms, age = draw.uniform(30, 200, 400), draw.integers(1, 7, 400), draw.uniform(0, 80, 400)
    price = 3000 * area + 20_000 * rooms - 1500 * age
    table = np.stack((area, rooms, age, price), axis=1)
    np.savetxt(tmp_path / "houses.csv", table, delimiter=",", header="area,rooms,age,price", comments="")
    return f"{tmp_path / 'houses.py'}:make_task"


def test_the_documentation_shows_the_example() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    example = resources.files("epochtop").joinpath("engine/tasks/example.py").read_text(encoding="utf-8")
    assert example in blocks


def test_the_example_learns(houses: str) -> None:
    torch.manual_seed(1)
    task = load_task(houses)
    train, test = task.examples("train"), task.examples("test")
    assert isinstance(train, Rows)
    assert isinstance(test, Rows)
    assert (len(train), len(test), len(task.examples("validation"))) == (320, 80, 0)  # type: ignore[arg-type]
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    weights = list(task.model.parameters())
    optimizer = torch.optim.Adam(weights, lr=0.01)
    error = task.metrics["mean error"]
    held_out = torch.from_numpy(test.x), torch.from_numpy(test.y)
    before = error(task.model(held_out[0]), held_out[1]).item()
    for _ in range(200):
        for weight, gradient in zip(weights, torch.autograd.grad(task.loss(task.model(x), y), weights), strict=True):
            weight.grad = gradient
        optimizer.step()
    assert error(task.model(held_out[0]), held_out[1]).item() < 0.05 * before


def test_its_layers_and_memory_are_known_before_it_trains(houses: str) -> None:
    task = load_task(houses)
    summary = measure(task.model, task.batch()[0], 2)
    assert summary.parameters == (3 * 32 + 32) + (32 * 32 + 32) + 33
    assert scaled(summary, 64).layers[0].output == (64, 32)
    assert memory_bytes(RunSpec(optimizer="adam"), scaled(summary, 64)) > 4 * 5 * summary.parameters


def test_the_same_seed_gives_the_same_weights(houses: str) -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(9)
        models.append(load_task(houses).model.state_dict())
    for name, weight in models[0].items():
        assert torch.equal(models[1][name], weight)


class Squares(Dataset[tuple[torch.Tensor, int]]):
    """A map-style dataset."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, at: int) -> tuple[torch.Tensor, int]:
        return torch.full((4,), float(at)), at % 3


def test_a_dataset_stays_one_and_its_first_rows_make_a_batch() -> None:
    task = Task(model=torch.nn.Linear(4, 3), train=Squares())
    assert isinstance(task.examples("train"), Squares)
    x, y = task.batch(3)
    assert torch.equal(x, torch.tensor([[0.0] * 4, [1.0] * 4, [2.0] * 4]))
    assert torch.equal(y, torch.tensor([0, 1, 2]))


def test_a_dataset_of_two_tensors_is_rows() -> None:
    x, y = torch.rand(6, 4), torch.arange(6)
    rows = Task(model=torch.nn.Linear(4, 3), train=TensorDataset(x, y)).examples("train")
    assert isinstance(rows, Rows)
    np.testing.assert_array_equal(rows.x, x.numpy())
    np.testing.assert_array_equal(rows.y, y.numpy())


@pytest.mark.parametrize(
    ("dtype", "stored", "computed"),
    [
        ("float64", "float32", "float32"),
        ("float16", "float32", "float32"),
        (">f4", "float32", "float32"),
        ("uint16", "uint16", "int64"),
        ("uint8", "uint8", "uint8"),
        ("int64", "int64", "int64"),
        ("bool", "bool", "bool"),
    ],
)
def test_arrays_get_types_that_torch_computes_with(dtype: str, stored: str, computed: str) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    rows = Task(model=torch.nn.Linear(2, 2), train=(array, array[:, 0])).examples("train")
    assert isinstance(rows, Rows)
    assert rows.x.dtype == rows.y.dtype == np.dtype(stored)
    assert input_array(rows.x).dtype == np.dtype(computed)
    np.testing.assert_array_equal(rows.x, array)
    assert torch.from_numpy(rows.x).shape == (2, 2)


def test_task_is_a_public_name_that_costs_nothing_until_it_is_used() -> None:
    assert epochtop.Task is Task
    assert "torch" in loaded("import epochtop; epochtop.Task")
    assert third_parties(loaded("import epochtop; hasattr(epochtop, 'Nothing')")) == set()
    with pytest.raises(AttributeError, match="'epochtop' has no attribute 'Tusk'"):
        _ = epochtop.Tusk

"""Workers of a DataLoader draw other random numbers in every epoch and batch, and the same ones after a resume."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from epochtop.engine.step.batches import DataShard, LoaderBatches

CPU = torch.device("cpu")
ROWS, SIZE = 12, 4
BATCHES = ROWS // SIZE


class Draws(Dataset[Any]):
    """A row is a draw of every generator; its label is its number."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        info = get_worker_info()
        assert info is None or info.dataset is self
        return torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))], dtype=torch.float64), row


class DrawsAtOnce(Draws):
    """The same, fetched by batches."""

    def __getitems__(self, rows: list[int]) -> list[tuple[Tensor, int]]:
        assert type(rows) is list
        return [self[row] for row in rows]


def loader(workers: int, rank: int = 0, dataset: Dataset[Any] | None = None, world_size: int = 1) -> LoaderBatches:
    """Batches of one process."""
    return LoaderBatches(dataset or Draws(), SIZE, 1, DataShard(rank, world_size), CPU, workers)


def epochs(batches: LoaderBatches, count: int) -> Tensor:
    """Draws of whole epochs, (batches, rows, generators)."""
    return torch.stack([batches()[0] for _ in range(count * BATCHES)])


@pytest.mark.parametrize("dataset", [Draws(), DrawsAtOnce()])
def test_no_number_is_drawn_twice(dataset: Draws) -> None:
    drawn = epochs(loader(2, dataset=dataset), 4)
    for generator in range(3):
        assert len(drawn[..., generator].unique()) == 4 * ROWS


def test_the_numbers_do_not_depend_on_how_many_workers_there_are() -> None:
    assert torch.equal(epochs(loader(1), 2), epochs(loader(2), 2))


@pytest.mark.parametrize("taken", range(1, 2 * BATCHES))
def test_a_resumed_run_draws_the_numbers_of_an_uninterrupted_one(taken: int) -> None:
    straight = loader(2)
    for _ in range(taken):
        straight()
    state, position = straight.state_dict(), straight.position
    expected = epochs(straight, 1)
    resumed = loader(2)
    resumed.load_state_dict(state, position)
    assert torch.equal(epochs(resumed, 1), expected)


def test_processes_draw_different_numbers() -> None:
    drawn = [batches.next_batches(1)[0].x for batches in (loader(1, rank, world_size=2) for rank in (0, 1))]
    assert len(torch.cat(drawn)[:, 0].unique()) == sum(len(x) for x in drawn)


def test_workers_do_not_change_the_order_of_the_rows() -> None:
    """The order of an epoch is drawn as before: torch's permutation with the seed of the run."""
    batches, generator = loader(2), torch.Generator().manual_seed(1)
    for _ in range(3):
        rows = torch.cat([batches()[1] for _ in range(BATCHES)])
        assert torch.equal(rows, torch.randperm(ROWS, generator=generator))


def test_workers_leave_the_generators_of_training_alone() -> None:
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    epochs(loader(2), 2)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state[1:]  # type: ignore[index,union-attr]

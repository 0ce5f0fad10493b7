"""More rows than a list of numbers should hold: each row once per epoch, another order every epoch, and exact resumption."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from epochtop.engine.data.dataset import Rows
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.step.batches import (
    DataShard,
    LoaderBatches,
    ResidentBatches,
    ShuffledBatches,
    StreamedBatches,
    row_order,
)
from tests.support.simulated_device import on_device, simulated_gpu

CPU = torch.device("cpu")
ROWS = 53
ALONE = DataShard()


class Numbers(Dataset[Any]):
    """Rows whose label is their number."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> tuple[float, int]:
        return float(row), row


def batches_of(kind: str, seed: int = 4, share: DataShard = ALONE, per_epoch: int | None = None) -> ShuffledBatches:
    """Batches of 10 rows per process, out of 53."""
    x, y = torch.arange(ROWS, dtype=torch.float32).reshape(ROWS, 1), torch.arange(ROWS)
    match kind:
        case "resident":
            return ResidentBatches(x, y, 10, seed, share, per_epoch)
        case "streamed":
            return StreamedBatches(Rows(x.numpy(), y.numpy()), 10, seed, share, CPU, per_epoch)
        case _:
            return LoaderBatches(Numbers(ROWS), 10, seed, share, CPU, 2 if kind == "workers" else 0, per_epoch)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders of more than 20 rows are computed, 7 numbers at a time."""
    monkeypatch.setattr(row_order, "MOST_LISTED_ROWS", 20)
    monkeypatch.setattr(row_order, "COMPUTED_ROWS", 7)


def epoch(batches: ShuffledBatches) -> list[int]:
    """The labels of an epoch."""
    return [int(label) for _ in range(batches.per_epoch) for label in batches()[1]]


KINDS = ["resident", "streamed", "loaded", "workers"]


@pytest.mark.usefixtures("computed")
@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_has_every_row_once_in_an_order_of_its_own(kind: str) -> None:
    batches = batches_of(kind)
    epochs = [epoch(batches) for _ in range(3)] + [epoch(batches_of(kind, seed=5))]
    assert all(sorted(rows) == list(range(ROWS)) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 4
    assert epoch(batches_of(kind)) == epochs[0]


@pytest.mark.usefixtures("computed")
def test_all_kinds_of_batches_have_the_same_order() -> None:
    assert len({tuple(epoch(batches_of(kind))) for kind in KINDS}) == 1


@pytest.mark.usefixtures("computed")
def test_an_epoch_without_its_last_batch_leaves_out_other_rows_each_time() -> None:
    batches = batches_of("loaded", per_epoch=50)
    left_out = [set(range(ROWS)) - set(epoch(batches)) for _ in range(3)]
    assert [len(rows) for rows in left_out] == [3, 3, 3]
    assert left_out[0] != left_out[1]


@pytest.mark.usefixtures("computed")
@pytest.mark.parametrize("kind", ["resident", "streamed", "loaded"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_share_every_batch(kind: str, accumulate: int) -> None:
    everyone = [batches_of(kind, share=DataShard(rank, 2)) for rank in (0, 1)]
    steps = -(-everyone[0].per_epoch // accumulate)
    taken = [
        batch.y
        for _ in range(steps)
        for batches in everyone
        for batch in batches.next_batches(accumulate)
        if batch.weight
    ]
    assert torch.cat(taken).sort().values.tolist() == list(range(ROWS))


@pytest.mark.usefixtures("computed")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("taken", [0, 1, 4, 6, 9])
def test_a_restored_order_continues_in_the_middle_of_an_epoch(kind: str, taken: int) -> None:
    straight = batches_of(kind)
    for _ in range(taken):
        straight()
    state, position = {name: tensor.clone() for name, tensor in straight.state_dict().items()}, straight.position
    resumed = batches_of(kind, seed=99)
    resumed.load_state_dict(state, position)
    assert [resumed()[1].tolist() for _ in range(13)] == [straight()[1].tolist() for _ in range(13)]
    assert sum(tensor.numel() for name, tensor in state.items() if name != "generator") == 1


def test_a_list_in_a_checkpoint_is_continued_with_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of a version that listed any number of rows keeps its order."""
    straight = batches_of("loaded")
    straight()
    state, position = straight.state_dict(), straight.position
    monkeypatch.setattr(row_order, "MOST_LISTED_ROWS", 20)
    resumed = batches_of("loaded")
    resumed.load_state_dict(state, position)
    monkeypatch.undo()
    assert [resumed()[1].tolist() for _ in range(13)] == [straight()[1].tolist() for _ in range(13)]


def test_few_rows_have_the_order_of_torch() -> None:
    generator = torch.Generator().manual_seed(4)
    batches = batches_of("resident")
    for _ in range(2):
        assert epoch(batches) == torch.randperm(ROWS, generator=generator).tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_billion_rows_need_no_memory(workers: int) -> None:
    rows = 10**9
    tracemalloc.start()
    try:
        batches = LoaderBatches(Numbers(rows), 32, 1, ALONE, CPU, workers)
        labels = torch.cat([batches()[1] for _ in range(200)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(labels.unique()) == 200 * 32
    assert int(labels.max()) > 0.99 * rows  # the largest of 6,400 draws
    assert peak < 10_000_000  # a bit for each row would need 125 MB
    state = batches.state_dict()
    assert sum(tensor.nbytes for tensor in state.values()) < 10_000


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.float64, np.float16, np.uint8, np.float32])
@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_rows_keep_their_type_until_the_step(kind: str, dtype: Any) -> None:
    """A step gets what it would get if all rows were converted first."""
    x = np.random.default_rng(0).uniform(0, 250, (ROWS, 3)).astype(dtype)
    y = np.arange(ROWS, dtype=np.uint16)
    if kind == "resident":
        batches: ShuffledBatches = ResidentBatches(torch.from_numpy(x), torch.from_numpy(y), 10, 4, ALONE)
        assert isinstance(batches, ResidentBatches)
        assert batches.x.untyped_storage().nbytes() == x.nbytes
    else:
        batches = StreamedBatches(Rows(x, y), 10, 4, ALONE, CPU)
    wide = {"u": np.int64, "f": np.float32}[x.dtype.kind] if dtype is not np.uint8 else np.uint8
    converted = torch.from_numpy(x.astype(wide))
    plain = ResidentBatches(converted, torch.arange(ROWS), 10, 4, ALONE)
    for _ in range(7):
        batch, expected = batches(), plain()
        assert same(batch[0], expected[0])
        assert same(batch[1], expected[1])


def same(a: Tensor, b: Tensor) -> bool:
    """Whether type and values are equal."""
    return a.dtype == b.dtype and torch.equal(a, b)


def test_resident_and_streamed_rows_on_a_gpu_have_the_order_of_the_cpu() -> None:
    """Drawn on the device, the order depended on the placement of the rows, and a run could not continue elsewhere."""
    rows, gpu = Rows(np.arange(30.0, dtype=np.float32)[:, None], np.arange(30)), torch.device("cuda", 0)
    on_cpu = ResidentBatches(torch.from_numpy(rows.x), torch.from_numpy(rows.y), 7, 5, DataShard())
    expected = [on_cpu()[1].tolist() for _ in range(12)]
    with simulated_gpu() as device:
        resident = ResidentBatches(
            on_device(torch.from_numpy(rows.x)), on_device(torch.from_numpy(rows.y)), 7, 5, DataShard()
        )
        streamed = StreamedBatches(rows, 7, 5, DataShard(), gpu)
        taken = [(resident()[1], streamed()[1]) for _ in range(5)]
        saved = {name: tensor.cpu().clone() for name, tensor in resident.state_dict().items()}
        elsewhere = StreamedBatches(rows, 7, 5, DataShard(), gpu)
        elsewhere.load_state_dict(saved, resident.position)
        taken += [(resident()[1], elsewhere()[1]) for _ in range(7)]
        device.finish()
    assert [one.held.tolist() for one, _ in taken] == expected
    assert [other.held.tolist() for _, other in taken] == expected


def test_an_order_that_an_earlier_version_drew_on_a_gpu_is_refused() -> None:
    batches = StreamedBatches(Rows(np.zeros((9, 1)), np.zeros(9)), 4, 5, DataShard(), torch.device("cpu"))
    state = {"order": torch.arange(9), "generator": torch.zeros(16, dtype=torch.uint8)}
    with pytest.raises(Invalid, match="start a new run"):
        batches.load_state_dict(state, 4)

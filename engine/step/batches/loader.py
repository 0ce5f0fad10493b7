"""Batches of the user's Dataset, loaded by torch's DataLoader, in this process or by workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from epochtop.engine.device import generators
from epochtop.engine.models.checked_rows import batch_of, collation_of, users_dataset
from epochtop.engine.step.batches.batch import Batch, DataShard, move, part_of, rows_of_part
from epochtop.engine.step.batches.row_order import RowOrder
from epochtop.engine.step.batches.shuffled import ShuffledBatches


class LoaderBatches(ShuffledBatches):
    """Examples of a map-style Dataset, batched by a DataLoader; the order is drawn here.

    Every batch that a worker loads has its own random numbers. They depend on the seed, epoch, batch and process only, not
    on the number of workers, so a run that continues in the middle of an epoch repeats them.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        size: int,
        seed: int,
        shard: DataShard,
        device: torch.device,
        workers: int,
        per_epoch: int | None = None,
    ) -> None:
        super().__init__(len(dataset), size, seed, shard, torch.device("cpu"), per_epoch)  # type: ignore[arg-type]
        self._rank = shard.rank
        self._dataset, self._target, self._workers = dataset, device, workers
        self._loader: Iterator[Any] | None = None

    def _pick(self, chosen: Tensor) -> tuple[Any, Any]:
        raise NotImplementedError("batches of a Dataset come in order")

    def __call__(self) -> tuple[Any, Any]:
        batch = self.next_batches(1)[0]
        return batch.x, batch.y

    def next_batches(self, count: int) -> list[Batch]:
        if self.position >= self._rows:
            self._begin_epoch()
            self._loader = None
        if self._loader is None:
            self._loader = self._load()
        total = min(self._rows, self.position + count * self._size) - self.position
        batches = []
        for _ in range(-(-total // self._size)):
            rows = rows_of_part(min(self._size, self._rows - self.position), self._shard)
            x, y = batch_of(next(self._loader))
            batches.append(Batch(move(x, self._target), move(y, self._target), rows * self._shard.world_size / total))
            self.position += self._size
        return batches

    def _load(self) -> Iterator[Any]:
        left = range(self.position, self._rows, self._size)
        batches: Iterable[list[int]] = _row_numbers(self._order, left, self._rows, self._shard)
        dataset = self._dataset
        if self._workers:
            batches = map(NumberedBatch, batches, count(self.position // self._size))
            dataset = SeededDataset(dataset, self._epoch_seed(), self._rank)
        return iter(
            DataLoader(
                dataset,
                batch_sampler=batches,
                collate_fn=collation_of(self._dataset),
                num_workers=self._workers,
                worker_init_fn=dataset.expose if isinstance(dataset, SeededDataset) else None,
                multiprocessing_context="fork"
                if self._workers
                else None,  # only this process has imported the user's module
                pin_memory=self._target.type == "cuda",
                # else the loader would draw from the generator of dropout
                generator=torch.Generator().manual_seed(self._generator.initial_seed()),
            )
        )

    def _epoch_seed(self) -> int:
        """A number of the current epoch. It is drawn from a copy of the generator: the next order does not depend on it."""
        generator = torch.Generator()
        generator.set_state(self._generator.get_state())
        return int(torch.randint(2**63 - 1, (), generator=generator))

    def load_state_dict(self, state: dict[str, Tensor], position: int) -> None:
        super().load_state_dict(state, position)
        self._loader = None


def _row_numbers(order: RowOrder, left: range, rows: int, shard: DataShard) -> Iterator[list[int]]:
    """Row numbers of a process's part of the batches that begin at the places `left`. Workers take them ahead of the steps.

    A function, because a method would keep the loader, and so its workers, alive in a cycle of references.
    """
    for first in left:
        part = part_of(order.numbers(first, min(first + left.step, rows)), shard)
        # a process without rows must still take part in the exchange of gradients
        yield (part if len(part) else order.numbers(left.start, left.start + 1)).tolist()


class NumberedBatch(list[int]):
    """Row numbers of a batch, and the number of the batch in its epoch."""

    def __init__(self, rows: list[int], number: int) -> None:
        super().__init__(rows)
        self.number = number

    def __reduce__(self) -> tuple[type, tuple[list[int], int]]:
        return NumberedBatch, (list(self), self.number)


class SeededDataset(Dataset[Any]):
    """A Dataset in a worker that seeds its random generators for every batch."""

    def __init__(self, dataset: Dataset[Any], seed: int, rank: int) -> None:
        self._dataset, self._seed, self._rank = dataset, seed, rank

    def __getitems__(self, batch: NumberedBatch) -> list[Any]:
        """The rows of a batch; DataLoader calls it."""
        generators.seed_for(self._seed, self._rank, batch.number)
        fetch = getattr(self._dataset, "__getitems__", None)
        rows: list[Any] = fetch(list(batch)) if fetch else [self._dataset[row] for row in batch]
        return rows

    def expose(self, _worker: int) -> None:
        """In a worker: let `get_worker_info().dataset` be the user's Dataset, as without this wrapper."""
        object.__setattr__(get_worker_info(), "dataset", users_dataset(self._dataset))

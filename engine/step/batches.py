"""Where a step's rows come from: all at once, picked on the device, or streamed from the host.

The order of every epoch is drawn by a separate generator. So dropout and shuffling do not affect each other, and a run
that continues after a kill draws the same rows. If several processes train, each takes its share of every batch: every row
is used once per epoch (as with DistributedSampler, but the last batch is not padded). Must never read a value back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from epochtop.engine.data.dataset import Rows
from epochtop.engine.device import generators
from epochtop.engine.models.checked_rows import batch_of, collation_of, users_dataset
from epochtop.engine.models.nested import mapped


@dataclass(frozen=True)
class DataShard:
    """The part of every batch that this process takes: part `rank` of `world_size`."""

    rank: int = 0
    world_size: int = 1


@dataclass(frozen=True)
class Batch:
    """Rows on the device, and their weight in the mean over all rows of a step (1 for all of them)."""

    x: Any
    y: Any
    weight: float = 1.0


class Batches(ABC):
    """An endless sequence of batches; every epoch has its own order."""

    per_epoch: int
    """Batches of an epoch."""
    position: int
    """Rows of the current epoch that have been taken."""

    @abstractmethod
    def __call__(self) -> tuple[Any, Any]:
        """The next batch, if one process trains and a step takes one batch."""

    @abstractmethod
    def next_batches(self, count: int) -> list[Batch]:
        """The next `count` batches of this epoch, fewer at its end, weighted so that their losses add up to a mean."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """The order of the current epoch and the generator's state; empty if nothing is drawn."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor], position: int) -> None:
        """Continue where `state` and `position` were saved."""


class FullBatch(Batches):
    """All rows every time; if several processes train, this one's share of them."""

    def __init__(self, x: Any, y: Any, rows: int, shard: DataShard, copied: bool = False) -> None:
        """`x` and `y` are tensors of `rows`, or nested structures of them.

        With `copied`, every batch is a copy, because the model changes its input in place.
        """
        chosen = _part(torch.arange(rows), shard)
        alone = shard.world_size == 1
        self._batch: tuple[Any, Any] = (x, y) if alone else mapped((x, y), lambda part: part[chosen])
        self._weight = len(chosen) * shard.world_size / rows
        self._copied = copied
        self.per_epoch, self.position = 1, 0

    def __call__(self) -> tuple[Any, Any]:
        if self._copied:
            x, y = mapped(self._batch, Tensor.clone)
            return x, y
        return self._batch

    def next_batches(self, count: int) -> list[Batch]:
        return [Batch(*self(), self._weight)]

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor], position: int) -> None:
        pass


class ShuffledBatches(Batches):
    """Batches of `size` rows per process, in a new order every epoch; the last one of an epoch may be smaller."""

    def __init__(
        self, rows: int, size: int, seed: int, shard: DataShard, device: torch.device, per_epoch: int | None = None
    ) -> None:
        """An epoch takes the first `per_epoch` rows of its order, all `rows` by default."""
        self._all_rows = rows
        rows = rows if per_epoch is None else per_epoch
        self._rows, self._size, self._shard = rows, size * shard.world_size, shard
        self.size = size
        self._device = device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64, device=device)
        self.position = rows
        self.per_epoch = -(-rows // self._size)

    @property
    def rows_per_epoch(self) -> int:
        """Rows that an epoch takes."""
        return self._rows

    @abstractmethod
    def _pick(self, chosen: Tensor) -> tuple[Any, Any]:
        """The rows with these numbers, on the training device."""

    def __call__(self) -> tuple[Any, Any]:
        if self.position >= self._rows:
            self._begin_epoch()
        chosen = self._order[self.position : self.position + self._size]
        self.position += self._size
        return self._pick(chosen)

    def next_batches(self, count: int) -> list[Batch]:
        if self.position >= self._rows:
            self._begin_epoch()
        firsts = range(self.position, min(self.position + count * self._size, self._rows), self._size)
        total = min(self._rows, self.position + count * self._size) - self.position
        batches = []
        for first in firsts:
            chosen = self._order[first : first + self._size]
            part = _part(chosen, self._shard)
            weight = len(part) * self._shard.world_size / total
            # a process without rows must still take part in the exchange of gradients
            batches.append(Batch(*self._pick(part if len(part) else chosen[:1]), weight))
        self.position += count * self._size
        return batches

    def sizes(self, count: int) -> tuple[int, ...]:
        """Rows of each of the next `count` batches, fewer at the end of an epoch."""
        if self.position >= self._rows:
            self._begin_epoch()
        firsts = range(self.position, min(self.position + count * self._size, self._rows), self._size)
        return tuple(min(self._size, self._rows - first) for first in firsts)

    def upcoming_rows(self, sizes: tuple[int, ...], max_steps: int) -> Tensor:
        """Row numbers of the next steps, up to `max_steps`, that take batches of these sizes: (steps * rows,)."""
        rows_per_step = sum(sizes)
        steps = max(1, min(max_steps, (self._rows - self.position) // rows_per_step))
        return self._order[self.position : self.position + steps * rows_per_step]

    def _begin_epoch(self) -> None:
        order = torch.randperm(self._all_rows, generator=self._generator, device=self._device)
        self._order = order[: self._rows]
        self.position = 0

    def state_dict(self) -> dict[str, Tensor]:
        return {"order": self._order, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor], position: int) -> None:
        if not state:  # the run took all rows at once: every step begins an epoch
            return
        self._order = state["order"].to(self._device)
        self._generator.set_state(state["generator"].cpu())
        self.position = position


def _part(rows: Tensor, shard: DataShard) -> Tensor:
    return rows if shard.world_size == 1 else rows.tensor_split(shard.world_size)[shard.rank]


class ResidentBatches(ShuffledBatches):
    """Rows that are stored on the device and picked there."""

    def __init__(
        self, x: Tensor, y: Tensor, size: int, seed: int, shard: DataShard, per_epoch: int | None = None
    ) -> None:
        super().__init__(len(x), size, seed, shard, x.device, per_epoch)
        self.x, self.y = x, y

    def _pick(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return self.x.index_select(0, chosen), self.y.index_select(0, chosen)


class StreamedBatches(ShuffledBatches):
    """Rows that stay on the host and are copied to the device one batch ahead of the step that needs them.

    On CUDA a batch is picked into pinned memory and copied on a separate stream while the previous step runs. The
    training stream waits for the copy on the device; the host waits for nothing.
    """

    def __init__(
        self, rows: Rows, size: int, seed: int, shard: DataShard, device: torch.device, per_epoch: int | None = None
    ) -> None:
        super().__init__(len(rows), size, seed, shard, torch.device("cpu"), per_epoch)
        self._x, self._y, self._target = rows.x, rows.y, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._next: tuple[tuple[int, ...], tuple[Tensor, Tensor], Any] | None = None

    def __call__(self) -> tuple[Tensor, Tensor]:
        batch = super().__call__()
        self._send_ahead()
        return batch

    def _pick(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        copied, self._next = self._next, None
        key = (self.position, len(chosen))
        if copied is None or copied[0] != key:
            return self._arrive(self._send(chosen))
        return self._arrive(copied[1:])

    def _send_ahead(self) -> None:
        """Begin to copy the next batch, unless a new epoch must be drawn first."""
        if self._stream is None or self.position >= self._rows:
            return
        chosen = self._order[self.position : self.position + self._size]
        self._next = ((self.position + self._size, len(chosen)), *self._send(chosen))

    def _send(self, chosen: Tensor) -> tuple[tuple[Tensor, Tensor], Any]:
        numbers = chosen.numpy()
        x, y = _tensor(self._x, numbers), _tensor(self._y, numbers)
        if self._stream is None:
            return (x.to(self._target), y.to(self._target)), None
        with torch.cuda.stream(self._stream):
            sent = (
                x.pin_memory().to(self._target, non_blocking=True),
                y.pin_memory().to(self._target, non_blocking=True),
            )
            event = torch.cuda.Event()
            event.record(self._stream)
        return sent, event

    def _arrive(self, sent: tuple[tuple[Tensor, Tensor], Any]) -> tuple[Tensor, Tensor]:
        (x, y), event = sent
        if event is not None:
            stream = torch.cuda.current_stream(self._target)
            stream.wait_event(event)
            x.record_stream(stream)
            y.record_stream(stream)
        return x, y


def _tensor(array: npt.NDArray[Any], numbers: npt.NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array[numbers]))


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
            rows = len(_part(self._order[self.position : self.position + self._size], self._shard))
            x, y = batch_of(next(self._loader))
            batches.append(Batch(move(x, self._target), move(y, self._target), rows * self._shard.world_size / total))
            self.position += self._size
        return batches

    def _load(self) -> Iterator[Any]:
        remaining = self._order[self.position :]
        parts = [_part(chosen, self._shard) for chosen in remaining.split(self._size)]
        batches: list[list[int]] = [(part if len(part) else remaining[:1]).tolist() for part in parts]
        dataset = self._dataset
        if self._workers:
            first = self.position // self._size
            batches = [NumberedBatch(rows, first + place) for place, rows in enumerate(batches)]
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


def move(value: Any, device: torch.device) -> Any:
    """A tensor, or tensors in any nested structure, moved to the device."""
    return mapped(value, lambda tensor: tensor.to(device, non_blocking=True))

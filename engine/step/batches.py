"""Where a step's rows come from: all at once, picked on the device, or streamed from the host.

The order of every epoch is drawn by a generator of its own, so that models that draw (dropout) and rows that are
shuffled do not disturb each other, and a run that goes on after a kill draws the same rows. Each process of
several takes its share of every batch, so that every row comes once an epoch (as DistributedSampler has it, but
without filling up the last batch).
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
from torch.utils.data import DataLoader, Dataset

from epochtop.engine.data.dataset import Rows


@dataclass(frozen=True)
class DataShard:
    """Which part of every batch this process takes: `rank` of `of`."""

    rank: int = 0
    of: int = 1


@dataclass(frozen=True)
class Batch:
    """Rows on the device, and their weight in the mean over a whole step's rows (1 for all of them)."""

    x: Any
    y: Any
    weight: float = 1.0


class Batches(ABC):
    """Batches of rows without end; every epoch comes in an order of its own.

    `per_epoch` is the number of batches of an epoch, `position` the rows of the current epoch already taken.
    """

    per_epoch: int
    position: int

    @abstractmethod
    def __call__(self) -> tuple[Any, Any]:
        """The next batch, for a process that is alone."""

    @abstractmethod
    def take(self, count: int) -> list[Batch]:
        """The next `count` batches of this epoch, fewer at its end, weighed so that their losses add up to a mean."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """The order of the current epoch and the generator's state; empty where nothing is drawn."""

    @abstractmethod
    def load_state_dict(self, memory: dict[str, Tensor], position: int) -> None:
        """Go on where `memory` and `position` were taken."""


class FullBatch(Batches):
    """All rows, every time; for several processes, each one's share of them."""

    def __init__(self, x: Tensor, y: Tensor, share: DataShard) -> None:
        mine = slice(None) if share.of == 1 else _part(torch.arange(len(x)), share)
        self._batch = (x[mine], y[mine])
        self._weight = len(self._batch[0]) * share.of / len(x)
        self.per_epoch, self.position = 1, 0

    def __call__(self) -> tuple[Tensor, Tensor]:
        return self._batch

    def take(self, count: int) -> list[Batch]:
        return [Batch(*self._batch, self._weight)]

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, memory: dict[str, Tensor], position: int) -> None:
        pass


class ShuffledBatches(Batches):
    """Batches of `size` rows a process, in a new order every epoch; the last one of an epoch may be smaller."""

    def __init__(self, rows: int, size: int, seed: int, share: DataShard, device: torch.device) -> None:
        self._rows, self._size, self._share = rows, size * share.of, share
        self.size = size
        self._device = device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64, device=device)
        self.position = rows
        self.per_epoch = -(-rows // self._size)

    @abstractmethod
    def _pick(self, chosen: Tensor) -> tuple[Any, Any]:
        """The rows with these numbers, on the training device."""

    def __call__(self) -> tuple[Any, Any]:
        if self.position >= self._rows:
            self._begin()
        chosen = self._order[self.position : self.position + self._size]
        self.position += self._size
        return self._pick(chosen)

    def take(self, count: int) -> list[Batch]:
        if self.position >= self._rows:
            self._begin()
        cuts = range(self.position, min(self.position + count * self._size, self._rows), self._size)
        together = min(self._rows, self.position + count * self._size) - self.position
        batches = []
        for cut in cuts:
            chosen = self._order[cut : cut + self._size]
            mine = _part(chosen, self._share)
            weight = len(mine) * self._share.of / together
            # a process without a row of its own still has to take part in the exchange of gradients
            batches.append(Batch(*self._pick(mine if len(mine) else chosen[:1]), weight))
        self.position += count * self._size
        return batches

    def sizes(self, count: int) -> tuple[int, ...]:
        """Rows of each of the next `count` batches, fewer at the end of an epoch."""
        if self.position >= self._rows:
            self._begin()
        cuts = range(self.position, min(self.position + count * self._size, self._rows), self._size)
        return tuple(min(self._size, self._rows - cut) for cut in cuts)

    def ahead(self, sizes: tuple[int, ...], most: int) -> Tensor:
        """Row numbers of the next steps, at most `most`, that take batches of these sizes: (steps * rows,)."""
        each = sum(sizes)
        steps = max(1, min(most, (self._rows - self.position) // each))
        return self._order[self.position : self.position + steps * each]

    def _begin(self) -> None:
        self._order = torch.randperm(self._rows, generator=self._generator, device=self._device)
        self.position = 0

    def state_dict(self) -> dict[str, Tensor]:
        return {"order": self._order, "generator": self._generator.get_state()}

    def load_state_dict(self, memory: dict[str, Tensor], position: int) -> None:
        if not memory:  # of a run that took all rows at once: it begins an epoch with every step
            return
        self._order = memory["order"].to(self._device)
        self._generator.set_state(memory["generator"].cpu())
        self.position = position


def _part(chosen: Tensor, share: DataShard) -> Tensor:
    return chosen if share.of == 1 else chosen.tensor_split(share.of)[share.rank]


class ResidentBatches(ShuffledBatches):
    """Rows that lie on the device, picked there."""

    def __init__(self, x: Tensor, y: Tensor, size: int, seed: int, share: DataShard) -> None:
        super().__init__(len(x), size, seed, share, x.device)
        self.x, self.y = x, y

    def _pick(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return self.x.index_select(0, chosen), self.y.index_select(0, chosen)


class StreamedBatches(ShuffledBatches):
    """Rows that stay on the host and travel one batch ahead of the step that needs them.

    On CUDA a batch is picked into pinned memory and copied on a stream of its own while the step before it runs;
    the training stream waits for the copy on the device, the host for nothing.
    """

    def __init__(self, rows: Rows, size: int, seed: int, share: DataShard, device: torch.device) -> None:
        super().__init__(len(rows), size, seed, share, torch.device("cpu"))
        self._x, self._y, self._to = rows.x, rows.y, device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: tuple[tuple[int, ...], tuple[Tensor, Tensor], Any] | None = None

    def __call__(self) -> tuple[Tensor, Tensor]:
        batch = super().__call__()
        self._send_ahead()
        return batch

    def _pick(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        ahead, self._ahead = self._ahead, None
        key = (self.position, len(chosen))
        if ahead is None or ahead[0] != key:
            return self._arrive(self._send(chosen))
        return self._arrive(ahead[1:])

    def _send_ahead(self) -> None:
        """Begin to copy the batch after this one, unless a new epoch has to be drawn first."""
        if self._side is None or self.position >= self._rows:
            return
        chosen = self._order[self.position : self.position + self._size]
        self._ahead = ((self.position + self._size, len(chosen)), *self._send(chosen))

    def _send(self, chosen: Tensor) -> tuple[tuple[Tensor, Tensor], Any]:
        numbers = chosen.numpy()
        x, y = _tensor(self._x, numbers), _tensor(self._y, numbers)
        if self._side is None:
            return (x.to(self._to), y.to(self._to)), None
        with torch.cuda.stream(self._side):
            sent = (
                x.pin_memory().to(self._to, non_blocking=True),
                y.pin_memory().to(self._to, non_blocking=True),
            )
            event = torch.cuda.Event()
            event.record(self._side)
        return sent, event

    def _arrive(self, sent: tuple[tuple[Tensor, Tensor], Any]) -> tuple[Tensor, Tensor]:
        (x, y), event = sent
        if event is not None:
            stream = torch.cuda.current_stream(self._to)
            stream.wait_event(event)
            x.record_stream(stream)
            y.record_stream(stream)
        return x, y


def _tensor(array: npt.NDArray[Any], numbers: npt.NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array[numbers]))


class LoaderBatches(ShuffledBatches):
    """Examples of a map-style Dataset, put together by a DataLoader; its order is drawn here.

    A Dataset that draws (augmentation) does so in its own workers: what it drew is not repeated after a kill.
    """

    def __init__(
        self, dataset: Dataset[Any], size: int, seed: int, share: DataShard, device: torch.device, workers: int
    ) -> None:
        super().__init__(len(dataset), size, seed, share, torch.device("cpu"))  # type: ignore[arg-type]
        self._dataset, self._to, self._workers = dataset, device, workers
        self._loader: Iterator[Any] | None = None

    def _pick(self, chosen: Tensor) -> tuple[Any, Any]:
        raise NotImplementedError("batches of a Dataset come in order")

    def __call__(self) -> tuple[Any, Any]:
        batch = self.take(1)[0]
        return batch.x, batch.y

    def take(self, count: int) -> list[Batch]:
        if self.position >= self._rows:
            self._begin()
            self._loader = None
        if self._loader is None:
            self._loader = self._load()
        together = min(self._rows, self.position + count * self._size) - self.position
        batches = []
        for _ in range(-(-together // self._size)):
            mine = len(_part(self._order[self.position : self.position + self._size], self._share))
            x, y = next(self._loader)
            batches.append(Batch(move(x, self._to), move(y, self._to), mine * self._share.of / together))
            self.position += self._size
        return batches

    def _load(self) -> Iterator[Any]:
        left = self._order[self.position :]
        parts = [_part(chosen, self._share) for chosen in left.split(self._size)]
        plan = [(part if len(part) else left[:1]).tolist() for part in parts]
        return iter(
            DataLoader(
                self._dataset,
                batch_sampler=plan,
                num_workers=self._workers,
                multiprocessing_context="fork" if self._workers else None,  # the user's modules are known here only
                pin_memory=self._to.type == "cuda",
                # else the loader would draw from the generator that dropout draws from
                generator=torch.Generator().manual_seed(self._generator.initial_seed()),
            )
        )

    def load_state_dict(self, memory: dict[str, Tensor], position: int) -> None:
        super().load_state_dict(memory, position)
        self._loader = None


def move(value: Any, device: torch.device) -> Any:
    """A tensor, or tensors in tuples, lists and dictionaries, on the device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: move(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(move(item, device) for item in value)
    return value

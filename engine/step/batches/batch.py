"""A batch, and the interface of everything that produces batches; also all rows as one batch.

Must never read a value back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from epochtop.engine.device.row_types import as_input
from epochtop.engine.models.nested import mapped, tensors_of


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

    def __init__(self, x: Any, y: Any, rows: int, shard: DataShard, copied: bool = False, stored: bool = False) -> None:
        """`x` and `y` are tensors of `rows`, or nested structures of them.

        With `copied`, every batch is a copy, because the model changes its input in place. With `stored`, the tensors have
        types that rows are stored in, which may differ from those of the model's input.
        """
        chosen = part_of(torch.arange(rows), shard)
        alone = shard.world_size == 1
        self._batch: tuple[Any, Any] = (x, y) if alone else mapped((x, y), lambda part: part[chosen])
        self._watch = RowsWatch(self._batch)
        self._weight = len(chosen) * shard.world_size / rows
        self._change = _change(self._batch, copied, stored)
        self.per_epoch, self.position = 1, 0

    def __call__(self) -> tuple[Any, Any]:
        self._watch.check()
        if self._change is None:
            return self._batch
        x, y = mapped(self._batch, self._change)
        return x, y

    def next_batches(self, count: int) -> list[Batch]:
        return [Batch(*self(), self._weight)]

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor], position: int) -> None:
        pass


class RowsWatch:
    """Notices that rows which are passed without a copy have been changed in place. Never looks at their values."""

    def __init__(self, rows: Any) -> None:
        self._tensors = list(tensors_of(rows))
        self._versions = [tensor._version for tensor in self._tensors]

    def check(self) -> None:
        """Raise RowsChangedError if a tensor has been changed."""
        if [tensor._version for tensor in self._tensors] != self._versions:
            raise RowsChangedError(
                "the model, the loss or a metric has changed the rows in place, and all later steps would use the changed "
                "rows; change a copy instead, for example x = x.clone()"
            )


class RowsChangedError(Exception):
    """Rows that were passed without a copy have been changed in place; the message is complete."""

    user_frames = ()
    """No line of the user is known."""


def _change(batch: Any, copied: bool, stored: bool) -> Callable[[Tensor], Tensor] | None:
    """What happens to every tensor of a batch before a step; None for nothing."""
    if stored and any(as_input(tensor[:0]).dtype != tensor.dtype for tensor in tensors_of(batch)):
        return (lambda tensor: as_input(tensor, copied=True)) if copied else as_input
    return Tensor.clone if copied else None


def part_of(rows: Tensor, shard: DataShard) -> Tensor:
    """The part of a batch's rows that a process takes."""
    return rows if shard.world_size == 1 else rows.tensor_split(shard.world_size)[shard.rank]


def rows_of_part(rows: int, shard: DataShard) -> int:
    """Rows that :func:`part_of` returns for this many rows."""
    return rows // shard.world_size + (shard.rank < rows % shard.world_size)


def move(value: Any, device: torch.device) -> Any:
    """A tensor, or tensors in any nested structure, moved to the device."""
    return mapped(value, lambda tensor: tensor.to(device, non_blocking=True))

"""Batches in a new order every epoch, picked from rows on the device or streamed from the host.

The order is drawn by a separate generator, so dropout and shuffling do not affect each other. Must never read a value back.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochtop.engine.data.dataset import Rows
from epochtop.engine.device.row_types import INPUT_TYPES, as_input, on_device, picked
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.step.batches.batch import Batch, Batches, DataShard, part_of
from epochtop.engine.step.batches.row_order import is_listed, new_order, no_order, restored_order


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
        self._listed = is_listed(self._all_rows)
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._order = no_order(self._all_rows, device, self._listed)
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
        chosen = self._numbers(self.position)
        self.position += self._size
        return self._pick(chosen)

    def next_batches(self, count: int) -> list[Batch]:
        if self.position >= self._rows:
            self._begin_epoch()
        firsts = range(self.position, min(self.position + count * self._size, self._rows), self._size)
        total = min(self._rows, self.position + count * self._size) - self.position
        batches = []
        for first in firsts:
            chosen = self._numbers(first)
            part = part_of(chosen, self._shard)
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
        return self._order.numbers(self.position, min(self.position + steps * rows_per_step, self._rows))

    def _numbers(self, first: int) -> Tensor:
        """Row numbers of the batch of all processes that begins at the place `first` of the order."""
        return self._order.numbers(first, min(first + self._size, self._rows))

    def _begin_epoch(self) -> None:
        self._order = new_order(self._all_rows, self._rows, self._generator, self._device, self._listed)
        self.position = 0

    def state_dict(self) -> dict[str, Tensor]:
        return {**self._order.state_dict(), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor], position: int) -> None:
        if not state:  # the run took all rows at once: every step begins an epoch
            return
        self._order = restored_order(state, self._all_rows, self._device)
        self._listed = "order" in state  # a run of an earlier version lists any number of rows, and continues so
        generator = state["generator"].cpu()
        if generator.numel() != self._generator.get_state().numel():
            raise Invalid(
                "", "an earlier version drew the order of the rows on a GPU; start a new run with the same options"
            )
        self._generator.set_state(generator)
        self.position = position


class ResidentBatches(ShuffledBatches):
    """Rows that are stored on the device and picked there."""

    def __init__(
        self, x: Tensor, y: Tensor, size: int, seed: int, shard: DataShard, per_epoch: int | None = None
    ) -> None:
        super().__init__(len(x), size, seed, shard, x.device, per_epoch)
        self.x, self.y = x, y
        self._as_stored = x.dtype not in INPUT_TYPES and y.dtype not in INPUT_TYPES

    def _pick(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        if self._as_stored:
            return self.x.index_select(0, chosen), self.y.index_select(0, chosen)
        return picked(self.x, chosen), picked(self.y, chosen)


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
        chosen = self._numbers(self.position)
        self._next = ((self.position + self._size, len(chosen)), *self._send(chosen))

    def _send(self, chosen: Tensor) -> tuple[tuple[Tensor, Tensor], Any]:
        numbers = chosen.numpy()
        x, y = _tensor(self._x, numbers), _tensor(self._y, numbers)
        if self._stream is None:
            return (on_device(x, self._target), on_device(y, self._target)), None
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
        return as_input(x), as_input(y)


def _tensor(array: npt.NDArray[Any], numbers: npt.NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array[numbers]))

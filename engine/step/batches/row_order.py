"""The order of the rows in an epoch: a list of numbers, or a key from which every number is computed.

Both are drawn on the host, wherever the rows are, so that the order depends neither on the placement of the rows nor on
the model of a GPU, and a run continues on another device. A list is torch's permutation, as in a plain loop. More than
:data:`MOST_LISTED_ROWS` rows have a key instead, so that a Dataset of any length begins at once and takes no memory.
Must never read a device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from epochtop.engine.data.permutation import MOST_LISTED_ROWS, Permutation

COMPUTED_ROWS = 2**14
"""Row numbers that are computed at once: a few milliseconds of work, 128 KiB."""


class RowOrder(ABC):
    """The order of one epoch."""

    @abstractmethod
    def numbers(self, first: int, last: int) -> Tensor:
        """Row numbers at the places `first` … `last` - 1, int64, on the device of the rows."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """What :func:`restored_order` needs."""


class ListedOrder(RowOrder):
    """Row numbers in a tensor."""

    def __init__(self, listed: Tensor) -> None:
        self._listed = listed

    def numbers(self, first: int, last: int) -> Tensor:
        return self._listed[first:last]

    def state_dict(self) -> dict[str, Tensor]:
        return {"order": self._listed}


class KeyedOrder(RowOrder):
    """Row numbers computed on the host, some thousand ahead."""

    def __init__(self, rows: int, key: int, device: torch.device) -> None:
        self._key, self._device = key, device
        self._permutation = Permutation(rows, key)
        self._first = 0
        self._computed = torch.empty(0, dtype=torch.int64, device=device)

    def numbers(self, first: int, last: int) -> Tensor:
        last = min(last, len(self._permutation))
        if not self._first <= first <= last <= self._first + len(self._computed):
            self._compute(first, min(max(last, first + COMPUTED_ROWS), len(self._permutation)))
        return self._computed[first - self._first : last - self._first]

    def _compute(self, first: int, last: int) -> None:
        self._first, self._computed = first, _on(self._device, torch.from_numpy(self._permutation.span(first, last)))

    def state_dict(self) -> dict[str, Tensor]:
        return {"key": torch.tensor(self._key)}


def _on(device: torch.device, numbers: Tensor) -> Tensor:
    """Row numbers on the device; the host does not wait for the copy."""
    if device.type == "cpu":
        return numbers
    return (numbers.pin_memory() if device.type == "cuda" else numbers).to(device, non_blocking=True)


def is_listed(rows: int) -> bool:
    """Whether the order of this many rows is a list."""
    return rows <= MOST_LISTED_ROWS


def no_order(rows: int, device: torch.device, listed: bool) -> RowOrder:
    """The order before the first epoch, from which no number is taken."""
    return ListedOrder(torch.empty(0, dtype=torch.int64, device=device)) if listed else KeyedOrder(rows, 0, device)


def new_order(rows: int, count: int, generator: torch.Generator, device: torch.device, listed: bool) -> RowOrder:
    """The order of a new epoch, which takes the first `count` numbers of it. The generator is on the host."""
    if listed:
        numbers = torch.randperm(rows, generator=generator, device="cpu")[:count]
        return ListedOrder(_on(device, numbers))
    return KeyedOrder(rows, int(torch.randint(2**63 - 1, (), generator=generator)), device)


def restored_order(state: Mapping[str, Tensor], rows: int, device: torch.device) -> RowOrder:
    """The order that `state_dict` returned."""
    if "key" in state:
        return KeyedOrder(rows, int(state["key"]), device)
    return ListedOrder(state["order"].to(device))

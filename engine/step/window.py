"""Losses on their device, read back one window at a time and one window late.

:meth:`LossWindow.record` only enqueues. :meth:`LossWindow.turn` is the single place where the host waits for
the device, and it waits for a window whose successor is already queued, so the device never idles for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

SLOTS = 4096
"""Steps recorded one by one before they are folded, on the device, into one chunk."""


@dataclass(frozen=True)
class Reading:
    """A window that reached the host."""

    first_step: int
    seconds: float
    """Training time when the window was sent off."""
    losses: Tensor
    """float32 (steps,), on the host."""
    attached: tuple[tuple[Any, tuple[Tensor, ...]], ...]
    """What was attached before the window was turned, with tensors copied to the host."""


@dataclass(frozen=True)
class _Turned:
    reading: Reading
    event: Any
    """CUDA event behind the copies; None where the copy is done when it returns."""


class LossWindow:
    """Collects a 0-d loss a step on `device`; any number of steps between two turns.

    `reads` counts the windows that were read, `waited_s` the seconds the host stood still for them.
    """

    def __init__(
        self, device: torch.device, first_step: int = 0, average: Callable[[Tensor], None] | None = None
    ) -> None:
        """`average` is given a window's losses on the device before they are sent off, to change them in place."""
        self._device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        """Where copies to the host run, so that the steps do not stand in line behind them."""
        self._late = device.type != "cpu"
        self._buffer = torch.zeros(SLOTS, dtype=torch.float32, device=device)
        self._slots = self._buffer.unbind()
        self._chunks: list[Tensor] = []
        self._count = 0
        self._first_step = first_step
        self._average = average
        self._attached: list[tuple[Any, tuple[Tensor, ...]]] = []
        self._behind: _Turned | None = None
        self.reads = 0
        self.waited_s = 0.0

    def record(self, loss: Tensor) -> None:
        """Keep the loss of a step: one copy, device to device, enqueued."""
        self._slots[self._count].copy_(loss)
        self._count += 1
        if self._count == SLOTS:
            self._fold()

    def extend(self, losses: Tensor) -> None:
        """Keep the losses of several steps (steps,), a tensor of the window's device that nobody changes any more."""
        if self._count:
            self._fold()
        self._chunks.append(losses)

    def _fold(self) -> None:
        self._chunks.append(self._buffer[: self._count].clone())
        self._count = 0

    def attach(self, label: Any, tensors: tuple[Tensor, ...]) -> None:
        """Send tensors to the host together with the next window. They must not be changed any more."""
        self._attached.append((label, tensors))

    def turn(self, seconds: float) -> Reading | None:
        """Send off what was recorded by `seconds` and return the window before it, waiting for it if it must.

        On the host's own device nothing has to travel, so the window itself comes back.
        """
        behind, self._behind = self._behind, self._send(seconds)
        return self._arrive(behind) if self._late else self.drain()

    def drain(self) -> Reading | None:
        """The last window that was sent off; None if there is none. Leaves nothing behind."""
        behind, self._behind = self._behind, None
        return self._arrive(behind)

    def _send(self, seconds: float) -> _Turned:
        losses = torch.cat([*self._chunks, self._buffer[: self._count]])
        if self._average is not None and len(losses):
            self._average(losses)
        first = self._first_step
        self._first_step += len(losses)
        self._chunks, self._count = [], 0
        attached, self._attached = self._attached, []
        if self._side is not None:
            self._side.wait_stream(torch.cuda.current_stream(self._device))
        host = self._to_host(losses)
        carried = tuple((label, tuple(self._to_host(tensor) for tensor in tensors)) for label, tensors in attached)
        event = None
        if self._side is not None:
            event = torch.cuda.Event()
            event.record(self._side)
        return _Turned(Reading(first, seconds, host, carried), event)

    def _to_host(self, tensor: Tensor) -> Tensor:
        if self._side is None or not tensor.is_cuda:
            return tensor
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)  # the same few again and again
        with torch.cuda.stream(self._side):
            pinned.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._side)  # its memory is given to nobody before it has been copied
        return pinned

    def _arrive(self, turned: _Turned | None) -> Reading | None:
        if turned is None:
            return None
        begun = perf_counter()
        if turned.event is not None:
            turned.event.synchronize()  # the only wait of the training loop; its window is one behind
        reading = turned.reading
        if self._device.type not in ("cpu", "cuda"):
            reading = _blocking_copy(reading)
        self.waited_s += perf_counter() - begun
        self.reads += 1
        return reading


def _blocking_copy(reading: Reading) -> Reading:
    """For devices without events (mps): the copy itself waits."""
    attached = tuple((label, tuple(tensor.cpu() for tensor in tensors)) for label, tensors in reading.attached)
    return Reading(reading.first_step, reading.seconds, reading.losses.cpu(), attached)

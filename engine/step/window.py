"""Losses on their device, read back one window at a time and one window late.

:meth:`LossWindow.record` only enqueues. :meth:`LossWindow.turn` is the only place where the host waits for the device. It
waits for a window whose successor is already enqueued, so the device never idles for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

SLOTS = 4096
"""Steps that are recorded one by one before their losses are joined, on the device, to one chunk."""


@dataclass(frozen=True)
class Reading:
    """A window that has reached the host."""

    first_step: int
    seconds: float
    """Training time when the window was sent."""
    losses: Tensor
    """float32 (steps,), on the host."""
    attached: tuple[tuple[Any, tuple[Tensor, ...]], ...]
    """Labels attached before the window was turned, with tensors copied to the host."""


@dataclass(frozen=True)
class _Sent:
    reading: Reading
    event: Any
    """CUDA event after the copies; None if they are complete already."""


class LossWindow:
    """Collects one 0-d loss per step on `device`; any number of steps between two turns.

    `reads` counts the windows read, `waited_s` the seconds that the host waited for them.
    """

    def __init__(
        self, device: torch.device, first_step: int = 0, average: Callable[[Tensor], None] | None = None
    ) -> None:
        """`average` changes a window's losses in place, on the device, before they are sent."""
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        """Stream of the copies to the host, so that steps do not queue behind them."""
        self._late = device.type != "cpu"
        self._buffer = torch.zeros(SLOTS, dtype=torch.float32, device=device)
        self._slots = self._buffer.unbind()
        self._chunks: list[Tensor] = []
        self._count = 0
        self._first_step = first_step
        self._average = average
        self._attached: list[tuple[Any, tuple[Tensor, ...]]] = []
        self._sent: _Sent | None = None
        self.reads = 0
        self.waited_s = 0.0

    def record(self, loss: Tensor) -> None:
        """Record the loss of a step: one copy, device to device, enqueued."""
        self._slots[self._count].copy_(loss)
        self._count += 1
        if self._count == SLOTS:
            self._fold()

    def extend(self, losses: Tensor) -> None:
        """Record the losses of several steps, (steps,), on the window's device. They must not be changed any more."""
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
        """Send what was recorded until training time `seconds` and return the window before it, waiting if necessary.

        On the CPU nothing has to be copied, so the window itself is returned.
        """
        previous, self._sent = self._sent, self._send(seconds)
        return self._arrive(previous) if self._late else self.drain()

    def drain(self) -> Reading | None:
        """The last window that was sent, waiting for it; None if there is none."""
        previous, self._sent = self._sent, None
        return self._arrive(previous)

    def _send(self, seconds: float) -> _Sent:
        losses = torch.cat([*self._chunks, self._buffer[: self._count]])
        if self._average is not None and len(losses):
            self._average(losses)
        first = self._first_step
        self._first_step += len(losses)
        self._chunks, self._count = [], 0
        attached, self._attached = self._attached, []
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        host = self._to_host(losses)
        copies = tuple((label, tuple(self._to_host(tensor) for tensor in tensors)) for label, tensors in attached)
        event = None
        if self._stream is not None:
            event = torch.cuda.Event()
            event.record(self._stream)
        return _Sent(Reading(first, seconds, host, copies), event)

    def _to_host(self, tensor: Tensor) -> Tensor:
        if self._stream is None or not tensor.is_cuda:
            return tensor
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)  # the allocator reuses the same few
        with torch.cuda.stream(self._stream):
            pinned.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._stream)  # its memory is not reused before it has been copied
        return pinned

    def _arrive(self, sent: _Sent | None) -> Reading | None:
        if sent is None:
            return None
        started_at = perf_counter()
        if sent.event is not None:
            sent.event.synchronize()  # the only wait of the training loop; its window is one behind
        reading = sent.reading
        if self._device.type not in ("cpu", "cuda"):
            reading = _blocking_copy(reading)
        self.waited_s += perf_counter() - started_at
        self.reads += 1
        return reading


def _blocking_copy(reading: Reading) -> Reading:
    """For devices without events (mps): the copy itself waits."""
    attached = tuple((label, tuple(tensor.cpu() for tensor in tensors)) for label, tensors in reading.attached)
    return Reading(reading.first_step, reading.seconds, reading.losses.cpu(), attached)

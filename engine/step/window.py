"""Losses on their device, read back one window at a time and one window late.

:meth:`LossWindow.record` only enqueues. :meth:`LossWindow.turn` is the only place where the host waits for the device. It
waits for a window whose successor is already enqueued, so the device never idles for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

NOTICEABLE_S = 0.001
"""A copy that takes longer than this has waited for the device, where events do not tell."""
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
    """Labels attached before the window was turned, with tensors copied to the host, or complete on a GPU."""
    device_s: float | None = None
    """Seconds on the device between the last step of the window before and the last step of this one; None if unknown."""
    waited: bool = False
    """Whether the host had to wait for the device."""


@dataclass(frozen=True)
class _Sent:
    reading: Reading
    event: Any
    """CUDA event after the copies; None if they are complete already."""
    last_step: Any
    """CUDA event after the last step."""


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
        self._attached: list[tuple[Any, tuple[Tensor, ...], bool]] = []
        self._sent: _Sent | None = None
        self._earlier: Any = None
        """The event after the last step of the newest window that has arrived; on devices without events, its time of arrival."""
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

    def attach(self, label: Any, tensors: tuple[Tensor, ...], stay: bool = False) -> None:
        """Send tensors to the host together with the next window. They must not be changed any more.

        With `stay`, those of a GPU are handed over as they are, complete: for large ones, which another thread copies
        (:class:`epochtop.engine.device.transfer.Downloads`).
        """
        self._attached.append((label, tensors, stay))

    def turn(self, seconds: float) -> Reading | None:
        """Send what was recorded until training time `seconds` and return the window before it, waiting if necessary.

        On the CPU nothing has to be copied, so the window itself is returned.
        """
        previous, self._sent = self._sent, self._send(seconds)
        return self._arrive(previous) if self._late else self.drain()

    @property
    def is_ready(self) -> bool:
        """Whether :meth:`drain` would return without waiting."""
        return self._sent is None or self._sent.event is None or bool(self._sent.event.query())

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
        last_step = None
        if self._stream is not None:
            training = torch.cuda.current_stream(self._device)
            last_step = torch.cuda.Event(enable_timing=True)
            last_step.record(training)
            self._stream.wait_stream(training)
        host = self._to_host(losses)
        copies = tuple(
            (label, tensors if stay else tuple(map(self._to_host, tensors))) for label, tensors, stay in attached
        )
        event = None
        if self._stream is not None:
            event = torch.cuda.Event()
            event.record(self._stream)
        return _Sent(Reading(first, seconds, host, copies), event, last_step)

    def _to_host(self, tensor: Tensor) -> Tensor:
        if self._stream is None or not tensor.is_cuda:
            return tensor
        # the allocator reuses the same few; the device is named because a task may have set torch's default device
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
        with torch.cuda.stream(self._stream):
            pinned.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._stream)  # its memory is not reused before it has been copied
        return pinned

    def _arrive(self, sent: _Sent | None) -> Reading | None:
        if sent is None:
            return None
        started_at = perf_counter()
        reading, device_s, waited = sent.reading, None, False
        if sent.event is not None:
            waited = not sent.event.query()
            sent.event.synchronize()  # the only wait of the training loop; its window is one behind
            earlier, self._earlier = self._earlier, sent.last_step
            device_s = None if earlier is None else earlier.elapsed_time(sent.last_step) / 1000
        elif self._late:
            reading = _blocking_copy(reading)
            now = perf_counter()
            waited = now - started_at > NOTICEABLE_S
            earlier, self._earlier = self._earlier, now
            device_s = None if earlier is None else now - earlier
        self.waited_s += perf_counter() - started_at
        self.reads += 1
        return replace(reading, device_s=device_s, waited=waited) if self._late else reading


def _blocking_copy(reading: Reading) -> Reading:
    """For devices without events (mps): the copy itself waits."""
    attached = tuple((label, tuple(tensor.cpu() for tensor in tensors)) for label, tensors in reading.attached)
    return replace(reading, losses=reading.losses.cpu(), attached=attached)

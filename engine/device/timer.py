"""How long enqueued work takes on a device. Never waits for the device."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch


class DeviceTimer:
    """Measures the work that is enqueued between its creation and :meth:`stop`.

    On the CPU that is the time on the host; on CUDA it is the time on the device, known once that work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._events: tuple[Any, Any] | None = None
        if device.type == "cuda":
            self._events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            self._events[0].record(torch.cuda.current_stream(device))
        self._device = device
        self._started_at = perf_counter()
        self._host_s = 0.0

    def elapsed_s(self) -> float:
        """Seconds on the host so far."""
        return perf_counter() - self._started_at

    def stop(self) -> None:
        """End the measured work."""
        self._host_s = self.elapsed_s()
        if self._events is not None:
            self._events[1].record(torch.cuda.current_stream(self._device))

    def seconds(self) -> float:
        """Its duration. On CUDA, only after a copy that was enqueued later has reached the host."""
        return self._host_s if self._events is None else self._events[0].elapsed_time(self._events[1]) / 1000

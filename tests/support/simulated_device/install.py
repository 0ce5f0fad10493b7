"""Puts the simulated device in place of `torch.cuda`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.support.simulated_device import queues
from tests.support.simulated_device.memory import PinnedMemory
from tests.support.simulated_device.queues import Device, Order
from tests.support.simulated_device.tensors import Api, SimulatedTensor


@contextmanager
def simulated_gpu(order: Order = "late") -> Iterator[Device]:
    """`torch.cuda` is the simulated device inside."""
    device = Device(order)
    with pytest.MonkeyPatch.context() as patch, Api():
        patch.setattr(SimulatedTensor, "simulated", device, raising=False)
        patch.setattr(SimulatedTensor, "pinned", PinnedMemory(), raising=False)
        for name, value in _replacements(device).items():
            patch.setattr(torch.cuda, name, value)
        yield device


def _replacements(device: Device) -> dict[str, Any]:
    class Stream:
        """A stream of torch."""

        def __init__(self, _device: Any = None, queue: queues.Stream | None = None) -> None:
            self.queue = queue or queues.Stream(device)

        def wait_stream(self, other: Stream) -> None:
            self.queue.wait_for(other.queue.last)

        def wait_event(self, event: Event) -> None:
            self.queue.wait_for(event.event.kernel)

        def synchronize(self) -> None:
            with device.on(self.queue):
                device.read()

    class Event:
        """An event of torch."""

        def __init__(self, enable_timing: bool = False) -> None:
            self.event = queues.Event(device, enable_timing)

        def record(self, stream: Stream | None = None) -> None:
            self.event.record(stream.queue if stream else device.current)

        def query(self) -> bool:
            return self.event.query()

        def synchronize(self) -> None:
            self.event.synchronize()

        def elapsed_time(self, later: Event) -> float:
            return self.event.elapsed_ms(later.event)

    def set_sync_debug_mode(mode: str | int) -> None:
        device.forbids_waits = mode in ("error", 2)

    def set_stream(stream: Stream) -> None:
        device.current = stream.queue

    return {
        "Stream": Stream,
        "Event": Event,
        "current_stream": lambda _device=None: Stream(queue=device.current),
        "stream": lambda stream: device.on(stream.queue),
        "set_stream": set_stream,
        "synchronize": lambda _device=None: device.synchronize(),
        "get_sync_debug_mode": lambda: 2 if device.forbids_waits else 0,
        "set_sync_debug_mode": set_sync_debug_mode,
        "current_device": lambda: 0,
        "set_device": lambda _device: None,
        "get_rng_state": lambda _device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda _state, _device=None: None,
        "max_memory_allocated": lambda _device=None: 0,
        "mem_get_info": lambda _device=None: (2**34, 2**34),
    }

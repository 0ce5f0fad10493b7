"""Memory of the simulated device: new memory is poison, and freed memory becomes poison where a GPU would use it again.

The allocator of torch hands out freed memory to the next work on the stream that it was allocated on. Other streams that
still use it must have been recorded. Pinned memory is rounded up to powers of two and used again, never given back.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from tests.support.simulated_device.queues import Device, Stream

POISON = {torch.bool: True, torch.uint8: 0xA5}


def poison(tensor: Tensor) -> Tensor:
    """Fill a tensor with values that no test expects, in place."""
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor.fill_(float("nan"))
    return tensor.fill_(POISON.get(tensor.dtype, -77))


class Block:
    """The memory of one allocation; views share it."""

    def __init__(self, device: Device, real: Tensor) -> None:
        self.users: list[Stream] = []
        weakref.finalize(self, _freed, device, real, device.current, self.users).atexit = False


def _freed(device: Device, real: Tensor, owner: Stream, users: list[Stream]) -> None:
    """Let the owner use the memory for something else, after the work that is enqueued on the recorded streams."""
    for user in users:
        owner.wait_for(user.last)
    owner.enqueue(lambda: poison(real), 0.0, device.now)


class PinnedMemory:
    """What has been pinned so far, and how much of it is in use."""

    def __init__(self) -> None:
        self.held_bytes = 0
        """Everything that was ever pinned at the same time; torch does not give it back."""
        self._free: dict[int, int] = {}
        self._pointers: dict[int, int] = {}

    def pin(self, tensor: Tensor) -> Tensor:
        """Count a tensor of the host as pinned."""
        size = 1 << max(0, tensor.nbytes - 1).bit_length() if tensor.nbytes else 0
        if self._free.get(size):
            self._free[size] -= 1
        else:
            self.held_bytes += size
        pointer = tensor.untyped_storage().data_ptr()
        self._pointers[pointer] = self._pointers.get(pointer, 0) + 1
        weakref.finalize(tensor, self._unpin, pointer, size).atexit = False
        return tensor

    def _unpin(self, pointer: int, size: int) -> None:
        self._free[size] = self._free.get(size, 0) + 1
        self._pointers[pointer] -= 1

    def holds(self, tensor: Any) -> bool:
        """Whether a tensor of the host is in pinned memory."""
        return bool(self._pointers.get(tensor.untyped_storage().data_ptr()))

"""Copies between the host and a GPU through a bounded amount of pinned memory.

Torch's allocator of pinned memory rounds up to powers of two and keeps what it has, so a checkpoint of a large model would
hold several times its size of the host's memory for good. Never imports data, models or tasks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from epochtop.engine.device.row_types import on_device

BUFFER_BYTES = 2**26
"""Pinned memory that downloads use."""
AHEAD_BYTES = 2**26
"""Bytes that uploads may be ahead of the device."""


class Downloads:
    """Copies tensors of a GPU to ordinary memory of the host, piece by piece. For a thread that may wait.

    The tensors must be complete, as after the event of a window, and must not be changed any more.
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._stream: Any = None

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies on the host, in the layout of the originals. Tensors of other devices are returned as they are."""
        return {name: self._copied(tensor) if tensor.is_cuda else tensor for name, tensor in tensors.items()}

    def _copied(self, tensor: Tensor) -> Tensor:
        source = tensor.detach()
        host = torch.empty_like(source, device="cpu")
        if not source.numel():
            return host
        if self._buffer is None:
            self._buffer = torch.empty(BUFFER_BYTES, dtype=torch.uint8, device="cpu", pin_memory=True)
            self._stream = torch.cuda.Stream(source.device)
        with torch.cuda.stream(self._stream):  # the training stream has steps to do
            if host.stride() != source.stride():  # gaps or overlaps, which have no copy of the same layout
                source = source.contiguous()
                host = torch.empty_like(source, device="cpu")
            self._copy(_in_memory_order(source), _in_memory_order(host), self._buffer)
        return host

    def _copy(self, source: Tensor, host: Tensor, buffer: Tensor) -> None:
        values = len(buffer) // source.element_size()
        for first in range(0, len(source), values):
            piece = source[first : first + values]
            pinned = buffer[: piece.nbytes].view(source.dtype)
            pinned.copy_(piece, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._stream)
            done.synchronize()
            host[first : first + values].copy_(pinned)


def _in_memory_order(tensor: Tensor) -> Tensor:
    """All values of a tensor without gaps, in the order of its memory, (values,)."""
    return tensor.as_strided((tensor.numel(),), (1,))


class Uploads:
    """Copies tensors of the host to a device. On CUDA, the host waits only where it is far ahead of the device.

    From ordinary memory, CUDA would wait for all enqueued work before every copy.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ahead: deque[tuple[Any, int]] = deque()
        self._bytes = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        """A copy on the device, enqueued on its current stream; on the CPU, the tensor itself."""
        if self._device.type != "cuda" or tensor.is_cuda:
            return on_device(tensor, self._device)
        pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
        copy = pinned.to(self._device, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self._device))
        self._ahead.append((done, pinned.nbytes))
        self._bytes += pinned.nbytes
        while self._bytes > AHEAD_BYTES and len(self._ahead) > 1:
            earlier, size = self._ahead.popleft()
            earlier.synchronize()  # the device still has the copies after this one to work on
            self._bytes -= size
        return copy

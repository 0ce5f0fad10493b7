"""Values that another device computes: copied on the device, read by the writer's thread when the device is done.

:meth:`DeviceValues.put` enqueues one copy, device to device, on the stream that computes the value. :meth:`DeviceValues.send`
enqueues the copies to the host on a stream of its own. Nothing waits: an event tells when the values have arrived. Imports
built-in modules only; torch is looked up in `sys.modules`.
"""

from __future__ import annotations

import sys
from collections import deque
from itertools import count

from epochtop.recording.reports import UnusableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

SLOTS = 1024
"""Values of one block of device memory."""
BLOCKS = 256
"""Most blocks of a ring; a device that is further behind loses values."""
SINGLE = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "bool", "uint8", "int8", "int16")
"""Types whose values float32 holds exactly."""
DOUBLE = ("float64", "int32", "int64", "uint16", "uint32", "uint64")
"""Types whose values float64 holds, integers up to 2**53."""
RELAXED = 2
"""cudaStreamCaptureModeRelaxed: calls of this thread do not disturb the capture of a CUDA graph in another thread."""


class Deferred:
    """An immutable array of another library, read by the writer's thread."""

    __slots__ = ("_array",)

    def __init__(self, array: Any) -> None:
        self._array = array

    @property
    def is_ready(self) -> bool:
        """Whether reading does not wait, as far as the library tells."""
        is_ready = getattr(self._array, "is_ready", None)
        return bool(is_ready()) if callable(is_ready) else True

    def read(self) -> float:
        """The number. Raises whatever the library raises, and TypeError if it is not a real number."""
        array = self._array
        if hasattr(array, "numpy"):
            array = array.numpy()
        return float(array.item())

    def discard(self) -> None:
        """Give up the value."""


class Slot:
    """A value in a block of device memory."""

    __slots__ = ("block", "place", "transfer")

    def __init__(self, block: Block, place: int) -> None:
        self.block, self.place = block, place
        self.transfer: Transfer | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the value has arrived."""
        return self.transfer is not None and self.transfer.is_ready

    def read(self) -> float:
        """The number, which must have arrived. Raises RuntimeError if its copy failed."""
        if self.transfer is None:
            raise RuntimeError("its device did not copy it")
        value = self.transfer.values()[self.place - self.transfer.first]
        self.block.release()
        return value

    def discard(self) -> None:
        """Give up the value."""
        self.block.release()


class Block:
    """Device memory for values that are logged one by one."""

    def __init__(self, ring: Ring, buffer: Any) -> None:
        self.ring, self.buffer = ring, buffer
        self.slots = buffer.unbind()
        self.places = count()
        """Places to use, taken by several threads."""
        self.released = 0

    def release(self) -> None:
        """A slot has been read or will never be."""
        self.released += 1
        if self.released == SLOTS:
            self.released, self.places = 0, count()
            self.ring.spare.append(self)


class Transfer:
    """Consecutive values of a block on their way to the host."""

    def __init__(self, ring: Ring, host: Any, first: int, event: Any) -> None:
        """`event` is recorded after the copy; None if the copy is complete."""
        self._ring, self._host, self.first, self._event = ring, host, first, event
        self._values: list[float] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the copy is complete."""
        if self._event is not None and self._event.query():
            self._event = None
        return self._event is None

    def values(self) -> list[float]:
        """All values of the transfer."""
        if self._values is None:
            self._values = self._host.tolist()
            self._host = None
        return self._values


class Ring:
    """Blocks of one device and one type."""

    def __init__(self, torch: Any, device: Any, dtype: Any) -> None:
        self._torch, self._device, self._dtype = torch, device, dtype
        module = getattr(torch, device.type, None)
        has_streams = all(hasattr(module, name) for name in ("Stream", "Event", "stream", "current_stream"))
        self._module: Any = module if has_streams else None
        self._is_capturing: Any = getattr(module, "is_current_stream_capturing", None)
        self._raw_stream: Any = getattr(torch._C, "_cuda_getCurrentRawStream", None) if device.type == "cuda" else None
        self._last_stream: Any = None
        self._streams: dict[Any, Any] = {}
        """Streams that computed values; the copies to the host come after what is enqueued there."""
        self._side: Any = None
        """Stream of the copies to the host."""
        self.spare: deque[Block] = deque()
        self._blocks = 0
        self._block = self._new_block()

    def put(self, tensor: Any) -> Slot:
        """Copy a tensor with one element. Raises RuntimeError for any other size."""
        value = tensor.detach()
        if value.dim():
            value = value.reshape(())
        if self._is_capturing is not None and self._is_capturing():
            raise UnusableError("logged while a CUDA graph is captured")
        block = self._block
        place = next(block.places)
        while place >= SLOTS:
            self._block = block = self._new_block()
            place = next(block.places)
        block.slots[place].copy_(value)
        if self._module is not None:
            self._notice_stream()
        return Slot(block, place)

    def _notice_stream(self) -> None:
        if self._raw_stream is not None:
            key = self._raw_stream(self._device.index)
        else:
            key = self._module.current_stream(self._device)
        if key != self._last_stream:
            self._last_stream = key
            self._streams[key] = self._module.current_stream(self._device)

    def _new_block(self) -> Block:
        if self.spare:
            return self.spare.popleft()
        if self._blocks == BLOCKS:
            raise RuntimeError(f"{self._device} is {BLOCKS * SLOTS} values behind")
        self._blocks += 1
        with self._torch.inference_mode(False):
            return Block(self, self._torch.zeros(SLOTS, dtype=self._dtype, device=self._device))

    # --- in the writer's thread ------------------------------------------------------------------------------

    def send(self, block: Block, slots: list[Slot]) -> None:
        """Enqueue the copy of these slots to the host. Does nothing while a stream captures a CUDA graph."""
        first, end = min(slot.place for slot in slots), max(slot.place for slot in slots) + 1
        values = block.buffer[first:end]
        if self._module is None:  # a device without events: only this thread waits
            transfer = Transfer(self, values.cpu(), first, None)
        elif not self._enter_device():
            return
        else:
            with self._module.stream(self._side):
                for stream in list(self._streams.values()):
                    self._side.wait_stream(stream)
                host = self._torch.empty(end - first, dtype=self._dtype, device="cpu", pin_memory=True)
                host.copy_(values, non_blocking=True)
                event = self._module.Event()
                event.record(self._side)
            transfer = Transfer(self, host, first, event)
        for slot in slots:
            slot.transfer = transfer

    def _enter_device(self) -> bool:
        """Make the device that of this thread. False while a graph is captured on one of the streams."""
        if self._side is None:
            self._module.set_device(self._device)
            if self._device.type == "cuda":
                _relax_capture_mode()
            self._side = self._module.Stream(self._device)
        if self._is_capturing is not None:
            for stream in list(self._streams.values()):
                with self._module.stream(stream):
                    if self._is_capturing():
                        return False
        return True


class DeviceValues:
    """Values of torch's devices other than the CPU."""

    def __init__(self) -> None:
        self._rings: dict[Any, Ring] = {}

    def put(self, tensor: Any) -> Slot | Deferred:
        """Copy a tensor with one element on its device.

        Raises UnusableError if it cannot be a number, and RuntimeError if it has more elements.
        """
        key = (tensor.device, tensor.dtype)
        ring = self._rings.get(key)
        if ring is None:
            if tensor.device.type == "xla":
                return Deferred(tensor.detach().clone())
            ring = self._rings[key] = self._ring(*key)
        return ring.put(tensor)

    def _ring(self, device: Any, dtype: Any) -> Ring:
        torch = sys.modules["torch"]
        name = str(dtype).rpartition(".")[2]
        if device.type == "meta" or name not in SINGLE + DOUBLE:
            raise UnusableError(f"a tensor of type {name} on device {device}")
        wide = name in DOUBLE and device.type != "mps"
        key = (device, torch.float64 if wide else torch.float32)
        if key not in self._rings:
            self._rings[key] = Ring(torch, *key)
        return self._rings[key]


def send(values: Iterable[Any]) -> None:
    """Enqueue the copies of slots to the host; a slot whose copy cannot be enqueued now is sent with the next call."""
    blocks: dict[Block, list[Slot]] = {}
    for value in values:
        if type(value) is Slot and value.transfer is None:
            blocks.setdefault(value.block, []).append(value)
    for block, slots in blocks.items():
        block.ring.send(block, slots)


def _relax_capture_mode() -> None:
    """Let this thread call CUDA while another one captures a graph, as torch's own watchdog threads do."""
    try:
        import ctypes

        with open("/proc/self/maps") as maps:
            library = next(line.split()[-1] for line in maps if "libcudart.so" in line)
        ctypes.CDLL(library).cudaThreadExchangeStreamCaptureMode(ctypes.byref(ctypes.c_int(RELAXED)))
    except (ImportError, OSError, StopIteration, AttributeError):
        pass

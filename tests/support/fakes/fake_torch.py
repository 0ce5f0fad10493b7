"""As much of torch as recording uses, with a device that computes only when the test says so.

Work is enqueued on streams, and a stream runs when :meth:`Device.run` is called. Reading a value before that, or waiting for
the device, raises: a script would have been held up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any


class HeldError(AssertionError):
    """The host would have waited for the device."""


class Dtype:
    """A type of numbers."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"torch.{self.name}"


class Stream:
    """Work in order."""

    def __init__(self, device: Any = None) -> None:
        self.work: list[Callable[[], bool]] = []
        self.capturing = False
        DEVICE.streams.append(self)

    def wait_stream(self, other: Stream) -> None:
        """Later work here comes after what is enqueued there now."""
        assert not self.capturing
        assert not other.capturing
        done = Event()
        done.record(other)
        self.work.append(lambda: done.is_done)

    def run(self) -> bool:
        """Do what can be done. Whether anything was."""
        before = len(self.work)
        while self.work and self.work[0]():
            self.work.pop(0)
        return len(self.work) < before


class Event:
    """A mark in a stream."""

    def __init__(self) -> None:
        self.is_done = False

    def record(self, stream: Stream) -> None:
        """Done when the stream gets here."""

        def reach() -> bool:
            self.is_done = True
            return True

        stream.work.append(reach)

    def query(self) -> bool:
        """Whether the stream got here. Never waits."""
        return self.is_done

    def synchronize(self) -> None:
        """Waits."""
        raise HeldError


class Device:
    """The only device."""

    type, index = "cuda", 0

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.current: Stream = None  # type: ignore[assignment]

    def run(self) -> None:
        """Do everything that is enqueued."""
        while sum(stream.run() for stream in self.streams):
            pass


DEVICE = Device()
DEVICE.current = Stream()
CPU = SimpleNamespace(type="cpu", index=None)


class Tensor:
    """A tensor of one dimension, or one element of it."""

    def __init__(self, cells: list[float], places: range, dtype: Dtype, device: Any, scalar: bool = False) -> None:
        self._cells, self._places, self.dtype, self.device, self._scalar = cells, places, dtype, device, scalar
        self.is_cpu = device is CPU

    def detach(self) -> Tensor:
        return self

    def dim(self) -> int:
        return 0 if self._scalar else 1

    def reshape(self, shape: tuple[int, ...]) -> Tensor:
        if len(self._places) != 1:
            raise RuntimeError(f"shape '[]' is invalid for input of size {len(self._places)}")
        return Tensor(self._cells, self._places, self.dtype, self.device, scalar=True)

    def unbind(self) -> list[Tensor]:
        return [Tensor(self._cells, range(i, i + 1), self.dtype, self.device, scalar=True) for i in self._places]

    def __getitem__(self, part: slice) -> Tensor:
        return Tensor(self._cells, self._places[part], self.dtype, self.device)

    def copy_(self, source: Tensor, non_blocking: bool = False) -> None:
        assert self.device is not CPU or non_blocking, "a copy to the host that waits"
        if DEVICE.current.capturing:
            raise AssertionError("the copy would become part of a graph")
        pairs = list(zip(self._places, source._places, strict=True))

        def copy() -> bool:
            for here, there in pairs:
                self._cells[here] = source._cells[there]
            return True

        DEVICE.current.work.append(copy)

    def item(self) -> float:
        (value,) = self.tolist()
        return value

    def tolist(self) -> list[float]:
        if self.device is not CPU:
            raise HeldError
        return [self._cells[place] for place in self._places]

    def cpu(self) -> Tensor:
        raise HeldError


def on_device(value: float, dtype: str = "float32") -> Tensor:
    """A scalar that the device computes when it gets to it."""
    cells = [float("nan")]

    def compute() -> bool:
        cells[0] = value
        return True

    DEVICE.current.work.append(compute)
    return Tensor(cells, range(1), getattr(TORCH, dtype), DEVICE, scalar=True)


def zeros(size: int, dtype: Dtype, device: Any) -> Tensor:
    """A tensor on the device."""
    return Tensor([0.0] * size, range(size), dtype, device)


def empty(size: int, dtype: Dtype, device: str, pin_memory: bool) -> Tensor:
    """A tensor on the host."""
    assert (device, pin_memory) == ("cpu", True)
    return Tensor([float("nan")] * size, range(size), dtype, CPU)


@contextlib.contextmanager
def stream(chosen: Stream) -> Iterator[None]:
    """Enqueue on another stream."""
    previous, DEVICE.current = DEVICE.current, chosen
    try:
        yield
    finally:
        DEVICE.current = previous


TORCH = SimpleNamespace(
    **{name: Dtype(name) for name in ("float32", "float64", "float16", "int64", "complex64")},
    Tensor=Tensor,
    zeros=zeros,
    empty=empty,
    inference_mode=lambda on: contextlib.nullcontext(),
    _C=SimpleNamespace(),
    cuda=SimpleNamespace(
        Stream=Stream,
        Event=Event,
        stream=stream,
        current_stream=lambda device: DEVICE.current,
        set_device=lambda device: None,
        is_current_stream_capturing=lambda: DEVICE.current.capturing,
    ),
)

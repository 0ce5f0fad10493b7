"""Streams, events and the two clocks of the simulated device.

The clock of the host is virtual: launching a kernel takes `LAUNCH_S`, and waiting moves it to the end of what is waited for.
When a kernel *ends* is computed from the durations; when it is *executed* is chosen by the order. Every order that the
waits between streams allow may happen on a GPU, and the two here are the extreme ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

LAUNCH_S = 5e-6
"""Seconds of the host per kernel."""
KERNEL_S = 5e-6
"""Seconds of the device per kernel, unless it says otherwise."""
QUEUE_LENGTH = 1024
"""Kernels that may be enqueued before a launch waits."""

Order = Literal["late", "early"]
"""`late`: work is done only when the host waits for it. `early`: all other streams are first as far ahead as they may be."""


class Kernel:
    """Work in a stream."""

    def __init__(self, work: Callable[[], object], stream: Stream, ends_at: float, after: list[Kernel]) -> None:
        self.work: Callable[[], object] | None = work
        self.stream, self.ends_at, self.after = stream, ends_at, after

    @property
    def is_done(self) -> bool:
        """Whether it has been executed."""
        return self.work is None


class Device:
    """The only GPU, and the clock of the host."""

    def __init__(self, order: Order = "late") -> None:
        self.order: Order = order
        self.now = 0.0
        """Seconds since the start, on the host."""
        self.waits = 0
        """How often the host has waited for the device, except for an event."""
        self.forbids_waits = False
        """Whether such a wait raises RuntimeError (torch.cuda.set_sync_debug_mode)."""
        self.event_waits = 0
        """How often the host has waited for an event."""
        self.launched: deque[Kernel] = deque()
        self.streams: list[Stream] = []
        self.default = Stream(self)
        self.current = self.default

    # --- enqueueing --------------------------------------------------------------------------------------------

    def launch(self, work: Callable[[], object], seconds: float = KERNEL_S, kernels: int = 1) -> Kernel:
        """Enqueue work of `kernels` launches on the current stream; waits while the queue is full."""
        for _ in range(kernels - 1):
            self._launch(lambda: None, seconds / kernels)
        return self._launch(work, seconds / kernels)

    def _launch(self, work: Callable[[], object], seconds: float) -> Kernel:
        self.now += LAUNCH_S
        while self.launched and self.launched[0].ends_at <= self.now:
            self.launched.popleft()
        if len(self.launched) >= QUEUE_LENGTH:
            self.now = max(self.now, self.launched.popleft().ends_at)
        kernel = self.current.enqueue(work, seconds, self.now)
        self.launched.append(kernel)
        return kernel

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        """Use a stream inside."""
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    # --- waiting -----------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Wait for the current stream, because an operator needs a value on the host."""
        if self.forbids_waits:
            raise RuntimeError("called a synchronizing CUDA operation")
        self.waits += 1
        self.wait_for(self.current.last)

    def wait_for(self, kernel: Kernel | None) -> None:
        """Let the host wait for a kernel."""
        if kernel is None:
            return
        self.now = max(self.now, kernel.ends_at)
        self.see(kernel)

    def see(self, kernel: Kernel) -> None:
        """Execute what must be over now that the host knows that a kernel is."""
        if self.order == "early":
            waiting = {id(one) for one in kernel.stream.pending}
            for stream in self.streams:
                for other in list(stream.pending):
                    if not other.is_done and waiting.isdisjoint(_ancestors(other)):
                        _execute(other)
        _execute(kernel)

    def synchronize(self) -> None:
        """Wait for everything."""
        self.waits += 1
        self.finish()

    def finish(self) -> None:
        """Do everything that is enqueued, without counting it as a wait."""
        for stream in self.streams:
            if stream.pending:
                self.wait_for(stream.pending[-1])


class Stream:
    """Work that is done in order."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.pending: list[Kernel] = []
        self._last: Kernel | None = None
        self._after: list[Kernel] = []
        self._free_at = 0.0
        device.streams.append(self)

    @property
    def last(self) -> Kernel | None:
        """The kernel that was enqueued last."""
        return self._last

    def enqueue(self, work: Callable[[], object], seconds: float, at: float) -> Kernel:
        """Append a kernel."""
        after = [*self._after, *([self._last] if self._last is not None else [])]
        started_at = max([at, self._free_at, *(kernel.ends_at for kernel in after)])
        self._free_at = started_at + seconds
        self._after = []
        self._last = Kernel(work, self, self._free_at, after)
        self.pending.append(self._last)
        return self._last

    def wait_for(self, kernel: Kernel | None) -> None:
        """What is enqueued here from now on comes after a kernel of another stream."""
        if kernel is not None:
            self._after.append(kernel)


class Event:
    """A place in a stream."""

    def __init__(self, device: Device, timed: bool = False) -> None:
        self._device, self._timed = device, timed
        self.kernel: Kernel | None = None
        self._recorded_at = 0.0

    def record(self, stream: Stream) -> None:
        """Mark the end of what is enqueued so far."""
        self.kernel, self._recorded_at = stream.last, self._device.now

    @property
    def ends_at(self) -> float:
        """When the stream gets here."""
        return self._recorded_at if self.kernel is None else max(self._recorded_at, self.kernel.ends_at)

    def query(self) -> bool:
        """Whether the stream got here, by the clock."""
        if self.ends_at > self._device.now:
            return False
        if self.kernel is not None:
            self._device.see(self.kernel)
        return True

    def synchronize(self) -> None:
        """Wait."""
        self._device.event_waits += 1
        self._device.wait_for(self.kernel)

    def elapsed_ms(self, later: Event) -> float:
        """Milliseconds between two events that are over."""
        assert self._timed
        assert later._timed
        assert max(self.ends_at, later.ends_at) <= self._device.now, "the event is not over"
        return (later.ends_at - self.ends_at) * 1000


def _ancestors(kernel: Kernel) -> set[int]:
    """Ids of a kernel and of all that must be executed before it and is not yet."""
    ancestors: dict[int, Any] = {}
    waiting = [kernel]
    while waiting:
        one = waiting.pop()
        if not one.is_done and id(one) not in ancestors:
            ancestors[id(one)] = one
            waiting += one.after
    return set(ancestors)


def _execute(kernel: Kernel) -> None:
    """Execute a kernel after everything that it comes after."""
    waiting = [kernel]
    while waiting:
        one = waiting[-1]
        earlier = [other for other in one.after if not other.is_done]
        if one.is_done:
            waiting.pop()
        elif earlier:
            waiting += earlier
        else:
            work, one.work, one.after = one.work, None, []
            one.stream.pending.remove(one)
            assert work is not None
            work()
            waiting.pop()

"""Where the steps of a script spend their time. Imports msgspec only."""

from __future__ import annotations

import msgspec

from epochtop.engine.protocol.events.event import Event, UnixTime


class DeviceRead(msgspec.Struct, frozen=True, kw_only=True):
    """A line that reads a tensor, so that the program waits until the device has computed it."""

    file: str
    """Path of the file."""
    line: int
    """Line number, counted from 1."""
    function: str
    """Function that holds the line."""
    through: str = ""
    """Line of a library that reads on behalf of this one, as `path:line`; empty if the line itself reads."""
    call: str
    """What reads: `item()`, `tolist()`, `cpu()`, `numpy()`, `float()`, `int()`, `bool()`, `print()`, `format()`, `nonzero()` or
    `to(cpu)`."""
    device: str
    """Device of the tensor, as torch names it. Reading a tensor of the CPU does not wait."""
    count: int
    """Number of reads in the measured steps."""
    blocked_ms: float
    """Time that these reads took together, in milliseconds."""


class OperatorCost(msgspec.Struct, frozen=True, kw_only=True):
    """An operator in the profiled steps."""

    name: str
    """Name, as torch.profiler reports it."""
    calls: int
    """Number of calls."""
    cpu_ms: float
    """Time on the CPU without other operators that it calls, in milliseconds."""
    device_ms: float
    """Time of its kernels on the device, in milliseconds; 0 without one."""


class Analyzed(Event, frozen=True, kw_only=True):
    """Where steps of a script spent their time: the answer to `Analyze`.

    The first steps are timed and their reads listed; further steps are profiled, which slows them down.
    """

    time: UnixTime
    """Unix time in seconds."""
    first_step: int
    """Number of the first measured step, counted from 0."""
    steps: int
    """Number of timed steps."""
    step_ms: float
    """Mean time of a step in milliseconds."""
    parts_ms: dict[str, float]
    """Mean time of each part of a step in milliseconds, on the CPU: `data_wait`, `forward`, `backward`, `optimizer` and `rest`."""
    reads: tuple[DeviceRead, ...] = ()
    """Lines that read tensors in the timed steps, the slowest first."""
    operators: tuple[OperatorCost, ...] = ()
    """The most expensive operators of the profiled steps."""
    profiled_steps: int = 0
    """Number of profiled steps; 0 if they could not be profiled."""
    device_idle_percent: float | None = None
    """Share of the profiled time in which the device computed nothing; None without a device."""
    notes: tuple[str, ...] = ()
    """What could not be measured, one sentence each."""

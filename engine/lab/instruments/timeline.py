"""Splits the time of profiled steps between a GPU and its host, so that every moment counts once.

While the device computes or copies, time counts for the device. While it is idle, time counts for what the host does:
waiting for a value, getting a batch, launching operators, or other work. The profiler slows the host but not the
kernels. So only two things are used of the profile: the seconds of the device, and how many of them overlap with
each activity of the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function

from epochtop.engine.lab.instruments.clocks import wait_for
from epochtop.engine.lab.instruments.phases import Steps
from epochtop.engine.lab.intervals import merged

DEVICE_PARTS = ("compute", "transfers")
"""Activities of the device."""

Span = tuple[int, int]
"""Start and end in nanoseconds."""
HOST = ("waits", "reads", "input", "launches", "host")
"""Activities of the host. A moment that fits several counts for the first; `host` has the moments that fit none."""
OURS = "epochtop:"
"""Prefix of the names of our own ranges in a profile."""


@dataclass(frozen=True)
class TraceEvent:
    """An event of a profile. `cause` is one of DEVICE_PARTS or HOST, `steps` for all steps, or empty if irrelevant."""

    cause: str
    span: Span
    host: bool = True


def without(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """The parts of `spans` outside `others`; both are merged."""
    left, place = [], 0
    for begin, end in spans:
        while place < len(others) and others[place][1] <= begin:
            place += 1
        at = place
        while at < len(others) and others[at][0] < end:
            if others[at][0] > begin:
                left.append((begin, others[at][0]))
            begin = max(begin, others[at][1])
            at += 1
        if begin < end:
            left.append((begin, end))
    return left


def within(spans: Sequence[Span], limits: Sequence[Span]) -> list[Span]:
    """The parts of `spans` inside `limits`; both are merged."""
    return without(spans, without(spans, limits))


@dataclass(frozen=True)
class Shares:
    """Seconds by activity: of the device, of the host while the device was idle, and of the host while it was busy."""

    device: dict[str, float]
    idle: dict[str, float]
    covered: dict[str, float]


def shares(events: Sequence[TraceEvent]) -> Shares:
    """The seconds of the host during the steps, and of the device until it is done."""
    steps = merged(event.span for event in events if event.cause == "steps")
    device = {name: _spans(events, name) for name in DEVICE_PARTS}
    device["transfers"] = without(device["transfers"], device["compute"])
    busy, left = merged(span for spans in device.values() for span in spans), steps
    idle, covered = {}, {}
    for name in HOST:
        spans = left if name == "host" else within(left, _spans(events, name))
        left = without(left, spans)
        idle[name], covered[name] = _seconds(without(spans, busy)), _seconds(within(spans, busy))
    return Shares({name: _seconds(spans) for name, spans in device.items()}, idle, covered)


def _spans(events: Sequence[TraceEvent], cause: str) -> list[Span]:
    return merged(event.span for event in events if event.cause == cause)


def _seconds(spans: Sequence[Span]) -> float:
    return sum(end - begin for begin, end in spans) / 1e9


def exposed(shares: Shares, input_s: float, read_s: float, work_s: float, launches_s: float) -> dict[str, float]:
    """The parts of a step: the device's, and the host's as far as the device does not cover them.

    The host's seconds come from steps without the profiler: in its phases, and for launching its operators.
    """
    waits_s = shares.idle["waits"] + shares.covered["waits"]
    host = {"input": input_s, "reads": read_s, "launches": launches_s, "host": work_s - launches_s - waits_s}
    parts = {name: max(0.0, seconds - shares.covered[name]) for name, seconds in host.items()}
    parts["reads"] += shares.idle["waits"]
    return {**shares.device, **parts}


def idle_s(step_s: float, parts: Mapping[str, float]) -> float:
    """The idle time of the device in a step; below 0 if its busy time is longer than the step."""
    return step_s - sum(parts[name] for name in DEVICE_PARTS)


def cause(kind: str, name: str) -> tuple[str, bool]:
    """The cause of a profiled event, from the profiler's kind and the name, and whether the event is the host's."""
    match kind:
        case "kernel" | "gpu_memset":
            return "compute", False
        case "gpu_memcpy":
            return ("compute" if "DtoD" in name else "transfers"), False
        case "cuda_runtime" | "cuda_driver":
            return ("waits" if "Synchronize" in name else "launches"), True
        case "user_annotation" if name.startswith(OURS):
            phase = name.removeprefix(OURS)
            return {"input": "input", "read": "reads", "steps": "steps"}.get(phase, ""), True
        case "cpu_op":
            return ("launches" if name.startswith("aten::") else ""), True
        case _:
            return "", not kind.startswith("gpu_")


# --- profiling ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """A profile of some steps."""

    events: list[TraceEvent]
    kernels: int


def profile(steps: Steps, times: int) -> Profile:
    """Run `times` steps under the profiler."""
    ranges = _Ranges(record_function)
    steps.clock.on_phase = ranges.to
    try:
        return _profiled(steps.job.device, lambda: steps.run_timed(times))
    finally:
        ranges.end()
        steps.clock.on_phase = None


class _Ranges:
    """Consecutive ranges in the profile, named after the phases of the step."""

    def __init__(self, make: Callable[[str], AbstractContextManager[object]]) -> None:
        self._make = make
        self._open: AbstractContextManager[object] | None = None

    def to(self, phase: str) -> None:
        self.end()
        if phase != "work":
            self._open = self._make(f"{OURS}{phase}")
            self._open.__enter__()

    def end(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None


def _profiled(device: torch.device, work: Callable[[], object]) -> Profile:
    wait_for(device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        with record_function(f"{OURS}steps"):
            work()
        wait_for(device)
    inner: Any = profiler.profiler
    return _read(inner.kineto_results.events())


def _read(raw: Iterable[Any]) -> Profile:
    events, kernels = [], 0
    for event in raw:
        kind = event.activity_type()
        activity, host = cause(kind, event.name())
        events.append(TraceEvent(activity, (event.start_ns(), event.start_ns() + event.duration_ns()), host))
        kernels += kind == "kernel"
    return Profile(events, kernels)

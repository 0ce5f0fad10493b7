"""What a GPU and its host did meanwhile, from a profile of some steps: every moment counts once.

While the device computes or copies, the moment is the device's. While it is idle, it belongs to what the host did then:
waiting for a value, getting a batch, launching operators, or other work. The profiler makes the host slower but not the
kernels: only seconds of the device, and how many of them passed under each of the host's doings, are taken from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epochtop.engine.lab.intervals import merged

if TYPE_CHECKING:
    import torch

    from epochtop.engine.lab.instruments.phases import Steps

Span = tuple[int, int]
"""Begin and end in nanoseconds."""
DEVICE = ("compute", "transfers")
HOST = ("waits", "reads", "input", "launches", "host")
"""What either can do. The earlier ones have a moment that several could claim; `host` has what nothing claims."""
OURS = "epochtop:"
"""Beginning of the names of our own ranges in a profile."""


@dataclass(frozen=True)
class Event:
    """Something in a profile: `cause` is one of DEVICE or HOST, `steps` for the whole, or empty for what tells nothing."""

    cause: str
    span: Span
    host: bool = True


def without(spans: Sequence[Span], taken: Sequence[Span]) -> list[Span]:
    """Moments of `spans` that are not in `taken`; both merged."""
    left, place = [], 0
    for begin, end in spans:
        while place < len(taken) and taken[place][1] <= begin:
            place += 1
        at = place
        while at < len(taken) and taken[at][0] < end:
            if taken[at][0] > begin:
                left.append((begin, taken[at][0]))
            begin = max(begin, taken[at][1])
            at += 1
        if begin < end:
            left.append((begin, end))
    return left


def within(spans: Sequence[Span], limits: Sequence[Span]) -> list[Span]:
    """Moments of `spans` that are also in `limits`; both merged."""
    return without(spans, without(spans, limits))


@dataclass(frozen=True)
class Shares:
    """Seconds of the device by what it did, and of the host by what it did: while the device was idle, and while not."""

    device: dict[str, float]
    idle: dict[str, float]
    covered: dict[str, float]


def shares(events: Sequence[Event]) -> Shares:
    """Of the host while `steps` are taken, of the device until it is done."""
    whole = merged(event.span for event in events if event.cause == "steps")
    device = {name: _spans(events, name) for name in DEVICE}
    device["transfers"] = without(device["transfers"], device["compute"])
    busy, left = merged(span for spans in device.values() for span in spans), whole
    idle, covered = {}, {}
    for name in HOST:
        mine = left if name == "host" else within(left, _spans(events, name))
        left = without(left, mine)
        idle[name], covered[name] = _seconds(without(mine, busy)), _seconds(within(mine, busy))
    return Shares({name: _seconds(spans) for name, spans in device.items()}, idle, covered)


def _spans(events: Sequence[Event], cause: str) -> list[Span]:
    return merged(event.span for event in events if event.cause == cause)


def _seconds(spans: Sequence[Span]) -> float:
    return sum(end - begin for begin, end in spans) / 1e9


def exposed(of: Shares, input_s: float, read_s: float, work_s: float, launches_s: float) -> dict[str, float]:
    """Parts of a step: the device's, and what of the host's it does not cover.

    The host's seconds are those without the profiler: in its phases, and of launching its operators.
    """
    waits_s = of.idle["waits"] + of.covered["waits"]
    host = {"input": input_s, "reads": read_s, "launches": launches_s, "host": work_s - launches_s - waits_s}
    parts = {name: max(0.0, took - of.covered[name]) for name, took in host.items()}
    parts["reads"] += of.idle["waits"]
    return {**of.device, **parts}


def idle_s(step_s: float, parts: Mapping[str, float]) -> float:
    """What the device's busy moments leave of a step: it had nothing to do. Below 0 where they are longer than the step."""
    return step_s - sum(parts[name] for name in DEVICE)


def cause(kind: str, name: str) -> tuple[str, bool]:
    """Of a profiled event, by the profiler's kind of it and its name: one of DEVICE or HOST, and whether it is the host's."""
    match kind:
        case "kernel" | "gpu_memset":
            return "compute", False
        case "gpu_memcpy":
            return ("compute" if "DtoD" in name else "transfers"), False
        case "cuda_runtime" | "cuda_driver":
            return ("waits" if "Synchronize" in name else "launches"), True
        case "user_annotation" if name.startswith(OURS):
            what = name.removeprefix(OURS)
            return {"input": "input", "read": "reads", "steps": "steps"}.get(what, ""), True
        case "cpu_op":
            return ("launches" if name.startswith("aten::") else ""), True
        case _:
            return "", not kind.startswith("gpu_")


# --- profiling ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """Some steps, profiled."""

    events: list[Event]
    kernels: int


def profile(steps: Steps, times: int) -> Profile:
    """Take so many steps under the profiler."""
    from torch.profiler import record_function

    ranges = _Ranges(record_function)
    steps.marks.on_phase = ranges.to
    try:
        return _profiled(steps.job.device, lambda: steps.watched(times))
    finally:
        ranges.end()
        steps.marks.on_phase = None


class _Ranges:
    """One range of the profile after the other, named for the phase of the step."""

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
    from torch.profiler import ProfilerActivity, record_function
    from torch.profiler import profile as profiling

    from epochtop.engine.lab.instruments.clocks import wait_for

    wait_for(device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profiling(activities=activities) as profiler:
        with record_function(f"{OURS}steps"):
            work()
        wait_for(device)
    inner: Any = profiler.profiler
    return _read(inner.kineto_results.events())


def _read(raw: Iterable[Any]) -> Profile:
    events, kernels = [], 0
    for each in raw:
        kind = each.activity_type()
        what, host = cause(kind, each.name())
        events.append(Event(what, (each.start_ns(), each.start_ns() + each.duration_ns()), host))
        kernels += kind == "kernel"
    return Profile(events, kernels)

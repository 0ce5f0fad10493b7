"""What a GPU and its host did meanwhile, from a profile of some steps: every moment counts once.

While the device computes or copies, the moment is the device's. While it is idle, the moment belongs to what the host did
then: waiting for a value, getting a batch, launching operators, or other work. The profiler makes the host slower but not
the kernels; what it costs an event is measured and taken away from where the events lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from engine.lab.parts import Steps

Span = tuple[int, int]
"""Begin and end in nanoseconds."""
CAUSES = ("compute", "transfers", "reads", "input", "launches", "host")
"""The earlier ones have a moment that several could claim."""
OURS = "epochtop:"
"""Beginning of the names of our own ranges in a profile."""


@dataclass(frozen=True)
class Event:
    """Something in a profile: `cause` is one of CAUSES, `steps` for the whole, or empty for what tells nothing."""

    cause: str
    span: Span
    host: bool = True


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same moments without overlaps, in order."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


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


def shares(events: Sequence[Event], event_s: float = 0.0) -> dict[str, float]:
    """Seconds of every cause; `event_s` is what the profiler takes of the host for an event.

    The whole is what is marked `steps`, and what the device does after it.
    """
    whole = [event.span for event in events if event.cause == "steps"]
    if not whole:
        return {}
    begin = min(span[0] for span in whole)
    end = max(span[1] for span in (*whole, *(event.span for event in events if not event.host)))
    left, found = [(begin, end)], {}
    for cause in CAUSES:
        # what is left is the host's own work
        mine = left if cause == "host" else within(left, merged(event.span for event in events if event.cause == cause))
        left = without(left, mine)
        seconds = sum(stop - start for start, stop in mine) / 1e9
        if cause not in ("compute", "transfers"):
            seconds = max(0.0, seconds - event_s * _begun_in(mine, events))
        found[cause] = seconds
    return found


def _begun_in(spans: Sequence[Span], events: Sequence[Event]) -> int:
    """Events of the host that begin in these moments."""
    begins = sorted(event.span[0] for event in events if event.host and event.cause != "steps")
    count, place = 0, 0
    for begin, end in spans:
        while place < len(begins) and begins[place] < begin:
            place += 1
        while place < len(begins) and begins[place] < end:
            place, count = place + 1, count + 1
    return count


def cause(kind: str, name: str) -> tuple[str, bool]:
    """Of a profiled event, by the profiler's kind of it and its name: one of CAUSES, and whether it is the host's."""
    match kind:
        case "kernel" | "gpu_memset":
            return "compute", False
        case "gpu_memcpy":
            return ("compute" if "DtoD" in name else "transfers"), False
        case "cuda_runtime" | "cuda_driver":
            return ("reads" if "Synchronize" in name else "launches"), True
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
    launches: int
    """Calls of the host that launch a kernel."""
    launch_s: float
    """Seconds of such a call, the profiler's cost included."""


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

    from engine.lab.timing import wait_for

    wait_for(device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profiling(activities=activities) as profiler:
        with record_function(f"{OURS}steps"):
            work()
        wait_for(device)
    inner: Any = profiler.profiler
    return _read(inner.kineto_results.events())


def _read(raw: Iterable[Any]) -> Profile:
    events, kernels, launched = [], 0, []
    for each in raw:
        kind, name = each.activity_type(), each.name()
        what, host = cause(kind, name)
        events.append(Event(what, (each.start_ns(), each.start_ns() + each.duration_ns()), host))
        kernels += kind == "kernel"
        if kind in ("cuda_runtime", "cuda_driver") and "LaunchKernel" in name:
            launched.append(each.duration_ns() / 1e9)
    return Profile(events, kernels, len(launched), sum(launched) / len(launched) if launched else 0.0)


def event_seconds(device: torch.device, times: int = 300) -> float:
    """What the profiler costs the host for an event, on operators with nothing to compute."""
    import torch

    one = torch.ones(1, device=device)

    def work() -> None:
        for _ in range(times):
            one.mul_(one)

    costs = []
    for _ in range(5):
        work()
        begun = perf_counter()
        work()
        plain_s = perf_counter() - begun
        profiled_s = 0.0

        def timed() -> None:
            nonlocal profiled_s
            begun = perf_counter()
            work()
            profiled_s = perf_counter() - begun

        made = _profiled(device, timed)
        host = sum(event.host for event in made.events)
        costs.append(max(0.0, profiled_s - plain_s) / max(1, host))
    return sorted(costs)[len(costs) // 2]

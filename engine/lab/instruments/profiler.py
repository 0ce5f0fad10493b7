"""Steps of a job under torch.profiler: the time of their operators, and the time without any operator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from torch.autograd.profiler import profile, record_function

from epochtop.engine.job.job import Job
from epochtop.engine.lab.instruments.clocks import wait_for
from epochtop.engine.lab.intervals import gaps, merged

STEP = "step"
"""The name of a step in the trace."""
BACKWARD = "autograd::engine::"
FINEST = 1 / 200
"""Fraction of a step below which a gap is not drawn: no terminal is wide enough."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Operator:
    """All calls of an operator in one step."""

    name: str
    calls: float
    seconds: float
    """Self time, without the operators that it calls: of its kernels on a GPU, else of the host."""


@dataclass(frozen=True)
class Span:
    """An interval of one step, in seconds from its start."""

    lane: str
    start: float
    end: float


@dataclass(frozen=True)
class StepTrace:
    """Some steps as the profiler recorded them."""

    seconds: float
    """Seconds per step, by the same clock as for steps without the profiler."""
    length_s: float
    """Seconds per step in the trace."""
    operators: tuple[Operator, ...]
    """The operators, the slowest first."""
    idle_s: float
    """Seconds per step without an operator on the host, or without a kernel on the GPU."""
    spans: tuple[Span, ...]
    """The intervals of the step of median length."""


def trace(job: Job, steps: int, file: Path | None = None) -> StepTrace:
    """Run `steps` steps of `job` under the profiler; write them to `file`, if given, as a Chrome trace."""
    gpu = job.device.type == "cuda"
    wait_for(job.device)
    # what torch.profiler.profile wraps; the wrapper imports torch's compilers, which takes seconds
    with profile(use_kineto=True, use_device="cuda" if gpu else None, acc_events=True) as profiler:
        start = perf_counter()
        for _ in range(steps):
            with record_function(STEP):
                job.step()
        wait_for(job.device)
        seconds = (perf_counter() - start) / steps
    events: Sequence[Any] = profiler.function_events or ()
    if file is not None:
        profiler.export_chrome_trace(str(file))
    return _read(events, steps, seconds, gpu)


def _read(events: Sequence[Any], steps: int, seconds: float, gpu: bool) -> StepTrace:
    host = [event for event in events if event.device_type.name == "CPU"]
    begins = [_interval(event) for event in host if event.name == STEP]
    tops = [
        event for event in host if event.name != STEP and (event.cpu_parent is None or event.cpu_parent.name == STEP)
    ]
    # a user's range covers the gaps between its kernels, and is on the GPU's line too
    kernels = [
        _interval(event) for event in events if event.device_type.name == "CUDA" and not event.is_user_annotation
    ]
    end = max([stop for _, stop in (*begins, *kernels)])
    busy = kernels if gpu else [_interval(event) for event in tops]
    # a step lasts to the next one's begin
    bounds = [
        (first, until) for (first, _), until in zip(begins, [first for first, _ in begins[1:]] + [end], strict=True)
    ]
    window = (bounds[0][0], bounds[-1][1])
    middle = sorted(bounds, key=lambda step: step[1] - step[0])[len(bounds) // 2]
    return StepTrace(
        seconds=seconds,
        length_s=(window[1] - window[0]) / steps,
        operators=_operators(host, steps, gpu),
        idle_s=sum(stop - start for start, stop in gaps(busy, window)) / steps,
        spans=_spans(tops, kernels, middle, gpu),
    )


def _interval(event: Any) -> Interval:
    return event.time_range.start * 1e-6, event.time_range.end * 1e-6


def _operators(host: Iterable[Any], steps: int, gpu: bool) -> tuple[Operator, ...]:
    calls: dict[str, int] = {}
    times: dict[str, float] = {}
    for event in host:
        if gpu and event.is_user_annotation:
            continue  # its time there is that of kernels, which count for their operators
        self_us = event.self_device_time_total if gpu else event.self_cpu_time_total
        if event.name != STEP and (self_us or not gpu):
            calls[event.name] = calls.get(event.name, 0) + 1
            times[event.name] = times.get(event.name, 0.0) + self_us * 1e-6
    operators = [Operator(name, calls[name] / steps, times[name] / steps) for name in calls]
    return tuple(sorted(operators, key=lambda operator: -operator.seconds))


def _spans(tops: Sequence[Any], kernels: Sequence[Interval], step: Interval, gpu: bool) -> tuple[Span, ...]:
    near = (step[1] - step[0]) * FINEST
    named = [(event.name, _interval(event)) for event in tops if step[0] <= _interval(event)[0] < step[1]]
    lanes = {lane: merged(intervals, near) for lane, intervals in _phases(named).items()}
    lanes["between"] = _visible_gaps(lanes.values(), step, near)
    if gpu:
        busy = [(max(start, step[0]), min(end, step[1])) for start, end in kernels if start < step[1] and end > step[0]]
        lanes["kernels"] = merged(busy, near)
        lanes["GPU idle"] = _visible_gaps([lanes["kernels"]], step, near)
    return tuple(
        Span(lane, start - step[0], end - step[0]) for lane, intervals in lanes.items() for start, end in intervals
    )


def _visible_gaps(lanes: Iterable[Sequence[Interval]], step: Interval, near: float) -> list[Interval]:
    """The gaps between the intervals of these lanes, without those too short to draw."""
    return [gap for gap in gaps([interval for lane in lanes for interval in lane], step) if gap[1] - gap[0] > near]


def _phases(named: Sequence[tuple[str, Interval]]) -> dict[str, list[Interval]]:
    """Operators by phase: before the gradients, for the gradients, and after the last gradient."""
    last = max((interval[0] for name, interval in named if name.startswith(BACKWARD)), default=None)
    lanes: dict[str, list[Interval]] = {"forward": [], "backward": [], "update": []}
    for name, interval in named:
        if name.startswith(BACKWARD):
            lanes["backward"].append(interval)
        else:
            lanes["forward" if last is None or interval[0] < last else "update"].append(interval)
    return lanes

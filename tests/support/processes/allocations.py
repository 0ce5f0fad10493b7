"""Memory that torch really takes on the CPU, as its profiler sees every allocation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

from torch.profiler import ProfilerActivity, profile


class Allocated(NamedTuple):
    """Bytes, of what was taken while it was watched."""

    peak: int
    left: int


def allocated(work: Callable[[], object]) -> Allocated:
    """Watch `work`; what it returns is still held at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch 2.11 explains that it keeps the events of one cycle
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
            held = work()
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    assert events
    del held
    return Allocated(peak, now)

"""Operators and idle time of the device, from torch.profiler. Gets torch from the caller and never imports it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MOST = 20
"""Operators that are listed."""


class OperatorProfile:
    """One profile. Raises what torch.profiler raises."""

    def __init__(self, torch: Any) -> None:
        activity = torch.profiler.ProfilerActivity
        self._has_device = torch.cuda.is_available() and torch.cuda.is_initialized()
        activities = [activity.CPU, activity.CUDA] if self._has_device else [activity.CPU]
        self._profile = torch.profiler.profile(activities=activities)

    def start(self) -> None:
        """Begin to profile this thread."""
        self._profile.start()

    def stop(self) -> None:
        """End; :meth:`operators` and :meth:`device_idle_percent` may be called from another thread."""
        self._profile.stop()

    def operators(self) -> list[dict[str, Any]]:
        """Operators by the time they took themselves, the longest first: name, calls, and milliseconds."""
        rows = []
        for event in self._profile.key_averages():
            device_us = getattr(event, "self_device_time_total", 0.0)
            name = event.key
            if not name.startswith(("cudaDeviceSynchronize", "ProfilerStep", "Optimizer.", "enumerate(")):
                cpu_us = event.self_cpu_time_total
                rows.append({"name": name, "calls": event.count, "cpu_ms": cpu_us / 1e3, "device_ms": device_us / 1e3})
        rows.sort(key=lambda row: -max(row["cpu_ms"], row["device_ms"]))
        return rows[:MOST]

    def device_idle_percent(self) -> float | None:
        """Share of the time without a running kernel or copy, in percent; None without a device."""
        if not self._has_device:
            return None
        events = self._profile.events() or []
        kernels = [event.time_range for event in events if str(event.device_type).endswith("CUDA")]
        everything = [event.time_range for event in events]
        if not kernels:
            return None
        span = max(each.end for each in everything) - min(each.start for each in everything)
        return 100.0 * (1 - union_length((each.start, each.end) for each in kernels) / span) if span else None


def union_length(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total

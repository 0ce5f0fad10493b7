"""How busy the device was during a run, from the run's events: a bounded history and a summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epochtop.engine.protocol.events import Telemetry
from epochtop.engine.protocol.quantities import format_bytes

LONGEST = 512
"""Readings in the history. When there are more, neighbors are merged, so the history covers the whole run."""


@dataclass
class _Figure:
    """Mean and maximum of the known readings."""

    total: float = 0.0
    count: int = 0
    highest: float | None = None

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total, self.count = self.total + value, self.count + 1
            self.highest = value if self.highest is None else max(self.highest, value)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None


FIGURES = (
    "gpu_percent",
    "sm_percent",
    "gpu_memory_bytes",
    "temperature_c",
    "power_w",
    "engine_cpu_percent",
    "engine_memory_bytes",
)


class RunTelemetry:
    """A fold of every :class:`epochtop.engine.protocol.events.Telemetry` of a run."""

    def __init__(self) -> None:
        self.figures = {name: _Figure() for name in FIGURES}
        self.slowed_by: dict[str, int] = {}
        """Number of readings with each cause of lowered clocks."""
        self.count = 0
        """Number of readings."""
        self.reason = ""
        """Why figures are unknown, from the last reading that gives a reason."""
        self._histories: dict[str, list[float | None]] = {name: [] for name in FIGURES}
        self._stride = 1

    def add(self, event: Telemetry) -> None:
        """Add one reading."""
        self.count += 1
        self.reason = event.reason or self.reason
        for cause in event.slowed_by:
            self.slowed_by[cause] = self.slowed_by.get(cause, 0) + 1
        for name in FIGURES:
            value = getattr(event, name)
            self.figures[name].add(value)
            if self.count % self._stride == 0:
                self._histories[name].append(value)
        if len(self._histories[FIGURES[0]]) > LONGEST:
            self._stride *= 2
            self._histories = {name: _means(values, 2) for name, values in self._histories.items()}

    def history(self, name: str, columns: int) -> list[float | None]:
        """The whole run in at most `columns` values."""
        values = self._histories[name]
        return _means(values, max(1, -(-len(values) // max(1, columns))))

    def summary(self) -> str:
        """One line; empty while nothing is known."""
        load, reason = self.figures["gpu_percent"].mean, self.reason
        return " · ".join(
            [
                *self._gpu_parts(),
                *self._engine_parts(),
                *([f"GPU unknown: {reason}"] if load is None and reason else []),
            ]
        )

    def _gpu_parts(self) -> list[str]:
        figures = self.figures
        load, busy, power = (figures[name].mean for name in ("gpu_percent", "sm_percent", "power_w"))
        memory = figures["gpu_memory_bytes"].highest
        return [
            *([f"GPU busy {load:.0f} % of the time"] if load is not None else []),
            *([f"multiprocessors {busy:.0f} %"] if busy is not None else []),
            *([f"GPU memory up to {format_bytes(memory)}"] if memory is not None else []),
            *([f"{power:.0f} W"] if power is not None else []),
        ]

    def _engine_parts(self) -> list[str]:
        cpu = self.figures["engine_cpu_percent"].mean
        causes = ", ".join(f"{cause} ({100 * n / self.count:.0f} %)" for cause, n in self.slowed_by.items())
        return [
            *([f"engine used {cpu / 100:.1f} CPUs"] if cpu is not None else []),
            *([f"slowed by {causes}"] if causes else []),
        ]


def _means(values: list[float | None], size: int) -> list[float | None]:
    """The mean of every `size` neighbors."""
    return [mean_of_known(values[start : start + size]) for start in range(0, len(values), size)]


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are known; None if none is."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def planned_and_peak(planned_bytes: int | None, peak_bytes: int | None) -> str:
    """`26 KiB planned, 9.0 MiB peak`; empty if either is unknown."""
    if planned_bytes is None or peak_bytes is None:
        return ""
    return f"{format_bytes(planned_bytes)} planned, {format_bytes(peak_bytes)} peak"

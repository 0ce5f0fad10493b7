"""How busy the device was during a run, as the run's own events tell it: a bounded history and a summary."""

from __future__ import annotations

from dataclasses import dataclass

from epochtop.engine.protocol.events import Telemetry
from epochtop.engine.protocol.quantities import format_bytes

LONGEST = 512
"""Readings that are kept; when there are more, neighbors are merged, so the whole run stays in view."""


@dataclass
class _Figure:
    """Mean and greatest of the known readings."""

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
    """Every :class:`epochtop.engine.protocol.events.Telemetry` of a run, folded."""

    def __init__(self) -> None:
        self.figures = {name: _Figure() for name in FIGURES}
        self.slowed_by: dict[str, int] = {}
        self.count = 0
        self.reason = ""
        self._histories: dict[str, list[float | None]] = {name: [] for name in FIGURES}
        self._each = 1

    def add(self, event: Telemetry) -> None:
        """Take in one reading."""
        self.count += 1
        self.reason = event.reason or self.reason
        for cause in event.slowed_by:
            self.slowed_by[cause] = self.slowed_by.get(cause, 0) + 1
        for name in FIGURES:
            value = getattr(event, name)
            self.figures[name].add(value)
            if self.count % self._each == 0:
                self._histories[name].append(value)
        if len(self._histories[FIGURES[0]]) > LONGEST:
            self._each *= 2
            for name, values in self._histories.items():
                self._histories[name] = [_mean(values[place : place + 2]) for place in range(0, len(values), 2)]

    def history(self, name: str, columns: int) -> list[float | None]:
        """The whole run in at most `columns` values."""
        values = self._histories[name]
        each = max(1, -(-len(values) // max(1, columns)))
        return [_mean(values[place : place + each]) for place in range(0, len(values), each)]

    def summary(self) -> str:
        """One line; empty while nothing is known."""
        figure = self.figures
        load, real, cpu = (figure[name].mean for name in ("gpu_percent", "sm_percent", "engine_cpu_percent"))
        memory, power = figure["gpu_memory_bytes"].highest, figure["power_w"].mean
        parts = []
        if load is not None:
            parts.append(f"GPU busy {load:.0f} % of the time")
        if real is not None:
            parts.append(f"its multiprocessors {real:.0f} %")
        if memory is not None:
            parts.append(f"GPU memory up to {format_bytes(memory)}")
        if power is not None:
            parts.append(f"{power:.0f} W")
        if cpu is not None:
            parts.append(f"engine on {cpu / 100:.1f} CPUs")
        if self.slowed_by:
            parts.append(
                "slowed by "
                + ", ".join(f"{cause} ({100 * n / self.count:.0f} %)" for cause, n in self.slowed_by.items())
            )
        if load is None and self.reason:
            parts.append(f"GPU unknown: {self.reason}")
        return " · ".join(parts)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def compared(planned_bytes: int | None, peak_bytes: int | None) -> str:
    """What the plan said beside what was held; empty where either is unknown."""
    if planned_bytes is None or peak_bytes is None:
        return ""
    return f"memory: {format_bytes(planned_bytes)} planned, {format_bytes(peak_bytes)} held at most"

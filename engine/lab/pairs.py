"""Two variants of one job compared: the time of a step, peak memory, and whether the gradients are the same.

Pure, and imports no torch: it is part of verdicts. The variants are measured by
:mod:`epochtop.engine.lab.instruments.variants`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epochtop.engine.lab import statistics
from epochtop.engine.lab.differences import Difference, difference, stated
from epochtop.engine.lab.experiment import Picture
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.statistics import Figure, figure, grouped, select, values, with_spread
from epochtop.engine.protocol.experiments import Estimate


class StepTime(Measurement, frozen=True, kw_only=True, tag="step"):
    """A step of one variant in one round."""

    device: str
    way: str
    """The variant."""
    own: int
    round: int
    repeats: int = 0
    seconds: float


class PeakMemory(Measurement, frozen=True, kw_only=True, tag="memory"):
    """Peak memory of building the job and running two steps."""

    device: str
    way: str
    round: int
    bytes: float


class LeftOut(Measurement, frozen=True, kw_only=True, tag="left_out"):
    """A variant that was not measured, with the reason."""

    device: str
    way: str
    why: str


STEP_PICTURE = Picture(
    title="Time of a step", kind="bars", y="seconds", series=("device", "way"), unit="s", where={"kind": "step"}
)
MEMORY_PICTURE = Picture(
    title="Peak memory", kind="bars", y="bytes", series=("device", "way"), unit="B", where={"kind": "memory"}
)


@dataclass(frozen=True)
class Pair:
    """A variant and the one it is compared with, on one device."""

    device: str
    way: str
    other: str
    time: Difference | None
    memory: Figure | None
    other_memory: Figure | None

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory relative to the other variant; None if it is unknown."""
        if self.memory is None or self.other_memory is None or not self.other_memory.median:
            return None
        return self.memory.median / self.other_memory.median

    @property
    def saves(self) -> bool:
        """Whether it needs less memory, by more than the spread."""
        if self.memory is None or self.other_memory is None:
            return False
        return self.other_memory.median - self.memory.median > self.other_memory.spread + self.memory.spread

    @property
    def compared(self) -> bool:
        """Whether times were compared often enough to tell them apart."""
        return self.time is not None and self.time.direction != "few"

    @property
    def slower(self) -> bool:
        """Whether its steps take longer."""
        return self.time is not None and self.time.slower

    def estimates(self) -> tuple[Estimate, ...]:
        """The time of a step relative to the other variant."""
        return stated(f"time of {self.way} relative to {self.other}", "×", self.time.ratio) if self.time else ()

    def memory_words(self) -> str:
        """A sentence on memory."""
        if self.memory is None or self.other_memory is None:
            return "memory was not measured"
        ratio = self.memory_ratio or 0.0
        amounts = f"{with_spread(self.memory, 'B')} instead of {with_spread(self.other_memory, 'B')}"
        if not self.saves and ratio <= 1:
            return f"no difference in peak memory: {amounts}"
        return f"{self.way} has {ratio:.3g} × the peak memory of {self.other}: {amounts}"

    def time_words(self) -> str:
        """A sentence on time."""
        return self.time.words(self.way, self.other) if self.time is not None else "time was not measured"


def pair(rows: Sequence[Measurement], device: str, way: str, other: str) -> Pair:
    """The comparison of two variants."""
    memory, steps = of_kind(rows, PeakMemory), of_kind(rows, StepTime)
    sizes = [values(select(memory, device=device, way=name), "bytes") for name in (way, other)]
    own_memory, other_memory = (figure(bytes_) if bytes_ else None for bytes_ in sizes)
    own_steps, other_steps = (select(steps, device=device, way=name) for name in (way, other))
    return Pair(device, way, other, difference(own_steps, other_steps), own_memory, other_memory)


def step_words(rows: Sequence[Measurement], device: str, way: str) -> str:
    """`cpu: a step of fp32 takes 61 µs (60 µs … 63 µs)`; empty if it was not measured."""
    seconds = values(select(of_kind(rows, StepTime), device=device, way=way), "seconds")
    return f"{device}: a step of {way} takes {with_spread(figure(seconds))}" if seconds else ""


def left_out(rows: Sequence[Measurement]) -> list[str]:
    """Sentences on the variants that were not measured."""
    return [f"{row.device}: {row.way} was not measured: {row.why}" for row in of_kind(rows, LeftOut)]


def refused(rows: Sequence[Measurement], devices: Sequence[str], names: Sequence[str]) -> list[str]:
    """The reasons if every device refused all of these variants; empty if one of them was measured or not tried."""
    refusals = of_kind(rows, LeftOut)
    all_refused = all(select(refusals, device=device, way=way) for device in devices for way in names)
    return left_out(rows) if all_refused else []


def gradient_words(deviation: float | None, tolerance: float) -> str:
    """A sentence on the difference of gradients; `deviation` is None if it is not finite."""
    if deviation is None:
        return "gradients are not finite, or some are not 0 that should be 0"
    if deviation <= tolerance:
        return f"gradients differ by at most {deviation:.1e} of a parameter's largest, within {tolerance:.0e}"
    return f"gradients differ by {deviation:.1e} of a parameter's largest, more than {tolerance:.0e}"


def quartiles_apart(rows: Sequence[Measurement], subject: str = "times of one variant") -> str:
    """A sentence on the spread of the step times of one variant."""
    steps = grouped(of_kind(rows, StepTime), ("device", "way"), "seconds")
    return statistics.quartiles_apart(subject, steps.values())

"""The law of a device: a step takes an overhead, and its work at some speed. Fitted per device and model.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.lab.experiments.crossover.schema import GridStep
from epochtop.engine.lab.statistics import Fit, fit, grouped, select, values
from epochtop.engine.protocol.experiments import Line
from epochtop.engine.protocol.quantities import format_quantity

PLAIN = 0.3
"""Largest relative residual with which one overhead and one speed describe all points."""


def model(rows: Sequence[GridStep]) -> Fit | None:
    """`seconds = overhead + MFLOP × cost`, from the medians of one model on one device; None below two points."""
    points = grouped(rows, ("width", "batch", "mflop"), "seconds")
    works = [float(work) for _, _, work in points if isinstance(work, int | float)]
    if len(set(works)) < 2 or len(works) < len(points):
        return None
    return fit([(1.0, work) for work in works], [time.median for time in points.values()])


class Law:
    """The time of a step of one model on one device, by its work."""

    def __init__(self, device: str, name: str, rows: Sequence[GridStep], fitted: Fit) -> None:
        self.device, self.model, self.fit = device, name, fitted
        self._rows = rows
        self.overhead_s, self.mflop_s = fitted.coefficients

    @property
    def gflops(self) -> float | None:
        """Speed in GFLOP/s; None if no step had enough work."""
        return 1e-3 / self.mflop_s if self.mflop_s else None

    @property
    def knee_mflop(self) -> float | None:
        """The work that takes as long as the overhead."""
        return self.overhead_s / self.mflop_s if self.mflop_s else None

    @property
    def plain(self) -> bool:
        """Whether one overhead and one speed describe all points."""
        return self.fit.worst <= PLAIN

    def evidence(self) -> str:
        """The fit, its residual, and the sizes at which steps are mostly overhead."""
        quality = "within" if self.plain else "a poor fit: one point is off by"
        return (
            f"{self.model} on {self.device}: a step takes {format_quantity(self.overhead_s, 's')} + work at "
            f"{format_quantity(self.gflops, 'GFLOP/s')} ({quality} {self.fit.worst:.0%}){self._flat()}"
        )

    def _flat(self) -> str:
        """The largest batch of each width with which a step takes less than twice the overhead."""
        largest: dict[int, int] = {}
        for (width, batch), time in grouped(self._rows, ("width", "batch"), "seconds").items():
            if isinstance(width, int) and isinstance(batch, int) and time.median < 2 * self.overhead_s:
                largest[width] = max(largest.get(width, 0), batch)
        if not largest:
            return ""
        sizes = ", ".join(f"{batch:,} at width {width:,}" for width, batch in sorted(largest.items()))
        return f"; mostly overhead up to a batch of {sizes}"

    def line(self) -> Line:
        """The fitted curve."""
        works = sorted(set(values(self._rows, "mflop")))
        points = tuple((work, self.overhead_s + work * self.mflop_s) for work in works)
        return Line(name=f"{self.device}, {self.model}, fitted", points=points)


def laws_of(grid: Sequence[GridStep]) -> list[Law]:
    """The law of every device and model with enough points."""
    laws = []
    for device, name in dict.fromkeys((row.device, row.model) for row in grid):
        rows = select(grid, device=device, model=name)
        fitted = model(rows)
        if fitted is not None:
            laws.append(Law(device, name, rows, fitted))
    return laws


def crossing_mflop(cpu: Law, other: Law) -> float | None:
    """The work from which `other` is faster, by the fits; None if it always is, or never."""
    more_s, saved_s = other.overhead_s - cpu.overhead_s, cpu.mflop_s - other.mflop_s
    return more_s / saved_s if more_s > 0 and saved_s > 0 else None


def crossing_sentences(laws: Sequence[Law]) -> list[str]:
    """Sentences on where the fitted lines of the CPU and of another device cross."""
    sentences = []
    for law in laws:
        cpu = next((other for other in laws if (other.device, other.model) == ("cpu", law.model)), None)
        if law.device == "cpu" or cpu is None or not (cpu.plain and law.plain):
            continue
        work = crossing_mflop(cpu, law)
        place = f"cross at {format_quantity(work, 'MFLOP')} per step" if work is not None else "do not cross"
        sentences.append(f"{law.model}: the fitted lines of the CPU and {law.device} {place}")
    return sentences

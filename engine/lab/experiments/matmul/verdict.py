"""The verdict of `matmul`: the best product, the sizes that come close to it, and the gain of each arithmetic.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.lab.crossings import crossing
from epochtop.engine.lab.differences import Difference, difference
from epochtop.engine.lab.experiment import Findings, too_few
from epochtop.engine.lab.experiments.matmul.schema import CpuFacts, Limit, Product
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.statistics import Figure, grouped, quartiles_apart, rounds_of, select, values, with_spread
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.quantities import format_percent, format_quantity

BF16_INSTRUCTIONS = ("AVX-512 BF16", "AMX", "BF16")
"""Each of them multiplies bfloat16."""
SLOW = 2.0
"""Factor of the time of fp32 from which an arithmetic has no fast path here."""
LIMITS = {
    "memory": "need more than half of the free memory",
    "unsupported": "are not supported by torch on this device",
}


class ThroughputCurve:
    """The speed of one arithmetic on one device over the size; on the CPU with the threads of each size."""

    def __init__(self, device: str, dtype: str, points: dict[int, Figure], threads: dict[int, int]) -> None:
        self.device, self.dtype, self.points, self.threads = device, dtype, points, threads
        self.best_size = max(points, key=lambda size: points[size].median)
        self.best = points[self.best_size]

    @property
    def name(self) -> str:
        """`bf16 on cpu`."""
        return f"{self.dtype} on {self.device}"

    @property
    def half_size(self) -> int:
        """The smallest size from which half of the best speed is reached, up to the best size."""
        since = self.best_size
        for size in sorted(filter(lambda size: size <= self.best_size, self.points), reverse=True):
            if self.points[size].median < self.best.median / 2:
                break
            since = size
        return since

    def evidence(self, best: float) -> str:
        """A sentence; `best` is the best speed of all curves, in GFLOP/s."""
        smallest, largest = min(self.points), max(self.points)
        threads = self.threads.get(self.best_size)
        used = f" with {_threads([threads])}" if threads is not None else ""
        rising = self.best_size == largest and len(self.points) > 1
        return (
            f"{self.name}: {with_spread(self.best, 'GFLOP/s')} at {self.best_size:,}{used}"
            f"{', the largest size, so larger ones may be faster' if rising else ''}; "
            f"{format_percent(self.best.median / best)} of the machine's best. It reaches half of its own best from "
            f"{self.half_size:,}, and {format_percent(self.points[smallest].median / self.best.median)} of it at {smallest:,}"
        )


def curves_of(rows: Sequence[Measurement]) -> list[ThroughputCurve]:
    """A curve for each arithmetic on each device with a product, in the order of the rows."""
    curves = []
    products = of_kind(rows, Product)
    for device, dtype in dict.fromkeys((row.device, row.dtype) for row in products):
        of_curve = select(products, device=device, dtype=dtype)
        speeds = grouped(of_curve, ("size",), "gflops")
        threads = grouped(of_curve, ("size",), "threads")
        points = {int(size): speed for (size,), speed in speeds.items() if isinstance(size, int)}
        numbers = {int(size): round(number.median) for (size,), number in threads.items() if isinstance(size, int)}
        curves.append(ThroughputCurve(device, dtype, points, numbers))
    return curves


def _threads(numbers: Sequence[int]) -> str:
    """`1 thread`, `1 or 2 threads`."""
    return f"{' or '.join(map(str, numbers))} thread{'s' * (list(numbers) != [1])}"


def conclude(findings: Findings) -> Verdict:
    """The best product, the sizes that come close to it, and the gain of each arithmetic."""
    rows = findings.rows
    curves = curves_of(rows)
    if not curves:
        return too_few("any product")
    best = max(curves, key=lambda curve: curve.best.median)
    compared = [one for curve in curves if (one := _Arithmetic.of(rows, curve)) is not None]
    here = [one for one in compared if one.device == best.device]
    gain = _worthwhile(here)
    takeovers = _takeovers(rows, curves)
    return Verdict(
        finding=_finding(best, here, takeovers),
        evidence=(
            *(curve.evidence(best.best.median) for curve in curves),
            *(one.evidence(rows) for one in compared),
            *takeovers,
            *_limits(rows),
        ),
        next_step=_next_step(best, gain),
        uncertainty=_uncertainty(curves),
        setting={"precision": gain.dtype} if gain is not None else {},
    )


class _Arithmetic:
    """An arithmetic compared with fp32 on the same device, at the largest size of both."""

    def __init__(self, device: str, dtype: str, size: int, sides: Difference) -> None:
        self.device, self.dtype, self.size, self.sides = device, dtype, size, sides

    @classmethod
    def of(cls, rows: Sequence[Measurement], curve: ThroughputCurve) -> _Arithmetic | None:
        products = select(of_kind(rows, Product), device=curve.device)
        narrow, full = (select(products, dtype=dtype) for dtype in (curve.dtype, "fp32"))
        common = set(values(narrow, "size")) & set(values(full, "size"))
        if curve.dtype == "fp32" or not common:
            return None
        size = int(max(common))
        sides = difference(select(narrow, size=size), select(full, size=size))
        return cls(curve.device, curve.dtype, size, sides) if sides is not None else None

    @property
    def faster(self) -> bool:
        return self.sides.faster

    @property
    def slow(self) -> bool:
        """Whether it is so slow that it has no fast path here."""
        return self.sides.slower and self.sides.ratio.median > SLOW

    def words(self) -> str:
        if self.sides.direction == "few":
            return f"{self.dtype} has too few rounds at {self.size:,}"
        if self.sides.direction == "same":
            return f"{self.dtype} makes no difference larger than {self.sides.resolution} at {self.size:,}"
        return f"{self.dtype} is {self.sides.direction} at {self.size:,}: {self.sides.amount()}"

    def evidence(self, rows: Sequence[Measurement]) -> str:
        words = self.sides.words(f"{self.dtype} on {self.device} at {self.size:,}", "fp32")
        return f"{words}{self._reason(rows)}" if self.slow else words

    def _reason(self, rows: Sequence[Measurement]) -> str:
        instructions = [row.instructions for row in of_kind(rows, CpuFacts) if row.instructions is not None]
        if self.device != "cpu" or not instructions:
            return ": there is no fast path for it here"
        names = instructions[0]
        if self.dtype == "bf16" and not any(name in names.split(", ") for name in BF16_INSTRUCTIONS):
            return f": the processor has no hardware for it (instructions: {names})"
        return f": torch has no fast path for it on this processor ({names})"


def _worthwhile(others: Sequence[_Arithmetic]) -> _Arithmetic | None:
    """The fastest arithmetic that is faster than fp32; bf16 instead of fp16 if it takes at most a tenth longer."""
    gains = sorted((one for one in others if one.faster), key=lambda one: one.sides.ratio.median)
    if not gains:
        return None
    near = [one for one in gains if one.sides.ratio.median < 1.1 * gains[0].sides.ratio.median]
    return next((one for one in near if one.dtype == "bf16"), gains[0])


def _takeovers(rows: Sequence[Measurement], curves: Sequence[ThroughputCurve]) -> list[str]:
    """Sentences on the size from which another device is faster than the CPU."""
    products, sentences = of_kind(rows, Product), []
    for curve in curves:
        here, cpu = (select(products, device=device, dtype=curve.dtype) for device in (curve.device, "cpu"))
        crossed = crossing(cpu, here, "size") if curve.device != "cpu" else None
        if crossed is None:
            continue
        if crossed.since is None:
            place = f"not faster than the CPU up to {crossed.largest:,.0f}"
        elif crossed.below is None:
            place = f"faster than the CPU from {crossed.smallest:,.0f}, the smallest size"
        else:
            place = f"faster than the CPU from {crossed.since:,.0f}, not at {crossed.below:,.0f}"
        sentences.append(f"{curve.name} is {place}")
    return sentences


def _limits(rows: Sequence[Measurement]) -> list[str]:
    sentences = []
    for row in of_kind(rows, Limit):
        time = f"would take {format_quantity(row.expected_s, 's')} each" if row.expected_s is not None else ""
        sentences.append(
            f"{row.dtype} on {row.device}: products of {row.size:,} were left out: they {time or LIMITS.get(row.why, 'failed')}"
        )
    return sentences


def _finding(best: ThroughputCurve, others: Sequence[_Arithmetic], takeovers: Sequence[str]) -> str:
    speed = format_quantity(best.best.median, "GFLOP/s")
    fastest = f"{best.name} is the fastest at {speed}, and reaches half of that from a size of {best.half_size:,}"
    against = [one.words() for one in others]
    compared = f"; against fp32 {', '.join(against)}" if against else ""
    return f"{fastest}{compared}{f'; {takeovers[0]}' if takeovers else ''}"


def _next_step(best: ThroughputCurve, gain: _Arithmetic | None) -> str:
    larger = f"use a batch and a width of {best.half_size:,} or more if the model allows it"
    if gain is None:
        return f"{larger}; keep precision=fp32 on {best.device}: no other arithmetic is faster here"
    return (
        f"{larger}; precision={gain.dtype} makes large products faster: `epochtop lab precision` measures the gain in "
        "training"
    )


def _uncertainty(curves: Sequence[ThroughputCurve]) -> str:
    points = [speed for curve in curves for speed in curve.points.values()]
    threads = sorted({number for curve in curves for number in curve.threads.values()})
    used = f", on the CPU with {_threads(threads)}{', the faster per size' * (len(threads) > 1)}" if threads else ""
    return (
        f"{quartiles_apart('speeds of one size', points)}, in {rounds_of(points)}{used}; the best is the best measured here, "
        "not the limit of the hardware, and square products in a row are the easiest work"
    )

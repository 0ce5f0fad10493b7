"""What products of matrices say of a machine: its best, the sizes that come near it, what each arithmetic brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from epochtop.engine.lab.crossings import crossing
from epochtop.engine.lab.experiment import Findings, Row, too_few
from epochtop.engine.lab.statistics import (
    Difference,
    Figure,
    difference,
    figure,
    grouped,
    percent,
    quantity,
    quartiles_apart,
    select,
    values,
    with_spread,
)
from epochtop.engine.protocol.experiments import Verdict

BF16_INSTRUCTIONS = ("AVX-512 BF16", "AMX", "BF16")
"""Any of them multiplies bfloat16."""
SLOW = 2.0
"""Times the time of fp32 from which an arithmetic has no fast way here."""


class Curve:
    """The speed of one arithmetic on one device over the size, on the CPU with as many `threads` as each size had."""

    def __init__(self, device: str, dtype: str, points: dict[int, Figure], threads: dict[int, int]) -> None:
        self.device, self.dtype, self.points, self.threads = device, dtype, points, threads
        self.best_size = max(points, key=lambda size: points[size].median)
        self.best = points[self.best_size]

    @property
    def name(self) -> str:
        return f"{self.dtype} on {self.device}"

    @property
    def half_size(self) -> int:
        """The smallest size from which on half of the best is reached, up to where the best is."""
        since = self.best_size
        for size in sorted(filter(lambda size: size <= self.best_size, self.points), reverse=True):
            if self.points[size].median < self.best.median / 2:
                break
            since = size
        return since

    def evidence(self, best: float) -> str:
        """In a sentence; `best` is the best of all curves, in GFLOP/s."""
        smallest = min(self.points)
        threads = self.threads.get(self.best_size)
        used = f" with {_threads([threads])}" if threads is not None else ""
        growing = ", the largest that was measured: larger ones may be faster" if len(self.points) > 1 else ""
        return (
            f"{self.name}: {with_spread(self.best, 'GFLOP/s')} at {self.best_size:,}{used}"
            f"{growing if self.best_size == max(self.points) else ''}; {percent(self.best.median / best)} of this "
            f"machine's best; half of its own best from {self.half_size:,} on, and at {smallest:,} "
            f"{percent(self.points[smallest].median / self.best.median)} of it"
        )


def curves_of(rows: Sequence[Row]) -> list[Curve]:
    """A curve for each arithmetic on each device that has a product, in the order of the rows."""
    found: dict[tuple[Any, Any], dict[int, Figure]] = {}
    threads: dict[tuple[Any, Any], dict[int, int]] = {}
    products = select(rows, kind="product")
    for (device, dtype, size), told in grouped(products, ("device", "dtype", "size"), "threads").items():
        threads.setdefault((device, dtype), {})[int(size or 0)] = round(told.median)
    for (device, dtype, size), told in grouped(products, ("device", "dtype", "size"), "gflops").items():
        assert isinstance(size, int)
        found.setdefault((device, dtype), {})[size] = told
    return [Curve(*key, points, threads.get(key, {})) for key, points in found.items()]


def _threads(numbers: Sequence[int]) -> str:
    """`1 thread`, `1 or 2 threads`."""
    return f"{' or '.join(map(str, numbers))} thread{'s' * (list(numbers) != [1])}"


def conclude(found: Findings) -> Verdict:
    """The best product, the sizes that come near it, what each arithmetic brings, and where the GPU takes over."""
    curves = curves_of(found.rows)
    if not curves:
        return too_few("a single product")
    best = max(curves, key=lambda curve: curve.best.median)
    others = [told for curve in curves if (told := _Arithmetic.of(found.rows, curve)) is not None]
    mine = [told for told in others if told.device == best.device]
    gain = _worthwhile(mine)
    takeovers = _takeovers(found.rows, curves)
    return Verdict(
        finding=_finding(best, mine, takeovers),
        evidence=(
            *(curve.evidence(best.best.median) for curve in curves),
            *(told.evidence(found.rows) for told in others),
            *takeovers.values(),
            *_limits(found.rows),
        ),
        next_step=_next_step(best, gain),
        uncertainty=_uncertainty(curves),
        setting={"precision": gain.dtype} if gain is not None else {},
    )


class _Arithmetic:
    """What an arithmetic takes of the time of fp32 on the same device, at the largest size of both."""

    def __init__(self, device: str, dtype: str, size: int, told: Difference) -> None:
        self.device, self.dtype, self.size, self.told = device, dtype, size, told

    @classmethod
    def of(cls, rows: Sequence[Row], curve: Curve) -> _Arithmetic | None:
        mine, plain = (
            select(rows, kind="product", device=curve.device, dtype=dtype) for dtype in (curve.dtype, "fp32")
        )
        common = set(values(mine, "size")) & set(values(plain, "size"))
        if curve.dtype == "fp32" or not common:
            return None
        size = int(max(common))
        told = difference(select(mine, size=size), select(plain, size=size))
        return cls(curve.device, curve.dtype, size, told) if told is not None else None

    @property
    def faster(self) -> bool:
        return self.told.distinct and self.told.ratio.median < 1

    @property
    def slow(self) -> bool:
        """So slow that there is no fast way for it here."""
        return self.told.distinct and self.told.ratio.median > SLOW

    def words(self) -> str:
        if self.told.ratio.count <= 2:
            return f"{self.dtype} was compared too seldom at {self.size:,}"
        if not self.told.distinct:
            return f"{self.dtype} makes no difference at {self.size:,}"
        ratio = self.told.ratio.median
        times = quantity(ratio if ratio > 1 else 1 / ratio)
        return f"{self.dtype} is {times} × {'slower' if ratio > 1 else 'faster'} at {self.size:,}"

    def evidence(self, rows: Sequence[Row]) -> str:
        said = self.told.words(f"{self.dtype} on {self.device} at {self.size:,}", "fp32")
        return f"{said}{self._why(rows)}" if self.slow else said

    def _why(self, rows: Sequence[Row]) -> str:
        known = [row["instructions"] for row in select(rows, kind="cpu") if isinstance(row.get("instructions"), str)]
        if self.device != "cpu" or not known:
            return ": there is no fast way for it here"
        names = str(known[0])
        if self.dtype == "bf16" and not any(name in names.split(", ") for name in BF16_INSTRUCTIONS):
            return f": no hardware for it, this processor's instructions are {names}"
        return f": torch has no fast way for it on this processor ({names})"


def _worthwhile(others: Sequence[_Arithmetic]) -> _Arithmetic | None:
    """The fastest arithmetic, where one is faster than fp32; bf16 for fp16 where it costs less than a tenth more."""
    gains = sorted((told for told in others if told.faster), key=lambda told: told.told.ratio.median)
    if not gains:
        return None
    best = gains[0]
    near = [told for told in gains if told.told.ratio.median < 1.1 * best.told.ratio.median]
    return next((told for told in near if told.dtype == "bf16"), best)


def _takeovers(rows: Sequence[Row], curves: Sequence[Curve]) -> dict[str, str]:
    """By arithmetic, the size from which another device is faster than the CPU, in words."""
    said: dict[str, str] = {}
    for curve in curves:
        mine, cpu = (select(rows, kind="product", device=device, dtype=curve.dtype) for device in (curve.device, "cpu"))
        told = crossing(cpu, mine, "size") if curve.device != "cpu" else None
        if told is None:
            continue
        if told.since is None:
            said[curve.dtype] = f"{curve.name} is not faster than the CPU up to {told.largest:,.0f}"
        elif told.below is None:
            said[curve.dtype] = f"{curve.name} is faster than the CPU from {told.smallest:,.0f} on, the smallest size"
        else:
            said[curve.dtype] = (
                f"{curve.name} is faster than the CPU from {told.since:,.0f} on, not at {told.below:,.0f}"
            )
    return said


def _limits(rows: Sequence[Row]) -> list[str]:
    words = {
        "memory": "would not fit into half of the free memory",
        "unsupported": "are not multiplied by torch on this device",
    }
    said = []
    for row in select(rows, kind="limit"):
        expected = values([row], "expected_s")
        why = f"would take {quantity(expected[0], 's')} each" if expected else words.get(str(row.get("why")), "failed")
        said.append(f"{row['dtype']} on {row['device']}: products of {row['size']:,} {why} and were left out")
    return said


def _finding(best: Curve, others: Sequence[_Arithmetic], takeovers: dict[str, str]) -> str:
    said = (
        f"the fastest product here is {best.name} at {quantity(best.best.median, 'GFLOP/s')}, and only matrices from "
        f"{best.half_size:,} on reach half of that"
    )
    against = [told.words() for told in others if told.dtype != best.dtype or best.dtype != "fp32"]
    compared = f"; against fp32 {', '.join(against)}" if against else ""
    first = next(iter(takeovers.values()), "")
    return f"{said}{compared}{f'; {first}' if first else ''}"


def _next_step(best: Curve, gain: _Arithmetic | None) -> str:
    larger = f"let batch and width be {best.half_size:,} or more where the model allows it"
    if gain is None:
        return f"keep precision=fp32 on {best.device}, and {larger}: no other arithmetic is faster here"
    return (
        f"{larger}; precision={gain.dtype} makes large products faster: `epochtop lab precision` shows what is left of "
        "that in a training"
    )


def _uncertainty(curves: Sequence[Curve]) -> str:
    points = [told for curve in curves for told in curve.points.values()]
    threads = sorted({number for curve in curves for number in curve.threads.values()})
    used = (
        f"; on the CPU {_threads(threads)}{', whichever was faster at a size' * (len(threads) > 1)}" if threads else ""
    )
    rounds = figure([told.count for told in points]).median
    return (
        f"{quartiles_apart('speeds of one size', points)} ({rounds:.0f} round{'s' * (rounds != 1)}{used}); the best is the best "
        "seen here, not what the hardware could do, and square products in a row are the easiest work there is"
    )

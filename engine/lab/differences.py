"""Two sides measured in the same rounds: their ratio and their gap with intervals, and the sentence on them.

The only place where an experiment puts a ratio into words, so that no sentence contradicts its interval. Pure, and imports
no torch: the screen uses it too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from epochtop.engine.lab.confidence import repeat_interval
from epochtop.engine.lab.statistics import AnyRow, Figure, cell, figure, value_of
from epochtop.engine.protocol.experiments import Estimate
from epochtop.engine.protocol.quantities import format_percent, format_quantity

Direction = Literal["slower", "faster", "same", "few"]
"""The first side takes longer · less time · no difference can be seen · too few rounds to tell."""
FEWEST = 3
"""Rounds from which a difference counts."""
ROUNDING = 1e-6
"""Distance from 1 that is no difference: no sentence shows more digits."""


@dataclass(frozen=True)
class Difference:
    """The time of one side relative to another, from ratios that were measured moments apart."""

    ratio: Figure
    """The first side over the second, with the interval of the median."""

    @property
    def direction(self) -> Direction:
        """What the interval says. The order of the sides does not matter."""
        if self.ratio.count < FEWEST:
            return "few"
        return "slower" if self.ratio.low > 1 + ROUNDING else "faster" if self.ratio.high < 1 - ROUNDING else "same"

    @property
    def distinct(self) -> bool:
        """Whether the interval excludes 1, in three rounds or more."""
        return self.direction in ("slower", "faster")

    @property
    def slower(self) -> bool:
        """Whether the first side takes longer."""
        return self.direction == "slower"

    @property
    def faster(self) -> bool:
        """Whether the first side takes less time."""
        return self.direction == "faster"

    @property
    def inverse(self) -> Difference:
        """The second side relative to the first."""
        ratio = self.ratio
        return Difference(Figure(1 / ratio.median, 1 / ratio.high, 1 / ratio.low, ratio.count))

    @property
    def resolution(self) -> str:
        """The largest difference that the interval allows: `31.0 %`, or `a factor of 4.20`."""
        largest = max(self.ratio.high, 1 / self.ratio.low) - 1
        return format_percent(max(largest, 1e-3)) if largest < 1 else f"a factor of {format_quantity(largest + 1)}"

    def amount(self) -> str:
        """`1.22 × as long (1.07 … 1.31)`, or `1.64 × as fast (1.55 … 1.72)` if the first side is faster."""
        return (
            f"{_with_interval(self.inverse.ratio)} as fast" if self.faster else f"{_with_interval(self.ratio)} as long"
        )

    def words(self, first: str, second: str, verb: str = "is") -> str:
        """A sentence with the direction: `a is slower than b: 1.22 × (1.07 … 1.31) as long`."""
        match self.direction:
            case "few":
                times = "once" if self.ratio.count == 1 else "twice"
                return f"{first} and {second} were compared only {times}, too few to be sure: {_number(self.ratio.median)} ×"
            case "same":
                none = f"no difference between {first} and {second} larger than {self.resolution} can be seen"
                return f"{none}: {self.amount()}"
            case direction:
                return f"{first} {verb} {direction} than {second}: {self.amount()}"


def _with_interval(ratio: Figure) -> str:
    return f"{_number(ratio.median)} × ({_number(ratio.low)} … {_number(ratio.high)})"


def _number(ratio: float) -> str:
    """Three digits, or as many as it takes to tell it from 1."""
    if ratio >= 999.5:
        return f"{ratio:,.0f}"
    digits = 3
    while digits < 9 and ratio != 1 and float(f"{ratio:.{digits}g}") == 1:
        digits += 1
    return f"{ratio:.{digits}g}"


def difference(first: Iterable[AnyRow], second: Iterable[AnyRow], column: str = "seconds") -> Difference | None:
    """The ratio of two sides measured in the same rounds, one ratio per round; None if no round has both."""
    ratios = [value / other for value, other in _paired(first, second, column)]
    return Difference(_ratio_estimate(ratios)) if ratios else None


def _ratio_estimate(ratios: Sequence[float]) -> Figure:
    """As `estimate`, of logarithms: which side comes first does not matter, and no interval reaches below 0."""
    if min(ratios) <= 0:  # parts that were computed as differences can be below 0
        return estimate(ratios)
    logs = estimate([math.log(ratio) for ratio in ratios])
    return Figure(math.exp(logs.median), math.exp(logs.low), math.exp(logs.high), logs.count)


def gap(first: Iterable[AnyRow], second: Iterable[AnyRow], column: str = "seconds") -> Figure | None:
    """The first side minus the second with the interval of the median; None if no round has both."""
    gaps = [value - other for value, other in _paired(first, second, column)]
    return estimate(gaps) if gaps else None


def estimate(values: Sequence[float]) -> Figure:
    """The median of at least one value, with the interval in which that of another run is expected."""
    low, high = repeat_interval(values)
    return Figure(figure(values).median, low, high, len(values))


def stated(name: str, unit: str, value: Figure) -> tuple[Estimate, ...]:
    """A figure as a verdict states it; empty if it has too few measurements for an interval."""
    if value.count < FEWEST:
        return ()
    return (Estimate(name=name, unit=unit, value=value.median, low=value.low, high=value.high, count=value.count),)


def share(part: Figure, whole: Figure) -> Figure | None:
    """The part as a fraction of the whole, between 0 and 1; None if the part is longer than the whole.

    The interval has the least and the most that both intervals allow. Parts that are measured alone can take longer than in
    the whole, and then the fraction is unknown.
    """
    if whole.low <= 0 or part.low > whole.high:
        return None
    low, middle, high = (max(0.0, min(1.0, value)) for value in _fractions(part, whole))
    return Figure(middle, low, high, min(part.count, whole.count))


def _fractions(part: Figure, whole: Figure) -> tuple[float, float, float]:
    return part.low / whole.high, part.median / whole.median, part.high / whole.low


def _paired(first: Iterable[AnyRow], second: Iterable[AnyRow], column: str) -> Iterator[tuple[float, float]]:
    sides = [
        {cell(row, "round"): value for row in side if (value := value_of(row, column))} for side in (first, second)
    ]
    return ((value, sides[1][turn]) for turn, value in sides[0].items() if turn in sides[1])

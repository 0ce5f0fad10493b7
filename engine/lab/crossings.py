"""The size from which one of two sides is faster, from rows at growing sizes.

Pure, and imports no torch: it is part of verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epochtop.engine.lab.differences import Difference, difference
from epochtop.engine.lab.statistics import SomeRow, select, values


@dataclass(frozen=True)
class Crossing:
    """The sizes at which the second side is faster than the first, by more than the spread."""

    smallest: float
    largest: float
    """The smallest and the largest size that was compared."""
    below: float | None
    """The largest size at which it is not faster; None if it is always faster."""
    since: float | None
    """The smallest size from which it is faster at every size; None if there is none."""

    @property
    def everywhere(self) -> bool:
        """Whether the second side is faster at every size."""
        return self.below is None


def crossing(first: Sequence[SomeRow], second: Sequence[SomeRow], x: str, column: str = "seconds") -> Crossing | None:
    """The crossing of two sides measured at the sizes `x` in the same rounds; None if they share no size."""
    sides = compared(first, second, x, column)
    if not sides:
        return None
    sizes = sorted(sides)
    below = max((size for size in sizes if not faster(sides[size])), default=None)
    since = next((size for size in sizes if below is None or size > below), None)
    return Crossing(sizes[0], sizes[-1], below, since)


def compared(
    first: Sequence[SomeRow], second: Sequence[SomeRow], x: str, column: str = "seconds"
) -> dict[float, Difference]:
    """The difference at every size that both sides have."""
    sizes = sorted(set(values(first, x)) & set(values(second, x)))
    differences = {size: difference(select(first, **{x: size}), select(second, **{x: size}), column) for size in sizes}
    return {size: one for size, one in differences.items() if one is not None}


def faster(sides: Difference) -> bool:
    """Whether the second side takes less time than the first."""
    return sides.slower

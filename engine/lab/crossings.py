"""From where on one of two sides is faster, of rows at growing sizes.

Torch-free and pure: it is part of verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epochtop.engine.lab.experiment import Row
from epochtop.engine.lab.statistics import Difference, difference, select, values


@dataclass(frozen=True)
class Crossing:
    """Where the second side becomes faster than the first, by more than the spread."""

    smallest: float
    largest: float
    """The sizes that were compared."""
    below: float | None
    """The largest size at which it is not faster; None where it always is."""
    since: float | None
    """The smallest size from which on it is faster at every size; None where there is none."""

    @property
    def everywhere(self) -> bool:
        """Whether the second side is faster at every size."""
        return self.below is None


def crossing(first: Sequence[Row], second: Sequence[Row], x: str, column: str = "seconds") -> Crossing | None:
    """Of two sides measured at the sizes `x` in the same rounds; None where they have no size in common."""
    sides = compared(first, second, x, column)
    if not sides:
        return None
    sizes = sorted(sides)
    lost = [size for size in sizes if not faster(sides[size])]
    below = max(lost, default=None)
    since = next((size for size in sizes if below is None or size > below), None)
    return Crossing(sizes[0], sizes[-1], below, since)


def compared(first: Sequence[Row], second: Sequence[Row], x: str, column: str = "seconds") -> dict[float, Difference]:
    """The difference at every size that both sides have."""
    sizes = sorted(set(values(first, x)) & set(values(second, x)))
    found = {size: difference(select(first, **{x: size}), select(second, **{x: size}), column) for size in sizes}
    return {size: told for size, told in found.items() if told is not None}


def faster(told: Difference) -> bool:
    """Whether the second side takes less time than the first, by more than the spread."""
    return told.distinct and told.ratio.median > 1

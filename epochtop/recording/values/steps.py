"""Which steps logged values belong to. Imports nothing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Row = tuple[int, dict[str, Any]]
    """A step, or what stands for one, and values by series."""

COMMITTED, UNCOMMITTED = -1, -2
"""In place of a step: the next one, without or with further values of the same step to follow."""
MEASURED = -3
"""`MEASURED - step` stands for a step that hooks have measured. What the script logs after it belongs to it, once."""


class Numbering:
    """Gives steps to values in the order in which they were logged."""

    def __init__(self) -> None:
        self.next = 0
        """Step of the next value that names none."""
        self.end = 0
        """Highest step plus 1."""
        self._measured_end = 0
        """Last measured step plus 1."""

    @property
    def position(self) -> int:
        """Number of the step that the script is in or begins next."""
        return max(self.next, self._measured_end)

    def rows(self, entries: list[Row]) -> list[Row]:
        """The same values with their steps. `entries` are not empty."""
        places = [place for place, _ in entries]
        if min(places) >= 0:
            self.next = places[-1] + 1
            rows = entries
        elif max(places) <= MEASURED:
            self._measure(MEASURED - min(places))
            rows = [(MEASURED - place, values) for place, values in entries]
        else:
            rows = [(self._number(place), values) for place, values in entries]
            places = [step for step, _ in rows]
        self.end = max(self.end, max(places) + 1, self._measured_end)
        return rows

    def _number(self, place: int) -> int:
        if place <= MEASURED:
            self._measure(MEASURED - place)
            return MEASURED - place
        step = place if place >= 0 else self.next
        self.next = _next_after(self.next, place)
        return step

    def _measure(self, step: int) -> None:
        self.next = max(self.next, step)
        self._measured_end = max(self._measured_end, step + 1)

    def next_after(self, entries: Iterable[Row]) -> int:
        """Step of the next value that names none, once these have steps."""
        step = self.next
        for place, _ in entries:
            step = _next_after(step, place)
        return step


def _next_after(step: int, place: int) -> int:
    if place >= 0:
        return place + 1
    return max(step, MEASURED - place) if place <= MEASURED else step + (place == COMMITTED)

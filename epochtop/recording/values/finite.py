"""Which series end with values that are not finite, and since when. Imports built-in modules only."""

from __future__ import annotations

from epochtop.notifications.detection import is_loss

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class FiniteWatch:
    """Follows the values of a run, window by window."""

    def __init__(self, *, is_complete: bool = True) -> None:
        """`is_complete` is whether the first window is the first one of the run."""
        self._is_complete = is_complete
        self._finite: set[str] = set()
        """Series that had a finite value; left empty if the windows are complete."""
        self._since: dict[str, tuple[int, float, bool]] = {}
        """By series whose values are not finite: the first such step and value, and whether earlier ones may be unknown."""

    def add(self, columns: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
        """Add the values of a window: steps and values by series, none of which is empty."""
        for name, (steps, values) in columns.items():
            if values[-1] - values[-1] == 0.0:
                if name in self._since:
                    del self._since[name]
                if not self._is_complete:
                    self._finite.add(name)
            elif name not in self._since:
                place = _beginning(values)
                may_be_earlier = place == 0 and not self._is_complete and name not in self._finite
                self._since[name] = steps[place], values[place], may_be_earlier

    def describe(self) -> str:
        """A sentence about the series that are not finite, a loss first; empty if there are none."""
        if not self._since:
            return ""
        name = min(self._since, key=lambda each: (not is_loss(each), self._since[each][0]))
        step, value, may_be_earlier = self._since[name]
        what = "NaN" if value != value else "infinite"
        others = len(self._since) - 1
        more = f", and {others} more series {'is' if others == 1 else 'are'} not finite" if others else ""
        return f"{name} is {what} since step {step}{' or earlier' if may_be_earlier else ''}{more}"


def _beginning(values: Sequence[float]) -> int:
    """Place of the first value after the last finite one; the last value is not finite."""
    place = len(values) - 1
    while place > 0 and values[place - 1] - values[place - 1] != 0.0:
        place -= 1
    return place

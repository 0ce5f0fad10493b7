"""What a setting really gained: a run with it, held against the step that an anatomy measured before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from epochtop.engine.lab.statistics import Figure, quantity


@dataclass(frozen=True)
class Gain:
    """How many times faster, and whether that is more than steps differ by anyway."""

    ratio: Figure
    before_s: float
    after_s: float
    """Seconds, of a step or of a row."""
    of: str
    """`step`, or `row` where steps before and after take different numbers of rows."""

    @property
    def distinct(self) -> bool:
        """Whether it is more than the spread of the steps before."""
        outside = not self.ratio.low <= 1 <= self.ratio.high
        return self.ratio.count > 2 and outside and abs(self.ratio.median - 1) > self.ratio.spread

    def words(self, setting: Mapping[str, str]) -> str:
        """`executor=graph really gained 5.2 × (64 µs a step before, 12.3 µs now)`."""
        what = ", ".join(f"{name}={value}" for name, value in setting.items()) or "the run"
        times = f"{quantity(self.before_s, 's')} a {self.of} before, {quantity(self.after_s, 's')} now"
        if self.ratio.count < 3:
            return f"{what}: {times}; measured too seldom before to tell what it gained"
        if not self.distinct:
            return f"{what} made no difference that can be seen ({times})"
        if self.ratio.median < 1:
            return f"{what} made it slower: {1 / self.ratio.median:.3g} × the time ({times})"
        return f"{what} really gained {self.ratio.median:.3g} × ({times})"


def gained(before: Figure, steps_per_second: float, rows_before: int = 1, rows_after: int = 1) -> Gain | None:
    """From the step before and the rate of the run after; None where that run has taken no step.

    `rows_before` and `rows_after` are those of a step: a larger batch gains by the row, not by the step.
    """
    if not (math.isfinite(steps_per_second) and steps_per_second > 0):
        return None
    same = rows_before == rows_after
    each_before, each_after = (1, 1) if same else (rows_before, rows_after)
    after_s = 1 / steps_per_second / each_after
    low, middle, high = (took / each_before / after_s for took in (before.low, before.median, before.high))
    ratio = Figure(middle, low, high, before.count)
    return Gain(ratio, before.median / each_before, after_s, "step" if same else "row")

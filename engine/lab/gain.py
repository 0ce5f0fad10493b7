"""The measured gain of a setting: a run with it, compared with the step that an experiment measured before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from epochtop.engine.lab.statistics import Figure
from epochtop.engine.protocol.quantities import format_quantity


@dataclass(frozen=True)
class Gain:
    """How many times faster a run became, and whether that exceeds the spread of steps."""

    ratio: Figure
    before_s: float
    after_s: float
    """Seconds per step or per row."""
    of: str
    """`step`, or `row` if steps before and after have different numbers of rows."""

    @property
    def distinct(self) -> bool:
        """Whether it exceeds the spread of the steps before."""
        outside = not self.ratio.low <= 1 <= self.ratio.high
        return self.ratio.count > 2 and outside and abs(self.ratio.median - 1) > self.ratio.spread

    def words(self, setting: Mapping[str, str]) -> str:
        """`executor=graph made it 5.2 × as fast (64 µs per step before, 12.3 µs now)`."""
        what = ", ".join(f"{name}={value}" for name, value in setting.items()) or "the run"
        times = f"{format_quantity(self.before_s, 's')} per {self.of} before, {format_quantity(self.after_s, 's')} now"
        if self.ratio.count < 3:
            return f"{what}: {times}; too few measurements before to tell the gain"
        if not self.distinct:
            return f"{what} made no measurable difference ({times})"
        if self.ratio.median < 1:
            return f"{what} made it slower: {1 / self.ratio.median:.3g} × as long ({times})"
        return f"{what} made it {self.ratio.median:.3g} × as fast ({times})"


def gained(before: Figure, steps_per_second: float, rows_before: int = 1, rows_after: int = 1) -> Gain | None:
    """The gain from the step before to the rate of the run after; None if that run took no step.

    `rows_before` and `rows_after` are the rows of a step: a larger batch gains per row, not per step.
    """
    if not (math.isfinite(steps_per_second) and steps_per_second > 0):
        return None
    same = rows_before == rows_after
    unit_before, unit_after = (1, 1) if same else (rows_before, rows_after)
    after_s = 1 / steps_per_second / unit_after
    low, middle, high = (took / unit_before / after_s for took in (before.low, before.median, before.high))
    ratio = Figure(middle, low, high, before.count)
    return Gain(ratio, before.median / unit_before, after_s, "step" if same else "row")

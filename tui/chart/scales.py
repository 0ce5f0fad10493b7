"""Scales of the x axis that follow the step: seconds, wall clock, epochs, series that count. Interpolated between few stored points.

Never imports numpy or a widget.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import isfinite

KNOTS = 4096
"""Points of a scale that are stored."""


class StepScale:
    """A quantity that never falls as steps are taken, such as seconds of training: 0 at step 0 unless `begin` is called."""

    def __init__(self, capacity: int = KNOTS) -> None:
        self._capacity = max(4, capacity)
        self._steps = array("q", [0])
        self._values = array("d", [0.0])

    @property
    def last(self) -> float:
        """The value at the last step."""
        return self._values[-1]

    @property
    def known(self) -> bool:
        """Whether any value was added."""
        return len(self._steps) > 1

    @property
    def rises(self) -> bool:
        """Whether the values are known and not all the same."""
        return self.known and (len(self._steps) == 2 or self._values[-1] > self._values[1])

    @property
    def memory_bytes(self) -> int:
        """Memory of the points."""
        return sys.getsizeof(self._steps) + sys.getsizeof(self._values)

    def begin(self, value: float) -> None:
        """The value at step 0, before others are added."""
        if not self.known:
            self._values[0] = value

    def add(self, step: int, value: float) -> None:
        """Steps before `step` were done at `value`. A lower value than the last one counts as the last one."""
        if not self.continues(step) or not isfinite(value):
            return
        self._steps.append(step)
        self._values.append(max(value, self._values[-1]))
        if len(self._steps) > self._capacity:
            del self._steps[1:-1:2], self._values[1:-1:2]

    def continues(self, step: int) -> bool:
        """Whether `step` is beyond the last one."""
        return step > self._steps[-1]

    def at(self, step: float) -> float:
        """The value when `step` began; outside the run, that of its nearest end."""
        return _interpolate(self._steps, self._values, step, bisect_right(self._steps, step))

    def step_at(self, value: float) -> float:
        """The step in progress at `value`; outside the run, its nearest end."""
        return _interpolate(self._values, self._steps, value, bisect_left(self._values, value))


def _interpolate(xs: Sequence[float], ys: Sequence[float], x: float, right: int) -> float:
    if right == 0:
        return ys[0]
    if right == len(xs):
        return ys[-1]
    low, high = xs[right - 1], xs[right]
    share = (x - low) / (high - low) if high > low else 1.0
    return ys[right - 1] + share * (ys[right] - ys[right - 1])

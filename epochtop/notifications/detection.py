"""When a loss has diverged, and when a run has stalled. Pure arithmetic; imports built-in modules only."""

from __future__ import annotations

from math import isfinite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK = 20
"""Values whose median is one level of the loss. A single outlier does not move it."""
BLOCKS = 2
"""Successive levels that must be too high."""
JUMP = 10.0
"""How many times its earlier range the loss must rise above it."""
FALL = 8.0
"""How many times the spread of a block the loss must have fallen before a return to its first level counts."""
NEGATIVE = 0.1
"""Share of the first level that the loss may fall below 0; a loss without a sign, as of a policy, has no level to return to."""
WINDOW_VALUES = 400
"""Most values of a window that are looked at; a longer window is thinned out evenly."""


class LossWatch:
    """Watches the values of one loss for divergence: a value that is not finite, or a jump of its level.

    The level is the median of 20 values. A jump is one of two things, for two levels in a row: a rise above all earlier
    levels by more than ten times their range, or, for a positive loss, a return to the first level after a fall by more than
    eight times the spread (the distance of the quartiles) of the values in a block.
    """

    def __init__(self) -> None:
        self._block: list[float] = []
        self._first: float | None = None
        """The first level."""
        self._low = self._high = self._spread = 0.0
        self._risen = self._returned = 0
        """Successive levels that are too high."""
        self._is_armed = False
        """Whether the loss is below its first level since the last return."""

    def add(self, values: Sequence[float]) -> str:
        """Add the values of a window. Returns what happened to the loss; empty if nothing did."""
        if not isfinite(sum(values)):
            bad = next((value for value in values if not isfinite(value)), None)
            if bad is not None:
                return "is NaN" if bad != bad else "is infinite"
        stride = (len(values) - 1) // WINDOW_VALUES + 1
        for value in values[::stride] if stride > 1 else values:
            self._block.append(value)
            if len(self._block) == BLOCK:
                block, self._block = sorted(self._block), []
                what = self._judge(block[BLOCK // 2], block[3 * BLOCK // 4] - block[BLOCK // 4])
                if what:
                    return what
        return ""

    def _judge(self, level: float, spread: float) -> str:
        if self._first is None:
            self._first = self._low = self._high = level
            self._spread = spread
            return ""
        scale = max(self._high - self._low, self._spread)
        self._risen = self._risen + 1 if level > self._high + JUMP * scale > self._high else 0
        is_back = self._is_armed and level >= self._first > 0 and self._low > -NEGATIVE * self._first
        self._returned = self._returned + 1 if is_back else 0
        if self._risen >= BLOCKS:
            return f"jumped from {self._high:.4g} at most to {level:.4g}"
        if self._returned >= BLOCKS:
            return f"is back at {level:.4g}, where it began, after it had fallen to {self._low:.4g}"
        if not self._risen:
            self._low, self._high = min(self._low, level), max(self._high, level)
            self._spread = max(self._spread, spread)
            self._is_armed = self._is_armed or self._first - self._low > FALL * self._spread
        return ""


class StallWatch:
    """Watches the time between steps."""

    GAPS = 50
    """Newest gaps whose median is the usual time."""
    LEAST_GAPS = 5
    """Gaps before a stall is possible: the first steps may compile for minutes."""

    def __init__(self, factor: float, least_s: float) -> None:
        """A stall is a gap longer than `factor` times the usual one, `least_s`, and twice the longest earlier one."""
        self._factor, self._least_s = factor, least_s
        self._gaps: list[float] = []
        self._count = 0
        self._longest = 0.0
        self._last: float | None = None
        self._limit: float | None = None
        """Length of the present gap from which on it is a stall; None if none is possible."""
        self.is_paused = False

    def stepped(self, now: float) -> None:
        """Steps have arrived, at `now` seconds of a monotonic clock."""
        if self._last is not None:
            gap = now - self._last
            self._longest = max(self._longest, gap)
            if len(self._gaps) < self.GAPS:
                self._gaps.append(gap)
            else:
                self._gaps[self._count % self.GAPS] = gap
            self._count += 1
        self._last, self._limit = now, None

    def pause(self) -> None:
        """The run is paused: it cannot stall."""
        self.is_paused = True

    def resume(self, now: float) -> None:
        """The run continues; the pause is not a gap between steps."""
        self.is_paused = False
        self._last = now if self._last is not None else None

    def stalled_s(self, now: float) -> float | None:
        """Seconds without a step if that has just become a stall, else None. A stall is reported once."""
        if self._last is None or self._count < self.LEAST_GAPS or self.is_paused or self._limit == float("inf"):
            return None
        if now - self._last < self._least_s:
            return None
        if self._limit is None:
            usual = sorted(self._gaps)[len(self._gaps) // 2]
            self._limit = max(self._factor * usual, self._least_s, 2 * self._longest)
        if now - self._last <= self._limit:
            return None
        self._limit = float("inf")
        return now - self._last


def is_loss(name: str) -> bool:
    """Whether a series is a loss by its name: `loss`, `train/loss`, `val_loss`, `loss/critic`."""
    return "loss" in name.lower().replace("-", "_").replace("/", "_").replace(".", "_").split("_")

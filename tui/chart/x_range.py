"""The range of the x axis: the whole run, its last part, or a range that the user chose.

Ends are round and move in jumps, because every move repaints the whole chart. Never imports a widget.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Literal

from epochtop.tui.chart import axes
from epochtop.tui.chart.trace import Trace, Unit

RangeMode = Literal["whole", "tail", "zoomed"]
"""The whole run, its last part, or a range that the user chose."""
Ends = tuple[float, float]

TAIL = 0.1
"""Fraction of the run in its last part."""
RANGE_TEXTS: dict[RangeMode, str] = {"whole": "whole run", "tail": f"last {100 * TAIL:g} %", "zoomed": "zoomed"}
"""Names of the modes for people."""
SHORTEST = 8
"""Steps in the narrowest range."""


def whole_end(trace: Trace, overlays: Sequence[Trace], total_steps: int | None, unit: Unit, ended: bool) -> float:
    """The end of the whole run. If its length is unknown, the end grows by a factor of about two while it trains."""
    ends = [run.from_step(max(run.steps, 1), unit) for run in (trace, *overlays)]
    if not ended:
        if unit == "rate":
            ends[0] = trace.from_step(trace.sweep.steps - 1, unit) if trace.sweep else 0.0
        elif total_steps and _is_linear(trace, unit):
            ends[0] = trace.from_step(max(total_steps, trace.steps), unit)
        elif trace.steps or len(ends) == 1:
            start = whole_start(trace, unit)
            round_up = axes.nice_seconds if unit in ("seconds", "clock") else axes.nice
            ends[0] = start + round_up(max(ends[0] - start, 1.0))
    return max(ends) if unit == "rate" else max(*ends, 1e-9)


def _is_linear(trace: Trace, unit: Unit) -> bool:
    """Whether the position of steps to come is known."""
    return unit == "step" or (unit == "epoch" and not trace.run.epochs.known)


def whole_start(trace: Trace, unit: Unit) -> float:
    """The start of the x axis: 0, the time of the start, or the lowest learning rate."""
    return trace.from_step(0, unit)


def tail_ends(trace: Trace, unit: Unit, share: float = TAIL) -> Ends:
    """At least the last part of the run; moves by a quarter of its length, not at every frame."""
    if unit == "rate":
        start, end = (trace.from_step(step, unit) for step in (0, max(trace.steps, SHORTEST)))
        return end - share * (end - start), end
    start = whole_start(trace, unit)
    end = trace.from_step(max(trace.steps, SHORTEST), unit) - start or 1.0
    stride = axes.nice(end * share) / 4
    high = ceil(end / stride) * stride
    return start + max(0.0, high - 5 * stride), start + high


def within(low: float, high: float, trace: Trace, unit: Unit, end: float) -> Ends:
    """The range moved and cut to be between the start and `end`, and widened to a few steps."""
    start = whole_start(trace, unit)
    shortest = trace.from_step(SHORTEST, unit) - start or end / 1e6
    length = min(end - start, max(shortest, high - low))
    low = high - length if length > high - low else low
    low = min(max(start, low), end - length)
    return low, low + length


def scaled(ends: Ends, factor: float, around: float | None, last: float) -> Ends:
    """The range scaled by `factor` around `around` if it is visible, else around the newest loss at the right."""
    low, high = ends
    if around is None or not low <= around <= high:
        if low < last < high:
            low, high = low - (high - last), last
        around = high
    return around - (around - low) * factor, around + (high - around) * factor

"""Axes of the chart: ranges in round steps that rarely move, ticks, and labels of constant width.

Ranges have hysteresis, because a range that moves repaints the whole chart: over SSH, 12 KB instead of 1 KB per
frame. Pure arithmetic; never imports a widget or plotext.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from time import localtime, strftime

from epochtop.engine.protocol.quantities import format_clock, format_scientific

Tick = tuple[float, str]
"""Position in the numbers of the axis, and label."""

MIN_FILL = 0.55
"""Fraction of a range that new data must span for the range to stay."""


SMALLEST = 1e-300
"""Magnitude below which values count as 0, because a fraction of them may not be a number other than 0."""


@dataclass(frozen=True)
class Limits:
    """A range of the y axis in round steps. With `log`, all numbers are decimal logarithms."""

    low: float
    high: float
    step: float
    log: bool = False

    def holds(self, fresh: Limits) -> bool:
        """Whether this range still suits data whose ideal range is `fresh`."""
        inside = self.log == fresh.log and self.low <= fresh.low and fresh.high <= self.high
        return inside and fresh.high - fresh.low > MIN_FILL * (self.high - self.low)

    def position(self, value: float) -> float | None:
        """Where `value` is between the ends, from 0 to 1; None if it cannot be drawn."""
        if not isfinite(value) or (self.log and value <= 0):
            return None
        level = log10(value) if self.log else value
        return min(1.0, max(0.0, (level - self.low) / (self.high - self.low)))


def nice(value: float) -> float:
    """The smallest of 1, 2, 5 × 10^k that is at least `value`, which must be positive."""
    power: float = 10.0 ** floor(log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * (1 - 1e-9))


def linear_limits(low: float, high: float, rows: int) -> Limits:
    """A range that contains `low` … `high`. It starts at 0 unless both are far from 0 or negative."""
    if max(abs(low), abs(high)) < SMALLEST:
        low = high = 0.0
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        low, high = (min(0.0, low), max(0.0, high) or (1.0 if low == 0 else 0.0))
    elif 0 < low < 0.7 * high:
        low = 0.0
    elif 0.7 * low < high < 0:
        high = 0.0
    step = nice((high - low) / min(12, max(2, rows * 0.42)))
    return Limits(_round_down(low, step), _round_up(high, step), step)


def log_limits(low: float, high: float, rows: int) -> Limits:
    """A range of a logarithmic axis that contains `low` … `high`; `low` > 0. Its ends are 1, 2 or 5 × 10^k."""
    bottom, top = _below(low), _above(high)
    if top <= bottom:
        top = log10(nice(10**bottom * 1.01))
    return Limits(bottom, top, float(max(1, ceil((top - bottom) / max(2, rows // 3)))), log=True)


def _above(value: float) -> float:
    return log10(nice(value))


def _below(value: float) -> float:
    power: float = 10.0 ** floor(log10(value) + 1e-9)
    return log10(next(power * factor for factor in (5, 2, 1) if power * factor <= value * (1 + 1e-9) or factor == 1))


def _round_down(value: float, step: float) -> float:
    return floor(value / step + 1e-9) * step


def _round_up(value: float, step: float) -> float:
    return ceil(value / step - 1e-9) * step


def y_ticks(limits: Limits, rows: int) -> list[Tick]:
    """Ticks of the y axis from bottom to top."""
    if limits.log:
        return _log_ticks(limits, rows)
    count = round((limits.high - limits.low) / limits.step)
    values = [limits.low + i * limits.step for i in range(count + 1)]
    return list(zip(values, labels(values, limits.step), strict=True))


def _log_ticks(limits: Limits, rows: int) -> list[Tick]:
    low, high, stride = floor(limits.low + 1e-9), ceil(limits.high - 1e-9), round(limits.step)
    dense = (high - low) * 3 <= rows * 0.7
    factors = (1, 2, 5) if dense else (1,)
    powers = range(low, high + 1, 1 if dense else stride)
    values = [10.0**power * factor for power in powers for factor in factors]
    inside = [value for value in values if limits.low - 1e-9 <= log10(value) <= limits.high + 1e-9]
    if len(inside) < 2:
        inside = [10**limits.low, 10**limits.high]
    return [(log10(value), power_label(value)) for value in inside]


def labels(values: list[float], step: float) -> list[str]:
    """Labels with just the digits that distinguish values `step` apart: 0.25, 5,000, 1.2e6."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest >= 1e6 or largest < 1e-3:
        digits = max(0, floor(log10(largest)) - floor(log10(step) + 1e-9)) if largest else 0
        return ["0" if value == 0 else format_scientific(value, digits) for value in values]
    decimals = max(0, -floor(log10(step) + 1e-9))
    return [f"{value + 0.0:,.{decimals}f}" for value in values]


def power_label(value: float) -> str:
    """The label of a logarithmic axis: 0.05, 10, 2e5."""
    return f"{value:,.10g}" if 1e-3 * 0.99 <= value < 1e5 else format_scientific(value, 0)


# --- the x axis ----------------------------------------------------------------------------------------------

CLOCK = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


def nice_seconds(value: float) -> float:
    """The smallest round time in seconds that is at least `value`: 0.5 s, 20 s, 2 min, 6 h."""
    if value <= 30:
        return nice(max(value, 1e-3))
    return next((float(time) for time in CLOCK if time >= value), nice(value / 86_400) * 86_400)


def x_ticks(low: float, high: float, columns: int, unit: str) -> list[Tick]:
    """Ticks of the x axis. Steps are whole; times over a minute are written as a clock."""
    if unit == "rate":
        return power_ticks(low, high, columns)
    if unit == "clock":
        return _clock_ticks(low, high, columns)
    step = _x_step(low, high, columns, unit)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    values = [index * step for index in range(first, last + 1)]
    if unit == "seconds" and high > 60:
        return [(value, format_clock(value)) for value in values]
    return list(zip(values, labels(values, step), strict=True))


def power_ticks(low: float, high: float, columns: int) -> list[Tick]:
    """Powers of ten between decimal logarithms; also 2 and 5 times them if there is room."""
    dense = (high - low) * 3 * RATE_CELLS <= columns
    powers = range(floor(low), ceil(high) + 1)
    rates = [10.0**power * factor for power in powers for factor in ((1, 2, 5) if dense else (1,))]
    inside = [rate for rate in rates if low - 1e-9 <= log10(rate) <= high + 1e-9]
    stride = 1 if dense else max(1, ceil(len(inside) * RATE_CELLS / max(1, columns)))
    return [(log10(rate), power_label(rate)) for rate in inside[::stride]]


def _clock_ticks(low: float, high: float, columns: int) -> list[Tick]:
    """Round local times, as `14:30`; as `14:30:05` below a minute, as `28 Nov` from two days on."""
    step = max(1.0, nice_seconds((high - low) / max(1, columns // CLOCK_CELLS)))
    shape = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86_400 else "%d %b"
    east_s = localtime(low).tm_gmtoff
    values = [index * step - east_s for index in range(ceil((low + east_s) / step), floor((high + east_s) / step) + 1)]
    return [(value, strftime(shape, localtime(value))) for value in values]


CLOCK_CELLS = 14
"""Width of a time of day, including the space around it."""
RATE_CELLS = 8
"""Width of a learning rate's label, including the space around it."""


def _x_step(low: float, high: float, columns: int, unit: str) -> float:
    clock = unit == "seconds" and high > 60
    length = max(len(format_clock(high)), 4) if clock else len(f"{high:,.0f}") if high < 1e6 else 6
    rough = (high - low) / max(1, columns // (length + 6))
    if clock:
        return nice_seconds(max(rough, 1))
    return max(1.0, nice(rough)) if unit == "step" else nice(rough)


def place_labels(ticks: list[tuple[int, str]], width: int) -> str:
    """Labels centered under their columns in `width` cells. Omits labels that would touch or be cut."""
    line, end = "", -1
    for column, label in ticks:
        start = max(0, min(width - len(label), column - len(label) // 2))
        if start > end and start + len(label) <= width:
            line = line.ljust(start) + label
            end = len(line)
    return line.ljust(width)

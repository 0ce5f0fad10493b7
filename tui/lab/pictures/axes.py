"""Axes of experiment pictures: places for values with units, and short labels.

A linear axis has one unit that suits its largest value; on a logarithmic axis each label has a unit. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log2, log10

from epochtop.engine.protocol.experiments import Cell
from epochtop.engine.protocol.quantities import TIME_UNITS
from epochtop.tui.chart import axes
from epochtop.tui.chart.axes import Limits, Tick

_BYTES = tuple(
    (2.0 ** (10 * power), name) for power, name in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB"), (0, "B"))
)
_COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
PREFIXED = ("s", "B", "B/s")
"""Units that are shown in the multiple that suits a value."""
LABEL = 9
"""Cells for a label of the x axis, with the space around it."""


def scale(value: float, unit: str) -> tuple[float, str]:
    """The multiple of `unit` in which `value` is a short number: its size and its name."""
    match unit:
        case "s":
            units: Sequence[tuple[float, str]] = TIME_UNITS
        case "B":
            units = _BYTES
        case "B/s":
            units = [(size, f"{name}/s") for size, name in _BYTES]
        case _:
            return 1.0, unit
    return next(((size, name) for size, name in units if abs(value) >= size * 0.9995), units[-1])


def short(value: float, unit: str = "") -> str:
    """The label of a tick: `20,000`, `200k`, `1 ms`, `64 KiB`. Only seconds and bytes include the unit, which may change from tick to tick."""
    factor, name = scale(value, unit)
    value /= factor
    size, letter = next(((size, name) for size, name in _COUNTS if abs(value) >= size), (1.0, ""))
    if letter == "k" and abs(value) < 100_000:
        size, letter = 1.0, ""
    text = f"{value:,.0f}" if abs(value) >= 1000 and not letter else f"{value / size:.3g}"
    return f"{text}{letter} {name if unit in PREFIXED else ''}".rstrip()


@dataclass(frozen=True)
class Axis:
    """Maps values to levels between `limits`: values in units of `factor`, logarithms, or numbers of categories."""

    limits: Limits
    ticks: tuple[Tick, ...]
    factor: float = 1.0
    unit: str = ""
    """The unit of the numbers at the ticks; empty if the labels include it."""
    zero: float | None = None
    """The level of 0 on a logarithmic axis, if it has one."""
    names: tuple[str, ...] = ()
    """Names of categories."""

    def level(self, value: Cell) -> float | None:
        """The level of a value; None if the axis has no place for it."""
        if self.names:
            return float(self.names.index(str(value))) if str(value) in self.names else None
        if not isinstance(value, int | float) or not isfinite(value):
            return None
        if not self.limits.log:
            return value / self.factor
        return log10(value) if value > 0 else self.zero

    def cell(self, value: Cell, cells: int) -> float | None:
        """The middle of the cell, out of `cells`, that has a value; None if it is outside."""
        level = self.level(value)
        return None if level is None else self.at(level, cells)

    def at(self, level: float, cells: int) -> float | None:
        """The same for a level."""
        share = (level - self.limits.low) / (self.limits.high - self.limits.low)
        return share * (cells - 1) + 0.5 if -1e-9 <= share <= 1 + 1e-9 else None


def upright(values: Sequence[float], unit: str, log: bool, rows: int) -> Axis:
    """The y axis for these values."""
    seen = [value for value in values if isfinite(value) and (value > 0 or not log)]
    low, high = min(seen, default=1.0), max(seen, default=1.0)
    if log:
        limits = axes.log_limits(low, high, rows)
        return Axis(limits, tuple(_powers(limits, unit, max(2, rows // 2))), unit=_axis_unit(unit))
    factor, name = scale(max(abs(low), abs(high)), unit)
    limits = axes.linear_limits(low / factor, high / factor, rows)
    return Axis(limits, tuple(axes.y_ticks(limits, rows)), factor, name)


def across(values: Sequence[Cell], unit: str, log: bool, cells: int) -> Axis:
    """The x axis for these values: numbers, or names in their order of appearance."""
    numbers = sorted({float(value) for value in values if isinstance(value, int | float) and isfinite(value)})
    if not numbers:
        names = tuple(dict.fromkeys(str(value) for value in values))
        limits = Limits(-0.5, max(len(names), 1) - 0.5, 1.0)
        return Axis(limits, tuple((float(place), name) for place, name in enumerate(names)), names=names)
    positive = [number for number in numbers if number > 0]
    if log and positive:
        return _logarithmic(positive, len(positive) < len(numbers), unit, cells)
    factor, name = scale(max(map(abs, numbers)), unit)
    low, high = numbers[0] / factor, numbers[-1] / factor
    limits = axes.linear_limits(low, high, max(5, round(cells / LABEL / 0.42)))
    count = round((limits.high - limits.low) / limits.step)
    levels = [limits.low + place * limits.step for place in range(count + 1)]
    whole = all(float(number / factor).is_integer() for number in numbers)
    tick_levels = [level for level in levels if not whole or abs(level - round(level)) < 1e-9]
    step = max(1.0, limits.step) if whole else limits.step
    return Axis(limits, tuple(zip(tick_levels, axes.labels(tick_levels, step), strict=True)), factor, name)


def _logarithmic(positive: Sequence[float], with_zero: bool, unit: str, cells: int) -> Axis:
    low, high = log10(positive[0]), log10(positive[-1])
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    room = max(2, cells // LABEL)
    ticks: list[Tick] = [(log10(number), short(number, unit)) for number in positive]
    if len(ticks) > room or not all(number.is_integer() for number in positive):
        ticks = _powers(Limits(low, high, 1.0, log=True), unit, room)
    if not with_zero:
        return Axis(Limits(low, high, 1.0, log=True), tuple(ticks), unit=_axis_unit(unit))
    zero = low - (high - low) * 0.12
    return Axis(Limits(zero, high, 1.0, log=True), ((zero, "0"), *ticks), unit=_axis_unit(unit), zero=zero)


def _axis_unit(unit: str) -> str:
    """The unit next to the title of a logarithmic axis."""
    return "" if unit in PREFIXED else unit


def _powers(limits: Limits, unit: str, most: int) -> list[Tick]:
    """At most `most` powers of ten, or of two for bytes, between the limits; with 2 and 5 times them if there is room."""
    if unit in ("B", "B/s"):
        first, last = ceil(log2(10**limits.low) - 1e-9), floor(log2(10**limits.high) + 1e-9)
        steps = next((step for step in (1, 2, 5, 10) if (last - first) // step < most), 20)
        values = [2.0**power for power in range(-(-first // steps) * steps, last + 1, steps)]
    else:
        first, last = floor(limits.low + 1e-9), ceil(limits.high - 1e-9)
        factors = next((few for few in ((1, 2, 5), (1,)) if (last - first) * len(few) < most), (1,))
        stride = max(1, ceil((last - first + 1) * len(factors) / most))
        values = [10.0**power * factor for power in range(first, last + 1, stride) for factor in factors]
    inside = [value for value in values if limits.low - 1e-9 <= log10(value) <= limits.high + 1e-9]
    if len(inside) < 2:
        inside = [10**limits.low, 10**limits.high]
    return [(log10(value), short(value, unit)) for value in inside]

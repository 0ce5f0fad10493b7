"""Quantities as text: numbers, sizes, durations, rates and counts. The only place where they are formatted.

Imports the standard library only. Functions return text of one line; an unknown value is :data:`UNKNOWN`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

UNKNOWN = "—"
"""Text of a value that is unknown."""

GIB = 1 << 30
"""Bytes in a gibibyte."""

TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
"""Seconds in a unit, and its symbol."""
_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


# --- numbers -----------------------------------------------------------------------------------------------


def format_number(value: float | None, digits: int = 4) -> str:
    """A loss or a metric with `digits` significant digits, at most ten characters: `0.0614`, `31615`, `2.60e+36`."""
    if value is None:
        return UNKNOWN
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value != 0 and not 1e-4 <= abs(value) < 1e5:
        return f"{value:.{digits - 2}e}"
    decimals = digits if abs(value) < 1 else max(0, digits - 1 - int(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def format_fixed_width(value: float | None) -> str:
    """A loss six characters wide, right-aligned, so that columns do not move: `0.0912`, `12.345`, `1.23e7`."""
    if value is None or not math.isfinite(value):
        return UNKNOWN.rjust(6)
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 99_999.5):
        text = format_scientific(value, 2)
        return (text if len(text) <= 6 else format_scientific(value, max(0, 8 - len(text)))).rjust(6)
    integer_digits = len(str(int(size))) + (value < 0)
    return f"{value:.{max(0, min(4, 5 - integer_digits))}f}".rjust(6)


def format_scientific(value: float, digits: int) -> str:
    """`1.2e-5`: as `format` writes it, without padding the exponent."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def format_quantity(value: float | None, unit: str = "") -> str:
    """A measured value with three digits and its unit: `61.4 µs`, `2.50 GiB`, `12.0 %`, `1.50 KiB/s`, `840 GFLOP/s`.

    Units `s`, `B` and `B/s` take the prefix that suits the value; any other unit is appended as it is.
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    match unit:
        case "s":
            return _scaled(value, TIME_UNITS)
        case "B":
            return _scaled(value, _SIZES)
        case "B/s":
            return f"{_scaled(value, _SIZES)}/s"
        case "%":
            return f"{_three_digits(value)} %"
        case _:
            return f"{_three_digits(value)} {unit}".rstrip()


def format_percent(share: float) -> str:
    """A share of one as percent, with three digits: 0.12 is `12.0 %`."""
    return format_quantity(100 * share, "%")


def plural(count: int, noun: str) -> str:
    """A count and its noun: `1 step`, `20,000 steps`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    size, name = next(((size, name) for size, name in units if abs(value) >= size), units[-1])
    return f"{_three_digits(value / size)} {name}"


def _three_digits(value: float) -> str:
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"


# --- memory ------------------------------------------------------------------------------------------------


def format_bytes(value: float | None, rounded: bool = False) -> str:
    """Memory in binary units: `26.1 KiB`, `1.4 GiB`, `140 GiB`; with `rounded` no decimals at all."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000 or unit == "GiB":
            return f"{value:,.0f} {unit}" if rounded or value >= 100 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def format_gib(size_bytes: float, of_bytes: float | None = None) -> str:
    """Gibibytes without a unit: `23.5`, `140`. With `of_bytes` it has as many decimals as that total would have."""
    decimals = 1 if (size_bytes if of_bytes is None else of_bytes) < 99.95 * GIB else 0
    return f"{size_bytes / GIB:.{decimals}f}"


# --- time --------------------------------------------------------------------------------------------------


def format_seconds(value: float | None) -> str:
    """A duration in seconds, as people say it: `0.84 s`, `12.4 s`, `3 min 20 s`, `2 h 05 min`, `4 d 3 h`."""
    if value is None:
        return UNKNOWN
    if value < 9.995:
        return f"{value:.2f} s"
    if value < 99.95:
        return f"{value:.1f} s"
    seconds = round(value)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86_400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3600} h"


def format_clock(seconds: float) -> str:
    """A duration as a clock shows it: `1:30` is a minute and a half, `2:00:00` two hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


OLDEST_S = 86_400.0 * 10_000
"""Age that no run has."""


def format_age(seconds: float) -> str:
    """How long ago, in at most six characters, coarse enough to change rarely: `now`, `<1 min`, `5 min`, `3 h`.

    A time in the future is `now`; one of 10,000 days ago or more is unknown, because a clock was wrong.
    """
    if not seconds < OLDEST_S:
        return UNKNOWN
    if seconds < 60:
        return "now" if seconds < 5 else "<1 min"
    if seconds < 3600:
        return f"{int(seconds // 60)} min"
    if seconds < 86_400:
        return f"{int(seconds // 3600)} h"
    return f"{int(seconds // 86_400)} d"


def format_rate(steps_per_second: float | None) -> str:
    """Steps per second: `12.5 steps/s`, `20,000 steps/s`."""
    if steps_per_second is None:
        return f"{UNKNOWN} steps/s"
    return f"{steps_per_second:,.0f} steps/s" if steps_per_second >= 100 else f"{steps_per_second:.3g} steps/s"

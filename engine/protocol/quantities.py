"""Figures as people read them: fixed widths, units, thousands; unknown is a dash."""

from __future__ import annotations

import math

UNKNOWN = "—"


def number(value: float | None, digits: int = 4) -> str:
    """A loss or a metric with `digits` significant digits, never longer than ten characters."""
    if value is None:
        return UNKNOWN
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value != 0 and not 1e-4 <= abs(value) < 1e5:
        return f"{value:.{digits - 2}e}"
    decimals = digits if abs(value) < 1 else max(0, digits - 1 - int(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def seconds(value: float | None) -> str:
    """A duration: `0.84 s`, `12.4 s`, `3 min 20 s`, `2 h 05 min`, `4 d 3 h`."""
    if value is None:
        return UNKNOWN
    if value < 9.995:
        return f"{value:.2f} s"
    if value < 99.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def age(value: float) -> str:
    """How long ago, in at most six characters, and coarse enough not to move all the time."""
    if value < 60:
        return "now" if value < 5 else "<1 min"
    if value < 3600:
        return f"{int(value // 60)} min"
    if value < 86_400:
        return f"{int(value // 3600)} h"
    return f"{int(value // 86_400)} d"


def count(value: int, noun: str) -> str:
    """`1 step`, `20,000 steps`."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def bytes_(value: float | None) -> str:
    """Memory in binary units: `26 KiB`, `1.4 GiB`."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000 or unit == "GiB":
            return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def rate(value: float | None) -> str:
    """Steps per second."""
    if value is None:
        return f"{UNKNOWN} steps/s"
    return f"{value:,.0f} steps/s" if value >= 100 else f"{value:.3g} steps/s"

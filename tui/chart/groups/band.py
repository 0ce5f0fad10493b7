"""Mean and band of several series, by step or by column. Pure arithmetic; never imports a widget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from epochtop.tui.chart.curves import BandKind

BAND_TEXTS: dict[BandKind, str] = {"deviation": "± std", "range": "min–max"}
"""What a band is, for people. The deviation is that of a sample (n - 1)."""


class Band(NamedTuple):
    """Mean and spread of several series, by step."""

    steps: list[int]
    means: list[float]
    lows: list[float]
    """Mean minus the standard deviation, or the lowest value; the mean where only one series has a value."""
    highs: list[float]
    counts: list[int]
    """How many series have a finite value at the step."""


def band(series: Sequence[tuple[Sequence[int], Sequence[float]]], kind: BandKind = "deviation") -> Band:
    """The band of several series, each with its steps and values. Values that are not finite are left out."""
    by_step: dict[int, list[float]] = {}
    for steps, values in series:
        for step, value in dict(zip(steps, values, strict=True)).items():
            if math.isfinite(value):
                by_step.setdefault(step, []).append(value)
    result = Band([], [], [], [], [])
    for step in sorted(by_step):
        numbers = by_step[step]
        mean, deviation = mean_and_deviation(numbers)
        result.steps.append(step)
        result.means.append(mean)
        result.lows.append(mean - deviation if kind == "deviation" else min(numbers))
        result.highs.append(mean + deviation if kind == "deviation" else max(numbers))
        result.counts.append(len(numbers))
    return result


def mean_and_deviation(numbers: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; 0 for one number. The statistics module takes ten times as long."""
    mean = math.fsum(numbers) / len(numbers)
    squares = math.fsum((number - mean) ** 2 for number in numbers)
    return mean, math.sqrt(squares / max(1, len(numbers) - 1))

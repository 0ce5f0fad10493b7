"""Groups of runs with the same value in a column: count, mean and spread of every other column.

Never imports Textual.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from epochtop.engine.protocol.quantities import UNKNOWN, plural
from epochtop.engine.runs.table.details import RunDetails
from epochtop.tui.chart.groups.band import mean_and_deviation
from epochtop.tui.runs_table.columns import Column, Value

NUMBER = float | int
"""Made once, because that takes as long as the test."""


@dataclass(frozen=True)
class Group:
    """Runs that have the same value in a column."""

    value: Value
    runs: tuple[RunDetails, ...]


def grouped(runs: Iterable[RunDetails], column: Column, now: float) -> list[Group]:
    """Groups of runs by a column, in order of their first run. Runs without a value are a group of their own."""
    members: dict[Value, list[RunDetails]] = {}
    for run in runs:
        value = column.value(run, now)
        key = None if isinstance(value, float) and math.isnan(value) else value
        members.setdefault(key, []).append(run)
    return [Group(value, tuple(group)) for value, group in members.items()]


class Spread(NamedTuple):
    """Numbers of a group."""

    size: int
    """Number of finite numbers."""
    mean: float
    deviation: float | None
    """Sample standard deviation (n - 1); None for a single number."""


def spread(values: Iterable[Value]) -> Spread | None:
    """Count, mean and standard deviation of the finite numbers among values; None if there is none."""
    numbers = [float(value) for value in values if isinstance(value, NUMBER) and math.isfinite(value)]
    if not numbers:
        return None
    mean, deviation = mean_and_deviation(numbers)
    return Spread(len(numbers), mean, deviation if len(numbers) > 1 else None)


def group_value(group: Group, column: Column, now: float) -> Value:
    """The cell of a group for sorting: the mean of its numbers, or the text that all its runs have; else None."""
    values = [column.value(run, now) for run in group.runs]
    numbers = spread(values)
    if numbers is not None:
        return numbers.mean
    return values[0] if len(set(values)) == 1 else None


def group_text(group: Group, column: Column, now: float) -> str:
    """The cell of a group as text: `0.912 ± 0.004`, a text that all its runs have, or how many values there are."""
    values = [column.value(run, now) for run in group.runs]
    numbers = spread(values)
    if numbers is None:
        distinct = set(values)
        return column.show(values[0]) if len(distinct) == 1 else plural(len(distinct), "value")
    mean = column.show(numbers.mean)
    if not numbers.deviation or column.key == "age":  # an age is too coarse for a deviation
        return mean
    return f"{mean} ± {_deviation_text(numbers.deviation, mean, column)}"


def _deviation_text(deviation: float, mean: str, column: Column) -> str:
    """A deviation with as many decimals as its mean, or two digits if that would be 0."""
    if column.kind == "fact":
        return column.show(deviation)
    decimals = 0 if "e" in mean else len(mean.partition(".")[2])
    text = f"{deviation:.{decimals}f}"
    return text if decimals and float(text) else f"{deviation:.2g}"


def group_name(group: Group, column: Column) -> str:
    """A group as a name: `0.1 · 8 runs`."""
    value = column.show(group.value) if group.value is not None else UNKNOWN
    return f"{value} · {plural(len(group.runs), 'run')}"

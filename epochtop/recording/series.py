"""Windows of logged values as `Logged` events: binary columns in base64, with summaries of long windows.

See docs/run-format.md. Imports built-in modules only.
"""

from __future__ import annotations

import sys
from array import array
from binascii import b2a_base64
from math import isfinite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

SUMMARY_STEPS = 64
"""Least number of steps of a window with summaries."""
WINDOW_STEPS = 8192
"""Most steps of one event; longer windows are divided."""


def logged(rows: Iterable[tuple[int, Mapping[str, float]]], time: float, seconds: float) -> Iterator[dict[str, Any]]:
    """`Logged` events with the values of these rows, each of which is a step and values by series.

    Series that were logged at the same steps share an event. Consecutive values of one series for the same step count as
    one, the last of them. `time` is Unix time, `seconds` the time since the start of the run.
    """
    columns: dict[str, tuple[array[int], array[float]]] = {}
    for step, values in rows:
        for name, value in values.items():
            column = columns.get(name)
            if column is None:
                columns[name] = column = (array("q"), array("d"))
            steps, numbers = column
            if steps and steps[-1] == step:
                numbers[-1] = value
            else:
                steps.append(step)
                numbers.append(value)
    groups: dict[bytes, dict[str, array[float]]] = {}
    for name, (steps, numbers) in columns.items():
        groups.setdefault(steps.tobytes(), {})[name] = numbers
    for key, series in groups.items():
        steps = array("q", key)
        for first in range(0, len(steps), WINDOW_STEPS):
            part = slice(first, first + WINDOW_STEPS)
            yield window(steps[part], {name: numbers[part] for name, numbers in series.items()}, time, seconds)


def window(steps: array[int], series: Mapping[str, array[float]], time: float, seconds: float) -> dict[str, Any]:
    """One `Logged` event: values of series, as float64, at these steps."""
    event: dict[str, Any] = {
        "type": "Logged",
        "time": round(time, 3),
        "seconds": round(seconds, 6),
        "first_step": steps[0],
        "count": len(steps),
    }
    if steps[-1] - steps[0] != len(steps) - 1 or steps.tolist() != list(range(steps[0], steps[-1] + 1)):
        event["steps"] = base64(steps)
    event["values"] = {name: base64(narrow(numbers)) for name, numbers in series.items()}
    if len(steps) >= SUMMARY_STEPS:
        event["summaries"] = {name: summary(numbers.tolist()) for name, numbers in series.items()}
    return event


def narrow(numbers: array[float]) -> array[float]:
    """The same numbers as float32 if that changes none of them, else as they are."""
    values = numbers.tolist()
    single = array("f", values)
    narrowed = single.tolist()
    if narrowed == values or all(a == b or (a != a and b != b) for a, b in zip(narrowed, values)):
        return single
    return numbers


def base64(column: array[Any]) -> str:
    """A column in little-endian order, as base64."""
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return b2a_base64(column, newline=False).decode("ascii")


def summary(values: Sequence[float]) -> dict[str, Any]:
    """A `SeriesSummary` of a window."""
    first_bad = None
    total = sum(values)
    if not isfinite(total):
        first_bad = next((place for place, value in enumerate(values) if not isfinite(value)), None)
        values = [value for value in values if isfinite(value)]
        total = sum(values)
    if not values:
        described: dict[str, Any] = dict.fromkeys(("first", "minimum", "maximum", "last", "mean"))
    else:
        mean = total / len(values)
        described = {
            "first": values[0],
            "minimum": min(values),
            "maximum": max(values),
            "last": values[-1],
            "mean": mean if isfinite(mean) else sum(value / len(values) for value in values),
        }
    return {"finite": len(values), **described, "first_bad": first_bad}

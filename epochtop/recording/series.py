"""Windows of logged values as `Logged` events: binary columns in base64, with summaries of long windows.

See docs/run-format.md. Imports built-in modules only.
"""

from __future__ import annotations

from binascii import b2a_base64
from itertools import chain, groupby
from struct import pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    Columns = dict[str, tuple[Sequence[int], list[float]]]
    """Steps and values by series, in the order in which they were logged. None is empty."""

SUMMARY_STEPS = 64
"""Least number of steps of a window with summaries."""
WINDOW_STEPS = 8192
"""Most steps of one event; longer windows are divided."""


class Window:
    """Values that wait to be written."""

    __slots__ = ("_columns", "_rows", "is_plain", "seconds", "steps", "time", "waiting")

    def __init__(self, rows: list[tuple[int, dict[str, Any]]], time: float, seconds: float) -> None:
        """`rows` are steps and values by series; some values may have to be waited for."""
        self._rows, self.time, self.seconds = rows, time, seconds
        self._columns: Columns | None = None
        self.steps = len(rows)
        """Number of rows."""
        values = [values.values() for _, values in rows]
        self.is_plain = all_floats(chain.from_iterable(values))
        """Whether no value ever had to be waited for."""
        self.waiting = [] if self.is_plain else [v for each in values for v in each if type(v) is not float]

    @classmethod
    def of_columns(cls, columns: Columns, time: float, seconds: float) -> Window:
        """A window of numbers."""
        window = cls([], time, seconds)
        window._columns = columns
        window.steps = max(len(steps) for steps, _ in columns.values())
        return window

    @property
    def columns(self) -> Columns:
        """The values by series, of a plain window."""
        return columns_of(self._rows) if self._columns is None else self._columns

    @property
    def rows(self) -> Iterable[tuple[int, dict[str, Any]]]:
        """Steps and values by series."""
        if self._columns is None:
            return self._rows
        series = self._columns.items()
        return ((step, {name: value}) for name, (steps, values) in series for step, value in zip(steps, values))

    @property
    def is_ready(self) -> bool:
        """Whether the device has computed all values."""
        while self.waiting and self.waiting[-1].is_ready:
            self.waiting.pop()
        return not self.waiting

    def discard(self) -> int:
        """Give up the values. Returns their number."""
        count = 0
        for _, values in self.rows:
            count += len(values)
            for value in values.values():
                if type(value) is not float:
                    value.discard()
        return count


def columns_of(rows: Iterable[tuple[int, Mapping[str, float]]]) -> Columns:
    """The values of rows, each of which is a step and values by series, as columns.

    Consecutive values of one series for the same step count as one, the last of them.
    """
    columns: Columns = {}
    for names, alike in groupby(rows, _names):
        new_steps, mappings = zip(*alike)
        are_distinct = len(set(new_steps)) == len(new_steps)
        for name, new_numbers in zip(names, zip(*[values.values() for values in mappings])):
            known = columns.setdefault(name, ([], []))
            if are_distinct and known[0][-1:] != [new_steps[0]]:
                known[0].extend(new_steps)
                known[1].extend(new_numbers)
            else:
                _append(known, new_steps, new_numbers)
    return columns


def logged(columns: Columns, time: float, seconds: float) -> Iterator[dict[str, Any]]:
    """`Logged` events with these values. Series that were logged at the same steps share an event.

    `time` is Unix time, `seconds` the time since the start of the run.
    """
    groups: dict[tuple[int, ...], dict[str, list[float]]] = {}
    for name, (steps, numbers) in columns.items():
        groups.setdefault(tuple(steps), {})[name] = numbers
    for key, series in groups.items():
        for first in range(0, len(key), WINDOW_STEPS):
            part = slice(first, first + WINDOW_STEPS)
            yield window(key[part], {name: numbers[part] for name, numbers in series.items()}, time, seconds)


def all_floats(values: Iterable[Any]) -> bool:
    """Whether all values are floats. Costs a fraction of a loop."""
    return set(map(type, values)) <= {float}


def _names(row: tuple[int, Mapping[str, float]]) -> tuple[str, ...]:
    return tuple(row[1])


def _append(known: tuple[list[int], list[float]], new_steps: Sequence[int], new_numbers: Sequence[float]) -> None:
    """Append values one by one. Of consecutive values for the same step, only the last one remains."""
    steps, numbers = known
    for step, value in zip(new_steps, new_numbers):
        if steps and steps[-1] == step:
            numbers[-1] = value
        else:
            steps.append(step)
            numbers.append(value)


def window(steps: Sequence[int], series: Mapping[str, list[float]], time: float, seconds: float) -> dict[str, Any]:
    """One `Logged` event: values of series at these steps."""
    count = len(steps)
    event: dict[str, Any] = {
        "type": "Logged",
        "time": round(time, 3),
        "seconds": round(seconds, 6),
        "first_step": steps[0],
        "count": count,
    }
    if steps[-1] - steps[0] != count - 1 or tuple(steps) != tuple(range(steps[0], steps[0] + count)):
        event["steps"] = base64(pack(f"<{count}q", *steps))
    event["values"] = {name: base64(column(numbers)) for name, numbers in series.items()}
    if count >= SUMMARY_STEPS:
        event["summaries"] = {name: summary(numbers) for name, numbers in series.items()}
    return event


def column(numbers: list[float]) -> bytes:
    """Numbers as little-endian float32 if that changes none of them, else as float64."""
    try:
        single = pack(f"<{len(numbers)}f", *numbers)
    except OverflowError:
        return pack(f"<{len(numbers)}d", *numbers)
    narrowed = unpack(f"<{len(numbers)}f", single)
    if narrowed == tuple(numbers) or all(a == b or (a != a and b != b) for a, b in zip(narrowed, numbers)):
        return single
    return pack(f"<{len(numbers)}d", *numbers)


def base64(raw: bytes) -> str:
    """Bytes as base64."""
    return b2a_base64(raw, newline=False).decode("ascii")


def summary(values: Sequence[float]) -> dict[str, Any]:
    """A `SeriesSummary` of a window."""
    first_bad = None
    total = sum(values)
    if total - total != 0.0:
        first_bad = next((place for place, value in enumerate(values) if value - value != 0.0), None)
        values = [value for value in values if value - value == 0.0]
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
            "mean": mean if mean - mean == 0.0 else sum(value / len(values) for value in values),
        }
    return {"finite": len(values), **described, "first_bad": first_bad}


# --- values that are not finite ------------------------------------------------------------------------------


class FiniteWatch:
    """Follows the values of a run, window by window."""

    def __init__(self, *, is_complete: bool = True) -> None:
        """`is_complete` is whether the first window is the first one of the run."""
        self._is_complete = is_complete
        self._finite: set[str] = set()
        """Series that had a finite value; left empty if the windows are complete."""
        self._since: dict[str, tuple[int, float, bool]] = {}
        """By series whose values are not finite: the first such step and value, and whether earlier ones may be unknown."""

    def add(self, columns: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
        """Add the values of a window: steps and values by series, none of which is empty."""
        for name, (steps, values) in columns.items():
            if values[-1] - values[-1] == 0.0:
                if name in self._since:
                    del self._since[name]
                if not self._is_complete:
                    self._finite.add(name)
            elif name not in self._since:
                place = _beginning(values)
                may_be_earlier = place == 0 and not self._is_complete and name not in self._finite
                self._since[name] = steps[place], values[place], may_be_earlier

    def describe(self) -> str:
        """A sentence about the series that are not finite, a loss first; empty if there are none."""
        if not self._since:
            return ""
        from epochtop.notifications.detection import is_loss

        name = min(self._since, key=lambda each: (not is_loss(each), self._since[each][0]))
        step, value, may_be_earlier = self._since[name]
        what = "NaN" if value != value else "infinite"
        others = len(self._since) - 1
        more = f", and {others} more series {'is' if others == 1 else 'are'} not finite" if others else ""
        return f"{name} is {what} since step {step}{' or earlier' if may_be_earlier else ''}{more}"


def _beginning(values: Sequence[float]) -> int:
    """Place of the first value after the last finite one; the last value is not finite."""
    place = len(values) - 1
    while place > 0 and values[place - 1] - values[place - 1] != 0.0:
        place -= 1
    return place

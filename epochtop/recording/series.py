"""Logged rows: the steps that they belong to, and windows of them as `Logged` events: binary columns in base64, with summaries.

See docs/run-format.md. Imports built-in modules only.
"""

from __future__ import annotations

from _struct import pack, unpack  # `struct` is a file that imports this one
from binascii import b2a_base64
from itertools import chain, groupby

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from epochtop.recording.reports import Reports

    Row = tuple[int, dict[str, Any]]
    """A step, or what stands for one, and values by series."""
    Entry = Any
    """What waits for the writer: a row, or, for usual steps of hooks, :class:`UsualSteps` and then two floats per step."""
    Columns = Mapping[str, tuple[Sequence[int], list[float]]]
    """Steps and values by series, in the order in which they were logged. None is empty."""

COMMITTED, UNCOMMITTED = -1, -2
"""In place of a step: the next one, without or with further values of the same step to follow."""
MEASURED = -3
"""`MEASURED - step` stands for a step that hooks have measured. What the script logs after it belongs to it, once."""
SUMMARY_STEPS = 64
"""Least number of steps of a window with summaries."""
WINDOW_STEPS = 8192
"""Most steps of one event; longer windows are divided."""
SERIES = 10_000
"""Most series of a run."""


# --- steps ---------------------------------------------------------------------------------------------------


class Numbering:
    """Gives steps to values in the order in which they were logged."""

    def __init__(self) -> None:
        self.next = 0
        """Step of the next value that names none."""
        self.end = 0
        """Highest step plus 1."""
        self._measured_end = 0
        """Last measured step plus 1."""
        self._usual: Any = None
        """The usual steps that the next floats continue; None before the first ones."""

    @property
    def position(self) -> int:
        """Number of the step that the script is in or begins next."""
        return max(self.next, self._measured_end)

    def usual_columns(self, entries: list[Entry]) -> Columns | None:
        """The values of these entries if all of them are usual steps; None if not. `entries` are not empty."""
        if self._usual is None or set(map(type, entries)) != {float}:
            return None
        columns: Columns = self._usual.columns(entries)
        self._measure(self._usual.step - 1)
        self.end = max(self.end, self._measured_end)
        return columns

    def rows(self, entries: list[Entry]) -> list[Row]:
        """The same values with their steps. `entries` are not empty."""
        rows = self._complete(entries)
        return self._numbered(rows) if rows else []

    def _complete(self, entries: Iterable[Entry]) -> list[Row]:
        """The rows, with usual steps as rows too."""
        rows: list[Row] = []
        ahead = iter(entries)
        for entry in ahead:
            if type(entry) is tuple:
                rows.append(entry)
            elif type(entry) is float:
                assert self._usual is not None
                step, values = self._usual.next(entry, next(ahead))
                rows.append((MEASURED - step, values))
            else:
                self._usual = entry
        return rows

    def _numbered(self, entries: list[Row]) -> list[Row]:
        places = [place for place, _ in entries]
        if min(places) >= 0:
            self.next = places[-1] + 1
            rows = entries
        elif max(places) <= MEASURED:
            self._measure(MEASURED - min(places))
            rows = [(MEASURED - place, values) for place, values in entries]
        else:
            rows = [(self._number(place), values) for place, values in entries]
            places = [step for step, _ in rows]
        self.end = max(self.end, max(places) + 1, self._measured_end)
        return rows

    def _number(self, place: int) -> int:
        if place <= MEASURED:
            self._measure(MEASURED - place)
            return MEASURED - place
        step = place if place >= 0 else self.next
        self.next = _next_after(self.next, place)
        return step

    def _measure(self, step: int) -> None:
        self.next = max(self.next, step)
        self._measured_end = max(self._measured_end, step + 1)

    def next_after(self, entries: Iterable[Entry]) -> int:
        """Step of the next value that names none, once these have steps."""
        step, usual_step = self.next, 0 if self._usual is None else self._usual.step
        ahead = iter(entries)
        for entry in ahead:
            if type(entry) is tuple:
                step = _next_after(step, entry[0])
            elif type(entry) is float:
                step, usual_step = max(step, usual_step), usual_step + 1
                next(ahead)
            else:
                usual_step = entry.step
        return step


def _next_after(step: int, place: int) -> int:
    if place >= 0:
        return place + 1
    return max(step, MEASURED - place) if place <= MEASURED else step + (place == COMMITTED)


# --- windows -------------------------------------------------------------------------------------------------


class Window:
    """Values that wait to be written."""

    __slots__ = ("_columns", "is_plain", "rows", "seconds", "steps", "time", "waiting")

    def __init__(self, rows: list[Row], time: float, seconds: float, columns: Columns | None = None) -> None:
        """`rows` are steps and values by series, and `columns` numbers by series, if there are no rows."""
        self.rows, self._columns, self.time, self.seconds = rows, columns, time, seconds
        self.steps = len(rows) if columns is None else max(len(steps) for steps, _ in columns.values())
        values = [values.values() for _, values in rows]
        self.is_plain = all_floats(chain.from_iterable(values))
        """Whether no value ever had to be waited for."""
        self.waiting = [] if self.is_plain else [v for each in values for v in each if type(v) is not float]

    @property
    def is_ready(self) -> bool:
        """Whether the device has computed all values."""
        while self.waiting and self.waiting[-1].is_ready:
            self.waiting.pop()
        return not self.waiting

    def send(self, report: Reports) -> None:
        """Enqueue the copies of the values, so that a device that is behind does not delay later ones."""
        if self.waiting:
            from epochtop.recording.values.device import send

            try:
                send(self.waiting)
            except Exception as error:
                report(f"values could not be copied from their device: {error}"[:300])
                self.waiting = []

    def columns(self, last: dict[str, float], report: Reports) -> Columns:
        """The values, without those that cannot be read. `last` holds the newest value of every series, and is updated."""
        columns = self._columns
        if columns is None and self.is_plain:
            columns = columns_of(self.rows)
        if columns is None or len(last) + len(columns) > SERIES:
            self._read(last, report)
            return columns_of(self.rows)
        last.update({name: numbers[-1] for name, (_, numbers) in columns.items()})
        return columns

    def _read(self, last: dict[str, float], report: Reports) -> None:
        """Replace the values by numbers, and remove those that cannot be read or whose series is one too many."""
        if self._columns is not None:
            self.rows = rows_of(self._columns)
        for _, values in self.rows:
            for name, value in list(values.items()):
                if type(value) is not float:
                    try:
                        values[name] = value = value.read()
                    except Exception as error:
                        del values[name]
                        report.ignored(f"{name} could not be read: {error}"[:300])
                        continue
                if name in last or len(last) < SERIES:
                    last[name] = value
                else:
                    del values[name]
                    report.ignored(f"only the first {SERIES} series are recorded")

    def discard(self) -> int:
        """Give up the values. Returns their number."""
        if self._columns is not None:
            return sum(len(numbers) for _, numbers in self._columns.values())
        for _, values in self.rows:
            for value in values.values():
                if type(value) is not float:
                    value.discard()
        return sum(len(values) for _, values in self.rows)


def rows_of(columns: Columns) -> list[Row]:
    """The values one by one, in rows of their own."""
    series = columns.items()
    return [(step, {name: number}) for name, (steps, numbers) in series for step, number in zip(steps, numbers)]


def columns_of(rows: Iterable[tuple[int, Mapping[str, float]]]) -> Columns:
    """The values of rows, each of which is a step and values by series, as columns.

    Consecutive values of one series for the same step count as one, the last of them.
    """
    columns: dict[str, tuple[list[int], list[float]]] = {}
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

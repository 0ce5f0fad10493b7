"""Which steps logged values belong to. Imports nothing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Row = tuple[int, dict[str, Any]]
    """A step, or what stands for one, and values by series."""
    Entry = Row | UsualSteps | float
    """What waits for the writer: a row, the start of usual steps, or one of the two numbers of a usual step."""
    Columns = dict[str, tuple[range, list[float]]]
    """Steps and values by series."""

COMMITTED, UNCOMMITTED = -1, -2
"""In place of a step: the next one, without or with further values of the same step to follow."""
MEASURED = -3
"""`MEASURED - step` stands for a step that hooks have measured. What the script logs after it belongs to it, once."""


class UsualSteps:
    """Steps in a row that hooks have measured, each with a loss and a duration and nothing else.

    It stands in the queue before them. Each of them is two floats: its loss, and the time at its end. That costs the
    script's loop less than a row.
    """

    __slots__ = ("_loss", "_previous", "_time", "step")

    def __init__(self, loss: str, time: str, step: int, previous: float) -> None:
        """`loss` and `time` are the names of the series of losses and of milliseconds, `step` is the first of these steps,
        and `previous` the time in seconds at the end of the step before.
        """
        self._loss, self._time, self.step, self._previous = loss, time, step, previous

    def columns(self, numbers: list[float]) -> Columns:
        """The values of the next steps. `numbers` are their losses and times in turn."""
        losses, ends = numbers[::2], numbers[1::2]
        begins = [self._previous, *ends[:-1]]
        self._previous = ends[-1]
        steps = range(self.step, self.step + len(losses))
        self.step = steps.stop
        durations = [milliseconds(end - begin) for begin, end in zip(begins, ends)]
        return {self._loss: (steps, losses), self._time: (steps, durations)}

    def row(self, loss: float, end: float) -> Row:
        """The next step."""
        place, elapsed_s = MEASURED - self.step, end - self._previous
        self.step, self._previous = self.step + 1, end
        return place, {self._loss: loss, self._time: milliseconds(elapsed_s)}


def milliseconds(seconds: float) -> float:
    """A duration as a multiple of 1/1024 ms, so that four bytes hold it."""
    return int(seconds * 1024e3) / 1024


class Numbering:
    """Gives steps to values in the order in which they were logged."""

    def __init__(self) -> None:
        self.next = 0
        """Step of the next value that names none."""
        self.end = 0
        """Highest step plus 1."""
        self._measured_end = 0
        """Last measured step plus 1."""
        self._usual: UsualSteps | None = None
        """Usual steps that may go on."""

    @property
    def position(self) -> int:
        """Number of the step that the script is in or begins next."""
        return max(self.next, self._measured_end)

    def usual_columns(self, entries: list[Entry]) -> Columns | None:
        """The values of these entries if all of them are usual steps; None if not. `entries` are not empty."""
        if self._usual is None or set(map(type, entries)) != {float}:
            return None
        columns = self._usual.columns(entries)
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
                rows.append(self._usual.row(entry, next(ahead)))
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

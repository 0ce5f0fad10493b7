"""A series of any length in bounded memory: buckets of consecutive steps that widen as the series grows.

The chart reads columns and never the whole history. Spikes survive because every bucket stores its extremes; NaN
survives as the first bad step. Only buckets with values are stored, so a loss of every step and an accuracy of every
thousandth one are the same to the chart. Never imports numpy, which would delay the start of the app.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil, isfinite, isnan, nan
from typing import Any, NamedTuple

from epochtop.engine.protocol.events import SeriesSummary
from epochtop.engine.runs.series import SeriesWindow

CAPACITY = 8192
"""Buckets of a series; 64 bytes each."""
SEAMS = 16
"""Most seams that are remembered, the newest ones."""


class Bucket(NamedTuple):
    """The finite values of the steps `start` … `stop`−1 as one column. `finite` is their number."""

    start: int
    stop: int
    finite: int
    first: float
    minimum: float
    maximum: float
    last: float
    mean: float

    @property
    def exact(self) -> bool:
        """Whether this is a single value."""
        return self.finite == 1 and self.stop - self.start == 1


class Point(NamedTuple):
    """The last value of a bucket, and its first step."""

    step: int
    value: float


class Series:
    """Values by step in at most `capacity` buckets of `width` steps, aligned to absolute steps.

    The result does not depend on how the stream is cut into windows. Only means may differ in the last bits, because
    sums inside a window are compensated, and a summary stores a mean. A step may come again: then its last value counts.
    In a bucket of several steps, new values replace the old ones as soon as its first step comes again.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = max(2, capacity // 2 * 2)
        self.width = 1
        """Steps in a bucket, a power of two."""
        self.steps = 0
        """The next step: 1 more than the highest one."""
        self.first_bad_step: int | None = None
        """The first step whose value was NaN or infinite."""
        self.bad_kind = ""
        """`NaN` or `Inf`, at the first bad step."""
        self.last: float | None = None
        """The last finite value."""
        self.newest: float | None = None
        """The value that came last; None if it is not finite."""
        self.minimum: float | None = None
        self.double = False
        """Whether values are float64; else they are float32."""
        self.version = 0
        """Rises with every window."""
        self.seams: list[int] = []
        """Steps from which on values came again."""
        self._newest = -1
        """The step that came last."""
        self._index = array("q")
        """Number of each bucket: its first step divided by `width`. Ascending; buckets without values may be missing."""
        self._first, self._last = array("d"), array("d")
        self._low, self._high = array("d"), array("d")
        self._sum, self._count = array("d"), array("q")

    def expect(self, steps: int) -> None:
        """Begin with the width that the buckets will have after this many consecutive steps, so that no narrower ones are
        made and merged, and more windows fit into a bucket."""
        while not self._index and steps > self.width * self._capacity:
            self.width *= 2

    # --- writing -----------------------------------------------------------------------------------------------

    def add(self, window: SeriesWindow) -> None:
        """Add a window."""
        if not window.count:
            return
        self.version += 1
        self.double = self.double or window.double
        newest = window.last
        self.newest = newest if isfinite(newest) else None
        if window.first_step < self._newest:  # the same step again is a correction
            self.seams = [*self.seams, window.first_step][-SEAMS:]
        if window.steps is None:
            self._add_contiguous(window)
        else:
            self._add_scattered(window.step_numbers(), window.numbers())

    def _add_contiguous(self, window: SeriesWindow) -> None:
        step, stop = window.first_step, window.first_step + window.count
        numbers: array[float] | None = None
        if self.width == 1 and step >= self.steps:
            numbers = window.numbers()
            step += self._append_singles(numbers.tolist(), step)
        while step < stop:
            place = self._bucket_for(step)
            end = min(stop, (step // self.width + 1) * self.width)
            summary = window.summary
            if end - step == window.count and summary is not None and self._explained(summary):
                self._add_summary(place, summary)
            else:
                numbers = window.numbers() if numbers is None else numbers
                position = step - window.first_step
                self._add(place, numbers[position : position + end - step].tolist(), step)
            self._advance(end)
            step = end

    def _append_singles(self, values: list[float], step: int) -> int:
        """Append buckets of one step each, up to the capacity; returns their number, 0 if a value is not finite."""
        room = min(len(values), self._capacity - len(self._index))
        values = values[:room]
        if not values or not isfinite(sum(values)):
            return 0
        self._index.extend(range(step, step + room))
        for field in (self._first, self._last, self._low, self._high, self._sum):
            field.extend(values)
        self._count.extend([1] * room)
        self.last, low = values[-1], min(values)
        self.minimum = low if self.minimum is None else min(low, self.minimum)
        self._advance(step + room)
        return room

    def _add_scattered(self, steps: Sequence[int], values: array[float]) -> None:
        for step, value in zip(steps, values, strict=True):
            if step < self._newest and (not self.seams or self.seams[-1] != step):
                self.seams = [*self.seams, step][-SEAMS:]
            self._add(self._bucket_for(step), [value], step)
            self._advance(step + 1)

    def _advance(self, stop: int) -> None:
        self._newest = stop - 1
        self.steps = max(self.steps, stop)

    def _bucket_for(self, step: int) -> int:
        """The place of the bucket of a step, made or emptied if necessary."""
        while True:
            number = step // self.width
            place = len(self._index)
            if place and number <= self._index[-1]:
                place = bisect_left(self._index, number)
            if place < len(self._index) and self._index[place] == number:
                if step < self.steps and self._replaces(step, number):
                    self._empty(place)
                return place
            if len(self._index) < self._capacity:
                self._insert(place, number)
                return place
            self._merge_neighbors()

    def _replaces(self, step: int, number: int) -> bool:
        """Whether a step that comes again replaces its bucket, rather than add to it: steps came up to the bucket in order,
        or it is the first step of the bucket."""
        enters = self._newest // self.width != number
        return step % self.width == 0 or (enters and self._newest < step)

    def _insert(self, place: int, number: int) -> None:
        self._index.insert(place, number)
        for field, empty in self._fields():
            field.insert(place, empty)

    def _empty(self, place: int) -> None:
        for field, empty in self._fields():
            field[place] = empty

    def _add(self, place: int, values: list[float], step: int) -> None:
        total = sum(values, self._sum[place])
        if not isfinite(total):
            values = self._finite(values, step)
            if not values:
                return
            total = sum(values, self._sum[place])
        self._put(place, len(values), values[0], min(values), max(values), values[-1], total)

    def _explained(self, summary: SeriesSummary) -> bool:
        """Whether the first bad value is known, so that the values of a window need not be searched for it."""
        return summary.first_bad is None or self.first_bad_step is not None

    def _add_summary(self, place: int, summary: SeriesSummary) -> None:
        values = summary.first, summary.minimum, summary.maximum, summary.last, summary.mean
        first, low, high, last, mean = (nan if value is None else value for value in values)
        if summary.finite:
            self._put(place, summary.finite, first, low, high, last, self._sum[place] + mean * summary.finite)

    def _put(self, place: int, count: int, first: float, low: float, high: float, last: float, total: float) -> None:
        if self._count[place] == 0:
            self._first[place] = first
        self._low[place] = min(low, self._low[place])
        self._high[place] = max(high, self._high[place])
        self._sum[place] = total
        self._count[place] += count
        self._last[place] = self.last = last
        if self.minimum is None or low < self.minimum:
            self.minimum = low

    def _finite(self, values: list[float], step: int) -> list[float]:
        """The finite values; records the first bad step."""
        if self.first_bad_step is None:
            offset = next((i for i, value in enumerate(values) if not isfinite(value)), None)
            if offset is not None:  # otherwise only the sum overflows
                self.first_bad_step = step + offset
                self.bad_kind = "NaN" if isnan(values[offset]) else "Inf"
        return [value for value in values if isfinite(value)]

    def _merge_neighbors(self) -> None:
        """Double the width."""
        self.width *= 2
        old = self._index, self._first, self._low, self._high, self._last, self._sum, self._count
        self._index = array("q")
        self._first, self._last, self._low, self._high = array("d"), array("d"), array("d"), array("d")
        self._sum, self._count = array("d"), array("q")
        for number, first, low, high, last, total, count in zip(*old, strict=True):
            if self._index and self._index[-1] == number // 2:
                if not self._count[-1]:
                    self._first[-1] = first
                if count:
                    self._last[-1] = last
                self._low[-1] = min(self._low[-1], low)
                self._high[-1] = max(self._high[-1], high)
                self._sum[-1] += total
                self._count[-1] += count
            else:
                self._index.append(number // 2)
                for field, value in zip(self._columns(), (first, low, high, last, total, count), strict=True):
                    field.append(value)

    def _columns(self) -> tuple[array[Any], ...]:
        return self._first, self._low, self._high, self._last, self._sum, self._count

    def _fields(self) -> Iterator[tuple[array[Any], float]]:
        return zip(self._columns(), (0.0, float("inf"), float("-inf"), 0.0, 0.0, 0), strict=True)

    @property
    def memory_bytes(self) -> int:
        """Memory of the buckets."""
        return sum(map(sys.getsizeof, (self._index, *self._columns())))

    # --- reading -----------------------------------------------------------------------------------------------

    def columns(self, edges: Sequence[float]) -> list[Bucket | None]:
        """One column between each two neighboring `edges` (steps, ascending); None if no bucket starts there.

        A bucket belongs to the column in which it starts, so a complete column never changes.
        The cost depends on the capacity, not on the number of steps.
        """
        places = [bisect_left(self._index, ceil(edge / self.width)) for edge in edges]
        return [self._column(a, b) if a < b else None for a, b in pairwise(places)]

    def bucket(self, step: float) -> Bucket | None:
        """The bucket that contains `step`; None if it has none."""
        number = int(step // self.width)
        place = bisect_left(self._index, number)
        return self._column(place, place + 1) if place < len(self._index) and self._index[place] == number else None

    def near(self, step: float) -> Bucket | None:
        """The last bucket that starts at or before `step`; None if there is none."""
        place = bisect_right(self._index, int(step // self.width)) - 1
        return self._column(place, place + 1) if place >= 0 else None

    def after(self, step: float) -> Bucket | None:
        """The first bucket that starts at or after `step`; None if there is none."""
        place = bisect_left(self._index, ceil(step / self.width))
        return self._column(place, place + 1) if place < len(self._index) else None

    def buckets(self, start: float, stop: float) -> Iterator[Bucket]:
        """Every bucket that starts at `start` or later and before `stop`, without those without finite values."""
        low, high = (bisect_left(self._index, ceil(edge / self.width)) for edge in (start, stop))
        return (self._column(place, place + 1) for place in range(low, high) if self._count[place])

    def extremes(self, start: float, stop: float) -> tuple[list[float], list[float]]:
        """The minimum and the maximum of every bucket from `start` to `stop`; infinite without finite values."""
        low, high = bisect_left(self._index, ceil(start / self.width)), bisect_right(self._index, stop / self.width)
        return self._low[low:high].tolist(), self._high[low:high].tolist()

    def points(self, start: float, stop: float) -> list[Point]:
        """The last value of every bucket from `start` to `stop`, both inclusive."""
        return [Point(bucket.start, bucket.last) for bucket in self.buckets(start, stop + 1e-9)]

    def last_point(self, step: float) -> Point | None:
        """The last value at or before `step`: that of the last bucket with values that starts there; None without any."""
        place = bisect_right(self._index, int(step // self.width)) - 1
        while place >= 0 and not self._count[place]:
            place -= 1
        return Point(self._index[place] * self.width, self._last[place]) if place >= 0 else None

    def __len__(self) -> int:
        """Number of buckets."""
        return len(self._index)

    def _column(self, low: int, high: int) -> Bucket:
        counts = self._count[low:high]
        count = sum(counts)
        start = self._index[low] * self.width
        stop = min((self._index[high - 1] + 1) * self.width, self.steps)
        if not count:
            return Bucket(start, stop, 0, nan, nan, nan, nan, nan)
        first = next(i for i, n in enumerate(counts, low) if n)
        last = next(high - 1 - i for i, n in enumerate(reversed(counts)) if n)
        return Bucket(
            start,
            stop,
            count,
            self._first[first],
            min(self._low[low:high]),
            max(self._high[low:high]),
            self._last[last],
            sum(self._sum[low:high]) / count,
        )

"""Losses of a run of any length in bounded memory: buckets of consecutive steps that widen as the run grows.

The chart reads columns and never the whole history. Spikes survive because every bucket stores its extremes; NaN
survives as the first bad step. Never imports numpy, which would delay the start of the app.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil, isfinite, isnan
from operator import attrgetter
from typing import Any, NamedTuple

CAPACITY = 8192
"""Buckets of a series; 36 bytes each."""
KNOTS = 4096
"""Windows whose end times are stored."""
POINTS = 2048
"""Test points in a series."""


class Column(NamedTuple):
    """The finite losses of the steps `start` … `stop`−1 as one column. `finite` is their number."""

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
        """Whether this is a single loss."""
        return self.finite == 1 and self.stop - self.start == 1


class StepTimes:
    """The time of each step in seconds of training, interpolated between the ends of windows."""

    def __init__(self, capacity: int = KNOTS) -> None:
        self._capacity = max(4, capacity)
        self._steps = array("q", [0])
        self._seconds = array("d", [0.0])

    @property
    def seconds(self) -> float:
        """Seconds at the last step."""
        return self._seconds[-1]

    @property
    def memory_bytes(self) -> int:
        """Memory of the end times."""
        return sys.getsizeof(self._steps) + sys.getsizeof(self._seconds)

    def add(self, step: int, seconds: float) -> None:
        """Steps before `step` were done at `seconds`. An earlier time than the last one counts as the last one."""
        if step <= self._steps[-1] or not isfinite(seconds):
            return
        self._steps.append(step)
        self._seconds.append(max(seconds, self._seconds[-1]))
        if len(self._steps) > self._capacity:
            del self._steps[1:-1:2], self._seconds[1:-1:2]

    def seconds_at(self, step: float) -> float:
        """Seconds at which `step` began; outside the run, those of its nearest end."""
        return _interpolate(self._steps, self._seconds, step, bisect_right(self._steps, step))

    def step_at(self, seconds: float) -> float:
        """The step in progress at `seconds`; outside the run, its nearest end."""
        return _interpolate(self._seconds, self._steps, seconds, bisect_left(self._seconds, seconds))


def _interpolate(xs: Sequence[float], ys: Sequence[float], x: float, right: int) -> float:
    if right == 0:
        return ys[0]
    if right == len(xs):
        return ys[-1]
    low, high = xs[right - 1], xs[right]
    share = (x - low) / (high - low) if high > low else 1.0
    return ys[right - 1] + share * (ys[right] - ys[right - 1])


class LossSeries:
    """One loss per step in at most `capacity` buckets of `width` steps, aligned to absolute steps.

    The result does not depend on how the stream is cut into windows. Only means may differ in the last bit, because
    Python 3.12 and later compensate sums inside a window.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = max(2, capacity // 2 * 2)
        self.width = 1
        """Steps in a bucket, a power of two."""
        self.steps = 0
        """The next step."""
        self.first_bad_step: int | None = None
        """The first step whose loss was NaN or infinite."""
        self.bad_kind = ""
        """`NaN` or `Inf`, at the first bad step."""
        self.last: float | None = None
        """The last finite loss."""
        self.minimum: float | None = None
        self.times = StepTimes()
        self._first, self._last = array("f"), array("f")
        self._low, self._high = array("f"), array("f")
        self._sum, self._count = array("d"), array("q")

    def extend(self, first_step: int, values: bytes | memoryview, seconds: float) -> None:
        """Add a window of little-endian float32. Repeated steps are ignored; skipped steps stay empty."""
        window = array("f")
        window.frombytes(values[: len(values) // 4 * 4])
        if sys.byteorder == "big":
            window.byteswap()
        stop = first_step + len(window)
        if stop <= self.steps:
            return
        if first_step > self.steps:
            self._skip_to(first_step)
        position = self.steps - first_step
        while self.steps < stop:
            index = self._open_bucket()
            room = (index + 1) * self.width - self.steps
            chunk = window[position : position + room]
            self._add(index, chunk)
            position += len(chunk)
            self.steps += len(chunk)
        self.times.add(stop, seconds)

    def _open_bucket(self) -> int:
        """Index of the bucket of the next step; adds the bucket if it is missing."""
        while (index := self.steps // self.width) >= self._capacity:
            self._merge_neighbors()
        missing = index + 1 - len(self._count)
        if missing > 0:
            for field, empty in self._fields():
                field.extend([empty] * missing)
        return index

    def _skip_to(self, step: int) -> None:
        self.steps = step
        self._open_bucket()

    def _add(self, index: int, chunk: array[float]) -> None:
        values = chunk.tolist()
        total = sum(values, self._sum[index])
        if not isfinite(total):
            values = self._finite(values)
            if not values:
                return
            total = sum(values, self._sum[index])
        low, high = min(values), max(values)
        if self._count[index] == 0:
            self._first[index] = values[0]
        self._low[index] = min(low, self._low[index])
        self._high[index] = max(high, self._high[index])
        self._sum[index] = total
        self._count[index] += len(values)
        self._last[index] = self.last = values[-1]
        if self.minimum is None or low < self.minimum:
            self.minimum = low

    def _finite(self, values: list[float]) -> list[float]:
        """The finite values; records the first bad step."""
        if self.first_bad_step is None:
            offset = next(i for i, value in enumerate(values) if not isfinite(value))
            self.first_bad_step = self.steps + offset
            self.bad_kind = "NaN" if isnan(values[offset]) else "Inf"
        return [value for value in values if isfinite(value)]

    def _merge_neighbors(self) -> None:
        self.width *= 2
        count = self._count
        if len(count) % 2:
            for field, empty in self._fields():
                field.append(empty)
        pairs = list(zip(count[::2], count[1::2], strict=True))
        firsts = zip(pairs, self._first[::2], self._first[1::2], strict=True)
        self._first = array("f", [a if n else b for (n, _), a, b in firsts])
        lasts = zip(pairs, self._last[::2], self._last[1::2], strict=True)
        self._last = array("f", [b if m else a for (_, m), a, b in lasts])
        self._low = array("f", map(min, self._low[::2], self._low[1::2]))
        self._high = array("f", map(max, self._high[::2], self._high[1::2]))
        self._sum = array("d", [a + b for a, b in zip(self._sum[::2], self._sum[1::2], strict=True)])
        self._count = array("q", [a + b for a, b in pairs])

    def _fields(self) -> Iterator[tuple[array[Any], float]]:
        yield self._first, 0.0
        yield self._last, 0.0
        yield self._low, float("inf")
        yield self._high, float("-inf")
        yield self._sum, 0.0
        yield self._count, 0

    @property
    def memory_bytes(self) -> int:
        """Memory of the buckets and of the times."""
        return sum(sys.getsizeof(field) for field, _ in self._fields()) + self.times.memory_bytes

    # --- reading ---------------------------------------------------------------------------------------------

    def columns(self, edges: Sequence[float]) -> list[Column | None]:
        """One column between each two neighboring `edges` (steps, ascending); None if no bucket starts there.

        A bucket belongs to the column in which it starts, so a complete column never changes.
        The cost depends on the capacity, not on the number of steps.
        """
        size = len(self._count)
        indices = [min(size, max(0, ceil(edge / self.width))) for edge in edges]
        return [self._column(a, b) if a < b else None for a, b in pairwise(indices)]

    def bucket(self, step: float) -> Column | None:
        """The bucket that contains `step`; None outside the run."""
        index = int(step // self.width)
        return self._column(index, index + 1) if 0 <= index < len(self._count) else None

    def buckets(self, start: float, stop: float) -> Iterator[Column]:
        """Every bucket that starts at `start` or later and before `stop`, without empty ones."""
        size = len(self._count)
        low, high = (min(size, max(0, ceil(edge / self.width))) for edge in (start, stop))
        return (self._column(index, index + 1) for index in range(low, high) if self._count[index])

    def _column(self, low: int, high: int) -> Column:
        counts = self._count[low:high]
        count = sum(counts)
        start, stop = low * self.width, min(high * self.width, self.steps)
        if not count:
            nan = float("nan")
            return Column(start, stop, 0, nan, nan, nan, nan, nan)
        first = next(i for i, n in enumerate(counts, low) if n)
        last = next(high - 1 - i for i, n in enumerate(reversed(counts)) if n)
        return Column(
            start,
            stop,
            count,
            self._first[first],
            min(self._low[low:high]),
            max(self._high[low:high]),
            self._last[last],
            sum(self._sum[low:high]) / count,
        )


class EvalPoint(NamedTuple):
    """A test loss of the weights before `step`; None if it is not finite."""

    step: int
    loss: float | None
    metric: float | None


class PointSeries:
    """At most `capacity` test losses: if there are more, every second, fourth, …, and always the last and the best."""

    def __init__(self, capacity: int = POINTS) -> None:
        self._capacity = max(2, capacity)
        self._points: list[EvalPoint] = []
        self._stride, self._seen = 1, 0
        self.last: EvalPoint | None = None
        self.best: EvalPoint | None = None
        """The lowest finite loss."""

    def add(self, step: int, loss: float | None, metric: float | None = None) -> None:
        """Add a point. It is ignored unless its step is after the last one."""
        if self.last is not None and step <= self.last.step:
            return
        point = EvalPoint(step, loss if loss is not None and isfinite(loss) else None, metric)
        self.last = point
        if point.loss is not None and (self.best is None or self.best.loss is None or point.loss < self.best.loss):
            self.best = point
        if self._seen % self._stride == 0:
            self._points.append(point)
        self._seen += 1
        if len(self._points) > self._capacity:
            del self._points[1::2]
            self._stride *= 2

    def __len__(self) -> int:
        return len(self._points)

    def between(self, start: float, stop: float) -> list[EvalPoint]:
        """Stored points with `start` ≤ step ≤ `stop` and a finite loss, in order."""
        step = attrgetter("step")
        low, high = bisect_left(self._points, start, key=step), bisect_right(self._points, stop, key=step)
        points = self._points[low:high]
        for point in (self.best, self.last):
            if point is not None and start <= point.step <= stop and point not in points:
                insort(points, point, key=step)
        return [point for point in points if point.loss is not None]

    def at(self, step: float) -> EvalPoint | None:
        """The last stored point at or before `step`."""
        index = bisect_right(self._points, step, key=attrgetter("step"))
        return self._points[index - 1] if index else None

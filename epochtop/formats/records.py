"""What a follower yields: plain records, the same for every format.

Imports the standard library only.
"""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple, Protocol, Union

NAN = float("nan")
HEAD_BYTES = 4096
"""Bytes at the beginning of a file by which its format is recognized."""


class Batch(NamedTuple):
    """New values of one series, in the order in which they were logged. The three arrays have the same length."""

    series: str
    """Name of the series, such as `train/loss`."""
    steps: array[int]
    """Steps, typecode `q`. A step that was logged before may come again; its last value counts."""
    times: array[float]
    """Unix times in seconds, typecode `d`; NaN where the log has none."""
    values: array[float]
    """Values, typecode `d`."""


class Configuration(NamedTuple):
    """Entries of the configuration, or new values of them."""

    values: dict[str, Any]
    """JSON values by name; nested names are joined with `/`."""


class Description(NamedTuple):
    """What the log says about its run besides the configuration."""

    name: str = ""
    """Display name; empty if the log has none."""
    project: str = ""
    group: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""


class Restart(NamedTuple):
    """The run was restarted: values at this step and later ones, logged before this record, no longer count."""

    step: int
    series: str = ""
    """The only series that this concerns; empty for all."""


class Ended(NamedTuple):
    """The log says that the run has ended."""

    outcome: str
    """`finished`, `stopped` or `failed`."""
    time: float = NAN
    """Unix time in seconds; NaN if unknown."""
    reason: str = ""
    exit_status: int | None = None


Record = Union[Batch, Configuration, Description, Restart, Ended]


class Follower(Protocol):
    """Reads a log from its beginning, then what is appended to it. Memory does not grow with the length of the log."""

    @property
    def damaged(self) -> int:
        """Number of damaged records that were skipped so far."""

    def read(self) -> list[Record]:
        """What was written since the last call: about 1 MiB of it at most, so call until the list is empty.

        An incomplete record at the end is still being written and waits for a later call. Raises OSError if the log exists
        but cannot be read, and no other exception whatever it contains.
        """

    def modified(self) -> float:
        """Unix time of the last change of any of its files; 0 if there are none."""

    def close(self) -> None:
        """Close the files; the next read opens them again and continues at the same place."""


class SeriesBuffer:
    """Values of one series since they were last taken."""

    __slots__ = ("last_step", "name", "steps", "times", "values")

    def __init__(self, name: str) -> None:
        self.name = name
        self.last_step = -(1 << 63)
        """Step of the last value that was ever added."""
        self.clear()

    def clear(self) -> None:
        """Forget the values, but not the last step."""
        self.steps, self.times, self.values = array("q"), array("d"), array("d")

    def add(self, step: int, time: float, value: float) -> None:
        """Add one value. Raises OverflowError if the step has more than 64 bits."""
        self.steps.append(step)
        self.times.append(time)
        self.values.append(value)
        self.last_step = step


class Collector:
    """Collects values by series, and the other records between them, in order."""

    def __init__(self) -> None:
        self.series: dict[str, SeriesBuffer] = {}
        self.filled: list[SeriesBuffer] = []
        """Series with values that are not taken yet, in the order of their first value."""
        self._records: list[Record] = []

    def buffer(self, name: str) -> SeriesBuffer:
        """The buffer of a series, which the caller fills; append it to `filled` with the first value."""
        buffer = self.series.get(name)
        if buffer is None:
            buffer = self.series[name] = SeriesBuffer(name)
        return buffer

    def add(self, name: str, step: int, time: float, value: float) -> None:
        """Add one value."""
        buffer = self.buffer(name)
        if not buffer.steps:
            self.filled.append(buffer)
        buffer.add(step, time, value)

    def put(self, record: Record) -> None:
        """Add another record after the values so far."""
        self._flush()
        self._records.append(record)

    def take(self) -> list[Record]:
        """Everything since the last call."""
        self._flush()
        records, self._records = self._records, []
        return records

    def _flush(self) -> None:
        for buffer in self.filled:
            if buffer.steps:
                self._records.append(Batch(buffer.name, buffer.steps, buffer.times, buffer.values))
                buffer.clear()
        self.filled.clear()


def number(value: object) -> float | None:
    """A JSON value as a number; None if it is not one. Booleans are 0 and 1."""
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return None
    if isinstance(value, str):
        return _NOT_FINITE.get(value)
    return None


_NOT_FINITE = {
    **dict.fromkeys(("NaN", "nan"), NAN),
    **dict.fromkeys(("Infinity", "inf"), float("inf")),
    **dict.fromkeys(("-Infinity", "-inf"), -float("inf")),
}
"""Texts that loggers write in place of numbers that JSON does not have."""


def flatten(values: dict[str, Any], prefix: str = "", depth: int = 16) -> dict[str, Any]:
    """Nested dictionaries as one, with names joined by `/`. Below `depth` levels they stay as they are."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value and depth > 0:
            flat.update(flatten(value, f"{prefix}{name}/", depth - 1))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


UNIX_TIMES = (1e8, 1e11)
"""Numbers that are taken for Unix seconds: from 1973 to the year 5138."""


def unix_time(value: object) -> float:
    """A timestamp as Unix seconds: a number of seconds or milliseconds, or an ISO text with a time zone; else NaN."""
    if isinstance(value, str):
        from datetime import datetime

        try:
            moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
            return moment.timestamp()
        except (ValueError, OverflowError, OSError):
            return NAN
    seconds = number(value)
    if seconds is None:
        return NAN
    if UNIX_TIMES[0] <= seconds / 1000 < UNIX_TIMES[1] and seconds >= UNIX_TIMES[1]:
        return seconds / 1000
    return seconds if UNIX_TIMES[0] <= seconds < UNIX_TIMES[1] else NAN

"""Named series of a run: the one place that turns an event of any version into windows of (step, value) pairs.

Chart, overlay, cursor, export, lists and resume read series only, so a log of protocol 1 (`Losses`) and a newer one
(`Logged`) look alike. Values stay bytes until they are needed: a summary often suffices. Never imports torch or numpy.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from math import isfinite, nan

import msgspec

from epochtop.engine.protocol.events import (
    AnyEvent,
    Evaluated,
    Event,
    Logged,
    Losses,
    ScriptStarted,
    SeriesSummary,
    Started,
    Telemetry,
)

TRAIN_LOSS = "train/loss"
LEARNING_RATE = "optimizer/learning_rate"
SUMMARIZED = 64
"""Steps from which on a window carries summaries."""

_ENGINE_FIGURES = {"engine_cpu_percent": "cpu_percent", "engine_memory_bytes": "memory_bytes"}
_GPU_FIGURES = {
    "gpu_percent": "percent",
    "sm_percent": "sm_percent",
    "gpu_memory_bytes": "memory_bytes",
    "temperature_c": "temperature_c",
    "power_w": "power_w",
}


class SeriesWindow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The values of one series in one window."""

    name: str
    """Path of the series, such as `train/loss`."""
    first_step: int
    count: int
    """Number of steps."""
    seconds: float
    """Training time at the end of the window; for a script, time since its start."""
    values: bytes
    """Little-endian float32, or float64 if there are 8 bytes per step."""
    steps: bytes | None = None
    """Every step as little-endian int64; None if they are contiguous."""
    summary: SeriesSummary | None = None
    time: float | None = None
    """Unix time at the end of the window; None in logs of protocol 1."""

    @property
    def double(self) -> bool:
        """Whether values are float64."""
        return self.count > 0 and len(self.values) >= 8 * self.count

    @property
    def last_step(self) -> int:
        """The last step of the window."""
        if self.steps is None:
            return self.first_step + self.count - 1
        return _integers(self.steps[8 * (self.count - 1) : 8 * self.count])[0]

    @property
    def last(self) -> float:
        """The last value; NaN if the window is empty."""
        size = 8 if self.double else 4
        tail = self.values[size * (self.count - 1) : size * self.count] if self.count else b""
        return _numbers(tail, "d" if self.double else "f")[0] if tail else nan

    def numbers(self) -> array[float]:
        """The values, one per step."""
        numbers = _numbers(self.values, "d" if len(self.values) >= 8 * self.count else "f")
        return numbers if len(numbers) == self.count else numbers[: self.count]

    def step_numbers(self) -> Sequence[int]:
        """The steps."""
        if self.steps is None:
            return range(self.first_step, self.first_step + self.count)
        return _integers(self.steps)[: self.count]


def _numbers(content: bytes, kind: str) -> array[float]:
    rest = len(content) % (4 if kind == "f" else 8)
    numbers: array[float] = array(kind, content[:-rest] if rest else content)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _integers(content: bytes) -> array[int]:
    numbers = array("q")
    numbers.frombytes(content[: len(content) // 8 * 8])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class SeriesTranslator:
    """Turns the events of one run, in order, into windows. It remembers what an event leaves out: the rows that were
    evaluated, the name of the headline metric, and the step and time of the last window."""

    def __init__(self) -> None:
        self.held_out = "test"
        """Name of the evaluated rows."""
        self._metric = "metric"
        self._gpu = "gpu0"
        self._step, self._seconds = 0, 0.0
        self._learning_rate: float | None = None
        self._began: float | None = None
        """Unix time at the start."""

    def windows(self, event: Event) -> list[SeriesWindow]:
        """The windows in an event; empty for most kinds of events."""
        match event:
            case Logged():
                return self._logged(event)
            case Losses():
                return self._losses(event)
            case Evaluated():
                return self._evaluated(event)
            case Telemetry():
                return self._telemetry(event)
            case Started():
                self.held_out, self._metric, self._began = event.eval_split, event.metric, event.time
                self._gpu = f"gpu{event.device.partition(':')[2] or 0}"
            case ScriptStarted():
                self._began = self._began or event.time
            case _:
                pass
        return []

    def _logged(self, event: Logged) -> list[SeriesWindow]:
        size = 4 * event.count
        if event.count < 1 or (event.steps is not None and len(event.steps) != 2 * size):
            return []
        windows = [
            SeriesWindow(
                name=name,
                first_step=event.first_step,
                count=event.count,
                seconds=event.seconds,
                values=values,
                steps=event.steps,
                summary=event.summaries.get(name),
                time=event.time,
            )
            for name, values in event.values.items()
            if len(values) in (size, 2 * size)
        ]
        if windows:
            self._step, self._seconds = max(self._step, windows[0].last_step), event.seconds
        return windows

    def _losses(self, event: Losses) -> list[SeriesWindow]:
        count = len(event.values) // 4
        if not count:
            return []
        self._step, self._seconds = event.first_step + count - 1, event.seconds
        windows = [
            SeriesWindow(
                name=TRAIN_LOSS,
                first_step=event.first_step,
                count=count,
                seconds=event.seconds,
                values=event.values,
                time=self._time(event.seconds),
            )
        ]
        if event.learning_rate is not None and event.learning_rate != self._learning_rate:
            self._learning_rate = event.learning_rate
            windows.append(self._point(LEARNING_RATE, self._step, event.learning_rate, event.seconds))
        return windows

    def _evaluated(self, event: Evaluated) -> list[SeriesWindow]:
        metrics = event.metrics or {self._metric: event.metric}  # logs of older versions have the headline alone
        return [
            self._point(f"{self.held_out}/{name}", event.step, value, event.seconds)
            for name, value in {"loss": event.loss, **metrics}.items()
        ]

    def _telemetry(self, event: Telemetry) -> list[SeriesWindow]:
        figures = [(f"system/engine/{name}", getattr(event, field)) for field, name in _ENGINE_FIGURES.items()]
        figures += [(f"system/{self._gpu}/{name}", getattr(event, field)) for field, name in _GPU_FIGURES.items()]
        return [
            self._point(name, self._step, value, self._seconds, event.time)
            for name, value in figures
            if value is not None
        ]

    def _point(
        self, name: str, step: int, value: float | None, seconds: float, time: float | None = None
    ) -> SeriesWindow:
        return SeriesWindow(
            name=name,
            first_step=step,
            count=1,
            seconds=seconds,
            values=packed([nan if value is None else float(value)], double=True),
            time=self._time(seconds) if time is None else time,
        )

    def _time(self, seconds: float) -> float | None:
        return self._began + seconds if self._began is not None else None


def packed(values: Sequence[float], double: bool = False) -> bytes:
    """Values as a window stores them: little-endian float32, or float64."""
    numbers = array("d" if double else "f", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def summary_of(values: Sequence[float]) -> SeriesSummary:
    """The summary of the values of a window, as a writer computes it."""
    finite = [value for value in values if isfinite(value)]
    bad = None if len(finite) == len(values) else next(i for i, value in enumerate(values) if not isfinite(value))
    if not finite:
        return SeriesSummary(finite=0, first=None, minimum=None, maximum=None, last=None, mean=None, first_bad=bad)
    return SeriesSummary(
        finite=len(finite),
        first=finite[0],
        minimum=min(finite),
        maximum=max(finite),
        last=finite[-1],
        mean=sum(finite) / len(finite),
        first_bad=bad,
    )


def windows_of(events: Sequence[AnyEvent]) -> Iterator[SeriesWindow]:
    """The windows of all events of a run, in order."""
    translator = SeriesTranslator()
    for event in events:
        yield from translator.windows(event)

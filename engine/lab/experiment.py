"""What an experiment is: how it describes itself, what it measures with, and what it concludes from.

Imports no torch, and neither does any experiment before it measures: the screen lists and draws experiments.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from epochtop.engine.lab.measurements import Measurement, Row, measurements
from epochtop.engine.protocol.experiments import Estimate, Line, Verdict
from epochtop.engine.protocol.spec import RunSpec


class NoFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of an experiment that has none."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """How rows are drawn. Rows with the same `x` and `series` are one point: their median, with its spread."""

    title: str
    kind: Literal["lines", "bars", "timeline", "table"]
    """lines: y over x, a curve per series · bars: a bar per series · timeline: x to y, a lane per series · table."""
    x: str = ""
    """Column on the x axis."""
    y: str = ""
    """Column on the y axis."""
    series: tuple[str, ...] = ()
    """Columns whose values name a curve, a bar or a lane."""
    unit: str = ""
    """Unit of y: `s`, `B`, `GFLOP/s`, `B/s`, `%`, `×` or none."""
    x_unit: str = ""
    x_title: str = ""
    y_title: str = ""
    x_log: bool = False
    y_log: bool = False
    columns: tuple[str, ...] = ()
    """Columns of a table, in order."""
    where: dict[str, str] = {}
    """Values that a row must have; if empty, every row with the column `y` counts."""


class Stopped(Exception):  # noqa: N818 - an event, in the project's words
    """The experiment was asked to stop; the rows measured so far remain."""


@dataclass
class ExperimentContext:
    """What an experiment measures with: its fields, the job, the devices and the time budget."""

    fields: msgspec.Struct
    """The experiment's fields, of the type in `Experiment.fields`."""
    spec: RunSpec
    """The job to measure, if the experiment measures one."""
    devices: tuple[str, ...]
    """Devices to measure on, in torch's names."""
    budget_s: float
    """Time for the whole experiment, set-up included."""
    folder: Path
    """The run directory, for output that does not fit into rows."""
    quick: bool = False
    note: Callable[[str], object] = lambda _: None
    """Shows a message about the progress."""
    start: float = field(default_factory=time.perf_counter)
    """Time at which the budget starts, on the clock of `time.perf_counter`."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the experiment is asked to stop."""
    cannot_see: list[str] = field(default_factory=list)
    """What this machine could not measure, one sentence each; experiments may add to it."""

    def left_s(self) -> float:
        """The rest of the budget in seconds; never below 0."""
        return max(0.0, self.start + self.budget_s - time.perf_counter())

    def share_s(self, device: str) -> float:
        """Seconds for `device` if it and the devices after it share the rest of the budget equally."""
        return self.left_s() / (len(self.devices) - self.devices.index(device))

    def with_time(self, seconds: float) -> ExperimentContext:
        """The same context with at least `seconds` left, even if the budget is used up."""
        elapsed_s = time.perf_counter() - self.start
        return replace(self, budget_s=max(self.budget_s, elapsed_s + seconds))

    def after_setup(self) -> ExperimentContext:
        """The same context with at least half of the budget left: on a busy machine the set-up may have used it up."""
        return self.with_time(self.budget_s / 2)

    def check(self) -> None:
        """Raise Stopped if the experiment was asked to stop. Call it between measurements."""
        if self.stop.is_set():
            raise Stopped


@dataclass(frozen=True)
class Findings:
    """What an experiment concludes from. There may be few rows if it was stopped."""

    rows: Sequence[Measurement]
    fields: msgspec.Struct = NoFields()  # noqa: RUF009 - frozen
    spec: RunSpec = RunSpec()  # noqa: RUF009 - frozen
    devices: tuple[str, ...] = ("cpu",)


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """One question that is answered by measuring. How it is measured is in the module `measure` of its package."""

    name: str
    title: str
    """The question, in a few words."""
    measures: str
    """What it measures."""
    why: str
    """Why it matters."""
    reading: str
    """How to read the picture."""
    pictures: tuple[Picture, ...]
    kinds: tuple[type[Measurement], ...]
    """Kinds of rows that it measures."""
    conclude: Callable[[Findings], Verdict]
    """The verdict, a pure function of any number of rows."""
    fields: type[msgspec.Struct] = NoFields
    job: RunSpec | None = None
    """The job that it measures by default; None if it measures no job."""
    several_processes: bool = False
    """Whether it measures jobs of several processes; other experiments measure the steps of one process."""

    def measurements(self, rows: Sequence[Row]) -> list[Measurement]:
        """Stored rows as structs. Raises msgspec.ValidationError for rows that are not this experiment's."""
        return measurements(rows, self.kinds)


def too_few(missing: str) -> Verdict:
    """The verdict on too few rows. `missing` names what was not measured."""
    return Verdict(
        finding="not enough was measured for an answer",
        evidence=(f"not measured: {missing}",),
        next_step="run the experiment to its end",
        uncertainty="it was stopped before enough was measured",
    )


class DeviceAnswer(ABC):
    """What an experiment says about one device."""

    @abstractmethod
    def finding(self) -> str:
        """The answer."""

    @abstractmethod
    def evidence(self) -> list[str]:
        """Sentences with figures that support it; each names the device."""

    @abstractmethod
    def next_step(self) -> str:
        """What to do."""

    @abstractmethod
    def uncertainty(self) -> str:
        """What might make the answer wrong."""

    def setting(self) -> dict[str, str]:
        """Fields of a run that the answer recommends."""
        return {}

    def lines(self) -> list[Line]:
        """Computed lines for the picture."""
        return []

    def estimates(self) -> list[Estimate]:
        """Quantities with their intervals, for programs."""
        return []


def verdict_of(answers: Sequence[DeviceAnswer | None], missing: str) -> Verdict:
    """The answer for the last device, on which the job would be trained, with the evidence of all devices.

    An answer is None if too little was measured on its device; `missing` names what is needed.
    """
    known = [answer for answer in answers if answer is not None]
    if not known:
        return too_few(missing)
    main = known[-1]
    return Verdict(
        finding=main.finding(),
        evidence=tuple(sentence for answer in known for sentence in answer.evidence()),
        next_step=main.next_step(),
        uncertainty=main.uncertainty(),
        setting=main.setting(),
        lines=tuple(line for answer in known for line in answer.lines()),
        estimates=tuple(main.estimates()),
    )


def refused(reasons: Sequence[str]) -> Verdict:
    """The verdict where only one variant of the job could be built. `reasons` are sentences."""
    return Verdict(
        finding=f"this job cannot be measured: {'; '.join(reasons)}",
        evidence=tuple(reasons),
        next_step="measure another job, or change what the reason names",
        uncertainty="the refused variants were not measured",
    )

"""What an experiment is: what it says of itself, how it measures, what it concludes from its rows.

Imports no torch, and no experiment does before it measures: the screen lists and draws them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from epochtop.engine.protocol.experiments import Cell, Verdict
from epochtop.engine.protocol.spec import RunSpec

Row = dict[str, Cell]
"""One measurement: the columns that tell it apart, `round`, and what was measured, mostly `seconds`.

Of several ways to take a step (rows of the `kind` step), `own` is 1 for the one that the job takes without a change.
"""


class NoFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing but the job, if there is one, can be chosen."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """How rows are drawn. Rows that agree in `x` and `series` are one point: their median, with its spread."""

    title: str
    kind: Literal["lines", "bars", "timeline", "table"]
    """lines: y over x, a curve a series · bars: a bar a series · timeline: from x to y, a lane a series · table: columns."""
    x: str = ""
    y: str = ""
    """Columns of rows."""
    series: tuple[str, ...] = ()
    """Columns whose values name a curve, a bar or a lane."""
    unit: str = ""
    """Of y: `s`, `B`, `GFLOP/s`, `B/s`, `%`, `×` or nothing."""
    x_unit: str = ""
    x_title: str = ""
    y_title: str = ""
    x_log: bool = False
    y_log: bool = False
    columns: tuple[str, ...] = ()
    """Of a table, in order."""
    where: dict[str, str] = {}
    """Only rows that have these values; without, all that have the column `y`."""


class Stopped(Exception):  # noqa: N818 - an event, in the project's words
    """The experiment was asked to end; what was measured stays."""


@dataclass
class ExperimentContext:
    """What an experiment measures with: its fields, the job, devices, and how long it may take."""

    fields: msgspec.Struct
    """The experiment's own, of its type `fields`."""
    spec: RunSpec
    """The job that is measured, where the experiment measures one."""
    devices: tuple[str, ...]
    """Those to measure on, as torch names them."""
    budget_s: float
    """How long all of it should take, set-up included."""
    folder: Path
    """The run directory, for what does not fit into rows."""
    quick: bool = False
    say: Callable[[str], object] = lambda _: None
    """Tells whoever watches what is being done."""
    begun: float = field(default_factory=time.perf_counter)
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the experiment has been asked to end."""
    cannot_see: list[str] = field(default_factory=list)
    """What this machine could not show, a sentence each; experiments may add to it."""

    def left_s(self) -> float:
        """What is left of the budget; not below 0."""
        return max(0.0, self.begun + self.budget_s - time.perf_counter())

    def with_time(self, seconds: float) -> ExperimentContext:
        """The same with at least `seconds` left, however much of the budget is used up."""
        passed_s = time.perf_counter() - self.begun
        return replace(self, budget_s=max(self.budget_s, passed_s + seconds))

    def check(self) -> None:
        """Raises Stopped if the experiment has been asked to end. To be called between measurements."""
        if self.stop.is_set():
            raise Stopped


@dataclass(frozen=True)
class Findings:
    """What an experiment concludes from; rows may be few where it was stopped."""

    rows: Sequence[Row]
    fields: msgspec.Struct = NoFields()  # noqa: RUF009 - frozen
    spec: RunSpec = RunSpec()  # noqa: RUF009 - frozen
    devices: tuple[str, ...] = ("cpu",)


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """One question that is answered by measuring."""

    name: str
    title: str
    """The question, in a few words."""
    measures: str
    why: str
    """Why it matters."""
    reading: str
    """How to read the picture."""
    pictures: tuple[Picture, ...]
    measure: Callable[[ExperimentContext], Iterator[Row]]
    """Yields rows as they are measured. Calls `check` between measurements. Raises Invalid for what cannot be measured."""
    conclude: Callable[[Findings], Verdict]
    """A pure function of the rows, whatever rows they are, few or none included."""
    fields: type[msgspec.Struct] = NoFields
    job: RunSpec | None = None
    """The job that it measures unless another is asked for; None where it measures none."""
    crew: bool = False
    """Whether it measures several processes; others measure the steps of one, whatever the job says."""


def too_few(what: str) -> Verdict:
    """The verdict on rows that allow none. `what` is missing, in words."""
    return Verdict(
        finding="nothing can be said yet",
        evidence=(f"not measured: {what}",),
        next_step="let it run to its end",
        uncertainty="it was stopped before enough was measured",
    )


def refused(why: Sequence[str]) -> Verdict:
    """The verdict where the job was refused in every way but one. `why`, a sentence each."""
    return Verdict(
        finding=f"this job cannot be measured: {'; '.join(why)}",
        evidence=tuple(why),
        next_step="measure another job, or change what it was refused for",
        uncertainty="nothing was measured, so nothing is known of the ways that were refused",
    )

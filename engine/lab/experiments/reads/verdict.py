"""The verdict of `reads`: the cost of a read with its interval, and the interval between reads from which it does not matter.

Pure, and imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from epochtop.engine.lab.confidence import bootstrap_interval, undisturbed
from epochtop.engine.lab.differences import FEWEST, difference, stated
from epochtop.engine.lab.experiment import Findings, too_few
from epochtop.engine.lab.experiments.reads.schema import LaunchTime, Operators, ReadTime, RunTime
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.statistics import Figure, figure, quartiles_apart, select, values, with_spread
from epochtop.engine.protocol.experiments import Estimate, Line, Verdict
from epochtop.engine.protocol.quantities import format_percent, format_quantity

NEGLIGIBLE = 0.01
"""Fraction of the time below which reads do not matter."""
LAUNCH_BOUND = 0.3
"""Fraction of a step from which saving launches is worth it."""


def conclude(findings: Findings) -> Verdict:
    """The costs on the device that the job would be trained on, and the interval from which reads do not matter."""
    devices = [costs for device in findings.devices if (costs := _Costs.of(findings.rows, device)) is not None]
    if not devices:
        return too_few("steps with a read and without one in the same round")
    main = devices[-1]
    return Verdict(
        finding=main.finding(),
        evidence=(
            *(line for costs in devices for line in costs.evidence()),
            *(f"{costs.device}: {costs.cost_words()}" for costs in devices[:-1]),
        ),
        next_step=main.next_step(),
        uncertainty=main.uncertainty(),
        setting={"executor": "graph"} if main.launch_bound else {},
        lines=tuple(costs.line() for costs in devices),
        estimates=tuple(main.estimates()),
    )


def read_cost(rows: Sequence[Measurement]) -> Figure | None:
    """Seconds of a read, from the rows of one device; None if steps with and without reads share no round.

    Where the host waits for the device, it is the time by which a read makes a step longer. Elsewhere steps vary by more than
    a read takes, so it is the time of the call after a step, in the blocks that were disturbed least. Of the clock's own time,
    which was subtracted, half is uncertain. The interval reaches to the longer steps if these contradict it.
    """
    longer = longer_steps(rows)
    calls, clock = _rows_of_part(rows, "call"), _part(rows, "clock")
    if longer is None or len(calls) < FEWEST or _rows_of_part(rows, "wait"):
        return longer
    call_s, low_s, high_s = undisturbed(values(calls, "seconds"))
    uncertain_s = clock.median / 2 if clock is not None else 0.0
    least, most = max(0.0, low_s - uncertain_s), high_s + uncertain_s
    if least > longer.high or most < longer.low:
        least, most = min(least, max(0.0, longer.low)), max(most, longer.high)
    return Figure(call_s, least, most, len(calls))


def longer_steps(rows: Sequence[Measurement]) -> Figure | None:
    """Seconds by which steps with a read are longer than steps without, in the same block."""
    plain = select(of_kind(rows, RunTime), loop="plain")
    without = {run.round: run.seconds / run.steps for run in select(plain, every=0)}
    return _bootstrapped(
        [run.seconds / run.steps - without[run.round] for run in select(plain, every=1) if run.round in without]
    )


def _rows_of_part(rows: Sequence[Measurement], part: str) -> list[ReadTime]:
    """The rows of one part of a read."""
    return select(of_kind(rows, ReadTime), part=part)


def _part(rows: Sequence[Measurement], part: str) -> Figure | None:
    return _bootstrapped(values(_rows_of_part(rows, part), "seconds"))


def _bootstrapped(seconds: Sequence[float]) -> Figure | None:
    if not seconds:
        return None
    low, high = bootstrap_interval(seconds)
    return Figure(figure(seconds).median, low, high, len(seconds))


class _Costs:
    """The cost of a step and of a read on one device."""

    def __init__(self, rows: Sequence[Measurement], device: str, read: Figure) -> None:
        self.device, self._rows, self._read = device, rows, read
        runs = of_kind(rows, RunTime)
        self._plain, self._windowed = select(runs, loop="plain"), select(runs, loop="epochtop")
        self._steps = runs[0].steps
        self._times = [run.seconds / run.steps for run in select(self._plain, every=0)]
        self._step = figure(self._times)
        launches = values(of_kind(rows, LaunchTime), "seconds")
        self._launch = figure(launches) if launches else None
        self._operators = next((row.operators for row in of_kind(rows, Operators)), 0)

    @classmethod
    def of(cls, rows: Sequence[Measurement], device: str) -> _Costs | None:
        kinds = (Operators, RunTime, ReadTime, LaunchTime)
        here = [row for row in rows if isinstance(row, kinds) and row.device == device]
        read = read_cost(here)
        return cls(here, device, read) if read is not None else None

    # --- costs -----------------------------------------------------------------------------------------------------

    @property
    def _launches(self) -> Figure | None:
        """Fraction of a step spent launching its operators, both disturbed least; None if it is unknown."""
        launches = values(of_kind(self._rows, LaunchTime), "seconds")
        if not launches or not min(self._times):
            return None
        launch_s, step_s = undisturbed(launches), undisturbed(self._times)
        count = self._operators
        part, low, high = (
            count * launch_s[0] / step_s[0],
            count * launch_s[1] / step_s[2],
            count * launch_s[2] / step_s[1],
        )
        if low > 1:  # operators that are launched alone can take longer than in the step
            return None
        return Figure(min(1.0, part), low, min(1.0, high), min(len(launches), len(self._times)))

    @property
    def launch_bound(self) -> bool:
        """Whether launching operators takes much of a step."""
        return self._launches is not None and self._launches.median > LAUNCH_BOUND

    @property
    def _visible(self) -> bool:
        """Whether the interval of a read excludes no cost at all."""
        return self._read.count >= FEWEST and self._read.low > 0

    @property
    def _negligible_from(self) -> int:
        """Steps between reads from which reads add less than NEGLIGIBLE to a step."""
        exact = (self._read.median if self._visible else self._read.high) / (NEGLIGIBLE * self._step.median)
        return max(1, math.ceil(exact - 1e-6))

    # --- words -----------------------------------------------------------------------------------------------------

    def finding(self) -> str:
        return f"on {self.device} {self.cost_words()}"

    def cost_words(self) -> str:
        """The cost of a read, and how often reads do not matter."""
        step, read = f"to a step of {format_quantity(self._step.median, 's')}", self._read
        if read.count < FEWEST:
            return f"there were too few rounds to tell what a read adds {step}"
        median, low, high = (format_percent(value / self._step.median) for value in (read.median, read.low, read.high))
        if self._visible:
            cost = f"a read costs {with_spread(read)} and adds {median} ({low} … {high}) {step}"
        else:
            cost = f"a read costs less than {format_quantity(read.high, 's')}, the resolution here, and adds less than {high} {step}"
        often = self._negligible_from
        return f"{cost}; with one read per {often:,} steps it is 1 % or less" if often > 1 else cost

    def evidence(self) -> list[str]:
        run_s = format_quantity(self._steps * self._step.median, "s")
        lines = [
            f"{self._steps:,} steps take {run_s} without any read, so time cannot follow the number of reads",
            *self._part_lines(),
            *self._longer_lines(),
        ]
        windowed = difference(self._windowed, select(self._plain, every=0))
        if windowed is not None:
            lines.append(windowed.words("epochtop's window with every loss", "reading none"))
        return [f"{self.device}: {line}" for line in (*lines, *self._launch_lines())]

    def _part_lines(self) -> list[str]:
        call, alone, wait, clock = (_part(self._rows, part) for part in ("call", "alone", "wait", "clock"))
        lines = []
        if wait is not None and call is not None:
            lines.append(
                f"for a read the host waits {with_spread(wait)} for the device; the call takes {with_spread(call)}"
            )
        elif call is not None:
            by_clock = (
                f", by a clock that takes {format_quantity(clock.median, 's')} itself" if clock is not None else ""
            )
            lines.append(f"`loss.item()` after a step takes {with_spread(call)} in half of the blocks{by_clock}")
        if alone is not None:
            lines.append(f"`loss.item()` alone, repeated on a loss that is ready, takes {with_spread(alone)}")
        return lines

    def _longer_lines(self) -> list[str]:
        longer = longer_steps(self._rows)
        if longer is None:
            return []
        seen = "" if longer.low > 0 or longer.high < 0 else ", so steps alone cannot show what a read costs"
        return [
            f"a step with a read minus a step without one: {with_spread(longer)}, in {longer.count} short blocks{seen}"
        ]

    def _launch_lines(self) -> list[str]:
        if self._launch is None:
            return []
        launches = f"a step launches {self._operators:,} operators; an empty one takes {with_spread(self._launch)}"
        part = self._launches
        if part is None:
            return [f"{launches}, which is too much to add up to the step: their part of a step is unknown"]
        low, high = format_percent(part.low), format_percent(part.high)
        return [f"{launches}, so launches are {format_percent(part.median)} of the step ({low} … {high})"]

    def next_step(self) -> str:
        if self.launch_bound:
            return (
                "try executor=graph: launching small operators takes much of a step, and reading less often does not "
                "change that (`epochtop lab executors` measures the gain)"
            )
        return "keep every loss; the rest of the time is the step itself (`epochtop lab anatomy` splits it into parts)"

    def uncertainty(self) -> str:
        return (
            f"{quartiles_apart('steps without a read', [self._step])}; a read costs more if the loss is not in the "
            "processor's caches, and on a GPU as much as the host has to wait"
        )

    # --- for the screen and for programs ---------------------------------------------------------------------------

    def line(self) -> Line:
        """The time of the run over the number of reads, by these costs."""
        reads = sorted({0, *(run.reads for run in self._plain)})
        points = [(float(count), self._steps * self._step.median + count * self._read.median) for count in reads]
        return Line(name=f"{self.device}, fitted", points=tuple(points))

    def estimates(self) -> list[Estimate]:
        """The cost of a read, and the fraction of a step that launches take."""
        part = self._launches
        percent = [Figure(100 * part.median, 100 * part.low, 100 * part.high, part.count)] if part is not None else []
        return [
            *stated("cost of a read", "s", self._read),
            *(one for share in percent for one in stated("launches", "%", share)),
        ]

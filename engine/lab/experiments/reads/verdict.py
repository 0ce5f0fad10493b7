"""The verdict of `reads`: the fitted costs of a step and of a read, and the interval from which reads do not matter.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.lab.experiment import Findings, too_few
from epochtop.engine.lab.experiments.reads.schema import LaunchTime, Operators, RunTime
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.statistics import (
    Difference,
    Figure,
    Fit,
    difference,
    figure,
    fit,
    grouped,
    quartiles_apart,
    select,
    values,
    with_spread,
)
from epochtop.engine.protocol.experiments import Line, Verdict
from epochtop.engine.protocol.quantities import format_quantity

NEGLIGIBLE = 0.01
"""Fraction of the time below which reads do not matter."""
LAUNCH_BOUND = 0.3
"""Fraction of a step from which saving launches is worth it."""


def model(rows: Sequence[Measurement]) -> Fit | None:
    """`seconds = steps × step + reads × read` of the plain loop's rows of one device."""
    medians = _medians(of_kind(rows, RunTime))
    return fit([(steps, reads) for steps, reads, _ in medians], [seconds for *_, seconds in medians])


def _medians(runs: Sequence[RunTime]) -> list[tuple[float, float, float]]:
    """Steps, reads and median seconds of each number of reads."""
    times: dict[tuple[float, float], list[float]] = {}
    for run in select(runs, loop="plain"):
        times.setdefault((run.steps, run.reads), []).append(run.seconds)
    return [(*key, figure(seconds).median) for key, seconds in times.items()]


def conclude(findings: Findings) -> Verdict:
    """The costs on the device that the job would be trained on, and the interval from which reads do not matter."""
    devices = [costs for device in findings.devices if (costs := _Costs.of(findings.rows, device)) is not None]
    if not devices:
        return too_few("runs at two or more reading intervals")
    main = devices[-1]
    return Verdict(
        finding=main.finding(),
        evidence=(
            *(line for costs in devices for line in costs.evidence()),
            *(costs.interval() for costs in devices[:-1]),
        ),
        next_step=main.next_step(),
        uncertainty=main.uncertainty(),
        setting={"executor": "graph"} if main.launch_fraction > LAUNCH_BOUND else {},
        lines=tuple(costs.line() for costs in devices),
    )


class _Costs:
    """The cost of a step and of a read on one device."""

    def __init__(self, rows: Sequence[Measurement], device: str, fitted: Fit) -> None:
        self._device, self._fit = device, fitted
        self._step_s, self._read_s = fitted.coefficients
        runs = of_kind(rows, RunTime)
        self._plain, self._windowed = select(runs, loop="plain"), select(runs, loop="epochtop")
        self._medians = _medians(runs)
        self._steps = self._medians[0][0]
        launches = values(of_kind(rows, LaunchTime), "seconds")
        self._launch = figure(launches) if launches else None
        self._operators = next((row.operators for row in of_kind(rows, Operators)), 0)

    @classmethod
    def of(cls, rows: Sequence[Measurement], device: str) -> _Costs | None:
        here = [row for row in rows if isinstance(row, Operators | RunTime | LaunchTime) and row.device == device]
        fitted = model(here)
        return cls(here, device, fitted) if fitted and len(_medians(of_kind(here, RunTime))) > 1 else None

    @property
    def launch_fraction(self) -> float:
        """Fraction of a step spent launching its operators."""
        return self._operators * self._launch.median / self._step_s if self._launch and self._step_s else 0.0

    @property
    def _negligible_from(self) -> int:
        """Steps between reads from which reads take less than NEGLIGIBLE of the time."""
        return max(1, round(self._read_s / (NEGLIGIBLE * self._step_s))) if self._step_s else 1

    @property
    def _hidden_by_s(self) -> float | None:
        """The spread of a step in seconds if it hides the cost of a read; else None."""
        spread_s = max((time.spread for time in self._times()), default=0.0) / self._steps
        return spread_s if not self._visible and self._read_s < spread_s else None

    @property
    def _visible(self) -> bool:
        """Whether reading every loss takes longer, by more than the spread."""
        every_step = self._against_none(1)
        return every_step is not None and every_step.distinct and every_step.ratio.median > 1

    def _read_words(self) -> str:
        if self._hidden_by_s is None:
            return f"a read takes {format_quantity(self._read_s, 's')}"
        return f"a read is too short to measure: steps vary by {format_quantity(self._hidden_by_s, 's')}"

    def finding(self) -> str:
        every_step = self._against_none(1)
        read, step = format_quantity(self._read_s, "s"), format_quantity(self._step_s, "s")
        if every_step is not None and every_step.ratio.count <= 2:
            return (
                f"on {self._device} a read costs about {read} and a step about {step}, from too few rounds to be sure"
            )
        if not self._visible:
            return (
                f"on {self._device} reading the loss every step has no measurable cost (a step takes {step}; "
                f"{self._read_words()})"
            )
        return (
            f"on {self._device} a read costs {read} and a step {step}; with at most one read per {self._negligible_from:,} "
            "steps, reads take less than 1 %"
        )

    def interval(self) -> str:
        """The interval from which reads do not matter."""
        if not self._visible:
            return f"{self._device}: reading the loss every step has no measurable cost"
        return f"{self._device}: with at most one read per {self._negligible_from:,} steps, reads take less than 1 %"

    def _against_none(self, every: int) -> Difference | None:
        return difference(select(self._plain, every=every), select(self._plain, every=0))

    def evidence(self) -> list[str]:
        lines = [self._fit_words(), self._remainder_words()]
        every_step = self._against_none(1)
        if every_step is not None:
            lines.append(every_step.words("reading every loss", "reading none"))
        windowed = difference(self._windowed, select(self._plain, every=0))
        if windowed is not None:
            lines.append(windowed.words("epochtop's window with every loss", "reading none"))
        if self._launch is not None:
            lines.append(
                f"a step launches {self._operators:,} operators; an empty one takes {with_spread(self._launch)}, so "
                f"launches are {self.launch_fraction:.0%} of the step"
            )
        return [f"{self._device}: {line}" for line in lines]

    def _fit_words(self) -> str:
        steps = f"{self._steps:,.0f} steps × {format_quantity(self._step_s, 's')} = {format_quantity(self._steps * self._step_s, 's')}"
        read = f"{format_quantity(self._read_s, 's')} per read" if self._hidden_by_s is None else self._read_words()
        residuals = ", ".join(f"{residual:+.1%}" for residual in self._fit.residuals)
        return f"{steps}, and {read}; the fit is within {self._fit.worst:.1%} at every interval (residuals {residuals})"

    def _remainder_words(self) -> str:
        remainder = format_quantity(self._steps * self._step_s, "s")
        return f"without any read the steps still take {remainder}, so time cannot follow the number of reads"

    def next_step(self) -> str:
        if self.launch_fraction > LAUNCH_BOUND:
            return (
                "try executor=graph: launching small operators takes much of a step, and reading less often does not "
                "change that (`epochtop lab executors` measures the gain)"
            )
        return "keep every loss; the rest of the time is the step itself (`epochtop lab anatomy` splits it into parts)"

    def uncertainty(self) -> str:
        return (
            f"{quartiles_apart('times of one interval', self._times())}; smaller differences do not count. An interval "
            "measured only once can be off by as much"
        )

    def _times(self) -> list[Figure]:
        return list(grouped(self._plain, ("every",), "seconds").values())

    def line(self) -> Line:
        """The fitted line."""
        reads = sorted({reads for _, reads, _ in self._medians})
        points = [(count, self._steps * self._step_s + count * self._read_s) for count in reads]
        return Line(name=f"{self._device}, fitted", points=tuple(points))

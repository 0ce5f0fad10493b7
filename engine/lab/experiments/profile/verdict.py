"""The verdict of `profile`: the operators that take most of a step, and the time between operators.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.lab.differences import Difference, difference
from epochtop.engine.lab.experiment import Findings, too_few
from epochtop.engine.lab.experiments.profile.schema import OTHERS, GapTime, OperatorTime, StepTime, TraceFile
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.statistics import Figure, by_column, figure, select, values, with_spread
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.quantities import format_quantity
from epochtop.engine.protocol.spec import RunSpec

MOST_LISTED = 5
MOSTLY_IDLE, WORTH_IMPROVING = 50.0, 20.0
"""Percent of a step: between operators, and in one operator."""


def conclude(findings: Findings) -> Verdict:
    """The operators that take the most, and how much of a step is between operators."""
    profiled = _Profile(findings.rows, findings.spec)
    if not profiled.operators:
        return too_few("a round of steps under the profiler")
    return Verdict(
        finding=profiled.finding(),
        evidence=tuple(profiled.evidence()),
        next_step=profiled.next_step(),
        uncertainty=profiled.uncertainty(),
        setting={"executor": "graph"} if profiled.mostly_idle and findings.spec.executor != "graph" else {},
    )


class _Profile:
    """Rows by operator, the slowest first."""

    def __init__(self, rows: Sequence[Measurement], spec: RunSpec) -> None:
        self._spec = spec
        operators = of_kind(rows, OperatorTime)
        self._by_name = by_column((row for row in operators if row.operator != OTHERS), "operator")
        self._times = {name: figure(values(of_name, "seconds")) for name, of_name in self._by_name.items()}
        self.operators = sorted(self._times, key=lambda name: -self._times[name].median)
        self._device = operators[0].device if operators else "cpu"
        self._gaps, self._traces = of_kind(rows, GapTime), of_kind(rows, TraceFile)
        self._idle = figure(values(self._gaps, "share")) if self._gaps else None
        self._cost = _profiler_cost(of_kind(rows, StepTime))

    @property
    def _on_gpu(self) -> bool:
        """Whether times are those of kernels."""
        return self._device.startswith("cuda")

    @property
    def mostly_idle(self) -> bool:
        """Whether more than half of the step is between operators, by more than the spread."""
        return self._idle is not None and self._idle.count > 2 and self._idle.low > MOSTLY_IDLE

    def _top(self) -> list[str]:
        """The slowest operator, and those with no difference from it."""
        first, *others = self.operators
        return [first, *(name for name in others if not self._differs(first, name))]

    def _differs(self, first: str, second: str) -> bool:
        sides = difference(self._by_name[second], self._by_name[first])  # below 1: a small operator has a small spread
        return sides is None or sides.distinct

    def finding(self) -> str:
        top = self._top()
        one = f"{top[0]} takes the largest part of a step, {self._share(top[0])}"
        several = f"{', '.join(top[:MOST_LISTED])} take the largest parts of a step, with no difference between them that can be seen"
        none_runs = "no kernel runs on the GPU" if self._on_gpu else "no operator runs"
        idle = f"; in {_percent(self._idle)} of it {none_runs}" if self._idle is not None else ""
        return f"on {self._device} {one if len(top) == 1 else several}{idle}"

    def _share(self, name: str) -> str:
        return _percent(figure(values(self._by_name[name], "share")))

    def evidence(self) -> list[str]:
        lines = ["; ".join(self._line(name) for name in self.operators[:MOST_LISTED])]
        if self._gaps:
            gap = with_spread(figure(values(self._gaps, "seconds")))
            lines.append(
                f"the GPU waits {gap} per step, for the host or for rows"
                if self._on_gpu
                else f"{gap} per step are between operators: Python, and calling them"
            )
        if self._cost is not None:
            lines.append(self._cost.words("a step under the profiler", "one without it"))
        lines += [f"a Chrome trace of {row.steps} steps, for ui.perfetto.dev, is in {row.path}" for row in self._traces]
        return lines

    def _line(self, name: str) -> str:
        calls = figure(values(self._by_name[name], "calls")).median
        return f"{calls:g} × {name} {with_spread(self._times[name])}, {self._share(name)}"

    def next_step(self) -> str:
        if self.mostly_idle:
            if self._spec.executor == "graph":
                return "run `epochtop lab executors`, which measures recorded steps: they have little time between operators"
            return "set executor=graph, which records the step once and replays it without Python in between"
        top = self._top()[0]
        share = figure(values(self._by_name[top], "share")).median
        if "DataLoader" in top:
            return "run `epochtop lab loader`, which compares ways to load: most of the step is making its rows"
        if share < WORTH_IMPROVING:
            return f"improve no single operator: without any {top}, a step would be only {format_quantity(share, '%')} shorter"
        return (
            f"improve {top}, at most {format_quantity(share, '%')} of the step: with fewer or smaller calls, another precision, or "
            "more threads (`epochtop lab precision` and `threads` measure these)"
        )

    def uncertainty(self) -> str:
        rounds = f"from {max(time.count for time in self._times.values())} rounds of eager steps"
        if self._cost is None:
            return f"{rounds}; the cost of the profiler was not measured"
        if not self._cost.slower:
            return f"{rounds}; {self._cost.words('a step under the profiler', 'one without it')}"
        return (
            f"{rounds}; a step under the profiler took {self._cost.amount()}. It adds host time to every operator, so with many small "
            "operators their order is more certain than their shares"
        )


def _profiler_cost(steps: Sequence[StepTime]) -> Difference | None:
    return difference(select(steps, profiler="with"), select(steps, profiler="without"))


def _percent(share: Figure) -> str:
    if share.count < 2:
        return f"{format_quantity(share.median, '%')} (once)"
    return f"{format_quantity(share.median, '%')} ({format_quantity(share.low)} … {format_quantity(share.high)})"

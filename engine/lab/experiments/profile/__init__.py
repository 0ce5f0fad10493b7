"""What torch.profiler sees of a job: the operators that take the most of a step, and the time between them.

The profiler makes every operator longer, small ones most of all. Steps with and without it are taken in turn, so that
its own cost is told with what it found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Picture, Row, too_few
from epochtop.engine.lab.instruments.sampling import threads_kept
from epochtop.engine.lab.statistics import Difference, Figure, difference, figure, quantity, select, values, with_spread
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import RunSpec

if TYPE_CHECKING:
    from epochtop.engine.job.job import Job
    from epochtop.engine.lab.instruments.profiler import Traced

ROUNDS = 15
STEPS = 20
"""In a measurement, at most: a trace of more is slow to read."""
SAMPLE_S = 0.1
SHOWN = 20
"""Operators that have rows of their own; the others are one."""
OTHERS = "all others"
TOLD = 5
MOSTLY, WORTH_A_THOUGHT = 50.0, 20.0
"""Percent of a step, between operators and in one of them."""
TRACE = "trace.json"


# --- measuring ---------------------------------------------------------------------------------------------------


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` operator, step (with and without the profiler), gap, span (of one step) and trace."""
    from epochtop.engine.lab.instruments.clocks import repeated
    from epochtop.engine.lab.instruments.jobs import job_of
    from epochtop.engine.lab.instruments.profiler import trace

    device = bench.devices[-1]
    bench.say(f"building the job on {device}")
    job = job_of(bench.spec, device)
    timed = repeated(job.device, job.step)
    timed(1)
    steps = max(1, min(STEPS, round(SAMPLE_S / timed(1))))
    bench.say("starting the profiler")
    trace(job, 1)
    names: list[str] = []
    took = 0.0
    for turn in range(ROUNDS):
        bench.check()
        begun = perf_counter()
        if turn and bench.left_s() < took:
            return
        plain_s = timed(steps) / steps if turn % 2 else 0.0
        traced = trace(job, steps, None if turn else bench.folder / TRACE)
        plain_s = plain_s or timed(steps) / steps
        names = names or [operator.name for operator in traced.operators[:SHOWN]]
        yield from _rows(job, traced, names, turn, steps, plain_s)
        if not turn:
            yield from _once(bench, traced, steps)
        took = perf_counter() - begun


def _rows(job: Job, traced: Traced, names: Sequence[str], turn: int, steps: int, plain_s: float) -> Iterator[Row]:
    labels: Row = {"device": str(job.device), "round": turn}
    yield {"kind": "step", **labels, "profiler": "without", "own": 1, "repeats": steps, "seconds": plain_s}
    yield {"kind": "step", **labels, "profiler": "with", "own": 0, "repeats": steps, "seconds": traced.seconds}
    idle = 100 * traced.idle_s / traced.length_s
    yield {"kind": "gap", **labels, "seconds": traced.idle_s, "share": idle}
    found = {operator.name: (operator.calls, operator.seconds) for operator in traced.operators}
    others = [found[name] for name in found if name not in names]
    shown = {name: found[name] for name in names if name in found}
    if others:
        shown[OTHERS] = (sum(calls for calls, _ in others), sum(seconds for _, seconds in others))
    for name, (calls, seconds) in shown.items():
        share = 100 * seconds / traced.length_s
        yield {"kind": "operator", **labels, "operator": name, "calls": calls, "seconds": seconds, "share": share}


def _once(bench: ExperimentContext, traced: Traced, steps: int) -> Iterator[Row]:
    """One step as a timeline, and where the trace is."""
    for span in traced.spans:
        yield {"kind": "span", "lane": span.lane, "start": span.start, "end": span.end}
    file = bench.folder / TRACE
    yield {"kind": "trace", "path": str(file), "steps": steps, "bytes": file.stat().st_size}


# --- concluding --------------------------------------------------------------------------------------------------


def conclude(found: Findings) -> Verdict:
    """The operators that take the most, and how much of a step lies between operators."""
    profiled = _Profiled(found.rows, found.spec)
    if not profiled.operators:
        return too_few("a round of steps under the profiler")
    return Verdict(
        finding=profiled.finding(),
        evidence=tuple(profiled.evidence()),
        next_step=profiled.next_step(),
        uncertainty=profiled.uncertainty(),
        setting={"executor": "graph"} if profiled.mostly_idle and found.spec.executor != "graph" else {},
    )


class _Profiled:
    """Rows by operator, the one that takes the most first."""

    def __init__(self, rows: Sequence[Row], spec: RunSpec) -> None:
        self._spec = spec
        self._rows = rows
        mine = select(rows, kind="operator")
        names = dict.fromkeys(str(row["operator"]) for row in mine if row.get("operator") != OTHERS)
        of = {name: select(mine, operator=name) for name in names}
        self._of = {name: rows for name, rows in of.items() if values(rows, "seconds") and values(rows, "share")}
        self._times = {name: figure(values(rows, "seconds")) for name, rows in self._of.items()}
        self.operators = sorted(self._times, key=lambda name: -self._times[name].median)
        self._device = str(mine[0].get("device")) if mine else "cpu"
        shares = values(select(rows, kind="gap"), "share")
        self._idle = figure(shares) if shares else None

    @property
    def on_gpu(self) -> bool:
        """Whether times are those of kernels."""
        return self._device.startswith("cuda")

    @property
    def mostly_idle(self) -> bool:
        """Whether more than half of the step lies between operators, by more than its spread."""
        return self._idle is not None and self._idle.count > 2 and self._idle.low > MOSTLY

    def top(self) -> list[str]:
        """Those that take the most, and between which there is no difference."""
        first, *others = self.operators
        return [first, *(name for name in others if not self._differs(first, name))]

    def _differs(self, first: str, second: str) -> bool:
        found = difference(self._of[second], self._of[first])  # below 1, where the spread of a small one is small too
        return found is None or found.distinct

    def finding(self) -> str:
        top = self.top()
        one = f"{top[0]} takes the most of a step, {self._share(top[0])}"
        several = f"{', '.join(top[:TOLD])} take the most of a step, without a difference between them that can be seen"
        where = "the GPU runs none of its kernels" if self.on_gpu else "no operator runs"
        idle = f"; in {_percent(self._idle)} of it {where}" if self._idle is not None else ""
        return f"on {self._device} {one if len(top) == 1 else several}{idle}"

    def _share(self, name: str) -> str:
        return _percent(figure(values(self._of[name], "share")))

    def evidence(self) -> list[str]:
        lines = ["; ".join(self._line(name) for name in self.operators[:TOLD])]
        gap = values(select(self._rows, kind="gap"), "seconds")
        if gap and not self.on_gpu:
            lines.append(f"{with_spread(figure(gap))} a step lie between operators: Python, and calling them")
        elif gap:
            lines.append(f"the GPU waits {with_spread(figure(gap))} a step, for the host or for rows")
        cost = self._cost()
        if cost is not None:
            lines.append(cost.words("a step under the profiler", "one without it"))
        for row in select(self._rows, kind="trace"):
            lines.append(f"{row.get('steps')} steps as a Chrome trace, for ui.perfetto.dev: {row.get('path')}")
        return lines

    def _line(self, name: str) -> str:
        calls = values(self._of[name], "calls")
        often = f"{figure(calls).median:g} × " if calls else ""
        return f"{often}{name} {with_spread(self._times[name])}, {self._share(name)}"

    def _cost(self) -> Difference | None:
        steps = select(self._rows, kind="step")
        return difference(select(steps, profiler="with"), select(steps, profiler="without"))

    def next_step(self) -> str:
        if self.mostly_idle:
            if self._spec.executor == "graph":
                return "`epochtop lab executors` tells what recorded steps leave of the time between operators"
            return "executor=graph records the step once and replays it without Python in between"
        top = self.top()[0]
        share = figure(values(self._of[top], "share")).median
        if "DataLoader" in top:
            return "most of the step is making its rows: `epochtop lab loader` tells which way of loading is faster"
        if share < WORTH_A_THOUGHT:
            return f"no operator alone is worth a thought: without any {top} a step would be {quantity(share, '%')} shorter"
        return (
            f"what {top} computes is where a gain is to be had, {quantity(share, '%')} of the step at most: fewer or "
            "smaller calls, another precision, more threads; `epochtop lab precision` and `threads` measure the latter"
        )

    def uncertainty(self) -> str:
        cost = self._cost()
        rounds = max(found.count for found in self._times.values())
        told = f"{rounds} rounds of eager steps. "
        if cost is None or not cost.distinct:
            return told + "The profiler made no difference to a step that can be seen"
        more = quantity(100 * (cost.ratio.median - 1), "%")
        return (
            f"{told}The profiler made a step {more} longer. It adds to the host's time of every operator: with many "
            "small ones, shares of that time are less sure than their order"
        )


def _percent(found: Figure) -> str:
    if found.count < 2:
        return f"{quantity(found.median, '%')} (once)"
    return f"{quantity(found.median, '%')} ({quantity(found.low)} … {quantity(found.high)})"


EXPERIMENT = Experiment(
    name="profile",
    title="Which operators take the time",
    measures="some steps of any job under torch.profiler, in turn with steps without it: every operator's own time, on a "
    "GPU that of its kernels; the time in which none ran; a step as a timeline; a Chrome trace in the run's folder",
    why="a step is a few dozen operators. One of them may take most of it, and then it alone is worth a thought; or most of "
    "the step lies between them, and then no faster operator helps",
    reading="own time leaves out the operators that an operator calls. On the timeline, `between` is time in which the host "
    "ran no operator, and `GPU idle` time without a kernel. The profiler's own cost is in all of these times",
    pictures=(
        Picture(
            title="Operators of a step",
            kind="table",
            y="seconds",
            series=("operator",),
            unit="s",
            columns=("operator", "calls", "seconds", "share"),
            where={"kind": "operator"},
        ),
        Picture(
            title="One step",
            kind="timeline",
            x="start",
            y="end",
            series=("lane",),
            unit="s",
            x_unit="s",
            x_title="seconds of the step",
            where={"kind": "span"},
        ),
        Picture(
            title="What the profiler costs",
            kind="bars",
            y="seconds",
            series=("profiler",),
            unit="s",
            y_title="seconds a step",
            where={"kind": "step"},
        ),
    ),
    measure=measure,
    conclude=conclude,
    job=RunSpec(),
)

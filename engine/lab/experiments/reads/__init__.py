"""What it costs to read the loss, and why the time does not follow the number of reads.

The question is an open one of published write-ups: reading every 100th loss instead of every loss took only part of the
time away, and what was left bore no relation to the number of reads. The answer is a sum of two costs, fitted here:
`time = steps × step + reads × read`; the first does not know of reads, and below some rate only it is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Picture, Row, too_few
from epochtop.engine.lab.instruments.sampling import Case, interleave, threads_kept
from epochtop.engine.lab.statistics import (
    Difference,
    Figure,
    Fit,
    difference,
    figure,
    fit,
    grouped,
    quantity,
    quartiles_apart,
    select,
    values,
    with_spread,
)
from epochtop.engine.protocol.experiments import Line, Verdict
from epochtop.engine.protocol.spec import RunSpec, declared

if TYPE_CHECKING:
    import torch

    from epochtop.engine.lab.instruments.jobs import PlainLoop

EVERY = (1, 10, 100, 200, 1000, 2000, 0)
"""Steps between two reads; 0 is never."""
ROUNDS = 4
"""Times that every interval should be measured; steps that take long are fewer, and so are intervals then."""
NEGLIGIBLE = 0.01
"""Share of the time below which reads matter no more."""
MUCH = 0.3
"""Share of a step from which launching is worth taking away."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The length of the run that figures are given for."""

    steps: Annotated[
        int, declared("steps of the run that times are given for", "experiment", "steps", ge=1000, le=10**9)
    ] = 20_000


# --- measuring ---------------------------------------------------------------------------------------------------


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` run (a whole run, by reading interval) and launch (one small operator)."""
    from epochtop.engine.lab.instruments.jobs import PlainLoop, job_of, not_plain

    bench.cannot_see += not_plain(bench.spec)
    cases: list[Case] = []
    for device in bench.devices:
        bench.say(f"building the job on {device}")
        plain = PlainLoop(job_of(bench.spec, device))
        yield {"kind": "operators", "device": device, "operators": _operators(plain)}
        block = _block(bench, device, plain)
        cases += [_plain(device, plain, every, block) for every in EVERY if every <= block]
        cases += [_windowed(bench, device, PlainLoop(job_of(bench.spec, device)), block), _launch(device)]
    for row in interleave(bench, cases, rounds=ROUNDS):
        yield _whole(row, _steps(bench)) if row["kind"] == "run" else row


def _block(bench: ExperimentContext, device: str, loop: PlainLoop) -> int:
    """Steps of one measurement: as many as the longest interval, if there is time for them."""
    import torch

    from epochtop.engine.lab.instruments.clocks import repeated

    run = repeated(torch.device(device), loop.step)
    run(1)
    step_s = run(5) / 5
    each_s = bench.budget_s * 0.95 / (len(bench.devices) * (len(EVERY) + 1) * (ROUNDS + 0.5))
    return max(1, min(max(EVERY), round(each_s / step_s)))


def _steps(bench: ExperimentContext) -> int:
    assert isinstance(bench.fields, Fields)
    return bench.fields.steps


def _whole(row: Row, steps: int) -> Row:
    """Of a whole run, from the seconds of a step."""
    every, seconds = row["every"], row["seconds"]
    assert isinstance(every, int)
    assert isinstance(seconds, float)
    return {**row, "steps": steps, "reads": steps // every if every else 0, "seconds": seconds * steps}


def _plain(device: str, loop: PlainLoop, every: int, block: int) -> Case:
    """The plain loop with `.item()` every so many steps."""
    return _case(device, "plain", every, _reading(loop.step, every), block)


def _reading(step: Callable[[], torch.Tensor], every: int) -> Callable[[], object]:
    count = 0

    def stepped() -> None:
        nonlocal count
        loss = step()
        count += 1
        if every and count % every == 0:
            loss.item()

    return stepped


def _windowed(bench: ExperimentContext, device: str, loop: PlainLoop, block: int) -> Case:
    """The same loop with every loss kept in epochtop's window, which is read ten times a second."""
    from time import perf_counter

    import torch

    from epochtop.engine.step.window import LossWindow

    window, step = LossWindow(torch.device(device)), loop.step
    refresh_s = bench.spec.refresh_ms / 1000
    due = perf_counter() + refresh_s

    def stepped() -> None:
        nonlocal due
        window.record(step())
        if perf_counter() >= due:
            window.turn(0.0)
            due = perf_counter() + refresh_s

    return _case(device, "epochtop", 0, stepped, block)


def _case(device: str, loop: str, every: int, stepped: Callable[[], object], block: int) -> Case:
    import torch

    from epochtop.engine.lab.instruments.clocks import repeated

    run = repeated(torch.device(device), stepped)
    return Case({"kind": "run", "device": device, "loop": loop, "every": every}, run, most=block, least=block)


def _launch(device: str) -> Case:
    """One operator with nothing to compute, enqueued without a wait: what launching costs."""
    import torch

    from epochtop.engine.lab.instruments.clocks import repeated

    where = torch.device(device)
    one = torch.ones(1, device=where)
    return Case({"kind": "launch", "device": device}, repeated(where, lambda: one.mul_(1.0)), 2000)


def _operators(loop: PlainLoop) -> int:
    """Operators that a step of the plain loop calls, forward, backward and update."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        count: int = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += 1
            return func(*args, **(kwargs or {}))

    counting: Any = Counting()  # type: ignore[no-untyped-call]
    with counting:
        loop.step()
    return int(counting.count)


# --- concluding --------------------------------------------------------------------------------------------------


def model(rows: Sequence[Row]) -> Fit | None:
    """`seconds = steps × step + reads × read` of the plain loop's rows of one device."""
    medians = _medians(rows)
    return fit([(steps, reads) for steps, reads, _ in medians], [seconds for *_, seconds in medians])


def _medians(rows: Sequence[Row]) -> list[tuple[float, float, float]]:
    runs = [row for row in select(rows, kind="run", loop="plain") if values([row], "seconds")]
    found: dict[tuple[float, float], list[float]] = {}
    for row in runs:
        steps, reads, seconds = (values([row], name)[0] for name in ("steps", "reads", "seconds"))
        found.setdefault((steps, reads), []).append(seconds)
    return [(*key, figure(times).median) for key, times in found.items()]


def conclude(found: Findings) -> Verdict:
    """The fitted costs on the device that the job would be trained on, and from which interval on reads stop mattering."""
    told = [said for device in found.devices if (said := _Costs.of(found.rows, device)) is not None]
    if not told:
        return too_few("runs at two reading intervals or more")
    main = told[-1]
    return Verdict(
        finding=main.finding(),
        evidence=(
            *(line for costs in told for line in costs.evidence()),
            *(costs.interval() for costs in told[:-1]),
        ),
        next_step=main.next_step(),
        uncertainty=main.uncertainty(),
        setting={"executor": "graph"} if main.launching > MUCH else {},
        lines=tuple(costs.line() for costs in told),
    )


class _Costs:
    """What one device takes for a step and for a read."""

    def __init__(self, rows: Sequence[Row], device: str, fitted: Fit) -> None:
        self._rows, self._device = rows, device
        self._step, self._read = fitted.coefficients
        self._fit = fitted
        self._medians = _medians(rows)
        self._steps = self._medians[0][0]
        launch = values(select(rows, kind="launch"), "seconds")
        operators = values(select(rows, kind="operators"), "operators")
        self._launch = figure(launch) if launch else None
        self._operators = operators[0] if operators else 0.0

    @classmethod
    def of(cls, rows: Sequence[Row], device: str) -> _Costs | None:
        mine = select(rows, device=device)
        fitted = model(mine)
        return cls(mine, device, fitted) if fitted and len(_medians(mine)) > 1 else None

    @property
    def launching(self) -> float:
        """Share of a step that launching its operators takes."""
        return self._operators * self._launch.median / self._step if self._launch and self._step else 0.0

    @property
    def stops_mattering(self) -> int:
        """Steps between reads from which these take less than NEGLIGIBLE of the time."""
        return max(1, round(self._read / (NEGLIGIBLE * self._step))) if self._step else 1

    @property
    def _too_small(self) -> float | None:
        """Seconds that steps differ by, where a read takes less and cannot be told from that; else None."""
        apart_s = max((each.spread for each in self._times()), default=0.0) / self._steps
        return apart_s if not self._seen and self._read < apart_s else None

    def _a_read(self) -> str:
        if self._too_small is None:
            return f"a read takes {quantity(self._read, 's')}"
        return f"a read is too small to be seen beside {quantity(self._too_small, 's')} of spread in a step"

    @property
    def _seen(self) -> bool:
        """Whether reading every loss takes longer, by more than the spread."""
        every = self._ends(1)
        return every is not None and every.distinct and every.ratio.median > 1

    def finding(self) -> str:
        every = self._ends(1)
        if every is not None and every.ratio.count <= 2:
            return (
                f"on {self._device} a read seems to cost {quantity(self._read, 's')} and a step {quantity(self._step, 's')}, "
                "measured too seldom to be sure"
            )
        if not self._seen:
            return (
                f"on {self._device} reading every loss costs nothing that can be seen here, so that reads stop mattering at "
                f"every step already: a step takes {quantity(self._step, 's')}, and {self._a_read()}"
            )
        return (
            f"on {self._device} a read costs {quantity(self._read, 's')} and a step {quantity(self._step, 's')}; from one "
            f"read in {self.stops_mattering:,} steps on, reads are below 1 % and only steps are left"
        )

    def interval(self) -> str:
        """From which interval on reads stop mattering."""
        if not self._seen:
            return f"{self._device}: reads stop mattering at every step already"
        return f"{self._device}: from one read in {self.stops_mattering:,} steps on, reads are below 1 %"

    def _ends(self, every: int) -> Difference | None:
        runs = select(self._rows, kind="run", loop="plain")
        return difference(select(runs, every=every), select(runs, every=0))

    def evidence(self) -> list[str]:
        ours = difference(select(self._rows, loop="epochtop"), select(self._rows, kind="run", loop="plain", every=0))
        every = self._ends(1)
        a_read = f"{quantity(self._read, 's')} a read" if self._too_small is None else self._a_read()
        lines = [
            f"{self._device}: {self._steps:,.0f} steps × {quantity(self._step, 's')} = "
            f"{quantity(self._steps * self._step, 's')}, and {a_read}; the fit misses no interval by more"
            f" than {self._fit.worst:.1%} (residuals " + ", ".join(f"{left:+.1%}" for left in self._fit.residuals) + ")"
        ]
        lines.append(
            f"{self._device}: without any read {quantity(self._steps * self._step, 's')} remain, the same at every interval: "
            "that is why what remains does not follow the number of reads"
        )
        if every is not None:
            lines.append(f"{self._device}: " + every.words("reading every loss", "reading none"))
        if ours is not None:
            lines.append(f"{self._device}: " + ours.words("epochtop's window with every loss kept", "reading none"))
        if self._launch is not None:
            lines.append(
                f"{self._device}: a step launches {self._operators:,.0f} operators, and one with nothing to compute takes "
                f"{with_spread(self._launch)}: {self.launching:.0%} of the step"
            )
        return lines

    def next_step(self) -> str:
        if self.launching > MUCH:
            return (
                "reading less often does not touch the steps, and much of a step is launching small operators, which "
                "executor=graph is there to take away: `epochtop lab executors` measures how much it does"
            )
        return "keep every loss; what remains is the step itself: `epochtop lab anatomy` takes it apart"

    def uncertainty(self) -> str:
        return (
            f"{quartiles_apart('times of one interval', self._times())}, and differences below that are called none; an "
            "interval that is measured once can be off by as much"
        )

    def _times(self) -> list[Figure]:
        return list(grouped(select(self._rows, kind="run", loop="plain"), ("every",), "seconds").values())

    def line(self) -> Line:
        reads = sorted({reads for _, reads, _ in self._medians})
        points = [(many, self._steps * self._step + many * self._read) for many in reads]
        return Line(name=f"{self._device}, fitted", points=tuple(points))


EXPERIMENT = Experiment(
    name="reads",
    title="What reading the loss costs",
    measures="a run's time with `loss.item()` every step, every 10, 100, 200, 1,000, 2,000 steps and never, and with "
    "epochtop's own window, in turn and repeatedly; one empty operator; the number of operators in a step",
    why="each read of a loss is a copy and a full stop of the device's queue. Reading less often is the usual advice; how "
    "much it can bring is limited by what a step takes without any read",
    reading="time rises with the number of reads only where reads cost more than the machine's noise. The height of the "
    "flat part is the steps themselves: launching their operators, and computing",
    pictures=(
        Picture(
            title="Time of the run over the number of reads",
            kind="lines",
            x="reads",
            y="seconds",
            series=("device", "loop"),
            unit="s",
            x_title="reads",
            y_title="seconds",
            where={"kind": "run"},
        ),
    ),
    measure=measure,
    conclude=conclude,
    fields=Fields,
    job=RunSpec(),
)

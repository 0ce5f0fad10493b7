"""What each executor of the engine takes for one job: once to be set up, then for every step, and when that pays.

A program made of a step costs time before the first step and saves some in each; the number of steps after which both
are even, `set-up / saved per step`, decides. `graph` on the CPU is set up in an empty cache, as for a first run, and
from a full one; `compile` runs in a process of its own and while time allows, since its compiler cannot be interrupted.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Picture, Row, too_few
from epochtop.engine.lab.experiments.executors.breakeven import CACHES, Cost, costs
from epochtop.engine.lab.instruments.sampling import Case, interleave, threads_kept
from epochtop.engine.lab.statistics import Figure, quantity, quartiles_apart, select, values, with_spread
from epochtop.engine.protocol.experiments import Line, Verdict
from epochtop.engine.protocol.spec import RunSpec, declared

if TYPE_CHECKING:
    from epochtop.engine.execution.executor import Executor
    from epochtop.engine.job.job import Job

FIRST_S = 7.0
"""For eager and graph alone, before compile is tried: what is measured then is measured whatever comes."""
LAST_S = 5.0
"""That must be left when compile is ready, to measure it and the others in turn."""
PATIENCE_S = 180.0
"""For compile where it was asked for."""
SET_UPS = 3
BUILD_S = 8.0
"""That a C compiler may take in any case."""
LATER = 1000
"""Number of the first round after compile has become ready."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether to wait for the slow one."""

    compile: Annotated[
        Literal["auto", "yes", "no"],
        declared(
            "measure the executor compile: auto does while time allows, and not with quick; yes waits up to 3 minutes",
            "experiment",
        ),
    ] = "auto"


# --- measuring ---------------------------------------------------------------------------------------------------


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` job, setup, step, and left_out, which has a reason."""
    assert isinstance(bench.fields, Fields)
    # whoever waits for the compiler of one device has as much time for the next one
    least_s = bench.left_s() / len(bench.devices) if bench.fields.compile == "yes" else 0.0
    for number, device in enumerate(bench.devices):
        share_s = max(least_s, bench.left_s() / (len(bench.devices) - number))
        yield from _OneDevice(bench.with_time(share_s), device, perf_counter() + share_s).rows()


class _OneDevice:
    """The executors on one device, measured until `ends`."""

    def __init__(self, bench: ExperimentContext, device: str, ends: float) -> None:
        self._bench, self._device, self._ends = bench, device, ends
        self._cases: list[Case] = []
        self._setups: dict[str, float] = {}
        """Seconds of the first set-up, by executor."""

    def _left_s(self) -> float:
        return max(0.0, self._ends - perf_counter())

    def _row(self, kind: str, name: str, **more: Any) -> Row:
        return {"kind": kind, "device": self._device, "executor": name, **more}

    def rows(self) -> Iterator[Row]:
        import torch

        from epochtop.engine.lab.instruments.jobs import job_of

        self._bench.say(f"building the job on {self._device}")
        job = job_of(self._bench.spec, self._device)
        self._steps, self._spec = job.plan.steps, msgspec.structs.replace(job.spec, threads=torch.get_num_threads())
        yield {"kind": "job", "device": self._device, "steps": self._steps, "threads": self._spec.threads}
        for name in ("eager", "graph"):
            yield from self._here(job_of(self._spec, self._device, job.workload), name)
        why = self._why_no_compile()
        if why:
            yield self._row("left_out", "compile", why=why)
            yield from self._steps_of(self._left_s())
            return
        yield from self._steps_of(min(FIRST_S, self._left_s() / 4))
        yield from self._compiled()

    # --- in this process -----------------------------------------------------------------------------------------

    def _here(self, job: Job, name: str) -> Iterator[Row]:
        from epochtop.engine.execution.executor import Unsupported
        from epochtop.engine.lab.instruments.stepping import Stepping

        self._bench.say(f"setting up {name} on {self._device}")
        try:
            executor = yield from self._set_ups(job, name)
        except Unsupported as unfit:
            yield self._row("left_out", name, why=str(unfit))
            return
        self._cases.append(Case(self._row("step", name), Stepping(job, executor)))

    def _set_ups(self, job: Job, name: str) -> Generator[Row, None, Executor]:
        """Make it several times, as for a first and for a later run; gives the last one. Raises Unfit."""
        from epochtop.engine.lab.instruments.stepping import nothing_kept, set_up

        programs = name == "graph" and self._device == "cpu"
        until = perf_counter() + self._left_s() / 4
        turn = 0
        while programs and turn < SET_UPS and (turn == 0 or perf_counter() < until):
            self._bench.check()
            with nothing_kept(max(BUILD_S, self._left_s() / 2)):
                yield self._set_up_row(name, "new", turn, set_up(job, name)[1])
            turn += 1
        for again in range(SET_UPS):
            if again > int(programs) and perf_counter() > until:
                break
            self._bench.check()
            executor, seconds = set_up(job, name)
            if not programs or again:  # the first one may have had to be built for the user's own cache
                yield self._set_up_row(name, "kept" if programs else "new", again, seconds)
        return executor

    def _set_up_row(self, name: str, cache: str, turn: int, seconds: float) -> Row:
        self._setups.setdefault(name, seconds)
        return self._row("setup", name, cache=cache, round=turn, seconds=seconds)

    def _steps_of(self, seconds: float, first: int = 0) -> Iterator[Row]:
        """Steps of all executors in turn, with the seconds of this job's whole run as they follow from each row."""
        if not self._cases:
            return
        self._bench.say(f"taking steps on {self._device}")
        for row in interleave(self._bench.with_time(seconds), self._cases, seconds):
            took, turn = row["seconds"], row["round"]
            assert isinstance(took, float)
            assert isinstance(turn, int)
            run_s = self._setups[str(row["executor"])] + self._steps * took
            yield {**row, "round": first + turn, "steps": self._steps, "run_seconds": run_s}

    # --- in another process --------------------------------------------------------------------------------------

    def _why_no_compile(self) -> str:
        """Why it is not tried; empty if it is."""
        assert isinstance(self._bench.fields, Fields)
        asked = self._bench.fields.compile
        if asked == "no":
            return "as asked (compile=no)"
        if asked == "auto" and self._bench.quick:
            return "its compiler takes longer than a quick measurement may; without --quick, or with compile=yes, it is tried"
        if asked == "auto" and self._left_s() < 2 * LAST_S:
            return "no time was left; compile=yes waits for it"
        return ""

    def _compiled(self) -> Iterator[Row]:
        from epochtop.engine.execution.executor import Unsupported
        from epochtop.engine.lab.experiments.executors.subprocess import Beside, Late, Wanted

        assert isinstance(self._bench.fields, Fields)
        within_s = PATIENCE_S if self._bench.fields.compile == "yes" else self._left_s() - LAST_S
        self._bench.say(f"setting up compile on {self._device}, for at most {within_s:.0f} s")
        wanted = Wanted(spec=self._spec, device=self._device, executor="compile")
        try:
            with Beside(self._bench, wanted) as beside:
                ready = beside.ready(within_s)
                yield self._set_up_row("compile", ready.cache, 0, ready.seconds)
                self._cases.append(Case(self._row("step", "compile"), beside))
                yield from self._steps_of(max(LAST_S, self._left_s()), LATER)
        except Late:
            yield self._row("left_out", "compile", why=f"not ready within {within_s:.0f} s; compile=yes waits longer")
        except Unsupported as unfit:
            yield self._row("left_out", "compile", why=str(unfit))


# --- concluding --------------------------------------------------------------------------------------------------


def conclude(found: Findings) -> Verdict:
    """Which executor is best for as many steps as the job has, on the device that it would be trained on."""
    told = [each for device in found.devices if (each := _Told.of(found, device)) is not None]
    if not told:
        return too_few("steps of eager and of another executor, or why there is none")
    main = told[-1]
    return Verdict(
        finding=main.finding(),
        evidence=tuple(line for each in told for line in each.evidence()),
        next_step=main.next_step(),
        uncertainty=main.uncertainty(),
        setting={"executor": main.now().name} if main.helps else {},
        lines=tuple(line for each in told for line in each.lines()),
    )


class _Told:
    """One device, in sentences."""

    def __init__(self, device: str, steps: float, found: dict[str, Cost], left_out: dict[str, str], asked: str) -> None:
        self._device, self._steps, self._costs, self._left_out = device, steps, found, left_out
        self._asked = asked
        self._eager = found["eager"]
        self._others = [cost for name, cost in found.items() if name != "eager"]

    @classmethod
    def of(cls, found: Findings, device: str) -> _Told | None:
        rows = select(found.rows, device=device)
        steps, measured = values(select(rows, kind="job"), "steps"), costs(rows)
        left_out = {str(row.get("executor")): str(row.get("why")) for row in select(rows, kind="left_out")}
        if not steps or "eager" not in measured or not (len(measured) > 1 or left_out):
            return None
        return cls(device, steps[0], measured, left_out, found.spec.executor)

    def best(self) -> Cost:
        """The one that gains most in a first run; eager unless steps of another are faster by more than the spread."""
        return self._most({cost.name: cost.gain_s(self._steps, self._longer_s(cost.first)) for cost in self._others})

    def now(self) -> Cost:
        """The same for a run from now on, which finds in the cache what this experiment has left there."""
        return self._most({cost.name: cost.gain_s(self._steps, self._longer_s(cost.again)) for cost in self._others})

    def _most(self, gains: dict[str, float]) -> Cost:
        name = max(gains, key=gains.__getitem__, default="eager")
        return self._costs[name] if gains.get(name, 0.0) > 0 else self._eager

    def _longer_s(self, setup: Figure) -> float:
        return setup.median - self._eager.first.median

    @property
    def helps(self) -> bool:
        """Whether another executor than the one asked for is known to be better; `auto` begins with eager anyway."""
        best, asked = self.now(), self._costs.get(self._asked)
        if best.name == self._asked:
            return False
        return best.faster or (asked is not None and asked.against is not None and asked.against.distinct)

    def finding(self) -> str:
        best, many = self.best(), f"this job's {self._steps:,.0f} steps on {self._device}"
        eager_s = quantity(self._eager.total_s(self._steps), "s")
        if best is not self._eager:
            return (
                f"{best.name} is best for {many}: {quantity(best.total_s(self._steps), 's')}, its set-up of "
                f"{quantity(best.first.median, 's')}{CACHES[next(iter(best.setups))]} included, instead of {eager_s}; "
                f"it pays from {self._even(best)} on"
            )
        if not self._others:
            return f"eager is the only executor that was measured for {many}: {eager_s}"
        faster = [cost for cost in self._others if cost.faster]
        if faster:
            told = ", ".join(f"{cost.name} pays from {self._even(cost)} on" for cost in faster)
            return f"eager is best for {many} the first time, {eager_s}: {told}"
        slower = [cost.name for cost in self._others if cost.against is not None and cost.against.distinct]
        if len(slower) == len(self._others):
            return f"eager is best for {many}: steps of {' and of '.join(slower)} are slower"
        alike = [cost.name for cost in self._others if cost.name not in slower]
        return f"no difference between steps of eager and of {' or '.join(alike)} for {many}; a set-up would not pay"

    def _even(self, cost: Cost, setup: Figure | None = None) -> str:
        steps = cost.pays_from(self._longer_s(setup or cost.first))
        return "no number of steps" if steps is None else f"{max(1, round(steps)):,} steps"

    def evidence(self) -> list[str]:
        where = self._device
        lines = [f"{where}: a step of {self._eager.name} takes {with_spread(self._eager.step)}"]
        for cost in self._others:
            lines.append(
                f"{where}: a step of {cost.name} takes {with_spread(cost.step)}"
                + (f"; {cost.against.words(cost.name, 'eager')}" if cost.against else "")
            )
            lines.append(f"{where}: {self._set_up(cost)}")
        return lines + [f"{where}: {name} was not measured: {why}" for name, why in self._left_out.items()]

    def _set_up(self, cost: Cost) -> str:
        told = [
            f"{with_spread(setup)}{CACHES[cache]}"
            + (f", even with eager after {self._even(cost, setup)}" if cost.faster else "")
            for cache, setup in cost.setups.items()
        ]
        never = "" if cost.faster else "; no number of steps makes up for it, since they are not faster"
        return f"setting up {cost.name} takes {'; '.join(told)}{never}"

    def next_step(self) -> str:
        now = self.now()
        if now is self._eager:
            return "stay with executor=eager, or auto, which begins eagerly"
        told = f"start the run with executor={now.name}"
        if now is not self.best():
            return f"{told} all the same: what it needs is kept from this measurement, so it pays from {self._even(now, now.again)} on"
        auto = " (auto begins eagerly and changes to graph by itself where it judges that this pays)"
        return told + (auto if now.name == "graph" else "")

    def uncertainty(self) -> str:
        lines = [quartiles_apart("times of a step", (cost.step for cost in self._costs.values()))]
        for cost in self._others:
            even = cost.pays_from(self._longer_s(cost.first))
            if even is not None and even / 1.5 < self._steps < even * 1.5:
                lines.append(f"the job has about as many steps as {cost.name} needs to be even, which may tip over")
        if self._left_out:
            lines.append(f"{', '.join(self._left_out)} might be better and was not measured")
        return "; ".join(lines)

    def lines(self) -> list[Line]:
        """Seconds of a run over its steps, from one step to ten times those of the job."""
        steps = [1.0]
        while steps[-1] < 10 * self._steps:
            steps.append(steps[-1] * 2)
        return [
            Line(
                name=f"{self._device} {cost.name}, computed", points=tuple((many, cost.total_s(many)) for many in steps)
            )
            for cost in self._costs.values()
        ]


_SERIES = ("device", "executor")
_SET_UP = {"kind": "setup"}

EXPERIMENT = Experiment(
    name="executors",
    title="Which executor, and from how many steps on",
    measures="for eager, graph and compile on one job: the seconds to set each up, with nothing kept and from the cache, "
    "and the seconds of a step, in turn and repeatedly",
    why="a program made of a whole step saves what calling its operators one by one costs, in every step, and has to be "
    "made first. Few steps never pay for that, many do; the number in between is this machine's and this job's own",
    reading="curves rise from what setting up takes; where two cross, both take the same time, and right of it the one "
    "that is set up longer is ahead. Points are what was measured, for as many steps as the job has",
    pictures=(
        Picture(
            title="Time of a run over its number of steps",
            kind="lines",
            x="steps",
            y="run_seconds",
            series=_SERIES,
            unit="s",
            x_title="steps",
            y_title="seconds",
            x_log=True,
            y_log=True,
            where={"kind": "step"},
        ),
        Picture(title="Time of a step", kind="bars", y="seconds", series=_SERIES, unit="s", where={"kind": "step"}),
        Picture(title="Time to set up", kind="bars", y="seconds", series=(*_SERIES, "cache"), unit="s", where=_SET_UP),
    ),
    measure=measure,
    conclude=conclude,
    fields=Fields,
    job=RunSpec(),
)

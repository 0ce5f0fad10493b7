"""One job's step taken apart: input, host work, launches, device compute, transfers, reads.

The whole is measured without any instrument; the parts are measured beside it, in turn, and what they do not add up to is
shown as unexplained. On the CPU, parts are told apart by the clock and by replaying the step's operators
(:mod:`engine.lab.parts`); on a GPU from a profile of what the device did and what the host did while it was idle
(:mod:`engine.lab.timeline`). The verdict is in :mod:`engine.lab.bound`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from engine.lab.bound import conclude
from engine.lab.contract import Bench, Experiment, Picture, Row
from engine.lab.sampling import Case, interleave
from engine.spec import RunSpec

if TYPE_CHECKING:
    from engine.job import Job

SAMPLE_S, TURNS = 0.002, 8
"""A measurement of short steps is the median of so many that last so long: what else the machine does is seldom in most."""
ROUNDS, QUICK_ROUNDS = 60, 25
OPERATOR_S, MOST_REPLAYS = 4e-6, 200
"""About what launching takes, to see how many replays are a measurement; with more, what operators change may overflow."""
LEAST_ROUNDS = 9
"""That whole epochs must leave time for."""


def measure(bench: Bench) -> Iterator[Row]:
    """Rows of `kind` job, operators, read (a line of the user's), step (the whole, a round) and part (a round each)."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield from _measured(bench)
    finally:
        torch.set_num_threads(threads)


def _measured(bench: Bench) -> Iterator[Row]:
    taken: dict[str, _Apart] = {}
    job: Job | None = None
    for device in bench.devices:
        bench.check()
        bench.say(f"taking a step on {device} apart")
        from engine.lab.jobs import job_of

        job = job_of(bench.spec, device, job.material if job is not None else None)
        apart: _Apart = _OnGpu(job, bench) if device.startswith("cuda") else _OnCpu(job, bench)
        if job.device.type in ("cpu", "cuda"):
            taken[device] = apart
            yield from apart.facts()
        else:
            bench.cannot_see.append(f"a step on {device} was not taken apart: its profiler is not read here")
    cases = [case for apart in taken.values() for case in apart.cases()]
    turns = TURNS * (QUICK_ROUNDS if bench.quick else ROUNDS)
    for row in interleave(bench, cases, bench.left_s() * 0.9, turns, turns):
        yield from taken[str(row["device"])].take(row)
    for apart in taken.values():
        yield from apart.left()


class _Apart:
    """A job on one device: its cases, and the parts that follow from one round of them."""

    def __init__(self, job: Job, bench: Bench) -> None:
        from engine.lab.parts import Steps
        from engine.lab.reading import Reads

        self.job, self.steps = job, Steps(job)
        self.device = str(job.device)
        self._bench = bench
        # batches that workers have ready when a measurement begins were not made in its time
        self._ahead = 2 * bench.spec.workers
        self._turn: dict[str, float] = {}
        self._turns: list[dict[str, float]] = []
        self._number = 0
        self.steps.plain(2)
        self.steps.watched(2)
        self.reads = Reads(bench.spec.task, self.steps.marks)
        self._step_s = self._least()

    def facts(self) -> Iterator[Row]:
        """What is known once: the job, its operators, the lines that read."""
        from engine.lab.parts import operators

        self.found = operators(self.steps, self.reads)
        yield _job_row(self.job)
        yield {"kind": "operators", "device": self.device, "operators": len(self.found.calls)}
        yield from self.reads.rows(self.job.device)

    def _least(self, most_s: float = 0.02) -> float:
        """Seconds of a step while nothing else disturbs it, about."""
        took = [self.steps.seconds(1)]
        while sum(took) < most_s:
            took.append(self.steps.seconds(1))
        return min(took)

    def _times(self) -> int:
        """Steps of one measurement: whole epochs where there is time for them, since an epoch begins with work of its own."""
        epoch, short = self.job.batches.per_epoch, max(1, round(SAMPLE_S / max(self._step_s, 1e-9)))
        most_s = self._bench.left_s() / (LEAST_ROUNDS * 4 * len(self._bench.devices))
        if epoch * self._step_s > most_s:
            return min(short, epoch)
        return -(-short // epoch) * epoch

    def _case(self, kind: str, run: Any, most: int) -> Case:
        return Case({"kind": kind, "device": self.device}, run, most=most)

    def cases(self) -> list[Case]:
        """The whole step first; subclasses add what tells its parts."""
        self._step_s = min(self._step_s, self._least())
        times = self._times()
        return [Case({"kind": "step", "device": self.device}, self._plain, most=times, least=times)]

    def _lead(self, times: int) -> int:
        """Steps before those that are timed: short ones are slow where something else was done just before."""
        return max(self._ahead, times if times > 1 else 0)

    def _plain(self, times: int) -> float:
        self.steps.plain(self._lead(times))
        return self.steps.seconds(times)

    def take(self, row: Row) -> Iterator[Row]:
        """A measurement; the rows that are known with it."""
        assert isinstance(row["seconds"], float)
        self._turn[str(row["kind"])] = row["seconds"]
        parts = self.parts(self._turn)
        if parts is None:
            return
        step, self._turn = self._turn["step"], {}
        self._turns.append({**parts, "step": step})
        if len(self._turns) >= (TURNS if self._step_s * 2 < SAMPLE_S else 1):
            yield from self._rows()

    def left(self) -> Iterator[Row]:
        """At the end, if there was no time for one whole round."""
        if not self._number and self._turns:
            yield from self._rows()

    def _rows(self) -> Iterator[Row]:
        labels: Row = {"device": self.device, "round": self._number}
        medians = {name: statistics.median(turn[name] for turn in self._turns) for name in self._turns[0]}
        step = medians.pop("step")
        medians["unexplained"] = step - sum(medians.values())
        yield {"kind": "step", **labels, "seconds": step}
        for part, took in medians.items():
            yield {"kind": "part", **labels, "part": part, "seconds": took}
        self._turns, self._number = [], self._number + 1

    def parts(self, of: dict[str, float]) -> dict[str, float] | None:
        """Seconds of each part from the measurements of a turn; None as long as some are missing."""
        raise NotImplementedError


class _OnCpu(_Apart):
    """Where the host is the device: every moment is one thing, and operators can be done without the rest."""

    def cases(self) -> list[Case]:
        from engine.lab.parts import emptied, replayed

        whole = super().cases()
        times, calls, device = whole[0].most, self.found.calls, self.job.device
        replays = _short(self._step_s)
        launches, reading = (_short(len(each) * OPERATOR_S) for each in (calls, self.found.reading))
        self._phases: dict[str, float] = {}
        return [
            *whole,
            Case({"kind": "marked", "device": self.device}, self._marked, most=times, least=times),
            self._case("operators", replayed(calls, device), replays),
            self._case("launches", replayed(emptied(calls, device), device), launches),
            self._case("reading", replayed(self.found.reading, device), reading),
        ]

    def _marked(self, times: int) -> float:
        self.steps.watched(self._lead(times))
        phases = self.steps.marks.measured(lambda: self.steps.watched(times))
        self._phases = {name: took / times for name, took in phases.items()}
        return sum(phases.values())

    def parts(self, of: dict[str, float]) -> dict[str, float] | None:
        if len(of) < 5:
            return None
        return {
            "input": self._phases["input"],
            "host": self._phases["work"] - of["operators"] - of["reading"],
            "launches": of["launches"],
            "compute": of["operators"] - of["launches"],
            "reads": self._phases["read"] + of["reading"],
        }


class _OnGpu(_Apart):
    """Where the device works by itself: what it does is profiled, and what the host does while it is idle."""

    def facts(self) -> Iterator[Row]:
        from engine.lab.timeline import event_seconds, profile

        yield from super().facts()
        self._event_s = event_seconds(self.job.device)
        profile(self.steps, 2)
        made = profile(self.steps, 3)
        yield {
            "kind": "kernels",
            "device": self.device,
            "kernels": made.kernels / 3,
            "launches": made.launches / 3,
            "event_seconds": self._event_s,
        }

    def cases(self) -> list[Case]:
        import torch

        from engine.lab.timing import repeated

        whole = super().cases()
        one = torch.ones(1, device=self.job.device)
        self._shares: dict[str, float] = {}
        return [
            *whole,
            # profiles of many steps are long to read
            self._case("profile", self._profiled, min(whole[0].most, 50)),
            self._case("launch", repeated(self.job.device, lambda: one.mul_(one)), 2000),
        ]

    def _profiled(self, times: int) -> float:
        from engine.lab.timeline import profile, shares

        self.steps.plain(max(1, self._ahead))
        found = shares(profile(self.steps, times).events, self._event_s)
        self._shares = {name: took / times for name, took in found.items()}
        return sum(found.values())

    def parts(self, of: dict[str, float]) -> dict[str, float] | None:
        return self._shares if len(of) == 3 else None


def _short(seconds: float) -> int:
    """Replays in one measurement, where each takes so long."""
    return max(1, min(MOST_REPLAYS, round(SAMPLE_S / max(seconds, 1e-9))))


def _job_row(job: Job) -> Row:
    import torch

    from engine.hardware import usable_cpus

    rows = len(job.material.train)  # type: ignore[arg-type]
    return {
        "kind": "job",
        "device": str(job.device),
        "batches": type(job.batches).__name__.lower(),
        "rows": rows,
        "batch": min(job.spec.batch_size or rows, rows),
        "threads": torch.get_num_threads(),
        "cpus": usable_cpus(),
        "unfit": _unfit(job),
    }


def _unfit(job: Job) -> str:
    """Why the job's steps cannot become a graph; empty if they can."""
    from engine.execution.contract import Unfit
    from engine.execution.native import Graph
    from engine.lab.jobs import job_of

    try:
        if job.device.type == "cuda":
            from engine.execution.cuda import captured

            captured(job_of(job.spec, str(job.device), job.material))  # a job of its own: a capture changes its update
        else:
            Graph(job)
    except Unfit as unfit:
        return str(unfit)
    return ""


EXPERIMENT = Experiment(
    name="anatomy",
    title="Where the time of a step goes",
    measures="the whole step, and beside it its parts: getting a batch, Python and autograd, launching operators, "
    "computing, copying to and from the device, reading values",
    why="a step can be made faster only where its time goes, and by no more than what that part takes; the same setting "
    "that helps a job whose time goes into launches does nothing for one that computes",
    reading="each bar is a part of one step, and together they make the step; on a GPU the bars besides compute and transfers "
    "are what the host did while the device was idle. What they do not add up to is the bar unexplained",
    pictures=(
        Picture(
            title="Parts of a step",
            kind="bars",
            y="seconds",
            series=("device", "part"),
            unit="s",
            y_title="seconds a step",
            where={"kind": "part"},
        ),
    ),
    measure=measure,
    conclude=conclude,
    job=RunSpec(),
)

"""One job's step taken apart: input, host work, launches, device compute, transfers, reads.

The whole is measured without any instrument; the parts are measured beside it, in turn, and what they do not add up to is
shown as unexplained. On the CPU, parts are told apart by the clock and by replaying the step's operators
(:mod:`epochtop.engine.lab.instruments.phases`); on a GPU from a profile of what the device did and what the host did while it was idle
(:mod:`epochtop.engine.lab.instruments.timeline`). The verdict is in :mod:`epochtop.engine.lab.experiments.anatomy.verdict`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Picture, Row
from epochtop.engine.lab.experiments.anatomy.verdict import conclude
from epochtop.engine.lab.instruments.sampling import Case, interleave, threads_kept
from epochtop.engine.protocol.spec import Invalid, RunSpec

if TYPE_CHECKING:
    from epochtop.engine.job.job import Job
    from epochtop.engine.lab.instruments.phases import Call

SAMPLE_S = 0.002
"""How long short steps are taken in a row."""
TURNS, TURNS_S = 8, 0.05
"""A measurement is the fastest of so many such rows, where they last less: one that nothing else on the machine disturbed."""
ROUNDS, QUICK_ROUNDS = 60, 12
OPERATOR_S, MOST_TIMES = 4e-6, 200
"""About what launching takes, to see how many replays last so long; with more of them, what operators change may overflow."""
MOST_PROFILED = 50
"""Steps of a profile: reading it takes longer than taking them."""
LEAST_ROUNDS = 9
"""That whole epochs must leave time for."""


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` job, operators, read (a line of the user's), step (the whole, a round), part and idle (a round each)."""
    taken: dict[str, _Apart] = {}
    job: Job | None = None
    for device in bench.devices:
        bench.check()
        bench.say(f"taking a step on {device} apart")
        from epochtop.engine.lab.instruments.jobs import job_of

        try:
            job = job_of(bench.spec, device, job.workload if job is not None else None)
        except Invalid as error:  # tf32 on the CPU, a model too large for one of them
            if device == bench.devices[-1] and not taken:
                raise
            bench.cannot_see.append(f"the job on {device}: {error}")
            continue
        apart: _Apart = _OnGpu(job, bench) if device.startswith("cuda") else _OnCpu(job, bench)
        if job.device.type in ("cpu", "cuda"):
            taken[device] = apart
            yield from apart.facts()
        else:
            bench.cannot_see.append(f"a step on {device} was not taken apart: its profiler is not read here")
    cases = [case for apart in taken.values() for case in apart.cases()]
    turns = TURNS * (QUICK_ROUNDS if bench.quick else ROUNDS)
    for row in interleave(bench, cases, bench.left_s() * 0.85, turns, turns):
        yield from taken[str(row["device"])].take(row)
    for apart in taken.values():
        yield from apart.left()


class _Apart:
    """A job on one device: its cases, and the parts that follow from what they measure."""

    def __init__(self, job: Job, bench: ExperimentContext) -> None:
        from epochtop.engine.lab.instruments.phases import Steps
        from epochtop.engine.lab.instruments.reads import Reads

        self.job, self.steps = job, Steps(job)
        self.device = str(job.device)
        self._bench = bench
        self._turn: dict[str, float] = {}
        self._turns: list[dict[str, float]] = []
        self._number, self._wanted = 0, 1
        self.inner: dict[str, float] = {}
        """What a case has measured besides its seconds, of one step."""
        self.steps.plain(1)
        self.steps.watched(1)
        self.reads = Reads(bench.spec.task, self.steps.marks)

    def facts(self) -> Iterator[Row]:
        """What is known once: the job, its operators, the lines that read."""
        from epochtop.engine.lab.instruments.phases import operators

        self.found = operators(self.steps, self.reads)
        yield _job_row(self.job)
        yield {"kind": "operators", "device": self.device, "operators": len(self.found.calls)}
        yield from self.reads.rows(self.job.device)

    # --- measuring -----------------------------------------------------------------------------------------------

    def cases(self) -> list[Case]:
        """The whole step, and what tells its parts."""
        workers = self._bench.spec.workers
        self._step_s = self._often(6 * workers) if workers else self._least()
        short = max(_short(self._step_s), 6 * workers)
        times = self._times(short)
        # short steps are slow where something else was done just before, and workers have made batches ready meanwhile
        self._lead = max(2 * workers, short if _short(self._step_s) > 1 else 0)
        turn_s = (2 * (self._lead + times) + short) * self._step_s
        fitting = self._bench.left_s() / len(self._bench.devices) / (LEAST_ROUNDS * turn_s)
        self._wanted = max(1, min(TURNS, round(TURNS_S / (times * self._step_s)), int(fitting)))
        whole = Case({"kind": "step", "device": self.device}, self._plain, most=times, least=times)
        made = [whole, *self.more(times)]
        self._kinds = {str(case.labels["kind"]) for case in made}
        return made

    def more(self, times: int) -> list[Case]:
        """Cases beside the whole, for which so many steps are taken in a row."""
        raise NotImplementedError

    def _least(self, most_s: float = 0.02) -> float:
        """Seconds of a step that nothing else disturbs, about."""
        took = [self.steps.seconds(1)]
        while sum(took) < most_s:
            took.append(self.steps.seconds(1))
        return min(took)

    def _often(self, steps: int) -> float:
        """Seconds of a step where batches come in bursts."""
        self.steps.plain(steps)
        return self.steps.seconds(steps) / steps

    def _times(self, short: int) -> int:
        """Steps in a row: whole epochs where there is time for them, since an epoch begins with work of its own."""
        epoch = self.job.batches.per_epoch
        most_s = self._bench.left_s() / (LEAST_ROUNDS * 4 * len(self._bench.devices))
        return -(-short // epoch) * epoch if epoch * self._step_s <= most_s else short

    def _plain(self, times: int) -> float:
        self.steps.plain(self._lead)
        return self.steps.seconds(times)

    def marked(self, times: int) -> Case:
        """Steps with the phases told apart."""

        def run(times: int) -> float:
            self.steps.watched(self._lead)
            phases = self.steps.marks.measured(lambda: self.steps.watched(times))
            self.inner |= {f"in {name}": took / times for name, took in phases.items()}
            return sum(phases.values())

        return Case({"kind": "marked", "device": self.device}, run, most=times, least=times)

    def replayed(self, kind: str, calls: list[Call], seconds: float) -> Case:
        """Operators alone, all of which take about so long."""
        from epochtop.engine.lab.instruments.phases import replayed

        return Case({"kind": kind, "device": self.device}, replayed(calls, self.job.device), most=_short(seconds))

    def launches(self) -> Case:
        """The operators with nothing to compute."""
        from epochtop.engine.lab.instruments.phases import emptied

        calls = self.found.calls
        return self.replayed("launches", emptied(calls, self.job.device), len(calls) * OPERATOR_S)

    # --- rows ----------------------------------------------------------------------------------------------------

    def take(self, row: Row) -> Iterator[Row]:
        """A measurement of a case; the rows that are known with it."""
        assert isinstance(row["seconds"], float)
        self._turn[str(row["kind"])] = row["seconds"]
        if self._kinds <= self._turn.keys():
            self._turns.append({**self._turn, **self.inner})
            self._turn = {}
            if len(self._turns) >= self._wanted:
                yield from self._rows()

    def left(self) -> Iterator[Row]:
        """At the end, if there was no time for one whole round."""
        if not self._number and self._turns:
            yield from self._rows()

    def _rows(self) -> Iterator[Row]:
        of = {name: min(turn[name] for turn in self._turns) for name in self._turns[0]}
        labels: Row = {"device": self.device, "round": self._number}
        parts = self.parts(of)
        yield {"kind": "step", **labels, "seconds": of["step"]}
        yield {"kind": "launches", **labels, "seconds": of["launches"]}
        for part, took in {**parts, "unexplained": of["step"] - sum(parts.values())}.items():
            yield {"kind": "part", **labels, "part": part, "seconds": took}
        if (idle_s := self.idle_s(of["step"], parts)) is not None:
            yield {"kind": "idle", **labels, "seconds": idle_s}
        self._turns, self._number = [], self._number + 1

    def parts(self, of: dict[str, float]) -> dict[str, float]:
        """Seconds of each part from what was measured in a round."""
        raise NotImplementedError

    def idle_s(self, step_s: float, parts: dict[str, float]) -> float | None:
        """Of that step, while the device had nothing to do: in other parts already. None where the host is the device."""
        raise NotImplementedError


class _OnCpu(_Apart):
    """Where the host is the device: every moment is one thing, and operators can be done without the rest."""

    def more(self, times: int) -> list[Case]:
        calls, reading = self.found.calls, self.found.reading
        return [
            self.marked(times),
            self.replayed("operators", calls, self._step_s),
            self.launches(),
            self.replayed("reading", reading, len(reading) * OPERATOR_S),
        ]

    def parts(self, of: dict[str, float]) -> dict[str, float]:
        return {
            "input": of["in input"],
            "host": of["in work"] - of["operators"] - of["reading"],
            "launches": of["launches"],
            "compute": of["operators"] - of["launches"],
            "reads": of["in read"] + of["reading"],
        }

    def idle_s(self, step_s: float, parts: dict[str, float]) -> float | None:
        return None


class _OnGpu(_Apart):
    """Where the device works by itself: what it does is profiled, and what of the host's time that covers."""

    def facts(self) -> Iterator[Row]:
        from epochtop.engine.lab.instruments.timeline import profile

        yield from super().facts()
        profile(self.steps, 2)
        yield {"kind": "kernels", "device": self.device, "kernels": profile(self.steps, 4).kernels / 4}

    def more(self, times: int) -> list[Case]:
        self._wanted = 1  # of several rows the fastest parts need not belong together
        profiled = Case({"kind": "profile", "device": self.device}, self._profiled, most=min(times, MOST_PROFILED))
        return [self.marked(times), self.launches(), profiled]

    def _profiled(self, times: int) -> float:
        from epochtop.engine.lab.instruments.timeline import profile, shares

        self.steps.plain(max(1, self._lead))
        found = shares(profile(self.steps, times).events)
        sides = (("device", found.device), ("idle", found.idle), ("covered", found.covered))
        self.inner |= {f"{side} {name}": took / times for side, those in sides for name, took in those.items()}
        return sum(found.device.values())

    def parts(self, of: dict[str, float]) -> dict[str, float]:
        from epochtop.engine.lab.instruments.timeline import Shares, exposed

        def side(name: str) -> dict[str, float]:
            return {key.removeprefix(f"{name} "): took for key, took in of.items() if key.startswith(f"{name} ")}

        found = Shares(side("device"), side("idle"), side("covered"))
        return exposed(found, of["in input"], of["in read"], of["in work"], of["launches"])

    def idle_s(self, step_s: float, parts: dict[str, float]) -> float | None:
        from epochtop.engine.lab.instruments.timeline import idle_s

        return idle_s(step_s, parts)


def _short(seconds: float) -> int:
    """Times in a row, where one takes so long."""
    return max(1, min(MOST_TIMES, round(SAMPLE_S / max(seconds, 1e-9))))


def _job_row(job: Job) -> Row:
    import torch

    from epochtop.engine.hardware import usable_cpus

    rows = len(job.workload.train)  # type: ignore[arg-type]
    return {
        "kind": "job",
        "device": str(job.device),
        "batches": type(job.batches).__name__.lower(),
        "rows": rows,
        "batch": min(job.spec.batch_size or rows, rows),
        "threads": torch.get_num_threads(),
        "cpus": usable_cpus(),
        "unfit": _unfit(job),
        "bf16": int(job.device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)),
    }


def _unfit(job: Job) -> str:
    """Why the job's steps cannot become a graph; empty if they can."""
    from epochtop.engine.execution.c import build
    from epochtop.engine.execution.c.graph import CGraph
    from epochtop.engine.execution.executor import Unsupported
    from epochtop.engine.lab.instruments.jobs import job_of

    try:
        if job.device.type == "cuda":
            from epochtop.engine.execution.cuda_graph import captured

            captured(job_of(job.spec, str(job.device), job.workload))  # a job of its own: a capture changes its update
        else:
            CGraph(job)
            build.compiler()
    except Unsupported as unfit:
        return str(unfit)
    return ""


EXPERIMENT = Experiment(
    name="anatomy",
    title="Where the time of a step goes",
    measures="the whole step, and beside it its parts: getting a batch, Python and autograd, launching operators, "
    "computing, copying to and from the device, reading values; of a GPU also how much of the step it is idle",
    why="a step can be made faster only where its time goes, and by no more than what that part takes; the same setting "
    "that helps a job whose time goes into launches does nothing for one that computes",
    reading="each bar is a part of one step, and together they make the step; on a GPU the bars besides compute and transfers "
    "are what the host did while the device was idle, which the evidence sums up. What they do not add up to is the bar unexplained",
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

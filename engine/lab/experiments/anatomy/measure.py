"""Measures a step and its parts on every device, in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch

from epochtop.engine.execution.c import build
from epochtop.engine.execution.c.graph import CGraph
from epochtop.engine.execution.cuda_graph import captured
from epochtop.engine.execution.executor import Unsupported
from epochtop.engine.hardware import usable_cpus
from epochtop.engine.job.job import Job
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.anatomy.schema import (
    IdleTime,
    JobFacts,
    Kernels,
    LaunchTime,
    LineRead,
    Operators,
    PartTime,
    StepTime,
)
from epochtop.engine.lab.instruments import timeline
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.phases import OperatorCall, Steps, on_one_element, record_operators, replayed
from epochtop.engine.lab.instruments.reads import Reads
from epochtop.engine.lab.instruments.sampling import Case, interleave, restores_threads
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.step.batches import FullBatch, LoaderBatches, ResidentBatches, StreamedBatches

SAMPLE_S = 0.002
"""Length of a row of short steps."""
TURNS, TURNS_S = 8, 0.05
"""A measurement is the fastest of this many rows of steps, if they are shorter than this: the least disturbed one."""
ROUNDS, QUICK_ROUNDS = 60, 12
OPERATOR_S, MOST_TIMES = 4e-6, 200
"""About the cost of a launch, and most replays in a row: with more, in-place operators may overflow."""
MOST_PROFILED = 50
"""Steps of a profile: reading it takes longer than running them."""
LEAST_ROUNDS = 9
"""Rounds for which whole epochs must leave time."""
BATCHES = {FullBatch: "whole", ResidentBatches: "resident", StreamedBatches: "streamed", LoaderBatches: "loaded"}

Seconds = dict[str, float]
"""Seconds of one step by case, by phase (`in input`), and by side and activity of a profile (`idle waits`)."""


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `job`, `operators`, `kernels`, `read`, and per round `step`, `launches`, `part` and `idle`."""
    anatomies: dict[str, DeviceAnatomy] = {}
    job: Job | None = None
    for device in context.devices:
        context.check()
        context.note(f"splitting a step on {device} into its parts")
        try:
            job = job_of(context.spec, device, job.workload if job is not None else None)
        except Invalid as error:  # tf32 on the CPU, or a model too large for one of the devices
            if device == context.devices[-1] and not anatomies:
                raise
            context.cannot_see.append(f"the job on {device}: {error}")
            continue
        if job.device.type not in ("cpu", "cuda"):
            context.cannot_see.append(f"the parts of a step on {device}: there is no profiler for it here")
            continue
        anatomies[device] = DeviceAnatomy(job, context, on_gpu=device.startswith("cuda"))
        yield from anatomies[device].facts()
    cases = [case for anatomy in anatomies.values() for case in anatomy.cases()]
    turns = TURNS * (QUICK_ROUNDS if context.quick else ROUNDS)
    for timing in interleave(context, cases, context.left_s() * 0.85, turns, turns):
        yield from anatomies[timing.device].rows(timing)
    for anatomy in anatomies.values():
        yield from anatomy.remaining_rows()


@dataclass(frozen=True)
class Timing:
    """A measurement of one case."""

    device: str
    case: str
    seconds: float


def _timing(device: str, case: str, *, seconds: float, **_: Any) -> Timing:
    return Timing(device, case, seconds)


class Rounds:
    """Collects measurements into rounds. A round has the fastest of several turns; a turn measures every case once."""

    def __init__(self, cases: int, turns: int) -> None:
        self._cases, self._turns_per_round = cases, turns
        self._turn: Seconds = {}
        self._turns: list[Seconds] = []
        self.completed = 0
        """Number of rounds so far."""

    def add(self, timing: Timing, inner: Seconds) -> Seconds | None:
        """Add a measurement. Returns the seconds of a round if that completes one; `inner` joins a complete turn."""
        self._turn[timing.case] = timing.seconds
        if len(self._turn) < self._cases:
            return None
        self._turns.append({**self._turn, **inner})
        self._turn = {}
        return self._round() if len(self._turns) >= self._turns_per_round else None

    def unfinished(self) -> Seconds | None:
        """The first round, from the turns so far, if there was no time to complete it."""
        return self._round() if not self.completed and self._turns else None

    def _round(self) -> Seconds:
        fastest = {name: min(turn[name] for turn in self._turns) for name in self._turns[0]}
        self._turns, self.completed = [], self.completed + 1
        return fastest


class Probe:
    """The cases of one job, for measurements of the length that `set_pace` chooses."""

    def __init__(self, job: Job, context: ExperimentContext) -> None:
        self.job, self.steps, self.context = job, Steps(job), context
        self.device = str(job.device)
        self.inner: Seconds = {}
        """What a case measured besides its total, for one step."""
        self.steps.run(1)
        self.steps.run_timed(1)
        self.reads = Reads(context.spec.task, self.steps.clock)
        self.operators = record_operators(self.steps, self.reads)

    def set_pace(self) -> int:
        """Choose the number of steps in a row. Returns the turns of a round that there is time for."""
        workers = self.context.spec.workers
        self.step_s = self._burst_step_s(6 * workers) if workers else self._least_step_s()
        short = max(_repeats(self.step_s), 6 * workers)
        self.times = self._whole_epochs(short)
        # short steps are slow directly after other work, and workers have prepared batches in the meantime
        self.lead = max(2 * workers, short if _repeats(self.step_s) > 1 else 0)
        turn_s = (2 * (self.lead + self.times) + short) * self.step_s
        fitting = self.context.left_s() / len(self.context.devices) / (LEAST_ROUNDS * turn_s)
        return max(1, min(TURNS, round(TURNS_S / (self.times * self.step_s)), int(fitting)))

    def _least_step_s(self, total_s: float = 0.02) -> float:
        """About the seconds of an undisturbed step."""
        seconds = [self.steps.seconds(1)]
        while sum(seconds) < total_s:
            seconds.append(self.steps.seconds(1))
        return min(seconds)

    def _burst_step_s(self, steps: int) -> float:
        """Seconds of a step if batches come in bursts."""
        self.steps.run(steps)
        return self.steps.seconds(steps) / steps

    def _whole_epochs(self, short: int) -> int:
        """Steps in a row: whole epochs if there is time for them, since an epoch starts with extra work."""
        epoch = self.job.batches.per_epoch
        most_s = self.context.left_s() / (LEAST_ROUNDS * 4 * len(self.context.devices))
        return -(-short // epoch) * epoch if epoch * self.step_s <= most_s else short

    def step(self) -> Case[Timing]:
        """The whole step, without instruments."""

        def run(times: int) -> float:
            self.steps.run(self.lead)
            return self.steps.seconds(times)

        return Case(partial(_timing, self.device, "step"), run, most=self.times, least=self.times)

    def phases(self) -> Case[Timing]:
        """Steps with the clock of phases."""

        def run(times: int) -> float:
            self.steps.run_timed(self.lead)
            phases = self.steps.clock.measure(lambda: self.steps.run_timed(times))
            self.inner |= {f"in {name}": total / times for name, total in phases.items()}
            return sum(phases.values())

        return Case(partial(_timing, self.device, "marked"), run, most=self.times, least=self.times)

    def replay(self, case: str, calls: list[OperatorCall], seconds: float) -> Case[Timing]:
        """Operators alone; all of them take about `seconds`."""
        run = replayed(calls, self.job.device)
        return Case(partial(_timing, self.device, case), run, most=_repeats(seconds))

    def launches(self) -> Case[Timing]:
        """The operators with nothing to compute."""
        calls = self.operators.calls
        return self.replay("launches", on_one_element(calls, self.job.device), len(calls) * OPERATOR_S)


@final
class CpuParts:
    """Parts where the host is the device: every moment is one part, and operators can run alone."""

    most_turns = TURNS

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def facts(self) -> Iterator[Measurement]:
        """No further rows."""
        yield from ()

    def cases(self) -> list[Case[Timing]]:
        """The cases besides the whole step."""
        probe = self._probe
        calls, reading = probe.operators.calls, probe.operators.reading
        return [
            probe.phases(),
            probe.replay("operators", calls, probe.step_s),
            probe.launches(),
            probe.replay("reading", reading, len(reading) * OPERATOR_S),
        ]

    def parts(self, seconds: Seconds) -> Seconds:
        """The parts from the measurements of a round."""
        return {
            "input": seconds["in input"],
            "host": seconds["in work"] - seconds["operators"] - seconds["reading"],
            "launches": seconds["launches"],
            "compute": seconds["operators"] - seconds["launches"],
            "reads": seconds["in read"] + seconds["reading"],
        }

    def idle_s(self, step_s: float, parts: Seconds) -> float | None:
        """None: there is no device apart from the host."""
        return None


@final
class GpuParts:
    """Parts where the device works on its own: its work is profiled, and how much of the host's time it covers."""

    most_turns = 1  # the fastest parts of several turns need not belong together

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def facts(self) -> Iterator[Measurement]:
        """The number of kernels."""
        timeline.profile(self._probe.steps, 2)
        kernels = timeline.profile(self._probe.steps, 4).kernels / 4
        yield Kernels(device=self._probe.device, kernels=kernels)

    def cases(self) -> list[Case[Timing]]:
        """The cases besides the whole step."""
        probe = self._probe
        record = partial(_timing, probe.device, "profile")
        return [probe.phases(), probe.launches(), Case(record, self._profile, most=min(probe.times, MOST_PROFILED))]

    def _profile(self, times: int) -> float:
        probe = self._probe
        probe.steps.run(max(1, probe.lead))
        shares = timeline.shares(timeline.profile(probe.steps, times).events)
        sides = (("device", shares.device), ("idle", shares.idle), ("covered", shares.covered))
        for side, activities in sides:
            probe.inner |= {f"{side} {name}": total / times for name, total in activities.items()}
        return sum(shares.device.values())

    def parts(self, seconds: Seconds) -> Seconds:
        """The parts from the measurements of a round."""

        def side(name: str) -> Seconds:
            prefix = f"{name} "
            return {key.removeprefix(prefix): value for key, value in seconds.items() if key.startswith(prefix)}

        shares = timeline.Shares(side("device"), side("idle"), side("covered"))
        return timeline.exposed(
            shares, seconds["in input"], seconds["in read"], seconds["in work"], seconds["launches"]
        )

    def idle_s(self, step_s: float, parts: Seconds) -> float | None:
        """Seconds of the step in which the device had nothing to do."""
        return timeline.idle_s(step_s, parts)


class DeviceAnatomy:
    """The measurement of a job on one device."""

    def __init__(self, job: Job, context: ExperimentContext, on_gpu: bool) -> None:
        self._probe = Probe(job, context)
        self._parts: CpuParts | GpuParts = GpuParts(self._probe) if on_gpu else CpuParts(self._probe)

    def facts(self) -> Iterator[Measurement]:
        """The job, its operators, and the lines that read."""
        probe = self._probe
        yield _job_facts(probe.job)
        yield Operators(device=probe.device, operators=len(probe.operators.calls))
        for (place, function, source), count in probe.reads.lines.items():
            yield LineRead(device=probe.device, place=place, function=function, source=source, reads=count)
        yield from self._parts.facts()

    def cases(self) -> list[Case[Timing]]:
        """The whole step, and the cases for its parts."""
        turns = min(self._parts.most_turns, self._probe.set_pace())
        cases = [self._probe.step(), *self._parts.cases()]
        self._rounds = Rounds(len(cases), turns)
        return cases

    def rows(self, timing: Timing) -> Iterator[Measurement]:
        """The rows of a round if this measurement completes it."""
        seconds = self._rounds.add(timing, self._probe.inner)
        if seconds is not None:
            yield from self._round(seconds)

    def remaining_rows(self) -> Iterator[Measurement]:
        """The rows of the first round if there was no time to complete it."""
        seconds = self._rounds.unfinished()
        if seconds is not None:
            yield from self._round(seconds)

    def _round(self, seconds: Seconds) -> Iterator[Measurement]:
        device, turn, step_s = self._probe.device, self._rounds.completed - 1, seconds["step"]
        parts = self._parts.parts(seconds)
        yield StepTime(device=device, round=turn, seconds=step_s)
        yield LaunchTime(device=device, round=turn, seconds=seconds["launches"])
        for part, part_s in {**parts, "unexplained": step_s - sum(parts.values())}.items():
            yield PartTime(device=device, round=turn, part=part, seconds=part_s)
        if (idle_s := self._parts.idle_s(step_s, parts)) is not None:
            yield IdleTime(device=device, round=turn, seconds=idle_s)


def _repeats(seconds: float) -> int:
    """Repeats in a row of work that takes `seconds`."""
    return max(1, min(MOST_TIMES, round(SAMPLE_S / max(seconds, 1e-9))))


def _job_facts(job: Job) -> JobFacts:
    rows = len(job.workload.train)  # type: ignore[arg-type]
    return JobFacts(
        device=str(job.device),
        batches=next(name for kind, name in BATCHES.items() if isinstance(job.batches, kind)),
        rows=rows,
        batch=min(job.spec.batch_size or rows, rows),
        threads=torch.get_num_threads(),
        cpus=usable_cpus(),
        unfit=_unfit(job),
        bf16=int(job.device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)),
    )


def _unfit(job: Job) -> str:
    """Why the job's steps cannot become a graph; empty if they can."""
    try:
        if job.device.type == "cuda":
            captured(job_of(job.spec, str(job.device), job.workload))  # a new job: a capture changes its update
        else:
            CGraph(job)
            build.compiler()
    except Unsupported as unfit:
        return str(unfit)
    return ""

"""Measures steps with and without torch.profiler in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from time import perf_counter

from epochtop.engine.job.job import Job
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.profile.schema import OTHERS, GapTime, LaneSpan, OperatorTime, StepTime, TraceFile
from epochtop.engine.lab.instruments.clocks import repeated
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.profiler import StepTrace, trace
from epochtop.engine.lab.instruments.sampling import restores_threads
from epochtop.engine.lab.measurements import Measurement

ROUNDS = 15
STEPS = 20
"""Most steps in a measurement: a longer trace is slow to read."""
SAMPLE_S = 0.1
LISTED = 20
"""Operators with rows of their own; the others share one row."""
TRACE = "trace.json"


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `operator`, `step` (with and without the profiler), `gap`, `span` (of one step) and `trace`."""
    device = context.devices[-1]
    context.note(f"building the job on {device}")
    job = job_of(context.spec, device)
    timed = repeated(job.device, job.step)
    timed(1)
    steps = max(1, min(STEPS, round(SAMPLE_S / timed(1))))
    context.note("starting the profiler")
    trace(job, 1)
    names: list[str] = []
    round_s = 0.0
    for turn in range(ROUNDS):
        context.check()
        start = perf_counter()
        if turn and context.left_s() < round_s:
            return
        plain_s = timed(steps) / steps if turn % 2 else 0.0
        traced = trace(job, steps, None if turn else context.folder / TRACE)
        plain_s = plain_s or timed(steps) / steps
        names = names or [operator.name for operator in traced.operators[:LISTED]]
        yield from _step_rows(job, traced, turn, steps, plain_s)
        yield from _operator_rows(job, traced, names, turn)
        if not turn:
            yield from _first_round_rows(context, traced, steps)
        round_s = perf_counter() - start


def _step_rows(job: Job, traced: StepTrace, turn: int, steps: int, plain_s: float) -> Iterator[Measurement]:
    device = str(job.device)
    step = partial(StepTime, device=device, round=turn, repeats=steps)
    yield step(profiler="without", own=1, seconds=plain_s)
    yield step(profiler="with", own=0, seconds=traced.seconds)
    yield GapTime(device=device, round=turn, seconds=traced.idle_s, share=100 * traced.idle_s / traced.length_s)


def _operator_rows(job: Job, traced: StepTrace, names: Sequence[str], turn: int) -> Iterator[OperatorTime]:
    totals = {operator.name: (operator.calls, operator.seconds) for operator in traced.operators}
    others = [totals[name] for name in totals if name not in names]
    listed = {name: totals[name] for name in names if name in totals}
    if others:
        listed[OTHERS] = (sum(calls for calls, _ in others), sum(seconds for _, seconds in others))
    for name, (calls, seconds) in listed.items():
        yield OperatorTime(
            device=str(job.device),
            round=turn,
            operator=name,
            calls=calls,
            seconds=seconds,
            share=100 * seconds / traced.length_s,
        )


def _first_round_rows(context: ExperimentContext, traced: StepTrace, steps: int) -> Iterator[Measurement]:
    """One step as a timeline, and the file of the trace."""
    for span in traced.spans:
        yield LaneSpan(lane=span.lane, start=span.start, end=span.end)
    file = context.folder / TRACE
    yield TraceFile(path=str(file), steps=steps, bytes=file.stat().st_size)

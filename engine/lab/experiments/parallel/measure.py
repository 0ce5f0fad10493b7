"""Measures a step of the same rows by one process, several processes, threads, and DataParallel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import msgspec
import torch

from epochtop.engine.hardware import usable_cpus
from epochtop.engine.job.job import Job
from epochtop.engine.job.workload import Workload, load_workload
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.parallel.ranks import RankGroup, rank_group
from epochtop.engine.lab.experiments.parallel.schema import (
    DATA_PARALLEL,
    PROCESSES,
    THREADS,
    Fields,
    StepTime,
    speed_ups,
)
from epochtop.engine.lab.instruments.clocks import elapsed
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.sampling import Case, Run, interleave, restores_threads
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.step import make_step

LEAST_S = 1.0
"""Time for each number of processes, even if starting them took all of it."""
ROUND_OFFSET = 1000
"""Offset of the rounds of each number of processes: different numbers are not measured together."""
SETTLING_STEPS = 3
"""Steps after a change of the number of threads, before the clock starts."""


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `step`, by way and parts, and `speed_up`, one for each of them per round."""
    device = _device(context)
    spec = msgspec.structs.replace(
        context.spec, device=device, threads=1, accumulate=1, shard=False, schedule="constant", warmup=0
    )
    if context.quick:
        context.cannot_see.append("threads, DataParallel, and more than 2 processes: there was no time for them")
    workload = load_workload(spec)
    counts = _counts(context, device, len(workload.train))  # type: ignore[arg-type]
    start_s = 0.0
    for number, count in enumerate(counts):
        context.check()
        if number and context.left_s() < start_s:
            context.cannot_see.append(f"{count} processes or more: starting them takes {start_s:.0f} s each time")
            return
        context.note(f"starting {count} processes on {device}")
        workload = load_workload(spec) if spec.task else workload  # only one job may train a task's model
        left_s = context.left_s()
        with rank_group(_share(spec, count), workload) as ranks:
            start_s = left_s - context.left_s()
            cases = _cases(spec, workload, ranks, device, count)[: 2 if context.quick else None]
            more = len(counts) - number - 1
            least_s = max(LEAST_S, context.budget_s / 2 / len(counts))
            seconds = max((context.left_s() - more * start_s) / (more + 1), least_s)
            yield from _with_speed_ups(interleave(context.with_time(least_s), cases, seconds=seconds))


def _device(context: ExperimentContext) -> str:
    """`cuda` if there are several GPUs, else the CPU."""
    kind = context.devices[-1].partition(":")[0]
    gpus = torch.cuda.device_count() if kind == "cuda" else 0
    if gpus > 1:
        return "cuda"
    context.cannot_see.append(
        f"several GPUs, and DataParallel on them: there is {'only one GPU' if gpus else 'no CUDA GPU in use'}; processes "
        "were measured on the CPU"
    )
    return "cpu"


def _counts(context: ExperimentContext, device: str, rows: int) -> list[int]:
    assert isinstance(context.fields, Fields)
    places = torch.cuda.device_count() if device == "cuda" else usable_cpus()
    if places < 2:
        context.cannot_see.append("processes with a CPU each: there is one usable CPU, which they shared")
    most = max(2, min(context.fields.most_processes, places, rows))
    return [2] if context.quick else list(range(2, most + 1))


def _share(spec: RunSpec, count: int) -> RunSpec:
    """The spec with which `count` processes together use the rows that one process uses with `spec`."""
    batch_size = max(1, spec.batch_size // count) if spec.batch_size else 0
    return msgspec.structs.replace(spec, processes=count, batch_size=batch_size)


def _cases(spec: RunSpec, workload: Workload, ranks: RankGroup, device: str, count: int) -> list[Case[StepTime]]:
    training_rows = len(workload.train)  # type: ignore[arg-type]
    rows = min(spec.batch_size, training_rows) if spec.batch_size else training_rows
    rank_batch = ranks.job.spec.batch_size
    rank_rows = min(rank_batch * count, training_rows) if rank_batch else training_rows

    def case(way: str, parts: int, rows: int, run: Run) -> Case[StepTime]:
        labels = partial(StepTime, device=device, way=way, parts=parts, rows=rows, own=int(parts == 1))
        return Case(partial(_with_offset, labels, count), run)

    alone = job_of(spec, device, workload)
    cases = [
        case(PROCESSES, 1, rows, _on_threads(alone, 1)),
        case(PROCESSES, count, rank_rows, ranks.run),
    ]
    other = job_of(spec, device, workload)
    if device == "cpu":
        return [*cases, case(THREADS, count, rows, _on_threads(other, count))]
    return [*cases, case(DATA_PARALLEL, count, rows, _data_parallel(other, count))]


def _with_offset(labels: partial[StepTime], count: int, *, round: int, repeats: int, seconds: float) -> StepTime:  # noqa: A002
    return labels(round=count * ROUND_OFFSET + round, repeats=repeats, seconds=seconds)


def _on_threads(job: Job, threads: int) -> Run:
    """Steps of one process on `threads` threads."""
    timed = elapsed(job.device, job.step)

    def run(times: int) -> float:
        torch.set_num_threads(threads)
        timed(SETTLING_STEPS if threads > 1 else 0)
        seconds = timed(times)
        torch.set_num_threads(1)
        return seconds

    return run


def _data_parallel(job: Job, count: int) -> Run:
    """Steps of one process that copies the model to every GPU in each step."""
    model = torch.nn.DataParallel(job.model, device_ids=list(range(count)))
    return elapsed(job.device, make_step(replace(job.parts, model=model)))


def _with_speed_ups(steps: Iterator[StepTime]) -> Iterator[Measurement]:
    """The steps, and after each round its speed-ups."""
    turn: list[StepTime] = []
    for step in steps:
        if turn and turn[0].round != step.round:
            yield from speed_ups(turn)
            turn = []
        turn.append(step)
        yield step
    yield from speed_ups(turn)

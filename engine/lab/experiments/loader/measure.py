"""Measures batches and training steps with each source of rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import msgspec

from epochtop.engine.data.dataset import Rows
from epochtop.engine.hardware import usable_cpus
from epochtop.engine.job.job import Job
from epochtop.engine.job.workload import load_workload
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.loader import sources
from epochtop.engine.lab.experiments.loader.schema import BatchTime, Fields, JobFacts, StartTime, StepTime
from epochtop.engine.lab.experiments.loader.sources import NextBatch, Source
from epochtop.engine.lab.instruments.clocks import elapsed, repeated, wait_for
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.sampling import Case, Run, interleave, restores_threads
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.step.batches import LoaderBatches, StreamedBatches
from epochtop.engine.step.step import make_step

SLOW = 0.01
"""Fraction of the budget from which a batch is too slow to try every source."""

ROUND_OFFSET = 1000
"""Offset of the rounds with workers. Starting workers takes most of a round, so half of the time is for rounds without."""

LoaderCase = Case[StepTime | BatchTime]
Start = Callable[..., StartTime]
"""A start of workers, without its round."""


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `job` (its source now), `batch` (alone), `step` (fed by a source) and `start` (of workers)."""
    context.note("building the job")
    workload = load_workload(context.spec)
    rows = len(workload.train)  # type: ignore[arg-type]
    if not 0 < context.spec.batch_size < rows:
        raise Invalid(
            "batch_size", f"all {rows:,} rows are one batch, which stays on the device; set 1 to {rows - 1:,}"
        )
    steps: list[tuple[Source, LoaderCase]] = []
    batches: list[tuple[Source, LoaderCase]] = []
    starts: list[Start] = []
    for device in _devices(context):
        job = job_of(context.spec, device, workload, accumulate=1)
        yield _job_facts(job)
        of_device = _cases(context, job, starts)
        steps += of_device[0]
        batches += of_device[1]
    cases = [*steps, *batches]
    in_process = [case for source, case in steps if not source.workers]
    context = context.after_setup()
    if len(in_process) < len(cases):
        yield from interleave(context, in_process, context.left_s() / 2)
    for row in interleave(context, [case for _, case in cases]):
        with_workers = msgspec.structs.replace(row, round=ROUND_OFFSET + row.round)
        yield with_workers
        yield from (start(round=with_workers.round) for start in starts)
        starts.clear()


def _devices(context: ExperimentContext) -> tuple[str, ...]:
    if context.quick and len(context.devices) > 1:
        context.cannot_see.append(f"devices other than {context.devices[-1]}: there was no time for them")
        return context.devices[-1:]
    return context.devices


def _job_facts(job: Job) -> JobFacts:
    """The source that the job uses, and the field of a run that changes it."""
    batches = job.batches
    if isinstance(batches, LoaderBatches):
        name, field = sources.loader_name(job.spec.workers, job.device.type == "cuda"), "workers"
    else:
        name, field = "streamed" if isinstance(batches, StreamedBatches) else "resident", "placement"
    return JobFacts(device=str(job.device), way=name, batches=batches.per_epoch, sets=field)


def _cases(
    context: ExperimentContext, job: Job, starts: list[Start]
) -> tuple[list[tuple[Source, LoaderCase]], list[tuple[Source, LoaderCase]]]:
    """Steps fed by each source, and batches alone."""
    slow = _batch_s(sources.loader(job, 0, False)) > SLOW * context.budget_s
    if slow:
        context.cannot_see.append("most numbers of workers: batches take too long to try all of them")
    pins = (False, True) if job.device.type == "cuda" else (False,)
    loaders = [sources.loader(job, count, pin) for count in _worker_counts(context, job, slow) for pin in pins]
    engine = sources.engine_sources(job)
    names = {source.name for source in engine}
    if "streamed" in names and "resident" not in names:
        context.cannot_see.append(f"rows kept on {job.device}: they do not fit its free memory")
    seldom = slow or context.quick  # starting workers once more in every round would leave time for few rounds
    fed = (sources.same_batch(job), *engine, *loaders)
    alone = [] if slow else [source for source in (*engine, *loaders) if not (seldom and source.workers)]
    steps = [(source, _step(job, source, starts if seldom else [])) for source in fed]
    return steps, [(source, _batch(job, source, starts)) for source in alone]


def _batch_s(source: Source) -> float:
    with source.open() as next_batch:
        next_batch()
        start = perf_counter()
        next_batch()
        return perf_counter() - start


def _worker_counts(context: ExperimentContext, job: Job, slow: bool) -> list[int]:
    assert isinstance(context.fields, Fields)
    most = min(context.fields.most_workers, usable_cpus())
    counts = {0, most} if slow or context.quick else set(range(most + 1))
    return sorted(counts if isinstance(job.workload.train, Rows) else counts | {job.spec.workers})


def _step(job: Job, source: Source, starts: list[Start]) -> LoaderCase:
    """A training step fed by the source, with the wait for its rows."""
    waits = Waits()

    def work(next_batch: Any) -> Callable[[], object]:
        batches = waits.clocked(next_batch) if job.device.type == "cpu" else next_batch
        return make_step(replace(job.parts, batches=batches))

    def record(**measured: Any) -> StepTime:
        return StepTime(**_labels(job, source), **measured, wait_s=waits.of_a_step(bursts=bool(source.workers)))

    return Case(record, _run(job, source, work, starts, waits))


class Waits:
    """How long a step waits for its rows: the times from asking for a batch to having it."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def clocked(self, next_batch: NextBatch) -> Any:
        """The same source. Every batch of it is timed."""

        def batch() -> Any:
            start = perf_counter()
            rows = next_batch()
            self._seconds.append(perf_counter() - start)
            return rows

        return batch

    def clear(self) -> None:
        """Forget the waits so far."""
        self._seconds.clear()

    def of_a_step(self, bursts: bool) -> float | None:
        """The median, which interrupted waits do not change, or the mean of batches that come in bursts; None if unknown."""
        if not self._seconds:
            return None
        return statistics.fmean(self._seconds) if bursts else statistics.median(self._seconds)


def _batch(job: Job, source: Source, starts: list[Start]) -> LoaderCase:
    """A batch on the device, without a step."""
    return Case(partial(BatchTime, **_labels(job, source)), _run(job, source, lambda next_batch: next_batch, starts))


def _labels(job: Job, source: Source) -> dict[str, Any]:
    return {
        "device": str(job.device),
        "way": source.name,
        "workers": source.workers,
        "pinned": None if source.pinned is None else int(source.pinned),
        "own": int(source.name == _job_facts(job).way),
    }


def _run(
    job: Job,
    source: Source,
    work: Callable[[NextBatch], Callable[[], object]],
    starts: list[Start],
    waits: Waits | None = None,
) -> Run:
    """A run of the work with the source. The start of workers goes to `starts`."""

    def run(times: int) -> float:
        opening = perf_counter()
        with source.open() as next_batch:
            once = work(next_batch)
            once()
            wait_for(job.device)
            start_s = perf_counter() - opening
            elapsed(job.device, once)(source.ahead)
            if waits is not None:
                waits.clear()
            clock = elapsed if source.workers else repeated  # workers deliver in bursts, so only the mean counts
            seconds = clock(job.device, once)(times)
            closing = perf_counter()
        if source.workers:
            starts.append(partial(StartTime, **_labels(job, source), seconds=start_s + perf_counter() - closing))
        return seconds

    return run

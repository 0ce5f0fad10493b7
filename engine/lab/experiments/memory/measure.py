"""Measures peak memory for batches of growing size, and the memory held around a job."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from functools import partial

import torch

from epochtop.engine.device.footprint import resident_bytes
from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.device.peak import release
from epochtop.engine.device.select import free_bytes
from epochtop.engine.job.job import Job
from epochtop.engine.job.workload import Workload
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.memory.schema import Check, Held, JobFacts, LeftOut, Peak
from epochtop.engine.lab.experiments.memory.verdict import largest_batch, line
from epochtop.engine.lab.instruments.allocation import peak_bytes, peak_is_seen
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.sampling import restores_threads
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.lab.statistics import fit
from epochtop.engine.protocol.spec import Invalid

SIZES = 7
"""Batches in the fit, each half of the next; the largest is half of all rows."""
QUICK_SIZES = 5
LEAST = 2
"""Rows of the smallest batch: batch norm cannot normalize a single row."""
ROUNDS = 3


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `job`, `peak` (a batch), `check` (not in the fit), `left_out` and `held`."""
    devices = [device for device in map(torch.device, context.devices) if peak_is_seen(context, device)]
    if not devices:
        raise Invalid("device", f"{context.cannot_see[-1]}; use cpu")
    for device in devices:
        yield from _on_device(context, device)


def _on_device(context: ExperimentContext, device: torch.device) -> Iterator[Measurement]:
    name = str(device)
    context.note(f"building the job on {name}")
    first = job_of(context.spec, name, batch_size=LEAST, accumulate=1)
    workload, rows = first.workload, first.plan.rows
    first.step()
    del first
    free = free_bytes(device, exact=True)
    yield JobFacts(device=name, rows=rows, free_bytes=free)
    trials = _Trials(context, device, workload)
    halvings = range(1, (QUICK_SIZES if context.quick else SIZES) + 1)
    for size in sorted({max(LEAST, rows >> halving) for halving in halvings}):
        yield trials.run(Peak, size, 0)
    check = _check_size(trials.rows, rows, free)
    if check is not None:
        yield trials.run(Check, check, 0)
    for turn in range(1, 1 if context.quick else ROUNDS):
        for row in list(trials.rows):
            if row.round == 0 and context.left_s() > 0:
                yield trials.run(type(row), row.batch, turn)
    largest = max((row.batch for row in trials.rows), default=LEAST)
    yield from _held(context, device, workload, largest)


def _check_size(peaks: list[Peak | Check], rows: int, free: int | None) -> int | None:
    """The largest batch that should fit, but not all rows: a full batch is used in place, without a copy."""
    fitted, most = line(peaks), rows - rows // 8
    if fitted is None:
        return None
    fitting = largest_batch(fitted, free)
    size = most if fitting is None else min(most, fitting)
    return size if size >= LEAST and size not in {row.batch for row in peaks} else None


class _Trials:
    """Tries batch sizes one after the other, as long as they fit into memory and time."""

    def __init__(self, context: ExperimentContext, device: torch.device, workload: Workload) -> None:
        self._context, self._device, self._workload = context, device, workload
        self._times: list[tuple[int, float]] = []
        self.rows: list[Peak | Check] = []

    def run(self, kind: type[Peak | Check], size: int, turn: int) -> Peak | Check | LeftOut:
        """The peak of a batch size, or the reason why it was not measured."""
        self._context.check()
        left_out = partial(LeftOut, device=str(self._device), batch=size, round=turn)
        if len(self.rows) > 1 and self._expected_s(size) > self._context.left_s():
            return left_out(why="there was not enough time left")
        start = time.perf_counter()
        try:
            peak = _peak(self._context, self._device, self._workload, size)
        except (Invalid, RuntimeError, MemoryError) as error:
            if not (isinstance(error, Invalid) or is_out_of_memory(error)):
                raise
            return left_out(why=(str(error) or "out of memory").splitlines()[0])
        self._times.append((size, time.perf_counter() - start))
        row = kind(device=str(self._device), batch=size, round=turn, peak_bytes=peak)
        self.rows.append(row)
        return row

    def _expected_s(self, size: int) -> float:
        """From the sizes so far: building a job takes the same time for all of them, steps do not."""
        fitted = fit([(1, rows) for rows, _ in self._times], [seconds for _, seconds in self._times])
        return fitted.coefficients[0] + size * fitted.coefficients[1] if fitted is not None else self._times[-1][1]


def _peak(context: ExperimentContext, device: torch.device, workload: Workload, size: int) -> int:
    """Peak bytes of building a job with batches of `size` and running two steps."""

    def steps() -> object:
        job = _job(context, device, workload, size)
        job.step()
        return job, job.step()

    return peak_bytes(device, steps)


def _job(context: ExperimentContext, device: torch.device, workload: Workload, size: int) -> Job:
    threads = context.spec.threads or 1
    return job_of(context.spec, str(device), workload, batch_size=size, accumulate=1, threads=threads)


def _held(context: ExperimentContext, device: torch.device, workload: Workload, size: int) -> Iterator[Held]:
    """Memory held before a job, with it, after `del`, and after it was released."""
    context.check()
    release(device)
    yield from _held_now(device, "before")
    job = _job(context, device, workload, size)
    loss = job.step()
    yield from _held_now(device, "after a step")
    del job, loss
    gc.collect()
    yield from _held_now(device, "after del")
    release(device)
    yield from _held_now(device, "after emptying")


def _held_now(device: torch.device, when: str) -> Iterator[Held]:
    row = partial(Held, device=str(device), when=when)
    if device.type != "cuda":
        yield row(what="resident", bytes=resident_bytes())
        return
    yield row(what="allocated", bytes=torch.cuda.memory_allocated(device))
    yield row(what="reserved", bytes=torch.cuda.memory_reserved(device))

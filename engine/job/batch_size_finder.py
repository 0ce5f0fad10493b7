"""The largest batch that fits into memory, found by taking full steps with larger and larger batches.

A batch is tried as a run would use it: build the job, time the threads, step, evaluate, copy the state of a checkpoint, step
again. The reported batch has been tried, and its peak is within the budget, a share of the free memory. On the CPU a
batch is not tried if extrapolation from the two batches before it predicts that it does not fit, because the kernel would
kill the process. On CUDA the allocator is limited to the budget and refuses the rest. The process must end afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import torch

from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.device.peak import measured_peak, release
from epochtop.engine.device.select import choose_device, free_bytes
from epochtop.engine.job import state
from epochtop.engine.job.evaluate import evaluating
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.job.workload import Workload
from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.requests import BatchFound
from epochtop.engine.protocol.spec import Invalid, RunSpec


@dataclass
class Search:
    """The batch sizes tried so far for one spec."""

    spec: RunSpec
    workload: Workload
    device: torch.device
    budget: int
    """Bytes that a batch may need."""
    tries: list[tuple[int, int | None]] = field(default_factory=list)
    """Batch sizes with the bytes they needed; None if memory ran out."""

    def fits(self, size: int) -> bool:
        """Take full steps with batches of `size`. Whether they stayed within the budget."""
        need: int | None = None
        try:
            with measured_peak(self.device) as peak:
                self._steps(size)
            need = peak.bytes
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        release(self.device)
        self.tries.append((size, need))
        return need is not None and need <= self.budget

    def _steps(self, size: int) -> None:
        spec = msgspec.structs.replace(self.spec, batch_size=size)
        workload = self.workload
        if workload.task is not None:  # one job only may use its model
            workload = workload.copied()
        job = prepare_job(spec, workload, checked=False)
        job.step()
        with evaluating(job):
            job.evaluator.evaluate(job.model, job.eval_batches)
        copies = state.weights(job), state.capture(job)
        loss = job.step()
        if self.device.type == "cuda":
            float(loss)  # raises errors of the device
        del copies

    def measurements(self) -> list[tuple[int, int]]:
        """Tries that did not run out of memory."""
        return [(size, need) for size, need in self.tries if need is not None]

    def row_bytes(self) -> int:
        """Memory of one more row: the slope between the two largest batches."""
        largest = sorted(self.measurements())[-2:]
        if len(largest) < 2:
            return largest[0][1] // largest[0][0] if largest else 0
        (rows, need), (more_rows, larger_need) = largest
        return max(0, larger_need - need) // (more_rows - rows)

    def predicted(self, size: int) -> int:
        """Memory of batches of `size`, extrapolated from the two largest ones tried."""
        largest, need = max(self.measurements())
        return need + (size - largest) * self.row_bytes()


def find(spec: RunSpec, workload: Workload, margin: float, available: int | None = None) -> BatchFound:
    """Try powers of two, and finally all rows. Raises Invalid if not even the smallest batch fits.

    `margin` is the share of the free memory that a batch may need. `available` is the free memory in bytes, by default
    that of the device.
    """
    spec = msgspec.structs.replace(spec, processes=1, shard=False)
    device = choose_device(spec.device)
    rows = len(workload.train)  # type: ignore[arg-type]
    # the first job makes torch load libraries, which are not part of a batch's memory
    Search(spec, workload, device, 0).fits(min(2, rows))
    free = available if available is not None else free_bytes(device, exact=True)
    if free is None:
        raise Invalid("device", f"the free memory of {device} cannot be read; find-batch works on cpu and cuda")
    search = Search(spec, workload, device, int(margin * free))
    _limit_allocator(device, search.budget)
    best, ended = _grow(search, rows)
    return BatchFound(
        batch_size=best,
        rows=rows,
        device=str(device),
        row_bytes=search.row_bytes(),
        needed_bytes=dict(search.measurements())[best],
        budget_bytes=search.budget,
        available_bytes=free,
        margin=margin,
        tries=tuple(search.tries),
        ended=ended,
    )


def _limit_allocator(device: torch.device, budget: int) -> None:
    """Make torch's allocator on CUDA refuse more than the budget."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), device)


def _grow(search: Search, rows: int) -> tuple[int, str]:
    """The largest batch that fits, and why no larger one was tried."""
    size = min(2, rows)
    if not search.fits(size):
        smallest = 1 if search.workload.trains_on(1, search.spec) else size
        if size == smallest or not search.fits(smallest):
            raise Invalid(
                "batch_size",
                f"not even a batch of {'one row' if smallest == 1 else f'{smallest} rows, the least for this model,'} fits "
                f"into {format_bytes(search.budget)}: it {_why(search, smallest)}",
            )
        return 1, f"2 rows {_why(search, 2)}"
    while size < rows:
        larger = min(2 * size, rows)
        need = search.predicted(larger)
        if search.device.type == "cpu" and need > search.budget:
            return size, f"{larger:,} rows would need {format_bytes(need)}, by extrapolation"
        if not search.fits(larger):
            return size, f"{larger:,} rows {_why(search, larger)}"
        size = larger
    return size, "there are no more rows"


def _why(search: Search, size: int = 1) -> str:
    need = dict(search.tries).get(size)
    return "ran out of memory" if need is None else f"needed {format_bytes(need)}"

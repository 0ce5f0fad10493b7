"""The largest batch that fits, found by taking full steps with ever larger ones; in a process that ends afterwards.

A batch is tried as a run would use it: build the job, time the threads, step, evaluate, copy what would be saved,
step again. The batch that is named has been tried, and its peak lies within a margin of the free memory. On the CPU
a batch is not tried where the line through the two before it says that it would not fit, since the kernel would end
the process; on CUDA the allocator is held to the margin, and what it refuses does not fit.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field

import msgspec
import torch

from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.device.peak import measured_peak, release
from epochtop.engine.device.select import choose_device, free_bytes
from epochtop.engine.job import state
from epochtop.engine.job.job import build
from epochtop.engine.job.plan import make_plan
from epochtop.engine.job.workload import Workload
from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.requests import BatchFound
from epochtop.engine.protocol.spec import Invalid, RunSpec


@dataclass
class Search:
    """What has been tried so far of one spec."""

    spec: RunSpec
    workload: Workload
    device: torch.device
    budget: int
    tries: list[tuple[int, int | None]] = field(default_factory=list)

    def fits(self, size: int) -> bool:
        """Take full steps with batches of `size`; whether they stayed within the budget."""
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
        if workload.task is not None:  # its model is used up by a job
            task = dataclasses.replace(workload.task, model=copy.deepcopy(workload.task.model))
            workload = dataclasses.replace(workload, task=task)
        made = msgspec.structs.replace(make_plan(spec, workload, self.device), available_bytes=None)
        job = build(spec, workload, made, checked=False)
        job.step()
        job.evaluator.evaluate(job.model, job.eval_batches, job.average.tensors if job.average else None)
        kept = state.weights(job), state.capture(job)
        loss = job.step()
        if self.device.type == "cuda":
            float(loss)  # errors of the device show here
        del kept

    def measured_peak(self) -> list[tuple[int, int]]:
        """Tries that gave a figure."""
        return [(size, need) for size, need in self.tries if need is not None]

    def row_bytes(self) -> int:
        """Memory of one more row: the slope between the two largest batches."""
        known = sorted(self.measured_peak())[-2:]
        if len(known) < 2:
            return known[0][1] // known[0][0] if known else 0
        (few, less), (many, more) = known
        return max(0, more - less) // (many - few)

    def predicted(self, size: int) -> int:
        """What batches of `size` would need, on the line through the two largest that were tried."""
        largest, need = max(self.measured_peak())
        return need + (size - largest) * self.row_bytes()


def find(spec: RunSpec, workload: Workload, margin: float, available: int | None = None) -> BatchFound:
    """Try powers of two, and all rows at last. Raises Invalid where not even the smallest batch fits.

    `available` is the free memory in bytes; it is asked for where it is not given.
    """
    spec = msgspec.structs.replace(spec, processes=1, shard=False)
    device = choose_device(spec.device)
    rows = len(workload.train)  # type: ignore[arg-type]
    # the first job of a process loads what torch loads late, which is no need of a batch
    Search(spec, workload, device, 0).fits(min(2, rows))
    free = available if available is not None else free_bytes(device, exact=True)
    if free is None:
        raise Invalid("device", f"the free memory of {device} cannot be read; find-batch works on cpu and cuda")
    search = Search(spec, workload, device, int(margin * free))
    _hold(device, search.budget)
    best, ended = _grow(search, rows)
    return BatchFound(
        batch_size=best,
        rows=rows,
        device=str(device),
        row_bytes=search.row_bytes(),
        needed_bytes=dict(search.measured_peak())[best],
        budget_bytes=search.budget,
        available_bytes=free,
        margin=margin,
        tries=tuple(search.tries),
        ended=ended,
    )


def _hold(device: torch.device, budget: int) -> None:
    """Let torch's allocator refuse what is beyond the budget."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), device)


def _grow(search: Search, rows: int) -> tuple[int, str]:
    """The largest batch that fits, and why there is no larger one."""
    size = min(2, rows)
    if not search.fits(size):
        if size == 1 or not search.fits(1):
            raise Invalid(
                "batch_size",
                f"not even a batch of one row fits into {format_bytes(search.budget)}; {_why(search)}",
            )
        return 1, f"2 rows {_why(search, 2)}"
    while size < rows:
        larger = min(2 * size, rows)
        guessed = search.predicted(larger)
        if search.device.type == "cpu" and guessed > search.budget:
            return (
                size,
                f"{larger:,} rows would need {format_bytes(guessed)}, by the line through the two before",
            )
        if not search.fits(larger):
            return size, f"{larger:,} rows {_why(search, larger)}"
        size = larger
    return size, "there are no more rows"


def _why(search: Search, size: int = 1) -> str:
    need = dict(search.tries).get(size)
    return "were out of memory" if need is None else f"needed {format_bytes(need)}"

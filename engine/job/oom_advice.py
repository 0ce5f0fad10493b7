"""Out of memory: the failed allocation, the free memory, what would help, and the same steps in smaller batches."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import msgspec
import torch

from epochtop.engine.device.select import free_bytes
from epochtop.engine.job import memory_estimate
from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.spec import RunSpec

if TYPE_CHECKING:
    from epochtop.engine.job.job import Job

UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
WORTHWHILE = 0.98
"""A change helps if it brings the needed memory below this share."""


def asked(error: BaseException) -> int | None:
    """Bytes of the failed allocation, from torch's message; None if it has none."""
    return _size(r"tried to allocate ([\d.]+) (bytes|[KMGT]iB)", error)


def was_free(error: BaseException, device: torch.device) -> int | None:
    """Bytes that were free, from torch's message; else the bytes that are free now."""
    reported = _size(r"of which ([\d.]+) (bytes|[KMGT]iB) is free", error)
    return reported if reported is not None else free_bytes(device, exact=True)


def _size(pattern: str, error: BaseException) -> int | None:
    match = re.search(pattern, str(error), re.IGNORECASE)
    return int(float(match[1]) * UNITS[match[2]]) if match else None


def message(error: BaseException, device: torch.device) -> str:
    """The failed allocation and the free memory, as text."""
    size, free = asked(error), was_free(error, device)
    allocation = "an allocation failed" if size is None else f"an allocation of {format_bytes(size)} failed"
    remainder = "free memory unknown" if free is None else f"{format_bytes(free)} were free"
    return f"out of memory on {device}: {allocation}, {remainder}"


# --- what would help ---------------------------------------------------------------------------------------------


def advice(job: Job) -> str:
    """Changes that would help this run, with their estimated memory."""
    with contextlib.suppress(Exception):  # a failure here must not hide the first one
        now = need(job.spec, job)
        helpful = [
            f"{how}: about {format_bytes(needed)}"
            for how, spec in changes(job)
            if (needed := need(spec, job)) < WORTHWHILE * now
        ]
        if helpful:
            return f"estimated to need {format_bytes(now)}; {'; '.join(helpful)}"
    return "use a smaller model, or device cpu" if job.device.type != "cpu" else "use a smaller model"


def need(spec: RunSpec, job: Job) -> int:
    """Estimated bytes of a step of `spec` on the data of `job`, including the rows."""
    rows = job.plan.rows
    summary = memory_estimate.summary_of(spec, job.workload, min(spec.batch_size or rows, rows))
    return memory_estimate.memory_bytes(spec, summary) + memory_estimate.rows_bytes(spec, job.workload, job.device)


def changes(job: Job) -> list[tuple[str, RunSpec]]:
    """Settings that need less memory, as written on the command line, with their spec."""
    spec, rows = job.spec, job.plan.rows
    settings: list[tuple[str, RunSpec]] = []
    size = min(spec.batch_size or rows, rows)
    if size > 1:
        half = msgspec.structs.replace(spec, batch_size=-(-size // 2))
        settings.append((f"batch_size {half.batch_size}", half))
    same_steps = smaller(spec, rows)
    if same_steps is not None:
        settings.append(
            (f"batch_size {same_steps.batch_size} with accumulate {same_steps.accumulate}, the same steps", same_steps)
        )
    if spec.precision in ("fp32", "tf32"):
        settings.append(("precision bf16", msgspec.structs.replace(spec, precision="bf16")))
    if spec.processes > 1 and not spec.shard:
        settings.append(("shard", msgspec.structs.replace(spec, shard=True)))
    blocks = spec.model != "mlp" or len(spec.hidden) > 1
    if not spec.checkpoint_activations and not spec.task and blocks:
        settings.append(("checkpoint_activations", msgspec.structs.replace(spec, checkpoint_activations=True)))
    return settings


def smaller(spec: RunSpec, rows: int) -> RunSpec | None:
    """The same steps with half the batch size and twice the accumulation; None for batches of one row.

    The gradient of a step remains the mean over the same rows. So a batch size that is odd is divided by its smallest
    factor, unless a step takes all rows of an epoch.
    """
    size = min(spec.batch_size or rows, rows)
    if size < 2:
        return None
    if not spec.batch_size or spec.batch_size * spec.accumulate >= rows:
        return msgspec.structs.replace(spec, batch_size=-(-size // 2), accumulate=2 * spec.accumulate)
    factor = next(factor for factor in range(2, size + 1) if size % factor == 0)
    return msgspec.structs.replace(spec, batch_size=size // factor, accumulate=factor * spec.accumulate)


def batch_words(spec: RunSpec) -> str:
    """Batch size and accumulation as text, for example `32 × 2`."""
    size = f"{spec.batch_size:,}" if spec.batch_size else "all rows"
    return size if spec.accumulate == 1 else f"{size} × {spec.accumulate}"

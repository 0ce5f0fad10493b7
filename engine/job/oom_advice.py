"""Out of memory: what was asked, what was free, what would help, and the same steps in smaller pieces."""

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
WORTH = 0.98
"""What helps brings the need below this share of what it is."""


def asked(error: BaseException) -> int | None:
    """Bytes of the allocation that failed, as torch tells them."""
    return _size(r"tried to allocate ([\d.]+) (bytes|[KMGT]iB)", error)


def was_free(error: BaseException, device: torch.device) -> int | None:
    """Bytes that were free, as torch tells them; else what is free now."""
    told = _size(r"of which ([\d.]+) (bytes|[KMGT]iB) is free", error)
    return told if told is not None else free_bytes(device, exact=True)


def _size(pattern: str, error: BaseException) -> int | None:
    found = re.search(pattern, str(error), re.IGNORECASE)
    return int(float(found[1]) * UNITS[found[2]]) if found else None


def message(error: BaseException, device: torch.device) -> str:
    """What was asked and what was free."""
    wanted, free = asked(error), was_free(error, device)
    asked_for = (
        f"{format_bytes(wanted)} were asked for" if wanted is not None else "torch does not say how much was asked"
    )
    there = f"{format_bytes(free)} were free" if free is not None else "how much was free is not known"
    return f"out of memory on {device}: {asked_for}, {there}"


# --- what would help ---------------------------------------------------------------------------------------------


def advice(job: Job) -> str:
    """What would help, each with its estimated need; only what applies to this run and needs less."""
    with contextlib.suppress(Exception):  # whatever fails here must not hide what failed before
        now = need(job.spec, job)
        found = [
            f"{how}: about {format_bytes(needed)}"
            for how, spec in changes(job)
            if (needed := need(spec, job)) < WORTH * now
        ]
        if found:
            return f"estimated to need {format_bytes(now)}; {'; '.join(found)}"
    return "use a smaller model, or device cpu" if job.device.type != "cpu" else "use a smaller model"


def need(spec: RunSpec, job: Job) -> int:
    """Estimated bytes of a step of `spec` on the data of `job`, with the rows."""
    rows = job.plan.rows
    summary = memory_estimate.summary_of(spec, job.workload, min(spec.batch_size or rows, rows))
    return memory_estimate.memory_bytes(spec, summary) + job.workload.bytes


def changes(job: Job) -> list[tuple[str, RunSpec]]:
    """Fields that lower the need, as they are written on the command line, with the spec that has them."""
    spec, rows = job.spec, job.plan.rows
    found: list[tuple[str, RunSpec]] = []
    size = min(spec.batch_size or rows, rows)
    if size > 1:
        half = msgspec.structs.replace(spec, batch_size=-(-size // 2))
        found.append((f"batch_size {half.batch_size}", half))
    same = smaller(spec, rows)
    if same is not None:
        found.append((f"batch_size {same.batch_size} with accumulate {same.accumulate}, the same steps", same))
    if spec.precision in ("fp32", "tf32"):
        found.append(("precision bf16", msgspec.structs.replace(spec, precision="bf16")))
    if spec.processes > 1 and not spec.shard:
        found.append(("shard", msgspec.structs.replace(spec, shard=True)))
    blocks = spec.model != "mlp" or len(spec.hidden) > 1
    if not spec.checkpoint_activations and not spec.task and blocks:
        found.append(("checkpoint_activations", msgspec.structs.replace(spec, checkpoint_activations=True)))
    return found


def smaller(spec: RunSpec, rows: int) -> RunSpec | None:
    """The same steps from smaller batches: half of it and twice the accumulation; None for batches of one row.

    The gradient of a step stays the mean over the same rows. A batch that cannot be halved is divided by its
    smallest factor, since other rows would come into the step otherwise; one that is a whole epoch need not be.
    """
    size = min(spec.batch_size or rows, rows)
    if size < 2:
        return None
    if not spec.batch_size or spec.batch_size * spec.accumulate >= rows:
        return msgspec.structs.replace(spec, batch_size=-(-size // 2), accumulate=2 * spec.accumulate)
    factor = next(factor for factor in range(2, size + 1) if size % factor == 0)
    return msgspec.structs.replace(spec, batch_size=size // factor, accumulate=factor * spec.accumulate)


def batch_words(spec: RunSpec) -> str:
    """`32 × 2`: the batch and its accumulation."""
    size = f"{spec.batch_size:,}" if spec.batch_size else "all rows"
    return size if spec.accumulate == 1 else f"{size} × {spec.accumulate}"

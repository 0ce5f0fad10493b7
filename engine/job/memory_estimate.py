"""Estimates of the memory that a run needs, compared with the free memory before the run begins."""

from __future__ import annotations

import torch

from epochtop.engine.data.permutation import MOST_LISTED_ROWS
from epochtop.engine.device.select import free_bytes
from epochtop.engine.job.workload import Workload
from epochtop.engine.models import summary
from epochtop.engine.models.summary import held_bytes, memory_bytes, scaled
from epochtop.engine.models.trace import measure
from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.requests import ModelSummary, Plan
from epochtop.engine.protocol.spec import Invalid, RunSpec

ORDER_BYTES = 8
"""Size of a row's number in the order of an epoch."""
SHARE = 0.5
"""Rows are kept on the device if they need at most this share of its free memory."""


def summary_of(spec: RunSpec, workload: Workload, rows: int) -> ModelSummary:
    """The model of a run and its memory for batches of `rows`. Raises Invalid if the model does not accept the rows."""
    if workload.task is not None:
        few = min(2, len(workload.train))  # type: ignore[arg-type]
        example = workload.task.batch(few)[0]
        return scaled(measure(workload.task.model, example, few), rows)
    assert workload.preparation is not None
    return summary.summary_of(spec, workload.preparation, workload.outputs, rows, workload.shape)


def check(plan: Plan, spec: RunSpec) -> None:
    """Raise Invalid if a run does not fit into memory."""
    needed, available = plan.memory_bytes, plan.available_bytes
    if available is None or needed <= available:
        return
    name, value = _size_field(spec)
    raise Invalid(
        name,
        f"{value}: {plan.parameters:,} parameters and batches of {spec.batch_size or plan.rows:,} rows need about "
        f"{format_bytes(needed)}, but {plan.device} has {format_bytes(available)} free; use smaller layers or a smaller batch",
    )


def checkpoint_bytes(spec: RunSpec, plan: Plan) -> int:
    """Size on the disk of what one save writes: `last` with the optimizer's state and the order of rows, and `best`."""
    order_bytes = ORDER_BYTES * plan.rows if plan.rows <= MOST_LISTED_ROWS else 0
    return summary.checkpoint_bytes(spec, plan.parameters, plan.parameters) + order_bytes


def _size_field(spec: RunSpec) -> tuple[str, str]:
    """The field that determines the size of the model, and its value."""
    if spec.task:
        return "task", spec.task
    if spec.model == "mlp":
        return "hidden", ", ".join(map(str, spec.hidden)) or "none"
    return "width", str(spec.width)


__all__ = ["check", "held_bytes", "memory_bytes", "resident", "summary_of"]


def rows_bytes(spec: RunSpec, workload: Workload, device: torch.device) -> int:
    """Memory of `device` that the rows need. Rows that are streamed to a GPU need none of it."""
    if device.type == "cpu":
        return workload.memory_bytes
    free = free_bytes(device)
    streamed = spec.placement == "stream" or (
        spec.placement == "auto" and free is not None and workload.bytes > SHARE * free
    )
    return 0 if streamed else workload.bytes


def resident(spec: RunSpec, workload: Workload, device: torch.device) -> tuple[bool, list[str]]:
    """Whether the rows are kept on `device`, and a note that says why."""
    if device.type == "cpu" and spec.placement != "stream":
        return True, []  # the host's memory is the device's
    free = free_bytes(device, exact=True)
    if spec.placement == "device":
        return True, [f"rows are kept on {device}, as asked"]
    if spec.placement == "stream":
        return False, ["rows are streamed from the host, as asked"]
    if free is None or workload.bytes <= SHARE * free:
        return True, []
    return False, [
        f"rows are streamed: {format_bytes(workload.bytes)} is more than half of the {format_bytes(free)} free on {device}"
    ]

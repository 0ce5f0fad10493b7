"""Fields and rows of the experiment `parallel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.datasets import declared

PROCESSES, THREADS, DATA_PARALLEL = "processes", "threads", "DataParallel"


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most processes."""

    most_processes: Annotated[
        int, declared("processes to try, at most one per usable CPU or GPU", "experiment", "processes", ge=2, le=64)
    ] = 4


class StepTime(Measurement, frozen=True, kw_only=True, tag="step"):
    """A step of one process, or of several processes, threads or GPUs."""

    device: str
    way: str
    """`processes`, `threads` or `DataParallel`."""
    parts: int
    """Number of processes, threads or GPUs."""
    rows: int
    """Rows of data in the step."""
    own: int
    round: int
    repeats: int = 0
    seconds: float


class SpeedUp(Measurement, frozen=True, kw_only=True, tag="speed_up"):
    """The speed per row of data relative to one process in the same round."""

    device: str
    way: str
    parts: int
    round: int
    speed_up: float
    efficiency: float
    """Speed-up divided by the parts, in percent."""


def per_row(steps: Sequence[StepTime]) -> list[StepTime]:
    """The same steps with seconds per row of data: the shares of a batch may not add up to it exactly."""
    return [msgspec.structs.replace(step, seconds=step.seconds / step.rows) for step in steps if step.rows]


def speed_ups(steps: Sequence[StepTime]) -> list[SpeedUp]:
    """The speed-ups of the steps of one round."""
    per_row_steps = per_row(steps)
    one = next((step for step in per_row_steps if step.parts == 1), None)
    if one is None:
        return []
    ratios = ((step, one.seconds / step.seconds) for step in per_row_steps if step.parts > 1)
    return [
        SpeedUp(
            device=step.device,
            way=step.way,
            parts=step.parts,
            round=step.round,
            speed_up=ratio,
            efficiency=100 * ratio / step.parts,
        )
        for step, ratio in ratios
    ]

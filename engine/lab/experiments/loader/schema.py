"""Fields and rows of the experiment `loader`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.datasets import declared

SAME = "one batch"
"""The source that repeats one batch on the device: no source can be faster."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most workers."""

    most_workers: Annotated[
        int, declared("worker processes to try, at most one per usable CPU", "experiment", "processes", ge=0, le=64)
    ] = 4


class JobFacts(Measurement, frozen=True, kw_only=True, tag="job"):
    """The source that the job uses now."""

    device: str
    way: str
    """`resident`, `streamed`, or a DataLoader such as `2 workers pinned`."""
    batches: int
    """Batches per epoch."""
    sets: str
    """The field of a run that changes the source: `placement` or `workers`."""


class SourceTime(Measurement, frozen=True, kw_only=True):
    """A time with one source of batches; the base of the three kinds below."""

    device: str
    way: str
    """The source."""
    workers: int | None = None
    """Of a DataLoader."""
    pinned: int | None = None
    """Whether a DataLoader pins memory."""
    own: int
    round: int
    repeats: int = 0
    seconds: float


class StepTime(SourceTime, frozen=True, kw_only=True, tag="step"):
    """A training step fed by the source."""

    wait_s: float | None = None
    """Seconds of it from asking for a batch to having it. Measured on the CPU; other devices work while the host waits."""


class BatchTime(SourceTime, frozen=True, kw_only=True, tag="batch"):
    """A batch on the device, without a step."""


class StartTime(SourceTime, frozen=True, kw_only=True, tag="start"):
    """Starting and stopping the workers of a DataLoader."""

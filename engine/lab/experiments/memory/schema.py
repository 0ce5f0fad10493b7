"""Rows of the experiment `memory`."""

from __future__ import annotations

from epochtop.engine.lab.measurements import Measurement


class JobFacts(Measurement, frozen=True, kw_only=True, tag="job"):
    """The training rows of the job, and the free memory of the device."""

    device: str
    rows: int
    free_bytes: int | None
    """None if it is unknown."""


class Peak(Measurement, frozen=True, kw_only=True, tag="peak"):
    """Peak memory with one batch size, for the fit."""

    device: str
    batch: int
    round: int
    peak_bytes: float


class Check(Measurement, frozen=True, kw_only=True, tag="check"):
    """Peak memory with a batch size that is not in the fit."""

    device: str
    batch: int
    round: int
    peak_bytes: float


class LeftOut(Measurement, frozen=True, kw_only=True, tag="left_out"):
    """A batch size that was not measured, with the reason."""

    device: str
    batch: int
    round: int
    why: str


class Held(Measurement, frozen=True, kw_only=True, tag="held"):
    """Memory of the process, or of torch on a GPU, at one point in the life of a job."""

    device: str
    when: str
    """`before`, `after a step`, `after del` or `after emptying`."""
    what: str
    """`resident`, `allocated` or `reserved`."""
    bytes: int | None

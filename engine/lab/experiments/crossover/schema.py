"""Rows of the experiment `crossover`."""

from __future__ import annotations

from epochtop.engine.lab.measurements import Measurement


class JobStep(Measurement, frozen=True, kw_only=True, tag="job"):
    """A step of the user's job."""

    device: str
    model: str
    """Always `yours`."""
    width: int | None = None
    """Always None."""
    batch: int
    mflop: float
    """Work of a step: MFLOP of its products and convolutions."""
    round: int
    repeats: int = 0
    seconds: float


class GridStep(Measurement, frozen=True, kw_only=True, tag="grid"):
    """A step of a model of one width, with one batch size."""

    device: str
    model: str
    width: int
    batch: int
    mflop: float
    """Work of a step: MFLOP of its products and convolutions."""
    round: int
    repeats: int = 0
    seconds: float


class Limit(Measurement, frozen=True, kw_only=True, tag="limit"):
    """The first point of the grid that was left out."""

    device: str
    model: str
    width: int
    batch: int
    why: str
    """`time`, or an error message."""

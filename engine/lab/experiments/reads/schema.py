"""Fields and rows of the experiment `reads`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.datasets import declared


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The length of the run that times are given for."""

    steps: Annotated[
        int, declared("steps of the run that times are given for", "experiment", "steps", ge=1000, le=10**9)
    ] = 20_000


class Operators(Measurement, frozen=True, kw_only=True, tag="operators"):
    """Operators that a step of the plain loop calls: forward, backward and update."""

    device: str
    operators: int


class RunTime(Measurement, frozen=True, kw_only=True, tag="run"):
    """A run with one reading interval, from the median time of a step in a short block."""

    device: str
    loop: str
    """`plain`, or `epochtop` for the loop with a loss window."""
    every: int
    round: int
    repeats: int = 0
    seconds: float
    steps: int
    reads: int


class ReadTime(Measurement, frozen=True, kw_only=True, tag="read"):
    """A part of a read in a short block, the clock's own time subtracted."""

    device: str
    part: str
    """`call`: `loss.item()` after a step · `alone`: the same, repeated on a ready loss · `wait`: for the device, before
    the call · `clock`: the clock itself."""
    round: int
    repeats: int = 0
    seconds: float


class LaunchTime(Measurement, frozen=True, kw_only=True, tag="launch"):
    """One operator with nothing to compute."""

    device: str
    round: int
    repeats: int = 0
    seconds: float

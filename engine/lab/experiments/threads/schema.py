"""Rows of the experiment `threads`."""

from __future__ import annotations

from epochtop.engine.lab.measurements import Measurement


class CpuFacts(Measurement, frozen=True, kw_only=True, tag="cpus"):
    """The CPUs that the process may use."""

    usable: int


class StepTime(Measurement, frozen=True, kw_only=True, tag="step"):
    """A step on some number of threads."""

    threads: int
    own: int
    round: int
    repeats: int = 0
    seconds: float

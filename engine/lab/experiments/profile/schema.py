"""Rows of the experiment `profile`."""

from __future__ import annotations

from epochtop.engine.lab.measurements import Measurement

OTHERS = "all others"
"""The name for all operators without a row of their own."""


class StepTime(Measurement, frozen=True, kw_only=True, tag="step"):
    """A step, with or without the profiler."""

    device: str
    round: int
    profiler: str
    """`with` or `without`."""
    own: int
    repeats: int = 0
    seconds: float


class GapTime(Measurement, frozen=True, kw_only=True, tag="gap"):
    """Time of a step without an operator on the host, or without a kernel on the GPU."""

    device: str
    round: int
    seconds: float
    share: float
    """Percent of the step."""


class OperatorTime(Measurement, frozen=True, kw_only=True, tag="operator"):
    """All calls of an operator in a step: self time, of its kernels on a GPU."""

    device: str
    round: int
    operator: str
    calls: float
    seconds: float
    share: float
    """Percent of the step."""


class LaneSpan(Measurement, frozen=True, kw_only=True, tag="span"):
    """An interval of one step, in seconds from its start."""

    lane: str
    start: float
    end: float


class TraceFile(Measurement, frozen=True, kw_only=True, tag="trace"):
    """The file with the Chrome trace."""

    path: str
    steps: int
    bytes: int

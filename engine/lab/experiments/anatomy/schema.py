"""Rows of the experiment `anatomy`."""

from __future__ import annotations

from epochtop.engine.lab.measurements import Measurement

PARTS = {
    "input": ("input-bound", "getting its batch"),
    "host": ("host-bound", "Python, autograd and other host work"),
    "launches": ("launch-bound", "launching its operators"),
    "compute": ("compute-bound", "computing"),
    "transfers": ("transfer-bound", "copying between host and device"),
    "reads": ("read-bound", "reading values from the device"),
}
"""Parts of a step: what a job is called if the part takes most of its time, and the part in words."""
ON_DEVICE = ("compute", "transfers")
"""Parts in which the device is busy."""


class JobFacts(Measurement, frozen=True, kw_only=True, tag="job"):
    """The job as it is, for what could be changed about it."""

    device: str
    batches: str
    """How rows reach a step: `whole`, `resident`, `streamed` or `loaded`."""
    rows: int
    """Training rows."""
    batch: int
    """Rows per batch."""
    threads: int
    cpus: int
    """CPUs that the process may use."""
    unfit: str
    """Why the step cannot be recorded as a graph; empty if it can."""
    bf16: int
    """Whether the device computes in bf16."""


class Operators(Measurement, frozen=True, kw_only=True, tag="operators"):
    """Operators in a step."""

    device: str
    operators: int


class Kernels(Measurement, frozen=True, kw_only=True, tag="kernels"):
    """Kernels in a step on a GPU."""

    device: str
    kernels: float


class LineRead(Measurement, frozen=True, kw_only=True, tag="read"):
    """A line of code that reads values in a step."""

    device: str
    place: str
    """`losses.py:12`; empty if no line of user code is involved."""
    function: str
    source: str
    reads: int
    """Reads per step."""


class StepTime(Measurement, frozen=True, kw_only=True, tag="step"):
    """The whole step, measured without instruments."""

    device: str
    round: int
    seconds: float


class LaunchTime(Measurement, frozen=True, kw_only=True, tag="launches"):
    """The operators of a step with nothing to compute."""

    device: str
    round: int
    seconds: float


class PartTime(Measurement, frozen=True, kw_only=True, tag="part"):
    """One of PARTS, or `unexplained`, the rest of the step."""

    device: str
    round: int
    part: str
    seconds: float


class IdleTime(Measurement, frozen=True, kw_only=True, tag="idle"):
    """Time of a step in which the GPU has nothing to do; it is part of other rows already."""

    device: str
    round: int
    seconds: float

"""Rows of the experiment `call`."""

from __future__ import annotations

from epochtop.engine.lab.measurements import Measurement

CALL, FORWARD, FUNCTION, HOOKED, HOOKED_FORWARD = (
    "model(x)",
    "model.forward(x)",
    "function(x)",
    "model(x) + hook",
    "model.forward(x) + hook",
)
"""Ways to call a module."""


class HookCounts(Measurement, frozen=True, kw_only=True, tag="hooks"):
    """How often hooks run in a number of calls, and in which order."""

    way: str
    calls: int
    order: str
    hook_before: int
    forward: int
    hook_after: int


class ModuleCalls(Measurement, frozen=True, kw_only=True, tag="modules"):
    """Modules called in a step of the job."""

    device: str
    loop: str
    """`plain` or `epochtop`."""
    calls: int


class CallTime(Measurement, frozen=True, kw_only=True, tag="call"):
    """One call of a module that does almost nothing."""

    module: str
    """`empty` or `linear`."""
    way: str
    round: int
    repeats: int = 0
    seconds: float


class StepTime(Measurement, frozen=True, kw_only=True, tag="step"):
    """A step of the plain loop, with its modules called one way."""

    device: str
    way: str
    round: int
    repeats: int = 0
    seconds: float

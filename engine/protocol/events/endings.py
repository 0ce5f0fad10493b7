"""Events that end a run. Imports msgspec only."""

from __future__ import annotations

from typing import Literal

import msgspec

from epochtop.engine.protocol.events.event import Event, UnixTime

Outcome = Literal["finished", "stopped", "diverged", "unsaved"]
"""How a run ended that did not crash; `unsaved` has no last checkpoint. A crash is the event :class:`Failed`."""


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """The learning rate that a range test suggests, with the values it follows from."""

    learning_rate: float
    """Suggested learning rate: `steepest_rate` rounded to two digits."""
    steepest_rate: float
    """Rate at which the smoothed loss fell fastest over the logarithm of the rate."""
    lowest_rate: float
    """Rate at which the smoothed loss was lowest."""
    tenth_of_lowest: float
    """A tenth of `lowest_rate`, the other common rule."""
    first_loss: float
    """Smoothed loss at the start."""
    lowest_loss: float
    """Lowest smoothed loss."""


class Finished(Event, frozen=True, kw_only=True):
    """Summary of a run that did not crash; its last event unless the run is resumed."""

    time: UnixTime
    """Unix time in seconds."""
    outcome: Outcome
    reason: str
    """Why the run ended, in one sentence."""
    advice: str = ""
    """What to try next; empty if there is nothing to say."""
    steps: int
    """Steps run in total."""
    epochs: float
    """Passes over the training rows."""
    seconds: float
    """Training time in seconds: with evaluations and saving, without set-up and pauses."""
    steps_per_second: float
    final_loss: float | None
    """Loss of the last step; None if it is not finite or no step ran."""
    best_loss: float | None
    """Lowest loss of a step; None if none was finite."""
    best_step: int | None
    """Step with the lowest loss."""
    diverged_step: int | None = None
    """First step whose loss was not finite; None if there was none."""
    test_loss: float | None = None
    """Loss on the test rows with the last weights; None without test rows or if it is not finite."""
    test_metric: float | None = None
    """Headline metric on the test rows with the last weights."""
    best_test_loss: float | None = None
    """Lowest loss of an evaluation."""
    metrics: dict[str, float | None] = {}
    """All metrics on the test rows with the last weights, by name."""
    device_reads: int
    """Number of device reads."""
    waited_seconds: float
    """Seconds the loop waited for the device."""
    suggestion: Suggestion | None = None
    """Suggested learning rate of a range test; None for other runs or if the loss never fell."""
    planned_memory_bytes: int | None = None
    """Memory that the plan estimated."""
    peak_memory_bytes: int | None = None
    """Peak memory: allocated by torch on the device, or the growth of the process on the CPU; None if unknown."""


class Failed(Event, frozen=True, kw_only=True):
    """The run ended with an error."""

    time: UnixTime
    """Unix time in seconds."""
    step: int
    """Step at which it failed."""
    message: str
    """What went wrong and where."""
    advice: str = ""
    """What to do about it; empty if unknown."""
    traceback: str = ""
    """Python traceback; empty if it would not help."""

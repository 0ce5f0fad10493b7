"""The fast path of the hooks: everything that a usual step looks at, in one object.

A usual step has one backward pass, from a scalar on the CPU, and the optimizer, its learning rate and everything else are as
in the step before. Between two steps, data and code leave the caches of the processor. What counts is therefore how many
objects the hooks touch, not how much they compute.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import Any

    from epochtop.recording.run import Run


def _no_optimizer() -> None:
    """In place of a weak reference."""
    return


class FastPath:
    """The optimizer whose next step is taken quickly, if it is usual; at first and after any other step, there is none."""

    __slots__ = (
        "entries",
        "expected_class",
        "inside",
        "loss",
        "loss_class",
        "previous",
        "rate",
        "reference",
        "run",
        "step",
        "track",
    )

    def __init__(self) -> None:
        self.inside = False
        """Whether a backward pass is running."""
        self.loss_class: Any = None
        """Class of the losses on the CPU; None before the first one."""
        self.expected_class: Any = None
        """The same while the next backward pass may be the only one of a usual step; else None."""
        self.loss: float | None = None
        """Loss of that backward pass; None before it."""
        self.reference: Any = _no_optimizer
        """Gives the optimizer."""
        self.rate: Any = None
        """Its learning rate, as it has it."""
        self.run: Run | None = None
        self.entries: deque[Any] | None = None
        """The queue of the run."""
        self.previous = 0.0
        """Time of the previous step."""
        self.step = 0
        """Number of the next step."""
        self.track: Any = None
        """The steps of the optimizer, an `OptimizerSteps`; None if there is none."""

    def enter(self, track: Any, run: Run) -> None:
        """The next step of this optimizer may be usual. The run has been told so."""
        self.track, self.run, self.entries = track, run, run._entries
        self.rate, self.previous, self.step = track.only_rate, track.previous, track.step
        self.loss, self.expected_class, self.reference = None, self.loss_class, track.reference

    def close(self) -> None:
        """Let the next step be none of these. Any thread may call it."""
        self.reference, self.expected_class = _no_optimizer, None

    def leave(self, waiting: list[Any]) -> None:
        """Bring the steps of the optimizer up to date; its loss joins those that wait for a step."""
        self.close()
        track, self.track = self.track, None
        if track is not None:
            track.previous, track.step = self.previous, self.step
        if self.loss is not None:
            waiting.append(self.loss)
            self.loss = None
